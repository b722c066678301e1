// Package access says who is calling and whether they may.
//
// It owns tenants, accounts, tokens, roles and rules (the Postgres schema access), and keeps these invariants:
//
//   - No rule, no right; a deny rule wins over any number of allow rules.
//   - An actor acts in its own tenant only. Rules for all tenants ('*') exist for the built-in roles alone, and a role is
//     always bound within one tenant, so that accounts of the same name in two tenants share nothing.
//   - A change (a right given or taken, a token revoked) holds on the node that made it when the call returns, and on
//     every other node within a second: by NOTIFY, and by a poll of the revision twice a second when that is lost. A node
//     reads what has changed (single tokens, the policies of single tenants), however much there is of everything else.
//   - Nobody issues a token that is good for more than he is, nor gives a right that he could not take: see give.go.
//   - A token tells through whose hands it came, so that nobody passes for another whose token he issued.
//   - A token's secret is nowhere but with its owner; Postgres holds its SHA-256.
//   - Every change is one transaction with its policy revision and its entry for the decision log.
//
// The language of the policy is casbin's, with the model in model.go; casbin also explains. Requests are answered from
// a snapshot that is compiled from the same rules, is never changed, and is swapped as a whole: no lock, no allocation,
// no Postgres. Casbin's caching enforcers are not used: they go on allowing after a revocation, and names with "$$" in
// them collide in their keys.
//
// Subjects are written "role:approver" and "account:alice", so that an account called admin is not the role admin.
// Resources are "view/NAME", "service/NAME", "model/NAME", "endpoint/NAME", "decision/ID", "log", "policy", "token" and
// "tenant"; a pattern is one of these or ends in "*" ("model/*", "endpoint/eu-*", "*"). A request about a whole list
// asks for "model/*" itself: the right to list is the right on all, and a caller that filters single names out of a
// list asks about each name.
//
// internal/api asks Authenticate and Check for every call; cmd/waybill calls Open, Run and Bootstrap. The methods that
// change something do not ask whether the actor may: that is the rule of the rpc, checked before. They do refuse what no
// policy may allow: more than the actor has to give, tenants made by another tenant than the hub's own, and a tenant left
// without an administrator.
//
// A node that cannot reach Postgres goes on with what it knew for Config.MaxStale, then authenticates nobody and answers
// waybill.Unavailable: a node that cannot hear of a revocation must not honour tokens for ever. A change that was
// committed but could not be read back at once is reported as done, logged, and seen by the next poll.
package access
