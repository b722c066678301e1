package retail_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"waybill"
	"waybill/examples/retail"
	"waybill/featurestore"
	"waybill/internal/pgtest"
)

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

var ann = waybill.Actor{ID: "ann", Tenant: "shop", Kind: waybill.Person}

// sample has two families, a return, a correction, postage, a sample, an invoice with an article twice, and an article that
// comes late.
const sample = `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,10001,A,6,2011-01-03 08:26:00,2.55,17850.0,United Kingdom
1,10001,A,2,2011-01-03 08:26:00,2.55,17850.0,United Kingdom
2,10002b,B,1,2011-01-03 23:59:00,0.125,,France
C3,10001,A,-3,2011-01-05 10:00:00,2.55,17850.0,United Kingdom
4,10001,lost,-9,2011-01-05 10:00:00,0,,United Kingdom
5,POST,POSTAGE,1,2011-01-05 10:00:00,18,,France
6,20001,C,4,2011-01-05 10:00:00,0,,France
7,20001,C,4,2011-01-10 10:00:00,1,,France
8,10002B,B,5,2011-02-20 10:00:00,1,,France
9,10003,D,1,2011-02-20 11:00:00,1,,France
`

// raw is a line as the test itself reads it.
type raw struct {
	sku, invoice string
	day          time.Time
	units        int
	price        float64
}

// rawLines reads the file anew, by nothing but its own eyes: goods, and either a sale with a price or a return.
func rawLines(t *testing.T, text io.Reader) (out []raw) {
	t.Helper()
	records, err := csv.NewReader(text).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records[1:] {
		l := raw{sku: strings.ToUpper(strings.TrimSpace(r[1])), invoice: r[0]}
		if len(l.sku) < 5 {
			continue
		}
		if _, err := strconv.ParseUint(l.sku[:5], 10, 64); err != nil {
			continue
		}
		if l.units, err = strconv.Atoi(r[3]); err != nil {
			t.Fatal(err)
		}
		if l.day, err = time.Parse(time.DateOnly, r[4][:10]); err != nil {
			t.Fatal(err)
		}
		if l.price, err = strconv.ParseFloat(r[5], 64); err != nil {
			t.Fatal(err)
		}
		cancelled := strings.HasPrefix(r[0], "C")
		if cancelled && l.units < 0 || !cancelled && l.units > 0 && l.price > 0 {
			out = append(out, l)
		}
	}
	return out
}

// brute computes every feature of an article at a moment by looking at every line of the article, and of all articles of the
// family where that stands in. The features by name; nil is missing.
func brute(lines map[string][]raw, sku string, at time.Time) map[string]any {
	today := at.Truncate(24 * time.Hour)
	sum := func(of string, days int) (sold, returned, pounds float64, invoices int, first time.Time) {
		seen := map[string]bool{}
		for _, l := range lines[of] {
			if !l.day.Before(today) {
				continue
			}
			if first.IsZero() || l.day.Before(first) {
				first = l.day
			}
			if l.day.Before(today.AddDate(0, 0, -days)) {
				continue
			}
			if l.units < 0 {
				returned -= float64(l.units)
				continue
			}
			sold, pounds = sold+float64(l.units), pounds+float64(l.units)*l.price
			seen[l.invoice] = true
		}
		return sold, returned, pounds, len(seen), first
	}
	out := map[string]any{}
	long, returned, pounds, invoices, first := sum(sku, 28)
	short, _, _, _, _ := sum(sku, 7)
	if !first.IsZero() {
		out["orders_28d"], out["revenue_28d"], out["first_seen"] = int64(invoices), pounds, first.AddDate(0, 0, 1)
	} else { // its family stands in
		articles := map[string]bool{}
		long, returned, short = 0, 0, 0
		for name, list := range lines {
			for _, l := range list {
				if name[:2] == sku[:2] && l.day.Before(today) {
					articles[name] = true
				}
			}
		}
		for a := range articles {
			s, r, _, _, _ := sum(a, 28)
			w, _, _, _, _ := sum(a, 7)
			long, returned, short = long+s, returned+r, short+w
		}
		n := float64(len(articles))
		if n == 0 {
			return out
		}
		long, returned, short = long/n, returned/n, short/n
	}
	out["units_7d"], out["units_28d"], out["returned_28d"], out["return_share"], out["trend"] = short, long, returned, 0.0, 0.0
	if long > 0 {
		out["return_share"], out["trend"] = returned/long, 4*short/long
	}
	return out
}

// same compares a value with what brute found. Sums of pounds are floats there, and nearly equal.
func same(want, got any) bool {
	if d, ok := got.(featurestore.Decimal); ok {
		w, ok := want.(float64)
		return ok && d.Float64()-w < 1e-6 && w-d.Float64() < 1e-6
	}
	if a, ok := got.(time.Time); ok {
		b, ok := want.(time.Time)
		return ok && a.Equal(b)
	}
	return want == got
}

// relive feeds the log of the views in as it came to be: at each of a number of moments everything up to it is ingested, with the
// hub's clock standing there, and some articles are read online. A training set of the same questions comes afterwards.
func relive(t *testing.T, o retail.Orders, lines []raw, moments, each int) (values, stoodIn int) {
	t.Helper()
	ctx := context.Background()
	log, bySKU := retail.NewLog(o), map[string][]raw{}
	for _, l := range lines {
		bySKU[l.sku] = append(bySKU[l.sku], l)
	}
	from, to := log.Span()
	now := from
	store, err := featurestore.Open(ctx, pgtest.DB(t), pgtest.TestBucket(t), featurestore.Config{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	d, err := featurestore.ParseDefinitions([]byte(retail.Definitions))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Apply(ctx, ann, d, "the shop opens"); err != nil {
		t.Fatal(err)
	}
	reader, err := store.Reader(ctx, "shop", waybill.VersionRef{Name: "sku-demand"})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 11))
	spine := bytes.NewBufferString("sku,family,event_time\n")
	var wants []map[string]any
	skus, done := log.SKUs(), from.Add(-24*time.Hour)
	for m := range moments {
		now = from.Add(time.Duration(float64(to.Sub(from)) * float64(m+1) / float64(moments))).Truncate(time.Second)
		for _, table := range log.Tables(done, now) {
			if table.Rows == 0 {
				continue
			}
			if _, err := store.Ingest(ctx, ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: table.View}, BatchID: now.String(), Format: featurestore.CSV, Body: bytes.NewReader(table.CSV)}); err != nil {
				t.Fatal(err)
			}
		}
		done = now
		for range each {
			sku := skus[rng.IntN(len(skus))]
			want := brute(bySKU, sku, now)
			v, err := reader.Read(ctx, now, []map[string]any{{"sku": sku, "family": retail.Family(sku)}})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range v[0].Cells {
				values++
				if c.Status == featurestore.FellBack {
					stoodIn++
				}
				if !same(want[c.Name], c.Value) {
					t.Errorf("online, %s of %s at %s: %v (%s of %s), want %v", c.Name, sku, now, c.Value, c.Status, c.View, want[c.Name])
				}
			}
			fmt.Fprintf(spine, "%s,%s,%s\n", sku, retail.Family(sku), now.Format(time.RFC3339))
			wants = append(wants, want)
		}
	}
	set, err := store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "demand", Service: waybill.VersionRef{Name: "sku-demand"}, Format: featurestore.CSV, TimeColumn: "event_time", Spine: spine})
	if err != nil {
		t.Fatal(err)
	}
	names, columns, err := store.TrainingColumns(ctx, "shop", set.Digest)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for c, name := range names {
		for i, want := range wants {
			w, known := want[name]
			x := columns[c][i]
			if n, ok := w.(int64); ok {
				w = float64(n)
			}
			compared++
			if f, ok := w.(float64); known != (x == x) || known && ok && (x-f > 1e-6 || f-x > 1e-6) {
				t.Errorf("training set, %s of row %d: %v, want %v", name, i, x, w)
			}
		}
	}
	if compared < 5*len(wants) {
		t.Errorf("only %d values of the training set were compared: %v", compared, names)
	}
	return values, stoodIn
}

func TestSample(t *testing.T) {
	t.Parallel()
	o, err := retail.Read(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(o.Read, len(o.Lines), o.Refused); got != "10 7 map[a correction:1 a sample without a price:1 no goods:1]" {
		t.Errorf("read: %s", got)
	}
	if values, stoodIn := relive(t, o, rawLines(t, strings.NewReader(sample)), 12, 8); values < 700 || stoodIn == 0 {
		t.Errorf("%d values, %d of them of the family", values, stoodIn)
	}
}

func TestRead_BadFiles(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "read head", "InvoiceNo,StockCode\n": "column Quantity is missing", sample + "\"": "read line"} {
		if _, err := retail.Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestRealOrders is extra: it takes the open "Online Retail" file as online_retail.csv.xz in ../shared/data, or in the folder
// data of WAYBILL_SHARED. It recomputes the features of 200 random articles and moments from all lines.
func TestRealOrders(t *testing.T) {
	t.Parallel()
	shared := os.Getenv("WAYBILL_SHARED")
	if shared == "" {
		shared = filepath.Join(packageDir, "..", "..", "..", "shared")
	}
	packed, err := os.ReadFile(filepath.Join(shared, "data", "online_retail.csv.xz"))
	if err != nil {
		t.Logf("extra, and not run: there is no file of real orders here: %v", err)
		return
	}
	start := time.Now()
	o, err := retail.Read(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if o.Read != 541_909 {
		t.Errorf("%d lines, want 541909", o.Read)
	}
	text, err := xz.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	lines := rawLines(t, text)
	if len(lines) != len(o.Lines) {
		t.Errorf("%d lines are of use, and %d by the test's own reading", len(o.Lines), len(lines))
	}
	values, stoodIn := relive(t, o, lines, 10, 20)
	if values != 200*8 || stoodIn == 0 {
		t.Errorf("%d values, %d of them of the family", values, stoodIn)
	}
	t.Logf("%d lines read, %d of use, refused %v; %d values compared online, %d of them of the family; %.1f s", o.Read, len(o.Lines), o.Refused, values, stoodIn, time.Since(start).Seconds())
}
