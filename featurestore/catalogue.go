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
	"waybill/internal/pg"
)

// Published is what is recorded of a definition beside its text.
type Published struct {
	Version, Revision int
	Digest            string
	Author, Reason    string
	At                time.Time
}

// ViewInfo is a view version with what is known of its data and its users.
type ViewInfo struct {
	View
	Published
	Versions  []int // all versions of the name, ascending
	Commits   int64
	Rows      int64
	Latest    time.Time // newest event time; zero without rows
	Consumers []string  // service versions in use that read it, also as a fallback, "name@v1"
	Retired   *Retirement
}

// ServiceInfo is a service version with the types of its outputs.
type ServiceInfo struct {
	Service
	Published
	Vector  []Column // the outputs, in order
	Retired *Retirement
}

const (
	selectDefinition pg.SQL = `
SELECT version, revision, digest, yaml, author, reason, published_at FROM featurestore.definition
WHERE tenant = $1 AND kind = $2 AND name = $3 AND ($4 = 0 OR version = $4) ORDER BY version DESC, revision DESC LIMIT 1`
	selectNames pg.SQL = `
SELECT DISTINCT name FROM featurestore.definition WHERE tenant = $1 AND kind = $2 AND name > $3 ORDER BY name LIMIT $4`
	selectVersions pg.SQL = `
SELECT DISTINCT version FROM featurestore.definition WHERE tenant = $1 AND kind = 'view' AND name = $2 ORDER BY version`
	selectVolume pg.SQL = `
SELECT count(*), coalesce(sum(rows), 0)::bigint, max(max_event) FROM featurestore.commit WHERE tenant = $1 AND view = $2 AND version = $3`
	selectLastBatch pg.SQL = `
SELECT batch_id, seq FROM featurestore.commit WHERE tenant = $1 AND view = $2 AND version = $3 ORDER BY seq DESC LIMIT 1`
	selectTexts pg.SQL = `
SELECT DISTINCT ON (d.kind, d.name, d.version) d.kind, d.name, d.version, d.yaml, r.name IS NOT NULL
FROM featurestore.definition d LEFT JOIN featurestore.retirement r USING (tenant, kind, name, version)
WHERE d.tenant = $1 ORDER BY d.kind, d.name, d.version, d.revision DESC LIMIT $2`
)

func (s *Store) definition(ctx context.Context, tenant waybill.Tenant, kind string, ref waybill.VersionRef, into any) (p Published, err error) {
	if err := waybill.CheckName(kind, ref.Name); err != nil {
		return p, err
	}
	var text string
	err = s.pool.QueryRow(ctx, string(selectDefinition), tenant, kind, ref.Name, ref.Version).Scan(&p.Version, &p.Revision, &p.Digest, &text, &p.Author, &p.Reason, &p.At)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, waybill.Errorf(waybill.NotFound, "there is no %s %s", kind, ref)
	}
	if err != nil {
		return p, fmt.Errorf("select definition: %w", err)
	}
	p.At = p.At.UTC()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		return p, waybill.Wrap(waybill.Corrupt, err, "the definition of "+ref.String()+" cannot be read")
	}
	return p, nil
}

// names returns a page of names of a kind; the token is the last name.
func (s *Store) names(ctx context.Context, tenant waybill.Tenant, kind string, p Page) ([]string, string, error) {
	n, err := p.check()
	if err != nil {
		return nil, "", err
	}
	rows, err := s.pool.Query(ctx, string(selectNames), tenant, kind, p.Token, n+1)
	if err != nil {
		return nil, "", fmt.Errorf("select names: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, "", fmt.Errorf("read names: %w", err)
	}
	if len(names) > n {
		return names[:n], names[n-1], nil
	}
	return names, "", nil
}

// ViewInfo returns one view version; version 0 is the latest.
func (s *Store) ViewInfo(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) (ViewInfo, error) {
	users, _, err := s.consumers(ctx, s.pool, tenant)
	if err != nil {
		return ViewInfo{}, err
	}
	return s.viewInfo(ctx, tenant, ref, users)
}

func (s *Store) viewInfo(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, users map[waybill.VersionRef][]consumer) (v ViewInfo, err error) {
	if v.Published, err = s.definition(ctx, tenant, "view", ref, &v.View); err != nil {
		return v, err
	}
	rows, err := s.pool.Query(ctx, string(selectVersions), tenant, v.Name)
	if err != nil {
		return v, fmt.Errorf("select versions: %w", err)
	}
	if v.Versions, err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
		return v, fmt.Errorf("read versions: %w", err)
	}
	var latest *time.Time
	if err := s.pool.QueryRow(ctx, string(selectVolume), tenant, v.Name, v.Version).Scan(&v.Commits, &v.Rows, &latest); err != nil {
		return v, fmt.Errorf("select volume: %w", err)
	}
	if latest != nil {
		v.Latest = latest.UTC()
	}
	own := waybill.VersionRef{Name: v.Name, Version: v.Version}
	for _, c := range users[own] {
		if c.kind == "service" && !c.retired {
			v.Consumers = append(v.Consumers, c.ref.String())
		}
	}
	v.Retired, err = s.retirement(ctx, s.pool, tenant, "view", own)
	return v, err
}

// consumer is a service or view version that reads a view version.
type consumer struct {
	kind    string // service; view when it falls back on it
	ref     waybill.VersionRef
	retired bool
}

// maxTexts is how many versions of views and services consumers looks at.
const maxTexts = 20_000

// consumers lists what reads each view version: services, directly and through what stands in for their views, and the
// views that fall back on it. It parses every definition: once for a whole page. whole is false beyond maxTexts.
func (s *Store) consumers(ctx context.Context, q pg.Querier, tenant waybill.Tenant) (_ map[waybill.VersionRef][]consumer, whole bool, err error) {
	rows, err := q.Query(ctx, string(selectTexts), tenant, maxTexts+1)
	if err != nil {
		return nil, false, fmt.Errorf("select definitions: %w", err)
	}
	type text struct {
		consumer
		Features []string
		Fallback *Fallback
	}
	var texts []text
	parents := map[waybill.VersionRef]waybill.VersionRef{}
	var t text
	var yml string
	_, err = pgx.ForEachRow(rows, []any{&t.kind, &t.ref.Name, &t.ref.Version, &yml, &t.retired}, func() error {
		var doc struct {
			Features yaml.Node `yaml:"features"`
			Fallback *Fallback `yaml:"fallback"`
		}
		if err := yaml.Unmarshal([]byte(yml), &doc); err != nil {
			return waybill.Wrap(waybill.Corrupt, err, "the definition of "+t.ref.String()+" cannot be read")
		}
		t.Features, t.Fallback = nil, doc.Fallback
		if t.kind == "service" {
			if err := doc.Features.Decode(&t.Features); err != nil {
				return waybill.Wrap(waybill.Corrupt, err, "the definition of "+t.ref.String()+" cannot be read")
			}
		}
		if t.Fallback != nil {
			parent, err := waybill.ParseVersionRef("fallback.view", t.Fallback.View)
			if err != nil {
				return waybill.Wrap(waybill.Corrupt, err, "the definition of "+t.ref.String()+" cannot be read")
			}
			parents[t.ref] = parent
		}
		texts = append(texts, t)
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("read definitions: %w", err)
	}
	whole = len(texts) <= maxTexts
	out := map[waybill.VersionRef][]consumer{}
	read := func(view waybill.VersionRef, by consumer) {
		if users := out[view]; !slices.Contains(users, by) {
			out[view] = append(users, by)
		}
	}
	for _, t := range texts {
		if parent, ok := parents[t.ref]; ok && t.kind == "view" {
			read(parent, t.consumer)
		}
		for _, f := range t.Features {
			r, err := waybill.ParseFeatureRef("features", f)
			if err != nil {
				continue // published before references were resolved: it names no version
			}
			for view, more := r.View, true; more; view, more = parents[view] {
				read(view, t.consumer)
			}
		}
	}
	return out, whole, nil
}

// LastBatch returns the batch id and the sequence of the newest commit of a view version, "" and 0 when there is none.
func (s *Store) LastBatch(ctx context.Context, tenant waybill.Tenant, view waybill.VersionRef) (batch string, seq int64, err error) {
	err = s.pool.QueryRow(ctx, string(selectLastBatch), tenant, view.Name, view.Version).Scan(&batch, &seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("select last batch: %w", err)
	}
	return batch, seq, nil
}

// Views lists the latest version of every view by name, and returns the token of the next page ("" at the end).
func (s *Store) Views(ctx context.Context, tenant waybill.Tenant, p Page) ([]ViewInfo, string, error) {
	names, next, err := s.names(ctx, tenant, "view", p)
	if err != nil {
		return nil, "", err
	}
	users, _, err := s.consumers(ctx, s.pool, tenant)
	if err != nil {
		return nil, "", err
	}
	out := make([]ViewInfo, len(names))
	for i, n := range names {
		if out[i], err = s.viewInfo(ctx, tenant, waybill.VersionRef{Name: n}, users); err != nil {
			return nil, "", err
		}
	}
	return out, next, nil
}

// ServiceInfo returns one service version; version 0 is the latest.
func (s *Store) ServiceInfo(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) (v ServiceInfo, err error) {
	if v.Published, err = s.definition(ctx, tenant, "service", ref, &v.Service); err != nil {
		return v, err
	}
	p, err := s.plan(ctx, tenant, v.Service)
	if err != nil {
		return v, err
	}
	v.Vector = p.outputs
	v.Retired, err = s.retirement(ctx, s.pool, tenant, "service", waybill.VersionRef{Name: v.Name, Version: v.Version})
	return v, err
}

// Services lists the latest version of every service by name, and returns the token of the next page ("" at the end).
func (s *Store) Services(ctx context.Context, tenant waybill.Tenant, p Page) ([]ServiceInfo, string, error) {
	names, next, err := s.names(ctx, tenant, "service", p)
	if err != nil {
		return nil, "", err
	}
	out := make([]ServiceInfo, len(names))
	for i, n := range names {
		if out[i], err = s.ServiceInfo(ctx, tenant, waybill.VersionRef{Name: n}); err != nil {
			return nil, "", err
		}
	}
	return out, next, nil
}
