package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/internal/pg"
	"waybill/lineage"
)

// Source knows what models were trained on.
type Source interface {
	// TrainingColumns returns the numeric columns of a training set, NaN for missing.
	TrainingColumns(ctx context.Context, tenant waybill.Tenant, digest string) (names []string, columns [][]float64, err error)
	// TrainingSetOf returns the digest of the training set of a model version, "" when it has none.
	TrainingSetOf(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (string, error)
}

// Config completes Open.
type Config struct {
	Clock      waybill.Clock
	Logger     *slog.Logger
	Queue      int           // observations that may wait to be counted; defaults to 8,192
	FlushEvery time.Duration // defaults to 5 s
	// KeepVerdicts is how long a verdict is kept, and KeepDrift how long one of drift. They default to 7 and 90 days.
	KeepVerdicts, KeepDrift time.Duration
}

// Store counts what endpoints see and compares it with what models were trained on.
type Store struct {
	pool   *pgxpool.Pool
	graph  *lineage.Graph
	source Source
	clock  waybill.Clock
	logger *slog.Logger
	every  time.Duration
	keep   time.Duration // verdicts
	drift  time.Duration // verdicts of drift

	queue   chan *observation
	spare   sync.Pool // of *observation
	dropped atomic.Int64
	flushes chan chan error

	unread sync.Map // endpointKey → unread: why an endpoint's decisions are not counted on this node

	// Owned by Run.
	references map[modelKey]*reference
	counts     map[profileKey]*hourly
}

// observation is one decision on its way to being counted.
type observation struct {
	tenant   waybill.Tenant
	endpoint string
	model    waybill.VersionRef
	names    []string // shared with the model: never changed
	values   []float64
	hour     time.Time
}

type modelKey struct {
	tenant waybill.Tenant
	model  waybill.VersionRef
}

// reference is the profile of a model's training set, in memory.
type reference struct {
	digest   string    // "" when the model has no training set
	features []feature // sorted by name
	retry    time.Time // when a reference that could not be read is tried again
	err      error     // why it could not be read
}

type endpointKey struct {
	tenant   waybill.Tenant
	endpoint string
}

// unread says whose reference could not be had.
type unread struct {
	model waybill.VersionRef
	err   error
	at    time.Time
}

type profileKey struct {
	tenant   waybill.Tenant
	endpoint string
	model    waybill.VersionRef
	hour     time.Time
}

// hourly is what was counted since the last flush.
type hourly struct {
	digest   string
	features []counted // as the reference's
}

type counted struct {
	counts  []int64
	sums    []float64
	missing int64
}

// maxModels bounds the references and profiles in memory.
const maxModels = 10_000

// retryAfter is how long a model whose reference could not be read is not asked about again.
const retryAfter = time.Minute

const (
	selectReference pg.SQL = `SELECT features FROM drift.reference WHERE tenant = $1 AND training_set = $2`
	insertReference pg.SQL = `INSERT INTO drift.reference (tenant, training_set, features) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	addProfile      pg.SQL = `
INSERT INTO drift.profile AS p (tenant, endpoint, model, version, hour, feature, training_set, counts, sums, missing)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant, endpoint, hour, model, version, feature) DO UPDATE SET
    counts = (SELECT array_agg(a + b ORDER BY i) FROM unnest(p.counts, excluded.counts) WITH ORDINALITY AS u(a, b, i)),
    sums = (SELECT array_agg(a + b ORDER BY i) FROM unnest(p.sums, excluded.sums) WITH ORDINALITY AS u(a, b, i)),
    missing = p.missing + excluded.missing`
	insertFlush pg.SQL = `INSERT INTO drift.flush (id, at) VALUES ($1, $2)`
	selectFlush pg.SQL = `SELECT EXISTS (SELECT FROM drift.flush WHERE id = $1)`
	sweepFlush  pg.SQL = `DELETE FROM drift.flush WHERE at < $1`
)

// Open returns a Store over a migrated database. Nothing is counted before Run runs.
func Open(_ context.Context, pool *pgxpool.Pool, graph *lineage.Graph, source Source, c Config) (*Store, error) {
	if c.Clock == nil {
		c.Clock = waybill.SystemClock
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Queue == 0 {
		c.Queue = 8192
	}
	if c.FlushEvery == 0 {
		c.FlushEvery = 5 * time.Second
	}
	if c.KeepVerdicts == 0 {
		c.KeepVerdicts = 7 * 24 * time.Hour
	}
	if c.KeepDrift == 0 {
		c.KeepDrift = 90 * 24 * time.Hour
	}
	s := &Store{pool: pool, graph: graph, source: source, clock: c.Clock, logger: c.Logger, every: c.FlushEvery, keep: c.KeepVerdicts, drift: c.KeepDrift, queue: make(chan *observation, c.Queue),
		flushes: make(chan chan error), references: map[modelKey]*reference{}, counts: map[profileKey]*hourly{}}
	s.spare.New = func() any { return &observation{} }
	return s, nil
}

// Observe takes a logged decision of a model in: values in the order of names, NaN for missing. It does no I/O and never
// blocks; when too much waits the observation is dropped and counted. names must not be changed afterwards, values may.
func (s *Store) Observe(tenant waybill.Tenant, endpoint string, model waybill.VersionRef, names []string, values []float64, _ float64, at time.Time) {
	o, ok := s.spare.Get().(*observation)
	if !ok || len(names) != len(values) {
		s.dropped.Add(1)
		return
	}
	o.tenant, o.endpoint, o.model, o.names, o.hour = tenant, endpoint, model, names, at.UTC().Truncate(time.Hour)
	o.values = append(o.values[:0], values...)
	select {
	case s.queue <- o:
	default:
		s.spare.Put(o)
		s.dropped.Add(1)
	}
}

// Dropped is how many observations were not counted because too many waited.
func (s *Store) Dropped() int64 { return s.dropped.Load() }

// Run counts and flushes until ctx ends, then flushes once more.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case o := <-s.queue:
			s.count(ctx, o)
		case <-tick.C:
			if err := s.flush(ctx); err != nil && ctx.Err() == nil {
				s.logger.WarnContext(ctx, "drift counts not flushed, they wait", "error", err)
			}
		case done := <-s.flushes:
			for range len(s.queue) {
				s.count(ctx, <-s.queue)
			}
			done <- s.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			for range len(s.queue) {
				s.count(last, <-s.queue)
			}
			if err := s.flush(last); err != nil {
				s.logger.WarnContext(last, "drift counts lost at the end", "error", err)
			}
			return nil
		}
	}
}

// Flush writes what was observed before the call. Run must be running.
func (s *Store) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case s.flushes <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// count adds one observation to the hour's counts. Features that the reference lacks are passed over.
func (s *Store) count(ctx context.Context, o *observation) {
	defer s.spare.Put(o)
	ref := s.reference(ctx, o.tenant, o.model)
	if ref.err != nil {
		s.unread.Store(endpointKey{o.tenant, o.endpoint}, unread{o.model, ref.err, s.clock()})
		return
	}
	s.unread.Delete(endpointKey{o.tenant, o.endpoint})
	if ref.digest == "" {
		return
	}
	key := profileKey{o.tenant, o.endpoint, o.model, o.hour}
	h := s.counts[key]
	if h == nil {
		if len(s.counts) >= maxModels {
			s.dropped.Add(1)
			return
		}
		h = &hourly{digest: ref.digest, features: make([]counted, len(ref.features))}
		for i, f := range ref.features {
			h.features[i] = counted{counts: make([]int64, len(f.Counts)), sums: make([]float64, len(f.Counts))}
		}
		s.counts[key] = h
	}
	for i, name := range o.names {
		n, found := slices.BinarySearchFunc(ref.features, name, func(f feature, name string) int {
			switch {
			case f.Name < name:
				return -1
			case f.Name > name:
				return 1
			}
			return 0
		})
		if found {
			c := &h.features[n]
			c.missing += count(ref.features[n].Cuts, o.values[i:i+1], c.counts, c.sums)
		}
	}
}

// reference returns a model's reference from memory, Postgres or its training set. One that cannot be had now
// has an error and no digest.
func (s *Store) reference(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) *reference {
	key := modelKey{tenant, model}
	now := s.clock()
	if r := s.references[key]; r != nil && (r.retry.IsZero() || now.Before(r.retry)) {
		return r
	}
	r, err := s.loadReference(ctx, tenant, model)
	if err != nil {
		s.logger.WarnContext(ctx, "reference not read, decisions are not counted", "model", model.String(), "error", err)
		r = &reference{retry: now.Add(retryAfter), err: err}
	}
	if len(s.references) >= maxModels {
		clear(s.references)
	}
	s.references[key] = r
	return r
}

// loadReference reads or makes the reference profile of a model's training set. The label and other columns that are no
// features are profiled too; they are simply never observed.
func (s *Store) loadReference(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (*reference, error) {
	digest, err := s.source.TrainingSetOf(ctx, tenant, model)
	if err != nil || digest == "" {
		return &reference{}, err
	}
	r := &reference{digest: digest}
	var raw []byte
	err = s.pool.QueryRow(ctx, string(selectReference), tenant, digest).Scan(&raw)
	if err == nil {
		return r, json.Unmarshal(raw, &r.features)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("select reference: %w", err)
	}
	names, columns, err := s.source.TrainingColumns(ctx, tenant, digest)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		r.features = append(r.features, newFeature(name, columns[i]))
	}
	slices.SortFunc(r.features, func(a, b feature) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	if raw, err = json.Marshal(r.features); err != nil {
		return nil, fmt.Errorf("marshal reference: %w", err)
	}
	if _, err := s.pool.Exec(ctx, string(insertReference), tenant, digest, raw); err != nil {
		return nil, fmt.Errorf("insert reference: %w", err)
	}
	return r, nil
}

// flush adds the counts in memory to those in Postgres: all in one transaction, whose outcome is never guessed.
func (s *Store) flush(ctx context.Context) error {
	if len(s.counts) == 0 {
		return nil
	}
	now := s.clock()
	id := waybill.NewID(now)
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(string(insertFlush), id, now)
		b.Queue(string(sweepFlush), now.Add(-24*time.Hour))
		keys := make([]profileKey, 0, len(s.counts))
		for k := range s.counts {
			keys = append(keys, k)
		}
		// One order on every node: two flushes never wait for each other in a circle.
		slices.SortFunc(keys, func(a, b profileKey) int {
			x, y := fmt.Sprint(a.tenant, a.endpoint, a.hour.Unix(), a.model), fmt.Sprint(b.tenant, b.endpoint, b.hour.Unix(), b.model)
			if x < y {
				return -1
			}
			return 1
		})
		for _, k := range keys {
			h, ref := s.counts[k], s.references[modelKey{k.tenant, k.model}]
			if ref == nil || ref.digest != h.digest {
				continue
			}
			for i, c := range h.features {
				if total(c.counts)+c.missing > 0 {
					b.Queue(string(addProfile), k.tenant, k.endpoint, k.model.Name, k.model.Version, k.hour, ref.features[i].Name, h.digest, c.counts, c.sums, c.missing)
				}
			}
		}
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("add profiles: %w", err)
		}
		return nil
	})
	if errors.Is(err, pg.ErrCommitUnknown) {
		var done bool
		if e := s.pool.QueryRow(ctx, string(selectFlush), id).Scan(&done); e != nil || !done {
			return errors.Join(err, e) // still not known, or not committed: the counts stay and the next flush has an id of its own
		}
		err = nil
	}
	if err != nil {
		return err
	}
	clear(s.counts)
	return nil
}
