package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	built := fstest.MapFS{
		"index.html":          {Data: []byte("<!doctype html><title>Waybill</title>")},
		"favicon.svg":         {Data: []byte("<svg/>")},
		"assets/index-abc.js": {Data: []byte("export {}")},
		".keep":               {},
		".vite/manifest.json": {Data: []byte("{}")},
	}
	empty := fstest.MapFS{".keep": {}}
	for _, c := range []struct {
		name, method, path string
		files              fstest.MapFS
		status             int
		cache, contains    string
	}{
		{"root", "GET", "/", built, 200, "no-cache", "<title>Waybill"},
		{"a page of the application", "GET", "/decisions/0190", built, 200, "no-cache", "<title>Waybill"},
		{"index by name", "GET", "/index.html", built, 200, "no-cache", "<title>Waybill"},
		{"hashed asset", "GET", "/assets/index-abc.js", built, 200, "public, max-age=31536000, immutable", "export"},
		{"unhashed file", "GET", "/favicon.svg", built, 200, "no-cache", "<svg/>"},
		{"missing asset", "GET", "/assets/index-old.js", built, 404, "", ""},
		{"directory", "GET", "/assets", built, 200, "no-cache", "<title>Waybill"},
		{"build file", "GET", "/.vite/manifest.json", built, 404, "", ""},
		{"climbing", "GET", "/../../etc/passwd", built, 200, "no-cache", "<title>Waybill"},
		{"post", "POST", "/", built, 405, "", ""},
		{"not built", "GET", "/", empty, 503, "no-cache", "npm run build"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			newHandler(c.files).ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
			res := w.Result()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status {
				t.Errorf("status %d, want %d", res.StatusCode, c.status)
			}
			if got := res.Header.Get("Cache-Control"); c.cache != "" && got != c.cache {
				t.Errorf("Cache-Control %q, want %q", got, c.cache)
			}
			if !strings.Contains(string(body), c.contains) {
				t.Errorf("body %q does not contain %q", body, c.contains)
			}
			csp := res.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'self'", "frame-ancestors 'none'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("policy %q lacks %q", csp, want)
				}
			}
			if strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q is weak", csp)
			}
			if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("security headers missing: %v", res.Header)
			}
		})
	}
}

func TestHandlerOfThisBuild(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK && w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 200 (built) or 503 (not built)", w.Code)
	}
}
