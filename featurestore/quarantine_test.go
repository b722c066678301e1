package featurestore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
)

func (b *bundle) pushIn(mode featurestore.Mode, batch string, rows ...map[string]any) (featurestore.Commit, error) {
	return b.store.Push(context.Background(), ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: batch, Rows: rows, Mode: mode})
}

func (b *bundle) quarantined(t testing.TB, batch string) []featurestore.QuarantinedRow {
	t.Helper()
	list, next, err := b.store.Quarantined(context.Background(), ann.Tenant, waybill.VersionRef{Name: "warehouse_load"}, batch, featurestore.Page{Size: 1000})
	if err != nil || next != "" {
		t.Fatal(err, next)
	}
	return list
}

// reasons are the rows in their order: number, then what is wrong.
func reasons(list []featurestore.QuarantinedRow) (out []string) {
	for i := len(list) - 1; i >= 0; i-- {
		for _, v := range list[i].Reasons {
			out = append(out, fmt.Sprintf("%d %s: %s", list[i].Row, v.Field, v.Remedy))
		}
	}
	return out
}

func (b *bundle) commits(t testing.TB) (commits, rows int64) {
	t.Helper()
	v, err := b.store.ViewInfo(context.Background(), ann.Tenant, waybill.VersionRef{Name: "warehouse_load"})
	if err != nil {
		t.Fatal(err)
	}
	return v.Commits, v.Rows
}

func TestQuarantine_BadRowsWaitGoodOnesAreServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	late := load("WH-5", b.now, 0.5)
	delete(late, "event_time")
	rows := []map[string]any{
		load("WH-1", b.now, 0.1),
		load("WH-2", b.now, 7.0),
		{"warehouse": nil, "event_time": b.now.Format(time.RFC3339), "queue": "much", "staff": 1.5},
		load("WH-4", b.now.Add(time.Hour), 0.4),
		late,
		{"warehouse": "WH-6", "event_time": b.now.Format(time.RFC3339), "staff": 9007199254740993.0, "quue": 0.2},
		load("WH-7", b.now, 0.7),
	}
	if _, err := b.push("a", rows...); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "rows[1].queue") || !strings.Contains(err.Error(), "rows[5].quue") {
		t.Fatalf("reject mode: %v", err)
	}
	if n, _ := b.commits(t); n != 0 || len(b.quarantined(t, "")) != 0 {
		t.Fatal("a rejected batch left something")
	}
	first, err := b.pushIn(featurestore.Quarantine, "a", rows...)
	if err != nil || first.Rows != 2 || first.Quarantined != 5 || first.Seq != 1 || first.Duplicate {
		t.Fatalf("%+v, %v", first, err)
	}
	for wh, want := range map[string]featurestore.Status{"WH-1": featurestore.Present, "WH-2": featurestore.NotFound, "WH-4": featurestore.NotFound, "WH-6": featurestore.NotFound, "WH-7": featurestore.Present} {
		if got := b.read(t, b.store, wh)[0].Status; got != want {
			t.Errorf("%s is %s, want %s", wh, got, want)
		}
	}
	list := b.quarantined(t, "a")
	want := []string{
		"2 queue: is 7, outside 0 to 1",
		"3 warehouse: is null; string is required",
		`3 queue: is the text "much"; give float64`,
		"3 staff: is the number 1.5; give int64",
		"4 event_time: lies in the future (2026-04-01T13:00:00Z); at most five minutes are tolerated",
		"5 event_time: is null; give a time as 2026-04-10T18:00:00Z",
		"6 staff: is the number 9.007199254740992e+15, too large to be exact; give whole numbers from 2^53 on as text",
		"6 quue: is no column of view warehouse_load",
	}
	if diff := cmp.Diff(want, reasons(list)); diff != "" {
		t.Errorf("reasons: %s", diff)
	}
	for _, q := range list {
		if q.Seq != 1 || q.Actor != "ann" || q.BatchID != "a" || !q.At.Equal(b.now) || q.View.String() != "warehouse_load@v1" {
			t.Errorf("%+v", q)
		}
		var got map[string]any
		if err := json.Unmarshal(q.Values, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rows[q.Row-1], got); diff != "" {
			t.Errorf("row %d is kept as another: %s", q.Row, diff)
		}
	}

	// A repeat has the first answer, also when the clock would judge the rows otherwise by now.
	at := b.now
	b.at(b.now.Add(2 * time.Hour))
	second, err := b.pushIn(featurestore.Quarantine, "a", rows...)
	first.Duplicate = true
	if diff := cmp.Diff(first, second); err != nil || diff != "" {
		t.Errorf("repeat: %v %s", err, diff)
	}
	if n, r := b.commits(t); n != 1 || r != 2 || len(b.quarantined(t, "")) != 5 {
		t.Errorf("a repeat wrote: %d commits of %d rows", n, r)
	}
	for _, mode := range []featurestore.Mode{featurestore.Reject, featurestore.Quarantine} {
		// Other rows: those that were accepted, alone; or one more.
		for _, other := range [][]map[string]any{{rows[0], rows[6]}, append(rows[:1:1], load("WH-9", at, 0.9))} {
			if _, err := b.pushIn(mode, "a", other...); waybill.CodeOf(err) != waybill.Conflict {
				t.Errorf("the same id with other rows, %s: %v", mode, err)
			}
		}
	}
	if _, err := b.pushIn("keep", "b", rows...); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "mode") {
		t.Errorf("unknown mode: %v", err)
	}
}

func TestQuarantine_BatchWithoutGoodRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := b.pushIn(featurestore.Quarantine, "bad", load("WH-1", b.now, 2.0), load("WH-2", b.now, 3.0))
	if err != nil || c.Seq != 0 || c.Rows != 0 || c.Quarantined != 2 || !c.MinEvent.IsZero() || c.Digest != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if n, _ := b.commits(t); n != 0 {
		t.Error("a batch without good rows made a commit")
	}
	again, err := b.pushIn(featurestore.Quarantine, "bad", load("WH-1", b.now, 2.0), load("WH-2", b.now, 3.0))
	c.Duplicate = true
	if diff := cmp.Diff(c, again); err != nil || diff != "" {
		t.Errorf("repeat: %v %s", err, diff)
	}
	// The id stands for those rows, in every mode and by every way.
	for _, mode := range []featurestore.Mode{"", featurestore.Quarantine} {
		if c, err := b.pushIn(mode, "bad", load("WH-1", b.now, 0.2)); waybill.CodeOf(err) != waybill.Conflict {
			t.Errorf("%q: %+v, %v", mode, c, err)
		}
	}
	if c, err := b.ingest("bad", featurestore.CSV, "warehouse,queue,event_time\nWH-1,0.2,2026-04-01\n"); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("file: %+v, %v", c, err)
	}
	// And the other way round: an id of a commit is not taken for rows that are only held.
	if _, err := b.push("good", load("WH-3", b.now, 0.3)); err != nil {
		t.Fatal(err)
	}
	if c, err := b.pushIn(featurestore.Quarantine, "good", load("WH-3", b.now, 3.3)); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := b.pushIn(featurestore.Quarantine, "good", load("WH-3", b.now, 0.3), load("WH-3", b.now, 3.3)); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("the accepted rows and a bad one: %+v, %v", c, err)
	}
	if c, err := b.pushIn(featurestore.Quarantine, "good", load("WH-3", b.now, 0.3)); err != nil || !c.Duplicate || c.Quarantined != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if got := len(b.quarantined(t, "")); got != 2 {
		t.Errorf("%d rows wait, want 2", got)
	}
}

func TestQuarantine_Files(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := func(batch string, mode featurestore.Mode, body string) (featurestore.Commit, error) {
		return b.store.Ingest(context.Background(), ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: batch, Format: featurestore.CSV,
			Mode: mode, Columns: map[string]string{"wh": "warehouse"}, Body: strings.NewReader(body)})
	}
	body := "wh,queue,event_time\nWH-1,0.1,2026-04-01\n\"\",0.2,2026-04-01\nWH-3,x,2026-04-01\nWH-4,Inf,2026-04-01\nWH-5,NaN,2026-04-01T11:00:00Z\nWH-6,0.6,2300-01-01\n"
	if _, err := in("f", featurestore.Reject, body); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "line 3, warehouse") || !strings.Contains(err.Error(), "line 7, event_time") {
		t.Fatalf("%v", err)
	}
	c, err := in("f", featurestore.Quarantine, body)
	if err != nil || c.Rows != 2 || c.Quarantined != 4 {
		t.Fatalf("%+v, %v", c, err)
	}
	want := []string{
		"2 warehouse: is null; string is required",
		`3 queue: is the text "x"; give float64`,
		"4 queue: is infinite or too large for float64; give a finite number",
		`6 event_time: is the text "2300-01-01"; give a time in the years 1900 to 2200`,
	}
	if diff := cmp.Diff(want, reasons(b.quarantined(t, "f"))); diff != "" {
		t.Error(diff)
	}
	if got := b.read(t, b.store, "WH-5")[0].Status; got != featurestore.NullValue { // NaN is how tables write null
		t.Errorf("NaN is %s", got)
	}
	again, err := in("f", featurestore.Quarantine, body)
	c.Duplicate = true
	if diff := cmp.Diff(c, again); err != nil || diff != "" {
		t.Errorf("repeat: %v %s", err, diff)
	}
	if _, err := in("f", featurestore.Quarantine, strings.Replace(body, "0.1", "0.11", 1)); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("other content: %v", err)
	}
}

func TestQuarantine_BoundsAndClearing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	many := "warehouse,queue,event_time\n" + strings.Repeat("WH-1,2,2026-04-01\n", featurestore.MaxQuarantined) // all of them bad
	view := waybill.VersionRef{Name: "warehouse_load"}
	in := func(batch, body string) (featurestore.Commit, error) {
		return b.store.Ingest(ctx, ann, featurestore.IngestRequest{View: view, BatchID: batch, Format: featurestore.CSV, Mode: featurestore.Quarantine, Body: strings.NewReader(body)})
	}
	if _, err := in("over", many+"WH-1,3,2026-04-01\n"); waybill.CodeOf(err) != waybill.TooLarge || !strings.Contains(err.Error(), "10000 rows are bad") {
		t.Errorf("%v", err)
	}
	long := strings.Repeat("x", 60<<10)
	var heavy []map[string]any
	for range 200 {
		heavy = append(heavy, map[string]any{"warehouse": long, "event_time": "never"})
	}
	if _, err := b.pushIn(featurestore.Quarantine, "heavy", heavy...); waybill.CodeOf(err) != waybill.TooLarge || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("%v", err)
	}
	if len(b.quarantined(t, "")) != 0 {
		t.Fatal("something of a batch beyond the bounds was kept")
	}
	for i := range 10 { // 100,000 rows fill it
		if _, err := in(fmt.Sprint("fill", i), many); err != nil {
			t.Fatal(err)
		}
	}
	bad := []map[string]any{load("WH-1", b.now, 0.1), load("WH-2", b.now, 9.0)}
	if _, err := b.pushIn(featurestore.Quarantine, "one", bad...); waybill.CodeOf(err) != waybill.Exhausted || !strings.Contains(err.Error(), "nothing was written") {
		t.Fatalf("%v", err)
	}
	if n, _ := b.commits(t); n != 0 {
		t.Error("the good rows were written although the bad ones could not be")
	}
	if _, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: view, BatchID: "good", Rows: bad[:1], Mode: featurestore.Quarantine}); err != nil {
		t.Errorf("a batch that needs no quarantine: %v", err)
	}
	if c, err := in("fill3", many); err != nil || !c.Duplicate || c.Quarantined != featurestore.MaxQuarantined {
		t.Errorf("a repeat while it is full: %+v, %v", c, err)
	}
	// Pages are complete and in order.
	seen, token := int64(0), ""
	for last := int64(1 << 62); ; {
		list, next, err := b.store.Quarantined(ctx, ann.Tenant, view, "fill2", featurestore.Page{Size: 999, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range list {
			if q.ID >= last || q.BatchID != "fill2" {
				t.Fatalf("%+v after %d", q, last)
			}
			last = q.ID
			seen++
		}
		if token = next; next == "" {
			break
		}
	}
	if seen != featurestore.MaxQuarantined {
		t.Errorf("pages hold %d rows", seen)
	}
	if _, err := b.store.ClearQuarantine(ctx, ann, view, "fill2", ""); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("without a reason: %v", err)
	}
	if n, err := b.store.ClearQuarantine(ctx, ann, view, "fill2", "mended at the source"); err != nil || n != featurestore.MaxQuarantined {
		t.Errorf("%d, %v", n, err)
	}
	if c, err := b.pushIn(featurestore.Quarantine, "one", bad...); err != nil || c.Quarantined != 1 || c.Rows != 1 {
		t.Errorf("after it was cleared: %+v, %v", c, err)
	}
	if c, err := in("fill2", many); err != nil || !c.Duplicate || c.Quarantined != featurestore.MaxQuarantined {
		t.Errorf("a repeat of what was cleared: %+v, %v", c, err)
	}
	other := waybill.Actor{ID: "eve", Tenant: "other", Kind: waybill.Person}
	if _, _, err := b.store.Quarantined(ctx, other.Tenant, view, "", featurestore.Page{}); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
	if _, err := b.store.ClearQuarantine(ctx, other, view, "", "x"); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant clears: %v", err)
	}
}

func TestQuarantine_SameBatchAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	firsts := 0
	for range 8 {
		wg.Go(func() {
			c, err := b.pushIn(featurestore.Quarantine, "same", load("WH-1", b.now, 0.1), load("WH-2", b.now, 9.0))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || c.Rows != 1 || c.Quarantined != 1 || c.Seq != 1 {
				t.Errorf("%+v, %v", c, err)
			}
			if !c.Duplicate {
				firsts++
			}
		})
	}
	wg.Wait()
	if n, _ := b.commits(t); firsts != 1 || n != 1 || len(b.quarantined(t, "")) != 1 {
		t.Errorf("%d were the first, %d commits", firsts, n)
	}
}

// Whatever comes in: in mode quarantine every row is either served or waits, in mode reject a bad row keeps all out.
func TestQuarantine_NothingIsDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		var rows []map[string]any
		var good []bool
		for i := range rapid.IntRange(1, 12).Draw(rt, "rows") {
			r, ok := load(fmt.Sprintf("R%d-%d", n, i), b.now, 0.5), true
			switch rapid.IntRange(0, 8).Draw(rt, "fault") {
			case 0:
				r["queue"], ok = rapid.Float64Range(1.001, 1e9).Draw(rt, "queue"), false
			case 1:
				r["warehouse"], ok = nil, false
			case 2:
				r["event_time"], ok = b.now.Add(rapid.Custom(func(t *rapid.T) time.Duration {
					return time.Duration(rapid.IntRange(301, 1<<30).Draw(t, "s")) * time.Second
				}).Draw(rt, "ahead")).Format(time.RFC3339), false
			case 3:
				r["staff"], ok = true, false
			case 4:
				r["queue"] = nil
			case 5:
				r["q\x00"], ok = "x", false
			}
			rows, good = append(rows, r), append(good, ok)
		}
		want := 0
		for _, g := range good {
			if g {
				want++
			}
		}
		id := fmt.Sprint("p", n)
		if _, err := b.pushIn(featurestore.Reject, id+"r", rows...); (err == nil) != (want == len(rows)) {
			rt.Fatalf("reject: %v with %d of %d good", err, want, len(rows))
		}
		c, err := b.pushIn(featurestore.Quarantine, id+"q", rows...)
		if err != nil || int(c.Rows) != want || int(c.Quarantined) != len(rows)-want {
			rt.Fatalf("%+v, %v", c, err)
		}
		waits := map[int64]bool{}
		for _, q := range b.quarantined(t, id+"q") {
			waits[q.Row] = true
		}
		for i, g := range good {
			if waits[int64(i)+1] == g {
				rt.Fatalf("row %d: good is %v and waiting %v", i, g, waits[int64(i)+1])
			}
		}
	})
}
