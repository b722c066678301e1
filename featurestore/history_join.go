package featurestore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/featurestore/asof"
	"waybill/internal/bucket"
)

// OpenHistory returns a store for work on history alone: it holds no online rows and follows no log, so that it costs
// nothing to open and reads what was committed when it is asked.
func OpenHistory(pool *pgxpool.Pool, b *bucket.Bucket, c Config) *Store { return newStore(pool, b, c) }

// AsOf joins a spine in memory with features of any views, as they were known by the cut-off, or by each row's own time
// when that is zero. The spine has the join keys of the views as columns of their names and types, and a column of times
// (timestamps in µs). The result has a column for each feature and as many rows as the spine. It reads every commit that
// the views have when it is called.
func (s *Store) AsOf(ctx context.Context, tenant waybill.Tenant, spine arrow.Record, timeColumn string, features []waybill.FeatureRef, cutoff time.Time) ([]arrow.Array, error) {
	column := func(name string, t arrow.DataType) (arrow.Array, error) {
		at := spine.Schema().FieldIndices(name)
		if len(at) != 1 {
			return nil, waybill.InvalidField("spine", "must have one column "+name)
		}
		if a := spine.Column(at[0]); arrow.TypeEqual(a.DataType(), t) && a.NullN() == 0 {
			return a, nil
		}
		return nil, waybill.InvalidField("spine", fmt.Sprintf("has a column %s of %s or with nulls; give %s", name, spine.Column(at[0]).DataType(), t))
	}
	times, err := column(timeColumn, arrowType(Timestamp))
	if err != nil {
		return nil, err
	}
	at, err := asof.Int64s(times)
	if err != nil {
		return nil, err
	}
	out := make([]arrow.Array, len(features))
	orders := map[string]*asof.Order{}
	for i, f := range features {
		if out[i] != nil {
			continue // another feature of an earlier one's view
		}
		v, err := s.view(ctx, s.pool, tenant, f.View)
		if err != nil {
			return nil, err
		}
		ref := waybill.VersionRef{Name: v.Name, Version: v.Version}
		var columns, places []int
		for j, g := range features {
			if g.View != f.View {
				continue
			}
			n := slices.IndexFunc(v.Features, func(c Column) bool { return c.Name == g.Feature })
			if n < 0 {
				return nil, waybill.InvalidField(fmt.Sprintf("features[%d]", j), ref.String()+" has no feature "+g.Feature)
			}
			columns, places = append(columns, n), append(places, j)
		}
		var keys []arrow.Array
		id := ""
		for _, k := range v.Entity.Keys {
			a, err := column(k.Name, arrowType(k.Type))
			if err != nil {
				return nil, err
			}
			keys, id = append(keys, a), id+" "+k.Name
		}
		if orders[id] == nil {
			if orders[id], err = asof.NewOrder(keys, int(spine.NumRows())); err != nil {
				return nil, err
			}
		}
		t := &TrainingSet{Cutoff: cutoff, Views: map[string]int64{}}
		var seq int64
		if err := s.pool.QueryRow(ctx, string(selectLogEnd), tenant, ref.Name, ref.Version).Scan(&seq); err != nil {
			return nil, fmt.Errorf("select end of log: %w", err)
		}
		t.Views[ref.String()] = seq
		joined, err := s.joinView(ctx, viewKey{tenant, ref}, &v.View, columns, orders[id], at, t, true)
		if err != nil {
			return nil, err
		}
		for c, j := range places {
			out[j] = joined.Columns[c]
		}
	}
	return out, nil
}

func (s *Store) joinView(ctx context.Context, key viewKey, v *View, features []int, order *asof.Order, at []int64, t *TrainingSet, withRuns bool) (_ *asof.Result, err error) {
	ttl, err := v.ttl()
	if err != nil {
		return nil, err
	}
	through := t.Views[key.ref.String()]
	h, err := s.history(ctx, key, v, features, through, withRuns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r := asof.Request{Order: order, At: at, TTL: ttl.Microseconds(), Delay: t.DelayUS, Through: through, Sources: h.sources, Types: h.types,
		Workers: 2 * runtime.GOMAXPROCS(0)} // half of them wait for the bucket
	if !t.Cutoff.IsZero() {
		us := t.Cutoff.UnixMicro()
		r.Cutoff = &us
	}
	res, err := asof.Join(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", key.ref, err)
	}
	return res, nil
}
