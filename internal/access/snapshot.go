package access

import (
	"maps"
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

// policy is what load reads in one transaction: the state of the schema at one revision, or what changed until then.
type policy struct {
	rev      int64
	accounts []accountRow // enabled ones only
	rules    []Rule
	bindings []Binding
	tokens   []tokenRow

	// since is set when this is no whole state: tokens are then those that changed, and the rest is all of the tenants in
	// changed and of nobody else, with no rules of AllTenants.
	since   bool
	changed []waybill.Tenant
}

type accountRow struct {
	Tenant waybill.Tenant
	ID     string
	Kind   waybill.ActorKind
}

// snapshot is a compiled policy. It is never changed once made; the counters behind use are the only exception, and they
// are shared with the next snapshot, as is every tenant that has not changed.
type snapshot struct {
	rev     int64
	builtin map[string]*ruleset // the rules of AllTenants by subject
	tenants map[waybill.Tenant]*tenant
	tokens  tokens
}

// tenant is what one tenant has.
type tenant struct {
	accounts map[string]*account
	sets     map[string]*ruleset // its own rules by subject
}

// account finds an enabled account; nil when there is none.
func (s *snapshot) account(of waybill.Tenant, id string) *account {
	if t := s.tenants[of]; t != nil {
		return t.accounts[id]
	}
	return nil
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

// compile builds the snapshot of a whole policy. Counters of tokens that old already knows are taken over.
func compile(p *policy, old *snapshot) *snapshot {
	s := &snapshot{rev: p.rev, builtin: map[string]*ruleset{}, tenants: map[waybill.Tenant]*tenant{}}
	s.tenants = compileTenants(p, s.builtin)
	s.tokens = tokens{base: make(map[string]*token, len(p.tokens))}
	for i := range p.tokens {
		s.tokens.base[p.tokens[i].ID] = newTokenOf(&p.tokens[i], old)
	}
	return s
}

// update builds the snapshot of old and what has changed since. Its cost grows with the change, with the number of tenants
// when a policy changed, and, by little, with the tokens: see tokens. keepDead is how old a dead token may be.
func update(p *policy, old *snapshot, keepDead time.Time) *snapshot {
	s := &snapshot{rev: p.rev, builtin: old.builtin, tenants: old.tenants, tokens: old.tokens}
	if len(p.changed) > 0 {
		made := compileTenants(p, s.builtin)
		s.tenants = maps.Clone(old.tenants)
		for _, name := range p.changed {
			if t := made[name]; t != nil {
				s.tenants[name] = t
			} else {
				delete(s.tenants, name) // nothing left of it
			}
		}
	}
	if len(p.tokens) > 0 {
		changed := make(map[string]*token, len(p.tokens))
		for i := range p.tokens {
			changed[p.tokens[i].ID] = newTokenOf(&p.tokens[i], old)
		}
		s.tokens = old.tokens.with(changed, keepDead)
	}
	return s
}

// compileTenants builds all tenants of which p holds something, and puts rules of AllTenants into builtin.
func compileTenants(p *policy, builtin map[string]*ruleset) map[waybill.Tenant]*tenant {
	out := map[waybill.Tenant]*tenant{}
	of := func(name waybill.Tenant) *tenant {
		t := out[name]
		if t == nil {
			t = &tenant{accounts: map[string]*account{}, sets: map[string]*ruleset{}}
			out[name] = t
		}
		return t
	}
	var made []*ruleset
	for _, r := range p.rules {
		sets := builtin
		if r.Tenant != AllTenants {
			sets = of(r.Tenant).sets
		} else if !strings.HasPrefix(r.Subject, "role:") {
			continue // an account's name means another account in every tenant
		}
		set := sets[r.Subject]
		if set == nil {
			set = &ruleset{byAction: map[string]*verdicts{}}
			sets[r.Subject] = set
			made = append(made, set)
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
	for _, set := range made {
		for _, v := range set.byAction {
			v.allow.seal()
			v.deny.seal()
		}
	}
	for _, row := range p.accounts {
		if row.Tenant == AllTenants {
			continue
		}
		t := of(row.Tenant)
		acc := &account{actor: waybill.Actor{ID: row.ID, Tenant: row.Tenant, Kind: row.Kind}}
		if set := t.sets["account:"+row.ID]; set != nil {
			acc.sets = append(acc.sets, set)
		}
		t.accounts[row.ID] = acc
	}
	for _, b := range p.bindings {
		t := out[b.Tenant]
		if t == nil || t.accounts[b.Account] == nil || slices.Contains(t.accounts[b.Account].roles, b.Role) { // a disabled account
			continue
		}
		acc := t.accounts[b.Account]
		acc.roles = append(acc.roles, b.Role)
		for _, sets := range []map[string]*ruleset{t.sets, builtin} {
			if set := sets["role:"+b.Role]; set != nil {
				acc.sets = append(acc.sets, set)
			}
		}
	}
	for _, t := range out {
		for _, acc := range t.accounts {
			slices.Sort(acc.roles)
		}
	}
	return out
}

// token is a token that may or may not still be good. Those long dead are not kept.
type token struct {
	tenant  waybill.Tenant
	account string
	digest  [32]byte
	expires time.Time
	revoked time.Time // zero when it was not
	grant   Grant
	via     *waybill.Credential
	use     *use
}

func newTokenOf(row *tokenRow, old *snapshot) *token {
	t := &token{
		tenant: row.Tenant, account: row.Account, digest: row.digest, expires: row.ExpiresAt,
		grant: Grant{TokenID: row.ID, Scopes: row.Scopes}, via: &waybill.Credential{TokenID: row.ID, Issuers: row.Issuers},
	}
	if row.RevokedAt != nil {
		t.revoked = *row.RevokedAt
	}
	if known := old.tokens.get(row.ID); known != nil {
		t.use = known.use
	} else {
		t.use = &use{}
	}
	return t
}

// diedBefore reports whether a token has been no good since before at.
func (t *token) diedBefore(at time.Time) bool {
	return t.expires.Before(at) || !t.revoked.IsZero() && t.revoked.Before(at)
}

// tokens holds all tokens in two maps, neither of which is ever changed: most in base, those that changed lately in
// recent, which wins. A change copies recent, which is small, and only when that has grown to a sixteenth of base are the
// two made into one: with 300,000 tokens a change copies a few thousand entries at most times.
type tokens struct{ base, recent map[string]*token }

// recentTokens is how far recent may grow in any case.
const recentTokens = 1024

func (t tokens) get(id string) *token {
	if found := t.recent[id]; found != nil {
		return found
	}
	return t.base[id]
}

// all calls f with every token.
func (t tokens) all(f func(id string, t *token)) {
	for id, one := range t.recent {
		f(id, one)
	}
	for id, one := range t.base {
		if t.recent[id] == nil {
			f(id, one)
		}
	}
}

// with returns the tokens with some of them changed. When the maps are made one, what died before keepDead is left out.
func (t tokens) with(changed map[string]*token, keepDead time.Time) tokens {
	recent := make(map[string]*token, len(t.recent)+len(changed))
	maps.Copy(recent, t.recent)
	maps.Copy(recent, changed)
	if len(recent) <= max(recentTokens, len(t.base)/16) {
		return tokens{base: t.base, recent: recent}
	}
	base := make(map[string]*token, len(t.base)+len(recent))
	tokens{base: t.base, recent: recent}.all(func(id string, one *token) {
		if !one.diedBefore(keepDead) {
			base[id] = one
		}
	})
	return tokens{base: base}
}

// use is when a token was last seen and how much of that Postgres has been told, in Unix microseconds.
type use struct{ seen, written atomic.Int64 }

// allowed is the whole decision. It does not allocate.
func (s *snapshot) allowed(tenant waybill.Tenant, id, resource, action string) bool {
	acc := s.account(tenant, id)
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
	acc := s.account(tenant, id)
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
	if acc := a.snap.Load().account(actor.Tenant, actor.ID); acc != nil {
		return slices.Clone(acc.roles)
	}
	return nil
}

// Lookup returns the actor of an enabled account. It is for credentials other than tokens, and for explanations.
func (a *Access) Lookup(tenant waybill.Tenant, id string) (waybill.Actor, error) {
	if acc := a.snap.Load().account(tenant, id); acc != nil {
		return acc.actor, nil
	}
	return waybill.Actor{}, waybill.Errorf(waybill.NotFound, "no such account, or it is disabled")
}
