package featurestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
)

var warehouseLoad = waybill.VersionRef{Name: "warehouse_load", Version: 1}

// same fails unless the history up to a commit, read from the runs and the tail, is what the log says.
func (b *bundle) same(t testing.TB, through int64, why string) (sources int) {
	t.Helper()
	want, _, err := b.store.HistoryRows(context.Background(), "acme", warehouseLoad, through, false)
	if err != nil {
		t.Fatal(err)
	}
	got, sources, err := b.store.HistoryRows(context.Background(), "acme", warehouseLoad, through, true)
	if err != nil {
		t.Fatalf("%s: %v", why, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s: rows of the log and of the history differ: %s", why, diff)
	}
	return sources
}

// pushSome pushes a batch of rows of few warehouses, some of them corrections of others.
func (b *bundle) pushSome(t testing.TB, batch, rows int) featurestore.Commit {
	t.Helper()
	b.now = b.now.Add(time.Second)
	var list []map[string]any
	for i := range rows {
		var queue any
		if (batch+i)%5 != 0 {
			queue = float64((batch*31+i*7)%100) / 100
		}
		list = append(list, load(fmt.Sprint("W", (batch+i*i)%7), b.now.Add(-time.Duration((batch*i)%4)*time.Minute), queue))
	}
	c, err := b.push(fmt.Sprint("some-", batch), list...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// spineOf asks for every warehouse at several times.
func (b *bundle) spineOf(from time.Time) string {
	s := "warehouse,km,at\n"
	for i := range 40 {
		s += fmt.Sprintf("W%d,%d,%s\n", i%8, i, from.Add(time.Duration(i*7)*time.Second).Format(time.RFC3339Nano))
	}
	return s
}

// Whatever is compacted when, the history is the log, and a training set has the same bytes; one that was made before
// later commits can be made again after them.
func TestCompaction_ChangesNothingThatIsSeen(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	start := b.now
	batch := 0
	merged, made := false, map[string]bool{}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 3).Draw(rt, "pushes") {
			batch++
			b.pushSome(t, batch, rapid.IntRange(1, 9).Draw(rt, "rows"))
		}
		spine := b.spineOf(start.Add(time.Duration(rapid.IntRange(0, batch).Draw(rt, "spine")) * time.Second))
		set, err := b.trainingSet(fmt.Sprint("s", batch), 0, "", spine)
		if err != nil {
			rt.Fatal(err)
		}
		made[set.Digest] = true
		if rapid.Bool().Draw(rt, "compact") {
			if err := b.store.Compact(ctx, rapid.SampledFrom([]int{1, 5, 1000}).Draw(rt, "part rows"), nil); err != nil {
				rt.Fatal(err)
			}
			runs := b.same(t, int64(batch), "compacted")
			merged = merged || runs < batch && batch > 4
			b.same(t, int64(batch)/2, "an earlier commit")
		}
		if r, err := b.store.RebuildTrainingSet(ctx, "acme", set.Digest); err != nil || !r.Equal {
			rt.Fatalf("%+v, %v", r, err)
		}
	})
	if !merged {
		t.Error("no runs were merged")
	}
	for digest := range made {
		if r, err := b.store.RebuildTrainingSet(ctx, "acme", digest); err != nil || !r.Equal {
			t.Fatalf("after all commits: %+v, %v", r, err)
		}
	}
}

// A compaction that dies after any step, again and again, loses no row and doubles none; the next one goes on.
func TestCompaction_KilledAtEveryStep(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	killed := errors.New("killed")
	batch, kills := 0, map[string]int{}
	for round := range 12 {
		for _, step := range featurestore.CompactionSteps {
			batch++
			b.pushSome(t, batch, 3)
			if step == featurestore.CompactionSteps[len(featurestore.CompactionSteps)-1] {
				b.now = b.now.Add(25 * time.Hour) // replaced runs are old enough to be cleaned up
			}
			after := round % 3 // let so many of the same step pass
			err := b.store.Compact(ctx, 4, func(s string) error {
				if s != step {
					return nil
				}
				if after--; after >= 0 {
					return nil
				}
				kills[step]++
				return killed
			})
			if err != nil && !errors.Is(err, killed) {
				t.Fatal(err)
			}
			b.same(t, int64(batch), "killed after "+step)
		}
	}
	for _, step := range featurestore.CompactionSteps {
		if kills[step] == 0 {
			t.Errorf("nothing was killed after %s", step)
		}
	}
	if err := b.store.Compact(ctx, 4, nil); err != nil {
		t.Fatal(err)
	}
	b.same(t, int64(batch), "let be")
	// What no manifest names and what was replaced is cleaned up when it is old; what is read stays.
	b.now = b.now.Add(25 * time.Hour)
	if err := b.store.Compact(ctx, 4, nil); err != nil {
		t.Fatal(err)
	}
	sources := b.same(t, int64(batch), "cleaned up")
	var objects []string
	for o, err := range b.bucket.List(ctx, "featurestore/history/") {
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o.Key)
	}
	if len(objects) != 2*sources {
		t.Errorf("%d objects for %d runs: %v", len(objects), sources, objects)
	}
	var covered int64
	if err := b.pool.QueryRow(ctx, `SELECT covered FROM featurestore.history`).Scan(&covered); err != nil || covered != int64(batch) {
		t.Errorf("covered %d of %d commits, %v", covered, batch, err)
	}
}

// Hubs that compact at the same time, and pushes meanwhile: every commit is in one run or in the tail.
func TestCompaction_ByTwoHubs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	other := b.open(t)
	for batch := 1; batch <= 12; batch++ {
		b.pushSome(t, batch, 4)
		done := make(chan error, 1)
		go func() { done <- other.Compact(ctx, 3, nil) }()
		if err := errors.Join(b.store.Compact(ctx, 3, nil), <-done); err != nil {
			t.Fatal(err)
		}
		b.same(t, int64(batch), "two hubs")
	}
}

// A run whose bytes rotted is not believed: the set is made from the log, and is the same.
func TestHistory_RottenRunsAreNotBelieved(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, suffix := range []string{".parquet", ".index"} {
		for _, how := range []string{"changed", "cut", "gone"} {
			b := setup(t)
			for batch := range 5 {
				b.pushSome(t, batch, 6)
			}
			spine := b.spineOf(b.now.Add(-time.Minute))
			set, err := b.trainingSet("x", 0, "", spine)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.store.Compact(ctx, 2, nil); err != nil {
				t.Fatal(err)
			}
			for o, err := range b.bucket.List(ctx, "featurestore/history/") {
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(o.Key, suffix) {
					continue
				}
				body, _, err := b.bucket.Get(ctx, o.Key)
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(body)
				if err = errors.Join(err, body.Close()); err != nil {
					t.Fatal(err)
				}
				switch how {
				case "changed":
					for i := range data {
						data[i] ^= byte(i % 7)
					}
				case "cut":
					data = slices.Clone(data[:len(data)/10])
				case "gone":
					if err := b.bucket.Delete(ctx, o.Key); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if _, err := b.bucket.Put(ctx, o.Key, strings.NewReader(string(data)), int64(len(data))); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := b.store.HistoryRows(ctx, "acme", warehouseLoad, 5, true); waybill.CodeOf(err) != waybill.Corrupt {
				t.Errorf("%s %s: %v, want corrupt", suffix, how, err)
			}
			if r, err := b.store.RebuildTrainingSet(ctx, "acme", set.Digest); err != nil || !r.Equal {
				t.Errorf("%s %s: %+v, %v", suffix, how, r, err)
			}
		}
	}
}
