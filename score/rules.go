package score

import (
	"bytes"
	"fmt"
	"math"
	"sort"

	"go.yaml.in/yaml/v3"

	"waybill"
	"waybill/internal/expr"
)

// maxRules bounds a rule set.
const maxRules = 1000

// RuleSet is a decision table: the first rule whose condition holds gives the score. It is the incumbent rule engine.
type RuleSet struct {
	inputs map[string]expr.Type
	rules  []rule
}

type rule struct {
	name   string
	reason string
	when   *expr.Program // nil for the default
	score  *expr.Program
}

// Verdict is the result of a rule set.
type Verdict struct {
	Score  float64
	Rule   string
	Reason string
}

// ruleDoc is the YAML form:
//
//	kind: rules
//	inputs: {slack_hours: double, carrier: string}
//	rules:
//	  - {name: tight, when: "slack_hours < 12.0", score: "0.8", reason: less than half a day}
//	default: {score: "0.1", reason: nothing speaks against it}
type ruleDoc struct {
	Kind   string               `yaml:"kind"`
	Inputs map[string]expr.Type `yaml:"inputs"`
	Rules  []struct {
		Name   string `yaml:"name"`
		When   string `yaml:"when"`
		Score  string `yaml:"score"`
		Reason string `yaml:"reason"`
	} `yaml:"rules"`
	Default struct {
		Score  string `yaml:"score"`
		Reason string `yaml:"reason"`
	} `yaml:"default"`
}

// LoadRules reads and type-checks a rule set. Errors are Invalid and name the rule.
func LoadRules(data []byte) (*RuleSet, error) {
	if len(data) > 1<<20 {
		return nil, waybill.Errorf(waybill.TooLarge, "the rule set has %d bytes; at most %d", len(data), 1<<20)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var doc ruleDoc
	if err := dec.Decode(&doc); err != nil {
		return nil, waybill.InvalidField("rules", "cannot be read: "+err.Error())
	}
	if doc.Kind != "rules" || len(doc.Rules) > maxRules {
		return nil, waybill.InvalidField("rules", fmt.Sprintf("must have kind: rules and at most %d rules", maxRules))
	}
	s := &RuleSet{inputs: doc.Inputs}
	for i, r := range doc.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		if err := waybill.CheckName(at+".name", r.Name); err != nil {
			return nil, err
		}
		when, err := expr.Compile(at+".when", r.When, doc.Inputs, expr.Bool)
		if err != nil {
			return nil, err
		}
		score, err := expr.Compile(at+".score", r.Score, doc.Inputs, expr.Double)
		if err != nil {
			return nil, err
		}
		s.rules = append(s.rules, rule{r.Name, r.Reason, when, score})
	}
	score, err := expr.Compile("default.score", doc.Default.Score, doc.Inputs, expr.Double)
	if err != nil {
		return nil, err
	}
	s.rules = append(s.rules, rule{"default", doc.Default.Reason, nil, score})
	return s, nil
}

// Inputs names the values that the rules read, sorted.
func (s *RuleSet) Inputs() []string {
	names := make([]string, 0, len(s.inputs))
	for n := range s.inputs {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Evaluate returns the verdict of the first rule that holds. A value that is absent is null. A rule that cannot be
// evaluated is an error that names it: skipping it would be another rule set.
func (s *RuleSet) Evaluate(values map[string]any) (Verdict, error) {
	for _, r := range s.rules {
		if r.when != nil {
			v, err := r.when.Eval(values)
			if err != nil {
				return Verdict{}, err
			}
			if holds, ok := v.(bool); !ok || !holds {
				continue
			}
		}
		v, err := r.score.Eval(values)
		if err != nil {
			return Verdict{}, err
		}
		x, ok := v.(float64)
		if !ok || math.IsNaN(x) || math.IsInf(x, 0) {
			return Verdict{}, waybill.InvalidField("rules."+r.name, "gives no finite score")
		}
		return Verdict{x, r.name, r.reason}, nil
	}
	return Verdict{}, waybill.InvalidField("rules", "have no default")
}
