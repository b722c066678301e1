package featurestore

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"waybill"
	"waybill/internal/expr"
)

// Status says what a value is worth.
type Status string

// The statuses, as Feast names them.
const (
	Present       Status = "PRESENT"
	NullValue     Status = "NULL_VALUE"      // the row is there, the value is null
	NotFound      Status = "NOT_FOUND"       // no row for the key
	OutsideMaxAge Status = "OUTSIDE_MAX_AGE" // now − event time > ttl; the value is withheld
)

// Cell is one value of a vector and where it came from.
type Cell struct {
	Name   string
	Value  any // bool, int64, float64, string, time.Time or nil
	Status Status
	View   waybill.VersionRef // zero for inputs and expressions
	Event  time.Time          // zero when there is no row
	Seq    int64              // commit that wrote it
}

// Vector is a service's outputs for one row.
type Vector struct {
	Values []float64 // numeric reading; NaN for missing and for text
	Cells  []Cell
}

// plan is a compiled service.
type plan struct {
	service  Service
	features []planned
	exprs    []*expr.Program
	outputs  []Column
	places   []int // output → place among inputs, features, expressions
}

type planned struct {
	ref   waybill.FeatureRef
	keys  []Column
	index int // of the feature in the view's row
	typ   Type
}

// Reader reads one service version. It is immutable and safe for concurrent use.
type Reader struct {
	*plan
	version waybill.VersionRef
	online  []*online // per planned feature
}

// compileService resolves columns and compiles expressions.
func compileService(s Service, view func(waybill.VersionRef) (*View, error)) (*plan, error) {
	p := &plan{service: s}
	vars := map[string]expr.Type{}
	var all []Column
	for _, in := range s.Inputs {
		vars[in.Name] = celType(in.Type)
		all = append(all, in)
	}
	for i, f := range s.Features {
		ref, err := waybill.ParseFeatureRef(fmt.Sprintf("features[%d]", i), f)
		if err != nil {
			return nil, err
		}
		v, err := view(ref.View)
		if err != nil {
			return nil, err
		}
		n := slices.IndexFunc(v.Features, func(c Column) bool { return c.Name == ref.Feature })
		if n < 0 {
			return nil, waybill.InvalidField(fmt.Sprintf("features[%d]", i), ref.View.String()+" has no feature "+ref.Feature)
		}
		p.features = append(p.features, planned{ref, v.Entity.Keys, n, v.Features[n].Type})
		vars[ref.Feature] = celType(v.Features[n].Type)
		all = append(all, v.Features[n])
	}
	for i, e := range s.Expressions {
		prog, err := expr.Compile(fmt.Sprintf("expressions[%d].expr", i), e.Expr, vars, celType(e.Type))
		if err != nil {
			return nil, err
		}
		p.exprs = append(p.exprs, prog)
		all = append(all, Column{Name: e.Name, Type: e.Type})
	}
	names := s.Outputs
	if len(names) == 0 {
		for _, c := range all[len(s.Inputs):] {
			names = append(names, c.Name)
		}
	}
	for _, name := range names {
		n := slices.IndexFunc(all, func(c Column) bool { return c.Name == name })
		p.places = append(p.places, n)
		p.outputs = append(p.outputs, all[n])
	}
	return p, nil
}

// cachedReader is a compiled service and when its version was last found to be the one asked for.
type cachedReader struct {
	reader  *Reader
	checked time.Time
}

// latestFor is how long "the latest version" may be answered from memory.
const latestFor = time.Second

// Reader returns a compiled service version; version 0 is the latest, as of at most a second ago. Compiled versions are
// kept: they never change.
func (s *Store) Reader(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) (*Reader, error) {
	key := viewKey{tenant, ref}
	now := s.clock()
	if c, ok := s.readers.Load(key); ok {
		if c := c.(cachedReader); ref.Version != 0 || now.Sub(c.checked) < latestFor {
			return c.reader, nil
		}
	}
	sv, err := s.service(ctx, s.pool, tenant, ref)
	if err != nil {
		return nil, err
	}
	exact := viewKey{tenant, waybill.VersionRef{Name: sv.Name, Version: sv.Version}}
	c, ok := s.readers.Load(exact)
	if !ok {
		r, err := s.compile(ctx, tenant, sv)
		if err != nil {
			return nil, err
		}
		c = cachedReader{reader: r}
		s.readers.Store(exact, c)
	}
	if ref.Version == 0 {
		s.readers.Store(key, cachedReader{c.(cachedReader).reader, now})
	}
	return c.(cachedReader).reader, nil
}

func (s *Store) compile(ctx context.Context, tenant waybill.Tenant, sv storedService) (*Reader, error) {
	p, err := compileService(sv.Service, func(ref waybill.VersionRef) (*View, error) {
		v, err := s.view(ctx, s.pool, tenant, ref)
		return &v.View, err
	})
	if err != nil {
		return nil, err
	}
	r := &Reader{plan: p, version: waybill.VersionRef{Name: sv.Name, Version: sv.Version}}
	for _, f := range p.features {
		o, err := s.online(ctx, viewKey{tenant, f.ref.View})
		if err != nil {
			return nil, err
		}
		r.online = append(r.online, o)
	}
	s.follow(ctx)
	return r, nil
}

// Version is the service version that is read.
func (r *Reader) Version() waybill.VersionRef { return r.version }

// Inputs are the columns that every row must have.
func (r *Reader) Inputs() []Column { return r.service.Inputs }

// Outputs are the columns of the vector.
func (r *Reader) Outputs() []Column { return r.outputs }

// Read returns a vector per row. Rows hold the service's inputs by name; one that is absent is null, but a join key
// that is null or of another type is an Invalid error that names it.
func (r *Reader) Read(ctx context.Context, now time.Time, rows []map[string]any) ([]Vector, error) {
	out := make([]Vector, len(rows))
	for i, in := range rows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		cells, err := r.inputs(i, in)
		if err != nil {
			return nil, err
		}
		for j := range r.features {
			f := &r.features[j]
			keys := make([]any, len(f.keys))
			for k, col := range f.keys {
				n := slices.IndexFunc(r.service.Inputs, func(c Column) bool { return c.Name == col.Name })
				if cells[n].Value == nil {
					return nil, waybill.InvalidField(fmt.Sprintf("rows[%d].%s", i, col.Name), "is missing; it is a join key of "+f.ref.View.String())
				}
				keys[k] = cells[n].Value
			}
			cells = append(cells, r.online[j].cell(f, encodeKey(keys), now))
		}
		if cells, err = r.plan.evaluate(cells); err != nil {
			return nil, err
		}
		out[i] = r.vector(cells)
	}
	return out, nil
}

func (r *Reader) inputs(i int, in map[string]any) ([]Cell, error) {
	cells := make([]Cell, 0, len(r.service.Inputs)+len(r.features)+len(r.exprs))
	for _, c := range r.service.Inputs {
		v, err := typed(c, in[c.Name])
		if err != nil {
			return nil, waybill.InvalidField(fmt.Sprintf("rows[%d].%s", i, c.Name), err.Error())
		}
		cells = append(cells, cellOf(c.Name, v))
	}
	return cells, nil
}

func cellOf(name string, v any) Cell {
	if v == nil {
		return Cell{Name: name, Status: NullValue}
	}
	return Cell{Name: name, Value: v, Status: Present}
}

// cell looks one feature up.
func (o *online) cell(f *planned, key string, now time.Time) Cell {
	o.mu.RLock()
	r := o.rows[key]
	o.mu.RUnlock()
	if r == nil {
		return Cell{Name: f.ref.Feature, Status: NotFound, View: f.ref.View}
	}
	c := cellOf(f.ref.Feature, r.values[f.index])
	c.View, c.Event, c.Seq = f.ref.View, time.UnixMicro(r.event).UTC(), r.seq
	if o.ttl > 0 && now.Sub(c.Event) > o.ttl {
		c.Value, c.Status = nil, OutsideMaxAge
	}
	return c
}

// evaluate appends the on-demand features. A formula over a missing value that does not handle it gives null, as a
// missing feature does; training and serving go through here alike.
func (p *plan) evaluate(cells []Cell) ([]Cell, error) {
	if len(p.exprs) == 0 {
		return cells, nil
	}
	vars := make(map[string]any, len(cells))
	missing := false
	for _, c := range cells {
		vars[c.Name] = c.Value
		missing = missing || c.Value == nil
	}
	for i, prog := range p.exprs {
		v, err := prog.Eval(vars)
		if err != nil {
			if !missing {
				return nil, err
			}
			v = nil
		}
		cells = append(cells, cellOf(p.service.Expressions[i].Name, v))
	}
	return cells, nil
}

func (p *plan) vector(cells []Cell) Vector {
	v := Vector{Values: make([]float64, len(p.places)), Cells: make([]Cell, len(p.places))}
	for i, n := range p.places {
		v.Cells[i] = cells[n]
		x, ok := number(cells[n].Value)
		if !ok {
			x = math.NaN()
		}
		v.Values[i] = x
	}
	return v
}

// awaitFor bounds the wait for a commit whose caller set no deadline.
const awaitFor = 5 * time.Second

// Await returns once a commit of a view is visible to online reads of this node; ref.Version 0 is the latest version.
// Errors: Deadline when it is not in time.
func (s *Store) Await(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, seq int64) error {
	ctx, cancel := context.WithTimeout(ctx, awaitFor)
	defer cancel()
	v, err := s.view(ctx, s.pool, tenant, ref)
	if err != nil {
		return err
	}
	o, err := s.online(ctx, viewKey{tenant, waybill.VersionRef{Name: v.Name, Version: v.Version}})
	if err != nil {
		return err
	}
	for o.seq.Load() < seq {
		if err := s.Refresh(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if o.seq.Load() >= seq {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return waybill.Errorf(waybill.Deadline, "commit %d of %s@v%d is not visible yet; it has %d", seq, v.Name, v.Version, o.seq.Load())
		}
	}
	return nil
}
