package audit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"

	"waybill"
	"waybill/internal/pg"
)

// Bounds of the sequencer.
const (
	defaultQueue = 8192 // appends waiting; beyond it Append answers Exhausted at once
	maxBatch     = 4096 // decisions in one transaction
	maxOutbox    = 1000 // events moved in one transaction
	tileWidth    = 256
)

// Config completes Open.
type Config struct {
	LogID     int    // this node's log; every node that writes has one of its own
	Origin    string // the log's name in checkpoints, e.g. "waybill.example.com/log/1"
	SignerKey string // Ed25519 note signer key (GenerateKey); its name is the origin
	Producer  string // this node's name in leaves; defaults to "hub"
	QueueSize int    // defaults to 8,192
	Clock     waybill.Clock
	Logger    *slog.Logger
}

// Decision is one append. Append itself fills the leaf's endpoint, time and digest of the payload, so that the leaf and
// what lies beside it cannot differ.
type Decision struct {
	Leaf          DecisionLeaf
	RequestDigest [32]byte // binds an idempotency key to its request
	BusinessKey   string
	Endpoint      string
	Revision      int
	Model         string // "" when the rules answered
	ModelVersion  int
	DecidedAt     time.Time
	Payload       []byte
}

// Receipt says where a decision is in the log and proves it.
type Receipt struct {
	Origin     string
	Index      int64
	LeafHash   [32]byte
	Size       int64    // of the tree that Path leads to the root of
	Path       [][]byte // sibling hashes, leaf upwards (RFC 6962)
	Checkpoint string   // signed note over Size and its root
	Duplicate  bool     // the decision was in the log before
	Payload    []byte   // the first payload, when Duplicate
}

// Log is one log and its sequencer.
type Log struct {
	pool     *pgxpool.Pool
	cfg      Config
	signer   note.Signer
	verifier string
	logger   *slog.Logger
	queue    chan *waiter
	wake     chan struct{} // the outbox may hold something
	stopped  chan struct{}
	started  atomic.Bool
	last     atomic.Pointer[signed]

	// Owned by the sequencer goroutine (by Open before it starts).
	epoch    int64
	size     int64
	tree     *compact.Range
	edges    map[uint][]byte // tile level → hashes of its last, partial tile
	pseq     int64
	recorded time.Time
	fenced   bool
	sign     sync.Mutex // held while a checkpoint is made
}

// signed is a checkpoint in memory.
type signed struct {
	size      int64
	root      []byte
	note      string
	published time.Time
}

type waiter struct {
	ctx  context.Context //nolint:containedctx // a request that waits in a queue carries its own deadline
	d    *Decision
	done chan outcome // buffered: the sequencer never waits for a caller
}

type outcome struct {
	receipt Receipt
	batch   *batch
	err     error
}

// batch holds the nodes from which the proofs of its entries are made. It is immutable once committed.
type batch struct {
	size  int64
	nodes map[compact.NodeID][]byte
	note  string
}

const (
	// Waits for a transaction that may still be committing: what it reads is how that one ended.
	selectLog pg.SQL = `SELECT origin, size, root, nodes, epoch, last_recorded_at FROM audit.log WHERE log_id = $1 FOR UPDATE`
	insertLog pg.SQL = `
INSERT INTO audit.log (log_id, origin, size, root, nodes, epoch, last_recorded_at) VALUES ($1, $2, 0, $3, '{}', 0, 'epoch')
ON CONFLICT DO NOTHING`
	leaseLog   pg.SQL = `UPDATE audit.log SET epoch = epoch + 1 WHERE log_id = $1 RETURNING epoch`
	lockLog    pg.SQL = `SELECT size, epoch, last_recorded_at FROM audit.log WHERE log_id = $1 FOR UPDATE`
	updateLog  pg.SQL = `UPDATE audit.log SET size = $2, root = $3, nodes = $4, last_recorded_at = $5 WHERE log_id = $1`
	takeOutbox pg.SQL = `
DELETE FROM audit.outbox WHERE seq IN (SELECT seq FROM audit.outbox ORDER BY seq LIMIT $1)
RETURNING seq, type, tenant, actor, at, subject, digest, detail`
	upsertTile pg.SQL = `
INSERT INTO audit.tile (log_id, level, idx, hashes) VALUES ($1, $2, $3, $4)
ON CONFLICT (log_id, level, idx) DO UPDATE SET hashes = EXCLUDED.hashes`
	selectEdges pg.SQL = `
SELECT DISTINCT ON (level) level, idx, hashes FROM audit.tile WHERE log_id = $1 ORDER BY level, idx DESC`
	findKnown pg.SQL = `
SELECT d.tenant, d.decision_id, d.log_id, d.seq, d.request_digest, d.payload
FROM audit.decision d JOIN unnest($1::text[], $2::uuid[]) AS w(tenant, id) ON d.tenant = w.tenant AND d.decision_id = w.id`
	insertCheckpoint pg.SQL = `
INSERT INTO audit.checkpoint (log_id, size, note, published_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`
	lastCheckpoint pg.SQL = `SELECT size, note, published_at FROM audit.checkpoint WHERE log_id = $1 ORDER BY size DESC LIMIT 1`
)

// GenerateKey makes a key pair for a log: the signer key is secret, the verifier key is for everybody.
func GenerateKey(origin string) (signer, verifier string, err error) {
	signer, verifier, err = note.GenerateKey(nil, origin)
	if err != nil {
		return "", "", fmt.Errorf("generate log key: %w", err)
	}
	return signer, verifier, nil
}

// verifierOf derives the public key from a signer key: the note format keeps the seed, from which both follow.
func verifierOf(signerKey string) (string, error) {
	parts := strings.SplitN(signerKey, "+", 5) // PRIVATE+KEY+name+hash+key
	if len(parts) != 5 {
		return "", errors.New("signer key is malformed")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(raw) != 33 || raw[0] != 1 {
		return "", errors.New("signer key is not Ed25519")
	}
	return note.NewEd25519VerifierKey(parts[2], ed25519Public(raw[1:]))
}

// Open takes the lease on the log: a sequencer that held it before can no longer append. It reads the tree's edge and
// refuses when a stored checkpoint is ahead of the log, which lost entries then. A whole database that was restored from
// a backup does not show it.
func Open(ctx context.Context, pool *pgxpool.Pool, c Config) (*Log, error) {
	if c.Clock == nil {
		c.Clock = waybill.SystemClock
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Producer == "" {
		c.Producer = "hub"
	}
	if c.QueueSize == 0 {
		c.QueueSize = defaultQueue
	}
	signer, err := note.NewSigner(c.SignerKey)
	if err != nil || signer.Name() != c.Origin {
		return nil, waybill.InvalidField("log.key", "is not a signer key of the log "+c.Origin)
	}
	verifier, err := verifierOf(c.SignerKey)
	if err != nil {
		return nil, waybill.InvalidField("log.key", err.Error())
	}
	l := &Log{pool: pool, cfg: c, signer: signer, verifier: verifier, logger: c.Logger,
		queue: make(chan *waiter, c.QueueSize), wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	empty := compactFactory().NewEmptyRange(0)
	root, err := rootOf(empty)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, string(insertLog), c.LogID, c.Origin, root); err != nil {
		return nil, fmt.Errorf("insert log: %w", err)
	}
	if err := pool.QueryRow(ctx, string(leaseLog), c.LogID).Scan(&l.epoch); err != nil {
		return nil, fmt.Errorf("lease log: %w", err)
	}
	if err := l.load(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// load reads size, tree and edges as the database has them.
func (l *Log) load(ctx context.Context) error {
	var origin string
	var root []byte
	var nodes [][]byte
	var epoch int64
	if err := l.pool.QueryRow(ctx, string(selectLog), l.cfg.LogID).Scan(&origin, &l.size, &root, &nodes, &epoch, &l.recorded); err != nil {
		return fmt.Errorf("select log: %w", err)
	}
	if origin != l.cfg.Origin {
		return waybill.Errorf(waybill.Conflict, "log %d has the origin %s in the database and %s in the configuration", l.cfg.LogID, origin, l.cfg.Origin)
	}
	if epoch != l.epoch {
		l.fenced = true
		return waybill.Errorf(waybill.Unavailable, "another node has taken log %d", l.cfg.LogID)
	}
	tree, err := compactFactory().NewRange(0, uint64(l.size), nodes)
	if err != nil {
		return waybill.Wrap(waybill.Corrupt, err, "the tree of the log does not fit its size")
	}
	l.tree = tree
	rows, err := l.pool.Query(ctx, string(selectEdges), l.cfg.LogID)
	if err != nil {
		return fmt.Errorf("select tiles: %w", err)
	}
	l.edges = map[uint][]byte{}
	var level int
	var idx int64
	var hashes []byte
	if _, err := pgx.ForEachRow(rows, []any{&level, &idx, &hashes}, func() error {
		if len(hashes) < tileWidth*32 {
			l.edges[uint(level)] = append([]byte(nil), hashes...)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read tiles: %w", err)
	}
	var last signed
	err = l.pool.QueryRow(ctx, string(lastCheckpoint), l.cfg.LogID).Scan(&last.size, &last.note, &last.published)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("select checkpoint: %w", err)
	}
	if last.size > l.size {
		return waybill.Errorf(waybill.Corrupt, "a checkpoint over %d entries was signed, but the log has %d: entries were lost; nothing is written", last.size, l.size)
	}
	return nil
}

// VerifierKey is the public key in note format.
func (l *Log) VerifierKey() string { return l.verifier }

// Origin is the log's name.
func (l *Log) Origin() string { return l.cfg.Origin }

// LogID is the log's number.
func (l *Log) LogID() int { return l.cfg.LogID }

// Run sequences until ctx ends or another node takes the log. It answers every waiter before it returns.
func (l *Log) Run(ctx context.Context) error {
	if !l.started.CompareAndSwap(false, true) {
		return errors.New("log runs already")
	}
	defer close(l.stopped)
	listening, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		err := pg.Listen(listening, l.pool, "outbox", time.Second, func(context.Context) error {
			select {
			case l.wake <- struct{}{}:
			default:
			}
			return nil
		})
		if err != nil {
			l.logger.ErrorContext(ctx, "outbox is no longer followed", "error", err)
		}
	}()
	for {
		var waiters []*waiter
		select {
		case <-ctx.Done():
			l.refuseAll(waybill.Errorf(waybill.Unavailable, "the hub is shutting down"))
			return nil
		case w := <-l.queue:
			waiters = append(waiters, w)
			// Take what waits already and no more: a delay would only add latency, the next batch forms meanwhile.
			for drained := false; !drained && len(waiters) < maxBatch; {
				select {
				case w := <-l.queue:
					waiters = append(waiters, w)
				default:
					drained = true
				}
			}
		case <-l.wake:
		}
		if err := l.sequence(ctx, waiters); err != nil {
			for _, w := range waiters {
				w.done <- outcome{err: err}
			}
			if l.fenced {
				l.refuseAll(err)
				return err
			}
		}
	}
}

// refuseAll answers those still in the queue. Run returns after it, and Append then answers Unavailable by itself.
func (l *Log) refuseAll(err error) {
	for {
		select {
		case w := <-l.queue:
			w.done <- outcome{err: err}
		default:
			return
		}
	}
}

// Append logs a decision and returns when it is durable. Errors: Exhausted when the queue is full, Unavailable when
// the log cannot be written, Conflict when the id was used with another request, Deadline when ctx ended first. After
// Deadline the decision may yet be logged; appending the same id again tells.
func (l *Log) Append(ctx context.Context, d Decision) (Receipt, error) {
	if d.Endpoint != "" {
		d.Leaf.Endpoint = waybill.VersionRef{Name: d.Endpoint, Version: d.Revision}.String()
		d.Leaf.DecidedAt, d.Leaf.Payload = FormatTime(d.DecidedAt), payloadDigest(d.Payload)
	}
	w := &waiter{ctx: ctx, d: &d, done: make(chan outcome, 1)}
	select {
	case <-l.stopped:
		return Receipt{}, waybill.Errorf(waybill.Unavailable, "the decision log is not written by this node any more")
	default:
	}
	select {
	case l.queue <- w:
	default:
		return Receipt{}, waybill.Errorf(waybill.Exhausted, "%d decisions are waiting for the log; try again", cap(l.queue))
	}
	select {
	case o := <-w.done:
		if o.err != nil {
			return Receipt{}, o.err
		}
		if o.batch != nil {
			path, err := pathIn(o.receipt.Index, o.batch.size, func(id compact.NodeID) ([]byte, error) {
				if h, ok := o.batch.nodes[id]; ok {
					return h, nil
				}
				return nil, fmt.Errorf("find node %d/%d of the batch", id.Level, id.Index)
			})
			if err != nil {
				return Receipt{}, err
			}
			o.receipt.Path, o.receipt.Size, o.receipt.Checkpoint = path, o.batch.size, o.batch.note
			return o.receipt, nil
		}
		if err := l.prove(ctx, &o.receipt); err != nil { // a duplicate: its proof comes from the tiles
			return Receipt{}, err
		}
		return o.receipt, nil
	case <-ctx.Done():
		return Receipt{}, waybill.Wrap(waybill.Deadline, ctx.Err(), "the log did not answer in time; the decision may yet be logged")
	case <-l.stopped:
		select {
		case o := <-w.done:
			return o.receipt, o.err
		default:
			return Receipt{}, waybill.Errorf(waybill.Unavailable, "the decision log stopped; the decision was not logged")
		}
	}
}

// sequence writes one batch and answers its waiters. On error none was answered and none is in the log. A batch whose
// commit outcome is unknown is looked up, never blindly written again.
func (l *Log) sequence(ctx context.Context, waiters []*waiter) error {
	for try := 0; ; try++ {
		live := waiters[:0:0]
		for _, w := range waiters {
			if w.ctx.Err() == nil {
				live = append(live, w)
			}
		}
		if len(waiters) > 0 && len(live) == 0 {
			return waybill.Errorf(waybill.Deadline, "the log was away longer than the callers would wait; nothing was logged")
		}
		b, err := l.write(ctx, live, try > 0)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return waybill.Wrap(waybill.Unavailable, err, "the hub is shutting down")
		case l.fenced:
			return err
		}
		l.logger.WarnContext(ctx, "batch not written, trying again", "error", err, "decisions", len(live), "try", try)
		start := l.size
		reload := func() error {
			looking, cancel := context.WithTimeout(ctx, 2*time.Second) // a lock may be held by a session that is dead and not known to be
			defer cancel()
			return l.load(looking)
		}
		for reload() != nil { // Postgres is away, or we are fenced
			if l.fenced {
				return waybill.Errorf(waybill.Unavailable, "another node has taken log %d", l.cfg.LogID)
			}
			if len(live) == 0 {
				return err // only events: they wait in the outbox
			}
			alive := false
			for _, w := range live {
				alive = alive || w.ctx.Err() == nil
			}
			if !alive {
				return waybill.Wrap(waybill.Unavailable, err, "the log is away; nothing is known to be logged")
			}
			select {
			case <-ctx.Done():
				return waybill.Wrap(waybill.Unavailable, ctx.Err(), "the hub is shutting down")
			case <-time.After(50 * time.Millisecond):
			}
		}
		if b != nil && l.size == b.end { // the commit stands and only its reply was lost
			return l.finish(ctx, b)
		}
		if l.size != start {
			return waybill.Errorf(waybill.Unavailable, "the log moved from %d to %d entries under this node", start, l.size)
		}
		if try >= 20 {
			return waybill.Wrap(waybill.Unavailable, err, "the log cannot be written")
		}
	}
}

// pending is a batch between COPY and the answer.
type pending struct {
	end      int64
	waiters  []*waiter
	results  []outcome
	batch    *batch
	tree     *compact.Range
	edges    map[uint][]byte
	tiles    map[tileID][]byte // touched tiles, whole
	rows     []row
	root     []byte
	pseq     int64
	recorded time.Time
}

type tileID struct {
	level uint
	index int64
}

type known struct {
	logID  int
	seq    int64
	digest []byte
	data   []byte
}

// write runs the transaction. It returns the pending batch also with an error, for the caller to find out whether the
// commit stands. Memory is moved on only by finish.
func (l *Log) write(ctx context.Context, waiters []*waiter, checkAll bool) (*pending, error) {
	var p *pending
	tx, err := l.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	committed := false
	defer func() {
		if !committed {
			if err := tx.Rollback(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, pgx.ErrTxClosed) && !pg.IsConnLost(err) {
				l.logger.WarnContext(ctx, "rollback failed", "error", err)
			}
		}
	}()
	var size, epoch int64
	var recorded time.Time
	if err := tx.QueryRow(ctx, string(lockLog), l.cfg.LogID).Scan(&size, &epoch, &recorded); err != nil {
		return nil, fmt.Errorf("lock log: %w", err)
	}
	if epoch != l.epoch {
		l.fenced = true
		return nil, waybill.Errorf(waybill.Unavailable, "another node has taken log %d (epoch %d, ours is %d)", l.cfg.LogID, epoch, l.epoch)
	}
	if size != l.size { // an earlier batch of ours stands though we were told otherwise: load reads where the log is
		return nil, waybill.Errorf(waybill.Unavailable, "log %d has %d entries, this node knew of %d", l.cfg.LogID, size, l.size)
	}
	events, err := l.takeEvents(ctx, tx)
	if err != nil {
		return nil, err
	}
	if len(waiters) == 0 && len(events) == 0 {
		return nil, nil
	}
	duplicates, err := findDuplicates(ctx, tx, waiters, checkAll)
	if err != nil {
		return nil, err
	}
	if p, err = l.build(waiters, events, duplicates); err != nil {
		return nil, err
	}
	if err := l.copy(ctx, tx, p); err != nil {
		return nil, err
	}
	committed = true
	if err := tx.Commit(ctx); err != nil {
		return p, fmt.Errorf("commit batch: %w", err)
	}
	return p, l.finish(ctx, p)
}

type storedEvent struct {
	Seq     int64
	Type    string
	Tenant  string
	Actor   string
	At      time.Time
	Subject string
	Digest  string
	Detail  []byte
}

func (l *Log) takeEvents(ctx context.Context, tx pgx.Tx) ([]storedEvent, error) {
	rows, err := tx.Query(ctx, string(takeOutbox), maxOutbox)
	if err != nil {
		return nil, fmt.Errorf("take outbox: %w", err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[storedEvent])
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	sort.Slice(events, func(i, j int) bool { return events[i].Seq < events[j].Seq })
	if len(events) == maxOutbox { // there may be more
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return events, nil
}

type decisionKey struct {
	tenant waybill.Tenant
	id     waybill.ID
}

// findDuplicates looks up the ids that may have been used before: those derived from an idempotency key (UUID version
// 8), and every id when an earlier try may have been committed.
func findDuplicates(ctx context.Context, tx pgx.Tx, waiters []*waiter, all bool) (map[decisionKey]known, error) {
	var tenants, ids []string
	for _, w := range waiters {
		if id := w.d.Leaf.ID; all || id[6]>>4 == 8 {
			tenants, ids = append(tenants, string(w.d.Leaf.Tenant)), append(ids, id.String())
		}
	}
	out := map[decisionKey]known{}
	if len(ids) == 0 {
		return out, nil
	}
	rows, err := tx.Query(ctx, string(findKnown), tenants, ids)
	if err != nil {
		return nil, fmt.Errorf("find duplicates: %w", err)
	}
	var key decisionKey
	var k known
	if _, err := pgx.ForEachRow(rows, []any{&key.tenant, &key.id, &k.logID, &k.seq, &k.digest, &k.data}, func() error {
		out[key] = known{k.logID, k.seq, append([]byte(nil), k.digest...), append([]byte(nil), k.data...)}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read duplicates: %w", err)
	}
	return out, nil
}

// row is one entry on its way into the log.
type row struct {
	kind, tenant, subject string
	leaf                  []byte
	hash                  [32]byte
	decision              *Decision // nil for governance events
}

// storable refuses decisions with text that Postgres cannot hold. What callers send was checked long before; an action
// is computed by an endpoint's own expression.
func storable(d *Decision) error {
	for _, f := range []struct{ field, text string }{{"business_key", d.BusinessKey}, {"action", d.Leaf.Action}, {"fallback", d.Leaf.Fallback},
		{"gates", strings.Join(d.Leaf.Gates, " ")}} {
		if !utf8.ValidString(f.text) || strings.IndexByte(f.text, 0) >= 0 {
			return waybill.InvalidField(f.field, "must be UTF-8 without the character U+0000; change the request, or the endpoint's expression that makes it")
		}
	}
	return nil
}

// build makes leaves, hashes and the tree after the batch, in memory of its own.
func (l *Log) build(waiters []*waiter, events []storedEvent, duplicates map[decisionKey]known) (*pending, error) {
	p := &pending{waiters: waiters, results: make([]outcome, len(waiters)), edges: map[uint][]byte{}, tiles: map[tileID][]byte{}, pseq: l.pseq}
	p.recorded = l.cfg.Clock()
	if p.recorded.Before(l.recorded) {
		p.recorded = l.recorded // a clock that stepped back does not turn the log's time
	}
	for k, v := range l.edges {
		p.edges[k] = append([]byte(nil), v...)
	}
	hashes := l.tree.Hashes()
	tree, err := compactFactory().NewRange(0, uint64(l.size), append([][]byte(nil), hashes...))
	if err != nil {
		return nil, fmt.Errorf("copy tree: %w", err)
	}
	p.tree = tree
	p.batch = &batch{nodes: make(map[compact.NodeID][]byte, 2*(len(waiters)+len(events))+len(hashes))}
	for i, id := range compact.RangeNodes(0, uint64(l.size), nil) {
		p.batch.nodes[id] = hashes[i]
	}
	mine := map[decisionKey]int{} // ids within this batch → waiter
	for i, w := range waiters {
		key := decisionKey{w.d.Leaf.Tenant, w.d.Leaf.ID}
		if k, ok := duplicates[key]; ok {
			if string(k.digest) != string(w.d.RequestDigest[:]) {
				p.results[i].err = errKeyReused()
				continue
			}
			p.results[i].receipt = Receipt{Origin: l.cfg.Origin, Index: k.seq, Duplicate: true, Payload: k.data}
			if k.logID != l.cfg.LogID {
				p.results[i].err = waybill.Errorf(waybill.Conflict, "decision %s is in log %d of another node; ask that node", key.id, k.logID)
			}
			continue
		}
		if first, ok := mine[key]; ok {
			if waiters[first].d.RequestDigest != w.d.RequestDigest {
				p.results[i].err = errKeyReused()
				continue
			}
			p.results[i] = p.results[first]
			p.results[i].receipt.Duplicate, p.results[i].receipt.Payload = true, waiters[first].d.Payload
			continue
		}
		if err := storable(w.d); err != nil { // one that Postgres refuses would take the whole batch with it
			p.results[i].err = err
			continue
		}
		leaf := w.d.Leaf
		leaf.V, leaf.T = 1, "decision"
		leaf.Producer, leaf.PSeq = fmt.Sprintf("%s/%d", l.cfg.Producer, l.epoch), p.pseq+1
		raw, err := json.Marshal(leaf)
		if err != nil || len(raw) > maxLeaf || leaf.Endpoint == "" {
			p.results[i].err = waybill.Errorf(waybill.TooLarge, "the leaf of decision %s has %d bytes or is incomplete; at most %d", key.id, len(raw), maxLeaf)
			continue
		}
		index, hash, err := p.add(row{kind: "decision", tenant: string(key.tenant), subject: "decision:" + key.id.String(), leaf: raw, decision: w.d})
		if err != nil {
			return nil, err
		}
		p.pseq++
		mine[key] = i
		p.results[i] = outcome{receipt: Receipt{Origin: l.cfg.Origin, Index: index, LeafHash: hash}, batch: p.batch}
	}
	for _, e := range events {
		raw, err := json.Marshal(eventLeaf{V: 1, T: e.Type, Tenant: e.Tenant, At: FormatTime(e.At), Actor: e.Actor, Subject: e.Subject, Digest: e.Digest, Detail: e.Detail})
		if err != nil {
			return nil, fmt.Errorf("marshal event leaf: %w", err)
		}
		if _, _, err := p.add(row{kind: e.Type, tenant: e.Tenant, subject: e.Subject, leaf: raw}); err != nil {
			return nil, err
		}
	}
	p.end = int64(p.tree.End())
	p.root, err = rootOf(p.tree)
	return p, err
}

func errKeyReused() error {
	return waybill.Errorf(waybill.Conflict, "this Idempotency-Key was used with another request; use a new key for a new request")
}
