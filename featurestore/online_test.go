package featurestore

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill"
	"waybill/internal/pgtest"
)

// numbersView is a view of one number by one text.
func numbersView() *View {
	return &View{Name: "v", Entity: Entity{Name: "e", Keys: []Column{{Name: "k", Type: String}}}, Features: []Column{{Name: "n", Type: Int64}, {Name: "s", Type: String}}}
}

func (o *online) pack(key string, event, knowledge, seq, n int64) []byte {
	return o.layout.pack([]row{{key: encodeKey([]any{key}), event: event, knowledge: knowledge, values: []any{n, fmt.Sprint("text ", n)}}}, knowledge, seq)
}

// kept is a view version's online rows in one of their homes, as a test drives them.
type kept struct {
	*online
	home home
	test interface{ Fatal(args ...any) }
}

// overHomes runs a test for every home of online rows: memory, a real Redis and a real Postgres. Outside of memory every
// step is a journey, so the test does 1 of every share of what it does in memory.
func overHomes(t *testing.T, test func(t *testing.T, h home, share int)) {
	t.Run("Memory", func(t *testing.T) {
		t.Parallel()
		test(t, inMemory{}, 1)
	})
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		test(t, newTier(t, pgtest.Redis(t)), 25)
	})
	t.Run("Postgres", func(t *testing.T) {
		t.Parallel()
		test(t, postgres{pgtest.DB(t)}, 100)
	})
}

// newTier connects to a server under an id of its own.
func newTier(t testing.TB, url string) *tier {
	t.Helper()
	h, err := openTier(context.Background(), url, waybill.NewID(time.Now()).String(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

var keptNumber atomic.Int64

// keep makes the rows of a view of its own, of which nothing is known.
func keep(t interface{ Fatal(args ...any) }, h home, v *View, ttl time.Duration, now int64) *kept {
	key := viewKey{"acme", waybill.VersionRef{Name: v.Name, Version: int(keptNumber.Add(1))}}
	k := &kept{newOnline(h, key, v, ttl), h, t}
	k.look(time.UnixMicro(now))
	return k
}

func (k *kept) must(err error) {
	if err != nil {
		k.test.Fatal(err)
	}
}

// look is what a hub does before it writes, and once in a while.
func (k *kept) look(now time.Time) {
	_, err := k.rows.begin(context.Background(), now)
	k.must(err)
}

func (k *kept) put(b []byte, nth int64, now int64) {
	k.must(k.rows.put(context.Background(), b, uint32(nth), now))
}

// flush writes what is on the way, and publishes nothing.
func (k *kept) flush() {
	switch r := k.rows.(type) {
	case *tierRows:
		for i := range r.buckets {
			k.must(r.flush(context.Background(), &r.buckets[i]))
		}
	case *postgresRows:
		k.must(r.flush(context.Background(), -1))
	}
}

func (k *kept) show(seq int64) { k.must(k.publish(context.Background(), seq)) }

// at is what a reader gets, who may also read rows that are not here whole yet.
func (k *kept) at(key string, seq, now int64) hit {
	ready := k.ready.Swap(true)
	defer k.ready.Store(ready)
	asks := []ask{{online: k.online, keys: []byte(encodeKey([]any{key})), hits: []hit{{}}, seq: seq}}
	asks[0].ends = []int{len(asks[0].keys)}
	k.must(k.home.find(context.Background(), now, asks))
	return asks[0].hits[0]
}

func (k *kept) number(key string, seq, now int64) (int64, bool) {
	h := k.at(key, seq, now)
	if h.status == NotFound {
		return 0, false
	}
	n, _ := k.layout.value(&h.packed, 0).(int64)
	if s := k.layout.value(&h.packed, 1); s != fmt.Sprint("text ", n) {
		k.test.Fatal("the row of ", n, " has the text ", s)
	}
	return n, true
}

// Many rows of one key ahead of the clock cost no more each than the first.
func TestOnline_ManyRowsAhead(t *testing.T) {
	t.Parallel()
	overHomes(t, func(t *testing.T, h home, share int) {
		start := time.Now()
		now := start.UnixMicro()
		o := keep(t, h, numbersView(), 0, now)
		n := int64(100_000 / share)
		all := n + 2
		for i := range n {
			o.put(o.pack("k", now+1_000_000+i, now, i+2, i), 0, now)
			o.put(o.pack("k", now+1_000_000+i, now, i+1, -i), 0, now) // beaten
		}
		o.show(all)
		if took := time.Since(start); took > time.Minute { // a second alone and without the race detector; a square of it would be hours
			t.Errorf("%d rows took %v", n, took)
		}
		o.ready.Store(true)
		if n, ok := o.number("k", all, now); ok {
			t.Errorf("a value from the future: %v", n)
		}
		for _, i := range []int64{0, 1, n * 7 / 9, n - 1} {
			if got, ok := o.number("k", all, now+1_000_000+i); !ok || got != i {
				t.Errorf("at row %d: %v", i, got)
			}
		}
		later := start.Add(10 * time.Second)
		o.look(later)
		o.put(o.pack("k", later.UnixMicro(), later.UnixMicro(), all+1, n), 0, later.UnixMicro())
		o.show(all + 1)
		for i := range 4 {
			o.look(later.Add(time.Duration(i) * 2 * time.Second))
		}
		left := 0
		for _, err := range o.rows.capture(context.Background(), all+1) {
			if left++; err != nil {
				t.Fatal(err)
			}
		}
		_, inPostgres := o.rows.(*postgresRows) // where they go with the next row of the key
		if left != 1 && !inPostgres {
			t.Errorf("%d rows are kept behind a winner of which every reader knows", left-1)
		}
		if a, ok := o.rows.(*arena); ok {
			if _, size := a.memory(); size > 64<<10 {
				t.Errorf("one row takes %d bytes", size)
			}
		}
	})
}

// Whatever rows come in whatever order, a reader of a time and a sequence point gets the winner among the rows that
// both allow: as a search through all of them says.
func TestOnline_LikeASearch(t *testing.T) {
	t.Parallel()
	overHomes(t, func(t *testing.T, h home, share int) {
		cases := 0
		rapid.Check(t, func(t *rapid.T) {
			if cases++; cases*share > 1000 && share > 1 {
				return
			}
			type line struct {
				key           string
				event, seq, n int64
			}
			const base = int64(1_000_000_000)
			now := base
			o := keep(t, h, numbersView(), 0, now)
			o.ready.Store(rapid.Bool().Draw(t, "ready"))
			var lines []line
			key := rapid.SampledFrom([]string{"", "a", "b", "c", "dd"})
			last := int64(0)
			check := func(at int64) {
				for _, k := range []string{"", "a", "b", "c", "dd", "none"} {
					when := now + rapid.Int64Range(0, 3_000_000).Draw(t, "ahead")
					var want *line
					for i := range lines {
						l := &lines[i]
						if l.key == k && l.event <= when && l.seq <= at && (want == nil || l.event > want.event || l.event == want.event && l.seq >= want.seq) {
							want = l
						}
					}
					got, ok := o.number(k, at, when)
					if ok != (want != nil) || ok && got != want.n {
						t.Fatalf("key %q at %d and commit %d: %d, %v; want %+v of %+v", k, when, at, got, ok, want, lines)
					}
				}
			}
			for seq := int64(1); seq <= int64(rapid.IntRange(1, 30).Draw(t, "commits")); seq++ {
				now += rapid.Int64Range(0, 1_500_000).Draw(t, "pause")
				for range rapid.IntRange(1, 5).Draw(t, "rows") {
					l := line{key.Draw(t, "key"), now + rapid.Int64Range(-3, 3).Draw(t, "event")*700_000, seq, int64(len(lines))}
					o.put(o.pack(l.key, l.event, now, l.seq, l.n), l.n, now)
					lines = append(lines, l)
				}
				o.flush()
				// A reader who began before the commit was published, before and after that, and one who begins after.
				if last > 0 && o.ready.Load() {
					check(last)
				}
				o.show(seq)
				if last > 0 && o.ready.Load() {
					check(last)
				}
				check(seq)
				last = seq
				o.look(time.UnixMicro(now))
			}
		})
	})
}

// Readers without locks meet a writer who replaces, grows and tidies up; every value they see is whole and of its key,
// and never goes back.
func TestOnline_ReadersAndAWriter(t *testing.T) {
	t.Parallel()
	overHomes(t, func(t *testing.T, h home, share int) {
		o := keep(t, h, numbersView(), 0, time.Now().UnixMicro())
		const keys = 3000
		o.show(0)
		o.ready.Store(true)
		deadline := time.Now().Add(2 * time.Second)
		var wg sync.WaitGroup
		for r := range 3 {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(r), 1))
				seen := make([]int64, keys)
				for time.Now().Before(deadline) {
					i := random.IntN(keys)
					asks := []ask{{online: o.online, keys: []byte(encodeKey([]any{fmt.Sprint("key ", i)})), hits: []hit{{}}, seq: newest}}
					asks[0].ends = []int{len(asks[0].keys)}
					if err := h.find(context.Background(), time.Now().UnixMicro(), asks); err != nil {
						t.Error(err)
						return
					}
					p := asks[0].hits[0]
					if p.status == NotFound {
						if seen[i] > 0 {
							t.Errorf("key %d is gone after %d", i, seen[i])
						}
						continue
					}
					n, _ := o.layout.value(&p.packed, 0).(int64)
					if n%keys != int64(i) || n < seen[i] || o.layout.value(&p.packed, 1) != fmt.Sprint("text ", n) {
						t.Errorf("key %d has %d after %d", i, n, seen[i])
					}
					seen[i] = n
				}
			})
		}
		seq := int64(0)
		for ; time.Now().Before(deadline); seq++ {
			now := time.Now().UnixMicro()
			for j := range int64(50) {
				i := (seq*50 + j*7) % keys
				o.put(o.pack(fmt.Sprint("key ", i), now-1, now, seq+1, seq*keys+i), j, now)
			}
			o.show(seq + 1)
			o.look(time.Now())
		}
		wg.Wait()
		for i := range 2 {
			o.look(deadline.Add(time.Duration(i+1) * 2 * time.Second))
		}
		if a, ok := o.rows.(*arena); ok {
			if n, size := a.memory(); n != keys || size > 1<<20 {
				t.Errorf("%d keys in %d bytes after %d commits", n, size, seq)
			}
		}
	})
}

// Of two rows of a key that tie the later in the commit is served, also by a hub that starts from a snapshot that was taken
// while readers might still have wanted the earlier.
func TestOnline_TiesInASnapshot(t *testing.T) {
	t.Parallel()
	overHomes(t, func(t *testing.T, h home, _ int) {
		now := time.Now().UnixMicro()
		o := keep(t, h, numbersView(), 0, now)
		o.show(0)
		o.ready.Store(true)
		for n := range int64(3) {
			o.put(o.pack("k", now, now, 1, n), n, now)
		}
		o.show(1)
		again := keep(t, h, numbersView(), 0, now)
		for b, err := range o.rows.capture(context.Background(), 1) {
			if err != nil {
				t.Fatal(err)
			}
			again.put(b, int64(fromSnapshot), now)
		}
		again.show(1)
		for _, k := range []*kept{o, again} {
			if n, ok := k.number("k", 1, now); !ok || n != 2 {
				t.Errorf("%d, %v; want the last", n, ok)
			}
		}
	})
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
