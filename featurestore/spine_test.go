package featurestore_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/google/go-cmp/cmp"

	"waybill"
	"waybill/featurestore"
)

// spineFields are columns of a Parquet spine: what a recipe needs, and a column of its own of every type that is read.
func spineFields() []arrow.Field {
	fields := []arrow.Field{{Name: "warehouse", Type: arrow.BinaryTypes.String}, {Name: "km", Type: arrow.PrimitiveTypes.Float64}, {Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us},
		{Name: "late", Type: arrow.FixedWidthTypes.Boolean}}
	for _, t := range []arrow.DataType{arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32,
		arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64, arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String, arrow.BinaryTypes.Binary, arrow.FixedWidthTypes.Timestamp_ms,
		arrow.FixedWidthTypes.Date32, &arrow.Decimal128Type{Precision: 10, Scale: 2}, &arrow.Decimal128Type{Precision: 38, Scale: 12}, arrow.ListOf(arrow.PrimitiveTypes.Int64)} {
		fields = append(fields, arrow.Field{Name: t.String(), Type: t, Nullable: true})
	}
	return fields
}

// typedSpine is a spine of two rows, of which the second is null wherever it may be.
func typedSpine(t testing.TB, now time.Time) []byte {
	return arrowFile(t, spineFields(), func(r *array.RecordBuilder) {
		r.Field(0).(*array.StringBuilder).AppendValues([]string{"ny", "la"}, nil)
		r.Field(1).(*array.Float64Builder).AppendValues([]float64{2, 3}, nil)
		r.Field(2).(*array.TimestampBuilder).AppendValues([]arrow.Timestamp{arrow.Timestamp(now.UnixMicro()), arrow.Timestamp(now.UnixMicro())}, nil)
		r.Field(3).(*array.BooleanBuilder).AppendValues([]bool{true, false}, nil)
		r.Field(4).(*array.Int8Builder).Append(-8)
		r.Field(5).(*array.Int32Builder).Append(-32)
		r.Field(6).(*array.Int64Builder).Append(9007199254740993)
		r.Field(7).(*array.Uint16Builder).Append(65535)
		r.Field(8).(*array.Uint32Builder).Append(4294967295)
		r.Field(9).(*array.Float32Builder).Append(0.1)
		r.Field(10).(*array.Float64Builder).Append(0.1)
		r.Field(11).(*array.BooleanBuilder).Append(true)
		r.Field(12).(*array.StringBuilder).Append("é\x00")
		r.Field(13).(*array.BinaryBuilder).Append([]byte{0, 255})
		r.Field(14).(*array.TimestampBuilder).Append(arrow.Timestamp(1_775_000_000_123))
		r.Field(15).(*array.Date32Builder).Append(20_000)
		r.Field(16).(*array.Decimal128Builder).Append(decimal128.FromI64(-1250))
		r.Field(17).(*array.Decimal128Builder).Append(decimal128.FromI64(1_000_000_000_001))
		r.Field(18).(*array.ListBuilder).Append(true)
		r.Field(18).(*array.ListBuilder).ValueBuilder().(*array.Int64Builder).AppendValues([]int64{1, 2}, nil)
		for i := 4; i <= 18; i++ {
			r.Field(i).AppendNull()
		}
	})
}

func (b *bundle) typedRecipe(t testing.TB) featurestore.TrainingSetRequest {
	return featurestore.TrainingSetRequest{Name: "typed", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.Parquet, TimeColumn: "at", LabelColumn: "late",
		Spine: bytes.NewReader(typedSpine(t, b.now))}
}

// Columns of the spine's own keep their type on all ways out. A decimal of more digits than ours is text.
func TestTrainingSet_SpineKeepsItsTypes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	set, err := b.store.CreateTrainingSet(ctx, ann, b.typedRecipe(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		typ   featurestore.Type
		csv   string
		value any
	}{
		{featurestore.Int32, "-8", int64(-8)}, {featurestore.Int32, "-32", int64(-32)}, {featurestore.Int64, "9007199254740993", int64(9007199254740993)},
		{featurestore.Int32, "65535", int64(65535)}, {featurestore.Int64, "4294967295", int64(4294967295)}, {featurestore.Float32, "0.1", float64(float32(0.1))},
		{featurestore.Float64, "0.1", 0.1}, {featurestore.Bool, "true", true}, {featurestore.String, "é\x00", "é\x00"}, {featurestore.Bytes, "AP8=", []byte{0, 255}},
		{featurestore.Timestamp, "2026-03-31T23:33:20.123000Z", time.UnixMilli(1_775_000_000_123).UTC()}, {featurestore.Timestamp, "2024-10-04T00:00:00.000000Z", time.Unix(20_000*86400, 0).UTC()},
		{featurestore.DecimalT, "-12.5", "-12.500000000"}, {featurestore.String, "1.000000000001", "1.000000000001"}, {"list<int64>", "[1,2]", []any{int64(1), int64(2)}},
	}
	r, _, err := b.store.OpenTrainingSet(ctx, "acme", set.Digest)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := featurestore.ReadParquet(r)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := b.store.WriteTrainingSetCSV(ctx, "acme", set.Digest, &text); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&text).ReadAll()
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	records := 0
	if err := b.store.TrainingSetRecords(ctx, "acme", set.Digest, func(rec arrow.Record) error { // what Flight sends
		records += int(rec.NumRows())
		for i, w := range want {
			field := rec.Schema().Field(4 + i)
			if rec.Column(4+i).IsNull(0) || rec.Column(4+i).IsValid(1) || !arrow.TypeEqual(field.Type, set.ArrowSchema().Field(4+i).Type) {
				t.Errorf("%s, kept as %s, is sent as %s: %s", field.Name, w.typ, field.Type, rec.Column(4+i))
			}
		}
		return nil
	}); err != nil || records != 2 {
		t.Fatal(records, err)
	}
	for i, w := range want {
		c := set.Columns[4+i]
		if got := columns[c.Name]; c.Type != w.typ || c.Nulls != 1 || len(got) != 2 || !cmp.Equal(got[0], w.value) || got[1] != nil {
			t.Errorf("%s is %s with %d nulls and the values %#v; want %s and %#v", c.Name, c.Type, c.Nulls, got, w.typ, w.value)
		}
		if got := lines[1][4+i]; got != w.csv || lines[2][4+i] != "" {
			t.Errorf("%s is %q and %q in CSV; want %q and nothing", c.Name, got, lines[2][4+i], w.csv)
		}
	}
	if again, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !again.Equal {
		t.Errorf("rebuilt: %+v, %v", again, err)
	}
}

// What a column of the spine's own cannot hold is refused by row and name, as in every column; NaN is null.
func TestTrainingSet_SpineValuesFit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	create := func(x float64) (featurestore.TrainingSet, error) {
		req := b.typedRecipe(t)
		req.LabelColumn = ""
		req.Spine = bytes.NewReader(arrowFile(t, append(spineFields()[:3], arrow.Field{Name: "note", Type: arrow.PrimitiveTypes.Float64}), func(r *array.RecordBuilder) {
			r.Field(0).(*array.StringBuilder).AppendValues([]string{"ny", "la"}, nil)
			r.Field(1).(*array.Float64Builder).AppendValues([]float64{2, 3}, nil)
			r.Field(2).(*array.TimestampBuilder).AppendValues([]arrow.Timestamp{arrow.Timestamp(b.now.UnixMicro()), arrow.Timestamp(b.now.UnixMicro())}, nil)
			r.Field(3).(*array.Float64Builder).AppendValues([]float64{1, x}, nil)
		}))
		return b.store.CreateTrainingSet(context.Background(), ann, req)
	}
	if set, err := create(math.NaN()); err != nil || set.Columns[3].Nulls != 1 || set.Columns[3].Max != 1 {
		t.Errorf("%+v, %v", set, err)
	}
	if _, err := create(math.Inf(1)); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "row 2, note") {
		t.Errorf("%v", err)
	}
}

// A recipe of a hub before gives the bytes that it gave there, whose digest was taken when that kernel was the newest; a set of
// it can be ablated still. When the Parquet library changes what it writes, this is where it shows.
func TestTrainingSet_OfTheKernelBefore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	if _, err := b.push("1", load("ny", b.now, 0.5)); err != nil {
		t.Fatal(err)
	}
	before, err := b.store.CreateBy(ctx, ann, b.typedRecipe(t), featurestore.TextKernel)
	if err != nil || before.Digest != "735567816b658840d67f46c3c1a76c049523e15b3df9296bbf540562ec6e2283" || before.Columns[6].Type != featurestore.String {
		t.Fatalf("%+v, %v", before, err)
	}
	if again, err := b.store.RebuildTrainingSet(ctx, ann, before.Digest); err != nil || !again.Equal {
		t.Errorf("rebuilt: %+v, %v", again, err)
	}
	if a, err := b.store.AblateTrainingSet(ctx, ann, before.Digest, nil); err != nil || len(a.Variants) != 1 || a.Variants[0].Kernel != before.Kernel {
		t.Errorf("%+v, %v", a, err)
	}
	now, err := b.store.CreateTrainingSet(ctx, ann, b.typedRecipe(t))
	if err != nil || now.Digest == before.Digest || now.Kernel == before.Kernel || now.Columns[6].Type != featurestore.Int64 {
		t.Errorf("the same recipe now: %+v, %v", now, err)
	}
	// U+0000 was text to the kernel before, and no later hub refuses what that took.
	zero := b.request("warehouse,km,at,late\nn\x00y,2," + b.now.Format(time.RFC3339) + ",1\n")
	if set, err := b.store.CreateBy(ctx, ann, zero, featurestore.TextKernel); err != nil {
		t.Error(err)
	} else if again, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !again.Equal {
		t.Errorf("rebuilt: %+v, %v", again, err)
	}
}
