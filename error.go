package waybill

import (
	"errors"
	"fmt"
	"strings"
)

// Code classifies an error for callers. The set is closed and append-only: codes are stored in leaves and sent to
// clients, so none may be removed, renamed or given another meaning.
type Code string

// The codes. internal/api maps each to one gRPC and one HTTP status.
const (
	Invalid         Code = "invalid"             // the request is wrong whatever the state of the hub
	NotFound        Code = "not_found"           // it does not exist, or the caller may not see it
	AlreadyExists   Code = "already_exists"      // a name or key is taken
	Conflict        Code = "failed_precondition" // right request, wrong state (not submitted, frozen, revoked …)
	Denied          Code = "permission_denied"   // known caller, no rule that allows
	Unauthenticated Code = "unauthenticated"     // no or bad credential
	TooLarge        Code = "too_large"           // a body, list or field beyond its bound
	Exhausted       Code = "resource_exhausted"  // a queue or rate limit is full; try again later
	Unavailable     Code = "unavailable"         // a thing we depend on is away; nothing was done
	Deadline        Code = "deadline_exceeded"   // not done in time; nothing was acknowledged
	Corrupt         Code = "data_loss"           // stored bytes do not match their digest
	Internal        Code = "internal"            // unclassified; its text never leaves the process
)

// Violation says what is wrong with one field of a request and how to mend it.
type Violation struct {
	Field  string // path of the field, e.g. "items[0].qty"
	Remedy string // what is wrong and what would be right, in one sentence
}

// Error is the one error type that crosses package borders. Message is written for the caller.
type Error struct {
	Code       Code
	Message    string
	Violations []Violation // for Invalid and TooLarge
	Err        error       // the cause; logged, never shown
}

// Error returns the message, the violations and the cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for i, v := range e.Violations {
		if i > 0 || e.Message != "" {
			b.WriteString("; ")
		}
		b.WriteString(v.Field + ": " + v.Remedy)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error with the given code and a formatted message for the caller. It takes no %w: see Wrap.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an Error with a message for the caller and a cause for errors.Is and the log. The cause is not shown.
func Wrap(code Code, cause error, message string) error {
	return &Error{Code: code, Message: message, Err: cause}
}

// InvalidField returns an Invalid error about one field.
func InvalidField(field, remedy string) error {
	return &Error{Code: Invalid, Violations: []Violation{{Field: field, Remedy: remedy}}}
}

// InvalidFields returns an Invalid error about several fields, or nil when there are none.
func InvalidFields(vs []Violation) error {
	if len(vs) == 0 {
		return nil
	}
	return &Error{Code: Invalid, Violations: vs}
}

// CodeOf returns the code of the outermost Error in err's chain, "" for nil and Internal for anything unclassified.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
