package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill/featurestore"
)

// quoted does to a decoded body what quoteLong does to its bytes.
func quoted(v any, depth int) any {
	switch v := v.(type) {
	case json.Number:
		if depth >= 3 && !featurestore.ExactNumber(v.String()) {
			return v.String()
		}
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = quoted(x, depth+1)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = quoted(x, depth+1)
		}
		return out
	}
	return v
}

// Numbers of the rows that have more digits than a double keeps become text, and nothing else changes, whatever stands around.
func TestQuoteLong_ChangesLongNumbersOnly(t *testing.T) {
	t.Parallel()
	decode := func(t *rapid.T, body []byte) (v any) {
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return v
	}
	text := rapid.Custom(func(t *rapid.T) string {
		b, err := json.Marshal(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`1234567890123456789`, `\`, `"`, `\"[{`, `}]`, `rows`})).Draw(t, "text"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	})
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?`)
	var value func(depth int) *rapid.Generator[string]
	value = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			most := 7
			if depth == 0 {
				most = 3
			}
			space := rapid.SampledFrom([]string{"", " ", "\n"}).Draw(t, "space")
			list := func(item func(i int) string) string {
				out := make([]string, rapid.IntRange(0, 3).Draw(t, "length"))
				for i := range out {
					out[i] = item(i)
				}
				return strings.Join(out, ","+space)
			}
			switch rapid.IntRange(0, most).Draw(t, "kind") {
			case 0, 1:
				return number.Draw(t, "number")
			case 2:
				return text.Draw(t, "text")
			case 3:
				return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "word")
			case 4, 5:
				return "[" + space + list(func(int) string { return value(depth-1).Draw(t, "item") }) + space + "]"
			}
			return "{" + list(func(i int) string {
				return `"` + string(rune('a'+i)) + `0123456789012345678"` + space + ":" + space + value(depth-1).Draw(t, "member")
			}) + "}"
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		body := []byte(`{"rows":[` + value(4).Draw(t, "row") + `],"n":` + number.Draw(t, "n") + `}`)
		was := bytes.Clone(body)
		want, got := quoted(decode(t, body), 0), decode(t, quoteLong(body))
		if d := cmp.Diff(want, got); d != "" || !bytes.Equal(was, body) {
			t.Fatalf("%s (-want +got):\n%s", was, d)
		}
	})
}
