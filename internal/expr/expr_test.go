package expr

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// vars declares one variable of each type; vals gives each a value, m is missing.
var vars = map[string]Type{"b": Bool, "i": Int, "d": Double, "s": String, "t": Timestamp, "t2": Timestamp, "l": List, "order": Map, "x": Dyn,
	"m": Double, "mi": Int, "mx": Dyn, "ms": String, "load.avg": Double, "nan": Double}

func vals() map[string]any {
	return map[string]any{"b": true, "i": 7, "d": 3, "s": "DE", "t": noon, "t2": "2026-03-05T13:30:00+01:00", "l": []any{1.5, 2, int64(3)},
		"order": map[string]any{"weight": 2.5, "items": []any{map[string]any{"qty": 2.0}, map[string]any{"qty": 3}}}, "x": 10.0,
		"load.avg": 0.5, "nan": math.NaN(), "undeclared": 1}
}

func TestEval(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		src  string
		want Type
		out  any
	}{
		{"1 + 2", "", int64(3)},
		{"1 + 2", Double, 3.0},
		{"7 / 2", "", int64(3)},
		{"d / 2", Double, 1.5},
		{"2 * d + i", Double, 13.0},
		{"x / 4", Double, 2.5},
		{"i - 0.5", Double, 6.5},
		{"-d", Double, -3.0},
		{"i > 6.5 && d < 4 && 3 == d", Bool, true},
		{"x >= 10", Bool, true},
		{"(d == 3) == (3 != i && i in [7.0]) && d in [1, 3]", Bool, true},
		{"[d == 3, 4 == d].exists(v, v)", Bool, true},
		{"load.avg * 2", Double, 1.0},
		{"s in ['DE', 'FR'] ? 0.1 : 0.9", Double, 0.1},
		{"order.weight > 2", Bool, true},
		{"has(order.height)", Bool, false},
		{"has(order.weight)", Bool, true},
		{"has(d) && !has(m) && !has(nan) && !has(mx)", Bool, true},
		{"m == null && d != null", Bool, true},
		{"mx == null", Bool, true},
		{"coalesce(m, 4)", Double, 4.0},
		{"coalesce(m, d)", Double, 3.0},
		{"coalesce(mi, 4)", Int, int64(4)},
		{"coalesce(mx, 0.5) + 1", Double, 1.5},
		{"coalesce(ms, 'none')", String, "none"},
		{"coalesce(nan, -1)", Double, -1.0},
		{"m", Double, nil},
		{"sum(l)", Double, 6.5},
		{"sum([])", Double, 0.0},
		{"sum(order.items.map(it, it.qty))", Double, 5.0},
		{"min(d, i)", Double, 3.0},
		{"max(d, i, 9)", Double, 9.0},
		{"max(1, 2)", "", int64(2)},
		{"min(l)", Double, 1.5},
		{"abs(-2)", "", int64(2)},
		{"abs(d - 5)", Double, 2.0},
		{"log1p(0)", Double, 0.0},
		{"round(2.5)", Double, 3.0},
		{"hours_between(t, t2)", Double, 24.5},
		{"hours_between(t2, t)", Double, -24.5},
		{"t < t2", Bool, true},
		{"t.getDayOfWeek()", Int, int64(3)},
		{"t", Timestamp, noon},
		{"l", List, []any{1.5, int64(2), int64(3)}},
		{"{'a': i}", Map, map[string]any{"a": int64(7)}},
		{"order.items.all(it, it.qty > 1)", Bool, true},
		{"s.startsWith('D') && s.matches('^[A-Z]{2}$')", Bool, true},
		{"s + '-1'", String, "DE-1"},
	} {
		p, err := Compile("f", tc.src, vars, tc.want)
		if err != nil {
			t.Errorf("%s: %v", tc.src, err)
			continue
		}
		got, err := p.Eval(vals())
		if err != nil {
			t.Errorf("%s: %v", tc.src, err)
			continue
		}
		if d := cmp.Diff(tc.out, got); d != "" {
			t.Errorf("%s: %s", tc.src, d)
		}
	}
}

// Warehouse Frankfurt airport to Berlin Brandenburg: 432 km by any great-circle calculator.
func TestDistance(t *testing.T) {
	t.Parallel()
	p, err := Compile("f", "distance_km(50.0333, 8.5706, 52.3667, 13.5033)", nil, Double)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Eval(nil)
	if err != nil {
		t.Fatal(err)
	}
	if km := got.(float64); math.Abs(km-430) > 5 {
		t.Fatalf("distance %v km", km)
	}
	quarter, err := Compile("f", "distance_km(0, 0, lat, 0)", map[string]Type{"lat": Double}, Double)
	if err != nil {
		t.Fatal(err)
	}
	got, err = quarter.Eval(map[string]any{"lat": 90})
	if err != nil || math.Abs(got.(float64)-math.Pi/2*earthKm) > 1e-9 {
		t.Fatalf("pole to equator: %v %v", got, err)
	}
	if _, err = quarter.Eval(map[string]any{"lat": 91.0}); waybill.CodeOf(err) != waybill.Invalid {
		t.Fatalf("latitude 91: %v", err)
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		src, in string
		want    Type
	}{
		{"", "empty", ""},
		{"1 +", "1:4", ""},
		{"d >\n  nope", "2:3: undeclared reference to 'nope'", Bool},
		{"d == s", "1:3: found no matching overload", ""},
		{"d == 3 && d == s", "found no matching overload", ""},
		{"d + s", "1:3: found no matching overload", ""},
		{"d", "gives double where bool is wanted", Bool},
		{"s", "gives string where double is wanted", Double},
		{"i > 2", "gives bool where double is wanted", Double},
		{"has(d + 1)", "has() takes a variable", ""},
		{"s.matches('(')", "1:11", Bool},
		{"timestamp('no')", "1:11", ""},
		{strings.Repeat("(", 100) + "1" + strings.Repeat(")", 100), "recursion", ""},
		{strings.Repeat("1+", 2100) + "1", "limit", ""},
		{"l.map(a, l.map(b, l.map(c, 1)))", "nesting", ""},
		{"l.all(a, l.all(b, a != b && a + b > 3))", "may cost", ""},
	} {
		_, err := Compile("views[0].expr", tc.src, vars, tc.want)
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), tc.in) || !strings.Contains(err.Error(), "views[0].expr") {
			t.Errorf("%.40q: got %v, want Invalid with %q", tc.src, err, tc.in)
		}
	}
	for _, name := range []string{"late-rate", "1a", "in", "", "a..b", "double"} {
		if _, err := Compile("f", "1", map[string]Type{name: Double}, ""); waybill.CodeOf(err) != waybill.Invalid {
			t.Errorf("variable %q: %v", name, err)
		}
	}
	if _, err := Compile("f", "1", map[string]Type{"a": "float"}, ""); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("type float: %v", err)
	}
}

func TestEvalRefuses(t *testing.T) {
	t.Parallel()
	long := make([]any, 200_000)
	for i := range long {
		long[i] = float64(i)
	}
	for _, tc := range []struct {
		src, in string
		want    Type
		set     map[string]any
	}{
		{"d + m", "no such overload", Double, nil},
		{"m > 1", "no such overload", Bool, nil},
		{"i / 0", "division by zero", Int, nil},
		{"d / 0", "not a finite number", Double, nil},
		{"log(0)", "not a finite number", Double, nil},
		{"mx", "is null", Bool, nil},
		{"x", "not string", String, nil},
		{"order.height", "no such key", "", nil},
		{"d", "variable d", "", map[string]any{"d": "three"}},
		{"i", "variable i", "", map[string]any{"i": 1.5}},
		{"l", "variable l", "", map[string]any{"l": 1.5}},
		{"t", "RFC 3339", "", map[string]any{"t": "yesterday"}},
		{"sum(l)", "not a number", "", map[string]any{"l": []any{1.0, nil}}},
		{"sum(l)", "cost limit", "", map[string]any{"l": slices.Concat(long, long)}},
		{"l.exists(a, a < 0)", "cost limit", "", map[string]any{"l": long}},
		{"l", "larger", "", map[string]any{"l": long}},
		{"duration('1h')", "duration", "", nil},
	} {
		p, err := Compile("gate", tc.src, vars, tc.want)
		if err != nil {
			t.Errorf("%s: %v", tc.src, err)
			continue
		}
		in := vals()
		for k, v := range tc.set {
			in[k] = v
		}
		got, err := p.Eval(in)
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), tc.in) || !strings.HasPrefix(err.Error(), "gate: ") {
			t.Errorf("%s: got %v, %v; want Invalid with %q", tc.src, got, err, tc.in)
		}
	}
}

func TestVars(t *testing.T) {
	t.Parallel()
	p, err := Compile("f", "load.avg > d ? has(m) : order.items.exists(it, it.qty > i)", vars, Bool)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"d", "i", "load.avg", "m", "order"}, p.Vars()); d != "" {
		t.Fatal(d)
	}
}

func TestEvalConcurrently(t *testing.T) {
	t.Parallel()
	p, err := Compile("f", "sum(order.items.map(it, it.qty * n))", map[string]Type{"order": Map, "n": Int}, Double)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 200 {
				got, err := p.Eval(map[string]any{"n": n, "order": vals()["order"]})
				if err != nil || got != float64(5*n) {
					t.Errorf("n=%d: %v %v", n, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzExpr states the package's invariant: whatever the source and the values, an answer or an Invalid error, soon.
func FuzzExpr(f *testing.F) {
	for _, s := range []string{"1 + 2 * d", "has(d) ? l.map(a, a + a).size() : i", "s.matches(s)", "order.a.b[0]", "sum(l.map(a, l.map(b, b)))",
		"[l,l].map(a, a+a+a+a).map(b, b+b)", "t + duration('1h') > t2", "coalesce(x, {'a': [1]})", "string(x) + s + s", "-i % 3", "b'a' == bytes(s)",
		"type(x) == int", "l[i]", "distance_km(d, x, i, 3)", "l.filter(a, a == l).exists_one(b, b in l)", "min(l) < max(1, d, x)", "\"\\u00e9\".size()", "{1: 2}"} {
		f.Add(s, 2.5, int64(3), "text")
	}
	f.Fuzz(func(t *testing.T, src string, d float64, i int64, s string) {
		start := time.Now()
		p, err := Compile("f", src, vars, "")
		if err == nil {
			_, err = p.Eval(map[string]any{"b": i%2 == 0, "i": i, "d": d, "s": s, "t": time.Unix(i%(1<<32), 0), "l": []any{d, i, s, nil, []any{d}, []any{}},
				"order": map[string]any{"a": map[string]any{"b": []any{s}}, s: d}, "x": d})
		}
		if err != nil && waybill.CodeOf(err) != waybill.Invalid {
			t.Fatalf("%q: %v", src, err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Fatalf("%q took %v", src, took)
		}
	})
}

func BenchmarkEval(b *testing.B) {
	p, err := Compile("f", "coalesce(m, 4) * 2 + d > 3 && s in ['DE', 'FR']", vars, Bool)
	if err != nil {
		b.Fatal(err)
	}
	in := vals()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Eval(in); err != nil {
			b.Fatal(err)
		}
	}
}
