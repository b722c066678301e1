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

// FeaturesReader returns a reader of 1 to 1,000 features that no service names: its inputs are the join keys of their views
// and what those fall back by, its outputs the features in the order given. Two of them may have the same name when their
// views differ. Version 0 is the latest, as of at most a second ago. Something to look up by that two views type differently
// is an Invalid error.
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

// Features are what the reader reads, as "view@v3:feature"; outputs of the same name are these. The list belongs to the
// reader: do not change it.
func (r *Reader) Features() []string { return r.service.Features }

// Views are the view versions that the reader reads, those that stand in for others included.
func (r *Reader) Views() []waybill.VersionRef {
	out := make([]waybill.VersionRef, len(r.views))
	for i := range r.views {
		out[i] = r.views[i].ref
	}
	return out
}

// compileFeatures compiles the service that would have these features and no more.
func (s *Store) compileFeatures(ctx context.Context, tenant waybill.Tenant, refs []waybill.FeatureRef) (*Reader, error) {
	l := adhocList{load: func(ref waybill.VersionRef) (storedView, error) { return s.view(ctx, s.pool, tenant, ref) }, views: map[waybill.VersionRef]*storedView{}}
	for i, ref := range refs {
		field := fmt.Sprintf("features[%d]", i)
		v, err := l.view(ref.View)
		if err == nil {
			err = l.needs(field, v)
		}
		if err != nil {
			return nil, err
		}
		ref.View.Version = v.Version
		l.service.Features = append(l.service.Features, ref.String())
	}
	p, err := compileService(l.service, func(ref waybill.VersionRef) (*View, error) {
		v, err := l.view(ref)
		if err != nil {
			return nil, err
		}
		return &v.View, nil
	})
	if err != nil {
		return nil, err
	}
	return s.open(ctx, tenant, p, waybill.VersionRef{})
}

// adhocList is a service that is put together from a list of features.
type adhocList struct {
	service Service
	load    func(waybill.VersionRef) (storedView, error)
	views   map[waybill.VersionRef]*storedView // by what was asked for, and by what that is
	from    []string                           // input → the view that needs it
}

func (l *adhocList) view(ref waybill.VersionRef) (*storedView, error) {
	if v := l.views[ref]; v != nil {
		return v, nil
	}
	v, err := l.load(ref)
	if err != nil {
		return nil, err
	}
	l.views[ref] = &v
	l.views[waybill.VersionRef{Name: v.Name, Version: v.Version}] = &v
	return &v, nil
}

// needs makes inputs of the join keys of a view, and of what it falls back by.
func (l *adhocList) needs(field string, v *storedView) error {
	for _, k := range v.Entity.Keys {
		if err := l.input(field, k, v.Name); err != nil {
			return err
		}
	}
	child := &v.View
	for range maxChain {
		if child.Fallback == nil {
			break
		}
		ref, err := waybill.ParseVersionRef("fallback.view", child.Fallback.View)
		if err != nil {
			return err
		}
		parent, err := l.view(ref)
		if err != nil {
			return err
		}
		keys, err := child.fallbackKeys(&parent.View, ref)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k.asked != "" {
				if err := l.input(field, Column{Name: k.asked, Type: k.column.Type}, v.Name); err != nil {
					return err
				}
			}
		}
		child = &parent.View
	}
	return nil
}

func (l *adhocList) input(field string, c Column, view string) error {
	n := slices.IndexFunc(l.service.Inputs, func(in Column) bool { return in.Name == c.Name })
	if n < 0 {
		l.service.Inputs, l.from = append(l.service.Inputs, c), append(l.from, view)
		return nil
	}
	if was := l.service.Inputs[n]; was.Type != c.Type {
		return waybill.InvalidField(field, fmt.Sprintf("is looked up by %s (%s), which is %s in %s; read the two views one by one", c.Name, c.Type, was.Type, l.from[n]))
	}
	return nil
}
