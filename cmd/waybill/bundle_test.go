package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"waybill/audit"
	"waybill/audit/evidence"
)

// saved is a bundle in a folder: a blocked decision in a log of one entry, and beside it its proof and leaf.
func saved(t *testing.T) (dir, key string, members map[string][]byte) {
	t.Helper()
	secret, key, err := audit.GenerateKey("test/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text string) []byte {
		raw, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	payload := []byte(`{"gates":[{"gate":"customs","stage":"before","verdict":"block"}]}`)
	leaf := fmt.Appendf(nil, `{"v":1,"t":"decision","tenant":"acme","id":"d1","endpoint":"route@v1","policy_rev":2,"payload":"sha256:%x"}`, sha256.Sum256(payload))
	root := audit.LeafHash(leaf)
	checkpoint := sign("test/log\n1\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n")
	index, err := json.Marshal(evidence.Index{V: 1, T: "evidence", Origin: "test/log", Tenant: "acme", Decision: "d1", Size: 1,
		Entries: []evidence.Entry{{Role: evidence.RoleDecision, Subject: "decision:d1"}},
		Missing: []evidence.Missing{{Role: evidence.RoleEndpoint, Subject: "endpoint:route@v1", Why: "not yours to see"}, {Role: evidence.RolePolicy, Subject: "policy:2", Why: "not yours to see"}}})
	if err != nil {
		t.Fatal(err)
	}
	members = map[string][]byte{evidence.IndexFile: index, evidence.CheckpointFile: checkpoint, evidence.KeyFile: []byte(key + "\n"), evidence.ReportFile: []byte("<p>"), evidence.PayloadFile: payload,
		evidence.LeafFile(0): leaf, evidence.ProofFile(0): []byte(evidence.Proof{Checkpoint: string(checkpoint)}.String())}
	members[evidence.ManifestFile] = sign(evidence.Manifest(members))
	dir = t.TempDir()
	save(t, filepath.Join(dir, "bundle.zip"), zipped(t, members))
	save(t, filepath.Join(dir, "leaf"), leaf)
	save(t, filepath.Join(dir, "proof"), members[evidence.ProofFile(0)])
	save(t, filepath.Join(dir, "checkpoint"), checkpoint)
	save(t, filepath.Join(dir, "entries"), append(binary.BigEndian.AppendUint16(nil, uint16(len(leaf))), leaf...))
	save(t, filepath.Join(dir, "key"), []byte(key+"\n"))
	return dir, key, members
}

func zipped(t *testing.T, members map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := evidence.Write(&b, members, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLogVerifyOffline checks bundles and proofs with no hub: no address is set, and none is asked for.
func TestLogVerifyOffline(t *testing.T) {
	t.Parallel()
	dir, key, members := saved(t)
	_, stranger, err := audit.GenerateKey("test/log")
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, member := range map[string]string{"leaf.zip": evidence.LeafFile(0), "payload.zip": evidence.PayloadFile, "report.zip": evidence.ReportFile, "manifest.zip": evidence.ManifestFile} {
		kept := members[member]
		members[member] = bytes.Clone(kept)
		members[member][len(kept)/2] ^= 1
		save(t, at(name), zipped(t, members))
		members[member] = kept
	}
	whole := zipped(t, members)
	save(t, at("short.zip"), whole[:len(whole)-100])
	save(t, at("other"), bytes.Replace(members[evidence.LeafFile(0)], []byte("acme"), []byte("evil"), 1))
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"Bundle", []string{"--bundle", at("bundle.zip"), "--key", key}, exitOK, "decision d1 of tenant acme is entry 0 of the 1 that test/log has signed; its record is the one that the entry names"},
		{"KeyInFile", []string{"--bundle", at("bundle.zip"), "--key", at("key")}, exitOK, "endpoint:route@v1  not in the bundle: not yours to see"},
		{"ItsOwnKey", []string{"--bundle", at("bundle.zip")}, exitOK, "trusting the key that the bundle itself holds"},
		{"AsJSON", []string{"--bundle", at("bundle.zip"), "--key", key, "--json"}, exitOK, `"Payload":true`},
		{"AnotherKey", []string{"--bundle", at("bundle.zip"), "--key", stranger}, exitFinding, "the member MANIFEST is not signed by test/log"},
		{"Leaf", []string{"--bundle", at("leaf.zip"), "--key", key}, exitFinding, "entry 0: its member leaves/0.json was changed"},
		{"Payload", []string{"--bundle", at("payload.zip"), "--key", key}, exitFinding, "the member payload.json was changed"},
		{"Report", []string{"--bundle", at("report.zip"), "--key", key}, exitFinding, "the member report.html was changed"},
		{"Manifest", []string{"--bundle", at("manifest.zip"), "--key", key}, exitFinding, "the member MANIFEST is not signed"},
		{"CutOff", []string{"--bundle", at("short.zip"), "--key", key}, exitFailure, "cut off"},
		{"NotThere", []string{"--bundle", at("none.zip"), "--key", key}, exitFailure, "no such file"},
		{"NoKey", []string{"--bundle", at("bundle.zip"), "--key", "nonsense"}, exitFailure, "is no verifier key"},
		{"Proof", []string{"--proof", at("proof"), "--leaf", at("leaf"), "--key", at("key")}, exitOK, "is entry 0 of the 1 that test/log has signed"},
		{"ProofOfAnother", []string{"--proof", at("proof"), "--leaf", at("other"), "--key", at("key")}, exitFinding, "entry 0 is not in the log as signed"},
		{"ProofThatIsNone", []string{"--proof", at("key"), "--leaf", at("leaf"), "--key", at("key")}, exitFailure, "this is no proof"},
		{"ProofWithoutKey", []string{"--proof", at("proof"), "--leaf", at("leaf")}, exitUsage, "give the log's verifier key"},
		{"ProofWithoutLeaf", []string{"--proof", at("proof"), "--key", key}, exitUsage, "give both --proof and --leaf"},
		{"Entries", []string{"--entries", at("entries"), "--checkpoint", at("checkpoint"), "--key", at("key")}, exitOK, "1 entries are the tree that test/log has signed"},
		{"EntriesCutOff", []string{"--entries", at("leaf"), "--checkpoint", at("checkpoint"), "--key", at("key")}, exitFinding, "entry 0: it is missing or cut off"},
		{"EntriesAlone", []string{"--entries", at("leaf"), "--key", at("key")}, exitUsage, "give both --entries and --checkpoint"},
		{"DirWithoutKey", []string{"--dir", dir}, exitUsage, "give the log's verifier key"},
		{"TwoThings", []string{"--bundle", at("bundle.zip"), "--dir", dir, "--key", key}, exitUsage, "one thing at a time"},
	} {
		code, out, errs := run(t, "", nil, append([]string{"log", "verify"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s%s", c.name, code, c.code, c.says, out, errs)
		}
	}
}

func TestWriteNew_KeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "evidence.zip")
	if err := writeNew(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(path, []byte("second")); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("written over: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "first" {
		t.Errorf("%q, %v", b, err)
	}
}
