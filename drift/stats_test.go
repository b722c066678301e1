package drift_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"waybill/drift"
)

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

func near(a, b float64) bool {
	d := math.Abs(a - b)
	return d <= 1e-9 || d <= 1e-9*math.Abs(b)
}

func check(t *testing.T, name, what string, got, want float64) {
	t.Helper()
	if !near(got, want) {
		t.Errorf("%s: %s is %.15g, want %.15g", name, what, got, want)
	}
}

// The statistics against numpy and scipy (testdata/make_fixtures.py).
func TestStatistics_EqualScipy(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(packageDir, "testdata", "stattests.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name                         string
		Ref, Cur                     []float64
		PSI, KL, JS, Wasserstein, KS float64
		P                            float64 `json:"ks_p"`
	}
	if err := json.Unmarshal(data, &cases); err != nil || len(cases) != 4 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		b := drift.EvidentlyBins(c.Ref, c.Cur)
		d, p := drift.KolmogorovSmirnov(c.Ref, c.Cur)
		check(t, c.Name, "psi", drift.PSI(b.Filled()), c.PSI)
		check(t, c.Name, "kl", drift.KL(b.Filled()), c.KL)
		check(t, c.Name, "js", drift.JensenShannon(b), c.JS)
		check(t, c.Name, "wasserstein", drift.Wasserstein(c.Ref, c.Cur), c.Wasserstein)
		check(t, c.Name, "ks", d, c.KS)
		if math.Abs(p-c.P) > 1e-9*c.P {
			t.Errorf("%s: p is %g, want %g", c.Name, p, c.P)
		}
	}
}

// Extra: Evidently's own numbers, where the folder with them is at hand.
func TestStatistics_EqualEvidently(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("WAYBILL_SHARED")
	if dir == "" {
		dir = filepath.Join(packageDir, "..", "..", "shared")
	}
	data, err := os.ReadFile(filepath.Join(dir, "golden", "stattests.json"))
	if err != nil {
		t.Log("the extra comparison was not run: the golden file is not on this machine")
		return
	}
	var file struct {
		Cases []struct {
			Name, Type string
			Ref, Cur   []any
			Evidently  map[string]struct{ Score *float64 }
			Extra      map[string]any
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 13 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	compared := 0
	for _, c := range file.Cases {
		ref, cur := codes(c.Ref, c.Cur)
		b := drift.EvidentlyBins(ref, cur)
		d, p := drift.KolmogorovSmirnov(ref, cur)
		for name, got := range map[string]float64{"psi": drift.PSI(b.Filled()), "kl_div": drift.KL(b.Filled()), "jensenshannon": drift.JensenShannon(b),
			"wasserstein": drift.Wasserstein(ref, cur), "ks": p} {
			want, ok := c.Evidently[name]
			if !ok || want.Score == nil {
				continue
			}
			compared++
			check(t, c.Name, name, got, *want.Score)
		}
		if want, ok := c.Extra["ks_stat"].(float64); ok {
			compared++
			check(t, c.Name, "ks statistic", d, want)
		}
	}
	t.Logf("%d values compared", compared)
	if compared < 60 {
		t.Errorf("only %d values compared", compared)
	}
}

// codes numbers categories; numbers stay as they are.
func codes(a, b []any) (x, y []float64) {
	code := map[any]float64{}
	read := func(vs []any) (out []float64) {
		for _, v := range vs {
			if f, ok := v.(float64); ok {
				out = append(out, f)
				continue
			}
			if _, seen := code[v]; !seen {
				code[v] = float64(len(code))
			}
			out = append(out, code[v])
		}
		return out
	}
	return read(a), read(b)
}

func TestStatistics_DegenerateInput(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name             string
		ref, cur         []float64
		psi, js, w, d, p float64
	}{
		{"Empty", nil, nil, 0, 0, 0, 0, 1},
		{"NoProduction", []float64{1, 2}, nil, 0, 0, 0, 0, 1},
		{"NoReference", nil, []float64{1, 2}, 0, 0, 0, 0, 1},
		{"OnlyMissing", []float64{nan, inf}, []float64{-inf}, 0, 0, 0, 0, 1},
		{"Constant", []float64{3, 3, 3}, []float64{3, 3}, 0, 0, 0, 0, 1},
		{"MissingIsLeftOut", []float64{1, 2, nan}, []float64{inf, 1, 2}, 0, 0, 0, 0, 1},
		{"Disjoint", []float64{1}, []float64{2}, 2 * (1 - 1e-4) * math.Log(1e4), math.Sqrt(math.Ln2), 1000, 1, 1},
	} {
		b := drift.EvidentlyBins(c.ref, c.cur)
		d, p := drift.KolmogorovSmirnov(c.ref, c.cur)
		check(t, c.name, "psi", drift.PSI(b.Filled()), c.psi)
		check(t, c.name, "js", drift.JensenShannon(b), c.js)
		check(t, c.name, "wasserstein", drift.Wasserstein(c.ref, c.cur), c.w)
		check(t, c.name, "ks", d, c.d)
		check(t, c.name, "p", p, c.p)
	}
}

func TestStatistics_Properties(t *testing.T) {
	t.Parallel()
	if d, _ := drift.KolmogorovSmirnov([]float64{1, 1, 1, 1, 1, 1, 1, 1, 1}, []float64{1.5}); d != 1 {
		t.Errorf("ks of disjoint samples: %v", d)
	}
	rapid.Check(t, func(t *rapid.T) {
		sample := rapid.SliceOfN(rapid.Float64Range(-5, 5), 1, 60)
		ref, cur := sample.Draw(t, "ref"), sample.Draw(t, "cur")
		b := drift.EvidentlyBins(ref, cur)
		if v := drift.PSI(b.Filled()); v < 0 || math.IsNaN(v) {
			t.Fatalf("psi %v", v)
		}
		if v := drift.KL(b.Filled()); v < -1e-12 || math.IsNaN(v) {
			t.Fatalf("kl %v", v)
		}
		js, back := drift.JensenShannon(b), drift.JensenShannon(drift.Binning{Ref: b.Cur, Cur: b.Ref})
		if js < 0 || js > math.Sqrt(math.Ln2)+1e-12 || math.Abs(js-back) > 1e-9 {
			t.Fatalf("js %v and %v", js, back)
		}
		d, p := drift.KolmogorovSmirnov(ref, cur)
		if d < 0 || d > 1 || p < 0 || p > 1 {
			t.Fatalf("ks %v %v", d, p)
		}
		if d2, p2 := drift.KolmogorovSmirnov(cur, ref); math.Abs(d-d2) > 1e-12 || math.Abs(p-p2) > 1e-9 {
			t.Fatalf("ks is not symmetric: %v %v, %v %v", d, p, d2, p2)
		}
		if d, p := drift.KolmogorovSmirnov(ref, ref); d != 0 || p != 1 {
			t.Fatalf("ks of a sample with itself: %v %v", d, p)
		}
	})
}
