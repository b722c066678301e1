package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
	"waybill/featurestore/asof"
	"waybill/internal/bucket"
)

// buffers are stretches of memory that parts of a run are fetched into, again and again: most of what a join would
// otherwise do is to clear new memory.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

// keptBuffers bounds how many are kept: two for each of some workers.
const keptBuffers = 16

// take returns a buffer of n bytes. What is in it is old.
func (b *buffers) take(n int64) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.free {
		if int64(cap(f)) >= n {
			b.free = slices.Delete(b.free, i, i+1)
			return f[:n]
		}
	}
	return make([]byte, n, n+n/8) // parts are of about one size
}

func (b *buffers) give(bufs [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range bufs {
		if len(b.free) < keptBuffers {
			b.free = append(b.free, f)
		}
	}
}

// fetched are stretches of a file, in their order; it reads as if it were the file.
type fetched struct {
	*bytes.Reader // never read: the library asks for a Reader
	from          []int64
	data          [][]byte
}

// Seek is only asked for the size.
func (f *fetched) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return 1<<62 + offset, nil
	}
	return offset, nil
}

// ReadAt reads what was fetched.
func (f *fetched) ReadAt(p []byte, off int64) (int, error) {
	b := f.bytes(off, int64(len(p)))
	if b == nil {
		return 0, fmt.Errorf("bytes %d to %d were not fetched", off, off+int64(len(p)))
	}
	return copy(p, b), nil
}

// bytes are n bytes of the file, nil when they were not fetched.
func (f *fetched) bytes(off, n int64) []byte {
	for i, from := range f.from {
		if d := f.data[i]; off >= from && off+n <= from+int64(len(d)) {
			return d[off-from:][:n]
		}
	}
	return nil
}

func (r *run) reader(f *fetched) (*pqarrow.FileReader, error) {
	pf, err := file.NewParquetReader(f, file.WithMetadata(r.meta))
	if err != nil {
		return nil, err
	}
	return pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
}

// gap is how many bytes that nobody wants are fetched rather than asking twice.
const gap = 64 << 10

// fetch reads and verifies columns of a row group.
func (r *run) fetch(ctx context.Context, group int, columns []int) (_ *fetched, err error) {
	f := &fetched{}
	defer func() {
		if err != nil {
			r.free.give(f.data)
		}
	}()
	wanted := slices.Sorted(slices.Values(columns))
	for i := 0; i < len(wanted); {
		first := r.index.Chunks[group][wanted[i]]
		end := first.Offset + first.Size
		j := i + 1
		for ; j < len(wanted); j++ {
			next := r.index.Chunks[group][wanted[j]]
			if next.Offset > end+gap {
				break
			}
			end = max(end, next.Offset+next.Size)
		}
		data := r.free.take(end - first.Offset)
		f.from, f.data = append(f.from, first.Offset), append(f.data, data)
		err := r.bucket.ReadRange(ctx, r.key, first.Offset, data)
		if errors.Is(err, bucket.ErrNotFound) {
			return nil, waybill.Wrap(waybill.Corrupt, err, "the object "+r.key+" is gone from the bucket; restore it")
		}
		if err != nil {
			return nil, fmt.Errorf("read run: %w", err)
		}
		for ; i < j; i++ {
			c := r.index.Chunks[group][wanted[i]]
			if sum := sha256.Sum256(data[c.Offset-first.Offset:][:c.Size]); !bytes.Equal(sum[:], c.SHA256) {
				return nil, waybill.Errorf(waybill.Corrupt, "column %d of part %d of %s does not match its digest", wanted[i], group, r.key)
			}
		}
	}
	return f, nil
}

// read fetches and decodes columns of a row group. After free is called they may be overwritten.
func (r *run) read(ctx context.Context, group int, columns []int) (out []arrow.Array, free func(), err error) {
	f, err := r.fetch(ctx, group, columns)
	if err != nil {
		return nil, nil, err
	}
	free = func() { r.free.give(f.data) }
	defer func() {
		if p := recover(); p != nil { // the library panics on what it cannot read
			err = waybill.Errorf(waybill.Corrupt, "the history %s cannot be read: %v", r.key, p)
		}
		if err != nil {
			free()
		}
	}()
	var rd *pqarrow.FileReader
	out = make([]arrow.Array, len(columns))
	for i, c := range columns {
		if out[i] = r.plain(f, group, c); out[i] != nil {
			continue
		}
		if rd == nil {
			if rd, err = r.reader(f); err != nil {
				return nil, nil, fmt.Errorf("read run: %w", err)
			}
		}
		if out[i], err = decodeChunk(ctx, rd, group, c, r.schema.Field(c).Type); err != nil {
			return nil, nil, waybill.Wrap(waybill.Corrupt, err, "the history "+r.key+" cannot be read")
		}
	}
	return out, free, nil
}

// plain returns a column whose values lie in the file as they do in an array: required numbers, plain and not compressed,
// in one page. The array is the fetched memory; it is nil for all other columns. Source of the layout of a page without
// levels: apache/parquet-format README.md, Data Pages, and Encodings.md, Plain.
func (r *run) plain(f *fetched, group, column int) arrow.Array {
	field := r.schema.Field(column)
	fixed, ok := field.Type.(arrow.FixedWidthDataType)
	if !ok || field.Nullable || fixed.BitWidth() != 32 && fixed.BitWidth() != 64 {
		return nil
	}
	rg := r.meta.RowGroup(group)
	m, err := rg.ColumnChunk(column)
	if err != nil || m.HasDictionaryPage() || m.Compression() != compress.Codecs.Uncompressed || slices.Contains(m.Encodings(), parquet.Encodings.RLEDict) {
		return nil
	}
	c := r.index.Chunks[group][column]
	t := thrift{b: f.bytes(c.Offset, c.Size)}
	head := t.pageHeader()
	size := rg.NumRows() * int64(fixed.BitWidth()/8)
	if t.bad || head[1] != dataPage && head[1] != dataPageV2 || head[2] != size || head[3] != size || int64(len(t.b)) != size {
		return nil
	}
	return array.MakeFromData(array.NewData(field.Type, int(rg.NumRows()), []*memory.Buffer{nil, memory.NewBufferBytes(t.b)}, nil, 0, 0))
}

// decodeChunk reads a column of a row group, which must be of type t.
func decodeChunk(ctx context.Context, rd *pqarrow.FileReader, group, column int, t arrow.DataType) (arrow.Array, error) {
	c, err := rd.RowGroup(group).Column(column).Read(ctx)
	if err != nil {
		return nil, err
	}
	var a arrow.Array
	switch len(c.Chunks()) {
	case 0:
		return nil, errors.New("a column has no values")
	case 1:
		a = c.Chunk(0)
	default:
		if a, err = array.Concatenate(c.Chunks(), memory.DefaultAllocator); err != nil {
			return nil, err
		}
	}
	if arrow.TypeEqual(a.DataType(), t) {
		return a, nil
	}
	// Lists come back with other names and nullability inside, which the values do not have.
	l, ok := a.DataType().(*arrow.ListType)
	w, isList := t.(*arrow.ListType)
	if !ok || !isList || !arrow.TypeEqual(l.Elem(), w.Elem()) {
		return nil, fmt.Errorf("a column is %s, not %s", a.DataType(), t)
	}
	d := a.Data()
	return array.MakeFromData(array.NewData(t, d.Len(), d.Buffers(), d.Children(), d.NullN(), d.Offset())), nil
}

// record reads a whole row group.
func (r *run) record(ctx context.Context, group int) (arrow.Record, error) {
	all := make([]int, r.schema.NumFields())
	for i := range all {
		all[i] = i
	}
	cols, _, err := r.read(ctx, group, all) // it is not given back: slices of it are merged later
	if err != nil {
		return nil, err
	}
	return array.NewRecord(r.schema, cols, int64(cols[0].Len())), nil
}

// runSource is a run as the join reads it.
type runSource struct {
	*run
	features []int // columns of the run
}

// Parts are the ranges of hashes that have rows.
func (r *runSource) Parts() []asof.Part {
	out := make([]asof.Part, len(r.index.Parts))
	for i, p := range r.index.Parts {
		out[i] = asof.PartOf(r.index.Bits, p)
	}
	return out
}

// Heads reads keys and clocks.
func (r *runSource) Heads(ctx context.Context, part int) (asof.Heads, error) {
	n := r.schema.NumFields()
	var columns []int
	for i := range n {
		if i < r.keys || i >= n-asof.Clocks {
			columns = append(columns, i)
		}
	}
	cols, free, err := r.read(ctx, part, columns)
	if err != nil {
		return asof.Heads{}, err
	}
	h := asof.Heads{Keys: cols[:r.keys], Free: free}
	for i, into := range []*[]int64{&h.Event, &h.Knowledge, &h.Seq} {
		if *into, err = asof.Int64s(cols[r.keys+i]); err != nil {
			return asof.Heads{}, waybill.Wrap(waybill.Corrupt, err, "the history "+r.key+" cannot be read")
		}
	}
	return h, nil
}

// Columns reads features.
func (r *runSource) Columns(ctx context.Context, part int) ([]arrow.Array, func(), error) {
	return r.read(ctx, part, r.features)
}
