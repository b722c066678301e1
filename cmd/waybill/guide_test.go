package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fence is a fenced block of a Markdown text: its language, the file that it is (the word after the language, or ""), and
// the line where it begins.
type fence struct {
	line           int
	language, file string
	text           string
}

// fences are the fenced blocks of a Markdown text, in order.
func fences(text string) (out []fence) {
	open := false
	for n, line := range strings.Split(text, "\n") {
		info, mark := strings.CutPrefix(line, "```")
		switch {
		case mark && !open:
			language, file, _ := strings.Cut(info, " ")
			out, open = append(out, fence{line: n + 1, language: language, file: file}), true
		case mark:
			open = false
		case open:
			out[len(out)-1].text += line + "\n"
		}
	}
	return out
}

// TestPythonGuide follows docs/guide/python.md on a hub of its own: files are written, shell blocks run, and then all of its
// Python in one process, as somebody would who types it.
func TestPythonGuide(t *testing.T) {
	t.Parallel()
	const page = "docs/guide/python.md"
	root := filepath.Join(packageDir, "..", "..")
	python := filepath.Join(root, ".build", "venv", "feast-0.66", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("there is no Python environment feast-0.66 (%v); make it with: scripts/setup-python feast-0.66", err)
	}
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	dir := readmeDir(t)
	r := &reader{t: t, dir: dir, vars: filepath.Join(dir, "variables")}
	r.serve(block{0, "bin/waybill dev"}, "The hub serves")
	var script strings.Builder
	n := 0
	for _, f := range fences(string(text)) {
		switch {
		case f.file != "":
			if err := os.WriteFile(filepath.Join(dir, f.file), []byte(f.text), 0o600); err != nil {
				t.Fatal(err)
			}
		case f.language == "sh":
			if out, err := r.command("set -eu\n" + f.text).CombinedOutput(); err != nil {
				t.Fatalf("%s:%d: %v\n%s", page, f.line, err, out)
			}
		case f.language == "python":
			script.WriteString(strings.Repeat("\n", max(0, f.line-strings.Count(script.String(), "\n"))) + f.text) // lines are numbered as in the page
			n++
		default:
			t.Errorf("%s:%d: nobody runs %q", page, f.line, f.language)
		}
	}
	if n < 9 {
		t.Errorf("%s has %d blocks of Python; are they still fenced?", page, n)
	}
	file := filepath.Join(dir, "python.md")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := r.command(shellWord(python) + " " + shellWord(file)).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", page, err, out)
	}
}
