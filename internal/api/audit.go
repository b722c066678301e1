package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"sync"
	"time"

	"waybill"
	"waybill/audit"
	auditv1 "waybill/proto/waybill/audit/v1"
)

// verifyWithin bounds a verification on the hub; `waybill log verify` has no such bound.
const verifyWithin = 60 * time.Second

// logs serves AuditService.
type logs struct {
	auditv1.UnimplementedAuditServiceServer
	log       *audit.Log
	features  *features
	verifying *sync.Mutex // held while the log is verified, which reads all of it
}

// GetLog returns size, root and checkpoint.
func (s *logs) GetLog(ctx context.Context, _ *auditv1.GetLogRequest) (*auditv1.GetLogResponse, error) {
	text, size, root, at, err := s.log.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	return &auditv1.GetLogResponse{Origin: s.log.Origin(), LogId: int32(s.log.LogID()), Size: size, Root: base64.StdEncoding.EncodeToString(root),
		Checkpoint: text, VerifierKey: s.log.VerifierKey(), PublishedAt: stamp(at)}, nil
}

// ListEntries lists the caller's tenant's leaves, newest first.
func (s *logs) ListEntries(ctx context.Context, req *auditv1.ListEntriesRequest) (*auditv1.ListEntriesResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list, next, err := s.log.Entries(ctx, callerOf(ctx).actor.Tenant, req.GetType(), n, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &auditv1.ListEntriesResponse{NextPageToken: next}
	for _, e := range list {
		out.Entries = append(out.Entries, &auditv1.Entry{Index: e.Seq, Type: e.Type, RecordedAt: stamp(e.RecordedAt), Leaf: string(e.Leaf),
			LeafHash: base64.StdEncoding.EncodeToString(e.LeafHash)})
	}
	return out, nil
}

// GetDecisionProof proves that a decision is in the log. Its record is left out for callers who may not see all of it: the
// digest in the leaf is of the whole.
func (s *logs) GetDecisionProof(ctx context.Context, req *auditv1.GetDecisionProofRequest) (*auditv1.GetDecisionProofResponse, error) {
	id, err := waybill.ParseID("decision_id", req.GetDecisionId())
	if err != nil {
		return nil, err
	}
	p, err := s.log.DecisionProof(ctx, callerOf(ctx).actor.Tenant, id)
	if err != nil {
		return nil, err
	}
	var leaf audit.DecisionLeaf
	if err := json.Unmarshal(p.Leaf, &leaf); err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision cannot be read")
	}
	hidden, err := s.features.hidden(ctx, leaf.Service)
	if err != nil {
		return nil, err
	}
	if len(hidden) > 0 {
		p.Payload = nil
	}
	out := &auditv1.GetDecisionProofResponse{Index: p.Index, Leaf: string(p.Leaf), LeafHash: base64.StdEncoding.EncodeToString(p.LeafHash[:]), Size: p.Size,
		Root: base64.StdEncoding.EncodeToString(p.Root), Checkpoint: p.Checkpoint, VerifierKey: s.log.VerifierKey(), TlogProof: p.TlogProof(), Payload: string(p.Payload)}
	for _, h := range p.Path {
		out.Path = append(out.Path, base64.StdEncoding.EncodeToString(h))
	}
	return out, nil
}

// VerifyLog re-hashes the log, for one caller at a time.
func (s *logs) VerifyLog(ctx context.Context, _ *auditv1.VerifyLogRequest) (*auditv1.VerifyLogResponse, error) {
	if !s.verifying.TryLock() {
		return nil, waybill.Errorf(waybill.Unavailable, "one verification of the log is running; try again when it has ended")
	}
	defer s.verifying.Unlock()
	ctx, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	start := time.Now()
	f, err := audit.Verify(ctx, s.log, s.log.VerifierKey(), nil)
	if err == nil && f.OK {
		f, err = s.log.CheckRecords(ctx, f.Entries)
	}
	if err != nil {
		return nil, err
	}
	return &auditv1.VerifyLogResponse{Ok: f.OK, Entries: f.Entries, FirstBadIndex: f.FirstBad, Finding: f.What, Seconds: time.Since(start).Seconds()}, nil
}
