package api_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/audit/evidence"
	"waybill/decision"
	"waybill/featurestore"
	"waybill/internal/access"
	"waybill/registry"
)

const staff = `
kind: View
name: staff
entity: {name: person, keys: [{name: person, type: int64}]}
features: [{name: salary, type: int64, sensitivity: secret, max: 1000}, {name: grade, type: int64}]
---
kind: View
name: plants
entity: {name: plant, keys: [{name: plant, type: int64}]}
features: [{name: rooms, type: int64}]
---
kind: Service
name: pay
inputs: [{name: person, type: int64}]
features: ["staff:salary", "staff:grade"]
---
kind: Service
name: grades
inputs: [{name: person, type: int64}]
features: ["staff:grade"]
`

// staffed is a hub with a secret column and a row in its view, and what makes tokens for roles.
func staffed(t *testing.T) (*hub, func(id string, scope []string, roles ...string) string) {
	t.Helper()
	h := setup(t)
	ctx := context.Background()
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(staff))), "test"))
	check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "staff"}, BatchID: "1",
		Rows: []map[string]any{{"person": 1.0, "salary": 543.0, "grade": 3.0, "event_time": "2026-01-01T00:00:00Z"}}}))
	return h, func(id string, scope []string, roles ...string) string {
		t.Helper()
		check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: id, Kind: waybill.Service}))
		for _, role := range roles {
			check[int64](t)(h.access.BindRole(ctx, h.ann, id, role))
		}
		_, text, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, id, time.Hour, scope)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// The statistics of a secret column are for tokens that are good for read_personal, and not only for accounts that are.
func TestTrainingSet_StatisticsOfSecretsTakeTheScope(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	set := check[featurestore.TrainingSet](t)(h.features.CreateTrainingSet(context.Background(), h.ann, featurestore.TrainingSetRequest{Name: "pay", Service: waybill.VersionRef{Name: "pay"},
		Format: featurestore.CSV, TimeColumn: "at", Cutoff: time.Now().Add(time.Hour), Spine: strings.NewReader("person,at\n1,2026-01-02T00:00:00Z\n")}))
	variants := check[featurestore.Build](t)(h.features.StartAblation(context.Background(), h.ann, set.Digest, []featurestore.AblationGroup{{Name: "grade", Features: []string{"grade"}}}))
	forged := strings.Repeat("a", 64) // a set whose statistics are other than it had when it was made
	if _, err := h.pool.Exec(context.Background(), `INSERT INTO featurestore.training_set SELECT (jsonb_populate_record(s, jsonb_build_object('digest', $1::text, 'name', 'forged',
		'columns', '[{"name": "grade", "type": "int64"}]'::jsonb))).* FROM featurestore.training_set s WHERE digest = $2`, forged, set.Digest); err != nil {
		t.Fatal(err)
	}
	differs := check[featurestore.Build](t)(h.features.StartRebuild(context.Background(), h.ann, forged))
	for _, c := range []struct {
		token string
		shown bool
	}{{token("all", nil, "compliance"), true}, {token("reads", []string{access.Read}, "compliance"), false}, {token("science", nil, "data-scientist"), false}} {
		for _, path := range []string{"/v1/training-sets", "/v1/training-sets/" + set.Digest} {
			code, res := h.call(t, "GET", path, c.token, "")
			if text := fmt.Sprint(res); code != 200 || !strings.Contains(text, "grade") || strings.Contains(text, "max:543") != c.shown { // digests and times have digits, too
				t.Errorf("%s: %d %s; want the salary shown: %t", path, code, text, c.shown)
			}
		}
		code, res := h.call(t, "GET", "/v1/training-set-builds/"+variants.ID.String(), c.token, "")
		if text := fmt.Sprint(res); code != 200 || !strings.Contains(text, "group:grade") || strings.Contains(text, "max:543") != c.shown {
			t.Errorf("%d %s; want the salary shown: %t", code, text, c.shown)
		}
		code, res = h.call(t, "GET", "/v1/training-set-builds/"+differs.ID.String(), c.token, "")
		if text := fmt.Sprint(res); code != 200 || !strings.Contains(text, "other bytes") || strings.Contains(text, "grade had") != c.shown {
			t.Errorf("%d %s; want the difference shown: %t", code, text, c.shown)
		}
	}
}

// Whoever may write a view looks at what was quarantined, but sees secret values only with the right to.
func TestQuarantine_HidesSecrets(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	writer := token("writer", nil, "data-scientist")
	if code, res := h.call(t, "POST", "/v1/views/staff:push", writer, `{"batch_id":"2","mode":"quarantine","rows":[
		{"person":2,"salary":7654,"grade":4,"event_time":"2026-01-01T00:00:00Z"},{"person":3,"salry":321,"grade":"high","event_time":"2026-01-01T00:00:00Z"}]}`); code != 200 {
		t.Fatalf("%d %v", code, res)
	}
	both := token("both", nil, "data-scientist", "compliance")
	for _, c := range []struct {
		token string
		shown bool
	}{{writer, false}, {both, true}} {
		code, res := h.call(t, "GET", "/v1/views/staff/quarantine", c.token, "")
		text := fmt.Sprint(res)
		if code != 200 || strings.Contains(text, "salary:7654") != c.shown || strings.Contains(text, "salry:321") != c.shown { // times have digits, too
			t.Errorf("%d %s; want secrets shown: %t", code, text, c.shown)
		}
		for _, plain := range []string{"grade:4", `the text "high"`, "field:salary", "field:salry", "2026-01-01"} {
			if !strings.Contains(text, plain) {
				t.Errorf("%s lacks %s", text, plain)
			}
		}
	}
}

// A read waits for views of its service alone: how far any other has come is not the caller's to know.
func TestOnline_WaitsForItsOwnViewsOnly(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	serving := token("serving", nil, "serving")
	read := func(least string) (int, string) {
		code, res := h.call(t, "POST", "/v1/services/grades:read", serving, `{"rows":[{"person":1}],"min_sequence":{`+least+`}}`)
		return code, fmt.Sprint(res)
	}
	for least, want := range map[string]string{`"plants":1`: "does not read; it reads staff@v1", `"ghosts":1`: "does not read", `"staff@v2":1`: "does not read"} {
		if code, text := read(least); code != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", least, code, text)
		}
	}
	// Another version is another log: the service reads the first, whatever the latest is.
	next := check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte("kind: View\nname: staff\nentity: {name: person, keys: [{name: person, type: int64}]}\nfeatures: [{name: grade, type: float64}]\n")))
	check[[]featurestore.Change](t)(h.features.Apply(context.Background(), h.ann, next, "test"))
	for _, least := range []string{`"staff":1`, `"staff@v1":1`} {
		if code, text := read(least); code != 200 || !strings.Contains(text, "value:3") {
			t.Errorf("%s: %d %s", least, code, text)
		}
	}
}

// The record of a decision by secret values is shown without them, and its bytes not at all, to whoever may read decisions
// and not what is personal in their views; the proof holds without the bytes.
func TestDecision_HidesSecrets(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	ctx := context.Background()
	hide := strings.NewReplacer("warehouse_load", "hidden_load", "route-risk", "hidden-risk", "queue, type: float64", "queue, type: float64, sensitivity: secret", "name: route\n", "name: hidden-route\n", "late-risk", "late-hidden")
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(hide.Replace(string(testdata(t, "features.yaml")))))), "hide"))
	check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "hidden_load"}, BatchID: "1",
		Rows: []map[string]any{{"warehouse": "WH-NY-1", "event_time": time.Now().UTC().Format(time.RFC3339Nano), "queue": 0.2173}}}))
	v := check[registry.Version](t)(h.models.CreateVersion(ctx, h.ann, registry.NewVersion{Model: "late-hidden", Format: registry.LightGBM, Entrypoint: "model", Automation: registry.SolelyAutomated}))
	check[registry.Artifact](t)(h.models.UploadArtifact(ctx, h.ann, v.Ref(), "model", bytes.NewReader(testdata(t, "late-risk"))))
	v = check[registry.Version](t)(h.models.Submit(ctx, h.ann, v.Ref()))
	check[registry.Version](t)(h.models.Approve(ctx, h.bob, v.Ref(), v.Digest, "looked at it"))
	if _, _, err := h.service.Publish(ctx, h.ann, []byte(hide.Replace(string(testdata(t, "endpoint.yaml")))), "go live"); err != nil {
		t.Fatal(err)
	}
	a := check[decision.Answer](t)(h.service.Decide(ctx, h.ann, decision.Request{Endpoint: "hidden-route", Body: map[string]any{"order_id": "ORD-1", "customer_lat": 40.7128, "customer_lng": -74.006,
		"deadline": time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339), "items": []any{map[string]any{"sku": "SKU-1", "qty": 1.0}}}}))
	for _, c := range []struct {
		token string
		sees  bool
	}{{token("reader", nil, "auditor"), false}, {token("officer", nil, "auditor", "compliance"), true}, {token("narrow", []string{"read"}, "auditor", "compliance"), false}} {
		code, w := h.call(t, "GET", "/v1/decisions/"+a.DecisionID.String(), c.token, "")
		if said := strings.Contains(fmt.Sprint(w), "0.2173"); code != 200 || said != c.sees || strings.Contains(fmt.Sprint(w), "HIDDEN") == c.sees || !strings.Contains(fmt.Sprint(w), "contribution") {
			t.Errorf("a reader who sees secrets %v got %d %v", c.sees, code, w)
		}
		code, p := h.call(t, "GET", "/v1/decisions/"+a.DecisionID.String()+"/proof", c.token, "")
		if leaf, _ := p["leaf"].(string); code != 200 || !strings.Contains(leaf, a.DecisionID.String()) || strings.Contains(fmt.Sprint(p["payload"]), "0.2173") != c.sees {
			t.Errorf("a reader who sees secrets %v got the proof %d %v", c.sees, code, p)
		}
		code, _, raw := h.evidence(t, "/v1/decisions/"+a.DecisionID.String()+"/evidence", c.token)
		if code != 200 {
			t.Fatalf("evidence: %d %s", code, raw)
		}
		if v, members := verified(t, raw, h.key); v.Payload != c.sees || strings.Contains(string(members[evidence.ReportFile]), "0.2173") != c.sees {
			t.Errorf("a reader who sees secrets %v got the bundle\n%s", c.sees, members[evidence.ReportFile])
		}
	}
}
