package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"waybill/internal/api/feast"
)

// benchFeast reads 1 entity × 50 features through the door for stock Feast clients, in the form in which they ask.
func benchFeast(ctx context.Context, b *bencher) (_ []result, err error) {
	h, err := b.hub(ctx, "online-http")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	names := make([]string, benchFeatures)
	for i := range names {
		names[i] = "load:f" + strconv.Itoa(i)
	}
	body, err := json.Marshal(map[string]any{"entities": map[string][]int{"thing": {4711}}, "features": names, "full_feature_names": false,
		"include_feature_view_version_metadata": false})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, "online-http")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return nil, err
	}
	url := "http://" + h.http + feast.Prefix + "/get-online-features"
	answer, err := post(ctx, http.DefaultClient, url, h.token, body)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(answer), `"statuses":["PRESENT"]`); n != benchFeatures+1 {
		return nil, fmt.Errorf("the hub answered %d of %d columns: %.300s", n, benchFeatures+1, answer)
	}
	echo, stop, err := startHTTPEcho(answer)
	if err != nil {
		return nil, err
	}
	const callers = 32
	var p50, p99, limit99 []float64
	ours, limit, err := b.turns(func() (float64, error) {
		r, err := runLoad(ctx, url, h.token, "", file, callers, b.span)
		p50, p99 = append(p50, r.P50), append(p99, r.P99)
		return float64(r.Calls) / r.Seconds, err
	}, func() (float64, error) {
		r, err := runLoad(ctx, echo, h.token, "", file, callers, b.span)
		limit99 = append(limit99, r.P99)
		return float64(r.Calls) / r.Seconds, err
	})
	if err := errors.Join(err, stop()); err != nil {
		return nil, err
	}
	return []result{{Case: fmt.Sprintf("1x%d", benchFeatures), Unit: "req/s", Ours: ours, Limit: limit, LimitIs: "net/http echo, same bytes, same client, another process",
		Ratio: ours / limit, Bar: 0.6, P50: median(p50), P99: median(p99), LimitP99: median(limit99), noAllocs: true, otherHolds: true}}, nil
}

// startHTTPEcho reads every request and answers it with the same bytes.
func startHTTPEcho(answer []byte) (url string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	length := strconv.Itoa(len(answer))
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client is gone
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", length)
		if _, err := w.Write(answer); err != nil {
			return
		}
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return "http://" + l.Addr().String() + "/", func() error {
		err := s.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

// post sends a body and returns the answer's; a status other than 200 is an error.
func post(ctx context.Context, client *http.Client, url, token string, body []byte) (answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if answer, err = io.ReadAll(res.Body); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("post %s: %s: %.300s", url, res.Status, answer)
	}
	return answer, err
}

// loadHTTP posts one body from many callers for a while, each on a connection of its own.
func loadHTTP(ctx context.Context, url, token string, body []byte, callers int, span time.Duration) (loadResult, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true}}
	defer client.CloseIdleConnections()
	if _, err := post(ctx, client, url, token, body); err != nil {
		return loadResult{}, err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	start := time.Now()
	for range callers {
		wg.Go(func() {
			var took []time.Duration
			var err error
			for time.Since(start) < span && err == nil {
				t := time.Now()
				_, err = post(ctx, client, url, token, body)
				took = append(took, time.Since(t))
			}
			mu.Lock()
			all, failed = append(all, took...), errors.Join(failed, err)
			mu.Unlock()
		})
	}
	wg.Wait()
	return summed(all, time.Since(start), errors.Join(failed, ctx.Err()))
}
