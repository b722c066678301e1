package api

import (
	"context"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/metadata"

	"waybill"
	"waybill/internal/access"
	"waybill/internal/api/feast"
	"waybill/proto"
)

// readyWithin bounds the look at Postgres behind /readyz.
const readyWithin = 2 * time.Second

// routes lays out the HTTP side.
func (s *Server) routes(c Config, gateway http.Handler, stored *features) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", s.bounded(gateway))
	mux.Handle("GET /v1/decisions/{decision_id}/evidence", &bundles{server: s, service: c.Decisions, models: c.Models, log: c.Log, features: stored, making: make(chan struct{}, evidenceAtOnce)})
	mux.Handle(feast.Prefix+"/", s.feast)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { plainText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
		defer cancel()
		if c.Ready != nil {
			if err := c.Ready(ctx); err != nil {
				s.logger.WarnContext(ctx, "not ready", "error", err)
				plainText(w, http.StatusServiceUnavailable, "not ready")
				return
			}
		}
		plainText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		send(w, proto.OpenAPI)
	})
	scrape := promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	mux.Handle("GET /metrics", s.allowed("log", access.Read, s.homeOnly("the metrics count the calls of every tenant; only the hub's own tenant may read them", scrape)))
	mux.Handle("GET /log/", s.allowed("log", access.Read, s.tiles("/log/"+itoa(int64(c.Log.LogID())), c.Log.Handler())))
	if c.Web != nil {
		mux.Handle("/", c.Web)
	}
	return s.outermost(mux)
}

// outermost gives every request an id, catches panics and sets the headers that hold for all answers.
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !goodRequestID(id) {
			id = waybill.NewID(waybill.SystemClock()).String()
			r.Header.Set("X-Request-Id", id)
		}
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // the value that net/http itself compares
					panic(p)
				}
				s.logger.ErrorContext(r.Context(), "handler panicked", "path", r.URL.Path, "panic", p, "request_id", id, "stack", string(debug.Stack()))
				writeError(w, r, waybill.Errorf(waybill.Internal, "panic"))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// goodRequestID accepts what may safely be repeated in a header and in logs.
func goodRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	return strings.IndexFunc(id, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.'
	}) < 0
}

// allowed lets callers with the right through and puts them into the context. It is for what is not an rpc.
func (s *Server) allowed(resource, action string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if values := r.Header.Values("Authorization"); len(values) > 0 {
			ctx = metadata.NewIncomingContext(ctx, metadata.MD{"authorization": values})
		}
		ctx, c, err := authenticate(ctx, s.access)
		if err == nil {
			err = s.access.Check(c.actor, c.grant, resource, action)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// mustBeHome refuses all tenants but the hub's own, in words that say why.
func (s *Server) mustBeHome(ctx context.Context, c caller, why string) error {
	home, err := s.access.IsOperator(ctx, c.actor.Tenant)
	if err == nil && !home {
		err = waybill.Errorf(waybill.Denied, "%s", why)
	}
	return err
}

// homeOnly lets the hub's own tenant through.
func (s *Server) homeOnly(why string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.mustBeHome(r.Context(), callerOf(r.Context()), why); err != nil {
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// tiles serves the log below prefix. Hash tiles and checkpoints say nothing but how much was decided. Everything else,
// which is the entries, are leaves of every tenant: they are for the hub's own tenant, and there for those who may read
// every decision, since a bundle cannot leave one out. What is decided on is the path that next will see: one that is
// spelled in another way (escapes, dot segments, doubled slashes) is refused, because the patterns of a mux match the
// escaped path and its handlers get the plain one.
func (s *Server) tiles(prefix string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, found := strings.CutPrefix(r.URL.Path, prefix+"/")
		if !found || r.URL.RawPath != "" || path.Clean(r.URL.Path) != r.URL.Path {
			writeError(w, r, waybill.Errorf(waybill.NotFound, "there is no tile at %s; write %s/checkpoint, %s/tile/0/000 and so on, without escapes", clipPath(r.URL.EscapedPath()), prefix, prefix))
			return
		}
		if rest != "checkpoint" && !isHashTile(rest) {
			c := callerOf(r.Context())
			err := s.mustBeHome(r.Context(), c, "the entries of the log hold the decisions of every tenant; read your own with /v1/log/entries")
			if err == nil && !s.access.AllowedAll(c.actor, "decision/*", access.Read) {
				err = waybill.Errorf(waybill.Denied, "the entries of the log hold every decision, and there are some that %s may not read; read the others with /v1/log/entries", c.actor.ID)
			}
			if err != nil {
				writeError(w, r, err)
				return
			}
		}
		own := r.Clone(r.Context())
		own.URL.Path = "/" + rest
		next.ServeHTTP(w, own)
	})
}

// isHashTile tells "tile/3/x001/067" from "tile/entries/x001/067".
func isHashTile(rest string) bool {
	level, _, found := strings.Cut(strings.TrimPrefix(rest, "tile/"), "/")
	return strings.HasPrefix(rest, "tile/") && found && level != "" && strings.Trim(level, "0123456789") == ""
}

func plainText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	send(w, []byte(text+"\n"))
}

// send writes a body. An error means that the client is gone, and there is nobody to tell.
func send(w http.ResponseWriter, b []byte) {
	if _, err := w.Write(b); err != nil {
		return
	}
}
