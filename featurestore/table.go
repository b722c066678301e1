package featurestore

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/decimal128"
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

// Bounds of a file. A small file can say a lot: those below MaxFileRows hold for what is made of it in memory.
const (
	MaxFileBytes    = 256 << 20
	MaxFileRows     = 2_000_000
	maxFileColumns  = 2000
	maxFileCells    = 32_000_000
	maxUncompressed = 1 << 30   // of the columns of a Parquet file, as their heads say
	maxText         = 512 << 20 // of all cells together
	maxColumnMemory = 1 << 30   // held by the Parquet library for one column
	readBatch       = 4 << 10   // rows decoded at once
)

// The formats of files.
const (
	CSV     = "csv"
	Parquet = "parquet"
)

// table is a file in memory: named columns of equal length. Cells are nil, bool, int64, float64, string (of a decimal, too),
// []byte, time.Time or []any; those of a CSV file are text or nil for an empty field.
type table struct {
	names []string
	rows  int
	cell  func(row, col int) any
	line  func(row int) string // how people find a row in the file
}

// column returns the place of a column, −1 when there is none.
func (t *table) column(name string) int {
	for i, n := range t.names {
		if n == name {
			return i
		}
	}
	return -1
}

// readFile reads r to its end, at most MaxFileBytes.
func readFile(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if len(data) > MaxFileBytes {
		return nil, waybill.Errorf(waybill.TooLarge, "the file has more than %d MiB; cut it into several", MaxFileBytes>>20)
	}
	return data, nil
}

// head looks at the names of a file's columns before any row is decoded: it may rename them in place, and refuse them.
type head func(names []string) error

// readTable reads a CSV or Parquet file. Malformed bytes are an Invalid error, whatever they are; more than the bounds
// allow is TooLarge. Nothing is decoded before the names are accepted.
func readTable(format string, data []byte, accept head) (*table, error) {
	checked := func(names []string) error { return checkHead(names, "file", accept) }
	var t *table
	var err error
	switch format {
	case CSV:
		t, err = readCSV(data, checked)
	case Parquet:
		t, err = readParquet(data, checked, true)
	default:
		return nil, waybill.InvalidField("format", strconv.QuoteToGraphic(short(format))+" is not known; use csv or parquet")
	}
	if err != nil {
		return nil, err
	}
	if t.rows == 0 {
		return nil, waybill.InvalidField("file", "has no rows below its head")
	}
	return t, nil
}

// checkHead holds the names of columns against what all files must be like, then has them accepted.
func checkHead(names []string, field string, accept head) error {
	if len(names) > maxFileColumns {
		return waybill.InvalidField(field, fmt.Sprintf("has %d columns; at most %d", len(names), maxFileColumns))
	}
	seen := map[string]bool{}
	for i, n := range names {
		if !utf8.ValidString(n) || strings.ContainsRune(n, 0) {
			return waybill.InvalidField(field, fmt.Sprintf("names column %d with bytes that are no text", i+1))
		}
		if seen[n] {
			return waybill.InvalidField(field, "has two columns "+strconv.QuoteToGraphic(short(n)))
		}
		seen[n] = true
	}
	return accept(names)
}

// anyNames accepts all names.
func anyNames([]string) error { return nil }

func tooManyCells(rows int64, columns int) error {
	return waybill.Errorf(waybill.TooLarge, "the file has %d rows of %d columns; at most %d values, so cut it into several", rows, columns, maxFileCells)
}

// newlines turns CR and CRLF into LF: files of old spreadsheets end their lines with CR alone.
type newlines struct {
	r  *bufio.Reader
	cr bool
}

func (n *newlines) Read(p []byte) (int, error) {
	for i := range p {
		c, err := n.r.ReadByte()
		if err == nil && n.cr && c == '\n' {
			c, err = n.r.ReadByte()
		}
		n.cr = false
		if err != nil {
			return i, err
		}
		if c == '\r' {
			n.cr, c = true, '\n'
		}
		p[i] = c
	}
	return len(p), nil
}

func readCSV(data []byte, accept head) (*table, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	r := csv.NewReader(&newlines{r: bufio.NewReader(bytes.NewReader(data))})
	r.ReuseRecord = false
	var head []string
	bad := func(rec []string, err error) error {
		var pe *csv.ParseError
		switch {
		case !errors.As(err, &pe):
			return fmt.Errorf("read csv: %w", err)
		case errors.Is(err, csv.ErrFieldCount):
			return waybill.InvalidField("line "+strconv.Itoa(pe.Line), fmt.Sprintf("has %d fields; give %d: %s", len(rec), len(head), short(strings.Join(head, ", "))))
		}
		return waybill.InvalidField("line "+strconv.Itoa(pe.Line)+", column "+strconv.Itoa(pe.Column),
			"cannot be read: "+pe.Err.Error()+`; put a field with a quote, comma or line end in quotes, and write a quote in it twice ("")`)
	}
	var err error
	head, err = r.Read()
	if errors.Is(err, io.EOF) {
		return nil, waybill.InvalidField("file", "is empty; the first line must name the columns")
	}
	if err != nil {
		return nil, bad(nil, err)
	}
	names := make([]string, len(head))
	for i := range head {
		names[i] = strings.TrimSpace(head[i])
	}
	if err := accept(names); err != nil {
		return nil, err
	}
	var rows [][]string
	var lines []int
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bad(rec, err)
		}
		if len(rows) == MaxFileRows {
			return nil, waybill.Errorf(waybill.TooLarge, "the file has more than %d rows; cut it into several", MaxFileRows)
		}
		if len(rows)*len(head) > maxFileCells {
			return nil, tooManyCells(int64(len(rows)), len(head))
		}
		line, _ := r.FieldPos(0)
		rows, lines = append(rows, rec), append(lines, line)
	}
	return &table{names: names, rows: len(rows), line: func(i int) string { return "line " + strconv.Itoa(lines[i]) }, cell: func(i, c int) any {
		if v := rows[i][c]; v != "" {
			return v
		}
		return nil
	}}, nil
}

// readParquet reads a whole Parquet file. The library panics on some malformed files; here that is an error too, since
// every column is decoded in the calling goroutine, where a panic can be caught. bounded is for files of others: those
// that were written here are as large as they are.
func readParquet(data []byte, accept head, bounded bool) (t *table, err error) {
	boundCodecs()
	defer func() {
		switch p := recover(); p {
		case nil:
		case errMemory:
			t, err = nil, waybill.Errorf(waybill.TooLarge, "a column of the file needs more than %d MiB when it is decoded; cut the file into several", maxColumnMemory>>20)
		default:
			t, err = nil, waybill.InvalidField("file", "is not a Parquet file that can be read")
		}
	}()
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
	for i := range rd.Manifest.Fields {
		if err := readable(rd.Manifest.Fields[i].Field.Type); err != nil {
			return nil, waybill.InvalidField("column "+short(names[i]), err.Error())
		}
	}
	t = &table{names: names, rows: int(f.NumRows()), line: func(i int) string { return "row " + strconv.Itoa(i+1) }}
	columns, text := make([]func(i int) any, len(names)), 0
	for c := range columns {
		mem.held.Store(0)
		if columns[c], err = readColumn(rd, mem, c, t.rows, &text, bounded); err != nil {
			if waybill.CodeOf(err) != waybill.Internal {
				return nil, err
			}
			return nil, waybill.InvalidField("column "+short(names[c]), err.Error())
		}
	}
	t.cell = func(i, c int) any { return columns[c](i) }
	return t, nil
}

// readColumn decodes one column and returns its cells. text counts the bytes of all text cells of the file.
func readColumn(rd *pqarrow.FileReader, mem memory.Allocator, c, rows int, text *int, bounded bool) (func(i int) any, error) {
	f := rd.ParquetReader()
	if f.MetaData().Schema.Column(c).MaxRepetitionLevel() > 0 {
		lists, err := readLists(rd, mem, c, rows, text, bounded)
		return func(i int) any { return lists[i] }, err
	}
	r := &flatReader{f: f, mem: mem, t: rd.Manifest.Fields[c].Field.Type, column: c, bounded: bounded, text: text}
	a, err := r.next(rows)
	if err != nil {
		return nil, err
	}
	return cells(a)
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

// readable says whether appendCells knows a type.
func readable(t arrow.DataType) error {
	switch t.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.FLOAT32, arrow.FLOAT64, arrow.STRING, arrow.LARGE_STRING,
		arrow.BINARY, arrow.TIMESTAMP, arrow.DATE32:
		return nil
	case arrow.DECIMAL128:
		if d, ok := t.(*arrow.Decimal128Type); ok && d.Scale >= 0 && d.Scale <= decimalDigits {
			return nil
		}
	case arrow.LIST:
		if l, ok := t.(*arrow.ListType); ok && l.Elem().ID() != arrow.LIST {
			return readable(l.Elem())
		}
	default:
	}
	return fmt.Errorf("has the type %s; use bool, int, float, decimal, string, bytes, timestamp or a list of these", t)
}

// instantOf converts a timestamp without the wrap that nanoseconds in 64 bits have. Those beyond all calendars become the end of
// Go's: toTime refuses them by their year.
func instantOf(v arrow.Timestamp, unit arrow.TimeUnit) time.Time {
	const far = 1 << 40 // seconds: some 35,000 years
	switch unit {
	case arrow.Second:
		return time.Unix(max(-far, min(far, int64(v))), 0).UTC()
	case arrow.Millisecond:
		return time.Unix(max(-far, min(far, int64(v)/1e3)), int64(v)%1e3*1e6).UTC()
	case arrow.Microsecond:
		return time.UnixMicro(int64(v)).UTC()
	case arrow.Nanosecond:
	}
	return time.Unix(0, int64(v)).UTC()
}

// appendCells reads one Arrow array. Equal texts of a column share their bytes through seen.
func appendCells(out []any, a arrow.Array, seen map[string]any, text *int) ([]any, error) {
	at, err := cells(a)
	if err != nil {
		return nil, err
	}
	for i := range a.Len() {
		v := at(i)
		switch x := v.(type) {
		case string:
			*text += len(x)
			shared, ok := seen[x]
			if !ok {
				x = strings.Clone(x) // the array's memory goes back to the library
				if shared = x; len(seen) < readBatch {
					seen[x] = shared
				}
			}
			v = shared
		case []byte:
			*text += len(x)
			v = bytes.Clone(x)
		}
		out = append(out, v)
	}
	return out, nil
}

// cells returns what the places of an array hold, as cells of a table. Texts and bytes share the array's memory.
func cells(a arrow.Array) (func(i int) any, error) {
	at, err := valuesOf(a)
	if err != nil || a.NullN() == 0 {
		return at, err
	}
	return func(i int) any {
		if a.IsNull(i) {
			return nil
		}
		return at(i)
	}, nil
}

// valuesOf is cells for places that are not null.
func valuesOf(a arrow.Array) (func(i int) any, error) {
	switch a := a.(type) {
	case *array.Boolean:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Int8:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Int16:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Int32:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Int64:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Uint8:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Uint16:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Uint32:
		return func(i int) any { return int64(a.Value(i)) }, nil
	case *array.Float32:
		return func(i int) any { return float64(a.Value(i)) }, nil
	case *array.Float64:
		return func(i int) any { return a.Value(i) }, nil
	case *array.String:
		return func(i int) any { return a.Value(i) }, nil
	case *array.LargeString:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Binary:
		return func(i int) any { return a.Value(i) }, nil
	case *array.LargeBinary:
		return func(i int) any { return a.Value(i) }, nil
	case *array.Timestamp:
		unit := arrow.Nanosecond
		if t, ok := a.DataType().(*arrow.TimestampType); ok {
			unit = t.Unit
		}
		return func(i int) any { return instantOf(a.Value(i), unit) }, nil
	case *array.Date32:
		return func(i int) any { return a.Value(i).ToTime().UTC() }, nil
	case *array.Decimal128:
		scale := int32(0)
		if t, ok := a.DataType().(*arrow.Decimal128Type); ok {
			scale = t.Scale
		}
		return func(i int) any { return decimalText(a.Value(i), scale) }, nil
	case *array.Null: // how clients write a column that holds nothing
		return func(int) any { return nil }, nil
	case *array.Dictionary:
		word, err := cells(a.Dictionary())
		return func(i int) any { return word(a.GetValueIndex(i)) }, err
	case array.ListLike:
		elem, err := cells(a.ListValues())
		return func(i int) any {
			from, to := a.ValueOffsets(i)
			out := make([]any, 0, to-from)
			for e := from; e < to; e++ {
				out = append(out, elem(int(e)))
			}
			return out
		}, err
	}
	return nil, readable(a.DataType())
}

// decimalText writes n × 10^−scale as text; whether a column can hold it is for convert to say.
func decimalText(n decimal128.Num, scale int32) string {
	sign, digits := "", n.BigInt().String()
	if n.Sign() < 0 {
		sign, digits = "-", digits[1:]
	}
	if pad := int(scale) + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	if scale == 0 {
		return sign + digits
	}
	cut := len(digits) - int(scale)
	return sign + digits[:cut] + "." + digits[cut:]
}

// writerVersion stands in every Parquet file that is written here. It changes when the same rows would give other
// bytes, and with it the kernel of training sets.
const writerVersion = "waybill 1"

// recipeKey is where a training set's file says how it was made.
const recipeKey = "waybill.recipe"

// rowGroup is how many rows a row group of a written file holds.
const rowGroup = 128 << 10

// writeParquet writes columns as a Parquet file: the same columns, values and recipe always give the same bytes. recipe
// stands in the file's metadata under recipeKey, unless it is "".
func writeParquet(cols []Column, rows int, recipe string, cell func(row, col int) any) (_ []byte, err error) {
	boundCodecs()
	fields := make([]arrow.Field, len(cols))
	for i, c := range cols {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &buf, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCreatedBy(writerVersion),
		parquet.WithVersion(parquet.V2_LATEST), parquet.WithMaxRowGroupLength(rowGroup)), pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator)))
	if err != nil {
		return nil, fmt.Errorf("open parquet writer: %w", err)
	}
	for from := 0; from < rows; from += rowGroup {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for i := from; i < min(rows, from+rowGroup); i++ {
			for c := range cols {
				if err := appendValue(b.Field(c), cell(i, c)); err != nil {
					b.Release()
					return nil, fmt.Errorf("write column %s: %w", cols[c].Name, err)
				}
			}
		}
		rec := b.NewRecord()
		err := w.Write(rec)
		rec.Release()
		b.Release()
		if err != nil {
			return nil, fmt.Errorf("write parquet: %w", err)
		}
	}
	if recipe != "" {
		if err := w.AppendKeyValueMetadata(recipeKey, recipe); err != nil {
			return nil, fmt.Errorf("write recipe: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close parquet: %w", err)
	}
	return buf.Bytes(), nil
}

func arrowType(t Type) arrow.DataType {
	switch t {
	case Bool:
		return arrow.FixedWidthTypes.Boolean
	case Int32:
		return arrow.PrimitiveTypes.Int32
	case Int64:
		return arrow.PrimitiveTypes.Int64
	case Float32:
		return arrow.PrimitiveTypes.Float32
	case Float64:
		return arrow.PrimitiveTypes.Float64
	case Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case Bytes:
		return arrow.BinaryTypes.Binary
	case DecimalT:
		return &arrow.Decimal128Type{Precision: decimalDigits, Scale: decimalScale}
	case String:
		return arrow.BinaryTypes.String
	}
	if t.dim() > 0 {
		return arrow.ListOf(arrow.PrimitiveTypes.Float32)
	}
	return arrow.ListOf(arrowType(t.elem()))
}

func appendValue(b array.Builder, v any) error {
	if v == nil {
		b.AppendNull()
		return nil
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		if x, ok := v.(bool); ok {
			b.Append(x)
			return nil
		}
	case *array.Int32Builder:
		if x, ok := v.(int64); ok {
			b.Append(int32(x))
			return nil
		}
	case *array.Int64Builder:
		if x, ok := v.(int64); ok {
			b.Append(x)
			return nil
		}
	case *array.Float32Builder:
		if x, ok := v.(float64); ok {
			b.Append(float32(x))
			return nil
		}
	case *array.Float64Builder:
		if x, ok := v.(float64); ok {
			b.Append(x)
			return nil
		}
	case *array.StringBuilder:
		if x, ok := v.(string); ok {
			b.Append(x)
			return nil
		}
	case *array.TimestampBuilder:
		if x, ok := v.(time.Time); ok {
			b.Append(arrow.Timestamp(x.UnixMicro()))
			return nil
		}
	case *array.BinaryBuilder:
		if x, ok := v.([]byte); ok {
			b.Append(x)
			return nil
		}
	case *array.Decimal128Builder:
		if x, ok := v.(Decimal); ok {
			b.Append(decimal128.FromBigInt(x.scaled()))
			return nil
		}
	case *array.ListBuilder:
		return appendList(b, v)
	}
	return fmt.Errorf("a %T does not fit", v)
}

func appendList(b *array.ListBuilder, v any) error {
	b.Append(true)
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := appendValue(b.ValueBuilder(), x); err != nil {
				return err
			}
		}
		return nil
	case []float32:
		if f, ok := b.ValueBuilder().(*array.Float32Builder); ok {
			f.AppendValues(v, nil)
			return nil
		}
	}
	return fmt.Errorf("a %T does not fit", v)
}
