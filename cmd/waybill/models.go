package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	decisionv1 "waybill/proto/waybill/decision/v1"
	driftv1 "waybill/proto/waybill/drift/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

func newModel(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Register, submit, approve and revoke models", Args: exact(),
		Long: "A model version is a draft until it is submitted; then nothing in it changes.\nIt serves once somebody who had no hand in it approves it.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var n registryv1.CreateModelVersionRequest
	var files []string
	var metrics map[string]string
	register := &cobra.Command{
		Use: "register MODEL -f FILE --format FORMAT", Short: "Make a version, upload its files and submit it", Args: exact("MODEL"),
		Example: "  waybill model register late-risk -f model.txt --format lightgbm --service route-risk@v1 --training-set 3f…",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if len(files) == 0 {
				return usageError{errors.New("give at least one file with -f; the first one is what is scored")}
			}
			n.Model, n.Entrypoint = args[0], filepath.Base(files[0])
			n.Metrics = map[string]float64{}
			for k, v := range metrics {
				var x float64
				if _, err := fmt.Sscan(v, &x); err != nil {
					return usageError{fmt.Errorf("--metric %s=%s is not a number", k, v)}
				}
				n.Metrics[k] = x
			}
			res, err := c.models.CreateModelVersion(ctx, &n)
			if err != nil {
				return err
			}
			ref := fmt.Sprintf("%s@v%d", res.GetVersion().GetModel(), res.GetVersion().GetVersion())
			for _, f := range files {
				if err := upload(ctx, cl.env, c, ref, f); err != nil {
					return fmt.Errorf("%s stays a draft: upload %s: %w", ref, f, err)
				}
			}
			done, err := c.models.SubmitModelVersion(ctx, &registryv1.SubmitModelVersionRequest{Model: ref})
			if err != nil {
				return err
			}
			return p.say(done, "%s is submitted: %s", ref, done.GetVersion().GetDigest())
		}),
	}
	fl := register.Flags()
	fl.StringArrayVarP(&files, "file", "f", nil, "file to upload (repeatable); the first one is what is scored")
	fl.StringVar(&n.Format, "format", "lightgbm", "lightgbm, xgboost or rules")
	fl.StringVar(&n.FeatureService, "service", "", "feature service version, e.g. route-risk@v1")
	fl.StringVar(&n.TrainingSet, "training-set", "", "digest of the training set")
	fl.StringVar(&n.Description, "description", "", "what it is")
	fl.StringVar(&n.IntendedUse, "intended-use", "", "what it is for")
	fl.StringVar(&n.Automation, "automation", "advisory", "advisory, human_in_loop or solely_automated")
	fl.StringToStringVar(&metrics, "metric", nil, "name=number (repeatable)")
	list := &cobra.Command{Use: "list", Short: "List models", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.models.ListModels(ctx, &registryv1.ListModelsRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, m := range res.GetModels() {
				rows = append(rows, []any{m.GetName(), m.GetVersions(), m.GetLatest().GetState(), m.GetLatest().GetAuthor(), m.GetLatest().GetNeeds()})
			}
			return p.table(res, []string{"MODEL", "VERSIONS", "LATEST IS", "AUTHOR", "NEEDS"}, rows)
		})}
	show := &cobra.Command{Use: "show MODEL", Short: "Show a version: name, name@v2 or name@champion", Args: exact("MODEL"), ValidArgsFunction: cl.complete(modelVersions),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.models.GetModelVersion(ctx, &registryv1.GetModelVersionRequest{Model: args[0]})
			if err != nil {
				return err
			}
			if p.json {
				return p.message(res)
			}
			return showModel(p.cmd.OutOrStdout(), res.GetVersion())
		})}
	var reason, digest string
	approve := &cobra.Command{Use: "approve MODEL@vN --digest DIGEST --reason WHY", Short: "Consent to a version that somebody else made", Args: exact("MODEL@vN"), ValidArgsFunction: cl.complete(modelVersions),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if err := why(reason); err != nil {
				return err
			}
			res, err := c.models.ApproveModelVersion(ctx, &registryv1.ApproveModelVersionRequest{Model: args[0], Digest: digest, Reason: reason})
			if err != nil {
				return err
			}
			return p.say(res, "%s is approved", args[0])
		})}
	approve.Flags().StringVar(&digest, "digest", "", "the digest that you looked at")
	reject := &cobra.Command{Use: "reject MODEL@vN --reason WHY", Short: "Refuse a submitted version", Args: exact("MODEL@vN"), ValidArgsFunction: cl.complete(modelVersions),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if err := why(reason); err != nil {
				return err
			}
			res, err := c.models.RejectModelVersion(ctx, &registryv1.RejectModelVersionRequest{Model: args[0], Reason: reason})
			if err != nil {
				return err
			}
			return p.say(res, "%s is rejected", args[0])
		})}
	revoke := &cobra.Command{Use: "revoke MODEL@vN --reason WHY", Short: "Withdraw an approval; endpoints stop using it within a second", Args: exact("MODEL@vN"), ValidArgsFunction: cl.complete(modelVersions),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if err := why(reason); err != nil {
				return err
			}
			res, err := c.models.RevokeModelVersion(ctx, &registryv1.RevokeModelVersionRequest{Model: args[0], Reason: reason})
			if err != nil {
				return err
			}
			return p.say(res, "%s is revoked", args[0])
		})}
	for _, c := range []*cobra.Command{approve, reject, revoke} {
		c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	}
	var version int32
	alias := &cobra.Command{Use: "alias MODEL ALIAS --version N", Short: "Point an alias such as champion at a version", Args: exact("MODEL", "ALIAS"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.models.SetAlias(ctx, &registryv1.SetAliasRequest{Model: args[0], Alias: args[1], Version: version})
			if err != nil {
				return err
			}
			return p.say(res, "%s@%s is version %d", args[0], args[1], version)
		})}
	alias.Flags().Int32Var(&version, "version", 0, "version number")
	var out string
	download := &cobra.Command{Use: "download MODEL@vN PATH -o FILE", Short: "Download one file; its digest is checked on the way", Args: exact("MODEL@vN", "PATH"), ValidArgsFunction: cl.complete(modelVersions),
		RunE: cl.call(func(ctx context.Context, c *client, _ printer, args []string) error {
			stream, err := c.models.DownloadArtifact(ctx, &registryv1.DownloadArtifactRequest{Model: args[0], Path: args[1]})
			if err != nil {
				return err
			}
			return receiveFile(out, func() ([]byte, error) {
				m, err := stream.Recv()
				return m.GetChunk(), err
			})
		})}
	download.Flags().StringVarP(&out, "output", "o", "", "file to write")
	cmd.AddCommand(register, list, show, approve, reject, revoke, alias, download)
	return cmd
}

// upload streams one file into a draft version.
func upload(ctx context.Context, env environment, c *client, ref, file string) error {
	stream, err := c.models.UploadArtifact(ctx)
	if err != nil {
		return err
	}
	err = sendFile(env, file, func(b []byte, first bool, _ int64) error {
		m := &registryv1.UploadArtifactRequest{Chunk: b}
		if first {
			m.Model, m.Path = ref, filepath.Base(file)
		}
		return stream.Send(m)
	})
	if err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

func newEndpoint(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "endpoint", Short: "Publish and list decision endpoints", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var files []string
	var reason string
	publish := &cobra.Command{Use: "publish -f FILE --reason WHY", Short: "Publish a revision", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			if err := why(reason); err != nil {
				return err
			}
			text, err := readYAML(cl.env, files)
			if err != nil {
				return err
			}
			res, err := c.decisions.PublishEndpoint(ctx, &decisionv1.PublishEndpointRequest{Yaml: text, Reason: reason})
			if err != nil {
				return err
			}
			e := res.GetEndpoint()
			what := "unchanged"
			if res.GetChanged() {
				what = "published"
			}
			return p.say(res, "%s@v%d is %s: %s", e.GetName(), e.GetRevision(), what, e.GetServing())
		})}
	yamlFlag(publish, &files)
	publish.Flags().StringVar(&reason, "reason", "", "why, for the log")
	list := &cobra.Command{Use: "list", Short: "List endpoints and who answers at each", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.decisions.ListEndpoints(ctx, &decisionv1.ListEndpointsRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, e := range res.GetEndpoints() {
				rows = append(rows, []any{e.GetName(), e.GetRevision(), e.GetModel(), e.GetServing()})
			}
			return p.table(res, []string{"ENDPOINT", "REVISION", "MODEL", "WHO ANSWERS"}, rows)
		})}
	show := &cobra.Command{Use: "show ENDPOINT", Short: "Show an endpoint", Args: exact("ENDPOINT"), ValidArgsFunction: cl.complete(endpoints),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.decisions.GetEndpoint(ctx, &decisionv1.GetEndpointRequest{Endpoint: args[0]})
			if err != nil {
				return err
			}
			if p.json {
				return p.message(res)
			}
			return showEndpoint(p.cmd.OutOrStdout(), res.GetEndpoint())
		})}
	cmd.AddCommand(publish, list, show)
	return cmd
}

func newDrift(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "drift", Short: "Compare what endpoints see with what models were trained on", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	report := &cobra.Command{Use: "report ENDPOINT", Short: "Statistics per feature over the last 24 hours", Args: exact("ENDPOINT"), ValidArgsFunction: cl.complete(endpoints),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.drift.GetReport(ctx, &driftv1.GetReportRequest{Endpoint: args[0]})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, f := range res.GetFeatures() {
				rows = append(rows, []any{f.GetFeature(), fmt.Sprintf("%.4f", f.GetPsi()), fmt.Sprintf("%.4f", f.GetJs()), fmt.Sprintf("%.4f", f.GetKs()),
					fmt.Sprintf("%.4f", f.GetWasserstein()), total(f.GetProduction()), f.GetProductionMissing()})
			}
			return p.table(res, []string{"FEATURE", "PSI", "JS", "KS", "WASSERSTEIN", "VALUES", "MISSING"}, rows)
		})}
	var m driftv1.PutMonitorRequest
	put := &cobra.Command{Use: "monitor NAME --endpoint ENDPOINT --statistic S --limit X", Short: "Create or change a monitor", Args: exact("NAME"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			m.Name = args[0]
			res, err := c.drift.PutMonitor(ctx, &m)
			if err != nil {
				return err
			}
			return p.say(res, "monitor %s watches %s of %s: %s above %g", args[0], m.GetFeature(), m.GetEndpoint(), m.GetStatistic(), m.GetLimit())
		})}
	f := put.Flags()
	f.StringVar(&m.Endpoint, "endpoint", "", "endpoint to watch")
	f.StringVar(&m.Feature, "feature", "*", "feature to watch; * is all")
	f.StringVar(&m.Statistic, "statistic", "psi", "psi, kl, js, ks or wasserstein")
	f.Float64Var(&m.Limit, "limit", 0.2, "alarm above this")
	f.Int64Var(&m.MinSample, "min-sample", 200, "fewest values in the window")
	f.Int64Var(&m.WindowSeconds, "window", 86400, "length of the window in seconds")
	run := &cobra.Command{Use: "run NAME", Short: "Evaluate a monitor now", Args: exact("NAME"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.drift.RunMonitor(ctx, &driftv1.RunMonitorRequest{Name: args[0]})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, v := range res.GetVerdicts() {
				rows = append(rows, []any{v.GetFeature(), v.GetState(), fmt.Sprintf("%.4f", v.GetValue()), v.GetLimit(), v.GetSample()})
			}
			return p.table(res, []string{"FEATURE", "VERDICT", "VALUE", "LIMIT", "SAMPLE"}, rows)
		})}
	var state string
	incidents := &cobra.Command{Use: "incidents", Short: "List incidents, newest first", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.drift.ListIncidents(ctx, &driftv1.ListIncidentsRequest{State: state, PageSize: 100})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, i := range res.GetIncidents() {
				rows = append(rows, []any{i.GetIncidentId(), i.GetState(), i.GetModel(), strings.Join(i.GetFeatures(), ", "), day(i.GetOpenedAt()), i.GetTitle()})
			}
			return p.table(res, []string{"INCIDENT", "STATE", "MODEL", "FEATURES", "OPENED", "TITLE"}, rows)
		})}
	incidents.Flags().StringVar(&state, "state", "", "open or resolved; empty is both")
	var reason string
	resolve := &cobra.Command{Use: "resolve INCIDENT --reason WHY", Short: "Close an incident", Args: exact("INCIDENT"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if err := why(reason); err != nil {
				return err
			}
			res, err := c.drift.ResolveIncident(ctx, &driftv1.ResolveIncidentRequest{IncidentId: args[0], Reason: reason})
			if err != nil {
				return err
			}
			return p.say(res, "incident %s is resolved", args[0])
		})}
	resolve.Flags().StringVar(&reason, "reason", "", "why, for the log")
	cmd.AddCommand(report, put, run, incidents, resolve)
	return cmd
}

func total(counts []int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}
