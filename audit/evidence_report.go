package audit

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill"
	"waybill/audit/evidence"
)

// Bounds of what the report shows; the payload has the rest.
const (
	maxReasons = 12
	maxOptions = 20
)

//go:embed evidence_report.html
var reportText string

var reportPage = template.Must(template.New("report").Parse(reportText))

// reportData is what the page shows. Everything in it is from members of the bundle, so that whoever doubts the page
// finds the same in them.
type reportData struct {
	Leaf       DecisionLeaf
	Index      evidence.Index
	At         int64 // the decision's entry
	Root       string
	Verifier   string
	File       string
	LeafHash   string
	Headline   string
	Decided    string
	Score      string
	Key        string
	Consent    *verdictLine
	Made       bool   // the making of the version that answered is among the entries
	Request    string // JSON
	Answer     string // JSON
	Payload    bool
	Reasons    []reasonLine
	Base, Raw  string
	Inputs     []inputLine
	Options    []optionLine
	MoreOption int
	Gates      []gateLine
	Outcomes   []outcomeLine
	Verdicts   []verdictLine
	Entries    []entryLine
}

type reasonLine struct {
	Name, Value, Effect string
	X, Width            string // of the bar, in a picture from −100 to 100
	Up                  bool
}

type inputLine struct{ Name, Value, Status, From, At string }

type optionLine struct {
	Action, Score, Cost string
	Eligible, Chosen    bool
}

type gateLine struct {
	Gate    string `json:"gate"`
	Stage   string `json:"stage"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

type outcomeLine struct{ Name, Value, Happened, Reported, By string }

type verdictLine struct {
	Action, Actor, At, Reason string
	Entry                     int64
	Later                     bool // than the decision
}

type entryLine struct {
	Role, Subject, What, At, Actor, Digest, Leaf, Proof string
	Index                                               int64
}

// recorded is what the report reads of a payload, which package decision writes. A payload of another shape shows less.
type recorded struct {
	Request map[string]any `json:"request"`
	Answer  map[string]any `json:"answer"`
	Inputs  []struct {
		Name    string   `json:"name"`
		Value   any      `json:"value"`
		Status  string   `json:"status"`
		View    string   `json:"view"`
		Seq     int64    `json:"seq"`
		Event   string   `json:"event"`
		Sources []string `json:"sources"`
	} `json:"inputs"`
	Names      []string  `json:"names"`
	Phi        []float64 `json:"phi"`
	Base       float64   `json:"base"`
	Raw        float64   `json:"raw"`
	Candidates []struct {
		Action   string  `json:"action"`
		Score    float64 `json:"score"`
		Cost     float64 `json:"cost"`
		Eligible bool    `json:"eligible"`
	} `json:"candidates"`
	Gates []gateLine `json:"gates"`
}

// report renders the page.
func report(g *gathering, d DecisionLeaf) ([]byte, error) {
	hash := LeafHash(g.proof.Leaf)
	data := reportData{Leaf: d, Index: g.index, At: g.proof.Index, Root: base64.StdEncoding.EncodeToString(g.proof.Root), Verifier: g.log.verifier,
		File: (&Evidence{ID: d.ID}).FileName(), LeafHash: fmt.Sprintf("%x", hash), Decided: clock(d.DecidedAt), Payload: g.index.PayloadMissing == ""}
	if d.Score != nil {
		data.Score = number(*d.Score)
	}
	if data.Payload {
		var rec recorded
		dec := json.NewDecoder(bytes.NewReader(g.proof.Payload))
		dec.UseNumber()
		if err := dec.Decode(&rec); err == nil {
			data.fill(d, rec)
		}
	}
	for _, e := range g.index.Entries {
		if err := data.entry(g, e); err != nil {
			return nil, err
		}
	}
	data.Headline = headline(d, data.Consent)
	var page bytes.Buffer
	if err := reportPage.Execute(&page, data); err != nil {
		return nil, fmt.Errorf("render report: %w", err)
	}
	return page.Bytes(), nil
}

// headline is the decision in one sentence.
func headline(d DecisionLeaf, consent *verdictLine) string {
	by := ", approved by nobody that this bundle shows"
	if consent != nil {
		by = ", approved by " + consent.Actor
	}
	switch {
	case d.Action == "blocked":
		return "Blocked by the gates " + strings.Join(d.Gates, ", ") + "."
	case d.Fallback != "":
		return fmt.Sprintf("Decided as “%s” by the rules %s%s, because the model did not answer: %s.", d.Action, d.Model.Ref, by, strings.TrimSuffix(strings.TrimPrefix(d.Fallback, "model: "), "."))
	default:
		return fmt.Sprintf("Decided as “%s” by the model %s%s.", d.Action, d.Model.Ref, by)
	}
}

// fill shows the payload.
func (r *reportData) fill(d DecisionLeaf, rec recorded) {
	r.Request, r.Answer, r.Gates = pretty(rec.Request), pretty(rec.Answer), rec.Gates
	values := map[string]string{}
	for _, in := range rec.Inputs {
		l := inputLine{Name: in.Name, Value: shown(in.Value), Status: strings.ToLower(in.Status), From: cmp.Or(strings.Join(in.Sources, ", "), "request"), At: stamp(in.Event)}
		if in.View != "" {
			l.From = in.View
			if in.Seq > 0 {
				l.From += ", commit " + strconv.FormatInt(in.Seq, 10)
			}
		}
		r.Inputs, values[in.Name] = append(r.Inputs, l), l.Value
	}
	r.Base, r.Raw, r.Reasons = number(rec.Base), number(rec.Raw), reasons(rec.Names, rec.Phi, values)
	for _, c := range rec.Candidates {
		chosen := c.Action == d.Action
		if len(r.Options) == maxOptions && !chosen {
			r.MoreOption++
			continue
		}
		r.Options = append(r.Options, optionLine{c.Action, number(c.Score), number(c.Cost), c.Eligible, chosen})
	}
}

// reasons are the contributions with the greatest effect, then the sum of all others.
func reasons(names []string, phi []float64, values map[string]string) []reasonLine {
	type effect struct {
		name string
		by   float64
	}
	var all []effect
	for i := range min(len(names), len(phi)) {
		if phi[i] != 0 {
			all = append(all, effect{names[i], phi[i]})
		}
	}
	slices.SortStableFunc(all, func(a, b effect) int { return cmp.Compare(math.Abs(b.by), math.Abs(a.by)) })
	if len(all) > maxReasons {
		rest := effect{name: fmt.Sprintf("%d others together", len(all)-maxReasons+1)}
		for _, e := range all[maxReasons-1:] {
			rest.by += e.by
		}
		all = append(all[:maxReasons-1:maxReasons-1], rest)
	}
	most := 0.0
	for _, e := range all {
		most = max(most, math.Abs(e.by))
	}
	var out []reasonLine
	for _, e := range all {
		width := math.Abs(e.by) / most * 98
		l := reasonLine{Name: e.name, Value: values[e.name], Effect: fmt.Sprintf("%+.4f", e.by), Up: e.by > 0, Width: fmt.Sprintf("%.2f", width), X: "0"}
		if !l.Up {
			l.X = fmt.Sprintf("%.2f", -width)
		}
		out = append(out, l)
	}
	return out
}

// roleWords are the roles in plain words.
var roleWords = map[evidence.Role]string{
	evidence.RoleDecision: "this decision", evidence.RoleEndpoint: "endpoint revision that was asked", evidence.RoleModel: "making of the version that answered",
	evidence.RoleApproval: "consent in force", evidence.RoleVerdict: "other verdict on that version", evidence.RoleService: "feature service version",
	evidence.RoleView: "feature view version that was read", evidence.RolePolicy: "access policy in force", evidence.RoleTrainingSet: "what the version was trained on",
	evidence.RoleOutcome: "what happened afterwards",
}

// RoleWords says what a role means.
func RoleWords(r evidence.Role) string { return roleWords[r] }

// entry shows one leaf.
func (r *reportData) entry(g *gathering, e evidence.Entry) error {
	leaf := g.leaves[e.Index]
	line := entryLine{Role: RoleWords(e.Role), Subject: e.Subject, Index: e.Index, Leaf: evidence.LeafFile(e.Index), Proof: evidence.ProofFile(e.Index)}
	if e.Role == evidence.RoleDecision {
		line.At, line.Actor, line.Digest = stamp(r.Leaf.DecidedAt), r.Leaf.Actor, r.Leaf.Payload
		r.Entries = append(r.Entries, line)
		return nil
	}
	var event eventLeaf
	var detail struct {
		Action    string `json:"action"`
		Op        string `json:"op"`
		Name      string `json:"name"`
		Reason    string `json:"reason"`
		Value     any    `json:"value"`
		EventTime string `json:"event_time"`
	}
	if err := json.Unmarshal(leaf, &event); err != nil {
		return waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("entry %d of the log cannot be read", e.Index))
	}
	if json.Unmarshal(event.Detail, &detail) == nil { // details of other shapes show nothing
		line.What = cmp.Or(detail.Action, detail.Op, detail.Reason)
	}
	line.At, line.Actor, line.Digest = stamp(event.At), event.Actor, event.Digest
	r.Entries = append(r.Entries, line)
	r.Made = r.Made || e.Role == evidence.RoleModel
	switch e.Role {
	case evidence.RoleApproval, evidence.RoleVerdict:
		v := verdictLine{Action: detail.Action, Actor: event.Actor, At: line.At, Reason: string(g.members[evidence.TextFile(e.Index)]), Entry: e.Index, Later: e.Index > g.proof.Index}
		r.Verdicts = append(r.Verdicts, v)
		if e.Role == evidence.RoleApproval {
			v.At = clock(event.At)
			r.Consent = &v
		}
	case evidence.RoleOutcome:
		r.Outcomes = append(r.Outcomes, outcomeLine{detail.Name, shown(detail.Value), stamp(detail.EventTime), line.At, event.Actor})
	case evidence.RoleDecision, evidence.RoleEndpoint, evidence.RoleModel, evidence.RoleService, evidence.RoleView, evidence.RolePolicy, evidence.RoleTrainingSet:
	}
	return nil
}

// clock writes a leaf's time for people, to the millisecond; what is no time stays as it is.
func clock(s string) string { return timeIn("2 January 2006, 15:04:05.000 UTC", s) }

// stamp is clock for tables.
func stamp(s string) string { return timeIn("2006-01-02 15:04:05 UTC", s) }

func timeIn(layout, s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return t.UTC().Format(layout)
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

// shown writes a value as JSON does, a string without its quotes, a number with six digits: the payload has all of them.
func shown(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		if x, err := v.Float64(); err == nil && strings.ContainsAny(string(v), ".eE") { // a whole number stays whole
			return number(x)
		}
		return v.String()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(b)
}

func pretty(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "?"
	}
	return string(b)
}
