// Package score turns model bytes and a vector into a score and its exact contributions. It is pure: no I/O, no
// clock, no state beyond what Load returns, so that a decision replayed from its record gives the same bits.
//
// The invariant: bytes from anywhere give a Model or an error, never a panic, an endless loop or unbounded memory;
// and a loaded model predicts what the library that wrote it predicts. Anybody may call it; a Model is immutable and
// safe for concurrent use, a Scratch belongs to one goroutine at a time.
//
// Sources of the formats: the text model of LightGBM (v4), the JSON model schema of XGBoost. Contributions are
// path-dependent TreeSHAP (Lundberg et al., arXiv 1802.03888, algorithm 2), on the raw score.
package score
