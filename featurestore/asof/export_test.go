package asof

import "github.com/apache/arrow/go/v17/arrow"

// Masked makes keys collide: only the bits of mask of their hashes count.
func Masked(mask uint64, columns []arrow.Array, n int, r *Request, c *SorterConfig) (err error) {
	r.mask, c.mask = mask, mask
	r.Order, err = newOrder(columns, n, mask)
	return err
}

// LastKnown is the search through minima.
func LastKnown(knowledge []int64, lo, hi int, cutoff int64) int {
	g := group{knowledge: knowledge}
	return g.lastKnown(lo, hi, cutoff)
}
