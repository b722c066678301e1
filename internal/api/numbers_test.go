package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/featurestore"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// Numbers with more digits than a double keeps come in exactly, or are refused by name: over REST and the Feast door, where
// their text is at hand, and over gRPC, where it is not.
func TestNumbers_NothingIsRounded(t *testing.T) {
	t.Parallel()
	h := setup(t)
	check[int64](t)(h.access.BindRole(context.Background(), h.ann, h.ann.ID, "data-scientist"))
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+h.token)
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(`
kind: View
name: ledger
entity: {name: account, keys: [{name: account, type: decimal}]}
features: [{name: sum, type: decimal}, {name: parts, type: list<decimal>}, {name: count, type: int64}, {name: ratio, type: float64}]
---
kind: Service
name: ledgers
inputs: [{name: account, type: decimal}]
features: ["ledger:sum", "ledger:parts", "ledger:count", "ledger:ratio"]
`))), "for numbers"))
	at := `"2026-01-01T00:00:00Z"`
	read := func(account string) string {
		t.Helper()
		r := check[*featurestore.Reader](t)(h.features.Reader(ctx, "acme", waybill.VersionRef{Name: "ledgers"}))
		v := check[[]featurestore.Vector](t)(r.Read(ctx, waybill.SystemClock(), []map[string]any{{"account": account}}))
		out := ""
		for _, c := range v[0].Cells {
			out += fmt.Sprint(c.Value, " ")
		}
		return out
	}
	const sum, parts, count, ratio = `12345678901234567.123456789`, `[0.1,100000000.000000001]`, `9007199254740993`, `0.100000000000000005551115123125782702`
	const want = `12345678901234567.123456789 [0.1 100000000.000000001] 9007199254740993 0.1 `

	row := `{"account":10000000000000001,"event_time":` + at + `,"sum":` + sum + `,"parts":` + parts + `,"count":` + count + `,"ratio":` + ratio + `}`
	if code, body := h.call(t, "POST", "/v1/views/ledger:push", h.token, `{"batch_id":"\"8","rows":[`+row+`]}`); code != 200 {
		t.Fatalf("REST: %d %v", code, body)
	}
	if got := read("10000000000000001"); got != want {
		t.Errorf("REST: %s", got)
	}
	code, body := h.call(t, "POST", "/v1/services/ledgers:read", h.token, `{"rows":[{"account":10000000000000001}]}`)
	if text := fmt.Sprint(body); code != 200 || !strings.Contains(text, sum) {
		t.Errorf("REST asks for an account: %d %s", code, text)
	}
	feast := `{"push_source_name":"ledger","df":{"account":[20000000000000000.1],"event_timestamp":[` + at + `],"sum":[` + sum + `],"parts":[` + parts + `],"count":[` + count + `],"ratio":[` + ratio + `]}}`
	if code, body, _ := h.post(t, "/push", h.token, feast); code != 200 {
		t.Fatalf("Feast: %d %s", code, body)
	}
	if got := read("20000000000000000.1"); got != want {
		t.Errorf("Feast: %s", got)
	}
	if _, body, _ := h.post(t, "/get-online-features", h.token, `{"entities":{"account":[20000000000000000.1]},"features":["ledger:sum"]}`); !strings.Contains(body, sum) {
		t.Errorf("Feast asks for an account: %s", body)
	}

	// Over gRPC a number is a double already.
	client := featurestorev1.NewFeatureStoreServiceClient(h.grpc)
	push := func(row map[string]any) error {
		for name, v := range map[string]any{"account": 3.0, "event_time": "2026-01-01T00:00:00Z"} {
			if row[name] == nil {
				row[name] = v
			}
		}
		_, err := client.PushRows(ctx, &featurestorev1.PushRowsRequest{View: "ledger", BatchId: waybill.NewID(waybill.SystemClock()).String(), Rows: []*structpb.Struct{check[*structpb.Struct](t)(structpb.NewStruct(row))}})
		return err
	}
	for field, v := range map[string]any{"sum": 12345678.123456789, "parts": []any{0.5, 1e17}, "account": float64(1 << 53), "count": float64(1 << 53)} {
		if err := push(map[string]any{field: v}); err == nil || !strings.Contains(err.Error(), "rows[0]."+field) || !strings.Contains(err.Error(), "as strings") && !strings.Contains(err.Error(), "as text") {
			t.Errorf("%s = %v: %v", field, v, err)
		}
	}
	if err := push(map[string]any{"sum": 123456.123456789, "parts": []any{1e15, -0.5}, "count": -9007199254740991.0, "ratio": 1.0 / 3}); err != nil {
		t.Error(err)
	}
	if got := read("3"); got != "123456.123456789 [1000000000000000 -0.5] -9007199254740991 0.3333333333333333 " {
		t.Errorf("gRPC: %s", got)
	}
	if _, err := client.ReadOnline(ctx, &featurestorev1.ReadOnlineRequest{Service: "ledgers", Rows: []*structpb.Struct{check[*structpb.Struct](t)(structpb.NewStruct(map[string]any{"account": 1e17}))}}); err == nil || !strings.Contains(err.Error(), "rows[0].account") {
		t.Errorf("gRPC asks for another account than was meant: %v", err)
	}
}
