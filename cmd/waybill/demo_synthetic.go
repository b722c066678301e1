package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"waybill/audit"
	"waybill/examples/fulfilment"
	accessv1 "waybill/proto/waybill/access/v1"
	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	driftv1 "waybill/proto/waybill/drift/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	lineagev1 "waybill/proto/waybill/lineage/v1"
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
		if err := s.ingest(t); err != nil {
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
	m, err := s.train(set.GetDigest(), "route-risk@v1", 100)
	if err != nil {
		return err
	}
	s.say("Trained on %d past shipments in %.1f s: AUC %.3f on the %d held out (%.1f %% of all came late).", m.train, m.took.Seconds(), m.auc, m.held, 100*m.late)
	spec := &registryv1.CreateModelVersionRequest{Model: "late-risk", Format: "lightgbm", Entrypoint: "model.txt", FeatureService: "route-risk@v1", TrainingSet: set.GetDigest(),
		Metrics: map[string]float64{"auc": m.auc}, Automation: "solely_automated", Description: "risk that a shipment comes late (trained on synthetic data)", IntendedUse: "rank routes of the example"}
	v, err := s.register(spec, m.text)
	if err != nil {
		return err
	}
	s.say("Ann submits %s: frozen under %.19s…", refOf(v), v.GetDigest())
	text, err := fulfilment.Definition("endpoint")
	if err != nil {
		return err
	}
	if err := s.endpoint(text, "go live"); err != nil {
		return err
	}

	s.head("Nobody approves their own model")
	_, err = s.ann.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "it is good"})
	if err == nil {
		return errors.New("the author approved her own model")
	}
	s.say("Ann tries: %s", status.Convert(err).Message())
	_, err = s.admin.access.BindRole(s.ctx, bind("ann", "approver"))
	if err == nil {
		_, err = s.ann.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "it is good"})
	}
	if err == nil {
		return errors.New("the author approved her own model")
	}
	s.say("Even with the role of an approver: %s", status.Convert(err).Message())
	byRules, err := s.orders(world, world.Orders(demoRules, time.Now()))
	if err != nil {
		return err
	}
	s.say("Meanwhile %d orders come in. All get an answer, by the rules: %s", demoRules, byRules.decided[0].fallback)
	if fallbacks(byRules.decided) != demoRules {
		return errors.New("an unapproved model answered")
	}
	if _, err := s.bob.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "AUC and training set looked at"}); err != nil {
		return err
	}
	if err := s.until(world, func(d decided) bool { return d.fallback == "" }, "the approved model answers"); err != nil {
		return err
	}
	s.say("Bob approves: bound to exactly these bytes, this training set, this feature service.")

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
	if err := s.drift(world); err != nil {
		return err
	}

	s.head("The model is revoked")
	start := time.Now()
	if _, err := s.bob.models.RevokeModelVersion(s.ctx, &registryv1.RevokeModelVersionRequest{Model: refOf(v), Reason: "the incident shows inputs it was never trained on"}); err != nil {
		return err
	}
	if err := s.until(world, func(d decided) bool {
		if d.fallback != "" {
			s.say("After %.0f ms the rules answer: %s", ms(time.Since(start)), d.fallback)
		}
		return d.fallback != ""
	}, "the revoked model stops answering"); err != nil {
		return err
	}
	if err := s.again(spec, m.text, text, world); err != nil {
		return err
	}
	res, err := s.admin.audit.VerifyLog(s.ctx, &auditv1.VerifyLogRequest{})
	if err != nil {
		return err
	}
	if !res.GetOk() {
		return errors.New("the log does not verify: " + res.GetFinding())
	}
	s.say("The whole log verifies: %d entries. The story took %.0f s.", res.GetEntries(), time.Since(began).Seconds())
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

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

// until asks for decisions until one is as wanted: changes hold within a second.
func (s *story) until(world *fulfilment.Scenario, good func(decided) bool, what string) error {
	order := world.Orders(1, time.Now())[0]
	for start := time.Now(); ; {
		d, err := s.decideOne("route", order.Request)
		if err != nil {
			return err
		}
		if good(d) {
			return nil
		}
		if time.Since(start) > 2*time.Second {
			return fmt.Errorf("not within two seconds: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// show prints one decision and checks its receipt without the hub's help.
func (s *story) show(d decided) error {
	s.decision = d.id
	res, err := s.admin.decisions.GetDecision(s.ctx, &decisionv1.GetDecisionRequest{DecisionId: d.id})
	if err != nil {
		return err
	}
	w := res.GetDecision()
	s.say("%s", w.GetSentence())
	s.say("Risk of coming late %.3f; what moved it most: %s", w.GetSummary().GetScore(), reasons(d.answer))
	s.say("%d candidates were ranked. Inputs with versions and ages, e.g. %s.", len(w.GetCandidates()), inputLine(w.GetInputs()))
	receipt := d.answer.GetFields()["receipt"].GetStructValue().GetFields()
	r := audit.Receipt{Index: int64(receipt["index"].GetNumberValue()), Size: int64(receipt["size"].GetNumberValue()), Checkpoint: receipt["checkpoint"].GetStringValue()}
	for _, h := range receipt["path"].GetListValue().GetValues() {
		b, err := base64.StdEncoding.DecodeString(h.GetStringValue())
		if err != nil {
			return fmt.Errorf("read receipt: %w", err)
		}
		r.Path = append(r.Path, b)
	}
	if err := audit.VerifyReceipt(s.l.hub.log.VerifierKey(), []byte(w.GetLeaf()), r); err != nil {
		return err
	}
	s.say("Its receipt proves, offline: entry %d of the log, %d hashes up to the signed root.", r.Index, len(r.Path))
	replay, err := s.admin.decisions.ReplayDecision(s.ctx, &decisionv1.ReplayDecisionRequest{DecisionId: d.id})
	if err != nil {
		return err
	}
	if !replay.GetEqual() {
		return fmt.Errorf("the replay differs: %v", replay.GetDifferences())
	}
	s.say("Replayed: %.17g again, bit for bit.", replay.GetReplayedScore())
	g, err := s.admin.lineage.GetLineage(s.ctx, &lineagev1.GetLineageRequest{Node: "decision:" + d.id, Direction: "up"})
	if err != nil {
		return err
	}
	kinds := map[string]int{}
	for _, n := range g.GetNodes() {
		kinds[n.GetKind()]++
	}
	s.say("It came from %d view versions, %d commits, %d training set, %d model versions, %d approvals, policy revision %d.", kinds["view"], kinds["commit"], kinds["trainingset"], kinds["model"],
		kinds["approval"], w.GetPolicyRev())
	return nil
}

func reasons(answer *structpb.Struct) string {
	var out []string
	for _, f := range answer.GetFields()["explain"].GetStructValue().GetFields()["features"].GetListValue().GetValues() {
		out = append(out, f.GetStringValue())
	}
	return strings.Join(out, ", ")
}

func inputLine(in []*decisionv1.Input) string {
	for _, i := range in {
		if i.GetView() != "" && i.GetSequence() > 0 {
			return fmt.Sprintf("%s = %v from %s, commit %d, %.0f min old", i.GetName(), i.GetValue().AsInterface(), i.GetView(), i.GetSequence(), i.GetAgeSeconds()/60)
		}
	}
	return "none"
}

// tamper exports the log, flips one byte of a decision in the copy and has it found.
func (s *story) tamper() error {
	dir := filepath.Join(s.l.info.Data, "copy-of-the-log")
	key := s.l.hub.log.VerifierKey()
	n, err := audit.Export(s.ctx, hubSource(s.admin, 1), key, dir, nil)
	if err != nil {
		return err
	}
	if f, err := audit.Verify(s.ctx, audit.DirSource(dir), key, nil); err != nil || !f.OK {
		return errors.Join(fmt.Errorf("the copy does not verify: %s", f.What), err)
	}
	s.say("A copy of %d entries verifies.", n)
	file := filepath.Join(dir, "tile", "entries", "002")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte(`"action":"WH-`))
	if at < 0 {
		return errors.New("there is no decision in the third bundle")
	}
	data[at+len(`"action":"WH-`)] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	f, err := audit.Verify(s.ctx, audit.DirSource(dir), key, nil)
	if err != nil {
		return err
	}
	if f.OK {
		return errors.New("the flipped byte was not found")
	}
	s.say("One bit of one warehouse's name is changed in it. Found: %s", finding(f))
	return nil
}

// drift injects a change, decides on, and has it noticed.
func (s *story) drift(world *fulfilment.Scenario) error {
	if _, err := s.otto.drift.PutMonitor(s.ctx, &driftv1.PutMonitorRequest{Name: "route-inputs", Endpoint: "route", Feature: "warehouse_queue", Statistic: "psi", Limit: 0.5, MinSample: 200, WindowSeconds: 3600}); err != nil {
		return err
	}
	t := world.Drifted(time.Now())
	rows, err := s.ann.features.IngestFile(s.ctx)
	if err != nil {
		return err
	}
	if err := rows.Send(ingestRequest(t, "conveyors")); err != nil {
		return err
	}
	if _, err := rows.CloseAndRecv(); err != nil {
		return err
	}
	if err := s.l.hub.features.Refresh(s.ctx); err != nil {
		return err
	}
	b, err := s.orders(world, world.Orders(demoDecisions, time.Now()))
	if err != nil {
		return err
	}
	s.say("Conveyors stand still: every queue grows by more than two days of work. %d more decisions.", len(b.decided))
	res, err := s.otto.drift.RunMonitor(s.ctx, &driftv1.RunMonitorRequest{Name: "route-inputs"})
	if err != nil {
		return err
	}
	if res.GetIncidentId() == "" {
		return fmt.Errorf("the drift was not noticed: %v", res.GetVerdicts())
	}
	v := res.GetVerdicts()[0]
	s.say("The monitor: PSI of %s is %.2f, the limit is %g.", v.GetFeature(), v.GetValue(), v.GetLimit())
	list, err := s.otto.drift.ListIncidents(s.ctx, &driftv1.ListIncidentsRequest{State: "open"})
	if err != nil {
		return err
	}
	i := list.GetIncidents()[0]
	s.say("Incident: %s. It reaches %d versions, among them %s.", i.GetTitle(), len(i.GetAffected()), among(i.GetAffected()))
	return nil
}

func among(nodes []string) string {
	var out []string
	for _, kind := range []string{"view:", "model:", "endpoint:"} {
		for _, n := range nodes {
			if strings.HasPrefix(n, kind) {
				out = append(out, n)
				break
			}
		}
	}
	return strings.Join(out, ", ")
}

// again registers the model anew, so that the hub that goes on serving has a model in force.
func (s *story) again(spec *registryv1.CreateModelVersionRequest, text []byte, endpoint string, world *fulfilment.Scenario) error {
	if err := s.ingestNow(world); err != nil {
		return err
	}
	v, err := s.register(spec, text)
	if err != nil {
		return err
	}
	if _, err := s.bob.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "conveyors run again"}); err != nil {
		return err
	}
	if err := s.endpoint(strings.ReplaceAll(endpoint, "late-risk@v1", refOf(v)), "conveyors run again"); err != nil {
		return err
	}
	return s.until(world, func(d decided) bool { return d.fallback == "" }, "the new version answers")
}

// ingestNow pushes a reading of every warehouse as it was before the conveyors stood still.
func (s *story) ingestNow(world *fulfilment.Scenario) error {
	for _, t := range world.Features() {
		if t.View != "warehouse_load" {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(t.CSV)), "\n")
		now := time.Now().UTC().Add(time.Second).Format(time.RFC3339)
		text := lines[0] + "\n"
		for _, line := range lines[len(lines)-4:] {
			cells := strings.Split(line, ",")
			cells[1] = now
			text += strings.Join(cells, ",") + "\n"
		}
		stream, err := s.ann.features.IngestFile(s.ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(ingestRequest(fulfilment.Table{View: t.View, CSV: []byte(text)}, "running again")); err != nil {
			return err
		}
		if _, err := stream.CloseAndRecv(); err != nil {
			return err
		}
	}
	return s.l.hub.features.Refresh(context.WithoutCancel(s.ctx))
}

func ingestRequest(t fulfilment.Table, batch string) *featurestorev1.IngestFileRequest {
	return &featurestorev1.IngestFileRequest{View: t.View, Format: "csv", BatchId: batch, Chunk: t.CSV}
}

func bind(account, role string) *accessv1.BindRoleRequest {
	return &accessv1.BindRoleRequest{Account: account, Role: role}
}
