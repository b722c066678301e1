package jobs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill/internal/pg"
)

// A node holds an advisory lock of Postgres for as long as it lives. The lock goes with the node's session, and the
// session with its process, however that ends; so every other node sees within seconds which jobs have nobody left who
// runs them, and gives them back. A node whose session breaks takes its lock again; what it runs meanwhile may be run by
// another node as well if that takes longer than lookEvery, so every work must bear that.

// nodePrefix begins the names of nodes that hold a lock. Jobs of others are left to River, which gives them up by time.
const nodePrefix = "alive-"

// lookEvery is how often a node looks for dead ones. It takes two looks in a row to call one dead.
const lookEvery = 2 * time.Second

const (
	lockNode       pg.SQL = `SELECT pg_advisory_lock(hashtextextended($1, 0))`
	selectBusy     pg.SQL = `SELECT DISTINCT attempted_by[array_upper(attempted_by, 1)] FROM river_job WHERE state = 'running'`
	tryLockNode    pg.SQL = `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))`
	giveBackJobsOf pg.SQL = `
UPDATE river_job SET state = CASE WHEN attempt < max_attempts THEN 'available' ELSE 'discarded' END::river_job_state,
    finalized_at = CASE WHEN attempt < max_attempts THEN NULL ELSE now() END, scheduled_at = now(),
    errors = array_append(errors, jsonb_build_object('at', now(), 'attempt', attempt, 'error', 'the node that ran it has died', 'trace', ''))
WHERE state = 'running' AND attempted_by[array_upper(attempted_by, 1)] = $1`
)

// liveness keeps one node's lock and looks after the jobs of the dead.
type liveness struct {
	*Client
	pool *pgxpool.Pool
	node string
	conn *pgx.Conn       // holds the lock; nil: none does
	gone map[string]bool // nodes that held no lock at the last look
}

// take opens a session and locks this node's name in it.
func (l *liveness) take(ctx context.Context) error {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("open session of node: %w", err)
	}
	conn := pooled.Hijack() // the lock is a state of the session, which never goes back to the pool
	if _, err := conn.Exec(ctx, string(lockNode), l.node); err != nil {
		l.conn = conn
		l.release(ctx)
		return fmt.Errorf("lock name of node: %w", err)
	}
	l.conn = conn
	return nil
}

// release ends the session.
func (l *liveness) release(ctx context.Context) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := l.conn.Close(closing); err != nil {
		l.logger.DebugContext(ctx, "the session of the node did not end in order", "error", err) // it ends with its socket
	}
	l.conn = nil
}

// run looks until ctx ends. take was called before.
func (l *liveness) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		err := error(nil)
		if l.conn == nil {
			err = l.take(ctx)
		}
		if err == nil {
			err = l.look(ctx)
		}
		if err != nil && ctx.Err() == nil {
			l.logger.WarnContext(ctx, "dead nodes cannot be looked for, their jobs wait", "error", err)
		}
		if l.conn != nil && l.conn.IsClosed() {
			l.conn = nil
			continue // other nodes should not see the name without its lock for long
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if l.conn != nil {
		l.release(ctx)
	}
}

// look gives back the jobs of nodes that hold no lock now and held none at the last look.
func (l *liveness) look(ctx context.Context) error {
	rows, err := l.conn.Query(ctx, string(selectBusy))
	if err != nil {
		return fmt.Errorf("select busy nodes: %w", err)
	}
	nodes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read busy nodes: %w", err)
	}
	gone := map[string]bool{}
	for _, node := range nodes {
		if node == l.node || !strings.HasPrefix(node, nodePrefix) {
			continue
		}
		var free bool
		if err := l.conn.QueryRow(ctx, string(tryLockNode), node).Scan(&free); err != nil {
			return fmt.Errorf("try lock of node: %w", err)
		}
		if !free {
			continue
		}
		if gone[node] = true; !l.gone[node] {
			continue
		}
		tag, err := l.conn.Exec(ctx, string(giveBackJobsOf), node)
		if err != nil {
			return fmt.Errorf("give back jobs: %w", err)
		}
		l.logger.WarnContext(ctx, "a node has died, its jobs are given back", "dead", node, "jobs", tag.RowsAffected())
	}
	l.gone = gone
	return nil
}
