package access

import (
	"context"
	"slices"
	"strings"

	"waybill"
)

// Nobody gives what he does not have. Whoever may administer the policy of a tenant can take any right in it and so has
// them all; to everybody else, such as a role that only issues tokens, the right to give is no more than the right to
// pass on. What a rule says is looked up in the snapshot: a right that was taken a moment ago on another node may still
// be passed on, for as long as it may still be used.

// mayIssue says whether by, who showed g, may have a token for the account id with these scopes.
func (a *Access) mayIssue(ctx context.Context, by waybill.Actor, g Grant, id string, scopes []string) error {
	if len(g.Scopes) > 0 {
		if len(scopes) == 0 || slices.ContainsFunc(scopes, func(s string) bool { return !g.Permits(s) }) {
			return a.refuse(by, g, "token", "the token in use is for %s only and can issue tokens for these actions only; name some of them as scopes", strings.Join(g.Scopes, ", "))
		}
	}
	if id == by.ID || a.mayEverything(by) {
		return nil
	}
	if err := a.refresh(ctx, 0); err != nil { // an account that was made on another node a moment ago has rights too
		return waybill.Wrap(waybill.Unavailable, err, "the policy cannot be read; try again")
	}
	acc := a.snap.Load().account(by.Tenant, id)
	if acc == nil {
		return nil // unknown or disabled, which the change says
	}
	var rules []Rule
	for _, set := range acc.sets {
		for _, r := range set.rules {
			if len(scopes) == 0 || slices.Contains(scopes, r.Action) {
				rules = append(rules, r)
			}
		}
	}
	if r, missing := a.lacks(by, rules); missing {
		return a.refuse(by, g, "token", "%s may %s %s and %s may not: a token for another account needs all the rights that it is good for, or the right to administer policy",
			id, r.Action, r.Object, by.ID)
	}
	return nil
}

// mayBind says whether by may give a role.
func (a *Access) mayBind(by waybill.Actor, role string) error {
	if a.mayEverything(by) {
		return nil
	}
	s := a.snap.Load()
	var rules []Rule
	if set := s.builtin["role:"+role]; set != nil {
		rules = append(rules, set.rules...)
	}
	if t := s.tenants[by.Tenant]; t != nil && t.sets["role:"+role] != nil {
		rules = append(rules, t.sets["role:"+role].rules...)
	}
	if len(rules) == 0 { // it does not exist, or not here yet
		return a.refuse(by, Grant{}, "policy", "this node knows no rule of the role %s, and %s may not administer policy", role, by.ID)
	}
	return a.mayGive(by, rules)
}

// mayGive says whether by may give what rules give.
func (a *Access) mayGive(by waybill.Actor, rules []Rule) error {
	if a.mayEverything(by) {
		return nil
	}
	if r, missing := a.lacks(by, rules); missing {
		return a.refuse(by, Grant{}, "policy", "%s may not %s %s and so cannot give that; it needs the right itself, or the right to administer policy", by.ID, r.Action, r.Object)
	}
	return nil
}

func (a *Access) mayEverything(by waybill.Actor) bool { return a.Allowed(by, "policy", Administer) }

// lacks returns the first right in rules that by does not have as a whole. Denials in rules are not made up for: who gives
// a right with an exception needs it without.
func (a *Access) lacks(by waybill.Actor, rules []Rule) (Rule, bool) {
	for _, r := range rules {
		if r.Effect == Allow && !a.AllowedAll(by, r.Object, r.Action) {
			return r, true
		}
	}
	return Rule{}, false
}

// refuse is a denial that no rule decided; it is counted and logged like one.
func (a *Access) refuse(by waybill.Actor, g Grant, resource, format string, args ...any) error {
	a.deny(by, g, resource, Administer, a.Rev())
	return waybill.Errorf(waybill.Denied, format, args...)
}
