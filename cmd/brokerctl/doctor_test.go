package main

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/brokertest"
)

// A broker that gives no token keeps its operators from reading what is wrong
// with it: that is what is wrong then.
func TestDoctorSaysThatNobodyCanSignIn(t *testing.T) {
	b := brokertest.Start(t)
	account, key := b.Operator()
	contexts := filepath.Join(t.TempDir(), "contexts.yaml")
	a, _, said := testApp("", nil)
	if code := run(t.Context(), a, []string{"--config", contexts, "login", "--issuer", b.URL(), "--account", account, "--key", key}); code != exitOK {
		t.Fatalf("login: %d %s", code, said)
	}
	b.Stop()
	listener, err := net.Listen("tcp", strings.TrimPrefix(b.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	answer := `{"error":"temporarily_unavailable"}`
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, answer)
	})}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { _ = server.Close() })

	a, out, _ := testApp("", nil)
	if code := run(t.Context(), a, []string{"--config", contexts, "doctor"}); code != exitFindings || !strings.Contains(out.String(), "gives no token now") {
		t.Errorf("%d, want %d: %s", code, exitFindings, out)
	}
	answer = `{"error":"server_error"}` // not the broker's own words for it
	a, out, _ = testApp("", nil)
	if code := run(t.Context(), a, []string{"--config", contexts, "doctor"}); code != exitUnavailable {
		t.Errorf("another error: %d, want %d: %s", code, exitUnavailable, out)
	}
}
