package score

// element is one unique feature on the path from the root: how much of the training data goes on with the feature
// unknown (zero) and whether x goes on (one); weight is the sum over subsets of that size.
type element struct {
	feature           int32
	zero, one, weight float64
}

// walk computes the contributions of one tree by TreeSHAP (arXiv 1802.03888, algorithm 2): one depth-first pass that
// carries, for every subset size, the weight of the coalitions that reach the node.
type walk struct {
	t   *tree
	x   []float64
	phi []float64
}

// visit handles the node (or leaf, below 0) at. parent is the path so far in its first depth elements; the node's own
// copy stands behind it in buf, so that siblings start from the same state without allocating.
func (w *walk) visit(at int32, parent, buf []element, depth int, zero, one float64, feature int32) {
	path, rest := buf[:depth+1], buf[depth+1:]
	copy(path, parent[:depth])
	extend(path, depth, zero, one, feature)
	if at < 0 {
		value := w.t.leaves[^at]
		for i := 1; i <= depth; i++ {
			w.phi[path[i].feature] += unwoundSum(path, depth, i) * (path[i].one - path[i].zero) * value
		}
		return
	}
	n := &w.t.nodes[at]
	hot, cold := n.right, n.left
	if w.t.goesLeft(n, w.x[n.feature]) {
		hot, cold = n.left, n.right
	}
	zero, one = 1, 1
	for i := 1; i <= depth; i++ {
		if path[i].feature == n.feature { // a feature counts once on a path: undo its earlier split
			zero, one = path[i].zero, path[i].one
			unwind(path, depth, i)
			depth--
			break
		}
	}
	cover := w.t.nodeCover[at]
	w.visit(hot, path, rest, depth+1, zero*share(w.t.cover(hot), cover), one, n.feature)
	w.visit(cold, path, rest, depth+1, zero*share(w.t.cover(cold), cover), 0, n.feature)
}

func (t *tree) cover(at int32) float64 {
	if at < 0 {
		return t.leafCover[^at]
	}
	return t.nodeCover[at]
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

// extend adds a feature to the path and spreads the weights over one more subset size.
func extend(path []element, depth int, zero, one float64, feature int32) {
	path[depth] = element{feature: feature, zero: zero, one: one}
	if depth == 0 {
		path[0].weight = 1
	}
	n := float64(depth + 1)
	for i := depth - 1; i >= 0; i-- {
		path[i+1].weight += one * path[i].weight * float64(i+1) / n
		path[i].weight = zero * path[i].weight * float64(depth-i) / n
	}
}

// unwind takes the feature at index i out of the path: the inverse of extend.
func unwind(path []element, depth, i int) {
	one, zero := path[i].one, path[i].zero
	next := path[depth].weight
	n := float64(depth + 1)
	for j := depth - 1; j >= 0; j-- {
		if one != 0 {
			w := path[j].weight
			path[j].weight = next * n / (float64(j+1) * one)
			next = w - path[j].weight*zero*float64(depth-j)/n
		} else {
			path[j].weight = path[j].weight * n / (zero * float64(depth-j))
		}
	}
	for j := i; j < depth; j++ {
		path[j].feature, path[j].zero, path[j].one = path[j+1].feature, path[j+1].zero, path[j+1].one
	}
}

// unwoundSum is the total weight of the path without the feature at index i.
func unwoundSum(path []element, depth, i int) float64 {
	one, zero := path[i].one, path[i].zero
	next := path[depth].weight
	n := float64(depth + 1)
	total := 0.0
	for j := depth - 1; j >= 0; j-- {
		switch {
		case one != 0:
			w := next * n / (float64(j+1) * one)
			total += w
			next = path[j].weight - w*zero*float64(depth-j)/n
		case zero != 0:
			total += path[j].weight / zero / (float64(depth-j) / n)
		}
	}
	return total
}
