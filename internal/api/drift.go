package api

import (
	"context"
	"time"

	"waybill"
	"waybill/drift"
	driftv1 "waybill/proto/waybill/drift/v1"
)

// drifts serves DriftService.
type drifts struct {
	driftv1.UnimplementedDriftServiceServer
	store *drift.Store
}

// GetReport compares reference and production; by default over the last 24 hours.
func (s *drifts) GetReport(ctx context.Context, req *driftv1.GetReportRequest) (*driftv1.GetReportResponse, error) {
	from, err := instant("from", req.GetFrom())
	if err != nil {
		return nil, err
	}
	to, err := instant("to", req.GetTo())
	if err != nil {
		return nil, err
	}
	if to.IsZero() {
		to = waybill.SystemClock()
	}
	if from.IsZero() {
		from = to.Add(-24 * time.Hour)
	}
	r, err := s.store.Report(ctx, callerOf(ctx).actor.Tenant, req.GetEndpoint(), from, to)
	if err != nil {
		return nil, err
	}
	out := &driftv1.GetReportResponse{Endpoint: r.Endpoint, Model: r.Model.String(), Reference: r.Digest, From: stamp(r.From), To: stamp(r.To)}
	for _, f := range r.Features {
		out.Features = append(out.Features, &driftv1.FeatureDrift{Feature: f.Feature, Edges: f.Edges, Reference: f.Reference, Production: f.Production,
			ReferenceMissing: f.ReferenceMissing, ProductionMissing: f.ProductionMissing, Psi: f.Statistics.PSI, Kl: f.Statistics.KL, Js: f.Statistics.JS,
			Ks: f.Statistics.KS, Wasserstein: f.Statistics.Wasserstein})
	}
	return out, nil
}

func monitorOut(m drift.Monitor) *driftv1.Monitor {
	return &driftv1.Monitor{Name: m.Name, Endpoint: m.Endpoint, Feature: m.Feature, Statistic: m.Statistic, Limit: m.Limit, MinSample: m.MinSample,
		WindowSeconds: int64(m.Window / time.Second), Author: m.Author}
}

// PutMonitor creates or changes a monitor.
func (s *drifts) PutMonitor(ctx context.Context, req *driftv1.PutMonitorRequest) (*driftv1.PutMonitorResponse, error) {
	const most = 90 * 24 * 3600
	if req.GetWindowSeconds() > most || req.GetWindowSeconds() < 0 {
		return nil, waybill.InvalidField("window_seconds", "must lie in 3,600 (an hour) to 7,776,000 (90 days)")
	}
	m, err := s.store.PutMonitor(ctx, callerOf(ctx).actor, drift.Monitor{Name: req.GetName(), Endpoint: req.GetEndpoint(), Feature: req.GetFeature(),
		Statistic: req.GetStatistic(), Limit: req.GetLimit(), MinSample: req.GetMinSample(), Window: time.Duration(req.GetWindowSeconds()) * time.Second})
	if err != nil {
		return nil, err
	}
	return &driftv1.PutMonitorResponse{Monitor: monitorOut(m)}, nil
}

// ListMonitors lists monitors by name.
func (s *drifts) ListMonitors(ctx context.Context, req *driftv1.ListMonitorsRequest) (*driftv1.ListMonitorsResponse, error) {
	list, next, err := s.store.Monitors(ctx, callerOf(ctx).actor.Tenant, drift.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &driftv1.ListMonitorsResponse{NextPageToken: next}
	for _, m := range list {
		out.Monitors = append(out.Monitors, monitorOut(m))
	}
	return out, nil
}

// RunMonitor evaluates a monitor over everything that this hub has seen so far.
func (s *drifts) RunMonitor(ctx context.Context, req *driftv1.RunMonitorRequest) (*driftv1.RunMonitorResponse, error) {
	if err := s.store.Flush(ctx); err != nil {
		return nil, err
	}
	list, id, err := s.store.RunMonitor(ctx, callerOf(ctx).actor.Tenant, req.GetName())
	if err != nil {
		return nil, err
	}
	out := &driftv1.RunMonitorResponse{IncidentId: id}
	for _, v := range list {
		out.Verdicts = append(out.Verdicts, &driftv1.Verdict{Feature: v.Feature, State: string(v.State), Value: v.Value, Limit: v.Limit, Sample: v.Sample})
	}
	return out, nil
}

func incidentOut(i drift.Incident) *driftv1.Incident {
	return &driftv1.Incident{IncidentId: i.ID.String(), Title: i.Title, State: i.State, Endpoint: i.Endpoint, Model: i.Model.String(), Features: i.Features, Affected: i.Affected,
		Monitor: i.Monitor, OpenedAt: stamp(i.OpenedAt), ResolvedAt: stamp(i.ResolvedAt), ResolvedBy: i.ResolvedBy, Reason: i.Reason}
}

// ListIncidents lists incidents, newest first.
func (s *drifts) ListIncidents(ctx context.Context, req *driftv1.ListIncidentsRequest) (*driftv1.ListIncidentsResponse, error) {
	list, next, err := s.store.Incidents(ctx, callerOf(ctx).actor.Tenant, req.GetState(), drift.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &driftv1.ListIncidentsResponse{NextPageToken: next}
	for _, i := range list {
		out.Incidents = append(out.Incidents, incidentOut(i))
	}
	return out, nil
}

// ResolveIncident closes an incident.
func (s *drifts) ResolveIncident(ctx context.Context, req *driftv1.ResolveIncidentRequest) (*driftv1.ResolveIncidentResponse, error) {
	id, err := waybill.ParseID("incident_id", req.GetIncidentId())
	if err != nil {
		return nil, err
	}
	i, err := s.store.ResolveIncident(ctx, callerOf(ctx).actor, id, req.GetReason())
	if err != nil {
		return nil, err
	}
	return &driftv1.ResolveIncidentResponse{Incident: incidentOut(i)}, nil
}
