package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// someSets is a hub that has some training sets.
type someSets struct {
	featurestorev1.UnimplementedFeatureStoreServiceServer
	sets []*featurestorev1.TrainingSet
}

func (h *someSets) GetTrainingSet(ctx context.Context, req *featurestorev1.GetTrainingSetRequest) (*featurestorev1.GetTrainingSetResponse, error) {
	if md, _ := metadata.FromIncomingContext(ctx); len(md["authorization"]) != 1 || md["authorization"][0] != "Bearer t" {
		return nil, status.Error(codes.Unauthenticated, "no token")
	}
	for _, set := range h.sets {
		if req.GetDigest() == set.GetDigest() {
			return &featurestorev1.GetTrainingSetResponse{TrainingSet: set}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "there is no training set "+req.GetDigest())
}

// TestTrainingSetShow: the command asks for the set by its digest and writes recipe and statistics for people, or with --json all
// of it for programs.
func TestTrainingSetShow(t *testing.T) {
	t.Parallel()
	set := &featurestorev1.TrainingSet{Digest: strings.Repeat("ab", 32), Name: "late-2026q1", Service: "route-risk@v2", Views: map[string]int64{"weather@v1": 3, "load@v1": 17},
		SpineFormat: "parquet", SpineDigest: strings.Repeat("cd", 32), TimeColumn: "at", LabelColumn: "late", Kernel: "asof 4, waybill 1", Rows: 4, SizeBytes: 2048, Author: "ann",
		CreatedAt: timestamppb.New(time.Date(2026, 4, 10, 18, 0, 0, 0, time.UTC)), Without: []string{"rain", "snow"}, Delay: durationpb.New(15 * time.Minute),
		Columns: []*featurestorev1.ColumnStats{
			{Name: "warehouse", Type: "string", Rows: 4},
			{Name: "late", Type: "float64", Rows: 4, Nulls: 1, Mean: 1.0 / 3, Std: 0.25, Max: 1},
			{Name: "price", Type: "decimal", Rows: 4, Mean: 12.5, Min: -1, Max: 40},
			{Name: "queue", Type: "int64", Rows: 4, Nulls: 4},
			{Name: "days", Type: "list<timestamp>", Rows: 4},
		}}
	plain := &featurestorev1.TrainingSet{Digest: strings.Repeat("12", 32), Name: "plain", Cutoff: set.GetCreatedAt()}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	featurestorev1.RegisterFeatureStoreServiceServer(s, &someSets{sets: []*featurestorev1.TrainingSet{set, plain}})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	env := map[string]string{"WAYBILL_URL": "http://127.0.0.1:1", "WAYBILL_GRPC": l.Addr().String(), "WAYBILL_TOKEN": "t"}
	show := func(args ...string) (int, string, string) {
		t.Helper()
		return run(t, "", env, append([]string{"training-set", "show"}, args...)...)
	}

	const want = `late-2026q1

digest    abababababababababababababababababababababababababababababababab
made      2026-04-10 18:00:00Z by ann with asof 4, waybill 1
of        route-risk@v2
from      load@v1 up to commit 17
from      weather@v1 up to commit 3
spine     parquet cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
time      at
known by  each row's own time
label     late
delay     15m0s
left out  rain, snow
file      4 rows, 2048 bytes of Parquet

COLUMN     TYPE             NULLS  MEAN      STD   MIN  MAX
warehouse  string           0      -         -     -    -
late       float64          1      0.333333  0.25  0    1
price      decimal          0      12.5      0     -1   40
queue      int64            4      -         -     -    -
days       list<timestamp>  0      -         -     -    -
`
	if code, out, errs := show(set.GetDigest()); code != exitOK || errs != "" || out != want {
		t.Errorf("exit %d, %s:\n%s\nnot\n%s", code, errs, out, want)
	}
	code, out, errs := show(set.GetDigest(), "--json")
	got := &featurestorev1.GetTrainingSetResponse{}
	if err := protojson.Unmarshal([]byte(out), got); code != exitOK || errs != "" || err != nil || !proto.Equal(got.GetTrainingSet(), set) {
		t.Errorf("--json: exit %d, %s, %v:\n%s", code, errs, err, out)
	}
	if code, out, errs := show(strings.Repeat("ef", 32)); code == exitOK || out != "" || !strings.Contains(errs, "there is no training set efef") {
		t.Errorf("a set that is not there: exit %d, %q, %q", code, out, errs)
	}

	_, out, _ = show(plain.GetDigest())
	if !strings.Contains(out, "\nknown by  2026-04-10 18:00:00Z\n") || strings.Contains(out, "label") || strings.Contains(out, "delay") || strings.Contains(out, "left out") {
		t.Errorf("with a cut-off, and nothing else:\n%s", out)
	}
}
