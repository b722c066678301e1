package asof

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/bitutil"

	"waybill"
)

// keys are the typed columns of a join key, laid out for hashing and comparing. Rows are equal when every column has the
// same bits: 0.0 and −0.0 differ, as they do in the log.
type keys []keyColumn

// keyColumn is one column; exactly one of its layouts is set.
type keyColumn struct {
	w4      []uint32
	w8      []uint64
	wide    []byte // width bytes for each row
	width   int
	bits    []byte // truth values, from bit first on
	first   int
	offsets []int32 // rows+1, into text
	text    []byte
}

// newKeys lays out the columns of a key, which must be of n rows and have no null.
func newKeys(columns []arrow.Array, n int) (keys, error) {
	out := make(keys, len(columns))
	for c, a := range columns {
		if a.Len() != n {
			return nil, fmt.Errorf("key column %d has %d rows of %d", c, a.Len(), n)
		}
		if a.NullN() > 0 {
			return nil, waybill.Errorf(waybill.Invalid, "column %d of the join key holds nulls", c)
		}
		if n == 0 {
			continue
		}
		d, k := a.Data(), &out[c]
		switch t := a.DataType().(type) {
		case *arrow.BooleanType:
			k.bits, k.first = d.Buffers()[1].Bytes(), d.Offset()
		case *arrow.StringType, *arrow.BinaryType:
			k.offsets = words[int32](d.Buffers()[1].Bytes())[d.Offset() : d.Offset()+n+1]
			if d.Buffers()[2] != nil {
				k.text = d.Buffers()[2].Bytes()
			}
		case arrow.FixedWidthDataType:
			raw := d.Buffers()[1].Bytes()
			switch t.BitWidth() {
			case 32:
				k.w4 = words[uint32](raw)[d.Offset() : d.Offset()+n]
			case 64:
				k.w8 = words[uint64](raw)[d.Offset() : d.Offset()+n]
			default:
				if t.BitWidth()%8 != 0 {
					return nil, waybill.Errorf(waybill.Invalid, "a join key cannot have the type %s", t)
				}
				k.width = t.BitWidth() / 8
				k.wide = raw[d.Offset()*k.width : (d.Offset()+n)*k.width]
			}
		default:
			return nil, waybill.Errorf(waybill.Invalid, "a join key cannot have the type %s", t)
		}
	}
	return out, nil
}

// words reads a buffer as numbers. It need not begin at a multiple of their size: numbers hold no pointers, and the machines
// that we run on read them anywhere.
func words[T uint32 | uint64 | int32 | int64](b []byte) []T {
	if len(b) == 0 {
		return nil
	}
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), len(b)/int(unsafe.Sizeof(zero))) //nolint:gosec // within b, of a size that divides its alignment
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): a permutation whose every output bit depends on every
// input bit.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Hash returns the hash of every row's key. It is part of the format of history files and never changes: h begins at 0
// and for each column in turn becomes mix(h ^ v), where v is the value's bits (a truth value 0 or 1); a text or bytes
// begin with their length and go on with 8 bytes at a time, little-endian, the last filled with zeros. Keys of one number
// never collide; whoever compares keys compares them in full all the same.
func Hash(columns []arrow.Array, n int) ([]uint64, error) {
	k, err := newKeys(columns, n)
	if err != nil {
		return nil, err
	}
	return k.hash(n), nil
}

func (k keys) hash(n int) []uint64 {
	out := make([]uint64, n)
	k.hashInto(out)
	return out
}

// hashInto is hash into zeros.
func (k keys) hashInto(out []uint64) {
	for c := range k {
		col := &k[c]
		switch {
		case col.w8 != nil:
			for i, v := range col.w8 {
				out[i] = mix(out[i] ^ v)
			}
		case col.w4 != nil:
			for i, v := range col.w4 {
				out[i] = mix(out[i] ^ uint64(v))
			}
		case col.bits != nil:
			for i := range out {
				v := uint64(0)
				if bitutil.BitIsSet(col.bits, col.first+i) {
					v = 1
				}
				out[i] = mix(out[i] ^ v)
			}
		default:
			for i := range out {
				out[i] = hashBytes(out[i], col.at(i))
			}
		}
	}
}

func hashBytes(h uint64, b []byte) uint64 {
	h = mix(h ^ uint64(len(b)))
	for ; len(b) >= 8; b = b[8:] {
		h = mix(h ^ binary.LittleEndian.Uint64(b))
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		h = mix(h ^ binary.LittleEndian.Uint64(last[:]))
	}
	return h
}

// at returns the bytes of row i of a column that is not of numbers or truth values.
func (c *keyColumn) at(i int) []byte {
	if c.width > 0 {
		return c.wide[i*c.width : (i+1)*c.width]
	}
	if c.offsets == nil {
		return nil
	}
	return c.text[c.offsets[i]:c.offsets[i+1]]
}

// compare orders row i of k and row j of o, which have the same types. Which order it is does not matter, as long as it
// is one: it keeps the rows of keys with the same hash together.
func (k keys) compare(i int, o keys, j int) int {
	for c := range k {
		a, b := &k[c], &o[c]
		d := 0
		switch {
		case a.w8 != nil:
			d = cmp.Compare(a.w8[i], b.w8[j])
		case a.w4 != nil:
			d = cmp.Compare(a.w4[i], b.w4[j])
		case a.bits != nil:
			x, y := bitutil.BitIsSet(a.bits, a.first+i), bitutil.BitIsSet(b.bits, b.first+j)
			switch {
			case x && !y:
				d = 1
			case y && !x:
				d = -1
			}
		default:
			d = bytes.Compare(a.at(i), b.at(j))
		}
		if d != 0 {
			return d
		}
	}
	return 0
}

// sameTypes says whether two keys can be compared at all.
func sameTypes(a, b []arrow.Array) error {
	if len(a) != len(b) {
		return waybill.Errorf(waybill.Invalid, "the spine has a join key of %d columns and the history one of %d", len(a), len(b))
	}
	for c := range a {
		if !arrow.TypeEqual(a[c].DataType(), b[c].DataType()) {
			return waybill.Errorf(waybill.Invalid, "column %d of the join key is %s in the spine and %s in the history", c, a[c].DataType(), b[c].DataType())
		}
	}
	return nil
}
