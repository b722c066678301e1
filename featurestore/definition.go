package featurestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"waybill"
)

// Bounds of a definition.
const (
	maxYAML        = 1 << 20
	maxDefinitions = 500
	maxColumns     = 1000
)

// Column is a typed join key, feature or input.
type Column struct {
	Name        string   `yaml:"name"`
	Type        Type     `yaml:"type"`
	Sensitivity string   `yaml:"sensitivity,omitempty"` // none (default), pseudonymous, personal, secret
	Description string   `yaml:"description,omitempty"`
	Required    bool     `yaml:"required,omitempty"` // null is refused
	Min         *float64 `yaml:"min,omitempty"`      // of numbers; inclusive, like Max
	Max         *float64 `yaml:"max,omitempty"`
	Values      []string `yaml:"values,omitempty"`     // the only texts allowed
	Pattern     *Pattern `yaml:"pattern,omitempty"`    // RE2; a text must match from its first to its last character
	MaxLength   int      `yaml:"max_length,omitempty"` // bytes of a text; 0 leaves it to the hub's own bound
	Clear       bool     `yaml:"clear,omitempty"`      // a personal value is needed as it is, not as its token; refused so far
}

// Entity is what a view's rows are about.
type Entity struct {
	Name string   `yaml:"name"`
	Keys []Column `yaml:"keys"`
}

// View is a set of features of one entity. What its users could notice (entity, features, expressions, ttl, fallback)
// makes a new version; the rest, descriptions included, a new revision of the same version.
type View struct {
	Kind        string            `yaml:"kind"`
	Name        string            `yaml:"name"`
	Owner       string            `yaml:"owner,omitempty"`
	Description string            `yaml:"description,omitempty"`
	Tags        map[string]string `yaml:"tags,omitempty"`
	External    map[string]string `yaml:"external,omitempty"` // an external signal: see checkExternal
	Entity      Entity            `yaml:"entity"`
	TTL         string            `yaml:"ttl,omitempty"` // "" and "0s": values never get too old
	Features    []Column          `yaml:"features"`
	Expressions []Expression      `yaml:"expressions,omitempty"` // over the view's own join keys and features, by name
	Fallback    *Fallback         `yaml:"fallback,omitempty"`    // where values come from when the row is missing or too old
}

// Expression is an on-demand feature.
type Expression struct {
	Name string `yaml:"name"`
	Type Type   `yaml:"type"`
	Expr string `yaml:"expr"` // CEL over inputs and features by name
}

// Service is what one model consumes. Its views are fixed versions once published.
type Service struct {
	Kind        string            `yaml:"kind"`
	Name        string            `yaml:"name"`
	Owner       string            `yaml:"owner,omitempty"`
	Description string            `yaml:"description,omitempty"`
	Tags        map[string]string `yaml:"tags,omitempty"`
	Inputs      []Column          `yaml:"inputs,omitempty"`
	Features    []string          `yaml:"features,omitempty"`
	Expressions []Expression      `yaml:"expressions,omitempty"`
	Outputs     []string          `yaml:"outputs,omitempty"` // the vector; default: features, then expressions
}

// Definitions are the documents of one YAML text, in their order.
type Definitions struct {
	Views    []View
	Services []Service
}

// ParseDefinitions reads YAML documents strictly: what is not known is an error that names it.
func ParseDefinitions(text []byte) (Definitions, error) {
	var out Definitions
	if len(text) > maxYAML {
		return out, waybill.Errorf(waybill.TooLarge, "the definitions have %d bytes; at most %d", len(text), maxYAML)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for n := 0; ; n++ {
		at := "documents[" + strconv.Itoa(n) + "]"
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			if n == 0 {
				return out, waybill.InvalidField("yaml", "holds no document; write kind: View or kind: Service")
			}
			return out, nil
		} else if err != nil {
			return out, waybill.InvalidField(at, "cannot be read: "+err.Error())
		}
		if n >= maxDefinitions {
			return out, waybill.Errorf(waybill.TooLarge, "more than %d documents", maxDefinitions)
		}
		var head struct {
			Kind string `yaml:"kind"`
		}
		if err := doc.Decode(&head); err != nil {
			return out, waybill.InvalidField(at, "is not a mapping with a kind")
		}
		raw, err := yaml.Marshal(&doc)
		if err != nil {
			return out, fmt.Errorf("marshal document: %w", err)
		}
		strict := yaml.NewDecoder(bytes.NewReader(raw))
		strict.KnownFields(true)
		switch head.Kind {
		case "View":
			var v View
			if err := strict.Decode(&v); err != nil {
				return out, waybill.InvalidField(at, err.Error())
			}
			if err := v.check(at); err != nil {
				return out, err
			}
			out.Views = append(out.Views, v)
		case "Service":
			var s Service
			if err := strict.Decode(&s); err != nil {
				return out, waybill.InvalidField(at, err.Error())
			}
			if err := s.check(at); err != nil {
				return out, err
			}
			out.Services = append(out.Services, s)
		default:
			return out, waybill.InvalidField(at+".kind", strconv.QuoteToGraphic(head.Kind)+" is not known; use View or Service")
		}
	}
}

func (v *View) ttl() (time.Duration, error) {
	if v.TTL == "" || v.TTL == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(v.TTL)
	if err != nil || d < 0 || d > 100*365*24*time.Hour {
		return 0, errors.New("is not a duration; write 90m, 6h or 720h, or 0s for no bound")
	}
	return d, nil
}

func (v *View) check(at string) error {
	var bad []waybill.Violation
	fail := func(field, remedy string) {
		bad = append(bad, waybill.Violation{Field: at + "." + field, Remedy: remedy})
	}
	if waybill.CheckName("name", v.Name) != nil {
		fail("name", "must be a lower-case name")
	}
	if waybill.CheckName("name", v.Entity.Name) != nil {
		fail("entity.name", "must be a lower-case name")
	}
	if len(v.Entity.Keys) == 0 || len(v.Entity.Keys) > 10 {
		fail("entity.keys", "must list 1 to 10 join keys")
	}
	if len(v.Features) == 0 || len(v.Features) > maxColumns {
		fail("features", "must list 1 to 1,000 features")
	}
	if _, err := v.ttl(); err != nil {
		fail("ttl", err.Error())
	}
	seen := map[string]bool{"event_time": true, "knowledge_time": true}
	checkColumns("entity.keys", v.Entity.Keys, seen, fail)
	checkColumns("features", v.Features, seen, fail)
	checkPersonal("entity.keys", v.Entity.Keys, fail)
	checkPersonal("features", v.Features, fail)
	if len(v.Features)+len(v.Expressions) > maxColumns {
		fail("expressions", "and features must be at most 1,000")
	}
	checkExpressions(v.Expressions, seen, fail)
	v.checkExternal(fail)
	v.Fallback.check(v.Name, fail)
	if len(bad) > 0 {
		return waybill.InvalidFields(bad)
	}
	for i := range v.Expressions {
		if _, err := v.expression(i, at+"."); err != nil {
			return err
		}
	}
	return nil
}

func checkColumns(path string, cols []Column, seen map[string]bool, fail func(field, remedy string)) {
	for i := range cols {
		checkColumn(path+"["+strconv.Itoa(i)+"]", &cols[i], seen, fail)
	}
}

func checkExpressions(list []Expression, seen map[string]bool, fail func(field, remedy string)) {
	for i, e := range list {
		checkColumn("expressions["+strconv.Itoa(i)+"]", &Column{Name: e.Name, Type: e.Type}, seen, fail)
	}
}

func checkColumn(at string, c *Column, seen map[string]bool, fail func(field, remedy string)) {
	if waybill.CheckName("name", c.Name) != nil || strings.Contains(c.Name, "-") {
		fail(at+".name", strconv.QuoteToGraphic(c.Name)+" must be a lower-case name without -")
	}
	if seen[c.Name] {
		fail(at+".name", c.Name+" is taken; names are unique within a definition, and event_time and knowledge_time are reserved")
	}
	seen[c.Name] = true
	switch {
	case !c.Type.known():
		fail(at+".type", strconv.QuoteToGraphic(string(c.Type))+" is not supported; use "+typeNames())
	case strings.HasPrefix(at, "entity.keys[") && !c.Type.scalar():
		fail(at+".type", string(c.Type)+" cannot be a join key; use a scalar type")
	}
	if c.Sensitivity != "" && !slices.Contains(sensitivities(), c.Sensitivity) {
		fail(at+".sensitivity", "must be none, pseudonymous, personal or secret")
	}
	checkConstraints(at, c, fail)
}

// checkPersonal holds what is personal against what can be done with it: text is stored as its token.
func checkPersonal(path string, cols []Column, fail func(field, remedy string)) {
	for i, c := range cols {
		at := path + "[" + strconv.Itoa(i) + "]"
		if c.personal() && c.Type != String {
			fail(at+".type", "cannot be "+strconv.QuoteToGraphic(string(c.Type))+": a personal value is stored as the token of its text; make it string or leave the column out")
		}
		if c.Clear {
			fail(at+".clear", "is not supported: a value in clear has to be sealed with its person's own key, and there are no such keys; leave it out, and the column holds tokens")
		}
	}
}

func (s *Service) check(at string) error {
	var bad []waybill.Violation
	fail := func(field, remedy string) {
		bad = append(bad, waybill.Violation{Field: at + "." + field, Remedy: remedy})
	}
	if waybill.CheckName("name", s.Name) != nil {
		fail("name", "must be a lower-case name")
	}
	if len(s.Inputs)+len(s.Features)+len(s.Expressions) > maxColumns || len(s.Features)+len(s.Expressions)+len(s.Outputs) == 0 {
		fail("features", "and expressions must be 1 to 1,000")
	}
	seen := map[string]bool{}
	checkColumns("inputs", s.Inputs, seen, fail)
	for i, f := range s.Features {
		ref, err := waybill.ParseFeatureRef("f", f)
		if err != nil || seen[ref.Feature] {
			fail("features["+strconv.Itoa(i)+"]", strconv.QuoteToGraphic(f)+" must be view@v1:feature with a feature name that is there once")
		}
		seen[ref.Feature] = true
	}
	checkExpressions(s.Expressions, seen, fail)
	for i, o := range s.Outputs {
		if !seen[o] || slices.Index(s.Outputs, o) != i {
			fail("outputs["+strconv.Itoa(i)+"]", o+" must name an input, feature or expression of the service, once")
		}
	}
	return waybill.InvalidFields(bad)
}

// digest identifies what a definition says.
func digest(doc any) (string, []byte, error) {
	raw, err := yaml.Marshal(doc)
	if err != nil {
		return "", nil, fmt.Errorf("marshal definition: %w", err)
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:]), raw, nil
}

// essence is the part of a definition whose change makes a new version: what it means, not how it is written.
func (v View) essence() any {
	ttl, err := v.ttl()
	text := ttl.String()
	if err != nil {
		text = v.TTL // cannot be: it was checked
	}
	v.Entity.Keys = bare(v.Entity.Keys)
	return struct {
		E Entity
		T string
		F []Column
		X []Expression
		B *Fallback
	}{v.Entity, text, bare(v.Features), v.Expressions, v.Fallback}
}

func (s Service) essence() any {
	return struct {
		I []Column
		F []string
		E []Expression
		O []string
	}{bare(s.Inputs), s.Features, s.Expressions, s.Outputs}
}

// bare returns columns without what is only said about them.
func bare(cols []Column) []Column {
	out := slices.Clone(cols)
	for i := range out {
		out[i].Description = ""
		if out[i].Sensitivity == "none" {
			out[i].Sensitivity = ""
		}
	}
	return out
}
