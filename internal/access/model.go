package access

import (
	"fmt"
	"log/slog"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"waybill"
)

// modelConf is the meaning of the policy, in casbin's language. Cheap terms come first: casbin evaluates the matcher for
// every rule. Roles are looked up in the tenant of the request only; there is no role that spans tenants.
const modelConf = `
[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act, eft
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = (r.dom == p.dom || p.dom == "*") && r.act == p.act && keyMatch(r.obj, p.obj) && g(r.sub, p.sub, r.dom)
`

// enforcer returns casbin's plain enforcer over the given rules and roles. It is the oracle of the snapshot: slow, and
// nothing is cached beyond its own life.
func enforcer(rules []Rule, bindings []Binding) (*casbin.Enforcer, error) {
	m, err := model.NewModelFromString(modelConf)
	if err != nil {
		return nil, fmt.Errorf("read casbin model: %w", err)
	}
	for _, r := range rules {
		if err := m.AddPolicy("p", "p", []string{r.Subject, string(r.Tenant), r.Object, r.Action, string(r.Effect)}); err != nil {
			return nil, fmt.Errorf("add casbin rule: %w", err)
		}
	}
	for _, b := range bindings {
		if err := m.AddPolicy("g", "g", []string{"account:" + b.Account, "role:" + b.Role, string(b.Tenant)}); err != nil {
			return nil, fmt.Errorf("add casbin role: %w", err)
		}
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		return nil, fmt.Errorf("make casbin enforcer: %w", err)
	}
	if err := e.BuildRoleLinks(); err != nil {
		return nil, fmt.Errorf("link casbin roles: %w", err)
	}
	return e, nil
}

// Explanation says whether and why.
type Explanation struct {
	Allowed bool
	Rule    *Rule    // the rule that decided: the first deny, else the first allow; nil when none matches
	Roles   []string // of the account, sorted
	Rev     int64    // the policy revision that was asked
}

// Explain answers "why may they, or not?" by asking casbin itself about the rules of the account and its roles; its
// cost grows with their number, so it is for people. An answer other than the snapshot's is a defect: it is logged and
// returned as an internal error instead of an explanation that is not what happens.
func (a *Access) Explain(actor waybill.Actor, resource, action string) (Explanation, error) {
	s := a.snap.Load()
	acc := s.account(actor.Tenant, actor.ID)
	if acc == nil {
		return Explanation{Rev: s.rev}, nil // unknown or disabled: no rule is asked
	}
	out := Explanation{Rev: s.rev, Roles: append([]string{}, acc.roles...)}
	var rules []Rule
	for _, set := range acc.sets { // no other rule can match this subject
		rules = append(rules, set.rules...)
	}
	var bindings []Binding
	for _, role := range acc.roles {
		bindings = append(bindings, Binding{Tenant: actor.Tenant, Account: actor.ID, Role: role})
	}
	e, err := enforcer(rules, bindings)
	if err != nil {
		return Explanation{}, err
	}
	ok, line, err := e.EnforceEx("account:"+actor.ID, string(actor.Tenant), resource, action)
	if err != nil {
		return Explanation{}, fmt.Errorf("ask casbin: %w", err)
	}
	if ok != s.allowed(actor.Tenant, actor.ID, resource, action) {
		a.logger.Error("snapshot and casbin disagree", slog.String("account", actor.ID), slog.String("resource", resource),
			slog.String("action", action), slog.Int64("policy_rev", s.rev), slog.Bool("casbin", ok))
		return Explanation{}, fmt.Errorf("explain access: the compiled policy and casbin disagree at revision %d", s.rev)
	}
	out.Allowed = ok
	if len(line) == 5 {
		out.Rule = &Rule{Subject: line[0], Tenant: waybill.Tenant(line[1]), Object: line[2], Action: line[3], Effect: Effect(line[4])}
	}
	return out, nil
}
