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

	// Online says where online rows live: "memory" (the default), or the URL of a Redis or Valkey that hubs share, for more
	// rows than fit into memory: redis://host:6379, rediss:// with TLS, several nodes of a cluster by ?addr=host:port.
	Online string
	// OnlineLost says what reads do while that server is away or has lost rows: "error" (the default), they are Unavailable;
	// or "postgres", they read rows that hubs then also keep in Postgres.
	OnlineLost string
}

// Store publishes definitions, takes commits in and serves online rows from memory, or from where Config.Online says.
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

	uploading   *places  // one for each file that is in memory
	decoding    *places  // and for each of them that is being decoded
	downloading *places  // one for each training set that is being sent
	fresh       sync.Map // key of an object → *laidFile, of files that this hub is writing

	home  home // of the online rows
	spare home // when that is lost; or nil

	abreast  chan struct{}  // one for each view that is being followed for nobody in particular
	behind   sync.WaitGroup // and its goroutine
	ending   chan struct{}  // closed by end
	end      func()         // of everything that goes on beyond the call that began it
	awaiting *places        // one for each call that waits for a commit
	chase    chase          // for all of them
	views    sync.Map       // viewKey → *online
	readers  sync.Map       // viewKey of a service → cachedReader; version 0 is "the latest"
	adhoc    adhocReaders
}

type viewKey struct {
	tenant waybill.Tenant
	ref    waybill.VersionRef
}

const (
	selectLatest pg.SQL = `
SELECT version, revision, digest, yaml FROM featurestore.definition
WHERE tenant = $1 AND kind = $2 AND name = $3 AND ($4 = 0 OR version = $4) ORDER BY version DESC, revision DESC LIMIT 1`
	selectLogs   pg.SQL = `SELECT tenant, view, version, seq FROM featurestore.log`
	insertHomeID pg.SQL = `INSERT INTO featurestore.online_home DEFAULT VALUES ON CONFLICT DO NOTHING`
	selectHomeID pg.SQL = `SELECT id::text FROM featurestore.online_home`
)

// Open brings the online rows of every view to the end of its log. A view whose log cannot be read, or whose rows cannot be
// written, is logged, answers Unavailable and is tried again; the others are served. Call Run to follow the log, and Close
// in the end. Errors: Invalid for Config.Online and OnlineLost that are not as said there; Conflict for a server that may
// evict rows.
func Open(ctx context.Context, pool *pgxpool.Pool, b *bucket.Bucket, c Config) (*Store, error) {
	s := newStore(pool, b, c)
	if err := s.needsTokenKey(ctx); err != nil {
		return nil, err
	}
	if err := s.openHomes(ctx, c); err != nil {
		return nil, err
	}
	failed, _, err := s.refresh(ctx, nil)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.complain(ctx, failed)
	return s, nil
}

// openHomes finds the homes of online rows.
func (s *Store) openHomes(ctx context.Context, c Config) error {
	switch {
	case c.OnlineLost != "" && c.OnlineLost != "error" && c.OnlineLost != "postgres":
		return waybill.InvalidField("online-lost", "must be error or postgres")
	case c.Online == "" || c.Online == "memory":
		if c.OnlineLost == "postgres" {
			return waybill.InvalidField("online-lost", "is for online rows in a Redis or Valkey; those in memory are not lost while the hub runs")
		}
		return nil
	}
	id, err := s.homeID(ctx)
	if err != nil {
		return err
	}
	t, err := openTier(ctx, c.Online, id, s.logger)
	if err != nil {
		return err
	}
	if s.home = t; c.OnlineLost == "postgres" {
		s.spare = postgres{s.pool}
	}
	return nil
}

// homeID is what tells the rows of this database from those of others on one server. It is made by the first hub.
func (s *Store) homeID(ctx context.Context) (id string, err error) {
	if _, err := s.pool.Exec(ctx, string(insertHomeID)); err != nil {
		return "", fmt.Errorf("insert id of online rows: %w", err)
	}
	if err := s.pool.QueryRow(ctx, string(selectHomeID)).Scan(&id); err != nil {
		return "", fmt.Errorf("select id of online rows: %w", err)
	}
	return id, nil
}

// Close ends what still follows the log, and the connections to where online rows live. It is called after Run; nothing may be
// read afterwards.
func (s *Store) Close() {
	s.end()
	s.behind.Wait()
	if t, ok := s.home.(*tier); ok {
		t.close()
	}
}

func newStore(pool *pgxpool.Pool, b *bucket.Bucket, c Config) *Store {
	s := &Store{pool: pool, bucket: b, clock: c.Clock, logger: c.Logger, poll: c.Poll, live: c.Live, snapshotRows: c.SnapshotRows, tokenKey: c.TokenKey, submit: c.Submit, partCells: partCells, home: inMemory{},
		uploading: newPlaces("a file is read", uploads), decoding: newPlaces("a file is decoded", decoders), downloading: newPlaces("a training set is sent", downloads), abreast: make(chan struct{}, abreast), ending: make(chan struct{}), awaiting: newPlaces("a commit is visible", maxAwaiting)}
	s.end = sync.OnceFunc(func() { close(s.ending) })
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

// advance brings the online rows of a view to the end of its log.
func (s *Store) advance(ctx context.Context, o *online, end int64) error {
	have, err := o.rows.begin(ctx, s.clock())
	if err != nil {
		return err
	}
	if have > end { // another hub has read more of the log than we have; or the log has become shorter
		k := o.key
		if err := s.pool.QueryRow(ctx, string(selectLogEnd), k.tenant, k.ref.Name, k.ref.Version).Scan(&end); err != nil {
			return fmt.Errorf("select end of log: %w", err)
		}
		if have > end {
			return waybill.Errorf(waybill.Corrupt, "the online rows of %s are of commit %d and its log ends at %d: the database is older than they are; empty the server of online rows, and they are written again", k.ref, have, end)
		}
	}
	if have < 0 && end > 0 {
		if have, err = s.restore(ctx, o, end); err != nil {
			return err
		}
	}
	if have = max(have, 0); have < end {
		if err := s.catchUp(ctx, o, have, end); err != nil {
			return err
		}
	} else if err := o.publish(ctx, end); err != nil { // of an empty log
		return err
	}
	o.ready.Store(true)
	o.looked = time.Now()
	return nil
}

// online returns the online rows of a view version, not ready until the log is applied.
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
	fresh := newOnline(s.home, key, &v.View, ttl)
	if s.spare != nil {
		fresh.spare = newOnline(s.spare, key, &v.View, ttl)
	}
	o, _ := s.views.LoadOrStore(key, fresh)
	return o.(*online), nil
}

// catchUp applies the commits after have, up to end. Each is visible at once and whole; after an error the commits before
// it stay applied, and the next try begins there.
func (s *Store) catchUp(ctx context.Context, o *online, have, end int64) error {
	return s.stored(ctx, o.key, have, end, func(c *storedCommit) error {
		now, nth, failed := s.clock().UnixMicro(), uint32(0), error(nil)
		if a, ok := o.rows.(*arena); ok {
			a.expect(c.count)
			if recs, err := c.records(o.view); err != nil {
				return err
			} else if len(recs) > 0 {
				if err := a.fill(recs, c.at, c.seq, now); err != nil {
					return fmt.Errorf("read commit %d of %s: %w", c.seq, c.ref, err)
				}
				return o.publish(ctx, c.seq)
			}
		}
		if err := c.packed(o.layout, o.view, func(b []byte) {
			if failed == nil {
				failed = o.rows.put(ctx, b, nth, now)
			}
			nth++
		}); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		return o.publish(ctx, c.seq)
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

// Memory says how many keys of a view version are in this hub's memory, and how many bytes its slabs and indices have; 0
// and 0 when online rows live elsewhere.
func (s *Store) Memory(tenant waybill.Tenant, ref waybill.VersionRef) (keys, size int) {
	v, ok := s.views.Load(viewKey{tenant, ref})
	if !ok {
		return 0, 0
	}
	o, ok := v.(*online)
	if !ok || o.lock(context.Background()) != nil {
		return 0, 0
	}
	defer o.unlock()
	if a, ok := o.rows.(*arena); ok {
		return a.memory()
	}
	return 0, 0
}
