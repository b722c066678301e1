package featurestore

import (
	"bytes"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// A file's rows are checked a column at a time: lay turns a column as it came into the array that a commit's file has. It
// says yes only to columns of which typed would take every cell, and gives what typed would give. What is wrong with a
// column it does not say: that is for check, which looks at the rows of such a piece one after another.

// laid checks the rows of pieces for a view.
type laid struct {
	columns []Column // of a commit's file: keys, features, event_time
	places  []int    // of each in a piece; −1 for a feature that the file does not have
	schema  *arrow.Schema
	latest  int64 // µs: rows of later events are refused
	tokens  tokens
}

func newLaid(v *View, names []string, now time.Time, tk tokens) *laid {
	l := &laid{columns: commitColumns(v), latest: now.Add(futureTolerance).UnixMicro(), tokens: tk}
	l.schema = arrowSchema(l.columns)
	for i := range l.columns {
		l.columns[i].Required = l.columns[i].Required || i < len(v.Entity.Keys) || i == len(l.columns)-1
		place := -1
		for j, n := range names {
			if n == l.columns[i].Name {
				place = j
			}
		}
		l.places = append(l.places, place)
	}
	return l
}

// record returns a piece's rows as a commit's file has them, nil when a row is wrong.
func (l *laid) record(p *piece) arrow.Record {
	cols := make([]arrow.Array, len(l.columns))
	for i := range l.columns {
		c := &l.columns[i]
		if l.places[i] < 0 {
			if c.Required {
				return nil
			}
			cols[i] = array.MakeArrayOfNull(memory.DefaultAllocator, arrowType(c.Type), p.rows)
			continue
		}
		a := lay(c, p, l.places[i])
		if a == nil || c.Required && a.NullN() > 0 {
			return nil
		}
		if c.personal() {
			a = l.tokens.array(*c, a)
		}
		cols[i] = a
	}
	events, ok := cols[len(cols)-1].(*array.Timestamp)
	if !ok {
		return nil
	}
	for _, e := range events.TimestampValues() {
		if int64(e) > l.latest {
			return nil
		}
	}
	return array.NewRecord(l.schema, cols, int64(p.rows))
}

// lay converts a column of a piece, nil when a cell is not one that typed takes.
func lay(c *Column, p *piece, place int) arrow.Array {
	a := p.arrays[place]
	switch c.Type {
	case Float64:
		if a, ok := a.(*array.Float64); ok {
			return layFloat64(c, a)
		}
		if at := realsOf(a); at != nil {
			return layReals(c, a, arrow.Float64Traits.CastToBytes, func(x float64) float64 { return x }, at)
		}
	case Float32:
		if at := realsOf(a); at != nil {
			return layReals(c, a, arrow.Float32Traits.CastToBytes, func(x float64) float32 { return float32(x) }, at)
		}
	case Int64:
		if a, ok := a.(*array.Int64); ok && c.Min == nil && c.Max == nil {
			return a
		}
		if at := wholesOf(a); at != nil {
			return layWholes(c, a, arrow.Int64Traits.CastToBytes, func(n int64) (int64, bool) { return n, true }, at)
		}
	case Int32:
		if at := wholesOf(a); at != nil {
			return layWholes(c, a, arrow.Int32Traits.CastToBytes, func(n int64) (int32, bool) { return int32(n), n == int64(int32(n)) }, at)
		}
	case Bool:
		if a, ok := a.(*array.Boolean); ok {
			return a
		}
	case Timestamp:
		switch a := a.(type) {
		case *array.Timestamp:
			return layTimes(a)
		case *array.String:
			return layTimeTexts(a)
		}
	case String:
		if a, ok := a.(*array.String); ok {
			if out := layTexts(c, a); out != nil {
				return out
			}
		}
	case Bytes:
		if a, ok := a.(*array.Binary); ok {
			for i := range a.Len() {
				if a.IsValid(i) && c.fits(a.ValueLen(i)) != nil {
					return nil
				}
			}
			return a
		}
	default:
	}
	return layCells(c, p, place)
}

// layCells converts cell by cell: what comes seldom, and what takes long anyway.
func layCells(c *Column, p *piece, place int) arrow.Array {
	b := array.NewBuilder(memory.DefaultAllocator, arrowType(c.Type))
	defer b.Release()
	b.Reserve(p.rows)
	for i := range p.rows {
		x, err := typed(*c, p.cell(i, place))
		if err != nil || appendValue(b, x) != nil {
			return nil
		}
	}
	return b.NewArray()
}

// bounds are what a column's numbers must lie in; what is not finite never does.
func (c *Column) bounds() (lo, hi float64) {
	lo, hi = -math.MaxFloat64, math.MaxFloat64
	if c.Min != nil {
		lo = *c.Min
	}
	if c.Max != nil {
		hi = *c.Max
	}
	return lo, hi
}

// layFloat64 takes an array as it is, unless some of its numbers are NaN: these become nulls.
func layFloat64(c *Column, a *array.Float64) arrow.Array {
	lo, hi := c.bounds()
	missing := false
	for i, x := range a.Float64Values() {
		if x >= lo && x <= hi || a.IsNull(i) {
			continue
		}
		if !math.IsNaN(x) {
			return nil
		}
		missing = true
	}
	if !missing {
		return a
	}
	return layReals(c, a, arrow.Float64Traits.CastToBytes, func(x float64) float64 { return x }, func(i int) (float64, bool) { return a.Value(i), true })
}

// layReals makes an array of real numbers; at returns false for what is none.
func layReals[T float32 | float64](c *Column, a arrow.Array, raw func([]T) []byte, to func(float64) T, at func(i int) (float64, bool)) arrow.Array {
	lo, hi := c.bounds()
	out, valid := make([]T, a.Len()), validity{n: a.Len()}
	for i := range out {
		if a.IsNull(i) {
			valid.mark(i, false)
			continue
		}
		x, ok := at(i)
		if !ok {
			return nil
		}
		v := to(x)
		switch y := float64(v); {
		case math.IsNaN(y):
			valid.mark(i, false)
		case y >= lo && y <= hi:
			out[i] = v
		default:
			return nil
		}
	}
	return valid.array(arrowType(c.Type), raw(out))
}

// layWholes makes an array of whole numbers; at and to return false for what is none.
func layWholes[T int32 | int64](c *Column, a arrow.Array, raw func([]T) []byte, to func(int64) (T, bool), at func(i int) (int64, bool)) arrow.Array {
	lo, hi := c.bounds()
	out, valid := make([]T, a.Len()), validity{n: a.Len()}
	for i := range out {
		if a.IsNull(i) {
			valid.mark(i, false)
			continue
		}
		n, ok := at(i)
		if !ok || float64(n) < lo || float64(n) > hi {
			return nil
		}
		if out[i], ok = to(n); !ok {
			return nil
		}
	}
	return valid.array(arrowType(c.Type), raw(out))
}

// realsOf reads numbers and texts of numbers as convert does; nil for other arrays.
func realsOf(a arrow.Array) func(i int) (float64, bool) {
	switch a := a.(type) {
	case *array.Float64:
		return func(i int) (float64, bool) { return a.Value(i), true }
	case *array.Float32:
		return func(i int) (float64, bool) { return float64(a.Value(i)), true }
	case *array.String:
		return func(i int) (float64, bool) {
			x, err := strconv.ParseFloat(a.Value(i), 64)
			return x, err == nil
		}
	}
	if whole := wholesOf(a); whole != nil {
		return func(i int) (float64, bool) {
			n, ok := whole(i)
			return float64(n), ok
		}
	}
	return nil
}

// wholesOf reads whole numbers and texts of them as convert does; nil for other arrays.
func wholesOf(a arrow.Array) func(i int) (int64, bool) {
	switch a := a.(type) {
	case *array.Int8:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Int16:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Int32:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Int64:
		return func(i int) (int64, bool) { return a.Value(i), true }
	case *array.Uint8:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Uint16:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Uint32:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.String:
		return func(i int) (int64, bool) {
			n, err := strconv.ParseInt(a.Value(i), 10, 64)
			return n, err == nil
		}
	}
	return nil
}

// The times that toTime takes, in µs: the first, and the first after them.
var (
	firstTime = time.Date(minYear, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	endOfTime = time.Date(maxYear+1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
)

// layTimes makes an array of µs.
func layTimes(a *array.Timestamp) arrow.Array {
	t, ok := a.DataType().(*arrow.TimestampType)
	if !ok {
		return nil
	}
	in := a.TimestampValues()
	times, div := int64(1), int64(1)
	switch t.Unit {
	case arrow.Second:
		times = 1_000_000
	case arrow.Millisecond:
		times = 1000
	case arrow.Microsecond:
	case arrow.Nanosecond:
		div = 1000
	}
	// In the file's own unit, where nothing overflows.
	first, end := firstTime/times*div, endOfTime/times*div
	if div > 1 { // 64 bits of nanoseconds end in 2262 and begin in 1677
		first, end = firstTime*div, endOfTime*div
	}
	out, valid := make([]int64, len(in)), validity{n: len(in)}
	for i, v := range in {
		switch n := int64(v); {
		case a.IsNull(i):
			valid.mark(i, false)
		case n < first || n >= end:
			return nil
		case div == 1:
			out[i] = n * times
		default:
			if out[i] = n / div; n%div < 0 {
				out[i]--
			}
		}
	}
	return valid.array(arrowType(Timestamp), arrow.Int64Traits.CastToBytes(out))
}

// layTimeTexts makes an array of µs from texts.
func layTimeTexts(a *array.String) arrow.Array {
	out, valid := make([]int64, a.Len()), validity{n: a.Len()}
	for i := range out {
		if a.IsNull(i) {
			valid.mark(i, false)
			continue
		}
		t, err := toTime(a.Value(i))
		if err != nil {
			return nil
		}
		out[i] = t.UnixMicro()
	}
	return valid.array(arrowType(Timestamp), arrow.Int64Traits.CastToBytes(out))
}

// layTexts takes an array as it is; nil when a text does not fit the column or has to be mended.
func layTexts(c *Column, a *array.String) arrow.Array {
	free := len(c.Values) == 0 && c.Pattern == nil && (a.NullN() == a.Len() || bytes.IndexByte(a.ValueBytes(), 0) < 0)
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		s := a.Value(i)
		if !utf8.ValidString(s) || free && c.fits(len(s)) != nil || !free && c.heldTo(s) != nil {
			return nil
		}
	}
	return a
}

// array is an array of fixed width with this validity.
func (v *validity) array(t arrow.DataType, raw []byte) arrow.Array {
	return array.MakeFromData(array.NewData(t, v.n, []*memory.Buffer{v.buffer(), memory.NewBufferBytes(raw)}, nil, v.nulls, 0))
}
