package api

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// Whoever sends a member of another type is told what is expected.
func TestAWrongTypeIsToldWhatIsExpected(t *testing.T) {
	const scopes, words = `one string, with a space between scopes: "orders:read orders:write"`, "a list of strings"
	for body, want := range map[string]string{
		`{"scopes":["a","b"]}`:              "scopes: must be " + scopes,
		`{"scopes":{"a":true}}`:             "scopes: must be " + scopes,
		`{"scopes":1}`:                      "scopes: must be " + scopes,
		`{"tenants":"acme"}`:                "tenants: must be " + words,
		`{"tenants":[["acme"]]}`:            "tenants: must be " + words,
		`{"account":["worker"]}`:            "account: must be a string",
		`{"max_ttl":300}`:                   `max_ttl: must be a string such as "5m"`,
		`{"expires_at":1}`:                  `expires_at: must be a string such as "2026-01-31T12:00:00Z"`,
		`{"expires_at":"tomorrow"}`:         `expires_at: must be a string such as "2026-01-31T12:00:00Z"`,
		`{"fan_out":"x"}`:                   "fan_out: must be an object",
		`{"tenant_labels":["x"]}`:           "tenant_labels: must be an object",
		`{"tenant_from":["x"]}`:             "tenant_from: must be a string",
		`{"any_tenant":{"reason":["why"]}}`: "any_tenant.reason: must be a string",
	} {
		var got wire.GrantTerms
		err := decodeStrict([]byte(body), &got)
		p := (*wire.Problem)(nil)
		if !errors.As(err, &p) || p.Code != wire.CodeInvalid || p.Field+": "+p.Detail != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	var lease wire.LeaseRequest
	if err := decodeStrict([]byte(`{"kind":["database"]}`), &lease); err == nil || !strings.Contains(err.Error(), "must be a string") {
		t.Errorf("a list of kinds: %v", err)
	}
	if err := decodeStrict([]byte(`{"ttl":"60"}`), &lease); err == nil || !strings.Contains(err.Error(), "must be a whole number") {
		t.Errorf("a life in quotes: %v", err)
	}
}
