package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/audit"
	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

// TestExplain: whatever a gRPC error was wrapped in, people read what the hub said and which fields were wrong.
func TestExplain(t *testing.T) {
	t.Parallel()
	st, err := status.New(codes.InvalidArgument, "the request is not valid").WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "reason", Description: "must say why"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"Plain", errors.New("no"), "no"},
		{"Bare", st.Err(), "the request is not valid\n  reason must say why"},
		{"Wrapped", fmt.Errorf("late-risk@v1 stays a draft: %w", st.Err()), "late-risk@v1 stays a draft: the request is not valid\n  reason must say why"},
		{"Joined", errors.Join(st.Err(), errors.New("close")), "the request is not valid\n  reason must say why\nclose"},
		{"Finding", findingError{fmt.Errorf("x: %w", status.Error(codes.NotFound, "there is no y"))}, "x: there is no y"},
		{"Stopped", errors.Join(status.Error(codes.Canceled, "context canceled"), nil), "stopped"},
		{"Away", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`),
			"no hub answers: dial tcp 127.0.0.1:1: connect: connection refused; is it running, and are its addresses right (WAYBILL_URL, WAYBILL_GRPC)?"},
	} {
		if got := explain(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// proofOf makes a log of one leaf with its proof and key.
func proofOf(t *testing.T, leaf audit.DecisionLeaf, payload string) (key string, p *auditv1.GetDecisionProofResponse) {
	t.Helper()
	signer, verifier, err := audit.GenerateKey("test/log")
	if err != nil {
		t.Fatal(err)
	}
	sk, err := note.NewSigner(signer)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(leaf)
	if err != nil {
		t.Fatal(err)
	}
	root := audit.LeafHash(text) // of a tree of one
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("test/log\n1\n%s\n", base64.StdEncoding.EncodeToString(root[:]))}, sk)
	if err != nil {
		t.Fatal(err)
	}
	return verifier, &auditv1.GetDecisionProofResponse{Size: 1, Leaf: string(text), Checkpoint: string(signed), Payload: payload}
}

// TestCheckProof: the leaf must be about that decision of that tenant and the record the one that the leaf names. How an
// id is spelled does not matter, and a record that is not there is no finding.
func TestCheckProof(t *testing.T) {
	t.Parallel()
	id, err := waybill.ParseID("id", "0198F2C4-7C1E-7E00-8000-00000000ABCD")
	if err != nil {
		t.Fatal(err)
	}
	const record = `{"inputs":[]}`
	leaf := audit.DecisionLeaf{V: 1, T: "decision", Tenant: "demo", ID: id, Payload: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(record)))}
	other := leaf
	other.ID[15]++
	for _, c := range []struct {
		name    string
		leaf    audit.DecisionLeaf
		payload string
		tenant  waybill.Tenant
		finding string
	}{
		{"Whole", leaf, record, "demo", ""},
		{"NoRecord", leaf, "", "demo", ""},
		{"OtherDecision", other, record, "demo", "not about decision"},
		{"OtherTenant", leaf, record, "acme", "tenant acme"},
		{"ChangedRecord", leaf, record + " ", "demo", "record of decision"},
	} {
		key, p := proofOf(t, c.leaf, c.payload)
		err := checkProof(key, c.tenant, id, p)
		var finding findingError
		if c.finding == "" && err != nil || c.finding != "" && (!errors.As(err, &finding) || !strings.Contains(err.Error(), c.finding)) {
			t.Errorf("%s: %v, want a finding with %q", c.name, err, c.finding)
		}
	}
}

// TestShow: the readable form names reasons by the size of their effect, with sign and value, and the approver.
func TestShow(t *testing.T) {
	t.Parallel()
	in := []*decisionv1.Input{
		{Name: "units", Value: structpb.NewNumberValue(1), Contribution: 0.1, Status: "PRESENT"},
		{Name: "slack_hours", Value: structpb.NewNumberValue(7.706), Contribution: -1.25, Status: "PRESENT", Sources: []string{"request", "load@v1"}},
		{Name: "queue", Value: structpb.NewNullValue(), Status: "NOT_FOUND", View: "load@v1"},
	}
	if got, want := effects(in, 4), "slack_hours -1.25 (it was 7.706), units +0.10 (it was 1)"; got != want {
		t.Errorf("effects: %q, want %q", got, want)
	}
	var out strings.Builder
	d := &decisionv1.Decision{Sentence: "ORD-1 was decided as A.", Summary: &decisionv1.DecisionSummary{DecisionId: "0198", Action: "A", Index: 7}, Inputs: in, Approver: "bob",
		ApprovalReason: "looked\nat", Candidates: []*decisionv1.Candidate{{Action: "B", Eligible: true}, {Action: "A", Eligible: true}}, Gates: []*decisionv1.GateVerdict{{Gate: "embargo", Verdict: "allow"}}}
	if err := showDecision(&out, d); err != nil {
		t.Fatal(err)
	}
	v := &registryv1.ModelVersion{Model: "late", Version: 2, State: "approved", Digest: "sha256:ab", Approvals: []*registryv1.Approval{{Kind: "approve", Actor: "bob", Reason: "good"}}}
	if err := showModel(&out, v); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	last := -1
	for _, want := range []string{"ORD-1 was decided as A.", "by bob", "looked at", "slack_hours 7.706 -1.2500 PRESENT request, load@v1", "units 1 +0.1000", "queue null NOT_FOUND load@v1", "A 0 0 chosen", "B 0 0",
		"embargo allow", "entry 7 of the log", "late@v2 is approved", "digest sha256:ab", "approve bob"} {
		at := strings.Index(text, want)
		if at <= last {
			t.Errorf("%q is not in its place in:\n%s", want, out.String())
		}
		last = at
	}
}

// TestReadFeatures: of a folder only feature definitions are taken, and it is said what is left; a file that is named
// goes to the hub whatever it holds.
func TestReadFeatures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": "kind: View\nname: v\n---\nkind: Service\nname: s\n", "b.yaml": "kind: Endpoint\nname: e\n", "c.yaml": "kind: rules\n", "d.yaml": "kind: Vista\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said strings.Builder
	env := environment{Err: &said}
	text, err := readFeatures(env, []string{dir})
	if err != nil || !strings.Contains(text, "name: s") || !strings.Contains(text, "Vista") || strings.Contains(text, "Endpoint") || strings.Contains(text, "rules") {
		t.Errorf("%v: %s", err, text)
	}
	if !strings.Contains(said.String(), "b.yaml is an endpoint") || !strings.Contains(said.String(), "c.yaml is a rule set") {
		t.Errorf("said: %s", said.String())
	}
	if text, err := readFeatures(env, []string{filepath.Join(dir, "b.yaml")}); err != nil || !strings.Contains(text, "Endpoint") {
		t.Errorf("a named file: %v: %s", err, text)
	}
	var usage usageError
	if _, err := readFeatures(env, []string{t.TempDir()}); !errors.As(err, &usage) {
		t.Errorf("an empty folder: %v", err)
	}
}
