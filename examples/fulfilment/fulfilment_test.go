package fulfilment_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/examples/fulfilment"
)

var now = time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)

// TestScenario_Seeded: the same seed is the same world, another seed another one.
func TestScenario_Seeded(t *testing.T) {
	t.Parallel()
	a, b := fulfilment.New(fulfilment.Config{Seed: 1, Now: now, Shipments: 500}), fulfilment.New(fulfilment.Config{Seed: 1, Now: now, Shipments: 500})
	other := fulfilment.New(fulfilment.Config{Seed: 2, Now: now, Shipments: 500})
	if diff := cmp.Diff(a.Spine(), b.Spine()); diff != "" {
		t.Errorf("the same seed gave another spine:\n%s", diff)
	}
	if diff := cmp.Diff(a.Features(), b.Features()); diff != "" {
		t.Errorf("the same seed gave other features:\n%s", diff)
	}
	if !reflect.DeepEqual(a.Orders(50, now), b.Orders(50, now)) {
		t.Error("the same seed gave other orders")
	}
	if cmp.Equal(a.Spine(), other.Spine()) {
		t.Error("another seed gave the same spine")
	}
}

// TestScenario_Learnable: some shipments are late and most are not, no row lies after now, and no table leaks the future.
func TestScenario_Learnable(t *testing.T) {
	t.Parallel()
	s := fulfilment.New(fulfilment.Config{Seed: 7, Now: now, Shipments: 4000})
	rows := records(t, s.Spine())
	if len(rows)-1 != 4000 {
		t.Fatalf("%d rows, want 4000", len(rows)-1)
	}
	lateAt, timeAt := index(t, rows[0], "late"), index(t, rows[0], "event_time")
	late := 0.0
	for _, r := range rows[1:] {
		v, err := strconv.ParseFloat(r[lateAt], 64)
		if err != nil {
			t.Fatal(err)
		}
		late += v
		at, err := time.Parse(time.RFC3339, r[timeAt])
		if err != nil || at.After(now) {
			t.Fatalf("event time %s: after now, or %v", r[timeAt], err)
		}
	}
	if share := late / 4000; share < 0.1 || share > 0.5 {
		t.Errorf("%.1f %% come late; a model needs both kinds", 100*share)
	}
	for _, table := range s.Features() {
		rows := records(t, table)
		at := index(t, rows[0], "event_time")
		for _, r := range rows[1:] {
			if v, err := time.Parse(time.RFC3339, r[at]); err != nil || v.After(now) {
				t.Fatalf("%s: event time %s: after now, or %v", table.View, r[at], err)
			}
		}
	}
}

// TestScenario_Late refuses an action that no endpoint of the example gives.
func TestScenario_Late(t *testing.T) {
	t.Parallel()
	s := fulfilment.New(fulfilment.Config{Seed: 7, Now: now, Shipments: 10})
	o := s.Orders(1, now)[0]
	if _, err := s.Late(o, "WH-NY-1/CarrierX/NextDay"); err != nil {
		t.Error(err)
	}
	for _, action := range []string{"", "WH-NY-1", "WH-XX-1/CarrierX/NextDay", "WH-NY-1/Nobody/NextDay", "WH-NY-1/CarrierX/Teleport"} {
		if _, err := s.Late(o, action); err == nil {
			t.Errorf("%q was taken for an action", action)
		}
	}
}

// Lines as the open file has them: a byte-order mark, CR alone as line end, two styles of dates, words for dates.
const head = "\xef\xbb\xbfID,Country,Vendor,Shipment Mode,Fulfill Via,Product Group,PQ First Sent to Client Date,PO Sent to Vendor Date," +
	"Scheduled Delivery Date,Delivered to Client Date,Delivery Recorded Date,Line Item Quantity,Line Item Value\r"

const sample = head +
	"1,Côte d'Ivoire,Vendor A,Air,Direct Drop,ARV,Pre-PQ Process,Date Not Captured,2-Jun-06,2-Jun-06,5-Jun-06,19,551\r" + // 45 days before
	"2,Vietnam,\"Vendor, B\",N/A,From RDC,ARV,11/13/06,N/A - From RDC,30-Jan-07,3-Feb-07,4-Feb-07,1000,6200\r" + // late; decided when quoted
	"3,Vietnam,\"Vendor, B\",Air,From RDC,ARV,11/13/06,12/1/06,30-Jan-07,30-Jan-07,4-Feb-07,10,62\r" + // decided when ordered
	"4,Haiti,Vendor A,Air,Direct Drop,ARV,7/26/07,10/1/07,13-Aug-07,21-Aug-07,21-Aug-07,750,53992.5\r" + // ordered after the schedule
	"5,Haiti,Vendor A,Air,Direct Drop,ARV,7/26/07,7/27/07,soon,21-Aug-07,21-Aug-07,750,53992.5\r" +
	"6,Haiti,Vendor A,Air,Direct Drop,ARV,7/26/07,7/27/07,13-Aug-07,21-Aug-07,21-Aug-07,many,53992.5\r" +
	"7,Haiti,Vendor A\r"

func TestReadDeliveries(t *testing.T) {
	t.Parallel()
	got, err := fulfilment.ReadDeliveries(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	day := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	want := map[string]struct {
		decided time.Time
		late    bool
	}{
		"1": {day(2006, 4, 18), false},
		"2": {day(2006, 11, 13), true},
		"3": {day(2006, 12, 1), false},
		"4": {day(2007, 8, 12), true},
	}
	if len(got.All) != len(want) || got.Lines != 7 {
		t.Fatalf("%d of %d lines read, want 4 of 7; refused: %v", len(got.All), got.Lines, got.Refused)
	}
	for i, d := range got.All {
		if w := want[d.ID]; !d.Decided.Equal(w.decided) || d.Late() != w.late {
			t.Errorf("delivery %s: decided %s, late %t; want %s, %t", d.ID, d.Decided, d.Late(), w.decided, w.late)
		}
		if i > 0 && d.Decided.Before(got.All[i-1].Decided) {
			t.Error("not in the order of decisions")
		}
	}
	refused := map[string]int{"no date: Scheduled Delivery Date": 1, "no number: Line Item Quantity": 1, "not as many fields as the head": 1}
	if diff := cmp.Diff(refused, got.Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if _, err := fulfilment.ReadDeliveries(strings.NewReader("a,b\n1,2\n")); err == nil || !strings.Contains(err.Error(), `"ID"`) {
		t.Errorf("a file with other columns: %v; want an error that names the missing column", err)
	}
}

// TestDeliveries_NothingFromLater: what a decision may learn was recorded before; the model learns from nothing else.
func TestDeliveries_NothingFromLater(t *testing.T) {
	t.Parallel()
	ds, err := fulfilment.ReadDeliveries(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	checkSplit(t, ds, time.Date(2006, 12, 15, 0, 0, 0, 0, time.UTC), 1, 2, 1)
	checkDays(t, ds)
}

// TestDeliveries_RealFile checks the same on the real file, on machines that have it.
func TestDeliveries_RealFile(t *testing.T) {
	t.Parallel()
	shared := os.Getenv("WAYBILL_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	f, err := os.Open(filepath.Join(shared, "data", "scms_deliveries.csv.xz"))
	if err != nil {
		t.Logf("extra, and not run: there is no file of real deliveries here: %v", err)
		return
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	ds, err := fulfilment.ReadDeliveries(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(ds.All) != 10_324 || ds.Lines != 10_324 {
		t.Errorf("%d of %d lines read, want 10324 of 10324: %v", len(ds.All), ds.Lines, ds.Refused)
	}
	checkSplit(t, ds, time.Date(2013, 3, 14, 0, 0, 0, 0, time.UTC), 6696, 510, 3118)
	checkDays(t, ds)
}

func checkSplit(t *testing.T, ds fulfilment.Deliveries, at time.Time, learned, gap, later int) {
	t.Helper()
	s := ds.Split(at)
	if s.Spine.Rows != learned || s.Gap != gap || len(s.Later) != later {
		t.Errorf("%d to learn from, %d of use to neither, %d later; want %d, %d, %d", s.Spine.Rows, s.Gap, len(s.Later), learned, gap, later)
	}
	recorded := map[string]time.Time{}
	for _, d := range ds.All {
		recorded[d.ID] = d.Recorded
	}
	rows := records(t, s.Spine)
	id := index(t, rows[0], "delivery_id")
	for _, r := range rows[1:] {
		if !recorded[r[id]].Before(at) {
			t.Errorf("delivery %s was recorded on %s and is learned from on %s", r[id], recorded[r[id]], at)
		}
	}
}

// checkDays counts again, plainly, what was recorded up to each day.
func checkDays(t *testing.T, ds fulfilment.Deliveries) {
	t.Helper()
	outcomes := 0
	var last time.Time
	for n, day := range ds.Days() {
		if !day.At.After(last) {
			t.Fatal("days are not in order")
		}
		last = day.At
		outcomes += len(day.Outcomes)
		if n%50 != 0 {
			continue
		}
		for _, row := range day.Rows["vendor_history"] {
			orders := 0.0
			for _, d := range ds.All {
				if d.Vendor == row["vendor"] && !d.Recorded.After(day.At) {
					orders++
				}
			}
			if row["vendor_orders"] != orders {
				t.Errorf("%s on %s: %v orders, counted again %v", row["vendor"], day.At, row["vendor_orders"], orders)
			}
		}
	}
	if outcomes != len(ds.All) {
		t.Errorf("%d outcomes in all days, want %d", outcomes, len(ds.All))
	}
}

func records(t *testing.T, table fulfilment.Table) [][]string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(string(table.CSV))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func index(t *testing.T, head []string, name string) int {
	t.Helper()
	for i, h := range head {
		if h == name {
			return i
		}
	}
	t.Fatalf("no column %q in %v", name, head)
	return -1
}
