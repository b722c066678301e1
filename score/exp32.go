package score

import "math"

// exp2Step holds 2^(i/32).
var exp2Step = func() (t [32]float64) {
	for i := range t {
		t[i] = math.Exp2(float64(i) / 32)
	}
	return t
}()

// exp32 is the exponential in single precision as XGBoost has it on Linux, to the last bit: exp(x) = 2^(k/32)·2^(r/32), the
// first factor from a table, the second by the minimax polynomial of degree 3 that the C library's expf documents (ARM's
// optimized routines), in double with fused operations. It is off by at most 0.502 of the last place, and is the same on
// every processor.
func exp32(x float32) float32 {
	const (
		step = 0x1.71547652b82fep+0 * 32 // 32/ln 2
		c0   = 0x1.c6af84b912394p-5 / 32 / 32 / 32
		c1   = 0x1.ebfce50fac4f3p-3 / 32 / 32
		c2   = 0x1.62e42ff0c52d6p-1 / 32
	)
	switch {
	case x != x:
		return x
	case x > 0x1.62e42ep6: // log of the largest float32
		return float32(math.Inf(1))
	case x < -0x1.9fe368p6: // log of half the smallest
		return 0
	}
	xd := float64(x)
	k := math.RoundToEven(step * xd)
	r := math.FMA(step, xd, -k)
	y := math.FMA(math.FMA(c0, r, c1), r*r, math.FMA(c2, r, 1))
	n := int(k)
	return float32(y * math.Ldexp(exp2Step[n&31], n>>5))
}
