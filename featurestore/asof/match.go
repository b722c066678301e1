package asof

import (
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"

	"waybill"
)

// Heads are what the rules look at, for every row of a part: the join key's columns and the clocks in µs. The rows are
// sorted by (hash, key, event, knowledge, seq); those that tie stand in the order of their commit.
type Heads struct {
	Keys                  []arrow.Array
	Event, Knowledge, Seq []int64
	Free                  func() // called when nobody reads them any more; may be nil
}

// clocks is what the rules ask for.
type clocks struct {
	at      []int64 // of the spine's rows
	ttl     int64   // 0: no bound
	delay   int64
	cutoff  *int64 // nil: at + delay
	through int64  // 0: all commits

	hashes  scratch[uint64] // of the rows of a part
	winners scratch[best]   // in a part
}

// scratch is memory that parts use one after another.
type scratch[T any] struct{ pool sync.Pool }

// take returns n zeros and how to give them back.
func (c *scratch[T]) take(n int) ([]T, func()) {
	p, ok := c.pool.Get().(*[]T)
	if !ok || cap(*p) < n {
		s := make([]T, n, n+n/8)
		return s, func() { c.pool.Put(&s) }
	}
	s := (*p)[:n]
	clear(s)
	return s, func() { c.pool.Put(&s) }
}

// best is the winner so far for one row of the spine.
type best struct {
	event, knowledge, seq int64
	source, part, row     int32 // source −1: none yet
}

// walk is how many rows are looked at one by one before the minima of their knowledge times are made.
const walk = 32

// match meets a part with the stretch from … to of the spine, in its order, and puts the winners into out, which has a place
// for each row of the stretch, unless what is there wins over them. On a tie between sources the one that comes later wins.
func match(o *Order, from, to int, c *clocks, h *Heads, source, part int32, mask uint64, out []best) error {
	m := len(h.Event)
	if len(h.Knowledge) != m || len(h.Seq) != m || m > maxRows {
		return fmt.Errorf("a part has %d event, %d knowledge times and %d sequences", m, len(h.Knowledge), len(h.Seq))
	}
	if err := sameTypes(o.columns, h.Keys); err != nil {
		return err
	}
	ks, err := newKeys(h.Keys, m)
	if err != nil {
		return err
	}
	hashes, done := c.hashes.take(m)
	defer done()
	ks.hashInto(hashes)
	for i := range hashes {
		if hashes[i] &= mask; i > 0 && hashes[i] < hashes[i-1] {
			return waybill.Errorf(waybill.Corrupt, "a part of the history is not sorted by its keys' hashes")
		}
	}
	g := group{clocks: c, heads: h, source: source, part: part}
	if g.seqs = c.through > 0 && m > 0 && slices.Max(h.Seq) > c.through; g.seqs {
		g.knowledge = unseen(h, c.through)
	} else {
		g.knowledge = h.Knowledge
	}
	i := 0
	for k := from; k < to; {
		hash := o.hashes[k]
		if i = seek(hashes, i, hash); i == m {
			break
		}
		if hashes[i] != hash {
			for k++; k < to && o.hashes[k] == hash; k++ { // no row for these
			}
			continue
		}
		end := i + 1
		for end < m && hashes[end] == hash {
			end++
		}
		one := ks.compare(i, ks, end-1) == 0 // they are sorted by key: all are of one when the first and the last are
		for ; k < to && o.hashes[k] == hash; k++ {
			lo, hi := i, end
			if !one {
				lo, hi = subgroup(o.keys, k, ks, i, end)
			}
			if lo < hi && o.keys.compare(k, ks, lo) == 0 {
				g.pick(c.at[o.rows[k]], lo, hi, &out[k-from])
			}
		}
		i = end
	}
	return nil
}

// seek returns the first place from i on whose hash is at least h: steps that double, then a binary search.
func seek(hashes []uint64, i int, h uint64) int {
	step, hi := 1, i
	for hi < len(hashes) && hashes[hi] < h {
		i, hi = hi+1, hi+step
		step *= 2
	}
	hi = min(hi, len(hashes))
	for i < hi {
		if mid := int(uint(i+hi) / 2); hashes[mid] < h {
			i = mid + 1
		} else {
			hi = mid
		}
	}
	return i
}

// subgroup returns the rows within [lo, hi), which are of several keys with one hash, that have the spine row's key.
func subgroup(spine keys, row int, ks keys, lo, hi int) (int, int) {
	for lo < hi && spine.compare(row, ks, lo) != 0 {
		lo++
	}
	end := lo
	for end < hi && spine.compare(row, ks, end) == 0 {
		end++
	}
	return lo, end
}

// group picks winners among the rows of one part.
type group struct {
	*clocks
	heads        *Heads
	knowledge    []int64 // of heads; never, of rows beyond through
	seqs         bool    // knowledge is not that of heads
	source, part int32
	minima       [][]int64 // made when it is first needed
}

// never is the knowledge time of rows that may not be seen.
const never = 1<<63 - 1

func unseen(h *Heads, through int64) []int64 {
	out := slices.Clone(h.Knowledge)
	for i, s := range h.Seq {
		if s > through {
			out[i] = never
		}
	}
	return out
}

// pick looks for the winner among rows [lo, hi), which have the key of a row of the spine whose time is at.
func (g *group) pick(at int64, lo, hi int, out *best) {
	cutoff := at + g.delay
	if g.cutoff != nil {
		cutoff = *g.cutoff
	}
	event := g.heads.Event
	first, end := lo, hi
	for first < end { // the first row that is after at
		if mid := int(uint(first+end) / 2); event[mid] <= at {
			first = mid + 1
		} else {
			end = mid
		}
	}
	i := first - 1
	for n := 0; i >= lo && g.knowledge[i] > cutoff; i-- {
		if g.ttl > 0 && event[i] < at-g.ttl {
			return
		}
		if n++; n == walk {
			i = g.lastKnown(lo, i, cutoff)
			break
		}
	}
	if i < lo || g.ttl > 0 && event[i] < at-g.ttl {
		return
	}
	w := best{event[i], g.heads.Knowledge[i], g.heads.Seq[i], g.source, g.part, int32(i)}
	if out.source < 0 || !out.after(&w) {
		*out = w
	}
}

// after says whether b wins over o.
func (b *best) after(o *best) bool {
	if b.event != o.event {
		return b.event > o.event
	}
	if b.knowledge != o.knowledge {
		return b.knowledge > o.knowledge
	}
	return b.seq > o.seq
}

// fan is how many values one minimum stands for.
const fan = 64

// lastKnown returns the last row in [lo, hi) that was known by the cut-off, or −1: in steps of powers of fan, since a
// history that was brought in late has many rows that nobody knew at any row's own time.
func (g *group) lastKnown(lo, hi int, cutoff int64) int {
	if g.minima == nil {
		g.minima = [][]int64{g.knowledge}
		for low := g.knowledge; len(low) > 1; {
			high := make([]int64, (len(low)+fan-1)/fan)
			for i := range high {
				high[i] = slices.Min(low[i*fan : min(len(low), (i+1)*fan)])
			}
			g.minima, low = append(g.minima, high), high
		}
	}
	i, level := hi-1, 0
	for { // up and to the left, until a minimum was known
		if i < 0 {
			return -1
		}
		stop := i &^ (fan - 1)
		for i >= stop && g.minima[level][i] > cutoff {
			i--
		}
		if i >= stop {
			break
		}
		if stop == 0 || stop<<(6*level) <= lo {
			return -1
		}
		i, level = stop/fan-1, level+1
	}
	for ; level > 0; level-- { // down, always to the last that was known
		low := g.minima[level-1]
		for i = min(len(low), (i+1)*fan) - 1; low[i] > cutoff; i-- {
		}
	}
	if i < lo {
		return -1
	}
	return i
}
