package api_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/internal/access"
	"waybill/registry"
)

// TestTokens_AreNoWayUp goes the ways up over the wire: a token from whoever may only issue tokens, and one without scopes
// from one with.
func TestTokens_AreNoWayUp(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := t.Context()
	check[int64](t)(h.access.AddRule(ctx, h.ann, access.Rule{Subject: "role:helpdesk", Object: "token", Action: access.Administer, Effect: access.Allow}))
	check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: "desk", Kind: waybill.Person, Roles: []string{"helpdesk"}}))
	_, desk, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, "desk", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, scoped, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, "ann", time.Hour, []string{access.Administer})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who, token, body string
		want             int
	}{
		{"helpdesk for the administrator", desk, `{"account":"ann","ttl_seconds":60}`, 403},
		{"helpdesk for itself", desk, `{"account":"desk","ttl_seconds":60}`, 200},
		{"scoped, for all", scoped, `{"account":"ann","ttl_seconds":60}`, 403},
		{"scoped, for more", scoped, `{"account":"ann","ttl_seconds":60,"scopes":["administer","read"]}`, 403},
		{"scoped, for the same", scoped, `{"account":"ann","ttl_seconds":60,"scopes":["administer"]}`, 200},
		{"the administrator for anybody", h.token, `{"account":"desk","ttl_seconds":60}`, 200},
	} {
		if code, a := h.call(t, "POST", "/v1/tokens", c.token, c.body); code != c.want {
			t.Errorf("%s: %d %v", c.who, code, a)
		}
	}
	if code, a := h.call(t, "POST", "/v1/tenants", scoped, `{"tenant":"third","admin":"root"}`); code != 403 {
		t.Errorf("a token with scopes makes a tenant: %d %v", code, a)
	}
	if code, a := h.call(t, "POST", "/v1/accounts/desk/roles", desk, `{"role":"admin"}`); code != 403 {
		t.Errorf("%d %v", code, a)
	}
}

// TestFourEyes_NotByProxy has the author of a version issue a token for an approver and use it, directly and through a
// third account; the approver's token from somebody else is good.
func TestFourEyes_NotByProxy(t *testing.T) {
	t.Parallel()
	h := setup(t)
	ctx := t.Context()
	for _, id := range []string{"bob", "carol"} {
		check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: id, Kind: waybill.Person, Roles: []string{"approver", "admin"}}))
	}
	issue := func(token, account string) string {
		t.Helper()
		code, a := h.call(t, "POST", "/v1/tokens", token, `{"account":"`+account+`","ttl_seconds":600}`)
		if code != 200 {
			t.Fatal(code, a)
		}
		return a["secret"].(string)
	}
	v := check[registry.Version](t)(h.models.CreateVersion(ctx, h.ann, registry.NewVersion{Model: "mine", Format: registry.Rules, Entrypoint: "model", Automation: registry.Advisory}))
	check[registry.Artifact](t)(h.models.UploadArtifact(ctx, h.ann, v.Ref(), "model", bytes.NewReader(testdata(t, "route-rules"))))
	v = check[registry.Version](t)(h.models.Submit(ctx, h.ann, v.Ref()))
	body := `{"reason":"looked at it","digest":"` + v.Digest + `"}`
	proxy := issue(h.token, "bob")
	for _, token := range []string{proxy, issue(proxy, "bob"), issue(issue(proxy, "carol"), "bob")} {
		if code, a := h.call(t, "POST", "/v1/models/mine@v1:approve", token, body); code != 403 || !strings.Contains(a["detail"].(string), "the token in use was issued by ann") {
			t.Errorf("%d %v", code, a)
		}
	}
	honest := check[string](t)(h.access.Bootstrap(ctx, "acme", "carol"))
	if code, a := h.call(t, "POST", "/v1/models/mine@v1:approve", issue(honest, "bob"), body); code != 200 {
		t.Fatal(code, a)
	}
	var leaf string
	for start := time.Now(); leaf == ""; time.Sleep(10 * time.Millisecond) {
		_, l := h.call(t, "GET", "/v1/log/entries?type=approval", h.token, "")
		for _, e := range l["entries"].([]any) {
			if text := e.(map[string]any)["leaf"].(string); strings.Contains(text, "model:mine@v1") {
				leaf = text
			}
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the leaf does not come")
		}
	}
	if !strings.Contains(leaf, `"token_id":"`) || !strings.Contains(leaf, `"token_issuers":["carol"]`) {
		t.Error(fmt.Sprint("the leaf does not name the token: ", leaf))
	}
}
