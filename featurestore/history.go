package featurestore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/featurestore/asof"
	"waybill/internal/pg"
)

// The history of a view is its log in another order: runs (history_run.go) hold the commits up to some sequence, sorted
// for the join; what was committed since is read from the log itself. The manifest says which runs. A join looks at the
// manifest once: runs that are replaced meanwhile stay in the bucket for a while.

// manifestRun is a run as the manifest has it. Sequences are inclusive.
type manifestRun struct {
	ID                  waybill.ID
	FirstSeq, LastSeq   int64
	Rows                int64
	SizeBytes           int64
	Digest, IndexDigest string // hex SHA-256
}

const (
	selectRuns pg.SQL = `
SELECT id, first_seq, last_seq, rows, size_bytes, digest, index_digest FROM featurestore.history_run
WHERE tenant = $1 AND view = $2 AND version = $3 AND replaced_at IS NULL ORDER BY first_seq`
	selectTail pg.SQL = `
SELECT count(*), coalesce(sum(rows), 0)::bigint, coalesce(max(seq), 0) FROM featurestore.commit
WHERE tenant = $1 AND view = $2 AND version = $3 AND seq > $4 AND seq <= $5`
)

// manifest returns the runs that are read, in the order of their sequences. They cover the log's beginning without a gap.
func (s *Store) manifest(ctx context.Context, q pg.Querier, key viewKey) ([]manifestRun, error) {
	rows, err := q.Query(ctx, string(selectRuns), key.tenant, key.ref.Name, key.ref.Version)
	if err != nil {
		return nil, fmt.Errorf("select runs: %w", err)
	}
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[manifestRun])
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	next := int64(1)
	for _, r := range runs {
		if r.FirstSeq != next {
			return nil, waybill.Errorf(waybill.Corrupt, "the manifest of %s lacks commit %d: its run %s begins with %d", key.ref, next, r.ID, r.FirstSeq)
		}
		next = r.LastSeq + 1
	}
	return runs, nil
}

// covered is the last commit that runs hold.
func covered(runs []manifestRun) int64 {
	if len(runs) == 0 {
		return 0
	}
	return runs[len(runs)-1].LastSeq
}

func digestOf(text string) ([32]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return [32]byte{}, waybill.Errorf(waybill.Corrupt, "the manifest holds %q where a SHA-256 is expected", text)
	}
	return [32]byte(b), nil
}

// historyReader is one view's history up to a commit, ready to be joined.
type historyReader struct {
	sources []asof.Source
	types   []arrow.DataType
	tail    *asof.Sorter
}

func (h *historyReader) close() error {
	if h.tail == nil {
		return nil
	}
	return h.tail.Close()
}

// history opens the runs and sorts the tail of a view's log up to and including commit through. features are places in
// v.Features. Without runs everything comes from the log: the same rows, more slowly. The caller closes the result.
func (s *Store) history(ctx context.Context, key viewKey, v *View, features []int, through int64, withRuns bool) (_ *historyReader, err error) {
	h := &historyReader{}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	columns := make([]int, len(features))
	for i, f := range features {
		columns[i] = len(v.Entity.Keys) + f
		h.types = append(h.types, arrowType(v.Features[f].Type))
	}
	var runs []manifestRun
	if withRuns {
		if runs, err = s.manifest(ctx, s.pool, key); err != nil {
			return nil, err
		}
	}
	for i := range runs {
		if runs[i].FirstSeq > through {
			break
		}
		r, err := openRun(ctx, s.bucket, &runs[i], v)
		if err != nil {
			return nil, err
		}
		h.sources = append(h.sources, &runSource{r, columns})
	}
	if after := covered(runs); after < through {
		h.tail = asof.NewSorter(historySchema(v, nil), asof.SorterConfig{Keys: len(v.Entity.Keys), Budget: tailBudget})
		if err := s.readTail(ctx, key, v, after, through, h.tail); err != nil {
			return nil, err
		}
		h.sources = append(h.sources, h.tail.Source(columns))
	}
	h.sources = buildingOf(ctx).counting(h.sources)
	return h, nil
}

// tailBudget is how many bytes of rows that no run holds are kept in memory for one join or compaction; what is beyond
// is spilled to the system's folder for temporary files.
const tailBudget = 256 << 20

// readTail adds the commits after, up to and including through, to a sorter and finishes it.
func (s *Store) readTail(ctx context.Context, key viewKey, v *View, after, through int64, into *asof.Sorter) error {
	schema, l := historySchema(v, nil), newLayout(v)
	err := s.stored(ctx, key, after, through, func(c *storedCommit) error {
		if c.file {
			return historyOfFile(ctx, schema, c, into.Add)
		}
		rows, err := c.rows(l, v)
		if err != nil || len(rows) == 0 {
			return err
		}
		rec, err := historyOfRows(schema, v, rows)
		if err != nil {
			return err
		}
		return into.Add(rec)
	})
	if err != nil {
		return err
	}
	return into.Finish()
}

// historyOfRows lays rows out as history has them.
func historyOfRows(schema *arrow.Schema, v *View, rows []row) (arrow.Record, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	keys, features := len(v.Entity.Keys), len(v.Features)
	for i := range rows {
		r := &rows[i]
		for c := range keys + features + asof.Clocks {
			var x any
			switch c - keys - features {
			case 0:
				x = time.UnixMicro(r.event)
			case 1:
				x = time.UnixMicro(r.knowledge)
			case 2:
				x = r.seq
			default:
				if c < keys {
					x = r.keys[c]
				} else {
					x = r.values[c-keys]
				}
			}
			if err := appendValue(b.Field(c), x); err != nil {
				return nil, fmt.Errorf("lay out column %s: %w", schema.Field(c).Name, err)
			}
		}
	}
	return b.NewRecord(), nil
}

// historyOfFile reads a commit's file, a row group at a time, as history has it: typed columns that never become values of
// their own. The file was written here and its digest has been checked.
func historyOfFile(ctx context.Context, schema *arrow.Schema, c *storedCommit, add func(arrow.Record) error) (err error) {
	wrong := func(err error) error { return waybill.Wrap(waybill.Corrupt, err, "a commit's file cannot be read") }
	defer func() {
		if p := recover(); p != nil { // the library panics on what it cannot read
			err = wrong(fmt.Errorf("%v", p))
		}
	}()
	boundCodecs()
	f, err := file.NewParquetReader(bytes.NewReader(c.bytes()))
	if err != nil {
		return wrong(err)
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return wrong(err)
	}
	places := map[string]int{}
	for i := range rd.Manifest.Fields {
		places[rd.Manifest.Fields[i].Field.Name] = i
	}
	for g := range f.NumRowGroups() {
		n := int(f.MetaData().RowGroup(g).NumRows())
		cols := make([]arrow.Array, schema.NumFields())
		for i, field := range schema.Fields() {
			switch field.Name {
			case knowledgeColumn:
				cols[i] = constant(field.Type, c.at, n)
				continue
			case sequenceColumn:
				cols[i] = constant(field.Type, c.seq, n)
				continue
			}
			place, ok := places[field.Name]
			if !ok {
				return wrong(errors.New("it lacks the column " + field.Name))
			}
			if cols[i], err = decodeChunk(ctx, rd, g, place, field.Type); err != nil {
				return wrong(err)
			}
			if cols[i].Len() != n || !field.Nullable && cols[i].NullN() > 0 {
				return wrong(fmt.Errorf("its column %s has %d rows of %d, %d of them null", field.Name, cols[i].Len(), n, cols[i].NullN()))
			}
		}
		if err := add(array.NewRecord(schema, cols, int64(n))); err != nil {
			return err
		}
	}
	return nil
}

// constant is a column of n times the same number of 64 bits.
func constant(t arrow.DataType, v int64, n int) arrow.Array {
	values := make([]int64, n)
	for i := range values {
		values[i] = v
	}
	return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(values))}, nil, 0, 0))
}
