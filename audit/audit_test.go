package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/internal/pgtest"
)

const origin = "test.example/log/1"

type bundle struct {
	pool     *pgxpool.Pool
	log      *audit.Log
	key      string
	stop     context.CancelFunc
	finished chan error
}

func open(t testing.TB, pool *pgxpool.Pool, key string) *bundle {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := audit.Open(ctx, pool, audit.Config{LogID: 1, Origin: origin, SignerKey: key})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	b := &bundle{pool: pool, log: l, key: key, stop: cancel, finished: make(chan error, 1)}
	go func() { b.finished <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-b.finished; err != nil && waybill.CodeOf(err) != waybill.Unavailable { // some tests take the log from it
			t.Error(err)
		}
	})
	return b
}

func setup(t testing.TB) *bundle {
	t.Helper()
	key, _, err := audit.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, pgtest.DB(t), key)
}

func decision(id waybill.ID, request string) audit.Decision {
	score := 0.25
	return audit.Decision{Leaf: audit.DecisionLeaf{Tenant: "acme", ID: id, Actor: "shop",
		Model: audit.LeafModel{Ref: "late-risk@v1"}, Service: "route-risk@v1", Action: "go", Score: &score, Propensity: 1},
		RequestDigest: sha256.Sum256([]byte(request)), BusinessKey: request, Endpoint: "route", Revision: 1, Model: "late-risk", ModelVersion: 1,
		DecidedAt: time.Now().UTC(), Payload: []byte(`{"request":"` + request + `"}`)}
}

func (b *bundle) verify(t testing.TB) audit.Finding {
	t.Helper()
	f, err := audit.Verify(context.Background(), b.log, b.log.VerifierKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLog_ManyCallersAndDuplicates(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	const callers, each = 50, 20
	var mu sync.Mutex
	seen := map[waybill.ID]int64{}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				// Callers c and c+25 ask for the same decisions at the same time.
				id := waybill.DerivedID("test", fmt.Sprint(c%25), fmt.Sprint(i))
				r, err := b.log.Append(ctx, decision(id, fmt.Sprintf("order-%d-%d", c%25, i)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if first, ok := seen[id]; ok && first != r.Index {
					t.Errorf("decision %s has the indices %d and %d", id, first, r.Index)
				}
				seen[id] = r.Index
				mu.Unlock()
				row, err := b.log.FindDecision(ctx, "acme", id)
				if err != nil {
					t.Error(err)
					return
				}
				if err := audit.VerifyReceipt(b.log.VerifierKey(), row.Leaf, r); err != nil {
					t.Errorf("receipt of %s (duplicate %v): %v", id, r.Duplicate, err)
				}
				if r.Duplicate && !strings.Contains(string(r.Payload), fmt.Sprintf("order-%d-%d", c%25, i)) {
					t.Errorf("duplicate carries the payload %s", r.Payload)
				}
			}
		})
	}
	wg.Wait()
	if f := b.verify(t); !f.OK || f.Entries != callers*each/2 {
		t.Fatalf("log: %+v, want %d entries", f, callers*each/2)
	}
	_, err := b.log.Append(ctx, decision(waybill.DerivedID("test", "0", "0"), "another request"))
	if waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("the same key with another request: %v", err)
	}
	if _, err := b.log.FindDecision(ctx, "other", waybill.DerivedID("test", "0", "0")); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant sees the decision: %v", err)
	}
}

// Whatever the mix of decisions, events and restarts: the log verifies, producer counters have no gaps and every
// proof holds.
func TestLog_AnyHistoryVerifies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	n := int64(0)
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 3).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "what") {
			case 0:
				count := rapid.IntRange(1, 40).Draw(rt, "decisions")
				var wg sync.WaitGroup
				for i := range count {
					wg.Go(func() {
						id := waybill.NewID(time.Now())
						if _, err := b.log.Append(ctx, decision(id, fmt.Sprint(i))); err != nil {
							rt.Errorf("append: %v", err)
						}
					})
				}
				wg.Wait()
				n += int64(count)
			case 1:
				count := rapid.IntRange(1, 5).Draw(rt, "events")
				for i := range count {
					err := pg.InTx(ctx, b.pool, func(tx pgx.Tx) error {
						return audit.Enqueue(ctx, tx, audit.Event{Type: "policy.change", Tenant: "acme", Actor: "ann", At: time.Now(), Subject: fmt.Sprintf("policy:%d", i)})
					})
					if err != nil {
						rt.Fatal(err)
					}
				}
				n += int64(count)
			case 2:
				rolled := errors.New("rolled back")
				err := pg.InTx(ctx, b.pool, func(tx pgx.Tx) error {
					if err := audit.Enqueue(ctx, tx, audit.Event{Type: "policy.change", Tenant: "acme", Actor: "ann", At: time.Now(), Subject: "policy:0"}); err != nil {
						return err
					}
					return rolled
				})
				if !errors.Is(err, rolled) {
					rt.Fatal(err)
				}
			}
		}
		for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			var size int64
			if err := b.pool.QueryRow(ctx, "SELECT size FROM audit.log").Scan(&size); err != nil {
				rt.Fatal(err)
			}
			if size == n {
				break
			}
			if size > n || time.Since(start) > 10*time.Second {
				rt.Fatalf("log has %d entries, want %d", size, n)
			}
		}
		// A checkpoint is at most a second old, so it may cover a little less than all.
		if f, err := audit.Verify(ctx, b.log, b.log.VerifierKey(), nil); err != nil || !f.OK || f.Entries > n {
			rt.Fatalf("verify: %+v, %v", f, err)
		}
	})
	time.Sleep(1100 * time.Millisecond)
	if f := b.verify(t); !f.OK || f.Entries != n {
		t.Fatalf("log: %+v, want %d entries", f, n)
	}
	rows, _, err := b.log.Search(ctx, "acme", audit.Query{PageSize: 1})
	if err != nil || len(rows) != 1 {
		t.Fatalf("search: %d rows, %v", len(rows), err)
	}
	p, err := b.log.DecisionProof(ctx, "acme", rows[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.VerifyReceipt(b.log.VerifierKey(), p.Leaf, audit.Receipt{Index: p.Index, Size: p.Size, Path: p.Path, Checkpoint: p.Checkpoint}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.log.ConsistencyProof(ctx, 0, p.Size); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("consistency with the empty tree: %v", err)
	}
	checkCounters(t, b)
}

func checkCounters(t *testing.T, b *bundle) {
	t.Helper()
	next := map[string]int64{}
	rows, err := b.pool.Query(context.Background(), "SELECT leaf FROM audit.entry WHERE type = 'decision' ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range leaves {
		var leaf audit.DecisionLeaf
		if err := json.Unmarshal(raw, &leaf); err != nil {
			t.Fatal(err)
		}
		if next[leaf.Producer]++; leaf.PSeq != next[leaf.Producer] {
			t.Fatalf("producer %s counts %d where %d is due", leaf.Producer, leaf.PSeq, next[leaf.Producer])
		}
	}
}

func TestLog_SecondSequencerFencesTheFirst(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	if _, err := b.log.Append(ctx, decision(waybill.NewID(time.Now()), "1")); err != nil {
		t.Fatal(err)
	}
	second := open(t, b.pool, b.key)
	if _, err := second.log.Append(ctx, decision(waybill.NewID(time.Now()), "2")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.log.Append(ctx, decision(waybill.NewID(time.Now()), "3")); waybill.CodeOf(err) != waybill.Unavailable {
		t.Fatalf("the fenced sequencer answered %v", err)
	}
	if f := second.verify(t); !f.OK || f.Entries != 2 {
		t.Fatalf("log: %+v", f)
	}
}

// The sequencer's sessions are ended again and again under load: what was acknowledged is there once, with a proof.
func TestLog_LostSessions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	quit := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(15 * time.Millisecond):
				if _, err := b.pool.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil && !pg.IsConnLost(err) {
					t.Log(err)
				}
			}
		}
	})
	var mu sync.Mutex
	acked := map[waybill.ID]audit.Receipt{}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 40 {
				id := waybill.NewID(time.Now())
				r, err := b.log.Append(ctx, decision(id, id.String()))
				if err != nil {
					if code := waybill.CodeOf(err); code != waybill.Unavailable {
						t.Errorf("append: %s: %v", code, err)
					}
					continue
				}
				mu.Lock()
				acked[id] = r
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close(quit)
	killer.Wait()
	if len(acked) < 400 {
		t.Errorf("only %d of 800 appends were acknowledged", len(acked))
	}
	b.pool.Reset() // the reading below is not what is tested: no dead sessions for it
	for id, r := range acked {
		row, err := b.log.FindDecision(ctx, "acme", id)
		if err != nil || row.Seq != r.Index {
			t.Fatalf("acknowledged decision %s: index %d, receipt %d, %v", id, row.Seq, r.Index, err)
		}
		if err := audit.VerifyReceipt(b.log.VerifierKey(), row.Leaf, r); err != nil {
			t.Fatal(err)
		}
	}
	if f := b.verify(t); !f.OK {
		t.Fatalf("log: %+v", f)
	}
	checkCounters(t, b)
}

func TestVerify_NamesWhatWasChanged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	var wg sync.WaitGroup
	for i := range 700 {
		wg.Go(func() {
			if _, err := b.log.Append(ctx, decision(waybill.NewID(time.Now()), fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	flip := func(t *testing.T, path string, offset int) string {
		t.Helper()
		dir := t.TempDir()
		if _, err := audit.Export(ctx, b.log, b.log.VerifierKey(), dir, nil); err != nil {
			t.Fatal(err)
		}
		if f, err := audit.Verify(ctx, audit.DirSource(dir), b.log.VerifierKey(), nil); err != nil || !f.OK || f.Entries != 700 {
			t.Fatalf("the copy does not verify: %+v, %v", f, err)
		}
		full := filepath.Join(dir, path)
		raw, err := os.ReadFile(full)
		if err != nil {
			t.Fatal(err)
		}
		raw[offset] ^= 1
		if err := os.WriteFile(full, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, c := range []struct {
		name, path string
		offset     int
		index      int64
		what       string
	}{
		{"Entry", "tile/entries/001", 5, 256, "entry 256 was changed"},
		{"LeafTile", "tile/0/000", 32*7 + 3, 7, "entry 7 was changed"},
		{"PartialEntry", "tile/entries/002.p/188", 20, 512, "entry 512 was changed"},
		{"UpperTile", "tile/1/000.p/2", 3, -1, "tile 1/0 does not match the entries below it: its hash 0, over the entries 0 to 255, is another"},
		{"Checkpoint", "checkpoint", 30, -1, "checkpoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := flip(t, c.path, c.offset)
			f, err := audit.Verify(ctx, audit.DirSource(dir), b.log.VerifierKey(), nil)
			if err != nil || f.OK || f.FirstBad != c.index || !strings.Contains(f.What, c.what) {
				t.Fatalf("got %+v, %v; want entry %d, %q", f, err, c.index, c.what)
			}
		})
	}
}

func TestSearch_PagesWithoutRepeating(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	for i := range 25 {
		if _, err := b.log.Append(ctx, decision(waybill.NewID(time.Now()), fmt.Sprintf("order-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[waybill.ID]bool{}
	token, pages := "", 0
	for {
		rows, next, err := b.log.Search(ctx, "acme", audit.Query{Endpoint: "route", PageSize: 10, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if seen[r.ID] {
				t.Fatalf("decision %s is on two pages", r.ID)
			}
			seen[r.ID] = true
		}
		if pages++; next == "" {
			break
		}
		token = next
		if _, err := b.log.Append(ctx, decision(waybill.NewID(time.Now()), "late")); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 25 || pages != 3 {
		t.Fatalf("%d decisions on %d pages", len(seen), pages)
	}
	rows, _, err := b.log.Search(ctx, "acme", audit.Query{BusinessKey: "order-7"})
	if err != nil || len(rows) != 1 {
		t.Fatalf("by order: %d rows, %v", len(rows), err)
	}
	if _, _, err := b.log.Search(ctx, "acme", audit.Query{PageToken: "nonsense"}); waybill.CodeOf(err) != waybill.Invalid {
		t.Errorf("bad token: %v", err)
	}
}

func TestEntry_CannotBeChangedInPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.log.Append(context.Background(), decision(waybill.NewID(time.Now()), "1")); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"UPDATE audit.entry SET leaf = 'x'", "DELETE FROM audit.entry", "TRUNCATE audit.entry"} {
		if _, err := b.pool.Exec(context.Background(), sql); err == nil || !strings.Contains(err.Error(), "insert-only") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// BenchmarkAppend is 256 callers; BenchmarkCopyLimit writes the same bytes with one commit per batch of 256.
func BenchmarkAppend(b *testing.B) {
	s := setup(b)
	b.SetParallelism(128)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := s.log.Append(context.Background(), decision(waybill.NewID(time.Now()), "order")); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkCopyLimit(b *testing.B) {
	pool := pgtest.DB(b)
	ctx := context.Background()
	leaf := bytes.Repeat([]byte("x"), 700)
	b.ResetTimer()
	for n := 0; n < b.N; n += 256 {
		_, err := pool.CopyFrom(ctx, pgx.Identifier{"audit", "entry"}, []string{"log_id", "seq", "type", "tenant", "subject", "recorded_at", "leaf", "leaf_hash"},
			pgx.CopyFromSlice(min(256, b.N-n), func(i int) ([]any, error) {
				return []any{9, n + i, "decision", "acme", "s", time.Now(), leaf, leaf[:32]}, nil
			}))
		if err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzVerifyReadsAnything(f *testing.F) {
	f.Add([]byte("test.example/log/1\n1\nAAAA\n\n— x y\n"), []byte{0, 1, 'x'})
	f.Fuzz(func(t *testing.T, checkpoint, rest []byte) {
		key, verifier, err := audit.GenerateKey(origin)
		if err != nil || key == "" {
			t.Fatal(err)
		}
		finding, err := audit.Verify(context.Background(), source{checkpoint, rest}, verifier, nil)
		if err == nil && finding.OK {
			t.Fatal("a log that nobody signed verifies")
		}
	})
}

type source struct{ checkpoint, rest []byte }

func (s source) Read(_ context.Context, path string) ([]byte, error) {
	if path == "checkpoint" {
		return s.checkpoint, nil
	}
	return s.rest, nil
}
