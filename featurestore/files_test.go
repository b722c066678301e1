package featurestore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/pgtest"
)

func (b *bundle) ingest(batch, format, body string) (featurestore.Commit, error) {
	return b.store.Ingest(context.Background(), ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: batch, Format: format, Body: strings.NewReader(body)})
}

func (b *bundle) read(t *testing.T, s *featurestore.Store, warehouse string) []featurestore.Cell {
	t.Helper()
	r, err := s.Reader(context.Background(), "acme", waybill.VersionRef{Name: "route-risk"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Read(context.Background(), b.now, []map[string]any{{"warehouse": warehouse, "km": 2.0}})
	if err != nil {
		t.Fatal(err)
	}
	return v[0].Cells
}

// Line ends and marks of every spreadsheet are understood, and what a file says is what is served, also by a hub that
// reads it from the bucket later.
func TestIngest_FilesOfAllKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body string }{
		{"Unix", "warehouse,event_time,queue,staff\nny,2026-04-01T11:00:00Z,0.25,7\n"},
		{"Windows", "warehouse,event_time,queue,staff\r\nny,2026-04-01T11:00:00Z,0.25,7\r\n"},
		{"OldMac", "warehouse,event_time,queue,staff\rny,2026-04-01T11:00:00Z,0.25,7\r"},
		{"ByteOrderMark", "\xef\xbb\xbfwarehouse,event_time,queue,staff\nny,2026-04-01T11:00:00Z,0.25,7"},
		{"OtherOrder", "staff,queue,event_time,warehouse\n7,0.25,2026-04-01 11:00:00,ny\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			k, err := b.ingest("1", featurestore.CSV, c.body)
			if err != nil || k.Rows != 1 || k.Seq != 1 {
				t.Fatalf("%+v, %v", k, err)
			}
			for _, s := range []*featurestore.Store{b.store, b.open(t)} {
				cells := b.read(t, s, "ny")
				if cells[0].Value != 0.25 || cells[1].Value != int64(7) || cells[2].Value != 0.5 || cells[0].Seq != 1 {
					t.Errorf("cells: %+v", cells)
				}
			}
			b.at(b.now.Add(time.Minute))
			if again, err := b.ingest("1", featurestore.CSV, c.body); err != nil || !again.Duplicate || again.Digest != k.Digest {
				t.Errorf("the same batch again: %+v, %v", again, err)
			}
			if other, err := b.ingest("1", featurestore.CSV, strings.Replace(c.body, "0.25", "0.26", 1)); waybill.CodeOf(err) != waybill.Conflict {
				t.Errorf("other rows under the same id would be lost: %+v, %v", other, err)
			}
		})
	}
}

func TestIngest_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const head = "warehouse,event_time,queue\n"
	for _, c := range []struct{ name, format, body, want string }{
		{"Empty", "csv", "", "file"},
		{"NoRows", "csv", head, "no rows"},
		{"Quote", "csv", head + "ny,2026-04-01,0.1\n\"ny,2026\n", "line 3"},
		{"FewFields", "csv", head + "ny,2026-04-01,0.1\nny,2026-04-01\n", "line 3"},
		{"Value", "csv", head + "ny,2026-04-01,0.1\nla,2026-04-01,long\n", "line 3, queue"},
		{"Range", "csv", head + "ny,2026-04-01,7\n", "line 2, queue"},
		{"Time", "csv", head + "ny,yesterday,0.1\n", "line 2, event_time"},
		{"Future", "csv", head + "ny,2027-04-01,0.1\n", "future"},
		{"NoKey", "csv", head + ",2026-04-01,0.1\n", "line 2, warehouse"},
		{"UnknownColumn", "csv", "warehouse,event_time,quue\nny,2026-04-01,0.1\n", "quue"},
		{"NoTime", "csv", "warehouse,queue\nny,0.1\n", "event_time"},
		{"Twice", "csv", "warehouse,event_time,queue,queue\nny,2026-04-01,0.1,0.2\n", "two columns"},
		{"Format", "xml", "<x/>", "format"},
		{"NotParquet", "parquet", "PAR1 not really PAR1", "Parquet"},
	} {
		if _, err := b.ingest(c.name, c.format, c.body); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want it to name %s", c.name, err, c.want)
		}
	}
	v, err := b.store.ViewInfo(context.Background(), "acme", waybill.VersionRef{Name: "warehouse_load"})
	if err != nil || v.Commits != 0 || v.Rows != 0 {
		t.Errorf("something was written: %+v, %v", v, err)
	}
}

// A changed byte in the bucket is found, named, and keeps no other view from being served.
func TestIngest_ChangedByteIsFound(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	if _, err := b.ingest("1", featurestore.CSV, "warehouse,event_time,queue\nny,2026-04-01,0.1\n"); err != nil {
		t.Fatal(err)
	}
	for o, err := range b.bucket.List(ctx, "featurestore/commits/") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.bucket.Put(ctx, o.Key, bytes.NewReader([]byte("other bytes")), 11); err != nil {
			t.Fatal(err)
		}
	}
	other := b.open(t) // starts all the same
	if err := other.Refresh(ctx); waybill.CodeOf(err) != waybill.Corrupt || !strings.Contains(err.Error(), "commit 1 of warehouse_load@v1") {
		t.Errorf("refresh: %v", err)
	}
}

// The join against the plainest possible one, over commits that were pushed and ingested at different times.
func TestTrainingSet_EqualsTheNaiveJoin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	rng := rand.New(rand.NewPCG(3, 4))
	start := b.now
	type fact struct {
		warehouse        string
		event, knowledge time.Time
		queue            float64
	}
	var facts []fact // in the order of their commits
	for batch := range 12 {
		b.at(b.now.Add(time.Duration(rng.IntN(90)) * time.Minute))
		csv := "warehouse,event_time,queue\n"
		var rows []map[string]any
		for range 1 + rng.IntN(15) {
			f := fact{warehouse: []string{"ny", "la"}[rng.IntN(2)], event: start.Add(time.Duration(rng.IntN(24*6)-100) * 10 * time.Minute), knowledge: b.now, queue: float64(rng.IntN(1000)) / 1000}
			if f.event.After(b.now) {
				f.event = b.now
			}
			facts = append(facts, f)
			csv += fmt.Sprintf("%s,%s,%g\n", f.warehouse, f.event.Format(time.RFC3339), f.queue)
			rows = append(rows, load(f.warehouse, f.event, f.queue))
		}
		var err error
		if batch%2 == 0 {
			_, err = b.ingest(fmt.Sprint(batch), featurestore.CSV, csv)
		} else {
			_, err = b.push(fmt.Sprint(batch), rows...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	naive := func(warehouse string, at, known time.Time) float64 {
		won := math.NaN()
		var best fact
		for _, f := range facts { // ties of both times: the later one in the log wins, and inside a commit the last row
			if f.warehouse != warehouse || f.event.After(at) || f.knowledge.After(known) || at.Sub(f.event) > 6*time.Hour {
				continue
			}
			if math.IsNaN(won) || f.event.After(best.event) || f.event.Equal(best.event) && !f.knowledge.Before(best.knowledge) {
				best, won = f, f.queue
			}
		}
		return won
	}
	for _, cutoff := range []time.Time{{}, b.now, start.Add(3 * time.Hour)} {
		spine := "warehouse,km,at,late\n"
		type row struct {
			warehouse string
			at        time.Time
		}
		var rows []row
		for i := range 300 {
			r := row{[]string{"ny", "la", "nowhere"}[rng.IntN(3)], start.Add(time.Duration(rng.IntN(24*6)-100) * 10 * time.Minute)}
			rows = append(rows, r)
			spine += fmt.Sprintf("%s,%d,%s,%t\n", r.warehouse, i, r.at.Format(time.RFC3339), i%3 == 0)
		}
		set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "late", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV,
			TimeColumn: "at", LabelColumn: "late", Cutoff: cutoff, Spine: strings.NewReader(spine)})
		if err != nil {
			t.Fatal(err)
		}
		names, columns, err := b.store.TrainingColumns(ctx, "acme", set.Digest)
		if err != nil || fmt.Sprint(names) != "[km late queue staff pressure]" || set.Rows != 300 {
			t.Fatalf("%v %+v %v", names, set, err)
		}
		found := 0
		for i, r := range rows {
			known := r.at
			if !cutoff.IsZero() {
				known = cutoff
			}
			want := naive(r.warehouse, r.at, known)
			if got := columns[2][i]; got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Fatalf("cutoff %v, row %d (%s at %v): queue %v, want %v", cutoff, i, r.warehouse, r.at, got, want)
			}
			if !math.IsNaN(want) {
				found++
				if columns[4][i] != want*float64(i) {
					t.Fatalf("row %d: pressure %v", i, columns[4][i])
				}
			}
			if l := columns[1][i]; (l == 1) != (i%3 == 0) {
				t.Fatalf("row %d: label %v", i, l)
			}
		}
		if cutoff.Equal(b.now) && found < 50 {
			t.Fatalf("only %d rows found a value: the test says nothing", found)
		}
		// More commits arrive; the recipe still gives the same bytes.
		b.at(b.now.Add(time.Minute))
		if _, err := b.push("later"+fmt.Sprint(cutoff), load("ny", start, 0.5)); err != nil {
			t.Fatal(err)
		}
		facts = append(facts, fact{"ny", start, b.now, 0.5})
		if r, err := b.store.RebuildTrainingSet(ctx, ann, set.Digest); err != nil || !r.Equal || r.Digest != set.Digest {
			t.Fatalf("rebuild: %+v, %v", r, err)
		}
		if _, err := b.store.TrainingSet(ctx, "other", set.Digest); waybill.CodeOf(err) != waybill.NotFound {
			t.Fatalf("another tenant reads it: %v", err)
		}
	}
	first, next, err := b.store.TrainingSets(ctx, "acme", featurestore.Page{Size: 2})
	if err != nil || len(first) != 2 || next == "" {
		t.Fatalf("%d %q %v", len(first), next, err)
	}
	rest, next, err := b.store.TrainingSets(ctx, "acme", featurestore.Page{Size: 2, Token: next})
	if err != nil || len(rest) != 1 || next != "" {
		t.Fatalf("%d %q %v", len(rest), next, err)
	}
}

func TestCatalogue(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	if _, err := b.push("1", load("ny", b.now, 0.5), load("la", b.now.Add(-time.Hour), 0.4)); err != nil {
		t.Fatal(err)
	}
	views, next, err := b.store.Views(ctx, "acme", featurestore.Page{})
	if err != nil || len(views) != 1 || next != "" || views[0].Rows != 2 || !views[0].Latest.Equal(b.now) || fmt.Sprint(views[0].Consumers) != "[route-risk@v1]" || views[0].Author != "ann" {
		t.Fatalf("%+v %v", views, err)
	}
	services, _, err := b.store.Services(ctx, "acme", featurestore.Page{})
	if err != nil || len(services) != 1 || len(services[0].Vector) != 3 {
		t.Fatalf("%+v %v", services, err)
	}
}

// A reader that asks for the latest version sees a new one within a second.
func TestReader_LatestFollows(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	other := b.open(t)
	latest := func() int {
		r, err := other.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"})
		if err != nil {
			t.Fatal(err)
		}
		return r.Version().Version
	}
	if latest() != 1 {
		t.Fatal("version 1 is there")
	}
	b.apply(t, strings.Replace(definitions, "queue * km", "queue + km", 1))
	b.at(b.now.Add(time.Second))
	if got := latest(); got != 2 {
		t.Errorf("version %d after a second", got)
	}
}

func BenchmarkJoin(b *testing.B) {
	h := setup(b)
	csv := "warehouse,event_time,queue\n"
	for i := range 20_000 {
		csv += fmt.Sprintf("w%d,%s,0.5\n", i%100, h.now.Add(-time.Duration(i)*time.Minute).Format(time.RFC3339))
	}
	if _, err := h.ingest("1", featurestore.CSV, csv); err != nil {
		b.Fatal(err)
	}
	spine := "warehouse,km,at\n"
	for i := range 20_000 {
		spine += fmt.Sprintf("w%d,%d,%s\n", i%100, i, h.now.Add(-time.Duration(i)*time.Minute).Format(time.RFC3339))
	}
	for b.Loop() {
		_, err := h.store.CreateTrainingSet(context.Background(), ann, featurestore.TrainingSetRequest{Name: "bench", Service: waybill.VersionRef{Name: "route-risk"}, Format: "csv",
			TimeColumn: "at", Cutoff: h.now, Spine: io.Reader(strings.NewReader(spine))})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(20_000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkIngest takes in a Parquet file of 200,000 rows of 20 numbers until they are served.
func BenchmarkIngest(b *testing.B) {
	const rows = 200_000
	h := inMemory(b, definitions)
	var columns []string
	fields := []arrow.Field{{Name: "thing", Type: arrow.PrimitiveTypes.Int64}, {Name: "event_time", Type: arrow.FixedWidthTypes.Timestamp_us}}
	for f := range 20 {
		columns = append(columns, fmt.Sprintf("{name: f%d, type: float64}", f))
		fields = append(fields, arrow.Field{Name: fmt.Sprint("f", f), Type: arrow.PrimitiveTypes.Float64, Nullable: true})
	}
	data := arrowFile(b, fields, func(rb *array.RecordBuilder) {
		rng := rand.New(rand.NewPCG(1, 1))
		for i := range rows {
			rb.Field(0).(*array.Int64Builder).Append(int64(i))
			rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(h.now.UnixMicro()))
			for f := range 20 {
				rb.Field(2 + f).(*array.Float64Builder).Append(rng.Float64())
			}
		}
	}, parquet.WithCompression(compress.Codecs.Snappy))
	n := 0
	for b.Loop() {
		b.StopTimer()
		view := fmt.Sprint("load", n)
		n++
		h.apply(b, fmt.Sprintf("kind: View\nname: %s\nentity: {name: thing, keys: [{name: thing, type: int64}]}\nfeatures: [%s]\n", view, strings.Join(columns, ", ")))
		b.StartTimer()
		c, err := h.store.Ingest(context.Background(), ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: view}, BatchID: "1", Format: featurestore.Parquet, Body: bytes.NewReader(data)})
		if keys, _ := h.store.Memory("acme", c.View); err != nil || keys != rows {
			b.Fatal(keys, err)
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkRead reads vectors of 50 features of two views: one entity, and a hundred; into cells, and from the wire's bytes
// to values without boxes; from memory, and from a Redis on loopback.
func BenchmarkRead(b *testing.B) {
	for _, home := range []string{"Memory", "Redis"} {
		b.Run(home, func(b *testing.B) {
			h := inMemory(b, definitions)
			if home == "Redis" {
				h = begin(b, definitions, pgtest.Redis(b), "error")
			}
			benchmarkRead(b, h)
		})
	}
}

func benchmarkRead(b *testing.B, h *bundle) {
	var views, features []string
	for v := range 2 {
		var columns []string
		for f := range 25 {
			columns = append(columns, fmt.Sprintf("{name: v%df%d, type: float64}", v, f))
			features = append(features, fmt.Sprintf("wide%d:v%df%d", v, v, f))
		}
		views = append(views, fmt.Sprintf("kind: View\nname: wide%d\nentity: {name: warehouse, keys: [{name: warehouse, type: string}]}\nfeatures: [%s]\n", v, strings.Join(columns, ", ")))
	}
	h.apply(b, strings.Join(views, "---\n")+"---\nkind: Service\nname: wide\ninputs: [{name: warehouse, type: string}]\nfeatures: ["+strings.Join(features, ", ")+"]\n")
	for v := range 2 {
		var rows []map[string]any
		for i := range 1000 {
			row := map[string]any{"warehouse": fmt.Sprint("w", i), "event_time": h.now.Format(time.RFC3339)}
			for f := range 25 {
				row[fmt.Sprintf("v%df%d", v, f)] = float64(f)
			}
			rows = append(rows, row)
		}
		if _, err := h.store.Push(context.Background(), ann, featurestore.PushRequest{View: waybill.VersionRef{Name: fmt.Sprint("wide", v)}, BatchID: "1", Rows: rows}); err != nil {
			b.Fatal(err)
		}
	}
	ctx := context.Background()
	r, err := h.store.Reader(ctx, "acme", waybill.VersionRef{Name: "wide"})
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 100} {
		rows, keys := make([]map[string]any, n), make([][]byte, n)
		for i := range rows {
			keys[i] = fmt.Append(nil, "w", i)
			rows[i] = map[string]any{"warehouse": string(keys[i])}
		}
		b.Run(fmt.Sprint("Cells", n, "x50"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := r.Read(ctx, h.now, rows); err != nil || v[n-1].Values[49] != 24 {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("Raw", n, "x50"), func(b *testing.B) {
			b.ReportAllocs()
			var raw featurestore.Raw
			for b.Loop() {
				batch, err := r.Batch(n)
				if err != nil {
					b.Fatal(err)
				}
				for i, k := range keys {
					batch.SetText(i, 0, k)
				}
				if err := batch.Read(ctx, h.now); err != nil {
					b.Fatal(err)
				}
				sum := 0.0
				for i := range n {
					for o := range 50 {
						batch.Value(i, o, &raw)
						sum += raw.Float
					}
				}
				if sum != float64(n*600) {
					b.Fatal(sum)
				}
				batch.Release()
			}
		})
	}
}
