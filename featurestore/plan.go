package featurestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	s.follow(ctx)
	for _, c := range out {
		if c.Kind == "service" {
			s.readers.Delete(viewKey{actor.Tenant, waybill.VersionRef{Name: c.Ref.Name}})
		}
	}
	return out, nil
}

func (s *Store) publish(ctx context.Context, tx pgx.Tx, actor waybill.Actor, d Definitions, reason string) ([]Change, error) {
	if _, err := tx.Exec(ctx, string(lockTenant), string(actor.Tenant)); err != nil {
		return nil, fmt.Errorf("lock definitions: %w", err)
	}
	now := s.clock()
	var out []Change
	for _, v := range d.Views {
		old, err := s.view(ctx, tx, actor.Tenant, waybill.VersionRef{Name: v.Name})
		if err != nil && waybill.CodeOf(err) != waybill.NotFound {
			return nil, err
		}
		c, err := s.write(ctx, tx, actor, now, reason, "view", v.Name, v, old.Version, old.Revision, old.Digest, sameEssence(v.essence(), old.View.essence()), nil)
		if err != nil {
			return nil, err
		}
		if c.Action == "create" || c.Action == "version" {
			if _, err := tx.Exec(ctx, string(insertLog), actor.Tenant, v.Name, c.Ref.Version); err != nil {
				return nil, fmt.Errorf("insert log: %w", err)
			}
		}
		out = append(out, c)
	}
	for _, sv := range d.Services {
		var edges []lineage.Edge
		for i, f := range sv.Features {
			ref, err := waybill.ParseFeatureRef("features", f)
			if err != nil {
				return nil, err
			}
			v, err := s.view(ctx, tx, actor.Tenant, ref.View)
			if err != nil {
				return nil, err
			}
			ref.View.Version = v.Version
			if !slices.ContainsFunc(v.Features, func(c Column) bool { return c.Name == ref.Feature }) {
				return nil, waybill.InvalidField(fmt.Sprintf("features[%d]", i), ref.View.String()+" has no feature "+ref.Feature)
			}
			for _, k := range v.Entity.Keys {
				if !slices.ContainsFunc(sv.Inputs, func(c Column) bool { return c.Name == k.Name && c.Type == k.Type }) {
					return nil, waybill.InvalidField("inputs", fmt.Sprintf("lack the join key %s (%s) of %s", k.Name, k.Type, ref.View))
				}
			}
			sv.Features[i] = ref.String()
			edges = append(edges, lineage.Edge{From: lineage.Node("view:" + ref.View.String()), Kind: lineage.Defines})
		}
		if _, err := compileService(sv, func(ref waybill.VersionRef) (*View, error) {
			v, err := s.view(ctx, tx, actor.Tenant, ref)
			return &v.View, err
		}); err != nil {
			return nil, err
		}
		old, err := s.service(ctx, tx, actor.Tenant, waybill.VersionRef{Name: sv.Name})
		if err != nil && waybill.CodeOf(err) != waybill.NotFound {
			return nil, err
		}
		c, err := s.write(ctx, tx, actor, now, reason, "service", sv.Name, sv, old.Version, old.Revision, old.Digest, sameEssence(sv.essence(), old.Service.essence()), edges)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func sameEssence(a, b any) bool {
	x, err1 := yaml.Marshal(a)
	y, err2 := yaml.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// write stores one definition as the next version or revision, or finds that nothing changed.
func (s *Store) write(ctx context.Context, tx pgx.Tx, actor waybill.Actor, now time.Time, reason, kind, name string, doc any,
	version, revision int, oldDigest string, sameVersion bool, edges []lineage.Edge) (Change, error) {
	sum, text, err := digest(doc)
	if err != nil {
		return Change{}, err
	}
	c := Change{Kind: kind, Ref: waybill.VersionRef{Name: name, Version: version}}
	switch {
	case version == 0:
		c.Action, c.Ref.Version, revision = "create", 1, 1
		c.Summary = kind + " " + name + " is new"
	case sum == oldDigest:
		c.Action, c.Summary = "none", kind+" "+c.Ref.String()+" is unchanged"
		return c, nil
	case sameVersion:
		c.Action, c.Summary = "revision", fmt.Sprintf("%s %s: owner, description or tags change; the version stays", kind, c.Ref)
		revision++
	default:
		c.Action, c.Ref.Version, revision = "version", version+1, 1
		c.Summary = fmt.Sprintf("%s %s: what it serves changes; this makes version %d", kind, name, c.Ref.Version)
	}
	if _, err := tx.Exec(ctx, string(insertDefinition), actor.Tenant, kind, name, c.Ref.Version, revision, sum, string(text), actor.ID, reason, now); err != nil {
		return c, fmt.Errorf("insert definition: %w", err)
	}
	node := lineage.Node(kind + ":" + c.Ref.String())
	all := []lineage.Edge{{From: lineage.ActorNode(actor), To: node, Kind: lineage.Wrote}}
	for _, e := range edges {
		e.To = node
		all = append(all, e)
	}
	if err := lineage.Record(ctx, tx, actor.Tenant, now, all...); err != nil {
		return c, err
	}
	if err := audit.Enqueue(ctx, tx, audit.Event{Type: kind + ".version", Tenant: actor.Tenant, Actor: actor.ID, At: now, Subject: string(node), Digest: sum,
		Detail: map[string]any{"revision": revision, "reason": reason}}); err != nil {
		return c, err
	}
	_, err = tx.Exec(ctx, string(notifyFeatures))
	return c, err
}
