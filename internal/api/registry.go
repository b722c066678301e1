package api

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	"waybill"
	"waybill/featurestore"
	registryv1 "waybill/proto/waybill/registry/v1"
	"waybill/registry"
)

// chunk is how many bytes a message of a download carries.
const chunk = 256 << 10

// models serves RegistryService.
type models struct {
	registryv1.UnimplementedRegistryServiceServer
	store    *registry.Store
	features *featurestore.Store
}

// CreateModelVersion makes a draft.
func (s *models) CreateModelVersion(ctx context.Context, req *registryv1.CreateModelVersionRequest) (*registryv1.CreateModelVersionResponse, error) {
	n := registry.NewVersion{Model: req.GetModel(), Description: req.GetDescription(), Format: registry.Format(req.GetFormat()), Entrypoint: req.GetEntrypoint(),
		TrainingSet: req.GetTrainingSet(), Metrics: req.GetMetrics(), Automation: registry.Automation(req.GetAutomation()),
		IntendedUse: req.GetIntendedUse(), Tags: req.GetTags()}
	if req.GetFeatureService() != "" {
		ref, err := waybill.ParseVersionRef("feature_service", req.GetFeatureService())
		if err != nil {
			return nil, err
		}
		n.FeatureService = ref
	}
	if err := s.exist(ctx, n); err != nil {
		return nil, err
	}
	v, err := s.store.CreateVersion(ctx, callerOf(ctx).actor, n)
	if err != nil {
		return nil, err
	}
	return &registryv1.CreateModelVersionResponse{Version: versionOut(v)}, nil
}

// exist refuses a version of a feature service or a training set that the tenant does not have. References that are
// malformed are left to the registry, which names them with everything else that is wrong.
func (s *models) exist(ctx context.Context, n registry.NewVersion) error {
	tenant := callerOf(ctx).actor.Tenant
	var bad []waybill.Violation
	if n.FeatureService.Name != "" && n.FeatureService.Version > 0 {
		_, err := s.features.ServiceInfo(ctx, tenant, n.FeatureService)
		switch {
		case waybill.CodeOf(err) == waybill.NotFound:
			bad = append(bad, waybill.Violation{Field: "feature_service", Remedy: "names " + n.FeatureService.String() + ", which does not exist; publish it, or name the version the model was trained on"})
		case err != nil:
			return err
		}
	}
	if set := strings.TrimPrefix(n.TrainingSet, "sha256:"); set != "" {
		_, err := s.features.TrainingSet(ctx, tenant, set)
		switch {
		case waybill.CodeOf(err) == waybill.NotFound:
			bad = append(bad, waybill.Violation{Field: "training_set", Remedy: "names a training set that does not exist; create it, or give the digest of the one the model was trained on"})
		case err != nil && waybill.CodeOf(err) != waybill.Invalid:
			return err
		}
	}
	return waybill.InvalidFields(bad)
}

func versionOut(v registry.Version) *registryv1.ModelVersion {
	out := &registryv1.ModelVersion{Model: v.Model, Version: int32(v.Version), State: string(v.State), Digest: v.Digest, Format: string(v.Format),
		Entrypoint: v.Entrypoint, TrainingSet: v.TrainingSet, Metrics: v.Metrics, Description: v.Description, IntendedUse: v.IntendedUse,
		Automation: string(v.Automation), Tags: v.Tags, Author: v.Author, CreatedAt: stamp(v.CreatedAt), Aliases: v.Aliases, Needs: v.Needs, RevokedAs: v.RevokedAs}
	if v.FeatureService.Name != "" {
		out.FeatureService = v.FeatureService.String()
	}
	for _, f := range v.Files {
		out.Files = append(out.Files, fileOut(f))
	}
	for _, a := range v.Approvals {
		out.Approvals = append(out.Approvals, &registryv1.Approval{ApprovalId: a.ID.String(), Kind: string(a.Kind), Actor: a.Actor, Reason: a.Reason,
			Digest: a.Digest, At: stamp(a.At)})
	}
	return out
}

func fileOut(f registry.Artifact) *registryv1.File {
	return &registryv1.File{Path: f.Path, SizeBytes: f.Size, Sha256: f.SHA256}
}

// chunks reads the chunks of a client stream as bytes.
type chunks struct {
	rest []byte
	next func() ([]byte, error) // io.EOF at the end
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		b, err := c.next()
		if err != nil {
			return 0, err
		}
		c.rest = b
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// UploadArtifact streams one file in.
func (s *models) UploadArtifact(stream grpc.ClientStreamingServer[registryv1.UploadArtifactRequest, registryv1.UploadArtifactResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return streamErr(err)
	}
	ref, err := waybill.ParseVersionRef("model", first.GetModel())
	if err != nil {
		return err
	}
	body := &chunks{rest: first.GetChunk(), next: func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetChunk(), err
	}}
	f, err := s.store.UploadArtifact(stream.Context(), callerOf(stream.Context()).actor, ref, first.GetPath(), body)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&registryv1.UploadArtifactResponse{File: fileOut(f)})
}

// streamErr names an empty stream; other errors are the transport's own.
func streamErr(err error) error {
	if errors.Is(err, io.EOF) {
		return waybill.Errorf(waybill.Invalid, "the stream holds no message; the first one must name what it is about")
	}
	return err
}

// DownloadArtifact streams one file out. A file that is not what was uploaded ends in an error after its last chunk.
func (s *models) DownloadArtifact(req *registryv1.DownloadArtifactRequest, stream grpc.ServerStreamingServer[registryv1.DownloadArtifactResponse]) error {
	ctx := stream.Context()
	ref, err := waybill.ParseVersionRef("model", req.GetModel())
	if err != nil {
		return err
	}
	r, _, err := s.store.OpenArtifact(ctx, callerOf(ctx).actor.Tenant, ref, req.GetPath())
	if err != nil {
		return err
	}
	return errors.Join(sendAll(r, func(b []byte) error { return stream.Send(&registryv1.DownloadArtifactResponse{Chunk: b}) }), r.Close())
}

// sendAll cuts a reader into messages.
func sendAll(r io.Reader, send func([]byte) error) error {
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ListModels lists by name.
func (s *models) ListModels(ctx context.Context, req *registryv1.ListModelsRequest) (*registryv1.ListModelsResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list, next, err := s.store.ListModels(ctx, callerOf(ctx).actor.Tenant, registry.Page{Size: n, Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &registryv1.ListModelsResponse{NextPageToken: next}
	for _, m := range list {
		o := &registryv1.Model{Name: m.Name, Latest: versionOut(m.Latest), Versions: int32(m.Versions), Aliases: map[string]int32{}}
		for a, v := range m.Aliases {
			o.Aliases[a] = int32(v)
		}
		out.Models = append(out.Models, o)
	}
	return out, nil
}

// ListModelVersions lists versions, newest first.
func (s *models) ListModelVersions(ctx context.Context, req *registryv1.ListModelVersionsRequest) (*registryv1.ListModelVersionsResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list, next, err := s.store.ListVersions(ctx, callerOf(ctx).actor.Tenant, registry.Filter{Model: req.GetModel(), State: registry.State(req.GetState())},
		registry.Page{Size: n, Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &registryv1.ListModelVersionsResponse{NextPageToken: next}
	for _, v := range list {
		out.Versions = append(out.Versions, versionOut(v))
	}
	return out, nil
}

// GetModelVersion returns what "name", "name@v2" or "name@champion" names.
func (s *models) GetModelVersion(ctx context.Context, req *registryv1.GetModelVersionRequest) (*registryv1.GetModelVersionResponse, error) {
	v, err := s.store.Resolve(ctx, callerOf(ctx).actor.Tenant, req.GetModel())
	if err != nil {
		return nil, err
	}
	return &registryv1.GetModelVersionResponse{Version: versionOut(v)}, nil
}

// SubmitModelVersion freezes a draft.
func (s *models) SubmitModelVersion(ctx context.Context, req *registryv1.SubmitModelVersionRequest) (*registryv1.SubmitModelVersionResponse, error) {
	ref, err := waybill.ParseVersionRef("model", req.GetModel())
	if err != nil {
		return nil, err
	}
	v, err := s.store.Submit(ctx, callerOf(ctx).actor, ref)
	if err != nil {
		return nil, err
	}
	return &registryv1.SubmitModelVersionResponse{Version: versionOut(v)}, nil
}

// ApproveModelVersion records consent.
func (s *models) ApproveModelVersion(ctx context.Context, req *registryv1.ApproveModelVersionRequest) (*registryv1.ApproveModelVersionResponse, error) {
	ref, err := waybill.ParseVersionRef("model", req.GetModel())
	if err != nil {
		return nil, err
	}
	v, err := s.store.Approve(ctx, callerOf(ctx).actor, ref, req.GetDigest(), req.GetReason())
	if err != nil {
		return nil, err
	}
	return &registryv1.ApproveModelVersionResponse{Version: versionOut(v)}, nil
}

// RejectModelVersion refuses.
func (s *models) RejectModelVersion(ctx context.Context, req *registryv1.RejectModelVersionRequest) (*registryv1.RejectModelVersionResponse, error) {
	ref, err := waybill.ParseVersionRef("model", req.GetModel())
	if err != nil {
		return nil, err
	}
	v, err := s.store.Reject(ctx, callerOf(ctx).actor, ref, req.GetReason())
	if err != nil {
		return nil, err
	}
	return &registryv1.RejectModelVersionResponse{Version: versionOut(v)}, nil
}

// RevokeModelVersion withdraws consent.
func (s *models) RevokeModelVersion(ctx context.Context, req *registryv1.RevokeModelVersionRequest) (*registryv1.RevokeModelVersionResponse, error) {
	ref, err := waybill.ParseVersionRef("model", req.GetModel())
	if err != nil {
		return nil, err
	}
	v, err := s.store.Revoke(ctx, callerOf(ctx).actor, ref, req.GetReason())
	if err != nil {
		return nil, err
	}
	return &registryv1.RevokeModelVersionResponse{Version: versionOut(v)}, nil
}

// SetAlias points an alias.
func (s *models) SetAlias(ctx context.Context, req *registryv1.SetAliasRequest) (*registryv1.SetAliasResponse, error) {
	v, err := s.store.SetAlias(ctx, callerOf(ctx).actor, req.GetModel(), req.GetAlias(), int(req.GetVersion()))
	if err != nil {
		return nil, err
	}
	return &registryv1.SetAliasResponse{Version: versionOut(v)}, nil
}
