package decision

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"waybill"
	"waybill/featurestore"
	"waybill/registry"
	"waybill/score"
)

// maxModelBytes bounds an entrypoint that is loaded into memory.
const maxModelBytes = 256 << 20

// loaded is a model version ready to score. It is immutable and shared by all decisions.
type loaded struct {
	names    []string // the model's inputs, in its own order
	model    score.Model
	digest   string
	approval string
	work     sync.Pool // of *scratch
}

// scratch is the working memory of one decision.
type scratch struct {
	score score.Scratch
	x     []float64
}

// loadModel reads and parses an approved version. Its bytes are compared with their digest on the way.
func (s *Service) loadModel(ctx context.Context, tenant waybill.Tenant, v registry.Version) (*loaded, error) {
	data, err := s.models.ReadEntrypoint(ctx, tenant, v.Ref(), maxModelBytes)
	if err != nil {
		return nil, err
	}
	m, err := score.Load(score.Format(v.Format), data)
	if err != nil {
		return nil, err
	}
	l := &loaded{names: m.Features(), model: m, digest: v.Digest}
	for _, a := range v.Approvals {
		l.approval = a.ID.String() // the last one is in force
	}
	n := len(l.names)
	l.work.New = func() any { return &scratch{x: make([]float64, n)} }
	return l, nil
}

// columns says where each of the model's inputs stands in a reader's outputs.
func (l *loaded) columns(r *featurestore.Reader) ([]int, error) {
	places := make([]int, len(l.names))
	for i, name := range l.names {
		places[i] = slices.IndexFunc(r.Outputs(), func(c featurestore.Column) bool { return c.Name == name })
		if places[i] < 0 {
			return nil, waybill.InvalidField("service", fmt.Sprintf("%s has no output %s, which the model takes", r.Version(), name))
		}
		if t := r.Outputs()[places[i]].Type; t == featurestore.String || t == featurestore.Timestamp {
			return nil, waybill.InvalidField("service", fmt.Sprintf("gives %s as %s; models take numbers: add an expression that makes one", name, t))
		}
	}
	return places, nil
}

// loadRules reads a rule set. It must be approved like any model: what answers in need was consented to as well.
func (s *Service) loadRules(ctx context.Context, tenant waybill.Tenant, v registry.Version) (*score.RuleSet, error) {
	ref := v.Ref()
	if v.Format != registry.Rules {
		return nil, waybill.InvalidField("fallback", ref.String()+" is "+string(v.Format)+"; the fallback must be a rule set")
	}
	if !v.State.Serves() {
		return nil, waybill.Errorf(waybill.Conflict, "the rule set %s is %s; have it approved before an endpoint relies on it", ref, v.State)
	}
	data, err := s.models.ReadEntrypoint(ctx, tenant, ref, 1<<20)
	if err != nil {
		return nil, err
	}
	return score.LoadRules(data)
}
