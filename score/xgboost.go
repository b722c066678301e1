package score

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// xgbModel is the part of XGBoost's JSON model schema that prediction needs.
type xgbModel struct {
	Learner struct {
		FeatureNames []string `json:"feature_names"`
		Param        struct {
			BaseScore string `json:"base_score"`
			NumClass  string `json:"num_class"`
			NumFeat   string `json:"num_feature"`
			NumTarget string `json:"num_target"` // since 1.6
		} `json:"learner_model_param"`
		Objective struct {
			Name string `json:"name"`
		} `json:"objective"`
		Booster struct {
			Name   string    `json:"name"`
			Model  *xgbTrees `json:"model"`
			GBTree *struct {
				Model *xgbTrees `json:"model"`
			} `json:"gbtree"` // dart wraps a gbtree
			WeightDrop []float64 `json:"weight_drop"`
		} `json:"gradient_booster"`
	} `json:"learner"`
}

type xgbTrees struct {
	Trees []xgbTree `json:"trees"`
	Info  []int     `json:"tree_info"` // which output a tree adds to
}

type xgbTree struct {
	Param struct {
		LeafVector string `json:"size_leaf_vector"`
	} `json:"tree_param"`
	Left        []int32   `json:"left_children"`
	Right       []int32   `json:"right_children"`
	Feature     []int32   `json:"split_indices"`
	Condition   []float64 `json:"split_conditions"`
	DefaultLeft []flag    `json:"default_left"`
	Hessian     []float64 `json:"sum_hessian"`
	SplitType   []int     `json:"split_type"`
}

// flag is 0/1 or false/true: both are written, by different versions.
type flag bool

// UnmarshalJSON reads a number or a truth value.
func (f *flag) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "0", "false":
		*f = false
	case "1", "true":
		*f = true
	default:
		return malformed("default_left holds %s", clip(string(b)))
	}
	return nil
}

var leafVector = regexp.MustCompile(`"size_leaf_vector" ?: ?"([2-9]|[1-9][0-9]+)"`)

func severalValues(n string) error {
	return malformed("has leaves of %q values (size_leaf_vector, multi_output_tree); models with one output are supported: train one model for each", clip(n))
}

func loadXGBoost(data []byte) (Model, error) {
	var m xgbModel
	if err := json.Unmarshal(data, &m); err != nil {
		if found := leafVector.FindSubmatch(data); found != nil { // XGBoost writes NaN into these, which is no JSON
			return nil, severalValues(string(found[1]))
		}
		return nil, malformed("is not an XGBoost JSON model: %s; save it with save_model(\"model.json\")", err)
	}
	l := m.Learner
	e := &ensemble{slope: 1, average: 1, single: true, objective: l.Objective.Name}
	if l.Param.NumClass != "0" && l.Param.NumClass != "1" {
		return nil, malformed("has %q classes; models with one output are supported", clip(l.Param.NumClass))
	}
	if l.Param.NumTarget != "" && l.Param.NumTarget != "0" && l.Param.NumTarget != "1" {
		return nil, malformed("has %q outputs (num_target: several targets, or several quantiles); models with one output are supported: train one model for each", clip(l.Param.NumTarget))
	}
	trees := l.Booster.Model
	if l.Booster.GBTree != nil {
		trees = l.Booster.GBTree.Model
	}
	if l.Booster.Name != "gbtree" && l.Booster.Name != "dart" || trees == nil || len(trees.Trees) == 0 {
		return nil, malformed("has the booster %q or no trees; gbtree and dart are supported", clip(l.Booster.Name))
	}
	if len(trees.Trees) > maxTrees {
		return nil, malformed("has %d trees; at most %d", len(trees.Trees), maxTrees)
	}
	for i, group := range trees.Info {
		if group != 0 {
			return nil, malformed("tree %d adds to output %d; models with one output are supported: train one model for each", i, group)
		}
	}
	n, err := strconv.Atoi(l.Param.NumFeat)
	if err != nil || n < 1 || n > maxFeatures {
		return nil, malformed("num_feature is %q", clip(l.Param.NumFeat))
	}
	e.features = l.FeatureNames
	if len(e.features) == 0 {
		for i := range n {
			e.features = append(e.features, "f"+strconv.Itoa(i))
		}
	}
	if len(e.features) != n {
		return nil, malformed("has %d feature names for %d features", len(e.features), n)
	}
	base, err := strconv.ParseFloat(strings.Trim(l.Param.BaseScore, "[]"), 64)
	if err != nil || math.IsNaN(base) || math.IsInf(base, 0) {
		return nil, malformed("base_score is %q", clip(l.Param.BaseScore))
	}
	if err := e.xgbObjective(base); err != nil {
		return nil, err
	}
	if l.Booster.Name == "dart" && len(l.Booster.WeightDrop) != len(trees.Trees) {
		return nil, malformed("has %d dart weights for %d trees", len(l.Booster.WeightDrop), len(trees.Trees))
	}
	for i := range trees.Trees {
		weight := 1.0
		if l.Booster.Name == "dart" {
			weight = l.Booster.WeightDrop[i]
		}
		t, err := trees.Trees[i].convert(weight)
		if err != nil {
			return nil, err
		}
		e.trees = append(e.trees, t)
	}
	return e, e.finish()
}

// xgbObjective sets the link and turns base_score, which is in the prediction's unit, into a margin: in float32, step by
// step as XGBoost does.
func (e *ensemble) xgbObjective(base float64) error {
	switch e.objective {
	case "binary:logistic", "reg:logistic":
		if base <= 0 || base >= 1 {
			return malformed("base_score %v is no probability", base)
		}
		e.link, e.offset = sigmoid, float64(-float32(math.Log(float64(1/float32(base)-1))))
	case "count:poisson", "reg:gamma", "reg:tweedie":
		if base <= 0 {
			return malformed("base_score %v is not positive", base)
		}
		e.link, e.offset = exponential, float64(float32(math.Log(float64(float32(base)))))
	case "reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:quantileerror",
		"binary:logitraw", "rank:pairwise", "rank:ndcg", "rank:map":
		e.offset = float64(float32(base))
	default:
		return malformed("objective %q is not supported", clip(e.objective))
	}
	return nil
}

// convert splits XGBoost's one node list into splits and leaves. A node without children is a leaf, whose value is
// its split condition.
func (x *xgbTree) convert(weight float64) (tree, error) {
	if v := x.Param.LeafVector; v != "" && v != "0" && v != "1" {
		return tree{}, severalValues(v)
	}
	n := len(x.Left)
	if n == 0 || n > 2*maxLeaves || len(x.Right) != n || len(x.Feature) != n || len(x.Condition) != n || len(x.DefaultLeft) != n || len(x.Hessian) != n {
		return tree{}, malformed("a tree's lists have different lengths or none")
	}
	for _, kind := range x.SplitType {
		if kind != 0 {
			return tree{}, malformed("has categorical splits, which are not supported for XGBoost; encode categories as numbers")
		}
	}
	t := tree{single: true}
	place := make([]int32, n) // old index → node index or ^leaf
	for i := range n {
		if x.Left[i] == -1 {
			place[i] = ^int32(len(t.leaves))
			t.leaves = append(t.leaves, float64(float32(x.Condition[i])*float32(weight)))
			t.leafCover = append(t.leafCover, x.Hessian[i])
			continue
		}
		place[i] = int32(len(t.nodes))
		t.nodes = append(t.nodes, node{feature: x.Feature[i], threshold: x.Condition[i], left: x.Left[i], right: x.Right[i],
			missing: missingNaN, defaultLeft: bool(x.DefaultLeft[i])})
		t.nodeCover = append(t.nodeCover, x.Hessian[i])
	}
	for i := range t.nodes {
		nd := &t.nodes[i]
		if nd.left < 0 || int(nd.left) >= n || nd.right < 0 || int(nd.right) >= n {
			return tree{}, malformed("a split's children %d and %d do not exist", nd.left, nd.right)
		}
		nd.left, nd.right = place[nd.left], place[nd.right]
	}
	if len(t.nodes) > 0 && place[0] != 0 {
		return tree{}, malformed("a tree's root is a leaf but it has splits")
	}
	return t, nil
}
