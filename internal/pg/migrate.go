package pg

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock under which migrations run, so that two nodes starting at once take turns.
const migrationLock = 0x7761_7962 // "wayb"

const (
	createMigrationTable = `CREATE TABLE IF NOT EXISTS public.waybill_migration (
	name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`
	selectMigrations = `SELECT name, sha256 FROM public.waybill_migration ORDER BY name`
	insertMigration  = `INSERT INTO public.waybill_migration (name, sha256) VALUES ($1, $2)`
)

type migration struct{ name, sha256, sql string }

func known() ([]migration, error) {
	entries, err := migrations.ReadDir("migrations") // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var out []migration
	for _, e := range entries {
		b, err := migrations.ReadFile("migrations/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		sum := sha256.Sum256(b)
		out = append(out, migration{strings.TrimSuffix(e.Name(), ".sql"), hex.EncodeToString(sum[:]), string(b)})
	}
	return out, nil
}

// SchemaDigest names the schema that this binary knows: the digest of all its migrations.
func SchemaDigest() (string, error) {
	all, err := known()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, m := range all {
		h.Write([]byte(m.name + m.sha256))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Migrate brings the schema to what this binary knows, each file in a transaction of its own, and returns the names
// of those applied now. It only goes forward. A crash leaves every file either applied and recorded or neither.
func Migrate(ctx context.Context, pool *pgxpool.Pool) (applied []string, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("acquire connection: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return nil, fmt.Errorf("lock migrations: %w", err)
	}
	defer func() {
		// Should this fail the session is broken, and its locks go with it.
		if _, e := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock); e != nil && err == nil {
			err = fmt.Errorf("unlock migrations: %w", e)
		}
	}()
	if _, err := conn.Exec(ctx, createMigrationTable); err != nil {
		return nil, fmt.Errorf("create migration table: %w", err)
	}
	missing, err := compare(ctx, conn)
	if err != nil {
		return nil, err
	}
	for _, m := range missing {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, m.sql); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, insertMigration, m.name, m.sha256)
			return err
		})
		if err != nil {
			return applied, fmt.Errorf("apply migration %s: %w", m.name, err)
		}
		applied = append(applied, m.name)
	}
	return applied, nil
}

// CheckSchema refuses a database that this binary does not know: one that lacks a migration, has another text of one,
// or has one that is newer than the binary.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool) error {
	missing, err := compare(ctx, pool)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return waybill.Errorf(waybill.Conflict, "the database lacks migration %s; run waybill migrate", missing[0].name)
	}
	return nil
}

// compare returns the known migrations that the database lacks, and an error when it holds what we do not know.
func compare(ctx context.Context, q Querier) ([]migration, error) {
	all, err := known()
	if err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, selectMigrations)
	if err != nil {
		return nil, fmt.Errorf("select migrations: %w", err)
	}
	have := map[string]string{}
	var name, sum string
	if _, err := pgx.ForEachRow(rows, []any{&name, &sum}, func() error { have[name] = sum; return nil }); err != nil {
		if strings.Contains(err.Error(), "42P01") {
			return all, nil // no table yet: an empty database
		}
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var missing []migration
	for _, m := range all {
		switch sum, there := have[m.name]; {
		case !there:
			missing = append(missing, m)
		case sum != m.sha256:
			return nil, waybill.Errorf(waybill.Conflict, "migration %s in the database has another text than in this binary; use the binary that made the database", m.name)
		}
		delete(have, m.name)
	}
	for name := range have {
		return nil, waybill.Errorf(waybill.Conflict, "the database has migration %s, which this binary does not know; use a newer binary", name)
	}
	return missing, nil
}
