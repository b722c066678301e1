package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"

	"waybill"
	"waybill/audit/evidence"
	"waybill/internal/pg"
)

// Entry is one leaf as stored.
type Entry struct {
	Seq        int64
	Type       string
	RecordedAt time.Time
	Leaf       []byte
	LeafHash   []byte
}

// DecisionRow is what is kept beside the log for one decision.
type DecisionRow struct {
	ID            waybill.ID
	Seq           int64
	RequestDigest [32]byte
	BusinessKey   string
	Endpoint      string
	Revision      int
	Model         string
	ModelVersion  int
	DecidedAt     time.Time
	Action        string
	Score         *float64
	Fallback      string
	Gates         []string
	Payload       []byte // by FindDecision only
	LogID         int    // by FindDecision only
	Leaf          []byte // by FindDecision only
}

// payloadDigest is the digest of a payload as leaves hold it.
func payloadDigest(payload []byte) string {
	sum := sha256.Sum256(payload)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// check compares a row and its payload with the leaf, which alone is proven. Corrupt names the first that differs.
func (d *DecisionRow) check(tenant waybill.Tenant) error {
	var leaf DecisionLeaf
	if err := json.Unmarshal(d.Leaf, &leaf); err != nil {
		return waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("entry %d of the log cannot be read", d.Seq))
	}
	model := ""
	if d.Model != "" {
		model = waybill.VersionRef{Name: d.Model, Version: d.ModelVersion}.String()
	}
	answered := leaf.Model.Ref
	if leaf.Fallback != "" {
		answered = "" // the rules did; they are not searched by
	}
	sameScore := (d.Score == nil) == (leaf.Score == nil) && (d.Score == nil || *d.Score == *leaf.Score)
	for _, f := range []struct {
		what string
		same bool
	}{
		{"type", leaf.T == "decision"},
		{"tenant", leaf.Tenant == tenant},
		{"id", leaf.ID == d.ID},
		{"endpoint", leaf.Endpoint == waybill.VersionRef{Name: d.Endpoint, Version: d.Revision}.String()},
		{"model", answered == model},
		{"time", leaf.DecidedAt == FormatTime(d.DecidedAt)},
		{"action", leaf.Action == d.Action},
		{"score", sameScore},
		{"fallback", leaf.Fallback == d.Fallback},
		{"gates", slices.Equal(leaf.Gates, d.Gates)},
		{"payload", leaf.Payload == payloadDigest(d.Payload)},
	} {
		if !f.same {
			return waybill.Errorf(waybill.Corrupt, "the record of decision %s is not what entry %d of the log says: its %s was changed", d.ID, d.Seq, f.what)
		}
	}
	return nil
}

// Query filters a search; what is zero does not filter.
type Query struct {
	Endpoint     string
	BusinessKey  string
	Model        string
	ModelVersion int
	Action       string
	Gate         string
	FallbackOnly bool
	From, To     time.Time
	PageSize     int // 1 to 1,000; defaults to 50
	PageToken    string
}

// Minute counts the decisions of one minute.
type Minute struct {
	Start     time.Time
	Decisions int64
	Fallbacks int64
}

const (
	selectDecision pg.SQL = `
SELECT d.decision_id, d.seq, d.request_digest, d.business_key, d.endpoint, d.revision, d.model, d.model_version, d.decided_at,
       d.action, d.score, d.fallback, d.gates, d.payload, d.log_id, e.leaf
FROM audit.decision d JOIN audit.entry e ON e.log_id = d.log_id AND e.seq = d.seq WHERE d.tenant = $1 AND d.decision_id = $2`
	// The plan is one pass over the entries with a look-up each. A subject that is no decision's finds no row.
	selectRecords pg.SQL = `
SELECT e.seq, e.type, e.tenant, e.subject, e.leaf, d.decision_id, coalesce(d.endpoint, ''), coalesce(d.revision, 0), coalesce(d.model, ''),
       coalesce(d.model_version, 0), coalesce(d.decided_at, 'epoch'), coalesce(d.action, ''), d.score, coalesce(d.fallback, ''), coalesce(d.gates, '{}'),
       coalesce(d.payload, ''::bytea)
FROM audit.entry e
LEFT JOIN audit.decision d ON d.tenant = e.tenant AND d.log_id = e.log_id AND d.seq = e.seq
     AND d.decision_id = CASE WHEN e.subject ~ '^decision:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN substr(e.subject, 10)::uuid END
WHERE e.log_id = $1 AND e.seq >= $2 AND e.seq < $3 ORDER BY e.seq`
	searchDecisions pg.SQL = `
SELECT decision_id, seq, business_key, endpoint, revision, model, model_version, decided_at, action, score, fallback, gates
FROM audit.decision
WHERE tenant = $1 AND ($2 = '' OR endpoint = $2) AND ($3 = '' OR business_key = $3) AND ($4 = '' OR model = $4)
  AND ($5 = 0 OR model_version = $5) AND ($6 = '' OR action = $6) AND ($7 = '' OR $7 = ANY (gates)) AND (NOT $8 OR fallback <> '')
  AND ($9::timestamptz IS NULL OR decided_at >= $9) AND ($10::timestamptz IS NULL OR decided_at < $10)
  AND ($11::timestamptz IS NULL OR (decided_at, decision_id) < ($11, $12::uuid))
ORDER BY decided_at DESC, decision_id DESC LIMIT $13`
	selectEntries pg.SQL = `
SELECT seq, type, recorded_at, leaf, leaf_hash FROM audit.entry WHERE log_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`
	listEntries pg.SQL = `
SELECT seq, type, recorded_at, leaf, leaf_hash FROM audit.entry
WHERE log_id = $1 AND tenant = $2 AND ($3 = '' OR type = $3) AND seq < $4 ORDER BY seq DESC LIMIT $5`
	selectTile   pg.SQL = `SELECT hashes FROM audit.tile WHERE log_id = $1 AND level = $2 AND idx = $3`
	countMinutes pg.SQL = `
SELECT date_trunc('minute', decided_at), count(*), count(*) FILTER (WHERE fallback <> '') FROM audit.decision
WHERE tenant = $1 AND decided_at >= $2 AND decided_at < $3 GROUP BY 1 ORDER BY 1`
	selectRoot pg.SQL = `SELECT size, root FROM audit.log WHERE log_id = $1`
)

// FindDecision returns one decision of a tenant with payload and leaf; NotFound when there is none, Corrupt when row or
// payload are not what the leaf says.
func (l *Log) FindDecision(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (DecisionRow, error) {
	var d DecisionRow
	var digest []byte
	err := l.pool.QueryRow(ctx, string(selectDecision), tenant, id).Scan(&d.ID, &d.Seq, &digest, &d.BusinessKey, &d.Endpoint, &d.Revision,
		&d.Model, &d.ModelVersion, &d.DecidedAt, &d.Action, &d.Score, &d.Fallback, &d.Gates, &d.Payload, &d.LogID, &d.Leaf)
	if errors.Is(err, pgx.ErrNoRows) {
		return d, waybill.Errorf(waybill.NotFound, "there is no decision %s; search by order with GET /v1/decisions?business_key=…", id)
	}
	if err != nil {
		return d, fmt.Errorf("select decision: %w", err)
	}
	copy(d.RequestDigest[:], digest)
	d.DecidedAt = d.DecidedAt.UTC()
	return d, d.check(tenant)
}

// Search returns a page of decisions, newest first, and the token of the next page ("" at the end). A page is stable
// under writes: new decisions appear before the first page, never inside.
func (l *Log) Search(ctx context.Context, tenant waybill.Tenant, q Query) ([]DecisionRow, string, error) {
	size := pageSize(q.PageSize)
	var at *time.Time
	var id waybill.ID
	if q.PageToken != "" {
		t, i, err := parseToken(q.PageToken)
		if err != nil {
			return nil, "", err
		}
		at, id = &t, i
	}
	rows, err := l.pool.Query(ctx, string(searchDecisions), tenant, q.Endpoint, q.BusinessKey, q.Model, q.ModelVersion, q.Action, q.Gate,
		q.FallbackOnly, nullTime(q.From), nullTime(q.To), at, id, size+1)
	if err != nil {
		return nil, "", fmt.Errorf("search decisions: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (DecisionRow, error) {
		var d DecisionRow
		err := r.Scan(&d.ID, &d.Seq, &d.BusinessKey, &d.Endpoint, &d.Revision, &d.Model, &d.ModelVersion, &d.DecidedAt, &d.Action, &d.Score, &d.Fallback, &d.Gates)
		d.DecidedAt = d.DecidedAt.UTC()
		return d, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("read decisions: %w", err)
	}
	if len(out) <= size {
		return out, "", nil
	}
	last := out[size-1]
	token := strconv.FormatInt(last.DecidedAt.UnixMicro(), 36) + "." + last.ID.String()
	return out[:size], token, nil
}

func pageSize(n int) int {
	if n <= 0 {
		return 50
	}
	return min(n, 1000)
}

// maxMicros is the year 2200: what lies beyond is no time of a decision, and may be none of Postgres.
const maxMicros = 7258118400 * 1_000_000

func parseToken(s string) (time.Time, waybill.ID, error) {
	at, rest, found := strings.Cut(s, ".")
	us, err := strconv.ParseInt(at, 36, 64)
	id, idErr := waybill.ParseID("page_token", rest)
	if !found || err != nil || idErr != nil || us < 0 || us > maxMicros {
		return time.Time{}, id, waybill.InvalidField("page_token", "is not one that a page gave; leave it out to begin at the first page")
	}
	return time.UnixMicro(us).UTC(), id, nil
}

func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Activity counts decisions per minute; minutes without any are left out.
func (l *Log) Activity(ctx context.Context, tenant waybill.Tenant, from, to time.Time) ([]Minute, error) {
	rows, err := l.pool.Query(ctx, string(countMinutes), tenant, from, to)
	if err != nil {
		return nil, fmt.Errorf("count decisions: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Minute])
	if err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	return out, nil
}

// Entries returns a page of a tenant's leaves, newest first, optionally of one type.
func (l *Log) Entries(ctx context.Context, tenant waybill.Tenant, kind string, size int, token string) ([]Entry, string, error) {
	size = pageSize(size)
	before := int64(1) << 62
	if token != "" {
		n, err := strconv.ParseInt(token, 36, 64)
		if err != nil || n < 0 {
			return nil, "", waybill.InvalidField("page_token", "is not one that a page gave; leave it out to begin at the first page")
		}
		before = n
	}
	rows, err := l.pool.Query(ctx, string(listEntries), l.cfg.LogID, tenant, kind, before, size+1)
	if err != nil {
		return nil, "", fmt.Errorf("list entries: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	if err != nil {
		return nil, "", fmt.Errorf("read entries: %w", err)
	}
	if len(out) <= size {
		return out, "", nil
	}
	return out[:size], strconv.FormatInt(out[size-1].Seq, 36), nil
}

// Checkpoint returns a signed checkpoint of what the database holds, at most a second old. It is stored before it is
// handed out, so that a database that later holds less is found out (Open).
func (l *Log) Checkpoint(ctx context.Context) (text string, size int64, root []byte, published time.Time, err error) {
	l.sign.Lock()
	defer l.sign.Unlock()
	now := l.cfg.Clock()
	if last := l.last.Load(); last != nil && now.Sub(last.published) < time.Second {
		return last.note, last.size, last.root, last.published, nil
	}
	c := &signed{published: now}
	if err := l.pool.QueryRow(ctx, string(selectRoot), l.cfg.LogID).Scan(&c.size, &c.root); err != nil {
		return "", 0, nil, now, fmt.Errorf("select root: %w", err)
	}
	if c.note, err = l.signNote(c.size, c.root); err != nil {
		return "", 0, nil, now, err
	}
	if last := l.last.Load(); last != nil && last.size > c.size {
		return "", 0, nil, now, waybill.Errorf(waybill.Corrupt, "the database has %d entries, but a checkpoint over %d was signed", c.size, last.size)
	}
	if _, err := l.pool.Exec(ctx, string(insertCheckpoint), l.cfg.LogID, c.size, c.note, c.published); err != nil {
		return "", 0, nil, now, fmt.Errorf("insert checkpoint: %w", err)
	}
	l.last.Store(c)
	return c.note, c.size, c.root, c.published, nil
}

// Tile returns the first width hashes (1 to 256) of a tile.
func (l *Log) Tile(ctx context.Context, level int, index int64, width int) ([]byte, error) {
	var hashes []byte
	err := l.pool.QueryRow(ctx, string(selectTile), l.cfg.LogID, level, index).Scan(&hashes)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && len(hashes) < width*32 {
		return nil, waybill.Errorf(waybill.NotFound, "there is no tile %d/%d of %d hashes", level, index, width)
	}
	if err != nil {
		return nil, fmt.Errorf("select tile: %w", err)
	}
	return hashes[:width*32], nil
}

// Bundle returns the first width entries of an entry bundle, each behind its length as two bytes, big endian.
func (l *Log) Bundle(ctx context.Context, index int64, width int) ([]byte, error) {
	rows, err := l.pool.Query(ctx, string(selectEntries), l.cfg.LogID, index*tileWidth, index*tileWidth+int64(width))
	if err != nil {
		return nil, fmt.Errorf("select entries: %w", err)
	}
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	if len(entries) != width {
		return nil, waybill.Errorf(waybill.NotFound, "there is no bundle %d of %d entries", index, width)
	}
	var out []byte
	for _, e := range entries {
		out = binary.BigEndian.AppendUint16(out, uint16(len(e.Leaf)))
		out = append(out, e.Leaf...)
	}
	return out, nil
}

// Proof is an inclusion proof with the checkpoint that signs its root.
type Proof struct {
	Index      int64
	Leaf       []byte
	LeafHash   [32]byte
	Path       [][]byte
	Size       int64
	Root       []byte
	Checkpoint string
	Payload    []byte // the record beside the log; its digest is in the leaf
}

// DecisionProof proves that a decision is in the log as it stands now.
func (l *Log) DecisionProof(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (Proof, error) {
	d, err := l.FindDecision(ctx, tenant, id)
	if err != nil {
		return Proof{}, err
	}
	if d.LogID != l.cfg.LogID {
		return Proof{}, waybill.Errorf(waybill.Conflict, "decision %s is in log %d of another node; ask that node for the proof", id, d.LogID)
	}
	p := Proof{Index: d.Seq, Leaf: d.Leaf, LeafHash: LeafHash(d.Leaf), Payload: d.Payload}
	if p.Checkpoint, p.Size, p.Root, _, err = l.Checkpoint(ctx); err != nil {
		return Proof{}, err
	}
	if p.Index >= p.Size { // the checkpoint in memory is older than the decision
		l.sign.Lock()
		l.last.Store(nil)
		l.sign.Unlock()
		if p.Checkpoint, p.Size, p.Root, _, err = l.Checkpoint(ctx); err != nil {
			return Proof{}, err
		}
	}
	p.Path, err = pathIn(p.Index, p.Size, l.node(ctx))
	return p, err
}

// checkSpan is how many entries CheckRecords asks for at once.
const checkSpan = 1024

// CheckRecords compares what lies beside the log, the columns of every entry and the row and the payload of every
// decision, with the leaves of the first size entries. It is for a log that Verify found whole: a leaf proves its record,
// not the other way round.
func (l *Log) CheckRecords(ctx context.Context, size int64) (Finding, error) {
	f := Finding{OK: true, FirstBad: -1, Entries: size, What: fmt.Sprintf("%d entries, every hash, tile and the signed root agree, and so does every decision's record", size)}
	for from := int64(0); from < size; from += checkSpan {
		rows, err := l.pool.Query(ctx, string(selectRecords), l.cfg.LogID, from, min(from+checkSpan, size))
		if err != nil {
			return f, fmt.Errorf("select records: %w", err)
		}
		var d DecisionRow
		var kind, subject string
		var tenant waybill.Tenant
		var id *waybill.ID
		wrong := errors.New("found")
		next := from
		_, err = pgx.ForEachRow(rows, []any{&d.Seq, &kind, &tenant, &subject, &d.Leaf, &id, &d.Endpoint, &d.Revision, &d.Model, &d.ModelVersion, &d.DecidedAt,
			&d.Action, &d.Score, &d.Fallback, &d.Gates, &d.Payload}, func() error {
			next++
			var leaf struct {
				T       string         `json:"t"`
				Tenant  waybill.Tenant `json:"tenant"`
				ID      string         `json:"id"`
				Subject string         `json:"subject"`
			}
			if err := json.Unmarshal(d.Leaf, &leaf); err != nil {
				f = bad(d.Seq, d.Seq, "entry %d cannot be read: %s", d.Seq, err)
				return wrong
			}
			if leaf.T == "decision" {
				leaf.Subject = "decision:" + leaf.ID
			}
			switch {
			case leaf.T != kind || leaf.Tenant != tenant || leaf.Subject != subject:
				f = bad(d.Seq, d.Seq, "what entry %d is found by is not what it says: its type, tenant or subject was changed", d.Seq)
				return wrong
			case leaf.T != "decision":
				return nil
			case id == nil:
				f = bad(d.Seq, d.Seq, "the record of entry %d, a decision, is gone", d.Seq)
				return wrong
			}
			d.ID = *id
			if err := d.check(tenant); err != nil {
				f = bad(d.Seq, d.Seq, "%s", err)
				return wrong
			}
			return nil
		})
		if errors.Is(err, wrong) {
			return f, nil
		}
		if err != nil {
			return f, fmt.Errorf("read records: %w", err)
		}
		if next != min(from+checkSpan, size) {
			return bad(next, -1, "entries %d to %d hold %d rows", from, min(from+checkSpan, size)-1, next-from), nil
		}
	}
	return f, nil
}

// prove fills a receipt from the tiles.
func (l *Log) prove(ctx context.Context, r *Receipt) error {
	rows, err := l.pool.Query(ctx, string(selectEntries), l.cfg.LogID, r.Index, r.Index+1)
	if err != nil {
		return fmt.Errorf("select entry: %w", err)
	}
	e, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Entry])
	if err != nil {
		return fmt.Errorf("read entry: %w", err)
	}
	r.LeafHash = LeafHash(e.Leaf)
	var leaf DecisionLeaf
	if err := json.Unmarshal(e.Leaf, &leaf); err != nil || leaf.Payload != payloadDigest(r.Payload) {
		return waybill.Errorf(waybill.Corrupt, "the record of the decision is not what entry %d of the log says: it was changed", r.Index)
	}
	var root []byte
	if err := l.pool.QueryRow(ctx, string(selectRoot), l.cfg.LogID).Scan(&r.Size, &root); err != nil {
		return fmt.Errorf("select root: %w", err)
	}
	if r.Checkpoint, err = l.signNote(r.Size, root); err != nil {
		return err
	}
	r.Path, err = pathIn(r.Index, r.Size, l.node(ctx))
	return err
}

// node returns a function that computes a node's hash from the tile that covers it.
func (l *Log) node(ctx context.Context) func(compact.NodeID) ([]byte, error) {
	return func(id compact.NodeID) ([]byte, error) {
		level, within := id.Level/8, id.Level%8
		first := id.Index << within // in hashes of the tile's row
		count := uint64(1) << within
		var tile []byte
		if err := l.pool.QueryRow(ctx, string(selectTile), l.cfg.LogID, int(level), int64(first/tileWidth)).Scan(&tile); err != nil {
			return nil, fmt.Errorf("select tile: %w", err)
		}
		from := int(first%tileWidth) * 32
		to := from + int(count)*32
		if to > len(tile) {
			return nil, waybill.Errorf(waybill.Corrupt, "tile %d/%d of the log is too short", level, first/tileWidth)
		}
		return fold(tile[from:to]), nil
	}
}

// fold hashes a power of two of hashes up to one.
func fold(hashes []byte) []byte {
	if len(hashes) == 32 {
		return hashes
	}
	half := len(hashes) / 2
	return nodeHash(fold(hashes[:half]), fold(hashes[half:]))
}

// ConsistencyProof proves that the tree of size to begins with the tree of size from, which must not be empty.
func (l *Log) ConsistencyProof(ctx context.Context, from, to int64) ([][]byte, error) {
	if from < 1 || to < from {
		return nil, waybill.InvalidField("from", "must lie in 1 to the newer size: an empty tree proves nothing")
	}
	nodes, err := proof.Consistency(uint64(from), uint64(to))
	if err != nil {
		return nil, waybill.InvalidField("from", err.Error())
	}
	return collect(nodes, l.node(ctx))
}

// TlogProof writes a proof as a c2sp.org/tlog-proof@v1 file.
func (p Proof) TlogProof() string {
	return evidence.Proof{Index: p.Index, Path: p.Path, Checkpoint: p.Checkpoint}.String()
}

// VerifyReceipt checks offline that a leaf is in the tree that the receipt's checkpoint signs.
func VerifyReceipt(verifierKey string, leaf []byte, r Receipt) error {
	c, err := OpenCheckpoint(verifierKey, []byte(r.Checkpoint))
	if err != nil {
		return err
	}
	if c.Size != r.Size {
		return waybill.Errorf(waybill.Corrupt, "the receipt speaks of %d entries and its checkpoint of %d", r.Size, c.Size)
	}
	return evidence.CheckInclusion(c, r.Index, LeafHash(leaf), r.Path)
}

// Handler serves the log as c2sp.org/tlog-tiles describes, below whatever prefix it is mounted with. Full tiles never
// change and may be cached for ever; the checkpoint may not be cached.
func (l *Log) Handler() http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, err error) {
		switch waybill.CodeOf(err) {
		case waybill.NotFound, waybill.Invalid:
			http.Error(w, "not found", http.StatusNotFound)
		default:
			l.logger.Error("log not served", "error", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
	}
	mux.HandleFunc("GET /checkpoint", func(w http.ResponseWriter, r *http.Request) {
		text, _, _, _, err := l.Checkpoint(r.Context())
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		write(w, []byte(text))
	})
	mux.HandleFunc("GET /tile/{path...}", func(w http.ResponseWriter, r *http.Request) {
		level, index, width, err := parseTilePath(r.PathValue("path"))
		if err != nil {
			fail(w, err)
			return
		}
		var data []byte
		if level < 0 {
			data, err = l.Bundle(r.Context(), index, width)
		} else {
			data, err = l.Tile(r.Context(), level, index, width)
		}
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
		write(w, data)
	})
	return mux
}

func write(w http.ResponseWriter, b []byte) {
	if _, err := w.Write(b); err != nil {
		return // the client is gone; there is nobody to tell
	}
}

// tilePath is the path of a tile (level ≥ 0) or of an entry bundle (level −1); width 256 is a full one.
func tilePath(level int, index int64, width int) string {
	kind := "entries"
	if level >= 0 {
		kind = strconv.Itoa(level)
	}
	groups := []string{fmt.Sprintf("%03d", index%1000)}
	for n := index / 1000; n > 0; n /= 1000 {
		groups = append(groups, fmt.Sprintf("x%03d", n%1000))
	}
	slices.Reverse(groups)
	p := "tile/" + kind + "/" + strings.Join(groups, "/")
	if width < tileWidth {
		p += ".p/" + strconv.Itoa(width)
	}
	return p
}

// parseTilePath reads what tilePath writes, less "tile/". Only the one spelling of each tile is accepted.
func parseTilePath(s string) (level int, index int64, width int, err error) {
	bad := waybill.Errorf(waybill.NotFound, "there is no such tile")
	kind, rest, found := strings.Cut(s, "/")
	if !found || len(s) > 100 {
		return 0, 0, 0, bad
	}
	level = -1
	if kind != "entries" {
		if level, err = strconv.Atoi(kind); err != nil || level < 0 || level > 63 {
			return 0, 0, 0, bad
		}
	}
	width = tileWidth
	if head, tail, partial := strings.Cut(rest, ".p/"); partial {
		if width, err = strconv.Atoi(tail); err != nil || width < 1 || width >= tileWidth {
			return 0, 0, 0, bad
		}
		rest = head
	}
	for _, group := range strings.Split(rest, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(group, "x"), 10, 16)
		if err != nil || n > 999 || index > 1<<40 {
			return 0, 0, 0, bad
		}
		index = index*1000 + int64(n)
	}
	if tilePath(level, index, width) != "tile/"+s {
		return 0, 0, 0, bad
	}
	return level, index, width, nil
}
