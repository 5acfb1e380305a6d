package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

const watchedService = `
service: orders
base_url: SERVICE
tenants:
  a: {tenant: acme, broker: {issuer: "BROKER", account: prober, key_file: KEY, audience: orders}}
  b: {tenant: globex, broker: {issuer: "BROKER", account: prober, key_file: KEY, audience: orders}}
limits: {per_second: 1000}
objects:
  - name: order
    create: {request: POST /orders, body: {note: "{witness}"}, id: /id}
    read: GET /orders/{id}
    delete: DELETE /orders/{id}
    try:
      - {name: read, request: "GET /orders/{id}"}
      - {name: list, request: GET /orders}
`

// It probes a service that leaks, says so to Prometheus, and at SIGTERM leaves
// nothing behind, though a run was under way.
func TestProbeWatchStopsOnSIGTERM(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants("acme", "globex")
	b.Service("orders")
	b.Worker("prober", "orders", "orders:read", "acme", "globex")
	service, err := leaky.New(b.Verifier("orders"), leaky.ListFilter)
	if err != nil {
		t.Fatal(err)
	}
	// Once it is told to, it stands still at a list, when objects were made.
	var made, lists, still atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /orders":
			if r.Header.Get("X-Tenant")+r.Header.Get("X-Tenant-Id") == "" { // or the guard refuses it
				made.Add(1)
			}
		case "GET /orders":
			if lists.Add(1); still.Load() > 0 {
				<-r.Context().Done()
				return
			}
		}
		if r.Method == http.MethodDelete {
			made.Add(-1)
		}
		service.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "orders.yaml")
	described := strings.NewReplacer("SERVICE", server.URL, "BROKER", b.URL(), "KEY", b.KeyFile("prober"))
	if err := os.WriteFile(path, []byte(described.Replace(watchedService)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM) // as main has it
	defer stop()
	var log testlog.Buffer
	a := newApp()
	a.err = &log
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, a, []string{"probe", path, "--watch", "--interval", "10s", "--listen", "127.0.0.1:0"})
	}()
	await := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within a minute: %s", what, log.String())
			}
		}
	}
	await("a run", func() bool { return strings.Contains(log.String(), `"verdict":"leak"`) })
	if made.Load() != 0 {
		t.Errorf("%d objects are left by a run", made.Load())
	}
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`).FindString(log.String())
	text := body(t, url)
	for _, series := range []string{`tenantbroker_probe_leaks{attempt="list",object="order",service="orders"} 1`, `tenantbroker_probe_leaks{attempt="read",object="order",service="orders"} 0`, `tenantbroker_probe_left_total{service="orders"} 0`} {
		if !strings.Contains(text, series) {
			t.Errorf("%s is not in %s", series, text)
		}
	}
	still.Store(1)
	before := lists.Load()
	await("the next run", func() bool { return lists.Load() > before })
	if made.Load() == 0 {
		t.Error("nothing was made")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d: %s", got, log.String())
	}
	if made.Load() != 0 || strings.Contains(log.String(), "not removed") {
		t.Errorf("%d objects are left: %s", made.Load(), log.String())
	}
	if strings.Contains(log.String(), "eyJ") {
		t.Error("a token is in the log")
	}
}

func body(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
