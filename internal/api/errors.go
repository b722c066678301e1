package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill"
)

// wire is one row of the error table.
type wire struct {
	grpc codes.Code
	http int
}

// table maps every code of the vocabulary to gRPC and HTTP. It is the only such table.
func table(c waybill.Code) wire {
	switch c {
	case waybill.Invalid:
		return wire{codes.InvalidArgument, http.StatusBadRequest}
	case waybill.NotFound:
		return wire{codes.NotFound, http.StatusNotFound}
	case waybill.AlreadyExists:
		return wire{codes.AlreadyExists, http.StatusConflict}
	case waybill.Conflict:
		return wire{codes.FailedPrecondition, http.StatusConflict}
	case waybill.Denied:
		return wire{codes.PermissionDenied, http.StatusForbidden}
	case waybill.Unauthenticated:
		return wire{codes.Unauthenticated, http.StatusUnauthorized}
	case waybill.TooLarge:
		return wire{codes.OutOfRange, http.StatusRequestEntityTooLarge}
	case waybill.Exhausted:
		return wire{codes.ResourceExhausted, http.StatusTooManyRequests}
	case waybill.Unavailable:
		return wire{codes.Unavailable, http.StatusServiceUnavailable}
	case waybill.Deadline:
		return wire{codes.DeadlineExceeded, http.StatusGatewayTimeout}
	case waybill.Corrupt:
		return wire{codes.DataLoss, http.StatusInternalServerError}
	case waybill.Internal:
	}
	return wire{codes.Internal, http.StatusInternalServerError}
}

// domain names the errors in ErrorInfo.
const domain = "waybill"

// toStatus turns a domain error into a gRPC status. What is not classified is internal, and its text stays here.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var e *waybill.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded):
		e = &waybill.Error{Code: waybill.Deadline, Message: "not done in time"}
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller went away")
	default:
		e = &waybill.Error{Code: waybill.Internal, Message: "internal error"}
	}
	message := e.Message
	violations := &errdetails.BadRequest{}
	for _, v := range e.Violations {
		violations.FieldViolations = append(violations.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Remedy})
		if e.Message == "" {
			if message != "" {
				message += "; "
			}
			message += v.Field + " " + v.Remedy
		}
	}
	if e.Code == waybill.Internal {
		message = "internal error"
	}
	st, err := status.New(table(e.Code).grpc, message).WithDetails(&errdetails.ErrorInfo{Reason: string(e.Code), Domain: domain}, violations)
	if err != nil {
		return status.Error(table(e.Code).grpc, message)
	}
	return st.Err()
}

// problem is RFC 9457's form of an error.
type problem struct {
	Type       string      `json:"type"`
	Title      string      `json:"title"`
	Status     int         `json:"status"`
	Detail     string      `json:"detail"`
	Code       string      `json:"code"`
	Violations []violation `json:"violations,omitempty"`
}

type violation struct {
	Field  string `json:"field"`
	Remedy string `json:"remedy"`
}

// writeError answers a request that never reached the gateway.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	writeProblem(r.Context(), nil, nil, w, r, toStatus(err))
}

// writeNoRoute answers requests that no rpc is behind.
func writeNoRoute(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	path := clipPath(r.URL.Path)
	err := waybill.Errorf(waybill.NotFound, "there is nothing at %s; what there is is described in /openapi.json", path)
	switch code {
	case http.StatusNotFound:
	case http.StatusMethodNotAllowed:
		err = waybill.Errorf(waybill.Invalid, "%s is not for %s; what it is for is described in /openapi.json", path, r.Method)
	default:
		err = waybill.Errorf(waybill.Invalid, "the path %s cannot be read; percent-encode what is not plain in it", path)
	}
	writeProblem(ctx, mux, m, w, r, &runtime.HTTPStatusError{HTTPStatus: code, Err: toStatus(err)})
}

// writeProblem answers REST errors as application/problem+json.
func writeProblem(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	var he *runtime.HTTPStatusError
	if errors.As(err, &he) {
		err = he.Err
	}
	st := status.Convert(err)
	p := problem{Type: "about:blank", Status: runtime.HTTPStatusFromCode(st.Code()), Detail: st.Message(), Code: string(waybill.Internal)}
	switch st.Code() { // errors of the gateway itself carry no details
	case codes.InvalidArgument:
		p.Code = string(waybill.Invalid)
	case codes.NotFound:
		p.Code = string(waybill.NotFound)
	case codes.Unimplemented:
		p.Code, p.Status = string(waybill.NotFound), http.StatusNotFound
	default:
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			p.Code = d.GetReason()
			p.Status = table(waybill.Code(d.GetReason())).http
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				p.Violations = append(p.Violations, violation{v.GetField(), v.GetDescription()})
			}
		}
	}
	if he != nil { // the router's own word, e.g. 405
		p.Status = he.HTTPStatus
	}
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		return // the client is gone
	}
}
