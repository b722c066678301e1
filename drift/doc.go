// Package drift says whether an endpoint still sees what its model was trained on.
//
// It owns the statistics (stats.go, pure), reference profiles, the hourly counts of what endpoints see, monitors and
// incidents, and keeps these invariants:
//   - A decision is counted at most once, and never makes a decision wait: what cannot be taken in is dropped and counted.
//   - Counts of two windows on one reference add up to the counts of both.
//   - A verdict keeps what it was computed from.
//   - One cause has one open incident.
//
// decision tells it of every decision (Observe); internal/api reads; a periodic job runs the monitors. When Postgres is
// away counts wait in memory, bounded, and are flushed later.
package drift
