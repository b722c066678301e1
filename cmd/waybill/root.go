package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill"
)

// environment is everything that a command gets from the outside.
type environment struct {
	Args     []string
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Environ  func() []string
}

// interactive reports whether standard input is a terminal: only then does a demo keep serving.
func (e environment) interactive() bool {
	f, ok := e.In.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// The exit codes. They are part of the command line's contract.
const (
	exitOK      = 0
	exitFailure = 1 // it did not work
	exitUsage   = 2 // it was called wrongly
	exitFinding = 3 // it worked and found something wrong: a log that does not verify, a rebuild that differs
)

// usageError is a wrong flag or argument.
type usageError struct{ error }

// findingError is a check that ran and failed.
type findingError struct{ error }

// Unwrap returns what was wrong with the call.
func (e usageError) Unwrap() error { return e.error }

// Unwrap returns what the check found.
func (e findingError) Unwrap() error { return e.error }

// execute runs one command and returns the exit code. Errors go to standard error.
func execute(ctx context.Context, env environment) int {
	root := newRoot(env)
	root.SetArgs(env.Args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(env.Err, "waybill: "+explain(err))
	var usage usageError
	var finding findingError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &finding):
		return exitFinding
	}
	return exitFailure
}

// explain writes an error for people: the words of the hub, not those of its transport, and the fields that were wrong.
// This is the one place where a gRPC status becomes text.
func explain(err error) string {
	if errors.Is(err, context.Canceled) {
		return "stopped"
	}
	text := err.Error()
	for _, e := range statusErrors(err) {
		st := e.GRPCStatus()
		if st.Code() == codes.Canceled {
			return "stopped"
		}
		text = strings.Replace(text, e.Error(), sentence(st), 1)
	}
	return text
}

// statusError is what every error of a gRPC call is, under whatever it was wrapped in.
type statusError interface {
	error
	GRPCStatus() *status.Status
}

// statusErrors are all statuses in an error's tree.
func statusErrors(err error) []statusError {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself, because errors.As finds one only
	case statusError:
		return []statusError{e}
	case interface{ Unwrap() error }:
		return statusErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var out []statusError
		for _, inner := range e.Unwrap() {
			out = append(out, statusErrors(inner)...)
		}
		return out
	}
	return nil
}

// sentence is what a status says. A hub that is not there says nothing, so the client's words are made ours.
func sentence(st *status.Status) string {
	text := st.Message()
	if _, why, cut := strings.Cut(text, "connection error: desc = "); cut && st.Code() == codes.Unavailable {
		why = strings.TrimPrefix(strings.Trim(why, `"`), "transport: Error while dialing: ")
		return "no hub answers: " + why + "; is it running, and are its addresses right (WAYBILL_URL, WAYBILL_GRPC)?"
	}
	if st.Code() == codes.DeadlineExceeded && strings.HasPrefix(text, "context deadline exceeded") {
		return "the hub did not answer in time"
	}
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				if !strings.Contains(text, v.GetField()+" "+v.GetDescription()) && !strings.Contains(text, v.GetField()+": "+v.GetDescription()) {
					text += "\n  " + v.GetField() + " " + v.GetDescription()
				}
			}
		}
	}
	return text
}

// suggestWithin is how many letters a command may be mistyped by and is still suggested.
const suggestWithin = 2

// exact demands n arguments and names them when they are not there.
func exact(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == len(names):
			return nil
		case len(names) == 0 && cmd.HasSubCommands():
			text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
			cmd.SuggestionsMinimumDistance = suggestWithin
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += "; is it " + strings.Join(near, " or ") + "?"
			}
			return usageError{errors.New(text + " (see --help)")}
		case len(names) == 0:
			return usageError{fmt.Errorf("%s takes no arguments; got %q (see --help)", cmd.CommandPath(), args[0])}
		default:
			return usageError{fmt.Errorf("expected %s; got %d arguments (see --help)", strings.Join(names, " "), len(args))}
		}
	}
}

func newRoot(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "waybill",
		Short: "Feature store and model governance hub",
		Long: `Waybill versions features and models, runs decision endpoints, and writes a
tamper-evident log of every decision with what it was made from.

Start here:        waybill demo          a whole story on synthetic orders
Work with it:      waybill dev           a hub of your own on this machine
In production:     waybill migrate, waybill serve

Commands that talk to a hub find it by --url and --grpc or WAYBILL_URL and
WAYBILL_GRPC, and the token in WAYBILL_TOKEN (or a file named by
WAYBILL_TOKEN_FILE). Without these they use the hub that "waybill dev" runs
in this folder.

Exit codes: 0 done, 1 failed, 2 called wrongly, 3 a check found something wrong.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          exact(),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddGroup(&cobra.Group{ID: "hub", Title: "Run a hub:"}, &cobra.Group{ID: "features", Title: "Features:"},
		&cobra.Group{ID: "models", Title: "Models and endpoints:"}, &cobra.Group{ID: "evidence", Title: "Evidence:"}, &cobra.Group{ID: "people", Title: "Who may do what:"})
	var cl clientFlags
	root.PersistentFlags().StringVar(&cl.url, "url", "", "address of the hub, e.g. http://127.0.0.1:8080 (WAYBILL_URL)")
	root.PersistentFlags().StringVar(&cl.grpc, "grpc", "", "gRPC address of the hub, e.g. 127.0.0.1:8081 (WAYBILL_GRPC)")
	root.PersistentFlags().BoolVar(&cl.json, "json", false, "print answers as JSON")
	cl.env = env
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("hub", newDev(env), newServe(env), newMigrate(env), newDemo(env), newBench(env), newVersion(env, &cl))
	add("features", newPlan(&cl), newApply(&cl), newRetire(&cl), newPush(&cl), newQuarantine(&cl), newRead(&cl), newTrainingSet(&cl))
	add("models", newModel(&cl), newEndpoint(&cl), newDecide(&cl), newDrift(&cl))
	add("evidence", newDecision(&cl), newEvidence(&cl), newLineage(&cl), newLog(&cl))
	add("people", newWhoami(&cl), newAccount(&cl), newToken(&cl), newTenant(&cl))
	return root
}

func newVersion(env environment, cl *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print what this binary was built from", Args: exact(),
		RunE: func(*cobra.Command, []string) error {
			if cl.json {
				return json.NewEncoder(env.Out).Encode(map[string]string{"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			fmt.Fprintf(env.Out, "waybill %s, %s, %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		}}
}

// version is what Go's build information says.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && !strings.Contains(v, s.Value[:12]) {
			v += " (" + s.Value[:12] + ")"
		}
	}
	return v
}

// readInput reads a file, or standard input for "-", of at most max bytes.
func readInput(env environment, name string, max int64) (data []byte, err error) {
	var r io.Reader = env.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		r = f
	}
	data, err = io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, waybill.Errorf(waybill.TooLarge, "%s has more than %d bytes", name, max)
	}
	return data, nil
}
