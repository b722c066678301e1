package lineage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// Edge says that To came from From: From is upstream.
type Edge struct {
	From, To Node
	Kind     string // one of the Kind constants
}

// The kinds of edge. The set is append-only: kinds are stored.
const (
	Defines   = "defines"    // a view version → the service version that lists it; a service → the model built for it
	Reads     = "reads"      // a commit or view → what read it
	TrainedOn = "trained_on" // a training set → the model fitted to it
	Derived   = "derived"    // a dataset → the commit or dataset made of it
	Approves  = "approves"   // an approval → the model version it binds
	Serves    = "serves"     // a model version → the endpoint revision that uses it
	Wrote     = "wrote"      // an actor → what they made
	Gates     = "gates"      // a policy → the endpoint revision under it
	Raised    = "raised"     // a model version or endpoint revision → the incident about it
)

// kinds is the closed set, for checking.
var kinds = []string{Defines, Reads, TrainedOn, Derived, Approves, Serves, Wrote, Gates, Raised}

// MaxEdges bounds one call of Record.
const MaxEdges = 10_000

const insertEdges pg.SQL = `
INSERT INTO lineage.edges (tenant, src, dst, kind, valid_from)
SELECT $1, e.src, e.dst, e.kind, $2
FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS e(src, dst, kind, ord)
ORDER BY e.ord
ON CONFLICT ON CONSTRAINT edges_once DO NOTHING`

// Record adds edges that are true from at on, in the caller's transaction. It is idempotent: an edge that is there
// already keeps its first valid-from. Errors: Invalid for a malformed tenant, node or kind or an edge from a node to
// itself, TooLarge beyond MaxEdges; after any error the transaction is to be rolled back.
func Record(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant, at time.Time, edges ...Edge) error {
	if len(edges) == 0 {
		return nil
	}
	if err := waybill.CheckName("tenant", string(tenant)); err != nil {
		return err
	}
	if len(edges) > MaxEdges {
		return waybill.Errorf(waybill.TooLarge, "%d lineage edges in one change; at most %d", len(edges), MaxEdges)
	}
	if at.IsZero() {
		return waybill.InvalidField("at", "is missing; give the time of the change")
	}
	for i, e := range edges {
		field := "edges[" + strconv.Itoa(i) + "]"
		if err := e.From.Check(field + ".from"); err != nil {
			return err
		}
		if err := e.To.Check(field + ".to"); err != nil {
			return err
		}
		if !slices.Contains(kinds, e.Kind) {
			return waybill.InvalidField(field+".kind", strconv.QuoteToGraphic(e.Kind)+" is not a kind of edge; use one of "+strings.Join(kinds, ", "))
		}
		if e.From == e.To {
			return waybill.InvalidField(field, "leads from "+string(e.From)+" to itself; nothing is made from itself")
		}
	}
	// One order for everybody: two transactions that record the same edges wait for each other instead of deadlocking.
	sorted := slices.Clone(edges)
	slices.SortFunc(sorted, compareEdges)
	src, dst, kind := make([]string, len(sorted)), make([]string, len(sorted)), make([]string, len(sorted))
	for i, e := range sorted {
		src[i], dst[i], kind[i] = string(e.From), string(e.To), e.Kind
	}
	if _, err := tx.Exec(ctx, string(insertEdges), tenant, at.UTC(), src, dst, kind); err != nil {
		return fmt.Errorf("record %d lineage edges: %w", len(edges), err)
	}
	return nil
}

func compareEdges(a, b Edge) int {
	return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Kind, b.Kind))
}
