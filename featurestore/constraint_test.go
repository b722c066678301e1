package featurestore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

const constrained = `
kind: View
name: parcels
entity: {name: parcel, keys: [{name: parcel, type: string, pattern: "P[0-9]{3}"}]}
features:
  - {name: note, type: string, max_length: 5}
  - {name: band, type: string, values: [low, high]}
  - {name: postcode, type: string, pattern: "[A-Z]+|[0-9]+"}
  - {name: weight, type: float64, min: 0, max: 30}
  - {name: price, type: decimal, min: 0.01}
  - {name: seal, type: bytes, max_length: 3}
`

// What a column demands is demanded of every value, keys included, and the refusal says what is demanded.
func TestPush_HoldsValuesToTheirConstraints(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, constrained)
	stamp := b.now.Format(time.RFC3339)
	push := func(batch string, row map[string]any) error {
		_, err := b.store.Push(context.Background(), ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "parcels"}, BatchID: batch, Rows: []map[string]any{row}})
		return err
	}
	good := map[string]any{"parcel": "P001", "note": "fünf", "band": "low", "postcode": "ABC", "weight": 30.0, "price": "0.01", "seal": "QUJD", "event_time": stamp} // five bytes
	if err := push("good", good); err != nil {
		t.Fatal(err)
	}
	if err := push("null", map[string]any{"parcel": "P002", "event_time": stamp}); err != nil {
		t.Errorf("null is held to nothing: %v", err)
	}
	for _, c := range []struct {
		column string
		value  any
		want   string
	}{
		{"parcel", "P0011", "does not match P[0-9]{3}"}, {"parcel", "XP001", "does not match"}, {"parcel", "P001\n", "does not match"},
		{"note", "sixsix", "has 6 bytes; at most 5"}, {"band", "middle", "use one of low, high"},
		{"postcode", "ABC1", "does not match"}, {"postcode", "1ABC", "does not match"}, {"postcode", "", "does not match"},
		{"weight", 30.5, "outside 0 to 30"}, {"price", "0", "outside 0.01 to ∞"}, {"seal", "QUJDRA==", "has 4 bytes; at most 3"},
	} {
		row := map[string]any{}
		for k, v := range good {
			row[k] = v
		}
		row[c.column] = c.value
		if err := push("bad", row); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "rows[0]."+c.column) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %q: %v, want %s", c.column, c.value, err, c.want)
		}
	}
}

// A definition that no value could meet, or that means nothing for its type, is refused by name.
func TestParseDefinitions_HoldsConstraintsToTheirType(t *testing.T) {
	t.Parallel()
	const view = "kind: View\nname: v\ntags: {fetched: 2026-04-01T00:00:00Z, bad: yesterday}\nentity: {name: e, keys: [{name: k, type: string}]}\nfeatures:\n  - {name: x, type: float64}\n  - {name: at, type: timestamp}\n"
	for _, c := range []struct{ old, new, want string }{
		{"type: float64}", "type: float64, min: 2, max: 1}", "features[0].min"},
		{"type: float64}", "type: float64, min: .nan}", "features[0].min"},
		{"type: float64}", "type: float64, pattern: a}", "features[0].pattern"},
		{"type: float64}", "type: float64, values: [a]}", "features[0].values"},
		{"type: float64}", "type: float64, max_length: 3}", "features[0].max_length"},
		{"type: float64}", "type: string, min: 3}", "features[0].min"},
		{"type: float64}", "type: string, max_length: -1}", "features[0].max_length"},
		{"type: float64}", "type: string, max_length: 100000}", "features[0].max_length"},
		{"type: float64}", "type: string, pattern: \"a)|(b\"}", "features[0].pattern"},
		{"type: float64}", "type: string, pattern: \"(?<=a)b\"}", "features[0].pattern"},
		{"type: float64}", "type: string, pattern: \"" + strings.Repeat("a", 1001) + "\"}", "at most 1000"},
		{"type: float64}", "type: string, values: [" + strings.Repeat("a, ", 1001) + "]}", "features[0].values"},
		{"entity:", "external: {source: s}\nentity:", "external.license"},
		{"entity:", "external: {license: l}\nentity:", "external.source"},
		{"entity:", "external: {source: s, license: l}\nentity:", "external.fetch_time"},
		{"entity:", "external: {source: s, license: l, fetch_time: x}\nentity:", "no timestamp feature"},
		{"entity:", "external: {source: s, license: l, fetch_time: \"tag:bad\"}\nentity:", "must hold a time"},
		{"entity:", "external: {source: s, license: l, fetch_time: \"tag:none\"}\nentity:", "must hold a time"},
		{"entity:", "expressions: [{name: x, type: float64, expr: k}]\nentity:", "expressions[0].name"},
		{"entity:", "expressions: [{name: y, type: float64, expr: nothing}]\nentity:", "documents[0].expressions[0].expr"},
		{"entity:", "fallback: {view: v}\nentity:", "is the view itself"},
		{"entity:", "fallback: {view: Nope}\nentity:", "fallback.view"},
	} {
		if _, err := featurestore.ParseDefinitions([]byte(strings.Replace(view, c.old, c.new, 1))); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want invalid naming %s", c.new, err, c.want)
		}
	}
	for _, held := range []string{"at", "event_time", "\"tag:fetched\""} {
		if _, err := featurestore.ParseDefinitions([]byte(strings.Replace(view, "entity:", "external: {source: s, license: l, fetch_time: "+held+"}\nentity:", 1))); err != nil {
			t.Errorf("fetch time in %s: %v", held, err)
		}
	}
}
