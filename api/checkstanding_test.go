package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestACheckAsksEachTimeWhetherTheTokenIsAlive(t *testing.T) {
	for name, end := range map[string]func(*checking){
		"the tenant is suspended": func(c *checking) {
			must[registry.Tenant](c.t)(c.registry.SuspendTenant(c.t.Context(), root(), credential.MustTenant("acme"), 0))
		},
		"the account is disabled": func(c *checking) {
			must[registry.Account](c.t)(c.registry.DisableAccount(c.t.Context(), root(), credential.MustAccountID("worker"), 0))
		},
		"the token has expired": func(c *checking) { c.advance(5*time.Minute + credential.Leeway) },
	} {
		c := newChecking(t)
		bearer := "Bearer " + c.token()
		for range 2 { // the second time the verifier has seen it
			if a := c.ask("audience=orders&tenant=acme", "Authorization", bearer); a.status != 200 {
				t.Fatalf("%s: before: %d", name, a.status)
			}
		}
		end(c)
		a := c.ask("audience=orders&tenant=acme", "Authorization", bearer)
		if a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), `error="invalid_token"`) {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	c := newChecking(t)
	raw := c.token()
	form := url.Values{"token": {raw}, "client_assertion_type": {wire.AssertionJWTBearer}, "client_assertion": {c.assertion("worker")}}
	if a := c.post(wire.PathRevoke, form); a.status != 200 {
		t.Fatalf("revoke: %d", a.status)
	}
	if a := c.ask("audience=orders", "Authorization", "Bearer "+raw); a.status != 401 {
		t.Errorf("a revoked token: %d", a.status)
	}
}

func TestACheckIsKeptNoLongerThanItsToken(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	for _, step := range []struct {
		later time.Duration
		want  string
	}{
		{0, "private, max-age=5"}, {5*time.Minute - 5*time.Second, "private, max-age=5"}, {2 * time.Second, "private, max-age=3"},
		{2500 * time.Millisecond, "no-store"}, {time.Second, "no-store"}, // the clocks' leeway is no life
	} {
		c.advance(step.later)
		if a := c.ask("audience=orders", "Authorization", bearer); a.status != 200 || a.header.Get("Cache-Control") != step.want {
			t.Errorf("%s later: %d %q, want %q", step.later, a.status, a.header.Get("Cache-Control"), step.want)
		}
	}
}

func TestACheckThatCantSayIsNoPermission(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	for name, change := range map[string]func(*CheckConfig){
		"the store can't be read": func(cfg *CheckConfig) {
			cfg.Standing = standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, store.ErrUnavailable })
		},
		"the keys can't be had": func(cfg *CheckConfig) {
			cfg.Verifiers[credential.MustAudience("orders")] = verifyFunc(func(context.Context, string) (*verifier.Token, error) {
				return nil, fmt.Errorf("asked: %w", verifier.ErrUnavailable)
			})
		},
	} {
		cfg := c.checkConfig(standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, nil }))
		cfg.Metrics = nil
		change(&cfg)
		a := askOf(t, must[http.Handler](t)(NewCheck(cfg)), "GET", wire.PathCheck+"?audience=orders", "Authorization", bearer)
		if a.status != 503 || a.header.Get("Retry-After") == "" || a.header.Get("X-Tenant") != "" || a.header.Get("Www-Authenticate") != "" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	cfg := c.checkConfig(standingFunc(func(context.Context, credential.Claims) (bool, error) { panic("a defect") }))
	cfg.Metrics = nil
	if a := askOf(t, must[http.Handler](t)(NewCheck(cfg)), "GET", wire.PathCheck+"?audience=orders", "Authorization", bearer); a.status != 500 || a.header.Get("X-Tenant") != "" {
		t.Errorf("after a panic: %d", a.status)
	}
}
