// Package evidence checks what a decision log hands out, without the hub, its database or its libraries: signed
// checkpoints (c2sp.org/tlog-checkpoint), inclusion proofs (c2sp.org/tlog-proof), consistency proofs (RFC 6962) and
// evidence bundles. It is for whoever was given a receipt or a bundle and trusts nothing but a verifier key.
//
// Invariants it keeps:
//   - Nothing is believed that the given key did not sign, directly or through hashes.
//   - There is one spelling of everything: what is accepted is written again as the same bytes.
//   - Nothing that was handed in can make it use more memory than MaxBundle or panic; every parser is fuzzed.
//
// A check that fails is a *waybill.Error with the code Corrupt, whose text begins with the entry or the member that is to
// blame; input that is no such thing at all has the code Invalid. It imports the standard library, the vocabulary, the
// Merkle proofs of transparency-dev and the signed notes of golang.org/x/mod, and is imported by package audit, which
// makes what is checked here. The formats are in docs/formats/log.md.
package evidence
