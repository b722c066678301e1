package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/lineage"
)

// kernel names the version of the join and of the file writer: the same recipe and kernel give the same bytes.
const kernel = "asof 2, " + writerVersion

// maxResultCells bounds a training set in memory.
const maxResultCells = 100_000_000

// TrainingSetRequest is the recipe of a training set.
type TrainingSetRequest struct {
	Name        string             // for people; several sets may share it
	Service     waybill.VersionRef // version 0 is the latest
	Format      string             // of the spine: CSV or Parquet
	TimeColumn  string             // column of the spine with each row's time
	LabelColumn string             // column of the spine with the label; "" for none
	Cutoff      time.Time          // use what was known by then; zero: what was known at each row's own time
	Spine       io.Reader          // at most MaxFileBytes; one row per example: the service's inputs, time, label
}

// ColumnStats describes one column of a training set. The moments are of numeric columns; Std divides by n.
type ColumnStats struct {
	Name  string  `json:"name"`
	Type  Type    `json:"type"`
	Rows  int64   `json:"rows"`
	Nulls int64   `json:"nulls"`
	Mean  float64 `json:"mean"`
	Std   float64 `json:"std"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
}

// TrainingSet is an immutable as-of join result: as many rows as its spine, in its order.
type TrainingSet struct {
	Digest      string // hex SHA-256 of the Parquet file
	Name        string
	Service     waybill.VersionRef
	Views       map[string]int64 // view version → newest commit that was looked at
	Spine       string           // hex SHA-256 of the spine's file
	SpineFormat string
	TimeColumn  string
	LabelColumn string
	Cutoff      time.Time // zero: each row's own time
	Kernel      string
	Rows        int64
	Size        int64 // bytes
	Columns     []ColumnStats
	Author      string
	CreatedAt   time.Time
}

// Rebuild says whether a training set comes out the same again.
type Rebuild struct {
	Equal       bool
	Digest      string // of the rebuilt file
	Explanation string // why they differ; "" when equal
}

// Page asks for a part of a list.
type Page struct {
	Size  int    // 0 is 100; at most 1,000
	Token string // what the page before returned; "" for the first
}

func (p Page) check() (int, error) {
	if p.Size < 0 || p.Size > 1000 {
		return 0, waybill.InvalidField("page_size", "must lie in 0 to 1,000; 0 means 100")
	}
	if p.Size == 0 {
		return 100, nil
	}
	return p.Size, nil
}

const (
	insertTrainingSet pg.SQL = `
INSERT INTO featurestore.training_set (tenant, digest, name, service, service_version, views, spine, spine_format, time_column, label_column, cutoff,
    kernel, rows, size_bytes, columns, author, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT (tenant, digest) DO NOTHING`
	selectTrainingSet pg.SQL = `
SELECT digest, name, service, service_version, views, spine, spine_format, time_column, label_column, cutoff, kernel, rows, size_bytes, columns, author, created_at
FROM featurestore.training_set WHERE tenant = $1 AND digest = $2`
	selectTrainingSets pg.SQL = `
SELECT digest, name, service, service_version, views, spine, spine_format, time_column, label_column, cutoff, kernel, rows, size_bytes, columns, author, created_at
FROM featurestore.training_set WHERE tenant = $1 AND (created_at, digest) < ($2, $3) ORDER BY created_at DESC, digest DESC LIMIT $4`
	selectLogEnd pg.SQL = `SELECT seq FROM featurestore.log WHERE tenant = $1 AND view = $2 AND version = $3`
)

// CreateTrainingSet joins a spine with the features of a service as they were known, and keeps recipe and result. Every
// row of the spine is a row of the result, in the same order; a value never comes from the future of either clock. The
// same recipe over the same commits gives the same digest, and is kept once; another recipe never gives the same digest,
// since the file says what it was made by.
func (s *Store) CreateTrainingSet(ctx context.Context, actor waybill.Actor, req TrainingSetRequest) (TrainingSet, error) {
	if err := waybill.CheckName("name", req.Name); err != nil {
		return TrainingSet{}, err
	}
	if req.TimeColumn == "" {
		return TrainingSet{}, waybill.InvalidField("time_column", "is missing; name the spine's column with each row's time")
	}
	sv, err := s.service(ctx, s.pool, actor.Tenant, req.Service)
	if err != nil {
		return TrainingSet{}, err
	}
	spine, err := readFile(req.Spine)
	if err != nil {
		return TrainingSet{}, err
	}
	t := TrainingSet{Name: req.Name, Service: waybill.VersionRef{Name: sv.Name, Version: sv.Version}, SpineFormat: req.Format, TimeColumn: req.TimeColumn, LabelColumn: req.LabelColumn,
		Cutoff: req.Cutoff.UTC().Truncate(time.Microsecond), Kernel: kernel, Author: actor.ID, CreatedAt: s.clock(), Views: map[string]int64{}}
	for _, f := range sv.Features {
		ref, err := waybill.ParseFeatureRef("features", f)
		if err != nil {
			return TrainingSet{}, err
		}
		var seq int64
		if err := s.pool.QueryRow(ctx, string(selectLogEnd), actor.Tenant, ref.View.Name, ref.View.Version).Scan(&seq); err != nil {
			return TrainingSet{}, fmt.Errorf("select end of log: %w", err)
		}
		t.Views[ref.View.String()] = seq
	}
	sum := sha256.Sum256(spine)
	t.Spine = hex.EncodeToString(sum[:])
	data, stats, err := s.join(ctx, actor.Tenant, &t, spine)
	if err != nil {
		return TrainingSet{}, err
	}
	t.Columns, t.Rows, t.Size = stats, stats[0].Rows, int64(len(data))
	if _, err := s.bucket.PutContent(ctx, spinePrefix, bytes.NewReader(spine)); err != nil {
		return TrainingSet{}, err
	}
	o, err := s.bucket.PutContent(ctx, setPrefix, bytes.NewReader(data))
	if err != nil {
		return TrainingSet{}, err
	}
	t.Digest = hex.EncodeToString(o.SHA256[:])
	if err := s.keep(ctx, actor, &t); err != nil {
		return TrainingSet{}, err
	}
	return s.TrainingSet(ctx, actor.Tenant, t.Digest)
}

// keep records a training set with its lineage and its leaf, unless it is there already.
func (s *Store) keep(ctx context.Context, actor waybill.Actor, t *TrainingSet) error {
	views, err := json.Marshal(t.Views)
	if err != nil {
		return fmt.Errorf("marshal views: %w", err)
	}
	columns, err := json.Marshal(t.Columns)
	if err != nil {
		return fmt.Errorf("marshal columns: %w", err)
	}
	var cutoff *time.Time
	if !t.Cutoff.IsZero() {
		cutoff = &t.Cutoff
	}
	node := lineage.TrainingSetNode(t.Digest)
	edges := []lineage.Edge{{From: lineage.ActorNode(actor), To: node, Kind: lineage.Wrote}, {From: lineage.ServiceNode(t.Service), To: node, Kind: lineage.Defines},
		{From: lineage.Node("dataset:" + t.Spine), To: node, Kind: lineage.Derived}}
	for view, seq := range t.Views {
		edges = append(edges, lineage.Edge{From: lineage.Node("view:" + view), To: node, Kind: lineage.Reads})
		if seq > 0 {
			edges = append(edges, lineage.Edge{From: lineage.Node("commit:" + view + "/" + strconv.FormatInt(seq, 10)), To: node, Kind: lineage.Reads})
		}
	}
	return pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, string(insertTrainingSet), actor.Tenant, t.Digest, t.Name, t.Service.Name, t.Service.Version, views, t.Spine, t.SpineFormat, t.TimeColumn,
			t.LabelColumn, cutoff, t.Kernel, t.Rows, t.Size, columns, t.Author, t.CreatedAt)
		if err != nil {
			return fmt.Errorf("insert training set: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		if err := lineage.Record(ctx, tx, actor.Tenant, t.CreatedAt, edges...); err != nil {
			return err
		}
		return audit.Enqueue(ctx, tx, audit.Event{Type: "training.set", Tenant: actor.Tenant, Actor: actor.ID, At: t.CreatedAt, Subject: string(node), Digest: "sha256:" + t.Digest,
			Detail: map[string]any{"name": t.Name, "service": t.Service.String(), "rows": t.Rows, "spine": "sha256:" + t.Spine}})
	})
}

// recipe is what the digest of a training set binds beside its values, in the order in which it is written.
type recipe struct {
	Name        string           `json:"name"`
	Service     string           `json:"service"`
	Views       map[string]int64 `json:"views"` // encoding/json sorts them
	Spine       string           `json:"spine"`
	SpineFormat string           `json:"spine_format"`
	TimeColumn  string           `json:"time_column"`
	LabelColumn string           `json:"label_column"`
	CutoffUS    *int64           `json:"cutoff_us"` // µs since 1970; null: each row's own time
	Kernel      string           `json:"kernel"`
}

func (t *TrainingSet) recipe() (string, error) {
	r := recipe{t.Name, t.Service.String(), t.Views, t.Spine, t.SpineFormat, t.TimeColumn, t.LabelColumn, nil, t.Kernel}
	if !t.Cutoff.IsZero() {
		us := t.Cutoff.UnixMicro()
		r.CutoffUS = &us
	}
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("marshal recipe: %w", err)
	}
	return string(b), nil
}

// example is a column of the result: where its values come from.
type example struct {
	col    Column
	spine  int // place in the spine, or −1
	output int // place among the outputs, or −1
}

// join makes the Parquet file of a recipe and its statistics. It reads the commits that t.Views names and nothing newer.
func (s *Store) join(ctx context.Context, tenant waybill.Tenant, t *TrainingSet, spine []byte) ([]byte, []ColumnStats, error) {
	sv, err := s.service(ctx, s.pool, tenant, t.Service)
	if err != nil {
		return nil, nil, err
	}
	p, err := compileService(sv.Service, func(ref waybill.VersionRef) (*View, error) {
		v, err := s.view(ctx, s.pool, tenant, ref)
		return &v.View, err
	})
	if err != nil {
		return nil, nil, err
	}
	done, err := s.decode(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	in, err := readTable(t.SpineFormat, spine, func(names []string) error { return p.checkSpine(names, t) })
	if err != nil {
		return nil, nil, err
	}
	histories, ttls := map[waybill.VersionRef]history{}, map[waybill.VersionRef]int64{}
	for _, l := range p.views {
		ref := l.ref
		v, err := s.view(ctx, s.pool, tenant, ref)
		if err != nil {
			return nil, nil, err
		}
		ttl, err := v.View.ttl()
		if err != nil {
			return nil, nil, err
		}
		var rows []row
		if err := s.commits(ctx, viewKey{tenant, ref}, &v.View, 0, t.Views[ref.String()], func(_ int64, more []row) error {
			rows = append(rows, more...)
			return nil
		}); err != nil {
			return nil, nil, err
		}
		histories[ref], ttls[ref] = newHistory(rows), ttl.Microseconds()
	}
	columns, err := p.examples(in, t)
	if err != nil {
		return nil, nil, err
	}
	cells := make([][]any, in.rows)
	for i := range cells {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if cells[i], err = p.example(in, i, t, columns, histories, ttls); err != nil {
			return nil, nil, err
		}
	}
	outs := make([]Column, len(columns))
	for i, c := range columns {
		outs[i] = c.col
	}
	how, err := t.recipe()
	if err != nil {
		return nil, nil, err
	}
	data, err := writeParquet(outs, in.rows, how, func(i, c int) any { return cells[i][c] })
	if err != nil {
		return nil, nil, err
	}
	return data, statistics(outs, cells), nil
}

// checkSpine holds the columns of a spine against the service. A column named like a feature or expression would take the
// place of the value as of the row's time.
func (p *plan) checkSpine(names []string, t *TrainingSet) error {
	for _, want := range []struct{ field, column string }{{"time_column", t.TimeColumn}, {"label_column", t.LabelColumn}} {
		if want.column != "" && !slices.Contains(names, want.column) {
			return waybill.InvalidField(want.field, strconv.QuoteToGraphic(short(want.column))+" is no column of the spine; it has "+strings.Join(names, ", "))
		}
	}
	if t.LabelColumn != "" && t.LabelColumn == t.TimeColumn {
		return waybill.InvalidField("label_column", "is the time column; name another or none")
	}
	for _, l := range p.views {
		for _, k := range l.keys {
			if name := p.service.Inputs[k].Name; !slices.Contains(names, name) {
				return waybill.InvalidField("spine", "lacks the column "+name+"; it is a join key of "+l.ref.String())
			}
		}
	}
	for i, o := range p.outputs {
		if p.places[i] >= len(p.service.Inputs) && slices.Contains(names, o.Name) {
			return waybill.InvalidField("spine", "has a column "+o.Name+", and so has the result: "+o.Name+" is computed as of each row's time; leave the column out or rename it")
		}
	}
	return nil
}

// examples lays the result's columns out: the spine's own (inputs typed by the service), then the outputs that are not
// among them.
func (p *plan) examples(in *table, t *TrainingSet) ([]example, error) {
	if n := len(in.names) + len(p.outputs); in.rows*n > maxResultCells {
		return nil, waybill.Errorf(waybill.TooLarge, "the result would have %d rows of %d columns; at most %d values, so cut the spine into several", in.rows, n, maxResultCells)
	}
	var out []example
	for i, name := range in.names {
		c := Column{Name: name, Type: String}
		for _, input := range p.service.Inputs {
			if input.Name == name {
				c.Type = input.Type
			}
		}
		switch name {
		case t.TimeColumn:
			c.Type = Timestamp
		case t.LabelColumn:
			c.Type = Float64
			for r := range in.rows {
				if _, err := label(in.cell(r, i)); err != nil && !errors.Is(err, errNotFinite) {
					c.Type = String
					break
				}
			}
		}
		out = append(out, example{c, i, -1})
	}
	for i, o := range p.outputs {
		if in.column(o.Name) < 0 {
			out = append(out, example{Column{Name: o.Name, Type: o.Type}, -1, i})
		}
	}
	return out, nil
}

// label reads a label as a number: a truth value is 0 or 1, NaN is null as in every column. The error is a remedy without the field.
func label(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	if b, err := convert(Bool, v); err == nil {
		if _, number := v.(float64); !number {
			if b == true {
				return 1.0, nil
			}
			return 0.0, nil
		}
	}
	x, err := convert(Float64, v)
	if s, ok := v.(string); ok && err != nil {
		if _, err := strconv.ParseFloat(s, 64); errors.Is(err, strconv.ErrRange) {
			return nil, errNotFinite
		}
	}
	if err != nil {
		return nil, err
	}
	if f, ok := x.(float64); ok && math.IsInf(f, 0) {
		return nil, errNotFinite
	} else if ok && math.IsNaN(f) {
		return nil, nil
	}
	return x, nil
}

// errNotFinite says that a label is a number, but none that can be learned.
var errNotFinite = errors.New("is infinite or too large for float64; give a finite number")

// example joins one row.
func (p *plan) example(in *table, i int, t *TrainingSet, columns []example, histories map[waybill.VersionRef]history, ttls map[waybill.VersionRef]int64) ([]any, error) {
	bad := func(column string, err error) error {
		return waybill.InvalidField(in.line(i)+", "+column, err.Error())
	}
	at, err := toTime(in.cell(i, in.column(t.TimeColumn)))
	if err != nil {
		return nil, bad(t.TimeColumn, err)
	}
	known := at
	if !t.Cutoff.IsZero() {
		known = t.Cutoff
	}
	cells := make([]Cell, 0, len(p.service.Inputs)+len(p.features)+len(p.exprs))
	for _, c := range p.service.Inputs {
		var v any
		if n := in.column(c.Name); n >= 0 {
			if v, err = typed(c, in.cell(i, n)); err != nil {
				return nil, bad(c.Name, err)
			}
		}
		cells = append(cells, cellOf(c.Name, v))
	}
	found := make([]*row, len(p.views))
	for j := range p.views {
		l := &p.views[j]
		key, err := l.appendKey(nil, cells)
		if err != nil {
			return nil, bad(err.Error(), errors.New("is missing; it is a join key of "+l.ref.String()))
		}
		found[j] = histories[l.ref].asOf(string(key), at.UnixMicro(), ttls[l.ref], known.UnixMicro())
	}
	for j := range p.features {
		f := &p.features[j]
		cells = append(cells, f.cellOf(found[f.view], at, 0)) // asOf has taken the time-to-live into account
	}
	if cells, err = p.evaluate(cells); err != nil {
		return nil, fmt.Errorf("%s: %w", in.line(i), err)
	}
	out := make([]any, len(columns))
	for c, e := range columns {
		switch {
		case e.output >= 0:
			out[c] = cells[p.places[e.output]].Value
		case e.col.Name == t.TimeColumn:
			out[c] = at
		case e.col.Name == t.LabelColumn && e.col.Type == Float64:
			if out[c], err = label(in.cell(i, e.spine)); err != nil {
				return nil, bad(e.col.Name, err)
			}
		default:
			v := in.cell(i, e.spine)
			if v == nil {
				continue
			}
			if e.col.Type == String {
				if tm, ok := v.(time.Time); ok {
					v = tm.Format(time.RFC3339Nano)
				}
				out[c] = fmt.Sprint(v)
				continue
			}
			if out[c], err = typed(Column{Name: e.col.Name, Type: e.col.Type}, v); err != nil {
				return nil, bad(e.col.Name, err)
			}
		}
	}
	return out, nil
}

// statistics describes columns. Means are accumulated by Welford's update, of numbers scaled by a power of two where
// their squares would not be finite.
func statistics(cols []Column, cells [][]any) []ColumnStats {
	out := make([]ColumnStats, len(cols))
	for c, col := range cols {
		s := ColumnStats{Name: col.Name, Type: col.Type, Rows: int64(len(cells))}
		largest := 0.0
		for _, row := range cells {
			if x, ok := number(row[c]); ok && math.Abs(x) > largest {
				largest = math.Abs(x)
			}
		}
		scale := 1.0
		if largest > 1e140 {
			scale = math.Ldexp(1, 600)
		}
		n, m2 := 0.0, 0.0
		for _, row := range cells {
			if row[c] == nil {
				s.Nulls++
				continue
			}
			x, ok := number(row[c])
			if !ok || math.IsNaN(x) {
				continue
			}
			if n == 0 {
				s.Min, s.Max = x, x
			}
			n++
			d := x/scale - s.Mean
			s.Mean += d / n
			m2 += d * (x/scale - s.Mean)
			s.Min, s.Max = math.Min(s.Min, x), math.Max(s.Max, x)
		}
		if n > 0 { // the last digit of the largest numbers must not round to infinity
			s.Mean = max(s.Min, min(s.Max, s.Mean*scale))
			s.Std = min(math.Sqrt(m2/n)*scale, math.MaxFloat64)
		}
		out[c] = s
	}
	return out
}

func scanTrainingSet(r pgx.CollectableRow) (t TrainingSet, err error) {
	var views, columns []byte
	var cutoff *time.Time
	if err := r.Scan(&t.Digest, &t.Name, &t.Service.Name, &t.Service.Version, &views, &t.Spine, &t.SpineFormat, &t.TimeColumn, &t.LabelColumn, &cutoff, &t.Kernel,
		&t.Rows, &t.Size, &columns, &t.Author, &t.CreatedAt); err != nil {
		return t, err
	}
	if cutoff != nil {
		t.Cutoff = cutoff.UTC()
	}
	t.CreatedAt = t.CreatedAt.UTC()
	return t, errors.Join(json.Unmarshal(views, &t.Views), json.Unmarshal(columns, &t.Columns))
}

func checkDigest(digest string) error {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size || strings.ToLower(digest) != digest {
		return waybill.InvalidField("digest", "must be 64 hex digits: the SHA-256 of the training set")
	}
	return nil
}

// TrainingSet returns recipe and statistics.
func (s *Store) TrainingSet(ctx context.Context, tenant waybill.Tenant, digest string) (TrainingSet, error) {
	if err := checkDigest(digest); err != nil {
		return TrainingSet{}, err
	}
	rows, err := s.pool.Query(ctx, string(selectTrainingSet), tenant, digest)
	if err != nil {
		return TrainingSet{}, fmt.Errorf("select training set: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, scanTrainingSet)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, waybill.Errorf(waybill.NotFound, "there is no training set %s", digest)
	}
	if err != nil {
		return t, fmt.Errorf("read training set: %w", err)
	}
	return t, nil
}

// TrainingSets lists training sets, newest first, and returns the token of the next page ("" at the end).
func (s *Store) TrainingSets(ctx context.Context, tenant waybill.Tenant, p Page) ([]TrainingSet, string, error) {
	n, err := p.check()
	if err != nil {
		return nil, "", err
	}
	before, digest := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), ""
	if p.Token != "" {
		micros, rest, found := strings.Cut(p.Token, "_")
		us, err := strconv.ParseInt(micros, 10, 64)
		if err != nil || !found || checkDigest(rest) != nil {
			return nil, "", waybill.InvalidField("page_token", "is not one that a list returned")
		}
		before, digest = time.UnixMicro(us).UTC(), rest
	}
	rows, err := s.pool.Query(ctx, string(selectTrainingSets), tenant, before, digest, n+1)
	if err != nil {
		return nil, "", fmt.Errorf("select training sets: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanTrainingSet)
	if err != nil {
		return nil, "", fmt.Errorf("read training sets: %w", err)
	}
	next := ""
	if len(list) > n {
		list = list[:n]
		last := list[n-1]
		next = strconv.FormatInt(last.CreatedAt.UnixMicro(), 10) + "_" + last.Digest
	}
	return list, next, nil
}

// RebuildTrainingSet makes a training set again from its recipe and compares the bytes. Nothing is written.
func (s *Store) RebuildTrainingSet(ctx context.Context, tenant waybill.Tenant, digest string) (Rebuild, error) {
	t, err := s.TrainingSet(ctx, tenant, digest)
	if err != nil {
		return Rebuild{}, err
	}
	if t.Kernel != kernel {
		return Rebuild{Explanation: fmt.Sprintf("it was made by kernel %q and this hub has %q: the values can be compared, the bytes cannot", t.Kernel, kernel)}, nil
	}
	spine, err := s.object(ctx, spinePrefix+"/"+t.Spine)
	if err != nil {
		return Rebuild{}, err
	}
	data, _, err := s.join(ctx, tenant, &t, spine)
	if err != nil {
		return Rebuild{}, err
	}
	sum := sha256.Sum256(data)
	r := Rebuild{Digest: hex.EncodeToString(sum[:])}
	if r.Equal = r.Digest == digest; !r.Equal {
		r.Explanation = "the same recipe, commits and kernel gave other bytes; this is a defect of the hub or of its storage"
	}
	return r, nil
}

// OpenTrainingSet returns the Parquet file, verified.
func (s *Store) OpenTrainingSet(ctx context.Context, tenant waybill.Tenant, digest string) (io.Reader, int64, error) {
	t, err := s.TrainingSet(ctx, tenant, digest) // also the wall between tenants: the bucket knows none
	if err != nil {
		return nil, 0, err
	}
	data, err := s.object(ctx, setPrefix+"/"+t.Digest)
	if err != nil {
		return nil, 0, err
	}
	return bytes.NewReader(data), int64(len(data)), nil
}

// TrainingColumns reads the numeric columns of a training set, label included: names and, per name, one value per row
// with NaN for missing. A truth value reads as 0 or 1; text and times are left out.
func (s *Store) TrainingColumns(ctx context.Context, tenant waybill.Tenant, digest string) ([]string, [][]float64, error) {
	r, _, err := s.OpenTrainingSet(ctx, tenant, digest)
	if err != nil {
		return nil, nil, err
	}
	data, err := readFile(r)
	if err != nil {
		return nil, nil, err
	}
	t, err := readParquet(data, anyNames, false)
	if err != nil {
		return nil, nil, waybill.Wrap(waybill.Corrupt, err, "the training set cannot be read")
	}
	var names []string
	var columns [][]float64
	for c, name := range t.names {
		values := make([]float64, t.rows)
		numeric := true
		for i := range values {
			x, ok := number(t.cell(i, c))
			if numeric = ok; !ok {
				break
			}
			values[i] = x
		}
		if numeric {
			names, columns = append(names, name), append(columns, values)
		}
	}
	return names, columns, nil
}
