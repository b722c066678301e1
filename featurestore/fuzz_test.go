package featurestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
)

// The fuzz targets of the decoders. This file needs no other test file, and scripts/fuzz compiles it without them: a fuzzer
// looks at the counters of every package of its program after each input, and those of Postgres' and S3's are many.

// refusal fails the test for an error that malformed bytes must not have.
func refusal(t *testing.T, err error) {
	if code := waybill.CodeOf(err); err != nil && code != waybill.Invalid && code != waybill.TooLarge {
		t.Fatal(err)
	}
}

// readAll reads what claims to be packed rows; it must not panic.
func readAll(l *layout, data []byte) {
	for len(data) > 0 {
		b, rest, err := l.next(data)
		if err != nil {
			return
		}
		if _, err := l.unpack(b); err != nil {
			return
		}
		data = rest
	}
}

// FuzzRow reads what claims to be packed rows of every type.
func FuzzRow(f *testing.F) {
	view := &View{Name: "v", Entity: Entity{Name: "e", Keys: []Column{{Name: "k", Type: String}}}, Features: []Column{{Name: "n", Type: Int64}, {Name: "s", Type: String},
		{Name: "l", Type: "list<string>"}, {Name: "d", Type: DecimalT}, {Name: "b", Type: "list<int32>"}, {Name: "x", Type: "vector<2>"}}}
	l := newLayout(view)
	f.Add(l.pack([]row{{key: encodeKey([]any{"k"}), event: 5, values: []any{int64(1), "x", []any{"a", ""}, Decimal("1.5"), nil, []float32{1, 2}}}}, 7, 9))
	f.Fuzz(func(_ *testing.T, data []byte) { readAll(l, data) })
}

// FuzzKey reads what claims to be join keys of every type. What is one has one form.
func FuzzKey(f *testing.F) {
	l := &layout{keys: []Column{{Name: "a", Type: String}, {Name: "b", Type: Int64}}}
	f.Add([]byte(encodeKey([]any{"k", int64(5)})))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := l.parseKey(data)
		if err != nil {
			return
		}
		if again, err := l.parseKey([]byte(encodeKey(keys))); err != nil || len(again) != len(keys) {
			t.Fatalf("%x is %v, which cannot be read again: %v", data, keys, err)
		}
	})
}

// A page that is cut or changed is refused or gives values of the dictionary; it never reads beyond its bytes.
func FuzzDecodeCoded(f *testing.F) {
	f.Add([]byte{2, 10, 1, 3, 0b11_10_01_00, 0b00_01_10_11}, 13) // five times value 1, then eight values of two bits
	f.Add([]byte{0, 6, 0}, 3)
	f.Add([]byte{33, 1}, 1)
	f.Fuzz(func(t *testing.T, page []byte, n int) {
		dict := []uint64{7, 8, 9, 10}
		out := make([]uint64, min(max(n, 0), 1000))
		if !decodeCoded(out, dict, page) {
			return
		}
		for i, v := range out {
			if !slices.Contains(dict, v) {
				t.Fatalf("value %d is %d", i, v)
			}
		}
	})
}

// FuzzIngestCSV reads a file of others.
func FuzzIngestCSV(f *testing.F) {
	f.Add([]byte("warehouse,event_time,queue\nny,2026-04-01,0.1\n"))
	f.Add([]byte("\xef\xbb\xbfa\r\"b\r"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := readTable(CSV, data, anyNames)
		refusal(t, err)
	})
}

// seedRecord is a few rows of many types.
func seedRecord(f *testing.F, fields []arrow.Field, rows ...string) arrow.Record {
	rb := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer rb.Release()
	for _, r := range rows {
		if err := rb.UnmarshalJSON([]byte(r)); err != nil {
			f.Fatal(err)
		}
	}
	return rb.NewRecord()
}

// seedFiles adds a record as small Parquet files of several encodings.
func seedFiles(f *testing.F, rec arrow.Record, texts string) {
	for _, codec := range []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Zstd} {
		for _, version := range []parquet.DataPageVersion{parquet.DataPageV1, parquet.DataPageV2} {
			base := []parquet.WriterProperty{parquet.WithCompression(codec), parquet.WithDataPageVersion(version), parquet.WithStats(false)}
			for _, more := range [][]parquet.WriterProperty{nil, {parquet.WithDictionaryDefault(false), parquet.WithEncodingFor(texts, parquet.Encodings.DeltaByteArray)}} {
				var buf bytes.Buffer
				w, err := pqarrow.NewFileWriter(rec.Schema(), &buf, parquet.NewWriterProperties(slices.Concat(base, more)...), pqarrow.DefaultWriterProps())
				if err == nil {
					err = errors.Join(w.Write(rec), w.Close())
				}
				if err != nil {
					f.Fatal(err)
				}
				f.Add(buf.Bytes())
			}
		}
	}
}

// FuzzIngestParquet reads a file of others.
func FuzzIngestParquet(f *testing.F) {
	f.Add([]byte("PAR1"))
	seedFiles(f, seedRecord(f, []arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "s", Type: arrow.BinaryTypes.String}, {Name: "b", Type: arrow.FixedWidthTypes.Boolean, Nullable: true}},
		`{"n": 1001, "s": "text0", "b": true}`, `{"n": null, "s": "text1", "b": null}`, `{"n": 1001, "s": "text0", "b": false}`), "s")
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := readTable(Parquet, data, anyNames)
		refusal(t, err)
	})
}

// A Parquet file of lists with any byte changed is read or refused; it never ends the process.
func FuzzParquetLists(f *testing.F) {
	seedFiles(f, seedRecord(f, []arrow.Field{{Name: "i", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true}, {Name: "s", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
		{Name: "d", Type: arrow.ListOf(&arrow.Decimal128Type{Precision: 38, Scale: 9})}, {Name: "t", Type: arrow.ListOf(arrow.FixedWidthTypes.Timestamp_ms)}},
		`{"i": [1, null], "s": ["a", ""], "d": ["1.5"], "t": []}`, `{"i": null, "s": [], "d": [], "t": ["2026-04-01"]}`), "s.list.element")
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := readTable(Parquet, data, anyNames)
		refusal(t, err)
	})
}

// FuzzIngestArrow reads messages of others: of each, the lengths of its metadata and of its body, and these.
func FuzzIngestArrow(f *testing.F) {
	rec := seedRecord(f, []arrow.Field{{Name: "l", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}, {Name: "d", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}},
		{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, `{"l": ["a", null], "d": "x", "x": 0.5}`, `{"l": null, "d": "y", "x": null}`)
	for _, opts := range [][]ipc.Option{nil, {ipc.WithZstd()}, {ipc.WithLZ4()}} {
		var buf bytes.Buffer
		w := ipc.NewWriter(&buf, append(opts, ipc.WithSchema(rec.Schema()))...)
		if err := errors.Join(w.Write(rec), w.Close()); err != nil {
			f.Fatal(err)
		}
		var whole []byte
		for rest := buf.Bytes(); ; {
			n := binary.LittleEndian.Uint32(rest[4:])
			if binary.LittleEndian.Uint32(rest) != math.MaxUint32 || n == 0 {
				break
			}
			header := rest[8 : 8+n]
			size := ipc.NewMessage(memory.NewBufferBytes(header), memory.NewBufferBytes(nil)).BodyLen()
			whole = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(whole, n), uint32(size))
			whole = append(append(whole, header...), rest[8+n:8+int64(n)+size]...)
			rest = rest[8+int64(n)+size:]
		}
		f.Add(whole)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rest := data
		st, err := readStream(func() (header, body []byte, err error) {
			if len(rest) < 8 {
				return nil, nil, io.EOF
			}
			h, n := uint64(binary.LittleEndian.Uint32(rest)), uint64(binary.LittleEndian.Uint32(rest[4:]))
			if rest = rest[8:]; h+n > uint64(len(rest)) {
				return nil, nil, io.EOF
			}
			header, body, rest = rest[:h], rest[h:h+n], rest[h+n:]
			return header, body, nil
		}, anyNames)
		if err == nil {
			defer st.release()
			var table *table
			if table, err = st.source().table(); err == nil { // what was accepted can be looked at
				for i := range table.rows {
					for c := range table.names {
						_ = fmt.Sprint(table.cell(i, c))
					}
				}
			}
		}
		refusal(t, err)
	})
}
