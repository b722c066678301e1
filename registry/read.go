package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// The statements that read versions; their columns are those of versionRow.
const (
	lockVersion pg.SQL = `
SELECT tenant, model, version, seq, state, digest, format, entrypoint, feature_service, feature_service_version,
    training_set, metrics, description, intended_use, automation, tags, author, authors, created_at, submitted_at
FROM registry.versions WHERE tenant = $1 AND model = $2 AND version = $3 FOR UPDATE`

	selectVersion pg.SQL = `
SELECT tenant, model, version, seq, state, digest, format, entrypoint, feature_service, feature_service_version,
    training_set, metrics, description, intended_use, automation, tags, author, authors, created_at, submitted_at
FROM registry.versions
WHERE tenant = $1 AND model = $2
    AND version = CASE WHEN $3::int > 0 THEN $3::int
        ELSE (SELECT last_version FROM registry.models WHERE tenant = $1 AND name = $2) END`

	newestVersions pg.SQL = `
SELECT tenant, model, version, seq, state, digest, format, entrypoint, feature_service, feature_service_version,
    training_set, metrics, description, intended_use, automation, tags, author, authors, created_at, submitted_at
FROM registry.versions
WHERE tenant = $1 AND ($2::text = '' OR model = $2) AND ($3::text = '' OR state = $3) AND ($4::bigint = 0 OR seq < $4::bigint)
ORDER BY seq DESC LIMIT $5`

	latestVersions pg.SQL = `
SELECT v.tenant, v.model, v.version, v.seq, v.state, v.digest, v.format, v.entrypoint, v.feature_service,
    v.feature_service_version, v.training_set, v.metrics, v.description, v.intended_use, v.automation, v.tags, v.author,
    v.authors, v.created_at, v.submitted_at
FROM registry.models m
JOIN registry.versions v ON v.tenant = m.tenant AND v.model = m.name AND v.version = m.last_version
WHERE m.tenant = $1 AND m.name = ANY($2::text[])`

	selectFiles pg.SQL = `
SELECT path, size, sha256, uploaded_by, uploaded_at FROM registry.artifacts
WHERE tenant = $1 AND model = $2 AND version = $3 ORDER BY path COLLATE "C"`

	selectApprovals pg.SQL = `
SELECT a.model, a.version, a.id, a.kind, a.actor, a.reason, a.digest, a.feature_service, a.feature_service_version,
    a.training_set, a.at
FROM unnest($2::text[], $3::int[]) AS wanted(model, version)
JOIN registry.approvals a ON a.tenant = $1 AND a.model = wanted.model AND a.version = wanted.version
ORDER BY a.seq`

	selectAliases pg.SQL = `
SELECT a.model, a.alias, a.version FROM registry.aliases a
WHERE a.tenant = $1 AND a.model = ANY($2::text[]) ORDER BY a.model, a.alias`

	selectRevokedTwins pg.SQL = `
SELECT wanted.model, wanted.version, v.version, a.reason
FROM unnest($2::text[], $3::int[], $4::text[]) AS wanted(model, version, digest)
JOIN registry.versions v ON v.tenant = $1 AND v.model = wanted.model AND v.digest = wanted.digest AND v.state = 'revoked' AND v.version <> wanted.version
JOIN registry.approvals a ON a.tenant = $1 AND a.model = v.model AND a.version = v.version AND a.kind = 'revoke'
WHERE wanted.digest <> ''
ORDER BY a.seq`

	selectModels pg.SQL = `
SELECT name, created_at, created_by, last_version FROM registry.models
WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3`
)

// versionRow is a row of registry.versions.
type versionRow struct {
	Tenant                waybill.Tenant
	Model                 string
	Version               int
	Seq                   int64
	State                 State
	Digest                string
	Format                Format
	Entrypoint            string
	FeatureService        string
	FeatureServiceVersion int
	TrainingSet           string
	Metrics               map[string]float64
	Description           string
	IntendedUse           string
	Automation            Automation
	Tags                  map[string]string
	Author                string
	Authors               []string
	CreatedAt             time.Time
	SubmittedAt           *time.Time
}

func scanVersion(row pgx.CollectableRow) (Version, error) {
	r, err := pgx.RowToStructByName[versionRow](row)
	if err != nil {
		return Version{}, err
	}
	v := Version{
		Tenant: r.Tenant, Model: r.Model, Version: r.Version, State: r.State, Digest: r.Digest, Format: r.Format,
		Entrypoint: r.Entrypoint, FeatureService: waybill.VersionRef{Name: r.FeatureService, Version: r.FeatureServiceVersion},
		TrainingSet: r.TrainingSet, Metrics: r.Metrics, Description: r.Description, IntendedUse: r.IntendedUse,
		Automation: r.Automation, Tags: r.Tags, Author: r.Author, Authors: r.Authors, CreatedAt: r.CreatedAt.UTC(), seq: r.Seq,
	}
	if r.SubmittedAt != nil {
		v.SubmittedAt = r.SubmittedAt.UTC()
	}
	v.Needs = needs(v.State, v.Authors, nil)
	return v, nil
}

func scanArtifact(row pgx.CollectableRow) (Artifact, error) {
	a, err := pgx.RowToStructByPos[Artifact](row)
	a.UploadedAt = a.UploadedAt.UTC()
	return a, err
}

// lock reads one version and holds its row until the transaction ends: nobody else changes it in between.
func lock(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant, ref waybill.VersionRef) (Version, error) {
	return one(ctx, tx, lockVersion, tenant, ref)
}

func one(ctx context.Context, q pg.Querier, query pg.SQL, tenant waybill.Tenant, ref waybill.VersionRef) (Version, error) {
	rows, err := q.Query(ctx, string(query), tenant, ref.Name, ref.Version)
	if err != nil {
		return Version{}, fmt.Errorf("read version: %w", err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, scanVersion)
	if errors.Is(err, pgx.ErrNoRows) {
		return Version{}, waybill.Errorf(waybill.NotFound, "there is no model version %s", ref)
	}
	if err != nil {
		return Version{}, fmt.Errorf("read version: %w", err)
	}
	return v, nil
}

// load reads one version with everything that belongs to it.
func load(ctx context.Context, q pg.Querier, tenant waybill.Tenant, ref waybill.VersionRef) (Version, error) {
	v, err := one(ctx, q, selectVersion, tenant, ref)
	if err != nil {
		return Version{}, err
	}
	if v.Files, err = filesOf(ctx, q, v); err != nil {
		return Version{}, err
	}
	list := []Version{v}
	if err := complete(ctx, q, tenant, list); err != nil {
		return Version{}, err
	}
	return list[0], nil
}

func filesOf(ctx context.Context, q pg.Querier, v Version) ([]Artifact, error) {
	rows, err := q.Query(ctx, string(selectFiles), v.Tenant, v.Model, v.Version)
	if err != nil {
		return nil, fmt.Errorf("read artifacts: %w", err)
	}
	files, err := pgx.CollectRows(rows, scanArtifact)
	if err != nil {
		return nil, fmt.Errorf("read artifacts: %w", err)
	}
	return files, nil
}

// complete adds verdicts, aliases, what is needed and whether the same bytes were revoked to a list of versions of one tenant, with three queries in all.
func complete(ctx context.Context, q pg.Querier, tenant waybill.Tenant, list []Version) error {
	if len(list) == 0 {
		return nil
	}
	index := make(map[waybill.VersionRef]int, len(list))
	models, numbers, digests := make([]string, len(list)), make([]int32, len(list)), make([]string, len(list))
	for i, v := range list {
		index[v.Ref()] = i
		models[i], numbers[i], digests[i] = v.Model, int32(v.Version), v.Digest
	}
	rows, err := q.Query(ctx, string(selectApprovals), tenant, models, numbers)
	if err != nil {
		return fmt.Errorf("read approvals: %w", err)
	}
	var ref waybill.VersionRef
	var a Approval
	_, err = pgx.ForEachRow(rows, []any{&ref.Name, &ref.Version, &a.ID, &a.Kind, &a.Actor, &a.Reason, &a.Digest,
		&a.FeatureService.Name, &a.FeatureService.Version, &a.TrainingSet, &a.At}, func() error {
		a.At = a.At.UTC()
		v := &list[index[ref]]
		v.Approvals = append(v.Approvals, a)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read approvals: %w", err)
	}
	rows, err = q.Query(ctx, string(selectAliases), tenant, models)
	if err != nil {
		return fmt.Errorf("read aliases: %w", err)
	}
	var alias string
	_, err = pgx.ForEachRow(rows, []any{&ref.Name, &alias, &ref.Version}, func() error {
		if i, ok := index[ref]; ok {
			list[i].Aliases = append(list[i].Aliases, alias)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read aliases: %w", err)
	}
	rows, err = q.Query(ctx, string(selectRevokedTwins), tenant, models, numbers, digests)
	if err != nil {
		return fmt.Errorf("read revoked twins: %w", err)
	}
	var twin int
	var reason string
	_, err = pgx.ForEachRow(rows, []any{&ref.Name, &ref.Version, &twin, &reason}, func() error {
		v := &list[index[ref]]
		v.revokedAs, v.RevokedAs = twin, fmt.Sprintf("v%d: %s", twin, reason)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read revoked twins: %w", err)
	}
	for i := range list {
		if n := len(list[i].Approvals); n > 0 {
			list[i].Needs = needs(list[i].State, list[i].Authors, &list[i].Approvals[n-1])
		}
	}
	return nil
}

// snapshot runs f in a read-only transaction that sees one state of the database.
func (s *Store) snapshot(ctx context.Context, f func(tx pgx.Tx) error) error {
	return plain(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, f))
}

// Get returns one version with files, verdicts and aliases; version 0 is the newest one. Errors: Invalid, NotFound,
// also for what another tenant has.
func (s *Store) Get(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) (Version, error) {
	if err := waybill.CheckName("model", ref.Name); err != nil {
		return Version{}, err
	}
	if ref.Version < 0 || ref.Version > 1<<30 {
		return Version{}, waybill.InvalidField("model", ref.String()+" names no version; write "+ref.Name+"@v1")
	}
	var v Version
	err := s.snapshot(ctx, func(tx pgx.Tx) (err error) {
		v, err = load(ctx, tx, tenant, ref)
		return err
	})
	return v, err
}

// Resolve reads "name", "name@latest" (both the newest version), "name@v3" or "name@champion" and returns what that
// names now, as Get does.
func (s *Store) Resolve(ctx context.Context, tenant waybill.Tenant, text string) (Version, error) {
	model, alias, found := strings.Cut(text, "@")
	if err := waybill.CheckName("model", model); err != nil {
		return Version{}, err
	}
	if !found || checkAlias(alias) != nil {
		// Not an alias, so a version; what is neither gets ParseVersionRef's words.
		ref, err := waybill.ParseVersionRef("model", text)
		if err != nil {
			return Version{}, err
		}
		return s.Get(ctx, tenant, ref)
	}
	var v Version
	err := s.snapshot(ctx, func(tx pgx.Tx) error {
		version, err := currentAlias(ctx, tx, tenant, model, alias)
		if err != nil {
			return err
		}
		if version == 0 {
			return noAlias(model, alias)
		}
		v, err = load(ctx, tx, tenant, waybill.VersionRef{Name: model, Version: version})
		return err
	})
	return v, err
}

// Page asks for a part of a list.
type Page struct {
	Size  int    // 0 is 100; at most MaxPage
	Token string // what the part before returned; "" for the first
}

// MaxPage bounds a page.
const MaxPage = 1000

// Filter narrows a list of versions; zero fields do not.
type Filter struct {
	Model string
	State State
}

// ListVersions lists versions, newest first, without their files. The second result is the token of the next page, ""
// on the last. An unknown model has no versions.
func (s *Store) ListVersions(ctx context.Context, tenant waybill.Tenant, f Filter, p Page) ([]Version, string, error) {
	if f.Model != "" {
		if err := waybill.CheckName("model", f.Model); err != nil {
			return nil, "", err
		}
	}
	if f.State != "" && !f.State.known() {
		return nil, "", waybill.InvalidField("state", strconv.QuoteToGraphic(clip(string(f.State)))+
			" is not a state; use draft, submitted, approved, rejected, revoked, expired or retired")
	}
	size, after, err := p.bySeq()
	if err != nil {
		return nil, "", err
	}
	var list []Version
	var next string
	err = s.snapshot(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, string(newestVersions), tenant, f.Model, f.State, after, size+1)
		if err != nil {
			return fmt.Errorf("list versions: %w", err)
		}
		if list, err = pgx.CollectRows(rows, scanVersion); err != nil {
			return fmt.Errorf("list versions: %w", err)
		}
		list, next = cut(list, size, func(v Version) string { return seqToken(v.seq) })
		return complete(ctx, tx, tenant, list)
	})
	if err != nil {
		return nil, "", err
	}
	return list, next, nil
}

// ListModels lists models by name, each with its newest version and aliases. The second result is as in ListVersions.
func (s *Store) ListModels(ctx context.Context, tenant waybill.Tenant, p Page) ([]Model, string, error) {
	size, after, err := p.check()
	if err != nil {
		return nil, "", err
	}
	var models []Model
	var next string
	err = s.snapshot(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, string(selectModels), tenant, after, size+1)
		if err != nil {
			return fmt.Errorf("list models: %w", err)
		}
		models, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Model, error) {
			m := Model{Aliases: map[string]int{}}
			err := row.Scan(&m.Name, &m.CreatedAt, &m.CreatedBy, &m.Versions)
			m.CreatedAt = m.CreatedAt.UTC()
			return m, err
		})
		if err != nil {
			return fmt.Errorf("list models: %w", err)
		}
		models, next = cut(models, size, func(m Model) string { return token(m.Name) })
		return fillModels(ctx, tx, tenant, models)
	})
	if err != nil {
		return nil, "", err
	}
	return models, next, nil
}

func fillModels(ctx context.Context, q pg.Querier, tenant waybill.Tenant, models []Model) error {
	if len(models) == 0 {
		return nil
	}
	index := make(map[string]int, len(models))
	names := make([]string, len(models))
	for i, m := range models {
		index[m.Name], names[i] = i, m.Name
	}
	rows, err := q.Query(ctx, string(latestVersions), tenant, names)
	if err != nil {
		return fmt.Errorf("read newest versions: %w", err)
	}
	latest, err := pgx.CollectRows(rows, scanVersion)
	if err != nil {
		return fmt.Errorf("read newest versions: %w", err)
	}
	if err := complete(ctx, q, tenant, latest); err != nil {
		return err
	}
	for _, v := range latest {
		models[index[v.Model]].Latest = v
	}
	rows, err = q.Query(ctx, string(selectAliases), tenant, names)
	if err != nil {
		return fmt.Errorf("read aliases: %w", err)
	}
	var model, alias string
	var version int
	_, err = pgx.ForEachRow(rows, []any{&model, &alias, &version}, func() error {
		models[index[model]].Aliases[alias] = version
		return nil
	})
	if err != nil {
		return fmt.Errorf("read aliases: %w", err)
	}
	return nil
}

// check returns the page's size and the key to go on after.
func (p Page) check() (size int, after string, err error) {
	if p.Size < 0 || p.Size > MaxPage {
		return 0, "", waybill.InvalidField("page_size", fmt.Sprintf("is %d; give 1 to %d, or 0 for 100", p.Size, MaxPage))
	}
	if p.Size == 0 {
		p.Size = 100
	}
	key, err := base64.RawURLEncoding.DecodeString(p.Token)
	if err != nil || len(key) > 63 || checkText("", string(key), 63) != nil {
		return 0, "", badToken()
	}
	return p.Size, string(key), nil
}

// bySeq is check for lists in order of a sequence number.
func (p Page) bySeq() (size int, after int64, err error) {
	size, key, err := p.check()
	if err != nil || key == "" {
		return size, 0, err
	}
	after, err = strconv.ParseInt(key, 10, 64)
	if err != nil || after < 1 {
		return 0, 0, badToken()
	}
	return size, after, nil
}

func badToken() error {
	return waybill.InvalidField("page_token", "is not one of ours; pass the token of the page before, or none")
}

func token(key string) string   { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
func seqToken(seq int64) string { return token(strconv.FormatInt(seq, 10)) }

// cut takes the one row too many, by which a query shows that there is more, off a page and returns the next token.
func cut[T any](list []T, size int, key func(T) string) ([]T, string) {
	if len(list) <= size {
		return list, ""
	}
	return list[:size], key(list[size-1])
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
