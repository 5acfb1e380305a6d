package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// guards prints what the middleware adds to an empty handler for a token that it
// has seen before, in turns. Expiry and revocation are checked each time.
func (b *bench) guards(ctx context.Context) error {
	const n, rounds = 100_000, 5
	key, err := keyOf(7)
	if err != nil {
		return err
	}
	public, err := jwkOf(key)
	if err != nil {
		return err
	}
	v, err := verifier.New(ctx, verifier.Config{
		Issuer: "https://broker.example", Audience: audience.String(), Keys: jwks.NewSet(public), Revocations: suspended{tenantOf(2): true},
	})
	if err != nil {
		return err
	}
	g, err := guard.New(guard.Config{Verifier: v, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	tokens, err := accessTokens(key, 1)
	if err != nil {
		return err
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) })
	guarded := g.Handler(guard.Route{Scopes: scopes, Tenants: []guard.TenantSource{guard.InHeader("X-Customer")}}, bare)
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/orders", nil)
	request.Header.Set("Authorization", "Bearer "+tokens[0])
	request.Header.Set("X-Customer", tenantOf(1).String())
	w := &discard{header: make(http.Header)}
	ask := func(h http.Handler) func(int) bool {
		return func(int) bool {
			clear(w.header)
			w.status = http.StatusOK
			h.ServeHTTP(w, request)
			return w.status == http.StatusOK
		}
	}
	fmt.Println("\n### Middleware, beside an empty handler, a token seen before")
	fmt.Println("\n| round | empty ns | guarded ns | more | allocations more |")
	fmt.Println("|---|---|---|---|---|")
	for round := 1; round <= rounds; round++ {
		var without, with time.Duration
		const turn = n / 10
		var before, after runtime.MemStats
		var allocated uint64
		for range n / turn {
			without += timed(turn, ask(bare))
			runtime.ReadMemStats(&before)
			with += timed(turn, ask(guarded))
			runtime.ReadMemStats(&after)
			allocated += after.Mallocs - before.Mallocs
		}
		without, with = without/(n/turn), with/(n/turn)
		fmt.Printf("| %d | %d | %d | %d | %.1f |\n", round, without.Nanoseconds(), with.Nanoseconds(), (with - without).Nanoseconds(), float64(allocated)/n)
	}
	return nil
}

// suspended is a list of tenants that ended, with one that nobody asks for.
type suspended map[credential.Tenant]bool

func (s suspended) Revoked(t *verifier.Token) error {
	if s[t.Tenant()] {
		return verifier.ErrRevoked
	}
	return nil
}

// discard is an answer that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
