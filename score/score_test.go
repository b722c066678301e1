package score_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"waybill/score"
)

type fixture struct {
	File          string
	Format        score.Format
	X             [][]*float64
	Score, Raw    []float64
	Contributions [][]float64
}

func fixtures(t testing.TB) []fixture {
	t.Helper()
	raw, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []fixture
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func vector(x []*float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = math.NaN()
		if v != nil {
			out[i] = *v
		}
	}
	return out
}

func relative(got, want float64) float64 {
	return math.Abs(got-want) / math.Max(1, math.Abs(want))
}

// TestLibraries compares with what the libraries themselves predicted (testdata/make_fixtures.py). LightGBM computes
// in double: 1e-9. XGBoost adds up in float32: its raw scores are met to 2e-6, its float32 contributions to 2e-5.
func TestLibraries(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		t.Run(f.File, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(filepath.Join("testdata", f.File))
			if err != nil {
				t.Fatal(err)
			}
			m, err := score.Load(f.Format, data)
			if err != nil {
				t.Fatal(err)
			}
			scoreBound, phiBound := 1e-9, 1e-9
			if f.Format == score.XGBoost {
				scoreBound, phiBound = 2e-6, 2e-5
			}
			var s score.Scratch
			var worst, worstPhi, residual float64
			phi := make([]float64, len(m.Features()))
			for i := range f.X {
				x := vector(f.X[i])
				p, err := m.Score(x, &s)
				if err != nil {
					t.Fatal(err)
				}
				worst = max(worst, relative(p.Score, f.Score[i]), relative(p.Raw, f.Raw[i]))
				base, err := m.Contributions(x, phi, &s)
				if err != nil {
					t.Fatal(err)
				}
				sum := base
				for j, v := range phi {
					sum += v
					worstPhi = max(worstPhi, relative(v, f.Contributions[i][j]))
				}
				worstPhi = max(worstPhi, relative(base, f.Contributions[i][len(phi)]))
				residual = max(residual, relative(sum, p.Raw))
			}
			t.Logf("worst relative error: predictions %.1e, contributions %.1e; additivity %.1e", worst, worstPhi, residual)
			if worst > scoreBound || worstPhi > phiBound || residual > phiBound {
				t.Errorf("beyond %.0e and %.0e", scoreBound, phiBound)
			}
		})
	}
}

func TestScore_AllocatesNothing(t *testing.T) {
	data, err := os.ReadFile("testdata/binary.lgb.txt")
	if err != nil {
		t.Fatal(err)
	}
	m, err := score.Load(score.LightGBM, data)
	if err != nil {
		t.Fatal(err)
	}
	var s score.Scratch
	x, phi := make([]float64, 8), make([]float64, 8)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := m.Score(x, &s); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Contributions(x, phi, &s); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLoad_RefusesWhatIsBroken(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		data, err := os.ReadFile(filepath.Join("testdata", f.File))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 10, len(data) / 3} {
			if _, err := score.Load(f.Format, data[:n]); err == nil {
				t.Errorf("%s cut to %d bytes loads", f.File, n)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		fs := fixtures(&testing.T{})
		f := rapid.SampledFrom(fs).Draw(t, "model")
		data, err := os.ReadFile(filepath.Join("testdata", f.File))
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "flips") {
			data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		use(data, f.Format)
	})
}

// use loads and, when it loads, scores: neither may panic.
func use(data []byte, format score.Format) {
	m, err := score.Load(format, data)
	if err != nil {
		return
	}
	x, phi := make([]float64, len(m.Features())), make([]float64, len(m.Features()))
	var s score.Scratch
	for _, v := range []float64{0, -1, 1e300, math.NaN(), math.Inf(1)} {
		for i := range x {
			x[i] = v
		}
		if _, err := m.Score(x, &s); err != nil {
			return
		}
		if _, err := m.Contributions(x, phi, &s); err != nil {
			return
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	s, err := score.LoadRules([]byte(`
kind: rules
inputs: {slack: double, carrier: string}
rules:
  - {name: tight, when: "slack < 12.0", score: "0.8", reason: less than half a day}
  - {name: slow, when: "carrier == 'Snail'", score: "0.5 + 0.1", reason: a slow carrier}
default: {score: "0.1", reason: nothing}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		slack   any
		carrier string
		rule    string
		score   float64
	}{{3.0, "Snail", "tight", 0.8}, {30.0, "Snail", "slow", 0.6}, {30.0, "X", "default", 0.1}} {
		v, err := s.Evaluate(map[string]any{"slack": c.slack, "carrier": c.carrier})
		if err != nil || v.Rule != c.rule || v.Score != c.score {
			t.Errorf("%v, %s: %+v, %v; want %s %v", c.slack, c.carrier, v, err, c.rule, c.score)
		}
	}
	for _, bad := range []string{"", "kind: rules", "kind: rules\nunknown: 1", "kind: rules\nrules: [{name: a, when: 'x >', score: '1'}]\ndefault: {score: '1'}"} {
		if _, err := score.LoadRules([]byte(bad)); err == nil {
			t.Errorf("%q loads", bad)
		}
	}
}

func FuzzLoadLightGBM(f *testing.F) { fuzz(f, score.LightGBM, "*.lgb.txt") }

func FuzzLoadXGBoost(f *testing.F) { fuzz(f, score.XGBoost, "*.xgb.json") }

func fuzz(f *testing.F, format score.Format, pattern string) {
	f.Helper()
	paths, err := filepath.Glob("testdata/" + pattern)
	if err != nil || len(paths) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, p := range paths[:1] {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) { use(data, format) })
}

func FuzzLoadRules(f *testing.F) {
	f.Add([]byte("kind: rules\ninputs: {x: double}\nrules: [{name: a, when: 'x > 1.0', score: '1.0', reason: r}]\ndefault: {score: '0.0', reason: r}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if s, err := score.LoadRules(data); err == nil {
			if _, err := s.Evaluate(map[string]any{"x": 1.0}); err != nil {
				return
			}
		}
	})
}

func BenchmarkScore(b *testing.B) {
	data, err := os.ReadFile("testdata/regression_deep.lgb.txt")
	if err != nil {
		b.Fatal(err)
	}
	m, err := score.Load(score.LightGBM, data)
	if err != nil {
		b.Fatal(err)
	}
	x, phi := make([]float64, len(m.Features())), make([]float64, len(m.Features()))
	var s score.Scratch
	b.Run("Predict10x63", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Score(x, &s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Contributions10x63", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Contributions(x, phi, &s); err != nil {
				b.Fatal(err)
			}
		}
	})
}
