package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"waybill/audit"
	accessv1 "waybill/proto/waybill/access/v1"
	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	driftv1 "waybill/proto/waybill/drift/v1"
	lineagev1 "waybill/proto/waybill/lineage/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

// This file holds what both stories do, on synthetic orders and on real deliveries.

// submit registers a model as Ann and says under what it is frozen.
func (s *story) submit(req *registryv1.CreateModelVersionRequest, data []byte) (*registryv1.ModelVersion, error) {
	v, err := s.register(req, data)
	if err == nil {
		s.say("Ann submits %s: frozen under %.19s…", refOf(v), v.GetDigest())
	}
	return v, err
}

// refused has the author try to approve her own model, first without and then with the role for it.
func (s *story) refused(v *registryv1.ModelVersion) error {
	try := func() error {
		_, err := s.ann.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "it is good"})
		if err == nil {
			return errors.New("the author approved her own model")
		}
		return err
	}
	err := try()
	if status.Code(err) == 0 {
		return err
	}
	s.say("Ann tries: %s", status.Convert(err).Message())
	if _, err := s.admin.access.BindRole(s.ctx, &accessv1.BindRoleRequest{Account: "ann", Role: "approver"}); err != nil {
		return err
	}
	err = try()
	if _, ok := status.FromError(err); !ok {
		return err
	}
	s.say("Even with the role of an approver: %s", status.Convert(err).Message())
	_, err = s.admin.access.UnbindRole(s.ctx, &accessv1.UnbindRoleRequest{Account: "ann", Role: "approver"})
	return err
}

// approve has Bob approve a version and waits until it answers.
func (s *story) approve(v *registryv1.ModelVersion, reason string) error {
	if _, err := s.bob.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: reason}); err != nil {
		return err
	}
	s.say("Bob approves %s, because: %s. That binds exactly these bytes, their training set and feature service.", refOf(v), reason)
	return nil
}

// revoke has Bob withdraw his approval and shows that the rules answer at once.
func (s *story) revoke(v *registryv1.ModelVersion, reason string) error {
	start := time.Now()
	if _, err := s.bob.models.RevokeModelVersion(s.ctx, &registryv1.RevokeModelVersionRequest{Model: refOf(v), Reason: reason}); err != nil {
		return err
	}
	s.say("Bob revokes %s, because: %s.", refOf(v), reason)
	return s.until(func(d decided) bool {
		if d.fallback != "" {
			s.say("After %.0f ms the rules answer: %s", ms(time.Since(start)), d.fallback)
		}
		return d.fallback != ""
	}, "the revoked model stops answering")
}

// until asks for decisions until one is as wanted: changes hold within a second.
func (s *story) until(good func(decided) bool, what string) error {
	for start := time.Now(); ; {
		d, err := s.decideOne(s.at, s.order)
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

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// show prints one decision and checks its receipt without the hub's help.
func (s *story) show(d decided) error {
	s.decision = d.id
	res, err := s.admin.decisions.GetDecision(s.ctx, &decisionv1.GetDecisionRequest{DecisionId: d.id})
	if err != nil {
		return err
	}
	w := res.GetDecision()
	s.say("%s", w.GetSentence())
	s.say("Risk of coming late %.3f. What moved it most (+ raises the risk, in log-odds):", w.GetSummary().GetScore())
	s.say("  %s.", effects(w.GetInputs(), 4))
	if n := len(w.GetCandidates()); n > 1 {
		s.say("%d candidates were ranked.", n)
	}
	s.say("Every input has a version and an age, e.g. %s%s.", inputLine(w.GetInputs()), s.clock)
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

// inputLine is an input that was read from a view.
func inputLine(in []*decisionv1.Input) string {
	for _, i := range byEffect(in) {
		if i.GetView() != "" && i.GetSequence() > 0 {
			return fmt.Sprintf("%s = %s from %s, commit %d, %s old", i.GetName(), valueText(i.GetValue()), i.GetView(), i.GetSequence(), ageOf(i.GetAgeSeconds()))
		}
	}
	return "none"
}

// tamper exports the log, flips one bit of a decision in the copy and has it found.
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
	const before = `"action":"`
	at := bytes.Index(data, []byte(before))
	if at < 0 {
		return errors.New("there is no decision in the third bundle")
	}
	at += len(before)
	end := at + bytes.IndexByte(data[at:], '"')
	was := string(data[at:end])
	data[at] ^= 1
	s.say("In it one bit of one decision is changed: the answer %q is now %q.", was, data[at:end])
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	f, err := audit.Verify(s.ctx, audit.DirSource(dir), key, nil)
	if err != nil {
		return err
	}
	if f.OK {
		return errors.New("the flipped bit was not found")
	}
	s.say("Found: %s", finding(f))
	return nil
}

// watch has Otto set up a monitor of the endpoint's inputs.
func (s *story) watch(feature string, limit float64) (name string, err error) {
	name = s.at + "-inputs"
	_, err = s.otto.drift.PutMonitor(s.ctx, &driftv1.PutMonitorRequest{Name: name, Endpoint: s.at, Feature: feature, Statistic: "psi", Limit: limit, MinSample: 200, WindowSeconds: 3600})
	return name, err
}

// noticed evaluates a monitor, demands an alarm and tells of the features that moved most.
func (s *story) noticed(monitor string) error {
	res, err := s.otto.drift.RunMonitor(s.ctx, &driftv1.RunMonitorRequest{Name: monitor})
	if err != nil {
		return err
	}
	if res.GetIncidentId() == "" {
		return fmt.Errorf("the drift was not noticed: %v", res.GetVerdicts())
	}
	verdicts := slices.SortedStableFunc(slices.Values(res.GetVerdicts()), func(a, b *driftv1.Verdict) int {
		switch {
		case a.GetValue() > b.GetValue():
			return -1
		case a.GetValue() < b.GetValue():
			return 1
		}
		return 0
	})
	above := 0
	var most []string
	for _, v := range verdicts {
		if v.GetValue() > v.GetLimit() {
			above++
			if len(most) < 4 {
				most = append(most, fmt.Sprintf("%s %.2f", v.GetFeature(), v.GetValue()))
			}
		}
	}
	s.say("The monitor compares with the training set. PSI above the limit of %g: %d of %d features; %s.", verdicts[0].GetLimit(), above, len(verdicts), strings.Join(most, ", "))
	list, err := s.otto.drift.ListIncidents(s.ctx, &driftv1.ListIncidentsRequest{State: "open"})
	if err != nil {
		return err
	}
	i := list.GetIncidents()[0]
	what := i.GetTitle()
	if n := len(i.GetFeatures()); n > 3 {
		what = fmt.Sprintf("%d features at %s are not what %s was trained on", n, s.at, i.GetModel())
	}
	s.say("Incident: %s. It reaches %d versions, among them %s.", what, len(i.GetAffected()), among(i.GetAffected()))
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

// verified has the hub check its whole log.
func (s *story) verified(began time.Time) error {
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
