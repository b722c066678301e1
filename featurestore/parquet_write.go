package featurestore

import (
	"fmt"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
)

// writerVersion stands in every Parquet file that is written here. It changes when the same rows would give other
// bytes, and with it the kernel of training sets.
const writerVersion = "waybill 1"

// recipeKey is where a training set's file says how it was made.
const recipeKey = "waybill.recipe"

// rowGroup is how many rows a row group of a written file holds.
const rowGroup = 128 << 10

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
