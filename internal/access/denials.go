package access

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// maxPending bounds the denials that wait to be written. Beyond it a new kind of denial is counted and not written.
const maxPending = 1024

// denials counts refusals and gathers them for the log. Equal ones become one entry with a count, so that an attacker
// cannot fill the log: administrative and personal ones are all there, by resource, within a second or two; the rest by
// actor and action, within a minute.
type denials struct {
	count    atomic.Uint64 // known callers without the right
	refused  atomic.Uint64 // callers without a good credential
	overflow atomic.Uint64 // denials that no entry tells of

	mu      sync.Mutex
	pending map[denialKey]*denial
}

type denialKey struct {
	tenant           waybill.Tenant
	actor            string
	resource, action string // resource is "" unless the denial is sensitive
}

type denial struct {
	Count    int    `json:"count"`
	Resource string `json:"resource"` // the first one
	Action   string `json:"action"`
	Rev      int64  `json:"policy_rev"`
	TokenID  string `json:"token_id,omitempty"`
	first    time.Time
}

// Check is the gate: nil when the policy and the credential let actor do action on resource, else an error with the code
// Denied. Refusals are counted and gathered for the log. Letting through allocates nothing.
func (a *Access) Check(actor waybill.Actor, g Grant, resource, action string) error {
	s := a.snap.Load()
	if !s.allowed(actor.Tenant, actor.ID, resource, action) {
		a.deny(actor, g, resource, action, s.rev)
		return waybill.Errorf(waybill.Denied, "no rule lets %s %s %s", actor.ID, action, resource)
	}
	if !g.Permits(action) {
		a.deny(actor, g, resource, action, s.rev)
		return waybill.Errorf(waybill.Denied, "the token is not for %s; use one with that scope", action)
	}
	return nil
}

// Denials is how many requests of known callers Check has refused since Open.
func (a *Access) Denials() uint64 { return a.denied.count.Load() }

// Refusals is how many callers Authenticate has refused since Open.
func (a *Access) Refusals() uint64 { return a.denied.refused.Load() }

// UnloggedDenials is how many denials were counted and not written to the log, because too many different ones waited.
func (a *Access) UnloggedDenials() uint64 { return a.denied.overflow.Load() }

// sensitive denials are written one by one.
func sensitive(resource, action string) bool {
	switch action {
	case Administer, ReadPersonal, Erase, Export:
		return true
	}
	return resource == "policy" || resource == "token" || resource == "tenant"
}

func (a *Access) deny(actor waybill.Actor, g Grant, resource, action string, rev int64) {
	d := &a.denied
	d.count.Add(1)
	if checkActor(actor) != nil { // there is no log that this would belong to
		d.overflow.Add(1)
		return
	}
	resource, action = printable(resource), printable(action)
	key := denialKey{tenant: actor.Tenant, actor: actor.ID, action: action}
	if sensitive(resource, action) {
		key.resource = resource
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.pending[key]; known != nil {
		known.Count++
		return
	}
	if len(d.pending) >= maxPending {
		d.overflow.Add(1)
		return
	}
	d.pending[key] = &denial{Count: 1, Resource: resource, Action: action, Rev: rev, TokenID: g.TokenID, first: a.clock()}
}

// printable cuts what a caller made up to what a log entry can hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0x7f {
			return '?'
		}
		return r
	}, s[:min(len(s), 200)])
}

// writeDenials moves what is due (all of it when last is set) to the outbox in one transaction. What cannot be written
// goes back and waits for the next time.
func (a *Access) writeDenials(ctx context.Context, last bool) error {
	d := &a.denied
	now := a.clock()
	due := map[denialKey]*denial{}
	d.mu.Lock()
	for k, v := range d.pending {
		if last || k.resource != "" || now.Sub(v.first) >= time.Minute {
			due[k] = v
			delete(d.pending, k)
		}
	}
	d.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	err := pg.InTx(ctx, a.pool, func(tx pgx.Tx) error {
		for k, v := range due {
			e := audit.Event{Type: "access.denied", Tenant: k.tenant, Actor: k.actor, At: v.first, Subject: "actor:" + k.actor, Detail: v}
			if err := audit.Enqueue(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, v := range due {
		if known := d.pending[k]; known != nil {
			known.Count += v.Count
			known.first = v.first
		} else if len(d.pending) < maxPending {
			d.pending[k] = v
		} else {
			d.overflow.Add(uint64(v.Count))
		}
	}
	return err
}
