package featurestore

import (
	"testing"
	"time"
)

// Many rows of one key ahead of the clock cost no more each than the first.
func TestOnline_ManyRowsAhead(t *testing.T) {
	t.Parallel()
	o := &online{rows: map[string]slot{}}
	now := time.Now().UnixMicro()
	const n = 100_000
	start := time.Now()
	for i := range int64(n) {
		o.put(&row{key: "k", event: now + 1_000_000 + i, knowledge: now, seq: i, values: []any{i}}, now)
		o.put(&row{key: "k", event: now + 1_000_000 + i, knowledge: now, seq: i - 1, values: []any{-i}}, now) // beaten
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("%d rows took %v", n, took)
	}
	if r := o.get([]byte("k"), now); r != nil {
		t.Errorf("a value from the future: %v", r.values)
	}
	for _, i := range []int64{0, 1, 77_777, n - 1} {
		if r := o.get([]byte("k"), now+1_000_000+i); r == nil || r.values[0] != i {
			t.Errorf("at row %d: %v", i, r)
		}
	}
	late := now + 10_000_000
	o.put(&row{key: "k", event: late, knowledge: late, seq: n, values: []any{int64(n)}}, late)
	if s := o.rows["k"]; len(s.ahead) != 1 || s.settled.values[0] != int64(n-1) {
		t.Errorf("%d rows are kept behind the winner %v", len(s.ahead), s.settled.values)
	}
}
