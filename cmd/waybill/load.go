package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	decisionv1 "waybill/proto/waybill/decision/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// loadResult is what the load generator prints.
type loadResult struct {
	Calls   int64   `json:"calls"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

// newLoad is the load generator: a process of its own, so that it does not share the hub's scheduler and heap.
func newLoad(env environment) *cobra.Command {
	var target, method, file string
	var callers int
	var span time.Duration
	cmd := &cobra.Command{Use: "load", Hidden: true, Args: exact(), Short: "Send one request again and again",
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			token := env.Getenv("WAYBILL_TOKEN")
			var r loadResult
			if strings.HasPrefix(target, "http://") {
				r, err = loadHTTP(cmd.Context(), target, token, data, callers, span)
			} else {
				r, err = load(cmd.Context(), target, token, method, data, callers, span)
			}
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
		}}
	cmd.Flags().StringVar(&target, "target", "", "gRPC address, or a URL to post to")
	cmd.Flags().StringVar(&method, "method", "", "full method name")
	cmd.Flags().StringVar(&file, "request", "", "file with the request's bytes")
	cmd.Flags().IntVar(&callers, "callers", 1, "calls at once")
	cmd.Flags().DurationVar(&span, "span", time.Second, "how long")
	return cmd
}

// messages makes request and response of a method.
func messages(method string) (req, res func() proto.Message, err error) {
	switch method {
	case decisionv1.DecisionService_Decide_FullMethodName:
		return func() proto.Message { return &decisionv1.DecideRequest{} }, func() proto.Message { return &decisionv1.DecideResponse{} }, nil
	case featurestorev1.FeatureStoreService_ReadOnline_FullMethodName, echoMethod:
		return func() proto.Message { return &featurestorev1.ReadOnlineRequest{} }, func() proto.Message { return &featurestorev1.ReadOnlineResponse{} }, nil
	}
	return nil, nil, fmt.Errorf("load %s: not a method it knows", method)
}

// load calls a method from many callers for a while.
func load(ctx context.Context, target, token, method string, data []byte, callers int, span time.Duration) (loadResult, error) {
	newReq, newRes, err := messages(method)
	if err != nil {
		return loadResult{}, err
	}
	req := newReq()
	if err := proto.Unmarshal(data, req); err != nil {
		return loadResult{}, err
	}
	conns := make([]*grpc.ClientConn, 4)
	for i := range conns {
		if conns[i], err = grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer{token, false})); err != nil {
			return loadResult{}, err
		}
	}
	// A first call on every connection: connecting is not measured.
	for _, c := range conns {
		if err := c.Invoke(ctx, method, req, newRes()); err != nil {
			return loadResult{}, err
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	start := time.Now()
	for i := range callers {
		wg.Go(func() {
			res := newRes()
			var took []time.Duration
			for time.Since(start) < span {
				t := time.Now()
				if err := conns[i%len(conns)].Invoke(ctx, method, req, res); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				took = append(took, time.Since(t))
			}
			mu.Lock()
			all = append(all, took...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(start)
	for _, c := range conns {
		failed = errors.Join(failed, c.Close())
	}
	return summed(all, took, errors.Join(failed, ctx.Err()))
}

// summed is what all calls of a load come to.
func summed(all []time.Duration, took time.Duration, failed error) (loadResult, error) {
	if failed != nil || len(all) == 0 {
		return loadResult{}, failed
	}
	slices.Sort(all)
	ms := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return loadResult{Calls: int64(len(all)), Seconds: took.Seconds(), P50: ms(.5), P99: ms(.99)}, nil
}

// runLoad starts the load generator as its own process and waits for it.
func runLoad(ctx context.Context, target, token, method, file string, callers int, span time.Duration) (r loadResult, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "bench", "load", "--target", target, "--method", method, "--request", file,
		"--callers", strconv.Itoa(callers), "--span", span.String())
	cmd.Env = append(os.Environ(), "WAYBILL_TOKEN="+token)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("start load generator: %w", err)
	}
	decodeErr := json.NewDecoder(bufio.NewReader(out)).Decode(&r)
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("run load generator: %w", err)
	}
	return r, decodeErr
}
