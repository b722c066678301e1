package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waybill"
	"waybill/audit"
	"waybill/audit/evidence"
	auditv1 "waybill/proto/waybill/audit/v1"
)

func newEvidence(cl *clientFlags) *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "evidence DECISION", Short: "Save all that proves a decision, for people without this hub", Args: exact("DECISION"),
		Long: `Writes a zip file with the decision's entry and record, the entries that it rests
on (model, approval, endpoint, features, policy, training set), a proof for each,
the signed checkpoint, the log's key, and report.html, a page for people. What you
may not see is left out, and the bundle says so.

Whoever gets it checks it without a hub and without a network:
  waybill log verify --bundle FILE --key KEY
or, with OpenSSL and Python only, by the commands in report.html.`,
		Example: "  waybill evidence 0199…\n  waybill evidence 0199… -o for-the-auditor.zip",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			id, err := waybill.ParseID("DECISION", args[0])
			if err != nil {
				return usageError{err}
			}
			at, err := c.audit.GetLog(ctx, &auditv1.GetLogRequest{})
			if err != nil {
				return err
			}
			raw, err := fetchEvidence(ctx, c, id)
			if err != nil {
				return err
			}
			v, err := verifyBundle(raw, at.GetVerifierKey())
			if err != nil {
				return err
			}
			if to == "-" {
				_, err := p.cmd.OutOrStdout().Write(raw)
				return err
			}
			if to == "" {
				to = "evidence-" + id.String() + ".zip"
			}
			if err := writeNew(to, raw); err != nil {
				return err
			}
			if p.json {
				return json.NewEncoder(p.cmd.OutOrStdout()).Encode(map[string]any{"file": to, "bytes": len(raw), "verifier_key": at.GetVerifierKey(), "evidence": v})
			}
			return p.say(nil, "%s: %s\nThe key of the log is %s; whoever checks the bundle should have it from elsewhere.", to, sumUp(v), at.GetVerifierKey())
		})}
	cmd.Flags().StringVarP(&to, "output", "o", "", "file to write, - for standard output (default evidence-DECISION.zip)")
	return cmd
}

// fetchEvidence reads a bundle from the hub's REST door, or the problem that it answers with.
func fetchEvidence(ctx context.Context, c *client, id waybill.ID) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/v1/decisions/"+id.String()+"/evidence", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return nil, waybill.Wrap(waybill.Unavailable, err, "the hub at "+c.url+" does not answer")
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, evidence.MaxBundle+1))
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var problem struct {
			Detail string `json:"detail"`
		}
		if json.Unmarshal(raw, &problem) != nil || problem.Detail == "" {
			return nil, fmt.Errorf("read evidence: status %d", res.StatusCode)
		}
		return nil, errors.New(problem.Detail)
	}
	return raw, nil
}

// writeNew writes a file that is not there yet: evidence is not written over. What cannot be written whole is not left.
func writeNew(path string, raw []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usageError{fmt.Errorf("%s exists; give another name with -o", path)}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func verifyBundle(raw []byte, key string) (evidence.Verdict, error) {
	members, err := evidence.Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return evidence.Verdict{}, found(err)
	}
	v, err := evidence.Verify(members, key)
	return v, found(err)
}

// found makes a finding of what is wrong with the thing that was checked; the rest is an error.
func found(err error) error {
	if waybill.CodeOf(err) == waybill.Corrupt {
		return findingError{err}
	}
	return err
}

// offlineFiles are what log verify checks without a hub.
type offlineFiles struct{ bundle, proof, leaf, entries, checkpoint string }

func (o *offlineFiles) given() bool { return o.bundle != "" || o.proof != "" || o.entries != "" }

// check refuses flags that do not go together; others are flags that say what to check too.
func (o *offlineFiles) check(others ...string) error {
	switch {
	case len(filled(append(others, o.bundle, o.proof, o.entries)...)) > 1:
		return usageError{errors.New("one thing at a time: give one of --dir, --bundle, --proof, --entries and --decision")}
	case (o.proof == "") != (o.leaf == ""):
		return usageError{errors.New("a proof says where an entry is and not what it is; give both --proof and --leaf")}
	case (o.entries == "") != (o.checkpoint == ""):
		return usageError{errors.New("entries are checked against a checkpoint; give both --entries and --checkpoint")}
	}
	return nil
}

func (o *offlineFiles) verify(cl *clientFlags, cmd *cobra.Command, key string) error {
	switch {
	case o.bundle != "":
		return verifyBundleFile(cl, cmd, o.bundle, key)
	case o.proof != "":
		return verifyProofFile(cl, cmd, o.proof, o.leaf, key)
	default:
		return verifyEntriesFile(cl, cmd, o.entries, o.checkpoint, key)
	}
}

// verifyEntriesFile checks all entries of a log, in one file, against a checkpoint.
func verifyEntriesFile(cl *clientFlags, cmd *cobra.Command, entries, checkpoint, key string) (err error) {
	raw, err := readInput(cl.env, checkpoint, evidence.MaxProof)
	if err != nil {
		return err
	}
	c, err := evidence.OpenCheckpoint(key, raw)
	if err != nil {
		return found(err)
	}
	f, err := os.Open(entries)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := evidence.CheckEntries(f, c, progress(cl.env, "verify")); err != nil {
		return found(err)
	}
	return printer{cmd, false}.say(nil, "%d entries are the tree that %s has signed", c.Size, c.Origin)
}

// verifyBundleFile checks a bundle without a hub.
func verifyBundleFile(cl *clientFlags, cmd *cobra.Command, path, key string) error {
	if key == "" {
		notes(cl.env.Err)("trusting the key that the bundle itself holds, which shows that it is whole and not whose it is; give the log's key with --key")
	}
	v, used, err := evidence.VerifyFile(path, key)
	if err != nil {
		return found(err)
	}
	if cl.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"verifier_key": used, "evidence": v})
	}
	p := printer{cmd, false}
	if err := p.say(nil, "%s\nkey: %s", sumUp(v), used); err != nil {
		return err
	}
	var rows [][]any
	for _, e := range v.Entries {
		rows = append(rows, []any{e.Index, audit.RoleWords(e.Role), e.Subject, "proven"})
	}
	for _, m := range v.Missing {
		rows = append(rows, []any{"-", audit.RoleWords(m.Role), m.Subject, "not in the bundle: " + m.Why})
	}
	return p.table(nil, []string{"ENTRY", "WHAT", "ABOUT", ""}, rows)
}

// sumUp says in one line what a bundle proved.
func sumUp(v evidence.Verdict) string {
	record := "its record is the one that the entry names"
	if !v.Payload {
		record = "its record is not there (" + v.PayloadMissing + ")"
	}
	out := fmt.Sprintf("decision %s of tenant %s is entry %d of the %d that %s has signed; %s; %d entries that it rests on are proven", v.Decision, v.Tenant, v.Entries[0].Index, v.Size, v.Origin,
		record, len(v.Entries)-1)
	if len(v.Missing) > 0 {
		out += fmt.Sprintf(", %d are not in the bundle", len(v.Missing))
	}
	return out
}

// verifyProofFile checks one entry against a .tlog-proof without a hub.
func verifyProofFile(cl *clientFlags, cmd *cobra.Command, proof, leaf, key string) error {
	raw, err := readInput(cl.env, proof, evidence.MaxProof)
	if err != nil {
		return err
	}
	entry, err := readInput(cl.env, leaf, 1<<16)
	if err != nil {
		return err
	}
	p, err := evidence.ParseProof(raw)
	if err != nil {
		return err
	}
	c, err := p.Verify(key, entry)
	if err != nil {
		return found(err)
	}
	return printer{cmd, false}.say(nil, "%s is entry %d of the %d that %s has signed", leaf, p.Index, c.Size, c.Origin)
}

// keyOf reads --key: a verifier key, or a file that holds one.
func keyOf(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	b, err := os.ReadFile(text)
	if errors.Is(err, fs.ErrNotExist) || len(text) > 1000 {
		return text, nil
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
