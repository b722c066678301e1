package decision

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// maxSpineRows bounds a spine: every row is a decision that is read and checked on its own.
const maxSpineRows = 100_000

// SpineRequest asks for the decisions of an endpoint as examples to learn from.
type SpineRequest struct {
	Endpoint string
	From, To time.Time         // of the decision; From is inclusive, To exclusive
	Outcome  string            // the label: only decisions with a report of it are examples
	Columns  map[string]string // column → its name in the spine; "" leaves it out
}

// Searcher finds decisions; *audit.Log is one.
type Searcher func(ctx context.Context, tenant waybill.Tenant, q audit.Query) ([]audit.DecisionRow, string, error)

// The columns that every spine has, beside the request's fields, the inputs and the outcome.
const (
	spineID     = "decision_id"
	spineTime   = "decided_at"
	spineAction = "action"
)

// SpineTime is the column of a spine that says when each decision was made.
const SpineTime = spineTime

// latestOutcomes are the last reports of one name, for some decisions.
const latestOutcomes pg.SQL = `
SELECT DISTINCT ON (decision_id) decision_id, value FROM decision.outcome
WHERE tenant = $1 AND name = $2 AND decision_id = ANY($3) ORDER BY decision_id, reported_at DESC, id DESC`

// Spine writes decisions with an outcome as CSV, oldest first: decision_id, decided_at, action, then by name what is plain
// of the request, of the service's inputs as the chosen candidate had them and of the answer, in this order when two have
// one name, and the outcome's latest report under its own name. Decisions that a gate blocked are no examples. Every decision is held against its leaf. Errors: Invalid naming what is wrong with the
// request, NotFound when there is no example, TooLarge beyond 100,000.
func (s *Service) Spine(ctx context.Context, tenant waybill.Tenant, search Searcher, req SpineRequest) ([]byte, error) {
	if req.Endpoint == "" || req.Outcome == "" {
		return nil, waybill.InvalidField("decisions", "must name an endpoint and the outcome that is the label")
	}
	if !req.From.Before(req.To) {
		return nil, waybill.InvalidField("decisions.to", "must be after from; it is not part of the range")
	}
	rev, err := s.revisionOf(tenant, req.Endpoint)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(rev.def.Outcomes, func(o OutcomeField) bool { return o.Name == req.Outcome }) {
		return nil, waybill.InvalidField("decisions.outcome", strconv.QuoteToGraphic(req.Outcome)+" is no outcome of endpoint "+rev.def.Name)
	}
	var rows []map[string]string
	q := audit.Query{Endpoint: req.Endpoint, From: req.From, To: req.To, PageSize: 1000}
	for {
		page, next, err := search(ctx, tenant, q)
		if err != nil {
			return nil, err
		}
		labels, err := s.labels(ctx, tenant, req.Outcome, page)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			label, ok := labels[d.ID]
			if !ok {
				continue
			}
			if len(rows) == maxSpineRows {
				return nil, waybill.Errorf(waybill.TooLarge, "there are more than %d decisions with an outcome; take a shorter time", maxSpineRows)
			}
			row, err := s.spineRow(ctx, tenant, d.ID, req.Outcome, label)
			if err != nil {
				return nil, err
			}
			if row != nil {
				rows = append(rows, row)
			}
		}
		if q.PageToken = next; next == "" {
			break
		}
	}
	if len(rows) == 0 {
		return nil, waybill.Errorf(waybill.NotFound, "no decision of %s in that time has the outcome %s", req.Endpoint, req.Outcome)
	}
	slices.Reverse(rows) // they were found newest first
	return writeSpine(rows, req)
}

// labels are the latest reports of an outcome for decisions, as text.
func (s *Service) labels(ctx context.Context, tenant waybill.Tenant, outcome string, page []audit.DecisionRow) (map[waybill.ID]string, error) {
	ids := make([]waybill.ID, len(page))
	for i := range page {
		ids[i] = page[i].ID
	}
	rows, err := s.pool.Query(ctx, string(latestOutcomes), tenant, outcome, ids)
	if err != nil {
		return nil, fmt.Errorf("select outcomes: %w", err)
	}
	out := map[waybill.ID]string{}
	var id waybill.ID
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &raw}, func() error {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if text, ok := plainText(v); ok {
			out[id] = text
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read outcomes: %w", err)
	}
	return out, nil
}

// spineRow is one example; nil when the decision was blocked. Of several values with one name the first counts.
func (s *Service) spineRow(ctx context.Context, tenant waybill.Tenant, id waybill.ID, outcome, label string) (map[string]string, error) {
	d, rec, err := s.Recorded(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	if d.Action == "blocked" {
		return nil, nil
	}
	row := map[string]string{spineID: id.String(), spineTime: d.DecidedAt.Format(time.RFC3339Nano), spineAction: d.Action, outcome: label}
	put := func(name string, v any) {
		if text, plain := plainText(v); plain && row[name] == "" {
			row[name] = text
		}
	}
	for name, v := range rec.Request {
		put(name, v)
	}
	for _, in := range rec.Inputs {
		if in.View == "" && in.Sources == nil { // an input of the service: no feature, and nothing computed
			put(in.Name, in.Value)
		}
	}
	for name, v := range rec.Answer {
		put(name, v)
	}
	return row, nil
}

// plainText writes a plain JSON value as a field of a CSV file.
func plainText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}

// writeSpine lays the examples out: the fixed columns, the others by name, the label last.
func writeSpine(rows []map[string]string, req SpineRequest) ([]byte, error) {
	all := map[string]bool{}
	for _, row := range rows {
		for name := range row {
			all[name] = true
		}
	}
	for _, fixed := range []string{spineID, spineTime, spineAction, req.Outcome} {
		delete(all, fixed)
	}
	columns := slices.Concat([]string{spineID, spineTime, spineAction}, slices.Sorted(maps.Keys(all)), []string{req.Outcome})
	var head, kept []string
	for from := range req.Columns {
		if !slices.Contains(columns, from) {
			return nil, waybill.InvalidField("decisions.columns", strconv.QuoteToGraphic(from)+" is no column of these decisions")
		}
		if from == spineTime || from == req.Outcome {
			return nil, waybill.InvalidField("decisions.columns", "cannot rename or leave out "+from+": it is the time or the label")
		}
	}
	for _, c := range columns {
		name, renamed := req.Columns[c]
		if !renamed {
			name = c
		}
		if name == "" {
			continue
		}
		if slices.Contains(head, name) {
			return nil, waybill.InvalidField("decisions.columns", "two columns would be called "+strconv.QuoteToGraphic(name))
		}
		head, kept = append(head, name), append(kept, c)
	}
	var buf bytes.Buffer
	w := csv.NewWriter(&buf)
	lines := [][]string{head}
	for _, row := range rows {
		line := make([]string, len(kept))
		for i, c := range kept {
			line[i] = row[c]
		}
		lines = append(lines, line)
	}
	if err := w.WriteAll(lines); err != nil {
		return nil, fmt.Errorf("write spine: %w", err)
	}
	return buf.Bytes(), nil
}
