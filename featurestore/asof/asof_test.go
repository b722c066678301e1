package asof_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore/asof"
)

// historyRow is one row as the oracle sees it. Key and features are Go values; nil is null.
type historyRow struct {
	key                   []any
	event, knowledge, seq int64
	features              []any
}

type spineRow struct {
	key []any
	at  int64
}

// rules are what a join asks for.
type rules struct {
	ttl, delay, through int64
	cutoff              *int64
}

// oracle is the join by its definition: for every row of the spine a search through all of the history, in the order in
// which it was written.
func oracle(spine []spineRow, history []historyRow, r rules) []int {
	out := make([]int, len(spine))
	for i, s := range spine {
		out[i] = -1
		known := s.at + r.delay
		if r.cutoff != nil {
			known = *r.cutoff
		}
		for j, h := range history {
			if !reflect.DeepEqual(h.key, s.key) || h.event > s.at || r.ttl > 0 && h.event < s.at-r.ttl || h.knowledge > known || r.through > 0 && h.seq > r.through {
				continue
			}
			if out[i] < 0 {
				out[i] = j
				continue
			}
			w := history[out[i]]
			if h.event > w.event || h.event == w.event && (h.knowledge > w.knowledge || h.knowledge == w.knowledge && h.seq >= w.seq) {
				out[i] = j
			}
		}
	}
	return out
}

var featureTypes = []arrow.DataType{arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.String, arrow.FixedWidthTypes.Boolean, arrow.PrimitiveTypes.Int32,
	arrow.ListOf(arrow.PrimitiveTypes.Int64), arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32), arrow.BinaryTypes.Binary}

// keyTypes are types of join keys with generators of few values, so that keys meet.
var keyTypes = []struct {
	dt  arrow.DataType
	gen *rapid.Generator[any]
}{
	{arrow.PrimitiveTypes.Int64, rapid.Map(rapid.Int64Range(-2, 2), func(v int64) any { return v })},
	{arrow.BinaryTypes.String, rapid.Map(rapid.SampledFrom([]string{"", "a", "a\x00", "warehouse-1", "warehouse-12"}), func(v string) any { return v })},
	{arrow.FixedWidthTypes.Boolean, rapid.Map(rapid.Bool(), func(v bool) any { return v })},
	{arrow.PrimitiveTypes.Int32, rapid.Map(rapid.Int32Range(0, 3), func(v int32) any { return v })},
	{arrow.PrimitiveTypes.Float64, rapid.Map(rapid.SampledFrom([]float64{0, 1.5, -1.5}), func(v float64) any { return v })},
	{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, rapid.Map(rapid.Int64Range(0, 2), func(v int64) any { return arrow.Timestamp(v) })},
}

func appendAny(b array.Builder, v any) {
	if v == nil {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.Int64Builder:
		b.Append(v.(int64))
	case *array.Int32Builder:
		b.Append(v.(int32))
	case *array.Float64Builder:
		b.Append(v.(float64))
	case *array.Float32Builder:
		b.Append(v.(float32))
	case *array.StringBuilder:
		b.Append(v.(string))
	case *array.BinaryBuilder:
		b.Append([]byte(v.(string)))
	case *array.BooleanBuilder:
		b.Append(v.(bool))
	case *array.TimestampBuilder:
		b.Append(v.(arrow.Timestamp))
	case *array.ListBuilder:
		b.Append(true)
		for _, x := range v.([]any) {
			appendAny(b.ValueBuilder(), x)
		}
	case *array.FixedSizeListBuilder:
		b.Append(true)
		for _, x := range v.([]any) {
			appendAny(b.ValueBuilder(), x)
		}
	default:
		panic(fmt.Sprintf("no builder for %T", b))
	}
}

func columnOf(dt arrow.DataType, n int, at func(int) any) arrow.Array {
	b := array.NewBuilder(memory.DefaultAllocator, dt)
	defer b.Release()
	for i := range n {
		appendAny(b, at(i))
	}
	return b.NewArray()
}

func timeType() arrow.DataType { return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"} }

func schemaOf(keys []arrow.DataType) *arrow.Schema {
	var fields []arrow.Field
	for i, k := range keys {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("k", i), Type: k})
	}
	for i, f := range featureTypes {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("f", i), Type: f, Nullable: true})
	}
	return arrow.NewSchema(append(fields, arrow.Field{Name: "event", Type: timeType()}, arrow.Field{Name: "knowledge", Type: timeType()},
		arrow.Field{Name: "seq", Type: arrow.PrimitiveTypes.Int64}), nil)
}

func recordOf(keys []arrow.DataType, rows []historyRow) arrow.Record {
	var cols []arrow.Array
	for k, dt := range keys {
		cols = append(cols, columnOf(dt, len(rows), func(i int) any { return rows[i].key[k] }))
	}
	for f, dt := range featureTypes {
		cols = append(cols, columnOf(dt, len(rows), func(i int) any { return rows[i].features[f] }))
	}
	cols = append(cols, columnOf(timeType(), len(rows), func(i int) any { return arrow.Timestamp(rows[i].event) }),
		columnOf(timeType(), len(rows), func(i int) any { return arrow.Timestamp(rows[i].knowledge) }),
		columnOf(arrow.PrimitiveTypes.Int64, len(rows), func(i int) any { return rows[i].seq }))
	return array.NewRecord(schemaOf(keys), cols, int64(len(rows)))
}

func drawFeatures(t *rapid.T) []any {
	null := func(v any) any {
		if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
			return nil
		}
		return v
	}
	ints := []any{}
	for range rapid.IntRange(0, 2).Draw(t, "list") {
		ints = append(ints, null(rapid.Int64Range(0, 9).Draw(t, "element")))
	}
	return []any{null(float64(rapid.IntRange(0, 99).Draw(t, "f64"))), null(rapid.StringN(0, 4, 8).Draw(t, "text")), null(rapid.Bool().Draw(t, "bool")),
		null(rapid.Int32().Draw(t, "i32")), null(ints), null([]any{float32(rapid.IntRange(0, 9).Draw(t, "v0")), float32(1)}), null(rapid.StringN(0, 4, 8).Draw(t, "bytes"))}
}

// world is a random history of several commits, some late, some with corrections of others, and a spine with duplicates
// and with times that meet event times, knowledge times and the ends of the ttl, or miss them by a microsecond.
type world struct {
	keys    []arrow.DataType
	history []historyRow
	spine   []spineRow
	rules   rules
}

func drawWorld(t *rapid.T) world {
	var w world
	var gens []*rapid.Generator[any]
	for range rapid.IntRange(1, 2).Draw(t, "key columns") {
		k := rapid.SampledFrom(keyTypes).Draw(t, "key type")
		w.keys, gens = append(w.keys, k.dt), append(gens, k.gen)
	}
	key := func() []any {
		var out []any
		for _, g := range gens {
			out = append(out, g.Draw(t, "key"))
		}
		return out
	}
	const unit = 10 // µs between the times that are drawn: there is room for ± 1 between them
	knowledge := int64(0)
	for seq := range rapid.IntRange(0, 6).Draw(t, "commits") {
		knowledge += unit * int64(rapid.IntRange(0, 3).Draw(t, "pause"))
		for range rapid.IntRange(1, 8).Draw(t, "rows") {
			w.history = append(w.history, historyRow{key(), unit * int64(rapid.IntRange(0, 8).Draw(t, "event")), knowledge, int64(seq + 1), drawFeatures(t)})
		}
	}
	w.rules = rules{ttl: unit * int64(rapid.IntRange(0, 4).Draw(t, "ttl")), delay: unit * int64(rapid.IntRange(0, 2).Draw(t, "delay")),
		through: int64(rapid.IntRange(0, 7).Draw(t, "through"))}
	if rapid.Bool().Draw(t, "fixed cut-off") {
		at := unit*int64(rapid.IntRange(-1, 12).Draw(t, "cut-off")) + int64(rapid.IntRange(-1, 1).Draw(t, "cut-off ±"))
		w.rules.cutoff = &at
	}
	for range rapid.IntRange(0, 20).Draw(t, "spine") {
		if len(w.spine) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 {
			w.spine = append(w.spine, w.spine[rapid.IntRange(0, len(w.spine)-1).Draw(t, "which")])
			continue
		}
		w.spine = append(w.spine, spineRow{key(), unit*int64(rapid.IntRange(-1, 12).Draw(t, "at")) + int64(rapid.IntRange(-1, 1).Draw(t, "±"))})
	}
	return w
}

// sorters cuts the history at commits into sources, each a sorter of its own.
func (w *world) sorters(t *rapid.T, c asof.SorterConfig) (out []asof.Source, spilled int, closeAll func()) {
	var all []*asof.Sorter
	add := func(rows []historyRow) {
		s := asof.NewSorter(schemaOf(w.keys), c)
		all = append(all, s)
		for len(rows) > 0 {
			n := rapid.IntRange(1, len(rows)).Draw(t, "batch")
			if err := s.Add(recordOf(w.keys, rows[:n])); err != nil {
				t.Fatal(err)
			}
			rows = rows[n:]
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		spilled += s.Spilled()
		var columns []int
		for i := range featureTypes {
			columns = append(columns, len(w.keys)+i)
		}
		out = append(out, s.Source(columns))
	}
	from := 0
	for i := 1; i <= len(w.history); i++ {
		if i == len(w.history) || w.history[i].seq != w.history[i-1].seq && rapid.IntRange(0, 2).Draw(t, "cut") == 0 {
			add(w.history[from:i])
			from = i
		}
	}
	return out, spilled, func() {
		for _, s := range all {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (w *world) request(t *rapid.T, mask uint64, c *asof.SorterConfig) asof.Request {
	r := asof.Request{TTL: w.rules.ttl, Delay: w.rules.delay, Cutoff: w.rules.cutoff, Through: w.rules.through, Types: featureTypes, Winners: true, At: []int64{}}
	var cols []arrow.Array
	for k, dt := range w.keys {
		cols = append(cols, columnOf(dt, len(w.spine), func(i int) any { return w.spine[i].key[k] }))
	}
	for _, s := range w.spine {
		r.At = append(r.At, s.at)
	}
	if err := asof.Masked(mask, cols, len(w.spine), &r, c); err != nil {
		t.Fatal(err)
	}
	return r
}

// check compares a result with what the oracle says; it tells which rows won when that was asked for, and not otherwise.
func (w *world) check(t *rapid.T, res *asof.Result, winners bool) {
	want := oracle(w.spine, w.history, w.rules)
	if (res.Event != nil) != winners || (res.Seq != nil) != winners {
		t.Fatalf("%d and %d winners, asked for: %t", len(res.Event), len(res.Seq), winners)
	}
	for f, dt := range featureTypes {
		col := columnOf(dt, len(w.spine), func(i int) any {
			if want[i] < 0 {
				return nil
			}
			return w.history[want[i]].features[f]
		})
		if !array.Equal(col, res.Columns[f]) {
			t.Fatalf("column %s:\n got %s\nwant %s\nrules %+v", dt, res.Columns[f], col, w.rules)
		}
	}
	for i, j := range want {
		if res.Found[i] != (j >= 0) {
			t.Fatalf("spine row %d: found %v; want row %d", i, res.Found[i], j)
		}
		if !winners {
			continue
		}
		var event, seq int64
		if j >= 0 {
			event, seq = w.history[j].event, w.history[j].seq
		}
		if res.Event[i] != event || res.Seq[i] != seq {
			t.Fatalf("spine row %d: event %d of commit %d; want row %d", i, res.Event[i], res.Seq[i], j)
		}
	}
}

// Random histories and spines: whatever the number of sources, parts, workers, bytes of memory and colliding hashes, the
// result is the oracle's.
func TestJoin_IsTheOracle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spills := 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		c := asof.SorterConfig{Keys: len(w.keys), Dir: dir, PartRows: rapid.IntRange(1, 10).Draw(t, "part rows")}
		if rapid.IntRange(0, 4).Draw(t, "tiny") == 0 {
			c.Budget = 1
		}
		mask := rapid.SampledFrom([]uint64{math.MaxUint64, 0xF << 60, 1 << 63, 0}).Draw(t, "mask")
		if mask == 0 {
			mask = 1 // every key has the hash 0 or 1
		}
		r := w.request(t, mask, &c)
		sources, n, done := w.sorters(t, c)
		defer done()
		spills += n
		r.Sources = sources
		for _, workers := range []int{1, 3} {
			r.Workers, r.Winners = workers, rapid.Bool().Draw(t, "winners")
			res, err := asof.Join(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			w.check(t, res, r.Winners)
		}
	})
	if spills == 0 {
		t.Error("no case spilled; the budget does not bind")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%d spilled folders are left, %v", len(left), err)
	}
}

// A history that was brought in late: no row was known at any spine row's own time but the very first one. The walk back
// must not look at every row for every row of the spine.
func TestJoin_LateHistoryIsNotQuadratic(t *testing.T) {
	t.Parallel()
	const n = 300_000
	rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.PrimitiveTypes.Int64}, {Name: "event", Type: timeType()}, {Name: "knowledge", Type: timeType()},
		{Name: "seq", Type: arrow.PrimitiveTypes.Int64}}, nil), []arrow.Array{
		columnOf(arrow.PrimitiveTypes.Int64, n, func(int) any { return int64(7) }),
		columnOf(timeType(), n, func(i int) any { return arrow.Timestamp(i) }),
		columnOf(timeType(), n, func(i int) any {
			if i == 0 {
				return arrow.Timestamp(0)
			}
			return arrow.Timestamp(10 * n)
		}),
		columnOf(arrow.PrimitiveTypes.Int64, n, func(i int) any { return int64(min(i, 1) + 1) }),
	}, n)
	s := asof.NewSorter(rec.Schema(), asof.SorterConfig{Keys: 1})
	if err := s.Add(rec); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	order, err := asof.NewOrder([]arrow.Array{columnOf(arrow.PrimitiveTypes.Int64, n, func(int) any { return int64(7) })}, n)
	if err != nil {
		t.Fatal(err)
	}
	at := make([]int64, n)
	for i := range at {
		at[i] = int64(i)
	}
	res, err := asof.Join(context.Background(), asof.Request{Order: order, At: at, Winners: true, Sources: []asof.Source{s.Source(nil)}}) // n²/2 would take minutes
	if err != nil {
		t.Fatal(err)
	}
	for i := range at {
		if !res.Found[i] || res.Event[i] != 0 {
			t.Fatalf("row %d: %v, event %d", i, res.Found[i], res.Event[i])
		}
	}
}

func TestJoin_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ints := columnOf(arrow.PrimitiveTypes.Int64, 2, func(i int) any { return int64(i) })
	nulls := columnOf(arrow.PrimitiveTypes.Int64, 2, func(int) any { return nil })
	if _, err := asof.NewOrder([]arrow.Array{nulls}, 2); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("null keys: %v", err)
	}
	if _, err := asof.NewOrder([]arrow.Array{columnOf(arrow.ListOf(arrow.PrimitiveTypes.Int64), 1, func(int) any { return nil })}, 1); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("keys that are lists: %v", err)
	}
	order, err := asof.NewOrder([]arrow.Array{ints}, 2)
	if err != nil {
		t.Fatal(err)
	}
	text := columnOf(arrow.BinaryTypes.String, 1, func(int) any { return "a" })
	down := columnOf(arrow.PrimitiveTypes.Int64, 200, func(i int) any { return int64(i) }) // not by hash
	for name, c := range map[string]struct {
		source fixed
		want   waybill.Code
	}{
		"other types of keys": {fixed{asof.Heads{Keys: []arrow.Array{text}, Event: []int64{0}, Knowledge: []int64{0}, Seq: []int64{1}}, nil}, waybill.Invalid},
		"more keys":           {fixed{asof.Heads{Keys: []arrow.Array{ints, ints}, Event: []int64{0, 0}, Knowledge: []int64{0, 0}, Seq: []int64{1, 1}}, nil}, waybill.Invalid},
		"not sorted":          {fixed{asof.Heads{Keys: []arrow.Array{down}, Event: make([]int64, 200), Knowledge: make([]int64, 200), Seq: make([]int64, 200)}, nil}, waybill.Corrupt},
		"cannot be read":      {fixed{err: waybill.Errorf(waybill.Unavailable, "away")}, waybill.Unavailable},
	} {
		if _, err := asof.Join(ctx, asof.Request{Order: order, At: []int64{1, 2}, Sources: []asof.Source{&c.source}}); waybill.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := asof.Join(gone, asof.Request{Order: order, At: []int64{1, 2}, Sources: []asof.Source{&fixed{}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// fixed is a source of one part.
type fixed struct {
	heads asof.Heads
	err   error
}

func (f *fixed) Parts() []asof.Part                                          { return []asof.Part{asof.PartOf(0, 0)} }
func (f *fixed) Heads(context.Context, int) (asof.Heads, error)              { return f.heads, f.err }
func (f *fixed) Columns(context.Context, int) ([]arrow.Array, func(), error) { return nil, nil, nil }
func (f *fixed) All(context.Context, int) (asof.Heads, []arrow.Array, error) {
	return f.heads, nil, f.err
}

// The hash is part of the format of history files.
func TestHash_NeverChanges(t *testing.T) {
	t.Parallel()
	a := columnOf(arrow.PrimitiveTypes.Int64, 2, func(i int) any { return int64(i) })
	b := columnOf(arrow.BinaryTypes.String, 2, func(i int) any { return []string{"", "warehouse-12"}[i] })
	c := columnOf(arrow.FixedWidthTypes.Boolean, 2, func(i int) any { return i == 1 })
	d := columnOf(arrow.PrimitiveTypes.Int32, 2, func(i int) any { return int32(-i) })
	got, err := asof.Hash([]arrow.Array{a, b, c, d}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint64{0x2130748aaac80268, 0x29278aae9d3e5e63}; !reflect.DeepEqual(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// The search through minima finds what a walk would.
func TestLastKnown_IsTheWalk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 63, 64, 65, 4095, 4096, 4097, 9000}).Draw(t, "rows")
		knowledge := make([]int64, n)
		for i := range knowledge {
			knowledge[i] = 5
		}
		for range rapid.IntRange(0, 4).Draw(t, "known") {
			knowledge[rapid.IntRange(0, n-1).Draw(t, "where")] = int64(rapid.IntRange(0, 4).Draw(t, "when"))
		}
		hi := rapid.IntRange(1, n).Draw(t, "hi")
		lo := rapid.IntRange(0, hi-1).Draw(t, "lo")
		cutoff := int64(rapid.IntRange(0, 5).Draw(t, "cut-off"))
		want := hi - 1
		for want >= lo && knowledge[want] > cutoff {
			want--
		}
		if want < lo {
			want = -1
		}
		if got := asof.LastKnown(knowledge, lo, hi, cutoff); got != want {
			t.Fatalf("row %d, want %d", got, want)
		}
	})
}
