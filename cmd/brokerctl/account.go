package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func accountCommand(a *app) *cobra.Command {
	return group("account", "Service accounts and how they prove who they are", "",
		accountList(a), accountGet(a), accountCreate(a), accountUpdate(a),
		accountSwitch(a, "disable", "Stop an account from getting tokens", client.Accounts.Disable),
		accountSwitch(a, "enable", "Let an account get tokens again", client.Accounts.Enable),
		accountDelete(a), credentialCommand(a))
}

func accountList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List accounts", Args: cobra.NoArgs,
		Example: "  brokerctl account list",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return printList(a, admin.Accounts().List(ctx), columns[wire.Account]{
					[]string{"ACCOUNT", "HOME", "STATE", "OWNER", "CREDENTIALS", "EXPIRES"},
					func(x wire.Account) []string {
						return []string{x.ID.String(), x.Home.String(), accountState(x, a.now()), shortened(x.Owner, 30), credentialKinds(x), when(x.ExpiresAt)}
					},
				})
			})
		}),
	}
}

func accountState(x wire.Account, now time.Time) string {
	switch {
	case x.Disabled:
		return "disabled"
	case !x.ExpiresAt.IsZero() && !now.Before(x.ExpiresAt):
		return "expired"
	}
	return "active"
}

func credentialKinds(x wire.Account) string {
	var kinds []string
	for _, k := range x.Credentials {
		kinds = append(kinds, k.Kind)
	}
	return strings.Join(kinds, ",")
}

func accountGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get ACCOUNT", Short: "Show one account and its credentials", Args: cobra.ExactArgs(1),
		Example: "  brokerctl account get billing-worker",
		RunE: a.does(func(ctx context.Context, args []string) error {
			id, err := argument(args[0], credential.ParseAccountID)
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return show(a)(admin.Accounts().Get(ctx, id))
			})
		}),
	}
}

func accountCreate(a *app) *cobra.Command {
	body := wire.AccountCreate{Home: credential.System}
	c := &cobra.Command{
		Use: "create ACCOUNT --owner WHO --reason WHY", Short: "Create an account", Args: cobra.ExactArgs(1),
		Long: `create makes a service account. It can do nothing yet: give it a way to prove who
it is (account credential add) and a grant (grant create).`,
		Example: `  brokerctl account create billing-worker --owner team-billing --reason "nightly invoices"
  brokerctl account create acme-sync --home acme --owner acme --expires 90d --reason "trial integration"`,
	}
	parsed(c.Flags(), &body.Home, credential.ParseTenant, "tenant", "home", `"system" (default), or the one tenant that the account belongs to`)
	c.Flags().StringVar(&body.Owner, "owner", "", "the person or team to reach (required)")
	c.Flags().StringVar(&body.Description, "description", "", "what it does")
	parsed(c.Flags(), &body.ExpiresAt, a.instant, "time", "expires", "end date: a time, a date, or from now such as 90d")
	reasonFlag(c, &body.Reason)
	required(c, "owner")
	c.RunE = a.does(func(ctx context.Context, args []string) (err error) {
		if body.ID, err = argument(args[0], credential.ParseAccountID); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(admin.Accounts().Create(ctx, body))
		})
	})
	return c
}

func accountUpdate(a *app) *cobra.Command {
	var owner, description, reason string
	var expires *time.Time
	var version uint64
	c := &cobra.Command{
		Use: "update ACCOUNT --reason WHY", Short: "Change an account's owner, description or end date", Args: cobra.ExactArgs(1),
		Example: "  brokerctl account update acme-sync --expires 30d --reason \"trial prolonged\"",
	}
	c.Flags().StringVar(&owner, "owner", "", "the person or team to reach")
	c.Flags().StringVar(&description, "description", "", "what it does")
	parsed(c.Flags(), &expires, a.instantOrNever, "time", "expires", `end date: a time, a date, from now such as 90d, or "never"`)
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], credential.ParseAccountID)
		if err != nil {
			return err
		}
		p := newPatch(c, reason)
		p.set("owner", "owner", owner)
		p.set("description", "description", description)
		p.set("expires", "expires_at", expires)
		if err := p.check(); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			accounts := admin.Accounts()
			at, err := basis(version, func() (*wire.Account, error) { return accounts.Get(ctx, id) }, func(x *wire.Account) uint64 { return x.Version })
			if err != nil {
				return err
			}
			return show(a)(accounts.Update(ctx, id, at, p.members))
		})
	})
	return c
}

// instantOrNever is instant for a member that a patch may remove.
func (a *app) instantOrNever(s string) (*time.Time, error) {
	if s == "never" {
		return nil, nil //nolint:nilnil // null in a merge patch
	}
	t, err := a.instant(s)
	return &t, err
}

// accountSwitch is a command that turns an account on or off.
func accountSwitch(a *app, verb, short string, act func(client.Accounts, context.Context, credential.AccountID, uint64, string) (*wire.Account, error)) *cobra.Command {
	var reason string
	var version uint64
	c := &cobra.Command{
		Use: verb + " ACCOUNT --reason WHY", Short: short, Args: cobra.ExactArgs(1),
		Example: fmt.Sprintf("  brokerctl account %s billing-worker --reason \"incident 12\"", verb),
	}
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], credential.ParseAccountID)
		if err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(act(admin.Accounts(), ctx, id, version, reason))
		})
	})
	return c
}

func accountDelete(a *app) *cobra.Command {
	return deletion(a, "account", "ACCOUNT", "billing-worker",
		"delete removes an account for good. Its id is never used again.",
		credential.ParseAccountID, func(ctx context.Context, admin *client.Admin, id credential.AccountID, version uint64, reason string) error {
			return admin.Accounts().Delete(ctx, id, version, reason)
		})
}
