package featurestore

import (
	"context"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"waybill"
	"waybill/featurestore/asof"
)

// joinFallbacks looks in the views that stand in for the rows of the spine that have none, as of each row's own time, and
// puts what it finds into the columns. It goes along each chain as a read does online: a row of the spine is asked about
// at a level only when no level before it had a row. out and found are those of joinViews, which it completes.
func (s *Store) joinFallbacks(ctx context.Context, tenant waybill.Tenant, p *plan, views map[waybill.VersionRef]*View, e *examples, t *TrainingSet, withRuns bool,
	out []arrow.Array, found [][]int8) error {
	base := slices.Clone(out) // keys are made of what was read directly
	for at := range p.views {
		if len(p.views[at].chain) == 0 {
			continue
		}
		levels, keys, err := p.standInKeys(ctx, at, e, base, found)
		if err != nil {
			return err
		}
		for l := range levels {
			if err := s.joinLevel(ctx, tenant, p, views, e, t, withRuns, at, l, levels[l], keys[l], out, found[at]); err != nil {
				return err
			}
		}
	}
	return nil
}

// standInKeys returns, for each level of a view's chain, the rows of the spine that could be looked up there and their keys.
func (p *plan) standInKeys(ctx context.Context, at int, e *examples, features []arrow.Array, found [][]int8) (rows [][]int, keys [][][]any, err error) {
	chain := p.views[at].chain
	rows, keys = make([][]int, len(chain)), make([][][]any, len(chain))
	cells := make([]Cell, len(e.inputs)+len(features))
	for i := range e.rows {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if found[at][i] == ownRow {
			continue
		}
		for c := range cells {
			var col Column
			var a arrow.Array
			if c < len(e.inputs) {
				col, a = p.service.Inputs[c], e.inputs[c]
			} else {
				f := &p.features[c-len(e.inputs)]
				col, a = Column{Name: f.ref.Feature, Type: f.typ}, features[c-len(e.inputs)]
			}
			v, err := valueAt(col.Type, a, i)
			if err != nil {
				return nil, nil, err
			}
			cells[c] = cellOf(col.Name, v)
		}
		if err := p.eachKey(at, cells, func(l int, key []any) (bool, error) {
			rows[l], keys[l] = append(rows[l], i), append(keys[l], key)
			return false, nil
		}); err != nil {
			return nil, nil, badCell(e.line(i), p.views[at].ref.String(), err)
		}
	}
	return rows, keys, nil
}

// joinLevel joins one level: those of rows that nothing was found for so far.
func (s *Store) joinLevel(ctx context.Context, tenant waybill.Tenant, p *plan, views map[waybill.VersionRef]*View, e *examples, t *TrainingSet, withRuns bool,
	at, level int, rows []int, keys [][]any, out []arrow.Array, found []int8) error {
	var asked []int // places in rows
	for n, i := range rows {
		if found[i] == noRow {
			asked = append(asked, n)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	l := &p.views[at].chain[level]
	columns := make([]arrow.Array, len(l.keys))
	for k := range l.keys {
		a, err := buildColumn(l.keys[k].column.Type, len(asked), func(n int) (any, error) { return keys[asked[n]][k], nil },
			func(n int, err error) error { return badCell(e.line(rows[asked[n]]), l.keys[k].column.Name, err) })
		if err != nil {
			return err
		}
		columns[k] = a
	}
	order, err := asof.NewOrder(columns, len(asked))
	if err != nil {
		return err
	}
	times, of := make([]int64, len(asked)), make([]int, e.rows)
	for n, r := range asked {
		times[n] = e.at[rows[r]]
	}
	var features, places []int
	for f := range p.features {
		if p.features[f].view == at && p.features[f].stand[level] >= 0 {
			features, places = append(features, p.features[f].stand[level]), append(places, f)
		}
	}
	ref := p.views[l.view].ref
	res, err := s.joinView(ctx, viewKey{tenant, ref}, views[ref], features, order, times, t, withRuns)
	if err != nil {
		return err
	}
	for i := range of {
		of[i] = -1
	}
	for n, r := range asked {
		if res.Found[n] {
			found[rows[r]], of[rows[r]] = int8(level), n
		}
	}
	for i, f := range places {
		if out[f], err = patched(p.features[f].typ, out[f], res.Columns[i], of); err != nil {
			return err
		}
	}
	return nil
}

// patched returns base with other[of[i]] in the place of row i, where of[i] is not −1.
func patched(t Type, base, other arrow.Array, of []int) (arrow.Array, error) {
	b := array.NewBuilder(memory.DefaultAllocator, arrowType(t))
	defer b.Release()
	b.Reserve(len(of))
	for i, n := range of {
		from, at := base, i
		if n >= 0 {
			from, at = other, n
		}
		v, err := valueAt(t, from, at)
		if err != nil {
			return nil, err
		}
		if err := appendValue(b, v); err != nil {
			return nil, err
		}
	}
	return b.NewArray(), nil
}
