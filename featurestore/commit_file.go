package featurestore

import (
	"errors"
	"fmt"
	"io"
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
	out     *laidFile
	waiting []arrow.Record // fewer rows than a row group has
	few     int64          // how many

	rows   int64
	writes inTurn
}

func newCommitFile(v *View) *commitFile {
	boundCodecs()
	return &commitFile{v: v, schema: arrowSchema(commitColumns(v)), out: newLaidFile()}
}

// properties say how each column is encoded. There are no statistics: rows are looked for in runs, not here.
func (f *commitFile) properties() *parquet.WriterProperties {
	props := []parquet.WriterProperty{parquet.WithCreatedBy(writerVersion), parquet.WithVersion(parquet.V2_LATEST), parquet.WithDictionaryDefault(false),
		parquet.WithStats(false), parquet.WithMaxRowGroupLength(2 * rowGroup)}
	for i, c := range f.schema.Fields() {
		switch c.Type.(type) {
		case *arrow.StringType, *arrow.BinaryType: // most keys of a batch come once: a dictionary of them is given up when it is full
			props = append(props, parquet.WithCompressionFor(c.Name, compress.Codecs.Zstd), parquet.WithCompressionLevelFor(c.Name, 1), parquet.WithDictionaryFor(c.Name, i >= len(f.v.Entity.Keys)))
		case *arrow.ListType:
			props = append(props, parquet.WithCompressionPath(parquet.ColumnPath{c.Name, "list", "element"}, compress.Codecs.Zstd))
		case *arrow.Decimal128Type:
			props = append(props, parquet.WithCompressionFor(c.Name, compress.Codecs.Zstd))
		}
	}
	return parquet.NewWriterProperties(props...)
}

// add takes rows in the schema of the file. They are written while the caller makes the next ones; what goes wrong there,
// close returns.
func (f *commitFile) add(rec arrow.Record) {
	if rec.NumRows() == 0 {
		return
	}
	f.rows += rec.NumRows()
	f.writes.do(func() error { return f.write(rec) })
}

// write writes rows, as soon as there are enough for a row group.
func (f *commitFile) write(rec arrow.Record) error {
	if err := f.out.keep(f.v, rec); err != nil {
		return err
	}
	f.waiting, f.few = append(f.waiting, rec), f.few+rec.NumRows()
	if f.few < rowGroup {
		return nil
	}
	return f.flush()
}

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
		f.w, err = pqarrow.NewFileWriter(f.schema, f.out, f.properties(), pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator)))
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

// stop waits for what is being done, whatever comes of it. It may be called after close.
func (f *commitFile) stop() {
	f.writes.stop()
	f.out.hashes.stop()
}

// close returns the file, nil when there are no rows.
func (f *commitFile) close() (*laidFile, error) {
	if err := f.writes.wait(); err != nil {
		return nil, err
	}
	if err := f.flush(); err != nil || f.w == nil {
		return nil, err
	}
	if err := f.w.Close(); err != nil {
		return nil, fmt.Errorf("close parquet: %w", err)
	}
	return f.out, f.out.end()
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

// commitRecords reads a commit's file in the columns that a view's commits have now; nothing when one of them is of another
// type, as no hub writes it, or of lists: readCommitFile reads such a file.
func commitRecords(v *View, data []byte) (out []arrow.Record, err error) {
	src, err := openParquet(data, anyNames, false)
	if err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "a commit's file cannot be read")
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
			return out, nil
		}
		if err != nil {
			return nil, waybill.Wrap(waybill.Corrupt, err, "a commit's file cannot be read")
		}
		arrays := make([]arrow.Array, len(cols))
		for i, c := range cols {
			place, there := places[c.Name]
			if !there || p.arrays[place] == nil || !arrow.TypeEqual(p.arrays[place].DataType(), schema.Field(i).Type) {
				return nil, nil
			}
			if arrays[i] = p.arrays[place]; arrays[i].NullN() > 0 && (i < len(v.Entity.Keys) || i == len(cols)-1) {
				return nil, nil
			}
		}
		out = append(out, array.NewRecord(schema, arrays, int64(p.rows)))
	}
}

// inTurn does one thing after another in a goroutine of its own, at most turnsAhead of which wait.
type inTurn struct {
	todo chan func() error
	end  chan error
	err  error
}

// turnsAhead is how many pieces of a file wait to be written: as many as keep the writer from waiting.
const turnsAhead = 2

func (t *inTurn) do(f func() error) {
	if t.todo == nil {
		t.todo, t.end = make(chan func() error, turnsAhead), make(chan error, 1)
		go func() {
			var err error
			for f := range t.todo {
				if err == nil {
					err = whole(f)
				}
			}
			t.end <- err
		}()
	}
	t.todo <- f
}

// whole makes an error of a panic, which would end the process here.
func whole(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// stop waits until everything was done. Nothing may be added after it.
func (t *inTurn) stop() {
	if t.todo != nil {
		close(t.todo)
		t.err, t.todo = <-t.end, nil
	}
}

// wait returns what went wrong, when everything was done.
func (t *inTurn) wait() error {
	t.stop()
	return t.err
}
