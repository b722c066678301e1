package score

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// loadLightGBM reads the text model: a header of key=value lines, then one block per tree.
func loadLightGBM(data []byte) (Model, error) {
	if !bytes.HasPrefix(data, []byte("tree\n")) && !bytes.HasPrefix(data, []byte("tree\r\n")) {
		return nil, malformed("does not begin as a LightGBM text model; save it with save_model")
	}
	e := &ensemble{slope: 1, average: 1}
	whole, rest, ended := strings.Cut(string(data), "\nend of trees")
	if !ended {
		return nil, malformed("has no line \"end of trees\": the file is cut off")
	}
	if err := pandasCategories(rest); err != nil {
		return nil, err
	}
	blocks := strings.Split(whole, "\nTree=")
	header := fields(blocks[0])
	if n := header["num_class"]; n != "1" || header["num_tree_per_iteration"] != "1" {
		return nil, malformed("has %s classes; models with one output are supported", n)
	}
	e.features = strings.Fields(header["feature_names"])
	if n, err := strconv.Atoi(header["max_feature_idx"]); err != nil || n+1 != len(e.features) || len(e.features) > maxFeatures {
		return nil, malformed("max_feature_idx is %q with %d feature names", header["max_feature_idx"], len(e.features))
	}
	if err := e.lightGBMObjective(header["objective"]); err != nil {
		return nil, err
	}
	if len(blocks)-1 > maxTrees {
		return nil, malformed("has %d trees; at most %d", len(blocks)-1, maxTrees)
	}
	for _, block := range blocks[1:] {
		t, err := lightGBMTree(fields(block))
		if err != nil {
			return nil, err
		}
		e.trees = append(e.trees, t)
	}
	if len(e.trees) == 0 {
		return nil, malformed("has no trees")
	}
	if _, rf := header["average_output"]; rf || strings.Contains("\n"+blocks[0], "\naverage_output\n") {
		e.average = 1 / float64(len(e.trees))
	}
	return e, e.finish()
}

// pandasCategories refuses a model of a pandas frame whose categories are anything but the numbers 0, 1, 2 … in order. Its
// splits are on the place of a category in that list, which the library looks up from the frame at each prediction; a
// vector holds the category itself, and scoring that would be wrong without an error.
func pandasCategories(tail string) error {
	const key = "\npandas_categorical:"
	at := strings.LastIndex(tail, key)
	if at < 0 {
		return nil
	}
	line, _, _ := strings.Cut(tail[at+len(key):], "\n")
	var columns [][]json.RawMessage // null and [] are of models without categories
	if err := json.Unmarshal([]byte(line), &columns); err != nil {
		return malformed("pandas_categorical holds %q, which is no list of categories", clip(line))
	}
	for i, column := range columns {
		for place, category := range column {
			text := string(category)
			if text == strconv.Itoa(place) || text == "false" && place == 0 || text == "true" && place == 1 {
				continue
			}
			return malformed("was trained on a pandas frame whose categorical column %d has the category %s at place %d: the model knows places, a vector has categories. "+
				"Train it on numbers: df[c] = df[c].cat.codes, then lgb.Dataset(df, categorical_feature=[…]), and have the feature hold the same codes", i+1, clip(text), place)
		}
	}
	return nil
}

// fields reads key=value lines; the last of a key wins, lines of another form are passed over.
func fields(s string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(s) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "="); ok {
			out[k] = v
		}
	}
	return out
}

func (e *ensemble) lightGBMObjective(s string) error {
	parts := strings.Fields(s)
	if len(parts) == 0 {
		parts = []string{"custom"}
	}
	e.objective = parts[0]
	for _, p := range parts[1:] {
		if v, ok := strings.CutPrefix(p, "sigmoid:"); ok {
			slope, err := strconv.ParseFloat(v, 64)
			if err != nil || !(slope > 0) || math.IsInf(slope, 0) {
				return malformed("objective has the sigmoid %q", v)
			}
			e.slope = slope
		}
		if p == "sqrt" {
			e.link = signedSquare
		}
	}
	switch e.objective {
	case "binary", "cross_entropy":
		e.link = sigmoid
	case "poisson", "gamma", "tweedie":
		e.link = exponential
	case "cross_entropy_lambda":
		e.link = crossLambda
	case "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom":
	default:
		return malformed("objective %q is not supported", e.objective)
	}
	return nil
}

func lightGBMTree(f map[string]string) (tree, error) {
	var t tree
	leaves, err := strconv.Atoi(f["num_leaves"])
	if err != nil || leaves < 1 || leaves > maxLeaves {
		return t, malformed("num_leaves is %q; 1 to %d", f["num_leaves"], maxLeaves)
	}
	if f["is_linear"] == "1" {
		return t, malformed("has linear trees, which are not supported")
	}
	if t.leaves, err = floats(f, "leaf_value", leaves); err != nil {
		return t, err
	}
	if leaves == 1 {
		t.leafCover = []float64{0}
		return t, nil
	}
	splits := leaves - 1
	feature, err := floats(f, "split_feature", splits)
	if err != nil {
		return t, err
	}
	threshold, err := floats(f, "threshold", splits)
	if err != nil {
		return t, err
	}
	decision, err := floats(f, "decision_type", splits)
	if err != nil {
		return t, err
	}
	left, err := floats(f, "left_child", splits)
	if err != nil {
		return t, err
	}
	right, err := floats(f, "right_child", splits)
	if err != nil {
		return t, err
	}
	if t.nodeCover, err = floats(f, "internal_count", splits); err != nil {
		return t, err
	}
	if t.leafCover, err = floats(f, "leaf_count", leaves); err != nil {
		return t, err
	}
	bounds, bits, err := categories(f)
	if err != nil {
		return t, err
	}
	t.nodes = make([]node, splits)
	for i := range t.nodes {
		kind := int(decision[i])
		n := node{feature: int32(feature[i]), threshold: threshold[i], left: int32(left[i]), right: int32(right[i]),
			defaultLeft: kind&2 != 0, missing: missing(kind >> 2 & 3)}
		if n.missing > missingNaN || kind < 0 {
			return t, malformed("decision_type %d is unknown", kind)
		}
		if kind&1 != 0 {
			c := int(threshold[i])
			if c < 0 || c+1 >= len(bounds) {
				return t, malformed("split %d names category set %d of %d", i, c, len(bounds)-1)
			}
			n.cats = bits[bounds[c]:bounds[c+1]:bounds[c+1]]
			if n.cats == nil {
				n.cats = []uint32{}
			}
			n.threshold = 0
		}
		t.nodes[i] = n
	}
	return t, nil
}

// categories reads the bit sets of categorical splits: bounds cut bits into sets.
func categories(f map[string]string) (bounds []int, bits []uint32, err error) {
	if f["cat_boundaries"] == "" {
		return nil, nil, nil
	}
	for _, s := range strings.Fields(f["cat_boundaries"]) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || len(bounds) > 0 && n < bounds[len(bounds)-1] {
			return nil, nil, malformed("cat_boundaries holds %q", s)
		}
		bounds = append(bounds, n)
	}
	for _, s := range strings.Fields(f["cat_threshold"]) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, nil, malformed("cat_threshold holds %q", s)
		}
		bits = append(bits, uint32(n))
	}
	if bounds[len(bounds)-1] != len(bits) {
		return nil, nil, malformed("cat_boundaries ends at %d with %d words", bounds[len(bounds)-1], len(bits))
	}
	return bounds, bits, nil
}

// floats reads exactly n numbers.
func floats(f map[string]string, key string, n int) ([]float64, error) {
	words := strings.Fields(f[key])
	if len(words) != n {
		return nil, malformed("%s has %d values; %d are due", key, len(words), n)
	}
	out := make([]float64, n)
	for i, w := range words {
		v, err := strconv.ParseFloat(w, 64)
		if err != nil && v == 0 {
			return nil, malformed("%s holds %q, which is not a number", key, clip(w))
		}
		out[i] = v
	}
	return out, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
