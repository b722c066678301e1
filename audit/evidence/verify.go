package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"waybill"
)

// Verdict is what a bundle proved.
type Verdict struct {
	Index
	Payload bool // it is there, and is the one that the decision's leaf names
}

// leaf is what is read of the leaves, whatever their type.
type leaf struct {
	V       int    `json:"v"`
	T       string `json:"t"`
	Tenant  string `json:"tenant"`
	ID      string `json:"id"`      // of a decision
	Subject string `json:"subject"` // of an event
	Digest  string `json:"digest"`

	Endpoint string `json:"endpoint"`
	Model    struct {
		Ref      string `json:"ref"`
		Digest   string `json:"digest"`
		Approval string `json:"approval"`
	} `json:"model"`
	PolicyRev int64            `json:"policy_rev"`
	Service   string           `json:"service"`
	Features  map[string]int64 `json:"features"`
	Payload   string           `json:"payload"`

	Detail detail `json:"detail"`
}

type detail struct {
	Action       string `json:"action"`
	ApprovalID   string `json:"approval_id"`
	ReasonSHA256 string `json:"reason_sha256"`
	TrainingSet  string `json:"training_set"`
}

// VerifyFile is Verify for a bundle in a file. With an empty key it takes the one that the bundle holds, which shows that
// the bundle is whole but not whose it is; the key that was used is returned.
func VerifyFile(path, verifierKey string) (v Verdict, key string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Verdict{}, "", fmt.Errorf("open bundle: %w", err)
	}
	defer func() {
		if closeErr := f.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close bundle: %w", closeErr)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return Verdict{}, "", fmt.Errorf("look at bundle: %w", err)
	}
	members, err := Read(f, info.Size())
	if err != nil {
		return Verdict{}, "", err
	}
	if key = verifierKey; key == "" {
		key = strings.TrimSpace(string(members[KeyFile]))
	}
	v, err = Verify(members, key)
	return v, key, err
}

// Verify checks a bundle from end to end with nothing but a key: the manifest's signature, every member against it, the
// checkpoint's signature, every leaf's way to its root, that the payload is the one the decision names, and that each
// thing the decision points to is there, or is said to be missing. Errors: Invalid when it is no bundle or the key none,
// Corrupt with the first entry or member that is wrong.
func Verify(members map[string][]byte, verifierKey string) (Verdict, error) {
	if err := checkMembers(members, verifierKey); err != nil {
		return Verdict{}, err
	}
	c, err := OpenCheckpoint(verifierKey, members[CheckpointFile])
	if err != nil {
		return Verdict{}, err
	}
	x, err := parseIndex(members[IndexFile])
	if err == nil && (x.Origin != c.Origin || x.Size != c.Size) {
		err = fmt.Errorf("it speaks of %d entries of %.200q, the checkpoint of %d of %.200q", x.Size, x.Origin, c.Size, c.Origin)
	}
	if err != nil {
		return Verdict{}, waybill.Wrap(waybill.Corrupt, err, blame(IndexFile)+"is not one of this bundle")
	}
	leaves, err := checkEntries(members, x, c)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Index: x}
	if v.Payload, err = checkPayload(members, x, leaves[0]); err != nil {
		return Verdict{}, err
	}
	return v, checkPointers(x, leaves)
}

// checkMembers compares all members with the signed manifest.
func checkMembers(members map[string][]byte, verifierKey string) error {
	raw, ok := members[ManifestFile]
	if !ok {
		return waybill.Errorf(waybill.Invalid, "this is no evidence bundle: it has no member %s", ManifestFile)
	}
	text, name, err := openNote(verifierKey, raw, "the member "+ManifestFile)
	if err != nil {
		return err
	}
	sums, err := parseManifest(text)
	if err != nil {
		return waybill.Wrap(waybill.Corrupt, err, blame(ManifestFile)+"is signed by "+name+" but is no manifest")
	}
	for _, name := range sortedMembers(members) {
		if name == ManifestFile {
			continue
		}
		want, listed := sums[name]
		if !listed {
			return waybill.Errorf(waybill.Corrupt, "%sis not in the signed manifest", blame(name))
		}
		if sum := sha256.Sum256(members[name]); hex.EncodeToString(sum[:]) != want {
			return waybill.Errorf(waybill.Corrupt, "%swas changed: its SHA-256 is %x, the signed manifest has %s", blame(name), sum, want)
		}
		delete(sums, name)
	}
	if len(sums) > 0 {
		return waybill.Errorf(waybill.Corrupt, "%sis in the signed manifest and not there", blame(slices.Min(slices.Collect(maps.Keys(sums)))))
	}
	for _, name := range []string{IndexFile, CheckpointFile, KeyFile, ReportFile} {
		if _, ok := members[name]; !ok {
			return waybill.Errorf(waybill.Corrupt, "%sis not there", blame(name))
		}
	}
	return nil
}

// sortedMembers lists entries first and by their number, so that the first that is wrong is the first in the log.
func sortedMembers(members map[string][]byte) []string {
	return slices.SortedFunc(maps.Keys(members), func(a, b string) int {
		x, isX := entryOf(a)
		y, isY := entryOf(b)
		switch {
		case isX && isY && x != y:
			return int(min(max(x-y, -1), 1))
		case isX != isY && isX:
			return -1
		case isX != isY:
			return 1
		}
		return strings.Compare(a, b)
	})
}

// checkEntries proves every leaf and reads it. The first is the decision.
func checkEntries(members map[string][]byte, x Index, c Checkpoint) ([]leaf, error) {
	used := map[string]bool{ManifestFile: true, IndexFile: true, CheckpointFile: true, KeyFile: true, PayloadFile: true, ReportFile: true}
	leaves := make([]leaf, len(x.Entries))
	for i, e := range x.Entries {
		wrong := func(format string, args ...any) error {
			return waybill.Errorf(waybill.Corrupt, "entry %d: %s", e.Index, fmt.Sprintf(format, args...))
		}
		raw, ok := members[LeafFile(e.Index)]
		if !ok || used[LeafFile(e.Index)] {
			return nil, wrong("its leaf is not there, or is listed twice")
		}
		p, err := ParseProof(members[ProofFile(e.Index)])
		if err != nil {
			return nil, waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("entry %d: its proof cannot be read", e.Index))
		}
		if p.Index != e.Index || p.Checkpoint != string(members[CheckpointFile]) {
			return nil, wrong("its proof is one of entry %d, or leads to another checkpoint", p.Index)
		}
		if err := CheckInclusion(c, p.Index, LeafHash(raw), p.Path); err != nil {
			return nil, err
		}
		l := &leaves[i]
		if err := json.Unmarshal(raw, l); err != nil {
			return nil, waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("entry %d: its leaf cannot be read", e.Index))
		}
		if l.T == "decision" {
			l.Subject = "decision:" + l.ID
		}
		if l.Tenant != x.Tenant || l.Subject != e.Subject || l.T != typeOf(e.Role) {
			return nil, wrong("it is a %.60s about %.200s of tenant %.60s, listed as the %.60s %.200s of %.60s", l.T, l.Subject, l.Tenant, e.Role, e.Subject, x.Tenant)
		}
		used[LeafFile(e.Index)], used[ProofFile(e.Index)], used[TextFile(e.Index)] = true, true, e.Text
		if e.Text {
			if sum := sha256.Sum256(members[TextFile(e.Index)]); hex.EncodeToString(sum[:]) != l.Detail.ReasonSHA256 {
				return nil, wrong("its text hashes to %x, the leaf has %.80q", sum, l.Detail.ReasonSHA256)
			}
		}
	}
	for _, name := range sortedMembers(members) {
		if !used[name] {
			return nil, waybill.Errorf(waybill.Corrupt, "%sbelongs to no entry that is listed", blame(name))
		}
	}
	return leaves, nil
}

// typeOf is the type of leaf that a role has.
func typeOf(r Role) string {
	return map[Role]string{RoleDecision: "decision", RoleEndpoint: "endpoint.revision", RoleModel: "model.version", RoleApproval: "approval",
		RoleVerdict: "approval", RoleService: "service.version", RoleView: "view.version", RolePolicy: "policy.change",
		RoleTrainingSet: "training.set", RoleOutcome: "outcome"}[r]
}

// checkPayload compares the payload with the digest in the decision's leaf.
func checkPayload(members map[string][]byte, x Index, d leaf) (bool, error) {
	e := x.Entries[0]
	if e.Role != RoleDecision || d.Subject != "decision:"+x.Decision {
		return false, waybill.Errorf(waybill.Corrupt, "entry %d: it is not the decision %.60s that the bundle is about", e.Index, x.Decision)
	}
	payload, ok := members[PayloadFile]
	if ok == (x.PayloadMissing != "") {
		return false, waybill.Errorf(waybill.Corrupt, "entry %d: its payload is not there and nothing says why, or it is and something does", e.Index)
	}
	if sum := sha256.Sum256(payload); ok && "sha256:"+hex.EncodeToString(sum[:]) != d.Payload {
		return false, waybill.Errorf(waybill.Corrupt, "entry %d: the payload was changed: it hashes to sha256:%x, the leaf has %.80s", e.Index, sum, d.Payload)
	}
	return ok, nil
}

// Pointer is something that a decision points to.
type Pointer struct {
	Role    Role
	Subject string // of the leaf that is wanted; for a policy the revision in force, or an earlier one
}

// Pointers reads from the leaf of a decision what it points to, in the order in which bundles list it. What the version
// was trained on is not among it: the decision points to the approval, and that one to the training set (TrainingSet).
func Pointers(decision []byte) ([]Pointer, error) {
	var d leaf
	if err := json.Unmarshal(decision, &d); err != nil || d.T != "decision" {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf is none of a decision")
	}
	return d.pointers(), nil
}

func (d *leaf) pointers() []Pointer {
	out := []Pointer{{RoleEndpoint, "endpoint:" + d.Endpoint}}
	if d.Model.Ref != "" {
		out = append(out, Pointer{RoleModel, "model:" + d.Model.Ref}, Pointer{RoleApproval, "model:" + d.Model.Ref})
	}
	if d.Service != "" {
		out = append(out, Pointer{RoleService, "service:" + d.Service})
	}
	for _, view := range slices.Sorted(maps.Keys(d.Features)) {
		out = append(out, Pointer{RoleView, "view:" + view})
	}
	return append(out, Pointer{RolePolicy, "policy:" + strconv.FormatInt(d.PolicyRev, 10)})
}

// TrainingSet reads from the leaf of an approval, or of the making of a model version, what was trained on, "" for
// nothing that is known.
func TrainingSet(raw []byte) string {
	var l leaf
	if json.Unmarshal(raw, &l) != nil || l.Detail.TrainingSet == "" {
		return ""
	}
	return "trainingset:" + strings.TrimPrefix(l.Detail.TrainingSet, "sha256:")
}

// Approves tells whether a leaf is the consent that a decision's leaf names: the same id, on the same bytes.
func Approves(approval, decision []byte) bool {
	var a, d leaf
	return json.Unmarshal(approval, &a) == nil && json.Unmarshal(decision, &d) == nil && approves(a, d)
}

func approves(a, d leaf) bool {
	return a.T == "approval" && a.Detail.Action == "approve" && a.Subject == "model:"+d.Model.Ref && a.Digest == d.Model.Digest &&
		a.Detail.ApprovalID == d.Model.Approval && d.Model.Approval != ""
}

// checkPointers finds what each pointer leads to: a proven leaf that fits, or a line that says that it is missing.
func checkPointers(x Index, leaves []leaf) error {
	d := leaves[0]
	want := d.pointers()
	for i, e := range x.Entries { // the approval leads on to the training set
		if set := leaves[i].Detail.TrainingSet; e.Role == RoleApproval && set != "" {
			want = append(want, Pointer{RoleTrainingSet, "trainingset:" + strings.TrimPrefix(set, "sha256:")})
		}
	}
	for i, e := range x.Entries {
		var ok bool
		switch e.Role {
		case RoleDecision:
			ok = i == 0
		case RoleOutcome:
			ok = e.Subject == d.Subject
		case RoleApproval:
			ok = approves(leaves[i], d)
		case RoleVerdict:
			ok = e.Subject == "model:"+d.Model.Ref
		case RolePolicy:
			ok = revision(e.Subject) <= d.PolicyRev
		case RoleEndpoint, RoleModel, RoleService, RoleView, RoleTrainingSet:
			ok = slices.Contains(want, Pointer{e.Role, e.Subject})
		}
		if !ok {
			return waybill.Errorf(waybill.Corrupt, "entry %d: the decision does not point to it as its %s", e.Index, e.Role)
		}
	}
	for _, p := range want {
		found := slices.ContainsFunc(x.Entries, func(e Entry) bool {
			return e.Role == p.Role && (e.Subject == p.Subject || p.Role == RolePolicy)
		}) || slices.ContainsFunc(x.Missing, func(m Missing) bool { return m.Role == p.Role && m.Subject == p.Subject && m.Why != "" })
		if !found {
			return waybill.Errorf(waybill.Corrupt, "entry %d: it points to the %s %s, which is neither in the bundle nor said to be missing", x.Entries[0].Index, p.Role, p.Subject)
		}
	}
	made := func(e Entry) bool { return e.Role == RoleModel }
	if slices.ContainsFunc(x.Entries, made) && !slices.ContainsFunc(leaves, func(l leaf) bool {
		return l.T == "model.version" && l.Detail.Action == "submit" && l.Digest == d.Model.Digest
	}) {
		return waybill.Errorf(waybill.Corrupt, "entry %d: no entry shows that %.100s was submitted with the digest %.80s that answered", x.Entries[0].Index, d.Model.Ref, d.Model.Digest)
	}
	return nil
}

// revision is the number behind "policy:"; a subject that has none is newer than every decision.
func revision(subject string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(subject, "policy:"), 10, 64)
	if err != nil || n < 0 || !strings.HasPrefix(subject, "policy:") {
		return 1<<63 - 1
	}
	return n
}
