package featurestore_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill"
	"waybill/featurestore"
)

func (b *bundle) objects(t testing.TB, prefix string) (keys []string) {
	t.Helper()
	for o, err := range b.bucket.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// A hub that starts from a snapshot and the tail serves what one serves that read the whole log, at every time.
func TestSnapshot_AndTailLikeTheLog(t *testing.T) {
	t.Parallel()
	everywhere(t, snapshotAndTailLikeTheLog)
}

func snapshotAndTailLikeTheLog(t *testing.T, setup func(testing.TB, string) *bundle) {
	ctx := context.Background()
	b := setup(t, definitions)
	random := rand.New(rand.NewPCG(3, 4))
	push := func(n int) {
		var rows []map[string]any
		for range 50 {
			rows = append(rows, load(fmt.Sprint("w", random.IntN(30)), b.now.Add(time.Duration(random.IntN(400)-300)*time.Second), float64(random.IntN(1000))/1000))
		}
		if _, err := b.push(fmt.Sprint("batch ", n), rows...); err != nil {
			t.Fatal(err)
		}
		b.at(b.now.Add(time.Duration(random.IntN(60)) * time.Second))
	}
	writer := b.openWith(t, 1)
	same := func(what string) {
		t.Helper()
		whole, quick := b.openWith(t, 1), b.openWith(t, 1)
		for i := range 31 {
			for _, ahead := range []time.Duration{0, 30 * time.Second, 5 * time.Minute} {
				name := fmt.Sprint("w", i)
				x, err1 := b.readFrom(whole, "route-risk", name, b.now.Add(ahead))
				y, err2 := b.readFrom(writer, "route-risk", name, b.now.Add(ahead))
				z, err3 := b.readFrom(quick, "route-risk", name, b.now.Add(ahead))
				if d := cmp.Diff(x, z) + cmp.Diff(x, y); d != "" || err1 != nil || err2 != nil || err3 != nil {
					t.Fatalf("%s: %s after %v: %s%v %v %v", what, name, ahead, d, err1, err2, err3)
				}
			}
		}
	}
	for n := range 12 {
		push(n)
		if err := writer.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if n%3 == 1 {
			if err := writer.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if n%4 == 0 {
			same(fmt.Sprint("after ", n))
		}
	}
	if n := len(b.objects(t, "featurestore/snapshots/")); n == 0 || n > 2 {
		t.Errorf("%d parts of snapshots are in the bucket; the two newest should be", n)
	}
	same("at the end")
}

// A snapshot spares the log: what is before it is not read. A snapshot that is damaged or gone is passed over.
func TestSnapshot_SparesTheLogAndMayBeLost(t *testing.T) {
	t.Parallel()
	everywhere(t, snapshotSparesTheLogAndMayBeLost)
}

func snapshotSparesTheLogAndMayBeLost(t *testing.T, setup func(testing.TB, string) *bundle) {
	ctx := context.Background()
	b := setup(t, definitions)
	var csv strings.Builder
	csv.WriteString("warehouse,event_time,queue\n")
	for i := range 1000 {
		fmt.Fprintf(&csv, "w%d,2026-04-01T11:00:00Z,0.%03d\n", i, i)
	}
	if _, err := b.ingest("file", featurestore.CSV, csv.String()); err != nil {
		t.Fatal(err)
	}
	if err := b.openWith(t, 2000).Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if keys := b.objects(t, "featurestore/snapshots/"); len(keys) != 0 {
		t.Fatalf("a snapshot of too few rows: %v", keys)
	}
	if err := b.openWith(t, 1000).Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.push("tail", load("w7", b.now, 0.25)); err != nil {
		t.Fatal(err)
	}
	commits, parts := b.objects(t, "featurestore/commits/"), b.objects(t, "featurestore/snapshots/")
	if len(commits) != 1 || len(parts) != 1 {
		t.Fatalf("commits %v, snapshots %v", commits, parts)
	}
	file, _, err := b.bucket.Get(ctx, commits[0])
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if _, err := data.ReadFrom(file); err != nil {
		t.Fatal(err)
	}
	if err := b.bucket.Delete(ctx, commits[0]); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		s := b.openWith(t, 1)
		for name, want := range map[string]any{"w7": 0.25, "w8": 0.008, "w999": 0.999} {
			if cells, err := b.readFrom(s, "route-risk", name, b.now); err != nil || cells[0].Value != want {
				t.Errorf("%s: %s is %+v, %v; want %v", what, name, cells, err, want)
			}
		}
	}
	check("without the log before the snapshot")
	if _, err := b.bucket.Put(ctx, commits[0], &data, int64(data.Len())); err != nil {
		t.Fatal(err)
	}
	junk := []byte("junk")
	if _, err := b.bucket.Put(ctx, parts[0], bytes.NewReader(junk), int64(len(junk))); err != nil {
		t.Fatal(err)
	}
	check("with a damaged snapshot")
	if err := b.bucket.Delete(ctx, parts[0]); err != nil {
		t.Fatal(err)
	}
	check("with a lost snapshot")
	if _, err := b.store.Reader(ctx, "acme", waybill.VersionRef{Name: "route-risk"}); err != nil {
		t.Error(err)
	}
}
