package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/audit"
	"waybill/featurestore"
	"waybill/internal/access"
	decisionv1 "waybill/proto/waybill/decision/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	"waybill/registry"
)

const (
	benchFeatures = 50
	benchEntities = 10_000
	benchCallers  = 256
	benchTenant   = waybill.Tenant("bench")
	echoMethod    = "/waybill.bench.Echo/Echo"
)

// benchActors are who makes things and who consents to them.
var (
	benchAuthor   = waybill.Actor{ID: "ann", Tenant: benchTenant, Kind: waybill.Person}
	benchApprover = waybill.Actor{ID: "bob", Tenant: benchTenant, Kind: waybill.Person}
)

// benchHub is a running hub with one view of 50 features and 10,000 entities.
type benchHub struct {
	hub   *hub
	http  string
	grpc  string
	token string
	stop  func() error
}

func (b *bencher) hub(ctx context.Context, name string) (*benchHub, error) {
	pool, dsn, err := b.database(ctx, name)
	if err != nil {
		return nil, err
	}
	pool.Close()
	signer, _, err := audit.GenerateKey("bench.local/log/1")
	if err != nil {
		return nil, err
	}
	h, err := openHub(ctx, hubConfig{DSN: dsn, MaxConns: 16, Bucket: b.stack.Bucket(), LogID: 1, Origin: "bench.local/log/1", SignerKey: signer, Node: "bench",
		Env: access.Dev, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	out := &benchHub{hub: h}
	if out.token, err = h.access.Bootstrap(ctx, benchTenant, benchAuthor.ID); err != nil {
		return nil, err
	}
	if _, err := h.access.BindRole(ctx, benchAuthor, benchAuthor.ID, "serving"); err != nil {
		return nil, err
	}
	var l listeners
	if l.http, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if l.grpc, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	out.http, out.grpc = l.http.Addr().String(), l.grpc.Addr().String()
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.run(run, l, time.Second) }()
	out.stop = func() error {
		cancel()
		err := <-done
		h.close()
		return err
	}
	return out, out.publish(ctx)
}

// publish makes the view, its rows and the service.
func (h *benchHub) publish(ctx context.Context) error {
	var columns []string
	for i := range benchFeatures {
		columns = append(columns, fmt.Sprintf("{name: f%d, type: float64}", i))
	}
	var refs []string
	for i := range benchFeatures {
		refs = append(refs, fmt.Sprintf("\"load@latest:f%d\"", i))
	}
	d, err := featurestore.ParseDefinitions([]byte(fmt.Sprintf(`
kind: View
name: load
entity: {name: thing, keys: [{name: thing, type: int64}]}
features: [%s]
---
kind: Service
name: vector
inputs: [{name: thing, type: int64}]
features: [%s]
`, strings.Join(columns, ", "), strings.Join(refs, ", "))))
	if err != nil {
		return err
	}
	if _, err := h.hub.features.Apply(ctx, benchAuthor, d, "benchmark"); err != nil {
		return err
	}
	const batch = 2000
	now := time.Now().UTC().Format(time.RFC3339Nano)
	for at := 0; at < benchEntities; at += batch {
		rows := make([]map[string]any, batch)
		for i := range rows {
			row := map[string]any{"thing": float64(at + i), "event_time": now}
			for f := range benchFeatures {
				row[fmt.Sprintf("f%d", f)] = float64((at+i)*(f+3)%1000) / 1000
			}
			rows[i] = row
		}
		if _, err := h.hub.features.Push(ctx, benchAuthor, featurestore.PushRequest{View: waybill.VersionRef{Name: "load"}, BatchID: fmt.Sprint(at), Rows: rows}); err != nil {
			return err
		}
	}
	return h.hub.features.Refresh(ctx)
}

func (b *bencher) requestFile(name string, m proto.Message) (string, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.dir, name)
	return file, os.WriteFile(file, data, 0o600)
}

// benchOnline reads 1 and 100 entities × 50 features.
func benchOnline(ctx context.Context, b *bencher) (_ []result, err error) {
	h, err := b.hub(ctx, "online")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	var out []result
	for _, n := range []int{1, 100} {
		req := &featurestorev1.ReadOnlineRequest{Service: "vector"}
		for i := range n {
			s, err := structpb.NewStruct(map[string]any{"thing": float64(i * 97 % benchEntities)})
			if err != nil {
				return nil, err
			}
			req.Rows = append(req.Rows, s)
		}
		file, err := b.requestFile(fmt.Sprintf("online-%d", n), req)
		if err != nil {
			return nil, err
		}
		c, err := dial("http://127.0.0.1", h.grpc, h.token)
		if err != nil {
			return nil, err
		}
		res, err := c.features.ReadOnline(ctx, req)
		if err = errors.Join(err, c.close()); err != nil {
			return nil, err
		}
		if len(res.GetRows()) != n || len(res.GetNames()) != benchFeatures || res.GetRows()[0].GetCells()[0].GetStatus() != "PRESENT" {
			return nil, fmt.Errorf("the hub answered %d rows of %d features", len(res.GetRows()), len(res.GetNames()))
		}
		answer, err := proto.Marshal(res)
		if err != nil {
			return nil, err
		}
		echo, stop, err := startEcho(answer)
		if err != nil {
			return nil, err
		}
		const callers = 32
		var p50, p99, limit99 []float64
		ours, limit, err := b.turns(func() (float64, error) {
			r, err := runLoad(ctx, h.grpc, h.token, featurestorev1.FeatureStoreService_ReadOnline_FullMethodName, file, callers, b.span)
			p50, p99 = append(p50, r.P50), append(p99, r.P99)
			return float64(r.Calls) / r.Seconds, err
		}, func() (float64, error) {
			r, err := runLoad(ctx, echo, h.token, echoMethod, file, callers, b.span)
			limit99 = append(limit99, r.P99)
			return float64(r.Calls) / r.Seconds, err
		})
		if err := errors.Join(err, stop()); err != nil {
			return nil, err
		}
		r := result{Case: fmt.Sprintf("%dx%d", n, benchFeatures), Unit: "req/s", Ours: ours, Limit: limit, LimitIs: "gRPC echo, same bytes, same client, another process",
			Ratio: ours / limit, Bar: 0.7, P50: median(p50), P99: median(p99), LimitP99: median(limit99), noAllocs: true}
		r.otherHolds = r.P99 <= 1.5*r.LimitP99
		out = append(out, r)
	}
	return out, nil
}

// rawCodec passes bytes through: what an echo server must at least do.
type rawCodec struct{}

// Marshal passes bytes on.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("echo: %T is not bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

// Unmarshal passes bytes on.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("echo: %T is not bytes", v)
	}
	*b = data.Materialize()
	return nil
}

// Name is protobuf's, because the client speaks that.
func (rawCodec) Name() string { return "proto" }

var _ encoding.CodecV2 = rawCodec{}

// startEcho serves answer to every request.
func startEcho(answer []byte) (addr string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "waybill.bench.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Echo",
		Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in []byte
			if err := dec(&in); err != nil {
				return nil, err
			}
			return &answer, nil
		}}}}, struct{}{})
	var serving errgroup.Group
	serving.Go(func() error { return s.Serve(l) })
	return l.Addr().String(), func() error {
		s.Stop()
		return serving.Wait()
	}, nil
}

const benchRules = `
kind: rules
inputs: {f0: double}
rules: [{name: high, when: "f0 > 0.9", score: "0.8", reason: high}]
default: {score: "0.2", reason: nothing speaks against it}
`

const benchEndpoint = `
kind: Endpoint
name: choose
type: score
request:
  - {name: order_id, type: string, required: true}
  - {name: thing, type: int, required: true}
business_key: order_id
inputs: [{name: thing, expr: request.thing}]
service: vector
model: trees@v1
fallback: rules@v1
action: "score > 0.5 ? 'hold' : 'ship'"
answer: [{name: verdict, expr: "score > 0.5 ? 'hold' : 'ship'"}]
outcomes: [{name: late, type: bool}]
`

// register puts an approved model version into the registry.
func (h *benchHub) register(ctx context.Context, name string, format registry.Format, data []byte) error {
	n := registry.NewVersion{Model: name, Format: format, Entrypoint: "model", Automation: registry.SolelyAutomated}
	if format != registry.Rules {
		n.FeatureService = waybill.VersionRef{Name: "vector", Version: 1}
	}
	v, err := h.hub.models.CreateVersion(ctx, benchAuthor, n)
	if err != nil {
		return err
	}
	if _, err := h.hub.models.UploadArtifact(ctx, benchAuthor, v.Ref(), "model", bytes.NewReader(data)); err != nil {
		return err
	}
	if v, err = h.hub.models.Submit(ctx, benchAuthor, v.Ref()); err != nil {
		return err
	}
	_, err = h.hub.models.Approve(ctx, benchApprover, v.Ref(), v.Digest, "benchmark")
	return err
}

// benchDecide runs the whole path: gRPC, access, 50 features, 200 trees, contributions, durable log, 256 callers.
func benchDecide(ctx context.Context, b *bencher) (_ []result, err error) {
	h, err := b.hub(ctx, "decide")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	if err := h.register(ctx, "rules", registry.Rules, []byte(benchRules)); err != nil {
		return nil, err
	}
	if err := h.register(ctx, "trees", registry.LightGBM, randomModel(200, 64, benchFeatures, 7)); err != nil {
		return nil, err
	}
	if _, _, err := h.hub.decisions.Publish(ctx, benchAuthor, []byte(benchEndpoint), "benchmark"); err != nil {
		return nil, err
	}
	s, err := structpb.NewStruct(map[string]any{"order_id": "ORD-1", "thing": 42.0})
	if err != nil {
		return nil, err
	}
	file, err := b.requestFile("decide", &decisionv1.DecideRequest{Endpoint: "choose", Request: s})
	if err != nil {
		return nil, err
	}
	c, err := dial("http://127.0.0.1", h.grpc, h.token)
	if err != nil {
		return nil, err
	}
	first, err := c.decisions.Decide(ctx, &decisionv1.DecideRequest{Endpoint: "choose", Request: s})
	if err = errors.Join(err, c.close()); err != nil {
		return nil, err
	}
	if m := first.GetAnswer().GetFields()["model"].GetStringValue(); m != "trees@v1" {
		return nil, fmt.Errorf("the model did not answer: %v", first.GetAnswer())
	}
	id, err := waybill.ParseID("decision_id", first.GetAnswer().GetFields()["decision_id"].GetStringValue())
	if err != nil {
		return nil, err
	}
	row, err := h.hub.log.FindDecision(ctx, benchTenant, id)
	if err != nil {
		return nil, err
	}
	payload := append(bytes.Clone(row.Leaf), row.Payload...)
	var p50, p99, insert []float64
	ours, copied, err := b.turns(func() (float64, error) {
		r, err := runLoad(ctx, h.grpc, h.token, decisionv1.DecisionService_Decide_FullMethodName, file, benchCallers, b.span)
		p50, p99 = append(p50, r.P50), append(p99, r.P99)
		return float64(r.Calls) / r.Seconds, err
	}, func() (float64, error) {
		x, err := b.insertEach(ctx, "decide", payload)
		if err != nil {
			return 0, err
		}
		insert = append(insert, x)
		return b.copyBatches(ctx, "decide", payload)
	})
	if err != nil {
		return nil, err
	}
	r := result{Case: fmt.Sprintf("%d callers, 50 features, 200 trees", benchCallers), Unit: "decisions/s", Ours: ours, Limit: copied,
		LimitIs: "COPY of the same bytes, 256 rows per commit", Peer: median(insert), PeerIs: "one INSERT per decision, 16 connections", Ratio: ours / copied, Bar: 0.35,
		P50: median(p50), P99: median(p99), noAllocs: true}
	r.otherHolds = r.P99 < 20 && ours >= r.Peer
	return []result{r}, nil
}

// scratch connects to a benchmark's database, in which the limits have a table of their own.
func (b *bencher) scratch(ctx context.Context, name string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, b.stack.DatabaseDSN("bench_"+strings.ReplaceAll(name, "-", "_")))
}

// copyBatches COPYs rows of the payload, 256 per commit, on one connection: rows/s.
func (b *bencher) copyBatches(ctx context.Context, name string, payload []byte) (rate float64, err error) {
	conn, err := b.scratch(ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows := make([][]any, benchCallers)
	for i := range rows {
		rows[i] = []any{int64(i), payload}
	}
	var n int64
	start := time.Now()
	for time.Since(start) < b.span {
		k, err := conn.CopyFrom(ctx, pgx.Identifier{"scratch"}, []string{"id", "data"}, pgx.CopyFromRows(rows))
		if err != nil {
			return 0, err
		}
		n += k
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// insertEach INSERTs one row per commit on 16 connections: rows/s.
func (b *bencher) insertEach(ctx context.Context, name string, payload []byte) (float64, error) {
	const conns = 16
	var wg sync.WaitGroup
	counts, errs := make([]int64, conns), make([]error, conns)
	start := time.Now()
	for i := range conns {
		wg.Go(func() {
			conn, err := b.scratch(ctx, name)
			if err != nil {
				errs[i] = err
				return
			}
			for time.Since(start) < b.span && errs[i] == nil {
				_, errs[i] = conn.Exec(ctx, `INSERT INTO scratch VALUES ($1, $2)`, counts[i], payload)
				counts[i]++
			}
			errs[i] = errors.Join(errs[i], conn.Close(ctx))
		})
	}
	wg.Wait()
	var n int64
	for _, c := range counts {
		n += c
	}
	return float64(n) / time.Since(start).Seconds(), errors.Join(errs...)
}
