package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// spineRows is so many that the answer of one view is worth keeping, and that a hub works on it for a while.
const spineRows = 350_000

// startSet starts a build over both views and returns its id.
func (s *stored) startSet(ctx context.Context, name string, spine []byte) string {
	s.t.Helper()
	stream, err := s.dial().features.CreateTrainingSet(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	m := &featurestorev1.CreateTrainingSetRequest{Name: name, Service: "both", Format: "csv", TimeColumn: "at", StartOnly: true}
	for first := true; first || len(spine) > 0; first = false {
		m.Chunk = spine[:min(len(spine), sendChunk)]
		spine = spine[len(m.GetChunk()):]
		if err := stream.Send(m); err != nil {
			break // the answer says why
		}
		m = &featurestorev1.CreateTrainingSetRequest{}
	}
	res, err := stream.CloseAndRecv()
	if err != nil {
		s.t.Fatal(err)
	}
	return res.GetBuild().GetBuildId()
}

// reach waits until a build has come so far that a condition on its row holds.
func (s *stored) reach(ctx context.Context, build, condition string) {
	s.t.Helper()
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		var yes, ended bool
		if err := s.pool.QueryRow(ctx, `SELECT `+condition+`, ended_at IS NOT NULL FROM featurestore.training_set_build WHERE id = $1`, build).Scan(&yes, &ended); err != nil {
			s.t.Fatal(err)
		}
		if yes {
			return
		}
		if ended || time.Since(start) > 2*time.Minute {
			s.t.Fatalf("build %s has not come to %s: ended %t", build, condition, ended)
		}
	}
}

// objects counts what lies below a prefix of the bucket.
func (s *stored) objects(ctx context.Context, prefix string) (n int) {
	s.t.Helper()
	for _, err := range s.bucket.List(ctx, prefix) {
		if err != nil {
			s.t.Fatal(err)
		}
		n++
	}
	return n
}

// TestKillBuild kills the hub in the middle of training sets, which go on with what is done and come out with the bytes of
// an undisturbed one; and in the middle of an ablation; and cancels one in the middle, which leaves nothing.
func TestKillBuild(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := &writers{stored: newStored(t), next: map[string]int{}}
	for _, b := range []*batchOf{w.batch("filed", keysOf["filed"]), w.batch("pushed", keysOf["pushed"]), w.batch("filed", 50_000)} {
		if err := w.write(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	var spine bytes.Buffer
	spine.WriteString("k,at\n")
	at := time.Now().Add(time.Minute).UTC().Format(time.RFC3339) // when everything is known
	for i := range spineRows {
		fmt.Fprintf(&spine, "%d,%s\n", (i*7919)%keysOf["filed"], at)
	}
	kills, takenOver, last := min(killsPerPhase(t), 10), 0, ""
	for n := range kills {
		build := w.startSet(ctx, fmt.Sprintf("killed-%d", n), spine.Bytes())
		if n%2 == 0 {
			w.reach(ctx, build, `parts <> '{}' AND state = 'running'`)
		} else {
			w.reach(ctx, build, `state = 'running'`)
			time.Sleep(time.Duration(n*37%100) * 15 * time.Millisecond)
		}
		w.end()
		var state string
		var parts int
		if err := w.pool.QueryRow(ctx, `SELECT state, (SELECT count(*) FROM jsonb_object_keys(parts)) FROM featurestore.training_set_build WHERE id = $1`, build).Scan(&state, &parts); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.start()
		c := w.dial()
		var out, said bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		res, err := c.features.GetTrainingSetBuild(ctx, &featurestorev1.GetTrainingSetBuildRequest{BuildId: build})
		if err == nil {
			err = followBuild(ctx, environment{Err: &said, Out: io.Discard}, c, printer{cmd: cmd}, res.GetBuild(), "")
		}
		if err != nil {
			t.Fatalf("build %s, killed when it was %s: %v", build, state, err)
		}
		took := time.Since(began)
		if res, err = c.features.GetTrainingSetBuild(ctx, &featurestorev1.GetTrainingSetBuildRequest{BuildId: build}); err != nil {
			t.Fatal(err)
		}
		b := res.GetBuild()
		if state != "done" && !strings.Contains(said.String(), "joining killed-") {
			t.Errorf("no progress was shown: %q", said.String())
		}
		if !strings.HasPrefix(out.String(), b.GetDigest()+"  350000 rows × 7 columns") {
			t.Errorf("said %q", out.String())
		}
		last = b.GetDigest()
		rebuild, err := c.features.RebuildTrainingSet(ctx, &featurestorev1.RebuildTrainingSetRequest{Digest: b.GetDigest(), StartOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if err := followBuild(ctx, environment{Err: &said, Out: io.Discard}, c, printer{cmd: cmd}, rebuild.GetBuild(), ""); err != nil || !strings.Contains(out.String(), "equal, byte for byte: "+b.GetDigest()) {
			t.Fatalf("an undisturbed one: %q, %v", out.String(), err)
		}
		log, err := os.ReadFile(w.said())
		if err != nil {
			t.Fatal(err)
		}
		over := bytes.Count(log, []byte("is taken over from the try before")) - takenOver
		takenOver += over
		if parts > 0 && state == "running" && over == 0 {
			t.Errorf("%d parts were kept and none was taken over", parts)
		}
		if left := w.objects(ctx, "featurestore/builds/"); left != 0 {
			t.Errorf("%d objects of ended builds are left", left)
		}
		t.Logf("killed when %s with %d parts kept; done %.1f s after the kill, %d parts taken over, the same SHA-256 as an undisturbed one", state, parts, took.Seconds(), over)
	}

	ablation, err := w.dial().features.AblateTrainingSet(ctx, &featurestorev1.AblateTrainingSetRequest{Digest: last, StartOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	w.reach(ctx, ablation.GetBuild().GetBuildId(), `rows_done > 0 AND state = 'running'`)
	w.end()
	w.start()
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	manifest := filepath.Join(t.TempDir(), "manifest.json")
	if err := followBuild(ctx, environment{Err: io.Discard, Out: io.Discard}, w.dial(), printer{cmd: cmd}, ablation.GetBuild(), manifest); err != nil {
		t.Fatalf("an ablation that was killed: %v", err)
	}
	if text, err := os.ReadFile(manifest); err != nil || !bytes.Contains(text, []byte(`"base": "`+last)) || strings.Count(out.String(), "  350000  ") != bytes.Count(text, []byte(`"group"`)) || !strings.Contains(out.String(), "filed") {
		t.Errorf("said %q, manifest %s, %v", out.String(), text, err)
	}

	sets := w.objects(ctx, "featurestore/trainingsets/")
	build := w.startSet(ctx, "cancelled", spine.Bytes())
	w.reach(ctx, build, `rows_done > 0 AND state = 'running'`)
	res, err := w.dial().features.CancelTrainingSetBuild(ctx, &featurestorev1.CancelTrainingSetBuildRequest{BuildId: build})
	if err != nil || res.GetBuild().GetState() != "cancelled" {
		t.Fatalf("%+v, %v", res, err)
	}
	for start := time.Now(); w.objects(ctx, "featurestore/builds/") > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("a cancelled build has left objects for 20 s")
		}
	}
	var rows int
	if err := w.pool.QueryRow(ctx, `SELECT count(*) FROM featurestore.training_set WHERE name = 'cancelled'`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if n := w.objects(ctx, "featurestore/trainingsets/"); rows != 0 || n != sets || w.objects(ctx, "staging/") != 0 {
		t.Errorf("a cancelled build left %d rows and %d objects", rows, n-sets)
	}
}
