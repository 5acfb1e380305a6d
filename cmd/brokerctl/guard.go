package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

func guardCommand(a *app) *cobra.Command {
	return group("guard", "Keep PostgreSQL to the rows of one tenant, and see that it does", "", guardSQL(a), guardCheck(a))
}

func guardSQL(a *app) *cobra.Command {
	var tables []string
	var column, role string
	var strict bool
	c := &cobra.Command{
		Use: "sql", Short: "Write the policies and the role for tables with tenants' rows", Args: cobra.NoArgs,
		Long: `sql writes what a superuser runs once, or again, so that a service sees the rows of
one tenant per transaction: row security enabled and forced on each table, two
policies, the function that they call with its owner, and the service's role. It
is one transaction, reads nothing and asks no server: look through it, then give
it to psql. The same flags write the same text.

Names are written as in SQL: orders is public.orders, Orders is orders, and
'"Orders"' is in capitals. A partition or a child that is used by its own name is a
table to be named too. Who uses it: pgguard in Go; in other languages, SELECT
set_config('tenantguard.tenant', TENANT, true) after BEGIN, in plain mode.

With --strict the tenant is signed for the one transaction, by a key that the
service holds and its role can't read: injected SQL chooses none. A service that
does not sign then sees no rows, and the other way round.`,
		Example: `  brokerctl guard sql --table shop.orders --table shop.items --role shop_app > policies.sql
  psql -v ON_ERROR_STOP=1 -d shop -f policies.sql
  brokerctl guard sql --table '"Shop"."Orders"' --column tenant_id --strict`,
	}
	f := c.Flags()
	f.StringArrayVar(&tables, "table", nil, "a table, e.g. shop.orders; may be repeated (required)")
	f.StringVar(&column, "column", "tenant", "their column with the tenant, of type text or varchar")
	f.StringVar(&role, "role", "", "the service's role: made where it is missing, and given rows, without password")
	f.BoolVar(&strict, "strict", false, "the tenant is signed")
	required(c, "table")
	for _, name := range []string{"table", "column", "role"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // fails for a flag that doesn't exist
	}
	c.RunE = a.does(func(context.Context, []string) error {
		p := pgguard.Policies{Role: role, Strict: strict}
		named := map[pgguard.Table]bool{}
		for _, name := range tables {
			t, err := pgguard.ParseTable(name, column)
			if err != nil {
				return usageError{err}
			}
			if named[t] {
				return usageError{fmt.Errorf("the table %s is named twice", t)}
			}
			named[t] = true
			p.Tables = append(p.Tables, t)
		}
		script, err := p.SQL()
		if err != nil {
			return usageError{err}
		}
		_, err = io.WriteString(a.out, script)
		return err
	})
	return c
}

const guardCheckText = `check looks at a live database for what would let a service's role past the
policies: tables with a column for the tenant that are not protected, or not any
more, partitions and children that are reached by their own name, foreign tables;
views, materialized views, rules and functions that go round the policies; rights
that row security does not cover; and the role itself. Nothing is written, no row
is read and no function of the database's is called.

Each finding is an error (the role can read or write another tenant's rows), a
warning (it can't yet, or only together with something else), or a note (it tells
that something exists, or matters once something changes). Errors and warnings
that are not accepted exit with 8. A database in which no table has such a column
is no success: 1. One that does not answer exits with 6, one that refuses the
login with 3. See brokerctl exit-codes --help.

The database is, the first of them that is there:

  --dsn         a connection string or URL, without a password
  --dsn-file    a file with one, which may hold a password (mode 0600)
  $BROKERCTL_GUARD_DSN
  the variables of libpq: PGHOST, PGSERVICE and so on

A password comes from --dsn-file, $BROKERCTL_GUARD_DSN, PGPASSFILE or ~/.pgpass,
a service file, or PGPASSWORD; never from the command line, where others see it.

Any role may ask. --role says whose rights count; without it, those of who asks:
so ask as the service itself, or name its role.

What is known and meant goes into a file for --accept, by kind and object as they
are shown:

  accepted:
    - kind: view-bypasses
      object: shop.totals
      reason: sums over all tenants, for the billing job
      until: 2027-06-30                        (optional: through that day)

What is accepted and was not found is said, so that the file does not outlive what
it is for.`

// checkFlags are what the person asked for.
type checkFlags struct {
	dsn, dsnFile, accept string
	options              pgguard.InspectOptions
}

func guardCheck(a *app) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use: "check", Short: "Look at a live database for ways past the policies", Args: cobra.NoArgs, Long: guardCheckText,
		Example: `  PGPASSFILE=ci.pgpass brokerctl guard check --dsn "host=db.internal dbname=shop user=ci sslmode=verify-full" --role shop_app
  brokerctl guard check --dsn-file shop.dsn --role shop_app --role shop_jobs --column tenant_id --strict
  PGSERVICE=shop brokerctl guard check --accept accepted.yaml -o json`,
	}
	flags := c.Flags()
	flags.StringVar(&f.dsn, "dsn", "", "the database, without a password")
	flags.StringVar(&f.dsnFile, "dsn-file", "", "file with the database, mode 0600")
	flags.StringArrayVar(&f.options.Columns, "column", []string{"tenant", "tenant_id"}, "a name of columns with the tenant; may be repeated")
	flags.StringArrayVar(&f.options.Schemas, "schema", nil, "only tables of this schema; may be repeated")
	flags.StringArrayVar(&f.options.Roles, "role", nil, "a role that services connect as; may be repeated (default: the one that asks)")
	flags.BoolVar(&f.options.Strict, "strict", false, "a tenant that is not signed is an error")
	flags.StringVar(&f.accept, "accept", "", "file with findings that are known and meant")
	flags.DurationVar(&f.options.Timeout, "timeout", pgguard.DefaultTimeout, fmt.Sprintf("for all of it, at most %s", pgguard.MaxTimeout))
	c.MarkFlagsMutuallyExclusive("dsn", "dsn-file")
	_ = c.MarkFlagFilename("dsn-file") // fails for a flag that doesn't exist
	_ = c.MarkFlagFilename("accept", "yaml", "yml")
	for _, name := range []string{"dsn", "column", "schema", "role", "timeout"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	c.RunE = a.does(func(ctx context.Context, _ []string) error { return a.guardCheck(ctx, f) })
	return c
}

func (a *app) guardCheck(ctx context.Context, f checkFlags) error {
	if f.options.Timeout <= 0 {
		return usageError{errors.New("--timeout is not positive")}
	}
	accepted, err := readAccepted(f.accept)
	if err != nil {
		return err
	}
	config, err := a.databaseConfig(f.dsn, f.dsnFile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	found, err := inspectDatabase(ctx, config, f.options)
	if err != nil {
		return err
	}
	if unverifiedServer(config) {
		a.note("Whose database answered was not verified: sslmode=verify-full does")
	}
	return a.concludeCheck(found, accepted)
}

// checkReport is what is printed of a check.
type checkReport struct {
	*pgguard.Inspection
	Accepted []acceptedFinding `json:"accepted"`
}

// concludeCheck prints a check, and makes the exit code of it.
func (a *app) concludeCheck(found *pgguard.Inspection, accepted acceptances) error {
	r := checkReport{Inspection: found}
	found.Findings, r.Accepted = accepted.split(found.Findings, a.now())
	for _, e := range accepted.idle(found, r.Accepted, a.now()) {
		a.note("%s", e)
	}
	if err := a.printCheck(r); err != nil {
		return err
	}
	counts := checkCounts(r)
	bad := found.More // what is not named is as bad as what is
	for _, x := range found.Findings {
		if x.Severity != pgguard.SeverityNote {
			bad++
		}
	}
	if len(found.Tables) == 0 { // it would look like a database in order
		counts = "no table was checked: none has such a column, or a policy of guard's; name it with --column; " + counts
	}
	switch {
	case bad > 0:
		return findingsError{counts}
	case len(found.Tables) == 0:
		return errors.New(counts)
	}
	a.note("%s", counts)
	return nil
}

func checkCounts(r checkReport) string {
	n := map[pgguard.Severity]int{}
	for _, f := range r.Findings {
		n[f.Severity]++
	}
	text := fmt.Sprintf("%s, %s, %s, %d accepted", several(n[pgguard.SeverityError], "error"), several(n[pgguard.SeverityWarning], "warning"),
		several(n[pgguard.SeverityNote], "note"), len(r.Accepted))
	if r.More > 0 {
		text += fmt.Sprintf(", and %d more findings", r.More)
	}
	return text
}

// printCheck writes the findings as doctor does, and what was looked at.
func (a *app) printCheck(r checkReport) error {
	if a.output != outputTable {
		return a.printData(r)
	}
	for _, f := range r.Findings {
		line := fmt.Sprintf("%-8s %s %s: %s", strings.ToUpper(string(f.Severity)), f.Kind, f.Object, f.What)
		for _, text := range []string{line, "         " + f.Next} {
			if _, err := fmt.Fprintln(a.out, printable(strings.Join(strings.Split(text, "\n"), " "))); err != nil {
				return err
			}
		}
	}
	a.note("%s, as %s: %s with tenants' rows, mode %s, PostgreSQL %s", r.Database, strings.Join(r.Roles, ", "), several(len(r.Tables), "table"), r.Mode, r.Version)
	if n := len(r.Others); n > 0 {
		a.note("%s that the role reaches without a tenant in it: %s", several(n, "table"), shortened(strings.Join(r.Others, ", "), 200))
	}
	return nil
}

// inspectDatabase connects for one inspection.
func inspectDatabase(ctx context.Context, c *databaseConfig, o pgguard.InspectOptions) (*pgguard.Inspection, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // nothing was written
	}()
	found, err := pgguard.Inspect(ctx, conn, o)
	if err != nil {
		return nil, c.explain(err)
	}
	return found, nil
}
