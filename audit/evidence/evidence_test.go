package evidence_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/formats/log"
	formats "github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"waybill"
	"waybill/audit/evidence"
)

const origin = "test.example/log/1"

// naive is a log as RFC 6962 defines it, section 2.1, computed from all leaves each time.
type naive struct {
	leaves [][]byte
	signer note.Signer
	key    string
}

func newNaive(t testing.TB, leaves ...string) *naive {
	t.Helper()
	signer, key, err := note.GenerateKey(zeros{}, origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(signer)
	if err != nil {
		t.Fatal(err)
	}
	n := &naive{signer: s, key: key}
	for _, l := range leaves {
		n.leaves = append(n.leaves, []byte(l))
	}
	return n
}

// zeros is a source of bytes that are not random, so that tests run alike.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func mth(d [][]byte) []byte {
	switch len(d) {
	case 0:
		h := sha256.Sum256(nil)
		return h[:]
	case 1:
		h := sha256.Sum256(append([]byte{0}, d[0]...))
		return h[:]
	}
	k := 1 << (bits.Len(uint(len(d)-1)) - 1)
	h := sha256.Sum256(slices.Concat([]byte{1}, mth(d[:k]), mth(d[k:])))
	return h[:]
}

func path(m int, d [][]byte) [][]byte {
	if len(d) == 1 {
		return nil
	}
	k := 1 << (bits.Len(uint(len(d)-1)) - 1)
	if m < k {
		return append(path(m, d[:k]), mth(d[k:]))
	}
	return append(path(m-k, d[k:]), mth(d[:k]))
}

func consistency(m int, d [][]byte, whole bool) [][]byte {
	if m == len(d) {
		if whole {
			return nil
		}
		return [][]byte{mth(d)}
	}
	k := 1 << (bits.Len(uint(len(d)-1)) - 1)
	if m <= k {
		return append(consistency(m, d[:k], whole), mth(d[k:]))
	}
	return append(consistency(m-k, d[k:], false), mth(d[:k]))
}

func (n *naive) sign(t testing.TB, text string) string {
	t.Helper()
	raw, err := note.Sign(&note.Note{Text: text}, n.signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (n *naive) checkpoint(t testing.TB, size int) string {
	t.Helper()
	return n.sign(t, fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(mth(n.leaves[:size]))))
}

func (n *naive) head(size int) evidence.Checkpoint {
	return evidence.Checkpoint{Origin: origin, Size: int64(size), Root: mth(n.leaves[:size])}
}

func (n *naive) proof(t testing.TB, index, size int) evidence.Proof {
	t.Helper()
	return evidence.Proof{Index: int64(index), Path: path(index, n.leaves[:size]), Checkpoint: n.checkpoint(t, size)}
}

func wantCode(t *testing.T, what string, err error, want waybill.Code) {
	t.Helper()
	if waybill.CodeOf(err) != want {
		t.Errorf("%s: %v, want the code %q", what, err, want)
	}
}

// Whatever the log, its proofs hold, and hold for nothing else.
func TestProofs_AgreeWithTheirDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		n := newNaive(t)
		for i := range rapid.IntRange(1, 70).Draw(r, "leaves") {
			n.leaves = append(n.leaves, fmt.Appendf(nil, "leaf %d", i))
		}
		size := rapid.IntRange(1, len(n.leaves)).Draw(r, "size")
		index := rapid.IntRange(0, size-1).Draw(r, "index")
		raw := n.proof(t, index, size).String()
		p, err := evidence.ParseProof([]byte(raw))
		if err != nil || p.String() != raw {
			r.Fatalf("parse: %v\n%s", err, raw)
		}
		c, err := p.Verify(n.key, n.leaves[index])
		if err != nil || c.Size != int64(size) || !bytes.Equal(c.Root, mth(n.leaves[:size])) {
			r.Fatalf("verify: %+v, %v", c, err)
		}
		var theirs formats.TLogProof
		if err := theirs.Unmarshal([]byte(raw)); err != nil || string(theirs.Marshal()) != raw {
			r.Fatalf("another parser: %v\n%s", err, theirs.Marshal())
		}
		if other := rapid.IntRange(0, len(n.leaves)-1).Draw(r, "other"); other != index {
			if _, err := p.Verify(n.key, n.leaves[other]); waybill.CodeOf(err) != waybill.Corrupt {
				r.Fatalf("leaf %d proven as %d: %v", other, index, err)
			}
			p.Index = int64(other)
			if _, err := p.Verify(n.key, n.leaves[index]); waybill.CodeOf(err) != waybill.Corrupt {
				r.Fatalf("leaf %d proven at %d: %v", index, other, err)
			}
		}
		older := rapid.IntRange(1, size).Draw(r, "older")
		steps := consistency(older, n.leaves[:size], true)
		if err := evidence.CheckConsistency(n.head(older), n.head(size), steps); err != nil {
			r.Fatalf("consistency of %d and %d: %v", older, size, err)
		}
		forked := n.head(older)
		forked.Root = mth([][]byte{[]byte("another log")})
		if err := evidence.CheckConsistency(forked, n.head(size), steps); waybill.CodeOf(err) != waybill.Corrupt {
			r.Fatalf("a fork at %d: %v", older, err)
		}
	})
}

func TestConsistency_Corners(t *testing.T) {
	t.Parallel()
	n := newNaive(t, "a", "b", "c", "d", "e")
	h := mth(n.leaves[:1])
	other := n.head(3)
	other.Origin = "test.example/log/2"
	for _, c := range []struct {
		name         string
		older, newer evidence.Checkpoint
		path         [][]byte
		want         waybill.Code
	}{
		{"size 1 to 1", n.head(1), n.head(1), nil, ""},
		{"size 1 to 1 with a hash too many", n.head(1), n.head(1), [][]byte{h}, waybill.Corrupt},
		{"size 1 to 1 of another tree", n.head(1), evidence.Checkpoint{Origin: origin, Size: 1, Root: mth(n.leaves[1:2])}, nil, waybill.Corrupt},
		{"size 1 to 2", n.head(1), n.head(2), [][]byte{mth(n.leaves[1:2])}, ""},
		{"size 1 to 2 without a proof", n.head(1), n.head(2), nil, waybill.Corrupt},
		{"size 1 to 2 with the older root too", n.head(1), n.head(2), [][]byte{h, mth(n.leaves[1:2])}, waybill.Corrupt},
		{"size 2 to 3", n.head(2), n.head(3), [][]byte{mth(n.leaves[2:3])}, ""},
		{"size 3 to 5", n.head(3), n.head(5), consistency(3, n.leaves, true), ""},
		{"size 3 to 5 with a hash too few", n.head(3), n.head(5), consistency(3, n.leaves, true)[1:], waybill.Corrupt},
		{"size 4 to 4", n.head(4), n.head(4), nil, ""},
		{"an empty tree proves nothing", n.head(0), n.head(3), nil, waybill.Invalid},
		{"two empty trees", n.head(0), n.head(0), nil, waybill.Invalid},
		{"backwards", n.head(3), n.head(2), nil, waybill.Invalid},
		{"two logs", other, n.head(5), consistency(3, n.leaves, true), waybill.Invalid},
		{"a hash of 31 bytes", n.head(1), n.head(2), [][]byte{h[:31]}, waybill.Corrupt},
		{"an endless proof", n.head(1), n.head(2), make([][]byte, 1000), waybill.Corrupt},
	} {
		wantCode(t, c.name, evidence.CheckConsistency(c.older, c.newer, c.path), c.want)
	}
}

func TestInclusion_Corners(t *testing.T) {
	t.Parallel()
	n := newNaive(t, "a", "b", "c")
	a, c := evidence.LeafHash([]byte("a")), evidence.LeafHash([]byte("c"))
	for _, x := range []struct {
		name  string
		size  int
		index int64
		leaf  [32]byte
		path  [][]byte
		want  waybill.Code
	}{
		{"the only entry", 1, 0, a, nil, ""},
		{"the only entry with a path", 1, 0, a, [][]byte{c[:]}, waybill.Corrupt},
		{"another only entry", 1, 0, c, nil, waybill.Corrupt},
		{"beyond the size", 1, 1, a, nil, waybill.Corrupt},
		{"far beyond the size", 3, 1 << 62, a, nil, waybill.Corrupt},
		{"before the first", 3, -1, a, path(0, n.leaves), waybill.Corrupt},
		{"the last of an odd tree", 3, 2, c, path(2, n.leaves), ""},
		{"in an empty tree", 0, 0, a, nil, waybill.Corrupt},
		{"a hash too short", 3, 0, a, [][]byte{path(0, n.leaves)[0][:31], path(0, n.leaves)[1]}, waybill.Corrupt},
		{"two hashes in one", 3, 0, a, [][]byte{slices.Concat(path(0, n.leaves)...)}, waybill.Corrupt},
	} {
		wantCode(t, x.name, evidence.CheckInclusion(n.head(x.size), x.index, x.leaf, x.path), x.want)
	}
}

func TestCheckpoint_OneSpelling(t *testing.T) {
	t.Parallel()
	n := newNaive(t, "a", "b")
	root := base64.StdEncoding.EncodeToString(mth(n.leaves))
	good := origin + "\n2\n" + root + "\n"
	raw := n.sign(t, good)
	if c, err := evidence.OpenCheckpoint(n.key+"\n", []byte(raw)); err != nil || !cmp.Equal(c, n.head(2)) {
		t.Fatalf("%+v, %v", c, err)
	}
	for name, text := range map[string]string{
		"another origin":    "test.example/log/2\n2\n" + root + "\n",
		"no root":           origin + "\n2\n",
		"leading zero":      origin + "\n02\n" + root + "\n",
		"a sign":            origin + "\n+2\n" + root + "\n",
		"negative":          origin + "\n-2\n" + root + "\n",
		"beyond 63 bits":    origin + "\n9223372036854775808\n" + root + "\n",
		"root too short":    origin + "\n2\n" + base64.StdEncoding.EncodeToString(make([]byte, 31)) + "\n",
		"root in url form":  origin + "\n2\n" + strings.Repeat("-", 43) + "=\n",
		"empty extension":   good + "\n" + "x\n",
		"not an empty tree": origin + "\n0\n" + root + "\n",
		"a manifest":        evidence.Manifest(map[string][]byte{"checkpoint": nil}),
	} {
		_, err := evidence.OpenCheckpoint(n.key, []byte(n.sign(t, text)))
		wantCode(t, name, err, waybill.Corrupt)
	}
	if _, err := evidence.OpenCheckpoint(n.key, []byte(n.sign(t, good+"an extension\n"))); err != nil {
		t.Errorf("extension lines are to be left alone: %v", err)
	}
	for i := range raw { // every byte counts, of text and of signature
		b := []byte(raw)
		b[i] ^= 1
		_, err := evidence.OpenCheckpoint(n.key, b)
		wantCode(t, fmt.Sprintf("byte %d flipped", i), err, waybill.Corrupt)
	}
	_, err := evidence.OpenCheckpoint("no key", []byte(raw))
	wantCode(t, "no key", err, waybill.Invalid)
	verifier, err := note.NewVerifier(n.key)
	if err != nil {
		t.Fatal(err)
	}
	if c, _, _, err := log.ParseCheckpoint([]byte(raw), origin, verifier); err != nil || c.Size != 2 {
		t.Errorf("another parser: %+v, %v", c, err)
	}
}

func TestProof_OneSpelling(t *testing.T) {
	t.Parallel()
	n := newNaive(t, "a", "b", "c")
	good := n.proof(t, 1, 3).String()
	hash := strings.Split(good, "\n")[2]
	for name, raw := range map[string]string{
		"nothing":             "",
		"another version":     strings.Replace(good, "@v1", "@v2", 1),
		"no checkpoint":       good[:strings.Index(good, "\n\n")+2],
		"no empty line":       strings.Replace(good, "\n\n", "\n", 1),
		"leading zero":        strings.Replace(good, "index 1", "index 01", 1),
		"negative":            strings.Replace(good, "index 1", "index -1", 1),
		"beyond 63 bits":      strings.Replace(good, "index 1", "index 9223372036854775808", 1),
		"no index":            strings.Replace(good, "index 1\n", "", 1),
		"index twice":         strings.Replace(good, "index 1\n", "index 1\nindex 1\n", 1),
		"other line ends":     strings.ReplaceAll(good, "\n", "\r\n"),
		"hash without its =":  strings.Replace(good, hash, strings.TrimSuffix(hash, "="), 1),
		"hash of 31 bytes":    strings.Replace(good, hash, base64.StdEncoding.EncodeToString(make([]byte, 31)), 1),
		"more than any tree":  strings.Replace(good, hash+"\n", strings.Repeat(hash+"\n", 200), 1),
		"extra that is none":  strings.Replace(good, "index", "extra !\nindex", 1),
		"extra after index":   strings.Replace(good, "index 1\n", "index 1\nextra eA==\n", 1),
		"a loose last letter": strings.Replace(good, hash, hash[:42]+"B=", 1),
	} {
		_, err := evidence.ParseProof([]byte(raw))
		wantCode(t, name, err, waybill.Invalid)
	}
	_, err := evidence.ParseProof(make([]byte, evidence.MaxProof+1))
	wantCode(t, "too large", err, waybill.TooLarge)
	for _, extra := range []string{"", "x", "more of it"} {
		p := n.proof(t, 0, 3)
		p.Extra = []byte(extra)
		got, err := evidence.ParseProof([]byte(p.String()))
		if err != nil || !cmp.Equal(got, p) {
			t.Errorf("extra %q: %+v, %v", extra, got, err)
		}
	}
}

// sample is a bundle about a decision with a payload, a model with its approval, a view, and a policy that is missing.
func sample(t testing.TB) (map[string][]byte, *naive) {
	t.Helper()
	reason, payload := "looked at it", `{"request":{"order":"A-1"}}`
	event := func(kind, subject, digest, detail string) string {
		return fmt.Sprintf(`{"v":1,"t":%q,"tenant":"acme","at":"2026-04-10T18:00:00.000000Z","actor":"ann","subject":%q,"digest":%q,"detail":%s}`, kind, subject, digest, detail)
	}
	n := newNaive(t,
		event("view.version", "view:load@v1", "sha256:01", `{}`),
		event("model.version", "model:late@v1", "sha256:02", `{"action":"submit"}`),
		event("approval", "model:late@v1", "sha256:02", fmt.Sprintf(`{"action":"approve","approval_id":"a1","reason_sha256":"%x"}`, sha256.Sum256([]byte(reason)))),
		event("endpoint.revision", "endpoint:route@v1", "sha256:03", `{}`),
		event("service.version", "service:risk@v1", "sha256:04", `{}`),
		fmt.Sprintf(`{"v":1,"t":"decision","tenant":"acme","id":"d1","endpoint":"route@v1","model":{"ref":"late@v1","digest":"sha256:02","approval":"a1"},"policy_rev":4,"service":"risk@v1","features":{"load@v1":7},"payload":"sha256:%x"}`,
			sha256.Sum256([]byte(payload))),
		event("outcome", "decision:d1", "", `{"name":"late","value":true}`),
	)
	x := evidence.Index{V: 1, T: "evidence", Origin: origin, Tenant: "acme", Decision: "d1", Size: 7,
		Entries: []evidence.Entry{{Role: evidence.RoleDecision, Subject: "decision:d1", Index: 5}, {Role: evidence.RoleEndpoint, Subject: "endpoint:route@v1", Index: 3},
			{Role: evidence.RoleModel, Subject: "model:late@v1", Index: 1}, {Role: evidence.RoleApproval, Subject: "model:late@v1", Index: 2, Text: true},
			{Role: evidence.RoleService, Subject: "service:risk@v1", Index: 4}, {Role: evidence.RoleView, Subject: "view:load@v1", Index: 0},
			{Role: evidence.RoleOutcome, Subject: "decision:d1", Index: 6}},
		Missing: []evidence.Missing{{Role: evidence.RolePolicy, Subject: "policy:4", Why: "the reader may not see it"}}}
	m := map[string][]byte{evidence.PayloadFile: []byte(payload), evidence.ReportFile: []byte("<p>report"), evidence.KeyFile: []byte(n.key + "\n"),
		evidence.CheckpointFile: []byte(n.checkpoint(t, 7)), evidence.TextFile(2): []byte(reason)}
	for i, l := range n.leaves {
		m[evidence.LeafFile(int64(i))], m[evidence.ProofFile(int64(i))] = l, []byte(n.proof(t, i, 7).String())
	}
	n.seal(t, m, x)
	return m, n
}

// seal writes index and manifest anew, as somebody could who holds the log's key.
func (n *naive) seal(t testing.TB, m map[string][]byte, x evidence.Index) {
	t.Helper()
	raw, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	m[evidence.IndexFile] = raw
	m[evidence.ManifestFile] = []byte(n.sign(t, evidence.Manifest(m)))
}

func indexOf(t testing.TB, m map[string][]byte) evidence.Index {
	t.Helper()
	var x evidence.Index
	if err := json.Unmarshal(m[evidence.IndexFile], &x); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestBundle_Whole(t *testing.T) {
	t.Parallel()
	m, n := sample(t)
	v, err := evidence.Verify(m, n.key)
	if err != nil || !v.Payload || len(v.Entries) != 7 || len(v.Missing) != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := evidence.Write(w, m, time.Date(2026, 4, 10, 18, 0, 0, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same bundle is other bytes the second time")
	}
	back, err := evidence.Read(bytes.NewReader(first.Bytes()), int64(first.Len()))
	if err != nil || !cmp.Equal(back, m) {
		t.Errorf("read: %v", err)
	}
}

// A byte that is flipped is found in every member, wherever it is (every third is tried), and the entry it belongs to is
// named.
func TestBundle_BytesOfEveryMember(t *testing.T) {
	t.Parallel()
	m, n := sample(t)
	flips := 0
	for name, content := range m {
		for i := len(name) % 3; i < len(content); i += 3 {
			bad := maps.Clone(m)
			bad[name] = slices.Clone(content)
			bad[name][i] ^= 1 << (i % 8)
			_, err := evidence.Verify(bad, n.key)
			if waybill.CodeOf(err) != waybill.Corrupt {
				t.Fatalf("byte %d of %s flipped: %v", i, name, err)
			}
			if number, isLeaf := strings.CutPrefix(name, "leaves/"); isLeaf {
				if number, _, _ = strings.Cut(number, "."); !strings.HasPrefix(err.Error(), "entry "+number+":") {
					t.Fatalf("byte %d of %s flipped, and what is named is: %v", i, name, err)
				}
			}
			flips++
		}
		bad := maps.Clone(m)
		delete(bad, name)
		if _, err := evidence.Verify(bad, n.key); err == nil {
			t.Errorf("without %s it verifies", name)
		}
	}
	if flips < 2000 {
		t.Errorf("only %d bytes were tried", flips)
	}
}

// The proofs hold without the manifest: also whoever can sign it cannot change an entry. A flipped byte is found in what
// is proven, and what is not (report, index, key) is all that a new manifest can change.
func TestBundle_ProofsHoldWithoutTheManifest(t *testing.T) {
	t.Parallel()
	m, n := sample(t)
	for name, content := range m {
		switch name {
		case evidence.ReportFile, evidence.KeyFile, evidence.ManifestFile, evidence.IndexFile:
			continue
		}
		for i := len(name) % 7; i < len(content); i += 7 {
			bad := maps.Clone(m)
			bad[name] = slices.Clone(content)
			bad[name][i] ^= 1 << (i % 8)
			bad[evidence.ManifestFile] = []byte(n.sign(t, evidence.Manifest(bad)))
			if _, err := evidence.Verify(bad, n.key); waybill.CodeOf(err) != waybill.Corrupt {
				t.Fatalf("byte %d of %s flipped under a new manifest: %v", i, name, err)
			}
		}
	}
}

// A flipped byte of the file either is found or changes nothing that is read (a time in the zip's own tables).
func TestBundle_BytesOfTheFile(t *testing.T) {
	t.Parallel()
	m, n := sample(t)
	var file bytes.Buffer
	if err := evidence.Write(&file, m, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	found, tried := 0, 0
	for i := 0; i < file.Len(); i += 13 {
		tried++
		bad := slices.Clone(file.Bytes())
		bad[i] ^= 1 << (i % 8)
		got, err := evidence.Read(bytes.NewReader(bad), int64(len(bad)))
		if err == nil && !cmp.Equal(got, m) {
			_, err = evidence.Verify(got, n.key)
			if err == nil {
				t.Fatalf("byte %d flipped: other members, and they verify", i)
			}
		}
		if err != nil {
			found++
		}
	}
	t.Logf("%d of %d flips found; the others change no member", found, tried)
	if found < tried/2 {
		t.Errorf("only %d of %d flips were found", found, tried)
	}
}

// What the key's holder signs must still fit together.
func TestBundle_LiesOfTheIndex(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(m map[string][]byte, x *evidence.Index){
		"an entry in another role":      func(_ map[string][]byte, x *evidence.Index) { x.Entries[2].Role = evidence.RoleEndpoint },
		"a verdict as the consent":      func(_ map[string][]byte, x *evidence.Index) { x.Entries[3].Role = evidence.RoleVerdict },
		"another subject":               func(_ map[string][]byte, x *evidence.Index) { x.Entries[5].Subject = "view:load@v2" },
		"an entry left out":             func(_ map[string][]byte, x *evidence.Index) { x.Entries = x.Entries[:5] },
		"listed twice":                  func(_ map[string][]byte, x *evidence.Index) { x.Entries = append(x.Entries, x.Entries[5]) },
		"missing without a reason":      func(_ map[string][]byte, x *evidence.Index) { x.Missing[0].Why = "" },
		"nothing said of the policy":    func(_ map[string][]byte, x *evidence.Index) { x.Missing = nil },
		"another decision":              func(_ map[string][]byte, x *evidence.Index) { x.Decision = "d2" },
		"another tenant":                func(_ map[string][]byte, x *evidence.Index) { x.Tenant = "other" },
		"another log":                   func(_ map[string][]byte, x *evidence.Index) { x.Origin = "test.example/log/2" },
		"another size":                  func(_ map[string][]byte, x *evidence.Index) { x.Size++ },
		"no entries":                    func(_ map[string][]byte, x *evidence.Index) { x.Entries = nil },
		"another version":               func(_ map[string][]byte, x *evidence.Index) { x.V = 2 },
		"a payload that is called gone": func(_ map[string][]byte, x *evidence.Index) { x.PayloadMissing = "erased" },
		"a payload that is gone":        func(m map[string][]byte, _ *evidence.Index) { delete(m, evidence.PayloadFile) },
		"another payload":               func(m map[string][]byte, _ *evidence.Index) { m[evidence.PayloadFile] = []byte(`{}`) },
		"another reason":                func(m map[string][]byte, _ *evidence.Index) { m[evidence.TextFile(2)] = []byte("never saw it") },
		"a leaf more":                   func(m map[string][]byte, _ *evidence.Index) { m[evidence.LeafFile(99)] = []byte(`{}`) },
		"a proof of another entry":      func(m map[string][]byte, _ *evidence.Index) { m[evidence.ProofFile(1)] = m[evidence.ProofFile(2)] },
	} {
		m, n := sample(t)
		x := indexOf(t, m)
		lie(m, &x)
		n.seal(t, m, x)
		_, err := evidence.Verify(m, n.key)
		wantCode(t, name, err, waybill.Corrupt)
	}
	m, n := sample(t)
	x := indexOf(t, m)
	delete(m, evidence.PayloadFile)
	x.PayloadMissing = "erased on request"
	n.seal(t, m, x)
	if v, err := evidence.Verify(m, n.key); err != nil || v.Payload {
		t.Errorf("without its payload: %+v, %v", v, err)
	}
	signer, key, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	if n.signer, err = note.NewSigner(signer); err != nil {
		t.Fatal(err)
	}
	n.seal(t, m, x)
	if _, err := evidence.Verify(m, key); waybill.CodeOf(err) != waybill.Corrupt {
		t.Errorf("a manifest of a key of the same name over a checkpoint of the true one: %v", err)
	}
}

func TestRead_HostileFiles(t *testing.T) {
	t.Parallel()
	file := func(members map[string][]byte) []byte {
		var b bytes.Buffer
		if err := evidence.Write(&b, members, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	m, _ := sample(t)
	whole := file(m)
	many := map[string][]byte{}
	for i := range int64(3000) {
		many[evidence.LeafFile(i)] = nil
	}
	for name, c := range map[string]struct {
		raw  []byte
		want waybill.Code
	}{
		"nothing":           {nil, waybill.Invalid},
		"no zip":            {[]byte("hello"), waybill.Invalid},
		"cut off":           {whole[:len(whole)/2], waybill.Invalid},
		"out of the folder": {file(map[string][]byte{"../key": nil}), waybill.Corrupt},
		"absolute":          {file(map[string][]byte{"/etc/passwd": nil}), waybill.Corrupt},
		"odd number":        {file(map[string][]byte{"leaves/007.json": nil}), waybill.Corrupt},
		"odd member":        {file(map[string][]byte{"run.sh": nil}), waybill.Corrupt},
		"too many":          {file(many), waybill.TooLarge},
	} {
		_, err := evidence.Read(bytes.NewReader(c.raw), int64(len(c.raw)))
		wantCode(t, name, err, c.want)
	}
	_, err := evidence.Read(bytes.NewReader(nil), evidence.MaxBundle+1)
	wantCode(t, "too large", err, waybill.TooLarge)
	var bomb bytes.Buffer
	deflated(t, &bomb, evidence.PayloadFile, make([]byte, evidence.MaxBundle+1))
	_, err = evidence.Read(bytes.NewReader(bomb.Bytes()), int64(bomb.Len()))
	wantCode(t, fmt.Sprintf("%d bytes that unpack to more", bomb.Len()), err, waybill.TooLarge)
}

func TestCheckEntries(t *testing.T) {
	t.Parallel()
	n := newNaive(t)
	var file []byte
	for i := range 300 {
		leaf := bytes.Repeat([]byte{byte(i)}, i)
		n.leaves = append(n.leaves, leaf)
		file = append(binary.BigEndian.AppendUint16(file, uint16(len(leaf))), leaf...)
	}
	calls := 0
	if err := evidence.CheckEntries(bytes.NewReader(file), n.head(300), func(_, size int64) { calls += int(size) }); err != nil || calls != 300 {
		t.Fatalf("%v, progress %d", err, calls)
	}
	if err := evidence.CheckEntries(strings.NewReader(""), n.head(0), nil); err != nil {
		t.Errorf("an empty log: %v", err)
	}
	for name, c := range map[string]struct {
		file []byte
		size int
		says string
	}{
		"an entry more":  {file, 299, "entry 299: the checkpoint signs 299 entries, and there are more"},
		"an entry less":  {file[:len(file)-301], 300, "entry 299: it is missing"},
		"a byte less":    {file[:len(file)-1], 300, "entry 299: it is missing or cut off"},
		"half a length":  {append(slices.Clone(file), 0), 300, "entry 300: it is missing or cut off"},
		"nothing at all": {nil, 300, "entry 0: it is missing"},
		"not the root":   {bytes.Replace(file, []byte{5, 5, 5, 5, 5}, []byte{5, 5, 5, 5, 4}, 1), 300, "an entry was changed"},
	} {
		err := evidence.CheckEntries(bytes.NewReader(c.file), n.head(c.size), nil)
		if waybill.CodeOf(err) != waybill.Corrupt || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := 0; i < len(file); i += 97 {
		bad := slices.Clone(file)
		bad[i] ^= 1 << (i % 8)
		wantCode(t, fmt.Sprintf("byte %d flipped", i), evidence.CheckEntries(bytes.NewReader(bad), n.head(300), nil), waybill.Corrupt)
	}
}
