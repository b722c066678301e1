package featurestore_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

func refs(t testing.TB, list ...string) []waybill.FeatureRef {
	t.Helper()
	out := make([]waybill.FeatureRef, len(list))
	for i, s := range list {
		var err error
		if out[i], err = waybill.ParseFeatureRef("features", s); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// A list of features reads what a service of the same features reads, in the list's order, fallbacks and expressions included.
func TestFeaturesReader_ReadsAsAService(t *testing.T) {
	t.Parallel()
	everywhere(t, featuresReaderReadsAsAService)
}

func featuresReaderReadsAsAService(t *testing.T, setup func(testing.TB, string) *bundle) {
	b := setup(t, chain)
	at := b.now.Format(time.RFC3339Nano)
	for i, row := range []map[string]any{{"sku": "a", "demand": 2.0, "stock": 6.0, "event_time": at}} {
		if err := b.pushTo("sku_load", fmt.Sprint(i), row); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.pushTo("category_load", "c", map[string]any{"category": "shoes", "demand": 4.0, "stock": 2.0, "event_time": at}); err != nil {
		t.Fatal(err)
	}
	r, err := b.store.FeaturesReader(context.Background(), "acme", refs(t, "sku_load:told", "sku_load:demand", "sku_load@v1:cover", "sku_load:note"))
	if err != nil {
		t.Fatal(err)
	}
	var inputs []string
	for _, c := range r.Inputs() {
		inputs = append(inputs, c.Name)
	}
	if got := strings.Join(inputs, " "); got != "sku category" { // the category by which new SKUs are read is an input, too
		t.Errorf("inputs %s", got)
	}
	for _, row := range []map[string]any{{"sku": "a", "category": "shoes"}, {"sku": "new", "category": "shoes"}, {"sku": "new"}, {"sku": "new", "category": "hats"}} {
		v, err := r.Read(context.Background(), b.now, []map[string]any{row})
		if err != nil {
			t.Fatal(err)
		}
		want := b.cells(t, "asked", b.now, map[string]any{"sku": row["sku"], "category": row["category"], "days": 1.0})
		for i, name := range []string{"told", "demand", "cover", "note"} {
			if c := v[0].Cells[i]; c.Name != name || !reflect.DeepEqual(c, want[name]) {
				t.Errorf("%v: %+v, not %+v", row, c, want[name])
			}
		}
	}
}

const twins = `
kind: View
name: one
entity: {name: thing, keys: [{name: thing, type: int64}]}
features: [{name: x, type: float64, sensitivity: secret}, {name: y, type: int64}]
---
kind: View
name: two
entity: {name: thing, keys: [{name: thing, type: int64}]}
features: [{name: x, type: string}]
---
kind: View
name: three
entity: {name: thing, keys: [{name: thing, type: string}]}
features: [{name: x, type: float64}]
`

// Features of one name in two views stay apart: their values, their types, and whether they are secret.
func TestFeaturesReader_TellsTwinsApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, twins)
	at := b.now.Format(time.RFC3339Nano)
	for view, row := range map[string]map[string]any{"one": {"thing": 7.0, "x": 0.5, "y": 3.0, "event_time": at}, "two": {"thing": 7.0, "x": "text", "event_time": at}} {
		if err := b.pushTo(view, "1", row); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	for _, c := range []struct {
		list   string
		want   []any
		secret string
	}{
		{"one:x two:x", []any{0.5, "text"}, "[{x [one]}]"},
		{"two:x one:x", []any{"text", 0.5}, "[{x [one]}]"},
		{"two:x one:y one:x one@v1:x", []any{"text", int64(3), 0.5, 0.5}, "[{x [one]} {x [one]}]"},
		{"two:x one:y", []any{"text", int64(3)}, "[]"},
	} {
		r, err := b.store.FeaturesReader(ctx, "acme", refs(t, strings.Fields(c.list)...))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Secrets()); got != c.secret {
			t.Errorf("%s: secrets %s, not %s", c.list, got, c.secret)
		}
		batch, err := r.Batch(1)
		if err != nil {
			t.Fatal(err)
		}
		batch.Set(0, 0, int64(7))
		if err := batch.Read(ctx, b.now); err != nil {
			t.Fatal(err)
		}
		v, err := r.Read(ctx, b.now, []map[string]any{{"thing": int64(7)}})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			var raw featurestore.Raw
			batch.Value(0, i, &raw)
			_, isText := want.(string)
			if v[0].Cells[i].Value != want || isText != (raw.Kind == featurestore.RawText) {
				t.Errorf("%s: output %d is %+v (%+v), not %v", c.list, i, v[0].Cells[i], raw, want)
			}
		}
		batch.Release()
	}
	for list, says := range map[string]string{"one:x three:x": "thing", "one:ghost": "no feature ghost", "ghost:x": "no view ghost", "one@v2:x": "one@v2", "": "1 to 1000"} {
		if _, err := b.store.FeaturesReader(ctx, "acme", refs(t, strings.Fields(list)...)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", list, err)
		}
	}
	if _, err := b.store.FeaturesReader(ctx, "other", refs(t, "one:x")); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
}

// The latest version is found within a second, a named one for ever; and what is kept is bounded.
func TestFeaturesReader_KeepsABoundedNumber(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, twins)
	ctx := context.Background()
	read := func(list ...string) *featurestore.Reader {
		t.Helper()
		r, err := b.store.FeaturesReader(ctx, "acme", refs(t, list...))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	latest, pinned := read("two:x"), read("two@v1:x")
	if read("two:x") != latest || read("two@v1:x") != pinned {
		t.Error("not kept")
	}
	b.apply(t, "kind: View\nname: two\nentity: {name: thing, keys: [{name: thing, type: int64}]}\nfeatures: [{name: x, type: bool}]\n")
	b.at(b.now.Add(2 * time.Second))
	if got := read("two:x").Outputs()[0].Type; got != featurestore.Bool {
		t.Errorf("the latest version gives %s", got)
	}
	if read("two@v1:x") != pinned {
		t.Error("a named version was compiled again")
	}
	var list []string
	for i := range 3 * featurestore.MaxAdhoc / 2 {
		list = list[:0]
		for bit := range 12 { // every list is another
			list = append(list, []string{"one@v1:x", "one@v1:y"}[i>>bit&1])
		}
		read(list...)
		if n := b.store.Adhoc(); n > featurestore.MaxAdhoc {
			t.Fatalf("%d are kept", n)
		}
	}
}
