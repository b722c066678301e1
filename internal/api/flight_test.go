package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/access"
)

// The real client of pyarrow writes rows and reads a training set.
func TestFlight_StockClient(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := context.Background()
	check[int64](t)(h.access.BindRole(ctx, h.ann, "ann", "data-scientist"))
	if _, err := h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: "old", Rows: []map[string]any{
		{"warehouse": "WH-9", "event_time": "2026-04-01T00:00:00Z", "queue": 0.5}}}); err != nil {
		t.Fatal(err)
	}
	spine := "warehouse,event_time,late,note\n" + strings.Repeat("WH-9,2026-04-01T01:00:00Z,1,é\nWH-8,2026-04-01T01:00:00Z,0,\n", 10_000)
	set := check[featurestore.TrainingSet](t)(h.features.CreateTrainingSet(ctx, h.ann, featurestore.TrainingSetRequest{Name: "late", Service: waybill.VersionRef{Name: "route-risk"},
		Format: featurestore.CSV, TimeColumn: "event_time", LabelColumn: "late", Cutoff: time.Now().Add(time.Hour), Spine: strings.NewReader(spine)}))
	before := int64(1)
	cmd := exec.Command(python(t, "pyarrow"), filepath.Join(packageDir, "testdata/flight.py"), h.grpc.Target(), h.token, h.otherToken)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, problems.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || lines[1] != "ok" {
		t.Fatalf("%.300s", out.String())
	}
	var got struct {
		Digest string
		Rows   []map[string]any
	}
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	if got.Digest != set.Digest || len(got.Rows) != 20_000 {
		t.Fatalf("%s, %d rows", got.Digest, len(got.Rows))
	}
	for i, r := range got.Rows {
		want := map[bool]any{true: "WH-9", false: "WH-8"}[i%2 == 0]
		if r["warehouse"] != want || r["late"] != float64((i+1)%2) || (r["note"] == nil) != (i%2 == 1) || (r["queue"] == nil) != (i%2 == 1) {
			t.Fatalf("row %d is %v", i, r)
		}
	}
	// The cut streams wrote nothing: what there is was answered. Its commits are the five of the script and the one of this test.
	v := check[featurestore.ViewInfo](t)(h.features.ViewInfo(ctx, "acme", waybill.VersionRef{Name: "warehouse_load"}))
	if v.Rows != 25_005+before || v.Commits != 4+before {
		t.Errorf("%d rows in %d commits", v.Rows, v.Commits)
	}
	// A ban on the very name holds here too.
	check[int64](t)(h.access.AddRule(ctx, h.ann, access.Rule{Subject: "account:ann", Object: "view/warehouse_load", Action: access.Write, Effect: access.Deny}))
	check[int64](t)(h.access.AddRule(ctx, h.ann, access.Rule{Subject: "account:ann", Object: "service/route-risk", Action: access.Export, Effect: access.Deny}))
	denied := exec.Command(python(t, "pyarrow"), filepath.Join(packageDir, "testdata/flight_denied.py"), h.grpc.Target(), h.token, set.Digest)
	if out, err := denied.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
