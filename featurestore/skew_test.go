package featurestore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"waybill/featurestore/asof"
	"waybill/internal/pgtest"
)

// skewCases is how many random logs are tried.
const skewCases = 10_000

// Training and serving cannot disagree: for a random log, what was read online at any time is what the join says of that
// time afterwards. Rows come late, ahead of the clock, twice for one event time, and null; some are too old.
func TestOnline_IsTheJoin(t *testing.T) {
	t.Parallel()
	overHomes(t, onlineIsTheJoin)
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		onlineIsTheJoin(t, newTier(t, pgtest.NewRedisCluster(t)[0].URL()), 100)
	})
}

func onlineIsTheJoin(t *testing.T, h home, share int) {
	const base = int64(1_700_000_000_000_000)
	when := &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	schema := arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.BinaryTypes.String}, {Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "event", Type: when}, {Name: "knowledge", Type: when}, {Name: "seq", Type: arrow.PrimitiveTypes.Int64}}, nil)
	compared, statuses := 0, map[Status]int{}
	for seed := range uint64(skewCases / share) {
		random := rand.New(rand.NewPCG(seed, 5))
		step := []int64{1, 1000, 400_000, 3_000_000}[random.IntN(4)] // µs: from ties to ages
		ttl := time.Duration(random.Int64N(3)*random.Int64N(8)*step) * time.Microsecond
		o := keep(t, h, numbersView(), ttl, base)
		if random.IntN(4) > 0 {
			o.ready.Store(true) // from the first commit on; otherwise as at a start
		}
		history := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		type read struct {
			key string
			at  int64
			hit hit
			n   any
		}
		var reads []read
		now, pause, last := base, int64(0), 1+random.Int64N(12)
		for seq := int64(1); seq <= last; seq++ {
			now += pause
			pause = random.Int64N(4) * step
			rows := make([]row, 1+random.IntN(4))
			for i := range rows {
				key := string(rune('a' + random.IntN(3)))
				r := row{key: encodeKey([]any{key}), event: now + (random.Int64N(9)-5)*step, values: []any{nil, "text"}}
				if random.IntN(4) > 0 {
					r.values[0] = random.Int64N(1e6)
				}
				rows[i] = r
				history.Field(0).(*array.StringBuilder).Append(key)
				if n, ok := r.values[0].(int64); ok {
					history.Field(1).(*array.Int64Builder).Append(n)
				} else {
					history.Field(1).AppendNull()
				}
				history.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(r.event))
				history.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(now))
				history.Field(4).(*array.Int64Builder).Append(seq)
			}
			nth := int64(0)
			for rest := o.layout.pack(rows, now, seq); len(rest) > 0; nth++ {
				b, next, err := o.layout.next(rest)
				if err != nil {
					t.Fatal(err)
				}
				o.put(b, nth, now)
				rest = next
			}
			o.show(seq)
			if o.look(time.UnixMicro(now)); seq == last {
				o.ready.Store(true)
			}
			// Reads until the next commit comes; one at the same µs would be known at the time of the read, too.
			for range random.IntN(4) {
				if !o.ready.Load() || pause == 0 && seq < last {
					break
				}
				at := now + random.Int64N(max(pause, 1))
				if seq == last {
					at += random.Int64N(12) * step
				}
				key := string(rune('a' + random.IntN(4)))
				found := o.at(key, o.seq.Load(), at)
				r := read{key, at, found, nil}
				if found.status == Present {
					r.n = o.layout.value(&found.packed, 0)
				}
				reads = append(reads, r)
			}
		}
		if len(reads) == 0 {
			continue
		}
		sorter := asof.NewSorter(schema, asof.SorterConfig{Keys: 1})
		if err := sorter.Add(history.NewRecord()); err != nil {
			t.Fatal(err)
		}
		if err := sorter.Finish(); err != nil {
			t.Fatal(err)
		}
		keys := array.NewStringBuilder(memory.DefaultAllocator)
		var at []int64
		for _, r := range reads {
			keys.Append(r.key)
			at = append(at, r.at)
		}
		order, err := asof.NewOrder([]arrow.Array{keys.NewArray()}, len(at))
		if err != nil {
			t.Fatal(err)
		}
		res, err := asof.Join(context.Background(), asof.Request{Winners: true, Order: order, At: at, TTL: ttl.Microseconds(), Sources: []asof.Source{sorter.Source([]int{1})}, Types: []arrow.DataType{arrow.PrimitiveTypes.Int64}, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		values, ok := res.Columns[0].(*array.Int64)
		if !ok {
			t.Fatalf("a column of %s", res.Columns[0].DataType())
		}
		for i, r := range reads {
			compared++
			statuses[r.hit.status]++
			got := fmt.Sprint(r.hit.status == Present, " ", r.n)
			want := fmt.Sprint(res.Found[i], " ", any(nil))
			if res.Found[i] && values.IsValid(i) {
				want = fmt.Sprint(true, " ", values.Value(i))
			}
			if got != want || res.Found[i] && (res.Event[i] != r.hit.event || res.Seq[i] != r.hit.seq) {
				t.Fatalf("log %d: %s at base+%d (ttl %v): online %s (event base+%d, commit %d), join %s (event base+%d, commit %d)",
					seed, r.key, r.at-base, ttl, got, r.hit.event-base, r.hit.seq, want, res.Event[i]-base, res.Seq[i])
			}
		}
		if err := sorter.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []Status{Present, NotFound, OutsideMaxAge} {
		if statuses[s] < skewCases/share/10 {
			t.Errorf("%s came %d times only", s, statuses[s])
		}
	}
	t.Logf("%d random logs, %d values compared: %v", skewCases/share, compared, statuses)
}
