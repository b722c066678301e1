package score

import (
	"fmt"
	"math"

	"waybill"
)

// Format names what wrote a model.
type Format string

// The formats.
const (
	LightGBM Format = "lightgbm" // text model
	XGBoost  Format = "xgboost"  // JSON model
	Rules    Format = "rules"    // YAML rule set, see LoadRules
)

// The bounds of a model.
const (
	MaxModelBytes = 256 << 20
	maxTrees      = 100_000
	maxLeaves     = 1 << 17 // per tree
	maxFeatures   = 10_000
	maxDepth      = 512
)

// Prediction is a model's answer for one vector.
type Prediction struct {
	Score float64 // in the objective's own unit: a probability for binary, the value for regression
	Raw   float64 // before the link function: log-odds for binary. Contributions add up to it
}

// Model scores vectors. Missing values are NaN.
type Model interface {
	// Features names the inputs, in the order of the vector.
	Features() []string
	// Objective is the training objective as the library names it.
	Objective() string
	// Score predicts for x, which has one value per feature.
	Score(x []float64, s *Scratch) (Prediction, error)
	// Contributions fills phi (one value per feature) and returns the base: base + Σ phi = Raw.
	Contributions(x, phi []float64, s *Scratch) (base float64, err error)
}

// Scratch is working memory. The zero value is ready; it grows to what a model needs and is then reused.
type Scratch struct {
	path []element
}

// Load reads a model of trees. Errors are Invalid and say what is wrong where.
func Load(format Format, data []byte) (Model, error) {
	if len(data) > MaxModelBytes {
		return nil, waybill.Errorf(waybill.TooLarge, "the model has %d bytes; at most %d", len(data), MaxModelBytes)
	}
	switch format {
	case LightGBM:
		return loadLightGBM(data)
	case XGBoost:
		return loadXGBoost(data)
	case Rules:
		return nil, waybill.InvalidField("format", "is rules: a rule set takes named values, load it with LoadRules")
	}
	return nil, waybill.InvalidField("format", "must be lightgbm, xgboost or rules")
}

func malformed(format string, args ...any) error {
	return waybill.InvalidField("model", fmt.Sprintf(format, args...))
}

// node is a split. Children ≥ 0 are nodes, children < 0 are leaves: leaf i is ^i.
type node struct {
	threshold   float64
	feature     int32
	left, right int32
	cats        []uint32 // categories that go left, as bits; nil for a numerical split
	missing     missing
	defaultLeft bool
}

// missing says which values of a split count as missing (LightGBM); XGBoost's is always missingNaN.
type missing uint8

const (
	missingNone missing = iota // NaN is taken as 0
	missingZero                // 0 and NaN go to the default side
	missingNaN                 // NaN goes to the default side
)

// tree is one tree; cover counts how much training data (rows, or hessian) reached each node and leaf.
type tree struct {
	nodes     []node
	leaves    []float64
	nodeCover []float64
	leafCover []float64
	mean      float64 // expected value: leaves weighted by cover
	depth     int
	single    bool // compare in float32 (XGBoost)
}

// zeroBound is LightGBM's kZeroThreshold, a float32.
const zeroBound = float64(float32(1e-35))

// goesLeft decides a split as the writing library does.
func (t *tree) goesLeft(n *node, x float64) bool {
	if n.cats != nil {
		// LightGBM cuts towards 0 before it looks whether a category is negative: −0.5 is 0. What is in no set, and NaN,
		// goes right.
		if !(x > -1 && x < float64(len(n.cats)*32)) {
			return false
		}
		c := uint32(math.Abs(x))
		return n.cats[c/32]>>(c%32)&1 == 1
	}
	if math.IsNaN(x) {
		if n.missing != missingNone {
			return n.defaultLeft
		}
		x = 0
	}
	if n.missing == missingZero && x >= -zeroBound && x <= zeroBound {
		return n.defaultLeft
	}
	if t.single {
		return float32(x) < float32(n.threshold)
	}
	return x <= n.threshold
}

func (t *tree) predict(x []float64) float64 {
	if len(t.nodes) == 0 {
		return t.leaves[0]
	}
	i := int32(0)
	for {
		n := &t.nodes[i]
		if t.goesLeft(n, x[n.feature]) {
			i = n.left
		} else {
			i = n.right
		}
		if i < 0 {
			return t.leaves[^i]
		}
	}
}

// check walks the tree once: every node and leaf is reached exactly once, features exist, numbers are finite. It also
// fills depth and mean.
func (t *tree) check(features int) error {
	seenNodes, seenLeaves := make([]bool, len(t.nodes)), make([]bool, len(t.leaves))
	type step struct {
		at    int32
		depth int
	}
	stack := []step{{0, 1}}
	if len(t.nodes) == 0 {
		if len(t.leaves) != 1 {
			return malformed("a tree without splits has %d leaves", len(t.leaves))
		}
		stack = []step{{^0, 1}}
	}
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		t.depth = max(t.depth, s.depth)
		if s.depth > maxDepth {
			return malformed("a tree is deeper than %d", maxDepth)
		}
		if s.at < 0 {
			i := int(^s.at)
			if i >= len(t.leaves) || seenLeaves[i] {
				return malformed("leaf %d is missing or reached twice", i)
			}
			seenLeaves[i] = true
			if math.IsNaN(t.leaves[i]) || math.IsInf(t.leaves[i], 0) {
				return malformed("leaf %d has the value %v", i, t.leaves[i])
			}
			continue
		}
		i := int(s.at)
		if i >= len(t.nodes) || seenNodes[i] {
			return malformed("node %d is missing or reached twice", i)
		}
		seenNodes[i] = true
		n := &t.nodes[i]
		if n.feature < 0 || int(n.feature) >= features {
			return malformed("node %d splits on feature %d of %d", i, n.feature, features)
		}
		if math.IsNaN(n.threshold) {
			return malformed("node %d has no threshold", i)
		}
		stack = append(stack, step{n.left, s.depth + 1}, step{n.right, s.depth + 1})
	}
	for i, ok := range seenNodes {
		if !ok {
			return malformed("node %d is not reached", i)
		}
	}
	sum, weight := 0.0, 0.0
	for i, ok := range seenLeaves {
		if !ok {
			return malformed("leaf %d is not reached", i)
		}
		if c := t.leafCover[i]; !(c >= 0) || math.IsInf(c, 0) || c == 0 && len(t.nodes) > 0 {
			return malformed("leaf %d has the cover %v (leaf_count, sum_hessian): contributions need the training data that reached it", i, c)
		}
		sum += t.leaves[i] * t.leafCover[i]
		weight += t.leafCover[i]
	}
	for i, c := range t.nodeCover {
		if !(c > 0) || math.IsInf(c, 0) {
			return malformed("node %d has the cover %v (internal_count, sum_hessian): contributions need the training data that reached it", i, c)
		}
	}
	switch {
	case len(t.nodes) == 0:
		t.mean = t.leaves[0]
	default:
		t.mean = sum / weight
	}
	return nil
}

// link is what the objective does to the raw score.
type link uint8

const (
	identity link = iota
	sigmoid
	exponential
	signedSquare // LightGBM's reg_sqrt
	crossLambda  // log(1+exp(x))
)

// ensemble is a sum of trees.
type ensemble struct {
	features  []string
	objective string
	trees     []tree
	link      link
	slope     float64 // of the sigmoid
	offset    float64 // raw score without any tree
	average   float64 // raw = Σ trees · average + offset; 1 but for random forests
	single    bool    // add up in float32 (XGBoost)
	path      int     // elements of a Scratch's path
}

// Features names the inputs.
func (e *ensemble) Features() []string { return e.features }

// Objective names the training objective.
func (e *ensemble) Objective() string { return e.objective }

func (e *ensemble) finish() error {
	depth := 1
	for i := range e.trees {
		if err := e.trees[i].check(len(e.features)); err != nil {
			return fmt.Errorf("check tree %d: %w", i, err)
		}
		depth = max(depth, e.trees[i].depth)
	}
	e.path = (depth + 2) * (depth + 3) / 2 // one copy of the path per level, each an element longer
	return nil
}

// Score predicts for x. It allocates nothing.
func (e *ensemble) Score(x []float64, _ *Scratch) (Prediction, error) {
	if len(x) != len(e.features) {
		return Prediction{}, waybill.InvalidField("vector", fmt.Sprintf("has %d values; the model takes %d", len(x), len(e.features)))
	}
	var raw float64
	if e.single {
		sum := float32(e.offset)
		for i := range e.trees {
			sum += float32(e.trees[i].predict(x))
		}
		return Prediction{Score: e.transformSingle(sum), Raw: float64(sum)}, nil
	} else {
		for i := range e.trees {
			raw += e.trees[i].predict(x)
		}
		raw += e.offset
	}
	// LightGBM averages a random forest in the prediction, not in the raw score, and so do we.
	return Prediction{Score: e.transform(raw * e.average), Raw: raw}, nil
}

// transformSingle is transform in float32, as XGBoost's functions of common/math.h are. Raising float32 to a power is done
// by exp32: a correctly rounded exponential differs from that of the C library in one answer of 2,000.
func (e *ensemble) transformSingle(raw float32) float64 {
	switch e.link {
	case sigmoid:
		return float64(1 / (exp32(min(-raw, 88.7)) + 1)) // XGBoost adds 1e-16 too, which float32 does not see
	case exponential:
		return float64(exp32(raw))
	case signedSquare, crossLambda, identity:
	}
	return float64(raw)
}

func (e *ensemble) transform(raw float64) float64 {
	switch e.link {
	case sigmoid:
		return 1 / (1 + math.Exp(-e.slope*raw))
	case exponential:
		return math.Exp(raw)
	case signedSquare:
		return math.Copysign(raw*raw, raw)
	case crossLambda:
		return math.Log1p(math.Exp(raw))
	case identity:
	}
	return raw
}

// Contributions computes exact path-dependent TreeSHAP values. It allocates nothing once s has grown.
func (e *ensemble) Contributions(x, phi []float64, s *Scratch) (float64, error) {
	if len(x) != len(e.features) || len(phi) != len(e.features) {
		return 0, waybill.InvalidField("vector", fmt.Sprintf("has %d values and phi %d; the model takes %d", len(x), len(phi), len(e.features)))
	}
	if len(s.path) < e.path {
		s.path = make([]element, e.path)
	}
	clear(phi)
	base := 0.0
	for i := range e.trees {
		t := &e.trees[i]
		base += t.mean
		if len(t.nodes) > 0 {
			w := walk{t: t, x: x, phi: phi}
			w.visit(0, nil, s.path, 0, 1, 1, -1)
		}
	}
	return base + e.offset, nil
}
