package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	decisionv1 "waybill/proto/waybill/decision/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

// sheet is an answer for people: lines of name and value, then tables. Programs take --json instead.
type sheet struct {
	w *tabwriter.Writer
}

func newSheet(w io.Writer) sheet { return sheet{tabwriter.NewWriter(w, 2, 4, 2, ' ', 0)} }

// line writes a name with its value, and nothing when there is no value.
func (s sheet) line(name, format string, args ...any) {
	if v := oneLine(fmt.Sprintf(format, args...)); v != "" {
		fmt.Fprintf(s.w, "%s\t%s\n", name, v)
	}
}

// section begins a table; the columns of one do not widen those of another.
func (s sheet) section(head ...string) {
	fmt.Fprintln(s.w, "\f"+strings.Join(head, "\t"))
}

func (s sheet) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = oneLine(fmt.Sprint(c))
	}
	fmt.Fprintln(s.w, strings.Join(text, "\t"))
}

func oneLine(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\n", " ", "\t", " ").Replace(s))
}

// maxCandidates is how many options of a ranking are shown; --json has them all.
const maxCandidates = 5

// showDecision writes the waybill of one decision for people.
func showDecision(w io.Writer, d *decisionv1.Decision) error {
	sum := d.GetSummary()
	fmt.Fprintf(w, "%s\n\n", d.GetSentence())
	s := newSheet(w)
	s.line("decision", "%s", sum.GetDecisionId())
	s.line("decided", "%s by %s@v%d, asked by %s, in %.1f ms", day(sum.GetDecidedAt()), sum.GetEndpoint(), sum.GetRevision(), d.GetActor(), d.GetLatencyMs())
	s.line("answer", "%s", sum.GetAction())
	s.line("answered by", "%s", strings.TrimSpace(d.GetAnsweredBy()+" "+d.GetModelDigest()))
	s.line("fallback", "%s", d.GetFallbackReason())
	if d.GetApprover() != "" {
		s.line("approved", "by %s on %s: %s", d.GetApprover(), day(d.GetApprovedAt()), d.GetApprovalReason())
		s.line("that is now", "%s", d.GetModelStateNow())
	}
	s.line("made from", "%s", strings.Join(filled(d.GetFeatureService(), prefixed("training set ", d.GetTrainingSet())), ", "))
	s.line("policy", "revision %d", d.GetPolicyRev())
	s.line("score", "%s", number6(sum.GetScore()))
	if effects := slices.ContainsFunc(d.GetInputs(), func(i *decisionv1.Input) bool { return i.GetContribution() != 0 }); effects {
		s.line("reasons", "the effects below and the base %+.4f add up to %+.4f (log-odds where the score is a risk)", d.GetBase(), d.GetRaw())
	}
	if len(d.GetInputs()) > 0 {
		s.section("INPUT", "VALUE", "EFFECT", "STATUS", "FROM", "AGE")
		for _, i := range byEffect(d.GetInputs()) {
			effect := ""
			if i.GetContribution() != 0 {
				effect = fmt.Sprintf("%+.4f", i.GetContribution())
			}
			from, age := strings.Join(i.GetSources(), ", "), ""
			if i.GetView() != "" {
				from = i.GetView()
				if i.GetSequence() > 0 {
					from, age = fmt.Sprintf("%s, commit %d", from, i.GetSequence()), ageOf(i.GetAgeSeconds())
				}
			}
			s.row(i.GetName(), valueText(i.GetValue()), effect, i.GetStatus(), from, age)
		}
	}
	if all := d.GetCandidates(); len(all) > 0 {
		s.section("CANDIDATE", "SCORE", "COST", "")
		chosen := func(c *decisionv1.Candidate) int { // first, then the others in their own order
			if c.GetAction() == sum.GetAction() {
				return 0
			}
			return 1
		}
		all = slices.SortedStableFunc(slices.Values(all), func(a, b *decisionv1.Candidate) int { return cmp.Compare(chosen(a), chosen(b)) })
		for n, c := range all {
			if n == maxCandidates {
				s.row(fmt.Sprintf("… %d more (--json)", len(all)-n))
				break
			}
			out := ""
			if chosen(c) == 0 {
				out = "chosen"
			}
			if !c.GetEligible() {
				out = "not eligible " + c.GetBlockedBy()
			}
			s.row(c.GetAction(), number6(c.GetScore()), number6(c.GetCost()), out)
		}
	}
	if len(d.GetGates()) > 0 {
		s.section("GATE", "STAGE", "VERDICT", "REASON")
		for _, g := range d.GetGates() {
			s.row(g.GetGate(), g.GetStage(), g.GetVerdict(), g.GetReason())
		}
	}
	if len(d.GetOutcomes()) > 0 {
		s.section("OUTCOME", "VALUE", "HAPPENED", "REPORTED", "BY")
		for _, o := range d.GetOutcomes() {
			s.row(o.GetName(), valueText(o.GetValue()), day(o.GetEventTime()), day(o.GetReportedAt()), o.GetActor())
		}
	}
	fmt.Fprint(s.w, "\f")
	s.line("proof", "entry %d of the log; check it: waybill log verify --decision %s", sum.GetIndex(), sum.GetDecisionId())
	s.line("replay", "waybill decision replay %s", sum.GetDecisionId())
	return s.w.Flush()
}

// showModel writes a model version for people.
func showModel(w io.Writer, v *registryv1.ModelVersion) error {
	head := refOf(v) + " is " + v.GetState()
	if v.GetNeeds() != "" {
		head += ": " + v.GetNeeds()
	}
	fmt.Fprintf(w, "%s\n\n", head)
	s := newSheet(w)
	s.line("what", "%s", v.GetDescription())
	s.line("for", "%s", v.GetIntendedUse())
	s.line("automation", "%s", v.GetAutomation())
	s.line("author", "%s on %s", v.GetAuthor(), day(v.GetCreatedAt()))
	s.line("digest", "%s", v.GetDigest())
	s.line("format", "%s, scored from %s", v.GetFormat(), v.GetEntrypoint())
	s.line("features", "%s", v.GetFeatureService())
	s.line("trained on", "%s", v.GetTrainingSet())
	s.line("aliases", "%s", strings.Join(v.GetAliases(), ", "))
	for _, name := range slices.Sorted(maps.Keys(v.GetMetrics())) {
		s.line("metric", "%s %s", name, number6(v.GetMetrics()[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(v.GetTags())) {
		s.line("tag", "%s=%s", name, v.GetTags()[name])
	}
	if len(v.GetApprovals()) > 0 {
		s.section("CONSENT", "BY", "WHEN", "REASON")
		for _, a := range v.GetApprovals() {
			s.row(a.GetKind(), a.GetActor(), day(a.GetAt()), a.GetReason())
		}
	}
	if len(v.GetFiles()) > 0 {
		s.section("FILE", "BYTES", "SHA-256")
		for _, f := range v.GetFiles() {
			s.row(f.GetPath(), f.GetSizeBytes(), f.GetSha256())
		}
	}
	return s.w.Flush()
}

// showEndpoint writes an endpoint for people: who answers, then its document.
func showEndpoint(w io.Writer, e *decisionv1.Endpoint) error {
	fmt.Fprintf(w, "%s@v%d: %s\n\n", e.GetName(), e.GetRevision(), e.GetServing())
	s := newSheet(w)
	s.line("model", "%s (%s)", e.GetModel(), e.GetModelState())
	s.line("fallback", "%s", e.GetFallback())
	s.line("features", "%s", e.GetFeatureService())
	s.line("digest", "%s", e.GetDigest())
	s.line("published", "by %s on %s: %s", e.GetAuthor(), day(e.GetPublishedAt()), e.GetReason())
	if err := s.w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(e.GetYaml()))
	return err
}

// byEffect sorts inputs by the size of what they did to the score.
func byEffect(in []*decisionv1.Input) []*decisionv1.Input {
	return slices.SortedStableFunc(slices.Values(in), func(a, b *decisionv1.Input) int {
		return cmp.Compare(math.Abs(b.GetContribution()), math.Abs(a.GetContribution()))
	})
}

// effects says what moved the score most: the signed contribution of each input and the value it had.
func effects(in []*decisionv1.Input, most int) string {
	var out []string
	for _, i := range byEffect(in) {
		if len(out) < most && i.GetContribution() != 0 {
			out = append(out, fmt.Sprintf("%s %+.2f (it was %s)", i.GetName(), i.GetContribution(), valueText(i.GetValue())))
		}
	}
	return strings.Join(out, ", ")
}

func number6(x float64) string { return fmt.Sprintf("%.6g", x) }

// valueText writes a value as JSON does, numbers with six digits.
func valueText(v *structpb.Value) string {
	if x, ok := v.GetKind().(*structpb.Value_NumberValue); ok {
		return number6(x.NumberValue)
	}
	if x, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return x.StringValue
	}
	b, err := json.Marshal(v.AsInterface())
	if err != nil {
		return "?"
	}
	return string(b)
}

// ageOf writes seconds as 40 s, 12 min, 5 h or 3 days.
func ageOf(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func filled(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}
