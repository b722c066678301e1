package drift

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// bins is how many quantile bins a reference has.
const bins = 10

// maxSummed bounds what one value adds to a sum, so that no sum of int64 many values leaves float64, here or in Postgres.
const maxSummed = 1e289

// feature is the reference profile of one column: fixed cuts at the reference's distinct values when there are at most
// distinctAtMost, else at its quantiles. Bin i holds the values from cut i−1 up to, not including, cut i; the first bin is
// below the smallest and the last above the largest reference value, so that an outlier falls there and moves no other bin.
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
	if xs := clean(values); len(xs) > 0 {
		f.Cuts = cuts(xs)
		f.Mean, f.Std = moments(xs)
	}
	f.Counts, f.Sums = make([]int64, len(f.Cuts)+1), make([]float64, len(f.Cuts)+1)
	f.Missing = count(f.Cuts, values, f.Counts, f.Sums)
	return f
}

// cuts returns the cuts of a sorted column that is not empty. A value on which several quantiles fall gets a bin of its
// own, cut below and just above it: else the rest of the column, however rare, would share its bin and could become all of
// it unnoticed.
func cuts(xs []float64) []float64 {
	out := slices.Compact(slices.Clone(xs))
	if len(out) > distinctAtMost {
		out = out[:0]
		for i := range bins {
			q := xs[i*len(xs)/bins]
			if n := len(out); n > 0 && out[n-1] == q {
				out = append(out, math.Nextafter(q, math.Inf(1))) // the largest is cut below: q is at most that
				continue
			} else if n > 1 && out[n-2] == q {
				continue
			}
			out = append(out, q)
		}
	}
	// Nothing finite lies above the largest number: a column that holds it has no bin of larger values.
	if above := math.Nextafter(xs[len(xs)-1], math.Inf(1)); !math.IsInf(above, 1) {
		out = append(out, above)
	}
	out = slices.DeleteFunc(out, func(x float64) bool { return math.IsInf(x, 0) })
	return slices.Compact(out)
}

// moments returns mean and deviation of values as sums see them, scaled on the way so that no square leaves float64.
func moments(sorted []float64) (mean, std float64) {
	scale := math.Max(math.Abs(summed(sorted[0])), math.Abs(summed(sorted[len(sorted)-1])))
	if scale < 1e100 {
		return stat.Mean(sorted, nil), stat.PopStdDev(sorted, nil)
	}
	small := make([]float64, len(sorted))
	for i, x := range sorted {
		small[i] = summed(x) / scale
	}
	return stat.Mean(small, nil) * scale, stat.PopStdDev(small, nil) * scale
}

// summed is what a value adds to a sum.
func summed(x float64) float64 { return math.Min(math.Max(x, -maxSummed), maxSummed) }

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
		sums[i] += summed(x)
	}
	return missing
}

// Statistics compare reference and production counts on the same cuts.
type Statistics struct {
	PSI, KL, JS, KS, Wasserstein float64
}

// compare computes the statistics from counts. For PSI, KL and JS the missing values are one more bin: a sensor that falls
// silent is as much of a change as one that moves. Bins that are empty on both sides are left out, and PSI and KL add half
// a value to every other (Jeffreys' prior), so that one that is empty on one side gives a finite number. KS and Wasserstein
// are about the values alone: KS is the largest distance of the distribution functions at the cuts, at most the true D;
// Wasserstein puts every bin's values at their mean and is in standard deviations of the reference. What lacks anything
// to compare on one of the sides is 0.
func compare(f feature, counts []int64, sums []float64, missing int64) Statistics {
	var s Statistics
	if len(counts) != len(f.Counts) || len(sums) != len(f.Counts) {
		return s
	}
	refs, curs := append(slices.Clone(f.Counts), f.Missing), append(slices.Clone(counts), missing)
	if all, seen := float64(total(refs)), float64(total(curs)); all > 0 && seen > 0 {
		k := 0
		for i := range refs {
			if refs[i]+curs[i] > 0 {
				refs[k], curs[k] = refs[i], curs[i]
				k++
			}
		}
		plain, smooth := Binning{make([]float64, k), make([]float64, k)}, Binning{make([]float64, k), make([]float64, k)}
		for i := range k {
			plain.Ref[i], plain.Cur[i] = float64(refs[i])/all, float64(curs[i])/seen
			smooth.Ref[i] = (float64(refs[i]) + 0.5) / (all + 0.5*float64(k))
			smooth.Cur[i] = (float64(curs[i]) + 0.5) / (seen + 0.5*float64(k))
		}
		s.PSI, s.KL, s.JS = PSI(smooth), KL(smooth), JensenShannon(plain)
	}
	n, m := total(f.Counts), total(counts)
	if n == 0 || m == 0 {
		return s
	}
	var p, q float64
	var refAt, refW, curAt, curW []float64
	for i := range counts {
		p, q = p+float64(f.Counts[i])/float64(n), q+float64(counts[i])/float64(m)
		s.KS = math.Max(s.KS, math.Abs(p-q))
		if f.Counts[i] > 0 {
			refAt, refW = append(refAt, f.Sums[i]/float64(f.Counts[i])), append(refW, float64(f.Counts[i]))
		}
		if counts[i] > 0 {
			curAt, curW = append(curAt, sums[i]/float64(counts[i])), append(curW, float64(counts[i]))
		}
	}
	s.Wasserstein = stat.WassersteinDistance(refAt, curAt, refW, curW) / math.Max(f.Std, 0.001)
	return s
}

// The bounds of a share of missing values that has changed: Cohen's h, and h in standard errors. An h of 0.4 is 0 % to
// 4 %, or 50 % to 69 %; four standard errors are met by chance once in 16,000.
const (
	missingEffect = 0.4
	missingErrors = 4.0
)

// missingMoved reports whether the share of missing values is another one than in the reference, by effect and by
// significance. Some statistics look at values alone, and a monitor's limit may be above what missing values do to it.
func missingMoved(refMissing, refAll, missing, all int64) bool {
	if refAll == 0 || all == 0 {
		return false
	}
	angle := func(part, whole int64) float64 { return 2 * math.Asin(math.Sqrt(float64(part)/float64(whole))) }
	h := math.Abs(angle(missing, all) - angle(refMissing, refAll))
	return h >= missingEffect && h >= missingErrors*math.Sqrt(1/float64(all)+1/float64(refAll))
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
