package featurestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
)

// errCancelled says that a build has ended while it was worked on: it was cancelled, or another hub was faster.
var errCancelled = errors.New("the build has ended")

// BuildTrainingSet works on a build until it ends; it is the job of every build, and subject is its id. It may be killed
// anywhere and called again, also by two hubs at once: the result is the same. An error means that it is worth another try,
// and the build says why. It removes what the build kept in the bucket, unless it has to go on.
func (s *Store) BuildTrainingSet(ctx context.Context, subject string) error {
	id, err := waybill.ParseID("build", subject)
	if err != nil {
		return err
	}
	b := &building{Store: s, id: id}
	var recipe, parts, groups []byte
	var started time.Time
	var tries int
	o := order{}
	err = s.pool.QueryRow(ctx, string(beginBuild), id, s.clock()).Scan(&b.actor.Tenant, &recipe, &b.actor.ID, &b.actor.Kind, &started, &tries, &parts, &b.kind, &o.base, &groups)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.cleanBuild(ctx, id) // it ended: its hub died, or it was cancelled, before this was done
	}
	if err != nil {
		return fmt.Errorf("begin build: %w", err)
	}
	t, err := parseRecipe(recipe)
	if err = errors.Join(err, json.Unmarshal(parts, &b.parts), json.Unmarshal(groups, &o.groups)); err != nil {
		return fmt.Errorf("begin build: %w", err)
	}
	t.Author, t.CreatedAt = b.actor.ID, started.UTC()
	o.kind, o.set = b.kind, &t
	err = b.run(ctx, &o)
	if err != nil && ctx.Err() != nil { // this hub stops: another goes on
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_, pauseErr := s.pool.Exec(late, string(pauseBuild), id, s.clock())
		return errors.Join(ctx.Err(), pauseErr)
	}
	if err != nil && !errors.Is(err, errCancelled) {
		again, err := b.failed(ctx, err, tries)
		if err != nil || again {
			return err
		}
	}
	return s.cleanBuild(ctx, id)
}

// failed notes why a try failed and whether there is another: not when the recipe is what is wrong, and not for ever. The
// error of a try that is repeated is returned.
func (b *building) failed(ctx context.Context, cause error, tries int) (again bool, err error) {
	statement := failBuild
	switch waybill.CodeOf(cause) {
	case waybill.Invalid, waybill.NotFound, waybill.TooLarge, waybill.Conflict, waybill.Corrupt, waybill.Denied:
	default:
		if again = tries < maxBuildTries; again {
			statement = retryBuild
		}
		b.logger.ErrorContext(ctx, "a try to make a training set failed", "build", b.id.String(), "try", tries, "error", cause)
	}
	packed, err := packError(cause)
	if err != nil {
		return again, err
	}
	if _, err := b.pool.Exec(ctx, string(statement), b.id, packed, b.clock()); err != nil {
		return true, fmt.Errorf("note failure of build: %w", err)
	}
	if again {
		return true, fmt.Errorf("build training set: %w", cause)
	}
	return false, nil
}

// run makes what was ordered. It ends soon after the build is cancelled.
func (b *building) run(ctx context.Context, o *order) (err error) {
	if !knownKernel(o.set.Kernel) {
		return waybill.Errorf(waybill.Conflict, "the build was started by a hub with kernel %q and this one has %q: start it again", o.set.Kernel, kernel)
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, buildingKey{}, b))
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if gone, err := b.report(ctx); gone {
					cancel(errCancelled)
				} else if err != nil && ctx.Err() == nil {
					b.logger.WarnContext(ctx, "the progress of a build is not reported", "build", b.id.String(), "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel(nil)
		<-reported
		if errors.Is(context.Cause(ctx), errCancelled) {
			err = errCancelled
		}
	}()
	switch o.kind {
	case BuildCreate:
		return b.create(ctx, o.set)
	case BuildRebuild:
		base, err := b.TrainingSet(ctx, b.actor.Tenant, o.base)
		if err != nil {
			return err
		}
		r, err := b.rebuild(ctx, b.actor.Tenant, &base)
		if err == nil {
			err = b.moveOn(ctx)
		}
		if err != nil {
			return err
		}
		return b.finish(ctx, b.pool, r.Digest, r.Explanation)
	case BuildAblate:
		base, err := b.TrainingSet(ctx, b.actor.Tenant, o.base)
		if err != nil {
			return err
		}
		a, err := b.ablate(ctx, b.actor, base, o.groups)
		if err != nil {
			return err
		}
		return b.finish(ctx, b.pool, a.Digest, "")
	}
	return waybill.Errorf(waybill.Conflict, "the build was started by a newer hub: this one knows no kind %q", o.kind)
}

// create makes the set.
func (b *building) create(ctx context.Context, t *TrainingSet) error {
	digest, err := digestOf(t.Spine)
	if err != nil {
		return err
	}
	spine, err := b.bucket.GetVerified(ctx, buildPrefix+"/"+b.id.String()+"/spine", digest, MaxFileBytes)
	if err != nil {
		return fmt.Errorf("read spine: %w", err)
	}
	j, err := b.join(ctx, b.actor.Tenant, t, spine)
	if err != nil {
		return err
	}
	_, err = b.store(ctx, b.actor, t, j, spine)
	return err
}

// report writes the progress down; gone says that the build has ended.
func (b *building) report(ctx context.Context) (gone bool, err error) {
	rows, done, total := b.progress()
	tag, err := b.pool.Exec(ctx, string(reportBuild), b.id, rows, done, total, b.clock())
	return err == nil && tag.RowsAffected() == 0, err
}

// storing says that nothing can be wrong with the set any more: from here on it is kept, and cannot be cancelled. Variants
// are kept one by one, and what is still to be made can be cancelled.
func (b *building) storing(ctx context.Context) error {
	if b == nil || b.kind != BuildCreate {
		return nil
	}
	return b.moveOn(ctx)
}

// moveOn says that the work is done and its outcome is being kept: it cannot be cancelled any more.
func (b *building) moveOn(ctx context.Context) error {
	if b == nil {
		return nil
	}
	if _, err := b.report(ctx); err != nil {
		return fmt.Errorf("report build: %w", err)
	}
	tag, err := b.pool.Exec(ctx, string(storeBuild), b.id, b.clock())
	if err != nil {
		return fmt.Errorf("move build on: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errCancelled
	}
	return nil
}

// recorded ends the build of a set in the transaction that records it.
func (b *building) recorded(ctx context.Context, tx pgx.Tx, digest string) error {
	if b == nil || b.kind != BuildCreate {
		return nil
	}
	return b.finish(ctx, tx, digest, "")
}

// finish ends the build. Another hub may have done so before.
func (b *building) finish(ctx context.Context, q pg.Querier, digest, explanation string) error {
	if _, err := q.Exec(ctx, string(finishBuild), b.id, digest, b.clock(), explanation); err != nil {
		return fmt.Errorf("finish build: %w", err)
	}
	return nil
}

// cleanBuild removes what a build kept in the bucket.
func (s *Store) cleanBuild(ctx context.Context, id waybill.ID) error {
	var keys []string
	for o, err := range s.bucket.List(ctx, buildPrefix+"/"+id.String()+"/") {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key) // a spine, and a part for each of a bounded number of views
	}
	for _, k := range keys {
		if err := s.bucket.Delete(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// cleanBuilds removes what builds kept that were started before old and are not open: the hub died before there was a
// build, or two worked on one.
func (s *Store) cleanBuilds(ctx context.Context, old time.Time) error {
	var ids []waybill.ID
	limit := waybill.NewID(old).String()[:13] // the time
	for o, err := range s.bucket.List(ctx, buildPrefix+"/") {
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, buildPrefix+"/"), "/")
		if len(name) < len(limit) || name[:len(limit)] >= limit || len(ids) == cleanAtOnce {
			break
		}
		if id, err := waybill.ParseID("build", name); err == nil && (len(ids) == 0 || ids[len(ids)-1] != id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, string(selectOpenBuilds), ids)
	if err != nil {
		return fmt.Errorf("select open builds: %w", err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[waybill.ID])
	if err != nil {
		return fmt.Errorf("read open builds: %w", err)
	}
	isOpen := map[waybill.ID]bool{}
	for _, id := range open {
		isOpen[id] = true
	}
	for _, id := range ids {
		if !isOpen[id] {
			if err := s.cleanBuild(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func partKey(id waybill.ID, look int) string {
	return buildPrefix + "/" + id.String() + "/part-" + strconv.Itoa(look)
}
