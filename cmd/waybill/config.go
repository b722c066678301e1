package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"waybill/internal/bucket"
)

// settings configure `waybill serve` and `waybill migrate`.
type settings struct {
	HTTPAddr, GRPCAddr string
	DatabaseURL        string
	MaxConns           int
	S3                 bucket.Config
	LogID              int
	LogOrigin, LogKey  string
	FeaturesTokenKey   string
	Online, OnlineLost string
	Node               string
	TLSCert, TLSKey    string
	Plaintext          bool
	Drain              time.Duration
	Level              slog.Level
}

// setting is one row of the table: how a value is named and read. A secret has no flag, because flags are seen by
// everybody on the machine: it comes from the environment, or from a file that NAME_FILE names.
type setting struct {
	name   string // the flag; the variable is WAYBILL_ and the name in capitals
	preset string
	help   string
	secret bool
	put    func(c *settings, v string) error
}

// table lists every setting of the hub. It is never changed.
var table = []setting{
	{"http-addr", "127.0.0.1:8080", "address of REST and the pages", false, text(func(c *settings) *string { return &c.HTTPAddr })},
	{"grpc-addr", "127.0.0.1:8081", "address of gRPC", false, text(func(c *settings) *string { return &c.GRPCAddr })},
	{"database-url", "", "Postgres 15 or later, e.g. postgres://waybill@db/waybill", true, text(func(c *settings) *string { return &c.DatabaseURL })},
	{"max-conns", "16", "most connections to Postgres", false, number(func(c *settings) *int { return &c.MaxConns }, 4, 1000)},
	{"s3-endpoint", "", "host and port of S3, e.g. s3.example.com:443", false, text(func(c *settings) *string { return &c.S3.Endpoint })},
	{"s3-region", "us-east-1", "region of the bucket", false, text(func(c *settings) *string { return &c.S3.Region })},
	{"s3-bucket", "waybill", "the bucket; it must exist, or s3-create-bucket be set", false, text(func(c *settings) *string { return &c.S3.Bucket })},
	{"s3-create-bucket", "false", "make the bucket when it is not there", false, func(c *settings, v string) (err error) {
		c.S3.Create, err = strconv.ParseBool(v)
		return err
	}},
	{"s3-plaintext", "false", "speak HTTP to S3 instead of HTTPS", false, func(c *settings, v string) error {
		plain, err := strconv.ParseBool(v)
		c.S3.Secure = !plain
		return err
	}},
	{"s3-access-key", "", "access key of S3", true, text(func(c *settings) *string { return &c.S3.AccessKey })},
	{"s3-secret-key", "", "secret key of S3", true, text(func(c *settings) *string { return &c.S3.SecretKey })},
	{"log-id", "1", "number of this node's decision log; no two running nodes may share one", false, number(func(c *settings) *int { return &c.LogID }, 1, 1<<20)},
	{"log-origin", "", "name of the log in its checkpoints, e.g. waybill.example.com/log/1", false, text(func(c *settings) *string { return &c.LogOrigin })},
	{"log-key", "", "signer key of the log (make one with: waybill log keygen)", true, text(func(c *settings) *string { return &c.LogKey })},
	{"features-token-key", "", "32 random characters or more, for the tokens of personal features; needed once a view has some", true, text(func(c *settings) *string { return &c.FeaturesTokenKey })},
	{"online", "memory", "where online feature rows live: memory, or a Redis or Valkey that hubs share, e.g. rediss://user:password@redis:6379", true, text(func(c *settings) *string { return &c.Online })},
	{"online-lost", "error", "what reads of features do while that Redis or Valkey is lost: error, or postgres to read rows kept there, too", false, text(func(c *settings) *string { return &c.OnlineLost })},
	{"node", "hub", "name of this node in leaves and logs", false, text(func(c *settings) *string { return &c.Node })},
	{"tls-cert", "", "certificate file (PEM) for both addresses", false, text(func(c *settings) *string { return &c.TLSCert })},
	{"tls-key", "", "key file (PEM) of the certificate", false, text(func(c *settings) *string { return &c.TLSKey })},
	{"plaintext", "false", "serve without TLS beyond loopback: only behind a proxy that ends TLS", false, func(c *settings, v string) (err error) {
		c.Plaintext, err = strconv.ParseBool(v)
		return err
	}},
	{"drain", "10s", "how long calls may go on after a stop signal", false, func(c *settings, v string) (err error) {
		c.Drain, err = time.ParseDuration(v)
		return err
	}},
	{"log-level", "info", "debug, info, warn or error", false, func(c *settings, v string) error { return c.Level.UnmarshalText([]byte(v)) }},
}

func text(at func(*settings) *string) func(*settings, string) error {
	return func(c *settings, v string) error {
		*at(c) = v
		return nil
	}
}

func number(at func(*settings) *int, least, most int) func(*settings, string) error {
	return func(c *settings, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return fmt.Errorf("must be a number from %d to %d", least, most)
		}
		*at(c) = n
		return nil
	}
}

func (s setting) variable() string {
	return "WAYBILL_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// bindSettings gives a command the flags of the table and writes the variables into its help.
func bindSettings(cmd *cobra.Command, names ...string) {
	var help strings.Builder
	for _, s := range table {
		if len(names) > 0 && !contains(names, s.name) {
			continue
		}
		if s.secret {
			fmt.Fprintf(&help, "  %-26s %s\n", s.variable(), s.help)
			continue
		}
		cmd.Flags().String(s.name, s.preset, s.help+" ("+s.variable()+")")
	}
	cmd.Long += "\n\nSecrets come from the environment, or from a file when _FILE is added to the name:\n" + help.String()
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// readSettings fills the settings from flags, then the environment, then the presets.
func readSettings(cmd *cobra.Command, env environment, names ...string) (settings, error) {
	c := settings{}
	for _, s := range table {
		if len(names) > 0 && !contains(names, s.name) {
			continue
		}
		v, err := s.read(cmd, env)
		if err != nil {
			return c, err
		}
		if err := s.put(&c, v); err != nil {
			return c, usageError{fmt.Errorf("%s (%s): %w", s.name, s.variable(), err)}
		}
	}
	return c, nil
}

func (s setting) read(cmd *cobra.Command, env environment) (string, error) {
	if f := cmd.Flags().Lookup(s.name); f != nil && f.Changed {
		return f.Value.String(), nil
	}
	if v := env.Getenv(s.variable()); v != "" {
		return v, nil
	}
	if file := env.Getenv(s.variable() + "_FILE"); file != "" && s.secret {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read %s_FILE: %w", s.variable(), err)
		}
		return strings.TrimSpace(string(b)), nil
	}
	return s.preset, nil
}

// require stops the boot when something that has no safe preset is missing.
func (c settings) require() error {
	var missing []string
	for _, s := range []struct{ name, value string }{{"WAYBILL_DATABASE_URL", c.DatabaseURL}, {"WAYBILL_S3_ENDPOINT", c.S3.Endpoint},
		{"WAYBILL_S3_ACCESS_KEY", c.S3.AccessKey}, {"WAYBILL_S3_SECRET_KEY", c.S3.SecretKey}, {"WAYBILL_LOG_ORIGIN", c.LogOrigin}, {"WAYBILL_LOG_KEY", c.LogKey}} {
		if s.value == "" {
			missing = append(missing, s.name)
		}
	}
	if len(missing) > 0 {
		return usageError{fmt.Errorf("not set: %s; see: waybill serve --help", strings.Join(missing, ", "))}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return usageError{fmt.Errorf("tls-cert and tls-key belong together; one of them is not set")}
	}
	if c.TLSCert != "" || c.Plaintext {
		return nil
	}
	for _, addr := range []string{c.HTTPAddr, c.GRPCAddr} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return usageError{fmt.Errorf("%s is reachable from elsewhere without TLS; give --tls-cert and --tls-key, or --plaintext behind a proxy that ends TLS", addr)}
		}
	}
	return nil
}
