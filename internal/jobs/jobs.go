// Package jobs runs background work on River, a job queue in our Postgres. Of one work at most one job waits or runs, on
// whatever node: work never overlaps itself, and runs that come late do not pile up. A periodic run that fails is not
// tried again, the next one is its retry; one that was asked for has three tries. It owns the river_* tables. Who calls
// it: the wire-up registers work before Start. The job of a hub that dies is given up a minute after its timeout, and
// until then nobody does that work.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// Migrate brings River's tables to the version that this binary knows.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	m, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("open job migrations: %w", err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("apply job migrations: %w", err)
	}
	return nil
}

// Config completes New.
type Config struct {
	Logger     *slog.Logger
	MaxWorkers int           // jobs at once on this node; defaults to 4
	Timeout    time.Duration // of one run of one job; defaults to 10 minutes
}

// Work is one kind of periodic job.
type Work struct {
	Name  string        // unique; stored with the job
	Every time.Duration // at least a second
	Run   func(ctx context.Context) error
}

// args is the stored form of every job: the work's name says what to run.
type args struct {
	Work string `json:"work"`
}

// Kind names the job type to River.
func (args) Kind() string { return "waybill.work" }

// worker runs stored jobs by name.
type worker struct {
	river.WorkerDefaults[args]
	works map[string]Work
}

// Work runs one job. An unknown name is a job of a newer node; the error leaves it for that node.
func (w *worker) Work(ctx context.Context, job *river.Job[args]) error {
	work, ok := w.works[job.Args.Work]
	if !ok {
		return fmt.Errorf("run job: no work named %q on this node", job.Args.Work)
	}
	return work.Run(ctx)
}

// once keeps a second job of the same work out while one has not ended. Ended ones do not count.
var once = river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning,
	rivertype.JobStateRetryable, rivertype.JobStateScheduled}}

// Client runs jobs on this node.
type Client struct{ river *river.Client[pgx.Tx] }

// New registers the work. Nothing runs before Start.
func New(pool *pgxpool.Pool, works []Work, c Config) (*Client, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxWorkers == 0 {
		c.MaxWorkers = 4
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Minute
	}
	w := &worker{works: map[string]Work{}}
	var periodic []*river.PeriodicJob
	for _, work := range works {
		if _, twice := w.works[work.Name]; twice || work.Name == "" || work.Every < time.Second {
			return nil, fmt.Errorf("register work %q: needs a name of its own and a period of at least 1 s", work.Name)
		}
		w.works[work.Name] = work
		periodic = append(periodic, river.NewPeriodicJob(river.PeriodicInterval(work.Every), func() (river.JobArgs, *river.InsertOpts) {
			return args{Work: work.Name}, &river.InsertOpts{MaxAttempts: 1, UniqueOpts: once}
		}, &river.PeriodicJobOpts{ID: work.Name}))
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, w); err != nil {
		return nil, fmt.Errorf("register worker: %w", err)
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: c.Logger, Workers: workers, PeriodicJobs: periodic,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: c.MaxWorkers}}, JobTimeout: c.Timeout, RescueStuckJobsAfter: c.Timeout + time.Minute})
	if err != nil {
		return nil, fmt.Errorf("open job client: %w", err)
	}
	return &Client{client}, nil
}

// RunNow enqueues one run of a registered work, by whichever node takes it first. It does nothing when one waits or runs.
func (c *Client) RunNow(ctx context.Context, name string) error {
	if _, err := c.river.Insert(ctx, args{Work: name}, &river.InsertOpts{MaxAttempts: 3, UniqueOpts: once}); err != nil {
		return fmt.Errorf("insert job %s: %w", name, err)
	}
	return nil
}

// Start begins to work; it returns at once.
func (c *Client) Start(ctx context.Context) error {
	if err := c.river.Start(ctx); err != nil {
		return fmt.Errorf("start jobs: %w", err)
	}
	return nil
}

// Stop lets running jobs end until ctx ends, then cancels them; a cancelled job is tried again by some node.
func (c *Client) Stop(ctx context.Context) error {
	if err := c.river.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("stop jobs: %w", err)
	}
	return nil
}
