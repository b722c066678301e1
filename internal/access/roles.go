package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
)

// The actions. The set is closed: a rule or a scope with another word is refused.
const (
	Read         = "read"
	Write        = "write"
	Publish      = "publish"
	ReadPersonal = "read_personal" // see personal data in the clear
	Invoke       = "invoke"        // run a model outside of an endpoint
	Decide       = "decide"
	Approve      = "approve"
	Promote      = "promote"
	Rollback     = "rollback"
	Review       = "review" // overrule or confirm a decision
	Erase        = "erase"
	Export       = "export"
	Administer   = "administer"
)

// actions lists all actions; it is never changed.
var actions = []string{
	Read, Write, Publish, ReadPersonal, Invoke, Decide, Approve, Promote, Rollback, Review, Erase, Export, Administer,
}

// builtinVersion counts the edits of builtinRoles. Raise it with every edit: a hub whose Postgres holds an older version
// is brought up to date by Open; one with a newer version (a rolling upgrade, a rollback of the binary) is left alone.
const builtinVersion = 1

// builtinRoles is what each role may do in every tenant, as "pattern: actions". It is never changed.
//
// The roles are least-privilege and meant to be combined: whoever makes a thing does not approve it, whoever administers
// rights uses none of them. admin in particular can neither approve, decide nor see personal data: an administrator who
// needs that takes another role, which is a leaf in the log.
var builtinRoles = []struct {
	name  string
	rules []string
}{
	// Defines features, makes training sets, logs and submits models; looks at what became of them.
	{"data-scientist", []string{
		"view/*: read write publish", "service/*: read write publish export", "model/*: read write invoke",
		"endpoint/*: read", "decision/*: read", "log: read",
	}},
	// Approves versions and puts them into use. Four eyes is checked by registry on top of this.
	{"approver", []string{
		"view/*: read", "service/*: read", "model/*: read approve promote", "endpoint/*: read approve promote",
		"decision/*: read", "log: read",
	}},
	// A program that asks for features and decisions and reports outcomes.
	{"serving", []string{
		"service/*: read", "model/*: read invoke", "endpoint/*: read invoke decide", "decision/*: write",
	}},
	// A person in the loop: confirms or overrules single decisions.
	{"reviewer", []string{"endpoint/*: read", "decision/*: read review", "log: read"}},
	// Runs endpoints: revisions, canaries, monitors, rollback.
	{"operator", []string{
		"view/*: read", "service/*: read", "model/*: read promote rollback",
		"endpoint/*: read write publish promote rollback", "decision/*: read", "log: read",
	}},
	// Answers regulators and data subjects: personal data, evidence, erasure.
	{"compliance", []string{
		"*: read", "decision/*: read_personal export erase", "view/*: read_personal export erase",
		"service/*: export", "model/*: export", "log: export",
	}},
	// Reads everything that is not personal, changes nothing.
	{"auditor", []string{"*: read"}},
	// Administers accounts, roles, rules and tokens, and reads.
	{"admin", []string{"*: read administer"}},
}

// BuiltinRules returns the rules of the built-in roles, sorted.
func BuiltinRules() []Rule {
	var out []Rule
	for _, role := range builtinRoles {
		for _, line := range role.rules {
			object, acts, _ := strings.Cut(line, ": ")
			for act := range strings.FieldsSeq(acts) {
				out = append(out, Rule{Tenant: AllTenants, Subject: "role:" + role.name, Object: object, Action: act, Effect: Allow})
			}
		}
	}
	slices.SortFunc(out, compareRules)
	return out
}

func compareRules(a, b Rule) int {
	return slices.Compare(a.key(), b.key())
}

func (r Rule) key() []string {
	return []string{string(r.Tenant), r.Subject, r.Object, r.Action, string(r.Effect)}
}

const (
	selectBuiltin pg.SQL = `SELECT builtin FROM access.policy_rev`
	setBuiltin    pg.SQL = `UPDATE access.policy_rev SET builtin = $1 WHERE builtin < $1`
	deleteBuiltin pg.SQL = `DELETE FROM access.rule WHERE tenant = '*'`
	insertBuiltin pg.SQL = `
INSERT INTO access.rule (tenant, subject, object, action, effect, created_by, created_at)
SELECT '*', s, o, a, 'allow', 'waybill', $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS r(s, o, a)`
	selectTenants pg.SQL = `SELECT name FROM access.tenant ORDER BY name`
)

// seedRoles brings the built-in roles in Postgres up to builtinVersion; every tenant's log says so.
func (a *Access) seedRoles(ctx context.Context) error {
	var have int
	if err := a.pool.QueryRow(ctx, string(selectBuiltin)).Scan(&have); err != nil {
		return fmt.Errorf("select version of built-in roles: %w", err)
	}
	if have >= builtinVersion {
		return nil
	}
	_, err := a.change(ctx, func(tx pgx.Tx, rev int64) ([]audit.Event, error) {
		now := a.clock()
		if done, err := putBuiltin(ctx, tx, now); err != nil || !done {
			if err == nil {
				err = errUnchanged // another node was first
			}
			return nil, err
		}
		rows, err := tx.Query(ctx, string(selectTenants))
		if err != nil {
			return nil, fmt.Errorf("select tenants: %w", err)
		}
		tenants, err := pgx.CollectRows(rows, pgx.RowTo[waybill.Tenant])
		if err != nil {
			return nil, fmt.Errorf("read tenants: %w", err)
		}
		var events []audit.Event
		for _, t := range tenants {
			events = append(events, policyEvent(waybill.Actor{ID: "waybill", Tenant: t}, now, rev,
				change{Op: "built_in_roles", Version: builtinVersion}))
		}
		return events, nil
	})
	return err
}

// putBuiltin writes the built-in rules unless this version or a newer one is there. The caller holds the revision's row.
func putBuiltin(ctx context.Context, tx pgx.Tx, now time.Time) (done bool, err error) {
	tag, err := tx.Exec(ctx, string(setBuiltin), builtinVersion)
	if err != nil {
		return false, fmt.Errorf("set version of built-in roles: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return false, nil
	}
	if _, err := tx.Exec(ctx, string(deleteBuiltin)); err != nil {
		return false, fmt.Errorf("delete built-in roles: %w", err)
	}
	var subjects, objects, acts []string
	for _, r := range BuiltinRules() {
		subjects, objects, acts = append(subjects, r.Subject), append(objects, r.Object), append(acts, r.Action)
	}
	if _, err := tx.Exec(ctx, string(insertBuiltin), subjects, objects, acts, now); err != nil {
		return false, fmt.Errorf("insert built-in roles: %w", err)
	}
	return true, nil
}
