package featurestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
)

// The rows of an ingested file lie in the bucket as an ordinary Parquet file: join keys, features, event_time. The
// knowledge time is the commit's own. Numbers are plain and not compressed, since every hub reads the file as soon as it is
// committed; texts and lists are compressed.

// commitFile lays the rows of a batch out as they are stored, record by record in their order.
type commitFile struct {
	v       *View
	schema  *arrow.Schema
	w       *pqarrow.FileWriter
	out     bytes.Buffer
	waiting []arrow.Record // fewer rows than a row group has
	few     int64          // how many

	rows               int64
	minEvent, maxEvent int64 // µs
	sum                hash.Hash
	scratch            []byte
}

func newCommitFile(v *View) *commitFile {
	boundCodecs()
	return &commitFile{v: v, schema: arrowSchema(commitColumns(v)), minEvent: math.MaxInt64, maxEvent: math.MinInt64, sum: sha256.New()}
}

// properties say how each column is encoded. There are no statistics: rows are looked for in runs, not here.
func (f *commitFile) properties() *parquet.WriterProperties {
	props := []parquet.WriterProperty{parquet.WithCreatedBy(writerVersion), parquet.WithVersion(parquet.V2_LATEST), parquet.WithDictionaryDefault(false),
		parquet.WithStats(false), parquet.WithMaxRowGroupLength(2 * rowGroup)}
	for _, c := range f.schema.Fields() {
		switch c.Type.(type) {
		case *arrow.StringType, *arrow.BinaryType:
			props = append(props, parquet.WithCompressionFor(c.Name, compress.Codecs.Zstd), parquet.WithDictionaryFor(c.Name, true))
		case *arrow.ListType:
			props = append(props, parquet.WithCompressionPath(parquet.ColumnPath{c.Name, "list", "element"}, compress.Codecs.Zstd))
		case *arrow.Decimal128Type:
			props = append(props, parquet.WithCompressionFor(c.Name, compress.Codecs.Zstd))
		}
	}
	return parquet.NewWriterProperties(props...)
}

// add takes rows in the schema of the file.
func (f *commitFile) add(rec arrow.Record) error {
	if rec.NumRows() == 0 {
		return nil
	}
	if err := f.measure(rec); err != nil {
		return err
	}
	f.waiting, f.few = append(f.waiting, rec), f.few+rec.NumRows()
	if f.few < rowGroup {
		return nil
	}
	return f.flush()
}

// measure counts rows, finds their first and last event, and digests them as contentDigest does.
func (f *commitFile) measure(rec arrow.Record) error {
	events, ok := rec.Column(int(rec.NumCols()) - 1).(*array.Timestamp)
	if !ok {
		return fmt.Errorf("event times are %s", rec.Column(int(rec.NumCols())-1).DataType())
	}
	f.rows += rec.NumRows()
	cols := make([]appender, rec.NumCols()-1)
	for i, c := range commitColumns(f.v)[:len(cols)] {
		cols[i] = appenderOf(c.Type, rec.Column(i))
		if at, a := cols[i], rec.Column(i); i >= len(f.v.Entity.Keys) && a.NullN() > 0 {
			cols[i] = func(b []byte, i int) []byte {
				if a.IsNull(i) {
					return append(b, 'n')
				}
				return at(b, i)
			}
		}
	}
	b := f.scratch[:0]
	for i := range int(rec.NumRows()) {
		event := int64(events.Value(i))
		f.minEvent, f.maxEvent = min(f.minEvent, event), max(f.maxEvent, event)
		b = binary.BigEndian.AppendUint64(b, uint64(event))
		for _, c := range cols {
			b = c(b, i)
		}
		if len(b) >= 64<<10 {
			f.sum.Write(b)
			b = b[:0]
		}
	}
	f.sum.Write(b)
	f.scratch = b[:0]
	return nil
}

// content is the contentDigest of all rows.
func (f *commitFile) content() string { return "sha256:" + hex.EncodeToString(f.sum.Sum(nil)) }

// flush writes the rows that wait as a row group.
func (f *commitFile) flush() (err error) {
	if f.few == 0 {
		return nil
	}
	rec := f.waiting[0]
	if len(f.waiting) > 1 {
		if rec, err = concatRecords(f.schema, f.waiting); err != nil {
			return err
		}
	}
	f.waiting, f.few = nil, 0
	if f.w == nil {
		f.w, err = pqarrow.NewFileWriter(f.schema, &f.out, f.properties(), pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator)))
		if err != nil {
			return fmt.Errorf("open parquet writer: %w", err)
		}
	}
	f.w.NewRowGroup()
	for _, a := range rec.Columns() {
		if err := f.w.WriteColumnData(a); err != nil {
			return fmt.Errorf("write parquet: %w", err)
		}
	}
	return nil
}

// close returns the file, nil when there are no rows.
func (f *commitFile) close() ([]byte, error) {
	if err := f.flush(); err != nil || f.w == nil {
		return nil, err
	}
	if err := f.w.Close(); err != nil {
		return nil, fmt.Errorf("close parquet: %w", err)
	}
	return f.out.Bytes(), nil
}

// recordOf lays rows out as a commit's file has them.
func recordOf(schema *arrow.Schema, v *View, rows []row) (arrow.Record, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	keys, features := len(v.Entity.Keys), len(v.Features)
	for i := range rows {
		for c := range schema.NumFields() {
			var x any
			switch {
			case c < keys:
				x = rows[i].keys[c]
			case c < keys+features:
				x = rows[i].values[c-keys]
			default:
				x = time.UnixMicro(rows[i].event).UTC()
			}
			if err := appendValue(b.Field(c), x); err != nil {
				return nil, fmt.Errorf("lay out column %s: %w", schema.Field(c).Name, err)
			}
		}
	}
	return b.NewRecord(), nil
}

// commitRecords reads a commit's file in the columns that a view's commits have now; false when one of them is of another
// type, as no hub writes it: readCommitFile reads such a file.
func commitRecords(v *View, data []byte) (out []arrow.Record, ok bool, err error) {
	src, err := openParquet(data, anyNames, false)
	if err != nil {
		return nil, false, waybill.Wrap(waybill.Corrupt, err, "a commit's file cannot be read")
	}
	cols := commitColumns(v)
	schema := arrowSchema(cols)
	places := map[string]int{}
	for i, n := range src.names {
		places[n] = i
	}
	for next := src.pieces(); ; {
		p, err := next()
		if errors.Is(err, io.EOF) {
			return out, true, nil
		}
		if err != nil {
			return nil, false, waybill.Wrap(waybill.Corrupt, err, "a commit's file cannot be read")
		}
		arrays := make([]arrow.Array, len(cols))
		for i, c := range cols {
			place, there := places[c.Name]
			if !there || p.arrays[place] == nil || !arrow.TypeEqual(p.arrays[place].DataType(), schema.Field(i).Type) {
				return nil, false, nil
			}
			if arrays[i] = p.arrays[place]; arrays[i].NullN() > 0 && (i < len(v.Entity.Keys) || i == len(cols)-1) {
				return nil, false, nil
			}
		}
		out = append(out, array.NewRecord(schema, arrays, int64(p.rows)))
	}
}
