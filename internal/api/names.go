package api

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"waybill"
	"waybill/decision"
	"waybill/drift"
	"waybill/featurestore"
	"waybill/lineage"
	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	driftv1 "waybill/proto/waybill/drift/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	lineagev1 "waybill/proto/waybill/lineage/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

// naming is what the authorisation option of an rpc cannot say, because the names are in a document, behind an id or in
// the answer. The option then asks for the whole kind ("endpoint/*"), and a rule about a single name would not hold; so
// every name is asked about as well.
type naming struct {
	// ask returns the resources that a request is about. The caller needs the rpc's right on each; an error refuses.
	ask func(ctx context.Context, c caller, m proto.Message) ([]string, error)
	// prune takes out of an answer what the caller may not see. A page may then be shorter than was asked for.
	prune func(may func(resource string) bool, m proto.Message)
}

// on makes a function of messages from one of a certain message. Another message is a defect, and refused.
func on[M proto.Message](f func(ctx context.Context, c caller, m M) ([]string, error)) func(context.Context, caller, proto.Message) ([]string, error) {
	return func(ctx context.Context, c caller, m proto.Message) ([]string, error) {
		own, ok := m.(M)
		if !ok {
			return nil, waybill.Errorf(waybill.Internal, "names of a message of another rpc")
		}
		return f(ctx, c, own)
	}
}

// keep makes a prune function: items of an answer stay when the caller may see what resource says of each.
func keep[M proto.Message, T any](items func(M) *[]T, resource func(T) string) func(func(string) bool, proto.Message) {
	return func(may func(string) bool, m proto.Message) {
		own, ok := m.(M)
		if !ok {
			return
		}
		list := items(own)
		*list = slices.DeleteFunc(*list, func(t T) bool { return !may(resource(t)) })
	}
}

// nameOf cuts a version off: rights are given on names.
func nameOf(kind, ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	if name == "" || strings.ContainsAny(name, "*/") {
		name = "?"
	}
	return kind + "/" + name
}

// nodeResource is the resource that a node of the lineage, or the subject of a leaf, belongs to. What is no node asks for
// all views, as listing nodes would, and is then refused for what it is; a kind that has no resource asks for everything.
func nodeResource(node string) string {
	kind, name, _ := strings.Cut(node, ":")
	switch kind {
	case "view", "service", "model", "endpoint":
		return nameOf(kind, name)
	case "commit": // commit:view@v1/12
		view, _, _ := strings.Cut(name, "/")
		return nameOf("view", view)
	case "decision":
		return nameOf("decision", strings.ToLower(name))
	case "trainingset":
		return "service/*"
	case "approval":
		return "model/*"
	case "incident", "monitor":
		return "endpoint/*"
	case "run", "dataset", "entity":
		return "view/*"
	case "policy":
		return "policy"
	case "actor":
		return "log" // the log says who did what
	}
	if lineage.Node(node).Check("node") != nil {
		return "view/*"
	}
	return "*"
}

// hasName tells resources that rules can name, so that an answer that shows many things leaves some of them out.
func hasName(node string) bool {
	kind, _, _ := strings.Cut(node, ":")
	return slices.Contains([]string{"view", "service", "model", "endpoint", "commit", "decision", "trainingset", "incident", "monitor"}, kind)
}

// naming lists the rpcs whose names are not in their option.
func (s *Server) naming() map[string]naming {
	definitions := func(yaml string) ([]string, error) {
		d, err := featurestore.ParseDefinitions([]byte(yaml))
		var out []string
		for i := range d.Views {
			out = append(out, nameOf("view", d.Views[i].Name))
		}
		for i := range d.Services {
			out = append(out, nameOf("service", d.Services[i].Name))
		}
		return out, err
	}
	trainingSet := func(ctx context.Context, c caller, digest string) ([]string, error) {
		t, err := s.features.TrainingSet(ctx, c.actor.Tenant, digest)
		return []string{nameOf("service", t.Service.Name)}, err
	}
	build := func(ctx context.Context, c caller, text string) ([]string, error) {
		id, err := waybill.ParseID("build_id", text)
		if err != nil {
			return nil, err
		}
		b, err := s.features.TrainingSetBuild(ctx, c.actor.Tenant, id)
		return []string{nameOf("service", b.Service.Name)}, err
	}
	names := map[string]naming{
		decisionv1.DecisionService_PublishEndpoint_FullMethodName: {ask: on(func(_ context.Context, _ caller, m *decisionv1.PublishEndpointRequest) ([]string, error) {
			d, err := decision.Parse([]byte(m.GetYaml()))
			return []string{nameOf("endpoint", d.Name)}, err
		})},
		decisionv1.DecisionService_ListEndpoints_FullMethodName: {prune: keep(func(m *decisionv1.ListEndpointsResponse) *[]*decisionv1.Endpoint { return &m.Endpoints },
			func(e *decisionv1.Endpoint) string { return nameOf("endpoint", e.GetName()) })},
		decisionv1.DecisionService_SearchDecisions_FullMethodName: {prune: keep(func(m *decisionv1.SearchDecisionsResponse) *[]*decisionv1.DecisionSummary { return &m.Decisions },
			func(d *decisionv1.DecisionSummary) string { return nameOf("decision", d.GetDecisionId()) })},

		featurestorev1.FeatureStoreService_PlanDefinitions_FullMethodName: {ask: on(func(_ context.Context, _ caller, m *featurestorev1.PlanDefinitionsRequest) ([]string, error) {
			return definitions(m.GetYaml())
		})},
		featurestorev1.FeatureStoreService_ApplyDefinitions_FullMethodName: {ask: on(func(_ context.Context, _ caller, m *featurestorev1.ApplyDefinitionsRequest) ([]string, error) {
			return definitions(m.GetYaml())
		})},
		featurestorev1.FeatureStoreService_ListViews_FullMethodName: {prune: keep(func(m *featurestorev1.ListViewsResponse) *[]*featurestorev1.View { return &m.Views },
			func(v *featurestorev1.View) string { return nameOf("view", v.GetName()) })},
		featurestorev1.FeatureStoreService_ListServices_FullMethodName: {prune: keep(func(m *featurestorev1.ListServicesResponse) *[]*featurestorev1.Service { return &m.Services },
			func(v *featurestorev1.Service) string { return nameOf("service", v.GetName()) })},
		featurestorev1.FeatureStoreService_ListTrainingSets_FullMethodName: {prune: keep(func(m *featurestorev1.ListTrainingSetsResponse) *[]*featurestorev1.TrainingSet {
			return &m.TrainingSets
		},
			func(t *featurestorev1.TrainingSet) string { return nameOf("service", t.GetService()) })},
		featurestorev1.FeatureStoreService_GetTrainingSet_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *featurestorev1.GetTrainingSetRequest) ([]string, error) {
			return trainingSet(ctx, c, m.GetDigest())
		})},
		featurestorev1.FeatureStoreService_RebuildTrainingSet_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *featurestorev1.RebuildTrainingSetRequest) ([]string, error) {
			return trainingSet(ctx, c, m.GetDigest())
		})},
		featurestorev1.FeatureStoreService_AblateTrainingSet_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *featurestorev1.AblateTrainingSetRequest) ([]string, error) {
			return trainingSet(ctx, c, m.GetDigest())
		})},
		featurestorev1.FeatureStoreService_DownloadTrainingSet_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *featurestorev1.DownloadTrainingSetRequest) ([]string, error) {
			return trainingSet(ctx, c, m.GetDigest())
		})},
		featurestorev1.FeatureStoreService_GetTrainingSetBuild_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *featurestorev1.GetTrainingSetBuildRequest) ([]string, error) {
			return build(ctx, c, m.GetBuildId())
		})},
		featurestorev1.FeatureStoreService_CancelTrainingSetBuild_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *featurestorev1.CancelTrainingSetBuildRequest) ([]string, error) {
			return build(ctx, c, m.GetBuildId())
		})},
		featurestorev1.FeatureStoreService_ListTrainingSetBuilds_FullMethodName: {prune: keep(func(m *featurestorev1.ListTrainingSetBuildsResponse) *[]*featurestorev1.TrainingSetBuild {
			return &m.Builds
		},
			func(b *featurestorev1.TrainingSetBuild) string { return nameOf("service", b.GetService()) })},

		registryv1.RegistryService_ListModels_FullMethodName: {prune: keep(func(m *registryv1.ListModelsResponse) *[]*registryv1.Model { return &m.Models },
			func(v *registryv1.Model) string { return nameOf("model", v.GetName()) })},
		registryv1.RegistryService_ListModelVersions_FullMethodName: {
			ask: on(func(_ context.Context, _ caller, m *registryv1.ListModelVersionsRequest) ([]string, error) {
				if m.GetModel() == "" {
					return nil, nil
				}
				return []string{nameOf("model", m.GetModel())}, nil
			}),
			prune: keep(func(m *registryv1.ListModelVersionsResponse) *[]*registryv1.ModelVersion { return &m.Versions },
				func(v *registryv1.ModelVersion) string { return nameOf("model", v.GetModel()) }),
		},

		// A monitor that is there already belongs to the endpoint it watches, which may be another than the one asked for.
		driftv1.DriftService_PutMonitor_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *driftv1.PutMonitorRequest) ([]string, error) {
			return s.monitored(ctx, c, m.GetName())
		})},
		driftv1.DriftService_RunMonitor_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *driftv1.RunMonitorRequest) ([]string, error) {
			return s.monitored(ctx, c, m.GetName())
		})},
		driftv1.DriftService_ResolveIncident_FullMethodName: {ask: on(func(ctx context.Context, c caller, m *driftv1.ResolveIncidentRequest) ([]string, error) {
			return s.incident(ctx, c, m.GetIncidentId())
		})},
		driftv1.DriftService_ListMonitors_FullMethodName: {prune: keep(func(m *driftv1.ListMonitorsResponse) *[]*driftv1.Monitor { return &m.Monitors },
			func(v *driftv1.Monitor) string { return nameOf("endpoint", v.GetEndpoint()) })},
		driftv1.DriftService_ListIncidents_FullMethodName: {prune: keep(func(m *driftv1.ListIncidentsResponse) *[]*driftv1.Incident { return &m.Incidents },
			func(v *driftv1.Incident) string { return nameOf("endpoint", v.GetEndpoint()) })},

		// The leaf of a decision tells as much as the decision.
		auditv1.AuditService_GetDecisionProof_FullMethodName: {ask: on(func(_ context.Context, _ caller, m *auditv1.GetDecisionProofRequest) ([]string, error) {
			return []string{nameOf("decision", strings.ToLower(m.GetDecisionId()))}, nil
		})},
		auditv1.AuditService_ListEntries_FullMethodName: {prune: pruneEntries},
		auditv1.AuditService_VerifyLog_FullMethodName: {ask: on(func(ctx context.Context, c caller, _ *auditv1.VerifyLogRequest) ([]string, error) {
			return nil, s.mustBeHome(ctx, c, "this verification reads the log of every tenant; only the hub's own tenant may start it. Prove your own decisions with /v1/decisions/{decision_id}/proof")
		})},

		lineagev1.LineageService_GetLineage_FullMethodName: {
			ask: on(func(ctx context.Context, c caller, m *lineagev1.GetLineageRequest) ([]string, error) {
				if digest, found := strings.CutPrefix(m.GetNode(), "trainingset:"); found && lineage.Node(m.GetNode()).Check("node") == nil {
					return trainingSet(ctx, c, digest)
				}
				return nil, nil
			}),
			prune: pruneLineage,
		},
	}
	feastNaming(names)
	return names
}

// monitored is the endpoint that the monitor of a name watches; nothing when there is none, which the handler says.
func (s *Server) monitored(ctx context.Context, c caller, name string) ([]string, error) {
	page := drift.Page{Size: maxPage}
	for {
		list, next, err := s.drift.Monitors(ctx, c.actor.Tenant, page)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if m.Name == name {
				return []string{nameOf("endpoint", m.Endpoint)}, nil
			}
		}
		if page.Token = next; next == "" {
			return nil, nil
		}
	}
}

// incident is the endpoint that an open incident is about; nothing when there is none, which the handler says.
func (s *Server) incident(ctx context.Context, c caller, text string) ([]string, error) {
	id, err := waybill.ParseID("incident_id", text)
	if err != nil {
		return nil, err
	}
	page := drift.Page{Size: maxPage}
	for {
		list, next, err := s.drift.Incidents(ctx, c.actor.Tenant, "open", page)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if list[i].ID == id {
				return []string{nameOf("endpoint", list[i].Endpoint)}, nil
			}
		}
		if page.Token = next; next == "" {
			return nil, nil
		}
	}
}

// pruneEntries takes out the leaves about named things that the caller may not read. Leaves about policy, tokens and
// denials have no other right than the log's.
func pruneEntries(may func(string) bool, m proto.Message) {
	own, ok := m.(*auditv1.ListEntriesResponse)
	if !ok {
		return
	}
	own.Entries = slices.DeleteFunc(own.Entries, func(e *auditv1.Entry) bool {
		var leaf struct {
			T       string `json:"t"`
			ID      string `json:"id"`
			Subject string `json:"subject"`
		}
		if json.Unmarshal([]byte(e.GetLeaf()), &leaf) != nil {
			return true // nobody can tell what it is about
		}
		if leaf.T == "decision" {
			leaf.Subject = "decision:" + leaf.ID
		}
		return hasName(leaf.Subject) && !may(nodeResource(leaf.Subject))
	})
}

// pruneLineage takes out the nodes that the caller may not read, and the edges from and to them.
func pruneLineage(may func(string) bool, m proto.Message) {
	own, ok := m.(*lineagev1.GetLineageResponse)
	if !ok {
		return
	}
	hidden := map[string]bool{}
	own.Nodes = slices.DeleteFunc(own.Nodes, func(n *lineagev1.Node) bool {
		hide := hasName(n.GetId()) && !may(nodeResource(n.GetId()))
		if hide {
			hidden[n.GetId()] = true
		}
		return hide
	})
	own.Edges = slices.DeleteFunc(own.Edges, func(e *lineagev1.Edge) bool { return hidden[e.GetFrom()] || hidden[e.GetTo()] })
}

// authoriseNames asks for every name that a request is about.
func (s *Server) authoriseNames(ctx context.Context, c caller, method string, req any) error {
	n, ok := s.named[method]
	if !ok || n.ask == nil {
		return nil
	}
	m, ok := req.(proto.Message)
	if !ok {
		return waybill.Errorf(waybill.Denied, "nobody may call %s", method)
	}
	resources, err := n.ask(ctx, c, m)
	if err != nil {
		return err
	}
	action := s.rules[method].action
	for _, r := range resources {
		if err := s.access.Check(c.actor, c.grant, r, action); err != nil {
			return err
		}
	}
	return nil
}

// prune takes out of an answer what the caller may not read.
func (s *Server) prune(c caller, method string, res any) {
	n, ok := s.named[method]
	if !ok || n.prune == nil {
		return
	}
	if m, ok := res.(proto.Message); ok {
		action := s.rules[method].action
		n.prune(func(resource string) bool { return s.access.Allowed(c.actor, resource, action) }, m)
	}
}
