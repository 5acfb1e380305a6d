package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func secretRotate(a *app) *cobra.Command {
	var reason string
	var f client.SecretFilter
	var now, plan, force, yes bool
	var version uint64
	c := &cobra.Command{
		Use: "rotate [SECRET] [--now --reason WHY]", Short: "Rotate a secret now, or all of a tenant or an account", Args: cobra.MaximumNArgs(1),
		Long: `rotate shows what would be rotated, in which order, and what is held back and why.
With --now it begins, whatever the schedules and their windows say; for --tenant and
--account it shows the plan first and asks, and what is done is what was shown.

--force is for one secret: it ends the wait for consumers that were not seen on
the new value, which breaks those that still use the old one, and goes over what
somebody else has changed. It needs the role security.`,
		Example: `  brokerctl secret rotate --tenant acme --plan
  brokerctl secret rotate orders-db --now --reason "it was in a log"
  brokerctl secret rotate --account mailer --now --reason "the machine was broken into"`,
	}
	secretFilterFlags(c, &f)
	c.Flags().BoolVar(&now, "now", false, "begin")
	c.Flags().BoolVar(&plan, "plan", false, "only show what would be done, as without --now")
	c.Flags().BoolVar(&force, "force", false, "go past what holds the rotation")
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit trail (required with --now)")
	versionFlag(c, &version)
	yesFlag(c, &yes)
	c.MarkFlagsMutuallyExclusive("now", "plan")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		many := !f.Tenant.IsZero() || !f.Account.IsZero()
		switch {
		case many == (len(args) == 1):
			return usageError{errors.New("either one SECRET, or --tenant, --account or both")}
		case many && (force || version != 0):
			return usageError{errors.New("--force and --if-version are for one SECRET")}
		case now && reason == "":
			return usageError{errors.New("--now needs --reason")}
		case force && !now:
			return usageError{errors.New("--force needs --now")}
		}
		if !many {
			id, err := argument(args[0], secretArgument)
			if err != nil {
				return err
			}
			f.ID = id.String()
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			switch all := admin.Secrets(); {
			case !now:
				return a.showPlan(ctx, all, f)
			case many:
				return a.rotateMany(ctx, all, f, yes, reason)
			default:
				return a.rotateOne(ctx, all, f.ID, version, force, yes, reason)
			}
		})
	})
	return c
}

func (a *app) showPlan(ctx context.Context, all client.Secrets, f client.SecretFilter) error {
	p, err := all.Plan(ctx, f)
	if err != nil {
		return err
	}
	return a.printPlan(p)
}

func (a *app) rotateOne(ctx context.Context, all client.Secrets, id string, version uint64, force, yes bool, reason string) error {
	if force {
		st, err := all.Get(ctx, id)
		if err != nil {
			return err
		}
		a.noteForced(st)
		if err := a.confirm(yes, "What is forced can't be undone.", id); err != nil {
			return err
		}
	}
	st, err := all.Rotate(ctx, id, version, force, reason)
	if err != nil {
		return err
	}
	return a.printStatus(st)
}

// noteForced says what force would go past.
func (a *app) noteForced(s *wire.Secret) {
	switch w := s.Status.Waiting; {
	case s.Status.Drift != "":
		a.note("This goes over what somebody else has changed: %s", s.Status.Drift)
	case w != nil && w.For == "uptake":
		a.note("This ends the old value for consumers that were not seen on the new one: %s", joined(w.Consumers))
	}
}

func joined(ids []credential.AccountID) string {
	texts := make([]string, 0, len(ids))
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	return strings.Join(texts, " ")
}

// rotateMany shows the plan, asks, and has done what was shown.
func (a *app) rotateMany(ctx context.Context, all client.Secrets, f client.SecretFilter, yes bool, reason string) error {
	p, err := all.Plan(ctx, f)
	if err != nil {
		return err
	}
	begins := 0
	for _, item := range p.Items {
		if item.Held == "" {
			begins++
		}
	}
	if begins == 0 {
		a.note("nothing to rotate")
		return a.printPlan(p)
	}
	if !yes {
		if err := a.planTable(p).Flush(); err != nil {
			return err
		}
		if err := a.confirm(false, fmt.Sprintf("This begins %d rotations.", begins), fmt.Sprint(begins)); err != nil {
			return err
		}
	}
	started, err := all.RotateAll(ctx, f, p.Digest, reason)
	if err != nil {
		return err
	}
	return a.printPlan(started)
}

func (a *app) printPlan(p *wire.SecretsPlan) error {
	if a.output != outputTable {
		return a.printData(p)
	}
	if len(p.Items) == 0 {
		a.note("none")
		return nil
	}
	return a.planTable(p).Flush()
}

func (a *app) planTable(p *wire.SecretsPlan) *tabwriter.Writer {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	writeRow(w, []string{"SECRET", "KIND", "TENANT", "VERSION", "AFTER", "HELD BACK"})
	for _, i := range p.Items {
		home := i.Tenant.String()
		if i.Shared {
			home = "shared"
		}
		writeRow(w, []string{i.ID, i.Kind, home, fmt.Sprint(i.Current), strings.Join(i.After, " "), i.Held})
	}
	return w
}

func secretAbort(a *app) *cobra.Command {
	var reason string
	var version uint64
	c := &cobra.Command{
		Use: "abort SECRET --reason WHY", Short: "Give a rotation up before its new value is in use", Args: cobra.ExactArgs(1),
		Long: `abort gives up the rotation of a secret: the old value stays, the new one is removed.
Once consumers may hold the new value it is refused.`,
		Example: "  brokerctl secret abort orders-db --reason \"the database is being moved\"",
	}
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], secretArgument)
		if err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			st, err := admin.Secrets().Abort(ctx, id.String(), version, reason)
			if err != nil {
				return err
			}
			return a.printStatus(st)
		})
	})
	return c
}

func secretStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status SECRET", Short: "Show how a secret's rotation stands", Args: cobra.ExactArgs(1),
		Example: "  brokerctl secret status orders-db",
		RunE: a.does(func(ctx context.Context, args []string) error {
			id, err := argument(args[0], secretArgument)
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				st, err := admin.Secrets().Get(ctx, id.String())
				if err != nil {
					return err
				}
				return a.printStatus(st)
			})
		}),
	}
}

// printStatus shows what a person wants to know of a rotation.
func (a *app) printStatus(s *wire.Secret) error {
	if a.output != outputTable {
		return a.printData(s.Status)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			writeRow(w, []string{name, value})
		}
	}
	st := s.Status
	line("secret", s.ID)
	line("state", secretState(st))
	line("since", when(st.Since))
	line("version", fmt.Sprint(st.Current))
	line("rotated", when(st.RotatedAt))
	line("proven", when(st.ProvenAt))
	line("next", when(st.Next))
	line("waiting for", waitText(st.Waiting))
	line("attention", attention(st))
	for _, u := range st.Uptake {
		line("consumer", fmt.Sprintf("%s on %s %s", u.Account, versionText(u), strings.TrimSpace(u.How+" "+when(u.At))))
	}
	for _, attempt := range []*wire.SecretAttempt{st.Last, st.Attempt} {
		if attempt == nil {
			continue
		}
		line("rotation", fmt.Sprintf("%s to version %d, %s: %s", when(attempt.StartedAt), attempt.Version, attempt.Outcome, becauseOf(attempt)))
		for _, e := range attempt.Journal {
			line("", fmt.Sprintf("%s %s %s", when(e.At), e.Step, strings.TrimSpace(e.What+" "+e.Note)))
		}
	}
	return w.Flush()
}

func versionText(u wire.SecretUptake) string {
	if u.Version == 0 {
		return "none"
	}
	return fmt.Sprint(u.Version)
}

func becauseOf(a *wire.SecretAttempt) string {
	if a.Scheduled {
		return "scheduled"
	}
	return fmt.Sprintf("%s, %s", a.By, a.Reason)
}

func waitText(w *wire.SecretWait) string {
	if w == nil {
		return ""
	}
	text := w.For
	if len(w.Consumers) > 0 {
		text += " of " + joined(w.Consumers)
	}
	if w.Late {
		text += ", past the deadline"
	} else if !w.Until.IsZero() {
		text += " until " + when(w.Until)
	}
	return text
}

func secretAck(a *app) *cobra.Command {
	given := new(profile)
	var tenant credential.Tenant
	var version uint64
	c := &cobra.Command{
		Use: "ack SECRET --version N --tenant T", Short: "Say that a version is in use, as a consumer", Args: cobra.ExactArgs(1),
		Long: `ack tells the broker that this workload uses a version of a shared secret, so that
the old one may end. It is a call of the consumer itself, as the identity of the
context or the one given; its account needs a grant for the audience <issuer>/leases.
The version is in the field tenantbroker_version beside the value.`,
		Example: "  brokerctl secret ack orders-hmac --version 7 --tenant acme --account mailer --key mailer.pem",
	}
	identityFlags(c, given)
	parsed(c.Flags(), &tenant, credential.ParseTenant, "tenant", "tenant", "the tenant of the secret; any of one's own for a shared one (required)")
	c.Flags().Uint64Var(&version, "version", 0, "the version that is in use (required)")
	required(c, "tenant", "version")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], secretArgument)
		if err != nil {
			return err
		}
		return a.as(given, func(c *client.Client) error {
			acked, err := c.AckSecret(ctx, tenant, id.String(), version)
			if err != nil {
				return err
			}
			return a.done(acked, "%s is known to be on version %d", acked.ID, acked.Version)
		})
	})
	return c
}
