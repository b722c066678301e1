package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// Bounds, per tenant or account. They keep the snapshot, which holds all of it in memory, and its compilation small.
const (
	maxRules    = 100_000
	maxAccounts = 100_000
	maxRoles    = 32  // of one account
	maxTokens   = 256 // of one account, living
	maxTTL      = 365 * 24 * time.Hour
	// bootstrapTTL is the life of an administrator's first token.
	bootstrapTTL = 30 * 24 * time.Hour
)

// Account is a person or a program of one tenant.
type Account struct {
	Tenant      waybill.Tenant
	ID          string
	Kind        waybill.ActorKind
	DisplayName string
	Disabled    bool
	CreatedBy   string
	CreatedAt   time.Time
	Roles       []string // sorted
}

// Token is a token without its secret.
type Token struct {
	ID         string
	Tenant     waybill.Tenant
	Account    string
	Scopes     []string // sorted; empty is all that the account may do
	CreatedBy  string
	CreatedAt  time.Time
	ExpiresAt  time.Time
	RevokedAt  *time.Time
	LastUsedAt *time.Time // Postgres knows it up to a minute late; this node adds what it has seen itself

	issuers []string // see waybill.Credential
}

const (
	insertTenant pg.SQL = `
INSERT INTO access.tenant (name, operator, created_by, created_at)
SELECT $1, NOT EXISTS (SELECT FROM access.tenant WHERE operator), $2, $3 ON CONFLICT DO NOTHING`
	tenantExists   pg.SQL = `SELECT EXISTS (SELECT FROM access.tenant WHERE name = $1)`
	operatorTenant pg.SQL = `SELECT operator FROM access.tenant WHERE name = $1`

	insertAccount pg.SQL = `
INSERT INTO access.account (tenant, id, kind, display_name, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING`
	countAccounts  pg.SQL = `SELECT count(*) FROM access.account WHERE tenant = $1`
	selectDisabled pg.SQL = `SELECT disabled FROM access.account WHERE tenant = $1 AND id = $2`
	setDisabled    pg.SQL = `UPDATE access.account SET disabled = $3 WHERE tenant = $1 AND id = $2`

	insertBinding pg.SQL = `
INSERT INTO access.binding (tenant, account, role, created_by, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`
	deleteBinding pg.SQL = `DELETE FROM access.binding WHERE tenant = $1 AND account = $2 AND role = $3`
	countBindings pg.SQL = `SELECT count(*) FROM access.binding WHERE tenant = $1 AND account = $2`
	roleExists    pg.SQL = `SELECT EXISTS (SELECT FROM access.rule WHERE tenant IN ('*', $1) AND subject = $2)`

	insertRule pg.SQL = `
INSERT INTO access.rule (tenant, subject, object, action, effect, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING`
	deleteRule pg.SQL = `
DELETE FROM access.rule WHERE tenant = $1 AND subject = $2 AND object = $3 AND action = $4 AND effect = $5`
	countRules pg.SQL = `SELECT count(*) FROM access.rule WHERE tenant = $1`

	insertToken pg.SQL = `
INSERT INTO access.token (id, tenant, account, secret_sha256, scopes, created_by, created_at, expires_at, issuers)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	countTokens pg.SQL = `
SELECT count(*) FROM access.token WHERE tenant = $1 AND account = $2 AND expires_at > $3 AND revoked_at IS NULL`
	selectRevoked pg.SQL = `SELECT revoked_at IS NOT NULL FROM access.token WHERE tenant = $1 AND id = $2`
	revokeToken   pg.SQL = `UPDATE access.token SET revoked_at = $3 WHERE tenant = $1 AND id = $2`
)

// change is the detail of a policy.change or token.change entry in the decision log.
type change struct {
	Op      string     `json:"op"`
	Rev     int64      `json:"policy_rev"`
	Account string     `json:"account,omitempty"`
	Kind    string     `json:"kind,omitempty"`
	Roles   []string   `json:"roles,omitempty"`
	Rule    *ruleLine  `json:"rule,omitempty"`
	TokenID string     `json:"token_id,omitempty"`
	Scopes  []string   `json:"scopes,omitempty"`
	Issuers []string   `json:"issuers,omitempty"`
	Expires *time.Time `json:"expires_at,omitempty"`
	Version int        `json:"version,omitempty"`
}

type ruleLine struct {
	Subject string `json:"subject"`
	Object  string `json:"object"`
	Action  string `json:"action"`
	Effect  Effect `json:"effect"`
}

func policyEvent(by waybill.Actor, at time.Time, rev int64, c change) audit.Event {
	c.Rev = rev
	return audit.Event{
		Type: "policy.change", Tenant: by.Tenant, Actor: by.ID, At: at, Subject: fmt.Sprintf("policy:%d", rev), Detail: c,
	}
}

func tokenEvent(by waybill.Actor, at time.Time, rev int64, c change) audit.Event {
	c.Rev = rev
	return audit.Event{Type: "token.change", Tenant: by.Tenant, Actor: by.ID, At: at, Subject: "token:" + c.TokenID, Detail: c}
}

// checkActor refuses nobody: every change has an author and a tenant.
func checkActor(by waybill.Actor) error {
	if waybill.CheckName("tenant", string(by.Tenant)) != nil || waybill.CheckName("account", by.ID) != nil {
		return waybill.Errorf(waybill.Denied, "the caller is not an account of a tenant")
	}
	return nil
}

// Bootstrap makes what is missing of a tenant, its administrator (a person) and the role admin, and returns a fresh
// token that is good for 30 days. It is for the command line of whoever holds the database, never for the API: run again
// it makes one more token, also for an administrator who lost the role; it leaves older tokens alone. It refuses a
// disabled account (Conflict). The first tenant ever is the hub's own: its administrators may make more tenants.
func (a *Access) Bootstrap(ctx context.Context, tenant waybill.Tenant, adminID string) (string, error) {
	by := waybill.Actor{ID: "waybill", Tenant: tenant}
	token, _, err := a.makeTenant(ctx, by, tenant, adminID, false)
	return token, err
}

// CreateTenant makes a new tenant with one administrator and returns the administrator's first token, good for 30 days.
// Only actors of the hub's own tenant may, and none with a token that is for some actions only, since the first token is
// for all: to all others it answers Denied whether or not the name is taken. g is what by showed.
func (a *Access) CreateTenant(ctx context.Context, by waybill.Actor, g Grant, tenant waybill.Tenant, adminID string) (string, error) {
	if err := checkActor(by); err != nil {
		return "", err
	}
	if len(g.Scopes) > 0 {
		return "", a.refuse(by, g, "tenant", "the token in use is for %s only, and the first token of a tenant is for everything; use one without scopes", strings.Join(g.Scopes, ", "))
	}
	token, _, err := a.makeTenant(ctx, by, tenant, adminID, true)
	return token, err
}

// makeTenant is Bootstrap and, when fresh is set, CreateTenant.
func (a *Access) makeTenant(ctx context.Context, by waybill.Actor, tenant waybill.Tenant, adminID string, fresh bool) (string, int64, error) {
	err := errors.Join(waybill.CheckName("tenant", string(tenant)), waybill.CheckName("admin", adminID))
	if err != nil {
		return "", 0, err
	}
	var text tokenText
	rev, err := a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		now := a.clock()
		if fresh {
			if err := mayMakeTenants(ctx, tx, by.Tenant); err != nil {
				return nil, err
			}
		}
		tag, err := tx.Exec(ctx, string(insertTenant), tenant, by.ID, now)
		if err != nil {
			return nil, fmt.Errorf("insert tenant: %w", err)
		}
		if fresh && tag.RowsAffected() == 0 {
			return nil, waybill.Errorf(waybill.AlreadyExists, "tenant %s exists", tenant)
		}
		if _, err := tx.Exec(ctx, string(insertAccount), tenant, adminID, waybill.Person, "", by.ID, now); err != nil {
			return nil, fmt.Errorf("insert account: %w", err)
		}
		if err := mustBeEnabled(ctx, tx, tenant, adminID); err != nil {
			return nil, err
		}
		if _, err := tx.Exec(ctx, string(insertBinding), tenant, adminID, "admin", by.ID, now); err != nil {
			return nil, fmt.Errorf("insert binding: %w", err)
		}
		text = newToken(a.env)
		t := Token{ID: text.id, Tenant: tenant, Account: adminID, Scopes: []string{}, CreatedBy: by.ID, CreatedAt: now, ExpiresAt: now.Add(bootstrapTTL),
			issuers: []string{}} // whoever made it is no account of that tenant
		if err := putToken(ctx, tx, t, text); err != nil {
			return nil, err
		}
		// The leaves belong to the new tenant; when another tenant's administrator made it, that tenant has one too.
		made := change{Op: "tenant", Account: adminID, Kind: string(waybill.Person), Roles: []string{"admin"}}
		in := waybill.Actor{ID: by.ID, Tenant: tenant}
		events := []audit.Event{
			policyEvent(in, now, rev, made),
			tokenEvent(in, now, rev, change{Op: "issue", Account: adminID, TokenID: t.ID, Expires: &t.ExpiresAt}),
		}
		if by.Tenant != tenant {
			events = append(events, policyEvent(by, now, rev, change{Op: "tenant", Account: adminID}))
		}
		return events, nil
	})
	if err != nil {
		return "", 0, err
	}
	return text.String(), rev, nil
}

// IsOperator reports whether a tenant is the hub's own, the first ever made: it alone may see what belongs to all
// tenants. It reads Postgres.
func (a *Access) IsOperator(ctx context.Context, tenant waybill.Tenant) (bool, error) {
	return isOperator(ctx, a.pool, tenant)
}

func isOperator(ctx context.Context, q pg.Querier, tenant waybill.Tenant) (operator bool, err error) {
	err = q.QueryRow(ctx, string(operatorTenant), tenant).Scan(&operator)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("select tenant: %w", err)
	}
	return operator, nil
}

// mayMakeTenants is the wall that no rule can open: a tenant's administrator may write any rule within it, also one about
// the resource "tenant".
func mayMakeTenants(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant) error {
	operator, err := isOperator(ctx, tx, tenant)
	if err != nil {
		return err
	}
	if !operator {
		return waybill.Errorf(waybill.Denied, "only administrators of the hub's own tenant make tenants")
	}
	return nil
}

// mustBeEnabled refuses accounts that are not there (NotFound) or disabled (Conflict).
func mustBeEnabled(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant, id string) error {
	var disabled bool
	err := tx.QueryRow(ctx, string(selectDisabled), tenant, id).Scan(&disabled)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return waybill.Errorf(waybill.NotFound, "there is no account %s", id)
	case err != nil:
		return fmt.Errorf("select account: %w", err)
	case disabled:
		return waybill.Errorf(waybill.Conflict, "account %s is disabled", id)
	}
	return nil
}

// atMost refuses what would go beyond a bound. The count cannot change before the commit: changes take turns.
func atMost(ctx context.Context, tx pgx.Tx, bound int, what string, sql pg.SQL, args ...any) error {
	var n int
	if err := tx.QueryRow(ctx, string(sql), args...).Scan(&n); err != nil {
		return fmt.Errorf("count %s: %w", what, err)
	}
	if n > bound {
		return waybill.Errorf(waybill.TooLarge, "there may be at most %d %s", bound, what)
	}
	return nil
}

// CreateAccount adds an account with its first roles to the tenant of by. ID, Kind, DisplayName (≤ 200 characters) and
// Roles of c are used. Errors: AlreadyExists; NotFound for a role that has no rule; TooLarge.
func (a *Access) CreateAccount(ctx context.Context, by waybill.Actor, c Account) (Account, error) {
	if err := checkActor(by); err != nil {
		return Account{}, err
	}
	if err := waybill.CheckName("account", c.ID); err != nil {
		return Account{}, err
	}
	if c.Kind != waybill.Person && c.Kind != waybill.Service {
		return Account{}, waybill.InvalidField("kind", "is not a kind of account; give person or service")
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if !utf8.ValidString(c.DisplayName) || utf8.RuneCountInString(c.DisplayName) > 200 || strings.ContainsFunc(c.DisplayName, unprintable) {
		return Account{}, waybill.InvalidField("display_name", "is not a name; give at most 200 printable characters")
	}
	if len(c.Roles) > maxRoles {
		return Account{}, waybill.InvalidField("roles", fmt.Sprintf("are too many; an account has at most %d", maxRoles))
	}
	roles := slices.Compact(slices.Sorted(slices.Values(c.Roles)))
	out := Account{
		Tenant: by.Tenant, ID: c.ID, Kind: c.Kind, DisplayName: c.DisplayName, CreatedBy: by.ID, CreatedAt: a.clock(), Roles: roles,
	}
	_, err := a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		if err := mustBeTenant(ctx, tx, by.Tenant); err != nil {
			return nil, err
		}
		tag, err := tx.Exec(ctx, string(insertAccount), out.Tenant, out.ID, out.Kind, out.DisplayName, by.ID, out.CreatedAt)
		if err != nil {
			return nil, fmt.Errorf("insert account: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil, waybill.Errorf(waybill.AlreadyExists, "account %s exists", c.ID)
		}
		if err := atMost(ctx, tx, maxAccounts, "accounts in a tenant", countAccounts, by.Tenant); err != nil {
			return nil, err
		}
		for _, role := range roles {
			if err := a.mayBind(by, role); err != nil {
				return nil, err
			}
			if _, err := bind(ctx, tx, by, c.ID, role, out.CreatedAt); err != nil {
				return nil, err
			}
		}
		// The display name is left out: a leaf holds no personal data.
		e := policyEvent(by, out.CreatedAt, rev, change{Op: "create_account", Account: c.ID, Kind: string(c.Kind), Roles: roles})
		return []audit.Event{e}, nil
	})
	if err != nil {
		return Account{}, err
	}
	return out, nil
}

func mustBeTenant(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant) error {
	var there bool
	if err := tx.QueryRow(ctx, string(tenantExists), tenant).Scan(&there); err != nil {
		return fmt.Errorf("select tenant: %w", err)
	}
	if !there {
		return waybill.Errorf(waybill.NotFound, "there is no tenant %s", tenant)
	}
	return nil
}

// bind adds one role and reports whether it was missing. A role is what rules name: one without rules is a typing error.
func bind(ctx context.Context, tx pgx.Tx, by waybill.Actor, id, role string, now time.Time) (bool, error) {
	if err := waybill.CheckName("role", role); err != nil {
		return false, err
	}
	var there bool
	if err := tx.QueryRow(ctx, string(roleExists), by.Tenant, "role:"+role).Scan(&there); err != nil {
		return false, fmt.Errorf("select role: %w", err)
	}
	if !there {
		return false, waybill.Errorf(waybill.NotFound, "there is no role %s; give it a rule first", role)
	}
	tag, err := tx.Exec(ctx, string(insertBinding), by.Tenant, id, role, by.ID, now)
	if err != nil {
		return false, fmt.Errorf("insert binding: %w", err)
	}
	if err := atMost(ctx, tx, maxRoles, "roles of an account", countBindings, by.Tenant, id); err != nil {
		return false, err
	}
	return tag.RowsAffected() == 1, nil
}

// BindRole gives an account of the tenant of by a role and returns the revision from which that holds. A role that it has
// already is no change. Errors: NotFound (account or role), Conflict (disabled account), TooLarge.
func (a *Access) BindRole(ctx context.Context, by waybill.Actor, id, role string) (int64, error) {
	if err := errors.Join(checkActor(by), waybill.CheckName("account", id), waybill.CheckName("role", role)); err != nil {
		return 0, err
	}
	return a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		if err := mustBeEnabled(ctx, tx, by.Tenant, id); err != nil {
			return nil, err
		}
		if err := a.mayBind(by, role); err != nil {
			return nil, err
		}
		now := a.clock()
		added, err := bind(ctx, tx, by, id, role, now)
		if err == nil && !added {
			err = errUnchanged
		}
		if err != nil {
			return nil, err
		}
		return []audit.Event{policyEvent(by, now, rev, change{Op: "bind_role", Account: id, Roles: []string{role}})}, nil
	})
}

// UnbindRole takes a role from an account and returns the revision from which that holds. Errors: NotFound when the
// account does not have the role; Conflict when the tenant would be left without an administrator.
func (a *Access) UnbindRole(ctx context.Context, by waybill.Actor, id, role string) (int64, error) {
	if err := errors.Join(checkActor(by), waybill.CheckName("account", id), waybill.CheckName("role", role)); err != nil {
		return 0, err
	}
	return a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		tag, err := tx.Exec(ctx, string(deleteBinding), by.Tenant, id, role)
		if err != nil {
			return nil, fmt.Errorf("delete binding: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil, waybill.Errorf(waybill.NotFound, "account %s does not have the role %s", id, role)
		}
		if err := keepAdministrator(ctx, tx, by.Tenant); err != nil {
			return nil, err
		}
		return []audit.Event{policyEvent(by, a.clock(), rev, change{Op: "unbind_role", Account: id, Roles: []string{role}})}, nil
	})
}

// SetDisabled shuts an account out, with all its tokens, or lets it in again. Errors: NotFound; Conflict when the tenant
// would be left without an administrator.
func (a *Access) SetDisabled(ctx context.Context, by waybill.Actor, id string, disabled bool) (int64, error) {
	if err := errors.Join(checkActor(by), waybill.CheckName("account", id)); err != nil {
		return 0, err
	}
	return a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		err := mustBeEnabled(ctx, tx, by.Tenant, id)
		if was := waybill.CodeOf(err) == waybill.Conflict; err != nil && !was {
			return nil, err
		} else if was == disabled {
			return nil, errUnchanged
		}
		if _, err := tx.Exec(ctx, string(setDisabled), by.Tenant, id, disabled); err != nil {
			return nil, fmt.Errorf("update account: %w", err)
		}
		op := "enable_account"
		if disabled {
			op = "disable_account"
			if err := keepAdministrator(ctx, tx, by.Tenant); err != nil {
				return nil, err
			}
		}
		return []audit.Event{policyEvent(by, a.clock(), rev, change{Op: op, Account: id})}, nil
	})
}

// AddRule adds r to the policy of the tenant of by (r.Tenant is not looked at) and returns the revision from which it
// holds. A rule that is there already is no change. Errors: Invalid; NotFound for an account that does not exist;
// Conflict when the tenant would be left without an administrator; TooLarge.
func (a *Access) AddRule(ctx context.Context, by waybill.Actor, r Rule) (int64, error) {
	r.Tenant = by.Tenant
	if err := checkActor(by); err != nil {
		return 0, err
	}
	if err := checkRule(r); err != nil {
		return 0, err
	}
	return a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		if err := mustBeTenant(ctx, tx, by.Tenant); err != nil {
			return nil, err
		}
		if id, ok := strings.CutPrefix(r.Subject, "account:"); ok {
			if err := mustBeEnabled(ctx, tx, by.Tenant, id); err != nil {
				return nil, err
			}
		}
		if r.Effect == Allow {
			if err := a.mayGive(by, []Rule{r}); err != nil {
				return nil, err
			}
		}
		now := a.clock()
		tag, err := tx.Exec(ctx, string(insertRule), r.Tenant, r.Subject, r.Object, r.Action, r.Effect, by.ID, now)
		if err != nil {
			return nil, fmt.Errorf("insert rule: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil, errUnchanged
		}
		if err := atMost(ctx, tx, maxRules, "rules in a tenant", countRules, by.Tenant); err != nil {
			return nil, err
		}
		return ruleChanged(ctx, tx, by, now, rev, "add_rule", r)
	})
}

// RemoveRule removes a rule that AddRule made. Errors: NotFound, also for built-in rules; Conflict as for AddRule.
func (a *Access) RemoveRule(ctx context.Context, by waybill.Actor, r Rule) (int64, error) {
	r.Tenant = by.Tenant
	if err := checkActor(by); err != nil {
		return 0, err
	}
	if err := checkRule(r); err != nil {
		return 0, err
	}
	return a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		if r.Effect == Deny { // whom it forbids gets back what it forbade
			given := r
			given.Effect = Allow
			if err := a.mayGive(by, []Rule{given}); err != nil {
				return nil, err
			}
		}
		tag, err := tx.Exec(ctx, string(deleteRule), r.Tenant, r.Subject, r.Object, r.Action, r.Effect)
		if err != nil {
			return nil, fmt.Errorf("delete rule: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil, waybill.Errorf(waybill.NotFound, "the tenant has no such rule; built-in rules stay, and a deny rule overrules them")
		}
		return ruleChanged(ctx, tx, by, a.clock(), rev, "remove_rule", r)
	})
}

func ruleChanged(ctx context.Context, tx pgx.Tx, by waybill.Actor, now time.Time, rev int64, op string, r Rule) ([]audit.Event, error) {
	if r.Action == Administer {
		if err := keepAdministrator(ctx, tx, by.Tenant); err != nil {
			return nil, err
		}
	}
	line := &ruleLine{Subject: r.Subject, Object: r.Object, Action: r.Action, Effect: r.Effect}
	return []audit.Event{policyEvent(by, now, rev, change{Op: op, Rule: line})}, nil
}

// The resources, with and without a name behind them. The lists are never changed.
var (
	namedResources  = []string{"view/", "service/", "model/", "endpoint/", "decision/"}
	singleResources = []string{"*", "log", "policy", "token", "tenant"}
)

// checkRule accepts rules that can match something: a rule with a typing error would be a right, or worse a ban, that
// somebody believes in and that does not exist.
func checkRule(r Rule) error {
	var vs []waybill.Violation
	kind, name, _ := strings.Cut(r.Subject, ":")
	if kind != "role" && kind != "account" || waybill.CheckName("", name) != nil {
		vs = append(vs, waybill.Violation{Field: "subject", Remedy: "is not a subject; write role:NAME or account:NAME"})
	}
	if !isPattern(r.Object) {
		vs = append(vs, waybill.Violation{Field: "object", Remedy: "is not a resource; write one of view/, service/, model/, endpoint/ and decision/ " +
			"with a name or a beginning and *, or log, policy, token, tenant or *"})
	}
	if !slices.Contains(actions, r.Action) {
		vs = append(vs, waybill.Violation{Field: "action", Remedy: "is not an action; write one of " + strings.Join(actions, ", ")})
	}
	if r.Effect != Allow && r.Effect != Deny {
		vs = append(vs, waybill.Violation{Field: "effect", Remedy: "is not an effect; write allow or deny"})
	}
	return waybill.InvalidFields(vs)
}

func isPattern(s string) bool {
	if slices.Contains(singleResources, s) {
		return true
	}
	for _, kind := range namedResources {
		name, ok := strings.CutPrefix(s, kind)
		if !ok {
			continue
		}
		bad := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '/'
		}
		return name != "" && len(s) <= 200 && !strings.ContainsFunc(strings.TrimSuffix(name, "*"), bad)
	}
	return false
}

// IssueToken makes a token for an account of the tenant of by, good for ttl (1 s to a year) and, when scopes are given,
// for these actions only. g is what by showed. The text is returned this once and kept nowhere. Nobody issues more than he
// has: see mayIssue. Errors: Invalid; Denied; NotFound; Conflict for a disabled account; TooLarge beyond 256 living tokens.
func (a *Access) IssueToken(ctx context.Context, by waybill.Actor, g Grant, id string, ttl time.Duration, scopes []string) (Token, string, error) {
	if err := errors.Join(checkActor(by), waybill.CheckName("account", id)); err != nil {
		return Token{}, "", err
	}
	if ttl < time.Second || ttl > maxTTL {
		return Token{}, "", waybill.InvalidField("ttl_seconds", "is out of range; give 1 to 31536000, which is a year")
	}
	for _, s := range scopes {
		if !slices.Contains(actions, s) {
			return Token{}, "", waybill.InvalidField("scopes", "are not actions; give some of "+strings.Join(actions, ", "))
		}
	}
	if err := a.mayIssue(ctx, by, g, id, scopes); err != nil {
		return Token{}, "", err
	}
	text := newToken(a.env)
	now := a.clock()
	t := Token{
		ID: text.id, Tenant: by.Tenant, Account: id, Scopes: slices.Compact(slices.Sorted(slices.Values(scopes))), CreatedBy: by.ID,
		CreatedAt: now, ExpiresAt: now.Add(ttl).Truncate(time.Microsecond),
		issuers: hands(by, id),
	}
	if t.Scopes == nil {
		t.Scopes = []string{}
	}
	_, err := a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		if err := mustBeEnabled(ctx, tx, by.Tenant, id); err != nil {
			return nil, err
		}
		if err := putToken(ctx, tx, t, text); err != nil {
			return nil, err
		}
		if err := atMost(ctx, tx, maxTokens, "living tokens of an account", countTokens, by.Tenant, id, now); err != nil {
			return nil, err
		}
		c := change{Op: "issue", Account: id, TokenID: t.ID, Scopes: t.Scopes, Expires: &t.ExpiresAt, Issuers: t.issuers}
		return []audit.Event{tokenEvent(by, now, rev, c)}, nil
	})
	if err != nil {
		return Token{}, "", err
	}
	return t, text.String(), nil
}

// hands are the accounts through whose hands a token of id comes when by issues it: those of the token that by uses, and
// by. Else an author would issue a token for a second account, and with that one a token for a third.
func hands(by waybill.Actor, id string) []string {
	out := []string{}
	if by.Via != nil {
		out = append(out, by.Via.Issuers...)
	}
	out = slices.DeleteFunc(append(out, by.ID), func(s string) bool { return s == id })
	for i := len(out) - 1; i > 0; i-- { // each once, where it stands first; the list grows with the accounts of a tenant at most
		if slices.Contains(out[:i], out[i]) {
			out = slices.Delete(out, i, i+1)
		}
	}
	return out
}

func putToken(ctx context.Context, tx pgx.Tx, t Token, text tokenText) error {
	digest := text.digest()
	_, err := tx.Exec(ctx, string(insertToken), t.ID, t.Tenant, t.Account, digest[:], t.Scopes, t.CreatedBy, t.CreatedAt, t.ExpiresAt, t.issuers)
	if err != nil {
		return fmt.Errorf("insert token: %w", err)
	}
	return nil
}

// RevokeToken ends a token of the tenant of by and returns the revision from which it is dead. One that was revoked
// before is no change. Errors: NotFound.
func (a *Access) RevokeToken(ctx context.Context, by waybill.Actor, tokenID string) (int64, error) {
	if err := checkActor(by); err != nil {
		return 0, err
	}
	if len(tokenID) != idLen || !isBase62(tokenID) {
		return 0, waybill.InvalidField("token_id", "is not a token's id; give the 12 characters between the second and the third _ of the token")
	}
	return a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		var revoked bool
		err := tx.QueryRow(ctx, string(selectRevoked), by.Tenant, tokenID).Scan(&revoked)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, waybill.Errorf(waybill.NotFound, "there is no token %s", tokenID)
		case err != nil:
			return nil, fmt.Errorf("select token: %w", err)
		case revoked:
			return nil, errUnchanged
		}
		now := a.clock()
		if _, err := tx.Exec(ctx, string(revokeToken), by.Tenant, tokenID, now); err != nil {
			return nil, fmt.Errorf("update token: %w", err)
		}
		return []audit.Event{tokenEvent(by, now, rev, change{Op: "revoke", TokenID: tokenID})}, nil
	})
}
