package decision

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"waybill"
)

// checkRequest types a request by the endpoint's fields. It returns a new map: timestamps parsed, numbers as float64
// or int64, optional fields that are absent left out. Every violation is reported at once; a field that is not
// declared is one.
func checkRequest(fields []Field, body map[string]any, now time.Time) (map[string]any, error) {
	var bad []waybill.Violation
	out := typed("", fields, body, now, &bad)
	return out, waybill.InvalidFields(bad)
}

func typed(path string, fields []Field, body map[string]any, now time.Time, bad *[]waybill.Violation) map[string]any {
	fail := func(name, remedy string) {
		if len(*bad) < 20 {
			*bad = append(*bad, waybill.Violation{Field: path + name, Remedy: remedy})
		}
	}
	out := make(map[string]any, len(fields))
	for _, f := range fields {
		v, there := body[f.Name]
		if !there || v == nil {
			if f.Required {
				fail(f.Name, "is missing; give "+article(f.Type))
			}
			continue
		}
		switch f.Type {
		case "string":
			s, ok := v.(string)
			most := float64(MaxTextBytes)
			if f.Max != nil {
				most = math.Min(most, *f.Max)
			}
			switch {
			case !ok:
				fail(f.Name, "is "+describe(v)+"; give a text")
			case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s):
				fail(f.Name, "is not UTF-8 or holds the character U+0000, which is not text; leave it out")
			case f.Required && s == "":
				fail(f.Name, "is empty; give a text")
			case float64(len(s)) > most:
				fail(f.Name, fmt.Sprintf("has %d bytes; at most %.0f", len(s), most))
			case len(f.Values) > 0 && !slices.Contains(f.Values, s):
				fail(f.Name, strconv.QuoteToGraphic(s)+" is not allowed; use one of "+strings.Join(f.Values, ", "))
			default:
				out[f.Name] = s
			}
		case "int", "float":
			x, ok := v.(float64)
			if !ok || math.IsNaN(x) || math.IsInf(x, 0) {
				fail(f.Name, "is "+describe(v)+"; give a number")
				continue
			}
			if f.Min != nil && x < *f.Min || f.Max != nil && x > *f.Max {
				fail(f.Name, fmt.Sprintf("is %v; give a number %s", x, bounds(f)))
				continue
			}
			if f.Type == "float" {
				out[f.Name] = x
			} else if x != math.Trunc(x) || math.Abs(x) >= 1<<53 {
				fail(f.Name, fmt.Sprintf("is %v; give a whole number below 2^53, which JSON holds exactly", x))
			} else {
				out[f.Name] = int64(x)
			}
		case "bool":
			b, ok := v.(bool)
			if !ok {
				fail(f.Name, "is "+describe(v)+"; give true or false")
				continue
			}
			out[f.Name] = b
		case "timestamp":
			s, _ := v.(string)
			at, err := time.Parse(time.RFC3339Nano, s)
			switch {
			case err != nil || at.Year() < 1970 || at.Year() > 2200:
				fail(f.Name, "is "+describe(v)+"; give a time as 2026-04-10T18:00:00Z")
			case f.Future && !at.After(now):
				fail(f.Name, "lies in the past ("+s+"); give a time after now ("+now.Format(time.RFC3339)+")")
			default:
				out[f.Name] = at.UTC().Truncate(time.Microsecond)
			}
		case "list":
			items, ok := v.([]any)
			if !ok {
				fail(f.Name, "is "+describe(v)+"; give a list")
				continue
			}
			least, most := 0.0, float64(MaxListItems)
			if f.Required {
				least = 1
			}
			if f.Min != nil {
				least = *f.Min
			}
			if f.Max != nil {
				most = math.Min(most, *f.Max)
			}
			if n := float64(len(items)); n < least || n > most {
				fail(f.Name, fmt.Sprintf("has %d items; give %.0f to %.0f", len(items), least, most))
				continue
			}
			list := make([]any, 0, len(items))
			for i, item := range items {
				at := f.Name + "[" + strconv.Itoa(i) + "]"
				m, ok := item.(map[string]any)
				if !ok {
					fail(at, "is "+describe(item)+"; give an object")
					continue
				}
				list = append(list, typed(path+at+".", f.Fields, m, now, bad))
			}
			out[f.Name] = list
		}
	}
	var unknown []string
	for name := range body {
		if !slices.ContainsFunc(fields, func(f Field) bool { return f.Name == name }) {
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	for _, name := range unknown {
		fail(clip(name), "is not a field of this endpoint; leave it out or use one of "+fieldNames(fields))
	}
	return out
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func fieldNames(fields []Field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

func article(typ string) string {
	switch typ {
	case "string":
		return "a text"
	case "int":
		return "a whole number"
	case "float":
		return "a number"
	case "bool":
		return "true or false"
	case "timestamp":
		return "a time as 2026-04-10T18:00:00Z"
	}
	return "a list"
}

func bounds(f Field) string {
	switch {
	case f.Min != nil && f.Max != nil:
		return fmt.Sprintf("from %v to %v", *f.Min, *f.Max)
	case f.Min != nil:
		return fmt.Sprintf("of at least %v", *f.Min)
	}
	return fmt.Sprintf("of at most %v", *f.Max)
}

// describe names a wrong value for the caller without echoing much of it.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the text " + strconv.QuoteToGraphic(clip(v))
	case float64:
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return "a truth value"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "null"
}

// digestible gives the bytes of a request that an idempotency key is bound to.
func digestible(body map[string]any) ([]byte, error) {
	b, err := json.Marshal(body) // map keys are sorted
	if err != nil {
		return nil, fmt.Errorf("marshal request: %w", err)
	}
	return b, nil
}
