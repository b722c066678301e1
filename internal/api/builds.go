package api

import (
	"bufio"
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/api/flight"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

func buildOut(b featurestore.Build) *featurestorev1.TrainingSetBuild {
	out := &featurestorev1.TrainingSetBuild{BuildId: b.ID.String(), State: string(b.State), Name: b.Name, Service: b.Service.String(), Rows: b.Rows, RowsDone: b.RowsDone,
		RowsTotal: b.RowsTotal, Digest: b.Digest, Author: b.Author, StartedAt: stamp(b.StartedAt), UpdatedAt: stamp(b.UpdatedAt), EndedAt: stamp(b.EndedAt)}
	out.Kind, out.BaseDigest = string(b.Kind), b.Base
	if b.Err != nil {
		out.Error = b.Err.Error()
	}
	return out
}

// rebuildOut is what came of a rebuild. Why bytes differ is told by least and greatest values, which of secret columns are for
// who may see them.
func (s *features) rebuildOut(ctx context.Context, r featurestore.Rebuild, service waybill.VersionRef) *featurestorev1.RebuildTrainingSetResponse {
	if r.Explanation != "" && s.maySeeSet(ctx, service) != nil {
		r.Explanation, _, _ = strings.Cut(r.Explanation, ": ")
	}
	return &featurestorev1.RebuildTrainingSetResponse{Equal: r.Equal, RebuiltDigest: r.Digest, Explanation: r.Explanation}
}

// RebuildTrainingSet makes it again and compares.
func (s *features) RebuildTrainingSet(ctx context.Context, req *featurestorev1.RebuildTrainingSetRequest) (*featurestorev1.RebuildTrainingSetResponse, error) {
	actor := callerOf(ctx).actor
	if req.GetStartOnly() {
		b, err := s.store.StartRebuild(ctx, actor, req.GetDigest())
		if err != nil {
			return nil, err
		}
		return &featurestorev1.RebuildTrainingSetResponse{Build: buildOut(b)}, nil
	}
	t, err := s.store.TrainingSet(ctx, actor.Tenant, req.GetDigest())
	if err != nil {
		return nil, err
	}
	r, err := s.store.RebuildTrainingSet(ctx, actor, req.GetDigest())
	if err != nil {
		return nil, err
	}
	return s.rebuildOut(ctx, r, t.Service), nil
}

// AblateTrainingSet makes the variants of a training set that go without one group each.
func (s *features) AblateTrainingSet(ctx context.Context, req *featurestorev1.AblateTrainingSetRequest) (*featurestorev1.AblateTrainingSetResponse, error) {
	actor := callerOf(ctx).actor
	base, err := s.store.TrainingSet(ctx, actor.Tenant, req.GetDigest())
	if err != nil {
		return nil, err
	}
	if err := s.maySeeSet(ctx, base.Service); err != nil {
		return nil, err
	}
	var groups []featurestore.AblationGroup
	for _, g := range req.GetGroups() {
		groups = append(groups, featurestore.AblationGroup{Name: g.GetName(), Features: g.GetFeatures()})
	}
	if req.GetStartOnly() {
		b, err := s.store.StartAblation(ctx, actor, req.GetDigest(), groups)
		if err != nil {
			return nil, err
		}
		return &featurestorev1.AblateTrainingSetResponse{Build: buildOut(b)}, nil
	}
	a, err := s.store.AblateTrainingSet(ctx, actor, req.GetDigest(), groups)
	if err != nil {
		return nil, err
	}
	return s.ablationOut(ctx, &a)
}

// ablationOut describes the variants for whoever asks, who may not be the one who had them made.
func (s *features) ablationOut(ctx context.Context, a *featurestore.Ablation) (*featurestorev1.AblateTrainingSetResponse, error) {
	if err := s.hideSecrets(ctx, &a.Base); err != nil {
		return nil, err
	}
	out := &featurestorev1.AblateTrainingSetResponse{Base: trainingSetOut(a.Base), Manifest: a.Manifest, ManifestDigest: a.Digest}
	for _, v := range a.Variants {
		if err := s.hideSecrets(ctx, &v.TrainingSet); err != nil {
			return nil, err
		}
		out.Variants = append(out.Variants, &featurestorev1.AblationVariant{Group: v.Group, TrainingSet: trainingSetOut(v.TrainingSet)})
	}
	return out, nil
}

// GetTrainingSetBuild says how far a build is and what came of it.
func (s *features) GetTrainingSetBuild(ctx context.Context, req *featurestorev1.GetTrainingSetBuildRequest) (*featurestorev1.GetTrainingSetBuildResponse, error) {
	id, err := waybill.ParseID("build_id", req.GetBuildId())
	if err != nil {
		return nil, err
	}
	b, err := s.store.TrainingSetBuild(ctx, callerOf(ctx).actor.Tenant, id)
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.GetTrainingSetBuildResponse{Build: buildOut(b)}
	if b.State != featurestore.BuildDone {
		return out, nil
	}
	switch b.Kind {
	case featurestore.BuildCreate:
	case featurestore.BuildRebuild:
		out.Rebuild = s.rebuildOut(ctx, b.Rebuilt(), b.Service)
	case featurestore.BuildAblate:
		a, err := s.store.Ablated(ctx, callerOf(ctx).actor.Tenant, b)
		if err != nil {
			return nil, err
		}
		if out.Ablation, err = s.ablationOut(ctx, &a); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ListTrainingSetBuilds lists builds, newest first.
func (s *features) ListTrainingSetBuilds(ctx context.Context, req *featurestorev1.ListTrainingSetBuildsRequest) (*featurestorev1.ListTrainingSetBuildsResponse, error) {
	list, next, err := s.store.TrainingSetBuilds(ctx, callerOf(ctx).actor.Tenant, featurestore.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ListTrainingSetBuildsResponse{NextPageToken: next}
	for _, b := range list {
		out.Builds = append(out.Builds, buildOut(b))
	}
	return out, nil
}

// CancelTrainingSetBuild ends a build without a training set.
func (s *features) CancelTrainingSetBuild(ctx context.Context, req *featurestorev1.CancelTrainingSetBuildRequest) (*featurestorev1.CancelTrainingSetBuildResponse, error) {
	id, err := waybill.ParseID("build_id", req.GetBuildId())
	if err != nil {
		return nil, err
	}
	b, err := s.store.CancelTrainingSetBuild(ctx, callerOf(ctx).actor.Tenant, id)
	if err != nil {
		return nil, err
	}
	return &featurestorev1.CancelTrainingSetBuildResponse{Build: buildOut(b)}, nil
}

// sending is a writer whose writes are messages.
type sending func(chunk []byte) error

func (f sending) Write(b []byte) (int, error) {
	if err := f(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// DownloadTrainingSet streams the Parquet file, or its values as CSV.
func (s *features) DownloadTrainingSet(req *featurestorev1.DownloadTrainingSetRequest, stream grpc.ServerStreamingServer[featurestorev1.DownloadTrainingSetResponse]) error {
	tenant := callerOf(stream.Context()).actor.Tenant
	t, err := s.store.TrainingSet(stream.Context(), tenant, req.GetDigest())
	if err != nil {
		return err
	}
	if err := s.maySeeSet(stream.Context(), t.Service); err != nil {
		return err
	}
	send := func(b []byte) error {
		return flight.Send(func() error { return stream.Send(&featurestorev1.DownloadTrainingSetResponse{Chunk: b}) })
	}
	switch req.GetFormat() {
	case "", featurestore.Parquet:
		r, _, err := s.store.OpenTrainingSet(stream.Context(), tenant, req.GetDigest())
		if err != nil {
			return err
		}
		return errors.Join(sendAll(r, send), r.Close())
	case featurestore.CSV:
		w := bufio.NewWriterSize(sending(send), chunk)
		if err := s.store.WriteTrainingSetCSV(stream.Context(), tenant, req.GetDigest(), w); err != nil {
			return err
		}
		return w.Flush()
	}
	return waybill.InvalidField("format", "must be parquet or csv")
}
