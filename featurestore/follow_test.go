package featurestore_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/bucket"
	"waybill/internal/pgtest"
)

// gate is a way to the bucket on which reads of objects below a prefix wait while it is shut.
type gate struct {
	shut    atomic.Pointer[chan struct{}] // closed to open it; nil: it is open
	waiting atomic.Int64
}

func gated(t *testing.T, c bucket.Config, prefix string) (*gate, bucket.Config) {
	t.Helper()
	g := &gate{}
	to, err := url.Parse("http://" + c.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }, // which is signed
		ErrorLog: log.New(io.Discard, "", 0)} // of readers that gave up
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open := g.shut.Load(); open != nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, prefix) {
			g.waiting.Add(1)
			defer g.waiting.Add(-1)
			select {
			case <-*open:
			case <-r.Context().Done():
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c.Endpoint = strings.TrimPrefix(server.URL, "http://")
	return g, c
}

func (g *gate) close() (open func()) {
	ch := make(chan struct{})
	g.shut.Store(&ch)
	return sync.OnceFunc(func() {
		g.shut.Store(nil)
		close(ch)
	})
}

// While a view is being filled, which takes long, the others are followed, written, read and published; what came for it
// meanwhile is applied after that in order, and a hub that ends does not wait for it.
func TestFollow_SideBySide(t *testing.T) {
	t.Parallel()
	for name, online := range map[string]func(t testing.TB) string{"Memory": func(testing.TB) string { return "memory" }, "Redis": func(t testing.TB) string { return pgtest.Redis(t) }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sideBySide(t, online(t))
		})
	}
}

func sideBySide(t *testing.T, online string) {
	ctx := context.Background()
	config := pgtest.BucketConfig(t)
	objects, err := bucket.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{pool: pgtest.DB(t), bucket: objects, online: "memory"}
	b.at(waybill.SystemClock())
	b.store = b.open(t)
	b.apply(t, twoViews)
	g, config := gated(t, config, "featurestore/commits/")
	slow, err := bucket.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	hub, err := featurestore.Open(ctx, b.pool, slow, featurestore.Config{Online: online, Poll: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(following) }()
	open := g.close()
	defer open()
	large := waybill.VersionRef{Name: "warehouse_load", Version: 1}
	at := b.now.Add(-time.Hour)
	if _, err := b.ingest("file", featurestore.CSV, "warehouse,event_time,queue\nny,"+at.Format(time.RFC3339)+",0.25\n"); err != nil {
		t.Fatal(err)
	}
	soon(t, "nobody fills the view", func() bool { return g.waiting.Load() > 0 })
	if _, err := b.push("after", load("ny", at.Add(time.Minute), 0.75)); err != nil {
		t.Fatal(err)
	}
	snow := func(through *featurestore.Store, n int) featurestore.Commit {
		t.Helper()
		c, err := through.Push(ctx, ann, featurestore.PushRequest{View: waybill.VersionRef{Name: "road"}, BatchID: fmt.Sprint(n),
			Rows: []map[string]any{{"warehouse": "ny", "snow": float64(n), "event_time": at.Add(time.Duration(n) * time.Second).Format(time.RFC3339)}}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for n := range 6 {
		through := b.store
		if n%2 == 1 {
			through = hub // which shows it to itself before it answers
		}
		c := snow(through, n)
		if err := hub.Await(limited, "acme", waybill.VersionRef{Name: "road", Version: 1}, c.Seq); err != nil {
			t.Fatalf("another view waits: %v", err)
		}
		if cells, err := b.readFrom(hub, "weather", "ny", waybill.SystemClock()); err != nil || cells[0].Value != float64(n) {
			t.Fatalf("%+v, %v; want %d", cells, err, n)
		}
	}
	snow(b.store, 6)
	soon(t, "the hub itself follows nothing", func() bool {
		cells, err := b.readFrom(hub, "weather", "ny", waybill.SystemClock())
		return err == nil && cells[0].Value == 6.0
	})
	d, err := featurestore.ParseDefinitions([]byte("kind: View\nname: made_now\nentity: {name: warehouse, keys: [{name: warehouse, type: string}]}\nfeatures: [{name: x, type: float64}]\n" +
		"---\nkind: Service\nname: of-now\ninputs: [{name: warehouse, type: string}, {name: km, type: float64}]\nfeatures: [\"made_now:x\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hub.Apply(limited, ann, d, "a test"); err != nil {
		t.Fatal(err)
	}
	if cells, err := b.readFrom(hub, "of-now", "ny", waybill.SystemClock()); err != nil || cells[0].Status != featurestore.NotFound {
		t.Errorf("a view that was published meanwhile: %+v, %v", cells, err)
	}
	short, done := context.WithTimeout(ctx, 50*time.Millisecond)
	defer done()
	if err := hub.Await(short, "acme", large, 1); waybill.CodeOf(err) != waybill.Deadline {
		t.Errorf("the view that is being filled: %v", err)
	}
	open()
	if err := hub.Await(limited, "acme", large, 2); err != nil {
		t.Fatal(err)
	}
	if cells, err := b.readFrom(hub, "route-risk", "ny", waybill.SystemClock()); err != nil || cells[0].Value != 0.75 || cells[0].Seq != 2 {
		t.Errorf("%+v, %v", cells, err)
	}

	shut := g.close()
	defer shut()
	if _, err := b.ingest("last", featurestore.CSV, "warehouse,event_time,queue\nny,"+at.Format(time.RFC3339)+",0.5\n"); err != nil {
		t.Fatal(err)
	}
	soon(t, "nobody reads the last file", func() bool { return g.waiting.Load() > 0 })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		hub.Close()
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the hub does not end while a view is being filled")
	}
}
