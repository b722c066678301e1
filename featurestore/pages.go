package featurestore

import (
	"encoding/binary"
	"errors"
)

// The library allocates what a page's header says before it looks at the page. So the headers of a column chunk are
// walked first: each page must lie within its chunk. Source of the format: parquet.thrift, PageHeader, in Thrift's
// compact protocol (apache/thrift doc/specs/thrift-compact-protocol.md).

var errPages = errors.New("is damaged: its pages do not fit into it")

// pagesSize returns how many bytes the pages of a column chunk have when they are decompressed, as their headers say.
func pagesSize(chunk []byte) (int64, error) {
	var sum int64
	for len(chunk) > 0 {
		t := thrift{b: chunk}
		head := t.pageHeader()
		kind, long, short := head[1], head[2], head[3]
		if t.bad || long < 0 || short < 0 || short > int64(len(t.b)) || kind != dataPage && kind != dictionaryPage && kind != dataPageV2 {
			return 0, errPages
		}
		if kind == dictionaryPage && (head[4] < 0 || head[4] > long) { // a value has a byte or more; the library makes room for all of them
			return 0, errPages
		}
		sum += long
		chunk = t.b[short:]
	}
	return sum, nil
}

// Page types. Pages of indices, which no writer puts here, are refused: the library would read headers from their insides.
const (
	dataPage       = 0
	dictionaryPage = 2
	dataPageV2     = 3
)

// thrift reads one value after another from the head of b. After a mistake bad is set and everything is zero.
type thrift struct {
	b   []byte
	bad bool
}

// pageHeader returns the fields 1 (type), 2 (uncompressed size) and 3 (compressed size), and in 4 how many values the header
// of a dictionary (field 7) says there are. Of a repeated field the last counts, as it does for the library.
func (t *thrift) pageHeader() (out [5]int64) {
	out = [5]int64{-1, -1, -1, -1, -1}
	for id := int64(0); !t.bad; {
		kind := t.field(&id)
		if kind == 0 {
			return out
		}
		if id >= 1 && id <= 3 {
			if kind != 5 { // i32
				t.bad = true
				return out
			}
			out[id] = int64(int32(t.zigzag()))
			continue
		}
		if id == 7 && kind == 12 {
			for inner := int64(0); !t.bad; {
				kind := t.field(&inner)
				if kind == 0 {
					break
				}
				if inner == 1 && kind == 5 {
					out[4] = int64(int32(t.zigzag()))
					continue
				}
				t.skip(kind, 1)
			}
			continue
		}
		t.skip(kind, 0)
	}
	return out
}

// field reads a field's head: its type, 0 at the end of the struct, and its id.
func (t *thrift) field(id *int64) byte {
	b := t.byte()
	kind := b & 0x0f
	if kind == 0 {
		return 0
	}
	if delta := b >> 4; delta != 0 {
		*id += int64(delta)
	} else {
		*id = int64(int16(t.zigzag()))
	}
	return kind
}

func (t *thrift) byte() byte {
	if b := t.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (t *thrift) take(n uint64) []byte {
	if t.bad || n > uint64(len(t.b)) {
		t.bad = true
		return nil
	}
	out := t.b[:n]
	t.b = t.b[n:]
	return out
}

func (t *thrift) varint() uint64 {
	v, n := binary.Uvarint(t.b)
	if t.bad || n <= 0 {
		t.bad = true
		return 0
	}
	t.b = t.b[n:]
	return v
}

func (t *thrift) zigzag() int64 {
	v := t.varint()
	return int64(v>>1) ^ -int64(v&1)
}

// skip passes over a value of a type; depth bounds nesting.
func (t *thrift) skip(kind byte, depth int) {
	if depth > 8 {
		t.bad = true
	}
	switch {
	case t.bad:
	case kind == 1 || kind == 2: // a truth value: in its head
	case kind == 3: // byte
		t.take(1)
	case kind >= 4 && kind <= 6: // i16, i32, i64
		t.varint()
	case kind == 7: // double
		t.take(8)
	case kind == 8: // binary
		t.take(t.varint())
	case kind == 9 || kind == 10: // list, set
		b := t.byte()
		n := uint64(b >> 4)
		if n == 15 {
			n = t.varint()
		}
		for ; n > 0 && !t.bad; n-- {
			if b&0x0f <= 2 { // truth values in a list have a byte each
				t.take(1)
				continue
			}
			t.skip(b&0x0f, depth+1)
		}
	case kind == 12: // struct
		for id := int64(0); !t.bad; {
			inner := t.field(&id)
			if inner == 0 {
				return
			}
			t.skip(inner, depth+1)
		}
	default: // a page header has no maps
		t.bad = true
	}
}
