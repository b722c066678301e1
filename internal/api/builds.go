package api

import (
	"bufio"
	"context"
	"errors"

	"google.golang.org/grpc"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/api/flight"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

func buildOut(b featurestore.Build) *featurestorev1.TrainingSetBuild {
	out := &featurestorev1.TrainingSetBuild{BuildId: b.ID.String(), State: string(b.State), Name: b.Name, Service: b.Service.String(), Rows: b.Rows, RowsDone: b.RowsDone,
		RowsTotal: b.RowsTotal, Digest: b.Digest, Author: b.Author, StartedAt: stamp(b.StartedAt), UpdatedAt: stamp(b.UpdatedAt), EndedAt: stamp(b.EndedAt)}
	if b.Err != nil {
		out.Error = b.Err.Error()
	}
	return out
}

// GetTrainingSetBuild says how far a build is.
func (s *features) GetTrainingSetBuild(ctx context.Context, req *featurestorev1.GetTrainingSetBuildRequest) (*featurestorev1.GetTrainingSetBuildResponse, error) {
	id, err := waybill.ParseID("build_id", req.GetBuildId())
	if err != nil {
		return nil, err
	}
	b, err := s.store.TrainingSetBuild(ctx, callerOf(ctx).actor.Tenant, id)
	if err != nil {
		return nil, err
	}
	return &featurestorev1.GetTrainingSetBuildResponse{Build: buildOut(b)}, nil
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
