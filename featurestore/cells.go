package featurestore

import (
	"fmt"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
)

// readable says whether cells knows a type.
func readable(t arrow.DataType) error {
	switch t.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.FLOAT32, arrow.FLOAT64, arrow.STRING, arrow.LARGE_STRING,
		arrow.BINARY, arrow.TIMESTAMP, arrow.DATE32:
		return nil
	case arrow.DECIMAL128:
		if d, ok := t.(*arrow.Decimal128Type); ok && d.Scale >= 0 && d.Scale <= decimalDigits {
			return nil
		}
	case arrow.LIST:
		if l, ok := t.(*arrow.ListType); ok && l.Elem().ID() != arrow.LIST {
			return readable(l.Elem())
		}
	default:
	}
	return fmt.Errorf("has the type %s; use bool, int, float, decimal, string, bytes, timestamp or a list of these", t)
}

// typeOf is the type that holds all values of a column of a file as they are, but for a decimal of more digits than ours: that
// stays text.
func typeOf(t arrow.DataType) Type {
	switch t := t.(type) {
	case *arrow.BooleanType:
		return Bool
	case *arrow.Int8Type, *arrow.Int16Type, *arrow.Int32Type, *arrow.Uint8Type, *arrow.Uint16Type:
		return Int32
	case *arrow.Int64Type, *arrow.Uint32Type:
		return Int64
	case *arrow.Float32Type:
		return Float32
	case *arrow.Float64Type:
		return Float64
	case *arrow.BinaryType:
		return Bytes
	case *arrow.TimestampType, *arrow.Date32Type:
		return Timestamp
	case *arrow.Decimal128Type:
		if t.Scale <= decimalScale && t.Precision-t.Scale <= decimalDigits-decimalScale {
			return DecimalT
		}
	case *arrow.ListType:
		return "list<" + typeOf(t.Elem()) + ">"
	}
	return String
}

// instantOf converts a timestamp without the wrap that nanoseconds in 64 bits have. Those beyond all calendars become the end of
// Go's: toTime refuses them by their year.
func instantOf(v arrow.Timestamp, unit arrow.TimeUnit) time.Time {
	const far = 1 << 40 // seconds: some 35,000 years
	switch unit {
	case arrow.Second:
		return time.Unix(max(-far, min(far, int64(v))), 0).UTC()
	case arrow.Millisecond:
		return time.Unix(max(-far, min(far, int64(v)/1e3)), int64(v)%1e3*1e6).UTC()
	case arrow.Microsecond:
		return time.UnixMicro(int64(v)).UTC()
	case arrow.Nanosecond:
	}
	return time.Unix(0, int64(v)).UTC()
}

// cells returns what the places of an array hold, as cells of a table. Texts and bytes share the array's memory.
func cells(a arrow.Array) (func(i int) any, error) {
	at, err := valuesOf(a)
	if err != nil || a.NullN() == 0 {
		return at, err
	}
	return func(i int) any {
		if a.IsNull(i) {
			return nil
		}
		return at(i)
	}, nil
}

// valuesOf is cells for places that are not null.
func valuesOf(a arrow.Array) (func(i int) any, error) {
	switch a := a.(type) {
	case *array.Boolean:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Int8:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Int16:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Int32:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Int64:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Uint8:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Uint16:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Uint32:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Float32:
		return func(i int) any { return float64(a.Value(i)) }, nil
	case *array.Float64:
		return func(i int) any { return a.Value(i) }, nil
	case *array.String:
		return func(i int) any { return a.Value(i) }, nil
	case *array.LargeString:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Binary:
		return func(i int) any { return a.Value(i) }, nil
	case *array.LargeBinary:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Timestamp:
		unit := arrow.Nanosecond
		if t, ok := a.DataType().(*arrow.TimestampType); ok {
			unit = t.Unit
		}
		return func(i int) any { return instantOf(a.Value(i), unit) }, nil
	case *array.Date32:
		return func(i int) any { return a.Value(i).ToTime().UTC() }, nil
	case *array.Decimal128:
		scale := int32(0)
		if t, ok := a.DataType().(*arrow.Decimal128Type); ok {
			scale = t.Scale
		}
		return func(i int) any { return decimalText(a.Value(i), scale) }, nil
	case *array.Null: // how clients write a column that holds nothing
		return func(int) any { return nil }, nil
	case *array.Dictionary:
		word, err := cells(a.Dictionary())
		return func(i int) any { return word(a.GetValueIndex(i)) }, err
	case array.ListLike:
		elem, err := cells(a.ListValues())
		return func(i int) any {
			from, to := a.ValueOffsets(i)
			out := make([]any, 0, to-from)
			for e := from; e < to; e++ {
				out = append(out, elem(int(e)))
			}
			return out
		}, err
	}
	return nil, readable(a.DataType())
}

// decimalText writes n × 10^−scale as text; whether a column can hold it is for convert to say.
func decimalText(n decimal128.Num, scale int32) string {
	sign, digits := "", n.BigInt().String()
	if n.Sign() < 0 {
		sign, digits = "-", digits[1:]
	}
	if pad := int(scale) + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	if scale == 0 {
		return sign + digits
	}
	cut := len(digits) - int(scale)
	return sign + digits[:cut] + "." + digits[cut:]
}
