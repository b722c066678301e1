package bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"waybill"
	"waybill/internal/bucket"
	"waybill/internal/pgtest"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := pgtest.TestBucket(t)

	t.Run("StreamsManyParts", func(t *testing.T) {
		t.Parallel()
		const size = 20 << 20
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		obj, err := b.Put(ctx, "big", io.MultiReader(bytes.NewReader(data)), -1)
		if err != nil || obj.Size != size || obj.SHA256 != sha256.Sum256(data) {
			t.Fatalf("put: %d bytes, %v", obj.Size, err)
		}
		back, err := b.GetVerified(ctx, "big", obj.SHA256, size)
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("get: %d bytes, %v", len(back), err)
		}
		if _, err := b.GetVerified(ctx, "big", obj.SHA256, size-1); waybill.CodeOf(err) != waybill.TooLarge {
			t.Fatalf("bound: %v", err)
		}
	})
	t.Run("OnePartExactly", func(t *testing.T) {
		t.Parallel()
		for _, size := range []int{1, 8<<20 - 1, 8 << 20, 8<<20 + 1} {
			data := bytes.Repeat([]byte{7}, size)
			obj, err := b.Put(ctx, "edge", io.MultiReader(bytes.NewReader(data)), -1)
			if err != nil || obj.Size != int64(size) || obj.SHA256 != sha256.Sum256(data) {
				t.Fatalf("put %d bytes: %d, %v", size, obj.Size, err)
			}
			if _, err := b.GetVerified(ctx, "edge", obj.SHA256, int64(size)); err != nil {
				t.Fatalf("get %d bytes: %v", size, err)
			}
		}
	})
	t.Run("EmptyObject", func(t *testing.T) {
		t.Parallel()
		for _, size := range []int64{-1, 0} {
			obj, err := b.Put(ctx, "empty", strings.NewReader(""), size)
			if err != nil || obj.Size != 0 || obj.SHA256 != sha256.Sum256(nil) {
				t.Fatalf("put: %+v, %v", obj, err)
			}
		}
	})
	t.Run("ContentIsItsOwnName", func(t *testing.T) {
		t.Parallel()
		for range 2 { // the second time changes nothing
			obj, err := b.PutContent(ctx, "cas", strings.NewReader("hello"))
			if err != nil || obj.Key != "cas/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
				t.Fatalf("put content: %+v, %v", obj, err)
			}
		}
		n := 0
		for _, err := range b.List(ctx, "staging/") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 0 {
			t.Errorf("%d staging objects left", n)
		}
	})
	t.Run("ContentIsMendedByStoringItAgain", func(t *testing.T) { // before the parallel ones: one of them counts what is staged
		for _, rotten := range []string{"hellO", "", "hello and more"} {
			obj, err := b.PutContent(ctx, "rot", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Put(ctx, obj.Key, strings.NewReader(rotten), int64(len(rotten))); err != nil {
				t.Fatal(err)
			}
			if obj, err = b.PutContent(ctx, "rot", strings.NewReader("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := b.GetVerified(ctx, obj.Key, obj.SHA256, 100); err != nil {
				t.Errorf("acknowledged over %q: %v", rotten, err)
			}
		}
	})
	t.Run("ChangedBytesAreCorrupt", func(t *testing.T) {
		t.Parallel()
		obj, err := b.Put(ctx, "changed", strings.NewReader("before"), 6)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(ctx, "changed", strings.NewReader("after!"), 6); err != nil {
			t.Fatal(err)
		}
		if _, err := b.GetVerified(ctx, "changed", obj.SHA256, 100); waybill.CodeOf(err) != waybill.Corrupt {
			t.Fatalf("got %v, want data_loss", err)
		}
	})
	t.Run("PutIfAbsent", func(t *testing.T) {
		t.Parallel()
		if err := b.PutIfAbsent(ctx, "once", []byte("a")); err != nil {
			t.Fatal(err)
		}
		if err := b.PutIfAbsent(ctx, "once", []byte("b")); !errors.Is(err, bucket.ErrExists) {
			t.Fatalf("got %v, want ErrExists", err)
		}
	})
	t.Run("Range", func(t *testing.T) {
		t.Parallel()
		if _, err := b.Put(ctx, "range", strings.NewReader("0123456789"), 10); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			offset int64
			size   int
			want   string
			code   waybill.Code
		}{{0, 10, "0123456789", ""}, {3, 4, "3456", ""}, {9, 1, "9", ""}, {8, 3, "", waybill.Corrupt}, {10, 1, "", waybill.Corrupt}, {50, 1, "", waybill.Corrupt}} {
			p := make([]byte, c.size)
			if err := b.ReadRange(ctx, "range", c.offset, p); waybill.CodeOf(err) != c.code || err == nil && string(p) != c.want {
				t.Errorf("%d bytes from %d on: %q, %v", c.size, c.offset, p, err)
			}
		}
		if err := b.ReadRange(ctx, "nothing", 0, make([]byte, 1)); !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
	t.Run("MissingObject", func(t *testing.T) {
		t.Parallel()
		if _, _, err := b.Get(ctx, "nothing"); !errors.Is(err, bucket.ErrNotFound) {
			t.Fatalf("got %v, want ErrNotFound", err)
		}
		if err := b.Delete(ctx, "nothing"); err != nil {
			t.Fatalf("delete nothing: %v", err)
		}
	})
	t.Run("FailedSourceStoresNothing", func(t *testing.T) {
		t.Parallel()
		broken := errors.New("the source broke")
		if _, err := b.Put(ctx, "half", io.MultiReader(strings.NewReader("half"), errReader{broken}), -1); !errors.Is(err, broken) {
			t.Fatalf("got %v, want the source's error", err)
		}
		if _, _, err := b.Get(ctx, "half"); !errors.Is(err, bucket.ErrNotFound) {
			t.Fatalf("half an object is visible: %v", err)
		}
	})
	t.Run("MissingBucket", func(t *testing.T) {
		t.Parallel()
		c := pgtest.BucketConfig(t)
		c.Create = false
		if _, err := bucket.Open(ctx, c); waybill.CodeOf(err) != waybill.Invalid {
			t.Fatalf("got %v, want invalid", err)
		}
	})
	t.Run("StoreAway", func(t *testing.T) {
		t.Parallel()
		c := pgtest.BucketConfig(t)
		c.Endpoint = "127.0.0.1:1"
		if _, err := bucket.Open(ctx, c); waybill.CodeOf(err) != waybill.Unavailable {
			t.Fatalf("got %v, want unavailable", err)
		}
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// What an upload by content left when it died is removed when it is old, and nothing else.
func TestBucket_Sweep(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := pgtest.TestBucket(t)
	now := waybill.SystemClock()
	old, young := "staging/"+waybill.NewID(now.Add(-25*time.Hour)).String(), "staging/"+waybill.NewID(now).String()
	for _, key := range []string{old, young, "staging/mine", "other/" + waybill.NewID(now.Add(-25*time.Hour)).String()} {
		if _, err := b.Put(ctx, key, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := b.PutContent(ctx, "kept", strings.NewReader("y"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sweep(ctx, now.Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	var left []string
	for o, err := range b.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(o.Modified); age < -time.Minute || age > time.Hour {
			t.Errorf("%s was modified at %s", o.Key, o.Modified)
		}
		left = append(left, o.Key)
	}
	if len(left) != 4 || slices.Contains(left, old) || !slices.Contains(left, young) || !slices.Contains(left, kept.Key) {
		t.Errorf("left %v", left)
	}
}
