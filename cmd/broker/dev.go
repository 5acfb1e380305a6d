package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func devCommand() *cobra.Command {
	var port uint16
	var empty bool
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a broker on loopback in a temporary folder, to try things out",
		Long: `dev makes a broker in a temporary folder, with an operator, two tenants, a
service and a worker, serves it on loopback and prints what to paste. Everything
is gone when it stops.`,
		Example: `  broker dev
  broker dev --port 8080 --empty`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := untilHangup(c.Context())
			defer stop()
			return dev(ctx, c.OutOrStdout(), port, empty)
		},
	}
	c.Flags().Uint16Var(&port, "port", 0, "port on 127.0.0.1; 0: any that is free")
	c.Flags().BoolVar(&empty, "empty", false, "begin with nothing but the operator")
	return c
}

// untilHangup ends with a closed terminal too: what is temporary is to be
// cleared away then.
func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

func dev(ctx context.Context, out io.Writer, port uint16, empty bool) (err error) {
	folder, err := os.MkdirTemp("", "broker-dev-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	var network net.ListenConfig
	listener, err := network.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	b, made, err := openDev(ctx, filepath.Join(folder, "data"), listener)
	if err != nil {
		_ = listener.Close() // perhaps closed already
		return err
	}
	worker := filepath.Join(folder, "worker.pem")
	if !empty {
		if err := seed(ctx, b.Registry(), made.Operator, worker); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	if err := printDev(out, b, made, folder, worker, empty); err != nil {
		return errors.Join(err, b.Close())
	}
	return b.Run(ctx)
}

// openDev makes a data folder and opens a broker on it at the listener.
func openDev(ctx context.Context, folder string, listener net.Listener) (*broker.Broker, broker.Initialized, error) {
	document := broker.Default()
	document.Issuer = "http://" + listener.Addr().String()
	document.Listen = listener.Addr().String()
	document.Ops.Listen = "127.0.0.1:0"
	document.Development.AllowLoopbackHTTP = true
	made, err := broker.Init(ctx, broker.InitOptions{
		Folder: folder, Document: document, Operator: "admin", Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, made, err
	}
	config, err := broker.Load(made.Config, broker.NoEnvironment)
	if err != nil {
		return nil, made, err
	}
	logger, level := broker.NewLogger(config, os.Stderr)
	b, err := broker.Open(ctx, config, broker.Deps{
		Now: time.Now, Logger: logger, Level: level, Version: versionText(), Listener: listener,
	})
	return b, made, err
}

// seed declares two tenants, a service and a worker that may read and write
// there for one of the two.
func seed(ctx context.Context, g *registry.Registry, operator credential.AccountID, keyFile string) error {
	by := registry.By{
		Subject: operator, ClientID: operator, Tenant: credential.System,
		Roles: credential.MustScopes(string(registry.RoleAdmin)), Reason: "an example",
	}
	for _, id := range []string{"acme", "globex"} {
		if _, err := g.CreateTenant(ctx, by, registry.Tenant{ID: credential.MustTenant(id)}); err != nil {
			return err
		}
	}
	private, public, err := broker.NewAccountKey()
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, private, 0o600); err != nil {
		return err
	}
	worker, orders := credential.MustAccountID("worker"), credential.MustAccountID("orders")
	for _, a := range []registry.Account{
		{ID: orders, Description: "runs the service orders"},
		{ID: worker, Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: string(public.JWK())}}},
	} {
		a.Home, a.Owner = credential.System, "you"
		if _, err := g.CreateAccount(ctx, by, a); err != nil {
			return err
		}
	}
	audience := credential.MustAudience("orders")
	if _, err := g.CreateAudience(ctx, by, registry.Audience{Name: audience, Owner: orders}); err != nil {
		return err
	}
	_, err = g.CreateGrant(ctx, by, registry.Grant{
		Account: worker, Audience: audience, Scopes: credential.MustScopes("orders:read orders:write"),
		Tenants: []credential.Tenant{credential.MustTenant("acme")}, Reason: "an example",
	})
	return err
}

func printDev(w io.Writer, b *broker.Broker, made broker.Initialized, folder, worker string, empty bool) error {
	_, err := fmt.Fprintf(w, `A broker to try things out: %[1]s
Everything is in %[2]s and gone when it stops (Ctrl-C).

  export BROKERCTL_CONFIG=%[2]s/brokerctl.yaml
  brokerctl login --issuer %[1]s --account %[3]s --key %[4]s
  brokerctl tenant list
  brokerctl audit tail

  curl %[1]s/.well-known/jwks.json
  curl http://%[5]s/readyz
`, b.Issuer(), folder, made.Operator, made.OperatorKey, b.OpsAddress())
	if err != nil || empty {
		return err
	}
	_, err = fmt.Fprintf(w, `
The account worker may read and write orders for the tenant acme, not for globex:

  brokerctl token issue --issuer %[1]s --account worker --key %[2]s --audience orders --tenant acme
  brokerctl token issue --issuer %[1]s --account worker --key %[2]s --audience orders --tenant globex
`, b.Issuer(), worker)
	return err
}
