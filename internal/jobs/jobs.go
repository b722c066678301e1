// Package jobs runs background work on River, a job queue in our Postgres. Of one work at most one job waits or runs, on
// whatever node: work never overlaps itself, and runs that come late do not pile up. Work without a period is done when it
// is asked for, once for each subject. A periodic run that fails is not tried again, the next one is its retry; one that
// was asked for has three tries, and one for a subject many. It owns the river_* tables. Who calls it: the wire-up registers
// work before Start. The jobs of a node that dies are given back within seconds (alive.go): a periodic one ends there and
// comes with its next period, the others go on at once on another node. So work must bear to be ended anywhere, and to be
// begun while an earlier run of it still ends.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"waybill"
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

// Work is one kind of job: periodic with Run, or for subjects with For.
type Work struct {
	Name  string        // unique; stored with the job
	Every time.Duration // at least a second
	Run   func(ctx context.Context) error

	// For does the work for one subject, the id of something that is to be made. It is called again when it fails, more and
	// more rarely, and at once on another node when this one dies.
	For     func(ctx context.Context, subject string) error
	Timeout time.Duration // of one call of For; defaults to Config.Timeout
	AtOnce  int           // calls of For at once on this node; defaults to 2
}

// subjectTries is how often work for a subject is tried; the last waits are days.
const subjectTries = 25

// args is the stored form of every job: the work's name says what to run, and for which subject.
type args struct {
	Work    string `json:"work"`
	Subject string `json:"subject,omitempty"`
}

// Kind names the job type to River.
func (args) Kind() string { return "waybill.work" }

// worker runs stored jobs by name.
type worker struct {
	river.WorkerDefaults[args]
	works map[string]Work
	stop  chan struct{} // closed when the client stops; what runs for a subject ends then
}

// Timeout bounds a run of one job.
func (w *worker) Timeout(job *river.Job[args]) time.Duration { return w.works[job.Args.Work].Timeout }

// Work runs one job. An unknown name is a job of a newer node; the error leaves it for that node.
func (w *worker) Work(ctx context.Context, job *river.Job[args]) error {
	work, ok := w.works[job.Args.Work]
	if !ok {
		return fmt.Errorf("run job: no work named %q on this node", job.Args.Work)
	}
	if work.For == nil {
		return work.Run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-w.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return work.For(ctx, job.Args.Subject)
}

// once keeps a second job of the same work out while one has not ended. Ended ones do not count.
var once = river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning,
	rivertype.JobStateRetryable, rivertype.JobStateScheduled}}

// Client runs jobs on this node.
type Client struct {
	river    *river.Client[pgx.Tx]
	logger   *slog.Logger
	liveness *liveness
	stopping func()             // ends what runs for subjects
	ended    chan struct{}      // closed when liveness has ended; nil before Start
	leave    context.CancelFunc // ends liveness
}

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
	w := &worker{works: map[string]Work{}, stop: make(chan struct{})}
	var periodic []*river.PeriodicJob
	queues, longest := map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: c.MaxWorkers}}, c.Timeout
	for _, work := range works {
		if _, twice := w.works[work.Name]; twice || work.Name == "" || (work.For == nil) != (work.Every >= time.Second) || (work.For == nil) == (work.Run == nil) {
			return nil, fmt.Errorf("register work %q: needs a name of its own and either Run with a period of at least 1 s or For", work.Name)
		}
		if work.For != nil {
			if work.AtOnce == 0 {
				work.AtOnce = 2
			}
			queues[work.Name] = river.QueueConfig{MaxWorkers: work.AtOnce} // what takes long does not keep the periodic work waiting
		}
		if work.Timeout == 0 {
			work.Timeout = c.Timeout
		}
		longest = max(longest, work.Timeout)
		w.works[work.Name] = work
		if work.For != nil {
			continue
		}
		periodic = append(periodic, river.NewPeriodicJob(river.PeriodicInterval(work.Every), func() (river.JobArgs, *river.InsertOpts) {
			return args{Work: work.Name}, &river.InsertOpts{MaxAttempts: 1, UniqueOpts: once}
		}, &river.PeriodicJobOpts{ID: work.Name}))
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, w); err != nil {
		return nil, fmt.Errorf("register worker: %w", err)
	}
	node := nodePrefix + waybill.NewID(waybill.SystemClock()).String()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{ID: node, Logger: c.Logger, Workers: workers, PeriodicJobs: periodic, Queues: queues,
		JobTimeout: c.Timeout, RescueStuckJobsAfter: longest + time.Minute})
	if err != nil {
		return nil, fmt.Errorf("open job client: %w", err)
	}
	out := &Client{river: client, logger: c.Logger, stopping: sync.OnceFunc(func() { close(w.stop) })}
	out.liveness = &liveness{Client: out, pool: pool, node: node}
	return out, nil
}

// RunNow enqueues one run of a registered work, by whichever node takes it first. It does nothing when one waits or runs.
func (c *Client) RunNow(ctx context.Context, name string) error {
	if _, err := c.river.Insert(ctx, args{Work: name}, &river.InsertOpts{MaxAttempts: 3, UniqueOpts: once}); err != nil {
		return fmt.Errorf("insert job %s: %w", name, err)
	}
	return nil
}

// Submit enqueues registered work for a subject in the caller's transaction: it is done when and only when that commits. It
// does nothing when the same waits or runs.
func (c *Client) Submit(ctx context.Context, tx pgx.Tx, name, subject string) error {
	if _, err := c.river.InsertTx(ctx, tx, args{name, subject}, &river.InsertOpts{MaxAttempts: subjectTries, Queue: name, UniqueOpts: once}); err != nil {
		return fmt.Errorf("insert job %s: %w", name, err)
	}
	return nil
}

// Start begins to work; it returns at once. The node holds one session of the pool for as long as it works.
func (c *Client) Start(ctx context.Context) error {
	if err := c.liveness.take(ctx); err != nil {
		return fmt.Errorf("start jobs: %w", err)
	}
	if err := c.river.Start(ctx); err != nil {
		c.liveness.release(ctx)
		return fmt.Errorf("start jobs: %w", err)
	}
	ctx, c.leave = context.WithCancel(context.WithoutCancel(ctx))
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		c.liveness.run(ctx)
	}()
	return nil
}

// Stop ends what runs for subjects, which goes on elsewhere or later, and lets periodic jobs end until ctx ends. What has
// not ended by then is given back by the other nodes.
func (c *Client) Stop(ctx context.Context) error {
	c.stopping()
	err := c.river.Stop(ctx)
	if c.ended != nil {
		c.leave()
		<-c.ended
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("stop jobs: %w", err)
	}
	return nil
}
