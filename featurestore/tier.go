package featurestore

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"waybill"
)

// tier is the home in a Redis or Valkey, alone or a cluster, that hubs share. It is a copy of what the logs say and may be
// lost at any moment, whole or in part; what it must never do is to give a wrong answer.
//
// The rows of a view lie in buckets, one on a single server and clusterBuckets on a cluster, each in one slot and so on one
// server, with a position beside them: the commit up to which rows are there. A reader asks for the position and the rows in one
// MGET, which sees one moment of the server. What takes rows away takes the position with them or sets it back: a server
// that starts empty or from an older dump, FLUSHALL, a replica that had not heard of the last writes. Evicting single keys
// does not, so a server that may do that is refused.
//
// Hubs write by turns: whoever claims a bucket writes, whoever comes in between reads how far the other is. A position is
// set by a script that finds the claim and every call that was made under it, so that it never says more than was written.
// A row goes where the winner rule puts it, whoever writes it and how often (tier.lua).
type tier struct {
	option rueidis.ClientOption
	id     string // of the database whose logs these are: see Store.homeID
	hub    string // random, of this process: what its claims begin with
	logger *slog.Logger
	limit  time.Duration // how long one call may take

	dial    sync.Mutex
	server  atomic.Pointer[server]
	claims  atomic.Int64
	down    [clusterBuckets]atomic.Int64 // until when, in ns since 1970, a bucket is not asked after a call without an answer
	refused atomic.Bool                  // the server may evict keys
	spoiled atomic.Int64                 // how often it was seen that keys may have been evicted

	// Guarded by dial: when it was looked at last, and the keys that had been evicted.
	checked time.Time
	evicted int64
}

// server is a connection and what was found there.
type server struct {
	rueidis.Client
	buckets int
}

// clusterBuckets is how many buckets a view has on a cluster. More would spread a view over more than 16 servers, and cost a
// read of many rows more commands.
const clusterBuckets = 16

// How long is waited for what.
const (
	tierTimeout = time.Second            // for an answer
	tierRest    = 200 * time.Millisecond // after none came, before the next call
	tierClaim   = 5                      // s, for the writer who was busy before his bucket is taken over
	tierCheck   = time.Second            // between looks at the server's settings
)

//go:embed tier.lua
var putSource string

const (
	// KEYS position, note; ARGV claim, hub, seconds. Returns −1 when another hub is writing, else the position, '' for none.
	claimSource = `
local note = redis.call('HMGET', KEYS[2], 'claim', 'at')
local now = tonumber(redis.call('TIME')[1])
if note[1] and string.sub(note[1], 1, #ARGV[2]) ~= ARGV[2] and math.abs(now - tonumber(note[2])) < tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[2], 'claim', ARGV[1], 'calls', 0, 'at', now)
return redis.call('GET', KEYS[1]) or ''`

	// KEYS position, note; ARGV claim ('' for none), calls, position before, position. Returns 1, or 0 when something was lost
	// or another hub was faster.
	publishSource = `
if ARGV[1] ~= '' then
  local note = redis.call('HMGET', KEYS[2], 'claim', 'calls')
  if note[1] ~= ARGV[1] or note[2] ~= ARGV[2] then return 0 end
end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[4])
if ARGV[1] ~= '' then redis.call('DEL', KEYS[2]) end
return 1`
)

var (
	putScript     = rueidis.NewLuaScript(putSource)     //nolint:gochecknoglobals // never changed
	claimScript   = rueidis.NewLuaScript(claimSource)   //nolint:gochecknoglobals // never changed
	publishScript = rueidis.NewLuaScript(publishSource) //nolint:gochecknoglobals // never changed
)

// openTier connects to the server of a URL. One that does not answer is no error: it is tried again, and reads are
// Unavailable until then. Errors: Invalid for a URL that is none; Conflict for a server that may evict keys.
func openTier(ctx context.Context, url, id string, logger *slog.Logger) (*tier, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil { // it may quote the password
		return nil, waybill.InvalidField("online", "must be memory, or the URL of a Redis or Valkey such as redis://redis:6379 or rediss://user:password@redis:6380/1")
	}
	option.DisableCache = true
	option.ClientName = "waybill"
	option.Dialer.Timeout = tierTimeout
	option.ConnWriteTimeout = 2 * tierTimeout // ends a connection that hangs, and with it what waits on it
	option.RetryDelay = func(attempts int, _ rueidis.Completed, _ error) time.Duration {
		if attempts > 2 { // a connection may have been closed while it was idle; a server that is away is not waited for
			return -1
		}
		return time.Millisecond
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // crypto/rand.Read never fails: it aborts the process instead
	t := &tier{option: option, id: id, hub: hex.EncodeToString(random[:]), logger: logger, limit: tierTimeout}
	if _, err := t.connect(ctx); waybill.CodeOf(err) == waybill.Conflict {
		return nil, err
	} else if err != nil {
		logger.WarnContext(ctx, "the server of online rows does not answer; it is tried again", "error", err)
	}
	return t, nil
}

// connect returns the connection, which it makes when there is none.
func (t *tier) connect(ctx context.Context) (*server, error) {
	if s := t.server.Load(); s != nil {
		return s, nil
	}
	if err := t.rests(0); err != nil {
		return nil, err
	}
	t.dial.Lock()
	defer t.dial.Unlock()
	if s := t.server.Load(); s != nil {
		return s, nil
	}
	if err := t.rests(0); err != nil { // another found that while we waited for him
		return nil, err
	}
	client, err := rueidis.NewClient(t.option)
	if err != nil {
		return nil, t.lost(ctx, err, 0)
	}
	s := &server{Client: client, buckets: 1}
	info, err := t.look(ctx, s)
	if err == nil && strings.Contains(info, "cluster_enabled:1") {
		s.buckets = clusterBuckets
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	t.server.Store(s)
	return s, nil
}

// close ends the connections.
func (t *tier) close() {
	if s := t.server.Load(); s != nil {
		s.Close()
	}
}

var (
	infoPolicy  = regexp.MustCompile(`(?m)^maxmemory_policy:(\S+)`)
	infoEvicted = regexp.MustCompile(`(?m)^evicted_keys:(\d+)`)
)

// look reads what every server says of itself, and notes when keys may have been evicted since the last time. The caller
// holds dial. Errors: Conflict when that may happen now.
func (t *tier) look(ctx context.Context, s *server) (info string, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	evicted := int64(0)
	for address, node := range s.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Build()).ToString()
		if err != nil {
			return "", t.lost(ctx, err)
		}
		if m := infoPolicy.FindStringSubmatch(text); m == nil || m[1] != "noeviction" {
			t.refused.Store(true)
			t.spoiled.Add(1)
			return "", waybill.Errorf(waybill.Conflict, "the server of online rows (%s) may evict keys, and a row that was evicted would be answered as not there: set its maxmemory-policy to noeviction", address)
		}
		if m := infoEvicted.FindStringSubmatch(text); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				return "", fmt.Errorf("read evicted_keys: %w", err)
			}
			evicted += n
		}
		info += text
	}
	t.refused.Store(false)
	t.checked = time.Now()
	if evicted != t.evicted {
		t.evicted = evicted
		t.spoiled.Add(1)
		t.logger.WarnContext(ctx, "the server of online rows has evicted keys; the rows are written again", "evicted_keys", evicted)
	}
	return info, nil
}

// check looks at the servers again when the last look is old or was bad.
func (t *tier) check(ctx context.Context, s *server) error {
	t.dial.Lock()
	defer t.dial.Unlock()
	if time.Since(t.checked) < tierCheck && !t.refused.Load() {
		return nil
	}
	_, err := t.look(ctx, s)
	return err
}

// rests says whether a bucket is left alone for a moment because its server just did not answer.
func (t *tier) rests(bucket int) error {
	if time.Now().UnixNano() < t.down[bucket].Load() {
		return waybill.Errorf(waybill.Unavailable, "the server of online rows does not answer")
	}
	return nil
}

// lost makes an error of a call about some buckets that has no answer.
func (t *tier) lost(ctx context.Context, err error, buckets ...int) error {
	if ctx.Err() != nil {
		return ctx.Err() // the caller's, and says nothing about the server
	}
	if _, answered := rueidis.IsRedisErr(err); !answered {
		for _, b := range buckets {
			t.down[b].Store(time.Now().Add(tierRest).UnixNano())
		}
	}
	return waybill.Wrap(waybill.Unavailable, err, "the server of online rows cannot answer")
}

// run runs a script on keys of one bucket.
func (t *tier) run(ctx context.Context, bucket int, script *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	s, err := t.connect(ctx)
	if err == nil {
		err = t.rests(bucket)
	}
	if err != nil {
		return rueidis.RedisMessage{}, err
	}
	limited, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	m, err := script.Exec(limited, s, keys, args).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		return m, t.lost(ctx, err, bucket)
	}
	return m, nil
}

// bucketOf is where the row of a key lies. It is the same on every hub and for ever.
func bucketOf(key []byte, buckets int) int {
	if buckets == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write(key) // a hash takes everything
	return int(h.Sum32() % uint32(buckets))
}

// prefix is what all keys of a view begin with. Names have neither slash nor braces.
func (t *tier) prefix(key viewKey) string {
	return "waybill/" + t.id + "/{" + string(key.tenant) + "/" + key.ref.String() + "/"
}

// tag is what the keys of a bucket begin with. The part in braces makes their slot.
func (t *tier) tag(key viewKey, bucket, buckets int) string {
	return t.prefix(key) + strconv.Itoa(bucket) + "." + strconv.Itoa(buckets) + "}"
}

// positionAt takes a position apart: the commit and the mark of the filling that it goes back to.
func positionAt(text string) (seq int64, mark string, ok bool) {
	number, mark, ok := strings.Cut(text, ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	return seq, mark, ok && err == nil && seq >= 0
}

// part is what is asked of one bucket.
type part struct {
	ask, bucket int
	rows        []int // of the ask
}

// find asks for each bucket's position and rows at once.
func (t *tier) find(ctx context.Context, now int64, asks []ask) error {
	for i := range asks {
		if err := asks[i].begin(); err != nil {
			return err
		}
	}
	s, err := t.connect(ctx)
	if err != nil {
		return err
	}
	if t.refused.Load() {
		return waybill.Errorf(waybill.Unavailable, "the server of online rows may evict keys; its maxmemory-policy must be noeviction")
	}
	parts, commands := t.commands(s, asks)
	for _, p := range parts {
		if err := t.rests(p.bucket); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	answers := make([][]rueidis.RedisMessage, len(parts))
	for i, r := range s.DoMulti(limited, commands...) {
		var failed error
		if answers[i], failed = r.ToArray(); failed != nil {
			err = t.lost(ctx, failed, parts[i].bucket)
		}
	}
	if err != nil {
		return err
	}
	for i := range asks {
		a := &asks[i]
		point := int64(-1)
		for j, p := range parts {
			if p.ask != i {
				continue
			}
			text, err := answers[j][0].ToString() // nil is ""
			seq, _, ok := positionAt(text)
			if err != nil && !rueidis.IsRedisNil(err) || !ok || seq < a.least {
				return waybill.Errorf(waybill.Unavailable, "rows of %s were lost where online rows are kept; they are written again", a.online.key.ref)
			}
			if point < 0 || seq < point {
				point = seq
			}
		}
		if a.seq == newest {
			a.seq = point
		}
	}
	for j, p := range parts {
		a := &asks[p.ask]
		for k, row := range p.rows {
			m := &answers[j][k+1]
			if m.IsNil() {
				a.hits[row] = hit{status: NotFound}
				continue
			}
			value, err := m.AsBytes()
			if err != nil {
				return t.lost(ctx, err)
			}
			p, found, err := a.online.pick(value, a.key(row), a.seq, now)
			if err != nil {
				return err
			}
			a.hits[row] = a.online.judge(p, found, now)
		}
	}
	return nil
}

// commands makes one MGET for each bucket that is asked: its position, then rows. An ask without keys wants the positions of
// all buckets.
func (t *tier) commands(s *server, asks []ask) (parts []part, commands rueidis.Commands) {
	for i := range asks {
		a := &asks[i]
		byBucket := make([][]int, s.buckets)
		for row := range a.ends {
			b := bucketOf(a.key(row), s.buckets)
			byBucket[b] = append(byBucket[b], row)
		}
		for b, rows := range byBucket {
			if len(rows) == 0 && len(a.ends) > 0 {
				continue
			}
			tag := t.tag(a.online.key, b, s.buckets)
			size := 0
			for _, row := range rows {
				size += len(tag) + 1 + len(a.key(row))
			}
			// The keys lie in one string.
			var all strings.Builder
			all.Grow(size)
			keys := make([]string, 1, len(rows)+1)
			keys[0] = tag + positionKey
			for _, row := range rows {
				from := all.Len()
				all.WriteString(tag)
				all.WriteString(rowKey)
				all.Write(a.key(row))
				keys = append(keys, all.String()[from:])
			}
			parts, commands = append(parts, part{i, b, rows}), append(commands, s.B().Mget().Key(keys...).Build())
		}
	}
	return parts, commands
}

// What follows the tag of a bucket.
const (
	positionKey = "=" // a string: the position
	noteKey     = "!" // a hash: who writes
	rowKey      = "/" // and the join key: a value
)
