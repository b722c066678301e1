package lineage

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// maxUsers bounds an answer of Users.
const maxUsers = 1000

const (
	selectUsers pg.SQL = `
SELECT dst FROM lineage.edges WHERE tenant = $1 AND src = $2 AND (dst LIKE 'model:%' OR dst LIKE 'endpoint:%')
ORDER BY dst LIMIT $3`
	selectExisting pg.SQL = `SELECT DISTINCT dst FROM lineage.edges WHERE tenant = $1 AND dst = ANY($2::text[])`
)

// Users returns the model versions that were built on a node, and the endpoints whose newest revision reads it, by name:
// revisions of an endpoint count up by one, so that one with a successor is the past. It reads in the caller's
// transaction. There are at most 1,000; a caller that wants to know whether there are any needs no more.
func Users(ctx context.Context, q pg.Querier, tenant waybill.Tenant, node Node) ([]Node, error) {
	if err := node.Check("node"); err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, string(selectUsers), tenant, node, maxUsers)
	if err != nil {
		return nil, fmt.Errorf("select users of %s: %w", node, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[Node])
	if err != nil {
		return nil, fmt.Errorf("read users of %s: %w", node, err)
	}
	successor := map[Node]Node{}
	var successors []Node
	for _, n := range found {
		if n.Kind() != "endpoint" {
			continue
		}
		ref, err := waybill.ParseVersionRef("node", n.Name())
		if err != nil {
			return nil, fmt.Errorf("read users of %s: %w", node, err)
		}
		next := Node("endpoint:" + ref.Name + "@v" + strconv.Itoa(ref.Version+1))
		successor[n], successors = next, append(successors, next)
	}
	if len(successors) == 0 {
		return found, nil
	}
	rows, err = q.Query(ctx, string(selectExisting), tenant, successors)
	if err != nil {
		return nil, fmt.Errorf("select newer revisions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[Node])
	if err != nil {
		return nil, fmt.Errorf("read newer revisions: %w", err)
	}
	newer := map[Node]bool{}
	for _, n := range list {
		newer[n] = true
	}
	out := found[:0]
	for _, n := range found {
		if !newer[successor[n]] {
			out = append(out, n)
		}
	}
	return out, nil
}
