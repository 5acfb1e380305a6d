package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/demo"
)

func demoCommand() *cobra.Command {
	var vault bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Play the broker's main job in a temporary folder, in under a minute",
		Long: `demo starts a broker in a temporary folder and plays its main job on real input,
telling what it expects and what it sees. With --vault the signing keys live in a
real HashiCorp Vault, the one in PATH (1.21 or newer) or what script/vault built,
and a secret that lies there is rotated while a worker uses it.`,
		Example: `  broker demo
  broker demo --vault`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := untilHangup(c.Context())
			defer stop()
			return demo.Run(ctx, c.OutOrStdout(), demo.Options{Program: os.Args[0], Vault: vault})
		},
	}
	c.Flags().BoolVar(&vault, "vault", false, "keep the keys in a real Vault, and rotate a shared secret there")
	return c
}
