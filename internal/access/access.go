package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// Env is the kind of hub that a token is for; it stands in the token so that people see what they hold.
type Env string

// The environments.
const (
	Dev  Env = "dev"
	Live Env = "live"
)

// Config of an Access.
type Config struct {
	// Env is written into tokens and demanded of them. Defaults to Live.
	Env Env
	// Clock tells when tokens expire. Defaults to waybill.SystemClock.
	Clock waybill.Clock
	// Logger takes what no caller is told. Defaults to discarding.
	Logger *slog.Logger
	// Poll is how often the revision is read from Postgres in case a notification was lost. Defaults to 500 ms.
	Poll time.Duration
	// MaxStale is how long Run may be without an answer from Postgres before nobody is let in. Defaults to 30 s.
	MaxStale time.Duration
}

// Access answers who is calling and whether they may. It is safe for concurrent use and does not own the pool.
type Access struct {
	pool     *pgxpool.Pool
	env      Env
	clock    waybill.Clock
	logger   *slog.Logger
	poll     time.Duration
	maxStale time.Duration

	snap       atomic.Pointer[snapshot]
	refreshing sync.Mutex  // one reader of the policy at a time; the others find its result
	cutOff     atomic.Bool // Postgres has been silent for longer than maxStale
	denied     denials
}

const (
	selectRev pg.SQL = `SELECT rev FROM access.policy_rev`
	bumpRev   pg.SQL = `UPDATE access.policy_rev SET rev = rev + 1 RETURNING rev`
	notify    pg.SQL = `SELECT pg_notify('policy', '')`
)

// Open reads the policy, brings the built-in roles in Postgres up to this binary's, and compiles the first snapshot.
// Until Run is running, only this node's own changes are seen.
func Open(ctx context.Context, pool *pgxpool.Pool, c Config) (*Access, error) {
	if pool == nil {
		return nil, errors.New("open access: a pool is needed")
	}
	a := &Access{pool: pool, env: c.Env, clock: c.Clock, logger: c.Logger, poll: c.Poll, maxStale: c.MaxStale}
	if a.env == "" {
		a.env = Live
	}
	if a.env != Dev && a.env != Live {
		return nil, waybill.InvalidField("env", "is not an environment; give dev or live")
	}
	if a.clock == nil {
		a.clock = waybill.SystemClock
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	if a.poll <= 0 {
		a.poll = 500 * time.Millisecond
	}
	if a.maxStale <= 0 {
		a.maxStale = 30 * time.Second
	}
	a.denied.pending = map[denialKey]*denial{}
	a.snap.Store(&snapshot{rev: -1})
	if err := a.seedRoles(ctx); err != nil {
		return nil, err
	}
	if err := a.refresh(ctx, 0); err != nil {
		return nil, err
	}
	return a, nil
}

// Run follows changes that other nodes make and writes what this one has gathered (last uses, denials), until ctx
// ends; it then writes the rest and returns nil. It outlives failures of Postgres: they are logged and tried again.
func (a *Access) Run(ctx context.Context) error {
	// The watchdog counts real time, whatever the injected clock says, from the last answer of Postgres.
	watchdog := time.AfterFunc(a.maxStale, func() {
		a.cutOff.Store(true)
		a.logger.Error("policy is stale; refusing all callers", slog.Duration("max_stale", a.maxStale))
	})
	defer watchdog.Stop()
	var g errgroup.Group
	g.Go(func() error {
		failing := false
		err := pg.Listen(ctx, a.pool, "policy", a.poll, func(ctx context.Context) error {
			err := a.follow(ctx)
			switch {
			case err == nil:
				watchdog.Reset(a.maxStale)
				if a.cutOff.Swap(false) || failing {
					a.logger.Info("policy is followed again", slog.Int64("policy_rev", a.Rev()))
				}
			case ctx.Err() == nil && !failing:
				a.logger.Error("cannot follow policy", slog.Any("error", err)) // once per outage
			}
			failing = err != nil
			return nil
		})
		if err != nil {
			return fmt.Errorf("listen to policy: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		a.gather(ctx)
		return nil
	})
	g.Go(func() error {
		a.rebuildNowAndThen(ctx)
		return nil
	})
	return g.Wait()
}

// rebuildEvery is how often a node reads the whole policy though it has followed every change: it bounds how long a node
// can be wrong in a way that nobody thought of, such as a database that was put back while it went on, and drops what is
// long dead.
const rebuildEvery = time.Hour

func (a *Access) rebuildNowAndThen(ctx context.Context) {
	tick := time.NewTicker(rebuildEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := a.rebuild(ctx); err != nil && ctx.Err() == nil {
			a.logger.Error("cannot read the whole policy; going on with what was followed", slog.Any("error", err))
		}
	}
}

// rebuild reads and compiles the whole policy while changes are followed, and holds them up only for what has changed in
// the meantime.
func (a *Access) rebuild(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	p, err := a.load(ctx, -1)
	if err != nil {
		return err
	}
	fresh := compile(p, a.snap.Load())
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	switch p, err = a.load(ctx, fresh.rev); {
	case err != nil:
		return err
	case p != nil && p.since:
		fresh = update(p, fresh, a.clock().Add(-deadTokens))
	case p != nil:
		fresh = compile(p, a.snap.Load())
	}
	a.snap.Store(fresh)
	return nil
}

// follow asks for the revision, which is one tiny query, and reads the policy when it has moved.
func (a *Access) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // a silent network must not hold the loop
	defer cancel()
	var rev int64
	if err := a.pool.QueryRow(ctx, string(selectRev)).Scan(&rev); err != nil {
		return fmt.Errorf("select policy revision: %w", err)
	}
	if rev == a.Rev() {
		return nil
	}
	return a.refresh(ctx, 0)
}

// refresh reads what changed of the policy and compiles that, unless another call has already brought revision atLeast (0 = whatever
// Postgres has now). Reads stay on the old snapshot until the new one is complete.
func (a *Access) refresh(ctx context.Context, atLeast int64) error {
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	old := a.snap.Load()
	if atLeast > 0 && old.rev >= atLeast {
		return nil
	}
	p, err := a.load(ctx, old.rev)
	if err != nil {
		return err
	}
	if p == nil { // nothing has changed
		return nil
	}
	if p.since {
		a.snap.Store(update(p, old, a.clock().Add(-deadTokens)))
	} else {
		a.snap.Store(compile(p, old))
	}
	return nil
}

// Rev is the revision of the policy by which this node answers now. It goes into every decision's leaf.
func (a *Access) Rev() int64 { return a.snap.Load().rev }

// AwaitRev makes sure that this node answers by revision least or a later one, which is how a caller reads its own
// change on another node. It reads Postgres once at most; a revision that does not exist yet is a Conflict.
func (a *Access) AwaitRev(ctx context.Context, least int64) error {
	if a.Rev() >= least {
		return nil
	}
	if err := a.refresh(ctx, least); err != nil {
		return waybill.Wrap(waybill.Unavailable, err, "the policy cannot be read; try again")
	}
	if rev := a.Rev(); rev < least {
		return waybill.Errorf(waybill.Conflict, "policy revision %d does not exist yet; the newest is %d", least, rev)
	}
	return nil
}

// errUnchanged rolls a change back that would change nothing: no revision, no entry in the log.
var errUnchanged = errors.New("nothing to change")

// change runs f in one transaction with a new revision, a notification and the entries for the log that f returns, and
// then reads the policy back, so that the change holds here when it returns. All changes of the hub take turns on the
// row of the revision. The result is the revision from which the change holds.
func (a *Access) change(ctx context.Context, f func(tx pgx.Tx, rev int64) ([]audit.Event, error)) (int64, error) {
	var rev int64
	err := pg.InTx(ctx, a.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, string(bumpRev)).Scan(&rev); err != nil {
			return fmt.Errorf("bump policy revision: %w", err)
		}
		events, err := f(tx, rev)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := audit.Enqueue(ctx, tx, e); err != nil {
				return fmt.Errorf("enqueue policy change: %w", err)
			}
		}
		if _, err := tx.Exec(ctx, string(notify)); err != nil {
			return fmt.Errorf("notify policy: %w", err)
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		rev, err = rev-1, nil
	}
	if err != nil {
		return 0, err
	}
	// The change stands whatever happens from here on: not being able to read it back is not the caller's failure.
	reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := a.refresh(reading, rev); err != nil {
		a.logger.Error("policy changed but cannot be read back yet", slog.Int64("policy_rev", rev), slog.Any("error", err))
	}
	return rev, nil
}
