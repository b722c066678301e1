package featurestore_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill"
	"waybill/featurestore"
)

const people = `
kind: View
name: customer_history
entity: {name: customer, keys: [{name: email, type: string, sensitivity: personal}, {name: shop, type: int64}]}
features:
  - {name: orders, type: int64}
  - {name: phone, type: string, sensitivity: personal, values: ["+49 1", "+49 2"]}
---
kind: View
name: customer_region
entity: {name: person, keys: [{name: email, type: string, sensitivity: personal}]}
features: [{name: region, type: string}]
---
kind: Service
name: loyalty
inputs: [{name: email, type: string}, {name: shop, type: int64}]
features: ["customer_history:orders", "customer_history:phone", "customer_region:region"]
`

var tokenKey = bytes.Repeat([]byte{7}, 32)

// tokenOf is the token as the documentation defines it.
func tokenOf(tenant, value string) string {
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	return "tok_" + base64.RawURLEncoding.EncodeToString(mac(mac(tokenKey, "waybill tokens 1\x00"+tenant), value))
}

func withTokens(t testing.TB) *bundle {
	t.Helper()
	b := setup(t)
	s, err := featurestore.Open(context.Background(), b.pool, b.bucket, featurestore.Config{Clock: b.clock, TokenKey: tokenKey})
	if err != nil {
		t.Fatal(err)
	}
	b.store = s
	return b
}

func TestTokens_PersonalTextIsNowhereInClear(t *testing.T) {
	t.Parallel()
	b := withTokens(t)
	b.apply(t, people)
	ctx := context.Background()
	const mail, phone = "mia@example.com", "+49 1"
	history, region := waybill.VersionRef{Name: "customer_history"}, waybill.VersionRef{Name: "customer_region"}
	at := b.now.Format(time.RFC3339)
	c, err := b.store.Push(ctx, ann, featurestore.PushRequest{View: history, BatchID: "1", Mode: featurestore.Quarantine, Rows: []map[string]any{
		{"email": mail, "shop": 1.0, "orders": 7.0, "phone": phone, "event_time": at},
		{"email": mail, "shop": 2.0, "orders": "many", "phone": "+49 3", "event_time": at, "mail": mail},
		{"email": 42.0, "shop": 3.0, "phone": true, "event_time": at},
	}})
	if err != nil || c.Rows != 1 || c.Quarantined != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := b.store.Ingest(ctx, ann, featurestore.IngestRequest{View: region, BatchID: "1", Format: featurestore.CSV, Body: strings.NewReader("email,region,event_time\n" + mail + ",north,2026-04-01\n")}); err != nil {
		t.Fatal(err)
	}
	// The clear key finds the row, by both ways in; the feature comes out as its token.
	r, err := b.store.Reader(ctx, ann.Tenant, waybill.VersionRef{Name: "loyalty"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Read(ctx, b.now, []map[string]any{{"email": mail, "shop": 1.0}, {"email": tokenOf("acme", mail), "shop": 1.0}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []any{int64(7), tokenOf("acme", phone), "north"} {
		if c := got[0].Cells[i]; c.Value != want || c.Status != featurestore.Present {
			t.Errorf("%s is %v (%s), want %v", c.Name, c.Value, c.Status, want)
		}
	}
	if s := got[1].Cells[0].Status; s != featurestore.NotFound { // a token is a text as any other
		t.Errorf("the token finds the row: %s", s)
	}
	// The join finds it alike.
	set, err := b.store.CreateTrainingSet(ctx, ann, featurestore.TrainingSetRequest{Name: "loyal", Service: waybill.VersionRef{Name: "loyalty"}, Format: featurestore.CSV, TimeColumn: "t",
		Cutoff: b.now.Add(time.Hour), Spine: strings.NewReader("email,shop,t\n" + mail + ",1,2026-04-02T00:00:00Z\n")})
	if err != nil {
		t.Fatal(err)
	}
	for _, col := range set.Columns {
		if col.Nulls != 0 {
			t.Errorf("the join does not find %s", col.Name)
		}
	}
	// The result holds the token of the key.
	var csv strings.Builder
	if err := b.store.WriteTrainingSetCSV(ctx, ann.Tenant, set.Digest, &csv); err != nil || !strings.Contains(csv.String(), tokenOf("acme", mail)) || strings.Contains(csv.String(), mail) {
		t.Errorf("the result is %s, %v", csv.String(), err)
	}
	// Nothing that was stored of the writes holds the clear value.
	rows, err := b.pool.Query(ctx, `SELECT encode(coalesce(inline, ''), 'escape') || coalesce(object, '') FROM featurestore.commit UNION ALL SELECT reasons::text || row::text FROM featurestore.quarantine`)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		n++
		if key, found := strings.CutPrefix(text, "featurestore/commits/"); found {
			o, _, err := b.bucket.Get(ctx, "featurestore/commits/"+key)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(o)
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		for _, clear := range []string{"mia", "+49", "\"42\"", ":42", "number 42"} {
			if strings.Contains(text, clear) {
				t.Errorf("%q is stored in clear: %q", clear, text)
			}
		}
	}
	if err := rows.Err(); err != nil || n != 4 {
		t.Fatalf("%d rows, %v", n, err)
	}
	list, _, err := b.store.Quarantined(ctx, ann.Tenant, history, "", featurestore.Page{})
	if err != nil || !strings.Contains(string(list[1].Values), tokenOf("acme", mail)) {
		t.Errorf("%s, %v", list[1].Values, err)
	}
}

func TestTokens_OfAnotherTenantAreOthers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		if x, y := featurestore.Token(tokenKey, "acme", a), featurestore.Token(tokenKey, "acme", b); (x == y) != (a == b) || x != tokenOf("acme", a) {
			t.Fatalf("%q and %q give %s and %s", a, b, x, y)
		}
		if featurestore.Token(tokenKey, "acme", a) == featurestore.Token(tokenKey, "other", a) || featurestore.Token(tokenKey, "acme", a) == featurestore.Token(bytes.Repeat([]byte{8}, 32), "acme", a) {
			t.Fatal("another tenant or key gives the same token")
		}
	})
}

func TestTokens_NeedAKey(t *testing.T) {
	t.Parallel()
	b := setup(t) // without one
	ctx := context.Background()
	d, err := featurestore.ParseDefinitions([]byte(people))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Apply(ctx, ann, d, "a test"); waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(err.Error(), "WAYBILL_FEATURES_TOKEN_KEY") {
		t.Errorf("publishing: %v", err)
	}
	keyless := b.store
	open := func(key []byte) error {
		s, err := featurestore.Open(ctx, b.pool, b.bucket, featurestore.Config{Clock: b.clock, TokenKey: key})
		if err == nil {
			b.store = s
		}
		return err
	}
	if err := open(tokenKey[:31]); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("a short key: %v", err)
	}
	if err := open(tokenKey); err != nil {
		t.Fatal(err)
	}
	b.apply(t, people)
	if err := open(nil); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("opening without a key while a view needs one: %v", err)
	}
	// A hub without the key that was running before neither writes in clear nor looks up by another token.
	row := map[string]any{"email": "x", "shop": 1.0, "event_time": b.now.Format(time.RFC3339)}
	if _, err := keyless.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "customer_history"}, BatchID: "1", Rows: []map[string]any{row}}); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("writing: %v", err)
	}
	if _, err := keyless.Reader(ctx, ann.Tenant, waybill.VersionRef{Name: "loyalty"}); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("reading: %v", err)
	}
}

// Nobody falls back on a view that is found by tokens: also not where a service reads that view directly, and would find
// none of its rows as a fallback.
func TestTokens_NoFallback(t *testing.T) {
	t.Parallel()
	b := withTokens(t)
	b.apply(t, people)
	d, err := featurestore.ParseDefinitions([]byte(`
kind: View
name: visits
entity: {name: visit, keys: [{name: email, type: string, sensitivity: personal}, {name: page, type: int64}]}
features: [{name: region, type: string}, {name: seconds, type: int64}]
fallback: {view: customer_region}
---
kind: Service
name: both
inputs: [{name: email, type: string}, {name: page, type: int64}]
features: ["visits@latest:seconds", "customer_region:region"]
`))
	if err == nil {
		_, err = b.store.Apply(context.Background(), ann, d, "a test")
	}
	if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(fmt.Sprint(err), "customer_region@v1 has the personal join key email") {
		t.Errorf("%v", err)
	}
}

func TestTokens_OnlyTextCanBePersonal(t *testing.T) {
	t.Parallel()
	for edit, want := range map[[2]string]string{
		{"shop, type: int64", "shop, type: int64, sensitivity: personal"}:     `entity.keys[1].type: cannot be "int64"`,
		{"orders, type: int64", "orders, type: bytes, sensitivity: personal"}: `features[0].type: cannot be "bytes"`,
		{"phone, type: string", "phone, type: string, clear: true"}:           "features[1].clear: is not supported",
	} {
		_, err := featurestore.ParseDefinitions([]byte(strings.Replace(people, edit[0], edit[1], 1)))
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", edit[1], err)
		}
	}
}

// Nothing is computed or learned from a personal join key: training sets hold its token, and decisions the clear text.
func TestTokens_NothingIsComputedFromThem(t *testing.T) {
	t.Parallel()
	b := withTokens(t)
	b.apply(t, people)
	ofView := strings.NewReplacer("features: [{name: region, type: string}]", "features: [{name: region, type: string}]\nexpressions: [{name: whose, type: string, expr: email + region}]",
		`"customer_region:region"`, `"customer_region:region", "customer_region:whose"`).Replace(people)
	for field, yaml := range map[string]string{
		"expressions[0].expr":                    people + "expressions: [{name: domain, type: string, expr: \"email + '!'\"}]\n",
		"customer_region@v2.expressions[0].expr": ofView,
	} {
		d, err := featurestore.ParseDefinitions([]byte(yaml))
		if err == nil {
			_, err = b.store.Apply(context.Background(), ann, d, "a test")
		}
		if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "personal join key") || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := b.store.CreateTrainingSet(context.Background(), ann, featurestore.TrainingSetRequest{Name: "loyal", Service: waybill.VersionRef{Name: "loyalty"}, Format: featurestore.CSV, TimeColumn: "t", LabelColumn: "email",
		Cutoff: b.now.Add(time.Hour), Spine: strings.NewReader("email,shop,t\nx,1,2026-04-02T00:00:00Z\n")})
	if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "label_column") {
		t.Errorf("learning a key: %v", err)
	}
}
