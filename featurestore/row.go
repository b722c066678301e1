package featurestore

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"time"

	"waybill"
)

// A packed row is the one form in which a row lies in memory, in Postgres and in a snapshot; docs/formats/row.md draws
// it byte by byte. What it is a row of, its layout says: the view version's keys and features.

// rowFormat is the first byte of every packed row.
const rowFormat = 1

// layout is where the features of a view version lie in its packed rows.
type layout struct {
	keys     []Column
	features []slotOf
	bitmap   int // bytes
	fixed    int // bytes of the fixed-width section
	last     int // offset in it of the last slot of the variable section; −1 when nothing is variable
}

// slotOf is a feature's place in the fixed-width section.
type slotOf struct {
	kind kind
	elem kind // of a list
	at   int  // offset in the section
	dim  int  // of a vector
	prev int  // of what is variable: the offset of the slot before it, −1 for the first
}

// kind is a Type as a number.
type kind uint8

const (
	kindBool kind = iota + 1
	kindInt32
	kindInt64
	kindFloat32
	kindFloat64
	kindTimestamp
	kindDecimal
	kindString
	kindBytes
	kindList
	kindVector
)

func kindOf(t Type) kind {
	switch t {
	case Bool:
		return kindBool
	case Int32:
		return kindInt32
	case Int64:
		return kindInt64
	case Float32:
		return kindFloat32
	case Float64:
		return kindFloat64
	case Timestamp:
		return kindTimestamp
	case DecimalT:
		return kindDecimal
	case String:
		return kindString
	case Bytes:
		return kindBytes
	}
	if t.dim() > 0 {
		return kindVector
	}
	return kindList
}

// width is how many bytes a value takes in the fixed-width section: what is variable, the 4 of its end.
func (k kind) width() int {
	switch k {
	case kindBool:
		return 1
	case kindInt64, kindFloat64, kindTimestamp:
		return 8
	case kindDecimal:
		return 16
	case kindInt32, kindFloat32, kindString, kindBytes, kindList, kindVector:
	}
	return 4
}

func newLayout(v *View) *layout {
	l := &layout{keys: v.Entity.Keys, bitmap: (len(v.Features) + 7) / 8, last: -1}
	for _, f := range v.Features {
		s := slotOf{kind: kindOf(f.Type), at: l.fixed, prev: -1}
		switch s.kind {
		case kindVector:
			s.dim = f.Type.dim()
			l.fixed += 4 * s.dim
		case kindString, kindBytes, kindList:
			if s.kind == kindList {
				s.elem = kindOf(f.Type.elem())
			}
			s.prev, l.last = l.last, s.at
			l.fixed += 4
		default:
			l.fixed += s.kind.width()
		}
		l.features = append(l.features, s)
	}
	return l
}

// appendHead writes what comes before a row's body: who and when.
func appendHead[K string | []byte](b []byte, event, knowledge, seq int64, key K) []byte {
	b = binary.LittleEndian.AppendUint64(append(b, rowFormat), uint64(event))
	b = binary.AppendVarint(b, knowledge-event)
	b = binary.AppendUvarint(b, uint64(seq))
	b = binary.AppendUvarint(b, uint64(len(key)))
	return append(b, key...)
}

// appendBody writes a row's values: bitmap of nulls, fixed-width section, variable section.
func (l *layout) appendBody(b []byte, values []any) []byte {
	from := len(b)
	b = append(b, make([]byte, l.bitmap+l.fixed)...)
	variable := len(b)
	end := func(at int) { // where the variable section has come to
		binary.LittleEndian.PutUint32(b[from+l.bitmap+at:], uint32(len(b)-variable))
	}
	for i := range l.features {
		s := &l.features[i]
		at := from + l.bitmap + s.at
		switch v := values[i].(type) {
		case nil:
			b[from+i/8] |= 1 << (i % 8)
			switch s.kind {
			case kindString, kindBytes, kindList:
				end(s.at)
			default:
			}
		case string:
			b = append(b, v...)
			end(s.at)
		case []byte:
			b = append(b, v...)
			end(s.at)
		case []any:
			b = putList(b, at, s, v)
			end(s.at)
		case []float32:
			b = putList(b, at, s, v)
		default:
			putScalar(b[at:], s.kind, v)
		}
	}
	return b
}

// putList writes a vector to its place, or appends a list to the variable section.
func putList(b []byte, at int, s *slotOf, v any) []byte {
	switch v := v.(type) {
	case []any:
		b = binary.AppendUvarint(b, uint64(len(v)))
		for _, x := range v {
			b = appendElement(b, s.elem, x)
		}
	case []float32:
		for j, x := range v {
			binary.LittleEndian.PutUint32(b[at+4*j:], math.Float32bits(x))
		}
	}
	return b
}

// variable says whether a value lies in the variable section.
func (s *slotOf) variable() bool {
	return s.kind == kindString || s.kind == kindBytes || s.kind == kindList
}

// putScalar writes a value of fixed width.
func putScalar(b []byte, k kind, v any) {
	switch v := v.(type) {
	case bool:
		b[0] = 0
		if v {
			b[0] = 1
		}
	case int64:
		if k == kindInt32 {
			binary.LittleEndian.PutUint32(b, uint32(v))
		} else {
			binary.LittleEndian.PutUint64(b, uint64(v))
		}
	case float64:
		if k == kindFloat32 {
			binary.LittleEndian.PutUint32(b, math.Float32bits(float32(v)))
		} else {
			binary.LittleEndian.PutUint64(b, math.Float64bits(v))
		}
	case time.Time:
		binary.LittleEndian.PutUint64(b, uint64(v.UnixMicro()))
	case Decimal:
		n := v.scaled()
		if n.Sign() < 0 { // two's complement
			n.Add(n, new(big.Int).Lsh(big.NewInt(1), 128))
		}
		var be [16]byte
		n.FillBytes(be[:])
		for i := range be {
			b[i] = be[15-i]
		}
	}
}

// appendElement writes an element of a list.
func appendElement(b []byte, k kind, v any) []byte {
	switch v := v.(type) {
	case string:
		return append(binary.AppendUvarint(b, uint64(len(v))), v...)
	case []byte:
		return append(binary.AppendUvarint(b, uint64(len(v))), v...)
	}
	n := len(b)
	b = append(b, make([]byte, k.width())...)
	putScalar(b[n:], k, v)
	return b
}

// pack writes rows one after another as commit seq, known since knowledge (µs).
func (l *layout) pack(rows []row, knowledge, seq int64) []byte {
	var b []byte
	for i := range rows {
		r, known := &rows[i], knowledge
		if r.knowledge != 0 { // of an earlier hub: in its row
			known = r.knowledge
		}
		b = l.appendBody(appendHead(b, r.event, known, seq, r.key), r.values)
	}
	return b
}

// packed is a packed row taken apart: nothing is copied, so it lives as long as its bytes.
type packed struct {
	event, knowledge, seq int64  // µs, µs, commit
	key                   []byte // encoded join key
	body                  []byte // from the bitmap on; may run on beyond the row
}

// parseRow takes the head of a packed row apart. It is for bytes that were checked when they came in: see next.
func parseRow(b []byte) (p packed) {
	p.event = int64(binary.LittleEndian.Uint64(b[1:]))
	at := 9
	lag, n := binary.Varint(b[at:])
	at += n
	seq, n := binary.Uvarint(b[at:])
	at += n
	size, n := binary.Uvarint(b[at:])
	at += n
	p.knowledge, p.seq = p.event+lag, int64(seq)
	p.key, p.body = b[at:at+int(size)], b[at+int(size):]
	return p
}

// null says whether feature i is null.
func (p *packed) null(i int) bool { return p.body[i/8]&(1<<(i%8)) != 0 }

// span returns the bytes of what is variable.
func (l *layout) span(p *packed, s *slotOf) []byte {
	fixed := p.body[l.bitmap:]
	from := uint32(0)
	if s.prev >= 0 {
		from = binary.LittleEndian.Uint32(fixed[s.prev:])
	}
	variable := fixed[l.fixed:]
	return variable[from:binary.LittleEndian.Uint32(fixed[s.at:])]
}

// value returns feature i as its Go type, or nil. Texts and bytes are copies.
func (l *layout) value(p *packed, i int) any {
	if p.null(i) {
		return nil
	}
	s := &l.features[i]
	switch s.kind {
	case kindString:
		return string(l.span(p, s))
	case kindBytes:
		return append([]byte{}, l.span(p, s)...)
	case kindList:
		b := l.span(p, s)
		n, k := binary.Uvarint(b)
		b = b[k:]
		out := make([]any, n)
		for j := range out {
			out[j], b = element(b, s.elem)
		}
		return out
	case kindVector:
		out := make([]float32, s.dim)
		for j := range out {
			out[j] = math.Float32frombits(binary.LittleEndian.Uint32(p.body[l.bitmap+s.at+4*j:]))
		}
		return out
	default:
		return scalarOf(p.body[l.bitmap+s.at:], s.kind)
	}
}

// scalarOf reads a value of fixed width.
func scalarOf(b []byte, k kind) any {
	switch k {
	case kindBool:
		return b[0] != 0
	case kindInt32:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	case kindInt64:
		return int64(binary.LittleEndian.Uint64(b))
	case kindFloat32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case kindFloat64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	case kindTimestamp:
		return time.UnixMicro(int64(binary.LittleEndian.Uint64(b))).UTC()
	case kindDecimal:
		var be [16]byte
		for i := range be {
			be[i] = b[15-i]
		}
		n := new(big.Int).SetBytes(be[:])
		if be[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), 128))
		}
		d, err := decimalOf(n)
		if err != nil {
			return nil // cannot be: it was packed from a Decimal
		}
		return d
	case kindString, kindBytes, kindList, kindVector:
	}
	return nil
}

// element reads an element of a list and returns what follows it.
func element(b []byte, k kind) (any, []byte) {
	switch k {
	case kindString, kindBytes:
		n, w := binary.Uvarint(b)
		text := b[w : w+int(n)]
		if k == kindString {
			return string(text), b[w+int(n):]
		}
		return append([]byte{}, text...), b[w+int(n):]
	default:
		return scalarOf(b, k), b[k.width():]
	}
}

// values unpacks all features.
func (l *layout) values(p *packed) []any {
	out := make([]any, len(l.features))
	for i := range out {
		out[i] = l.value(p, i)
	}
	return out
}

// size returns how long a row is that starts with this head: its body may be followed by others.
func (l *layout) size(b []byte, p *packed) int {
	n := len(b) - len(p.body) + l.bitmap + l.fixed
	if l.last >= 0 {
		n += int(binary.LittleEndian.Uint32(p.body[l.bitmap+l.last:]))
	}
	return n
}

// errRow is what next returns for bytes that are no packed row of the layout.
var errRow = waybill.Errorf(waybill.Corrupt, "a stored row does not have the form of its view")

// next checks the row at the head of b and returns it and what follows it. After that, nothing that reads the row can
// leave its bytes.
func (l *layout) next(b []byte) (row, rest []byte, err error) {
	key, body, ok := soundHead(b)
	if !ok {
		return nil, nil, errRow
	}
	if _, err := l.parseKey(b[key:body]); err != nil {
		return nil, nil, err
	}
	n, ok := l.soundBody(b[body:])
	if !ok {
		return nil, nil, errRow
	}
	return b[: body+n : body+n], b[body+n:], nil
}

// sound takes apart what should be one row of a key, whole; ok is false when it is not.
func (l *layout) sound(b, key []byte) (p packed, ok bool) {
	from, body, ok := soundHead(b)
	if !ok || !bytes.Equal(b[from:body], key) {
		return p, false
	}
	if n, ok := l.soundBody(b[body:]); !ok || body+n != len(b) {
		return p, false
	}
	return parseRow(b), true
}

// soundHead finds where a row's key and body begin.
func soundHead(b []byte) (key, body int, ok bool) {
	if len(b) < 9 || b[0] != rowFormat {
		return 0, 0, false
	}
	at := 9
	_, n := binary.Varint(b[at:])
	if n <= 0 {
		return 0, 0, false
	}
	at += n
	if _, n = binary.Uvarint(b[at:]); n <= 0 {
		return 0, 0, false
	}
	at += n
	size, n := binary.Uvarint(b[at:])
	if n <= 0 || size > uint64(len(b)-at-n) {
		return 0, 0, false
	}
	at += n
	return at, at + int(size), true
}

// soundBody finds how long the body at the head of b is.
func (l *layout) soundBody(b []byte) (size int, ok bool) {
	if len(b) < l.bitmap+l.fixed {
		return 0, false
	}
	nulls, fixed, variable := b[:l.bitmap], b[l.bitmap:l.bitmap+l.fixed], b[l.bitmap+l.fixed:]
	from := 0
	for i := range l.features {
		s := &l.features[i]
		switch s.kind {
		case kindString, kindBytes, kindList:
			to := int(binary.LittleEndian.Uint32(fixed[s.at:]))
			if to < from || to > len(variable) {
				return 0, false
			}
			if s.kind == kindList && nulls[i/8]&(1<<(i%8)) == 0 && !soundList(variable[from:to], s.elem) {
				return 0, false
			}
			from = to
		default:
		}
	}
	return l.bitmap + l.fixed + from, true
}

func soundList(b []byte, k kind) bool {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > maxList {
		return false
	}
	for b = b[w:]; n > 0; n-- {
		width := k.width()
		if k == kindString || k == kindBytes {
			size, w := binary.Uvarint(b)
			if w <= 0 || size > uint64(len(b)-w) {
				return false
			}
			width = w + int(size)
		}
		if width > len(b) {
			return false
		}
		b = b[width:]
	}
	return len(b) == 0
}

// parseKey is the inverse of encodeKey.
func (l *layout) parseKey(b []byte) ([]any, error) {
	out := make([]any, len(l.keys))
	for i := range l.keys {
		if len(b) == 0 {
			return nil, errRow
		}
		tag := b[0]
		b = b[1:]
		var size int
		switch tag {
		case 'b':
			size = 1
		case 'i', 'f', 't':
			size = 8
		case 's', 'y', 'd':
			if len(b) < 4 {
				return nil, errRow
			}
			size = int(binary.BigEndian.Uint32(b))
			b = b[4:]
		default:
			return nil, errRow
		}
		if size > len(b) {
			return nil, errRow
		}
		v := b[:size]
		b = b[size:]
		switch tag {
		case 'b':
			out[i] = v[0] == 2
		case 'i':
			out[i] = int64(binary.BigEndian.Uint64(v))
		case 'f':
			out[i] = math.Float64frombits(binary.BigEndian.Uint64(v))
		case 't':
			out[i] = time.UnixMicro(int64(binary.BigEndian.Uint64(v))).UTC()
		case 's':
			out[i] = string(v)
		case 'y':
			out[i] = append([]byte{}, v...)
		case 'd':
			out[i] = Decimal(v)
		}
	}
	if len(b) != 0 {
		return nil, errRow
	}
	return out, nil
}

// unpack returns the decoded form of a packed row.
func (l *layout) unpack(b []byte) (row, error) {
	p := parseRow(b)
	keys, err := l.parseKey(p.key)
	return row{key: string(p.key), event: p.event, knowledge: p.knowledge, seq: p.seq, keys: keys, values: l.values(&p)}, err
}
