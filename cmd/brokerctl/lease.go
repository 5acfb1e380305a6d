package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func leaseCommand(a *app) *cobra.Command {
	return group("lease", "Tenant-bound leases of database users and values",
		`A workload leases what belongs to its token's tenant: a short-lived database user
whose rows are the tenant's, or the values under the tenant's path. It needs a
grant for the audience <issuer>/leases with the scope of what it leases:

  brokerctl grant create --account billing --audience ISSUER/leases --scope database:orders --tenant acme --reason WHY

Operators list leases and end them.`,
		leaseObtain(a), leaseRenew(a), leaseRelease(a), leaseList(a), leaseRevoke(a))
}

// leaseFlags are the flags of a workload's calls.
func leaseFlags(c *cobra.Command, given *profile, req *client.LeaseRequest) {
	identityFlags(c, given)
	f := c.Flags()
	parsed(f, &req.Tenant, credential.ParseTenant, "tenant", "tenant", "the tenant that it is for (required)")
	parsed(f, &req.TTL, duration, "duration", "ttl", "how long, e.g. 5m; only shortens")
	required(c, "tenant")
}

func leaseObtain(a *app) *cobra.Command {
	given := new(profile)
	var req client.LeaseRequest
	c := &cobra.Command{
		Use: "obtain database:NAME|kv:NAME --tenant T", Short: "Lease a database user or a value", Args: cobra.ExactArgs(1),
		Long: `obtain leases something for one tenant, as the identity of the context or the one
given, and prints the data alone to stdout: a JSON object, of a database user with
username and password. With -o json it comes with the lease's id and end.`,
		Example: `  brokerctl lease obtain database:orders --tenant acme --account billing --key billing.pem
  brokerctl lease obtain kv:mail --tenant acme -o json | jq -r .data.password`,
	}
	leaseFlags(c, given, &req)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		var err error
		if req.Of, err = credential.ParseLeasable(args[0]); err != nil {
			return usageError{err}
		}
		return a.as(given, func(c *client.Client) error {
			lease, err := c.Leases().Obtain(ctx, req)
			if err != nil {
				return err
			}
			return a.printLease(lease)
		})
	})
	return c
}

// printLease prints the data of a lease, which a script is waiting for.
func (a *app) printLease(l *client.Lease) error {
	if a.output == outputTable {
		if data := l.Reveal(); len(data) > 0 {
			if _, err := fmt.Fprintf(a.out, "%s\n", data); err != nil {
				return err
			}
		}
		a.note("lease %s, until %s", l.ID(), when(l.Expires()))
		return nil
	}
	return a.printData(wire.Lease{ID: l.ID(), Data: json.RawMessage(l.Reveal()), ExpiresAt: l.Expires().UTC().Truncate(time.Second)})
}

func leaseRenew(a *app) *cobra.Command {
	given := new(profile)
	var req client.LeaseRequest
	c := &cobra.Command{
		Use: "renew LEASE database:NAME|kv:NAME --tenant T", Short: "Prolong a lease", Args: cobra.ExactArgs(2),
		Long: `renew prolongs a lease with a token that it gets for that. A database user stays
the same and is not printed again; of a value, what is there now is printed.`,
		Example: "  brokerctl lease renew 06h27fw57204s64xe5byngwmhg database:orders --tenant acme",
	}
	leaseFlags(c, given, &req)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		var err error
		if req.Of, err = credential.ParseLeasable(args[1]); err != nil {
			return usageError{err}
		}
		return a.as(given, func(c *client.Client) error {
			lease, err := c.Leases().Renew(ctx, client.LeaseByID(args[0], req))
			if err != nil {
				return err
			}
			return a.printLease(lease)
		})
	})
	return c
}

func leaseRelease(a *app) *cobra.Command {
	given := new(profile)
	var req client.LeaseRequest
	c := &cobra.Command{
		Use: "release LEASE database:NAME|kv:NAME --tenant T", Short: "Give a lease back", Args: cobra.ExactArgs(2),
		Long:    "release ends a lease of one's own before its time. Operators end those of others with revoke.",
		Example: "  brokerctl lease release 06h27fw57204s64xe5byngwmhg database:orders --tenant acme",
	}
	leaseFlags(c, given, &req)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		var err error
		if req.Of, err = credential.ParseLeasable(args[1]); err != nil {
			return usageError{err}
		}
		return a.as(given, func(c *client.Client) error {
			if err := c.Leases().Release(ctx, client.LeaseByID(args[0], req)); err != nil {
				return err
			}
			return a.done(map[string]string{"released": args[0]}, "released %s", args[0])
		})
	})
	return c
}

var leaseColumns = columns[wire.LeaseInfo]{
	[]string{"LEASE", "OF", "TENANT", "ACCOUNT", "STATE", "EXPIRES", "TRIES", "PROBLEM"},
	func(l wire.LeaseInfo) []string {
		state, tries, problem := l.State, "", ""
		if e := l.Ending; e != nil {
			state, problem = l.State+" ("+e.Reason+")", e.LastError
			tries = strconv.Itoa(e.Attempts)
		}
		of := l.Kind + ":" + l.Name
		if l.State == wire.LeaseUnreadable {
			of = "?"
		}
		return []string{l.ID, of, l.Tenant.String(), l.Account.String(), state, when(l.ExpiresAt), tries, problem}
	},
}

func leaseList(a *app) *cobra.Command {
	var f client.LeaseFilter
	c := &cobra.Command{
		Use: "list", Short: "List the leases there are", Args: cobra.NoArgs,
		Long: `list shows the leases. One that has ended stays until it is proven gone in Vault;
until then its state is "ending", with the attempts that failed and why.`,
		Example: "  brokerctl lease list --tenant acme\n  brokerctl lease list --ending",
	}
	parsed(c.Flags(), &f.Tenant, credential.ParseTenant, "tenant", "tenant", "only those of this tenant")
	parsed(c.Flags(), &f.Account, credential.ParseAccountID, "account", "account", "only those of this account")
	c.Flags().BoolVar(&f.Ending, "ending", false, "only those that should be gone and aren't yet")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return printList(a, admin.Leases().List(ctx, f), leaseColumns)
		})
	})
	return c
}

func leaseRevoke(a *app) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke LEASE --reason WHY", Short: "End a lease at once", Args: cobra.ExactArgs(1),
		Long: `revoke ends a lease: its database user loses its sessions and is dropped. The
command returns when the end is on record; "lease list --ending" shows it until it
is proven gone. To end all leases of a tenant or account, suspend or disable it.
One whose state is "unreadable" loses its row, and what Vault has of it is ended as
an orphan; only an operator of the whole broker does that. It needs the role
security.`,
		Example: "  brokerctl lease revoke 06h27fw57204s64xe5byngwmhg --reason \"the host was stolen\"",
	}
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			if err := admin.Leases().Revoke(ctx, args[0], reason); err != nil {
				return err
			}
			return a.done(map[string]string{"revoked": args[0]}, "revoked %s", args[0])
		})
	})
	return c
}
