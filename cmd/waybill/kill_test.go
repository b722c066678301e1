package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"waybill"
	"waybill/audit"
	auditv1 "waybill/proto/waybill/audit/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

// asProgram makes this test binary behave as the program: a test that kills needs a process of its own.
const asProgram = "WAYBILL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program is the command line as a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = packageDir
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// devHub is a hub as a process that can be killed and started again on the same data: "waybill dev", or what args say.
type devHub struct {
	t          *testing.T
	dir        string
	http, grpc string
	args, env  []string
	cmd        *exec.Cmd
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	return l.Addr().String()
}

func newDevHub(t *testing.T) *devHub {
	t.Helper()
	dir, err := os.MkdirTemp("", "waybill-dev-") //nolint:usetesting // below t.TempDir the account that runs Postgres may not pass
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the account that runs Postgres passes through
		t.Fatal(err)
	}
	h := &devHub{t: t, dir: dir, http: freeAddr(t), grpc: freeAddr(t)}
	h.args = []string{"dev", "--data", h.dir, "--http-addr", h.http, "--grpc-addr", h.grpc}
	h.cleanUp()
	h.start()
	return h
}

// cleanUp ends the hub with the test and shows what it said when that failed.
func (h *devHub) cleanUp() {
	t := h.t
	t.Cleanup(func() {
		if h.cmd == nil {
			return
		}
		if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := h.cmd.Wait(); err != nil {
			t.Errorf("the hub did not end in order: %v", err)
		}
		if t.Failed() {
			said, err := os.ReadFile(h.said())
			t.Logf("the hub said: %v\n%s", err, said[max(0, len(said)-4000):])
		}
		if err := os.RemoveAll(h.dir); err != nil {
			t.Error(err)
		}
	})
}

func (h *devHub) start() {
	h.t.Helper()
	h.cmd = program(h.t, h.args...)
	h.cmd.Env = append(h.cmd.Env, h.env...)
	said, err := os.OpenFile(h.said(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	h.cmd.Stderr = said
	if err := errors.Join(h.cmd.Start(), said.Close()); err != nil {
		h.t.Fatal(err)
	}
	h.await()
}

// said is where the hub's standard error goes.
func (h *devHub) said() string { return filepath.Join(h.dir, "stderr") }

// await waits until the hub says that it is ready: it is up and reaches Postgres.
func (h *devHub) await() {
	h.t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + h.http + "/readyz")
		if err == nil {
			err = res.Body.Close()
			if err == nil && res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Since(start) > time.Minute {
			h.t.Fatalf("the hub is not ready after a minute: %v", err)
		}
	}
}

// killHub ends the hub with no chance to do anything, and starts it again.
func (h *devHub) killHub() {
	h.t.Helper()
	h.end()
	h.start()
}

// end ends the hub with no chance to do anything.
func (h *devHub) end() {
	h.t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	if err := h.cmd.Wait(); err == nil {
		h.t.Fatal("the hub ended by itself")
	}
}

// killPostgres ends the postmaster with no chance to do anything. The hub starts it again.
func (h *devHub) killPostgres() {
	h.t.Helper()
	pid, err := h.postmaster()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if now, err := h.postmaster(); err == nil && now != pid {
			h.await()
			return
		}
		if time.Since(start) > time.Minute {
			h.t.Fatal("Postgres was not started again within a minute")
		}
	}
}

// postmaster finds the Postgres of the hub: the child of its process. Its own processes are children of that one.
func (h *devHub) postmaster() (int, error) {
	hub := h.cmd.Process.Pid
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", hub))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue // that thread has ended
		}
		for _, child := range strings.Fields(string(children)) {
			name, err := os.ReadFile("/proc/" + child + "/comm")
			if err == nil && strings.TrimSpace(string(name)) == "postgres" {
				return strconv.Atoi(child)
			}
		}
	}
	return 0, fmt.Errorf("process %d has no Postgres", hub)
}

func (h *devHub) info() (i info) {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "info.json"))
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return i
}

// routeEndpoint makes a small endpoint with an approved model and the rules behind it.
func (h *devHub) routeEndpoint() {
	t := h.t
	t.Helper()
	i := h.info()
	s := &story{ctx: t.Context(), l: &local{info: i}, out: io.Discard, env: environment{Err: io.Discard}}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(packageDir, "..", "..", "internal", "api", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := s.people(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ann.features.ApplyDefinitions(t.Context(), &featurestorev1.ApplyDefinitionsRequest{Yaml: string(read("features.yaml")), Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*registryv1.CreateModelVersionRequest{
		{Model: "route-rules", Format: "rules", Entrypoint: "model", Automation: "solely_automated"},
		{Model: "late-risk", Format: "lightgbm", Entrypoint: "model", Automation: "solely_automated"},
	} {
		v, err := s.register(m, read(m.GetModel()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.bob.models.ApproveModelVersion(t.Context(), &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "looked at"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.endpoint(string(read("endpoint.yaml")), "test"); err != nil {
		t.Fatal(err)
	}
}

// ack is what a caller was told.
type ack struct {
	id    string
	index int64
}

// order sends one order under a key until it is answered, as a client that must not lose one does: again after
// every error that says try again, and after every cut connection.
func (h *devHub) order(ctx context.Context, client *http.Client, token, key, body string) (a ack, tries int, err error) {
	var last string
	for start := time.Now(); ctx.Err() == nil && time.Since(start) < 90*time.Second; time.Sleep(10 * time.Millisecond) {
		tries++
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+h.http+"/v1/decide/route", strings.NewReader(body))
		if err != nil {
			return a, tries, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Idempotency-Key", key)
		res, err := client.Do(req)
		if err != nil {
			last = err.Error() // the hub is dead
			continue
		}
		raw, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			last = err.Error() // it died while it answered: nothing was acknowledged
			continue
		}
		if res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusGatewayTimeout {
			last = string(raw)
			continue
		}
		if res.StatusCode != http.StatusOK {
			return a, tries, fmt.Errorf("order %s: %s: %s", key, res.Status, raw)
		}
		var answer struct {
			DecisionID string `json:"decision_id"`
			Receipt    struct {
				Index float64 `json:"index"`
			} `json:"receipt"`
		}
		if err := json.Unmarshal(raw, &answer); err != nil || answer.DecisionID == "" {
			return a, tries, fmt.Errorf("order %s: %w in %s", key, err, raw)
		}
		return ack{answer.DecisionID, int64(answer.Receipt.Index)}, tries, nil
	}
	return a, tries, fmt.Errorf("order %s had no answer within 90 s; the last try: %s", key, last)
}

// TestKill sends 5,000 orders while hub and Postgres are killed 20 times in turn. Afterwards every decision that was
// acknowledged stands in the log at the place its receipt gave, once, with a proof that verifies offline; and the log
// as a whole verifies.
func TestKill(t *testing.T) {
	t.Parallel()
	const orders, kills, workers = 5000, 40, 16 // 20 of the hub and 20 of Postgres, in turn
	h := newDevHub(t)
	h.routeEndpoint()
	i := h.info()
	deadline := time.Now().Add(72 * time.Hour).UTC().Format(time.RFC3339)
	var answered, retries atomic.Int64
	acks := make([]ack, orders)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := w; n < orders; n += workers {
				key := "K-" + strconv.Itoa(n)
				body := fmt.Sprintf(`{"order_id":"ORD-%d","items":[{"sku":"SKU-%d","qty":%d}],"customer_lat":%.3f,"customer_lng":-74.0,"deadline":%q}`,
					n, n%50, 1+n%4, 30+float64(n%1500)/100, deadline)
				a, tries, err := h.order(ctx, client, i.Token, key, body)
				if err != nil {
					t.Error(err)
					cancel() // the others need not wait for their bound
					return
				}
				acks[n] = a
				retries.Add(int64(tries - 1))
				answered.Add(1)
			}
		})
	}
	killed := 0
	for ; killed < kills && ctx.Err() == nil; killed++ {
		for answered.Load() < int64((killed+1)*orders/(kills+1)) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if answered.Load() >= orders-workers {
			t.Errorf("kill %d came after the last order", killed+1)
		}
		if killed%2 == 0 {
			h.killHub()
		} else {
			h.killPostgres()
		}
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	took := time.Since(began)

	c, err := dial(i.URL, i.GRPC, i.Token)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
	at, err := c.audit.GetLog(t.Context(), &auditv1.GetLogRequest{})
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if _, err := audit.Export(t.Context(), hubSource(c, at.GetLogId()), at.GetVerifierKey(), copied, nil); err != nil {
		t.Fatal(err)
	}
	whole, err := audit.Verify(t.Context(), audit.DirSource(copied), at.GetVerifierKey(), nil)
	if err != nil || !whole.OK {
		t.Fatalf("the log does not verify: %+v, %v", whole, err)
	}
	times := decisionsIn(t, copied)
	if len(times) != orders {
		t.Errorf("the log holds %d decisions; %d orders were sent", len(times), orders)
	}
	for _, a := range acks {
		if times[a.id] != 1 {
			t.Fatalf("decision %s stands %d times in the log", a.id, times[a.id])
		}
		p, err := c.audit.GetDecisionProof(t.Context(), &auditv1.GetDecisionProofRequest{DecisionId: a.id})
		if err != nil {
			t.Fatal(err)
		}
		if p.GetIndex() != a.index {
			t.Fatalf("decision %s is entry %d; its receipt said %d", a.id, p.GetIndex(), a.index)
		}
		id, err := waybill.ParseID("id", a.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkProof(at.GetVerifierKey(), waybill.Tenant(i.Tenant), id, p); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d decisions acknowledged and proven in %.0f s through %d kills (hub and Postgres in turn, %d of each), after %d retries; %d entries verify",
		len(acks), took.Seconds(), killed, killed/2, retries.Load(), whole.Entries)
}

// decisionsIn counts the decisions in an exported log by id, reading the entry bundles as the C2SP format says:
// each entry behind its length in two bytes, high byte first.
func decisionsIn(t *testing.T, dir string) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := filepath.WalkDir(filepath.Join(dir, "tile", "entries"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for len(b) >= 2 {
			n := int(binary.BigEndian.Uint16(b))
			var leaf struct {
				T  string `json:"t"`
				ID string `json:"id"`
			}
			if err := json.Unmarshal(b[2:2+n], &leaf); err != nil {
				return fmt.Errorf("%s: %w in %s", path, err, b[2:2+n])
			}
			if leaf.T == "decision" {
				out[leaf.ID]++
			}
			b = b[2+n:]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A second hub on the same data is refused with the process id of the first, and a port that is taken becomes the next
// free one.
func TestDev_SecondOnes(t *testing.T) {
	t.Parallel()
	h := newDevHub(t)
	second := program(t, "dev", "--data", h.dir)
	var said bytes.Buffer
	second.Stderr = &said
	err := second.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailure || !strings.Contains(said.String(), "process "+strconv.Itoa(h.cmd.Process.Pid)) {
		t.Fatalf("%v: %s", err, said.String())
	}
	l, err := listenNear(h.http, func(format string, args ...any) { fmt.Fprintf(&said, format, args...) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	if l.Addr().String() == h.http || !strings.Contains(said.String(), "is taken; using") {
		t.Fatalf("listens on %s: %s", l.Addr(), said.String())
	}
}
