package featurestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

// A new SKU is read by its category, and that by all; the category comes from the request, or from a feature of another view.
const chain = `
kind: View
name: all_load
entity: {name: scope, keys: [{name: scope, type: string}]}
features: [{name: demand, type: float64}, {name: stock, type: int64}]
---
kind: View
name: sku_load
entity: {name: sku, keys: [{name: sku, type: string}]}
ttl: 10s
features: [{name: demand, type: float64}, {name: stock, type: int64}, {name: note, type: string}]
expressions: [{name: cover, type: float64, expr: "double(coalesce(stock, 0)) / demand"}, {name: told, type: string, expr: "coalesce(note, 'none')"}]
fallback: {view: category_load}
---
kind: View
name: category_load
entity: {name: category, keys: [{name: category, type: string}]}
ttl: 20s
features: [{name: demand, type: float64}, {name: stock, type: int64}]
fallback: {view: all_load, keys: {scope: "'all'"}}
---
kind: View
name: sku_master
entity: {name: sku, keys: [{name: sku, type: string}]}
features: [{name: category, type: string}]
---
kind: Service
name: asked
inputs: [{name: sku, type: string}, {name: category, type: string}, {name: days, type: float64}]
features: [sku_load@latest:demand, sku_load@latest:cover, sku_load@latest:note, sku_load@latest:told]
expressions: [{name: total, type: float64, expr: "demand * days"}]
---
kind: Service
name: looked-up
inputs: [{name: sku, type: string}]
features: [sku_load@latest:demand, sku_load@latest:stock, sku_master@latest:category]
`

func chainSetup(t testing.TB) *bundle { t.Helper(); return inMemory(t, chain) }

func (b *bundle) pushTo(view, batch string, row map[string]any) error {
	_, err := b.store.Push(context.Background(), ann, featurestore.PushRequest{View: waybill.VersionRef{Name: view}, BatchID: batch, Rows: []map[string]any{row}})
	return err
}

func (b *bundle) cells(t testing.TB, service string, at time.Time, row map[string]any) map[string]featurestore.Cell {
	t.Helper()
	r, err := b.store.Reader(context.Background(), "acme", waybill.VersionRef{Name: service})
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(context.Background(), at, []map[string]any{row})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]featurestore.Cell{}
	for _, c := range v[0].Cells {
		out[c.Name] = c
	}
	return out
}

// readSet returns the columns of a training set.
func (b *bundle) readSet(t interface{ Fatal(args ...any) }, digest string) map[string][]any {
	r, _, err := b.store.OpenTrainingSet(context.Background(), "acme", digest)
	if err != nil {
		t.Fatal(err)
	}
	out, err := featurestore.ReadParquet(r)
	err = errors.Join(err, r.Close())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFallback_AlongTheChain follows one SKU from birth: all, then its category, then itself, and back when its row is too old.
func TestFallback_AlongTheChain(t *testing.T) {
	t.Parallel()
	everywhere(t, fallbackAlongTheChain)
}

func fallbackAlongTheChain(t *testing.T, setup func(testing.TB, string) *bundle) {
	b := setup(t, chain)
	at := b.now
	ask := map[string]any{"sku": "new", "category": "hats", "days": 2.0}
	expect := func(what string, status featurestore.Status, view string, demand, cover, total any) {
		t.Helper()
		c := b.cells(t, "asked", at, ask)
		name := c["demand"].View.String()
		if c["demand"].Status != status || c["demand"].Value != demand || name != view || c["cover"].Value != cover || c["total"].Value != total {
			t.Errorf("%s: demand %+v, cover %+v, total %+v; want %s %v of %s, cover %v, total %v", what, c["demand"], c["cover"], c["total"], status, demand, view, cover, total)
		}
		if note := c["note"]; status == featurestore.FellBack && (note.Status != featurestore.NotFound && note.Status != featurestore.OutsideMaxAge || note.Value != nil) {
			t.Errorf("%s: nothing stands in for the note: %+v", what, note)
		}
		if cs := c["cover"].Status; cs != status {
			t.Errorf("%s: the cover is %s, its row %s", what, cs, status)
		}
	}
	expect("nothing known", featurestore.NotFound, "sku_load@v1", nil, nil, nil)
	if told := b.cells(t, "asked", at, ask)["told"]; told.Status != featurestore.NotFound || told.Value != nil {
		t.Errorf("an expression of a row that is not there: %+v", told)
	}
	if err := b.pushTo("all_load", "1", map[string]any{"scope": "all", "demand": 1.0, "stock": 10.0, "event_time": at.Format(time.RFC3339)}); err != nil {
		t.Fatal(err)
	}
	expect("all", featurestore.FellBack, "all_load@v1", 1.0, 10.0, 2.0)
	if err := b.pushTo("category_load", "1", map[string]any{"category": "hats", "demand": 4.0, "stock": 20.0, "event_time": at.Format(time.RFC3339)}); err != nil {
		t.Fatal(err)
	}
	expect("category", featurestore.FellBack, "category_load@v1", 4.0, 5.0, 8.0)
	delete(ask, "category")
	expect("category unknown", featurestore.FellBack, "all_load@v1", 1.0, 10.0, 2.0)
	ask["category"] = "shoes"
	expect("category without a row", featurestore.FellBack, "all_load@v1", 1.0, 10.0, 2.0)
	ask["category"] = "hats"
	if err := b.pushTo("sku_load", "1", map[string]any{"sku": "new", "demand": 8.0, "stock": 16.0, "note": "x", "event_time": at.Format(time.RFC3339)}); err != nil {
		t.Fatal(err)
	}
	expect("its own", featurestore.Present, "sku_load@v1", 8.0, 2.0, 16.0)
	at = at.Add(10 * time.Second)
	expect("at the end of its time-to-live", featurestore.Present, "sku_load@v1", 8.0, 2.0, 16.0)
	at = at.Add(time.Microsecond)
	expect("too old", featurestore.FellBack, "category_load@v1", 4.0, 5.0, 8.0)
	at = at.Add(10 * time.Second)
	expect("the category's is too old", featurestore.FellBack, "all_load@v1", 1.0, 10.0, 2.0)

	// A null of the row that stands in is a null, and says whose.
	b.at(at)
	if err := b.pushTo("category_load", "2", map[string]any{"category": "hats", "demand": nil, "stock": 20.0, "event_time": at.Format(time.RFC3339Nano)}); err != nil {
		t.Fatal(err)
	}
	if c := b.cells(t, "asked", at, ask)["demand"]; c.Status != featurestore.NullValue || c.View.String() != "category_load@v1" || c.Seq != 2 {
		t.Errorf("null: %+v", c)
	}
	// The category of a feature.
	if c := b.cells(t, "looked-up", at, map[string]any{"sku": "new"}); c["stock"].Value != int64(10) || c["stock"].View.Name != "all_load" {
		t.Errorf("without a category: %+v", c["stock"])
	}
	if err := b.pushTo("sku_master", "1", map[string]any{"sku": "new", "category": "hats", "event_time": at.Format(time.RFC3339Nano)}); err != nil {
		t.Fatal(err)
	}
	if c := b.cells(t, "looked-up", at, map[string]any{"sku": "new"}); c["stock"].Value != int64(20) || c["stock"].Status != featurestore.FellBack || c["stock"].View.Name != "category_load" {
		t.Errorf("with the category of a feature: %+v", c["stock"])
	}
}

// TestFallback_SameInTrainingAndServing pushes random rows to every view of the chain and asks online in between. A training
// set whose rows are those questions, each at its time, gives the same values.
func TestFallback_SameInTrainingAndServing(t *testing.T) {
	t.Parallel()
	everywhere(t, fallbackSameInTrainingAndServing)
}

func fallbackSameInTrainingAndServing(t *testing.T, setup func(testing.TB, string) *bundle) {
	b := setup(t, chain)
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	spines := map[string]*strings.Builder{"asked": {}, "looked-up": {}}
	spines["asked"].WriteString("sku,event_time,category,days\n")
	spines["looked-up"].WriteString("sku,event_time\n")
	online := map[string][]map[string]featurestore.Cell{}
	statuses := map[featurestore.Status]int{}
	for n := range 150 {
		b.at(b.now.Add(time.Minute)) // no row of an earlier round is young enough, but those of all_load and sku_master
		for i := range rng.IntN(5) {
			view := pick("all_load", "category_load", "sku_load", "sku_load", "sku_master")
			if n < 20 && view == "all_load" {
				view = "category_load" // for a while nothing stands in at the end
			}
			row := map[string]any{"event_time": b.now.Add(-time.Duration(rng.IntN(25)) * time.Second).Format(time.RFC3339)}
			value := func(name string, v any) {
				if rng.IntN(4) > 0 {
					row[name] = v
				}
			}
			switch view {
			case "all_load":
				row["scope"] = "all"
			case "category_load":
				row["category"] = pick("a", "b")
			default:
				row["sku"] = pick("a", "b")
			}
			if view == "sku_master" {
				value("category", pick("a", "b"))
			} else {
				value("demand", float64(1+rng.IntN(9)))
				value("stock", float64(rng.IntN(9)))
			}
			if view == "sku_load" {
				value("note", "n")
			}
			if err := b.pushTo(view, fmt.Sprint(n, "/", i), row); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			sku, category, at := pick("a", "b", "c"), pick("a", "b", ""), b.now.Format(time.RFC3339)
			row := map[string]any{"sku": sku, "days": float64(i)}
			if category != "" {
				row["category"] = category
			}
			fmt.Fprintf(spines["asked"], "%s,%s,%s,%d\n", sku, at, category, i)
			fmt.Fprintf(spines["looked-up"], "%s,%s\n", sku, at)
			online["asked"] = append(online["asked"], b.cells(t, "asked", b.now, row))
			online["looked-up"] = append(online["looked-up"], b.cells(t, "looked-up", b.now, map[string]any{"sku": sku}))
		}
	}
	for service, spine := range spines {
		set, err := b.store.CreateTrainingSet(context.Background(), ann, featurestore.TrainingSetRequest{Name: "set", Service: waybill.VersionRef{Name: service}, Format: featurestore.CSV,
			TimeColumn: "event_time", Spine: strings.NewReader(spine.String())})
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Views) < 3 {
			t.Fatalf("the recipe lacks views that stand in: %v", set.Views)
		}
		columns := b.readSet(t, set.Digest)
		for i, cells := range online[service] {
			for name, c := range cells {
				statuses[c.Status]++
				if got := fmt.Sprint(columns[name][i]); got != fmt.Sprint(c.Value) {
					t.Errorf("%s, row %d: %s is %s in training and %v (%s of %s) online", service, i, name, got, c.Value, c.Status, c.View)
				}
			}
		}
		if r, err := b.store.RebuildTrainingSet(context.Background(), ann, set.Digest); err != nil || !r.Equal {
			t.Errorf("rebuild: %+v, %v", r, err)
		}
	}
	for _, s := range []featurestore.Status{featurestore.Present, featurestore.NullValue, featurestore.NotFound, featurestore.OutsideMaxAge, featurestore.FellBack} {
		if statuses[s] < 20 {
			t.Errorf("%s came %d times only: %v", s, statuses[s], statuses)
		}
	}
}

// Who sees which row stands in knows the key that found it; so a key that is made of a secret value is one, on every level
// after it too, although the service does not put the value out.
func TestFallback_TellsTheSecretsOfItsKeys(t *testing.T) {
	t.Parallel()
	b := chainSetup(t)
	b.apply(t, strings.NewReplacer("name: sku_master", "name: sku_secrets", "category, type: string}", "category, type: string, sensitivity: secret}, {name: colour, type: string}").
		Replace(`
kind: View
name: sku_master
entity: {name: sku, keys: [{name: sku, type: string}]}
features: [{name: category, type: string}]
`)+`
---
kind: Service
name: sly
inputs: [{name: sku, type: string}]
features: [sku_load@latest:demand, sku_load@latest:note, sku_load@latest:cover, sku_secrets@latest:category, sku_secrets@latest:colour]
expressions: [{name: more, type: float64, expr: "demand + 1.0"}]
outputs: [demand, note, cover, colour, more]
`)
	r, err := b.store.Reader(context.Background(), "acme", waybill.VersionRef{Name: "sly"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Secrets()); got != "[{demand [sku_secrets]} {cover [sku_secrets]} {more [sku_secrets]}]" {
		t.Errorf("secrets: %s", got)
	}
}

// What a fallback cannot be is said by field.
func TestFallback_Refuses(t *testing.T) {
	t.Parallel()
	b := chainSetup(t)
	const view = "kind: View\nname: v\nentity: {name: e, keys: [{name: k, type: string}, {name: n, type: int64}]}\nfeatures: [{name: demand, type: float64}]\n"
	for _, c := range []struct{ yaml, want string }{
		{view + "fallback: {view: nothing}", "there is no view nothing"},
		{view + "fallback: {view: all_load@v7}", "there is no view all_load@v7"},
		{strings.Replace(view, "demand, type: float64", "demand, type: int64", 1) + "fallback: {view: all_load}", "fallback.view: all_load@v1 has demand as float64"},
		{strings.Replace(view, "name: demand", "name: other", 1) + "fallback: {view: all_load}", "could stand in for none"},
		{view + "fallback: {view: all_load, keys: {colour: k}}", "fallback.keys.colour"},
		{view + "fallback: {view: all_load, keys: {scope: n}}", "fallback.keys.scope"},
		{view + "fallback: {view: all_load, keys: {scope: \"k + colour\"}}", "fallback.keys.scope"},
		{view + "fallback: {view: w}\n---\n" + strings.NewReplacer("name: v", "name: w").Replace(view) + "fallback: {view: x}\n---\n" + strings.NewReplacer("name: v", "name: x").Replace(view) + "fallback: {view: v}",
			"v → w → x → v"},
		{view + "fallback: {view: sku_load, keys: {sku: k}}\n---\n" + "kind: Service\nname: s\ninputs: [{name: k, type: string}, {name: n, type: int64}]\nfeatures: [v@latest:demand]", "lack category (string)"},
		{view + "fallback: {view: sku_load, keys: {sku: k}}\n---\n" + "kind: Service\nname: s\ninputs: [{name: k, type: string}, {name: n, type: int64}, {name: category, type: int64}]\nfeatures: [v@latest:demand]", "lack category (string)"},
		{strings.Replace(chain, "{name: scope, type: string}]}\n", "{name: scope, type: string}]}\nfallback: {view: sku_load, keys: {sku: scope}}\n", 1), "chain of fallbacks has an end"},
	} {
		d, err := featurestore.ParseDefinitions([]byte(c.yaml))
		if err == nil {
			_, err = b.store.Plan(context.Background(), ann, d)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s\n%s", err, c.want, c.yaml)
		}
	}
	// Too long a chain.
	var long strings.Builder
	for i := range 7 {
		if i > 0 {
			long.WriteString("---\n")
		}
		long.WriteString(strings.Replace(view, "name: v\n", fmt.Sprintf("name: v%d\n", i), 1))
		if i > 0 {
			fmt.Fprintf(&long, "fallback: {view: v%d}\n", i-1)
		}
	}
	d, err := featurestore.ParseDefinitions([]byte(long.String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Plan(context.Background(), ann, d); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "more than 5 views") {
		t.Errorf("%v", err)
	}
}
