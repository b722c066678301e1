package drift

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// bins is how many quantile bins a reference has.
const bins = 10

// feature is the reference profile of one column: fixed cuts at the reference's quantiles. Bin i holds the values from
// cut i−1 up to, not including, cut i; the first bin is below the smallest and the last above the largest reference
// value, so that an outlier falls there and moves no other bin.
type feature struct {
	Name    string    `json:"name"`
	Cuts    []float64 `json:"cuts"`
	Counts  []int64   `json:"counts"` // one more than cuts
	Sums    []float64 `json:"sums"`   // of the values per bin
	Missing int64     `json:"missing"`
	Mean    float64   `json:"mean"`
	Std     float64   `json:"std"` // by n
}

// newFeature profiles a column. One without any value has no cuts and one bin.
func newFeature(name string, values []float64) feature {
	f := feature{Name: name}
	xs := clean(values)
	if len(xs) > 0 {
		for i := range bins {
			f.Cuts = append(f.Cuts, xs[i*len(xs)/bins])
		}
		f.Cuts = append(f.Cuts, math.Nextafter(xs[len(xs)-1], math.Inf(1)))
		f.Cuts = slices.Compact(f.Cuts)
		f.Mean, f.Std = stat.Mean(xs, nil), stat.PopStdDev(xs, nil)
	}
	f.Counts, f.Sums = make([]int64, len(f.Cuts)+1), make([]float64, len(f.Cuts)+1)
	f.Missing = count(f.Cuts, values, f.Counts, f.Sums)
	return f
}

// bin finds the bin of a finite value: how many cuts are at most x.
func bin(cuts []float64, x float64) int {
	lo, hi := 0, len(cuts)
	for lo < hi {
		mid := (lo + hi) / 2
		if cuts[mid] <= x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// count adds values to counts and sums and returns how many were missing (NaN or infinite).
func count(cuts, values []float64, counts []int64, sums []float64) (missing int64) {
	for _, x := range values {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			missing++
			continue
		}
		i := bin(cuts, x)
		counts[i]++
		sums[i] += x
	}
	return missing
}

// Statistics compare reference and production counts on the same cuts.
type Statistics struct {
	PSI, KL, JS, KS, Wasserstein float64
}

// compare computes the statistics from counts. PSI and KL add half a value to every bin (Jeffreys' prior), so that an
// empty bin gives a finite number. KS is the largest distance of the distribution functions at the cuts: at most the true
// D. Wasserstein puts every bin's values at their mean and is in standard deviations of the reference. Without values on
// one of the sides all are 0.
func compare(f feature, counts []int64, sums []float64) Statistics {
	n, m := total(f.Counts), total(counts)
	if n == 0 || m == 0 || len(counts) != len(f.Counts) {
		return Statistics{}
	}
	k := len(counts)
	plain, smooth := Binning{make([]float64, k), make([]float64, k)}, Binning{make([]float64, k), make([]float64, k)}
	var s Statistics
	var p, q float64
	var refAt, refW, curAt, curW []float64
	for i := range k {
		plain.Ref[i], plain.Cur[i] = float64(f.Counts[i])/float64(n), float64(counts[i])/float64(m)
		smooth.Ref[i] = (float64(f.Counts[i]) + 0.5) / (float64(n) + 0.5*float64(k))
		smooth.Cur[i] = (float64(counts[i]) + 0.5) / (float64(m) + 0.5*float64(k))
		p, q = p+plain.Ref[i], q+plain.Cur[i]
		s.KS = math.Max(s.KS, math.Abs(p-q))
		if f.Counts[i] > 0 {
			refAt, refW = append(refAt, f.Sums[i]/float64(f.Counts[i])), append(refW, float64(f.Counts[i]))
		}
		if counts[i] > 0 {
			curAt, curW = append(curAt, sums[i]/float64(counts[i])), append(curW, float64(counts[i]))
		}
	}
	s.PSI, s.KL, s.JS = PSI(smooth), KL(smooth), JensenShannon(plain)
	s.Wasserstein = stat.WassersteinDistance(refAt, curAt, refW, curW) / math.Max(f.Std, 0.001)
	return s
}

// of returns one statistic by its name.
func (s Statistics) of(name string) float64 {
	switch name {
	case "psi":
		return s.PSI
	case "kl":
		return s.KL
	case "js":
		return s.JS
	case "ks":
		return s.KS
	}
	return s.Wasserstein
}

func total(counts []int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}
