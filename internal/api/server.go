package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto" // registers itself
	"google.golang.org/protobuf/encoding/protojson"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/drift"
	"waybill/featurestore"
	"waybill/internal/access"
	"waybill/internal/api/feast"
	"waybill/lineage"
	feastserving "waybill/proto/feast/serving"
	accessv1 "waybill/proto/waybill/access/v1"
	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	driftv1 "waybill/proto/waybill/drift/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	lineagev1 "waybill/proto/waybill/lineage/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
	"waybill/registry"
)

// Bounds of a request in bytes. Only pushes of feature rows may be large.
const (
	MaxBody = 1 << 20
	MaxPush = 8 << 20
)

// Config names the parts behind the door.
type Config struct {
	Access    *access.Access
	Features  *featurestore.Store
	Models    *registry.Store
	Decisions *decision.Service
	Log       *audit.Log
	Lineage   *lineage.Graph
	Drift     *drift.Store
	Ready     func(ctx context.Context) error // nil error: the hub can serve
	Away      func(err error) bool            // tells that err comes from a database that is away; nil for never
	Web       http.Handler                    // the pages; nil for none
	Metrics   *prometheus.Registry            // defaults to a fresh one
	Logger    *slog.Logger
	Version   string // of the hub, as Feast clients are told
	// FeastRegistry keeps a tenant's registry file for Feast clients where they read it; nil for nowhere.
	FeastRegistry func(ctx context.Context, tenant waybill.Tenant, data []byte) error
}

// Server is the door.
type Server struct {
	access   *access.Access
	away     func(error) bool
	logger   *slog.Logger
	rules    map[string]rule
	named    map[string]naming // what rules cannot say: see names.go
	features *featurestore.Store
	drift    *drift.Store
	metrics  *metrics
	grpc     *grpc.Server
	http     http.Handler
	feast    *feast.Door
}

// New builds both doors over the same services and the same interceptors.
func New(ctx context.Context, c Config) (*Server, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Away == nil {
		c.Away = func(error) bool { return false }
	}
	s := &Server{access: c.Access, away: c.Away, logger: c.Logger, features: c.Features, drift: c.Drift, metrics: newMetrics(c.Metrics)}
	s.named = s.naming()
	var err error
	if s.rules, err = rules(
		accessv1.File_waybill_access_v1_access_proto.Services().ByName("AccessService"),
		auditv1.File_waybill_audit_v1_audit_proto.Services().ByName("AuditService"),
		decisionv1.File_waybill_decision_v1_decision_proto.Services().ByName("DecisionService"),
		driftv1.File_waybill_drift_v1_drift_proto.Services().ByName("DriftService"),
		featurestorev1.File_waybill_featurestore_v1_featurestore_proto.Services().ByName("FeatureStoreService"),
		lineagev1.File_waybill_lineage_v1_lineage_proto.Services().ByName("LineageService"),
		registryv1.File_waybill_registry_v1_registry_proto.Services().ByName("RegistryService"),
		feastserving.File_feast_serving_serving_service_proto.Services().ByName("ServingService"),
		feastserving.File_feast_serving_grpc_server_proto.Services().ByName("GrpcFeatureServer"),
	); err != nil {
		return nil, err
	}
	s.grpc = grpc.NewServer(grpc.UnaryInterceptor(s.guard), grpc.StreamInterceptor(s.guardStream), grpc.MaxRecvMsgSize(MaxPush),
		grpc.ForceServerCodecV2(lenient{encoding.GetCodecV2(protocodec.Name)}),
		grpc.MaxConcurrentStreams(1024), grpc.ConnectionTimeout(10*time.Second))
	stored := &features{store: c.Features, access: c.Access, decisions: c.Decisions, log: c.Log, published: s.publishing(c.FeastRegistry)}
	verifying := &sync.Mutex{} // one verification at a time, through whichever door
	inner := &door{intercept: s.guard, methods: map[string]method{}}
	for _, r := range []grpc.ServiceRegistrar{s.grpc, inner} {
		accessv1.RegisterAccessServiceServer(r, &accounts{access: c.Access})
		auditv1.RegisterAuditServiceServer(r, &logs{log: c.Log, features: stored, verifying: verifying})
		decisionv1.RegisterDecisionServiceServer(r, &decisions{access: c.Access, service: c.Decisions, models: c.Models, log: c.Log, features: stored})
		driftv1.RegisterDriftServiceServer(r, &drifts{store: c.Drift})
		lineagev1.RegisterLineageServiceServer(r, &graphs{graph: c.Lineage, log: c.Log})
		registryv1.RegisterRegistryServiceServer(r, &models{store: c.Models, features: c.Features})
	}
	registerOnline(s.grpc, stored)
	s.serveFlight(stored)
	featurestorev1.RegisterFeatureStoreServiceServer(inner, stored)
	s.feast = s.feastDoor(c)
	strictQueries()
	gateway := runtime.NewServeMux(
		runtime.WithErrorHandler(writeProblem),
		runtime.WithRoutingErrorHandler(writeNoRoute),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &jsonForm{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}}}),
		runtime.WithIncomingHeaderMatcher(func(h string) (string, bool) {
			return strings.ToLower(h), h == "Idempotency-Key" || h == "X-Request-Id" // the gateway passes Authorization on by itself
		}),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
	)
	for name, err := range map[string]error{
		"access":       accessv1.RegisterAccessServiceHandlerClient(ctx, gateway, accessv1.NewAccessServiceClient(inner)),
		"audit":        auditv1.RegisterAuditServiceHandlerClient(ctx, gateway, auditv1.NewAuditServiceClient(inner)),
		"decision":     decisionv1.RegisterDecisionServiceHandlerClient(ctx, gateway, decisionv1.NewDecisionServiceClient(inner)),
		"drift":        driftv1.RegisterDriftServiceHandlerClient(ctx, gateway, driftv1.NewDriftServiceClient(inner)),
		"featurestore": featurestorev1.RegisterFeatureStoreServiceHandlerClient(ctx, gateway, featurestorev1.NewFeatureStoreServiceClient(inner)),
		"lineage":      lineagev1.RegisterLineageServiceHandlerClient(ctx, gateway, lineagev1.NewLineageServiceClient(inner)),
		"registry":     registryv1.RegisterRegistryServiceHandlerClient(ctx, gateway, registryv1.NewRegistryServiceClient(inner)),
	} {
		if err != nil {
			return nil, fmt.Errorf("register REST door of %s: %w", name, err)
		}
	}
	s.http = s.routes(c, gateway, stored)
	return s, nil
}

// GRPC is the gRPC server, to be given a listener.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Handler is everything over HTTP: /v1/… (REST), /feast/… (stock Feast clients), /log/…, /livez, /readyz, /metrics, /openapi.json and the pages.
func (s *Server) Handler() http.Handler { return s.http }
