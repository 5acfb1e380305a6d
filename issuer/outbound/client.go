package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds of one fetch.
const (
	Timeout  = 5 * time.Second // from the first packet to the last byte
	MaxBytes = 256 << 10       // of the answer's body

	maxRedirects = 3
	maxHeader    = 16 << 10
)

// Options say what is special about one peer. The zero Options reach public
// addresses over https with the system's roots.
type Options struct {
	AllowedCIDRs      []string // ranges beyond the public internet
	CABundle          string   // PEM; the only roots when set
	AllowLoopbackHTTP bool     // loopback may be reached, and by plain http: for development
	// NoRedirects takes a redirect for the answer: what is sent is for one URL.
	NoRedirects bool
}

// Client fetches from one peer. Close it when it is no longer used.
type Client struct {
	http     *http.Client
	loopback bool
}

// NewClient returns a Client, or an error when a range or the bundle can't be
// read.
func NewClient(o Options) (*Client, error) {
	filter, err := NewFilter(o.AllowedCIDRs, o.AllowLoopbackHTTP)
	if err != nil {
		return nil, err
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CABundle != "" {
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM([]byte(o.CABundle)) {
			return nil, errors.New("the CA bundle has no certificate")
		}
	}
	c := &Client{loopback: o.AllowLoopbackHTTP}
	redirects := c.checkRedirect
	if o.NoRedirects {
		redirects = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	dialer := &net.Dialer{Timeout: Timeout, Control: filter.control}
	c.http = &http.Client{
		Timeout:       Timeout,
		CheckRedirect: redirects,
		Transport: &http.Transport{
			Proxy:                  nil, // never from the environment: a proxy would resolve names for us
			DialContext:            dialer.DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    Timeout,
			ResponseHeaderTimeout:  Timeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns:           1,
			IdleConnTimeout:        30 * time.Second,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // a small answer must not unpack to a large one
		},
	}
	return c, nil
}

// Do sends a request whose URL is allowed. It is the method that
// jwks.RemoteConfig asks of a client.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	if err := c.CheckURL(r.URL); err != nil {
		return nil, err
	}
	return c.http.Do(r)
}

// Get fetches a document of at most MaxBytes. Only the status 200 is success.
func (c *Client) Get(ctx context.Context, rawURL string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing was written
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", r.URL.Host, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > MaxBytes {
		return nil, fmt.Errorf("%s answered more than %d bytes", r.URL.Host, MaxBytes)
	}
	return body, nil
}

// CheckURL holds u to https, or http on loopback where that is allowed,
// without user and with a host.
func (c *Client) CheckURL(u *url.URL) error {
	switch {
	case u.Hostname() == "" || u.User != nil || u.Opaque != "":
		return fmt.Errorf("%w: the URL must have a host and no user", ErrForbidden)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && c.loopback && loopbackName(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%w: the scheme must be https", ErrForbidden)
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) checkRedirect(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > maxRedirects || r.URL.Scheme != first.Scheme || !strings.EqualFold(r.URL.Host, first.Host) || r.URL.User != nil {
		return fmt.Errorf("%w: redirect to another host or scheme, or too many", ErrForbidden)
	}
	return nil
}

// control sees the address that is about to be connected to.
func (f Filter) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: not an address", ErrForbidden)
	}
	return f.Check(ap.Addr())
}

func loopbackName(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
