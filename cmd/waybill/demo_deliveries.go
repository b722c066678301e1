package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/examples/fulfilment"
	"waybill/examples/fulfilment/gbdt"
	auditv1 "waybill/proto/waybill/audit/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
	"waybill/score"
)

// learnFrom is the share of the deliveries, in the order of their decisions, that lies before the split.
const learnFrom = 0.7

// deliveries is the story on a file of real deliveries: history up to a day, later orders decided in time order with what
// was known on each day, outcomes reported when they became known.
func (s *story) deliveries(file string) (err error) {
	began := time.Now()
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	ds, err := fulfilment.ReadDeliveries(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if len(ds.All) < 500 {
		return fmt.Errorf("%s holds %d deliveries that can be read of %d lines; a study needs at least 500", file, len(ds.All), ds.Lines)
	}
	late := 0
	for _, d := range ds.All {
		if d.Late() {
			late++
		}
	}
	split := ds.Split(ds.All[int(learnFrom*float64(len(ds.All)))].Decided)
	fmt.Fprintf(s.out, "Real deliveries: %d of %d lines read (%d refused), %.1f %% came late.\n", len(ds.All), ds.Lines, ds.Lines-len(ds.All), 100*float64(late)/float64(len(ds.All)))
	for _, reason := range slices.Sorted(maps.Keys(ds.Refused)) {
		fmt.Fprintf(s.out, "   refused %d: %s\n", ds.Refused[reason], reason)
	}
	fmt.Fprintf(s.out, "Split on %s: %d to learn from, %d decided later, %d decided before and recorded after (used by neither).\n", split.At.Format("2006-01-02"), split.Spine.Rows, len(split.Later), split.Gap)
	if err := s.people(); err != nil {
		return err
	}

	s.head("Features from history")
	if err := s.publish("deliveries-features"); err != nil {
		return err
	}
	days := ds.Days()
	next, rows, err := s.pushDays(days, 0, split.At)
	if err != nil {
		return err
	}
	s.say("%d days of records before the split: %d rows.", next, rows)
	set, err := s.trainingSet("deliveries", "delivery-risk@v1", split.Spine)
	if err != nil {
		return err
	}

	s.head("Model and rules")
	if err := s.rules("delivery-rules", "deliveries-rules"); err != nil {
		return err
	}
	m, err := s.train(set.GetDigest(), "delivery-risk@v1", 80)
	if err != nil {
		return err
	}
	s.say("Trained on %d deliveries in %.1f s; AUC %.3f on the last %d before the split.", m.train, m.took.Seconds(), m.auc, m.held)
	v, err := s.register(&registryv1.CreateModelVersionRequest{Model: "delivery-late", Format: "lightgbm", Entrypoint: "model.txt", FeatureService: "delivery-risk@v1",
		TrainingSet: set.GetDigest(), Metrics: map[string]float64{"auc": m.auc}, Automation: "advisory", Description: "risk that a delivery comes after its scheduled day",
		IntendedUse: "say which deliveries to expedite"}, m.text)
	if err != nil {
		return err
	}
	if _, err := s.bob.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "AUC and training set looked at"}); err != nil {
		return err
	}
	text, err := fulfilment.Definition("deliveries-endpoint")
	if err != nil {
		return err
	}
	if err := s.endpoint(text, "go live"); err != nil {
		return err
	}

	s.head(fmt.Sprintf("%d later orders, in time order", len(split.Later)))
	r, err := s.replayDeliveries(days, next, split.Later)
	if err != nil {
		return err
	}
	s.say("Decided %d in %.0f s, each with what was recorded before its day; %d answered by the rules (fallback).", len(split.Later), r.took.Seconds(), r.fallbacks)
	s.say("%d outcomes reported on the day they were recorded; %.1f %% of these orders came late.", r.outcomes, 100*r.late)
	s.say("AUC of the model:       %.3f", gbdt.AUC(r.model, r.labels))
	s.say("AUC of the rule engine: %.3f (the same orders, the same inputs)", gbdt.AUC(r.rules, r.labels))
	s.say("Of the tenth with the highest risk, %.1f %% came late by the model and %.1f %% by the rules.", 100*top(r.model, r.labels), 100*top(r.rules, r.labels))
	s.decision = r.first
	res, err := s.admin.audit.VerifyLog(s.ctx, &auditv1.VerifyLogRequest{})
	if err != nil {
		return err
	}
	if !res.GetOk() {
		return errors.New("the log does not verify: " + res.GetFinding())
	}
	s.say("The whole log verifies: %d entries in %.1f s. The story took %.0f s.", res.GetEntries(), res.GetSeconds(), time.Since(began).Seconds())
	return nil
}

// pushDays pushes the rows of the days from at on that were known by then, in order, and returns the first day after.
func (s *story) pushDays(days []fulfilment.Day, at int, by time.Time) (next, rows int, err error) {
	pending := map[string][]map[string]any{}
	end := at
	for end < len(days) && !days[end].Known().After(by) {
		for view, rs := range days[end].Rows {
			pending[view] = append(pending[view], rs...)
		}
		end++
	}
	for _, view := range slices.Sorted(maps.Keys(pending)) {
		all := pending[view]
		for from := 0; from < len(all); from += 5000 {
			part := all[from:min(len(all), from+5000)]
			req := &featurestorev1.PushRowsRequest{View: view, BatchId: fmt.Sprintf("days-%d-%d-%d", at, end, from)}
			for _, r := range part {
				row, err := structpb.NewStruct(r)
				if err != nil {
					return at, rows, err
				}
				req.Rows = append(req.Rows, row)
			}
			if _, err := s.ann.features.PushRows(s.ctx, req); err != nil {
				return at, rows, err
			}
			rows += len(part)
		}
	}
	return end, rows, nil
}

// replayed is what came of the later orders.
type replayed struct {
	model, rules, labels []float64
	late                 float64
	fallbacks, outcomes  int
	took                 time.Duration
	first                string
}

// replayDeliveries walks through the days: first what became known, then the day's orders.
func (s *story) replayDeliveries(days []fulfilment.Day, next int, later []fulfilment.Delivery) (r replayed, err error) {
	doc, err := fulfilment.Definition("deliveries-rules")
	if err != nil {
		return r, err
	}
	rules, err := score.LoadRules([]byte(doc))
	if err != nil {
		return r, err
	}
	open := map[string]string{} // delivery → decision
	bar := progress(s.env, "decide")
	start := time.Now()
	report := func(from, to int) error {
		for _, day := range days[from:to] {
			for _, d := range day.Outcomes {
				if id, decided := open[d.ID]; decided {
					if err := s.outcome(id, d.Late(), day.Known()); err != nil {
						return err
					}
					r.outcomes++
					delete(open, d.ID)
				}
			}
		}
		return nil
	}
	for i := 0; i < len(later); {
		day := later[i].Decided
		was := next
		if next, _, err = s.pushDays(days, next, day); err != nil {
			return r, err
		}
		if err := report(was, next); err != nil {
			return r, err
		}
		var requests []map[string]any
		for ; i < len(later) && later[i].Decided.Equal(day); i++ {
			requests = append(requests, later[i].Request())
		}
		ds, err := s.decide("delivery", requests)
		if err != nil {
			return r, err
		}
		bar(int64(i), int64(len(later)))
		for k, d := range ds {
			order := later[i-len(ds)+k]
			open[order.ID] = d.id
			id, err := waybill.ParseID("decision_id", d.id)
			if err != nil {
				return r, err
			}
			_, rec, err := s.l.hub.decisions.Recorded(s.ctx, "demo", id)
			if err != nil {
				return r, err
			}
			values := order.Request()
			for _, in := range rec.Inputs {
				values[in.Name] = in.Value
			}
			verdict, err := rules.Evaluate(values)
			if err != nil {
				return r, err
			}
			label := 0.0
			if order.Late() {
				label = 1
				r.late += 1 / float64(len(later))
			}
			if d.fallback != "" {
				r.fallbacks++
			}
			r.model, r.rules, r.labels = append(r.model, d.score), append(r.rules, verdict.Score), append(r.labels, label)
			if r.first == "" && label == 1 {
				r.first = d.id
			}
		}
	}
	if err := report(next, len(days)); err != nil {
		return r, err
	}
	r.took = time.Since(start)
	return r, nil
}

// top is the share of label 1 among the tenth of the rows with the highest scores; ties are broken by order.
func top(scores, labels []float64) float64 {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	n := max(1, len(order)/10)
	sum := 0.0
	for _, i := range order[:n] {
		sum += labels[i]
	}
	return sum / float64(n)
}
