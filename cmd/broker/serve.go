package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

func serveCommand() *cobra.Command {
	var path string
	var insecure bool
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the broker",
		Long: `serve runs the broker until it gets SIGTERM or SIGINT; then it finishes the
requests in flight. On SIGHUP it reads the TLS certificate, log.level and
check.proxies again.`,
		Example: "  broker serve --config /etc/tenantbroker/broker.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			hangup := make(chan os.Signal, 1) // from here on a SIGHUP is not the end of the process
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			config, err := broker.Load(path, withInsecure(insecure))
			if err != nil {
				return err
			}
			return serve(c.Context(), config, hangup, withInsecure(insecure))
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&insecure, "insecure-plain-http", false, "serve plain HTTP beyond loopback (development.insecure_plain_http)")
	return c
}

// withInsecure is the environment, with the flag standing in for its variable.
func withInsecure(insecure bool) func(string) (string, bool) {
	return func(name string) (string, bool) {
		if insecure && name == "TENANTBROKER_DEVELOPMENT_INSECURE_PLAIN_HTTP" {
			return "true", true
		}
		return os.LookupEnv(name)
	}
}

func serve(ctx context.Context, config broker.Config, hangup <-chan os.Signal, environment func(string) (string, bool)) error {
	tuneMemory()
	logger, level := broker.NewLogger(config, os.Stderr)
	b, err := broker.Open(ctx, config, broker.Deps{Now: time.Now, Logger: logger, Level: level, Version: versionText()})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		for {
			select {
			case <-hangup:
				b.Reload(environment)
			case <-done:
				return
			}
		}
	}()
	err = b.Run(ctx)
	close(done)
	<-reloaded
	return err
}
