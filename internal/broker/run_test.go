package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
)

func TestNoGoroutineOutlivesRun(t *testing.T) {
	settled := func() int {
		n := runtime.NumGoroutine()
		for range 200 {
			time.Sleep(5 * time.Millisecond)
			now := runtime.NumGoroutine()
			if now >= n {
				return now
			}
			n = now
		}
		return n
	}
	http.DefaultClient.CloseIdleConnections()
	before := settled()
	b := declared(t)
	b.TokenFor("worker", "orders", "acme")
	if during := runtime.NumGoroutine(); during <= before {
		t.Fatalf("%d goroutines while it runs, %d before: this test sees nothing", during, before)
	}
	b.Stop()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
				if strings.Contains(stack, "tenantbroker/") && !strings.Contains(stack, "api/client") && !strings.Contains(stack, "testing.tRunner") {
					t.Errorf("still running:\n%s", stack)
				}
			}
			return
		}
	}
}

// A request whose body is still on its way when the broker is told to stop is
// answered, and what it did is on the record.
func TestShutdownAnswersRequestsInFlight(t *testing.T) {
	b := declared(t)
	body := "grant_type=client_credentials&audience=orders&tenant=acme&client_id=worker&client_secret=wrong"
	conn := dial(t, b.URL())
	_, _ = fmt.Fprintf(conn, "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	proceed := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(conn, proceed); err != nil || !strings.Contains(string(proceed), " 100 ") { // the server is reading the body
		t.Fatalf("%q, %v", proceed, err)
	}
	_, _ = fmt.Fprint(conn, body[:20])
	ops := b.OpsURL()
	stopped := make(chan struct{})
	go func() { defer close(stopped); b.Stop() }()
	for { // until it accepts no more
		probe, err := net.Dial("tcp", strings.TrimPrefix(b.URL(), "http://"))
		if err != nil {
			break
		}
		_ = probe.Close()
		time.Sleep(time.Millisecond)
	}
	select {
	case <-stopped:
		t.Fatal("it did not wait")
	default:
	}
	status, ready := get(t, ops+"/readyz", "")
	if status != http.StatusServiceUnavailable || !strings.Contains(ready, "stopping") {
		t.Errorf("while it stops /readyz says %d %s", status, ready)
	}
	_, _ = fmt.Fprint(conn, body[20:])
	if line := firstLine(t, conn); line != "HTTP/1.1 401 Unauthorized" {
		t.Errorf("answered %q", line)
	}
	<-stopped

	found := map[string]bool{}
	for _, record := range recorded(t, b) {
		found[record.Type] = true
	}
	if !found["token.denied"] || !found["broker.stopped"] {
		t.Errorf("on the record: %v", found)
	}
}

// recorded returns the audit records of a broker that has stopped.
func recorded(t *testing.T, b *brokertest.Broker) (all []audit.Record) {
	t.Helper()
	opened, err := broker.Open(t.Context(), config(t, b.ConfigFile()), broker.Deps{Listener: anyListener(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	err = opened.Store().View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			all = append(all, record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func anyListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

func firstLine(t *testing.T, conn net.Conn) string {
	t.Helper()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil && line == "" {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

func TestLimitsOfTheRunningBroker(t *testing.T) {
	t.Run("a slow body is refused, and the connection closed", func(t *testing.T) {
		b := brokertest.Start(t, brokertest.Configure(func(d *broker.Document) { d.Timeouts.Read = 300 * time.Millisecond }))
		start := time.Now()
		conn := dial(t, b.URL())
		_, _ = io.WriteString(conn, "POST /oauth2/token HTTP/1.1\r\nHost: x\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 30\r\n\r\ngrant")
		answer, err := io.ReadAll(conn) // to the end that the server makes
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 4") || !strings.Contains(string(answer), "invalid_request") {
			t.Errorf("%q, %v", answer, err)
		}
		if took := time.Since(start); took < 300*time.Millisecond || took > 9*time.Second { // the default is 10 s
			t.Errorf("after %s", took)
		}
	})
	b := brokertest.Start(t, brokertest.Configure(func(d *broker.Document) { d.Limits.Connections = 50 }))
	for name, tc := range map[string]struct{ request, want string }{
		"a header of 17 KiB": {
			"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 17<<10) + "\r\n\r\n",
			"HTTP/1.1 431 Request Header Fields Too Large",
		},
		"a header of 15 KiB": {
			"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 15<<10) + "\r\n\r\n",
			"HTTP/1.1 200 OK",
		},
		"not HTTP": {"\x16\x03\x01\x00\x05hello\r\n\r\n", "HTTP/1.1 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, b.URL())
			_, _ = io.WriteString(conn, tc.request)
			if line := firstLine(t, conn); line != tc.want {
				t.Errorf("answered %q, want %q", line, tc.want)
			}
		})
	}
}

func TestOperationsAreOnTheirOwnListener(t *testing.T) {
	b := brokertest.Start(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/snapshot"} {
		if status, _ := get(t, b.URL()+path, ""); status != http.StatusNotFound {
			t.Errorf("the public listener answers %s with %d", path, status)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if status, _ := get(t, b.OpsURL()+path, ""); status != http.StatusOK {
			t.Errorf("the ops listener answers %s with %d", path, status)
		}
	}
	if _, body := get(t, b.OpsURL()+"/metrics", ""); !strings.Contains(body, "tenantbroker_store_commit_seconds_count") ||
		!strings.Contains(body, "tenantbroker_connections") {
		t.Error("metrics of the store or the connections are missing")
	}
	// A snapshot is for who may open the socket, never over TCP.
	resp, err := http.Post(b.OpsURL()+"/snapshot", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a snapshot over TCP: %s", resp.Status)
	}
	info, err := os.Stat(config(t, b.ConfigFile()).Socket())
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	b.Stop()
	if _, err := os.Stat(config(t, b.ConfigFile()).Socket()); err == nil {
		t.Error("the socket is left over")
	}
}

func TestSocketOfADeadBrokerIsReplaced(t *testing.T) {
	b := brokertest.Start(t)
	b.Stop()
	c := config(t, b.ConfigFile())
	l, err := net.Listen("unix", c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	socket, ok := l.(*net.UnixListener)
	if !ok {
		t.Fatalf("a listener of type %T", l)
	}
	socket.SetUnlinkOnClose(false)
	_ = l.Close() // as after kill -9
	opened, err := broker.Open(t.Context(), c, broker.Deps{Listener: anyListener(t)})
	if err != nil {
		t.Fatal(err)
	}
	_ = opened.Close()
}

func TestReloadMovesTheLogLevel(t *testing.T) {
	made, err := broker.Init(t.Context(), initOptions(filepath.Join(shortDir(t), "data")))
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, made.Config)
	var out strings.Builder
	logger, level := broker.NewLogger(c, &out)
	b, err := broker.Open(t.Context(), c, broker.Deps{Logger: logger, Level: level})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	text, err := os.ReadFile(made.Config)
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		if err := os.WriteFile(made.Config, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(string(text), "# level: info", "level: error", 1))
	b.Reload(broker.NoEnvironment)
	if level.Level() != slog.LevelError {
		t.Errorf("level %s", level.Level())
	}
	write("nonsense: true\n")
	b.Reload(broker.NoEnvironment)
	if level.Level() != slog.LevelError || !strings.Contains(out.String(), "nonsense") {
		t.Errorf("a broken file: level %s, log %q", level.Level(), out.String())
	}
}

func TestRunEndsWhenAListenerFails(t *testing.T) {
	made, err := broker.Init(t.Context(), initOptions(filepath.Join(shortDir(t), "data")))
	if err != nil {
		t.Fatal(err)
	}
	l := anyListener(t)
	b, err := broker.Open(t.Context(), config(t, made.Config), broker.Deps{Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	time.Sleep(50 * time.Millisecond)
	_ = l.Close()
	if err := <-ended; err == nil || ctx.Err() != nil {
		t.Errorf("ended with %v (%v)", err, ctx.Err())
	}
}

// The service manager hears when the broker serves and when it stops.
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(shortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	b := brokertest.Start(t)
	b.Stop()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		message := make([]byte, 100)
		n, err := conn.Read(message)
		if err != nil || string(message[:n]) != want {
			t.Errorf("heard %q, %v; want %q", message[:n], err, want)
		}
	}
}

// An operator's token that was revoked administers nothing any more, though
// its signature is good and its grant stands.
func TestRevokedOperatorTokenIsRefused(t *testing.T) {
	b := brokertest.Start(t)
	token := b.AdminToken()
	if status, body := get(t, b.URL()+"/v1/tenants", token); status != http.StatusOK {
		t.Fatalf("before: %d %s", status, body)
	}
	account, _ := b.Operator()
	if err := b.Client(account).Revoke(t.Context(), credential.NewSecret([]byte(token))); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(t, b.URL()+"/v1/tenants", token); status != http.StatusUnauthorized {
		t.Errorf("after: %d", status)
	}
}
