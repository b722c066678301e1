// Package registry owns models, their versions, artifacts, approvals and aliases.
//
// Invariants:
//
//   - Versions of a model are numbered 1, 2, 3 … without a gap.
//   - A version is writable while it is a draft. Submit freezes it: afterwards no byte, no file and no field changes,
//     only the state moves, and only as Next allows.
//   - A version becomes approved by a person who is none of its authors (creator, uploaders, submitter), and the
//     approval is bound to the root digest, the feature service version and the training set that were looked at.
//   - Bytes are content-addressed in the bucket and checked against their digest whenever they are read.
//   - Every change is one transaction with its entry for the decision log and its lineage edges; changes that other
//     nodes must see (anything but edits of drafts) also notify the channel "registry".
//
// internal/api and decision call it. Who may call which method is internal/access's to decide; this package adds the
// rules that no policy may switch off (four eyes, people approve). When Postgres or the bucket is away, a method
// returns an error and has changed nothing that can be seen: an upload that was stored but not recorded leaves an
// object in the bucket that no version names. Bytes that no longer match their digest are answered with
// waybill.Corrupt and never with their content; they are mended by restoring the object, not by this package.
package registry
