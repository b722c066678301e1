package featurestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/lineage"
)

// Retirement says that nobody new may use a view or service version, and why.
type Retirement struct {
	Kind   string // view, service
	Ref    waybill.VersionRef
	Reason string
	Actor  string
	At     time.Time
}

const (
	selectRetirement pg.SQL = `SELECT reason, actor, retired_at FROM featurestore.retirement WHERE tenant = $1 AND kind = $2 AND name = $3 AND version = $4`
	insertRetirement pg.SQL = `
INSERT INTO featurestore.retirement (tenant, kind, name, version, reason, actor, retired_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`
	retireLog pg.SQL = `UPDATE featurestore.log SET retired = true WHERE tenant = $1 AND view = $2 AND version = $3`
)

// maxShownReaders is how many readers one answer lists.
const maxShownReaders = 20

// Retire takes a view or service version out of use, for ever. From then on a view version takes no rows in, and neither
// is used by a new version of anything, by a new training set or by a new endpoint revision. What exists goes on: training
// sets are rebuilt, decisions replayed, and rows read with their true ages. It is refused with a Conflict that lists them
// while something lives on it: a service version or view version that is not retired, a model version that may still serve,
// or the newest revision of an endpoint.
func (s *Store) Retire(ctx context.Context, actor waybill.Actor, kind string, ref waybill.VersionRef, reason string) (Retirement, error) {
	if kind != "view" && kind != "service" {
		return Retirement{}, waybill.InvalidField("node", "must be view:name@v1 or service:name@v1")
	}
	if ref.Version == 0 {
		return Retirement{}, waybill.InvalidField("node", "must name one version such as "+ref.Name+"@v1")
	}
	if strings.TrimSpace(reason) == "" || len(reason) > 1024 {
		return Retirement{}, waybill.InvalidField("reason", "must say why in 1 to 1,024 bytes")
	}
	r := Retirement{Kind: kind, Ref: ref, Reason: reason, Actor: actor.ID}
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, string(lockTenant), string(actor.Tenant)); err != nil {
			return fmt.Errorf("lock definitions: %w", err)
		}
		r.At = s.clock()
		digest, err := s.digestOf(ctx, tx, actor.Tenant, kind, ref)
		if err != nil {
			return err
		}
		if was, err := s.retirement(ctx, tx, actor.Tenant, kind, ref); err != nil {
			return err
		} else if was != nil {
			return waybill.Errorf(waybill.Conflict, "%s %s was retired by %s on %s: %s", kind, ref, was.Actor, was.At.Format(time.DateOnly), was.Reason)
		}
		readers, err := s.readersOf(ctx, tx, actor.Tenant, kind, ref)
		if err != nil {
			return err
		}
		if n := len(readers); n > 0 {
			shown := strings.Join(readers[:min(n, maxShownReaders)], ", ")
			if n > maxShownReaders {
				shown = fmt.Sprintf("%s and %d more", shown, n-maxShownReaders)
			}
			return waybill.Errorf(waybill.Conflict, "%s %s is still read by %s; move or retire those first", kind, ref, shown)
		}
		if _, err := tx.Exec(ctx, string(insertRetirement), actor.Tenant, kind, ref.Name, ref.Version, reason, actor.ID, r.At); err != nil {
			return fmt.Errorf("insert retirement: %w", err)
		}
		if kind == "view" { // waits for the writer that holds the log, and stops the next
			if _, err := tx.Exec(ctx, string(retireLog), actor.Tenant, ref.Name, ref.Version); err != nil {
				return fmt.Errorf("retire log: %w", err)
			}
		}
		node := lineage.Node(kind + ":" + ref.String())
		if err := lineage.Record(ctx, tx, actor.Tenant, r.At, lineage.Edge{From: lineage.ActorNode(actor), To: node, Kind: lineage.Wrote}); err != nil {
			return err
		}
		if err := audit.Enqueue(ctx, tx, audit.Event{Type: kind + ".version", Tenant: actor.Tenant, Actor: actor.ID, At: r.At, Subject: string(node), Digest: digest,
			Detail: map[string]any{"action": "retire", "reason": reason}}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, string(notifyFeatures))
		return err
	})
	return r, err
}

func (s *Store) digestOf(ctx context.Context, q pg.Querier, tenant waybill.Tenant, kind string, ref waybill.VersionRef) (string, error) {
	if kind == "view" {
		v, err := s.view(ctx, q, tenant, ref)
		return v.Digest, err
	}
	v, err := s.service(ctx, q, tenant, ref)
	return v.Digest, err
}

// retirement returns nil while a version is in use, or does not exist.
func (s *Store) retirement(ctx context.Context, q pg.Querier, tenant waybill.Tenant, kind string, ref waybill.VersionRef) (*Retirement, error) {
	r := Retirement{Kind: kind, Ref: ref}
	err := q.QueryRow(ctx, string(selectRetirement), tenant, kind, ref.Name, ref.Version).Scan(&r.Reason, &r.Actor, &r.At)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("select retirement: %w", err)
	}
	r.At = r.At.UTC()
	return &r, nil
}

// RefuseRetired returns a Conflict when a version was retired: for whoever is about to make something new of it.
func (s *Store) RefuseRetired(ctx context.Context, tenant waybill.Tenant, kind string, ref waybill.VersionRef) error {
	r, err := s.retirement(ctx, s.pool, tenant, kind, ref)
	if err != nil || r == nil {
		return err
	}
	return retired(kind, ref, r.Reason)
}

func retired(kind string, ref waybill.VersionRef, reason string) error {
	return waybill.Errorf(waybill.Conflict, "%s %s was retired: %s; use another version", kind, ref, reason)
}

// writable returns a view version that takes rows in; version 0 is the latest. Errors: NotFound, Conflict when retired.
func (s *Store) writable(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) (storedView, error) {
	v, err := s.view(ctx, s.pool, tenant, ref)
	if err != nil {
		return v, err
	}
	return v, s.RefuseRetired(ctx, tenant, "view", waybill.VersionRef{Name: v.Name, Version: v.Version})
}

// readersOf lists what lives on a version, as nodes of the lineage: services and views first, then the models and
// endpoints on those. Retired services and views do not count, nor models that will never serve again, nor past revisions
// of endpoints.
func (s *Store) readersOf(ctx context.Context, q pg.Querier, tenant waybill.Tenant, kind string, ref waybill.VersionRef) ([]string, error) {
	if kind == "service" {
		return s.usersOf(ctx, q, tenant, ref)
	}
	all, whole, err := s.consumers(ctx, q, tenant)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, waybill.Errorf(waybill.TooLarge, "there are more than %d versions of views and services: who reads %s cannot be told", maxTexts, ref)
	}
	var out []string
	var behind []string
	for _, c := range all[ref] {
		if c.retired {
			continue
		}
		out = append(out, c.kind+":"+c.ref.String())
		if c.kind != "service" {
			continue
		}
		users, err := s.usersOf(ctx, q, tenant, c.ref)
		if err != nil {
			return nil, err
		}
		behind = append(behind, users...)
	}
	slices.Sort(behind)
	return append(out, slices.Compact(behind)...), nil
}

// usersOf lists the models and endpoints that live on a service version.
func (s *Store) usersOf(ctx context.Context, q pg.Querier, tenant waybill.Tenant, ref waybill.VersionRef) ([]string, error) {
	nodes, err := lineage.Users(ctx, q, tenant, lineage.ServiceNode(ref))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range nodes {
		if n.Kind() == "model" && s.live != nil {
			model, err := waybill.ParseVersionRef("model", n.Name())
			if err != nil {
				return nil, fmt.Errorf("read users of %s: %w", ref, err)
			}
			if live, err := s.live(ctx, tenant, model); err != nil {
				return nil, fmt.Errorf("look up model %s: %w", model, err)
			} else if !live {
				continue
			}
		}
		out = append(out, string(n))
	}
	return out, nil
}
