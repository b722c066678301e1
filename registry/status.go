package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// Channel is the Postgres channel that is notified when States or Live would answer something else.
const Channel = "registry"

// Status is what an endpoint must know of a version before it serves it.
type Status struct {
	Tenant         waybill.Tenant
	Ref            waybill.VersionRef
	State          State
	Digest         string // "sha256:<hex>"
	Format         Format
	Entrypoint     string
	FeatureService waybill.VersionRef
	TrainingSet    string
	// Serves says that the version is approved and that the approval binds exactly what the version is now.
	Serves bool
	// Needs says in words why not; "" when Serves.
	Needs string
	// The newest approval; zero when there never was one.
	ApprovalID waybill.ID
	Approver   string
	ApprovedAt time.Time
}

// selectStates joins each frozen version to its newest approval and its newest verdict of any kind.
const selectStates pg.SQL = `
SELECT v.tenant, v.model, v.version, v.state, v.digest, v.format, v.entrypoint, v.feature_service, v.feature_service_version,
    v.training_set, v.authors,
    a.id, coalesce(a.actor, ''), a.at,
    coalesce(a.digest = v.digest AND a.feature_service = v.feature_service
        AND a.feature_service_version = v.feature_service_version AND a.training_set = v.training_set, false),
    coalesce(l.actor, ''), coalesce(l.reason, ''), l.at
FROM registry.versions v
LEFT JOIN LATERAL (SELECT * FROM registry.approvals x WHERE x.tenant = v.tenant AND x.model = v.model
    AND x.version = v.version AND x.kind = 'approve' ORDER BY x.seq DESC LIMIT 1) a ON true
LEFT JOIN LATERAL (SELECT * FROM registry.approvals x WHERE x.tenant = v.tenant AND x.model = v.model
    AND x.version = v.version ORDER BY x.seq DESC LIMIT 1) l ON true
WHERE v.state <> 'draft' AND ($1::text = '' OR v.tenant = $1)
ORDER BY v.tenant, v.model, v.version`

// States returns the status of every version of a tenant that left draft, ordered by model and version. It is meant
// for a snapshot in memory that is replaced on each notification of Channel: some 300 bytes per version.
func (s *Store) States(ctx context.Context, tenant waybill.Tenant) ([]Status, error) {
	if err := waybill.CheckName("tenant", string(tenant)); err != nil {
		return nil, err
	}
	return s.states(ctx, tenant)
}

// Live is States for all tenants, for the hub itself; it is not to be answered to a caller.
func (s *Store) Live(ctx context.Context) ([]Status, error) { return s.states(ctx, "") }

func (s *Store) states(ctx context.Context, tenant waybill.Tenant) ([]Status, error) {
	rows, err := s.pool.Query(ctx, string(selectStates), tenant)
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanStatus)
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	return list, nil
}

func scanStatus(row pgx.CollectableRow) (Status, error) {
	var st Status
	var authors []string
	var last Approval
	var approvedAt, lastAt *time.Time
	var bound bool
	err := row.Scan(&st.Tenant, &st.Ref.Name, &st.Ref.Version, &st.State, &st.Digest, &st.Format, &st.Entrypoint,
		&st.FeatureService.Name, &st.FeatureService.Version, &st.TrainingSet, &authors,
		&st.ApprovalID, &st.Approver, &approvedAt, &bound, &last.Actor, &last.Reason, &lastAt)
	if err != nil {
		return Status{}, err
	}
	if approvedAt != nil {
		st.ApprovedAt = approvedAt.UTC()
	}
	if lastAt != nil {
		last.At = lastAt.UTC()
		st.Needs = needs(st.State, authors, &last)
	} else {
		st.Needs = needs(st.State, authors, nil)
	}
	st.Serves = st.State.Serves() && bound
	// Nothing in this package can bring this about; a change of the rows by other hands can, and must not serve.
	if st.State.Serves() && !bound {
		st.Needs = "needs a new approval: the one there is binds something else"
	}
	return st, nil
}
