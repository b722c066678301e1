package api

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/internal/access"
	"waybill/registry"
)

// Bounds of evidence: a bundle is made in memory, and reading its proofs is some hundred look-ups.
const (
	evidenceWithin = 30 * time.Second
	evidenceAtOnce = 4
)

// bundles serves GET /v1/decisions/{decision_id}/evidence: a zip file, which is why it is no rpc. It asks for what
// GetDecision and GetDecisionProof ask for, and leaves out the entries that ListEntries would leave out.
type bundles struct {
	server   *Server
	service  *decision.Service
	models   *registry.Store
	log      *audit.Log
	features *features
	making   chan struct{}
}

// ServeHTTP answers with the bundle, or with a problem.
func (b *bundles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), evidenceWithin)
	defer cancel()
	e, err := b.finished(ctx, r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": e.FileName()}))
	w.Header().Set("Cache-Control", "no-store")
	if err := e.Write(w); err != nil {
		return // the client is gone; what it has is cut off, and does not verify
	}
}

// finished makes the bundle between the same two ends as an rpc: counted, logged, and not the end of the hub when it panics.
func (b *bundles) finished(ctx context.Context, r *http.Request) (e *audit.Evidence, err error) {
	start := time.Now()
	defer func() { err = b.server.finish(ctx, "/waybill.audit/Evidence", start, recover(), err) }()
	return b.make(ctx, r)
}

// make checks who asks for what, and gathers it.
func (b *bundles) make(ctx context.Context, r *http.Request) (*audit.Evidence, error) {
	ctx, c, err := authenticate(metadata.NewIncomingContext(ctx, metadata.MD{"authorization": r.Header.Values("Authorization")}), b.server.access)
	if err != nil {
		return nil, err
	}
	text := r.PathValue("decision_id")
	err = errors.Join(b.server.access.Check(c.actor, c.grant, nameOf("decision", strings.ToLower(text)), access.Read), b.server.access.Check(c.actor, c.grant, "log", access.Read))
	if err != nil {
		return nil, err
	}
	id, err := waybill.ParseID("decision_id", text)
	if err != nil {
		return nil, err
	}
	if r.URL.RawQuery != "" {
		return nil, waybill.InvalidField("query", "is not part of this request; leave out what follows the question mark")
	}
	select {
	case b.making <- struct{}{}:
		defer func() { <-b.making }()
	default:
		return nil, waybill.Errorf(waybill.Exhausted, "%d bundles are being made; try again when they are done", evidenceAtOnce)
	}
	row, _, err := b.service.Recorded(ctx, c.actor.Tenant, id)
	if err != nil {
		return nil, err
	}
	may := func(subject string) bool {
		return !hasName(subject) || b.server.access.Allowed(c.actor, nodeResource(subject), access.Read)
	}
	var leaf audit.DecisionLeaf
	if err := json.Unmarshal(row.Leaf, &leaf); err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision cannot be read")
	}
	q := audit.EvidenceQuery{Tenant: c.actor.Tenant, ID: id, May: may}
	if q.Reasons, err = b.reasons(ctx, c.actor.Tenant, leaf.Model.Ref, may); err != nil {
		return nil, err
	}
	hidden, err := b.features.hidden(ctx, leaf.Service)
	if err != nil {
		return nil, err
	}
	if len(hidden) > 0 {
		q.WithoutPayload = "it tells secret values, and whoever made this bundle may not see them; the proof of the decision holds without it"
	}
	return b.log.Evidence(ctx, q)
}

// reasons are those of the verdicts on the version that answered: the log holds their digests.
func (b *bundles) reasons(ctx context.Context, tenant waybill.Tenant, model string, may func(string) bool) (map[string]string, error) {
	if model == "" || !may("model:"+model) {
		return map[string]string{}, nil
	}
	ref, err := waybill.ParseVersionRef("model", model)
	if err != nil {
		return nil, err
	}
	v, err := b.models.Get(ctx, tenant, ref)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, a := range v.Approvals {
		out[a.ID.String()] = a.Reason
	}
	return out, nil
}
