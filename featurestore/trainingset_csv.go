package featurestore

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"waybill"
)

// csvTime is how CSV has times: RFC 3339 in UTC, always with microseconds, so that equal times are equal texts.
const csvTime = "2006-01-02T15:04:05.000000Z"

// WriteTrainingSetCSV writes a training set as CSV (docs/formats/training-set.md): the values of its Parquet file, exactly.
// It holds one batch of rows in memory at a time, beside the Parquet file. What was written before an error is the beginning
// of the file.
func (s *Store) WriteTrainingSetCSV(ctx context.Context, tenant waybill.Tenant, digest string, w io.Writer) error {
	t, err := s.TrainingSet(ctx, tenant, digest)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	var line []byte
	for i, c := range t.Columns {
		if i > 0 {
			line = append(line, ',')
		}
		line = appendCSVText(line, c.Name)
	}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return err
	}
	err = s.TrainingSetRecords(ctx, tenant, digest, func(rec arrow.Record) error {
		if int(rec.NumCols()) != len(t.Columns) {
			return waybill.Errorf(waybill.Corrupt, "the training set has %d columns; its description has %d", rec.NumCols(), len(t.Columns))
		}
		for i := range int(rec.NumRows()) {
			line = line[:0]
			for c, a := range rec.Columns() {
				if c > 0 {
					line = append(line, ',')
				}
				v, err := valueAt(t.Columns[c].Type, a, i)
				if err != nil {
					return err
				}
				if line, err = appendCSV(line, t.Columns[c].Type, v); err != nil {
					return err
				}
			}
			if _, err := out.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		return nil
	})
	if late := out.Flush(); late != nil {
		return late // also what went wrong with an earlier write: nothing is wrong with the training set then
	}
	return err
}

// appendCSV writes a value so that it is read back as the same: numbers in the fewest digits that give them again, text and
// bytes in quotes also when they are empty, which tells them from null.
func appendCSV(b []byte, t Type, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return b, nil
	case string:
		return appendCSVText(b, v), nil
	case []byte:
		return appendCSVText(b, base64.StdEncoding.EncodeToString(v)), nil
	case []any, []float32:
		list, err := appendJSONList(nil, t, v)
		if err != nil {
			return nil, err
		}
		return appendCSVText(b, string(list)), nil
	}
	return appendScalar(b, t, v)
}

// appendScalar writes what needs no quotes in CSV.
func appendScalar(b []byte, t Type, v any) ([]byte, error) {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		bits := 64
		if t == Float32 {
			bits = 32
		}
		return strconv.AppendFloat(b, v, 'g', -1, bits), nil
	case time.Time:
		return v.AppendFormat(b, csvTime), nil
	case Decimal:
		return append(b, v...), nil
	case []byte:
		return base64.StdEncoding.AppendEncode(b, v), nil
	}
	return nil, fmt.Errorf("no CSV of a value of %s", t)
}

func appendCSVText(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' {
			b = append(b, '"')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// appendJSONList writes a list or vector as a JSON array: numbers and truth values as themselves, all else as text.
func appendJSONList(b []byte, t Type, v any) (_ []byte, err error) {
	elem := t.elem()
	list, ok := v.([]any)
	if floats, vector := v.([]float32); vector {
		elem, ok = Float32, true
		for _, x := range floats {
			list = append(list, float64(x))
		}
	}
	if !ok {
		return nil, fmt.Errorf("no list of a value of %s", t)
	}
	b = append(b, '[')
	for i, x := range list {
		if i > 0 {
			b = append(b, ',')
		}
		switch x := x.(type) {
		case string:
			text, err := json.Marshal(x)
			if err != nil {
				return nil, fmt.Errorf("write text of a list: %w", err)
			}
			b = append(b, text...)
		case bool, int64, float64:
			if b, err = appendScalar(b, elem, x); err != nil {
				return nil, err
			}
		default:
			text, err := appendScalar(nil, elem, x)
			if err != nil {
				return nil, err
			}
			b = append(append(append(b, '"'), text...), '"') // digits, base64 or a time: nothing to escape
		}
	}
	return append(b, ']'), nil
}
