package featurestore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
)

// Lists are put together here from the levels of their elements. The Arrow reader of the library would do it, but in
// goroutines of its own, where a panic over a malformed file ends the process. Source of the levels:
// apache/parquet-format README.md, Nested Encoding.

// readLists decodes a column of lists; see readColumn.
func readLists(rd *pqarrow.FileReader, mem memory.Allocator, c, rows int, text *int, bounded bool) ([]any, error) {
	f := rd.ParquetReader()
	list, ok := rd.Manifest.Fields[c].Field.Type.(*arrow.ListType)
	if !ok {
		return nil, fmt.Errorf("is no list")
	}
	leaf := f.MetaData().Schema.Column(c)
	empty := int16(0) // the level of a list without elements
	if f.MetaData().Schema.Root().Field(c).RepetitionType() == parquet.Repetitions.Optional {
		empty = 1
	}
	out := make([]any, 0, rows)
	def, rep := make([]int16, readBatch), make([]int16, readBatch)
	for g := range f.NumRowGroups() {
		chunk, pages, err := openChunk(f, mem, g, c)
		if err != nil {
			return nil, err
		}
		next, err := elementsOf(chunk, list.Elem(), def, rep)
		if err != nil {
			return nil, err
		}
		for chunk.HasNext() {
			levels, values, err := next(min(readBatch, pages.most(chunk)))
			if err != nil {
				return nil, fmt.Errorf("cannot be read: %w", err)
			}
			if levels == 0 {
				break
			}
			pages.read += int64(levels)
			for i := range levels {
				if rep[i] == 0 { // a new row
					if len(out) == rows {
						return nil, fmt.Errorf("has more than %d rows", rows)
					}
					out = append(out, nil)
					if def[i] >= empty {
						out[len(out)-1] = []any{}
					}
				}
				if def[i] <= empty {
					continue
				}
				if len(out) == 0 {
					return nil, fmt.Errorf("begins in the middle of a list")
				}
				var v any
				if def[i] == leaf.MaxDefinitionLevel() {
					if len(values) == 0 {
						return nil, fmt.Errorf("has fewer values than it says")
					}
					v, values = values[0], values[1:]
				}
				switch v := v.(type) {
				case string:
					*text += len(v)
				case []byte:
					*text += len(v)
				}
				if bounded && *text > maxText {
					return nil, waybill.Errorf(waybill.TooLarge, "the file holds more than %d MiB of text; cut it into several", maxText>>20)
				}
				l, ok := out[len(out)-1].([]any)
				if !ok {
					return nil, fmt.Errorf("has an element of no list")
				}
				out[len(out)-1] = append(l, v)
			}
		}
		if err := chunk.Err(); err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
	}
	if len(out) != rows {
		return nil, fmt.Errorf("has %d values for %d rows", len(out), rows)
	}
	return out, nil
}

// elementsOf returns a function that fills def and rep, at most so far, and returns how many levels it read, and the elements among them.
func elementsOf(chunk file.ColumnChunkReader, t arrow.DataType, def, rep []int16) (func(most int) (int, []any, error), error) {
	switch r := chunk.(type) {
	case *file.BooleanColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v bool) any { return v }), nil
	case *file.Int32ColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v int32) any { return wholeOf(t, int64(v)) }), nil
	case *file.Int64ColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v int64) any { return wholeOf(t, v) }), nil
	case *file.Float32ColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v float32) any { return float64(v) }), nil
	case *file.Float64ColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v float64) any { return v }), nil
	case *file.ByteArrayColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v parquet.ByteArray) any { return bytesOf(t, v) }), nil
	case *file.FixedLenByteArrayColumnChunkReader:
		return leveled(r.ReadBatch, def, rep, func(v parquet.FixedLenByteArray) any { return bytesOf(t, v) }), nil
	}
	return nil, readable(arrow.ListOf(arrow.ListOf(t)))
}

func leveled[T any](read func(n int64, values []T, def, rep []int16) (int64, int, error), def, rep []int16, native func(T) any) func(most int) (int, []any, error) {
	values := make([]T, len(def))
	out := make([]any, 0, len(def))
	return func(most int) (int, []any, error) {
		levels, n, err := read(int64(most), values, def, rep)
		out = out[:0]
		for _, v := range values[:n] {
			out = append(out, native(v))
		}
		return int(levels), out, err
	}
}

// wholeOf gives a stored whole number its meaning.
func wholeOf(t arrow.DataType, v int64) any {
	switch t := t.(type) {
	case *arrow.TimestampType:
		return instantOf(arrow.Timestamp(v), t.Unit)
	case *arrow.Date32Type:
		return time.Unix(v*24*60*60, 0).UTC()
	case *arrow.Uint32Type:
		return int64(uint32(v))
	case *arrow.Decimal128Type:
		return decimalText(decimal128.FromI64(v), t.Scale)
	}
	return v
}

// bytesOf gives stored bytes their meaning.
func bytesOf(t arrow.DataType, v []byte) any {
	switch t := t.(type) {
	case *arrow.StringType, *arrow.LargeStringType:
		return string(v)
	case *arrow.Decimal128Type:
		if len(v) > arrow.Decimal128SizeBytes {
			return bytes.Clone(v) // no decimal: refused
		}
		return decimalText(decimalBytes(v), t.Scale)
	}
	return bytes.Clone(v)
}

// decimalBytes reads at most 16 bytes: two's complement, the highest first.
func decimalBytes(v []byte) decimal128.Num {
	var wide [arrow.Decimal128SizeBytes]byte
	if len(v) > 0 && v[0] >= 0x80 {
		for i := range wide {
			wide[i] = 0xff
		}
	}
	copy(wide[len(wide)-len(v):], v)
	return decimal128.New(int64(binary.BigEndian.Uint64(wide[:8])), binary.BigEndian.Uint64(wide[8:]))
}
