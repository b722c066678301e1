package featurestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v3"

	"waybill"
	"waybill/internal/bucket"
	"waybill/internal/pg"
)

// Config completes Open.
type Config struct {
	Clock  waybill.Clock
	Logger *slog.Logger
	Poll   time.Duration // how often the log is read again without a NOTIFY; defaults to 1 s

	SnapshotRows int64 // of a view that must come before another snapshot of it is made; defaults to 100,000
	// Live says whether a model version may serve, now or later, so that its feature service cannot be retired. Defaults to
	// saying so of every one.
	Live func(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (bool, error)

	// TokenKey makes the tokens of personal values: MinTokenKey random bytes or more, the same on every hub and for ever.
	// It may be nil while no published view has a personal column; publishing one then is refused.
	TokenKey []byte

	// Submit enqueues a build of a training set in a transaction: Store.BuildTrainingSet is to be called with its subject, by
	// whichever hub, again when that fails or dies. Nil: who asks for a training set makes it himself.
	Submit func(ctx context.Context, tx pgx.Tx, subject string) error
}

// Store publishes definitions, takes commits in and serves online rows from memory.
type Store struct {
	pool   *pgxpool.Pool
	bucket *bucket.Bucket
	clock  waybill.Clock
	logger *slog.Logger
	poll   time.Duration
	live   func(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (bool, error) // nil: every one is

	snapshotRows int64
	tokenKey     []byte                                                     // of Config
	submit       func(ctx context.Context, tx pgx.Tx, subject string) error // of Config
	partCells    int

	decoding chan struct{} // one for each file that is being read into memory

	apply   sync.Mutex // held while commits are applied to memory, in order
	views   sync.Map   // viewKey → *online
	readers sync.Map   // viewKey of a service → cachedReader; version 0 is "the latest"
	adhoc   adhocReaders
}

type viewKey struct {
	tenant waybill.Tenant
	ref    waybill.VersionRef
}

const (
	selectLatest pg.SQL = `
SELECT version, revision, digest, yaml FROM featurestore.definition
WHERE tenant = $1 AND kind = $2 AND name = $3 AND ($4 = 0 OR version = $4) ORDER BY version DESC, revision DESC LIMIT 1`
	selectLogs pg.SQL = `SELECT tenant, view, version, seq FROM featurestore.log`
)

// decoders is how many files may be read into memory at once.
const decoders = 2

// Open loads the winners of every view into memory. A view whose log cannot be read is logged, answers Unavailable and
// is tried again; the others are served. Call Run to follow the log.
func Open(ctx context.Context, pool *pgxpool.Pool, b *bucket.Bucket, c Config) (*Store, error) {
	s := newStore(pool, b, c)
	if err := s.needsTokenKey(ctx); err != nil {
		return nil, err
	}
	failed, _, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	s.complain(ctx, failed)
	return s, nil
}

func newStore(pool *pgxpool.Pool, b *bucket.Bucket, c Config) *Store {
	s := &Store{pool: pool, bucket: b, clock: c.Clock, logger: c.Logger, poll: c.Poll, live: c.Live, snapshotRows: c.SnapshotRows, tokenKey: c.TokenKey, submit: c.Submit, partCells: partCells, decoding: make(chan struct{}, decoders)}
	if s.clock == nil {
		s.clock = waybill.SystemClock
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.poll == 0 {
		s.poll = time.Second
	}
	if s.snapshotRows == 0 {
		s.snapshotRows = 100_000
	}
	return s
}

// Run follows the log until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	return pg.Listen(ctx, s.pool, "features", s.poll, func(ctx context.Context) error {
		s.follow(ctx)
		return nil
	})
}

// follow refreshes and logs what could not be: the rows in memory go on being served with their true ages.
func (s *Store) follow(ctx context.Context) {
	failed, _, err := s.refresh(ctx)
	if err != nil && ctx.Err() == nil {
		s.logger.WarnContext(ctx, "feature log not followed, rows age", "error", err)
	}
	s.complain(ctx, failed)
}

// complain logs once for every try, of which there are few.
func (s *Store) complain(ctx context.Context, failed []error) {
	for _, err := range failed {
		s.logger.ErrorContext(ctx, "a view cannot be followed, the others are served", "error", err)
	}
}

// Refresh applies every commit that memory lacks. Its error names the views that cannot be followed.
func (s *Store) Refresh(ctx context.Context) error {
	failed, waiting, err := s.refresh(ctx)
	return errors.Join(append(append(failed, waiting...), err)...)
}

// The waits between tries to follow a view that cannot be read.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// refresh applies what memory lacks. A view that cannot be read does not keep the others from being followed: what went
// wrong now is in failed; what went wrong before and is not tried again yet, in waiting. err means that no log was read.
func (s *Store) refresh(ctx context.Context) (failed, waiting []error, err error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	rows, err := s.pool.Query(ctx, string(selectLogs))
	if err != nil {
		return nil, nil, fmt.Errorf("select logs: %w", err)
	}
	type end struct {
		Tenant  waybill.Tenant
		View    string
		Version int
		Seq     int64
	}
	ends, err := pgx.CollectRows(rows, pgx.RowToStructByPos[end])
	if err != nil {
		return nil, nil, fmt.Errorf("read logs: %w", err)
	}
	for _, e := range ends {
		key := viewKey{e.Tenant, waybill.VersionRef{Name: e.View, Version: e.Version}}
		o, err := s.online(ctx, key)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		o.sweep(s.clock())
		if o.seq.Load() >= e.Seq {
			o.ready.Store(true)
			continue
		}
		if o.failed != nil && s.clock().Before(o.retry) {
			waiting = append(waiting, o.failed)
			continue
		}
		if !o.ready.Load() && o.seq.Load() == 0 {
			if err = s.restore(ctx, key, o, e.Seq); err != nil {
				failed = append(failed, err)
				continue
			}
		}
		err = s.catchUp(ctx, key, o, e.Seq)
		if ctx.Err() != nil {
			return failed, waiting, ctx.Err() // says nothing about the view
		}
		if o.failed = err; err != nil {
			o.wait = max(firstRetry, min(2*o.wait, lastRetry))
			o.retry = s.clock().Add(o.wait)
			failed = append(failed, err)
			continue
		}
		o.wait = 0
		o.ready.Store(true)
	}
	return failed, waiting, nil
}

// online returns the memory of a view version, empty and not ready until the log is applied.
func (s *Store) online(ctx context.Context, key viewKey) (*online, error) {
	if o, ok := s.views.Load(key); ok {
		return o.(*online), nil
	}
	v, err := s.view(ctx, s.pool, key.tenant, key.ref)
	if err != nil {
		return nil, err
	}
	ttl, err := v.View.ttl()
	if err != nil {
		return nil, err
	}
	o, _ := s.views.LoadOrStore(key, newOnline(&v.View, ttl))
	return o.(*online), nil
}

// catchUp applies the commits after what memory holds, up to seq. Each is visible at once and whole; after an error the
// commits before it stay applied, and the next try begins there.
func (s *Store) catchUp(ctx context.Context, key viewKey, o *online, seq int64) error {
	return s.stored(ctx, key, o.seq.Load(), seq, func(c *storedCommit) error {
		now := s.clock().UnixMicro()
		if err := c.packed(o.layout, o.view, func(b []byte) { o.put(b, now) }); err != nil {
			return err
		}
		o.seq.Store(c.seq)
		return nil
	})
}

// storedView and storedService are definitions as published.
type storedView struct {
	View
	Version, Revision int
	Digest            string
}

type storedService struct {
	Service
	Version, Revision int
	Digest            string
}

func (s *Store) latest(ctx context.Context, q pg.Querier, tenant waybill.Tenant, kind string, ref waybill.VersionRef, into any) (version, revision int, digest string, err error) {
	var text string
	err = q.QueryRow(ctx, string(selectLatest), tenant, kind, ref.Name, ref.Version).Scan(&version, &revision, &digest, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, "", waybill.Errorf(waybill.NotFound, "there is no %s %s", kind, ref)
	}
	if err != nil {
		return 0, 0, "", fmt.Errorf("select definition: %w", err)
	}
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		return 0, 0, "", waybill.Wrap(waybill.Corrupt, err, "the definition of "+ref.String()+" cannot be read")
	}
	return version, revision, digest, nil
}

func (s *Store) view(ctx context.Context, q pg.Querier, tenant waybill.Tenant, ref waybill.VersionRef) (v storedView, err error) {
	v.Version, v.Revision, v.Digest, err = s.latest(ctx, q, tenant, "view", ref, &v.View)
	return v, err
}

func (s *Store) service(ctx context.Context, q pg.Querier, tenant waybill.Tenant, ref waybill.VersionRef) (v storedService, err error) {
	v.Version, v.Revision, v.Digest, err = s.latest(ctx, q, tenant, "service", ref, &v.Service)
	return v, err
}

// Memory says how many keys of a view version are in this hub's memory, and how many bytes its slabs and indices have.
func (s *Store) Memory(tenant waybill.Tenant, ref waybill.VersionRef) (keys, size int) {
	s.apply.Lock()
	defer s.apply.Unlock()
	o, ok := s.views.Load(viewKey{tenant, ref})
	if !ok {
		return 0, 0
	}
	return o.(*online).memory()
}
