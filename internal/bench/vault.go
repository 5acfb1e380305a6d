package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// callers is how many ask for signatures, or tokens, at a time.
const callers = 64

// vault prints how Vault's Transit signs, in batches beside one call for each
// signature, and what issuing through it costs beside issuing with sealed keys.
func (b *bench) vault(ctx context.Context, sealed *world) (err error) {
	server, err := devvault.Start(ctx, devvault.Options{}) // TLS, storage on disk and an audit device, as in production
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := server.Mount(ctx, "transit", "transit", nil); err != nil {
		return err
	}
	if err := b.transit(ctx, server); err != nil {
		return err
	}
	return b.issuingInVault(ctx, server, sealed)
}

// way is one way to share calls.
type way struct {
	batch, calls int
}

// signing is what one run of signatures measured.
type signing struct {
	perSecond, vaultMS, batch float64
}

func (b *bench) transit(ctx context.Context, server *devvault.Server) error {
	client, err := vault.New(vault.Config{
		Address: server.URL(), CAFile: server.CACert(), Login: vault.Token{Secret: credential.NewSecret([]byte(server.RootToken()))},
	})
	if err == nil {
		err = client.Login(ctx)
	}
	if err != nil {
		return err
	}
	ways := []way{{1, callers}, {16, 4}, {32, 4}, {64, 1}, {64, 4}, {128, 4}}
	results := make([][]signing, len(ways))
	for round := range b.rounds + 1 { // the first one warms up
		for i, w := range ways {
			n := b.requests
			if w.batch == 1 {
				n /= 4
			}
			got, err := signAll(ctx, server, client, w, n)
			if err != nil {
				return err
			}
			if round > 0 {
				results[i] = append(results[i], got)
			}
		}
	}
	fmt.Printf("\n### Vault's Transit signs ES256, %d callers, medians of %d rounds\n\n", callers, b.rounds)
	fmt.Println("| batch | calls at a time | in one call | Vault's CPU ms per signature | ratio | per second | ratio |")
	fmt.Println("|---|---|---|---|---|---|---|")
	one := results[0]
	for i, w := range ways {
		all := results[i]
		fmt.Printf("| %d | %d | %.1f | %.3f | %.2f | %.0f | %.2f |\n", w.batch, w.calls,
			middle(all, one, func(s, _ signing) float64 { return s.batch }),
			middle(all, one, func(s, _ signing) float64 { return s.vaultMS }),
			middle(all, one, func(s, o signing) float64 { return s.vaultMS / o.vaultMS }),
			middle(all, one, func(s, _ signing) float64 { return s.perSecond }),
			middle(all, one, func(s, o signing) float64 { return s.perSecond / o.perSecond }))
	}
	return nil
}

// middle is the median over the rounds of a figure, beside one call for each
// signature in the same round.
func middle(all, one []signing, figure func(s, one signing) float64) float64 {
	runs := make([]run, len(all)) // median counts over runs
	at := make(map[time.Duration]float64, len(all))
	for i := range all {
		runs[i].elapsed = time.Duration(i)
		at[time.Duration(i)] = figure(all[i], one[i])
	}
	return median(runs, func(r run) float64 { return at[r.elapsed] })
}

// signAll has the callers ask for n signatures.
func signAll(ctx context.Context, server *devvault.Server, client *vault.Client, w way, n int) (signing, error) {
	home, err := keys.NewTransit(ctx, keys.TransitConfig{
		Engine: func(mount string) keys.TransitEngine { return client.Transit(mount) }, Prefix: "bench", Batch: w.batch, Calls: w.calls,
	})
	if err != nil {
		return signing{}, err
	}
	defer home.Close()
	made, err := home.Generate(ctx, credential.ES256, keys.Spent{Asked: 1})
	if err != nil {
		return signing{}, err
	}
	key, err := home.Open(ctx, made)
	if err != nil {
		return signing{}, err
	}
	before, err := server.CPU()
	if err != nil {
		return signing{}, err
	}
	input := make([]byte, 550) // as long as a token's
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wait sync.WaitGroup
	start := time.Now()
	for range callers {
		wait.Go(func() {
			for next.Add(1) <= int64(n) {
				if _, err := key.Sign(ctx, input); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wait.Wait()
	elapsed := time.Since(start)
	if err := failed.Load(); err != nil {
		return signing{}, *err
	}
	after, err := server.CPU()
	stats := home.Stats()
	return signing{
		perSecond: float64(n) / elapsed.Seconds(), vaultMS: ms(after-before) / float64(n),
		batch: float64(stats.Signatures) / float64(stats.Calls),
	}, err
}

// issuingInVault drives a broker whose keys are in Vault and one whose keys are
// sealed, in turns.
func (b *bench) issuingInVault(ctx context.Context, server *devvault.Server, sealed *world) (err error) {
	folder, err := os.MkdirTemp("", "tenantbroker-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	token := filepath.Join(folder, "token")
	if err := os.WriteFile(token, []byte(server.RootToken()), 0o600); err != nil {
		return err
	}
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	w, err := seed(ctx, filepath.Join(folder, "data"), listen, sealed.n, func(d *broker.Document) {
		d.Vault.Address, d.Vault.CAFile, d.Vault.Login, d.Vault.TokenFile = server.URL(), server.CACert(), "token_file", token
		d.Signing.Home = keys.TransitHome
	})
	if err != nil {
		return err
	}
	ps, err := startBroker(ctx, b.binary, sealed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ps.stop()) }()
	pv, err := startBroker(ctx, b.binary, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pv.stop()) }()
	fmt.Printf("\n### Issuing through Vault beside issuing with sealed keys, assertions, medians of %d rounds\n\n", b.rounds)
	fmt.Println("| conns | sealed: CPU s per 1,000 | in Vault: broker's | Vault's | together, ratio | sealed p50 ms | in Vault p50 | sealed per second | in Vault per second | ratio |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, conns := range []int{1, 16, callers} {
		var with, without, inside, together []run
		for range b.rounds {
			n := b.requests
			if conns == 1 {
				n /= 8
			}
			one, err := driveAssertions(ps, sealed, conns, n)
			if err != nil {
				return err
			}
			before, err := server.CPU()
			if err != nil {
				return err
			}
			two, err := driveAssertions(pv, w, conns, n)
			if err != nil {
				return err
			}
			after, err := server.CPU()
			if err != nil {
				return err
			}
			both := two
			both.serverCPU = after - before
			all := both
			all.serverCPU += two.serverCPU
			without, with, inside, together = append(without, one), append(with, two), append(inside, both), append(together, all)
		}
		cpu := func(r run) float64 { return r.cpuPerThousand() }
		p50 := func(r run) float64 { return ms(r.p50) }
		fmt.Printf("| %d | %.3f | %.3f | %.3f | %.2f | %.2f | %.2f | %.0f | %.0f | %.2f |\n", conns,
			median(without, cpu), median(with, cpu), median(inside, cpu),
			medianRatio(together, without, cpu), median(without, p50), median(with, p50),
			median(without, run.perSecond), median(with, run.perSecond), medianRatio(with, without, run.perSecond))
	}
	return nil
}

func driveAssertions(p *process, w *world, conns, n int) (run, error) {
	bodies, err := w.assertions(n)
	if err != nil {
		return run{}, err
	}
	return drive(p.url+"/oauth2/token", p.pid, conns, bodies)
}
