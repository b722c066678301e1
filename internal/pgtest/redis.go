package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a real redis-server or valkey-server on loopback. It keeps nothing on disk, runs as an unprivileged account
// when the test is root, and ends with the process, however that ends.
type RedisServer struct {
	Address string // host:port, the same after Start
	args    []string
	bin     string
	cred    *syscall.Credential

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// shared is the server of all tests of the process that do not harm it. It is started once.
var shared = sync.OnceValues(func() (*RedisServer, error) { return startRedis() })

// Redis is the URL of a server that all tests of the process share; keys tell them apart. A missing server fails the test:
// it never skips.
func Redis(t testing.TB) string {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("start Redis for tests: %v", err)
	}
	return s.URL()
}

// NewRedis starts a server of the test's own, which it may harm. It is ended after the test.
func NewRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	s, err := startRedis(args...)
	if err != nil {
		t.Fatalf("start Redis for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Errorf("end Redis: %v", err)
		}
	})
	return s
}

// RedisFolder is a folder that the account of a RedisServer can write to.
func RedisFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "waybill-redis-") //nolint:usetesting // t.TempDir is closed to the account
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	cred, err := nobody()
	if err == nil && cred != nil {
		err = os.Chown(dir, int(cred.Uid), int(cred.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// URL is the server's address as a setting has it.
func (s *RedisServer) URL() string { return "redis://" + s.Address }

// nobody is the account for servers when the test is root, nil otherwise.
func nobody() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func findRedis() (string, error) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		for _, dir := range localBinaries() { // …/.build/postgres/bin
			path := filepath.Join(dir, "..", "..", "redis", "bin", name)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no redis-server or valkey-server on this machine; run scripts/setup-redis")
}

func startRedis(args ...string) (*RedisServer, error) {
	bin, err := findRedis()
	if err != nil {
		return nil, err
	}
	cred, err := nobody()
	if err != nil {
		return nil, err
	}
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		address := l.Addr().(*net.TCPAddr)
		if err := l.Close(); err != nil {
			return nil, err
		}
		if address.Port < 55_000 { // a cluster's nodes talk on the port 10,000 higher
			s := &RedisServer{Address: address.String(), args: args, bin: bin, cred: cred}
			return s, s.Start()
		}
	}
}

// NewRedisCluster starts a cluster of two servers, each with half of the slots and no replica. A server that was killed
// finds its place again when it is started.
func NewRedisCluster(t testing.TB) []*RedisServer {
	t.Helper()
	folder := RedisFolder(t)
	var nodes []*RedisServer
	must := func(node *RedisServer, command string) {
		t.Helper()
		if answer, err := node.Do(command); err != nil || answer != "+OK" {
			t.Fatalf("%s: %s, %v", command, answer, err)
		}
	}
	for i, slots := range []string{"0 8191", "8192 16383"} {
		node := NewRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no", "--dir", folder,
			"--cluster-config-file", fmt.Sprint("nodes-", i, ".conf"))
		nodes = append(nodes, node)
		must(node, "CLUSTER ADDSLOTSRANGE "+slots)
	}
	must(nodes[1], fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", 2))
	must(nodes[0], "CLUSTER MEET "+strings.Replace(nodes[1].Address, ":", " ", 1))
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		known := 0
		for _, node := range nodes {
			info, err := node.Do("CLUSTER INFO")
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") {
				known++
			}
		}
		if known == len(nodes) {
			return nodes
		}
		if time.Since(start) > 30*time.Second {
			t.Fatal("the servers do not become a cluster")
		}
	}
}

// Start starts the server, empty, and waits until it answers. It is for one that was killed.
func (s *RedisServer) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return err
	}
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", "/"}, s.args...)
	started, done := make(chan error, 1), make(chan struct{})
	go func() { // it holds its OS thread for life: the kernel sends the death signal when the thread that forked ends
		runtime.LockOSThread()
		defer close(done)
		s.cmd = exec.Command(s.bin, args...)
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true, Pdeathsig: syscall.SIGKILL}
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // it was killed
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.done = done
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if s.answers() {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("%s %s ended by itself", s.bin, strings.Join(args, " "))
		default:
		}
		if time.Since(begin) > 30*time.Second {
			return fmt.Errorf("%s does not answer", s.bin)
		}
	}
}

func (s *RedisServer) answers() bool {
	reply, err := s.Do("PING")
	return err == nil && reply == "+PONG"
}

// Do sends one command of words without blanks and returns the answer: a line as it is on the wire, or a text.
func (s *RedisServer) Do(command string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Address, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // nothing is lost
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if line = strings.TrimSpace(line); err != nil || !strings.HasPrefix(line, "$") {
		return line, err
	}
	size, err := strconv.Atoi(line[1:])
	if err != nil || size < 0 {
		return "", err
	}
	text := make([]byte, size)
	_, err = io.ReadFull(r, text)
	return string(text), err
}

// Kill ends the server at once, as kill -9 does, and waits for its end.
func (s *RedisServer) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		return nil
	default:
	}
	err := s.cmd.Process.Kill()
	<-s.done
	return err
}

// Hang stops the server's process, which keeps its connections; Resume lets it go on.
func (s *RedisServer) Hang() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a server that hangs go on.
func (s *RedisServer) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }
