package api

import (
	"context"
	"encoding/base64"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/internal/access"
	decisionv1 "waybill/proto/waybill/decision/v1"
	"waybill/registry"
)

// decideWithin bounds a decision whose caller set no deadline.
const decideWithin = 10 * time.Second

// decisions serves DecisionService.
type decisions struct {
	decisionv1.UnimplementedDecisionServiceServer
	access   *access.Access
	service  *decision.Service
	models   *registry.Store
	log      *audit.Log
	features *features
}

// Decide answers an endpoint's request.
func (d *decisions) Decide(ctx context.Context, req *decisionv1.DecideRequest) (*decisionv1.DecideResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, decideWithin)
	defer cancel()
	key := req.GetIdempotencyKey()
	if md, ok := metadata.FromIncomingContext(ctx); ok && key == "" {
		if v := md.Get("idempotency-key"); len(v) > 0 {
			key = v[0]
		}
	}
	a, err := d.service.Decide(ctx, callerOf(ctx).actor, decision.Request{Endpoint: req.GetEndpoint(), Body: req.GetRequest().AsMap(), IdempotencyKey: key, PolicyRev: d.access.Rev()})
	if err != nil {
		return nil, err
	}
	path := make([]any, len(a.Receipt.Path))
	for i, h := range a.Receipt.Path {
		path[i] = base64.StdEncoding.EncodeToString(h)
	}
	body := make(map[string]any, len(a.Body)+1)
	for k, v := range a.Body {
		body[k] = v
	}
	body["receipt"] = map[string]any{"log": a.Receipt.Origin, "index": float64(a.Receipt.Index), "size": float64(a.Receipt.Size),
		"leaf_hash": base64.StdEncoding.EncodeToString(a.Receipt.LeafHash[:]), "path": path, "checkpoint": a.Receipt.Checkpoint}
	answer, err := structpb.NewStruct(body)
	if err != nil {
		return nil, err
	}
	return &decisionv1.DecideResponse{Answer: answer}, nil
}

// PublishEndpoint publishes a revision.
func (d *decisions) PublishEndpoint(ctx context.Context, req *decisionv1.PublishEndpointRequest) (*decisionv1.PublishEndpointResponse, error) {
	e, changed, err := d.service.Publish(ctx, callerOf(ctx).actor, []byte(req.GetYaml()), req.GetReason())
	if err != nil {
		return nil, err
	}
	return &decisionv1.PublishEndpointResponse{Endpoint: endpointOut(e), Changed: changed}, nil
}

// ListEndpoints lists by name; the page token is the last name.
func (d *decisions) ListEndpoints(ctx context.Context, req *decisionv1.ListEndpointsRequest) (*decisionv1.ListEndpointsResponse, error) {
	size := int(req.GetPageSize())
	if size < 1 || size > 1000 {
		size = 100
	}
	es, err := d.service.Endpoints(callerOf(ctx).actor.Tenant, req.GetPageToken(), size)
	if err != nil {
		return nil, err
	}
	out := &decisionv1.ListEndpointsResponse{}
	for _, e := range es {
		out.Endpoints = append(out.Endpoints, endpointOut(e))
	}
	if len(es) == size {
		out.NextPageToken = es[size-1].Name
	}
	return out, nil
}

// GetEndpoint returns one endpoint.
func (d *decisions) GetEndpoint(ctx context.Context, req *decisionv1.GetEndpointRequest) (*decisionv1.GetEndpointResponse, error) {
	e, err := d.service.Endpoint(callerOf(ctx).actor.Tenant, req.GetEndpoint())
	if err != nil {
		return nil, err
	}
	return &decisionv1.GetEndpointResponse{Endpoint: endpointOut(e)}, nil
}

func endpointOut(e decision.Endpoint) *decisionv1.Endpoint {
	return &decisionv1.Endpoint{Name: e.Name, Revision: int32(e.Revision), Kind: string(e.Type), Model: e.Model.String(), ModelState: string(e.ModelState),
		Fallback: e.Fallback.String(), FeatureService: e.Service.String(), Digest: e.Digest, Author: e.Author, Reason: e.Reason,
		PublishedAt: timestamppb.New(e.Published), Yaml: e.Document, Serving: e.Serving}
}

// SearchDecisions finds decisions, newest first.
func (d *decisions) SearchDecisions(ctx context.Context, req *decisionv1.SearchDecisionsRequest) (*decisionv1.SearchDecisionsResponse, error) {
	q := audit.Query{Endpoint: req.GetEndpoint(), BusinessKey: req.GetBusinessKey(), Action: req.GetAction(), Gate: req.GetGate(),
		FallbackOnly: req.GetFallbackOnly(), PageSize: int(req.GetPageSize()), PageToken: req.GetPageToken()}
	if req.GetModel() != "" {
		ref, err := waybill.ParseVersionRef("model", req.GetModel())
		if err != nil {
			return nil, err
		}
		q.Model, q.ModelVersion = ref.Name, ref.Version
	}
	for _, t := range []struct {
		field string
		in    *timestamppb.Timestamp
		out   *time.Time
	}{{"from", req.GetFrom(), &q.From}, {"to", req.GetTo(), &q.To}} {
		if t.in == nil {
			continue
		}
		if err := t.in.CheckValid(); err != nil {
			return nil, waybill.InvalidField(t.field, "is not a time; write 2026-04-10T18:00:00Z")
		}
		*t.out = t.in.AsTime()
	}
	rows, next, err := d.log.Search(ctx, callerOf(ctx).actor.Tenant, q)
	if err != nil {
		return nil, err
	}
	out := &decisionv1.SearchDecisionsResponse{NextPageToken: next}
	for _, r := range rows {
		out.Decisions = append(out.Decisions, summary(r))
	}
	return out, nil
}

func summary(r audit.DecisionRow) *decisionv1.DecisionSummary {
	s := &decisionv1.DecisionSummary{DecisionId: r.ID.String(), Endpoint: r.Endpoint, Revision: int32(r.Revision), BusinessKey: r.BusinessKey,
		Action: r.Action, Fallback: r.Fallback, Gates: r.Gates, DecidedAt: timestamppb.New(r.DecidedAt), Index: r.Seq}
	if r.Score != nil {
		s.Score = *r.Score
	}
	if r.Model != "" {
		s.Model = waybill.VersionRef{Name: r.Model, Version: r.ModelVersion}.String()
	}
	return s
}

// ReplayDecision compares bits.
func (d *decisions) ReplayDecision(ctx context.Context, req *decisionv1.ReplayDecisionRequest) (*decisionv1.ReplayDecisionResponse, error) {
	id, err := waybill.ParseID("decision_id", req.GetDecisionId())
	if err != nil {
		return nil, err
	}
	r, err := d.service.Replay(ctx, callerOf(ctx).actor.Tenant, id)
	if err != nil {
		return nil, err
	}
	return &decisionv1.ReplayDecisionResponse{Equal: r.Equal, RecordedScore: r.Recorded, ReplayedScore: r.Replayed, Differences: r.Differences}, nil
}

// ReportOutcome records what happened.
func (d *decisions) ReportOutcome(ctx context.Context, req *decisionv1.ReportOutcomeRequest) (*decisionv1.ReportOutcomeResponse, error) {
	id, err := waybill.ParseID("decision_id", req.GetDecisionId())
	if err != nil {
		return nil, err
	}
	if req.GetEventTime().CheckValid() != nil {
		return nil, waybill.InvalidField("event_time", "is missing or not a time; write 2026-04-10T18:00:00Z")
	}
	o, err := d.service.ReportOutcome(ctx, callerOf(ctx).actor, id, req.GetName(), req.GetValue().AsInterface(), req.GetEventTime().AsTime())
	if err != nil {
		return nil, err
	}
	return &decisionv1.ReportOutcomeResponse{Outcome: &decisionv1.Outcome{Name: o.Name, Value: req.GetValue(), EventTime: timestamppb.New(o.EventTime),
		ReportedAt: timestamppb.New(o.ReportedAt), Actor: o.Actor}}, nil
}

// GetActivity counts per minute.
func (d *decisions) GetActivity(ctx context.Context, req *decisionv1.GetActivityRequest) (*decisionv1.GetActivityResponse, error) {
	n := req.GetMinutes()
	if n == 0 {
		n = 60
	}
	if n < 1 || n > 1440 {
		return nil, waybill.InvalidField("minutes", "must lie in 1 to 1,440")
	}
	now := time.Now()
	buckets, err := d.log.Activity(ctx, callerOf(ctx).actor.Tenant, now.Add(-time.Duration(n)*time.Minute), now.Add(time.Minute))
	if err != nil {
		return nil, err
	}
	out := &decisionv1.GetActivityResponse{}
	for _, b := range buckets {
		out.Buckets = append(out.Buckets, &decisionv1.ActivityBucket{Start: timestamppb.New(b.Start), Decisions: b.Decisions, Fallbacks: b.Fallbacks})
		out.Decisions += b.Decisions
		out.Fallbacks += b.Fallbacks
	}
	return out, nil
}
