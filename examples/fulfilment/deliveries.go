package fulfilment

import (
	"bufio"
	"bytes"
	stdcsv "encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// maxDeliveries bounds a file; maxDeliveryBytes bounds it unpacked.
const (
	maxDeliveries    = 200_000
	maxDeliveryBytes = 256 << 20
)

// Delivery is one line of a file of deliveries.
type Delivery struct {
	ID                                      string
	Country, Vendor, Mode, Via, Group       string
	Decided, Scheduled, Delivered, Recorded time.Time // days, UTC
	Quantity, Value                         float64
}

// Late reports whether it came after its scheduled day.
func (d Delivery) Late() bool { return d.Delivered.After(d.Scheduled) }

// LeadDays is how many days there were between the decision and the scheduled day.
func (d Delivery) LeadDays() float64 { return d.Scheduled.Sub(d.Decided).Hours() / 24 }

// Request is what the endpoint delivery is asked. It holds nothing that was not known on the day of the decision: freight
// cost, insurance and weight are known when the goods are packed and are left out.
func (d Delivery) Request() map[string]any {
	return map[string]any{"delivery_id": d.ID, "vendor": d.Vendor, "country": d.Country, "shipment_mode": d.Mode, "fulfil_via": d.Via, "product_group": d.Group,
		"quantity": d.Quantity, "value_usd": d.Value, "lead_days": math.Max(-3650, math.Min(3650, d.LeadDays()))}
}

// Deliveries is a file of deliveries, in the order of their decisions.
type Deliveries struct {
	All     []Delivery
	Lines   int
	Refused map[string]int // reason → lines
}

// Columns are what a file of deliveries must have, among any others and in any order.
func Columns() []string {
	return []string{"ID", "Country", "Vendor", "Shipment Mode", "Fulfill Via", "Product Group", "PQ First Sent to Client Date", "PO Sent to Vendor Date",
		"Scheduled Delivery Date", "Delivered to Client Date", "Delivery Recorded Date", "Line Item Quantity", "Line Item Value"}
}

// planned is how long before the scheduled day an order without any known date is taken to be decided.
const planned = 45 * 24 * time.Hour

// ReadDeliveries reads the open data set of health supply deliveries ("SCMS Delivery History", a US agency's), as it is:
// CSV, plain or in an xz archive, with a byte-order mark, lines that end in CR alone, dates in two styles and words in
// place of dates and numbers. A line without a readable schedule, delivery or record date is refused and counted.
//
// The day of the decision is the day the purchase order was sent to the vendor, else the day the price was quoted to the
// client, else 45 days before the scheduled day; never after the day before the scheduled one.
func ReadDeliveries(r io.Reader) (Deliveries, error) {
	out := Deliveries{Refused: map[string]int{}}
	br := bufio.NewReader(r)
	if magic, err := br.Peek(6); err == nil && string(magic) == "\xfd7zXZ\x00" {
		x, err := xz.NewReader(br)
		if err != nil {
			return out, fmt.Errorf("open xz: %w", err)
		}
		br = bufio.NewReader(x)
	}
	raw, err := io.ReadAll(io.LimitReader(br, maxDeliveryBytes+1))
	if err != nil {
		return out, fmt.Errorf("read deliveries: %w", err)
	}
	if len(raw) > maxDeliveryBytes {
		return out, fmt.Errorf("read deliveries: more than %d MiB", maxDeliveryBytes>>20)
	}
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
	cr := stdcsv.NewReader(bytes.NewReader(raw))
	cr.FieldsPerRecord = -1
	head, err := cr.Read()
	if errors.Is(err, io.EOF) {
		return out, errors.New("read the head: the file is empty")
	}
	if err != nil {
		return out, fmt.Errorf("read the head: %w", err)
	}
	at := map[string]int{}
	for i, h := range head {
		at[strings.TrimSpace(h)] = i
	}
	var missing []string
	for _, need := range Columns() {
		if _, ok := at[need]; !ok {
			missing = append(missing, strconv.Quote(need))
		}
	}
	if n := len(missing); n > 3 {
		missing = append(missing[:3], fmt.Sprintf("and %d more", n-3))
	}
	if len(missing) > 0 {
		return out, fmt.Errorf("read the head: there is no column %s", strings.Join(missing, ", "))
	}
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		out.Lines++
		if err != nil || len(rec) != len(head) {
			out.Refused["not as many fields as the head"]++
			continue
		}
		if out.Lines > maxDeliveries {
			return out, fmt.Errorf("read deliveries: more than %d lines", maxDeliveries)
		}
		d, reason := delivery(func(name string) string { return strings.TrimSpace(rec[at[name]]) })
		if reason != "" {
			out.Refused[reason]++
			continue
		}
		out.All = append(out.All, d)
	}
	slices.SortStableFunc(out.All, func(a, b Delivery) int { return a.Decided.Compare(b.Decided) })
	return out, nil
}

func delivery(get func(string) string) (d Delivery, refused string) {
	clean := func(name string) string {
		v := strings.ToValidUTF8(get(name), "?")
		if v == "" || v == "N/A" {
			return "unknown"
		}
		return v
	}
	d = Delivery{ID: clean("ID"), Country: clean("Country"), Vendor: clean("Vendor"), Mode: clean("Shipment Mode"), Via: clean("Fulfill Via"), Group: clean("Product Group")}
	var ok bool
	for _, f := range []struct {
		name string
		into *time.Time
	}{{"Scheduled Delivery Date", &d.Scheduled}, {"Delivered to Client Date", &d.Delivered}, {"Delivery Recorded Date", &d.Recorded}} {
		if *f.into, ok = date(get(f.name)); !ok {
			return d, "no date: " + f.name
		}
	}
	var err error
	if d.Quantity, err = strconv.ParseFloat(get("Line Item Quantity"), 64); err != nil || d.Quantity < 0 {
		return d, "no number: Line Item Quantity"
	}
	if d.Value, err = strconv.ParseFloat(get("Line Item Value"), 64); err != nil || d.Value < 0 {
		return d, "no number: Line Item Value"
	}
	if d.Decided, ok = date(get("PO Sent to Vendor Date")); !ok {
		if d.Decided, ok = date(get("PQ First Sent to Client Date")); !ok {
			d.Decided = d.Scheduled.Add(-planned)
		}
	}
	if last := d.Scheduled.AddDate(0, 0, -1); d.Decided.After(last) {
		d.Decided = last
	}
	return d, ""
}

// date reads "2-Jun-06" and "11/13/06"; words are no date.
func date(s string) (time.Time, bool) {
	for _, layout := range []string{"2-Jan-06", "1/2/06", "1/2/2006", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// tally counts the recorded deliveries of one vendor, country, lane or mode.
type tally struct {
	n, late int
	recent  []Delivery // recorded in the last 180 days, oldest first
}

const (
	window   = 180 * 24 * time.Hour
	prior    = 10.0 // deliveries of the average that every share starts with
	priorOwn = 0.11 // their share of late ones: a planner's guess, the same before and after the split
)

func (t *tally) shares(now time.Time) (all, recent float64) {
	for len(t.recent) > 0 && now.Sub(t.recent[0].Recorded) > window {
		t.recent = t.recent[1:]
	}
	late := 0
	for _, d := range t.recent {
		if d.Late() {
			late++
		}
	}
	return (float64(t.late) + prior*priorOwn) / (float64(t.n) + prior), (float64(late) + prior*priorOwn) / (float64(len(t.recent)) + prior)
}

// Day is what became known on one day: rows for the views, and whose outcome.
type Day struct {
	At       time.Time
	Rows     map[string][]map[string]any // view → rows
	Outcomes []Delivery
}

// Known is when the rows of a day may be used: at its end.
func (d Day) Known() time.Time { return d.At.AddDate(0, 0, 1) }

// Days returns the history in the order in which it became known: for each day on which deliveries were recorded, the new
// shares of everything they touched. The rows of a day hold that day's records and nothing later.
func (ds Deliveries) Days() []Day {
	recorded := slices.Clone(ds.All)
	slices.SortStableFunc(recorded, func(a, b Delivery) int { return a.Recorded.Compare(b.Recorded) })
	groups := []struct {
		view   string
		prefix string
		key    func(Delivery) map[string]any
	}{
		{"vendor_history", "vendor", func(d Delivery) map[string]any { return map[string]any{"vendor": d.Vendor} }},
		{"country_history", "country", func(d Delivery) map[string]any { return map[string]any{"country": d.Country} }},
		{"lane_history", "lane", func(d Delivery) map[string]any { return map[string]any{"vendor": d.Vendor, "country": d.Country} }},
		{"mode_history", "mode", func(d Delivery) map[string]any { return map[string]any{"shipment_mode": d.Mode} }},
	}
	tallies := map[string]*tally{}
	var out []Day
	for i := 0; i < len(recorded); {
		day := Day{At: recorded[i].Recorded, Rows: map[string][]map[string]any{}}
		touched := map[string]map[string]any{}
		var order []string
		for ; i < len(recorded) && recorded[i].Recorded.Equal(day.At); i++ {
			d := recorded[i]
			day.Outcomes = append(day.Outcomes, d)
			for _, g := range groups {
				id := g.view + fmt.Sprint(g.key(d))
				t := tallies[id]
				if t == nil {
					t = &tally{}
					tallies[id] = t
				}
				t.n++
				if d.Late() {
					t.late++
				}
				t.recent = append(t.recent, d)
				if _, seen := touched[id]; !seen {
					row := g.key(d)
					row["view"], row["prefix"] = g.view, g.prefix
					touched[id] = row
					order = append(order, id)
				}
			}
		}
		for _, id := range order {
			row := touched[id]
			view, prefix := fmt.Sprint(row["view"]), fmt.Sprint(row["prefix"])
			delete(row, "view")
			delete(row, "prefix")
			row["event_time"] = day.Known().Format(time.RFC3339)
			all, recent := tallies[id].shares(day.At)
			row[prefix+"_orders"] = float64(tallies[id].n)
			row[prefix+"_late_share"], row[prefix+"_late_share_180d"] = all, recent
			day.Rows[view] = append(day.Rows[view], row)
		}
		out = append(out, day)
	}
	return out
}

// Split is a study of a file: what may be learned from, and what is decided afterwards.
type Split struct {
	At      time.Time
	Earlier []Delivery // decided and recorded before At
	Spine   Table      // the same as a training set's spine
	Later   []Delivery // decided at or after At
	Gap     int        // decided before At, recorded after: of no use to either
}

// Split cuts the deliveries at a day. Nothing that was recorded after it is learned from.
func (ds Deliveries) Split(at time.Time) Split {
	s := Split{At: at}
	var t csv
	t.line("delivery_id", "event_time", "vendor", "country", "shipment_mode", "fulfil_via", "product_group", "quantity", "value_usd", "lead_days", "late")
	quote := func(v string) string { return `"` + strings.ReplaceAll(v, `"`, `""`) + `"` }
	for _, d := range ds.All {
		switch {
		case !d.Decided.Before(at):
			s.Later = append(s.Later, d)
		case d.Recorded.Before(at):
			late := 0
			if d.Late() {
				late = 1
			}
			s.Earlier = append(s.Earlier, d)
			t.line(quote(d.ID), d.Decided, quote(d.Vendor), quote(d.Country), quote(d.Mode), quote(d.Via), quote(d.Group), d.Quantity, d.Value, d.LeadDays(), late)
		default:
			s.Gap++
		}
	}
	s.Spine = t.table("")
	return s
}
