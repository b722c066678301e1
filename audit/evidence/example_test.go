package evidence_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"waybill/audit/evidence"
)

// Somebody was given an entry of a log and its .tlog-proof, and knows the log's key from elsewhere.
func ExampleProof_Verify() {
	const key = "example.com/log/1+02cd2783+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
	leaf := []byte(`{"v":1,"t":"decision"}`)
	file := exampleProof(leaf)

	p, err := evidence.ParseProof(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := p.Verify(key, leaf)
	fmt.Printf("entry %d of %d in %s: %v\n", p.Index, c.Size, c.Origin, err)

	_, err = p.Verify(key, []byte(`{"v":1,"t":"another"}`))
	fmt.Println(strings.Split(err.Error(), ":")[0])
	// Output:
	// entry 0 of 1 in example.com/log/1: <nil>
	// entry 0 is not in the log as signed
}

// A bundle is verified from its file. The key should come from elsewhere: with none, the bundle's own is taken and
// returned, which shows that the bundle is whole but not whose it is.
func ExampleVerifyFile() {
	v, key, err := evidence.VerifyFile("evidence.zip", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(key, v.Decision, len(v.Entries), len(v.Missing))
	// Output:
	// open bundle: open evidence.zip: no such file or directory
}

// exampleProof is what a log of this one leaf would hand out.
func exampleProof(leaf []byte) []byte {
	secret, _, err := note.GenerateKey(zeros{}, "example.com/log/1")
	if err != nil {
		panic(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		panic(err)
	}
	root := sha256.Sum256(append([]byte{0}, leaf...))
	checkpoint, err := note.Sign(&note.Note{Text: "example.com/log/1\n1\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"}, signer)
	if err != nil {
		panic(err)
	}
	return []byte(evidence.Proof{Index: 0, Checkpoint: string(checkpoint)}.String())
}
