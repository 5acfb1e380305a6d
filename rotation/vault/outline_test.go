package vault

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

func TestAnOutlineSaysNothingOfWhereVaultIs(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 8200}, Err: errors.New("connection refused")}
	for _, kind := range kinds {
		full := (&Error{
			Status: 500, Method: "PUT", Path: "transit/keys/tb", Messages: []string{"no handler for transit/"}, kinds: []error{kind}, cause: refused,
		}).Error()
		if !strings.Contains(full, "10.0.0.7:8200") || !strings.Contains(full, "transit/keys/tb") {
			t.Fatalf("operators of the whole broker can't see it either: %s", full)
		}
		for before, text := range map[string]string{
			"":                  full,
			"not proven gone: ": "not proven gone: " + full,
		} {
			if got, want := Outline(text), before+kind.Error(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if got := Outline(fmt.Errorf("%w: %w", kind, errors.New("10.0.0.7")).Error()); got != kind.Error() {
			t.Errorf("%q", got)
		}
	}
	for text, want := range map[string]string{
		"": "", "the webhook at example.com answered 500": "the webhook at example.com answered 500",
		"vault: failed: GET sys/health: 10.0.0.7:8200":         "vault: failed",
		"vault: what is added later: GET sys/health: 10.0.0.7": "vault: failed",
	} {
		if got := Outline(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
