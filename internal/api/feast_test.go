package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/access"
	feastcore "waybill/proto/feast/core"
	feastserving "waybill/proto/feast/serving"
	feasttypes "waybill/proto/feast/types"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// feastSays is the error that a Feast client makes an exception of.
type feastSays struct{ Module, Class, Message string }

// post sends a body to the Feast door. Every answer beyond 399 must be a JSON text that holds JSON.
func (h *hub) post(t *testing.T, path, token, body string) (int, string, feastSays) {
	t.Helper()
	req := check[*http.Request](t)(http.NewRequestWithContext(context.Background(), http.MethodPost, h.url+"/feast"+path, strings.NewReader(body)))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res := check[*http.Response](t)(http.DefaultClient.Do(req))
	raw := check[[]byte](t)(io.ReadAll(res.Body))
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	var says feastSays
	if res.StatusCode >= 400 {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			t.Fatalf("%s: %d is no JSON text: %s", path, res.StatusCode, raw)
		}
		if err := json.Unmarshal([]byte(text), &says); err != nil || says.Module != "feast.errors" || says.Class == "" || says.Message == "" {
			t.Fatalf("%s: %d holds no error of Feast's: %s", path, res.StatusCode, raw)
		}
	}
	return res.StatusCode, string(raw), says
}

// The body is that of Feast's own server: columns, entities first, three lists of one length, in one order.
func TestFeast_TheBody(t *testing.T) {
	t.Parallel()
	h := feastHub(t)
	code, body, _ := h.post(t, "/get-online-features", h.token, `{"entities":{"driver_id":[1002,9]},"features":["drivers@v2:conv_rate","drivers:trips","drivers:trips"]}`)
	const epoch = `"1970-01-01T00:00:00Z"`
	var parsed struct {
		Results []struct {
			EventTimestamps []string `json:"event_timestamps"`
		}
	}
	if err := json.Unmarshal([]byte(body), &parsed); err != nil || code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	at := `"` + parsed.Results[1].EventTimestamps[0] + `"`
	want := `{"metadata":{"feature_names":["driver_id","conv_rate","trips"]},"results":[` +
		`{"values":[1002,9],"statuses":["PRESENT","PRESENT"],"event_timestamps":[` + epoch + `,` + epoch + `]},` +
		`{"values":[1.0,null],"statuses":["PRESENT","NOT_FOUND"],"event_timestamps":[` + at + `,` + epoch + `]},` +
		`{"values":[null,null],"statuses":["NULL_VALUE","NOT_FOUND"],"event_timestamps":[` + at + `,` + epoch + `]}],"status":true}`
	if body != want {
		t.Errorf("%s\nnot\n%s", body, want)
	}
	if n := len(at); n > len(`"2006-01-02T15:04:05.000000Z"`) {
		t.Errorf("%s has more than microseconds", at)
	}
}

// Feast's clients send no id with a write and repeat one whose answer is lost. A value that is taken back is not a repeat: the
// last write counts, online and as of any time, and one that is sent again writes nothing while it is the last.
func TestFeast_ValuesAreTakenBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := feastHub(t)
	const service = "kind: Service\nname: loads\ninputs: [{name: driver_id, type: int64}]\nfeatures: [\"empty@latest:load\"]\n"
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(service))), "for the past"))
	view := waybill.VersionRef{Name: "empty"}
	push := func(load int) {
		t.Helper()
		body := fmt.Sprintf(`{"push_source_name":"empty","df":{"driver_id":[1,2],"load":[%d,7],"event_timestamp":["2026-01-01T00:00:00","2026-01-01T00:00:00"]}}`, load)
		if code, body, _ := h.post(t, "/push", h.token, body); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
	}
	type state struct {
		commits, rows int64
		online        string
	}
	look := func() state {
		t.Helper()
		v := check[featurestore.ViewInfo](t)(h.features.ViewInfo(ctx, "acme", view))
		_, body, _ := h.post(t, "/get-online-features", h.token, `{"entities":{"driver_id":[1]},"features":["empty:load"]}`)
		_, values, _ := strings.Cut(body, `{"values":[1],`)
		_, values, _ = strings.Cut(values, `{"values":[`)
		online, _, _ := strings.Cut(values, "]")
		return state{v.Commits, v.Rows, online}
	}
	var known []time.Time // of each value, when it had been learned
	want := []struct {
		load int
		state
	}{{5, state{1, 2, "5.0"}}, {5, state{1, 2, "5.0"}}, {6, state{2, 4, "6.0"}}, {5, state{3, 6, "5.0"}}, {5, state{3, 6, "5.0"}}, {6, state{4, 8, "6.0"}}, {5, state{5, 10, "5.0"}}}
	for i, w := range want {
		push(w.load)
		if got := look(); got != w.state {
			t.Errorf("write %d, of %d: %+v, want %+v", i, w.load, got, w.state)
		}
		known = append(known, time.Now())
	}
	for i, w := range want {
		set := check[featurestore.TrainingSet](t)(h.features.CreateTrainingSet(ctx, h.ann, featurestore.TrainingSetRequest{Name: "then", Service: waybill.VersionRef{Name: "loads"},
			Format: featurestore.CSV, TimeColumn: "at", Cutoff: known[i], Spine: strings.NewReader("driver_id,at\n1,2026-02-01\n2,2026-02-01\n")}))
		if c := set.Columns[2]; c.Rows != 2 || c.Min != float64(w.load) || c.Max != 7 {
			t.Errorf("as known after write %d: %+v, want %d", i, c, w.load)
		}
	}
}

// Every refusal is named, is an exception of Feast's, and none is a server's fault, which clients would retry.
func TestFeast_Refusals(t *testing.T) {
	t.Parallel()
	h := feastHub(t)
	const ok = `"entities":{"driver_id":[1]}`
	for _, c := range []struct {
		path, body  string
		code        int
		class, says string
	}{
		{"/get-online-features", `{` + ok + `}`, 400, "FeastError", "view:feature"},
		{"/get-online-features", `{` + ok + `,"features":[]}`, 400, "FeastError", "view:feature"},
		{"/get-online-features", `{` + ok + `,"features":["drivers"]}`, 400, "FeastError", "features[0]"},
		{"/get-online-features", `{` + ok + `,"features":["drivers:load"],"feature_service":"dispatch"}`, 400, "FeastError", "one of the two"},
		{"/get-online-features", `{` + ok + `,"features":["drivers@v7:load"]}`, 404, "FeatureViewNotFoundException", "drivers@v7"},
		{"/get-online-features", `{` + ok + `,"features":["drivers:ghost"]}`, 400, "FeastError", "no feature ghost"},
		{"/get-online-features", `{` + ok + `,"feature_service":"ghost"}`, 404, "FeatureServiceNotFoundException", "ghost"},
		{"/get-online-features", `{"features":["drivers:load"]}`, 400, "FeastError", "1 to 1,000 rows"},
		{"/get-online-features", `{"entities":{"driver_id":[]},"features":["drivers:load"]}`, 400, "FeastError", "1 to 1,000 rows"},
		{"/get-online-features", `{"entities":{"warehouse":["WH-1"]},"features":["lanes:load"]}`, 400, "FeastError", "entities.lane is missing"},
		{"/get-online-features", `{"entities":{"warehouse":["WH-1"],"lane":[null]},"features":["lanes:load"]}`, 400, "FeastError", "entities.lane[0]"},
		{"/get-online-features", `{"entities":{"driver_id":[1],"lane":[1]},"features":["drivers:load"]}`, 400, "FeastError", "entities.lane is no input"},
		{"/get-online-features", `{"entities":{"driver_id":[[1]]},"features":["drivers:load"]}`, 400, "FeastError", "entities.driver_id[0]"},
		{"/get-online-features", `{"entities":{"driver_id":[1],"warehouse":["a"],"lane":[1]},"features":["drivers:load","lanes:load"]}`, 400, "FeatureNameCollisionError", "full_feature_names"},
		{"/get-online-features", `[]`, 400, "FeastError", "body"},
		{"/get-online-features", `{`, 400, "FeastError", "byte 1"},
		{"/get-online-features", ``, 400, "FeastError", "body"},
		{"/get-online-features", `{"entities":{"driver_id":[` + strings.Repeat("7,", 1_000_000) + `7]},"features":["drivers:load"]}`, 413, "FeastError", "at most 1048576"},
		{"/push", `{"push_source_name":"ghosts","df":{"a":[1]}}`, 422, "PushSourceNotFoundException", "ghosts"},
		{"/push", `{"push_source_name":"drivers","df":{}}`, 400, "FeastError", "1 to 10000 rows"},
		{"/push", `{"push_source_name":"drivers","df":{"driver_id":[1]}}`, 400, "FeastError", "df.conv_rate is missing"},
		{"/push", `{"push_source_name":"../drivers","df":{"driver_id":[1]}}`, 400, "FeastError", "push_source_name"},
		{"/write-to-online-store", `{"feature_view_name":"ghosts","df":{"a":[1]}}`, 404, "FeatureViewNotFoundException", "ghosts"},
		{"/write-to-online-store", `{"feature_view_name":"empty","df":{"driver_id":[1],"load":[1],"event_timestamp":["2199-01-01T00:00:00"]}}`, 400, "FeastError", "df.event_timestamp[0] lies in the future"},
		{"/write-to-online-store", `{"feature_view_name":"empty","df":{"driver_id":[1],"load":[1],"event_timestamp":["2026-01-01T00:00:00"],"ghost":[1]}}`, 400, "FeastError", "df.ghost"},
		{"/write-to-online-store", `{"feature_view_name":"empty","df":{"driver_id":[` + strings.Repeat("7,", 10_000) + `7]}}`, 413, "FeastError", "more than 10000 rows"},
		{"/materialize", `{"end_ts":"2026-01-01"}`, 400, "FeastError", "start_ts"},
		{"/materialize", `{"start_ts":"2026-01-02","end_ts":"2026-01-01"}`, 400, "FeastError", "before start_ts"},
		{"/materialize-incremental", `{"end_ts":"2026-01-01","feature_views":["drivers"],"version":"7"}`, 400, "FeastError", "feature_views[0]"},
		{"/retrieve-online-documents", `{"features":["lanes:place"],"query":[1.0]}`, 501, "FeastError", "does not search"},
		{"/chat", `{}`, 404, "FeastError", "/feast/chat"},
	} {
		code, body, says := h.post(t, c.path, h.token, c.body)
		if code != c.code || says.Class != c.class || !strings.Contains(says.Message, c.says) {
			t.Errorf("%s %.80s: %d %.400s; want %d %s %s", c.path, c.body, code, body, c.code, c.class, c.says)
		}
	}
}

// The rights are those of our own API, name by name; strangers and other tenants get nothing.
func TestFeast_Rights(t *testing.T) {
	t.Parallel()
	h := feastHub(t)
	ctx := context.Background()
	token := func(id string, rules ...access.Rule) string {
		t.Helper()
		admin := waybill.Actor{ID: "ann", Tenant: "acme", Kind: waybill.Person}
		check[access.Account](t)(h.access.CreateAccount(ctx, admin, access.Account{ID: id, Kind: waybill.Service}))
		for _, r := range rules {
			r.Subject, r.Tenant = "account:"+id, "acme"
			check[int64](t)(h.access.AddRule(ctx, admin, r))
		}
		_, text, err := h.access.IssueToken(ctx, admin, access.Grant{}, id, time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	allow := func(object, action string) access.Rule {
		return access.Rule{Object: object, Action: action, Effect: access.Allow}
	}
	onlyDrivers := token("only-drivers", allow("view/drivers", "read"))
	allBut := token("all-but", allow("view/*", "read"), access.Rule{Object: "view/lanes", Action: "read", Effect: access.Deny})
	serving := token("serving", allow("service/*", "read"))
	read := func(features string) string {
		return `{"entities":{"warehouse":["WH-1"],"lane":[1],"driver_id":[1001]},"features":[` + features + `],"full_feature_names":true}`
	}
	service := `{"entities":{"warehouse":["WH-1"],"lane":[1],"driver_id":[1001],"km":[1.5]},"feature_service":"dispatch"}`
	row := `{"push_source_name":"empty","df":{"driver_id":[1],"load":[1],"event_timestamp":["2026-01-01T00:00:00"]}}`
	for i, c := range []struct {
		token, path, body string
		code              int
	}{
		{"", "/get-online-features", "{", 401},
		{"wb_dev_nonsense", "/push", "{", 401},
		{onlyDrivers, "/get-online-features", `{"entities":{"driver_id":[1001]},"features":["drivers:load"]}`, 200},
		{onlyDrivers, "/get-online-features", `{"entities":{"driver_id":[1001]},"features":["drivers.v1:load"]}`, 200},
		{onlyDrivers, "/get-online-features", read(`"drivers:load","lanes:load"`), 403},
		{onlyDrivers, "/get-online-features", read(`"ghosts:load"`), 403}, // not even whether it exists
		{onlyDrivers, "/get-online-features", service, 403},
		{onlyDrivers, "/push", row, 403},
		{onlyDrivers, "/materialize-incremental", `{"end_ts":"2026-01-01","feature_views":["lanes"]}`, 403},
		{allBut, "/get-online-features", read(`"drivers:load","lanes:load"`), 403},
		{allBut, "/get-online-features", read(`"lanes@v1:load"`), 403},
		{allBut, "/get-online-features", read(`"lanes.v1:load"`), 403},
		{serving, "/get-online-features", service, 200},
		{serving, "/get-online-features", read(`"drivers:load"`), 403},
		{h.otherToken, "/get-online-features", service, 404},
		{h.token, "/push", row, 200},
	} {
		if code, body, says := h.post(t, c.path, c.token, c.body); code != c.code || (code == 401 || code == 403) && says.Class != "FeastPermissionError" {
			t.Errorf("%d: %s %.120s: %d %.300s; want %d", i, c.path, c.body, code, body, c.code)
		}
	}
	// Waiting for all views does not name those that may not be read.
	if code, body, _ := h.post(t, "/materialize-incremental?async=true", allBut, `{"end_ts":"2026-01-01"}`); code != 202 || strings.Contains(body, "lanes") || !strings.Contains(body, "drivers") {
		t.Errorf("materialize: %d %s", code, body)
	}
	// Over gRPC too.
	client := feastserving.NewServingServiceClient(h.grpc)
	for i, c := range []struct {
		token   string
		feature string
		code    codes.Code
	}{{"", "drivers:trips", codes.Unauthenticated}, {onlyDrivers, "drivers:trips", codes.OK}, {onlyDrivers, "lanes:load", codes.PermissionDenied}, {serving, "drivers:trips", codes.PermissionDenied},
		{allBut, "lanes.v1:load", codes.PermissionDenied}} {
		if _, err := client.GetOnlineFeatures(bearing(c.token), asking(c.feature, "driver_id", int64Value(1001))); status.Code(err) != c.code {
			t.Errorf("%d: %v; want %v", i, err, c.code)
		}
	}
	// The registry leaves out what may not be read.
	reg := h.registry(t, h.token)
	if len(reg.GetFeatureViews()) != 5 || len(reg.GetFeatureServices()) != 2 {
		t.Errorf("%d views, %d services", len(reg.GetFeatureViews()), len(reg.GetFeatureServices()))
	}
	some := token("some", allow("view/*", "read"), allow("service/*", "read"), access.Rule{Object: "view/lanes", Action: "read", Effect: access.Deny})
	if text := h.registry(t, some).String(); strings.Contains(text, "lanes") || strings.Contains(text, "dispatch") || !strings.Contains(text, "drivers") {
		t.Errorf("the registry shows what may not be read: %s", text)
	}
}

func bearing(token string) context.Context {
	if token == "" {
		return context.Background()
	}
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
}

func int64Value(n int64) *feasttypes.Value {
	return &feasttypes.Value{Val: &feasttypes.Value_Int64Val{Int64Val: n}}
}

func asking(feature, key string, values ...*feasttypes.Value) *feastserving.GetOnlineFeaturesRequest {
	return &feastserving.GetOnlineFeaturesRequest{Kind: &feastserving.GetOnlineFeaturesRequest_Features{Features: &feastserving.FeatureList{Val: strings.Split(feature, " ")}},
		Entities: map[string]*feasttypes.RepeatedValue{key: {Val: values}}}
}

// registry fetches the registry file.
func (h *hub) registry(t *testing.T, token string) *feastcore.Registry {
	t.Helper()
	req := check[*http.Request](t)(http.NewRequestWithContext(context.Background(), http.MethodGet, h.url+"/feast/registry.db", nil))
	req.Header.Set("Authorization", "Bearer "+token)
	res := check[*http.Response](t)(http.DefaultClient.Do(req))
	raw := check[[]byte](t)(io.ReadAll(res.Body))
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s %v", res.StatusCode, raw, err)
	}
	reg := &feastcore.Registry{}
	if err := proto.Unmarshal(raw, reg); err != nil {
		t.Fatal(err)
	}
	return reg
}

// Both gRPC services read and write with types of their own, which JSON has not.
func TestFeast_GRPC(t *testing.T) {
	t.Parallel()
	h := feastHub(t)
	ctx := bearing(h.token)
	serving, server := feastserving.NewServingServiceClient(h.grpc), feastserving.NewGrpcFeatureServerClient(h.grpc)
	if info, err := serving.GetFeastServingInfo(ctx, &feastserving.GetFeastServingInfoRequest{}); err != nil || info == nil {
		t.Error(err)
	}
	text := func(s string) *feasttypes.Value {
		return &feasttypes.Value{Val: &feasttypes.Value_StringVal{StringVal: s}}
	}
	req := asking("lanes:queue lanes:share lanes:cutoff lanes:holidays lanes:codes lanes:hours lanes:place lanes:price lanes:seal lanes:open", "warehouse", text("WH-1"), text("WH-1"), text("WH-2"), text("WH-3"))
	req.RequestContext = map[string]*feasttypes.RepeatedValue{"lane": {Val: []*feasttypes.Value{int64Value(1), int64Value(2), int64Value(1), int64Value(1)}}}
	req.IncludeFeatureViewVersionMetadata = true
	a := check[*feastserving.GetOnlineFeaturesResponse](t)(serving.GetOnlineFeatures(ctx, req))
	b := check[*feastserving.GetOnlineFeaturesResponse](t)(server.GetOnlineFeatures(ctx, req))
	if !proto.Equal(a, b) {
		t.Errorf("the two services differ:\n%v\n%v", a, b)
	}
	if got := fmt.Sprint(a.GetMetadata().GetFeatureNames().GetVal()); got != "[lane warehouse queue share cutoff holidays codes hours place price seal open]" {
		t.Error(got)
	}
	if m := a.GetMetadata().GetFeatureViewMetadata(); len(m) != 1 || m[0].GetName() != "lanes" || m[0].GetVersion() != 1 {
		t.Error(m)
	}
	first := func(i int) *feasttypes.Value { return a.GetResults()[i].GetValues()[0] }
	if first(2).GetInt64Val() != 4 || first(3).GetFloatVal() != 0.1 || first(4).GetUnixTimestampVal() != 1776103200 || fmt.Sprint(first(5).GetUnixTimestampListVal().GetVal()) != "[1776103200 1776189600]" ||
		fmt.Sprint(first(6).GetStringListVal().GetVal()) != "[a b]" || fmt.Sprint(first(7).GetDoubleListVal().GetVal()) != "[0.5 1]" ||
		fmt.Sprint(first(8).GetFloatListVal().GetVal()) != "[0.25 -1 3]" || first(9).GetStringVal() != "12.5" || !bytes.Equal(first(10).GetBytesVal(), []byte{0, 255}) || !first(11).GetBoolVal() {
		t.Errorf("%v", a.GetResults())
	}
	if got := fmt.Sprint(a.GetResults()[2].GetStatuses(), a.GetResults()[5].GetStatuses()); got != "[PRESENT PRESENT OUTSIDE_MAX_AGE NOT_FOUND] [PRESENT NULL_VALUE OUTSIDE_MAX_AGE NOT_FOUND]" {
		t.Error(got)
	}
	// One row, as texts and typed; the same row twice is one commit.
	rows := map[string]*feasttypes.Value{"driver_id": int64Value(7), "load": {Val: &feasttypes.Value_DoubleVal{DoubleVal: 2.5}}, "event_timestamp": {Val: &feasttypes.Value_UnixTimestampVal{UnixTimestampVal: 1767225600}}}
	for range 2 {
		check[*feastserving.PushResponse](t)(server.Push(ctx, &feastserving.PushRequest{StreamFeatureView: "empty", To: "online", TypedFeatures: rows}))
	}
	check[*feastserving.WriteToOnlineStoreResponse](t)(server.WriteToOnlineStore(ctx, &feastserving.WriteToOnlineStoreRequest{FeatureViewName: "empty",
		Features: map[string]string{"driver_id": "8", "load": "3.5", "event_timestamp": "2026-01-01T00:00:00"}}))
	a = check[*feastserving.GetOnlineFeaturesResponse](t)(serving.GetOnlineFeatures(ctx, asking("empty:load", "driver_id", int64Value(7), int64Value(8))))
	if v := a.GetResults()[1].GetValues(); v[0].GetDoubleVal() != 2.5 || v[1].GetDoubleVal() != 3.5 {
		t.Error(v)
	}
	// What this hub has not is refused and not read as null; what is too large is refused before it is decoded.
	strange := &feasttypes.Value{}
	strange.ProtoReflect().SetUnknown([]byte{0xa2, 0x01, 0x00}) // field 20, a map
	million := make([]*feasttypes.Value, 1_000_000)
	for i := range million {
		million[i] = int64Value(7)
	}
	for _, c := range []struct {
		req  *feastserving.GetOnlineFeaturesRequest
		code codes.Code
		says string
	}{
		{asking("empty:load", "driver_id", strange), codes.InvalidArgument, "entities.driver_id is of a type"},
		{asking("empty:load", "driver_id", million...), codes.OutOfRange, "at most 1048576 bytes"},
		{asking("empty:load", "driver_id", million[:1001]...), codes.OutOfRange, "1001 rows"},
		{asking("empty", "driver_id", million[0]), codes.InvalidArgument, "features[0]"},
		{asking("ghost:load", "driver_id", million[0]), codes.NotFound, "ghost"},
	} {
		if _, err := serving.GetOnlineFeatures(ctx, c.req); status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.80v: %v; want %v %s", c.req, err, c.code, c.says)
		}
	}
}

// A value of a view that stands in is present, with the time of its own row; what is secret is for those who may see it.
func TestFeast_FallbackAndSecrets(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := context.Background()
	check[int64](t)(h.access.BindRole(ctx, h.ann, h.ann.ID, "data-scientist"))
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(`
kind: View
name: categories
entity: {name: category, keys: [{name: category, type: string}]}
features: [{name: demand, type: float64}]
---
kind: View
name: skus
entity: {name: sku, keys: [{name: sku, type: string}]}
features: [{name: demand, type: float64}, {name: buyer, type: string, sensitivity: secret}]
expressions: [{name: twice, type: float64, expr: "demand * 2.0"}]
fallback: {view: categories}
`))), "for Feast clients"))
	check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "categories"}, BatchID: "1",
		Rows: []map[string]any{{"category": "shoes", "demand": 4.0, "event_time": "2026-01-01T00:00:00.25Z"}}}))
	code, body, _ := h.post(t, "/get-online-features", h.token, `{"entities":{"sku":["new","new"],"category":["shoes","hats"]},"features":["skus:demand","skus:twice"]}`)
	const epoch, then = `"1970-01-01T00:00:00Z"`, `"2026-01-01T00:00:00.250Z"`
	want := `{"values":[4.0,null],"statuses":["PRESENT","NOT_FOUND"],"event_timestamps":[` + then + `,` + epoch + `]},` +
		`{"values":[8.0,null],"statuses":["PRESENT","NOT_FOUND"],"event_timestamps":[` + then + `,` + epoch + `]}]`
	if code != 200 || !strings.Contains(body, want) {
		t.Errorf("%d %s\nlacks\n%s", code, body, want)
	}
	secret := `{"entities":{"sku":["new"]},"features":["skus:buyer"]}`
	if code, body, says := h.post(t, "/get-online-features", h.token, secret); code != 403 || !strings.Contains(says.Message, "read_personal on view/skus") {
		t.Errorf("%d %s", code, body)
	}
	if _, err := feastserving.NewServingServiceClient(h.grpc).GetOnlineFeatures(bearing(h.token), asking("skus:buyer", "sku", &feasttypes.Value{Val: &feasttypes.Value_StringVal{StringVal: "new"}})); status.Code(err) != codes.PermissionDenied {
		t.Errorf("gRPC: %v", err)
	}
	check[int64](t)(h.access.BindRole(ctx, h.ann, h.ann.ID, "compliance"))
	if code, body, _ := h.post(t, "/get-online-features", h.token, secret); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// Messages that are nearly right are refused, never a defect.
func TestFeast_NearlyRightMessages(t *testing.T) {
	t.Parallel()
	h := feastHub(t)
	text := func(s string) *feasttypes.Value {
		return &feasttypes.Value{Val: &feasttypes.Value_StringVal{StringVal: s}}
	}
	good := []struct {
		method string
		m      proto.Message
	}{
		{feastserving.ServingService_GetOnlineFeatures_FullMethodName, asking("drivers:load drivers@v1:trips", "driver_id", int64Value(1001), text("7"))},
		{feastserving.GrpcFeatureServer_Push_FullMethodName, &feastserving.PushRequest{StreamFeatureView: "empty", To: "online",
			Features: map[string]string{"driver_id": "8", "load": "3.5", "event_timestamp": "2026-01-01T00:00:00"}}},
		{feastserving.GrpcFeatureServer_WriteToOnlineStore_FullMethodName, &feastserving.WriteToOnlineStoreRequest{FeatureViewName: "empty",
			TypedFeatures: map[string]*feasttypes.Value{"driver_id": int64Value(9), "load": {Val: &feasttypes.Value_FloatVal{FloatVal: 1}}, "event_timestamp": text("2026-01-01")}}},
	}
	rng := rand.New(rand.NewPCG(4, 2))
	counts := map[codes.Code]int{}
	for i := range 600 {
		g := good[i%len(good)]
		raw := check[[]byte](t)(proto.Marshal(g.m))
		for range rng.IntN(4) {
			raw[rng.IntN(len(raw))] = byte(rng.Uint32())
		}
		raw = raw[:len(raw)-rng.IntN(3)*rng.IntN(2)]
		ctx, cancel := context.WithTimeout(bearing(h.token), 10*time.Second)
		var out []byte
		err := h.grpc.Invoke(ctx, g.method, &raw, &out, grpc.ForceCodecV2(rawCodec{}))
		cancel()
		counts[status.Code(err)]++
		switch status.Code(err) {
		case codes.OK, codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.OutOfRange:
		default:
			t.Errorf("%s %q: %v", g.method, raw, err)
		}
	}
	if counts[codes.OK] < 50 || counts[codes.InvalidArgument] < 50 {
		t.Errorf("%v", counts)
	}
}

// Applying definitions leaves the registry file in the bucket, the bytes that the door serves.
func TestFeast_TheRegistryFollowsTheDefinitions(t *testing.T) {
	t.Parallel()
	h := feastHub(t)
	client := featurestorev1.NewFeatureStoreServiceClient(h.grpc)
	before := h.registry(t, h.token)
	check[*featurestorev1.ApplyDefinitionsResponse](t)(client.ApplyDefinitions(bearing(h.token), &featurestorev1.ApplyDefinitionsRequest{Reason: "one more",
		Yaml: "kind: View\nname: docks\nentity: {name: dock, keys: [{name: lane, type: string}]}\nfeatures: [{name: free, type: bool}]\n"}))
	after := h.registry(t, h.token)
	if after.GetVersionId() == before.GetVersionId() || len(after.GetFeatureViews()) != len(before.GetFeatureViews())+1 {
		t.Errorf("version %s, %d views", after.GetVersionId(), len(after.GetFeatureViews()))
	}
	if again := h.registry(t, h.token); !proto.Equal(again, after) {
		t.Error("the same definitions give another file")
	}
	body, _, err := h.objects.Get(context.Background(), "feast/acme/registry.db")
	if err != nil {
		t.Fatal(err)
	}
	raw := check[[]byte](t)(io.ReadAll(body))
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	kept := &feastcore.Registry{}
	if err := proto.Unmarshal(raw, kept); err != nil || !proto.Equal(kept, after) {
		t.Errorf("the bucket has another registry: %v", err)
	}
	names := map[string]feasttypes.ValueType_Enum{} // a key that is typed in two ways is two entities with one join key
	for _, e := range after.GetEntities() {
		if e.GetSpec().GetJoinKey() == "lane" {
			names[e.GetSpec().GetName()] = e.GetSpec().GetValueType()
		}
	}
	if want := map[string]feasttypes.ValueType_Enum{"lane": feasttypes.ValueType_STRING, "lane__int64": feasttypes.ValueType_INT64}; !maps.Equal(names, want) {
		t.Errorf("entities of the join key lane: %v", names)
	}
}

// TestFeastNumbers compares our .proto files with the descriptors inside the installed clients: names, numbers and types.
func TestFeastNumbers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"feast-0.66", "feast-0.50"} {
		out, err := exec.Command(python(t, name), filepath.Join(packageDir, "testdata", "feast_numbers.py")).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var theirs struct {
			Fields  map[string][3]any
			Enums   map[string]int32
			Methods map[string][2]string
		}
		if err := json.Unmarshal(out, &theirs); err != nil {
			t.Fatal(err)
		}
		seen, newer := 0, 0
		var messages func(protoreflect.MessageDescriptors)
		enums := func(list protoreflect.EnumDescriptors) {
			for i := range list.Len() {
				for j := range list.Get(i).Values().Len() {
					v := list.Get(i).Values().Get(j)
					if n, ok := theirs.Enums[string(list.Get(i).FullName())+"."+string(v.Name())]; !ok {
						newer++
					} else if n != int32(v.Number()) {
						t.Errorf("%s: %s is %d, not %d", name, v.FullName(), n, v.Number())
					} else {
						seen++
					}
				}
			}
		}
		messages = func(list protoreflect.MessageDescriptors) {
			for i := range list.Len() {
				m := list.Get(i)
				for j := range m.Fields().Len() {
					f := m.Fields().Get(j)
					got, ok := theirs.Fields[string(f.FullName())]
					switch {
					case !ok:
						newer++
					case fmt.Sprint(got) != fmt.Sprint([3]any{float64(f.Number()), float64(f.Kind()), f.Cardinality() == protoreflect.Repeated}):
						t.Errorf("%s: %s has (number, type, repeated) %v, not %d %d %v", name, f.FullName(), got, f.Number(), f.Kind(), f.Cardinality() == protoreflect.Repeated)
					default:
						seen++
					}
				}
				enums(m.Enums())
				messages(m.Messages())
			}
		}
		for _, file := range []protoreflect.FileDescriptor{feasttypes.File_feast_types_value_proto, feastserving.File_feast_serving_serving_service_proto,
			feastserving.File_feast_serving_grpc_server_proto, feastcore.File_feast_core_registry_proto} {
			messages(file.Messages())
			enums(file.Enums())
			for i := range file.Services().Len() {
				for j := range file.Services().Get(i).Methods().Len() {
					m := file.Services().Get(i).Methods().Get(j)
					key := string(m.Parent().FullName()) + "/" + string(m.Name())
					if want := [2]string{string(m.Input().FullName()), string(m.Output().FullName())}; theirs.Methods[key] != want {
						t.Errorf("%s: %s takes and gives %v, not %v", name, key, theirs.Methods[key], want)
					}
				}
			}
		}
		// 0.50 lacks what came later (decimals, UUIDs, versions of views); 0.66 has all that is ours.
		if seen < 150 || newer > 0 && name == "feast-0.66" || newer > 30 {
			t.Errorf("%s: %d names compared, %d unknown to it", name, seen, newer)
		}
	}
}
