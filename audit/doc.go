// Package audit is the decision log: a transparency log in the C2SP formats (tlog-tiles, tlog-checkpoint, signed
// notes), kept in Postgres.
//
// Invariants it keeps:
//   - An append that was acknowledged is in the log, once, at the index of its receipt, and stays there unchanged.
//   - A decision id is in the log at most once; asking again gives the first receipt.
//   - Events that were enqueued in a committed transaction reach the log exactly once, in their order.
//   - No two checkpoints that contradict each other are ever signed over one database and its successors. A database
//     that was restored from a backup knows nothing of what was signed after that backup: after a restore, compare with
//     a checkpoint that was kept elsewhere before the hub is started.
//   - The row and the payload beside a leaf are shown only when they are what the leaf says.
//
// When it cannot keep one (Postgres is away, another sequencer took the log) it appends nothing and answers
// Unavailable: whoever needs the receipt has no answer to give either.
//
// decision appends; every domain enqueues its governance events in its own transaction; internal/api reads. The
// formats are in docs/formats/log.md.
package audit
