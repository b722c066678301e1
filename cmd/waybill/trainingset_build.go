package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// buildWait bounds how long a command waits for a training set. The hub goes on.
const buildWait = 24 * time.Hour

// awayFor is how long a hub may be away, as when it is started again, before who waits for a build gives up.
const awayFor = 2 * time.Minute

// visibleRows is from how many rows on the progress of a build is shown.
const visibleRows = 100_000

// noWaitFlag is the flag of the commands that start a build.
func noWaitFlag(cmd *cobra.Command, noWait *bool) {
	cmd.Flags().BoolVar(noWait, "no-wait", false, "print the build's id and do not wait for it")
}

// sayStarted says which build was started, for who does not wait for it.
func sayStarted(p printer, res proto.Message, b *featurestorev1.TrainingSetBuild) error {
	return p.say(res, "%s  %s", b.GetBuildId(), b.GetState())
}

// followBuild waits for a build, shows how far it is, and says what came out. A manifest is written to a file, when there is
// one and a name for it.
func followBuild(ctx context.Context, env environment, c *client, p printer, b *featurestorev1.TrainingSetBuild, manifest string) error {
	doing, kind := map[string]string{"rebuild": "rebuilding ", "ablate": "making variants of "}[b.GetKind()], b.GetKind()
	if doing == "" {
		doing = "joining "
	}
	var bar *progressbar.ProgressBar
	id, said, seen := b.GetBuildId(), "", time.Now()
	for wait := 20 * time.Millisecond; b.GetEndedAt() == nil; wait = min(2*wait, 250*time.Millisecond) {
		if bar == nil && b.GetRowsTotal() >= visibleRows {
			bar = progressbar.NewOptions64(b.GetRowsTotal(), progressbar.OptionSetWriter(env.Err), progressbar.OptionSetDescription(doing+b.GetName()),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish())
			notes(env.Err)("build %s; should this command be cut off: waybill training-set wait %s", id, id)
		}
		if bar != nil {
			bar.ChangeMax64(b.GetRowsTotal()) // which grows when it is known how many variants there are
			_ = bar.Set64(b.GetRowsDone())    // a terminal that is gone is no reason to stop
		}
		if said != b.GetError() && b.GetError() != "" {
			notes(env.Err)("it is tried again: %s", b.GetError())
			said = b.GetError()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		res, err := c.features.GetTrainingSetBuild(ctx, &featurestorev1.GetTrainingSetBuildRequest{BuildId: id})
		switch {
		case err == nil:
			b, seen = res.GetBuild(), time.Now()
		case status.Code(err) != codes.Unavailable || time.Since(seen) > awayFor:
			return err
		}
	}
	if bar != nil {
		_ = bar.Finish()
	}
	switch b.GetState() {
	case "failed":
		return errors.New(b.GetError())
	case "cancelled":
		return fmt.Errorf("build %s was cancelled", id)
	}
	if kind != "create" {
		res, err := c.features.GetTrainingSetBuild(ctx, &featurestorev1.GetTrainingSetBuildRequest{BuildId: id})
		switch {
		case err != nil:
			return err
		case kind == "rebuild":
			return sayRebuilt(p, res.GetRebuild())
		case kind == "ablate":
			return sayAblated(p, res.GetAblation(), manifest)
		}
		return p.say(res, "build %s is done", id) // of a newer hub
	}
	got, err := c.features.GetTrainingSet(ctx, &featurestorev1.GetTrainingSetRequest{Digest: b.GetDigest()})
	if err != nil {
		return err
	}
	t := got.GetTrainingSet()
	return p.say(&featurestorev1.CreateTrainingSetResponse{TrainingSet: t, Build: b}, "%s  %d rows × %d columns, %d bytes", t.GetDigest(), t.GetRows(), len(t.GetColumns()), t.GetSizeBytes())
}

// sayRebuilt says whether the bytes are the same. It is a finding when they are not.
func sayRebuilt(p printer, res *featurestorev1.RebuildTrainingSetResponse) error {
	if !res.GetEqual() {
		return findingError{fmt.Errorf("the rebuilt bytes differ (%s): %s", res.GetRebuiltDigest(), res.GetExplanation())}
	}
	return p.say(res, "equal, byte for byte: %s", res.GetRebuiltDigest())
}

// sayAblated lists the variants.
func sayAblated(p printer, res *featurestorev1.AblateTrainingSetResponse, manifest string) error {
	if manifest != "" {
		if err := os.WriteFile(manifest, res.GetManifest(), 0o600); err != nil {
			return err
		}
	}
	var rows [][]any
	for _, v := range res.GetVariants() {
		t := v.GetTrainingSet()
		rows = append(rows, []any{v.GetGroup(), t.GetDigest(), t.GetRows(), len(t.GetColumns()), strings.Join(t.GetWithout(), ", ")})
	}
	return p.table(res, []string{"WITHOUT", "DIGEST", "ROWS", "COLUMNS", "LEFT OUT"}, rows)
}

func newTrainingSetRebuild(cl *clientFlags) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "rebuild DIGEST", Short: "Make it again from its recipe and compare the bytes", Args: exact("DIGEST"),
		Long: "Makes a training set again from its recipe and compares the bytes; nothing of that is\nkept. The hub goes on when the command is cut off: waybill training-set wait follows\nthe build again.",
		RunE: cl.callFor(buildWait, func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.features.RebuildTrainingSet(ctx, &featurestorev1.RebuildTrainingSetRequest{Digest: args[0], StartOnly: true})
			if err != nil {
				return err
			}
			if noWait {
				return sayStarted(p, res, res.GetBuild())
			}
			return followBuild(ctx, cl.env, c, p, res.GetBuild(), "")
		}),
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func newBuilds(cl *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "builds", Short: "List what is being made, and what came of it, newest first", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.features.ListTrainingSetBuilds(ctx, &featurestorev1.ListTrainingSetBuildsRequest{PageSize: 100})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, b := range res.GetBuilds() {
				done := "-"
				if b.GetRowsTotal() > 0 {
					done = fmt.Sprintf("%d of %d", b.GetRowsDone(), b.GetRowsTotal())
				}
				rows = append(rows, []any{b.GetBuildId(), b.GetKind(), b.GetName(), b.GetService(), b.GetState(), done, b.GetAuthor(), day(b.GetStartedAt()), b.GetDigest() + b.GetError()})
			}
			return p.table(res, []string{"BUILD", "KIND", "NAME", "SERVICE", "STATE", "ROWS DONE", "AUTHOR", "STARTED", "OUTCOME"}, rows)
		}),
	}
}

func newBuildWait(cl *clientFlags) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "wait BUILD", Short: "Follow a build until it ends", Args: exact("BUILD"),
		RunE: cl.callFor(buildWait, func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.features.GetTrainingSetBuild(ctx, &featurestorev1.GetTrainingSetBuildRequest{BuildId: args[0]})
			if err != nil {
				return err
			}
			return followBuild(ctx, cl.env, c, p, res.GetBuild(), out)
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file for the manifest of variants")
	return cmd
}

func newBuildCancel(cl *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "cancel BUILD", Short: "End a build without a training set", Args: exact("BUILD"),
		Long: "Ends a build without a training set. Nothing of it stays, but for variants that are\nfinished. Once all rows are joined and being stored it is too late.",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.features.CancelTrainingSetBuild(ctx, &featurestorev1.CancelTrainingSetBuildRequest{BuildId: args[0]})
			if err != nil {
				return err
			}
			return p.say(res, "build %s of %s is cancelled", res.GetBuild().GetBuildId(), res.GetBuild().GetName())
		}),
	}
}

func newTrainingSetDownload(cl *clientFlags) *cobra.Command {
	var out, format string
	cmd := &cobra.Command{
		Use: "download DIGEST -o FILE", Short: "Download it as Parquet or CSV", Args: exact("DIGEST"),
		Long:    "Downloads the Parquet file whose SHA-256 is the digest, or its values as CSV: every\nvalue exactly, null as nothing and empty text as \"\". Without --format the file's\nname says which.",
		Example: "  waybill training-set download 9f86d081… -o set.parquet\n  waybill training-set download 9f86d081… -o set.csv",
		RunE: cl.callFor(buildWait, func(ctx context.Context, c *client, _ printer, args []string) error {
			if format == "" && filepath.Ext(out) == ".csv" {
				format = "csv"
			}
			if format != "" && format != "csv" && format != "parquet" {
				return usageError{fmt.Errorf("--format is %q; give parquet or csv", format)}
			}
			stream, err := c.features.DownloadTrainingSet(ctx, &featurestorev1.DownloadTrainingSetRequest{Digest: args[0], Format: format})
			if err != nil {
				return err
			}
			return receiveFile(out, func() ([]byte, error) {
				m, err := stream.Recv()
				return m.GetChunk(), err
			})
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	cmd.Flags().StringVar(&format, "format", "", "parquet or csv; by default what the file's name says, else parquet")
	return cmd
}

// showTrainingSet writes recipe and statistics for people.
func showTrainingSet(w io.Writer, t *featurestorev1.TrainingSet) error {
	fmt.Fprintf(w, "%s\n\n", t.GetName())
	s := newSheet(w)
	s.line("digest", "%s", t.GetDigest())
	s.line("made", "%s by %s with %s", day(t.GetCreatedAt()), t.GetAuthor(), t.GetKernel())
	s.line("of", "%s", t.GetService())
	for _, view := range slices.Sorted(maps.Keys(t.GetViews())) {
		s.line("from", "%s up to commit %d", view, t.GetViews()[view])
	}
	s.line("spine", "%s %s", t.GetSpineFormat(), t.GetSpineDigest())
	s.line("time", "%s", t.GetTimeColumn())
	if t.GetCutoff() != nil {
		s.line("known by", "%s", day(t.GetCutoff()))
	} else {
		s.line("known by", "each row's own time")
	}
	s.line("label", "%s", t.GetLabelColumn())
	if d := t.GetDelay(); d != nil {
		s.line("delay", "%s", d.AsDuration())
	}
	s.line("left out", "%s", strings.Join(t.GetWithout(), ", "))
	s.line("file", "%d rows, %d bytes of Parquet", t.GetRows(), t.GetSizeBytes())
	s.section("COLUMN", "TYPE", "NULLS", "MEAN", "STD", "MIN", "MAX")
	for _, c := range t.GetColumns() {
		cells := []any{c.GetName(), c.GetType(), c.GetNulls()}
		if isNumeric(c.GetType()) && c.GetNulls() < c.GetRows() {
			cells = append(cells, number6(c.GetMean()), number6(c.GetStd()), number6(c.GetMin()), number6(c.GetMax()))
		} else {
			cells = append(cells, "-", "-", "-", "-")
		}
		s.row(cells...)
	}
	return s.w.Flush()
}

// isNumeric says whether a column has moments.
func isNumeric(kind string) bool {
	switch kind {
	case "bool", "int32", "int64", "float32", "float64", "decimal":
		return true
	}
	return false
}
