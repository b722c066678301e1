package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"waybill"
	"waybill/internal/access"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
	"waybill/registry"
)

// written is a print of everything that a hub keeps: rows and contents of every table, and every object. The outbox is
// empty first, so that events on their way into the log are no change. Checkpoints are left out: a read makes them.
func (h *hub) written(t *testing.T) map[string]string {
	t.Helper()
	ctx := context.Background()
	for waiting := 1; waiting > 0; {
		if err := h.pool.QueryRow(ctx, "SELECT count(*) FROM audit.outbox").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if waiting > 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	var tables []string
	if err := h.pool.QueryRow(ctx, `SELECT array_agg(table_schema || '.' || table_name ORDER BY 1) FROM information_schema.tables
WHERE table_schema IN ('access', 'audit', 'decision', 'drift', 'featurestore', 'lineage', 'registry') AND table_type = 'BASE TABLE'
AND table_schema || '.' || table_name NOT IN ('audit.checkpoint', 'drift.flush')`).Scan(&tables); err != nil {
		t.Fatal(err)
	}
	if len(tables) < 25 {
		t.Fatalf("only %d tables: %v", len(tables), tables)
	}
	out := map[string]string{}
	for _, table := range tables {
		var rows int
		var sum string
		if err := h.pool.QueryRow(ctx, "SELECT count(*), md5(coalesce(string_agg(md5(r::text), '' ORDER BY md5(r::text)), '')) FROM "+table+" r").Scan(&rows, &sum); err != nil {
			t.Fatal(err)
		}
		out[table] = fmt.Sprint(rows, " rows ", sum)
	}
	for o, err := range h.objects.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		out["object "+o.Key] = fmt.Sprint(o.Size)
	}
	return out
}

// unwritten runs f, which the hub must refuse, and fails when anything was left behind.
func (h *hub) unwritten(t *testing.T, f func()) {
	t.Helper()
	before := h.written(t)
	f()
	if diff := cmp.Diff(before, h.written(t)); diff != "" {
		t.Errorf("something was written:\n%s", diff)
	}
}

// refused makes a call that must end in one problem: its status, its code, and a text that names the field and a remedy.
func (h *hub) refused(t *testing.T, method, path, token string, body io.Reader, code int, kind waybill.Code, says ...string) {
	t.Helper()
	h.unwritten(t, func() {
		req := check[*http.Request](t)(http.NewRequestWithContext(context.Background(), method, h.url+path, body))
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res := check[*http.Response](t)(http.DefaultClient.Do(req))
		raw := check[[]byte](t)(io.ReadAll(res.Body))
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		var p struct {
			Title, Detail, Code string
			Status              int
			Violations          []struct{ Field, Remedy string }
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			t.Fatalf("%d, not JSON: %s", res.StatusCode, raw)
		}
		if res.StatusCode != code || p.Status != code || p.Code != string(kind) || p.Title != http.StatusText(code) || p.Detail == "" {
			t.Errorf("%d %s; want %d %s", res.StatusCode, raw, code, kind)
		}
		if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("content type %q", got)
		}
		for _, v := range p.Violations {
			if v.Field == "" || len(v.Remedy) < 10 {
				t.Errorf("a violation without field or remedy: %s", raw)
			}
		}
		for _, s := range says {
			if !strings.Contains(p.Detail, s) {
				t.Errorf("the detail %q does not say %q", p.Detail, s)
			}
		}
	})
}

// Every kind of bad input over REST: one clear error, and nothing written.
func TestBadInput_REST(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	good := order(time.Now().Add(time.Hour))
	with := func(old, replacement string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the order has no %s", old)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	// A token that was good for an hour, made two hours ago; and one that was withdrawn.
	past := check[*access.Access](t)(access.Open(ctx, h.pool, access.Config{Env: access.Dev, Clock: func() time.Time { return time.Now().UTC().Add(-2 * time.Hour) }}))
	_, expired, err := past.IssueToken(ctx, h.ann, access.Grant{}, "ann", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.access.AwaitRev(ctx, past.Rev()); err != nil {
		t.Fatal(err)
	}
	token, revoked, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, "ann", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	check[int64](t)(h.access.RevokeToken(ctx, h.ann, token.ID))
	_, narrow, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, "ann", time.Hour, []string{access.Read})
	if err != nil {
		t.Fatal(err)
	}
	// A model that waits for approval, and one whose author asks to approve it.
	v := check[registry.Version](t)(h.models.CreateVersion(ctx, h.ann, registry.NewVersion{Model: "waiting", Format: registry.Rules, Entrypoint: "model", Automation: registry.Advisory}))
	check[registry.Artifact](t)(h.models.UploadArtifact(ctx, h.ann, v.Ref(), "model", strings.NewReader(string(testdata(t, "route-rules")))))
	v = check[registry.Version](t)(h.models.Submit(ctx, h.ann, v.Ref()))
	for _, role := range []string{"approver", "data-scientist", "operator"} {
		check[int64](t)(h.access.BindRole(ctx, h.ann, "ann", role))
	}
	code, made := h.call(t, "POST", "/v1/decide/route", h.token, good)
	if code != 200 {
		t.Fatal(code, made)
	}
	decided := "/v1/decisions/" + made["decision_id"].(string)
	if code, made = h.call(t, "POST", "/v1/decide/route?idempotency_key=k1", h.token, good); code != 200 {
		t.Fatal(code, made)
	}
	yaml := func(doc string) string {
		return string(check[[]byte](t)(json.Marshal(map[string]string{"yaml": doc, "reason": "try"})))
	}
	endpoint := string(testdata(t, "endpoint.yaml"))
	const decide = "/v1/decide/route"
	big := `{"order_id":"` + strings.Repeat("x", 2<<20) + `"}`
	type cases []struct {
		name, method, path, token, body string
		code                            int
		kind                            waybill.Code
		says                            []string
	}
	for _, c := range (cases{
		// Who is calling.
		{"NoToken", "POST", decide, "", good, 401, waybill.Unauthenticated, []string{"Authorization", "Bearer"}},
		{"MalformedToken", "POST", decide, "wb_dev_x", good, 401, waybill.Unauthenticated, []string{"token is malformed", "copied as a whole"}},
		{"CutToken", "POST", decide, h.token[:len(h.token)-1], good, 401, waybill.Unauthenticated, []string{"token is malformed"}},
		{"ExpiredToken", "POST", decide, expired, good, 401, waybill.Unauthenticated, []string{"token has expired", "new one"}},
		{"RevokedToken", "POST", decide, revoked, good, 401, waybill.Unauthenticated, []string{"token was revoked", "new one"}},
		{"TokenOfOtherScope", "POST", decide, narrow, good, 403, waybill.Denied, []string{"decide"}},
		{"ForeignTenant", "POST", decide, h.otherToken, good, 404, waybill.NotFound, []string{`no endpoint "route"`, "/v1/endpoints"}},
		{"ForeignTenantReads", "GET", decided, h.otherToken, "", 404, waybill.NotFound, []string{"no decision", "/v1/decisions?"}},
		{"ForeignTenantReports", "POST", decided + "/outcome", h.otherToken, `{"name":"late","value":true,"event_time":"2026-04-10T18:00:00Z"}`, 404, waybill.NotFound, []string{"no decision"}},
		{"ForeignTenantModel", "GET", "/v1/models/late-risk@v1", h.otherToken, "", 404, waybill.NotFound, []string{"late-risk"}},
		// Where to.
		{"UnknownEndpoint", "POST", "/v1/decide/nowhere", h.token, good, 404, waybill.NotFound, []string{`no endpoint "nowhere"`, "/v1/endpoints"}},
		{"NoEndpointName", "POST", "/v1/decide/No%20Where", h.token, good, 400, waybill.Invalid, []string{"endpoint", "use a lower-case letter"}},
		{"NoRoute", "GET", "/v1/nothing", h.token, "", 404, waybill.NotFound, []string{"/v1/nothing", "/openapi.json"}},
		{"WrongMethod", "DELETE", decide, h.token, "", 405, waybill.Invalid, []string{"DELETE", "/openapi.json"}},
		{"UnknownQueryField", "GET", "/v1/decisions?endpiont=route", h.token, "", 400, waybill.Invalid, []string{"endpiont", "business_key"}},
		// What is asked of an endpoint.
		{"UnknownField", "POST", decide, h.token, with("{", `{"coupon":"X",`), 400, waybill.Invalid, []string{"coupon", "leave it out or use one of order_id"}},
		{"UnknownFieldInItem", "POST", decide, h.token, with(`"qty":1`, `"qty":1,"colour":"red"`), 400, waybill.Invalid, []string{"items[0].colour", "leave it out"}},
		{"WrongType", "POST", decide, h.token, with("40.7128", `"north"`), 400, waybill.Invalid, []string{"customer_lat", `"north"`, "give a number"}},
		{"WrongTypeList", "POST", decide, h.token, with(`[{"sku":"SKU-1","qty":1}]`, `"SKU-1"`), 400, waybill.Invalid, []string{"items", "give a list"}},
		{"WrongTypeInItem", "POST", decide, h.token, with(`"qty":1`, `"qty":"one"`), 400, waybill.Invalid, []string{"items[0].qty", "give a number"}},
		{"NotWhole", "POST", decide, h.token, with(`"qty":1`, `"qty":1.5`), 400, waybill.Invalid, []string{"items[0].qty", "give a whole number"}},
		{"LatitudeOutOfRange", "POST", decide, h.token, with("40.7128", "140"), 400, waybill.Invalid, []string{"customer_lat", "140", "from -90 to 90"}},
		{"LongitudeOutOfRange", "POST", decide, h.token, with("-74.0060", "-180.5"), 400, waybill.Invalid, []string{"customer_lng", "-180.5", "from -180 to 180"}},
		{"NumberOutOfRange", "POST", decide, h.token, with("40.7128", "1e400"), 400, waybill.Invalid, []string{"1e400"}},
		{"EmptyItems", "POST", decide, h.token, with(`[{"sku":"SKU-1","qty":1}]`, "[]"), 400, waybill.Invalid, []string{"items", "has 0 items", "give 1 to"}},
		{"MissingField", "POST", decide, h.token, with(`"order_id":"ORD-123",`, ""), 400, waybill.Invalid, []string{"order_id", "is missing", "give a text"}},
		{"EmptyText", "POST", decide, h.token, with("ORD-123", ""), 400, waybill.Invalid, []string{"order_id", "is empty", "give a text"}},
		{"LongText", "POST", decide, h.token, with("ORD-123", strings.Repeat("x", 65)), 400, waybill.Invalid, []string{"order_id", "65 bytes", "at most 64"}},
		{"ZeroByteInText", "POST", decide, h.token, with("ORD-123", `ORD\u0000`), 400, waybill.Invalid, []string{"order_id", "U+0000", "leave it out"}},
		{"PastDeadline", "POST", decide, h.token, order(time.Now().Add(-time.Hour)), 400, waybill.Invalid, []string{"deadline", "lies in the past", "give a time after now"}},
		{"DeadlineNoTime", "POST", decide, h.token, with(`"deadline":"`, `"deadline":"x`), 400, waybill.Invalid, []string{"deadline", "give a time as"}},
		{"EmptyBody", "POST", decide, h.token, "", 400, waybill.Invalid, []string{"order_id", "is missing"}},
		{"NullBody", "POST", decide, h.token, "null", 400, waybill.Invalid, []string{"body"}},
		{"ListBody", "POST", decide, h.token, "[1]", 400, waybill.Invalid, []string{"body"}},
		{"NotJSON", "POST", decide, h.token, "{", 400, waybill.Invalid, []string{"body", "JSON"}},
		{"TwoDocuments", "POST", decide, h.token, good + good, 400, waybill.Invalid, []string{"body", "one JSON"}},
		{"FieldTwice", "POST", decide, h.token, with("{", `{"order_id":"ORD-9",`), 400, waybill.Invalid, []string{"order_id", "duplicate"}},
		{"NotUTF8", "POST", decide, h.token, with("ORD-123", "\xff\xfe"), 400, waybill.Invalid, []string{"body", "UTF-8"}},
		{"TooLarge", "POST", decide, h.token, big, 413, waybill.TooLarge, []string{"body", "at most 1048576"}},
		{"KeyOfAnotherRequest", "POST", decide + "?idempotency_key=k1", h.token, with("ORD-123", "ORD-124"), 409, waybill.Conflict, []string{"Idempotency-Key", "use a new key"}},
		{"LongKey", "POST", decide + "?idempotency_key=" + strings.Repeat("k", 129), h.token, good, 400, waybill.Invalid, []string{"idempotency_key", "at most 128"}},
		// What is asked of the rest.
		{"BadID", "GET", "/v1/decisions/7", h.token, "", 400, waybill.Invalid, []string{"decision_id", "write it as"}},
		{"UnknownFieldOfRPC", "POST", "/v1/accounts", h.token, `{"acount":"zoe","kind":"person"}`, 400, waybill.Invalid, []string{"acount"}},
		{"WrongTypeOfRPC", "POST", "/v1/tokens", h.token, `{"account":"ann","ttl_seconds":"long"}`, 400, waybill.Invalid, []string{"ttl_seconds"}},
		{"WrongTypeInQuery", "GET", "/v1/accounts?page_size=many", h.token, "", 400, waybill.Invalid, []string{"page_size"}},
		{"PageTooLarge", "GET", "/v1/accounts?page_size=1001", h.token, "", 400, waybill.Invalid, []string{"page_size", "1,000"}},
		{"UnknownOutcome", "POST", decided + "/outcome", h.token, `{"name":"lost","value":true,"event_time":"2026-04-10T18:00:00Z"}`, 400, waybill.Invalid, []string{"name", "late"}},
		{"OutcomeWrongType", "POST", decided + "/outcome", h.token, `{"name":"late","value":"yes","event_time":"2026-04-10T18:00:00Z"}`, 400, waybill.Invalid, []string{"value", "is a bool"}},
		{"PushWrongType", "POST", "/v1/views/warehouse_load:push", h.token,
			`{"batch_id":"b1","rows":[{"warehouse":"W","queue":1,"event_time":"2026-04-10T18:00:00Z"},{"warehouse":"W","queue":"x","event_time":"2026-04-10T18:00:00Z"}]}`,
			400, waybill.Invalid, []string{"rows[1].queue", "give float64"}},
		{"PushZeroByte", "POST", "/v1/views/warehouse_load:push", h.token,
			`{"batch_id":"b1\u0000","rows":[{"warehouse":"W","queue":1,"event_time":"2026-04-10T18:00:00Z"}]}`, 400, waybill.Invalid, []string{"batch_id", "U+0000"}},
		{"PushTooLarge", "POST", "/v1/views/warehouse_load:push", h.token, `{"batch_id":"` + strings.Repeat("x", 9<<20) + `"}`, 413, waybill.TooLarge, []string{"body", "at most 8388608"}},
		// What may be approved and served.
		{"FallbackNotApproved", "POST", "/v1/endpoints:publish", h.token, yaml(strings.Replace(endpoint, "route-rules@v1", "waiting@v1", 1)), 409, waybill.Conflict, []string{"waiting@v1 is submitted", "have it approved"}},
		{"UnknownModel", "POST", "/v1/endpoints:publish", h.token, yaml(strings.Replace(endpoint, "late-risk@v1", "late-risk@v9", 1)), 404, waybill.NotFound, []string{"late-risk"}},
		{"UnknownYAMLField", "POST", "/v1/endpoints:publish", h.token, yaml(endpoint + "colour: red\n"), 400, waybill.Invalid, []string{"yaml", "colour"}},
		{"AuthorApproves", "POST", "/v1/models/waiting@v1:approve", h.token, `{"digest":"` + v.Digest + `","reason":"mine"}`, 403, waybill.Denied, []string{"ann"}},
		{"ClaimedDigestDiffers", "POST", "/v1/models/waiting@v1:approve", h.token, `{"digest":"sha256:` + strings.Repeat("0", 64) + `","reason":"looked"}`, 403, waybill.Denied, []string{"ann"}},
	}) {
		t.Run(c.name, func(t *testing.T) {
			h.refused(t, c.method, c.path, c.token, strings.NewReader(c.body), c.code, c.kind, c.says...)
		})
	}
	// A body whose length is not stated is bounded while it is read.
	t.Run("TooLargeUnstated", func(t *testing.T) {
		h.refused(t, "POST", decide, h.token, io.MultiReader(strings.NewReader(big)), 413, waybill.TooLarge, "body", "1048576")
	})
	// Somebody else looked at other bytes than those that are there.
	t.Run("DigestNotLookedAt", func(t *testing.T) {
		h.unwritten(t, func() {
			_, err := h.models.Approve(ctx, h.bob, v.Ref(), "sha256:"+strings.Repeat("0", 64), "looked")
			if waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(err.Error(), v.Digest) {
				t.Error(err)
			}
		})
	})
	if code, a := h.call(t, "POST", decide, h.token, good); code != 200 {
		t.Fatalf("after all that a good order gets %d %v", code, a)
	}
}

// An endpoint whose model nobody approved is answered for by its rules, and the answer says why.
func TestBadInput_UnapprovedModel(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	v := check[registry.Version](t)(h.models.CreateVersion(ctx, h.ann, registry.NewVersion{Model: "late-risk", Format: registry.LightGBM, Entrypoint: "model", Automation: registry.SolelyAutomated}))
	check[registry.Artifact](t)(h.models.UploadArtifact(ctx, h.ann, v.Ref(), "model", strings.NewReader(string(testdata(t, "late-risk")))))
	check[registry.Version](t)(h.models.Submit(ctx, h.ann, v.Ref()))
	if _, _, err := h.service.Publish(ctx, h.ann, []byte(strings.Replace(string(testdata(t, "endpoint.yaml")), "late-risk@v1", "late-risk@v2", 1)), "too early"); err != nil {
		t.Fatal(err)
	}
	h.fallsBack(t, "late-risk@v2 is submitted")
}

// fallsBack demands an answer of the rules that gives the reason, in the answer and in the log.
func (h *hub) fallsBack(t *testing.T, reason string) {
	t.Helper()
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(time.Hour)))
	f, ok := a["fallback"].(map[string]any)
	if code != 200 || !ok || f["by"] != "route-rules@v1" || !strings.Contains(f["reason"].(string), reason) || a["model"] != nil {
		t.Fatalf("%d %v, want the rules to answer because %q", code, a, reason)
	}
	explain := a["explain"].(map[string]any)
	if explain["score"] != 0.2 || len(explain["features"].([]any)) != 0 {
		t.Errorf("%v is not the score of the rules", explain)
	}
	code, d := h.call(t, "GET", "/v1/decisions/"+a["decision_id"].(string), h.token, "")
	if code != 200 || !strings.Contains(d["decision"].(map[string]any)["fallback_reason"].(string), reason) {
		t.Errorf("%d %v does not say %q", code, d, reason)
	}
}

// flip changes one byte of the artifact of a version, in the bucket.
func (h *hub) flip(t *testing.T, model string) {
	t.Helper()
	ctx := context.Background()
	v := check[registry.Version](t)(h.models.Get(ctx, "acme", waybill.VersionRef{Name: model, Version: 1}))
	r, _, err := h.objects.Get(ctx, "models/acme/"+v.Files[0].SHA256)
	if err != nil {
		t.Fatal(err)
	}
	data := check[[]byte](t)(io.ReadAll(r))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if _, err := h.objects.Put(ctx, "models/acme/"+v.Files[0].SHA256, strings.NewReader(string(data)), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

// Changed bytes are never scored with: a node that would have to load them lets the rules answer, and says why.
func TestBadInput_ChangedArtifact(t *testing.T) {
	t.Parallel()
	h := setup(t)
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(time.Hour)))
	if code != 200 || a["model"] != "late-risk@v1" {
		t.Fatal(code, a)
	}
	h.flip(t, "late-risk")
	second := h.second(t)
	second.fallsBack(t, "is corrupt: expected sha256")
	h.refused(t, "POST", "/v1/decisions/"+a["decision_id"].(string)+":replay", h.token, strings.NewReader("{}"), 500, waybill.Corrupt, "late-risk@v1 is corrupt", "expected sha256")
	h.unwritten(t, func() {
		stream, err := registryv1.NewRegistryServiceClient(h.grpc).DownloadArtifact(h.as(h.token), &registryv1.DownloadArtifactRequest{Model: "late-risk@v1", Path: "model"})
		for err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.DataLoss {
			t.Errorf("the download of changed bytes ends in %v", err)
		}
	})
}

// Rules with a changed byte stop neither the hub nor the model; where they would have to answer, nobody does.
func TestBadInput_ChangedRules(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.flip(t, "route-rules")
	second := h.second(t)
	good := order(time.Now().Add(time.Hour))
	if code, a := second.call(t, "POST", "/v1/decide/route", h.token, good); code != 200 || a["model"] != "late-risk@v1" {
		t.Fatal(code, a)
	}
	if _, err := h.models.Revoke(context.Background(), h.bob, waybill.VersionRef{Name: "late-risk", Version: 1}, "no longer"); err != nil {
		t.Fatal(err)
	}
	if err := second.service.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	second.refused(t, "POST", "/v1/decide/route", h.token, strings.NewReader(good), 503, waybill.Unavailable, "late-risk@v1 is revoked", "route-rules@v1 is corrupt")
}

// as is the context of a gRPC caller.
func (h *hub) as(token string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
}

// A bad row in the middle of a file: the error names its line and column, and no row of the batch is there.
func TestBadInput_MalformedCSV(t *testing.T) {
	t.Parallel()
	h := setup(t)
	check[int64](t)(h.access.BindRole(context.Background(), h.ann, "ann", "data-scientist"))
	const head = "warehouse,queue,event_time\nWH-NY-1,0.2,2026-04-10T18:00:00Z\n"
	const tail = "WH-LA-1,0.4,2026-04-10T18:00:00Z\n"
	for _, c := range []struct{ name, row, field, remedy string }{
		{"WrongType", "WH-NY-2,many,2026-04-10T18:00:00Z\n", "line 3, queue", "give float64"},
		{"NoTime", "WH-NY-2,0.3,yesterday\n", "line 3, event_time", "give a time as"},
		{"NoKey", ",0.3,2026-04-10T18:00:00Z\n", "line 3, warehouse", "is required"},
		{"FieldTooFew", "WH-NY-2,0.3\n", "line 3", "has 2 fields; give 3: warehouse, queue, event_time"},
		{"FieldTooMany", "WH-NY-2,0.3,2026-04-10T18:00:00Z,x\n", "line 3", "has 4 fields; give 3"},
		{"OpenQuote", "WH-NY-2,0\"3,2026-04-10T18:00:00Z\n", "line 3, column 10", "quote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.unwritten(t, func() {
				stream, err := featurestorev1.NewFeatureStoreServiceClient(h.grpc).IngestFile(h.as(h.token))
				if err != nil {
					t.Fatal(err)
				}
				for i, part := range []string{head, c.row, tail} {
					m := &featurestorev1.IngestFileRequest{Chunk: []byte(part)}
					if i == 0 {
						m.View, m.BatchId, m.Format = "warehouse_load", "nightly", "csv"
					}
					if err := stream.Send(m); err != nil {
						t.Fatal(err)
					}
				}
				_, err = stream.CloseAndRecv()
				st := status.Convert(err)
				var at []*errdetails.BadRequest_FieldViolation
				for _, d := range st.Details() {
					if b, ok := d.(*errdetails.BadRequest); ok {
						at = b.GetFieldViolations()
					}
				}
				if st.Code() != codes.InvalidArgument || len(at) != 1 || at[0].GetField() != c.field || !strings.Contains(at[0].GetDescription(), c.remedy) {
					t.Errorf("%v %v; want %s and %q", err, at, c.field, c.remedy)
				}
			})
			code, a := h.call(t, "POST", "/v1/services/route-risk:read", h.token, `{"rows":[{"warehouse":"WH-NY-1","km":1},{"warehouse":"WH-LA-1","km":1}]}`)
			if text := string(check[[]byte](t)(json.Marshal(a))); code != 200 || strings.Contains(text, "PRESENT\",\"value\":0.") || strings.Count(text, "NOT_FOUND") < 2 {
				t.Errorf("rows of the batch are there: %d %s", code, text)
			}
		})
	}
}
