package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
)

func reportCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "report", Short: "Show posture and health in one place", Args: cobra.NoArgs,
		Long: `report shows how the broker is (store, audit trail, signing keys, Vault) and what
somebody should know of: grants for every tenant, static client secrets and when
they end, shared secrets, leases that do not end. An operator of one tenant sees
that tenant's part. What to do about it says: brokerctl doctor.`,
		Example: "  brokerctl report\n  brokerctl report -o json",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				r, err := admin.Report(ctx)
				if err != nil || a.output != outputTable {
					return show(a)(r, err)
				}
				return a.printPosture(r)
			})
		}),
	}
}

func (a *app) printPosture(r *wire.Report) error {
	a.heading("%s, %s, at %s", r.Issuer, scopeOf(r), when(r.At))
	if r.Broker != nil {
		if err := a.printBroker(r.Broker); err != nil {
			return err
		}
		a.heading("Grants for every tenant")
		if err := printSome(a, r.AnyTenant, anyTenantColumns); err != nil {
			return err
		}
	}
	a.heading("Static client secrets")
	if err := printSome(a, r.ClientSecrets, clientSecretColumns); err != nil {
		return err
	}
	if r.SharedSecrets != nil {
		a.heading("Shared secrets")
		if err := printSome(a, *r.SharedSecrets, sharedSecretColumns); err != nil {
			return err
		}
	}
	if r.Leases != nil {
		return a.printLeases(r.Leases)
	}
	return nil
}

func (a *app) printLeases(r *wire.LeasesReport) error {
	a.heading("Leases: %d active, %d ending; those whose end fails", r.Active, r.Ending)
	if err := printSome(a, r.Failing, leaseReportColumns); err != nil || r.Unreadable == nil {
		return err
	}
	a.heading("Leases whose row in the store can't be read")
	return printSome(a, *r.Unreadable, unreadableColumns)
}

func scopeOf(r *wire.Report) string {
	if r.Tenant.IsSystem() {
		return "the whole broker"
	}
	return "tenant " + r.Tenant.String()
}

// heading begins a section.
func (a *app) heading(format string, args ...any) {
	_, _ = fmt.Fprintln(a.out, printable(fmt.Sprintf(format, args...))) // the table after it fails too
}

func (a *app) printBroker(b *wire.BrokerReport) error {
	rows := [][2]string{
		{"version", b.Version},
		{"store", okOr(b.Store.Healthy, b.Store.Problem)},
		{"audit", auditText(b.Audit)},
		{"signing keys", keysText(b.Keys)},
		{"vault", vaultText(b.Vault)},
	}
	return printList(a, func(yield func([2]string, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}, columns[[2]string]{[]string{"PART", "STATE"}, func(row [2]string) []string { return row[:] }})
}

func okOr(good bool, problem string) string {
	if good {
		return "ok"
	}
	return "PROBLEM: " + problem
}

func auditText(r wire.AuditReport) string {
	if r.Problem != "" {
		return "PROBLEM: " + r.Problem
	}
	return fmt.Sprintf("%d records not covered by signed heads yet (signed every %s)", r.Unsigned, r.Interval)
}

func keysText(r wire.KeysReport) string {
	text := okOr(r.Ready, r.Problem)
	if r.Overdue {
		text += ", OVERDUE"
	}
	states := make(map[string]int)
	for _, k := range r.Keys {
		states[k.State]++
	}
	for _, state := range []string{wire.KeyActive, wire.KeyStandby, wire.KeyRetiring, wire.KeyRevoked} {
		if n := states[state]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, state)
		}
	}
	if r.Waiting != "" {
		text += ", next rotation waits for " + r.Waiting
		if r.Missing > 0 {
			text += fmt.Sprintf(" of %d verifiers", r.Missing)
		}
	}
	if !r.Due.IsZero() {
		text += ", due " + when(r.Due)
	}
	return text
}

func vaultText(r *wire.VaultReport) string {
	if r == nil {
		return "none"
	}
	var parts []string
	switch {
	case r.Sealed:
		parts = append(parts, "SEALED since "+when(r.UnreachableSince))
	case r.Standby:
		parts = append(parts, "STANDBY since "+when(r.UnreachableSince))
	case !r.Reachable:
		parts = append(parts, "UNREACHABLE since "+when(r.UnreachableSince))
	default:
		parts = append(parts, "ok")
	}
	login := "not logged in"
	if r.LoggedIn {
		login = "logged in"
		if !r.TokenExpiresAt.IsZero() {
			login += " until " + when(r.TokenExpiresAt)
		}
	}
	parts = append(parts, login+" by "+r.Login)
	if r.LastError != "" {
		parts = append(parts, "last error: "+r.LastError)
	}
	return strings.Join(parts, ", ")
}

// printSome prints a list of a report, and how much of it is missing.
func printSome[T any](a *app, l wire.Listed[T], c columns[T]) error {
	if len(l.Items) == 0 {
		a.heading("none")
		return nil
	}
	err := printList(a, func(yield func(T, error) bool) {
		for _, item := range l.Items {
			if !yield(item, nil) {
				return
			}
		}
	}, c)
	if err == nil && l.More > 0 {
		a.heading("and %d more", l.More)
	}
	return err
}

var anyTenantColumns = columns[wire.Grant]{
	[]string{"GRANT", "ACCOUNT", "AUDIENCE", "ENDS", "APPROVED BY", "WHY"},
	func(g wire.Grant) []string {
		return []string{g.ID, g.Account.String(), g.Audience.String(), when(g.AnyTenant.ExpiresAt), g.AnyTenant.ApprovedBy, shortened(g.AnyTenant.Reason, 40)}
	},
}

var clientSecretColumns = columns[wire.ClientSecretReport]{
	[]string{"ACCOUNT", "HOME", "OWNER", "CREDENTIAL", "ENDS"},
	func(s wire.ClientSecretReport) []string {
		return []string{s.Account.String(), s.Home.String(), shortened(s.Owner, 30), s.Credential, when(s.ExpiresAt)}
	},
}

var sharedSecretColumns = columns[wire.SharedSecretReport]{
	[]string{"SECRET", "KIND", "TENANT", "STATE", "TROUBLE", "LAST PROOF", "NEXT"},
	func(s wire.SharedSecretReport) []string {
		tenant := "shared"
		if !s.Tenant.IsZero() {
			tenant = s.Tenant.String()
		}
		return []string{s.ID, s.Kind, tenant, s.State, troubleOf(s), when(s.LastProof), when(s.NextAt)}
	},
}

func troubleOf(s wire.SharedSecretReport) string {
	var trouble []string
	if s.Overdue {
		trouble = append(trouble, "overdue")
	}
	if s.Failing {
		trouble = append(trouble, "failing: "+shortened(s.LastError, 60))
	}
	if s.Drift != "" {
		trouble = append(trouble, "drift: "+shortened(s.Drift, 60))
	}
	return strings.Join(trouble, ", ")
}

var leaseReportColumns = columns[wire.LeaseReport]{
	[]string{"LEASE", "KIND", "NAME", "TENANT", "ACCOUNT", "ENDING SINCE", "ATTEMPTS", "LAST ERROR"},
	func(l wire.LeaseReport) []string {
		return []string{l.ID, l.Kind, l.Name, l.Tenant.String(), l.Account.String(), when(l.Since), strconv.Itoa(l.Attempts), shortened(l.LastError, 60)}
	},
}

var unreadableColumns = columns[wire.UnreadableLease]{
	[]string{"LEASE", "TENANT", "ACCOUNT"},
	func(l wire.UnreadableLease) []string { return []string{l.ID, l.Tenant.String(), l.Account.String()} },
}

// left is how long until an instant, in the unit that a person would use.
func left(until, now time.Time) string {
	d := until.Sub(now)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d minutes", int(max(d, 0).Minutes()))
}
