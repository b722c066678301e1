package waybill_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list -json` says of one package.
type pkg struct {
	ImportPath string
	Imports    []string
	Dir        string
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Dir", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// TestImports holds the import table of docs/architecture.md: which of our packages, and which of the heavy libraries,
// each room may import. An unknown room fails: add it here with a reason, or put the code where it belongs.
func TestImports(t *testing.T) {
	t.Parallel()
	domains := []string{"waybill/audit", "waybill/lineage", "waybill/registry", "waybill/featurestore", "waybill/drift", "waybill/decision"}
	protos := []string{"waybill/proto", "waybill/proto/*"}
	platform := []string{"waybill/internal/pg", "waybill/internal/bucket"}
	table := map[string][]string{
		"waybill":                          {},
		"waybill/internal/expr":            {"waybill"},
		"waybill/score":                    {"waybill", "waybill/internal/expr"},
		"waybill/internal/pg":              {"waybill"},
		"waybill/internal/bucket":          {"waybill"},
		"waybill/internal/jobs":            {"waybill", "waybill/internal/pg"},
		"waybill/audit":                    append([]string{"waybill", "waybill/audit/evidence"}, platform...),
		"waybill/audit/evidence":           {"waybill"}, // for outsiders: no database, no bucket, no transport
		"waybill/lineage":                  {"waybill", "waybill/internal/pg"},
		"waybill/registry":                 append([]string{"waybill", "waybill/audit", "waybill/lineage"}, platform...),
		"waybill/featurestore":             append([]string{"waybill", "waybill/audit", "waybill/lineage", "waybill/internal/expr", "waybill/featurestore/asof"}, platform...),
		"waybill/featurestore/asof":        {"waybill"},
		"waybill/drift":                    {"waybill", "waybill/audit", "waybill/lineage", "waybill/internal/pg"},
		"waybill/decision":                 {"waybill", "waybill/score", "waybill/registry", "waybill/featurestore", "waybill/audit", "waybill/lineage", "waybill/internal/pg", "waybill/internal/expr"},
		"waybill/internal/access":          {"waybill", "waybill/audit", "waybill/internal/pg"},
		"waybill/internal/api":             slices.Concat([]string{"waybill", "waybill/internal/access", "waybill/internal/api/feast", "waybill/internal/api/flight"}, domains, protos),
		"waybill/internal/api/feast":       slices.Concat([]string{"waybill", "waybill/internal/access"}, domains, protos),
		"waybill/internal/api/flight":      {"waybill", "waybill/featurestore"},
		"waybill/web":                      {"waybill"},
		"waybill/internal/devstack":        append([]string{"waybill"}, platform...),
		"waybill/internal/pgtest":          append([]string{"waybill", "waybill/internal/devstack", "waybill/internal/jobs"}, platform...),
		"waybill/examples/fulfilment":      {"waybill", "waybill/examples/fulfilment/gbdt"},
		"waybill/examples/fulfilment/gbdt": {},
		"waybill/examples/retail":          {},
		"waybill/cmd/waybill":              {"*"},
		"waybill/proto":                    {},
		"waybill/proto/*":                  {"waybill/proto/*"},
	}
	// A library that only the named rooms may see, with the reason.
	heavy := map[string]struct {
		rooms  []string
		reason string
	}{
		"google.golang.org/grpc":          {[]string{"waybill/internal/api", "waybill/internal/api/", "waybill/cmd/waybill", "waybill/proto/"}, "domains do not know how they are called"},
		"google.golang.org/protobuf":      {[]string{"waybill/internal/api", "waybill/internal/api/", "waybill/cmd/waybill", "waybill/proto/"}, "domains do not know how they are called"},
		"github.com/casbin/casbin":        {[]string{"waybill/internal/access"}, "one place decides who may do what"},
		"github.com/minio/minio-go":       {[]string{"waybill/internal/bucket"}, "one place talks to S3"},
		"github.com/riverqueue":           {[]string{"waybill/internal/jobs"}, "one place knows the job queue"},
		"github.com/apache/arrow":         {[]string{"waybill/featurestore", "waybill/featurestore/asof", "waybill/internal/api/flight", "waybill/cmd/waybill"}, "columns live in the feature store"},
		"github.com/redis/rueidis":        {[]string{"waybill/featurestore"}, "one place talks to Redis and Valkey"},
		"github.com/versity/versitygw":    {[]string{"waybill/internal/devstack"}, "the embedded gateway is for dev and tests"},
		"cel.dev/cel-go":                  {[]string{"waybill/internal/expr"}, "one evaluator for training and serving"},
		"github.com/spf13/cobra":          {[]string{"waybill/cmd/waybill"}, "flags end at the command"},
		"github.com/google/cel-go":        {nil, "moved to cel.dev/cel-go"},
		"github.com/stretchr/testify":     {nil, "go-cmp and the standard library"},
		"github.com/grpc-ecosystem":       {[]string{"waybill/internal/api", "waybill/cmd/waybill", "waybill/proto/"}, "the REST door"},
		"github.com/transparency-dev":     {[]string{"waybill/audit", "waybill/audit/evidence"}, "one place builds the log, one checks what it hands out"},
		"github.com/prometheus":           {[]string{"waybill/internal/api", "waybill/cmd/waybill"}, "metrics are exported at the edge"},
		"github.com/schollz/progressbar":  {[]string{"waybill/cmd/waybill"}, "progress is shown at the edge"},
		"github.com/jackc/pgx/v5/pgxpool": {append([]string{"waybill/internal/", "waybill/cmd/waybill"}, domains...), "examples and score do no I/O"},
	}
	room := func(path string) (string, bool) {
		if _, ok := table[path]; ok {
			return path, true
		}
		if strings.HasPrefix(path, "waybill/proto/") {
			return "waybill/proto/*", true
		}
		return "", false
	}
	for _, p := range listPackages(t) {
		if slices.Contains([]string{"waybill/scripts"}, p.ImportPath) || strings.HasPrefix(p.ImportPath, "waybill/scripts/") {
			continue // build helpers, not part of the product
		}
		name, ok := room(p.ImportPath)
		if !ok {
			t.Errorf("%s is not a room of the import table", p.ImportPath)
			continue
		}
		allowed := table[name]
		for _, imp := range p.Imports {
			for lib, rule := range heavy {
				if strings.HasPrefix(imp, lib) && !slices.ContainsFunc(rule.rooms, func(r string) bool {
					return p.ImportPath == r || strings.HasPrefix(p.ImportPath, r) && strings.HasSuffix(r, "/")
				}) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, rule.reason)
				}
			}
			if imp != "waybill" && !strings.HasPrefix(imp, "waybill/") {
				continue
			}
			target, _ := room(imp)
			if !slices.Contains(allowed, "*") && !slices.Contains(allowed, target) {
				t.Errorf("%s may not import %s", p.ImportPath, imp)
			}
		}
		if p.ImportPath == "waybill" || p.ImportPath == "waybill/examples/fulfilment/gbdt" {
			for _, imp := range p.Imports {
				if strings.Contains(imp, ".") {
					t.Errorf("%s imports %s: standard library only", p.ImportPath, imp)
				}
			}
		}
	}
}

// TestEvidenceIsLight holds what outsiders who check evidence take in with it, at whatever distance: the standard library,
// the vocabulary, Merkle proofs and signed notes.
func TestEvidenceIsLight(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./audit/evidence").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	got := strings.Fields(string(out))
	want := []string{"github.com/transparency-dev/merkle", "github.com/transparency-dev/merkle/compact", "github.com/transparency-dev/merkle/proof",
		"github.com/transparency-dev/merkle/rfc6962", "golang.org/x/mod/sumdb/note", "waybill", "waybill/audit/evidence"}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("package evidence takes in %q, want %q", got, want)
	}
}

// sources calls f with every hand-written Go file of the module.
func sources(t *testing.T, f func(path string, file *ast.File, src []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (path != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, ".pb.gw.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		f(path, file, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRepoRules holds the rules that no linter knows: every package says what it owns, no unfinished words, no
// init, no stray exit, no registration that walks past the interceptors.
func TestRepoRules(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	unfinished := regexp.MustCompile(`\b(` + "TO" + "DO|FIX" + "ME|XX" + "X|HA" + `CK)\b`)
	bypass := regexp.MustCompile(`\.Register\w+HandlerServer\(`)
	cached := regexp.MustCompile("New(Synced)?" + "CachedEnforcer")
	exit := regexp.MustCompile(`\bos\.Exit\(`)
	sources(t, func(path string, file *ast.File, src []byte) {
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || file.Doc != nil && !strings.HasSuffix(path, "_test.go")
		if m := unfinished.Find(src); m != nil {
			t.Errorf("%s: %s: file an issue and build it, or leave it out", path, m)
		}
		if m := bypass.Find(src); m != nil {
			t.Errorf("%s: %s calls handlers with no interceptor; use the in-process door", path, m)
		}
		if m := cached.Find(src); m != nil {
			t.Errorf("%s: %s returns stale allows; compile a snapshot", path, m)
		}
		if exit.Match(src) && path != "cmd/waybill/main.go" && !strings.HasPrefix(path, "scripts/") && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s: only cmd/waybill/main.go ends the process", path)
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: no init functions", path)
			}
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
	root, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, path := range root {
		if !strings.HasSuffix(path, "_test.go") {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(src, []byte("\n"))
		}
	}
	if lines > 400 {
		t.Errorf("package waybill has %d lines; it is a vocabulary and holds at most 400", lines)
	}
}
