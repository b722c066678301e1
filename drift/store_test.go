package drift_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/drift"
	"waybill/internal/pg"
	"waybill/internal/pgtest"
	"waybill/lineage"
)

var (
	ann   = waybill.Actor{ID: "ann", Tenant: "acme", Kind: waybill.Person}
	model = waybill.VersionRef{Name: "late-risk", Version: 1}
)

// training is a training set in memory.
type training struct{ columns map[string][]float64 }

func (s training) TrainingSetOf(_ context.Context, _ waybill.Tenant, m waybill.VersionRef) (string, error) {
	if m.Name == "rootless" {
		return "", nil
	}
	return strings.Repeat("ab", 32), nil
}

func (s training) TrainingColumns(context.Context, waybill.Tenant, string) (names []string, columns [][]float64, err error) {
	if _, gone := s.columns["unreadable"]; gone {
		return nil, nil, waybill.Errorf(waybill.NotFound, "the training set is gone")
	}
	for n, c := range s.columns {
		names, columns = append(names, n), append(columns, c)
	}
	return names, columns, nil
}

type bundle struct {
	pool  *pgxpool.Pool
	store *drift.Store
	graph *lineage.Graph
	now   time.Time
	rng   *rand.Rand
	stop  func()
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupWith(t, nil)
}

// setupWith opens a store over a model that was trained on columns; nil is queue (normal at 0) and km (normal at 10).
func setupWith(t testing.TB, columns map[string][]float64) *bundle {
	t.Helper()
	b := &bundle{pool: pgtest.DB(t), now: time.Date(2026, 4, 1, 12, 30, 0, 0, time.UTC), rng: rand.New(rand.NewPCG(5, 6))}
	if columns == nil {
		columns = map[string][]float64{"queue": b.normal(5000, 0), "km": b.normal(5000, 10)}
	}
	src := training{columns}
	graph, err := lineage.Open(context.Background(), b.pool, lineage.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b.graph = graph
	tx, err := b.pool.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []lineage.Edge{{From: "view:load@v1", To: lineage.ModelNode(model), Kind: lineage.Reads}, {From: lineage.ModelNode(model), To: "endpoint:route@v1", Kind: lineage.Serves}} {
		if err := lineage.Record(context.Background(), tx, "acme", b.now, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if b.store, err = drift.Open(context.Background(), b.pool, graph, src, drift.Config{Clock: func() time.Time { return b.now }}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	b.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(b.stop)
	return b
}

func (b *bundle) normal(n int, mean float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = mean + b.rng.NormFloat64()
	}
	return out
}

// observe sends n decisions in small portions, so that the queue never fills.
func (b *bundle) observe(t testing.TB, m waybill.VersionRef, n int, shift float64) {
	t.Helper()
	names := []string{"km", "queue", "unknown"}
	for i := range n {
		b.store.Observe("acme", "route", m, names, []float64{10 + b.rng.NormFloat64(), shift + b.rng.NormFloat64(), 1}, 0.5, b.now)
		if i%1000 == 999 {
			b.flush(t)
		}
	}
	b.flush(t)
}

func (b *bundle) flush(t testing.TB) {
	t.Helper()
	if err := b.store.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) run(t *testing.T, name string) (map[string]drift.Verdict, string) {
	t.Helper()
	vs, id, err := b.store.RunMonitor(context.Background(), "acme", name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]drift.Verdict{}
	for _, v := range vs {
		out[v.Feature] = v
	}
	return out, id
}

// No shift, no alarm; a shift is one alarm about the feature that moved, one incident however often it is looked at, with
// what it reaches; it is resolved once.
func TestMonitor_FromQuietToIncident(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	for _, stat := range []string{"psi", "kl", "js", "ks", "wasserstein"} {
		if _, err := b.store.PutMonitor(ctx, ann, drift.Monitor{Name: stat, Endpoint: "route", Feature: "*", Statistic: stat, Limit: 0.2, MinSample: 500, Window: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if vs, id := b.run(t, "psi"); vs["*"].State != drift.Insufficient || id != "" {
		t.Fatalf("before any decision: %+v %q", vs, id)
	}
	b.observe(t, model, 100, 0)
	if vs, _ := b.run(t, "psi"); vs["queue"].State != drift.Insufficient || vs["queue"].Sample != 100 {
		t.Fatalf("100 decisions: %+v", vs)
	}
	b.observe(t, model, 3000, 0)
	for _, stat := range []string{"psi", "kl", "js", "ks", "wasserstein"} {
		if vs, id := b.run(t, stat); vs["queue"].State != drift.OK || vs["km"].State != drift.OK || id != "" || vs["queue"].Value > 0.1 {
			t.Fatalf("no shift, %s: %+v %q", stat, vs, id)
		}
	}
	b.now = b.now.Add(2 * time.Hour)
	b.observe(t, model, 3000, 1.5)
	for _, stat := range []string{"psi", "kl", "js", "ks", "wasserstein"} {
		vs, id := b.run(t, stat)
		if vs["queue"].State != drift.Drift || vs["km"].State != drift.OK || id == "" || len(vs) != 2 {
			t.Fatalf("a shift, %s: %+v %q", stat, vs, id)
		}
	}
	_, first := b.run(t, "psi")
	for _, stat := range []string{"psi", "kl", "js", "ks", "wasserstein"} {
		if _, again := b.run(t, stat); first != again {
			t.Errorf("two incidents of one cause: %s, %s by %s", first, again, stat)
		}
	}
	list, next, err := b.store.Incidents(ctx, "acme", "open", drift.Page{Size: 1})
	if err != nil || len(list) != 1 || next != "" || list[0].ID.String() != first {
		t.Fatalf("%d %q %v", len(list), next, err)
	}
	id, err := waybill.ParseID("id", first)
	if err != nil {
		t.Fatal(err)
	}
	if g, err := b.graph.Upstream(ctx, "acme", lineage.IncidentNode(id), lineage.Options{Depth: 1}); err != nil || fmt.Sprint(g.Edges) != fmt.Sprintf("[{endpoint:route@v1 incident:%s raised} {model:late-risk@v1 endpoint:route@v1 serves} {model:late-risk@v1 incident:%s raised}]", first, first) {
		t.Errorf("%v, %v", g.Edges, err)
	}
	i, err := b.store.ResolveIncident(ctx, ann, id, "the sensor was moved")
	if err != nil || i.State != "resolved" || fmt.Sprint(i.Features) != "[queue]" || !slices.Contains(i.Affected, "endpoint:route@v1") || !slices.Contains(i.Affected, "view:load@v1") {
		t.Fatalf("%+v %v", i, err)
	}
	if _, err := b.store.ResolveIncident(ctx, ann, id, "again"); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("resolved twice: %v", err)
	}
	if ok, err := b.graph.Exists(ctx, "acme", "actor:ann", time.Time{}); err != nil || !ok {
		t.Errorf("who resolved is not in the graph: %v", err)
	}
	// A minute later, without a new decision, it is still resolved; so it is while the hour goes on.
	b.now = b.now.Add(time.Minute)
	for _, stat := range []string{"psi", "ks"} {
		if vs, id := b.run(t, stat); vs["queue"].State != drift.Drift || id != "" {
			t.Errorf("resolved, %s: %+v %q", stat, vs["queue"], id)
		}
	}
	// An hour on: too few to say, then enough. What is new is another incident.
	b.now = b.now.Add(time.Hour)
	b.observe(t, model, 100, 1.5)
	if _, id := b.run(t, "psi"); id != "" {
		t.Errorf("100 decisions of the next hour open %s", id)
	}
	b.observe(t, model, 900, 1.5)
	_, second := b.run(t, "psi")
	if _, id := b.run(t, "ks"); second == "" || second == first || id != second {
		t.Errorf("the next hour: %q, %q after %q", second, id, first)
	}
	list, next, err = b.store.Incidents(ctx, "acme", "", drift.Page{Size: 1})
	if err != nil || len(list) != 1 || next == "" || list[0].ID.String() != second {
		t.Fatalf("%d %q %v", len(list), next, err)
	}
	if list, next, err = b.store.Incidents(ctx, "acme", "", drift.Page{Size: 1, Token: next}); err != nil || len(list) != 1 || next != "" || list[0].ID != id {
		t.Fatalf("%d %q %v", len(list), next, err)
	}
	if other, _, err := b.store.Incidents(ctx, "other", "", drift.Page{}); err != nil || len(other) != 0 {
		t.Errorf("another tenant sees %d incidents, %v", len(other), err)
	}
	if err := b.store.RunAll(ctx); err != nil {
		t.Error(err)
	}
}

// Every observation is counted once, whatever is flushed when, also by two nodes, and missing ones as missing.
func TestReport_CountsAddUp(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.observe(t, model, 700, 0)
	b.now = b.now.Add(time.Hour)
	b.observe(t, model, 300, 0)
	b.store.Observe("acme", "route", model, []string{"queue"}, []float64{math.NaN()}, 0.5, b.now)
	b.store.Observe("acme", "route", model, []string{"queue"}, []float64{math.Inf(1)}, 0.5, b.now)
	b.store.Observe("acme", "route", model, []string{"queue"}, []float64{1e12}, 0.5, b.now)
	b.stop() // what was not flushed is flushed at the end
	r, err := b.store.Report(ctx, "acme", "route", b.now.Add(-2*time.Hour), b.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Features {
		var n int64
		for _, c := range f.Production {
			n += c
		}
		want := map[string]int64{"queue": 1001, "km": 1000}[f.Feature]
		if n != want || len(f.Production) != len(f.Edges)+1 {
			t.Errorf("%s: %d counted, want %d; %d bins, %d edges", f.Feature, n, want, len(f.Production), len(f.Edges))
		}
		if f.Feature == "queue" && (f.ProductionMissing != 2 || f.Production[len(f.Production)-1] < 1) {
			t.Errorf("missing %d, overflow %d", f.ProductionMissing, f.Production[len(f.Production)-1])
		}
	}
	if r.Model != model || len(r.Features) != 2 || b.store.Dropped() != 0 {
		t.Errorf("%v, %d features, %d dropped", r.Model, len(r.Features), b.store.Dropped())
	}
	if _, err := b.store.Report(ctx, "other", "route", b.now.Add(-time.Hour), b.now); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
	var flushes int
	if err := b.pool.QueryRow(ctx, "SELECT count(*) FROM drift.flush").Scan(&flushes); err != nil || flushes < 2 {
		t.Errorf("%d flushes, %v", flushes, err)
	}
}

// A model without a training set is not counted and breaks nothing.
func TestObserve_WithoutReference(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.observe(t, waybill.VersionRef{Name: "rootless", Version: 1}, 10, 0)
	if _, err := b.store.Report(context.Background(), "acme", "route", b.now.Add(-time.Hour), b.now); waybill.CodeOf(err) != waybill.NotFound || !strings.Contains(err.Error(), "training set") {
		t.Errorf("%v", err)
	}
}

func TestPutMonitor_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	good := drift.Monitor{Name: "m", Endpoint: "route", Feature: "*", Statistic: "psi", Limit: 0.2, MinSample: 1, Window: time.Hour}
	for _, c := range []struct {
		field string
		edit  func(m *drift.Monitor)
	}{
		{"name", func(m *drift.Monitor) { m.Name = "No" }}, {"endpoint", func(m *drift.Monitor) { m.Endpoint = "" }}, {"feature", func(m *drift.Monitor) { m.Feature = "a b" }},
		{"statistic", func(m *drift.Monitor) { m.Statistic = "mean" }}, {"limit", func(m *drift.Monitor) { m.Limit = math.NaN() }},
		{"min_sample", func(m *drift.Monitor) { m.MinSample = 0 }}, {"window_seconds", func(m *drift.Monitor) { m.Window = time.Minute }},
	} {
		m := good
		c.edit(&m)
		if _, err := b.store.PutMonitor(context.Background(), ann, m); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(fmt.Sprint(err), c.field) {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	if _, _, err := b.store.RunMonitor(context.Background(), "acme", "none"); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("unknown monitor: %v", err)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := setup(b)
	names, values := make([]string, 50), make([]float64, 50)
	for i := range names {
		names[i] = fmt.Sprintf("f%d", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.store.Observe("acme", "route", model, names, values, 0.5, h.now)
	}
}

// repeat returns n values, the first share of them a and the others b.
func repeat(n int, share, a, b float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = b
		if float64(i) < share*float64(n) {
			out[i] = a
		}
	}
	return out
}

// see observes columns of equal length, row by row.
func (b *bundle) see(t testing.TB, columns map[string][]float64) {
	t.Helper()
	names := slices.Sorted(maps.Keys(columns))
	for i := range columns[names[0]] {
		values := make([]float64, len(names))
		for j, n := range names {
			values[j] = columns[n][i]
		}
		b.store.Observe("acme", "route", model, names, values, 0.5, b.now)
		if i%1000 == 999 {
			b.flush(t)
		}
	}
	b.flush(t)
}

// A rare flag that becomes the rule, an atom that vanishes and values that go missing are drift to every statistic that
// can see them; the same shares as in training are not.
func TestMonitor_RareAndMissing(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	rng := rand.New(rand.NewPCG(1, 2))
	mostlyZero := func(n int, share float64) []float64 { // continuous but for an atom at 0
		out := make([]float64, n)
		for i := range out {
			if rng.Float64() >= share {
				out[i] = 1 + rng.Float64()
			}
		}
		return out
	}
	reference := map[string][]float64{"flag": repeat(5000, 0.95, 0, 1), "sparse": mostlyZero(5000, 0.95), "sensor": mostlyZero(5000, 0), "gappy": repeat(5000, 0.5, nan, 1)}
	for i := range reference["gappy"] {
		if reference["gappy"][i] == 1 {
			reference["gappy"][i] = rng.Float64()
		}
	}
	same := func(n int) map[string][]float64 {
		gappy := repeat(n, 0.5, nan, 1)
		for i := range gappy {
			if gappy[i] == 1 {
				gappy[i] = rng.Float64()
			}
		}
		return map[string][]float64{"flag": repeat(n, 0.95, 0, 1), "sparse": mostlyZero(n, 0.95), "sensor": mostlyZero(n, 0), "gappy": gappy}
	}
	stats := []string{"psi", "kl", "js", "ks", "wasserstein"}
	for _, c := range []struct {
		name    string
		feature string
		values  []float64
		drift   []string // statistics that must see it; the others may
	}{
		{"as trained", "", nil, nil},
		{"all ones", "flag", repeat(2000, 1, 1, 1), stats},
		{"a third flag", "flag", repeat(2000, 0.5, 0, 7), stats},
		{"no atom", "sparse", mostlyZero(2000, 0), stats},
		{"95 % missing", "sensor", append(repeat(1900, 1, nan, 0), mostlyZero(100, 0)...), stats},
		{"all missing", "sensor", repeat(2000, 1, nan, 0), stats},
		{"a tenth missing", "sensor", append(repeat(200, 1, nan, 0), mostlyZero(1800, 0)...), stats},
		{"infinite is missing", "sensor", repeat(2000, 1, math.Inf(1), 0), stats},
		{"no longer missing", "gappy", mostlyZero(2000, 0), stats},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setupWith(t, reference)
			rows := same(2000)
			if c.feature != "" {
				rows[c.feature] = c.values
			}
			b.see(t, rows)
			for _, stat := range stats {
				if _, err := b.store.PutMonitor(context.Background(), ann, drift.Monitor{Name: stat, Endpoint: "route", Feature: "*", Statistic: stat, Limit: 0.2, MinSample: 500, Window: time.Hour}); err != nil {
					t.Fatal(err)
				}
				vs, id := b.run(t, stat)
				for f, v := range vs {
					want := drift.OK
					if f == c.feature && slices.Contains(c.drift, stat) {
						want = drift.Drift
					}
					if v.State != want {
						t.Errorf("%s of %s: %+v, want %s", stat, f, v, want)
					}
				}
				if (id != "") != (c.feature != "") {
					t.Errorf("%s: incident %q", stat, id)
				}
			}
		})
	}
}

// The largest numbers there are make a reference like any other, and are counted without an overflow here or in Postgres.
func TestReference_LargestNumbers(t *testing.T) {
	t.Parallel()
	huge := repeat(1000, 0.5, math.MaxFloat64, -math.MaxFloat64)
	many := make([]float64, 1000)
	for i := range many {
		many[i] = 1e300 * float64(i)
	}
	b := setupWith(t, map[string][]float64{"huge": huge, "many": many, "plain": repeat(1000, 0.5, 1, 2)})
	for range 3 {
		b.see(t, map[string][]float64{"huge": huge, "many": many, "plain": repeat(1000, 0.5, 1, 2)})
	}
	r, err := b.store.Report(context.Background(), "acme", "route", b.now.Add(-time.Hour), b.now)
	if err != nil || len(r.Features) != 3 {
		t.Fatalf("%d features, %v", len(r.Features), err)
	}
	for _, f := range r.Features {
		s := f.Statistics
		for _, v := range append([]float64{s.PSI, s.KL, s.JS, s.KS, s.Wasserstein}, f.Edges...) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%s: %+v, edges %v", f.Feature, s, f.Edges)
			}
		}
		if s.PSI > 0.01 || s.Wasserstein > 0.01 {
			t.Errorf("%s did not move: %+v", f.Feature, s)
		}
	}
}

// A reference that cannot be made is what the report says, and no monitor calls it a small sample.
func TestReport_SaysWhyNothingIsCounted(t *testing.T) {
	t.Parallel()
	b := setupWith(t, map[string][]float64{"unreadable": nil})
	b.observe(t, model, 10, 0)
	_, err := b.store.Report(context.Background(), "acme", "route", b.now.Add(-time.Hour), b.now)
	if waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(fmt.Sprint(err), "late-risk@v1") || !strings.Contains(fmt.Sprint(err), "the training set is gone") {
		t.Errorf("%v", err)
	}
	if _, err := b.store.PutMonitor(context.Background(), ann, drift.Monitor{Name: "m", Endpoint: "route", Feature: "*", Statistic: "psi", Limit: 0.2, MinSample: 500, Window: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if vs, _ := b.run(t, "m"); vs["*"].State != drift.NoReference {
		t.Errorf("%+v", vs)
	}
}

// Two monitors that see parts of one cause have one incident, and every feature has one at most.
func TestIncident_OnePerFeature(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	for name, feature := range map[string]string{"all": "*", "km": "km", "queue": "queue"} {
		if _, err := b.store.PutMonitor(ctx, ann, drift.Monitor{Name: name, Endpoint: "route", Feature: feature, Statistic: "psi", Limit: 0.2, MinSample: 500, Window: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	b.see(t, map[string][]float64{"km": b.normal(1000, 20), "queue": b.normal(1000, 9)})
	_, km := b.run(t, "km")
	_, queue := b.run(t, "queue")
	if km == "" || queue == "" || km == queue { // two features, two monitors: nothing says that it is one cause
		t.Fatalf("%q, %q", km, queue)
	}
	if _, id := b.run(t, "all"); id != km && id != queue {
		t.Errorf("a third incident %s", id)
	}
	list, _, err := b.store.Incidents(ctx, "acme", "open", drift.Page{})
	if err != nil || len(list) != 2 || len(list[0].Features)+len(list[1].Features) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	var wg sync.WaitGroup // resolved, and seen by all at once in the next hour
	for _, i := range list {
		if _, err := b.store.ResolveIncident(ctx, ann, i.ID, "known"); err != nil {
			t.Fatal(err)
		}
	}
	b.now = b.now.Add(time.Hour)
	b.see(t, map[string][]float64{"km": b.normal(1000, 20), "queue": b.normal(1000, 9)})
	for range 4 {
		for _, name := range []string{"all", "km", "queue"} {
			wg.Go(func() {
				if _, _, err := b.store.RunMonitor(ctx, "acme", name); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	seen := map[string]int{}
	if list, _, err = b.store.Incidents(ctx, "acme", "open", drift.Page{}); err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		for _, f := range i.Features {
			seen[f]++
		}
	}
	if seen["km"] != 1 || seen["queue"] != 1 {
		t.Errorf("%v", seen)
	}
}

// What an incident may have reached: the endpoints come first, however much the model was made of, and no commits.
func TestIncident_ReachesEndpoints(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	var edges []lineage.Edge
	for i := range 300 {
		edges = append(edges, lineage.Edge{From: lineage.Node(fmt.Sprintf("dataset:source-%d", i)), To: lineage.ModelNode(model), Kind: lineage.Derived},
			lineage.Edge{From: lineage.Node(fmt.Sprintf("commit:load@v1/%d", i)), To: "view:load@v1", Kind: lineage.Reads},
			lineage.Edge{From: lineage.Node(fmt.Sprintf("commit:load@v1/%d", i)), To: lineage.ModelNode(model), Kind: lineage.Reads})
	}
	edges = append(edges, lineage.Edge{From: lineage.ModelNode(model), To: "endpoint:zzz@v7", Kind: lineage.Serves})
	if err := pg.InTx(ctx, b.pool, func(tx pgx.Tx) error { return lineage.Record(ctx, tx, "acme", b.now, edges...) }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.PutMonitor(ctx, ann, drift.Monitor{Name: "m", Endpoint: "route", Feature: "*", Statistic: "psi", Limit: 0.2, MinSample: 500, Window: time.Hour}); err != nil {
		t.Fatal(err)
	}
	b.observe(t, model, 1000, 3)
	b.run(t, "m")
	list, _, err := b.store.Incidents(ctx, "acme", "open", drift.Page{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d, %v", len(list), err)
	}
	got := list[0].Affected
	if len(got) != 200 || fmt.Sprint(got[:2]) != "[endpoint:route@v1 endpoint:zzz@v7]" || strings.Contains(fmt.Sprint(got), "commit:") {
		t.Errorf("%d: %v", len(got), got)
	}
}

// A monitor that cannot be evaluated is no failure of the others; old verdicts go, those of drift later.
func TestRunAll_BrokenMonitorAndOldVerdicts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	for name, endpoint := range map[string]string{"a-broken": "broken", "b-whole": "route"} {
		if _, err := b.store.PutMonitor(ctx, ann, drift.Monitor{Name: name, Endpoint: endpoint, Feature: "*", Statistic: "psi", Limit: 0.2, MinSample: 500, Window: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	b.see(t, map[string][]float64{"km": b.normal(1000, 10), "queue": b.normal(1000, 9)})
	if _, err := b.pool.Exec(ctx, `INSERT INTO drift.profile SELECT tenant, 'broken', model, version, hour - i * interval '1 minute', feature, training_set, counts[i:], sums, missing FROM drift.profile, generate_series(1, 2) AS i`); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.store.RunMonitor(ctx, "acme", "a-broken"); waybill.CodeOf(err) != waybill.Corrupt {
		t.Fatalf("not broken: %v", err)
	}
	count := func() (n int) {
		if err := b.pool.QueryRow(ctx, "SELECT count(*) FROM drift.verdict WHERE monitor = 'b-whole'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, c := range []struct {
		later time.Duration
		want  int
	}{{0, 2}, {6 * 24 * time.Hour, 2}, {2 * 24 * time.Hour, 1}, {90 * 24 * time.Hour, 0}} {
		b.now = b.now.Add(c.later)
		if err := b.store.RunAll(ctx); err != nil || count() != c.want {
			t.Errorf("after %s more: %d verdicts, want %d; %v", c.later, count(), c.want, err)
		}
	}
}
