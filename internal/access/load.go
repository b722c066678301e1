package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

const (
	loadAccounts pg.SQL = `SELECT tenant, id, kind FROM access.account WHERE NOT disabled`
	loadRules    pg.SQL = `SELECT tenant, subject, object, action, effect FROM access.rule ORDER BY tenant, subject, object, action, effect`
	loadBindings pg.SQL = `SELECT tenant, account, role FROM access.binding`
	loadTokens   pg.SQL = `
SELECT id, tenant, account, secret_sha256, scopes, issuers, expires_at, revoked_at
FROM access.token WHERE least(expires_at, revoked_at) > $1`

	selectRevs      pg.SQL = `SELECT rev, full_rev FROM access.policy_rev`
	changedTenants  pg.SQL = `SELECT name FROM access.tenant WHERE rev > $1`
	changedAccounts pg.SQL = `SELECT tenant, id, kind FROM access.account WHERE tenant = ANY ($1) AND NOT disabled`
	changedRules    pg.SQL = `
SELECT tenant, subject, object, action, effect FROM access.rule WHERE tenant = ANY ($1) ORDER BY tenant, subject, object, action, effect`
	changedBindings pg.SQL = `SELECT tenant, account, role FROM access.binding WHERE tenant = ANY ($1)`
	changedTokens   pg.SQL = `
SELECT id, tenant, account, secret_sha256, scopes, issuers, expires_at, revoked_at FROM access.token WHERE rev > $1`

	loadTenantAccounts pg.SQL = `SELECT tenant, id, kind FROM access.account WHERE tenant = $1 AND NOT disabled`
	loadTenantRules    pg.SQL = `SELECT tenant, subject, object, action, effect FROM access.rule WHERE tenant IN ('*', $1) AND action = $2`
	loadTenantBindings pg.SQL = `SELECT tenant, account, role FROM access.binding WHERE tenant = $1`
)

// deadTokens is how long a token that expired or was revoked is told so; later it is unknown. It bounds the snapshot.
const deadTokens = 30 * 24 * time.Hour

type tokenRow struct {
	ID           string
	Tenant       waybill.Tenant
	Account      string
	SecretSHA256 []byte `db:"secret_sha256"`
	Scopes       []string
	Issuers      []string
	ExpiresAt    time.Time
	RevokedAt    *time.Time
	digest       [32]byte
}

// load reads what changed after revision have, or the whole policy when have is negative, in one repeatable-read
// transaction, so that rows and revision belong together. Changes commit in the order of their revisions, so what stands
// at revision rev is all that there is up to it. It returns nil when the revision is still have. The whole is also read
// when the built-in roles changed, when tokens were deleted, and when the revision went back, which it does when the
// database is restored from a copy: then nothing that this node knows can be built upon.
func (a *Access) load(ctx context.Context, have int64) (p *policy, err error) {
	tx, err := a.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin reading policy: %w", err)
	}
	defer func() { // nothing was written: a failing rollback only costs the connection
		if e := tx.Rollback(context.WithoutCancel(ctx)); e != nil && err == nil && !errors.Is(e, pgx.ErrTxClosed) {
			p, err = nil, fmt.Errorf("end reading policy: %w", e)
		}
	}()
	p = &policy{}
	var full int64
	if err := tx.QueryRow(ctx, string(selectRevs)).Scan(&p.rev, &full); err != nil {
		return nil, fmt.Errorf("select policy revision: %w", err)
	}
	if p.rev == have {
		return nil, nil
	}
	p.since = have >= 0 && p.rev > have && full <= have
	if p.since {
		err = p.readSince(ctx, tx, have)
	} else {
		err = p.readAll(ctx, tx, a.clock().Add(-deadTokens))
	}
	if err != nil {
		return nil, err
	}
	for i := range p.tokens {
		t := &p.tokens[i]
		t.digest = [32]byte(t.SecretSHA256)
		t.ExpiresAt = t.ExpiresAt.UTC()
	}
	return p, nil
}

func (p *policy) readAll(ctx context.Context, q pg.Querier, keepDead time.Time) (err error) {
	if p.accounts, err = collect[accountRow](ctx, q, loadAccounts); err != nil {
		return err
	}
	if p.rules, err = collect[Rule](ctx, q, loadRules); err != nil {
		return err
	}
	if p.bindings, err = collect[Binding](ctx, q, loadBindings); err != nil {
		return err
	}
	p.tokens, err = collect[tokenRow](ctx, q, loadTokens, keepDead)
	return err
}

func (p *policy) readSince(ctx context.Context, q pg.Querier, have int64) (err error) {
	if p.tokens, err = collect[tokenRow](ctx, q, changedTokens, have); err != nil {
		return err
	}
	rows, err := q.Query(ctx, string(changedTenants), have)
	if err != nil {
		return fmt.Errorf("select changed tenants: %w", err)
	}
	if p.changed, err = pgx.CollectRows(rows, pgx.RowTo[waybill.Tenant]); err != nil {
		return fmt.Errorf("read changed tenants: %w", err)
	}
	if len(p.changed) == 0 {
		return nil
	}
	if p.accounts, err = collect[accountRow](ctx, q, changedAccounts, p.changed); err != nil {
		return err
	}
	if p.rules, err = collect[Rule](ctx, q, changedRules, p.changed); err != nil {
		return err
	}
	p.bindings, err = collect[Binding](ctx, q, changedBindings, p.changed)
	return err
}

// collect reads rows by position into T, whose exported fields are in the order of the columns.
func collect[T any](ctx context.Context, q pg.Querier, sql pg.SQL, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, string(sql), args...)
	if err != nil {
		return nil, fmt.Errorf("select policy: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return out, nil
}

// keepAdministrator refuses, from inside a change, to leave the tenant with nobody who may administer its policy: such
// a tenant could only be mended by hand in the database.
func keepAdministrator(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant) error {
	var p policy
	var err error
	if p.accounts, err = collect[accountRow](ctx, tx, loadTenantAccounts, tenant); err != nil {
		return err
	}
	if p.rules, err = collect[Rule](ctx, tx, loadTenantRules, tenant, Administer); err != nil {
		return err
	}
	if p.bindings, err = collect[Binding](ctx, tx, loadTenantBindings, tenant); err != nil {
		return err
	}
	s := compile(&p, &snapshot{})
	if own := s.tenants[tenant]; own != nil {
		for id := range own.accounts {
			if s.allowed(tenant, id, "policy", Administer) {
				return nil
			}
		}
	}
	return waybill.Errorf(waybill.Conflict, "this would leave tenant %s with nobody who may administer its policy; give another account the role admin first", tenant)
}
