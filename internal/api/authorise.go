package api

import (
	"context"
	"runtime/debug"
	"strings"
	"time"

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
	name      func(m proto.Message) string // the whole resource, of messages that are not ours; nil for parts
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

// resource fills the fields of a request in. A version suffix is cut off: rights are given on names. Ids are written in
// lower case, as rules have them, whatever the caller wrote. An empty field or one with a star would widen the resource;
// it is replaced by what no rule matches. The field "node" is a node of the lineage and gives the whole resource.
func (r rule) resource(m proto.Message) string {
	if r.name != nil {
		return r.name(m)
	}
	var b strings.Builder
	for i, part := range r.parts {
		if i%2 == 0 {
			b.WriteString(part)
			continue
		}
		ref := m.ProtoReflect()
		v := ref.Get(ref.Descriptor().Fields().ByName(protoreflect.Name(part))).String()
		if part == "node" {
			b.WriteString(nodeResource(v))
			continue
		}
		if strings.HasSuffix(part, "_id") {
			v = strings.ToLower(v)
		}
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

// admit authenticates, authorises and validates one message of a call.
func (s *Server) admit(ctx context.Context, method string, req any) (context.Context, error) {
	ctx, c, err := authenticate(ctx, s.access)
	if err != nil {
		return ctx, err
	}
	if err := decoded(req); err != nil { // nobody's rights can be looked up for it
		return ctx, err
	}
	return ctx, s.settle(ctx, c, method, req)
}

// settle authorises and validates a message, and then authorises what only a valid message tells: see names.go.
func (s *Server) settle(ctx context.Context, c caller, method string, req any) error {
	if err := s.authorise(c, method, req); err != nil {
		return err
	}
	if err := valid(req); err != nil {
		return err
	}
	return s.authoriseNames(ctx, c, method, req)
}

// valid validates what came over the wire.
func valid(req any) error {
	if m, ok := req.(proto.Message); ok {
		return validate(m)
	}
	return nil
}

func (s *Server) authorise(c caller, method string, req any) error {
	r, known := s.rules[method]
	msg, ok := req.(proto.Message)
	if !known || !ok {
		return waybill.Errorf(waybill.Denied, "nobody may call %s", method)
	}
	if r.anyCaller {
		return nil
	}
	return s.access.Check(c.actor, c.grant, r.resource(msg), r.action)
}

// finish turns what a handler returned or panicked with into a status, a log line and a metric. What a handler panics
// with becomes an internal error; the hub goes on.
func (s *Server) finish(ctx context.Context, method string, start time.Time, panicked any, err error) error {
	if panicked != nil {
		s.logger.ErrorContext(ctx, "handler panicked", "method", method, "panic", panicked, "request_id", requestID(ctx), "stack", string(debug.Stack()))
		err = waybill.Errorf(waybill.Internal, "panic")
	} else if err != nil && waybill.CodeOf(err) == waybill.Internal && ctx.Err() == nil && s.away(err) {
		s.logger.WarnContext(ctx, "database away", "method", method, "error", err, "request_id", requestID(ctx))
		err = waybill.Wrap(waybill.Unavailable, err, "the database is away; try again")
	} else if c := waybill.CodeOf(err); err != nil && (c == waybill.Internal || c == waybill.Corrupt) && ctx.Err() == nil {
		s.logger.ErrorContext(ctx, "call failed", "method", method, "error", err, "request_id", requestID(ctx))
	}
	err = toStatus(err)
	s.metrics.observe(method, start, err)
	return err
}

func requestID(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("x-request-id"); len(v) > 0 && goodRequestID(v[0]) {
		return v[0]
	}
	return ""
}

// guard is the interceptor of unary calls: recover, authenticate, authorise, validate, then the handler.
func (s *Server) guard(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	start := time.Now()
	defer func() {
		if err = s.finish(ctx, info.FullMethod, start, recover(), err); err != nil {
			res = nil
		}
	}()
	ctx, err = s.admit(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	res, err = handler(ctx, req)
	if err == nil {
		s.prune(callerOf(ctx), info.FullMethod, res)
	}
	return res, err
}

// guardStream is the same for streams. Who calls is settled before the handler runs; what for is in the first message,
// which the handler cannot see before it was authorised.
func (s *Server) guardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	ctx := stream.Context()
	defer func() { err = s.finish(ctx, info.FullMethod, start, recover(), err) }()
	ctx, c, err := authenticate(ctx, s.access)
	if err != nil {
		return err
	}
	return handler(srv, &guardedStream{ServerStream: stream, ctx: ctx, first: func(m any) error { return s.settle(ctx, c, info.FullMethod, m) }})
}

// guardedStream authorises the first message that comes in, and validates every one.
type guardedStream struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // a stream is its context
	first func(m any) error
}

// Context carries the caller.
func (g *guardedStream) Context() context.Context { return g.ctx }

// RecvMsg is where a handler gets its messages from.
func (g *guardedStream) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if err := decoded(m); err != nil {
		return err
	}
	if check := g.first; check != nil {
		g.first = nil
		return check(m)
	}
	return valid(m)
}
