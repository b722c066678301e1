package evidence

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"waybill"
)

// MaxProof bounds a proof file in bytes. A checkpoint with sixteen post-quantum signatures has a tenth of it.
const MaxProof = 1 << 20

// proofHeader is the first line of a proof file.
const proofHeader = "c2sp.org/tlog-proof@v1"

// Proof is the content of a .tlog-proof file (c2sp.org/tlog-proof): where an entry is in the tree that a checkpoint
// signs. The entry itself is not part of it.
type Proof struct {
	Extra      []byte   // the application's own; not authenticated. Nil for none; this project writes none
	Index      int64    // of the entry, from 0
	Path       [][]byte // sibling hashes of 32 bytes, leaf upwards (RFC 6962, section 2.1.1)
	Checkpoint string   // a signed note, as it was given out
}

// String writes the proof as a file.
func (p Proof) String() string {
	var b strings.Builder
	b.WriteString(proofHeader + "\n")
	if p.Extra != nil {
		b.WriteString("extra " + base64.StdEncoding.EncodeToString(p.Extra) + "\n")
	}
	b.WriteString("index " + strconv.FormatInt(p.Index, 10) + "\n")
	for _, h := range p.Path {
		b.WriteString(base64.StdEncoding.EncodeToString(h) + "\n")
	}
	return b.String() + "\n" + p.Checkpoint
}

// ParseProof reads a proof file. It accepts what String writes and nothing else: no other line ends, no leading zeros, no
// other base64. Nothing is verified yet. Errors: TooLarge, Invalid.
func ParseProof(raw []byte) (Proof, error) {
	if len(raw) > MaxProof {
		return Proof{}, waybill.Errorf(waybill.TooLarge, "a proof of %d bytes; at most %d", len(raw), MaxProof)
	}
	p, err := parseProof(string(raw))
	if err == nil && p.String() != string(raw) {
		err = fmt.Errorf("it is spelled in another way than the format has")
	}
	if err != nil {
		return Proof{}, waybill.Wrap(waybill.Invalid, err, "this is no proof in the format "+proofHeader)
	}
	return p, nil
}

func parseProof(text string) (Proof, error) {
	var p Proof
	head, checkpoint, found := strings.Cut(text, "\n\n")
	if !found || checkpoint == "" {
		return p, fmt.Errorf("no empty line stands before a checkpoint")
	}
	p.Checkpoint = checkpoint
	lines := strings.Split(head, "\n")
	if lines[0] != proofHeader {
		return p, fmt.Errorf("its first line is %.40q", lines[0])
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		extra, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[0], "extra "))
		if err != nil {
			return p, fmt.Errorf("its extra data: %w", err)
		}
		if p.Extra = extra; extra == nil {
			p.Extra = []byte{}
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return p, fmt.Errorf("it has no index")
	}
	index, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "index "), 10, 63)
	if err != nil {
		return p, fmt.Errorf("its index %.40q is no number of an entry", lines[0])
	}
	p.Index = int64(index)
	if len(lines)-1 > maxPath {
		return p, fmt.Errorf("it has %d hashes", len(lines)-1)
	}
	for _, l := range lines[1:] {
		h, err := decodeHash(l)
		if err != nil {
			return p, err
		}
		p.Path = append(p.Path, h)
	}
	return p, nil
}

// Verify checks offline that a leaf, byte for byte, is the entry of the log that the key has signed for, and returns the
// checkpoint that says so. Errors: Invalid when the key is none, Corrupt.
func (p Proof) Verify(verifierKey string, leaf []byte) (Checkpoint, error) {
	c, err := OpenCheckpoint(verifierKey, []byte(p.Checkpoint))
	if err != nil {
		return Checkpoint{}, err
	}
	return c, CheckInclusion(c, p.Index, LeafHash(leaf), p.Path)
}
