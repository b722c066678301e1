package featurestore_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

const ablated = `
kind: View
name: weather
entity: {name: warehouse, keys: [{name: warehouse, type: string}]}
external: {source: a station, license: CC0, fetch_time: event_time}
features: [{name: rain, type: float64}, {name: wind, type: float64}]
---
kind: View
name: pair
entity: {name: pair, keys: [{name: warehouse, type: string}, {name: sku, type: int64}]}
features: [{name: stock, type: int64}]
---
kind: Service
name: both
inputs: [{name: warehouse, type: string}, {name: sku, type: int64}, {name: km, type: float64}]
features: ["weather:rain", "weather:wind", "warehouse_load:queue", "pair:stock"]
expressions:
  - {name: storm, type: float64, expr: "rain * wind"}
  - {name: far, type: bool, expr: "km > 100.0"}
`

func (b *bundle) both(t *testing.T, req featurestore.TrainingSetRequest) (featurestore.TrainingSet, error) {
	t.Helper()
	b.recipe(&req)
	return b.store.CreateTrainingSet(context.Background(), ann, req)
}

// recipe fills in what a training set of both views needs.
func (b *bundle) recipe(req *featurestore.TrainingSetRequest) {
	at := b.now.Format(time.RFC3339)
	if req.Spine == nil {
		req.Spine = strings.NewReader("warehouse,sku,km,at,late\nny,1,200," + at + ",1\nny,2,20," + at + ",0\nla,1,50," + at + ",0\n")
	}
	req.Name, req.Service, req.Format, req.TimeColumn, req.LabelColumn = "b", waybill.VersionRef{Name: "both"}, featurestore.CSV, "at", "late"
}

func (b *bundle) fillBoth(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	b.apply(t, ablated)
	at := b.now.Add(-time.Hour).Format(time.RFC3339)
	for view, rows := range map[string][]map[string]any{
		"weather": {{"warehouse": "ny", "event_time": at, "rain": 2.0, "wind": 3.0}, {"warehouse": "la", "event_time": at, "rain": 0.0, "wind": 1.0}},
		"pair":    {{"warehouse": "ny", "sku": 1.0, "event_time": at, "stock": 7.0}, {"warehouse": "la", "sku": 1.0, "event_time": at, "stock": 9.0}},
	} {
		if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: view}, BatchID: "1", Rows: rows}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.push("1", load("ny", b.now.Add(-time.Minute), 0.5)); err != nil {
		t.Fatal(err)
	}
}

func columnNames(set featurestore.TrainingSet) string {
	var names []string
	for _, c := range set.Columns {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

func TestAblate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.fillBoth(t)
	base, err := b.both(t, featurestore.TrainingSetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := columnNames(base); got != "warehouse sku km at late rain wind queue stock storm far" {
		t.Fatal(got)
	}
	a, err := b.store.AblateTrainingSet(ctx, ann, base.Digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"weather": "warehouse sku km at late queue stock far", "warehouse_load": "warehouse sku km at late rain wind stock storm far",
		"pair": "warehouse sku km at late rain wind queue storm far"}
	if len(a.Variants) != len(want) {
		t.Fatalf("%d variants", len(a.Variants))
	}
	for _, v := range a.Variants {
		if columnNames(v.TrainingSet) != want[v.Group] || v.Rows != base.Rows {
			t.Errorf("without %s: %s", v.Group, columnNames(v.TrainingSet))
		}
		if r, err := b.store.RebuildTrainingSet(ctx, ann, v.Digest); err != nil || !r.Equal {
			t.Errorf("without %s: %+v, %v", v.Group, r, err)
		}
		if again, err := b.both(t, featurestore.TrainingSetRequest{Without: v.Without}); err != nil || again.Digest != v.Digest {
			t.Errorf("asked for directly: %s, %v; want %s", again.Digest, err, v.Digest)
		}
	}
	var manifest struct {
		Base     string
		Variants []struct {
			Group, Digest string
			Without       []string
		}
	}
	if err := json.Unmarshal(a.Manifest, &manifest); err != nil || manifest.Base != base.Digest || len(manifest.Variants) != 3 || !slices.Equal(manifest.Variants[0].Without, []string{"rain", "wind", "storm"}) {
		t.Errorf("%s, %v", a.Manifest, err)
	}
	if again, err := b.store.AblateTrainingSet(ctx, ann, base.Digest, nil); err != nil || again.Digest != a.Digest {
		t.Errorf("again: %s, %v", again.Digest, err)
	}
	named, err := b.store.AblateTrainingSet(ctx, ann, base.Digest, []featurestore.AblationGroup{{Name: "supply", Features: []string{"pair:stock", "queue", "weather@v1:rain"}}})
	if err != nil || columnNames(named.Variants[0].TrainingSet) != "warehouse sku km at late wind far" {
		t.Errorf("%+v, %v", named, err)
	}
	all, err := b.store.AblateTrainingSet(ctx, ann, base.Digest, []featurestore.AblationGroup{{Name: "all", Features: []string{"rain", "wind", "queue", "stock"}}})
	if err != nil || columnNames(all.Variants[0].TrainingSet) != "warehouse sku km at late far" { // what the inputs alone are worth
		t.Errorf("%+v, %v", all, err)
	}
	for field, groups := range map[string][]featurestore.AblationGroup{
		"groups[0].name":        {{Name: "nothing"}},
		"groups[0].features[1]": {{Name: "x", Features: []string{"queue", "colour"}}},
		"groups[1].name":        {{Name: "pair"}, {Name: "pair"}},
	} {
		_, err := b.store.AblateTrainingSet(ctx, ann, base.Digest, groups)
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), field) {
			t.Errorf("%v, want invalid naming %s", err, field)
		}
	}
	if _, err := b.store.AblateTrainingSet(ctx, waybill.Actor{ID: "eve", Tenant: "other"}, base.Digest, nil); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
}

func TestTrainingSet_Options(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.fillBoth(t)
	// A column of the spine that is named like a feature is refused, unless the features have full names.
	at := b.now.Format(time.RFC3339)
	clash := "warehouse,sku,km,at,late,rain\nny,1,200," + at + ",1,heavy\n"
	if _, err := b.both(t, featurestore.TrainingSetRequest{Spine: strings.NewReader(clash)}); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "full names") {
		t.Errorf("%v", err)
	}
	full, err := b.both(t, featurestore.TrainingSetRequest{Spine: strings.NewReader(clash), FullNames: true})
	if err != nil || columnNames(full) != "warehouse sku km at late rain weather__rain weather__wind warehouse_load__queue pair__stock storm far" {
		t.Errorf("%s, %v", columnNames(full), err)
	}
	if r, err := b.store.RebuildTrainingSet(ctx, ann, full.Digest); err != nil || !r.Equal {
		t.Errorf("%+v, %v", r, err)
	}
	// What was learned after a row's own time counts within the delay: the rows were pushed at b.now.
	early := "warehouse,sku,km,at,late\nny,1,200," + b.now.Add(-time.Minute).Format(time.RFC3339) + ",1\n"
	for delay, nulls := range map[time.Duration]int64{0: 1, 59 * time.Second: 1, time.Minute: 0, time.Hour: 0} {
		set, err := b.both(t, featurestore.TrainingSetRequest{Spine: strings.NewReader(early), Delay: delay})
		if err != nil || set.Columns[5].Nulls != nulls {
			t.Errorf("delay %s: %+v, %v; want %d nulls", delay, set.Columns, err, nulls)
		}
	}
	for _, req := range []featurestore.TrainingSetRequest{{Delay: -1}, {Delay: 31 * 24 * time.Hour}, {Delay: 1, Cutoff: b.now}, {Without: []string{"colour"}}, {Without: []string{"km"}}, {Without: []string{"a\x00"}}} {
		if _, err := b.both(t, req); waybill.CodeOf(err) != waybill.Invalid {
			t.Errorf("%+v: %v", req, err)
		}
	}
	// The same recipe finds the finished result, and nothing is joined: the log need not be readable.
	set, err := b.both(t, featurestore.TrainingSetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.both(t, featurestore.TrainingSetRequest{}); err != nil || again.Digest != set.Digest || !again.CreatedAt.Equal(set.CreatedAt) {
		t.Errorf("%+v, %v", again, err)
	}
	// A cancelled one leaves nothing.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.store.CreateTrainingSet(gone, ann, featurestore.TrainingSetRequest{Name: "c", Service: waybill.VersionRef{Name: "both"}, Format: featurestore.CSV, TimeColumn: "at", Spine: strings.NewReader(early)}); err == nil {
		t.Error("a cancelled create succeeded")
	}
}
