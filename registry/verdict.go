package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/internal/pg"
	"waybill/lineage"
)

const (
	freezeVersion pg.SQL = `
UPDATE registry.versions SET state = $4, digest = $5, authors = $6, submitted_at = $7
WHERE tenant = $1 AND model = $2 AND version = $3`

	moveVersion pg.SQL = `UPDATE registry.versions SET state = $4 WHERE tenant = $1 AND model = $2 AND version = $3`

	insertApproval pg.SQL = `
INSERT INTO registry.approvals (id, tenant, model, version, kind, actor, reason, digest, feature_service,
    feature_service_version, training_set, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
)

// Submit freezes a draft: it computes the root digest over the manifest, and from then on no byte of the version
// changes. The submitter becomes an author. Errors: NotFound, Conflict when it is no draft or the entrypoint was not
// uploaded, Invalid when the entrypoint is nothing that can be scored.
func (s *Store) Submit(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef) (Version, error) {
	if err := checkActor(actor); err != nil {
		return Version{}, err
	}
	if err := checkRef(ref); err != nil {
		return Version{}, err
	}
	// Reading and parsing may take long and much memory: before the transaction, one at a time.
	looked, err := s.lookAtEntrypoint(ctx, actor.Tenant, ref)
	if err != nil {
		return Version{}, plain(err)
	}
	var v Version
	err = pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		now := s.now()
		draft, err := lock(ctx, tx, actor.Tenant, ref)
		if err != nil {
			return err
		}
		state, err := Next(draft.State, EventSubmit)
		if err != nil {
			return about(ref, err)
		}
		files, err := filesOf(ctx, tx, draft)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(files, func(f Artifact) bool { return f.Path == draft.Entrypoint })
		if i < 0 {
			return waybill.Errorf(waybill.Conflict, "%s names %s as its entrypoint, but that file was not uploaded; upload it, then submit", ref, draft.Entrypoint)
		}
		if s.check != nil && files[i].SHA256 != looked {
			return waybill.Errorf(waybill.Conflict, "%s of %s was uploaded anew while it was looked at; submit again", draft.Entrypoint, ref)
		}
		digest, err := RootDigest(draft.Format, draft.Entrypoint, files)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, string(freezeVersion), draft.Tenant, draft.Model, draft.Version, state, digest, addAuthor(draft.Authors, actor.ID), now)
		if err != nil {
			return fmt.Errorf("freeze version: %w", err)
		}
		if v, err = load(ctx, tx, actor.Tenant, ref); err != nil {
			return err
		}
		return s.record(ctx, tx, actor, v, now, change{
			action: "submit", digest: digest, notify: true, detail: shown(actor, map[string]any{"files": len(files)}),
			edges: []lineage.Edge{{From: lineage.ActorNode(actor), To: lineage.ModelNode(ref), Kind: lineage.Wrote}},
		})
	})
	if err != nil {
		return Version{}, plain(err)
	}
	return v, nil
}

// shown adds to the detail of an entry by which token the actor called and through whose hands that came.
func shown(actor waybill.Actor, detail map[string]any) map[string]any {
	if actor.Via != nil {
		detail["token_id"] = actor.Via.TokenID
		if len(actor.Via.Issuers) > 0 {
			detail["token_issuers"] = actor.Via.Issuers
		}
	}
	return detail
}

// Approve records the consent of a person who is none of the version's authors and whose token none of them issued, bound to its root digest, feature
// service and training set. digest is what the approver looked at; "" leaves the comparison out. Errors: NotFound,
// Denied naming the rule, Conflict when the state does not allow it or digest is not the version's.
func (s *Store) Approve(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, digest, reason string) (Version, error) {
	return s.judge(ctx, actor, ref, EventApprove, reason, func(v Version) error {
		if actor.Kind != waybill.Person {
			return waybill.Errorf(waybill.Denied, "%s is a service account: only a person may approve a model; ask one who is not %s", actor.ID, anyOf(v.Authors))
		}
		if slices.Contains(v.Authors, actor.ID) {
			return waybill.Errorf(waybill.Denied,
				"four eyes: %s created, uploaded to or submitted %s, and an author never approves; ask someone other than %s", actor.ID, ref, anyOf(v.Authors))
		}
		if actor.Via != nil {
			for _, issuer := range actor.Via.Issuers {
				if slices.Contains(v.Authors, issuer) {
					return waybill.Errorf(waybill.Denied,
						"four eyes: the token in use was issued by %s, who created, uploaded to or submitted %s and could have used it; approve with one that was issued by someone other than %s", issuer, ref, anyOf(v.Authors))
				}
			}
		}
		if digest != "" && v.Digest != "" && digest != v.Digest {
			return waybill.Errorf(waybill.Conflict, "%s has the digest %s, not %s; look at this version again and approve what it is", ref, v.Digest, clip(digest))
		}
		return nil
	})
}

// Reject refuses a submitted version for good. Errors as Approve, without the rules about who.
func (s *Store) Reject(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, reason string) (Version, error) {
	return s.judge(ctx, actor, ref, EventReject, reason, allow)
}

// Revoke withdraws an approval for good; every node hears of it when the transaction commits. Errors as Reject.
func (s *Store) Revoke(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, reason string) (Version, error) {
	return s.judge(ctx, actor, ref, EventRevoke, reason, allow)
}

// Expire ends the term of an approval; the version may be approved again. Errors as Reject.
func (s *Store) Expire(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, reason string) (Version, error) {
	return s.judge(ctx, actor, ref, EventExpire, reason, allow)
}

// Retire takes an approved or expired version out of use in good order. Errors as Reject.
func (s *Store) Retire(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, reason string) (Version, error) {
	return s.judge(ctx, actor, ref, EventRetire, reason, allow)
}

func allow(Version) error { return nil }

// judge is the one way a verdict comes about: state, verdict row, log entry, edges and notification in one
// transaction under the version's lock, so that of two verdicts at once the second sees the first.
func (s *Store) judge(ctx context.Context, actor waybill.Actor, ref waybill.VersionRef, event Event, reason string, rule func(Version) error) (Version, error) {
	if err := checkActor(actor); err != nil {
		return Version{}, err
	}
	if err := checkRef(ref); err != nil {
		return Version{}, err
	}
	if err := checkReason(reason); err != nil {
		return Version{}, err
	}
	reason = strings.TrimSpace(reason)
	var v Version
	err := pg.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		now := s.now()
		before, err := lock(ctx, tx, actor.Tenant, ref)
		if err != nil {
			return err
		}
		if err := rule(before); err != nil {
			return err
		}
		state, err := Next(before.State, event)
		if err != nil {
			return about(ref, err)
		}
		if event == EventApprove {
			if err := admitsRevoked(ctx, tx, before, reason); err != nil {
				return err
			}
		}
		id := waybill.NewID(now)
		_, err = tx.Exec(ctx, string(insertApproval), id, before.Tenant, before.Model, before.Version, event, actor.ID, reason,
			before.Digest, before.FeatureService.Name, before.FeatureService.Version, before.TrainingSet, now)
		if err != nil {
			return fmt.Errorf("insert %s: %w", event, err)
		}
		if _, err := tx.Exec(ctx, string(moveVersion), before.Tenant, before.Model, before.Version, state); err != nil {
			return fmt.Errorf("move version: %w", err)
		}
		if v, err = load(ctx, tx, actor.Tenant, ref); err != nil {
			return err
		}
		edges := []lineage.Edge{{From: lineage.ActorNode(actor), To: lineage.ApprovalNode(id), Kind: lineage.Wrote}}
		if event == EventApprove {
			edges = append(edges, lineage.Edge{From: lineage.ApprovalNode(id), To: lineage.ModelNode(ref), Kind: lineage.Approves})
		}
		// The reason is free text and may name people, and the log is for ever: the entry binds it by its digest.
		return s.record(ctx, tx, actor, v, now, change{
			eventType: "approval", action: string(event), digest: before.Digest, edges: edges, notify: true,
			detail: shown(actor, map[string]any{
				"approval_id": id.String(), "state": string(state), "reason_sha256": digestOf(reason),
				"feature_service": refText(before.FeatureService), "training_set": before.TrainingSet,
			}),
		})
	})
	if err != nil {
		return Version{}, plain(err)
	}
	return v, nil
}

// admitsRevoked refuses the approval of bytes that were revoked under another number unless its reason says so: whoever
// reads the consent later sees that it was known.
func admitsRevoked(ctx context.Context, tx pgx.Tx, v Version, reason string) error {
	list := []Version{v}
	if err := complete(ctx, tx, v.Tenant, list); err != nil {
		return err
	}
	twin := list[0].revokedAs
	if twin == 0 || strings.Contains(strings.ToLower(reason), "revoked") && mentions(reason, twin) {
		return nil
	}
	return waybill.InvalidField("reason", fmt.Sprintf("must say that these bytes were revoked as v%d, e.g. \"revoked as v%d, and right now because …\": %s has the root digest of %s@v%d, which was revoked (%s)",
		twin, twin, v.Ref(), v.Model, twin, clip(list[0].RevokedAs)))
}

// mentions reports whether "v12" stands in text as a word.
func mentions(text string, version int) bool {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return slices.Contains(words, fmt.Sprintf("v%d", version))
}

// lookAtEntrypoint has the entrypoint of a draft checked and returns the SHA-256 of what was looked at. What is no draft,
// or has no entrypoint, is for the transaction to refuse.
func (s *Store) lookAtEntrypoint(ctx context.Context, tenant waybill.Tenant, ref waybill.VersionRef) (string, error) {
	if s.check == nil {
		return "", nil
	}
	v, err := s.Get(ctx, tenant, ref)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(v.Files, func(f Artifact) bool { return f.Path == v.Entrypoint })
	if v.State != Draft || i < 0 {
		return "", nil
	}
	if v.Files[i].Size > s.maxEntry {
		return "", waybill.Errorf(waybill.TooLarge, "%s of %s has %d bytes; at most %d can be loaded", v.Entrypoint, v.Ref(), v.Files[i].Size, s.maxEntry)
	}
	select {
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	case <-ctx.Done():
		return "", waybill.Wrap(waybill.Deadline, ctx.Err(), "other models are being looked at; submit again")
	}
	return v.Files[i].SHA256, s.checkEntrypoint(ctx, v, v.Files[i])
}

// checkEntrypoint has the bytes of an entrypoint looked at before they are frozen.
func (s *Store) checkEntrypoint(ctx context.Context, v Version, entrypoint Artifact) error {
	data, err := s.readAll(ctx, v, entrypoint)
	if err != nil {
		return err
	}
	if err := s.check(v.Format, data); err != nil {
		var own *waybill.Error
		if !errors.As(err, &own) {
			return fmt.Errorf("check entrypoint: %w", err)
		}
		words := []string{}
		if own.Message != "" {
			words = append(words, own.Message)
		}
		for _, violation := range own.Violations {
			words = append(words, violation.Remedy)
		}
		return waybill.InvalidField("entrypoint", fmt.Sprintf("%s is no %s model that can be scored: it %s; upload another file, then submit", v.Entrypoint, v.Format, strings.Join(words, "; ")))
	}
	return nil
}

// about puts the version in front of what Next says.
func about(ref waybill.VersionRef, err error) error {
	return waybill.Errorf(waybill.CodeOf(err), "%s: %s", ref, err)
}
