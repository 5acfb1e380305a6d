package broker_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

func listedByName(authority) string { return "" }

// silent opens connections to the proxies' listener that say nothing, from an
// address of this machine.
func (g *gated) silent(t *testing.T, from string, n int) []net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	all := make([]net.Conn, n)
	for i := range all {
		conn, err := dialer.DialContext(t.Context(), "tcp", g.address(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		all[i] = conn
	}
	return all
}

func (g *gated) address(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(g.Internal().CheckAddress().String())
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + port
}

// keeping is a proxy that keeps its connections, of HTTP/1.1 or 2.
func (g *gated) keeping(c *tls.Certificate, protocol string) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: g.roots, Certificates: []tls.Certificate{*c}, MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}},
		MaxIdleConns:    100, MaxIdleConnsPerHost: 100, ForceAttemptHTTP2: protocol == "h2",
	}}
}

func (g *gated) count(t *testing.T, series string) int {
	t.Helper()
	n, err := strconv.ParseFloat(metric(t, g.Broker, series), 64)
	if err != nil {
		t.Fatalf("%s: %v", series, err)
	}
	return int(n)
}

// soon tries for a minute.
func soon(holds func() bool) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

const (
	greeting = `tenantbroker_check_connections{state="handshake"}`
	admitted = `tenantbroker_check_connections{state="admitted"}`
)

func refusedFor(why string) string {
	return fmt.Sprintf("tenantbroker_check_proxies_refused_total{reason=%q}", why)
}

// Strangers who say nothing take no place from those who may ask: not the next
// connection of a proxy, and none that it keeps.
func TestStrangersKeepNoProxyFromAsking(t *testing.T) {
	g := newGated(t, listedByName)
	for _, series := range []string{greeting, admitted, refusedFor("crowded"), refusedFor("handshake_timeout"), refusedFor("handshake_failed"), refusedFor("full")} {
		if n := g.count(t, series); n != 0 {
			t.Errorf("at first %s is %d", series, n)
		}
	}
	proxy := g.proxies.issue(t, named("gateway.example"))
	const kept = 40
	var conns []*tls.Conn
	for range kept {
		conn, err := tls.Dial("tcp", g.address(t), &tls.Config{RootCAs: g.roots, Certificates: []tls.Certificate{*proxy}, MinVersion: tls.VersionTLS13})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if !answers(conn) {
			t.Fatal("a proxy's connection is not served")
		}
		conns = append(conns, conn)
	}
	if n := g.count(t, admitted); n != kept {
		t.Errorf("%d admitted, want %d", n, kept)
	}
	notThrice(t, func(_ int) string {
		for i := range 5 { // of one address more than its share, of all more than there is room for
			g.silent(t, fmt.Sprintf("127.0.0.%d", i+2), 260)
		}
		begun := time.Now()
		if err := g.ask(t, proxy); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			return fmt.Sprintf("a proxy waited %s behind strangers", took)
		}
		return ""
	})
	for _, conn := range conns {
		if !answers(conn) {
			t.Fatal("a connection that a proxy kept was closed for strangers")
		}
	}
	if n := g.count(t, refusedFor("crowded")); n < 5*4 {
		t.Errorf("%d made room, want at least the %d beyond the shares", n, 5*4)
	}
	if !soon(func() bool { return g.count(t, greeting) == 0 }) {
		t.Error("strangers stay")
	}
	if n := g.count(t, refusedFor("handshake_timeout")); n == 0 {
		t.Error("whose time was up is not counted")
	}
	for _, conn := range conns {
		if !answers(conn) {
			t.Fatal("a proxy's connection ends with the time of a handshake")
		}
	}
}

func answers(conn *tls.Conn) bool {
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	return err == nil && strings.HasPrefix(string(buffer[:n]), "HTTP/1.1 404")
}

// A handshake has its time, and of one address the oldest makes room for what
// comes beyond its share.
func TestAHandshakeHasItsTimeAndItsRoom(t *testing.T) {
	g := newGated(t, listedByName)
	notThrice(t, func(n int) string {
		crowded := g.count(t, refusedFor("crowded"))
		begun := time.Now()
		conns := g.silent(t, fmt.Sprintf("127.0.0.%d", 2*n), 257)
		other := g.silent(t, fmt.Sprintf("127.0.0.%d", 2*n+1), 1)[0]
		ended := func(conn net.Conn) time.Duration {
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it stays open: %v", err)
			}
			return time.Since(begun)
		}
		if after := ended(conns[0]); after > 1500*time.Millisecond {
			return fmt.Sprintf("the oldest beyond the share made room after %s only", after)
		}
		for name, conn := range map[string]net.Conn{"the second": conns[1], "another address's": other} {
			after := ended(conn)
			if after < 2*time.Second {
				t.Errorf("%s ended after %s", name, after)
			}
			if after > 6*time.Second {
				return fmt.Sprintf("%s ended after %s", name, after)
			}
		}
		if n := g.count(t, refusedFor("crowded")) - crowded; n != 1 {
			t.Errorf("%d made room", n)
		}
		return ""
	})
}

// notThrice does what takes too long on a machine that stands still meanwhile, and
// so says, up to three times. The first is number 1.
func notThrice(t *testing.T, do func(n int) (late string)) {
	t.Helper()
	for n := 1; ; n++ {
		late := do(n)
		if late == "" {
			return
		}
		t.Log(late)
		if n == 3 {
			t.Error("so it was each time")
			return
		}
	}
}

// Who shows a certificate without its key is not the one whom it names.
func TestACertificateWithoutItsKeyBlamesNobody(t *testing.T) {
	g := newGated(t, listedByName)
	worker, gateway, thief := g.proxies.issue(t, named("worker.example")), g.proxies.issue(t, named("gateway.example")), g.others.issue(t, named("thief.example"))
	for _, shown := range []*tls.Certificate{worker, gateway} {
		if g.ask(t, &tls.Certificate{Certificate: shown.Certificate, PrivateKey: thief.PrivateKey}) == nil {
			t.Error("may ask")
		}
	}
	if !soon(func() bool { return g.count(t, refusedFor("handshake_failed")) == 2 }) {
		t.Errorf("%d failed handshakes are counted, want 2", g.count(t, refusedFor("handshake_failed")))
	}
	if n := g.count(t, refusedFor("not_listed")); n != 0 || strings.Contains(g.log.String(), "worker.example") || strings.Contains(g.log.String(), fingerprintOf(worker)) {
		t.Errorf("%d not listed: %s", n, g.log)
	}
	g.Stop()
	for _, r := range recorded(t, g.Broker) {
		if r.Type == "check.denied" {
			t.Errorf("on record: %+v", r)
		}
	}
}

// A connection that a proxy keeps busy ends with what let it in: the time of its
// certificate, or a name that is listed no more.
func TestAKeptConnectionEndsWithItsLeave(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			g := newGated(t, listedByName)
			removed, stays := g.keeping(g.proxies.issue(t, named("gateway.example")), protocol), g.keeping(g.proxies.issue(t, named("edge.example")), protocol)
			may := func(c *http.Client) bool {
				status, _, err := askCheck(t.Context(), c, "https://"+g.address(t), g.token)
				return err == nil && status == http.StatusOK
			}
			if !may(removed) || !may(stays) {
				t.Fatal("they may not ask")
			}
			var brief *tls.Certificate
			var short *http.Client
			for life := 3 * time.Second; ; life *= 2 { // its time may be up before it has asked
				brief = g.proxies.issue(t, leaf(func(c *x509.Certificate) {
					c.DNSNames, c.NotAfter = []string{"gateway.example"}, time.Now().Add(life)
				}))
				if short = g.keeping(brief, protocol); may(short) {
					break
				}
				if time.Now().Before(brief.Leaf.NotAfter) {
					t.Fatal("who has a certificate of a few seconds may not ask")
				}
			}
			before := g.count(t, refusedFor("expired"))
			time.Sleep(time.Until(brief.Leaf.NotAfter) + 50*time.Millisecond) // before the authorities are looked at for the first time
			if may(short) || g.count(t, refusedFor("expired")) == before {
				t.Fatal("who has a certificate whose time is up asks on, or is not counted")
			}
			relist(t, g, "edge.example")
			if may(removed) || g.count(t, refusedFor("not_listed")) == 0 {
				t.Errorf("who is listed no more asks on: %s", g.log)
			}
			if !may(stays) {
				t.Error("who is still listed may not ask")
			}
		})
	}
}

// relist changes check.proxies in the configuration's file, and has it read.
func relist(t *testing.T, g *gated, names string) {
	t.Helper()
	file := g.ConfigFile()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	changed := 0
	for line := range strings.Lines(string(raw)) {
		if before, _, found := strings.Cut(line, "gateway.example"); found && strings.Contains(before, "proxies: ") {
			line, changed = strings.TrimRight(before, `'"`)+names+"\n", changed+1
		}
		lines = append(lines, line)
	}
	if changed != 1 {
		t.Fatalf("%d lines of it name proxies:\n%s", changed, raw)
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Internal().Reload(broker.NoEnvironment)
}
