package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration",
		Args:  cobra.NoArgs,
	}
	c.AddCommand(configCheckCommand(), configPrintCommand(), configVariablesCommand())
	return c
}

func configCheckCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:     "check --config FILE",
		Short:   "Check a configuration and the files that it names",
		Example: "  broker config check --config /etc/tenantbroker/broker.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := broker.Load(path, os.LookupEnv)
			if err != nil {
				return err
			}
			if err := broker.Check(config); err != nil {
				return err
			}
			for _, name := range broker.UnknownVariables(os.Environ()) {
				_, _ = fmt.Fprintf(c.ErrOrStderr(), "warning: the environment variable %s means nothing to the broker\n", name)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is good: %s\n", path, config.Issuer())
			return err
		},
	}
	configFlag(c, &path)
	return c
}

func configPrintCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "print [--config FILE]",
		Short: "Print the configuration in effect, or without a file the defaults",
		Example: `  broker config print
  broker config print --config /etc/tenantbroker/broker.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				_, err := c.OutOrStdout().Write(broker.Render(broker.Default()))
				return err
			}
			config, err := broker.Load(path, os.LookupEnv)
			if err != nil {
				return err
			}
			text, err := config.YAML()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration file")
	return c
}

func configVariablesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "variables",
		Short:   "List the environment variables that override keys of the configuration",
		Example: "  broker config variables",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "VARIABLE\tKEY\tDEFAULT\tMEANING")
			for _, v := range broker.Variables() {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Name, v.Key, dash(v.Default), v.Help)
			}
			return w.Flush()
		},
	}
}

func dash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	return s
}
