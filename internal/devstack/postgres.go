package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
)

// minVersion is the oldest Postgres whose behaviour the tests cover.
const minVersion = 15

// postgres is one private cluster and the goroutine that keeps it up.
type postgres struct {
	bin, data, run string
	port           int
	password       string
	cred           *syscall.Credential // nil unless root: Postgres refuses to run as root
	settings       []string
	logger         *slog.Logger
	pid            atomic.Int64
	stop           chan struct{}
	stopped        chan struct{}
}

// findPostgres returns the folder with initdb and postgres of version 15 or later: the newest in the usual places.
func findPostgres(extra ...string) (string, error) {
	var dirs []string
	dirs = append(dirs, extra...)
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("glob %s: %w", pattern, err)
		}
		sort.Slice(found, func(i, j int) bool { return versionIn(found[i]) > versionIn(found[j]) })
		dirs = append(dirs, found...)
	}
	dirs = append(dirs, "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin")
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, dir := range dirs {
		out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		fields := strings.Fields(string(out)) // postgres (PostgreSQL) 15.18 (Debian …)
		if len(fields) < 3 {
			continue
		}
		major, err := strconv.Atoi(strings.SplitN(fields[2], ".", 2)[0])
		if err != nil || major < minVersion {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		return dir, nil
	}
	return "", waybill.Errorf(waybill.Conflict, "no Postgres %d or later is installed on this machine; run make setup", minVersion)
}

func versionIn(path string) int {
	n := 0
	for _, c := range path {
		if c >= '0' && c <= '9' {
			n = n*10 + int(c-'0')
		}
	}
	return n
}

// unprivileged returns the account that runs Postgres when we are root.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, waybill.Errorf(waybill.Conflict, "Postgres refuses to run as root and there is no account postgres or nobody to run it; run as another user")
}

// openFolder holds the clusters whose own folder the account of Postgres cannot reach.
const openFolder = "/var/lib/waybill"

// place returns dir when the account can reach it, else a folder of the same identity that it can: root's home, for
// one, is closed to others.
func place(dir string, cred *syscall.Credential) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", dir, err)
	}
	if cred == nil {
		return abs, nil
	}
	for p := filepath.Dir(abs); p != "/"; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err == nil && info.Mode().Perm()&0o001 == 0 {
			sum := sha256.Sum256([]byte(abs))
			if err := os.MkdirAll(openFolder, 0o755); err != nil {
				return "", fmt.Errorf("make folder: %w", err)
			}
			if err := os.Chmod(openFolder, 0o755); err != nil { // whatever the umask is: the account must pass through
				return "", fmt.Errorf("open folder to the postgres account: %w", err)
			}
			return filepath.Join(openFolder, hex.EncodeToString(sum[:6])), nil
		}
	}
	return abs, nil
}

// startPostgres makes the cluster when it is not there, starts it and waits until it answers.
func startPostgres(ctx context.Context, dir string, settings []string, binDirs []string, logger *slog.Logger) (*postgres, error) {
	bin, err := findPostgres(binDirs...)
	if err != nil {
		return nil, err
	}
	cred, err := unprivileged()
	if err != nil {
		return nil, err
	}
	home, err := place(filepath.Join(dir, "postgres"), cred)
	if err != nil {
		return nil, err
	}
	p := &postgres{bin: bin, data: filepath.Join(home, "data"), run: filepath.Join(home, "run"), cred: cred, settings: settings,
		logger: logger, stop: make(chan struct{}), stopped: make(chan struct{})}
	if len(p.run) > 80 { // a socket's path has at most 107 bytes
		sum := sha256.Sum256([]byte(p.run))
		p.run = filepath.Join("/tmp", "waybill-"+hex.EncodeToString(sum[:6]))
	}
	if err := p.makeFolders(home); err != nil {
		return nil, err
	}
	if p.password, err = secret(filepath.Join(dir, "postgres.password")); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		if err := p.initdb(ctx, home); err != nil {
			return nil, err
		}
	}
	if err := p.endPrevious(ctx); err != nil {
		return nil, err
	}
	if p.port, err = freePort(); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	go p.supervise(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := p.await(ctx, "postgres"); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if err := p.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *postgres) makeFolders(home string) error {
	for _, d := range []string{home, p.data, p.run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if p.cred != nil {
			if err := os.Chown(d, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
				return fmt.Errorf("give folder to the postgres account: %w", err)
			}
		}
	}
	return nil
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"}
	// Setpgid: a Ctrl-C in the terminal is for the hub, which then stops Postgres in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Setpgid: true}
	return cmd
}

func (p *postgres) initdb(ctx context.Context, home string) error {
	pw := filepath.Join(home, "pw")
	if err := os.WriteFile(pw, []byte(p.password), 0o600); err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	defer func() {
		if err := os.Remove(pw); err != nil {
			p.logger.WarnContext(ctx, "password file not removed", "error", err)
		}
	}()
	if p.cred != nil {
		if err := os.Chown(pw, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			return fmt.Errorf("give password file: %w", err)
		}
	}
	cmd := p.command("initdb", "-D", p.data, "-U", "waybill", "--pwfile="+pw, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// endPrevious waits for, and if need be ends, a postmaster that an earlier hub left on this data directory: a hub
// that was killed takes its Postgres down by the death signal, which takes a moment.
func (p *postgres) endPrevious(ctx context.Context) error {
	for try := 0; ; try++ {
		raw, err := os.ReadFile(filepath.Join(p.data, "postmaster.pid"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read postmaster.pid: %w", err)
		}
		line, _, _ := strings.Cut(string(raw), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || pid < 2 || !p.owns(pid) {
			return nil //nolint:nilerr // stale: Postgres sees that by itself
		}
		switch try {
		case 50:
			err = syscall.Kill(pid, syscall.SIGINT) // fast shutdown
		case 150:
			err = syscall.Kill(pid, syscall.SIGQUIT) // immediate: recovers from its log at the next start
		case 300:
			return waybill.Errorf(waybill.Conflict, "a Postgres of an earlier run (process %d) does not end; stop it and start again", pid)
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop earlier postgres: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// owns reports whether pid is a live postmaster of this data directory.
func (p *postgres) owns(pid int) bool {
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.Contains(cmdline, []byte("postgres")) && bytes.Contains(cmdline, []byte(p.data))
}

// supervise keeps the postmaster up until close. It holds its OS thread for life, because the kernel sends the death
// signal when the thread that forked ends.
func (p *postgres) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer close(p.stopped)
	first := true
	for {
		args := []string{"-D", p.data, "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + p.run,
			"-c", "max_connections=300", "-c", "timezone=UTC", "-c", "log_timezone=UTC", "-c", "shared_buffers=128MB", "-c", "logging_collector=off"}
		for _, s := range p.settings {
			args = append(args, "-c", s)
		}
		cmd := p.command("postgres", args...)
		cmd.SysProcAttr.Pdeathsig = syscall.SIGINT
		log, err := os.OpenFile(filepath.Join(p.run, "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			cmd.Stdout, cmd.Stderr = log, log
			err = cmd.Start()
		}
		if first {
			started <- err
			if err != nil {
				return
			}
			first = false
		}
		if err == nil {
			p.pid.Store(int64(cmd.Process.Pid))
			err = cmd.Wait()
		}
		if log != nil {
			err = errors.Join(err, log.Close())
		}
		select {
		case <-p.stop:
			return
		case <-time.After(200 * time.Millisecond):
			p.logger.Warn("postgres ended, starting it again", "error", err)
		}
	}
}

func (p *postgres) dsn(database string) string {
	return fmt.Sprintf("host=%s port=%d user=waybill password=%s dbname=%s sslmode=disable", p.run, p.port, p.password, database)
}

// await waits until the cluster accepts connections.
func (p *postgres) await(ctx context.Context, database string) error {
	var last error
	for start := time.Now(); time.Since(start) < 60*time.Second; {
		conn, err := pgx.Connect(ctx, p.dsn(database))
		if err == nil {
			return conn.Close(ctx)
		}
		last = err
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("postgres did not start within 60 s, see %s: %w", filepath.Join(p.run, "postgres.log"), last)
}

func (p *postgres) createDatabase(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'waybill')").Scan(&there); err != nil {
		return fmt.Errorf("find database: %w", err)
	}
	if !there {
		if _, err := conn.Exec(ctx, "CREATE DATABASE waybill"); err != nil {
			return fmt.Errorf("create database: %w", err)
		}
	}
	return nil
}

// close stops Postgres in order (sessions are ended, everything is flushed) and waits for it.
func (p *postgres) close() error {
	close(p.stop)
	pid := int(p.pid.Load())
	if pid > 1 {
		if err := syscall.Kill(pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop postgres: %w", err)
		}
	}
	select {
	case <-p.stopped:
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("postgres did not stop in 20 s and was told to end at once"), syscall.Kill(pid, syscall.SIGQUIT))
	}
}

// freePort asks the kernel for a port on loopback.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// secret reads a random text from path, making it on the first call. Mode 0600.
func secret(path string) (string, error) {
	if b, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(b)), nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read secret: %w", err)
	}
	var raw [20]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("make secret: %w", err)
	}
	s := hex.EncodeToString(raw[:])
	if err := os.WriteFile(path, []byte(s+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write secret: %w", err)
	}
	return s, nil
}
