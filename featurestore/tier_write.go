package featurestore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"waybill"
)

// tierRows takes the log of one view version into the tier.
type tierRows struct {
	*tier
	online  *online
	buckets []shelf
	spoiled int64 // of the tier, when the rows were last known to be whole

	settled     int64     // µs: no reader's time is before it
	floor, next int64     // every reader's sequence point is at least floor; and at least next from a while after nextAt on
	nextAt      time.Time // when next was the position
	loose       []loose   // keys that had beaten rows when they were written
}

// shelf is a bucket of a view's rows, and what is on the way to it.
type shelf struct {
	number   int
	tag      string
	position string // as it stands in the tier; "" for none
	have     int64  // the commit in it, −1 for none
	claim    string // "" while this hub does not write
	calls    int    // under the claim
	keys     []string
	rows     map[string][]entry // of keys
	size     int
}

type loose struct {
	bucket int
	key    string
}

// The bounds of one call of the script, during which the server does nothing else, and of what is remembered for tidying
// up. What is forgotten is tidied up when its key is written again.
const (
	callRows  = 256
	callBytes = 256 << 10
	maxLoose  = 1 << 16
)

// errBusy says that another hub writes the same rows, or that what was written is gone: the next look tells.
var errBusy = errors.New("another hub writes, or rows were lost; looked at again")

func (t *tier) open(o *online) rows { return &tierRows{tier: t, online: o, spoiled: -1} }

func (r *tierRows) begin(ctx context.Context, now time.Time) (have int64, err error) {
	s, err := r.connect(ctx)
	if err == nil {
		err = r.check(ctx, s)
	}
	if err != nil {
		return 0, err
	}
	if len(r.buckets) != s.buckets {
		r.buckets = make([]shelf, s.buckets)
		for i := range r.buckets {
			r.buckets[i].number, r.buckets[i].tag = i, r.tag(r.online.key, i, s.buckets)
		}
	}
	limited, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	if spoiled := r.tier.spoiled.Load(); r.spoiled != spoiled {
		if spoiled > 0 {
			if err := r.forget(limited, s); err != nil {
				return 0, r.lost(ctx, err)
			}
		}
		r.spoiled = spoiled
	}
	commands := make(rueidis.Commands, len(r.buckets))
	for i := range r.buckets {
		if err := r.rests(i); err != nil {
			return 0, err
		}
		commands[i] = s.B().Get().Key(r.buckets[i].tag + positionKey).Build()
	}
	have = math.MaxInt64
	var failed error
	for i, answer := range s.DoMulti(limited, commands...) {
		b := &r.buckets[i]
		b.keys, b.rows, b.size, b.claim, b.calls, b.have = nil, nil, 0, "", 0, -1
		var err error
		if b.position, err = answer.ToString(); err != nil && !rueidis.IsRedisNil(err) {
			failed = r.lost(ctx, err, i)
		}
		if seq, _, ok := positionAt(b.position); ok {
			b.have = seq
		}
		have = min(have, b.have)
	}
	if failed != nil {
		return 0, failed
	}
	r.settled = now.Add(-settle).UnixMicro()
	if now.Sub(r.nextAt) >= settle || now.Before(r.nextAt) {
		r.floor, r.next, r.nextAt = max(0, min(r.next, have)), have, now
		if err := r.tighten(ctx); err != nil {
			return 0, err
		}
	}
	return have, nil
}

// forget takes the positions away: rows may be missing.
func (r *tierRows) forget(ctx context.Context, s *server) error {
	for i := range r.buckets {
		if err := s.Do(ctx, s.B().Del().Key(r.buckets[i].tag+positionKey).Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

func (r *tierRows) put(ctx context.Context, row []byte, nth uint32, now int64) error {
	p := parseRow(row)
	b := &r.buckets[bucketOf(p.key, len(r.buckets))]
	if b.have >= p.seq {
		return nil
	}
	if b.rows == nil {
		b.rows = make(map[string][]entry, callRows)
	}
	key := b.tag + rowKey + string(p.key)
	list := b.rows[key]
	if list == nil {
		b.keys = append(b.keys, key)
	}
	e := appendEntry(make([]byte, 0, headSize+len(row)), &p, nth, row)
	b.rows[key] = append(list, e)
	b.size += len(e)
	r.settled = now - settle.Microseconds()
	if len(b.keys) < callRows && b.size < callBytes {
		return nil
	}
	return r.flush(ctx, b)
}

// flush writes what is on the way to a bucket, which is claimed first.
func (r *tierRows) flush(ctx context.Context, b *shelf) error {
	if len(b.keys) == 0 {
		return nil
	}
	if b.claim == "" {
		claim := r.hub + "." + strconv.FormatInt(r.claims.Add(1), 10)
		m, err := r.run(ctx, b.number, claimScript, []string{b.tag + positionKey, b.tag + noteKey}, []string{claim, r.hub, strconv.Itoa(tierClaim)})
		if err != nil {
			return err
		}
		if position, err := m.ToString(); err != nil || position != b.position {
			return errBusy
		}
		b.claim, b.calls = claim, 0
	}
	floor := r.floor
	if b.have < 0 { // without a position there are no readers
		floor = math.MaxInt64
	}
	keys := append([]string{b.tag + noteKey}, b.keys...)
	args := []string{b.claim, strconv.Itoa(b.calls), headTime(r.settled), headSeq(floor)}
	for _, key := range b.keys {
		var list []byte
		for _, e := range sortEntries(b.rows[key]) {
			list = append(list, e...)
		}
		args = append(args, rueidis.BinaryString(list))
	}
	m, err := r.run(ctx, b.number, putScript, keys, args)
	if err != nil {
		return err
	}
	if m.IsNil() {
		return errBusy
	}
	b.calls++
	longer, err := m.AsIntSlice()
	if err != nil {
		return r.lost(ctx, err)
	}
	r.remember(b, b.keys, longer)
	b.keys, b.rows, b.size = nil, nil, 0
	return nil
}

// headTime and headSeq are bounds as they stand in heads.
func headTime(t int64) string {
	return string(appendEntry(nil, &packed{event: t}, 0, nil)[:8])
}

func headSeq(seq int64) string {
	return string(appendEntry(nil, &packed{seq: seq}, 0, nil)[16:24])
}

// remember keeps the keys that will have to be tidied up.
func (r *tierRows) remember(b *shelf, keys []string, longer []int64) {
	for i, n := range longer {
		if n > 0 && i < len(keys) && len(r.loose) < maxLoose {
			r.loose = append(r.loose, loose{b.number, keys[i]})
		}
	}
}

// tighten cuts beaten rows that no reader wants any more.
func (r *tierRows) tighten(ctx context.Context) error {
	todo := r.loose
	r.loose = nil
	for i := range r.buckets {
		b := &r.buckets[i]
		var keys []string
		for _, l := range todo {
			if l.bucket == i {
				keys = append(keys, l.key)
			}
		}
		slices.Sort(keys)
		for part := range slices.Chunk(slices.Compact(keys), callRows) {
			args := append([]string{"", "", headTime(r.settled), headSeq(r.floor)}, make([]string, len(part))...)
			m, err := r.run(ctx, i, putScript, append([]string{b.tag + noteKey}, part...), args)
			if err != nil {
				return err
			}
			if longer, err := m.AsIntSlice(); err == nil {
				r.remember(b, part, longer)
			}
		}
	}
	return nil
}

func (r *tierRows) publish(ctx context.Context, seq int64) error {
	for i := range r.buckets {
		b := &r.buckets[i]
		if b.have >= seq {
			continue
		}
		if err := r.flush(ctx, b); err != nil {
			return err
		}
		_, mark, ok := positionAt(b.position)
		if !ok {
			var random [8]byte
			_, _ = rand.Read(random[:]) // crypto/rand.Read never fails: it aborts the process instead
			mark = hex.EncodeToString(random[:])
		}
		position := strconv.FormatInt(seq, 10) + ":" + mark
		m, err := r.run(ctx, i, publishScript, []string{b.tag + positionKey, b.tag + noteKey}, []string{b.claim, strconv.Itoa(b.calls), b.position, position})
		if err != nil {
			return err
		}
		if done, err := m.AsInt64(); err != nil || done != 1 {
			return errBusy
		}
		b.have, b.position, b.claim, b.calls = seq, position, "", 0
	}
	return nil
}

// errEnough ends a walk whose reader has enough.
var errEnough = errors.New("enough")

// capture walks over the keys of every server. It is an error when rows may have been lost or moved meanwhile: what a walk
// does not meet would be missing from the snapshot for ever.
func (r *tierRows) capture(ctx context.Context, seq int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s, err := r.connect(ctx)
		var before, after string
		if err == nil {
			before, err = r.identity(ctx, s, seq)
		}
		if err == nil {
			for _, node := range s.Nodes() {
				if err = r.walk(ctx, s, node, seq, yield); err != nil {
					break
				}
			}
		}
		if errors.Is(err, errEnough) {
			return
		}
		if err == nil {
			after, err = r.identity(ctx, s, seq)
		}
		if err == nil && before != after {
			err = waybill.Errorf(waybill.Unavailable, "the server of online rows was started again, moved or filled again meanwhile")
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// walk yields the rows of the keys on one server, up to a commit. Values come from the server that has the slot.
func (r *tierRows) walk(ctx context.Context, s *server, node rueidis.Client, seq int64, yield func([]byte, error) bool) error {
	pattern := r.prefix(r.online.key) + "*}" + rowKey + "*"
	for cursor := uint64(0); ; {
		page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(1000).Build()).AsScanEntry()
		if err != nil {
			return r.lost(ctx, err)
		}
		gets := make(rueidis.Commands, len(page.Elements))
		for i, key := range page.Elements {
			gets[i] = s.B().Get().Key(key).Build()
		}
		for i, answer := range s.DoMulti(ctx, gets...) {
			value, err := answer.AsBytes()
			if err != nil {
				return r.lost(ctx, err)
			}
			_, key, _ := strings.Cut(page.Elements[i], "}"+rowKey)
			if err := r.online.each(value, []byte(key), seq, yield); err != nil {
				return err
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

// identity is what changes when keys may have got lost or moved: which process each server is and whose history it has,
// the layout of the cluster, and the marks of the fillings, which must have come to a commit.
func (r *tierRows) identity(ctx context.Context, s *server, seq int64) (string, error) {
	var all []string
	for address, node := range s.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Build()).ToString()
		if err != nil {
			return "", r.lost(ctx, err)
		}
		for line := range strings.Lines(text) {
			if name, _, _ := strings.Cut(line, ":"); slices.Contains([]string{"run_id", "master_replid", "role", "evicted_keys"}, name) {
				all = append(all, address+" "+strings.TrimSpace(line))
			}
		}
		if s.buckets > 1 {
			text, err := node.Do(ctx, node.B().ClusterInfo().Build()).ToString()
			if err != nil {
				return "", r.lost(ctx, err)
			}
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "cluster_current_epoch") || strings.HasPrefix(line, "cluster_size") {
					all = append(all, address+" "+strings.TrimSpace(line))
				}
			}
		}
	}
	for i := range s.buckets {
		text, err := s.Do(ctx, s.B().Get().Key(r.tag(r.online.key, i, s.buckets)+positionKey).Build()).ToString()
		have, mark, ok := positionAt(text)
		if err != nil || !ok || have < seq {
			return "", waybill.Errorf(waybill.Unavailable, "rows of %s were lost where online rows are kept", r.online.key.ref)
		}
		all = append(all, mark)
	}
	slices.Sort(all[:len(all)-s.buckets])
	return strings.Join(all, "\n"), nil
}
