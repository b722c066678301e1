// Command fetchnode puts a published build of Node.js and npm into a folder, for machines without Node where nobody
// may install packages. It needs Go and the network only. Both come from the package registry that npm itself would
// use here (.npmrc and environment are honoured), and are compared with the SHA-512 that the registry states.
//
//	go run . FOLDER
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/osv-scalibr/clients/datasource"
)

// The versions that the pages are built and tested with.
const (
	nodeVersion = "22.12.0"
	npmVersion  = "10.9.0"
	// maxArchive bounds a download, packed and each of its files unpacked, in bytes.
	maxArchive = 512 << 20
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: fetchnode FOLDER")
		os.Exit(2)
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	err := run(ctx, os.Args[1])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetchnode:", err)
		os.Exit(1)
	}
}

// run leaves dest complete or as it was: everything is made beside it and moved there at the end.
func run(ctx context.Context, dest string) (err error) {
	dest, err = filepath.Abs(dest)
	if err != nil {
		return err
	}
	arch, ok := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	system, known := map[string]string{"linux": "linux", "darwin": "darwin"}[runtime.GOOS]
	if !ok || !known {
		return fmt.Errorf("no published build of Node for %s/%s is known; install Node 20 or later", runtime.GOOS, runtime.GOARCH)
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	made, err := os.MkdirTemp(filepath.Dir(dest), "node-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(made)) }()
	home, err := os.Getwd()
	if err != nil {
		return err
	}
	registry, err := datasource.NewNPMRegistryAPIClient(home)
	if err != nil {
		return fmt.Errorf("read the npm settings: %w", err)
	}
	for _, p := range []struct{ name, version, to string }{
		{"node-" + system + "-" + arch, nodeVersion, made},
		{"npm", npmVersion, filepath.Join(made, "lib", "node_modules", "npm")},
	} {
		fmt.Fprintf(os.Stderr, "fetching %s %s\n", p.name, p.version)
		if err := fetch(ctx, registry, p.name, p.version, p.to); err != nil {
			return fmt.Errorf("%s %s: %w", p.name, p.version, err)
		}
	}
	for _, tool := range []string{"npm", "npx"} {
		link := filepath.Join(made, "bin", tool)
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		script := filepath.Join("..", "lib", "node_modules", "npm", "bin", tool+"-cli.js")
		if err := os.Symlink(script, link); err != nil {
			return err
		}
		if err := os.Chmod(link, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(made, 0o755), os.Chmod(filepath.Join(made, "bin", "node"), 0o755)); err != nil {
		return err
	}
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	if err := os.Rename(made, dest); err != nil {
		return err
	}
	return nil
}

// fetch downloads one package version, checks its digest and unpacks it.
func fetch(ctx context.Context, registry *datasource.NPMRegistryAPIClient, name, version, to string) error {
	meta, err := registry.FullJSON(ctx, name, version)
	if err != nil {
		return fmt.Errorf("ask the registry: %w", err)
	}
	want, ok := strings.CutPrefix(meta.Get("dist.integrity").String(), "sha512-")
	if !ok {
		return errors.New("the registry states no SHA-512")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, meta.Get("dist.tarball").String(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("download: %s", response.Status)
	}
	packed, err := io.ReadAll(io.LimitReader(response.Body, maxArchive+1))
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	if len(packed) > maxArchive {
		return fmt.Errorf("the archive is larger than %d MiB", maxArchive>>20)
	}
	have := sha512.Sum512(packed)
	if got := base64.StdEncoding.EncodeToString(have[:]); got != want {
		return fmt.Errorf("the archive's SHA-512 is %s, the registry states %s", got, want)
	}
	return unpack(bytes.NewReader(packed), to)
}

// unpack writes the regular files of a package archive, without its top folder, and nothing outside of to.
func unpack(r io.Reader, to string) (err error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for archive := tar.NewReader(unzipped); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, name, ok := strings.Cut(filepath.ToSlash(filepath.Clean(head.Name)), "/")
		if !ok || head.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644|os.FileMode(head.Mode)&0o111)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, io.LimitReader(archive, maxArchive))
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
}
