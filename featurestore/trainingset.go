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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/lineage"
)

// A kernel names the version of the join and of the file writer: the same recipe and kernel give the same bytes.
const (
	kernel = "asof 4, " + writerVersion
	// textKernel is the one before, which this hub has too: it makes text of the spine's own columns, whatever their type is.
	textKernel = "asof 3, " + writerVersion
)

// knownKernel says whether this hub gives the bytes that a kernel gives.
func knownKernel(name string) bool { return name == kernel || name == textKernel }

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
	Delay       time.Duration      // without Cutoff: and within this after it, 0 to 30 days
	FullNames   bool               // features are named view__feature
	Without     []string           // outputs that are left out, by the names of their columns
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

// Options are what a recipe says beside its columns.
type Options struct {
	DelayUS   int64    `json:"delay_us,omitempty"` // µs after a row's own time within which what was learned counts
	FullNames bool     `json:"full_names,omitempty"`
	Without   []string `json:"without,omitempty"` // columns that were left out, sorted
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
	Options
	Kernel    string
	Rows      int64
	Size      int64 // bytes
	Columns   []ColumnStats
	Author    string
	CreatedAt time.Time
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
    kernel, rows, size_bytes, columns, author, created_at, options)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ON CONFLICT (tenant, digest) DO NOTHING`
	selectTrainingSet pg.SQL = `
SELECT digest, name, service, service_version, views, spine, spine_format, time_column, label_column, cutoff, kernel, rows, size_bytes, columns, author, created_at, options
FROM featurestore.training_set WHERE tenant = $1 AND digest = $2`
	selectTrainingSets pg.SQL = `
SELECT digest, name, service, service_version, views, spine, spine_format, time_column, label_column, cutoff, kernel, rows, size_bytes, columns, author, created_at, options
FROM featurestore.training_set WHERE tenant = $1 AND (created_at, digest) < ($2, $3) ORDER BY created_at DESC, digest DESC LIMIT $4`
	selectSameRecipe pg.SQL = `
SELECT digest FROM featurestore.training_set WHERE tenant = $1 AND name = $2 AND service = $3 AND service_version = $4 AND views = $5 AND spine = $6 AND spine_format = $7
AND time_column = $8 AND label_column = $9 AND cutoff IS NOT DISTINCT FROM $10 AND kernel = $11 AND options = $12 LIMIT 1`
	selectLogEnd pg.SQL = `SELECT seq FROM featurestore.log WHERE tenant = $1 AND view = $2 AND version = $3`
)

// CreateTrainingSet joins a spine with the features of a service as they were known, and keeps recipe and result. Every
// row of the spine is a row of the result, in the same order; a value never comes from the future of either clock. The
// same recipe over the same commits gives the same digest, and is kept once; another recipe never gives the same digest,
// since the file says what it was made by. With Config.Submit the work is a build's (StartTrainingSet): it goes on when
// the caller goes away or the hub dies, and who asks for the same again waits for it. The spine is a file as those of Ingest
// and waits for its turn like them.
func (s *Store) CreateTrainingSet(ctx context.Context, actor waybill.Actor, req TrainingSetRequest) (TrainingSet, error) {
	if s.submit != nil {
		b, err := s.StartTrainingSet(ctx, actor, req)
		if err != nil {
			return TrainingSet{}, err
		}
		if b, err = s.awaitBuild(ctx, actor.Tenant, b); err != nil {
			return TrainingSet{}, err
		}
		return s.TrainingSet(ctx, actor.Tenant, b.Digest)
	}
	done, err := s.uploading.turn(ctx, actor.Tenant)
	if err != nil {
		return TrainingSet{}, err
	}
	defer done()
	t, spine, err := s.recipeOf(ctx, actor, req)
	if err != nil {
		return TrainingSet{}, err
	}
	if found, err := s.sameRecipe(ctx, actor.Tenant, &t); err != nil || found.Digest != "" {
		return found, err
	}
	j, err := s.join(ctx, actor.Tenant, &t, spine)
	if err != nil {
		return TrainingSet{}, err
	}
	return s.store(ctx, actor, &t, j, spine)
}

// recipeOf is what a request asks for, over the commits that are there now, and its spine. The caller has a turn to hold it.
func (s *Store) recipeOf(ctx context.Context, actor waybill.Actor, req TrainingSetRequest) (t TrainingSet, spine []byte, err error) {
	if err := waybill.CheckName("name", req.Name); err != nil {
		return t, nil, err
	}
	if req.TimeColumn == "" {
		return t, nil, waybill.InvalidField("time_column", "is missing; name the spine's column with each row's time")
	}
	for _, f := range append([]string{req.TimeColumn, req.LabelColumn}, req.Without...) {
		if !utf8.ValidString(f) || strings.ContainsRune(f, 0) || len(f) > 256 {
			return t, nil, waybill.InvalidField("columns", strconv.QuoteToGraphic(short(f))+" is no column of the spine or the result: it is no text of at most 256 bytes")
		}
	}
	if len(req.Without) > maxColumns {
		return t, nil, waybill.InvalidField("without", "names more columns than there can be")
	}
	if req.Delay < 0 || req.Delay > maxDelay || req.Delay > 0 && !req.Cutoff.IsZero() {
		return t, nil, waybill.InvalidField("delay", "must be 0 to 720h, and 0 when a cut-off is given: then all rows see what was known by that")
	}
	sv, err := s.service(ctx, s.pool, actor.Tenant, req.Service)
	if err != nil {
		return t, nil, err
	}
	if err := s.RefuseRetired(ctx, actor.Tenant, "service", waybill.VersionRef{Name: sv.Name, Version: sv.Version}); err != nil {
		return t, nil, err
	}
	if spine, err = readFile(req.Spine, 0); err != nil {
		return t, nil, err
	}
	without := slices.Compact(slices.Sorted(slices.Values(req.Without)))
	t = TrainingSet{Name: req.Name, Service: waybill.VersionRef{Name: sv.Name, Version: sv.Version}, SpineFormat: req.Format, TimeColumn: req.TimeColumn, LabelColumn: req.LabelColumn,
		Cutoff: req.Cutoff.UTC().Truncate(time.Microsecond), Options: Options{req.Delay.Microseconds(), req.FullNames, without}, Kernel: kernel, Author: actor.ID,
		CreatedAt: s.clock(), Views: map[string]int64{}}
	p, err := s.plan(ctx, actor.Tenant, sv.Service)
	if err != nil {
		return t, nil, err
	}
	for i := range p.views { // also those that stand in
		ref := p.views[i].ref
		var seq int64
		if err := s.pool.QueryRow(ctx, string(selectLogEnd), actor.Tenant, ref.Name, ref.Version).Scan(&seq); err != nil {
			return t, nil, fmt.Errorf("select end of log: %w", err)
		}
		t.Views[ref.String()] = seq
	}
	sum := sha256.Sum256(spine)
	t.Spine = hex.EncodeToString(sum[:])
	return t, spine, nil
}

// maxDelay bounds how much later than its own time a row of the spine may see what was learned.
const maxDelay = 30 * 24 * time.Hour

// store writes a joined set and its spine to the bucket and records it. spine is nil for one that is there.
func (s *Store) store(ctx context.Context, actor waybill.Actor, t *TrainingSet, j *joined, spine []byte) (TrainingSet, error) {
	data, err := j.file(t)
	if err != nil {
		return TrainingSet{}, err
	}
	if err := buildingOf(ctx).storing(ctx); err != nil {
		return TrainingSet{}, err
	}
	if spine != nil {
		if _, err := s.bucket.PutContent(ctx, spinePrefix, bytes.NewReader(spine)); err != nil {
			return TrainingSet{}, err
		}
	}
	t.Columns, t.Rows, t.Size = j.statistics(), int64(j.rows), int64(len(data))
	o, err := s.bucket.PutContent(ctx, setPrefix, bytes.NewReader(data))
	if err != nil {
		return TrainingSet{}, err
	}
	t.Digest = hex.EncodeToString(o.SHA256[:])
	if err := s.keep(ctx, actor, t); err != nil {
		return TrainingSet{}, err
	}
	return s.TrainingSet(ctx, actor.Tenant, t.Digest)
}

// sameRecipe finds what the same recipe over the same commits has given before: whoever was cut off while he waited, or
// asks again, gets the finished result. The zero value when there is none, or its file is not what it was.
func (s *Store) sameRecipe(ctx context.Context, tenant waybill.Tenant, t *TrainingSet) (TrainingSet, error) {
	views, err := json.Marshal(t.Views)
	if err != nil {
		return TrainingSet{}, fmt.Errorf("marshal views: %w", err)
	}
	options, err := json.Marshal(t.Options)
	if err != nil {
		return TrainingSet{}, fmt.Errorf("marshal options: %w", err)
	}
	var digest string
	err = s.pool.QueryRow(ctx, string(selectSameRecipe), tenant, t.Name, t.Service.Name, t.Service.Version, views, t.Spine, t.SpineFormat, t.TimeColumn, t.LabelColumn,
		t.cutoff(), t.Kernel, options).Scan(&digest)
	if errors.Is(err, pgx.ErrNoRows) {
		return TrainingSet{}, nil
	}
	if err != nil {
		return TrainingSet{}, fmt.Errorf("select training set: %w", err)
	}
	if _, err := s.object(ctx, setPrefix+"/"+digest); waybill.CodeOf(err) == waybill.Corrupt {
		return TrainingSet{}, nil // it is made again
	} else if err != nil {
		return TrainingSet{}, err
	}
	return s.TrainingSet(ctx, tenant, digest)
}

// cutoff is the stored form: nil for each row's own time.
func (t *TrainingSet) cutoff() *time.Time {
	if t.Cutoff.IsZero() {
		return nil
	}
	return &t.Cutoff
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
	options, err := json.Marshal(t.Options)
	if err != nil {
		return fmt.Errorf("marshal options: %w", err)
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
			t.LabelColumn, t.cutoff(), t.Kernel, t.Rows, t.Size, columns, t.Author, t.CreatedAt, options)
		if err != nil {
			return fmt.Errorf("insert training set: %w", err)
		}
		if err := buildingOf(ctx).recorded(ctx, tx, t.Digest); err != nil {
			return err
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
	Options
	Kernel string `json:"kernel"`
}

func (t *TrainingSet) recipe() (string, error) {
	r := recipe{t.Name, t.Service.String(), t.Views, t.Spine, t.SpineFormat, t.TimeColumn, t.LabelColumn, nil, t.Options, t.Kernel}
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

// parseRecipe is the inverse of recipe.
func parseRecipe(text []byte) (TrainingSet, error) {
	var r recipe
	if err := json.Unmarshal(text, &r); err != nil {
		return TrainingSet{}, fmt.Errorf("unmarshal recipe: %w", err)
	}
	service, err := waybill.ParseVersionRef("service", r.Service)
	if err != nil {
		return TrainingSet{}, err
	}
	t := TrainingSet{Name: r.Name, Service: service, Views: r.Views, Spine: r.Spine, SpineFormat: r.SpineFormat, TimeColumn: r.TimeColumn, LabelColumn: r.LabelColumn,
		Options: r.Options, Kernel: r.Kernel}
	if r.CutoffUS != nil {
		t.Cutoff = time.UnixMicro(*r.CutoffUS).UTC()
	}
	return t, nil
}

func scanTrainingSet(r pgx.CollectableRow) (t TrainingSet, err error) {
	var views, columns, options []byte
	var cutoff *time.Time
	if err := r.Scan(&t.Digest, &t.Name, &t.Service.Name, &t.Service.Version, &views, &t.Spine, &t.SpineFormat, &t.TimeColumn, &t.LabelColumn, &cutoff, &t.Kernel,
		&t.Rows, &t.Size, &columns, &t.Author, &t.CreatedAt, &options); err != nil {
		return t, err
	}
	if cutoff != nil {
		t.Cutoff = cutoff.UTC()
	}
	t.CreatedAt = t.CreatedAt.UTC()
	return t, errors.Join(json.Unmarshal(views, &t.Views), json.Unmarshal(columns, &t.Columns), json.Unmarshal(options, &t.Options))
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

// OpenTrainingSet returns the Parquet file, verified, and its size in bytes. It is in memory until the caller closes it; so at
// most downloads of them are open at once, half of them of one tenant, and others wait until ctx ends. Errors: Exhausted
// when the turn does not come by then, or too many of the tenant wait.
func (s *Store) OpenTrainingSet(ctx context.Context, tenant waybill.Tenant, digest string) (io.ReadCloser, int64, error) {
	t, err := s.TrainingSet(ctx, tenant, digest) // also the wall between tenants: the bucket knows none
	if err != nil {
		return nil, 0, err
	}
	done, err := s.downloading.turn(ctx, tenant)
	if err != nil {
		return nil, 0, err
	}
	data, err := s.object(ctx, setPrefix+"/"+t.Digest)
	if err != nil {
		done()
		return nil, 0, err
	}
	return &opened{bytes.NewReader(data), sync.OnceFunc(done)}, int64(len(data)), nil
}

// opened is a training set in memory.
type opened struct {
	*bytes.Reader
	done func()
}

// Close lets the next one be opened. To close it again changes nothing.
func (o *opened) Close() error {
	o.Reader.Reset(nil)
	o.done()
	return nil
}
