package broker_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// gated is a broker whose proxies show certificates, on a listener for all
// addresses.
type gated struct {
	*brokertest.Broker
	proxies authority
	others  authority
	roots   *x509.CertPool
	log     *testlog.Buffer
	token   string
}

func newGated(t *testing.T, pinned func(proxies authority) string) *gated {
	t.Helper()
	folder := t.TempDir()
	g := &gated{log: new(testlog.Buffer), roots: x509.NewCertPool()}
	g.proxies, g.others = newAuthority(t, filepath.Join(folder, "proxies.pem"), "proxies"), newAuthority(t, filepath.Join(folder, "others.pem"), "others")
	g.roots.AddCert(g.others.cert)
	certFile, keyFile := g.others.serving(t, folder)
	names := "gateway.example edge.example spiffe://example.org/gateway " + pinned(g.proxies)
	g.Broker = checked(t, func(c *broker.Checks) {
		c.Listen, c.CertFile, c.KeyFile, c.ClientCAFile, c.Proxies = "0.0.0.0:0", certFile, keyFile, g.proxies.file, names
	}, brokertest.WithLogger(slog.New(slog.NewTextHandler(g.log, nil))))
	g.token = g.TokenFor("worker", "orders", "acme")
	return g
}

// ask asks with a certificate, or with none.
func (g *gated) ask(t *testing.T, shown *tls.Certificate) error {
	t.Helper()
	config := &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	if shown != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
	}
	_, port, err := net.SplitHostPort(g.Internal().CheckAddress().String())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	status, tenant, err := askCheck(t.Context(), client, "https://127.0.0.1:"+port, g.token)
	if err == nil && (status != 200 || tenant != "acme") {
		t.Errorf("asked, and answered %d %q", status, tenant)
	}
	return err
}

func TestProxiesBeyondLoopbackAreListed(t *testing.T) {
	var pinned *tls.Certificate
	g := newGated(t, func(proxies authority) string {
		pinned = proxies.issue(t, named())
		return fingerprintOf(pinned)
	})
	for name, c := range map[string]*tls.Certificate{
		"by a DNS name":             g.proxies.issue(t, named("other.example", "gateway.example")),
		"by a DNS name in capitals": g.proxies.issue(t, named("EDGE.example")),
		"by a SPIFFE id":            g.proxies.issue(t, identified(t, "spiffe://example.org/gateway")),
		"by the certificate itself": pinned,
	} {
		if err := g.ask(t, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(g.log.String(), "proxy=gateway.example") || !strings.Contains(g.log.String(), "proxy=sha256:") {
		t.Errorf("no line says who asked: %s", g.log)
	}
	refused, begun := map[string]int{}, time.Now()
	for name, tc := range map[string]struct {
		shown *tls.Certificate
		why   string
	}{
		"none":                {nil, "no_certificate"},
		"another authority's": {g.others.issue(t, named("gateway.example")), "not_trusted"},
		"by itself":           {authority{}.issue(t, named("gateway.example")), "not_trusted"},
		"for servers": {g.proxies.issue(t, leaf(func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"gateway.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})), "not_trusted"},
		"expired": {g.proxies.issue(t, leaf(func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"gateway.example"}, time.Now().Add(-time.Minute)
		})), "expired"},
		"not valid yet": {g.proxies.issue(t, leaf(func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore = []string{"gateway.example"}, time.Now().Add(time.Minute)
		})), "expired"},
		"another name":                {g.proxies.issue(t, named("worker.example")), "not_listed"},
		"a wildcard":                  {g.proxies.issue(t, named("*.example")), "not_listed"},
		"a name below":                {g.proxies.issue(t, named("a.gateway.example")), "not_listed"},
		"no name":                     {g.proxies.issue(t, named()), "not_listed"},
		"a common name":               {g.proxies.issue(t, leaf(func(c *x509.Certificate) { c.Subject.CommonName = "gateway.example" })), "not_listed"},
		"another SPIFFE id":           {g.proxies.issue(t, identified(t, "spiffe://example.org/gateway/2")), "not_listed"},
		"two SPIFFE ids":              {g.proxies.issue(t, identified(t, "spiffe://example.org/gateway", "spiffe://example.org/worker")), "not_listed"},
		"another with the same names": {g.proxies.issue(t, leaf(func(c *x509.Certificate) { c.Subject = pinned.Leaf.Subject })), "not_listed"},
	} {
		if g.ask(t, tc.shown) == nil {
			t.Errorf("%s: may ask", name)
		}
		refused[tc.why]++
	}
	_, shown := get(t, g.OpsURL()+"/metrics", "")
	for why, n := range refused {
		if series := fmt.Sprintf("\ntenantbroker_check_proxies_refused_total{reason=%q} %d\n", why, n); !strings.Contains(shown, series) {
			t.Errorf("the metrics don't show %s", series)
		}
	}
	// So many lines for each reason, then none for a while.
	more := int(time.Since(begun) / (10 * time.Second)) // on a slow machine it is one already
	for why, n := range refused {
		if got := strings.Count(g.log.String(), "a connection to check.listen is refused\" reason="+why); got < min(n, 5) || got > min(n, 5+more) {
			t.Errorf("%d lines for %d %s", got, n, why)
		}
	}
	g.Stop()
	on := map[string]int{}
	for _, r := range recorded(t, g.Broker) {
		if r.Type == "check.denied" && r.IP == "127.0.0.0/24" {
			on[r.Reason] += int(r.Count)
		}
	}
	if !maps.Equal(on, refused) {
		t.Errorf("on record %v, refused %v", on, refused)
	}
}

// A certificate that a proxy's authority issued names whom it was issued to, in
// the line; one of another authority says what it likes, and is not repeated.
func TestARefusedProxyIsNamed(t *testing.T) {
	g := newGated(t, func(authority) string { return "" })
	worker, forged := g.proxies.issue(t, named("worker.example")), g.others.issue(t, named("forged.example"))
	for _, c := range []*tls.Certificate{worker, forged} {
		if g.ask(t, c) == nil {
			t.Error("may ask")
		}
		if !strings.Contains(g.log.String(), fingerprintOf(c)) {
			t.Errorf("no line with the fingerprint: %s", g.log)
		}
	}
	if s := g.log.String(); !strings.Contains(s, "names=worker.example") || strings.Contains(s, "forged") {
		t.Errorf("the lines: %s", s)
	}
}

// The authorities of proxies change without a restart: one that is taken out is
// believed no longer, on no connection.
func TestTheAuthoritiesOfProxiesAreReadAgain(t *testing.T) {
	g := newGated(t, func(authority) string { return "" })
	before := g.proxies.issue(t, named("gateway.example"))
	if err := g.ask(t, before); err != nil {
		t.Fatal(err)
	}
	kept := g.keeping(before, "http/1.1")
	if status, _, err := askCheck(t.Context(), kept, "https://"+g.address(t), g.token); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v", status, err)
	}
	if err := os.WriteFile(g.proxies.file, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is read again", func() bool { return strings.Contains(g.log.String(), "the old ones stay") })
	if err := g.ask(t, before); err != nil {
		t.Errorf("after a file that doesn't load: %v", err)
	}
	after := newAuthority(t, g.proxies.file, "new").issue(t, named("gateway.example"))
	eventually(t, "the file is read again", func() bool { return g.ask(t, after) == nil })
	if g.ask(t, before) == nil {
		t.Error("the old authority is still believed")
	}
	if status, _, err := askCheck(t.Context(), kept, "https://"+g.address(t), g.token); err == nil && status != http.StatusServiceUnavailable {
		t.Errorf("on a connection from before: %d", status)
	}
}
