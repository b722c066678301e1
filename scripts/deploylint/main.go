// Command deploylint checks the container files without a container engine: the Dockerfile with the rules of
// `docker build --check`, the compose file with compose's own loader, and that every image is pinned to a version.
//
//	go run . DOCKERFILE COMPOSE
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: deploylint DOCKERFILE COMPOSE")
		os.Exit(2)
	}
	ctx := context.Background()
	if err := errors.Join(lintDockerfile(ctx, os.Args[1]), lintCompose(ctx, os.Args[2])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("container files are sound")
}

// pinned is an image with a version that is more than a name.
var pinned = regexp.MustCompile(`^[^@]+(:[^:/]*([0-9]|nonroot|local)[^:/]*|@sha256:[0-9a-f]{64})$`)

// noRegistry answers for every image with an empty configuration: what is checked is our file, not theirs.
type noRegistry struct{}

func (noRegistry) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.FromString(ref), []byte(`{"architecture":"amd64","os":"linux","config":{}}`), nil
}

func lintDockerfile(ctx context.Context, path string) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var found []error
	source := llb.NewSourceMap(nil, path, "Dockerfile", src)
	source.Definition = &llb.Definition{} // there is no build that it belongs to
	opt := dockerfile2llb.ConvertOpt{MetaResolver: noRegistry{}, SourceMap: source}
	results, err := dockerfile2llb.DockerfileLint(ctx, src, opt)
	if err != nil {
		return err
	}
	if results.Error != nil {
		found = append(found, fmt.Errorf("%s:%s %s", path, line(&results.Error.Location), results.Error.Message))
	}
	for _, w := range results.Warnings {
		found = append(found, fmt.Errorf("%s:%s %s: %s", path, line(w.Location), w.RuleName, w.Detail))
	}
	tree, err := parser.Parse(strings.NewReader(string(src)))
	if err != nil {
		return err
	}
	stages, _, err := instructions.Parse(tree.AST, linter.New(&linter.Config{}))
	if err != nil {
		return err
	}
	var names []string
	for _, s := range stages {
		if !pinned.MatchString(s.BaseName) && !slices.Contains(names, s.BaseName) {
			found = append(found, fmt.Errorf("%s: FROM %s is not pinned to a version", path, s.BaseName))
		}
		names = append(names, s.Name)
	}
	last := stages[len(stages)-1]
	if !slices.ContainsFunc(last.Commands, func(c instructions.Command) bool {
		u, ok := c.(*instructions.UserCommand)
		return ok && u.User != "root" && u.User != "0"
	}) {
		found = append(found, fmt.Errorf("%s: the last stage runs as root", path))
	}
	return errors.Join(found...)
}

func line(l *pb.Location) string {
	if l == nil || len(l.GetRanges()) == 0 {
		return ""
	}
	return fmt.Sprintf("%d:", l.GetRanges()[0].GetStart().GetLine())
}

func lintCompose(ctx context.Context, path string) error {
	o, err := cli.NewProjectOptions([]string{path}, cli.WithWorkingDirectory(filepath.Dir(path)), cli.WithDiscardEnvFile, cli.WithoutEnvironmentResolution)
	if err != nil {
		return err
	}
	project, err := o.LoadProject(ctx)
	if err != nil {
		return err
	}
	var found []error
	for name, s := range project.Services {
		if !pinned.MatchString(s.Image) {
			found = append(found, fmt.Errorf("%s: image %q of %s is not pinned to a version", path, s.Image, name))
		}
		if s.Privileged {
			found = append(found, fmt.Errorf("%s: %s is privileged", path, name))
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				found = append(found, fmt.Errorf("%s: port %s of %s is open beyond loopback", path, p.Published, name))
			}
		}
		if s.Build != nil {
			file := filepath.Join(s.Build.Context, s.Build.Dockerfile)
			if _, err := os.Stat(file); err != nil {
				found = append(found, fmt.Errorf("%s: %s is built from a file that is not there: %w", path, name, err))
			}
		}
	}
	return errors.Join(found...)
}
