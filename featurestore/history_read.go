package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
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

// keptBuffers bounds how many are kept: a few for each of some workers.
const keptBuffers = 32

// take returns a buffer of n bytes. What is in it is old.
func (b *buffers) take(n int64) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	best := -1
	for i, f := range b.free {
		if int64(cap(f)) >= n && (best < 0 || cap(f) < cap(b.free[best])) {
			best = i
		}
	}
	if best < 0 {
		return make([]byte, n, n+n/8) // parts are of about one size
	}
	f := b.free[best]
	b.free = slices.Delete(b.free, best, best+1)
	return f[:n]
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
		if out[i] = r.coded(f, group, c); out[i] != nil {
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

// coded returns a required column of 64-bit numbers that is coded by a dictionary, in one page; nil for all other columns. The
// library takes five times as long, and every join reads the clocks.
func (r *run) coded(f *fetched, group, column int) arrow.Array {
	field := r.schema.Field(column)
	fixed, ok := field.Type.(arrow.FixedWidthDataType)
	if !ok || field.Nullable || fixed.BitWidth() != 64 {
		return nil
	}
	rg := r.meta.RowGroup(group)
	m, err := rg.ColumnChunk(column)
	if err != nil || !m.HasDictionaryPage() || m.Compression() != compress.Codecs.Uncompressed {
		return nil
	}
	for _, e := range m.EncodingStats() {
		if int64(e.PageType) != dictionaryPage && e.Encoding != parquet.Encodings.RLEDict {
			return nil
		}
	}
	c := r.index.Chunks[group][column]
	t := thrift{b: f.bytes(c.Offset, c.Size)}
	dict := t.page(dictionaryPage)
	data := t.page(dataPage)
	if t.bad || len(t.b) > 0 || len(dict)%8 != 0 {
		return nil
	}
	n := int(rg.NumRows())
	out := r.free.take(int64(8 * n))
	f.data, f.from = append(f.data, out), append(f.from, math.MaxInt64) // given back with the others, and no part of the file
	if !decodeCoded(arrow.Uint64Traits.CastFromBytes(out), arrow.Uint64Traits.CastFromBytes(dict), data) {
		return nil
	}
	return array.MakeFromData(array.NewData(field.Type, n, []*memory.Buffer{nil, memory.NewBufferBytes(out)}, nil, 0, 0))
}

// page returns what is in the next page, which must be of a kind and not compressed.
func (t *thrift) page(kind int64) []byte {
	head := t.pageHeader()
	if head[1] != kind || head[2] != head[3] || head[3] < 0 {
		t.bad = true
	}
	return t.take(uint64(head[3]))
}

// decodeCoded fills out with the values of a dictionary that a page without levels names. Source of the layout:
// apache/parquet-format Encodings.md, Dictionary Encoding and Run Length Encoding / Bit-Packing Hybrid.
func decodeCoded(out, dict []uint64, page []byte) bool {
	if len(page) == 0 || page[0] > 32 || len(dict) == 0 {
		return false
	}
	width := uint(page[0])
	t, mask := thrift{b: page[1:]}, uint64(1)<<width-1
	for len(out) > 0 && !t.bad {
		head := t.varint()
		if head&1 == 0 { // a run: how often, and the value in as few whole bytes as it needs
			n, raw, v := head>>1, t.take(uint64(width+7)/8), uint64(0)
			for i, b := range raw {
				v |= uint64(b) << (8 * i)
			}
			if t.bad || n == 0 || v >= uint64(len(dict)) {
				return false
			}
			n = min(n, uint64(len(out)))
			for i := range out[:n] {
				out[i] = dict[v]
			}
			out = out[n:]
			continue
		}
		groups := head >> 1 // of 8 values, width bits each, the lowest first
		if groups > uint64(len(t.b)) {
			return false
		}
		raw := t.take(groups * uint64(width))
		bits, have := uint64(0), uint(0)
		for i := range out[:min(groups*8, uint64(len(out)))] {
			for have < width {
				if len(raw) == 0 {
					return false
				}
				bits |= uint64(raw[0]) << have
				raw, have = raw[1:], have+8
			}
			v := bits & mask
			bits, have = bits>>width, have-width
			if v >= uint64(len(dict)) {
				return false
			}
			out[i] = dict[v]
		}
		out = out[min(groups*8, uint64(len(out))):]
	}
	return !t.bad
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

// heads are the columns of keys and clocks.
func (r *runSource) heads() (columns []int) {
	n := r.schema.NumFields()
	for i := range n {
		if i < r.keys || i >= n-asof.Clocks {
			columns = append(columns, i)
		}
	}
	return columns
}

// Heads reads keys and clocks.
func (r *runSource) Heads(ctx context.Context, part int) (asof.Heads, error) {
	cols, free, err := r.read(ctx, part, r.heads())
	if err != nil {
		return asof.Heads{}, err
	}
	return r.headsOf(cols, free)
}

func (r *runSource) headsOf(cols []arrow.Array, free func()) (h asof.Heads, err error) {
	h.Keys, h.Free = cols[:r.keys], free
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

// All reads keys, clocks and features, mostly with one request.
func (r *runSource) All(ctx context.Context, part int) (asof.Heads, []arrow.Array, error) {
	heads := r.heads()
	cols, free, err := r.read(ctx, part, slices.Concat(heads, r.features))
	if err != nil {
		return asof.Heads{}, nil, err
	}
	h, err := r.headsOf(cols[:len(heads)], free)
	return h, cols[len(heads):], err
}
