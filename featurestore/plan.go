package featurestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/lineage"
)

// Change is one difference between what is published and what was given.
type Change struct {
	Kind    string // view, service
	Ref     waybill.VersionRef
	Action  string // create, version, revision, none
	Summary string
	Details []string // what differs from the version before, one sentence each; what makes a new version comes first
	// Readers are what goes on reading the version before after a new one was made: "service:a@v1", and what lives on
	// that, "model:b@v2" and "endpoint:c@v3". They change when they are published anew, and not before.
	Readers []string
}

const (
	insertDefinition pg.SQL = `
INSERT INTO featurestore.definition (tenant, kind, name, version, revision, digest, yaml, author, reason, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
	insertLog      pg.SQL = `INSERT INTO featurestore.log (tenant, view, version, seq) VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING`
	lockTenant     pg.SQL = `SELECT pg_advisory_xact_lock(hashtextextended('featurestore' || $1, 0))`
	notifyFeatures pg.SQL = `SELECT pg_notify('features', '')`
)

// errPlanned rolls a plan's transaction back.
var errPlanned = errors.New("planned only")

// Plan says what Apply would change. Nothing is written.
func (s *Store) Plan(ctx context.Context, actor waybill.Actor, d Definitions) ([]Change, error) {
	var out []Change
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		if out, err = s.publish(ctx, tx, actor, d, "plan"); err != nil {
			return err
		}
		return errPlanned
	})
	if errors.Is(err, errPlanned) {
		err = nil
	}
	return out, err
}

// Apply publishes views and services in one transaction. The same definitions twice change nothing.
func (s *Store) Apply(ctx context.Context, actor waybill.Actor, d Definitions, reason string) ([]Change, error) {
	if reason == "" || len(reason) > 1024 {
		return nil, waybill.InvalidField("reason", "must say why in 1 to 1,024 bytes")
	}
	var out []Change
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		out, err = s.publish(ctx, tx, actor, d, reason)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.show(ctx, func(o *online) bool {
		return o.key.tenant == actor.Tenant && slices.ContainsFunc(out, func(c Change) bool { return c.Kind == "view" && c.Ref == o.key.ref })
	})
	for _, c := range out {
		if c.Kind == "service" {
			s.readers.Delete(viewKey{actor.Tenant, waybill.VersionRef{Name: c.Ref.Name}})
		}
	}
	return out, nil
}

// publish writes views, parents before those that fall back on them, and then services.
func (s *Store) publish(ctx context.Context, tx pgx.Tx, actor waybill.Actor, d Definitions, reason string) ([]Change, error) {
	if _, err := tx.Exec(ctx, string(lockTenant), string(actor.Tenant)); err != nil {
		return nil, fmt.Errorf("lock definitions: %w", err)
	}
	views, err := parentsFirst(d.Views)
	if err != nil {
		return nil, err
	}
	p := publication{Store: s, tx: tx, actor: actor, reason: reason, now: s.clock()}
	for i := range views {
		if _, err := s.forView(actor.Tenant, &views[i]); err != nil {
			return nil, err
		}
		if err := p.view(ctx, views[i]); err != nil {
			return nil, err
		}
	}
	for i := range d.Services {
		if err := p.service(ctx, d.Services[i]); err != nil {
			return nil, err
		}
	}
	return p.changes, nil
}

// parentsFirst sorts views so that each comes after the one it falls back on, and otherwise leaves their order.
func parentsFirst(views []View) ([]View, error) {
	place := map[string]int{}
	for i := range views {
		if _, twice := place[views[i].Name]; twice {
			return nil, waybill.InvalidField("view "+views[i].Name, "is there twice; one document defines a view")
		}
		place[views[i].Name] = i
	}
	out, done := make([]View, 0, len(views)), make([]bool, len(views))
	var visit func(i int, path []string) error
	visit = func(i int, path []string) error {
		path = append(path, views[i].Name)
		if slices.Index(path, views[i].Name) < len(path)-1 {
			return waybill.InvalidField("view "+views[i].Name+".fallback.view", "leads back to the view: "+strings.Join(path, " → ")+"; a chain of fallbacks has an end")
		}
		if done[i] {
			return nil
		}
		if f := views[i].Fallback; f != nil {
			ref, err := waybill.ParseVersionRef("fallback.view", f.View)
			if err != nil {
				return err
			}
			if parent, ok := place[ref.Name]; ok {
				if err := visit(parent, path); err != nil {
					return err
				}
			}
		}
		done[i] = true
		out = append(out, views[i])
		return nil
	}
	for i := range views {
		if err := visit(i, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// publication is one transaction of publish.
type publication struct {
	*Store
	tx      pgx.Tx
	actor   waybill.Actor
	reason  string
	now     time.Time
	changes []Change
}

// edit is one definition on its way in.
type edit struct {
	kind, name string
	doc        any
	old        waybill.VersionRef // the latest version; 0 when there is none
	revision   int                // of old
	digest     string             // of old
	same       bool               // what its users could notice is the same
	differs    wording
	reads      []waybill.VersionRef // view versions that it is made of; none of them may be retired
	edges      []lineage.Edge       // to it
}

func (p *publication) view(ctx context.Context, v View) error {
	old, err := p.Store.view(ctx, p.tx, p.actor.Tenant, waybill.VersionRef{Name: v.Name})
	if err != nil && waybill.CodeOf(err) != waybill.NotFound {
		return err
	}
	e := edit{kind: "view", name: v.Name, old: waybill.VersionRef{Name: v.Name, Version: old.Version}, revision: old.Revision, digest: old.Digest}
	if v.Fallback != nil {
		parents, err := p.resolve(ctx, &v)
		if err != nil {
			return within(err, "view "+v.Name+".")
		}
		e.reads = parents[:1]
		e.edges = append(e.edges, lineage.Edge{From: lineage.Node("view:" + parents[0].String()), Kind: lineage.Reads})
	}
	e.doc, e.same, e.differs = v, sameEssence(v.essence(), old.View.essence()), v.wordingOf(&old.View)
	c, err := p.write(ctx, e)
	if err != nil {
		return err
	}
	if c.Action == "create" || c.Action == "version" {
		if _, err := p.tx.Exec(ctx, string(insertLog), p.actor.Tenant, v.Name, c.Ref.Version); err != nil {
			return fmt.Errorf("insert log: %w", err)
		}
	}
	return nil
}

// within puts a path before the fields of an Invalid error.
func within(err error, path string) error {
	var e *waybill.Error
	if !errors.As(err, &e) || len(e.Violations) == 0 {
		return err
	}
	out := *e
	out.Violations = slices.Clone(e.Violations)
	for i := range out.Violations {
		out.Violations[i].Field = path + out.Violations[i].Field
	}
	return &out
}

// resolve fixes the version of the view that v falls back on, and returns the chain of its parents, the nearest first.
func (p *publication) resolve(ctx context.Context, v *View) ([]waybill.VersionRef, error) {
	var chain []waybill.VersionRef
	names := []string{v.Name}
	for child := v; child.Fallback != nil; {
		ref, err := waybill.ParseVersionRef("fallback.view", child.Fallback.View)
		if err != nil {
			return nil, err
		}
		parent, err := p.Store.view(ctx, p.tx, p.actor.Tenant, ref)
		if err != nil {
			return nil, err
		}
		ref.Version = parent.Version
		if slices.Contains(names, ref.Name) {
			return nil, waybill.InvalidField("fallback.view", "leads back to "+ref.Name+": "+strings.Join(append(names, ref.Name), " → ")+"; a chain of fallbacks has an end")
		}
		if names = append(names, ref.Name); len(names) > maxChain {
			return nil, waybill.InvalidField("fallback.view", fmt.Sprintf("makes a chain of more than %d views: %s", maxChain, strings.Join(names, " → ")))
		}
		if child == v {
			f := *v.Fallback // the caller's document stays as it is
			f.View, v.Fallback = ref.String(), &f
			if _, err := v.fallbackKeys(&parent.View, ref); err != nil {
				return nil, err
			}
		}
		chain, child = append(chain, ref), &parent.View
	}
	return chain, nil
}

func (p *publication) service(ctx context.Context, sv Service) error {
	e := edit{kind: "service", name: sv.Name}
	sv.Features = slices.Clone(sv.Features)
	for i, f := range sv.Features {
		ref, err := waybill.ParseFeatureRef("features", f)
		if err != nil {
			return err
		}
		v, err := p.Store.view(ctx, p.tx, p.actor.Tenant, ref.View)
		if err != nil {
			return err
		}
		ref.View.Version = v.Version
		if _, ok := v.value(ref.Feature); !ok {
			return waybill.InvalidField(fmt.Sprintf("features[%d]", i), ref.View.String()+" has no feature "+ref.Feature)
		}
		for _, k := range v.Entity.Keys {
			if !slices.ContainsFunc(sv.Inputs, func(c Column) bool { return c.Name == k.Name && c.Type == k.Type }) {
				return waybill.InvalidField("inputs", fmt.Sprintf("lack the join key %s (%s) of %s", k.Name, k.Type, ref.View))
			}
		}
		sv.Features[i] = ref.String()
		if slices.Contains(e.reads, ref.View) {
			continue
		}
		e.reads = append(e.reads, ref.View)
		for view := &v.View; view.Fallback != nil; { // the service reads what stands in, too
			parent, err := waybill.ParseVersionRef("fallback.view", view.Fallback.View)
			if err != nil {
				return err
			}
			e.reads = append(e.reads, parent)
			next, err := p.Store.view(ctx, p.tx, p.actor.Tenant, parent)
			if err != nil {
				return err
			}
			view = &next.View
		}
	}
	for _, ref := range e.reads {
		e.edges = append(e.edges, lineage.Edge{From: lineage.Node("view:" + ref.String()), Kind: lineage.Defines})
	}
	if _, err := compileService(sv, func(ref waybill.VersionRef) (*View, error) {
		v, err := p.Store.view(ctx, p.tx, p.actor.Tenant, ref)
		return &v.View, err
	}); err != nil {
		return err
	}
	old, err := p.Store.service(ctx, p.tx, p.actor.Tenant, waybill.VersionRef{Name: sv.Name})
	if err != nil && waybill.CodeOf(err) != waybill.NotFound {
		return err
	}
	e.old, e.revision, e.digest = waybill.VersionRef{Name: sv.Name, Version: old.Version}, old.Revision, old.Digest
	e.doc, e.same, e.differs = sv, sameEssence(sv.essence(), old.Service.essence()), sv.wordingOf(&old.Service)
	_, err = p.write(ctx, e)
	return err
}

func sameEssence(a, b any) bool {
	x, err1 := yaml.Marshal(a)
	y, err2 := yaml.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// write stores one definition as the next version or revision, or finds that nothing changed.
func (p *publication) write(ctx context.Context, e edit) (Change, error) {
	sum, text, err := digest(e.doc)
	if err != nil {
		return Change{}, err
	}
	gone, err := p.retirement(ctx, p.tx, p.actor.Tenant, e.kind, e.old)
	if err != nil {
		return Change{}, err
	}
	c := Change{Kind: e.kind, Ref: e.old}
	revision := e.revision
	switch {
	case e.old.Version == 0:
		c.Action, c.Ref.Version, revision = "create", 1, 1
		c.Summary = e.kind + " " + e.name + " is new"
	case sum == e.digest:
		c.Action, c.Summary = "none", e.kind+" "+c.Ref.String()+" is unchanged"
		if gone != nil {
			c.Summary += ", and was retired: " + gone.Reason
		}
		p.changes = append(p.changes, c)
		return c, nil
	case e.same && gone != nil:
		return c, waybill.Errorf(waybill.Conflict, "%s %s was retired (%s); take its document out, or change what it serves to make a new version", e.kind, c.Ref, gone.Reason)
	case e.same:
		c.Action, c.Summary, c.Details = "revision", fmt.Sprintf("%s %s: what is said about it changes; the version stays", e.kind, c.Ref), e.differs.said
		revision++
	default:
		c.Action, c.Ref.Version, revision = "version", e.old.Version+1, 1
		c.Summary = fmt.Sprintf("%s %s: what it serves changes; this makes version %d", e.kind, e.name, c.Ref.Version)
		c.Details = append(slices.Clone(e.differs.essential), e.differs.said...)
		if c.Readers, err = p.readersOf(ctx, p.tx, p.actor.Tenant, e.kind, e.old); err != nil {
			return c, err
		}
	}
	for _, ref := range e.reads {
		if gone, err := p.retirement(ctx, p.tx, p.actor.Tenant, "view", ref); err != nil {
			return c, err
		} else if gone != nil {
			return c, waybill.Errorf(waybill.Conflict, "%s %s reads view %s, which was retired: %s; name a version that is in use", e.kind, e.name, ref, gone.Reason)
		}
	}
	if _, err := p.tx.Exec(ctx, string(insertDefinition), p.actor.Tenant, e.kind, e.name, c.Ref.Version, revision, sum, string(text), p.actor.ID, p.reason, p.now); err != nil {
		return c, fmt.Errorf("insert definition: %w", err)
	}
	node := lineage.Node(e.kind + ":" + c.Ref.String())
	all := []lineage.Edge{{From: lineage.ActorNode(p.actor), To: node, Kind: lineage.Wrote}}
	for _, edge := range e.edges {
		edge.To = node
		all = append(all, edge)
	}
	if err := lineage.Record(ctx, p.tx, p.actor.Tenant, p.now, all...); err != nil {
		return c, err
	}
	if err := audit.Enqueue(ctx, p.tx, audit.Event{Type: e.kind + ".version", Tenant: p.actor.Tenant, Actor: p.actor.ID, At: p.now, Subject: string(node), Digest: sum,
		Detail: map[string]any{"revision": revision, "reason": p.reason}}); err != nil {
		return c, err
	}
	p.changes = append(p.changes, c)
	_, err = p.tx.Exec(ctx, string(notifyFeatures))
	return c, err
}
