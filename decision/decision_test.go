package decision_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/featurestore"
	"waybill/internal/pgtest"
	"waybill/lineage"
	"waybill/registry"
)

const features = `
kind: View
name: warehouse_load
entity: {name: warehouse, keys: [{name: warehouse, type: string}]}
ttl: 6h
features: [{name: queue, type: float64}]
---
kind: Service
name: route-risk
inputs: [{name: warehouse, type: string}, {name: km, type: float64}]
features: ["warehouse_load@latest:queue"]
expressions: [{name: pressure, type: float64, expr: "queue * km"}]
outputs: [queue, km, pressure]
`

// A two-tree model over queue and pressure: late when the queue is long.
const model = `tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=binary sigmoid:1
feature_names=queue pressure
feature_infos=none none

Tree=0
num_leaves=2
num_cat=0
split_feature=0
threshold=0.5
decision_type=10
left_child=-1
right_child=-2
leaf_value=-1.5 1
leaf_count=60 40
internal_count=100

Tree=1
num_leaves=2
num_cat=0
split_feature=1
threshold=100
decision_type=10
left_child=-1
right_child=-2
leaf_value=-0.5 0.25
leaf_count=70 30
internal_count=100

end of trees
`

const rules = `
kind: rules
inputs: {km: double}
rules: [{name: far, when: "km > 1000.0", score: "0.7", reason: a long way}]
default: {score: "0.2", reason: nothing speaks against it}
`

const endpoint = `
kind: Endpoint
name: route
type: rank
request:
  - {name: order_id, type: string, required: true, max: 64}
  - {name: customer_lat, type: float, required: true, min: -90, max: 90}
  - {name: customer_lng, type: float, required: true, min: -180, max: 180}
  - {name: deadline, type: timestamp, required: true, future: true}
  - {name: country, type: string}
  - name: items
    type: list
    required: true
    fields: [{name: sku, type: string, required: true}, {name: qty, type: int, required: true, min: 1}]
business_key: order_id
candidates:
  - name: warehouses
    rows: [{warehouse: WH-NY-1, lat: 40.7, lng: -74.0}, {warehouse: WH-LA-1, lat: 34.05, lng: -118.24}]
  - name: carriers
    rows: [{carrier: CarrierX, service_level: TwoDay, price: 9}]
inputs:
  - {name: warehouse, expr: candidate.warehouse}
  - {name: km, expr: "distance_km(request.customer_lat, request.customer_lng, candidate.lat, candidate.lng)"}
service: route-risk
model: late-risk@v1
fallback: route-rules@v1
gates:
  - {name: export-control, stage: before, when: "has(request.country) && request.country == 'XX'", verdict: block, reason: the country is under embargo}
  - {name: too-risky, stage: after, when: "score > 0.9", verdict: fallback, reason: the model is out of its range}
cost: "candidate.price + 100.0 * score + 0.001 * features.km"
action: "candidate.warehouse + '/' + candidate.carrier + '/' + candidate.service_level"
answer:
  - {name: route_id, expr: "'R-' + decision_id"}
  - {name: warehouse, expr: candidate.warehouse}
  - {name: carrier, expr: candidate.carrier}
  - {name: service_level, expr: candidate.service_level}
outcomes: [{name: late, type: bool}]
`

var (
	ann = waybill.Actor{ID: "ann", Tenant: "acme", Kind: waybill.Person}
	bob = waybill.Actor{ID: "bob", Tenant: "acme", Kind: waybill.Person}
)

type hub struct {
	pool     *pgxpool.Pool
	features *featurestore.Store
	models   *registry.Store
	log      *audit.Log
	service  *decision.Service
	graph    *lineage.Graph
	version  registry.Version
}

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func setup(t testing.TB) *hub {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &hub{pool: pgtest.DB(t)}
	objects := pgtest.TestBucket(t)
	h.features = must[*featurestore.Store](t)(featurestore.Open(ctx, h.pool, objects, featurestore.Config{}))
	h.models = must[*registry.Store](t)(registry.Open(ctx, h.pool, objects, registry.Config{}))
	h.graph = must[*lineage.Graph](t)(lineage.Open(ctx, h.pool, lineage.Config{}))
	key, _, err := audit.GenerateKey("test.example/log/1")
	if err != nil {
		t.Fatal(err)
	}
	h.log = must[*audit.Log](t)(audit.Open(ctx, h.pool, audit.Config{LogID: 1, Origin: "test.example/log/1", SignerKey: key}))
	var running sync.WaitGroup
	running.Go(func() {
		if err := h.log.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	d := must[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(features)))
	must[[]featurestore.Change](t)(h.features.Apply(ctx, ann, d, "first"))
	now := time.Now().UTC().Format(time.RFC3339Nano)
	must[featurestore.Commit](t)(h.features.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: "1",
		Rows: []map[string]any{{"warehouse": "WH-NY-1", "event_time": now, "queue": 0.2}, {"warehouse": "WH-LA-1", "event_time": now, "queue": 0.9}}}))
	h.upload(t, "route-rules", registry.Rules, rules, waybill.VersionRef{})
	rulesRef := waybill.VersionRef{Name: "route-rules", Version: 1}
	must[registry.Version](t)(h.models.Approve(ctx, bob, rulesRef, must[registry.Version](t)(h.models.Get(ctx, "acme", rulesRef)).Digest, "the incumbent rules"))
	h.version = h.upload(t, "late-risk", registry.LightGBM, model, waybill.VersionRef{Name: "route-risk", Version: 1})
	h.service = must[*decision.Service](t)(decision.New(ctx, h.pool, h.features, h.models, h.log, decision.Config{}))
	if _, _, err := h.service.Publish(ctx, ann, []byte(endpoint), "go live"); err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		if err := h.service.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return h
}

func (h *hub) upload(t testing.TB, name string, format registry.Format, data string, service waybill.VersionRef) registry.Version {
	t.Helper()
	ctx := context.Background()
	v := must[registry.Version](t)(h.models.CreateVersion(ctx, ann, registry.NewVersion{Model: name, Format: format, Entrypoint: "model.txt", FeatureService: service, Automation: registry.SolelyAutomated}))
	must[registry.Artifact](t)(h.models.UploadArtifact(ctx, ann, v.Ref(), "model.txt", strings.NewReader(data)))
	return must[registry.Version](t)(h.models.Submit(ctx, ann, v.Ref()))
}

func (h *hub) approve(t testing.TB) {
	t.Helper()
	must[registry.Version](t)(h.models.Approve(context.Background(), bob, h.version.Ref(), h.version.Digest, "looked at it"))
	if err := h.service.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func order(id string) map[string]any {
	return map[string]any{"order_id": id, "customer_lat": 40.7128, "customer_lng": -74.006, "deadline": time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339),
		"items": []any{map[string]any{"sku": "SKU-1", "qty": 1.0}}}
}

func (h *hub) decide(t testing.TB, id, key string) decision.Answer {
	t.Helper()
	return must[decision.Answer](t)(h.service.Decide(context.Background(), ann, decision.Request{Endpoint: "route", Body: order(id), IdempotencyKey: key, PolicyRev: 7}))
}

// One decision through every part: the rules answer until someone else approves, then the model, with reasons, a
// receipt that verifies, a replay that is equal to the bit, and lineage; a revocation ends it within a second.
func TestDecide_FromRulesToModelAndBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)

	first := h.decide(t, "ORD-1", "")
	fallback, ok := first.Body["fallback"].(map[string]any)
	if !ok || !strings.Contains(fmt.Sprint(fallback["reason"]), "late-risk@v1 is submitted") || first.Body["model"] != nil {
		t.Fatalf("an unapproved model: %v", first.Body)
	}

	if _, err := h.models.Approve(ctx, ann, h.version.Ref(), h.version.Digest, "mine"); waybill.CodeOf(err) != waybill.Denied {
		t.Fatalf("the author approves: %v", err)
	}
	h.approve(t)
	a := h.decide(t, "ORD-123", "")
	if a.Body["model"] != "late-risk@v1" || a.Body["warehouse"] != "WH-NY-1" || a.Body["carrier"] != "CarrierX" || a.Body["service_level"] != "TwoDay" ||
		a.Body["route_id"] != "R-"+a.DecisionID.String() {
		t.Fatalf("answer: %v", a.Body)
	}
	explain, ok := a.Body["explain"].(map[string]any)
	if !ok || !strings.HasPrefix(fmt.Sprint(explain["features"]), "[queue:0.2") {
		t.Fatalf("explain: %v", a.Body["explain"])
	}
	row := must[audit.DecisionRow](t)(h.log.FindDecision(ctx, "acme", a.DecisionID))
	if err := audit.VerifyReceipt(h.log.VerifierKey(), row.Leaf, a.Receipt); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"policy_rev":7`, `"warehouse_load@v1":1`, h.version.Digest, `"endpoint":"route@v1"`} {
		if !strings.Contains(string(row.Leaf), want) {
			t.Errorf("the leaf lacks %s: %s", want, row.Leaf)
		}
	}
	_, rec, err := h.service.Recorded(ctx, "acme", a.DecisionID)
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for _, in := range rec.Inputs {
		sources[in.Name] = fmt.Sprint(in.Sources)
	}
	if sources["pressure"] != "[request warehouse_load@v1]" || sources["queue"] != "[]" {
		t.Errorf("what inputs were computed from: %v", sources)
	}
	if r := must[decision.Replay](t)(h.service.Replay(ctx, "acme", a.DecisionID)); !r.Equal {
		t.Errorf("replay: %+v", r)
	}
	up := must[lineage.Subgraph](t)(h.graph.Upstream(ctx, "acme", "endpoint:route@v1", lineage.Options{}))
	for _, want := range []string{"model:late-risk@v1", "service:route-risk@v1", "view:warehouse_load@v1", "commit:warehouse_load@v1/1", "actor:bob"} {
		if !strings.Contains(fmt.Sprint(up.Nodes), want) {
			t.Errorf("lineage lacks %s: %v", want, up.Nodes)
		}
	}

	must[registry.Version](t)(h.models.Revoke(ctx, bob, h.version.Ref(), "it was wrong"))
	deadline := time.Now().Add(time.Second)
	for h.decide(t, "ORD-2", "").Body["model"] != nil {
		if time.Now().After(deadline) {
			t.Fatal("the revoked model still answers after a second")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if f, err := audit.Verify(ctx, h.log, h.log.VerifierKey(), nil); err != nil || !f.OK {
		t.Fatalf("log: %+v, %v", f, err)
	}
}

func TestDecide_SameKeySameAnswer(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.approve(t)
	body := order("ORD-1")
	var wg sync.WaitGroup
	answers := make([]decision.Answer, 20)
	for i := range answers {
		wg.Go(func() {
			a, err := h.service.Decide(context.Background(), ann, decision.Request{Endpoint: "route", Body: body, IdempotencyKey: "k"})
			if err != nil {
				t.Error(err)
			}
			answers[i] = a
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a.DecisionID != answers[0].DecisionID || a.Receipt.Index != answers[0].Receipt.Index || a.Body["route_id"] != answers[0].Body["route_id"] {
			t.Fatalf("%v and %v", a, answers[0])
		}
	}
	_, err := h.service.Decide(context.Background(), ann, decision.Request{Endpoint: "route", Body: order("ORD-2"), IdempotencyKey: "k"})
	if waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("the same key for another order: %v", err)
	}
}

func TestDecide_BadInput(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	with := func(field string, v any) map[string]any {
		b := order("ORD-1")
		b[field] = v
		return b
	}
	for _, c := range []struct {
		name  string
		body  map[string]any
		field string
	}{
		{"UnknownField", with("colour", "red"), "colour"},
		{"WrongType", with("customer_lat", "north"), "customer_lat"},
		{"OutOfRange", with("customer_lat", 91.0), "customer_lat"},
		{"EmptyItems", with("items", []any{}), "items"},
		{"PastDeadline", with("deadline", "2020-01-01T00:00:00Z"), "deadline"},
		{"BadItem", with("items", []any{map[string]any{"sku": "A", "qty": 0.0}}), "items[0].qty"},
		{"Missing", map[string]any{}, "order_id"},
	} {
		_, err := h.service.Decide(ctx, ann, decision.Request{Endpoint: "route", Body: c.body})
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: %v, want invalid naming %s", c.name, err, c.field)
		}
	}
	if _, err := h.service.Decide(ctx, ann, decision.Request{Endpoint: "nowhere", Body: order("1")}); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("unknown endpoint: %v", err)
	}
	other := waybill.Actor{ID: "eve", Tenant: "other"}
	if _, err := h.service.Decide(ctx, other, decision.Request{Endpoint: "route", Body: order("1")}); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant's endpoint: %v", err)
	}
	rows, _, err := h.log.Search(ctx, "acme", audit.Query{})
	if err != nil || len(rows) != 0 {
		t.Errorf("%d decisions were logged for bad input, %v", len(rows), err)
	}
}

func TestDecide_GateBlocks(t *testing.T) {
	t.Parallel()
	h := setup(t)
	body := order("ORD-1")
	body["country"] = "XX"
	a := must[decision.Answer](t)(h.service.Decide(context.Background(), ann, decision.Request{Endpoint: "route", Body: body}))
	if a.Body["action"] != "blocked" || a.Body["warehouse"] != nil {
		t.Fatalf("answer: %v", a.Body)
	}
	rows, _, err := h.log.Search(context.Background(), "acme", audit.Query{Gate: "export-control", BusinessKey: "ORD-1"})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d blocked decisions found, %v", len(rows), err)
	}
}

func TestPublish_RefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for _, c := range []struct{ old, new, want string }{
		{"type: rank", "type: guess", "type"},
		{"candidate.warehouse + '/'", "candidate.warehouse +", "action"},
		{"{name: km, expr", "{name: miles, expr", "inputs"},
		{"model: late-risk@v1", "model: late-risk", "model"},
		{"model: late-risk@v1", "model: late-risk@v9", "late-risk"},
		{"fallback: route-rules@v1", "fallback: late-risk@v1", "fallback"},
		{"business_key: order_id", "business_key: country", "business_key"},
		{"verdict: block", "verdict: maybe", "verdict"},
		{"top", "top", ""},
	} {
		_, changed, err := h.service.Publish(context.Background(), ann, []byte(strings.Replace(endpoint, c.old, c.new, 1)), "x")
		if c.want == "" {
			if err != nil || changed {
				t.Errorf("the same document again: changed %v, %v", changed, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q → %q: %v, want it to name %s", c.old, c.new, err, c.want)
		}
	}
}

// What an answer says of a feature of the class secret, and of what is computed from it, is how much it weighed: the answer
// goes to callers who may not see the value. The record keeps it, for a replay.
func TestDecide_DoesNotTellSecrets(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	hide := strings.NewReplacer("warehouse_load", "hidden_load", "route-risk", "hidden-risk", "queue, type: float64", "queue, type: float64, sensitivity: secret", "name: route\n", "name: hidden-route\n", "late-risk", "late-hidden")
	must[[]featurestore.Change](t)(h.features.Apply(ctx, ann, must[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(hide.Replace(features)))), "hide"))
	must[featurestore.Commit](t)(h.features.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "hidden_load"}, BatchID: "1",
		Rows: []map[string]any{{"warehouse": "WH-NY-1", "event_time": time.Now().UTC().Format(time.RFC3339Nano), "queue": 0.2}}}))
	v := h.upload(t, "late-hidden", registry.LightGBM, model, waybill.VersionRef{Name: "hidden-risk", Version: 1})
	must[registry.Version](t)(h.models.Approve(ctx, bob, v.Ref(), v.Digest, "looked at it"))
	if _, _, err := h.service.Publish(ctx, ann, []byte(hide.Replace(endpoint)), "go live"); err != nil {
		t.Fatal(err)
	}
	a := must[decision.Answer](t)(h.service.Decide(ctx, ann, decision.Request{Endpoint: "hidden-route", Body: order("ORD-1")}))
	explain, ok := a.Body["explain"].(map[string]any)
	contributions, listed := explain["contributions"].([]any)
	if !ok || !listed || len(contributions) != 2 { // of queue and of pressure, which comes of it
		t.Fatalf("explain: %v", a.Body["explain"])
	}
	for i, c := range contributions {
		c, ok := c.(map[string]any)
		if !ok || c["value"] != nil || c["contribution"] == nil || explain["features"].([]any)[i] != decision.Unsaid(fmt.Sprint(c["feature"])) {
			t.Errorf("the answer says %v and %v", c, explain["features"])
		}
	}
	_, rec, err := h.service.Recorded(ctx, "acme", a.DecisionID)
	if err != nil || rec.Inputs[0].Name != "queue" || rec.Inputs[0].Value != 0.2 {
		t.Errorf("the record has %+v, %v", rec.Inputs, err)
	}
	if r := must[decision.Replay](t)(h.service.Replay(ctx, "acme", a.DecisionID)); !r.Equal {
		t.Errorf("replay: %+v", r)
	}
}
