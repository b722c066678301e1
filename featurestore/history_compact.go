package featurestore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/featurestore/asof"
	"waybill/internal/pg"
)

// When the tail of a log becomes a run: below that it is read quickly as it is.
const (
	minTailRows    = 10_000
	minTailCommits = 64
)

// Runs are merged when mergeRuns of them have come together of which none is more than mergeFactor times as large as
// those after it taken together. So a row is rewritten once for each factor by which the history grows, and a view has
// some mergeRuns runs for each of those.
const (
	mergeRuns   = 4
	mergeFactor = 4
)

// keepReplaced is how long a run that others have replaced, or an object that no manifest names, stays in the bucket: far
// longer than any reader that has seen it takes.
const keepReplaced = 24 * time.Hour

// cleanAtOnce bounds what one clean-up removes.
const cleanAtOnce = 1000

// A compaction may be killed anywhere. Each step leaves the world as it says here.
const (
	stepWritten  = "written"  // a file on this machine's disk, which the system's clean-up of temporary files removes
	stepData     = "data"     // and an object that no manifest names: a clean-up removes it when it is old
	stepIndex    = "index"    // and its index, the same
	stepInserted = "inserted" // nothing more: the transaction was not committed
	stepMoved    = "moved"    // the manifest has the run; what it replaced stays until it is old
	stepDeleted  = "deleted"  // a replaced run's objects are gone and its row is there: the next clean-up removes that
)

const (
	selectCovered pg.SQL = `SELECT covered FROM featurestore.history WHERE tenant = $1 AND view = $2 AND version = $3 FOR UPDATE`
	insertHistory pg.SQL = `INSERT INTO featurestore.history (tenant, view, version, covered) VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING`
	updateCovered pg.SQL = `UPDATE featurestore.history SET covered = $4 WHERE tenant = $1 AND view = $2 AND version = $3`
	insertRun     pg.SQL = `
INSERT INTO featurestore.history_run (id, tenant, view, version, first_seq, last_seq, rows, size_bytes, min_event, max_event, digest, index_digest, made_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	replaceRuns pg.SQL = `
UPDATE featurestore.history_run SET replaced_at = $6
WHERE tenant = $1 AND view = $2 AND version = $3 AND first_seq >= $4 AND last_seq <= $5 AND replaced_at IS NULL`
	selectReplaced pg.SQL = `SELECT id FROM featurestore.history_run WHERE replaced_at < $1 ORDER BY replaced_at LIMIT $2`
	deleteReplaced pg.SQL = `DELETE FROM featurestore.history_run WHERE id = $1 AND replaced_at IS NOT NULL`
	selectRunIDs   pg.SQL = `SELECT id FROM featurestore.history_run WHERE id = ANY($1)`
)

// compactor makes runs. fault is called after every step, and what it returns ends the compaction there.
type compactor struct {
	*Store
	partRows              int   // that a part of a run should have
	tailRows, tailCommits int64 // of which there must be one before a tail becomes a run
	fault                 func(step string) error
}

// CompactHistory moves what was committed into sorted runs, merges small runs into larger ones and removes what has been
// replaced for a day. It may be called on several hubs at once, and ended anywhere: the log stays what it is, and the
// manifest changes in one transaction or not at all. Views that cannot be compacted do not keep the others from it; the
// error names them.
func (s *Store) CompactHistory(ctx context.Context) error {
	c := &compactor{s, 128 << 10, minTailRows, minTailCommits, func(string) error { return nil }}
	return c.run(ctx)
}

func (c *compactor) run(ctx context.Context) error {
	rows, err := c.pool.Query(ctx, string(selectLogs))
	if err != nil {
		return fmt.Errorf("select logs: %w", err)
	}
	type end struct {
		key viewKey
		seq int64
	}
	ends, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e end, err error) {
		return e, r.Scan(&e.key.tenant, &e.key.ref.Name, &e.key.ref.Version, &e.seq)
	})
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	var failed []error
	for _, e := range ends {
		if err := c.view(ctx, e.key, e.seq); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed = append(failed, fmt.Errorf("compact history of %s: %w", e.key.ref, err))
		}
	}
	return errors.Join(append(failed, c.clean(ctx))...)
}

// view compacts one view's history up to commit seq.
func (c *compactor) view(ctx context.Context, key viewKey, seq int64) error {
	runs, err := c.manifest(ctx, c.pool, key)
	if err != nil {
		return err
	}
	after := covered(runs)
	var commits, rows, last int64
	if err := c.pool.QueryRow(ctx, string(selectTail), key.tenant, key.ref.Name, key.ref.Version, after, seq).Scan(&commits, &rows, &last); err != nil {
		return fmt.Errorf("select tail: %w", err)
	}
	if rows >= c.tailRows || commits >= c.tailCommits {
		v, err := c.Store.view(ctx, c.pool, key.tenant, key.ref)
		if err != nil {
			return err
		}
		if err := c.take(ctx, key, &v.View, after, last); err != nil {
			return err
		}
	}
	for {
		runs, err := c.manifest(ctx, c.pool, key)
		if err != nil {
			return err
		}
		n := mergeable(runs)
		if n == 0 {
			return nil
		}
		v, err := c.Store.view(ctx, c.pool, key.tenant, key.ref)
		if err != nil {
			return err
		}
		if err := c.merge(ctx, key, &v.View, runs[len(runs)-n:]); err != nil {
			return err
		}
	}
}

// mergeable says how many of the last runs should become one.
func mergeable(runs []manifestRun) int {
	sum, n := int64(0), 0
	for i := len(runs) - 1; i >= 0; i-- {
		if sum > 0 && runs[i].Rows > mergeFactor*sum {
			break
		}
		sum += runs[i].Rows
		n++
	}
	if n < mergeRuns {
		return 0
	}
	return n
}

// take makes a run of the commits after, up to and including last.
func (c *compactor) take(ctx context.Context, key viewKey, v *View, after, last int64) (err error) {
	s := asof.NewSorter(historySchema(v, nil), asof.SorterConfig{Keys: len(v.Entity.Keys), Budget: tailBudget, PartRows: c.partRows})
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := c.readTail(ctx, key, v, after, last, s); err != nil {
		return err
	}
	bits := len(s.Parts())
	for n := 0; ; n++ {
		if 1<<n == bits {
			bits = n
			break
		}
	}
	f, err := writeRun(ctx, "", historySchema(v, s.Nulls()), len(v.Entity.Keys), bits, func(_ asof.Part, i int) (arrow.Record, error) { return s.Part(i, nil) })
	if err != nil {
		return err
	}
	return c.publish(ctx, key, f, after+1, last, 0)
}

// merge makes one run of several that lie behind one another.
func (c *compactor) merge(ctx context.Context, key viewKey, v *View, runs []manifestRun) error {
	keys := len(v.Entity.Keys)
	nulls := make([]bool, historySchema(v, nil).NumFields())
	cursors := make([]*cursor, len(runs))
	rows := int64(0)
	for i := range runs {
		r, err := openRun(ctx, c.bucket, &runs[i], v)
		if err != nil {
			return err
		}
		cursors[i] = &cursor{run: r}
		rows += runs[i].Rows
		for n, f := range r.schema.Fields() {
			nulls[n] = nulls[n] || f.Nullable
		}
	}
	schema := historySchema(v, nulls)
	f, err := writeRun(ctx, "", schema, keys, asof.PartBits(rows, c.partRows), func(p asof.Part, _ int) (arrow.Record, error) {
		var recs []arrow.Record
		for _, cur := range cursors {
			more, err := cur.upTo(ctx, p.Last)
			if err != nil {
				return nil, err
			}
			recs = append(recs, more...)
		}
		if len(recs) == 0 {
			return nil, nil
		}
		all, err := concatRecords(schema, recs)
		if err != nil {
			return nil, err
		}
		return asof.SortRecord(all, keys)
	})
	if err != nil {
		return err
	}
	if f.rows != rows {
		return errors.Join(waybill.Errorf(waybill.Corrupt, "merging runs of %d rows gave %d", rows, f.rows), os.Remove(f.name))
	}
	return c.publish(ctx, key, f, runs[0].FirstSeq, runs[len(runs)-1].LastSeq, len(runs))
}

// cursor reads a run from its lowest hash to its highest, every part once.
type cursor struct {
	*run
	group  int
	rec    arrow.Record // what is left of the part before group
	hashes []uint64     // of rec
}

// upTo returns the rows that have not been returned and whose key's hash is at most last.
func (c *cursor) upTo(ctx context.Context, last uint64) ([]arrow.Record, error) {
	var out []arrow.Record
	for {
		if c.rec == nil {
			if c.group == len(c.index.Parts) || asof.PartOf(c.index.Bits, c.index.Parts[c.group]).First > last {
				return out, nil
			}
			rec, err := c.record(ctx, c.group)
			if err != nil {
				return nil, err
			}
			if c.hashes, err = asof.Hash(rec.Columns()[:c.keys], int(rec.NumRows())); err != nil {
				return nil, err
			}
			c.rec = rec
			c.group++
		}
		n := sort.Search(len(c.hashes), func(i int) bool { return c.hashes[i] > last })
		if n > 0 {
			out = append(out, c.rec.NewSlice(0, int64(n)))
		}
		if n < len(c.hashes) {
			c.rec, c.hashes = c.rec.NewSlice(int64(n), c.rec.NumRows()), c.hashes[n:]
			return out, nil
		}
		c.rec, c.hashes = nil, nil
	}
}

// concatRecords puts records one after another as rows of schema.
func concatRecords(schema *arrow.Schema, recs []arrow.Record) (arrow.Record, error) {
	cols, rows := make([]arrow.Array, schema.NumFields()), int64(0)
	for _, r := range recs {
		rows += r.NumRows()
	}
	for i := range cols {
		parts := make([]arrow.Array, len(recs))
		for j, r := range recs {
			parts[j] = r.Column(i)
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("join parts of runs: %w", err)
		}
	}
	return array.NewRecord(schema, cols, rows), nil
}

// publish uploads a run of the commits first to last and moves the manifest to it: it takes the place of as many runs as
// it replaces, or stands behind all others. The local file is removed.
func (c *compactor) publish(ctx context.Context, key viewKey, f *runFile, first, last int64, replaces int) (err error) {
	defer func() { err = errors.Join(err, os.Remove(f.name)) }()
	if err := c.fault(stepWritten); err != nil {
		return err
	}
	now := c.clock()
	id := waybill.NewID(now)
	object := historyPrefix + "/" + id.String()
	if err := c.upload(ctx, object+".parquet", f); err != nil {
		return err
	}
	if err := c.fault(stepData); err != nil {
		return err
	}
	index, err := c.bucket.Put(ctx, object+".index", bytes.NewReader(f.index), int64(len(f.index)))
	if err != nil {
		return err
	}
	if err := c.fault(stepIndex); err != nil {
		return err
	}
	err = pg.InTx(ctx, c.pool, func(tx pgx.Tx) error {
		k := []any{key.tenant, key.ref.Name, key.ref.Version}
		if _, err := tx.Exec(ctx, string(insertHistory), k...); err != nil {
			return fmt.Errorf("insert history: %w", err)
		}
		var covered int64
		if err := tx.QueryRow(ctx, string(selectCovered), k...).Scan(&covered); err != nil {
			return fmt.Errorf("lock history: %w", err)
		}
		tag, err := tx.Exec(ctx, string(replaceRuns), append(k, first, last, now)...)
		if err != nil {
			return fmt.Errorf("replace runs: %w", err)
		}
		if tag.RowsAffected() != int64(replaces) || replaces == 0 && first != covered+1 {
			return errMoved
		}
		if _, err := tx.Exec(ctx, string(insertRun), id, key.tenant, key.ref.Name, key.ref.Version, first, last, f.rows, f.size,
			time.UnixMicro(f.minEvent).UTC(), time.UnixMicro(f.maxEvent).UTC(), hex.EncodeToString(f.digest[:]), hex.EncodeToString(index.SHA256[:]), now); err != nil {
			return fmt.Errorf("insert run: %w", err)
		}
		if _, err := tx.Exec(ctx, string(updateCovered), append(k, max(covered, last))...); err != nil {
			return fmt.Errorf("update history: %w", err)
		}
		return c.fault(stepInserted)
	})
	if errors.Is(err, errMoved) { // another hub was faster: what it made is as good, and ours is cleaned up when it is old
		return nil
	}
	if err != nil {
		return err
	}
	return c.fault(stepMoved)
}

// errMoved says that the manifest is not what the compaction began with.
var errMoved = errors.New("another compaction has moved the manifest")

func (c *compactor) upload(ctx context.Context, object string, f *runFile) (err error) {
	file, err := os.Open(f.name)
	if err != nil {
		return fmt.Errorf("open run: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	o, err := c.bucket.Put(ctx, object, file, f.size)
	if err != nil {
		return err
	}
	if o.SHA256 != f.digest {
		return waybill.Errorf(waybill.Corrupt, "the run %s changed on this machine's disk while it was uploaded", object)
	}
	return nil
}

// clean removes runs that were replaced long ago, and objects that no manifest ever named; also what hubs that died left of
// training sets that were to be made, of snapshots and of uploads.
func (c *compactor) clean(ctx context.Context) error {
	old := c.clock().Add(-keepReplaced)
	rows, err := c.pool.Query(ctx, string(selectReplaced), old, cleanAtOnce)
	if err != nil {
		return fmt.Errorf("select replaced runs: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[waybill.ID])
	if err != nil {
		return fmt.Errorf("read replaced runs: %w", err)
	}
	for _, id := range ids {
		if err := c.deleteObjects(ctx, id); err != nil {
			return err
		}
		if err := c.fault(stepDeleted); err != nil {
			return err
		}
		if _, err := c.pool.Exec(ctx, string(deleteReplaced), id); err != nil {
			return fmt.Errorf("delete replaced run: %w", err)
		}
	}
	return errors.Join(c.cleanOrphans(ctx, old), c.cleanBuilds(ctx, old), c.cleanParts(ctx, old), c.bucket.Sweep(ctx, old, "featurestore/"))
}

// cleanParts removes parts of snapshots that were uploaded before old and that no snapshot names: theirs died. One that is
// about to be named again has just been uploaded again.
func (c *compactor) cleanParts(ctx context.Context, old time.Time) error {
	for o, err := range c.bucket.List(ctx, snapshotPrefix+"/") {
		if err != nil {
			return err
		}
		if !o.Modified.Before(old) {
			continue
		}
		var used bool
		if err := c.pool.QueryRow(ctx, string(selectPartUsed), o.Key).Scan(&used); err != nil {
			return fmt.Errorf("select use of a part: %w", err)
		}
		if used {
			continue
		}
		if err := c.bucket.Delete(ctx, o.Key); err != nil {
			return err
		}
	}
	return nil
}

func (c *compactor) deleteObjects(ctx context.Context, id waybill.ID) error {
	object := historyPrefix + "/" + id.String()
	return errors.Join(c.bucket.Delete(ctx, object+".parquet"), c.bucket.Delete(ctx, object+".index"))
}

// cleanOrphans removes objects that were uploaded before old and have no row in the manifest: their compaction died. The
// time is in the id, and objects are listed by it.
func (c *compactor) cleanOrphans(ctx context.Context, old time.Time) error {
	limit := waybill.NewID(old)
	var ids []waybill.ID
	for o, err := range c.bucket.List(ctx, historyPrefix+"/") {
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, historyPrefix+"/"), ".")
		id, err := waybill.ParseID("object", name)
		if err != nil {
			continue // not ours
		}
		if bytes.Compare(id[:6], limit[:6]) >= 0 {
			break
		}
		if len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
		if len(ids) == cleanAtOnce {
			if err := c.deleteUnnamed(ctx, ids); err != nil {
				return err
			}
			ids = ids[:0]
		}
	}
	return c.deleteUnnamed(ctx, ids)
}

// deleteUnnamed removes the objects of those ids that the manifest does not have.
func (c *compactor) deleteUnnamed(ctx context.Context, ids []waybill.ID) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := c.pool.Query(ctx, string(selectRunIDs), ids)
	if err != nil {
		return fmt.Errorf("select runs: %w", err)
	}
	named, err := pgx.CollectRows(rows, pgx.RowTo[waybill.ID])
	if err != nil {
		return fmt.Errorf("read runs: %w", err)
	}
	for _, id := range ids {
		if !slices.Contains(named, id) {
			if err := c.deleteObjects(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}
