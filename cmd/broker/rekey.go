package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

func rekeyCommand() *cobra.Command {
	var path string
	var from broker.FormerKEK
	c := &cobra.Command{
		Use:   "rekey --config FILE",
		Short: "Change the key-encryption key of a broker that is not running",
		Long: `rekey makes a new key-encryption key, seals every private key in the store anew
under it, proves that each opens, and puts the new key in the place of the file
that kek_file names. The signing keys stay as they are, so no verifier notices.

Stop the broker first. Run it as the user who runs the broker; it has to write
to the folder of kek_file. If it is cut off, the broker starts all the same, and
rekey, run again, goes on from there.

The former key stays beside the new one, since backups from before can be
restored only with it: put it back under kek_file for that. Delete it when the
last of them is gone.

To go from a key file to a key in Vault, or back, change the configuration first:
kek_vault_key instead of kek_file, or the other way round. Then name the key of
before with --from-file or --from-vault-key. A key file that kek_file names is
made if it isn't there. Cut off, it has changed all or nothing: run it again.

With kek_vault_key and neither, it seals what is sealed under an older version
of that key anew under the newest. The broker does so too, within the hour.

This helps against a key that may become known. If somebody may have it already,
and the store or a backup with it, that one has the signing keys too: revoke
those as well, with brokerctl key.`,
		Example: `  systemctl stop tenantbroker
  broker rekey --config /etc/tenantbroker/broker.yaml
  systemctl start tenantbroker
  broker rekey --config /etc/tenantbroker/broker.yaml --from-file /etc/tenantbroker/kek.key
  broker rekey --config /etc/tenantbroker/broker.yaml --from-vault-key tenantbroker-kek`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := broker.Load(path, os.LookupEnv)
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			done, err := broker.Rekey(c.Context(), broker.RekeyOptions{Config: config, From: from, Now: time.Now, Logger: logger})
			if err != nil {
				return err
			}
			if done.Former == "" || from.File != "" {
				return printRekeyed(c.OutOrStdout(), done)
			}
			how := ""
			if done.Resumed {
				how = ", which finishes a change that was cut off"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), `%d keys sealed anew%s

  %s
     the new key-encryption key: keep a copy where the backups are not
  %s
     the former one, for backups from before: keep it apart from them too, and
     delete it when the last of them is gone
`, done.Keys, how, done.File, done.Former)
			return err
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&from.File, "from-file", "", "the key file of before, where the configuration names another key-encryption key")
	c.Flags().StringVar(&from.VaultKey, "from-vault-key", "", "the key in Vault of before")
	c.Flags().StringVar(&from.Mount, "from-vault-mount", "", "the Transit engine of --from-vault-key; default transit")
	c.MarkFlagsMutuallyExclusive("from-file", "from-vault-key")
	return c
}

func printRekeyed(w io.Writer, done broker.Rekeyed) error {
	former := ""
	if done.Former != "" {
		former = "\n  " + done.Former + `
     the former one, for backups from before: keep it apart from them, and
     delete it when the last of them is gone
`
	}
	_, err := fmt.Fprintf(w, `%d keys sealed anew

  %s
     the key-encryption key that opens them all
%s`, done.Keys, done.Name, former)
	return err
}
