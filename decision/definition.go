package decision

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"waybill"
	"waybill/internal/expr"
)

// Bounds of a definition and of a request. They keep one decision's work and one leaf's size finite.
const (
	MaxDefinitionBytes = 256 << 10
	MaxCandidates      = 1000
	MaxGates           = 50
	MaxInputs          = 200
	MaxListItems       = 1000
	MaxTextBytes       = 1024
	defaultDeadline    = 250 * time.Millisecond
	maxDeadline        = 30 * time.Second
)

// Kind says whether an endpoint scores one vector or ranks one vector per candidate.
type Kind string

// The kinds of endpoint.
const (
	Score Kind = "score"
	Rank  Kind = "rank"
)

// Field is one field of an endpoint's request.
type Field struct {
	Name     string   `yaml:"name"`
	Type     string   `yaml:"type"` // string, int, float, bool, timestamp, list
	Required bool     `yaml:"required"`
	Min      *float64 `yaml:"min"`    // number: smallest value; list: fewest items
	Max      *float64 `yaml:"max"`    // number: largest value; string: most bytes; list: most items
	Values   []string `yaml:"values"` // strings: the only ones allowed
	Future   bool     `yaml:"future"` // timestamp: must lie after now
	Fields   []Field  `yaml:"fields"` // list: the fields of each item
}

// Input maps request and candidate to one input column of the feature service.
type Input struct {
	Name string `yaml:"name"`
	Expr string `yaml:"expr"`
}

// Gate is a rule evaluated before or after the model.
type Gate struct {
	Name    string `yaml:"name"`
	Stage   string `yaml:"stage"`   // before, after
	When    string `yaml:"when"`    // CEL, bool
	Verdict string `yaml:"verdict"` // block, fallback
	Reason  string `yaml:"reason"`
}

// Output is one field of the answer.
type Output struct {
	Name string `yaml:"name"`
	Expr string `yaml:"expr"`
}

// OutcomeField declares one outcome that may be reported.
type OutcomeField struct {
	Name string `yaml:"name"`
	Type string `yaml:"type"` // bool, float, string
}

// Definition is an endpoint revision as its author wrote it. It never changes once published.
type Definition struct {
	Kind        string           `yaml:"kind"` // "Endpoint"
	Name        string           `yaml:"name"`
	Type        Kind             `yaml:"type"`
	Description string           `yaml:"description"`
	Owner       string           `yaml:"owner"`
	Request     []Field          `yaml:"request"`
	BusinessKey string           `yaml:"business_key"` // a required string field of the request
	Candidates  []CandidateTable `yaml:"candidates"`   // rank: the candidates are the product of the tables
	Inputs      []Input          `yaml:"inputs"`
	Service     string           `yaml:"service"`  // feature service, "name@v1" or "name@latest"
	Model       string           `yaml:"model"`    // "name@v1"
	Fallback    string           `yaml:"fallback"` // "name@v1" of a rule set
	Deadline    string           `yaml:"deadline"` // e.g. 250ms: model and features must be done by then
	Gates       []Gate           `yaml:"gates"`
	Eligible    string           `yaml:"eligible"` // rank: CEL, bool, per candidate
	Cost        string           `yaml:"cost"`     // rank: CEL, double, per candidate; the cheapest wins
	Action      string           `yaml:"action"`   // CEL, string
	Answer      []Output         `yaml:"answer"`
	TopK        int              `yaml:"top_k"`
	Outcomes    []OutcomeField   `yaml:"outcomes"`
}

// CandidateTable is one factor of the candidates: named rows of plain values.
type CandidateTable struct {
	Name string           `yaml:"name"`
	Rows []map[string]any `yaml:"rows"`
}

// gate is a compiled Gate.
type gate struct {
	Gate
	when *expr.Program
}

// output is a compiled Input or Output.
type output struct {
	name string
	expr *expr.Program
}

// program is a definition made ready: everything that can be checked or computed once is.
type program struct {
	def        Definition
	digest     string
	service    waybill.VersionRef
	model      waybill.VersionRef
	fallback   waybill.VersionRef
	deadline   time.Duration
	candidates []map[string]any // one empty candidate for kind score
	inputs     []output
	before     []gate
	after      []gate
	eligible   *expr.Program // nil: all are
	cost       *expr.Program // nil for kind score
	action     *expr.Program
	answer     []output
}

// Parse reads one YAML document strictly: a field that is not known is an error that names it.
func Parse(doc []byte) (Definition, error) {
	if len(doc) > MaxDefinitionBytes {
		return Definition{}, waybill.Errorf(waybill.TooLarge, "the endpoint document has %d bytes; at most %d", len(doc), MaxDefinitionBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	dec.KnownFields(true)
	var d Definition
	if err := dec.Decode(&d); err != nil {
		if errors.Is(err, io.EOF) {
			return Definition{}, waybill.InvalidField("yaml", "is empty; give one document with kind: Endpoint")
		}
		return Definition{}, waybill.InvalidField("yaml", "cannot be read: "+err.Error())
	}
	var more any
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return Definition{}, waybill.InvalidField("yaml", "holds more than one document; publish endpoints one by one")
	}
	return d, nil
}

// compile checks a definition whole and reports every mistake at once. References are not looked up here.
func compile(d Definition) (*program, error) {
	p := &program{def: d}
	var bad []waybill.Violation
	add := func(err error) {
		var e *waybill.Error
		switch {
		case err == nil:
		case errors.As(err, &e) && len(e.Violations) > 0:
			bad = append(bad, e.Violations...)
		default:
			bad = append(bad, waybill.Violation{Field: "endpoint", Remedy: err.Error()})
		}
	}
	fail := func(field, remedy string) { bad = append(bad, waybill.Violation{Field: field, Remedy: remedy}) }
	if d.Kind != "Endpoint" {
		fail("kind", "must be Endpoint")
	}
	add(waybill.CheckName("name", d.Name))
	if d.Type != Score && d.Type != Rank {
		fail("type", "must be score or rank")
	}
	checkFields("request", d.Request, 0, fail)
	if !slices.ContainsFunc(d.Request, func(f Field) bool { return f.Name == d.BusinessKey && f.Type == "string" && f.Required }) {
		fail("business_key", "must name a required string field of the request, e.g. order_id")
	}
	p.service = parseRef("service", d.Service, true, add)
	p.model = parseRef("model", d.Model, false, add)
	p.fallback = parseRef("fallback", d.Fallback, false, add)
	p.deadline = defaultDeadline
	if d.Deadline != "" {
		v, err := time.ParseDuration(d.Deadline)
		if err != nil || v < time.Millisecond || v > maxDeadline {
			fail("deadline", "must be a duration from 1ms to 30s, e.g. 250ms")
		}
		p.deadline = v
	}
	p.candidates = product(d, fail)
	if d.TopK < 0 || d.TopK > 50 {
		fail("top_k", "must lie in 0 to 50")
	}
	if len(d.Inputs) > MaxInputs || len(d.Gates) > MaxGates || len(d.Answer) > MaxInputs {
		fail("endpoint", fmt.Sprintf("has too many inputs, gates or answers; at most %d inputs, %d gates, %d answers", MaxInputs, MaxGates, MaxInputs))
		return nil, waybill.InvalidFields(bad)
	}

	asked := map[string]expr.Type{"request": expr.Map, "now": expr.Timestamp}
	each := map[string]expr.Type{"request": expr.Map, "now": expr.Timestamp, "candidate": expr.Map}
	scored := map[string]expr.Type{"request": expr.Map, "now": expr.Timestamp, "candidate": expr.Map, "features": expr.Map, "score": expr.Double}
	chosen := map[string]expr.Type{"request": expr.Map, "now": expr.Timestamp, "candidate": expr.Map, "features": expr.Map, "score": expr.Double,
		"cost": expr.Double, "action": expr.String, "decision_id": expr.String}
	comp := func(field, src string, vars map[string]expr.Type, want expr.Type) *expr.Program {
		prog, err := expr.Compile(field, src, vars, want)
		add(err)
		return prog
	}
	names := map[string]bool{}
	for i, in := range d.Inputs {
		field := "inputs[" + strconv.Itoa(i) + "]"
		add(waybill.CheckName(field+".name", in.Name))
		if names[in.Name] {
			fail(field+".name", "is there twice")
		}
		names[in.Name] = true
		p.inputs = append(p.inputs, output{in.Name, comp(field+".expr", in.Expr, each, "")})
	}
	clear(names)
	for i, g := range d.Gates {
		field := "gates[" + strconv.Itoa(i) + "]"
		add(waybill.CheckName(field+".name", g.Name))
		if names[g.Name] {
			fail(field+".name", "is there twice")
		}
		names[g.Name] = true
		if g.Verdict != "block" && g.Verdict != "fallback" {
			fail(field+".verdict", "must be block or fallback")
		}
		if g.Reason == "" || len(g.Reason) > MaxTextBytes {
			fail(field+".reason", "must say in words why the gate closes, in at most "+strconv.Itoa(MaxTextBytes)+" bytes")
		}
		switch g.Stage {
		case "before":
			p.before = append(p.before, gate{g, comp(field+".when", g.When, asked, expr.Bool)})
		case "after":
			p.after = append(p.after, gate{g, comp(field+".when", g.When, chosen, expr.Bool)})
		default:
			fail(field+".stage", "must be before or after")
		}
	}
	if d.Type == Rank {
		p.cost = comp("cost", d.Cost, scored, expr.Double)
		if d.Eligible != "" {
			p.eligible = comp("eligible", d.Eligible, scored, expr.Bool)
		}
	} else if d.Cost != "" || d.Eligible != "" {
		fail("cost", "and eligible belong to type rank")
	}
	beforeAction := map[string]expr.Type{"request": expr.Map, "now": expr.Timestamp, "candidate": expr.Map, "features": expr.Map, "score": expr.Double, "cost": expr.Double}
	p.action = comp("action", d.Action, beforeAction, expr.String)
	clear(names)
	for i, o := range d.Answer {
		field := "answer[" + strconv.Itoa(i) + "]"
		add(waybill.CheckName(field+".name", o.Name))
		if names[o.Name] || slices.Contains(reserved(), o.Name) {
			fail(field+".name", "is there twice or is one of the names that every answer has")
		}
		names[o.Name] = true
		p.answer = append(p.answer, output{o.Name, comp(field+".expr", o.Expr, chosen, "")})
	}
	for i, o := range d.Outcomes {
		field := "outcomes[" + strconv.Itoa(i) + "]"
		add(waybill.CheckName(field+".name", o.Name))
		if !slices.Contains([]string{"bool", "float", "string"}, o.Type) {
			fail(field+".type", "must be bool, float or string")
		}
	}
	if err := waybill.InvalidFields(bad); err != nil {
		return nil, err
	}
	return p, nil
}

// reserved lists the fields that every answer carries beside the endpoint's own.
func reserved() []string {
	return []string{"decision_id", "action", "explain", "receipt", "model", "fallback", "endpoint", "gates"}
}

func parseRef(field, s string, latest bool, add func(error)) waybill.VersionRef {
	ref, err := waybill.ParseVersionRef(field, s)
	add(err)
	if err == nil && ref.Version == 0 && !latest {
		add(waybill.InvalidField(field, "must name a version, e.g. "+ref.Name+"@v1: what answers is decided when the endpoint is published"))
	}
	return ref
}

func checkFields(path string, fields []Field, depth int, fail func(field, remedy string)) {
	if len(fields) == 0 || len(fields) > MaxInputs {
		fail(path, fmt.Sprintf("must list 1 to %d fields", MaxInputs))
		return
	}
	seen := map[string]bool{}
	for i, f := range fields {
		at := path + "[" + strconv.Itoa(i) + "]"
		if err := waybill.CheckName(at+".name", f.Name); err != nil || seen[f.Name] {
			fail(at+".name", "must be a name that is there once")
		}
		seen[f.Name] = true
		switch f.Type {
		case "string", "int", "float", "bool", "timestamp":
			if len(f.Fields) > 0 {
				fail(at+".fields", "belong to type list")
			}
		case "list":
			if depth > 0 {
				fail(at+".type", "is list within a list; flatten it")
			} else {
				checkFields(at+".fields", f.Fields, depth+1, fail)
			}
		default:
			fail(at+".type", "must be string, int, float, bool, timestamp or list")
		}
		if f.Future && f.Type != "timestamp" {
			fail(at+".future", "belongs to type timestamp")
		}
	}
}

// product multiplies the candidate tables. Every candidate is the union of one row of each table.
func product(d Definition, fail func(field, remedy string)) []map[string]any {
	if d.Type != Rank {
		if len(d.Candidates) > 0 {
			fail("candidates", "belong to type rank")
		}
		return []map[string]any{{}}
	}
	if len(d.Candidates) == 0 {
		fail("candidates", "must hold at least one table for type rank")
	}
	out := []map[string]any{{}}
	for i, table := range d.Candidates {
		at := "candidates[" + strconv.Itoa(i) + "]"
		if len(table.Rows) == 0 || len(out)*len(table.Rows) > MaxCandidates {
			fail(at+".rows", fmt.Sprintf("must not be empty, and all tables multiplied give at most %d candidates", MaxCandidates))
			return out
		}
		var next []map[string]any
		for _, left := range out {
			for j, row := range table.Rows {
				merged := make(map[string]any, len(left)+len(row))
				for k, v := range left {
					merged[k] = v
				}
				for k, v := range row {
					if _, there := merged[k]; there {
						fail(at+".rows["+strconv.Itoa(j)+"]."+k, "is a column of another table too; rename it")
					}
					switch v := v.(type) {
					case int:
						merged[k] = float64(v)
					case string, float64, bool:
						merged[k] = v
					default:
						fail(at+".rows["+strconv.Itoa(j)+"]."+k, "must be text, a number or a truth value")
					}
				}
				next = append(next, merged)
			}
		}
		out = next
	}
	return out
}

// canonical gives the bytes that a revision's digest is taken of: the definition with its references resolved.
func canonical(d Definition) ([]byte, string, error) {
	doc, err := yaml.Marshal(d)
	if err != nil {
		return nil, "", fmt.Errorf("marshal endpoint definition: %w", err)
	}
	sum := sha256.Sum256(doc)
	return doc, "sha256:" + hex.EncodeToString(sum[:]), nil
}
