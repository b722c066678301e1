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

// Two nodes share one queue: work runs, and what fails is tried again.
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
