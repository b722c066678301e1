// Package web serves the pages of Waybill from inside the binary.
//
// It owns the built files under dist and the headers they are served with. Invariant: no page ever runs a script, a
// style or a font, or talks to an address, that did not come from this binary (the content security policy says so
// to the browser). The pages hold no secret: everything they show comes from the REST API with the visitor's token.
//
// cmd/waybill mounts Handler below the REST paths. When the pages were not built (a plain "go build" on a machine
// without Node) Handler says so on a plain page and the rest of the hub is not affected.
package web

import (
	"bytes"
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// policy allows this origin only. There is no inline script or style element; React and React Flow set single style
// properties through the CSS object model, which the policy does not touch.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// notBuilt is shown when dist holds no index.html.
const notBuilt = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Waybill</title></head>
<body><h1>Waybill is running, its pages were not built</h1>
<p>The API answers as usual. To build the pages, run <code>npm ci</code> and <code>npm run build</code> in the folder
<code>web</code> (Node 20 or newer), then build the binary again.</p></body></html>
`

// Handler serves the built pages: hashed assets for a year, everything else without caching. A path that is no file
// is a page of the application and gets index.html, except below assets/, where it is a 404.
func Handler() http.Handler {
	files, err := fs.Sub(dist, "dist")
	if err != nil { // only for an invalid path, and ours is a constant
		panic(err)
	}
	return newHandler(files)
}

func newHandler(files fs.FS) http.Handler {
	index, err := fs.ReadFile(files, "index.html")
	if err != nil {
		index = nil
	}
	static := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY") // frame-ancestors for browsers that know it, this for the rest
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the pages answer GET and HEAD only", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if info, err := fs.Stat(files, name); err == nil && !info.IsDir() && name != "index.html" && !hidden(name) {
			if strings.HasPrefix(name, "assets/") { // vite puts a hash of the content into these names
				h.Set("Cache-Control", "public, max-age=31536000, immutable")
			} else {
				h.Set("Cache-Control", "no-cache")
			}
			static.ServeHTTP(w, r)
			return
		}
		h.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") || hidden(name) {
			http.NotFound(w, r)
			return
		}
		if index == nil {
			h.Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(http.StatusServiceUnavailable)
			if r.Method == http.MethodGet {
				// The visitor's connection may be gone; there is nobody else to tell.
				if _, err := w.Write([]byte(notBuilt)); err != nil {
					return
				}
			}
			return
		}
		http.ServeContent(w, r, "index.html", time.Time{}, bytes.NewReader(index))
	})
}

// hidden says whether a file is there for git or the build only.
func hidden(name string) bool { return strings.HasPrefix(name, ".") }
