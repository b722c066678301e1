package asof

import (
	"sort"

	"github.com/apache/arrow/go/v17/arrow"

	"waybill"
)

// maxRows bounds a spine and a part: rows are counted with 31 bits.
const maxRows = 1<<31 - 1

// pair is a row and the hash of its key.
type pair struct {
	hash uint64
	row  int32
}

// Order is a spine's join keys with its rows sorted by their hash: made once for all views with the same keys. It is
// never changed.
type Order struct {
	columns []arrow.Array
	keys    keys
	pairs   []pair // by hash, then row
}

// NewOrder sorts a spine by its join keys: one column for each, all of n rows and without nulls.
func NewOrder(columns []arrow.Array, n int) (*Order, error) {
	return newOrder(columns, n, ^uint64(0))
}

// newOrder keeps only the bits of mask of each hash, so that tests can make keys collide.
func newOrder(columns []arrow.Array, n int, mask uint64) (*Order, error) {
	if n > maxRows {
		return nil, waybill.Errorf(waybill.TooLarge, "the spine has %d rows; at most %d", n, maxRows)
	}
	k, err := newKeys(columns, n)
	if err != nil {
		return nil, err
	}
	return &Order{columns, k, sortedPairs(k.hash(n), mask)}, nil
}

// Rows is how many rows the spine has.
func (o *Order) Rows() int { return len(o.pairs) }

// within returns the pairs with first ≤ hash ≤ last.
func (o *Order) within(first, last uint64) []pair {
	from := sort.Search(len(o.pairs), func(i int) bool { return o.pairs[i].hash >= first })
	to := from + sort.Search(len(o.pairs)-from, func(i int) bool { return o.pairs[from+i].hash > last })
	return o.pairs[from:to]
}

// sortedPairs sorts rows by hash, those of equal hash by row: a radix sort of one byte after another.
func sortedPairs(hashes []uint64, mask uint64) []pair {
	in, out := make([]pair, len(hashes)), make([]pair, len(hashes))
	var counts [8][256]int32
	for i, h := range hashes {
		h &= mask
		in[i] = pair{h, int32(i)}
		for b := range counts {
			counts[b][byte(h>>(8*b))]++
		}
	}
	for b := range counts {
		c := &counts[b]
		if len(in) > 0 && c[byte(in[0].hash>>(8*b))] == int32(len(in)) {
			continue // all have the same byte here
		}
		at := int32(0)
		for v, n := range c {
			c[v] = at
			at += n
		}
		for _, p := range in {
			v := byte(p.hash >> (8 * b))
			out[c[v]] = p
			c[v]++
		}
		in, out = out, in
	}
	return in
}
