package decision

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"waybill"
	"waybill/audit"
	"waybill/featurestore"
)

// Record is a decision's payload: what is needed to show and to replay it. It lies beside the log; its digest is in
// the leaf.
type Record struct {
	Request    map[string]any    `json:"request"`
	Answer     map[string]any    `json:"answer"`
	Inputs     []RecordedInput   `json:"inputs"`
	Vector     []*float64        `json:"vector"` // the model's inputs in its order; null for missing
	Names      []string          `json:"names"`
	Phi        []float64         `json:"phi"`
	Base       float64           `json:"base"`
	Raw        float64           `json:"raw"`
	Score      float64           `json:"score"`
	Residual   float64           `json:"residual"` // |base + Σ phi − raw|
	Candidates []RecordedOption  `json:"candidates"`
	Gates      []GateVerdict     `json:"gates"`
	LatencyUS  int64             `json:"latency_us"`
	Rule       string            `json:"rule,omitempty"`
	Refs       map[string]string `json:"refs"`
}

// RecordedInput is one output of the feature service as the chosen candidate saw it.
type RecordedInput struct {
	Name    string              `json:"name"`
	Value   any                 `json:"value"`
	Status  featurestore.Status `json:"status"`
	View    string              `json:"view,omitempty"`
	Seq     int64               `json:"seq,omitempty"`
	Event   *time.Time          `json:"event,omitempty"`
	Sources []string            `json:"sources,omitempty"` // what an expression computed it from: "request", "view@v1"
}

// RecordedOption is one candidate as it was ranked.
type RecordedOption struct {
	Action   string  `json:"action"`
	Score    float64 `json:"score"`
	Cost     float64 `json:"cost"`
	Eligible bool    `json:"eligible"`
}

// record builds the payload.
func (r *run) record(request, answer map[string]any, took time.Duration) Record {
	rec := Record{Request: request, Answer: answer, Gates: r.gates, LatencyUS: took.Microseconds(), Rule: r.rule,
		Refs: map[string]string{"endpoint": waybill.VersionRef{Name: r.rev.def.Name, Version: r.rev.number}.String(), "service": r.rev.service.String(), "fallback": r.rev.fallback.String()}}
	for i := range r.cands {
		c := &r.cands[i]
		if r.chosen != nil {
			rec.Candidates = append(rec.Candidates, RecordedOption{c.action, c.score, c.cost, c.eligible})
		}
	}
	if r.chosen == nil {
		return rec
	}
	rec.Score, rec.Raw = r.chosen.score, r.chosen.raw
	for _, cell := range r.chosen.vector.Cells {
		in := RecordedInput{Name: cell.Name, Value: cell.Value, Status: cell.Status, Seq: cell.Seq, Sources: cell.Sources}
		if cell.View.Name != "" {
			in.View = cell.View.String()
		}
		if !cell.Event.IsZero() {
			in.Event = &cell.Event
		}
		rec.Inputs = append(rec.Inputs, in)
	}
	if r.fallback == "" {
		rec.Refs["model"] = r.by.ref.String()
		rec.Names, rec.Phi, rec.Base, rec.Residual = r.explain.names, r.explain.phi, r.explain.base, r.explain.residual
		for _, v := range r.explain.values {
			if math.IsNaN(v) {
				rec.Vector = append(rec.Vector, nil)
				continue
			}
			rec.Vector = append(rec.Vector, &v)
		}
	}
	return rec
}

// entry builds what goes into the log.
func (r *run) entry(req Request, digest [32]byte, payload []byte) audit.Decision {
	d := r.rev.def
	leaf := audit.DecisionLeaf{Tenant: r.actor.Tenant, ID: r.id, Actor: r.actor.ID, PolicyRev: req.PolicyRev, Service: r.rev.service.String(),
		Features: map[string]int64{}, Propensity: 1, Fallback: r.fallback, Action: "blocked"}
	key, ok := r.request[d.BusinessKey].(string)
	if !ok {
		key = ""
	}
	out := audit.Decision{RequestDigest: digest, BusinessKey: key, Endpoint: d.Name, Revision: r.rev.number, DecidedAt: r.now, Payload: payload}
	for _, g := range r.gates {
		if g.Verdict != "allow" {
			leaf.Gates = append(leaf.Gates, g.Gate)
		}
	}
	if r.chosen != nil && r.blocked == "" {
		leaf.Action, leaf.Score = r.chosen.action, &r.chosen.score
		for _, c := range r.chosen.vector.Cells {
			if c.View.Name != "" && c.Seq > leaf.Features[c.View.String()] {
				leaf.Features[c.View.String()] = c.Seq
			}
		}
	}
	if r.by != nil {
		leaf.Model = audit.LeafModel{Ref: r.by.ref.String(), Digest: r.by.digest, Approval: r.by.approval}
		if r.fallback == "" {
			out.Model, out.ModelVersion = r.by.ref.Name, r.by.ref.Version
		}
	}
	out.Leaf = leaf
	return out
}

// Replay says whether a decision's score comes out the same again.
type Replay struct {
	Equal              bool
	Recorded, Replayed float64
	Differences        []string
}

// Replay scores the recorded vector with the recorded model version, whatever its state is now, and compares bits.
// A decision of the rules or of a gate says that there is no model's score to replay.
func (s *Service) Replay(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (Replay, error) {
	row, err := s.appender.FindDecision(ctx, tenant, id)
	if err != nil {
		return Replay{}, err
	}
	var rec Record
	if err := json.Unmarshal(row.Payload, &rec); err != nil {
		return Replay{}, waybill.Wrap(waybill.Corrupt, err, "the record of decision "+id.String()+" cannot be read")
	}
	if row.Model == "" {
		return Replay{Differences: []string{"no model answered this decision"}}, nil
	}
	v, err := s.models.Get(ctx, tenant, waybill.VersionRef{Name: row.Model, Version: row.ModelVersion})
	if err != nil {
		return Replay{}, err
	}
	if err := take(ctx, s.replays); err != nil {
		return Replay{}, err
	}
	defer func() { <-s.replays }()
	// From the bucket, also when it is in memory: whether those bytes still are what answered is the question
	m, err := s.loadVersion(ctx, v)
	if err != nil {
		return Replay{}, err
	}
	x := make([]float64, len(rec.Vector))
	for i, p := range rec.Vector {
		x[i] = math.NaN()
		if p != nil {
			x[i] = *p
		}
	}
	var w scratch
	p, err := m.model.Score(x, &w.score)
	if err != nil {
		return Replay{}, err
	}
	out := Replay{Equal: math.Float64bits(p.Score) == math.Float64bits(rec.Score), Recorded: rec.Score, Replayed: p.Score}
	if !out.Equal {
		out.Differences = append(out.Differences, fmt.Sprintf("the score is %v, recorded is %v", p.Score, rec.Score))
	}
	return out, nil
}

// Recorded returns what is kept of a decision: its row with leaf and payload, and the payload read.
func (s *Service) Recorded(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (audit.DecisionRow, Record, error) {
	var rec Record
	row, err := s.appender.FindDecision(ctx, tenant, id)
	if err != nil {
		return row, rec, err
	}
	if err := json.Unmarshal(row.Payload, &rec); err != nil {
		return row, rec, waybill.Wrap(waybill.Corrupt, err, "the record of decision "+id.String()+" cannot be read")
	}
	named := row.BusinessKey == ""
	for _, v := range rec.Request {
		named = named || v == any(row.BusinessKey)
	}
	if !named { // the leaf does not hold the key; the payload, which it proves, does
		return row, rec, waybill.Errorf(waybill.Corrupt, "the record of decision %s is not what its request says: its business key was changed", id)
	}
	return row, rec, nil
}
