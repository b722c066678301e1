package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"waybill"
)

// fuzzKey is a key pair that is the same in every run, so that inputs that were found keep their meaning.
func fuzzKey(t testing.TB) (note.Signer, string) {
	t.Helper()
	signer, key, err := note.GenerateKey(bytes.NewReader(make([]byte, ed25519.SeedSize)), "fuzz.example/log/1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(signer)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func signed(t testing.TB, s note.Signer, text string) []byte {
	t.Helper()
	raw, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzNote feeds OpenCheckpoint what a stranger may send: nothing of it is signed, so nothing may be accepted but the
// one checkpoint that is.
func FuzzNote(f *testing.F) {
	s, key := fuzzKey(f)
	text := "fuzz.example/log/1\n1\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"
	good := signed(f, s, text)
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add([]byte(text + "\n— fuzz.example/log/1 AAAA\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := OpenCheckpoint(key, raw)
		if err == nil && (!strings.HasPrefix(string(raw), text+"\n") || c.Size != 1) {
			t.Errorf("accepted: %q", raw)
		}
		if err != nil && waybill.CodeOf(err) != waybill.Corrupt {
			t.Errorf("%v", err)
		}
	})
}

// FuzzCheckpoint feeds the reader behind the signature: what it accepts has one spelling.
func FuzzCheckpoint(f *testing.F) {
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	f.Add("o\n1\n" + root + "\n")
	f.Add("o\n01\n" + root + "\nextension\n")
	f.Add("o\n9223372036854775807\n" + root[:43] + "\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCheckpoint(text)
		if err != nil {
			return
		}
		again := c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root) + "\n"
		if !strings.HasPrefix(text, again) || c.Size < 0 || len(c.Root) != 32 {
			t.Errorf("%q is read as %q", text, again)
		}
	})
}

// FuzzProof feeds the parser of .tlog-proof files.
func FuzzProof(f *testing.F) {
	s, key := fuzzKey(f)
	leaf := []byte("leaf")
	h := LeafHash(leaf)
	checkpoint := string(signed(f, s, "fuzz.example/log/1\n1\n"+base64.StdEncoding.EncodeToString(h[:])+"\n"))
	f.Add([]byte(Proof{Checkpoint: checkpoint}.String()))
	f.Add([]byte(Proof{Extra: []byte{}, Index: 1 << 60, Path: [][]byte{h[:], h[:]}, Checkpoint: checkpoint}.String()))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParseProof(raw)
		if err != nil {
			return
		}
		if p.String() != string(raw) {
			t.Errorf("%q is read as %q", raw, p.String())
		}
		if c, err := p.Verify(key, leaf); err == nil && (c.Size != 1 || p.Index != 0 || len(p.Path) > 0) {
			t.Errorf("proven: %q", raw)
		}
	})
}

// FuzzEntries feeds the reader of a file of entries, with the checkpoint of three.
func FuzzEntries(f *testing.F) {
	file := []byte{0, 1, 'a', 0, 0, 0, 2, 'b', 'c'}
	a, b, c := LeafHash([]byte("a")), LeafHash(nil), LeafHash([]byte("bc"))
	node := rfc6962.DefaultHasher.HashChildren
	head := Checkpoint{Size: 3, Root: node(node(a[:], b[:]), c[:])}
	f.Add(file)
	f.Add(file[:5])
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := CheckEntries(bytes.NewReader(raw), head, nil)
		if err == nil != bytes.Equal(raw, file) || err != nil && waybill.CodeOf(err) != waybill.Corrupt {
			t.Errorf("%q: %v", raw, err)
		}
	})
}

// FuzzBundle feeds the reader of zip files and the verifier behind it: nothing is accepted but the one that was signed.
func FuzzBundle(f *testing.F) {
	members, key := fuzzBundle(f)
	var file bytes.Buffer
	if err := Write(&file, members, time.Unix(0, 0)); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add(file.Bytes()[:file.Len()-30])
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Read(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		if _, err := Verify(got, key); err != nil {
			return
		}
		for name, b := range members {
			if name != ManifestFile && !bytes.Equal(got[name], b) { // signatures of strangers may be added to a note
				t.Errorf("accepted with another %s: %q", name, got[name])
			}
		}
	})
}

// FuzzSignedBundle feeds what stands behind the manifest's signature: index, leaf and proof of a log that lies.
func FuzzSignedBundle(f *testing.F) {
	members, key := fuzzBundle(f)
	s, _ := fuzzKey(f)
	f.Add(members[IndexFile], members[LeafFile(0)], members[ProofFile(0)], members[PayloadFile])
	f.Fuzz(func(t *testing.T, index, leaf, proof, payload []byte) {
		h := LeafHash(leaf)
		m := map[string][]byte{IndexFile: index, LeafFile(0): leaf, ProofFile(0): proof, PayloadFile: payload, KeyFile: members[KeyFile], ReportFile: {},
			CheckpointFile: signed(t, s, "fuzz.example/log/1\n1\n"+base64.StdEncoding.EncodeToString(h[:])+"\n")}
		m[ManifestFile] = signed(t, s, Manifest(m))
		v, err := Verify(m, key)
		if err == nil && (v.Size != 1 || len(v.Entries) != 1 || v.Entries[0].Index != 0) {
			t.Errorf("accepted: %+v", v)
		}
	})
}

// fuzzBundle is a bundle of one entry: a blocked decision.
func fuzzBundle(t testing.TB) (map[string][]byte, string) {
	t.Helper()
	s, key := fuzzKey(t)
	leaf := []byte(`{"v":1,"t":"decision","tenant":"a","id":"d","endpoint":"e@v1","payload":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`)
	h := LeafHash(leaf)
	checkpoint := signed(t, s, "fuzz.example/log/1\n1\n"+base64.StdEncoding.EncodeToString(h[:])+"\n")
	m := map[string][]byte{
		IndexFile: []byte(`{"v":1,"t":"evidence","origin":"fuzz.example/log/1","tenant":"a","decision":"d","size":1,"payload_missing":"",` +
			`"entries":[{"role":"decision","subject":"decision:d","index":0,"text":false}],` +
			`"missing":[{"role":"endpoint","subject":"endpoint:e@v1","why":"x"},{"role":"policy","subject":"policy:0","why":"x"}]}`),
		CheckpointFile: checkpoint, KeyFile: []byte(key + "\n"), ReportFile: {}, PayloadFile: {},
		LeafFile(0): leaf, ProofFile(0): []byte(Proof{Checkpoint: string(checkpoint)}.String()),
	}
	m[ManifestFile] = signed(t, s, Manifest(m))
	if _, err := Verify(m, key); err != nil {
		t.Fatal(err)
	}
	return m, key
}
