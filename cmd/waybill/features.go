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
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// maxYAML bounds definition files.
const maxYAML = 1 << 20

// sendChunk is how many bytes of a file one message carries.
const sendChunk = 256 << 10

// yamlFlag adds -f, which may be given more than once.
func yamlFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "file", "f", nil, "YAML file, folder, or - for standard input (repeatable)")
}

// readYAML joins the documents of files and folders.
func readYAML(env environment, files []string) (string, error) {
	return readDocuments(env, files, func(string, []string) bool { return true })
}

// readDocuments joins the documents of files and folders. A file that was named is read whatever it holds; of the files
// in a folder take says by the kinds of its documents which ones.
func readDocuments(env environment, files []string, take func(name string, kinds []string) bool) (string, error) {
	if len(files) == 0 {
		return "", usageError{errors.New("give at least one file with -f")}
	}
	var docs []string
	for _, name := range files {
		names, folder := []string{name}, false
		if st, err := os.Stat(name); err == nil && st.IsDir() {
			folder = true
			if names, err = filepath.Glob(filepath.Join(name, "*.yaml")); err != nil {
				return "", err
			}
			if len(names) == 0 {
				return "", usageError{fmt.Errorf("the folder %s holds no *.yaml", name)}
			}
		}
		for _, n := range names {
			b, err := readInput(env, n, maxYAML)
			if err != nil {
				return "", err
			}
			if !folder || take(n, kindsIn(b)) {
				docs = append(docs, string(b))
			}
		}
	}
	return strings.Join(docs, "\n---\n"), nil
}

// kindsIn lists the kinds of the documents of a YAML file, as far as it can be read. The hub says what is wrong with it.
func kindsIn(data []byte) []string {
	var out []string
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var head struct {
			Kind string `yaml:"kind"`
		}
		if err := dec.Decode(&head); err != nil {
			return out
		}
		out = append(out, head.Kind)
	}
}

// readFeatures joins the feature definitions of files and folders. Files of a folder that hold none are left, and it is
// said which ones and what they are for.
func readFeatures(env environment, files []string) (string, error) {
	text, err := readDocuments(env, files, func(name string, kinds []string) bool {
		switch {
		case len(kinds) == 1 && kinds[0] == "Endpoint":
			notes(env.Err)("left out: %s is an endpoint (waybill endpoint publish -f %s)", name, name)
		case len(kinds) == 1 && kinds[0] == "rules":
			notes(env.Err)("left out: %s is a rule set (waybill model register NAME --format rules -f %s)", name, name)
		default:
			return true
		}
		return false
	})
	if err == nil && text == "" {
		return "", usageError{errors.New("there are no feature definitions (kind: View or Service) in " + strings.Join(files, ", "))}
	}
	return text, err
}

func newPlan(cl *clientFlags) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "plan -f FILE", Short: "Say what applying feature definitions would change", Args: exact(),
		Long:    "Compares views and services in YAML with what is published and says in words\nwhat would change. Nothing is written. In a folder, files with other documents\n(an endpoint, a rule set) are left out, and that is said.",
		Example: "  waybill plan -f features/",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			text, err := readFeatures(cl.env, files)
			if err != nil {
				return err
			}
			res, err := c.features.PlanDefinitions(ctx, &featurestorev1.PlanDefinitionsRequest{Yaml: text})
			if err != nil {
				return err
			}
			return p.table(res, []string{"CHANGE", "WHAT", "IN WORDS"}, changes(res.GetChanges()))
		}),
	}
	yamlFlag(cmd, &files)
	return cmd
}

func changes(list []*featurestorev1.Change) [][]any {
	var rows [][]any
	for _, c := range list {
		rows = append(rows, []any{c.GetAction(), c.GetKind() + " " + c.GetRef(), c.GetSummary()})
		for _, d := range c.GetDetails() {
			rows = append(rows, []any{"", "", "- " + d})
		}
		if r := c.GetReaders(); len(r) > 0 {
			rows = append(rows, []any{"", "", "- still read the version before: " + someOf(r)})
		}
	}
	return rows
}

// someOf lists a few of many.
func someOf(names []string) string {
	const most = 8
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}

func newRetire(cl *clientFlags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "retire NODE --reason WHY", Short: "Take a view or service version out of use", Args: exact("NODE"),
		Long:    "Takes one version out of use, for ever: a retired view takes no rows in, and\nnothing new is made of it. It is refused, with their list, while services, views,\nmodels or endpoints read it. What exists goes on: training sets are rebuilt and\ndecisions replayed. NODE is view:name@v1 or service:name@v1; without a kind it is\na view.",
		Example: "  waybill retire warehouse_load@v1 --reason 'v2 has the queue per zone'\n  waybill retire service:route-risk@v1 --reason 'no model is made for it any more'",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if err := why(reason); err != nil {
				return err
			}
			node := args[0]
			if !strings.Contains(node, ":") {
				node = "view:" + node
			}
			res, err := c.features.RetireDefinition(ctx, &featurestorev1.RetireDefinitionRequest{Node: node, Reason: reason})
			if err != nil {
				return err
			}
			return p.say(res, "%s is retired", res.GetRetired().GetNode())
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return cmd
}

func newApply(cl *clientFlags) *cobra.Command {
	var files []string
	var reason string
	cmd := &cobra.Command{
		Use: "apply -f FILE --reason WHY", Short: "Publish feature definitions", Args: exact(),
		Long:    "Publishes views and services in one transaction: all of them or none. What is\npublished never changes; an edit makes a new version. In a folder, files with\nother documents (an endpoint, a rule set) are left out, and that is said.",
		Example: "  waybill apply -f features/ --reason 'queue length per warehouse'",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			if err := why(reason); err != nil {
				return err
			}
			text, err := readFeatures(cl.env, files)
			if err != nil {
				return err
			}
			res, err := c.features.ApplyDefinitions(ctx, &featurestorev1.ApplyDefinitionsRequest{Yaml: text, Reason: reason})
			if err != nil {
				return err
			}
			return p.table(res, []string{"CHANGE", "WHAT", "IN WORDS"}, changes(res.GetChanges()))
		}),
	}
	yamlFlag(cmd, &files)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return cmd
}

// formatOf guesses a format from a file name.
func formatOf(format, file string) (string, error) {
	if format == "" {
		format = strings.TrimPrefix(filepath.Ext(file), ".")
	}
	if format != "csv" && format != "parquet" {
		return "", usageError{fmt.Errorf("the format of %s is not known; give --format csv or --format parquet", file)}
	}
	return format, nil
}

// sendFile streams a file in messages, with progress for files that take a while. send is told how many bytes the file has;
// 0 when it is none that knows.
func sendFile(env environment, name string, send func(chunk []byte, first bool, size int64) error) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	bar := progressbar.NewOptions64(st.Size(), progressbar.OptionSetWriter(env.Err), progressbar.OptionSetDescription(filepath.Base(name)),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetVisibility(st.Size() > 8<<20))
	size := int64(0)
	if st.Mode().IsRegular() {
		size = st.Size()
	}
	buf := make([]byte, sendChunk)
	for first := true; ; first = false {
		n, err := io.ReadFull(f, buf)
		if n > 0 || first {
			if err := send(buf[:n], first, size); err != nil && !errors.Is(err, io.EOF) { // io.EOF: the hub has answered already
				return err
			} else if err != nil {
				return nil
			}
			if err := bar.Add(n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return bar.Finish()
		}
		if err != nil {
			return err
		}
	}
}

func newPush(cl *clientFlags) *cobra.Command {
	var file, format, batch, mode string
	var columns map[string]string
	cmd := &cobra.Command{
		Use: "push VIEW -f FILE", Short: "Append rows to a view", Args: exact("VIEW"),
		Long:    "Appends a CSV or Parquet file to a view's log as one commit: all rows or none.\nColumns are the view's join keys and features and event_time. A batch that was\naccepted before is not taken twice; without --batch a new id is made. With\n--mode quarantine bad rows do not keep the others out: they wait with what is\nwrong with them (waybill quarantine VIEW).",
		Example: "  waybill push warehouse_load -f load.csv\n  waybill push warehouse_load -f load.parquet --column q=queue --batch 2026-04-10",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			format, err := formatOf(format, file)
			if err != nil {
				return err
			}
			if batch == "" {
				batch = waybill.NewID(waybill.SystemClock()).String()
			}
			stream, err := c.features.IngestFile(ctx)
			if err != nil {
				return err
			}
			err = sendFile(cl.env, file, func(b []byte, first bool, size int64) error {
				m := &featurestorev1.IngestFileRequest{Chunk: b}
				if first {
					m.Size, m.View, m.Format, m.BatchId, m.Columns, m.Mode = size, args[0], format, batch, columns, mode
				}
				return stream.Send(m)
			})
			if err != nil {
				return err
			}
			res, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			k := res.GetCommit()
			note := ""
			if k.GetDuplicate() {
				note = " (accepted before; nothing was added)"
			}
			if n := k.GetQuarantined(); n > 0 {
				note = fmt.Sprintf("; %d rows are quarantined (waybill quarantine %s)", n, k.GetView()) + note
			}
			if k.GetRows() == 0 {
				return p.say(res, "no row of %s was good, so there is no commit%s", batch, note)
			}
			return p.say(res, "commit %d of %s: %d rows, %s to %s%s", k.GetSequence(), k.GetView(), k.GetRows(),
				day(k.GetMinEventTime()), day(k.GetMaxEventTime()), note)
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "CSV or Parquet file")
	cmd.Flags().StringVar(&format, "format", "", "csv or parquet; by default what the file's name says")
	cmd.Flags().StringVar(&batch, "batch", "", "id of the batch, which makes a repeat harmless")
	cmd.Flags().StringToStringVar(&columns, "column", nil, "file column=view column (repeatable)")
	cmd.Flags().StringVar(&mode, "mode", "reject", "what bad rows do: reject the file, or quarantine only themselves")
	return cmd
}

// quarantinePage is how many rows a page of the quarantine has.
const quarantinePage = 200

func newQuarantine(cl *clientFlags) *cobra.Command {
	var batch, reason string
	var clear bool
	var limit int
	cmd := &cobra.Command{
		Use: "quarantine VIEW", Short: "Show rows that a view did not take", Args: exact("VIEW"),
		Long:    "Lists the rows that wait in a view's quarantine, newest first: what is wrong with\neach and the row as it came. With --clear they are deleted, which the log keeps\nwith its reason.",
		Example: "  waybill quarantine warehouse_load --batch 2026-04-10\n  waybill quarantine warehouse_load --batch 2026-04-10 --clear --reason 'mended at the source'",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			if clear {
				if err := why(reason); err != nil {
					return err
				}
				res, err := c.features.ClearQuarantine(ctx, &featurestorev1.ClearQuarantineRequest{View: args[0], BatchId: batch, Reason: reason})
				if err != nil {
					return err
				}
				return p.say(res, "%d rows are gone from the quarantine of %s", res.GetRows(), args[0])
			}
			if limit < 1 {
				return usageError{errors.New("--limit must be 1 or more")}
			}
			all := &featurestorev1.ListQuarantineResponse{}
			for token := ""; ; {
				res, err := c.features.ListQuarantine(ctx, &featurestorev1.ListQuarantineRequest{View: args[0], BatchId: batch, PageSize: int32(min(limit-len(all.GetRows()), quarantinePage)), PageToken: token})
				if err != nil {
					return err
				}
				all.Rows = append(all.Rows, res.GetRows()...)
				token = res.GetNextPageToken()
				if token == "" || len(all.GetRows()) >= limit {
					all.NextPageToken = token
					break
				}
			}
			var rows [][]any
			for _, q := range all.GetRows() {
				values, err := q.GetRow().MarshalJSON()
				if err != nil {
					return err
				}
				var wrong []string
				for _, r := range q.GetReasons() {
					wrong = append(wrong, r.GetField()+" "+r.GetRemedy())
				}
				rows = append(rows, []any{q.GetBatchId(), q.GetRowNumber(), strings.Join(wrong, "; "), string(values), day(q.GetAt()), q.GetActor()})
			}
			if all.GetNextPageToken() != "" {
				notes(cl.env.Err)("there are more than %d; see --limit", limit)
			}
			return p.table(all, []string{"BATCH", "ROW", "WHAT IS WRONG", "AS IT CAME", "AT", "BY"}, rows)
		}),
	}
	cmd.Flags().StringVar(&batch, "batch", "", "rows of this batch only")
	cmd.Flags().IntVar(&limit, "limit", 100, "most rows to show")
	cmd.Flags().BoolVar(&clear, "clear", false, "delete them")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return cmd
}

func day(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04:05Z")
}

func newRead(cl *clientFlags) *cobra.Command {
	var rows []string
	cmd := &cobra.Command{
		Use: "read SERVICE --row JSON", Short: "Read online features", Args: exact("SERVICE"),
		Long:    "Reads the outputs of a feature service with an honest status for every value:\nPRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE, or FALLBACK when the value\nis of a view that stands in.",
		Example: `  waybill read route-risk --row '{"warehouse":"WH-NY-1"}'`,
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			req := &featurestorev1.ReadOnlineRequest{Service: args[0]}
			for i, text := range rows {
				s, err := parseStruct(fmt.Sprintf("--row %d", i+1), []byte(text))
				if err != nil {
					return err
				}
				req.Rows = append(req.Rows, s)
			}
			res, err := c.features.ReadOnline(ctx, req)
			if err != nil {
				return err
			}
			var out [][]any
			for i, r := range res.GetRows() {
				for j, cell := range r.GetCells() {
					v, err := json.Marshal(cell.GetValue().AsInterface())
					if err != nil {
						return err
					}
					out = append(out, []any{i + 1, res.GetNames()[j], string(v), cell.GetStatus(), day(cell.GetEventTime())})
				}
			}
			return p.table(res, []string{"ROW", "FEATURE", "VALUE", "STATUS", "EVENT TIME"}, out)
		}),
	}
	cmd.Flags().StringArrayVar(&rows, "row", nil, "the service's inputs as a JSON object (repeatable)")
	return cmd
}

func parseStruct(what string, data []byte) (*structpb.Struct, error) {
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON(data); err != nil {
		return nil, usageError{fmt.Errorf("%s is not a JSON object: %w", what, err)}
	}
	return s, nil
}

func newTrainingSet(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "training-set", Short: "Make, list, rebuild and download training sets", Args: exact(),
		Long: "A training set is the as-of join of a spine (entities, times, labels) with the\nfeatures of a service as they were known then. It never changes and can be made\nagain, byte for byte.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	create := newTrainingSetCreate(cl)
	list := &cobra.Command{
		Use: "list", Short: "List training sets, newest first", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.features.ListTrainingSets(ctx, &featurestorev1.ListTrainingSetsRequest{PageSize: 100})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, t := range res.GetTrainingSets() {
				rows = append(rows, []any{t.GetDigest(), t.GetName(), t.GetService(), t.GetRows(), t.GetAuthor(), day(t.GetCreatedAt())})
			}
			return p.table(res, []string{"DIGEST", "NAME", "SERVICE", "ROWS", "AUTHOR", "CREATED"}, rows)
		}),
	}
	show := &cobra.Command{
		Use: "show DIGEST", Short: "Show recipe and statistics", Args: exact("DIGEST"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.features.GetTrainingSet(ctx, &featurestorev1.GetTrainingSetRequest{Digest: args[0]})
			if err != nil {
				return err
			}
			if p.json {
				return p.message(res)
			}
			return showTrainingSet(p.cmd.OutOrStdout(), res.GetTrainingSet())
		}),
	}
	cmd.AddCommand(create, list, show, newTrainingSetRebuild(cl), newTrainingSetAblate(cl), newTrainingSetDownload(cl), newBuilds(cl), newBuildWait(cl), newBuildCancel(cl))
	return cmd
}

// receiveFile writes a download to a file: whole or not at all.
func receiveFile(name string, next func() ([]byte, error)) (err error) {
	if name == "" {
		return usageError{errors.New("give a file with -o")}
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".waybill-*")
	if err != nil {
		return err
	}
	for {
		b, recvErr := next()
		if errors.Is(recvErr, io.EOF) {
			break
		}
		if recvErr == nil {
			_, recvErr = f.Write(b)
		}
		if recvErr != nil {
			return errors.Join(recvErr, f.Close(), os.Remove(f.Name()))
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
