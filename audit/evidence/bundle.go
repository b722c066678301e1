package evidence

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill"
)

// Bounds of a bundle.
const (
	MaxBundle  = 64 << 20 // bytes of all members together, and of the file
	MaxEntries = 512      // of the log, in one bundle
	maxMembers = 2048
)

// Members of a bundle that are not of an entry.
const (
	ManifestFile   = "MANIFEST"     // signed note: the SHA-256 of every other member
	IndexFile      = "bundle.json"  // what is in it, an Index
	CheckpointFile = "checkpoint"   // signed note
	KeyFile        = "verifier.key" // of the log, and a line end
	PayloadFile    = "payload.json" // the decision's record, where the reader may see it
	ReportFile     = "report.html"  // for people
)

// LeafFile, ProofFile and TextFile name the members of the entry at index. A text is what the leaf holds the digest of.
func LeafFile(index int64) string { return "leaves/" + strconv.FormatInt(index, 10) + ".json" }

// ProofFile is the member with the .tlog-proof of an entry.
func ProofFile(index int64) string {
	return "leaves/" + strconv.FormatInt(index, 10) + ".tlog-proof"
}

// TextFile is the member with the free text, such as the reason of an approval, whose digest a leaf holds.
func TextFile(index int64) string { return "leaves/" + strconv.FormatInt(index, 10) + ".txt" }

// Index is the member bundle.json: which entries are there and what each is to the decision.
type Index struct {
	V              int       `json:"v"` // 1
	T              string    `json:"t"` // "evidence"
	Origin         string    `json:"origin"`
	Tenant         string    `json:"tenant"`
	Decision       string    `json:"decision"`
	Size           int64     `json:"size"`            // entries that the checkpoint signs
	PayloadMissing string    `json:"payload_missing"` // why there is no payload, or ""
	Entries        []Entry   `json:"entries"`         // the decision first
	Missing        []Missing `json:"missing"`         // what the decision points to and the bundle lacks
}

// Entry is one entry of the log.
type Entry struct {
	Role    Role   `json:"role"`
	Subject string `json:"subject"` // as the leaf has it, e.g. "model:late-risk@v1"
	Index   int64  `json:"index"`
	Text    bool   `json:"text"` // the text whose digest the leaf holds is a member too
}

// Missing names what could not be put in, and why.
type Missing struct {
	Role    Role   `json:"role"`
	Subject string `json:"subject"`
	Why     string `json:"why"`
}

// Role says what an entry is to the decision.
type Role string

// The roles.
const (
	RoleDecision    Role = "decision"     // the decision
	RoleEndpoint    Role = "endpoint"     // the endpoint revision that was asked
	RoleModel       Role = "model"        // a step in the making of the version that answered
	RoleApproval    Role = "approval"     // the consent that was in force
	RoleVerdict     Role = "verdict"      // another verdict on that version, before or after
	RoleService     Role = "service"      // the feature service version
	RoleView        Role = "view"         // a view version that was read
	RolePolicy      Role = "policy"       // the newest change of the tenant's policy that was in force
	RoleTrainingSet Role = "training-set" // what the version was trained on
	RoleOutcome     Role = "outcome"      // what happened afterwards
)

// manifestHeader is the first line of a manifest. No checkpoint can begin with it, because origins have no spaces.
const manifestHeader = "waybill evidence bundle v1"

// Manifest writes the text of a manifest, which is then signed: a head line, then the members in the form that sha256sum
// checks, sorted by name.
func Manifest(members map[string][]byte) string {
	var b strings.Builder
	b.WriteString(manifestHeader + "\n")
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name != ManifestFile {
			sum := sha256.Sum256(members[name])
			b.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
		}
	}
	return b.String()
}

// parseManifest reads what Manifest writes.
func parseManifest(text string) (map[string]string, error) {
	lines := strings.Split(text, "\n")
	if lines[0] != manifestHeader || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("it does not begin with %q", manifestHeader)
	}
	sums := map[string]string{}
	last := ""
	for _, l := range lines[1 : len(lines)-1] {
		sum, name, found := strings.Cut(l, "  ")
		if b, err := hex.DecodeString(sum); !found || err != nil || len(b) != sha256.Size || name <= last {
			return nil, fmt.Errorf("the line %.100q is not the next digest and name", l)
		}
		sums[name], last = sum, name
	}
	return sums, nil
}

// Write writes members as a zip file: not compressed, sorted by name, all with the given time, so that the same members
// are the same bytes.
func Write(w io.Writer, members map[string][]byte, at time.Time) error {
	z := zip.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: at.UTC().Truncate(time.Second)})
		if err != nil {
			return fmt.Errorf("add %s to bundle: %w", name, err)
		}
		if _, err := f.Write(members[name]); err != nil {
			return fmt.Errorf("write %s of bundle: %w", name, err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("end bundle: %w", err)
	}
	return nil
}

// Read unpacks a bundle into memory. It accepts flat names of the format only, each once, and at most MaxBundle bytes
// however well they are compressed. Nothing is verified yet. Errors: Invalid, TooLarge, Corrupt for a member that is cut
// off or does not match its own check sum.
func Read(r io.ReaderAt, size int64) (map[string][]byte, error) {
	if size > MaxBundle {
		return nil, waybill.Errorf(waybill.TooLarge, "a bundle of %d bytes; at most %d", size, MaxBundle)
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, waybill.Wrap(waybill.Invalid, err, "this is no evidence bundle: it is no zip file, or cut off")
	}
	if len(z.File) > maxMembers {
		return nil, waybill.Errorf(waybill.TooLarge, "a bundle of %d members; at most %d", len(z.File), maxMembers)
	}
	members := map[string][]byte{}
	left := int64(MaxBundle)
	for _, f := range z.File {
		if _, twice := members[f.Name]; twice || !goodName(f.Name) {
			return nil, waybill.Errorf(waybill.Corrupt, "member %.100q does not belong into a bundle, or is there twice", f.Name)
		}
		b, err := readMember(f, left)
		if err != nil {
			return nil, err
		}
		members[f.Name] = b
		left -= int64(len(b))
	}
	return members, nil
}

func readMember(f *zip.File, left int64) (_ []byte, err error) {
	what := blame(f.Name)
	r, err := f.Open()
	if err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, what+"cannot be unpacked")
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, left+1))
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil:
		return nil, waybill.Wrap(waybill.Corrupt, err, what+"was changed or cut off")
	case n > left:
		return nil, waybill.Errorf(waybill.TooLarge, "a bundle whose members have more than %d bytes", MaxBundle)
	}
	return b.Bytes(), nil
}

// goodName accepts the names of the format: nothing that would leave the folder it is unpacked into.
func goodName(name string) bool {
	switch name {
	case ManifestFile, IndexFile, CheckpointFile, KeyFile, PayloadFile, ReportFile:
		return true
	}
	_, ok := entryOf(name)
	return ok
}

// entryOf is the index of the entry that a member belongs to.
func entryOf(name string) (int64, bool) {
	rest, ok := strings.CutPrefix(name, "leaves/")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseInt(number, 10, 64)
	return n, err == nil && n >= 0 && (name == LeafFile(n) || name == ProofFile(n) || name == TextFile(n))
}

// blame begins a sentence about a member with the entry it belongs to.
func blame(name string) string {
	if n, ok := entryOf(name); ok {
		return fmt.Sprintf("entry %d: its member %s ", n, name)
	}
	return "the member " + name + " "
}

// parseIndex reads bundle.json. Unknown fields are refused: they would say something that nobody checks.
func parseIndex(raw []byte) (Index, error) {
	var x Index
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil {
		return x, fmt.Errorf("it cannot be read: %w", err)
	}
	if d.More() || x.V != 1 || x.T != "evidence" {
		return x, fmt.Errorf("it is no index of version 1; a newer waybill may read it")
	}
	if len(x.Entries) == 0 || len(x.Entries) > MaxEntries || len(x.Missing) > MaxEntries {
		return x, fmt.Errorf("it has %d entries; between 1 and %d", len(x.Entries), MaxEntries)
	}
	return x, nil
}
