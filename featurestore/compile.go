package featurestore

import (
	"fmt"
	"slices"
	"strings"

	"waybill"
	"waybill/internal/expr"
)

// plan is a compiled service. A row is read into cells: the inputs, then the features, then what is computed from those.
type plan struct {
	service  Service
	views    []lookup
	features []planned // those that the service lists, then those that only expressions of views read
	exprs    []formula // expressions of views, then those of the service
	outputs  []Column  // with the strictest sensitivity of what each is made of
	places   []int     // output → place among the cells
	secrets  []Secret
	unkeyed  []int // places of inputs that are no join key of a view
	chained  bool  // some view has others that stand in for it
}

// lookup is one row of one view, which all of the view's features are read from.
type lookup struct {
	ref   waybill.VersionRef
	keys  []int   // places of the join keys among the inputs; nil for a view that only stands in for others
	chain []level // the views that stand in for it, the nearest first

	columns []Column // the join keys as the view has them
	plain   []bool   // the input of each has no constraint, and its value is no token: it is the key as it stands
	tokens  tokens   // of its personal join keys; see Store.tokenising
}

// level is a view that stands in for another.
type level struct {
	view int // place in plan.views
	keys []levelKey
}

// levelKey makes one join key of a level.
type levelKey struct {
	keyFormula
	place int // of the input or feature that it asks for; −1 for none
}

type planned struct {
	ref   waybill.FeatureRef
	typ   Type
	view  int   // place in plan.views
	index int   // of the feature in the view's row
	stand []int // its index in the row of each level of the view's chain; −1 where that lacks it
}

// formula is an expression of the service or of a view.
type formula struct {
	*expr.Program
	column  Column
	field   string   // in errors
	names   []string // what it reads
	uses    []int    // places of that among the cells
	sources []string // of Cell
	// row is the place of a feature of the view whose expression this is, −1 for one of the service: an expression of a
	// view is a value of its row, and without the row there is none.
	row int
}

// request is the source of what comes with the request.
const request = "request"

// Secret is an output that tells values of the class secret, and the views that these come from, by name.
type Secret struct {
	Output string
	Views  []string
}

// compiler collects what compileService finds by name and by place.
type compiler struct {
	*plan
	view    func(waybill.VersionRef) (*View, error)
	known   map[waybill.VersionRef]*View
	named   map[string]int // what expressions of the service may read, and outputs be: name → place
	columns []Column       // by place
	secret  [][]string     // by place: views whose secret values it tells
	sources [][]string     // by place
	vars    map[string]expr.Type
}

// compileService resolves columns, compiles expressions and lays the chains of fallbacks out.
func compileService(s Service, view func(waybill.VersionRef) (*View, error)) (*plan, error) {
	c := &compiler{plan: &plan{service: s}, view: view, known: map[waybill.VersionRef]*View{}, named: map[string]int{}, vars: map[string]expr.Type{}}
	for _, in := range s.Inputs {
		c.name(in.Name, c.cell(in, nil, []string{request}))
	}
	type computed struct {
		v      *View
		at     int // of the view in plan.views
		i      int // of the expression
		listed int // place in Features
	}
	var later []computed
	listed := make([]int, len(s.Features)) // place of each: by place, since a list that is no service may have a name twice
	for i, f := range s.Features {
		field := fmt.Sprintf("features[%d]", i)
		ref, err := waybill.ParseFeatureRef(field, f)
		if err != nil {
			return nil, err
		}
		at, err := c.look(ref.View)
		if err != nil {
			return nil, err
		}
		v := c.known[ref.View]
		if n := slices.IndexFunc(v.Features, func(c Column) bool { return c.Name == ref.Feature }); n >= 0 {
			listed[i] = c.feature(at, n)
			c.name(ref.Feature, listed[i])
			continue
		}
		n := slices.IndexFunc(v.Expressions, func(e Expression) bool { return e.Name == ref.Feature })
		if n < 0 {
			return nil, waybill.InvalidField(field, ref.View.String()+" has no feature "+ref.Feature)
		}
		later = append(later, computed{v, at, n, i})
	}
	for i := range c.views { // grows while it is walked: by views that only stand in
		if c.views[i].keys != nil {
			if err := c.fallBack(i); err != nil {
				return nil, err
			}
		}
	}
	var formulas []formula
	for _, l := range later {
		f, err := c.ofView(l.v, l.at, l.i)
		if err != nil {
			return nil, err
		}
		formulas = append(formulas, f)
	}
	for i := range c.features {
		c.stand(i)
	}
	for i, f := range formulas { // all features have their places by now
		n := c.formula(f)
		listed[later[i].listed] = n
		c.name(f.column.Name, n)
	}
	names, places := s.Outputs, listed
	if len(names) == 0 {
		for _, f := range s.Features {
			names = append(names, f[strings.LastIndexByte(f, ':')+1:])
		}
	}
	for i, e := range s.Expressions {
		field := fmt.Sprintf("expressions[%d].expr", i)
		prog, err := expr.Compile(field, e.Expr, c.vars, celType(e.Type))
		if err != nil {
			return nil, err
		}
		f := formula{Program: prog, column: Column{Name: e.Name, Type: e.Type}, field: field, names: prog.Vars(), row: -1}
		for _, name := range f.names {
			f.uses = append(f.uses, c.named[name])
		}
		c.named[e.Name] = c.formula(f) // and not c.name: expressions do not read each other
		if len(s.Outputs) == 0 {
			names, places = append(names, e.Name), append(places, c.named[e.Name])
		}
	}
	for i := range c.exprs {
		for _, n := range c.exprs[i].uses {
			if n < len(s.Inputs) && c.personalInput(n) {
				return nil, waybill.InvalidField(c.exprs[i].field, "reads "+s.Inputs[n].Name+", a personal join key; nothing is computed from those, since training sets hold their tokens: leave it out")
			}
		}
	}
	if len(s.Outputs) > 0 {
		places = nil
		for _, name := range s.Outputs {
			places = append(places, c.named[name])
		}
	}
	return c.finish(names, places), nil
}

// personalInput says whether an input is a join key that a view stores as its token.
func (p *plan) personalInput(n int) bool {
	return slices.ContainsFunc(p.views, func(l lookup) bool {
		for i, k := range l.keys {
			if k == n && l.columns[i].personal() {
				return true
			}
		}
		return false
	})
}

// finish lays the outputs out.
func (c *compiler) finish(names []string, places []int) *plan {
	p := c.plan
	for k := range p.service.Inputs {
		if !slices.ContainsFunc(p.views, func(l lookup) bool { return slices.Contains(l.keys, k) }) {
			p.unkeyed = append(p.unkeyed, k)
		}
	}
	for i, name := range names {
		n := places[i]
		p.places, p.outputs = append(p.places, n), append(p.outputs, c.columns[n])
		if s := c.secret[n]; len(s) > 0 {
			p.secrets = append(p.secrets, Secret{name, s})
		}
	}
	return p
}

// cell gives a column the next place.
func (c *compiler) cell(col Column, secret, sources []string) int {
	c.columns, c.secret, c.sources = append(c.columns, col), append(c.secret, secret), append(c.sources, sources)
	return len(c.columns) - 1
}

func (c *compiler) name(name string, place int) {
	c.named[name], c.vars[name] = place, celType(c.columns[place].Type)
}

func (c *compiler) load(ref waybill.VersionRef) (*View, error) {
	if v, ok := c.known[ref]; ok {
		return v, nil
	}
	v, err := c.view(ref)
	if err == nil {
		c.known[ref] = v
	}
	return v, err
}

// look returns the place of a view that is looked up by the service's inputs.
func (c *compiler) look(ref waybill.VersionRef) (int, error) {
	v, err := c.load(ref)
	if err != nil {
		return 0, err
	}
	if at := slices.IndexFunc(c.views, func(l lookup) bool { return l.ref == ref }); at >= 0 {
		return at, nil
	}
	l := lookup{ref: ref, columns: v.Entity.Keys}
	for _, k := range v.Entity.Keys {
		n := slices.IndexFunc(c.service.Inputs, func(c Column) bool { return c.Name == k.Name })
		if n < 0 {
			return 0, waybill.InvalidField("inputs", fmt.Sprintf("lack the join key %s (%s) of %s", k.Name, k.Type, ref))
		}
		in := &c.service.Inputs[n]
		l.keys = append(l.keys, n)
		l.plain = append(l.plain, in.Min == nil && in.Max == nil && len(in.Values) == 0 && in.Pattern == nil && in.MaxLength == 0 && !k.personal())
	}
	c.views = append(c.views, l)
	return len(c.views) - 1, nil
}

// feature returns the place of a feature of a view.
func (c *compiler) feature(at, index int) int {
	ref := c.views[at].ref
	v := c.known[ref]
	if n := slices.IndexFunc(c.features, func(f planned) bool { return f.view == at && f.index == index }); n >= 0 {
		return len(c.service.Inputs) + n
	}
	col := v.Features[index]
	c.features = append(c.features, planned{ref: waybill.FeatureRef{View: ref, Feature: col.Name}, typ: col.Type, view: at, index: index})
	var secret []string
	if col.Restricted() {
		secret = []string{ref.Name}
	}
	return c.cell(col, secret, []string{ref.String()})
}

// formula gives an expression its place; it is as sensitive as the most sensitive of what it reads.
func (c *compiler) formula(f formula) int {
	var secret []string
	f.sources = []string{}
	for _, n := range f.uses {
		f.column.Sensitivity = stricter(f.column.Sensitivity, c.columns[n].Sensitivity)
		secret, f.sources = append(secret, c.secret[n]...), append(f.sources, c.sources[n]...)
	}
	slices.Sort(secret)
	slices.Sort(f.sources)
	f.sources = slices.Compact(f.sources)
	c.exprs = append(c.exprs, f)
	return c.cell(f.column, slices.Compact(secret), f.sources)
}

// ofView compiles an expression of a view. What it reads is read with it, whether the service lists that or not.
func (c *compiler) ofView(v *View, at, i int) (formula, error) {
	field := c.views[at].ref.String() + "."
	prog, err := v.expression(i, field)
	if err != nil {
		return formula{}, err
	}
	e := v.Expressions[i]
	f := formula{Program: prog, column: Column{Name: e.Name, Type: e.Type}, field: fmt.Sprintf("%sexpressions[%d].expr", field, i), names: prog.Vars(), row: -1}
	for _, name := range f.names {
		if k := slices.IndexFunc(v.Entity.Keys, func(c Column) bool { return c.Name == name }); k >= 0 {
			f.uses = append(f.uses, c.views[at].keys[k])
			continue
		}
		f.row = c.feature(at, slices.IndexFunc(v.Features, func(c Column) bool { return c.Name == name }))
		f.uses = append(f.uses, f.row)
	}
	if f.row < 0 {
		f.row = c.feature(at, 0)
	}
	return f, nil
}

// fallBack lays out what stands in for a view.
func (c *compiler) fallBack(at int) error {
	child := c.known[c.views[at].ref]
	for child.Fallback != nil && len(c.views[at].chain) < maxChain {
		ref, err := waybill.ParseVersionRef("fallback.view", child.Fallback.View)
		if err != nil {
			return err
		}
		parent, err := c.load(ref)
		if err != nil {
			return err
		}
		keys, err := child.fallbackKeys(parent, ref)
		if err != nil {
			return err
		}
		l := level{view: slices.IndexFunc(c.views, func(l lookup) bool { return l.ref == ref })}
		if l.view < 0 {
			c.views, l.view = append(c.views, lookup{ref: ref, columns: parent.Entity.Keys}), len(c.views)
		}
		for _, k := range keys {
			lk := levelKey{k, -1}
			if k.asked != "" {
				n, ok := c.named[k.asked]
				if !ok || c.columns[n].Type != k.column.Type {
					return waybill.InvalidField("inputs", fmt.Sprintf("lack %s (%s), by which %s falls back on %s; add it as an input, or list a feature of that name and type",
						k.asked, k.column.Type, c.views[at].ref, ref))
				}
				lk.place = n
			}
			l.keys = append(l.keys, lk)
		}
		c.views[at].chain, c.chained = append(c.views[at].chain, l), true
		child = parent
	}
	return nil
}

// stand finds a feature in the rows of the views that stand in for its own. It is as sensitive as the strictest of them,
// and as what these are looked up by: which row is found tells the key, and the next key is made of it.
func (c *compiler) stand(i int) {
	f, n := &c.features[i], len(c.service.Inputs)+i
	var keys []string // views whose secret values are in the keys so far
	for _, l := range c.views[f.view].chain {
		for _, k := range l.keys {
			if k.place >= 0 {
				keys = append(keys, c.secret[k.place]...)
			}
		}
		ref := c.views[l.view].ref
		parent := c.known[ref]
		at := slices.IndexFunc(parent.Features, func(c Column) bool { return c.Name == f.ref.Feature && c.Type == f.typ })
		f.stand = append(f.stand, at)
		if at < 0 {
			continue
		}
		c.columns[n].Sensitivity = stricter(c.columns[n].Sensitivity, parent.Features[at].Sensitivity)
		c.sources[n] = append(c.sources[n], ref.String())
		c.secret[n] = append(c.secret[n], keys...)
		if parent.Features[at].Restricted() {
			c.secret[n] = append(c.secret[n], ref.Name)
		}
	}
	slices.Sort(c.secret[n])
	c.secret[n] = slices.Compact(c.secret[n])
}

// eachKey walks the chain of the view at a place and calls try with every level whose join key can be made, until that
// returns true or an error. Keys are made of the cells of inputs and features as they were read directly; a level whose
// key lacks a value is passed over.
func (p *plan) eachKey(at int, cells []Cell, try func(level int, key []any) (done bool, err error)) error {
	l := &p.views[at]
	own := make(map[string]any, len(l.keys))
	for _, n := range l.keys {
		own[cells[n].Name] = cells[n].Value
	}
	for i := range l.chain {
		next, key := make(map[string]any, len(l.chain[i].keys)), make([]any, 0, len(l.chain[i].keys))
		for k := range l.chain[i].keys {
			lk := &l.chain[i].keys[k]
			v, err := lk.value(own, cells)
			if err != nil {
				return err
			}
			if next[lk.column.Name] = v; v != nil {
				key = append(key, v)
			}
		}
		if own = next; len(key) < len(next) {
			continue
		}
		if done, err := try(i, key); err != nil || done {
			return err
		}
	}
	return nil
}

// value computes a join key; nil when what it needs is missing.
func (k *levelKey) value(own map[string]any, cells []Cell) (any, error) {
	if k.copied {
		if k.place >= 0 {
			return cells[k.place].Value, nil
		}
		return own[k.own[0]], nil
	}
	vars, missing := make(map[string]any, len(k.own)+1), false
	for _, name := range k.own {
		vars[name] = celValue(own[name])
		missing = missing || own[name] == nil
	}
	if k.place >= 0 {
		vars[k.asked] = celValue(cells[k.place].Value)
		missing = missing || cells[k.place].Value == nil
	}
	v, err := k.formula.Eval(vars)
	if err != nil {
		if missing {
			return nil, nil
		}
		return nil, err
	}
	if v, err = typed(Column{Type: k.column.Type}, v); err != nil {
		return nil, waybill.InvalidField("fallback.keys."+k.column.Name, "the result "+err.Error())
	}
	return v, nil
}
