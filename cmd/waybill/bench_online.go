package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/featurestore"
	"waybill/internal/bucket"
)

// onlineCase is one size of a view in memory.
type onlineCase struct {
	name           string
	rows, features int
}

// onlineKeyBytes is what the key of a row is: a tag and eight bytes.
const onlineKeyBytes = 9

// onlineLog fills a log for each case, in a database of its own, and calls each with a store that has read it.
func (b *bencher) onlineLog(ctx context.Context, name string, cases []onlineCase,
	each func(c onlineCase, ref waybill.VersionRef, pool *pgxpool.Pool, objects *bucket.Bucket, store *featurestore.Store) error) error {
	for i, c := range cases {
		pool, _, err := b.database(ctx, fmt.Sprint(name, i))
		if err != nil {
			return err
		}
		err = func() error {
			objects, err := bucket.Open(ctx, b.stack.Bucket())
			if err != nil {
				return err
			}
			b.note("  making a log of %d rows of %d features", c.rows, c.features)
			l := benchLog{fmt.Sprint(name[:4], i), c.features, c.rows, uint64(i), func(i int) int64 { return int64(i) }}
			if err := l.fill(ctx, pool, objects, featurestore.OpenHistory(pool, objects, featurestore.Config{})); err != nil {
				return err
			}
			b.note("  reading it")
			store, err := featurestore.Open(ctx, pool, objects, featurestore.Config{})
			if err != nil {
				return err
			}
			return each(c, waybill.VersionRef{Name: l.view, Version: 1}, pool, objects, store)
		}()
		pool.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// benchOnlineMemory measures what rows take in memory, and how long the garbage collector marks with them there.
func benchOnlineMemory(ctx context.Context, b *bencher) (out []result, err error) {
	cases := []onlineCase{{"1M x 50", 1_000_000, 50}, {"10M x 10", 10_000_000, 10}}
	if b.quick {
		cases = []onlineCase{{"50k x 50", 50_000, 50}}
	}
	err = b.onlineLog(ctx, "memory", cases, func(c onlineCase, ref waybill.VersionRef, _ *pgxpool.Pool, _ *bucket.Bucket, store *featurestore.Store) error {
		keys, size := store.Memory(benchTenant, ref)
		if keys != c.rows {
			return fmt.Errorf("%d rows are in memory", keys)
		}
		runtime.GC()
		var marks []float64
		for range b.runs {
			start := time.Now()
			runtime.GC() // a whole cycle: more than its marking
			marks = append(marks, float64(time.Since(start).Microseconds())/1000)
		}
		runtime.KeepAlive(store)
		mark := median(marks)
		raw := float64(8 * c.features)
		r := result{Case: c.name, Unit: "bytes/row", Ours: float64(size) / float64(keys), Limit: raw + onlineKeyBytes, LimitIs: "8 bytes a value and the key",
			Bar: 1, P50: mark, noAllocs: true, otherHolds: mark < 50, RSSMiB: float64(size) / (1 << 20)}
		r.Ratio = (1.4*raw + onlineKeyBytes) / r.Ours
		b.note("  %s: %.1f bytes a row, a collection takes %.1f ms", c.name, r.Ours, mark)
		out = append(out, r)
		return nil
	})
	return out, err
}

// benchColdStart opens a store on a view of a million entities, from its snapshot.
func benchColdStart(ctx context.Context, b *bencher) (out []result, err error) {
	cases := []onlineCase{{"1M x 50", 1_000_000, 50}}
	if b.quick {
		cases = []onlineCase{{"50k x 50", 50_000, 50}}
	}
	err = b.onlineLog(ctx, "cold", cases, func(c onlineCase, ref waybill.VersionRef, pool *pgxpool.Pool, objects *bucket.Bucket, store *featurestore.Store) error {
		config := featurestore.Config{SnapshotRows: 1}
		writer, err := featurestore.Open(ctx, pool, objects, config)
		if err != nil {
			return err
		}
		if err := writer.Snapshot(ctx); err != nil {
			return err
		}
		ours, limit, err := b.turns(func() (float64, error) {
			start := time.Now()
			s, err := featurestore.Open(ctx, pool, objects, config)
			if err != nil {
				return 0, err
			}
			took := time.Since(start).Seconds()
			if keys, _ := s.Memory(benchTenant, ref); keys != c.rows {
				return 0, fmt.Errorf("%d rows are in memory", keys)
			}
			return took, nil
		}, func() (float64, error) {
			start := time.Now()
			for o, err := range objects.List(ctx, "featurestore/snapshots/") {
				if err != nil {
					return 0, err
				}
				body, _, err := objects.Get(ctx, o.Key)
				if err != nil {
					return 0, err
				}
				_, err = io.Copy(io.Discard, body)
				if err = errors.Join(err, body.Close()); err != nil {
					return 0, err
				}
			}
			return time.Since(start).Seconds(), nil
		})
		if err != nil {
			return err
		}
		runtime.KeepAlive(store)
		r := result{Case: c.name, Unit: "s", Ours: ours, Limit: limit, LimitIs: "reading the snapshot from the bucket", Ratio: 5 / ours, Bar: 1, noAllocs: true, otherHolds: true}
		out = append(out, r)
		return nil
	})
	return out, errors.Join(err, ctx.Err())
}
