package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/transparency-dev/merkle/compact"

	"waybill"
	"waybill/audit/evidence"
)

// Source is where a verifier reads a log from: a file name in, bytes out, NotFound when it is not there.
type Source interface {
	Read(ctx context.Context, path string) ([]byte, error)
}

// DirSource reads a folder in the tlog-tiles layout, such as Export writes.
type DirSource string

// maxFile bounds a file of a log: the largest is an entry bundle of 256 entries of 64 KiB.
const maxFile = 32 << 20

// Read returns one file of at most 32 MiB.
func (d DirSource) Read(_ context.Context, path string) (_ []byte, err error) {
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, waybill.Errorf(waybill.NotFound, "the log lacks the file %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		return nil, waybill.Errorf(waybill.Corrupt, "the file %s has more than %d bytes, which no file of a log has", path, maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read log file: %w", err)
	}
	return b, nil
}

// HTTPSource reads a served log.
type HTTPSource struct {
	Client *http.Client
	URL    string // prefix without a trailing slash
	Token  string // bearer token, or ""
}

// Read returns one file of at most 32 MiB.
func (h HTTPSource) Read(ctx context.Context, path string) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+"/"+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	if h.Token != "" {
		req.Header.Set("Authorization", "Bearer "+h.Token)
	}
	res, err := h.Client.Do(req)
	if err != nil {
		return nil, waybill.Wrap(waybill.Unavailable, err, "the hub at "+h.URL+" does not answer")
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxFile))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read response: %w", err)
	case res.StatusCode == http.StatusNotFound:
		return nil, waybill.Errorf(waybill.NotFound, "the log lacks the file %s", path)
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return nil, waybill.Errorf(waybill.Denied, "the hub refuses to show the log: %s", strings.TrimSpace(string(b)))
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("read %s: status %d", path, res.StatusCode)
	}
	return b, nil
}

// Checkpoint is a checked checkpoint.
type Checkpoint = evidence.Checkpoint

// OpenCheckpoint checks the signature of a checkpoint.
func OpenCheckpoint(verifierKey string, raw []byte) (Checkpoint, error) {
	return evidence.OpenCheckpoint(verifierKey, raw)
}

// Finding is the result of a verification.
type Finding struct {
	OK       bool
	Entries  int64 // entries that were checked
	FirstBad int64 // index of the first bad entry; −1 when OK or when no single entry is to blame
	What     string
}

func bad(checked, index int64, format string, args ...any) Finding {
	return Finding{Entries: checked, FirstBad: index, What: fmt.Sprintf(format, args...)}
}

// Verify reads a whole log: the checkpoint's signature, every entry against its hash, every stored tile against the
// entries and the root against the checkpoint. It returns a finding for a log that is wrong and an error when it
// could not be read. progress is called now and then with the entries done and the size.
func Verify(ctx context.Context, src Source, verifierKey string, progress func(done, size int64)) (Finding, error) {
	raw, err := src.Read(ctx, "checkpoint")
	if err != nil {
		return Finding{}, err
	}
	cp, err := OpenCheckpoint(verifierKey, raw)
	if waybill.CodeOf(err) == waybill.Corrupt {
		return bad(0, -1, "%s", err), nil
	}
	if err != nil {
		return Finding{}, err
	}
	tree := compactFactory().NewEmptyRange(0)
	computed := map[uint][]byte{} // level → hashes of the tile being filled
	var wrong *Finding
	check := func(level uint, index int64, hashes []byte) error {
		width := len(hashes) / 32
		stored, err := src.Read(ctx, tilePath(int(level), index, width))
		if waybill.CodeOf(err) == waybill.NotFound {
			f := bad(int64(tree.End()), -1, "tile %d/%d is missing", level, index)
			wrong = &f
			return nil
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(stored, hashes) { // either was changed: an entry with its tile of level 0, or this tile
			f := bad(int64(tree.End()), -1, "tile %d/%d does not match the entries below it: %s", level, index, differing(level, index, stored, hashes))
			wrong = &f
		}
		return nil
	}
	for index := int64(0); index*tileWidth < cp.Size; index++ {
		width := int(min(tileWidth, cp.Size-index*tileWidth))
		bundle, err := src.Read(ctx, tilePath(-1, index, width))
		if waybill.CodeOf(err) == waybill.NotFound {
			return bad(index*tileWidth, index*tileWidth, "entry %d and its bundle are missing", index*tileWidth), nil
		}
		if err != nil {
			return Finding{}, err
		}
		leaves, err := splitBundle(bundle, width)
		if err != nil {
			return bad(index*tileWidth, index*tileWidth, "entry bundle %d is damaged: %s", index, err), nil
		}
		stored, err := src.Read(ctx, tilePath(0, index, width))
		if waybill.CodeOf(err) == waybill.NotFound || err == nil && len(stored) != width*32 {
			return bad(index*tileWidth, -1, "tile 0/%d is missing or has the wrong length", index), nil
		}
		if err != nil {
			return Finding{}, err
		}
		for i, leaf := range leaves {
			seq := index*tileWidth + int64(i)
			hash := LeafHash(leaf)
			if !bytes.Equal(hash[:], stored[i*32:(i+1)*32]) {
				return bad(seq, seq, "entry %d was changed: its bytes hash to %x, the tree has %x", seq, hash, stored[i*32:(i+1)*32]), nil
			}
			var readErr error
			if err := tree.Append(hash[:], func(id compact.NodeID, h []byte) {
				if id.Level%8 != 0 || readErr != nil || wrong != nil {
					return
				}
				level := id.Level / 8
				computed[level] = append(computed[level], h...)
				if len(computed[level]) == tileWidth*32 {
					if level > 0 {
						readErr = check(level, int64(id.Index/tileWidth), computed[level])
					}
					computed[level] = nil
				}
			}); err != nil {
				return Finding{}, fmt.Errorf("append leaf: %w", err)
			}
			if readErr != nil {
				return Finding{}, readErr
			}
			if wrong != nil {
				return *wrong, nil
			}
		}
		if progress != nil {
			progress(int64(tree.End()), cp.Size)
		}
	}
	for level, hashes := range computed {
		if level > 0 && len(hashes) > 0 {
			if err := check(level, int64(tree.End())>>(8*(level+1)), hashes); err != nil {
				return Finding{}, err
			}
			if wrong != nil {
				return *wrong, nil
			}
		}
	}
	root, err := rootOf(tree)
	if err != nil {
		return Finding{}, err
	}
	if !bytes.Equal(root, cp.Root) {
		return bad(cp.Size, -1, "the entries hash to the root %x, the checkpoint signs %x", root, cp.Root), nil
	}
	return Finding{OK: true, Entries: cp.Size, FirstBad: -1, What: fmt.Sprintf("%d entries, every hash, tile and the signed root agree", cp.Size)}, nil
}

// differing says which entries lie below the first hash of a tile that is not what they hash to.
func differing(level uint, index int64, stored, computed []byte) string {
	if len(stored) != len(computed) {
		return fmt.Sprintf("it has %d bytes, not %d", len(stored), len(computed))
	}
	k := 0
	for bytes.Equal(stored[k*32:(k+1)*32], computed[k*32:(k+1)*32]) {
		k++
	}
	below := int64(1) << (8 * level)
	first := (index*tileWidth + int64(k)) * below
	return fmt.Sprintf("its hash %d, over the entries %d to %d, is another", k, first, first+below-1)
}

// splitBundle cuts an entry bundle into exactly width entries.
func splitBundle(b []byte, width int) ([][]byte, error) {
	out := make([][]byte, 0, width)
	for len(b) > 0 {
		if len(b) < 2 {
			return nil, errors.New("a length is cut off")
		}
		n := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+n {
			return nil, errors.New("an entry is cut off")
		}
		out = append(out, b[2:2+n])
		b = b[2+n:]
	}
	if len(out) != width {
		return nil, fmt.Errorf("it holds %d entries, not %d", len(out), width)
	}
	return out, nil
}

// Export copies the log as signed now into a folder in the tlog-tiles layout, which Verify and other people's
// verifiers read.
func Export(ctx context.Context, src Source, verifierKey, dir string, progress func(done, size int64)) (int64, error) {
	raw, err := src.Read(ctx, "checkpoint")
	if err != nil {
		return 0, err
	}
	cp, err := OpenCheckpoint(verifierKey, raw)
	if err != nil {
		return 0, err
	}
	save := func(path string) error {
		b, err := src.Read(ctx, path)
		if err != nil {
			return err
		}
		return saveFile(dir, path, b)
	}
	for index := int64(0); index*tileWidth < cp.Size; index++ {
		width := int(min(tileWidth, cp.Size-index*tileWidth))
		if err := save(tilePath(-1, index, width)); err != nil {
			return 0, err
		}
		if progress != nil {
			progress(index*tileWidth+int64(width), cp.Size)
		}
	}
	for level, n := 0, cp.Size; n > 0; level, n = level+1, n/tileWidth {
		for index := int64(0); index*tileWidth < n; index++ {
			if err := save(tilePath(level, index, int(min(tileWidth, n-index*tileWidth)))); err != nil {
				return 0, err
			}
		}
	}
	if err := saveFile(dir, "verifier.key", []byte(verifierKey+"\n")); err != nil {
		return 0, err
	}
	return cp.Size, saveFile(dir, "checkpoint", raw) // last: a folder with a checkpoint is whole
}

func saveFile(dir, path string, b []byte) error {
	full := filepath.Join(dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(full, b, 0o644); err != nil {
		return fmt.Errorf("write log file: %w", err)
	}
	return nil
}

// Read makes a Log a Source of itself, for verification on the hub.
func (l *Log) Read(ctx context.Context, path string) ([]byte, error) {
	if path == "checkpoint" {
		text, _, _, _, err := l.Checkpoint(ctx)
		return []byte(text), err
	}
	level, index, width, err := parseTilePath(strings.TrimPrefix(path, "tile/"))
	if err != nil {
		return nil, err
	}
	if level < 0 {
		return l.Bundle(ctx, index, width)
	}
	return l.Tile(ctx, level, index, width)
}
