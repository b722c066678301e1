package feast

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"waybill"
	"waybill/featurestore"
)

// Prefix is the path below which the door is. Clients are given it as the store's path, e.g. http://hub:8080/feast.
const Prefix = "/feast"

// Config names what the door stands on. All of it is required.
type Config struct {
	Store *featurestore.Store
	// Enter finds out who sends a request, before anything of its body is read.
	Enter func(r *http.Request) (context.Context, error)
	// Call runs f for who entered, unless they lack the right to action on one of the resources. It counts and logs the
	// call under method as if it were an rpc, and lives through a panic.
	Call func(ctx context.Context, method, action string, resources []string, f func(ctx context.Context, actor waybill.Actor) error) error
	// May says whether who entered has a right. It is for leaving things out of lists.
	May func(ctx context.Context, resource, action string) bool
	// Explain gives an error's HTTP status, its code and the words for the caller.
	Explain func(err error) (status int, code waybill.Code, message string)
	Ready   func(ctx context.Context) error // nil error: the hub can serve
	Clock   waybill.Clock                   // defaults to the machine's
	MaxBody int64                           // bytes of a body
	MaxPush int64                           // bytes of a body with rows to write
	Version string                          // what GetFeastServingInfo says
}

// Door serves stock Feast clients.
type Door struct {
	Config
	store *featurestore.Store
	clock waybill.Clock
	mux   *http.ServeMux
	lists cache[string, *featureList] // by the text that they were read from
	heads cache[headKey, *head]
	large chan struct{} // one for each large frame that is in memory
}

// largeFrames is how many large frames are taken apart at once; others wait.
const largeFrames = 4

// New makes the door. It is an http.Handler for what is below Prefix; its gRPC services are Serving and Server.
func New(c Config) *Door {
	d := &Door{Config: c, store: c.Store, clock: c.Clock, mux: http.NewServeMux(), large: make(chan struct{}, largeFrames)}
	if d.clock == nil {
		d.clock = waybill.SystemClock
	}
	for path, e := range map[string]endpoint{
		"/get-online-features":       {http.MethodPost, c.MaxBody, d.getOnlineFeatures},
		"/push":                      {http.MethodPost, c.MaxPush, d.push},
		"/write-to-online-store":     {http.MethodPost, c.MaxPush, d.writeToOnlineStore},
		"/materialize":               {http.MethodPost, c.MaxBody, d.materializing(false)},
		"/materialize-incremental":   {http.MethodPost, c.MaxBody, d.materializing(true)},
		"/search":                    {http.MethodPost, c.MaxBody, d.noSearch},
		"/retrieve-online-documents": {http.MethodPost, c.MaxBody, d.noSearch},
		"/registry.db":               {http.MethodGet, 0, d.getRegistry},
	} {
		d.mux.Handle(Prefix+path, d.entered(path, e))
	}
	d.mux.HandleFunc(Prefix+"/health", d.health)
	d.mux.HandleFunc(Prefix+"/", func(w http.ResponseWriter, r *http.Request) {
		d.fail(w, waybill.Errorf(waybill.NotFound, "there is nothing at %s; Feast's clients need the store's path to end in %s", clip(r.URL.Path), Prefix), "FeastError")
	})
	return d
}

// ServeHTTP serves what is below Prefix.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// endpoint is one path. serve returns the error to answer with and the name of Feast's exception for what does not exist.
type endpoint struct {
	method string
	most   int64
	serve  func(w http.ResponseWriter, r *http.Request, method, body string) (missing string, err error)
}

// entered lets known callers through, with their body in hand: strangers are turned away before any of it is read.
func (d *Door) entered(path string, e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := d.Enter(r)
		if err != nil {
			d.fail(w, err, "FeastError")
			return
		}
		if r.Method != e.method {
			w.Header().Set("Allow", e.method)
			d.failWith(w, http.StatusMethodNotAllowed, "FeastError", clip(r.URL.Path)+" is for "+e.method)
			return
		}
		body, err := readBody(w, r, e.most)
		missing := "FeastError"
		if err == nil {
			missing, err = e.serve(w, r.WithContext(ctx), Prefix+path, body)
		}
		if err != nil {
			d.fail(w, err, missing)
		}
	})
}

func readBody(w http.ResponseWriter, r *http.Request, most int64) (string, error) {
	if r.ContentLength > most {
		return "", waybill.Errorf(waybill.TooLarge, "the body has %d bytes; at most %d: send fewer rows at once", r.ContentLength, most)
	}
	body := http.MaxBytesReader(w, r.Body, most)
	var b []byte
	var err error
	if r.ContentLength >= 0 {
		b = make([]byte, r.ContentLength)
		_, err = io.ReadFull(body, b)
	} else {
		b, err = io.ReadAll(body)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return "", waybill.Errorf(waybill.TooLarge, "the body is larger than allowed; at most %d bytes: send fewer rows at once", most)
	case err != nil:
		return "", waybill.Wrap(waybill.Invalid, err, "the body ended early; send all of it")
	}
	return string(b), nil
}

// fail answers with an error. The body is always JSON: Feast's clients parse it whatever the status.
func (d *Door) fail(w http.ResponseWriter, err error, missing string) {
	status, code, message := d.Explain(err)
	name := class(code, missing)
	var c *collision
	switch {
	case errors.As(err, &c):
		name = "FeatureNameCollisionError"
	case code == waybill.NotFound && missing == pushSourceMissing:
		status = http.StatusUnprocessableEntity // as Feast's server says it
	case code == waybill.Unauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	d.failWith(w, status, name, message)
}

func (d *Door) failWith(w http.ResponseWriter, status int, class, message string) {
	w.Header().Set("Cache-Control", "no-store")
	sendJSON(w, status, appendError(nil, class, message))
}

func sendJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil { //nolint:gosec // JSON, said to be JSON; outermost forbids to sniff for more
		return // the client is gone
	}
}

// Feast's names for what does not exist.
const (
	viewMissing       = "FeatureViewNotFoundException"
	serviceMissing    = "FeatureServiceNotFoundException"
	pushSourceMissing = "PushSourceNotFoundException"
)

// buffers are reused: an answer is a few kilobytes, often. Large ones are left to the collector.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const keepBuffer = 1 << 20

// getOnlineFeatures is POST /get-online-features.
func (d *Door) getOnlineFeatures(w http.ResponseWriter, r *http.Request, method, body string) (string, error) {
	missing := viewMissing
	var resources []string
	q, err := parseQuery(body)
	if err == nil {
		resources, err = d.asked(&q)
	}
	if q.service != "" {
		missing = serviceMissing
	}
	var inner error // before Call makes a status of it
	err = d.Call(r.Context(), method, "read", resources, func(ctx context.Context, actor waybill.Actor) error {
		if err != nil {
			return err
		}
		a, err := d.read(ctx, actor.Tenant, &q)
		if err != nil {
			inner = err
			return err
		}
		defer a.batch.Release()
		buf, ok := buffers.Get().(*[]byte)
		if !ok {
			buf = new([]byte)
		}
		*buf = appendAnswer((*buf)[:0], a)
		sendJSON(w, http.StatusOK, *buf)
		if cap(*buf) <= keepBuffer {
			buffers.Put(buf)
		}
		return nil
	})
	if c := new(collision); errors.As(inner, &c) {
		err = inner
	}
	return missing, err
}

// push is POST /push. A push source is a view's name.
func (d *Door) push(w http.ResponseWriter, r *http.Request, method, body string) (string, error) {
	return pushSourceMissing, d.written(w, r, method, "push_source_name", body, nil)
}

// writeToOnlineStore is POST /write-to-online-store, which is also what "feast materialize" calls.
func (d *Door) writeToOnlineStore(w http.ResponseWriter, r *http.Request, method, body string) (string, error) {
	return viewMissing, d.written(w, r, method, "feature_view_name", body, []byte("null"))
}

func (d *Door) written(w http.ResponseWriter, r *http.Request, method, field, body string, answer []byte) error {
	if int64(len(body)) > d.MaxBody { // its values take some fifteen times as much memory
		select {
		case d.large <- struct{}{}:
			defer func() { <-d.large }()
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	in, err := parseWrite(body, field)
	if err == nil {
		_, err = waybill.ParseVersionRef(field, in.view)
	}
	if err == nil {
		err = destination(in.to)
	}
	name, _, _ := strings.Cut(in.view, "@")
	return d.Call(r.Context(), method, "write", named(err, "view/"+name), func(ctx context.Context, actor waybill.Actor) error {
		if err != nil {
			return err
		}
		c, err := d.write(ctx, actor, field, &in)
		if err != nil {
			return err
		}
		w.Header().Set("Waybill-Commit", c.View.String()+"/"+strconv.FormatInt(c.Seq, 10))
		sendJSON(w, http.StatusOK, answer)
		return nil
	})
}

// named is the resource of a request that could be read; another is refused for what it is, as rights on it mean nothing.
func named(err error, resource string) []string {
	if err != nil {
		return nil
	}
	return []string{resource}
}

// materializing is POST /materialize and /materialize-incremental. "feast materialize" of 0.66 calls it when the client's
// online store is remote, and reads nothing itself; older clients read their offline store and write here.
func (d *Door) materializing(incremental bool) func(http.ResponseWriter, *http.Request, string, string) (string, error) {
	return func(w http.ResponseWriter, r *http.Request, method, body string) (string, error) {
		p, err := parsePeriod(body)
		if err == nil {
			err = p.check(incremental)
		}
		var resources []string
		for i := range p.views {
			ref, bad := waybill.ParseVersionRef("feature_views["+strconv.Itoa(i)+"]", p.views[i])
			if bad != nil && err == nil {
				err = bad
			}
			resources = append(resources, "view/"+ref.Name)
		}
		if !p.named {
			resources = []string{"view/*"}
		}
		if err != nil {
			resources = nil
		}
		return viewMissing, d.Call(r.Context(), method, "read", resources, func(ctx context.Context, actor waybill.Actor) error {
			if err != nil {
				return err
			}
			done, err := d.materialize(ctx, actor.Tenant, &p)
			if err != nil {
				return err
			}
			if r.URL.Query().Get("async") != "true" {
				sendJSON(w, http.StatusOK, []byte("null"))
				return nil
			}
			b := []byte(`{"status":"accepted","feature_views":[`)
			for i, name := range done {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendText(b, name)
			}
			sendJSON(w, http.StatusAccepted, append(b, `]}`...))
			return nil
		})
	}
}

// noSearch refuses the search for documents. The status is one that clients do not retry.
func (d *Door) noSearch(w http.ResponseWriter, _ *http.Request, _, _ string) (string, error) {
	d.failWith(w, http.StatusNotImplemented, "FeastError", "this hub does not search by distance; read vectors by key with get_online_features, and search them where they are indexed")
	return "", nil
}

// readyWithin bounds the look behind /health.
const readyWithin = 2 * time.Second

// health is open to all and says nothing but whether the hub can serve.
func (d *Door) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
	defer cancel()
	if d.Ready != nil && d.Ready(ctx) != nil {
		d.failWith(w, http.StatusServiceUnavailable, "FeastError", "the hub cannot serve now; try again")
		return
	}
	sendJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

// getRegistry is GET /registry.db: what the caller may read, for clients that resolve names by themselves.
func (d *Door) getRegistry(w http.ResponseWriter, r *http.Request, method, _ string) (string, error) {
	return "FeastError", d.Call(r.Context(), method, "read", []string{"view/*", "service/*"}, func(ctx context.Context, actor waybill.Actor) error {
		b, err := d.Registry(ctx, actor.Tenant, func(resource string) bool { return d.May(ctx, resource, "read") })
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		if _, err := w.Write(b); err != nil {
			return nil //nolint:nilerr // the client is gone
		}
		return nil
	})
}
