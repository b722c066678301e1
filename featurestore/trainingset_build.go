package featurestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// A build is a training set that is being made, made again to compare (trainingset_rebuild.go), or made in variants
// (trainingset_ablate.go), by a job: whoever asked may go away, the hub may die, and the build goes on where it was
// (trainingset_part.go). What it keeps meanwhile lies in the bucket under its id and goes when it ends, however it ends.

// buildPrefix is where builds keep what they need until they end: the spine, and the parts that are done.
const buildPrefix = "featurestore/builds"

// BuildState says how far a build is.
type BuildState string

// The states. The last three are final.
const (
	BuildWaiting   BuildState = "waiting"   // for its turn, or for the next try
	BuildRunning   BuildState = "running"   // it can be cancelled until here
	BuildStoring   BuildState = "storing"   // all rows are joined, and their file is being kept
	BuildDone      BuildState = "done"      // there is a training set
	BuildFailed    BuildState = "failed"    // there is none, for the reason that Err gives
	BuildCancelled BuildState = "cancelled" // there is none, since nobody wants it
)

// BuildKind says what is made.
type BuildKind string

// The kinds.
const (
	BuildCreate  BuildKind = "create"  // a training set
	BuildRebuild BuildKind = "rebuild" // the bytes of one again, to compare
	BuildAblate  BuildKind = "ablate"  // its variants without one group of features each
)

// Build is the making of a training set, or of what is made of one.
type Build struct {
	ID        waybill.ID
	Kind      BuildKind
	State     BuildState
	Name      string // of the training set
	Service   waybill.VersionRef
	Base      string // digest of the training set that is rebuilt or ablated
	Rows      int64  // of the spine; 0 until it has been read
	RowsDone  int64  // every row counts once for each view it is looked up in, for the expressions, and for each file
	RowsTotal int64  // what RowsDone is at the end; 0 until the spine has been read, and not the files of an ablation until it is joined
	Digest    string // when it is done: of the training set, of the rebuilt bytes, or of the manifest of the ablation
	Err       error  // why it failed, or, while it waits, why the last try did
	Author    string
	StartedAt time.Time
	UpdatedAt time.Time
	EndedAt   time.Time // zero until then

	explanation string // of Rebuild
}

// Rebuilt is what came of a rebuild that is done.
func (b *Build) Rebuilt() Rebuild {
	return Rebuild{Equal: b.Digest == b.Base, Digest: b.Digest, Explanation: b.explanation}
}

// Ended says whether nothing will come of a build beyond what is there.
func (b *Build) Ended() bool { return !b.EndedAt.IsZero() }

// Bounds of builds.
const (
	maxBuilds     = 64                  // that a tenant may have at once
	maxBuildTries = 10                  // also those that ended with their hub
	keepBuilds    = 30 * 24 * time.Hour // ended ones
	reportEvery   = 300 * time.Millisecond
)

const (
	countBuilds pg.SQL = `SELECT count(*) FROM featurestore.training_set_build WHERE tenant = $1 AND ended_at IS NULL`
	dropBuilds  pg.SQL = `DELETE FROM featurestore.training_set_build WHERE tenant = $1 AND ended_at < $2`
	insertBuild pg.SQL = `
INSERT INTO featurestore.training_set_build (id, tenant, state, content, recipe, author, author_kind, digest, started_at, updated_at, ended_at,
    kind, base, groups, explanation)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13, $14) ON CONFLICT (tenant, content) WHERE ended_at IS NULL DO NOTHING`
	selectBuildOf pg.SQL = `SELECT id FROM featurestore.training_set_build WHERE tenant = $1 AND content = $2 AND ended_at IS NULL`
	selectBuild   pg.SQL = `
SELECT id, state, recipe, rows, rows_done, rows_total, digest, error, author, started_at, updated_at, ended_at, kind, base, explanation
FROM featurestore.training_set_build WHERE tenant = $1 AND id = $2`
	selectBuilds pg.SQL = `
SELECT id, state, recipe, rows, rows_done, rows_total, digest, error, author, started_at, updated_at, ended_at, kind, base, explanation
FROM featurestore.training_set_build WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3`
	beginBuild pg.SQL = `
UPDATE featurestore.training_set_build SET state = CASE state WHEN 'storing' THEN state ELSE 'running' END, tries = tries + 1, updated_at = $2
WHERE id = $1 AND ended_at IS NULL RETURNING tenant, recipe, author, author_kind, started_at, tries, parts, kind, base, groups`
	reportBuild pg.SQL = `
UPDATE featurestore.training_set_build SET rows = $2, rows_done = greatest(rows_done, $3), rows_total = $4, updated_at = $5 WHERE id = $1 AND ended_at IS NULL`
	storeBuild  pg.SQL = `UPDATE featurestore.training_set_build SET state = 'storing', updated_at = $2 WHERE id = $1 AND ended_at IS NULL`
	retryBuild  pg.SQL = `UPDATE featurestore.training_set_build SET state = 'waiting', error = $2, updated_at = $3 WHERE id = $1 AND ended_at IS NULL`
	pauseBuild  pg.SQL = `UPDATE featurestore.training_set_build SET state = 'waiting', tries = tries - 1, updated_at = $2 WHERE id = $1 AND ended_at IS NULL`
	finishBuild pg.SQL = `
UPDATE featurestore.training_set_build SET state = 'done', digest = $2, explanation = $4, rows_done = rows_total, error = NULL, updated_at = $3, ended_at = $3 WHERE id = $1 AND ended_at IS NULL`
	failBuild   pg.SQL = `UPDATE featurestore.training_set_build SET state = 'failed', error = $2, updated_at = $3, ended_at = $3 WHERE id = $1 AND ended_at IS NULL`
	cancelBuild pg.SQL = `
UPDATE featurestore.training_set_build SET state = 'cancelled', updated_at = $3, ended_at = $3 WHERE tenant = $1 AND id = $2 AND state IN ('waiting', 'running')`
	selectOpenBuilds pg.SQL = `SELECT id FROM featurestore.training_set_build WHERE id = ANY($1) AND ended_at IS NULL`
)

// StartTrainingSet begins what CreateTrainingSet does and does not wait for it. Who asks for what is being made already
// gets that build, and for what is there one that is done. What can be known to be wrong before the spine is read is
// refused here; the rest is in the build's Err. Errors beside CreateTrainingSet's: Exhausted when the tenant has too many
// builds. Without Config.Submit the build has ended when it returns.
func (s *Store) StartTrainingSet(ctx context.Context, actor waybill.Actor, req TrainingSetRequest) (Build, error) {
	done, err := s.uploading.turn(ctx, actor.Tenant)
	if err != nil {
		return Build{}, err
	}
	defer done()
	t, spine, err := s.recipeOf(ctx, actor, req)
	if err != nil {
		return Build{}, err
	}
	found, err := s.sameRecipe(ctx, actor.Tenant, &t)
	if err != nil {
		return Build{}, err
	}
	return s.startBuild(ctx, actor, &order{kind: BuildCreate, set: &t, spine: spine, done: found.Digest != "", digest: found.Digest})
}

// order is what a build is to make.
type order struct {
	kind   BuildKind
	set    *TrainingSet    // its recipe
	spine  []byte          // of BuildCreate; the others find theirs with the set
	base   string          // of the others: the digest of set
	groups []AblationGroup // of BuildAblate

	done                bool // nothing is to be done: this is what came of it
	digest, explanation string
}

// startBuild begins a build, or finds the one that makes the same.
func (s *Store) startBuild(ctx context.Context, actor waybill.Actor, o *order) (Build, error) {
	text, err := o.set.recipe()
	if err != nil {
		return Build{}, err
	}
	if o.groups == nil {
		o.groups = []AblationGroup{}
	}
	groups, err := json.Marshal(o.groups)
	if err != nil {
		return Build{}, fmt.Errorf("marshal groups: %w", err)
	}
	same := text
	if o.kind != BuildCreate {
		same = string(o.kind) + " " + o.base + " " + string(groups)
	}
	sum := sha256.Sum256([]byte(same))
	content, now := hex.EncodeToString(sum[:]), s.clock()
	id, state, ended := waybill.NewID(now), BuildWaiting, (*time.Time)(nil)
	if o.done {
		state, ended = BuildDone, &now
	} else if o.kind == BuildCreate {
		if _, err := s.bucket.Put(ctx, buildPrefix+"/"+id.String()+"/spine", bytes.NewReader(o.spine), int64(len(o.spine))); err != nil {
			return Build{}, err
		}
	}
	inserted := false
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var open int
		if err := tx.QueryRow(ctx, string(countBuilds), actor.Tenant).Scan(&open); err != nil {
			return fmt.Errorf("count builds: %w", err)
		}
		if open >= maxBuilds && ended == nil {
			return waybill.Errorf(waybill.Exhausted, "%d training sets are being made already; wait for one, or cancel one", open)
		}
		if _, err := tx.Exec(ctx, string(dropBuilds), actor.Tenant, now.Add(-keepBuilds)); err != nil {
			return fmt.Errorf("delete old builds: %w", err)
		}
		tag, err := tx.Exec(ctx, string(insertBuild), id, actor.Tenant, state, content, text, actor.ID, actor.Kind, o.digest, now, ended, o.kind, o.base, groups,
			o.explanation)
		if err != nil {
			return fmt.Errorf("insert build: %w", err)
		}
		if inserted = tag.RowsAffected() > 0; !inserted || ended != nil || s.submit == nil {
			return nil
		}
		return s.submit(ctx, tx, id.String())
	})
	if err != nil || !inserted {
		err = errors.Join(err, s.cleanBuild(ctx, id))
	}
	if err != nil {
		return Build{}, err
	}
	if !inserted { // the same is being made
		err := s.pool.QueryRow(ctx, string(selectBuildOf), actor.Tenant, content).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) { // it has ended since
			return s.startBuild(ctx, actor, o)
		}
		if err != nil {
			return Build{}, fmt.Errorf("select build: %w", err)
		}
	} else if ended == nil && s.submit == nil {
		if err := s.BuildTrainingSet(ctx, id.String()); err != nil {
			return Build{}, err
		}
	}
	return s.TrainingSetBuild(ctx, actor.Tenant, id)
}

// awaitBuild waits for a build to end, or to have to be tried again, and returns one that is done.
func (s *Store) awaitBuild(ctx context.Context, tenant waybill.Tenant, b Build) (Build, error) {
	for wait := 10 * time.Millisecond; !b.Ended(); wait = min(2*wait, 250*time.Millisecond) {
		if b.State == BuildWaiting && b.Err != nil {
			return Build{}, b.Err
		}
		select {
		case <-ctx.Done():
			return Build{}, ctx.Err()
		case <-time.After(wait):
		}
		var err error
		if b, err = s.TrainingSetBuild(ctx, tenant, b.ID); err != nil {
			return Build{}, err
		}
	}
	if b.State == BuildFailed {
		return Build{}, b.Err
	}
	if b.State == BuildCancelled {
		return Build{}, waybill.Errorf(waybill.Conflict, "build %s was cancelled", b.ID)
	}
	return b, nil
}

// storedError is an error as it is kept. The text of what is unclassified does not leave the hub's log.
type storedError struct {
	Code       waybill.Code      `json:"code"`
	Message    string            `json:"message,omitempty"`
	Violations []storedViolation `json:"violations,omitempty"`
}

type storedViolation struct {
	Field  string `json:"field"`
	Remedy string `json:"remedy"`
}

func packError(err error) ([]byte, error) {
	e := &waybill.Error{}
	if !errors.As(err, &e) {
		e = &waybill.Error{Code: waybill.Internal, Message: "it failed inside the hub, whose log says how"}
	}
	stored := storedError{Code: e.Code, Message: e.Message}
	for _, v := range e.Violations {
		stored.Violations = append(stored.Violations, storedViolation(v))
	}
	b, err := json.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("marshal error: %w", err)
	}
	return b, nil
}

func scanBuild(r pgx.CollectableRow) (b Build, err error) {
	var recipe, failure []byte
	var ended *time.Time
	if err := r.Scan(&b.ID, &b.State, &recipe, &b.Rows, &b.RowsDone, &b.RowsTotal, &b.Digest, &failure, &b.Author, &b.StartedAt, &b.UpdatedAt, &ended,
		&b.Kind, &b.Base, &b.explanation); err != nil {
		return b, err
	}
	b.StartedAt, b.UpdatedAt = b.StartedAt.UTC(), b.UpdatedAt.UTC()
	if ended != nil {
		b.EndedAt = ended.UTC()
	}
	t, err := parseRecipe(recipe)
	if err != nil {
		return b, err
	}
	b.Name, b.Service = t.Name, t.Service
	if failure != nil {
		var e storedError
		if err := json.Unmarshal(failure, &e); err != nil {
			return b, fmt.Errorf("unmarshal error: %w", err)
		}
		stored := &waybill.Error{Code: e.Code, Message: e.Message}
		for _, v := range e.Violations {
			stored.Violations = append(stored.Violations, waybill.Violation(v))
		}
		b.Err = stored
	}
	return b, nil
}

// TrainingSetBuild returns one build. Builds are forgotten 30 days after they ended.
func (s *Store) TrainingSetBuild(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (Build, error) {
	rows, err := s.pool.Query(ctx, string(selectBuild), tenant, id)
	if err != nil {
		return Build{}, fmt.Errorf("select build: %w", err)
	}
	b, err := pgx.CollectExactlyOneRow(rows, scanBuild)
	if errors.Is(err, pgx.ErrNoRows) {
		return Build{}, waybill.Errorf(waybill.NotFound, "there is no build %s", id)
	}
	if err != nil {
		return Build{}, fmt.Errorf("read build: %w", err)
	}
	return b, nil
}

// TrainingSetBuilds lists builds, newest first, and returns the token of the next page ("" at the end).
func (s *Store) TrainingSetBuilds(ctx context.Context, tenant waybill.Tenant, p Page) ([]Build, string, error) {
	n, err := p.check()
	if err != nil {
		return nil, "", err
	}
	before := waybill.ID(bytes.Repeat([]byte{0xff}, 16))
	if p.Token != "" {
		if before, err = waybill.ParseID("page_token", p.Token); err != nil {
			return nil, "", waybill.InvalidField("page_token", "is not one that a list returned")
		}
	}
	rows, err := s.pool.Query(ctx, string(selectBuilds), tenant, before, n+1)
	if err != nil {
		return nil, "", fmt.Errorf("select builds: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanBuild)
	if err != nil {
		return nil, "", fmt.Errorf("read builds: %w", err)
	}
	if len(list) <= n {
		return list, "", nil
	}
	return list[:n], list[n-1].ID.String(), nil
}

// CancelTrainingSetBuild ends a build without a result, but for variants of an ablation that are finished; what it kept in the bucket goes within a second, or with the
// next hub that lives. To cancel it again changes nothing. Errors: Conflict when it has ended otherwise, or when its rows
// are joined and being stored, which takes a moment.
func (s *Store) CancelTrainingSetBuild(ctx context.Context, tenant waybill.Tenant, id waybill.ID) (Build, error) {
	tag, err := s.pool.Exec(ctx, string(cancelBuild), tenant, id, s.clock())
	if err != nil {
		return Build{}, fmt.Errorf("cancel build: %w", err)
	}
	b, err := s.TrainingSetBuild(ctx, tenant, id)
	if err == nil && tag.RowsAffected() == 0 && b.State != BuildCancelled {
		return Build{}, waybill.Errorf(waybill.Conflict, "build %s is %s and cannot be cancelled any more", id, b.State)
	}
	return b, err
}
