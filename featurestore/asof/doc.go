// Package asof joins a spine (who and when) with the history of a view, on Arrow arrays. It is pure: no clock, no
// database, no bucket; what it reads comes through Source, and what does not fit into memory goes to files in a folder
// that the caller names. It owns one invariant: a row of the result is the winner of its key among the rows that were
// true and known then, and the result has as many rows as the spine.
//
// The rules. A row of the history can be seen from a row of the spine when
//
//	event     ≤ at                      it was true by then
//	event     ≥ at − ttl                and is not too old; ttl 0 is no bound
//	knowledge ≤ at + delay  or  cutoff  and the hub knew it: by the row's own time, or by one time for all
//	seq       ≤ through                 of the commits that are looked at; 0 is all
//
// all inclusive, in µs. Among those the last one in the order (event, knowledge, seq, place within its commit) wins, and
// its nulls are its values: it is the row that wins, not the last value that is not null.
//
// The way of a join. Keys are hashed (see Hash). A history comes as sources, each sorted by (hash, key, event, knowledge,
// seq) and cut into parts by ranges of the hash. The spine is sorted by hash once. First every part's keys and clocks are
// read, in parallel, and met with its stretch of the spine: a merge by hash, then a binary search by event. Then the
// features are read of the parts that have a winner, and of no other.
//
// Memory. The spine's keys and times and the result are held, some 70 bytes and the values for each row of the spine; of
// the history, Workers parts at a time. A Sorter, which makes a source of rows in any order, holds at most its budget and
// spills what is beyond it. A part is at least all rows with one key.
//
// Arrays that are made here are the garbage collector's: they need no Release.
package asof
