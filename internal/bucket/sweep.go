package bucket

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

// What is larger than a part is uploaded part by part. When the process dies in between, or cannot say that it gave up, the
// parts stay: in no list of objects, and paid for.

// unfinished yields the uploads under prefix that have neither been completed nor given up.
func (b *Bucket) unfinished(ctx context.Context, prefix string) iter.Seq2[minio.ObjectMultipartInfo, error] {
	return func(yield func(minio.ObjectMultipartInfo, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for u := range b.client.ListIncompleteUploads(ctx, b.name, prefix, true) {
			if u.Err != nil {
				yield(u, u.Err)
				return
			}
			if !yield(u, nil) {
				return
			}
		}
	}
}

// sweepUploads gives up the uploads under prefix that were begun before old. Those that a store does not let us see are left
// to the store: some know no such list, and some keys may not read it.
func (b *Bucket) sweepUploads(ctx context.Context, prefix string, old time.Time) error {
	core := minio.Core{Client: b.client}
	for u, err := range b.unfinished(ctx, prefix) {
		if notOffered(err) {
			return nil
		}
		if err != nil {
			return b.classify("list uploads", err)
		}
		if u.Initiated.IsZero() || !u.Initiated.Before(old) { // a store that does not say when would have us end one that runs
			continue
		}
		err := core.AbortMultipartUpload(ctx, b.name, u.Key, u.UploadID)
		if minio.ToErrorResponse(err).Code == minio.NoSuchUpload || notOffered(err) { // another hub was faster; or it may not
			continue
		}
		if err != nil {
			return b.classify("give up upload", err)
		}
	}
	return nil
}

// notOffered says whether a store does not do what it was asked for.
func notOffered(err error) bool {
	switch minio.ToErrorResponse(err).StatusCode {
	case http.StatusNotImplemented, http.StatusMethodNotAllowed, http.StatusForbidden:
		return true
	}
	return false
}
