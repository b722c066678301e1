package featurestore_test

import (
	"bytes"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/apache/arrow/go/v17/parquet/schema"

	"waybill"
	"waybill/featurestore"
)

// arrowFile writes a record as Parquet with the given properties.
func arrowFile(t testing.TB, fields []arrow.Field, fill func(b *array.RecordBuilder), props ...parquet.WriterProperty) []byte {
	t.Helper()
	sc := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	fill(b)
	rec := b.NewRecord()
	defer rec.Release()
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(sc, &buf, parquet.NewWriterProperties(props...), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// encodings are small files of every way to write pages.
func encodings(t testing.TB) [][]byte {
	fields := []arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "t", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "b", Type: arrow.FixedWidthTypes.Boolean, Nullable: true}}
	fill := func(b *array.RecordBuilder) {
		for i := range 20 {
			if i%7 == 3 {
				b.Field(0).AppendNull()
				b.Field(1).AppendNull()
				b.Field(3).AppendNull()
			} else {
				b.Field(0).(*array.Int64Builder).Append(int64(i) * 1001)
				b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("text", i%4))
				b.Field(3).(*array.BooleanBuilder).Append(i%2 == 0)
			}
			b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(i))
		}
	}
	var out [][]byte
	for _, codec := range []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Gzip, compress.Codecs.Zstd} {
		for _, version := range []parquet.DataPageVersion{parquet.DataPageV1, parquet.DataPageV2} {
			base := []parquet.WriterProperty{parquet.WithCompression(codec), parquet.WithDataPageVersion(version), parquet.WithStats(false)}
			out = append(out, arrowFile(t, fields, fill, base...),
				arrowFile(t, fields, fill, append(base, parquet.WithDictionaryDefault(false))...),
				arrowFile(t, fields, fill, append(base, parquet.WithDictionaryDefault(false), parquet.WithEncodingFor("n", parquet.Encodings.DeltaBinaryPacked),
					parquet.WithEncodingFor("t", parquet.Encodings.DeltaBinaryPacked), parquet.WithEncodingFor("s", parquet.Encodings.DeltaLengthByteArray))...),
				arrowFile(t, fields, fill, append(base, parquet.WithDictionaryDefault(false), parquet.WithEncodingFor("s", parquet.Encodings.DeltaByteArray))...))
		}
	}
	return out
}

func TestParquet_EveryEncodingIsRead(t *testing.T) {
	t.Parallel()
	for i, data := range encodings(t) {
		if err := featurestore.ReadTable("parquet", data); err != nil {
			t.Errorf("file %d: %v", i, err)
		}
	}
}

//go:embed testdata/nested-panic.parquet
var nestedPanic []byte

// The library decodes nested columns in goroutines of its own, where a panic ends the process.
func TestParquet_NestedColumnsAreRefused(t *testing.T) {
	t.Parallel()
	list := arrowFile(t, []arrow.Field{{Name: "l", Type: arrow.ListOf(arrow.ListOf(arrow.PrimitiveTypes.Int64))}}, func(b *array.RecordBuilder) { b.Field(0).AppendEmptyValue() })
	structure := arrowFile(t, []arrow.Field{{Name: "l", Type: arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int64})}}, func(b *array.RecordBuilder) { b.Field(0).AppendEmptyValue() })
	for name, data := range map[string][]byte{"killer": nestedPanic, "list of lists": list, "structure": structure} {
		if err := featurestore.ReadTable("parquet", data); waybill.CodeOf(err) != waybill.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// repeated writes a file of one page for each column, all of whose rows are the same text.
func repeated(t testing.TB, columns, rows int, text string) []byte {
	t.Helper()
	var fields schema.FieldList
	for c := range columns {
		fields = append(fields, schema.Must(schema.NewPrimitiveNodeLogical(fmt.Sprint("c", c), parquet.Repetitions.Required, schema.StringLogicalType{}, parquet.Types.ByteArray, 0, -1)))
	}
	var buf bytes.Buffer
	w := file.NewParquetWriter(&buf, schema.MustGroup(schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)),
		file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithDictionaryDefault(true), parquet.WithDataPageSize(1<<30))))
	g := w.AppendRowGroup()
	values := make([]parquet.ByteArray, rows)
	for i := range values {
		values[i] = parquet.ByteArray(text)
	}
	for range columns {
		c, err := g.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Small files that say a lot are refused before they are decoded, or as soon as they have said too much. Not parallel: it measures.
func TestParquet_SmallFilesTakeLittleMemory(t *testing.T) {
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for _, c := range []struct {
		name          string
		columns, rows int
		text          string
		limit         uint64
	}{
		{"ManyCells", 17, featurestore.MaxFileRows, "warehouse", 8 << 20},
		{"LongText", 1, 6_000, strings.Repeat("x", 100_000), 3 << 30}, // TotalAlloc counts also what was freed at once
	} {
		data := repeated(t, c.columns, c.rows, c.text)
		if len(data) > 1<<20 {
			t.Fatalf("%s: the file has %d bytes; the test wants a small one", c.name, len(data))
		}
		var err error
		got := allocated(func() { err = featurestore.ReadTable("parquet", data) })
		if waybill.CodeOf(err) != waybill.TooLarge || got > c.limit {
			t.Errorf("%s: %d bytes of file took %d MiB: %v", c.name, len(data), got>>20, err)
		}
	}
	// An index into a dictionary that is far beyond it, at every place of a page that may be one: the library would make room
	// for all values up to it, which is 16 GiB.
	small := arrowFile(t, []arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}}, func(b *array.RecordBuilder) {
		for i := range 40 {
			b.Field(0).(*array.Int64Builder).Append(int64(i % 4))
		}
	}, parquet.WithStats(false))
	if got := allocated(func() {
		for at := range len(small) - 6 {
			bad := bytes.Clone(small)
			copy(bad[at:], []byte{32, 40 << 1, 0xff, 0xff, 0xff, 0x7f})
			if err := featurestore.ReadTable("parquet", bad); err != nil && waybill.CodeOf(err) != waybill.Invalid && waybill.CodeOf(err) != waybill.TooLarge {
				t.Fatal(err)
			}
		}
	}); got > 2<<30 {
		t.Errorf("indices beyond a dictionary took %d MiB", got>>20)
	}
	b := setup(t)
	unknown := repeated(t, 3, 500_000, "warehouse")
	var err error
	got := allocated(func() { _, err = b.ingest("1", featurestore.Parquet, string(unknown)) })
	if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(fmt.Sprint(err), "c0") || got > 8<<20 {
		t.Errorf("columns that the view does not know took %d MiB: %v", got>>20, err)
	}
	line := strings.Repeat(",", 1999) + "\n"
	var head []string
	for i := range 2000 {
		head = append(head, fmt.Sprint("c", i))
	}
	got = allocated(func() {
		err = featurestore.ReadTable("csv", []byte(strings.Join(head, ",")+"\n"+strings.Repeat(line, featurestore.MaxFileCells/2000+10)))
	})
	if waybill.CodeOf(err) != waybill.TooLarge || got > 2<<30 {
		t.Errorf("a file of commas took %d MiB: %v", got>>20, err)
	}
}

// A time that is none of this world names its row and column, whatever its unit.
func TestIngest_TimesOutOfRange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct {
		unit  arrow.TimeUnit
		value int64
	}{
		"FarPast":    {arrow.Microsecond, -(1 << 62)},
		"WrappedMS":  {arrow.Millisecond, 18446744073709552}, // × 10⁶ wraps to some 384 µs
		"FirstOfAll": {arrow.Millisecond, -1 << 63},
	} {
		data := arrowFile(t, []arrow.Field{{Name: "warehouse", Type: arrow.BinaryTypes.String}, {Name: "event_time", Type: &arrow.TimestampType{Unit: c.unit, TimeZone: "UTC"}}},
			func(rb *array.RecordBuilder) {
				for _, v := range []int64{0, c.value} {
					rb.Field(0).(*array.StringBuilder).Append("ny")
					rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(v))
				}
			})
		if _, err := b.ingest(name, featurestore.Parquet, string(data)); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(fmt.Sprint(err), "row 2, event_time") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The year of a time is that of UTC, and what was accepted once is read for ever.
func TestPush_YearsAreCheckedInUTC(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i, at := range []string{"1900-01-01T00:00:00+14:00", "2200-12-31T23:59:59-10:00"} {
		row := load("edge", b.now, 0.5)
		row["event_time"] = at
		if _, err := b.push(fmt.Sprint("edge", i), row); waybill.CodeOf(err) != waybill.Invalid {
			t.Errorf("%s: %v", at, err)
		}
	}
	b.at(time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC))
	row := load("edge", b.now, 0.5)
	row["event_time"] = "1900-01-01T00:00:00Z"
	if _, err := b.push("first", row); err != nil {
		t.Fatal(err)
	}
	b.read(t, b.open(t), "edge")
}

// Every byte of a file changed in turn, among them those of page headers, dictionaries and levels.
func TestParquet_DamagedFilesAreRefusedOrRead(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for i, data := range encodings(t) {
		for at := range data {
			for range damages {
				bad := bytes.Clone(data)
				bad[at] ^= byte(1 + rng.IntN(255))
				if err := featurestore.ReadTable("parquet", bad); err != nil && waybill.CodeOf(err) != waybill.Invalid && waybill.CodeOf(err) != waybill.TooLarge {
					t.Fatalf("file %d, byte %d: %v", i, at, err)
				}
			}
		}
	}
}

// damages is how often each byte is changed.
const damages = 1
