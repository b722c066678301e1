package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// A misspelt input is refused by name instead of being read as null, and so is a number that JSON cannot carry exactly.
func TestReadOnline_RefusesWhatItWouldMisread(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for _, c := range []struct{ row, want string }{
		{`{"warehouse":"WH-NY-1","kms":1}`, "kms"},
		{`{"warehouse":"WH-NY-1","km":1,"queue":0.5}`, "queue"},
	} {
		code, a := h.call(t, "POST", "/v1/services/route-risk:read", h.token, `{"rows":[{"warehouse":"WH-NY-1","km":1},`+c.row+`]}`)
		if text := string(check[[]byte](t)(json.Marshal(a))); code != 400 || !strings.Contains(text, "rows[1]") || !strings.Contains(text, c.want) || !strings.Contains(text, "warehouse, km") {
			t.Errorf("%s: %d %s", c.row, code, text)
		}
	}
	if code, a := h.call(t, "POST", "/v1/services/route-risk:read", h.token, `{"rows":[{"warehouse":"WH-NY-1"}]}`); code != 200 {
		t.Errorf("an absent input is null: %d %v", code, a)
	}
}
