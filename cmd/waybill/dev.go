package main

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"
)

// localDir is where a local hub keeps its data unless told otherwise.
const localDir = ".waybill"

// isLocalDir reports whether dir is where the command line looks for a hub when none is named.
func isLocalDir(dir string) (bool, error) {
	a, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	b, err := filepath.Abs(localDir)
	return a == b, err
}

// localFlags are the flags that dev and demo share.
type localFlags struct {
	data, http, grpc, info, postgres string
	verbose                          bool
}

func (f *localFlags) bind(cmd *cobra.Command, dir string) {
	cmd.Flags().StringVar(&f.data, "data", dir, "folder for everything the hub keeps")
	cmd.Flags().StringVar(&f.http, "http-addr", "127.0.0.1:8080", "loopback address of REST and the pages; a taken port becomes the next free one")
	cmd.Flags().StringVar(&f.grpc, "grpc-addr", "127.0.0.1:8081", "loopback address of gRPC")
	cmd.Flags().StringVar(&f.info, "info", "", "also write addresses and token to this file as JSON")
	cmd.Flags().StringVar(&f.postgres, "postgres-bin", "", "folder with the Postgres binaries (WAYBILL_POSTGRES_BIN); found by itself in the usual places")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log to standard error")
}

func (f *localFlags) config(env environment) localConfig {
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	bin := f.postgres
	if bin == "" {
		bin = env.Getenv("WAYBILL_POSTGRES_BIN")
	}
	return localConfig{Dir: f.data, HTTPAddr: f.http, GRPCAddr: f.grpc, PostgresBin: bin, Tenant: "demo",
		Logger: slog.New(slog.NewTextHandler(env.Err, &slog.HandlerOptions{Level: level})), Note: notes(env.Err)}
}

// notes writes lines for people.
func notes(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
}

func newDev(env environment) *cobra.Command {
	var f localFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a hub of your own on this machine",
		Long: `Starts a private Postgres and an S3 store in one folder, makes keys and an
administrator's token, and serves on loopback. Nothing needs to be set up.
Killed at any moment, it comes back on the same data. Stop it with Ctrl-C.`,
		Example: "  waybill dev\n  waybill dev --data /var/tmp/hub --http-addr 127.0.0.1:9000",
		Args:    exact(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			infoFile, err := filepath.Abs(f.info)
			if err != nil {
				return err
			}
			c := f.config(env)
			here, err := isLocalDir(c.Dir) // before the S3 gateway changes the working directory
			if err != nil {
				return err
			}
			l, err := openLocal(ctx, c)
			if err != nil {
				return err
			}
			if f.info != "" {
				if err := writeInfo(infoFile, l.info); err != nil {
					return joinClose(err, l)
				}
			}
			find := "In another terminal, tell the command line and other programs where the hub is:"
			if here {
				find = "In another terminal, in this folder, the command line finds the hub by itself;\nelsewhere, and for other programs:"
			}
			fmt.Fprintf(cmd.OutOrStdout(), `
The hub serves. Open it in a browser (the link logs you in):

  %s/#token=%s

REST %s   gRPC %s   OpenAPI %s/openapi.json

%s

  export WAYBILL_URL=%s WAYBILL_GRPC=%s
  export WAYBILL_TOKEN_FILE=%s

Stop with Ctrl-C.
`, l.info.URL, l.info.Token, l.info.URL, l.info.GRPC, l.info.URL, find, l.info.URL, l.info.GRPC, filepath.Join(l.info.Data, "admin.token"))
			return joinClose(l.hub.run(ctx, l.at, drainLocal), l)
		},
	}
	f.bind(cmd, localDir)
	return cmd
}
