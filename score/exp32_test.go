package score

import (
	"math"
	"testing"
)

// TestExp32 compares with expf of glibc 2.36: at its bounds, and where it is not the correctly rounded exponential.
func TestExp32(t *testing.T) {
	t.Parallel()
	differs := 0
	for _, c := range [][2]float32{
		{-16.66958, 5.760938e-08}, {6.141058, 464.54477}, {-4.037411, 0.017643088}, {5.7270465, 307.06104}, {-8.482031, 0.00020715757},
		{18.904375, 162205580.0}, {3.9752033, 53.26094}, {-17.248018, 3.2305827e-08}, {15.244995, 4176546.0}, {-13.716599, 1.1039682e-06},
		{-10.400896, 3.0405226e-05}, {18.537521, 112394030.0}, {19.155617, 208534860.0}, {-0.29587394, 0.7438812}, {-18.99165, 5.649778e-09},
		{-18.058836, 1.43597605e-08}, {7.8327227, 2521.7861}, {-6.535367, 0.0014511964}, {-14.690989, 4.1666283e-07}, {-11.84388, 7.1823806e-06},
		{6.873124, 965.9617}, {-9.85754, 5.235097e-05}, {-6.4167433, 0.001633969}, {-2.3791304, 0.0926311}, {0.0, 1.0}, {1.0, 2.7182817},
		{-1.0, 0.36787945}, {88.7, 3.3259769e+38}, {88.72283, 3.4027985e+38}, {-87.3, 1.2192433e-38}, {-100.0, 3.8e-44}, {-103.9, 1e-45},
		{-103.98, 0.0}, {89.0, float32(math.Inf(1))}, {float32(math.Inf(-1)), 0}, {float32(math.Inf(1)), float32(math.Inf(1))},
	} {
		if got := exp32(c[0]); got != c[1] {
			t.Errorf("exp(%v) = %v, want %v", c[0], got, c[1])
		}
		if float32(math.Exp(float64(c[0]))) != c[1] {
			differs++
		}
	}
	if differs < 20 {
		t.Errorf("only %d of the cases tell expf from the rounded exponential", differs)
	}
	if !math.IsNaN(float64(exp32(float32(math.NaN())))) {
		t.Error("exp of NaN is a number")
	}
}
