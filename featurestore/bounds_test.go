package featurestore_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
)

// stalled is a file that does not come until it is let go.
type stalled struct {
	io.Reader
	begun atomic.Bool
	let   chan struct{}
}

func (s *stalled) Read(b []byte) (int, error) {
	s.begun.Store(true)
	<-s.let
	return s.Reader.Read(b)
}

// soon waits for something that other goroutines do.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// Files and spines of one tenant are read two at a time, whatever it sends, and those of another meanwhile all the same. Who
// does not get his turn is told so, and nothing of what he sent was read.
func TestTurns_LeaveHalfToOthers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	bob := waybill.Actor{ID: "bob", Tenant: "other", Kind: waybill.Person}
	d, err := featurestore.ParseDefinitions([]byte(definitions))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Apply(ctx, bob, d, "a test"); err != nil {
		t.Fatal(err)
	}
	at := b.now.Add(-time.Hour).Format(time.RFC3339)
	ingest := func(ctx context.Context, who waybill.Actor, body io.Reader) error {
		_, err := b.store.Ingest(ctx, who, featurestore.IngestRequest{View: waybill.VersionRef{Name: "warehouse_load"}, BatchID: waybill.NewID(waybill.SystemClock()).String(),
			Format: featurestore.CSV, Body: body})
		return err
	}
	join := func(ctx context.Context, who waybill.Actor, body io.Reader) error {
		req := b.request("")
		req.Spine = body
		_, err := b.store.CreateTrainingSet(ctx, who, req)
		return err
	}
	file, spine := "warehouse,event_time,queue\nny,"+at+",0.5\n", "warehouse,km,at,late\nny,2,"+at+",1\n"
	let := make(chan struct{})
	slow := func(text string) *stalled { return &stalled{Reader: strings.NewReader(text), let: let} }
	ended := make(chan error, 2)
	one, two := slow(file), slow(spine)
	go func() { ended <- ingest(ctx, ann, one) }()
	go func() { ended <- join(ctx, ann, two) }()
	soon(t, "neither a file nor a spine is read", func() bool { return one.begun.Load() && two.begun.Load() })
	for name, send := range map[string]func(context.Context, waybill.Actor, io.Reader) error{file: ingest, spine: join} {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		third := slow(name)
		if err := send(short, ann, third); waybill.CodeOf(err) != waybill.Exhausted || third.begun.Load() {
			t.Errorf("a third at once: %v, its file was begun: %v", err, third.begun.Load())
		}
		cancel()
		if err := send(ctx, bob, strings.NewReader(name)); err != nil {
			t.Errorf("of another tenant: %v", err)
		}
	}
	close(let)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// Training sets that are being sent are few, half of them a tenant's, and one that was closed, read to its end or broken off
// makes room.
func TestOpenTrainingSet_IsBounded(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	set, err := b.store.CreateTrainingSet(ctx, ann, b.request("warehouse,km,at,late\nny,2,"+b.now.Format(time.RFC3339)+",1\n"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() (io.ReadCloser, error) {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		r, _, err := b.store.OpenTrainingSet(short, ann.Tenant, set.Digest)
		return r, err
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	second, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(); waybill.CodeOf(err) != waybill.Exhausted {
		t.Errorf("a third of one tenant: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := b.store.WriteTrainingSetCSV(short, ann.Tenant, set.Digest, io.Discard); waybill.CodeOf(err) != waybill.Exhausted {
		t.Errorf("as records: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	for range 3 {
		if err := b.store.WriteTrainingSetCSV(ctx, ann.Tenant, set.Digest, failing{full}); !errors.Is(err, full) {
			t.Errorf("broken off: %v", err)
		}
		if _, _, err := b.store.OpenTrainingSet(ctx, ann.Tenant, strings.Repeat("0", 64)); waybill.CodeOf(err) != waybill.NotFound {
			t.Errorf("one that there is not: %v", err)
		}
	}
	third, err := open()
	if err != nil {
		t.Fatalf("after a close: %v", err)
	}
	if _, err := open(); waybill.CodeOf(err) != waybill.Exhausted {
		t.Errorf("to close one twice made room for two: %v", err)
	}
	if err := errors.Join(second.Close(), third.Close()); err != nil {
		t.Fatal(err)
	}
}
