package devstack_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill/internal/bucket"
	"waybill/internal/devstack"
)

// One test: the S3 gateway allows one instance per process, so the steps of a stack's life follow each other.
func TestStack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "data")
	for p := filepath.Dir(dir); strings.HasPrefix(p, os.TempDir()) && p != os.TempDir(); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil { // TempDir is closed to the postgres account
			t.Fatal(err)
		}
	}
	open := func() *devstack.Stack {
		t.Helper()
		s, err := devstack.Open(ctx, devstack.Config{Dir: dir, PostgresBin: []string{"../../.build/postgres/bin"}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	query := func(sql string) (n int) {
		t.Helper()
		var err error
		for start := time.Now(); time.Since(start) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
			var conn *pgx.Conn
			if conn, err = pgx.Connect(ctx, s.DSN()); err != nil {
				continue
			}
			err = conn.QueryRow(ctx, sql).Scan(&n)
			if closeErr := conn.Close(ctx); closeErr != nil {
				t.Fatal(closeErr)
			}
			if err == nil {
				return n
			}
		}
		t.Fatalf("%s: %v", sql, err)
		return 0
	}
	query("WITH t AS (SELECT 1) SELECT 1")
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Open(ctx, s.Bucket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "kept", strings.NewReader("bytes"), 5); err != nil {
		t.Fatal(err)
	}

	t.Log("a second Open on the folder is refused and names this process")
	_, err = devstack.Open(ctx, devstack.Config{Dir: dir})
	if want := fmt.Sprintf("process %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("second Open: %v, want it to name %s", err, want)
	}

	t.Log("Postgres never runs as root")
	first := s.PostgresPID()
	info, err := os.Stat(fmt.Sprintf("/proc/%d", first))
	if err != nil {
		t.Fatal(err)
	}
	if info.Sys().(*syscall.Stat_t).Uid == 0 {
		t.Fatal("postgres runs as root")
	}

	t.Log("a killed Postgres comes back with what was committed")
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if n := query("SELECT n FROM kept"); n != 7 {
		t.Fatalf("read %d, want 7", n)
	}
	if s.PostgresPID() == first {
		t.Fatal("the process id did not change: nothing was killed")
	}

	t.Log("Close and Open keep rows and objects")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if n := query("SELECT n FROM kept"); n != 7 {
		t.Fatalf("read %d after reopening, want 7", n)
	}
	if b, err = bucket.Open(ctx, s.Bucket()); err != nil {
		t.Fatal(err)
	}
	body, size, err := b.Get(ctx, "kept")
	if err != nil || size != 5 {
		t.Fatalf("get: %d bytes, %v", size, err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
}
