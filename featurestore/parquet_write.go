package featurestore

import (
	"bytes"
	"fmt"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
)

// writerVersion stands in every Parquet file that is written here. It changes when the same rows would give other
// bytes, and with it the kernel of training sets.
const writerVersion = "waybill 1"

// recipeKey is where a training set's file says how it was made.
const recipeKey = "waybill.recipe"

// rowGroup is how many rows a row group of a written file holds.
const rowGroup = 128 << 10

// writeParquet writes columns as a Parquet file: the same columns, values and recipe always give the same bytes. recipe
// stands in the file's metadata under recipeKey, unless it is "".
func writeParquet(cols []Column, rows int, recipe string, cell func(row, col int) any) (_ []byte, err error) {
	boundCodecs()
	fields := make([]arrow.Field, len(cols))
	for i, c := range cols {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &buf, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCreatedBy(writerVersion),
		parquet.WithVersion(parquet.V2_LATEST), parquet.WithMaxRowGroupLength(rowGroup)), pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator)))
	if err != nil {
		return nil, fmt.Errorf("open parquet writer: %w", err)
	}
	for from := 0; from < rows; from += rowGroup {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for i := from; i < min(rows, from+rowGroup); i++ {
			for c := range cols {
				if err := appendValue(b.Field(c), cell(i, c)); err != nil {
					b.Release()
					return nil, fmt.Errorf("write column %s: %w", cols[c].Name, err)
				}
			}
		}
		rec := b.NewRecord()
		err := w.Write(rec)
		rec.Release()
		b.Release()
		if err != nil {
			return nil, fmt.Errorf("write parquet: %w", err)
		}
	}
	if recipe != "" {
		if err := w.AppendKeyValueMetadata(recipeKey, recipe); err != nil {
			return nil, fmt.Errorf("write recipe: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close parquet: %w", err)
	}
	return buf.Bytes(), nil
}

func arrowType(t Type) arrow.DataType {
	switch t {
	case Bool:
		return arrow.FixedWidthTypes.Boolean
	case Int32:
		return arrow.PrimitiveTypes.Int32
	case Int64:
		return arrow.PrimitiveTypes.Int64
	case Float32:
		return arrow.PrimitiveTypes.Float32
	case Float64:
		return arrow.PrimitiveTypes.Float64
	case Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case Bytes:
		return arrow.BinaryTypes.Binary
	case DecimalT:
		return &arrow.Decimal128Type{Precision: decimalDigits, Scale: decimalScale}
	case String:
		return arrow.BinaryTypes.String
	}
	if t.dim() > 0 {
		return arrow.ListOf(arrow.PrimitiveTypes.Float32)
	}
	return arrow.ListOf(arrowType(t.elem()))
}

func appendValue(b array.Builder, v any) error {
	if v == nil {
		b.AppendNull()
		return nil
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		if x, ok := v.(bool); ok {
			b.Append(x)
			return nil
		}
	case *array.Int32Builder:
		if x, ok := v.(int64); ok {
			b.Append(int32(x))
			return nil
		}
	case *array.Int64Builder:
		if x, ok := v.(int64); ok {
			b.Append(x)
			return nil
		}
	case *array.Float32Builder:
		if x, ok := v.(float64); ok {
			b.Append(float32(x))
			return nil
		}
	case *array.Float64Builder:
		if x, ok := v.(float64); ok {
			b.Append(x)
			return nil
		}
	case *array.StringBuilder:
		if x, ok := v.(string); ok {
			b.Append(x)
			return nil
		}
	case *array.TimestampBuilder:
		if x, ok := v.(time.Time); ok {
			b.Append(arrow.Timestamp(x.UnixMicro()))
			return nil
		}
	case *array.BinaryBuilder:
		if x, ok := v.([]byte); ok {
			b.Append(x)
			return nil
		}
	case *array.Decimal128Builder:
		if x, ok := v.(Decimal); ok {
			b.Append(decimal128.FromBigInt(x.scaled()))
			return nil
		}
	case *array.ListBuilder:
		return appendList(b, v)
	}
	return fmt.Errorf("a %T does not fit", v)
}

func appendList(b *array.ListBuilder, v any) error {
	b.Append(true)
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := appendValue(b.ValueBuilder(), x); err != nil {
				return err
			}
		}
		return nil
	case []float32:
		if f, ok := b.ValueBuilder().(*array.Float32Builder); ok {
			f.AppendValues(v, nil)
			return nil
		}
	}
	return fmt.Errorf("a %T does not fit", v)
}
