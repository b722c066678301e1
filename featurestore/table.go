package featurestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
)

// Bounds of a file.
const (
	MaxFileBytes = 256 << 20
	MaxFileRows  = 2_000_000
	maxCSVFields = 2000
)

// The formats of files.
const (
	CSV     = "csv"
	Parquet = "parquet"
)

// table is a file in memory: named columns of equal length. Cells are nil, bool, int64, float64, string or time.Time;
// those of a CSV file are text or nil for an empty field.
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

// readTable reads a CSV or Parquet file. Malformed bytes are an Invalid error, whatever they are.
func readTable(format string, data []byte) (*table, error) {
	var t *table
	var err error
	switch format {
	case CSV:
		t, err = readCSV(data)
	case Parquet:
		t, err = readParquet(data)
	default:
		return nil, waybill.InvalidField("format", strconv.QuoteToGraphic(short(format))+" is not known; use csv or parquet")
	}
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, n := range t.names {
		if seen[n] {
			return nil, waybill.InvalidField("file", "has two columns "+strconv.QuoteToGraphic(short(n)))
		}
		seen[n] = true
	}
	if t.rows == 0 {
		return nil, waybill.InvalidField("file", "has no rows below its head")
	}
	return t, nil
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

func readCSV(data []byte) (*table, error) {
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
	if len(head) > maxCSVFields {
		return nil, waybill.InvalidField("line 1", fmt.Sprintf("names %d columns; at most %d", len(head), maxCSVFields))
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
		line, _ := r.FieldPos(0)
		rows, lines = append(rows, rec), append(lines, line)
	}
	for i := range head {
		head[i] = strings.TrimSpace(head[i])
	}
	return &table{names: head, rows: len(rows), line: func(i int) string { return "line " + strconv.Itoa(lines[i]) }, cell: func(i, c int) any {
		if v := rows[i][c]; v != "" {
			return v
		}
		return nil
	}}, nil
}

// readParquet reads a whole Parquet file. The library panics on some malformed files; here that is an error too.
func readParquet(data []byte) (t *table, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, waybill.InvalidField("file", "is not a Parquet file that can be read")
		}
	}()
	f, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		return nil, waybill.InvalidField("file", "is not a Parquet file: "+err.Error())
	}
	if f.NumRows() > MaxFileRows {
		return nil, waybill.Errorf(waybill.TooLarge, "the file has %d rows; at most %d", f.NumRows(), MaxFileRows)
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, waybill.InvalidField("file", "cannot be read: "+err.Error())
	}
	at, err := rd.ReadTable(context.Background()) // bounded by MaxFileBytes; there is nothing to wait for
	if err != nil {
		return nil, waybill.InvalidField("file", "cannot be read: "+err.Error())
	}
	defer at.Release()
	t = &table{rows: int(at.NumRows()), line: func(i int) string { return "row " + strconv.Itoa(i+1) }}
	columns := make([][]any, at.NumCols())
	for c := range columns {
		col := at.Column(c)
		t.names = append(t.names, col.Name())
		for _, chunk := range col.Data().Chunks() {
			if columns[c], err = appendCells(columns[c], chunk); err != nil {
				return nil, waybill.InvalidField("column "+short(col.Name()), err.Error())
			}
		}
		if len(columns[c]) != t.rows {
			return nil, waybill.InvalidField("column "+short(col.Name()), fmt.Sprintf("has %d values for %d rows", len(columns[c]), t.rows))
		}
	}
	t.cell = func(i, c int) any { return columns[c][i] }
	return t, nil
}

// appendCells reads one Arrow array.
func appendCells(out []any, a arrow.Array) ([]any, error) {
	var at func(i int) any
	switch a := a.(type) {
	case *array.Boolean:
		at = func(i int) any { return a.Value(i) }
	case *array.Int8:
		at = func(i int) any { return int64(a.Value(i)) }
	case *array.Int16:
		at = func(i int) any { return int64(a.Value(i)) }
	case *array.Int32:
		at = func(i int) any { return int64(a.Value(i)) }
	case *array.Int64:
		at = func(i int) any { return a.Value(i) }
	case *array.Uint8:
		at = func(i int) any { return int64(a.Value(i)) }
	case *array.Uint16:
		at = func(i int) any { return int64(a.Value(i)) }
	case *array.Uint32:
		at = func(i int) any { return int64(a.Value(i)) }
	case *array.Float32:
		at = func(i int) any { return float64(a.Value(i)) }
	case *array.Float64:
		at = func(i int) any { return a.Value(i) }
	case *array.String:
		at = func(i int) any { return strings.Clone(a.Value(i)) }
	case *array.LargeString:
		at = func(i int) any { return strings.Clone(a.Value(i)) }
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		at = func(i int) any { return a.Value(i).ToTime(unit).UTC() }
	case *array.Date32:
		at = func(i int) any { return a.Value(i).ToTime().UTC() }
	default:
		return nil, fmt.Errorf("has the type %s; use bool, int, float, string or timestamp", a.DataType())
	}
	for i := range a.Len() {
		if a.IsNull(i) {
			out = append(out, nil)
			continue
		}
		out = append(out, at(i))
	}
	return out, nil
}

// writerVersion stands in every Parquet file that is written here. It changes when the same rows would give other
// bytes, and with it the kernel of training sets.
const writerVersion = "waybill 1"

// rowGroup is how many rows a row group of a written file holds.
const rowGroup = 128 << 10

// writeParquet writes columns as a Parquet file: the same columns and values always give the same bytes.
func writeParquet(cols []Column, rows int, cell func(row, col int) any) (_ []byte, err error) {
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
	case String:
	}
	return arrow.BinaryTypes.String
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
	}
	return fmt.Errorf("a %T does not fit", v)
}
