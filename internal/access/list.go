package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// MaxPage bounds a page.
const MaxPage = 1000

// Page asks for a part of a list.
type Page struct {
	Size  int    // 0 is 100; at most MaxPage
	Token string // what the page before returned; "" is the first page
}

const (
	listAccounts pg.SQL = `
SELECT a.tenant, a.id, a.kind, a.display_name, a.disabled, a.created_by, a.created_at,
    ARRAY(SELECT b.role FROM access.binding b WHERE b.tenant = a.tenant AND b.account = a.id ORDER BY b.role)
FROM access.account a WHERE a.tenant = $1 AND a.id > $2 ORDER BY a.id LIMIT $3`

	listTokens pg.SQL = `
SELECT id, tenant, account, scopes, created_by, created_at, expires_at, revoked_at, last_used_at
FROM access.token WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`

	listBindings pg.SQL = `
SELECT tenant, account, role FROM access.binding
WHERE tenant = $1 AND (account, role) > ($2, $3) ORDER BY account, role LIMIT $4`

	listRules pg.SQL = `
SELECT tenant, subject, object, action, effect FROM access.rule
WHERE tenant IN ('*', $1) AND (tenant, subject, object, action, effect) > ($2, $3, $4, $5, $6)
ORDER BY tenant, subject, object, action, effect LIMIT $7`
)

// list reads one page: query gets the key to go on after and how many rows to return; key is the key of a row.
func list[T any](p Page, width int, key func(T) []string, query func(after []any, limit int) ([]T, error)) ([]T, string, error) {
	size := p.Size
	if size == 0 {
		size = 100
	}
	if size < 0 || size > MaxPage {
		return nil, "", waybill.InvalidField("page_size", fmt.Sprintf("is %d; give 1 to %d, or 0 for 100", p.Size, MaxPage))
	}
	after := make([]string, width)
	if p.Token != "" {
		bad := waybill.InvalidField("page_token", "is not a token of this list; give next_page_token of the page before")
		raw, err := base64.RawURLEncoding.DecodeString(p.Token)
		if err != nil || len(raw) > 2000 || !utf8.Valid(raw) || json.Unmarshal(raw, &after) != nil || len(after) != width {
			return nil, "", bad
		}
		if strings.Contains(strings.Join(after, ""), "\x00") {
			return nil, "", bad
		}
	}
	args := make([]any, width)
	for i, s := range after {
		args[i] = s
	}
	rows, err := query(args, size+1)
	if err != nil || len(rows) <= size {
		return rows, "", err
	}
	rows = rows[:size]
	raw, err := json.Marshal(key(rows[size-1]))
	if err != nil {
		return nil, "", fmt.Errorf("make page token: %w", err)
	}
	return rows, base64.RawURLEncoding.EncodeToString(raw), nil
}

// ListAccounts lists the accounts of a tenant by id, disabled ones too. The second result is the token of the next page,
// "" after the last.
func (a *Access) ListAccounts(ctx context.Context, tenant waybill.Tenant, p Page) ([]Account, string, error) {
	return list(p, 1, func(c Account) []string { return []string{c.ID} }, func(after []any, limit int) ([]Account, error) {
		out, err := collect[Account](ctx, a.pool, listAccounts, tenant, after[0], limit)
		for i := range out {
			out[i].CreatedAt = out[i].CreatedAt.UTC()
		}
		return out, err
	})
}

// ListBindings lists who has which role in a tenant, by account and role.
func (a *Access) ListBindings(ctx context.Context, tenant waybill.Tenant, p Page) ([]Binding, string, error) {
	return list(p, 2, func(b Binding) []string { return []string{b.Account, b.Role} }, func(after []any, limit int) ([]Binding, error) {
		return collect[Binding](ctx, a.pool, listBindings, tenant, after[0], after[1], limit)
	})
}

// ListRules lists the policy of a tenant: the built-in rules first, then its own, each by subject, object and action.
func (a *Access) ListRules(ctx context.Context, tenant waybill.Tenant, p Page) ([]Rule, string, error) {
	return list(p, 5, Rule.key, func(after []any, limit int) ([]Rule, error) {
		return collect[Rule](ctx, a.pool, listRules, slices.Concat([]any{tenant}, after, []any{limit})...)
	})
}

// ListTokens lists the tokens of a tenant by id, dead ones too, without their secrets.
func (a *Access) ListTokens(ctx context.Context, tenant waybill.Tenant, p Page) ([]Token, string, error) {
	return list(p, 1, func(t Token) []string { return []string{t.ID} }, func(after []any, limit int) ([]Token, error) {
		rows, err := a.pool.Query(ctx, string(listTokens), tenant, after[0], limit)
		if err != nil {
			return nil, fmt.Errorf("select tokens: %w", err)
		}
		out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Token])
		if err != nil {
			return nil, fmt.Errorf("read tokens: %w", err)
		}
		here := a.snap.Load().tokens
		for i := range out {
			t := &out[i]
			t.CreatedAt, t.ExpiresAt = t.CreatedAt.UTC(), t.ExpiresAt.UTC()
			if t.RevokedAt != nil {
				*t.RevokedAt = t.RevokedAt.UTC()
			}
			if t.LastUsedAt != nil {
				*t.LastUsedAt = t.LastUsedAt.UTC()
			}
			if known := here.get(t.ID); known != nil {
				if seen := known.use.seen.Load(); seen != 0 && (t.LastUsedAt == nil || t.LastUsedAt.UnixMicro() < seen) {
					at := time.UnixMicro(seen).UTC()
					t.LastUsedAt = &at
				}
			}
		}
		return out, nil
	})
}
