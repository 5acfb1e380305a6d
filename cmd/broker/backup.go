package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

func backupCommand() *cobra.Command {
	var path, to string
	c := &cobra.Command{
		Use:   "backup --config FILE --to FILE",
		Short: "Write a consistent copy of the store, while serving or not",
		Long: `backup writes a consistent copy of the store. A running broker makes it without
a pause, over the socket in its data folder. The copy holds no private key in the
clear, and is sealed under the key-encryption key, which is not in it: to restore a
backup, or to alter one that restores, takes that key.`,
		Example: "  broker backup --config /etc/tenantbroker/broker.yaml --to /backup/broker-2026-03-01.db",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := broker.Load(path, os.LookupEnv)
			if err != nil {
				return err
			}
			hot, err := broker.Backup(c.Context(), config, to, time.Now)
			if err != nil {
				return err
			}
			how := "no broker was serving"
			if hot {
				how = "taken while serving"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s (%s)\n", to, how)
			return err
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&to, "to", "", "the file to write; must not exist (required)")
	_ = c.MarkFlagRequired("to") // fails for a flag that doesn't exist
	return c
}

func restoreCommand() *cobra.Command {
	var path, folder, from string
	c := &cobra.Command{
		Use:   "restore --from FILE (--data DIR | --config FILE)",
		Short: "Put a backup in place as the store of a broker that is not running",
		Long: `restore checks a backup (that the key-encryption key sealed it and nothing was
altered since; every page, the schema, the issuer, every chain of the audit log)
and puts it in place. It never overwrites a store. Whether there is a newer backup
it can't know: compare the time that it prints.

Nobody knows what was issued or used after the backup was taken. So every token
issued before is revoked, all signing keys of the backup are revoked and replaced,
and the broker issues nothing until assertions in flight have expired, some
minutes later; /readyz says until when.

The data folder needs the configuration and the key-encryption key that the
backup was made with.`,
		Example: `  broker restore --data ./data --from /backup/broker-2026-03-01.db
  broker restore --config /etc/tenantbroker/broker.yaml --from /backup/broker-2026-03-01.db`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case folder != "" && path == "":
				path = filepath.Join(folder, "broker.yaml")
			case folder == "" && path == "":
				return errors.New("restore: say where to, with --data or --config")
			}
			config, err := broker.Load(path, os.LookupEnv)
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			done, err := broker.Restore(c.Context(), broker.RestoreOptions{From: from, Config: config, Now: time.Now, Logger: logger})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), `restored %s to %s
  a backup taken %s
  %d audit records verified
  all tokens issued before now are revoked
  %d signing keys revoked and replaced
  no token is issued before %s
`, from, config.StorePath(), done.Taken.Local().Format(time.DateTime), done.Records, len(done.Revoked), done.Until.Local().Format(time.DateTime))
			return err
		},
	}
	c.Flags().StringVar(&from, "from", "", "the backup (required)")
	c.Flags().StringVar(&folder, "data", "", "data folder with broker.yaml in it")
	c.Flags().StringVarP(&path, "config", "c", "", "configuration file")
	c.MarkFlagsMutuallyExclusive("data", "config")
	_ = c.MarkFlagRequired("from") // fails for a flag that doesn't exist
	return c
}
