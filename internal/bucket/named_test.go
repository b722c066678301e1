package bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"waybill/internal/bucket"
	"waybill/internal/pgtest"
)

// Bytes whose digest is known are stored under any size, and others are refused without a trace.
func TestBucket_PutNamed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := pgtest.TestBucket(t)
	for _, size := range []int{0, 1, 8 << 20, 20<<20 + 1} {
		data := bytes.Repeat([]byte{7, 3}, size/2+1)[:size]
		sum := sha256.Sum256(data)
		if err := b.PutNamed(ctx, "named", bytes.NewReader(data), int64(size), sum); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if back, err := b.GetVerified(ctx, "named", sum, int64(size)); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("%d bytes come back as %d: %v", size, len(back), err)
		}
	}
	good := sha256.Sum256([]byte("what was promised"))
	if err := b.PutNamed(ctx, "promised", bytes.NewReader([]byte("what was promised")), 17, good); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"what is delivered", "less", ""} {
		if err := b.PutNamed(ctx, "promised", bytes.NewReader([]byte(other)), int64(len(other)), good); err == nil {
			t.Errorf("%q is taken for what was promised", other)
		}
	}
	if err := b.PutNamed(ctx, "promised", bytes.NewReader([]byte("less")), 17, good); err == nil {
		t.Error("4 bytes are taken for 17")
	}
	if _, err := b.GetVerified(ctx, "promised", good, 17); err != nil {
		t.Errorf("what was there is lost: %v", err)
	}
}

// A store that fails in the middle of the bytes is asked again, and gets all of them then.
func TestBucket_PutNamedAgain(t *testing.T) {
	t.Parallel()
	c := pgtest.BucketConfig(t)
	c.Create = true
	if _, err := bucket.Open(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	store := &url.URL{Scheme: "http", Host: c.Endpoint}
	behind := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(store)
		r.Out.Host = r.In.Host // which is signed
	}}
	puts := 0
	var sums []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			sums = append(sums, r.Header.Get("X-Amz-Checksum-Crc32c"))
			if puts++; puts == 1 {
				_, _ = io.CopyN(io.Discard, r.Body, 5<<20)
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	c.Endpoint = srv.Listener.Addr().String()
	b, err := bucket.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 9<<16)
	sum := sha256.Sum256(data)
	if err := b.PutNamed(context.Background(), "again", bytes.NewReader(data), int64(len(data)), sum); err != nil {
		t.Fatal(err)
	}
	if puts != 2 || sums[0] == "" || sums[0] != sums[1] {
		t.Errorf("%d requests with the checksums %q", puts, sums)
	}
	if _, err := b.GetVerified(context.Background(), "again", sum, int64(len(data))); err != nil {
		t.Error(err)
	}
}
