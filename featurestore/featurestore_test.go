package featurestore_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/bucket"
	"waybill/internal/pgtest"
)

const definitions = `
kind: View
name: warehouse_load
owner: ops@example.com
entity: {name: warehouse, keys: [{name: warehouse, type: string}]}
ttl: 6h
features:
  - {name: queue, type: float64, min: 0, max: 1}
  - {name: staff, type: int64}
---
kind: Service
name: route-risk
inputs: [{name: warehouse, type: string}, {name: km, type: float64}]
features: ["warehouse_load@latest:queue", "warehouse_load:staff"]
expressions: [{name: pressure, type: float64, expr: "queue * km"}]
`

var ann = waybill.Actor{ID: "ann", Tenant: "acme", Kind: waybill.Person}

type bundle struct {
	pool   *pgxpool.Pool
	bucket *bucket.Bucket
	store  *featurestore.Store
	now    time.Time // the test's own; set by at
	shown  atomic.Pointer[time.Time]

	online, lost string // of Config
}

// at sets the clock of the store, whose own goroutines read it too.
func (b *bundle) at(now time.Time) { b.now = now; b.shown.Store(&now) }

func (b *bundle) clock() time.Time {
	if at := b.shown.Load(); at != nil {
		return *at
	}
	return b.now // it was never set anew
}

func setup(t testing.TB) *bundle { t.Helper(); return inMemory(t, definitions) }

// inMemory opens a store with some definitions, whose online rows are in memory.
func inMemory(t testing.TB, yaml string) *bundle {
	t.Helper()
	return begin(t, yaml, "memory", "error")
}

func begin(t testing.TB, yaml, online, lost string) *bundle {
	t.Helper()
	b := &bundle{pool: pgtest.DB(t), bucket: pgtest.TestBucket(t), online: online, lost: lost}
	b.at(time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC))
	b.store = b.open(t)
	b.apply(t, yaml)
	return b
}

// everywhere runs a test for every home of online rows that a setting can choose.
func everywhere(t *testing.T, test func(t *testing.T, setup func(t testing.TB, yaml string) *bundle)) {
	t.Run("Memory", func(t *testing.T) {
		t.Parallel()
		test(t, inMemory)
	})
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		test(t, func(t testing.TB, yaml string) *bundle { return begin(t, yaml, pgtest.Redis(t), "error") })
	})
}

func (b *bundle) open(t testing.TB) *featurestore.Store { t.Helper(); return b.openWith(t, 0) }

func (b *bundle) openWith(t testing.TB, snapshotRows int64) *featurestore.Store {
	t.Helper()
	s, err := featurestore.Open(context.Background(), b.pool, b.bucket, featurestore.Config{Clock: b.clock, SnapshotRows: snapshotRows, Online: b.online, OnlineLost: b.lost})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (b *bundle) apply(t testing.TB, yaml string) []featurestore.Change {
	t.Helper()
	d, err := featurestore.ParseDefinitions([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.store.Apply(context.Background(), ann, d, "a test")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bundle) push(batch string, rows ...map[string]any) (featurestore.Commit, error) {
	return b.store.Push(context.Background(), ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: batch, Rows: rows})
}

func load(warehouse string, at time.Time, queue any) map[string]any {
	return map[string]any{"warehouse": warehouse, "event_time": at.Format(time.RFC3339Nano), "queue": queue, "staff": 3.0}
}

func actions(cs []featurestore.Change) string {
	var s []string
	for _, c := range cs {
		s = append(s, c.Action+" "+c.Ref.String())
	}
	return strings.Join(s, ", ")
}

func TestApply_VersionsWhatItsUsersWouldNotice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct{ name, yaml, want string }{
		{"Same", definitions, "none warehouse_load@v1, none route-risk@v1"},
		{"Owner", strings.Replace(definitions, "ops@", "floor@", 1), "revision warehouse_load@v1, none route-risk@v1"},
		{"TTL", strings.Replace(definitions, "6h", "12h", 1), "version warehouse_load@v2, version route-risk@v2"},
		{"Expression", strings.Replace(definitions, "queue * km", "queue + km", 1), "version warehouse_load@v3, version route-risk@v3"},
	} {
		d, err := featurestore.ParseDefinitions([]byte(c.yaml))
		if err != nil {
			t.Fatal(err)
		}
		planned, err := b.store.Plan(context.Background(), ann, d)
		if err != nil {
			t.Fatal(err)
		}
		got := b.apply(t, c.yaml)
		if diff := cmp.Diff(planned, got); diff != "" {
			t.Errorf("%s: plan and apply differ: %s", c.name, diff)
		}
		if actions(got) != c.want {
			t.Errorf("%s: %s, want %s", c.name, actions(got), c.want)
		}
	}
}

func TestParseDefinitions_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ yaml, want string }{
		{"", "holds no document"},
		{"kind: Thing", "documents[0].kind"},
		{strings.Replace(definitions, "owner:", "owns:", 1), "owns"},
		{strings.Replace(definitions, "type: float64, min", "type: float, min", 1), "features[0].type"},
		{strings.Replace(definitions, "6h", "soon", 1), "ttl"},
		{strings.Replace(definitions, "name: queue", "name: event_time", 1), "reserved"},
	} {
		_, err := featurestore.ParseDefinitions([]byte(c.yaml))
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want invalid naming %s", err, c.want)
		}
	}
	b := setup(t)
	for _, c := range []struct{ old, new, want string }{
		{"warehouse_load@latest:queue", "warehouse_load@latest:nothing", "has no feature nothing"},
		{"{name: warehouse, type: string}, {name: km", "{name: km", "join key warehouse"},
		{"queue * km", "queue * kilometres", "expressions[0].expr"},
	} {
		d, err := featurestore.ParseDefinitions([]byte(strings.Replace(definitions, c.old, c.new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.Apply(context.Background(), ann, d, "x"); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want invalid naming %s", err, c.want)
		}
	}
}

func TestPush_AllOrNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.push("bad", load("W1", b.now, 0.5), load("W2", b.now, 1.5), load("W3", b.now.Add(time.Hour), "many"),
		map[string]any{"queue": 0.1, "event_time": "yesterday", "colour": "red"})
	if waybill.CodeOf(err) != waybill.Invalid {
		t.Fatal(err)
	}
	for _, field := range []string{"rows[1].queue", "rows[2].queue", "rows[2].event_time", "rows[3].event_time", "rows[3].warehouse", "rows[3].colour"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
	first, err := b.push("one", load("W1", b.now, 0.5))
	if err != nil || first.Seq != 1 || first.Duplicate {
		t.Fatalf("%+v, %v: the refused push must leave nothing", first, err)
	}
	at := b.now
	b.at(b.now.Add(time.Minute)) // a retry comes later
	again, err := b.push("one", load("W1", at, 0.5))
	if err != nil || !again.Duplicate || again.Seq != 1 || again.Digest != first.Digest {
		t.Fatalf("%+v, %v", again, err)
	}
	if other, err := b.push("one", load("W1", at, 0.9)); waybill.CodeOf(err) != waybill.Conflict {
		t.Fatalf("other rows under the same id would be lost: %+v, %v", other, err)
	}
	if next, err := b.push("two", load("W1", b.now, nil)); err != nil || next.Seq != 2 {
		t.Fatalf("%+v, %v", next, err)
	}
}

func TestReader_HonestStatuses(t *testing.T) {
	t.Parallel()
	everywhere(t, readerHonestStatuses)
}

func readerHonestStatuses(t *testing.T, setup func(testing.TB, string) *bundle) {
	ctx := context.Background()
	b := setup(t, definitions)
	if _, err := b.push("one", load("fresh", b.now.Add(-6*time.Hour), 0.5), load("stale", b.now.Add(-6*time.Hour-time.Microsecond), 0.5), load("null", b.now, nil)); err != nil {
		t.Fatal(err)
	}
	r, err := b.store.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
	if err != nil {
		t.Fatal(err)
	}
	for warehouse, want := range map[string]featurestore.Status{"fresh": featurestore.Present, "stale": featurestore.OutsideMaxAge, "null": featurestore.NullValue, "nowhere": featurestore.NotFound} {
		v, err := r.Read(ctx, b.now, []map[string]any{{"warehouse": warehouse, "km": 10.0}})
		if err != nil {
			t.Fatal(err)
		}
		cell := v[0].Cells[0]
		if cell.Status != want || (cell.Value != nil) != (want == featurestore.Present) || math.IsNaN(v[0].Values[0]) == (want == featurestore.Present) {
			t.Errorf("%s: %+v, want %s", warehouse, cell, want)
		}
		if pressure := v[0].Values[2]; want == featurestore.Present && pressure != 5 || want != featurestore.Present && !math.IsNaN(pressure) {
			t.Errorf("%s: pressure %v", warehouse, pressure)
		}
	}
	if _, err := r.Read(ctx, b.now, []map[string]any{{"km": 1.0}}); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "rows[0].warehouse") {
		t.Errorf("missing key: %v", err)
	}
	if _, err := b.store.Reader(ctx, "other", waybill.VersionRef{Name: "route-risk"}); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
}

// Random pushes in any order: what is served online is the winner, on the node that wrote, on a second one that
// follows and on a third that starts afterwards.
func TestOnline_IsTheWinnerEverywhere(t *testing.T) {
	t.Parallel()
	everywhere(t, onlineIsTheWinnerEverywhere)
}

func onlineIsTheWinnerEverywhere(t *testing.T, setup func(testing.TB, string) *bundle) {
	ctx, cancel := context.WithCancel(context.Background())
	b := setup(t, definitions)
	second := b.open(t)
	done := make(chan error, 1)
	go func() { done <- second.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	type best struct {
		event time.Time
		queue float64
	}
	want := map[string]best{}
	batch := 0
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(rt, "pushes") {
			batch++
			b.at(b.now.Add(time.Second))
			key := fmt.Sprintf("W%d", rapid.IntRange(0, 3).Draw(rt, "key"))
			event := b.now.Add(-time.Duration(rapid.IntRange(0, 5).Draw(rt, "age")) * time.Second)
			queue := rapid.Float64Range(0, 1).Draw(rt, "queue")
			if _, err := b.push(fmt.Sprint("b", batch), load(key, event, queue)); err != nil {
				rt.Fatal(err)
			}
			if w, ok := want[key]; !ok || !event.Before(w.event) { // same event time: learned later, wins
				want[key] = best{event, queue}
			}
		}
	})
	check := func(s *featurestore.Store) error {
		r, err := s.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
		if err != nil {
			return err
		}
		for key, w := range want {
			v, err := r.Read(ctx, b.now, []map[string]any{{"warehouse": key, "km": 1.0}})
			if err != nil {
				return err
			}
			if c := v[0].Cells[0]; c.Value != w.queue || !c.Event.Equal(w.event) {
				return fmt.Errorf("%s: %+v, want %+v", key, c, w)
			}
		}
		return nil
	}
	for name, s := range map[string]*featurestore.Store{"writer": b.store, "follower": second, "newcomer": b.open(t)} {
		if err := check(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncodeKey_NeverCollides(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(rapid.Map(rapid.Int64(), func(v int64) any { return v }), rapid.Map(rapid.String(), func(v string) any { return v }), rapid.Map(rapid.Bool(), func(v bool) any { return v }))
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOfN(value, 1, 3).Draw(t, "a"), rapid.SliceOfN(value, 1, 3).Draw(t, "b")
		if (featurestore.EncodeKey(a) == featurestore.EncodeKey(b)) != cmp.Equal(a, b) {
			t.Fatalf("%v and %v", a, b)
		}
	})
}
