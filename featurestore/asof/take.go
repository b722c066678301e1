package asof

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// Take returns the rows of a at the given places, in their order; −1 is a null. It knows every fixed-width type, truth
// values, text, bytes and lists of those.
func Take(a arrow.Array, at []int32) (arrow.Array, error) {
	d, n := a.Data(), len(at)
	nulls, valid := takeValid(a, at)
	var first *memory.Buffer
	if valid != nil {
		first = memory.NewBufferBytes(valid)
	}
	switch t := a.DataType().(type) {
	case *arrow.NullType:
		return array.NewNull(n), nil
	case *arrow.BooleanType:
		bits := make([]byte, bitutil.BytesForBits(int64(n)))
		if d.Len() > 0 {
			src := d.Buffers()[1].Bytes()
			for i, r := range at {
				if r >= 0 && bitutil.BitIsSet(src, d.Offset()+int(r)) {
					bitutil.SetBit(bits, i)
				}
			}
		}
		return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{first, memory.NewBufferBytes(bits)}, nil, nulls, 0)), nil
	case *arrow.StringType, *arrow.BinaryType:
		offsets, text, err := takeText(d, at)
		if err != nil {
			return nil, err
		}
		return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{first, buffer(offsets), memory.NewBufferBytes(text)}, nil, nulls, 0)), nil
	case *arrow.ListType:
		offsets, inner, err := takeList(d, at)
		if err != nil {
			return nil, err
		}
		values, err := Take(array.MakeFromData(d.Children()[0]), inner)
		if err != nil {
			return nil, err
		}
		return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{first, buffer(offsets)}, []arrow.ArrayData{values.Data()}, nulls, 0)), nil
	case *arrow.FixedSizeListType:
		size := t.Len()
		inner := make([]int32, 0, n*int(size))
		for _, r := range at {
			for i := range size {
				if r < 0 {
					inner = append(inner, -1)
					continue
				}
				inner = append(inner, (int32(d.Offset())+r)*size+i)
			}
		}
		values, err := Take(array.MakeFromData(d.Children()[0]), inner)
		if err != nil {
			return nil, err
		}
		return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{first}, []arrow.ArrayData{values.Data()}, nulls, 0)), nil
	case arrow.FixedWidthDataType:
		if t.BitWidth()%8 != 0 {
			break
		}
		w := t.BitWidth() / 8
		out := make([]byte, n*w)
		if d.Len() > 0 {
			copyRows(out, nil, d.Buffers()[1].Bytes()[d.Offset()*w:], at, w)
		}
		return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{first, memory.NewBufferBytes(out)}, nil, nulls, 0)), nil
	}
	return nil, fmt.Errorf("rows of type %s cannot be taken", a.DataType())
}

// copyRows copies fixed-width values: dst[to[i]] = src[from[i]], and nothing where from is −1. A nil to is 0, 1, 2 ….
func copyRows(dst []byte, to []int32, src []byte, from []int32, width int) {
	switch width {
	case 8:
		copyWords(words[uint64](dst), to, words[uint64](src), from)
	case 4:
		copyWords(words[uint32](dst), to, words[uint32](src), from)
	default:
		for i, f := range from {
			t := i
			if to != nil {
				t = int(to[i])
			}
			if f >= 0 {
				copy(dst[t*width:(t+1)*width], src[int(f)*width:])
			}
		}
	}
}

func copyWords[T uint32 | uint64](dst []T, to []int32, src []T, from []int32) {
	if to == nil {
		for i, f := range from {
			if f >= 0 {
				dst[i] = src[f]
			}
		}
		return
	}
	for i, f := range from {
		if f >= 0 {
			dst[to[i]] = src[f]
		}
	}
}

// takeValid returns the bitmap of what is there, nil when all is.
func takeValid(a arrow.Array, at []int32) (nulls int, valid []byte) {
	if a.NullN() == 0 && !slices.Contains(at, -1) {
		return 0, nil
	}
	valid = make([]byte, bitutil.BytesForBits(int64(len(at))))
	for i, r := range at {
		if r >= 0 && a.IsValid(int(r)) {
			bitutil.SetBit(valid, i)
		} else {
			nulls++
		}
	}
	return nulls, valid
}

// buffer is a buffer over numbers.
func buffer(v []int32) *memory.Buffer {
	return memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(v))
}

// spans calls each with the borders of the values of every row; rows that are −1 have none.
func spans(d arrow.ArrayData, at []int32, each func(from, to int32)) (offsets []int32, err error) {
	var src []int32
	if d.Len() > 0 {
		src = words[int32](d.Buffers()[1].Bytes())[d.Offset() : d.Offset()+d.Len()+1]
	}
	offsets = make([]int32, len(at)+1)
	sum := int64(0)
	for i, r := range at {
		if r >= 0 {
			sum += int64(src[r+1] - src[r])
			each(src[r], src[r+1])
		}
		if sum > maxRows {
			return nil, fmt.Errorf("the values of a column have more than 2 GiB or 2^31 elements")
		}
		offsets[i+1] = int32(sum)
	}
	return offsets, nil
}

func takeText(d arrow.ArrayData, at []int32) ([]int32, []byte, error) {
	var src, out []byte
	if len(d.Buffers()) > 2 && d.Buffers()[2] != nil {
		src = d.Buffers()[2].Bytes()
	}
	offsets, err := spans(d, at, func(from, to int32) { out = append(out, src[from:to]...) })
	return offsets, out, err
}

func takeList(d arrow.ArrayData, at []int32) ([]int32, []int32, error) {
	var out []int32
	offsets, err := spans(d, at, func(from, to int32) {
		for i := from; i < to; i++ {
			out = append(out, i)
		}
	})
	return offsets, out, err
}
