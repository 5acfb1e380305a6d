package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of the time that a document's own Cache-Control can set.
const (
	minLife     = 30 * time.Second
	maxLife     = time.Hour
	defaultLife = 5 * time.Minute
)

const (
	maxDocument  = 4 << 20 // bytes, whatever is configured
	maxETag      = 512     // bytes; a longer one is not sent back
	maxRedirects = 3
)

var errRedirect = errors.New("redirected to another host")

// complete fills in the defaults and checks the bounds.
func (c *RemoteConfig) complete() error {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Refresh < 0 {
		return errors.New("key set: Refresh is negative")
	}
	for _, d := range []struct {
		name             string
		value            *time.Duration
		least, most, def time.Duration
	}{
		{"MaxStale", &c.MaxStale, time.Minute, 7 * 24 * time.Hour, 24 * time.Hour},
		{"MinRefetch", &c.MinRefetch, time.Millisecond, time.Hour, 10 * time.Second},
		{"Timeout", &c.Timeout, 10 * time.Millisecond, time.Minute, 5 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < d.least || *d.value > d.most {
			return fmt.Errorf("key set: %s is %s, allowed are %s to %s", d.name, *d.value, d.least, d.most)
		}
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 10
	}
	if c.MaxBytes < 0 || c.MaxBytes > maxDocument {
		return fmt.Errorf("key set: MaxBytes is %d, at most %d", c.MaxBytes, maxDocument)
	}
	return nil
}

// Times of a connection of HTTP/2. A dead one is told by a ping that nobody
// answers; else it is tried until TCP gives it up, after a quarter of an hour.
const (
	pingAfter = 10 * time.Second // of silence
	pingWait  = 5 * time.Second
)

// ownClient has the default transport's settings, and connections of its own,
// which hangUp closes when they are idle.
func ownClient() (client *http.Client, hangUp func()) {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // somebody has replaced it, and means it
		return new(http.Client), func() {}
	}
	own := t.Clone()
	own.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
	return &http.Client{Transport: own}, own.CloseIdleConnections
}

// parseURL returns an absolute https URL, or http on loopback.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	switch {
	case u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return nil, errors.New("key set: the URL needs a host and no user or fragment")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("key set: the URL must be https; http is for loopback only")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sameHost makes an *http.Client stop at a redirect that leaves the host; any
// other Doer is held to it afterwards, in get.
func sameHost(d Doer, home *url.URL) Doer {
	client, ok := d.(*http.Client)
	if !ok {
		return d
	}
	held := *client // the caller's own is not changed
	held.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || !sameOrigin(req.URL, home) {
			return errRedirect
		}
		return nil
	}
	return &held
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

// get fetches the document once. h is what is held, for If-None-Match.
func (r *Remote) get(ctx context.Context, h *held) (*held, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if h != nil && h.etag != "" {
		req.Header.Set("If-None-Match", h.etag)
	}
	res, err := r.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.Request != nil && !sameOrigin(res.Request.URL, r.url) {
		return nil, errRedirect
	}
	switch {
	case res.StatusCode == http.StatusNotModified && h != nil && h.etag != "":
		return &held{set: h.set, etag: h.etag, life: r.life(res.Header)}, nil
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("key set: status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, r.cfg.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > r.cfg.MaxBytes {
		return nil, fmt.Errorf("%w: over %d bytes", ErrSet, r.cfg.MaxBytes)
	}
	set, err := ParseSet(body)
	if err != nil {
		return nil, err
	}
	if set.Len() == 0 { // an accident; it must not wipe the keys that are held
		return nil, fmt.Errorf("%w: no usable key", ErrSet)
	}
	fresh := &held{set: set, life: r.life(res.Header)}
	if etag := res.Header.Get("ETag"); len(etag) <= maxETag {
		fresh.etag = etag
	}
	return fresh, nil
}

// life returns how long the document is fresh: what is configured, or what is
// left of its max-age (RFC 9111 section 4.2) within the bounds.
func (r *Remote) life(header http.Header) time.Duration {
	if r.cfg.Refresh > 0 {
		return r.cfg.Refresh
	}
	for directive := range strings.SplitSeq(strings.Join(header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return minLife
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return minLife
			}
			age, _ := strconv.ParseUint(header.Get("Age"), 10, 31) // absent or wrong: 0
			return min(max(time.Duration(int64(seconds)-int64(age))*time.Second, minLife), maxLife)
		}
	}
	return defaultLife
}
