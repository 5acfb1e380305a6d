package main

import (
	"github.com/spf13/cobra"
)

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "broker",
		Short: "Issue short-lived tokens that carry exactly one tenant",
		Long: `broker trades the identity that a workload already has for a token that lives
minutes and carries exactly one tenant.

To try it out:     broker dev
To set it up:      broker init --data DIR --issuer https://broker.example.com
                   broker serve --config DIR/broker.yaml
To administer it:  brokerctl`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.AddCommand(
		initCommand(), serveCommand(), devCommand(), demoCommand(), configCommand(),
		backupCommand(), restoreCommand(), rekeyCommand(), versionCommand(),
	)
	return root
}

// configFlag adds the flag that every command on an existing broker takes.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "", "configuration file (required)")
	_ = c.MarkFlagRequired("config") // fails for a flag that doesn't exist
	_ = c.MarkFlagFilename("config", "yaml", "yml")
}
