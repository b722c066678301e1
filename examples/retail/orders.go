package retail

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// Bounds of a file, the second unpacked.
const (
	maxLines = 2_000_000
	maxBytes = 512 << 20
)

// Line is one line of an order or of a return.
type Line struct {
	SKU     string
	Invoice string
	Day     int   // since 1970; the file's times have no zone and are taken for UTC
	Units   int64 // sold, or sent back when Return is set; above 0
	Mills   int64 // price of a unit in thousandths of a pound; 0 or more
	Return  bool
}

// Orders is a file of order lines, in its order.
type Orders struct {
	Lines   []Line
	Read    int            // lines of the file
	Refused map[string]int // reason → lines
}

// Family is the group of articles that one belongs to: the first two digits of its number.
func Family(sku string) string { return sku[:min(2, len(sku))] }

// columns are what a file must have, among any others and in any order.
func columns() []string {
	return []string{"InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice"}
}

// Read reads the open data set "Online Retail" as CSV, plain or in an xz archive. A line is of use when it is about goods
// (an article number begins with five digits; postage, fees and manual entries do not) and is a sale (units above 0) or a
// return (an invoice number with C in front, units below 0). Corrections of the stock, which have units below 0 on a plain
// invoice, bad debts and free samples without a price are no demand. What is not used is counted by reason.
func Read(r io.Reader) (Orders, error) {
	out := Orders{Refused: map[string]int{}}
	br := bufio.NewReaderSize(r, 1<<16)
	var text io.Reader = br
	if magic, err := br.Peek(6); err == nil && string(magic) == "\xfd7zXZ\x00" {
		if text, err = xz.NewReader(br); err != nil {
			return out, fmt.Errorf("open xz: %w", err)
		}
	}
	rest := &io.LimitedReader{R: text, N: maxBytes + 1}
	c := csv.NewReader(rest)
	c.ReuseRecord = true
	head, err := c.Read()
	if err != nil {
		return out, fmt.Errorf("read head: %w", err)
	}
	places := make([]int, 0, len(columns()))
	for _, name := range columns() {
		n := slices.IndexFunc(head, func(h string) bool { return strings.TrimPrefix(h, "\ufeff") == name })
		if n < 0 {
			return out, fmt.Errorf("the column %s is missing; the file has %s", name, strings.Join(head, ", "))
		}
		places = append(places, n)
	}
	names := map[string]string{} // one copy of every text
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) && rest.N > 0 {
			return out, nil
		}
		if rest.N == 0 || out.Read == maxLines {
			return out, fmt.Errorf("the file has more than %d lines or %d MiB", maxLines, maxBytes>>20)
		}
		if err != nil {
			return out, fmt.Errorf("read line %d: %w", out.Read+2, err)
		}
		out.Read++
		l, reason := lineOf(record, places)
		if reason != "" {
			out.Refused[reason]++
			continue
		}
		for _, s := range []*string{&l.SKU, &l.Invoice} {
			kept, ok := names[*s]
			if !ok {
				kept = strings.Clone(*s)
				names[kept] = kept
			}
			*s = kept
		}
		out.Lines = append(out.Lines, l)
	}
}

// lineOf reads one line, or says why it is of no use. Its texts are the record's.
func lineOf(record []string, places []int) (l Line, reason string) {
	l.Invoice, l.SKU = record[places[0]], strings.ToUpper(strings.TrimSpace(record[places[1]]))
	if len(l.SKU) < 5 || strings.Trim(l.SKU[:5], "0123456789") != "" {
		return l, "no goods"
	}
	units, err := strconv.ParseInt(record[places[2]], 10, 32)
	if err != nil || units == 0 {
		return l, "no quantity"
	}
	at, err := time.Parse(time.DateTime, record[places[3]])
	if err != nil {
		return l, "no date"
	}
	l.Day = int(at.Unix() / (24 * 3600))
	if l.Mills, err = mills(record[places[4]]); err != nil {
		return l, "no price"
	}
	l.Return = strings.HasPrefix(l.Invoice, "C")
	switch {
	case l.Return && units > 0, !l.Return && units < 0:
		return l, "a correction"
	case !l.Return && l.Mills == 0:
		return l, "a sample without a price"
	}
	l.Units = max(units, -units)
	return l, ""
}

// mills reads a price with at most three digits after the point as thousandths, exactly.
func mills(s string) (int64, error) {
	whole, part, _ := strings.Cut(s, ".")
	if len(part) > 3 {
		return 0, fmt.Errorf("%s has more than three digits after the point", s)
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 3-len(part)), 10, 64)
	if err == nil && n < 0 {
		err = errors.New("it is negative")
	}
	return n, err
}
