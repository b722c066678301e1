package featurestore

import (
	"context"
	"math"
	"slices"
	"time"

	"waybill"
)

// Status says what a value is worth.
type Status string

// The statuses, as Feast names them.
const (
	Present       Status = "PRESENT"
	NullValue     Status = "NULL_VALUE"      // the row is there, the value is null
	NotFound      Status = "NOT_FOUND"       // no row for the key, or none whose event time has come
	OutsideMaxAge Status = "OUTSIDE_MAX_AGE" // now − event time > ttl; the value is withheld
	FellBack      Status = "FALLBACK"        // one of the two before, and the value is of the view that stands in
)

// Cell is one value of a vector and where it came from.
type Cell struct {
	Name   string
	Value  any // bool, int64, float64, string, time.Time or nil
	Status Status
	View   waybill.VersionRef // whose row it is, which may be one that stands in; zero for inputs and expressions of the service
	Event  time.Time          // zero when there is no row
	Seq    int64              // commit that wrote it
	// Sources says what an expression was computed from: "request" for the service's inputs and "view@v1" for features and
	// what may stand in for them, sorted; nil for inputs and features. It belongs to the reader: do not change it.
	Sources []string
}

// Vector is a service's outputs for one row.
type Vector struct {
	Values []float64 // numeric reading; NaN for missing and for text
	Cells  []Cell
}

// Reader reads one service version. It is immutable and safe for concurrent use.
type Reader struct {
	*plan
	version     waybill.VersionRef
	online      []*online // per looked-up view
	home, spare home      // of the store
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
	p, err := s.plan(ctx, tenant, sv.Service)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, tenant, p, waybill.VersionRef{Name: sv.Name, Version: sv.Version})
}

// open finds the online rows that a plan reads.
func (s *Store) open(ctx context.Context, tenant waybill.Tenant, p *plan, version waybill.VersionRef) (*Reader, error) {
	if err := s.tokenising(tenant, p); err != nil {
		return nil, err
	}
	r := &Reader{plan: p, version: version, home: s.home, spare: s.spare}
	for _, l := range p.views {
		o, err := s.online(ctx, viewKey{tenant, l.ref})
		if err != nil {
			return nil, err
		}
		r.online = append(r.online, o)
	}
	s.show(ctx, func(o *online) bool { return slices.Contains(r.online, o) })
	return r, nil
}

// plan compiles a published service.
func (s *Store) plan(ctx context.Context, tenant waybill.Tenant, sv Service) (*plan, error) {
	return compileService(sv, func(ref waybill.VersionRef) (*View, error) {
		v, err := s.view(ctx, s.pool, tenant, ref)
		return &v.View, err
	})
}

// Version is the service version that is read.
func (r *Reader) Version() waybill.VersionRef { return r.version }

// Inputs are the columns that every row must have.
func (r *Reader) Inputs() []Column { return r.service.Inputs }

// Outputs are the columns of the vector.
func (r *Reader) Outputs() []Column { return r.outputs }

// Secrets are the outputs that are for callers with the right to read what is personal on all of the views named.
func (r *Reader) Secrets() []Secret { return r.secrets }

// Secrets are those of a service version by what its views say now, whether or not it is read online.
func (s *Store) Secrets(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) ([]Secret, error) {
	sv, err := s.service(ctx, s.pool, tenant, ref)
	if err != nil {
		return nil, err
	}
	p, err := s.plan(ctx, tenant, sv.Service)
	if err != nil {
		return nil, err
	}
	return p.secrets, nil
}

// Read returns a vector per row. Rows hold the service's inputs by name; one that is absent is null, but a join key
// that is null or of another type is an Invalid error that names it. All features of a view come from one row of it, all
// rows of a view from one sequence point, and no value from after now. Errors: Unavailable while the log of a view has
// not been read, or when online rows live elsewhere and are lost there.
func (r *Reader) Read(ctx context.Context, now time.Time, rows []map[string]any) ([]Vector, error) {
	b := r.batch(len(rows))
	defer b.Release()
	for i, in := range rows {
		for k := range r.service.Inputs {
			if v := in[r.service.Inputs[k].Name]; v != nil {
				b.Set(i, k, v)
			}
		}
	}
	b.boxed = true
	if err := b.Read(ctx, now); err != nil {
		return nil, err
	}
	out := make([]Vector, len(rows))
	for i := range out {
		out[i] = r.vector(b.cells[i])
	}
	return out, nil
}

// find answers asks, from the spare home when the first cannot.
func (r *Reader) find(ctx context.Context, now int64, asks []ask, points []int64) error {
	for i := range asks {
		asks[i].online, asks[i].seq = r.online[asks[i].view], points[asks[i].view]
	}
	err := r.home.find(ctx, now, asks)
	if err != nil && r.spare != nil && waybill.CodeOf(err) == waybill.Unavailable {
		for i := range asks {
			asks[i].online, asks[i].seq = r.online[asks[i].view].spare, points[asks[i].view]
		}
		if again := r.spare.find(ctx, now, asks); waybill.CodeOf(again) != waybill.Unavailable {
			err = again
		}
	}
	if err != nil {
		return err
	}
	for i := range asks {
		points[asks[i].view] = asks[i].seq
	}
	return nil
}

// standing is a row that stands in for that of a view.
type standing struct {
	hit
	level int // of the view's chain; −1 when the view's own row counts
}

// standIn is a row that may stand in for another.
type standIn struct {
	view int
	key  string
}

// fetchStandIns asks for all rows that may stand in at once where each question is a journey. What fails here is tried again
// by fallBack, which says so if it matters.
func (b *Batch) fetchStandIns(ctx context.Context) error {
	r := b.reader
	if _, local := r.home.(inMemory); local {
		return nil
	}
	if b.ahead == nil {
		b.ahead = map[standIn]hit{}
	}
	asks := make([]ask, len(r.views))
	var wanted []standIn // in the order of the asks' keys, view by view
	for v := range asks {
		asks[v].view = v
	}
	for i := range b.rows {
		for j := range r.views {
			if len(r.views[j].chain) == 0 || b.hits[j*b.rows+i].status == Present {
				continue
			}
			if err := r.eachKey(j, b.cells[i], func(level int, key []any) (bool, error) {
				s := standIn{r.views[j].chain[level].view, encodeKey(key)}
				if _, known := b.ahead[s]; !known {
					b.ahead[s] = hit{}
					wanted = append(wanted, s)
				}
				return false, nil
			}); err != nil {
				continue // perhaps of a level that is not come to
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	slices.SortStableFunc(wanted, func(a, b standIn) int { return a.view - b.view })
	for _, s := range wanted {
		a := &asks[s.view]
		a.keys = append(a.keys, s.key...)
		a.ends, a.hits = append(a.ends, len(a.keys)), append(a.hits, hit{})
	}
	asks = slices.DeleteFunc(asks, func(a ask) bool { return len(a.ends) == 0 })
	if err := r.find(ctx, b.now.UnixMicro(), asks, b.points); err != nil {
		return err
	}
	n := 0
	for _, a := range asks {
		for _, h := range a.hits {
			b.ahead[wanted[n]] = h
			n++
		}
	}
	return nil
}

// standsIn returns the row that may stand in.
func (b *Batch) standsIn(ctx context.Context, s standIn) (hit, error) {
	if h, known := b.ahead[s]; known {
		return h, nil
	}
	one := []ask{{view: s.view, keys: []byte(s.key), ends: []int{len(s.key)}, hits: []hit{{}}}}
	err := b.reader.find(ctx, b.now.UnixMicro(), one, b.points)
	return one[0].hits[0], err
}

// fallBack looks for what stands in for rows that are missing or too old, and puts their values into the cells of the
// features of row i, with where they came from.
func (b *Batch) fallBack(ctx context.Context, i int) error {
	r, stood, cells := b.reader, b.stood[:0], b.cells[i]
	for j := range r.views {
		s := standing{level: -1}
		if len(r.views[j].chain) > 0 && b.hits[j*b.rows+i].status != Present {
			err := r.eachKey(j, cells, func(level int, key []any) (bool, error) {
				h, err := b.standsIn(ctx, standIn{r.views[j].chain[level].view, encodeKey(key)})
				if err == nil && h.status == Present {
					s = standing{h, level}
				}
				return s.level >= 0, err
			})
			if err != nil {
				return err
			}
		}
		stood = append(stood, s)
	}
	b.stood = stood
	for j := range r.features {
		f := &r.features[j]
		s := &stood[f.view]
		if s.level < 0 || f.stand[s.level] < 0 {
			continue
		}
		view := r.views[f.view].chain[s.level].view
		as := planned{ref: waybill.FeatureRef{View: r.views[view].ref, Feature: f.ref.Feature}, index: f.stand[s.level]}
		c := as.cell(&s.hit, r.online[view].layout)
		if c.Status == Present {
			c.Status = FellBack
		}
		cells[len(r.service.Inputs)+j] = c
	}
	return nil
}

func cellOf(name string, v any) Cell {
	if v == nil {
		return Cell{Name: name, Status: NullValue}
	}
	return Cell{Name: name, Value: v, Status: Present}
}

// cell reads one feature.
func (f *planned) cell(h *hit, l *layout) Cell {
	c := Cell{Name: f.ref.Feature, Status: h.status, View: f.ref.View}
	if h.status == NotFound {
		return c
	}
	c.Event, c.Seq = time.UnixMicro(h.event).UTC(), h.seq
	if h.status == Present {
		if c.Value = l.value(&h.packed, f.index); c.Value == nil {
			c.Status = NullValue
		}
	}
	return c
}

// evaluate appends the on-demand features, each converted to its declared type. A formula over a missing value that does
// not handle it gives null, as a missing feature does; one that fails although it has all that it reads is an error, and
// so is a result that the type cannot hold. Training and serving go through here alike.
func (p *plan) evaluate(cells []Cell) ([]Cell, error) {
	if len(p.exprs) == 0 {
		return cells, nil
	}
	vars := make(map[string]any, len(cells))
	for i := range p.exprs {
		c, err := p.exprs[i].evaluate(cells, vars)
		if err != nil {
			return nil, err
		}
		cells = append(cells, c)
	}
	return cells, nil
}

// evaluate computes one on-demand feature; vars is a buffer.
func (f *formula) evaluate(cells []Cell, vars map[string]any) (Cell, error) {
	c := Cell{Name: f.column.Name, Sources: f.sources}
	if f.row >= 0 {
		r := &cells[f.row]
		c.View, c.Event, c.Seq = r.View, r.Event, r.Seq
		if r.Status == NotFound || r.Status == OutsideMaxAge { // whatever the expression would make of nothing
			c.Status = r.Status
			return c, nil
		}
	}
	clear(vars)
	missing, fell := false, false
	for i, name := range f.names {
		v := &cells[f.uses[i]]
		vars[name] = celValue(v.Value)
		missing, fell = missing || v.Value == nil, fell || v.Status == FellBack
	}
	v, err := f.Eval(vars)
	if err != nil {
		if !missing {
			return c, err
		}
		v = nil
	} else if v, err = typed(Column{Name: c.Name, Type: f.column.Type}, v); err != nil {
		return c, waybill.InvalidField(f.field, "the result "+err.Error())
	}
	switch {
	case v == nil:
		c.Status = NullValue
	case fell && f.row >= 0:
		c.Value, c.Status = v, FellBack
	default:
		c.Value, c.Status = v, Present
	}
	return c, nil
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
