package feast

import (
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
)

// like reads JSON with the standard library into what scanner.value gives; ok is false for what scanner refuses although
// it is JSON: objects, U+0000, numbers beyond 64 bits, more than maxDepth levels.
func like(text string) (v any, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var raw any
	if d.Decode(&raw) != nil || d.More() || !utf8.ValidString(text) || strings.TrimRight(text[d.InputOffset():], " \t\r\n") != "" {
		return nil, false
	}
	return plain(raw, 0)
}

func plain(raw any, depth int) (any, bool) {
	switch raw := raw.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(raw.String(), 10, 64); err == nil {
			return n, true
		}
		x, err := raw.Float64()
		if !featurestore.ExactNumber(raw.String()) {
			return raw, err == nil && !math.IsInf(x, 0)
		}
		return x, err == nil && !math.IsInf(x, 0)
	case string:
		return raw, !strings.Contains(raw, "\x00")
	case []any:
		out := make([]any, len(raw))
		for i, x := range raw {
			v, ok := plain(x, depth+1)
			if !ok {
				return nil, false
			}
			out[i] = v
		}
		return out, depth < maxDepth
	case map[string]any:
		return nil, false
	}
	return raw, true
}

func scanValue(text string) (any, error) {
	s, err := newScanner(text)
	if err != nil {
		return nil, err
	}
	v, err := s.value(0)
	if err != nil {
		return nil, err
	}
	return v, s.end()
}

func TestScanner_ReadsWhatTheStandardLibraryReads(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`1`, `-0`, `-0.0`, `01`, `1.`, `.5`, `1e5`, `1E+5`, `1e`, `9223372036854775807`, `9223372036854775808`, `1e400`, `"a"`, `"\u00e9\n\/"`,
		`"\ud83d\ude00"`, `"\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\u0000"`, "\"\x01\"", `"`, `"\`, `"\x"`, `[1, "a", null, true, false]`, `[]`, `[1,]`, `[,1]`, `{}`, `nul`, `null`,
		` true `, `true x`, ``, `-`, `"\u12"`, `[[[1]]]`, strings.Repeat("[", 40) + strings.Repeat("]", 40), "\"\xff\""} {
		want, ok := like(text)
		got, err := scanValue(text)
		if ok != (err == nil) || ok && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v; the standard library: %v, %v", text, got, err, want, ok)
		}
		if err != nil && waybill.CodeOf(err) != waybill.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzValue holds the scanner against the standard library, on any text.
func FuzzValue(f *testing.F) {
	for _, text := range []string{`[1,-2.5e3,"\ud83d\ude00\u00e9",null,true]`, `"\ud83d\u0041"`, `9223372036854775808`, `[[[]]]`, `-0.0`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, ok := like(text)
		got, err := scanValue(text)
		if ok != (err == nil) || ok && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v; the standard library: %v, %v", text, got, err, want, ok)
		}
	})
}

// FuzzQuery feeds the decoder of online reads: it never panics, names what is wrong, and keeps its bounds.
func FuzzQuery(f *testing.F) {
	f.Add(`{"entities":{"driver_id":[1001,1002]},"full_feature_names":false,"features":["a:b","a@v2:c","a.v1:c"]}`)
	f.Add(`{"feature_service":"svc","entities":{"a":[1],"b":["x"]},"include_feature_view_version_metadata":{"x":[1]}}`)
	f.Add(`{"entities":{"a":[1],"a":[2]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseQuery(text)
		if err != nil {
			if c := waybill.CodeOf(err); c != waybill.Invalid && c != waybill.TooLarge {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !json.Valid([]byte(text)) {
			t.Errorf("accepted, and is not JSON: %q", text)
		}
		if len(q.features) > maxFeatures || q.entities.rows > maxRows || len(q.entities.names) != len(q.entities.columns) {
			t.Errorf("%q: beyond the bounds: %+v", text, q)
		}
		for _, c := range q.entities.columns {
			if len(c) != q.entities.rows {
				t.Errorf("%q: uneven columns", text)
			}
		}
		for _, name := range check(t, q) {
			if kind, rest, _ := strings.Cut(name, "/"); kind != "view" && kind != "service" || waybill.CheckName("name", rest) != nil {
				t.Errorf("%q asks for the right on %q", text, name)
			}
		}
	})
}

func check(t *testing.T, q query) []string {
	t.Helper()
	names, err := Resources(q.service, q.features)
	if err != nil {
		return nil
	}
	return names
}

// FuzzWrite feeds the decoder of writes.
func FuzzWrite(f *testing.F) {
	f.Add(`{"feature_view_name":"drivers","df":{"driver_id":[1],"hours":[[0.5,1]],"event_timestamp":["2026-08-20T10:00:00"],"created":[null]},"allow_registry_cache":false}`)
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseWrite(text, "feature_view_name")
		if err != nil {
			if c := waybill.CodeOf(err); c != waybill.Invalid && c != waybill.TooLarge {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if !json.Valid([]byte(text)) || w.df.rows > maxFrame {
			t.Errorf("accepted: %q", text)
		}
		if id := batchID(&w.df, "", math.MaxInt64); len(id) > 128 {
			t.Errorf("batch id %q", id)
		}
		if n := len(tieOrder(&w.df)); n != w.df.rows {
			t.Errorf("%d of %d rows", n, w.df.rows)
		}
	})
}

// A list longer than its bound is refused while it is read, not afterwards.
func TestParseQuery_StopsAtTheBound(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"entities":{"a":[` + strings.Repeat("1,", maxRows) + `1]`:        "more than 1000 rows",
		`{"features":[` + strings.Repeat(`"a:b",`, maxFeatures) + `"a:b"]`: "more than 1000 entries",
		`{"entities":{"a":[1],"b":[1,2]}}`:                                 "has 2 rows",
		`{"entities":{"a":[1],"a":[2]}}`:                                   "twice",
		`{"entities":{"a":[{}]}}`:                                          "no maps",
		`{"entities":[{"a":1}]}`:                                           "object of columns",
		`{"features":"a:b"}`:                                               "list of texts",
		`{"full_feature_names":1}`:                                         "expected false",
		`{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`:  "nested",
		`{"features":["a:b"],"entities":{"a":[1]}} {}`:                     "goes on",
		"{\"entities\":{\"a\":[\"\xff\"]}}":                                "UTF-8",
	} {
		_, err := parseQuery(text)
		if c := waybill.CodeOf(err); (c != waybill.Invalid && c != waybill.TooLarge) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

// What is written reads as the same values, floats as floats, whatever they are.
func TestAppendValue_ReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(rapid.Float64().AsAny(), rapid.Int64().AsAny(), rapid.String().AsAny(), rapid.Bool().AsAny(),
			rapid.SliceOfN(rapid.Float64(), 0, 5).AsAny()).Draw(t, "value")
		want := v
		list, isList := v.([]float64)
		if isList {
			anys := make([]any, len(list))
			for i, x := range list {
				anys[i] = x
			}
			v, want = anys, anys
		}
		b, null := appendValue(nil, v)
		if !json.Valid(b) {
			t.Fatalf("%q is not JSON", b)
		}
		got, err := scanValue(string(b))
		got = incoming("list<float64>", got) // as a column of floats takes what has many digits
		switch {
		case null:
			bad := func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
			x, isFloat := v.(float64)
			ok := isFloat && bad(x) || isList && len(list) == 0
			for _, x := range list {
				ok = ok || bad(x)
			}
			if string(b) != "null" || !ok {
				t.Fatalf("%v became %s", v, b)
			}
		case err != nil || !reflect.DeepEqual(got, want):
			if s, ok := want.(string); !ok || !strings.Contains(s, "\x00") && utf8.ValidString(s) {
				t.Fatalf("%v (%T) became %s, which reads as %v (%T), %v", v, v, b, got, got, err)
			}
		}
	})
}
