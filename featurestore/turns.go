package featurestore

import (
	"context"
	"slices"
	"sync"

	"waybill"
)

// Of files that come in, so many may be in memory at once, and so many of these may be decoded at once; and so many training
// sets, which are in memory meanwhile, may be on their way out. Half of each is a tenant's at most.
const (
	uploads   = 4
	decoders  = 2
	downloads = 4
)

// maxQueue bounds how many of one tenant wait for a place.
const maxQueue = 64

// places bound what a hub does at once. A tenant has at most half of them, so that none can keep the others out, and the
// tenants who wait are served in rounds, one place each, however many of one of them wait.
type places struct {
	what      string // that is done in a place, as it stands in errors: "a file is read"
	all, each int    // places of the hub, and of one tenant

	mu      sync.Mutex
	taken   int
	turns   int64 // that there have been; what orders the tenants
	tenants map[waybill.Tenant]*line
}

// line is a tenant that has a place or waits for one.
type line struct {
	taken int
	turn  int64           // when it came, or last got a place
	queue []chan struct{} // those who wait, oldest first; closed when they have a place
}

func newPlaces(what string, all int) *places {
	return &places{what: what, all: all, each: max(1, all/2), tenants: map[waybill.Tenant]*line{}}
}

// turn waits for a place until ctx ends. The caller calls done, once. Errors: Exhausted.
func (p *places) turn(ctx context.Context, tenant waybill.Tenant) (done func(), err error) {
	mine, err := p.ask(tenant)
	if err != nil {
		return nil, err
	}
	select {
	case <-mine:
		return func() { p.leave(tenant) }, nil
	case <-ctx.Done():
		p.giveUp(tenant, mine)
		return nil, waybill.Wrap(waybill.Exhausted, ctx.Err(), "the turn did not come in time until "+p.what+", which a hub does for few at once, and half of them of one tenant; try again later")
	}
}

// ask queues for a place, which is there when mine is closed.
func (p *places) ask(tenant waybill.Tenant) (mine chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(tenant)
	if len(l.queue) >= maxQueue {
		return nil, waybill.Errorf(waybill.Exhausted, "%d calls of this tenant wait already until %s; try again when one of them has ended", maxQueue, p.what)
	}
	mine = make(chan struct{})
	l.queue = append(l.queue, mine)
	p.hand()
	return mine, nil
}

// giveUp leaves the queue, or the place if that came in the same moment.
func (p *places) giveUp(tenant waybill.Tenant, mine chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.tenants[tenant]
	if at := slices.Index(l.queue, mine); at >= 0 {
		l.queue = slices.Delete(l.queue, at, at+1)
	} else {
		p.taken--
		l.taken--
		p.hand()
	}
	p.tidy(tenant)
}

// take is a place if one is free for the tenant now. Errors: Exhausted.
func (p *places) take(tenant waybill.Tenant) (done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(tenant)
	if p.taken >= p.all || l.taken >= p.each {
		p.tidy(tenant)
		return nil, waybill.Errorf(waybill.Exhausted, "%d calls, %d of them of this tenant, wait already until %s; at most %d and %d may: try again later", p.taken, l.taken, p.what, p.all, p.each)
	}
	p.seat(l)
	return func() { p.leave(tenant) }, nil
}

func (p *places) leave(tenant waybill.Tenant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	p.tenants[tenant].taken--
	p.hand()
	p.tidy(tenant)
}

// line returns a tenant's, which comes after those who are there. The caller holds mu, and calls tidy unless it seats or queues.
func (p *places) line(tenant waybill.Tenant) *line {
	l := p.tenants[tenant]
	if l == nil {
		p.turns++
		l = &line{turn: p.turns}
		p.tenants[tenant] = l
	}
	return l
}

// seat gives a place to a tenant.
func (p *places) seat(l *line) {
	p.turns++
	p.taken++
	l.taken++
	l.turn = p.turns
}

// hand gives the free places to those whose turn it is.
func (p *places) hand() {
	for p.taken < p.all {
		var next *line
		for _, l := range p.tenants {
			if len(l.queue) > 0 && l.taken < p.each && (next == nil || l.turn < next.turn) {
				next = l
			}
		}
		if next == nil {
			return
		}
		p.seat(next)
		close(next.queue[0])
		next.queue = next.queue[1:]
	}
}

// tidy forgets a tenant that has nothing here.
func (p *places) tidy(tenant waybill.Tenant) {
	if l := p.tenants[tenant]; l.taken == 0 && len(l.queue) == 0 {
		delete(p.tenants, tenant)
	}
}
