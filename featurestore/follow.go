package featurestore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// Views are followed side by side: one that is large, or whose commits cannot be read, does not keep the others waiting. Of
// each view one goroutine at a time applies commits, in their order (online.lock); whoever finds it at work leaves it to that
// one, which goes on to the last end of the log that anybody has seen.

// abreast is how many views are followed at once. Each holds a connection to Postgres, and some files of the bucket in memory.
const abreast = 4

// The waits between tries to follow a view that cannot be read.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Run follows the log until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	return pg.Listen(ctx, s.pool, "features", s.poll, func(ctx context.Context) error {
		s.unfollowed(ctx, s.follow(ctx))
		return nil
	})
}

// unfollowed logs that no log could be read.
func (s *Store) unfollowed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		s.logger.WarnContext(ctx, "feature log not followed, rows age", "error", err)
	}
}

// show applies what memory lacks of views that are wanted, and logs what could not be: their rows go on being served with
// their true ages.
func (s *Store) show(ctx context.Context, wanted func(o *online) bool) {
	failed, _, err := s.refresh(ctx, wanted)
	s.unfollowed(ctx, err)
	s.complain(ctx, failed)
}

// complain logs once for every try, of which there are few.
func (s *Store) complain(ctx context.Context, failed []error) {
	for _, err := range failed {
		s.logger.ErrorContext(ctx, "a view cannot be followed, the others are served", "error", err)
	}
}

// Refresh applies every commit that memory lacks. Its error names the views that cannot be followed.
func (s *Store) Refresh(ctx context.Context) error {
	failed, waiting, err := s.refresh(ctx, nil)
	return errors.Join(append(append(failed, waiting...), err)...)
}

// seen is a view and where its log ended when it was looked at.
type seen struct {
	*online
	at int64
}

// logs returns every view. Those whose definitions cannot be read are in failed. err means that no log was read.
func (s *Store) logs(ctx context.Context) (views []seen, failed []error, err error) {
	rows, err := s.pool.Query(ctx, string(selectLogs))
	if err != nil {
		return nil, nil, fmt.Errorf("select logs: %w", err)
	}
	type end struct {
		Tenant  waybill.Tenant
		View    string
		Version int
		Seq     int64
	}
	ends, err := pgx.CollectRows(rows, pgx.RowToStructByPos[end])
	if err != nil {
		return nil, nil, fmt.Errorf("read logs: %w", err)
	}
	for _, e := range ends {
		o, err := s.online(ctx, viewKey{e.Tenant, waybill.VersionRef{Name: e.View, Version: e.Version}})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		raise(&o.end, e.Seq)
		views = append(views, seen{o, e.Seq})
	}
	return views, failed, nil
}

// follow has what memory lacks applied, and does not wait for it: that goes on when ctx ends, until Close. The error means
// that no log was read.
func (s *Store) follow(ctx context.Context) error {
	views, failed, err := s.logs(ctx)
	if err != nil {
		return err
	}
	s.complain(ctx, failed)
	for _, o := range views {
		if !o.tryLock() {
			continue
		}
		if o.idle() {
			failed, _ := s.bring(ctx, o.online, o.at)
			s.complain(ctx, failed)
			continue
		}
		select {
		case s.abreast <- struct{}{}:
		case <-ctx.Done():
			o.unlock()
			return ctx.Err()
		}
		s.behind.Go(func() {
			defer func() { <-s.abreast }()
			ctx, cancel := s.beyond(ctx)
			defer cancel()
			failed, _ := s.bring(ctx, o.online, o.at)
			s.complain(ctx, failed)
		})
	}
	return nil
}

// beyond is a context that goes on when ctx ends, and ends with the store.
func (s *Store) beyond(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// idle says whether a view's rows are in memory up to the end of its log, so that to bring it there takes no time.
func (o *online) idle() bool {
	_, local := o.rows.(*arena)
	return local && o.failed() == nil && o.ready.Load() && o.seq.Load() >= o.end.Load()
}

// refresh applies what memory lacks of views that are wanted, all with nil, and waits for it. A view that cannot be read does
// not keep the others from being followed: what went wrong now is in failed; what went wrong before and is not tried again
// yet, in waiting. err means that no log was read, or that ctx ended.
func (s *Store) refresh(ctx context.Context, wanted func(o *online) bool) (failed, waiting []error, err error) {
	views, failed, err := s.logs(ctx)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, abreast)
	for _, o := range views {
		if wanted != nil && !wanted(o.online) {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			f, w := s.wait(ctx, o)
			mu.Lock()
			defer mu.Unlock()
			failed, waiting = append(failed, f...), append(waiting, w...)
		})
	}
	wg.Wait()
	return failed, waiting, ctx.Err()
}

// wait brings a view forward and waits for that until ctx ends. The work goes on all the same: to be begun again and again by
// callers who have little time, it would never come to an end.
func (s *Store) wait(ctx context.Context, o seen) (failed, waiting []error) {
	if o.lock(ctx) != nil {
		return nil, nil
	}
	type outcome struct{ failed, waiting []error }
	done := make(chan outcome, 1)
	s.behind.Go(func() {
		ctx, cancel := s.beyond(ctx)
		defer cancel()
		f, w := s.bring(ctx, o.online, o.at)
		done <- outcome{f, w}
	})
	select {
	case d := <-done:
		return d.failed, d.waiting
	case <-ctx.Done():
		return nil, nil
	}
}

// bring applies what a view lacks up to an end that its log had. The caller has locked it, and it is unlocked afterwards.
// Whoever saw a later end meanwhile did not wait for the lock, so it is looked again.
func (s *Store) bring(ctx context.Context, o *online, end int64) (failed, waiting []error) {
	for {
		failed, waiting = s.step(ctx, o, end)
		o.unlock()
		end = o.end.Load()
		if len(failed)+len(waiting) > 0 || ctx.Err() != nil || o.seq.Load() >= end || !o.tryLock() {
			return failed, waiting
		}
	}
}

// step brings a locked view forward in all of its homes. When ctx ends meanwhile, what it returns says nothing.
func (s *Store) step(ctx context.Context, first *online, end int64) (failed, waiting []error) {
	defer func() {
		if first.failed() != nil {
			first.moved.pass(nil) // after all homes: another may have what is waited for
		}
	}()
	for o := first; o != nil; o = o.spare {
		before := o.failed()
		if before != nil && s.clock().Before(o.retry) {
			waiting = append(waiting, before)
			continue
		}
		if _, local := o.rows.(*arena); !local && before == nil && o.ready.Load() && o.seq.Load() >= end && time.Since(o.looked) < s.poll {
			continue // a look is a journey, and what is lost in between every read sees
		}
		err := s.advance(ctx, o, end)
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case err == nil:
			o.failure.Store(nil)
			o.wait = 0
		case errors.Is(err, errBusy):
			waiting = append(waiting, err)
		default:
			if o.wait = max(firstRetry, min(2*o.wait, lastRetry)); waybill.CodeOf(err) == waybill.Unavailable { // of the home, which may be back at any moment
				o.wait = firstRetry
			}
			o.retry = s.clock().Add(o.wait)
			o.failure.Store(&err)
			failed = append(failed, err)
		}
	}
	return failed, waiting
}
