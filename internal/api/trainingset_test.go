package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill/internal/access"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// What an endpoint decided and how it turned out becomes a training set, for those who may read decisions; and its variants
// go without a group of features.
func TestTrainingSet_OfDecisions(t *testing.T) {
	t.Parallel()
	h := setup(t)
	check[int64](t)(h.access.BindRole(context.Background(), h.ann, "ann", "data-scientist"))
	_, answer := h.call(t, "POST", "/v1/decide/route", h.token, order(time.Now().Add(48*time.Hour)))
	if code, res := h.call(t, "POST", "/v1/decisions/"+answer["decision_id"].(string)+"/outcome", h.token, `{"name":"late","value":true,"event_time":"`+time.Now().UTC().Format(time.RFC3339)+`"}`); code != 200 {
		t.Fatalf("%d %v", code, res)
	}
	client := featurestorev1.NewFeatureStoreServiceClient(h.grpc)
	create := func(token string, change func(d *featurestorev1.DecisionSpine)) (*featurestorev1.TrainingSet, error) {
		d := &featurestorev1.DecisionSpine{Endpoint: "route", Outcome: "late", From: timestamppb.New(time.Now().Add(-time.Hour)), To: timestamppb.New(time.Now().Add(time.Hour))}
		change(d)
		stream := check[featurestorev1.FeatureStoreService_CreateTrainingSetClient](t)(client.CreateTrainingSet(h.as(token)))
		_ = stream.Send(&featurestorev1.CreateTrainingSetRequest{Name: "decided", Service: "route-risk", Decisions: d, FullNames: true})
		res, err := stream.CloseAndRecv()
		return res.GetTrainingSet(), err
	}
	same := func(*featurestorev1.DecisionSpine) {}
	set, err := create(h.token, same)
	if err != nil {
		t.Fatal(err)
	}
	names := func(set *featurestorev1.TrainingSet) string {
		var out []string
		for _, c := range set.GetColumns() {
			out = append(out, c.GetName())
		}
		return strings.Join(out, " ")
	}
	if got := names(set); set.GetRows() != 1 || !strings.HasPrefix(got, "decision_id decided_at action ") || !strings.HasSuffix(got, " late warehouse_load__queue pressure") {
		t.Errorf("%d rows of %s", set.GetRows(), got)
	}
	if _, err := create(h.token, func(d *featurestorev1.DecisionSpine) { d.Outcome = "lost" }); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an outcome that is not declared: %v", err)
	}
	carol := check[access.Account](t)(h.access.CreateAccount(context.Background(), h.ann, access.Account{ID: "carol", Kind: "person"}))
	check[int64](t)(h.access.AddRule(context.Background(), h.ann, access.Rule{Subject: "account:carol", Object: "service/*", Action: access.Write, Effect: access.Allow}))
	_, token, err := h.access.IssueToken(context.Background(), h.ann, access.Grant{}, carol.ID, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(token, same); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without the right to read decisions: %v", err)
	}

	res := check[*featurestorev1.AblateTrainingSetResponse](t)(client.AblateTrainingSet(h.as(h.token), &featurestorev1.AblateTrainingSetRequest{Digest: set.GetDigest(),
		Groups: []*featurestorev1.AblationGroup{{Name: "warehouse_load"}}}))
	var manifest struct {
		Base     string
		Variants []struct{ Group, Digest string }
	}
	if err := json.Unmarshal(res.GetManifest(), &manifest); err != nil || manifest.Base != set.GetDigest() || len(manifest.Variants) != 1 || manifest.Variants[0].Digest != res.GetVariants()[0].GetTrainingSet().GetDigest() {
		t.Errorf("%s, %v", res.GetManifest(), err)
	}
	if got := res.GetVariants()[0].GetTrainingSet(); strings.Contains(names(got), "queue") || strings.Contains(names(got), "pressure") || !strings.Contains(names(got), "km") {
		t.Errorf("without warehouse_load: %s", names(got))
	}
	// The same as builds: what came of them is with them.
	built := func(id string) *featurestorev1.GetTrainingSetBuildResponse {
		t.Helper()
		got := check[*featurestorev1.GetTrainingSetBuildResponse](t)(client.GetTrainingSetBuild(h.as(h.token), &featurestorev1.GetTrainingSetBuildRequest{BuildId: id}))
		if got.GetBuild().GetState() != "done" || got.GetBuild().GetBaseDigest() != set.GetDigest() {
			t.Errorf("%+v", got.GetBuild())
		}
		return got
	}
	started := check[*featurestorev1.AblateTrainingSetResponse](t)(client.AblateTrainingSet(h.as(h.token), &featurestorev1.AblateTrainingSetRequest{Digest: set.GetDigest(),
		Groups: []*featurestorev1.AblationGroup{{Name: "warehouse_load"}}, StartOnly: true}))
	if got := built(started.GetBuild().GetBuildId()); got.GetBuild().GetKind() != "ablate" || !proto.Equal(got.GetAblation(), res) || started.GetManifest() != nil {
		t.Errorf("%+v, want %+v", got, res)
	}
	again := check[*featurestorev1.RebuildTrainingSetResponse](t)(client.RebuildTrainingSet(h.as(h.token), &featurestorev1.RebuildTrainingSetRequest{Digest: set.GetDigest()}))
	code, over := h.call(t, "POST", "/v1/training-sets/"+set.GetDigest()+":rebuild", h.token, `{"start_only":true}`)
	build, _ := over["build"].(map[string]any)
	id, _ := build["build_id"].(string)
	if got := built(id); code != 200 || got.GetBuild().GetKind() != "rebuild" || !proto.Equal(got.GetRebuild(), again) || !again.GetEqual() {
		t.Errorf("%d %v: %+v, want %+v", code, over, got, again)
	}
	code, over = h.call(t, "POST", "/v1/training-sets/"+set.GetDigest()+":ablate", h.token, `{"groups":[{"name":"nothing"}]}`)
	if code != 400 {
		t.Errorf("REST: %d %v", code, over)
	}
}
