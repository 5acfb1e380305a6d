package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// app is what the commands share: streams, clock, global flags.
type app struct {
	in     io.Reader
	out    io.Writer
	err    io.Writer
	asks   bool // a person is at stdin
	getenv func(string) string
	now    func() time.Time

	configPath  string
	contextName string
	output      string

	started bool // arguments and flags were in order
}

func newApp() *app {
	return &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		asks:   term.IsTerminal(int(os.Stdin.Fd())), // /dev/null is a device too, and no person
		getenv: os.Getenv, now: time.Now,
	}
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, a *app, args []string) int {
	root := newRoot(a) //nolint:contextcheck // each command gets ctx from ExecuteContext
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = usageError{err}
	}
	code, hint := classify(err)
	_, _ = fmt.Fprintln(a.err, "brokerctl: "+printable(err.Error())) // stderr is the last resort
	if hint != "" {
		_, _ = fmt.Fprintln(a.err, "  "+hint)
	}
	return code
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "brokerctl",
		Short: "Administer a tenantbroker",
		Long: `brokerctl administers a tenantbroker: tenants, service accounts, audiences,
grants, trusted issuers, operators, signing keys and the audit trail. It also
gets, reads, verifies and revokes access tokens.

Sign in once per broker:   brokerctl login --issuer URL --account ID --key FILE
Then, for example:         brokerctl tenant list`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	// One key in 64, and one credential, begins with a dash.
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if _, wants, _ := strings.Cut(c.Use, " "); wants == "" || strings.HasPrefix(wants, "-") || strings.HasPrefix(wants, "(") {
			return err
		}
		return fmt.Errorf("%w (what begins with a dash and is no flag goes last, after two dashes: --)", err)
	})
	f := root.PersistentFlags()
	f.StringVar(&a.configPath, "config", "", "file with the contexts (default: $"+envConfig+", or tenantbroker/config.yaml in the user's config folder)")
	f.StringVar(&a.contextName, "context", "", "context to use (default: $"+envContext+", or the current one)")
	f.StringVarP(&a.output, "output", "o", outputTable, "table, json or yaml")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON, outputYAML}, cobra.ShellCompDirectiveNoFileComp))
	root.AddGroup(
		&cobra.Group{ID: "access", Title: "Signing in and tokens:"},
		&cobra.Group{ID: "objects", Title: "Who may get what:"},
		&cobra.Group{ID: "running", Title: "Running the broker:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("access", loginCommand(a), contextCommand(a), tokenCommand(a), keygenCommand(a), probeCommand(a), guardCommand(a))
	add("objects", tenantCommand(a), accountCommand(a), audienceCommand(a), grantCommand(a), issuerCommand(a), explainCommand(a))
	add("running", operatorCommand(a), keyCommand(a), secretCommand(a), leaseCommand(a), auditCommand(a), reportCommand(a), doctorCommand(a))
	root.AddCommand(versionCommand(a), exitCodesTopic())
	return root
}

// group is a command that only holds others.
func group(use, short, long string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s has no command %q; see brokerctl %s --help", use, args[0], use)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(children...)
	return c
}

// does wraps a command's work: from here on an error is not one of usage.
func (a *app) does(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		switch a.output {
		case outputTable, outputJSON, outputYAML:
		default:
			return fmt.Errorf("--output is %q: table, json or yaml", a.output)
		}
		a.started = true
		return work(c.Context(), args)
	}
}

// note tells the person something that is not the output.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintln(a.err, printable(fmt.Sprintf(format, args...))) // stderr is the last resort
}

// done tells that something was carried out that leaves no object to print: a
// person on stderr, a script on stdout.
func (a *app) done(result any, format string, args ...any) error {
	if a.output != outputTable {
		return a.printData(result)
	}
	a.note(format, args...)
	return nil
}

var errNotConfirmed = errors.New("not confirmed; nothing was changed")

// confirm asks before what can't be undone: the person types want.
func (a *app) confirm(yes bool, question, want string) error {
	if yes {
		return nil
	}
	if !a.asks {
		return usageError{errors.New("this can't be undone: without a terminal to ask at, say --yes")}
	}
	a.note("%s", question)
	_, _ = fmt.Fprintf(a.err, "Type %s to go on: ", printable(want))
	answer, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != want {
		return errNotConfirmed
	}
	return nil
}
