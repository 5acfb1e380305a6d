package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Checks is the listener on which proxies ask about tokens. Who reaches it is
// believed to be a proxy: by its place on this machine, or by its certificate.
type Checks struct {
	Listen       string `yaml:"listen" help:"address of /v1/check, for proxies alone: loopback, unix:/path of a socket (mode 0660), or any with client_ca_file; empty: none"`
	Audiences    string `yaml:"audiences" help:"the audiences that proxies may ask about, separated by spaces; required with listen"`
	CertFile     string `yaml:"cert_file" help:"PEM file with the certificate chain of this listener; goes with key_file and client_ca_file"`
	KeyFile      string `yaml:"key_file" help:"PEM file with its private key"`
	ClientCAFile string `yaml:"client_ca_file" help:"PEM file with the authorities of the proxies' certificates; read again when it changes"`
	Proxies      string `yaml:"proxies" help:"whose certificates may ask, separated by spaces: DNS names, URIs such as spiffe://example.org/proxy, or sha256:FINGERPRINT; required with client_ca_file; read again on SIGHUP"`
}

const (
	// maxCheckConnections bounds the connections that may ask, which bounds the
	// checks at one moment too. As many more wait, and those beyond are closed.
	maxCheckConnections = 1024
	// maxCheckAudiences bounds the audiences, each of which has a cache of
	// verified tokens.
	maxCheckAudiences = 256
	unixPrefix        = "unix:" // of check.listen, before the path of a socket
)

// checkCheck validates the proxies' listener.
func (c *Config) checkCheck() error {
	k := c.doc.Check
	names, err := parseProxyNames(k.Proxies)
	if err != nil {
		return &KeyError{"check.proxies", err.Error()}
	}
	files := 0
	for _, name := range []string{k.CertFile, k.KeyFile, k.ClientCAFile} {
		if name != "" {
			files++
		}
	}
	socket, isSocket := strings.CutPrefix(k.Listen, unixPrefix)
	switch {
	case k.Listen == "" && (k.Audiences != "" || files != 0 || !names.none()):
		return &KeyError{"check.listen", "the other keys of check are for a listener"}
	case k.Listen == "":
		return nil
	case files != 0 && files != 3:
		return &KeyError{"check.client_ca_file", "goes with check.cert_file and check.key_file: all three or none"}
	case (files == 0) != names.none():
		return &KeyError{"check.proxies", "goes with check.client_ca_file: an authority's certificate alone is nobody's leave to ask"}
	case isSocket && (!filepath.IsAbs(socket) || len(socket) > maxSocketPath):
		return &KeyError{"check.listen", fmt.Sprintf("the path of a socket is absolute, and of at most %d bytes", maxSocketPath)}
	case isSocket && files != 0:
		return &KeyError{"check.client_ca_file", "a socket needs no certificates"}
	case isSocket:
	case checkAddress(k.Listen) != nil:
		return &KeyError{"check.listen", "neither unix:/path nor host:port"}
	case files == 0 && !loopback(k.Listen):
		return &KeyError{"check.listen", "beyond loopback proxies authenticate with certificates: set check.client_ca_file"}
	case !anyPort(k.Listen) && (k.Listen == c.doc.Listen || k.Listen == c.doc.Ops.Listen):
		return &KeyError{"check.listen", "must differ from listen and ops.listen"}
	}
	c.mayAsk = names
	return c.checkAudiences()
}

func (c *Config) checkAudiences() error {
	names := strings.Fields(c.doc.Check.Audiences)
	if len(names) == 0 || len(names) > maxCheckAudiences {
		return &KeyError{"check.audiences", fmt.Sprintf("1 to %d audiences, separated by spaces", maxCheckAudiences)}
	}
	for _, name := range names {
		a, err := credential.ParseAudience(name)
		if err != nil {
			return &KeyError{"check.audiences", err.Error()}
		}
		if c.issuer.Reserves(a) {
			return &KeyError{"check.audiences", "the broker's own audiences are for the broker"}
		}
		c.audiences = append(c.audiences, a)
	}
	return nil
}

// listenCheck opens the proxies' listener, if there is to be one.
func (b *Broker) listenCheck(ctx context.Context, m *metrics) error {
	k := b.config.doc.Check
	if k.Listen == "" {
		return nil
	}
	cfg := api.CheckConfig{
		Issuer: b.config.issuer, Verifiers: make(map[credential.Audience]api.Verifier), Standing: b.issuer,
		Now: b.deps.Now, Logger: b.deps.Logger, Metrics: m.registry,
	}
	for _, a := range b.config.audiences {
		// What was revoked, the check asks the store itself each time.
		v, err := verifier.New(ctx, verifier.Config{Issuer: b.config.issuer.String(), Audience: a.String(), Keys: b.signing.manager, Now: b.deps.Now})
		if err != nil {
			return err
		}
		cfg.Verifiers[a] = v
	}
	refused := newProxiesRefused()
	if err := m.registry.Register(refused); err != nil {
		return err
	}
	gate, err := newProxyGate(b.config, b.deps.Logger)
	if err != nil {
		return err
	}
	if gate != nil {
		gate.refused = refused
		gate.note = func(from netip.Addr, why string) { b.issuer.Note(issuer.CheckListener, issuer.Origin{IP: from}, why) }
		cfg.Proxy = gate.asks
		b.gate = gate
		b.front = append(b.front, gate.Run)
	}
	handler, err := api.NewCheck(cfg)
	if err != nil {
		return err
	}
	l, err := b.openCheck(ctx)
	if err != nil {
		return fmt.Errorf("check.listen: %w", err)
	}
	b.checkAddress = l.Addr()
	strangers := func() int { return 0 } // without certificates everybody may ask
	if gate != nil {
		door := newProxyDoor(l, gate)
		l, handler, strangers = door, gate.hold(handler), door.count
		b.front = append(b.front, door.Run)
	}
	limited := limitConnections(l, maxCheckConnections, maxCheckConnections, nil)
	m.proxies(limited.count, strangers)
	// The door has done the handshakes: the server is given connections that did.
	server := newHTTPServer("check", limited, handler, b.config.doc.Timeouts, nil, b.deps.Logger)
	server.server.ConnState = limited.track
	if gate != nil {
		server.server.ConnContext = gate.remember
	}
	b.listeners = append(b.listeners, limited)
	b.front = append(b.front, server.Run)
	return nil
}

func (b *Broker) openCheck(ctx context.Context) (net.Listener, error) {
	path, isSocket := strings.CutPrefix(b.config.doc.Check.Listen, unixPrefix)
	if !isSocket {
		return listen(ctx, b.config.doc.Check.Listen)
	}
	// Another broker's, perhaps: only one that nobody answers on is a leftover.
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(errors.New("somebody serves "+path), conn.Close())
	}
	return listenSocket(ctx, path, 0o660)
}
