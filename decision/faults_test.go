package decision_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/registry"
)

// publish puts a changed form of the test's endpoint in force.
func (h *hub) publish(t testing.TB, pairs ...string) {
	t.Helper()
	if _, _, err := h.service.Publish(context.Background(), ann, []byte(strings.NewReplacer(pairs...).Replace(endpoint)), "another form"); err != nil {
		t.Fatal(err)
	}
}

// Features that are late are no fault of the caller: the rules answer, and expressions see null.
func TestDecide_FeaturesLate(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	rows := make([]string, 400)
	for i := range rows {
		rows[i] = fmt.Sprintf("{carrier: C%d, service_level: TwoDay, price: 9}", i)
	}
	h.publish(t, "rows: [{carrier: CarrierX, service_level: TwoDay, price: 9}]", "rows: ["+strings.Join(rows, ",")+"]",
		"cost: \"candidate.price", "deadline: 1ms\neligible: \"coalesce(features.queue, 0.0) < 96.0\"\ncost: \"candidate.price")
	late := 0
	for range 20 {
		a := h.decide(t, "ORD-1", "")
		if f, ok := a.Body["fallback"].(map[string]any); ok {
			late++
			if !strings.Contains(fmt.Sprint(f["reason"]), "deadline") || a.Body["warehouse"] == nil {
				t.Fatalf("answer: %v", a.Body)
			}
		}
	}
	if late == 0 {
		t.Error("800 candidates were read and scored within a millisecond: the test shows nothing here")
	}
}

// An expression of the endpoint that cannot be evaluated is no fault of the caller either.
func TestDecide_ExpressionFails(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	h.publish(t, `cost: "candidate.price + 100.0 * score + 0.001 * features.km"`, `cost: "features.nosuch * 1.0"`)
	_, err := h.service.Decide(context.Background(), ann, decision.Request{Endpoint: "route", Body: order("1")})
	if waybill.CodeOf(err) != waybill.Unavailable || !strings.Contains(err.Error(), "nosuch") {
		t.Fatalf("%v; want unavailable, naming nosuch", err)
	}
	// Where only the model's scores make it fail, the rules answer.
	h.publish(t, `cost: "candidate.price + 100.0 * score + 0.001 * features.km"`, `cost: "score == 0.2 || score == 0.7 ? 1.0 : features.nosuch * 1.0"`)
	if a := h.decide(t, "1", ""); !strings.Contains(fmt.Sprint(a.Body["fallback"]), "nosuch") {
		t.Fatalf("answer: %v", a.Body)
	}
}

// The gates that block are asked about the answer that is given, not only about the one that was thrown away.
func TestDecide_AfterGatesSeeTheRulesChoice(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	h.publish(t, `when: "score > 0.9", verdict: fallback, reason: the model is out of its range}`,
		`when: "candidate.warehouse == 'WH-NY-1' && score < 0.2", verdict: fallback, reason: out of range}
  - {name: forbidden, stage: after, when: "candidate.warehouse == 'WH-LA-1'", verdict: block, reason: sanctions}`,
		`cost: "candidate.price + 100.0 * score + 0.001 * features.km"`, `cost: "score == 0.2 || score == 0.7 ? -1.0 * features.km : 100.0 * score"`)
	a := h.decide(t, "1", "")
	if a.Body["action"] != "blocked" || a.Body["warehouse"] != nil || !strings.Contains(fmt.Sprint(a.Body["gates"]), "forbidden") {
		t.Fatalf("answer: %v", a.Body)
	}
	_, rec, err := h.service.Recorded(context.Background(), "acme", a.DecisionID)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{}
	for _, g := range rec.Gates {
		if verdicts[g.Gate] != "" {
			t.Errorf("gate %s has two verdicts: %v", g.Gate, rec.Gates)
		}
		verdicts[g.Gate] = g.Verdict
	}
	if verdicts["too-risky"] != "fallback" || verdicts["forbidden"] != "block" {
		t.Errorf("recorded gates: %v", rec.Gates)
	}
}

// A choice among candidates none of which is eligible says so, in the answer and in the leaf.
func TestDecide_NoneEligible(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	h.publish(t, "cost: \"candidate.price", "eligible: \"false\"\ncost: \"candidate.price")
	a := h.decide(t, "1", "")
	row := must[audit.DecisionRow](t)(h.log.FindDecision(context.Background(), "acme", a.DecisionID))
	if !strings.Contains(fmt.Sprint(a.Body["gates"]), "override") || !strings.Contains(string(row.Leaf), `"gates":["eligible"]`) {
		t.Fatalf("answer %v, leaf %s", a.Body["gates"], row.Leaf)
	}
}

// The leaf of a decision by the rules names them, their digest and their approval.
func TestDecide_LeafNamesTheRules(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	a := h.decide(t, "1", "")
	row := must[audit.DecisionRow](t)(h.log.FindDecision(ctx, "acme", a.DecisionID))
	rules := must[registry.Version](t)(h.models.Get(ctx, "acme", waybill.VersionRef{Name: "route-rules", Version: 1}))
	for _, want := range []string{`"ref":"route-rules@v1"`, rules.Digest, rules.Approvals[0].ID.String()} {
		if !strings.Contains(string(row.Leaf), want) {
			t.Errorf("the leaf lacks %s: %s", want, row.Leaf)
		}
	}
	if row.Model != "" {
		t.Errorf("a decision by the rules is found under model %s", row.Model)
	}
}

// A caller who leaves while a refresh is under way leaves the snapshot as it was.
func TestRefresh_CallerLeaves(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	ctx := context.Background()
	for i := range 40 {
		leaving, cancel := context.WithTimeout(ctx, time.Duration(200+i*100)*time.Microsecond)
		err := h.service.Refresh(leaving)
		cancel()
		if e := must[decision.Endpoint](t)(h.service.Endpoint("acme", "route")); !strings.HasPrefix(e.Serving, "late-risk@v1 answers; the rules") {
			t.Fatalf("after a refresh that ended with %v: %s", err, e.Serving)
		}
	}
}

// A large approved version that cannot be parsed is read once, and a revocation elsewhere does not wait for it.
func TestRefresh_BadModelHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	huge := h.upload(t, "huge", registry.LightGBM, "tree\n"+strings.Repeat("x=1111111111111111111111111111111\n", 2_500_000), waybill.VersionRef{Name: "route-risk", Version: 1})
	h.publish(t, "name: route\n", "name: route2\n", "late-risk@v1", "huge@v1")
	h.approve(t)
	must[registry.Version](t)(h.models.Approve(ctx, bob, huge.Ref(), huge.Digest, "not looked at"))
	must[registry.Version](t)(h.models.Revoke(ctx, bob, h.version.Ref(), "it was wrong"))
	start := time.Now()
	for h.decide(t, "1", "").Body["model"] != nil {
		if time.Since(start) > time.Second {
			t.Fatal("the revoked model still answers after a second")
		}
		time.Sleep(5 * time.Millisecond)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		e := must[decision.Endpoint](t)(h.service.Endpoint("acme", "route2"))
		if strings.HasPrefix(e.Serving, "the rules route-rules@v1 answer") && !strings.Contains(e.Serving, "being loaded") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("route2: %s", e.Serving)
		}
		time.Sleep(20 * time.Millisecond)
	}
	start = time.Now()
	if err := h.service.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("a refresh after that takes %v: the version is read again", took)
	}
}

// A new revision waits for its model: until that is in memory the old revision answers.
func TestPublish_ModelIsThereWhenTheRevisionIs(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	h.publish(t, "candidate.price + 100.0", "candidate.price + 101.0")
	if a := h.decide(t, "1", ""); a.Body["model"] != "late-risk@v1" || a.Body["endpoint"] != "route@v2" {
		t.Fatalf("answer: %v", a.Body)
	}
}

// What lies beside the log is shown only when it is what the leaf says.
func TestRecorded_ChangedRecord(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	h.approve(t)
	a := h.decide(t, "ORD-1", "key")
	if _, err := h.pool.Exec(ctx, "UPDATE audit.decision SET action = 'elsewhere'"); err == nil {
		t.Fatal("a record was changed without an error")
	}
	if _, err := h.pool.Exec(ctx, "ALTER TABLE audit.decision DISABLE TRIGGER decision_is_final"); err != nil { // somebody who owns the database
		t.Fatal(err)
	}
	if _, err := h.pool.Exec(ctx, "UPDATE audit.decision SET business_key = 'ORD-2'"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.service.Recorded(ctx, "acme", a.DecisionID); waybill.CodeOf(err) != waybill.Corrupt {
		t.Errorf("another business key: %v", err)
	}
	if _, err := h.pool.Exec(ctx, "UPDATE audit.decision SET business_key = 'ORD-1'"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.pool.Exec(ctx, "ALTER TABLE audit.entry DISABLE TRIGGER entry_is_final"); err != nil {
		t.Fatal(err)
	}
	for column, value := range map[string]string{"subject": "x", "type": "other", "tenant": "other"} {
		var was string
		if err := h.pool.QueryRow(ctx, "SELECT "+column+" FROM audit.entry WHERE seq = $1", a.Receipt.Index).Scan(&was); err != nil {
			t.Fatal(err)
		}
		for _, v := range []string{value, was} {
			if _, err := h.pool.Exec(ctx, "UPDATE audit.entry SET "+column+" = $2 WHERE seq = $1", a.Receipt.Index, v); err != nil {
				t.Fatal(err)
			}
			f, err := h.log.CheckRecords(ctx, a.Receipt.Size)
			if err != nil || f.OK != (v == was) || v != was && f.FirstBad != a.Receipt.Index {
				t.Errorf("%s = %s: %+v, %v", column, v, f, err)
			}
		}
	}
	for _, set := range []string{"action = 'elsewhere'", "payload = convert_to(replace(convert_from(payload, 'UTF8'), 'WH-NY-1', 'WH-XX-1'), 'UTF8')", "model_version = 7",
		"score = 0.123", "fallback = 'because'", "gates = '{none}'", "revision = 9", "decided_at = decided_at - interval '1 second'"} {
		var was string
		if err := h.pool.QueryRow(ctx, "SELECT row_to_json(d)::text FROM audit.decision d WHERE decision_id = $1", a.DecisionID).Scan(&was); err != nil {
			t.Fatal(err)
		}
		if tag, err := h.pool.Exec(ctx, "UPDATE audit.decision SET "+set+" WHERE decision_id = $1", a.DecisionID); err != nil || tag.RowsAffected() != 1 {
			t.Fatal(tag, err)
		}
		_, _, err := h.service.Recorded(ctx, "acme", a.DecisionID)
		_, replayErr := h.service.Replay(ctx, "acme", a.DecisionID)
		_, againErr := h.service.Decide(ctx, ann, decision.Request{Endpoint: "route", Body: order("ORD-1"), IdempotencyKey: "key", PolicyRev: 7})
		f, checkErr := h.log.CheckRecords(ctx, a.Receipt.Size)
		if waybill.CodeOf(err) != waybill.Corrupt || waybill.CodeOf(replayErr) != waybill.Corrupt || waybill.CodeOf(againErr) != waybill.Corrupt ||
			checkErr != nil || f.OK || f.FirstBad != a.Receipt.Index {
			t.Errorf("SET %s: shown %v, replayed %v, answered again %v, checked %+v %v", set, err, replayErr, againErr, f, checkErr)
		}
		if _, err := h.pool.Exec(ctx, "DELETE FROM audit.decision WHERE decision_id = $1", a.DecisionID); err != nil {
			t.Fatal(err)
		}
		if f, err := h.log.CheckRecords(ctx, a.Receipt.Size); err != nil || f.OK || f.FirstBad != a.Receipt.Index {
			t.Errorf("deleted: %+v, %v", f, err)
		}
		if _, err := h.pool.Exec(ctx, "INSERT INTO audit.decision SELECT * FROM json_populate_record(NULL::audit.decision, $1::json)", was); err != nil {
			t.Fatal(err)
		}
		if f, err := h.log.CheckRecords(ctx, a.Receipt.Size); err != nil || !f.OK {
			t.Fatalf("put back: %+v, %v", f, err)
		}
	}
}
