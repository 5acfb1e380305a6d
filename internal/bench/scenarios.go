package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// issuing prints tokens from a client assertion and from a cached platform
// identity, each beside its floor, at 1, 16 and 64 connections.
func (b *bench) issuing(ctx context.Context, w *world) (err error) {
	p, err := startBroker(ctx, b.binary, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	before, tokens := storeBytes(w), 0
	fmt.Printf("\n### Issuing, %d tenants, server start-up %s\n\n", w.n, p.startup.Round(time.Millisecond))
	fmt.Println("| from | conns | CPU s per 1,000 | floor | ratio | p50 ms | p99 ms | floor p99 | ratio | per second | RSS MiB |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|")
	for _, kind := range []struct {
		name, floor string
		bodies      func(int) ([][]byte, error)
	}{
		{"assertion (cold)", "/verify-sign", w.assertions},
		{"assertion", "/verify-sign", w.assertions},
		{"platform (cold)", "/sign", w.vouched},
		{"platform", "/sign", w.vouched},
	} {
		for _, conns := range []int{1, 16, 64} {
			cold := conns != 1 && (kind.name == "assertion (cold)" || kind.name == "platform (cold)")
			if cold {
				continue // only the first run of each kind meets empty caches
			}
			n := b.requests
			if conns == 1 {
				n /= 4
			}
			bodies, err := kind.bodies(n)
			if err != nil {
				return err
			}
			floor, err := drive(b.floor.url+kind.floor, b.floor.pid, conns, bodies)
			if err != nil {
				return err
			}
			got, err := drive(p.url+"/oauth2/token", p.pid, conns, bodies)
			if err != nil {
				return err
			}
			tokens += n
			row(kind.name, conns, got, floor)
		}
	}
	fmt.Printf("\nDisk: %d bytes per token (file growth over %d tokens).\n", (storeBytes(w)-before)/int64(tokens), tokens)
	return nil
}

func row(name string, conns int, got, floor run) {
	fmt.Printf("| %s | %d | %.3f | %.3f | %.2f | %.2f | %.2f | %.2f | %.2f | %.0f | %d |\n", name, conns,
		got.cpuPerThousand(), floor.cpuPerThousand(), got.cpuPerThousand()/floor.cpuPerThousand(),
		ms(got.p50), ms(got.p99), ms(floor.p99), ms(got.p99)/ms(floor.p99), got.perSecond(), got.residentKB/1024)
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
	fmt.Println("| round | small per second | large per second | ratio | wide per second | ratio to large | large RSS MiB |")
	fmt.Println("|---|---|---|---|---|---|---|")
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
			fmt.Printf("| %d | %.0f | %.0f | %.2f | - | - | %d |\n", round, s.perSecond(), l.perSecond(), l.perSecond()/s.perSecond(), l.residentKB/1024)
			continue
		}
		if bodies, err = big.wideAssertions(b.requests); err != nil {
			return err
		}
		m, err := drive(pb.url+"/oauth2/token", pb.pid, 64, bodies)
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %.0f | %.0f | %.2f | %.0f | %.2f | %d |\n", round, s.perSecond(), l.perSecond(),
			l.perSecond()/s.perSecond(), m.perSecond(), m.perSecond()/l.perSecond(), m.residentKB/1024)
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
		bare := timed(n, func(int) bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) })
		first := timed(n, func(i int) bool { _, err := v.Verify(ctx, tokens[i]); return err == nil })
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
