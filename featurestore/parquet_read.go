package featurestore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/metadata"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/apache/arrow/go/v17/parquet/schema"
	"github.com/klauspost/compress/zstd"

	"waybill"
)

// parquetFile is a Parquet file that may be read: its head was looked at.
type parquetFile struct {
	f       *file.Reader
	rd      *pqarrow.FileReader
	mem     *budget
	names   []string
	rows    int
	bounded bool
}

// openParquet reads the head of a Parquet file. The library panics on some malformed files; here that is an error too,
// since every column is decoded in the calling goroutine, where a panic can be caught. bounded is for files of others:
// those that were written here are as large as they are.
func openParquet(data []byte, accept head, bounded bool) (_ *source, err error) {
	boundCodecs()
	defer caught(&err)
	if !soundFooter(data) {
		return nil, waybill.InvalidField("file", "is not a Parquet file, or its end is damaged")
	}
	mem := &budget{Allocator: memory.NewGoAllocator()}
	props := parquet.NewReaderProperties(mem)
	props.BufferedStreamEnabled = true // otherwise a footer's claim is allocated before it is found to be wrong
	f, err := file.NewParquetReader(bytes.NewReader(data), file.WithReadProps(props))
	if err != nil {
		return nil, waybill.InvalidField("file", "is not a Parquet file: "+err.Error())
	}
	names, err := flatColumns(f)
	if err != nil {
		return nil, err
	}
	if err := accept(names); err != nil {
		return nil, err
	}
	if err := checkFooter(f, data, len(names), bounded); err != nil {
		return nil, err
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, mem)
	if err != nil {
		return nil, waybill.InvalidField("file", "cannot be read: "+err.Error())
	}
	if len(rd.Manifest.Fields) != len(names) {
		return nil, waybill.InvalidField("file", "describes its columns twice, and differently")
	}
	types := make([]arrow.DataType, len(names))
	for i := range rd.Manifest.Fields {
		types[i] = rd.Manifest.Fields[i].Field.Type
		if err := readable(rd.Manifest.Fields[i].Field.Type); err != nil {
			return nil, waybill.InvalidField("column "+short(names[i]), err.Error())
		}
	}
	p := &parquetFile{f: f, rd: rd, mem: mem, names: names, rows: int(f.NumRows()), bounded: bounded}
	return &source{names: names, types: types, pieces: p.pieces}, nil
}

// readOwn reads a whole Parquet file that was written here.
func readOwn(data []byte) (*table, error) {
	src, err := openParquet(data, anyNames, false)
	if err != nil {
		return nil, err
	}
	return src.table()
}

// caught makes an error of a panic of the library.
func caught(err *error) {
	switch p := recover(); p {
	case nil:
	case errMemory:
		*err = waybill.Errorf(waybill.TooLarge, "the columns of the file need more than %d MiB when they are decoded; cut the file into several", maxColumnMemory>>20)
	default:
		*err = waybill.InvalidField("file", "is not a Parquet file that can be read")
	}
}

// pieces begins to read all columns side by side.
func (p *parquetFile) pieces() func() (*piece, error) {
	p.mem.held.Store(0)
	flats, lists := make([]*flatReader, len(p.names)), make([][]any, len(p.names))
	text, at := 0, 0
	for c := range flats {
		if p.f.MetaData().Schema.Column(c).MaxRepetitionLevel() == 0 {
			flats[c] = &flatReader{f: p.f, mem: p.mem, t: p.rd.Manifest.Fields[c].Field.Type, column: c, bounded: p.bounded, text: &text}
		}
	}
	return func() (_ *piece, err error) {
		defer caught(&err)
		if at == p.rows {
			return nil, io.EOF
		}
		n := min(pieceRows, p.rows-at)
		arrays, values := make([]arrow.Array, len(flats)), make([][]any, len(flats))
		for c, r := range flats {
			switch {
			case r != nil:
				arrays[c], err = r.next(n)
			case lists[c] == nil: // lists are decoded as a whole
				lists[c], err = readLists(p.rd, p.mem, c, p.rows, &text, p.bounded)
			}
			if err != nil && waybill.CodeOf(err) == waybill.Internal {
				err = waybill.InvalidField("column "+short(p.names[c]), err.Error())
			}
			if err != nil {
				return nil, err
			}
			if r == nil {
				values[c] = lists[c][at : at+n]
			}
		}
		at += n
		return newPiece(at-n, n, arrays, values, rowLine(at-n))
	}
}

// plainList says whether a node is a list of scalars: a group of one repeated group of one primitive field.
// Source of the layout: apache/parquet-format LogicalTypes.md, Lists.
func plainList(n schema.Node) bool {
	outer, ok := n.(*schema.GroupNode)
	if !ok || outer.NumFields() != 1 || !n.LogicalType().Equals(schema.NewListLogicalType()) && n.ConvertedType() != schema.ConvertedTypes.List {
		return false
	}
	inner, ok := outer.Field(0).(*schema.GroupNode)
	return ok && inner.RepetitionType() == parquet.Repetitions.Repeated && inner.NumFields() == 1 && inner.Field(0).Type() == schema.Primitive &&
		inner.Field(0).RepetitionType() != parquet.Repetitions.Repeated
}

// flatColumns names the columns of a file; those with columns inside are refused, except lists of scalars.
func flatColumns(f *file.Reader) ([]string, error) {
	root := f.MetaData().Schema.Root()
	names := make([]string, root.NumFields())
	for i := range names {
		n := root.Field(i)
		if n.RepetitionType() == parquet.Repetitions.Repeated || n.Type() != schema.Primitive && !plainList(n) {
			return nil, waybill.InvalidField("column "+short(n.Name()), "is a map, a structure or a list of lists; give plain columns and lists of plain values")
		}
		names[i] = strings.Clone(n.Name())
	}
	if len(names) != f.MetaData().Schema.NumColumns() {
		return nil, waybill.InvalidField("file", "describes its columns twice, and differently")
	}
	return names, nil
}

// checkFooter compares what the footer and the heads of the pages say of rows and sizes with each other and with the bounds.
func checkFooter(f *file.Reader, data []byte, columns int, bounded bool) error {
	if f.WriterVersion().LessThan(metadata.Parquet816FixedVersion) {
		return waybill.InvalidField("file", "is of a writer before 2014, which gave wrong sizes; write it again with a newer one")
	}
	rows, sum, size := f.NumRows(), int64(0), int64(0)
	if rows < 0 || rows > MaxFileRows {
		return waybill.Errorf(waybill.TooLarge, "the file has %d rows; at most %d", rows, MaxFileRows)
	}
	if bounded && rows*int64(columns) > maxFileCells {
		return tooManyCells(rows, columns)
	}
	wrong := func() error { return waybill.InvalidField("file", "is damaged: its footer contradicts itself") }
	listed := int64(0) // elements of lists
	for g := range f.NumRowGroups() {
		rg := f.MetaData().RowGroup(g)
		if rg.NumRows() < 0 || rg.NumRows() > rows || rg.NumColumns() != columns {
			return wrong()
		}
		sum += rg.NumRows()
		for c := range columns {
			chunk, err := rg.ColumnChunk(c)
			list := f.MetaData().Schema.Column(c).MaxRepetitionLevel() > 0
			if err != nil || chunk.NumValues() < rg.NumRows() || chunk.NumValues() > rg.NumRows() && !list || chunk.TotalCompressedSize() < 0 {
				return wrong()
			}
			if listed += chunk.NumValues() - rg.NumRows(); bounded && listed > maxFileCells {
				return waybill.Errorf(waybill.TooLarge, "the lists of the file have more than %d elements; cut it into several", maxFileCells)
			}
			switch chunk.Compression() {
			case compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Gzip, compress.Codecs.Zstd:
			default:
				return waybill.InvalidField("file", "is compressed with "+chunk.Compression().String()+"; use snappy, gzip, zstd or none")
			}
			start, n := chunk.DataPageOffset(), chunk.TotalCompressedSize()
			if d := chunk.DictionaryPageOffset(); chunk.HasDictionaryPage() && d > 0 && d < start {
				start = d
			}
			if start < 0 || start > int64(len(data)) || n > int64(len(data))-start {
				return wrong()
			}
			long, err := pagesSize(data[start : start+n])
			if err != nil {
				return waybill.InvalidField("file", err.Error())
			}
			if size += long; bounded && size > maxUncompressed {
				return waybill.Errorf(waybill.TooLarge, "the file has more than %d MiB when it is decompressed; cut it into several", maxUncompressed>>20)
			}
		}
	}
	if sum != rows {
		return wrong()
	}
	return nil
}

// errMemory is what budget panics with.
var errMemory = errors.New("more memory than a column may have")

// budget keeps the Parquet library, which believes the sizes in a file, from taking all memory. It panics; readParquet
// recovers.
type budget struct {
	memory.Allocator
	most int64        // bytes; 0 is maxColumnMemory
	held atomic.Int64 // a finalizer may free
}

func (b *budget) take(n int) {
	if n < 0 || b.held.Add(int64(n)) > cmp.Or(b.most, maxColumnMemory) {
		panic(errMemory)
	}
}

// Allocate takes size bytes from the budget.
func (b *budget) Allocate(size int) []byte {
	b.take(size)
	return b.Allocator.Allocate(size)
}

// Reallocate takes what p grows by.
func (b *budget) Reallocate(size int, p []byte) []byte {
	b.take(max(size, 0))
	b.held.Add(-int64(len(p)))
	return b.Allocator.Reallocate(size, p)
}

// Free gives p back.
func (b *budget) Free(p []byte) {
	b.held.Add(-int64(len(p)))
	b.Allocator.Free(p)
}

// boundCodecs makes the library's decompressors stop where the page's header says that the page ends: by themselves
// they go on as long as the compressed bytes tell them to.
var boundCodecs = sync.OnceFunc(func() {
	z, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		return // readParquet refuses what it cannot decompress
	}
	s, err := compress.GetCodec(compress.Codecs.Snappy)
	if err != nil {
		return
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0))
	if err != nil {
		return
	}
	compress.RegisterCodec(compress.Codecs.Zstd, boundedZstd{z, dec})
	compress.RegisterCodec(compress.Codecs.Snappy, boundedSnappy{s})
})

type boundedZstd struct {
	compress.Codec
	dec *zstd.Decoder
}

// Decode decompresses src into dst and panics when dst is too small, as the library's decoders do on errors.
func (z boundedZstd) Decode(dst, src []byte) []byte {
	out, err := z.dec.DecodeAll(src, dst[:0])
	if err != nil {
		panic(err)
	}
	return out
}

type boundedSnappy struct{ compress.Codec }

// Decode decompresses src into dst and panics when dst is too small.
func (s boundedSnappy) Decode(dst, src []byte) []byte {
	if n, k := binary.Uvarint(src); k <= 0 || n > uint64(len(dst)) {
		panic(errors.New("the page is longer than it says"))
	}
	return s.Codec.Decode(dst, src)
}
