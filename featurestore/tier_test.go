package featurestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/pgtest"
)

// tierRounds is how often each harm is done to the server; WAYBILL_TIER_ROUNDS sets it for a long run.
func tierRounds(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("WAYBILL_TIER_ROUNDS"))
	if err != nil {
		n = 1
	}
	t.Logf("%d rounds", n)
	return n
}

// hub opens a store on the machine's clock, which follows the log.
func (b *bundle) hub(t *testing.T, snapshotRows int64) *featurestore.Store {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := featurestore.Open(ctx, b.pool, b.bucket, featurestore.Config{Online: b.online, OnlineLost: b.lost, Poll: 50 * time.Millisecond, SnapshotRows: snapshotRows})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s
}

func read(s *featurestore.Store, keys ...string) ([]featurestore.Vector, error) {
	ctx := context.Background()
	r, err := s.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
	if err != nil {
		return nil, err
	}
	var rows []map[string]any
	for _, k := range keys {
		rows = append(rows, map[string]any{"warehouse": k, "km": 1.0})
	}
	return r.Read(ctx, time.Now(), rows)
}

// harms are what is done to the server, each with what makes it good again. Its rows are then gone, or not.
var harms = []struct {
	name       string
	harm, mend func(s *pgtest.RedisServer) error
}{
	{"kill -9 and a start from an older dump", func(s *pgtest.RedisServer) error {
		if answer, err := s.Do("SAVE"); err != nil || answer != "+OK" {
			return fmt.Errorf("save: %s, %w", answer, err)
		}
		time.Sleep(300 * time.Millisecond)
		return s.Kill()
	}, (*pgtest.RedisServer).Start},
	{"kill -9 and an empty start", func(s *pgtest.RedisServer) error {
		_, err := s.Do("FLUSHALL SYNC") // as a dump has it
		if answer, err2 := s.Do("SAVE"); answer != "+OK" {
			err = errors.Join(err, err2, errors.New(answer))
		}
		return errors.Join(err, s.Kill())
	}, (*pgtest.RedisServer).Start},
	{"FLUSHALL", func(s *pgtest.RedisServer) error { _, err := s.Do("FLUSHALL"); return err }, func(*pgtest.RedisServer) error { return nil }},
	{"SIGSTOP", (*pgtest.RedisServer).Hang, (*pgtest.RedisServer).Resume},
	{"evicting", func(s *pgtest.RedisServer) error {
		_, err := s.Do("CONFIG SET maxmemory-policy allkeys-lru")
		return err
	},
		func(s *pgtest.RedisServer) error {
			_, err := s.Do("CONFIG SET maxmemory-policy noeviction")
			return err
		}},
}

// Whatever happens to the server while two hubs read and write: a read says Unavailable, within a bounded time, or what was
// acknowledged before it or later; never something older, never NOT_FOUND. With Postgres to stand in, every read is answered.
func TestTier_LostUnderReadsAndWrites(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"error", "postgres"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewRedis(t, "--dir", pgtest.RedisFolder(t))
			b := begin(t, definitions, server.URL(), lost)
			hubs := []*featurestore.Store{b.hub(t, 0), b.hub(t, 0)}
			const keys = 20
			var acked [keys]atomic.Int64
			name := func(k int) string { return fmt.Sprint("w", k) }
			var stop atomic.Bool
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop.Store(true)
			var pushes, answers, refusals, slowest atomic.Int64
			for w := range 2 {
				wg.Go(func() {
					for n := int64(1); !stop.Load(); n++ {
						k := w + 2*int(n%(keys/2)) // each key has one writer
						ctx := context.Background()
						c, err := hubs[w].Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: fmt.Sprint(w, " ", n),
							Rows: []map[string]any{{"warehouse": name(k), "event_time": time.Now().UTC().Format(time.RFC3339Nano), "queue": 0.5, "staff": float64(n)}}})
						if err != nil {
							t.Error(err)
							return
						}
						if err := hubs[w].Await(ctx, "acme", waybill.VersionRef{Name: "warehouse_load", Version: 1}, c.Seq); err == nil {
							acked[k].Store(n)
							pushes.Add(1)
						} else if code := waybill.CodeOf(err); code != waybill.Unavailable && code != waybill.Deadline {
							t.Errorf("await: %v", err)
						}
					}
				})
				wg.Go(func() {
					random := rand.New(rand.NewPCG(uint64(w), 9))
					for !stop.Load() {
						var names []string
						var least []int64
						for range 1 + random.IntN(4) {
							k := w + 2*random.IntN(keys/2) // of the hub that acknowledged
							names, least = append(names, name(k)), append(least, acked[k].Load())
						}
						start := time.Now()
						v, err := read(hubs[w], names...)
						took := time.Since(start).Milliseconds()
						for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
						}
						if err != nil {
							if refusals.Add(1); waybill.CodeOf(err) != waybill.Unavailable || lost == "postgres" {
								t.Errorf("read: %v", err)
							}
							time.Sleep(5 * time.Millisecond)
							continue
						}
						answers.Add(1)
						for i := range v {
							c := v[i].Cells[1]
							if n, _ := c.Value.(int64); n < least[i] || least[i] > 0 && c.Status != featurestore.Present {
								t.Errorf("%s: %s %v after %d was acknowledged", names[i], c.Status, c.Value, least[i])
							}
						}
					}
				})
			}
			whole := func(what string) {
				t.Helper()
				for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
					before := pushes.Load()
					_, err1 := read(hubs[0], "w0")
					_, err2 := read(hubs[1], "w1")
					if err1 == nil && err2 == nil && hubs[0].Refresh(context.Background()) == nil && hubs[1].Refresh(context.Background()) == nil {
						for pushes.Load() < before+4 && time.Since(start) < 40*time.Second {
							time.Sleep(time.Millisecond)
						}
						return
					}
					if time.Since(start) > 40*time.Second {
						t.Fatalf("%s: reads are not answered again: %v, %v", what, err1, err2)
					}
				}
			}
			whole("at first")
			for range tierRounds(t) {
				for _, h := range harms {
					if err := h.harm(server); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
					if err := h.mend(server); err != nil {
						t.Fatal(err)
					}
					whole(h.name)
				}
			}
			stop.Store(true)
			wg.Wait()
			t.Logf("%d pushes awaited, %d reads answered, %d refused, the slowest after %d ms", pushes.Load(), answers.Load(), refusals.Load(), slowest.Load())
			if slowest.Load() > 8000 {
				t.Errorf("a read took %d ms", slowest.Load())
			}
			// What the server has now is what a hub says that reads the whole log into its memory.
			compare(t, b, hubs[0], keys, name)
		})
	}
}

// compare reads the same from a hub and from one whose rows are in memory.
func compare(t *testing.T, b *bundle, hub *featurestore.Store, keys int, name func(int) string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := hub.Refresh(context.Background())
		if err == nil {
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal(err)
		}
	}
	memory, err := featurestore.Open(context.Background(), b.pool, b.bucket, featurestore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		x, err1 := read(hub, name(k))
		y, err2 := read(memory, name(k))
		if err1 != nil || err2 != nil || fmt.Sprint(x[0].Cells) != fmt.Sprint(y[0].Cells) {
			t.Errorf("%s: %+v, %v; in memory %+v, %v", name(k), x, err1, y, err2)
		}
	}
}

// A server that lost its rows is filled again from the newest snapshot, which a hub took from it, and the log's tail: what is
// before the snapshot is not read.
func TestTier_FilledFromASnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	server := pgtest.NewRedis(t)
	b := begin(t, definitions, server.URL(), "error")
	var csv strings.Builder
	csv.WriteString("warehouse,event_time,queue\n")
	for i := range 2000 {
		fmt.Fprintf(&csv, "w%d,2026-04-01T11:%02d:00Z,0.%03d\n", i%1000, i/1000, i%1000)
	}
	if _, err := b.ingest("file", featurestore.CSV, csv.String()); err != nil {
		t.Fatal(err)
	}
	if err := b.openWith(t, 1000).Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.push("tail", load("w7", b.now, 0.25)); err != nil {
		t.Fatal(err)
	}
	for _, o := range b.objects(t, "featurestore/commits/") {
		if err := b.bucket.Delete(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	if cells, err := b.readFrom(b.store, "route-risk", "w8", b.now); err != nil || cells[0].Value != 0.008 {
		t.Errorf("%+v, %v", cells, err)
	}
	if _, err := server.Do("FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	if v, err := b.readFrom(b.store, "route-risk", "w8", b.now); waybill.CodeOf(err) != waybill.Unavailable {
		t.Errorf("from an empty server: %+v, %v", v, err)
	}
	s := b.open(t)
	for name, want := range map[string]any{"w7": 0.25, "w8": 0.008, "w999": 0.999} {
		for _, hub := range []*featurestore.Store{s, b.store} {
			if cells, err := b.readFrom(hub, "route-risk", name, b.now); err != nil || cells[0].Value != want {
				t.Errorf("%s is %+v, %v; want %v", name, cells, err, want)
			}
		}
	}
}

// A hub does not start on a server that may evict keys, or with a setting that means nothing, and says what to do. It does
// start while the server is away.
func TestTier_Settings(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	evicts := pgtest.NewRedis(t, "--maxmemory", "50mb", "--maxmemory-policy", "volatile-lru")
	for _, c := range []struct {
		online, lost string
		code         waybill.Code
		says         string
	}{
		{evicts.URL(), "", waybill.Conflict, "noeviction"},
		{"http://x", "", waybill.Invalid, "online"},
		{"redis://user:s3cret@x:port", "", waybill.Invalid, "online"},
		{"memory", "postgres", waybill.Invalid, "online-lost"},
		{pgtest.Redis(t), "memory", waybill.Invalid, "online-lost"},
	} {
		_, err := featurestore.Open(ctx, b.pool, b.bucket, featurestore.Config{Online: c.online, OnlineLost: c.lost})
		if waybill.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s, %s: %v", c.online, c.lost, err)
		}
	}
	away := pgtest.NewRedis(t)
	if err := away.Hang(); err != nil {
		t.Fatal(err)
	}
	b.online = away.URL()
	start := time.Now()
	if cells, err := b.readFrom(b.open(t), "route-risk", "w", b.now); waybill.CodeOf(err) != waybill.Unavailable {
		t.Errorf("%+v, %v", cells, err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("a start beside a server that hangs took %v", took)
	}
	if err := away.Kill(); err != nil {
		t.Fatal(err)
	}
	s := b.open(t)
	if cells, err := b.readFrom(s, "route-risk", "w", b.now); waybill.CodeOf(err) != waybill.Unavailable {
		t.Errorf("%+v, %v", cells, err)
	}
	if err := away.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	b.at(b.now.Add(time.Minute))
	if err := s.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if cells, err := b.readFrom(s, "route-risk", "w", b.now); err != nil || cells[0].Status != featurestore.NotFound {
		t.Errorf("%+v, %v", cells, err)
	}
}

// On a cluster a view lies on several servers. When one of them loses its rows, reads of those are refused until they are
// there again, and reads of the others are answered.
func TestTier_Cluster(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	nodes := pgtest.NewRedisCluster(t)
	b := begin(t, definitions, nodes[0].URL(), "error")
	hub := b.hub(t, 100)
	var csv strings.Builder
	csv.WriteString("warehouse,event_time,queue\n")
	const keys = 500
	for i := range keys {
		fmt.Fprintf(&csv, "w%d,2026-04-01T11:00:00Z,0.%03d\n", i, i)
	}
	if _, err := b.ingest("file", featurestore.CSV, csv.String()); err != nil {
		t.Fatal(err)
	}
	if err := hub.Await(ctx, "acme", waybill.VersionRef{Name: "warehouse_load"}, 1); err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes {
		if size, err := node.Do("DBSIZE"); err != nil || size == ":0" {
			t.Errorf("%s has %s keys, %v: the rows should lie on both", node.Address, size, err)
		}
	}
	var all []string
	for i := range keys {
		all = append(all, fmt.Sprint("w", i))
	}
	check := func(what string) {
		t.Helper()
		r, err := hub.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
		if err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			var rows []map[string]any
			for _, k := range all {
				rows = append(rows, map[string]any{"warehouse": k, "km": 1.0})
			}
			v, err := r.Read(ctx, b.now, rows)
			if err != nil {
				if waybill.CodeOf(err) != waybill.Unavailable || time.Since(start) > 40*time.Second {
					t.Fatalf("%s: %v", what, err)
				}
				continue
			}
			for i := range v {
				if c := v[i].Cells[0]; c.Value != float64(i)/1000 {
					t.Errorf("%s: %s is %+v", what, all[i], c)
				}
			}
			return
		}
	}
	check("at first")
	if err := hub.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(b.objects(t, "featurestore/snapshots/")); n != 1 {
		t.Errorf("%d parts of snapshots", n)
	}
	for _, node := range nodes {
		if err := node.Kill(); err != nil {
			t.Fatal(err)
		}
		answered, refused := 0, 0
		for i, k := range all[:40] {
			r, err := hub.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
			if err != nil {
				t.Fatal(err)
			}
			switch v, err := r.Read(ctx, b.now, []map[string]any{{"warehouse": k}}); {
			case waybill.CodeOf(err) == waybill.Unavailable:
				refused++
			case err != nil || v[0].Cells[0].Value != float64(i)/1000:
				t.Errorf("%s: %+v, %v", k, v, err)
			default:
				answered++
			}
		}
		if answered == 0 || refused == 0 {
			t.Errorf("with one of two servers gone %d reads were answered and %d refused", answered, refused)
		}
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
		check("started again, empty")
	}
}

// Many rows for which others stand in read the same at once, where all that may stand in is asked for in one journey, as
// one by one.
func TestFallback_ManyAtOnce(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, setup func(testing.TB, string) *bundle) {
		b := setup(t, chain)
		at := b.now.Format(time.RFC3339Nano)
		random := rand.New(rand.NewPCG(5, 6))
		push := func(view string, row map[string]any) {
			row["demand"], row["stock"], row["event_time"] = float64(random.IntN(100)), float64(random.IntN(100)), at
			if err := b.pushTo(view, fmt.Sprint(random.Int64()), row); err != nil {
				t.Fatal(err)
			}
		}
		push("all_load", map[string]any{"scope": "all"})
		var rows []map[string]any
		for i := range 40 {
			sku, category := fmt.Sprint("s", i), fmt.Sprint("c", i%7)
			if i%4 == 0 {
				push("sku_load", map[string]any{"sku": sku, "note": nil})
			}
			if i < 7 && i%2 == 0 {
				push("category_load", map[string]any{"category": category})
			}
			rows = append(rows, map[string]any{"sku": sku, "category": category, "days": 2.0})
		}
		delete(rows[39], "category")
		r, err := b.store.Reader(context.Background(), "acme", waybill.VersionRef{Name: "asked"})
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Read(context.Background(), b.now, rows)
		if err != nil {
			t.Fatal(err)
		}
		views := map[string]int{}
		for i, row := range rows {
			one, err := r.Read(context.Background(), b.now, []map[string]any{row})
			if err != nil || fmt.Sprint(one[0].Cells) != fmt.Sprint(all[i].Cells) {
				t.Errorf("%v: %+v, %v; at once %+v", row, one, err, all[i])
			}
			views[all[i].Cells[0].View.String()]++
		}
		if len(views) != 3 {
			t.Errorf("rows of %v; want some of each view of the chain", views)
		}
	})
}
