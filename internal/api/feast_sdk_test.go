package api_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

// python is the interpreter of an environment that scripts/setup-python makes. One that is missing fails the test.
func python(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(packageDir, "..", "..", ".build", "venv", name, "bin", "python")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is no Python environment %s (%v); make it with: scripts/setup-python %s", name, err, name)
	}
	return path
}

// feastHub is a hub with what the tests of the Feast door read: see testdata/feast.yaml. The view drivers has two
// versions, of which the service reads the first.
func feastHub(t *testing.T) *hub {
	t.Helper()
	h := setup(t)
	ctx := context.Background()
	check[int64](t)(h.access.BindRole(ctx, h.ann, h.ann.ID, "data-scientist"))
	apply := func(text []byte) {
		t.Helper()
		check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions(text)), "for Feast clients"))
	}
	text := testdata(t, "feast.yaml")
	apply(text)
	drivers := bytes.Split(text, []byte("---\n"))[1]
	apply(bytes.Replace(drivers, []byte("name: drivers\n"), []byte("name: drivers\nttl: 87600h\n"), 1))
	now := time.Now().UTC()
	push := func(ref waybill.VersionRef, rows ...map[string]any) {
		t.Helper()
		check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: ref, BatchID: waybill.NewID(now).String(), Rows: rows}))
	}
	at := now.Add(-time.Minute).Format(time.RFC3339Nano)
	push(waybill.VersionRef{Name: "drivers", Version: 1}, map[string]any{"driver_id": 1001.0, "conv_rate": 0.5, "load": 6.0, "event_time": at})
	rows := []map[string]any{
		{"driver_id": 1001.0, "conv_rate": 0.5, "trips": 308.0, "load": 7.0, "event_time": at},
		{"driver_id": 1002.0, "conv_rate": 1.0, "event_time": at},
	}
	for i := range 100 {
		rows = append(rows, map[string]any{"driver_id": float64(2000 + i), "trips": float64(i), "event_time": at})
	}
	push(waybill.VersionRef{Name: "drivers", Version: 2}, rows...)
	push(waybill.VersionRef{Name: "lanes", Version: 1},
		map[string]any{"warehouse": "WH-1", "lane": 1.0, "queue": 4.0, "load": 0.25, "share": 0.1, "carrier": "Überländ \"7\"\n", "open": true,
			"cutoff": "2026-04-13T18:00:00Z", "holidays": []any{"2026-04-13T18:00:00Z", "2026-04-14T18:00:00Z"}, "codes": []any{"a", "b"},
			"hours": []any{0.5, 1.0}, "place": []any{0.25, -1.0, 3.0}, "price": "12.50", "seal": "AP8=", "event_time": at},
		map[string]any{"warehouse": "WH-1", "lane": 2.0, "queue": "9007199254740993", "codes": []any{}, "event_time": at},
		map[string]any{"warehouse": "WH-2", "lane": 1.0, "queue": 9.0, "event_time": now.Add(-2 * time.Hour).Format(time.RFC3339Nano)})
	return h
}

// TestFeastSDK runs stock Feast clients against a hub; what they assert is in testdata/feast_sdk.py.
func TestFeastSDK(t *testing.T) {
	t.Parallel()
	for name, least := range map[string]int{"feast-0.66": 60, "feast-0.50": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			interpreter := python(t, name)
			h := feastHub(t)
			cmd := exec.Command(interpreter, filepath.Join(packageDir, "testdata", "feast_sdk.py"))
			cmd.Env = append(os.Environ(), "WAYBILL_URL="+h.url, "WAYBILL_TOKEN="+h.token, "WAYBILL_TENANT=acme", "WAYBILL_TEST_DIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			m := regexp.MustCompile(`(?m)^(\d+) checks$`).FindSubmatch(out)
			if m == nil {
				t.Fatalf("no count of checks:\n%s", out)
			}
			if n := check[int](t)(strconv.Atoi(string(m[1]))); n < least {
				t.Errorf("only %d checks were made; at least %d", n, least)
			}
			t.Logf("%s: %s", name, m[0])
		})
	}
}
