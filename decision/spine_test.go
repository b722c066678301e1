package decision_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/decision"
	"waybill/featurestore"
)

// What was decided and how it turned out becomes a training set.
func TestSpine(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	from := time.Now().Add(-time.Minute)
	for i, id := range []string{"ORD-1", "ORD-2", "ORD-3"} {
		a := h.decide(t, id, "")
		if i == 1 {
			continue // nobody knows how it turned out
		}
		for _, late := range []bool{i == 0, i != 0} { // the second report corrects the first
			must[decision.Outcome](t)(h.service.ReportOutcome(ctx, ann, a.DecisionID, "late", late, time.Now()))
		}
	}
	req := decision.SpineRequest{Endpoint: "route", From: from, To: time.Now().Add(time.Minute), Outcome: "late", Columns: map[string]string{"decision_id": "", "country": ""}}
	if _, err := h.service.Spine(ctx, "acme", h.log.Search, req); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("a column that is not there: %v", err)
	}
	req.Columns = map[string]string{"decision_id": "", "order_id": "order"}
	spine := must[[]byte](t)(h.service.Spine(ctx, "acme", h.log.Search, req))
	lines := strings.Split(strings.TrimSpace(string(spine)), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "decided_at,action,") || !strings.HasSuffix(lines[0], ",warehouse,late") || !strings.Contains(lines[0], ",km,order,") {
		t.Fatalf("%s", spine)
	}
	if !strings.Contains(lines[1], ",ORD-1,") || !strings.HasSuffix(lines[1], ",WH-NY-1,false") || !strings.Contains(lines[2], ",ORD-3,") || !strings.HasSuffix(lines[2], ",true") {
		t.Errorf("%s", spine)
	}
	set, err := h.features.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "decided", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV,
		TimeColumn: decision.SpineTime, LabelColumn: "late", Spine: strings.NewReader(string(spine))})
	if err != nil || set.Rows != 2 {
		t.Fatalf("%+v, %v", set, err)
	}
	for _, c := range set.Columns {
		if c.Name == "queue" && (c.Nulls != 0 || c.Mean != 0.2) || c.Name == "late" && (c.Type != featurestore.Float64 || c.Mean != 0.5) {
			t.Errorf("%+v", c)
		}
	}
	for name, c := range map[string]struct {
		change func(r *decision.SpineRequest)
		tenant waybill.Tenant
		want   waybill.Code
	}{
		"no endpoint":      {func(r *decision.SpineRequest) { r.Endpoint = "" }, "acme", waybill.Invalid},
		"unknown endpoint": {func(r *decision.SpineRequest) { r.Endpoint = "nowhere" }, "acme", waybill.NotFound},
		"unknown outcome":  {func(r *decision.SpineRequest) { r.Outcome = "lost" }, "acme", waybill.Invalid},
		"no time":          {func(r *decision.SpineRequest) { r.To = r.From }, "acme", waybill.Invalid},
		"before all":       {func(r *decision.SpineRequest) { r.From, r.To = from.Add(-time.Hour), from }, "acme", waybill.NotFound},
		"renamed time":     {func(r *decision.SpineRequest) { r.Columns = map[string]string{"decided_at": "x"} }, "acme", waybill.Invalid},
		"one name twice":   {func(r *decision.SpineRequest) { r.Columns = map[string]string{"action": "late"} }, "acme", waybill.Invalid},
		"another tenant":   {func(*decision.SpineRequest) {}, "other", waybill.NotFound},
	} {
		r := req
		c.change(&r)
		if _, err := h.service.Spine(ctx, c.tenant, h.log.Search, r); waybill.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
