package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"waybill"
)

// manifestHeader is the first line of a canonical manifest. Another layout gets another number.
const manifestHeader = "waybill.model/v1\n"

// MaxPathBytes bounds the path of an artifact; MaxArtifacts bounds the files of one version.
const (
	MaxPathBytes = 512
	MaxArtifacts = 10_000
)

// WriteManifest writes the canonical manifest of a version: what the root digest is the SHA-256 of. The layout is
// described in docs/formats/model.md. files may come in any order.
func WriteManifest(w io.Writer, format Format, entrypoint string, files []Artifact) error {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b Artifact) int { return cmp.Compare(a.Path, b.Path) })
	var b strings.Builder
	b.WriteString(manifestHeader)
	b.WriteString("format " + string(format) + "\nentrypoint " + entrypoint + "\n")
	for _, f := range sorted {
		b.WriteString(f.SHA256 + " " + strconv.FormatInt(f.Size, 10) + " " + f.Path + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// RootDigest returns the content id of a version, "sha256:<64 hex digits>".
func RootDigest(format Format, entrypoint string, files []Artifact) (string, error) {
	h := sha256.New()
	if err := WriteManifest(h, format, entrypoint, files); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// CheckPath returns an Invalid error naming field unless p can be the path of an artifact: relative, with single
// slashes, without "." and "..", printable and without a backslash, so that it means the same file in the manifest,
// in an archive and on any disk it is unpacked to.
func CheckPath(field, p string) error {
	var problem string
	switch {
	case p == "":
		problem = "is empty"
	case len(p) > MaxPathBytes:
		return waybill.InvalidField(field, fmt.Sprintf("is %d bytes long; a path has at most %d", len(p), MaxPathBytes))
	case !utf8.ValidString(p):
		problem = "is not UTF-8"
	case strings.HasPrefix(p, "/"):
		problem = "starts with a slash"
	case strings.ContainsFunc(p, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }):
		problem = "has a backslash or a character that cannot be printed"
	case path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../"):
		problem = "has an empty, \".\" or \"..\" part"
	case slices.ContainsFunc(strings.Split(p, "/"), func(part string) bool { return len(part) > 255 }):
		problem = "has a part of more than 255 bytes"
	default:
		return nil
	}
	return waybill.InvalidField(field, strconv.QuoteToGraphic(p)+" "+problem+"; give a relative path such as model.txt or data/model.txt")
}
