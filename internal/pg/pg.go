// Package pg is the door to Postgres: the pool, transactions, error classes, migrations and LISTEN. It owns one
// invariant: a transaction's outcome is never guessed. InTx says whether it committed, did not, or that nobody knows.
//
// Domain packages write their own SQL, as constants of type SQL beside the code that uses them; a test PREPAREs every
// one against the migrated schema.
package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
)

// SQL is one statement. Constants of this type are checked against the schema by a test.
type SQL string

// Querier is what a pool and a transaction have in common.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Config says where the database is.
type Config struct {
	DSN      string // key=value or URL form
	MaxConns int    // defaults to 16
}

// ErrCommitUnknown says that the connection was lost after COMMIT was sent: the transaction may or may not stand. The
// caller finds out by reading, never by blindly doing it again.
var ErrCommitUnknown = errors.New("the outcome of the commit is not known")

// Open connects and pings. Every session speaks UTC.
func Open(ctx context.Context, c Config) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, waybill.InvalidField("postgres", "is not a connection string; write postgres://user@host:5432/database")
	}
	cfg.MaxConns = 16
	if c.MaxConns > 0 {
		cfg.MaxConns = int32(min(c.MaxConns, 1000))
	}
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	cfg.ConnConfig.RuntimeParams["application_name"] = "waybill"
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, waybill.Wrap(waybill.Unavailable, err, "Postgres does not answer; check that it runs and that the connection string is right")
	}
	return pool, nil
}

// maxTries bounds how often InTx runs a function whose transaction lost a race.
const maxTries = 5

// InTx runs f in a read-committed transaction. It runs f again, at most five times in all, when Postgres chose the
// transaction as the victim of a deadlock or of a serialisation conflict: nothing of the earlier try stands then.
// Any error of f rolls back. When the connection breaks after COMMIT was sent the error wraps ErrCommitUnknown.
func InTx(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx) error) error {
	for try := 1; ; try++ {
		err := inTx(ctx, pool, f)
		if err == nil || !isRetryable(err) || try == maxTries || ctx.Err() != nil {
			return classify(err)
		}
	}
}

func inTx(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx) error) (err error) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	done := false
	defer func() {
		if !done { // f failed or panicked: the server forgets all of it, also when this ROLLBACK is lost
			err = errors.Join(err, ignoreClosed(tx.Rollback(context.WithoutCancel(ctx))))
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	done = true
	if err := tx.Commit(ctx); err != nil {
		if errors.Is(err, pgx.ErrTxCommitRollback) || serverSaid(err) {
			return fmt.Errorf("commit transaction: %w", err)
		}
		return fmt.Errorf("commit transaction: %w: %w", ErrCommitUnknown, err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, pgx.ErrTxClosed) || IsConnLost(err) {
		return nil // the server rolls back when the session ends
	}
	return err
}

// serverSaid reports whether the error is Postgres's own answer, which means that the outcome is known.
func serverSaid(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && !strings.HasPrefix(e.Code, "57P") // 57P0x: the server is going away
}

func isRetryable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// classify turns a lost connection into Unavailable, or into Deadline when the change may stand; everything else stays
// as it is.
func classify(err error) error {
	if errors.Is(err, ErrCommitUnknown) {
		return waybill.Wrap(waybill.Deadline, err, "Postgres went away while the change was being committed: it may stand or not; look before you repeat it")
	}
	if err == nil || waybill.CodeOf(err) != waybill.Internal || !IsConnLost(err) {
		return err
	}
	return waybill.Wrap(waybill.Unavailable, err, "Postgres is away; try again")
}

// IsUnique reports whether err is a violation of the named unique constraint; "" matches any.
func IsUnique(err error, constraint string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "23505" && (constraint == "" || e.ConstraintName == constraint)
}

// IsConnLost reports whether the session is gone: the network broke, or the server stopped or ended it.
func IsConnLost(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return strings.HasPrefix(pe.Code, "08") || strings.HasPrefix(pe.Code, "57P")
	}
	var ne net.Error
	var ce *pgconn.ConnectError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &ne) && !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ce) ||
		err != nil && (strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "closed pool"))
}

// Listen calls f once at the start, after every NOTIFY on channel and at least every poll, one call at a time, until
// ctx ends; it then returns nil. A burst of notifications while f runs is one call. A lost connection is opened
// again; what was notified meanwhile is covered by the call of f that follows. The first error of f ends it.
func Listen(ctx context.Context, pool *pgxpool.Pool, channel string, poll time.Duration, f func(ctx context.Context) error) error {
	wake := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			listenOnce(ctx, pool, channel, wake)
			select {
			case <-ctx.Done():
			case <-time.After(min(poll, time.Second)): // polling goes on while the listener is away
			}
		}
	}()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if err := f(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
	}
}

// listenOnce holds one session on the channel until it breaks or ctx ends.
func listenOnce(ctx context.Context, pool *pgxpool.Pool, channel string, wake chan<- struct{}) {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return
	}
	conn := pooled.Hijack() // LISTEN is a state of the session; it never goes back to the pool
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := conn.Close(closing); err != nil {
			return // the session ends with its socket
		}
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return
	}
	for {
		select {
		case wake <- struct{}{}: // also once after connecting: something may have been notified before
		default:
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return
		}
	}
}
