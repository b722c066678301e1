package featurestore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"waybill"
	"waybill/featurestore/asof"
)

// joined is a training set in memory: typed columns of equal length, in the order of the file.
type joined struct {
	rows    int
	columns []Column
	arrays  []arrow.Array
	// from says of each column what it was computed from, for those that are outputs: refs of features as "view@v1:feature";
	// nil for columns of the spine and for what comes from the request alone.
	from [][]waybill.FeatureRef
}

// join makes the columns of a recipe. It reads the commits that t.Views names and nothing newer. When a run of history
// does not match its digest, everything is read from the log, which is what counts.
func (s *Store) join(ctx context.Context, tenant waybill.Tenant, t *TrainingSet, spine []byte) (*joined, error) {
	sv, err := s.service(ctx, s.pool, tenant, t.Service)
	if err != nil {
		return nil, err
	}
	views := map[waybill.VersionRef]*View{}
	p, err := compileService(sv.Service, func(ref waybill.VersionRef) (*View, error) {
		if v, ok := views[ref]; ok {
			return v, nil
		}
		v, err := s.view(ctx, s.pool, tenant, ref)
		if err == nil {
			views[ref] = &v.View
		}
		return &v.View, err
	})
	if err != nil {
		return nil, err
	}
	if err := s.tokenising(tenant, p); err != nil {
		return nil, err
	}
	done, err := s.decoding.turn(ctx, tenant)
	if err != nil {
		return nil, err
	}
	defer done()
	in, err := readTable(t.SpineFormat, spine, func(names []string) error { return p.checkSpine(names, t) })
	if err != nil {
		return nil, err
	}
	if n := len(in.names) + len(p.outputs); in.rows*n > maxResultCells {
		return nil, waybill.Errorf(waybill.TooLarge, "the result would have %d rows of %d columns; at most %d values, so cut the spine into several", in.rows, n, maxResultCells)
	}
	steps := 1 // the file
	for i := range p.views {
		if p.views[i].keys != nil {
			steps++
		}
	}
	if len(p.exprs) > 0 {
		steps++
	}
	buildingOf(ctx).begin(in.rows, steps)
	e, err := p.examples(in, t)
	if err != nil {
		return nil, err
	}
	features, found, err := s.joinViews(ctx, tenant, p, views, e, t, true)
	if waybill.CodeOf(err) == waybill.Corrupt {
		s.logger.WarnContext(ctx, "history cannot be read, the log is", "error", err)
		buildingOf(ctx).begin(in.rows, steps)
		features, found, err = s.joinViews(ctx, tenant, p, views, e, t, false)
	}
	if err != nil {
		return nil, err
	}
	return p.result(ctx, in, e, features, found, t)
}

// outputName is the column of an output.
func (p *plan) outputName(i int, t *TrainingSet) string {
	if f := p.places[i] - len(p.service.Inputs); t.FullNames && f >= 0 && f < len(p.features) {
		return p.features[f].ref.View.Name + "__" + p.features[f].ref.Feature
	}
	return p.outputs[i].Name
}

// checkSpine holds the columns of a spine against the service. A column named like a feature or expression would take the
// place of the value as of the row's time.
func (p *plan) checkSpine(names []string, t *TrainingSet) error {
	for _, want := range []struct{ field, column string }{{"time_column", t.TimeColumn}, {"label_column", t.LabelColumn}} {
		if want.column != "" && !slices.Contains(names, want.column) {
			return waybill.InvalidField(want.field, strconv.QuoteToGraphic(short(want.column))+" is no column of the spine; it has "+strings.Join(names, ", "))
		}
	}
	if t.LabelColumn != "" && t.LabelColumn == t.TimeColumn {
		return waybill.InvalidField("label_column", "is the time column; name another or none")
	}
	if n := slices.IndexFunc(p.service.Inputs, func(c Column) bool { return t.LabelColumn != "" && c.Name == t.LabelColumn }); n >= 0 && p.personalInput(n) {
		return waybill.InvalidField("label_column", "is a personal join key, of which the result has tokens; name another or none")
	}
	for _, l := range p.views {
		for _, k := range l.keys {
			if name := p.service.Inputs[k].Name; !slices.Contains(names, name) {
				return waybill.InvalidField("spine", "lacks the column "+name+"; it is a join key of "+l.ref.String())
			}
		}
	}
	taken, without := map[string]bool{}, slices.Clone(t.Without)
	for i := range p.outputs {
		name := p.outputName(i, t)
		if taken[name] {
			return waybill.InvalidField("full_names", "two features would be the column "+name+"; ask for full names")
		}
		taken[name] = true
		if at := slices.Index(without, name); at >= 0 && p.places[i] >= len(p.service.Inputs) {
			without = slices.Delete(without, at, at+1)
			continue
		}
		if p.places[i] >= len(p.service.Inputs) && slices.Contains(names, name) {
			return waybill.InvalidField("spine", "has a column "+name+", and so has the result: "+name+" is computed as of each row's time; leave the column out, rename it, or ask for full names")
		}
	}
	if len(without) > 0 {
		return waybill.InvalidField("without", strconv.QuoteToGraphic(short(without[0]))+" is no feature or expression among the outputs of "+t.Service.String())
	}
	return nil
}

// examples are a spine's typed columns.
type examples struct {
	rows   int
	at     []int64       // µs
	inputs []arrow.Array // of the service; nulls where the spine has no such column
	shown  []arrow.Array // the inputs as the result holds them: of personal join keys, the tokens
	line   func(row int) string
}

// badCell names a cell of a spine. What stands in it is not told: it may be personal, and the error of a build is kept, for all
// who may read builds.
func badCell(line, column string, err error) error {
	return waybill.InvalidField(line+", "+column, hiding(err))
}

// buildColumn makes a column of n values; value's error is a remedy.
func buildColumn(t Type, n int, value func(i int) (any, error), bad func(i int, err error) error) (arrow.Array, error) {
	b := array.NewBuilder(memory.DefaultAllocator, arrowType(t))
	defer b.Release()
	b.Reserve(n)
	for i := range n {
		v, err := value(i)
		if err != nil {
			return nil, bad(i, err)
		}
		if err := appendValue(b, v); err != nil {
			return nil, err
		}
	}
	return b.NewArray(), nil
}

// examples types the spine's times and the service's inputs.
func (p *plan) examples(in *table, t *TrainingSet) (*examples, error) {
	e := &examples{rows: in.rows, at: make([]int64, in.rows), line: in.line}
	c := in.column(t.TimeColumn)
	for i := range e.at {
		at, err := toTime(in.cell(i, c))
		if err != nil {
			return nil, badCell(in.line(i), t.TimeColumn, err)
		}
		e.at[i] = at.UnixMicro()
	}
	for _, input := range p.service.Inputs {
		n := in.column(input.Name)
		if n < 0 {
			e.inputs = append(e.inputs, array.MakeArrayOfNull(memory.DefaultAllocator, arrowType(input.Type), in.rows))
			continue
		}
		a, err := buildColumn(input.Type, in.rows, func(i int) (any, error) {
			v, err := typed(input, in.cell(i, n))
			if text, ok := in.cell(i, n).(string); ok && t.Kernel == textKernel && input.Type == String && errors.Is(err, errZero) {
				return strings.ToValidUTF8(text, "\uFFFD"), nil // which was text to that kernel
			}
			return v, err
		},
			func(i int, err error) error { return badCell(in.line(i), input.Name, err) })
		if err != nil {
			return nil, err
		}
		e.inputs = append(e.inputs, a)
	}
	e.shown = p.shown(e.inputs)
	return e, nil
}

// Whose row the values of a view are of, for one row of the spine: a level of its chain from 0 on, or one of these.
const (
	ownRow int8 = -1
	noRow  int8 = -2
)

// joinViews returns a column for each feature of the plan, and for each view that is looked up whose row it is for every
// row of the spine. Views with the same join keys share the spine's order.
func (s *Store) joinViews(ctx context.Context, tenant waybill.Tenant, p *plan, views map[waybill.VersionRef]*View, e *examples, t *TrainingSet, withRuns bool) ([]arrow.Array, [][]int8, error) {
	out, found := make([]arrow.Array, len(p.features)), make([][]int8, len(p.views))
	orders := map[string]*asof.Order{}
	for l := range p.views {
		look := &p.views[l]
		if look.keys == nil { // it only stands in for others
			continue
		}
		var keys []arrow.Array
		id := fmt.Sprint(look.keys)
		for n, k := range look.keys {
			a := e.inputs[k]
			if a.NullN() > 0 {
				i := 0
				for a.IsValid(i) {
					i++
				}
				return nil, nil, badCell(e.line(i), p.service.Inputs[k].Name, errors.New("is missing; it is a join key of "+look.ref.String()))
			}
			if look.columns[n].personal() {
				a, id = e.shown[k], id+fmt.Sprint(" token ", n)
			}
			keys = append(keys, a)
		}
		if orders[id] == nil {
			o, err := asof.NewOrder(keys, e.rows)
			if err != nil {
				return nil, nil, err
			}
			orders[id] = o
		}
		var features, places []int
		for f := range p.features {
			if p.features[f].view == l {
				features, places = append(features, p.features[f].index), append(places, f)
			}
		}
		last := !p.chained && !slices.ContainsFunc(p.views[l+1:], func(v lookup) bool { return v.keys != nil })
		res, err := buildingOf(ctx).look(ctx, l, last, func() (*asof.Result, error) {
			return s.joinView(ctx, viewKey{tenant, look.ref}, views[look.ref], features, orders[id], e.at, t, withRuns)
		})
		if err != nil {
			return nil, nil, err
		}
		buildingOf(ctx).next()
		found[l] = make([]int8, e.rows)
		for i, ok := range res.Found {
			if found[l][i] = ownRow; !ok {
				found[l][i] = noRow
			}
		}
		for i, f := range places {
			out[f] = res.Columns[i]
		}
	}
	if p.chained {
		if err := s.joinFallbacks(ctx, tenant, p, views, e, t, withRuns, out, found); err != nil {
			return nil, nil, err
		}
	}
	return out, found, nil
}

// result lays the columns out: the spine's own (inputs typed by the service), then the outputs that are not among them.
func (p *plan) result(ctx context.Context, in *table, e *examples, features []arrow.Array, found [][]int8, t *TrainingSet) (*joined, error) {
	j := &joined{rows: e.rows}
	add := func(c Column, a arrow.Array, from []waybill.FeatureRef) {
		j.columns, j.arrays, j.from = append(j.columns, Column{Name: c.Name, Type: c.Type}), append(j.arrays, a), append(j.from, from)
	}
	for i, name := range in.names {
		c, a, err := p.spineColumn(in, i, e, t)
		if err != nil {
			return nil, err
		}
		add(Column{Name: name, Type: c}, a, nil)
	}
	computed, err := p.compute(ctx, e, features, found)
	if err != nil {
		return nil, err
	}
	for i, o := range p.outputs {
		name, place := p.outputName(i, t), p.places[i]
		if in.column(name) >= 0 || slices.Contains(t.Without, name) {
			continue
		}
		c := Column{Name: name, Type: o.Type}
		switch n := place - len(e.inputs); {
		case n < 0:
			add(c, e.shown[place], nil)
		case n < len(features):
			add(c, features[n], []waybill.FeatureRef{p.features[n].ref})
		default:
			add(c, computed[n-len(features)], p.reads(n-len(features)))
		}
	}
	return j, nil
}

// shown are inputs with the tokens of personal join keys in place of these.
func (p *plan) shown(inputs []arrow.Array) []arrow.Array {
	out := slices.Clone(inputs)
	for l := range p.views {
		look := &p.views[l]
		for i, k := range look.keys {
			if look.columns[i].personal() {
				out[k] = look.tokens.array(look.columns[i], inputs[k])
			}
		}
	}
	return out
}

// reads are the features that an expression reads.
func (p *plan) reads(expression int) (out []waybill.FeatureRef) {
	for _, n := range p.exprs[expression].uses {
		if f := n - len(p.service.Inputs); f >= 0 && f < len(p.features) {
			out = append(out, p.features[f].ref)
		}
	}
	return out
}

// spineColumn types a column of the spine: the time, the label, an input of the service, or a column of the spine's own, which
// keeps its type. The values of the last are held against the bounds of that type (a number is finite, NaN is null), but
// text may be any. A CSV file has texts only.
func (p *plan) spineColumn(in *table, c int, e *examples, t *TrainingSet) (Type, arrow.Array, error) {
	name := in.names[c]
	bad := func(i int, err error) error { return badCell(in.line(i), name, err) }
	if name == t.TimeColumn {
		a, err := buildColumn(Timestamp, in.rows, func(i int) (any, error) { return time.UnixMicro(e.at[i]).UTC(), nil }, bad)
		return Timestamp, a, err
	}
	if name == t.LabelColumn {
		numeric := true
		for i := 0; i < in.rows && numeric; i++ {
			_, err := label(in.cell(i, c))
			numeric = err == nil || errors.Is(err, errNotFinite)
		}
		if numeric {
			a, err := buildColumn(Float64, in.rows, func(i int) (any, error) { return label(in.cell(i, c)) }, bad)
			return Float64, a, err
		}
	} else if n := slices.IndexFunc(p.service.Inputs, func(c Column) bool { return c.Name == name }); n >= 0 {
		return p.service.Inputs[n].Type, e.shown[n], nil
	}
	if own := in.typeOf(c); own != String && t.Kernel != textKernel {
		a, err := buildColumn(own, in.rows, func(i int) (any, error) { return typed(Column{Type: own}, in.cell(i, c)) }, bad)
		return own, a, err
	}
	a, err := buildColumn(String, in.rows, func(i int) (any, error) {
		switch v := in.cell(i, c).(type) {
		case nil:
			return nil, nil
		case string:
			return v, nil
		case time.Time:
			return v.Format(time.RFC3339Nano), nil
		default:
			return fmt.Sprint(v), nil
		}
	}, bad)
	return String, a, err
}

// has says whether a feature is in the row that counts.
func (f *planned) has(level int8) bool { return level == ownRow || level >= 0 && f.stand[level] >= 0 }

// compute evaluates the expressions row by row, with the evaluator that serves them online.
func (p *plan) compute(ctx context.Context, e *examples, features []arrow.Array, found [][]int8) ([]arrow.Array, error) {
	if len(p.exprs) == 0 {
		return nil, nil
	}
	columns := slices.Clone(p.service.Inputs)
	for _, f := range p.features {
		columns = append(columns, Column{Name: f.ref.Feature, Type: f.typ})
	}
	sources := slices.Concat(e.inputs, features)
	builders := make([]array.Builder, len(p.exprs))
	for i := range p.exprs {
		builders[i] = array.NewBuilder(memory.DefaultAllocator, arrowType(p.exprs[i].column.Type))
		defer builders[i].Release()
	}
	for i := range e.rows {
		if i%1024 == 0 {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			buildingOf(ctx).passed(i, e.rows)
		}
		cells := make([]Cell, len(sources), len(sources)+len(p.exprs))
		for c, a := range sources {
			v, err := valueAt(columns[c].Type, a, i)
			if err != nil {
				return nil, err
			}
			cells[c] = cellOf(columns[c].Name, v)
			if f := c - len(e.inputs); f >= 0 && !p.features[f].has(found[p.features[f].view][i]) {
				cells[c].Status = NotFound
			}
		}
		cells, err := p.evaluate(cells)
		if waybill.CodeOf(err) == waybill.Invalid {
			return nil, badCell(e.line(i), "the expressions", err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.line(i), err)
		}
		for x, b := range builders {
			if err := appendValue(b, cells[len(sources)+x].Value); err != nil {
				return nil, err
			}
		}
	}
	out := make([]arrow.Array, len(builders))
	for i, b := range builders {
		out[i] = b.NewArray()
	}
	buildingOf(ctx).next()
	return out, nil
}

// label reads a label as a number: a truth value is 0 or 1, NaN is null as in every column. The error is a remedy without the field.
func label(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	if b, err := convert(Bool, v); err == nil {
		if _, number := v.(float64); !number {
			if b == true {
				return 1.0, nil
			}
			return 0.0, nil
		}
	}
	x, err := convert(Float64, v)
	if s, ok := v.(string); ok && err != nil {
		if _, err := strconv.ParseFloat(s, 64); errors.Is(err, strconv.ErrRange) {
			return nil, errNotFinite
		}
	}
	if err != nil {
		return nil, err
	}
	if f, ok := x.(float64); ok && math.IsInf(f, 0) {
		return nil, errNotFinite
	} else if ok && math.IsNaN(f) {
		return nil, nil
	}
	return x, nil
}

// errNotFinite says that a label is a number, but none that can be learned.
var errNotFinite = errors.New("is infinite or too large for float64; give a finite number")
