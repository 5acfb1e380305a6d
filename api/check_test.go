package api

import (
	"context"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

func TestACheckSaysWhoseTheTokenIs(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	for _, query := range []string{
		"audience=orders", "audience=orders&tenant=acme", "audience=orders&tenant=acme&scope=read",
		"audience=orders&scope=write+read&resource=order%2F42", "resource=&tenant=acme&audience=orders",
	} {
		a := c.ask(query, "Authorization", bearer)
		for name, want := range map[string]string{
			"X-Tenant": "acme", "X-Subject": "worker", "X-Client-Id": "worker", "X-Scope": "read write",
			"Cache-Control": "private, max-age=5", "Vary": "Authorization", "Content-Length": "0",
		} {
			if got := a.header.Get(name); got != want || a.status != 200 || a.body != "" {
				t.Errorf("%s: %d, %s is %q, want %q", query, a.status, name, got, want)
			}
		}
	}
	// Envoy asks with the method of the client's request.
	for _, method := range []string{"HEAD", "POST", "DELETE", "PROPFIND"} {
		if a := askOf(t, c.handler, method, wire.PathCheck+"?audience=orders", "Authorization", bearer); a.status != 200 || a.header.Get("X-Tenant") != "acme" {
			t.Errorf("%s: %d", method, a.status)
		}
	}
}

func TestACheckAnswersAsTheDocumentSays(t *testing.T) {
	c, doc := newChecking(t), loadDocument(t)
	bearer := "Bearer " + c.token()
	var params []string
	for _, p := range doc.operation(t, "GET", wire.PathCheck).Parameters {
		if p.Value.In == openapi3.ParameterInQuery {
			params = append(params, p.Value.Name)
		}
	}
	if takes := append(slices.Clone(checkParams), "uri"); !slices.Equal(params, takes) {
		t.Errorf("it takes %v, the document says %v", takes, params)
	}
	for query, status := range map[string]int{
		"audience=orders": 200, "audience=orders&tenant=globex": 403, "audience=orders&scope=admin": 403, "tenant=acme": 400,
	} {
		a := c.ask(query, "Authorization", bearer)
		if a.status != status {
			t.Errorf("%s: %d", query, a.status)
		}
		doc.holds(t, "GET", wire.PathCheck, a)
	}
	doc.holds(t, "GET", wire.PathCheck, c.ask("audience=orders"))
}

func TestACheckNeedsAllItsParts(t *testing.T) {
	c := newChecking(t)
	good := func() CheckConfig {
		return c.checkConfig(standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, nil }))
	}
	for name, change := range map[string]func(*CheckConfig){
		"issuer":    func(x *CheckConfig) { x.Issuer = credential.IssuerURL{} },
		"audiences": func(x *CheckConfig) { x.Verifiers = nil },
		"verifier":  func(x *CheckConfig) { x.Verifiers[credential.MustAudience("orders")] = nil },
		"standing":  func(x *CheckConfig) { x.Standing = nil },
		"clock":     func(x *CheckConfig) { x.Now = nil },
		"own audience": func(x *CheckConfig) {
			x.Verifiers[credential.MustAudience(testIssuer+"/admin")] = x.Verifiers[credential.MustAudience("orders")]
		},
	} {
		cfg := good()
		change(&cfg)
		if _, err := NewCheck(cfg); err == nil {
			t.Errorf("without %s there is a handler", name)
		}
	}
}
