package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
)

// identityFlags adds the flags that say who one is, and to whom.
func identityFlags(c *cobra.Command, p *profile) {
	f := c.Flags()
	f.StringVar(&p.Issuer, "issuer", "", "the broker's URL")
	f.StringVar(&p.Account, "account", "", "account id")
	f.StringVar(&p.KeyFile, "key", "", "file with the account's private key: PEM or JWK, mode 0600")
	f.StringVar(&p.PlatformTokenFile, "platform-token", "", "file with a token of the platform, e.g. Kubernetes or CI")
	f.StringVar(&p.SecretFile, "client-secret-file", "", "file with the account's client secret, mode 0600")
	f.StringVar(&p.CAFile, "ca", "", "PEM file with the roots to trust instead of the system's")
	c.MarkFlagsMutuallyExclusive("key", "platform-token", "client-secret-file")
	for _, name := range []string{"key", "platform-token", "client-secret-file", "ca"} {
		_ = c.MarkFlagFilename(name) // fails for a flag that doesn't exist
	}
}

func loginCommand(a *app) *cobra.Command {
	p := new(profile)
	var name string
	c := &cobra.Command{
		Use:   "login --issuer URL --account ID --key FILE",
		Short: "Sign in to a broker as an operator and remember how",
		Long: `login gets an operator's token, to see that it works, and remembers the broker
and the identity as a context. Neither key nor token is stored: the context says
where the key lies, and each command gets a token of its own that lives minutes.

The key file is PEM (PKCS #8, SEC 1, PKCS #1) or a JWK. "broker init" makes one
for the first operator; "brokerctl keygen" makes more.`,
		Example: `  brokerctl login --issuer https://broker.example.com --account alice --key ~/alice.pem
  brokerctl login --issuer https://broker.example.com --account acme-admin --key acme.pem --tenant acme --name acme
  brokerctl login --issuer https://broker.example.com --platform-token /var/run/secrets/token`,
		Args: cobra.NoArgs,
	}
	identityFlags(c, p)
	c.Flags().StringVar(&p.Tenant, "tenant", "", "the one tenant that the operator is bound to (default: the whole broker)")
	c.Flags().StringVar(&name, "name", "", "name of the context (default: the broker's host)")
	required(c, "issuer")
	c.MarkFlagsOneRequired("key", "platform-token", "client-secret-file")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		for _, path := range []*string{&p.KeyFile, &p.PlatformTokenFile, &p.SecretFile, &p.CAFile} {
			if *path == "" {
				continue
			}
			absolute, err := filepath.Abs(*path)
			if err != nil {
				return err
			}
			*path = absolute
		}
		if name == "" {
			u, err := url.Parse(p.Issuer)
			if err != nil {
				return usageError{err}
			}
			name = u.Host
		}
		var roles credential.Scopes
		err := p.admin(ctx, func(ctx context.Context, admin *client.Admin) error {
			t, err := admin.Token(ctx)
			if err == nil {
				roles = t.Scopes()
			}
			return err
		})
		if err != nil {
			return err
		}
		s, err := a.loadSettings()
		if err != nil {
			return err
		}
		s.Contexts[name], s.Current = p, name
		path, err := a.saveSettings(s)
		if err != nil {
			return err
		}
		if a.output != outputTable {
			return a.printData(signedIn{s.row(name), roles, path})
		}
		bound := "the whole broker"
		if p.Tenant != "" {
			bound = "tenant " + p.Tenant
		}
		_, err = fmt.Fprintf(a.out, "Signed in to %s for %s with the roles: %s\nContext %s, stored in %s\n",
			p.Issuer, bound, roles, printable(name), path)
		return err
	})
	return c
}

func contextCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the contexts", Args: cobra.NoArgs,
		Example: "  brokerctl context list",
		RunE: a.does(func(context.Context, []string) error {
			s, err := a.loadSettings()
			if err != nil {
				return err
			}
			return printList(a, s.rows(), columns[contextRow]{
				[]string{"CURRENT", "NAME", "ISSUER", "ACCOUNT", "TENANT"},
				func(r contextRow) []string {
					return []string{map[bool]string{true: "*"}[r.Current], r.Name, r.Issuer, r.Account, r.Tenant}
				},
			})
		}),
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: cobra.ExactArgs(1),
		Example: "  brokerctl context use broker.example.com",
		RunE: a.does(func(_ context.Context, args []string) error {
			var row contextRow
			if err := a.changeContexts(args[0], func(s *settings) {
				s.Current = args[0]
				row = s.row(args[0])
			}); err != nil {
				return err
			}
			return a.done(row, "the current context is %s", args[0])
		}),
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Forget a context; its key file stays", Args: cobra.ExactArgs(1),
		Example: "  brokerctl context remove broker.example.com",
		RunE: a.does(func(_ context.Context, args []string) error {
			if err := a.changeContexts(args[0], func(s *settings) {
				delete(s.Contexts, args[0])
				if s.Current == args[0] {
					s.Current = ""
				}
			}); err != nil {
				return err
			}
			return a.done(gone{"context", args[0], "removed"}, "removed context %s", args[0])
		}),
	}
	return group("context", "The brokers and identities to sign in with", "", list, use, remove)
}

// contextRow is a context as it is listed.
type contextRow struct {
	Current bool   `json:"current"`
	Name    string `json:"name"`
	Issuer  string `json:"issuer"`
	Account string `json:"account"`
	Tenant  string `json:"tenant"`
}

// signedIn is the outcome of a login.
type signedIn struct {
	contextRow
	Roles credential.Scopes `json:"roles"`
	File  string            `json:"file"`
}

func (s *settings) rows() func(func(contextRow, error) bool) {
	return func(yield func(contextRow, error) bool) {
		for _, name := range s.names() {
			if !yield(s.row(name), nil) {
				return
			}
		}
	}
}

func (s *settings) row(name string) contextRow {
	p := s.Contexts[name]
	tenant := p.Tenant
	if tenant == "" {
		tenant = credential.System.String()
	}
	return contextRow{name == s.Current, name, p.Issuer, p.Account, tenant}
}

func (a *app) changeContexts(name string, change func(*settings)) error {
	s, err := a.loadSettings()
	if err != nil {
		return err
	}
	if s.Contexts[name] == nil {
		return usageError{fmt.Errorf("there is no context %q: see brokerctl context list", name)}
	}
	change(s)
	_, err = a.saveSettings(s)
	return err
}
