package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/audit"
	"waybill/internal/bucket"
	"waybill/internal/pg"
	"waybill/lineage"
)

// Config of a Store.
type Config struct {
	// Clock tells the time of changes. Defaults to waybill.SystemClock.
	Clock waybill.Clock
	// Logger takes what no caller is told. Defaults to discarding.
	Logger *slog.Logger
	// Check says whether the entrypoint's bytes are a model of the format; its errors are Invalid. The registry does not
	// know how models are read. Defaults to taking any bytes.
	Check func(f Format, data []byte) error
	// MaxEntrypointBytes bounds what is given to Check. Defaults to 256 MiB.
	MaxEntrypointBytes int64
	// MaxArtifactBytes bounds one file. Defaults to 5 GiB.
	MaxArtifactBytes int64
}

// Store is the registry over one database and one bucket. It caches nothing and is safe for concurrent use; it owns
// neither the pool nor the bucket.
type Store struct {
	pool    *pgxpool.Pool
	bucket  *bucket.Bucket
	clock   waybill.Clock
	logger  *slog.Logger
	maxFile int64

	check    func(Format, []byte) error // may be nil
	maxEntry int64
	looking  chan struct{} // holds one while an entrypoint is checked
}

// Open returns a Store over a migrated database.
func Open(_ context.Context, pool *pgxpool.Pool, b *bucket.Bucket, c Config) (*Store, error) {
	if pool == nil || b == nil {
		return nil, errors.New("open registry: a pool and a bucket are needed")
	}
	s := &Store{pool: pool, bucket: b, clock: c.Clock, logger: c.Logger, maxFile: c.MaxArtifactBytes, check: c.Check, maxEntry: c.MaxEntrypointBytes,
		looking: make(chan struct{}, 1)}
	if s.clock == nil {
		s.clock = waybill.SystemClock
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.maxEntry == 0 {
		s.maxEntry = 256 << 20
	}
	if s.maxFile == 0 {
		s.maxFile = 5 << 30
	}
	return s, nil
}

// The statements of a change. countVersion takes the lock of the model's row: whoever holds it has the next number,
// and a transaction that is rolled back gives it back, so that numbers have no gaps.
const (
	countVersion pg.SQL = `
INSERT INTO registry.models (tenant, name, created_at, created_by, last_version) VALUES ($1, $2, $3, $4, 1)
ON CONFLICT (tenant, name) DO UPDATE SET last_version = models.last_version + 1
RETURNING last_version`

	insertVersion pg.SQL = `
INSERT INTO registry.versions (tenant, model, version, state, format, entrypoint, feature_service,
    feature_service_version, training_set, metrics, description, intended_use, automation, tags, author, authors, created_at)
VALUES ($1, $2, $3, 'draft', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, ARRAY[$14], $15)`

	notify pg.SQL = `SELECT pg_notify('registry', '')`
)

// CreateVersion makes the next draft version of a model, and the model when it is new. Errors: Invalid with every
// field that is wrong.
func (s *Store) CreateVersion(ctx context.Context, actor waybill.Actor, n NewVersion) (Version, error) {
	if err := checkActor(actor); err != nil {
		return Version{}, err
	}
	n, err := n.check()
	if err != nil {
		return Version{}, err
	}
	if n.Metrics == nil {
		n.Metrics = map[string]float64{}
	}
	if n.Tags == nil {
		n.Tags = map[string]string{}
	}
	var v Version
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		now := s.now()
		v = Version{
			Tenant: actor.Tenant, Model: n.Model, State: Draft, Format: n.Format, Entrypoint: n.Entrypoint,
			FeatureService: n.FeatureService, TrainingSet: n.TrainingSet, Metrics: n.Metrics, Description: n.Description,
			IntendedUse: n.IntendedUse, Automation: n.Automation, Tags: n.Tags, Author: actor.ID, Authors: []string{actor.ID},
			CreatedAt: now,
		}
		v.Needs = needs(v.State, v.Authors, nil)
		if err := tx.QueryRow(ctx, string(countVersion), v.Tenant, v.Model, now, actor.ID).Scan(&v.Version); err != nil {
			return fmt.Errorf("count version: %w", err)
		}
		_, err := tx.Exec(ctx, string(insertVersion), v.Tenant, v.Model, v.Version, v.Format, v.Entrypoint,
			v.FeatureService.Name, v.FeatureService.Version, v.TrainingSet, v.Metrics, v.Description, v.IntendedUse,
			v.Automation, v.Tags, v.Author, now)
		if err != nil {
			return fmt.Errorf("insert version: %w", err)
		}
		edges := []lineage.Edge{{From: lineage.ActorNode(actor), To: lineage.ModelNode(v.Ref()), Kind: lineage.Wrote}}
		if v.FeatureService.Name != "" {
			edges = append(edges, lineage.Edge{From: lineage.ServiceNode(v.FeatureService), To: lineage.ModelNode(v.Ref()), Kind: lineage.Defines})
		}
		if v.TrainingSet != "" {
			edges = append(edges, lineage.Edge{From: lineage.TrainingSetNode(v.TrainingSet), To: lineage.ModelNode(v.Ref()), Kind: lineage.TrainedOn})
		}
		return s.record(ctx, tx, actor, v, now, change{action: "create", edges: edges, detail: map[string]any{
			"format": string(v.Format), "feature_service": refText(v.FeatureService), "training_set": v.TrainingSet, "automation": string(v.Automation),
		}})
	})
	if err != nil {
		return Version{}, plain(err)
	}
	return v, nil
}

// change is what record adds to a domain change: its log entry, its edges and whether other nodes must hear of it.
type change struct {
	eventType string // defaults to "model.version"
	action    string
	digest    string
	detail    map[string]any
	edges     []lineage.Edge
	notify    bool
}

// record completes a change in its transaction. The caller must roll back when it fails.
func (s *Store) record(ctx context.Context, tx pgx.Tx, actor waybill.Actor, v Version, at time.Time, c change) error {
	if err := lineage.Record(ctx, tx, actor.Tenant, at, c.edges...); err != nil {
		return err
	}
	detail := map[string]any{"action": c.action}
	for k, value := range c.detail {
		if value != "" {
			detail[k] = value
		}
	}
	if c.eventType == "" {
		c.eventType = "model.version"
	}
	err := audit.Enqueue(ctx, tx, audit.Event{
		Type: c.eventType, Tenant: actor.Tenant, Actor: actor.ID, At: at,
		Subject: string(lineage.ModelNode(v.Ref())), Digest: c.digest, Detail: detail,
	})
	if err != nil {
		return fmt.Errorf("enqueue %s: %w", c.eventType, err)
	}
	if c.notify {
		if _, err := tx.Exec(ctx, string(notify)); err != nil {
			return fmt.Errorf("notify registry: %w", err)
		}
	}
	return nil
}

// now cuts the clock to what Postgres keeps, so that what a change returns equals what is read later.
func (s *Store) now() time.Time { return s.clock().UTC().Truncate(time.Microsecond) }

// addAuthor returns authors with id, each once, oldest first.
func addAuthor(authors []string, id string) []string {
	if slices.Contains(authors, id) {
		return authors
	}
	return append(slices.Clone(authors), id)
}

// refText writes a reference, or "" for none.
func refText(r waybill.VersionRef) string {
	if r == (waybill.VersionRef{}) {
		return ""
	}
	return r.String()
}

// violations returns the fields that err names.
func violations(err error) []waybill.Violation {
	var e *waybill.Error
	if errors.As(err, &e) {
		return e.Violations
	}
	return nil
}

// plain takes a caller's error out of the words that transactions wrap around it; others stay as they are.
func plain(err error) error {
	var e *waybill.Error
	if errors.As(err, &e) {
		return e
	}
	return err
}
