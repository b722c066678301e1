package featurestore_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

// duckScript joins a spine with history as DuckDB does, from runs that are ordinary Parquet files: first what was known by
// the cut-off and, of rows with one event time, the last; then the ASOF join; then the time-to-live.
const duckScript = `
import csv, sys, duckdb
spine, out, cutoff, ttl, runs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]
con = duckdb.connect()
con.execute("SET TimeZone = 'UTC'")
con.execute("""CREATE TABLE h AS SELECT warehouse, event_time, queue, staff FROM read_parquet($1)
  WHERE knowledge_time <= $2::TIMESTAMPTZ
  QUALIFY row_number() OVER (PARTITION BY warehouse, event_time ORDER BY knowledge_time DESC, _sequence DESC) = 1""", [runs, cutoff])
rows = con.execute("""SELECT s.n, CASE WHEN epoch_us(s.at) - epoch_us(h.event_time) <= $2 THEN h.queue END, CASE WHEN epoch_us(s.at) - epoch_us(h.event_time) <= $2 THEN h.staff END
  FROM read_csv($1, types = {'at': 'TIMESTAMPTZ', 'warehouse': 'VARCHAR'}) s ASOF LEFT JOIN h ON s.warehouse = h.warehouse AND s.at >= h.event_time ORDER BY s.n""", [spine, ttl]).fetchall()
csv.writer(open(out, "w")).writerows([("" if v is None else repr(v) for v in r) for r in rows])
`

// repository is the folder of the module, found before the S3 gateway of the tests changes the working directory.
var repository = func() string {
	root, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return root
}()

// duckDB is the Python with DuckDB that scripts/setup-python makes; it is made here when it is missing.
func duckDB(t *testing.T) string {
	t.Helper()
	root := repository
	if out, err := exec.Command(filepath.Join(root, "scripts/setup-python"), "duckdb").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return filepath.Join(root, ".build/venv/duckdb/bin/python")
}

// Random commits and spines: our join and DuckDB's, which reads the runs as files, find the same values.
func TestAsOf_IsDuckDBs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	python := duckDB(t)
	dir := t.TempDir()
	for seed := range uint64(5) {
		b := setup(t)
		r := rand.New(rand.NewPCG(seed, 1))
		start := b.now
		var rows [][]string
		for batch := range 12 {
			b.at(b.now.Add(time.Duration(r.IntN(3600)) * time.Second))
			var list []map[string]any
			seen := map[string]bool{} // rows of one commit that tie are in the order of the commit, which a file does not say
			for range 1 + r.IntN(60) {
				row := load(fmt.Sprint("W", r.IntN(9)), start.Add(-time.Duration(r.IntN(9))*time.Hour).Add(time.Duration(r.IntN(2))*time.Microsecond), nil)
				if r.IntN(5) > 0 {
					row["queue"] = float64(r.IntN(1000)) / 1000
				}
				row["staff"] = float64(r.IntN(9))
				if id := fmt.Sprint(row["warehouse"], row["event_time"]); !seen[id] {
					seen[id] = true
					list = append(list, row)
				}
			}
			if _, err := b.push(fmt.Sprint(batch), list...); err != nil {
				t.Fatal(err)
			}
			if batch%4 == 3 {
				if err := b.store.Compact(ctx, 1+r.IntN(100), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		spine := "n,warehouse,km,at\n"
		for n := range 400 {
			spine += fmt.Sprintf("%d,W%d,1,%s\n", n, r.IntN(11), start.Add(-time.Duration(r.IntN(16))*time.Hour+6*time.Hour).Add(time.Duration(r.IntN(3)-1)*time.Microsecond).Format(time.RFC3339Nano))
		}
		cutoff := start.Add(time.Duration(r.IntN(6*3600)) * time.Second)
		set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "x", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV, TimeColumn: "at",
			Cutoff: cutoff, Spine: strings.NewReader(spine)})
		if err != nil {
			t.Fatal(err)
		}
		_, columns, err := b.store.TrainingColumns(ctx, "acme", set.Digest)
		if err != nil {
			t.Fatal(err)
		}
		spineFile, outFile := filepath.Join(dir, fmt.Sprint("spine", seed, ".csv")), filepath.Join(dir, fmt.Sprint("out", seed, ".csv"))
		if err := os.WriteFile(spineFile, []byte(spine), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"-c", duckScript, spineFile, outFile, cutoff.Format(time.RFC3339Nano), fmt.Sprint((6 * time.Hour).Microseconds())}
		for o, err := range b.bucket.List(ctx, "featurestore/history/") {
			if err != nil {
				t.Fatal(err)
			}
			var live bool
			if err := b.pool.QueryRow(ctx, `SELECT count(*) > 0 FROM featurestore.history_run WHERE replaced_at IS NULL AND position(id::text IN $1) > 0`, o.Key).Scan(&live); err != nil {
				t.Fatal(err)
			}
			if !live || !strings.HasSuffix(o.Key, ".parquet") {
				continue
			}
			body, _, err := b.bucket.Get(ctx, o.Key)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(body)
			if err != nil || body.Close() != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, fmt.Sprint(seed, "-", filepath.Base(o.Key)))
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, name)
		}
		if out, err := exec.Command(python, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		f, err := os.Open(outFile)
		if err != nil {
			t.Fatal(err)
		}
		if rows, err = csv.NewReader(f).ReadAll(); err != nil || f.Close() != nil || len(rows) != 400 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		values := 0
		for n, row := range rows {
			for c := range 2 { // queue and staff stand behind the spine's number
				got := ""
				if x := columns[len(columns)-3+c][n]; x == x {
					got = strconv.FormatFloat(x, 'g', -1, 64)
					values++
				}
				if want := row[1+c]; got != want {
					w, err := strconv.ParseFloat(want, 64)
					if g, gErr := strconv.ParseFloat(got, 64); err != nil || gErr != nil || w != g {
						t.Fatalf("seed %d, row %d, column %d: %q, and DuckDB has %q", seed, n, c, got, want)
					}
				}
			}
		}
		if values < 100 {
			t.Errorf("seed %d: only %d of 800 values are there", seed, values)
		}
	}
}

// Another hub, with a Postgres and a bucket of its own and the same commits, makes the same training set from what the first
// says of its recipe and from its spine, byte for byte; whether its history is compacted or not.
func TestTrainingSet_OnAnotherHub(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var first featurestore.TrainingSet
	var spine []byte
	for hub := range 2 {
		b := setup(t)
		b.fillBoth(t)
		for batch := range 6 {
			b.pushSome(t, batch, 8)
			if hub == 1 {
				if err := b.store.Compact(ctx, 3, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if hub == 0 {
			var err error
			if first, err = b.both(t, featurestore.TrainingSetRequest{FullNames: true, Without: []string{"storm"}, Delay: 15 * time.Minute}); err != nil {
				t.Fatal(err)
			}
			body, _, err := b.bucket.Get(ctx, "featurestore/spines/"+first.Spine)
			if err != nil {
				t.Fatal(err)
			}
			if spine, err = io.ReadAll(body); err != nil || body.Close() != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := b.store.TrainingSet(ctx, "acme", first.Digest); waybill.CodeOf(err) != waybill.NotFound {
			t.Fatalf("the other hub has the set before it is made: %v", err)
		}
		set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: first.Name, Service: first.Service, Format: first.SpineFormat, TimeColumn: first.TimeColumn,
			LabelColumn: first.LabelColumn, Cutoff: first.Cutoff, Delay: time.Duration(first.DelayUS) * time.Microsecond, FullNames: first.FullNames, Without: first.Without, Spine: bytes.NewReader(spine)})
		if err != nil || set.Digest != first.Digest {
			t.Errorf("one hub made %s and the other %s, %v", first.Digest, set.Digest, err)
		}
	}
}
