package gbdt_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"waybill/examples/fulfilment/gbdt"
	"waybill/score"
)

// data makes rows whose label depends on three of five features, one of them with missing values.
func data(n int, seed uint64) (cols [][]float64, labels []float64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	cols, labels = make([][]float64, 5), make([]float64, n)
	for f := range cols {
		cols[f] = make([]float64, n)
		for i := range cols[f] {
			cols[f][i] = rng.NormFloat64()
		}
	}
	for i := range n {
		z := 1.5*cols[0][i] - cols[1][i]*cols[1][i] + 0.5
		if i%7 == 0 {
			cols[2][i] = math.NaN()
			z += 1
		}
		if rng.Float64() < 1/(1+math.Exp(-z)) {
			labels[i] = 1
		}
	}
	return cols, labels
}

var names = []string{"a", "b", "c", "d", "e"}

func row(cols [][]float64, i int) []float64 {
	x := make([]float64, len(cols))
	for f := range cols {
		x[f] = cols[f][i]
	}
	return x
}

// What the trainer predicts is what the scorer reads from its file, and it has learned.
func TestTrain_ScoresAsWritten(t *testing.T) {
	t.Parallel()
	cols, labels := data(5000, 1)
	m, err := gbdt.Train(cols, names, labels, gbdt.Config{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	var text, again bytes.Buffer
	if err := m.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	s, err := score.Load("lightgbm", text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	held, truth := data(3000, 2)
	var scratch score.Scratch
	scores := make([]float64, len(truth))
	phi := make([]float64, len(names))
	for i := range truth {
		x := row(held, i)
		p, err := s.Score(x, &scratch)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(p.Raw-m.Raw(x)) > 1e-12 || math.Abs(p.Score-m.Predict(x)) > 1e-12 {
			t.Fatalf("row %d: the file gives %v, the trainer %v", i, p.Raw, m.Raw(x))
		}
		scores[i] = p.Score
		if i < 50 {
			base, err := s.Contributions(x, phi, &scratch)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range phi {
				base += v
			}
			if math.Abs(base-p.Raw) > 1e-9 {
				t.Fatalf("row %d: contributions add up to %v, not %v", i, base, p.Raw)
			}
		}
	}
	if auc := gbdt.AUC(scores, truth); auc < 0.82 {
		t.Errorf("AUC %.3f on held-out rows", auc)
	}
	m2, err := gbdt.Train(cols, names, labels, gbdt.Config{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := m2.WriteText(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text.Bytes(), again.Bytes()) {
		t.Error("the same data and seed gave other bytes")
	}
}

func TestTrain_RefusesNonsense(t *testing.T) {
	t.Parallel()
	cols, labels := data(200, 1)
	same := make([]float64, 200)
	for name, f := range map[string]func() error{
		"few names":   func() error { _, err := gbdt.Train(cols, names[:2], labels, gbdt.Config{}); return err },
		"few rows":    func() error { _, err := gbdt.Train(cols, names, labels[:5], gbdt.Config{}); return err },
		"one label":   func() error { _, err := gbdt.Train(cols, names, same, gbdt.Config{}); return err },
		"short":       func() error { _, err := gbdt.Train([][]float64{{1}}, names[:1], labels, gbdt.Config{}); return err },
		"bad label":   func() error { _, err := gbdt.Train(cols, names, cols[2], gbdt.Config{}); return err },
		"spaced name": func() error { _, err := gbdt.Train(cols[:1], []string{"a b"}, labels, gbdt.Config{}); return err },
	} {
		if f() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAUC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scores, labels []float64
		want           float64
	}{
		{[]float64{1, 2, 3, 4}, []float64{0, 0, 1, 1}, 1},
		{[]float64{4, 3, 2, 1}, []float64{0, 0, 1, 1}, 0},
		{[]float64{1, 1, 1, 1}, []float64{0, 1, 0, 1}, 0.5},
		{[]float64{1, 2, 2, 3}, []float64{0, 0, 1, 1}, 0.875},
	} {
		if got := gbdt.AUC(c.scores, c.labels); got != c.want {
			t.Errorf("%v %v: %v, want %v", c.scores, c.labels, got, c.want)
		}
	}
}

// TestAUCGain: a ranking that sees the label beats one that guesses, one ranking is no better than itself, and two that
// guess do not differ beyond chance.
func TestAUCGain(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	n := 600
	good, guess, other, labels, group := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n), make([]int, n)
	for i := range labels {
		labels[i], group[i] = float64(rng.IntN(2)), i/3
		good[i], guess[i], other[i] = labels[i]+rng.NormFloat64(), rng.Float64(), rng.Float64()
	}
	if g := gbdt.AUCGain(good, guess, labels, group, 200, 1); g.Low <= 0 || g.AUC < g.Low || g.AUC > g.High {
		t.Errorf("a good ranking against a guess: %+v", g)
	}
	if g := gbdt.AUCGain(good, good, labels, group, 50, 1); g != (gbdt.Gain{}) {
		t.Errorf("a ranking against itself: %+v", g)
	}
	if g := gbdt.AUCGain(guess, other, labels, group, 200, 1); g.Low > 0 || g.High < 0 {
		t.Errorf("a guess against a guess: %+v", g)
	}
}
