package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func tenantCommand(a *app) *cobra.Command {
	return group("tenant", "Tenants: the customers that are kept apart", "",
		tenantList(a), tenantGet(a), tenantCreate(a), tenantUpdate(a),
		tenantSwitch(a, "suspend", "Stop tokens for a tenant from being issued", client.Tenants.Suspend),
		tenantSwitch(a, "resume", "End a tenant's suspension", client.Tenants.Resume),
		tenantDelete(a))
}

func tenantList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tenants", Args: cobra.NoArgs,
		Example: "  brokerctl tenant list\n  brokerctl tenant list -o json | jq -r '.[].id'",
		RunE: a.does(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return printList(a, admin.Tenants().List(ctx), columns[wire.Tenant]{
					[]string{"TENANT", "STATE", "NAME", "LABELS", "CREATED"},
					func(t wire.Tenant) []string {
						return []string{t.ID.String(), t.State, shortened(t.DisplayName, 40), labelText(t.Labels), when(t.CreatedAt)}
					},
				})
			})
		}),
	}
}

func tenantGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get TENANT", Short: "Show one tenant", Args: cobra.ExactArgs(1),
		Example: "  brokerctl tenant get acme",
		RunE: a.does(func(ctx context.Context, args []string) error {
			id, err := argument(args[0], credential.ParseTenant)
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
				return show(a)(admin.Tenants().Get(ctx, id))
			})
		}),
	}
}

func tenantCreate(a *app) *cobra.Command {
	var body wire.TenantCreate
	var labels []string
	c := &cobra.Command{
		Use: "create TENANT --reason WHY", Short: "Create a tenant", Args: cobra.ExactArgs(1),
		Long:    "create makes a tenant. Its id is for good: it is never given to another one.",
		Example: `  brokerctl tenant create acme --display-name "Acme Ltd" --label plan=gold --reason "new customer, order 4711"`,
	}
	c.Flags().StringVar(&body.DisplayName, "display-name", "", "name for people")
	c.Flags().StringArrayVar(&labels, "label", nil, "label NAME=VALUE; may be repeated")
	reasonFlag(c, &body.Reason)
	c.RunE = a.does(func(ctx context.Context, args []string) (err error) {
		if body.ID, err = argument(args[0], credential.ParseTenant); err != nil {
			return err
		}
		if body.Labels, err = labelSet(labels); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(admin.Tenants().Create(ctx, body))
		})
	})
	return c
}

func tenantUpdate(a *app) *cobra.Command {
	var name, reason string
	var labels []string
	var version uint64
	c := &cobra.Command{
		Use: "update TENANT --reason WHY", Short: "Change a tenant's name or labels", Args: cobra.ExactArgs(1),
		Long: `update changes what is named and leaves the rest. A label that a grant uses needs
the role security to change, since it decides who gets what.`,
		Example: "  brokerctl tenant update acme --label plan=silver --label trial- --reason \"downgrade\"",
	}
	c.Flags().StringVar(&name, "display-name", "", "name for people")
	c.Flags().StringArrayVar(&labels, "label", nil, "NAME=VALUE to set a label, NAME- to remove it; may be repeated")
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], credential.ParseTenant)
		if err != nil {
			return err
		}
		patch := newPatch(c, reason)
		patch.set("display-name", "display_name", name)
		changes, err := labelChanges(labels)
		if err != nil {
			return err
		}
		patch.set("label", "labels", changes)
		if err := patch.check(); err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			tenants := admin.Tenants()
			at, err := basis(version, func() (*wire.Tenant, error) { return tenants.Get(ctx, id) }, func(t *wire.Tenant) uint64 { return t.Version })
			if err != nil {
				return err
			}
			return show(a)(tenants.Update(ctx, id, at, patch.members))
		})
	})
	return c
}

// tenantSwitch is a command that turns a tenant on or off.
func tenantSwitch(a *app, verb, short string, act func(client.Tenants, context.Context, credential.Tenant, uint64, string) (*wire.Tenant, error)) *cobra.Command {
	var reason string
	var version uint64
	c := &cobra.Command{
		Use: verb + " TENANT --reason WHY", Short: short, Args: cobra.ExactArgs(1),
		Example: fmt.Sprintf("  brokerctl tenant %s acme --reason \"ticket 4711\"", verb),
	}
	versionFlag(c, &version)
	reasonFlag(c, &reason)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		id, err := argument(args[0], credential.ParseTenant)
		if err != nil {
			return err
		}
		return a.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			return show(a)(act(admin.Tenants(), ctx, id, version, reason))
		})
	})
	return c
}

func tenantDelete(a *app) *cobra.Command {
	return deletion(a, "tenant", "TENANT", "acme",
		"delete removes a tenant for good. Its id is never used again.",
		credential.ParseTenant, func(ctx context.Context, admin *client.Admin, id credential.Tenant, version uint64, reason string) error {
			return admin.Tenants().Delete(ctx, id, version, reason)
		})
}

// labelSet reads NAME=VALUE labels.
func labelSet(labels []string) (map[string]string, error) {
	set := make(map[string]string, len(labels))
	for _, l := range labels {
		name, value, found := strings.Cut(l, "=")
		if !found || name == "" {
			return nil, usageError{fmt.Errorf("label %q is not NAME=VALUE", l)}
		}
		if _, twice := set[name]; twice {
			return nil, usageError{fmt.Errorf("label %q is given twice", name)}
		}
		set[name] = value
	}
	return set, nil
}

// labelChanges reads NAME=VALUE and NAME- as members of a merge patch.
func labelChanges(labels []string) (map[string]any, error) {
	changes := make(map[string]any, len(labels))
	for _, l := range labels {
		name, value, sets := strings.Cut(l, "=")
		if !sets {
			var removes bool
			if name, removes = strings.CutSuffix(l, "-"); !removes {
				return nil, usageError{fmt.Errorf("label %q is neither NAME=VALUE nor NAME-", l)}
			}
		}
		if _, twice := changes[name]; twice || name == "" {
			return nil, usageError{fmt.Errorf("label %q: empty, or given twice", l)}
		}
		changes[name] = nil
		if sets {
			changes[name] = value
		}
	}
	return changes, nil
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return strings.Join(parts, ",")
}

var errNothing = errors.New("nothing to change: name at least one thing")
