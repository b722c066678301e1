package featurestore_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill"
	"waybill/featurestore"
)

const valuesOfEveryType = `
kind: View
name: every_type
owner: ops@example.com
entity: {name: thing, keys: [{name: k, type: int64}]}
features:
  - {name: b, type: bool}
  - {name: i, type: int32}
  - {name: l, type: int64}
  - {name: f, type: float32}
  - {name: d, type: float64}
  - {name: s, type: string}
  - {name: t, type: timestamp}
  - {name: y, type: bytes}
  - {name: n, type: decimal}
  - {name: ls, type: list<string>}
  - {name: ld, type: list<float64>}
  - {name: lt, type: list<timestamp>}
  - {name: ln, type: list<decimal>}
  - {name: lb, type: list<bool>}
  - {name: ly, type: list<bytes>}
  - {name: v, type: vector<3>}
---
kind: Service
name: all-of-it
inputs: [{name: k, type: int64}]
features: ["every_type:b", "every_type:i", "every_type:l", "every_type:f", "every_type:d", "every_type:s", "every_type:t", "every_type:y", "every_type:n",
  "every_type:ls", "every_type:ld", "every_type:lt", "every_type:ln", "every_type:lb", "every_type:ly", "every_type:v"]
`

// What CSV says of a training set is what its Parquet file says, of every type.
func TestTrainingSet_CSVIsTheParquet(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, valuesOfEveryType)
	at := b.now.Format(time.RFC3339Nano)
	rows := []map[string]any{
		{"b": true, "i": math.MinInt32, "l": "9223372036854775807", "f": "3.4028235e38", "d": math.MaxFloat64, "s": "he said \"no\",\n\ttwice ☂", "t": "1999-12-31T23:59:59.999999Z",
			"y": "AAEC/w==", "n": "-12345678901234567890123456789.123456789", "ls": []any{"", "a,\"b\"\n", "☂"}, "ld": []any{0.1, -1e-300, 5.0},
			"lt": []any{"2026-04-01T00:00:00.000001Z"}, "ln": []any{"0.000000001", "7"}, "lb": []any{true, false}, "ly": []any{"/w==", ""}, "v": []any{0.1, -2.5, 3e-9}},
		{"b": false, "i": math.MaxInt32, "l": "-9223372036854775808", "f": 0.1, "d": 0.1, "s": "", "t": "2026-04-01T12:00:00Z", "y": "", "n": "0", "ls": []any{}, "ld": []any{},
			"lt": []any{}, "ln": []any{}, "lb": []any{}, "ly": []any{}, "v": []any{0.0, 1.0, -1.0}},
		{"d": 5e-324, "f": 1e-45, "s": " NULL "},
		{},
	}
	spine := "k,at,weight,note\n"
	var pushed []map[string]any
	for k, r := range rows {
		row := map[string]any{"k": float64(k), "event_time": at}
		for name, v := range r {
			if n, ok := v.(int); ok {
				v = float64(n)
			}
			row[name] = v
		}
		pushed = append(pushed, row)
	}
	if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "every_type"}, BatchID: "1", Rows: pushed}); err != nil {
		t.Fatal(err)
	}
	const many = 3000 // several batches
	for i := range many {
		spine += fmt.Sprintf("%d,%s,%v,\"line %d, \"\"quoted\"\"\"\n", i%5, at, 1/float64(i+3), i) // one key of five is nowhere
	}
	set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "x", Service: waybill.VersionRef{Name: "all-of-it"}, Format: featurestore.CSV, TimeColumn: "at",
		LabelColumn: "weight", Spine: strings.NewReader(spine)})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.store.WriteTrainingSetCSV(ctx, "acme", set.Digest, &out); err != nil {
		t.Fatal(err)
	}
	r, _, err := b.store.OpenTrainingSet(ctx, "acme", set.Digest)
	if err != nil {
		t.Fatal(err)
	}
	want, err := featurestore.ReadParquet(r)
	err = errors.Join(err, r.Close())
	if err != nil {
		t.Fatal(err)
	}
	// Empty text and null are told apart by the quotes, which a reader of CSV does not show.
	text := strings.ReplaceAll(out.String(), `,"",`, `,"(empty)",`)
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(lines) != many+1 || len(lines[0]) != len(set.Columns) {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	values := 0
	for c, col := range set.Columns {
		if lines[0][c] != col.Name {
			t.Fatalf("column %d is %s, not %s", c, lines[0][c], col.Name)
		}
		for i, line := range lines[1:] {
			var got any
			if cell := line[c]; cell != "" {
				if got, err = featurestore.Convert(col.Type, strings.TrimPrefix(cell, "(empty)")); err != nil {
					t.Fatalf("row %d, %s: %v", i, col.Name, err)
				}
				values++
			}
			w := want[col.Name][i]
			if w != nil { // what a reader of files gives, as the type has it
				if w, err = featurestore.Convert(col.Type, w); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(w, got); diff != "" {
				t.Fatalf("row %d, %s of %s: %s", i, col.Name, col.Type, diff)
			}
		}
	}
	if values < many*8 {
		t.Errorf("only %d values", values)
	}
	if line := strings.SplitN(out.String(), "\n", 2)[1]; !strings.Contains(line, `,1999-12-31T23:59:59.999999Z,"AAEC/w==",-12345678901234567890123456789.123456789,`) {
		t.Errorf("the first row is %s", line[:300])
	}
	full := errors.New("the disk is full")
	if err := b.store.WriteTrainingSetCSV(ctx, "acme", set.Digest, failing{full}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
	if err := b.store.WriteTrainingSetCSV(ctx, "other", set.Digest, io.Discard); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
