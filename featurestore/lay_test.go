package featurestore

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"pgregory.net/rapid"

	"waybill"
)

// drawArray draws a column as a file or a stream may have it, of mostly harmless values.
func drawArray(t *rapid.T, rows int) arrow.Array {
	kinds := []arrow.DataType{arrow.PrimitiveTypes.Float64, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Uint8,
		arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String, arrow.BinaryTypes.Binary, arrow.FixedWidthTypes.Timestamp_s, arrow.FixedWidthTypes.Timestamp_ms, arrow.FixedWidthTypes.Timestamp_us,
		arrow.FixedWidthTypes.Timestamp_ns, arrow.FixedWidthTypes.Date32, &arrow.Decimal128Type{Precision: 38, Scale: 9}, &arrow.Decimal128Type{Precision: 10, Scale: 2},
		arrow.ListOf(arrow.PrimitiveTypes.Float32), arrow.ListOf(arrow.BinaryTypes.String)}
	b := array.NewBuilder(memory.DefaultAllocator, rapid.SampledFrom(kinds).Draw(t, "kind"))
	defer b.Release()
	nulls, odd := rapid.Bool().Draw(t, "nulls"), rapid.Bool().Draw(t, "odd values")
	for range rows {
		if nulls && rapid.IntRange(0, 3).Draw(t, "null") == 0 {
			b.AppendNull()
		} else {
			drawInto(t, b, odd)
		}
	}
	a := b.NewArray()
	if from := rapid.IntRange(0, rows).Draw(t, "cut"); rapid.Bool().Draw(t, "slice") { // as a part of a longer one
		return array.NewSlice(a, int64(from), int64(rows))
	}
	return a
}

func drawInto(t *rapid.T, b array.Builder, odd bool) {
	wholes := []int64{0, 1, 5, -3}
	reals := []float64{0, 1, 0.5, -2.25}
	texts := []string{"a", "bb", "7", "0.5", "true", "2026-04-01"}
	if odd {
		wholes = append(wholes, math.MaxInt64, math.MinInt64, 1<<53, 1<<40, 200)
		reals = append(reals, math.NaN(), math.Inf(1), math.Inf(-1), 1e300, -1e300, 1<<53, math.Copysign(0, -1))
		texts = append(texts, "", "\xff", "a\x00", "1e999", "NaN", "inf", "[1, 2]", "1899-12-31", "2201-01-01", "ccc", "YWJj")
	}
	switch b := b.(type) {
	case *array.Float64Builder:
		b.Append(rapid.SampledFrom(reals).Draw(t, "x"))
	case *array.Float32Builder:
		b.Append(float32(rapid.SampledFrom(reals).Draw(t, "x")))
	case *array.Int64Builder:
		b.Append(rapid.SampledFrom(wholes).Draw(t, "x"))
	case *array.Int32Builder:
		b.Append(int32(rapid.SampledFrom(wholes).Draw(t, "x")))
	case *array.Uint8Builder:
		b.Append(uint8(rapid.SampledFrom(wholes).Draw(t, "x")))
	case *array.BooleanBuilder:
		b.Append(rapid.Bool().Draw(t, "x"))
	case *array.StringBuilder:
		b.Append(rapid.SampledFrom(texts).Draw(t, "x"))
	case *array.BinaryBuilder:
		b.Append([]byte(rapid.SampledFrom(texts).Draw(t, "x")))
	case *array.Date32Builder:
		b.Append(arrow.Date32(rapid.SampledFrom(wholes).Draw(t, "x")))
	case *array.Decimal128Builder:
		b.Append(decimal128.New(rapid.SampledFrom(wholes[:4]).Draw(t, "high"), uint64(rapid.SampledFrom(wholes).Draw(t, "low"))))
	case *array.TimestampBuilder:
		at := rapid.SampledFrom([]time.Time{time.Unix(0, 0), time.Unix(1_775_000_000, 123_456_789), time.Unix(-1, 999_999_999)}).Draw(t, "x")
		v, err := arrow.TimestampFromTime(at, b.Type().(*arrow.TimestampType).Unit)
		if err != nil {
			t.Fatal(err)
		}
		if odd && rapid.Bool().Draw(t, "odd") {
			v = arrow.Timestamp(rapid.SampledFrom(append(wholes, -2_208_988_800, -2_208_988_801, 7_289_654_400, 7_289_654_399)).Draw(t, "v"))
		}
		b.Append(v)
	case *array.ListBuilder:
		b.Append(true)
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			drawInto(t, b.ValueBuilder(), odd)
		}
	default:
		t.Fatalf("%T", b)
	}
}

// drawColumn draws a column of a view.
func drawColumn(t *rapid.T, name string) Column {
	c := Column{Name: name, Type: rapid.SampledFrom([]Type{Bool, Int32, Int64, Float32, Float64, String, Bytes, Timestamp, DecimalT, "list<float64>", "list<string>", "vector<2>"}).Draw(t, "type"),
		Required: rapid.Bool().Draw(t, "required")}
	switch c.Type {
	case Int32, Int64, Float32, Float64, DecimalT:
		bound := func(name string, x float64) *float64 {
			if rapid.Bool().Draw(t, name) {
				return &x
			}
			return nil
		}
		c.Min, c.Max = bound("min", -2.5), bound("max", 4)
	case String:
		if rapid.Bool().Draw(t, "values") {
			c.Values = []string{"a", "bb", "7"}
		}
		if rapid.Bool().Draw(t, "pattern") {
			c.Pattern = &Pattern{}
			if err := c.Pattern.UnmarshalText([]byte("[ab]*")); err != nil {
				t.Fatal(err)
			}
		}
		c.MaxLength = rapid.SampledFrom([]int{0, 2}).Draw(t, "length")
	case Bytes:
		c.MaxLength = rapid.SampledFrom([]int{0, 2}).Draw(t, "length")
	default:
	}
	return c
}

// A column that is laid out at once has what its cells have that are typed one by one, and is refused if and only if one of
// these is.
func TestLay_EqualsTyped(t *testing.T) {
	t.Parallel()
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		c := drawColumn(t, "c")
		a := drawArray(t, rapid.IntRange(1, 8).Draw(t, "rows"))
		p, err := newPiece(0, a.Len(), []arrow.Array{a}, nil, rowLine(0))
		if err != nil {
			t.Fatal(err)
		}
		want, bad := make([]any, a.Len()), false
		for i := range want {
			x, err := typed(c, p.cell(i, 0))
			want[i], bad = x, bad || err != nil
		}
		got := lay(&c, p, 0)
		if got != nil && c.Required && got.NullN() > 0 {
			got = nil
		}
		if (got == nil) != bad {
			t.Fatalf("a column of %s from %v: bad %t, laid out %v", c.Type, a, bad, got)
		}
		if bad {
			return
		}
		taken++
		if !arrow.TypeEqual(got.DataType(), arrowType(c.Type)) {
			t.Fatalf("a %s became %s", c.Type, got.DataType())
		}
		at := appenderOf(c.Type, got)
		for i, w := range want {
			x, err := valueAt(c.Type, got, i)
			if err != nil || !reflect.DeepEqual(plainValue(x), plainValue(w)) {
				t.Fatalf("cell %d of %v as %s is %#v, not %#v: %v", i, a, c.Type, x, w, err)
			}
			if b := at(nil, i); !bytes.Equal(b, appendKey(nil, w)) {
				t.Fatalf("cell %d is digested as %x", i, b)
			}
		}
	})
	if taken < 10 {
		t.Errorf("only %d columns were good: the test says nothing", taken)
	}
}

// plainValue makes an empty list and no list of elements the same, and −0 and 0 different.
func plainValue(v any) string {
	return fmt.Sprintf("%T %v %x", v, v, appendKey(nil, v))
}

// The rows of columns are packed and digested as rows are that were typed one by one.
func TestPacker_EqualsPack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := &View{Entity: Entity{Keys: []Column{{Name: "k0", Type: rapid.SampledFrom([]Type{String, Int64, Bool, Timestamp, DecimalT}).Draw(t, "key")}, {Name: "k1", Type: Int32}}}}
		for i := range rapid.IntRange(1, 10).Draw(t, "features") {
			c := drawColumn(t, fmt.Sprint("f", i))
			v.Features = append(v.Features, Column{Name: c.Name, Type: c.Type})
		}
		var rows []row
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			r := row{event: rapid.Int64Range(-1e15, 2e15).Draw(t, "event"), keys: []any{drawValue(t, v.Entity.Keys[0].Type), drawValue(t, Int32)}}
			for _, f := range v.Features {
				if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
					r.values = append(r.values, nil)
				} else {
					r.values = append(r.values, drawValue(t, f.Type))
				}
			}
			r.key = encodeKey(r.keys)
			rows = append(rows, r)
		}
		f := newCommitFile(v)
		rec, err := recordOf(f.schema, v, rows)
		if err != nil {
			t.Fatal(err)
		}
		f.out.most = rapid.SampledFrom([]uint64{0, 100, maxLaid}).Draw(t, "bytes that stay laid out")
		cut := rapid.Int64Range(0, rec.NumRows()).Draw(t, "rows of the first piece")
		f.add(rec.NewSlice(0, cut))
		f.add(rec.NewSlice(cut, rec.NumRows()))
		file, err := f.close()
		if err != nil {
			t.Fatal(err)
		}
		lo, hi := eventSpan(rows)
		content, first, last, err := file.measure(v)
		if err != nil || content != contentDigest(rows) || f.rows != int64(len(rows)) || first != lo || last != hi {
			t.Fatalf("%s, %d rows, %d to %d, %v", content, f.rows, first, last, err)
		}
		data := file.bytes()
		l := newLayout(v)
		var got []byte
		done, err := (&storedCommit{seq: 9, at: 77, file: true, data: data}).packFile(l, v, func(b []byte) { got = append(got, b...) })
		lists := slices.ContainsFunc(v.Features, func(c Column) bool { return !c.Type.scalar() }) // they are read row by row
		if err != nil || done == lists {
			t.Fatal(done, err)
		}
		if lists {
			if err := (&storedCommit{seq: 9, at: 77, file: true, data: data}).packed(l, v, func(b []byte) { got = append(got, b...) }); err != nil {
				t.Fatal(err)
			}
		}
		if want := l.pack(rows, 77, 9); !bytes.Equal(got, want) {
			t.Fatalf("packed as\n%x, not\n%x", got, want)
		}
		var fresh []byte
		if err := (&storedCommit{seq: 9, at: 77, file: true, fresh: file}).packed(l, v, func(b []byte) { fresh = append(fresh, b...) }); err != nil || !bytes.Equal(fresh, got) {
			t.Fatalf("packed as\n%x as it was laid out, not\n%x: %v", fresh, got, err)
		}
		back, err := readCommitFile(v, 9, 77, data)
		if err != nil || !bytes.Equal(l.pack(back, 77, 9), got) {
			t.Fatalf("read back row by row: %v", err)
		}
	})
}

func drawValue(t *rapid.T, typ Type) any {
	switch typ {
	case Bool:
		return rapid.Bool().Draw(t, "bool")
	case Int32:
		return int64(rapid.Int32().Draw(t, "int32"))
	case Int64:
		return rapid.Int64().Draw(t, "int64")
	case Float32:
		return float64(rapid.Float32Range(-1e9, 1e9).Draw(t, "float32"))
	case Float64:
		return rapid.Float64Range(-1e9, 1e9).Draw(t, "float64")
	case String:
		return rapid.SampledFrom([]string{"", "a", "straße", "long enough to be no accident"}).Draw(t, "string")
	case Bytes:
		return []byte(rapid.SampledFrom([]string{"", "a", "\x00\xff"}).Draw(t, "bytes"))
	case Timestamp:
		return time.UnixMicro(rapid.Int64Range(-1e15, 2e15).Draw(t, "time")).UTC()
	case DecimalT:
		return rapid.SampledFrom([]Decimal{"0", "-1.5", "12345678901234567890123456789.123456789", "-99999999999999999999999999999.999999999"}).Draw(t, "decimal")
	case "vector<2>":
		return []float32{rapid.Float32Range(-1, 1).Draw(t, "x"), 2}
	}
	out := make([]any, rapid.IntRange(0, 3).Draw(t, "length"))
	for i := range out {
		out[i] = drawValue(t, typ.elem())
	}
	return out
}

// parquetOf writes values as a training set's file.
func parquetOf(cols []Column, rows int, cell func(row, col int) any) ([]byte, error) {
	j := &joined{rows: rows, columns: cols}
	for c := range cols {
		a, err := buildColumn(cols[c].Type, rows, func(i int) (any, error) { return cell(i, c), nil }, func(_ int, err error) error { return err })
		if err != nil {
			return nil, err
		}
		j.arrays = append(j.arrays, a)
	}
	return j.file(&TrainingSet{})
}

// BenchmarkLay decodes, checks and lays out a file of 200,000 rows of 20 numbers, and packs what it wrote.
func BenchmarkLay(b *testing.B) {
	const rows = 200_000
	v := &View{Name: "load", Entity: Entity{Keys: []Column{{Name: "thing", Type: String}}}}
	for i := range 20 {
		v.Features = append(v.Features, Column{Name: fmt.Sprint("f", i), Type: Float64})
	}
	data, err := parquetOf(commitColumns(v), rows, func(i, c int) any {
		switch c {
		case 0:
			return fmt.Sprintf("thing-%07d", i)
		case 21:
			return time.UnixMicro(int64(i) * 1000)
		}
		return float64(i*7919%rows) / float64(c)
	})
	if err != nil {
		b.Fatal(err)
	}
	var stored []byte
	b.Run("LayOut", func(b *testing.B) {
		b.SetBytes(rows)
		for b.Loop() {
			src, err := openFile(Parquet, data, anyNames)
			if err != nil {
				b.Fatal(err)
			}
			s, w := &Store{clock: waybill.SystemClock}, &writing{mode: Reject}
			if err := s.layPieces(context.Background(), v, src, w, tokens{}); err != nil {
				b.Fatal(err)
			}
			stored = w.file.bytes()
		}
	})
	b.Run("Pack", func(b *testing.B) {
		b.SetBytes(rows)
		for b.Loop() {
			n := 0
			done, err := (&storedCommit{seq: 9, at: 77, file: true, data: stored}).packFile(newLayout(v), v, func([]byte) { n++ })
			if err != nil || !done || n != rows {
				b.Fatal(done, n, err)
			}
		}
	})
}
