package featurestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
)

// The Parquet library believes what a page says of itself: it makes room for as many values of a dictionary as the largest
// index asks for, which may be 2^31, and for as many lengths or deltas as a head claims. So every page is looked at here,
// between its decompression and its decoding: what the library then allocates is a small multiple of the page or of the
// values that its chunk has. Sources of the layouts: apache/parquet-format README.md, Data Pages; Encodings.md, Dictionary
// Encoding, Run Length Encoding / Bit-Packing Hybrid, Delta Encoding, Delta-length byte array, Delta Strings.

const (
	maxUnused     = 1 << 20  // values of a dictionary that has more of them than its column
	maxDeltaBlock = 64 << 10 // values of a block of deltas; writers use some hundred
	freeIndex     = 1 << 10  // an index below that costs too little to be looked at
	maxBatchText  = 64 << 20 // bytes of the values that are decoded at once
)

var errPage = errors.New("is damaged: a page says more than it holds")

// checkedPages are the pages of a column chunk that hold what they say. The library asks it for one after another.
type checkedPages struct {
	file.PageReader
	physical       parquet.Type
	width          int   // bytes of a value of fixed length
	maxRep, maxDef int16 // the largest levels
	values, left   int64 // of the chunk, as the footer says: all, and those of pages to come
	read           int64 // values that were decoded; counted by whoever decodes
	dictionary     int64 // how many values it has; −1 before it came
	batch          int   // how many values of the present page may be decoded at once
	err            error
}

// openChunk opens a column of a row group.
func openChunk(f *file.Reader, mem memory.Allocator, group, column int) (file.ColumnChunkReader, *checkedPages, error) {
	head, err := f.MetaData().RowGroup(group).ColumnChunk(column)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot be read: %w", err)
	}
	pages, err := f.RowGroup(group).GetColumnPageReader(column)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot be read: %w", err)
	}
	col := f.MetaData().Schema.Column(column)
	p := &checkedPages{PageReader: pages, physical: col.PhysicalType(), width: col.TypeLength(), maxRep: col.MaxRepetitionLevel(), maxDef: col.MaxDefinitionLevel(),
		values: head.NumValues(), left: head.NumValues(), dictionary: -1, batch: readBatch}
	return file.NewColumnReader(col, p, mem, &sync.Pool{New: func() any { return memory.NewResizableBuffer(mem) }}), p, nil
}

// most is how many values of a chunk may be decoded at once. They are of one page.
func (p *checkedPages) most(chunk file.ColumnChunkReader) int {
	if p.values-p.left == p.read && !chunk.HasNext() {
		return 0
	}
	return int(min(p.values-p.left-p.read, int64(p.batch)))
}

// Next goes on to the next page, and stops before one that lies.
func (p *checkedPages) Next() bool {
	if p.err != nil || !p.PageReader.Next() {
		return false
	}
	if !p.sound(p.Page()) {
		p.err = errPage
	}
	return p.err == nil
}

// Err says why there is no next page; nil at the end of the chunk.
func (p *checkedPages) Err() error {
	if p.err != nil {
		return p.err
	}
	return p.PageReader.Err()
}

func (p *checkedPages) sound(page file.Page) bool {
	n, data := int64(page.NumValues()), page.Data()
	if d, ok := page.(*file.DictionaryPage); ok {
		p.dictionary = n
		return n >= 0 && n <= int64(len(d.Data()))/p.least() && n <= max(p.values, maxUnused)
	}
	if n < 0 || n > p.left {
		return false
	}
	p.left -= n
	t := thrift{b: data}
	switch page := page.(type) {
	case *file.DataPageV1:
		t.levels(page.RepetitionLevelEncoding(), p.maxRep, n)
		t.levels(page.DefinitionLevelEncoding(), p.maxDef, n)
	case *file.DataPageV2:
		t.take(uint64(page.RepetitionLevelByteLen()))
		t.take(uint64(page.DefinitionLevelByteLen()))
	default:
		return false
	}
	p.batch = readBatch
	switch parquet.Encoding(page.Encoding()) {
	case parquet.Encodings.RLEDict, parquet.Encodings.PlainDict:
		return !t.bad && soundIndices(t.b, p.dictionary)
	case parquet.Encodings.DeltaBinaryPacked, parquet.Encodings.DeltaLengthByteArray:
		t.deltas(uint64(n))
	case parquet.Encodings.DeltaByteArray:
		t.deltas(uint64(n))                                          // lengths of what is shared with the value before it
		t.deltas(uint64(n))                                          // lengths of the rest
		p.batch = max(1, min(readBatch, maxBatchText/(len(data)+1))) // each value may have nearly all bytes of the page
	default:
	}
	return !t.bad
}

// least is how many bytes a value in a dictionary has at least.
func (p *checkedPages) least() int64 {
	switch p.physical {
	case parquet.Types.Int64, parquet.Types.Double:
		return 8
	case parquet.Types.Int96:
		return 12
	case parquet.Types.FixedLenByteArray:
		return int64(max(1, p.width))
	default: // four bytes, or a length of four
		return 4
	}
}

// levels skips the levels of a page of the first kind.
func (t *thrift) levels(e parquet.Encoding, most int16, n int64) {
	if most == 0 {
		return
	}
	if e == parquet.Encodings.BitPacked {
		t.take(uint64(n*int64(bits.Len16(uint16(most)))+7) / 8)
		return
	}
	size := t.take(4)
	if len(size) == 4 {
		t.take(uint64(binary.LittleEndian.Uint32(size)))
	}
}

// soundIndices says whether the indices of a page ask for no more than a few times the values of their dictionary. Whether
// each is one of these, the library finds out by itself. Nearly all writers give indices as few bits as the dictionary
// needs; only those of the others have to be read.
func soundIndices(page []byte, dictionary int64) bool {
	if dictionary < 0 {
		return false
	}
	if len(page) == 0 {
		return true
	}
	width, most := uint(page[0]), uint64(max(4*dictionary, freeIndex))
	if width > 32 {
		return false
	}
	if uint64(1)<<width <= most {
		return true
	}
	t := thrift{b: page[1:]}
	for len(t.b) > 0 {
		head := t.varint()
		if head&1 == 0 { // a run: how often, and the value in as few whole bytes as it needs
			v := uint64(0)
			for i, b := range t.take(uint64(width+7) / 8) {
				v |= uint64(b) << (8 * i)
			}
			if t.bad || v > most {
				return false
			}
			continue
		}
		raw := t.take(min(head>>1, uint64(len(t.b))) * uint64(width) /* of 8 values each */)
		if t.bad { // the last ones may be cut
			t.bad = false
			raw, t.b = t.b, nil
		}
		have, waiting := uint(0), uint64(0)
		for _, b := range raw {
			waiting |= uint64(b) << have
			for have += 8; have >= width; have -= width {
				if waiting&(1<<width-1) > most {
					return false
				}
				waiting >>= width
			}
		}
	}
	return !t.bad
}

// deltas skips a sequence of at most n numbers that are coded by their differences.
func (t *thrift) deltas(n uint64) {
	block, minis, total := t.varint(), t.varint(), t.varint()
	t.zigzag() // the first number
	if t.bad || block > maxDeltaBlock || minis == 0 || block%minis != 0 || block/minis == 0 || block/minis%8 != 0 || total > n {
		t.bad = true
		return
	}
	per := block / minis
	for left := int64(total) - 1; left > 0 && !t.bad; {
		t.zigzag() // the least difference
		for _, width := range t.take(minis) {
			if left <= 0 {
				break
			}
			if width > 64 {
				t.bad = true
				return
			}
			t.take(per / 8 * uint64(width))
			left -= int64(per)
		}
	}
}

// soundFooter says whether the metadata of a Parquet file has the elements that its lists claim: the library makes room for
// them first. Source of the layout: apache/parquet-format README.md, File format.
func soundFooter(data []byte) bool {
	if len(data) < 12 {
		return false
	}
	n := uint64(binary.LittleEndian.Uint32(data[len(data)-8:]))
	if n > uint64(len(data)-12) {
		return false
	}
	t := thrift{b: data[uint64(len(data)-8)-n : len(data)-8]}
	t.skip(12, 0)
	return !t.bad
}
