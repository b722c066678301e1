package asof

import (
	"cmp"
	"slices"
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

// Order is a spine's join keys, sorted by their hash: made once for all views with the same keys. It is never changed. A
// join goes through the spine in this order, so that it meets neither keys nor times nor winners at random.
type Order struct {
	columns []arrow.Array // the keys, in this order
	keys    keys
	hashes  []uint64
	rows    []int32 // of the spine
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
	pairs := sortedPairs(k.hash(n), mask)
	o := &Order{hashes: make([]uint64, n), rows: make([]int32, n)}
	for i, p := range pairs {
		o.hashes[i], o.rows[i] = p.hash, p.row
	}
	for _, c := range columns {
		sorted, err := Take(c, o.rows)
		if err != nil {
			return nil, err
		}
		o.columns = append(o.columns, sorted)
	}
	o.keys, err = newKeys(o.columns, n)
	return o, err
}

// Rows is how many rows the spine has.
func (o *Order) Rows() int { return len(o.rows) }

// within returns the places from … to whose hash lies between first and last, both inclusive.
func (o *Order) within(first, last uint64) (from, to int) {
	from = sort.Search(len(o.hashes), func(i int) bool { return o.hashes[i] >= first })
	return from, from + sort.Search(len(o.hashes)-from, func(i int) bool { return o.hashes[from+i] > last })
}

// sortedPairs sorts rows by hash, those of equal hash by row: a radix sort by the first half of the hash, one byte after
// another, and then the few whose first halves are the same and whose second are not.
func sortedPairs(hashes []uint64, mask uint64) []pair {
	in, out := make([]pair, len(hashes)), make([]pair, len(hashes))
	var counts [4][256]int32
	for i, h := range hashes {
		h &= mask
		in[i] = pair{h, int32(i)}
		for b := range counts {
			counts[b][byte(h>>(32+8*b))]++
		}
	}
	for b := range counts {
		c := &counts[b]
		if len(in) > 0 && c[byte(in[0].hash>>(32+8*b))] == int32(len(in)) {
			continue // all have the same byte here
		}
		at := int32(0)
		for v, n := range c {
			c[v] = at
			at += n
		}
		for _, p := range in {
			v := byte(p.hash >> (32 + 8*b))
			out[c[v]] = p
			c[v]++
		}
		in, out = out, in
	}
	for i := 0; i < len(in); {
		end, one := i+1, true
		for end < len(in) && in[end].hash>>32 == in[i].hash>>32 {
			one = one && in[end].hash == in[i].hash
			end++
		}
		if !one {
			slices.SortFunc(in[i:end], func(a, b pair) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.row, b.row)) })
		}
		i = end
	}
	return in
}
