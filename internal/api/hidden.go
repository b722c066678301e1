package api

import (
	"context"
	"strings"

	"waybill"
	"waybill/decision"
	"waybill/featurestore"
)

// hiddenStatus stands where a value of the class secret is kept from a caller without the right read_personal on its view.
const hiddenStatus = "HIDDEN"

// hidden returns the outputs of a feature service that tell secret values the caller may not see. service is as leaves have
// it, "name@v1"; "" for decisions that asked none.
func (s *features) hidden(ctx context.Context, service string) (map[string]bool, error) {
	if service == "" {
		return nil, nil
	}
	ref, err := waybill.ParseVersionRef("service", service)
	if err != nil {
		return nil, err
	}
	secrets, err := s.store.Secrets(ctx, callerOf(ctx).actor.Tenant, ref)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, x := range secrets {
		for _, view := range x.Views {
			if !s.sees(ctx, view) {
				out[x.Output] = true
			}
		}
	}
	return out, nil
}

// hideIn takes hidden values out of a decision's record: those of its inputs, and of the answer of hubs that still gave them
// there. Contributions stay: they say why, and not what.
func hideIn(rec *decision.Record, hidden map[string]bool) {
	if len(hidden) == 0 {
		return
	}
	for i := range rec.Inputs {
		if in := &rec.Inputs[i]; hidden[in.Name] {
			in.Value, in.Status = nil, featurestore.Status(hiddenStatus)
		}
	}
	explain, _ := rec.Answer["explain"].(map[string]any)
	top, _ := explain["features"].([]any)
	for i := range top {
		if text, ok := top[i].(string); ok {
			if name, _, _ := strings.Cut(text, ":"); hidden[name] {
				top[i] = decision.Unsaid(name)
			}
		}
	}
	contributions, _ := explain["contributions"].([]any)
	for _, c := range contributions {
		if c, ok := c.(map[string]any); ok {
			if name, ok := c["feature"].(string); ok && hidden[name] {
				c["value"] = nil
			}
		}
	}
}
