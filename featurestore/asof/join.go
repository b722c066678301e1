package asof

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"golang.org/x/sync/errgroup"

	"waybill"
)

// Part is a stretch of a source: the rows whose key's hash lies from First to Last, both inclusive.
type Part struct {
	First, Last uint64
}

// Source is history that is sorted by (hash, key, event, knowledge, seq). Its parts ascend and do not overlap. It is read
// by several goroutines at once.
type Source interface {
	Parts() []Part
	// Heads reads the keys and clocks of a part.
	Heads(ctx context.Context, part int) (Heads, error)
	// Columns reads the features of a part, in the order of Request.Types. free, which may be nil, is called when nobody
	// reads them any more.
	Columns(ctx context.Context, part int) (columns []arrow.Array, free func(), err error)
	// All reads both at once. Heads.Free stands for the columns, too.
	All(ctx context.Context, part int) (Heads, []arrow.Array, error)
}

// Request is one join. All times are µs since 1970 and lie within ±2^61, as do the sums of them that the rules make.
type Request struct {
	Order   *Order
	At      []int64 // of every row of the spine
	TTL     int64   // µs; 0: values never get too old
	Delay   int64   // µs; without Cutoff, what is known within this after a row's own time is seen
	Cutoff  *int64  // what was known by then is seen, for all rows
	Through int64   // the last commit that is looked at; 0: all
	Sources []Source
	Types   []arrow.DataType // of the features
	Winners bool             // Result.Event and Seq are wanted
	Workers int              // defaults to GOMAXPROCS
	mask    uint64           // of the hashes that count; tests clear bits of it
}

// Result has as many rows as the spine, in its order.
type Result struct {
	Columns []arrow.Array // the features of the winner; null where there is none
	Found   []bool        // whether there is a winner
	Event   []int64       // of the winner, 0 where there is none; nil unless Request.Winners
	Seq     []int64       // its commit
}

// Join finds the winner for every row of the spine and returns its features. The result does not depend on how the
// history is cut into sources and parts, nor on Workers. Errors: what the sources return; Invalid when the types of the
// keys differ; Corrupt when a source is not sorted; ctx's when it ends.
func Join(ctx context.Context, r Request) (*Result, error) {
	if len(r.At) != r.Order.Rows() {
		return nil, fmt.Errorf("the spine has %d keys and %d times", r.Order.Rows(), len(r.At))
	}
	if r.Workers <= 0 {
		r.Workers = runtime.GOMAXPROCS(0)
	}
	if r.mask == 0 {
		r.mask = ^uint64(0)
	}
	out := make([]*output, len(r.Types))
	for i, t := range r.Types {
		out[i] = newOutput(t, len(r.At))
	}
	c := &clocks{at: r.At, ttl: r.TTL, delay: r.Delay, cutoff: r.Cutoff, through: r.Through}
	res := &Result{Found: make([]bool, len(r.At))}
	if r.Winners {
		res.Event, res.Seq = make([]int64, len(r.At)), make([]int64, len(r.At))
	}
	// The winners of the only source are known when a part has been met: then its features are read along with its keys, and
	// nobody has to remember which they are.
	alone := len(r.Sources) == 1 && len(out) > 0
	var winners []best // of the spine's rows in its order
	if !alone {
		winners = make([]best, len(r.At))
		stretches(len(winners), stretch, func(from, to int) { noneYet(winners[from:to]) })
	}
	for s, src := range r.Sources {
		// One source after another: two parts of different sources may meet the same row of the spine.
		if err := each(ctx, r.Workers, src.Parts(), func(ctx context.Context, p int, part Part) (err error) {
			from, to := r.Order.within(part.First, part.Last)
			if from == to {
				return nil
			}
			var h Heads
			var columns []arrow.Array
			if alone {
				h, columns, err = src.All(ctx, p)
			} else {
				h, err = src.Heads(ctx, p)
			}
			if err != nil {
				return err
			}
			if h.Free != nil {
				defer h.Free()
			}
			if !alone {
				return match(r.Order, from, to, c, &h, int32(s), int32(p), r.mask, winners[from:to])
			}
			some, done := c.winners.take(to - from)
			defer done()
			noneYet(some)
			if err := match(r.Order, from, to, c, &h, int32(s), int32(p), r.mask, some); err != nil {
				return err
			}
			res.won(r.Order.rows[from:to], some)
			rows, places := won(some, r.Order.rows[from:to], s, p)
			return putAll(out, columns, rows, places)
		}); err != nil {
			return nil, err
		}
	}
	for s, src := range r.Sources {
		if alone || len(out) == 0 {
			break
		}
		if err := each(ctx, r.Workers, src.Parts(), func(ctx context.Context, p int, part Part) error {
			first, last := r.Order.within(part.First, part.Last)
			rows, places := won(winners[first:last], r.Order.rows[first:last], s, p)
			if len(rows) == 0 {
				return nil
			}
			columns, free, err := src.Columns(ctx, p)
			if err != nil {
				return err
			}
			if free != nil {
				defer free()
			}
			return putAll(out, columns, rows, places)
		}); err != nil {
			return nil, err
		}
	}
	stretches(len(winners), stretch, func(from, to int) { res.won(r.Order.rows[from:to], winners[from:to]) })
	res.Columns = make([]arrow.Array, len(out))
	var g errgroup.Group
	g.SetLimit(r.Workers)
	for i, o := range out {
		g.Go(func() error {
			a, err := o.finish()
			if err == nil && a.Len() != len(r.At) {
				err = fmt.Errorf("the result has %d rows of %d", a.Len(), len(r.At)) // invariant 3
			}
			res.Columns[i], out[i] = a, nil
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return res, nil
}

// noneYet says of rows of the spine that nothing has won for them.
func noneYet(winners []best) {
	for i := range winners {
		winners[i].source = -1
	}
}

// won notes the winners of some rows of the spine.
func (res *Result) won(spine []int32, winners []best) {
	for i := range winners {
		w, row := &winners[i], spine[i]
		if w.source < 0 {
			continue
		}
		res.Found[row] = true
		if res.Event != nil {
			res.Event[row], res.Seq[row] = w.event, w.seq
		}
	}
}

// won returns the rows of a part that win for some rows of the spine, and for which.
func won(winners []best, spine []int32, source, part int) (rows, places []int32) {
	rows, places = make([]int32, 0, len(winners)), make([]int32, 0, len(winners))
	for i := range winners {
		if w := &winners[i]; w.source == int32(source) && w.part == int32(part) {
			rows, places = append(rows, w.row), append(places, spine[i])
		}
	}
	return rows, places
}

// putAll writes rows of every column to places of the result.
func putAll(out []*output, columns []arrow.Array, rows, places []int32) error {
	if len(columns) != len(out) {
		return fmt.Errorf("a part has %d features, not %d", len(columns), len(out))
	}
	for i, a := range columns {
		if err := out[i].put(a, rows, places); err != nil {
			return err
		}
	}
	return nil
}

// each calls f with every part, by at most workers goroutines, until one fails or ctx ends.
func each(ctx context.Context, workers int, parts []Part, f func(ctx context.Context, i int, p Part) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(workers, len(parts)) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(parts) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(ctx, i, parts[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// output gathers one column of the result. Every row is put once at most, so that goroutines need no lock for the rows of
// fixed width; the others are kept as pieces and put into order at the end.
type output struct {
	dt     arrow.DataType
	width  int     // bytes; 0: kept in pieces
	data   []byte  // width for each row
	valid  []uint8 // 1 for each row that is there and not null
	where  []int64 // of each row: piece << 32 | place, −1 for none
	mu     sync.Mutex
	pieces []arrow.Array // guarded by mu
}

func newOutput(t arrow.DataType, rows int) *output {
	o := &output{dt: t}
	if f, ok := t.(arrow.FixedWidthDataType); ok && f.BitWidth()%8 == 0 && t.ID() != arrow.FIXED_SIZE_LIST {
		o.width = f.BitWidth() / 8
		o.data, o.valid = make([]byte, rows*o.width), make([]uint8, rows)
		return o
	}
	o.where = make([]int64, rows)
	for i := range o.where {
		o.where[i] = -1
	}
	return o
}

// put writes row from[i] of a to row to[i] of the result.
func (o *output) put(a arrow.Array, from, to []int32) error {
	if !arrow.TypeEqual(a.DataType(), o.dt) {
		return waybill.Errorf(waybill.Corrupt, "the history has a feature of type %s where %s was expected", a.DataType(), o.dt)
	}
	if o.width == 0 {
		piece, err := Take(a, from)
		if err != nil {
			return err
		}
		o.mu.Lock()
		n := int64(len(o.pieces))
		o.pieces = append(o.pieces, piece)
		o.mu.Unlock()
		for i, t := range to {
			o.where[t] = n<<32 | int64(i)
		}
		return nil
	}
	d := a.Data()
	copyRows(o.data, to, d.Buffers()[1].Bytes()[d.Offset()*o.width:], from, o.width)
	if a.NullN() == 0 {
		for _, t := range to {
			o.valid[t] = 1
		}
		return nil
	}
	for i, t := range to {
		if a.IsValid(int(from[i])) {
			o.valid[t] = 1
		}
	}
	return nil
}

// finish returns the column. What stands under a null is zero, so that equal columns have equal bytes.
func (o *output) finish() (arrow.Array, error) {
	if o.width == 0 {
		return o.assemble()
	}
	nulls := 0
	bits := make([]byte, bitutil.BytesForBits(int64(len(o.valid))))
	for i, v := range o.valid {
		if v != 0 {
			bits[i/8] |= 1 << (i % 8)
			continue
		}
		nulls++
		clear(o.data[i*o.width : (i+1)*o.width])
	}
	var valid *memory.Buffer
	if nulls > 0 {
		valid = memory.NewBufferBytes(bits)
	}
	return array.MakeFromData(array.NewData(o.dt, len(o.valid), []*memory.Buffer{valid, memory.NewBufferBytes(o.data)}, nil, nulls, 0)), nil
}

func (o *output) assemble() (arrow.Array, error) {
	if len(o.pieces) == 0 {
		return array.MakeArrayOfNull(memory.DefaultAllocator, o.dt, len(o.where)), nil
	}
	all, err := array.Concatenate(o.pieces, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("join the pieces of a column: %w", err)
	}
	starts := make([]int64, len(o.pieces))
	sum := int64(0)
	for i, p := range o.pieces {
		starts[i] = sum
		sum += int64(p.Len())
	}
	o.pieces = nil
	at := make([]int32, len(o.where))
	for i, w := range o.where {
		if at[i] = -1; w >= 0 {
			at[i] = int32(starts[w>>32] + w&(1<<32-1))
		}
	}
	return Take(all, at)
}
