package asof

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// Clocks is how many columns stand at the end of every row of a history: event, knowledge and sequence.
const Clocks = 3

// SorterConfig completes NewSorter.
type SorterConfig struct {
	Keys     int    // how many of the first columns are the join key
	Budget   int64  // bytes of rows held in memory; defaults to 256 MiB. While they are written out, a part's share comes on top
	Dir      string // where files go that are spilled; defaults to the system's folder for temporary files
	PartRows int    // rows that a part should have; defaults to 128 Ki
	mask     uint64 // see Request
}

// The defaults.
const (
	defaultBudget   = 256 << 20
	defaultPartRows = 128 << 10
	spillBits       = 8 // parts of a history that was spilled: 256
)

// Sorter makes sorted history of rows in any order. Rows that tie keep the order in which they came. Rows are added by
// one goroutine; after Finish parts are read by any number. Close removes what was spilled.
type Sorter struct {
	c      SorterConfig
	schema *arrow.Schema
	held   []arrow.Record
	bytes  int64
	rows   int64
	nulls  []bool // of each column: whether a null came by
	dir    string // of the spilled files; "" when none was
	spills []string
	parts  []Part

	// After Finish, of a history that was not spilled: all rows, and where each part begins in order.
	all   arrow.Record
	order []int32
	from  []int
}

// NewSorter prepares for rows of a schema: join keys, features, then the event and knowledge time (timestamps in µs) and
// the sequence (int64).
func NewSorter(schema *arrow.Schema, c SorterConfig) *Sorter {
	if c.Budget <= 0 {
		c.Budget = defaultBudget
	}
	if c.PartRows <= 0 {
		c.PartRows = defaultPartRows
	}
	if c.mask == 0 {
		c.mask = ^uint64(0)
	}
	return &Sorter{c: c, schema: schema, nulls: make([]bool, schema.NumFields())}
}

// Add takes rows over: the caller changes them no more.
func (s *Sorter) Add(rec arrow.Record) error {
	if !rec.Schema().Equal(s.schema) {
		return fmt.Errorf("rows of another schema: %s, not %s", rec.Schema(), s.schema)
	}
	if rec.NumRows() == 0 {
		return nil
	}
	size := int64(0)
	for _, a := range rec.Columns() {
		size += sizeOf(a.Data())
	}
	if len(s.held) > 0 && s.bytes+size > s.c.Budget {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.held = append(s.held, rec)
	s.bytes += size
	s.rows += rec.NumRows()
	for i, a := range rec.Columns() {
		s.nulls[i] = s.nulls[i] || a.NullN() > 0
	}
	return nil
}

// sizeOf is how many bytes the buffers of a column have, slices counted in full.
func sizeOf(d arrow.ArrayData) (n int64) {
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, c := range d.Children() {
		n += sizeOf(c)
	}
	return n
}

// Rows is how many were added.
func (s *Sorter) Rows() int64 { return s.rows }

// Nulls says for each column whether any of its values is null.
func (s *Sorter) Nulls() []bool { return s.nulls }

// Spilled is how many files were written.
func (s *Sorter) Spilled() int { return len(s.spills) }

// Finish sorts what was added. Nothing may be added after it.
func (s *Sorter) Finish() error {
	if len(s.spills) > 0 {
		if len(s.held) > 0 {
			if err := s.spill(); err != nil {
				return err
			}
		}
		s.parts = split(spillBits)
		return nil
	}
	if s.rows == 0 {
		return nil
	}
	var err error
	if s.all, err = concat(s.schema, s.held); err != nil {
		return err
	}
	s.held = nil
	pairs, err := s.sort(s.all)
	if err != nil {
		return err
	}
	s.parts = split(PartBits(s.rows, s.c.PartRows))
	s.order, s.from = make([]int32, len(pairs)), make([]int, len(s.parts)+1)
	p := 0
	for i, pair := range pairs {
		for ; pair.hash > s.parts[p].Last; p++ {
			s.from[p+1] = i
		}
		s.order[i] = pair.row
	}
	for p++; p < len(s.from); p++ {
		s.from[p] = len(pairs)
	}
	return nil
}

// PartBits says by how many leading bits of the hash rows are cut, so that a part has about partRows of them.
func PartBits(rows int64, partRows int) int {
	return min(16, bits.Len64(uint64(max(rows-1, 0)/int64(partRows))))
}

// split cuts the hashes into 2^n ranges.
func split(n int) []Part {
	out := make([]Part, 1<<n)
	for i := range out {
		out[i] = PartOf(n, i)
	}
	return out
}

// PartOf is the i-th of the 2^n ranges of hashes.
func PartOf(n, i int) Part {
	if n == 0 {
		return Part{0, ^uint64(0)}
	}
	return Part{uint64(i) << (64 - n), uint64(i)<<(64-n) | ^uint64(0)>>n}
}

// spill writes what is held to a file, a record for each part, and lets go of it.
func (s *Sorter) spill() (err error) {
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp(s.c.Dir, "waybill-asof-"); err != nil {
			return fmt.Errorf("make a folder to spill to: %w", err)
		}
	}
	all, err := concat(s.schema, s.held)
	if err != nil {
		return err
	}
	s.held, s.bytes = nil, 0
	hashes, err := Hash(all.Columns()[:s.c.Keys], int(all.NumRows()))
	if err != nil {
		return err
	}
	pairs := sortedPairs(hashes, s.c.mask)
	f, err := os.Create(filepath.Join(s.dir, strconv.Itoa(len(s.spills))+".arrow"))
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(s.schema))
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	i := 0
	for _, p := range split(spillBits) {
		var rows []int32
		for ; i < len(pairs) && pairs[i].hash <= p.Last; i++ {
			rows = append(rows, pairs[i].row)
		}
		rec, err := takeRecord(all, rows, nil)
		if err != nil {
			return err
		}
		if err := w.Write(rec); err != nil {
			return fmt.Errorf("spill: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	s.spills = append(s.spills, f.Name())
	return nil
}

// load reads one part back from every spilled file, in the order in which they were written.
func (s *Sorter) load(part int) (arrow.Record, error) {
	var recs []arrow.Record
	for _, name := range s.spills {
		rec, err := loadRecord(name, part)
		if err != nil {
			return nil, fmt.Errorf("read what was spilled: %w", err)
		}
		recs = append(recs, rec)
	}
	return concat(s.schema, recs)
}

func loadRecord(name string, i int) (_ arrow.Record, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := ipc.NewFileReader(f)
	if err != nil {
		return nil, err
	}
	return r.RecordAt(i)
}

// Parts returns the ranges of hashes of a finished history.
func (s *Sorter) Parts() []Part { return s.parts }

// Part returns the rows of a part, sorted; of the given columns only, nil for all.
func (s *Sorter) Part(part int, columns []int) (arrow.Record, error) {
	if s.all != nil {
		return takeRecord(s.all, s.order[s.from[part]:s.from[part+1]], columns)
	}
	rec, err := s.load(part)
	if err != nil {
		return nil, err
	}
	pairs, err := s.sort(rec)
	if err != nil {
		return nil, err
	}
	rows := make([]int32, len(pairs))
	for i, p := range pairs {
		rows[i] = p.row
	}
	return takeRecord(rec, rows, columns)
}

// sort orders rows by (hash, key, event, knowledge, sequence), and those that tie as they are.
func (s *Sorter) sort(rec arrow.Record) ([]pair, error) { return sortRecord(rec, s.c.Keys, s.c.mask) }

// SortRecord returns the rows of rec, which has the columns of a Sorter's schema, sorted; those that tie stay in order.
func SortRecord(rec arrow.Record, keys int) (arrow.Record, error) {
	pairs, err := sortRecord(rec, keys, ^uint64(0))
	if err != nil {
		return nil, err
	}
	rows := make([]int32, len(pairs))
	for i, p := range pairs {
		rows[i] = p.row
	}
	return takeRecord(rec, rows, nil)
}

func sortRecord(rec arrow.Record, nkeys int, mask uint64) ([]pair, error) {
	n := int(rec.NumRows())
	ks, err := newKeys(rec.Columns()[:nkeys], n)
	if err != nil {
		return nil, err
	}
	h, err := HeadsOf(rec, nkeys)
	if err != nil {
		return nil, err
	}
	pairs := sortedPairs(ks.hash(n), mask)
	less := func(a, b pair) int {
		if d := ks.compare(int(a.row), ks, int(b.row)); d != 0 {
			return d
		}
		x := best{event: h.Event[a.row], knowledge: h.Knowledge[a.row], seq: h.Seq[a.row]}
		y := best{event: h.Event[b.row], knowledge: h.Knowledge[b.row], seq: h.Seq[b.row]}
		switch {
		case x.after(&y):
			return 1
		case y.after(&x):
			return -1
		}
		return 0
	}
	for i := 0; i < n; {
		end := i + 1
		for end < n && pairs[end].hash == pairs[i].hash {
			end++
		}
		if one := pairs[i:end]; len(one) > 1 && !slices.IsSortedFunc(one, less) {
			slices.SortStableFunc(one, less)
		}
		i = end
	}
	return pairs, nil
}

// HeadsOf takes keys and clocks out of rows as a Sorter has them.
func HeadsOf(rec arrow.Record, keys int) (Heads, error) {
	h := Heads{Keys: rec.Columns()[:keys]}
	n := int(rec.NumCols())
	for i, into := range []*[]int64{&h.Event, &h.Knowledge, &h.Seq} {
		v, err := Int64s(rec.Column(n - Clocks + i))
		if err != nil {
			return Heads{}, err
		}
		*into = v
	}
	return h, nil
}

// Int64s are the numbers of a column of int64 or timestamps without nulls. They are the column's memory.
func Int64s(a arrow.Array) ([]int64, error) {
	if a.Len() == 0 {
		return nil, nil
	}
	if t, ok := a.DataType().(arrow.FixedWidthDataType); !ok || t.BitWidth() != 64 || a.NullN() > 0 {
		return nil, fmt.Errorf("a column of %s with %d nulls is none of times or sequences", a.DataType(), a.NullN())
	}
	return words[int64](a.Data().Buffers()[1].Bytes())[a.Data().Offset():][:a.Len()], nil
}

// Source is a finished history with the features that stand in the given columns.
func (s *Sorter) Source(columns []int) Source { return &sorted{s, append([]int{}, columns...)} }

type sorted struct {
	*Sorter
	columns []int
}

// All returns keys, clocks and features of a part.
func (s *sorted) All(ctx context.Context, part int) (Heads, []arrow.Array, error) {
	rec, err := s.Part(part, nil)
	if err != nil {
		return Heads{}, nil, err
	}
	columns := make([]arrow.Array, len(s.columns))
	for i, c := range s.columns {
		columns[i] = rec.Column(c)
	}
	h, err := HeadsOf(rec, s.c.Keys)
	return h, columns, err
}

// Heads returns keys and clocks of a part.
func (s *sorted) Heads(_ context.Context, part int) (Heads, error) {
	n := s.schema.NumFields()
	var columns []int
	for i := range n {
		if i < s.c.Keys || i >= n-Clocks {
			columns = append(columns, i)
		}
	}
	rec, err := s.Part(part, columns)
	if err != nil {
		return Heads{}, err
	}
	return HeadsOf(rec, s.c.Keys)
}

// Columns returns the features of a part.
func (s *sorted) Columns(_ context.Context, part int) ([]arrow.Array, func(), error) {
	rec, err := s.Part(part, s.columns)
	if err != nil {
		return nil, nil, err
	}
	return rec.Columns(), nil, nil
}

// Close removes what was spilled.
func (s *Sorter) Close() error {
	s.held, s.all = nil, nil
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// takeRecord takes rows of some columns; nil is all columns.
func takeRecord(rec arrow.Record, rows []int32, columns []int) (arrow.Record, error) {
	schema := rec.Schema()
	if columns != nil {
		fields := make([]arrow.Field, len(columns))
		for i, c := range columns {
			fields[i] = schema.Field(c)
		}
		schema = arrow.NewSchema(fields, nil)
	} else {
		for c := range int(rec.NumCols()) {
			columns = append(columns, c)
		}
	}
	out := make([]arrow.Array, len(columns))
	for i, c := range columns {
		a, err := Take(rec.Column(c), rows)
		if err != nil {
			return nil, err
		}
		out[i] = a
	}
	return array.NewRecord(schema, out, int64(len(rows))), nil
}

// concat puts records one after another.
func concat(schema *arrow.Schema, recs []arrow.Record) (arrow.Record, error) {
	if len(recs) == 1 {
		return recs[0], nil
	}
	out := make([]arrow.Array, schema.NumFields())
	rows := int64(0)
	for _, r := range recs {
		rows += r.NumRows()
	}
	if rows > maxRows {
		return nil, fmt.Errorf("a part of the history has %d rows; at most %d", rows, maxRows)
	}
	for c := range out {
		arrs := make([]arrow.Array, len(recs))
		for i, r := range recs {
			arrs[i] = r.Column(c)
		}
		a, err := array.Concatenate(arrs, memory.DefaultAllocator)
		if err != nil {
			return nil, fmt.Errorf("join the pieces of a column: %w", err)
		}
		out[c] = a
	}
	return array.NewRecord(schema, out, rows), nil
}
