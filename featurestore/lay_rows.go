package featurestore

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

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
	l      *layout
	events []arrow.Timestamp
	keys   []appender
	fixed  []packedColumn
	varied []packedColumn

	// What pack returned, used again.
	key    []byte
	buf    []byte
	ends   []int
	bodies []int
}

// packedColumn is how the values of a feature come into packed rows: as they lie in memory when they have 8 bytes or 4.
type packedColumn struct {
	n      int // the feature's number
	a      arrow.Array
	nulls  bool // some of the values are null; counted here, since the count of a slice is made, and kept, on demand
	at     int  // its place in the fixed section
	wide   []uint64
	narrow []uint32
	put    func(b []byte, at, i int) []byte // any other value that is not null: writes it to at, or appends it
}

// packBatch is how many rows are packed at once: as many as stay in a processor's own cache.
const packBatch = 256

func newPacker(l *layout, v *View, rec arrow.Record) (*packer, error) {
	keys := len(v.Entity.Keys)
	events, ok := rec.Column(int(rec.NumCols()) - 1).(*array.Timestamp)
	if !ok || int(rec.NumCols()) != keys+len(v.Features)+1 {
		return nil, fmt.Errorf("it has other columns than its view")
	}
	p := &packer{l: l, events: events.TimestampValues()}
	for i, k := range v.Entity.Keys {
		p.keys = append(p.keys, appenderOf(k.Type, rec.Column(i)))
	}
	for i, f := range v.Features {
		s, a := &l.features[i], rec.Column(keys+i)
		c := packedColumn{n: i, a: a, nulls: a.NullN() > 0, at: s.at, put: putterOf(s, f.Type, a)}
		if s.variable() {
			p.varied = append(p.varied, c)
			continue
		}
		if raw := a.Data().Buffers()[1]; raw != nil { // none of an array without values
			switch a.DataType().ID() {
			case arrow.FLOAT64, arrow.INT64, arrow.TIMESTAMP:
				c.wide = arrow.Uint64Traits.CastFromBytes(raw.Bytes())[a.Data().Offset():]
			case arrow.FLOAT32, arrow.INT32:
				c.narrow = arrow.Uint32Traits.CastFromBytes(raw.Bytes())[a.Data().Offset():]
			default:
			}
		}
		p.fixed = append(p.fixed, c)
	}
	return p, nil
}

// newPackers makes a packer for each record.
func newPackers(l *layout, v *View, recs []arrow.Record) (out []*packer, err error) {
	out = make([]*packer, len(recs))
	for i, rec := range recs {
		if out[i], err = newPacker(l, v, rec); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// keyOf is the encoded join key of row i, good until the next call.
func (p *packer) keyOf(i int) []byte {
	p.key = p.key[:0]
	for _, k := range p.keys {
		p.key = k(p.key, i)
	}
	return p.key
}

// pack returns rows one after another as those of commit seq, known since knowledge (µs), and where each of them ends.
// Both are good until the next call. Values of fixed length are written column by column, into rows that are near.
func (p *packer) pack(rows []int32, knowledge, seq int64) ([]byte, []int) {
	b, n := p.buf[:0], p.l.bitmap+p.l.fixed
	p.ends, p.bodies = p.ends[:0], p.bodies[:0]
	for _, i := range rows {
		b = appendHead(b, int64(p.events[i]), knowledge, seq, p.keyOf(int(i)))
		body := len(b)
		b = slices.Grow(b, n)[:body+n]
		clear(b[body:])
		for c := range p.varied {
			v := &p.varied[c]
			at := body + p.l.bitmap + v.at
			if v.a.IsNull(int(i)) {
				b[body+v.n/8] |= 1 << (v.n % 8)
			} else {
				b = v.put(b, at, int(i))
			}
			binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-body-n))
		}
		p.bodies, p.ends = append(p.bodies, body), append(p.ends, len(b))
	}
	for c := range p.fixed {
		p.fixed[c].write(b, p.bodies, p.l.bitmap, rows)
	}
	p.buf = b
	return b, p.ends
}

// write writes the values of rows into their bodies.
func (c *packedColumn) write(b []byte, bodies []int, bitmap int, rows []int32) {
	at := bitmap + c.at
	for k, i := range rows {
		switch body := bodies[k]; {
		case c.nulls && c.a.IsNull(int(i)):
			b[body+c.n/8] |= 1 << (c.n % 8)
		case c.wide != nil:
			binary.LittleEndian.PutUint64(b[body+at:], c.wide[i])
		case c.narrow != nil:
			binary.LittleEndian.PutUint32(b[body+at:], c.narrow[i])
		default:
			c.put(b, body+at, int(i))
		}
	}
}

// putterOf writes the values of a column that are not null and do not lie in memory as they do in rows.
func putterOf(s *slotOf, t Type, a arrow.Array) func(b []byte, at, i int) []byte {
	switch a := a.(type) {
	case *array.Boolean:
		return func(b []byte, at, i int) []byte {
			if a.Value(i) {
				b[at] = 1
			}
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
