package devstack

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPlace: a cluster goes where its account can reach it. Root's home and a temporary folder are closed to others.
func TestPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "postgres")
	if got, err := place(at, nil); err != nil || got != at {
		t.Fatalf("without an account of its own: %s, %v", got, err)
	}
	if os.Geteuid() != 0 {
		return // only root runs Postgres as somebody else
	}
	got, err := place(at, &syscall.Credential{Uid: 65534, Gid: 65534})
	if err != nil || !strings.HasPrefix(got, openFolder+"/") {
		t.Fatalf("%s, %v", got, err)
	}
	info, err := os.Stat(openFolder)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("%s is not open to the account: %v, %v", openFolder, info.Mode(), err)
	}
	if again, err := place(at, &syscall.Credential{Uid: 65534, Gid: 65534}); err != nil || again != got {
		t.Fatalf("the second time %s, %v", again, err)
	}
}
