package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"waybill/internal/devstack"
	"waybill/internal/pg"
)

// result is one row of a benchmark: ours against the limit, measured in turns in one run. A field that does not apply
// is left out.
type result struct {
	Bench      string  `json:"bench"`
	Case       string  `json:"case"`
	Unit       string  `json:"unit"`
	Ours       float64 `json:"ours"`
	Limit      float64 `json:"limit,omitempty"`
	LimitIs    string  `json:"limit_is,omitempty"`
	Peer       float64 `json:"peer,omitempty"`
	PeerIs     string  `json:"peer_is,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"` // of ours to what the bar names; larger is better
	Bar        float64 `json:"bar,omitempty"`
	Holds      bool    `json:"holds"`
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	LimitP99   float64 `json:"limit_p99_ms,omitempty"`
	AllocsPer  float64 `json:"allocs_per_op"`
	RSSMiB     float64 `json:"rss_mib,omitempty"`
	PeerRSSMiB float64 `json:"peer_rss_mib,omitempty"`
	Runs       int     `json:"runs"`
	Machine    string  `json:"machine"`
	noAllocs   bool    // allocations were not measured
	otherHolds bool    // bars beside the ratio
}

// MarshalJSON leaves allocations out where they were not measured.
func (r result) MarshalJSON() ([]byte, error) {
	type plain result
	b, err := json.Marshal(plain(r))
	if err != nil || !r.noAllocs {
		return b, err
	}
	return []byte(strings.Replace(string(b), `"allocs_per_op":0,`, "", 1)), nil
}

// bencher is what a benchmark works with.
type bencher struct {
	stack  *devstack.Stack
	dir    string
	python string // that has LightGBM, or ""
	duckDB string // a Python that has DuckDB, or ""; both are found before the stack changes the working directory
	quick  bool
	runs   int
	span   time.Duration // of one measurement
	note   func(string, ...any)
}

// benches lists every benchmark by name. It is never changed.
var benches = []struct {
	name, short string
	run         func(ctx context.Context, b *bencher) ([]result, error)
}{
	{"online-grpc", "feature vectors over gRPC, against a gRPC echo of the same bytes", benchOnline},
	{"online-http", "feature vectors through the door for Feast clients, against a net/http echo of the same bytes", benchFeast},
	{"online-memory", "bytes a row in memory and the time of a garbage collection, against the raw values", benchOnlineMemory},
	{"cold-start", "opening a view of a million entities, against reading its snapshot", benchColdStart},
	{"ingest", "a Parquet file until its rows are served and committed, against COPY of the same rows", benchIngest},
	{"decide", "decisions with a durable log over gRPC, against COPY and INSERT of the same bytes", benchDecide},
	{"log-append", "decisions into the log alone, against COPY of the same bytes", benchLogAppend},
	{"authz", "access checks under 100,000 rules, against a map look-up", benchAuthz},
	{"asof-join", "spines joined with sorted history from the bucket, against DuckDB's ASOF join of the same files", benchAsof},
	{"score", "500 trees × 64 leaves, against LightGBM's own single-row predict", benchScore},
}

func newBench(env environment) *cobra.Command {
	var asJSON, quick, list bool
	var postgres string
	cmd := &cobra.Command{
		Use:   "bench [NAME…]",
		Short: "Measure this machine's speed against its limits",
		Long: `Runs benchmarks and prints what was measured beside the limit of the machine,
measured in turns in the same run. A benchmark starts what it needs by itself and
leaves nothing behind. The exit code is 0 when it ran, whether or not a bar holds.`,
		Example: "  waybill bench\n  waybill bench decide --json",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) (err error) {
			if list {
				for _, b := range benches {
					fmt.Fprintf(cmd.OutOrStdout(), "%-13s %s\n", b.name, b.short)
				}
				return nil
			}
			for _, n := range names {
				if !slices.ContainsFunc(benches, func(b struct {
					name, short string
					run         func(ctx context.Context, b *bencher) ([]result, error)
				}) bool {
					return b.name == n
				}) {
					return usageError{fmt.Errorf("there is no benchmark %q; see: waybill bench --list", n)}
				}
			}
			dir, err := os.MkdirTemp("", "waybill-bench-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			if err := os.Chmod(dir, 0o755); err != nil { // the account that runs Postgres passes through it
				return err
			}
			b := &bencher{dir: dir, python: lightGBMPython(env), duckDB: duckDBPython(env), quick: quick, runs: 5, span: 3 * time.Second, note: notes(env.Err)}
			if quick {
				b.runs, b.span = 1, 500*time.Millisecond
			}
			var bins []string
			if postgres == "" {
				postgres = env.Getenv("WAYBILL_POSTGRES_BIN")
			}
			if postgres != "" {
				bins = []string{postgres}
			}
			err = quietly(func() (err error) {
				b.stack, err = devstack.Open(cmd.Context(), devstack.Config{Dir: filepath.Join(dir, "stack"), Logger: slog.New(slog.DiscardHandler), PostgresBin: bins})
				return err
			})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.stack.Close()) }()
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 4, 2, ' ', 0)
			if !asJSON {
				fmt.Fprintln(w, "BENCH\tCASE\tOURS\tLIMIT\tUNIT\tRATIO\tBAR\tP50 ms\tP99 ms\tLIMIT IS")
			}
			for _, bench := range benches {
				if len(names) > 0 && !slices.Contains(names, bench.name) {
					continue
				}
				b.note("bench %s: %s", bench.name, bench.short)
				rows, err := bench.run(cmd.Context(), b)
				if err != nil {
					return fmt.Errorf("bench %s: %w", bench.name, err)
				}
				for _, r := range rows {
					r.Bench, r.Runs, r.Machine = bench.name, b.runs, machine()
					r.Holds = r.Bar > 0 && r.Ratio >= r.Bar && r.otherHolds
					if asJSON {
						line, err := json.Marshal(r)
						if err != nil {
							return err
						}
						fmt.Fprintln(cmd.OutOrStdout(), string(line))
						continue
					}
					limit, limitIs := r.Limit, r.LimitIs
					if limitIs == "" {
						limit, limitIs = r.Peer, r.PeerIs
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Bench, r.Case, figure(r.Ours), figure(limit), r.Unit, figure(r.Ratio), figure(r.Bar),
						figure(r.P50), figure(r.P99), limitIs)
				}
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per case and line")
	cmd.Flags().BoolVar(&quick, "quick", false, "a short run")
	cmd.Flags().BoolVar(&list, "list", false, "name all benchmarks")
	cmd.Flags().StringVar(&postgres, "postgres-bin", "", "folder with the Postgres binaries (WAYBILL_POSTGRES_BIN)")
	cmd.AddCommand(newLoad(env), newJob("asof", "Join once and say how long it took", (*asofJob).run),
		newJob("take-in", "Take one file in and say how long it took", (*ingestJob).run))
	return cmd
}

// figure writes a number with three digits that matter.
func figure(x float64) string {
	switch {
	case x == 0:
		return "-"
	case x >= 1000:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// machine names what was measured on.
func machine() string {
	name := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				name = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s, %s", name, runtime.NumCPU(), runtime.GOOS, runtime.Version())
}

// turns measures ours and the limit in turns, so that a noisy neighbour hits both, and returns the medians of runs.
func (b *bencher) turns(ours, limit func() (float64, error)) (o, l float64, err error) {
	var os, ls []float64
	for range b.runs {
		x, err := ours()
		if err != nil {
			return 0, 0, err
		}
		y, err := limit()
		if err != nil {
			return 0, 0, err
		}
		os, ls = append(os, x), append(ls, y)
	}
	return median(os), median(ls), nil
}

func median(xs []float64) float64 {
	sort.Float64s(xs)
	return xs[len(xs)/2]
}

// database makes a migrated database of its own and opens a pool on it.
func (b *bencher) database(ctx context.Context, name string) (*pgxpool.Pool, string, error) {
	name = "bench_" + strings.ReplaceAll(name, "-", "_")
	admin, err := pg.Open(ctx, pg.Config{DSN: b.stack.DatabaseDSN("postgres")})
	if err != nil {
		return nil, "", err
	}
	defer admin.Close()
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, "", fmt.Errorf("create database: %w", err)
	}
	dsn := b.stack.DatabaseDSN(name)
	if err := migrate(ctx, dsn, func(string, ...any) {}); err != nil {
		return nil, "", err
	}
	pool, err := pg.Open(ctx, pg.Config{DSN: dsn})
	if err != nil {
		return nil, "", err
	}
	_, err = pool.Exec(ctx, `CREATE TABLE scratch (id bigint, data bytea)`) // for the limits
	return pool, dsn, err
}

// newJob is a measurement in a process of its own, whose memory is measured: it reads what to do from a file and prints what
// came of it.
func newJob[J, D any](use, short string, run func(*J, context.Context) (D, error)) *cobra.Command {
	var name string
	cmd := &cobra.Command{Use: use, Hidden: true, Args: exact(), Short: short,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			var job J
			if err := json.Unmarshal(data, &job); err != nil {
				return err
			}
			done, err := run(&job, cmd.Context())
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(done)
		}}
	cmd.Flags().StringVar(&name, "job", "", "file that says what to do")
	return cmd
}
