package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	"waybill/audit"
	accessv1 "waybill/proto/waybill/access/v1"
	auditv1 "waybill/proto/waybill/audit/v1"
	lineagev1 "waybill/proto/waybill/lineage/v1"
)

func newLineage(cl *clientFlags) *cobra.Command {
	var direction, asOf string
	var limit int32
	cmd := &cobra.Command{Use: "lineage NODE", Short: "Say what a thing was made from and what was made from it", Args: exact("NODE"),
		Long:    "Walks the graph of versions from a node: view:load@v1, service:risk@v1,\ntrainingset:<digest>, model:late-risk@v1, endpoint:route@v1, commit:load@v1/12,\nor decision:<id>.",
		Example: "  waybill lineage model:late-risk@v1\n  waybill lineage decision:0199… --direction up",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			req := &lineagev1.GetLineageRequest{Node: args[0], Direction: direction, Limit: limit}
			if asOf != "" {
				at, err := time.Parse(time.RFC3339, asOf)
				if err != nil {
					return usageError{fmt.Errorf("--as-of is not a time as 2026-04-10T18:00:00Z: %w", err)}
				}
				req.AsOf = timestamppb.New(at)
			}
			res, err := c.lineage.GetLineage(ctx, req)
			if err != nil {
				return err
			}
			via := map[string][]string{}
			for _, e := range res.GetEdges() {
				via[e.GetTo()] = append(via[e.GetTo()], e.GetKind()+" "+e.GetFrom())
			}
			var rows [][]any
			for _, n := range res.GetNodes() {
				rows = append(rows, []any{n.GetDepth(), n.GetId(), strings.Join(via[n.GetId()], ", ")})
			}
			if res.GetTruncated() {
				notes(cl.env.Err)("there is more: raise --limit (now %d nodes)", len(res.GetNodes()))
			}
			return p.table(res, []string{"HOPS", "NODE", "CAME FROM"}, rows)
		})}
	cmd.Flags().StringVar(&direction, "direction", "both", "up, down or both")
	cmd.Flags().StringVar(&asOf, "as-of", "", "the graph as it was then")
	cmd.Flags().Int32Var(&limit, "limit", 300, "most nodes, up to 1,000")
	return cmd
}

func newLog(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "Show, verify and export the decision log", Args: exact(),
		Long: "The log is a transparency log in the C2SP formats (tlog-tiles, signed notes):\nother people's verifiers read it too.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	show := &cobra.Command{Use: "show", Short: "Print size, verifier key and the signed checkpoint", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.audit.GetLog(ctx, &auditv1.GetLogRequest{})
			if err != nil {
				return err
			}
			return p.say(res, "log       %s\nentries   %d\nkey       %s\n\n%s", res.GetOrigin(), res.GetSize(), res.GetVerifierKey(), res.GetCheckpoint())
		})}
	var key, dir, decision string
	var offline offlineFiles
	verify := &cobra.Command{Use: "verify", Short: "Check every entry, or one decision, against the signed checkpoint", Args: exact(),
		Long: `Reads the whole log, re-hashes every entry and compares with the root that the
log has signed; it names the first entry that is wrong. With --dir it checks an
exported copy, with --bundle an evidence bundle, with --proof and --leaf one entry,
with --entries and --checkpoint a log without its tiles, and needs no hub; without
these, the hub also compares the record of every decision with its entry. The key is what you trust: take it from where you noted
it, not from the log itself (without --key it is asked from the hub, or taken from
the bundle, and that is said).`,
		Example: "  waybill log verify\n  waybill log verify --dir copy --key waybill.local/log/1+3f…\n  waybill log verify --bundle evidence.zip --key log.key\n  waybill log verify --proof 5.tlog-proof --leaf 5.json --key log.key\n  waybill log verify --decision 0199…",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			var id waybill.ID
			if decision != "" {
				if id, err = waybill.ParseID("--decision", decision); err != nil {
					return usageError{err}
				}
			}
			if err := offline.check(dir, decision); err != nil {
				return err
			}
			if key, err = keyOf(key); err != nil {
				return err
			}
			if (dir != "" || offline.given()) && key == "" && offline.bundle == "" {
				return usageError{errors.New("a copy does not say whom to trust; give the log's verifier key with --key")}
			}
			switch {
			case offline.given():
				return offline.verify(cl, cmd, key)
			case dir != "":
				return verifyLog(ctx, cl, cmd, audit.DirSource(dir), key)
			}
			c, err := cl.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			at, err := c.audit.GetLog(ctx, &auditv1.GetLogRequest{})
			if err != nil {
				return err
			}
			if key == "" {
				key = at.GetVerifierKey()
				notes(cl.env.Err)("trusting the key that the hub gives: %s", key)
			}
			if decision != "" {
				return verifyDecision(ctx, cmd, c, key, id)
			}
			if err := verifyLog(ctx, cl, cmd, hubSource(c, at.GetLogId()), key); err != nil {
				return err
			}
			return verifyRecords(ctx, cmd, c)
		}}
	verify.Flags().StringVar(&dir, "dir", "", "folder of an exported copy")
	verify.Flags().StringVar(&offline.bundle, "bundle", "", "evidence bundle")
	verify.Flags().StringVar(&offline.proof, "proof", "", ".tlog-proof file of one entry")
	verify.Flags().StringVar(&offline.leaf, "leaf", "", "file with exactly the bytes of that entry")
	verify.Flags().StringVar(&offline.entries, "entries", "", "file of all entries: the entry bundles of a copy, one after the other")
	verify.Flags().StringVar(&offline.checkpoint, "checkpoint", "", "file with the checkpoint that signs them")
	verify.Flags().StringVar(&key, "key", "", "verifier key of the log, or a file that holds it")
	verify.Flags().StringVar(&decision, "decision", "", "check this decision only")
	var to string
	export := &cobra.Command{Use: "export --dir DIR", Short: "Copy the log into a folder in the tlog-tiles layout", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if to == "" {
				return usageError{errors.New("give a folder with --dir")}
			}
			if to, err = filepath.Abs(to); err != nil {
				return err
			}
			c, err := cl.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			at, err := c.audit.GetLog(cmd.Context(), &auditv1.GetLogRequest{})
			if err != nil {
				return err
			}
			n, err := audit.Export(cmd.Context(), hubSource(c, at.GetLogId()), at.GetVerifierKey(), to, progress(cl.env, "export"))
			if err != nil {
				return err
			}
			return printer{cmd, false}.say(nil, "%d entries in %s; key %s", n, to, at.GetVerifierKey())
		}}
	export.Flags().StringVar(&to, "dir", "", "folder to write")
	var origin string
	keygen := &cobra.Command{Use: "keygen --origin NAME", Short: "Make a signer key for a new log", Args: exact(),
		Long: "Prints the signer key on standard output (keep it secret: it goes into\nWAYBILL_LOG_KEY) and the verifier key on standard error (publish it).",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if origin == "" || strings.ContainsAny(origin, " +\n") || len(origin) > 200 {
				return usageError{errors.New("--origin names the log, e.g. waybill.example.com/log/1: no spaces and no +")}
			}
			signer, verifier, err := audit.GenerateKey(origin)
			if err != nil {
				return err
			}
			notes(cl.env.Err)("verifier key: %s", verifier)
			return printer{cmd, false}.say(nil, "%s", signer)
		}}
	keygen.Flags().StringVar(&origin, "origin", "", "name of the log")
	cmd.AddCommand(show, verify, export, keygen)
	return cmd
}

func hubSource(c *client, id int32) audit.Source {
	return audit.HTTPSource{Client: &http.Client{Timeout: time.Minute}, URL: fmt.Sprintf("%s/log/%d", c.url, id), Token: c.token}
}

// progress draws a bar on standard error.
func progress(env environment, what string) func(done, size int64) {
	var bar *progressbar.ProgressBar
	return func(done, size int64) {
		if bar == nil {
			bar = progressbar.NewOptions64(size, progressbar.OptionSetWriter(env.Err), progressbar.OptionSetDescription(what),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionShowCount(),
				progressbar.OptionSetVisibility(size > 10_000))
		}
		if err := bar.Set64(done); err != nil {
			return // a bar that cannot be drawn is no reason to stop
		}
	}
}

func verifyLog(ctx context.Context, cl *clientFlags, cmd *cobra.Command, src audit.Source, key string) error {
	start := time.Now()
	f, err := audit.Verify(ctx, src, key, progress(cl.env, "verify"))
	if err != nil {
		return err
	}
	if !f.OK {
		return findingError{errors.New(finding(f))}
	}
	return printer{cmd, false}.say(nil, "%d entries verify against the signed checkpoint (%.1f s)", f.Entries, time.Since(start).Seconds())
}

// verifyRecords has the hub compare what lies beside the log with the entries.
func verifyRecords(ctx context.Context, cmd *cobra.Command, c *client) error {
	res, err := c.audit.VerifyLog(ctx, &auditv1.VerifyLogRequest{})
	if err != nil {
		return err
	}
	if !res.GetOk() {
		return findingError{errors.New(finding(audit.Finding{FirstBad: res.GetFirstBadIndex(), What: res.GetFinding()}))}
	}
	return printer{cmd, false}.say(nil, "the records of all decisions are those that their entries name, says the hub (%.1f s)", res.GetSeconds())
}

// finding says what is wrong, beginning with the entry where one is to blame.
func finding(f audit.Finding) string {
	if f.FirstBad >= 0 && !strings.HasPrefix(f.What, "entry ") {
		return fmt.Sprintf("entry %d: %s", f.FirstBad, f.What)
	}
	return f.What
}

func verifyDecision(ctx context.Context, cmd *cobra.Command, c *client, key string, id waybill.ID) error {
	me, err := c.access.WhoAmI(ctx, &accessv1.WhoAmIRequest{})
	if err != nil {
		return err
	}
	p, err := c.audit.GetDecisionProof(ctx, &auditv1.GetDecisionProofRequest{DecisionId: id.String()})
	if err != nil {
		return err
	}
	if err := checkProof(key, waybill.Tenant(me.GetTenant()), id, p); err != nil {
		return err
	}
	record := "its record is the one that the entry names"
	if p.GetPayload() == "" {
		record = "its record is not there, or not for you, so only the entry was checked"
	}
	return printer{cmd, false}.say(nil, "decision %s is entry %d of %d, proven by %d hashes up to the signed root; %s", id, p.GetIndex(), p.GetSize(), len(p.GetPath()), record)
}

// checkProof checks a proof as somebody without the hub would: its leaf's hash leads to the root that key has signed, the
// leaf is about this decision of this tenant, and the record, where there is one, is the one whose digest the leaf holds.
func checkProof(key string, tenant waybill.Tenant, id waybill.ID, p *auditv1.GetDecisionProofResponse) error {
	r := audit.Receipt{Index: p.GetIndex(), Size: p.GetSize(), Checkpoint: p.GetCheckpoint(), LeafHash: audit.LeafHash([]byte(p.GetLeaf()))}
	for _, h := range p.GetPath() {
		b, err := base64.StdEncoding.DecodeString(h)
		if err != nil {
			return fmt.Errorf("read proof: %w", err)
		}
		r.Path = append(r.Path, b)
	}
	if err := audit.VerifyReceipt(key, []byte(p.GetLeaf()), r); err != nil {
		return findingError{err}
	}
	var leaf audit.DecisionLeaf
	if err := json.Unmarshal([]byte(p.GetLeaf()), &leaf); err != nil {
		return findingError{fmt.Errorf("entry %d is in the log but is not a decision: %w", p.GetIndex(), err)}
	}
	if leaf.T != "decision" || leaf.ID != id || leaf.Tenant != tenant {
		return findingError{fmt.Errorf("entry %d is in the log but is about %s %s of tenant %s, not about decision %s of tenant %s", p.GetIndex(), leaf.T, leaf.ID, leaf.Tenant, id, tenant)}
	}
	if p.GetPayload() == "" {
		return nil // it may have been erased, or tell secrets; the proof holds without it
	}
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(p.GetPayload()))); sum != leaf.Payload {
		return findingError{fmt.Errorf("the record of decision %s was changed: it hashes to %s, entry %d of the log holds %s", id, sum, p.GetIndex(), leaf.Payload)}
	}
	return nil
}
