package brokertest_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestFromAWorkersKeyToAVerifiedToken(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants("acme", "globex")
	b.Service("orders")
	b.Worker("mailer", "orders", "orders:read orders:write", "acme")

	raw := b.TokenFor("mailer", "orders", "acme", "orders:read")
	token, err := b.Verifier("orders").Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if token.Tenant().String() != "acme" || token.Subject().String() != "mailer" || token.Scopes().String() != "orders:read" {
		t.Errorf("tenant %s, subject %s, scopes %s", token.Tenant(), token.Subject(), token.Scopes())
	}
	if _, err := b.Verifier("billing").Verify(t.Context(), raw); !errors.Is(err, verifier.ErrAudience) {
		t.Errorf("another service: %v", err)
	}
}

func TestClockMovesTheBroker(t *testing.T) {
	clock := brokertest.NewClock()
	b := brokertest.Start(t, brokertest.WithClock(clock))
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("mailer", "orders", "read", "acme")
	clock.Advance(48 * time.Hour)
	raw := b.TokenFor("mailer", "orders", "acme")
	v := b.Verifier("orders")
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Error(err)
	}
	clock.Advance(time.Hour)
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, verifier.ErrExpired) {
		t.Errorf("an hour later: %v", err)
	}
}

func TestOperatorAdministers(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants("acme")
	seen := 0
	for tenant, err := range b.Admin().Tenants().List(t.Context()) {
		if err != nil || tenant.ID.String() != "acme" {
			t.Errorf("%s, %v", tenant.ID, err)
		}
		seen++
	}
	if seen != 1 {
		t.Errorf("%d tenants", seen)
	}
	resp, err := http.Get(b.OpsURL() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("readyz: %s", resp.Status)
	}
}

func TestStoppedBrokerIsGone(t *testing.T) {
	b := brokertest.Start(t)
	b.Stop()
	if _, err := http.Get(b.URL() + "/.well-known/jwks.json"); err == nil {
		t.Error("it still answers")
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		brokertest.Start(b).Stop()
	}
}
