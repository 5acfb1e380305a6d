package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// serving runs a server on loopback with these timeouts until the test ends.
func serving(t *testing.T, h http.Handler, timeouts Timeouts) string {
	t.Helper()
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, newHTTPServer("public", l, h, timeouts, nil, slog.New(slog.DiscardHandler)).Run)
	return l.Addr().String()
}

// raw sends text on a connection of its own and returns the answer's status
// line, "" if there is none.
func raw(t *testing.T, address, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, text) // the server may have closed by now
	line, err := bufio.NewReader(conn).ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestHeaderLimit(t *testing.T) {
	address := serving(t, http.NotFoundHandler(), Default().Timeouts)
	header := func(bytes int) string {
		return "GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", bytes) + "\r\n\r\n"
	}
	if got := raw(t, address, header(maxHeaderBytes-200)); got != "HTTP/1.1 404 Not Found" {
		t.Errorf("just below: %s", got)
	}
	if got := raw(t, address, header(maxHeaderBytes+200)); got != "HTTP/1.1 431 Request Header Fields Too Large" {
		t.Errorf("just above: %s", got)
	}
}

func TestSlowHeadersAndBodiesEnd(t *testing.T) {
	headers, bodies := Default().Timeouts, Default().Timeouts
	headers.ReadHeader, headers.Read = 100*time.Millisecond, time.Minute
	bodies.ReadHeader, bodies.Read = time.Minute, 100*time.Millisecond // so that the header at least is read
	failed := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		failed <- err
		if err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	})
	start := time.Now()
	if got := raw(t, serving(t, handler, headers), "GET / HTTP/1.1\r\nHost: x\r\nX-"); strings.Contains(got, "200") {
		t.Errorf("half a header: %s", got)
	}
	raw(t, serving(t, handler, bodies), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	var timeout net.Error
	if err := <-failed; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("half a body was read with %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestShutdownFinishesRequestsInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newHTTPServer("public", l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		if r.Context().Err() != nil {
			t.Error("the request in flight was cancelled")
		}
		_, _ = fmt.Fprint(w, "done")
	}), Default().Timeouts, nil, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-entered
	stop()
	waitFor(t, func() bool { // the listener closes at once
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-ended:
		t.Fatalf("stopped with a request in flight: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request in flight got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestShutdownHasADeadline(t *testing.T) {
	entered := make(chan struct{})
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	timeouts := Default().Timeouts
	timeouts.Shutdown = 50 * time.Millisecond
	s := newHTTPServer("public", l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done() // the deadline cancels what is left
	}), timeouts, nil, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	go func() {
		if resp, err := http.Get("http://" + l.Addr().String()); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-entered
	stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "in flight") {
		t.Errorf("got %v", err)
	}
}

func TestListenerThatFailsEndsTheServer(t *testing.T) {
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newHTTPServer("public", l, http.NotFoundHandler(), Default().Timeouts, nil, slog.New(slog.DiscardHandler))
	_ = l.Close()
	if err := s.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestConnectionLimit(t *testing.T) {
	inner, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConnections(inner, 2, 2, nil)
	run(t, newHTTPServer("public", l, http.NotFoundHandler(), Default().Timeouts, nil, slog.New(slog.DiscardHandler)).Run)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	served := func(conn net.Conn, within time.Duration) bool {
		_ = conn.SetDeadline(time.Now().Add(within))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		n, err := conn.Read(make([]byte, 1))
		return err == nil && n == 1
	}
	first, second, third := dial(), dial(), dial()
	if !served(first, time.Minute) || !served(second, time.Minute) {
		t.Fatal("two within the limit were not served")
	}
	if served(third, 100*time.Millisecond) {
		t.Fatal("a third was served")
	}
	if l.count() != 2 {
		t.Errorf("%d open", l.count())
	}
	_ = first.Close()
	if !served(third, time.Minute) {
		t.Error("the third was not served after the first had closed")
	}
	waitFor(t, func() bool { return l.count() == 2 })
}

// When all connections are taken, the longest idle one of a crowded address
// makes room, also if it becomes idle only then.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	inner, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConnections(inner, 2, 2, nil)
	held := make(chan struct{})
	s := newHTTPServer("public", l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			<-held
		}
	}), Default().Timeouts, nil, slog.New(slog.DiscardHandler))
	s.server.ConnState = l.track
	run(t, s.Run)
	send := func(path string) net.Conn {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		return conn
	}
	answered := func(conn net.Conn) bool {
		n, err := conn.Read(make([]byte, 512))
		return err == nil && n > 0
	}
	first := send("/")
	if !answered(first) {
		t.Fatal("the first was not served")
	}
	second := send("/hold")
	if third := send("/"); !answered(third) {
		t.Error("an idle connection made no room")
	}
	if n, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the longest idle is still open: %d %v", n, err)
	}
	fourth, fifth := send("/hold"), send("/")
	time.Sleep(50 * time.Millisecond) // until the fifth waits with no idle one left
	close(held)
	for name, conn := range map[string]net.Conn{"second": second, "fourth": fourth, "fifth": fifth} {
		if !answered(conn) {
			t.Errorf("the %s was not served", name)
		}
	}
}

// Who holds no more than its part is not disturbed.
func TestIdleConnectionsOfAFewStay(t *testing.T) {
	l := limitConnections(nil, 2*crowd, 2*crowd, nil)
	idle := func(from string, n int) {
		for range n {
			conn := &fakeConn{remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 1))}
			l.enter(l.counted(conn.remote))
			l.track(conn, http.StateIdle)
		}
	}
	idle("192.0.2.1", 2)
	l.makeRoom(true)
	if n := l.idle.Len(); n != 2 {
		t.Fatalf("%d of 2 connections are left of an address with its part", n)
	}
	idle("192.0.2.2", 3)
	if n := l.idle.Len(); n != 4 {
		t.Fatalf("%d of 5 connections are left, want 4", n)
	}
	if first, _ := l.idle.Front().Value.(idleConn); first.from.String() != "192.0.2.1/32" {
		t.Errorf("the one that made room is not of the crowded address, but before %s", first.from)
	}
}

type fakeConn struct {
	net.Conn
	remote net.Addr
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }
func (c *fakeConn) Close() error         { return nil }

// One address has a share of the connections; another one, and a proxy, is
// served although the first holds all of its own.
func TestConnectionLimitOfOneAddress(t *testing.T) {
	inner, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConnections(inner, 8, 2, []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")})
	run(t, newHTTPServer("public", l, http.NotFoundHandler(), Default().Timeouts, nil, slog.New(slog.DiscardHandler)).Run)
	served := func(from string) (net.Conn, bool) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		n, err := conn.Read(make([]byte, 1))
		return conn, err == nil && n == 1
	}
	first, ok := served("127.0.0.1")
	if _, second := served("127.0.0.1"); !ok || !second {
		t.Fatal("two within the share were not served")
	}
	if _, third := served("127.0.0.1"); third {
		t.Error("a third was served")
	}
	for range 3 {
		if _, ok := served("127.0.0.3"); !ok {
			t.Error("a proxy has no share")
		}
	}
	if _, ok := served("127.0.0.2"); !ok {
		t.Error("another address was not served")
	}
	if got := l.refused.Load(); got != 1 {
		t.Errorf("%d refused, want 1", got)
	}
	_ = first.Close()
	waitFor(t, func() bool { _, ok := served("127.0.0.1"); return ok })
}

// Addresses of one IPv6 /64 are one; an address written as IPv6 is itself.
func TestWhoseShareAConnectionTakes(t *testing.T) {
	l := limitConnections(nil, 1, 1, nil)
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8::1": "2001:db8::/64", "2001:db8::ffff:1": "2001:db8::/64",
		"fe80::1%eth0": "fe80::/64",
	} {
		addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(text), 1))
		if got := l.counted(addr); got.String() != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := l.counted(&net.UnixAddr{Name: "x"}); got.IsValid() {
		t.Errorf("a socket without an address has the share of %s", got)
	}
}

func TestClosingWakesAnAcceptThatWaits(t *testing.T) {
	inner, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConnections(inner, 0, 1, nil) // never a free slot
	done := make(chan error, 1)
	go func() { _, err := l.Accept(); done <- err }()
	_ = l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
