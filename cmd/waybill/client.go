package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	accessv1 "waybill/proto/waybill/access/v1"
	auditv1 "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	driftv1 "waybill/proto/waybill/drift/v1"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
	lineagev1 "waybill/proto/waybill/lineage/v1"
	registryv1 "waybill/proto/waybill/registry/v1"
)

// clientFlags say which hub a command talks to.
type clientFlags struct {
	url, grpc string
	json      bool
	env       environment
}

// client is a connection to a hub with every service.
type client struct {
	access    accessv1.AccessServiceClient
	audit     auditv1.AuditServiceClient
	decisions decisionv1.DecisionServiceClient
	drift     driftv1.DriftServiceClient
	features  featurestorev1.FeatureStoreServiceClient
	lineage   lineagev1.LineageServiceClient
	models    registryv1.RegistryServiceClient
	url       string
	token     string
	conn      *grpc.ClientConn
}

// bearer sends a token with every call.
type bearer struct {
	token  string
	secure bool
}

// GetRequestMetadata is what gRPC adds to each call.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity keeps tokens off plain connections, except to this machine.
func (b bearer) RequireTransportSecurity() bool { return b.secure }

// dial connects to a hub. The connection is made by the first call.
func dial(hubURL, target, token string) (*client, error) {
	u, err := url.Parse(hubURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usageError{fmt.Errorf("the address %q is not like http://127.0.0.1:8080", hubURL)}
	}
	secure := u.Scheme == "https"
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(nil)
	} else if h := u.Hostname(); h != "localhost" && !strings.HasPrefix(h, "127.") && h != "::1" {
		return nil, usageError{fmt.Errorf("%s would send the token in the clear; use https", hubURL)}
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithPerRPCCredentials(bearer{token, secure}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", target, err)
	}
	return &client{access: accessv1.NewAccessServiceClient(conn), audit: auditv1.NewAuditServiceClient(conn), decisions: decisionv1.NewDecisionServiceClient(conn),
		drift: driftv1.NewDriftServiceClient(conn), features: featurestorev1.NewFeatureStoreServiceClient(conn), lineage: lineagev1.NewLineageServiceClient(conn),
		models: registryv1.NewRegistryServiceClient(conn), url: strings.TrimRight(hubURL, "/"), token: token, conn: conn}, nil
}

func (c *client) close() error { return c.conn.Close() }

// open finds the hub: flags, environment, then the local hub of this folder.
func (f *clientFlags) open() (*client, error) {
	first := func(vs ...string) string {
		for _, v := range vs {
			if v != "" {
				return v
			}
		}
		return ""
	}
	hubURL, target, token := first(f.url, f.env.Getenv("WAYBILL_URL")), first(f.grpc, f.env.Getenv("WAYBILL_GRPC")), f.env.Getenv("WAYBILL_TOKEN")
	if file := f.env.Getenv("WAYBILL_TOKEN_FILE"); token == "" && file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read WAYBILL_TOKEN_FILE: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	if hubURL == "" && target == "" {
		var i info
		b, err := os.ReadFile(filepath.Join(localDir, "info.json"))
		if err == nil {
			err = json.Unmarshal(b, &i)
		}
		if err != nil {
			return nil, usageError{errors.New(`no hub is named: set WAYBILL_URL, WAYBILL_GRPC and WAYBILL_TOKEN, or run "waybill dev" in this folder`)}
		}
		if !alive(i.PID) {
			return nil, fmt.Errorf("the hub of %s (process %d) does not run; start it with waybill dev", localDir, i.PID)
		}
		hubURL, target, token = i.URL, i.GRPC, first(token, i.Token)
	}
	if hubURL == "" || target == "" {
		return nil, usageError{errors.New("a hub has two addresses; set both WAYBILL_URL (REST) and WAYBILL_GRPC")}
	}
	if token == "" {
		return nil, usageError{errors.New("no token: set WAYBILL_TOKEN or WAYBILL_TOKEN_FILE")}
	}
	return dial(hubURL, target, token)
}

// alive reports whether a process of this machine exists. Somebody else's does too, although it may not be signalled.
func alive(pid int) bool {
	return pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// completeWithin bounds the call behind a press of the tab key.
const completeWithin = 2 * time.Second

// complete makes the completion of a command's first argument from what the hub holds. Without a hub there is none.
func (f *clientFlags) complete(list func(ctx context.Context, c *client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		c, err := f.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		names, err = list(ctx, c)
		if err = errors.Join(err, c.close()); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// endpoints are the names that an argument ENDPOINT may have.
func endpoints(ctx context.Context, c *client) ([]string, error) {
	res, err := c.decisions.ListEndpoints(ctx, &decisionv1.ListEndpointsRequest{PageSize: 1000})
	var out []string
	for _, e := range res.GetEndpoints() {
		out = append(out, e.GetName())
	}
	return out, err
}

// modelVersions are the versions that an argument MODEL@vN may have, newest first.
func modelVersions(ctx context.Context, c *client) ([]string, error) {
	res, err := c.models.ListModelVersions(ctx, &registryv1.ListModelVersionsRequest{PageSize: 1000})
	var out []string
	for _, v := range res.GetVersions() {
		out = append(out, refOf(v))
	}
	return out, err
}

// callWithin bounds every command that is one call.
const callWithin = 2 * time.Minute

// call makes the RunE of a command that talks to a hub.
func (f *clientFlags) call(do func(ctx context.Context, c *client, p printer, args []string) error) func(*cobra.Command, []string) error {
	return f.callFor(callWithin, do)
}

// callFor is call for commands that wait for what takes longer.
func (f *clientFlags) callFor(within time.Duration, do func(ctx context.Context, c *client, p printer, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) (err error) {
		c, err := f.open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		ctx, cancel := context.WithTimeout(cmd.Context(), within)
		defer cancel()
		return do(ctx, c, printer{cmd, f.json}, args)
	}
}

// why checks a reason before anything is sent: the hub demands it too, but knows no flags.
func why(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return usageError{errors.New("say why with --reason; it goes into the log")}
	}
	return nil
}

// printer writes answers: a table or words for people, JSON for programs.
type printer struct {
	cmd  *cobra.Command
	json bool
}

// message writes a whole answer as JSON.
func (p printer) message(m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: p.json, Multiline: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.cmd.OutOrStdout(), string(b))
	return err
}

// table writes rows under a head, or m as JSON when that was asked for.
func (p printer) table(m proto.Message, head []string, rows [][]any) error {
	if p.json {
		return p.message(m)
	}
	w := tabwriter.NewWriter(p.cmd.OutOrStdout(), 2, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = strings.ReplaceAll(fmt.Sprint(c), "\n", " ")
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// say writes one line, or m as JSON when that was asked for.
func (p printer) say(m proto.Message, format string, args ...any) error {
	if p.json {
		return p.message(m)
	}
	_, err := fmt.Fprintf(p.cmd.OutOrStdout(), format+"\n", args...)
	return err
}
