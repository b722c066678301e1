package bucket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/internal/bucket"
	"waybill/internal/pgtest"
)

// uploaderKey is the environment variable that makes the test's process upload to the bucket that it describes, until it is
// killed.
const uploaderKey = "WAYBILL_TEST_UPLOADER"

// holding is a body that stops in the middle: after two parts.
type holding struct {
	io.Reader
	held chan struct{} // closed when it stops
	let  chan struct{} // closed to let it go on
}

func hold(data []byte) *holding {
	h := &holding{held: make(chan struct{}), let: make(chan struct{})}
	h.Reader = io.MultiReader(bytes.NewReader(data[:17<<20]), h.stop(), bytes.NewReader(data[17<<20:]))
	return h
}

// stop is a reader of nothing that waits.
func (h *holding) stop() io.Reader {
	return readerFunc(func([]byte) (int, error) {
		close(h.held)
		<-h.let
		return 0, io.EOF
	})
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// The parts of uploads that a kill ended go when they are old, under the prefixes that are swept alone. An upload that runs
// goes on, and what is whole stays.
func TestBucket_SweepUnfinished(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	if text := os.Getenv(uploaderKey); text != "" {
		var c bucket.Config
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		b, err := bucket.Open(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		own, foreign := hold(data), hold(data)
		go func() {
			<-own.held
			<-foreign.held
			_, _ = os.Stdout.WriteString("held\n")
		}()
		go func() { _, _ = b.Put(ctx, "foreign", foreign, -1) }()
		_, err = b.Put(ctx, "own/killed", own, int64(len(data)))
		t.Fatalf("it was not killed: %v", err)
	}
	c := pgtest.BucketConfig(t)
	b, err := bucket.Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	uploader := exec.Command(os.Args[0], "-test.run=^TestBucket_SweepUnfinished$")
	uploader.Env = append(os.Environ(), uploaderKey+"="+string(text))
	out, err := uploader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := uploader.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 4)
	_, readErr := io.ReadFull(out, word)
	if err := uploader.Process.Kill(); err != nil || readErr != nil || string(word) != "held" {
		t.Fatalf("%q, %v, %v", word, readErr, err)
	}
	_ = uploader.Wait() // killed

	type result struct {
		o   bucket.Object
		err error
	}
	running, ended := hold(data), make(chan result, 1)
	go func() {
		o, err := b.PutContent(ctx, "own", running)
		ended <- result{o, err}
	}()
	<-running.held
	if _, err := b.Put(ctx, "own/whole", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	unfinished := func() []string {
		t.Helper()
		keys, err := b.Unfinished(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range keys {
			if strings.HasPrefix(k, "staging/") {
				keys[i] = "staging"
			}
		}
		return keys
	}
	now := waybill.SystemClock()
	if err := b.Sweep(ctx, now.Add(-24*time.Hour), "own/"); err != nil {
		t.Fatal(err)
	}
	if got := unfinished(); !slices.Equal(got, []string{"foreign", "own/killed", "staging"}) {
		t.Errorf("of uploads that are young there are left %v", got)
	}
	close(running.let)
	if r := <-ended; r.err != nil || r.o.Size != int64(len(data)) {
		t.Errorf("the upload that ran: %+v, %v", r.o, r.err)
	}
	for range 2 {
		if err := b.Sweep(ctx, now.Add(time.Hour), "own/"); err != nil {
			t.Fatal(err)
		}
	}
	if got := unfinished(); !slices.Equal(got, []string{"foreign"}) {
		t.Errorf("there are left %v", got)
	}
	whole, size, err := b.Get(ctx, "own/whole")
	if err != nil || size != int64(len(data)) {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if err := whole.Close(); err != nil {
		t.Fatal(err)
	}
}

// A store that has no list of uploads, or does not show it, is no reason not to sweep the rest; one that is away is.
func TestBucket_SweepWithoutUploads(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for status, want := range map[int]waybill.Code{http.StatusNotImplemented: "", http.StatusMethodNotAllowed: "", http.StatusForbidden: "", http.StatusBadRequest: waybill.Internal} {
		asked := 0
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Query().Has("uploads"):
				asked++
				w.WriteHeader(status)
			case r.URL.Query().Has("location"):
				_, _ = io.WriteString(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">us-east-1</LocationConstraint>`)
			case r.URL.Query().Get("list-type") == "2":
				_, _ = io.WriteString(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`)
			}
		}))
		b, err := bucket.Open(ctx, bucket.Config{Endpoint: strings.TrimPrefix(store.URL, "http://"), AccessKey: "a", SecretKey: "b", Bucket: "some-bucket"})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Sweep(ctx, time.Now(), "own/"); want == "" && err != nil || want != "" && waybill.CodeOf(err) != want || asked == 0 {
			t.Errorf("%d: %v after %d questions", status, err, asked)
		}
		store.Close()
	}
}
