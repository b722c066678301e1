package featurestore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"waybill"
)

// row is one accepted row of a view. Values are in the order of the view's features and have the Go types of typed:
// bool, int64, float64, string, []byte, time.Time, Decimal, []any, []float32 or nil.
type row struct {
	key       string // encoded join key
	event     int64  // µs since 1970: when it was true
	knowledge int64  // µs since 1970: when the hub learned it
	seq       int64
	keys      []any
	values    []any
}

// typed converts a value from JSON, CSV or Parquet to a column's Go type. The error is a remedy without the field.
func typed(c Column, v any) (any, error) {
	if v == nil {
		if c.Required {
			return nil, fmt.Errorf("is null; %s is required", c.Type)
		}
		return nil, nil
	}
	out, err := convert(c.Type, v)
	if err != nil {
		return nil, err
	}
	if x, ok := number(out); ok {
		if math.IsNaN(x) {
			return typed(c, nil)
		}
		if math.IsInf(x, 0) {
			return nil, fmt.Errorf("is infinite or too large for %s; give a finite number", c.Type)
		}
		if c.Min != nil && x < *c.Min || c.Max != nil && x > *c.Max {
			return nil, &wrongValue{fmt.Sprintf("is %v, outside %s", x, span(c)), "is outside " + span(c)}
		}
	}
	if s, ok := out.(string); ok {
		if err := c.heldTo(s); err != nil {
			return nil, err
		}
	}
	if b, ok := out.([]byte); ok {
		if err := c.fits(len(b)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func span(c Column) string {
	lo, hi := "-∞", "∞"
	if c.Min != nil {
		lo = strconv.FormatFloat(*c.Min, 'g', -1, 64)
	}
	if c.Max != nil {
		hi = strconv.FormatFloat(*c.Max, 'g', -1, 64)
	}
	return lo + " to " + hi
}

func convert(t Type, v any) (any, error) {
	wrong := func() error { return wrongly(v, "is %s; give %s", t) }
	switch t {
	case Bool:
		switch v := v.(type) {
		case bool:
			return v, nil
		case string:
			if b, err := strconv.ParseBool(v); err == nil {
				return b, nil
			}
		}
	case Int32, Int64:
		var n int64
		switch v := v.(type) {
		case int64:
			n = v
		case int32:
			n = int64(v)
		case float64:
			if v != math.Trunc(v) {
				return nil, wrong()
			}
			if math.Abs(v) >= 1<<53 { // 2^53 + 1 arrives as 2^53
				return nil, wrongly(v, "is %s, too large to be exact; give whole numbers from 2^53 on as text")
			}
			n = int64(v)
		case string:
			i, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, wrong()
			}
			n = i
		default:
			return nil, wrong()
		}
		if t == Int32 && (n < math.MinInt32 || n > math.MaxInt32) {
			return nil, wrong()
		}
		return n, nil
	case Float32, Float64:
		var x float64
		switch v := v.(type) {
		case float64:
			x = v
		case float32:
			x = float64(v)
		case int64:
			x = float64(v)
		case int32:
			x = float64(v)
		case string:
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return nil, wrong()
			}
			x = f
		default:
			return nil, wrong()
		}
		if t == Float32 {
			x = float64(float32(x))
		}
		return x, nil
	case String:
		if s, ok := v.(string); ok {
			return strings.ToValidUTF8(s, "\uFFFD"), nil
		}
	case Timestamp:
		return toTime(v)
	case Bytes:
		return toBytes(v)
	case DecimalT:
		return toDecimal(v)
	default:
		if t.dim() > 0 {
			return toVector(t, v)
		}
		return toList(t, v)
	}
	return nil, wrong()
}

// toTime reads a time from outside. Its year, in UTC, is bounded: Postgres and nanoseconds in 64 bits have ends, too.
func toTime(v any) (time.Time, error) {
	t, err := storedTime(v)
	if err == nil && (t.Year() < minYear || t.Year() > maxYear) {
		return time.Time{}, wrongly(v, "is %s; give a time in the years %d to %d", minYear, maxYear)
	}
	return t, err
}

const minYear, maxYear = 1900, 2200

// storedTime reads a time without bounds: what was accepted once is never refused again.
func storedTime(v any) (time.Time, error) {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Truncate(time.Microsecond), nil
	case string:
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02"} {
			if t, err := time.Parse(layout, v); err == nil {
				return t.UTC().Truncate(time.Microsecond), nil
			}
		}
	}
	return time.Time{}, wrongly(v, "is %s; give a time as 2026-04-10T18:00:00Z")
}

// restore converts a stored value to a column's Go type. Unlike convert it holds it against no bounds.
func restore(t Type, v any) (any, error) {
	if t == Timestamp {
		return storedTime(v)
	}
	return convert(t, v)
}

// wrongValue is what is wrong with a value, in words that show it and in words that do not: these are kept and shown to others
// than who gave it.
type wrongValue struct{ shown, hidden string }

// Error shows the value.
func (e *wrongValue) Error() string { return e.shown }

// wrongly says what is wrong with v, which stands in the place of the first verb.
func wrongly(v any, format string, args ...any) error {
	say := func(v string) string { return fmt.Sprintf(format, append([]any{v}, args...)...) }
	return &wrongValue{say(describe(v)), say(natureOf(v))}
}

// wrongElement says what is wrong with element i of a list.
func wrongElement(i int, err error) error {
	at := fmt.Sprintf("has an element [%d] that ", i)
	return &wrongValue{at + err.Error(), at + hiding(err)}
}

// hiding is a remedy without the value that it is about. Of an expression it does not tell what came out.
func hiding(err error) string {
	var w *wrongValue
	var e *waybill.Error
	switch {
	case errors.As(err, &w):
		return w.hidden
	case errors.As(err, &e) && len(e.Violations) > 0:
		return e.Violations[0].Field + " has no result for this row, or none of its type; read the service with the row's inputs to see why"
	}
	return err.Error()
}

// natureOf is describe without the value.
func natureOf(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case float64, int64, rounded:
		return "a number"
	case time.Time:
		return "a time"
	}
	return describe(v)
}

func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "the text " + strconv.QuoteToGraphic(short(v))
	case float64:
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	case rounded:
		return describe(float64(v))
	case int64:
		return "the number " + strconv.FormatInt(v, 10)
	case bool:
		return "a truth value"
	case time.Time:
		if v.Year() < 0 || v.Year() > 9999 {
			return "a time in the year " + strconv.Itoa(v.Year())
		}
		return "the time " + v.UTC().Format(time.RFC3339)
	case []any, []float32:
		return "a list"
	case []byte:
		return strconv.Itoa(len(v)) + " bytes"
	}
	return "an object"
}

func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// number gives the numeric reading of a value; a truth value is 0 or 1, a missing one NaN.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case nil:
		return math.NaN(), true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case Decimal:
		return v.Float64(), true
	}
	return math.NaN(), false
}

// encodeKey writes join keys typed and length-prefixed, in the view's order: (1,23) and (12,3) never collide.
func encodeKey(keys []any) string {
	var b []byte
	for _, k := range keys {
		b = appendKey(b, k)
	}
	return string(b)
}

// appendKey writes one value, which tells its type and its length.
func appendKey(b []byte, k any) []byte {
	switch k := k.(type) {
	case bool:
		if k {
			return append(b, 'b', 2)
		}
		return append(b, 'b', 1)
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(k))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(k))
	case string:
		b = binary.BigEndian.AppendUint32(append(b, 's'), uint32(len(k)))
		return append(b, k...)
	case time.Time:
		return binary.BigEndian.AppendUint64(append(b, 't'), uint64(k.UnixMicro()))
	case []byte:
		b = binary.BigEndian.AppendUint32(append(b, 'y'), uint32(len(k)))
		return append(b, k...)
	case Decimal:
		b = binary.BigEndian.AppendUint32(append(b, 'd'), uint32(len(k)))
		return append(b, k...)
	case []any:
		b = binary.BigEndian.AppendUint32(append(b, 'l'), uint32(len(k)))
		for _, x := range k {
			b = appendKey(b, x)
		}
	case []float32:
		b = binary.BigEndian.AppendUint32(append(b, 'v'), uint32(len(k)))
		for _, x := range k {
			b = binary.BigEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
	return b
}

// contentDigest identifies rows whatever file or push they came in: event times, keys and values in their order, and
// no knowledge time.
func contentDigest(rows []row) string {
	h := sha256.New()
	var b []byte
	for i := range rows {
		b = binary.BigEndian.AppendUint64(b[:0], uint64(rows[i].event))
		b = append(b, rows[i].key...)
		for _, v := range rows[i].values {
			if v == nil {
				b = append(b, 'n')
			}
			b = appendKey(b, v)
		}
		h.Write(b)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// decodeRows reads the JSON in which earlier hubs kept the rows of a push, [[event µs, [keys], [features]], …], as commit seq
// of time at (µs). Still earlier ones repeat that time in second place.
func decodeRows(v *View, seq, at int64, data []byte) ([]row, error) {
	var raw [][]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "a commit's rows cannot be read")
	}
	out := make([]row, 0, len(raw))
	for _, parts := range raw {
		r := row{seq: seq, knowledge: at}
		var keys, values []any
		into := []any{&r.event, &keys, &values}
		if len(parts) == 4 {
			into = []any{&r.event, &r.knowledge, &keys, &values}
		}
		if len(parts) != len(into) {
			return nil, waybill.Errorf(waybill.Corrupt, "a commit's row has %d parts", len(parts))
		}
		for i, into := range into {
			if err := json.Unmarshal(parts[i], into); err != nil {
				return nil, waybill.Wrap(waybill.Corrupt, err, "a commit's row cannot be read")
			}
		}
		var err error
		if r.keys, err = typeAll(v.Entity.Keys, keys); err != nil {
			return nil, err
		}
		if r.values, err = typeAll(v.Features, values); err != nil {
			return nil, err
		}
		r.key = encodeKey(r.keys)
		out = append(out, r)
	}
	return out, nil
}

func typeAll(cols []Column, vs []any) ([]any, error) {
	if len(cols) != len(vs) {
		return nil, waybill.Errorf(waybill.Corrupt, "a commit's row has %d values for %d columns", len(vs), len(cols))
	}
	out := make([]any, len(cols))
	for i, v := range vs {
		if v == nil {
			continue
		}
		x, err := restore(cols[i].Type, v)
		if err != nil {
			return nil, waybill.Errorf(waybill.Corrupt, "the stored value of %s %s", cols[i].Name, err)
		}
		out[i] = x
	}
	return out, nil
}
