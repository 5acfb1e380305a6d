// Command brokerctl administers a tenantbroker and gets tokens from it.
//
// Its rules: what was asked for goes to stdout, everything else to stderr. No
// secret, key or token is taken from the command line or shown unless asked
// for by name. A change needs --reason; what can't be undone asks first, and
// without a terminal needs --yes. Exit codes are documented in "brokerctl help
// exit-codes". It talks to the broker over HTTP only, as any other client.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, newApp(), os.Args[1:])
	stop()
	os.Exit(code)
}
