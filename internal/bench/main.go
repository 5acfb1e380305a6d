// Bench measures the broker as a process beside the floor server, a bare
// handler that does only the same cryptography, and prints ratios: the method
// and a table are in docs/performance.md. It judges nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
)

func main() {
	floor := flag.Bool("floor", false, "serve the floor, used by the benchmark itself")
	binary := flag.String("broker", "bin/broker", "the broker's binary")
	rounds := flag.Int("rounds", 5, "how often each is measured; medians are printed")
	requests := flag.Int("requests", 20_000, "requests per run")
	large := flag.Int("large", 1_000_000, "tenants, accounts and grants of the large world; 0: leave it out")
	folder := flag.String("dir", "", "where the data folders are kept and, if seeded before, used again (default: a temporary one)")
	only := flag.Bool("vault", false, "measure only what has to do with Vault")
	middleware := flag.Bool("guard", false, "measure only guard in front of a handler")
	database := flag.Bool("postgres", false, "measure only tenants' transactions of PostgreSQL")
	onlyChecks := flag.Bool("check", false, "measure only /v1/check")
	flag.Parse()
	if *floor {
		fail(serveFloor())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *database {
		fail((&bench{rounds: *rounds}).postgres(ctx))
		return
	}
	if *middleware {
		fail((&bench{rounds: *rounds}).guards(ctx))
		return
	}
	parts := everything
	switch {
	case *only:
		parts = vaultOnly
	case *onlyChecks:
		parts = checksOnly
	}
	fail(benchmark(ctx, *binary, *folder, *requests, *rounds, *large, parts))
}

// parts are what is measured.
type parts int

const (
	everything parts = iota
	vaultOnly
	checksOnly
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one invocation: the floor, a broker, and what to print.
type bench struct {
	binary   string
	folder   string
	requests int
	rounds   int
	floor    *process
}

func benchmark(ctx context.Context, binary, folder string, requests, rounds, large int, only parts) error {
	if folder == "" {
		temporary, err := os.MkdirTemp("", "tenantbroker-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(temporary) }()
		folder = temporary
	}
	var err error
	b := &bench{binary: binary, folder: folder, requests: requests, rounds: rounds}
	if b.floor, err = startFloor(ctx); err != nil {
		return err
	}
	defer func() { _ = b.floor.stop() }()

	if only == checksOnly {
		return b.checks(ctx)
	}
	small, err := b.world(ctx, 1_000)
	if err != nil {
		return err
	}
	if err := b.vault(ctx, small); err != nil || only == vaultOnly {
		return err
	}
	if err := b.verifier(ctx); err != nil {
		return err
	}
	if err := b.guards(ctx); err != nil {
		return err
	}
	if err := b.postgres(ctx); err != nil {
		return err
	}
	if err := b.checks(ctx); err != nil {
		return err
	}
	if err := b.issuing(ctx, small); err != nil {
		return err
	}
	if large == 0 {
		return nil
	}
	big, err := b.world(ctx, large)
	if err != nil {
		return err
	}
	return b.scale(ctx, small, big)
}

// world returns the data folder with n tenants, seeded now if it isn't there
// as a whole.
func (b *bench) world(ctx context.Context, n int) (*world, error) {
	folder := filepath.Join(b.folder, fmt.Sprint(n))
	complete := folder + ".complete"
	if _, err := os.Stat(complete); err == nil {
		w, _, err := open(filepath.Join(folder, "broker.yaml"), n)
		return w, err
	}
	if err := os.RemoveAll(folder); err != nil {
		return nil, err
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	fmt.Printf("seeding %d tenants, accounts and grants\n", n)
	w, err := seed(ctx, folder, listen, n)
	if err != nil {
		return nil, err
	}
	return w, os.WriteFile(complete, nil, 0o600)
}
