package access_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill"
	"waybill/internal/access"
)

func (f *fixture) rule(by waybill.Actor, subject, object, action string, effect access.Effect) {
	f.t.Helper()
	_, err := f.AddRule(f.t.Context(), by, access.Rule{Subject: subject, Object: object, Action: action, Effect: effect})
	f.ok(err)
}

// TestIssueToken_NobodyIssuesMoreThanHeHas begins with a role that may issue tokens and nothing else: it issued itself the
// administrator's.
func TestIssueToken_NobodyIssuesMoreThanHeHas(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	issue := func(by waybill.Actor, g access.Grant, id string, scopes ...string) error {
		_, _, err := f.IssueToken(ctx, by, g, id, time.Hour, scopes)
		return err
	}
	none := access.Grant{}
	f.rule(f.admin, "role:helpdesk", "token", access.Administer, access.Allow)
	desk, _ := f.account(f.admin, "desk", "helpdesk")
	f.account(f.admin, "reader", "auditor")
	f.account(f.admin, "second", "helpdesk")
	f.code(issue(desk, none, "root"), waybill.Denied)
	f.code(issue(desk, none, "root", access.Administer), waybill.Denied)
	f.code(issue(desk, none, "reader"), waybill.Denied)
	f.code(issue(desk, none, "reader", access.Read), waybill.Denied)
	f.ok(issue(desk, none, "reader", access.Decide)) // which the reader may not: the token is good for nothing
	f.ok(issue(desk, none, "desk"))
	f.ok(issue(desk, none, "second"))
	f.code(issue(desk, none, "nobody"), waybill.NotFound)
	f.rule(f.admin, "account:second", "tenant", access.Administer, access.Allow)
	f.code(issue(desk, none, "second"), waybill.Denied)

	// Whoever has all the rights of the other may issue, unless he has an exception that the other has not.
	f.rule(f.admin, "account:desk", "*", access.Read, access.Allow)
	f.ok(issue(desk, none, "reader"))
	f.rule(f.admin, "account:desk", "model/secret", access.Read, access.Deny)
	f.code(issue(desk, none, "reader"), waybill.Denied)
	f.ok(issue(f.admin, none, "reader"))

	// What desk is refused on one node it is refused on another that has not heard of the account.
	late := f.open(f.pool, access.Config{})
	f.account(f.admin, "latecomer", "admin")
	_, _, err := late.IssueToken(ctx, desk, none, "latecomer", time.Hour, nil)
	f.code(err, waybill.Denied)

	// A token with scopes issues some of them, to anybody, and never none, which would be all.
	only := access.Grant{TokenID: "t", Scopes: []string{access.Administer, access.Read}}
	f.code(issue(f.admin, only, "root"), waybill.Denied)
	f.code(issue(f.admin, only, "reader"), waybill.Denied)
	f.code(issue(f.admin, only, "root", access.Read, access.Decide), waybill.Denied)
	f.ok(issue(f.admin, only, "root", access.Read))
	f.ok(issue(f.admin, only, "reader", access.Read, access.Administer))
	_, err = f.CreateTenant(ctx, f.admin, only, "beta", "root")
	f.code(err, waybill.Denied)
	_, err = f.CreateTenant(ctx, f.admin, none, "beta", "root")
	f.ok(err)
	if f.Denials() == 0 {
		t.Error("the refusals are not counted")
	}
}

func TestPolicy_NobodyGivesMoreThanHeHas(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	reader, _ := f.account(f.admin, "reader", "auditor")
	f.rule(f.admin, "role:loader", "view/*", access.Write, access.Allow)
	f.rule(f.admin, "role:looker", "view/*", access.Read, access.Allow)
	for _, c := range []struct {
		role string
		want waybill.Code
	}{{"looker", ""}, {"loader", waybill.Denied}, {"admin", waybill.Denied}, {"no-such", waybill.Denied}} {
		_, err := f.BindRole(ctx, reader, "reader", c.role)
		f.code(err, c.want)
		_, err = f.CreateAccount(ctx, reader, access.Account{ID: "made-" + c.role, Kind: waybill.Person, Roles: []string{c.role}})
		f.code(err, c.want)
	}
	allow := access.Rule{Subject: "account:reader", Object: "policy", Action: access.Administer, Effect: access.Allow}
	_, err := f.AddRule(ctx, reader, allow)
	f.code(err, waybill.Denied)
	deny := access.Rule{Subject: "account:reader", Object: "model/secret", Action: access.Read, Effect: access.Deny}
	_, err = f.AddRule(ctx, reader, deny)
	f.ok(err)
	_, err = f.RemoveRule(ctx, reader, deny)
	f.code(err, waybill.Denied)
	_, err = f.AddRule(ctx, f.admin, allow)
	f.ok(err)
	_, err = f.RemoveRule(ctx, reader, deny)
	f.ok(err)
}

// TestIssuers follows a token through the hands of those who issued the tokens that it was issued by.
func TestIssuers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	if f.admin.Via == nil || len(f.admin.Via.Issuers) != 0 {
		t.Errorf("the first token has issuers: %+v", f.admin.Via)
	}
	_, text := f.account(f.admin, "ann", "admin")
	ann := f.mustAuth(f.Access, text)
	_, text = f.account(ann, "bob", "admin")
	bob := f.mustAuth(f.Access, text)
	_, text, err := f.IssueToken(ctx, bob, access.Grant{}, "ann", time.Hour, nil)
	f.ok(err)
	again := f.mustAuth(f.Access, text)
	_, _, err = f.IssueToken(ctx, again, access.Grant{}, "carol", time.Hour, nil)
	f.code(err, waybill.NotFound)
	_, text = f.account(again, "carol", "auditor")
	carol := f.mustAuth(f.Access, text)
	second := f.open(f.pool, access.Config{})
	for _, c := range []struct {
		actor waybill.Actor
		want  []string
	}{{ann, []string{"root"}}, {bob, []string{"root", "ann"}}, {again, []string{"root", "bob"}}, {carol, []string{"root", "bob", "ann"}}, {f.mustAuth(second, text), []string{"root", "bob", "ann"}}} {
		if diff := cmp.Diff(c.want, c.actor.Via.Issuers); diff != "" {
			t.Errorf("%s: %s", c.actor, diff)
		}
	}
}
