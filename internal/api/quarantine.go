package api

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/featurestore"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// ListQuarantine lists rows that were not accepted.
func (s *features) ListQuarantine(ctx context.Context, req *featurestorev1.ListQuarantineRequest) (*featurestorev1.ListQuarantineResponse, error) {
	ref, err := waybill.ParseVersionRef("view", req.GetView())
	if err != nil {
		return nil, err
	}
	tenant := callerOf(ctx).actor.Tenant
	v, err := s.store.ViewInfo(ctx, tenant, ref)
	if err != nil {
		return nil, err
	}
	ref.Version = v.Version
	shown := s.shown(ctx, &v.View)
	list, next, err := s.store.Quarantined(ctx, tenant, ref, req.GetBatchId(), featurestore.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ListQuarantineResponse{NextPageToken: next}
	for _, q := range list {
		row := &featurestorev1.QuarantinedRow{Id: q.ID, View: q.View.String(), BatchId: q.BatchID, Sequence: q.Seq, RowNumber: q.Row, Row: &structpb.Struct{}, At: stamp(q.At), Actor: q.Actor}
		if err := row.Row.UnmarshalJSON(q.Values); err != nil {
			return nil, waybill.Wrap(waybill.Corrupt, err, "a row of the quarantine cannot be read")
		}
		for name := range row.GetRow().GetFields() {
			if !shown(name) {
				row.Row.Fields[name] = structpb.NewNullValue()
			}
		}
		for _, r := range q.Reasons {
			if !shown(r.Field) {
				r.Remedy = "is not what the column takes; the value may be secret, and seeing it takes the right read_personal on view/" + v.Name
			}
			row.Reasons = append(row.Reasons, &featurestorev1.QuarantineReason{Field: r.Field, Remedy: r.Remedy})
		}
		out.Rows = append(out.Rows, row)
	}
	return out, nil
}

// shown says of which columns the caller is shown what came in: of those that are not secret. What stands under a name that
// the view lacks is a misspelt column's, and secret when the view has any that is.
func (s *features) shown(ctx context.Context, v *featurestore.View) func(name string) bool {
	secret := map[string]bool{"event_time": false}
	hides := false
	for _, c := range slices.Concat(v.Entity.Keys, v.Features) {
		secret[c.Name] = c.Restricted()
		hides = hides || c.Restricted()
	}
	if !hides || s.sees(ctx, v.Name) {
		return func(string) bool { return true }
	}
	return func(name string) bool {
		hidden, known := secret[name]
		return known && !hidden
	}
}

// ClearQuarantine deletes rows that were not accepted.
func (s *features) ClearQuarantine(ctx context.Context, req *featurestorev1.ClearQuarantineRequest) (*featurestorev1.ClearQuarantineResponse, error) {
	ref, err := waybill.ParseVersionRef("view", req.GetView())
	if err != nil {
		return nil, err
	}
	n, err := s.store.ClearQuarantine(ctx, callerOf(ctx).actor, ref, req.GetBatchId(), req.GetReason())
	return &featurestorev1.ClearQuarantineResponse{Rows: n}, err
}
