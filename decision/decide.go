package decision

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"waybill"
	"waybill/audit"
	"waybill/featurestore"
)

// Request asks an endpoint for a decision.
type Request struct {
	Endpoint       string
	Body           map[string]any // JSON values: string, float64, bool, nil, []any, map[string]any
	IdempotencyKey string         // "" or at most 128 bytes: the same key and body give the same answer and receipt
	PolicyRev      int64          // the policy revision under which the caller was let in; goes into the leaf
}

// Answer is what the caller gets, with the receipt of the leaf that stands behind it.
type Answer struct {
	DecisionID waybill.ID
	Body       map[string]any // the endpoint's own fields, and those that every answer has; no receipt
	Receipt    audit.Receipt
}

// GateVerdict is what one gate said.
type GateVerdict struct {
	Gate    string `json:"gate"`
	Stage   string `json:"stage"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
}

// candidate is one option on its way through a decision.
type candidate struct {
	values   map[string]any
	row      map[string]any // inputs of the feature service
	vector   featurestore.Vector
	features map[string]any // outputs by name, for CEL and for rule sets
	score    float64
	raw      float64
	cost     float64
	action   string
	rule     string // that fired for it, when the rules scored
	eligible bool
}

// run is the state of one decision. It is owned by one goroutine.
type run struct {
	rev      *revision
	actor    waybill.Actor
	now      time.Time
	id       waybill.ID
	request  map[string]any
	cands    []candidate
	chosen   *candidate
	gates    []GateVerdict
	blocked  string  // the gate that blocked, or ""
	fallback string  // why the rule set answered, or ""; the model answered when it is "" and nothing blocked
	rule     string  // which rule fired, or ""
	by       *loaded // the model or the rule set that chose
	explain  explanation
	fields   map[string]any // the answer's own
	// noneEligible says that the chosen candidate is not eligible, because none is.
	noneEligible bool
}

// Decide answers a request. Errors: NotFound for an unknown endpoint, Invalid naming fields, Conflict when the
// idempotency key was used with another body, Unavailable when neither model nor rules could answer or when the log
// took nothing, Deadline when ctx ended first. After an error other than Deadline nothing was decided; after Deadline
// the decision may yet be logged, and a repeat with the same key returns it.
func (s *Service) Decide(ctx context.Context, actor waybill.Actor, req Request) (Answer, error) {
	start := s.clock()
	rev, err := s.revisionOf(actor.Tenant, req.Endpoint)
	if err != nil {
		return Answer{}, err
	}
	if len(req.IdempotencyKey) > 128 {
		return Answer{}, waybill.InvalidField("idempotency_key", fmt.Sprintf("has %d bytes; at most 128", len(req.IdempotencyKey)))
	}
	raw, err := digestible(req.Body)
	if err != nil {
		return Answer{}, err
	}
	digest := sha256.Sum256(raw)
	id := waybill.NewID(start)
	if req.IdempotencyKey != "" {
		id = waybill.DerivedID("decision", string(actor.Tenant), req.Endpoint, req.IdempotencyKey)
		first, found, err := s.recorded(ctx, actor.Tenant, id, digest)
		if err != nil || found {
			return first, err
		}
	}
	request, err := checkRequest(rev.def.Request, req.Body, start)
	if err != nil {
		return Answer{}, err
	}
	r := &run{rev: rev, actor: actor, now: start, id: id, request: request}
	if err := s.choose(ctx, r); err != nil {
		return Answer{}, err
	}
	return s.log(ctx, r, req, digest, r.answer())
}

// choose runs gates, features, model and rules until r has a chosen candidate or a gate has blocked. What is wrong with
// the request is found before anything is scored; what fails after that is no fault of the caller, and the rules answer.
func (s *Service) choose(ctx context.Context, r *run) error {
	vars := map[string]any{"request": r.request, "now": r.now}
	r.fallback = r.closeGates(r.rev.before, vars)
	if r.blocked != "" {
		return nil
	}
	if err := s.prepare(r); err != nil {
		return err
	}
	work, cancel := context.WithTimeout(ctx, r.rev.deadline)
	defer cancel()
	if err := s.readFeatures(work, r); err != nil {
		r.withoutFeatures()
		if r.fallback == "" {
			r.fallback = "features: " + reasonOf(err)
		}
	}
	if r.fallback == "" {
		if err := s.byModel(work, r); err != nil {
			if waybill.CodeOf(err) == waybill.Invalid && work.Err() == nil {
				s.logger.WarnContext(ctx, "model failed, rules answer", "endpoint", r.rev.def.Name, "error", err)
			}
			r.fallback = "model: " + reasonOf(err)
		}
	}
	if r.fallback != "" {
		if err := s.byRules(r); err != nil {
			return err
		}
	}
	toRules := r.closeGates(r.rev.after, r.chosenVars())
	if r.blocked == "" && toRules != "" && r.fallback == "" {
		r.fallback = toRules
		if err := s.byRules(r); err != nil {
			return err
		}
		// Those that send to the rules have had their say; those that block have not seen this answer.
		blocking := slices.DeleteFunc(slices.Clone(r.rev.after), func(g gate) bool { return g.Verdict != "block" })
		r.gates = slices.DeleteFunc(r.gates, func(v GateVerdict) bool {
			return slices.ContainsFunc(blocking, func(g gate) bool { return g.Stage == v.Stage && g.Name == v.Gate })
		})
		r.closeGates(blocking, r.chosenVars())
	}
	if r.noneEligible && r.blocked == "" {
		r.gates = append(r.gates, GateVerdict{"eligible", "after", "override", "no candidate was eligible; the cheapest was taken"})
	}
	return nil
}

// closeGates evaluates gates in order; the first that blocks ends it. It returns the reason of the first gate that
// asks for the fallback, "" when none does. A gate that cannot be evaluated blocks: an unknown answer to a compliance
// question is no.
func (r *run) closeGates(gates []gate, vars map[string]any) (fallback string) {
	for _, g := range gates {
		v, err := g.when.Eval(vars)
		fired, ok := v.(bool)
		switch {
		case err != nil || !ok:
			r.gates = append(r.gates, GateVerdict{g.Name, g.Stage, "block", "cannot be evaluated: " + reasonOf(err)})
			r.blocked = g.Name
			return ""
		case !fired:
			r.gates = append(r.gates, GateVerdict{Gate: g.Name, Stage: g.Stage, Verdict: "allow"})
		case g.Verdict == "block":
			r.gates = append(r.gates, GateVerdict{g.Name, g.Stage, "block", g.Reason})
			r.blocked = g.Name
			return ""
		default:
			r.gates = append(r.gates, GateVerdict{g.Name, g.Stage, "fallback", g.Reason})
			if fallback == "" {
				fallback = "gate " + g.Name + ": " + g.Reason
			}
		}
	}
	return fallback
}

// prepare computes the input columns of every candidate. An input that cannot be computed is the caller's mistake or
// the definition's: the error names it.
func (s *Service) prepare(r *run) error {
	r.cands = make([]candidate, len(r.rev.candidates))
	for i, values := range r.rev.candidates {
		c := &r.cands[i]
		c.values = values
		c.row = make(map[string]any, len(r.rev.inputs))
		vars := map[string]any{"request": r.request, "now": r.now, "candidate": values}
		for _, in := range r.rev.inputs {
			v, err := in.expr.Eval(vars)
			if err != nil {
				return err
			}
			c.row[in.name] = v
		}
	}
	return nil
}

// withoutFeatures gives every candidate its inputs and null for whatever else the feature service would have given, so
// that rules and expressions can say what a missing value means to them.
func (r *run) withoutFeatures() {
	for i := range r.cands {
		c := &r.cands[i]
		c.vector = featurestore.Vector{}
		c.features = make(map[string]any, len(c.row)+len(r.rev.reader.Outputs()))
		for _, out := range r.rev.reader.Outputs() {
			c.features[out.Name] = nil
		}
		for k, v := range c.row {
			c.features[k] = v
		}
	}
}

func (s *Service) readFeatures(ctx context.Context, r *run) error {
	rows := make([]map[string]any, len(r.cands))
	for i := range r.cands {
		rows[i] = r.cands[i].row
	}
	vectors, err := r.rev.reader.Read(ctx, r.now, rows)
	if err != nil {
		return err
	}
	for i := range r.cands {
		c := &r.cands[i]
		c.vector = vectors[i]
		c.features = make(map[string]any, len(c.row)+len(vectors[i].Cells))
		for k, v := range c.row {
			c.features[k] = v
		}
		for _, cell := range vectors[i].Cells {
			c.features[cell.Name] = cell.Value
		}
	}
	return ctx.Err()
}

// byModel has the revision's model choose, if that may serve now, and explains the choice.
func (s *Service) byModel(ctx context.Context, r *run) error {
	model, err := s.serving(r.rev, r.rev.model)
	if err != nil {
		return err
	}
	if model.model == nil {
		return waybill.Errorf(waybill.Conflict, "%s is a rule set", r.rev.model)
	}
	places, err := model.columns(r.rev.reader)
	if err != nil {
		return err
	}
	w := model.work.Get().(*scratch)
	defer model.work.Put(w)
	for i := range r.cands {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &r.cands[i]
		for j, place := range places {
			w.x[j] = c.vector.Values[place]
		}
		p, err := model.model.Score(w.x, &w.score)
		if err != nil {
			return err
		}
		c.score, c.raw = p.Score, p.Raw
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.pick(); err != nil {
		return err
	}
	if r.explain, err = explain(model, places, r.chosen, w); err != nil {
		return err
	}
	r.by = model
	return nil
}

// byRules has the rule set choose. It is the last resort: its failure is the decision's.
func (s *Service) byRules(r *run) error {
	r.by, r.explain = nil, explanation{}
	nobody := func(err error) error {
		return waybill.Wrap(waybill.Unavailable, err, "neither the model nor the rules of endpoint "+r.rev.def.Name+" could answer ("+r.fallback+"; rules: "+reasonOf(err)+")")
	}
	rules, err := s.serving(r.rev, r.rev.fallback)
	if err != nil {
		return nobody(err)
	}
	if rules.rules == nil {
		return nobody(waybill.Errorf(waybill.Conflict, "%s is no rule set", r.rev.fallback))
	}
	for i := range r.cands {
		c := &r.cands[i]
		v, err := rules.rules.Evaluate(c.features)
		if err != nil {
			return nobody(err)
		}
		c.score, c.raw, c.rule = v.Score, v.Score, v.Rule
	}
	if err := r.pick(); err != nil {
		return nobody(err)
	}
	r.by, r.rule = rules, r.chosen.rule
	return nil
}

// pick chooses the cheapest eligible candidate and computes the answer's own fields; ties go to the earlier one. When
// none is eligible the cheapest of all is taken and a verdict says so: an order has to go somewhere, and a person sees
// why.
func (r *run) pick() error {
	best, bestAny := -1, -1
	for i := range r.cands {
		c := &r.cands[i]
		vars := map[string]any{"request": r.request, "now": r.now, "candidate": c.values, "features": c.features, "score": c.score}
		c.cost, c.eligible = 0, true
		if r.rev.cost != nil {
			v, err := r.rev.cost.Eval(vars)
			cost, ok := v.(float64)
			if err != nil || !ok {
				return fmt.Errorf("evaluate cost: %w", orNull(err, "cost"))
			}
			c.cost = cost
		}
		if r.rev.eligible != nil {
			v, err := r.rev.eligible.Eval(vars)
			ok, isBool := v.(bool)
			if err != nil || !isBool {
				return fmt.Errorf("evaluate eligible: %w", orNull(err, "eligible"))
			}
			c.eligible = ok
		}
		vars["cost"] = c.cost
		v, err := r.rev.action.Eval(vars)
		action, ok := v.(string)
		if err != nil || !ok {
			return fmt.Errorf("evaluate action: %w", orNull(err, "action"))
		}
		c.action = action
		if bestAny < 0 || c.cost < r.cands[bestAny].cost {
			bestAny = i
		}
		if c.eligible && (best < 0 || c.cost < r.cands[best].cost) {
			best = i
		}
	}
	if r.noneEligible = best < 0; r.noneEligible {
		best = bestAny
	}
	r.chosen = &r.cands[best]
	return r.fill()
}

// fill computes the fields that the endpoint's definition gives to its answer.
func (r *run) fill() error {
	r.fields = make(map[string]any, len(r.rev.answer))
	vars := r.chosenVars()
	for _, o := range r.rev.answer {
		v, err := o.expr.Eval(vars)
		if err != nil {
			return err
		}
		switch x := v.(type) {
		case time.Time:
			v = x.Format(time.RFC3339Nano)
		case int64:
			v = float64(x)
		}
		r.fields[o.name] = v
	}
	return nil
}

func orNull(err error, field string) error {
	if err != nil {
		return err
	}
	return waybill.InvalidField(field, "has no value for this request; use coalesce(x, default)")
}

func (r *run) chosenVars() map[string]any {
	c := r.chosen
	return map[string]any{"request": r.request, "now": r.now, "candidate": c.values, "features": c.features,
		"score": c.score, "cost": c.cost, "action": c.action, "decision_id": r.id.String()}
}

// explanation holds the exact contributions of the chosen candidate.
type explanation struct {
	names    []string
	values   []float64
	phi      []float64
	base     float64
	residual float64
	order    []int // by |phi|, largest first
}

func explain(m *loaded, places []int, c *candidate, w *scratch) (explanation, error) {
	x := make([]float64, len(places))
	for j, place := range places {
		x[j] = c.vector.Values[place]
	}
	phi := make([]float64, len(m.names))
	base, err := m.model.Contributions(x, phi, &w.score)
	if err != nil {
		return explanation{}, fmt.Errorf("explain score: %w", err)
	}
	sum := base
	order := make([]int, len(phi))
	for i, p := range phi {
		sum += p
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return math.Abs(phi[order[a]]) > math.Abs(phi[order[b]]) })
	return explanation{names: m.names, values: x, phi: phi, base: base, residual: math.Abs(sum - c.raw), order: order}, nil
}

// answer builds the body in the endpoint's own shape.
func (r *run) answer() map[string]any {
	d := r.rev.def
	out := map[string]any{
		"decision_id": r.id.String(),
		"endpoint":    waybill.VersionRef{Name: d.Name, Version: r.rev.number}.String(),
	}
	var fired []any
	for _, g := range r.gates {
		if g.Verdict != "allow" {
			fired = append(fired, map[string]any{"gate": g.Gate, "verdict": g.Verdict, "reason": g.Reason})
		}
	}
	if len(fired) > 0 {
		out["gates"] = fired
	}
	if r.blocked != "" {
		out["action"] = "blocked"
		return out
	}
	out["action"] = r.chosen.action
	explain := map[string]any{"score": r.chosen.score, "features": []any{}}
	if r.fallback == "" {
		out["model"] = r.by.ref.String()
		k := d.TopK
		if k == 0 {
			k = 5
		}
		var top, contributions []any
		for _, i := range r.explain.order[:min(k, len(r.explain.order))] {
			name, value, said := r.explain.names[i], number(r.explain.values[i]), r.explain.names[i]+":"+shortNumber(r.explain.values[i])
			if r.rev.secret[name] {
				value, said = nil, Unsaid(name)
			}
			top = append(top, said)
			contributions = append(contributions, map[string]any{"feature": name, "value": value, "contribution": r.explain.phi[i]})
		}
		explain["features"], explain["contributions"], explain["base"] = top, contributions, r.explain.base
	} else {
		out["fallback"] = map[string]any{"by": r.by.ref.String(), "reason": r.fallback, "rule": r.rule}
	}
	out["explain"] = explain
	for k, v := range r.fields {
		out[k] = v
	}
	if e, ok := out["explain"].(map[string]any); ok && d.Type == Rank {
		e["cost"] = r.chosen.cost
	}
	return out
}

// Unsaid is what an answer says of a feature of the class secret in place of its value.
func Unsaid(name string) string { return name + ":secret" }

// number makes a value JSON can hold: missing is null.
func number(x float64) any {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return x
}

func shortNumber(x float64) string {
	if math.IsNaN(x) {
		return "missing"
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}

// reasonOf puts an error into the words of a leaf: classified errors speak for themselves, the rest are internal.
func reasonOf(err error) string {
	var e *waybill.Error
	switch {
	case err == nil:
		return "no value"
	case errors.Is(err, context.DeadlineExceeded):
		return "not done within the deadline"
	case errors.As(err, &e):
		s := e.Message
		for _, v := range e.Violations {
			if s != "" {
				s += "; "
			}
			s += v.Field + " " + v.Remedy
		}
		if len(s) > 200 {
			s = strings.ToValidUTF8(s[:200], "") // no half of a character: Postgres would not take it
		}
		return s
	}
	return "internal error"
}

// log makes the leaf and the payload, appends them and returns the answer with its receipt. An append that fails is
// an answer that is not given.
func (s *Service) log(ctx context.Context, r *run, req Request, digest [32]byte, body map[string]any) (Answer, error) {
	payload := r.record(req.Body, body, s.clock().Sub(r.now))
	packed, err := json.Marshal(payload)
	if err != nil {
		return Answer{}, fmt.Errorf("marshal decision record: %w", err)
	}
	receipt, err := s.appender.Append(ctx, r.entry(req, digest, packed))
	if err != nil {
		return Answer{}, err
	}
	if receipt.Duplicate {
		var first Record
		if err := json.Unmarshal(receipt.Payload, &first); err != nil {
			return Answer{}, waybill.Wrap(waybill.Corrupt, err, "the record of decision "+r.id.String()+" cannot be read")
		}
		return Answer{DecisionID: r.id, Body: first.Answer, Receipt: receipt}, nil
	}
	if r.blocked == "" && r.fallback == "" && s.observer != nil {
		s.observer.Observe(r.actor.Tenant, r.rev.def.Name, r.rev.model, r.explain.names, r.explain.values, r.chosen.score, r.now)
	}
	return Answer{DecisionID: r.id, Body: body, Receipt: receipt}, nil
}
