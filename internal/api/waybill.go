package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	"waybill/audit"
	"waybill/decision"
	decisionv1 "waybill/proto/waybill/decision/v1"
)

// GetDecision returns the waybill of a decision.
func (d *decisions) GetDecision(ctx context.Context, req *decisionv1.GetDecisionRequest) (*decisionv1.GetDecisionResponse, error) {
	id, err := waybill.ParseID("decision_id", req.GetDecisionId())
	if err != nil {
		return nil, err
	}
	tenant := callerOf(ctx).actor.Tenant
	row, rec, err := d.service.Recorded(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	var leaf audit.DecisionLeaf
	if err := json.Unmarshal(row.Leaf, &leaf); err != nil {
		return nil, waybill.Wrap(waybill.Corrupt, err, "the leaf of the decision cannot be read")
	}
	hidden, err := d.features.hidden(ctx, leaf.Service)
	if err != nil {
		return nil, err
	}
	hideIn(&rec, hidden)
	out := &decisionv1.Decision{Summary: summary(row), FeatureService: leaf.Service, ModelDigest: leaf.Model.Digest, PolicyRev: leaf.PolicyRev, Actor: leaf.Actor,
		Leaf: string(row.Leaf), Base: rec.Base, Raw: rec.Raw, Residual: rec.Residual, LatencyMs: float64(rec.LatencyUS) / 1000, FallbackReason: row.Fallback}
	if out.Request, err = structpb.NewStruct(rec.Request); err != nil {
		return nil, fmt.Errorf("convert request: %w", err)
	}
	if out.Answer, err = structpb.NewStruct(rec.Answer); err != nil {
		return nil, fmt.Errorf("convert answer: %w", err)
	}
	phi := map[string]float64{}
	for i, name := range rec.Names {
		phi[name] = rec.Phi[i]
	}
	for _, in := range rec.Inputs {
		v, err := structpb.NewValue(in.Value)
		if err != nil {
			return nil, fmt.Errorf("convert input: %w", err)
		}
		o := &decisionv1.Input{Name: in.Name, Value: v, Status: string(in.Status), View: in.View, Sequence: in.Seq, Contribution: phi[in.Name], Sources: in.Sources}
		if in.Event != nil {
			o.EventTime, o.AgeSeconds = timestamppb.New(*in.Event), row.DecidedAt.Sub(*in.Event).Seconds()
		}
		out.Inputs = append(out.Inputs, o)
	}
	for _, c := range rec.Candidates {
		out.Candidates = append(out.Candidates, &decisionv1.Candidate{Action: c.Action, Score: c.Score, Cost: c.Cost, Eligible: c.Eligible})
	}
	for _, g := range rec.Gates {
		out.Gates = append(out.Gates, &decisionv1.GateVerdict{Gate: g.Gate, Stage: g.Stage, Verdict: g.Verdict, Reason: g.Reason})
	}
	outcomes, err := d.service.Outcomes(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	for _, o := range outcomes {
		v, err := structpb.NewValue(o.Value)
		if err != nil {
			return nil, fmt.Errorf("convert outcome: %w", err)
		}
		out.Outcomes = append(out.Outcomes, &decisionv1.Outcome{Name: o.Name, Value: v, EventTime: timestamppb.New(o.EventTime), ReportedAt: timestamppb.New(o.ReportedAt), Actor: o.Actor})
	}
	if out.AnsweredBy = leaf.Model.Ref; out.AnsweredBy != "" {
		if err := d.addApproval(ctx, tenant, leaf, out); err != nil {
			return nil, err
		}
	}
	out.Sentence = sentence(row, rec, out)
	return &decisionv1.GetDecisionResponse{Decision: out}, nil
}

// addApproval says who consented to what answered, the model or the rules, and whether that is still in force.
func (d *decisions) addApproval(ctx context.Context, tenant waybill.Tenant, leaf audit.DecisionLeaf, out *decisionv1.Decision) error {
	ref, err := waybill.ParseVersionRef("model", leaf.Model.Ref)
	if err != nil {
		return err
	}
	v, err := d.models.Get(ctx, tenant, ref)
	if err != nil {
		return err
	}
	out.TrainingSet, out.ModelStateNow = v.TrainingSet, string(v.State)
	for _, a := range v.Approvals {
		if a.ID.String() == leaf.Model.Approval {
			out.Approver, out.ApprovedAt, out.ApprovalReason = a.Actor, timestamppb.New(a.At), a.Reason
		}
	}
	return nil
}

// sentence is the verdict in plain words.
func sentence(row audit.DecisionRow, rec decision.Record, d *decisionv1.Decision) string {
	what := row.BusinessKey
	if what == "" {
		what = "The request"
	}
	if row.Action == "blocked" {
		for _, g := range rec.Gates {
			if g.Verdict == "block" {
				return fmt.Sprintf("%s was blocked by the gate %s: %s.", what, g.Gate, strings.TrimSuffix(g.Reason, "."))
			}
		}
		return what + " was blocked."
	}
	approved := ""
	if d.GetApprover() != "" {
		approved = ", approved by " + d.GetApprover()
	}
	if row.Fallback != "" {
		rules := "the rules"
		if d.GetAnsweredBy() != "" { // leaves did not always name them
			rules += " " + d.GetAnsweredBy()
		}
		return fmt.Sprintf("%s was decided as “%s” by %s%s. The model did not answer: %s.", what, row.Action, rules, approved,
			strings.TrimSuffix(strings.TrimPrefix(row.Fallback, "model: "), "."))
	}
	return fmt.Sprintf("%s was decided as “%s” by the model %s%s.", what, row.Action, d.GetAnsweredBy(), approved)
}
