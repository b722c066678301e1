package audit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit/evidence"
	"waybill/internal/pg"
)

// maxLeaf bounds a leaf in bytes. The format allows 65,535; beyond about 1.5 KB Postgres moves rows out of line.
const maxLeaf = 16 << 10

// timeFormat is RFC 3339 in UTC with microseconds, always six digits.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// DecisionLeaf is what the log says of a decision. JSON in this field order; hashes are "sha256:<hex>".
type DecisionLeaf struct {
	V          int              `json:"v"` // 1
	T          string           `json:"t"` // "decision"
	Tenant     waybill.Tenant   `json:"tenant"`
	ID         waybill.ID       `json:"id"`
	Producer   string           `json:"producer"`   // node and epoch; set by the sequencer
	PSeq       int64            `json:"pseq"`       // 1, 2, 3 … without gaps per producer; set by the sequencer
	DecidedAt  string           `json:"decided_at"` // set by Append, like endpoint and payload
	Actor      string           `json:"actor"`
	Endpoint   string           `json:"endpoint"` // "name@v3": the revision
	Model      LeafModel        `json:"model"`
	PolicyRev  int64            `json:"policy_rev"`
	Service    string           `json:"service"`  // "name@v1"
	Features   map[string]int64 `json:"features"` // view version → newest commit used; keys sorted
	Payload    string           `json:"payload"`  // digest of the payload kept beside the log
	Action     string           `json:"action"`
	Score      *float64         `json:"score"`
	Propensity float64          `json:"propensity"` // 1 for a deterministic policy
	Gates      []string         `json:"gates"`      // that did not allow
	Fallback   string           `json:"fallback"`   // why the rules answered, or ""
}

// LeafModel names the exact bytes that answered and the consent behind them.
type LeafModel struct {
	Ref      string `json:"ref"`
	Digest   string `json:"digest"`
	Approval string `json:"approval"` // id
}

// Event is a change that the log must show: a model was approved, a policy edited, a view published.
type Event struct {
	Type    string // e.g. "view.version", "model.version", "approval", "policy.change"
	Tenant  waybill.Tenant
	Actor   string
	At      time.Time
	Subject string // lineage node, e.g. "model:late-risk@v1"
	Digest  string // "sha256:…" of what it is about, or ""
	Detail  any    // small JSON object, at most 8 KiB
}

// eventLeaf is the stored form of an Event.
type eventLeaf struct {
	V       int             `json:"v"`
	T       string          `json:"t"`
	Tenant  string          `json:"tenant"`
	At      string          `json:"at"`
	Actor   string          `json:"actor"`
	Subject string          `json:"subject"`
	Digest  string          `json:"digest"`
	Detail  json.RawMessage `json:"detail"`
}

const (
	insertOutbox pg.SQL = `
INSERT INTO audit.outbox (type, tenant, actor, at, subject, digest, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)`
	notifyOutbox pg.SQL = `SELECT pg_notify('outbox', '')`
)

// Enqueue puts an event into the outbox in the caller's transaction: when that commits the event will be in the log,
// when it rolls back there never was one.
func Enqueue(ctx context.Context, tx pgx.Tx, e Event) error {
	detail, err := json.Marshal(e.Detail)
	if err != nil {
		return fmt.Errorf("marshal event detail: %w", err)
	}
	if e.Detail == nil {
		detail = []byte("{}")
	}
	if len(detail) > 8<<10 || len(e.Subject) > 600 || e.Type == "" || e.Tenant == "" {
		return waybill.Errorf(waybill.TooLarge, "the audit event %s about %.80s is too large or lacks type or tenant", e.Type, e.Subject)
	}
	if _, err := tx.Exec(ctx, string(insertOutbox), e.Type, e.Tenant, e.Actor, e.At.UTC(), e.Subject, e.Digest, detail); err != nil {
		return fmt.Errorf("insert audit event: %w", err)
	}
	if _, err := tx.Exec(ctx, string(notifyOutbox)); err != nil {
		return fmt.Errorf("notify sequencer: %w", err)
	}
	return nil
}

// LeafHash is RFC 6962's: SHA-256 of 0x00 and the leaf.
func LeafHash(leaf []byte) [32]byte { return evidence.LeafHash(leaf) }

// nodeHash is RFC 6962's: SHA-256 of 0x01, left and right.
func nodeHash(left, right []byte) []byte {
	h := sha256.New()
	h.Write([]byte{1})
	h.Write(left)
	h.Write(right)
	return h.Sum(nil)
}

// FormatTime writes a time as leaves do.
func FormatTime(t time.Time) string { return t.UTC().Format(timeFormat) }
