// Package lineage owns the graph of what was made from what: nodes are versions (never bare names), edges say that
// one version came from another and since when.
//
// Invariant: the graph is append-only and complete. An edge is recorded in the transaction of the change that makes
// it true, so there is no version without its edges and no edge of a change that was rolled back; edges are never
// updated or removed, so the graph can be read as of any past time. Recording an edge again changes nothing: the
// first valid-from stays.
//
// Any domain package may call Record with its own transaction. Graph answers reachability for internal/api and for
// decision. When the database is away both return an error and have done nothing; a caller must then roll back.
//
// As-of reads filter on the time of the change, not of its commit: an edge of a transaction that was still open at T
// appears under T once it commits. Transactions here are short, so this concerns the last few milliseconds only.
package lineage
