package featurestore

import (
	"runtime"
	"sync/atomic"

	"github.com/apache/arrow/go/v17/arrow"
	"golang.org/x/sync/errgroup"
)

// fill puts the rows of a commit's file, known since knowledge (µs), on all processors: each of them takes some of the
// shards, all rows of which it puts in their order, as one writer would. The caller is the one writer.
func (o *arena) fill(recs []arrow.Record, knowledge, seq, now int64) error {
	l, v := o.online.layout, o.online.view
	check, err := newPackers(l, v, recs) // which also counts the nulls that nobody had asked for, while nobody else does
	if err != nil {
		return err
	}
	workers := min(runtime.GOMAXPROCS(0), onlineShards)
	hashes := make([][]uint64, len(recs))
	var next atomic.Int64
	if err := side(workers, func(int) error {
		for {
			n := int(next.Add(1)) - 1
			if n >= len(recs) {
				return nil
			}
			hashes[n] = make([]uint64, recs[n].NumRows())
			for i := range hashes[n] {
				hashes[n][i] = o.hash(check[n].keyOf(i))
			}
		}
	}); err != nil {
		return err
	}
	return side(workers, func(w int) error {
		rows := make([]int32, 0, packBatch)
		for n, rec := range recs {
			p, err := newPacker(l, v, rec) // has buffers of its own
			if err != nil {
				return err
			}
			put := func() {
				b, ends := p.pack(rows, knowledge, seq)
				from := 0
				for k, end := range ends {
					o.take(hashes[n][rows[k]], b[from:end], now)
					from = end
				}
				rows = rows[:0]
			}
			for i, h := range hashes[n] {
				if shardOf(h)%workers != w {
					continue
				}
				if rows = append(rows, int32(i)); len(rows) == packBatch {
					put()
				}
			}
			put()
		}
		return nil
	})
}

// side runs f for each of 0 … n−1 side by side. A panic is an error.
func side(n int, f func(i int) error) error {
	var g errgroup.Group
	for i := range n {
		g.Go(func() error { return whole(func() error { return f(i) }) })
	}
	return g.Wait()
}
