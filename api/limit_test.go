package api

import (
	"context"
	"io"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// with returns the world's handler with another configuration.
func (w *world) with(change func(*Config)) {
	w.t.Helper()
	w.config.Metrics = nil // it holds these metrics already
	change(&w.config)
	w.handler = must[*server](w.t)(newServer(w.config, adminRoutes()))
}

func TestAnOperatorsCallsAreLimited(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	one, other := w.operator("one", "viewer", "system"), w.operator("other", "viewer", "acme")
	w.with(func(c *Config) { c.Operators = issuer.Rate{PerSecond: 0.25, Burst: 3} })
	doc := loadDocument(t)
	// Whatever comes of a call, it counts.
	for n, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/v1/tenants", 200},
		{"POST", "/v1/operators", 403},
		{"GET", "/v1/tenants?nonsense=1", 400},
		{"GET", "/v1/tenants", 429},
		{"POST", "/v1/operators", 429},
	} {
		a := w.call(one, c.method, c.path, nil)
		if a.status != c.want {
			t.Fatalf("call %d: %d %s, want %d", n+1, a.status, a.body, c.want)
		}
		if c.want != 429 {
			continue
		}
		if a.json("code") != wire.CodeRateLimited || a.header.Get("Retry-After") != "4" {
			t.Errorf("%s, Retry-After %s", a.body, a.header.Get("Retry-After"))
		}
		doc.holds(t, c.method, c.path, a)
	}
	if a := w.call(other, "GET", "/v1/tenants", nil); a.status != 200 {
		t.Errorf("another operator: %d %s", a.status, a.body)
	}
	if a := w.call("", "GET", "/v1/tenants", nil); a.status != 401 {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
	w.advance(4 * time.Second)
	if a := w.call(one, "GET", "/v1/tenants", nil); a.status != 200 {
		t.Errorf("after Retry-After: %d %s", a.status, a.body)
	}
}

func TestTheRateOfOperatorsByDefault(t *testing.T) {
	w := newWorld(t)
	w.with(func(c *Config) { c.Operators = issuer.Rate{} })
	token := w.rootToken()
	for n := 1; n <= 201; n++ {
		if a := w.call(token, "GET", "/v1/keys", nil); (a.status == 429) != (n == 201) {
			t.Fatalf("call %d: %d", n, a.status)
		}
	}
	for _, bad := range []issuer.Rate{
		{PerSecond: 1}, {Burst: 1}, {PerSecond: -1, Burst: 1}, {PerSecond: math.Inf(1), Burst: 1}, {PerSecond: math.NaN(), Burst: 1},
		{PerSecond: 1, Burst: 1, Unlimited: true},
	} {
		w.config.Operators = bad
		if _, err := New(w.config); err == nil {
			t.Errorf("%+v: it starts", bad)
		}
	}
}

func TestEveryCallOfTheDocumentMayBeTurnedAway(t *testing.T) {
	for path, item := range loadDocument(t).Paths.Map() {
		for method, op := range item.Operations() {
			if op.Extensions["x-role"] != nil && op.Responses.Value("429") == nil {
				t.Errorf("%s %s: nothing is said of status 429", method, path)
			}
		}
	}
}

// heldExport is under way until it is let go.
type heldExport struct{ begun, let chan struct{} }

func (h heldExport) Export(_ context.Context, w io.Writer, _ credential.Tenant) error {
	h.begun <- struct{}{}
	<-h.let
	_, err := io.WriteString(w, "{}\n")
	return err
}

func TestExportsAtATime(t *testing.T) {
	w := newWorld(t)
	held := heldExport{make(chan struct{}), make(chan struct{})}
	w.handler.export = held
	var tokens []string
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		tokens = append(tokens, w.operator(id, "viewer", "system"))
	}
	done := make(chan got)
	for _, token := range tokens[:maxExports] {
		go func() { done <- w.call(token, http.MethodGet, "/v1/audit/export", nil) }()
		<-held.begun
	}
	for token, want := range map[string]struct {
		status int
		code   string
	}{tokens[0]: {429, wire.CodeRateLimited}, tokens[4]: {503, wire.CodeUnavailable}} {
		a := w.call(token, http.MethodGet, "/v1/audit/export", nil)
		if a.status != want.status || a.json("code") != want.code || a.header.Get("Retry-After") != "30" {
			t.Errorf("%d %s, Retry-After %s", a.status, a.body, a.header.Get("Retry-After"))
		}
	}
	close(held.let)
	for range maxExports {
		if a := <-done; a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	go func() { <-held.begun }()
	if a := w.call(tokens[4], http.MethodGet, "/v1/audit/export", nil); a.status != 200 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}
