package api

import (
	"context"

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
	list, next, err := s.store.Quarantined(ctx, callerOf(ctx).actor.Tenant, ref, req.GetBatchId(), featurestore.Page{Size: int(req.GetPageSize()), Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &featurestorev1.ListQuarantineResponse{NextPageToken: next}
	for _, q := range list {
		row := &featurestorev1.QuarantinedRow{Id: q.ID, View: q.View.String(), BatchId: q.BatchID, Sequence: q.Seq, RowNumber: q.Row, Row: &structpb.Struct{}, At: stamp(q.At), Actor: q.Actor}
		if err := row.Row.UnmarshalJSON(q.Values); err != nil {
			return nil, waybill.Wrap(waybill.Corrupt, err, "a row of the quarantine cannot be read")
		}
		for _, r := range q.Reasons {
			row.Reasons = append(row.Reasons, &featurestorev1.QuarantineReason{Field: r.Field, Remedy: r.Remedy})
		}
		out.Rows = append(out.Rows, row)
	}
	return out, nil
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
