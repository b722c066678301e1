package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/internal/access"
	decisionv1 "waybill/proto/waybill/decision/v1"
	"waybill/registry"
)

// MaxBody bounds a request in bytes, over gRPC and REST alike.
const MaxBody = 1 << 20

// Config names the parts behind the door.
type Config struct {
	Access    *access.Access
	Decisions *decision.Service
	Models    *registry.Store
	Log       *audit.Log
	Logger    *slog.Logger
}

// Server is the door.
type Server struct {
	access *access.Access
	logger *slog.Logger
	rules  map[string]rule
	grpc   *grpc.Server
	rest   http.Handler
}

// New builds both doors over the same services and the same interceptor.
func New(ctx context.Context, c Config) (*Server, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{access: c.Access, logger: c.Logger}
	var err error
	if s.rules, err = rules(decisionv1.File_waybill_decision_v1_decision_proto.Services().ByName("DecisionService")); err != nil {
		return nil, err
	}
	s.grpc = grpc.NewServer(grpc.UnaryInterceptor(s.guard), grpc.MaxRecvMsgSize(MaxBody))
	inner := &door{intercept: s.guard, methods: map[string]method{}}
	decisions := &decisions{access: c.Access, service: c.Decisions, models: c.Models, log: c.Log}
	for _, r := range []grpc.ServiceRegistrar{s.grpc, inner} {
		decisionv1.RegisterDecisionServiceServer(r, decisions)
	}
	mux := runtime.NewServeMux(
		runtime.WithErrorHandler(writeProblem),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}}),
		runtime.WithIncomingHeaderMatcher(func(h string) (string, bool) {
			return strings.ToLower(h), h == "Idempotency-Key" // the gateway passes Authorization on by itself
		}),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
	)
	if err := decisionv1.RegisterDecisionServiceHandlerClient(ctx, mux, decisionv1.NewDecisionServiceClient(inner)); err != nil {
		return nil, fmt.Errorf("register REST door: %w", err)
	}
	s.rest = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > MaxBody {
			writeProblem(r.Context(), nil, nil, w, r, toStatus(waybill.Errorf(waybill.TooLarge, "the body has %d bytes; at most %d", r.ContentLength, MaxBody)))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		mux.ServeHTTP(w, r)
	})
	return s, nil
}

// GRPC is the gRPC server, to be given a listener.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// REST is the HTTP handler of /v1/….
func (s *Server) REST() http.Handler { return s.rest }
