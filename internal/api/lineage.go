package api

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"waybill"
	"waybill/audit"
	"waybill/lineage"
	lineagev1 "waybill/proto/waybill/lineage/v1"
)

// graphs serves LineageService.
type graphs struct {
	lineagev1.UnimplementedLineageServiceServer
	graph *lineage.Graph
	log   *audit.Log
}

// GetLineage walks from a node. A decision is no node of the graph (there are too many): its edges are read from its
// leaf, and the walk goes on from what they name.
func (s *graphs) GetLineage(ctx context.Context, req *lineagev1.GetLineageRequest) (*lineagev1.GetLineageResponse, error) {
	tenant := callerOf(ctx).actor.Tenant
	at, err := instant("as_of", req.GetAsOf())
	if err != nil {
		return nil, err
	}
	if req.GetLimit() < 0 || req.GetLimit() > lineage.MaxLimit {
		return nil, waybill.InvalidField("limit", "must lie in 0 to 1,000; 0 means 300")
	}
	w := walk{o: lineage.Options{Limit: int(req.GetLimit()), AsOf: at}, graph: s.graph, tenant: tenant, placed: map[string]bool{}, edges: map[string]bool{}, out: &lineagev1.GetLineageResponse{}}
	up, down := true, true
	switch req.GetDirection() {
	case "", "both":
	case "up":
		down = false
	case "down":
		up = false
	default:
		return nil, waybill.InvalidField("direction", `must be "up", "down" or "both"`)
	}
	node := lineage.Node(req.GetNode())
	if text, found := strings.CutPrefix(req.GetNode(), "decision:"); found {
		return w.out, s.decision(ctx, &w, text)
	}
	if err := node.Check("node"); err != nil {
		return nil, err
	}
	if up {
		if err := w.add(ctx, node, -1, 0, s.graph.Upstream); err != nil {
			return nil, err
		}
	}
	if down {
		if err := w.add(ctx, node, 1, 0, s.graph.Downstream); err != nil {
			return nil, err
		}
	}
	w.sort()
	return w.out, nil
}

// walk gathers the answers of several walks into one graph.
type walk struct {
	o      lineage.Options
	graph  *lineage.Graph
	tenant waybill.Tenant
	placed map[string]bool
	edges  map[string]bool
	out    *lineagev1.GetLineageResponse
}

func (w *walk) node(n lineage.Node, depth int) {
	if w.placed[string(n)] {
		return
	}
	w.placed[string(n)] = true
	w.out.Nodes = append(w.out.Nodes, &lineagev1.Node{Id: string(n), Kind: n.Kind(), Label: n.Name(), Depth: int32(depth)})
}

func (w *walk) edge(from, to lineage.Node, kind string) {
	key := string(from) + "\x00" + string(to) + "\x00" + kind
	if w.edges[key] {
		return
	}
	w.edges[key] = true
	w.out.Edges = append(w.out.Edges, &lineagev1.Edge{From: string(from), To: string(to), Kind: kind})
}

// add walks from a node that stands at a depth already; sign says in which direction depths grow.
func (w *walk) add(ctx context.Context, from lineage.Node, sign, base int,
	f func(context.Context, waybill.Tenant, lineage.Node, lineage.Options) (lineage.Subgraph, error)) error {
	g, err := f(ctx, w.tenant, from, w.o)
	if err != nil {
		return err
	}
	for _, p := range g.Nodes {
		w.node(p.Node, sign*(base+p.Depth))
	}
	for _, e := range g.Edges {
		w.edge(e.From, e.To, e.Kind)
	}
	w.out.Truncated = w.out.Truncated || g.Truncated
	return nil
}

func (w *walk) sort() {
	slices.SortStableFunc(w.out.Nodes, func(a, b *lineagev1.Node) int {
		if a.GetDepth() != b.GetDepth() {
			return int(a.GetDepth() - b.GetDepth())
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
}

// decision adds a decision and what its leaf says it used: the endpoint revision, model version and approval, feature
// service, the newest commit of each view, and the policy revision.
func (s *graphs) decision(ctx context.Context, w *walk, text string) error {
	id, err := waybill.ParseID("node", text)
	if err != nil {
		return err
	}
	row, err := s.log.FindDecision(ctx, w.tenant, id)
	if err != nil {
		return err
	}
	var leaf audit.DecisionLeaf
	if err := json.Unmarshal(row.Leaf, &leaf); err != nil {
		return waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision cannot be read")
	}
	if w.o.AsOf.IsZero() { // what came later, such as new commits of a view it read, is not where it came from
		w.o.AsOf = row.DecidedAt
	}
	focus := lineage.Node("decision:" + id.String())
	w.node(focus, 0)
	used := []lineage.Edge{{From: lineage.Node("endpoint:" + leaf.Endpoint), Kind: lineage.Serves}}
	if leaf.Model.Ref != "" {
		used = append(used, lineage.Edge{From: lineage.Node("model:" + leaf.Model.Ref), Kind: lineage.Serves})
	}
	if leaf.Service != "" {
		used = append(used, lineage.Edge{From: lineage.Node("service:" + leaf.Service), Kind: lineage.Reads})
	}
	for view, seq := range leaf.Features {
		if seq > 0 {
			used = append(used, lineage.Edge{From: commitNode(view, seq), Kind: lineage.Reads})
		}
	}
	for _, e := range used {
		w.edge(e.From, focus, e.Kind)
		err := w.add(ctx, e.From, -1, 1, s.graph.Upstream)
		if waybill.CodeOf(err) == waybill.NotFound {
			w.node(e.From, -1) // named by the leaf, not in the graph as of then
			continue
		}
		if err != nil {
			return err
		}
	}
	policy := lineage.Node("policy:" + itoa(leaf.PolicyRev))
	w.node(policy, -1)
	w.edge(policy, focus, lineage.Gates)
	w.sort()
	return nil
}

func commitNode(view string, seq int64) lineage.Node {
	return lineage.Node("commit:" + view + "/" + itoa(seq))
}
