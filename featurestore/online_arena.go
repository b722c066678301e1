package featurestore

import (
	"bytes"
	"context"
	"hash/maphash"
	"iter"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"waybill"
)

// inMemory is the home in a hub's own memory.
type inMemory struct{}

// arena holds the rows of one view version in memory. One goroutine writes at a time (online.lock); any number read.
type arena struct {
	online *online
	seed   maphash.Seed
	shards [onlineShards]shard

	// The writer's own: online.seq at the last sweep, and when that was. At the next, no reader is that old any more.
	swept   int64
	sweptAt time.Time
}

// The sizes of the parts. A shard is what is copied at once when memory is tidied up.
const (
	onlineShards = 64
	firstSlab    = 1 << 10
	firstIndex   = 8
	slabBits     = 18 // a slab has at most 256 KiB, except one that holds a single larger row
	tagBits      = 16
	maxGarbage   = 4 // a shard is tidied up when its garbage is more than 1/4 of what lives in it
	minGarbage   = 4 << 10
)

// settle is how long after its event time a row may still be in the future of a reader, who took his time a little earlier.
// It is also how long a reader may take between his sequence point and his last row.
const settle = time.Second

// shard holds the rows of some of the keys. Rows lie one after another in slabs without pointers, which the garbage
// collector passes over. A slot of the index is a hash tag and where a row lies; a row that was published never changes
// and never moves within its generation. So readers need no lock: they load the generation and then the slot.
type shard struct {
	gen atomic.Pointer[generation]

	// The writer's own.
	keys, used int // keys; bytes of the newest slab that are taken
	live, dead int // bytes of rows that something points to, and of all else

	mu    sync.RWMutex
	older map[uint64][]place // by hash of the key: rows that newer ones beat, in the winner's order; written under mu
}

// generation is an index and the slabs its slots point into. Slabs are added by replacing the generation; the index is
// shared between generations until it is full.
type generation struct {
	index []atomic.Uint64 // open addressing, linear probing; 0 is empty
	slabs [][]byte
}

// place says where a row lies: the slab's number, then the offset in it.
type place uint64

func placeOf(slab, at int) place     { return place(slab)<<slabBits | place(at) }
func (p place) slot(h uint64) uint64 { return h>>(64-tagBits)<<(64-tagBits) | uint64(p+1) }
func placeIn(slot uint64) place      { return place(slot<<tagBits>>tagBits) - 1 }

func (g *generation) row(p place) []byte {
	slab := int(p >> slabBits)
	if slab >= len(g.slabs) {
		return nil // put there after the generation was loaded
	}
	return g.slabs[slab][p&(1<<slabBits-1):]
}

// home is where the probing for a hash begins.
func (g *generation) home(h uint64) int {
	return int(uint64(uint32(h)) * uint64(len(g.index)) >> 32)
}

func (inMemory) open(o *online) rows { return &arena{online: o, seed: maphash.MakeSeed()} }

func (inMemory) find(_ context.Context, now int64, asks []ask) error {
	for i := range asks {
		a := &asks[i]
		if !a.online.ready.Load() {
			return a.online.unread()
		}
		if a.seq == newest {
			a.seq = a.online.seq.Load()
		}
	}
	for i := range asks {
		a := &asks[i]
		rows, ok := a.online.rows.(*arena)
		if !ok {
			return waybill.Errorf(waybill.Internal, "the rows of %s are not in memory", a.online.key.ref)
		}
		from := 0
		for j, end := range a.ends {
			p, found := rows.get(a.keys[from:end], a.seq, now)
			a.hits[j] = a.online.judge(p, found, now)
			from = end
		}
	}
	return nil
}

func (o *arena) hash(key []byte) uint64 { return maphash.Bytes(o.seed, key) }

// shardOf is the number of the shard that has a hash's rows.
func shardOf(h uint64) int { return int(h >> 32 % onlineShards) }

func (o *arena) shard(h uint64) *shard { return &o.shards[shardOf(h)] }

// begin tidies up: there is nothing else to find out about one's own memory.
func (o *arena) begin(_ context.Context, now time.Time) (have int64, err error) {
	o.sweep(now)
	if seq := o.online.seq.Load(); seq > 0 || o.online.ready.Load() {
		return seq, nil
	}
	return -1, nil
}

// publish has nothing to do: rows are hidden by their commit until online.seq shows it.
func (o *arena) publish(context.Context, int64) error { return nil }

// get returns the winner for a key among the rows of the commits up to seq whose event time is not after now (µs), and
// whether there is one. Readers of the past (a row ahead of the clock, a commit that is being applied) take a lock; all
// others take none.
func (o *arena) get(key []byte, seq, now int64) (packed, bool) {
	h := o.hash(key)
	s := o.shard(h)
	p, _, found := s.newest(h, key)
	if !found || p.event <= now && p.seq <= seq {
		return p, found
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.gen.Load()
	older := s.older[h]
	for i := len(older) - 1; i >= 0; i-- {
		if p := parseRow(g.row(older[i])); p.event <= now && p.seq <= seq && bytes.Equal(p.key, key) {
			return p, true
		}
	}
	return packed{}, false
}

// newest finds the row that the index has for a key, and where it lies.
func (s *shard) newest(h uint64, key []byte) (packed, place, bool) {
again:
	g := s.gen.Load()
	if g == nil {
		return packed{}, 0, false
	}
	for i := g.home(h); ; {
		slot := g.index[i].Load()
		if slot == 0 {
			return packed{}, 0, false
		}
		if slot>>(64-tagBits) == h>>(64-tagBits) {
			b := g.row(placeIn(slot))
			if b == nil {
				goto again
			}
			if p := parseRow(b); bytes.Equal(p.key, key) {
				return p, placeIn(slot), true
			}
		}
		if i++; i == len(g.index) {
			i = 0
		}
	}
}

// put takes a packed row in; the caller is the one writer. What is beaten stays for readers who may not see the winner
// yet: those of an earlier time or of an earlier commit. How much that is, is bounded by what is accepted ahead of the
// clock and by one commit. Before the log was here once there are no readers.
func (o *arena) put(_ context.Context, b []byte, _ uint32, now int64) error {
	p := parseRow(b)
	o.take(o.hash(p.key), b[:o.online.layout.size(b, &p)], now)
	return nil
}

// take is put for a row of which the hash of its key is known. Shards are written independently of each other.
func (o *arena) take(h uint64, b []byte, now int64) {
	p := parseRow(b)
	s := o.shard(h)
	old, at, found := s.newest(h, p.key)
	if !found {
		s.insert(o, h, s.store(b))
		return
	}
	settled := now - settle.Microseconds()
	switch {
	case old.beats(&p):
		if o.past(&old, settled) {
			return
		}
		s.mu.Lock()
		s.keep(o, h, s.store(b), settled)
		s.mu.Unlock()
	case p.ties(&old) || o.past(&p, settled):
		s.replace(h, at, s.store(b))
		s.discard(o, at)
	default:
		s.mu.Lock() // whoever sees the new row and may not finds the old one
		s.keep(o, h, at, settled)
		s.replace(h, at, s.store(b))
		s.mu.Unlock()
	}
	s.tidy(o)
}

// past says whether every reader may see a row: then what it beats is of no use to any of them.
func (o *arena) past(r *packed, settled int64) bool {
	return r.event <= settled && (r.seq <= o.swept || !o.online.ready.Load())
}

// discard counts a row that nothing points to any more.
func (s *shard) discard(o *arena, p place) {
	b := s.gen.Load().row(p)
	r := parseRow(b)
	n := o.online.layout.size(b, &r)
	s.live, s.dead = s.live-n, s.dead+n
}

// store copies a row into the newest slab. Readers of the generation can reach bytes that are being written, but no slot
// points to them before they are.
func (s *shard) store(b []byte) place {
	g := s.gen.Load()
	if g == nil {
		g = &generation{index: make([]atomic.Uint64, firstIndex)}
	}
	n := len(g.slabs)
	if n == 0 || len(g.slabs[n-1])-s.used < len(b) {
		size := firstSlab
		if n > 0 {
			s.dead += len(g.slabs[n-1]) - s.used
			size = min(1<<slabBits, 2*len(g.slabs[n-1]))
		}
		g = &generation{index: g.index, slabs: append(slices.Clip(g.slabs), make([]byte, max(size, len(b))))}
		s.gen.Store(g)
		s.used = 0
		n++
	}
	at := s.used
	copy(g.slabs[n-1][at:], b)
	s.used += len(b)
	s.live += len(b)
	return placeOf(n-1, at)
}

// insert adds a key that is not there.
func (s *shard) insert(o *arena, h uint64, p place) {
	g := s.gen.Load()
	if s.keys++; s.keys*8 > len(g.index)*7 {
		g = s.grow(o, g, s.keys+s.keys/4+firstIndex)
	}
	g.add(h, p)
}

func (g *generation) add(h uint64, p place) {
	i := g.home(h)
	for g.index[i].Load() != 0 {
		if i++; i == len(g.index) {
			i = 0
		}
	}
	g.index[i].Store(p.slot(h))
}

// replace points the slot of a row that is there to another of the same key.
func (s *shard) replace(h uint64, old, p place) {
	g := s.gen.Load()
	for i := g.home(h); ; {
		if g.index[i].Load() == old.slot(h) {
			g.index[i].Store(p.slot(h))
			return
		}
		if i++; i == len(g.index) {
			i = 0
		}
	}
}

// grow makes a generation with a larger index over the same slabs.
func (s *shard) grow(o *arena, g *generation, size int) *generation {
	next := &generation{index: make([]atomic.Uint64, size), slabs: g.slabs}
	for i := range g.index {
		if slot := g.index[i].Load(); slot != 0 {
			p := placeIn(slot)
			r := parseRow(g.row(p))
			next.add(o.hash(r.key), p)
		}
	}
	s.gen.Store(next)
	return next
}

// keep puts a row that is beaten among the older ones, unless one of these beats it and is past. Of two that tie
// the later stays. The caller holds mu.
func (s *shard) keep(o *arena, h uint64, p place, settled int64) {
	if s.older == nil {
		s.older = map[uint64][]place{}
	}
	g := s.gen.Load()
	r := parseRow(g.row(p))
	list := s.older[h]
	at := sort.Search(len(list), func(i int) bool {
		q := parseRow(g.row(list[i]))
		return q.beats(&r)
	})
	if at > 0 {
		if q := parseRow(g.row(list[at-1])); q.ties(&r) && bytes.Equal(q.key, r.key) {
			s.discard(o, list[at-1])
			list[at-1] = p
			return
		}
	}
	if at < len(list) {
		if q := parseRow(g.row(list[at])); o.past(&q, settled) && bytes.Equal(q.key, r.key) {
			s.discard(o, p)
			return
		}
	}
	s.older[h] = slices.Insert(list, at, p)
}

// sweep forgets older rows that no reader can want: a later row of the key is past for all of them. It does so at most
// once in the time that a reader may take. The caller is the one writer.
func (o *arena) sweep(now time.Time) {
	if now.Sub(o.sweptAt) < settle {
		return
	}
	settled := now.Add(-settle).UnixMicro()
	for i := range o.shards {
		s := &o.shards[i]
		if len(s.older) == 0 { // only written here and in keep
			continue
		}
		s.mu.Lock()
		g := s.gen.Load()
		for h, list := range s.older {
			if kept := o.wanted(s, g, h, list, settled); len(kept) == 0 {
				delete(s.older, h)
			} else {
				s.older[h] = kept
			}
		}
		s.mu.Unlock()
		s.tidy(o)
	}
	o.swept, o.sweptAt = o.online.seq.Load(), now
}

// wanted returns the part of a list of older rows that readers may still want. Rows of two keys with one hash all stay.
func (o *arena) wanted(s *shard, g *generation, h uint64, list []place, settled int64) []place {
	key := parseRow(g.row(list[0])).key
	newest, _, found := s.newest(h, key)
	cut := 0
	for i, p := range list {
		r := parseRow(g.row(p))
		if !found || !bytes.Equal(r.key, key) {
			return list
		}
		if o.past(&r, settled) {
			cut = i
		}
	}
	if found && o.past(&newest, settled) {
		cut = len(list)
	}
	for _, p := range list[:cut] {
		s.discard(o, p)
	}
	return list[cut:]
}

// tidy copies what lives in a shard into slabs of its own when too much of it is garbage. Readers of the old generation
// keep it alive until they are done.
func (s *shard) tidy(o *arena) {
	if s.dead < minGarbage || s.dead < s.live/maxGarbage {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.gen.Load()
	// The copies are published in one step, so they go into a shard of their own first.
	fresh := shard{}
	fresh.gen.Store(&generation{index: make([]atomic.Uint64, s.keys+s.keys/4+firstIndex)})
	move := func(p place) (uint64, place) {
		b := old.row(p)
		r := parseRow(b)
		return o.hash(r.key), fresh.store(b[:o.online.layout.size(b, &r)])
	}
	for i := range old.index {
		if slot := old.index[i].Load(); slot != 0 {
			h, p := move(placeIn(slot))
			fresh.gen.Load().add(h, p)
		}
	}
	for _, list := range s.older {
		for i := range list {
			_, list[i] = move(list[i])
		}
	}
	s.used, s.live, s.dead = fresh.used, fresh.live, fresh.dead
	s.gen.Store(fresh.gen.Load())
}

// capture returns every row of the moment at which it is called.
func (o *arena) capture(context.Context, int64) iter.Seq2[[]byte, error] {
	type part struct {
		gen    *generation
		places []place
	}
	parts := make([]part, 0, onlineShards)
	for i := range o.shards {
		s := &o.shards[i]
		g := s.gen.Load()
		if g == nil {
			continue
		}
		p := part{g, make([]place, 0, s.keys)}
		for j := range g.index {
			if slot := g.index[j].Load(); slot != 0 {
				p.places = append(p.places, placeIn(slot))
			}
		}
		for _, list := range s.older {
			p.places = append(p.places, list...)
		}
		parts = append(parts, p)
	}
	return func(yield func([]byte, error) bool) {
		for _, p := range parts {
			for _, at := range p.places {
				b := p.gen.row(at)
				r := parseRow(b)
				if !yield(b[:o.online.layout.size(b, &r)], nil) {
					return
				}
			}
		}
	}
}

// reserve makes room in the indices for about as many keys. It is for a memory that nobody reads.
func (o *arena) reserve(keys int) {
	for i := range o.shards {
		n := keys / onlineShards
		o.shards[i].gen.Store(&generation{index: make([]atomic.Uint64, n+n/4+firstIndex)})
	}
}

// expect makes room in the indices for the rows of a large commit, all of which may have new keys: otherwise these would
// be made anew each time they are full, and every row looked at for its key. The caller is the one writer.
func (o *arena) expect(rows int64) {
	if rows < onlineShards*manyRows {
		return
	}
	for i := range o.shards {
		s := &o.shards[i]
		g := s.gen.Load()
		if g == nil {
			g = &generation{}
		}
		if keys := s.keys + int(rows/onlineShards); keys*8 > len(g.index)*7 {
			s.grow(o, g, keys+keys/4+firstIndex)
		}
	}
}

// manyRows is how many rows for each shard make a commit large.
const manyRows = 256

// clear empties a memory that nobody reads.
func (o *arena) clear() {
	for i := range o.shards {
		s := &o.shards[i]
		s.gen.Store(nil)
		s.keys, s.used, s.live, s.dead, s.older = 0, 0, 0, 0, nil
	}
}

// memory returns how many keys there are, and the bytes of slabs and indices.
func (o *arena) memory() (keys, size int) {
	for i := range o.shards {
		s := &o.shards[i]
		keys += s.keys
		if g := s.gen.Load(); g != nil {
			size += 8 * len(g.index)
			for _, slab := range g.slabs {
				size += len(slab)
			}
		}
	}
	return keys, size
}
