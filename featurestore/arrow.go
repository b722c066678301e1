package featurestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
)

// Messages are what an Arrow stream is cut into: an encapsulated message's metadata (a flatbuffer) and its body. next
// returns io.EOF after the last one; any other error is a stream that was cut, of which nothing is written.
// Source of the format: the Arrow columnar format, "Encapsulated message format".
type Messages func() (header, body []byte, err error)

// Bounds of an Arrow stream, beside those of files. Its batches wait in memory until the last has come.
const (
	MaxStreamBytes   = MaxFileBytes // of all batches when they are decompressed
	maxStreamMessage = 1 << 20      // messages
)

// IngestArrow validates the record batches of an Arrow stream and appends them to the view's log as one commit, as Ingest
// does with the rows of a file: req.Format and req.Body are not looked at. Rows are named by their number in the stream,
// from 1. Errors beside those of Ingest: TooLarge beyond MaxStreamBytes; whatever next failed with, as it is.
func (s *Store) IngestArrow(ctx context.Context, actor waybill.Actor, req IngestRequest, next Messages) (Commit, error) {
	v, err := s.writable(ctx, actor.Tenant, req.View)
	if err != nil {
		return Commit{}, err
	}
	if err := checkBatchID(req.BatchID); err != nil {
		return Commit{}, err
	}
	done, err := s.uploading.turn(ctx, actor.Tenant)
	if err != nil {
		return Commit{}, err
	}
	defer done()
	st, err := readStream(next, func(names []string) error {
		if err := rename(names, req.Columns); err != nil {
			return err
		}
		return checkNames(&v.View, names)
	})
	if err != nil {
		return Commit{}, err
	}
	defer st.release()
	if req.Rows != 0 && req.Rows != int64(st.rows) {
		return Commit{}, waybill.InvalidField("rows", fmt.Sprintf("are %d and %d came: the stream was cut or has more than was said; nothing was written", req.Rows, st.rows))
	}
	return s.ingest(ctx, actor, v, req, func() (*source, error) { return st.source(), nil })
}

// stream is the batches of an Arrow stream that has come to its end.
type stream struct {
	names   []string
	rows    int
	batches []arrow.Record
}

// messages makes a reader of the library from next.
type messages struct {
	next Messages
	n    int
	msg  *ipc.Message
	err  error // what next failed with
}

// Message returns the next message; it is good until the one after it.
func (m *messages) Message() (*ipc.Message, error) {
	m.Release()
	for {
		header, body, err := m.next()
		if err == nil {
			if m.n++; m.n > maxStreamMessage {
				err = waybill.Errorf(waybill.TooLarge, "the stream has more than %d batches; write larger ones", maxStreamMessage)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				m.err = err
			}
			return nil, err
		}
		if len(header) == 0 { // metadata of an application alone
			continue
		}
		if !soundMessage(header) {
			m.err = notArrow("its metadata contradicts itself")
			return nil, m.err
		}
		m.msg = ipc.NewMessage(memory.NewBufferBytes(header), memory.NewBufferBytes(body))
		return m.msg, nil
	}
}

// Retain does nothing: there is one owner.
func (m *messages) Retain() {}

// Release forgets the last message.
func (m *messages) Release() {
	if m.msg != nil {
		m.msg.Release()
		m.msg = nil
	}
}

// readStream reads an Arrow stream to its end. The library panics on some malformed messages; it and this function make
// errors of that. Names and types are accepted before any batch is decoded.
func readStream(next Messages, accept head) (_ *stream, err error) {
	m := &messages{next: next}
	defer m.Release()
	st := &stream{}
	defer func() {
		p := recover()
		if p != nil {
			err = notArrow(fmt.Sprint(p))
		}
		if m.err != nil { // what the library made of it says less
			err = m.err
		}
		if err != nil {
			st.release()
		}
	}()
	rd, err := ipc.NewReaderFromMessageReader(m, ipc.WithAllocator(&budget{Allocator: memory.NewGoAllocator(), most: MaxStreamBytes}))
	if errors.Is(err, io.EOF) {
		return nil, notArrow("it is empty")
	}
	if err != nil {
		return nil, notArrow(err.Error())
	}
	defer rd.Release()
	for _, f := range rd.Schema().Fields() {
		st.names = append(st.names, f.Name)
	}
	if err := checkHead(st.names, "stream", accept); err != nil {
		return nil, err
	}
	for i, f := range rd.Schema().Fields() {
		if err := streamable(f.Type); err != nil {
			return nil, waybill.InvalidField("column "+short(st.names[i]), err.Error())
		}
	}
	elements := int64(0) // of lists
	for rd.Next() {
		b := rd.Record()
		rows := int64(st.rows) + b.NumRows()
		if b.NumRows() < 0 || rows > MaxFileRows {
			return nil, waybill.Errorf(waybill.TooLarge, "the stream has %d rows or more; at most %d", rows, MaxFileRows)
		}
		for _, c := range b.Columns() {
			elements += int64(min(inner(c), maxFileCells+1))
		}
		if cells := rows*int64(len(st.names)) + elements; cells > maxFileCells {
			return nil, waybill.Errorf(waybill.TooLarge, "the stream has %d values or more; at most %d, so cut it into several", cells, maxFileCells)
		}
		b.Retain()
		st.batches, st.rows = append(st.batches, b), int(rows)
	}
	if err := rd.Err(); err != nil && m.err == nil {
		if errors.Is(err, errMemory) || isMemory(err) {
			return nil, waybill.Errorf(waybill.TooLarge, "the batches of the stream have more than %d MiB; cut it into several streams", MaxStreamBytes>>20)
		}
		return nil, notArrow(err.Error())
	}
	if st.rows == 0 && m.err == nil {
		return nil, waybill.InvalidField("stream", "has no rows")
	}
	return st, nil
}

// isMemory finds errMemory in what the library makes of a panic: an error that says the same.
func isMemory(err error) bool { return bytes.Contains([]byte(err.Error()), []byte(errMemory.Error())) }

func notArrow(why string) error {
	return waybill.InvalidField("stream", "is not an Arrow stream that can be read: "+short(why))
}

func (st *stream) release() {
	for _, b := range st.batches {
		b.Release()
	}
	st.batches = nil
}

// source is the rows of the batches, each of which is a piece.
func (st *stream) source() *source {
	return &source{names: st.names, pieces: func() func() (*piece, error) {
		n, first, text := 0, 0, 0
		return func() (*piece, error) {
			for n < len(st.batches) && st.batches[n].NumRows() == 0 {
				n++
			}
			if n == len(st.batches) {
				return nil, io.EOF
			}
			p, err := st.piece(st.batches[n], first, &text)
			if err != nil {
				return nil, err
			}
			n, first = n+1, first+p.rows
			return p, nil
		}
	}}
}

// piece makes a piece of a batch whose first row has the number first. An array that contradicts itself panics when it is
// looked at; that is an error here, and afterwards it can be looked at anywhere.
func (st *stream) piece(b arrow.Record, first int, text *int) (_ *piece, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = notArrow(fmt.Sprint(p))
		}
	}()
	arrays := make([]arrow.Array, b.NumCols())
	for c, a := range b.Columns() {
		if a.Len() != int(b.NumRows()) {
			return nil, notArrow("a batch has columns of different lengths")
		}
		if *text += sound(a); *text > maxText {
			return nil, waybill.Errorf(waybill.TooLarge, "the stream holds more than %d MiB of text; cut it into several", maxText>>20)
		}
		if arrays[c], err = plainTexts(a); err != nil {
			return nil, waybill.InvalidField("column "+short(st.names[c]), err.Error())
		}
	}
	return newPiece(first, int(b.NumRows()), arrays, nil, rowLine(first))
}

// sound panics when an array points outside of itself, and returns how many bytes its texts have.
func sound(a arrow.Array) (text int) {
	switch a := a.(type) {
	case *array.String:
		for i := range a.Len() {
			text += len(a.Value(i))
		}
	case *array.LargeString:
		for i := range a.Len() {
			text += len(a.Value(i))
		}
	case *array.Binary:
		for i := range a.Len() {
			text += len(a.Value(i))
		}
	case *array.LargeBinary:
		for i := range a.Len() {
			text += len(a.Value(i))
		}
	case *array.Dictionary:
		n := a.Dictionary().Len()
		for i := range a.Len() {
			if a.IsValid(i) && a.GetValueIndex(i) >= n {
				panic("an index is beyond its dictionary")
			}
		}
		return sound(a.Dictionary())
	case array.ListLike:
		n := int64(a.ListValues().Len())
		for i := range a.Len() {
			if from, to := a.ValueOffsets(i); a.IsValid(i) && (from < 0 || from > to || to > n) {
				panic("a list is beyond its values")
			}
		}
		return sound(a.ListValues())
	}
	return text
}

// plainTexts makes a column of texts of one whose texts lie in a dictionary or have long offsets: they are checked and laid
// out as one. Other columns stay as they are.
func plainTexts(a arrow.Array) (arrow.Array, error) {
	var at func(i int) (string, bool)
	switch a := a.(type) {
	case *array.LargeString:
		at = func(i int) (string, bool) { return a.Value(i), true }
	case *array.Dictionary:
		words, err := plainTexts(a.Dictionary())
		texts, ok := words.(*array.String)
		if err != nil || !ok {
			return a, err
		}
		at = func(i int) (string, bool) {
			n := a.GetValueIndex(i)
			return texts.Value(n), texts.IsValid(n)
		}
	default:
		return a, nil
	}
	size := 0
	for i := range a.Len() {
		if a.IsValid(i) {
			s, _ := at(i)
			size += len(s)
		}
	}
	if size > maxText {
		return nil, waybill.Errorf(waybill.TooLarge, "the column has more than %d MiB of text; cut the stream into several", maxText>>20)
	}
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(a.Len())
	b.ReserveData(size)
	for i := range a.Len() {
		s, ok := "", a.IsValid(i)
		if ok {
			s, ok = at(i)
		}
		if ok {
			b.Append(s)
		} else {
			b.AppendNull()
		}
	}
	return b.NewArray(), nil
}

// streamable says whether cells knows a type of a stream: those of files, and how clients write lists of one length,
// long lists, repeated texts and columns of nulls.
func streamable(t arrow.DataType) error {
	switch t := t.(type) {
	case *arrow.FixedSizeListType:
		return readable(t.Elem())
	case *arrow.LargeListType:
		return readable(t.Elem())
	case *arrow.LargeBinaryType, *arrow.NullType:
		return nil
	case *arrow.DictionaryType:
		if t.ValueType.ID() == arrow.STRING || t.ValueType.ID() == arrow.LARGE_STRING {
			return nil
		}
		return fmt.Errorf("has the type %s; of dictionaries only those of strings are read", t)
	}
	return readable(t)
}

// inner counts the values in the lists of an array.
func inner(a arrow.Array) int {
	if l, ok := a.(array.ListLike); ok {
		return l.ListValues().Len()
	}
	return 0
}

// arrowSchema is the Arrow schema of columns: what a stream of them has.
func arrowSchema(cols []Column) *arrow.Schema {
	fields := make([]arrow.Field, len(cols))
	for i, c := range cols {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: true}
	}
	return arrow.NewSchema(fields, nil)
}

// ArrowSchema is the schema of the streams that IngestArrow takes for a view: join keys, features and event_time. A feature
// may be left out, and another type of the same meaning (a large list, a float32 for a float64) is taken.
func (v *View) ArrowSchema() *arrow.Schema { return arrowSchema(commitColumns(v)) }

// ArrowSchema is the schema of the batches of TrainingSetRecords.
func (t *TrainingSet) ArrowSchema() *arrow.Schema {
	cols := make([]Column, len(t.Columns))
	for i, c := range t.Columns {
		cols[i] = Column{Name: c.Name, Type: c.Type}
	}
	return arrowSchema(cols)
}

// recordBytes is about how large a batch of TrainingSetRecords is.
const recordBytes = 1 << 20

// TrainingSetRecords calls each with the rows of a training set in their order, batch by batch, about a MiB each; a record
// is released when each returns. Values and nulls are those of the Parquet file. It waits for its turn as OpenTrainingSet.
func (s *Store) TrainingSetRecords(ctx context.Context, tenant waybill.Tenant, digest string, each func(rec arrow.Record) error) error {
	t, err := s.TrainingSet(ctx, tenant, digest)
	if err != nil {
		return err
	}
	done, err := s.downloading.turn(ctx, tenant)
	if err != nil {
		return err
	}
	defer done()
	data, err := s.object(ctx, setPrefix+"/"+t.Digest)
	if err != nil {
		return err
	}
	schema := t.ArrowSchema()
	batch := max(256, min(64<<10, recordBytes/(8*int64(len(t.Columns)))))
	err = eachRecord(ctx, data, batch, func(rec arrow.Record) error {
		if int(rec.NumCols()) != schema.NumFields() {
			return errors.New("the file has other columns")
		}
		for i, c := range rec.Columns() {
			if !arrow.TypeEqual(c.DataType(), schema.Field(i).Type) {
				return fmt.Errorf("the column %s has the type %s", schema.Field(i).Name, c.DataType())
			}
		}
		out := array.NewRecord(schema, rec.Columns(), rec.NumRows())
		defer out.Release()
		return each(out)
	})
	if err != nil && waybill.CodeOf(err) == waybill.Internal && ctx.Err() == nil {
		return waybill.Wrap(waybill.Corrupt, err, "the training set "+t.Digest+" cannot be read")
	}
	return err
}

// eachRecord reads a Parquet file that was written here.
func eachRecord(ctx context.Context, data []byte, batch int64, each func(rec arrow.Record) error) error {
	boundCodecs()
	f, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("open parquet: %w", err)
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: batch}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("read parquet: %w", err)
	}
	records, err := rd.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("read parquet: %w", err)
	}
	defer records.Release()
	for records.Next() {
		if err := each(records.Record()); err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read parquet: %w", err)
	}
	return ctx.Err()
}
