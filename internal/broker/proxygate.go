package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Why a connection to the proxies' listener is refused: the reasons of the
// metric, and the first four of the records.
const (
	proxyShowsNone = "no_certificate"
	proxyUntrusted = "not_trusted" // by the authorities, or not for clients
	proxyExpired   = "expired"
	proxyUnlisted  = "not_listed"
	proxyFailed    = "handshake_failed"
	proxyLate      = "handshake_timeout"
	proxyCrowded   = "crowded" // the oldest handshake made room
	proxyFull      = "full"    // it may ask, and too many do
)

var proxyReasons = []string{proxyShowsNone, proxyUntrusted, proxyExpired, proxyUnlisted, proxyFailed, proxyLate, proxyCrowded, proxyFull}

// A refused proxy comes back at once: so many lines for each reason, and then one
// every so often, so that strangers use up no line about a proxy. Each is
// counted, and those with a certificate or none are in the records.
const (
	refusalLines    = 5
	refusalLineRate = 10 * time.Second
)

// proxyGate decides whose connections to the proxies' listener may ask: those
// whose certificate an authority of theirs has issued and whose name is listed.
type proxyGate struct {
	pair   *certificate
	caFile string
	rules  atomic.Pointer[proxyRules]
	mu     sync.Mutex // one change of rules at a time

	note    func(from netip.Addr, why string) // keeps the records
	refused *prometheus.CounterVec
	log     *slog.Logger
	lines   map[string]*rate.Limiter // by reason
}

// proxyRules are what a certificate is held against. They don't change: others
// take their place.
type proxyRules struct {
	authority *x509.CertPool
	names     proxyNames
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
	g := &proxyGate{pair: pair, caFile: k.ClientCAFile, log: logger, lines: refusalLimits()}
	g.rules.Store(&proxyRules{names: c.mayAsk})
	return g, g.read()
}

func refusalLimits() map[string]*rate.Limiter {
	all := make(map[string]*rate.Limiter, len(proxyReasons))
	for _, reason := range proxyReasons {
		all[reason] = rate.NewLimiter(rate.Every(refusalLineRate), refusalLines)
	}
	return all
}

// newProxiesRefused counts by reason. Where proxies need no certificate it stays
// at 0.
func newProxiesRefused() *prometheus.CounterVec {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tenantbroker_check_proxies_refused_total", Help: "Connections to the proxies' listener that may not ask, or made no handshake.",
	}, []string{"reason"})
	for _, reason := range proxyReasons { // from the start, so that the first one is an increase
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
	g.change(func(r *proxyRules) { r.authority = pool })
	return nil
}

// list takes who may ask from a configuration that was read again.
func (g *proxyGate) list(names proxyNames) {
	g.change(func(r *proxyRules) { r.names = names })
}

func (g *proxyGate) change(one func(*proxyRules)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := *g.rules.Load()
	one(&next)
	g.rules.Store(&next)
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

// config asks for a certificate, which admit then looks at. No session is taken
// up again from a ticket.
func (g *proxyGate) config() *tls.Config {
	config := g.pair.config()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := g.pair.config()
		c.NextProtos = []string{"h2", "http/1.1"}
		c.SessionTicketsDisabled = true
		c.ClientAuth, c.ClientCAs = tls.RequestClientCert, g.rules.Load().authority
		return c, nil
	}
	return config
}

// admit decides about a connection, whose peer has proven to hold the first
// certificate's key: it returns its leave, or why it has none.
func (g *proxyGate) admit(from net.Addr, chain []*x509.Certificate) (*leave, string) {
	now, why := g.judge(chain)
	if why != "" {
		g.refuse(from, chain, why)
		return nil, why
	}
	l := &leave{from: from, chain: chain}
	l.now.Store(now)
	return l, ""
}

// judge holds a chain against the rules of this moment.
func (g *proxyGate) judge(chain []*x509.Certificate) (*standing, string) {
	rules := g.rules.Load()
	if len(chain) == 0 {
		return nil, proxyShowsNone
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{
		Roots: rules.authority, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return nil, proxyExpired
	}
	if err != nil {
		return nil, proxyUntrusted
	}
	name := rules.names.of(chain[0])
	if name == "" {
		return nil, proxyUnlisted
	}
	s := &standing{rules: rules, until: chain[0].NotAfter, name: name}
	for _, c := range ways[0] {
		if c.NotAfter.Before(s.until) {
			s.until = c.NotAfter
		}
	}
	return s, ""
}

// count counts a refusal, and leaves a line with attrs.
func (g *proxyGate) count(from net.Addr, why string, attrs ...any) {
	g.refused.WithLabelValues(why).Inc()
	line := g.log.Warn
	if why == proxyFailed || why == proxyLate { // as by each probe whether the port is open
		line = g.log.Debug
	}
	if g.lines[why].Allow() {
		line("a connection to check.listen is refused", append([]any{"reason", why, "ip", addressOf(from)}, attrs...)...)
	}
}

// refuse counts, and leaves a record and a line. What a certificate calls itself
// is told only when an authority vouches for it.
func (g *proxyGate) refuse(from net.Addr, chain []*x509.Certificate, why string) {
	g.note(addressOf(from), why)
	var attrs []any
	if len(chain) > 0 {
		attrs = append(attrs, "fingerprint", fingerprintPrefix+fingerprint(chain[0]))
	}
	if why == proxyUnlisted {
		names := slices.Clone(chain[0].DNSNames)
		for _, u := range chain[0].URIs {
			names = append(names, u.String())
		}
		all := strings.Join(names, " ")
		attrs = append(attrs, "names", all[:min(len(all), maxProxyURI)])
	}
	g.count(from, why, attrs...)
}
