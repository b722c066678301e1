package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"

	"waybill/internal/access"
)

// drainLocal is how long calls to a local hub may go on after a stop signal.
const drainLocal = 3 * time.Second

// joinClose closes a local hub whatever happened before.
func joinClose(err error, l *local) error { return errors.Join(err, l.close()) }

func newServe(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a hub on your Postgres and S3",
		Long: `Serves REST, gRPC and the pages in front of one Postgres and one S3 bucket.
The schema must be this binary's: run "waybill migrate" first. A missing secret
stops the start. On SIGTERM the hub stops taking calls, lets the running ones
end, and closes the log last.`,
		Example: "  WAYBILL_DATABASE_URL_FILE=/run/secrets/db … waybill serve --http-addr 0.0.0.0:8080 --tls-cert hub.pem --tls-key hub.key",
		Args:    exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			c, err := readSettings(cmd, env)
			if err != nil {
				return err
			}
			if err := c.require(); err != nil {
				return err
			}
			logger := slog.New(slog.NewJSONHandler(env.Err, &slog.HandlerOptions{Level: c.Level})).With("node", c.Node)
			h, err := openHub(ctx, hubConfig{DSN: c.DatabaseURL, MaxConns: c.MaxConns, Bucket: c.S3, LogID: c.LogID, Origin: c.LogOrigin, SignerKey: c.LogKey, TokenKey: c.FeaturesTokenKey, Online: c.Online, Lost: c.OnlineLost,
				Node: c.Node, Env: access.Live, Logger: logger})
			if err != nil {
				return err
			}
			defer h.close()
			var l listeners
			if c.TLSCert != "" {
				cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
				if err != nil {
					return fmt.Errorf("read certificate: %w", err)
				}
				l.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
			}
			if l.http, err = net.Listen("tcp", c.HTTPAddr); err != nil {
				return fmt.Errorf("listen for HTTP: %w", err)
			}
			if l.grpc, err = net.Listen("tcp", c.GRPCAddr); err != nil {
				return errors.Join(fmt.Errorf("listen for gRPC: %w", err), l.http.Close())
			}
			logger.InfoContext(ctx, "serving", "http", l.http.Addr().String(), "grpc", l.grpc.Addr().String(), "version", version())
			return h.run(ctx, l, c.Drain)
		},
	}
	bindSettings(cmd)
	return cmd
}

func newMigrate(env environment) *cobra.Command {
	var tenant, who string
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database to this binary's schema",
		Long: `Applies the migrations that the database lacks, each in a transaction of its
own, and never goes back. With --tenant and --admin it also makes that tenant
with its administrator and prints the administrator's token, once: the first
tenant ever made is the hub's own.`,
		Example: "  WAYBILL_DATABASE_URL_FILE=/run/secrets/db waybill migrate --tenant acme --admin ann",
		Args:    exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			c, err := readSettings(cmd, env, "database-url")
			if err != nil {
				return err
			}
			if c.DatabaseURL == "" {
				return usageError{errors.New("WAYBILL_DATABASE_URL is not set; see: waybill migrate --help")}
			}
			if (tenant == "") != (who == "") {
				return usageError{errors.New("--tenant and --admin belong together; one of them is not set")}
			}
			if err := migrate(ctx, c.DatabaseURL, notes(env.Err)); err != nil {
				return err
			}
			notes(env.Err)("the schema is this binary's")
			if tenant == "" {
				return nil
			}
			token, err := bootstrap(ctx, c.DatabaseURL, tenant, who)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token)
			return nil
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "make this tenant")
	cmd.Flags().StringVar(&who, "admin", "", "with this administrator")
	bindSettings(cmd, "database-url")
	return cmd
}
