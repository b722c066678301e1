package featurestore

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"waybill"
)

// online is what a hub knows of one view version's online rows: the newest row of every key in packed form, and those it
// beat for as long as a reader may still want them. Where the rows themselves are, its home says.
type online struct {
	view   *View
	key    viewKey
	layout *layout
	ttl    time.Duration
	rows   rows
	seq    atomic.Int64 // commits that readers see at least
	ready  atomic.Bool  // the whole log was here once: what is not there does not exist
	spare  *online      // the same rows in the home that readers turn to when this one cannot answer; or nil

	moved signal // passes when a commit was published, or after each try of one that fails

	end     atomic.Int64          // of the log: the last that was seen
	locked  chan struct{}         // holds one while a goroutine applies commits here and in spare
	failure atomic.Pointer[error] // why the log cannot be followed beyond seq; nil: it can. Written under the lock

	// Guarded by the lock, which is that of the home that is asked first: when it is tried again, and how long after the last try.
	retry  time.Time
	wait   time.Duration
	looked time.Time // when it was last found to be all here
}

// lock makes the caller the only one who applies commits. Its error is that of ctx, which has ended before.
func (o *online) lock(ctx context.Context) error {
	select {
	case o.locked <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *online) tryLock() bool {
	select {
	case o.locked <- struct{}{}:
		return true
	default:
		return false
	}
}

func (o *online) unlock() { <-o.locked }

// failed says why the log cannot be followed, nil when it can.
func (o *online) failed() error {
	if err := o.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func newOnline(h home, key viewKey, v *View, ttl time.Duration) *online {
	o := &online{view: v, key: key, layout: newLayout(v), ttl: ttl, locked: make(chan struct{}, 1)}
	o.rows = h.open(o)
	return o
}

// home is where the online rows of every view live. There are three: the hub's own memory, a Redis or Valkey that hubs
// share, and Postgres, which stands in for that.
type home interface {
	// open returns the rows of one view version.
	open(o *online) rows
	// find answers all asks or none, as of now (µs). Unavailable means that the home cannot say what is true: it has lost
	// rows, or does not answer. It never guesses.
	find(ctx context.Context, now int64, asks []ask) error
}

// rows takes the log of one view version in. One goroutine of the hub calls it at a time (online.lock); other hubs may do
// the same to the same rows.
type rows interface {
	// begin says up to which commit the rows are there, −1 when they are not: then everything is put again, from a snapshot
	// and the log. What was put and not published is dropped.
	begin(ctx context.Context, now time.Time) (have int64, err error)
	// put takes one row in; nth is its place within its commit, fromSnapshot when it comes out of a snapshot.
	put(ctx context.Context, b []byte, nth uint32, now int64) error
	// publish says that every row up to a commit was put. After that online.seq may show it to readers.
	publish(ctx context.Context, seq int64) error
	// capture returns every row up to a commit, beaten ones that readers may still want included. It is called under
	// the lock and is quick; the rows are read afterwards, while others are put in. A row may come twice.
	capture(ctx context.Context, seq int64) iter.Seq2[[]byte, error]
}

// fromSnapshot is after every place in a commit: of rows that tie, a snapshot has the one that won.
const fromSnapshot = ^uint32(0)

// ask is a look-up of keys in one view at one sequence point.
type ask struct {
	view   int     // of the reader
	online *online // of the home that is asked
	keys   []byte  // encoded join keys, one after another
	ends   []int   // of each in keys
	hits   []hit   // one for each: the answers
	seq    int64   // the sequence point; newest is replaced by what that was
	least  int64   // the home must have at least this commit
}

// begin notes what the home must have, before it is asked: what is published meanwhile is not held against its answer.
func (a *ask) begin() error {
	if !a.online.ready.Load() {
		return a.online.unread()
	}
	a.least = max(a.seq, a.online.seq.Load())
	return nil
}

// key is a key of an ask.
func (a *ask) key(row int) []byte {
	from := 0
	if row > 0 {
		from = a.ends[row-1]
	}
	return a.keys[from:a.ends[row]]
}

// newest is the sequence point of a reader who does not have one yet.
const newest = -1

// hit is what a look-up found: a row and what it is worth.
type hit struct {
	packed
	status Status // Present, NotFound, OutsideMaxAge
}

// judge says what the row of a key is worth by its age.
func (o *online) judge(p packed, found bool, now int64) hit {
	switch {
	case !found:
		return hit{status: NotFound}
	case o.ttl > 0 && now-p.event > o.ttl.Microseconds():
		return hit{p, OutsideMaxAge}
	}
	return hit{p, Present}
}

// publish makes a commit visible, whole.
func (o *online) publish(ctx context.Context, seq int64) error {
	if err := o.rows.publish(ctx, seq); err != nil {
		return err
	}
	o.atLeast(seq)
	o.moved.pass(nil)
	return nil
}

// atLeast raises seq: a home that shares its rows answers no reader of this hub from before it.
func (o *online) atLeast(seq int64) { raise(&o.seq, seq) }

// raise makes a number at least n.
func raise(at *atomic.Int64, n int64) {
	for {
		old := at.Load()
		if n <= old || at.CompareAndSwap(old, n) {
			return
		}
	}
}

// unread is the error for a view whose log this hub has not read to its end once.
func (o *online) unread() error {
	return waybill.Errorf(waybill.Unavailable, "the rows of %s have not been read from its log by this hub; the hub's log says why, and it tries again", o.key.ref)
}

// beats is the winner rule. A tie is within one commit, and there the row that comes later wins.
func (p *packed) beats(q *packed) bool {
	if p.event != q.event {
		return p.event > q.event
	}
	if p.knowledge != q.knowledge {
		return p.knowledge > q.knowledge
	}
	return p.seq > q.seq
}

// ties says whether two rows of one key are of one moment of both clocks and of one commit: no reader wants the earlier.
func (p *packed) ties(q *packed) bool {
	return p.event == q.event && p.knowledge == q.knowledge && p.seq == q.seq
}
