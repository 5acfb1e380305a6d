package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/demo"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "demo",
		Short:   "Play the broker's main job in a temporary folder, in under a minute",
		Example: "  broker demo",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := untilHangup(c.Context())
			defer stop()
			return demo.Run(ctx, c.OutOrStdout(), os.Args[0])
		},
	}
}
