package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func operatorCommand(a *app) *cobra.Command {
	return group("operator", "Operators: who administers the broker",
		`An operator is an account with a grant for the broker's own admin audience. The
roles, each of which includes those before it:

  viewer    sees everything
  operator  creates and changes tenants, accounts, audiences, grants; rotates keys
  security  suspends, disables, deletes, approves exceptions, revokes
  admin     makes operators`,
		operatorList(a), operatorAdd(a), operatorRemove(a))
}

func operatorList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List operators", Args: cobra.NoArgs,
		Example: "  brokerctl operator list",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return printList(a, admin.Operators().List(ctx), columns[wire.Operator]{
					[]string{"GRANT", "ACCOUNT", "ROLES", "TENANT", "EXPIRES", "REASON"},
					func(o wire.Operator) []string {
						return []string{o.Grant, o.Account.String(), o.Roles.String(), o.Tenant.String(), when(o.ExpiresAt), shortened(o.Reason, 40)}
					},
				})
			})
		}),
	}
}

func operatorAdd(a *app) *cobra.Command {
	body := wire.OperatorCreate{Tenant: credential.System}
	var roles []string
	c := &cobra.Command{
		Use: "add ACCOUNT --role ROLE --reason WHY", Short: "Make an account an operator", Args: cobra.ExactArgs(1),
		Example: `  brokerctl operator add alice --role security --expires 180d --reason "on-call rota"
  brokerctl operator add acme-admin --role operator --tenant acme --reason "self service"`,
	}
	c.Flags().StringSliceVar(&roles, "role", nil, "viewer, operator, security or admin (required)")
	parsed(c.Flags(), &body.Tenant, credential.ParseTenant, "tenant", "tenant", "bind the operator to one tenant (default: the whole broker)")
	parsed(c.Flags(), &body.MaxTTL, lifetime, "duration", "max-ttl", "longest life of a token, at most 10m")
	parsed(c.Flags(), &body.ExpiresAt, a.instant, "time", "expires", "end date: a time, a date, or from now such as 180d")
	reasonFlag(c, &body.Reason)
	required(c, "role")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(
		[]string{wire.RoleViewer, wire.RoleOperator, wire.RoleSecurity, wire.RoleAdmin}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = a.does(func(ctx context.Context, args []string) (err error) {
		if body.Account, err = argument(args[0], credential.ParseAccountID); err != nil {
			return err
		}
		if body.Roles, err = scopeSet(roles); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(admin.Operators().Create(ctx, body))
		})
	})
	return c
}

func operatorRemove(a *app) *cobra.Command {
	c := deletion(a, "operator", "GRANT", "g_01JQ2",
		`remove takes an operator's permission away. It is named by its grant: see
brokerctl operator list. From then on the broker refuses the tokens that were
issued on it. The account, its credentials and its other grants stay.`,
		parseTextID, func(ctx context.Context, admin *client.Admin, id textID, version uint64, reason string) error {
			return admin.Operators().Delete(ctx, string(id), version, reason)
		})
	c.Use, c.Short = "remove GRANT --reason WHY", "Take an operator's permission away"
	c.Example = "  brokerctl operator remove g_01JQ2 --reason \"left the team\""
	return c
}
