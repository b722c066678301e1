package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/flight/gen/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/access"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

const coldStart = `
kind: View
name: category_cost
entity: {name: category, keys: [{name: category, type: string}]}
features: [{name: units, type: int64}, {name: margin, type: float64, sensitivity: secret}]
---
kind: View
name: sku_cost
entity: {name: sku, keys: [{name: sku, type: string}]}
ttl: 24h
features: [{name: units, type: int64}, {name: margin, type: float64}]
expressions: [{name: twice, type: int64, expr: "2 * units"}, {name: shown, type: float64, expr: "margin + 1.0"}]
fallback: {view: category_cost}
---
kind: Service
name: open
inputs: [{name: sku, type: string}, {name: category, type: string}]
features: [sku_cost@latest:units, sku_cost@latest:twice]
---
kind: Service
name: closed
inputs: [{name: sku, type: string}, {name: category, type: string}]
features: [sku_cost@latest:units, sku_cost@latest:shown]
expressions: [{name: more, type: float64, expr: "shown * 2.0"}]
outputs: [units, more]
`

// A value of a view that stands in says so over gRPC and REST alike, and so does an expression of the view.
func TestOnline_SaysWhoseRowStandsIn(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := h.as(h.token)
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(coldStart))), "test"))
	now := time.Now().UTC().Truncate(time.Millisecond)
	push := func(view string, row map[string]any) {
		check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: view}, BatchID: fmt.Sprint(row), Rows: []map[string]any{row}}))
	}
	push("category_cost", map[string]any{"category": "hats", "units": 7.0, "event_time": now.Format(time.RFC3339Nano)})
	push("sku_cost", map[string]any{"sku": "old", "units": 3.0, "event_time": now.Format(time.RFC3339Nano)})
	client := featurestorev1.NewFeatureStoreServiceClient(h.grpc)
	for _, c := range []struct {
		sku, category string
		want          [2]string // units, twice
	}{
		{"old", "hats", [2]string{"3 PRESENT ", "6 PRESENT "}},
		{"new", "hats", [2]string{"7 FALLBACK category_cost@v1", "14 FALLBACK category_cost@v1"}},
		{"new", "shoes", [2]string{"<nil> NOT_FOUND ", "<nil> NOT_FOUND "}},
	} {
		row := check[*structpb.Struct](t)(structpb.NewStruct(map[string]any{"sku": c.sku, "category": c.category}))
		got := check[*featurestorev1.ReadOnlineResponse](t)(client.ReadOnline(ctx, &featurestorev1.ReadOnlineRequest{Service: "open", Rows: []*structpb.Struct{row}}))
		_, rest := h.call(t, "POST", "/v1/services/open:read", h.token, `{"rows":[`+string(check[[]byte](t)(row.MarshalJSON()))+`]}`)
		for i, cell := range got.GetRows()[0].GetCells() {
			if s := fmt.Sprint(cell.GetValue().AsInterface(), " ", cell.GetStatus(), " ", cell.GetView()); s != c.want[i] {
				t.Errorf("%v, %s: %s, want %s", row, got.GetNames()[i], s, c.want[i])
			}
			if cell.GetStatus() != "NOT_FOUND" && (cell.GetSequence() != 1 || !cell.GetEventTime().AsTime().Equal(now)) {
				t.Errorf("%v: where it comes from: %v", row, cell)
			}
			over := rest["rows"].([]any)[0].(map[string]any)["cells"].([]any)[i].(map[string]any)
			if s := fmt.Sprint(over["value"], " ", over["status"], " ", over["view"]); s != c.want[i] {
				t.Errorf("REST %v: %s, want %s", row, s, c.want[i])
			}
		}
	}
}

// Values of the class secret are for callers with read_personal on their view, whichever way they would come out: by an
// expression of the view, one of the service, a view that stands in, a training set, its statistics.
func TestSecretColumns_TakeTheRight(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := context.Background()
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(coldStart))), "test"))
	carol := check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: "carol", Kind: waybill.Person, Roles: []string{"data-scientist"}}))
	_, token, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, carol.ID, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, ctx := featurestorev1.NewFeatureStoreServiceClient(h.grpc), h.as(token)
	row := check[*structpb.Struct](t)(structpb.NewStruct(map[string]any{"sku": "new", "category": "hats"}))
	read := func(service string) error {
		_, err := client.ReadOnline(ctx, &featurestorev1.ReadOnlineRequest{Service: service, Rows: []*structpb.Struct{row}})
		return err
	}
	create := func(service string) (*featurestorev1.TrainingSet, error) {
		stream := check[featurestorev1.FeatureStoreService_CreateTrainingSetClient](t)(client.CreateTrainingSet(ctx))
		_ = stream.Send(&featurestorev1.CreateTrainingSetRequest{Name: "set", Service: service, Format: "csv", TimeColumn: "at", Chunk: []byte("sku,category,at\nnew,hats,2026-04-01\n")})
		res, err := stream.CloseAndRecv()
		return res.GetTrainingSet(), err
	}
	download := func(digest string) error {
		stream := check[featurestorev1.FeatureStoreService_DownloadTrainingSetClient](t)(client.DownloadTrainingSet(ctx, &featurestorev1.DownloadTrainingSetRequest{Digest: digest}))
		_, err := stream.Recv()
		return err
	}
	columns := func(digest string) string {
		res := check[*featurestorev1.GetTrainingSetResponse](t)(client.GetTrainingSet(ctx, &featurestorev1.GetTrainingSetRequest{Digest: digest}))
		list := check[*featurestorev1.ListTrainingSetsResponse](t)(client.ListTrainingSets(ctx, &featurestorev1.ListTrainingSetsRequest{}))
		var names []string
		for _, set := range append(list.GetTrainingSets(), res.GetTrainingSet()) {
			for _, c := range set.GetColumns() {
				if set.GetDigest() == digest {
					names = append(names, c.GetName())
				}
			}
		}
		return strings.Join(names, " ")
	}
	denied := func(what string, err error) {
		t.Helper()
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "read_personal on view/category_cost") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := read("open"); err != nil {
		t.Errorf("without secrets: %v", err)
	}
	denied("read", read("closed"))
	_, err = create("closed")
	denied("create", err)
	right := access.Rule{Subject: "account:carol", Object: "view/category_cost", Action: access.ReadPersonal, Effect: access.Allow}
	check[int64](t)(h.access.AddRule(context.Background(), h.ann, right))
	if err := read("closed"); err != nil {
		t.Errorf("with the right: %v", err)
	}
	set, err := create("closed")
	if err != nil {
		t.Fatal(err)
	}
	if err := download(set.GetDigest()); err != nil {
		t.Errorf("download: %v", err)
	}
	if got := columns(set.GetDigest()); got != "sku category at units more sku category at units more" {
		t.Errorf("columns: %s", got)
	}
	check[int64](t)(h.access.RemoveRule(context.Background(), h.ann, right))
	denied("download", download(set.GetDigest()))
	stream, err := flight.NewFlightServiceClient(h.grpc).DoGet(ctx, &flight.Ticket{Ticket: []byte(set.GetDigest())})
	if err == nil {
		_, err = stream.Recv()
	}
	denied("flight", err)
	if got := columns(set.GetDigest()); got != "sku category at units sku category at units" {
		t.Errorf("columns without the right: %s", got)
	}
}

// The rpc says who is in the way, and then retires; the catalogue shows it.
func TestRetireDefinition(t *testing.T) {
	t.Parallel()
	h := setup(t)
	check[int64](t)(h.access.BindRole(context.Background(), h.ann, "ann", "data-scientist"))
	code, res := h.call(t, "POST", "/v1/features:retire", h.token, `{"node":"view:warehouse_load@v1","reason":"replaced"}`)
	if s := fmt.Sprint(res); code != 409 || !strings.Contains(s, "service:route-risk@v1") || !strings.Contains(s, "endpoint:route@v1") {
		t.Errorf("%d %s", code, s)
	}
	for _, node := range []string{"model:late-risk@v1", "view:warehouse_load", "view:*@v1", "warehouse_load@v1", "commit:warehouse_load@v1/1", ""} {
		if code, res := h.call(t, "POST", "/v1/features:retire", h.token, `{"node":"`+node+`","reason":"x"}`); code != 400 && code != 403 {
			t.Errorf("%s: %d %v", node, code, res)
		}
	}
	check[[]featurestore.Change](t)(h.features.Apply(context.Background(), h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(coldStart))), "test"))
	for _, node := range []string{"service:open@v1", "service:closed@v1", "view:sku_cost@v1", "view:category_cost@v1"} {
		if code, res := h.call(t, "POST", "/v1/features:retire", h.token, `{"node":"`+node+`","reason":"replaced"}`); code != 200 || !strings.Contains(fmt.Sprint(res), node) {
			t.Errorf("%s: %d %v", node, code, res)
		}
	}
	for path, kind := range map[string]string{"/v1/views/sku_cost@v1": "view", "/v1/services/open@v1": "service"} {
		if code, res := h.call(t, "GET", path, h.token, ""); code != 200 || !strings.Contains(fmt.Sprint(res[kind].(map[string]any)["retired"]), "replaced") {
			t.Errorf("%s: %d %v", path, code, res)
		}
	}
}
