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

// loaded is a model version or a rule set ready to answer. It is immutable and shared by all decisions.
type loaded struct {
	ref      waybill.VersionRef
	digest   string
	approval string
	names    []string    // the model's inputs, in its own order
	model    score.Model // nil for a rule set
	rules    *score.RuleSet
	work     sync.Pool // of *scratch
}

// scratch is the working memory of one decision.
type scratch struct {
	score score.Scratch
	x     []float64
}

// maxRuleBytes bounds a rule set.
const maxRuleBytes = 1 << 20

// loadVersion reads and parses a version. Its bytes are compared with their digest on the way.
func (s *Service) loadVersion(ctx context.Context, v registry.Version) (*loaded, error) {
	l := &loaded{ref: v.Ref(), digest: v.Digest}
	for _, a := range v.Approvals {
		l.approval = a.ID.String() // the last one is in force
	}
	most := int64(score.MaxModelBytes)
	if v.Format == registry.Rules {
		most = maxRuleBytes
	}
	data, err := s.models.ReadEntrypoint(ctx, v.Tenant, v.Ref(), most)
	if err != nil {
		return nil, err
	}
	if v.Format == registry.Rules {
		l.rules, err = score.LoadRules(data)
		return l, err
	}
	if l.model, err = score.Load(score.Format(v.Format), data); err != nil {
		return nil, err
	}
	l.names = l.model.Features()
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

// checkRules says whether a version can be a fallback. It must be approved like any model: what answers in need was
// consented to as well.
func (s *Service) checkRules(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) error {
	v, err := s.models.Get(ctx, tenant, ref)
	if err != nil {
		return err
	}
	if v.Format != registry.Rules {
		return waybill.InvalidField("fallback", ref.String()+" is "+string(v.Format)+"; the fallback must be a rule set")
	}
	if !v.State.Serves() {
		return waybill.Errorf(waybill.Conflict, "the rule set %s is %s; have it approved before an endpoint relies on it", ref, v.State)
	}
	_, err = s.loadVersion(ctx, v)
	return err
}
