package jobs_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"waybill/internal/jobs"
	"waybill/internal/pgtest"
)

// Two nodes share one queue: work runs, and what was asked for and fails is tried again.
func TestClient(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool := pgtest.DB(t)
	var runs atomic.Int64
	done := make(chan struct{})
	works := []jobs.Work{{Name: "fails-once", Every: time.Hour, Run: func(context.Context) error {
		if runs.Add(1) == 1 {
			return errors.New("first try fails")
		}
		close(done)
		return nil
	}}}
	var clients []*jobs.Client
	for range 2 {
		c, err := jobs.New(pool, works, jobs.Config{})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	// River's periodic jobs first run after their period, so the test inserts one run by hand as an operator would.
	for _, c := range clients {
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := clients[0].RunNow(ctx, "fails-once"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("job ran %d times and did not succeed", runs.Load())
	}
	for _, c := range clients {
		if err := c.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	if n := runs.Load(); n != 2 {
		t.Errorf("job ran %d times, want 2", n)
	}
}

func TestNew_RefusesWorkWithoutAName(t *testing.T) {
	t.Parallel()
	if _, err := jobs.New(pgtest.DB(t), []jobs.Work{{Every: time.Hour}}, jobs.Config{}); err == nil {
		t.Fatal("accepted")
	}
}

// A run that takes longer than its period is not joined by a second one, whoever asks for it; one that fails is not tried
// again before its next period; and both leave at most one job that has not ended.
func TestPeriodicWork_NeverOverlaps(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool := pgtest.DB(t)
	var running, most, slow, failing atomic.Int64
	works := []jobs.Work{
		{Name: "slow", Every: time.Second, Run: func(ctx context.Context) error {
			slow.Add(1)
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			select {
			case <-time.After(3500 * time.Millisecond):
			case <-ctx.Done():
			}
			return nil
		}},
		{Name: "failing", Every: time.Second, Run: func(context.Context) error {
			failing.Add(1)
			return errors.New("always fails")
		}},
	}
	var clients []*jobs.Client
	for range 2 {
		c, err := jobs.New(pool, works, jobs.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	for end := time.Now().Add(40 * time.Second); (slow.Load() < 3 || failing.Load() < 3) && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := clients[0].RunNow(ctx, "slow"); err != nil {
			t.Error(err)
		}
	}
	var waiting, attempts int
	err := pool.QueryRow(ctx, `SELECT (SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM river_job WHERE state NOT IN ('completed', 'discarded', 'cancelled') GROUP BY args) AS w),
		(SELECT coalesce(max(attempt), 0) FROM river_job WHERE args->>'work' = 'failing')`).Scan(&waiting, &attempts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if err := c.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	if most.Load() != 1 || slow.Load() < 2 || failing.Load() < 2 || waiting > 1 || attempts != 1 {
		t.Errorf("at most %d ran at once in %d runs; %d failing runs with up to %d attempts; up to %d jobs not ended", most.Load(), slow.Load(), failing.Load(), attempts, waiting)
	}
}
