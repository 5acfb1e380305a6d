package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func grantCommand(a *app) *cobra.Command {
	return group("grant", "Grants: which account may get which tokens",
		`A grant says for which tenants an account may get tokens for one audience, with
which scopes, for how long and under which condition. Without a grant there is no
token.`,
		grantList(a), grantGet(a), grantCreate(a), grantUpdate(a), grantApprove(a),
		deletion(a, "grant", "GRANT", "g_01JQ2",
			"delete removes a grant. Tokens issued before live on until they expire.",
			parseTextID, func(ctx context.Context, admin *client.Admin, id textID, version uint64, reason string) error {
				return admin.Grants().Delete(ctx, string(id), version, reason)
			}))
}

func grantList(a *app) *cobra.Command {
	var f client.GrantFilter
	c := &cobra.Command{
		Use: "list", Short: "List grants", Args: cobra.NoArgs,
		Example: "  brokerctl grant list --account billing-worker\n  brokerctl grant list --tenant acme",
	}
	parsed(c.Flags(), &f.Account, credential.ParseAccountID, "account", "account", "only this account's")
	parsed(c.Flags(), &f.Audience, credential.ParseAudience, "audience", "audience", "only for this audience")
	parsed(c.Flags(), &f.Tenant, credential.ParseTenant, "tenant", "tenant", "only those that list this tenant")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return printList(a, admin.Grants().List(ctx, f), columns[wire.Grant]{
				[]string{"GRANT", "ACCOUNT", "AUDIENCE", "TENANTS", "SCOPES", "EXPIRES"},
				func(g wire.Grant) []string {
					return []string{g.ID, g.Account.String(), g.Audience.String(), tenantText(g.GrantTerms), g.Scopes.String(), when(g.ExpiresAt)}
				},
			})
		})
	})
	return c
}

// tenantText says in a word or two for which tenants a grant is.
func tenantText(g wire.GrantTerms) string {
	switch {
	case g.AnyTenant != nil && g.AnyTenant.ApprovedBy == "":
		return "ANY (not approved)"
	case g.AnyTenant != nil:
		return "ANY until " + when(g.AnyTenant.ExpiresAt)
	case len(g.TenantLabels) > 0:
		return "labels " + labelText(g.TenantLabels)
	case g.TenantFrom != "":
		return "from " + shortened(g.TenantFrom, 40)
	}
	const shown = 3
	var names []string
	for i, t := range g.Tenants {
		if i == shown {
			names = append(names, fmt.Sprintf("and %d more", len(g.Tenants)-shown))
			break
		}
		names = append(names, t.String())
	}
	return strings.Join(names, " ")
}

func grantGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get GRANT", Short: "Show one grant", Args: cobra.ExactArgs(1),
		Example: "  brokerctl grant get g_01JQ2",
		RunE: a.does(func(ctx context.Context, args []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return show(a)(admin.Grants().Get(ctx, args[0]))
			})
		}),
	}
}

func grantCreate(a *app) *cobra.Command {
	var body wire.GrantCreate
	var scopes, labels []string
	var anyTenant string
	var anyUntil time.Time
	c := &cobra.Command{
		Use: "create --account ID --audience NAME (--tenant … | --tenant-label … | --tenant-from … | --any-tenant …) --reason WHY", Short: "Let an account get tokens", Args: cobra.NoArgs,
		Long: `create lets an account get tokens for an audience. Exactly one of these says for
which tenants:

  --tenant T,…           these
  --tenant-label N=V     every tenant with these labels
  --tenant-from CEL      the one that follows from the workload's own identity, e.g.
                         claims["kubernetes.io"].namespace
  --any-tenant WHY       every tenant: the exception. Needs --any-tenant-until, at
                         most 30 days ahead, and the approval of a second operator`,
		Example: `  brokerctl grant create --account billing-worker --audience https://billing.example.com \
      --tenant acme,globex --scope invoices.read --reason "nightly invoices"
  brokerctl grant create --account sync --audience orders --tenant-label plan=gold --scope read --max-ttl 2m --fan-out 20/1h --reason "gold sync"`,
	}
	f := c.Flags()
	parsed(f, &body.Account, credential.ParseAccountID, "account", "account", "who gets the tokens (required)")
	parsed(f, &body.Audience, credential.ParseAudience, "audience", "audience", "the service they are for (required)")
	f.StringSliceVar(&scopes, "scope", nil, "scopes that a token may carry, comma-separated or repeated")
	parsed(f, &body.Tenants, tenantSet, "tenants", "tenant", "tenants, comma-separated")
	f.StringArrayVar(&labels, "tenant-label", nil, "label NAME=VALUE that tenants must have; may be repeated")
	f.StringVar(&body.TenantFrom, "tenant-from", "", "CEL over claims that yields the tenant")
	f.StringVar(&anyTenant, "any-tenant", "", "every tenant, and why")
	parsed(f, &anyUntil, a.instant, "time", "any-tenant-until", "end of --any-tenant, at most 30d")
	grantTermFlags(a, c, &body.MaxTTL, &body.Condition, &body.FanOut)
	parsed(f, &body.NotBefore, a.instant, "time", "not-before", "from when on it holds")
	parsed(f, &body.ExpiresAt, a.instant, "time", "expires", "end date: a time, a date, or from now such as 90d")
	reasonFlag(c, &body.Reason)
	required(c, "account", "audience")
	c.MarkFlagsOneRequired("tenant", "tenant-label", "tenant-from", "any-tenant")
	c.MarkFlagsMutuallyExclusive("tenant", "tenant-label", "tenant-from", "any-tenant")
	c.MarkFlagsRequiredTogether("any-tenant", "any-tenant-until")
	c.RunE = a.does(func(ctx context.Context, _ []string) (err error) {
		if body.Scopes, err = scopeSet(scopes); err != nil {
			return err
		}
		if len(labels) > 0 {
			if body.TenantLabels, err = labelSet(labels); err != nil {
				return err
			}
		}
		if anyTenant != "" {
			body.AnyTenant = &wire.AnyTenant{Reason: anyTenant, ExpiresAt: anyUntil}
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			made, err := admin.Grants().Create(ctx, body)
			if err == nil && made.AnyTenant != nil && made.AnyTenant.ApprovedBy == "" {
				a.note("not in force until another operator runs: brokerctl grant approve %s", made.ID)
			}
			return show(a)(made, err)
		})
	})
	return c
}

// grantTermFlags adds the flags that creating and changing have in common.
func grantTermFlags(_ *app, c *cobra.Command, ttl *credential.Lifetime, condition *string, fan **wire.FanOut) {
	parsed(c.Flags(), ttl, lifetime, "duration", "max-ttl", "longest life of a token, at most 1h (default 5m)")
	c.Flags().StringVar(condition, "condition", "", "CEL over claims, tenant, audience, scopes and now that must hold")
	parsed(c.Flags(), fan, fanOut, "N/window", "fan-out", "at most N distinct tenants within a window, e.g. 20/1h")
}

func lifetime(s string) (credential.Lifetime, error) {
	var l credential.Lifetime
	err := l.UnmarshalText([]byte(s))
	return l, err
}

func tenantSet(s string) ([]credential.Tenant, error) {
	var all []credential.Tenant
	for _, name := range strings.Split(s, ",") {
		t, err := credential.ParseTenant(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// scopeSet takes scopes separated by commas, spaces or flags.
func scopeSet(scopes []string) (credential.Scopes, error) {
	s, err := credential.NewScopes(strings.Fields(strings.Join(scopes, " "))...)
	if err != nil {
		return s, usageError{err}
	}
	return s, nil
}

func grantUpdate(a *app) *cobra.Command {
	var scopes []string
	var tenants, adds, removes []credential.Tenant
	var ttl credential.Lifetime
	var condition, reason string
	var fan *wire.FanOut
	var notBefore, expires *time.Time
	var version uint64
	c := &cobra.Command{
		Use: "update GRANT --reason WHY", Short: "Change what a grant allows", Args: cobra.ExactArgs(1),
		Long: `update changes what is named and leaves the rest. Account, audience and the way in
which the tenants are found stay: make another grant for that.`,
		Example: `  brokerctl grant update g_01JQ2 --add-tenant initech --reason "new customer"
  brokerctl grant update g_01JQ2 --max-ttl 1m --expires 30d --reason "being replaced"`,
	}
	f := c.Flags()
	f.StringSliceVar(&scopes, "scope", nil, "all scopes, comma-separated or repeated")
	parsed(f, &tenants, tenantSet, "tenants", "tenant", "all tenants, comma-separated")
	parsed(f, &adds, tenantSet, "tenants", "add-tenant", "tenants to add, comma-separated")
	parsed(f, &removes, tenantSet, "tenants", "remove-tenant", "tenants to take away, comma-separated")
	grantTermFlags(a, c, &ttl, &condition, &fan)
	parsed(f, &notBefore, a.instantOrNever, "time", "not-before", `from when on it holds, or "never" for at once`)
	parsed(f, &expires, a.instantOrNever, "time", "expires", `end date, or "never"`)
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.MarkFlagsMutuallyExclusive("tenant", "add-tenant")
	c.MarkFlagsMutuallyExclusive("tenant", "remove-tenant")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		p := newPatch(c, reason)
		set, err := scopeSet(scopes)
		if err != nil {
			return err
		}
		p.set("scope", "scopes", set)
		p.set("tenant", "tenants", tenants)
		p.set("max-ttl", "max_ttl", ttl)
		p.set("condition", "condition", condition)
		p.set("fan-out", "fan_out", fan)
		p.set("not-before", "not_before", notBefore)
		p.set("expires", "expires_at", expires)
		moves := len(adds)+len(removes) > 0
		if err := p.check(); err != nil && !moves {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			grants := admin.Grants()
			at := version
			if at == 0 || moves {
				now, err := grants.Get(ctx, args[0])
				if err != nil {
					return err
				}
				if at == 0 {
					at = now.Version
				}
				if moves {
					if p.members["tenants"], err = moved(now.Tenants, adds, removes); err != nil {
						return err
					}
				}
			}
			return show(a)(grants.Update(ctx, args[0], at, p.members))
		})
	})
	return c
}

// moved returns the list of tenants after adding some and taking some away.
func moved(now, adds, removes []credential.Tenant) ([]credential.Tenant, error) {
	if len(now) == 0 {
		return nil, usageError{errors.New("this grant does not list its tenants")}
	}
	in := make(map[credential.Tenant]bool, len(now))
	for _, t := range append(append([]credential.Tenant{}, now...), adds...) {
		in[t] = true
	}
	for _, t := range removes {
		if !in[t] {
			return nil, usageError{fmt.Errorf("tenant %s is not in this grant", t)}
		}
		delete(in, t)
	}
	if len(in) == 0 {
		return nil, usageError{errors.New("no tenant would be left: delete the grant instead")}
	}
	var left []credential.Tenant
	for _, t := range append(append([]credential.Tenant{}, now...), adds...) {
		if in[t] {
			left = append(left, t)
			delete(in, t)
		}
	}
	return left, nil
}

func grantApprove(a *app) *cobra.Command {
	var reason string
	var version uint64
	c := &cobra.Command{
		Use: "approve GRANT --reason WHY", Short: "Approve a grant for every tenant", Args: cobra.ExactArgs(1),
		Long: `approve puts a grant for every tenant into force. It takes another operator than
the one who made or last changed it.

It shows the terms and asks. Should they change before the answer, nothing is
approved. Where nobody can be asked, --if-version names the version that was read.`,
		Example: `  brokerctl grant approve g_01JQ2 --reason "seen with the on-call, incident 12"
  brokerctl grant approve g_01JQ2 --if-version 7 --reason "seen with the on-call, incident 12"`,
	}
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		if version == 0 && !a.asks {
			return usageError{errors.New("without a terminal to ask at, name the version whose terms you have read with --if-version: brokerctl grant get")}
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			read := version
			if read == 0 {
				terms, err := admin.Grants().Get(ctx, args[0])
				if err != nil {
					return err
				}
				if err := a.askToApprove(terms); err != nil {
					return err
				}
				read = terms.Version
			}
			return show(a)(admin.Grants().Approve(ctx, args[0], read, reason))
		})
	})
	return c
}

// askToApprove shows what would be approved, apart from the output, and asks.
func (a *app) askToApprove(terms *wire.Grant) error {
	page := *a
	page.out, page.output = a.err, outputTable
	if err := page.printObject(terms); err != nil {
		return err
	}
	return a.confirm(false, fmt.Sprintf("This lets %s get tokens for every tenant.", terms.Account), terms.ID)
}
