package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/bucket"
	"waybill/internal/pg"
)

// ingestColumn is a feature of the benchmark's view.
type ingestColumn struct {
	name string
	t    featurestore.Type
	sql  string // the type of the plain table's column
}

// ingestCase is a file that is taken in.
type ingestCase struct {
	name    string
	rows    int
	columns []ingestColumn
}

// ingestJob is what one measured process does.
type ingestJob struct {
	DSN    string      `json:"dsn"`
	Bucket benchBucket `json:"bucket"`
	File   string      `json:"file"` // Parquet
	YAML   string      `json:"yaml"` // the view "load" and a service of it
	Rows   int         `json:"rows"`
}

// ingestDone is what it says at the end.
type ingestDone struct {
	Seconds float64 `json:"seconds"`
	RSSMiB  float64 `json:"rss_mib"`
}

// ingestFeatures is how many features the view has.
const ingestFeatures = 20

// floats are features of one type, mixed those of a table as people have it: measures, some of them missing, counts,
// flags, words and a time.
func ingestColumns(mixed bool) []ingestColumn {
	out := make([]ingestColumn, ingestFeatures)
	for i := range out {
		c := ingestColumn{fmt.Sprint("f", i), featurestore.Float64, "float8"}
		switch {
		case !mixed || i < 10:
		case i < 14:
			c.t, c.sql = featurestore.Int64, "int8"
		case i < 16:
			c.t, c.sql = featurestore.Bool, "bool"
		case i < 19:
			c.t, c.sql = featurestore.String, "text"
		default:
			c.t, c.sql = featurestore.Timestamp, "timestamptz"
		}
		out[i] = c
	}
	return out
}

// benchIngest takes a Parquet file in until its rows are served online and committed for training, each time in a process
// and a database of their own, and lets Postgres COPY the same rows into a plain table without an index: encoded
// beforehand in its own binary form, so that nothing but Postgres is measured.
func benchIngest(ctx context.Context, b *bencher) (out []result, err error) {
	rows := 1_000_000
	if b.quick {
		rows = 20_000
	}
	pool, _, err := b.database(ctx, "ingest")
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if _, err := bucket.Open(ctx, b.stack.Bucket()); err != nil { // which makes it
		return nil, err
	}
	size := "1M"
	if b.quick {
		size = "20k"
	}
	for _, c := range []ingestCase{{size + " x 20 float64", rows, ingestColumns(false)}, {size + " x 20 of mixed types", rows, ingestColumns(true)}} {
		r, err := b.ingestCase(ctx, c)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (b *bencher) ingestCase(ctx context.Context, c ingestCase) (_ result, err error) {
	b.note("  writing %s", c.name)
	rec := c.record()
	name := filepath.Join(b.dir, "load.parquet")
	if err := writeSnappy(name, rec); err != nil {
		return result{}, err
	}
	table, encoded := "plain"+fmt.Sprint(time.Now().UnixNano()), copyBinary(rec)
	conn, err := b.scratch(ctx, "ingest")
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	columns := []string{"thing text", "event_time timestamptz"}
	for _, k := range c.columns {
		columns = append(columns, k.name+" "+k.sql)
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE "+table+" ("+strings.Join(columns, ", ")+")"); err != nil {
		return result{}, fmt.Errorf("create table: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	runs, rss := 0, []float64{}
	ours, limit, err := b.turns(func() (float64, error) {
		runs++
		d, err := b.ingestOnce(ctx, self, fmt.Sprintf("%s-%d", table, runs), ingestJob{File: name, YAML: c.yaml(), Rows: c.rows})
		if err != nil {
			return 0, err
		}
		rss = append(rss, d.RSSMiB)
		b.note("  %s: %.2f s, %.0f MiB", c.name, d.Seconds, d.RSSMiB)
		return float64(c.rows) / d.Seconds, nil
	}, func() (float64, error) {
		if _, err := conn.Exec(ctx, "TRUNCATE "+table); err != nil {
			return 0, fmt.Errorf("truncate: %w", err)
		}
		took, err := copyRows(ctx, conn, table, encoded, c.rows)
		b.note("  COPY: %.2f s", took)
		return float64(c.rows) / took, err
	})
	if err != nil {
		return result{}, err
	}
	return result{Case: c.name, Unit: "rows/s", Ours: ours, Limit: limit, LimitIs: "COPY of the same rows, encoded beforehand, into a plain table", Ratio: ours / limit, Bar: 1,
		RSSMiB: median(rss), noAllocs: true, otherHolds: true}, nil
}

// ingestOnce runs a job in a process and a database of its own.
func (b *bencher) ingestOnce(ctx context.Context, self, database string, job ingestJob) (d ingestDone, err error) {
	pool, dsn, err := b.database(ctx, database)
	if err != nil {
		return d, err
	}
	pool.Close()
	where := b.stack.Bucket()
	job.DSN, job.Bucket = dsn, benchBucket{where.Endpoint, where.Region, where.AccessKey, where.SecretKey, where.Bucket}
	data, err := json.Marshal(job)
	if err != nil {
		return d, err
	}
	name := filepath.Join(b.dir, "ingest.json")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return d, err
	}
	cmd := exec.CommandContext(ctx, self, "bench", "take-in", "--job", name)
	cmd.Stderr = os.Stderr
	said, err := cmd.Output()
	if err != nil {
		return d, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return d, json.Unmarshal(said, &d)
}

func copyRows(ctx context.Context, conn *pgx.Conn, table string, encoded []byte, rows int) (float64, error) {
	start := time.Now()
	tag, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(encoded), "COPY "+table+" FROM STDIN (FORMAT binary)")
	if err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	if tag.RowsAffected() != int64(rows) {
		return 0, fmt.Errorf("COPY took %d of %d rows", tag.RowsAffected(), rows)
	}
	return time.Since(start).Seconds(), nil
}

// yaml defines the view and a service of its first feature.
func (c *ingestCase) yaml() string {
	var features []string
	for _, k := range c.columns {
		features = append(features, fmt.Sprintf("{name: %s, type: %s}", k.name, k.t))
	}
	return "kind: View\nname: load\nentity: {name: thing, keys: [{name: thing, type: string}]}\nfeatures: [" + strings.Join(features, ", ") +
		"]\n---\nkind: Service\nname: served\ninputs: [{name: thing, type: string}]\nfeatures: [\"load:f0\"]\n"
}

func ingestKey(i int) string { return fmt.Sprintf("thing-%07d", i) }

// ingestValue is the first feature of row i.
func ingestValue(i int) float64 { return float64(spread(uint64(i))>>11) / (1 << 53) * 1000 }

// record makes the rows: every entity once, in no order of theirs.
func (c *ingestCase) record() arrow.Record {
	fields := []arrow.Field{{Name: "thing", Type: arrow.BinaryTypes.String}, {Name: "event_time", Type: asofTime()}}
	for _, k := range c.columns {
		t := map[featurestore.Type]arrow.DataType{featurestore.Float64: arrow.PrimitiveTypes.Float64, featurestore.Int64: arrow.PrimitiveTypes.Int64,
			featurestore.Bool: arrow.FixedWidthTypes.Boolean, featurestore.String: arrow.BinaryTypes.String, featurestore.Timestamp: asofTime()}[k.t]
		fields = append(fields, arrow.Field{Name: k.name, Type: t, Nullable: true})
	}
	rb := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer rb.Release()
	words := []string{"waiting", "on the way", "delivered", "returned", "lost"}
	for n := range c.rows {
		i := (n * 7_654_321) % c.rows // no divisor in common with the round sizes
		for f := range fields {
			x := spread(uint64(i) + uint64(max(0, f-2))<<40)
			switch b := rb.Field(f).(type) {
			case *array.TimestampBuilder:
				b.Append(arrow.Timestamp(asofStart + int64(n)*1000))
			case *array.Float64Builder:
				if f%5 == 4 && x%20 == 0 {
					b.AppendNull()
				} else {
					b.Append(float64(x>>11) / (1 << 53) * 1000)
				}
			case *array.Int64Builder:
				b.Append(int64(x % 10_000))
			case *array.BooleanBuilder:
				b.Append(x%3 == 0)
			case *array.StringBuilder:
				switch {
				case f == 0:
					b.Append(ingestKey(i))
				case f%2 == 0:
					b.Append(words[x%uint64(len(words))])
				default:
					b.Append(fmt.Sprintf("place %d", x%5000))
				}
			}
		}
	}
	return rb.NewRecord()
}

// writeSnappy writes a file as pyarrow does when it is told nothing: in groups of 2^20 rows, compressed with snappy.
func writeSnappy(name string, rec arrow.Record) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w, err := pqarrow.NewFileWriter(rec.Schema(), f, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(1<<20)), pqarrow.DefaultWriterProps())
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(w.Write(rec), w.Close()) // closes the file, too
}

// copyBinary encodes rows for COPY. Source of the form: PostgreSQL's documentation of COPY, "Binary Format".
func copyBinary(rec arrow.Record) []byte {
	const y2k = 946_684_800_000_000 // µs from 1970 to 2000, from which Postgres counts
	out := append([]byte("PGCOPY\n\xff\r\n\x00"), make([]byte, 8)...)
	number := func(v uint64) { out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(out, 8), v) }
	for i := range int(rec.NumRows()) {
		out = binary.BigEndian.AppendUint16(out, uint16(rec.NumCols()))
		for _, c := range rec.Columns() {
			if c.IsNull(i) {
				out = binary.BigEndian.AppendUint32(out, math.MaxUint32)
				continue
			}
			switch c := c.(type) {
			case *array.Float64:
				number(math.Float64bits(c.Value(i)))
			case *array.Int64:
				number(uint64(c.Value(i)))
			case *array.Timestamp:
				number(uint64(int64(c.Value(i)) - y2k))
			case *array.Boolean:
				out = append(binary.BigEndian.AppendUint32(out, 1), 0)
				if c.Value(i) {
					out[len(out)-1] = 1
				}
			case *array.String:
				out = append(binary.BigEndian.AppendUint32(out, uint32(len(c.Value(i)))), c.Value(i)...)
			}
		}
	}
	return binary.BigEndian.AppendUint16(out, math.MaxUint16)
}

func (j *ingestJob) run(ctx context.Context) (d ingestDone, err error) {
	pool, err := pg.Open(ctx, pg.Config{DSN: j.DSN})
	if err != nil {
		return d, err
	}
	defer pool.Close()
	objects, err := j.Bucket.open(ctx)
	if err != nil {
		return d, err
	}
	store, err := featurestore.Open(ctx, pool, objects, featurestore.Config{})
	if err != nil {
		return d, err
	}
	definitions, err := featurestore.ParseDefinitions([]byte(j.YAML))
	if err != nil {
		return d, err
	}
	if _, err := store.Apply(ctx, benchAuthor, definitions, "benchmark"); err != nil {
		return d, err
	}
	file, err := os.Open(j.File)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return d, err
	}
	start := time.Now()
	c, err := store.Ingest(ctx, benchAuthor, featurestore.IngestRequest{View: waybill.VersionRef{Name: "load"}, BatchID: "1", Format: featurestore.Parquet, Body: file, Size: info.Size()})
	if err != nil {
		return d, err
	}
	keys, _ := store.Memory(benchTenant, c.View)
	d.Seconds = time.Since(start).Seconds()
	if keys != j.Rows || c.Rows != int64(j.Rows) {
		return d, fmt.Errorf("%d rows of %d are committed and %d in memory", c.Rows, j.Rows, keys)
	}
	if d.RSSMiB, err = peakMemory(); err != nil {
		return d, err
	}
	return d, j.verify(ctx, store)
}

// verify reads some of the rows online and joins them offline.
func (j *ingestJob) verify(ctx context.Context, store *featurestore.Store) error {
	r, err := store.Reader(ctx, benchTenant, waybill.VersionRef{Name: "served"})
	if err != nil {
		return err
	}
	rb := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "thing", Type: arrow.BinaryTypes.String}, {Name: "at", Type: asofTime()}}, nil))
	defer rb.Release()
	const some = 1000
	now := time.Now().UTC()
	for n := range some {
		i := n * j.Rows / some
		v, err := r.Read(ctx, now, []map[string]any{{"thing": ingestKey(i)}})
		if err != nil {
			return err
		}
		if v[0].Cells[0].Value != ingestValue(i) {
			return fmt.Errorf("online, %s is %v, not %v", ingestKey(i), v[0].Cells[0].Value, ingestValue(i))
		}
		rb.Field(0).(*array.StringBuilder).Append(ingestKey(i))
		rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(now.UnixMicro()))
	}
	ref, err := waybill.ParseFeatureRef("feature", "load@v1:f0")
	if err != nil {
		return err
	}
	columns, err := store.AsOf(ctx, benchTenant, rb.NewRecord(), "at", []waybill.FeatureRef{ref}, now)
	if err != nil {
		return err
	}
	values, ok := columns[0].(*array.Float64)
	for n := range some {
		if i := n * j.Rows / some; !ok || values.IsNull(n) || values.Value(n) != ingestValue(i) {
			return fmt.Errorf("offline, %s is %s, not %v", ingestKey(i), columns[0].ValueStr(n), ingestValue(i))
		}
	}
	return nil
}
