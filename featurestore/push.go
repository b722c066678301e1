package featurestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
	"waybill/lineage"
)

// Bounds of a push.
const (
	MaxPushRows = 10_000
	maxInline   = 8 << 20
	// futureTolerance is how far a producer's clock may be ahead of ours. Such rows are served from their event time on.
	futureTolerance = 5 * time.Minute
)

// PushRequest is rows for one view version.
type PushRequest struct {
	View    waybill.VersionRef // version 0 is the latest
	BatchID string             // the same id is accepted once per view version
	Rows    []map[string]any   // join keys, features and event_time by name; JSON values
	Mode    Mode               // what happens to bad rows; "" is Reject
}

// Commit is one accepted write. Of a batch without any good row nothing is written but its quarantine: Seq and Rows are 0
// then, Digest is "" and the event times are zero.
type Commit struct {
	View        waybill.VersionRef
	Seq         int64
	Rows        int64
	Digest      string
	MinEvent    time.Time
	MaxEvent    time.Time
	At          time.Time
	Actor       string
	Duplicate   bool  // the batch had been taken before; nothing was written now
	Quarantined int64 // rows of the batch that were not accepted and wait in the quarantine
}

const (
	lockLog      pg.SQL = `SELECT seq + 1, known_at, retired FROM featurestore.log WHERE tenant = $1 AND view = $2 AND version = $3 FOR UPDATE`
	insertCommit pg.SQL = `
WITH log AS (UPDATE featurestore.log SET seq = $4, known_at = $13 WHERE tenant = $1 AND view = $2 AND version = $3)
INSERT INTO featurestore.commit (tenant, view, version, seq, batch_id, digest, rows, min_event, max_event, inline, object, actor, created_at, content)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
WHERE NOT EXISTS (SELECT FROM featurestore.quarantine_batch WHERE tenant = $1 AND view = $2 AND version = $3 AND batch_id = $5)`
	findBatch pg.SQL = `
SELECT seq, rows, digest, min_event, max_event, created_at, actor, coalesce(content, '') FROM featurestore.commit
WHERE tenant = $1 AND view = $2 AND version = $3 AND batch_id = $4`
	selectCommits pg.SQL = `
SELECT seq, digest, inline, coalesce(object, ''), created_at, rows FROM featurestore.commit WHERE tenant = $1 AND view = $2 AND version = $3 AND seq > $4 AND seq <= $5 ORDER BY seq LIMIT $6`
)

// commitsAtOnce is how many commits are fetched together: of pushes, at most 256 MiB.
const commitsAtOnce = 32

// Push validates rows and appends them to the view's log as one commit. In mode Reject that is all of them or none, and up
// to 20 violations are named as rows[3].queue; in mode Quarantine bad rows wait in the view's quarantine and the others are
// the commit. A batch id that was taken before with the same rows returns the first answer and writes nothing; with other
// rows it is a Conflict. The rows' knowledge time is the commit's: when the log took it in. Text of personal columns is
// stored as its token. Errors beside: TooLarge for more than MaxPushRows, MaxQuarantined or 8 MiB; Exhausted when the
// view's quarantine is full.
func (s *Store) Push(ctx context.Context, actor waybill.Actor, req PushRequest) (Commit, error) {
	v, err := s.writable(ctx, actor.Tenant, req.View)
	if err != nil {
		return Commit{}, err
	}
	if err := checkBatchID(req.BatchID); err != nil {
		return Commit{}, err
	}
	if len(req.Rows) == 0 || len(req.Rows) > MaxPushRows {
		return Commit{}, waybill.InvalidField("rows", fmt.Sprintf("must be 1 to %d; it has %d", MaxPushRows, len(req.Rows)))
	}
	in := pushed(&v.View, req.Rows)
	w, tk, err := s.begin(ctx, actor, v, req.BatchID, req.Mode, func() (string, error) { return in.digest(), nil })
	if err != nil || w.done {
		return w.first, err
	}
	check := &checking{v: &v.View, mode: w.mode, now: s.clock(), tk: tk}
	if w.rows, err = check.rows(&in, 0); err != nil {
		return Commit{}, err
	}
	if err := waybill.InvalidFields(check.bad); err != nil {
		return Commit{}, err
	}
	if w.good = int64(len(w.rows)); w.good > 0 {
		w.content = contentDigest(w.rows)
		w.minEvent, w.maxEvent = eventSpan(w.rows)
	}
	if err := w.keep(check.kept); err != nil {
		return Commit{}, err
	}
	return s.append(ctx, w)
}

// writing is a checked batch on its way into a view's log.
type writing struct {
	actor  waybill.Actor
	ref    waybill.VersionRef
	batch  string
	digest func() (string, error) // of all rows, as they came
	layout *layout
	mode   Mode

	good               int64        // rows that are accepted
	content            string       // their contentDigest
	minEvent, maxEvent int64        // µs
	measure            func() error // of a file: finds these three, and may be called again
	rows               []row        // those of a push, in their order
	file               *laidFile    // those of a file, as it is stored
	object             string       // its key in the bucket, ends in its SHA-256; "" for rows of a push
	held               *heldBatch   // the bad ones; nil for none

	done  bool   // the batch was taken before:
	first Commit // this was its answer
}

// begin makes ready to check a batch's rows. w.done says that nothing is left to do.
func (s *Store) begin(ctx context.Context, actor waybill.Actor, v storedView, batch string, mode Mode, digest func() (string, error)) (w *writing, tk tokens, err error) {
	w = &writing{actor: actor, ref: waybill.VersionRef{Name: v.Name, Version: v.Version}, batch: batch, digest: digest, layout: newLayout(&v.View)}
	if w.mode, err = mode.check(); err != nil {
		return w, tk, err
	}
	if tk, err = s.forView(actor.Tenant, &v.View); err != nil {
		return w, tk, err
	}
	if w.mode == Quarantine {
		// First of all, because what is wrong with a row may depend on the clock, and the answer to a repeat must not.
		w.first, err = s.heldBefore(ctx, actor.Tenant, w.ref, batch, digest)
		if w.done = err == nil; !w.done && waybill.CodeOf(err) == waybill.NotFound {
			err = nil
		}
	}
	return w, tk, err
}

// keep makes the bad rows of a batch what it leaves in the quarantine.
func (w *writing) keep(bad []held) error {
	if len(bad) == 0 {
		return nil
	}
	digest, err := w.digest()
	w.held = &heldBatch{digest, bad}
	return err
}

func checkBatchID(id string) error {
	if id == "" || len(id) > 128 || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return waybill.InvalidField("batch_id", "must be a text of 1 to 128 bytes; it makes the write safe to repeat")
	}
	return nil
}

// errTaken ends a transaction whose batch id is taken.
var errTaken = errors.New("the batch id is taken")

// append puts a batch at the end of its view's log: the good rows as one commit and the bad ones into the quarantine, both
// or neither. Without good rows the log stays as it is.
func (s *Store) append(ctx context.Context, w *writing) (Commit, error) {
	c := Commit{View: w.ref, Rows: w.good, Actor: w.actor.ID}
	if w.good > 0 {
		c.MinEvent, c.MaxEvent = time.UnixMicro(w.minEvent).UTC(), time.UnixMicro(w.maxEvent).UTC()
	}
	tenant, ref := w.actor.Tenant, w.ref
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var known time.Time
		var gone bool
		if err := tx.QueryRow(ctx, string(lockLog), tenant, ref.Name, ref.Version).Scan(&c.Seq, &known, &gone); err != nil {
			return fmt.Errorf("lock view log: %w", err)
		}
		if gone { // since it was asked about
			return retired("view", ref, "a moment ago")
		}
		// The clock is read under the lock, and a slow one does not count: within a log a later commit never knew less.
		if c.At = s.clock(); c.At.Before(known) {
			c.At = known.UTC()
		}
		if w.good == 0 {
			c.Seq = 0
		} else if err := s.insertCommit(ctx, tx, w, &c); err != nil {
			return err
		}
		if w.held != nil {
			known, err := s.hold(ctx, tx, w.actor, ref, w.batch, c.Seq, w.held, c.At)
			if known {
				return errTaken
			}
			if err != nil {
				return err
			}
			c.Quarantined = int64(len(w.held.rows))
		}
		_, err := tx.Exec(ctx, string(notifyFeatures))
		return err
	})
	if errors.Is(err, errTaken) || pg.IsUnique(err, "commit_batch_once") {
		return s.again(ctx, tenant, ref, w.batch, w)
	}
	if err != nil {
		return Commit{}, err
	}
	s.show(ctx, func(o *online) bool { return o.key == viewKey{tenant, ref} })
	return c, nil
}

// insertCommit moves the log's end and writes the commit c there with its lineage. It sets c's digest.
func (s *Store) insertCommit(ctx context.Context, tx pgx.Tx, w *writing, c *Commit) error {
	var key *string
	var inline []byte
	if w.object != "" {
		key, c.Digest = &w.object, "sha256:"+path.Base(w.object)
	} else { // a packed row says which commit it is of, so the bytes are made here
		if inline = w.layout.pack(w.rows, c.At.UnixMicro(), c.Seq); len(inline) > maxInline {
			return waybill.Errorf(waybill.TooLarge, "the rows have %d bytes; at most %d in one push", len(inline), maxInline)
		}
		sum := sha256.Sum256(inline)
		c.Digest = "sha256:" + hex.EncodeToString(sum[:])
	}
	tag, err := tx.Exec(ctx, string(insertCommit), w.actor.Tenant, w.ref.Name, w.ref.Version, c.Seq, w.batch, c.Digest, c.Rows,
		c.MinEvent, c.MaxEvent, inline, key, w.actor.ID, c.At, w.content)
	if err != nil {
		return fmt.Errorf("insert commit: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errTaken
	}
	node := commitNode(w.ref, c.Seq)
	return lineage.Record(ctx, tx, w.actor.Tenant, c.At,
		lineage.Edge{From: lineage.ActorNode(w.actor), To: node, Kind: lineage.Wrote},
		lineage.Edge{From: node, To: lineage.Node("view:" + w.ref.String()), Kind: lineage.Reads})
}

// batch returns the commit that an earlier write with the same batch id made, NotFound when there is none, and Conflict
// when that had other rows. Commits from before content digests are taken to have had the same.
func (s *Store) batch(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, batch string, content func() (string, error)) (Commit, error) {
	c := Commit{View: ref, Duplicate: true}
	var was string
	err := s.pool.QueryRow(ctx, string(findBatch), tenant, ref.Name, ref.Version, batch).Scan(&c.Seq, &c.Rows, &c.Digest, &c.MinEvent, &c.MaxEvent, &c.At, &c.Actor, &was)
	if errors.Is(err, pgx.ErrNoRows) {
		return Commit{}, waybill.Errorf(waybill.NotFound, "there is no such batch")
	}
	if err != nil {
		return Commit{}, fmt.Errorf("select commit: %w", err)
	}
	is, err := content()
	if err != nil {
		return Commit{}, err
	}
	if was != "" && was != is {
		return Commit{}, waybill.Errorf(waybill.Conflict, "batch %s was accepted before, as commit %d, with other rows; nothing was written: give other rows another batch id",
			strconv.QuoteToGraphic(short(batch)), c.Seq)
	}
	return c, nil
}

func commitNode(ref waybill.VersionRef, seq int64) lineage.Node {
	return lineage.Node("commit:" + ref.String() + "/" + strconv.FormatInt(seq, 10))
}

// eventSpan is the first and the last event of rows (µs).
func eventSpan(rows []row) (lo, hi int64) {
	lo, hi = rows[0].event, rows[0].event
	for _, r := range rows {
		lo, hi = min(lo, r.event), max(hi, r.event)
	}
	return lo, hi
}

// maxViolations is how many violations one answer names.
const maxViolations = 20

// checkRow types one row; text of personal columns becomes its token.
func checkRow(v *View, get func(name string) any, now time.Time, tk tokens, fail func(field, remedy string)) row {
	var r row
	event, err := toTime(get("event_time"))
	switch {
	case err != nil:
		fail("event_time", err.Error())
	case event.After(now.Add(futureTolerance)):
		fail("event_time", "lies in the future ("+event.Format(time.RFC3339)+"); at most five minutes are tolerated")
	}
	r.event = event.UnixMicro()
	r.keys, r.values = make([]any, 0, len(v.Entity.Keys)), make([]any, 0, len(v.Features))
	for _, k := range v.Entity.Keys {
		k.Required = true
		x, err := typed(k, get(k.Name))
		if err != nil {
			fail(k.Name, err.Error())
		}
		r.keys = append(r.keys, tk.tokenise(k, x))
	}
	for _, f := range v.Features {
		x, err := typed(f, get(f.Name))
		if err != nil {
			fail(f.Name, err.Error())
		}
		r.values = append(r.values, tk.tokenise(f, x))
	}
	r.key = encodeKey(r.keys)
	return r
}

// storedCommit is a commit as it lies in the log, its digest checked.
type storedCommit struct {
	ref   waybill.VersionRef
	seq   int64
	at    int64 // µs: the knowledge time of its rows
	count int64 // rows
	file  bool  // data is a Parquet file; otherwise packed rows, or the JSON of an earlier hub
	data  []byte
	fresh *laidFile // instead of data, for a file that this hub has just written

	laid *[]arrow.Record // what records returned
}

// stored calls each with the commits after, up to and including upTo, one at a time in their order.
func (s *Store) stored(ctx context.Context, key viewKey, after, upTo int64, each func(c *storedCommit) error) error {
	type line struct {
		seq    int64
		digest string
		inline []byte
		object string
		at     time.Time
		rows   int64
	}
	for after < upTo {
		rows, err := s.pool.Query(ctx, string(selectCommits), key.tenant, key.ref.Name, key.ref.Version, after, upTo, commitsAtOnce)
		if err != nil {
			return fmt.Errorf("select commits: %w", err)
		}
		list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c line, err error) {
			return c, r.Scan(&c.seq, &c.digest, &c.inline, &c.object, &c.at, &c.rows)
		})
		if err != nil {
			return fmt.Errorf("read commits of %s: %w", key.ref, err)
		}
		for i := range list {
			l := &list[i]
			if l.seq != after+1 {
				break
			}
			c := &storedCommit{ref: key.ref, seq: l.seq, at: l.at.UnixMicro(), count: l.rows, file: l.object != "", data: l.inline}
			if c.file {
				c.fresh = s.written(l.object)
			}
			if c.file && c.fresh == nil {
				if c.data, err = s.object(ctx, l.object); err != nil {
					return fmt.Errorf("read commit %d of %s: %w", c.seq, key.ref, err)
				}
			}
			if c.digest() != l.digest {
				return waybill.Errorf(waybill.Corrupt, "commit %d of %s does not match its digest; restore its bytes", c.seq, key.ref)
			}
			if err := each(c); err != nil {
				return err
			}
			after, l.inline = c.seq, nil
		}
		if len(list) == 0 || after < list[len(list)-1].seq {
			return waybill.Errorf(waybill.Corrupt, "commit %d of %s is missing; restore it", after+1, key.ref)
		}
	}
	return nil
}

// digest is that of the commit's bytes.
func (c *storedCommit) digest() string {
	var sum [sha256.Size]byte
	if c.fresh != nil {
		sum = c.fresh.sum
	} else {
		sum = sha256.Sum256(c.data)
	}
	return "sha256:" + hex.EncodeToString(sum[:])
}

// bytes is the commit's data, that of a fresh file, too.
func (c *storedCommit) bytes() []byte {
	if c.data == nil && c.fresh != nil {
		c.data = c.fresh.bytes()
	}
	return c.data
}

// isPacked tells packed rows from the JSON of an earlier hub.
func (c *storedCommit) isPacked() bool { return !c.file && len(c.data) > 0 && c.data[0] == rowFormat }

// rows decodes the commit.
func (c *storedCommit) rows(l *layout, v *View) (out []row, err error) {
	switch {
	case c.file:
		out, err = readCommitFile(v, c.seq, c.at, c.bytes())
	case !c.isPacked():
		out, err = decodeRows(v, c.seq, c.at, c.data)
	default:
		err = c.packed(l, v, func(b []byte) {
			r, e := l.unpack(b)
			out, err = append(out, r), errors.Join(err, e)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read commit %d of %s: %w", c.seq, c.ref, err)
	}
	return out, nil
}

// packed calls each with every row of the commit in packed form, none when one of them is wrong.
func (c *storedCommit) packed(l *layout, v *View, each func(b []byte)) error {
	data := c.data
	if c.file {
		done, err := c.packFile(l, v, each)
		if done || err != nil {
			return err
		}
	}
	if !c.isPacked() {
		rows, err := c.rows(l, v)
		if err != nil {
			return err
		}
		data = l.pack(rows, c.at, c.seq)
	}
	for rest := data; len(rest) > 0; {
		b, next, err := l.next(rest)
		if err != nil {
			return fmt.Errorf("read commit %d of %s: %w", c.seq, c.ref, err)
		}
		if p := parseRow(b); p.seq != c.seq {
			return waybill.Errorf(waybill.Corrupt, "commit %d of %s holds a row of commit %d; restore its bytes", c.seq, c.ref, p.seq)
		}
		rest = next
	}
	for rest := data; len(rest) > 0; {
		p := parseRow(rest)
		n := l.size(rest, &p)
		each(rest[:n:n])
		rest = rest[n:]
	}
	return nil
}

// records are the rows of a commit in the columns of its file; none for one that has to be read row by row.
func (c *storedCommit) records(v *View) (recs []arrow.Record, err error) {
	switch {
	case !c.file:
		return nil, nil
	case c.laid != nil:
		return *c.laid, nil
	case c.fresh != nil && len(c.fresh.records) > 0 && c.fresh.records[0].Schema().Equal(arrowSchema(commitColumns(v))):
		recs = c.fresh.records
	default:
		if recs, err = commitRecords(v, c.bytes()); err != nil {
			return nil, fmt.Errorf("read commit %d of %s: %w", c.seq, c.ref, err)
		}
	}
	c.laid = &recs
	return recs, nil
}

// packFile is packed for the file of a commit; done is false when it has to be read row by row.
func (c *storedCommit) packFile(l *layout, v *View, each func(b []byte)) (done bool, err error) {
	recs, err := c.records(v)
	if err != nil || len(recs) == 0 {
		return false, err
	}
	packers, err := newPackers(l, v, recs)
	if err != nil {
		return false, fmt.Errorf("read commit %d of %s: %w", c.seq, c.ref, err)
	}
	for n, p := range packers {
		for some := range slices.Chunk(upTo(int(recs[n].NumRows())), packBatch) {
			b, ends := p.pack(some, c.at, c.seq)
			from := 0
			for _, end := range ends {
				each(b[from:end:end])
				from = end
			}
		}
	}
	return true, nil
}

// upTo is the numbers below n.
func upTo(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}
