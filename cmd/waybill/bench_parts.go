package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/access"
	"waybill/score"
)

// benchLogAppend appends decisions from 256 callers.
func benchLogAppend(ctx context.Context, b *bencher) (_ []result, err error) {
	pool, _, err := b.database(ctx, "log-append")
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	signer, _, err := audit.GenerateKey("bench.local/log/1")
	if err != nil {
		return nil, err
	}
	log, err := audit.Open(ctx, pool, audit.Config{LogID: 1, Origin: "bench.local/log/1", SignerKey: signer})
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- log.Run(run) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-done)
	}()
	payload := []byte(strings.Repeat(`{"request":{"order_id":"ORD-1"}}`, 32)) // 1 KiB
	digest := sha256.Sum256(payload)
	one := func() audit.Decision {
		now := waybill.SystemClock()
		p := 0.25
		return audit.Decision{BusinessKey: "ORD-1", Endpoint: "choose", Revision: 1, Model: "trees", ModelVersion: 1, DecidedAt: now, Payload: payload,
			Leaf: audit.DecisionLeaf{V: 1, T: "decision", Tenant: benchTenant, ID: waybill.NewID(now), DecidedAt: audit.FormatTime(now), Actor: "shop", Endpoint: "choose@v1",
				Model: audit.LeafModel{Ref: "trees@v1", Digest: "sha256:" + hex.EncodeToString(digest[:]), Approval: waybill.NewID(now).String()}, PolicyRev: 7, Service: "vector@v1",
				Features: map[string]int64{"load@v1": 5}, Payload: "sha256:" + hex.EncodeToString(digest[:]), Action: "ship", Score: &p, Propensity: 1, Gates: []string{}}}
	}
	leaf, err := json.Marshal(one().Leaf)
	if err != nil {
		return nil, err
	}
	ours, limit, err := b.turns(func() (float64, error) {
		var wg sync.WaitGroup
		counts, errs := make([]int64, benchCallers), make([]error, benchCallers)
		start := time.Now()
		for i := range benchCallers {
			wg.Go(func() {
				for time.Since(start) < b.span && errs[i] == nil {
					_, errs[i] = log.Append(ctx, one())
					counts[i]++
				}
			})
		}
		wg.Wait()
		var n int64
		for _, c := range counts {
			n += c
		}
		return float64(n) / time.Since(start).Seconds(), errors.Join(errs...)
	}, func() (float64, error) { return b.copyBatches(ctx, "log-append", append(leaf, payload...)) })
	if err != nil {
		return nil, err
	}
	return []result{{Case: fmt.Sprintf("%d callers, 1 KiB payload", benchCallers), Unit: "decisions/s", Ours: ours, Limit: limit, LimitIs: "COPY of the same bytes, 256 rows per commit",
		Ratio: ours / limit, Bar: 0.6, noAllocs: true, otherHolds: true}}, nil
}

// authzRules is how many rules the policy of the benchmark has.
const authzRules = 100_000

// authzBar is the most that one check may take, in nanoseconds.
const authzBar = 300.0

// benchAuthz checks one permission under many rules.
func benchAuthz(ctx context.Context, b *bencher) ([]result, error) {
	pool, _, err := b.database(ctx, "authz")
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	a, err := access.Open(ctx, pool, access.Config{})
	if err != nil {
		return nil, err
	}
	if _, err := a.Bootstrap(ctx, benchTenant, benchAuthor.ID); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	_, err = pool.CopyFrom(ctx, pgx.Identifier{"access", "rule"}, []string{"tenant", "subject", "object", "action", "effect", "created_by", "created_at"},
		pgx.CopyFromSlice(authzRules, func(i int) ([]any, error) {
			object := "endpoint/e" + strconv.Itoa(i)
			if i%10 == 0 {
				object = "endpoint/p" + strconv.Itoa(i) + "-*"
			}
			return []any{string(benchTenant), "role:team" + strconv.Itoa(i%1000), object, access.Decide, "allow", "bench", now}, nil
		}))
	if err != nil {
		return nil, err
	}
	for _, role := range []string{"team7", "team8", "team9"} {
		if _, err := a.BindRole(ctx, benchAuthor, benchAuthor.ID, role); err != nil {
			return nil, err
		}
	}
	if !a.Allowed(benchAuthor, "endpoint/e1007", access.Decide) || a.Allowed(benchAuthor, "endpoint/e1001", access.Decide) {
		return nil, errors.New("the policy of the benchmark does not hold")
	}
	m := make(map[string]bool, authzRules)
	for i := range authzRules {
		m["bench\x00"+benchAuthor.ID+"\x00endpoint/e"+strconv.Itoa(i)+"\x00decide"] = true
	}
	key := "bench\x00" + benchAuthor.ID + "\x00endpoint/e1007\x00decide"
	perSecond := func(f func() bool) (float64, error) {
		n, start := 0, time.Now()
		for {
			for range 1000 {
				if !f() {
					return 0, errors.New("a check that must hold did not")
				}
			}
			n += 1000
			if took := time.Since(start); took >= b.span/3 {
				return float64(n) / took.Seconds(), nil
			}
		}
	}
	ours, limit, err := b.turns(func() (float64, error) {
		return perSecond(func() bool { return a.Allowed(benchAuthor, "endpoint/e1007", access.Decide) })
	}, func() (float64, error) { return perSecond(func() bool { return m[key] }) })
	if err != nil {
		return nil, err
	}
	allocs := testing.AllocsPerRun(1000, func() { a.Allowed(benchAuthor, "endpoint/e1007", access.Decide) })
	return []result{{Case: "100,000 rules", Unit: "checks/s", Ours: ours, Limit: limit, LimitIs: "look-up in one map of the same size", Ratio: ours * authzBar / 1e9, Bar: 1,
		P50: 1e3 / ours, AllocsPer: allocs, otherHolds: allocs == 0}}, nil
}

// benchScore scores single rows. The limit is the original library, asked through its C interface by a small Python
// program; without a Python that has LightGBM (WAYBILL_BENCH_PYTHON, or .build/venv) the row says so.
func benchScore(ctx context.Context, b *bencher) ([]result, error) {
	text := randomModel(500, 64, benchFeatures, 11)
	m, err := score.Load("lightgbm", text)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([][]float64, 1000)
	for i := range rows {
		rows[i] = make([]float64, benchFeatures)
		for j := range rows[i] {
			rows[i][j] = rng.Float64()
		}
	}
	var scratch score.Scratch
	phi := make([]float64, benchFeatures)
	rate := func(f func(x []float64) error) (float64, error) {
		n, start := 0, time.Now()
		for {
			for i := range 20 {
				if err := f(rows[(n+i)%len(rows)]); err != nil {
					return 0, err
				}
			}
			n += 20
			if took := time.Since(start); took >= b.span/2 {
				return float64(n) / took.Seconds(), nil
			}
		}
	}
	predict := func(x []float64) error {
		_, err := m.Score(x, &scratch)
		return err
	}
	contribute := func(x []float64) error {
		_, err := m.Contributions(x, phi, &scratch)
		return err
	}
	python := b.python
	var peers map[string]float64
	file := filepath.Join(b.dir, "model.txt")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	var out []result
	for _, c := range []struct {
		name string
		f    func([]float64) error
	}{{"predict", predict}, {"contributions", contribute}} {
		r := result{Case: "500 trees × 64 leaves × 50 features, " + c.name, Unit: "rows/s", Bar: 1, otherHolds: true}
		if python == "" {
			r.LimitIs = "not measured: no Python with lightgbm found"
			var xs []float64
			for range b.runs {
				x, err := rate(c.f)
				if err != nil {
					return nil, err
				}
				xs = append(xs, x)
			}
			r.Ours = median(xs)
		} else {
			r.LimitIs = "LightGBM's C interface, single row, one thread"
			r.Ours, r.Limit, err = b.turns(func() (float64, error) { return rate(c.f) }, func() (float64, error) {
				peers, err = lightGBMRate(ctx, python, file, b.span/2)
				return peers[c.name], err
			})
			if err != nil {
				return nil, err
			}
			r.Ratio = r.Ours / r.Limit
		}
		r.P50 = 1e3 / r.Ours
		r.AllocsPer = testing.AllocsPerRun(20, func() {
			if err := c.f(rows[0]); err != nil {
				r.AllocsPer = math.NaN()
			}
		})
		out = append(out, r)
	}
	return out, nil
}

// lightGBMPython finds a Python that has LightGBM; "" when there is none.
func lightGBMPython(env environment) string {
	for _, p := range []string{env.Getenv("WAYBILL_BENCH_PYTHON"), ".build/venv/bin/python", "python3"} {
		path, err := exec.LookPath(p)
		if err != nil {
			continue
		}
		if path, err = filepath.Abs(path); err == nil && exec.Command(path, "-c", "import lightgbm").Run() == nil {
			return path
		}
	}
	return ""
}

// lightGBMScript measures LightGBM's single-row prediction through its C interface, with as little Python around it as
// there can be.
const lightGBMScript = `
import ctypes, json, sys, time
import numpy as np, lightgbm as lgb
from lightgbm.basic import _LIB
model, span = sys.argv[1], float(sys.argv[2])
b = lgb.Booster(model_file=model)
rng = np.random.default_rng(1)
rows = rng.random((1000, b.num_feature()))
h = b._handle
out = {}
for name, kind, width in (("predict", 0, 1), ("contributions", 3, b.num_feature() + 1)):
    fast = ctypes.c_void_p()
    assert _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(h, kind, 0, -1, 1, b.num_feature(), ctypes.c_char_p(b"num_threads=1"), ctypes.byref(fast)) == 0
    n, res = ctypes.c_int64(), np.zeros(width)
    call, rp = _LIB.LGBM_BoosterPredictForMatSingleRowFast, res.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    ptrs = [ctypes.c_void_p(r.ctypes.data) for r in rows]
    ref = ctypes.byref(n)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < span:
        for p in ptrs[:20]:
            call(fast, p, ref, rp)
        done += 20
    out[name] = done / (time.perf_counter() - start)
print(json.dumps(out))
`

func lightGBMRate(ctx context.Context, python, model string, span time.Duration) (map[string]float64, error) {
	cmd := exec.CommandContext(ctx, python, "-c", lightGBMScript, model, strconv.FormatFloat(span.Seconds(), 'g', -1, 64))
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("measure LightGBM: %w", err)
	}
	var out map[string]float64
	return out, json.Unmarshal([]byte(strings.TrimSpace(string(raw))), &out)
}

// randomModel writes a LightGBM text model of random trees over features f0, f1 … in [0, 1).
func randomModel(trees, leaves, features int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, seed))
	var b strings.Builder
	names, infos := make([]string, features), make([]string, features)
	for i := range names {
		names[i], infos[i] = "f"+strconv.Itoa(i), "[0:1]"
	}
	fmt.Fprintf(&b, "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=%d\nobjective=binary sigmoid:1\nfeature_names=%s\nfeature_infos=%s\n\n",
		features-1, strings.Join(names, " "), strings.Join(infos, " "))
	for t := range trees {
		writeRandomTree(&b, rng, t, leaves, features, trees)
	}
	b.WriteString("end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n\npandas_categorical:null\n")
	return []byte(b.String())
}

func writeRandomTree(b *strings.Builder, rng *rand.Rand, number, leaves, features, trees int) {
	inner := leaves - 1
	split, threshold := make([]string, inner), make([]string, inner)
	left, right := make([]int, inner), make([]int, inner)
	count := make([]int, inner)
	leafCount := make([]int, leaves)
	// Every leaf is split in turn until there are enough: node i splits a random leaf, whose place it takes.
	at := []struct {
		node int
		left bool
	}{{-1, false}} // where leaf i hangs
	leafCount[0] = 1 << 20
	for i := range inner {
		l := 0
		if i > 0 {
			l = rng.IntN(i + 1)
		}
		if p := at[l]; p.node >= 0 && p.left {
			left[p.node] = i
		} else if p.node >= 0 {
			right[p.node] = i
		}
		split[i], threshold[i] = strconv.Itoa(rng.IntN(features)), strconv.FormatFloat(0.1+0.8*rng.Float64(), 'g', 17, 64)
		count[i] = leafCount[l]
		at[l] = struct {
			node int
			left bool
		}{i, true}
		at = append(at, struct {
			node int
			left bool
		}{i, false})
		left[i], right[i] = ^l, ^(i + 1)
		leafCount[i+1] = leafCount[l] / 2
		leafCount[l] -= leafCount[i+1]
	}
	values := make([]string, leaves)
	for i := range values {
		values[i] = strconv.FormatFloat((rng.Float64()-0.5)*2/float64(trees)*10, 'g', 17, 64)
	}
	types, zeros := make([]string, inner), make([]string, inner)
	for i := range types {
		types[i], zeros[i] = "2", "0"
	}
	weights := make([]string, leaves)
	for i := range weights {
		weights[i] = strconv.Itoa(leafCount[i])
	}
	fmt.Fprintf(b, "Tree=%d\nnum_leaves=%d\nnum_cat=0\nsplit_feature=%s\nsplit_gain=%s\nthreshold=%s\ndecision_type=%s\nleft_child=%s\nright_child=%s\nleaf_value=%s\nleaf_weight=%s\nleaf_count=%s\ninternal_value=%s\ninternal_weight=%s\ninternal_count=%s\nis_linear=0\nshrinkage=1\n\n\n",
		number, leaves, strings.Join(split, " "), strings.Join(zeros, " "), strings.Join(threshold, " "), strings.Join(types, " "), joinInts(left), joinInts(right),
		strings.Join(values, " "), strings.Join(weights, " "), joinInts(leafCount), strings.Join(zeros, " "), joinInts(count), joinInts(count))
}

func joinInts(xs []int) string {
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = strconv.Itoa(x)
	}
	return strings.Join(out, " ")
}
