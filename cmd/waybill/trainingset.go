package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// atTime reads a time given by a flag; "" is none.
func atTime(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usageError{fmt.Errorf("--%s is not a time as 2026-04-10T18:00:00Z: %w", flag, err)}
	}
	return timestamppb.New(at), nil
}

func newTrainingSetCreate(cl *clientFlags) *cobra.Command {
	var service, file, format, timeColumn, label, cutoff, endpoint, from, to string
	var delay time.Duration
	var fullNames, noWait bool
	var without []string
	var columns map[string]string
	cmd := &cobra.Command{
		Use: "create NAME --service SERVICE -f SPINE", Short: "Join a spine with features", Args: exact("NAME"),
		Long: "Joins a spine with the features of a service as they were known. The spine is a\nfile, or what an endpoint decided in a time and how it turned out: with\n--decisions, the label is the outcome's name. The hub goes on when the command is\ncut off, and when it dies itself: waybill training-set wait follows the build\nagain, and training-set cancel ends it.",
		Example: "  waybill training-set create late-2026q1 --service route-risk -f orders.csv --time event_time --label late\n" +
			"  waybill training-set create late-2026q2 --service route-risk --decisions route --label late \\\n    --from 2026-04-01T00:00:00Z --to 2026-07-01T00:00:00Z --column action=warehouse",
		RunE: cl.callFor(buildWait, func(ctx context.Context, c *client, p printer, args []string) (err error) {
			head := &featurestorev1.CreateTrainingSetRequest{Name: args[0], Service: service, TimeColumn: timeColumn, LabelColumn: label, FullNames: fullNames, Without: without, StartOnly: true}
			if head.Cutoff, err = atTime("cutoff", cutoff); err != nil {
				return err
			}
			if delay != 0 {
				head.Delay = durationpb.New(delay)
			}
			switch {
			case endpoint != "" && file != "":
				return usageError{errors.New("give a file with -f or an endpoint with --decisions, not both")}
			case endpoint != "":
				d := &featurestorev1.DecisionSpine{Endpoint: endpoint, Outcome: label, Columns: columns}
				if d.From, err = atTime("from", from); err != nil {
					return err
				}
				if d.To, err = atTime("to", to); err != nil {
					return err
				}
				head.Decisions = d
			default:
				if head.Format, err = formatOf(format, file); err != nil {
					return err
				}
			}
			stream, err := c.features.CreateTrainingSet(ctx)
			if err != nil {
				return err
			}
			if endpoint != "" {
				err = stream.Send(head)
			} else {
				err = sendFile(cl.env, file, func(b []byte, first bool, _ int64) error {
					m := &featurestorev1.CreateTrainingSetRequest{}
					if first {
						m = head
					}
					m.Chunk = b
					return stream.Send(m)
				})
			}
			if err != nil {
				return err
			}
			res, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			if noWait {
				return sayStarted(p, res, res.GetBuild())
			}
			return followBuild(ctx, cl.env, c, p, res.GetBuild(), "")
		}),
	}
	cmd.Flags().StringVar(&service, "service", "", "feature service, e.g. route-risk or route-risk@v2")
	cmd.Flags().StringVarP(&file, "file", "f", "", "the spine, CSV or Parquet")
	cmd.Flags().StringVar(&format, "format", "", "csv or parquet; by default what the file's name says")
	cmd.Flags().StringVar(&timeColumn, "time", "event_time", "column of the spine with each row's time")
	cmd.Flags().StringVar(&label, "label", "", "column of the spine with the label, or the outcome of decisions")
	cmd.Flags().StringVar(&cutoff, "cutoff", "", "use what was known by then, e.g. 2026-04-10T18:00:00Z; by default each row's own time")
	cmd.Flags().DurationVar(&delay, "delay", 0, "without --cutoff: use what was known this long after each row's own time, e.g. 15m")
	cmd.Flags().BoolVar(&fullNames, "full-names", false, "name features view__feature")
	cmd.Flags().StringSliceVar(&without, "without", nil, "features or expressions to leave out, by the names of their columns")
	cmd.Flags().StringVar(&endpoint, "decisions", "", "endpoint whose decisions with an outcome are the spine")
	cmd.Flags().StringVar(&from, "from", "", "decisions from this time on")
	cmd.Flags().StringVar(&to, "to", "", "decisions before this time")
	noWaitFlag(cmd, &noWait)
	cmd.Flags().StringToStringVar(&columns, "column", nil, "column of the decisions=its name in the spine, e.g. action=warehouse (repeatable)")
	return cmd
}

func newTrainingSetAblate(cl *clientFlags) *cobra.Command {
	var groups []string
	var out string
	var noWait bool
	cmd := &cobra.Command{
		Use: "ablate DIGEST", Short: "Make its variants without one group of features each", Args: exact("DIGEST"),
		Long:    "Makes the variants of a training set that go without one group of features each,\nto see what a signal is worth before it is relied on. A group is a view, or a\nlist of features; expressions that read one of them go, too. Without --group\nthere is a variant for every view. Each is a training set like any other, and\none manifest names them all. The hub goes on when the command is cut off: waybill\ntraining-set wait follows the build again, and training-set cancel ends it.",
		Example: "  waybill training-set ablate 9f86d081…\n  waybill training-set ablate 9f86d081… --group weather --group supply=stock:on_hand,stock:incoming -o ablation.json",
		RunE: cl.callFor(buildWait, func(ctx context.Context, c *client, p printer, args []string) error {
			req := &featurestorev1.AblateTrainingSetRequest{Digest: args[0], StartOnly: true}
			for _, g := range groups {
				name, list, found := strings.Cut(g, "=")
				group := &featurestorev1.AblationGroup{Name: name}
				if found {
					group.Features = strings.Split(list, ",")
				}
				req.Groups = append(req.Groups, group)
			}
			res, err := c.features.AblateTrainingSet(ctx, req)
			if err != nil {
				return err
			}
			if noWait {
				return sayStarted(p, res, res.GetBuild())
			}
			return followBuild(ctx, cl.env, c, p, res.GetBuild(), out)
		}),
	}
	cmd.Flags().StringArrayVar(&groups, "group", nil, "a view, or NAME=feature,feature (repeatable)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file for the manifest")
	noWaitFlag(cmd, &noWait)
	return cmd
}
