package featurestore_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

// work runs the newest job and returns its build.
func (q *queued) work(t *testing.T, id waybill.ID) featurestore.Build {
	t.Helper()
	jobs := q.queue()
	if jobs[len(jobs)-1] != id.String() {
		t.Fatalf("the newest job is %s, not %s", jobs[len(jobs)-1], id)
	}
	if err := q.BuildTrainingSet(context.Background(), id.String()); err != nil {
		t.Fatal(err)
	}
	b, err := q.TrainingSetBuild(context.Background(), "acme", id)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sets counts training sets.
func (b *bundle) sets(t *testing.T) int {
	t.Helper()
	list, _, err := b.store.TrainingSets(context.Background(), "acme", featurestore.Page{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A rebuild is a build: one for all who ask, and what came of it is in it.
func TestBuild_Rebuild(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.fillBoth(t)
	q := queueing(t, b)
	base, err := b.both(t, featurestore.TrainingSetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := q.StartRebuild(ctx, ann, base.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if first.Kind != featurestore.BuildRebuild || first.State != featurestore.BuildWaiting || first.Base != base.Digest || first.Name != base.Name || first.Digest != "" {
		t.Errorf("%+v", first)
	}
	waiter := make(chan featurestore.Rebuild)
	go func() { // gets the same
		r, err := q.RebuildTrainingSet(ctx, ann, base.Digest)
		if err != nil {
			t.Error(err)
		}
		waiter <- r
	}()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := q.RebuildTrainingSet(gone, ann, base.Digest); err == nil {
		t.Error("who went away has an answer")
	}
	if _, err := q.StartRebuild(ctx, waybill.Actor{ID: "eve", Tenant: "other"}, base.Digest); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
	done := q.work(t, first.ID)
	if r := done.Rebuilt(); done.State != featurestore.BuildDone || !r.Equal || r.Digest != base.Digest || r.Explanation != "" || done.RowsDone != done.RowsTotal || done.Rows != base.Rows || done.RowsTotal < 5*base.Rows {
		t.Errorf("%+v: %+v", done, r)
	}
	if r := <-waiter; !r.Equal || len(q.queue()) != 1 {
		t.Errorf("who waited: %+v, %d jobs", r, len(q.queue()))
	}
	if n := b.sets(t); n != 1 || len(b.left(t, "featurestore/builds/")) != 0 {
		t.Errorf("%d sets, left %v", n, b.left(t, "featurestore/builds/"))
	}
	if k, err := q.StartRebuild(ctx, ann, base.Digest); err != nil || k.ID == first.ID {
		t.Errorf("after the end it is made again: %+v, %v", k, err)
	} else if k, err = q.CancelTrainingSetBuild(ctx, "acme", k.ID); err != nil || k.State != featurestore.BuildCancelled {
		t.Errorf("%+v, %v", k, err)
	}
	for field, why := range map[string]string{"name": "a defect", "kernel": "was made by kernel"} { // of sets that were recorded with another digest
		forged := map[string]string{"name": strings.Repeat("a", 64), "kernel": strings.Repeat("b", 64)}[field]
		if _, err := b.pool.Exec(ctx, "INSERT INTO featurestore.training_set SELECT (jsonb_populate_record(s, jsonb_build_object('digest', $1::text, $2::text, 'other'))).* FROM featurestore.training_set s WHERE digest = $3",
			forged, field, base.Digest); err != nil {
			t.Fatal(err)
		}
		k, err := q.StartRebuild(ctx, ann, forged)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Ended() { // the kernel is seen at once
			k = q.work(t, k.ID)
		}
		if r := k.Rebuilt(); k.State != featurestore.BuildDone || r.Equal || r.Digest == base.Digest || !strings.Contains(r.Explanation, why) {
			t.Errorf("with another %s: %+v: %+v", field, k, r)
		}
	}
}

// An ablation is a build: it goes on with what is finished when its hub stops in the middle, can be cancelled, and gives what
// it gives without a job.
func TestBuild_Ablate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.fillBoth(t)
	q := queueing(t, b)
	base, err := b.both(t, featurestore.TrainingSetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for field, groups := range map[string][]featurestore.AblationGroup{
		"groups[0].name":        {{Name: "a\x00"}},
		"groups[0].features[0]": {{Name: "x", Features: []string{"\xff"}}},
		"groups[1].name":        {{Name: "pair"}, {Name: "pair"}},
	} {
		if _, err := q.StartAblation(ctx, ann, base.Digest, groups); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), field) || len(q.queue()) != 0 {
			t.Errorf("%v with %d jobs, want invalid naming %s and none", err, len(q.queue()), field)
		}
	}
	bad, err := q.StartAblation(ctx, ann, base.Digest, []featurestore.AblationGroup{{Name: "pair"}, {Name: "nothing"}})
	if err != nil {
		t.Fatal(err)
	}
	if bad = q.work(t, bad.ID); bad.State != featurestore.BuildFailed || waybill.CodeOf(bad.Err) != waybill.Invalid || !strings.Contains(bad.Err.Error(), "groups[1].name") || b.sets(t) != 1 {
		t.Errorf("%+v, %d sets", bad, b.sets(t))
	}
	if _, err := q.Ablated(ctx, "acme", bad); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("what came of one that failed: %v", err)
	}

	k, err := q.StartAblation(ctx, ann, base.Digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := q.StartAblation(ctx, ann, base.Digest, nil); err != nil || same.ID != k.ID {
		t.Errorf("%+v, %v", same, err)
	}
	other, err := q.StartAblation(ctx, ann, base.Digest, []featurestore.AblationGroup{{Name: "pair"}})
	if err != nil || other.ID == k.ID {
		t.Fatalf("%+v, %v", other, err)
	}
	if _, err := q.CancelTrainingSetBuild(ctx, "acme", other.ID); err != nil {
		t.Fatal(err)
	}
	if other = q.work(t, other.ID); other.State != featurestore.BuildCancelled || b.sets(t) != 1 {
		t.Errorf("%+v, %d sets", other, b.sets(t))
	}
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	q.clock = func() time.Time {
		if b.sets(t) > 1 { // one variant is finished
			stop()
		}
		return b.clock()
	}
	if err := q.BuildTrainingSet(stopping, k.ID.String()); err == nil || stopping.Err() == nil {
		t.Fatalf("the build was not stopped: %v", err)
	}
	q.clock = b.clock
	if k, err = q.TrainingSetBuild(ctx, "acme", k.ID); err != nil || k.State != featurestore.BuildWaiting || b.sets(t) == 1 || b.sets(t) == 4 {
		t.Fatalf("%+v, %v, %d sets", k, err, b.sets(t))
	}
	if err := q.BuildTrainingSet(ctx, k.ID.String()); err != nil {
		t.Fatal(err)
	}
	if k, err = q.TrainingSetBuild(ctx, "acme", k.ID); err != nil || k.State != featurestore.BuildDone || k.RowsDone != k.RowsTotal || k.RowsTotal != 7*base.Rows { // three views, the expressions, three files
		t.Fatalf("%+v, %v", k, err)
	}
	got, err := q.Ablated(ctx, "acme", k)
	if err != nil {
		t.Fatal(err)
	}
	want, err := b.store.AblateTrainingSet(ctx, ann, base.Digest, nil)
	if err != nil || got.Digest != want.Digest || string(got.Manifest) != string(want.Manifest) || got.Base.Digest != base.Digest || len(got.Variants) != 3 || b.sets(t) != 4 {
		t.Fatalf("%+v, want %+v, %v; %d sets", got, want, err, b.sets(t))
	}
	for i, v := range got.Variants {
		if v.Digest != want.Variants[i].Digest || v.Group != want.Variants[i].Group || !slices.Equal(v.Without, want.Variants[i].Without) {
			t.Errorf("%+v, want %+v", v, want.Variants[i])
		}
	}
	if left := b.left(t, "featurestore/builds/"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
