package lineage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"waybill"
	"waybill/internal/pg"
	"waybill/internal/pgtest"
	"waybill/lineage"
)

var epoch = time.Date(2026, 3, 4, 14, 0, 0, 0, time.UTC)

func setup(t testing.TB, c lineage.Config) (*lineage.Graph, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.DB(t)
	g, err := lineage.Open(t.Context(), pool, c)
	if err != nil {
		t.Fatal(err)
	}
	return g, pool
}

func record(t require, pool *pgxpool.Pool, tenant waybill.Tenant, at time.Time, edges ...lineage.Edge) {
	t.Helper()
	err := pg.InTx(context.Background(), pool, func(tx pgx.Tx) error { return lineage.Record(context.Background(), tx, tenant, at, edges...) })
	if err != nil {
		t.Fatalf("record: %v", err)
	}
}

// require is what testing.T and rapid.T share.
type require interface {
	Helper()
	Fatalf(string, ...any)
}

func edge(from, to lineage.Node) lineage.Edge {
	return lineage.Edge{From: from, To: to, Kind: lineage.Derived}
}

func n(i int) lineage.Node { return lineage.Node(fmt.Sprintf("view:n@v%d", i+1)) }

// stamped is an edge of the oracle.
type stamped struct {
	lineage.Edge
	at time.Time
}

// oracle is breadth-first search over a plain list, one level at a time.
func oracle(all []stamped, start lineage.Node, up bool, asOf time.Time, depth int) (map[lineage.Node]int, []lineage.Edge) {
	var edges []lineage.Edge
	for _, e := range all {
		if asOf.IsZero() || !e.at.After(asOf) {
			edges = append(edges, e.Edge)
		}
	}
	seen := map[lineage.Node]int{start: 0}
	for d := 1; d <= len(edges)+1 && (depth == 0 || d <= depth); d++ {
		for _, e := range edges {
			from, to := e.From, e.To
			if up {
				from, to = to, from
			}
			if at, ok := seen[from]; ok && at == d-1 {
				if _, ok := seen[to]; !ok {
					seen[to] = d
				}
			}
		}
	}
	inside := []lineage.Edge{}
	for _, e := range edges {
		_, a := seen[e.From]
		_, b := seen[e.To]
		if a && b {
			inside = append(inside, e)
		}
	}
	return seen, inside
}

func depths(s lineage.Subgraph) map[lineage.Node]int {
	m := map[lineage.Node]int{}
	for _, p := range s.Nodes {
		m[p.Node] = p.Depth
	}
	return m
}

var anyOrder = cmpopts.SortSlices(func(a, b lineage.Edge) bool {
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) < 0
})

// TestWalkEqualsOracle draws graphs with cycles, several kinds between the same nodes, edges recorded again later and
// a second tenant with other edges between the same names, and compares every answer with the oracle's.
func TestWalkEqualsOracle(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{})
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		tenants := []waybill.Tenant{waybill.Tenant(fmt.Sprintf("a%d", round)), waybill.Tenant(fmt.Sprintf("b%d", round))}
		all := map[waybill.Tenant][]stamped{}
		known := map[string]bool{}
		for i, m := 0, rapid.IntRange(1, 30).Draw(rt, "edges"); i < m; i++ {
			tenant := tenants[rapid.IntRange(0, 1).Draw(rt, "tenant")]
			from, to := rapid.IntRange(0, 7).Draw(rt, "from"), rapid.IntRange(0, 7).Draw(rt, "to")
			if from == to {
				continue
			}
			e := lineage.Edge{From: n(from), To: n(to), Kind: rapid.SampledFrom([]string{lineage.Reads, lineage.Derived}).Draw(rt, "kind")}
			at := epoch.Add(time.Duration(i) * time.Hour)
			record(rt, pool, tenant, at, e)
			if key := fmt.Sprint(tenant, e); !known[key] {
				known[key] = true
				all[tenant] = append(all[tenant], stamped{e, at})
			}
		}
		start := n(rapid.IntRange(0, 7).Draw(rt, "start"))
		depth := rapid.IntRange(0, 4).Draw(rt, "depth")
		var asOf time.Time
		if rapid.Bool().Draw(rt, "past") {
			asOf = epoch.Add(time.Duration(rapid.IntRange(-1, 30).Draw(rt, "hours")) * time.Hour)
		}
		for _, tenant := range tenants {
			for _, up := range []bool{true, false} {
				ask := g.Downstream
				if up {
					ask = g.Upstream
				}
				got, err := ask(context.Background(), tenant, start, lineage.Options{Depth: depth, AsOf: asOf})
				exists, existsErr := g.Exists(context.Background(), tenant, start, asOf)
				if existsErr != nil {
					rt.Fatalf("exists: %v", existsErr)
				}
				touched := slices.ContainsFunc(all[tenant], func(e stamped) bool {
					return (e.From == start || e.To == start) && (asOf.IsZero() || !e.at.After(asOf))
				})
				if exists != touched {
					rt.Fatalf("exists(%s) = %v, want %v", start, exists, touched)
				}
				if !touched {
					if waybill.CodeOf(err) != waybill.NotFound {
						rt.Fatalf("unknown node: got %v, want not found", err)
					}
					continue
				}
				if err != nil {
					rt.Fatalf("walk: %v", err)
				}
				wantDepths, wantEdges := oracle(all[tenant], start, up, asOf, depth)
				if d := cmp.Diff(wantDepths, depths(got)); d != "" {
					rt.Fatalf("nodes, up %v (-want +got):\n%s", up, d)
				}
				if d := cmp.Diff(wantEdges, got.Edges, anyOrder, cmpopts.EquateEmpty()); d != "" {
					rt.Fatalf("edges, up %v (-want +got):\n%s", up, d)
				}
				if got.Truncated {
					rt.Fatalf("truncated an answer of %d nodes", len(got.Nodes))
				}
			}
		}
	})
}

func TestLimitKeepsTheNearest(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{})
	// A tree of three levels: 1 → 10 → 100.
	var edges []lineage.Edge
	node := func(i, j int) lineage.Node { return lineage.Node(fmt.Sprintf("dataset:%d/%d", i, j)) }
	for i := range 10 {
		edges = append(edges, edge("dataset:root", node(i, -1)))
		for j := range 10 {
			edges = append(edges, edge(node(i, -1), node(i, j)))
		}
	}
	record(t, pool, "acme", epoch, edges...)
	for _, limit := range []int{1, 2, 11, 12, 110, 111, 112} {
		got, err := g.Downstream(t.Context(), "acme", "dataset:root", lineage.Options{Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if want := min(limit, 111); len(got.Nodes) != want || got.Truncated != (limit < 111) {
			t.Errorf("limit %d: got %d nodes, truncated %v", limit, len(got.Nodes), got.Truncated)
		}
		// Every node but the root hangs on one edge, and a nearer level is complete before a further one begins.
		if len(got.Edges) != len(got.Nodes)-1 {
			t.Errorf("limit %d: %d edges for %d nodes", limit, len(got.Edges), len(got.Nodes))
		}
		near := 0
		for _, p := range got.Nodes {
			if p.Depth <= 1 {
				near++
			}
		}
		if near != min(limit, 11) {
			t.Errorf("limit %d: %d nodes within one hop", limit, near)
		}
	}
	if got, err := g.Downstream(t.Context(), "acme", "dataset:root", lineage.Options{Depth: 1, Limit: 11}); err != nil || got.Truncated || len(got.Nodes) != 11 {
		t.Errorf("depth 1 fits the limit: got %d nodes, truncated %v, %v", len(got.Nodes), got.Truncated, err)
	}
	if _, err := g.Upstream(t.Context(), "acme", "dataset:root", lineage.Options{Limit: lineage.MaxLimit + 1}); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("limit beyond the bound: got %v", err)
	}
	if _, err := g.Upstream(t.Context(), "acme", "dataset:root", lineage.Options{Depth: -1}); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("negative depth: got %v", err)
	}
}

func TestEdgesAreBounded(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{MaxEdges: 5})
	var edges []lineage.Edge
	for i := range 5 {
		for j := range 5 {
			if i != j {
				edges = append(edges, edge(n(i), n(j)))
			}
		}
	}
	record(t, pool, "acme", epoch, edges...)
	got, err := g.Downstream(t.Context(), "acme", n(0), lineage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Edges) > 5 || !got.Truncated {
		t.Errorf("got %d edges, truncated %v", len(got.Edges), got.Truncated)
	}
}

// TestRecordBelongsToTheTransaction rolls the change back and looks for its edge.
func TestRecordBelongsToTheTransaction(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{})
	failed := errors.New("the change failed")
	err := pg.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		if err := lineage.Record(t.Context(), tx, "acme", epoch, edge(n(0), n(1))); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Fatalf("got %v", err)
	}
	if found, err := g.Exists(t.Context(), "acme", n(0), time.Time{}); err != nil || found {
		t.Errorf("edge of a rolled-back change: exists %v, %v", found, err)
	}
}

// TestRecordConcurrently records the same edges in opposite orders from many transactions at once.
func TestRecordConcurrently(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{})
	var edges []lineage.Edge
	for i := range 50 {
		edges = append(edges, edge(n(i), n(i+1)))
	}
	done := make(chan error)
	for i := range 8 {
		mine := slices.Clone(edges)
		if i%2 == 1 {
			slices.Reverse(mine)
		}
		go func() {
			done <- pg.InTx(t.Context(), pool, func(tx pgx.Tx) error { return lineage.Record(t.Context(), tx, "acme", epoch, mine...) })
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	got, err := g.Upstream(t.Context(), "acme", n(50), lineage.Options{})
	if err != nil || len(got.Nodes) != 51 || len(got.Edges) != 50 {
		t.Errorf("got %d nodes, %d edges, %v", len(got.Nodes), len(got.Edges), err)
	}
}

func TestRecordRefuses(t *testing.T) {
	t.Parallel()
	tx := pgtest.Tx(t)
	good := edge(n(0), n(1))
	for name, c := range map[string]struct {
		tenant waybill.Tenant
		at     time.Time
		edge   lineage.Edge
		field  string
	}{
		"tenant":   {"", epoch, good, "tenant"},
		"no time":  {"acme", time.Time{}, good, "at"},
		"from":     {"acme", epoch, edge("model:x", n(1)), "edges[0].from"},
		"to":       {"acme", epoch, edge(n(0), "Model:x@v1"), "edges[0].to"},
		"kind":     {"acme", epoch, lineage.Edge{From: n(0), To: n(1), Kind: "likes"}, "edges[0].kind"},
		"loop":     {"acme", epoch, edge(n(0), n(0)), "edges[0]"},
		"too long": {"acme", epoch, edge(lineage.Node("dataset:"+strings.Repeat("x", 600)), n(1)), "edges[0].from"},
	} {
		err := lineage.Record(t.Context(), tx, c.tenant, c.at, c.edge)
		var e *waybill.Error
		if !errors.As(err, &e) || e.Code != waybill.Invalid || len(e.Violations) != 1 || e.Violations[0].Field != c.field {
			t.Errorf("%s: got %v, want an invalid %s", name, err, c.field)
		}
	}
	if err := lineage.Record(t.Context(), tx, "acme", epoch, slices.Repeat([]lineage.Edge{good}, lineage.MaxEdges+1)...); waybill.CodeOf(err) != waybill.TooLarge {
		t.Errorf("too many edges: got %v", err)
	}
}

func TestNodeCheck(t *testing.T) {
	t.Parallel()
	hex64 := strings.Repeat("0a", 32)
	for node, ok := range map[lineage.Node]bool{
		"view:warehouse_load@v1":                        true,
		"service:route-risk@v12":                        true,
		"model:late-risk@v1":                            true,
		"endpoint:route@v3":                             true,
		"commit:warehouse_load@v1/12":                   true,
		lineage.Node("trainingset:" + hex64):            true,
		"approval:0198f2c4-7c1e-7e00-8000-000000000001": true,
		"policy:7":                    true,
		"actor:alice@example.com":     true,
		"dataset:s3://lake/orders#31": true,
		"":                            false,
		"alice":                       false,
		"actor:":                      false,
		"actor:al ice":                false,
		"actor:\xff":                  false,
		"view:warehouse_load":         false,
		"view:warehouse_load@latest":  false,
		"view:warehouse_load@v0":      false,
		"view:warehouse_load@v01":     false,
		"model:Late@v1":               false,
		"models:late-risk@v1":         false,
		"commit:warehouse_load@v1":    false,
		"commit:warehouse_load@v1/-1": false,
		"commit:warehouse_load@v1/+1": false,
		lineage.Node("trainingset:sha256:" + hex64):           false,
		lineage.Node("trainingset:" + strings.ToUpper(hex64)): false,
		"approval:0198F2C4-7C1E-7E00-8000-00000000000A":       false,
		"policy:seven": false,
	} {
		if err := node.Check("node"); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", node, err, ok)
		}
	}
}

// FuzzNode checks that whatever is accepted is bounded, has a kind and a name, and can be stored as text.
func FuzzNode(f *testing.F) {
	f.Add("model:late-risk@v1")
	f.Add("dataset:a\x00b")
	f.Fuzz(func(t *testing.T, s string) {
		node := lineage.Node(s)
		if node.Check("node") != nil {
			return
		}
		if node.Kind() == "" || node.Name() == "" || len(s) > lineage.MaxNodeBytes || strings.ContainsAny(s, "\x00\n ") {
			t.Errorf("accepted %q", s)
		}
	})
}

// BenchmarkUpstream asks for the 300 nearest nodes in a graph of 20 layers with 394k edges between 100k nodes.
func BenchmarkUpstream(b *testing.B) {
	g, pool := setup(b, lineage.Config{})
	_, err := pool.Exec(b.Context(), `
		INSERT INTO lineage.edges (tenant, src, dst, kind, valid_from)
		SELECT 'acme', 'dataset:' || (l - 1) || '/' || (i * 7 + k * 13) % 5000, 'dataset:' || l || '/' || i, 'derived', now()
		FROM generate_series(1, 20) l, generate_series(0, 4999) i, generate_series(0, 3) k
		ON CONFLICT DO NOTHING`)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := pool.Exec(b.Context(), `ANALYZE lineage.edges`); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		got, err := g.Upstream(b.Context(), "acme", "dataset:20/17", lineage.Options{})
		if err != nil || len(got.Nodes) != lineage.DefaultLimit {
			b.Fatalf("%d nodes, %v", len(got.Nodes), err)
		}
	}
}

// TestCommits_ReachWhatReadThem draws logs that grow while training sets read them up to their end, and asks of every commit
// and every set, now and then: a commit reached exactly the sets that read its view later, what was made of those, and what
// serves from the view; a set came from exactly the commits up to its bound.
func TestCommits_ReachWhatReadThem(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{})
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		tenant := waybill.Tenant(fmt.Sprintf("c%d", round))
		type set struct {
			node  lineage.Node
			bound map[int]int // view → last commit
			at    time.Time
		}
		ends := map[int]int{}
		var sets []set
		commitAt := map[lineage.Node]time.Time{}
		view := func(v int) lineage.Node { return lineage.Node(fmt.Sprintf("view:load%d@v1", v)) }
		commit := func(v, seq int) lineage.Node { return lineage.Node(fmt.Sprintf("commit:load%d@v1/%d", v, seq)) }
		record(rt, pool, tenant, epoch, edge("actor:ann", view(0)), edge("actor:ann", view(1)), edge(view(0), "service:risk@v1"), edge(view(1), "service:risk@v1"), edge("service:risk@v1", "endpoint:route@v1"))
		now := epoch
		for i, steps := 0, rapid.IntRange(1, 25).Draw(rt, "steps"); i < steps; i++ {
			now = now.Add(time.Hour)
			if v := rapid.IntRange(-1, 1).Draw(rt, "view"); v >= 0 {
				ends[v]++
				commitAt[commit(v, ends[v])] = now
				record(rt, pool, tenant, now, edge("actor:bob", commit(v, ends[v])), edge(commit(v, ends[v]), view(v)))
				continue
			}
			s := set{node: lineage.TrainingSetNode(fmt.Sprintf("%064x", i)), bound: map[int]int{}, at: now}
			edges := []lineage.Edge{edge("service:risk@v1", s.node), edge(s.node, lineage.Node(fmt.Sprintf("model:risk@v%d", i+1)))}
			for v := range rapid.IntRange(1, 2).Draw(rt, "views") {
				edges = append(edges, edge(view(v), s.node))
				if s.bound[v] = ends[v]; ends[v] > 0 {
					edges = append(edges, edge(commit(v, ends[v]), s.node))
				}
			}
			record(rt, pool, tenant, now, edges...)
			sets = append(sets, s)
		}
		asOf := epoch.Add(time.Duration(rapid.IntRange(0, 25).Draw(rt, "hours")) * time.Hour)
		for v, end := range ends {
			for seq := 1; seq <= end; seq++ {
				if commitAt[commit(v, seq)].After(asOf) {
					continue
				}
				got, err := g.Downstream(context.Background(), tenant, commit(v, seq), lineage.Options{AsOf: asOf})
				if err != nil {
					rt.Fatalf("downstream: %v", err)
				}
				want := map[lineage.Node]int{commit(v, seq): 0, view(v): 1, "service:risk@v1": 2, "endpoint:route@v1": 3} // served as it comes
				for i, s := range sets {
					if s.bound[v] >= seq && !s.at.After(asOf) {
						want[s.node], want[oneOf(got, s.node, i)] = 1, 2
					}
				}
				if d := cmp.Diff(want, depths(got)); d != "" {
					rt.Fatalf("downstream of %s (-want +got):\n%s", commit(v, seq), d)
				}
			}
		}
		serving, err := g.Upstream(context.Background(), tenant, "endpoint:route@v1", lineage.Options{AsOf: now})
		if err != nil {
			rt.Fatalf("upstream: %v", err)
		}
		for c := range commitAt {
			if depths(serving)[c] != 3 {
				rt.Fatalf("%s is served, but not upstream: %v", c, serving.Nodes)
			}
		}
		for _, s := range sets {
			for _, none := range []bool{false, true} {
				got, err := g.Upstream(context.Background(), tenant, s.node, lineage.Options{NoCommits: none})
				if err != nil {
					rt.Fatalf("upstream: %v", err)
				}
				var commits, want []lineage.Node
				for _, p := range got.Nodes {
					if p.Node.Kind() == "commit" {
						commits = append(commits, p.Node)
						if !slices.Contains(got.Edges, edge(p.Node, s.node)) {
							rt.Fatalf("no edge tells how %s came to %s", p.Node, s.node)
						}
					}
				}
				for v, bound := range s.bound {
					for seq := 1; seq <= bound && !none; seq++ {
						want = append(want, commit(v, seq))
					}
				}
				if d := cmp.Diff(want, commits, cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b lineage.Node) bool { return a < b })); d != "" {
					rt.Fatalf("commits of %s (-want +got):\n%s", s.node, d)
				}
			}
		}
	})
}

// oneOf returns the node that was made of a set, by the edges of an answer; the i-th set is told apart by that.
func oneOf(s lineage.Subgraph, set lineage.Node, i int) lineage.Node {
	for _, e := range s.Edges {
		if e.From == set {
			return e.To
		}
	}
	return lineage.Node(fmt.Sprintf("missing model of set %d", i))
}

// A view that is asked about itself still shows its log, and what is reached past a commit's view by another way stays.
func TestCommits_OtherWays(t *testing.T) {
	t.Parallel()
	g, pool := setup(t, lineage.Config{})
	set := lineage.TrainingSetNode(strings.Repeat("ab", 32))
	record(t, pool, "acme", epoch, edge("actor:ann", "view:load@v1"), edge("commit:load@v1/1", "view:load@v1"), edge("commit:load@v1/2", "view:load@v1"),
		edge("actor:ann", "commit:load@v1/9"), edge("commit:load@v1/9", "view:load@v1"), edge("view:load@v1", set), edge("commit:load@v1/2", set))
	for _, c := range []struct {
		ask   func(context.Context, waybill.Tenant, lineage.Node, lineage.Options) (lineage.Subgraph, error)
		start lineage.Node
		want  map[lineage.Node]int
	}{
		{g.Upstream, "view:load@v1", map[lineage.Node]int{"view:load@v1": 0, "actor:ann": 1, "commit:load@v1/1": 1, "commit:load@v1/2": 1, "commit:load@v1/9": 1}},
		{g.Downstream, "view:load@v1", map[lineage.Node]int{"view:load@v1": 0, set: 1}},
		{g.Downstream, "actor:ann", map[lineage.Node]int{"actor:ann": 0, "commit:load@v1/9": 1, "view:load@v1": 1, set: 2}},
		{g.Downstream, "commit:load@v1/9", map[lineage.Node]int{"commit:load@v1/9": 0, "view:load@v1": 1}},
		{g.Upstream, set, map[lineage.Node]int{set: 0, "view:load@v1": 1, "commit:load@v1/1": 1, "commit:load@v1/2": 1, "actor:ann": 2}},
	} {
		got, err := c.ask(t.Context(), "acme", c.start, lineage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, depths(got)); d != "" {
			t.Errorf("from %s (-want +got):\n%s", c.start, d)
		}
	}
}
