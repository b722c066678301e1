package evidence

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"waybill"
)

// Checkpoint is a tree head whose signature was checked.
type Checkpoint struct {
	Origin string // name of the log, which is the name of its key
	Size   int64  // number of entries
	Root   []byte // 32 bytes, RFC 6962
}

// LeafHash is RFC 6962's: SHA-256 of 0x00 and the leaf.
func LeafHash(leaf []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(leaf)
	return [32]byte(h.Sum(nil))
}

// OpenCheckpoint checks that a signed note is a checkpoint of the log whose key is given (c2sp.org/signed-note) and reads
// it (c2sp.org/tlog-checkpoint). Signatures of other keys, such as those of witnesses, are left alone, and so are
// extension lines. Errors: Invalid when the key is none, Corrupt for everything about the note.
func OpenCheckpoint(verifierKey string, raw []byte) (Checkpoint, error) {
	text, name, err := openNote(verifierKey, raw, "the checkpoint")
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := parseCheckpoint(text)
	if err == nil && c.Origin != name {
		err = fmt.Errorf("it is one of the log %.200q", c.Origin)
	}
	if err != nil {
		return Checkpoint{}, waybill.Wrap(waybill.Corrupt, err, "the checkpoint is signed by "+name+" but is none of its log")
	}
	return c, nil
}

// openNote returns the text of a note that the key has signed, and the key's name.
func openNote(verifierKey string, raw []byte, what string) (text, name string, err error) {
	v, err := note.NewVerifier(strings.TrimSpace(verifierKey))
	if err != nil {
		return "", "", waybill.InvalidField("verifier_key", "is no verifier key in note format; it looks like waybill.example.com/log/1+1a2b3c4d+AbCd…")
	}
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		return "", "", waybill.Wrap(waybill.Corrupt, err, what+" is not signed by "+v.Name())
	}
	return n.Text, v.Name(), nil
}

// parseCheckpoint reads the text of a checkpoint: origin, size, root, then extension lines, none of them empty.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return Checkpoint{}, fmt.Errorf("it has %d lines; origin, size and root are three", strings.Count(text, "\n"))
	}
	for _, l := range lines[:len(lines)-1] {
		if l == "" {
			return Checkpoint{}, fmt.Errorf("one of its lines is empty")
		}
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("its size %.40q is no number", lines[1])
	}
	root, err := decodeHash(lines[2])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("its root: %w", err)
	}
	if empty := sha256.Sum256(nil); size == 0 && [32]byte(root) != empty {
		return Checkpoint{}, fmt.Errorf("its root is not that of an empty tree")
	}
	return Checkpoint{Origin: lines[0], Size: int64(size), Root: root}, nil
}

// decodeHash reads the one base64 spelling of 32 bytes.
func decodeHash(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != sha256.Size || base64.StdEncoding.EncodeToString(b) != s { // the decoder skips line breaks
		return nil, fmt.Errorf("%.60q is no SHA-256 in base64", s)
	}
	return b, nil
}

// CheckInclusion checks that the path (sibling hashes, leaf upwards) leads from the leaf hash at index to the root.
// Errors: Corrupt.
func CheckInclusion(c Checkpoint, index int64, leafHash [32]byte, path [][]byte) error {
	if index < 0 || index >= c.Size {
		return waybill.Errorf(waybill.Corrupt, "entry %d is not among the %d that the checkpoint signs", index, c.Size)
	}
	err := checkPath(path)
	if err == nil {
		err = proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), uint64(c.Size), leafHash[:], path, c.Root)
	}
	if err != nil {
		return waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("entry %d is not in the log as signed", index))
	}
	return nil
}

// CheckConsistency checks that the newer tree begins with the older one, by the proof of RFC 6962, section 2.1.2: that
// the log only grew between two checkpoints. Two checkpoints over the same tree need no proof. The older tree must not be
// empty, because every tree begins with that one and nothing would be proven. Errors: Invalid when the trees are in the
// wrong order or the older one is empty, Corrupt when the newer one does not begin with it.
func CheckConsistency(older, newer Checkpoint, path [][]byte) error {
	switch {
	case older.Origin != newer.Origin:
		return waybill.Errorf(waybill.Invalid, "the checkpoints are of two logs, %.200q and %.200q", older.Origin, newer.Origin)
	case older.Size < 1:
		return waybill.InvalidField("older", "is a checkpoint over an empty tree, with which every tree begins; give a later one")
	case older.Size > newer.Size:
		return waybill.InvalidField("older", fmt.Sprintf("has %d entries and the newer one %d; exchange them", older.Size, newer.Size))
	}
	err := checkPath(path)
	if err == nil {
		err = proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(older.Size), uint64(newer.Size), path, older.Root, newer.Root)
	}
	if err != nil {
		return waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("the tree of %d entries does not begin with the tree of %d: the log was changed, or these are two logs", newer.Size, older.Size))
	}
	return nil
}

// maxPath bounds the hashes of a proof: a consistency proof has at most two a level.
const maxPath = 128

// checkPath refuses hashes that are none: those of another length would be hashed as if they were two.
func checkPath(path [][]byte) error {
	if len(path) > maxPath {
		return fmt.Errorf("a proof of %d hashes: no tree of %d entries needs more than %d", len(path), int64(math.MaxInt64), maxPath)
	}
	for i, h := range path {
		if len(h) != sha256.Size {
			return fmt.Errorf("hash %d of the proof has %d bytes", i, len(h))
		}
	}
	return nil
}
