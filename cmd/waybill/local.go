package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"waybill"
	"waybill/audit"
	"waybill/internal/access"
	"waybill/internal/devstack"
	"waybill/internal/jobs"
	"waybill/internal/pg"
)

// local is a hub on the embedded default, for dev, demo and bench.
type local struct {
	stack *devstack.Stack
	hub   *hub
	at    listeners
	info  info
}

// info is what a program needs to talk to a local hub. It is a file with mode 0600, because of the token.
type info struct {
	URL        string `json:"url"`
	GRPC       string `json:"grpc"`
	Token      string `json:"token"`
	Tenant     string `json:"tenant"`
	PID        int    `json:"pid"`
	Data       string `json:"data"`
	DecisionID string `json:"decision_id,omitempty"` // of the demo's story
}

// localConfig configures openLocal.
type localConfig struct {
	Dir                string
	HTTPAddr, GRPCAddr string // loopback; a port that is taken becomes the next free one
	PostgresBin        string
	Throwaway          bool // not durable: for benchmarks that are not about durability
	Tenant             waybill.Tenant
	Logger             *slog.Logger
	Note               func(format string, args ...any) // tells people what happens
}

// originOf names the log of a local hub. Nobody else relies on it.
const localOrigin = "waybill.local/log/1"

// admin is the administrator that a local hub makes.
const admin = "admin"

// openLocal starts Postgres and S3, migrates, makes keys and a token, and opens a hub that is not yet running.
func openLocal(ctx context.Context, c localConfig) (_ *local, err error) {
	dir, err := filepath.Abs(c.Dir) // the S3 gateway changes the working directory
	if err != nil {
		return nil, err
	}
	for _, addr := range []string{c.HTTPAddr, c.GRPCAddr} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, usageError{fmt.Errorf("%s is not a loopback address; a local hub is for this machine only (use serve for others)", addr)}
		}
	}
	l := &local{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	var bins []string
	if c.PostgresBin != "" {
		bins = []string{c.PostgresBin}
	}
	c.Note("starting Postgres and S3 in %s", dir)
	err = quietly(func() (err error) {
		l.stack, err = devstack.Open(ctx, devstack.Config{Dir: dir, Logger: c.Logger, Throwaway: c.Throwaway, PostgresBin: bins})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, l.stack.DSN(), c.Note); err != nil {
		return nil, err
	}
	signer, err := signerKey(filepath.Join(dir, "log.key"))
	if err != nil {
		return nil, err
	}
	tokens, err := tokenKey(filepath.Join(dir, "features-token.key"))
	if err != nil {
		return nil, err
	}
	if l.hub, err = openHub(ctx, hubConfig{DSN: l.stack.DSN(), Bucket: l.stack.Bucket(), LogID: 1, Origin: localOrigin, SignerKey: signer, TokenKey: tokens, Node: "local", Env: access.Dev, Logger: c.Logger}); err != nil {
		return nil, err
	}
	if l.at.http, err = listenNear(c.HTTPAddr, c.Note); err != nil {
		return nil, err
	}
	if l.at.grpc, err = listenNear(c.GRPCAddr, c.Note); err != nil {
		return nil, err
	}
	token, err := l.adminToken(ctx, filepath.Join(dir, "admin.token"), c.Tenant)
	if err != nil {
		return nil, err
	}
	l.info = info{URL: "http://" + l.at.http.Addr().String(), GRPC: l.at.grpc.Addr().String(), Token: token, Tenant: string(c.Tenant), PID: os.Getpid(), Data: dir}
	return l, writeInfo(filepath.Join(dir, "info.json"), l.info)
}

// close stops what openLocal started. It is safe on a half-open local.
func (l *local) close() error {
	var errs []error
	for _, n := range []net.Listener{l.at.http, l.at.grpc} {
		if n != nil {
			if err := n.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if l.hub != nil {
		l.hub.close()
	}
	if l.stack != nil {
		errs = append(errs, l.stack.Close())
	}
	return errors.Join(errs...)
}

// adminToken returns the token of the last start while it is good, else a new one. The local administrator has every
// role: one person plays with all of it, and four eyes is still kept by the registry.
func (l *local) adminToken(ctx context.Context, file string, tenant waybill.Tenant) (string, error) {
	if b, err := os.ReadFile(file); err == nil {
		token := strings.TrimSpace(string(b))
		if a, _, err := l.hub.access.Authenticate(ctx, token); err == nil && a.Tenant == tenant {
			return token, nil
		}
	}
	token, err := l.hub.access.Bootstrap(ctx, tenant, admin)
	if err != nil {
		return "", err
	}
	by := waybill.Actor{ID: admin, Tenant: tenant, Kind: waybill.Person}
	for _, role := range []string{"data-scientist", "approver", "serving", "operator", "auditor", "compliance"} {
		if _, err := l.hub.access.BindRole(ctx, by, admin, role); err != nil {
			return "", err
		}
	}
	return token, writeSecret(file, token+"\n")
}

// migrate brings a database to this binary's schema.
func migrate(ctx context.Context, dsn string, note func(string, ...any)) error {
	pool, err := pg.Open(ctx, pg.Config{DSN: dsn})
	if err != nil {
		return err
	}
	defer pool.Close()
	applied, err := pg.Migrate(ctx, pool)
	if err != nil {
		return err
	}
	for _, name := range applied {
		note("migrated %s", name)
	}
	return jobs.Migrate(ctx, pool)
}

// signerKey reads the log's key or makes one.
func signerKey(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	signer, _, err := audit.GenerateKey(localOrigin)
	if err != nil {
		return "", err
	}
	return signer, writeSecret(file, signer+"\n")
}

// tokenKey reads the key of personal features' tokens or makes one.
func tokenKey(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	key := rand.Text() + rand.Text()
	return key, writeSecret(file, key+"\n")
}

// writeSecret writes a file that only its owner may read, whole or not at all.
func writeSecret(file, text string) error {
	tmp := file + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

func writeInfo(file string, i info) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return writeSecret(file, string(b)+"\n")
}

// nearPorts is how many ports after the wanted one are tried.
const nearPorts = 20

// listenNear listens on addr or, when that port is taken, on the next free one, and says so.
func listenNear(addr string, note func(string, ...any)) (net.Listener, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usageError{err}
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, usageError{err}
	}
	for p := port; ; p++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(p)))
		if err == nil {
			if p != port {
				note("port %d is taken; using %d", port, p)
			}
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || p >= port+nearPorts || p >= 65535 {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
}

// bootstrap makes a tenant and its administrator in a database, and returns a token.
func bootstrap(ctx context.Context, dsn, tenant, who string) (string, error) {
	pool, err := pg.Open(ctx, pg.Config{DSN: dsn})
	if err != nil {
		return "", err
	}
	defer pool.Close()
	a, err := access.Open(ctx, pool, access.Config{Env: access.Live})
	if err != nil {
		return "", err
	}
	return a.Bootstrap(ctx, waybill.Tenant(tenant), who)
}

// quietly runs f while file descriptor 1 leads nowhere: the S3 gateway prints to standard output when it starts, and that
// belongs to our own answers. Nothing else runs yet.
func quietly(f func() error) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	kept, err := syscall.Dup(1)
	if err != nil {
		return errors.Join(err, null.Close())
	}
	err = syscall.Dup3(int(null.Fd()), 1, 0)
	if err == nil {
		err = errors.Join(f(), syscall.Dup3(kept, 1, 0))
	}
	return errors.Join(err, syscall.Close(kept), null.Close())
}
