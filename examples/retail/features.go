package retail

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The windows of the features, in days.
const (
	week  = 7
	month = 28
)

// Table is a CSV file for one view: a head, then rows.
type Table struct {
	View string
	CSV  []byte
	Rows int
}

// tally is what happened to an article on one day, or in several.
type tally struct {
	sold, returned, orders, mills int64
}

func (t *tally) add(o tally) {
	t.sold, t.returned, t.orders, t.mills = t.sold+o.sold, t.returned+o.returned, t.orders+o.orders, t.mills+o.mills
}

// Log makes the rows of the views out of orders. It never changes.
type Log struct {
	days        map[string]map[int]tally // by article and day
	skus        []string                 // sorted
	seen        map[string]int           // the first day of an article
	first, last int                      // days with lines
}

// NewLog counts orders by article and day.
func NewLog(o Orders) *Log {
	l := &Log{days: map[string]map[int]tally{}}
	if len(o.Lines) == 0 {
		return l
	}
	l.first, l.last = o.Lines[0].Day, o.Lines[0].Day
	type sight struct {
		sku, invoice string
	}
	seen := make(map[sight]bool, len(o.Lines)) // an invoice may name an article in several lines
	for _, line := range o.Lines {
		l.first, l.last = min(l.first, line.Day), max(l.last, line.Day)
		days := l.days[line.SKU]
		if days == nil {
			days = map[int]tally{}
			l.days[line.SKU] = days
		}
		t := days[line.Day]
		if line.Return {
			t.returned += line.Units
		} else {
			t.sold, t.mills = t.sold+line.Units, t.mills+line.Units*line.Mills
			if s := (sight{line.SKU, line.Invoice}); !seen[s] {
				seen[s] = true
				t.orders++
			}
		}
		days[line.Day] = t
	}
	l.skus, l.seen = slices.Sorted(maps.Keys(l.days)), make(map[string]int, len(l.days))
	for sku, days := range l.days {
		l.seen[sku] = slices.Min(slices.Collect(maps.Keys(days)))
	}
	return l
}

// SKUs lists the articles, sorted.
func (l *Log) SKUs() []string { return slices.Clone(l.skus) }

// Span returns the event times of the first and of the last rows: the ends of the first and of the last day.
func (l *Log) Span() (from, to time.Time) { return ending(l.first), ending(l.last) }

// ending is the end of a day, which is the first moment at which that day is over.
func ending(day int) time.Time { return time.Unix(int64(day+1)*24*3600, 0).UTC() }

// within counts an article over the n days before day end.
func within(days map[int]tally, end, n int) (out tally) {
	for d := end - n; d < end; d++ {
		out.add(days[d])
	}
	return out
}

// Tables returns the rows of both views with from < event time ≤ to, oldest first.
func (l *Log) Tables(from, to time.Time) []Table {
	var skus, families strings.Builder
	skus.WriteString("sku,event_time,units_7d,units_28d,orders_28d,returned_28d,revenue_28d,first_seen\n")
	families.WriteString("family,event_time,units_7d,units_28d,returned_28d\n")
	out := []Table{{View: "family_demand"}, {View: "sku_demand"}}
	// Rows are wanted for the ends of whole days: day end−1 is the last one that they count.
	for end := l.first + 1; end <= l.last+1; end++ {
		if at := ending(end - 1); !at.After(from) || at.After(to) {
			continue
		}
		stamp := ending(end - 1).Format(time.RFC3339)
		type group struct {
			short, long tally
			articles    int64
		}
		groups := map[string]*group{}
		for _, sku := range l.skus {
			days, seen := l.days[sku], l.seen[sku]
			if seen >= end {
				continue
			}
			short, long := within(days, end, week), within(days, end, month)
			g := groups[Family(sku)]
			if g == nil {
				g = &group{}
				groups[Family(sku)] = g
			}
			g.short.add(short)
			g.long.add(long)
			g.articles++
			if !changed(days, end) {
				continue
			}
			fmt.Fprintf(&skus, "%s,%s,%d,%d,%d,%d,%s,%s\n", sku, stamp, short.sold, long.sold, long.orders, long.returned, pounds(long.mills), ending(seen).Format(time.RFC3339))
			out[1].Rows++
		}
		for _, f := range slices.Sorted(maps.Keys(groups)) {
			g := groups[f]
			fmt.Fprintf(&families, "%s,%s,%s,%s,%s\n", f, stamp, mean(g.short.sold, g.articles), mean(g.long.sold, g.articles), mean(g.long.returned, g.articles))
			out[0].Rows++
		}
	}
	out[0].CSV, out[1].CSV = []byte(families.String()), []byte(skus.String())
	return out
}

// changed says whether the windows that end with day end−1 may differ from those of the day before: a day with lines came
// in, or one left the shorter or the longer of them.
func changed(days map[int]tally, end int) bool {
	for _, d := range []int{end - 1, end - 1 - week, end - 1 - month} {
		if _, ok := days[d]; ok {
			return true
		}
	}
	return false
}

func mean(sum, n int64) string {
	return strconv.FormatFloat(float64(sum)/float64(n), 'g', -1, 64)
}

// pounds writes thousandths of a pound as a decimal number.
func pounds(mills int64) string { return fmt.Sprintf("%d.%03d", mills/1000, mills%1000) }
