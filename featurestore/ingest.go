package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
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
	Rows    int64              // of IngestArrow: how many there must be; 0 for any number
}

// Ingest validates a file and appends it to the view's log as one commit: in mode Reject all of its rows or none, in mode
// Quarantine those that are good. The columns are the view's join keys, features and event_time; a feature without a column
// is null. What is wrong is named by line. Batch ids and personal columns are as for Push. The rows lie in the bucket as
// Parquet.
func (s *Store) Ingest(ctx context.Context, actor waybill.Actor, req IngestRequest) (Commit, error) {
	v, err := s.writable(ctx, actor.Tenant, req.View)
	if err != nil {
		return Commit{}, err
	}
	if err := checkBatchID(req.BatchID); err != nil {
		return Commit{}, err
	}
	data, err := readFile(req.Body)
	if err != nil {
		return Commit{}, err
	}
	done, err := s.decode(ctx)
	if err != nil {
		return Commit{}, err
	}
	defer done()
	t, err := readTable(req.Format, data, func(names []string) error {
		if err := rename(names, req.Columns); err != nil {
			return err
		}
		return checkNames(&v.View, names)
	})
	if err != nil {
		return Commit{}, err
	}
	return s.ingest(ctx, actor, v, req, t)
}

// ingest appends the rows of a table, whose columns are the view's. The caller has its turn to decode.
func (s *Store) ingest(ctx context.Context, actor waybill.Actor, v storedView, req IngestRequest, t *table) (Commit, error) {
	in := filed(&v.View, t)
	w, err := s.take(ctx, actor, v, req.BatchID, req.Mode, &in)
	if err != nil || w.done {
		return w.first, err
	}
	if len(w.rows) > 0 {
		if c, err := s.again(ctx, actor.Tenant, w.ref, req.BatchID, contentDigest(w.rows), &in, w.held); err == nil || waybill.CodeOf(err) != waybill.NotFound {
			return c, err
		}
		out, err := writeCommitFile(&v.View, w.rows)
		if err != nil {
			return Commit{}, err
		}
		o, err := s.bucket.PutContent(ctx, commitPrefix, bytes.NewReader(out))
		if err != nil {
			return Commit{}, err
		}
		w.object = o.Key
	}
	// From here on a failure leaves an object that no commit names; it is harmless, and the same file finds it again.
	return s.append(ctx, w)
}

// decode waits for its turn to read a file into memory: at most decoders do at once. The caller calls done.
func (s *Store) decode(ctx context.Context) (done func(), err error) {
	select {
	case s.decoding <- struct{}{}:
		return func() { <-s.decoding }, nil
	case <-ctx.Done():
		return nil, waybill.Wrap(waybill.Exhausted, ctx.Err(), "other files are being read; try again later")
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

// writeCommitFile writes rows as Parquet: join keys, features, event_time. The knowledge time is the commit's own.
func writeCommitFile(v *View, rows []row) ([]byte, error) {
	keys, features := len(v.Entity.Keys), len(v.Features)
	return writeParquet(commitColumns(v), len(rows), "", func(i, c int) any {
		switch {
		case c < keys:
			return rows[i].keys[c]
		case c < keys+features:
			return rows[i].values[c-keys]
		}
		return time.UnixMicro(rows[i].event).UTC()
	})
}

// readCommitFile reads what writeCommitFile wrote, as commit seq of time at (µs).
func readCommitFile(v *View, seq, at int64, data []byte) ([]row, error) {
	t, err := readParquet(data, anyNames, false)
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
