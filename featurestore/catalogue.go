package featurestore

import (
	"context"
	"errors"
	"fmt"
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
	Consumers []string  // service versions that read it, "name@v1"
}

// ServiceInfo is a service version with the types of its outputs.
type ServiceInfo struct {
	Service
	Published
	Vector []Column // the outputs, in order
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
	selectServiceTexts pg.SQL = `
SELECT DISTINCT ON (name, version) name, version, yaml FROM featurestore.definition WHERE tenant = $1 AND kind = 'service'
ORDER BY name, version, revision DESC LIMIT 10000`
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
	users, err := s.consumers(ctx, tenant)
	if err != nil {
		return ViewInfo{}, err
	}
	return s.viewInfo(ctx, tenant, ref, users)
}

func (s *Store) viewInfo(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef, users map[waybill.VersionRef][]string) (v ViewInfo, err error) {
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
	v.Consumers = users[waybill.VersionRef{Name: v.Name, Version: v.Version}]
	return v, nil
}

// consumers lists the service versions that read each view version. It parses every service: once for a whole page.
func (s *Store) consumers(ctx context.Context, tenant waybill.Tenant) (map[waybill.VersionRef][]string, error) {
	rows, err := s.pool.Query(ctx, string(selectServiceTexts), tenant)
	if err != nil {
		return nil, fmt.Errorf("select services: %w", err)
	}
	out := map[waybill.VersionRef][]string{}
	var ref waybill.VersionRef
	var text string
	_, err = pgx.ForEachRow(rows, []any{&ref.Name, &ref.Version, &text}, func() error {
		var sv struct {
			Features []string `yaml:"features"`
		}
		if err := yaml.Unmarshal([]byte(text), &sv); err != nil {
			return waybill.Wrap(waybill.Corrupt, err, "the definition of "+ref.String()+" cannot be read")
		}
		name := ref.String()
		for _, f := range sv.Features {
			r, err := waybill.ParseFeatureRef("features", f)
			if err != nil {
				continue // published before references were resolved: it names no version
			}
			if users := out[r.View]; len(users) == 0 || users[len(users)-1] != name {
				out[r.View] = append(users, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	return out, nil
}

// Views lists the latest version of every view by name, and returns the token of the next page ("" at the end).
func (s *Store) Views(ctx context.Context, tenant waybill.Tenant, p Page) ([]ViewInfo, string, error) {
	names, next, err := s.names(ctx, tenant, "view", p)
	if err != nil {
		return nil, "", err
	}
	users, err := s.consumers(ctx, tenant)
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
	p, err := compileService(v.Service, func(ref waybill.VersionRef) (*View, error) {
		w, err := s.view(ctx, s.pool, tenant, ref)
		return &w.View, err
	})
	if err != nil {
		return v, err
	}
	v.Vector = p.outputs
	return v, nil
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
