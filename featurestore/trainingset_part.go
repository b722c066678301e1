package featurestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"waybill"
	"waybill/featurestore/asof"
	"waybill/internal/pg"
)

// partCells is how many values the answer of one view must have for a build to keep it for the case that the hub dies.
// Fewer are joined again sooner than they are read.
const partCells = 1 << 20

const keepPart pg.SQL = `UPDATE featurestore.training_set_build SET parts = parts || jsonb_build_object($2::text, $3::text) WHERE id = $1 AND ended_at IS NULL`

// building is a build that is being worked on. The join finds it in its context, since it concerns only what is seen of the
// work and not what comes out; the nil building, of a set that nobody counts the rows of, does nothing.
type building struct {
	*Store
	id    waybill.ID
	kind  BuildKind
	actor waybill.Actor
	parts map[string]string // number of the look-up → hex SHA-256 of its part, as of the beginning

	rows, steps atomic.Int64 // of the spine; of which each row goes through all
	step        atomic.Int64 // that are done
	done, of    atomic.Int64 // pieces of history of the step that runs
}

type buildingKey struct{}

func buildingOf(ctx context.Context) *building {
	b, ok := ctx.Value(buildingKey{}).(*building)
	if !ok {
		return nil
	}
	return b
}

// begin says how many rows there are and through how many steps each goes.
func (b *building) begin(rows, steps int) {
	if b == nil {
		return
	}
	b.rows.Store(int64(rows))
	b.steps.Store(int64(steps))
	b.step.Store(0)
}

// next says that all rows have gone through a step.
func (b *building) next() {
	if b == nil {
		return
	}
	b.of.Store(0)
	b.done.Store(0)
	b.step.Add(1)
}

// files says how many files are written of what is joined, when that is not one.
func (b *building) files(n int) {
	if b == nil {
		return
	}
	b.steps.Add(int64(n - 1))
}

// passed says that so many rows of all have gone through the step that runs.
func (b *building) passed(n, all int) {
	if b == nil {
		return
	}
	b.done.Store(int64(n))
	b.of.Store(int64(all))
}

// progress is in rows, as Build has it.
func (b *building) progress() (rows, done, total int64) {
	rows = b.rows.Load()
	done = rows * b.step.Load()
	if of := b.of.Load(); of > 0 {
		done += rows * min(b.done.Load(), of) / of
	}
	return rows, min(done, rows*b.steps.Load()), rows * b.steps.Load()
}

// counted is a source whose pieces are counted.
type counted struct {
	asof.Source
	b *building
}

func (c counted) Heads(ctx context.Context, part int) (asof.Heads, error) {
	defer c.b.done.Add(1)
	return c.Source.Heads(ctx, part)
}

func (c counted) Columns(ctx context.Context, part int) ([]arrow.Array, func(), error) {
	defer c.b.done.Add(1)
	return c.Source.Columns(ctx, part)
}

func (c counted) All(ctx context.Context, part int) (asof.Heads, []arrow.Array, error) {
	defer c.b.done.Add(2)
	return c.Source.All(ctx, part)
}

// counting counts the pieces of sources that are read.
func (b *building) counting(sources []asof.Source) []asof.Source {
	if b == nil {
		return sources
	}
	out := make([]asof.Source, len(sources))
	for i, s := range sources {
		b.of.Add(2 * int64(len(s.Parts())))
		out[i] = counted{s, b}
	}
	return out
}

// look returns what one view answers: from the part that an earlier try has kept, or by join. last says that nothing else
// is looked up, so that what follows is soon done and not worth a part.
func (b *building) look(ctx context.Context, look int, last bool, join func() (*asof.Result, error)) (*asof.Result, error) {
	if b == nil {
		return join()
	}
	if digest, ok := b.parts[strconv.Itoa(look)]; ok {
		res, err := b.kept(ctx, look, digest)
		if err == nil {
			b.logger.InfoContext(ctx, "a part of a build is taken over from the try before", "build", b.id.String(), "part", look, "rows", len(res.Found))
			return res, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b.logger.WarnContext(ctx, "a part of a build cannot be read and is made again", "build", b.id.String(), "part", look, "error", err)
	}
	res, err := join()
	if err != nil || last || len(res.Found)*(len(res.Columns)+1) < b.partCells {
		return res, err
	}
	return res, b.keepPart(ctx, look, res)
}

// keepPart writes an answer to the bucket as an Arrow stream: the features, and a column of whether there was a row. When
// the hub dies before the build names it, the next try writes it again.
func (b *building) keepPart(ctx context.Context, look int, res *asof.Result) error {
	fields, columns := make([]arrow.Field, 0, len(res.Columns)+1), append([]arrow.Array{}, res.Columns...)
	found := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer found.Release()
	found.AppendValues(res.Found, nil)
	columns = append(columns, found.NewArray())
	for i, c := range columns {
		fields = append(fields, arrow.Field{Name: strconv.Itoa(i), Type: c.DataType(), Nullable: true})
	}
	schema := arrow.NewSchema(fields, nil)
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(schema))
	if err := errors.Join(w.Write(array.NewRecord(schema, columns, int64(len(res.Found)))), w.Close()); err != nil {
		return fmt.Errorf("write part: %w", err)
	}
	o, err := b.bucket.Put(ctx, partKey(b.id, look), bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		return err
	}
	if _, err := b.pool.Exec(ctx, string(keepPart), b.id, strconv.Itoa(look), fmt.Sprintf("%x", o.SHA256)); err != nil {
		return fmt.Errorf("note part: %w", err)
	}
	return nil
}

// kept reads what keepPart wrote.
func (b *building) kept(ctx context.Context, look int, digest string) (*asof.Result, error) {
	want, err := digestOf(digest)
	if err != nil {
		return nil, err
	}
	const most = 4 << 30 // far beyond maxResultCells of numbers
	data, err := b.bucket.GetVerified(ctx, partKey(b.id, look), want, most)
	if err != nil {
		return nil, err
	}
	r, err := ipc.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read part: %w", err)
	}
	defer r.Release()
	rec, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read part: %w", err)
	}
	n := int(rec.NumCols()) - 1
	found, ok := rec.Column(n).(*array.Boolean)
	if !ok || rec.NumRows() != b.rows.Load() {
		return nil, waybill.Errorf(waybill.Corrupt, "a part of %d rows is not of this build of %d", rec.NumRows(), b.rows.Load())
	}
	res := &asof.Result{Found: make([]bool, rec.NumRows())}
	for i := range res.Found {
		res.Found[i] = found.Value(i)
	}
	for i := range n {
		c := rec.Column(i)
		c.Retain() // beyond the reader
		res.Columns = append(res.Columns, c)
	}
	return res, nil
}
