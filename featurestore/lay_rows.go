package featurestore

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// What rows look like in bytes, straight from the columns of a commit's file: as in a content digest and a join key
// (appendKey), and packed (layout.appendBody). Only lists and decimals become Go values in between.

// appender appends the value in place i of a column as appendKey does; nothing for null.
type appender func(b []byte, i int) []byte

// appenderOf makes the appender of a column of type t.
func appenderOf(t Type, a arrow.Array) appender {
	at := func(b []byte, i int) []byte {
		v, err := valueAt(t, a, i)
		if err != nil {
			return b // cannot be: the array is of the type
		}
		return appendKey(b, v)
	}
	switch a := a.(type) {
	case *array.Boolean:
		at = func(b []byte, i int) []byte {
			if a.Value(i) {
				return append(b, 'b', 2)
			}
			return append(b, 'b', 1)
		}
	case *array.Int32:
		at = func(b []byte, i int) []byte {
			return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(int64(a.Value(i))))
		}
	case *array.Int64:
		at = func(b []byte, i int) []byte { return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(a.Value(i))) }
	case *array.Float32:
		at = func(b []byte, i int) []byte {
			return binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(float64(a.Value(i))))
		}
	case *array.Float64:
		at = func(b []byte, i int) []byte {
			return binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(a.Value(i)))
		}
	case *array.Timestamp:
		at = func(b []byte, i int) []byte { return binary.BigEndian.AppendUint64(append(b, 't'), uint64(a.Value(i))) }
	case *array.String:
		at = func(b []byte, i int) []byte {
			s := a.Value(i)
			return append(binary.BigEndian.AppendUint32(append(b, 's'), uint32(len(s))), s...)
		}
	case *array.Binary:
		at = func(b []byte, i int) []byte {
			s := a.Value(i)
			return append(binary.BigEndian.AppendUint32(append(b, 'y'), uint32(len(s))), s...)
		}
	}
	if a.NullN() == 0 {
		return at
	}
	return func(b []byte, i int) []byte {
		if a.IsNull(i) {
			return b
		}
		return at(b, i)
	}
}

// packer makes packed rows of a record of a commit's file.
type packer struct {
	l        *layout
	events   *array.Timestamp
	keys     []appender
	features []arrow.Array
	put      []func(b []byte, at, i int) []byte // of each feature: writes to its place in the fixed section, which begins at at, or appends
	key      []byte
}

func newPacker(l *layout, v *View, rec arrow.Record) (*packer, error) {
	keys := len(v.Entity.Keys)
	events, ok := rec.Column(int(rec.NumCols()) - 1).(*array.Timestamp)
	if !ok || int(rec.NumCols()) != keys+len(v.Features)+1 {
		return nil, fmt.Errorf("it has other columns than its view")
	}
	p := &packer{l: l, events: events, features: rec.Columns()[keys : keys+len(v.Features)]}
	for i, k := range v.Entity.Keys {
		p.keys = append(p.keys, appenderOf(k.Type, rec.Column(i)))
	}
	for i, f := range v.Features {
		p.put = append(p.put, putterOf(&l.features[i], f.Type, p.features[i]))
	}
	return p, nil
}

// append appends row i as commit seq, known since knowledge (µs).
func (p *packer) append(b []byte, i int, knowledge, seq int64) []byte {
	p.key = p.key[:0]
	for _, k := range p.keys {
		p.key = k(p.key, i)
	}
	b = appendHead(b, int64(p.events.Value(i)), knowledge, seq, string(p.key))
	from := len(b)
	fixed := from + p.l.bitmap
	n := p.l.bitmap + p.l.fixed
	for range n { // compiled to one clearing
		b = append(b, 0)
	}
	variable := len(b)
	for f, a := range p.features {
		s := &p.l.features[f]
		if a.IsNull(i) {
			b[from+f/8] |= 1 << (f % 8)
		} else {
			b = p.put[f](b, fixed+s.at, i)
		}
		if s.variable() {
			binary.LittleEndian.PutUint32(b[fixed+s.at:], uint32(len(b)-variable))
		}
	}
	return b
}

// putterOf writes the values of a column that are not null.
func putterOf(s *slotOf, t Type, a arrow.Array) func(b []byte, at, i int) []byte {
	switch a := a.(type) {
	case *array.Boolean:
		return func(b []byte, at, i int) []byte {
			if a.Value(i) {
				b[at] = 1
			}
			return b
		}
	case *array.Int32:
		return func(b []byte, at, i int) []byte {
			binary.LittleEndian.PutUint32(b[at:], uint32(a.Value(i)))
			return b
		}
	case *array.Int64:
		return func(b []byte, at, i int) []byte {
			binary.LittleEndian.PutUint64(b[at:], uint64(a.Value(i)))
			return b
		}
	case *array.Float32:
		return func(b []byte, at, i int) []byte {
			binary.LittleEndian.PutUint32(b[at:], math.Float32bits(a.Value(i)))
			return b
		}
	case *array.Float64:
		return func(b []byte, at, i int) []byte {
			binary.LittleEndian.PutUint64(b[at:], math.Float64bits(a.Value(i)))
			return b
		}
	case *array.Timestamp:
		return func(b []byte, at, i int) []byte {
			binary.LittleEndian.PutUint64(b[at:], uint64(a.Value(i)))
			return b
		}
	case *array.Decimal128:
		return func(b []byte, at, i int) []byte {
			n := a.Value(i)
			binary.LittleEndian.PutUint64(b[at:], n.LowBits())
			binary.LittleEndian.PutUint64(b[at+8:], uint64(n.HighBits()))
			return b
		}
	case *array.String:
		return func(b []byte, _, i int) []byte { return append(b, a.Value(i)...) }
	case *array.Binary:
		return func(b []byte, _, i int) []byte { return append(b, a.Value(i)...) }
	}
	return func(b []byte, at, i int) []byte {
		v, err := valueAt(t, a, i)
		if err != nil {
			return b // cannot be: the array is of the type
		}
		return putList(b, at, s, v)
	}
}
