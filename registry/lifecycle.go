package registry

import (
	"fmt"
	"slices"
	"strings"

	"waybill"
)

// State is where a version is in its life.
type State string

// The states. They are stored and sent to clients: append-only.
const (
	Draft     State = "draft"     // writable; nobody else's business yet
	Submitted State = "submitted" // frozen; waits for a verdict
	Approved  State = "approved"  // may serve
	Rejected  State = "rejected"  // refused; final
	Revoked   State = "revoked"   // the approval was withdrawn; final
	Expired   State = "expired"   // the approval's term ended; may be approved again
	Retired   State = "retired"   // taken out of use in good order; final
)

// Event is what moves a version from one state to the next. Verdicts (all but EventSubmit) are stored as the kind of
// an Approval.
type Event string

// The events.
const (
	EventSubmit  Event = "submit"
	EventApprove Event = "approve"
	EventReject  Event = "reject"
	EventRevoke  Event = "revoke"
	EventExpire  Event = "expire"
	EventRetire  Event = "retire"
)

// transitions is the whole lifecycle. What is not listed is refused.
var transitions = map[State]map[Event]State{
	Draft:     {EventSubmit: Submitted},
	Submitted: {EventApprove: Approved, EventReject: Rejected},
	Approved:  {EventRevoke: Revoked, EventExpire: Expired, EventRetire: Retired},
	Expired:   {EventApprove: Approved, EventRevoke: Revoked, EventRetire: Retired},
	Rejected:  {},
	Revoked:   {},
	Retired:   {},
}

// remedies says per state what can be done instead of what was asked.
var remedies = map[State]string{
	Draft:     "submit it first",
	Submitted: "it waits to be approved or rejected",
	Approved:  "it can be revoked or retired",
	Expired:   "it can be approved again, revoked or retired",
	Rejected:  "that is final; create a new version",
	Revoked:   "that is final; create a new version",
	Retired:   "that is final; create a new version",
}

// Next returns the state after an event, or a Conflict error that says what is possible instead. It is pure: the same
// state and event give the same answer.
func Next(s State, e Event) (State, error) {
	next, ok := transitions[s][e]
	if !ok {
		return "", waybill.Errorf(waybill.Conflict, "cannot %s a version that is %s; %s", e, s, remedies[s])
	}
	return next, nil
}

// Serves reports whether a version in this state may answer decisions.
func (s State) Serves() bool { return s == Approved }

// known reports whether s is a state, for filters.
func (s State) known() bool { _, ok := transitions[s]; return ok }

// needs says in words what a version lacks before it may serve; "" when it may. last is its newest verdict.
func needs(s State, authors []string, last *Approval) string {
	said := func(what, remedy string) string {
		if last == nil {
			return what + "; " + remedy
		}
		words := fmt.Sprintf("%s by %s on %s", what, last.Actor, last.At.UTC().Format("2006-01-02 15:04"))
		if last.Reason != "" {
			words += " (" + last.Reason + ")"
		}
		return words + "; " + remedy
	}
	switch s {
	case Approved:
		return ""
	case Draft:
		return "needs to be submitted, then one approval by someone other than " + anyOf(authors)
	case Submitted:
		return "needs one approval by someone other than " + anyOf(authors)
	case Rejected:
		return said("was rejected", "needs a new version")
	case Revoked:
		return said("was revoked", "needs a new version")
	case Expired:
		return said("expired", "needs a new approval by someone other than "+anyOf(authors))
	case Retired:
		return said("was retired", "needs a new version")
	}
	return "is in the unknown state " + string(s)
}

// anyOf joins names: "alice", "alice or bob", "alice, bob or carol".
func anyOf(names []string) string {
	names = slices.Clone(names)
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}
