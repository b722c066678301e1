package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill"
)

// oracle is casbin's plain enforcer over everything, all tenants at once, as an administrator would load it: the rules and
// roles of accounts that exist and are enabled.
func oracle(t interface{ Fatal(...any) }, p *policy) func(tenant, id, resource, action string) bool {
	enabled := func(tenant waybill.Tenant, id string) bool {
		return slices.ContainsFunc(p.accounts, func(a accountRow) bool { return a.Tenant == tenant && a.ID == id })
	}
	var rules []Rule
	for _, r := range p.rules {
		if id, ok := strings.CutPrefix(r.Subject, "account:"); !ok || enabled(r.Tenant, id) {
			rules = append(rules, r)
		}
	}
	var bindings []Binding
	for _, b := range p.bindings {
		if enabled(b.Tenant, b.Account) {
			bindings = append(bindings, b)
		}
	}
	e, err := enforcer(rules, bindings)
	if err != nil {
		t.Fatal(err)
	}
	return func(tenant, id, resource, action string) bool {
		ok, err := e.Enforce("account:"+id, tenant, resource, action)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
}

// TestSnapshot_EqualsCasbin asks both about random policies whose names are chosen to collide: with "$$", which casbin's
// caches join keys by, with stars and slashes inside and at the ends, with a role's name for an account, with "*" for a
// tenant. (No commas: casbin joins the fields of a rule with one and drops the second of two that look alike.)
func TestSnapshot_EqualsCasbin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"a", "b", "$$", "*", "/", "a/", "o$$x", "é", "role:a", "account:a", ""})
		name := rapid.Custom(func(t *rapid.T) string { return part.Draw(t, "p") + part.Draw(t, "q") })
		tenant := rapid.SampledFrom([]waybill.Tenant{"a", "b", "a$$b", "*"})
		object := rapid.Custom(func(t *rapid.T) string { return name.Draw(t, "o1") + name.Draw(t, "o2") })
		action := rapid.SampledFrom([]string{"read", "write", "$$", "*"})
		subject := rapid.SampledFrom([]string{"a", "b", "$$", "a$$", "role:a"})
		var p policy
		for range rapid.IntRange(0, 6).Draw(t, "accounts") {
			a := accountRow{Tenant: tenant.Filter(func(s waybill.Tenant) bool { return s != "*" }).Draw(t, "tenant"), ID: subject.Draw(t, "id")}
			if !slices.Contains(p.accounts, a) {
				p.accounts = append(p.accounts, a)
			}
		}
		for range rapid.IntRange(0, 20).Draw(t, "rules") {
			r := Rule{Tenant: tenant.Draw(t, "tenant"), Object: object.Draw(t, "object"), Action: action.Draw(t, "action")}
			r.Subject = "role:" + subject.Draw(t, "role")
			if r.Tenant != AllTenants && rapid.Bool().Draw(t, "for account") {
				r.Subject = "account:" + subject.Draw(t, "account")
			}
			r.Effect = rapid.SampledFrom([]Effect{Allow, Allow, Allow, Deny}).Draw(t, "effect")
			p.rules = append(p.rules, r)
		}
		for range rapid.IntRange(0, 8).Draw(t, "bindings") {
			p.bindings = append(p.bindings, Binding{Tenant: tenant.Draw(t, "tenant"), Account: subject.Draw(t, "account"), Role: subject.Draw(t, "role")})
		}
		want := oracle(t, &p)
		s := compile(&p, &snapshot{})
		a := &Access{}
		a.snap.Store(s)
		for range 30 {
			te, id, o, act := tenant.Draw(t, "tenant"), subject.Draw(t, "id"), object.Draw(t, "object"), action.Draw(t, "action")
			got := s.allowed(te, id, o, act)
			if w := want(string(te), id, o, act); got != w {
				t.Fatalf("%s of %s: %s %s: snapshot %v, casbin %v\n%+v", id, te, act, o, got, w, p)
			}
			// The explanation asks casbin too, about the few rules that can match; it must not disagree either.
			x, err := a.Explain(waybill.Actor{ID: id, Tenant: te}, o, act)
			if err != nil || x.Allowed != got || got && (x.Rule == nil || x.Rule.Effect != Allow) {
				t.Fatalf("explain %s of %s: %s %s: %+v, %v", id, te, act, o, x, err)
			}
		}
	})
}

// state is a policy as the database would hold it, from which whole reads and reads of what changed are made.
type state struct {
	accounts []accountRow
	rules    []Rule
	bindings []Binding
	tokens   map[string]tokenRow
}

func (s *state) of(tenants []waybill.Tenant) *policy {
	in := func(t waybill.Tenant) bool { return tenants == nil || slices.Contains(tenants, t) }
	p := &policy{}
	for _, a := range s.accounts {
		if in(a.Tenant) {
			p.accounts = append(p.accounts, a)
		}
	}
	for _, r := range s.rules {
		if in(r.Tenant) {
			p.rules = append(p.rules, r)
		}
	}
	for _, b := range s.bindings {
		if in(b.Tenant) {
			p.bindings = append(p.bindings, b)
		}
	}
	return p
}

// TestUpdate_EqualsCompileAndCasbin changes a policy step by step and brings a snapshot up to date with what changed only.
func TestUpdate_EqualsCompileAndCasbin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tenants := []waybill.Tenant{"a", "b", "c"}
		tenant, id := rapid.SampledFrom(tenants), rapid.SampledFrom([]string{"x", "y", "z"})
		object := rapid.SampledFrom([]string{"*", "model/*", "model/a", "model/a*", "policy"})
		action := rapid.SampledFrom([]string{Read, Write})
		row := func(name string) tokenRow {
			return tokenRow{ID: name, Tenant: tenant.Draw(t, "of"), Account: id.Draw(t, "whose"), ExpiresAt: time.Unix(1000, 0)}
		}
		now := &state{tokens: map[string]tokenRow{}, rules: []Rule{{AllTenants, "role:r", "model/*", Read, Allow}, {AllTenants, "role:q", "*", Write, Deny}}}
		drop := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
		snap := compile(now.of(nil), &snapshot{})
		for range rapid.IntRange(1, 8).Draw(t, "reads") {
			touched, tokens := map[waybill.Tenant]bool{}, map[string]bool{}
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				te := tenant.Draw(t, "tenant")
				switch rapid.IntRange(0, 6).Draw(t, "change") {
				case 0:
					if a := (accountRow{te, id.Draw(t, "id"), waybill.Person}); !slices.Contains(now.accounts, a) {
						now.accounts = append(now.accounts, a)
					}
				case 1:
					if n := len(now.accounts); n > 0 {
						i := drop(n)
						te = now.accounts[i].Tenant
						now.accounts = slices.Delete(now.accounts, i, i+1)
					}
				case 2:
					subject := rapid.SampledFrom([]string{"role:r", "role:q", "account:x", "account:y"}).Draw(t, "subject")
					now.rules = append(now.rules, Rule{te, subject, object.Draw(t, "object"), action.Draw(t, "action"), rapid.SampledFrom([]Effect{Allow, Deny}).Draw(t, "effect")})
				case 3:
					if n := len(now.rules); n > 2 { // the first two are built in
						i := 2 + drop(n-2)
						te = now.rules[i].Tenant
						now.rules = slices.Delete(now.rules, i, i+1)
					}
				case 4:
					now.bindings = append(now.bindings, Binding{te, id.Draw(t, "id"), rapid.SampledFrom([]string{"r", "q"}).Draw(t, "role")})
				case 5:
					if n := len(now.bindings); n > 0 {
						i := drop(n)
						te = now.bindings[i].Tenant
						now.bindings = slices.Delete(now.bindings, i, i+1)
					}
				case 6:
					name := rapid.SampledFrom([]string{"t1", "t2", "t3", "t4"}).Draw(t, "token")
					if known, ok := now.tokens[name]; ok {
						at := time.Unix(500, 0)
						known.RevokedAt = &at
						now.tokens[name] = known
					} else {
						now.tokens[name] = row(name)
					}
					tokens[name] = true
					continue
				}
				touched[te] = true
			}
			var changed []waybill.Tenant
			for _, te := range tenants {
				if touched[te] {
					changed = append(changed, te)
				}
			}
			since := &policy{}
			if changed != nil {
				since = now.of(changed)
			}
			since.since, since.changed = true, changed
			whole := now.of(nil)
			for name, r := range now.tokens {
				whole.tokens = append(whole.tokens, r)
				if tokens[name] {
					since.tokens = append(since.tokens, r)
				}
			}
			snap = update(since, snap, time.Unix(0, 0))
			fresh, want := compile(whole, &snapshot{}), oracle(t, whole)
			for _, te := range tenants {
				for _, who := range []string{"x", "y", "z"} {
					for _, o := range []string{"model/a", "model/ab", "model/*", "policy"} {
						for _, act := range []string{Read, Write} {
							got := snap.allowed(te, who, o, act)
							if w := want(string(te), who, o, act); got != w || got != fresh.allowed(te, who, o, act) {
								t.Fatalf("%s of %s: %s %s: updated %v, casbin %v\n%+v", who, te, act, o, got, w, whole)
							}
						}
					}
				}
			}
			n := 0
			snap.tokens.all(func(name string, got *token) {
				n++
				w := fresh.tokens.get(name)
				if w == nil || w.tenant != got.tenant || w.account != got.account || w.revoked != got.revoked || !w.expires.Equal(got.expires) {
					t.Fatalf("token %s: %+v, want %+v", name, got, w)
				}
			})
			if n != len(now.tokens) {
				t.Fatalf("%d tokens, want %d", n, len(now.tokens))
			}
		}
	})
}

// TestTokens_With changes tokens often enough that the maps are made one several times.
func TestTokens_With(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	var all tokens
	for i := range 10 * recentTokens {
		expires := at.Add(time.Hour)
		if i%2 == 0 {
			expires = at.Add(-time.Hour)
		}
		all = all.with(map[string]*token{fmt.Sprint(i): {account: fmt.Sprint(i), expires: expires, use: &use{}}, "0": {account: fmt.Sprint(i), expires: at.Add(time.Hour)}}, at)
		if got := all.get("0"); got == nil || got.account != fmt.Sprint(i) {
			t.Fatalf("at %d: %+v", i, got)
		}
		if len(all.recent) > max(recentTokens, len(all.base)/16) {
			t.Fatalf("%d recent of %d", len(all.recent), len(all.base))
		}
	}
	living, dead := 0, 0
	all.all(func(_ string, one *token) {
		if one.diedBefore(at) {
			dead++
		} else {
			living++
		}
	})
	if living != 5*recentTokens+1 || dead > recentTokens {
		t.Errorf("%d living, %d dead", living, dead)
	}
}

func TestCoversAndOverlaps_EqualTheirMeaning(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*")), 0, 3, -1)
		list := rapid.SliceOfN(pattern, 0, 6).Draw(t, "patterns")
		var p patterns
		for _, s := range list {
			p.add(s)
		}
		p.seal()
		asked := pattern.Draw(t, "asked")
		var q patterns
		q.add(asked)
		some := false
		var words func(s string, depth int)
		words = func(s string, depth int) {
			if q.match(s) {
				some = some || p.match(s)
				if p.covers(asked) && !p.match(s) {
					t.Fatalf("%q covers %q, but not %q", list, asked, s)
				}
			}
			if depth > 0 {
				words(s+"a", depth-1)
				words(s+"b", depth-1)
			}
		}
		words("", 5)
		if p.overlaps(asked) != some { // no pattern is longer than three letters, so words of five are enough
			t.Fatalf("%q overlaps %q: %v", list, asked, !some)
		}
	})
}

func TestPatterns_EqualKeyMatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOfN(rapid.SampledFrom([]rune("ab*/")), 0, 6, -1)
		list := rapid.SliceOfN(word, 0, 12).Draw(t, "patterns")
		var p patterns
		for _, s := range list {
			p.add(s)
		}
		p.seal()
		for range 20 {
			s := word.Draw(t, "s")
			// keyMatch, spelled out anew.
			want := slices.ContainsFunc(list, func(pattern string) bool {
				prefix, _, star := strings.Cut(pattern, "*")
				return star && strings.HasPrefix(s, prefix) || pattern == s && !star
			})
			if got := p.match(s); got != want {
				t.Fatalf("%q in %q: %v, want %v", s, list, got, want)
			}
		}
	})
}

func TestSnapshot_Examples(t *testing.T) {
	t.Parallel()
	p := &policy{
		accounts: []accountRow{{"acme", "alice", waybill.Person}, {"acme", "admin", waybill.Person}, {"other", "alice", waybill.Person}},
		rules: append(BuiltinRules(),
			Rule{"acme", "account:alice", "model/secret", Read, Deny},
			Rule{"acme", "account:gone", "*", Read, Allow}),
		bindings: []Binding{{"acme", "alice", "data-scientist"}, {"acme", "alice", "approver"}, {"acme", "gone", "admin"}, {"nowhere", "alice", "admin"}},
	}
	s := compile(p, &snapshot{})
	for _, c := range []struct {
		tenant       waybill.Tenant
		id, obj, act string
		want         bool
		because      string
	}{
		{"acme", "alice", "model/late-risk", Read, true, "role"},
		{"acme", "alice", "model/late-risk", Approve, true, "second role"},
		{"acme", "alice", "model/*", Read, true, "the whole list"},
		{"acme", "alice", "model", Read, false, "not a resource that the pattern covers"},
		{"acme", "alice", "model/secret", Read, false, "deny wins"},
		{"acme", "alice", "model/secret", Write, true, "deny is for one action"},
		{"acme", "alice", "policy", Administer, false, "no rule"},
		{"other", "alice", "model/late-risk", Read, false, "same name, other tenant, no role"},
		{"acme", "admin", "policy", Administer, false, "an account named like a role"},
		{"acme", "role:admin", "policy", Administer, false, "an actor named like a subject"},
		{"acme", "gone", "model/x", Read, false, "unknown or disabled account"},
		{"nowhere", "alice", "policy", Administer, false, "unknown tenant"},
		{"*", "alice", "policy", Administer, false, "no tenant"},
		{"", "", "", "", false, "nobody"},
	} {
		if got := s.allowed(c.tenant, c.id, c.obj, c.act); got != c.want {
			t.Errorf("%s/%s %s %s: %v (%s)", c.tenant, c.id, c.act, c.obj, got, c.because)
		}
	}
}

func TestBuiltinRules_AreRulesAndLeastPrivilege(t *testing.T) {
	t.Parallel()
	var accounts []accountRow
	var bindings []Binding
	for _, role := range builtinRoles {
		accounts = append(accounts, accountRow{"acme", role.name, waybill.Person})
		bindings = append(bindings, Binding{"acme", role.name, role.name})
	}
	for _, r := range BuiltinRules() {
		r.Tenant = "acme"
		if err := checkRule(r); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	s := compile(&policy{accounts: accounts, rules: BuiltinRules(), bindings: bindings}, &snapshot{})
	who := func(obj, act string) string {
		var out []string
		for _, role := range builtinRoles {
			if s.allowed("acme", role.name, obj, act) {
				out = append(out, role.name)
			}
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct{ obj, act, want string }{
		{"policy", Administer, "admin"},
		{"token", Administer, "admin"},
		{"tenant", Administer, "admin"},
		{"policy", Read, "compliance auditor admin"},
		{"model/m", Approve, "approver"},
		{"model/m", Write, "data-scientist"},
		{"model/m", Promote, "approver operator"},
		{"endpoint/route", Decide, "serving"},
		{"endpoint/*", Publish, "operator"},
		{"decision/*", ReadPersonal, "compliance"},
		{"decision/*", Erase, "compliance"},
		{"decision/x", Review, "reviewer"},
		{"view/v", Write, "data-scientist"},
		{"log", Write, ""},
		{"log", Read, "data-scientist approver reviewer operator compliance auditor admin"},
	} {
		if got := who(c.obj, c.act); got != c.want {
			t.Errorf("%s %s: %s; want %s", c.act, c.obj, got, c.want)
		}
	}
	for _, act := range actions {
		if act != Read && s.allowed("acme", "auditor", "model/m", act) {
			t.Errorf("the auditor may %s", act)
		}
	}
}

// manyRules is a tenant with n rules: a thousand roles, accounts with three roles each; a tenth are patterns, one in
// fifty denies.
func manyRules(n int) *policy {
	p := &policy{rules: BuiltinRules()}
	for i := range n {
		r := Rule{"acme", fmt.Sprintf("role:r%d", i%1000), fmt.Sprintf("model/m%d", i/1000), Read, Allow}
		switch {
		case i%50 == 7:
			r.Effect, r.Object = Deny, r.Object+"-old"
		case i%10 == 3:
			r.Object += "-*"
		}
		p.rules = append(p.rules, r)
	}
	for i := range 1000 {
		p.accounts = append(p.accounts, accountRow{"acme", fmt.Sprintf("u%d", i), waybill.Person})
		for j := range 3 {
			p.bindings = append(p.bindings, Binding{"acme", fmt.Sprintf("u%d", i), fmt.Sprintf("r%d", (i+j)%1000)})
		}
	}
	return p
}

func TestAllowed_DoesNotAllocate(t *testing.T) {
	a := &Access{}
	a.snap.Store(compile(manyRules(10_000), &snapshot{}))
	alice := waybill.Actor{ID: "u10", Tenant: "acme", Kind: waybill.Person}
	if !a.Allowed(alice, "model/m5", Read) {
		t.Fatal("the rule is not there")
	}
	n := testing.AllocsPerRun(1000, func() {
		a.Allowed(alice, "model/m5", Read)
		a.Allowed(alice, "model/m5-x", Read)
		a.Allowed(alice, "model/none", Write)
		if err := a.Check(alice, Grant{}, "model/m5", Read); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAuthz(b *testing.B) {
	p := manyRules(100_000)
	a := &Access{}
	a.snap.Store(compile(p, &snapshot{}))
	actors := make([]waybill.Actor, 1024)
	objects := make([]string, 1024)
	for i := range actors {
		actors[i] = waybill.Actor{ID: fmt.Sprintf("u%d", i*37%1000), Tenant: "acme"}
		objects[i] = fmt.Sprintf("model/m%d", i*13%120)
	}
	b.Run("snapshot_100k_rules", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			a.Allowed(actors[i&1023], objects[i&1023], Read)
			i++
		}
	})
	// The same rules in one flat map of exact names: no roles, patterns or denials. What a hand-written check would be.
	type key struct {
		tenant           waybill.Tenant
		sub, obj, action string
	}
	flat := map[key]bool{}
	for _, r := range p.rules {
		flat[key{r.Tenant, r.Subject, r.Object, r.Action}] = r.Effect == Allow
	}
	b.Run("raw_map_100k_rules", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			_ = flat[key{"acme", actors[i&1023].ID, objects[i&1023], Read}]
			i++
		}
	})
	// The worst shape: one role with all of the rules, half of them patterns.
	one := &policy{accounts: []accountRow{{"acme", "u", waybill.Service}}, bindings: []Binding{{"acme", "u", "r"}}}
	for i := range 100_000 {
		r := Rule{"acme", "role:r", fmt.Sprintf("model/m%d", i), Read, Allow}
		if i%2 == 0 {
			r.Object += "-*"
		}
		one.rules = append(one.rules, r)
	}
	a.snap.Store(compile(one, &snapshot{}))
	b.Run("snapshot_one_role_100k_rules", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			a.Allowed(waybill.Actor{ID: "u", Tenant: "acme"}, objects[i&1023], Read)
			i++
		}
	})
	b.Run("compile_100k_rules", func(b *testing.B) {
		for b.Loop() {
			compile(p, &snapshot{})
		}
	})
}
