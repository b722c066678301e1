package featurestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"waybill"
)

// MaxBatch bounds how many rows one read may ask for.
const MaxBatch = 1000

// Batch is a read of many rows at the speed of the wire: it is filled with inputs, answered once, and what it answers is
// read value by value without boxing. It is not safe for concurrent use. Call Release when its values were used.
type Batch struct {
	reader *Reader
	now    time.Time
	rows   int
	inputs []input // row by row
	asks   []ask   // one per view, with its keys
	hits   []hit   // view by view
	points []int64 // per view: the sequence point
	stood  []standing
	ahead  map[standIn]hit // rows that may stand in and were asked for at once
	boxed  bool            // cells are made
	cells  [][]Cell        // per row, when the reader computes or the caller wants them
}

// input is a value as it came in.
type input struct {
	kind  inputKind
	num   float64
	text  []byte // the caller's; not changed
	other any
}

type inputKind uint8

const (
	inputNull inputKind = iota
	inputNumber
	inputText
	inputOther
)

// any boxes an input.
func (in *input) any() any {
	switch in.kind {
	case inputNumber:
		return in.num
	case inputText:
		return string(in.text)
	case inputOther:
		return in.other
	case inputNull:
	}
	return nil
}

var batchPool = sync.Pool{New: func() any { return new(Batch) }} //nolint:gochecknoglobals // a pool is one by its nature

// Batch begins a read of rows rows, 1 to MaxBatch. All inputs are null at first.
func (r *Reader) Batch(rows int) (*Batch, error) {
	if rows < 1 || rows > MaxBatch {
		return nil, waybill.InvalidField("rows", "must be 1 to "+strconv.Itoa(MaxBatch))
	}
	return r.batch(rows), nil
}

// batch begins a read of any number of rows.
func (r *Reader) batch(rows int) *Batch {
	b, ok := batchPool.Get().(*Batch)
	if !ok {
		b = new(Batch)
	}
	b.reader, b.rows, b.boxed = r, rows, len(r.exprs) > 0 || r.chained
	b.inputs = resize(b.inputs, rows*len(r.service.Inputs))
	clear(b.inputs)
	return b
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// Release gives the batch back. Neither it nor what it returned may be used afterwards.
func (b *Batch) Release() {
	clear(b.hits) // they hold slabs
	for i := range b.asks {
		b.asks[i].online, b.asks[i].hits = nil, nil
	}
	clear(b.stood)
	clear(b.ahead)
	clear(b.inputs)
	clear(b.cells)
	b.reader = nil
	batchPool.Put(b)
}

// Input returns the place of an input by its name, −1 when the service has none of that name.
func (r *Reader) Input(name []byte) int {
	for i := range r.service.Inputs {
		if r.service.Inputs[i].Name == string(name) {
			return i
		}
	}
	return -1
}

// SetNumber, SetText and Set give an input of a row its value. text must not change before Release.
func (b *Batch) SetNumber(row, input int, x float64) {
	in := b.at(row, input)
	in.kind, in.num = inputNumber, x
}

// SetText sets a text.
func (b *Batch) SetText(row, input int, text []byte) {
	in := b.at(row, input)
	in.kind, in.text = inputText, text
}

// Set sets a value as JSON has it.
func (b *Batch) Set(row, input int, v any) {
	in := b.at(row, input)
	in.kind, in.other = inputOther, v
}

func (b *Batch) at(row, input int) *input { return &b.inputs[row*len(b.reader.service.Inputs)+input] }

// Read answers the batch as of now, each view at one sequence point. Errors: Invalid for inputs that do not fit, by name;
// Unavailable while the log of a view has not been read, or when online rows live elsewhere and are lost there.
func (b *Batch) Read(ctx context.Context, now time.Time) error {
	r := b.reader
	b.now = now
	b.asks, b.points, b.hits = resize(b.asks, len(r.views)), resize(b.points, len(r.views)), resize(b.hits, len(r.views)*b.rows)
	clear(b.hits)
	b.cells = b.cells[:0]
	if b.boxed {
		for i := range b.rows {
			if err := b.box(i); err != nil {
				return err
			}
		}
	}
	for v := range r.views {
		b.points[v] = newest
		if err := b.askFor(v); err != nil {
			return err
		}
	}
	if !b.boxed {
		if err := b.check(); err != nil {
			return err
		}
	}
	if err := r.find(ctx, now.UnixMicro(), b.asks, b.points); err != nil {
		return err
	}
	if !b.boxed {
		return nil
	}
	for i := range b.rows {
		for j := range r.features {
			f := &r.features[j]
			b.cells[i] = append(b.cells[i], f.cell(&b.hits[f.view*b.rows+i], r.online[f.view].layout))
		}
	}
	if r.chained {
		if err := b.fetchStandIns(ctx); err != nil {
			return err
		}
	}
	for i := range b.rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.chained {
			if err := b.fallBack(ctx, i); err != nil {
				return err
			}
		}
		var err error
		if b.cells[i], err = r.evaluate(b.cells[i]); err != nil {
			return err
		}
	}
	return nil
}

// box makes the cells of a row's inputs.
func (b *Batch) box(i int) error {
	r := b.reader
	cells := make([]Cell, 0, len(r.service.Inputs)+len(r.features)+len(r.exprs))
	for k := range r.service.Inputs {
		c := &r.service.Inputs[k]
		v, err := typed(*c, requested(c.Type, b.at(i, k).any()))
		if err != nil {
			return waybill.InvalidField(fmt.Sprintf("rows[%d].%s", i, c.Name), err.Error())
		}
		cells = append(cells, cellOf(c.Name, v))
	}
	b.cells = append(b.cells, cells)
	return nil
}

// askFor makes the keys of a view: of all rows, or of none for a view that only stands in for others.
func (b *Batch) askFor(v int) (err error) {
	l, a := &b.reader.views[v], &b.asks[v]
	a.view, a.keys, a.ends, a.hits = v, a.keys[:0], a.ends[:0], b.hits[v*b.rows:(v+1)*b.rows]
	if l.keys == nil {
		return nil
	}
	for i := range b.rows {
		for j, k := range l.keys {
			in := &b.reader.service.Inputs[k]
			if !b.boxed {
				a.keys, err = l.appendInput(a.keys, j, in, b.at(i, k))
			} else if value := b.cells[i][k].Value; value == nil {
				err = errMissing
			} else {
				a.keys = appendKey(a.keys, l.tokens.tokenise(l.columns[j], value))
			}
			if err != nil {
				return waybill.InvalidField(fmt.Sprintf("rows[%d].%s", i, in.Name), err.Error()+"; it is a join key of "+l.ref.String())
			}
		}
		a.ends = append(a.ends, len(a.keys))
	}
	return nil
}

// appendInput writes join key j of the view, which came in as an input. The usual types go straight from the wire to the key.
func (l *lookup) appendInput(b []byte, j int, c *Column, in *input) ([]byte, error) {
	plain := l.plain[j]
	switch {
	case in.kind == inputNumber && plain && c.Type == Int64 && in.num == math.Trunc(in.num) && math.Abs(in.num) < 1<<53:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(int64(in.num))), nil
	case in.kind == inputText && plain && c.Type == String && len(in.text) <= maxScalar && utf8.Valid(in.text) && bytes.IndexByte(in.text, 0) < 0:
		b = binary.BigEndian.AppendUint32(append(b, 's'), uint32(len(in.text)))
		return append(b, in.text...), nil
	}
	v, err := typed(*c, requested(c.Type, in.any()))
	if err != nil {
		return b, err
	}
	if v == nil {
		return b, errMissing
	}
	return appendKey(b, l.tokens.tokenise(l.columns[j], v)), nil
}

var errMissing = fmt.Errorf("is missing")

// check types the inputs that are no join keys.
func (b *Batch) check() error {
	for _, k := range b.reader.unkeyed {
		c := &b.reader.service.Inputs[k]
		for i := range b.rows {
			if _, err := typed(*c, requested(c.Type, b.at(i, k).any())); err != nil {
				return waybill.InvalidField(fmt.Sprintf("rows[%d].%s", i, c.Name), err.Error())
			}
		}
	}
	return nil
}

// inputCell returns an input as a cell; it was checked.
func (b *Batch) inputCell(i, k int) Cell {
	c := b.reader.service.Inputs[k]
	v, err := typed(c, requested(c.Type, b.at(i, k).any()))
	if err != nil {
		v = nil
	}
	return cellOf(c.Name, v)
}

// Rows is how many rows the batch has.
func (b *Batch) Rows() int { return b.rows }

// Views calls each with the view versions that were read and the commit up to which each was seen.
func (b *Batch) Views(each func(view waybill.VersionRef, seq int64)) {
	for v := range b.reader.views {
		each(b.reader.views[v].ref, b.points[v])
	}
}

// Source says where an output comes from: the number of its view among the reader's, or −1 for inputs. It says nothing
// about outputs that have a Cell.
func (r *Reader) Source(output int) int {
	n := r.places[output] - len(r.service.Inputs)
	if n < 0 || n >= len(r.features) {
		return -1
	}
	return r.features[n].view
}

// Sources is how many views are read.
func (r *Reader) Sources() int { return len(r.views) }

// Cell returns an output with where it came from when the reader computes: it has expressions, or views that stand in for
// others. Otherwise it returns nil, and Value and Hit say the same without making a Cell.
func (b *Batch) Cell(row, output int) *Cell {
	if len(b.cells) == 0 {
		return nil
	}
	return &b.cells[row][b.reader.places[output]]
}

// StandsIn returns the view whose row an output is of, when that is not the view that the service names.
func (b *Batch) StandsIn(row, output int) (view waybill.VersionRef, ok bool) {
	r := b.reader
	n := r.places[output] - len(r.service.Inputs)
	if !r.chained || n < 0 {
		return view, false
	}
	if n >= len(r.features) { // an expression of a view is of its row
		if n = r.exprs[n-len(r.features)].row - len(r.service.Inputs); n < 0 {
			return view, false
		}
	}
	c := &b.cells[row][r.places[output]]
	return c.View, c.View != r.features[n].ref.View
}

// Hit says what the row of a view is worth for a row of the batch: Present, OutsideMaxAge or NotFound, its event time (µs)
// and commit; both are 0 for NotFound.
func (b *Batch) Hit(row, view int) (status Status, event, seq int64) {
	h := &b.hits[view*b.rows+row]
	return h.status, h.event, h.seq
}

// The kinds of a Raw.
const (
	RawNull = iota
	RawBool
	RawInt
	RawFloat
	RawText
	RawTime
	RawOther
)

// Raw is a value without a box.
type Raw struct {
	Kind  int     // RawNull …
	Int   int64   // RawBool (0, 1), RawInt, RawTime (µs)
	Float float64 // RawFloat
	Text  []byte  // RawText; must not be changed
	Other any     // RawOther: []byte, Decimal, []any, []float32
}

// Value reads an output of a row. A value whose view's row is not Present is null.
func (b *Batch) Value(row, output int, out *Raw) {
	r := b.reader
	place := r.places[output]
	n := place - len(r.service.Inputs)
	switch {
	case len(b.cells) > 0:
		out.set(b.cells[row][place].Value)
		return
	case n < 0:
		out.set(b.inputCell(row, place).Value)
		return
	}
	f := &r.features[n]
	h := &b.hits[f.view*b.rows+row]
	if h.status != Present || h.null(f.index) {
		out.Kind = RawNull
		return
	}
	l := r.online[f.view].layout
	s := &l.features[f.index]
	at := h.body[l.bitmap+s.at:]
	switch s.kind {
	case kindFloat64:
		out.Kind, out.Float = RawFloat, math.Float64frombits(binary.LittleEndian.Uint64(at))
	case kindFloat32:
		out.Kind, out.Float = RawFloat, float64(math.Float32frombits(binary.LittleEndian.Uint32(at)))
	case kindInt64:
		out.Kind, out.Int = RawInt, int64(binary.LittleEndian.Uint64(at))
	case kindInt32:
		out.Kind, out.Int = RawInt, int64(int32(binary.LittleEndian.Uint32(at)))
	case kindBool:
		out.Kind, out.Int = RawBool, int64(at[0])
	case kindTimestamp:
		out.Kind, out.Int = RawTime, int64(binary.LittleEndian.Uint64(at))
	case kindString:
		out.Kind, out.Text = RawText, l.span(&h.packed, s)
	case kindBytes, kindDecimal, kindList, kindVector:
		out.Kind, out.Other = RawOther, l.value(&h.packed, f.index)
	}
}

func (out *Raw) set(v any) {
	switch v := v.(type) {
	case nil:
		out.Kind = RawNull
	case bool:
		out.Kind, out.Int = RawBool, 0
		if v {
			out.Int = 1
		}
	case int64:
		out.Kind, out.Int = RawInt, v
	case float64:
		out.Kind, out.Float = RawFloat, v
	case string:
		out.Kind, out.Text = RawText, []byte(v)
	case time.Time:
		out.Kind, out.Int = RawTime, v.UnixMicro()
	default:
		out.Kind, out.Other = RawOther, v
	}
}
