// Package featurestore versions feature definitions, takes values in through one log per view version and serves
// online rows out of that log; its as-of kernel picks the same winner at any past moment.
//
// Invariants it keeps:
//   - A published definition and an accepted commit never change.
//   - One winner rule everywhere, online and offline: (event time, knowledge time, sequence), later wins.
//   - The as-of rule never takes a value from the future of either clock, and neither does an online read: a row whose
//     event time is ahead is served from that time on.
//   - The knowledge times of a log never go back: each is the commit's own, read under the log's lock.
//   - A batch id stands for its rows; a training set's digest for its recipe and its values.
//
// Postgres orders and keeps the commits. Every hub keeps the winners in memory and
// follows the log. When the log cannot be followed the rows in memory go on being served with their true ages; a view
// whose log was never read to its end is Unavailable, not empty. Files of others are decoded within bounds of memory.
package featurestore
