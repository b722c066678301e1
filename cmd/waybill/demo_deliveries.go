package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill"
	"waybill/examples/fulfilment"
	"waybill/examples/fulfilment/gbdt"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
	"waybill/score"
)

// learnFrom is the share of the deliveries, in the order of their decisions, that lies before the split.
const learnFrom = 0.7

// fewestDeliveries is how many a study needs.
const fewestDeliveries = 500

// readDeliveries reads a file of deliveries and says of a wrong one what would be right.
func readDeliveries(file string) (ds fulfilment.Deliveries, err error) {
	f, err := os.Open(file)
	if err != nil {
		return ds, err
	}
	ds, err = fulfilment.ReadDeliveries(f)
	if err == nil && len(ds.All) < fewestDeliveries {
		err = fmt.Errorf("%d of %d lines can be read; a study needs at least %d", len(ds.All), ds.Lines, fewestDeliveries)
		for _, reason := range slices.Sorted(maps.Keys(ds.Refused)) {
			err = fmt.Errorf("%w\n  refused %d: %s", err, ds.Refused[reason], reason)
		}
	}
	if closeErr := f.Close(); err != nil || closeErr != nil {
		return ds, usageError{fmt.Errorf("%s: %w\nexpected is the open \"SCMS Delivery History\": CSV, plain or as .xz, with the columns\n  %s", file, errors.Join(err, closeErr), strings.Join(fulfilment.Columns(), ", "))}
	}
	return ds, nil
}

// deliveries is the story on a file of real deliveries: history up to a day, later orders decided in time order with what
// was known on each day, outcomes reported when they became known.
func (s *story) deliveries(ds fulfilment.Deliveries) (err error) {
	began := time.Now()
	late := 0
	for _, d := range ds.All {
		if d.Late() {
			late++
		}
	}
	split := ds.Split(ds.All[int(learnFrom*float64(len(ds.All)))].Decided)
	s.order = split.Later[len(split.Later)-1].Request()
	s.clock = " (by today's clock: these deliveries are years old)"
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

	s.head("A model")
	if err := s.rules("delivery-rules", "deliveries-rules"); err != nil {
		return err
	}
	rules, err := deliveryRules()
	if err != nil {
		return err
	}
	m, err := s.train(set.GetDigest(), "delivery-risk@v1", gbdt.Config{Trees: 150, Rate: .05, Sample: .5})
	if err != nil {
		return err
	}
	ruled, err := heldByRules(rules, m, split.Earlier)
	if err != nil {
		return err
	}
	s.say("Trained on %d deliveries in %.1f s. Trained without the last %d before the split and tried on these: AUC %.3f; the rules reach %.3f there.",
		len(m.labels), m.took.Seconds(), m.held, m.auc, gbdt.AUC(ruled, m.labels[len(m.labels)-m.held:]))
	v, err := s.submit(&registryv1.CreateModelVersionRequest{Model: "delivery-late", Format: "lightgbm", Entrypoint: "model.txt", FeatureService: "delivery-risk@v1",
		TrainingSet: set.GetDigest(), Metrics: map[string]float64{"auc": m.auc}, Automation: "advisory", Description: "risk that a delivery comes after its scheduled day",
		IntendedUse: "say which deliveries to expedite"}, m.text)
	if err != nil {
		return err
	}
	text, err := fulfilment.Definition("deliveries-endpoint")
	if err != nil {
		return err
	}
	if err := s.endpoint(text, "a trial"); err != nil {
		return err
	}

	s.head("Nobody approves their own model")
	if err := s.refused(v); err != nil {
		return err
	}
	d, err := s.decideOne(s.at, s.order)
	if err != nil {
		return err
	}
	if d.fallback == "" {
		return errors.New("an unapproved model answered")
	}
	s.say("Whoever asks meanwhile is answered by the rules: %s", d.fallback)
	if err := s.approve(v, "AUC and training set looked at; good enough for a trial, as advice only"); err != nil {
		return err
	}
	if err := s.until(func(d decided) bool { return d.fallback == "" }, "the approved model answers"); err != nil {
		return err
	}
	monitor, err := s.watch("*", 0.25)
	if err != nil {
		return err
	}

	s.head(fmt.Sprintf("%d later orders, in time order", len(split.Later)))
	r, err := s.replayDeliveries(rules, days, next, split.Later)
	if err != nil {
		return err
	}
	s.say("Decided %d in %.0f s, each with what was recorded before its day; %d answered by the rules (fallback).", len(split.Later), r.took.Seconds(), r.fallbacks)
	s.say("%d outcomes reported on the day they were recorded; %.1f %% of these orders came late.", r.outcomes, 100*r.late)
	why := s.conclude(r)

	s.head("One of them, with reasons and proof")
	if err := s.show(r.shown); err != nil {
		return err
	}

	s.head("A byte is flipped in a copy of the log")
	if err := s.tamper(); err != nil {
		return err
	}

	s.head("The world has changed")
	s.say("Nothing is injected here: the later orders are what they were, %s to %s.", split.At.Format("2006-01-02"), split.Later[len(split.Later)-1].Decided.Format("2006-01-02"))
	if err := s.noticed(monitor); err != nil {
		return err
	}

	s.head("The model is revoked")
	if err := s.revoke(v, why); err != nil {
		return err
	}
	return s.verified(began)
}

// conclude prints the report on the later orders, says what follows from it, and returns the reason to end the trial.
func (s *story) conclude(r replayed) (why string) {
	gain := gbdt.AUCGain(r.model, r.rules, r.labels, r.day, 400, 1)
	s.say("AUC of the model:       %.3f", gbdt.AUC(r.model, r.labels))
	s.say("AUC of the rule engine: %.3f (the same orders, the same inputs)", gbdt.AUC(r.rules, r.labels))
	s.say("Of the tenth with the highest risk, %.1f %% came late by the model and %.1f %% by the rules.", 100*top(r.model, r.labels), 100*top(r.rules, r.labels))
	for _, who := range []struct {
		name   string
		advise []bool
	}{{"The model", r.expedite}, {"The rules", r.rulesExpedite}} {
		n, hit := 0, 0.0
		for i, yes := range who.advise {
			if yes {
				n++
				hit += r.labels[i]
			}
		}
		s.say("%s advised to expedite %d orders; %.0f of them came late (%.1f %%).", who.name, n, hit, 100*hit/float64(max(1, n)))
	}
	interval := fmt.Sprintf("by %.3f AUC (95 %% interval %+.3f to %+.3f, whole days drawn together)", gain.AUC, gain.Low, gain.High)
	switch {
	case gain.Low > 0:
		s.say("Conclusion: on these orders the model ranked better than the rules, %s. That speaks for promoting it;", interval)
		s.say("how much it is worth depends on what expediting costs, which the file does not say.")
		return "the trial is over and its inputs have drifted; a promotion needs a version trained on newer deliveries"
	case gain.AUC > 0:
		s.say("Conclusion: the model ranked a little better than the rules, %s:", interval)
		s.say("that may be chance. A careful team would not promote it on this evidence.")
		return "the trial does not show that it ranks better than the rules"
	default:
		s.say("Conclusion: the rules ranked better than the model, %s.", interval)
		s.say("A careful team would not promote this model.")
		return "the rules ranked better in the trial"
	}
}

// deliveryRules loads the rule set to ask it about orders that the model decides.
func deliveryRules() (*score.RuleSet, error) {
	doc, err := fulfilment.Definition("deliveries-rules")
	if err != nil {
		return nil, err
	}
	return score.LoadRules([]byte(doc))
}

// heldByRules scores the held-out rows of a training set by the rules, from the same columns.
func heldByRules(rules *score.RuleSet, m trained, earlier []fulfilment.Delivery) ([]float64, error) {
	if len(earlier) != len(m.labels) {
		return nil, fmt.Errorf("the training set has %d rows, its spine %d", len(m.labels), len(earlier))
	}
	out := make([]float64, 0, m.held)
	for i := len(m.labels) - m.held; i < len(m.labels); i++ {
		values := earlier[i].Request()
		for k, name := range m.names {
			if _, given := values[name]; given {
				continue
			}
			if x := m.columns[k][i]; math.IsNaN(x) {
				values[name] = nil
			} else {
				values[name] = x
			}
		}
		verdict, err := rules.Evaluate(values)
		if err != nil {
			return nil, err
		}
		out = append(out, verdict.Score)
	}
	return out, nil
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
	var views errgroup.Group // each view has a log of its own; the rows of one stay in order
	for view, all := range pending {
		rows += len(all)
		views.Go(func() error {
			for from := 0; from < len(all); from += 5000 {
				req := &featurestorev1.PushRowsRequest{View: view, BatchId: fmt.Sprintf("days-%d-%d-%d", at, end, from)}
				for _, r := range all[from:min(len(all), from+5000)] {
					row, err := structpb.NewStruct(r)
					if err != nil {
						return err
					}
					req.Rows = append(req.Rows, row)
				}
				if _, err := s.ann.features.PushRows(s.ctx, req); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := views.Wait(); err != nil {
		return at, 0, err
	}
	return end, rows, nil
}

// replayed is what came of the later orders, one element per order.
type replayed struct {
	model, rules, labels    []float64
	day                     []int // number of the day of the decision
	expedite, rulesExpedite []bool
	late                    float64
	fallbacks, outcomes     int
	took                    time.Duration
	shown                   decided // the first that came late as the model had feared, else the first that came late
}

// expediteAbove is the risk above which the endpoint's document advises to expedite.
const expediteAbove = 0.25

// replayDeliveries walks through the days: first what became known, then the day's orders.
func (s *story) replayDeliveries(rules *score.RuleSet, days []fulfilment.Day, next int, later []fulfilment.Delivery) (r replayed, err error) {
	open := map[string]string{} // delivery → decision
	bar := progress(s.env, "decide")
	start := time.Now()
	report := func(from, to int) error {
		var calls errgroup.Group
		calls.SetLimit(callers)
		for _, day := range days[from:to] {
			for _, d := range day.Outcomes {
				if id, decided := open[d.ID]; decided {
					calls.Go(func() error { return s.outcome(id, d.Late(), day.Known()) })
					r.outcomes++
					delete(open, d.ID)
				}
			}
		}
		return calls.Wait()
	}
	foreseen := false
	for i, number := 0, 0; i < len(later); number++ {
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
			r.model, r.rules, r.labels, r.day = append(r.model, d.score), append(r.rules, verdict.Score), append(r.labels, label), append(r.day, number)
			r.expedite, r.rulesExpedite = append(r.expedite, d.action == "expedite"), append(r.rulesExpedite, verdict.Score > expediteAbove)
			if fear := label == 1 && d.action == "expedite"; fear && !foreseen || label == 1 && r.shown.id == "" {
				r.shown, foreseen = d, foreseen || fear
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
