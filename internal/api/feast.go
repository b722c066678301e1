package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"waybill"
	"waybill/internal/api/feast"
	feastserving "waybill/proto/feast/serving"
)

// feastDoor opens the door for stock Feast clients over both protocols. Its HTTP side walks through the same steps as an
// rpc, in the same order; its gRPC side is rpcs.
func (s *Server) feastDoor(c Config) *feast.Door {
	d := feast.New(feast.Config{Store: c.Features, Enter: s.enter, Call: s.callNamed, Explain: explain, Ready: c.Ready, MaxBody: MaxBody, MaxPush: MaxPush, Version: c.Version,
		May: func(ctx context.Context, resource, action string) bool {
			c := callerOf(ctx)
			return c.grant.Permits(action) && s.access.Allowed(c.actor, resource, action)
		}})
	actor := func(ctx context.Context) waybill.Actor { return callerOf(ctx).actor }
	feastserving.RegisterServingServiceServer(s.grpc, &feast.Serving{Door: d, Actor: actor})
	feastserving.RegisterGrpcFeatureServerServer(s.grpc, &feast.Server{Door: d, Actor: actor})
	return d
}

// enter finds out who sends an HTTP request.
func (s *Server) enter(r *http.Request) (context.Context, error) {
	md := metadata.MD{"authorization": r.Header.Values("Authorization")}
	if id := r.Header.Get("X-Request-Id"); id != "" {
		md["x-request-id"] = []string{id}
	}
	ctx, _, err := authenticate(metadata.NewIncomingContext(r.Context(), md), s.access)
	return ctx, err
}

// callNamed is guard for what is no rpc: the caller is in the context, the resources are given by name.
func (s *Server) callNamed(ctx context.Context, method, action string, resources []string, f func(ctx context.Context, actor waybill.Actor) error) (err error) {
	start := time.Now()
	defer func() { err = s.finish(ctx, method, start, recover(), err) }()
	c := callerOf(ctx)
	for _, r := range resources {
		if err := s.access.Check(c.actor, c.grant, r, action); err != nil {
			return err
		}
	}
	return f(ctx, c.actor)
}

// explain gives what a caller over HTTP is told of an error, by the table that all doors share.
func explain(err error) (code int, reason waybill.Code, message string) {
	st := status.Convert(toStatus(err))
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			reason = waybill.Code(info.GetReason())
			return table(reason).http, reason, st.Message()
		}
	}
	return runtime.HTTPStatusFromCode(st.Code()), waybill.Internal, st.Message()
}

// feastNaming lists the rpcs of the Feast door whose names are not in their option.
func feastNaming(into map[string]naming) {
	names := naming{ask: on(func(_ context.Context, _ caller, m *feastserving.GetOnlineFeaturesRequest) ([]string, error) {
		return feast.Resources(m.GetFeatureService(), m.GetFeatures().GetVal())
	})}
	into[feastserving.ServingService_GetOnlineFeatures_FullMethodName] = names
	into[feastserving.GrpcFeatureServer_GetOnlineFeatures_FullMethodName] = names
}

// most is how many bytes a message may have: reads are bounded more tightly than the server, whose bound is for pushes,
// because a value of four bytes on the wire takes a hundred in memory.
func most(m any) int {
	if _, ok := m.(*feastserving.GetOnlineFeaturesRequest); ok {
		return MaxBody
	}
	return MaxPush
}

// publishing is ApplyDefinitions with the registry file of Feast clients after it: the file in the bucket is a copy of
// what GET /feast/registry.db builds, for clients that read it there. When it cannot be written the definitions are
// published all the same; the copy stays old until the next apply, and the log says so.
func (s *Server) publishing(put func(ctx context.Context, tenant waybill.Tenant, data []byte) error) func(context.Context, waybill.Tenant) {
	return func(ctx context.Context, tenant waybill.Tenant) {
		if put == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		data, err := s.feast.Registry(ctx, tenant, nil)
		if err == nil {
			err = put(ctx, tenant, data)
		}
		if err != nil {
			s.logger.ErrorContext(ctx, "feast registry file in the bucket is old until the next apply", "tenant", string(tenant), "error", fmt.Errorf("publish registry file: %w", err))
		}
	}
}
