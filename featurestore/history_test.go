package featurestore_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
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
	b.at(b.now.Add(time.Second))
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
	most := 40 // batches: each is read again by all that follow. A run with -rapid.checks=1000 goes on
	if n, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String()); err != nil || n > 100 {
		most = n
	}
	rapid.Check(t, func(rt *rapid.T) {
		if batch >= most {
			return
		}
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
		if r, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !r.Equal {
			rt.Fatalf("%+v, %v", r, err)
		}
	})
	if !merged {
		t.Error("no runs were merged")
	}
	for digest := range made {
		if r, err := b.store.RebuildTrainingSet(ctx, ann, digest); err != nil || !r.Equal {
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
	for round := range 4 {
		for _, step := range featurestore.CompactionSteps {
			batch++
			b.pushSome(t, batch, 3)
			if step == featurestore.CompactionSteps[len(featurestore.CompactionSteps)-1] {
				b.at(b.now.Add(25 * time.Hour)) // replaced runs are old enough to be cleaned up
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
	b.at(b.now.Add(25 * time.Hour))
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
	for batch := 1; batch <= 6; batch++ {
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
	whole := map[string][]byte{}
	for o, err := range b.bucket.List(ctx, "featurestore/history/") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := b.bucket.Get(ctx, o.Key)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		whole[o.Key] = data
	}
	put := func(key string, data []byte) {
		if _, err := b.bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{".parquet", ".index"} {
		for _, how := range []string{"changed", "cut", "gone"} {
			for key, data := range whole {
				if !strings.HasSuffix(key, suffix) {
					continue
				}
				switch how {
				case "changed":
					other := slices.Clone(data)
					for i := range other {
						other[i] ^= byte(i % 7)
					}
					put(key, other)
				case "cut":
					put(key, data[:len(data)/10])
				case "gone":
					if err := b.bucket.Delete(ctx, key); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, _, err := b.store.HistoryRows(ctx, "acme", warehouseLoad, 5, true); waybill.CodeOf(err) != waybill.Corrupt {
				t.Errorf("%s %s: %v, want corrupt", suffix, how, err)
			}
			if r, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !r.Equal {
				t.Errorf("%s %s: %+v, %v", suffix, how, r, err)
			}
			for key, data := range whole {
				put(key, data)
			}
			b.same(t, 5, "put back")
		}
	}
}

const typedHistory = `
kind: View
name: every
entity: {name: thing, keys: [{name: k1, type: string}, {name: k2, type: decimal}, {name: k3, type: bool}]}
features:
  - {name: a, type: int32}
  - {name: b, type: int64}
  - {name: c, type: float32}
  - {name: d, type: float64}
  - {name: e, type: string}
  - {name: f, type: bytes}
  - {name: g, type: timestamp}
  - {name: h, type: decimal}
  - {name: i, type: "list<int64>"}
  - {name: j, type: "list<string>"}
  - {name: k, type: "vector<3>"}
  - {name: l, type: bool}
  - {name: m, type: "list<decimal>"}
---
kind: Service
name: every
inputs: [{name: k1, type: string}, {name: k2, type: decimal}, {name: k3, type: bool}, {name: extra, type: "list<float64>"}]
features: ["every:a", "every:b", "every:c", "every:d", "every:e", "every:f", "every:g", "every:h", "every:i", "every:j", "every:k", "every:l", "every:m"]
expressions:
  - {name: twice, type: float64, expr: "h * 2.0 + d"}
  - {name: first, type: float64, expr: "k[0]"}
`

// Every type goes through pushes, files, runs, merges and training sets as it is.
func TestHistory_EveryType(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, typedHistory)
	ref := waybill.VersionRef{Name: "every", Version: 1}
	spine := "k1,k2,k3,at\n"
	row := func(i int) map[string]any {
		r := map[string]any{"k1": fmt.Sprint("thing ", i%3), "k2": fmt.Sprintf("%d.5", i%2), "k3": i%2 == 0, "event_time": b.now.Add(-time.Duration(i) * time.Minute).Format(time.RFC3339Nano)}
		for c, v := range map[string]any{"a": float64(i), "b": "9007199254740993", "c": 0.1, "d": float64(i) / 3, "e": strings.Repeat("é", i%4), "f": "AAEC", "g": "2026-01-02T03:04:05.000006Z",
			"h": "-12345678901234567890.123456789", "i": []any{1.0, 3.0}, "j": []any{"x", ""}, "k": []any{1.0, 2.5, -3.0}, "l": i%3 == 0, "m": []any{"1.5", "2"}} {
			if (i+int(c[0]))%4 != 0 {
				r[c] = v
			}
		}
		if i%5 == 0 {
			r["i"], r["j"] = []any{}, []any{}
		}
		return r
	}
	for batch := range 5 {
		b.at(b.now.Add(time.Second))
		var rows []map[string]any
		for i := range 6 {
			rows = append(rows, row(batch*6+i))
			spine += fmt.Sprintf("thing %d,%d.5,%v,%s\n", i%3, i%2, i%2 == 0, b.now.Format(time.RFC3339))
		}
		if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: ref, BatchID: fmt.Sprint(batch), Rows: rows}); err != nil {
			t.Fatal(err)
		}
	}
	csv := "k1,k2,k3,event_time,a,e,k,h,i,f\nthing 1,1.5,false," + b.now.Format(time.RFC3339) + ",5,text,\"[1,2,3]\",7.25,\"[4,5]\",AAEC\nthing 2,0.5,true," + b.now.Format(time.RFC3339) + ",,,,,,\n"
	if _, err := b.store.Ingest(ctx, ann, featurestore.IngestRequest{View: ref, BatchID: "file", Format: featurestore.CSV, Body: strings.NewReader(csv)}); err != nil {
		t.Fatal(err)
	}
	create := func() featurestore.TrainingSet {
		set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "x", Service: waybill.VersionRef{Name: "every"}, Format: featurestore.CSV, TimeColumn: "at",
			Spine: strings.NewReader(spine)})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	set := create()
	filled := 0
	for _, c := range set.Columns {
		if c.Rows != 30 {
			t.Errorf("%s has %d rows", c.Name, c.Rows)
		}
		if c.Nulls < c.Rows {
			filled++
		}
	}
	if filled != len(set.Columns) || len(set.Columns) != 4+13+2 {
		t.Errorf("%d of %d columns have values", filled, len(set.Columns))
	}
	want, _, err := b.store.HistoryRows(ctx, "acme", ref, 6, false)
	if err != nil || len(want) != 32 {
		t.Fatalf("%d rows, %v", len(want), err)
	}
	for _, partRows := range []int{1, 100} {
		if err := b.store.Compact(ctx, partRows, nil); err != nil {
			t.Fatal(err)
		}
		got, _, err := b.store.HistoryRows(ctx, "acme", ref, 6, true)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if r, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !r.Equal {
			t.Fatalf("%+v, %v", r, err)
		}
		for i := range 3 { // more runs, which are merged
			if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: ref, BatchID: fmt.Sprint(partRows, " ", i), Rows: []map[string]any{row(i)}}); err != nil {
				t.Fatal(err)
			}
			if err := b.store.Compact(ctx, partRows, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if again := create(); again.Digest == set.Digest {
		t.Error("later commits are not looked at")
	}
	if names, cols, err := b.store.TrainingColumns(ctx, "acme", set.Digest); err != nil || len(names) != 10 || len(cols[0]) != 30 {
		t.Errorf("numeric columns %v, %v", names, err)
	}
}
