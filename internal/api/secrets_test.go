package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/access"
)

const staff = `
kind: View
name: staff
entity: {name: person, keys: [{name: person, type: int64}]}
features: [{name: salary, type: int64, sensitivity: secret, max: 1000}, {name: grade, type: int64}]
---
kind: View
name: plants
entity: {name: plant, keys: [{name: plant, type: int64}]}
features: [{name: rooms, type: int64}]
---
kind: Service
name: pay
inputs: [{name: person, type: int64}]
features: ["staff:salary", "staff:grade"]
---
kind: Service
name: grades
inputs: [{name: person, type: int64}]
features: ["staff:grade"]
`

// staffed is a hub with a secret column and a row in its view, and what makes tokens for roles.
func staffed(t *testing.T) (*hub, func(id string, scope []string, roles ...string) string) {
	t.Helper()
	h := setup(t)
	ctx := context.Background()
	check[[]featurestore.Change](t)(h.features.Apply(ctx, h.ann, check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte(staff))), "test"))
	check[featurestore.Commit](t)(h.features.Push(ctx, h.ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "staff"}, BatchID: "1",
		Rows: []map[string]any{{"person": 1.0, "salary": 543.0, "grade": 3.0, "event_time": "2026-01-01T00:00:00Z"}}}))
	return h, func(id string, scope []string, roles ...string) string {
		t.Helper()
		check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: id, Kind: waybill.Service}))
		for _, role := range roles {
			check[int64](t)(h.access.BindRole(ctx, h.ann, id, role))
		}
		_, text, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, id, time.Hour, scope)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// The statistics of a secret column are for tokens that are good for read_personal, and not only for accounts that are.
func TestTrainingSet_StatisticsOfSecretsTakeTheScope(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	set := check[featurestore.TrainingSet](t)(h.features.CreateTrainingSet(context.Background(), h.ann, featurestore.TrainingSetRequest{Name: "pay", Service: waybill.VersionRef{Name: "pay"},
		Format: featurestore.CSV, TimeColumn: "at", Cutoff: time.Now().Add(time.Hour), Spine: strings.NewReader("person,at\n1,2026-01-02T00:00:00Z\n")}))
	for _, c := range []struct {
		token string
		shown bool
	}{{token("all", nil, "compliance"), true}, {token("reads", []string{access.Read}, "compliance"), false}, {token("science", nil, "data-scientist"), false}} {
		for _, path := range []string{"/v1/training-sets", "/v1/training-sets/" + set.Digest} {
			code, res := h.call(t, "GET", path, c.token, "")
			if text := fmt.Sprint(res); code != 200 || !strings.Contains(text, "grade") || strings.Contains(text, "543") != c.shown {
				t.Errorf("%s: %d %s; want the salary shown: %t", path, code, text, c.shown)
			}
		}
	}
}

// Whoever may write a view looks at what was quarantined, but sees secret values only with the right to.
func TestQuarantine_HidesSecrets(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	writer := token("writer", nil, "data-scientist")
	if code, res := h.call(t, "POST", "/v1/views/staff:push", writer, `{"batch_id":"2","mode":"quarantine","rows":[
		{"person":2,"salary":7654,"grade":4,"event_time":"2026-01-01T00:00:00Z"},{"person":3,"salry":321,"grade":"high","event_time":"2026-01-01T00:00:00Z"}]}`); code != 200 {
		t.Fatalf("%d %v", code, res)
	}
	both := token("both", nil, "data-scientist", "compliance")
	for _, c := range []struct {
		token string
		shown bool
	}{{writer, false}, {both, true}} {
		code, res := h.call(t, "GET", "/v1/views/staff/quarantine", c.token, "")
		text := fmt.Sprint(res)
		if code != 200 || strings.Contains(text, "7654") != c.shown || strings.Contains(text, "321") != c.shown {
			t.Errorf("%d %s; want secrets shown: %t", code, text, c.shown)
		}
		for _, plain := range []string{"grade:4", `the text "high"`, "field:salary", "field:salry", "2026-01-01"} {
			if !strings.Contains(text, plain) {
				t.Errorf("%s lacks %s", text, plain)
			}
		}
	}
}

// A read waits for views of its service alone: how far any other has come is not the caller's to know.
func TestOnline_WaitsForItsOwnViewsOnly(t *testing.T) {
	t.Parallel()
	h, token := staffed(t)
	serving := token("serving", nil, "serving")
	read := func(least string) (int, string) {
		code, res := h.call(t, "POST", "/v1/services/grades:read", serving, `{"rows":[{"person":1}],"min_sequence":{`+least+`}}`)
		return code, fmt.Sprint(res)
	}
	for least, want := range map[string]string{`"plants":1`: "does not read; it reads staff@v1", `"ghosts":1`: "does not read", `"staff@v2":1`: "does not read"} {
		if code, text := read(least); code != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", least, code, text)
		}
	}
	// Another version is another log: the service reads the first, whatever the latest is.
	next := check[featurestore.Definitions](t)(featurestore.ParseDefinitions([]byte("kind: View\nname: staff\nentity: {name: person, keys: [{name: person, type: int64}]}\nfeatures: [{name: grade, type: float64}]\n")))
	check[[]featurestore.Change](t)(h.features.Apply(context.Background(), h.ann, next, "test"))
	for _, least := range []string{`"staff":1`, `"staff@v1":1`} {
		if code, text := read(least); code != 200 || !strings.Contains(text, "value:3") {
			t.Errorf("%s: %d %s", least, code, text)
		}
	}
}
