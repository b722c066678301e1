package featurestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/internal/pg"
)

// postgres is the home that stands in for the tier while that is lost. Rows have the same values as there; the position is
// set in the transaction of the last rows, and one statement reads both, so that one snapshot is seen.
type postgres struct{ pool *pgxpool.Pool }

const (
	selectPosition pg.SQL = `SELECT seq FROM featurestore.online_position WHERE tenant = $1 AND view = $2 AND version = $3`
	selectOnline   pg.SQL = `
SELECT p.seq, a.place, r.value
FROM featurestore.online_position p
LEFT JOIN unnest($4::bytea[]) WITH ORDINALITY a (key, place) ON true
LEFT JOIN featurestore.online_row r ON r.tenant = p.tenant AND r.view = p.view AND r.version = p.version AND r.key = a.key
WHERE p.tenant = $1 AND p.view = $2 AND p.version = $3`
	lockOnline pg.SQL = `SELECT pg_advisory_xact_lock(hashtextextended('featurestore online ' || $1 || '/' || $2 || '/' || $3::int, 0))`
	// Read again under the lock: what another hub has merged meanwhile is merged into.
	selectMerged pg.SQL = `SELECT key, value FROM featurestore.online_row WHERE tenant = $1 AND view = $2 AND version = $3 AND key = ANY ($4::bytea[])`
	upsertMerged pg.SQL = `
INSERT INTO featurestore.online_row (tenant, view, version, key, value) SELECT $1, $2, $3, k, v FROM unnest($4::bytea[], $5::bytea[]) u (k, v)
ON CONFLICT (tenant, view, version, key) DO UPDATE SET value = excluded.value`
	upsertPosition pg.SQL = `
INSERT INTO featurestore.online_position (tenant, view, version, seq) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, view, version) DO UPDATE SET seq = greatest(online_position.seq, excluded.seq)`
	selectKeys pg.SQL = `
SELECT key, value FROM featurestore.online_row WHERE tenant = $1 AND view = $2 AND version = $3 AND key > $4 ORDER BY key LIMIT $5`
)

// postgresRows takes the log of one view version into Postgres.
type postgresRows struct {
	postgres
	online  *online
	have    int64
	settled int64
	floor   int64
	next    int64
	nextAt  time.Time
	rows    map[string][]entry // by join key, on the way
	size    int
}

func (h postgres) open(o *online) rows { return &postgresRows{postgres: h, online: o} }

func (r *postgresRows) begin(ctx context.Context, now time.Time) (have int64, err error) {
	r.rows, r.size = nil, 0
	k := r.online.key
	if err = r.pool.QueryRow(ctx, string(selectPosition), k.tenant, k.ref.Name, k.ref.Version).Scan(&r.have); errors.Is(err, pgx.ErrNoRows) {
		r.have, err = -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("select position of online rows: %w", err)
	}
	r.settled = now.Add(-settle).UnixMicro()
	if now.Sub(r.nextAt) >= settle || now.Before(r.nextAt) {
		r.floor, r.next, r.nextAt = max(0, min(r.next, r.have)), r.have, now
	}
	return r.have, nil
}

func (r *postgresRows) put(ctx context.Context, row []byte, nth uint32, now int64) error {
	p := parseRow(row)
	if r.have >= p.seq {
		return nil
	}
	if r.rows == nil {
		r.rows = map[string][]entry{}
	}
	e := appendEntry(make([]byte, 0, headSize+len(row)), &p, nth, row)
	r.rows[string(p.key)] = append(r.rows[string(p.key)], e)
	r.size += len(e)
	r.settled = now - settle.Microseconds()
	if r.size < 1<<20 {
		return nil
	}
	return r.flush(ctx, -1)
}

func (r *postgresRows) publish(ctx context.Context, seq int64) error {
	if r.have >= seq {
		return nil
	}
	if err := r.flush(ctx, seq); err != nil {
		return err
	}
	r.have = seq
	return nil
}

// flush merges what is on the way into what is there, and sets the position unless it is −1.
func (r *postgresRows) flush(ctx context.Context, position int64) error {
	k, floor := r.online.key, r.floor
	if r.have < 0 { // without a position there are no readers
		floor = math.MaxInt64
	}
	err := pg.InTx(ctx, r.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, string(lockOnline), k.tenant, k.ref.Name, k.ref.Version); err != nil {
			return fmt.Errorf("lock online rows: %w", err)
		}
		keys, there := make([][]byte, 0, len(r.rows)), map[string][]byte{}
		for key := range r.rows {
			keys = append(keys, []byte(key))
		}
		found, err := tx.Query(ctx, string(selectMerged), k.tenant, k.ref.Name, k.ref.Version, keys)
		if err != nil {
			return fmt.Errorf("select online rows: %w", err)
		}
		var key, value []byte
		if _, err := pgx.ForEachRow(found, []any{&key, &value}, func() error {
			there[string(key)] = value
			value = nil
			return nil
		}); err != nil {
			return fmt.Errorf("read online rows: %w", err)
		}
		var changed, values [][]byte
		for _, key := range keys {
			out, differs, err := merge(there[string(key)], sortEntries(r.rows[string(key)]), r.settled, floor)
			if err != nil {
				return err
			}
			if differs {
				changed, values = append(changed, key), append(values, out)
			}
		}
		if _, err := tx.Exec(ctx, string(upsertMerged), k.tenant, k.ref.Name, k.ref.Version, changed, values); err != nil {
			return fmt.Errorf("upsert online rows: %w", err)
		}
		if position < 0 {
			return nil
		}
		if _, err := tx.Exec(ctx, string(upsertPosition), k.tenant, k.ref.Name, k.ref.Version, position); err != nil {
			return fmt.Errorf("upsert position of online rows: %w", err)
		}
		return nil
	})
	if err == nil {
		r.rows, r.size = nil, 0
	}
	return err
}

func (h postgres) find(ctx context.Context, now int64, asks []ask) error {
	for i := range asks {
		if err := h.ask(ctx, now, &asks[i]); err != nil {
			return err
		}
	}
	return nil
}

func (h postgres) ask(ctx context.Context, now int64, a *ask) error {
	if err := a.begin(); err != nil {
		return err
	}
	keys := make([][]byte, len(a.ends))
	for i := range keys {
		keys[i] = a.key(i)
	}
	k := a.online.key
	rows, err := h.pool.Query(ctx, string(selectOnline), k.tenant, k.ref.Name, k.ref.Version, keys)
	if err != nil {
		return fmt.Errorf("select online rows: %w", err)
	}
	var seq int64
	var place *int64
	var value []byte
	values, point := make([][]byte, len(keys)), int64(-1)
	if _, err := pgx.ForEachRow(rows, []any{&seq, &place, &value}, func() error {
		if point = seq; place != nil {
			values[*place-1] = value
		}
		value = nil
		return nil
	}); err != nil {
		return fmt.Errorf("read online rows: %w", err)
	}
	if point < a.least {
		return waybill.Errorf(waybill.Unavailable, "the rows of %s in Postgres end at commit %d; they are written again", k.ref, point)
	}
	if a.seq == newest {
		a.seq = point
	}
	for i, value := range values {
		if value == nil {
			a.hits[i] = hit{status: NotFound}
			continue
		}
		p, found, err := a.online.pick(value, keys[i], a.seq, now)
		if err != nil {
			return err
		}
		a.hits[i] = a.online.judge(p, found, now)
	}
	return nil
}

// capture reads page by page. A row that is replaced meanwhile is of a commit after seq then, and comes again with the log's
// tail.
func (r *postgresRows) capture(ctx context.Context, seq int64) iter.Seq2[[]byte, error] {
	const page = 10_000
	return func(yield func([]byte, error) bool) {
		k, after := r.online.key, []byte{}
		for n := page; n == page; {
			rows, err := r.pool.Query(ctx, string(selectKeys), k.tenant, k.ref.Name, k.ref.Version, after, page)
			if err == nil {
				n = 0
				var key, value []byte
				_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
					n++
					after = key
					key = nil
					return r.online.each(value, after, seq, yield)
				})
			}
			if errors.Is(err, errEnough) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("read online rows: %w", err))
				return
			}
		}
	}
}
