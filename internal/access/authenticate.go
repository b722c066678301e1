package access

import (
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"waybill"
	"waybill/internal/pg"
)

// Grant is what a credential adds to, or rather takes from, the rights of its account.
type Grant struct {
	TokenID string
	Scopes  []string // the only actions it may be used for; empty is all of the account's. Shared: not to be changed
}

// Permits reports whether the credential may be used for action.
func (g Grant) Permits(action string) bool {
	return len(g.Scopes) == 0 || slices.Contains(g.Scopes, action)
}

// What a caller without a good token is told. Expired and revoked are told to holders of the right secret only, so none
// of the words helps to guess one.
var (
	errMalformed = waybill.Errorf(waybill.Unauthenticated, "the token is malformed; check that it was copied as a whole")
	errUnknown   = waybill.Errorf(waybill.Unauthenticated, "the token is unknown; check that it belongs to this hub")
	errExpired   = waybill.Errorf(waybill.Unauthenticated, "the token has expired; have a new one issued with POST /v1/tokens")
	errRevoked   = waybill.Errorf(waybill.Unauthenticated, "the token was revoked; have a new one issued with POST /v1/tokens")
	errCutOff    = waybill.Errorf(waybill.Unavailable, "this node cannot tell whether credentials still hold; try again or use another node")
)

// Authenticate returns whose token text is and what it is good for. It reads memory only. The errors have the code
// Unauthenticated (malformed, unknown, expired, revoked), or Unavailable when this node has heard nothing from Postgres
// for too long. A token made on another node is known here within a second.
func (a *Access) Authenticate(_ context.Context, text string) (waybill.Actor, Grant, error) {
	t, acc, err := a.authenticate(text)
	if err != nil {
		a.denied.refused.Add(1)
		return waybill.Actor{}, Grant{}, err
	}
	actor := acc.actor
	actor.Via = t.via
	return actor, t.grant, nil
}

func (a *Access) authenticate(text string) (*token, *account, error) {
	parsed, ok := parseToken(text)
	if !ok {
		return nil, nil, errMalformed
	}
	if a.cutOff.Load() {
		return nil, nil, errCutOff
	}
	// A token that does not exist is compared too, with a digest that nothing has, so that time does not tell which ids
	// exist.
	snap := a.snap.Load()
	t := snap.tokens.get(parsed.id)
	var want [32]byte
	if t != nil {
		want = t.digest
	}
	got := parsed.digest()
	same := subtle.ConstantTimeCompare(got[:], want[:]) == 1
	if t == nil || !same || parsed.env != a.env {
		return nil, nil, errUnknown
	}
	now := a.clock()
	acc := snap.account(t.tenant, t.account)
	switch {
	case !t.revoked.IsZero() || acc == nil: // a disabled account's tokens work no more
		return nil, nil, errRevoked
	case !now.Before(t.expires):
		return nil, nil, errExpired
	}
	// Noted at most once a minute: most calls only read the counter.
	if at, seen := now.UnixMicro(), t.use.seen.Load(); at-seen >= time.Minute.Microseconds() {
		t.use.seen.CompareAndSwap(seen, at)
	}
	return t, acc, nil
}

const writeLastUsed pg.SQL = `
UPDATE access.token t SET last_used_at = u.at
FROM unnest($1::text[], $2::timestamptz[]) AS u(id, at)
WHERE t.id = u.id AND (t.last_used_at IS NULL OR t.last_used_at < u.at)`

// writeUses tells Postgres when tokens were last used, in batches. What fails is told the next time.
func (a *Access) writeUses(ctx context.Context) error {
	var ids []string
	var times []time.Time
	var uses []*use
	flush := func() error {
		if len(ids) == 0 {
			return nil
		}
		if _, err := a.pool.Exec(ctx, string(writeLastUsed), ids, times); err != nil {
			return fmt.Errorf("update last use of tokens: %w", err)
		}
		for i, u := range uses {
			u.written.Store(times[i].UnixMicro())
		}
		ids, times, uses = ids[:0], times[:0], uses[:0]
		return nil
	}
	var err error
	a.snap.Load().tokens.all(func(id string, t *token) {
		seen := t.use.seen.Load()
		if err != nil || seen == t.use.written.Load() {
			return
		}
		ids, times, uses = append(ids, id), append(times, time.UnixMicro(seen).UTC()), append(uses, t.use)
		if len(ids) == 1000 {
			err = flush()
		}
	})
	if err != nil {
		return err
	}
	return flush()
}

// gather writes denials every second and last uses every minute until ctx ends, and then both once more.
func (a *Access) gather(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	write := func(ctx context.Context, what string, f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			a.logger.Warn("cannot write what was gathered", slog.String("what", what), slog.Any("error", err))
		}
	}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			last := context.WithoutCancel(ctx)
			write(last, "denials", func(ctx context.Context) error { return a.writeDenials(ctx, true) })
			write(last, "last_uses", a.writeUses)
			return
		case <-tick.C:
		}
		write(ctx, "denials", func(ctx context.Context) error { return a.writeDenials(ctx, false) })
		if n%60 == 0 {
			write(ctx, "last_uses", a.writeUses)
		}
	}
}
