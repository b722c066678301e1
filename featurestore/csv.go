package featurestore

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"waybill"
)

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

// csvReader reads lines of a file.
type csvReader struct {
	r    *csv.Reader
	head []string
	rows int
}

func newCSVReader(data []byte) *csvReader {
	r := &csvReader{r: csv.NewReader(&newlines{r: bufio.NewReaderSize(bytes.NewReader(data), 64<<10)})}
	r.r.ReuseRecord = true
	return r
}

// openCSV reads the head of a CSV file. The cells of its rows are texts; an empty one is null.
func openCSV(data []byte, accept head) (*source, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	first := newCSVReader(data)
	rec, err := first.r.Read()
	if errors.Is(err, io.EOF) {
		return nil, waybill.InvalidField("file", "is empty; the first line must name the columns")
	}
	if err != nil {
		return nil, first.wrong(nil, err)
	}
	names := make([]string, len(rec))
	for i := range rec {
		names[i] = strings.TrimSpace(strings.Clone(rec[i]))
	}
	if err := accept(names); err != nil {
		return nil, err
	}
	return &source{names: names, pieces: func() func() (*piece, error) {
		r := newCSVReader(data)
		return r.next
	}}, nil
}

func (r *csvReader) wrong(rec []string, err error) error {
	var pe *csv.ParseError
	switch {
	case !errors.As(err, &pe):
		return fmt.Errorf("read csv: %w", err)
	case errors.Is(err, csv.ErrFieldCount):
		return waybill.InvalidField("line "+strconv.Itoa(pe.Line), fmt.Sprintf("has %d fields; give %d: %s", len(rec), len(r.head), short(strings.Join(r.head, ", "))))
	}
	return waybill.InvalidField("line "+strconv.Itoa(pe.Line)+", column "+strconv.Itoa(pe.Column),
		"cannot be read: "+pe.Err.Error()+`; put a field with a quote, comma or line end in quotes, and write a quote in it twice ("")`)
}

// next reads some lines into columns of texts.
func (r *csvReader) next() (*piece, error) {
	if r.head == nil {
		rec, err := r.r.Read()
		if err != nil {
			return nil, r.wrong(nil, err) // cannot be: it was read before
		}
		for _, name := range rec {
			r.head = append(r.head, strings.Clone(name))
		}
	}
	columns := make([]*array.StringBuilder, len(r.head))
	for c := range columns {
		columns[c] = array.NewStringBuilder(memory.DefaultAllocator)
		defer columns[c].Release()
	}
	first := r.rows
	var lines []int
	for ; r.rows < first+pieceRows; r.rows++ {
		rec, err := r.r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, r.wrong(rec, err)
		}
		if r.rows == MaxFileRows {
			return nil, waybill.Errorf(waybill.TooLarge, "the file has more than %d rows; cut it into several", MaxFileRows)
		}
		if r.rows*len(r.head) > maxFileCells {
			return nil, tooManyCells(int64(r.rows), len(r.head))
		}
		line, _ := r.r.FieldPos(0)
		lines = append(lines, line)
		for c, text := range rec {
			if text == "" {
				columns[c].AppendNull()
			} else {
				columns[c].Append(text)
			}
		}
	}
	if len(lines) == 0 {
		return nil, io.EOF
	}
	arrays := make([]arrow.Array, len(columns))
	for c := range columns {
		arrays[c] = columns[c].NewArray()
	}
	return newPiece(first, len(lines), arrays, nil, func(i int) string { return "line " + strconv.Itoa(lines[i]) })
}
