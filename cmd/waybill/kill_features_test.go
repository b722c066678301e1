package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/audit"
	"waybill/featurestore"
	"waybill/internal/access"
	"waybill/internal/bucket"
	"waybill/internal/jobs"
	"waybill/internal/pgtest"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// killsVariable says how often a hub is killed in each phase of TestKillFeatures: a few times unless it is set.
const killsVariable = "WAYBILL_TEST_KILLS"

// keysOf is how many keys the rows of each view go round.
var keysOf = map[string]int{"pushed": 1000, "filed": 60_000}

const killDefinitions = `
kind: View
name: pushed
owner: ops@example.com
entity: {name: thing, keys: [{name: k, type: int64}]}
features: [{name: pushed_batch, type: int64}, {name: pushed_x, type: float64}]
---
kind: View
name: filed
owner: ops@example.com
entity: {name: thing, keys: [{name: k, type: int64}]}
features: [{name: filed_batch, type: int64}, {name: filed_x, type: float64}]
---
kind: Service
name: both
inputs: [{name: k, type: int64}]
features: ["pushed@latest:pushed_batch", "pushed@latest:pushed_x", "filed@latest:filed_batch", "filed@latest:filed_x"]
expressions: [{name: sum, type: float64, expr: "pushed_x + filed_x * 2.0"}]
`

// stored is a hub on the Postgres and S3 of the tests, which outlive it: what it left can be looked at while it is dead.
type stored struct {
	*devHub
	pool   *pgxpool.Pool
	bucket *bucket.Bucket
	token  string
	begin  time.Time // the event time of batch 0; each batch is a second later
}

func newStored(t *testing.T) *stored {
	t.Helper()
	ctx := t.Context()
	dsn, objects := pgtest.DSN(t), pgtest.BucketConfig(t)
	objects.Create = true
	s := &stored{devHub: &devHub{t: t, dir: t.TempDir(), http: freeAddr(t), grpc: freeAddr(t)}, begin: time.Now().Add(-48 * time.Hour).UTC().Truncate(time.Second)}
	var err error
	if s.pool, err = pgxpool.New(ctx, dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.Close)
	if s.bucket, err = bucket.Open(ctx, objects); err != nil {
		t.Fatal(err)
	}
	a, err := access.Open(ctx, s.pool, access.Config{Env: access.Live})
	if err != nil {
		t.Fatal(err)
	}
	if s.token, err = a.Bootstrap(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"data-scientist", "serving", "operator"} {
		if _, err := a.BindRole(ctx, waybill.Actor{ID: "ann", Tenant: "acme", Kind: waybill.Person}, "ann", role); err != nil {
			t.Fatal(err)
		}
	}
	signer, _, err := audit.GenerateKey(localOrigin)
	if err != nil {
		t.Fatal(err)
	}
	s.args = []string{"serve", "--http-addr", s.http, "--grpc-addr", s.grpc, "--log-level", "info"}
	s.env = []string{"WAYBILL_DATABASE_URL=" + dsn, "WAYBILL_S3_ENDPOINT=" + objects.Endpoint, "WAYBILL_S3_BUCKET=" + objects.Bucket, "WAYBILL_S3_REGION=" + objects.Region,
		"WAYBILL_S3_PLAINTEXT=true", "WAYBILL_S3_ACCESS_KEY=" + objects.AccessKey, "WAYBILL_S3_SECRET_KEY=" + objects.SecretKey, "WAYBILL_LOG_ORIGIN=" + localOrigin,
		"WAYBILL_LOG_KEY=" + signer}
	s.cleanUp()
	s.start()
	c := s.dial()
	if _, err := c.features.ApplyDefinitions(ctx, &featurestorev1.ApplyDefinitionsRequest{Yaml: killDefinitions, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects to the hub that runs now: a connection that has seen one die waits before it tries again.
func (s *stored) dial() *client {
	s.t.Helper()
	c, err := dial("http://"+s.http, s.grpc, s.token)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.close() })
	return c
}

// batchOf is one write: rows first to first+rows of a view's keys, going round, all with the number of the batch.
type batchOf struct {
	view        string
	n           int // of the batch, in its view
	first, rows int
	commit      *featurestorev1.Commit // what was acknowledged
}

func (b *batchOf) id() string       { return b.view + "-" + strconv.Itoa(b.n) }
func (b *batchOf) key(i int) int64  { return int64((b.first + i) % keysOf[b.view]) }
func (b *batchOf) x(i int) float64  { return float64(b.n) + float64(b.key(i))/1e6 }
func (b *batchOf) has(key int) bool { return (key-b.first+keysOf[b.view])%keysOf[b.view] < b.rows }

func (s *stored) at(b *batchOf) time.Time { return s.begin.Add(time.Duration(b.n) * time.Second) }

// file writes the batch as CSV, or every second one as Parquet.
func (s *stored) file(b *batchOf) (format string, data []byte) {
	s.t.Helper()
	if b.n%2 == 0 {
		var out bytes.Buffer
		out.WriteString("k,event_time,filed_batch,filed_x\n")
		for i := range b.rows {
			fmt.Fprintf(&out, "%d,%s,%d,%v\n", b.key(i), s.at(b).Format(time.RFC3339), b.n, b.x(i))
		}
		return "csv", out.Bytes()
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.PrimitiveTypes.Int64}, {Name: "event_time", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
		{Name: "filed_batch", Type: arrow.PrimitiveTypes.Int64}, {Name: "filed_x", Type: arrow.PrimitiveTypes.Float64}}, nil)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer rb.Release()
	for i := range b.rows {
		rb.Field(0).(*array.Int64Builder).Append(b.key(i))
		rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(s.at(b).UnixMicro()))
		rb.Field(2).(*array.Int64Builder).Append(int64(b.n))
		rb.Field(3).(*array.Float64Builder).Append(b.x(i))
	}
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &out, nil, pqarrow.DefaultWriterProps())
	if err == nil {
		err = errors.Join(w.Write(rb.NewRecord()), w.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return "parquet", out.Bytes()
}

// try sends a batch once. dead says that no hub took the call, cut that one died with it.
func (s *stored) try(ctx context.Context, b *batchOf) (c *featurestorev1.Commit, dead, cut bool, err error) {
	if b.view == "filed" {
		c, err = s.ingest(ctx, b)
	} else {
		c, err = s.push(ctx, b)
	}
	if err == nil {
		return c, false, false, nil
	}
	text := err.Error()
	dead = errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(text, "connection refused")
	for _, sign := range []string{"EOF", "connection reset", "server closed idle connection", "broken pipe", "transport is closing", "code = Unavailable", "503 "} {
		cut = cut || !dead && strings.Contains(text, sign)
	}
	return nil, dead, cut, err
}

func (s *stored) push(ctx context.Context, b *batchOf) (*featurestorev1.Commit, error) {
	var rows []map[string]any
	for i := range b.rows {
		rows = append(rows, map[string]any{"k": b.key(i), "event_time": s.at(b).Format(time.RFC3339), "pushed_batch": b.n, "pushed_x": b.x(i)})
	}
	body, err := json.Marshal(map[string]any{"batch_id": b.id(), "rows": rows})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/v1/views/pushed:push", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, raw)
	}
	var answer struct {
		Commit struct {
			Sequence, Rows any // numbers or texts, as proto's JSON has them
			Digest         string
			Duplicate      bool
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, err
	}
	seq, err := strconv.ParseInt(fmt.Sprint(answer.Commit.Sequence), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w in %s", err, raw)
	}
	n, err := strconv.ParseInt(fmt.Sprint(answer.Commit.Rows), 10, 64)
	return &featurestorev1.Commit{Sequence: seq, Rows: n, Digest: answer.Commit.Digest, Duplicate: answer.Commit.Duplicate}, err
}

func (s *stored) ingest(ctx context.Context, b *batchOf) (*featurestorev1.Commit, error) {
	c, err := dial("http://"+s.http, s.grpc, s.token)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	stream, err := c.features.IngestFile(ctx)
	if err != nil {
		return nil, err
	}
	format, data := s.file(b)
	for first := true; first || len(data) > 0; first = false {
		m := &featurestorev1.IngestFileRequest{Chunk: data[:min(len(data), sendChunk)]}
		if data = data[len(m.GetChunk()):]; first {
			m.View, m.Format, m.BatchId = b.view, format, b.id()
		}
		if err := stream.Send(m); err != nil {
			break // the answer says why
		}
	}
	res, err := stream.CloseAndRecv()
	return res.GetCommit(), err
}

// writers sends batches and knows what was acknowledged.
type writers struct {
	*stored
	gate     sync.RWMutex // held for reading by a batch until it is acknowledged
	inFlight atomic.Int64 // batches that are not acknowledged
	cut      atomic.Int64 // calls that died with their hub
	kept     atomic.Int64 // of which the commit was there all the same, as the repeat was told

	mu   sync.Mutex
	next map[string]int // number of the view's next batch
	sent []*batchOf     // all that were acknowledged
}

// batch makes the next batch of a view.
func (w *writers) batch(view string, rows int) *batchOf {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := &batchOf{view: view, n: w.next[view], first: rand.IntN(keysOf[view]), rows: rows}
	w.next[view]++
	return b
}

// write sends a batch until it is acknowledged, as a client that must not lose it does.
func (w *writers) write(ctx context.Context, b *batchOf) error {
	w.gate.RLock()
	defer w.gate.RUnlock()
	w.inFlight.Add(1)
	defer w.inFlight.Add(-1)
	wasCut := false
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c, dead, cut, err := w.try(ctx, b)
		if err == nil {
			if b.commit = c; wasCut && c.GetDuplicate() {
				w.kept.Add(1)
			}
			if c.GetDuplicate() && !wasCut {
				return fmt.Errorf("%s was told to be a repeat at its first try", b.id())
			}
			w.mu.Lock()
			w.sent = append(w.sent, b)
			w.mu.Unlock()
			return nil
		}
		if cut {
			wasCut = true
			w.cut.Add(1)
		} else if !dead || ctx.Err() != nil {
			return fmt.Errorf("write %s: %w", b.id(), err)
		}
		if time.Since(start) > 90*time.Second {
			return fmt.Errorf("%s was not acknowledged within 90 s: %w", b.id(), err)
		}
	}
}

// keep writes batches of a view until the context ends, waiting in between.
func (w *writers) keep(ctx context.Context, group *sync.WaitGroup, view string, rows func() int, pause time.Duration) {
	group.Go(func() {
		for ctx.Err() == nil {
			if err := w.write(context.WithoutCancel(ctx), w.batch(view, rows())); err != nil {
				w.t.Error(err)
				return
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	})
}

// check holds what the hub has against what it acknowledged, while nobody writes.
func (w *writers) check(ctx context.Context, thorough bool) {
	w.t.Helper()
	w.gate.Lock()
	defer w.gate.Unlock()
	for view := range keysOf {
		w.checkLog(ctx, view)
		w.checkManifest(ctx, view, thorough)
	}
	w.checkRepeats(ctx)
	w.checkOnline(ctx)
	w.checkFresh(ctx, thorough)
	w.checkHistory(ctx)
}

// checkLog: the log has every acknowledged batch once, whole and where its acknowledgement said, and no other.
func (w *writers) checkLog(ctx context.Context, view string) {
	w.t.Helper()
	type commit struct {
		Seq           int64
		Batch, Digest string
		Rows          int64
	}
	rows, err := w.pool.Query(ctx, `SELECT seq, batch_id, digest, rows FROM featurestore.commit WHERE tenant = 'acme' AND view = $1 AND version = 1 ORDER BY seq`, view)
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[commit])
	if err != nil {
		w.t.Fatal(err)
	}
	byID := map[string]*batchOf{}
	for _, b := range w.sent {
		if b.view == view {
			byID[b.id()] = b
		}
	}
	for i, c := range list {
		b := byID[c.Batch]
		if b == nil {
			w.t.Fatalf("commit %d of %s is batch %s, which nobody sent or which is there twice", c.Seq, view, c.Batch)
		}
		delete(byID, c.Batch)
		if k := b.commit; c.Seq != int64(i)+1 || c.Seq != k.GetSequence() || c.Digest != k.GetDigest() || c.Rows != k.GetRows() || c.Rows != int64(b.rows) {
			w.t.Fatalf("commit %d of %s in place %d is %+v; acknowledged was %+v of %d rows", c.Seq, view, i+1, c, k, b.rows)
		}
	}
	for id := range byID {
		w.t.Fatalf("batch %s was acknowledged and is not in the log", id)
	}
}

// checkRepeats: batches that are sent again get their first answer.
func (w *writers) checkRepeats(ctx context.Context) {
	w.t.Helper()
	for range min(4, len(w.sent)) {
		b := w.sent[rand.IntN(len(w.sent))]
		c, _, _, err := w.try(ctx, b)
		if err != nil {
			w.t.Fatalf("repeat of %s: %v", b.id(), err)
		}
		if !c.GetDuplicate() || c.GetSequence() != b.commit.GetSequence() || c.GetDigest() != b.commit.GetDigest() || c.GetRows() != b.commit.GetRows() {
			w.t.Fatalf("repeat of %s: %+v, first %+v", b.id(), c, b.commit)
		}
	}
}

// winners is for each key of a view the batch that wins, nil for none. Later batches have later event times.
func (w *writers) winners(view string, through int) []*batchOf {
	out := make([]*batchOf, keysOf[view])
	for _, b := range w.sent {
		if b.view != view || b.n > through {
			continue
		}
		for i := range b.rows {
			if k := b.key(i); out[k] == nil || out[k].n < b.n {
				out[k] = b
			}
		}
	}
	return out
}

// cells are what a read says of one key, for both views in turn: number of the batch and x, nil where there is no row.
func (w *writers) cells(won map[string][]*batchOf, key int) (out [4]any) {
	for n, view := range []string{"pushed", "filed"} {
		if key >= keysOf[view] || won[view][key] == nil {
			continue
		}
		b := won[view][key]
		out[2*n], out[2*n+1] = int64(b.n), float64(b.n)+float64(key)/1e6
	}
	return out
}

func (w *writers) everyWinner() map[string][]*batchOf {
	won := map[string][]*batchOf{}
	for view := range keysOf {
		won[view] = w.winners(view, 1<<40)
	}
	return won
}

// checkOnline: the hub serves the winners.
func (w *writers) checkOnline(ctx context.Context) {
	w.t.Helper()
	won, c := w.everyWinner(), w.dial()
	req := &featurestorev1.ReadOnlineRequest{Service: "both"}
	var keys []int
	for i := range 500 {
		key := rand.IntN(keysOf["filed"])
		if i%2 == 0 {
			key = rand.IntN(keysOf["pushed"])
		}
		keys = append(keys, key)
		req.Rows = append(req.Rows, &structpb.Struct{Fields: map[string]*structpb.Value{"k": structpb.NewNumberValue(float64(key))}})
	}
	res, err := c.features.ReadOnline(ctx, req)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, row := range res.GetRows() {
		want := w.cells(won, keys[i])
		for n, cell := range row.GetCells()[:4] {
			var expected any
			if want[n] != nil {
				expected, _ = strconv.ParseFloat(fmt.Sprint(want[n]), 64)
			}
			if got := cell.GetValue().AsInterface(); got != expected {
				w.t.Fatalf("key %d: %s is %v online, not %v", keys[i], res.GetNames()[n], got, expected)
			}
		}
	}
}

// checkFresh: a hub that starts, from a snapshot and the log's tail, holds as many keys as were written and their winners,
// of which a stretch is read unless it is to be thorough.
func (w *writers) checkFresh(ctx context.Context, thorough bool) {
	w.t.Helper()
	fresh, err := featurestore.Open(ctx, w.pool, w.bucket, featurestore.Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	won := w.everyWinner()
	for view, list := range won {
		want := 0
		for _, b := range list {
			if b != nil {
				want++
			}
		}
		if got, _ := fresh.Memory("acme", waybill.VersionRef{Name: view, Version: 1}); got != want {
			w.t.Fatalf("a fresh hub has %d keys of %s; %d were written", got, view, want)
		}
	}
	r, err := fresh.Reader(ctx, "acme", waybill.VersionRef{Name: "both"})
	if err != nil {
		w.t.Fatal(err)
	}
	const atOnce = 1000
	first, last := 0, keysOf["filed"]
	if !thorough {
		first = rand.IntN(last/atOnce/4*3) * atOnce
		last = min(last, first+last/4)
	}
	for from := first; from < last; from += atOnce {
		var rows []map[string]any
		for k := from; k < from+atOnce; k++ {
			rows = append(rows, map[string]any{"k": int64(k)})
		}
		vectors, err := r.Read(ctx, time.Now(), rows)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, v := range vectors {
			want := w.cells(won, from+i)
			for n := range want {
				if v.Cells[n].Value != want[n] {
					w.t.Fatalf("key %d: cell %d of a fresh hub is %v, not %v", from+i, n, v.Cells[n].Value, want[n])
				}
			}
		}
	}
}

// checkHistory: what training sees at random times is what was written by then.
func (w *writers) checkHistory(ctx context.Context) {
	w.t.Helper()
	const rows = 2000
	history := featurestore.OpenHistory(w.pool, w.bucket, featurestore.Config{})
	for view := range keysOf {
		if w.next[view] == 0 {
			continue
		}
		schema := arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.PrimitiveTypes.Int64}, {Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}}}, nil)
		rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		through := make([]int, rows)
		keys := make([]int, rows)
		for i := range rows {
			through[i], keys[i] = rand.IntN(w.next[view]+1), rand.IntN(keysOf[view])
			rb.Field(0).(*array.Int64Builder).Append(int64(keys[i]))
			rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(w.begin.Add(time.Duration(through[i]) * time.Second).UnixMicro()))
		}
		ref := waybill.VersionRef{Name: view, Version: 1}
		got, err := history.AsOf(ctx, "acme", rb.NewRecord(), "at", []waybill.FeatureRef{{View: ref, Feature: view + "_batch"}}, time.Now().Add(time.Hour))
		rb.Release()
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range rows {
			want := -1
			for _, b := range w.sent {
				if b.view == view && b.n <= through[i] && b.n > want && b.has(keys[i]) {
					want = b.n
				}
			}
			if a := got[0].(*array.Int64); a.IsNull(i) != (want < 0) || want >= 0 && a.Value(i) != int64(want) {
				w.t.Fatalf("key %d of %s as of batch %d: %s, not %d", keys[i], view, through[i], a.ValueStr(i), want)
			}
		}
	}
}

// checkManifest: the runs cover the log's beginning without a gap, their objects are there and what they were, and they
// hold every row of their commits once.
func (w *writers) checkManifest(ctx context.Context, view string, thorough bool) {
	w.t.Helper()
	type run struct {
		ID            waybill.ID
		First, Last   int64
		Rows          int64
		Digest, Index string
	}
	tx, err := w.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}) // the hub may be compacting
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	rows, err := tx.Query(ctx, `SELECT id, first_seq, last_seq, rows, digest, index_digest FROM featurestore.history_run
		WHERE tenant = 'acme' AND view = $1 AND version = 1 AND replaced_at IS NULL ORDER BY first_seq`, view)
	if err != nil {
		w.t.Fatal(err)
	}
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[run])
	if err != nil {
		w.t.Fatal(err)
	}
	next, held := int64(1), map[int64]int{}
	for _, r := range runs {
		if r.First != next {
			w.t.Fatalf("the runs of %s leave a gap or overlap before commit %d: %+v", view, next, runs)
		}
		next = r.Last + 1
		for suffix, text := range map[string]string{".parquet": r.Digest, ".index": r.Index} {
			want, err := hex.DecodeString(text)
			if err != nil {
				w.t.Fatal(err)
			}
			data, err := w.bucket.GetVerified(ctx, "featurestore/history/"+r.ID.String()+suffix, [32]byte(want), 1<<30)
			if err != nil {
				w.t.Fatalf("run %s of %s: %v", r.ID, view, err)
			}
			if suffix == ".parquet" && thorough {
				w.rowsOfRun(ctx, data, held)
			}
		}
	}
	var covered, want, have int64
	if err := tx.QueryRow(ctx, `SELECT coalesce((SELECT covered FROM featurestore.history WHERE tenant = 'acme' AND view = $1 AND version = 1), 0),
		(SELECT coalesce(sum(rows), 0) FROM featurestore.commit WHERE tenant = 'acme' AND view = $1 AND version = 1 AND seq < $2)`, view, next).Scan(&covered, &want); err != nil {
		w.t.Fatal(err)
	}
	for _, r := range runs {
		have += r.Rows
	}
	if covered != next-1 || have != want {
		w.t.Fatalf("the runs of %s hold %d rows of commits up to %d; the log has %d and says %d", view, have, next-1, want, covered)
	}
	if !thorough {
		return
	}
	for _, b := range w.sent {
		if seq := b.commit.GetSequence(); b.view == view && seq < next && held[seq] != b.rows {
			w.t.Fatalf("the runs of %s hold %d rows of commit %d, which has %d", view, held[seq], seq, b.rows)
		}
	}
}

// rowsOfRun counts the rows of each commit in a run, and fails when one is there twice.
func (w *writers) rowsOfRun(ctx context.Context, data []byte, held map[int64]int) {
	w.t.Helper()
	f, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	rd, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		w.t.Fatal(err)
	}
	table, err := rd.ReadTable(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	defer table.Release()
	numbers := func(name string) (out []int64) {
		for _, a := range table.Column(table.Schema().FieldIndices(name)[0]).Data().Chunks() {
			out = append(out, a.(*array.Int64).Int64Values()...)
		}
		return out
	}
	type row struct{ key, seq int64 }
	seen := make(map[row]bool, table.NumRows())
	seqs := numbers("_sequence")
	for i, k := range numbers("k") {
		r := row{k, seqs[i]}
		if seen[r] {
			w.t.Fatalf("a run has key %d of commit %d twice", k, r.seq)
		}
		seen[r] = true
		held[r.seq]++
	}
}

// running says whether a job of some work has a node that runs it, or had one until it died.
func (s *stored) running(ctx context.Context, work string) bool {
	s.t.Helper()
	var yes bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_job WHERE args->>'work' = $1 AND state = 'running')`, work).Scan(&yes); err != nil {
		s.t.Fatal(err)
	}
	return yes
}

// orphans are the objects of runs or snapshots that nothing names: what a killed job had written already.
func (s *stored) orphans(ctx context.Context) int {
	s.t.Helper()
	named := map[string]bool{}
	rows, err := s.pool.Query(ctx, `SELECT 'featurestore/history/' || id FROM featurestore.history_run UNION SELECT unnest(parts) FROM featurestore.snapshot`)
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, k := range keys {
		named[k] = true
	}
	n := 0
	for _, prefix := range []string{"featurestore/history/", "featurestore/snapshots/", "staging/"} {
		for o, err := range s.bucket.List(ctx, prefix) {
			if err != nil {
				s.t.Fatal(err)
			}
			if key, _, _ := strings.Cut(o.Key, "."); !named[key] {
				n++
			}
		}
	}
	return n
}

// killDuring asks for a job and kills the hub while it runs, at a random moment. It says whether the job was running then.
func (s *stored) killDuring(ctx context.Context, work string) (hit bool) {
	s.t.Helper()
	asking, err := jobs.New(s.pool, []jobs.Work{{Name: work, Every: time.Hour, Run: func(context.Context) error { return errors.New("only the hub works") }}}, jobs.Config{})
	if err != nil {
		s.t.Fatal(err)
	}
	var usual float64 // s that the job takes when it has something to do
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(max(extract(epoch FROM finalized_at - attempted_at)), 0.1)::float8 FROM (
		SELECT finalized_at, attempted_at FROM river_job WHERE args->>'work' = $1 AND state = 'completed' ORDER BY id DESC LIMIT 8) AS last`, work).Scan(&usual); err != nil {
		s.t.Fatal(err)
	}
	for start := time.Now(); !s.running(ctx, work); time.Sleep(time.Millisecond) {
		if err := asking.RunNow(ctx, work); err != nil { // it does nothing while the job of the hub before is not given back
			s.t.Fatal(err)
		}
		if time.Since(start) > 30*time.Second {
			s.t.Fatalf("the job %s does not run", work)
		}
	}
	time.Sleep(time.Duration(rand.Float64() * min(usual, 2) * float64(time.Second)))
	s.end()
	hit = s.running(ctx, work)
	s.start()
	return hit
}

func killsPerPhase(t *testing.T) int {
	text := os.Getenv(killsVariable)
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q; give a number from 1 on", killsVariable, text)
	}
	return n
}

// TestKillFeatures kills hubs while rows are pushed, files are ingested, history is compacted and snapshots are made, so
// often each that it was really at it. After every kill each batch that was acknowledged is there once, online and in the
// history, the repeat of one gets its first answer, and nothing is there that was not sent.
func TestKillFeatures(t *testing.T) {
	t.Parallel()
	some := func(most int) func() int { return func() int { return 1 + rand.IntN(most) } }
	slowly := func(ctx context.Context, w *writers, group *sync.WaitGroup) {
		w.keep(ctx, group, "pushed", some(20), 50*time.Millisecond)
	}
	quickly := func(ctx context.Context, w *writers, group *sync.WaitGroup) {
		for range 4 {
			w.keep(ctx, group, "pushed", some(40), 0)
		}
	}
	for _, p := range []killPhase{
		{name: "push", write: quickly, kill: func(ctx context.Context, w *writers) bool { return w.killCalls(300 * time.Millisecond) }},
		{name: "ingest", kill: func(ctx context.Context, w *writers) bool { return w.killCalls(500 * time.Millisecond) },
			write: func(ctx context.Context, w *writers, group *sync.WaitGroup) {
				slowly(ctx, w, group)
				for range 2 {
					w.keep(ctx, group, "filed", some(4000), 0)
				}
			}},
		{name: "compaction", write: slowly, kill: func(ctx context.Context, w *writers) bool { return w.killDuring(ctx, "history-compaction") },
			prepare: func(ctx context.Context, w *writers, try int) {
				if try%3 == 0 { // many rows; else many commits
					w.fill(ctx, 10_500)
					return
				}
				var group sync.WaitGroup
				for range 8 {
					group.Go(func() {
						for range 8 {
							if err := w.write(ctx, w.batch("pushed", 1+rand.IntN(20))); err != nil {
								w.t.Error(err)
							}
						}
					})
				}
				group.Wait()
			}},
		{name: "snapshot", write: slowly, kill: func(ctx context.Context, w *writers) bool { return w.killDuring(ctx, "feature-snapshots") },
			prepare: func(ctx context.Context, w *writers, _ int) {
				var since int64 // a snapshot is made of 100,000 rows
				if err := w.pool.QueryRow(ctx, `SELECT coalesce(sum(rows), 0)::bigint FROM featurestore.commit WHERE view = 'filed' AND seq > (
					SELECT coalesce(max(seq), 0) FROM featurestore.snapshot WHERE view = 'filed')`).Scan(&since); err != nil {
					w.t.Fatal(err)
				}
				if since < 100_000 {
					w.fill(ctx, 55_000)
					w.fill(ctx, 55_000)
				}
			}},
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.run(t)
		})
	}
}

// fill ingests one file.
func (w *writers) fill(ctx context.Context, rows int) {
	w.t.Helper()
	if err := w.write(ctx, w.batch("filed", rows)); err != nil {
		w.t.Fatal(err)
	}
}

// killCalls kills the hub at a random moment within a time after there are calls. It says whether it cut some off.
func (w *writers) killCalls(after time.Duration) bool {
	w.t.Helper()
	for w.inFlight.Load() == 0 && !w.t.Failed() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Duration(rand.Float64() * float64(after)))
	cut := w.cut.Load()
	w.killHub()
	for start := time.Now(); w.cut.Load() == cut && time.Since(start) < 200*time.Millisecond; {
		time.Sleep(time.Millisecond) // the last of the calls that were cut off say so
	}
	return w.cut.Load() > cut
}

// killPhase is one thing that a hub is killed at.
type killPhase struct {
	name    string
	prepare func(ctx context.Context, w *writers, try int)                 // makes something to do; may be nil
	write   func(ctx context.Context, w *writers, group *sync.WaitGroup)   // writes until the context ends
	kill    func(ctx context.Context, w *writers) (whileItWasGoingOn bool) // and starts the hub again
}

func (p *killPhase) run(t *testing.T) {
	kills, ctx := killsPerPhase(t), t.Context()
	w := &writers{stored: newStored(t), next: map[string]int{}}
	began, hits, tries, left := time.Now(), 0, 0, 0
	for ; hits < kills && !t.Failed(); tries++ {
		if tries == 5*kills {
			t.Fatalf("only %d of %d kills came while it was going on", hits, tries)
		}
		if p.prepare != nil {
			p.prepare(ctx, w, tries)
		}
		writing, stop := context.WithCancel(ctx)
		var group sync.WaitGroup
		p.write(writing, w, &group)
		before := w.orphans(ctx)
		if p.kill(ctx, w) {
			hits++
			left += max(0, w.orphans(ctx)-before)
		}
		stop()
		group.Wait()
		w.check(ctx, hits == kills)
	}
	rows := 0
	for _, b := range w.sent {
		rows += b.rows
	}
	t.Logf("%s: %d kills, %d of them while it was going on, in %.0f s; %d calls were cut off, %d of which had been committed; %d objects were left that nothing names; %d batches of %d rows, all there once",
		p.name, tries, hits, time.Since(began).Seconds(), w.cut.Load(), w.kept.Load(), left, len(w.sent), rows)
}
