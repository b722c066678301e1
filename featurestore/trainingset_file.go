package featurestore

import (
	"bytes"
	"context"
	"fmt"
	"math"
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

// file writes a joined set as Parquet with its recipe: the same columns and recipe always give the same bytes.
func (j *joined) file(t *TrainingSet) ([]byte, error) {
	boundCodecs()
	recipe, err := t.recipe()
	if err != nil {
		return nil, err
	}
	fields := make([]arrow.Field, len(j.columns))
	for i, c := range j.columns {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &buf, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCreatedBy(writerVersion),
		parquet.WithVersion(parquet.V2_LATEST), parquet.WithMaxRowGroupLength(rowGroup)), pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator)))
	if err != nil {
		return nil, fmt.Errorf("open parquet writer: %w", err)
	}
	if err := w.Write(array.NewRecord(schema, j.arrays, int64(j.rows))); err != nil {
		return nil, fmt.Errorf("write parquet: %w", err)
	}
	if err := w.AppendKeyValueMetadata(recipeKey, recipe); err != nil {
		return nil, fmt.Errorf("write recipe: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close parquet: %w", err)
	}
	return buf.Bytes(), nil
}

// numbers reads a column as numbers: a truth value is 0 or 1, and nulls are not asked for. It is nil for columns of other
// things.
func numbers(a arrow.Array) func(i int) float64 {
	switch a := a.(type) {
	case *array.Boolean:
		return func(i int) float64 {
			if a.Value(i) {
				return 1
			}
			return 0
		}
	case *array.Int32:
		return func(i int) float64 { return float64(a.Value(i)) }
	case *array.Int64:
		return func(i int) float64 { return float64(a.Value(i)) }
	case *array.Float32:
		return func(i int) float64 { return float64(a.Value(i)) }
	case *array.Float64:
		return a.Value
	case *array.Decimal128:
		return func(i int) float64 {
			d, err := decimalOf(a.Value(i).BigInt())
			if err != nil {
				return math.NaN() // cannot be: it was written from a Decimal
			}
			return d.Float64()
		}
	}
	return nil
}

// statistics describes the columns. Means are accumulated by Welford's update, of numbers scaled by a power of two where
// their squares would not be finite.
func (j *joined) statistics() []ColumnStats {
	out := make([]ColumnStats, len(j.columns))
	for c, col := range j.columns {
		out[c] = describeColumn(col, j.arrays[c])
	}
	return out
}

func describeColumn(col Column, a arrow.Array) ColumnStats {
	s := ColumnStats{Name: col.Name, Type: col.Type, Rows: int64(a.Len()), Nulls: int64(a.NullN())}
	at := numbers(a)
	if at == nil {
		return s
	}
	largest := 0.0
	for i := range a.Len() {
		if a.IsValid(i) {
			largest = max(largest, math.Abs(at(i)))
		}
	}
	scale := 1.0
	if largest > 1e140 {
		scale = math.Ldexp(1, 600)
	}
	n, m2 := 0.0, 0.0
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		x := at(i)
		if n == 0 {
			s.Min, s.Max = x, x
		}
		n++
		d := x/scale - s.Mean
		s.Mean += d / n
		m2 += d * (x/scale - s.Mean)
		s.Min, s.Max = math.Min(s.Min, x), math.Max(s.Max, x)
	}
	if n > 0 { // the last digit of the largest numbers must not round to infinity
		s.Mean = max(s.Min, min(s.Max, s.Mean*scale))
		s.Std = min(math.Sqrt(m2/n)*scale, math.MaxFloat64)
	}
	return s
}

// differences says in words which columns are not what they were.
func differences(was, is []ColumnStats) (out []string) {
	at := map[string]ColumnStats{}
	for _, s := range is {
		at[s.Name] = s
	}
	for _, w := range was {
		s, ok := at[w.Name]
		switch {
		case !ok:
			out = append(out, w.Name+" is not there")
		case s != w:
			out = append(out, fmt.Sprintf("%s had %d nulls, mean %g, min %g, max %g and has %d, %g, %g, %g", w.Name, w.Nulls, w.Mean, w.Min, w.Max, s.Nulls, s.Mean, s.Min, s.Max))
		}
		delete(at, w.Name)
	}
	for _, s := range is {
		if _, ok := at[s.Name]; ok {
			out = append(out, s.Name+" is new")
		}
	}
	return out
}

// TrainingColumns reads the numeric columns of a training set, label included: names and, per name, one value per row
// with NaN for missing. A truth value reads as 0 or 1; text, times and lists are left out.
func (s *Store) TrainingColumns(ctx context.Context, tenant waybill.Tenant, digest string) (names []string, columns [][]float64, err error) {
	t, err := s.TrainingSet(ctx, tenant, digest)
	if err != nil {
		return nil, nil, err
	}
	data, err := s.object(ctx, setPrefix+"/"+t.Digest)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the library panics on what it cannot read
			err = waybill.Errorf(waybill.Corrupt, "the training set cannot be read: %v", p)
		}
	}()
	boundCodecs()
	f, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		return nil, nil, waybill.Wrap(waybill.Corrupt, err, "the training set cannot be read")
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, nil, waybill.Wrap(waybill.Corrupt, err, "the training set cannot be read")
	}
	for i := range rd.Manifest.Fields {
		field := rd.Manifest.Fields[i].Field
		if probe := array.MakeArrayOfNull(memory.DefaultAllocator, field.Type, 0); numbers(probe) == nil {
			continue
		}
		col, err := rd.GetColumn(ctx, i)
		if err != nil {
			return nil, nil, waybill.Wrap(waybill.Corrupt, err, "the training set cannot be read")
		}
		chunks, err := col.NextBatch(f.NumRows())
		col.Release()
		if err != nil {
			return nil, nil, waybill.Wrap(waybill.Corrupt, err, "the training set cannot be read")
		}
		values := make([]float64, 0, f.NumRows())
		for _, a := range chunks.Chunks() {
			at := numbers(a)
			for r := range a.Len() {
				x := math.NaN()
				if a.IsValid(r) {
					x = at(r)
				}
				values = append(values, x)
			}
		}
		if int64(len(values)) != f.NumRows() {
			return nil, nil, waybill.Errorf(waybill.Corrupt, "the training set has %d values of %s for %d rows", len(values), field.Name, f.NumRows())
		}
		names, columns = append(names, strings.Clone(field.Name)), append(columns, values)
	}
	return names, columns, nil
}

// valueAt reads a value of a column of type t as the Go type that typed gives it.
func valueAt(t Type, a arrow.Array, i int) (any, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	switch a := a.(type) {
	case *array.Boolean:
		return a.Value(i), nil
	case *array.Int32:
		return int64(a.Value(i)), nil
	case *array.Int64:
		return a.Value(i), nil
	case *array.Float32:
		return float64(a.Value(i)), nil
	case *array.Float64:
		return a.Value(i), nil
	case *array.String:
		return a.Value(i), nil
	case *array.Timestamp:
		return time.UnixMicro(int64(a.Value(i))).UTC(), nil
	case *array.Binary:
		return a.Value(i), nil
	case *array.Decimal128:
		return decimalOf(a.Value(i).BigInt())
	case *array.List:
		from, to := a.ValueOffsets(i)
		if values, ok := a.ListValues().(*array.Float32); ok && t.dim() > 0 {
			return values.Float32Values()[from:to], nil
		}
		out := make([]any, 0, to-from)
		for e := from; e < to; e++ {
			v, err := valueAt(t.elem(), a.ListValues(), int(e))
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	return nil, fmt.Errorf("no value of a column of %s", a.DataType())
}
