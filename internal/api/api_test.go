package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	"waybill/drift"
	"waybill/featurestore"
	"waybill/internal/access"
	"waybill/internal/api"
	"waybill/internal/bucket"
	"waybill/internal/pgtest"
	"waybill/lineage"
	"waybill/registry"
	"waybill/score"
)

func check[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

func testdata(t *testing.T, name string) []byte {
	t.Helper()
	return check[[]byte](t)(os.ReadFile(filepath.Join(packageDir, "testdata", name)))
}

// source is where drift finds references.
type source struct {
	*featurestore.Store
	models *registry.Store
}

func (s source) TrainingSetOf(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) (string, error) {
	v, err := s.models.Get(ctx, tenant, model)
	return v.TrainingSet, err
}

type hub struct {
	url, token, otherToken string
	key                    string
	ann, bob               waybill.Actor

	pool     *pgxpool.Pool
	objects  *bucket.Bucket
	access   *access.Access
	features *featurestore.Store
	models   *registry.Store
	service  *decision.Service
	log      *audit.Log
	grpc     *grpc.ClientConn
	second   func(t *testing.T) *hub // another node on the same database and bucket
}

// setup is a hub with an approved model, an endpoint, and tokens of two tenants.
func setup(t *testing.T) *hub {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pool := pgtest.DB(t)
	ann, bob := waybill.Actor{ID: "ann", Tenant: "acme", Kind: waybill.Person}, waybill.Actor{ID: "bob", Tenant: "acme", Kind: waybill.Person}
	acc := check[*access.Access](t)(access.Open(ctx, pool, access.Config{Env: access.Dev}))
	h := &hub{ann: ann, bob: bob, pool: pool, access: acc}
	h.token = check[string](t)(acc.Bootstrap(ctx, "acme", "ann"))
	h.otherToken = check[string](t)(acc.Bootstrap(ctx, "other", "eve"))
	for _, a := range []waybill.Actor{ann, {ID: "eve", Tenant: "other", Kind: waybill.Person}} { // administering is not deciding
		check[int64](t)(acc.BindRole(ctx, a, a.ID, "serving"))
		check[int64](t)(acc.BindRole(ctx, a, a.ID, "auditor"))
	}
	objects := pgtest.TestBucket(t)
	features := check[*featurestore.Store](t)(featurestore.Open(ctx, pool, objects, featurestore.Config{}))
	models := check[*registry.Store](t)(registry.Open(ctx, pool, objects, registry.Config{Check: checkModel}))
	signer, verifier, err := audit.GenerateKey("test.example/log/1")
	if err != nil {
		t.Fatal(err)
	}
	h.key = verifier
	log := check[*audit.Log](t)(audit.Open(ctx, pool, audit.Config{LogID: 1, Origin: "test.example/log/1", SignerKey: signer}))
	var running sync.WaitGroup
	running.Go(func() {
		if err := log.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	check[[]featurestore.Change](t)(features.Apply(ctx, ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions(testdata(t, "features.yaml"))), "first"))
	for _, m := range []struct {
		name   string
		format registry.Format
	}{{"route-rules", registry.Rules}, {"late-risk", registry.LightGBM}} {
		v := check[registry.Version](t)(models.CreateVersion(ctx, ann, registry.NewVersion{Model: m.name, Format: m.format, Entrypoint: "model", Automation: registry.SolelyAutomated}))
		check[registry.Artifact](t)(models.UploadArtifact(ctx, ann, v.Ref(), "model", bytes.NewReader(testdata(t, m.name))))
		v = check[registry.Version](t)(models.Submit(ctx, ann, v.Ref()))
		check[registry.Version](t)(models.Approve(ctx, bob, v.Ref(), v.Digest, "looked at it"))
	}
	service := check[*decision.Service](t)(decision.New(ctx, pool, features, models, log, decision.Config{}))
	if _, _, err := service.Publish(ctx, ann, testdata(t, "endpoint.yaml"), "go live"); err != nil {
		t.Fatal(err)
	}
	graph := check[*lineage.Graph](t)(lineage.Open(ctx, pool, lineage.Config{}))
	watch := check[*drift.Store](t)(drift.Open(ctx, pool, graph, source{features, models}, drift.Config{}))
	running.Go(func() {
		if err := watch.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	h.objects, h.features, h.models, h.log = objects, features, models, log
	serve := func(t *testing.T, h *hub) {
		t.Helper()
		server := check[*api.Server](t)(api.New(ctx, api.Config{Access: acc, Features: features, Decisions: h.service, Models: models, Log: log, Lineage: graph, Drift: watch,
			FeastRegistry: func(ctx context.Context, tenant waybill.Tenant, data []byte) error {
				_, err := objects.Put(ctx, "feast/"+string(tenant)+"/registry.db", bytes.NewReader(data), int64(len(data)))
				return err
			}}))
		web := httptest.NewServer(server.Handler())
		h.url = web.URL
		lis := check[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
		running.Go(func() {
			if err := server.GRPC().Serve(lis); err != nil {
				t.Error(err)
			}
		})
		h.grpc = check[*grpc.ClientConn](t)(grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
		t.Cleanup(func() {
			web.Close()
			if err := h.grpc.Close(); err != nil {
				t.Error(err)
			}
			server.GRPC().Stop()
		})
	}
	t.Cleanup(func() { // after the doors are shut
		cancel()
		running.Wait()
	})
	h.service = service
	serve(t, h)
	h.second = func(t *testing.T) *hub {
		t.Helper()
		other := *h
		other.service = check[*decision.Service](t)(decision.New(ctx, pool, features, models, log, decision.Config{}))
		serve(t, &other)
		return &other
	}
	return h
}

// checkModel is what cmd/waybill gives the registry.
func checkModel(f registry.Format, data []byte) error {
	if f == registry.Rules {
		_, err := score.LoadRules(data)
		return err
	}
	_, err := score.Load(score.Format(f), data)
	return err
}

// A version of a service or a training set that the tenant does not have is refused when it is made, and one whose file
// is nothing that can be scored when it is submitted. The same bytes under another number carry that they were revoked.
func TestModel_NothingThatDoesNotExistIsApproved(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for _, actor := range []waybill.Actor{h.ann, {ID: "eve", Tenant: "other", Kind: waybill.Person}} {
		check[int64](t)(h.access.BindRole(context.Background(), actor, actor.ID, "data-scientist"))
	}
	body := func(service, set string) string {
		return fmt.Sprintf(`{"format":"lightgbm","entrypoint":"model","automation":"advisory","feature_service":%q,"training_set":%q}`, service, set)
	}
	for _, c := range []struct{ token, service, set, field string }{
		{h.token, "ghost@v1", "", "feature_service"}, {h.token, "route-risk@v9", "", "feature_service"}, {h.otherToken, "route-risk@v1", "", "feature_service"},
		{h.token, "route-risk@v1", strings.Repeat("ab", 32), "training_set"}, {h.token, "", "sha256:" + strings.Repeat("ab", 32), "training_set"},
		{h.token, "", "no digest", "training_set"},
	} {
		code, a := h.call(t, "POST", "/v1/models/ghostly/versions", c.token, body(c.service, c.set))
		if code != 400 || !strings.Contains(fmt.Sprint(a), c.field) {
			t.Errorf("%+v: %d %v", c, code, a)
		}
	}
	if _, err := h.models.Get(context.Background(), "acme", waybill.VersionRef{Name: "ghostly"}); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("a version was made: %v", err)
	}
	if code, a := h.call(t, "POST", "/v1/models/ghostly/versions", h.token, body("route-risk@v1", "")); code != 200 {
		t.Fatalf("%d %v", code, a)
	}
	ghost := waybill.VersionRef{Name: "ghostly", Version: 1}
	check[registry.Artifact](t)(h.models.UploadArtifact(context.Background(), h.ann, ghost, "model", strings.NewReader("garbage")))
	if code, a := h.call(t, "POST", "/v1/models/ghostly@v1:submit", h.token, "{}"); code != 400 || !strings.Contains(fmt.Sprint(a), "LightGBM") {
		t.Errorf("garbage: %d %v", code, a)
	}
	again := waybill.VersionRef{Name: "late-risk", Version: 2}
	check[registry.Version](t)(h.models.Revoke(context.Background(), h.bob, waybill.VersionRef{Name: "late-risk", Version: 1}, "leaks the label"))
	check[registry.Version](t)(h.models.CreateVersion(context.Background(), h.ann, registry.NewVersion{Model: "late-risk", Format: registry.LightGBM, Entrypoint: "model", Automation: registry.Advisory}))
	check[registry.Artifact](t)(h.models.UploadArtifact(context.Background(), h.ann, again, "model", bytes.NewReader(testdata(t, "late-risk"))))
	if code, a := h.call(t, "POST", "/v1/models/late-risk@v2:submit", h.token, "{}"); code != 200 || a["version"].(map[string]any)["revoked_as"] != "v1: leaks the label" {
		t.Errorf("%d %v", code, a)
	}
}

func (h *hub) call(t *testing.T, method, path, token, body string) (int, map[string]any) {
	t.Helper()
	req := check[*http.Request](t)(http.NewRequestWithContext(context.Background(), method, h.url+path, strings.NewReader(body)))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res := check[*http.Response](t)(http.DefaultClient.Do(req))
	raw := check[[]byte](t)(io.ReadAll(res.Body))
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s %s: %d, not JSON: %s", method, path, res.StatusCode, raw)
	}
	return res.StatusCode, out
}

func order(deadline time.Time) string {
	return `{"order_id":"ORD-123","items":[{"sku":"SKU-1","qty":1}],"customer_lat":40.7128,"customer_lng":-74.0060,"deadline":"` + deadline.UTC().Format(time.RFC3339) + `"}`
}

func TestDecide_TheContract(t *testing.T) {
	t.Parallel()
	h := setup(t)
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(48*time.Hour)))
	if code != 200 || a["warehouse"] != "WH-NY-1" || a["carrier"] != "CarrierX" || a["service_level"] != "TwoDay" || a["route_id"] == nil || a["receipt"] == nil {
		t.Fatalf("%d %v", code, a)
	}
	code, d := h.call(t, "GET", "/v1/decisions/"+a["decision_id"].(string), h.token, "")
	if w, ok := d["decision"].(map[string]any); code != 200 || !ok || !strings.Contains(w["sentence"].(string), "approved by bob") {
		t.Fatalf("%d %v", code, d)
	}
	if code, r := h.call(t, "POST", "/v1/decisions/"+a["decision_id"].(string)+":replay", h.token, "{}"); code != 200 || r["equal"] != true {
		t.Fatalf("%d %v", code, r)
	}
	if code, s := h.call(t, "GET", "/v1/decisions?business_key=ORD-123", h.token, ""); code != 200 || len(s["decisions"].([]any)) != 1 {
		t.Fatalf("%d %v", code, s)
	}
	if code, _ := h.call(t, "GET", "/v1/decisions/"+a["decision_id"].(string), h.otherToken, ""); code != 404 {
		t.Fatalf("another tenant reads the decision: %d", code)
	}
}
