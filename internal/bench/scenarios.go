package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// kind is one way to get a token, and what its floor does.
type kind struct {
	name, floor string
	bodies      func(int) ([][]byte, error)
}

// issuing prints tokens from a client assertion and from a cached platform
// identity, each beside its floor, at 1, 16 and 64 connections.
func (b *bench) issuing(ctx context.Context, w *world) (err error) {
	p, err := startBroker(ctx, b.binary, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	before, tokens := storeBytes(w), 0
	fmt.Printf("\n### Issuing, %d tenants, medians of %d rounds, start-up %s\n\n", w.n, b.rounds, p.startup.Round(time.Millisecond))
	fmt.Println("| from | conns | CPU s per 1,000 | floor | ratio | p50 ms | p99 ms | floor p99 | ratio | per second | RSS MiB |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|")
	for _, k := range []kind{{"assertion", "/verify-sign", w.assertions}, {"platform", "/sign", w.vouched}} {
		cold := true // the very first run of a kind meets empty caches
		for _, conns := range []int{1, 16, 64} {
			for ; ; cold = false {
				got, floor, err := b.paired(p, k, conns, cold)
				if err != nil {
					return err
				}
				for _, r := range got {
					tokens += r.requests
				}
				row(k.name, cold, conns, got, floor)
				if !cold {
					break
				}
			}
		}
	}
	fmt.Printf("\nDisk: %d bytes per token (file growth over %d tokens).\n", (storeBytes(w)-before)/int64(tokens), tokens)
	return nil
}

// paired runs the broker and its floor in turns; once where caches are cold.
func (b *bench) paired(p *process, k kind, conns int, cold bool) (got, floor []run, err error) {
	n, rounds := b.requests, b.rounds
	if conns == 1 {
		n /= 4
	}
	if cold {
		rounds = 1
	}
	for range rounds {
		bodies, err := k.bodies(n)
		if err != nil {
			return nil, nil, err
		}
		f, err := drive(b.floor.url+k.floor, b.floor.pid, conns, bodies)
		if err != nil {
			return nil, nil, err
		}
		g, err := drive(p.url+"/oauth2/token", p.pid, conns, bodies)
		if err != nil {
			return nil, nil, err
		}
		got, floor = append(got, g), append(floor, f)
	}
	return got, floor, nil
}

func row(name string, cold bool, conns int, got, floor []run) {
	if cold {
		name += " (cold)"
	}
	cpu := func(r run) float64 { return r.cpuPerThousand() }
	p99 := func(r run) float64 { return ms(r.p99) }
	fmt.Printf("| %s | %d | %.3f | %.3f | %.2f | %.2f | %.2f | %.2f | %.2f | %.0f | %d |\n", name, conns,
		median(got, cpu), median(floor, cpu), medianRatio(got, floor, cpu),
		median(got, func(r run) float64 { return ms(r.p50) }), median(got, p99), median(floor, p99), medianRatio(got, floor, p99),
		median(got, run.perSecond), got[len(got)-1].memory.all)
}

func median(runs []run, figure func(run) float64) float64 {
	var all []float64
	for _, r := range runs {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// medianRatio is the median of the ratios pair by pair: the machine's own
// speed drifts.
func medianRatio(a, b []run, figure func(run) float64) float64 {
	var all []float64
	for i := range a {
		all = append(all, figure(a[i])/figure(b[i]))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// scale compares the large world with the small one, and the account with
// 100,000 tenants with the others, in turns.
func (b *bench) scale(ctx context.Context, small, big *world) (err error) {
	ps, err := startBroker(ctx, b.binary, small)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ps.stop()) }()
	pb, err := startBroker(ctx, b.binary, big)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pb.stop()) }()
	fmt.Printf("\n### Scale, 64 connections, assertions; start-up with %d: %s, store %d MiB\n\n", big.n, pb.startup.Round(time.Millisecond), storeBytes(big)>>20)
	fmt.Println("| round | small per second | large per second | ratio | wide per second | ratio to large | large RSS MiB | without pages of files |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for round := 1; round <= 3; round++ {
		bodies, err := small.assertions(b.requests)
		if err != nil {
			return err
		}
		s, err := drive(ps.url+"/oauth2/token", ps.pid, 64, bodies)
		if err != nil {
			return err
		}
		if bodies, err = big.assertions(b.requests); err != nil {
			return err
		}
		l, err := drive(pb.url+"/oauth2/token", pb.pid, 64, bodies)
		if err != nil {
			return err
		}
		if !big.wide {
			fmt.Printf("| %d | %.0f | %.0f | %.2f | - | - | %d | %d |\n", round, s.perSecond(), l.perSecond(), l.perSecond()/s.perSecond(),
				l.memory.all, l.memory.all-l.memory.files)
			continue
		}
		if bodies, err = big.wideAssertions(b.requests); err != nil {
			return err
		}
		m, err := drive(pb.url+"/oauth2/token", pb.pid, 64, bodies)
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %.0f | %.0f | %.2f | %.0f | %.2f | %d | %d |\n", round, s.perSecond(), l.perSecond(),
			l.perSecond()/s.perSecond(), m.perSecond(), m.perSecond()/l.perSecond(), m.memory.all, m.memory.all-m.memory.files)
	}
	return nil
}

// verifier prints Verify, at first sight and again, beside a bare signature
// check, in turns.
func (b *bench) verifier(ctx context.Context) error {
	const n, rounds = 2_000, 5
	key, err := keyOf(7)
	if err != nil {
		return err
	}
	public, err := jwkOf(key)
	if err != nil {
		return err
	}
	v, err := verifier.New(ctx, verifier.Config{
		Issuer: "https://broker.example", Audience: audience.String(), Keys: jwks.NewSet(public),
	})
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte("bare"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return err
	}
	fmt.Println("\n### Verify, beside one bare P-256 verification")
	fmt.Println("\n| round | bare µs | first sight µs | ratio | again ns | allocations again |")
	fmt.Println("|---|---|---|---|---|---|")
	for round := 1; round <= rounds; round++ {
		tokens, err := accessTokens(key, n)
		if err != nil {
			return err
		}
		// In short turns, so that a moment's load hits both.
		const turn = 50
		var bare, first time.Duration
		for from := 0; from < n; from += turn {
			bare += timed(turn, func(int) bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) })
			first += timed(turn, func(i int) bool { _, err := v.Verify(ctx, tokens[from+i]); return err == nil })
		}
		bare, first = bare/(n/turn), first/(n/turn)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		again := timed(100*n, func(int) bool { _, err := v.Verify(ctx, tokens[n-1]); return err == nil })
		runtime.ReadMemStats(&after)
		fmt.Printf("| %d | %.1f | %.1f | %.2f | %d | %.2f |\n", round,
			float64(bare.Nanoseconds())/1000, float64(first.Nanoseconds())/1000, float64(first)/float64(bare),
			again.Nanoseconds(), float64(after.Mallocs-before.Mallocs)/(100*n))
	}
	return nil
}

// timed returns how long one call takes; a call that fails makes it absurd.
func timed(n int, call func(int) bool) time.Duration {
	start := time.Now()
	for i := range n {
		if !call(i) {
			return time.Hour
		}
	}
	return time.Since(start) / time.Duration(n)
}

func accessTokens(key *ecdsa.PrivateKey, n int) ([]string, error) {
	now := time.Now().Truncate(time.Second)
	out := make([]string, n)
	for i := range out {
		c := credential.Claims{
			Issuer: "https://broker.example", Subject: accountOf(1), ClientID: accountOf(1), Audience: audience,
			Tenant: tenantOf(1), Scopes: scopes, IssuedAt: now, Expires: now.Add(5 * time.Minute),
			ID: credential.NewID(), Txn: credential.NewID(),
		}
		raw, err := signedPayload(key, c.AppendJSON(nil))
		if err != nil {
			return nil, err
		}
		out[i] = raw
	}
	return out, nil
}
