package access

import "context"

// TokenCount is how many tokens a node knows.
func TokenCount(a *Access) (n int) {
	a.snap.Load().tokens.all(func(string, *token) { n++ })
	return n
}

// Refresh reads what changed.
func Refresh(ctx context.Context, a *Access) error { return a.refresh(ctx, 0) }

// Rebuild reads everything.
func Rebuild(ctx context.Context, a *Access) error { return a.rebuild(ctx) }

// JoinToken makes a well-formed token of an id and the secret of another token's text.
func JoinToken(env Env, id, text string) string {
	t, ok := parseToken(text)
	if !ok {
		return ""
	}
	return tokenText{env: env, id: id, secret: t.secret}.String()
}
