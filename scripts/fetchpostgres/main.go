// Command fetchpostgres puts published Postgres binaries into a folder, for machines without Postgres where nobody
// may install packages. It needs Go and the network only. The library fetches the archive, compares its SHA-256 and
// unpacks it; a server is then started once, so that binaries that cannot run here are found out now and not by the
// first test.
//
//	go run . FOLDER
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: fetchpostgres FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "fetchpostgres:", err)
		os.Exit(1)
	}
}

// run leaves dest complete or absent: everything is made beside it and moved there at the end.
func run(dest string) error {
	dest, err := filepath.Abs(dest)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	made, err := os.MkdirTemp(filepath.Dir(dest), "postgres-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	scratch, err := os.MkdirTemp("", "waybill-fetch-") // short: the test server's socket lies in it
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	port, err := freePort()
	if err != nil {
		return err
	}
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().Version(embeddedpostgres.V18).Port(port).
		CachePath(filepath.Join(scratch, "cache")).RuntimePath(filepath.Join(scratch, "run")).BinariesPath(made).Logger(io.Discard))
	switch err := server.Start(); {
	case err == nil:
		if err := server.Stop(); err != nil {
			return fmt.Errorf("stop the test server: %w", err)
		}
	case os.Geteuid() == 0 && unpacked(made): // a server cannot be tried as root; whoever runs it drops root
	default:
		return err
	}
	if !unpacked(made) {
		return fmt.Errorf("the archive has no bin/postgres")
	}
	if err := os.Chmod(made, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	return os.Rename(made, dest)
}

func unpacked(dir string) bool {
	_, err1 := os.Stat(filepath.Join(dir, "bin", "postgres"))
	_, err2 := os.Stat(filepath.Join(dir, "bin", "initdb"))
	return err1 == nil && err2 == nil
}

func freePort() (uint32, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return uint32(l.Addr().(*net.TCPAddr).Port), l.Close()
}
