package featurestore

import (
	"cmp"
	"slices"
	"sort"
)

// history is every row of a view, grouped by key and sorted by the winner rule. Rows of one commit that tie keep their
// order, so that the last one wins.
type history map[string][]row

func newHistory(rows []row) history {
	h := history{}
	for _, r := range rows {
		h[r.key] = append(h[r.key], r)
	}
	for _, rs := range h {
		slices.SortStableFunc(rs, func(a, b row) int {
			return cmp.Or(cmp.Compare(a.event, b.event), cmp.Compare(a.knowledge, b.knowledge), cmp.Compare(a.seq, b.seq))
		})
	}
	return h
}

// asOf returns the winner among the rows of key with at−ttl ≤ event time ≤ at (ttl 0: no lower bound) and knowledge
// time ≤ cutoff, or nil. Times in µs; all bounds are inclusive.
func (h history) asOf(key string, at, ttl, cutoff int64) *row {
	rs := h[key]
	n := sort.Search(len(rs), func(i int) bool { return rs[i].event > at })
	for i := n - 1; i >= 0; i-- {
		if ttl > 0 && rs[i].event < at-ttl {
			return nil
		}
		if rs[i].knowledge <= cutoff {
			return &rs[i]
		}
	}
	return nil
}
