package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"waybill/examples/fulfilment"
	"waybill/examples/fulfilment/gbdt"
	registryv1 "waybill/proto/waybill/registry/v1"
)

const (
	demoSeed      = 20260410
	demoRules     = 200  // decisions before the approval
	demoDecisions = 1000 // decisions of the model
)

// synthetic is the story on invented orders.
func (s *story) synthetic() error {
	began := time.Now()
	world := fulfilment.New(fulfilment.Config{Seed: demoSeed, Now: time.Now()})
	s.order = world.Orders(1, time.Now())[0].Request
	fmt.Fprintln(s.out, "A company ships orders from four warehouses. Everything in this story is SYNTHETIC: orders, places' loads,\ncarriers and weather come from a seeded generator. What the hub does with them is not.")
	if err := s.people(); err != nil {
		return err
	}

	s.head("Features")
	if err := s.publish("features"); err != nil {
		return err
	}
	rows := 0
	for _, t := range world.Features() {
		if err := s.ingest(t, "demo"); err != nil {
			return err
		}
		rows += t.Rows
	}
	s.say("45 days of history: %d rows, online and as Parquet in the bucket.", rows)
	set, err := s.trainingSet("late-shipments", "route-risk@v1", world.Spine())
	if err != nil {
		return err
	}

	s.head("A model")
	if err := s.rules("route-rules", "rules"); err != nil {
		return err
	}
	m, err := s.train(set.GetDigest(), "route-risk@v1", gbdt.Config{Trees: 100})
	if err != nil {
		return err
	}
	s.say("Trained on %d past shipments in %.1f s (%.1f %% came late). Trained without the last %d and tried on these: AUC %.3f.", len(m.labels), m.took.Seconds(), 100*m.late(), m.held, m.auc)
	spec := &registryv1.CreateModelVersionRequest{Model: "late-risk", Format: "lightgbm", Entrypoint: "model.txt", FeatureService: "route-risk@v1", TrainingSet: set.GetDigest(),
		Metrics: map[string]float64{"auc": m.auc}, Automation: "solely_automated", Description: "risk that a shipment comes late (trained on synthetic data)", IntendedUse: "rank routes of the example"}
	v, err := s.submit(spec, m.text)
	if err != nil {
		return err
	}
	text, err := fulfilment.Definition("endpoint")
	if err != nil {
		return err
	}
	if err := s.endpoint(text, "go live"); err != nil {
		return err
	}

	s.head("Nobody approves their own model")
	if err := s.refused(v); err != nil {
		return err
	}
	byRules, err := s.orders(world, world.Orders(demoRules, time.Now()))
	if err != nil {
		return err
	}
	s.say("Meanwhile %d orders come in. All get an answer, by the rules: %s", demoRules, byRules.decided[0].fallback)
	if fallbacks(byRules.decided) != demoRules {
		return errors.New("an unapproved model answered")
	}
	if err := s.approve(v, "AUC and training set looked at"); err != nil {
		return err
	}
	if err := s.until(func(d decided) bool { return d.fallback == "" }, "the approved model answers"); err != nil {
		return err
	}

	s.head(fmt.Sprintf("%d decisions", demoDecisions))
	orders := world.Orders(demoDecisions, time.Now())
	byModel, err := s.orders(world, orders)
	if err != nil {
		return err
	}
	ds := byModel.decided
	s.say("%.0f decisions/s from %d callers; median %.1f ms, 99 %% within %.1f ms, each in the log before it was answered.", float64(len(ds))/byModel.took.Seconds(), callers,
		ms(quantile(ds, .5)), ms(quantile(ds, .99)))
	lateOfSame := 0.0
	for i := range demoRules {
		late, err := world.Late(orders[i], ds[i].action)
		if err != nil {
			return err
		}
		if late {
			lateOfSame += 100.0 / demoRules
		}
	}
	s.say("%d of %d fell back to the rules. The same %d orders came late in %.1f %% of cases by the rules' routes and %.1f %% by the model's.", fallbacks(ds), len(ds),
		demoRules, 100*byRules.late, lateOfSame)

	s.head("One of them, with reasons and proof")
	if err := s.show(ds[0]); err != nil {
		return err
	}

	s.head("A byte is flipped in a copy of the log")
	if err := s.tamper(); err != nil {
		return err
	}

	s.head("The world changes")
	if err := s.standstill(world); err != nil {
		return err
	}

	s.head("The model is revoked")
	if err := s.revoke(v, "the incident shows inputs it was never trained on"); err != nil {
		return err
	}

	s.head("It comes back, under a new number and a new approval")
	if err := s.again(world, spec, m, v, text); err != nil {
		return err
	}
	s.order = world.Orders(1, time.Now())[0].Request
	return s.verified(began)
}

// batch is a number of orders and what became of them.
type batch struct {
	decided []decided
	took    time.Duration
	late    float64
}

// orders decides orders and reports what became of each.
func (s *story) orders(world *fulfilment.Scenario, orders []fulfilment.Order) (b batch, err error) {
	requests := make([]map[string]any, len(orders))
	for i, o := range orders {
		requests[i] = o.Request
	}
	start := time.Now()
	if b.decided, err = s.decide("route", requests); err != nil {
		return b, err
	}
	b.took = time.Since(start)
	late := make([]bool, len(orders))
	for i, o := range orders {
		if late[i], err = world.Late(o, b.decided[i].action); err != nil {
			return b, err
		}
		if late[i] {
			b.late += 1 / float64(len(orders))
		}
	}
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := w; i < len(orders) && errs[w] == nil; i += callers {
				errs[w] = s.outcome(b.decided[i].id, late[i], time.Now())
			}
		})
	}
	wg.Wait()
	return b, errors.Join(errs...)
}

// standstill lets the queues grow beyond anything in the history, decides on, and has it noticed.
func (s *story) standstill(world *fulfilment.Scenario) error {
	monitor, err := s.watch("warehouse_queue", 0.5)
	if err != nil {
		return err
	}
	t := world.Drifted(time.Now())
	if err := s.ingest(t, "conveyors"); err != nil {
		return err
	}
	if err := s.l.hub.features.Refresh(s.ctx); err != nil {
		return err
	}
	b, err := s.orders(world, world.Orders(demoDecisions, time.Now()))
	if err != nil {
		return err
	}
	longest, err := longestQueue(t)
	if err != nil {
		return err
	}
	s.say("Conveyors stand still: up to %.0f hours of work are waiting in a warehouse. %d more decisions.", longest, len(b.decided))
	return s.noticed(monitor)
}

// again brings the model back once its inputs are such as it was trained on. A revoked version never serves again: the
// same file becomes a new version, and consent to it is given anew or not at all.
func (s *story) again(world *fulfilment.Scenario, spec *registryv1.CreateModelVersionRequest, m trained, revoked *registryv1.ModelVersion, endpoint string) error {
	t := world.Recovered(time.Now())
	if err := s.ingest(t, "running again"); err != nil {
		return err
	}
	if err := s.l.hub.features.Refresh(context.WithoutCancel(s.ctx)); err != nil {
		return err
	}
	longest, err := longestQueue(t)
	if err != nil {
		return err
	}
	known := slices.Max(m.column("warehouse_queue"))
	if longest > known {
		return fmt.Errorf("the queues of %.1f hours are still beyond the training set, which ends at %.1f", longest, known)
	}
	s.say("The conveyors run again: at most %.0f hours of work are waiting now; the training set knows up to %.0f.", longest, known)
	next := proto.CloneOf(spec)
	next.Description = "the same file as " + refOf(revoked) + ", which was revoked while the conveyors stood still; submitted again now that they run"
	v, err := s.register(next, m.text)
	if err != nil {
		return err
	}
	was, is := revoked.GetFiles()[0].GetSha256(), v.GetFiles()[0].GetSha256()
	if was != is {
		return fmt.Errorf("the files differ: %s and %s", was, is)
	}
	s.say("A revoked version never serves again. So Ann submits the same file (SHA-256 %.12s…) as %s and says why.", is, refOf(v))
	if err := s.approve(v, fmt.Sprintf("these bytes were revoked as v1 for queues beyond its training set; now every queue is within its training set again (%.0f of %.0f hours)", longest, known)); err != nil {
		return err
	}
	if err := s.endpoint(strings.ReplaceAll(endpoint, refOf(revoked), refOf(v)), "conveyors run again"); err != nil {
		return err
	}
	if err := s.until(func(d decided) bool { return d.fallback == "" }, "the new version answers"); err != nil {
		return err
	}
	s.say("%s stays revoked, and the incident open: the monitor's last hour still holds the long queues.", refOf(revoked))
	return nil
}

// longestQueue is the longest queue in a table of readings, in hours.
func longestQueue(t fulfilment.Table) (longest float64, err error) {
	rows, err := csv.NewReader(bytes.NewReader(t.CSV)).ReadAll()
	if err != nil {
		return 0, err
	}
	at := slices.Index(rows[0], "warehouse_queue")
	for _, r := range rows[1:] {
		x, err := strconv.ParseFloat(r[at], 64)
		if err != nil {
			return 0, err
		}
		longest = max(longest, x)
	}
	return longest, nil
}
