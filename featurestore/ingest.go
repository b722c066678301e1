package featurestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"waybill"
	"waybill/internal/bucket"
)

// Where files lie in the bucket; each under its SHA-256.
const (
	commitPrefix = "featurestore/commits"
	spinePrefix  = "featurestore/spines"
	setPrefix    = "featurestore/trainingsets"
)

// IngestRequest is a file for one view version.
type IngestRequest struct {
	View    waybill.VersionRef // version 0 is the latest
	BatchID string             // the same id is accepted once per view version
	Format  string             // CSV or Parquet
	Columns map[string]string  // file column → view column, for those that are named differently
	Mode    Mode               // what happens to bad rows; "" is Reject
	Body    io.Reader          // at most MaxFileBytes with MaxFileRows rows
	Size    int64              // how many bytes Body must have; 0 when that is not known
	Rows    int64              // of IngestArrow: how many there must be; 0 for any number
}

// Ingest validates a file and appends it to the view's log as one commit: in mode Reject all of its rows or none, in mode
// Quarantine those that are good. The columns are the view's join keys, features and event_time; a feature without a column
// is null. What is wrong is named by line. Batch ids and personal columns are as for Push. The rows lie in the bucket as
// Parquet.
//
// At most uploads files are in memory at once, half of them of one tenant, each of at most MaxFileBytes as it came, as it is
// stored and as it is laid out; the body of another is not read before its turn, so that its sender waits. At most decoders
// of them are decoded at once, some pieceRows at a time. Exhausted when ctx ends before the turn comes, or too many of the
// tenant wait.
func (s *Store) Ingest(ctx context.Context, actor waybill.Actor, req IngestRequest) (Commit, error) {
	v, err := s.writable(ctx, actor.Tenant, req.View)
	if err != nil {
		return Commit{}, err
	}
	if err := checkBatchID(req.BatchID); err != nil {
		return Commit{}, err
	}
	done, err := s.uploading.turn(ctx, actor.Tenant)
	if err != nil {
		return Commit{}, err
	}
	defer done()
	data, err := readFile(req.Body, req.Size)
	if err != nil {
		return Commit{}, err
	}
	return s.ingest(ctx, actor, v, req, func() (*source, error) {
		return openFile(req.Format, data, func(names []string) error {
			if err := rename(names, req.Columns); err != nil {
				return err
			}
			return checkNames(&v.View, names)
		})
	})
}

// ingest appends the rows of a file, whose columns are the view's. The caller has a turn to hold it.
func (s *Store) ingest(ctx context.Context, actor waybill.Actor, v storedView, req IngestRequest, open func() (*source, error)) (Commit, error) {
	w, err := s.layOut(ctx, actor, v, req, open)
	if err != nil || w.done {
		return w.first, err
	}
	if w.good > 0 {
		if c, err := s.again(ctx, actor.Tenant, w.ref, req.BatchID, w); err == nil || waybill.CodeOf(err) != waybill.NotFound {
			return c, err
		}
		measured := make(chan error, 1)
		go func() { measured <- w.measure() }() // the bucket has enough to do meanwhile
		if err := errors.Join(s.upload(ctx, w), <-measured); err != nil {
			return Commit{}, err
		}
		// Whoever follows the log on this hub meanwhile need not fetch what is here.
		s.fresh.Store(w.object, w.file)
		defer s.fresh.Delete(w.object)
	}
	// From here on a failure leaves an object that no commit names; it is harmless, and the same file finds it again.
	return s.append(ctx, w)
}

// upload puts a batch's file into the bucket under its digest.
func (s *Store) upload(ctx context.Context, w *writing) error {
	w.object = commitPrefix + "/" + hex.EncodeToString(w.file.sum[:])
	return s.bucket.PutNamed(ctx, w.object, w.file, w.file.size, w.file.sum)
}

// layOut decodes and checks a file, and lays its good rows out as they are stored.
func (s *Store) layOut(ctx context.Context, actor waybill.Actor, v storedView, req IngestRequest, open func() (*source, error)) (*writing, error) {
	done, err := s.decoding.turn(ctx, actor.Tenant)
	if err != nil {
		return &writing{}, err
	}
	defer done()
	src, err := open()
	if err != nil {
		return &writing{}, err
	}
	w, tk, err := s.begin(ctx, actor, v, req.BatchID, req.Mode, func() (string, error) {
		t, err := src.table()
		if err != nil {
			return "", err
		}
		in := filed(&v.View, src.names, t.rows, t.cell, t.line)
		return in.digest(), nil
	})
	if err != nil || w.done {
		return w, err
	}
	return w, s.layPieces(ctx, &v.View, src, w, tk)
}

// layPieces is layOut for a batch that has begun.
func (s *Store) layPieces(ctx context.Context, v *View, src *source, w *writing, tk tokens) error {
	now := s.clock()
	check, lay, out := &checking{v: v, mode: w.mode, now: now, tk: tk}, newLaid(v, src.names, now, tk), newCommitFile(v)
	next, stop := ahead(src.pieces())
	defer stop()
	defer out.stop()
	rows := 0
	for !check.full() {
		p, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rows += p.rows
		rec := lay.record(p)
		if rec == nil { // a row is wrong, or so seems it: which and why, and what the others are, is found one by one
			in := filed(v, src.names, p.rows, p.cell, p.line)
			good, err := check.rows(&in, p.first)
			if err != nil {
				return err
			}
			if rec, err = recordOf(lay.schema, v, good); err != nil {
				return err
			}
		}
		if len(check.bad) > 0 {
			continue // nothing will be written
		}
		out.add(rec)
	}
	if err := waybill.InvalidFields(check.bad); err != nil {
		return err
	}
	if rows == 0 {
		return errNoRows
	}
	var err error
	if w.file, err = out.close(); err != nil {
		return err
	}
	if w.file != nil && w.file.size > MaxFileBytes {
		return waybill.Errorf(waybill.TooLarge, "the rows have %d MiB as they are stored; at most %d, so cut the file into several", w.file.size>>20, MaxFileBytes>>20)
	}
	if w.good = out.rows; w.good == 0 {
		return w.keep(check.kept)
	}
	w.measure = sync.OnceValue(func() error {
		return whole(func() (err error) {
			w.content, w.minEvent, w.maxEvent, err = w.file.measure(v)
			return err
		})
	})
	return w.keep(check.kept)
}

// ahead decodes the next piece while the last one is worked on. stop ends it; it may be called before the end.
func ahead(pieces func() (*piece, error)) (next func() (*piece, error), stop func()) {
	type decoded struct {
		p   *piece
		err error
	}
	ch, quit := make(chan decoded), make(chan struct{})
	go func() {
		defer close(ch)
		for {
			p, err := pieces()
			select {
			case ch <- decoded{p, err}:
			case <-quit:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	next = func() (*piece, error) {
		d, ok := <-ch
		if !ok {
			return nil, io.EOF
		}
		return d.p, d.err
	}
	return next, func() {
		close(quit)
		for range ch { // it is over when nobody reads the bytes any more
		}
	}
}

// rename gives a file's columns the names of the view's.
func rename(names []string, columns map[string]string) error {
	given := slices.Clone(names)
	for from, to := range columns {
		i := slices.Index(given, from)
		if i < 0 {
			return waybill.InvalidField("columns."+short(from), "is no column of the file; it has "+strings.Join(given, ", "))
		}
		names[i] = to
	}
	return nil
}

// checkNames holds a file's columns against the view's.
func checkNames(v *View, names []string) error {
	seen := map[string]bool{}
	for _, n := range names {
		known := func(c Column) bool { return c.Name == n }
		if n != "event_time" && !slices.ContainsFunc(v.Entity.Keys, known) && !slices.ContainsFunc(v.Features, known) {
			return waybill.InvalidField("column "+short(n), "is no column of view "+v.Name+"; leave it out or map it")
		}
		if seen[n] {
			return waybill.InvalidField("column "+short(n), "is there twice")
		}
		seen[n] = true
	}
	for _, k := range v.Entity.Keys {
		if !seen[k.Name] {
			return waybill.InvalidField("column "+k.Name, "is missing; it is a join key of view "+v.Name)
		}
	}
	if !seen["event_time"] {
		return waybill.InvalidField("column event_time", "is missing; it says when each row was true")
	}
	return nil
}

// commitColumns are the columns of a commit's file.
func commitColumns(v *View) []Column {
	return slices.Concat(v.Entity.Keys, v.Features, []Column{{Name: "event_time", Type: Timestamp}})
}

// readCommitFile reads a commit's file as rows: of commit seq of time at (µs).
func readCommitFile(v *View, seq, at int64, data []byte) ([]row, error) {
	t, err := readOwn(data)
	if err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "a commit's file cannot be read")
	}
	cols := commitColumns(v)
	places := make([]int, len(cols))
	for i, c := range cols {
		if places[i] = t.column(c.Name); places[i] < 0 {
			return nil, waybill.Errorf(waybill.Corrupt, "a commit's file lacks the column %s", c.Name)
		}
	}
	keys, features := len(v.Entity.Keys), len(v.Features)
	rows := make([]row, t.rows)
	for i := range rows {
		vals := make([]any, len(cols))
		for c := range cols {
			x := t.cell(i, places[c])
			if x == nil {
				continue
			}
			if vals[c], err = restore(cols[c].Type, x); err != nil {
				return nil, waybill.Errorf(waybill.Corrupt, "the stored value of %s %s", cols[c].Name, err)
			}
		}
		event, ok := vals[len(cols)-1].(time.Time)
		if !ok {
			return nil, waybill.Errorf(waybill.Corrupt, "a commit's file has a row without event_time")
		}
		rows[i] = row{key: encodeKey(vals[:keys]), event: event.UnixMicro(), knowledge: at, seq: seq, keys: vals[:keys], values: vals[keys : keys+features]}
	}
	return rows, nil
}

// written is the file of a commit that this hub has just written, nil for all others.
func (s *Store) written(object string) *laidFile {
	f, _ := s.fresh.Load(object)
	if f, ok := f.(*laidFile); ok {
		return f
	}
	return nil
}

// object reads a file of the bucket whose name ends in its SHA-256.
func (s *Store) object(ctx context.Context, key string) ([]byte, error) {
	raw, err := hex.DecodeString(path.Base(key))
	if err != nil || len(raw) != sha256.Size {
		return nil, waybill.Errorf(waybill.Corrupt, "the object %s does not end in a digest", key)
	}
	data, err := s.bucket.GetVerified(ctx, key, [32]byte(raw), MaxFileBytes)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the object "+key+" is gone from the bucket; restore it")
	}
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	return data, nil
}
