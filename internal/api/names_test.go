package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"waybill"
	"waybill/internal/access"
)

// rawGet sends a path as it is, which Go's own client would clean, and returns status line, headers and body.
func (h *hub) rawGet(t *testing.T, path, token string) string {
	t.Helper()
	conn := check[net.Conn](t)(net.Dial("tcp", strings.TrimPrefix(h.url, "http://")))
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", path, token); err != nil {
		t.Fatal(err)
	}
	return string(check[[]byte](t)(io.ReadAll(bufio.NewReader(conn))))
}

func TestLog_NoSpellingOfAPathOpensTheEntries(t *testing.T) {
	t.Parallel()
	h := setup(t)
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(time.Hour)))
	if code != 200 {
		t.Fatal(code, a)
	}
	secret := a["decision_id"].(string)
	var plain string
	for width := 1; width < 40 && plain == ""; width++ { // as many entries as there are
		p := fmt.Sprintf("/log/1/tile/entries/000.p/%d", width)
		if body := h.rawGet(t, p, h.token); strings.Contains(body, secret) {
			plain = p
		}
	}
	if plain == "" {
		t.Fatal("the hub's own tenant cannot read the entries")
	}
	tail := strings.TrimPrefix(plain, "/log/1/tile/entries/")
	for _, path := range []string{
		plain, "/log/1/tile/entries%2F" + tail, "/log/1/tile/entries%2f" + tail, "/log/1/tile%2Fentries/" + tail, "/log/1/tile%2fentries%2f" + tail, "/log/1%2Ftile/entries/" + tail,
		"/log/1/tile/entries/" + strings.ReplaceAll(tail, "/", "%2F"), "/log/1/tile/%65ntries/" + tail, "/log/1/t%69le/entries/" + tail, "/log/1/%2e/tile/entries/" + tail,
		"/log/1//tile/entries/" + tail, "/log/1/tile//entries/" + tail, "//log/1/tile/entries/" + tail, "/log//1/tile/entries/" + tail, "/log/1/tile/entries//" + tail,
		"/log/1/tile/../tile/entries/" + tail, "/log/1/./tile/entries/" + tail, "/log/1/tile/0/../entries/" + tail, "/log/1/tile/0/..%2Fentries/" + tail, "/log/1/tile/0%2F../entries/" + tail,
		"/log/1/tile/entries/./" + tail, "/x/../log/1/tile/entries/" + tail, "/log/2/../1/tile/entries/" + tail, "/log/1/tile/entries/" + tail + "?x=/../", "/log/1/tile/0/../entries%2F" + tail,
	} {
		res := h.rawGet(t, path, h.otherToken)
		if strings.Contains(res, secret) || strings.HasPrefix(res, "HTTP/1.1 2") || strings.HasPrefix(res, "HTTP/1.1 5") {
			t.Errorf("another tenant reads %s: %.300s", path, res)
		}
	}
	for _, path := range []string{"/log/1/checkpoint", strings.Replace(plain, "entries", "0", 1)} {
		if res := h.rawGet(t, path, h.otherToken); !strings.HasPrefix(res, "HTTP/1.1 200") {
			t.Errorf("%s: %.200s", path, res)
		}
	}
	// Within the hub's own tenant a ban on one decision closes the bundles, which cannot leave one out.
	check[int64](t)(h.access.AddRule(t.Context(), h.ann, access.Rule{Subject: "account:ann", Object: "decision/" + secret, Action: access.Read, Effect: access.Deny}))
	if res := h.rawGet(t, plain, h.token); !strings.HasPrefix(res, "HTTP/1.1 403") {
		t.Errorf("a ban on one decision: %.200s", res)
	}
}

func TestWholeHub_IsForItsOwnTenant(t *testing.T) {
	t.Parallel()
	h := setup(t)
	if res := h.rawGet(t, "/metrics", h.token); !strings.HasPrefix(res, "HTTP/1.1 200") {
		t.Errorf("%.200s", res)
	}
	if res := h.rawGet(t, "/metrics", "wb_x"); !strings.HasPrefix(res, "HTTP/1.1 401") {
		t.Errorf("%.200s", res)
	}
	if res := h.rawGet(t, "/metrics", h.otherToken); !strings.HasPrefix(res, "HTTP/1.1 403") || !strings.Contains(res, "only the hub's own tenant") {
		t.Errorf("%.300s", res)
	}
	if code, a := h.call(t, "POST", "/v1/log:verify", h.otherToken, "{}"); code != 403 || !strings.Contains(a["detail"].(string), "only the hub's own tenant") {
		t.Errorf("%d %v", code, a)
	}
	// Of many at once some may find one running; they are told so, and none fails otherwise.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			code, a := h.call(t, "POST", "/v1/log:verify", h.token, "{}")
			if code != 200 && (code != 503 || !strings.Contains(a["detail"].(string), "is running")) {
				t.Errorf("%d %v", code, a)
			}
		})
	}
	wg.Wait()
	if code, a := h.call(t, "POST", "/v1/log:verify", h.token, "{}"); code != 200 || a["ok"] != true {
		t.Errorf("%d %v", code, a)
	}
}

// send sends one message and returns what came back as JSON, by whichever kind of call the rpc is.
func (h *hub) send(ctx context.Context, t *testing.T, service protoreflect.FullName, m protoreflect.MethodDescriptor, body string) (string, error) {
	t.Helper()
	message := func(d protoreflect.MessageDescriptor) proto.Message {
		return check[protoreflect.MessageType](t)(protoregistry.GlobalTypes.FindMessageByName(d.FullName())).New().Interface()
	}
	in, out := message(m.Input()), message(m.Output())
	if err := protojson.Unmarshal([]byte(body), in); err != nil {
		t.Fatalf("%s: %v", m.Name(), err)
	}
	name := fmt.Sprintf("/%s/%s", service, m.Name())
	var err error
	if m.IsStreamingClient() || m.IsStreamingServer() {
		stream := check[grpc.ClientStream](t)(h.grpc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, name))
		if err = stream.SendMsg(in); err == nil {
			err = stream.CloseSend()
		}
		if err != nil {
			t.Fatal(err)
		}
		err = stream.RecvMsg(out)
	} else {
		err = h.grpc.Invoke(ctx, name, in, out)
	}
	return protojson.Format(out), err
}

// TestDeny_OnExactlyTheNameStopsEveryRPC walks all rpcs: whoever has every role is let in, and with one ban on the very
// name that the request is about (and on nothing else) is not; or does not see the name in a list.
func TestDeny_OnExactlyTheNameStopsEveryRPC(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := t.Context()
	carol := check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: "carol", Kind: waybill.Person,
		Roles: []string{"data-scientist", "approver", "serving", "reviewer", "operator", "compliance", "auditor", "admin"}}))
	_, token, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, carol.ID, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	code, a := h.call(t, "POST", "/v1/decide/route", token, order(time.Now().Add(time.Hour)))
	if code != 200 {
		t.Fatal(code, a)
	}
	id := a["decision_id"].(string)
	if code, a := h.call(t, "PUT", "/v1/monitors/watch", token, `{"endpoint":"route","feature":"queue","statistic":"psi","limit":0.2,"min_sample":100,"window_seconds":86400}`); code != 200 {
		t.Fatal(code, a)
	}
	const incident, digest = "0198f2c4-7c1e-7e00-8000-000000000001", "abababababababababababababababababababababababababababababababab"
	for _, sql := range []string{
		`INSERT INTO drift.incident (id, tenant, monitor, endpoint, model, version, features, affected, title, state, opened_at)
VALUES ('` + incident + `', 'acme', 'watch', 'route', 'late-risk', 1, '{}', '{}', 'drift', 'open', now())`,
		`INSERT INTO featurestore.training_set (tenant, digest, name, service, service_version, views, spine, spine_format, time_column, label_column, kernel, rows, size_bytes, columns, author, created_at)
VALUES ('acme', '` + digest + `', 'late', 'route-risk', 1, '{}', '` + digest + `', 'csv', 't', 'late', 'naive', 1, 1, '[]', 'ann', now())`,
		`INSERT INTO featurestore.training_set_build (id, tenant, state, content, recipe, author, author_kind, started_at, updated_at)
VALUES ('` + incident + `', 'acme', 'waiting', 'x', '{"name":"late","service":"route-risk@v1"}', 'ann', 'person', now(), now())`,
	} {
		if _, err := h.pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	quote := func(name string) string {
		return string(check[[]byte](t)(protojson.Marshal(wrapperspb.String(string(testdata(t, name))))))
	}
	yaml := func(name string) string { return `{"reason":"r","yaml":` + quote(name) + `}` }
	type try struct {
		body, object, action string
		hides                string // for lists: what is in the answer, and with the ban is not
	}
	model := func(action string) []try {
		return []try{{`{"model":"late-risk@v1"}`, "model/late-risk", action, ""}}
	}
	decisionOf := func(action string) []try {
		return []try{{`{"decision_id":"` + id + `"}`, "decision/" + id, action, ""}, {`{"decision_id":"` + strings.ToUpper(id) + `"}`, "decision/" + id, action, ""}}
	}
	endpoint := func(action string) []try { return []try{{`{"endpoint":"route"}`, "endpoint/route", action, ""}} }
	view := func(action string) []try {
		return []try{{`{"view":"warehouse_load@v1"}`, "view/warehouse_load", action, ""}}
	}
	service := func(action string) []try {
		return []try{{`{"service":"route-risk@v1"}`, "service/route-risk", action, ""}}
	}
	set := func(action string) []try {
		return []try{{`{"digest":"` + digest + `"}`, "service/route-risk", action, ""}}
	}
	policy := func(object, action string) []try { return []try{{`{}`, object, action, ""}} }
	list := func(object, hides string) []try { return []try{{`{}`, object, access.Read, hides}} }
	tries := map[protoreflect.Name][]try{
		"WhoAmI":       nil, // about the caller
		"CreateTenant": policy("tenant", access.Administer), "CreateAccount": policy("policy", access.Administer), "ListAccounts": policy("policy", access.Read),
		"BindRole": policy("policy", access.Administer), "UnbindRole": policy("policy", access.Administer), "IssueToken": policy("token", access.Administer),
		"ListTokens": policy("token", access.Read), "RevokeToken": policy("token", access.Administer), "ListRules": policy("policy", access.Read),
		"AddRule": policy("policy", access.Administer), "RemoveRule": policy("policy", access.Administer), "ExplainAccess": policy("policy", access.Read),

		"GetLog": policy("log", access.Read), "VerifyLog": policy("log", access.Read),
		"ListEntries": {
			{`{"page_size":1000}`, "decision/" + id, access.Read, `\"t\":\"decision\"`}, {`{"page_size":1000}`, "model/late-risk", access.Read, `\"subject\":\"model:late-risk@v1`},
			{`{"page_size":1000}`, "view/warehouse_load", access.Read, `\"subject\":\"view:warehouse_load@v1`}, {`{}`, "log", access.Read, ""},
		},
		"GetDecisionProof": append(decisionOf(access.Read), try{`{"decision_id":"` + id + `"}`, "log", access.Read, ""}),

		"Decide": endpoint(access.Decide), "PublishEndpoint": {{yaml("endpoint.yaml"), "endpoint/route", access.Publish, ""}}, "ListEndpoints": list("endpoint/route", `"route"`),
		"GetEndpoint": endpoint(access.Read), "SearchDecisions": list("decision/"+id, id), "GetDecision": decisionOf(access.Read), "ReplayDecision": decisionOf(access.Read),
		"ReportOutcome": decisionOf(access.Write), "GetActivity": policy("decision/*", access.Read), // counts, of no decision in particular

		"GetReport": endpoint(access.Read), "PutMonitor": {{`{"name":"watch","endpoint":"route"}`, "endpoint/route", access.Write, ""}, {`{"name":"watch","endpoint":"other"}`, "endpoint/route", access.Write, ""}},
		"ListMonitors": list("endpoint/route", "watch"), "RunMonitor": {{`{"name":"watch"}`, "endpoint/route", access.Write, ""}}, "ListIncidents": list("endpoint/route", incident),
		"ResolveIncident": {{`{"incident_id":"` + incident + `"}`, "endpoint/route", access.Write, ""}},

		"PlanDefinitions":  {{`{"yaml":` + quote("features.yaml") + `}`, "view/warehouse_load", access.Read, ""}, {`{"yaml":` + quote("features.yaml") + `}`, "service/route-risk", access.Read, ""}},
		"ApplyDefinitions": {{yaml("features.yaml"), "view/warehouse_load", access.Publish, ""}, {yaml("features.yaml"), "service/route-risk", access.Publish, ""}},
		"RetireDefinition": {{`{"node":"view:warehouse_load@v1","reason":"x"}`, "view/warehouse_load", access.Publish, ""}, {`{"node":"service:route-risk@v1","reason":"x"}`, "service/route-risk", access.Publish, ""}},
		"ListViews":        list("view/warehouse_load", "warehouse_load"), "GetView": view(access.Read), "ListServices": list("service/route-risk", "route-risk"),
		"GetService": service(access.Read), "PushRows": view(access.Write), "IngestFile": view(access.Write), "ReadOnline": service(access.Read), "CreateTrainingSet": service(access.Write),
		"ListTrainingSets": list("service/route-risk", digest), "GetTrainingSet": set(access.Read), "RebuildTrainingSet": set(access.Read), "DownloadTrainingSet": set(access.Export), "AblateTrainingSet": set(access.Write),
		"GetTrainingSetBuild": {{`{"build_id":"` + incident + `"}`, "service/route-risk", access.Read, ""}}, "ListTrainingSetBuilds": list("service/route-risk", incident),
		"CancelTrainingSetBuild": {{`{"build_id":"` + incident + `"}`, "service/route-risk", access.Write, ""}},
		"ListQuarantine":         view(access.Write), "ClearQuarantine": view(access.Write),

		"GetLineage": {
			{`{"node":"model:late-risk@v1"}`, "model/late-risk", access.Read, ""}, {`{"node":"view:warehouse_load@v1"}`, "view/warehouse_load", access.Read, ""},
			{`{"node":"service:route-risk@v1"}`, "service/route-risk", access.Read, ""}, {`{"node":"endpoint:route@v1"}`, "endpoint/route", access.Read, ""},
			{`{"node":"decision:` + id + `"}`, "decision/" + id, access.Read, ""}, {`{"node":"decision:` + strings.ToUpper(id) + `"}`, "decision/" + id, access.Read, ""},
			{`{"node":"commit:warehouse_load@v1/1"}`, "view/warehouse_load", access.Read, ""}, {`{"node":"trainingset:` + digest + `"}`, "service/route-risk", access.Read, ""},
			{`{"node":"policy:1"}`, "policy", access.Read, ""}, {`{"node":"actor:ann"}`, "log", access.Read, ""},
			{`{"node":"decision:` + id + `"}`, "model/late-risk", access.Read, "model:late-risk@v1"}, {`{"node":"endpoint:route@v1"}`, "view/warehouse_load", access.Read, "view:warehouse_load@v1"},
		},

		"CreateModelVersion": model(access.Write), "UploadArtifact": model(access.Write), "DownloadArtifact": model(access.Read), "ListModels": list("model/late-risk", "late-risk"),
		"ListModelVersions": {{`{}`, "model/late-risk", access.Read, "late-risk"}, {`{"model":"late-risk"}`, "model/late-risk", access.Read, ""}},
		"GetModelVersion":   append(model(access.Read), try{`{"model":"late-risk@champion"}`, "model/late-risk", access.Read, ""}), "SubmitModelVersion": model(access.Write),
		"ApproveModelVersion": model(access.Approve), "RejectModelVersion": model(access.Approve), "RevokeModelVersion": {{`{"model":"late-risk@v9"}`, "model/late-risk", access.Approve, ""}},
		"SetAlias": model(access.Promote),
	}
	for as := time.Now(); ; time.Sleep(10 * time.Millisecond) { // the leaves of the set-up are on their way into the log
		if _, l := h.call(t, "GET", "/v1/log/entries?page_size=1000", token, ""); strings.Contains(fmt.Sprint(l), "model:late-risk@v1") && strings.Contains(fmt.Sprint(l), "view:warehouse_load@v1") {
			break
		}
		if time.Since(as) > 10*time.Second {
			t.Fatal("the leaves do not come")
		}
	}
	n := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			sd := f.Services().Get(i)
			if !strings.HasPrefix(string(sd.FullName()), "waybill.") {
				continue
			}
			for j := range sd.Methods().Len() {
				m := sd.Methods().Get(j)
				list, known := tries[m.Name()]
				if !known {
					t.Errorf("%s is not in the table: say what it is about", m.Name())
				}
				for _, c := range list {
					n++
					h.denied(t, token, sd.FullName(), m, c.body, c.object, c.action, c.hides)
				}
			}
		}
		return true
	})
	if n < 60 {
		t.Errorf("only %d bans were tried", n)
	}
}

// denied sends a message without and with a ban.
func (h *hub) denied(t *testing.T, token string, service protoreflect.FullName, m protoreflect.MethodDescriptor, body, object, action, hides string) {
	t.Helper()
	what := fmt.Sprintf("%s %s with a ban on %s %s", m.Name(), body, action, object)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token), 20*time.Second)
	defer cancel()
	ban := access.Rule{Subject: "account:carol", Object: object, Action: action, Effect: access.Deny}
	probe := body
	if hides == "" && m.Name() == "ResolveIncident" { // would end it
		probe = `{"incident_id":"0198f2c4-7c1e-7e00-8000-000000000009"}`
	}
	answer, err := h.send(ctx, t, service, m, probe)
	if c := status.Code(err); c == codes.PermissionDenied || c == codes.Unauthenticated || hides != "" && (err != nil || !strings.Contains(answer, hides)) {
		t.Errorf("%s: without it: %v %s", what, err, answer)
		return
	}
	check[int64](t)(h.access.AddRule(ctx, h.ann, ban))
	answer, err = h.send(ctx, t, service, m, body)
	switch {
	case hides != "" && (err != nil || strings.Contains(answer, hides)):
		t.Errorf("%s: still there: %v %s", what, err, answer)
	case hides == "" && status.Code(err) != codes.PermissionDenied:
		t.Errorf("%s: %v", what, err)
	}
	check[int64](t)(h.access.RemoveRule(ctx, h.ann, ban))
}
