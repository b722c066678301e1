package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// block is a shell block of the README: its indented lines, and where it begins.
type block struct {
	line int
	text string
}

// shellBlocks are the indented blocks of a Markdown text, in order.
func shellBlocks(text string) (out []block) {
	open := false
	for n, line := range strings.Split(text, "\n") {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented && open:
			out[len(out)-1].text += "\n" + code
		case indented:
			out = append(out, block{n + 1, code})
		}
		open = indented
	}
	return out
}

// said collects what a server says, for the test to wait on.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String is everything so far.
func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestReadme runs every shell block of the README in order, in one shell's variables and one folder, as somebody would who
// follows it. Blocks that start a server are started by the test, on free ports, and stopped at its end.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(packageDir, "..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := readmeDir(t)
	r := &reader{t: t, dir: dir, vars: filepath.Join(dir, "variables")}
	for _, b := range shellBlocks(string(text)) {
		first, _, _ := strings.Cut(b.text, "\n")
		switch {
		case strings.HasPrefix(first, "make "):
			r.targets(b)
		case strings.HasPrefix(first, "bin/waybill demo --serve"):
			r.serve(b, "The hub goes on serving")
		case first == "bin/waybill dev":
			r.serve(b, "The hub serves")
			r.shell(block{b.line, "unset WAYBILL_URL WAYBILL_GRPC WAYBILL_TOKEN"}) // as the README says
		default:
			r.shell(b)
		}
	}
	if r.ran < 20 {
		t.Errorf("only %d commands of the README were run; are its blocks still indented by four?", r.ran)
	}
}

// readmeDir makes a folder like a built clone: bin/waybill, which is this test binary, and the examples.
func readmeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "waybill-readme-") //nolint:usetesting // below t.TempDir the account that runs Postgres may not pass
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(packageDir, "..", "..", "examples")
	bin := filepath.Join(dir, "bin")
	script := "#!/bin/sh\n" + asProgram + "=1 exec " + shellWord(self) + " \"$@\"\n"
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(bin, 0o755), os.WriteFile(filepath.Join(bin, "waybill"), []byte(script), 0o755),
		os.Symlink(examples, filepath.Join(dir, "examples"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// reader follows the README.
type reader struct {
	t         *testing.T
	dir, vars string
	ran       int
}

// command is sh with the README's folder as its own and none of this process's settings for a hub.
func (r *reader) command(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = r.dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WAYBILL_") || strings.HasPrefix(v, "WAYBILL_POSTGRES_BIN=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// shell runs a block; it must succeed, command by command. Variables go on to the next block, as in one terminal.
func (r *reader) shell(b block) {
	r.t.Helper()
	cmd := r.command(fmt.Sprintf("set -eu\nif [ -e %[1]s ]; then . %[1]s; fi\n%[2]s\nexport -p > %[1]s; set | grep -E '^(url|token|id|bob)=' >> %[1]s || true\n", shellWord(r.vars), b.text))
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("README.md:%d: %v\n%s\n--- it printed\n%s", b.line, err, b.text, out)
	}
	for _, bad := range []string{"rpc error", "waybill: "} {
		if strings.Contains(string(out), bad) {
			r.t.Errorf("README.md:%d printed %q:\n%s", b.line, bad, out)
		}
	}
	if strings.Contains(b.text, "curl ") && !strings.Contains(string(out), `"decision_id"`) {
		r.t.Errorf("README.md:%d: no decision in the answer:\n%s", b.line, out)
	}
	r.t.Logf("README.md:%d\n%s", b.line, out)
	r.ran += strings.Count("\n"+b.text, "\nbin/waybill ") + strings.Count(b.text, "$(bin/waybill ") + strings.Count(b.text, "curl ")
}

// serve starts a block that is one server, on free ports, and waits until it says what marks it ready.
func (r *reader) serve(b block, ready string) {
	r.t.Helper()
	cmd := r.command("exec " + strings.TrimSpace(b.text) + " --http-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0")
	var out said
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			r.t.Error(err)
		}
		if err := <-ended; err != nil {
			r.t.Errorf("README.md:%d did not end in order: %v\n%s", b.line, err, out.String())
		}
	})
	for start := time.Now(); !strings.Contains(out.String(), ready); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			r.t.Fatalf("README.md:%d ended: %v\n%s", b.line, err, out.String())
		default:
		}
		if time.Since(start) > 2*time.Minute {
			r.t.Fatalf("README.md:%d did not say %q:\n%s", b.line, ready, out.String())
		}
	}
	r.ran++
}

// targets checks that the Makefile has the targets that a block names. They run this test, so it does not run them.
func (r *reader) targets(b block) {
	r.t.Helper()
	mk, err := os.ReadFile(filepath.Join(packageDir, "..", "..", "Makefile"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, line := range strings.Split(b.text, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "make" || !strings.Contains(string(mk), "\n"+f[1]+":") {
			r.t.Errorf("README.md:%d: %q is no target of the Makefile", b.line, line)
		}
	}
}
