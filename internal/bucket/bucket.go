// Package bucket is the door to S3: put, get and list objects, by name or by the SHA-256 of their bytes. It owns one
// invariant: bytes that were asked for by digest are either those bytes or an error. Bodies are streamed; the memory
// of a transfer does not grow with its size.
package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"waybill"
)

// partSize is the unit of a multipart upload and the memory that one upload of unknown length holds, in bytes.
const partSize = 8 << 20

// Config says where the bucket is.
type Config struct {
	Endpoint  string // host:port
	Region    string // defaults to us-east-1
	AccessKey string
	SecretKey string
	Bucket    string
	Secure    bool // TLS
	Create    bool // make the bucket when it is missing
}

// Object is one stored object.
type Object struct {
	Key    string
	Size   int64
	SHA256 [32]byte // of the bytes; not filled by List

	Modified time.Time // filled by List alone
}

// Errors that callers tell apart. Both carry their code.
var (
	ErrNotFound = waybill.Errorf(waybill.NotFound, "there is no such object in the bucket")
	ErrExists   = waybill.Errorf(waybill.AlreadyExists, "the object is in the bucket already")
)

// Bucket is one S3 bucket. It is safe for concurrent use.
type Bucket struct {
	client *minio.Client
	name   string
}

// Open connects and checks that the bucket is there.
func Open(ctx context.Context, c Config) (*Bucket, error) {
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	transport, err := minio.DefaultTransport(c.Secure)
	if err != nil {
		return nil, fmt.Errorf("build transport: %w", err)
	}
	transport.ResponseHeaderTimeout = 30 * time.Second
	client, err := minio.New(c.Endpoint, &minio.Options{Creds: credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""),
		Secure: c.Secure, Region: c.Region, Transport: transport, BucketLookup: minio.BucketLookupPath, MaxRetries: 3})
	if err != nil {
		return nil, waybill.InvalidField("s3.endpoint", "cannot be used: "+err.Error())
	}
	b := &Bucket{client: client, name: c.Bucket}
	there, err := client.BucketExists(ctx, c.Bucket)
	if err != nil {
		return nil, b.classify("find bucket", err)
	}
	if !there {
		if !c.Create {
			return nil, waybill.InvalidField("s3.bucket", "does not exist: "+c.Bucket+"; create it or name another")
		}
		if err := client.MakeBucket(ctx, c.Bucket, minio.MakeBucketOptions{Region: c.Region}); err != nil {
			if code := minio.ToErrorResponse(err).Code; code != minio.BucketAlreadyOwnedByYou && code != minio.BucketAlreadyExists {
				return nil, b.classify("make bucket", err)
			}
		}
	}
	return b, nil
}

// classify maps what S3 says to our codes. What is not recognised stays internal.
func (b *Bucket) classify(doing string, err error) error {
	res := minio.ToErrorResponse(err)
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case res.Code == minio.NoSuchKey || res.Code == minio.NoSuchBucket || res.StatusCode == http.StatusNotFound:
		return ErrNotFound
	case res.Code == minio.PreconditionFailed || res.StatusCode == http.StatusPreconditionFailed:
		return ErrExists
	case res.StatusCode >= 500 || res.StatusCode == 0 || res.StatusCode == http.StatusTooManyRequests:
		return waybill.Wrap(waybill.Unavailable, fmt.Errorf("%s: %w", doing, err), "the object store is away; try again")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Put streams r to key; size -1 means unknown. It returns the size and the SHA-256 of what was stored. On error the
// key holds what it held before: an unfinished upload is never visible.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64) (Object, error) {
	h := sha256.New()
	n := &counter{r: io.TeeReader(r, h)}
	var body io.Reader = n
	if size < 0 {
		// What fits in one part goes as one plain request instead of three.
		var head bytes.Buffer
		switch _, err := io.CopyN(&head, n, partSize); {
		case n.err != nil:
			return Object{}, n.err
		case err == nil:
			body = io.MultiReader(&head, n)
		default: // io.EOF
			body, size = bytes.NewReader(head.Bytes()), int64(head.Len())
		}
	}
	info, err := b.client.PutObject(ctx, b.name, key, body, size, putOptions(size))
	if n.err != nil {
		return Object{}, n.err // the source failed, and its error says more than the upload's
	}
	if err != nil {
		return Object{}, b.classify("put object", err)
	}
	if info.Size != n.n {
		return Object{}, waybill.Errorf(waybill.Corrupt, "the object store kept %d of %d bytes", info.Size, n.n)
	}
	return Object{Key: key, Size: n.n, SHA256: [32]byte(h.Sum(nil))}, nil
}

// PutNamed stores size bytes of which the SHA-256 is known, as one request, for which the store has less to do than for
// parts; S3 takes 5 GiB in one. The store compares the digest, and refuses other bytes.
func (b *Bucket) PutNamed(ctx context.Context, key string, r io.ReaderAt, size int64, sum [32]byte) error {
	opts := putOptions(size)
	opts.DisableContentSha256 = true // of each piece of a stream: all of it has its own
	// A store that is told no checksum makes one by itself, and of those this is the fastest.
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(crc, io.NewSectionReader(r, 0, size)); err != nil {
		return fmt.Errorf("put object: %w", err)
	}
	opts.UserMetadata = map[string]string{minio.ChecksumCRC32C.Key(): base64.StdEncoding.EncodeToString(crc.Sum(nil))}
	core := minio.Core{Client: b.client}
	if _, err := core.PutObject(ctx, b.name, key, io.NewSectionReader(r, 0, size), size, "", hex.EncodeToString(sum[:]), opts); err != nil {
		return b.classify("put object", err)
	}
	return nil
}

// putOptions are the options for an upload of size bytes, -1 for unknown. An empty body is not signed chunk by chunk:
// minio-go would send the closing chunk after a header that announces no body, and the store would read that chunk as
// the next request on the connection.
func putOptions(size int64) minio.PutObjectOptions {
	return minio.PutObjectOptions{PartSize: partSize, NumThreads: 1, DisableContentSha256: size == 0}
}

// counter counts bytes and remembers the source's own error.
type counter struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// PutIfAbsent stores data unless the key is taken: then it returns ErrExists and changes nothing.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	opts := putOptions(int64(len(data)))
	opts.SetMatchETagExcept("*")
	if _, err := b.client.PutObject(ctx, b.name, key, bytes.NewReader(data), int64(len(data)), opts); err != nil {
		return b.classify("put object", err)
	}
	return nil
}

// stagingPrefix is where PutContent puts bytes whose digest it does not know yet, under the time.
const stagingPrefix = "staging/"

// Sweep removes what PutContent had begun before old and, since its process died, never ended; and the parts of uploads to
// keys under the prefixes that were begun before old and never ended. A store that does not offer to list uploads, or does not
// let us, is left to remove these by a rule of its own.
func (b *Bucket) Sweep(ctx context.Context, old time.Time, prefixes ...string) error {
	for _, p := range append([]string{stagingPrefix}, prefixes...) {
		if err := b.sweepUploads(ctx, p, old); err != nil {
			return err
		}
	}
	for o, err := range b.List(ctx, stagingPrefix) {
		if err != nil {
			return err
		}
		id, err := waybill.ParseID("object", strings.TrimPrefix(o.Key, stagingPrefix))
		if err != nil {
			continue // not ours
		}
		if limit := waybill.NewID(old); bytes.Compare(id[:6], limit[:6]) >= 0 {
			return nil // listed by time: the others are younger
		}
		if err := b.Delete(ctx, o.Key); err != nil {
			return err
		}
	}
	return nil
}

// PutContent stores the bytes of r under prefix + "/" + hex(SHA-256). The digest is known only at the end, so the
// bytes go to a name of their own first and are copied inside the store; the first name is removed. The copy is made also
// when the object is there: what stands under its name may have rotted or been changed, and whoever was told that these
// bytes are kept must get these. Readers of the old copy are not disturbed.
func (b *Bucket) PutContent(ctx context.Context, prefix string, r io.Reader) (Object, error) {
	staging := stagingPrefix + waybill.NewID(waybill.SystemClock()).String()
	obj, err := b.Put(ctx, staging, r, -1)
	if err != nil {
		return Object{}, err
	}
	final := prefix + "/" + hex.EncodeToString(obj.SHA256[:])
	// ComposeObject copies in parts beyond the 5 GiB that a single copy may have.
	if _, err := b.client.ComposeObject(ctx, minio.CopyDestOptions{Bucket: b.name, Object: final}, minio.CopySrcOptions{Bucket: b.name, Object: staging}); err != nil {
		return Object{}, b.classify("copy object", err)
	}
	if err := b.Delete(ctx, staging); err != nil {
		return Object{}, err
	}
	obj.Key = final
	return obj, nil
}

// Get streams an object. The caller closes it. ErrNotFound when it is not there.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	core := minio.Core{Client: b.client}
	body, info, _, err := core.GetObject(ctx, b.name, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, b.classify("get object", err)
	}
	return body, info.Size, nil
}

// ReadRange fills p with the bytes of an object from offset on. What they ought to be is the caller's to check.
// ErrNotFound when the object is not there; an object that ends earlier is Corrupt.
func (b *Bucket) ReadRange(ctx context.Context, key string, offset int64, p []byte) (err error) {
	opts := minio.GetObjectOptions{}
	if err := opts.SetRange(offset, offset+int64(len(p))-1); err != nil {
		return fmt.Errorf("read range: %w", err)
	}
	core := minio.Core{Client: b.client}
	body, _, _, err := core.GetObject(ctx, b.name, key, opts)
	if res := minio.ToErrorResponse(err); res.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return waybill.Errorf(waybill.Corrupt, "%s ends before byte %d", key, offset)
	}
	if err != nil {
		return b.classify("read range", err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	n, err := io.ReadFull(body, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return waybill.Errorf(waybill.Corrupt, "%s ends at byte %d of %d", key, offset+int64(n), offset+int64(len(p)))
	}
	if err != nil {
		return b.classify("read range", err)
	}
	return nil
}

// GetVerified reads an object of at most max bytes and compares its digest: Corrupt, naming both, when it differs.
func (b *Bucket) GetVerified(ctx context.Context, key string, want [32]byte, max int64) (data []byte, err error) {
	body, size, err := b.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if size > max {
		return nil, waybill.Errorf(waybill.TooLarge, "%s has %d bytes; at most %d are read", key, size, max)
	}
	data, err = io.ReadAll(io.LimitReader(body, max+1))
	if err != nil {
		return nil, b.classify("read object", err)
	}
	if got := sha256.Sum256(data); got != want {
		return nil, waybill.Errorf(waybill.Corrupt, "the bytes of %s have SHA-256 %x, not %x as recorded: they were changed", key, got, want)
	}
	return data, nil
}

// List yields the objects below prefix in the order of their keys.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for info := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if info.Err != nil {
				yield(Object{}, b.classify("list objects", info.Err))
				return
			}
			if !yield(Object{Key: info.Key, Size: info.Size, Modified: info.LastModified}, nil) {
				return
			}
		}
	}
}

// Delete removes an object. Removing what is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := b.client.RemoveObject(ctx, b.name, key, minio.RemoveObjectOptions{}); err != nil {
		return b.classify("delete object", err)
	}
	return nil
}
