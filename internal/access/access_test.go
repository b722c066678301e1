package access_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/internal/access"
	"waybill/internal/pg"
	"waybill/internal/pgtest"
)

// clock is time that a test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) Now() time.Time          { return time.UnixMicro(c.at.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.at.Add(d.Microseconds()) }

type fixture struct {
	*access.Access
	t     *testing.T
	pool  *pgxpool.Pool
	clock *clock
	admin waybill.Actor
	token string // of admin
}

// setup opens a hub's first tenant, acme, with the administrator root.
func setup(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, pool: pgtest.DB(t), clock: &clock{}}
	f.clock.at.Store(time.Date(2026, 4, 10, 12, 0, 0, 0, time.UTC).UnixMicro())
	f.Access = f.open(f.pool, access.Config{})
	var err error
	if f.token, err = f.Bootstrap(t.Context(), "acme", "root"); err != nil {
		t.Fatal(err)
	}
	f.admin = f.mustAuth(f.Access, f.token)
	return f
}

// open is another node on the same database.
func (f *fixture) open(pool *pgxpool.Pool, c access.Config) *access.Access {
	f.t.Helper()
	c.Env, c.Clock = access.Dev, f.clock.Now
	a, err := access.Open(f.t.Context(), pool, c)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

// run runs a node until the test, or the returned function, ends it.
func (f *fixture) run(a *access.Access) (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("run: %v", err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) mustAuth(a *access.Access, token string) waybill.Actor {
	f.t.Helper()
	actor, _, err := a.Authenticate(f.t.Context(), token)
	if err != nil {
		f.t.Fatalf("authenticate: %v", err)
	}
	return actor
}

func (f *fixture) refused(a *access.Access, token, word string) {
	f.t.Helper()
	actor, _, err := a.Authenticate(f.t.Context(), token)
	if waybill.CodeOf(err) != waybill.Unauthenticated || !strings.Contains(err.Error(), word) || actor != (waybill.Actor{}) {
		f.t.Errorf("want unauthenticated (%s), got %v, %v", word, actor, err)
	}
}

// account makes an account with roles and a token for a day.
func (f *fixture) account(by waybill.Actor, id string, roles ...string) (waybill.Actor, string) {
	f.t.Helper()
	if _, err := f.CreateAccount(f.t.Context(), by, access.Account{ID: id, Kind: waybill.Service, Roles: roles}); err != nil {
		f.t.Fatal(err)
	}
	_, text, err := f.IssueToken(f.t.Context(), by, access.Grant{}, id, 24*time.Hour, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return waybill.Actor{ID: id, Tenant: by.Tenant, Kind: waybill.Service}, text
}

func (f *fixture) code(err error, want waybill.Code) {
	f.t.Helper()
	if waybill.CodeOf(err) != want {
		f.t.Errorf("code %q, want %q: %v", waybill.CodeOf(err), want, err)
	}
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Error(err)
	}
}

// within waits for a condition and returns how long it took.
func (f *fixture) within(d time.Duration, what string, cond func() bool) time.Duration {
	f.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > d {
			f.t.Errorf("%s: not within %v", what, d)
			break
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// events returns type and detail of what was put into the outbox, in order.
func (f *fixture) events(kind string) []map[string]any {
	f.t.Helper()
	rows, err := f.pool.Query(f.t.Context(), "SELECT tenant, actor, subject, detail FROM audit.outbox WHERE type = $1 ORDER BY seq", kind)
	if err != nil {
		f.t.Fatal(err)
	}
	defer rows.Close()
	var out []map[string]any
	for rows.Next() {
		var tenant, actor, subject string
		var detail []byte
		if err := rows.Scan(&tenant, &actor, &subject, &detail); err != nil {
			f.t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(detail, &m); err != nil {
			f.t.Fatal(err)
		}
		m["tenant"], m["actor"], m["subject"] = tenant, actor, subject
		out = append(out, m)
	}
	f.ok(rows.Err())
	return out
}

func TestTokens(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	alice, text := f.account(f.admin, "alice", "data-scientist")
	actor, grant, err := f.Authenticate(ctx, text)
	alice.Via = actor.Via
	if diff := cmp.Diff(&waybill.Credential{TokenID: grant.TokenID, Issuers: []string{"root"}}, actor.Via); diff != "" {
		t.Error(diff)
	}
	if err != nil || actor != alice || !strings.Contains(text, "_"+grant.TokenID+"_") || !grant.Permits(access.Read) {
		t.Fatalf("%v %v %v", actor, grant, err)
	}
	var stored string
	if err := f.pool.QueryRow(ctx, "SELECT t::text FROM access.token t WHERE account = 'alice'").Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if secret := text[len("wb_dev_")+13:]; strings.Contains(stored, secret[:20]) {
		t.Error("the secret is stored")
	}

	f.refused(f.Access, "", "malformed")
	f.refused(f.Access, text[:len(text)-1]+"~", "malformed")
	other, otherText, err := f.IssueToken(ctx, f.admin, access.Grant{}, "alice", time.Hour, []string{access.Read, access.Decide, access.Read})
	f.ok(err)
	// The right id with another token's secret, and a good checksum, is not known; nor is the word more helpful.
	f.refused(f.Access, access.JoinToken(access.Dev, grant.TokenID, otherText), "unknown")
	f.refused(f.Access, access.JoinToken(access.Dev, "000000000000", otherText), "unknown")
	f.refused(f.Access, access.JoinToken(access.Live, other.ID, otherText), "unknown")

	// Scopes limit; they give nothing.
	_, limited, err := f.Authenticate(ctx, otherText)
	f.ok(err)
	if diff := cmp.Diff([]string{access.Decide, access.Read}, limited.Scopes); diff != "" {
		t.Error(diff)
	}
	f.ok(f.Check(alice, limited, "model/m", access.Read))
	f.code(f.Check(alice, limited, "model/m", access.Write), waybill.Denied)
	f.code(f.Check(alice, limited, "endpoint/route", access.Decide), waybill.Denied)
	f.ok(f.Check(alice, grant, "model/m", access.Write))

	// Expiry is by the injected clock, to the microsecond.
	f.clock.Advance(time.Hour - time.Microsecond)
	f.mustAuth(f.Access, otherText)
	f.clock.Advance(time.Microsecond)
	f.refused(f.Access, otherText, "expired")
	f.mustAuth(f.Access, text)

	rev, err := f.RevokeToken(ctx, f.admin, grant.TokenID)
	f.ok(err)
	f.refused(f.Access, text, "revoked")
	if again, err := f.RevokeToken(ctx, f.admin, grant.TokenID); err != nil || again != rev || f.Rev() != rev {
		t.Errorf("revoking twice is no change: %d, %d, %v", rev, again, err)
	}
	_, err = f.RevokeToken(ctx, f.admin, "000000000000")
	f.code(err, waybill.NotFound)
	_, err = f.RevokeToken(ctx, f.admin, "x\x00")
	f.code(err, waybill.Invalid)
	for _, ttl := range []time.Duration{0, -1, 366 * 24 * time.Hour} {
		_, _, err = f.IssueToken(ctx, f.admin, access.Grant{}, "alice", ttl, nil)
		f.code(err, waybill.Invalid)
	}
	_, _, err = f.IssueToken(ctx, f.admin, access.Grant{}, "alice", time.Hour, []string{"everything"})
	f.code(err, waybill.Invalid)
	_, _, err = f.IssueToken(ctx, f.admin, access.Grant{}, "nobody", time.Hour, nil)
	f.code(err, waybill.NotFound)

	var ops []string
	for _, e := range f.events("token.change") {
		ops = append(ops, e["op"].(string)+" "+e["actor"].(string))
		if e["tenant"] != "acme" || e["subject"] != "token:"+e["token_id"].(string) {
			t.Errorf("%v", e)
		}
	}
	if diff := cmp.Diff([]string{"issue waybill", "issue root", "issue root", "revoke root"}, ops); diff != "" {
		t.Error(diff)
	}
}

func TestLastUse_IsWrittenOncePerMinute(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, text := f.account(f.admin, "svc", "serving")
	first := f.clock.Now()
	f.mustAuth(f.Access, text)
	f.clock.Advance(30 * time.Second)
	f.mustAuth(f.Access, text)
	used := func(a *access.Access) (out time.Time) {
		t.Helper()
		tokens, _, err := a.ListTokens(t.Context(), "acme", access.Page{})
		f.ok(err)
		for _, tok := range tokens {
			if tok.Account == "svc" && tok.LastUsedAt != nil {
				out = *tok.LastUsedAt
			}
		}
		return out
	}
	if got := used(f.Access); !got.Equal(first) {
		t.Errorf("this node saw it at %v, want %v", got, first)
	}
	second := f.open(f.pool, access.Config{})
	if got := used(second); !got.IsZero() {
		t.Errorf("Postgres was told already: %v", got)
	}
	f.run(f.Access)() // ending a node writes what it knows
	if got := used(second); !got.Equal(first) {
		t.Errorf("Postgres was told %v, want %v", got, first)
	}
	f.clock.Advance(31 * time.Second)
	f.mustAuth(f.Access, text)
	if got := used(f.Access); !got.Equal(f.clock.Now()) {
		t.Errorf("a minute later: %v", got)
	}
}

// TestChange_HoldsOnOtherNodes makes a second node hear by NOTIFY (its poll is an hour), and a third by its poll alone
// (its listening session is killed again and again, and notifications go to another channel).
func TestChange_HoldsOnOtherNodes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	alice, text := f.account(f.admin, "alice", "data-scientist")
	tokenID := strings.Split(text, "_")[2]

	check := func(name string, node *access.Access, change func(func() error) error) {
		t.Helper()
		f.within(5*time.Second, name+" starts", func() bool { return node.Rev() == f.Rev() })
		if _, err := f.AddRule(ctx, f.admin, access.Rule{Subject: "account:alice", Object: "view/" + name, Action: access.Read, Effect: access.Deny}); err != nil {
			t.Fatal(err)
		}
		if f.Allowed(alice, "view/"+name, access.Read) {
			t.Error("the change does not hold at once where it was made")
		}
		d := f.within(time.Second, name+" sees a new deny", func() bool { return !node.Allowed(alice, "view/"+name, access.Read) })
		f.ok(change(func() error { _, err := f.UnbindRole(ctx, f.admin, "alice", "data-scientist"); return err }))
		d2 := f.within(time.Second, name+" sees a role taken", func() bool { return !node.Allowed(alice, "model/m", access.Write) })
		f.ok(change(func() error { _, err := f.BindRole(ctx, f.admin, "alice", "data-scientist"); return err }))
		f.within(time.Second, name+" sees a role given", func() bool { return node.Allowed(alice, "model/m", access.Write) })
		t.Logf("%s: %v, %v", name, d, d2)
	}
	plain := func(f func() error) error { return f() }

	byNotify := f.open(f.pool, access.Config{Poll: time.Hour})
	f.run(byNotify)
	time.Sleep(50 * time.Millisecond)
	check("notify", byNotify, plain)

	// For the poll: a change whose notification never arrives. A rule makes every NOTIFY vanish before it is sent.
	if _, err := f.pool.Exec(ctx, `CREATE SCHEMA mute; CREATE FUNCTION mute.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'`); err != nil {
		t.Fatal(err)
	}
	muted := f.muted()
	byPoll := f.open(f.pool, access.Config{Poll: 300 * time.Millisecond})
	f.run(byPoll)
	time.Sleep(50 * time.Millisecond)
	f.Access = muted
	check("poll", byPoll, plain)

	if _, err := f.RevokeToken(ctx, f.admin, tokenID); err != nil {
		t.Fatal(err)
	}
	f.within(time.Second, "poll sees a revocation", func() bool { _, _, err := byPoll.Authenticate(ctx, text); return err != nil })
	f.refused(byPoll, text, "revoked")
}

// muted is a node whose notifications are lost: its sessions find another pg_notify first.
func (f *fixture) muted() *access.Access {
	f.t.Helper()
	c := f.pool.Config().Copy()
	c.ConnConfig.RuntimeParams["search_path"] = "mute, pg_catalog, public"
	pool, err := pgxpool.NewWithConfig(f.t.Context(), c)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(pool.Close)
	return f.open(pool, access.Config{})
}

func TestTenants_ShareNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	tenants := []waybill.Tenant{"acme", "beta", "gamma", "delta"}
	admins := map[waybill.Tenant]waybill.Actor{"acme": f.admin}
	tokens := map[waybill.Tenant]string{"acme": f.token}
	for _, tenant := range tenants[1:] {
		text, err := f.CreateTenant(ctx, f.admin, access.Grant{}, tenant, "root")
		if err != nil {
			t.Fatal(err)
		}
		tokens[tenant] = text
		admins[tenant] = f.mustAuth(f.Access, text)
	}
	for i, tenant := range tenants {
		// An account of the same name everywhere, with another role and another rule in each.
		role := []string{"serving", "approver", "auditor", "data-scientist"}[i]
		f.account(admins[tenant], "same", role)
		_, err := f.AddRule(ctx, admins[tenant], access.Rule{Subject: "account:same", Object: "decision/" + string(tenant), Action: access.Review, Effect: access.Allow})
		f.ok(err)
	}
	for i, tenant := range tenants {
		if admins[tenant].Tenant != tenant {
			t.Errorf("token of %s is for %v", tenant, admins[tenant])
		}
		same := waybill.Actor{ID: "same", Tenant: tenant, Kind: waybill.Service}
		for j, act := range []string{access.Decide, access.Approve, "", access.Publish} {
			obj := []string{"endpoint/e", "model/m", "", "view/v"}[j]
			if got := f.Allowed(same, obj, act); got != (i == j && act != "") {
				t.Errorf("%s: %s %s is %v", tenant, act, obj, got)
			}
		}
		for _, other := range tenants {
			if got := f.Allowed(same, "decision/"+string(other), access.Review); got != (other == tenant) {
				t.Errorf("the rule of %s in %s: %v", other, tenant, got)
			}
		}
		accounts, _, err := f.ListAccounts(ctx, tenant, access.Page{})
		f.ok(err)
		list, _, err := f.ListTokens(ctx, tenant, access.Page{})
		f.ok(err)
		bindings, _, err := f.ListBindings(ctx, tenant, access.Page{})
		f.ok(err)
		rules, _, err := f.ListRules(ctx, tenant, access.Page{Size: access.MaxPage})
		f.ok(err)
		own := 0
		for _, r := range rules {
			if r.Tenant == tenant {
				own++
			} else if !r.BuiltIn() {
				t.Errorf("%s lists a rule of %s", tenant, r.Tenant)
			}
		}
		if len(accounts) != 2 || len(list) != 2 || len(bindings) != 2 || own != 1 {
			t.Errorf("%s: %d accounts, %d tokens, %d bindings, %d rules", tenant, len(accounts), len(list), len(bindings), own)
		}
	}
	// One tenant's administrator can neither end another's token, nor touch its accounts, nor make or probe tenants,
	// whatever rules it writes for itself.
	beta := admins["beta"]
	_, err := f.RevokeToken(ctx, beta, strings.Split(f.token, "_")[2])
	f.code(err, waybill.NotFound)
	f.account(f.admin, "only-acme")
	_, err = f.BindRole(ctx, beta, "only-acme", "admin")
	f.code(err, waybill.NotFound)
	_, _, err = f.IssueToken(ctx, beta, access.Grant{}, "only-acme", time.Hour, nil)
	f.code(err, waybill.NotFound)
	_, err = f.AddRule(ctx, beta, access.Rule{Tenant: "*", Subject: "role:admin", Object: "tenant", Action: access.Administer, Effect: access.Allow})
	f.ok(err)
	if len(f.events("policy.change")) == 0 {
		t.Error("no events")
	}
	for _, name := range []waybill.Tenant{"gamma", "epsilon"} {
		_, err = f.CreateTenant(ctx, beta, access.Grant{}, name, "root")
		f.code(err, waybill.Denied)
	}
	_, err = f.CreateTenant(ctx, f.admin, access.Grant{}, "gamma", "root")
	f.code(err, waybill.AlreadyExists)
	// An unknown tenant, and nobody.
	ghost := waybill.Actor{ID: "root", Tenant: "ghost", Kind: waybill.Person}
	if f.Allowed(ghost, "view/v", access.Read) || f.Allowed(waybill.Actor{}, "view/v", access.Read) {
		t.Error("an unknown tenant may read")
	}
	_, err = f.CreateAccount(ctx, ghost, access.Account{ID: "x", Kind: waybill.Person})
	f.code(err, waybill.NotFound)
	_, err = f.CreateAccount(ctx, waybill.Actor{}, access.Account{ID: "x", Kind: waybill.Person})
	f.code(err, waybill.Denied)
	_, err = f.CreateAccount(ctx, waybill.Actor{ID: "root", Tenant: "*"}, access.Account{ID: "x", Kind: waybill.Person})
	f.code(err, waybill.Denied)
}

func TestRules_DenyWinsAndAreExplained(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	alice, _ := f.account(f.admin, "alice", "data-scientist")
	x, err := f.Explain(alice, "model/late-risk", access.Write)
	f.ok(err)
	want := access.Explanation{
		Allowed: true, Roles: []string{"data-scientist"}, Rev: f.Rev(),
		Rule: &access.Rule{Tenant: "*", Subject: "role:data-scientist", Object: "model/*", Action: access.Write, Effect: access.Allow},
	}
	if diff := cmp.Diff(want, x); diff != "" {
		t.Error(diff)
	}
	deny := access.Rule{Subject: "role:data-scientist", Object: "model/late-*", Action: access.Write, Effect: access.Deny}
	allow := access.Rule{Subject: "account:alice", Object: "model/late-risk", Action: access.Write, Effect: access.Allow}
	_, err = f.AddRule(ctx, f.admin, deny)
	f.ok(err)
	rev, err := f.AddRule(ctx, f.admin, allow)
	f.ok(err)
	if again, err := f.AddRule(ctx, f.admin, allow); err != nil || again != rev {
		t.Errorf("adding twice is no change: %d, %d, %v", rev, again, err)
	}
	if f.Allowed(alice, "model/late-risk", access.Write) || !f.Allowed(alice, "model/demand", access.Write) {
		t.Error("deny does not win")
	}
	x, err = f.Explain(alice, "model/late-risk", access.Write)
	if deny.Tenant = "acme"; err != nil || x.Allowed || x.Rule == nil || *x.Rule != deny {
		t.Errorf("%+v, %v", x, err)
	}
	x, err = f.Explain(alice, "model/late-risk", access.Approve)
	if err != nil || x.Allowed || x.Rule != nil {
		t.Errorf("no rule: %+v, %v", x, err)
	}
	_, err = f.RemoveRule(ctx, f.admin, deny)
	f.ok(err)
	if !f.Allowed(alice, "model/late-risk", access.Write) {
		t.Error("the deny rule was removed")
	}
	_, err = f.RemoveRule(ctx, f.admin, deny)
	f.code(err, waybill.NotFound)
	_, err = f.RemoveRule(ctx, f.admin, *want.Rule)
	f.code(err, waybill.NotFound) // built-in
	for _, r := range []access.Rule{
		{},
		{Subject: "alice", Object: "model/*", Action: access.Read, Effect: access.Allow},
		{Subject: "role:a b", Object: "model/*", Action: access.Read, Effect: access.Allow},
		{Subject: "role:x", Object: "models/*", Action: access.Read, Effect: access.Allow},
		{Subject: "role:x", Object: "model/", Action: access.Read, Effect: access.Allow},
		{Subject: "role:x", Object: "model/*/x", Action: access.Read, Effect: access.Allow},
		{Subject: "role:x", Object: "log/*", Action: access.Read, Effect: access.Allow},
		{Subject: "role:x", Object: "model/*", Action: "*", Effect: access.Allow},
		{Subject: "role:x", Object: "model/*", Action: access.Read, Effect: "maybe"},
		{Subject: "role:x", Object: "model/" + strings.Repeat("a", 300), Action: access.Read, Effect: access.Allow},
		{Subject: "role:x", Object: "model/\x00", Action: access.Read, Effect: access.Allow},
	} {
		_, err := f.AddRule(ctx, f.admin, r)
		f.code(err, waybill.Invalid)
	}
	_, err = f.AddRule(ctx, f.admin, access.Rule{Subject: "account:nobody", Object: "*", Action: access.Read, Effect: access.Allow})
	f.code(err, waybill.NotFound)
}

func TestAccounts_AndTheLastAdministrator(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	bob, text := f.account(f.admin, "bob")
	_, err := f.CreateAccount(ctx, f.admin, access.Account{ID: "bob", Kind: waybill.Person})
	f.code(err, waybill.AlreadyExists)
	_, err = f.CreateAccount(ctx, f.admin, access.Account{ID: "Bob", Kind: waybill.Person})
	f.code(err, waybill.Invalid)
	_, err = f.CreateAccount(ctx, f.admin, access.Account{ID: "carol", Kind: "robot"})
	f.code(err, waybill.Invalid)
	rev := f.Rev()
	_, err = f.CreateAccount(ctx, f.admin, access.Account{ID: "carol", Kind: waybill.Person, Roles: []string{"data-scientist-x"}})
	f.code(err, waybill.NotFound)
	if _, err := f.Lookup("acme", "carol"); waybill.CodeOf(err) != waybill.NotFound || f.Rev() != rev {
		t.Errorf("a refused account exists: %v", err)
	}
	_, err = f.UnbindRole(ctx, f.admin, "bob", "approver")
	f.code(err, waybill.NotFound)

	// Whatever way the last administrator is taken away, it is refused.
	_, err = f.UnbindRole(ctx, f.admin, "root", "admin")
	f.code(err, waybill.Conflict)
	_, err = f.SetDisabled(ctx, f.admin, "root", true)
	f.code(err, waybill.Conflict)
	for _, r := range []access.Rule{
		{Subject: "role:admin", Object: "policy", Action: access.Administer, Effect: access.Deny},
		{Subject: "account:root", Object: "*", Action: access.Administer, Effect: access.Deny},
	} {
		_, err = f.AddRule(ctx, f.admin, r)
		f.code(err, waybill.Conflict)
	}
	if !f.Allowed(f.admin, "policy", access.Administer) {
		t.Error("a refused change holds")
	}
	_, err = f.BindRole(ctx, f.admin, "bob", "admin")
	f.ok(err)
	_, err = f.UnbindRole(ctx, bob, "root", "admin")
	f.ok(err)
	if f.Allowed(f.admin, "policy", access.Administer) || !f.Allowed(bob, "policy", access.Administer) {
		t.Error("the office was not handed over")
	}

	// A disabled account is nobody until it is enabled again.
	_, err = f.SetDisabled(ctx, bob, "root", true)
	f.ok(err)
	f.refused(f.Access, f.token, "revoked")
	_, err = f.BindRole(ctx, bob, "root", "auditor")
	f.code(err, waybill.Conflict)
	_, err = f.Bootstrap(ctx, "acme", "root")
	f.code(err, waybill.Conflict)
	_, err = f.SetDisabled(ctx, bob, "root", false)
	f.ok(err)
	f.mustAuth(f.Access, f.token)
	f.mustAuth(f.Access, text)

	// Bootstrap again gives the role back and one more token; older ones stay.
	fresh, err := f.Bootstrap(ctx, "acme", "root")
	f.ok(err)
	if fresh == f.token || !f.Allowed(f.mustAuth(f.Access, fresh), "policy", access.Administer) {
		t.Error("a second bootstrap is not a fresh administrator's token")
	}
	f.mustAuth(f.Access, f.token)

	// Pages: every account once, in order; a wrong token is refused.
	var ids []string
	page := access.Page{Size: 1}
	for {
		accounts, next, err := f.ListAccounts(ctx, "acme", page)
		f.ok(err)
		for _, a := range accounts {
			ids = append(ids, a.ID+" "+strings.Join(a.Roles, ","))
		}
		if page.Token = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"bob admin", "root admin"}, ids); diff != "" {
		t.Error(diff)
	}
	for _, p := range []access.Page{{Size: 1001}, {Size: -1}, {Token: "x"}, {Token: "WyIiLCIiXQ"}, {Token: "WyJcdTAwMDAiXQ"}} {
		_, _, err := f.ListAccounts(ctx, "acme", p)
		f.code(err, waybill.Invalid)
	}
	rules, next, err := f.ListRules(ctx, "acme", access.Page{Size: 10})
	f.ok(err)
	rest, _, err := f.ListRules(ctx, "acme", access.Page{Size: 1000, Token: next})
	if diff := cmp.Diff(access.BuiltinRules(), append(rules, rest...)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	f := setup(t)
	second := f.open(f.pool, access.Config{}) // never runs: it sees only what it asks for
	alice, _ := f.account(f.admin, "alice", "auditor")
	rev := f.Rev()
	if second.Rev() == rev || second.Allowed(alice, "log", access.Read) {
		t.Fatal("the second node knows already")
	}
	f.ok(second.AwaitRev(t.Context(), rev))
	if second.Rev() != rev || !second.Allowed(alice, "log", access.Read) {
		t.Error("the second node did not catch up")
	}
	f.code(second.AwaitRev(t.Context(), rev+1), waybill.Conflict)

	// Changes from everywhere take turns: one revision each.
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			node := []*access.Access{f.Access, second}[i%2]
			if _, _, err := node.IssueToken(t.Context(), f.admin, access.Grant{}, "alice", time.Hour, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.ok(f.AwaitRev(t.Context(), rev+20))
	f.code(f.AwaitRev(t.Context(), rev+21), waybill.Conflict)
	seen := map[float64]bool{}
	for _, kind := range []string{"policy.change", "token.change"} {
		for _, e := range f.events(kind) {
			seen[e["policy_rev"].(float64)] = true
		}
	}
	for r := int64(2); r <= rev+20; r++ { // revision 1 is the built-in roles of an empty hub, which no tenant's log tells
		if !seen[float64(r)] {
			t.Errorf("no leaf for revision %d", r)
		}
	}
}

// TestStaleNode_LetsNobodyIn cuts a running node off from Postgres.
func TestStaleNode_LetsNobodyIn(t *testing.T) {
	t.Parallel()
	f := setup(t)
	pool, err := pg.Open(t.Context(), pg.Config{DSN: f.pool.Config().ConnString()})
	if err != nil {
		t.Fatal(err)
	}
	node := f.open(pool, access.Config{Poll: 50 * time.Millisecond, MaxStale: 400 * time.Millisecond})
	f.run(node)
	time.Sleep(600 * time.Millisecond)
	f.mustAuth(node, f.token) // longer than MaxStale, but Postgres answers
	go pool.Close()           // waits for the listening session
	f.within(5*time.Second, "the node closes", func() bool {
		_, _, err := node.Authenticate(t.Context(), f.token)
		return waybill.CodeOf(err) == waybill.Unavailable
	})
}

func TestDenials_AreCountedAndLoggedWithinBounds(t *testing.T) {
	t.Parallel()
	f := setup(t)
	alice, _ := f.account(f.admin, "alice", "auditor")
	for range 1000 {
		f.code(f.Check(alice, access.Grant{TokenID: "t"}, "policy", access.Administer), waybill.Denied)
		f.code(f.Check(alice, access.Grant{}, "model/a", access.Write), waybill.Denied)
		f.code(f.Check(alice, access.Grant{}, "model/b", access.Write), waybill.Denied)
	}
	f.code(f.Check(alice, access.Grant{}, "decision/\x00\xff", access.Erase), waybill.Denied)
	f.code(f.Check(waybill.Actor{}, access.Grant{}, "policy", access.Administer), waybill.Denied)
	f.ok(f.Check(alice, access.Grant{}, "policy", access.Read))
	if f.Denials() != 3002 || f.UnloggedDenials() != 1 {
		t.Errorf("%d denials, %d unlogged", f.Denials(), f.UnloggedDenials())
	}
	for i := range 2000 { // an attacker who makes up resources
		f.code(f.Check(alice, access.Grant{}, "model/x"+strings.Repeat("y", i), access.Export), waybill.Denied)
	}
	f.refused(f.Access, "wb_", "malformed")
	if f.Refusals() != 1 || f.UnloggedDenials() == 0 {
		t.Errorf("%d refusals, %d unlogged", f.Refusals(), f.UnloggedDenials())
	}
	stop := f.run(f.Access)
	f.within(5*time.Second, "administrative denials are in the outbox", func() bool { return len(f.events("access.denied")) > 0 })
	for _, e := range f.events("access.denied") {
		if e["action"] == access.Write {
			t.Error("an ordinary denial is written before its minute is over")
		}
	}
	stop() // writes the rest
	counts := map[string]float64{}
	events := f.events("access.denied")
	for _, e := range events {
		counts[e["action"].(string)] += e["count"].(float64)
	}
	if counts[access.Administer] != 1000 || counts[access.Write] != 2000 || counts[access.Erase] != 1 || len(events) > 1024 {
		t.Errorf("%v in %d events", counts, len(events))
	}
	if f.Denials() != 5002 || uint64(counts[access.Export])+f.UnloggedDenials() != 2001 {
		t.Errorf("%d denials, %v exports, %d unlogged", f.Denials(), counts[access.Export], f.UnloggedDenials())
	}
}

// TestLoad_IsFastEnough reads and compiles 100,000 rules: what a node does before a change holds on it.
func TestLoad_IsFastEnough(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, err := f.pool.Exec(t.Context(), `
INSERT INTO access.rule (tenant, subject, object, action, effect, created_by, created_at)
SELECT 'acme', 'role:r' || i % 1000, 'model/m' || i, 'read', 'allow', 'root', now() FROM generate_series(1, 100000) i`)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = f.BindRole(t.Context(), f.admin, "root", "r1")
	d := time.Since(start)
	f.ok(err)
	if !f.Allowed(f.admin, "model/m1", access.Read) {
		t.Error("the rules are not there")
	}
	t.Logf("a change with 100k rules: %v", d)
	if d > 30*time.Second { // generous: the machine is shared
		t.Errorf("a change takes %v", d)
	}
}

// TestRevoke_IsFastWithManyTokens is about all tenants' tokens, which are no reason to wait for one's own revocation: it
// measures how long after a revocation another node still lets the token in.
func TestRevoke_IsFastWithManyTokens(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const tokens = 300_000
	_, err := f.pool.Exec(t.Context(), `
BEGIN;
SET LOCAL session_replication_role = replica; -- no triggers, which would take most of the time of the test
INSERT INTO access.tenant (name, operator, created_by, created_at) SELECT 't' || i, false, 'x', now() FROM generate_series(1, 1000) i;
INSERT INTO access.account (tenant, id, kind, display_name, created_by, created_at)
SELECT 't' || i, 'a' || j, 'service', '', 'x', now() FROM generate_series(1, 1000) i, generate_series(1, 3) j;
INSERT INTO access.token (id, tenant, account, secret_sha256, scopes, created_by, created_at, expires_at)
SELECT lpad(i::text, 12, '0'), 't' || 1 + i % 1000, 'a' || 1 + i % 3, sha256(i::text::bytea), '{}', 'x', now(), '2100-01-01' FROM generate_series(1, 300000) i;
COMMIT`)
	if err != nil {
		t.Fatal(err)
	}
	f.Access = f.open(f.pool, access.Config{})
	alice, _ := f.account(f.admin, "alice", "auditor")
	node := f.open(f.pool, access.Config{})
	f.run(node)
	if n := access.TokenCount(f.Access); n < tokens {
		t.Errorf("%d tokens are known", n)
	}
	var longest, here time.Duration
	for range 20 {
		token, text, err := f.IssueToken(t.Context(), f.admin, access.Grant{}, "alice", time.Hour, nil)
		f.ok(err)
		f.within(10*time.Second, "the token is known", func() bool {
			_, _, err := node.Authenticate(t.Context(), text)
			return err == nil
		})
		start := time.Now()
		_, err = f.RevokeToken(t.Context(), f.admin, token.ID)
		f.ok(err)
		here = max(here, time.Since(start))
		f.within(10*time.Second, "the token is dead", func() bool {
			_, _, err := node.Authenticate(t.Context(), text)
			return err != nil
		})
		longest = max(longest, time.Since(start))
	}
	if node.Allowed(alice, "log", access.Read) != f.Allowed(alice, "log", access.Read) {
		t.Error("the nodes differ")
	}
	t.Logf("with %d tokens: revoked here within %v, there within %v", tokens, here, longest)
	if longest > time.Second {
		t.Errorf("a revocation takes %v", longest)
	}
}

// TestFollow_WhatOthersWrite changes rows in the ways that no method of the hub does.
func TestFollow_WhatOthersWrite(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	alice, text := f.account(f.admin, "alice", "auditor")
	exec := func(sql string) {
		t.Helper()
		if _, err := f.pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	// By hand, in any order, with or without a new revision; the next change of the hub brings it in at the latest.
	exec(`DELETE FROM access.binding WHERE account = 'alice'`)
	exec(`UPDATE access.token SET revoked_at = now() WHERE account = 'alice'`)
	f.account(f.admin, "bob", "auditor")
	if f.Allowed(alice, "log", access.Read) {
		t.Error("a binding that was deleted by hand still holds")
	}
	f.refused(f.Access, text, "revoked")
	exec(`BEGIN; DELETE FROM access.token WHERE account = 'alice'; UPDATE access.policy_rev SET rev = rev + 1; COMMIT`)
	exec(`DELETE FROM access.rule WHERE tenant = '*' AND subject = 'role:auditor'`)
	f.account(f.admin, "carol", "approver")
	f.refused(f.Access, text, "unknown")
	if bob := (waybill.Actor{ID: "bob", Tenant: "acme"}); f.Allowed(bob, "log", access.Read) {
		t.Error("a built-in rule that was deleted still holds")
	}
	// The revision goes back, as in a database that was put back.
	exec(`UPDATE access.policy_rev SET rev = 3`)
	exec(`DELETE FROM access.account WHERE id = 'nobody'`)
	exec(`DELETE FROM access.binding WHERE account = 'carol'`)
	f.ok(access.Refresh(ctx, f.Access))
	if carol := (waybill.Actor{ID: "carol", Tenant: "acme"}); f.Rev() != 3 || f.Allowed(carol, "log", access.Read) {
		t.Errorf("revision %d; what was put back is not seen", f.Rev())
	}
	// The whole is read again now and then, and equals what was followed.
	before := f.Rev()
	f.ok(access.Rebuild(ctx, f.Access))
	if f.Rev() != before || !f.Allowed(f.admin, "policy", access.Administer) {
		t.Error("the rebuilt policy differs")
	}
	f.mustAuth(f.Access, f.token)
}
