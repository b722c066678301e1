package featurestore_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
	"waybill/lineage"
)

func (b *bundle) retire(kind, ref string) error {
	r, err := waybill.ParseVersionRef("ref", ref)
	if err != nil {
		return err
	}
	_, err = b.store.Retire(context.Background(), ann, kind, r, "replaced")
	return err
}

// refuses demands a Conflict that names all of words.
func refuses(t *testing.T, err error, words ...string) {
	t.Helper()
	if waybill.CodeOf(err) != waybill.Conflict {
		t.Fatalf("got %v, want a conflict that names %q", err, words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v does not name %q", err, w)
		}
	}
}

// A version is retired from its consumers down, each refusal naming who is in the way, and nothing new is made of it after.
func TestRetire_FromTheConsumersDown(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	if _, err := b.push("one", load("W1", b.now, 0.5)); err != nil {
		t.Fatal(err)
	}
	b.at(b.now.Add(time.Second))
	spine := fmt.Sprintf("warehouse,km,event_time\nW1,2,%s\n", b.now.Format(time.RFC3339))
	request := func() featurestore.TrainingSetRequest {
		return featurestore.TrainingSetRequest{Name: "set", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV, TimeColumn: "event_time", Spine: strings.NewReader(spine)}
	}
	set, err := b.store.CreateTrainingSet(ctx, ann, request())
	if err != nil {
		t.Fatal(err)
	}
	v1 := waybill.VersionRef{Name: "route-risk", Version: 1}
	b.consume(t, v1, "model:late-risk@v1", "model:gone@v1", "endpoint:route@v1")
	live := featurestore.Config{Clock: b.clock, Live: func(_ context.Context, tenant waybill.Tenant, m waybill.VersionRef) (bool, error) {
		return tenant == "acme" && m.Name != "gone", nil
	}}
	if b.store, err = featurestore.Open(ctx, b.pool, b.bucket, live); err != nil {
		t.Fatal(err)
	}
	refuses(t, b.retire("view", "warehouse_load@v1"), "service:route-risk@v1", "model:late-risk@v1", "endpoint:route@v1")
	err = b.retire("service", "route-risk@v1")
	refuses(t, err, "model:late-risk@v1", "endpoint:route@v1")
	if strings.Contains(err.Error(), "gone") {
		t.Errorf("a model that never serves again is no consumer: %v", err)
	}
	// The endpoint moves on and the model is retired: nothing is in the way any more.
	b.consume(t, waybill.VersionRef{Name: "other", Version: 1}, "endpoint:route@v2")
	live.Live = func(context.Context, waybill.Tenant, waybill.VersionRef) (bool, error) { return false, nil }
	if b.store, err = featurestore.Open(ctx, b.pool, b.bucket, live); err != nil {
		t.Fatal(err)
	}
	refuses(t, b.retire("view", "warehouse_load@v1"), "service:route-risk@v1")
	if err := b.retire("service", "route-risk@v1"); err != nil {
		t.Fatal(err)
	}
	refuses(t, b.retire("service", "route-risk@v1"), "was retired by ann", "replaced")
	if err := b.retire("view", "warehouse_load@v1"); err != nil {
		t.Fatal(err)
	}

	// Nothing new.
	_, err = b.push("two", load("W1", b.now, 0.6))
	refuses(t, err, "warehouse_load@v1", "replaced")
	_, err = b.ingest("three", featurestore.CSV, "warehouse,event_time\nW1,2026-04-01T11:00:00Z\n")
	refuses(t, err, "warehouse_load@v1")
	_, err = b.stream("four", featurestore.Reject, func() (header, body []byte, err error) {
		t.Error("a stream for a retired view is read")
		return nil, nil, io.EOF
	})
	refuses(t, err, "warehouse_load@v1", "replaced")
	_, err = b.store.CreateTrainingSet(ctx, ann, request())
	refuses(t, err, "route-risk@v1")
	refuses(t, b.store.RefuseRetired(ctx, "acme", "service", v1), "replaced")
	newService := strings.Replace(definitions[strings.Index(definitions, "kind: Service"):], "route-risk", "second", 1)
	d, err := featurestore.ParseDefinitions([]byte(newService))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.store.Apply(ctx, ann, d, "new")
	refuses(t, err, "service second", "warehouse_load@v1")
	if got := b.apply(t, definitions); actions(got) != "none warehouse_load@v1, none route-risk@v1" || !strings.Contains(got[0].Summary, "retired: replaced") {
		t.Errorf("%+v", got)
	}
	if d, err = featurestore.ParseDefinitions([]byte(strings.Replace(definitions, "ops@", "floor@", 1))); err != nil {
		t.Fatal(err)
	}
	_, err = b.store.Apply(ctx, ann, d, "new")
	refuses(t, err, "warehouse_load@v1", "replaced")
	info, err := b.store.ViewInfo(ctx, "acme", waybill.VersionRef{Name: "warehouse_load", Version: 1})
	if err != nil || info.Retired == nil || info.Retired.Actor != "ann" || len(info.Consumers) != 0 {
		t.Errorf("%+v, %v", info, err)
	}

	// What exists goes on, and a new version does as well.
	if r, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !r.Equal {
		t.Errorf("rebuild: %+v, %v", r, err)
	}
	if cells := b.read(t, b.store, "W1"); cells[0].Value != 0.5 {
		t.Errorf("cells: %+v", cells)
	}
	if got := b.apply(t, strings.Replace(definitions, "6h", "12h", 1)); actions(got) != "version warehouse_load@v2, version route-risk@v2" {
		t.Errorf("%s", actions(got))
	}
	if _, err := b.push("two", load("W1", b.now, 0.6)); err != nil {
		t.Errorf("the new version takes rows in: %v", err)
	}

	// The change stands in the log and in the lineage.
	var leaf string
	if err := b.pool.QueryRow(ctx, "SELECT detail::text FROM audit.outbox WHERE subject = 'view:warehouse_load@v1' AND detail->>'action' = 'retire' AND actor = 'ann'").Scan(&leaf); err != nil || !strings.Contains(leaf, "replaced") {
		t.Errorf("leaf %s: %v", leaf, err)
	}
}

func TestRetire_Refuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		kind, ref, reason string
		want              waybill.Code
	}{
		{"model", "m@v1", "x", waybill.Invalid}, {"view", "warehouse_load", "x", waybill.Invalid}, {"view", "warehouse_load@v1", " ", waybill.Invalid},
		{"view", "warehouse_load@v9", "x", waybill.NotFound}, {"service", "nothing@v1", "x", waybill.NotFound},
	} {
		ref, err := waybill.ParseVersionRef("ref", c.ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.Retire(context.Background(), ann, c.kind, ref, c.reason); waybill.CodeOf(err) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Writers that race with the retirement: each push is either in the log before it, or refused.
func TestRetire_StopsWritersUnderTheLock(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.apply(t, "kind: View\nname: lonely\nentity: {name: k, keys: [{name: k, type: int64}]}\nfeatures: [{name: x, type: int64}]\n")
	start := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := int64(0)
	for w := range 8 {
		wg.Go(func() {
			<-start
			for i := range 20 {
				_, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "lonely"}, BatchID: fmt.Sprint(w, "/", i),
					Rows: []map[string]any{{"k": float64(i), "x": float64(w), "event_time": b.now.Format(time.RFC3339)}}})
				switch waybill.CodeOf(err) {
				case "":
					mu.Lock()
					accepted++
					mu.Unlock()
				case waybill.Conflict:
					return
				default:
					t.Error(err)
				}
			}
		})
	}
	close(start)
	if err := b.retire("view", "lonely@v1"); err != nil {
		t.Fatal(err)
	}
	var end int64
	const logEnd = "SELECT seq FROM featurestore.log WHERE view = 'lonely'"
	if err := b.pool.QueryRow(ctx, logEnd).Scan(&end); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	var last, rows int64
	if err := b.pool.QueryRow(ctx, logEnd).Scan(&last); err != nil {
		t.Fatal(err)
	}
	if err := b.pool.QueryRow(ctx, "SELECT count(*) FROM featurestore.commit WHERE view = 'lonely'").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if last != end || last != accepted || rows != accepted {
		t.Errorf("the log ended at %d when the view was retired, and then at %d; %d were accepted, %d are there", end, last, accepted, rows)
	}
}

func TestUsers_AreTheNewestRevisions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s1, s2 := waybill.VersionRef{Name: "s", Version: 1}, waybill.VersionRef{Name: "s", Version: 2}
	b.consume(t, s1, "endpoint:a@v1", "endpoint:a@v2", "endpoint:b@v9", "model:m@v3")
	b.consume(t, s2, "endpoint:b@v10")
	for _, c := range []struct{ node, want lineage.Node }{{"service:s@v1", "[endpoint:a@v2 model:m@v3]"}, {"service:s@v2", "[endpoint:b@v10]"}, {"service:s@v3", "[]"}} {
		got, err := lineage.Users(context.Background(), b.pool, "acme", c.node)
		if err != nil || fmt.Sprint(got) != string(c.want) {
			t.Errorf("%s: %v, %v, want %s", c.node, got, err, c.want)
		}
	}
	if got, err := lineage.Users(context.Background(), b.pool, "other", "service:s@v1"); err != nil || len(got) != 0 {
		t.Errorf("another tenant: %v, %v", got, err)
	}
}
