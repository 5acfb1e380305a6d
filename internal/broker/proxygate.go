package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Why a connection to the proxies' listener is refused: the reasons of the
// records and of the metric.
const (
	proxyShowsNone = "no_certificate"
	proxyUntrusted = "not_trusted" // by the authorities, or not for clients
	proxyExpired   = "expired"
	proxyUnlisted  = "not_listed"
)

// A refused proxy comes back at once: so many lines, and then one every so
// often. Each is counted, and in the records.
const (
	refusalLines    = 5
	refusalLineRate = 10 * time.Second
)

// proxyGate lets those to the proxies' listener whose certificate an authority
// of theirs has issued and whose name is listed. Nothing of a request is read
// before.
type proxyGate struct {
	pair      *certificate
	caFile    string
	authority atomic.Pointer[x509.CertPool]
	names     proxyNames

	note    func(from netip.Addr, why string) // keeps the records
	refused *prometheus.CounterVec
	log     *slog.Logger
	lines   *rate.Limiter
}

// newProxyGate reads the files of the proxies' listener. It returns nil where
// proxies need no certificate.
func newProxyGate(c Config, logger *slog.Logger) (*proxyGate, error) {
	k := c.doc.Check
	if k.ClientCAFile == "" {
		return nil, nil
	}
	pair, err := loadCertificate(k.CertFile, k.KeyFile, logger)
	if err != nil {
		return nil, err
	}
	g := &proxyGate{
		pair: pair, caFile: k.ClientCAFile, names: c.mayAsk, log: logger,
		lines: rate.NewLimiter(rate.Every(refusalLineRate), refusalLines),
	}
	return g, g.read()
}

// newProxiesRefused counts by reason. Where proxies need no certificate it stays
// at 0.
func newProxiesRefused() *prometheus.CounterVec {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tenantbroker_check_proxies_refused_total", Help: "Connections to the proxies' listener without a certificate that may ask.",
	}, []string{"reason"})
	for _, reason := range []string{proxyShowsNone, proxyUntrusted, proxyExpired, proxyUnlisted} { // from the start, so that the first one is an increase
		refused.WithLabelValues(reason)
	}
	return refused
}

// read takes the authorities from their file.
func (g *proxyGate) read() error {
	pem, err := readBounded(g.caFile, maxConfigBytes)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate in it", g.caFile)
	}
	g.authority.Store(pool)
	return nil
}

// Run reads the broker's pair and the authorities again when their files
// change, until ctx ends. What doesn't load leaves the old in place.
func (g *proxyGate) Run(ctx context.Context) error {
	var both errgroup.Group
	both.Go(func() error { return g.pair.Run(ctx, certificatePoll) })
	both.Go(func() error {
		ticker := time.NewTicker(certificatePoll)
		defer ticker.Stop()
		var seen fileStamp // none: what changed since it was opened is read at the first turn
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
			now := stampOf(os.Stat(g.caFile))
			if now == seen {
				continue
			}
			seen = now
			if err := g.read(); err != nil {
				g.log.Error("the new authorities of proxies are not usable, the old ones stay", "error", err)
			}
		}
	})
	return both.Wait()
}

// config returns nil for plain HTTP. Whether a certificate may ask is decided
// here alone, on every connection: none is taken up again from a ticket.
func (g *proxyGate) config() *tls.Config {
	if g == nil {
		return nil
	}
	config := g.pair.config()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := g.pair.config()
		c.NextProtos = []string{"h2", "http/1.1"}
		c.SessionTicketsDisabled = true
		c.ClientAuth, c.ClientCAs = tls.RequestClientCert, g.authority.Load()
		c.VerifyConnection = func(s tls.ConnectionState) error {
			return g.admit(hello.Conn.RemoteAddr(), s.PeerCertificates, c.ClientCAs)
		}
		return c, nil
	}
	return config
}

var errNotAProxy = errors.New("no certificate that may ask")

// admit decides about a connection, whose peer has proven to hold the first
// certificate's key.
func (g *proxyGate) admit(from net.Addr, chain []*x509.Certificate, authority *x509.CertPool) error {
	if len(chain) == 0 {
		return g.refuse(from, nil, proxyShowsNone)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: authority, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return g.refuse(from, chain[0], proxyExpired)
	}
	if err != nil {
		return g.refuse(from, chain[0], proxyUntrusted)
	}
	if g.names.of(chain[0]) == "" {
		return g.refuse(from, chain[0], proxyUnlisted)
	}
	return nil
}

// refuse counts, and leaves a record and a line. What a certificate calls itself
// is told only when an authority vouches for it.
func (g *proxyGate) refuse(from net.Addr, c *x509.Certificate, why string) error {
	g.refused.WithLabelValues(why).Inc()
	var ip netip.Addr
	if tcp, ok := from.(*net.TCPAddr); ok {
		ip = tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	g.note(ip, why)
	if !g.lines.Allow() {
		return errNotAProxy
	}
	attrs := []any{"reason", why, "ip", ip}
	if c != nil {
		attrs = append(attrs, "fingerprint", fingerprintPrefix+fingerprint(c))
	}
	if why == proxyUnlisted {
		names := slices.Clone(c.DNSNames)
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
		all := strings.Join(names, " ")
		attrs = append(attrs, "names", all[:min(len(all), maxProxyURI)])
	}
	g.log.Warn("a connection to check.listen is refused", attrs...)
	return errNotAProxy
}

// asks names the proxy of a request, for its line.
func (g *proxyGate) asks(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ""
	}
	return g.names.of(r.TLS.PeerCertificates[0])
}
