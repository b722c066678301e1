package access

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"waybill"
)

// AllTenants is the tenant of the built-in rules. It is not a name, so no real tenant can have it.
const AllTenants waybill.Tenant = "*"

// Effect is what a matching rule does.
type Effect string

// The effects. Deny wins.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// Rule is one line of policy: a casbin p line.
type Rule struct {
	Tenant  waybill.Tenant // or AllTenants
	Subject string         // "role:approver" or "account:alice"
	Object  string         // a resource, or a pattern that ends in "*"
	Action  string
	Effect  Effect
}

// BuiltIn reports whether the rule comes with the binary and cannot be removed.
func (r Rule) BuiltIn() bool { return r.Tenant == AllTenants }

// Binding gives an account a role: a casbin g line.
type Binding struct {
	Tenant  waybill.Tenant
	Account string
	Role    string
}

// policy is what load reads in one transaction: the state of the schema at one revision.
type policy struct {
	rev      int64
	accounts []accountRow // enabled ones only
	rules    []Rule
	bindings []Binding
	tokens   []tokenRow
}

type accountRow struct {
	Tenant waybill.Tenant
	ID     string
	Kind   waybill.ActorKind
}

// snapshot is a compiled policy. It is never changed after compile; the counters behind use are the only exception,
// and they are shared with the next snapshot.
type snapshot struct {
	rev     int64
	tenants map[waybill.Tenant]map[string]*account
	tokens  map[string]*token
}

// account is what an enabled account may do: the rule sets of its own name and of its roles.
type account struct {
	actor waybill.Actor
	roles []string // sorted
	sets  []*ruleset
}

// ruleset holds the rules of one subject in one tenant, shared by all accounts with that role.
type ruleset struct {
	rules    []Rule
	byAction map[string]*verdicts
}

type verdicts struct{ allow, deny patterns }

// patterns answers whether any of many patterns matches, in time that does not depend on how many there are (exact
// names) or grows with their logarithm (prefixes).
type patterns struct {
	exact    map[string]struct{}
	prefixes []string // sorted; none is a prefix of another
}

func (p *patterns) add(pattern string) {
	// casbin's keyMatch: everything from the first star on stands for anything, also for nothing.
	if prefix, _, star := strings.Cut(pattern, "*"); star {
		p.prefixes = append(p.prefixes, prefix)
		return
	}
	if p.exact == nil {
		p.exact = map[string]struct{}{}
	}
	p.exact[pattern] = struct{}{}
}

// seal sorts the prefixes and drops those that a shorter one covers. What is left is prefix-free, which is what makes
// one binary search enough: between a prefix of s and s itself, in byte order, stand only extensions of that prefix.
func (p *patterns) seal() {
	slices.Sort(p.prefixes)
	kept := p.prefixes[:0]
	for _, s := range p.prefixes {
		if len(kept) == 0 || !strings.HasPrefix(s, kept[len(kept)-1]) {
			kept = append(kept, s)
		}
	}
	p.prefixes = slices.Clip(kept)
}

func (p *patterns) match(s string) bool {
	if p.exact != nil {
		if _, ok := p.exact[s]; ok {
			return true
		}
	}
	if len(p.prefixes) == 0 {
		return false
	}
	i, found := slices.BinarySearch(p.prefixes, s)
	return found || i > 0 && strings.HasPrefix(s, p.prefixes[i-1])
}

// covers reports whether one of the patterns matches all that pattern matches.
func (p *patterns) covers(pattern string) bool {
	prefix, _, star := strings.Cut(pattern, "*")
	if !star {
		return p.match(pattern)
	}
	return slices.ContainsFunc(p.prefixes, func(q string) bool { return strings.HasPrefix(prefix, q) })
}

// overlaps reports whether one of the patterns matches something that pattern matches too. Its time grows with them.
func (p *patterns) overlaps(pattern string) bool {
	prefix, _, star := strings.Cut(pattern, "*")
	if !star {
		return p.match(pattern)
	}
	for name := range p.exact {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.ContainsFunc(p.prefixes, func(q string) bool { return strings.HasPrefix(prefix, q) || strings.HasPrefix(q, prefix) })
}

// compile builds the snapshot of p. Counters of tokens that old already knows are taken over.
func compile(p *policy, old *snapshot) *snapshot {
	type owner struct {
		tenant  waybill.Tenant
		subject string
	}
	sets := map[owner]*ruleset{}
	for _, r := range p.rules {
		if r.Tenant == AllTenants && !strings.HasPrefix(r.Subject, "role:") {
			continue // an account's name means another account in every tenant
		}
		o := owner{r.Tenant, r.Subject}
		set := sets[o]
		if set == nil {
			set = &ruleset{byAction: map[string]*verdicts{}}
			sets[o] = set
		}
		set.rules = append(set.rules, r)
		v := set.byAction[r.Action]
		if v == nil {
			v = &verdicts{}
			set.byAction[r.Action] = v
		}
		switch r.Effect {
		case Allow:
			v.allow.add(r.Object)
		case Deny:
			v.deny.add(r.Object)
		}
	}
	for _, set := range sets {
		for _, v := range set.byAction {
			v.allow.seal()
			v.deny.seal()
		}
	}
	s := &snapshot{rev: p.rev, tenants: map[waybill.Tenant]map[string]*account{}, tokens: make(map[string]*token, len(p.tokens))}
	for _, row := range p.accounts {
		if row.Tenant == AllTenants {
			continue
		}
		of := s.tenants[row.Tenant]
		if of == nil {
			of = map[string]*account{}
			s.tenants[row.Tenant] = of
		}
		acc := &account{actor: waybill.Actor{ID: row.ID, Tenant: row.Tenant, Kind: row.Kind}}
		if set := sets[owner{row.Tenant, "account:" + row.ID}]; set != nil {
			acc.sets = append(acc.sets, set)
		}
		of[row.ID] = acc
	}
	for _, b := range p.bindings {
		acc := s.tenants[b.Tenant][b.Account]
		if acc == nil || slices.Contains(acc.roles, b.Role) { // a disabled account
			continue
		}
		acc.roles = append(acc.roles, b.Role)
		for _, tenant := range []waybill.Tenant{b.Tenant, AllTenants} {
			if set := sets[owner{tenant, "role:" + b.Role}]; set != nil {
				acc.sets = append(acc.sets, set)
			}
		}
	}
	for _, of := range s.tenants {
		for _, acc := range of {
			slices.Sort(acc.roles)
		}
	}
	for i := range p.tokens {
		row := &p.tokens[i]
		t := &token{
			account: s.tenants[row.Tenant][row.Account], digest: row.digest, expires: row.ExpiresAt,
			revoked: row.Revoked, grant: Grant{TokenID: row.ID, Scopes: row.Scopes},
		}
		if known := old.tokens[row.ID]; known != nil {
			t.use = known.use
		} else {
			t.use = &use{}
		}
		s.tokens[row.ID] = t
	}
	return s
}

// token is a token that may or may not still be good. Those long dead are not kept.
type token struct {
	account *account // nil when it is disabled
	digest  [32]byte
	expires time.Time
	revoked bool
	grant   Grant
	use     *use
}

// use is when a token was last seen and how much of that Postgres has been told, in Unix microseconds.
type use struct{ seen, written atomic.Int64 }

// allowed is the whole decision. It does not allocate.
func (s *snapshot) allowed(tenant waybill.Tenant, id, resource, action string) bool {
	acc := s.tenants[tenant][id]
	if acc == nil {
		return false
	}
	ok := false
	for _, set := range acc.sets {
		v := set.byAction[action]
		if v == nil {
			continue
		}
		if v.deny.match(resource) {
			return false
		}
		ok = ok || v.allow.match(resource)
	}
	return ok
}

// Allowed reports whether the policy lets actor do action on resource in the actor's own tenant. It reads memory only,
// allocates nothing and counts nothing: see Check. The zero Actor, an unknown or disabled account and an unknown tenant
// may do nothing.
func (a *Access) Allowed(actor waybill.Actor, resource, action string) bool {
	return a.snap.Load().allowed(actor.Tenant, actor.ID, resource, action)
}

// AllowedAll reports whether the policy lets actor do action on everything that pattern stands for, with no exception: one
// rule allows the whole of it and none denies a part. It is for answers from which no single thing can be left out.
func (a *Access) AllowedAll(actor waybill.Actor, pattern, action string) bool {
	return a.snap.Load().allowedAll(actor.Tenant, actor.ID, pattern, action)
}

func (s *snapshot) allowedAll(tenant waybill.Tenant, id, pattern, action string) bool {
	acc := s.tenants[tenant][id]
	if acc == nil {
		return false
	}
	ok := false
	for _, set := range acc.sets {
		v := set.byAction[action]
		if v == nil {
			continue
		}
		if v.deny.overlaps(pattern) {
			return false
		}
		ok = ok || v.allow.covers(pattern)
	}
	return ok
}

// Roles lists the roles of an account, sorted; none when it is unknown or disabled.
func (a *Access) Roles(actor waybill.Actor) []string {
	if acc := a.snap.Load().tenants[actor.Tenant][actor.ID]; acc != nil {
		return slices.Clone(acc.roles)
	}
	return nil
}

// Lookup returns the actor of an enabled account. It is for credentials other than tokens, and for explanations.
func (a *Access) Lookup(tenant waybill.Tenant, id string) (waybill.Actor, error) {
	if acc := a.snap.Load().tenants[tenant][id]; acc != nil {
		return acc.actor, nil
	}
	return waybill.Actor{}, waybill.Errorf(waybill.NotFound, "no such account, or it is disabled")
}
