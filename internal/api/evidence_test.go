package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/audit/evidence"
	"waybill/internal/access"
	"waybill/registry"
)

// evidence fetches a bundle, or the code of the problem.
func (h *hub) evidence(t *testing.T, path, token string) (int, http.Header, []byte) {
	t.Helper()
	req := check[*http.Request](t)(http.NewRequestWithContext(context.Background(), http.MethodGet, h.url+path, http.NoBody))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res := check[*http.Response](t)(http.DefaultClient.Do(req))
	raw := check[[]byte](t)(io.ReadAll(res.Body))
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, raw
}

func verified(t *testing.T, raw []byte, key string) (evidence.Verdict, map[string][]byte) {
	t.Helper()
	members := check[map[string][]byte](t)(evidence.Read(bytes.NewReader(raw), int64(len(raw))))
	return check[evidence.Verdict](t)(evidence.Verify(members, key)), members
}

func TestEvidence_ADecisionAndAllItRestsOn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(48*time.Hour)))
	if code != 200 {
		t.Fatal(code, a)
	}
	id := a["decision_id"].(string)
	path := "/v1/decisions/" + id + "/evidence"
	var v evidence.Verdict
	var members map[string][]byte
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) { // the leaves of the set-up are on their way into the log
		code, head, raw := h.evidence(t, path, h.token)
		if code != 200 || head.Get("Content-Type") != "application/zip" || !strings.Contains(head.Get("Content-Disposition"), "evidence-"+id+".zip") {
			t.Fatalf("%d %v %.300s", code, head, raw)
		}
		if v, members = verified(t, raw, h.key); len(v.Missing) == 0 {
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("missing: %+v", v.Missing)
		}
	}
	roles := map[evidence.Role]int{}
	for _, e := range v.Entries {
		roles[e.Role]++
	}
	for _, want := range []evidence.Role{evidence.RoleDecision, evidence.RoleEndpoint, evidence.RoleModel, evidence.RoleApproval, evidence.RoleService, evidence.RolePolicy} {
		if roles[want] == 0 {
			t.Errorf("no entry is the %s: %v", want, roles)
		}
	}
	if page := string(members[evidence.ReportFile]); !v.Payload || !strings.Contains(page, "<strong>bob</strong> approved late-risk@v1") || !strings.Contains(page, "“looked at it”") {
		t.Errorf("the report does not name the consent:\n%s", page)
	}
	if _, shown := h.call(t, "GET", "/v1/decisions/"+id, h.token, ""); shown["decision"].(map[string]any)["leaf"] != string(members[evidence.LeafFile(v.Entries[0].Index)]) {
		t.Error("the leaf is not the one that GetDecision shows")
	}
	check[registry.Version](t)(h.models.Revoke(ctx, h.bob, waybill.VersionRef{Name: "late-risk", Version: 1}, "leaks the label"))
	for start := time.Now(); roles[evidence.RoleVerdict] == 0; time.Sleep(20 * time.Millisecond) {
		_, _, raw := h.evidence(t, path, h.token)
		v, members = verified(t, raw, h.key)
		for _, e := range v.Entries {
			roles[e.Role]++
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("the withdrawal does not come")
		}
	}
	if page := string(members[evidence.ReportFile]); !strings.Contains(page, "(after this decision)") || !strings.Contains(page, "leaks the label") {
		t.Error("the report does not tell of the withdrawal")
	}
}

func TestEvidence_OnlyForThoseWhoMay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := setup(t)
	code, a := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(48*time.Hour)))
	if code != 200 {
		t.Fatal(code, a)
	}
	id := a["decision_id"].(string)
	path := "/v1/decisions/" + id + "/evidence"
	carol := check[access.Account](t)(h.access.CreateAccount(ctx, h.ann, access.Account{ID: "carol", Kind: waybill.Person, Roles: []string{"auditor"}}))
	_, token, err := h.access.IssueToken(ctx, h.ann, access.Grant{}, carol.ID, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, path, token string
		code              int
	}{
		{"with the right", path, token, 200}, {"in capitals", "/v1/decisions/" + strings.ToUpper(id) + "/evidence", token, 200}, {"no token", path, "", 401}, {"another tenant", path, h.otherToken, 404},
		{"no such decision", "/v1/decisions/0198f2c4-7c1e-7e00-8000-000000000001/evidence", token, 404}, {"no id", "/v1/decisions/*/evidence", token, 400}, {"a short id", "/v1/decisions/x/evidence", token, 400},
		{"a parameter", path + "?payload=no", token, 400},
	} {
		if code, _, raw := h.evidence(t, c.path, c.token); code != c.code {
			t.Errorf("%s: %d %.200s", c.what, code, raw)
		}
	}
	ban := func(object string, f func()) {
		rule := access.Rule{Subject: "account:carol", Object: object, Action: access.Read, Effect: access.Deny}
		check[int64](t)(h.access.AddRule(ctx, h.ann, rule))
		f()
		check[int64](t)(h.access.RemoveRule(ctx, h.ann, rule))
	}
	for _, object := range []string{"decision/" + id, "log"} {
		ban(object, func() {
			for _, p := range []string{path, "/v1/decisions/" + strings.ToUpper(id) + "/evidence"} {
				if code, _, raw := h.evidence(t, p, token); code != 403 {
					t.Errorf("with a ban on %s: %d %.200s", object, code, raw)
				}
			}
		})
	}
	ban("model/late-risk", func() {
		_, _, raw := h.evidence(t, path, token)
		v, members := verified(t, raw, h.key)
		for _, e := range v.Entries {
			if strings.HasPrefix(e.Subject, "model:") {
				t.Errorf("with a ban on the model, entry %d is shown: %s", e.Index, e.Subject)
			}
		}
		if page := string(members[evidence.ReportFile]); !strings.Contains(page, "the reader of this bundle may not see it") || strings.Contains(page, "looked at it") {
			t.Error("the report does not say what it leaves out, or shows it")
		}
	})
}
