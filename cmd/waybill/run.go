package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/drift"
	"waybill/featurestore"
	"waybill/internal/access"
	"waybill/internal/api"
	"waybill/internal/bucket"
	"waybill/internal/jobs"
	"waybill/internal/pg"
	"waybill/lineage"
	"waybill/registry"
	"waybill/score"
	"waybill/web"
)

// hubConfig is what a hub is made of, from settings (serve) or from the embedded default (dev, demo, bench).
type hubConfig struct {
	DSN       string
	MaxConns  int
	Bucket    bucket.Config
	LogID     int
	Origin    string
	SignerKey string
	TokenKey  string // of personal features; "" while no view has some
	Online    string // where online rows live; "" is in memory
	Lost      string // what reads do when they are lost there; "" is an error
	Node      string
	Env       access.Env
	Logger    *slog.Logger
}

// hub is every part, wired. This file is the only place where that happens.
type hub struct {
	pool      *pgxpool.Pool
	access    *access.Access
	features  *featurestore.Store
	models    *registry.Store
	graph     *lineage.Graph
	log       *audit.Log
	drift     *drift.Store
	decisions *decision.Service
	jobs      *jobs.Client
	server    *api.Server
	logger    *slog.Logger
}

// reference gives drift the columns of training sets and knows which one a model was fitted to.
type reference struct {
	*featurestore.Store
	models *registry.Store
}

// TrainingSetOf returns the hex digest of the training set of a model version, "" when it has none.
func (r reference) TrainingSetOf(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (string, error) {
	v, err := r.models.Get(ctx, tenant, model)
	return v.TrainingSet, err
}

// mayServe says whether a model version may serve, now or later. It is asked by the feature store, which is opened before
// the registry but serves nothing before it.
func (h *hub) mayServe(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (bool, error) {
	v, err := h.models.Get(ctx, tenant, model)
	return v.State != registry.Rejected && v.State != registry.Revoked && v.State != registry.Retired, err
}

// buildsWork names the jobs that make training sets, of which one run may take as long as this: the next goes on where it
// ended.
const (
	buildsWork  = "training-sets"
	buildWithin = 2 * time.Hour
)

// submitBuild enqueues a build. It is called by the feature store, which is opened before the jobs but takes no calls before.
func (h *hub) submitBuild(ctx context.Context, tx pgx.Tx, subject string) error {
	return h.jobs.Submit(ctx, tx, buildsWork, subject)
}

// checkModel lets in what the hub could score.
func checkModel(f registry.Format, data []byte) error {
	if f == registry.Rules {
		_, err := score.LoadRules(data)
		return err
	}
	_, err := score.Load(score.Format(f), data)
	return err
}

// openHub opens every part. The schema must be this binary's. Nothing is served before run.
func openHub(ctx context.Context, c hubConfig) (_ *hub, err error) {
	h := &hub{logger: c.Logger}
	if h.pool, err = pg.Open(ctx, pg.Config{DSN: c.DSN, MaxConns: c.MaxConns}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if h.features != nil {
				h.features.Close()
			}
			h.pool.Close()
		}
	}()
	if err := pg.CheckSchema(ctx, h.pool); err != nil {
		return nil, err
	}
	objects, err := bucket.Open(ctx, c.Bucket)
	if err != nil {
		return nil, err
	}
	if h.access, err = access.Open(ctx, h.pool, access.Config{Env: c.Env, Logger: c.Logger}); err != nil {
		return nil, err
	}
	if h.features, err = featurestore.Open(ctx, h.pool, objects, featurestore.Config{Logger: c.Logger, Live: h.mayServe, TokenKey: []byte(c.TokenKey),
		Submit: h.submitBuild, Online: c.Online, OnlineLost: c.Lost}); err != nil {
		return nil, err
	}
	if h.models, err = registry.Open(ctx, h.pool, objects, registry.Config{Logger: c.Logger, Check: checkModel, MaxEntrypointBytes: score.MaxModelBytes}); err != nil {
		return nil, err
	}
	if h.graph, err = lineage.Open(ctx, h.pool, lineage.Config{}); err != nil {
		return nil, err
	}
	if h.drift, err = drift.Open(ctx, h.pool, h.graph, reference{h.features, h.models}, drift.Config{Logger: c.Logger}); err != nil {
		return nil, err
	}
	if h.log, err = audit.Open(ctx, h.pool, audit.Config{LogID: c.LogID, Origin: c.Origin, SignerKey: c.SignerKey, Producer: c.Node, Logger: c.Logger}); err != nil {
		return nil, err
	}
	if h.decisions, err = decision.New(ctx, h.pool, h.features, h.models, h.log, decision.Config{Logger: c.Logger, Observer: h.drift}); err != nil {
		return nil, err
	}
	if h.jobs, err = jobs.New(h.pool, []jobs.Work{
		{Name: "drift-monitors", Every: time.Minute, Run: h.drift.RunAll},
		{Name: "feature-snapshots", Every: time.Minute, Run: h.features.Snapshot},
		{Name: "history-compaction", Every: time.Minute, Run: h.features.CompactHistory},
		{Name: buildsWork, For: h.features.BuildTrainingSet, Timeout: buildWithin},
	}, jobs.Config{Logger: c.Logger}); err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waybill_access_denials_total", Help: "Calls of known callers that the policy refused."},
			func() float64 { return float64(h.access.Denials()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waybill_access_refusals_total", Help: "Callers that could not be authenticated."},
			func() float64 { return float64(h.access.Refusals()) }))
	if h.server, err = api.New(ctx, api.Config{Access: h.access, Features: h.features, Models: h.models, Decisions: h.decisions, Log: h.log, Lineage: h.graph,
		Drift: h.drift, Ready: h.pool.Ping, Away: pg.IsConnLost, Web: web.Handler(), Metrics: metrics, Logger: c.Logger, Version: "waybill " + version(),
		FeastRegistry: func(ctx context.Context, tenant waybill.Tenant, data []byte) error {
			_, err := objects.Put(ctx, "feast/"+string(tenant)+"/registry.db", bytes.NewReader(data), int64(len(data)))
			return err
		}}); err != nil {
		return nil, err
	}
	return h, nil
}

// listeners are where a hub serves.
type listeners struct {
	http, grpc net.Listener
	tls        *tls.Config // nil for plain text
}

// run serves until ctx ends, then drains: no new calls, the running ones may end within drain, the log last.
func (h *hub) run(ctx context.Context, l listeners, drain time.Duration) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	parts, work := errgroup.WithContext(work)
	for name, f := range map[string]func(context.Context) error{"access": h.access.Run, "features": h.features.Run, "log": h.log.Run,
		"decisions": h.decisions.Run, "drift": h.drift.Run} {
		parts.Go(func() error {
			if err := f(work); err != nil {
				return fmt.Errorf("run %s: %w", name, err)
			}
			if work.Err() == nil {
				return fmt.Errorf("run %s: ended by itself", name)
			}
			return nil
		})
	}
	if err := h.jobs.Start(work); err != nil {
		return errors.Join(err, stopAll(stopWork, parts))
	}
	web := &http.Server{Handler: h.server.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(h.logger.Handler(), slog.LevelWarn)}
	served := make(chan error, 2)
	httpListener, grpcListener := l.http, l.grpc
	if l.tls != nil {
		httpListener = tls.NewListener(l.http, withALPN(l.tls, "h2", "http/1.1"))
		grpcListener = tls.NewListener(l.grpc, withALPN(l.tls, "h2"))
	}
	go func() { served <- web.Serve(httpListener) }()
	go func() { served <- h.server.GRPC().Serve(grpcListener) }()
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-served:
	case <-work.Done(): // a part failed; parts.Wait says why
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		h.server.GRPC().GracefulStop()
		close(drained)
	}()
	err := web.Shutdown(late)
	select {
	case <-drained:
	case <-late.Done():
		h.server.GRPC().Stop()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = web.Close()
	}
	if errors.Is(failed, http.ErrServerClosed) {
		failed = nil
	}
	err = errors.Join(failed, err, h.jobs.Stop(late))
	return errors.Join(err, stopAll(stopWork, parts))
}

func stopAll(stop context.CancelFunc, parts *errgroup.Group) error {
	stop()
	return parts.Wait()
}

func withALPN(c *tls.Config, protos ...string) *tls.Config {
	c = c.Clone()
	c.NextProtos = protos
	return c
}

// close gives the connections back. Call it after run.
func (h *hub) close() {
	h.features.Close()
	h.pool.Close()
}
