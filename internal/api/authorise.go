package api

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"waybill"
	"waybill/internal/access"
	accessv1 "waybill/proto/waybill/access/v1"
)

// caller is who called, kept in the request's context by the interceptors.
type caller struct {
	actor waybill.Actor
	grant access.Grant
}

type callerKey struct{}

// callerOf returns the authenticated caller. Without one it is the zero Actor, who may do nothing.
func callerOf(ctx context.Context) caller {
	c, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		return caller{}
	}
	return c
}

// rule is a compiled authorisation option.
type rule struct {
	parts     []string // resource, cut at the fields: text, field, text, field …
	action    string
	anyCaller bool
}

// rules compiles the option of every method of a service. A method without one is an error.
func rules(services ...protoreflect.ServiceDescriptor) (map[string]rule, error) {
	out := map[string]rule{}
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			name := "/" + string(s.FullName()) + "/" + string(m.Name())
			opts, ok := m.Options().(*descriptorpb.MethodOptions)
			authz, ok2 := proto.GetExtension(opts, accessv1.E_Authz).(*accessv1.Authz)
			if !ok || !ok2 || authz == nil || !authz.GetAnyCaller() && (authz.GetResource() == "" || authz.GetAction() == "") {
				return nil, waybill.Errorf(waybill.Internal, "%s has no authorisation option", name)
			}
			r := rule{action: authz.GetAction(), anyCaller: authz.GetAnyCaller()}
			rest := authz.GetResource()
			for rest != "" {
				text, tail, found := strings.Cut(rest, "{")
				r.parts = append(r.parts, text)
				if !found {
					break
				}
				field, after, closed := strings.Cut(tail, "}")
				if !closed || m.Input().Fields().ByName(protoreflect.Name(field)) == nil {
					return nil, waybill.Errorf(waybill.Internal, "%s names the field %q, which its request lacks", name, field)
				}
				r.parts, rest = append(r.parts, field), after
			}
			out[name] = r
		}
	}
	return out, nil
}

// resource fills the fields of a request in. A version suffix is cut off: rights are given on names. An empty field or
// one with a star would widen the resource; it is replaced by what no rule matches.
func (r rule) resource(m proto.Message) string {
	var b strings.Builder
	for i, part := range r.parts {
		if i%2 == 0 {
			b.WriteString(part)
			continue
		}
		ref := m.ProtoReflect()
		v := ref.Get(ref.Descriptor().Fields().ByName(protoreflect.Name(part))).String()
		v, _, _ = strings.Cut(v, "@")
		if v == "" || strings.ContainsAny(v, "*/") {
			v = "?"
		}
		b.WriteString(v)
	}
	return b.String()
}

// authenticate finds the bearer token and puts the caller into the context.
func authenticate(ctx context.Context, a *access.Access) (context.Context, caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return ctx, caller{}, waybill.Errorf(waybill.Unauthenticated, "no token; send the header Authorization: Bearer wb_…")
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ctx, caller{}, waybill.Errorf(waybill.Unauthenticated, "the header Authorization must be Bearer and a token")
	}
	actor, grant, err := a.Authenticate(ctx, strings.TrimSpace(text))
	if err != nil {
		return ctx, caller{}, err
	}
	c := caller{actor, grant}
	return context.WithValue(ctx, callerKey{}, c), c, nil
}

// guard is the interceptor of unary calls: recover, authenticate, authorise, then the handler. What a handler panics
// with becomes an internal error and a log line; the hub goes on.
func (s *Server) guard(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.logger.ErrorContext(ctx, "handler panicked", "method", info.FullMethod, "panic", p)
			res, err = nil, toStatus(waybill.Errorf(waybill.Internal, "panic"))
		}
	}()
	ctx, c, err := authenticate(ctx, s.access)
	if err != nil {
		return nil, toStatus(err)
	}
	r, known := s.rules[info.FullMethod]
	msg, ok := req.(proto.Message)
	if !known || !ok {
		return nil, toStatus(waybill.Errorf(waybill.Denied, "nobody may call %s", info.FullMethod))
	}
	if !r.anyCaller {
		if err := s.access.Check(c.actor, c.grant, r.resource(msg), r.action); err != nil {
			return nil, toStatus(err)
		}
	}
	res, err = handler(ctx, req)
	if err != nil {
		if waybill.CodeOf(err) == waybill.Internal || waybill.CodeOf(err) == waybill.Corrupt {
			s.logger.ErrorContext(ctx, "call failed", "method", info.FullMethod, "error", err)
		}
		return nil, toStatus(err)
	}
	return res, nil
}
