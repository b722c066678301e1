package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// AliasChange is one line of the history of an alias.
type AliasChange struct {
	Alias   string
	Version int // 0: the alias was deleted
	Actor   string
	At      time.Time

	seq int64
}

// The statements of aliases. Times of one alias never run backwards, whatever the clocks of the nodes do: the history
// would otherwise answer "now" with an older change.
const (
	lockModel pg.SQL = `SELECT last_version FROM registry.models WHERE tenant = $1 AND name = $2 FOR NO KEY UPDATE`

	selectAlias pg.SQL = `SELECT version FROM registry.aliases WHERE tenant = $1 AND model = $2 AND alias = $3`

	upsertAlias pg.SQL = `
INSERT INTO registry.aliases (tenant, model, alias, version) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, model, alias) DO UPDATE SET version = excluded.version`

	deleteAlias pg.SQL = `DELETE FROM registry.aliases WHERE tenant = $1 AND model = $2 AND alias = $3`

	appendAlias pg.SQL = `
INSERT INTO registry.alias_history (tenant, model, alias, version, actor, at)
VALUES ($1, $2, $3, $4, $5, greatest($6::timestamptz,
    (SELECT max(at) FROM registry.alias_history WHERE tenant = $1 AND model = $2 AND alias = $3)))`

	aliasAt pg.SQL = `
SELECT coalesce(version, 0) FROM registry.alias_history
WHERE tenant = $1 AND model = $2 AND alias = $3 AND at <= $4 ORDER BY at DESC, seq DESC LIMIT 1`

	aliasChanges pg.SQL = `
SELECT seq, alias, coalesce(version, 0), actor, at FROM registry.alias_history
WHERE tenant = $1 AND model = $2 AND ($3::bigint = 0 OR seq < $3::bigint) ORDER BY seq DESC LIMIT $4`
)

// MaxAliases bounds the aliases of one model.
const MaxAliases = 100

const countAliases pg.SQL = `SELECT count(*) FROM registry.aliases WHERE tenant = $1 AND model = $2`

// SetAlias points an alias such as "champion" at a version and keeps what it pointed at before. Setting it to where
// it points already changes nothing. It may name a version in any state: what serves is decided by the state alone.
// Errors: Invalid, NotFound for the version, TooLarge beyond MaxAliases.
func (s *Store) SetAlias(ctx context.Context, actor waybill.Actor, model, alias string, version int) (Version, error) {
	if err := errors.Join(checkActor(actor), checkAlias(alias)); err != nil {
		return Version{}, plain(err)
	}
	ref := waybill.VersionRef{Name: model, Version: version}
	if err := checkRef(ref); err != nil {
		return Version{}, err
	}
	var v Version
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		now := s.now()
		if err := s.lockModel(ctx, tx, actor.Tenant, model); err != nil {
			return err
		}
		previous, err := currentAlias(ctx, tx, actor.Tenant, model, alias)
		if err != nil {
			return err
		}
		if previous == version {
			v, err = load(ctx, tx, actor.Tenant, ref)
			return err
		}
		if _, err := lock(ctx, tx, actor.Tenant, ref); err != nil {
			return err
		}
		if previous == 0 {
			var n int
			if err := tx.QueryRow(ctx, string(countAliases), actor.Tenant, model).Scan(&n); err != nil {
				return fmt.Errorf("count aliases: %w", err)
			}
			if n >= MaxAliases {
				return waybill.Errorf(waybill.TooLarge, "%s has %d aliases, the most a model may have; delete one first", model, n)
			}
		}
		if _, err := tx.Exec(ctx, string(upsertAlias), actor.Tenant, model, alias, version); err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
		if _, err := tx.Exec(ctx, string(appendAlias), actor.Tenant, model, alias, version, actor.ID, now); err != nil {
			return fmt.Errorf("append alias history: %w", err)
		}
		if v, err = load(ctx, tx, actor.Tenant, ref); err != nil {
			return err
		}
		return s.record(ctx, tx, actor, v, now, change{
			action: "set_alias", digest: v.Digest, notify: true, detail: map[string]any{"alias": alias, "previous": previous},
		})
	})
	if err != nil {
		return Version{}, plain(err)
	}
	return v, nil
}

// DeleteAlias removes an alias; its history stays. Errors: Invalid, NotFound.
func (s *Store) DeleteAlias(ctx context.Context, actor waybill.Actor, model, alias string) error {
	if err := errors.Join(checkActor(actor), waybill.CheckName("model", model), checkAlias(alias)); err != nil {
		return plain(err)
	}
	return plain(pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		now := s.now()
		if err := s.lockModel(ctx, tx, actor.Tenant, model); err != nil {
			return err
		}
		previous, err := currentAlias(ctx, tx, actor.Tenant, model, alias)
		if err != nil {
			return err
		}
		if previous == 0 {
			return noAlias(model, alias)
		}
		if _, err := tx.Exec(ctx, string(deleteAlias), actor.Tenant, model, alias); err != nil {
			return fmt.Errorf("delete alias: %w", err)
		}
		if _, err := tx.Exec(ctx, string(appendAlias), actor.Tenant, model, alias, nil, actor.ID, now); err != nil {
			return fmt.Errorf("append alias history: %w", err)
		}
		return s.record(ctx, tx, actor, Version{Model: model, Version: previous}, now, change{
			action: "delete_alias", notify: true, detail: map[string]any{"alias": alias, "previous": previous},
		})
	}))
}

// AliasAt returns which version an alias named at a time. Errors: Invalid, NotFound when it named none then.
func (s *Store) AliasAt(ctx context.Context, tenant waybill.Tenant, model, alias string, at time.Time) (waybill.VersionRef, error) {
	if err := errors.Join(waybill.CheckName("model", model), checkAlias(alias)); err != nil {
		return waybill.VersionRef{}, plain(err)
	}
	var version int
	err := s.pool.QueryRow(ctx, string(aliasAt), tenant, model, alias, at.UTC()).Scan(&version)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return waybill.VersionRef{}, fmt.Errorf("look up alias: %w", err)
	}
	if version == 0 {
		return waybill.VersionRef{}, waybill.Errorf(waybill.NotFound, "%s had no alias %s at %s", model, alias, at.UTC().Format(time.RFC3339))
	}
	return waybill.VersionRef{Name: model, Version: version}, nil
}

// AliasHistory lists the changes of a model's aliases, newest first. An unknown model has none.
func (s *Store) AliasHistory(ctx context.Context, tenant waybill.Tenant, model string, p Page) ([]AliasChange, string, error) {
	if err := waybill.CheckName("model", model); err != nil {
		return nil, "", err
	}
	size, after, err := p.bySeq()
	if err != nil {
		return nil, "", err
	}
	rows, err := s.pool.Query(ctx, string(aliasChanges), tenant, model, after, size+1)
	if err != nil {
		return nil, "", fmt.Errorf("list alias history: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (AliasChange, error) {
		var c AliasChange
		err := row.Scan(&c.seq, &c.Alias, &c.Version, &c.Actor, &c.At)
		c.At = c.At.UTC()
		return c, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("list alias history: %w", err)
	}
	list, next := cut(list, size, func(c AliasChange) string { return seqToken(c.seq) })
	return list, next, nil
}

// lockModel serialises changes of a model's aliases with each other and with new versions.
func (s *Store) lockModel(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant, model string) error {
	var last int
	err := tx.QueryRow(ctx, string(lockModel), tenant, model).Scan(&last)
	if errors.Is(err, pgx.ErrNoRows) {
		return noModel(model)
	}
	if err != nil {
		return fmt.Errorf("lock model: %w", err)
	}
	return nil
}

// currentAlias returns the version that an alias names, 0 when there is none.
func currentAlias(ctx context.Context, q pg.Querier, tenant waybill.Tenant, model, alias string) (int, error) {
	var version int
	err := q.QueryRow(ctx, string(selectAlias), tenant, model, alias).Scan(&version)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("look up alias: %w", err)
	}
	return version, nil
}

func noAlias(model, alias string) error {
	return waybill.Errorf(waybill.NotFound, "the model %s has no alias %s", model, alias)
}

func noModel(model string) error {
	return waybill.Errorf(waybill.NotFound, "there is no model %s", model)
}
