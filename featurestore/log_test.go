package featurestore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

const twoViews = definitions + `
---
kind: View
name: road
entity: {name: warehouse, keys: [{name: warehouse, type: string}]}
features: [{name: snow, type: float64}]
---
kind: Service
name: weather
inputs: [{name: warehouse, type: string}]
features: ["road:snow"]
`

func (b *bundle) readFrom(s *featurestore.Store, service, warehouse string, now time.Time) ([]featurestore.Cell, error) {
	r, err := s.Reader(context.Background(), "acme", waybill.VersionRef{Name: service})
	if err != nil {
		return nil, err
	}
	v, err := r.Read(context.Background(), now, []map[string]any{{"warehouse": warehouse, "km": 2.0}})
	if err != nil {
		return nil, err
	}
	return v[0].Cells, nil
}

// A view whose log cannot be read says so instead of NOT_FOUND, the others are served, and it comes back by itself: not
// at once, and not from its beginning.
func TestOpen_ViewThatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, twoViews)
	if _, err := b.push("pushed", load("ny", b.now, 0.1)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ingest("file", featurestore.CSV, "warehouse,event_time,queue\nla,2026-04-01,0.1\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "road"}, BatchID: "1", Rows: []map[string]any{{"warehouse": "ny", "event_time": "2026-04-01", "snow": 3.0}}}); err != nil {
		t.Fatal(err)
	}
	var key string
	var data []byte
	for o, err := range b.bucket.List(ctx, "featurestore/commits/") {
		if err != nil {
			t.Fatal(err)
		}
		key = o.Key
		r, _, err := b.bucket.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.bucket.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	second := b.open(t) // starts all the same
	if cells, err := b.readFrom(second, "route-risk", "ny", b.now); waybill.CodeOf(err) != waybill.Unavailable || !strings.Contains(err.Error(), "warehouse_load@v1") {
		t.Errorf("a view that was not read: %+v, %v", cells, err)
	}
	if cells, err := b.readFrom(second, "weather", "ny", b.now); err != nil || cells[0].Value != 3.0 {
		t.Errorf("another view: %+v, %v", cells, err)
	}
	if err := second.Refresh(ctx); waybill.CodeOf(err) != waybill.Corrupt || !strings.Contains(err.Error(), "commit 2 of warehouse_load@v1") {
		t.Errorf("refresh: %v", err)
	}
	if err := second.Await(ctx, "acme", waybill.VersionRef{Name: "warehouse_load"}, 2); waybill.CodeOf(err) != waybill.Unavailable {
		t.Errorf("await: %v", err)
	}
	if err := second.Await(ctx, "acme", waybill.VersionRef{Name: "road"}, 1); err != nil {
		t.Errorf("await another view: %v", err)
	}
	if _, err := b.bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if err := second.Refresh(ctx); waybill.CodeOf(err) != waybill.Corrupt {
		t.Errorf("tried again before its time: %v", err)
	}
	b.at(b.now.Add(2 * time.Second))
	if err := second.Refresh(ctx); err != nil {
		t.Errorf("tried again: %v", err)
	}
	for _, warehouse := range []string{"ny", "la"} {
		if cells, err := b.readFrom(second, "route-risk", warehouse, b.now); err != nil || cells[0].Status == featurestore.NotFound {
			t.Errorf("%s: %+v, %v", warehouse, cells, err)
		}
	}
}

// A node whose clock is slow corrects a value: its commit is later in the log, so it was learned no earlier, and wins.
func TestPush_SlowClockStillCorrects(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	slow, err := featurestore.Open(ctx, b.pool, b.bucket, featurestore.Config{Clock: func() time.Time { return b.clock().Add(-30 * time.Second) }})
	if err != nil {
		t.Fatal(err)
	}
	event := b.now.Add(-time.Hour)
	if _, err := b.push("1", load("ny", event, 0.1)); err != nil {
		t.Fatal(err)
	}
	c, err := slow.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: "2", Rows: []map[string]any{load("ny", event, 0.2)}})
	if err != nil || c.At.Before(b.now) {
		t.Fatalf("%+v, %v: known before the commit that it follows", c, err)
	}
	c, err = slow.Ingest(ctx, ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: "3", Format: featurestore.CSV,
		Body: strings.NewReader("warehouse,event_time,queue\nla," + event.Format(time.RFC3339) + ",0.3\n")})
	if err != nil || c.At.Before(b.now) {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := b.store.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*featurestore.Store{"first": b.store, "slow": slow, "new": b.open(t)} {
		if cells := b.read(t, s, "ny"); cells[0].Value != 0.2 {
			t.Errorf("%s: %+v", name, cells[0])
		}
	}
}

// The knowledge time is read under the log's lock, not before the body arrived.
func TestIngest_KnowledgeIsTheCommits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	started := b.now
	body := io.MultiReader(strings.NewReader("warehouse,event_time,queue\n"), readerFunc(func(p []byte) (int, error) {
		b.at(started.Add(time.Minute)) // a slow upload
		return copy(p, "ny,2026-04-01T11:00:00Z,0.1\n"), io.EOF
	}))
	c, err := b.store.Ingest(context.Background(), ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: "1", Format: featurestore.CSV, Body: body})
	if err != nil || !c.At.Equal(started.Add(time.Minute)) {
		t.Fatalf("%+v, %v", c, err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A row whose event time is ahead is served from that time on and not before, and the one before it until then; the join
// says the same at every moment.
func TestReader_NothingFromTheFuture(t *testing.T) {
	t.Parallel()
	everywhere(t, readerNothingFromTheFuture)
}

func readerNothingFromTheFuture(t *testing.T, setup func(testing.TB, string) *bundle) {
	ctx := context.Background()
	b := setup(t, definitions)
	start := b.now
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for i, r := range []struct {
		event int
		queue float64
	}{{-60, 0.1}, {30, 0.3}, {10, 0.2}, {30, 0.4}, {-30, 0.15}} { // in the order of their commits
		if _, err := b.push(fmt.Sprint(i), load("ny", at(r.event), r.queue)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.push("only ahead", load("la", at(10), 0.9)); err != nil {
		t.Fatal(err)
	}
	second := b.open(t)
	spine, want := "warehouse,km,at\n", []float64{}
	for _, c := range []struct {
		s     int
		queue float64
	}{{0, 0.15}, {9, 0.15}, {10, 0.2}, {29, 0.2}, {30, 0.4}, {60, 0.4}} {
		for _, s := range []*featurestore.Store{b.store, second} {
			cells, err := b.readFrom(s, "route-risk", "ny", at(c.s))
			if err != nil || cells[0].Value != c.queue {
				t.Errorf("at %d s: %+v, %v, want %v", c.s, cells[0], err, c.queue)
			}
		}
		spine += "ny,1," + at(c.s).Format(time.RFC3339) + "\n"
		want = append(want, c.queue)
	}
	set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "x", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV, TimeColumn: "at", Spine: strings.NewReader(spine)})
	if err != nil {
		t.Fatal(err)
	}
	_, columns, err := b.store.TrainingColumns(ctx, "acme", set.Digest)
	if err != nil || fmt.Sprint(columns[1]) != fmt.Sprint(want) {
		t.Errorf("offline: %v, %v, want %v", columns, err, want)
	}
	if cells, err := b.readFrom(second, "route-risk", "la", at(9)); err != nil || cells[0].Status != featurestore.NotFound {
		t.Errorf("before its time: %+v, %v", cells, err)
	}
	if cells, err := b.readFrom(second, "route-risk", "la", at(10)); err != nil || cells[0].Value != 0.9 {
		t.Errorf("from its time on: %+v, %v", cells, err)
	}
}

// All features of a view come from one row, whatever is written meanwhile.
func TestReader_NoTornRows(t *testing.T) {
	t.Parallel()
	everywhere(t, readerNoTornRows)
}

func readerNoTornRows(t *testing.T, setup func(testing.TB, string) *bundle) {
	ctx := context.Background()
	b := setup(t, definitions)
	var columns, features []string
	for f := range 400 {
		columns = append(columns, fmt.Sprintf("{name: f%d, type: int64}", f))
		features = append(features, fmt.Sprintf("wide:f%d", f))
	}
	b.apply(t, "kind: View\nname: wide\nentity: {name: warehouse, keys: [{name: warehouse, type: string}]}\nfeatures: ["+strings.Join(columns, ", ")+
		"]\n---\nkind: Service\nname: wide\ninputs: [{name: warehouse, type: string}]\nfeatures: ["+strings.Join(features, ", ")+"]\n")
	write := func(n int) error {
		row := map[string]any{"warehouse": "ny", "event_time": b.now.Format(time.RFC3339Nano)}
		for f := range 400 {
			row[fmt.Sprint("f", f)] = float64(n)
		}
		_, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "wide"}, BatchID: fmt.Sprint(n), Rows: []map[string]any{row}})
		return err
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	r, err := b.store.Reader(ctx, "acme", waybill.VersionRef{Name: "wide"})
	if err != nil {
		t.Fatal(err)
	}
	now, done := b.now, make(chan error)
	go func() {
		for n := 1; n <= 30; n++ {
			if err := write(n); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		v, err := r.Read(ctx, now, []map[string]any{{"warehouse": "ny"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range v[0].Cells {
			if c.Seq != v[0].Cells[0].Seq || c.Value != v[0].Cells[0].Value {
				t.Fatalf("%s is of commit %d and the first of commit %d", c.Name, c.Seq, v[0].Cells[0].Seq)
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// The rows that lost do not stay in memory because others of their commit won. Not parallel: it measures.
func TestStore_MemoryHoldsWinnersOnly(t *testing.T) {
	b := setup(t)
	csv := strings.Builder{}
	csv.WriteString("warehouse,event_time,queue\n")
	const rows = 25_000
	for i := range rows {
		fmt.Fprintf(&csv, "w,%s,0.5\n", b.now.Add(-time.Duration(i)*time.Second).Format(time.RFC3339))
	}
	for batch := range 3 {
		if _, err := b.ingest(fmt.Sprint(batch), featurestore.CSV, csv.String()); err != nil {
			t.Fatal(err)
		}
	}
	csv.Reset()
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	second := b.open(t)
	after := heap()
	if cells := b.read(t, second, "w"); cells[0].Value != 0.5 {
		t.Fatal(cells)
	}
	if after-before > 2<<20 {
		t.Errorf("one live row of %d holds %d MiB", 3*rows, (after-before)>>20)
	}
	runtime.KeepAlive(second)
}

// One evaluator for training and serving: the result has the declared type in both, never wrapped around.
func TestExpressions_SameOnlineAndOffline(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, strings.Replace(definitions, `expressions: [`, `expressions: [{name: small, type: float32, expr: "queue / 3.0"}, {name: whole, type: int32, expr: "staff * 1000000000"}, {name: far, type: float64, expr: "km + 1.0"}, `, 1))
	for i, staff := range []float64{2, 3} {
		row := load(fmt.Sprint("w", i), b.now, 0.1)
		row["staff"] = staff
		if _, err := b.push(fmt.Sprint(i), row); err != nil {
			t.Fatal(err)
		}
	}
	cells, err := b.readFrom(b.store, "route-risk", "w0", b.now)
	if err != nil || cells[2].Value != float64(float32(0.1/3.0)) || cells[3].Value != int64(2_000_000_000) {
		t.Fatalf("%+v, %v", cells, err)
	}
	for i, want := range []string{"[]", "[request]", "[request warehouse_load@v1]"} {
		if got := fmt.Sprint(cells[[]int{0, 4, 5}[i]].Sources); got != want {
			t.Errorf("%s is computed from %s, want %s", cells[[]int{0, 4, 5}[i]].Name, got, want)
		}
	}
	set := func(warehouse string) error {
		s, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "x", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV, TimeColumn: "at",
			Spine: strings.NewReader("warehouse,km,at\n" + warehouse + ",2," + b.now.Format(time.RFC3339) + "\n")})
		if err != nil {
			return err
		}
		names, columns, err := b.store.TrainingColumns(ctx, "acme", s.Digest)
		if err != nil {
			return err
		}
		for i, name := range names[1:] {
			if x := columns[i+1][0]; fmt.Sprint(x) != fmt.Sprint(numeric(cells[i].Value)) {
				t.Errorf("%s is %v offline and %v online", name, x, cells[i].Value)
			}
		}
		return nil
	}
	if err := set("w0"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.readFrom(b.store, "route-risk", "w1", b.now); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "expressions[1].expr") {
		t.Errorf("an int32 of 3,000,000,000: %v", err)
	}
	if err := set("w1"); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "expressions[1].expr") {
		t.Errorf("an int32 of 3,000,000,000 offline: %v", err)
	}
}

func numeric(v any) any {
	if n, ok := v.(int64); ok {
		return float64(n)
	}
	return v
}

// Only what a formula reads can excuse that it fails.
func TestExpressions_UnrelatedMissingInputIsNoExcuse(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, strings.Replace(definitions, `"queue * km"`, `"1.0 / km"`, 1))
	r, err := b.store.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := r.Read(ctx, b.now, []map[string]any{{"warehouse": "nowhere", "km": 0.0}}); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("division by zero while queue is missing: %+v, %v", v, err)
	}
	if v, err := r.Read(ctx, b.now, []map[string]any{{"warehouse": "nowhere"}}); err != nil || v[0].Cells[2].Status != featurestore.NullValue {
		t.Errorf("km is missing: %+v, %v", v, err)
	}
}
