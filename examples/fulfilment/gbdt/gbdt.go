// Package gbdt trains gradient-boosted trees for a binary label and writes them as LightGBM text, so that the demo's
// model is really trained on the machine that shows it and is then an ordinary artifact. It is an example, not a
// replacement for the libraries: histograms of at most 255 bins, leaf-wise growth, missing values on the better side,
// L2 regularisation, seeded row sampling. The same data and Config always give the same bytes. Standard library only.
//
// Method: Friedman, "Greedy function approximation" (2001), with the second-order gain of XGBoost (Chen and Guestrin
// 2016, equation 7) and LightGBM's leaf-wise growth on histograms (Ke et al. 2017).
package gbdt

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Config sets the training up. Zero values are replaced by the defaults that are named.
type Config struct {
	Trees    int     // 100
	Leaves   int     // most leaves of a tree: 15
	Rate     float64 // shrinkage of each tree: 0.1
	MinLeaf  int     // fewest rows of a leaf: 20
	L2       float64 // 1
	Sample   float64 // share of the rows that each tree sees: 0.8
	Seed     uint64
	Progress func(done, of int) // called after each tree, when set
}

func (c *Config) defaults() {
	if c.Trees == 0 {
		c.Trees = 100
	}
	if c.Leaves == 0 {
		c.Leaves = 15
	}
	if c.Rate == 0 {
		c.Rate = 0.1
	}
	if c.MinLeaf == 0 {
		c.MinLeaf = 20
	}
	if c.L2 == 0 {
		c.L2 = 1
	}
	if c.Sample == 0 {
		c.Sample = 0.8
	}
}

// maxBins bounds the bins of a feature, the one for missing values not counted.
const maxBins = 255

// Model is a trained ensemble.
type Model struct {
	names  []string
	lo, hi []float64 // range of each feature, for the file
	trees  []tree
}

// tree is stored as LightGBM's arrays: inner nodes 0 …, children ≥ 0 are inner nodes and < 0 are leaves (^i).
type tree struct {
	feature     []int
	threshold   []float64
	missingLeft []bool
	gain        []float64
	left, right []int
	value       []float64 // of leaves
	count       []int
	innerValue  []float64
	innerCount  []int
}

// column is a feature in bins: 0 is missing, bin b > 0 holds bounds[b−2] < x ≤ bounds[b−1].
type column struct {
	bin    []uint8
	bounds []float64 // upper bounds of the bins but the last one
}

func newColumn(xs []float64) column {
	var vals []float64
	for _, x := range xs {
		if !math.IsNaN(x) {
			vals = append(vals, x)
		}
	}
	slices.Sort(vals)
	var c column
	distinct := slices.Compact(slices.Clone(vals))
	if len(distinct) <= maxBins {
		for i := 1; i < len(distinct); i++ {
			c.bounds = append(c.bounds, between(distinct[i-1], distinct[i]))
		}
	} else {
		for b := 1; b < maxBins; b++ {
			i := b * len(vals) / maxBins
			if vals[i-1] < vals[i] {
				c.bounds = append(c.bounds, between(vals[i-1], vals[i]))
			}
		}
	}
	c.bin = make([]uint8, len(xs))
	for i, x := range xs {
		if !math.IsNaN(x) {
			n, _ := slices.BinarySearch(c.bounds, x)
			c.bin[i] = uint8(n + 1)
		}
	}
	return c
}

// between gives a threshold with a ≤ t < b.
func between(a, b float64) float64 {
	t := a + (b-a)/2
	if t >= b {
		return a
	}
	return t
}

// cell is one bin of a histogram.
type cell struct {
	g, h float64
	n    int
}

// leaf is a leaf that may be split.
type leaf struct {
	rows       []int32
	sum        cell
	hist       [][]cell
	best       split
	parent     int // inner node, −1 for the root
	leftOfNode bool
}

type split struct {
	gain        float64
	feature     int
	bin         uint8 // bins 1 … bin go left
	missingLeft bool
	left        cell
}

// Train fits trees to labels in [0, 1]. columns are features, all as long as labels; NaN is missing.
func Train(columns [][]float64, names []string, labels []float64, c Config) (*Model, error) {
	c.defaults()
	n := len(labels)
	if len(columns) == 0 || len(columns) != len(names) || n < 2*c.MinLeaf {
		return nil, fmt.Errorf("train: %d columns, %d names, %d rows: give as many names as columns and at least %d rows", len(columns), len(names), n, 2*c.MinLeaf)
	}
	m := &Model{names: names}
	binned := make([]column, len(columns))
	for f, xs := range columns {
		if len(xs) != n {
			return nil, fmt.Errorf("train: column %s has %d rows, labels have %d", names[f], len(xs), n)
		}
		if strings.ContainsAny(names[f], " \t\n=") {
			return nil, fmt.Errorf("train: the name %q cannot stand in a model file", names[f])
		}
		binned[f] = newColumn(xs)
		lo, hi := 0.0, 0.0
		for i, x := range slices.DeleteFunc(slices.Clone(xs), math.IsNaN) {
			if i == 0 {
				lo, hi = x, x
			}
			lo, hi = math.Min(lo, x), math.Max(hi, x)
		}
		m.lo, m.hi = append(m.lo, lo), append(m.hi, hi)
	}
	mean := 0.0
	for _, y := range labels {
		if math.IsNaN(y) || y < 0 || y > 1 {
			return nil, errors.New("train: a label is not in 0 to 1")
		}
		mean += y / float64(n)
	}
	if mean <= 0 || mean >= 1 {
		return nil, errors.New("train: all labels are the same")
	}
	start := math.Log(mean / (1 - mean))
	raw, g, h := make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range raw {
		raw[i] = start
	}
	rng := rand.New(rand.NewPCG(c.Seed, c.Seed^0x9e3779b97f4a7c15))
	for t := range c.Trees {
		var rows []int32
		for i := range n {
			p := 1 / (1 + math.Exp(-raw[i]))
			g[i], h[i] = p-labels[i], p*(1-p)
			if c.Sample >= 1 || rng.Float64() < c.Sample {
				rows = append(rows, int32(i))
			}
		}
		tr := grow(binned, g, h, rows, c)
		for i := range n {
			raw[i] += tr.value[tr.leafOf(binned, i)]
		}
		if t == 0 { // LightGBM folds the start into the first tree
			for i := range tr.value {
				tr.value[i] += start
			}
			for i := range tr.innerValue {
				tr.innerValue[i] += start
			}
		}
		// Counts are of all rows: contributions weigh branches by them.
		tr.recount(binned, n)
		m.trees = append(m.trees, tr)
		if c.Progress != nil {
			c.Progress(t+1, c.Trees)
		}
	}
	return m, nil
}

func grow(cols []column, g, h []float64, rows []int32, c Config) tree {
	root := &leaf{rows: rows, parent: -1}
	for _, i := range rows {
		root.sum.g, root.sum.h, root.sum.n = root.sum.g+g[i], root.sum.h+h[i], root.sum.n+1
	}
	root.hist = histograms(cols, g, h, rows)
	root.best = best(root, c)
	leaves := []*leaf{root}
	var t tree
	for len(leaves) < c.Leaves {
		at := -1
		for i, l := range leaves {
			if l.best.gain > 0 && (at < 0 || l.best.gain > leaves[at].best.gain) {
				at = i
			}
		}
		if at < 0 {
			break
		}
		l := leaves[at]
		s := l.best
		node := len(t.feature)
		t.feature, t.gain = append(t.feature, s.feature), append(t.gain, s.gain)
		t.threshold = append(t.threshold, cols[s.feature].bounds[s.bin-1])
		t.missingLeft = append(t.missingLeft, s.missingLeft)
		t.left, t.right = append(t.left, ^at), append(t.right, ^len(leaves))
		t.innerValue = append(t.innerValue, output(l.sum, c))
		if l.parent >= 0 && l.leftOfNode {
			t.left[l.parent] = node
		} else if l.parent >= 0 {
			t.right[l.parent] = node
		}
		a, b := &leaf{parent: node, leftOfNode: true}, &leaf{parent: node}
		bins := cols[s.feature].bin
		for _, i := range l.rows {
			if goesLeft(bins[i], s.bin, s.missingLeft) {
				a.rows = append(a.rows, i)
			} else {
				b.rows = append(b.rows, i)
			}
		}
		a.sum = s.left
		b.sum = cell{l.sum.g - s.left.g, l.sum.h - s.left.h, l.sum.n - s.left.n}
		small, large := a, b
		if len(a.rows) > len(b.rows) {
			small, large = b, a
		}
		small.hist = histograms(cols, g, h, small.rows)
		large.hist = l.hist // the parent's, less the smaller child's
		for f := range large.hist {
			for k := range large.hist[f] {
				p, q := &large.hist[f][k], small.hist[f][k]
				p.g, p.h, p.n = p.g-q.g, p.h-q.h, p.n-q.n
			}
		}
		a.best, b.best = best(a, c), best(b, c)
		leaves[at] = a
		leaves = append(leaves, b)
	}
	for _, l := range leaves {
		t.value = append(t.value, output(l.sum, c))
	}
	return t
}

func output(s cell, c Config) float64 { return -s.g / (s.h + c.L2) * c.Rate }

func goesLeft(bin, at uint8, missingLeft bool) bool {
	if bin == 0 {
		return missingLeft
	}
	return bin <= at
}

func histograms(cols []column, g, h []float64, rows []int32) [][]cell {
	out := make([][]cell, len(cols))
	for f := range cols {
		hist := make([]cell, len(cols[f].bounds)+2)
		bins := cols[f].bin
		for _, i := range rows {
			k := &hist[bins[i]]
			k.g, k.h, k.n = k.g+g[i], k.h+h[i], k.n+1
		}
		out[f] = hist
	}
	return out
}

// best finds the split with the largest gain; ties go to the earlier feature and bin.
func best(l *leaf, c Config) split {
	var out split
	score := func(s cell) float64 { return s.g * s.g / (s.h + c.L2) }
	whole := score(l.sum)
	for f, hist := range l.hist {
		for _, missingLeft := range []bool{false, true} {
			if missingLeft && hist[0].n == 0 {
				continue
			}
			var left cell
			if missingLeft {
				left = hist[0]
			}
			for k := 1; k < len(hist)-1; k++ {
				left.g, left.h, left.n = left.g+hist[k].g, left.h+hist[k].h, left.n+hist[k].n
				right := cell{l.sum.g - left.g, l.sum.h - left.h, l.sum.n - left.n}
				if left.n < c.MinLeaf {
					continue
				}
				if right.n < c.MinLeaf {
					break
				}
				if gain := score(left) + score(right) - whole; gain > out.gain+1e-12 {
					out = split{gain, f, uint8(k), missingLeft, left}
				}
			}
		}
	}
	return out
}

// leafOf finds the leaf of a training row.
func (t *tree) leafOf(cols []column, row int) int {
	if len(t.feature) == 0 {
		return 0
	}
	for node := 0; ; {
		col := &cols[t.feature[node]]
		at, _ := slices.BinarySearch(col.bounds, t.threshold[node])
		next := t.right[node]
		if goesLeft(col.bin[row], uint8(at+1), t.missingLeft[node]) {
			next = t.left[node]
		}
		if next < 0 {
			return ^next
		}
		node = next
	}
}

func (t *tree) recount(cols []column, rows int) {
	t.count, t.innerCount = make([]int, len(t.value)), make([]int, len(t.feature))
	for i := range rows {
		t.count[t.leafOf(cols, i)]++
	}
	var sum func(node int) int
	sum = func(node int) int {
		if node < 0 {
			return t.count[^node]
		}
		t.innerCount[node] = sum(t.left[node]) + sum(t.right[node])
		return t.innerCount[node]
	}
	if len(t.feature) > 0 {
		sum(0)
	}
}

// Raw is the model's score of one row before the sigmoid.
func (m *Model) Raw(x []float64) float64 {
	sum := 0.0
	for i := range m.trees {
		t := &m.trees[i]
		node := 0
		if len(t.feature) == 0 {
			node = -1
		}
		for node >= 0 {
			v := x[t.feature[node]]
			left := v <= t.threshold[node]
			if math.IsNaN(v) {
				left = t.missingLeft[node]
			}
			if left {
				node = t.left[node]
			} else {
				node = t.right[node]
			}
		}
		sum += t.value[^node]
	}
	return sum
}

// Predict is the probability of label 1.
func (m *Model) Predict(x []float64) float64 { return 1 / (1 + math.Exp(-m.Raw(x))) }

// WriteText writes the model as LightGBM's text format, version v4.
func (m *Model) WriteText(w io.Writer) error {
	var b strings.Builder
	infos := make([]string, len(m.names))
	for i := range infos {
		infos[i] = "[" + number(m.lo[i]) + ":" + number(m.hi[i]) + "]"
	}
	fmt.Fprintf(&b, "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=%d\nobjective=binary sigmoid:1\nfeature_names=%s\nfeature_infos=%s\n\n",
		len(m.names)-1, strings.Join(m.names, " "), strings.Join(infos, " "))
	for i := range m.trees {
		t := &m.trees[i]
		types := make([]string, len(t.feature))
		for k, left := range t.missingLeft {
			types[k] = "8" // missing values are NaN and go right
			if left {
				types[k] = "10"
			}
		}
		fmt.Fprintf(&b, "Tree=%d\nnum_leaves=%d\nnum_cat=0\n", i, len(t.value))
		if len(t.feature) > 0 {
			fmt.Fprintf(&b, "split_feature=%s\nsplit_gain=%s\nthreshold=%s\ndecision_type=%s\nleft_child=%s\nright_child=%s\n", ints(t.feature), floats(t.gain), floats(t.threshold),
				strings.Join(types, " "), ints(t.left), ints(t.right))
		}
		fmt.Fprintf(&b, "leaf_value=%s\n", floats(t.value))
		if len(t.feature) > 0 {
			fmt.Fprintf(&b, "leaf_weight=%s\nleaf_count=%s\ninternal_value=%s\ninternal_weight=%s\ninternal_count=%s\n", ints(t.count), ints(t.count), floats(t.innerValue),
				ints(t.innerCount), ints(t.innerCount))
		}
		b.WriteString("is_linear=0\nshrinkage=1\n\n\n")
	}
	b.WriteString("end of trees\n\nparameters:\nend of parameters\n\npandas_categorical:null\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func floats(xs []float64) string {
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = number(x)
	}
	return strings.Join(out, " ")
}

func ints(xs []int) string {
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = strconv.Itoa(x)
	}
	return strings.Join(out, " ")
}

// AUC is the area under the ROC curve: the probability that a random row with label 1 has a higher score than one with
// label 0, ties counted half (Mann-Whitney). NaN when one of the labels is missing.
func AUC(scores, labels []float64) float64 {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	})
	var ranks, pos, neg float64
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && scores[order[j]] == scores[order[i]] {
			j++
		}
		mid := float64(i+j+1) / 2 // mean of the ranks i+1 … j
		for ; i < j; i++ {
			if labels[order[i]] > 0.5 {
				ranks, pos = ranks+mid, pos+1
			} else {
				neg++
			}
		}
	}
	if pos == 0 || neg == 0 {
		return math.NaN()
	}
	return (ranks - pos*(pos+1)/2) / (pos * neg)
}

// Gain is how much better one ranking is than another on the same rows.
type Gain struct {
	AUC       float64 // AUC of the first less AUC of the second
	Low, High float64 // 95 % interval
}

// AUCGain compares the scores a with the scores b. The interval is a bootstrap percentile interval over groups of rows
// (Efron and Tibshirani 1993, chapter 13): rows that belong together, such as the orders of one day, are drawn together,
// because they often share their fate. group numbers each row's group from 0. The same arguments give the same interval.
func AUCGain(a, b, labels []float64, group []int, draws int, seed uint64) Gain {
	rows := [][]int{}
	for i, g := range group {
		for g >= len(rows) {
			rows = append(rows, nil)
		}
		rows[g] = append(rows[g], i)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	var gains []float64
	for range draws {
		var da, db, dl []float64
		for range rows {
			for _, i := range rows[rng.IntN(len(rows))] {
				da, db, dl = append(da, a[i]), append(db, b[i]), append(dl, labels[i])
			}
		}
		if gain := AUC(da, dl) - AUC(db, dl); !math.IsNaN(gain) {
			gains = append(gains, gain)
		}
	}
	out := Gain{AUC: AUC(a, labels) - AUC(b, labels), Low: math.NaN(), High: math.NaN()}
	if len(gains) > 0 {
		slices.Sort(gains)
		out.Low, out.High = gains[int(.025*float64(len(gains)-1))], gains[int(.975*float64(len(gains)-1))]
	}
	return out
}
