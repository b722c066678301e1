package featurestore_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
)

const everyType = `
kind: View
name: everything
entity: {name: thing, keys: [{name: thing, type: bytes}, {name: price, type: decimal}]}
features:
  - {name: raw, type: bytes}
  - {name: amount, type: decimal, min: -1000}
  - {name: words, type: list<string>}
  - {name: numbers, type: list<float64>}
  - {name: counts, type: list<int64>}
  - {name: days, type: list<timestamp>}
  - {name: money, type: list<decimal>}
  - {name: embedding, type: vector<3>}
---
kind: Service
name: all
inputs: [{name: thing, type: bytes}, {name: price, type: decimal}]
features: ["everything:raw", "everything:amount", "everything:words", "everything:numbers", "everything:counts", "everything:days", "everything:money", "everything:embedding"]
expressions: [{name: doubled, type: float64, expr: "amount * 2.0 + double(size(words)) + numbers[0]"}]
`

// The same values come out of a push, a CSV file and a Parquet file, online and in a training set.
func TestTypes_AllWaysIn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, everyType)
	view := waybill.VersionRef{Name: "everything"}
	day := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	push := map[string]any{"thing": "AQI=", "price": "1.50", "event_time": day.Format(time.RFC3339), "raw": "/w==", "amount": "-12.340", "words": []any{"a", "", "é"},
		"numbers": []any{1.0, 0.5}, "counts": []any{"9007199254740993", 2.0}, "days": []any{"2026-01-01"}, "money": []any{"0.000000001", 3.0}, "embedding": []any{1.0, -2.5, 0.0}}
	if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: view, BatchID: "push", Rows: []map[string]any{push}}); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	if err := w.WriteAll([][]string{{"thing", "price", "event_time", "raw", "amount", "words", "numbers", "counts", "days", "money", "embedding"},
		{"AQM=", "1.5", "2026-04-01", "/w==", "-12.34", `["a","","é"]`, "[1,0.5]", "[9007199254740993,2]", `["2026-01-01T00:00:00Z"]`, `["0.000000001",3]`, "[1,-2.5,0]"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Ingest(ctx, ann, featurestore.IngestRequest{View: view, BatchID: "csv", Format: featurestore.CSV, Body: &text}); err != nil {
		t.Fatal(err)
	}
	dec := &arrow.Decimal128Type{Precision: 20, Scale: 9}
	file := arrowFile(t, []arrow.Field{{Name: "thing", Type: arrow.BinaryTypes.Binary}, {Name: "price", Type: &arrow.Decimal128Type{Precision: 5, Scale: 2}},
		{Name: "event_time", Type: arrow.FixedWidthTypes.Timestamp_us}, {Name: "raw", Type: arrow.BinaryTypes.Binary, Nullable: true}, {Name: "amount", Type: dec, Nullable: true},
		{Name: "words", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}, {Name: "numbers", Type: arrow.ListOf(arrow.PrimitiveTypes.Float64), Nullable: true},
		{Name: "counts", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true}, {Name: "days", Type: arrow.ListOf(arrow.FixedWidthTypes.Timestamp_us), Nullable: true},
		{Name: "money", Type: arrow.ListOf(dec), Nullable: true}, {Name: "embedding", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true}},
		func(r *array.RecordBuilder) {
			r.Field(0).(*array.BinaryBuilder).Append([]byte{1, 4})
			r.Field(1).(*array.Decimal128Builder).Append(decimal128.FromI64(150))
			r.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(day.UnixMicro()))
			r.Field(3).(*array.BinaryBuilder).Append([]byte{255})
			r.Field(4).(*array.Decimal128Builder).Append(decimal128.FromI64(-12_340_000_000))
			list := func(i int, fill func(b array.Builder)) {
				l := r.Field(i).(*array.ListBuilder)
				l.Append(true)
				fill(l.ValueBuilder())
			}
			list(5, func(b array.Builder) { b.(*array.StringBuilder).AppendValues([]string{"a", "", "é"}, nil) })
			list(6, func(b array.Builder) { b.(*array.Float64Builder).AppendValues([]float64{1, .5}, nil) })
			list(7, func(b array.Builder) { b.(*array.Int64Builder).AppendValues([]int64{9007199254740993, 2}, nil) })
			list(8, func(b array.Builder) {
				b.(*array.TimestampBuilder).Append(arrow.Timestamp(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()))
			})
			list(9, func(b array.Builder) {
				b.(*array.Decimal128Builder).Append(decimal128.FromI64(1))
				b.(*array.Decimal128Builder).Append(decimal128.FromI64(3_000_000_000))
			})
			list(10, func(b array.Builder) { b.(*array.Float32Builder).AppendValues([]float32{1, -2.5, 0}, nil) })
		})
	if _, err := b.store.Ingest(ctx, ann, featurestore.IngestRequest{View: view, BatchID: "parquet", Format: featurestore.Parquet, Body: bytes.NewReader(file)}); err != nil {
		t.Fatal(err)
	}
	want := []any{[]byte{255}, featurestore.Decimal("-12.34"), []any{"a", "", "é"}, []any{1.0, 0.5}, []any{int64(9007199254740993), int64(2)},
		[]any{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, []any{featurestore.Decimal("0.000000001"), featurestore.Decimal("3")}, []float32{1, -2.5, 0}, -24.68 + 3 + 1}
	for _, store := range []*featurestore.Store{b.store, b.open(t)} { // the second reads the log from its beginning
		if err := store.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := store.Reader(ctx, "acme", waybill.VersionRef{Name: "all"})
		if err != nil {
			t.Fatal(err)
		}
		for _, thing := range []string{"AQI=", "AQM=", "AQQ="} {
			v, err := r.Read(ctx, b.now, []map[string]any{{"thing": thing, "price": "1.5"}})
			if err != nil {
				t.Fatal(err)
			}
			var got []any
			for _, c := range v[0].Cells {
				got = append(got, c.Value)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", thing, d)
			}
		}
	}
	spine := "thing,price,event_time\nAQI=,1.5,2026-05-01\nAQM=,1.5,2026-05-01\nAQQ=,1.50,2026-05-01\n"
	set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "all", Service: waybill.VersionRef{Name: "all"}, Format: featurestore.CSV,
		TimeColumn: "event_time", Cutoff: b.now, Spine: bytes.NewReader([]byte(spine))})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range set.Columns {
		if c.Nulls != 0 {
			t.Errorf("%s has %d nulls", c.Name, c.Nulls)
		}
	}
	if again, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !again.Equal {
		t.Errorf("rebuilt: %+v, %v", again, err)
	}
}

// What does not fit is refused by name, and nothing is written.
// A time comes in as Go, Python, pandas and Postgres write it, and means the same instant.
func TestTypes_Times(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := time.Date(2026, 3, 1, 12, 30, 0, 250_000_000, time.UTC)
	for i, text := range []string{"2026-03-01T12:30:00.25Z", "2026-03-01T14:30:00.250000+02:00", "2026-03-01 12:30:00.250000+00:00", "2026-03-01 14:30:00.25+02:00", "2026-03-01 12:30:00.250", "2026-03-01T12:30:00.25"} {
		c, err := b.push(fmt.Sprint(i), map[string]any{"warehouse": "WH-1", "event_time": text, "queue": 1.0})
		if err != nil || !c.MinEvent.Equal(want) {
			t.Errorf("%s: %s, %v", text, c.MinEvent, err)
		}
	}
}

// U+0000 is no text, whatever way it comes: no request can hold it, so a row whose key had it would never be found again.
func TestTypes_NoZeroCharacter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, everyType)
	b.apply(t, "kind: View\nname: notes\nentity: {name: warehouse, keys: [{name: warehouse, type: string}]}\nfeatures: [{name: note, type: string}]\n")
	const head, at = "warehouse,event_time\n", ",2026-04-01T11:00:00Z\n"
	notes := waybill.VersionRef{Name: "notes"}
	file := func(format, body string, mode featurestore.Mode) (featurestore.Commit, error) {
		return b.store.Ingest(ctx, ann, featurestore.IngestRequest{View: notes, BatchID: "b", Format: format, Body: strings.NewReader(body), Mode: mode})
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "warehouse", Type: arrow.BinaryTypes.String}, {Name: "event_time", Type: arrow.FixedWidthTypes.Timestamp_us}}, nil)
	fill := func(r *array.RecordBuilder) {
		r.Field(0).(*array.StringBuilder).AppendValues([]string{"W1", "W\x001"}, nil)
		r.Field(1).(*array.TimestampBuilder).AppendValues([]arrow.Timestamp{0, 0}, nil)
	}
	for name, c := range map[string]struct {
		write func() (featurestore.Commit, error)
		field string
	}{
		"CSV key":   {func() (featurestore.Commit, error) { return file(featurestore.CSV, head+"W1"+at+"W\x002"+at, "") }, "line 3, warehouse"},
		"CSV value": {func() (featurestore.Commit, error) { return file(featurestore.CSV, "note,"+head+"a\x00,W1"+at, "") }, "line 2, note"},
		"Parquet key": {func() (featurestore.Commit, error) {
			return file(featurestore.Parquet, string(arrowFile(t, schema.Fields(), fill)), "")
		}, "row 2, warehouse"},
		"Arrow key": {func() (featurestore.Commit, error) {
			return b.store.IngestArrow(ctx, ann, featurestore.IngestRequest{View: notes, BatchID: "b"}, sent(batches(t, schema, 1, func(_ int, r *array.RecordBuilder) { fill(r) }), io.EOF))
		}, "row 2, warehouse"},
		"Push key": {func() (featurestore.Commit, error) {
			return b.store.Push(ctx, ann, featurestore.PushRequest{View: notes, BatchID: "b", Rows: []map[string]any{{"warehouse": "\x00", "event_time": "2026-04-01"}}})
		}, "rows[0].warehouse"},
		"Push list": {func() (featurestore.Commit, error) {
			return b.store.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "everything"}, BatchID: "b",
				Rows: []map[string]any{{"thing": "AQ==", "price": "1", "event_time": "2026-04-01", "words": []any{"a", "\x00"}}}})
		}, "rows[0].words"},
	} {
		if got, err := c.write(); waybill.CodeOf(err) != waybill.Invalid {
			t.Errorf("%s: %+v, %v", name, got, err)
		} else if text := err.Error(); !strings.Contains(text, c.field) || !strings.Contains(text, "U+0000") {
			t.Errorf("%s: %s, want it to name %s and U+0000", name, text, c.field)
		}
	}
	// In mode quarantine such a row waits where it can be seen, and the others are taken.
	if c, err := file(featurestore.CSV, head+"W1"+at+"W\x002"+at, featurestore.Quarantine); err != nil || c.Rows != 1 || c.Quarantined != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if held, _, err := b.store.Quarantined(ctx, "acme", notes, "", featurestore.Page{}); err != nil || len(held) != 1 || !strings.Contains(string(held[0].Values), `W\u00002`) {
		t.Errorf("%+v, %v", held, err)
	}
	// To ask for such a key is refused in the same words, whatever way the question comes.
	r, err := b.store.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(ctx, b.now, []map[string]any{{"warehouse": "W\x002", "km": 1.0}}); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "U+0000") {
		t.Errorf("asked for: %v", err)
	}
}

func TestTypes_Refused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, everyType)
	for field, bad := range map[string][]any{
		"raw":       {"no base64!", 1.0, []any{}},
		"amount":    {"1e3", "1.0000000001", "123456789012345678901234567890", "", ".5", "5.", "--1", "-1001", true},
		"words":     {"a", []any{1.0}, []any{nil}, map[string]any{}},
		"numbers":   {[]any{"x"}, []any{"NaN"}, []any{"Inf"}, "[1", "[1] 2", `{"a":1}`, "null"},
		"counts":    {[]any{0.5}, []any{[]any{}}},
		"embedding": {[]any{1.0, 2.0}, []any{1.0, 2.0, "NaN"}, []any{1.0, 2.0, 1e300}, "[1,2,3,4]"},
	} {
		for _, v := range bad {
			_, err := b.store.Push(context.Background(), ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "everything"}, BatchID: "b",
				Rows: []map[string]any{{"thing": "AQ==", "price": "1", "event_time": "2026-04-01", field: v}}})
			if waybill.CodeOf(err) != waybill.Invalid || !bytes.Contains([]byte(err.Error()), []byte("rows[0]."+field)) {
				t.Errorf("%s = %v: %v", field, v, err)
			}
		}
	}
	for _, typ := range []string{"list<>", "list<list<int64>>", "list<text>", "vector<0>", "vector<99999>", "vector<03>", "vector", "list", "vector<3", "decimal(3)"} {
		if _, err := featurestore.ParseDefinitions(fmt.Appendf(nil, "kind: View\nname: v\nentity: {name: e, keys: [{name: k, type: int64}]}\nfeatures: [{name: f, type: %q}]\n", typ)); err == nil {
			t.Errorf("the type %s is accepted", typ)
		}
	}
	if _, err := featurestore.ParseDefinitions([]byte("kind: View\nname: v\nentity: {name: e, keys: [{name: k, type: list<int64>}]}\nfeatures: [{name: f, type: bool}]\n")); err == nil {
		t.Error("a list is accepted as a join key")
	}
}

// A decimal's text is canonical: equal numbers are equal texts, whatever they were written like.
func TestDecimal_Canonical(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		whole, part := rapid.StringMatching(`[0-9]{1,29}`).Draw(t, "whole"), rapid.StringMatching(`[0-9]{0,9}`).Draw(t, "part")
		zeros := rapid.StringMatching(`0{0,5}`).Draw(t, "zeros")
		text := whole
		if part+zeros != "" {
			text += "." + part + zeros
		}
		a, err := featurestore.ParseDecimal(text)
		if err != nil {
			t.Fatal(err)
		}
		padded := "000" + whole + "." + part + "0"
		c, err := featurestore.ParseDecimal(padded)
		if err != nil || a != c {
			t.Fatalf("%s is %s, %s is %s (%v)", text, a, padded, c, err)
		}
		if d, err := featurestore.ParseDecimal(string(a)); err != nil || d != a {
			t.Fatalf("%s again is %s, %v", a, d, err)
		}
	})
}
