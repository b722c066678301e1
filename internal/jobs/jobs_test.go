package jobs_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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

// The jobs of a node that is dead are given back within seconds: for a subject they go on, periodic ones end. Those of a
// node that lives are not, nor those of a node that never said so.
func TestClient_JobsOfTheDead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool := pgtest.DB(t)
	var long atomic.Int64
	did := make(chan string, 10)
	works := []jobs.Work{
		{Name: "periodic", Every: time.Hour, Run: func(context.Context) error { return nil }},
		{Name: "subjects", For: func(_ context.Context, subject string) error { did <- subject; return nil }},
		{Name: "long", For: func(ctx context.Context, _ string) error {
			long.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}},
	}
	client := func() *jobs.Client {
		c, err := jobs.New(pool, works, jobs.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	submit := func(c *jobs.Client, work, subject string) {
		if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return c.Submit(ctx, tx, work, subject) }); err != nil {
			t.Fatal(err)
		}
	}
	waiting := client() // asks and never works
	for _, subject := range []string{"dead", "dead", "unknown", "fresh"} {
		submit(waiting, "subjects", subject)
	}
	if err := waiting.RunNow(ctx, "periodic"); err != nil {
		t.Fatal(err)
	}
	for where, node := range map[string]string{"args->>'subject' = 'dead' OR args->>'work' = 'periodic'": "alive-0", "args->>'subject' = 'unknown'": "of an older version"} {
		if _, err := pool.Exec(ctx, `UPDATE river_job SET state = 'running', attempt = max_attempts - 2, attempted_at = now(), attempted_by = ARRAY[$1] WHERE `+where, node); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(ctx, `UPDATE river_job SET attempt = max_attempts WHERE args->>'work' = 'periodic'`); err != nil { // as its one try has it
		t.Fatal(err)
	}
	first, second := client(), client()
	for _, c := range []*jobs.Client{first, second} {
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	submit(first, "long", "1")
	began := time.Now()
	for _, want := range []string{"fresh", "dead"} {
		select {
		case got := <-did:
			if got != want {
				t.Errorf("%s was done, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s was not done in 30 s", want)
		}
	}
	t.Logf("the job of a dead node was done after %.1f s", time.Since(began).Seconds())
	time.Sleep(5 * time.Second) // more than two looks at the node that lives
	var unknown, periodic string
	if err := pool.QueryRow(ctx, `SELECT (SELECT state::text FROM river_job WHERE args->>'subject' = 'unknown'), (SELECT state::text FROM river_job WHERE args->>'work' = 'periodic')`).Scan(&unknown, &periodic); err != nil {
		t.Fatal(err)
	}
	if unknown != "running" || periodic != "discarded" || long.Load() != 1 || len(did) != 0 {
		t.Errorf("a job of a node that says nothing is %s, a periodic one %s; a long one ran %d times; %d jobs more", unknown, periodic, long.Load(), len(did))
	}
	for _, c := range []*jobs.Client{first, second} { // what takes long does not keep a node from stopping
		stop, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := c.Stop(stop); err != nil {
			t.Error(err)
		}
		cancel()
	}
}
