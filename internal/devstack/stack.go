package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"waybill"
	"waybill/internal/bucket"
)

// Config says where the data are.
type Config struct {
	Dir         string       // made when missing; holds everything, secrets with mode 0600
	Logger      *slog.Logger // defaults to none
	Throwaway   bool         // tests: faster and not durable
	PostgresBin []string     // folders to look for Postgres in before the usual ones
}

// Stack is a running Postgres and S3 gateway.
type Stack struct {
	pg     *postgres
	bucket bucket.Config
	lock   *os.File
	stopS3 context.CancelFunc
	doneS3 chan error
}

// Open starts both, or says what keeps it from it. A second Open on the same folder is refused with the process id of
// the first; a lock that a killed process left is no obstacle.
func Open(ctx context.Context, c Config) (_ *Stack, err error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	s := &Stack{}
	if s.lock, err = lockDir(c.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	settings := []string{"fsync=on", "synchronous_commit=on"}
	if c.Throwaway {
		settings = []string{"fsync=off", "synchronous_commit=off", "full_page_writes=off", "jit=off", "max_wal_size=4GB"}
	}
	if s.pg, err = startPostgres(ctx, c.Dir, settings, c.PostgresBin, c.Logger); err != nil {
		return nil, err
	}
	if err := s.startS3(ctx, filepath.Join(c.Dir, "s3")); err != nil {
		return nil, err
	}
	return s, nil
}

// DSN is the connection string of the database "waybill".
func (s *Stack) DSN() string { return s.pg.dsn("waybill") }

// DatabaseDSN is the connection string of another database of the cluster.
func (s *Stack) DatabaseDSN(name string) string { return s.pg.dsn(name) }

// Bucket says where the bucket is; it is made when first opened.
func (s *Stack) Bucket() bucket.Config { return s.bucket }

// PostgresPID is the postmaster's process id: fault tests kill it.
func (s *Stack) PostgresPID() int { return int(s.pg.pid.Load()) }

// Close stops both and gives the folder free.
func (s *Stack) Close() error {
	var errs []error
	if s.stopS3 != nil {
		s.stopS3()
		select {
		case err := <-s.doneS3:
			if err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, fmt.Errorf("stop the S3 gateway: %w", err))
			}
		case <-time.After(10 * time.Second):
			errs = append(errs, errors.New("the S3 gateway did not stop in 10 s"))
		}
	}
	if s.pg != nil {
		errs = append(errs, s.pg.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// lockDir takes the folder for this process. The kernel drops the lock with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, readErr := os.ReadFile(f.Name())
		pid := strings.TrimSpace(string(holder))
		if readErr != nil || pid == "" {
			pid = "unknown"
		}
		return nil, errors.Join(waybill.Errorf(waybill.Conflict, "the data folder %s is in use by process %s; stop that first or give another folder", dir, pid), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// startS3 serves folder dir over the S3 protocol. There is one gateway per process: the library allows no more, and
// its store changes the working directory of the process, so a caller resolves relative paths before Open.
func (s *Stack) startS3(ctx context.Context, dir string) error {
	objects, sidecar := filepath.Join(dir, "objects"), filepath.Join(dir, "meta")
	for _, d := range []string{objects, sidecar} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	key, err := secret(filepath.Join(dir, "secret"))
	if err != nil {
		return err
	}
	store, err := meta.NewSideCar(sidecar)
	if err != nil {
		return fmt.Errorf("open s3 metadata: %w", err)
	}
	backend, err := posix.New(objects, store, posix.PosixOpts{SideCarDir: sidecar, ForceNoTmpFile: true, NewDirPerm: 0o700, Concurrency: 64, CopyObjectThreshold: 5 << 30, IOBufferSize: 64 << 10})
	if err != nil {
		return fmt.Errorf("open s3 folder: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stopS3, s.doneS3 = cancel, make(chan error, 1)
	go func() {
		s.doneS3 <- embedgw.RunVersityGW(run, backend, &embedgw.Config{RootUserAccess: "waybill", RootUserSecret: key, Region: "us-east-1",
			Ports: []string{addr}, MaxConnections: 10000, MaxRequests: 5000, MultipartMaxParts: 10000, Quiet: true, KeepAlive: true, DisableACLs: true})
	}()
	for start := time.Now(); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			s.bucket = bucket.Config{Endpoint: addr, Region: "us-east-1", AccessKey: "waybill", SecretKey: key, Bucket: "waybill", Create: true}
			return conn.Close()
		}
		select {
		case err := <-s.doneS3:
			s.stopS3 = nil
			return fmt.Errorf("start s3 gateway: %w", err)
		case <-time.After(20 * time.Millisecond):
			if time.Since(start) > 20*time.Second {
				return errors.New("the S3 gateway did not start in 20 s")
			}
		}
	}
}
