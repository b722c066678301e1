package decision_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/decision"
)

func TestReportOutcome(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	a := h.decide(t, "ORD-1", "")
	for _, v := range []bool{true, false} { // the second report corrects the first; both are kept
		must[decision.Outcome](t)(h.service.ReportOutcome(ctx, ann, a.DecisionID, "late", v, time.Now()))
	}
	out := must[[]decision.Outcome](t)(h.service.Outcomes(ctx, "acme", a.DecisionID))
	if len(out) != 2 || out[0].Value != true || out[1].Value != false {
		t.Fatalf("outcomes: %+v", out)
	}
	for _, c := range []struct {
		name  string
		value any
		at    time.Time
		field string
	}{{"lost", true, time.Now(), "name"}, {"late", "yes", time.Now(), "value"}, {"late", true, time.Now().Add(time.Hour), "event_time"}} {
		_, err := h.service.ReportOutcome(ctx, ann, a.DecisionID, c.name, c.value, c.at)
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%v: %v, want invalid naming %s", c, err, c.field)
		}
	}
	if _, err := h.service.ReportOutcome(ctx, ann, waybill.NewID(time.Now()), "late", true, time.Now()); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("unknown decision: %v", err)
	}
}
