package featurestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// A snapshot is the online rows of one view version after a commit. It is derived from the log and may be lost:
// a hub that finds none, or a damaged one, reads the log from its beginning.

const snapshotPrefix = "featurestore/snapshots"

// partBytes is how large a part of a snapshot gets before the next begins. A part is held in memory when it is written
// and when it is read.
const partBytes = 32 << 20

// keptSnapshots is how many of a view version stay: a hub may still be reading the one before the newest.
const keptSnapshots = 2

const (
	insertSnapshot pg.SQL = `
INSERT INTO featurestore.snapshot (tenant, view, version, seq, rows, parts, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`
	selectSnapshot pg.SQL = `
SELECT seq, rows, parts FROM featurestore.snapshot WHERE tenant = $1 AND view = $2 AND version = $3 AND seq <= $4 ORDER BY seq DESC LIMIT 1`
	selectRowsSince pg.SQL = `
SELECT coalesce(sum(rows), 0)::bigint FROM featurestore.commit WHERE tenant = $1 AND view = $2 AND version = $3 AND seq > $4 AND seq <= $5`
	deleteSnapshots pg.SQL = `
DELETE FROM featurestore.snapshot WHERE tenant = $1 AND view = $2 AND version = $3 AND seq < (
    SELECT min(seq) FROM (SELECT seq FROM featurestore.snapshot WHERE tenant = $1 AND view = $2 AND version = $3 ORDER BY seq DESC LIMIT $4) newest)
RETURNING parts`
	selectPartUsed pg.SQL = `SELECT EXISTS (SELECT FROM featurestore.snapshot WHERE $1 = ANY (parts))`
)

type snapshot struct {
	seq, rows int64
	parts     []string
}

// Snapshot writes the online rows of every view version of which enough came since its last snapshot: SnapshotRows, and
// a quarter of what the last one has. It is the periodic job behind quick starts. When it is killed, nothing names the parts
// that it wrote.
func (s *Store) Snapshot(ctx context.Context) error {
	var failed []error
	s.views.Range(func(k, v any) bool {
		key, ok1 := k.(viewKey)
		o, ok2 := v.(*online)
		if ok1 && ok2 && o.ready.Load() {
			if err := s.snapshot(ctx, key, o); err != nil {
				failed = append(failed, fmt.Errorf("snapshot %s: %w", key.ref, err))
			}
		}
		return ctx.Err() == nil
	})
	return errors.Join(append(failed, ctx.Err())...)
}

func (s *Store) snapshot(ctx context.Context, key viewKey, o *online) error {
	if err := o.lock(ctx); err != nil {
		return err
	}
	seq := o.seq.Load()
	rows := o.rows.capture(ctx, seq)
	failed, _ := s.bring(ctx, o, o.end.Load()) // unlocks; whoever had something to apply meanwhile has left it to us
	s.complain(ctx, failed)
	last, err := s.lastSnapshot(ctx, key, seq)
	if err != nil {
		return err
	}
	var since int64
	if err := s.pool.QueryRow(ctx, string(selectRowsSince), key.tenant, key.ref.Name, key.ref.Version, last.seq, seq).Scan(&since); err != nil {
		return fmt.Errorf("select rows since: %w", err)
	}
	if since < s.snapshotRows || since < last.rows/4 {
		return nil
	}
	snap := snapshot{seq: seq}
	part := make([]byte, 0, partBytes)
	flush := func() error {
		object, err := s.bucket.PutContent(ctx, snapshotPrefix, bytes.NewReader(part))
		if err != nil {
			return err
		}
		snap.parts, part = append(snap.parts, object.Key), part[:0]
		return nil
	}
	for b, err := range rows {
		if err != nil {
			return err
		}
		if len(part) > 0 && len(part)+len(b) > partBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		part = append(part, b...)
		snap.rows++
	}
	if len(part) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return s.keepSnapshot(ctx, key, &snap)
}

// keepSnapshot names a snapshot whose parts lie in the bucket, and forgets old ones.
func (s *Store) keepSnapshot(ctx context.Context, key viewKey, snap *snapshot) error {
	var gone []string
	if err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		gone = nil
		if _, err := tx.Exec(ctx, string(insertSnapshot), key.tenant, key.ref.Name, key.ref.Version, snap.seq, snap.rows, snap.parts, s.clock()); err != nil {
			return fmt.Errorf("insert snapshot: %w", err)
		}
		rows, err := tx.Query(ctx, string(deleteSnapshots), key.tenant, key.ref.Name, key.ref.Version, keptSnapshots)
		if err != nil {
			return fmt.Errorf("delete snapshots: %w", err)
		}
		lists, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
		if err != nil {
			return fmt.Errorf("delete snapshots: %w", err)
		}
		for _, l := range lists {
			gone = append(gone, l...)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, part := range gone { // equal rows have equal parts, also in other snapshots
		var used bool
		if err := s.pool.QueryRow(ctx, string(selectPartUsed), part).Scan(&used); err != nil {
			return fmt.Errorf("select use of a part: %w", err)
		}
		if used {
			continue
		}
		if err := s.bucket.Delete(ctx, part); err != nil {
			return fmt.Errorf("delete part: %w", err)
		}
	}
	return nil
}

// lastSnapshot returns the newest snapshot up to a commit, the zero one when there is none.
func (s *Store) lastSnapshot(ctx context.Context, key viewKey, seq int64) (snap snapshot, err error) {
	err = s.pool.QueryRow(ctx, string(selectSnapshot), key.tenant, key.ref.Name, key.ref.Version, seq).Scan(&snap.seq, &snap.rows, &snap.parts)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return snapshot{}, fmt.Errorf("select snapshot: %w", err)
	}
	return snap, nil
}

// restore puts the newest snapshot up to end into rows that nobody reads yet, and returns the commit that it is of: 0 when
// there is none that can be read. The caller holds the lock.
func (s *Store) restore(ctx context.Context, o *online, end int64) (have int64, err error) {
	snap, err := s.lastSnapshot(ctx, o.key, end)
	if err != nil || snap.seq == 0 {
		return 0, err
	}
	a, inMemory := o.rows.(*arena)
	if inMemory {
		a.reserve(int(snap.rows))
	}
	err = s.readSnapshot(ctx, &snap, o)
	if err == nil {
		return snap.seq, o.publish(ctx, snap.seq)
	}
	if inMemory {
		a.clear()
	}
	if ctx.Err() != nil || errors.Is(err, errBusy) || waybill.CodeOf(err) == waybill.Unavailable {
		return 0, err // says nothing about the snapshot
	}
	s.logger.WarnContext(ctx, "a snapshot cannot be read; the log is read from its beginning", "view", o.key.ref.String(), "commit", snap.seq, "error", err)
	// Rows of it that were put are rows of the log, and stay.
	return 0, nil
}

// readSnapshot puts the rows of a snapshot, the next part coming while one is put in.
func (s *Store) readSnapshot(ctx context.Context, snap *snapshot, o *online) error {
	type part struct {
		data []byte
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan part)
	go func() {
		defer close(parts)
		for _, p := range snap.parts {
			data, err := s.object(ctx, p)
			select {
			case parts <- part{data, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	now, rows := s.clock().UnixMicro(), int64(0)
	for p := range parts {
		if p.err != nil {
			return p.err
		}
		for rest := p.data; len(rest) > 0; rows++ {
			b, next, err := o.layout.next(rest)
			if err != nil {
				return err
			}
			if r := parseRow(b); r.seq > snap.seq {
				return waybill.Errorf(waybill.Corrupt, "a snapshot of commit %d holds a row of commit %d", snap.seq, r.seq)
			}
			if err := o.rows.put(ctx, b, fromSnapshot, now); err != nil {
				return err
			}
			rest = next
		}
	}
	if rows != snap.rows {
		return waybill.Errorf(waybill.Corrupt, "a snapshot of %d rows has %d", snap.rows, rows)
	}
	return ctx.Err()
}
