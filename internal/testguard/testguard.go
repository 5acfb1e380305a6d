// Package testguard gives the tests of guard's neighbours what they all need: a
// service's Guard that remembers its decisions, and contexts with tokens of
// several tenants. Tests only.
package testguard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

// World is a service with callers of several tenants.
type World struct {
	*guardtest.Issuer
	Guard *guard.Guard

	t     testing.TB
	mu    sync.Mutex
	ahead time.Duration
	seen  []guard.Decision
}

// New makes it for a test.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{Issuer: guardtest.NewIssuer(t), t: t}
	var err error
	w.Guard, err = guard.New(guard.Config{Verifier: w.Verifier(), Logger: slog.New(slog.DiscardHandler), Observe: w.observe, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *World) observe(_ context.Context, d guard.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, d)
}

// Now is the clock of the tokens.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

// Pass lets time pass, for tokens and by Now.
func (w *World) Pass(d time.Duration) {
	w.Issuer.Pass(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// As is the context of a request with a token of a tenant that is made now. For
// the test's own goroutine.
func (w *World) As(tenant string) context.Context {
	w.t.Helper()
	ctx, err := w.Guard.Enter(w.t.Context(), w.Token(tenant), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return ctx
}

// Decisions are those since the last call.
func (w *World) Decisions() []guard.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// WantCrossing fails the test unless an error is a crossing, and the one decision
// since the last call says so.
func (w *World) WantCrossing(err error, tenant, owner string) {
	w.t.Helper()
	seen := w.Decisions()
	if !errors.Is(err, guard.ErrCrossing) || len(seen) != 1 || !seen[0].Crossing ||
		seen[0].Tenant.String() != tenant || seen[0].Resource.Tenant.String() != owner {
		w.t.Errorf("error %v, decisions %+v: want one crossing from %s to %s", err, seen, tenant, owner)
	}
}
