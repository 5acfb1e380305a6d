package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// ErrHost is a request to a host that the token was not meant for. It was not sent.
var ErrHost = errors.New("client: the token is not for this host")

// HTTPClient returns an HTTP client that sends a token for req with every
// request to one of hosts ("name" or "name:port"; at least one), over https or,
// on loopback, http. Any other request, a redirect elsewhere included, fails
// with ErrHost before it is sent. base brings the transport; nil: the default.
func (c *Client) HTTPClient(base *http.Client, req TokenRequest, hosts ...string) (*http.Client, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if len(hosts) == 0 {
		return nil, errors.New("client: name the hosts that may receive the token")
	}
	allowed := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		u, err := url.Parse("https://" + h)
		if err != nil || u.Host != h || u.Hostname() == "" {
			return nil, fmt.Errorf("client: %q is not a host", h)
		}
		allowed[strings.ToLower(h)] = true
	}
	var own http.Client
	if base != nil {
		own = *base
	}
	next := own.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	own.Transport = &bearer{client: c, request: req, hosts: allowed, next: next}
	return &own, nil
}

// bearer sets the Authorization header of every request it lets through.
type bearer struct {
	client  *Client
	request TokenRequest
	hosts   map[string]bool
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper. It does not change req.
func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := b.admit(req); err != nil {
		closeBody(req)
		return nil, err
	}
	t, err := b.client.Token(req.Context(), b.request)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	sent := req.Clone(req.Context())
	sent.Header.Set("Authorization", "Bearer "+t.Reveal())
	res, err := b.next.RoundTrip(sent)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		b.client.refused(b.request)
	}
	return res, err
}

// admit holds a request to the hosts and to a connection nobody reads along.
func (b *bearer) admit(req *http.Request) error {
	u := req.URL
	host := strings.ToLower(u.Host)
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback(u.Hostname()):
	default:
		return fmt.Errorf("%w: %s is not https", ErrHost, u.Redacted())
	}
	if b.hosts[host] || (u.Port() == defaultPort(u.Scheme) && b.hosts[strings.TrimSuffix(host, ":"+u.Port())]) ||
		(u.Port() == "" && b.hosts[host+":"+defaultPort(u.Scheme)]) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrHost, u.Host)
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // a RoundTripper closes the body, errors included
	}
}
