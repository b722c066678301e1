package featurestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// Mode says what happens to a batch that has bad rows.
type Mode string

// The modes.
const (
	Reject     Mode = "reject"     // the default: nothing of the batch is written
	Quarantine Mode = "quarantine" // the good rows are a commit, the bad ones wait in the view's quarantine
)

// Bounds of the quarantine. Beyond them nothing of the batch is written.
const (
	MaxQuarantined  = 10_000  // bad rows of one batch: more, and the batch does not fit the view
	maxHeldBytes    = 8 << 20 // of one batch's bad rows as JSON
	maxQuarantine   = 100_000 // rows of a view version that wait
	maxHeldText     = 64 << 10
	quarantineTable = "quarantine"
)

// mode reads a mode; "" is Reject.
func (m Mode) check() (Mode, error) {
	switch m {
	case "":
		return Reject, nil
	case Reject, Quarantine:
		return m, nil
	}
	return "", waybill.InvalidField("mode", strconv.QuoteToGraphic(short(string(m)))+" is not known; use reject or quarantine")
}

// QuarantinedRow is a row that was not accepted.
type QuarantinedRow struct {
	ID      int64 // later rows have larger ones
	View    waybill.VersionRef
	BatchID string
	Seq     int64 // commit of the accepted rows of the batch; 0 when there were none
	Row     int64 // its number within the batch, from 1
	Reasons []waybill.Violation
	Values  json.RawMessage // an object: the row as it came. Personal text is a token, other personal values are left out
	At      time.Time
	Actor   string
}

// held is a bad row of a batch.
type held struct {
	number  int64
	reasons []byte // JSON
	row     []byte // JSON
}

// heldBatch is what a batch leaves in the quarantine.
type heldBatch struct {
	content string // digest of all of the batch's rows as they came
	rows    []held
}

const (
	insertHeldBatch pg.SQL = `
INSERT INTO featurestore.quarantine_batch (tenant, view, version, batch_id, seq, quarantined, content, actor, created_at)
SELECT $1, $2, $3, $4, nullif($5::bigint, 0), $6, $7, $8, $9
WHERE $5::bigint > 0 OR NOT EXISTS (SELECT FROM featurestore.commit WHERE tenant = $1 AND view = $2 AND version = $3 AND batch_id = $4)`
	countHeld pg.SQL = `
SELECT count(*) FROM (SELECT FROM featurestore.quarantine WHERE tenant = $1 AND view = $2 AND version = $3 LIMIT $4) AS waiting`
	findHeldBatch pg.SQL = `
SELECT q.quarantined, q.content, q.created_at, q.actor, coalesce(c.seq, 0), coalesce(c.rows, 0), coalesce(c.digest, ''), c.min_event, c.max_event
FROM featurestore.quarantine_batch q LEFT JOIN featurestore.commit c ON (c.tenant, c.view, c.version, c.seq) = (q.tenant, q.view, q.version, q.seq)
WHERE q.tenant = $1 AND q.view = $2 AND q.version = $3 AND q.batch_id = $4`
	selectHeld pg.SQL = `
SELECT r.id, r.batch_id, coalesce(b.seq, 0), r.row_number, r.reasons, r.row, b.created_at, b.actor
FROM featurestore.quarantine r JOIN featurestore.quarantine_batch b USING (tenant, view, version, batch_id)
WHERE r.tenant = $1 AND r.view = $2 AND r.version = $3 AND ($4 = '' OR r.batch_id = $4) AND r.id < $5 ORDER BY r.id DESC LIMIT $6`
	deleteHeld pg.SQL = `
DELETE FROM featurestore.quarantine WHERE tenant = $1 AND view = $2 AND version = $3 AND ($4 = '' OR batch_id = $4)`
)

// incoming is rows on their way in, before they are typed.
type incoming struct {
	rows  int
	get   func(i int, name string) any
	at    func(i int) string     // begins the path of a field: "rows[3]." or "line 4, "
	extra func(i int) []string   // names in a row that the view lacks; nil for none
	names func(i int) []string   // all names in a row, sorted
	known func(name string) bool // whether the view has the column
}

// knows returns what tells a view's columns from other names.
func (v *View) knows() func(name string) bool {
	known := map[string]bool{"event_time": true}
	for _, c := range slices.Concat(v.Entity.Keys, v.Features) {
		known[c.Name] = true
	}
	return func(name string) bool { return known[name] }
}

// pushed are the rows of a push.
func pushed(v *View, rows []map[string]any) incoming {
	known := v.knows()
	exacting := map[string]Type{} // columns that a double may not do for
	for _, c := range slices.Concat(v.Entity.Keys, v.Features) {
		if c.Type == DecimalT || c.Type.elem() == DecimalT {
			exacting[c.Name] = c.Type
		}
	}
	return incoming{rows: len(rows), get: func(i int, name string) any {
		if t, ok := exacting[name]; ok {
			return requested(t, rows[i][name])
		}
		return rows[i][name]
	}, at: func(i int) string { return "rows[" + strconv.Itoa(i) + "]." },
		names: func(i int) []string { return slices.Sorted(maps.Keys(rows[i])) }, known: known,
		extra: func(i int) (out []string) {
			for name := range rows[i] {
				if !known(name) {
					out = append(out, name)
				}
			}
			slices.Sort(out)
			return out
		}}
}

// filed are rows of a file, whose columns are all of the view's.
func filed(v *View, columns []string, rows int, cell func(i, c int) any, line func(i int) string) incoming {
	place := map[string]int{}
	for i, n := range columns {
		place[n] = i
	}
	sorted := slices.Sorted(slices.Values(columns))
	return incoming{rows: rows, at: func(i int) string { return line(i) + ", " }, names: func(int) []string { return sorted }, known: v.knows(),
		get: func(i int, name string) any {
			if c, ok := place[name]; ok {
				return cell(i, c)
			}
			return nil
		}}
}

// checking types the rows of a batch one by one. In mode Reject it gathers up to maxViolations of what is wrong in bad; in
// mode Quarantine it keeps the bad rows, at most MaxQuarantined of them.
type checking struct {
	v    *View
	mode Mode
	now  time.Time
	tk   tokens

	bad  []waybill.Violation
	kept []held
	size int // bytes of kept
}

// full says that enough is wrong.
func (c *checking) full() bool { return len(c.bad) == maxViolations }

// rows returns the good rows of a part of a batch, whose first row has the number first in it.
func (c *checking) rows(in *incoming, first int) ([]row, error) {
	out := make([]row, 0, in.rows)
	for i := 0; i < in.rows && !c.full(); i++ {
		var wrong []waybill.Violation
		fail := func(field, remedy string) {
			if len(wrong) < maxViolations {
				wrong = append(wrong, waybill.Violation{Field: field, Remedy: remedy})
			}
		}
		r := checkRow(c.v, func(name string) any { return in.get(i, name) }, c.now, c.tk, fail)
		if in.extra != nil {
			for _, name := range in.extra(i) {
				fail(short(name), "is no column of view "+c.v.Name)
			}
		}
		switch {
		case len(wrong) == 0:
			out = append(out, r)
		case c.mode == Quarantine:
			if len(c.kept) == MaxQuarantined {
				return nil, waybill.Errorf(waybill.TooLarge, "more than %d rows are bad, the last of them %s%s %s; nothing was written: mend the batch or cut it into several",
					MaxQuarantined, in.at(i), wrong[0].Field, wrong[0].Remedy)
			}
			h, err := in.hold(c.v, i, wrong, c.tk)
			if err != nil {
				return nil, err
			}
			h.number += int64(first)
			if c.size += len(h.row) + len(h.reasons); c.size > maxHeldBytes {
				return nil, waybill.Errorf(waybill.TooLarge, "the bad rows have more than %d MiB; nothing was written: mend the batch or cut it into several", maxHeldBytes>>20)
			}
			c.kept = append(c.kept, h)
		default:
			for _, w := range wrong {
				if !c.full() {
					c.bad = append(c.bad, waybill.Violation{Field: in.at(i) + w.Field, Remedy: w.Remedy})
				}
			}
		}
	}
	return out, nil
}

// hold makes what the quarantine keeps of row i. No personal value is in it: personal text is its token, another value of
// a personal column is left out, and so is what stands under names that the view lacks when the view has personal columns.
func (in *incoming) hold(v *View, i int, wrong []waybill.Violation, tk tokens) (held, error) {
	type reason struct {
		Field  string `json:"field"`
		Remedy string `json:"remedy"`
	}
	var reasons []reason
	personal := map[string]Column{}
	for _, c := range slices.Concat(v.Entity.Keys, v.Features) {
		if c.personal() {
			personal[c.Name] = c
		}
	}
	for _, w := range wrong {
		if c, ok := personal[w.Field]; ok {
			w.Remedy = "is no " + string(c.Type) + " that the column takes; the value is personal and is not shown"
		}
		reasons = append(reasons, reason{w.Field, w.Remedy})
	}
	values := map[string]any{}
	for _, name := range in.names(i) {
		x := in.get(i, name)
		if c, ok := personal[name]; ok {
			if x = tk.tokenise(c, x); x != nil && !isText(x) {
				x = nil
			}
		} else if len(personal) > 0 && !in.known(name) {
			x = nil
		}
		values[name] = jsonCell(x)
	}
	h := held{number: int64(i) + 1}
	var err error
	if h.reasons, err = json.Marshal(reasons); err != nil {
		return h, fmt.Errorf("marshal reasons: %w", err)
	}
	if h.row, err = json.Marshal(values); err != nil {
		return h, fmt.Errorf("marshal row: %w", err)
	}
	return h, nil
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

// jsonCell writes a value as JSON can hold it: whole numbers from 2^53 on and what is not finite as text, long text cut
// where no column would take it anyway.
func jsonCell(v any) any {
	switch v := v.(type) {
	case nil, bool, json.Number, map[string]any:
		return v
	case int64:
		if v >= 1<<53 || v <= -(1<<53) {
			return strconv.FormatInt(v, 10)
		}
		return v
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
		return v
	case float32:
		return jsonCell(float64(v))
	case rounded:
		return jsonCell(float64(v))
	case string:
		if len(v) > maxHeldText {
			return strings.ToValidUTF8(v[:maxHeldText], "") + "…"
		}
		return v
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []byte:
		return v // base64
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = jsonCell(x)
		}
		return out
	}
	return fmt.Sprint(v)
}

// digest identifies the rows as they came, good and bad: the same rows in the same form give the same digest.
func (in *incoming) digest() string {
	h := sha256.New()
	var b []byte
	for i := range in.rows {
		names := in.names(i)
		b = strconv.AppendInt(b[:0], int64(len(names)), 10)
		for _, name := range names {
			b = strconv.AppendQuote(b, name)
			switch x := in.get(i, name).(type) {
			case string:
				b = strconv.AppendQuote(append(b, 's'), x)
			case time.Time:
				b = x.UTC().AppendFormat(append(b, 't'), time.RFC3339Nano)
			case float64:
				b = strconv.AppendUint(append(b, 'f'), math.Float64bits(x), 16)
			default:
				b = fmt.Appendf(b, "%T%v", x, x)
			}
			b = append(b, ';')
		}
		h.Write(append(b, '\n'))
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// hold writes a batch's bad rows, in the transaction that appends its good ones as commit seq (0: there are none). Its
// caller holds the view's log. known means that the batch id is taken.
func (s *Store) hold(ctx context.Context, tx pgx.Tx, actor waybill.Actor, ref waybill.VersionRef, batch string, seq int64, h *heldBatch, at time.Time) (known bool, err error) {
	var waiting int64
	if err := tx.QueryRow(ctx, string(countHeld), actor.Tenant, ref.Name, ref.Version, maxQuarantine+1).Scan(&waiting); err != nil {
		return false, fmt.Errorf("count quarantine: %w", err)
	}
	tag, err := tx.Exec(ctx, string(insertHeldBatch), actor.Tenant, ref.Name, ref.Version, batch, seq, len(h.rows), h.content, actor.ID, at)
	if err != nil {
		return pg.IsUnique(err, "quarantine_batch_pkey"), fmt.Errorf("insert quarantined batch: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return true, nil
	}
	if waiting+int64(len(h.rows)) > maxQuarantine { // only now: a repeat has its answer also when the quarantine is full
		return false, waybill.Errorf(waybill.Exhausted, "the quarantine of %s has %d rows and these would be %d more than the %d it holds; nothing was written: look at them and clear it",
			ref, waiting, waiting+int64(len(h.rows))-maxQuarantine, maxQuarantine)
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"featurestore", quarantineTable}, []string{"tenant", "view", "version", "batch_id", "row_number", "reasons", "row"},
		pgx.CopyFromSlice(len(h.rows), func(i int) ([]any, error) {
			r := &h.rows[i]
			return []any{string(actor.Tenant), ref.Name, int32(ref.Version), batch, r.number, r.reasons, r.row}, nil
		}))
	if err != nil {
		return false, fmt.Errorf("copy into quarantine: %w", err)
	}
	return false, nil
}

// again answers a batch id that was taken before, NotFound when it was not: with the first answer when the rows are the
// same, else with a Conflict.
func (s *Store) again(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, batch string, w *writing) (Commit, error) {
	c, err := s.heldBefore(ctx, tenant, ref, batch, w.digest)
	if err == nil || waybill.CodeOf(err) != waybill.NotFound {
		return c, err
	}
	return s.batch(ctx, tenant, ref, batch, func() (string, error) {
		if w.held != nil {
			return w.held.content, nil // no commit without held rows has these
		}
		if w.measure != nil {
			if err := w.measure(); err != nil {
				return "", err
			}
		}
		return w.content, nil
	})
}

// heldBefore is again for batches of which rows were held.
func (s *Store) heldBefore(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, batch string, digest func() (string, error)) (Commit, error) {
	c := Commit{View: ref, Duplicate: true}
	var was string
	var lo, hi *time.Time
	err := s.pool.QueryRow(ctx, string(findHeldBatch), tenant, ref.Name, ref.Version, batch).Scan(&c.Quarantined, &was, &c.At, &c.Actor, &c.Seq, &c.Rows, &c.Digest, &lo, &hi)
	if errors.Is(err, pgx.ErrNoRows) {
		return Commit{}, waybill.Errorf(waybill.NotFound, "there is no such batch")
	}
	if err != nil {
		return Commit{}, fmt.Errorf("select quarantined batch: %w", err)
	}
	if lo != nil && hi != nil {
		c.MinEvent, c.MaxEvent = lo.UTC(), hi.UTC()
	}
	is, err := digest()
	if err != nil {
		return Commit{}, err
	}
	if c.At = c.At.UTC(); was != is {
		return Commit{}, waybill.Errorf(waybill.Conflict, "batch %s came before, with other rows, of which %d were accepted and %d quarantined; nothing was written: give other rows another batch id",
			strconv.QuoteToGraphic(short(batch)), c.Rows, c.Quarantined)
	}
	return c, nil
}

// Quarantined lists rows that wait in a view version's quarantine, newest first, and returns the token of the next page
// ("" at the end). batch narrows it to one batch; "" is all. View version 0 is the latest.
func (s *Store) Quarantined(ctx context.Context, tenant waybill.Tenant, view waybill.VersionRef, batch string, p Page) ([]QuarantinedRow, string, error) {
	n, err := p.check()
	if err != nil {
		return nil, "", err
	}
	before := int64(math.MaxInt64)
	if p.Token != "" {
		if before, err = strconv.ParseInt(p.Token, 10, 64); err != nil || before < 1 {
			return nil, "", waybill.InvalidField("page_token", "is not one that a list returned")
		}
	}
	v, err := s.view(ctx, s.pool, tenant, view)
	if err != nil {
		return nil, "", err
	}
	ref := waybill.VersionRef{Name: v.Name, Version: v.Version}
	rows, err := s.pool.Query(ctx, string(selectHeld), tenant, ref.Name, ref.Version, batch, before, n+1)
	if err != nil {
		return nil, "", fmt.Errorf("select quarantine: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (q QuarantinedRow, err error) {
		var reasons []byte
		if err := r.Scan(&q.ID, &q.BatchID, &q.Seq, &q.Row, &reasons, (*[]byte)(&q.Values), &q.At, &q.Actor); err != nil {
			return q, err
		}
		q.View, q.At = ref, q.At.UTC()
		return q, json.Unmarshal(reasons, &q.Reasons) //nolint:musttag // written here, too: by the names of the fields
	})
	if err != nil {
		return nil, "", fmt.Errorf("read quarantine: %w", err)
	}
	if len(list) > n {
		return list[:n], strconv.FormatInt(list[n-1].ID, 10), nil
	}
	return list, "", nil
}

// ClearQuarantine deletes the rows that wait in a view version's quarantine, of one batch or of all ("" ), and returns how
// many there were. That is an event of the log, with its reason; the counts that the batches were answered with stay.
func (s *Store) ClearQuarantine(ctx context.Context, actor waybill.Actor, view waybill.VersionRef, batch, reason string) (int64, error) {
	if reason == "" || len(reason) > 1024 {
		return 0, waybill.InvalidField("reason", "must say why in 1 to 1,024 bytes")
	}
	v, err := s.view(ctx, s.pool, actor.Tenant, view)
	if err != nil {
		return 0, err
	}
	ref := waybill.VersionRef{Name: v.Name, Version: v.Version}
	var gone int64
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, string(deleteHeld), actor.Tenant, ref.Name, ref.Version, batch)
		if err != nil {
			return fmt.Errorf("delete from quarantine: %w", err)
		}
		if gone = tag.RowsAffected(); gone == 0 {
			return nil
		}
		return audit.Enqueue(ctx, tx, audit.Event{Type: "quarantine.clear", Tenant: actor.Tenant, Actor: actor.ID, At: s.clock(), Subject: "view:" + ref.String(),
			Detail: map[string]any{"rows": gone, "batch_id": batch, "reason": reason}})
	})
	return gone, err
}
