package drift

import (
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/stat"
)

// clean returns the finite values, sorted. NaN and infinities are no values: they are counted as missing elsewhere.
func clean(xs []float64) []float64 {
	out := make([]float64, 0, len(xs))
	for _, x := range xs {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			out = append(out, x)
		}
	}
	slices.Sort(out)
	return out
}

// Binning says how samples become shares.
type Binning struct {
	// Reference and production shares per bin. Both empty when one of the samples has no value.
	Ref, Cur []float64
}

// distinctAtMost is how many distinct reference values make Evidently treat a column as categories.
const distinctAtMost = 20

// EvidentlyBins bins two samples as Evidently does (stattests/utils.py, get_binned_data): categories when the reference
// has at most 20 distinct values, else equal widths over both samples by Sturges' rule as numpy computes it.
func EvidentlyBins(ref, cur []float64) Binning {
	ref, cur = clean(ref), clean(cur)
	if len(ref) == 0 || len(cur) == 0 {
		return Binning{}
	}
	distinct := slices.Compact(slices.Clone(ref))
	if len(distinct) <= distinctAtMost {
		both := append(distinct, cur...)
		slices.Sort(both)
		both = slices.Compact(both)
		share := func(xs []float64) []float64 {
			out := make([]float64, len(both))
			for _, x := range xs {
				i, _ := slices.BinarySearch(both, x)
				out[i]++
			}
			return scaled(out, float64(len(xs)))
		}
		return Binning{share(ref), share(cur)}
	}
	lo, hi := math.Min(ref[0], cur[0]), math.Max(ref[len(ref)-1], cur[len(cur)-1])
	if lo == hi {
		lo, hi = lo-0.5, hi+0.5
	}
	n := float64(len(ref) + len(cur))
	k := int(math.Ceil((hi - lo) / ((hi - lo) / (math.Log2(n) + 1))))
	edges := make([]float64, k+1)
	step := (hi - lo) / float64(k)
	for i := range edges {
		edges[i] = float64(i)*step + lo
	}
	edges[k] = hi
	share := func(xs []float64) []float64 { // bins [a, b), the last one closed
		out := make([]float64, k)
		for _, x := range xs {
			i := sort.SearchFloat64s(edges, x)
			if i < len(edges) && edges[i] == x {
				i++
			}
			out[min(max(i-1, 0), k-1)]++
		}
		return scaled(out, float64(len(xs)))
	}
	return Binning{share(ref), share(cur)}
}

func scaled(xs []float64, by float64) []float64 {
	for i := range xs {
		xs[i] /= by
	}
	return xs
}

// filled replaces empty bins as Evidently does: by 1e-4, or by a millionth of the smallest share when that is below 1e-4.
func filled(ps []float64) []float64 {
	least := math.Inf(1)
	for _, p := range ps {
		if p > 0 {
			least = math.Min(least, p)
		}
	}
	eps := 1e-4
	if least <= 1e-4 {
		eps = least / 1e6
	}
	out := slices.Clone(ps)
	for i := range out {
		if out[i] == 0 {
			out[i] = eps
		}
	}
	return out
}

// Filled returns the binning without empty bins, in Evidently's way and without renormalising.
func (b Binning) Filled() Binning { return Binning{filled(b.Ref), filled(b.Cur)} }

// PSI is the population stability index Σ (p−q)·ln(p/q); shares must be positive. Two empty binnings have 0.
func PSI(b Binning) float64 {
	sum := 0.0
	for i, p := range b.Ref {
		sum += (p - b.Cur[i]) * math.Log(p/b.Cur[i])
	}
	return sum
}

// KL is the Kullback-Leibler divergence KL(ref‖cur) in nats of the renormalised shares; shares must be positive.
func KL(b Binning) float64 {
	if len(b.Ref) == 0 {
		return 0
	}
	return stat.KullbackLeibler(normalised(b.Ref), normalised(b.Cur))
}

// JensenShannon is the Jensen-Shannon distance with natural logarithms: the root of the divergence, from 0 to √ln 2 ≈
// 0.833. Empty bins are allowed.
func JensenShannon(b Binning) float64 {
	if len(b.Ref) == 0 {
		return 0
	}
	return math.Sqrt(math.Max(0, stat.JensenShannon(normalised(b.Ref), normalised(b.Cur))))
}

func normalised(ps []float64) []float64 {
	sum := 0.0
	for _, p := range ps {
		sum += p
	}
	return scaled(slices.Clone(ps), sum)
}

// Wasserstein is the first Wasserstein distance of two samples divided by the reference's standard deviation (by n, at
// least 0.001), as Evidently norms it: how many deviations the values have moved on average. Without values it is 0.
func Wasserstein(ref, cur []float64) float64 {
	ref, cur = clean(ref), clean(cur)
	if len(ref) == 0 || len(cur) == 0 {
		return 0
	}
	return stat.WassersteinDistance(ref, cur, nil, nil) / math.Max(stat.PopStdDev(ref, nil), 0.001)
}

// KolmogorovSmirnov is the largest distance D of the two empirical distribution functions and its two-sided p-value:
// exact while the product of the sample sizes is at most 10⁸, else the limit distribution. Without values it is (0, 1).
func KolmogorovSmirnov(ref, cur []float64) (d, p float64) {
	ref, cur = clean(ref), clean(cur)
	n, m := len(ref), len(cur)
	if n == 0 || m == 0 {
		return 0, 1
	}
	d = math.Min(1, stat.KolmogorovSmirnov(ref, nil, cur, nil)) // shares are summed up there: nine ninths are more than one
	if n <= 1e8/m {
		return d, ksExact(n, m, int64(math.Round(d*float64(n)*float64(m))))
	}
	x := d * math.Sqrt(float64(n)*float64(m)/float64(n+m))
	sum := 0.0
	for k := 1; k <= 100; k++ {
		term := math.Exp(-2 * float64(k*k) * x * x)
		if k%2 == 0 {
			term = -term
		}
		sum += term
	}
	return d, math.Min(1, math.Max(0, 2*sum))
}

// ksExact is the share of the lattice paths from (0,0) to (n,m) that reach |i·m − j·n| ≥ h: the probability, under no
// difference, of a D at least as large (Hodges 1957). The share of the paths to (i,j) that have been outside is carried
// along, so that small probabilities keep their relative precision. O(n·m) time, O(m) memory.
func ksExact(n, m int, h int64) float64 {
	if h == 0 {
		return 1
	}
	outside := make([]float64, m+1)
	for i := range n + 1 {
		for j := range m + 1 {
			if d := int64(i)*int64(m) - int64(j)*int64(n); d >= h || d <= -h {
				outside[j] = 1
				continue
			}
			switch {
			case i == 0 && j == 0:
				outside[0] = 0
			case i == 0:
				outside[j] = outside[j-1]
			case j > 0:
				w := float64(i) / float64(i+j)
				outside[j] = outside[j]*w + outside[j-1]*(1-w)
			}
		}
	}
	return math.Min(1, outside[m])
}
