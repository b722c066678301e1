package lineage

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	Depth int       // most hops from the start; 0 is no bound
	Limit int       // most nodes, the start included; 0 is DefaultLimit, at most MaxLimit
	AsOf  time.Time // the graph as it was then; the zero time is now
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

// The walks recurse over node names only: with the depth in the row, UNION could not see that a node was met before
// and a dense graph would be walked once per path. Postgres emits the rows of a recursive query level by level and
// stops at the LIMIT, so that a prefix is the nearest part.
const (
	walkUp pg.SQL = `
WITH RECURSIVE reached(node) AS (
    SELECT $2::text
    UNION
    SELECT e.src FROM reached r JOIN lineage.edges e ON e.tenant = $1 AND e.dst = r.node
    WHERE $3::timestamptz IS NULL OR e.valid_from <= $3
)
SELECT node FROM reached LIMIT $4`

	walkDown pg.SQL = `
WITH RECURSIVE reached(node) AS (
    SELECT $2::text
    UNION
    SELECT e.dst FROM reached r JOIN lineage.edges e ON e.tenant = $1 AND e.src = r.node
    WHERE $3::timestamptz IS NULL OR e.valid_from <= $3
)
SELECT node FROM reached LIMIT $4`

	edgesAmong pg.SQL = `
SELECT src, dst, kind FROM lineage.edges
WHERE tenant = $1 AND src = ANY($2::text[]) AND dst = ANY($2::text[]) AND ($3::timestamptz IS NULL OR valid_from <= $3)
LIMIT $4`

	nodeExists pg.SQL = `
SELECT EXISTS (SELECT FROM lineage.edges WHERE tenant = $1 AND src = $2 AND ($3::timestamptz IS NULL OR valid_from <= $3))
    OR EXISTS (SELECT FROM lineage.edges WHERE tenant = $1 AND dst = $2 AND ($3::timestamptz IS NULL OR valid_from <= $3))`
)

// Upstream returns what node was made from, directly and indirectly. Errors: Invalid for a malformed node or option,
// NotFound when the tenant has no such node (as of then).
func (g *Graph) Upstream(ctx context.Context, tenant waybill.Tenant, node Node, o Options) (Subgraph, error) {
	return g.walk(ctx, tenant, node, o, walkUp, func(e Edge) (Node, Node) { return e.To, e.From })
}

// Downstream returns what was made from node, directly and indirectly. Errors as Upstream.
func (g *Graph) Downstream(ctx context.Context, tenant waybill.Tenant, node Node, o Options) (Subgraph, error) {
	return g.walk(ctx, tenant, node, o, walkDown, func(e Edge) (Node, Node) { return e.From, e.To })
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
func (g *Graph) walk(ctx context.Context, tenant waybill.Tenant, start Node, o Options, query pg.SQL, along func(Edge) (from, to Node)) (Subgraph, error) {
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
		rows, err := tx.Query(ctx, string(query), tenant, start, nullable(o.AsOf), o.Limit+1)
		if err != nil {
			return fmt.Errorf("walk lineage: %w", err)
		}
		if nodes, err = pgx.CollectRows(rows, pgx.RowTo[Node]); err != nil {
			return fmt.Errorf("walk lineage: %w", err)
		}
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
	sub := place(start, edges, o, along)
	sub.Truncated = sub.Truncated || truncated
	return sub, nil
}

// place computes depths and cuts the answer to the options. Nodes of one level are taken in order of their names, so
// that the same graph gives the same answer; only which nodes of the last level fit under the limit is not settled.
func place(start Node, edges []Edge, o Options, along func(Edge) (from, to Node)) Subgraph {
	next := make(map[Node][]Node, len(edges))
	for _, e := range edges {
		from, to := along(e)
		next[from] = append(next[from], to)
	}
	sub := Subgraph{Nodes: []Placed{{Node: start}}}
	kept := map[Node]bool{start: true}
	level := []Node{start}
	for depth := 1; len(level) > 0 && (o.Depth == 0 || depth <= o.Depth); depth++ {
		var reached []Node
		for _, n := range level {
			reached = append(reached, next[n]...)
		}
		slices.Sort(reached)
		level = level[:0]
		for _, n := range slices.Compact(reached) {
			if kept[n] {
				continue
			}
			if len(sub.Nodes) == o.Limit {
				sub.Truncated = true
				break
			}
			kept[n] = true
			level = append(level, n)
			sub.Nodes = append(sub.Nodes, Placed{Node: n, Depth: depth})
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
