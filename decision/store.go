package decision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/audit"
	"waybill/featurestore"
	"waybill/internal/pg"
	"waybill/lineage"
	"waybill/registry"
)

// Appender is the decision log as decide needs it: it answers after the leaf is durable.
type Appender interface {
	Append(ctx context.Context, d audit.Decision) (audit.Receipt, error)
	FindDecision(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (audit.DecisionRow, error)
}

// Observer is told of every logged decision that a model made. It must not block.
type Observer interface {
	Observe(tenant waybill.Tenant, endpoint string, model waybill.VersionRef, names []string, values []float64, prediction float64, at time.Time)
}

// Config completes New. Zero values: the system clock, no observer, slog's discard handler.
type Config struct {
	Clock    waybill.Clock
	Logger   *slog.Logger
	Observer Observer
	Poll     time.Duration // how often revisions and model states are read again without a NOTIFY; defaults to 1 s
}

// Service publishes endpoints and runs them.
type Service struct {
	pool     *pgxpool.Pool
	features *featurestore.Store
	models   *registry.Store
	appender Appender
	clock    waybill.Clock
	logger   *slog.Logger
	observer Observer
	poll     time.Duration

	snapshot atomic.Pointer[snapshot] // replaced whole, never changed
	refresh  sync.Mutex               // held while a snapshot is built; guards attempts and missing
	attempts map[modelKey]attempt     // models and rule sets by content, kept while a revision refers to them
	missing  []registry.Version       // what the snapshot lacks and load is to bring
	loading  chan struct{}            // holds one while a version is loaded: each may take hundreds of megabytes
	replays  chan struct{}            // the same for replays, which must not hold up what is to serve
}

// snapshot is every endpoint in force and the state of the models they name.
type snapshot struct {
	endpoints map[endpointKey]*revision
	states    map[stateKey]modelState
}

type endpointKey struct {
	tenant waybill.Tenant
	name   string
}

type stateKey struct {
	tenant waybill.Tenant
	ref    waybill.VersionRef
}

type modelKey struct {
	tenant waybill.Tenant
	ref    waybill.VersionRef
	digest string
}

// attempt is what loading a version gave. A failure is kept: bytes that cannot be parsed today cannot tomorrow.
type attempt struct {
	model *loaded
	err   error
	again time.Time // when to try again what may have been the bucket's fault; zero for never
}

// refreshWithin bounds what a publication does after its commit.
const refreshWithin = 30 * time.Second

// againAfter is how long a version that the bucket did not give waits for the next try.
const againAfter = 5 * time.Second

// modelState is what the registry says of a model or rule set and what loading it gave.
type modelState struct {
	version registry.Version
	model   *loaded
	err     error // why it cannot answer though approved
	pending bool  // approved, and not loaded yet
}

// revision is a compiled endpoint revision with its door to the features. It never changes.
type revision struct {
	*program
	tenant    waybill.Tenant
	number    int
	author    string
	reason    string
	published time.Time
	document  string
	reader    *featurestore.Reader
	secret    map[string]bool // its outputs that tell values of the class secret
}

// Endpoint is an endpoint as lists and pages show it.
type Endpoint struct {
	Name       string
	Revision   int
	Type       Kind
	Model      waybill.VersionRef
	ModelState registry.State
	Fallback   waybill.VersionRef
	Service    waybill.VersionRef
	Digest     string
	Author     string
	Reason     string
	Published  time.Time
	Document   string
	Serving    string // in words: who answers now and why
}

const (
	selectCurrent pg.SQL = `
SELECT r.tenant, r.name, r.revision, r.digest, r.definition, r.author, r.reason, r.published_at
FROM decision.endpoint e JOIN decision.revision r USING (tenant, name, revision) ORDER BY r.tenant, r.name`
	lockEndpoint pg.SQL = `
INSERT INTO decision.endpoint (tenant, name, revision, published_at) VALUES ($1, $2, 1, $3)
ON CONFLICT (tenant, name) DO UPDATE SET revision = decision.endpoint.revision
RETURNING revision, published_at = $3`
	currentDigest  pg.SQL = `SELECT digest FROM decision.revision WHERE tenant = $1 AND name = $2 AND revision = $3`
	insertRevision pg.SQL = `
INSERT INTO decision.revision (tenant, name, revision, digest, definition, author, reason, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	moveEndpoint    pg.SQL = `UPDATE decision.endpoint SET revision = $3, published_at = $4 WHERE tenant = $1 AND name = $2`
	notifyEndpoints pg.SQL = `SELECT pg_notify('endpoints', '')`
)

// New returns a Service whose snapshot is loaded. Call Run to follow changes.
func New(ctx context.Context, pool *pgxpool.Pool, features *featurestore.Store, models *registry.Store, appender Appender, c Config) (*Service, error) {
	s := &Service{pool: pool, features: features, models: models, appender: appender,
		clock: c.Clock, logger: c.Logger, observer: c.Observer, poll: c.Poll, attempts: map[modelKey]attempt{},
		loading: make(chan struct{}, 1), replays: make(chan struct{}, 1)}
	if s.clock == nil {
		s.clock = waybill.SystemClock
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.poll == 0 {
		s.poll = time.Second
	}
	if err := s.Refresh(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run follows revisions and model states until ctx ends: a revoked model stops answering within a second of its
// revocation's commit, by NOTIFY or, when that is lost, by polling. Loading goes on beside it: a revocation never waits
// for the bucket.
func (s *Service) Run(ctx context.Context) error {
	lacking := make(chan struct{}, 1)
	follow := func(ctx context.Context) error {
		lacks, err := s.swap(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.logger.WarnContext(ctx, "endpoints not refreshed, the last known ones serve", "error", err)
		case lacks:
			select {
			case lacking <- struct{}{}:
			default:
			}
		}
		return nil
	}
	loader := make(chan struct{})
	go func() {
		defer close(loader)
		for {
			select {
			case <-ctx.Done():
				return
			case <-lacking:
			}
			if err := s.load(ctx); err != nil && ctx.Err() == nil {
				s.logger.WarnContext(ctx, "models not loaded", "error", err)
			}
		}
	}()
	errs := make(chan error, 2)
	for _, channel := range []string{"endpoints", "registry"} {
		go func() { errs <- pg.Listen(ctx, s.pool, channel, s.poll, follow) }()
	}
	err := errors.Join(<-errs, <-errs)
	<-loader
	return err
}

// Refresh reads endpoints and model states, swaps the snapshot, and loads what is approved and not in memory. On error
// the old snapshot goes on serving.
func (s *Service) Refresh(ctx context.Context) error {
	lacks, err := s.swap(ctx)
	if err != nil || !lacks {
		return err
	}
	return s.load(ctx)
}

// swap puts the snapshot of what Postgres holds now into place, without any I/O but that one. It reports whether some
// version is approved and not in memory. An endpoint whose new revision waits for its model goes on with the old one.
func (s *Service) swap(ctx context.Context) (lacks bool, err error) {
	s.refresh.Lock()
	defer s.refresh.Unlock()
	rows, err := s.pool.Query(ctx, string(selectCurrent))
	if err != nil {
		return false, fmt.Errorf("select endpoints: %w", err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowToStructByPos[storedRevision])
	if err != nil {
		return false, fmt.Errorf("read endpoints: %w", err)
	}
	old := s.snapshot.Load()
	next := &snapshot{endpoints: map[endpointKey]*revision{}, states: map[stateKey]modelState{}}
	s.missing = nil
	for _, row := range stored {
		key := endpointKey{row.Tenant, row.Name}
		var was *revision
		if old != nil {
			was = old.endpoints[key]
		}
		rev := was
		if was == nil || was.number != row.Revision {
			if rev, err = s.open(ctx, row); err != nil {
				return false, fmt.Errorf("open endpoint %s revision %d: %w", row.Name, row.Revision, err)
			}
		}
		waits, err := s.addStates(ctx, next, rev)
		if err != nil {
			return false, err
		}
		if waits && was != nil && rev != was {
			if _, err := s.addStates(ctx, next, was); err != nil {
				return false, err
			}
			rev = was
		}
		next.endpoints[key] = rev
	}
	s.forget(next)
	s.snapshot.Store(next)
	return len(s.missing) > 0, nil
}

// addStates puts what is known of a revision's model and rules into the snapshot, and reports whether one of them has
// yet to be loaded.
func (s *Service) addStates(ctx context.Context, next *snapshot, rev *revision) (waits bool, err error) {
	for _, ref := range []waybill.VersionRef{rev.model, rev.fallback} {
		key := stateKey{rev.tenant, ref}
		st, there := next.states[key]
		if !there {
			if st, err = s.stateOf(ctx, key); err != nil {
				return false, err
			}
			next.states[key] = st
		}
		waits = waits || st.pending
	}
	return waits, nil
}

// load brings what the snapshot lacks into memory and swaps once more. No decision and no refresh waits for it.
func (s *Service) load(ctx context.Context) error {
	if err := take(ctx, s.loading); err != nil {
		return err
	}
	defer func() { <-s.loading }()
	s.refresh.Lock()
	missing := s.missing
	s.refresh.Unlock()
	for _, v := range missing {
		key := modelKey{v.Tenant, v.Ref(), v.Digest}
		s.refresh.Lock()
		a, tried := s.attempts[key]
		s.refresh.Unlock()
		if tried && !a.due(s.clock()) {
			continue // another goroutine was faster
		}
		a = attempt{}
		a.model, a.err = s.loadVersion(ctx, v)
		if ctx.Err() != nil {
			return fmt.Errorf("load %s: %w", v.Ref(), ctx.Err())
		}
		switch waybill.CodeOf(a.err) {
		case waybill.Invalid, waybill.TooLarge: // the bytes are what they should be, and no model
		case waybill.Corrupt: // somebody may put the right bytes back
			a.again = s.clock().Add(12 * againAfter)
		default:
			a.again = s.clock().Add(againAfter)
		}
		if a.err != nil {
			s.logger.ErrorContext(ctx, "approved version cannot be loaded", "tenant", v.Tenant, "version", v.Ref().String(), "error", a.err)
		}
		s.refresh.Lock()
		s.attempts[key] = a
		s.refresh.Unlock()
	}
	_, err := s.swap(ctx)
	return err
}

// take waits for a turn. Give it back by receiving from turns.
func take(ctx context.Context, turns chan struct{}) error {
	select {
	case turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return waybill.Wrap(waybill.Deadline, ctx.Err(), "other models are being loaded; try again")
	}
}

// due says whether to try, for the first time or again.
func (a attempt) due(now time.Time) bool {
	return a.model == nil && (a.err == nil || !a.again.IsZero() && !now.Before(a.again))
}

type storedRevision struct {
	Tenant     waybill.Tenant
	Name       string
	Revision   int
	Digest     string
	Definition string
	Author     string
	Reason     string
	Published  time.Time
}

// open compiles a stored revision and binds it to its feature service.
func (s *Service) open(ctx context.Context, row storedRevision) (*revision, error) {
	def, err := Parse([]byte(row.Definition))
	if err != nil {
		return nil, err
	}
	p, err := compile(def)
	if err != nil {
		return nil, err
	}
	p.digest = row.Digest
	rev := &revision{program: p, tenant: row.Tenant, number: row.Revision, author: row.Author, reason: row.Reason,
		published: row.Published, document: row.Definition}
	if rev.reader, err = s.features.Reader(ctx, row.Tenant, p.service); err != nil {
		return nil, err
	}
	rev.secret = map[string]bool{}
	for _, x := range rev.reader.Secrets() {
		rev.secret[x.Output] = true
	}
	return rev, nil
}

// stateOf asks the registry. A version that is not there is not approved: the fallback answers and says why. Any other
// error says nothing about the version, and the snapshot stays as it is.
func (s *Service) stateOf(ctx context.Context, key stateKey) (modelState, error) {
	v, err := s.models.Get(ctx, key.tenant, key.ref)
	if waybill.CodeOf(err) == waybill.NotFound {
		return modelState{err: err}, nil
	}
	if err != nil {
		return modelState{}, fmt.Errorf("look up %s: %w", key.ref, err)
	}
	st := modelState{version: v}
	if !v.State.Serves() {
		return st, nil
	}
	a, tried := s.attempts[modelKey{key.tenant, key.ref, v.Digest}]
	st.model, st.err = a.model, a.err
	if a.due(s.clock()) {
		s.missing = append(s.missing, v)
	}
	if !tried {
		st.pending, st.err = true, waybill.Errorf(waybill.Unavailable, "%s is being loaded", key.ref)
	}
	return st, nil
}

// forget drops what was loaded for versions that no state refers to.
func (s *Service) forget(next *snapshot) {
	for k := range s.attempts {
		if st, there := next.states[stateKey{k.tenant, k.ref}]; !there || st.version.Digest != k.digest || !st.version.State.Serves() {
			delete(s.attempts, k)
		}
	}
}

func (s *Service) revisionOf(tenant waybill.Tenant, name string) (*revision, error) {
	if err := waybill.CheckName("endpoint", name); err != nil {
		return nil, err
	}
	rev := s.snapshot.Load().endpoints[endpointKey{tenant, name}]
	if rev == nil {
		return nil, waybill.Errorf(waybill.NotFound, "there is no endpoint %q; list them with GET /v1/endpoints", name)
	}
	return rev, nil
}

// serving returns the version, of a revision's model or of its rules, that may answer now, or says in words why not.
func (s *Service) serving(rev *revision, ref waybill.VersionRef) (*loaded, error) {
	st := s.snapshot.Load().states[stateKey{rev.tenant, ref}]
	switch {
	case st.err != nil:
		return nil, st.err
	case st.model == nil:
		return nil, waybill.Errorf(waybill.Conflict, "%s is %s", ref, st.version.State)
	}
	return st.model, nil
}

// Publish makes a revision of a YAML document; references are resolved and checked now. The same document twice
// changes nothing. The model need not be approved yet: until it is, the rules answer and say so.
func (s *Service) Publish(ctx context.Context, actor waybill.Actor, doc []byte, reason string) (Endpoint, bool, error) {
	def, err := Parse(doc)
	if err != nil {
		return Endpoint{}, false, err
	}
	if strings.TrimSpace(reason) == "" || len(reason) > MaxTextBytes {
		return Endpoint{}, false, waybill.InvalidField("reason", "must say why in 1 to 1,024 bytes")
	}
	p, err := compile(def)
	if err != nil {
		return Endpoint{}, false, err
	}
	reader, err := s.features.Reader(ctx, actor.Tenant, p.service)
	if err != nil {
		return Endpoint{}, false, err
	}
	if err := s.features.RefuseRetired(ctx, actor.Tenant, "service", reader.Version()); err != nil {
		return Endpoint{}, false, err
	}
	def.Service = reader.Version().String()
	p.service = reader.Version()
	for _, in := range reader.Inputs() {
		if !slices.ContainsFunc(def.Inputs, func(i Input) bool { return i.Name == in.Name }) {
			return Endpoint{}, false, waybill.InvalidField("inputs", "lack "+in.Name+" ("+string(in.Type)+"), which feature service "+def.Service+" needs")
		}
	}
	version, err := s.models.Get(ctx, actor.Tenant, p.model)
	if err != nil {
		return Endpoint{}, false, err
	}
	if version.FeatureService.Version != 0 && version.FeatureService != p.service {
		return Endpoint{}, false, waybill.InvalidField("service", "is "+def.Service+", but "+def.Model+" was made for "+version.FeatureService.String()+"; use that")
	}
	if version.State.Serves() {
		model, err := s.loadVersion(ctx, version)
		if err != nil {
			return Endpoint{}, false, err
		}
		if model.rules != nil {
			return Endpoint{}, false, waybill.InvalidField("model", def.Model+" is a rule set; name it as the fallback")
		}
		if _, err := model.columns(reader); err != nil {
			return Endpoint{}, false, err
		}
	}
	if err := s.checkRules(ctx, actor.Tenant, p.fallback); err != nil {
		return Endpoint{}, false, err
	}
	canon, digest, err := canonical(def)
	if err != nil {
		return Endpoint{}, false, err
	}
	changed := false
	var published int
	var at time.Time
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		changed = false
		now := s.clock()
		at = now
		var number int
		var fresh bool
		if err := tx.QueryRow(ctx, string(lockEndpoint), actor.Tenant, def.Name, now).Scan(&number, &fresh); err != nil {
			return fmt.Errorf("lock endpoint: %w", err)
		}
		var last string
		err := tx.QueryRow(ctx, string(currentDigest), actor.Tenant, def.Name, number).Scan(&last)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return fmt.Errorf("select revision: %w", err)
		case last == digest:
			published = number
			return nil
		default:
			number++
		}
		changed, published = true, number
		if _, err := tx.Exec(ctx, string(insertRevision), actor.Tenant, def.Name, number, digest, string(canon), actor.ID, reason, now); err != nil {
			return fmt.Errorf("insert revision: %w", err)
		}
		if _, err := tx.Exec(ctx, string(moveEndpoint), actor.Tenant, def.Name, number, now); err != nil {
			return fmt.Errorf("move endpoint: %w", err)
		}
		node := lineage.Node("endpoint:" + waybill.VersionRef{Name: def.Name, Version: number}.String())
		if err := lineage.Record(ctx, tx, actor.Tenant, now,
			lineage.Edge{From: lineage.ModelNode(p.model), To: node, Kind: lineage.Serves},
			lineage.Edge{From: lineage.ModelNode(p.fallback), To: node, Kind: lineage.Serves},
			lineage.Edge{From: lineage.ServiceNode(p.service), To: node, Kind: lineage.Reads},
			lineage.Edge{From: lineage.ActorNode(actor), To: node, Kind: lineage.Wrote}); err != nil {
			return err
		}
		if err := audit.Enqueue(ctx, tx, audit.Event{Type: "endpoint.revision", Tenant: actor.Tenant, Actor: actor.ID, At: now,
			Subject: string(node), Digest: digest,
			Detail: map[string]any{"model": def.Model, "fallback": def.Fallback, "service": def.Service, "reason": reason}}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, string(notifyEndpoints))
		return err
	})
	if err != nil {
		return Endpoint{}, false, err
	}
	// It is published now, whether the caller goes on waiting or not.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshWithin)
	defer cancel()
	if err := s.Refresh(late); err != nil {
		s.logger.WarnContext(ctx, "endpoint published, and not in memory of this node yet", "endpoint", def.Name, "error", err)
	}
	e, err := s.Endpoint(actor.Tenant, def.Name)
	if err == nil && e.Digest == digest {
		return e, changed, nil
	}
	return Endpoint{Name: def.Name, Revision: published, Type: def.Type, Model: p.model, ModelState: version.State, Fallback: p.fallback, Service: p.service,
		Digest: digest, Author: actor.ID, Reason: reason, Published: at, Document: string(canon), Serving: "published; this node is still loading it"}, changed, nil
}

// Endpoint returns one endpoint of a tenant.
func (s *Service) Endpoint(tenant waybill.Tenant, name string) (Endpoint, error) {
	rev, err := s.revisionOf(tenant, name)
	if err != nil {
		return Endpoint{}, err
	}
	st := s.snapshot.Load().states[stateKey{tenant, rev.model}]
	e := Endpoint{Name: name, Revision: rev.number, Type: rev.def.Type, Model: rev.model, ModelState: st.version.State, Fallback: rev.fallback,
		Service: rev.service, Digest: rev.digest, Author: rev.author, Reason: rev.reason, Published: rev.published, Document: rev.document}
	_, noModel := s.serving(rev, rev.model)
	_, noRules := s.serving(rev, rev.fallback)
	switch {
	case noModel != nil && noRules != nil:
		e.Serving = "nobody answers: " + reasonOf(noModel) + "; rules: " + reasonOf(noRules)
	case noModel != nil:
		e.Serving = "the rules " + rev.fallback.String() + " answer: " + reasonOf(noModel)
	case noRules != nil:
		e.Serving = rev.model.String() + " answers; no rules stand by: " + reasonOf(noRules)
	default:
		e.Serving = rev.model.String() + " answers; the rules " + rev.fallback.String() + " stand by"
	}
	return e, nil
}

// Endpoints lists a tenant's endpoints by name, after the given one.
func (s *Service) Endpoints(tenant waybill.Tenant, after string, limit int) ([]Endpoint, error) {
	var names []string
	for key := range s.snapshot.Load().endpoints {
		if key.tenant == tenant && key.name > after {
			names = append(names, key.name)
		}
	}
	slices.Sort(names)
	var out []Endpoint
	for _, name := range names[:min(limit, len(names))] {
		e, err := s.Endpoint(tenant, name)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// recorded returns the first answer to an idempotency key, if there is one.
func (s *Service) recorded(ctx context.Context, tenant waybill.Tenant, id waybill.ID, digest [32]byte) (Answer, bool, error) {
	row, err := s.appender.FindDecision(ctx, tenant, id)
	if waybill.CodeOf(err) == waybill.NotFound {
		return Answer{}, false, nil
	}
	if err != nil {
		return Answer{}, false, err
	}
	if row.RequestDigest != digest {
		return Answer{}, false, waybill.Errorf(waybill.Conflict, "this Idempotency-Key was used with another request; use a new key for a new request")
	}
	var rec Record
	if err := json.Unmarshal(row.Payload, &rec); err != nil {
		return Answer{}, false, waybill.Wrap(waybill.Corrupt, err, "the record of decision "+id.String()+" cannot be read")
	}
	// Appending again gives the first receipt: the log knows the decision.
	receipt, err := s.appender.Append(ctx, audit.Decision{Leaf: audit.DecisionLeaf{Tenant: tenant, ID: id}, RequestDigest: digest})
	if err != nil {
		return Answer{}, false, err
	}
	return Answer{DecisionID: id, Body: rec.Answer, Receipt: receipt}, true, nil
}
