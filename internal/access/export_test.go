package access

// JoinToken makes a well-formed token of an id and the secret of another token's text.
func JoinToken(env Env, id, text string) string {
	t, ok := parseToken(text)
	if !ok {
		return ""
	}
	return tokenText{env: env, id: id, secret: t.secret}.String()
}
