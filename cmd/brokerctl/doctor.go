package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
)

func doctorCommand(a *app) *cobra.Command {
	var strict bool
	c := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong, and what to do next", Args: cobra.NoArgs,
		Long: `doctor reads the broker's report and says what somebody has to look after, the
worst first, and what to do next. Each finding is an error (something does not
work, or is about to stop), a warning (it will, unless someone acts), or a note.

It exits with 8 if there is an error; with --strict, also for a warning. That the
broker gives no token now is an error too, though nobody can sign in to read the
report then. If the broker does not answer, or does not accept this operator, it
exits as any other command would: see brokerctl exit-codes --help.`,
		Example: "  brokerctl doctor\n  brokerctl doctor --strict -o json",
	}
	c.Flags().BoolVar(&strict, "strict", false, "exit with 8 for warnings too")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		err := a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			r, err := admin.Report(ctx)
			if err != nil {
				return err
			}
			return a.conclude(diagnose(r, a.now()), strict)
		})
		if givesNoToken(err) {
			return a.conclude([]finding{{
				severityError, "tokens", "the broker answers, and gives no token now, not even to operators: it can't sign, or not write its store",
				"On its host: curl 127.0.0.1:9090/readyz (ops.listen) says which. With signing.home: vault-transit tokens need Vault: vault status",
			}}, strict)
		}
		return err
	})
	return c
}

// givesNoToken reports whether the broker itself said that it gives none now:
// the finding that nobody can sign in to read. Its other endpoints say the same
// word for something else, in a problem.
func givesNoToken(err error) bool {
	said, ok := errors.AsType[*client.Error](err)
	_, problem := errors.AsType[*wire.Problem](err)
	return ok && !problem && said.Code == wire.OAuthTemporarilyUnavailable
}

// conclude prints findings, and makes the exit code of them.
func (a *app) conclude(found []finding, strict bool) error {
	if err := a.printFindings(found); err != nil {
		return err
	}
	bad, warnings := count(found, severityError), count(found, severityWarning)
	if bad > 0 || strict && warnings > 0 {
		return findingsError{fmt.Sprintf("%s and %s", several(bad, "error"), several(warnings, "warning"))}
	}
	return nil
}

// findingsError says that doctor, guard check or probe found something.
type findingsError struct{ text string }

func (e findingsError) Error() string { return e.text }

func (a *app) printFindings(found []finding) error {
	if a.output != outputTable {
		return a.printData(struct {
			Findings []finding `json:"findings"`
		}{found})
	}
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%-8s %s: %s\n", strings.ToUpper(string(f.Severity)), f.Area, f.What)
		if f.Next != "" {
			fmt.Fprintf(&b, "         %s\n", f.Next)
		}
	}
	if len(found) == 0 {
		b.WriteString("Nothing to look after.\n")
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(a.out, printable(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func count(found []finding, s severity) (n int) {
	for _, f := range found {
		if f.Severity == s {
			n++
		}
	}
	return n
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
