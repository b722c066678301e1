package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files anew")

// run runs a command in this process with an environment of its own.
func run(t *testing.T, in string, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = execute(context.Background(), environment{Args: args, In: strings.NewReader(in), Out: &stdout, Err: &stderr,
		Getenv: func(k string) string { return env[k] }, Environ: func() []string { return nil }})
	return code, stdout.String(), stderr.String()
}

// commands are all commands below root, with their paths.
func commands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" {
			out = append(out, commands(sub)...)
		}
	}
	return out
}

// TestHelp compares the help of every command with what is on record: a change of the command line is seen in review.
func TestHelp(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, c := range commands(newRoot(environment{Getenv: os.Getenv})) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		code, out, errs := run(t, "", nil, args...)
		if code != exitOK || errs != "" {
			t.Errorf("%s --help: exit %d, %s", c.CommandPath(), code, errs)
		}
		if c.Short == "" {
			t.Errorf("%s has no short help", c.CommandPath())
		}
		all.WriteString("$ " + c.CommandPath() + " --help\n" + out + "\n")
	}
	golden := filepath.Join(packageDir, "testdata", "help.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), all.String()); diff != "" {
		t.Errorf("the help has changed; look at it and run go test ./cmd/waybill -run TestHelp -update:\n%s", diff)
	}
}

// TestExitCodes: what was called wrongly is 2 and what failed is 1; the words go to standard error and name the remedy.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "checkpoint"), []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := map[string]string{"WAYBILL_URL": "http://127.0.0.1:1", "WAYBILL_GRPC": "127.0.0.1:1", "WAYBILL_TOKEN": "wb_dev_x"}
	for _, c := range []struct {
		name string
		env  map[string]string
		args string
		code int
		says string
	}{
		{"Version", nil, "--version", exitOK, ""},
		{"VersionCommand", nil, "version", exitOK, ""},
		{"UnknownCommand", nil, "decidde", exitUsage, "is it decide"},
		{"UnknownSubcommand", nil, "decision serch", exitUsage, "is it search"},
		{"NoDeliveries", nil, "demo --deliveries " + filepath.Join(broken, "none.csv"), exitFailure, "none.csv"},
		{"OtherDeliveries", nil, "demo --deliveries " + filepath.Join(broken, "checkpoint"), exitUsage, "no column \"ID\", \"Country\""},
		{"NoReason", hub, "apply -f " + broken, exitUsage, "--reason"},
		{"NotAnID", hub, "log verify --decision ORD-123", exitUsage, "--decision"},
		{"TooManyArguments", nil, "serve here", exitUsage, "takes no arguments"},
		{"UnknownFlag", nil, "dev --port 7", exitUsage, "--port"},
		{"MissingArgument", hub, "lineage", exitUsage, "NODE"},
		{"NoHubNamed", nil, "decision search", exitUsage, "waybill dev"},
		{"HalfAHub", map[string]string{"WAYBILL_URL": "http://127.0.0.1:1", "WAYBILL_TOKEN": "x"}, "decision search", exitUsage, "WAYBILL_GRPC"},
		{"NoToken", map[string]string{"WAYBILL_URL": "http://127.0.0.1:1", "WAYBILL_GRPC": "127.0.0.1:1"}, "decision search", exitUsage, "WAYBILL_TOKEN"},
		{"TokenInTheClear", map[string]string{"WAYBILL_URL": "http://hub.example.com", "WAYBILL_GRPC": "hub.example.com:1", "WAYBILL_TOKEN": "x"}, "decision search", exitUsage, "https"},
		{"HubAway", hub, "decision search", exitFailure, "refused"},
		{"BeyondLoopback", nil, "dev --http-addr 0.0.0.0:8080", exitUsage, "loopback"},
		{"CopyWithoutKey", nil, "log verify --dir " + broken, exitUsage, "--key"},
		{"BrokenCopy", nil, "log verify --dir " + broken + " --key waybill.local/log/1+00000000+AQ==", exitFailure, ""},
		{"NoFile", hub, "decide route -f " + filepath.Join(broken, "none.json"), exitFailure, "none.json"},
		{"ServeWithoutSettings", nil, "serve", exitUsage, "WAYBILL_DATABASE_URL"},
	} {
		code, out, errs := run(t, "", c.env, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errs, c.says) || code != exitOK && (errs == "" || out != "") {
			t.Errorf("%s: exit %d, want %d naming %q\nstdout: %s\nstderr: %s", c.name, code, c.code, c.says, out, errs)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errs := run(t, "", nil, "completion", shell); code != exitOK || !strings.Contains(out, "waybill") {
			t.Errorf("%s: exit %d, %s", shell, code, errs)
		}
	}
}
