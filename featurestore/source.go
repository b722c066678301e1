package featurestore

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"

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
	maxColumnMemory = 1 << 30   // held by the Parquet library for the columns of a file
	readBatch       = 4 << 10   // rows decoded at once
)

// The formats of files.
const (
	CSV     = "csv"
	Parquet = "parquet"
)

// pieceRows is how many rows of a file are decoded, checked and written at once: a row group of what is written.
const pieceRows = rowGroup

// source is the rows of a file or stream, which are read a piece at a time. Its bytes stay in memory: what is wrong with
// some of them may have to be read again.
type source struct {
	names []string
	types []arrow.DataType // of the columns, as a Parquet file says; nil when all are texts
	// pieces begins to read from the first row on. The function it returns ends with io.EOF. It may be called by one
	// goroutine after another, and a panic of a library over malformed bytes is an error of it.
	pieces func() func() (*piece, error)
}

// piece is some rows of a source: arrays of equal length, or Go values where the library makes no array.
type piece struct {
	first  int // the number of its first row
	rows   int
	arrays []arrow.Array // nil of a column of values
	values [][]any
	at     []func(i int) any // cells of arrays, made when they are asked for
	line   func(i int) string
}

// cell is what a row has in a column: nil, bool, int64, float64, string (of a decimal, too), []byte, time.Time or []any.
func (p *piece) cell(i, c int) any {
	if p.values != nil && p.values[c] != nil {
		return p.values[c][i]
	}
	return p.at[c](i)
}

// newPiece makes a piece of columns, each an array or a slice of values.
func newPiece(first, rows int, arrays []arrow.Array, values [][]any, line func(i int) string) (*piece, error) {
	p := &piece{first: first, rows: rows, arrays: arrays, values: values, line: line, at: make([]func(i int) any, len(arrays))}
	for c, a := range arrays {
		if a == nil {
			continue
		}
		var err error
		if p.at[c], err = cells(a); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// rowLine names row i of a file that has no lines.
func rowLine(first int) func(i int) string {
	return func(i int) string { return "row " + strconv.Itoa(first+i+1) }
}

// table is a source in memory as a whole.
type table struct {
	names []string
	types []arrow.DataType // as a source has them
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

// typeOf is the type of a column.
func (t *table) typeOf(c int) Type {
	if t.types == nil {
		return String
	}
	return typeOf(t.types[c])
}

// table reads all of a source.
func (s *source) table() (*table, error) {
	t := &table{names: s.names, types: s.types}
	var pieces []*piece
	uniform := true // but for the last one
	for next := s.pieces(); ; {
		p, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		uniform = uniform && p.first == len(pieces)*pieceRows
		pieces, t.rows = append(pieces, p), t.rows+p.rows
	}
	find := func(i int) (*piece, int) {
		p := pieces[i/pieceRows]
		return p, i - p.first
	}
	if !uniform {
		find = func(i int) (*piece, int) {
			p := pieces[sort.Search(len(pieces), func(j int) bool { return pieces[j].first > i })-1]
			return p, i - p.first
		}
	}
	t.cell = func(i, c int) any {
		p, i := find(i)
		return p.cell(i, c)
	}
	t.line = func(i int) string {
		p, i := find(i)
		return p.line(i)
	}
	return t, nil
}

// head looks at the names of a file's columns before any row is decoded: it may rename them in place, and refuse them.
type head func(names []string) error

// openFile reads the head of a CSV or Parquet file. Malformed bytes are an Invalid error, whatever they are, here or when
// rows are read; more than the bounds allow is TooLarge. No row is decoded before the names are accepted.
func openFile(format string, data []byte, accept head) (*source, error) {
	checked := func(names []string) error { return checkHead(names, "file", accept) }
	switch format {
	case CSV:
		return openCSV(data, checked)
	case Parquet:
		return openParquet(data, checked, true)
	}
	return nil, waybill.InvalidField("format", strconv.QuoteToGraphic(short(format))+" is not known; use csv or parquet")
}

// errNoRows is for a file that has a head and no rows.
var errNoRows = waybill.InvalidField("file", "has no rows below its head")

// readTable reads a whole file.
func readTable(format string, data []byte, accept head) (*table, error) {
	src, err := openFile(format, data, accept)
	if err != nil {
		return nil, err
	}
	t, err := src.table()
	if err != nil {
		return nil, err
	}
	if t.rows == 0 {
		return nil, errNoRows
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

// firstBytes must have come before room is made for all that a sender promises.
const firstBytes = 64 << 10

// readFile reads r to its end, at most MaxFileBytes. A size that is not 0 is how many bytes there must be: they go straight
// to where they stay.
func readFile(r io.Reader, size int64) ([]byte, error) {
	switch {
	case size < 0:
		return nil, waybill.InvalidField("size", "must not be negative; leave it out when it is not known")
	case size > MaxFileBytes:
		return nil, errFileTooLarge
	case size > 0:
		return readPromised(r, size)
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if len(data) > MaxFileBytes {
		return nil, errFileTooLarge
	}
	return data, nil
}

var errFileTooLarge = waybill.Errorf(waybill.TooLarge, "the file has more than %d MiB; cut it into several", MaxFileBytes>>20)

// readPromised reads exactly size bytes.
func readPromised(r io.Reader, size int64) ([]byte, error) {
	data := make([]byte, min(size, firstBytes))
	n, err := io.ReadFull(r, data)
	if err == nil && size > firstBytes {
		all := make([]byte, size)
		copy(all, data)
		data = all
		n, err = io.ReadFull(r, data[firstBytes:])
		n += firstBytes
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, waybill.InvalidField("size", fmt.Sprintf("is %d bytes and %d came: the file was cut; nothing was written", size, n))
	}
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	switch _, err := io.ReadFull(r, make([]byte, 1)); {
	case err == nil:
		return nil, waybill.InvalidField("size", fmt.Sprintf("is %d bytes and more came; nothing was written", size))
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read file: %w", err)
	}
	return data, nil
}

func tooManyCells(rows int64, columns int) error {
	return waybill.Errorf(waybill.TooLarge, "the file has %d rows of %d columns; at most %d values, so cut it into several", rows, columns, maxFileCells)
}
