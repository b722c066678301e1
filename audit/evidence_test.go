package audit_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/audit/evidence"
	"waybill/internal/pg"
)

const reason = "compared with the rules on March; <b>no</b> worse for any region & cheaper"

var madeAt = time.Date(2026, 4, 10, 18, 0, 0, 0, time.UTC)

// scene is a log with a decision that points to everything a decision can point to, between entries of others.
func scene(t testing.TB) (*bundle, waybill.ID, audit.EvidenceQuery) {
	t.Helper()
	ctx := context.Background()
	b := setup(t)
	sum := sha256.Sum256([]byte(reason))
	approval := waybill.DerivedID("test", "approval").String()
	event := func(tenant waybill.Tenant, kind, subject, digest string, detail any) audit.Event {
		return audit.Event{Type: kind, Tenant: tenant, Actor: "ann", At: madeAt, Subject: subject, Digest: digest, Detail: detail}
	}
	enqueue := func(events ...audit.Event) {
		t.Helper()
		if err := pg.InTx(ctx, b.pool, func(tx pgx.Tx) error {
			for _, e := range events {
				if err := audit.Enqueue(ctx, tx, e); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	set := strings.Repeat("ab", 32)
	enqueue(
		event("acme", "policy.change", "policy:3", "", map[string]any{"op": "add_rule", "policy_rev": 3}),
		event("other", "policy.change", "policy:4", "", map[string]any{"op": "add_rule", "policy_rev": 4}),
		event("acme", "view.version", "view:load@v1", "sha256:01", map[string]any{"reason": "first"}),
		event("acme", "view.version", "view:load@v2", "sha256:02", map[string]any{"reason": "second"}),
		event("acme", "service.version", "service:route-risk@v1", "sha256:03", map[string]any{"reason": "first"}),
		event("acme", "training.set", "trainingset:"+set, "sha256:"+set, map[string]any{"name": "late", "rows": 1000}),
		event("acme", "model.version", "model:late-risk@v1", "", map[string]any{"action": "create", "training_set": set}),
		event("acme", "model.version", "model:late-risk@v1", "sha256:04", map[string]any{"action": "submit"}),
		event("acme", "approval", "model:late-risk@v1", "sha256:04", map[string]any{"action": "approve", "approval_id": approval, "reason_sha256": hex.EncodeToString(sum[:]), "training_set": set}),
		event("acme", "endpoint.revision", "endpoint:route@v1", "sha256:05", map[string]any{"reason": "go live"}),
	)
	waitFor(t, b, 10)
	id := waybill.DerivedID("test", "decision")
	d := decision(id, "order-1")
	d.DecidedAt = madeAt.Add(time.Hour + 123*time.Millisecond)
	d.Leaf.Model.Digest, d.Leaf.Model.Approval, d.Leaf.PolicyRev, d.Leaf.Features = "sha256:04", approval, 5, map[string]int64{"load@v1": 12, "load@v2": 3}
	d.Payload = []byte(`{"request":{"order":"order-1","note":"</script><b>x"},"answer":{"action":"go"},"inputs":[{"name":"queue","value":41.5,"status":"present","view":"load@v1","seq":12,"event":"2026-04-10T17:58:00Z"},
{"name":"weekday","value":"friday","status":"present","sources":["request"]},{"name":"carrier_delay","value":null,"status":"missing","view":"load@v2"}],
"vector":[41.5,null,5],"names":["queue","carrier_delay","weekday"],"phi":[0.8125,-0.25,0.03125],"base":-1.5,"raw":-0.90625,"score":0.25,"residual":0,
"candidates":[{"action":"hold","score":0.7,"cost":12,"eligible":true},{"action":"go","score":0.25,"cost":4.5,"eligible":true},{"action":"fly","score":0.1,"cost":80,"eligible":false}],
"gates":[{"gate":"customs","stage":"before","verdict":"allow"}],"latency_us":900,"refs":{}}`)
	for i := range 300 { // more than a tile, so that proofs come from several
		other := decision(waybill.DerivedID("test", "other", fmt.Sprint(i)), fmt.Sprint(i))
		other.Model, other.Leaf.Model.Ref = "ghost", "ghost@v1"
		if _, err := b.log.Append(ctx, other); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.log.Append(ctx, d); err != nil {
		t.Fatal(err)
	}
	enqueue(
		event("acme", "outcome", "decision:"+id.String(), "", map[string]any{"name": "late", "value": false, "event_time": audit.FormatTime(madeAt)}),
		event("acme", "approval", "model:late-risk@v1", "sha256:04", map[string]any{"action": "revoke", "approval_id": "another", "reason_sha256": "00"}),
	)
	waitFor(t, b, 313)
	return b, id, audit.EvidenceQuery{Tenant: "acme", ID: id, Reasons: map[string]string{approval: reason}}
}

// waitFor waits until the log has a number of entries, and a checkpoint of them is signed.
func waitFor(t testing.TB, b *bundle, entries int64) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, size, _, _, err := b.log.Checkpoint(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if size >= entries {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("the log has %d entries, want %d", size, entries)
		}
	}
}

func gathered(t testing.TB, b *bundle, q audit.EvidenceQuery) *audit.Evidence {
	t.Helper()
	e, err := b.log.Evidence(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEvidence_EverythingThatADecisionRestsOn(t *testing.T) {
	t.Parallel()
	b, id, q := scene(t)
	e := gathered(t, b, q)
	var file, again bytes.Buffer
	if err := e.Write(&file); err != nil {
		t.Fatal(err)
	}
	if err := gathered(t, b, q).Write(&again); err != nil || !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Errorf("made twice, the bundles differ: %v", err)
	}
	path := filepath.Join(t.TempDir(), e.FileName())
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, given := range []string{"", b.log.VerifierKey()} {
		v, key, err := evidence.VerifyFile(path, given)
		if err != nil || key != b.log.VerifierKey() {
			t.Fatalf("key %q: %v", given, err)
		}
		var roles []string
		for _, x := range v.Entries {
			roles = append(roles, string(x.Role)+" "+x.Subject)
		}
		want := []string{"decision decision:" + id.String(), "endpoint endpoint:route@v1", "model model:late-risk@v1", "model model:late-risk@v1",
			"approval model:late-risk@v1", "training-set trainingset:" + strings.Repeat("ab", 32), "verdict model:late-risk@v1", "service service:route-risk@v1",
			"view view:load@v1", "view view:load@v2", "policy policy:3", "outcome decision:" + id.String()}
		if d := cmp.Diff(want, roles); d != "" || len(v.Missing) > 0 || !v.Payload {
			t.Errorf("%s\n%+v", d, v)
		}
	}
	_, other, err := audit.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := evidence.VerifyFile(path, other); waybill.CodeOf(err) != waybill.Corrupt {
		t.Errorf("with the key of somebody else: %v", err)
	}
	r, err := zip.NewReader(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.File {
		if !f.Modified.Equal(madeAt.Add(time.Hour)) {
			t.Errorf("%s has the time %s; it should be the decision's", f.Name, f.Modified)
		}
	}
	page := string(e.Members[evidence.ReportFile])
	for _, want := range []string{"Decided as “go” by the model late-risk@v1, approved by ann.", "compared with the rules on March; &lt;b&gt;no&lt;/b&gt;", "&#43;0.8125", "-0.2500",
		"10 April 2026, 19:00:00.123 UTC", "load@v1, commit 12", "(after this decision)", "customs", "Everything that the decision points to is in this bundle."} {
		if !strings.Contains(page, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, never := range []string{"<script", "http://", "https://", "<b>no", "src=", "@import", "url("} {
		if strings.Contains(page, never) {
			t.Errorf("the report holds %q", never)
		}
	}
}

// What the reader may not see, and what is not there, is said to be missing, and the rest still verifies.
func TestEvidence_WhatIsMissingIsSaid(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b, _, q := scene(t)
	q.May = func(subject string) bool { return subject != "view:load@v1" && !strings.HasPrefix(subject, "model:") }
	e := gathered(t, b, q)
	v, err := evidence.Verify(e.Members, b.log.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"The entries of its making are not in this bundle.", "This bundle shows no consent", "view:load@v1 (view): the reader of this bundle may not see it"} {
		if !strings.Contains(string(e.Members[evidence.ReportFile]), want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	var lacks []string
	for _, m := range v.Missing {
		lacks = append(lacks, string(m.Role)+" "+m.Subject)
	}
	if d := cmp.Diff([]string{"model model:late-risk@v1", "approval model:late-risk@v1", "view view:load@v1"}, lacks); d != "" {
		t.Error(d)
	}
	bare := waybill.DerivedID("test", "other", "7") // points to things that nobody made
	v, err = evidence.Verify(gathered(t, b, audit.EvidenceQuery{Tenant: "acme", ID: bare}).Members, b.log.VerifierKey())
	if err != nil || len(v.Missing) != 3 {
		t.Errorf("%+v, %v", v.Missing, err)
	}
	if _, err := b.log.Evidence(ctx, audit.EvidenceQuery{Tenant: "other", ID: bare}); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
	q.May = nil
	for id := range q.Reasons {
		q.Reasons[id] = "never saw it"
	}
	if _, err := b.log.Evidence(ctx, q); waybill.CodeOf(err) != waybill.Corrupt {
		t.Errorf("with another reason than the log's: %v", err)
	}
}

var blocks = regexp.MustCompile(`(?s)<pre tabindex="0" class="run"><code>(.*?)</code></pre>`)

// The commands that the report gives are run as they stand, by a shell in the unpacked bundle: first on the bundle, then on
// one with a flipped byte, where the one that looks at that byte must fail.
func TestEvidence_CommandsOfTheReport(t *testing.T) {
	t.Parallel()
	b, _, q := scene(t)
	e := gathered(t, b, q)
	var commands []string
	for _, m := range blocks.FindAllStringSubmatch(string(e.Members[evidence.ReportFile]), -1) {
		commands = append(commands, html.UnescapeString(m[1]))
	}
	if len(commands) != 4 {
		t.Fatalf("%d commands in the report", len(commands))
	}
	decisionFile := evidence.LeafFile(310)
	run := func(members map[string][]byte) (fails []int, out string) {
		t.Helper()
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "leaves"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range members {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range commands {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			cmd := exec.CommandContext(ctx, "sh", "-c", c)
			cmd.Dir = dir
			text, err := cmd.CombinedOutput()
			cancel()
			out += string(text)
			if err != nil {
				fails = append(fails, i+1)
			}
		}
		return fails, out
	}
	fails, out := run(e.Members)
	if len(fails) > 0 || strings.Count(out, "is in the log:") != 12 || strings.Count(out, "Signature Verified Successfully") != 2 {
		t.Fatalf("commands %v fail on a good bundle:\n%s", fails, out)
	}
	for name, want := range map[string][]int{decisionFile: {1, 3}, evidence.CheckpointFile: {1, 2, 3}, evidence.PayloadFile: {1, 4}, evidence.ReportFile: {1}} {
		bad := maps.Clone(e.Members)
		bad[name] = slices.Clone(bad[name])
		at := len(bad[name]) / 2
		if name == evidence.CheckpointFile {
			at = bytes.IndexByte(bad[name], '=') - 9 // in the root
		}
		if bad[name][at] ^= 1; name == evidence.CheckpointFile && bad[name][at] == '\n' {
			t.Fatal("the flip broke the line")
		}
		if fails, out := run(bad); !slices.Equal(fails, want) {
			t.Errorf("%s flipped: commands %v fail, want %v\n%s", name, fails, want, out)
		}
	}
}

// The proof that the API gives out is the member of the bundle.
func TestEvidence_ProofIsTheOneOfTheAPI(t *testing.T) {
	t.Parallel()
	b, id, q := scene(t)
	p, err := b.log.DecisionProof(context.Background(), "acme", id)
	if err != nil {
		t.Fatal(err)
	}
	e := gathered(t, b, q)
	var x evidence.Index
	if err := json.Unmarshal(e.Members[evidence.IndexFile], &x); err != nil {
		t.Fatal(err)
	}
	if got := string(e.Members[evidence.ProofFile(x.Entries[0].Index)]); got != p.TlogProof() {
		t.Errorf("%s\n%s", got, p.TlogProof())
	}
}
