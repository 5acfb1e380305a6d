package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which brokerctl this is", Args: cobra.NoArgs,
		Example: "  brokerctl version",
		RunE: a.does(func(context.Context, []string) error {
			v := buildVersion()
			if a.output != outputTable {
				return a.printData(v)
			}
			_, err := fmt.Fprintf(a.out, "brokerctl %s %s %s\n", v.Version, v.Revision, v.Go)
			return err
		}),
	}
}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}

// buildVersion reads what the Go toolchain has written into the program.
func buildVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Revision: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}
