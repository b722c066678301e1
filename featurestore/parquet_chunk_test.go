package featurestore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"pgregory.net/rapid"
)

// What is read is what the library's own reader of whole columns makes of the same file, whatever the types, encodings,
// nulls and sizes of pages and row groups.
func TestReadColumn_EqualsTheLibrary(t *testing.T) {
	t.Parallel()
	fields := []arrow.Field{{Name: "i8", Type: arrow.PrimitiveTypes.Int8}, {Name: "u16", Type: arrow.PrimitiveTypes.Uint16}, {Name: "i32", Type: arrow.PrimitiveTypes.Int32},
		{Name: "u32", Type: arrow.PrimitiveTypes.Uint32}, {Name: "i64", Type: arrow.PrimitiveTypes.Int64}, {Name: "f32", Type: arrow.PrimitiveTypes.Float32},
		{Name: "f64", Type: arrow.PrimitiveTypes.Float64}, {Name: "b", Type: arrow.FixedWidthTypes.Boolean}, {Name: "s", Type: arrow.BinaryTypes.String},
		{Name: "y", Type: arrow.BinaryTypes.Binary}, {Name: "t", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "d", Type: arrow.FixedWidthTypes.Date32},
		{Name: "n", Type: &arrow.Decimal128Type{Precision: 38, Scale: 9}}, {Name: "n9", Type: &arrow.Decimal128Type{Precision: 9, Scale: 2}}}
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		nulls := rapid.SampledFrom([]int{0, 3, 100}).Draw(t, "nulls in a hundred")
		some := make([]arrow.Field, len(fields))
		for i, f := range fields {
			some[i] = f
			some[i].Nullable = nulls > 0
		}
		sc := arrow.NewSchema(some, nil)
		rb := array.NewRecordBuilder(memory.DefaultAllocator, sc)
		defer rb.Release()
		rows := rapid.IntRange(1, 3000).Draw(t, "rows")
		words := rapid.SampledFrom([]int{3, 3000}).Draw(t, "words")
		for range rows {
			for c := range some {
				if rng.IntN(100) < nulls {
					rb.Field(c).AppendNull()
					continue
				}
				appendRandom(rb.Field(c), rng.IntN(words))
			}
		}
		props := []parquet.WriterProperty{parquet.WithMaxRowGroupLength(int64(rapid.IntRange(500, 3000).Draw(t, "group"))), parquet.WithDataPageSize(int64(rapid.SampledFrom([]int{500, 4000, 1 << 20}).Draw(t, "page"))),
			parquet.WithDataPageVersion(rapid.SampledFrom([]parquet.DataPageVersion{parquet.DataPageV1, parquet.DataPageV2}).Draw(t, "version")), parquet.WithBatchSize(100),
			parquet.WithDictionaryDefault(rapid.Bool().Draw(t, "dictionary"))}
		if rapid.Bool().Draw(t, "delta") {
			props = append(props, parquet.WithDictionaryDefault(false), parquet.WithEncodingFor("i64", parquet.Encodings.DeltaBinaryPacked), parquet.WithEncodingFor("i32", parquet.Encodings.DeltaBinaryPacked),
				parquet.WithEncodingFor("s", parquet.Encodings.DeltaByteArray), parquet.WithEncodingFor("y", parquet.Encodings.DeltaLengthByteArray))
		}
		var buf bytes.Buffer
		w, err := pqarrow.NewFileWriter(sc, &buf, parquet.NewWriterProperties(props...), pqarrow.NewArrowWriterProperties(pqarrow.WithDeprecatedInt96Timestamps(rapid.Bool().Draw(t, "int96"))))
		if err != nil {
			t.Fatal(err)
		}
		rec := rb.NewRecord()
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		table, err := readTable(Parquet, buf.Bytes(), anyNames)
		if err != nil {
			t.Fatal(err)
		}
		for c := range some {
			want, err := cells(rec.Column(c))
			if err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				if w, got := want(i), table.cell(i, c); !reflect.DeepEqual(got, w) {
					t.Fatalf("row %d of %s is %#v, not %#v", i, some[c].Name, got, w)
				}
			}
		}
	})
}

func appendRandom(b array.Builder, n int) {
	switch b := b.(type) {
	case *array.Int8Builder:
		b.Append(int8(n))
	case *array.Uint16Builder:
		b.Append(uint16(n) * 21)
	case *array.Int32Builder:
		b.Append(int32(n) * -70_000)
	case *array.Uint32Builder:
		b.Append(math.MaxUint32 - uint32(n))
	case *array.Int64Builder:
		b.Append(int64(n) << 50)
	case *array.Float32Builder:
		b.Append(float32(n) / 3)
	case *array.Float64Builder:
		b.Append(float64(n) / 3)
	case *array.BooleanBuilder:
		b.Append(n%3 == 0)
	case *array.StringBuilder:
		b.Append(fmt.Sprint("place ", n))
	case *array.BinaryBuilder:
		b.Append([]byte(fmt.Sprint(n)))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(time.Date(2026, 4, 1, 0, 0, n, 0, time.UTC).UnixMilli()))
	case *array.Date32Builder:
		b.Append(arrow.Date32(n))
	case *array.Decimal128Builder:
		b.Append(decimal128.FromI64(int64(n) * -1001))
	default:
		panic(fmt.Sprintf("%T", b))
	}
}

// Indices of as many bits as a writer likes are read; those that would have the library make room for what is not there
// are refused.
func TestSoundIndices(t *testing.T) {
	t.Parallel()
	literal := func(width byte, values ...uint32) []byte { // groups of 8, of whole bytes
		out := binary.AppendUvarint([]byte{width}, uint64(len(values)+7)/8<<1|1)
		for _, v := range values {
			out = append(out, binary.LittleEndian.AppendUint32(nil, v)[:width/8]...)
		}
		return out
	}
	run := func(width byte, n uint64, value uint32) []byte {
		return append(binary.AppendUvarint([]byte{width}, n<<1), binary.LittleEndian.AppendUint32(nil, value)[:width/8]...)
	}
	for name, c := range map[string]struct {
		page       []byte
		dictionary int64
		want       bool
	}{
		"NoDictionary":   {literal(8, 0), -1, false},
		"NoValues":       {nil, 0, true},
		"Narrow":         {[]byte{3, 2<<1 | 1, 0xff, 0xff}, 8, true},
		"WideButSmall":   {literal(32, 1, 2, 3, 4, 5, 6, 7, 0, 1), 8, true}, // the last group is cut, as fastparquet leaves it
		"WideRun":        {run(32, 1000, 7), 8, true},
		"HugeRun":        {run(32, 1000, 1<<31-1), 8, false},
		"HugeLiteral":    {literal(32, 1, 2, 3, 1<<31-1), 8, false},
		"SixteenBits":    {literal(16, 1, 2, 60_000, 3), 8, false},
		"SixteenOfMany":  {literal(16, 1, 2, 60_000, 3), 60_001, true},
		"TooWide":        {[]byte{33, 3, 0}, 8, false},
		"ManyGroups":     {binary.AppendUvarint([]byte{32}, math.MaxUint64), 8, true}, // and nothing behind them
		"RunWithoutEnd":  {[]byte{32, 2, 0}, 8, false},
		"HeadWithoutEnd": {[]byte{32, 0x80}, 8, false},
	} {
		if got := soundIndices(c.page, c.dictionary); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The lengths of what deltas, dictionaries and footers claim are there, or the file is refused before room is made for them.
func TestParquet_ClaimsAreHeldAgainstBytes(t *testing.T) {
	t.Parallel()
	delta := func(numbers ...uint64) []byte {
		var b []byte
		for _, n := range numbers {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"None":        {delta(128, 4, 0, 0), true},
		"One":         {delta(128, 4, 1, 14), true},
		"Block":       {append(delta(128, 4, 3, 0), 0, 8, 0, 0, 0 /* widths */, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), true},
		"NoBlock":     {delta(128, 4, 3, 0), false},
		"CutBlock":    {append(delta(128, 4, 3, 0), 0, 8, 0, 0, 0, 1), false},
		"ManyValues":  {delta(128, 4, 11, 0), false},
		"HugeBlock":   {delta(1<<31, 1, 2, 0), false},
		"ManyMinis":   {delta(128, 1<<31, 2, 0), false},
		"NoMinis":     {delta(128, 0, 2, 0), false},
		"UnevenMinis": {delta(128, 3, 2, 0), false},
		"WideDelta":   {append(delta(128, 4, 3, 0), 0, 65, 0, 0, 0), false},
	} {
		d := thrift{b: c.data}
		if d.deltas(10); d.bad == c.want {
			t.Errorf("%s: %t", name, !d.bad)
		}
	}
	good, err := parquetOf([]Column{{Name: "a", Type: String}}, 2, func(i, _ int) any { return fmt.Sprint(i) })
	if err != nil || !soundFooter(good) {
		t.Fatal("a good footer is refused", err)
	}
	// A struct whose field 2 is a list of 2^28 structs, of which none is there.
	claim := append([]byte("PAR1"), 0x29, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x01, 0)
	claim = append(binary.LittleEndian.AppendUint32(claim, uint32(len(claim)-4)), "PAR1"...)
	if soundFooter(claim) {
		t.Error("a list that is not there is believed")
	}
}
