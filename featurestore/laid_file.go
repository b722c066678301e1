package featurestore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// laidFile is the file of a commit while it is written and until the commit is in the log: its bytes, and the rows that were
// laid out, so that this hub need not decode what it has just encoded, unless they are too many. The bytes lie in blocks:
// one slice that grows would be cleared and copied again and again.
type laidFile struct {
	records []arrow.Record // in the schema of the file; none when they have more than most bytes
	laid    uint64         // bytes of all rows
	most    uint64
	rows    measured // of those that are no longer in records
	blocks  [][]byte // each of blockSize bytes but the last
	size    int64
	sum     [sha256.Size]byte // SHA-256 of the bytes, when the file is whole

	hash   hash.Hash
	hashes inTurn // of blocks that are full, beside the writing
}

const (
	blockSize = 4 << 20 // bytes of a block
	// maxLaid is how many bytes of rows stay in memory beside the file: a small file can say a lot.
	maxLaid = MaxFileBytes
)

func newLaidFile() *laidFile {
	return &laidFile{hash: sha256.New(), rows: newMeasured(), most: maxLaid}
}

// keep keeps rows of a file of v, in their order.
func (f *laidFile) keep(v *View, rec arrow.Record) error {
	for _, a := range rec.Columns() {
		f.laid += a.Data().SizeInBytes()
	}
	f.records = append(f.records, rec)
	if f.laid <= f.most {
		return nil
	}
	some := f.records
	f.records = nil
	return f.rows.add(v, some)
}

// Write takes the next bytes of the file.
func (f *laidFile) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		last := len(f.blocks) - 1
		if last < 0 || len(f.blocks[last]) == blockSize {
			var b []byte // the first one grows: most files that are small are very small
			if last >= 0 {
				b = make([]byte, 0, blockSize)
			}
			f.blocks, last = append(f.blocks, b), last+1
		}
		b := f.blocks[last]
		some := min(len(p), blockSize-len(b))
		b, p = append(b, p[:some]...), p[some:]
		if f.blocks[last] = b; len(b) == blockSize {
			f.hashes.do(func() error {
				f.hash.Write(b)
				return nil
			})
		}
	}
	f.size += int64(n)
	return n, nil
}

// end makes the file whole.
func (f *laidFile) end() error {
	if err := f.hashes.wait(); err != nil {
		return err
	}
	if rest := f.size % blockSize; rest > 0 {
		f.hash.Write(f.blocks[len(f.blocks)-1])
	}
	f.sum = [sha256.Size]byte(f.hash.Sum(nil))
	return nil
}

// ReadAt reads what was written.
func (f *laidFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at >= f.size {
			return n, io.EOF
		}
		n += copy(p[n:], f.blocks[at/blockSize][at%blockSize:])
	}
	return n, nil
}

// measure finds the first and the last event (µs) of the rows, and digests them as contentDigest does. It does so once.
func (f *laidFile) measure(v *View) (content string, first, last int64, err error) {
	if err := f.rows.add(v, f.records); err != nil {
		return "", 0, 0, err
	}
	return "sha256:" + hex.EncodeToString(f.rows.sum.Sum(nil)), f.rows.first, f.rows.last, nil
}

// measured is what measure has found so far.
type measured struct {
	sum         hash.Hash
	first, last int64 // µs
}

func newMeasured() measured { return measured{sha256.New(), math.MaxInt64, math.MinInt64} }

func (m *measured) add(v *View, recs []arrow.Record) error {
	var b []byte
	for _, rec := range recs {
		events, ok := rec.Column(int(rec.NumCols()) - 1).(*array.Timestamp)
		if !ok {
			return fmt.Errorf("event times are %s", rec.Column(int(rec.NumCols())-1).DataType())
		}
		cols := make([]appender, rec.NumCols()-1)
		for i, c := range commitColumns(v)[:len(cols)] {
			cols[i] = appenderOf(c.Type, rec.Column(i))
			if at, a := cols[i], rec.Column(i); i >= len(v.Entity.Keys) && a.NullN() > 0 {
				cols[i] = func(b []byte, i int) []byte {
					if a.IsNull(i) {
						return append(b, 'n')
					}
					return at(b, i)
				}
			}
		}
		for i, event := range events.TimestampValues() {
			m.first, m.last = min(m.first, int64(event)), max(m.last, int64(event))
			b = binary.BigEndian.AppendUint64(b, uint64(event))
			for _, c := range cols {
				b = c(b, i)
			}
			if len(b) >= 64<<10 {
				m.sum.Write(b)
				b = b[:0]
			}
		}
	}
	m.sum.Write(b)
	return nil
}

// bytes copies the file into one slice.
func (f *laidFile) bytes() []byte {
	out := make([]byte, 0, f.size)
	for _, b := range f.blocks {
		out = append(out, b...)
	}
	return out
}
