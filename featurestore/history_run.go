package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/metadata"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"waybill"
	"waybill/featurestore/asof"
	"waybill/internal/bucket"
)

// A run is an ordinary Parquet file: join keys, features, event_time, knowledge_time (timestamps in µs, UTC) and
// _sequence (int64, the commit), sorted by (hash of the key, key, event_time, knowledge_time, _sequence), rows of one
// commit that tie in its order. The hash is asof.Hash. The rows are cut into 2^bits parts by the leading bits of the hash; a
// row group is one part that has rows, so that parts are read on their own. Columns without a null are required and have
// no definition levels, and numbers are plain and not compressed: they are read as they lie. Text is compressed, and
// clocks that a commit's rows share, and keys of several rows, cost next to nothing as dictionaries.
//
// Beside it lies an index: JSON of runIndex. The manifest has the index' SHA-256 and the index that of every column
// chunk: any part of a run can be read and verified on its own.

// Names of columns that no view can have.
const (
	eventColumn     = "event_time"
	knowledgeColumn = "knowledge_time"
	sequenceColumn  = "_sequence"
)

// historyPrefix is where runs lie in the bucket: <id>.parquet and <id>.index.
const historyPrefix = "featurestore/history"

// runFormat is the format of a run and its index.
const runFormat = 1

// maxIndexBytes bounds an index that is read: some 100 bytes for each column of each part.
const maxIndexBytes = 64 << 20

// runIndex says how a run is laid out.
type runIndex struct {
	Format int       `json:"format"`
	Bits   int       `json:"bits"`   // leading bits of the hash by which the rows are cut
	Parts  []int     `json:"parts"`  // of each row group, ascending
	Footer []byte    `json:"footer"` // the Parquet file's metadata
	Chunks [][]chunk `json:"chunks"` // of each row group, in the order of the columns
}

// chunk is a column of a row group: bytes of the file and their SHA-256.
type chunk struct {
	Offset int64  `json:"o"`
	Size   int64  `json:"n"`
	SHA256 []byte `json:"h"`
}

// historySchema is the schema of a view's history. nulls says of each column whether it has any; nil is all features.
func historySchema(v *View, nulls []bool) *arrow.Schema {
	var fields []arrow.Field
	for _, k := range v.Entity.Keys {
		fields = append(fields, arrow.Field{Name: k.Name, Type: arrowType(k.Type)})
	}
	for _, f := range v.Features {
		fields = append(fields, arrow.Field{Name: f.Name, Type: arrowType(f.Type), Nullable: nulls == nil || nulls[len(fields)]})
	}
	return arrow.NewSchema(append(fields, arrow.Field{Name: eventColumn, Type: arrowType(Timestamp)}, arrow.Field{Name: knowledgeColumn, Type: arrowType(Timestamp)},
		arrow.Field{Name: sequenceColumn, Type: arrow.PrimitiveTypes.Int64}), nil)
}

// runFile is a run on this machine's disk.
type runFile struct {
	name               string
	index              []byte
	rows, size         int64
	minEvent, maxEvent int64 // µs
	digest             [32]byte
}

// writeRun writes a run to a file in dir: part returns the sorted rows of each of the 2^bits parts. After an error no
// file is left.
func writeRun(ctx context.Context, dir string, schema *arrow.Schema, keys, bits int, part func(asof.Part, int) (arrow.Record, error)) (_ *runFile, err error) {
	boundCodecs()
	f, err := os.CreateTemp(dir, "waybill-run-")
	if err != nil {
		return nil, fmt.Errorf("make a file for a run: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	var w *pqarrow.FileWriter
	out := &runFile{name: f.Name()}
	index := runIndex{Format: runFormat, Bits: bits}
	for i := range 1 << bits {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, err := part(asof.PartOf(bits, i), i)
		if err != nil {
			return nil, err
		}
		if rec == nil || rec.NumRows() == 0 {
			continue
		}
		h, err := asof.HeadsOf(rec, keys)
		if err != nil {
			return nil, err
		}
		lo, hi := slices.Min(h.Event), slices.Max(h.Event)
		if w == nil { // the first part is like the others: keys are spread over them by their hashes
			props, err := runProperties(schema, keys, rec)
			if err != nil {
				return nil, err
			}
			w, err = pqarrow.NewFileWriter(schema, io.Writer(onlyWriter{f}), props, pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator), pqarrow.WithStoreSchema()))
			if err != nil {
				return nil, fmt.Errorf("open run writer: %w", err)
			}
			out.minEvent, out.maxEvent = lo, hi
		}
		out.minEvent, out.maxEvent = min(out.minEvent, lo), max(out.maxEvent, hi)
		out.rows += rec.NumRows()
		index.Parts = append(index.Parts, i)
		w.NewRowGroup()
		for _, a := range rec.Columns() {
			if err := w.WriteColumnData(a); err != nil {
				return nil, fmt.Errorf("write run: %w", err)
			}
		}
	}
	if w == nil {
		return nil, errors.New("a run without rows")
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close run: %w", err)
	}
	return out, out.measure(f, &index)
}

// onlyWriter hides Close: the Parquet writer would close the file, which is read again.
type onlyWriter struct{ io.Writer }

// rowsPerKey is from how many rows of a key on, on average, keys are coded as a dictionary: a key is then mostly one run in
// place of a number for each row.
const rowsPerKey = 4

// runProperties say how each column is encoded, judging by some of the run's rows.
func runProperties(schema *arrow.Schema, keys int, some arrow.Record) (*parquet.WriterProperties, error) {
	props := []parquet.WriterProperty{parquet.WithCreatedBy(writerVersion), parquet.WithVersion(parquet.V2_LATEST), parquet.WithDictionaryDefault(false),
		parquet.WithDataPageSize(64 << 20), parquet.WithDictionaryFor(knowledgeColumn, true), parquet.WithDictionaryFor(sequenceColumn, true)}
	hashes, err := asof.Hash(some.Columns()[:keys], int(some.NumRows()))
	if err != nil {
		return nil, err
	}
	repeated := len(slices.Compact(hashes))*rowsPerKey <= int(some.NumRows())
	for i, f := range schema.Fields() {
		switch t := f.Type.(type) {
		case *arrow.StringType, *arrow.BinaryType:
			props = append(props, parquet.WithCompressionFor(f.Name, compress.Codecs.Zstd), parquet.WithDictionaryFor(f.Name, true))
		case arrow.FixedWidthDataType:
			if i < keys && repeated && t.BitWidth() == 64 { // the others are small, and read as they lie
				props = append(props, parquet.WithDictionaryFor(f.Name, true))
			}
		}
	}
	return parquet.NewWriterProperties(props...), nil
}

// measure reads the file once more for its digests and makes the index.
func (r *runFile) measure(f *os.File, index *runIndex) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("measure run: %w", err)
	}
	r.size = info.Size()
	var tail [8]byte // length of the metadata and PAR1
	if _, err := f.ReadAt(tail[:], r.size-8); err != nil {
		return fmt.Errorf("measure run: %w", err)
	}
	long := int64(tail[0]) | int64(tail[1])<<8 | int64(tail[2])<<16 | int64(tail[3])<<24
	index.Footer = make([]byte, long)
	if _, err := f.ReadAt(index.Footer, r.size-8-long); err != nil {
		return fmt.Errorf("measure run: %w", err)
	}
	md, err := metadata.NewFileMetaData(bytes.Clone(index.Footer), nil)
	if err != nil {
		return fmt.Errorf("measure run: %w", err)
	}
	if len(md.RowGroups) != len(index.Parts) {
		return fmt.Errorf("measure run: %d row groups for %d parts", len(md.RowGroups), len(index.Parts))
	}
	for g := range len(md.RowGroups) {
		rg := md.RowGroup(g)
		var chunks []chunk
		for c := range rg.NumColumns() {
			m, err := rg.ColumnChunk(c)
			if err != nil {
				return fmt.Errorf("measure run: %w", err)
			}
			k := chunk{Offset: m.DataPageOffset(), Size: m.TotalCompressedSize()}
			if d := m.DictionaryPageOffset(); m.HasDictionaryPage() && d > 0 {
				k.Offset = min(k.Offset, d)
			}
			h := sha256.New()
			if _, err := io.Copy(h, io.NewSectionReader(f, k.Offset, k.Size)); err != nil {
				return fmt.Errorf("measure run: %w", err)
			}
			k.SHA256 = h.Sum(nil)
			chunks = append(chunks, k)
		}
		index.Chunks = append(index.Chunks, chunks)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, r.size)); err != nil {
		return fmt.Errorf("measure run: %w", err)
	}
	r.digest = [32]byte(h.Sum(nil))
	if r.index, err = json.Marshal(index); err != nil {
		return fmt.Errorf("marshal run index: %w", err)
	}
	return nil
}

// run is a run in the bucket that can be read. It is safe for concurrent use.
type run struct {
	bucket *bucket.Bucket
	key    string // of the Parquet file
	index  runIndex
	meta   *metadata.FileMetaData
	keys   int
	schema *arrow.Schema
	free   buffers
}

// openRun reads a run's index and holds it against what the manifest says and what the view's history looks like.
func openRun(ctx context.Context, b *bucket.Bucket, m *manifestRun, v *View) (*run, error) {
	key := historyPrefix + "/" + m.ID.String()
	digest, err := digestOf(m.IndexDigest)
	if err != nil {
		return nil, err
	}
	data, err := b.GetVerified(ctx, key+".index", digest, maxIndexBytes)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the object "+key+".index is gone from the bucket; restore it")
	}
	if err != nil {
		return nil, fmt.Errorf("read run index: %w", err)
	}
	r := &run{bucket: b, key: key + ".parquet", keys: len(v.Entity.Keys)}
	wrong := func(err error) error { return waybill.Wrap(waybill.Corrupt, err, "the history "+key+" cannot be read") }
	if err := json.Unmarshal(data, &r.index); err != nil {
		return nil, wrong(err)
	}
	if r.index.Format != runFormat {
		return nil, wrong(fmt.Errorf("its format is %d", r.index.Format))
	}
	if r.meta, err = metadata.NewFileMetaData(bytes.Clone(r.index.Footer), nil); err != nil {
		return nil, wrong(err)
	}
	f, err := r.reader(&fetched{})
	if err != nil {
		return nil, wrong(err)
	}
	has, err := f.Schema()
	if err != nil {
		return nil, wrong(err)
	}
	want := historySchema(v, nil)
	if has.NumFields() != want.NumFields() || len(r.meta.RowGroups) != len(r.index.Parts) || len(r.index.Chunks) != len(r.index.Parts) || r.meta.NumRows != m.Rows {
		return nil, wrong(errors.New("it does not fit to its index or manifest"))
	}
	nulls := make([]bool, want.NumFields())
	for i, f := range want.Fields() {
		g := has.Field(i)
		if g.Name != f.Name || g.Type.ID() != f.Type.ID() {
			return nil, wrong(fmt.Errorf("column %d is %s, not %s", i, g, f))
		}
		nulls[i] = g.Nullable
	}
	r.schema = historySchema(v, nulls)
	return r, nil
}
