package featurestore_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/featurestore"
)

// queued is a store whose builds wait in a list until the test works on them.
type queued struct {
	*bundle
	*featurestore.Store
	mu    sync.Mutex
	said  bytes.Buffer // the log; guarded by mu
	jobs  []string     // guarded by mu
	clock func() time.Time
}

func (q *queued) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.said.Write(b)
}

func (q *queued) log() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.said.String()
}

func (q *queued) queue() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string{}, q.jobs...)
}

func queueing(t *testing.T, b *bundle) *queued {
	t.Helper()
	q := &queued{bundle: b, clock: b.clock}
	s, err := featurestore.Open(context.Background(), b.pool, b.bucket, featurestore.Config{Clock: func() time.Time { return q.clock() }, Logger: slog.New(slog.NewTextHandler(q, nil)),
		Submit: func(_ context.Context, _ pgx.Tx, subject string) error {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.jobs = append(q.jobs, subject)
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	s.KeepParts()
	q.Store = s
	return q
}

// left are the objects that builds have in the bucket.
func (b *bundle) left(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	for o, err := range b.bucket.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func (b *bundle) request(spine string) featurestore.TrainingSetRequest {
	return featurestore.TrainingSetRequest{Name: "x", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV, TimeColumn: "at", LabelColumn: "late",
		Spine: strings.NewReader(spine)}
}

// A build is one for all who ask for the same, can be cancelled while it waits, leaves nothing behind then, and gives what
// a store without jobs gives.
func TestBuild_LivesAndEnds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	q := queueing(t, b)
	if _, err := b.push("1", load("ny", b.now, 0.5)); err != nil {
		t.Fatal(err)
	}
	spine := "warehouse,km,at,late\nny,2," + b.now.Format(time.RFC3339) + ",1\nla,3," + b.now.Format(time.RFC3339) + ",0\n"
	start := func() featurestore.Build {
		t.Helper()
		b.at(b.now.Add(time.Second)) // ids of one millisecond have no order
		k, err := q.StartTrainingSet(ctx, ann, b.request(spine))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first, again := start(), start()
	if first.State != featurestore.BuildWaiting || first.ID != again.ID || len(q.queue()) != 1 || len(b.left(t, "featurestore/builds/")) != 1 {
		t.Fatalf("%+v, %+v, %d jobs, objects %v", first, again, len(q.queue()), b.left(t, "featurestore/builds/"))
	}
	if _, err := q.TrainingSetBuild(ctx, "other", first.ID); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant's build: %v", err)
	}
	if _, err := q.CancelTrainingSetBuild(ctx, "other", first.ID); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant's build is cancelled: %v", err)
	}
	for range 2 {
		if k, err := q.CancelTrainingSetBuild(ctx, "acme", first.ID); err != nil || k.State != featurestore.BuildCancelled || !k.Ended() {
			t.Fatalf("%+v, %v", k, err)
		}
	}
	if err := q.BuildTrainingSet(ctx, q.queue()[0]); err != nil {
		t.Fatal(err)
	}
	if sets, _, err := q.TrainingSets(ctx, "acme", featurestore.Page{}); err != nil || len(sets) != 0 || len(b.left(t, "featurestore/builds/")) != 0 || len(b.left(t, "featurestore/trainingsets/")) != 0 ||
		len(b.left(t, "featurestore/spines/")) != 0 {
		t.Fatalf("a cancelled build left %d sets, %v, %v", len(sets), b.left(t, "featurestore/"), err)
	}

	second := start()
	if second.ID == first.ID || len(q.queue()) != 2 {
		t.Fatalf("%+v after %+v", second, first)
	}
	if err := q.BuildTrainingSet(ctx, q.queue()[1]); err != nil {
		t.Fatal(err)
	}
	done, err := q.TrainingSetBuild(ctx, "acme", second.ID)
	if err != nil || done.State != featurestore.BuildDone || done.Rows != 2 || done.RowsDone != done.RowsTotal || done.RowsTotal != 6 || done.Digest == "" { // a view, the expression, the file
		t.Fatalf("%+v, %v", done, err)
	}
	if plain, err := b.store.CreateTrainingSet(ctx, ann, b.request(spine)); err != nil || plain.Digest != done.Digest {
		t.Errorf("without a build: %s, %v; with one: %s", plain.Digest, err, done.Digest)
	}
	if r, err := b.store.RebuildTrainingSet(ctx, ann, done.Digest); err != nil || !r.Equal {
		t.Errorf("rebuild: %+v, %v", r, err)
	}
	if _, err := q.CancelTrainingSetBuild(ctx, "acme", second.ID); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("a build that is done was cancelled: %v", err)
	}
	if err := q.BuildTrainingSet(ctx, q.queue()[1]); err != nil || len(b.left(t, "featurestore/builds/")) != 0 {
		t.Errorf("the same job again: %v, left %v", err, b.left(t, "featurestore/builds/"))
	}
	if third := start(); third.State != featurestore.BuildDone || third.Digest != done.Digest || len(q.queue()) != 2 {
		t.Errorf("what is there is made again: %+v", third)
	}
	if list, next, err := q.TrainingSetBuilds(ctx, "acme", featurestore.Page{Size: 2}); err != nil || len(list) != 2 || next == "" {
		t.Errorf("%d builds, next %q, %v", len(list), next, err)
	} else if rest, next, err := q.TrainingSetBuilds(ctx, "acme", featurestore.Page{Size: 2, Token: next}); err != nil || len(rest) != 1 || next != "" || rest[0].ID != first.ID {
		t.Errorf("%+v, next %q, %v", rest, next, err)
	}
}

// What is wrong with a spine is said to whoever waits, in the words that he would get without a job.
func TestBuild_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	q := queueing(t, b)
	spine := "warehouse,km,at,late\nny,2," + b.now.Format(time.RFC3339) + ",1\nny,far," + b.now.Format(time.RFC3339) + ",1\n"
	_, want := b.store.CreateTrainingSet(ctx, ann, b.request(spine))
	if waybill.CodeOf(want) != waybill.Invalid {
		t.Fatal(want)
	}
	got := make(chan error)
	go func() {
		_, err := q.CreateTrainingSet(ctx, ann, b.request(spine))
		got <- err
	}()
	for len(q.queue()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := q.BuildTrainingSet(ctx, q.queue()[0]); err != nil {
		t.Fatalf("a recipe that is wrong is tried again: %v", err)
	}
	if err := <-got; waybill.CodeOf(err) != waybill.Invalid || err.Error() != want.Error() || !strings.Contains(err.Error(), "line 3, km") {
		t.Errorf("%v, want %v", err, want)
	}
	if left := b.left(t, "featurestore/builds/"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// The error of a build, which is kept and shown to all who may read builds, names the row and the column and says what would be
// right. It does not tell what stands there, which may be personal.
func TestBuild_TellsNoCell(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, everyType)
	b.apply(t, "kind: Service\nname: logs\ninputs: [{name: warehouse, type: string, pattern: 'W.*'}, {name: x, type: float64, min: 0}, {name: tags, type: \"list<int64>\"}]\n"+
		"features: [\"warehouse_load@latest:queue\"]\nexpressions: [{name: cut, type: float64, expr: \"1.0 / (x - 77.5)\"}, {name: picked, type: int64, expr: \"tags[0] / tags[1]\"}]\n")
	q := queueing(t, b)
	at := b.now.Format(time.RFC3339)
	for _, c := range []struct{ service, spine, want string }{
		{"route-risk", "warehouse,km,at,late\nny,2," + at + ",1\nny,erika@example.com," + at + ",1\n", "line 3, km: is text; give float64"},
		{"route-risk", "warehouse,km,at,late\nny,2,erika@example.com,1\n", "line 2, at: is text; give a time as 2026-04-10T18:00:00Z"},
		{"route-risk", "warehouse,km,at,late\nny,2,1876-05-04,1\n", "line 2, at: is text; give a time in the years 1900 to 2200"},
		{"route-risk", "warehouse,km,at,late\nny,2," + at + ",1e999\n", "line 2, late: is infinite or too large for float64; give a finite number"},
		{"all", "thing,price,at,late\nerika!,1," + at + ",1\n", "line 2, thing: is text that is not base64; give bytes in base64"},
		{"all", "thing,price,at,late\nAQ==,1.23456789012," + at + ",1\n", "line 2, price: is text, which is not a decimal number of at most 38 digits, 9 of them after the point"},
		{"logs", "warehouse,x,at,late\nErika Muster,1," + at + ",1\n", "line 2, warehouse: is text that does not match W.*"},
		{"logs", "warehouse,x,at,late\nW,-77.5," + at + ",1\n", "line 2, x: is outside 0 to ∞"},
		{"logs", "warehouse,x,tags,at,late\nW,1,\"[1,\"\"erika\"\"]\"," + at + ",1\n", "line 2, tags: has an element [1] that is text; give int64"},
		{"logs", "warehouse,x,tags,at,late\nW,1,\"[77,0]\"," + at + ",1\n", "line 2, the expressions: expressions[1].expr has no result for this row, or none of its type"},
	} {
		req := b.request(c.spine)
		req.Service.Name = c.service
		k, err := q.StartTrainingSet(ctx, ann, req)
		if err != nil {
			t.Fatalf("%s: %v", c.want, err)
		}
		if err := q.BuildTrainingSet(ctx, k.ID.String()); err != nil {
			t.Fatalf("%s: %v", c.want, err)
		}
		if k, err = q.TrainingSetBuild(ctx, "acme", k.ID); err != nil || k.State != featurestore.BuildFailed || waybill.CodeOf(k.Err) != waybill.Invalid || !strings.HasPrefix(k.Err.Error(), c.want) {
			t.Errorf("%+v, %v; want %s", k, err, c.want)
		}
		var kept string
		if err := b.pool.QueryRow(ctx, "SELECT error::text FROM featurestore.training_set_build WHERE id = $1", k.ID).Scan(&kept); err != nil {
			t.Fatal(err)
		}
		for _, cell := range []string{"rika", "1876", "77", "1.2345", "1e999"} {
			if strings.Contains(kept, cell) || strings.Contains(q.log(), cell) {
				t.Errorf("%s is kept with %s\n%s", kept, cell, q.log())
			}
		}
	}
}

// A build whose hub stops when all views are joined goes on with what was kept, also when a part of that is damaged, and
// gives the bytes of one that nothing happened to.
func TestBuild_GoesOn(t *testing.T) {
	t.Parallel()
	for _, damage := range []bool{false, true} {
		b := setup(t)
		b.fillBoth(t)
		q := queueing(t, b)
		req := featurestore.TrainingSetRequest{FullNames: true}
		b.recipe(&req)
		k, err := q.StartTrainingSet(context.Background(), ann, req)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		q.clock = func() time.Time { // it is asked the time again when the rows are joined, or when the progress is written
			if len(b.left(t, "featurestore/builds/")) > 1 { // the spine, and a part
				stop()
			}
			return b.clock()
		}
		if err := q.BuildTrainingSet(ctx, q.queue()[0]); err == nil || ctx.Err() == nil {
			t.Fatalf("the build was not stopped: %v, %v", err, b.left(t, "featurestore/builds/"))
		}
		q.clock = b.clock
		if k, err = q.TrainingSetBuild(context.Background(), "acme", k.ID); err != nil || k.State != featurestore.BuildWaiting {
			t.Fatalf("%+v, %v", k, err)
		}
		if damage {
			for _, key := range b.left(t, "featurestore/builds/") {
				if strings.Contains(key, "/part-") {
					if _, err := b.bucket.Put(context.Background(), key, strings.NewReader("other bytes"), 11); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if err := q.BuildTrainingSet(context.Background(), q.queue()[0]); err != nil {
			t.Fatal(err)
		}
		if k, err = q.TrainingSetBuild(context.Background(), "acme", k.ID); err != nil || k.State != featurestore.BuildDone {
			t.Fatalf("%+v, %v", k, err)
		}
		if kept := strings.Contains(q.log(), "is taken over"); kept == damage {
			t.Errorf("damaged %t, and a part was taken over: %t\n%s", damage, kept, q.log())
		}
		if r, err := b.store.RebuildTrainingSet(context.Background(), ann, k.Digest); err != nil || !r.Equal {
			t.Errorf("%+v, %v", r, err)
		}
		if left := b.left(t, "featurestore/builds/"); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
}

// What hubs that died left of builds, snapshots and uploads goes when it is old, unless the build is to go on or a snapshot
// names the part.
func TestCompaction_OldObjectsGo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.at(waybill.SystemClock()) // as the bucket's clock
	q := queueing(t, b)
	k, err := q.StartTrainingSet(ctx, ann, b.request("warehouse,km,at,late\nny,2,"+b.now.Format(time.RFC3339)+",1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.push("1", load("ny", b.now, 0.5)); err != nil {
		t.Fatal(err)
	}
	s, err := featurestore.Open(ctx, b.pool, b.bucket, featurestore.Config{Clock: b.clock, SnapshotRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	id := waybill.NewID(b.now).String()
	named := b.left(t, "featurestore/snapshots/")
	if len(named) != 1 {
		t.Fatalf("snapshots have the parts %v", named)
	}
	for _, orphan := range []string{"featurestore/builds/" + id + "/spine", "featurestore/snapshots/" + strings.Repeat("ab", 32), "staging/" + id} {
		if _, err := b.bucket.Put(ctx, orphan, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		after                   time.Duration
		builds, parts, uploaded int
	}{{time.Hour, 2, 2, 1}, {25 * time.Hour, 1, 1, 0}} {
		b.at(b.now.Add(c.after))
		if err := b.store.Compact(ctx, 4, nil); err != nil {
			t.Fatal(err)
		}
		if left := b.left(t, "featurestore/builds/"); len(left) != c.builds || !strings.Contains(strings.Join(left, " "), k.ID.String()) {
			t.Errorf("after %s: %v", c.after, left)
		}
		if left := b.left(t, "featurestore/snapshots/"); len(left) != c.parts || !slices.Contains(left, named[0]) {
			t.Errorf("after %s: %v", c.after, left)
		}
		if left := b.left(t, "staging/"); len(left) != c.uploaded {
			t.Errorf("after %s: %v", c.after, left)
		}
	}
}
