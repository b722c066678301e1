package featurestore

import (
	"context"
	"sync"
	"time"

	"waybill"
)

// awaitFor bounds the wait for a commit whose caller set no deadline.
const awaitFor = 5 * time.Second

// awaitPoll is how often the log is read while anybody waits for a commit: when nothing is notified, or Run does not run.
const awaitPoll = 10 * time.Millisecond

// maxAwaiting is how many calls of a hub may wait for commits at once, half of them of one tenant.
const maxAwaiting = 1024

// Await returns once a commit of a view is visible to online reads of this node; ref.Version 0 is the latest version.
// However many wait, one follows the log for all of them. Errors: Deadline when the commit is not in time, Unavailable when
// the view's log cannot be read, Exhausted when too many wait.
func (s *Store) Await(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, seq int64) error {
	ctx, cancel := context.WithTimeout(ctx, awaitFor)
	defer cancel()
	if ref.Version == 0 {
		v, err := s.view(ctx, s.pool, tenant, ref)
		if err != nil {
			return err
		}
		ref.Version = v.Version
	}
	o, err := s.online(ctx, viewKey{tenant, ref})
	if err != nil {
		return err
	}
	if o.seq.Load() >= seq {
		return nil
	}
	done, err := s.awaiting.take(tenant)
	if err != nil {
		return err
	}
	defer done()
	s.chase.join(&s.behind, s.lead)
	defer s.chase.leave()
	for woken := false; ; woken = true {
		moved, away := o.moved.next(), s.chase.away.next() // before it is looked: what comes in between wakes
		switch stuck := o.failed(); {
		case o.seq.Load() >= seq:
			return nil
		case !woken || stuck == nil: // what was wrong before may be right at the next look
		case o.spare != nil && o.spare.seq.Load() >= seq:
			o.atLeast(seq) // from now on the home answers no reader before it has it, and the spare one does
			return nil
		case waybill.CodeOf(stuck) == waybill.Unavailable:
			return stuck
		default:
			return waybill.Errorf(waybill.Unavailable, "the log of %s cannot be read beyond commit %d; the hub's log says why, and it tries again", ref, o.seq.Load())
		}
		select {
		case <-moved.passed:
		case <-away.passed:
			return away.err
		case <-ctx.Done():
			return waybill.Errorf(waybill.Deadline, "commit %d of %s is not visible yet; it has %d", seq, ref, o.seq.Load())
		}
	}
}

// lead follows the log for all who wait, until stop is closed. Those are woken whose view has moved or cannot; all are when no
// log can be read. A look is not broken off: that would cost its connection to Postgres.
func (s *Store) lead(stop <-chan struct{}) {
	tick := time.NewTicker(awaitPoll)
	defer tick.Stop()
	for {
		ctx, cancel := s.beyond(context.Background()) // of none of those who wait: each may go
		if err := s.follow(ctx); err != nil && ctx.Err() == nil {
			s.chase.away.pass(err)
		}
		cancel()
		select {
		case <-tick.C:
		case <-stop:
			return
		case <-s.ending:
			return
		}
	}
}

// chase is one goroutine that runs while anybody wants it to.
type chase struct {
	away signal // the log cannot be read at all

	mu   sync.Mutex
	n    int           // who want it
	stop chan struct{} // closed to end it
}

func (c *chase) join(running *sync.WaitGroup, run func(stop <-chan struct{})) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n++; c.n > 1 {
		return
	}
	stop := make(chan struct{})
	c.stop = stop
	running.Go(func() { run(stop) })
}

func (c *chase) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 {
		close(c.stop)
	}
}

// signal wakes all who wait for it, again and again.
type signal struct {
	mu   sync.Mutex
	wait *moment // nil: nobody does
}

// moment is when a signal passes.
type moment struct {
	passed chan struct{} // closed then
	err    error         // that it passed with; to be read afterwards
}

// next is when the signal will pass.
func (s *signal) next() *moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait == nil {
		s.wait = &moment{passed: make(chan struct{})}
	}
	return s.wait
}

func (s *signal) pass(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait != nil {
		s.wait.err = err
		close(s.wait.passed)
		s.wait = nil
	}
}
