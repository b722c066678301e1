package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"waybill"
	"waybill/internal/access"
	openapi "waybill/proto"
	"waybill/registry"
)

// Another run of the same test takes other bytes: go test ./internal/api -run RandomBytes -seed 7 -rounds 1000.
var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the random requests; 0 takes one from the clock")
	roundsFlag = flag.Int("rounds", 0, "random requests per route and method; 0 stops after some seconds")
)

// patience is how many more requests without mistakes a door gets that let none through so far.
const patience = 300

// noise makes random requests. What it makes of good names and ids is nearly right, so that it gets far.
type noise struct {
	*rand.Rand
	wrong   float64             // how often a value is wrong, drawn anew for every request
	method  string              // the gRPC method that is called
	good    map[string][]string // name of a field, or of a method and a field → values that exist
	numbers map[string]string   // name of a field → a number that fits
}

// again draws how wrong the next request is: a quarter of them are right, so that what they change is there to be met.
// The first rounds are all right, so that every door is seen open.
func (n *noise) again(round int) {
	n.wrong = []float64{0, 0.03, 0.15, 0.5}[n.IntN(4)]
	if round < 2 {
		n.wrong = 0
	}
}

func (n *noise) bad() bool { return n.Float64() < n.wrong }

func newNoise(t *testing.T, h *hub) *noise {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: go test ./internal/api -run '%s' -seed %d", t.Name(), seed)
		}
	})
	ctx := context.Background()
	// Ann has every role, so that what is behind the door is reached; nothing here names ann, who would lock herself out.
	for _, role := range []string{"data-scientist", "approver", "serving", "reviewer", "operator", "compliance", "auditor", "admin"} {
		check[int64](t)(h.access.BindRole(ctx, h.ann, "ann", role))
	}
	check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: "zoe", Kind: waybill.Person, Roles: []string{"reviewer"}}))
	token, _, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, "zoe", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := check[registry.Version](t)(h.models.CreateVersion(ctx, h.bob, registry.NewVersion{Model: "waiting", Format: registry.Rules, Entrypoint: "model", Automation: registry.Advisory}))
	check[registry.Artifact](t)(h.models.UploadArtifact(ctx, h.bob, v.Ref(), "model", strings.NewReader(string(testdata(t, "route-rules")))))
	v = check[registry.Version](t)(h.models.Submit(ctx, h.bob, v.Ref()))
	check[registry.Version](t)(h.models.CreateVersion(ctx, h.bob, registry.NewVersion{Model: "waiting", Format: registry.Rules, Entrypoint: "model", Automation: registry.Advisory}))
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(time.Hour)))
	if code != 200 {
		t.Fatal(code, a)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	return &noise{Rand: rand.New(rand.NewPCG(seed, 1)), good: map[string][]string{
		"account": {"zoe", "bob"}, "role": {"tester", "reviewer"}, "subject": {"account:zoe", "role:tester"}, "object": {"model/x*", "log"}, "effect": {"allow", "deny"},
		"action": {"read", "decide", "WH-NY-1/CarrierX/TwoDay"}, "kind": {"person", "service"}, "resource": {"log", "model/late-risk"}, "token_id": {token.ID},
		"scopes": {"read", "decide"}, "roles": {"reviewer", "tester"}, "tenant": {"newcomer"}, "admin": {"zoe"},
		"endpoint": {"route"}, "decision_id": {a["decision_id"].(string)}, "yaml": {string(testdata(t, "endpoint.yaml")), string(testdata(t, "features.yaml"))},
		"model": {"waiting", "waiting", "waiting", "waiting", "waiting@v1", "waiting@v2", "late-risk@v1", "route-rules@latest"}, "view": {"warehouse_load", "warehouse_load@v1"}, "service": {"route-risk", "route-risk@v1"},
		"feature_service": {"route-risk@v1"}, "alias": {"champion"}, "version": {"1"}, "format": {"csv", "parquet", "rules", "rules", "lightgbm", "lightgbm"}, "automation": {"advisory"},
		"entrypoint": {"model"}, "path": {"model", "a/b"}, "digest": {v.Digest, "sha256:" + strings.Repeat("0", 64), strings.Repeat("ab", 32)}, "training_set": {""}, // there is none
		"node": {"view:warehouse_load@v1", "model:late-risk@v1", "endpoint:route@v1", "decision:" + a["decision_id"].(string)}, "direction": {"up", "down"}, "as_of": {now}, "from": {now}, "to": {now},
		"event_time": {now, "2026-04-10T18:00:00Z"}, "cutoff": {now}, "deadline": {"2199-01-01T00:00:00Z"}, "order_id": {"ORD-1"}, "items": {"SKU-1"}, "sku": {"SKU-1"},
		"warehouse": {"WH-NY-1"}, "name": {"late", "watch"}, "feature": {"queue"}, "statistic": {"psi"}, "state": {"open", "approved"}, "gate": {"too-risky"}, "type": {"decision"},
		"IngestFile.format": {"csv"}, "IngestFile.view": {"warehouse_load"}, "CreateTrainingSet.format": {"csv"}, "CreateTrainingSet.without": {"pressure"}, "CreateModelVersion.format": {"rules"}, "RetireDefinition.node": {"view:warehouse_load@v1", "service:nothing@v1"},
		"page_token": {""}, "time_column": {"event_time"}, "label_column": {"late"}, "business_key": {"ORD-123"}, "metrics": {"auc"}, "tags": {"team"}, "min_sequence": {"warehouse_load@v1"}, "columns": {"warehouse"}, "mode": {"", "reject", "quarantine"}, "incident_id": {a["decision_id"].(string)}, "build_id": {a["decision_id"].(string)},
	}, numbers: map[string]string{"customer_lat": "40.7", "customer_lng": "-74", "qty": "1", "queue": "0.2", "km": "12.5", "ttl_seconds": "3600", "page_size": "10", "limit": "5",
		"minutes": "60", "min_sample": "100", "window_seconds": "86400", "version": "1", "min_sequence": "0", "size": "0"}}
}

func (n *noise) one(list ...string) string { return list[n.IntN(len(list))] }

func (n *noise) bytes(most int) string {
	b := make([]byte, n.IntN(most))
	for i := range b {
		b[i] = byte(n.Uint32())
	}
	return string(b)
}

// text is a value for a text field: one that exists, or something that hurts.
func (n *noise) text(field string) string {
	good := n.good[n.method+"."+field]
	if len(good) == 0 {
		good = n.good[field]
	}
	if len(good) == 0 {
		good = []string{"x", "y-1"}
	}
	if field == "batch_id" || field == "idempotency_key" {
		good = []string{"b" + strconv.Itoa(n.IntN(1000))}
	}
	if !n.bad() {
		return n.one(good...)
	}
	switch k := n.IntN(10); {
	case k < 3: // one that exists, with one byte changed, put in or left out
		s := []byte(n.one(good...))
		if len(s) == 0 {
			return n.bytes(40)
		}
		i := n.IntN(len(s))
		switch n.IntN(3) {
		case 0:
			s[i] = byte(n.Uint32())
		case 1:
			s = slices.Insert(s, i, byte(n.Uint32()))
		default:
			s = slices.Delete(s, i, i+1)
		}
		return string(s)
	case k < 4:
		return n.bytes(40)
	case k < 5:
		return strings.Repeat(n.one("x", "é", "\U0001F69A", "(", "[", "a.", "1e9", "\n- "), 1+n.IntN(4000))
	}
	return n.one("", "*", "?", "..", ".", "/", "a/b", "%", "%00", "\x00", "a\x00b", "\xff\xfe", "\u202e", "é", "ünïcödé", "\U0001F69A", "null", "NaN", "-Infinity", "1e400", "-1",
		"99999999999999999999", "9223372036854775807", "2026-04-10", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59Z", "@", "@v0", "x@v1", "x@v99999999999",
		"late-risk@champion", "'; DROP TABLE audit.entry; --", "$1", "{{.}}", "${x}", "<script>", "01980000-0000-7000-8000-000000000000", "00000000-0000-0000-0000-000000000000", "zzzzzzzzzzz",
		"1.01980000-0000-7000-8000-000000000000", "1y2p0ij32e8e7.01980000-0000-7000-8000-000000000000", "-1y2p0ij32e8e8.01980000-0000-7000-8000-000000000000", "1y2p0ij32e8e7",
		"W10", "WyIiXQ", "WyJcdTAwMDAiXQ", "model:", ":", "decision:x", strings.Repeat("a", 63), strings.Repeat("a", 64))
}

// quoted is a JSON text; raw bytes stay as they are now and then.
func (n *noise) quoted(s string) string {
	if n.bad() {
		return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(s) + `"`
	}
	b, err := json.Marshal(s)
	if err != nil {
		return `"?"`
	}
	return string(b)
}

// number is a number for a field that fits, or something that hurts.
func (n *noise) number(field string) string {
	if !n.bad() {
		if x, ok := n.numbers[field]; ok {
			return x
		}
		return "1"
	}
	return n.pain()
}

func (n *noise) pain() string {
	return n.one("0", "1", "-1", "0.5", "1e400", "-1e400", "1e308", "-1.7976931348623157e308", "5e-324", "9007199254740993", "2147483647", "2147483648", "-2147483649", "9223372036854775807",
		"9223372036854775808", "99999999999999999999999", "1.5", "-0", "00", "NaN", "Infinity", `"NaN"`, `"Infinity"`, `"1e400"`, "100", "1000", "1001", "86400")
}

// junk is JSON of any type, or something that only begins like it.
func (n *noise) junk(depth int) string {
	switch n.IntN(12) {
	case 0:
		return "null"
	case 1:
		return n.one("true", "false", "tru")
	case 2, 3:
		return n.pain()
	case 4, 5:
		return n.quoted(n.text(""))
	case 6:
		if depth > 3 {
			return "[]"
		}
		return "[" + n.junk(depth+1) + "," + n.junk(depth+1) + "]"
	case 7:
		if depth > 3 {
			return "{}"
		}
		return "{" + n.quoted(n.text("")) + ":" + n.junk(depth+1) + "}"
	case 8:
		if depth > 0 || n.IntN(10) > 0 {
			return "{}"
		}
		k := n.one("100", "9000", "10001")
		var d int
		if _, err := fmt.Sscan(k, &d); err != nil {
			return "{}"
		}
		return strings.Repeat("[", d) + strings.Repeat("]", d)
	case 9:
		return n.one("[", "{", `{"a"`, `"`, "[[]", `{"a":1,"a":2}`)
	}
	return n.quoted(n.text("name"))
}

// schema is what of an OpenAPI schema tells which JSON fits.
type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Format     string            `json:"format"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	Additional *schema           `json:"additionalProperties"`
}

type parameter struct {
	Name, In, Type, Format string
	Schema                 schema
}

type document struct {
	Paths       map[string]map[string]struct{ Parameters []parameter }
	Definitions map[string]schema
}

// value is JSON after a schema, with something wrong about one value in eight.
func (n *noise) value(d *document, name string, s schema, depth int) string {
	named := s.Ref != ""
	if named {
		s = d.Definitions[strings.TrimPrefix(s.Ref, "#/definitions/")]
	}
	if n.bad() && n.IntN(3) == 0 {
		return n.junk(depth)
	}
	switch {
	case s.Type == "array":
		if s.Items == nil {
			return n.junk(depth)
		}
		var list []string
		for range 1 + n.IntN(3) {
			list = append(list, n.value(d, name, *s.Items, depth+1))
		}
		if n.bad() {
			list = nil
		}
		return "[" + strings.Join(list, ",") + "]"
	case len(s.Properties) > 0:
		return n.object(d, s, depth)
	case s.Additional != nil && s.Additional.Type != "":
		return "{" + n.quoted(n.text(name)) + ":" + n.value(d, name, *s.Additional, depth+1) + "}"
	case s.Type == "object" && named: // a message without fields
		return "{}"
	case s.Type == "object": // free-form
		return n.object(d, n.shape(name), depth)
	case s.Type == "string" && s.Format != "int64":
		return n.quoted(n.text(name))
	case s.Type == "boolean":
		return n.one("true", "false")
	case s.Type == "" && n.bad():
		return n.junk(depth)
	case s.Type == "":
		return "true" // an outcome
	}
	return n.number(name)
}

// shape is what this hub's endpoint, view and service take as free-form JSON.
func (n *noise) shape(name string) schema {
	text, number := schema{Type: "string"}, schema{Type: "number"}
	switch {
	case name != "rows":
		return schema{Properties: map[string]schema{"order_id": text, "customer_lat": number, "customer_lng": number, "deadline": text,
			"items": {Type: "array", Items: &schema{Properties: map[string]schema{"sku": text, "qty": number}}}}}
	case n.IntN(2) == 0:
		return schema{Properties: map[string]schema{"warehouse": text, "queue": number, "event_time": text}}
	}
	return schema{Properties: map[string]schema{"warehouse": text, "km": number}}
}

func (n *noise) object(d *document, s schema, depth int) string {
	var parts []string
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names) // the same seed, the same bytes
	for _, name := range names {
		times := 1
		if n.bad() {
			times = 2 * n.IntN(2) // left out, or there twice
		}
		for range times {
			parts = append(parts, `"`+name+`":`+n.value(d, name, s.Properties[name], depth+1))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (n *noise) body(d *document, s schema) string {
	if !n.bad() {
		return n.value(d, "request", s, 0)
	}
	switch n.IntN(8) {
	case 0:
		return n.bytes(200)
	case 1:
		return n.junk(0)
	case 2:
		return ""
	case 3:
		deep := n.one("100", "5000", "9990", "20000")
		var k int
		if _, err := fmt.Sscan(deep, &k); err != nil {
			return ""
		}
		return `{"` + n.one("rows", "value", "request", "items", "metrics", "x") + `":` + strings.Repeat("[", k) + strings.Repeat("]", k) + "}"
	case 4:
		k := 9990
		return strings.Repeat(`{"a":`, k) + "1" + strings.Repeat("}", k)
	}
	return n.value(d, "request", s, 0)
}

// Random bytes and nearly right requests at every REST route: never a 5xx, always a problem that can be read. 504 is
// the answer to those who ask for a commit that is not there yet.
func TestRandomBytes_REST(t *testing.T) {
	t.Parallel()
	h := setup(t)
	n := newNoise(t, h)
	var d document
	if err := json.Unmarshal(openapi.OpenAPI, &d); err != nil {
		t.Fatal(err)
	}
	type route struct {
		method, path string
		parameters   []parameter
	}
	var routes []route
	for path, methods := range d.Paths {
		for method, op := range methods {
			routes = append(routes, route{strings.ToUpper(method), path, op.Parameters})
		}
	}
	slices.SortFunc(routes, func(a, b route) int { return strings.Compare(a.method+a.path, b.method+b.path) })
	if len(routes) < 50 {
		t.Fatalf("only %d routes", len(routes))
	}
	counts := map[string]map[int]int{}
	stop := time.Now().Add(10 * time.Second)
	try := func(r route, round int) {
		n.again(round)
		path, query, body := r.path, url.Values{}, ""
		for _, p := range r.parameters {
			switch p.In {
			case "path":
				path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(n.text(p.Name)))
			case "query":
				if n.IntN(3) == 0 {
					query.Set(p.Name, n.text(p.Name))
					if p.Type != "string" {
						query.Set(p.Name, strings.Trim(n.number(p.Name), `"`))
					}
				}
			case "body":
				body = n.body(&d, p.Schema)
			}
		}
		if n.bad() && n.IntN(3) == 0 {
			query.Set(n.bytes(6), n.bytes(6))
		}
		what := r.method + " " + path + "?" + query.Encode()
		code := h.survives(t, r.method, path+"?"+query.Encode(), body)
		if counts[r.method+" "+r.path] == nil {
			counts[r.method+" "+r.path] = map[int]int{}
		}
		counts[r.method+" "+r.path][code]++
		if code >= 500 && (code != 504 || !strings.HasSuffix(r.path, ":read")) {
			t.Errorf("%d for %.300q with the body %.3000q", code, what, body)
		}
	}
	for round := 0; *roundsFlag > 0 && round < *roundsFlag || *roundsFlag == 0 && (round < 5 || time.Now().Before(stop)); round++ {
		for _, r := range routes {
			try(r, round)
		}
	}
	mustSucceed := []string{"POST /v1/decide/{endpoint}", "POST /v1/views/{view}:push", "POST /v1/services/{service}:read", "POST /v1/endpoints:publish", "POST /v1/models/{model}/versions",
		"POST /v1/decisions/{decision_id}/outcome", "PUT /v1/monitors/{name}", "GET /v1/decisions", "GET /v1/lineage", "POST /v1/tokens"}
	for _, r := range routes { // chance is helped where it was not kind, or the machine too slow for it
		key := r.method + " " + r.path
		for range patience {
			if c := counts[key]; c[200] > 0 || c[404]+c[409] > 0 && !slices.Contains(mustSucceed, key) {
				break
			}
			try(r, 0)
		}
	}
	for _, r := range routes { // a route that nothing ever got through to was not tested
		key := r.method + " " + r.path
		t.Log(key, counts[key])
		if c := counts[key]; c[200]+c[404]+c[409] == 0 {
			t.Errorf("%s was only refused: %v", key, c)
		}
	}
	for _, key := range mustSucceed {
		if counts[key][200] == 0 {
			t.Errorf("%s never succeeded: %v", key, counts[key])
		}
	}
	if code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(time.Hour))); code != 200 {
		t.Errorf("after all that a good order gets %d %v", code, a)
	}
	if code, a := h.call(t, "POST", "/v1/log:verify", h.token, "{}"); code != 200 || a["ok"] != true {
		t.Errorf("after all that the log is %d %v", code, a)
	}
}

// survives makes one request and checks the form of the answer.
func (h *hub) survives(t *testing.T, method, path, body string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, h.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s %q: %v", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %q with %.3000q: %v", method, path, body, err)
	}
	raw := check[[]byte](t)(io.ReadAll(res.Body))
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(raw) {
		t.Errorf("%d %q for %s %q is not JSON", res.StatusCode, raw, method, path)
	}
	if res.StatusCode >= 400 {
		var p struct {
			Status       int
			Code, Detail string
		}
		if err := json.Unmarshal(raw, &p); err != nil || p.Status != res.StatusCode || p.Code == "" || p.Detail == "" || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %s is no problem for %s %q %.2000q", res.StatusCode, raw, method, path, body)
		}
	}
	return res.StatusCode
}

// fill sets random fields of a message.
func (n *noise) fill(m protoreflect.Message, name string, depth int) {
	fields := m.Descriptor().Fields()
	full := m.Descriptor().FullName()
	if !n.bad() {
		seconds := time.Now().Unix()
		if name == "from" {
			seconds -= 3600
		}
		switch full {
		case "google.protobuf.Struct":
			if protojson.Unmarshal([]byte(n.object(nil, n.shape(name), depth)), m.Interface()) == nil {
				return
			}
		case "google.protobuf.Value":
			m.Set(fields.ByName("bool_value"), protoreflect.ValueOfBool(true))
			return
		case "google.protobuf.Timestamp":
			m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(seconds))
			return
		}
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		name := string(f.Name())
		if n.bad() || depth > 6 || (name == "decisions" || name == "delay") && n.IntN(4) > 0 { // a spine is mostly a file, and a cut-off goes with no delay
			continue
		}
		switch {
		case f.IsMap():
			for range n.IntN(2) {
				if f.MapKey().Kind() != protoreflect.StringKind {
					continue
				}
				v := m.Mutable(f).Map().NewValue()
				if f.MapValue().Message() != nil {
					n.fill(v.Message(), name, depth+1)
				} else {
					v = n.scalar(f.MapValue(), name)
				}
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(n.proper(n.text(name))).MapKey(), v)
			}
		case f.IsList():
			for range 1 + n.IntN(3) {
				l := m.Mutable(f).List()
				if f.Message() != nil {
					n.fill(l.AppendMutable().Message(), name, depth+1)
				} else {
					l.Append(n.scalar(f, name))
				}
			}
		case f.Message() != nil:
			n.fill(m.Mutable(f).Message(), name, depth+1)
		default:
			m.Set(f, n.scalar(f, name))
		}
	}
}

// proper makes text that a client can send: gRPC's own library refuses the rest, see TestRandomBytes_GRPC's raw bytes.
func (n *noise) proper(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (n *noise) scalar(f protoreflect.FieldDescriptor, name string) protoreflect.Value {
	integers := []int64{0, 1, 2, -1, 100, 1000, 1001, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64, 253402300800, -62135596801, 1 << 40}
	x := integers[n.IntN(len(integers))]
	if !n.bad() {
		x = 1
		if number, ok := n.numbers[name]; ok {
			if v, err := strconv.ParseInt(number, 10, 64); err == nil {
				x = v
			}
		}
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(x&1 == 0)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(x))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(x)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(x))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(x))
	case protoreflect.DoubleKind:
		if !n.bad() {
			return protoreflect.ValueOfFloat64(0.5)
		}
		floats := []float64{0, 1, -1, 0.5, 40.7, -74, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53}
		return protoreflect.ValueOfFloat64(floats[n.IntN(len(floats))])
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(x))
	case protoreflect.BytesKind:
		if n.bad() {
			return protoreflect.ValueOfBytes([]byte(n.one(n.bytes(300), "PAR1", "a,b\n\"", "\r\n,\x00")))
		}
		if n.method == "IngestFile" {
			return protoreflect.ValueOfBytes([]byte("warehouse,queue,event_time\nWH-NY-1,0.2,2026-04-10T18:00:00Z\n"))
		}
		return protoreflect.ValueOfBytes([]byte(n.one("warehouse,queue,event_time\nWH-NY-1,0.2,2026-04-10T18:00:00Z\n", "warehouse,km,event_time\nWH-LA-1,7,2026-04-10T18:00:00Z\n", "warehouse,km,event_time,late\nWH-NY-1,1,2026-04-10T18:00:00Z,1\n")))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(x)))
	default:
		return protoreflect.ValueOfString(n.proper(n.text(name)))
	}
}

// rawCodec sends bytes as they are and throws away what comes back.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// Random messages and random bytes at every gRPC method of every service: never Internal, Unknown or DataLoss.
func TestRandomBytes_GRPC(t *testing.T) {
	t.Parallel()
	h := setup(t)
	n := newNoise(t, h)
	var methods []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				if strings.HasPrefix(string(f.Package()), "waybill.") {
					methods = append(methods, f.Services().Get(i).Methods().Get(j))
				}
			}
		}
		return true
	})
	slices.SortFunc(methods, func(a, b protoreflect.MethodDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	if len(methods) < 50 {
		t.Fatalf("only %d methods", len(methods))
	}
	counts := map[string]map[codes.Code]int{}
	stop := time.Now().Add(8 * time.Second)
	try := func(m protoreflect.MethodDescriptor, round int) map[codes.Code]int {
		n.again(round)
		name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
		n.method = string(m.Name())
		var sent [][]byte
		most := 1
		if m.IsStreamingClient() && n.bad() {
			most += n.IntN(3)
		}
		for range most {
			if n.bad() && n.IntN(3) == 0 {
				sent = append(sent, []byte(n.bytes(120)))
				continue
			}
			msg := dynamicpb.NewMessage(m.Input())
			n.fill(msg, "", 0)
			raw := check[[]byte](t)(proto.MarshalOptions{Deterministic: true}.Marshal(msg))
			if n.bad() && len(raw) > 0 {
				raw[n.IntN(len(raw))] = byte(n.Uint32())
			}
			sent = append(sent, raw)
		}
		code, text := h.rawCall(t, name, m, sent)
		if counts[name] == nil {
			counts[name] = map[codes.Code]int{}
		}
		counts[name][code]++
		if code == codes.Internal || code == codes.Unknown || code == codes.DataLoss || code == codes.Unimplemented || code == codes.Unavailable {
			msg := dynamicpb.NewMessage(m.Input())
			err := proto.Unmarshal(sent[0], msg)
			t.Errorf("%s %s: %q for %.3000s (%v) %.1000q", name, code, text, msg, err, sent)
		}
		return counts[name]
	}
	for round := 0; *roundsFlag > 0 && round < *roundsFlag || *roundsFlag == 0 && (round < 5 || time.Now().Before(stop)); round++ {
		for _, m := range methods {
			try(m, round)
		}
	}
	mustSucceed := []string{"Decide", "PushRows", "ReadOnline", "IngestFile", "UploadArtifact", "DownloadArtifact", "CreateTrainingSet", "CreateModelVersion"}
	for _, m := range methods { // chance is helped where it was not kind, or the machine too slow for it
		c := counts[fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())]
		for range patience {
			if c[codes.OK] > 0 || c[codes.NotFound]+c[codes.FailedPrecondition] > 0 && !slices.Contains(mustSucceed, string(m.Name())) {
				break
			}
			c = try(m, 0)
		}
	}
	for name, c := range counts {
		t.Log(name, c)
		method := name[strings.LastIndex(name, "/")+1:]
		if c[codes.OK]+c[codes.NotFound]+c[codes.FailedPrecondition] == 0 ||
			slices.Contains(mustSucceed, method) && c[codes.OK] == 0 {
			t.Errorf("%s was only refused: %v", name, c)
		}
	}
	if code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(time.Hour))); code != 200 {
		t.Errorf("after all that a good order gets %d %v", code, a)
	}
}

// rawCall makes any call with any bytes and returns how it ended.
func (h *hub) rawCall(t *testing.T, name string, m protoreflect.MethodDescriptor, sent [][]byte) (codes.Code, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(h.as(h.token), 20*time.Second)
	defer cancel()
	s, err := h.grpc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: true}, name, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return status.Code(err), err.Error()
	}
	for i := range sent {
		if err := s.SendMsg(&sent[i]); err != nil {
			break // the answer tells
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for {
		var out []byte
		if err := s.RecvMsg(&out); errors.Is(err, io.EOF) {
			return codes.OK, ""
		} else if err != nil {
			return status.Code(err), err.Error()
		}
	}
}
