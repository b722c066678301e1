package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestComposeSettings: every variable that the compose file gives a hub is one of its settings, and what a hub cannot
// start without is given.
func TestComposeSettings(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(packageDir, "../../deploy/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
			Secrets     []string
		}
		Secrets map[string]struct{ File string }
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	hubs := 0
	for name, s := range file.Services {
		if len(s.Command) == 0 || s.Command[0] != "serve" && s.Command[0] != "migrate" {
			continue
		}
		hubs++
		values := map[string]string{}
		for variable, v := range s.Environment {
			plain, isFile := strings.CutSuffix(variable, "_FILE")
			i := slices.IndexFunc(table, func(s setting) bool { return s.variable() == plain })
			if i < 0 {
				t.Errorf("%s: %s is no setting of a hub", name, variable)
				continue
			}
			if table[i].secret != isFile {
				t.Errorf("%s: %s: secrets, and only they, come from files", name, variable)
			}
			if isFile {
				secret := strings.TrimPrefix(v, "/run/secrets/")
				if !slices.Contains(s.Secrets, secret) || file.Secrets[secret].File != "secrets/"+secret {
					t.Errorf("%s: %s names the secret %q that it is not given", name, variable, secret)
				}
				v = "secret"
			}
			values[plain] = v
		}
		cmd := newServe(environment{Getenv: os.Getenv})
		c, err := readSettings(cmd, environment{Getenv: func(k string) string { return values[k] }})
		if err == nil && s.Command[0] == "serve" {
			err = c.require()
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if hubs != 2 {
		t.Errorf("%d services run the binary; the test knows of two", hubs)
	}
}
