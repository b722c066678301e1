// Command licences fails when something that ends up in the binary has no licence that is known and allowed: each Go
// module that cmd/waybill links, by the text of its licence file, and each npm package of the pages that is not for
// development only, by what its lock file states.
//
//	go run . ROOT
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are licences that ask for no more than notice (SPDX names), and MPL-2.0, which asks for the changed files of
// the module itself. OFL-1.1 is for fonts.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-2-Clause-Views", "ISC", "MIT", "MPL-2.0", "Unlicense", "CC0-1.0", "0BSD", "Zlib", "OFL-1.1"}

// refused are beginnings of the names of licences that the binary must not come under, wherever their text stands.
var refused = []string{"GPL", "AGPL", "LGPL", "BUSL", "SSPL", "Elastic", "CC-BY-NC", "CommonsClause", "Commons-Clause", "EUPL", "OSL"}

// coverage is how much of a licence file must be text of known licences, in percent; the rest are names and years.
const coverage = 60

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: licences ROOT")
		os.Exit(2)
	}
	modules, err1 := goModules(os.Args[1])
	packages, err2 := npmPackages(os.Args[1])
	if err := errors.Join(err1, err2); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("licences: %d Go modules and %d npm packages, all allowed\n", modules, packages)
}

func goModules(root string) (int, error) {
	cmd := exec.Command("go", "list", "-deps", "-f", `{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}`, "./cmd/waybill")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("go list: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	lines = slices.DeleteFunc(slices.Compact(lines), func(s string) bool { return s == "" })
	var found []error
	for _, line := range lines {
		path, dir, _ := strings.Cut(line, " ")
		if err := moduleLicence(dir); err != nil {
			found = append(found, fmt.Errorf("%s: %w", path, err))
		}
	}
	if len(lines) == 0 {
		found = append(found, errors.New("go list named no modules"))
	}
	return len(lines), errors.Join(found...)
}

// moduleLicence reads the licence files at the top of a module: one of them must be known and have an allowed
// licence, and none may hold text of a refused one. Some list what other people's parts of a larger work are under. A module without such a file may have the whole text in its README.
func moduleLicence(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	known, readme := false, false
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		isReadme := strings.HasPrefix(name, "README")
		if e.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "UNLICENSE") && !isReadme {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		c := licensecheck.Scan(text)
		if isReadme {
			readme = slices.ContainsFunc(c.Match, isAllowed)
			continue
		}
		for _, m := range c.Match {
			if slices.ContainsFunc(refused, func(r string) bool { return strings.HasPrefix(m.ID, r) }) {
				return fmt.Errorf("%s has text of %s", e.Name(), m.ID)
			}
		}
		known = known || c.Percent >= coverage && slices.ContainsFunc(c.Match, isAllowed)
	}
	if !known && !readme {
		return errors.New("no licence that is known; read it and decide")
	}
	return nil
}

func isAllowed(m licensecheck.Match) bool { return !m.IsURL && slices.Contains(allowed, m.ID) }

func npmPackages(root string) (int, error) {
	raw, err := os.ReadFile(filepath.Join(root, "web", "package-lock.json"))
	if err != nil {
		return 0, err
	}
	var lock struct {
		Packages map[string]struct {
			License string `json:"license"`
			Dev     bool   `json:"dev"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(raw, &lock); err != nil {
		return 0, fmt.Errorf("package-lock.json: %w", err)
	}
	n := 0
	var found []error
	for name, p := range lock.Packages {
		if name == "" || p.Dev {
			continue
		}
		n++
		if !slices.Contains(allowed, p.License) {
			found = append(found, fmt.Errorf("%s: licence %q", name, p.License))
		}
	}
	return n, errors.Join(found...)
}
