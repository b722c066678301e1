package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill/examples/fulfilment"
	"waybill/examples/fulfilment/gbdt"
	accessv1 "waybill/proto/waybill/access/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

func newDemo(env environment) *cobra.Command {
	var f localFlags
	var deliveries string
	var serve bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Tell the whole story, on synthetic orders or on a file of real deliveries",
		Long: `Starts a hub in a folder of its own and plays one story on it, through the same
API that everybody uses: features, a training set, a model that somebody else
must approve, decisions with reasons and proofs, a tampered log that is found
out, drift, a revocation.

The orders, places and carriers are SYNTHETIC: a seeded generator invents them.
With --deliveries the same is done with real deliveries, from the open file "SCMS
Delivery History" (CSV, also as .xz). In a terminal the hub goes on serving
afterwards; otherwise the command ends.`,
		Example: "  waybill demo\n  waybill demo --deliveries scms_deliveries.csv.xz",
		Args:    exact(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			infoFile, file, err := absolute(f.info, deliveries)
			if err != nil {
				return err
			}
			var ds fulfilment.Deliveries
			if file != "" { // before anything is started: a wrong file is said at once
				if ds, err = readDeliveries(file); err != nil {
					return err
				}
			}
			if f.data == "" {
				dir, err := os.MkdirTemp("", "waybill-demo-")
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
				if err := os.Chmod(dir, 0o755); err != nil { // the account that runs Postgres passes through it
					return err
				}
				f.data = filepath.Join(dir, "hub")
			} else if _, err := os.Stat(filepath.Join(f.data, "info.json")); err == nil {
				return usageError{fmt.Errorf("%s holds a hub already; the demo begins with an empty one: give another folder or none", f.data)}
			}
			l, err := openLocal(ctx, f.config(env))
			if err != nil {
				return err
			}
			run, stop := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() { done <- l.hub.run(run, l.at, drainLocal) }()
			s := &story{ctx: ctx, l: l, out: cmd.OutOrStdout(), env: env}
			tell := s.synthetic
			if file != "" {
				tell = func() error { return s.deliveries(ds) }
			}
			err = errors.Join(tell(), s.close())
			if err == nil {
				l.info.DecisionID = s.decision
				err = s.ending(infoFile, serve || env.interactive())
			}
			if err == nil && (serve || env.interactive()) {
				select {
				case <-ctx.Done():
				case err = <-done:
					done <- nil
				}
			}
			stop()
			return joinClose(errors.Join(err, <-done), l)
		},
	}
	f.bind(cmd, "")
	cmd.Flags().Lookup("data").Usage = "folder for everything the hub keeps; by default one that is removed at the end"
	cmd.Flags().StringVar(&deliveries, "deliveries", "", "file of real deliveries instead of the synthetic orders")
	cmd.Flags().BoolVar(&serve, "serve", false, "go on serving at the end, also without a terminal")
	return cmd
}

// absolute resolves the two paths before the S3 gateway changes the working directory.
func absolute(a, b string) (string, string, error) {
	var err error
	for _, p := range []*string{&a, &b} {
		if *p != "" {
			if *p, err = filepath.Abs(*p); err != nil {
				return "", "", err
			}
		}
	}
	return a, b, nil
}

// story tells what happens while it makes it happen.
type story struct {
	ctx      context.Context //nolint:containedctx // one run of one command
	l        *local
	out      io.Writer
	env      environment
	chapter  int
	admin    *client
	ann      *client // data scientist
	bob      *client // approver
	otto     *client // operator
	shop     *client // the order service
	decision string  // the one that was shown
	clients  []*client
	at       string         // the endpoint of the story
	order    map[string]any // a request that it takes
	clock    string         // a remark on the ages of inputs
}

func (s *story) close() error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

func (s *story) head(title string) {
	s.chapter++
	fmt.Fprintf(s.out, "\n%d. %s\n", s.chapter, title)
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, "   "+format+"\n", args...) }

// people makes the accounts of the story and connects as each.
func (s *story) people() error {
	connect := func(token string) (*client, error) {
		c, err := dial(s.l.info.URL, s.l.info.GRPC, token)
		if err == nil {
			s.clients = append(s.clients, c)
		}
		return c, err
	}
	var err error
	if s.admin, err = connect(s.l.info.Token); err != nil {
		return err
	}
	for _, p := range []struct {
		name, kind, title string
		roles             []string
		into              **client
	}{
		{"ann", "person", "Ann, data scientist", []string{"data-scientist"}, &s.ann},
		{"bob", "person", "Bob, model risk", []string{"approver"}, &s.bob},
		{"otto", "person", "Otto, operations", []string{"operator"}, &s.otto},
		{"shop", "service", "the order service", []string{"serving"}, &s.shop},
	} {
		if _, err := s.admin.access.CreateAccount(s.ctx, &accessv1.CreateAccountRequest{Account: p.name, Kind: p.kind, DisplayName: p.title, Roles: p.roles}); err != nil {
			return err
		}
		t, err := s.admin.access.IssueToken(s.ctx, &accessv1.IssueTokenRequest{Account: p.name, TtlSeconds: 24 * 3600})
		if err != nil {
			return err
		}
		if *p.into, err = connect(t.GetSecret()); err != nil {
			return err
		}
	}
	return nil
}

// publish applies definitions as Ann.
func (s *story) publish(name string) error {
	text, err := fulfilment.Definition(name)
	if err != nil {
		return err
	}
	res, err := s.ann.features.ApplyDefinitions(s.ctx, &featurestorev1.ApplyDefinitionsRequest{Yaml: text, Reason: "the demo begins"})
	if err != nil {
		return err
	}
	var refs []string
	for _, c := range res.GetChanges() {
		refs = append(refs, c.GetRef())
	}
	s.say("Ann publishes %s.", strings.Join(refs, ", "))
	return nil
}

// ingest sends one table as CSV.
func (s *story) ingest(t fulfilment.Table, batch string) error {
	stream, err := s.ann.features.IngestFile(s.ctx)
	if err != nil {
		return err
	}
	for at := 0; at < len(t.CSV); at += sendChunk {
		m := &featurestorev1.IngestFileRequest{Chunk: t.CSV[at:min(len(t.CSV), at+sendChunk)]}
		if at == 0 {
			m.View, m.Format, m.BatchId = t.View, "csv", batch
		}
		if err := stream.Send(m); errors.Is(err, io.EOF) {
			break // the hub has answered already: CloseAndRecv says what
		} else if err != nil {
			return err
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// trainingSet joins a spine as Ann, with everything that is known now.
func (s *story) trainingSet(name, service string, spine fulfilment.Table) (*featurestorev1.TrainingSet, error) {
	stream, err := s.ann.features.CreateTrainingSet(s.ctx)
	if err != nil {
		return nil, err
	}
	for at := 0; at < len(spine.CSV); at += sendChunk {
		m := &featurestorev1.CreateTrainingSetRequest{Chunk: spine.CSV[at:min(len(spine.CSV), at+sendChunk)]}
		if at == 0 {
			m.Name, m.Service, m.Format, m.TimeColumn, m.LabelColumn, m.Cutoff = name, service, "csv", "event_time", "late", timestamppb.Now()
		}
		if err := stream.Send(m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	res, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	set := res.GetTrainingSet()
	s.say("Training set %.12s…: %d rows × %d columns, %.1f MB, each value as it was known at its row's time.", set.GetDigest(), set.GetRows(), len(set.GetColumns()), float64(set.GetSizeBytes())/1e6)
	again, err := s.ann.features.RebuildTrainingSet(s.ctx, &featurestorev1.RebuildTrainingSetRequest{Digest: set.GetDigest()})
	if err != nil {
		return nil, err
	}
	if !again.GetEqual() {
		return nil, errors.New("the training set came out differently: " + again.GetExplanation())
	}
	s.say("Made again from its recipe: the same bytes, the same SHA-256.")
	return set, nil
}

// trained is a model that was fitted to a training set.
type trained struct {
	text    []byte
	names   []string // columns of the training set
	columns [][]float64
	labels  []float64
	held    int       // the last rows, which the AUC is measured on
	scores  []float64 // of the held-out rows, by a model that did not see them
	auc     float64
	took    time.Duration
}

// late is the share of rows with the label.
func (t trained) late() (share float64) {
	for _, y := range t.labels {
		share += y / float64(len(t.labels))
	}
	return share
}

// column is a column of the training set by name, nil when there is none.
func (t trained) column(name string) []float64 {
	if i := slices.Index(t.names, name); i >= 0 {
		return t.columns[i]
	}
	return nil
}

// train fits trees to the service's outputs in a training set: once without the last fifth of the rows, to say how good
// the recipe is on rows that it has not seen (the spine is in the order of time where that matters), then with all rows,
// and that is the model.
func (s *story) train(digest, service string, c gbdt.Config) (out trained, err error) {
	sv, err := s.ann.features.GetService(s.ctx, &featurestorev1.GetServiceRequest{Service: service})
	if err != nil {
		return out, err
	}
	if out.names, out.columns, err = s.l.hub.features.TrainingColumns(s.ctx, "demo", digest); err != nil {
		return out, err
	}
	var use []string
	var xs [][]float64
	for _, o := range sv.GetService().GetOutputs() {
		if x := out.column(o.GetName()); x != nil {
			use, xs = append(use, o.GetName()), append(xs, x)
		}
	}
	if out.labels = out.column("late"); out.labels == nil {
		return out, errors.New("the training set has no label")
	}
	start := time.Now()
	cut := len(out.labels) * 4 / 5
	out.held = len(out.labels) - cut
	head := make([][]float64, len(xs))
	for i := range xs {
		head[i] = xs[i][:cut]
	}
	bar := progress(s.env, "train")
	c.Seed, c.Progress = 1, func(done, of int) { bar(int64(done), int64(of)) }
	tried, err := gbdt.Train(head, use, out.labels[:cut], c)
	if err != nil {
		return out, err
	}
	out.scores = make([]float64, out.held)
	x := make([]float64, len(xs))
	for i := range out.scores {
		for f := range xs {
			x[f] = xs[f][cut+i]
		}
		out.scores[i] = tried.Predict(x)
	}
	out.auc = gbdt.AUC(out.scores, out.labels[cut:])
	model, err := gbdt.Train(xs, use, out.labels, c)
	if err != nil {
		return out, err
	}
	out.took = time.Since(start)
	var text bytes.Buffer
	err = model.WriteText(&text)
	out.text = text.Bytes()
	return out, err
}

// register makes a version as Ann, uploads its file and submits it.
func (s *story) register(req *registryv1.CreateModelVersionRequest, data []byte) (*registryv1.ModelVersion, error) {
	v, err := s.ann.models.CreateModelVersion(s.ctx, req)
	if err != nil {
		return nil, err
	}
	ref := refOf(v.GetVersion())
	stream, err := s.ann.models.UploadArtifact(s.ctx)
	if err != nil {
		return nil, err
	}
	for at := 0; at < len(data); at += sendChunk {
		if err := stream.Send(&registryv1.UploadArtifactRequest{Model: ref, Path: req.GetEntrypoint(), Chunk: data[at:min(len(data), at+sendChunk)]}); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return nil, err
	}
	done, err := s.ann.models.SubmitModelVersion(s.ctx, &registryv1.SubmitModelVersionRequest{Model: ref})
	return done.GetVersion(), err
}

func refOf(v *registryv1.ModelVersion) string {
	return fmt.Sprintf("%s@v%d", v.GetModel(), v.GetVersion())
}

// rules registers the incumbent rule set and has it approved.
func (s *story) rules(model, document string) error {
	text, err := fulfilment.Definition(document)
	if err != nil {
		return err
	}
	v, err := s.register(&registryv1.CreateModelVersionRequest{Model: model, Format: "rules", Entrypoint: "rules.yaml", Automation: "solely_automated",
		Description: "the incumbent rule engine", IntendedUse: "answers when no approved model can"}, []byte(text))
	if err != nil {
		return err
	}
	_, err = s.bob.models.ApproveModelVersion(s.ctx, &registryv1.ApproveModelVersionRequest{Model: refOf(v), Digest: v.GetDigest(), Reason: "has decided for years"})
	if err == nil {
		s.say("The rule engine of old is registered as %s and approved: it answers whenever no approved model can.", refOf(v))
	}
	return err
}

func (s *story) endpoint(text, reason string) error {
	res, err := s.otto.decisions.PublishEndpoint(s.ctx, &decisionv1.PublishEndpointRequest{Yaml: text, Reason: reason})
	if err != nil {
		return err
	}
	e := res.GetEndpoint()
	s.at = e.GetName()
	s.say("Otto publishes the endpoint %s@v%d. Who answers now: %s", e.GetName(), e.GetRevision(), e.GetServing())
	return nil
}

// decided is one answer of the endpoint.
type decided struct {
	id, action, fallback string
	score                float64
	took                 time.Duration
	answer               *structpb.Struct
}

// callers is how many calls the order service makes at once.
const callers = 16

// decide sends requests in parallel and keeps the order.
func (s *story) decide(endpoint string, requests []map[string]any) ([]decided, error) {
	out, errs := make([]decided, len(requests)), make([]error, callers)
	bar := progress(s.env, "decide")
	var done int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := w; i < len(requests) && errs[w] == nil; i += callers {
				out[i], errs[w] = s.decideOne(endpoint, requests[i])
				mu.Lock()
				done++
				bar(done, int64(len(requests)))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

func (s *story) decideOne(endpoint string, request map[string]any) (d decided, err error) {
	body, err := structpb.NewStruct(request)
	if err != nil {
		return d, err
	}
	start := time.Now()
	res, err := s.shop.decisions.Decide(s.ctx, &decisionv1.DecideRequest{Endpoint: endpoint, Request: body})
	if err != nil {
		return d, err
	}
	d.took, d.answer = time.Since(start), res.GetAnswer()
	f := res.GetAnswer().GetFields()
	d.id = f["decision_id"].GetStringValue()
	d.score = f["explain"].GetStructValue().GetFields()["score"].GetNumberValue()
	if f["model"].GetStringValue() == "" {
		d.fallback = f["fallback"].GetStructValue().GetFields()["reason"].GetStringValue()
		if d.fallback == "" {
			d.fallback = "blocked"
		}
	}
	if d.action = f["advice"].GetStringValue(); d.action == "" {
		d.action = strings.Join([]string{f["warehouse"].GetStringValue(), f["carrier"].GetStringValue(), f["service_level"].GetStringValue()}, "/")
	}
	return d, nil
}

// outcomes reports what became of decisions.
func (s *story) outcome(id string, late bool, at time.Time) error {
	_, err := s.shop.decisions.ReportOutcome(s.ctx, &decisionv1.ReportOutcomeRequest{DecisionId: id, Name: "late", Value: structpb.NewBoolValue(late), EventTime: timestamppb.New(at)})
	return err
}

func quantile(ds []decided, q float64) time.Duration {
	took := make([]time.Duration, len(ds))
	for i, d := range ds {
		took[i] = d.took
	}
	slices.Sort(took)
	return took[int(q*float64(len(took)-1))]
}

func fallbacks(ds []decided) (n int) {
	for _, d := range ds {
		if d.fallback != "" {
			n++
		}
	}
	return n
}

// ending says where to look, how another terminal finds the hub, and how to ask the endpoint of the story.
func (s *story) ending(infoFile string, serving bool) error {
	if infoFile != "" {
		if err := writeInfo(infoFile, s.l.info); err != nil {
			return err
		}
	}
	if !serving {
		fmt.Fprintf(s.out, "\nThat was the story. In a terminal the hub would go on serving now.\n")
		return nil
	}
	body, err := json.Marshal(s.order)
	if err != nil {
		return err
	}
	i := s.l.info
	fmt.Fprintf(s.out, `
The hub goes on serving. Open the decision of the story (the link logs you in):

  %s/decisions/%s#token=%s

In another terminal, tell the command line and other programs where the hub is:

  export WAYBILL_URL=%s WAYBILL_GRPC=%s
  export WAYBILL_TOKEN=%s

Then look around (waybill decision show %s), or ask for a decision yourself:

  curl -s "$WAYBILL_URL/v1/decide/%s" -H "Authorization: Bearer $WAYBILL_TOKEN" -d %s

Stop with Ctrl-C.
`, i.URL, s.decision, i.Token, i.URL, i.GRPC, i.Token, s.decision, s.at, shellWord(string(body)))
	return nil
}

// shellWord quotes a text so that a shell takes it as it is.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
