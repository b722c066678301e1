package api

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/featurestore"
	"waybill/internal/access"
	"waybill/internal/api/flight"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// features serves FeatureStoreService.
type features struct {
	featurestorev1.UnimplementedFeatureStoreServiceServer
	store     *featurestore.Store
	access    *access.Access
	decisions *decision.Service
	log       *audit.Log
	published func(ctx context.Context, tenant waybill.Tenant) // is told after definitions were
}

// maySee refuses callers without the right read_personal on every view whose secret values a service gives, also by way of
// an expression. Endpoints may decide by such values: they do not show them to their callers.
func (s *features) maySee(ctx context.Context, service waybill.VersionRef, secrets []featurestore.Secret) error {
	c := callerOf(ctx)
	for _, x := range secrets {
		for _, view := range x.Views {
			if err := s.access.Check(c.actor, c.grant, "view/"+view, access.ReadPersonal); err != nil {
				return waybill.Wrap(waybill.Denied, err, fmt.Sprintf("%s of %s tells secret values of view %s; that takes the right read_personal on view/%s: ask for it, or for a service without %s",
					x.Output, service, view, view, x.Output))
			}
		}
	}
	return nil
}

// maySeeSet is maySee for training sets of a service; version 0 is the latest.
func (s *features) maySeeSet(ctx context.Context, service waybill.VersionRef) error {
	r, err := s.store.Reader(ctx, callerOf(ctx).actor.Tenant, service)
	if err != nil {
		return err
	}
	return s.maySee(ctx, r.Version(), r.Secrets())
}

// sees says whether the caller may see the secret values of a view, where what he may not see is left out of an answer.
func (s *features) sees(ctx context.Context, view string) bool {
	c := callerOf(ctx)
	return c.grant.Permits(access.ReadPersonal) && s.access.Allowed(c.actor, "view/"+view, access.ReadPersonal)
}

// hideSecrets takes the statistics of secret columns, whose least and greatest value are values, from the description of a
// training set for callers who may not see them.
func (s *features) hideSecrets(ctx context.Context, t *featurestore.TrainingSet) error {
	r, err := s.store.Reader(ctx, callerOf(ctx).actor.Tenant, t.Service)
	if err != nil {
		return err
	}
	for _, x := range r.Secrets() {
		if slices.ContainsFunc(x.Views, func(view string) bool { return !s.sees(ctx, view) }) {
			t.Columns = slices.DeleteFunc(t.Columns, func(col featurestore.ColumnStats) bool {
				return col.Name == x.Output || strings.HasSuffix(col.Name, "__"+x.Output)
			})
		}
	}
	return nil
}

func changesOut(list []featurestore.Change) []*featurestorev1.Change {
	var out []*featurestorev1.Change
	for _, c := range list {
		out = append(out, &featurestorev1.Change{Kind: c.Kind, Ref: c.Ref.String(), Action: c.Action, Summary: c.Summary, Details: c.Details, Readers: c.Readers})
	}
	return out
}

// PlanDefinitions says what applying would change.
func (s *features) PlanDefinitions(ctx context.Context, req *featurestorev1.PlanDefinitionsRequest) (*featurestorev1.PlanDefinitionsResponse, error) {
	d, err := featurestore.ParseDefinitions([]byte(req.GetYaml()))
	if err != nil {
		return nil, err
	}
	list, err := s.store.Plan(ctx, callerOf(ctx).actor, d)
	if err != nil {
		return nil, err
	}
	return &featurestorev1.PlanDefinitionsResponse{Changes: changesOut(list)}, nil
}

// ApplyDefinitions publishes.
func (s *features) ApplyDefinitions(ctx context.Context, req *featurestorev1.ApplyDefinitionsRequest) (*featurestorev1.ApplyDefinitionsResponse, error) {
	d, err := featurestore.ParseDefinitions([]byte(req.GetYaml()))
	if err != nil {
		return nil, err
	}
	list, err := s.store.Apply(ctx, callerOf(ctx).actor, d, req.GetReason())
	if err != nil {
		return nil, err
	}
	s.published(ctx, callerOf(ctx).actor.Tenant)
	return &featurestorev1.ApplyDefinitionsResponse{Changes: changesOut(list)}, nil
}

func fieldsOut(cols []featurestore.Column) []*featurestorev1.Field {
	var out []*featurestorev1.Field
	for _, c := range cols {
		f := &featurestorev1.Field{Name: c.Name, Type: string(c.Type), Sensitivity: c.Sensitivity, Description: c.Description, Required: c.Required, Min: c.Min, Max: c.Max,
			Values: c.Values, MaxLength: int32(c.MaxLength)}
		if c.Pattern != nil {
			f.Pattern = c.Pattern.String()
		}
		out = append(out, f)
	}
	return out
}

func viewOut(v featurestore.ViewInfo) *featurestorev1.View {
	ttl := v.TTL
	if ttl == "" {
		ttl = "0s"
	}
	out := &featurestorev1.View{Name: v.Name, Version: int32(v.Version), Revision: int32(v.Revision), Entity: v.Entity.Name, Keys: fieldsOut(v.Entity.Keys),
		Features: fieldsOut(v.Features), Ttl: ttl, Owner: v.Owner, Description: v.Description, Tags: v.Tags, Digest: v.Digest, Author: v.Author, Reason: v.Reason,
		PublishedAt: stamp(v.At), Commits: v.Commits, Rows: v.Rows, LatestEventTime: stamp(v.Latest), Consumers: v.Consumers, External: v.External,
		Expressions: expressionsOut(v.Expressions), Retired: retirementOut(v.Retired)}
	if v.Fallback != nil {
		out.Fallback, out.FallbackKeys = v.Fallback.View, v.Fallback.Keys
	}
	return out
}

func expressionsOut(list []featurestore.Expression) []*featurestorev1.Expression {
	var out []*featurestorev1.Expression
	for _, e := range list {
		out = append(out, &featurestorev1.Expression{Name: e.Name, Type: string(e.Type), Expr: e.Expr})
	}
	return out
}

func retirementOut(r *featurestore.Retirement) *featurestorev1.Retirement {
	if r == nil {
		return nil
	}
	return &featurestorev1.Retirement{Node: r.Kind + ":" + r.Ref.String(), Reason: r.Reason, Actor: r.Actor, RetiredAt: stamp(r.At)}
}

// ListViews lists views by name.
func (s *features) ListViews(ctx context.Context, req *featurestorev1.ListViewsRequest) (*featurestorev1.ListViewsResponse, error) {
	list, next, err := s.store.Views(ctx, callerOf(ctx).actor.Tenant, featurestore.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ListViewsResponse{NextPageToken: next}
	for _, v := range list {
		out.Views = append(out.Views, viewOut(v))
	}
	return out, nil
}

// GetView returns one view version.
func (s *features) GetView(ctx context.Context, req *featurestorev1.GetViewRequest) (*featurestorev1.GetViewResponse, error) {
	ref, err := waybill.ParseVersionRef("view", req.GetView())
	if err != nil {
		return nil, err
	}
	v, err := s.store.ViewInfo(ctx, callerOf(ctx).actor.Tenant, ref)
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.GetViewResponse{View: viewOut(v)}
	for _, n := range v.Versions {
		out.Versions = append(out.Versions, int32(n))
	}
	return out, nil
}

func serviceOut(v featurestore.ServiceInfo) *featurestorev1.Service {
	return &featurestorev1.Service{Name: v.Name, Version: int32(v.Version), Inputs: fieldsOut(v.Inputs), Features: v.Features, Outputs: fieldsOut(v.Vector), Owner: v.Owner,
		Description: v.Description, Digest: v.Digest, Author: v.Author, PublishedAt: stamp(v.At), Expressions: expressionsOut(v.Expressions), Retired: retirementOut(v.Retired)}
}

// ListServices lists services by name.
func (s *features) ListServices(ctx context.Context, req *featurestorev1.ListServicesRequest) (*featurestorev1.ListServicesResponse, error) {
	list, next, err := s.store.Services(ctx, callerOf(ctx).actor.Tenant, featurestore.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ListServicesResponse{NextPageToken: next}
	for _, v := range list {
		out.Services = append(out.Services, serviceOut(v))
	}
	return out, nil
}

// GetService returns one service version.
func (s *features) GetService(ctx context.Context, req *featurestorev1.GetServiceRequest) (*featurestorev1.GetServiceResponse, error) {
	ref, err := waybill.ParseVersionRef("service", req.GetService())
	if err != nil {
		return nil, err
	}
	v, err := s.store.ServiceInfo(ctx, callerOf(ctx).actor.Tenant, ref)
	if err != nil {
		return nil, err
	}
	return &featurestorev1.GetServiceResponse{Service: serviceOut(v)}, nil
}

func commitOut(c featurestore.Commit) *featurestorev1.Commit {
	return &featurestorev1.Commit{View: c.View.String(), Sequence: c.Seq, Rows: c.Rows, Digest: c.Digest, MinEventTime: stamp(c.MinEvent), MaxEventTime: stamp(c.MaxEvent),
		CommittedAt: stamp(c.At), Actor: c.Actor, Duplicate: c.Duplicate, Quarantined: c.Quarantined}
}

// PushRows appends rows.
func (s *features) PushRows(ctx context.Context, req *featurestorev1.PushRowsRequest) (*featurestorev1.PushRowsResponse, error) {
	ref, err := waybill.ParseVersionRef("view", req.GetView())
	if err != nil {
		return nil, err
	}
	rows := make([]map[string]any, len(req.GetRows()))
	for i, r := range req.GetRows() {
		rows[i] = r.AsMap()
	}
	c, err := s.store.Push(ctx, callerOf(ctx).actor, featurestore.PushRequest{View: ref, BatchID: req.GetBatchId(), Rows: rows, Mode: featurestore.Mode(req.GetMode())})
	if err != nil {
		return nil, err
	}
	return &featurestorev1.PushRowsResponse{Commit: commitOut(c)}, nil
}

// IngestFile appends a file.
func (s *features) IngestFile(stream grpc.ClientStreamingServer[featurestorev1.IngestFileRequest, featurestorev1.IngestFileResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return streamErr(err)
	}
	ref, err := waybill.ParseVersionRef("view", first.GetView())
	if err != nil {
		return err
	}
	body := &chunks{rest: first.GetChunk(), next: func() ([]byte, error) {
		m, err := flight.Receive(stream.Recv)
		return m.GetChunk(), err
	}}
	c, err := s.store.Ingest(stream.Context(), callerOf(stream.Context()).actor, featurestore.IngestRequest{View: ref, BatchID: first.GetBatchId(), Format: first.GetFormat(),
		Columns: first.GetColumns(), Mode: featurestore.Mode(first.GetMode()), Body: body, Size: first.GetSize()})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&featurestorev1.IngestFileResponse{Commit: commitOut(c)})
}

// CreateTrainingSet joins a spine with features.
func (s *features) CreateTrainingSet(stream grpc.ClientStreamingServer[featurestorev1.CreateTrainingSetRequest, featurestorev1.CreateTrainingSetResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return streamErr(err)
	}
	ref, err := waybill.ParseVersionRef("service", first.GetService())
	if err != nil {
		return err
	}
	if err := s.maySeeSet(stream.Context(), ref); err != nil {
		return err
	}
	cutoff, err := instant("cutoff", first.GetCutoff())
	if err != nil {
		return err
	}
	req := featurestore.TrainingSetRequest{Name: first.GetName(), Service: ref, Format: first.GetFormat(), TimeColumn: first.GetTimeColumn(), LabelColumn: first.GetLabelColumn(),
		Cutoff: cutoff, Delay: first.GetDelay().AsDuration(), FullNames: first.GetFullNames(), Without: first.GetWithout()}
	req.Spine = &chunks{rest: first.GetChunk(), next: func() ([]byte, error) {
		m, err := flight.Receive(stream.Recv)
		return m.GetChunk(), err
	}}
	if d := first.GetDecisions(); d != nil {
		if err := s.decided(stream.Context(), d, &req); err != nil {
			return err
		}
	}
	if first.GetStartOnly() {
		b, err := s.store.StartTrainingSet(stream.Context(), callerOf(stream.Context()).actor, req)
		if err != nil {
			return err
		}
		return stream.SendAndClose(&featurestorev1.CreateTrainingSetResponse{Build: buildOut(b)})
	}
	t, err := s.store.CreateTrainingSet(stream.Context(), callerOf(stream.Context()).actor, req)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&featurestorev1.CreateTrainingSetResponse{TrainingSet: trainingSetOut(t)})
}

// decided makes the spine of a request of what was decided. The caller must be allowed to read all decisions.
func (s *features) decided(ctx context.Context, d *featurestorev1.DecisionSpine, req *featurestore.TrainingSetRequest) error {
	c := callerOf(ctx)
	if err := s.access.Check(c.actor, c.grant, "decision/*", access.Read); err != nil {
		return err
	}
	from, err := instant("decisions.from", d.GetFrom())
	if err != nil {
		return err
	}
	to, err := instant("decisions.to", d.GetTo())
	if err != nil {
		return err
	}
	req.Format, req.TimeColumn, req.LabelColumn = featurestore.CSV, decision.SpineTime, d.GetOutcome()
	made := false
	req.Spine = &chunks{next: func() ([]byte, error) { // in its turn, as every spine
		if made {
			return nil, io.EOF
		}
		made = true
		return s.decisions.Spine(ctx, c.actor.Tenant, s.log.Search, decision.SpineRequest{Endpoint: d.GetEndpoint(), From: from, To: to, Outcome: d.GetOutcome(), Columns: d.GetColumns()})
	}}
	return nil
}

func trainingSetOut(t featurestore.TrainingSet) *featurestorev1.TrainingSet {
	out := &featurestorev1.TrainingSet{Digest: t.Digest, Name: t.Name, Service: t.Service.String(), Rows: t.Rows, SizeBytes: t.Size, SpineDigest: t.Spine, LabelColumn: t.LabelColumn,
		Author: t.Author, CreatedAt: stamp(t.CreatedAt), Kernel: t.Kernel, FullNames: t.FullNames, Without: t.Without,
		Cutoff: stamp(t.Cutoff), TimeColumn: t.TimeColumn, SpineFormat: t.SpineFormat, Views: t.Views}
	if t.DelayUS > 0 {
		out.Delay = durationpb.New(time.Duration(t.DelayUS) * time.Microsecond)
	}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, &featurestorev1.ColumnStats{Name: c.Name, Type: string(c.Type), Rows: c.Rows, Nulls: c.Nulls, Mean: c.Mean, Std: c.Std, Min: c.Min, Max: c.Max})
	}
	return out
}

// ListTrainingSets lists training sets, newest first.
func (s *features) ListTrainingSets(ctx context.Context, req *featurestorev1.ListTrainingSetsRequest) (*featurestorev1.ListTrainingSetsResponse, error) {
	list, next, err := s.store.TrainingSets(ctx, callerOf(ctx).actor.Tenant, featurestore.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ListTrainingSetsResponse{NextPageToken: next}
	for _, t := range list {
		if err := s.hideSecrets(ctx, &t); err != nil {
			return nil, err
		}
		out.TrainingSets = append(out.TrainingSets, trainingSetOut(t))
	}
	return out, nil
}

// GetTrainingSet returns recipe and statistics.
func (s *features) GetTrainingSet(ctx context.Context, req *featurestorev1.GetTrainingSetRequest) (*featurestorev1.GetTrainingSetResponse, error) {
	t, err := s.store.TrainingSet(ctx, callerOf(ctx).actor.Tenant, req.GetDigest())
	if err != nil {
		return nil, err
	}
	if err := s.hideSecrets(ctx, &t); err != nil {
		return nil, err
	}
	return &featurestorev1.GetTrainingSetResponse{TrainingSet: trainingSetOut(t)}, nil
}

// RetireDefinition takes a version out of use.
func (s *features) RetireDefinition(ctx context.Context, req *featurestorev1.RetireDefinitionRequest) (*featurestorev1.RetireDefinitionResponse, error) {
	kind, name, _ := strings.Cut(req.GetNode(), ":")
	ref, err := waybill.ParseVersionRef("node", name)
	if err != nil {
		return nil, err
	}
	r, err := s.store.Retire(ctx, callerOf(ctx).actor, kind, ref, req.GetReason())
	if err != nil {
		return nil, err
	}
	return &featurestorev1.RetireDefinitionResponse{Retired: retirementOut(&r)}, nil
}
