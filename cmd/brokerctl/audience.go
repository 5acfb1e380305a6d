package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func audienceCommand(a *app) *cobra.Command {
	return group("audience", "Audiences: the services that receive tokens", "",
		audienceList(a), audienceGet(a), audienceCreate(a), audienceUpdate(a),
		deletion(a, "audience", "AUDIENCE", "https://billing.example.com",
			"delete removes an audience. Grants for it have to go first.",
			credential.ParseAudience, func(ctx context.Context, admin *client.Admin, name credential.Audience, version uint64, reason string) error {
				return admin.Audiences().Delete(ctx, name, version, reason)
			}))
}

func audienceList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List audiences", Args: cobra.NoArgs,
		Example: "  brokerctl audience list",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return printList(a, admin.Audiences().List(ctx), columns[wire.Audience]{
					[]string{"AUDIENCE", "OWNER", "DESCRIPTION", "CREATED"},
					func(x wire.Audience) []string {
						return []string{x.Name.String(), x.Owner.String(), shortened(x.Description, 40), when(x.CreatedAt)}
					},
				})
			})
		}),
	}
}

func audienceGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get AUDIENCE", Short: "Show one audience", Args: cobra.ExactArgs(1),
		Example: "  brokerctl audience get https://billing.example.com",
		RunE: a.does(func(ctx context.Context, args []string) error {
			name, err := argument(args[0], credential.ParseAudience)
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return show(a)(admin.Audiences().Get(ctx, name))
			})
		}),
	}
}

func audienceCreate(a *app) *cobra.Command {
	var body wire.AudienceCreate
	c := &cobra.Command{
		Use: "create AUDIENCE --owner ACCOUNT --reason WHY", Short: "Register a service that receives tokens", Args: cobra.ExactArgs(1),
		Long: `create registers an audience: the name by which a service expects to be named in
the tokens it receives. Its owner is the account that runs the service; it may
ask the broker about these tokens and revoke them.`,
		Example: `  brokerctl audience create https://billing.example.com --owner billing --reason "the invoices service"`,
	}
	parsed(c.Flags(), &body.Owner, credential.ParseAccountID, "account", "owner", "the account that runs the service (required)")
	c.Flags().StringVar(&body.Description, "description", "", "what it does")
	reasonFlag(c, &body.Reason)
	required(c, "owner")
	c.RunE = a.does(func(ctx context.Context, args []string) (err error) {
		if body.Name, err = argument(args[0], credential.ParseAudience); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(admin.Audiences().Create(ctx, body))
		})
	})
	return c
}

func audienceUpdate(a *app) *cobra.Command {
	var owner credential.AccountID
	var description, reason string
	var version uint64
	c := &cobra.Command{
		Use: "update AUDIENCE --reason WHY", Short: "Change an audience's owner or description", Args: cobra.ExactArgs(1),
		Example: "  brokerctl audience update orders --owner orders-v2 --reason \"taken over\"",
	}
	parsed(c.Flags(), &owner, credential.ParseAccountID, "account", "owner", "the account that runs the service")
	c.Flags().StringVar(&description, "description", "", "what it does")
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		name, err := argument(args[0], credential.ParseAudience)
		if err != nil {
			return err
		}
		p := newPatch(c, reason)
		p.set("owner", "owner", owner)
		p.set("description", "description", description)
		if err := p.check(); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			audiences := admin.Audiences()
			at, err := basis(version, func() (*wire.Audience, error) { return audiences.Get(ctx, name) }, func(x *wire.Audience) uint64 { return x.Version })
			if err != nil {
				return err
			}
			return show(a)(audiences.Update(ctx, name, at, p.members))
		})
	})
	return c
}
