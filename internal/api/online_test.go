package api_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	"waybill/featurestore"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

const everyKind = `
kind: View
name: kinds
entity: {name: thing, keys: [{name: thing, type: string}, {name: part, type: int64}]}
ttl: 24h
features:
  - {name: f_bool, type: bool}
  - {name: f_int32, type: int32}
  - {name: f_int64, type: int64}
  - {name: f_float32, type: float32}
  - {name: f_float64, type: float64}
  - {name: f_string, type: string}
  - {name: f_bytes, type: bytes}
  - {name: f_time, type: timestamp}
  - {name: f_decimal, type: decimal}
  - {name: f_list, type: list<string>}
  - {name: f_vector, type: vector<2>}
---
kind: View
name: other
entity: {name: part, keys: [{name: part, type: int64}]}
features: [{name: weight, type: float64}]
---
kind: View
name: rare
entity: {name: thing, keys: [{name: thing, type: string}]}
ttl: 24h
fallback: {view: other@v1, keys: {part: part}}
features: [{name: weight, type: float64}, {name: note, type: string}]
---
kind: Service
name: chained
inputs: [{name: thing, type: string}, {name: part, type: int64}]
features: ["rare:weight", "rare:note", "kinds:f_bool"]
---
kind: Service
name: plain
inputs: [{name: thing, type: string}, {name: part, type: int64}]
features: ["kinds:f_bool", "kinds:f_int32", "other:weight", "kinds:f_int64", "kinds:f_float32", "kinds:f_float64", "kinds:f_string", "kinds:f_bytes", "kinds:f_time", "kinds:f_decimal", "kinds:f_list", "kinds:f_vector"]
---
kind: Service
name: computed
inputs: [{name: thing, type: string}, {name: part, type: int64}, {name: when, type: timestamp}, {name: level, type: float64, min: 0}]
features: ["kinds:f_int64", "kinds:f_string", "other:weight"]
expressions: [{name: text, type: string, expr: "f_string + thing"}, {name: sum, type: float64, expr: "weight + level"}]
outputs: [text, sum, f_int64, thing, when, level, weight]
`

// The bytes of an online read are what the generated code would make of the same values, for every type, status and
// service, over gRPC and REST alike.
func TestOnline_LikeTheGeneratedCode(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+h.token)
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(everyKind))), "test"))
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now().UTC()
	for batch := range 3 {
		var rows, others []map[string]any
		for i := range 40 {
			row := map[string]any{"thing": fmt.Sprint("thing ", i%7), "part": float64(i % 5), "event_time": now.Add(-time.Duration(random.IntN(10*24*3600)) * time.Second).Format(time.RFC3339Nano)}
			for name, v := range map[string]any{"f_bool": i%2 == 0, "f_int32": float64(random.Int32()), "f_int64": strconv.FormatInt(int64(random.Uint64()), 10), "f_float32": random.Float64(),
				"f_float64": random.NormFloat64(), "f_string": fmt.Sprint("é", random.IntN(1e6)), "f_bytes": base64.StdEncoding.EncodeToString([]byte{byte(i), 255}),
				"f_time": time.UnixMicro(random.Int64N(2e15) - 1e15).UTC().Format(time.RFC3339Nano), "f_decimal": fmt.Sprintf("-%d.5", i), "f_list": []any{"a", fmt.Sprint(i)}, "f_vector": []any{0.5, float64(i)}} {
				if random.IntN(4) > 0 {
					row[name] = v
				}
			}
			rows = append(rows, row)
			others = append(others, map[string]any{"part": float64(i % 5), "event_time": row["event_time"], "weight": random.Float64()})
		}
		check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "kinds"}, BatchID: fmt.Sprint(batch), Rows: rows}))
		check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "rare"}, BatchID: fmt.Sprint(batch), Rows: []map[string]any{
			{"thing": "thing 1", "event_time": now.Format(time.RFC3339Nano), "weight": 1.5, "note": "own"}, {"thing": "thing 2", "event_time": now.Add(-48 * time.Hour).Format(time.RFC3339Nano), "weight": 2.5}}}))
		check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "other"}, BatchID: fmt.Sprint(batch), Rows: others}))
	}
	client := featurestorev1.NewFeatureStoreServiceClient(h.grpc)
	statuses := map[string]int{}
	for round := range 60 {
		service := []string{"plain", "computed", "chained"}[round%3]
		req := &featurestorev1.ReadOnlineRequest{Service: service}
		var rows []map[string]any
		for range 1 + random.IntN(5) {
			row := map[string]any{"thing": fmt.Sprint("thing ", random.IntN(9)), "part": float64(random.IntN(6))}
			if random.IntN(5) == 0 {
				row["part"] = fmt.Sprint(random.IntN(5)) // whole numbers as text
			}
			if service == "computed" {
				row["when"], row["level"] = "2026-01-02T03:04:05.25Z", random.Float64()
				if random.IntN(3) == 0 {
					row["level"] = nil
				}
			}
			rows = append(rows, row)
			req.Rows = append(req.Rows, check[*structpb.Struct](t)(structpb.NewStruct(row)))
		}
		got := check[*featurestorev1.ReadOnlineResponse](t)(client.ReadOnline(ctx, req))
		r := check[*featurestore.Reader](t)(h.features.Reader(ctx, "acme", waybill.VersionRef{Name: service}))
		want := &featurestorev1.ReadOnlineResponse{Service: r.Version().String(), Sequences: map[string]int64{"kinds@v1": 3, "other@v1": 3}}
		if service == "chained" {
			want.Sequences["rare@v1"] = 3
		}
		for _, c := range r.Outputs() {
			want.Names = append(want.Names, c.Name)
		}
		for _, v := range check[[]featurestore.Vector](t)(r.Read(ctx, time.Now(), rows)) {
			row := &featurestorev1.FeatureRow{}
			for _, c := range v.Cells {
				cell := &featurestorev1.Cell{Value: jsonValue(t, c.Value), Status: string(c.Status), Sequence: c.Seq}
				if !c.Event.IsZero() {
					cell.EventTime = timestamppb.New(c.Event)
				}
				if service == "chained" && c.View.Name == "other" {
					cell.View = c.View.String()
				}
				statuses[cell.Status]++
				row.Cells = append(row.Cells, cell)
			}
			want.Rows = append(want.Rows, row)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Fatalf("%s (-want +got):\n%s", service, d)
		}
		body := string(check[[]byte](t)(req.Rows[0].MarshalJSON()))
		code, over := h.call(t, "POST", "/v1/services/"+service+":read", h.token, `{"rows":[`+body+`]}`)
		list, ok := over["rows"].([]any)
		if code != 200 || !ok || len(list) != 1 {
			t.Fatalf("REST: %d %v", code, over)
		}
	}
	for _, s := range []featurestore.Status{featurestore.Present, featurestore.NullValue, featurestore.NotFound, featurestore.OutsideMaxAge, featurestore.FellBack} {
		if statuses[string(s)] < 10 {
			t.Errorf("%s came %d times only", s, statuses[string(s)])
		}
	}
}

// jsonValue writes a value by rules of its own, so that those of the door are not compared with themselves.
func jsonValue(t *testing.T, v any) *structpb.Value {
	t.Helper()
	switch x := v.(type) {
	case int64:
		if x > -(1<<53) && x < 1<<53 {
			v = float64(x)
		} else {
			v = fmt.Sprint(x)
		}
	case time.Time:
		v = x.Format("2006-01-02T15:04:05.999999Z")
	case featurestore.Decimal:
		v = string(x)
	case []float32:
		list := []any{}
		for _, f := range x {
			list = append(list, float64(f))
		}
		v = list
	}
	return check[*structpb.Value](t)(structpb.NewValue(v))
}

// What is wrong with an input is named by row and name.
func TestOnline_BadInput(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+h.token)
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(everyKind))), "test"))
	client := featurestorev1.NewFeatureStoreServiceClient(h.grpc)
	good := map[string]any{"thing": "a", "part": 1.0}
	for field, row := range map[string]map[string]any{
		"rows[1].part is missing": {"thing": "a"}, "rows[1].thing is missing": {"part": 1.0, "thing": nil}, "rows[1].part is the number 1.5": {"thing": "a", "part": 1.5},
		"rows[1].thing is a truth value": {"thing": true, "part": 1.0}, "rows[1].prat is no input of plain@v1": {"thing": "a", "prat": 1.0}, "rows[1].part is an object": {"thing": "a", "part": map[string]any{}},
		"rows[1].thing holds the character U+0000": {"thing": "a\x00", "part": 1.0},
	} {
		req := &featurestorev1.ReadOnlineRequest{Service: "plain", Rows: []*structpb.Struct{check[*structpb.Struct](t)(structpb.NewStruct(good)), check[*structpb.Struct](t)(structpb.NewStruct(row))}}
		if _, err := client.ReadOnline(ctx, req); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v: %v; want %s", row, err, field)
		}
	}
	many := &featurestorev1.ReadOnlineRequest{Service: "plain"}
	for range featurestore.MaxBatch + 1 {
		many.Rows = append(many.Rows, check[*structpb.Struct](t)(structpb.NewStruct(good)))
	}
	if _, err := client.ReadOnline(ctx, many); err == nil || !strings.Contains(err.Error(), "rows") {
		t.Errorf("%d rows: %v", len(many.Rows), err)
	}
}
