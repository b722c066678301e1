package decision

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// Outcome is one report of what really happened.
type Outcome struct {
	ID         waybill.ID
	Name       string
	Value      any // bool, float64 or string, as the endpoint declares
	EventTime  time.Time
	ReportedAt time.Time
	Actor      string
}

const (
	insertOutcome pg.SQL = `
INSERT INTO decision.outcome (id, tenant, decision_id, name, value, event_time, reported_at, actor) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	selectOutcomes pg.SQL = `
SELECT id, name, value, event_time, reported_at, actor FROM decision.outcome
WHERE tenant = $1 AND decision_id = $2 ORDER BY reported_at, id LIMIT 1000`
)

// ReportOutcome records an outcome of a logged decision. A later report of the same name corrects the earlier one and
// both are kept; the report is a leaf of the log. Errors: NotFound for an unknown decision, Invalid naming what is wrong.
func (s *Service) ReportOutcome(ctx context.Context, actor waybill.Actor, id waybill.ID, name string, value any, event time.Time) (Outcome, error) {
	row, err := s.appender.FindDecision(ctx, actor.Tenant, id)
	if err != nil {
		return Outcome{}, err
	}
	rev, err := s.revisionOf(actor.Tenant, row.Endpoint)
	if err != nil {
		return Outcome{}, err
	}
	now := s.clock()
	o := Outcome{ID: waybill.NewID(now), Name: name, Value: value, EventTime: event.UTC().Truncate(time.Microsecond), ReportedAt: now, Actor: actor.ID}
	if err := rev.def.checkOutcome(o, now); err != nil {
		return Outcome{}, err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return Outcome{}, fmt.Errorf("marshal outcome: %w", err)
	}
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, string(insertOutcome), o.ID, actor.Tenant, id, name, raw, o.EventTime, o.ReportedAt, actor.ID); err != nil {
			return fmt.Errorf("insert outcome: %w", err)
		}
		return audit.Enqueue(ctx, tx, audit.Event{Type: "outcome", Tenant: actor.Tenant, Actor: actor.ID, At: now, Subject: "decision:" + id.String(),
			Detail: map[string]any{"id": o.ID.String(), "name": name, "value": value, "event_time": audit.FormatTime(o.EventTime)}})
	})
	return o, err
}

func (d *Definition) checkOutcome(o Outcome, now time.Time) error {
	names := ""
	for _, f := range d.Outcomes {
		names += " " + f.Name
		if f.Name != o.Name {
			continue
		}
		ok := false
		switch v := o.Value.(type) {
		case bool:
			ok = f.Type == "bool"
		case float64:
			ok = f.Type == "float"
		case string:
			ok = f.Type == "string" && len(v) <= MaxTextBytes
		}
		if !ok {
			return waybill.InvalidField("value", "is "+describe(o.Value)+"; outcome "+f.Name+" is a "+f.Type)
		}
		if o.EventTime.After(now.Add(5*time.Minute)) || o.EventTime.Year() < 1970 {
			return waybill.InvalidField("event_time", "must be the time it happened, not later than now")
		}
		return nil
	}
	return waybill.InvalidField("name", "is no outcome of endpoint "+d.Name+"; declared are:"+names)
}

// Outcomes lists what was reported of a decision, oldest first, at most 1,000.
func (s *Service) Outcomes(ctx context.Context, tenant waybill.Tenant, id waybill.ID) ([]Outcome, error) {
	rows, err := s.pool.Query(ctx, string(selectOutcomes), tenant, id)
	if err != nil {
		return nil, fmt.Errorf("select outcomes: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Outcome])
	if err != nil {
		return nil, fmt.Errorf("read outcomes: %w", err)
	}
	return out, nil
}
