package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// checking is a world with a service, and the listener that proxies ask.
type checking struct {
	*world
	handler http.Handler
	log     *bytes.Buffer
	checks  *prometheus.Registry
}

func newChecking(t *testing.T) *checking {
	t.Helper()
	c := &checking{world: service(t), log: new(bytes.Buffer), checks: prometheus.NewRegistry()}
	standing, ok := c.config.Tokens.(*issuer.Issuer)
	if !ok {
		t.Fatal("the world has no issuer")
	}
	c.handler = must[http.Handler](t)(NewCheck(c.checkConfig(standing)))
	return c
}

func (c *checking) checkConfig(standing Standing) CheckConfig {
	judge := must[*verifier.Verifier](c.t)(verifier.New(c.t.Context(), verifier.Config{
		Issuer: testIssuer, Audience: "orders", Keys: c.keys, Now: c.clock,
	}))
	return CheckConfig{
		Issuer: credential.MustIssuerURL(testIssuer), Verifiers: map[credential.Audience]Verifier{credential.MustAudience("orders"): judge},
		Standing: standing, Now: c.clock, Logger: slog.New(slog.NewJSONHandler(c.log, nil)), Metrics: c.checks,
	}
}

func (c *checking) token() string {
	c.t.Helper()
	a := c.post(wire.PathToken, c.tokenForm("worker", "orders", "acme"))
	if a.status != http.StatusOK {
		c.t.Fatalf("token: %d %s", a.status, a.body)
	}
	return a.json("access_token")
}

// ask asks as a proxy does; headers are name, value, name, value.
func (c *checking) ask(query string, headers ...string) got {
	c.t.Helper()
	return askOf(c.t, c.handler, http.MethodGet, wire.PathCheck+"?"+query, headers...)
}

func askOf(t *testing.T, h http.Handler, method, target string, headers ...string) got {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return got{t, rec.Code, rec.Header(), rec.Body.String()}
}

type standingFunc func(context.Context, credential.Claims) (bool, error)

func (f standingFunc) InForce(ctx context.Context, c credential.Claims) (bool, error) {
	return f(ctx, c)
}

type verifyFunc func(context.Context, string) (*verifier.Token, error)

func (f verifyFunc) Verify(ctx context.Context, raw string) (*verifier.Token, error) {
	return f(ctx, raw)
}
