package pg_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
	"waybill/internal/pgtest"
)

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

// TestStatementsPrepare finds every constant of type pg.SQL in the module and PREPAREs it on the migrated schema:
// syntax, tables, columns and types are checked without running anything.
func TestStatementsPrepare(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tx := pgtest.Tx(t)
	n := 0
	err := filepath.WalkDir(filepath.Join(packageDir, "..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == ".build" || d.Name() == "proto") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				v := spec.(*ast.ValueSpec)
				if !isSQL(v.Type) {
					continue
				}
				for i, name := range v.Names {
					text, err := strconv.Unquote(literal(v.Values[i]))
					if err != nil {
						t.Errorf("%s: %s is not one string literal", path, name)
						continue
					}
					n++
					save, err := tx.Begin(ctx)
					if err != nil {
						return err
					}
					if _, err := tx.Prepare(ctx, name.Name+strconv.Itoa(n), text); err != nil {
						t.Errorf("%s: %s: %v", path, name.Name, err)
					}
					if err := save.Rollback(ctx); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 10 {
		t.Errorf("only %d statements found: the walk is broken", n)
	}
	t.Logf("%d statements prepared", n)
}

func isSQL(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == "pg" && sel.Sel.Name == "SQL"
}

func literal(e ast.Expr) string {
	if lit, ok := e.(*ast.BasicLit); ok {
		return lit.Value
	}
	return ""
}

func TestMigrate_IsIdempotentAndRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool := pgtest.DB(t)
	applied, err := pg.Migrate(ctx, pool)
	if err != nil || len(applied) != 0 {
		t.Fatalf("second run applied %v, %v", applied, err)
	}
	if err := pg.CheckSchema(ctx, pool); err != nil {
		t.Fatal(err)
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("INSERT INTO public.waybill_migration VALUES ('9999_future', 'x')")
	if err := pg.CheckSchema(ctx, pool); waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(err.Error(), "9999_future") {
		t.Errorf("newer database: %v", err)
	}
	exec("DELETE FROM public.waybill_migration WHERE name = '9999_future'")
	exec("UPDATE public.waybill_migration SET sha256 = 'x' WHERE name = '0002_lineage'")
	if _, err := pg.Migrate(ctx, pool); waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(err.Error(), "0002_lineage") {
		t.Errorf("changed migration: %v", err)
	}
	exec("DELETE FROM public.waybill_migration WHERE name = '0002_lineage'")
	if err := pg.CheckSchema(ctx, pool); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("older database: %v", err)
	}
}

func TestInTx(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool := pgtest.DB(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE x (n int CONSTRAINT x_once UNIQUE)"); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		t.Helper()
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM x").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	broken := errors.New("no")
	insert := func(then error) error {
		return pg.InTx(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO x VALUES (1)"); err != nil {
				return err
			}
			return then
		})
	}
	if err := insert(broken); !errors.Is(err, broken) || count() != 0 {
		t.Fatalf("an error must roll back: %v, %d rows", err, count())
	}
	if err := insert(nil); err != nil || count() != 1 {
		t.Fatalf("commit: %v, %d rows", err, count())
	}
	if err := insert(nil); !pg.IsUnique(err, "x_once") || pg.IsUnique(err, "other") {
		t.Fatalf("unique: %v", err)
	}
	// The session is ended under the transaction: nothing stands, and the caller is told to try again.
	err := pg.InTx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM x"); err != nil {
			return err
		}
		if _, err := pool.Exec(ctx, "SELECT pg_terminate_backend($1)", tx.Conn().PgConn().PID()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT 1")
		return err
	})
	if waybill.CodeOf(err) != waybill.Unavailable || count() != 1 {
		t.Fatalf("lost session: %v, %d rows", err, count())
	}
	tries := 0
	err = pg.InTx(ctx, pool, func(tx pgx.Tx) error {
		if tries++; tries < 3 {
			_, err := tx.Exec(ctx, "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")
			return err
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Fatalf("retry: %v after %d tries", err, tries)
	}
}

func TestListen_SurvivesALostSession(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	pool := pgtest.DB(t)
	calls := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		done <- pg.Listen(ctx, pool, "things", time.Hour, func(context.Context) error { calls <- struct{}{}; return nil })
	}()
	next := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(10 * time.Second):
			t.Fatalf("not called %s", what)
		}
	}
	next("at the start")
	next("after connecting")
	if _, err := pool.Exec(ctx, "NOTIFY things"); err != nil {
		t.Fatal(err)
	}
	next("after NOTIFY")
	if _, err := pool.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()"); err != nil {
		t.Fatal(err)
	}
	next("after the session was lost and opened again")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
