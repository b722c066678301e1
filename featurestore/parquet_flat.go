package featurestore

import (
	"fmt"
	"math"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"

	"waybill"
)

// Columns of plain values are put together here from what the library decodes of each page, so that its pages can be
// checked first (see checkedPages) and nothing happens in goroutines of its own, where a panic over a malformed file ends
// the process.

// flatReader decodes a column of plain values, some rows at a time.
type flatReader struct {
	f       *file.Reader
	mem     memory.Allocator
	t       arrow.DataType
	column  int
	bounded bool
	text    *int // bytes of text that all columns of the file have had

	group   int // the next one
	chunk   file.ColumnChunkReader
	pages   *checkedPages
	left    int64 // values of the chunk that were not read
	def     []int16
	binary  []parquet.ByteArray
	fixed   []parquet.FixedLenByteArray
	ancient []parquet.Int96
}

// next decodes the next n values as an array of the column's type: of int32 for all smaller whole numbers, of int64 for
// uint32, of string and binary for their large kinds.
func (r *flatReader) next(n int) (arrow.Array, error) {
	switch t := r.t.(type) {
	case *arrow.BooleanType:
		return r.booleans(n)
	case *arrow.Int8Type, *arrow.Int16Type, *arrow.Int32Type, *arrow.Uint8Type, *arrow.Uint16Type:
		return numbersOf(r, n, arrow.PrimitiveTypes.Int32, arrow.Int32Traits.CastToBytes, readInt32)
	case *arrow.Date32Type:
		return numbersOf(r, n, t, arrow.Int32Traits.CastToBytes, readInt32)
	case *arrow.Uint32Type:
		small := make([]int32, readBatch)
		return numbersOf(r, n, arrow.PrimitiveTypes.Int64, arrow.Int64Traits.CastToBytes, func(r *flatReader, out []int64) (int64, int, error) {
			return converted(r, small, out, readInt32, func(v int32) int64 { return int64(uint32(v)) })
		})
	case *arrow.Int64Type:
		return numbersOf(r, n, t, arrow.Int64Traits.CastToBytes, readInt64)
	case *arrow.TimestampType:
		if r.f.MetaData().Schema.Column(r.column).PhysicalType() == parquet.Types.Int96 {
			return numbersOf(r, n, &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: t.TimeZone}, arrow.Int64Traits.CastToBytes, readInt96)
		}
		return numbersOf(r, n, t, arrow.Int64Traits.CastToBytes, readInt64)
	case *arrow.Float32Type:
		return numbersOf(r, n, t, arrow.Float32Traits.CastToBytes, readFloat32)
	case *arrow.Float64Type:
		return numbersOf(r, n, t, arrow.Float64Traits.CastToBytes, readFloat64)
	case *arrow.Decimal128Type:
		return numbersOf(r, n, t, arrow.Decimal128Traits.CastToBytes, readDecimal)
	case *arrow.StringType, *arrow.LargeStringType:
		return r.texts(n, arrow.BinaryTypes.String)
	case *arrow.BinaryType, *arrow.LargeBinaryType:
		return r.texts(n, arrow.BinaryTypes.Binary)
	}
	return nil, readable(r.t)
}

// advance goes to the next chunk that has values, if the present one is read. It is false after the last one.
func (r *flatReader) advance() (bool, error) {
	for r.chunk == nil || r.left == 0 {
		if r.group == r.f.NumRowGroups() {
			return false, nil
		}
		var err error
		if r.chunk, r.pages, err = openChunk(r.f, r.mem, r.group, r.column); err != nil {
			return false, err
		}
		r.group, r.left = r.group+1, r.pages.values
	}
	return true, nil
}

// levels is the buffer for the definition levels of a batch, as long as that may be: it is of one page.
func (r *flatReader) levels(most int) []int16 {
	if r.def == nil {
		r.def = make([]int16, readBatch)
	}
	return r.def[:min(most, r.pages.most(r.chunk), int(min(r.left, readBatch)))]
}

// took counts what was read.
func (r *flatReader) took(levels int64, values int, err error) error {
	if err == nil {
		err = r.chunk.Err()
	}
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if levels <= 0 || levels > r.left {
		return fmt.Errorf("has %d values fewer than the footer says", r.left)
	}
	r.left -= levels
	r.pages.read += levels
	if r.pages.maxDef == 0 && int64(values) != levels {
		return fmt.Errorf("has fewer values than it says")
	}
	return nil
}

// spread opens gaps for nulls among the values of a batch, from its end on, and marks them.
func spread[T any](values []T, read int, def []int16, mark func(i int, valid bool)) error {
	for i := len(values) - 1; i >= 0; i-- {
		valid := def[i] != 0
		mark(i, valid)
		if !valid {
			var none T
			values[i] = none
			continue
		}
		if read--; read < 0 {
			return fmt.Errorf("has fewer values than it says")
		}
		values[i] = values[read]
	}
	if read != 0 {
		return fmt.Errorf("has more values than it says")
	}
	return nil
}

// validity is the bitmap of an array that is being made; it is there from the first null on.
type validity struct {
	n     int // of the array
	bits  []byte
	nulls int
}

func (v *validity) mark(at int, valid bool) {
	if !valid {
		v.nulls++
	}
	if valid == (v.bits == nil || bitutil.BitIsSet(v.bits, at)) {
		return
	}
	if v.bits == nil {
		v.bits = make([]byte, bitutil.BytesForBits(int64(v.n)))
		bitutil.SetBitsTo(v.bits, 0, int64(v.n), true)
	}
	bitutil.SetBitTo(v.bits, at, valid)
}

// buffer is the bitmap as an array has it.
func (v *validity) buffer() *memory.Buffer {
	if v.bits == nil {
		return nil
	}
	return memory.NewBufferBytes(v.bits)
}

// numbersOf decodes n values of fixed length. read decodes a batch and returns its levels and values.
func numbersOf[T any](r *flatReader, n int, t arrow.DataType, raw func([]T) []byte, read func(r *flatReader, out []T) (int64, int, error)) (arrow.Array, error) {
	out, valid := make([]T, n), validity{n: n}
	for at := 0; at < n; {
		if more, err := r.advance(); err != nil || !more {
			return nil, cutShort(err, at, n)
		}
		levels, values, err := read(r, out[at:])
		if err := r.took(levels, values, err); err != nil {
			return nil, err
		}
		if int64(values) != levels {
			if err := spread(out[at:at+int(levels)], values, r.def, func(i int, ok bool) { valid.mark(at+i, ok) }); err != nil {
				return nil, err
			}
		}
		at += int(levels)
	}
	return valid.array(t, raw(out)), nil
}

func cutShort(err error, has, want int) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("has %d values for %d rows", has, want)
}

// wrongChunk is for a column whose values are not of the kind that its type has.
func wrongChunk(r *flatReader) error {
	return fmt.Errorf("has values of the kind %s, which the type %s does not have", r.chunk.Type(), r.t)
}

func readInt32(r *flatReader, out []int32) (int64, int, error) {
	c, ok := r.chunk.(*file.Int32ColumnChunkReader)
	if !ok {
		return 0, 0, wrongChunk(r)
	}
	def := r.levels(len(out))
	return c.ReadBatch(int64(len(def)), out[:len(def)], def, nil)
}

func readInt64(r *flatReader, out []int64) (int64, int, error) {
	c, ok := r.chunk.(*file.Int64ColumnChunkReader)
	if !ok {
		return 0, 0, wrongChunk(r)
	}
	def := r.levels(len(out))
	return c.ReadBatch(int64(len(def)), out[:len(def)], def, nil)
}

func readFloat32(r *flatReader, out []float32) (int64, int, error) {
	c, ok := r.chunk.(*file.Float32ColumnChunkReader)
	if !ok {
		return 0, 0, wrongChunk(r)
	}
	def := r.levels(len(out))
	return c.ReadBatch(int64(len(def)), out[:len(def)], def, nil)
}

func readFloat64(r *flatReader, out []float64) (int64, int, error) {
	c, ok := r.chunk.(*file.Float64ColumnChunkReader)
	if !ok {
		return 0, 0, wrongChunk(r)
	}
	def := r.levels(len(out))
	return c.ReadBatch(int64(len(def)), out[:len(def)], def, nil)
}

// readInt96 reads the timestamps of old writers, as nanoseconds.
func readInt96(r *flatReader, out []int64) (int64, int, error) {
	c, ok := r.chunk.(*file.Int96ColumnChunkReader)
	if !ok {
		return 0, 0, wrongChunk(r)
	}
	if r.ancient == nil {
		r.ancient = make([]parquet.Int96, readBatch)
	}
	return converted(r, r.ancient, out, func(r *flatReader, some []parquet.Int96) (int64, int, error) {
		def := r.levels(len(some))
		return c.ReadBatch(int64(len(def)), some[:len(def)], def, nil)
	}, func(v parquet.Int96) int64 { return v.ToTime().UnixNano() })
}

// converted reads a batch of one kind as another.
func converted[S, T any](r *flatReader, some []S, out []T, read func(*flatReader, []S) (int64, int, error), to func(S) T) (int64, int, error) {
	some = some[:min(len(some), len(out))]
	levels, values, err := read(r, some)
	for i, v := range some[:max(0, values)] {
		out[i] = to(v)
	}
	return levels, values, err
}

// readDecimal reads decimals, which lie in a file as numbers or as bytes.
func readDecimal(r *flatReader, out []decimal128.Num) (int64, int, error) {
	switch c := r.chunk.(type) {
	case *file.Int32ColumnChunkReader:
		return converted(r, make([]int32, readBatch), out, readInt32, func(v int32) decimal128.Num { return decimal128.FromI64(int64(v)) })
	case *file.Int64ColumnChunkReader:
		return converted(r, make([]int64, readBatch), out, readInt64, decimal128.FromI64)
	case *file.FixedLenByteArrayColumnChunkReader:
		if r.f.MetaData().Schema.Column(r.column).TypeLength() > arrow.Decimal128SizeBytes {
			return 0, 0, readable(arrow.BinaryTypes.LargeBinary)
		}
		if r.fixed == nil {
			r.fixed = make([]parquet.FixedLenByteArray, readBatch)
		}
		return converted(r, r.fixed, out, func(r *flatReader, some []parquet.FixedLenByteArray) (int64, int, error) {
			def := r.levels(len(some))
			return c.ReadBatch(int64(len(def)), some[:len(def)], def, nil)
		}, func(v parquet.FixedLenByteArray) decimal128.Num { return decimalBytes(v) })
	case *file.ByteArrayColumnChunkReader:
		levels, values, err := r.byteArrays(c, len(out))
		for i, v := range r.binary[:max(0, values)] {
			if len(v) > arrow.Decimal128SizeBytes {
				return 0, 0, fmt.Errorf("has a decimal of %d bytes; at most %d", len(v), arrow.Decimal128SizeBytes)
			}
			out[i] = decimalBytes(v)
		}
		return levels, values, err
	}
	return 0, 0, wrongChunk(r)
}

// byteArrays reads a batch into r.binary.
func (r *flatReader) byteArrays(c *file.ByteArrayColumnChunkReader, most int) (int64, int, error) {
	if r.binary == nil {
		r.binary = make([]parquet.ByteArray, readBatch)
	}
	def := r.levels(most)
	return c.ReadBatch(int64(len(def)), r.binary[:len(def)], def, nil)
}

// booleans decodes n truth values.
func (r *flatReader) booleans(n int) (arrow.Array, error) {
	out, valid := make([]byte, bitutil.BytesForBits(int64(n))), validity{n: n}
	batch := make([]bool, readBatch)
	for at := 0; at < n; {
		if more, err := r.advance(); err != nil || !more {
			return nil, cutShort(err, at, n)
		}
		c, ok := r.chunk.(*file.BooleanColumnChunkReader)
		if !ok {
			return nil, wrongChunk(r)
		}
		def := r.levels(n - at)
		levels, values, err := c.ReadBatch(int64(len(def)), batch[:len(def)], def, nil)
		if err := r.took(levels, values, err); err != nil {
			return nil, err
		}
		if int64(values) != levels {
			if err := spread(batch[:levels], values, def, func(i int, ok bool) { valid.mark(at+i, ok) }); err != nil {
				return nil, err
			}
		}
		for i, v := range batch[:levels] {
			if v {
				bitutil.SetBit(out, at+i)
			}
		}
		at += int(levels)
	}
	return array.NewBoolean(n, memory.NewBufferBytes(out), valid.buffer(), valid.nulls), nil
}

// texts decodes n texts or bytes.
func (r *flatReader) texts(n int, t arrow.DataType) (arrow.Array, error) {
	offsets, valid := make([]int32, n+1), validity{n: n}
	var data []byte
	for at := 0; at < n; {
		if more, err := r.advance(); err != nil || !more {
			return nil, cutShort(err, at, n)
		}
		c, ok := r.chunk.(*file.ByteArrayColumnChunkReader)
		if !ok {
			return nil, wrongChunk(r)
		}
		levels, values, err := r.byteArrays(c, n-at)
		if err := r.took(levels, values, err); err != nil {
			return nil, err
		}
		some := r.binary[:levels]
		if int64(values) != levels {
			if err := spread(some, values, r.def, func(i int, ok bool) { valid.mark(at+i, ok) }); err != nil {
				return nil, err
			}
		}
		size := 0
		for _, v := range some {
			size += len(v)
		}
		if *r.text += size; r.bounded && *r.text > maxText || len(data)+size > math.MaxInt32 {
			return nil, waybill.Errorf(waybill.TooLarge, "the file holds more than %d MiB of text; cut it into several", maxText>>20)
		}
		for i, v := range some {
			data = append(data, v...)
			offsets[at+i+1] = int32(len(data))
		}
		at += int(levels)
	}
	return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{valid.buffer(), memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(data)}, nil, valid.nulls, 0)), nil
}
