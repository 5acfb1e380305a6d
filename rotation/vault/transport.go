package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the connections to Vault.
const (
	dialTimeout    = 2 * time.Second
	maxConnections = 64
	idleTimeout    = 60 * time.Second
)

// newTransport returns a transport that takes nothing from the environment: no
// proxy, no certificate. It speaks HTTP/1.1, so that a connection that hangs
// harms one call and not all that share it.
func newTransport(c Config) (*http.Transport, error) {
	secured := &tls.Config{MinVersion: minTLS, ServerName: c.ServerName}
	if c.CAFile != "" {
		var err error
		if secured.RootCAs, err = authorities(c.CAFile); err != nil {
			return nil, err
		}
	}
	if presents, ok := c.Login.(interface {
		certificate() (*tls.Certificate, error)
	}); ok {
		// Read for each connection, so that a renewed file counts.
		secured.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return presents.certificate() }
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	secure := &secureDialer{dialer: dialer, config: secured, file: c.CAFile}
	return &http.Transport{
		Proxy:               nil, // not even from the environment
		DialContext:         dialer.DialContext,
		DialTLSContext:      secure.dial,
		Protocols:           protocols,
		MaxConnsPerHost:     maxConnections,
		MaxIdleConnsPerHost: maxConnections,
		IdleConnTimeout:     idleTimeout,
	}, nil
}

// authorities reads the certificates that Vault's is held to.
func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, &ConfigError{"ca_file", err.Error()}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, &ConfigError{"ca_file", file + ": no certificate in it"}
	}
	return pool, nil
}

// secureDialer makes TLS connections. It reads the authorities for each, so
// that a renewed file counts; one that can't be read, or holds none, is being
// replaced, and those of before count on.
type secureDialer struct {
	dialer *net.Dialer
	file   string // empty: the system's authorities

	mu     sync.Mutex
	config *tls.Config
}

func (d *secureDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	config := d.current()
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		config.ServerName = host
	}
	raw, err := d.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, err
	}
	return secured, nil
}

func (d *secureDialer) current() *tls.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file != "" {
		if pool, err := authorities(d.file); err == nil {
			d.config.RootCAs = pool
		}
	}
	return d.config.Clone()
}

// refuseRedirects hands a redirect to the caller: a token is sent to the
// configured address only.
func refuseRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// watchSending returns a context for one request and what tells whether any of
// it was written to a connection.
func watchSending(ctx context.Context) (context.Context, *atomic.Bool) {
	sent := new(atomic.Bool)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { sent.Store(true) },
	}), sent
}

// bounded limits the body of every answer, also of those that HashiCorp's
// client reads itself.
type bounded struct{ base *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.base.RoundTrip(r)
	if err == nil {
		response.Body = &boundedBody{response.Body, maxAnswer}
	}
	return response, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

var errTooLong = fmt.Errorf("an answer over %d bytes", maxAnswer)

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte // the end, or too much?
		if n, err := b.ReadCloser.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
