package featurestore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// numbersView is a view of one number by one text.
func numbersView() *View {
	return &View{Name: "v", Entity: Entity{Name: "e", Keys: []Column{{Name: "k", Type: String}}}, Features: []Column{{Name: "n", Type: Int64}, {Name: "s", Type: String}}}
}

func (o *online) pack(key string, event, knowledge, seq, n int64) []byte {
	return o.layout.pack([]row{{key: encodeKey([]any{key}), event: event, knowledge: knowledge, values: []any{n, fmt.Sprint("text ", n)}}}, knowledge, seq)
}

func (o *online) number(t interface{ Fatalf(string, ...any) }, key string, seq, now int64) (int64, bool) {
	p, ok := o.get([]byte(encodeKey([]any{key})), seq, now)
	if !ok {
		return 0, false
	}
	n, _ := o.layout.value(&p, 0).(int64)
	if s := o.layout.value(&p, 1); s != fmt.Sprint("text ", n) {
		t.Fatalf("the row of %d has the text %v", n, s)
	}
	return n, true
}

// Many rows of one key ahead of the clock cost no more each than the first.
func TestOnline_ManyRowsAhead(t *testing.T) {
	t.Parallel()
	o := newOnline(numbersView(), 0)
	start := time.Now()
	now := start.UnixMicro()
	const n = 100_000
	for i := range int64(n) {
		o.put(o.pack("k", now+1_000_000+i, now, i+2, i), now)
		o.put(o.pack("k", now+1_000_000+i, now, i+1, -i), now) // beaten
	}
	if took := time.Since(start); took > time.Minute { // a second alone and without the race detector; a square of it would be hours
		t.Errorf("%d rows took %v", n, took)
	}
	const all = n + 2
	o.seq.Store(all)
	o.ready.Store(true)
	if n, ok := o.number(t, "k", all, now); ok {
		t.Errorf("a value from the future: %v", n)
	}
	for _, i := range []int64{0, 1, 77_777, n - 1} {
		if got, ok := o.number(t, "k", all, now+1_000_000+i); !ok || got != i {
			t.Errorf("at row %d: %v", i, got)
		}
	}
	later := start.Add(10 * time.Second)
	o.put(o.pack("k", later.UnixMicro(), later.UnixMicro(), all+1, n), later.UnixMicro())
	o.seq.Store(all + 1)
	for i := range 3 {
		o.sweep(later.Add(time.Duration(i) * 2 * time.Second))
	}
	for i := range o.shards {
		if len(o.shards[i].older) > 0 {
			t.Error("rows are kept behind a winner of which every reader knows")
		}
	}
	if _, size := o.memory(); size > 64<<10 {
		t.Errorf("one row takes %d bytes", size)
	}
}

// Whatever rows come in whatever order, a reader of a time and a sequence point gets the winner among the rows that
// both allow: as a search through all of them says.
func TestOnline_LikeASearch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type line struct {
			key           string
			event, seq, n int64
		}
		o := newOnline(numbersView(), 0)
		o.ready.Store(rapid.Bool().Draw(t, "ready"))
		const base = int64(1_000_000_000)
		now := base
		var lines []line
		key := rapid.SampledFrom([]string{"", "a", "b", "c", "dd"})
		last := int64(0)
		for seq := int64(1); seq <= int64(rapid.IntRange(1, 30).Draw(t, "commits")); seq++ {
			now += rapid.Int64Range(0, 1_500_000).Draw(t, "pause")
			for range rapid.IntRange(1, 5).Draw(t, "rows") {
				l := line{key.Draw(t, "key"), now + rapid.Int64Range(-3, 3).Draw(t, "event")*700_000, seq, int64(len(lines))}
				o.put(o.pack(l.key, l.event, now, l.seq, l.n), now)
				lines = append(lines, l)
			}
			// A reader who began before the commit was published, and one who begins after.
			for _, at := range []int64{last, seq} {
				if at == 0 || at < seq && !o.ready.Load() {
					continue
				}
				for _, k := range []string{"", "a", "b", "c", "dd", "none"} {
					when := now + rapid.Int64Range(0, 3_000_000).Draw(t, "ahead")
					var want *line
					for i := range lines {
						l := &lines[i]
						if l.key == k && l.event <= when && l.seq <= at && (want == nil || l.event > want.event || l.event == want.event && l.seq >= want.seq) {
							want = l
						}
					}
					got, ok := o.number(t, k, at, when)
					if ok != (want != nil) || ok && got != want.n {
						t.Fatalf("key %q at %d and commit %d: %d, %v; want %+v of %+v", k, when, at, got, ok, want, lines)
					}
				}
			}
			o.seq.Store(seq)
			last = seq
			o.sweep(time.UnixMicro(now))
		}
	})
}

// Readers without locks meet a writer who replaces, grows and tidies up; every value they see is whole and of its key,
// and never goes back.
func TestOnline_ReadersAndAWriter(t *testing.T) {
	t.Parallel()
	o := newOnline(numbersView(), 0)
	o.ready.Store(true)
	const keys = 3000
	deadline := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(r), 1))
			seen := make([]int64, keys)
			for time.Now().Before(deadline) {
				seq := o.seq.Load()
				i := random.IntN(keys)
				n, ok := o.number(t, fmt.Sprint("key ", i), seq, time.Now().UnixMicro())
				if ok && (n%keys != int64(i) || n < seen[i]) {
					t.Errorf("key %d has %d after %d", i, n, seen[i])
				}
				if ok {
					seen[i] = n
				}
			}
		})
	}
	seq := int64(0)
	for ; time.Now().Before(deadline); seq++ {
		now := time.Now().UnixMicro()
		for j := range int64(50) {
			i := (seq*50 + j*7) % keys
			o.put(o.pack(fmt.Sprint("key ", i), now-1, now, seq+1, seq*keys+i), now)
		}
		o.seq.Store(seq + 1)
		o.sweep(time.Now())
	}
	wg.Wait()
	for i := range 2 {
		o.sweep(deadline.Add(time.Duration(i+1) * 2 * time.Second))
	}
	if n, size := o.memory(); n != keys || size > 1<<20 {
		t.Errorf("%d keys in %d bytes after %d commits", n, size, seq)
	}
}

// What a packed row says is what went in, and bytes that were changed are refused or are still a row.
func TestRow_ThereAndBack(t *testing.T) {
	t.Parallel()
	view := &View{Entity: Entity{Keys: []Column{{Name: "a", Type: String}, {Name: "b", Type: Int64}, {Name: "c", Type: Bool}, {Name: "d", Type: Timestamp}, {Name: "e", Type: DecimalT}}}}
	for i, typ := range append(scalars(), "list<string>", "list<int32>", "list<bytes>", "list<decimal>", "list<bool>", "vector<5>", String, "list<float32>") {
		view.Features = append(view.Features, Column{Name: fmt.Sprint("f", i), Type: typ})
	}
	l := newLayout(view)
	value := func(t *rapid.T, typ Type) any {
		var draw func(typ Type) any
		draw = func(typ Type) any {
			switch typ {
			case Bool:
				return rapid.Bool().Draw(t, "bool")
			case Int32:
				return int64(rapid.Int32().Draw(t, "int32"))
			case Int64:
				return rapid.Int64().Draw(t, "int64")
			case Float32:
				return float64(rapid.Float32Range(-1e30, 1e30).Draw(t, "float32"))
			case Float64:
				return rapid.Float64().Draw(t, "float64")
			case String:
				return rapid.String().Draw(t, "string")
			case Bytes:
				return rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
			case Timestamp:
				return time.UnixMicro(rapid.Int64Range(-1e15, 1e15).Draw(t, "time")).UTC()
			case DecimalT:
				d, err := ParseDecimal(rapid.StringMatching(`-?[0-9]{1,20}\.[0-9]{1,9}`).Draw(t, "decimal"))
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			if n := typ.dim(); n > 0 {
				return rapid.SliceOfN(rapid.Float32Range(-1e9, 1e9), n, n).Draw(t, "vector")
			}
			out := []any{}
			for range rapid.IntRange(0, 4).Draw(t, "length") {
				out = append(out, draw(typ.elem()))
			}
			return out
		}
		return draw(typ)
	}
	rapid.Check(t, func(t *rapid.T) {
		var rows []row
		for range rapid.IntRange(1, 3).Draw(t, "rows") {
			r := row{event: rapid.Int64Range(-1e15, 1e16).Draw(t, "event")}
			for _, k := range view.Entity.Keys {
				r.keys = append(r.keys, value(t, k.Type))
			}
			for _, f := range view.Features {
				if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
					r.values = append(r.values, nil)
				} else {
					r.values = append(r.values, value(t, f.Type))
				}
			}
			r.key = encodeKey(r.keys)
			rows = append(rows, r)
		}
		knowledge, seq := rapid.Int64Range(0, 1e16).Draw(t, "knowledge"), rapid.Int64Range(1, 1e12).Draw(t, "seq")
		data := l.pack(rows, knowledge, seq)
		rest := data
		for i := range rows {
			var b []byte
			var err error
			if b, rest, err = l.next(rest); err != nil {
				t.Fatal(err)
			}
			got, err := l.unpack(b)
			if err != nil {
				t.Fatal(err)
			}
			want := rows[i]
			want.knowledge, want.seq = knowledge, seq
			if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
				t.Fatalf("row %d:\n%#v\n%#v", i, got, want)
			}
			if again := l.pack([]row{got}, 0, seq); !bytes.Equal(again, b) {
				t.Fatalf("row %d is packed in another way the second time", i)
			}
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes are left", len(rest))
		}
		broken := bytes.Clone(data)
		broken[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		readAll(l, broken[:rapid.IntRange(0, len(data)).Draw(t, "cut")])
	})
}

// readAll reads what claims to be packed rows; it must not panic.
func readAll(l *layout, data []byte) {
	for len(data) > 0 {
		b, rest, err := l.next(data)
		if err != nil {
			return
		}
		if _, err := l.unpack(b); err != nil {
			return
		}
		data = rest
	}
}

func FuzzRow(f *testing.F) {
	view := numbersView()
	view.Features = append(view.Features, Column{Name: "l", Type: "list<string>"}, Column{Name: "d", Type: DecimalT}, Column{Name: "b", Type: "list<int32>"}, Column{Name: "x", Type: "vector<2>"})
	l := newLayout(view)
	f.Add(l.pack([]row{{key: encodeKey([]any{"k"}), event: 5, values: []any{int64(1), "x", []any{"a", ""}, Decimal("1.5"), nil, []float32{1, 2}}}}, 7, 9))
	f.Fuzz(func(_ *testing.T, data []byte) { readAll(l, data) })
}
