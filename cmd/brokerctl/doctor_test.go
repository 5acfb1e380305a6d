package main

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
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
	before, err := b.Client(account).Admin(credential.System).Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Stop()
	listener, err := net.Listen("tcp", strings.TrimPrefix(b.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	const noToken = `{"error":"temporarily_unavailable"}`
	token, report := noToken, "{}"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, media := token, "application/json"
		if r.URL.Path == "/v1/report" {
			body, media = report, wire.ProblemContentType
		}
		w.Header().Set("Content-Type", media)
		if body == token && body[2] == 'a' {
			w.Header().Set("Cache-Control", "no-store")
		} else {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, body)
	})}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { _ = server.Close() })

	says := func(name string, want int, text string, args ...string) {
		t.Helper()
		a, out, said := testApp("", nil)
		if code := run(t.Context(), a, append([]string{"--config", contexts}, args...)); code != want || !strings.Contains(out.String()+said.String(), text) {
			t.Errorf("%s: %d, want %d: %s%s", name, code, want, out, said)
		}
	}
	says("no token", exitFindings, "gives no token now", "doctor")
	says("another command", exitUnavailable, "brokerctl doctor says where", "tenant", "list")
	token = `{"error":"server_error"}` // not the broker's own words for it
	says("another error", exitUnavailable, "Is the broker running", "doctor")
	token = `{"access_token":"` + before.Reveal() + `","token_type":"Bearer","expires_in":300,"scope":"admin"}`
	report = `{"type":"urn:tenantbroker:problem:temporarily_unavailable","title":"x","status":503,"code":"temporarily_unavailable"}`
	says("no report, with a token", exitUnavailable, "Is the broker running", "doctor")
}
