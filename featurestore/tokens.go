package featurestore

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// MinTokenKey is how many bytes Config.TokenKey has at least.
const MinTokenKey = 32

// tokenPrefix begins every token, so that people see that it is one.
const tokenPrefix = "tok_"

// personal is the sensitivity of what is about a person.
const personal = "personal"

// personal says whether a column's values are stored as tokens.
func (c Column) personal() bool { return c.Sensitivity == personal }

// personal says whether a view has a column whose values are stored as tokens.
func (v *View) personal() bool {
	return slices.ContainsFunc(v.Entity.Keys, Column.personal) || slices.ContainsFunc(v.Features, Column.personal)
}

const selectPersonalView pg.SQL = `SELECT name FROM featurestore.definition WHERE kind = 'view' AND yaml ~ 'sensitivity: personal' LIMIT 1`

// needsTokenKey refuses to open a store without a key, or with a short one, when a published view cannot do without.
func (s *Store) needsTokenKey(ctx context.Context) error {
	if n := len(s.tokenKey); n > 0 && n < MinTokenKey {
		return waybill.InvalidField("features-token-key", fmt.Sprintf("has %d bytes; give %d random ones or more", n, MinTokenKey))
	} else if n > 0 {
		return nil
	}
	var view string
	err := s.pool.QueryRow(ctx, string(selectPersonalView)).Scan(&view)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("select personal view: %w", err)
	}
	return noTokenKey(view)
}

// tokens makes the tokens of one tenant's personal values: the same value gives the same token in every view of the
// tenant, so that joins go on working, and other tokens for every other tenant.
type tokens struct{ key []byte }

// tokens are those of a tenant: HMAC-SHA-256 under a key that is itself the HMAC of the tenant's name under the hub's.
func (s *Store) tokens(tenant waybill.Tenant) tokens {
	if len(s.tokenKey) == 0 {
		return tokens{}
	}
	m := hmac.New(sha256.New, s.tokenKey)
	m.Write([]byte("waybill tokens 1\x00" + string(tenant)))
	return tokens{m.Sum(nil)}
}

// forView are the tokens that a view needs. Conflict when it needs them and this hub has no key.
func (s *Store) forView(tenant waybill.Tenant, v *View) (tokens, error) {
	if !v.personal() {
		return tokens{}, nil
	}
	t := s.tokens(tenant)
	if t.key == nil {
		return t, noTokenKey(v.Name)
	}
	return t, nil
}

// array is tokenise for every value of a column of texts.
func (t tokens) array(c Column, a arrow.Array) arrow.Array {
	texts, ok := a.(*array.String)
	if !ok {
		return a
	}
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(texts.Len())
	for i := range texts.Len() {
		if token, ok := t.tokenise(c, texts.Value(i)).(string); ok && texts.IsValid(i) {
			b.Append(token)
		} else {
			b.AppendNull()
		}
	}
	return b.NewArray()
}

// tokenising makes a compiled service look personal join keys up by their tokens. Whoever compiles a service to look keys
// up calls it. Conflict when a view needs tokens and this hub has no key.
func (s *Store) tokenising(tenant waybill.Tenant, p *plan) error {
	for i := range p.views {
		l := &p.views[i]
		if !slices.ContainsFunc(l.columns, Column.personal) {
			continue
		}
		if l.tokens = s.tokens(tenant); l.tokens.key == nil {
			return noTokenKey(l.ref.Name)
		}
	}
	return nil
}

func noTokenKey(view string) error {
	return waybill.Errorf(waybill.Conflict, "view %s has personal columns, which are stored as tokens, and this hub has no key for them; set WAYBILL_FEATURES_TOKEN_KEY", view)
}

// tokenise replaces the text of a personal column by its token; every other value stays. A value of a column goes through
// here exactly once: on its way in, and when it is asked for. A token that is given as a value gets a token of its own,
// so nobody can write under another's.
func (t tokens) tokenise(c Column, v any) any {
	text, ok := v.(string)
	if !ok || !c.personal() {
		return v
	}
	m := hmac.New(sha256.New, t.key)
	m.Write([]byte(text))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}
