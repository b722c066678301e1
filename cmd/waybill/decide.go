package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
)

func newDecide(cl *clientFlags) *cobra.Command {
	var file, key string
	cmd := &cobra.Command{Use: "decide ENDPOINT -f FILE", Short: "Ask an endpoint for a decision", Args: exact("ENDPOINT"), ValidArgsFunction: cl.complete(endpoints),
		Long:    "Sends a JSON request and prints the answer with its receipt. With --key a repeat\nof the same request gives the same decision.",
		Example: "  waybill decide route -f order.json --key ORD-123",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			data, err := readInput(cl.env, file, 1<<20)
			if err != nil {
				return err
			}
			s, err := parseStruct("the request", data)
			if err != nil {
				return err
			}
			res, err := c.decisions.Decide(ctx, &decisionv1.DecideRequest{Endpoint: args[0], Request: s, IdempotencyKey: key})
			if err != nil {
				return err
			}
			return p.message(res.GetAnswer())
		})}
	cmd.Flags().StringVarP(&file, "file", "f", "-", "JSON file, or - for standard input")
	cmd.Flags().StringVar(&key, "key", "", "idempotency key")
	return cmd
}

func newDecision(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "decision", Short: "Search, show, replay and prove decisions", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var q decisionv1.SearchDecisionsRequest
	search := &cobra.Command{Use: "search", Short: "Find decisions, newest first", Args: exact(),
		Example: "  waybill decision search --key ORD-123",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.decisions.SearchDecisions(ctx, &q)
			if err != nil {
				return err
			}
			var rows [][]any
			for _, d := range res.GetDecisions() {
				by := d.GetModel()
				if d.GetFallback() != "" {
					by = "rules: " + d.GetFallback()
				}
				rows = append(rows, []any{d.GetDecisionId(), day(d.GetDecidedAt()), d.GetEndpoint(), d.GetBusinessKey(), d.GetAction(), fmt.Sprintf("%.4f", d.GetScore()), by})
			}
			return p.table(res, []string{"DECISION", "WHEN", "ENDPOINT", "KEY", "ACTION", "SCORE", "BY"}, rows)
		})}
	f := search.Flags()
	f.StringVar(&q.BusinessKey, "key", "", "business key, e.g. the order")
	f.StringVar(&q.Endpoint, "endpoint", "", "endpoint")
	f.StringVar(&q.Model, "model", "", "model version, e.g. late-risk@v1")
	f.StringVar(&q.Action, "action", "", "action")
	f.StringVar(&q.Gate, "gate", "", "gate that did not allow")
	f.BoolVar(&q.FallbackOnly, "fallback", false, "only those that the rules answered")
	f.Int32Var(&q.PageSize, "limit", 50, "most rows, 1 to 1,000")
	f.StringVar(&q.PageToken, "page", "", "token of the next page, as in --json")
	show := &cobra.Command{Use: "show ID", Short: "Show the waybill of a decision", Args: exact("ID"),
		Long: "Shows who answered and on whose approval, what each input did to the score and how\nold it was, candidates, gates, outcomes, and where the proof is. --json is the whole\nrecord.",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.decisions.GetDecision(ctx, &decisionv1.GetDecisionRequest{DecisionId: args[0]})
			if err != nil {
				return err
			}
			if p.json {
				return p.message(res)
			}
			return showDecision(p.cmd.OutOrStdout(), res.GetDecision())
		})}
	replay := &cobra.Command{Use: "replay ID", Short: "Score the recorded inputs again and compare, bit for bit", Args: exact("ID"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.decisions.ReplayDecision(ctx, &decisionv1.ReplayDecisionRequest{DecisionId: args[0]})
			if err != nil {
				return err
			}
			if !res.GetEqual() {
				return findingError{fmt.Errorf("the replay differs: recorded %v, replayed %v; %v", res.GetRecordedScore(), res.GetReplayedScore(), res.GetDifferences())}
			}
			return p.say(res, "equal, bit for bit: %v", res.GetReplayedScore())
		})}
	var at string
	outcome := &cobra.Command{Use: "outcome ID NAME VALUE", Short: "Report what really happened", Args: exact("ID", "NAME", "VALUE"),
		Example: "  waybill decision outcome 0199… late true",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			when := time.Now()
			if at != "" {
				var err error
				if when, err = time.Parse(time.RFC3339, at); err != nil {
					return usageError{fmt.Errorf("--at is not a time as 2026-04-10T18:00:00Z: %w", err)}
				}
			}
			var v any
			if err := json.Unmarshal([]byte(args[2]), &v); err != nil {
				v = args[2] // a bare word is a text
			}
			value, err := structpb.NewValue(v)
			if err != nil {
				return usageError{err}
			}
			res, err := c.decisions.ReportOutcome(ctx, &decisionv1.ReportOutcomeRequest{DecisionId: args[0], Name: args[1], Value: value, EventTime: timestamppb.New(when)})
			if err != nil {
				return err
			}
			return p.say(res, "%s = %s is recorded", args[1], args[2])
		})}
	outcome.Flags().StringVar(&at, "at", "", "when it happened; by default now")
	proof := &cobra.Command{Use: "proof ID", Short: "Print the proof as a tlog-proof file", Args: exact("ID"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.audit.GetDecisionProof(ctx, &auditv1.GetDecisionProofRequest{DecisionId: args[0]})
			if err != nil {
				return err
			}
			if p.json {
				return p.message(res)
			}
			_, err = fmt.Fprint(p.cmd.OutOrStdout(), res.GetTlogProof())
			return err
		})}
	cmd.AddCommand(search, show, replay, outcome, proof)
	return cmd
}
