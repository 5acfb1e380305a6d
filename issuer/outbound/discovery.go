package outbound

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// rediscover is how long a discovery document is taken for fresh.
const rediscover = time.Hour

// discovered is a key source whose JWKS URL comes from the issuer's discovery
// document (OpenID Connect Discovery 1.0 section 4). The document is fetched
// when a key is first asked for, by one caller for all, and again every hour.
// An older one serves for jwks.Grace, or that long after a failure, while the
// new one is fetched beside; then only once the new one can't be had, up to
// maxStale.
type discovered struct {
	issuer  string
	client  *Client
	now     func() time.Time
	flights *sync.WaitGroup

	mu      sync.Mutex
	remote  *jwks.Remote
	url     string
	fetched time.Time     // when the document was last read
	tried   time.Time     // when it was last asked for
	flight  chan struct{} // closed when the fetch under way ends; nil: none
	failure error         // of the last fetch
	failed  time.Time     // when that was; zero after a success
}

// Key implements jwks.Source.
func (d *discovered) Key(ctx context.Context, kid string) (jwks.Key, error) {
	remote, err := d.current(ctx)
	if err != nil {
		return jwks.Key{}, fmt.Errorf("%w: discovery of %s: %w", jwks.ErrUnavailable, d.issuer, err)
	}
	return remote.Key(ctx, kid)
}

// Close ends a fetch of keys under way.
func (d *discovered) Close() {
	d.mu.Lock()
	remote := d.remote
	d.mu.Unlock()
	if remote != nil {
		remote.Close()
	}
}

func (d *discovered) current(ctx context.Context) (*jwks.Remote, error) {
	d.mu.Lock()
	now := d.now().Round(0) // documents age while the machine sleeps
	if jwks.Within(d.fetched, now, rediscover) {
		defer d.mu.Unlock()
		return d.remote, nil
	}
	if d.flight == nil && !jwks.Within(d.tried, now, minRefetch) {
		d.tried = now
		d.flight = make(chan struct{})
		d.flights.Add(1)
		// Not this caller's alone: it must not end with the caller's context.
		go d.fetch(context.WithoutCancel(ctx), d.flight)
	}
	spared := jwks.Within(d.fetched, now, rediscover+jwks.Grace) || jwks.Within(d.failed, now, jwks.Grace)
	old, err, flight := d.old(now), d.failure, d.flight
	d.mu.Unlock()
	switch {
	case old != nil && (spared || flight == nil):
		return old, nil
	case flight == nil:
		return nil, err
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failure == nil {
		return d.remote, nil
	}
	if old := d.old(now); old != nil {
		return old, nil
	}
	return nil, d.failure
}

// old returns the key source if its document is young enough to serve through
// an outage, or nil. The caller holds mu.
func (d *discovered) old(now time.Time) *jwks.Remote {
	if d.remote == nil || now.Sub(d.fetched) >= maxStale {
		return nil
	}
	return d.remote
}

func (d *discovered) fetch(ctx context.Context, flight chan struct{}) {
	defer d.flights.Done()
	jwksURL, err := d.document(ctx)
	if old := d.land(jwksURL, err, flight); old != nil {
		old.Close()
	}
}

// land ends the flight with its outcome and returns the key source that was
// replaced, if one was.
func (d *discovered) land(jwksURL string, err error, flight chan struct{}) (old *jwks.Remote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(flight)
	now := d.now().Round(0)
	d.flight, d.failure, d.failed = nil, err, now
	if err != nil {
		return nil
	}
	if d.remote == nil || jwksURL != d.url {
		remote, err := newRemote(jwksURL, d.client, d.now)
		if err != nil {
			d.failure = err
			return nil
		}
		old = d.remote
		d.remote, d.url = remote, jwksURL
	}
	d.fetched, d.tried, d.failed = now, now, time.Time{}
	return old
}

// document fetches the discovery document and returns its jwks_uri.
func (d *discovered) document(ctx context.Context) (string, error) {
	body, err := d.client.Get(ctx, strings.TrimSuffix(d.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	members, err := credential.ParseObject(body)
	if err != nil {
		return "", err
	}
	var issuer, jwksURI string
	for _, m := range members {
		switch string(m.Name) {
		case "issuer":
			issuer, err = m.JSONText()
		case "jwks_uri":
			jwksURI, err = m.JSONText()
		}
		if err != nil {
			return "", err
		}
	}
	if issuer != d.issuer {
		return "", fmt.Errorf("%w: the document is about another issuer", ErrForbidden)
	}
	u, err := url.Parse(jwksURI)
	if err != nil {
		return "", fmt.Errorf("%w: jwks_uri is not a URL", ErrForbidden)
	}
	return jwksURI, d.client.CheckURL(u)
}
