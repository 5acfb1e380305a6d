package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

func initCommand() *cobra.Command {
	var folder, operator, like string
	document := broker.Default()
	c := &cobra.Command{
		Use:   "init --data DIR {--issuer URL | --like FILE}",
		Short: "Make a data folder: configuration, keys, store, first operator",
		Long: `init makes a data folder (mode 0700) with a configuration, a key-encryption key,
a store and the private key of the first operator (mode 0600 each). It refuses a
folder that holds anything.

--like takes everything else from a configuration, such as that of deploy/vault
with the keys in Vault. Keys are made where it says; data_dir and kek_file are
those of the new folder.

The issuer is the URL at which clients reach the broker; it becomes the iss of
every token and can't be changed later. It is https without a path; http is for
loopback only.`,
		Example: `  broker init --data ./data --issuer https://broker.example.com
  broker init --data ./data --issuer http://127.0.0.1:8080
  broker init --data ./data --issuer https://broker.example.com --listen :443 --tls-cert chain.pem --tls-key key.pem
  broker init --data ./data --like /etc/tenantbroker/broker.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if like != "" {
				path, err := filepath.Abs(like) // names in it count from its folder, in the new one too
				if err != nil {
					return err
				}
				config, err := broker.Load(path, os.LookupEnv)
				if err != nil {
					return err
				}
				document = config.Document()
			} else if !c.Flags().Changed("listen") {
				document.Listen = listenFor(document.Issuer, document.Listen)
			}
			// In the document a relative name counts from the data folder.
			for _, name := range []*string{&document.TLS.CertFile, &document.TLS.KeyFile} {
				if *name == "" {
					continue
				}
				absolute, err := filepath.Abs(*name)
				if err != nil {
					return err
				}
				*name = absolute
			}
			made, err := broker.Init(c.Context(), broker.InitOptions{
				Folder: folder, Document: document, Operator: operator, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				return err
			}
			return printInitialized(c.OutOrStdout(), made, document)
		},
	}
	c.Flags().StringVar(&folder, "data", "", "the data folder to make (required)")
	c.Flags().StringVar(&document.Issuer, "issuer", "", "the broker's URL (required)")
	c.Flags().StringVar(&document.Listen, "listen", document.Listen, "address of the public listener; default for an http issuer: its own")
	c.Flags().StringVar(&document.Ops.Listen, "ops-listen", document.Ops.Listen, "address of /healthz, /readyz and /metrics")
	c.Flags().StringVar(&document.TLS.CertFile, "tls-cert", "", "PEM file with the certificate chain")
	c.Flags().StringVar(&document.TLS.KeyFile, "tls-key", "", "PEM file with its private key")
	c.Flags().StringVar(&operator, "operator", "admin", "account id of the first operator")
	c.Flags().StringVar(&like, "like", "", "a configuration to take everything else from")
	_ = c.MarkFlagRequired("data") // fails for a flag that doesn't exist
	c.MarkFlagsOneRequired("issuer", "like")
	for _, name := range []string{"issuer", "listen", "ops-listen", "tls-cert", "tls-key"} {
		c.MarkFlagsMutuallyExclusive("like", name)
	}
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return c
}

// listenFor is where a broker with this issuer listens unless told otherwise:
// at the issuer itself if that is plain http, which only loopback is.
func listenFor(issuer, preset string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return preset
	}
	return u.Host
}

func printInitialized(w io.Writer, made broker.Initialized, d broker.Document) error {
	served := ""
	if d.TLS.CertFile == "" && u(d.Issuer).Scheme == "https" {
		served = `
     It listens by plain http on ` + d.Listen + `, for a TLS proxy on this machine.
     To serve TLS itself, set tls.cert_file and tls.key_file there first.
`
	}
	listed, copies := fmt.Sprintf("\n  %-14s the key-encryption key", filepath.Base(made.KEK)),
		fmt.Sprintf(`Keep a copy of %s somewhere else than the backups:
     with both, anyone can sign tokens; with the backups alone, nobody can restore.`, made.KEK)
	if made.KEK == "" {
		listed, copies = "", fmt.Sprintf(`The key-encryption key is %s in Vault: who backs the broker up must
     back Vault up too, since without that key nobody can restore.`, d.KEKVaultKey)
	}
	_, err := fmt.Fprintf(w, `Made %s:
  %-14s the configuration%s
  %-14s the store
  %-14s the private key of the operator %s

Next:
  1. %s

  2. broker serve --config %s
%s
  3. brokerctl login --issuer %s --account %s --key %s
     Move that key to the operator's own machine: the broker does not need it.
`,
		filepath.Dir(made.Config),
		filepath.Base(made.Config), listed, "store.db", filepath.Base(made.OperatorKey), made.Operator,
		copies, made.Config, served, d.Issuer, made.Operator, made.OperatorKey)
	return err
}

func u(s string) *url.URL {
	parsed, err := url.Parse(s)
	if err != nil {
		return new(url.URL)
	}
	return parsed
}
