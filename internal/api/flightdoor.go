package api

import (
	"context"

	"google.golang.org/protobuf/proto"

	"waybill"
	"waybill/internal/api/flight"
)

// serveFlight puts Arrow Flight on the gRPC server, behind the same interceptors as our own services. What they read out
// of the authorisation option of an rpc, the door says of its messages.
func (s *Server) serveFlight(stored *features) {
	flight.Register(s.grpc, flight.Config{Features: s.features, Actor: func(ctx context.Context) waybill.Actor { return callerOf(ctx).actor },
		May: func(ctx context.Context, resource, action string) bool {
			return s.access.Allowed(callerOf(ctx).actor, resource, action)
		}})
	for method, r := range flight.Rules() {
		s.rules[method] = rule{action: r.Action, anyCaller: r.AnyCaller, name: func(m proto.Message) string {
			if r.View != nil && (r.Digest == nil || r.Digest(m) == "") {
				return nameOf("view", r.View(m))
			}
			return "service/*"
		}}
		if r.Digest == nil {
			continue
		}
		s.named[method] = naming{ask: func(ctx context.Context, c caller, m proto.Message) ([]string, error) {
			digest := r.Digest(m)
			if digest == "" && r.View != nil {
				return nil, nil
			}
			t, err := s.features.TrainingSet(ctx, c.actor.Tenant, digest)
			if err != nil {
				return nil, err
			}
			resources := []string{nameOf("service", t.Service.Name)}
			if !s.access.Allowed(c.actor, resources[0], r.Action) {
				return resources, nil // refused in its own words, before anything is said of its secrets
			}
			return resources, stored.maySeeSet(ctx, t.Service)
		}}
	}
}
