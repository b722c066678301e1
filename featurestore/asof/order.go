package asof

import (
	"cmp"
	"runtime"
	"slices"
	"sort"
	"sync"

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
	stretches(n, stretch, func(from, to int) {
		for i := from; i < to; i++ {
			o.hashes[i], o.rows[i] = pairs[i].hash, pairs[i].row
		}
	})
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

// sortedPairs sorts rows by hash, those of equal hash by row: into 256 buckets by the first byte of the hash, which are then
// sorted by themselves, in parallel and in the processor's cache.
func sortedPairs(hashes []uint64, mask uint64) []pair {
	out := make([]pair, len(hashes))
	var ends [256]int32
	for _, h := range hashes {
		ends[h&mask>>56]++
	}
	at, longest := int32(0), int32(0)
	for v, n := range ends {
		ends[v], at, longest = at, at+n, max(longest, n)
	}
	for i, h := range hashes {
		h &= mask
		v := h >> 56
		out[ends[v]] = pair{h, int32(i)}
		ends[v]++
	}
	stretches(len(ends), 1, func(from, to int) {
		scratch := make([]pair, longest)
		for v := from; v < to; v++ {
			first := int32(0)
			if v > 0 {
				first = ends[v-1]
			}
			sortBucket(out[first:ends[v]], scratch)
		}
	})
	return out
}

// sortBucket sorts pairs whose hashes begin with the same byte, and which stand in the order of their rows: a radix sort by
// the next three bytes, one after another, and then the few whose first halves are the same and whose second are not.
func sortBucket(bucket, scratch []pair) {
	in, out := bucket, scratch[:len(bucket)]
	for shift := 32; shift < 56; shift += 8 {
		var counts [256]int32
		for i := range in {
			counts[byte(in[i].hash>>shift)]++
		}
		if len(in) > 0 && counts[byte(in[0].hash>>shift)] == int32(len(in)) {
			continue // all have the same byte here
		}
		at := int32(0)
		for v, n := range counts {
			counts[v] = at
			at += n
		}
		for _, p := range in {
			v := byte(p.hash >> shift)
			out[counts[v]] = p
			counts[v]++
		}
		in, out = out, in
	}
	if len(in) > 0 && &in[0] != &bucket[0] {
		copy(bucket, in)
	}
	for i := 0; i < len(bucket); {
		end, one := i+1, true
		for end < len(bucket) && bucket[end].hash>>32 == bucket[i].hash>>32 {
			one = one && bucket[end].hash == bucket[i].hash
			end++
		}
		if !one {
			slices.SortFunc(bucket[i:end], func(a, b pair) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.row, b.row)) })
		}
		i = end
	}
}

// stretch is from how many elements on another goroutine is worth while.
const stretch = 1 << 14

// stretches calls f with stretches of 0 … n, one for each processor at most, at the same time.
func stretches(n, least int, f func(from, to int)) {
	k := max(1, min(runtime.GOMAXPROCS(0), n/least))
	var wg sync.WaitGroup
	for i := range k {
		wg.Go(func() { f(n*i/k, n*(i+1)/k) })
	}
	wg.Wait()
}
