package evidence_test

import (
	"archive/zip"
	"io"
	"testing"
)

// deflated writes a zip file with one compressed member.
func deflated(t testing.TB, w io.Writer, name string, content []byte) {
	t.Helper()
	z := zip.NewWriter(w)
	f, err := z.Create(name)
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
