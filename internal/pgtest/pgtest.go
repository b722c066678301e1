// Package pgtest gives every test a real Postgres database and a real S3 bucket. Each test process has a private,
// throw-away cluster and gateway of its own, started on first use and ended by the kernel together with the process,
// however that ends; what an earlier process left on disk is swept. A missing Postgres fails the test: it never skips.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill/internal/bucket"
	"waybill/internal/devstack"
	"waybill/internal/jobs"
	"waybill/internal/pg"
)

// server is this process's stack with a migrated template database. It is started once.
var server = sync.OnceValues(start)

// names numbers databases and buckets within the process.
var names atomic.Int64

type running struct {
	stack  *devstack.Stack
	admin  *pgxpool.Pool // on the database postgres
	shared *pgxpool.Pool // on a migrated database, for Tx
}

func start() (*running, error) {
	ctx := context.Background()
	sweep()
	dir, err := os.MkdirTemp("", "waybill-test-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the postgres account passes through it
		return nil, err
	}
	stack, err := devstack.Open(ctx, devstack.Config{Dir: dir, Throwaway: true, PostgresBin: localBinaries()})
	if err != nil {
		return nil, err
	}
	r := &running{stack: stack}
	if r.admin, err = pg.Open(ctx, pg.Config{DSN: stack.DatabaseDSN("postgres")}); err != nil {
		return nil, err
	}
	template, err := pg.Open(ctx, pg.Config{DSN: stack.DSN()})
	if err != nil {
		return nil, err
	}
	if _, err := pg.Migrate(ctx, template); err != nil {
		return nil, err
	}
	if err := jobs.Migrate(ctx, template); err != nil {
		return nil, err
	}
	template.Close() // a template must have no sessions
	if _, err := r.admin.Exec(ctx, "CREATE DATABASE shared TEMPLATE waybill"); err != nil {
		return nil, err
	}
	r.shared, err = pg.Open(ctx, pg.Config{DSN: stack.DatabaseDSN("shared"), MaxConns: 32})
	return r, err
}

// began is where the process began: the S3 gateway changes its working directory.
var began, _ = os.Getwd()

// localBinaries are the Postgres that `make setup` may have put into the work tree.
func localBinaries() []string {
	for dir := began; len(dir) > 1; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return []string{filepath.Join(dir, ".build", "postgres", "bin")}
		}
	}
	return nil
}

// sweep removes the folders of test processes that are gone: their lock can be taken.
func sweep() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "waybill-test-*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue // not ours, or only just made
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, "sweep:", err)
			}
		}
		if err := f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "sweep:", err)
		}
	}
}

func use(t testing.TB) *running {
	t.Helper()
	r, err := server()
	if err != nil {
		t.Fatalf("start Postgres and S3 for tests: %v", err)
	}
	return r
}

// DB returns a migrated database of the test's own. It is dropped after the test, or kept and named when the test
// failed.
func DB(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(context.Background(), pg.Config{DSN: DSN(t), MaxConns: 32})
	if err != nil {
		t.Fatalf("open test database: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// DSN is DB for tests that open their own pools, such as those that start a whole hub.
func DSN(t testing.TB) string {
	t.Helper()
	r := use(t)
	name := fmt.Sprintf("t%d", names.Add(1))
	if _, err := r.admin.Exec(context.Background(), "CREATE DATABASE "+name+" TEMPLATE waybill"); err != nil {
		t.Fatalf("clone template database: %v", err)
	}
	dsn := r.stack.DatabaseDSN(name)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("database of the failed test while this process lives: psql %q", dsn)
			return
		}
		if _, err := r.admin.Exec(context.Background(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return dsn
}

// Tx returns a transaction on a migrated database that all tests share; it is rolled back after the test.
func Tx(t testing.TB) pgx.Tx {
	t.Helper()
	tx, err := use(t).shared.Begin(context.Background())
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	t.Cleanup(func() {
		if err := tx.Rollback(context.Background()); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Errorf("rollback: %v", err)
		}
	})
	return tx
}

// BucketConfig is a new bucket's address.
func BucketConfig(t testing.TB) bucket.Config {
	t.Helper()
	c := use(t).stack.Bucket()
	c.Bucket = fmt.Sprintf("test-%d", names.Add(1))
	return c
}

// TestBucket returns a new, empty bucket.
func TestBucket(t testing.TB) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(context.Background(), BucketConfig(t))
	if err != nil {
		t.Fatalf("open test bucket: %v", err)
	}
	return b
}
