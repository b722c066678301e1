package featurestore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"waybill"
	"waybill/featurestore"
)

// cut takes an IPC stream apart into its messages, as Flight sends them.
// Source of the form: Arrow columnar format, "Encapsulated message format": 0xFFFFFFFF, length of the metadata, metadata, body.
func cut(t testing.TB, data []byte) [][2][]byte {
	t.Helper()
	var out [][2][]byte
	for len(data) >= 8 && binary.LittleEndian.Uint32(data) == math.MaxUint32 {
		n := binary.LittleEndian.Uint32(data[4:])
		if n == 0 {
			return out
		}
		header := data[8 : 8+n]
		m := ipc.NewMessage(memory.NewBufferBytes(header), memory.NewBufferBytes(nil))
		size := m.BodyLen()
		out = append(out, [2][]byte{header, data[8+n : 8+int64(n)+size]})
		data = data[8+int64(n)+size:]
	}
	t.Fatal("the stream has no end")
	return nil
}

// sent gives messages one after another and ends with an error.
func sent(ms [][2][]byte, end error) featurestore.Messages {
	return func() (header, body []byte, err error) {
		if len(ms) == 0 {
			return nil, nil, end
		}
		m := ms[0]
		ms = ms[1:]
		return m[0], m[1], nil
	}
}

// batches writes record batches as messages.
func batches(t testing.TB, schema *arrow.Schema, n int, fill func(i int, b *array.RecordBuilder), opts ...ipc.Option) [][2][]byte {
	t.Helper()
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, append(opts, ipc.WithSchema(schema))...)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range n {
		fill(i, b)
		rec := b.NewRecord()
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
		rec.Release()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return cut(t, buf.Bytes())
}

func loadSchema(queue arrow.DataType) *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{{Name: "warehouse", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "event_time", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true},
		{Name: "queue", Type: queue, Nullable: true}}, nil)
}

// loads are batches of 100 rows each for the view warehouse_load.
func (b *bundle) loads(t testing.TB, n int, opts ...ipc.Option) [][2][]byte {
	t.Helper()
	return batches(t, loadSchema(arrow.PrimitiveTypes.Float64), n, func(i int, rb *array.RecordBuilder) {
		for j := range 100 {
			rb.Field(0).(*array.StringBuilder).Append(fmt.Sprintf("W%d-%d", i, j))
			rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(b.now.UnixMicro()))
			rb.Field(2).(*array.Float64Builder).Append(float64(j) / 100)
		}
	}, opts...)
}

func (b *bundle) stream(batch string, mode featurestore.Mode, next featurestore.Messages) (featurestore.Commit, error) {
	return b.store.IngestArrow(context.Background(), ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: batch, Mode: mode}, next)
}

func TestIngestArrow_OneCommitOrNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := b.loads(t, 5)
	away := errors.New("the client went away")
	for n := range len(all) + 1 { // cut after every message
		if _, err := b.stream("a", "", sent(all[:n], away)); !errors.Is(err, away) {
			t.Errorf("cut after %d messages: %v", n, err)
		}
	}
	if n, _ := b.commits(t); n != 0 {
		t.Fatal("a cut stream wrote something")
	}
	c, err := b.stream("a", "", sent(all, io.EOF))
	if err != nil || c.Rows != 500 || c.Seq != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	if got := b.read(t, b.store, "W4-25")[0]; got.Value != 0.25 || got.Status != featurestore.Present {
		t.Errorf("%+v", got)
	}
	for name, opt := range map[string]ipc.Option{"lz4": ipc.WithLZ4(), "zstd": ipc.WithZstd()} { // the same rows are the same batch however they are sent
		again, err := b.stream("a", "", sent(b.loads(t, 5, opt), io.EOF))
		if err != nil || !again.Duplicate || again.Seq != 1 {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
	if _, err := b.stream("a", "", sent(b.loads(t, 4), io.EOF)); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("fewer rows under the same id: %v", err)
	}
	if n, _ := b.commits(t); n != 1 {
		t.Errorf("%d commits", n)
	}
}

func TestIngestArrow_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	str, us := arrow.BinaryTypes.String, arrow.FixedWidthTypes.Timestamp_us
	f64 := arrow.PrimitiveTypes.Float64
	schema := func(fields ...arrow.Field) *arrow.Schema { return arrow.NewSchema(fields, nil) }
	field := func(name string, t arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	row := func(wh any, at time.Time, queue any) func(int, *array.RecordBuilder) {
		return func(_ int, rb *array.RecordBuilder) {
			if s, ok := wh.(string); ok {
				rb.Field(0).(*array.StringBuilder).Append(s)
			} else {
				rb.Field(0).AppendNull()
			}
			rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(at.UnixMicro()))
			switch q := rb.Field(2).(type) {
			case *array.Float64Builder:
				q.Append(queue.(float64))
			case *array.StringBuilder:
				q.Append(queue.(string))
			default:
				q.AppendNull()
			}
		}
	}
	empty := func(int, *array.RecordBuilder) {}
	for _, c := range []struct {
		name   string
		ms     [][2][]byte
		wants  []string
		number waybill.Code
	}{
		{"NullKey", batches(t, loadSchema(f64), 3, row(nil, b.now, 0.1)), []string{"row 1, warehouse: is null", "row 3, warehouse"}, waybill.Invalid},
		{"Infinite", batches(t, loadSchema(f64), 2, row("W", b.now, math.Inf(-1))), []string{"row 2, queue: is infinite"}, waybill.Invalid},
		{"OutOfRange", batches(t, loadSchema(f64), 1, row("W", b.now, 1.5)), []string{"row 1, queue: is 1.5, outside 0 to 1"}, waybill.Invalid},
		{"Future", batches(t, loadSchema(f64), 1, row("W", b.now.Add(time.Hour), 0.5)), []string{"row 1, event_time: lies in the future"}, waybill.Invalid},
		{"FarFuture", batches(t, loadSchema(f64), 1, row("W", time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC), 0.5)), []string{"row 1, event_time", "years 1900 to 2200"}, waybill.Invalid},
		{"Text", batches(t, loadSchema(str), 1, row("W", b.now, "much")), []string{`row 1, queue: is the text "much"; give float64`}, waybill.Invalid},
		{"Type", batches(t, loadSchema(arrow.FixedWidthTypes.Duration_s), 1, row("W", b.now, nil)), []string{"column queue", "duration"}, waybill.Invalid},
		{"NoKey", batches(t, schema(field("event_time", us), field("queue", f64)), 1, empty), []string{"column warehouse: is missing"}, waybill.Invalid},
		{"NoTime", batches(t, schema(field("warehouse", str)), 1, empty), []string{"column event_time: is missing"}, waybill.Invalid},
		{"Unknown", batches(t, schema(field("warehouse", str), field("event_time", us), field("quue", f64)), 1, empty), []string{"column quue: is no column of view"}, waybill.Invalid},
		{"Twice", batches(t, schema(field("warehouse", str), field("event_time", us), field("warehouse", str)), 1, empty), []string{`two columns "warehouse"`}, waybill.Invalid},
		{"NoRows", batches(t, loadSchema(f64), 0, empty), []string{"has no rows"}, waybill.Invalid},
		{"NoBatch", batches(t, loadSchema(f64), 1, empty), []string{"has no rows"}, waybill.Invalid},
		{"Nothing", nil, []string{"is empty"}, waybill.Invalid},
		{"NoSchema", b.loads(t, 1)[1:], []string{"is not an Arrow stream"}, waybill.Invalid},
		{"SchemaTwice", append(b.loads(t, 1), b.loads(t, 1)[0]), []string{"is not an Arrow stream"}, waybill.Invalid},
	} {
		_, err := b.stream(c.name, "", sent(c.ms, io.EOF))
		if waybill.CodeOf(err) != c.number {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, w := range c.wants {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %v", c.name, w, err)
			}
		}
	}
	if n, _ := b.commits(t); n != 0 {
		t.Errorf("%d commits", n)
	}
	c, err := b.stream("held", featurestore.Quarantine, sent(append(batches(t, loadSchema(f64), 2, row("W", b.now, 0.5)), batches(t, loadSchema(f64), 1, row(nil, b.now, math.Inf(1)))[1]), io.EOF))
	if err != nil || c.Rows != 2 || c.Quarantined != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	if diff := cmp.Diff([]string{"3 warehouse: is null; string is required", "3 queue: is infinite or too large for float64; give a finite number"}, reasons(b.quarantined(t, "held"))); diff != "" {
		t.Error(diff)
	}
	if v := string(b.quarantined(t, "held")[0].Values); !strings.Contains(v, `"queue":"+Inf"`) {
		t.Errorf("the row is kept as %s", v)
	}
}

// Vectors and lists in every form that clients give them; a vector of another length is the fault of its row.
func TestIngestArrow_Lists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, "kind: View\nname: lists\nentity: {name: k, keys: [{name: k, type: int64}]}\nfeatures: [{name: v, type: vector<3>}, {name: l, type: list<string>}]\n")
	for name, vec := range map[string]arrow.DataType{"List": arrow.ListOf(arrow.PrimitiveTypes.Float32), "Large": arrow.LargeListOf(arrow.PrimitiveTypes.Float64),
		"Fixed": arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32), "Short": arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)} {
		s := arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.PrimitiveTypes.Int32}, {Name: "event_time", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "v", Type: vec, Nullable: true},
			{Name: "l", Type: arrow.LargeListOf(arrow.BinaryTypes.LargeString), Nullable: true}}, nil)
		ms := batches(t, s, 2, func(i int, rb *array.RecordBuilder) {
			for _, js := range []string{`{"k": 1, "event_time": "2026-04-01T00:00:00Z", "v": null, "l": null}`, `{"k": 2, "event_time": "2026-04-01T00:00:00Z", "v": [1, 2, 3], "l": ["a", "b"]}`} {
				if name == "Short" {
					js = strings.ReplaceAll(js, "[1, 2, 3]", "[1, 2]")
				}
				if err := rb.UnmarshalJSON([]byte(js)); err != nil {
					t.Fatal(name, err)
				}
			}
		})
		c, err := b.store.IngestArrow(context.Background(), ann, featurestore.IngestRequest{View: waybill.VersionRef{Name: "lists"}, BatchID: name}, sent(ms, io.EOF))
		if name == "Short" {
			if waybill.CodeOf(err) != waybill.Invalid || !strings.Contains(err.Error(), "row 2, v") || !strings.Contains(err.Error(), "row 4, v") {
				t.Errorf("Short: %v", err)
			}
		} else if err != nil || c.Rows != 4 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// Messages of others cannot make the hub take memory that they do not have, nor panic. Not parallel: it measures.
func TestIngestArrow_HostileMessages(t *testing.T) {
	b := setup(t)
	good := b.loads(t, 1)
	zeros := batches(t, loadSchema(arrow.PrimitiveTypes.Float64), 60, func(_ int, rb *array.RecordBuilder) { // some KB that become 60 × 8 MiB
		for range 8 {
			rb.Field(0).(*array.StringBuilder).Append(strings.Repeat("x", 1<<20))
			rb.Field(1).(*array.TimestampBuilder).Append(0)
			rb.Field(2).(*array.Float64Builder).Append(0)
		}
	}, ipc.WithZstd())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err := b.stream("bomb", "", sent(zeros, io.EOF))
	runtime.ReadMemStats(&after)
	if waybill.CodeOf(err) != waybill.TooLarge {
		t.Errorf("compressed zeros: %v", err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 3*featurestore.MaxStreamBytes {
		t.Errorf("%d MiB were taken for %d compressed bytes", grown>>20, len(zeros)*len(zeros[1][1]))
	}
	for i := range good[1][0] { // every byte of a batch's metadata, which says lengths and offsets
		for _, x := range []byte{0x00, 0x7f, 0x80, 0xff} {
			bad := bytes.Clone(good[1][0])
			bad[i] = x
			err := featurestore.ReadStream(sent([][2][]byte{good[0], {bad, good[1][1]}}, io.EOF))
			if code := waybill.CodeOf(err); err != nil && code != waybill.Invalid && code != waybill.TooLarge {
				t.Fatalf("byte %d as %x: %v", i, x, err)
			}
		}
	}
}

// A training set over the wire is its file.
func TestTrainingSetRecords_AreTheFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.push("1", load("WH-1", b.now.Add(-time.Hour), 0.5)); err != nil {
		t.Fatal(err)
	}
	var spine strings.Builder
	spine.WriteString("warehouse,t,late,note\n")
	const rows = 70_001 // more than a batch
	for i := range rows {
		fmt.Fprintf(&spine, "WH-%d,%s,%d,n%d\n", i%3, b.now.Add(-time.Duration(i%7)*time.Minute).Format(time.RFC3339), i%2, i)
	}
	set, err := b.store.CreateTrainingSet(context.Background(), ann, featurestore.TrainingSetRequest{Name: "s", Service: waybill.VersionRef{Name: "route-risk"}, Format: featurestore.CSV,
		TimeColumn: "t", LabelColumn: "late", Cutoff: b.now.Add(time.Hour), Spine: strings.NewReader(spine.String())})
	if err != nil {
		t.Fatal(err)
	}
	n, calls := 0, 0
	late := 0.0
	err = b.store.TrainingSetRecords(context.Background(), ann.Tenant, set.Digest, func(rec arrow.Record) error {
		calls++
		if !rec.Schema().Equal(set.ArrowSchema()) {
			return errors.New("another schema: " + rec.Schema().String())
		}
		note := rec.Column(rec.Schema().FieldIndices("note")[0]).(*array.String)
		label := rec.Column(rec.Schema().FieldIndices("late")[0]).(*array.Float64)
		for i := range int(rec.NumRows()) {
			if note.Value(i) != fmt.Sprint("n", n) || label.Value(i) != float64(n%2) {
				return fmt.Errorf("row %d is %s", n, note.Value(i))
			}
			late += label.Value(i)
			n++
		}
		return nil
	})
	if err != nil || n != rows || calls < 2 || late != rows/2 {
		t.Errorf("%d rows in %d batches, %v", n, calls, err)
	}
	stop := errors.New("stop")
	if err := b.store.TrainingSetRecords(context.Background(), "other", set.Digest, func(arrow.Record) error { return stop }); waybill.CodeOf(err) != waybill.NotFound {
		t.Errorf("another tenant: %v", err)
	}
}
