package featurestore

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// wording says how two definitions differ. essential are those that a reader of values could notice, and
// that make a new version; the others are only said about the definition, and make a new revision of the same.
type wording struct {
	essential, said []string
}

func (d *wording) add(format string, args ...any) {
	d.essential = append(d.essential, fmt.Sprintf(format, args...))
}

// becomes adds that one thing changed into another. "" is nothing.
func (d *wording) becomes(what, from, to string) {
	if s := becomes(what, from, to); s != "" {
		d.essential = append(d.essential, s)
	}
}

// about compares free texts; they are cut when they are shown.
func (d *wording) about(what, from, to string) {
	if from == to {
		return
	}
	words := becomes(what, quoted(from), quoted(to))
	if words == "" { // the difference is behind the cut, or between an empty text and none
		words = what + " changes"
	}
	d.said = append(d.said, words)
}

func becomes(what, from, to string) string {
	switch {
	case from == to:
		return ""
	case from == "":
		return what + ": " + to + " is new"
	case to == "":
		return what + ": " + from + " is taken away"
	}
	return what + ": " + from + " becomes " + to
}

// quoted shortens a free text for a list of differences.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return strconv.QuoteToGraphic(short(s))
}

// wordingOf compares a view with the version before.
func (v *View) wordingOf(old *View) (d wording) {
	d.becomes("entity", old.Entity.Name, v.Entity.Name)
	d.columns("join key", old.Entity.Keys, v.Entity.Keys)
	d.columns("feature", old.Features, v.Features)
	d.expressions(old.Expressions, v.Expressions)
	if a, b := old.lasts(), v.lasts(); a != b {
		d.add("time-to-live: %s becomes %s", a, b)
	}
	d.becomes("fallback", old.Fallback.words(), v.Fallback.words())
	d.about("owner", old.Owner, v.Owner)
	d.about("description", old.Description, v.Description)
	d.texts("tag", old.Tags, v.Tags)
	d.texts("external", old.External, v.External)
	return d
}

// wordingOf compares a service with the version before.
func (s *Service) wordingOf(old *Service) (d wording) {
	d.columns("input", old.Inputs, s.Inputs)
	d.features(old.Features, s.Features)
	d.expressions(old.Expressions, s.Expressions)
	d.becomes("outputs", listed(old.Outputs), listed(s.Outputs))
	d.about("owner", old.Owner, s.Owner)
	d.about("description", old.Description, s.Description)
	d.texts("tag", old.Tags, s.Tags)
	return d
}

// lasts is the time-to-live in words.
func (v *View) lasts() string {
	d, err := v.ttl()
	if err != nil || d == 0 {
		return "no bound"
	}
	return d.String()
}

func (f *Fallback) words() string {
	if f == nil {
		return ""
	}
	if len(f.Keys) == 0 {
		return f.View
	}
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(f.Keys)) {
		keys = append(keys, k+" = "+f.Keys[k])
	}
	return f.View + " by " + strings.Join(keys, ", ")
}

func listed(names []string) string {
	if len(names) > 12 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:12], ", "), len(names)-12)
	}
	return strings.Join(names, ", ")
}

// columns compares two lists of columns. What is demanded of the values counts as essential, what is said about them not.
func (d *wording) columns(kind string, old, now []Column) {
	was, is := byName(old), byName(now)
	for _, c := range old {
		if _, ok := is[c.Name]; !ok {
			d.add("%s %s (%s) is removed", kind, c.Name, c.Type)
		}
	}
	for i := range now {
		c := &now[i]
		o, ok := was[c.Name]
		if !ok {
			d.add("%s %s (%s) is added", kind, c.Name, c.Type)
			continue
		}
		name := kind + " " + c.Name
		d.becomes(name, string(o.Type), string(c.Type))
		if o.Required != c.Required {
			d.add("%s: null is %s", name, map[bool]string{true: "refused from now on", false: "allowed again"}[c.Required])
		}
		d.becomes(name+", min", bound(o.Min), bound(c.Min))
		d.becomes(name+", max", bound(o.Max), bound(c.Max))
		d.becomes(name+", values", listed(o.Values), listed(c.Values))
		if !slices.Equal(o.Values, c.Values) && listed(o.Values) == listed(c.Values) {
			d.add("%s: one of its many values changes", name)
		}
		d.becomes(name+", pattern", o.Pattern.words(), c.Pattern.words())
		d.becomes(name+", max_length", count(o.MaxLength), count(c.MaxLength))
		if a, b := stricter(o.Sensitivity, "none"), stricter(c.Sensitivity, "none"); class(a) != class(b) {
			d.add("%s, sensitivity: %s becomes %s", name, class(a), class(b))
		}
		d.about(name+", description", o.Description, c.Description)
	}
	names := func(cols []Column, among map[string]Column) (out []string) {
		for _, c := range cols {
			if _, ok := among[c.Name]; ok {
				out = append(out, c.Name)
			}
		}
		return out
	}
	if a, b := names(old, is), names(now, was); !slices.Equal(a, b) {
		d.add("order of the %ss: %s becomes %s", kind, listed(a), listed(b))
	}
}

// class is a sensitivity class; the empty word means none.
func class(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (p *Pattern) words() string {
	if p == nil {
		return ""
	}
	return p.text
}

func bound(x *float64) string {
	if x == nil {
		return ""
	}
	return strconv.FormatFloat(*x, 'g', -1, 64)
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func byName(cols []Column) map[string]Column {
	out := make(map[string]Column, len(cols))
	for _, c := range cols {
		out[c.Name] = c
	}
	return out
}

func (d *wording) expressions(old, now []Expression) {
	was := map[string]Expression{}
	for _, e := range old {
		was[e.Name] = e
	}
	var order []string
	for _, e := range now {
		o, ok := was[e.Name]
		if !ok {
			d.add("expression %s (%s) is added: %s", e.Name, e.Type, e.Expr)
			continue
		}
		order = append(order, e.Name)
		d.becomes("expression "+e.Name, string(o.Type), string(e.Type))
		if o.Expr != e.Expr {
			d.add("expression %s: %s becomes %s", e.Name, o.Expr, e.Expr)
		}
	}
	var before []string
	for _, e := range old {
		if slices.Contains(order, e.Name) {
			before = append(before, e.Name)
		} else {
			d.add("expression %s (%s) is removed", e.Name, e.Type)
		}
	}
	if !slices.Equal(before, order) {
		d.add("order of the expressions: %s becomes %s", listed(before), listed(order))
	}
}

// features compares the references of a service: by the feature's name, since that is what its reader knows it by.
func (d *wording) features(old, now []string) {
	view := func(list []string) map[string]string {
		out := map[string]string{}
		for _, f := range list {
			v, name, _ := strings.Cut(f, ":")
			out[name] = v
		}
		return out
	}
	was, is := view(old), view(now)
	var before, after []string
	for _, f := range old {
		v, name, _ := strings.Cut(f, ":")
		if _, ok := is[name]; !ok {
			d.add("feature %s of %s is removed", name, v)
			continue
		}
		before = append(before, name)
	}
	for _, f := range now {
		v, name, _ := strings.Cut(f, ":")
		o, ok := was[name]
		if !ok {
			d.add("feature %s of %s is added", name, v)
			continue
		}
		after = append(after, name)
		d.becomes("feature "+name, o, v)
	}
	if !slices.Equal(before, after) {
		d.add("order of the features: %s becomes %s", listed(before), listed(after))
	}
}

// texts compares what is only said about a definition.
func (d *wording) texts(kind string, old, now map[string]string) {
	names := map[string]bool{}
	for n := range old {
		names[n] = true
	}
	for n := range now {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		d.about(kind+" "+n, old[n], now[n])
	}
}
