package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/lineage"
)

// FeatureReport compares one feature. Bin i holds the values from Edges[i−1] up to, not including, Edges[i]; the outer
// bins are open.
type FeatureReport struct {
	Feature           string
	Edges             []float64
	Reference         []int64
	Production        []int64
	ReferenceMissing  int64
	ProductionMissing int64
	Statistics        Statistics
	sums              []float64
}

// Report compares what an endpoint saw in a window with what its model was trained on.
type Report struct {
	Endpoint string
	Model    waybill.VersionRef
	Digest   string // of the training set
	Features []FeatureReport
	From, To time.Time // whole hours
}

// Monitor is a watch with a limit.
type Monitor struct {
	Name      string
	Endpoint  string
	Feature   string // "*" for all
	Statistic string // psi, kl, js, ks or wasserstein
	Limit     float64
	MinSample int64
	Window    time.Duration
	Author    string
}

// State is what a monitor found of one feature.
type State string

// The states of a verdict.
const (
	OK           State = "ok"
	Drift        State = "drift"        // beyond the limit, or another share of missing values than in the reference
	Insufficient State = "insufficient" // fewer values than the monitor's least sample
	NoReference  State = "no_reference" // the model names no training set, or the feature is not in it
)

// Verdict is the result for one feature.
type Verdict struct {
	Feature string
	State   State
	Value   float64
	Limit   float64
	Sample  int64 // how many were looked at: with the missing ones for psi, kl and js, the values alone for ks and wasserstein
}

// Incident is one cause with what it may have reached.
type Incident struct {
	ID         waybill.ID
	Monitor    string
	Endpoint   string
	Model      waybill.VersionRef
	Features   []string
	Affected   []string // lineage nodes
	Title      string
	State      string // open or resolved
	OpenedAt   time.Time
	ResolvedAt time.Time // zero while open
	ResolvedBy string
	Reason     string
}

// Page asks for a part of a list.
type Page struct {
	Size  int    // 0 is 100; at most 1,000
	Token string // what the page before returned; "" for the first
}

func (p Page) check() (int, error) {
	if p.Size < 0 || p.Size > 1000 {
		return 0, waybill.InvalidField("page_size", "must lie in 0 to 1,000; 0 means 100")
	}
	if p.Size == 0 {
		return 100, nil
	}
	return p.Size, nil
}

const (
	maxMonitors = 1000 // per tenant
	maxWindow   = 90 * 24 * time.Hour
	maxAffected = 200

	selectModel pg.SQL = `
SELECT model, version FROM drift.profile WHERE tenant = $1 AND endpoint = $2 AND hour >= $3 AND hour < $4 ORDER BY hour DESC, version DESC LIMIT 1`
	selectProfile pg.SQL = `
SELECT feature, training_set, counts, sums, missing FROM drift.profile
WHERE tenant = $1 AND endpoint = $2 AND hour >= $3 AND hour < $4 AND model = $5 AND version = $6 ORDER BY hour, feature`
	countMonitors pg.SQL = `SELECT count(*) FROM drift.monitor WHERE tenant = $1 AND name <> $2`
	putMonitor    pg.SQL = `
INSERT INTO drift.monitor (tenant, name, endpoint, feature, statistic, max_value, min_sample, window_seconds, author, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant, name) DO UPDATE SET endpoint = $3, feature = $4, statistic = $5, max_value = $6, min_sample = $7, window_seconds = $8, author = $9, changed_at = $10`
	selectMonitor pg.SQL = `
SELECT name, endpoint, feature, statistic, max_value, min_sample, window_seconds, author FROM drift.monitor WHERE tenant = $1 AND name = $2`
	selectMonitors pg.SQL = `
SELECT name, endpoint, feature, statistic, max_value, min_sample, window_seconds, author FROM drift.monitor WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3`
	selectAllMonitors pg.SQL = `SELECT tenant, name FROM drift.monitor ORDER BY tenant, name LIMIT 10000`
	insertVerdict     pg.SQL = `
INSERT INTO drift.verdict (tenant, run, feature, monitor, model, version, training_set, from_time, to_time, statistic, value, max_value, state, counts, sums, missing, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`
	insertIncident pg.SQL = `
INSERT INTO drift.incident (id, tenant, monitor, endpoint, model, version, features, affected, title, state, opened_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'open', $10)`
	lockCause   pg.SQL = `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`
	selectCause pg.SQL = `
SELECT id, monitor, features FROM drift.incident
WHERE tenant = $1 AND endpoint = $2 AND model = $3 AND version = $4 AND state = 'open' ORDER BY opened_at, id FOR UPDATE`
	selectSettled pg.SQL = `
SELECT f, max(resolved_at) FROM drift.incident, unnest(features) AS f
WHERE tenant = $1 AND endpoint = $2 AND model = $3 AND version = $4 AND state = 'resolved' AND resolved_at >= $5 GROUP BY f`
	mergeIncident pg.SQL = `
UPDATE drift.incident SET features = (SELECT array_agg(DISTINCT f ORDER BY f) FROM unnest(features || $3::text[]) AS f) WHERE tenant = $1 AND id = $2`
	sweepVerdicts pg.SQL = `
DELETE FROM drift.verdict WHERE (tenant, run, feature) IN
    (SELECT tenant, run, feature FROM drift.verdict WHERE at < $1 AND (state <> 'drift' OR at < $2) ORDER BY at LIMIT 10000)`
	selectIncidents pg.SQL = `
SELECT id, monitor, endpoint, model, version, features, affected, title, state, opened_at, resolved_at, resolved_by, reason FROM drift.incident
WHERE tenant = $1 AND ($2 = '' OR state = $2) AND (opened_at, id) < ($3, $4) ORDER BY opened_at DESC, id DESC LIMIT $5`
	resolveIncident pg.SQL = `
UPDATE drift.incident SET state = 'resolved', resolved_at = $3, resolved_by = $4, reason = $5 WHERE tenant = $1 AND id = $2 AND state = 'open'
RETURNING id, monitor, endpoint, model, version, features, affected, title, state, opened_at, resolved_at, resolved_by, reason`
)

// Report compares the window (whole hours that touch from to to) of the model that an endpoint used last in it. Features
// are sorted by PSI, highest first. NotFound when no decision of a model with a training set was counted.
func (s *Store) Report(ctx context.Context, tenant waybill.Tenant, endpoint string, from, to time.Time) (Report, error) {
	if !from.Before(to) || to.Sub(from) > maxWindow {
		return Report{}, waybill.InvalidField("from", "must lie before to, by at most 90 days")
	}
	r := Report{Endpoint: endpoint, From: from.UTC().Truncate(time.Hour), To: to.UTC()}
	err := s.pool.QueryRow(ctx, string(selectModel), tenant, endpoint, r.From, r.To).Scan(&r.Model.Name, &r.Model.Version)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := s.whyUnread(tenant, endpoint); err != nil {
			return r, err
		}
		return r, waybill.Errorf(waybill.NotFound, "no decision at %s was counted from %s to %s: the endpoint decided nothing, rules answered, or its model names no training set", endpoint, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	}
	if err != nil {
		return r, fmt.Errorf("select model: %w", err)
	}
	return r, r.fill(ctx, s.pool, tenant)
}

// fill reads and compares what the report's endpoint and model saw in its window; without anything it has no features.
func (r *Report) fill(ctx context.Context, q pg.Querier, tenant waybill.Tenant) error {
	rows, err := q.Query(ctx, string(selectProfile), tenant, r.Endpoint, r.From, r.To, r.Model.Name, r.Model.Version)
	if err != nil {
		return fmt.Errorf("select profile: %w", err)
	}
	seen := map[string]*counted{}
	var name string
	var c counted
	_, err = pgx.ForEachRow(rows, []any{&name, &r.Digest, &c.counts, &c.sums, &c.missing}, func() error {
		sum := seen[name]
		if sum == nil {
			sum = &counted{counts: make([]int64, len(c.counts)), sums: make([]float64, len(c.counts))}
			seen[name] = sum
		}
		if len(sum.counts) != len(c.counts) || len(c.sums) != len(c.counts) {
			return waybill.Errorf(waybill.Corrupt, "the profile of %s has %d and %d bins", name, len(sum.counts), len(c.counts))
		}
		for i := range c.counts {
			sum.counts[i] += c.counts[i]
			sum.sums[i] += c.sums[i]
		}
		sum.missing += c.missing
		return nil
	})
	if err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	if len(seen) == 0 {
		return nil
	}
	var raw []byte
	if err := q.QueryRow(ctx, string(selectReference), tenant, r.Digest).Scan(&raw); err != nil {
		return fmt.Errorf("select reference: %w", err)
	}
	var features []feature
	if err := json.Unmarshal(raw, &features); err != nil {
		return waybill.Wrap(waybill.Corrupt, err, "the reference cannot be read")
	}
	for _, f := range features {
		if c := seen[f.Name]; c != nil {
			r.Features = append(r.Features, FeatureReport{Feature: f.Name, Edges: f.Cuts, Reference: f.Counts, Production: c.counts, ReferenceMissing: f.Missing,
				ProductionMissing: c.missing, Statistics: compare(f, c.counts, c.sums, c.missing), sums: c.sums})
		}
	}
	slices.SortStableFunc(r.Features, func(a, b FeatureReport) int {
		switch {
		case a.Statistics.PSI > b.Statistics.PSI:
			return -1
		case a.Statistics.PSI < b.Statistics.PSI:
			return 1
		}
		return 0
	})
	return nil
}

// errUnread marks the report of an endpoint whose decisions are not counted because of their reference.
var errUnread = errors.New("the reference could not be read")

// unreadFor is how long a reference that could not be had is reported without another decision that would have needed it.
const unreadFor = 5 * time.Minute

// whyUnread says why this node does not count an endpoint's decisions; nil when it does, or has seen none.
func (s *Store) whyUnread(tenant waybill.Tenant, endpoint string) error {
	v, _ := s.unread.Load(endpointKey{tenant, endpoint})
	u, ok := v.(unread)
	if !ok || s.clock().Sub(u.at) > unreadFor { // nothing was decided by that model since
		return nil
	}
	why := "the hub's log says why" // an unclassified error is not for callers
	var own *waybill.Error
	if errors.As(u.err, &own) && own.Message != "" {
		why = own.Message
	}
	return waybill.Wrap(waybill.Conflict, errors.Join(errUnread, u.err),
		fmt.Sprintf("the decisions at %s are not counted: the reference profile of %s could not be made from its training set: %s; it is tried again every minute", endpoint, u.model, why))
}

func (m Monitor) check() error {
	var bad []waybill.Violation
	fail := func(field, remedy string) { bad = append(bad, waybill.Violation{Field: field, Remedy: remedy}) }
	if waybill.CheckName("name", m.Name) != nil {
		fail("name", "must be a lower-case name")
	}
	if waybill.CheckName("endpoint", m.Endpoint) != nil {
		fail("endpoint", "must name an endpoint")
	}
	if m.Feature != "*" && waybill.CheckName("feature", m.Feature) != nil {
		fail("feature", "must name a feature, or be * for all")
	}
	if !slices.Contains([]string{"psi", "kl", "js", "ks", "wasserstein"}, m.Statistic) {
		fail("statistic", "must be psi, kl, js, ks or wasserstein")
	}
	if !(m.Limit > 0) || math.IsInf(m.Limit, 0) {
		fail("limit", "must be a positive number")
	}
	if m.MinSample < 1 {
		fail("min_sample", "must be at least 1")
	}
	if m.Window < time.Hour || m.Window > maxWindow {
		fail("window_seconds", "must lie in 3,600 (an hour) to 7,776,000 (90 days)")
	}
	return waybill.InvalidFields(bad)
}

// PutMonitor creates a monitor or changes the one of that name.
func (s *Store) PutMonitor(ctx context.Context, actor waybill.Actor, m Monitor) (Monitor, error) {
	if err := m.check(); err != nil {
		return m, err
	}
	m.Author = actor.ID
	now := s.clock()
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, string(countMonitors), actor.Tenant, m.Name).Scan(&n); err != nil {
			return fmt.Errorf("count monitors: %w", err)
		}
		if n >= maxMonitors {
			return waybill.Errorf(waybill.TooLarge, "the tenant has %d monitors; at most %d", n, maxMonitors)
		}
		if _, err := tx.Exec(ctx, string(putMonitor), actor.Tenant, m.Name, m.Endpoint, m.Feature, m.Statistic, m.Limit, m.MinSample, int64(m.Window/time.Second), m.Author, now); err != nil {
			return fmt.Errorf("put monitor: %w", err)
		}
		return audit.Enqueue(ctx, tx, audit.Event{Type: "monitor.change", Tenant: actor.Tenant, Actor: actor.ID, At: now, Subject: "monitor:" + m.Name,
			Detail: map[string]any{"endpoint": m.Endpoint, "feature": m.Feature, "statistic": m.Statistic, "limit": m.Limit, "min_sample": m.MinSample, "window_seconds": int64(m.Window / time.Second)}})
	})
	return m, err
}

func scanMonitor(r pgx.CollectableRow) (m Monitor, err error) {
	var seconds int64
	err = r.Scan(&m.Name, &m.Endpoint, &m.Feature, &m.Statistic, &m.Limit, &m.MinSample, &seconds, &m.Author)
	m.Window = time.Duration(seconds) * time.Second
	return m, err
}

// Monitors lists monitors by name, and returns the token of the next page ("" at the end).
func (s *Store) Monitors(ctx context.Context, tenant waybill.Tenant, p Page) ([]Monitor, string, error) {
	n, err := p.check()
	if err != nil {
		return nil, "", err
	}
	rows, err := s.pool.Query(ctx, string(selectMonitors), tenant, p.Token, n+1)
	if err != nil {
		return nil, "", fmt.Errorf("select monitors: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanMonitor)
	if err != nil {
		return nil, "", fmt.Errorf("read monitors: %w", err)
	}
	if len(list) > n {
		return list[:n], list[n-1].Name, nil
	}
	return list, "", nil
}

// RunMonitor evaluates a monitor over the window that ends now. Verdicts are kept with what they were computed from. When
// a feature drifts, an incident is opened, or the open one of the same endpoint, model and feature (whichever monitor opened
// it), else of the same monitor, has it already or gains it; its id is returned. What was resolved is opened again only by
// what was seen in later hours. Every other feature that drifts is in the verdicts alone. What was observed a moment ago may not be counted yet: see Flush.
func (s *Store) RunMonitor(ctx context.Context, tenant waybill.Tenant, name string) ([]Verdict, string, error) {
	rows, err := s.pool.Query(ctx, string(selectMonitor), tenant, name)
	if err != nil {
		return nil, "", fmt.Errorf("select monitor: %w", err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, scanMonitor)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, "", waybill.Errorf(waybill.NotFound, "there is no monitor %s", name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read monitor: %w", err)
	}
	now := s.clock()
	report, err := s.Report(ctx, tenant, m.Endpoint, now.Add(-m.Window), now)
	switch {
	case waybill.CodeOf(err) == waybill.NotFound:
		return []Verdict{{Feature: m.Feature, State: Insufficient, Limit: m.Limit}}, "", nil
	case errors.Is(err, errUnread):
		return []Verdict{{Feature: m.Feature, State: NoReference, Limit: m.Limit}}, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	var verdicts []Verdict
	var drifted []string
	b, run := &pgx.Batch{}, waybill.NewID(now)
	for _, f := range report.Features {
		if m.Feature != "*" && m.Feature != f.Feature {
			continue
		}
		v := m.judge(f)
		if v.State == Drift {
			drifted = append(drifted, f.Feature)
		}
		verdicts = append(verdicts, v)
		b.Queue(string(insertVerdict), tenant, run, f.Feature, m.Name, report.Model.Name, report.Model.Version, report.Digest, report.From, report.To, m.Statistic, v.Value, m.Limit,
			string(v.State), f.Production, f.sums, f.ProductionMissing, now)
	}
	if len(verdicts) == 0 {
		return []Verdict{{Feature: m.Feature, State: NoReference, Limit: m.Limit}}, "", nil
	}
	var affected []string
	if len(drifted) > 0 {
		if affected, err = s.affected(ctx, tenant, report.Model); err != nil {
			return nil, "", err
		}
	}
	id := ""
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("insert verdicts: %w", err)
		}
		if len(drifted) == 0 {
			return nil
		}
		id, err = s.open(ctx, tx, tenant, m, report, drifted, affected, now)
		return err
	})
	return verdicts, id, err
}

// judge evaluates one feature. A share of missing values that has jumped is drift whatever the statistic says of the
// values: they are then not the same part of the population.
func (m Monitor) judge(f FeatureReport) Verdict {
	values, refValues := total(f.Production), total(f.Reference)
	all, refAll := values+f.ProductionMissing, refValues+f.ReferenceMissing
	v := Verdict{Feature: f.Feature, State: OK, Value: f.Statistics.of(m.Statistic), Limit: m.Limit, Sample: all}
	valuesAlone := m.Statistic == "ks" || m.Statistic == "wasserstein"
	if valuesAlone {
		v.Sample = values
	}
	switch {
	case refAll == 0:
		v.State = NoReference
	case all >= m.MinSample && missingMoved(f.ReferenceMissing, refAll, f.ProductionMissing, all):
		v.State, v.Sample = Drift, all
	case v.Sample < m.MinSample:
		v.State = Insufficient
	case refValues == 0 && valuesAlone:
		v.State = NoReference
	case v.Value > m.Limit:
		v.State = Drift
	}
	return v
}

// open makes an incident of what drifted, or adds to the open one of the same cause. It returns "" when all that drifted was
// resolved and nothing newer drifts.
func (s *Store) open(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant, m Monitor, r Report, drifted, affected []string, now time.Time) (string, error) {
	// Two monitors of one cause wait for each other here; whoever resolves waits at the rows.
	if _, err := tx.Exec(ctx, string(lockCause), strings.Join([]string{"drift", string(tenant), m.Endpoint, r.Model.String()}, "/")); err != nil {
		return "", fmt.Errorf("lock cause: %w", err)
	}
	rows, err := tx.Query(ctx, string(selectCause), tenant, m.Endpoint, r.Model.Name, r.Model.Version)
	if err != nil {
		return "", fmt.Errorf("select open incidents: %w", err)
	}
	type incident struct {
		ID       waybill.ID
		Monitor  string
		Features []string
	}
	there, err := pgx.CollectRows(rows, pgx.RowToStructByPos[incident])
	if err != nil {
		return "", fmt.Errorf("read open incidents: %w", err)
	}
	known := map[string]bool{}
	var home *incident
	for i, o := range there {
		for _, f := range o.Features {
			known[f] = true
			if home == nil && slices.Contains(drifted, f) {
				home = &there[i]
			}
		}
	}
	drifted = slices.DeleteFunc(slices.Clone(drifted), func(f string) bool { return known[f] })
	if drifted, err = m.unsettled(ctx, tx, tenant, r, drifted); err != nil {
		return "", err
	}
	if len(drifted) == 0 {
		if home == nil {
			return "", nil
		}
		return home.ID.String(), nil
	}
	if i := slices.IndexFunc(there, func(o incident) bool { return o.Monitor == m.Name }); home == nil && i >= 0 {
		home = &there[i]
	}
	if home != nil {
		if _, err := tx.Exec(ctx, string(mergeIncident), tenant, home.ID, drifted); err != nil {
			return "", fmt.Errorf("merge incident: %w", err)
		}
		return home.ID.String(), nil
	}
	id := waybill.NewID(now)
	title := fmt.Sprintf("%s at %s is not what %s was trained on (%s above %g, or another share missing)", strings.Join(drifted, ", "), m.Endpoint, r.Model, m.Statistic, m.Limit)
	if len(title) > 300 {
		title = title[:300]
	}
	if _, err := tx.Exec(ctx, string(insertIncident), id, tenant, m.Name, m.Endpoint, r.Model.Name, r.Model.Version, drifted, affected, strings.ToValidUTF8(title, ""), now); err != nil {
		return "", fmt.Errorf("insert incident: %w", err)
	}
	node := lineage.IncidentNode(id)
	edges := []lineage.Edge{{From: lineage.ModelNode(r.Model), To: node, Kind: lineage.Raised}}
	for _, a := range affected {
		if strings.HasPrefix(a, "endpoint:"+m.Endpoint+"@") {
			edges = append(edges, lineage.Edge{From: lineage.Node(a), To: node, Kind: lineage.Raised})
		}
	}
	if err := lineage.Record(ctx, tx, tenant, now, edges...); err != nil {
		return "", err
	}
	return id.String(), audit.Enqueue(ctx, tx, audit.Event{Type: "incident", Tenant: tenant, Actor: "monitor", At: now, Subject: string(lineage.ModelNode(r.Model)),
		Detail: map[string]any{"op": "open", "incident": id.String(), "monitor": m.Name, "endpoint": m.Endpoint, "features": drifted}})
}

// unsettled leaves out what was resolved within the report's window, unless the hours after that drift by themselves.
func (m Monitor) unsettled(ctx context.Context, tx pgx.Tx, tenant waybill.Tenant, r Report, drifted []string) ([]string, error) {
	if len(drifted) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(ctx, string(selectSettled), tenant, m.Endpoint, r.Model.Name, r.Model.Version, r.From)
	if err != nil {
		return nil, fmt.Errorf("select resolved incidents: %w", err)
	}
	settled := map[string]time.Time{}
	var feature string
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&feature, &at}, func() error {
		settled[feature] = at.UTC().Truncate(time.Hour).Add(time.Hour)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read resolved incidents: %w", err)
	}
	later := map[time.Time]*Report{}
	var out []string
	for _, f := range drifted {
		from, found := settled[f]
		if !found {
			out = append(out, f)
			continue
		}
		l := later[from]
		if l == nil {
			l = &Report{Endpoint: r.Endpoint, Model: r.Model, From: from, To: r.To}
			if err := l.fill(ctx, tx, tenant); err != nil {
				return nil, err
			}
			later[from] = l
		}
		if slices.ContainsFunc(l.Features, func(g FeatureReport) bool { return g.Feature == f && m.judge(g).State == Drift }) {
			out = append(out, f)
		}
	}
	return out, nil
}

// affected lists what was made from a model, the endpoints that it answers at above all, and then what it was made from.
// Commits are left out: there are too many, and the training set says which.
func (s *Store) affected(ctx context.Context, tenant waybill.Tenant, model waybill.VersionRef) ([]string, error) {
	out := []string{}
	for _, walk := range []func(context.Context, waybill.Tenant, lineage.Node, lineage.Options) (lineage.Subgraph, error){s.graph.Downstream, s.graph.Upstream} {
		g, err := walk(ctx, tenant, lineage.ModelNode(model), lineage.Options{Limit: lineage.MaxLimit, NoCommits: true})
		if waybill.CodeOf(err) == waybill.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, endpoints := range []bool{true, false} {
			for _, n := range g.Nodes {
				kind := n.Node.Kind()
				if (kind == "endpoint") == endpoints && kind != "incident" && len(out) < maxAffected && !slices.Contains(out, string(n.Node)) {
					out = append(out, string(n.Node))
				}
			}
		}
	}
	return out, nil
}

// RunAll evaluates every monitor of every tenant, and sweeps old verdicts. A monitor that fails, or takes longer than a
// minute, is logged: it is no failure of the others, and is tried again with them.
func (s *Store) RunAll(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, string(selectAllMonitors))
	if err != nil {
		return fmt.Errorf("select monitors: %w", err)
	}
	type key struct {
		Tenant waybill.Tenant
		Name   string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[key])
	if err != nil {
		return fmt.Errorf("read monitors: %w", err)
	}
	for _, k := range all {
		one, cancel := context.WithTimeout(ctx, time.Minute)
		_, _, err := s.RunMonitor(one, k.Tenant, k.Name)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.logger.WarnContext(ctx, "monitor not evaluated", "tenant", k.Tenant, "monitor", k.Name, "error", err)
		}
	}
	return s.sweep(ctx)
}

// sweep removes verdicts beyond their age, at most 100,000 at once.
func (s *Store) sweep(ctx context.Context) error {
	now := s.clock()
	for range 10 {
		tag, err := s.pool.Exec(ctx, string(sweepVerdicts), now.Add(-s.keep), now.Add(-s.drift))
		if err != nil {
			return fmt.Errorf("sweep verdicts: %w", err)
		}
		if tag.RowsAffected() < 10_000 {
			break
		}
	}
	return nil
}

func scanIncident(r pgx.CollectableRow) (i Incident, err error) {
	var resolved *time.Time
	err = r.Scan(&i.ID, &i.Monitor, &i.Endpoint, &i.Model.Name, &i.Model.Version, &i.Features, &i.Affected, &i.Title, &i.State, &i.OpenedAt, &resolved, &i.ResolvedBy, &i.Reason)
	i.OpenedAt = i.OpenedAt.UTC()
	if resolved != nil {
		i.ResolvedAt = resolved.UTC()
	}
	return i, err
}

// Incidents lists incidents, newest first, optionally of one state ("open" or "resolved"), and returns the token of the
// next page ("" at the end).
func (s *Store) Incidents(ctx context.Context, tenant waybill.Tenant, state string, p Page) ([]Incident, string, error) {
	n, err := p.check()
	if err != nil {
		return nil, "", err
	}
	if state != "" && state != "open" && state != "resolved" {
		return nil, "", waybill.InvalidField("state", "must be open, resolved or empty for both")
	}
	before, id := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), waybill.ID{}
	if p.Token != "" {
		micros, rest, found := strings.Cut(p.Token, "_")
		us, err := strconv.ParseInt(micros, 10, 64)
		if err == nil {
			id, err = waybill.ParseID("page_token", rest)
		}
		if err != nil || !found {
			return nil, "", waybill.InvalidField("page_token", "is not one that a list returned")
		}
		before = time.UnixMicro(us).UTC()
	}
	rows, err := s.pool.Query(ctx, string(selectIncidents), tenant, state, before, id, n+1)
	if err != nil {
		return nil, "", fmt.Errorf("select incidents: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanIncident)
	if err != nil {
		return nil, "", fmt.Errorf("read incidents: %w", err)
	}
	if len(list) > n {
		last := list[n-1]
		return list[:n], strconv.FormatInt(last.OpenedAt.UnixMicro(), 10) + "_" + last.ID.String(), nil
	}
	return list, "", nil
}

// ResolveIncident closes an open incident with a reason. Errors: NotFound when there is no open one of that id.
func (s *Store) ResolveIncident(ctx context.Context, actor waybill.Actor, id waybill.ID, reason string) (i Incident, err error) {
	if reason == "" || len(reason) > 1024 {
		return i, waybill.InvalidField("reason", "must say why in 1 to 1,024 bytes")
	}
	now := s.clock()
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, string(resolveIncident), actor.Tenant, id, now, actor.ID, reason)
		if err != nil {
			return fmt.Errorf("resolve incident: %w", err)
		}
		i, err = pgx.CollectExactlyOneRow(rows, scanIncident)
		if errors.Is(err, pgx.ErrNoRows) {
			return waybill.Errorf(waybill.NotFound, "there is no open incident %s", id)
		}
		if err != nil {
			return fmt.Errorf("read incident: %w", err)
		}
		if err := lineage.Record(ctx, tx, actor.Tenant, now, lineage.Edge{From: lineage.ActorNode(actor), To: lineage.IncidentNode(id), Kind: lineage.Wrote}); err != nil {
			return err
		}
		return audit.Enqueue(ctx, tx, audit.Event{Type: "incident", Tenant: actor.Tenant, Actor: actor.ID, At: now, Subject: string(lineage.ModelNode(i.Model)),
			Detail: map[string]any{"op": "resolve", "incident": id.String(), "reason": reason}})
	})
	return i, err
}
