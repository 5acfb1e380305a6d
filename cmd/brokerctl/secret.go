package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func secretCommand(a *app) *cobra.Command {
	return group("secret", "Shared secrets and their rotation",
		`A shared secret is a static credential that several workloads hold. The broker
rotates it: stage, apply, prove, promote, drain, retire. Nothing is promoted that
was not proven, and the old value ends only when every consumer was seen on the
new one. The value itself is never shown here: it is in Vault.`,
		secretList(a), secretGet(a), secretStatus(a), secretCreate(a), secretUpdate(a), secretRotate(a), secretAck(a), secretAbort(a),
		deletion(a, "secret", "SECRET", "orders-db",
			"delete forgets a shared secret; its value stays where it is. The id is never used again.",
			secretArgument, func(ctx context.Context, admin *client.Admin, id credential.AccountID, version uint64, reason string) error {
				return admin.Secrets().Delete(ctx, id.String(), version, reason)
			}))
}

// secretArgument reads the id of a secret: its grammar is that of an account.
var secretArgument = credential.ParseAccountID

func secretList(a *app) *cobra.Command {
	var f client.SecretFilter
	c := &cobra.Command{
		Use: "list", Short: "List shared secrets", Args: cobra.NoArgs,
		Example: "  brokerctl secret list --tenant acme\n  brokerctl secret list --account billing-worker",
	}
	secretFilterFlags(c, &f)
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return printList(a, admin.Secrets().List(ctx, f), columns[wire.Secret]{
				[]string{"SECRET", "KIND", "TENANT", "VERSION", "STATE", "ROTATED", "NEXT", "ATTENTION"},
				func(s wire.Secret) []string {
					return []string{s.ID, s.Kind, secretHome(s.SecretTerms), fmt.Sprint(s.Status.Current), secretState(s.Status),
						when(s.Status.RotatedAt), when(s.Status.Next), shortened(attention(s.Status), 60)}
				},
			})
		})
	})
	return c
}

func secretFilterFlags(c *cobra.Command, f *client.SecretFilter) {
	parsed(c.Flags(), &f.Tenant, credential.ParseTenant, "tenant", "tenant", `all of this tenant; "system": those of no tenant`)
	parsed(c.Flags(), &f.Account, credential.ParseAccountID, "account", "account", "all that this account could read")
}

func secretHome(t wire.SecretTerms) string {
	if t.Shared {
		return "shared"
	}
	return t.Tenant.String()
}

// secretState says in a word or two where the rotation is.
func secretState(s wire.SecretStatus) string {
	if s.Step == "" {
		return "idle"
	}
	if n := len(s.Uptake); s.Step == "drain" && n > 0 {
		missing := 0
		if s.Waiting != nil {
			missing = len(s.Waiting.Consumers)
		}
		return fmt.Sprintf("drain %d/%d", n-missing, n)
	}
	return s.Step
}

// attention says what somebody should look after.
func attention(s wire.SecretStatus) string {
	var all []string
	add := func(yes bool, text string) {
		if yes {
			all = append(all, text)
		}
	}
	add(s.Overdue, "overdue")
	add(s.Waiting != nil && s.Waiting.Late, "consumers late")
	add(s.Waiting != nil && len(s.Waiting.Absent) > 0, absentText(s.Waiting))
	add(s.Drift != "", "drift: "+s.Drift)
	add(s.Problem != "", "problem: "+s.Problem)
	add(s.Attempt != nil && s.Attempt.Error != "", "failing: "+errorOf(s.Attempt))
	add(s.Attempt == nil && s.Last != nil && s.Last.Outcome == "failed", "last failed: "+errorOf(s.Last))
	return strings.Join(all, "; ")
}

// absentText says which consumers can't come, and why.
func absentText(w *wire.SecretWait) string {
	if w == nil || len(w.Absent) == 0 {
		return ""
	}
	return "can't come: " + absentNames(w.Absent)
}

func absentNames(absent []wire.SecretAbsent) string {
	names := make([]string, 0, len(absent))
	for _, c := range absent {
		names = append(names, fmt.Sprintf("%s (%s)", c.Account, strings.ReplaceAll(c.Why, "_", " ")))
	}
	return strings.Join(names, ", ")
}

func errorOf(a *wire.SecretAttempt) string {
	if a == nil {
		return ""
	}
	return a.Error
}

func secretGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get SECRET", Short: "Show what is declared of a secret, and its status", Args: cobra.ExactArgs(1),
		Example: "  brokerctl secret get orders-db -o yaml",
		RunE: a.does(func(ctx context.Context, args []string) error {
			id, err := argument(args[0], secretArgument)
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return show(a)(admin.Secrets().Get(ctx, id.String()))
			})
		}),
	}
}

// secretFlags are what create and update have in common.
type secretFlags struct {
	terms     wire.SecretTerms
	specFile  string
	set       []string
	consumers string
	schedule  wire.SecretSchedule
	window    string
	owner     credential.AccountID
}

func (s *secretFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.specFile, "spec-file", "", "file with the spec, a JSON object; - for stdin")
	f.StringArrayVar(&s.set, "set", nil, `one member of the spec, NAME=VALUE; VALUE is text, a number, true, false, or a list as JSON, e.g. ["10.0.0.0/8"]; may be repeated`)
	parsed(f, &s.owner, credential.ParseAccountID, "account", "owner", "the account to whom it belongs")
	f.StringVar(&s.consumers, "consumers", "", "the accounts that use it, separated by commas")
	f.StringVar(&s.terms.Description, "description", "", "what it is for")
	f.StringVar(&s.schedule.Every, "every", "", "rotate at this interval, e.g. 720h")
	f.StringVar(&s.schedule.Cron, "cron", "", "rotate by cron: minute hour day month weekday")
	f.StringVar(&s.schedule.Zone, "zone", "", "time zone of --cron and --window, e.g. Europe/Berlin (default UTC)")
	f.StringVar(&s.schedule.Jitter, "jitter", "", "begin later by up to this much, e.g. 30m")
	f.StringVar(&s.window, "window", "", "begin only then: [DAYS ]FROM-TO, e.g. mon,tue 22:00-04:00")
	f.StringVar(&s.terms.MaxAge, "max-age", "", "older than this it is overdue (default 2160h, and less for a client-secret)")
	f.StringVar(&s.terms.DrainDeadline, "drain-deadline", "", "consumers that take longer are an alarm (default 168h)")
	f.StringVar(&s.terms.Overlap, "overlap", "", "how long the old value stays when the last consumer was seen on the new one: longer than the slowest process takes to switch (default 10m)")
	f.StringVar(&s.terms.Pair, "pair", "", "a secret that must never be rotated at the same time")
}

// read fills in the terms from the flags that were given.
func (s *secretFlags) read(a *app, c *cobra.Command) (err error) {
	changed := c.Flags().Changed
	if changed("spec-file") || changed("set") {
		if s.terms.Spec, err = readSpec(a, s.specFile, s.set); err != nil {
			return err
		}
	}
	s.terms.Owner = s.owner
	for _, text := range strings.Split(s.consumers, ",") {
		if text == "" {
			continue
		}
		id, err := credential.ParseAccountID(text)
		if err != nil {
			return usageError{fmt.Errorf("--consumers: %w", err)}
		}
		s.terms.Consumers = append(s.terms.Consumers, id)
	}
	if changed("window") {
		if s.schedule.Window, err = parseWindow(s.window); err != nil {
			return usageError{err}
		}
	}
	if s.schedule != (wire.SecretSchedule{}) { // the window is a pointer, and was not there before
		s.terms.Schedule = &s.schedule
	}
	return nil
}

// readSpec reads the spec from a file and from single members.
func readSpec(a *app, file string, set []string) (json.RawMessage, error) {
	spec := map[string]any{}
	if file != "" {
		const most = 64 << 10
		data, err := a.readInput(file, most)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &spec); err != nil {
			return nil, usageError{errors.New("the spec is not a JSON object")}
		}
	}
	for _, member := range set {
		name, value, found := strings.Cut(member, "=")
		if !found || name == "" {
			return nil, usageError{errors.New("--set takes NAME=VALUE")}
		}
		var err error
		if spec[name], err = specValue(value); err != nil {
			return nil, usageError{fmt.Errorf("--set %s: %w", name, err)}
		}
	}
	return json.Marshal(spec)
}

// specValue is the value of --set: numbers, true, false and lists are JSON, and
// all else is text as it stands.
func specValue(text string) (any, error) {
	var number json.Number
	switch {
	case text == "true" || text == "false":
		return text == "true", nil
	case strings.HasPrefix(text, "["):
		if !json.Valid([]byte(text)) {
			return nil, errors.New(`a list is written as JSON, such as ["10.0.0.0/8"]`)
		}
		return json.RawMessage(text), nil
	case json.Unmarshal([]byte(text), &number) == nil && number != "" && text[0] != '"':
		return number, nil
	}
	return text, nil
}

// readInput reads a bounded file, or stdin for "-".
func (a *app) readInput(file string, most int64) ([]byte, error) {
	in := a.in
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the user names the file
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(data)) > most {
		err = usageError{fmt.Errorf("more than %d bytes", most)}
	}
	return data, err
}

func parseWindow(s string) (*wire.SecretWindow, error) {
	days, times, both := strings.Cut(s, " ")
	if !both {
		days, times = "", s
	}
	from, to, found := strings.Cut(times, "-")
	if !found {
		return nil, errors.New("--window takes [DAYS ]FROM-TO, e.g. mon,tue 22:00-04:00")
	}
	w := &wire.SecretWindow{From: from, To: to}
	if days != "" {
		w.Days = strings.Split(days, ",")
	}
	return w, nil
}

func secretCreate(a *app) *cobra.Command {
	var flags secretFlags
	var reason string
	c := &cobra.Command{
		Use: "create SECRET --kind KIND --tenant TENANT --owner ACCOUNT --consumers LIST --reason WHY", Short: "Declare a shared secret", Args: cobra.ExactArgs(1),
		Long: `create declares a shared secret, so that the broker rotates it. Nothing changes
until its schedule says so or brokerctl secret rotate is asked for.

Kinds and their specs:
  kv                      path, and mount, field, length, alphabet
  database-static-pair    roles, publish, postgres, query; see docs/guides/postgres-rotation.md
  client-secret           account, path, lifetime; --max-age and the drain deadline fit into
                          the lifetime, at most 90 days: rotate every 1992h or more often
  webhook                 url, audience, and inspect (true), allowed_cidrs (a list), ca_bundle,
                          and tenant where the secret is shared`,
		Example: `  brokerctl secret create orders-hmac --kind kv --tenant acme --set path=tenants/acme/orders-hmac \
    --owner orders --consumers orders,mailer --every 720h --reason "was a file on two machines"
  brokerctl secret create orders-db --kind database-static-pair --shared --spec-file orders-db.json \
    --owner orders --consumers orders --cron "30 3 1 * *" --zone Europe/Berlin --reason "monthly"`,
	}
	c.Flags().StringVar(&flags.terms.Kind, "kind", "", "what is rotated (required)")
	parsed(c.Flags(), &flags.terms.Tenant, credential.ParseTenant, "tenant", "tenant", "whose it is")
	c.Flags().BoolVar(&flags.terms.Shared, "shared", false, "it is of no tenant")
	flags.add(c)
	reasonFlag(c, &reason)
	required(c, "kind", "owner", "consumers")
	c.MarkFlagsOneRequired("tenant", "shared")
	c.MarkFlagsMutuallyExclusive("tenant", "shared")
	c.MarkFlagsOneRequired("spec-file", "set")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], secretArgument)
		if err != nil {
			return err
		}
		if err := flags.read(a, c); err != nil {
			return err
		}
		flags.terms.ID = id.String()
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(admin.Secrets().Create(ctx, wire.SecretCreate{SecretTerms: flags.terms, Reason: reason}))
		})
	})
	return c
}

func secretUpdate(a *app) *cobra.Command {
	var flags secretFlags
	var reason string
	var version uint64
	var manual bool
	c := &cobra.Command{
		Use: "update SECRET --reason WHY", Short: "Change what is declared of a secret", Args: cobra.ExactArgs(1),
		Long: `update changes what is declared. Lists and the schedule are replaced as a whole;
of the spec only the members that are given. While a rotation is under way the
spec can't change.`,
		Example: "  brokerctl secret update orders-db --consumers orders,reports --reason \"reports reads it too\"",
	}
	flags.add(c)
	c.Flags().BoolVar(&manual, "manual", false, "rotate only when asked for: no schedule")
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.MarkFlagsMutuallyExclusive("manual", "every", "cron")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], secretArgument)
		if err != nil {
			return err
		}
		if err := flags.read(a, c); err != nil {
			return err
		}
		p := newPatch(c, reason)
		p.set("spec-file", "spec", flags.terms.Spec)
		p.set("set", "spec", flags.terms.Spec)
		p.set("owner", "owner", flags.owner)
		p.set("consumers", "consumers", flags.terms.Consumers)
		p.set("description", "description", flags.terms.Description)
		p.set("max-age", "max_age", flags.terms.MaxAge)
		p.set("drain-deadline", "drain_deadline", flags.terms.DrainDeadline)
		p.set("overlap", "overlap", flags.terms.Overlap)
		p.set("pair", "pair", orNull(flags.terms.Pair))
		p.set("manual", "schedule", nil)
		if flags.terms.Schedule != nil {
			p.members["schedule"] = wholeSchedule(flags.schedule)
		}
		if err := p.check(); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			all := admin.Secrets()
			at, err := basis(version, func() (*wire.Secret, error) { return all.Get(ctx, id.String()) }, func(x *wire.Secret) uint64 { return x.Version })
			if err != nil {
				return err
			}
			return show(a)(all.Update(ctx, id.String(), at, p.members))
		})
	})
	return c
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// wholeSchedule names every member, so that a merge patch leaves none of the
// old ones.
func wholeSchedule(s wire.SecretSchedule) map[string]any {
	out := map[string]any{
		"every": orNull(s.Every), "cron": orNull(s.Cron), "zone": orNull(s.Zone), "jitter": orNull(s.Jitter), "window": nil,
	}
	if w := s.Window; w != nil {
		days := any(nil)
		if len(w.Days) > 0 {
			days = w.Days
		}
		out["window"] = map[string]any{"days": days, "from": w.From, "to": w.To}
	}
	return out
}
