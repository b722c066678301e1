package lineage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/internal/pg"
)

// Config of a Graph.
type Config struct {
	// MaxEdges bounds the edges of one answer. Defaults to 20,000.
	MaxEdges int
}

// Graph answers questions of reachability. It holds no state of its own: every answer is read from Postgres, so that
// it includes each edge whose transaction was committed before the question.
type Graph struct {
	pool     *pgxpool.Pool
	maxEdges int
}

// Open returns a Graph over a migrated database. It does not own the pool.
func Open(_ context.Context, pool *pgxpool.Pool, c Config) (*Graph, error) {
	if c.MaxEdges == 0 {
		c.MaxEdges = 20_000
	}
	if c.MaxEdges < 0 {
		return nil, fmt.Errorf("open lineage: MaxEdges is %d", c.MaxEdges)
	}
	return &Graph{pool: pool, maxEdges: c.MaxEdges}, nil
}

// The bounds of one answer, in nodes.
const (
	DefaultLimit = 300
	MaxLimit     = 1000
)

// Options of a walk.
type Options struct {
	// NoCommits leaves commits out, and what was reached through them alone.
	NoCommits bool
	Depth     int       // most hops from the start; 0 is no bound
	Limit     int       // most nodes, the start included; 0 is DefaultLimit, at most MaxLimit
	AsOf      time.Time // the graph as it was then; the zero time is now
}

// Placed is a node of an answer.
type Placed struct {
	Node  Node
	Depth int // fewest hops from the start; 0 is the start itself
}

// Subgraph is the part of the graph that a walk reached: nodes by depth and then by name, and every edge between two
// of them (also those the walk did not need), ordered by From, To, Kind.
type Subgraph struct {
	Nodes []Placed
	Edges []Edge
	// Truncated says that more was reachable than Limit or MaxEdges let through. The nodes are then the nearest
	// ones; when it was the edges that ran out, depths are upper bounds.
	Truncated bool
}

// The walks recurse over node names only (and how the walk stands there): with the depth in the row, UNION could not see that
// a node was met before and a dense graph would be walked once per path. Postgres emits the rows of a recursive query level by
// level and stops at the LIMIT, so that a prefix is the nearest part.
//
// A log grows under its view. What serves from the view reads each commit as it comes: commit → view → service → endpoint.
// What was made of the view, or for the service, before a commit did not read it. A walk is therefore live as long as it
// follows that one way, and only a live walk goes on between a commit and what is behind its view. What else a commit reached
// is told by the edges of training sets, each from the last commit it read. $5 leaves commits out altogether. The rules are
// those of down and up below.
const (
	walkUp pg.SQL = `
WITH RECURSIVE reached(node, live) AS (
    SELECT $2::text, $2 ~ '^(view|service|endpoint|incident):'
    UNION
    SELECT n.node, n.live FROM reached r CROSS JOIN LATERAL (
        SELECT e.src AS node, r.live AND e.src ~ '^(view|service|endpoint):' AS live FROM lineage.edges e
        WHERE e.tenant = $1 AND e.dst = r.node AND ($3::timestamptz IS NULL OR e.valid_from <= $3)
            AND NOT (e.src LIKE 'commit:%' AND ($5 OR r.node LIKE 'view:%' AND NOT r.live))
        UNION ALL
        SELECT c.src, false FROM lineage.edges b JOIN lineage.edges c ON c.tenant = $1 AND c.dst = 'view:' || lineage.commit_view(b.src)
        WHERE NOT $5 AND r.node LIKE 'trainingset:%' AND b.tenant = $1 AND b.dst = r.node AND b.src LIKE 'commit:%'
            AND c.src LIKE 'commit:%' AND lineage.commit_seq(c.src) < lineage.commit_seq(b.src)
            AND ($3::timestamptz IS NULL OR b.valid_from <= $3 AND c.valid_from <= $3)
    ) n
)
SELECT node FROM reached LIMIT $4`

	walkDown pg.SQL = `
WITH RECURSIVE reached(node, live) AS (
    SELECT $2::text, false
    UNION
    SELECT n.node, n.live FROM reached r CROSS JOIN LATERAL (
        SELECT e.dst AS node, r.live OR e.src LIKE 'commit:%' AND e.dst LIKE 'view:%' AS live FROM lineage.edges e
        WHERE e.tenant = $1 AND e.src = r.node AND ($3::timestamptz IS NULL OR e.valid_from <= $3)
            AND NOT ($5 AND e.dst LIKE 'commit:%') AND (NOT r.live OR e.dst ~ '^(service|endpoint|incident):')
        UNION ALL
        SELECT b.dst, false FROM lineage.edges b
        WHERE r.node LIKE 'commit:%' AND b.tenant = $1 AND b.src LIKE 'commit:%' AND b.dst LIKE 'trainingset:%'
            AND lineage.commit_view(b.src) = lineage.commit_view(r.node) AND lineage.commit_seq(b.src) > lineage.commit_seq(r.node)
            AND ($3::timestamptz IS NULL OR b.valid_from <= $3)
    ) n
)
SELECT node FROM reached LIMIT $4`

	// The edges between the nodes, and the last commits of their training sets, which need not be among them.
	edgesAmong pg.SQL = `
SELECT src, dst, kind FROM lineage.edges
WHERE tenant = $1 AND src = ANY($2::text[]) AND dst = ANY($2::text[]) AND ($3::timestamptz IS NULL OR valid_from <= $3)
UNION
SELECT src, dst, kind FROM lineage.edges
WHERE tenant = $1 AND dst = ANY($2::text[]) AND dst LIKE 'trainingset:%' AND src LIKE 'commit:%' AND ($3::timestamptz IS NULL OR valid_from <= $3)
LIMIT $4`

	nodeExists pg.SQL = `
SELECT EXISTS (SELECT FROM lineage.edges WHERE tenant = $1 AND src = $2 AND ($3::timestamptz IS NULL OR valid_from <= $3))
    OR EXISTS (SELECT FROM lineage.edges WHERE tenant = $1 AND dst = $2 AND ($3::timestamptz IS NULL OR valid_from <= $3))`
)

// Upstream returns what node was made from, directly and indirectly. Errors: Invalid for a malformed node or option,
// NotFound when the tenant has no such node (as of then).
func (g *Graph) Upstream(ctx context.Context, tenant waybill.Tenant, node Node, o Options) (Subgraph, error) {
	return g.walk(ctx, tenant, node, o, up)
}

// Downstream returns what was made from node, directly and indirectly. Errors as Upstream.
func (g *Graph) Downstream(ctx context.Context, tenant waybill.Tenant, node Node, o Options) (Subgraph, error) {
	return g.walk(ctx, tenant, node, o, down)
}

// Exists reports whether any edge of the tenant touches node, as of then (the zero time is now).
func (g *Graph) Exists(ctx context.Context, tenant waybill.Tenant, node Node, asOf time.Time) (bool, error) {
	if err := node.Check("node"); err != nil {
		return false, err
	}
	return exists(ctx, g.pool, tenant, node, asOf)
}

func exists(ctx context.Context, q pg.Querier, tenant waybill.Tenant, node Node, asOf time.Time) (bool, error) {
	var found bool
	if err := q.QueryRow(ctx, string(nodeExists), tenant, node, nullable(asOf)).Scan(&found); err != nil {
		return false, fmt.Errorf("look up lineage node: %w", err)
	}
	return found, nil
}

// walk fetches the nearest nodes, then the edges among them, and places the nodes by a breadth-first search over
// those edges. All from one snapshot: an edge committed in between would otherwise connect nodes that are not there.
func (g *Graph) walk(ctx context.Context, tenant waybill.Tenant, start Node, o Options, d direction) (Subgraph, error) {
	if err := start.Check("node"); err != nil {
		return Subgraph{}, err
	}
	if o.Depth < 0 {
		return Subgraph{}, waybill.InvalidField("depth", "is negative; give the number of hops, or 0 for no bound")
	}
	if o.Limit < 0 || o.Limit > MaxLimit {
		return Subgraph{}, waybill.InvalidField("limit", fmt.Sprintf("is %d; give 1 to %d nodes, or 0 for %d", o.Limit, MaxLimit, DefaultLimit))
	}
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	var nodes []Node
	var edges []Edge
	err := pgx.BeginTxFunc(ctx, g.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		found, err := exists(ctx, tx, tenant, start, o.AsOf)
		if err != nil {
			return err
		}
		if !found {
			return waybill.Errorf(waybill.NotFound, "nothing is known of %s", start)
		}
		rows, err := tx.Query(ctx, string(d.query), tenant, start, nullable(o.AsOf), 2*(o.Limit+1), o.NoCommits) // a node can come twice, once live
		if err != nil {
			return fmt.Errorf("walk lineage: %w", err)
		}
		if nodes, err = pgx.CollectRows(rows, pgx.RowTo[Node]); err != nil {
			return fmt.Errorf("walk lineage: %w", err)
		}
		nodes = firsts(nodes, o.Limit+1)
		rows, err = tx.Query(ctx, string(edgesAmong), tenant, nodes, nullable(o.AsOf), g.maxEdges+1)
		if err != nil {
			return fmt.Errorf("read lineage edges: %w", err)
		}
		edges, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Edge, error) {
			var e Edge
			return e, row.Scan(&e.From, &e.To, &e.Kind)
		})
		if err != nil {
			return fmt.Errorf("read lineage edges: %w", err)
		}
		return nil
	})
	if err != nil {
		var own *waybill.Error
		if errors.As(err, &own) {
			return Subgraph{}, own
		}
		return Subgraph{}, err
	}
	truncated := len(edges) > g.maxEdges
	if truncated {
		edges = edges[:g.maxEdges]
	}
	edges, whole := withCommits(nodes, edges, g.maxEdges)
	sub := arrange(start, edges, o, d)
	sub.Truncated = sub.Truncated || truncated || !whole
	return sub, nil
}

// firsts returns the first n distinct nodes.
func firsts(nodes []Node, n int) []Node {
	seen := make(map[Node]bool, len(nodes))
	out := nodes[:0]
	for _, node := range nodes {
		if len(out) < n && !seen[node] {
			seen[node] = true
			out = append(out, node)
		}
	}
	return out
}

// commit takes the name of a commit apart.
func (n Node) commit() (view string, seq int64, ok bool) {
	if n.Kind() != "commit" {
		return "", 0, false
	}
	view, text, _ := strings.Cut(n.Name(), "/")
	seq, err := strconv.ParseInt(text, 10, 64)
	return view, seq, err == nil
}

// withCommits returns the edges between the nodes, with those that the last commit of a training set stands for: from every
// commit before it. There are at most as many edges as most says; whole is false when some were left out.
func withCommits(nodes []Node, edges []Edge, most int) (out []Edge, whole bool) {
	type commit struct {
		node Node
		seq  int64
	}
	byView, known := map[string][]commit{}, make(map[Node]bool, len(nodes))
	for _, n := range nodes {
		known[n] = true
		if view, seq, ok := n.commit(); ok {
			byView[view] = append(byView[view], commit{n, seq})
		}
	}
	out, whole = make([]Edge, 0, len(edges)), true
	for _, e := range edges {
		if known[e.From] && known[e.To] {
			out = append(out, e)
		}
		view, last, ok := e.From.commit()
		if !ok || e.To.Kind() != "trainingset" {
			continue
		}
		for _, c := range byView[view] {
			if c.seq >= last {
				continue
			}
			if len(out) >= most {
				whole = false
				break
			}
			out = append(out, Edge{From: c.node, To: e.To, Kind: e.Kind})
		}
	}
	slices.SortFunc(out, compareEdges)
	return slices.Compact(out), whole
}

// place is where a walk stands.
type place struct {
	node Node
	live bool // see walkUp
}

// direction is a way to walk: where an edge leads, and whether a walk may take it.
type direction struct {
	query pg.SQL
	along func(Edge) (from, to Node)
	start func(Node) place
	step  func(at place, to Node) (place, bool)
}

var down = direction{walkDown, func(e Edge) (Node, Node) { return e.From, e.To },
	func(n Node) place { return place{n, false} },
	func(at place, to Node) (place, bool) {
		next := place{to, at.live || at.node.Kind() == "commit" && to.Kind() == "view"}
		return next, !at.live || slices.Contains([]string{"service", "endpoint", "incident"}, to.Kind())
	}}

var up = direction{walkUp, func(e Edge) (Node, Node) { return e.To, e.From },
	func(n Node) place {
		return place{n, slices.Contains([]string{"view", "service", "endpoint", "incident"}, n.Kind())}
	},
	func(at place, to Node) (place, bool) {
		next := place{to, at.live && slices.Contains([]string{"view", "service", "endpoint"}, to.Kind())}
		return next, at.live || at.node.Kind() != "view" || to.Kind() != "commit"
	}}

// arrange computes depths and cuts the answer to the options. Nodes of one level are taken in order of their names, so
// that the same graph gives the same answer; only which nodes of the last level fit under the limit is not settled.
func arrange(start Node, edges []Edge, o Options, d direction) Subgraph {
	next := make(map[Node][]Node, len(edges))
	for _, e := range edges {
		from, to := d.along(e)
		next[from] = append(next[from], to)
	}
	sub := Subgraph{Nodes: []Placed{{Node: start}}}
	level := []place{d.start(start)}
	kept, been := map[Node]bool{start: true}, map[place]bool{level[0]: true}
	for depth := 1; len(level) > 0 && (o.Depth == 0 || depth <= o.Depth); depth++ {
		var reached []place
		for _, at := range level {
			for _, to := range next[at.node] {
				if p, ok := d.step(at, to); ok && !been[p] {
					been[p] = true
					reached = append(reached, p)
				}
			}
		}
		slices.SortFunc(reached, func(a, b place) int { return cmp.Compare(a.node, b.node) })
		level = level[:0]
		for _, p := range reached {
			if !kept[p.node] {
				if len(sub.Nodes) == o.Limit {
					sub.Truncated = true
					break
				}
				kept[p.node] = true
				sub.Nodes = append(sub.Nodes, Placed{Node: p.node, Depth: depth})
			}
			level = append(level, p)
		}
		if sub.Truncated {
			break
		}
	}
	for _, e := range edges {
		if kept[e.From] && kept[e.To] {
			sub.Edges = append(sub.Edges, e)
		}
	}
	slices.SortFunc(sub.Edges, compareEdges)
	return sub
}

// nullable turns the zero time into NULL, which the queries read as "now".
func nullable(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
