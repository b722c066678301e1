package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/internal/bucket"
	"waybill/internal/pgtest"
	"waybill/lineage"
	"waybill/registry"
)

var (
	alice = waybill.Actor{ID: "alice", Tenant: "acme", Kind: waybill.Person}
	bob   = waybill.Actor{ID: "bob", Tenant: "acme", Kind: waybill.Person}
	carol = waybill.Actor{ID: "carol", Tenant: "acme", Kind: waybill.Person}
	robot = waybill.Actor{ID: "robot", Tenant: "acme", Kind: waybill.Service}
	eve   = waybill.Actor{ID: "eve", Tenant: "other", Kind: waybill.Person}

	trainingSet = strings.Repeat("ab", 32)
	service     = waybill.VersionRef{Name: "route-risk", Version: 2}
)

const tree = "tree\n"

// fixture is one registry over a database and a bucket of its own, with a clock that the test moves.
type fixture struct {
	*registry.Store
	t      testing.TB
	pool   *pgxpool.Pool
	bucket *bucket.Bucket
	mu     sync.Mutex
	now    time.Time
}

func setup(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, pool: pgtest.DB(t), bucket: pgtest.TestBucket(t), now: time.Date(2026, 3, 4, 14, 0, 0, 0, time.UTC)}
	s, err := registry.Open(t.Context(), f.pool, f.bucket, registry.Config{Clock: f.clock, MaxArtifactBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f.Store = s
	return f
}

// clock moves on by a second per look, so that no two changes share a time.
func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(time.Second)
	return f.now
}

func newVersion(model string) registry.NewVersion {
	return registry.NewVersion{
		Model: model, Description: "risk of lateness", Format: registry.LightGBM, Entrypoint: "model.txt", FeatureService: service,
		TrainingSet: "sha256:" + trainingSet, Metrics: map[string]float64{"auc": 0.1 + 0.2}, Automation: registry.HumanInLoop,
		IntendedUse: "route", Tags: map[string]string{"team": "fulfilment"},
	}
}

func (f *fixture) draft(actor waybill.Actor, model string) registry.Version {
	f.t.Helper()
	v, err := f.CreateVersion(f.t.Context(), actor, newVersion(model))
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.UploadArtifact(f.t.Context(), actor, v.Ref(), "model.txt", strings.NewReader(tree)); err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) submitted(actor waybill.Actor, model string) registry.Version {
	f.t.Helper()
	v, err := f.Submit(f.t.Context(), actor, f.draft(actor, model).Ref())
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) approved(model string) registry.Version {
	f.t.Helper()
	v := f.submitted(alice, model)
	v, err := f.Approve(f.t.Context(), bob, v.Ref(), v.Digest, "evaluated")
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// refused checks an error's code and that its words hold all of those given.
func refused(t testing.TB, err error, code waybill.Code, words ...string) {
	t.Helper()
	if waybill.CodeOf(err) != code {
		t.Errorf("got %v (%s), want %s", err, waybill.CodeOf(err), code)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func count(t testing.TB, pool *pgxpool.Pool, query string, args ...any) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFromDraftToApproved(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	v := f.draft(alice, "late-risk")
	if v.Ref().String() != "late-risk@v1" || v.State != registry.Draft || v.Digest != "" {
		t.Errorf("created %s in %s with digest %q", v.Ref(), v.State, v.Digest)
	}
	if _, err := f.UploadArtifact(ctx, alice, v.Ref(), "data/notes é.txt", iotest.OneByteReader(strings.NewReader("notes"))); err != nil {
		t.Fatal(err)
	}
	v, err := f.Submit(ctx, alice, v.Ref())
	if err != nil {
		t.Fatal(err)
	}
	if v.State != registry.Submitted || v.Needs != "needs one approval by someone other than alice" {
		t.Errorf("submitted: %s, %s", v.State, v.Needs)
	}
	sum := sha256.Sum256([]byte("waybill.model/v1\nformat lightgbm\nentrypoint model.txt\n" +
		hexOf("notes") + " 5 data/notes é.txt\n" + hexOf(tree) + " 5 model.txt\n"))
	if want := "sha256:" + hex.EncodeToString(sum[:]); v.Digest != want {
		t.Errorf("root digest %s, want %s", v.Digest, want)
	}
	v, err = f.Approve(ctx, bob, v.Ref(), v.Digest, " evaluated on march ")
	if err != nil {
		t.Fatal(err)
	}
	want := registry.Version{
		Tenant: "acme", Model: "late-risk", Version: 1, State: registry.Approved, Digest: v.Digest, Format: registry.LightGBM,
		Entrypoint: "model.txt", FeatureService: service, TrainingSet: trainingSet, Metrics: map[string]float64{"auc": 0.1 + 0.2},
		Description: "risk of lateness", IntendedUse: "route", Automation: registry.HumanInLoop,
		Tags: map[string]string{"team": "fulfilment"}, Author: "alice", Authors: []string{"alice"},
		Files: []registry.Artifact{
			{Path: "data/notes é.txt", Size: 5, SHA256: hexOf("notes"), UploadedBy: "alice"},
			{Path: "model.txt", Size: 5, SHA256: hexOf(tree), UploadedBy: "alice"},
		},
		Approvals: []registry.Approval{{Kind: registry.EventApprove, Actor: "bob", Reason: "evaluated on march", Digest: v.Digest,
			FeatureService: service, TrainingSet: trainingSet}},
	}
	ignore := cmp.Options{cmpopts.IgnoreUnexported(registry.Version{}), cmpopts.IgnoreTypes(time.Time{}, waybill.ID{})}
	if d := cmp.Diff(want, v, ignore); d != "" {
		t.Errorf("approved (-want +got):\n%s", d)
	}
	if again, err := f.Get(ctx, "acme", v.Ref()); err != nil || cmp.Diff(v, again, cmpopts.IgnoreUnexported(registry.Version{})) != "" {
		t.Errorf("read again: %v\n%s", err, cmp.Diff(v, again, cmpopts.IgnoreUnexported(registry.Version{})))
	}
	data, err := f.ReadEntrypoint(ctx, "acme", v.Ref(), 100)
	if err != nil || string(data) != tree {
		t.Errorf("entrypoint: %q, %v", data, err)
	}
	_, err = f.ReadEntrypoint(ctx, "acme", v.Ref(), 4)
	refused(t, err, waybill.TooLarge, "model.txt", "at most 4")

	states, err := f.States(ctx, "acme")
	if err != nil || len(states) != 1 {
		t.Fatalf("states: %v, %v", states, err)
	}
	if st := states[0]; !st.Serves || st.Needs != "" || st.Approver != "bob" || st.ApprovalID != v.Approvals[0].ID ||
		!st.ApprovedAt.Equal(v.Approvals[0].At) || st.Digest != v.Digest || st.FeatureService != service || st.Ref != v.Ref() {
		t.Errorf("status: %+v", st)
	}
	// create, two uploads, submit and approve: one entry each for the log.
	if n := count(t, f.pool, `SELECT count(*) FROM audit.outbox`); n != 5 {
		t.Errorf("%d entries for the log, want 5", n)
	}
	f.checkLineage(v)
}

// checkLineage asks for everything the approved version came from.
func (f *fixture) checkLineage(v registry.Version) {
	f.t.Helper()
	g, err := lineage.Open(f.t.Context(), f.pool, lineage.Config{})
	if err != nil {
		f.t.Fatal(err)
	}
	up, err := g.Upstream(f.t.Context(), "acme", lineage.ModelNode(v.Ref()), lineage.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	model, approval := lineage.ModelNode(v.Ref()), lineage.ApprovalNode(v.Approvals[0].ID)
	want := []lineage.Edge{
		{From: "actor:alice", To: model, Kind: lineage.Wrote},
		{From: "actor:bob", To: approval, Kind: lineage.Wrote},
		{From: approval, To: model, Kind: lineage.Approves},
		{From: "service:route-risk@v2", To: model, Kind: lineage.Defines},
		{From: lineage.Node("trainingset:" + trainingSet), To: model, Kind: lineage.TrainedOn},
	}
	if d := cmp.Diff(want, up.Edges); d != "" {
		f.t.Errorf("upstream (-want +got):\n%s", d)
	}
}

func hexOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestFourEyes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	v := f.draft(alice, "late-risk")
	if _, err := f.UploadArtifact(ctx, bob, v.Ref(), "notes.txt", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	// Bob's file is replaced: he stays an author of what the version became.
	if _, err := f.UploadArtifact(ctx, alice, v.Ref(), "notes.txt", strings.NewReader("y")); err != nil {
		t.Fatal(err)
	}
	v, err := f.Submit(ctx, robot, v.Ref())
	if err != nil {
		t.Fatal(err)
	}
	if v.Needs != "needs one approval by someone other than alice, bob or robot" {
		t.Errorf("needs: %s", v.Needs)
	}
	for _, author := range []waybill.Actor{alice, bob} {
		_, err := f.Approve(ctx, author, v.Ref(), v.Digest, "looks good")
		refused(t, err, waybill.Denied, "four eyes", author.ID, "ask someone other than alice, bob or robot")
	}
	_, err = f.Approve(ctx, robot, v.Ref(), v.Digest, "looks good")
	refused(t, err, waybill.Denied, "service account")
	stranger := waybill.Actor{ID: "pipeline", Tenant: "acme", Kind: waybill.Service}
	_, err = f.Approve(ctx, stranger, v.Ref(), v.Digest, "looks good")
	refused(t, err, waybill.Denied, "only a person may approve")
	_, err = f.Approve(ctx, waybill.Actor{}, v.Ref(), v.Digest, "looks good")
	refused(t, err, waybill.Unauthenticated)
	// An author who issued a stranger's token, or the token by which that was issued, has it in his hands.
	by := carol
	by.Via = &waybill.Credential{TokenID: "proxy0000000", Issuers: []string{"alice", "root"}}
	_, err = f.Approve(ctx, by, v.Ref(), v.Digest, "looks good")
	refused(t, err, waybill.Denied, "four eyes", "the token in use was issued by alice", "someone other than alice, bob or robot")
	if got, err := f.Get(ctx, "acme", v.Ref()); err != nil || got.State != registry.Submitted || len(got.Approvals) != 0 {
		t.Errorf("after refusals: %s, %v, %v", got.State, got.Approvals, err)
	}
	by.Via = &waybill.Credential{TokenID: "honest000000", Issuers: []string{"root"}}
	if _, err := f.Approve(ctx, by, v.Ref(), v.Digest, "looks good"); err != nil {
		t.Error(err)
	}
	var detail string
	if err := f.pool.QueryRow(ctx, "SELECT detail::text FROM audit.outbox WHERE type = 'approval'").Scan(&detail); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(detail, `"token_id": "honest000000"`) || !strings.Contains(detail, `"token_issuers": ["root"]`) {
		t.Errorf("the leaf does not name the token: %s", detail)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	draft := f.draft(alice, "late-risk")
	_, err := f.Approve(ctx, bob, draft.Ref(), "", "early")
	refused(t, err, waybill.Conflict, "late-risk@v1", "submit it first")

	v := f.submitted(alice, "late-risk")
	_, err = f.Approve(ctx, bob, v.Ref(), "sha256:"+trainingSet, "another one")
	refused(t, err, waybill.Conflict, v.Digest, trainingSet)
	_, err = f.Approve(ctx, bob, v.Ref(), v.Digest, " ")
	refused(t, err, waybill.Invalid, "reason")
	_, err = f.Revoke(ctx, bob, v.Ref(), "too soon")
	refused(t, err, waybill.Conflict, "approved or rejected")
	_, err = f.UploadArtifact(ctx, alice, v.Ref(), "late.txt", strings.NewReader("x"))
	refused(t, err, waybill.Conflict, "frozen", "new version")
	_, err = f.Submit(ctx, alice, v.Ref())
	refused(t, err, waybill.Conflict)

	if _, err := f.Reject(ctx, bob, v.Ref(), "no bias slices"); err != nil {
		t.Fatal(err)
	}
	_, err = f.Approve(ctx, carol, v.Ref(), v.Digest, "but still")
	refused(t, err, waybill.Conflict, "rejected", "new version")
	if got, err := f.Get(ctx, "acme", v.Ref()); err != nil || !strings.Contains(got.Needs, "rejected by bob") || !strings.Contains(got.Needs, "(no bias slices)") {
		t.Errorf("needs %q, %v", got.Needs, err)
	}

	live := f.approved("late-risk")
	revoked, err := f.Revoke(ctx, carol, live.Ref(), "drifted")
	if err != nil || revoked.State != registry.Revoked || !strings.Contains(revoked.Needs, "was revoked by carol") {
		t.Fatalf("revoke: %s, %q, %v", revoked.State, revoked.Needs, err)
	}
	_, err = f.Revoke(ctx, carol, live.Ref(), "drifted")
	refused(t, err, waybill.Conflict, "cannot revoke a version that is revoked")
	states, err := f.Live(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range states {
		if st.Serves {
			t.Errorf("%s serves in %s", st.Ref, st.State)
		}
	}

	again := f.approved("early-risk") // not with the bytes that were revoked
	if v, err = f.Expire(ctx, robot, again.Ref(), "a year is over"); err != nil || v.State != registry.Expired {
		t.Fatalf("expire: %s, %v", v.State, err)
	}
	if v, err = f.Approve(ctx, carol, again.Ref(), again.Digest, "looked again"); err != nil || v.State != registry.Approved || len(v.Approvals) != 3 {
		t.Fatalf("approve again: %s, %v", v.State, err)
	}
	if v, err = f.Retire(ctx, alice, again.Ref(), "replaced"); err != nil || v.State != registry.Retired {
		t.Fatalf("retire: %s, %v", v.State, err)
	}
}

// TestOneVerdictWins lets many people judge the same version at once.
func TestOneVerdictWins(t *testing.T) {
	t.Parallel()
	f := setup(t)
	v := f.submitted(alice, "late-risk")
	results := make(chan error)
	for i := range 8 {
		go func() {
			judge := waybill.Actor{ID: fmt.Sprintf("judge%d", i), Tenant: "acme", Kind: waybill.Person}
			var err error
			if i%2 == 0 {
				_, err = f.Approve(t.Context(), judge, v.Ref(), v.Digest, "yes")
			} else {
				_, err = f.Reject(t.Context(), judge, v.Ref(), "no")
			}
			results <- err
		}()
	}
	won := 0
	for range 8 {
		if err := <-results; err == nil {
			won++
		} else {
			refused(t, err, waybill.Conflict)
		}
	}
	if n := count(t, f.pool, `SELECT count(*) FROM registry.approvals`); won != 1 || n != 1 {
		t.Errorf("%d verdicts won, %d are stored", won, n)
	}
}

func TestNumbersHaveNoGaps(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const writers, each = 8, 6
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := f.CreateVersion(t.Context(), alice, newVersion("late-risk")); err != nil {
					t.Error(err)
				}
				// A creation that fails in the middle gives its number back.
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				if _, err := f.CreateVersion(ctx, alice, newVersion("late-risk")); err == nil {
					t.Log("created within a millisecond")
				}
				cancel()
			}
		})
	}
	wg.Wait()
	var got []int
	token := ""
	for {
		page, next, err := f.ListVersions(t.Context(), "acme", registry.Filter{Model: "late-risk"}, registry.Page{Size: 7, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page {
			got = append(got, v.Version)
		}
		if token = next; next == "" {
			break
		}
	}
	if len(got) < writers*each {
		t.Errorf("%d versions", len(got))
	}
	for i, v := range got {
		if v != len(got)-i {
			t.Fatalf("newest first: %v", got)
		}
	}
}

// TestChangedByte overwrites the object behind the registry's back.
func TestChangedByte(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	v := f.approved("late-risk")
	key := "models/acme/" + hexOf(tree)
	for name, forged := range map[string]string{"changed": "treE\n", "longer": "tree\nmore", "shorter": "tree", "empty": ""} {
		if _, err := f.bucket.Put(ctx, key, strings.NewReader(forged), int64(len(forged))); err != nil {
			t.Fatal(err)
		}
		data, err := f.ReadEntrypoint(ctx, "acme", v.Ref(), 100)
		refused(t, err, waybill.Corrupt, "model.txt", hexOf(tree), hexOf(forged))
		if data != nil {
			t.Errorf("%s: got bytes %q beside the error", name, data)
		}
		r, _, err := f.OpenArtifact(ctx, "acme", v.Ref(), "model.txt")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, r)
		refused(t, err, waybill.Corrupt)
		_, err = r.Read(make([]byte, 1))
		refused(t, err, waybill.Corrupt)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := f.bucket.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	_, err := f.ReadEntrypoint(ctx, "acme", v.Ref(), 100)
	refused(t, err, waybill.Corrupt, "model.txt", hexOf(tree), "missing")
}

// TestRowsAreFrozen tries to change frozen rows by SQL, and then does so with the triggers off.
func TestRowsAreFrozen(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	v := f.approved("late-risk")
	if _, err := f.SetAlias(ctx, alice, "late-risk", "champion", 1); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		`UPDATE registry.versions SET training_set = ''`,
		`UPDATE registry.versions SET digest = 'sha256:00'`,
		`DELETE FROM registry.versions`,
		`UPDATE registry.artifacts SET size = 6`,
		`DELETE FROM registry.artifacts`,
		`INSERT INTO registry.artifacts SELECT tenant, model, version, 'more', size, sha256, uploaded_by, uploaded_at FROM registry.artifacts`,
		`UPDATE registry.approvals SET actor = 'carol'`,
		`DELETE FROM registry.approvals`,
		`DELETE FROM registry.alias_history`,
	} {
		if _, err := f.pool.Exec(ctx, query); err == nil {
			t.Errorf("%s was let through", query)
		}
	}
	for _, query := range []string{
		`ALTER TABLE registry.artifacts DISABLE TRIGGER frozen`, `UPDATE registry.artifacts SET sha256 = '` + hexOf("evil") + `'`,
		`ALTER TABLE registry.versions DISABLE TRIGGER frozen`, `UPDATE registry.versions SET feature_service_version = 3`,
	} {
		if _, err := f.pool.Exec(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.ReadEntrypoint(ctx, "acme", v.Ref(), 100)
	refused(t, err, waybill.Corrupt, "root digest", v.Digest)
	states, err := f.States(ctx, "acme")
	if err != nil || len(states) != 1 || states[0].Serves || !strings.Contains(states[0].Needs, "binds something else") {
		t.Errorf("an approval of another feature service serves: %+v, %v", states, err)
	}
}

func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	v := f.approved("late-risk")
	if _, err := f.SetAlias(ctx, alice, "late-risk", "champion", 1); err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"get":        func() error { _, err := f.Get(ctx, "other", v.Ref()); return err },
		"newest":     func() error { _, err := f.Get(ctx, "other", waybill.VersionRef{Name: "late-risk"}); return err },
		"resolve":    func() error { _, err := f.Resolve(ctx, "other", "late-risk@champion"); return err },
		"alias at":   func() error { _, err := f.AliasAt(ctx, "other", "late-risk", "champion", f.clock()); return err },
		"open":       func() error { _, _, err := f.OpenArtifact(ctx, "other", v.Ref(), "model.txt"); return err },
		"entrypoint": func() error { _, err := f.ReadEntrypoint(ctx, "other", v.Ref(), 100); return err },
		"upload":     func() error { _, err := f.UploadArtifact(ctx, eve, v.Ref(), "x", strings.NewReader("x")); return err },
		"submit":     func() error { _, err := f.Submit(ctx, eve, v.Ref()); return err },
		"approve":    func() error { _, err := f.Approve(ctx, eve, v.Ref(), v.Digest, "yes"); return err },
		"revoke":     func() error { _, err := f.Revoke(ctx, eve, v.Ref(), "no"); return err },
		"set alias":  func() error { _, err := f.SetAlias(ctx, eve, "late-risk", "champion", 1); return err },
		"del alias":  func() error { return f.DeleteAlias(ctx, eve, "late-risk", "champion") },
	} {
		err := ask()
		refused(t, err, waybill.NotFound)
		// Word for word what is said of a name that nobody has.
		if strings.Contains(fmt.Sprint(err), "acme") {
			t.Errorf("%s tells of the other tenant: %v", name, err)
		}
	}
	states, err := f.States(ctx, "other")
	models, _, modelsErr := f.ListModels(ctx, "other", registry.Page{})
	versions, _, versionsErr := f.ListVersions(ctx, "other", registry.Filter{}, registry.Page{})
	if len(states)+len(models)+len(versions) != 0 || errors.Join(err, modelsErr, versionsErr) != nil {
		t.Errorf("the other tenant sees %v %v %v", states, models, versions)
	}
	mine, err := f.CreateVersion(ctx, eve, newVersion("late-risk"))
	if err != nil || mine.Version != 1 {
		t.Errorf("the name is free for another tenant: %d, %v", mine.Version, err)
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for range 3 {
		f.draft(alice, "late-risk")
	}
	start := f.now
	var times []time.Time
	for _, version := range []int{1, 2, 2, 0, 3} {
		var err error
		if version == 0 {
			err = f.DeleteAlias(ctx, bob, "late-risk", "champion")
		} else {
			_, err = f.SetAlias(ctx, bob, "late-risk", "champion", version)
		}
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, f.now)
	}
	for i, want := range []int{1, 2, 2, 0, 3} {
		got, err := f.AliasAt(ctx, "acme", "late-risk", "champion", times[i])
		if want == 0 {
			refused(t, err, waybill.NotFound, "champion")
		} else if err != nil || got.Version != want {
			t.Errorf("at %s: %s, %v, want %d", times[i], got, err, want)
		}
	}
	_, err := f.AliasAt(ctx, "acme", "late-risk", "champion", start)
	refused(t, err, waybill.NotFound)
	// The clock of this node steps back: the newest change is still the last word.
	f.now = start.Add(-time.Hour)
	if _, err := f.SetAlias(ctx, bob, "late-risk", "champion", 1); err != nil {
		t.Fatal(err)
	}
	if got, err := f.AliasAt(ctx, "acme", "late-risk", "champion", times[4]); err != nil || got.Version != 1 {
		t.Errorf("after a step back: %s, %v", got, err)
	}
	changes, next, err := f.AliasHistory(ctx, "acme", "late-risk", registry.Page{Size: 3})
	if err != nil || next == "" || len(changes) != 3 || changes[0].Version != 1 || changes[2].Version != 0 || changes[0].Actor != "bob" {
		t.Errorf("history: %v, %q, %v", changes, next, err)
	}
	if rest, last, err := f.AliasHistory(ctx, "acme", "late-risk", registry.Page{Size: 3, Token: next}); err != nil || last != "" || len(rest) != 2 {
		t.Errorf("rest of the history: %v, %q, %v", rest, last, err)
	}

	for text, want := range map[string]int{"late-risk": 3, "late-risk@latest": 3, "late-risk@v2": 2, "late-risk@champion": 1} {
		if v, err := f.Resolve(ctx, "acme", text); err != nil || v.Version != want {
			t.Errorf("%s: version %d, %v, want %d", text, v.Version, err, want)
		}
	}
	for text, code := range map[string]waybill.Code{
		"late-risk@v9": waybill.NotFound, "late-risk@challenger": waybill.NotFound, "nothing@champion": waybill.NotFound,
		"late-risk@v0": waybill.Invalid, "late-risk@": waybill.Invalid, "@v1": waybill.Invalid, "late-risk@a@b": waybill.Invalid,
	} {
		_, err := f.Resolve(ctx, "acme", text)
		refused(t, err, code)
	}
	v, err := f.Get(ctx, "acme", waybill.VersionRef{Name: "late-risk", Version: 1})
	if err != nil || !slices.Equal(v.Aliases, []string{"champion"}) {
		t.Errorf("aliases of v1: %v, %v", v.Aliases, err)
	}
	models, _, err := f.ListModels(ctx, "acme", registry.Page{})
	if err != nil || len(models) != 1 || models[0].Latest.Version != 3 || models[0].Versions != 3 || models[0].Aliases["champion"] != 1 {
		t.Errorf("models: %+v, %v", models, err)
	}
	for _, alias := range []string{"", "latest", "v1", "v007", "Champion", "a b"} {
		_, err := f.SetAlias(ctx, bob, "late-risk", alias, 1)
		refused(t, err, waybill.Invalid, "alias")
	}
	_, err = f.SetAlias(ctx, bob, "late-risk", "champion", 4)
	refused(t, err, waybill.NotFound, "late-risk@v4")
	_, err = f.SetAlias(ctx, bob, "nothing", "champion", 1)
	refused(t, err, waybill.NotFound, "nothing")
	refused(t, f.DeleteAlias(ctx, bob, "late-risk", "challenger"), waybill.NotFound, "challenger")
}

func TestUploadBounds(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	v := f.draft(alice, "late-risk")
	exact := bytes.Repeat([]byte("x"), 1<<20)
	if a, err := f.UploadArtifact(ctx, alice, v.Ref(), "data/exact", bytes.NewReader(exact)); err != nil || a.Size != 1<<20 || a.SHA256 != hexOf(string(exact)) {
		t.Errorf("a file of exactly the bound: %+v, %v", a, err)
	}
	_, err := f.UploadArtifact(ctx, alice, v.Ref(), "large", bytes.NewReader(append(exact, 'x')))
	refused(t, err, waybill.TooLarge, "large", "1048576")
	_, err = f.UploadArtifact(ctx, alice, v.Ref(), "broken", io.MultiReader(strings.NewReader("x"), iotest.ErrReader(errors.New("line cut"))))
	if err == nil {
		t.Error("a file that was cut was stored as a whole one")
	}
	_, err = f.UploadArtifact(ctx, alice, v.Ref(), "../model.txt", strings.NewReader("x"))
	refused(t, err, waybill.Invalid, "path", "relative")
	for _, clash := range []string{"data", "model.txt/part"} {
		_, err = f.UploadArtifact(ctx, alice, v.Ref(), clash, strings.NewReader("x"))
		refused(t, err, waybill.Conflict, "folder")
	}
	_, err = f.UploadArtifact(ctx, alice, waybill.VersionRef{Name: "late-risk"}, "x", strings.NewReader("x"))
	refused(t, err, waybill.Invalid, "late-risk@v1")
	if a, err := f.UploadArtifact(ctx, alice, v.Ref(), "empty", strings.NewReader("")); err != nil || a.Size != 0 || a.SHA256 != hexOf("") {
		t.Errorf("an empty file: %+v, %v", a, err)
	}
	r, a, err := f.OpenArtifact(ctx, "acme", v.Ref(), "data/exact")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, exact) || a.Size != 1<<20 {
		t.Errorf("read back %d bytes, %v", len(data), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	_, _, err = f.OpenArtifact(ctx, "acme", v.Ref(), "nothing")
	refused(t, err, waybill.NotFound, "nothing")

	bare, err := f.CreateVersion(ctx, alice, newVersion("late-risk"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Submit(ctx, alice, bare.Ref())
	refused(t, err, waybill.Conflict, "model.txt", "upload it")
	_, err = f.ReadEntrypoint(ctx, "acme", bare.Ref(), 100)
	refused(t, err, waybill.Conflict, "upload it")
}

func TestCreateNamesEveryField(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, err := f.CreateVersion(t.Context(), alice, registry.NewVersion{
		Model: "Late", Format: "onnx", Entrypoint: "/etc/passwd", FeatureService: waybill.VersionRef{Name: "route-risk"},
		TrainingSet: "sha256:12", Automation: "all", Metrics: map[string]float64{"auc": math.NaN()}, Tags: map[string]string{"": "x"},
		Description: "\x00",
	})
	refused(t, err, waybill.Invalid)
	var e *waybill.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var fields []string
	for _, v := range e.Violations {
		fields = append(fields, v.Field)
	}
	want := []string{"model", "format", "entrypoint", "feature_service", "training_set", "automation", "description", "metrics.auc", "tags"}
	if d := cmp.Diff(want, fields); d != "" {
		t.Errorf("violations (-want +got):\n%s", d)
	}
	if n := count(t, f.pool, `SELECT count(*) FROM registry.models`); n != 0 {
		t.Errorf("%d models were made", n)
	}
	plain := registry.NewVersion{Model: "rules", Format: registry.Rules, Entrypoint: "rules.yaml", Automation: registry.Advisory}
	if v, err := f.CreateVersion(t.Context(), alice, plain); err != nil || v.FeatureService != (waybill.VersionRef{}) {
		t.Errorf("a rule set without features: %+v, %v", v, err)
	}
}

func TestPaging(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for i := range 5 {
		f.submitted(alice, fmt.Sprintf("model-%d", i))
	}
	var names []string
	page := registry.Page{Size: 2}
	for {
		list, next, err := f.ListModels(ctx, "acme", page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			names = append(names, m.Name)
		}
		if page.Token = next; next == "" {
			break
		}
	}
	if d := cmp.Diff([]string{"model-0", "model-1", "model-2", "model-3", "model-4"}, names); d != "" {
		t.Error(d)
	}
	list, _, err := f.ListVersions(ctx, "acme", registry.Filter{State: registry.Submitted}, registry.Page{})
	if err != nil || len(list) != 5 || list[0].Model != "model-4" || list[0].Needs == "" {
		t.Errorf("submitted: %v, %v", list, err)
	}
	_, _, err = f.ListVersions(ctx, "acme", registry.Filter{State: "asleep"}, registry.Page{})
	refused(t, err, waybill.Invalid, "state")
	for _, token := range []string{"%", "bm90LWEtbnVtYmVy"} {
		_, _, err = f.ListVersions(ctx, "acme", registry.Filter{}, registry.Page{Token: token})
		refused(t, err, waybill.Invalid, "page_token")
	}
	_, _, err = f.ListModels(ctx, "acme", registry.Page{Size: registry.MaxPage + 1})
	refused(t, err, waybill.Invalid, "page_size")
}

// BenchmarkCreateVersion makes versions of one model from eight goroutines: they take turns at its counter.
func BenchmarkCreateVersion(b *testing.B) {
	f := setup(b)
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := f.CreateVersion(b.Context(), alice, newVersion("late-risk")); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "versions/s")
}

// A version whose bytes are no model of its format is never frozen, and the words say what is wrong with them.
func TestSubmit_LooksAtTheBytes(t *testing.T) {
	t.Parallel()
	pool, objects := pgtest.DB(t), pgtest.TestBucket(t)
	s, err := registry.Open(t.Context(), pool, objects, registry.Config{MaxEntrypointBytes: 100, Check: func(f registry.Format, data []byte) error {
		if f != registry.LightGBM || string(data) != "tree" {
			return waybill.InvalidField("model", "does not begin as a model")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		bytes string
		code  waybill.Code
	}{{"garbage", waybill.Invalid}, {strings.Repeat("x", 101), waybill.TooLarge}, {"tree", ""}} {
		v, err := s.CreateVersion(t.Context(), alice, newVersion("late-risk"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.UploadArtifact(t.Context(), alice, v.Ref(), v.Entrypoint, strings.NewReader(c.bytes)); err != nil {
			t.Fatal(err)
		}
		done, err := s.Submit(t.Context(), alice, v.Ref())
		if waybill.CodeOf(err) != c.code || c.code == waybill.Invalid && !strings.Contains(err.Error(), "does not begin as a model") {
			t.Errorf("%.10s: %v, want %q", c.bytes, err, c.code)
		}
		if after, err := s.Get(t.Context(), "acme", v.Ref()); err != nil || (after.State == registry.Draft) != (c.code != "") {
			t.Errorf("%.10s: %s (%s), %v", c.bytes, after.State, done.State, err)
		}
	}
}

// Bytes that were revoked and come again under another number are flagged wherever the version is shown, and may be
// approved only by somebody who says that they know.
func TestApprove_BytesThatWereRevoked(t *testing.T) {
	t.Parallel()
	f := setup(t)
	submitted := func(model, bytes string) registry.Version {
		v, err := f.CreateVersion(t.Context(), alice, newVersion(model))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.UploadArtifact(t.Context(), alice, v.Ref(), v.Entrypoint, strings.NewReader(bytes)); err != nil {
			t.Fatal(err)
		}
		if v, err = f.Submit(t.Context(), alice, v.Ref()); err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := submitted("late-risk", "bytes")
	if _, err := f.Approve(t.Context(), bob, first.Ref(), first.Digest, "fine"); err != nil {
		t.Fatal(err)
	}
	if early := submitted("late-risk", "bytes"); early.RevokedAs != "" {
		t.Errorf("flagged before: %q", early.RevokedAs)
	}
	if _, err := f.Revoke(t.Context(), bob, first.Ref(), "leaks the label"); err != nil {
		t.Fatal(err)
	}
	again, fresh, elsewhere := submitted("late-risk", "bytes"), submitted("late-risk", "others"), submitted("early-risk", "bytes")
	if again.RevokedAs != "v1: leaks the label" || fresh.RevokedAs != "" || elsewhere.RevokedAs != "" {
		t.Errorf("%q, %q, %q", again.RevokedAs, fresh.RevokedAs, elsewhere.RevokedAs)
	}
	list, _, err := f.ListVersions(t.Context(), "acme", registry.Filter{Model: "late-risk"}, registry.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list { // 1 is the revoked one itself, 2 and 3 have its bytes
		if (v.RevokedAs != "") != (v.Version == 2 || v.Version == 3) {
			t.Errorf("v%d: %q", v.Version, v.RevokedAs)
		}
	}
	for _, reason := range []string{"fine", "was revoked", "v1 was good", "revoked as v11"} {
		if _, err := f.Approve(t.Context(), bob, again.Ref(), again.Digest, reason); waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "leaks the label") {
			t.Errorf("%s: %v", reason, err)
		}
	}
	if v, err := f.Approve(t.Context(), bob, again.Ref(), again.Digest, "Revoked as v1 by mistake: it was the other model"); err != nil || v.State != registry.Approved || v.RevokedAs == "" {
		t.Errorf("%s, %v", v.State, err)
	}
	if _, err := f.Approve(t.Context(), bob, fresh.Ref(), fresh.Digest, "fine"); err != nil {
		t.Error(err)
	}
}
