// Package decision runs endpoints: it is the one place where features, models, rules, gates and the log meet.
//
// Invariants it keeps:
//   - Nothing is ever answered from an endpoint without a leaf in the log. When the log cannot take the decision the
//     caller gets Unavailable and the decision never was.
//   - An endpoint revision never changes; a published document makes a new one.
//   - Only an approved model version whose bytes match its digest answers. When it is revoked, cannot be loaded, fails
//     or is too late, the revision's rule set answers and the leaf says why.
//   - The record of a decision holds the exact vector, so that a replay gives the same score bit for bit.
//
// A decision does no I/O before the log but what the feature store and the registry snapshot have in memory. Who may
// call is settled by internal/access before; decision trusts the actor it is given.
package decision
