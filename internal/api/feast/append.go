package feast

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"waybill"
	"waybill/featurestore"
)

// epoch is the event time of what has none: Feast's own servers send it for entity columns and for rows not found.
const epoch = `"1970-01-01T00:00:00Z"`

// appendAnswer writes the body that Feast clients parse: results by column, each with values, statuses and event
// timestamps of the same length, entity columns first. Clients before 0.64 fail where one of the three is missing.
func appendAnswer(b []byte, a *answer) []byte {
	b = append(b, `{"metadata":{"feature_names":[`...)
	for i, name := range a.entities.names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
	}
	if len(a.entities.names) > 0 && len(a.names) > 0 {
		b = append(b, ',')
	}
	b = append(b, a.json...)
	b = append(b, `]},"results":[`...)
	for i, column := range a.entities.columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEntities(b, column)
	}
	stamps := make([]stamp, a.batch.Rows())
	for i, output := range a.outputs {
		if i+len(a.entities.columns) > 0 {
			b = append(b, ',')
		}
		b = a.appendColumn(b, output, stamps)
	}
	return append(b, `],"status":true}`...)
}

func appendEntities(b []byte, column []any) []byte {
	b = append(b, `{"values":[`...)
	for i, v := range column {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = appendValue(b, v)
	}
	b = append(b, `],"statuses":[`...)
	for i := range column {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `"PRESENT"`...)
	}
	b = append(b, `],"event_timestamps":[`...)
	for i := range column {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, epoch...)
	}
	return append(b, `]}`...)
}

func (a *answer) appendColumn(b []byte, output int, stamps []stamp) []byte {
	var raw featurestore.Raw
	b = append(b, `{"values":[`...)
	for i := range stamps {
		if i > 0 {
			b = append(b, ',')
		}
		a.batch.Value(i, output, &raw)
		b, stamps[i].null = appendRaw(b, &raw)
	}
	b = append(b, `],"statuses":["`...)
	for i := range stamps {
		if i > 0 {
			b = append(b, `","`...)
		}
		s, event := a.worth(i, output)
		b = append(b, status(s, stamps[i].null)...)
		stamps[i].next = event
	}
	b = append(b, `"],"event_timestamps":[`...)
	for i := range stamps {
		if i > 0 {
			b = append(b, ',')
		}
		b = stamps[i].append(b)
	}
	return append(b, `]}`...)
}

// stamp keeps the last event time that was written for a row: all features of a view share theirs.
type stamp struct {
	event, next int64 // µs; the one in text and the one of the column at hand, 0 for none
	text        []byte
	null        bool // the column at hand is null for the row
}

func (s *stamp) append(b []byte) []byte {
	if s.next == 0 {
		return append(b, epoch...)
	}
	if s.text == nil || s.next != s.event {
		s.event = s.next
		s.text = append(appendTime(append(s.text[:0], '"'), time.UnixMicro(s.next)), '"')
	}
	return append(b, s.text...)
}

// appendRaw is appendValue without a box.
func appendRaw(b []byte, raw *featurestore.Raw) (out []byte, null bool) {
	switch raw.Kind {
	case featurestore.RawFloat:
		return appendNumber(b, raw.Float)
	case featurestore.RawInt:
		return strconv.AppendInt(b, raw.Int, 10), false
	case featurestore.RawNull:
		return append(b, "null"...), true
	}
	return appendValue(b, boxed(raw))
}

// appendTime writes RFC 3339 with no, three or six digits of the second: Python before 3.11 reads no other.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	layout := "2006-01-02T15:04:05Z"
	if us := t.Nanosecond() / 1000; us%1000 != 0 {
		layout = "2006-01-02T15:04:05.000000Z"
	} else if us != 0 {
		layout = "2006-01-02T15:04:05.000Z"
	}
	return t.AppendFormat(b, layout)
}

// appendValue writes one value and says whether it is null, which is also what JSON or the clients cannot carry: an empty
// list (they infer a type from the first element), a list with a null in it, NaN and infinities.
func appendValue(b []byte, v any) (out []byte, null bool) {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v), false
	case int64:
		return strconv.AppendInt(b, v, 10), false
	case float64:
		return appendNumber(b, v)
	case json.Number: // of a request, as it came
		return append(b, v...), false
	case string:
		return appendText(b, v), false
	case featurestore.Decimal:
		return appendText(b, string(v)), false
	case time.Time:
		return strconv.AppendInt(b, v.Unix(), 10), false
	case []byte:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v)
		return append(b, '"'), false
	case []any:
		return appendList(b, v)
	case []float32:
		return appendList(b, v)
	}
	return append(b, "null"...), true
}

func appendList[T any](b []byte, list []T) (out []byte, null bool) {
	if len(list) == 0 {
		return append(b, "null"...), true
	}
	start := len(b)
	for i, x := range list {
		if b = append(b, ','); i == 0 {
			b[start] = '['
		}
		var item any = x
		if f, ok := item.(float32); ok {
			item = float64(f)
		}
		if b, null = appendValue(b, item); null {
			return append(b[:start], "null"...), true
		}
	}
	return append(b, ']'), false
}

func appendNumber(b []byte, x float64) (out []byte, null bool) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return append(b, "null"...), true
	}
	return appendFloat(b, x), false
}

// appendFloat writes the shortest text that reads as the same float, always with a point or an exponent: clients take a
// number without one for an integer, and refuse a list that has both.
func appendFloat(b []byte, x float64) []byte {
	format := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	start := len(b)
	b = strconv.AppendFloat(b, x, format, -1, 64)
	for _, c := range b[start:] {
		if c == '.' || c == 'e' {
			return b
		}
	}
	return append(b, ".0"...)
}

const hexDigits = "0123456789abcdef"

// appendText writes a JSON text. The texts here are UTF-8 already; what is not becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[from:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, "\uFFFD"...)
		}
		i += size
		from = i
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

// appendError writes a JSON text that holds JSON: the form from which Feast clients make an exception of theirs. They
// import what module and class say, so both are constants of ours.
func appendError(b []byte, class, message string) []byte {
	inner := append([]byte(nil), `{"module":"feast.errors","class":`...)
	inner = appendText(inner, class)
	inner = append(inner, `,"message":`...)
	inner = appendText(inner, message)
	inner = append(inner, '}')
	return append(appendText(b, string(inner)), '\n')
}

// class is the exception of Feast's that fits a code best.
func class(code waybill.Code, missing string) string {
	switch code {
	case waybill.NotFound:
		return missing
	case waybill.Denied, waybill.Unauthenticated:
		return "FeastPermissionError"
	default:
	}
	return "FeastError"
}
