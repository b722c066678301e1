package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"

	"waybill"
	"waybill/audit/evidence"
	"waybill/internal/pg"
)

// Bounds of an evidence bundle.
const (
	maxPointed   = 64  // entries of one subject: the steps of a model version, its verdicts, the outcomes of a decision
	maxRevisions = 256 // how far back the policy's last change is looked for
)

const (
	selectPointed pg.SQL = `
SELECT seq, leaf FROM audit.entry
WHERE log_id = $1 AND tenant = $2 AND subject = $3 AND type = $4 AND type <> 'decision' AND seq < $5 ORDER BY seq LIMIT $6`
	selectLatest pg.SQL = `
SELECT seq, leaf FROM audit.entry
WHERE log_id = $1 AND tenant = $2 AND subject = $3 AND type = $4 AND type <> 'decision' AND seq < $5 ORDER BY seq DESC LIMIT $6`
	selectPolicy pg.SQL = `
SELECT seq, leaf FROM audit.entry
WHERE log_id = $1 AND tenant = $2 AND subject = ANY ($3) AND type = 'policy.change' AND seq < $4`
)

// EvidenceQuery names a decision and says what of its surroundings the reader may see.
type EvidenceQuery struct {
	Tenant  waybill.Tenant
	ID      waybill.ID
	May     func(subject string) bool // of an entry, e.g. "model:late-risk@v1"; nil for all
	Reasons map[string]string         // approval id → its reason, of which the log holds the digest only

	WithoutPayload string // why the reader may not see the payload; "" when he may
}

// Evidence is a bundle in memory, as package evidence reads it.
type Evidence struct {
	Members map[string][]byte
	At      time.Time // of the decision
	ID      waybill.ID
}

// FileName is what the bundle is called when it is saved.
func (e *Evidence) FileName() string { return "evidence-" + e.ID.String() + ".zip" }

// Write writes the bundle as a zip file. The same decision under the same checkpoint is the same bytes.
func (e *Evidence) Write(w io.Writer) error { return evidence.Write(w, e.Members, e.At) }

// Evidence gathers what proves a decision and what it rests on: its leaf and payload, the leaves it points to, a proof
// for each up to one checkpoint, and a report for people; all under a manifest that the log's key signs. What cannot be
// put in is listed with the reason. Errors: those of DecisionProof.
func (l *Log) Evidence(ctx context.Context, q EvidenceQuery) (*Evidence, error) {
	p, err := l.DecisionProof(ctx, q.Tenant, q.ID)
	if err != nil {
		return nil, err
	}
	g := &gathering{log: l, query: q, proof: p, members: map[string][]byte{}, leaves: map[int64][]byte{}, known: map[compact.NodeID][]byte{},
		index: evidence.Index{V: 1, T: "evidence", Origin: l.cfg.Origin, Tenant: string(q.Tenant), Decision: q.ID.String(), Size: p.Size, Entries: []evidence.Entry{}, Missing: []evidence.Missing{}}}
	if err := g.gather(ctx); err != nil {
		return nil, err
	}
	return g.finish()
}

// gathering is a bundle in the making.
type gathering struct {
	log     *Log
	query   EvidenceQuery
	proof   Proof
	index   evidence.Index
	members map[string][]byte
	leaves  map[int64][]byte
	known   map[compact.NodeID][]byte // nodes of the tree that were read: the paths share most of them
}

// pointed is an entry that something points to.
type pointed struct {
	Seq  int64
	Leaf []byte
}

// gather follows the pointers of the decision's leaf.
func (g *gathering) gather(ctx context.Context) error {
	decision := g.proof.Leaf
	if err := g.add(ctx, evidence.RoleDecision, "decision:"+g.query.ID.String(), pointed{g.proof.Index, decision}); err != nil {
		return err
	}
	pointers, err := evidence.Pointers(decision)
	if err != nil {
		return err
	}
	for _, p := range pointers {
		if err := g.follow(ctx, p, decision); err != nil {
			return err
		}
	}
	outcomes, err := g.find(ctx, selectLatest, "decision:"+g.query.ID.String(), "outcome")
	if err != nil {
		return err
	}
	for _, e := range outcomes {
		if err := g.add(ctx, evidence.RoleOutcome, "decision:"+g.query.ID.String(), e); err != nil {
			return err
		}
	}
	return nil
}

// follow adds what one pointer leads to, or says why not.
func (g *gathering) follow(ctx context.Context, p evidence.Pointer, decision []byte) error {
	if g.query.May != nil && !g.query.May(p.Subject) {
		g.lacks(p, "the reader of this bundle may not see it")
		return nil
	}
	var found []pointed
	var err error
	switch p.Role {
	case evidence.RolePolicy:
		found, err = g.policy(ctx, p.Subject)
	case evidence.RoleModel:
		found, err = g.find(ctx, selectPointed, p.Subject, "model.version")
	case evidence.RoleApproval:
		return g.approvals(ctx, p, decision)
	case evidence.RoleEndpoint:
		found, err = g.first(ctx, p.Subject, "endpoint.revision")
	case evidence.RoleService:
		found, err = g.first(ctx, p.Subject, "service.version")
	case evidence.RoleView:
		found, err = g.first(ctx, p.Subject, "view.version")
	case evidence.RoleTrainingSet:
		found, err = g.first(ctx, p.Subject, "training.set")
	case evidence.RoleDecision, evidence.RoleVerdict, evidence.RoleOutcome: // nothing points to these
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		g.lacks(p, g.elsewhere())
	}
	for _, e := range found {
		subject := p.Subject
		if p.Role == evidence.RolePolicy {
			subject = subjectOf(e.Leaf)
		}
		if err := g.add(ctx, p.Role, subject, e); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere says why an entry may not be there.
func (g *gathering) elsewhere() string {
	return fmt.Sprintf("log %d has no entry of it; where several nodes write, it is in the log of the node that made it", g.log.cfg.LogID)
}

// approvals adds the verdicts on the version that answered, the one that was in force in its role, and what that one says
// the version was trained on.
func (g *gathering) approvals(ctx context.Context, p evidence.Pointer, decision []byte) error {
	found, err := g.find(ctx, selectPointed, p.Subject, "approval")
	if err != nil {
		return err
	}
	consent := false
	for _, e := range found {
		role := evidence.RoleVerdict
		if evidence.Approves(e.Leaf, decision) {
			role, consent = evidence.RoleApproval, true
		}
		if err := g.add(ctx, role, p.Subject, e); err != nil {
			return err
		}
		if set := evidence.TrainingSet(e.Leaf); role == evidence.RoleApproval && set != "" {
			if err := g.follow(ctx, evidence.Pointer{Role: evidence.RoleTrainingSet, Subject: set}, decision); err != nil {
				return err
			}
		}
	}
	if !consent {
		g.lacks(p, g.elsewhere())
	}
	return nil
}

func (g *gathering) lacks(p evidence.Pointer, why string) {
	g.index.Missing = append(g.index.Missing, evidence.Missing{Role: p.Role, Subject: p.Subject, Why: why})
}

func (g *gathering) find(ctx context.Context, sql pg.SQL, subject, kind string) ([]pointed, error) {
	return g.rows(ctx, sql, g.log.cfg.LogID, g.query.Tenant, subject, kind, g.proof.Size, maxPointed)
}

// first is the entry with which something came to be; later ones tell of its retirement.
func (g *gathering) first(ctx context.Context, subject, kind string) ([]pointed, error) {
	return g.rows(ctx, selectPointed, g.log.cfg.LogID, g.query.Tenant, subject, kind, g.proof.Size, 1)
}

// policy is the newest change of the tenant's policy at a revision or before. Revisions are the hub's: not each of them
// is a change of this tenant.
func (g *gathering) policy(ctx context.Context, subject string) ([]pointed, error) {
	rev, err := strconv.ParseInt(strings.TrimPrefix(subject, "policy:"), 10, 64)
	if err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision names no policy revision")
	}
	var subjects []string
	for n := rev; n > 0 && n > rev-maxRevisions; n-- {
		subjects = append(subjects, "policy:"+strconv.FormatInt(n, 10))
	}
	found, err := g.rows(ctx, selectPolicy, g.log.cfg.LogID, g.query.Tenant, subjects, g.proof.Size)
	if err != nil {
		return nil, err
	}
	for _, s := range subjects {
		var same []pointed
		for _, e := range found {
			if subjectOf(e.Leaf) == s {
				same = append(same, e)
			}
		}
		if len(same) > 0 {
			return same[:min(len(same), maxPointed)], nil
		}
	}
	return nil, nil
}

func (g *gathering) rows(ctx context.Context, sql pg.SQL, args ...any) ([]pointed, error) {
	rows, err := g.log.pool.Query(ctx, string(sql), args...)
	if err != nil {
		return nil, fmt.Errorf("select entries of a decision: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[pointed])
	if err != nil {
		return nil, fmt.Errorf("read entries of a decision: %w", err)
	}
	return out, nil
}

func subjectOf(leaf []byte) string {
	var e eventLeaf
	if json.Unmarshal(leaf, &e) != nil {
		return ""
	}
	return e.Subject
}

// add puts an entry in: leaf, proof, and the text behind a digest where it is known. An entry that is there stays as it is.
func (g *gathering) add(ctx context.Context, role evidence.Role, subject string, e pointed) error {
	if _, there := g.leaves[e.Seq]; there {
		return nil
	}
	if len(g.index.Entries) == evidence.MaxEntries {
		return waybill.Errorf(waybill.TooLarge, "the decision rests on more than %d entries; read them with /v1/log/entries", evidence.MaxEntries)
	}
	get := g.log.node(ctx)
	path, err := pathIn(e.Seq, g.proof.Size, func(id compact.NodeID) ([]byte, error) {
		if h, ok := g.known[id]; ok {
			return h, nil
		}
		h, err := get(id)
		if err == nil {
			g.known[id] = h
		}
		return h, err
	})
	if err != nil {
		return err
	}
	entry := evidence.Entry{Role: role, Subject: subject, Index: e.Seq}
	var leaf struct {
		Detail struct {
			ID     string `json:"approval_id"`
			Reason string `json:"reason_sha256"`
		} `json:"detail"`
	}
	if err := json.Unmarshal(e.Leaf, &leaf); err != nil {
		return waybill.Wrap(waybill.Corrupt, err, fmt.Sprintf("entry %d of the log cannot be read", e.Seq))
	}
	if reason, known := g.query.Reasons[leaf.Detail.ID]; known {
		if sum := sha256.Sum256([]byte(reason)); hex.EncodeToString(sum[:]) != leaf.Detail.Reason {
			return waybill.Errorf(waybill.Corrupt, "the reason of the approval %s is not what entry %d of the log says: it was changed", leaf.Detail.ID, e.Seq)
		}
		entry.Text = true
		g.members[evidence.TextFile(e.Seq)] = []byte(reason)
	}
	g.leaves[e.Seq] = e.Leaf
	g.members[evidence.LeafFile(e.Seq)] = e.Leaf
	g.members[evidence.ProofFile(e.Seq)] = []byte(evidence.Proof{Index: e.Seq, Path: path, Checkpoint: g.proof.Checkpoint}.String())
	g.index.Entries = append(g.index.Entries, entry)
	return nil
}

// finish writes what is about the whole bundle, signs the manifest and verifies the result: a bundle that would not hold
// elsewhere is not given out.
func (g *gathering) finish() (*Evidence, error) {
	var d DecisionLeaf
	if err := json.Unmarshal(g.proof.Leaf, &d); err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision cannot be read")
	}
	at, err := time.Parse(timeFormat, d.DecidedAt)
	if err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision has no time")
	}
	switch {
	case g.query.WithoutPayload != "":
		g.proof.Payload, g.index.PayloadMissing = nil, g.query.WithoutPayload
	case len(g.proof.Payload) > 0:
		g.members[evidence.PayloadFile] = g.proof.Payload
	default:
		g.index.PayloadMissing = "it is no longer kept; the proof of the decision holds without it"
	}
	index, err := json.MarshalIndent(g.index, "", " ")
	if err != nil {
		return nil, fmt.Errorf("marshal index of bundle: %w", err)
	}
	g.members[evidence.IndexFile] = append(index, '\n')
	g.members[evidence.CheckpointFile] = []byte(g.proof.Checkpoint)
	g.members[evidence.KeyFile] = []byte(g.log.verifier + "\n")
	if g.members[evidence.ReportFile], err = report(g, d); err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: evidence.Manifest(g.members)}, g.log.signer)
	if err != nil {
		return nil, fmt.Errorf("sign manifest of bundle: %w", err)
	}
	g.members[evidence.ManifestFile] = signed
	if _, err := evidence.Verify(g.members, g.log.verifier); err != nil {
		var e *waybill.Error
		if errors.As(err, &e) && e.Code == waybill.Invalid {
			return nil, fmt.Errorf("verify bundle: %w", err)
		}
		return nil, err
	}
	return &Evidence{Members: g.members, At: at, ID: g.query.ID}, nil
}
