package featurestore_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/featurestore"
)

// statements counts statements, and how many of them ran at once.
type statements struct{ all, now, most atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.all.Add(1)
	if now := s.now.Add(1); now > s.most.Load() {
		s.most.Store(now)
	}
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { s.now.Add(-1) }

// Hundreds who wait for a commit cost no more statements than one does, and all are woken by it. More than half of the places
// no tenant has.
func TestAwait_FollowsOnceForAll(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	cfg, seen := b.pool.Config(), &statements{}
	cfg.ConnConfig.Tracer = seen
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	hub, err := featurestore.Open(ctx, pool, b.bucket, featurestore.Config{Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	view, half := waybill.VersionRef{Name: "warehouse_load", Version: 1}, featurestore.MaxAwaiting/2
	at := time.Now()
	if hub.Following() {
		t.Fatal("the log is followed for nobody")
	}
	before := seen.all.Load()
	var wg sync.WaitGroup
	for range half {
		wg.Go(func() {
			if err := hub.Await(ctx, "acme", view, 1); err != nil {
				t.Error(err)
			}
		})
	}
	soon(t, "not all wait", func() bool { return hub.Awaiting() == half })
	if err := hub.Await(ctx, "acme", view, 1); waybill.CodeOf(err) != waybill.Exhausted || !strings.Contains(err.Error(), "try again later") {
		t.Errorf("one more of the tenant: %v", err)
	}
	if err := hub.Await(ctx, "acme", view, 0); err != nil {
		t.Errorf("for what is there already: %v", err)
	}
	time.Sleep(200 * time.Millisecond)
	took := time.Since(at)
	if n, most := seen.all.Load()-before, 5+int64(took/featurestore.AwaitPoll); n < 2 || n > most || seen.most.Load() > 1 {
		t.Errorf("%d waited %s and read the log %d times, %d at once; one alone would at most %d times", half, took, n, seen.most.Load(), most)
	}
	if _, err := b.push("1", load("ny", b.now, 0.5)); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if err := hub.Await(short, "acme", view, 2); waybill.CodeOf(err) != waybill.Deadline {
		t.Errorf("a commit that there is not: %v", err)
	}
	soon(t, "the log is still followed for nobody", func() bool { return !hub.Following() && hub.Awaiting() == 0 })
}

// Who waits is told at once when the log cannot be read at all, and waits again when it can.
func TestAwait_WithoutPostgres(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	pool, err := pgxpool.NewWithConfig(ctx, b.pool.Config())
	if err != nil {
		t.Fatal(err)
	}
	hub, err := featurestore.Open(ctx, pool, b.bucket, featurestore.Config{Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error)
	go func() { told <- hub.Await(ctx, "acme", waybill.VersionRef{Name: "warehouse_load", Version: 1}, 1) }()
	soon(t, "nobody waits", func() bool { return hub.Awaiting() == 1 })
	pool.Close()
	if err := <-told; err == nil || waybill.CodeOf(err) == waybill.Deadline {
		t.Errorf("%v", err)
	}
}
