package featurestore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"waybill"
)

// maxAdhoc is how many compiled lists of features are kept; when there are more, all are forgotten and compiled anew as
// they are asked for. Programs ask for few lists, again and again.
const maxAdhoc = 1024

// adhocReaders keeps compiled lists by tenant and text.
type adhocReaders struct {
	mu   sync.RWMutex
	byID map[string]cachedReader // guarded by mu
}

// FeaturesReader returns a reader of 1 to 1,000 different features that no service names: its inputs are the join keys of
// their views, its outputs the features in the order given. Two of them may have the same name when their views differ.
// Version 0 is the latest, as of at most a second ago. A join key that two views type differently is an Invalid error.
func (s *Store) FeaturesReader(ctx context.Context, tenant waybill.Tenant, refs []waybill.FeatureRef) (*Reader, error) {
	if len(refs) == 0 || len(refs) > maxColumns {
		return nil, waybill.InvalidField("features", fmt.Sprintf("must be 1 to %d; there are %d", maxColumns, len(refs)))
	}
	var id strings.Builder
	id.WriteString(string(tenant))
	pinned := true
	for i := range refs {
		pinned = pinned && refs[i].View.Version != 0
		id.WriteByte(' ')
		if i == 0 || refs[i].View != refs[i-1].View { // features of a view stand together
			id.WriteString(refs[i].View.String())
		}
		id.WriteByte(':')
		id.WriteString(refs[i].Feature)
	}
	now := s.clock()
	s.adhoc.mu.RLock()
	c, ok := s.adhoc.byID[id.String()]
	s.adhoc.mu.RUnlock()
	if ok && (pinned || now.Sub(c.checked) < latestFor) {
		return c.reader, nil
	}
	r, err := s.compileFeatures(ctx, tenant, refs)
	if err != nil {
		return nil, err
	}
	s.adhoc.mu.Lock()
	defer s.adhoc.mu.Unlock()
	if s.adhoc.byID == nil || len(s.adhoc.byID) >= maxAdhoc {
		s.adhoc.byID = map[string]cachedReader{}
	}
	s.adhoc.byID[id.String()] = cachedReader{r, now}
	return r, nil
}

// compileFeatures compiles the service that would have these features and no more.
func (s *Store) compileFeatures(ctx context.Context, tenant waybill.Tenant, refs []waybill.FeatureRef) (*Reader, error) {
	var sv storedService
	views := map[waybill.VersionRef]*storedView{} // by what was asked for, and by what that is
	from := make([]string, 0, 8)                  // input → the view that has it
	outputs := make([]Column, len(refs))
	for i, ref := range refs {
		v := views[ref.View]
		if v == nil {
			got, err := s.view(ctx, s.pool, tenant, ref.View)
			if err != nil {
				return nil, err
			}
			v = &got
			views[ref.View] = v
			views[waybill.VersionRef{Name: v.Name, Version: v.Version}] = v
			for _, k := range v.Entity.Keys {
				n := slices.IndexFunc(sv.Inputs, func(c Column) bool { return c.Name == k.Name })
				if n < 0 {
					sv.Inputs, from = append(sv.Inputs, k), append(from, v.Name)
				} else if sv.Inputs[n].Type != k.Type {
					return nil, waybill.InvalidField(fmt.Sprintf("features[%d]", i), fmt.Sprintf("has the join key %s (%s), which is %s in %s; read the two views one by one",
						k.Name, k.Type, sv.Inputs[n].Type, from[n]))
				}
			}
		}
		ref.View.Version = v.Version
		sv.Features = append(sv.Features, ref.String())
		n := slices.IndexFunc(v.Features, func(c Column) bool { return c.Name == ref.Feature })
		if n < 0 {
			return nil, waybill.InvalidField(fmt.Sprintf("features[%d]", i), ref.View.String()+" has no feature "+ref.Feature)
		}
		outputs[i] = v.Features[n]
	}
	p, err := compileService(sv.Service, func(ref waybill.VersionRef) (*View, error) { return &views[ref].View, nil })
	if err != nil {
		return nil, err
	}
	for i := range p.places { // by place and not by name: names may be the same
		p.places[i] = len(sv.Inputs) + i
	}
	p.outputs = outputs
	return s.open(ctx, tenant, p, waybill.VersionRef{})
}
