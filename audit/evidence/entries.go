package evidence

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"waybill"
)

// CheckEntries reads the entries of a log, one after the other as entry bundles have them (each behind its length as two
// bytes, big endian), and checks that they, all of them and nothing else, are the tree that the checkpoint signs. It needs no
// tiles and memory for one entry. What it cannot say, because nothing but the root is known, is which entry differs; a proof
// of each or the tiles can. progress is called now and then, and may be nil. Errors: Corrupt; what r returns.
func CheckEntries(r io.Reader, c Checkpoint, progress func(done, size int64)) error {
	in := bufio.NewReaderSize(r, 1<<16)
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	var length [2]byte
	var leaf [1 << 16]byte
	for n := int64(0); ; n++ {
		_, err := io.ReadFull(in, length[:])
		if errors.Is(err, io.EOF) && n == c.Size {
			break
		}
		size := int(binary.BigEndian.Uint16(length[:]))
		if err == nil && n < c.Size {
			_, err = io.ReadFull(in, leaf[:size])
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return waybill.Errorf(waybill.Corrupt, "entry %d: it is missing or cut off; the checkpoint signs %d entries", n, c.Size)
		case err != nil:
			return fmt.Errorf("read entry %d: %w", n, err)
		case n == c.Size:
			return waybill.Errorf(waybill.Corrupt, "entry %d: the checkpoint signs %d entries, and there are more", n, c.Size)
		}
		hash := LeafHash(leaf[:size])
		if err := tree.Append(hash[:], nil); err != nil {
			return fmt.Errorf("append entry %d: %w", n, err)
		}
		if progress != nil && n%4096 == 0 {
			progress(n, c.Size)
		}
	}
	root := rfc6962.DefaultHasher.EmptyRoot()
	if c.Size > 0 {
		var err error
		if root, err = tree.GetRootHash(nil); err != nil {
			return fmt.Errorf("compute root: %w", err)
		}
	}
	if !bytes.Equal(root, c.Root) {
		return waybill.Errorf(waybill.Corrupt, "the %d entries hash to the root %x, the checkpoint signs %x: an entry was changed", c.Size, root, c.Root)
	}
	return nil
}
