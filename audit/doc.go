// Package audit is the decision log: a transparency log in the C2SP formats (tlog-tiles, tlog-checkpoint, signed
// notes), kept in Postgres.
//
// Invariants it keeps:
//   - An append that was acknowledged is in the log, once, at the index of its receipt, and stays there unchanged.
//   - A decision id is in the log at most once; asking again gives the first receipt.
//   - Events that were enqueued in a committed transaction reach the log exactly once, in their order.
//   - No two checkpoints that contradict each other are ever signed.
//
// When it cannot keep one (Postgres is away, another sequencer took the log) it appends nothing and answers
// Unavailable: whoever needs the receipt has no answer to give either.
//
// decision appends; every domain enqueues its governance events in its own transaction; internal/api reads. The
// formats are in docs/formats/log.md.
package audit
