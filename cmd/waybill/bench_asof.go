package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/bucket"
	"waybill/internal/pg"
)

// asofFeatures is how many features of each view are joined.
const asofFeatures = 5

// asofRowsPerKey is how many rows of the history each entity has.
const asofRowsPerKey = 100

// asofCase is one size of the join.
type asofCase struct {
	name           string
	spine, history int // rows
	views          int
}

// asofJob is what one measured process does.
type asofJob struct {
	DSN     string      `json:"dsn"`
	Bucket  benchBucket `json:"bucket"`
	Spine   string      `json:"spine"`   // Parquet file
	Views   []string    `json:"views"`   // view versions
	History []string    `json:"history"` // the run of each view, for the peer
	Threads int         `json:"threads"`
}

// benchBucket is where the history lies.
type benchBucket struct {
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
	Access   string `json:"access"`
	Secret   string `json:"secret"`
	Name     string `json:"name"`
}

func (b benchBucket) open(ctx context.Context) (*bucket.Bucket, error) {
	return bucket.Open(ctx, bucket.Config{Endpoint: b.Endpoint, Region: b.Region, AccessKey: b.Access, SecretKey: b.Secret, Bucket: b.Name})
}

// asofDone is what it says at the end. The sums are of each feature in turn, over rows that are not null.
type asofDone struct {
	Seconds float64   `json:"seconds"`
	RSSMiB  float64   `json:"rss_mib"`
	Rows    int64     `json:"rows"`
	Sums    []float64 `json:"sums"`
	Counts  []int64   `json:"counts"`
}

// benchAsof joins spines with histories, each time in a process of its own that reads the spine's file and the view's
// runs from the bucket, and lets DuckDB do the same from the same files, whose rows need not come from a bucket. Both
// leave the result in memory as Arrow columns.
func benchAsof(ctx context.Context, b *bencher) (_ []result, err error) {
	cases := []asofCase{{"1M x 10M x 5", 1_000_000, 10_000_000, 1}, {"1M x 10M x 5 x 3 views", 1_000_000, 10_000_000, 3}, {"x0.1: 100k x 1M x 5", 100_000, 1_000_000, 1},
		{"x3: 3M x 30M x 5", 3_000_000, 30_000_000, 1}}
	if b.quick {
		cases = []asofCase{{"20k x 200k x 5", 20_000, 200_000, 1}, {"20k x 200k x 5 x 3 views", 20_000, 200_000, 3}}
	}
	python := b.duckDB
	if python == "" {
		b.note("no Python with DuckDB: there is no peer to compare with; scripts/setup-python duckdb makes one")
	}
	pool, dsn, err := b.database(ctx, "asof-join")
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	objects, err := bucket.Open(ctx, b.stack.Bucket())
	if err != nil {
		return nil, err
	}
	store := featurestore.OpenHistory(pool, objects, featurestore.Config{})
	made, where := map[string]bool{}, b.stack.Bucket()
	var out []result
	for _, c := range cases {
		job := asofJob{DSN: dsn, Bucket: benchBucket{where.Endpoint, where.Region, where.AccessKey, where.SecretKey, where.Bucket}, Threads: runtime.GOMAXPROCS(0), Spine: filepath.Join(b.dir, fmt.Sprintf("spine-%d-%d.parquet", c.spine, c.history))}
		if err := asofSpine(job.Spine, c); err != nil {
			return nil, err
		}
		for v := range c.views {
			view := fmt.Sprintf("history%d_%d", c.history, v)
			if !made[view] {
				b.note("  making a log of %d rows for %s and a run of it", c.history, view)
				if err := asofHistory(ctx, pool, objects, store, view, c.history, uint64(v)); err != nil {
					return nil, err
				}
				made[view] = true
			}
			job.Views = append(job.Views, view+"@v1")
			name := filepath.Join(b.dir, view+".parquet")
			if _, err := os.Stat(name); err != nil && python != "" {
				var id waybill.ID
				if err := pool.QueryRow(ctx, string(asofRun), benchTenant, view).Scan(&id); err != nil {
					return nil, fmt.Errorf("find the run of %s: %w", view, err)
				}
				if err := download(ctx, objects, "featurestore/history/"+id.String()+".parquet", name); err != nil {
					return nil, err
				}
			}
			job.History = append(job.History, name)
		}
		r, err := b.asofCase(ctx, python, c, job)
		if err != nil {
			return nil, err
		}
		b.note("  %s: %.0f rows/s in %.0f MiB; the peer %.0f rows/s in %.0f MiB", c.name, r.Ours, r.RSSMiB, r.Peer, r.PeerRSSMiB)
		out = append(out, r)
	}
	return out, nil
}

// asofCase measures one case in turns and compares the results.
func (b *bencher) asofCase(ctx context.Context, python string, c asofCase, job asofJob) (result, error) {
	name := filepath.Join(b.dir, "asof.json")
	data, err := json.Marshal(job)
	if err != nil {
		return result{}, err
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return result{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	var ours, theirs asofDone
	var rss, peerRSS []float64
	rate := func(cmd *exec.Cmd, d *asofDone, rss *[]float64) (float64, error) {
		*d = asofDone{}
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", cmd.Path, err)
		}
		if err := json.Unmarshal(out, d); err != nil {
			return 0, fmt.Errorf("read what %s says: %w", cmd.Path, err)
		}
		*rss = append(*rss, d.RSSMiB)
		return float64(c.spine) / d.Seconds, nil
	}
	r := result{Case: c.name, Unit: "spine rows/s", Bar: 2, noAllocs: true, otherHolds: true}
	r.Ours, r.Peer, err = b.turns(func() (float64, error) {
		return rate(exec.CommandContext(ctx, self, "bench", "asof", "--job", name), &ours, &rss)
	}, func() (float64, error) {
		if python == "" {
			return 0, nil
		}
		return rate(exec.CommandContext(ctx, python, "-c", duckDBScript, name), &theirs, &peerRSS)
	})
	if err != nil {
		return result{}, err
	}
	r.RSSMiB = median(rss)
	if ours.Rows != int64(c.spine) {
		return result{}, fmt.Errorf("the join of %d rows gave %d", c.spine, ours.Rows)
	}
	if python == "" {
		return r, nil
	}
	if err := ours.same(&theirs); err != nil {
		return result{}, err
	}
	r.PeerIs, r.PeerRSSMiB = fmt.Sprintf("DuckDB's ASOF join, same Parquet from local files, %d threads", job.Threads), median(peerRSS)
	r.Ratio, r.otherHolds = r.Ours/r.Peer, r.RSSMiB <= r.PeerRSSMiB
	return r, nil
}

// same compares two results of one join.
func (d *asofDone) same(o *asofDone) error {
	if d.Rows != o.Rows || len(d.Sums) != len(o.Sums) {
		return fmt.Errorf("the peer found %d rows of %d features, and we %d of %d", o.Rows, len(o.Sums), d.Rows, len(d.Sums))
	}
	for i := range d.Sums {
		if d.Counts[i] != o.Counts[i] || d.Counts[i] == 0 || d.Sums[i] != o.Sums[i] {
			return fmt.Errorf("feature %d: the peer's values differ from ours: %d with sum %v, and %d with sum %v", i, o.Counts[i], o.Sums[i], d.Counts[i], d.Sums[i])
		}
	}
	return nil
}

// spread is SplitMix64's finaliser: random-looking numbers that are the same everywhere.
func spread(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below draws a number under n from the i-th random number of a series.
func below(series, i uint64, n int) int64 {
	hi, _ := bits.Mul64(spread(series<<40^i), uint64(n))
	return int64(hi)
}

const (
	asofStart = int64(1_700_000_000_000_000) // µs
	asofStep  = int64(1_000_000)             // µs between rows of the history: no two have the same event time
)

func asofTime() arrow.DataType { return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"} }

// asofSpine writes a spine: random entities at random times of the history.
func asofSpine(name string, c asofCase) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "thing", Type: arrow.PrimitiveTypes.Int64}, {Name: "at", Type: asofTime()}}, nil)
	keys, times := make([]int64, c.spine), make([]int64, c.spine)
	for i := range keys {
		keys[i], times[i] = below(1, uint64(i), c.history/asofRowsPerKey), asofStart+below(2, uint64(i), c.history)*asofStep
	}
	return writeArrow(name, array.NewRecord(schema, []arrow.Array{int64Column(schema.Field(0).Type, keys), int64Column(schema.Field(1).Type, times)}, int64(c.spine)))
}

func int64Column(t arrow.DataType, v []int64) arrow.Array {
	return array.MakeFromData(array.NewData(t, len(v), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(v))}, nil, 0, 0))
}

func writeArrow(name string, rec arrow.Record) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w, err := pqarrow.NewFileWriter(rec.Schema(), f, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(w.Write(rec), w.Close()) // closes the file, too
}

// The log of a view as it is after so many commits. Pushing ten million rows would take longer than what is measured.
const (
	asofCommit pg.SQL = `
INSERT INTO featurestore.commit (tenant, view, version, seq, batch_id, digest, rows, min_event, max_event, object, actor, created_at)
VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10, $11)`
	asofLogEnd pg.SQL = `UPDATE featurestore.log SET seq = $3, known_at = $4 WHERE tenant = $1 AND view = $2 AND version = 1`
	asofRun    pg.SQL = `SELECT id FROM featurestore.history_run WHERE tenant = $1 AND view = $2 AND replaced_at IS NULL`
)

// asofHistory fills the log of a view, in the order of the event times, and makes a run of it.
func asofHistory(ctx context.Context, pool *pgxpool.Pool, objects *bucket.Bucket, store *featurestore.Store, view string, rows int, series uint64) error {
	err := benchLog{view, asofFeatures, rows, series, func(i int) int64 { return below(3+series, uint64(i), rows/asofRowsPerKey) }}.fill(ctx, pool, objects, store)
	if err != nil {
		return err
	}
	return store.CompactHistory(ctx)
}

// benchLog is a view of float64 features by the int64 thing, and what its log holds.
type benchLog struct {
	view           string
	features, rows int
	series         uint64            // of the random numbers
	thing          func(i int) int64 // of row i
}

// fill publishes the view and fills its log with commits of a million rows, as files that ingesting them would have written.
func (l benchLog) fill(ctx context.Context, pool *pgxpool.Pool, objects *bucket.Bucket, store *featurestore.Store) error {
	var columns []string
	fields := []arrow.Field{{Name: "thing", Type: arrow.PrimitiveTypes.Int64}}
	for i := range l.features {
		name := fmt.Sprintf("%s_f%d", l.view, i)
		columns = append(columns, fmt.Sprintf("{name: %s, type: float64}", name))
		fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Float64, Nullable: true})
	}
	d, err := featurestore.ParseDefinitions([]byte(fmt.Sprintf("kind: View\nname: %s\nentity: {name: thing, keys: [{name: thing, type: int64}]}\nfeatures: [%s]\n", l.view, strings.Join(columns, ", "))))
	if err != nil {
		return err
	}
	if _, err := store.Apply(ctx, benchAuthor, d, "benchmark"); err != nil {
		return err
	}
	schema := arrow.NewSchema(append(fields, arrow.Field{Name: "event_time", Type: asofTime()}), nil)
	batch := min(1_000_000, 20_000_000/l.features)
	now := time.Now().UTC()
	seq := 0
	for from := 0; from < l.rows; from += batch {
		n := min(batch, l.rows-from)
		keys, times := make([]int64, n), make([]int64, n)
		cols := []arrow.Array{nil}
		for i := range keys {
			keys[i], times[i] = l.thing(from+i), asofStart+int64(from+i)*asofStep
		}
		for f := range l.features {
			values := make([]float64, n)
			for i := range values { // whole numbers: their sums are exact in any order
				values[i] = float64(below(10+10*l.series+uint64(f), uint64(from+i), 1<<20))
			}
			cols = append(cols, array.MakeFromData(array.NewData(arrow.PrimitiveTypes.Float64, n, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Float64Traits.CastToBytes(values))}, nil, 0, 0)))
		}
		cols[0] = int64Column(schema.Field(0).Type, keys)
		cols = append(cols, int64Column(asofTime(), times))
		var buf bytes.Buffer
		w, err := pqarrow.NewFileWriter(schema, &buf, nil, pqarrow.DefaultWriterProps())
		if err != nil {
			return err
		}
		if err := errors.Join(w.Write(array.NewRecord(schema, cols, int64(n))), w.Close()); err != nil {
			return err
		}
		o, err := objects.PutContent(ctx, "featurestore/commits", &buf)
		if err != nil {
			return err
		}
		seq++
		if _, err := pool.Exec(ctx, string(asofCommit), benchTenant, l.view, seq, strconv.Itoa(seq), "sha256:"+hex.EncodeToString(o.SHA256[:]), n,
			time.UnixMicro(times[0]).UTC(), time.UnixMicro(times[n-1]).UTC(), o.Key, benchAuthor.ID, now); err != nil {
			return fmt.Errorf("insert commit: %w", err)
		}
	}
	if _, err := pool.Exec(ctx, string(asofLogEnd), benchTenant, l.view, seq, now); err != nil {
		return fmt.Errorf("update log: %w", err)
	}
	return nil
}

func download(ctx context.Context, b *bucket.Bucket, key, name string) (err error) {
	body, _, err := b.Get(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

func (j *asofJob) run(ctx context.Context) (d asofDone, err error) {
	runtime.GOMAXPROCS(j.Threads)
	pool, err := pg.Open(ctx, pg.Config{DSN: j.DSN})
	if err != nil {
		return d, err
	}
	defer pool.Close()
	objects, err := j.Bucket.open(ctx)
	if err != nil {
		return d, err
	}
	store := featurestore.OpenHistory(pool, objects, featurestore.Config{})
	var features []waybill.FeatureRef
	for _, v := range j.Views {
		for i := range asofFeatures {
			ref, err := waybill.ParseFeatureRef("feature", fmt.Sprintf("%s:%s_f%d", v, strings.TrimSuffix(v, "@v1"), i))
			if err != nil {
				return d, err
			}
			features = append(features, ref)
		}
	}
	start := time.Now()
	spine, err := readArrow(ctx, j.Spine)
	if err != nil {
		return d, err
	}
	columns, err := store.AsOf(ctx, benchTenant, spine, "at", features, time.Now().UTC())
	if err != nil {
		return d, err
	}
	d.Seconds, d.Rows = time.Since(start).Seconds(), spine.NumRows()
	for _, a := range columns {
		values, ok := a.(*array.Float64)
		if !ok || int64(a.Len()) != d.Rows {
			return d, fmt.Errorf("a feature came back as %d rows of %s", a.Len(), a.DataType())
		}
		sum := 0.0
		for i := range values.Len() {
			if values.IsValid(i) {
				sum += values.Value(i)
			}
		}
		d.Sums, d.Counts = append(d.Sums, sum), append(d.Counts, int64(a.Len()-a.NullN()))
	}
	d.RSSMiB, err = peakMemory()
	return d, err
}

func readArrow(ctx context.Context, name string) (arrow.Record, error) {
	f, err := file.OpenParquetFile(name, false)
	if err != nil {
		return nil, err
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{Parallel: true}, memory.DefaultAllocator)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t, err := rd.ReadTable(ctx)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	cols := make([]arrow.Array, t.NumCols())
	for i := range cols {
		if cols[i], err = array.Concatenate(t.Column(i).Data().Chunks(), memory.DefaultAllocator); err != nil {
			return nil, err
		}
	}
	return array.NewRecord(t.Schema(), cols, t.NumRows()), nil
}

// peakMemory is the largest resident size that this process has had, in MiB; 0 where the system does not say.
func peakMemory() (float64, error) {
	data, err := os.ReadFile("/proc/self/status")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, nil
}

// duckDBPython finds the Python that scripts/setup-python has given DuckDB, or returns "".
func duckDBPython(env environment) string {
	for _, p := range []string{env.Getenv("WAYBILL_DUCKDB_PYTHON"), ".build/venv/duckdb/bin/python"} {
		if path, err := filepath.Abs(p); p != "" && err == nil && exec.Command(path, "-c", "import duckdb, pyarrow").Run() == nil {
			return path
		}
	}
	return ""
}

// duckDBScript does what asofJob.run does, with DuckDB.
const duckDBScript = `
import json, sys, time
import duckdb
job = json.load(open(sys.argv[1]))
con = duckdb.connect()
con.execute("SET threads = %d" % job["threads"])
con.execute("SET preserve_insertion_order = false")
con.execute("SET enable_progress_bar = false")
sql, names, prev = "SELECT s.thing, s.at", [], ""
for i, v in enumerate(job["views"]):
    for f in range(5):
        names.append("f%d_%d" % (i, f))
        sql += ", h%d.%s_f%d AS f%d_%d" % (i, v.split("@")[0], f, i, f)
sql += " FROM read_parquet('%s') s" % job["spine"]
for i, name in enumerate(job["history"]):
    sql += " ASOF LEFT JOIN read_parquet('%s') h%d ON s.thing = h%d.thing AND s.at >= h%d.event_time" % (name, i, i, i)
start = time.perf_counter()
table = con.sql(sql).to_arrow_table()
seconds = time.perf_counter() - start
rss = next((int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')), 0) / 1024 # ru_maxrss counts what the parent had
import pyarrow.compute as pc
columns = [table.column(n) for n in names]
print(json.dumps({"seconds": seconds, "rss_mib": rss, "rows": table.num_rows, "sums": [pc.sum(c).as_py() or 0 for c in columns], "counts": [len(c) - c.null_count for c in columns]}))
`
