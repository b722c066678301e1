package featurestore

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"waybill"
	"waybill/internal/expr"
)

// maxChain is how many views a value may be looked for in: the view itself and those that it falls back to.
const maxChain = 5

// Fallback names the parent of a view: the coarser view that stands in for it where there is no row or only one that is
// too old (a new SKU has no history, its category has). The parent's features of the same name, which must be of the same
// type, take the place of the view's; a feature that the parent lacks stays missing. The view's own expressions are
// computed from what stands in. The parent may fall back in turn.
//
// A row stands in as a whole: the first view of the chain with a row that is not too old gives all values, so that two
// features of one vector never come from two places. Its nulls are nulls.
type Fallback struct {
	View string `yaml:"view"` // "category_load@v1"; latest is resolved when the view is published
	// Keys says how each join key of the parent is found: a CEL expression over the view's own join keys and, under the
	// parent's own name for the key, over the input or feature of that name of the service that reads. A key that is not
	// listed is the one of the same name. {category: category} and {} mean the same; {scope: "'all'"} is one row for all.
	Keys map[string]string `yaml:"keys,omitempty"`
}

func (f *Fallback) check(name string, fail func(field, remedy string)) {
	if f == nil {
		return
	}
	ref, err := waybill.ParseVersionRef("view", f.View)
	switch {
	case err != nil:
		fail("fallback.view", strconv.QuoteToGraphic(short(f.View))+" must be a view version such as category_load@v1")
	case ref.Name == name:
		fail("fallback.view", "is the view itself; name the coarser view that stands in for it")
	}
	if len(f.Keys) > 10 {
		fail("fallback.keys", "must list at most 10 join keys")
	}
}

// keyFormula makes one join key of a parent.
type keyFormula struct {
	column  Column // of the parent
	formula *expr.Program
	own     []string // join keys of the child that it reads
	asked   string   // input or feature of the reading service that it reads: the parent's own name, or ""
	copied  bool     // it is one of these as it stands, and nothing is computed
}

// expression compiles one on-demand feature of the view; at stands before the field in errors.
func (v *View) expression(i int, at string) (*expr.Program, error) {
	vars := map[string]expr.Type{}
	for _, c := range slices.Concat(v.Entity.Keys, v.Features) {
		vars[c.Name] = celType(c.Type)
	}
	e := v.Expressions[i]
	return expr.Compile(at+"expressions["+strconv.Itoa(i)+"].expr", e.Expr, vars, celType(e.Type))
}

// value finds a feature or expression of the view by name.
func (v *View) value(name string) (Column, bool) {
	for _, c := range v.Features {
		if c.Name == name {
			return c, true
		}
	}
	for _, e := range v.Expressions {
		if e.Name == name {
			return Column{Name: e.Name, Type: e.Type}, true
		}
	}
	return Column{}, false
}

// fallbackKeys compiles how the parent's join key is made, and holds the view against its parent. Errors: Invalid, naming
// the field of the fallback.
func (v *View) fallbackKeys(parent *View, ref waybill.VersionRef) ([]keyFormula, error) {
	const at = "fallback.keys."
	vars := map[string]expr.Type{}
	for _, k := range parent.Entity.Keys {
		if k.personal() {
			return nil, waybill.InvalidField("fallback.view", ref.String()+" has the personal join key "+k.Name+", and its rows are found by tokens alone, which nothing that leads to them is; name a view without one")
		}
		vars[k.Name] = celType(k.Type)
	}
	own := map[string]bool{}
	for _, k := range v.Entity.Keys { // own keys hide the service's
		vars[k.Name], own[k.Name] = celType(k.Type), true
	}
	for _, name := range slices.Sorted(maps.Keys(v.Fallback.Keys)) {
		if !slices.ContainsFunc(parent.Entity.Keys, func(c Column) bool { return c.Name == name }) {
			return nil, waybill.InvalidField(at+short(name), "is no join key of "+ref.String()+"; it has "+joinNames(parent.Entity.Keys))
		}
	}
	out := make([]keyFormula, 0, len(parent.Entity.Keys))
	for _, k := range parent.Entity.Keys {
		source := v.Fallback.Keys[k.Name]
		if source == "" {
			source = k.Name
		}
		p, err := expr.Compile(at+k.Name, source, vars, celType(k.Type))
		if err != nil {
			return nil, err
		}
		f := keyFormula{column: k, formula: p}
		for _, name := range p.Vars() {
			switch {
			case own[name]:
				f.own = append(f.own, name)
			case name == k.Name:
				f.asked = name
			default:
				return nil, waybill.InvalidField(at+k.Name, "reads "+name+", another join key of "+ref.String()+"; it may read "+k.Name+" and "+joinNames(v.Entity.Keys))
			}
		}
		if text := strings.TrimSpace(source); len(f.own)+len(f.asked) > 0 && slices.Contains(p.Vars(), text) {
			if f.copied = true; text != f.asked && v.keyType(text) != k.Type {
				return nil, waybill.InvalidField(at+k.Name, fmt.Sprintf("is %s (%s), and the join key of %s is %s; they must be of one type", text, v.keyType(text), ref, k.Type))
			}
		}
		out = append(out, f)
	}
	shared := 0
	for _, c := range v.Features {
		n := slices.IndexFunc(parent.Features, func(p Column) bool { return p.Name == c.Name })
		if n < 0 {
			continue
		}
		if shared++; parent.Features[n].Type != c.Type {
			return nil, waybill.InvalidField("fallback.view", fmt.Sprintf("%s has %s as %s, and the view as %s; a fallback has the same type", ref, c.Name, parent.Features[n].Type, c.Type))
		}
	}
	if shared == 0 {
		return nil, waybill.InvalidField("fallback.view", ref.String()+" has no feature of a name that the view has; it could stand in for none")
	}
	return out, nil
}

// keyType is the type of a join key, "" when there is none of that name.
func (v *View) keyType(name string) Type {
	for _, k := range v.Entity.Keys {
		if k.Name == name {
			return k.Type
		}
	}
	return ""
}

func joinNames(cols []Column) string {
	names := make([]string, len(cols))
	for i, c := range cols {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}
