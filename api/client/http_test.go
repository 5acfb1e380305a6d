package client

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// hangUp closes the connection instead of answering.
func hangUp(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// A request that nobody answered is made again, each time with a fresh
// assertion: the broker may have used up the one before.
func TestATokenRequestWithoutAnAnswerIsMadeAgain(t *testing.T) {
	for lost, wantErr := range map[int]error{0: nil, 1: nil, 2: nil, 3: ErrUnavailable} {
		f := newFaultyBroker(t, newClock())
		var requests atomic.Int64
		f.hook = func(w http.ResponseWriter, r *http.Request) bool {
			return int(requests.Add(1)) <= lost && hangUp(w, r)
		}
		_, key, _ := ed25519.GenerateKey(rand.Reader)
		c := newTestClient(t, f, func(cfg *Config) { cfg.Auth = PrivateKeyJWT{Account: worker, Key: key} })
		if _, err := c.Token(t.Context(), request(acme)); !errors.Is(err, wantErr) {
			t.Errorf("%d answers lost: %v", lost, err)
		}
		assertions := map[string]bool{}
		for _, r := range f.seen() {
			assertions[r.form.Get("client_assertion")] = true
		}
		if want := min(lost+1, 3); len(f.seen()) != want || len(assertions) != want {
			t.Errorf("%d answers lost: %d requests with %d assertions, want %d", lost, len(f.seen()), len(assertions), want)
		}
		if waited := f.clock.Now().Sub(epoch); waited != []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond, 1500 * time.Millisecond}[lost] {
			t.Errorf("%d answers lost: waited %s", lost, waited)
		}
	}
}

// An answer that breaks off in the middle is none.
func TestATokenAnswerThatIsCutOffIsAskedForAgain(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	var requests atomic.Int64
	f.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		if requests.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"access_token":"`)
		return true
	}
	if _, err := newTestClient(t, f).Token(t.Context(), request(acme)); err != nil || requests.Load() != 2 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// What doesn't get better by asking again is told at once.
func TestABrokerWithTheWrongCertificateIsNotAskedAgain(t *testing.T) {

	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f, func(cfg *Config) { cfg.Issuer = credential.MustIssuerURL(srv.URL) })
	c.sleep = nil // it would be called before another attempt
	if _, err := c.Token(t.Context(), request(acme)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// A change is not made again when there was no answer: it may have been made.
func TestARevocationWithoutAnAnswerIsNotMadeAgain(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	f.hook = hangUp
	c := newTestClient(t, f)
	if err := c.postForm(t.Context(), "revoke", "/oauth2/revoke", url.Values{}, nil); !errors.Is(err, ErrUnavailable) || len(f.seen()) != 1 {
		t.Errorf("%v after %d requests", err, len(f.seen()))
	}
}

type roundTrips func(*http.Request) (*http.Response, error)

func (r roundTrips) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

// net/http asks for the body again where a connection of its pool turns out to
// be closed before anything was written.
func TestATokenRequestsBodyCanBeSentAnew(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f, func(cfg *Config) {
		cfg.HTTPClient = &http.Client{Transport: roundTrips(func(req *http.Request) (*http.Response, error) {
			if req.GetBody == nil {
				return nil, errors.New("no GetBody")
			}
			_ = req.Body.Close() // on the connection that was closed
			var err error
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
			return http.DefaultTransport.RoundTrip(req)
		})}
	})
	mustToken(t, c, request(acme))
}

// The client lets go of an idle connection before the broker does.
func TestIdleConnectionsAreClosedBeforeTheBrokerClosesThem(t *testing.T) {
	const brokers = 90 * time.Second // timeouts.idle, unless told otherwise
	for _, h := range []*http.Client{nil, {}, {Timeout: time.Second}} {
		transport, ok := withoutRedirects(h).Transport.(*http.Transport)
		if !ok || transport.IdleConnTimeout <= 0 || transport.IdleConnTimeout >= brokers-10*time.Second {
			t.Errorf("%+v: %+v", h, transport)
		}
		if p := transport.HTTP2; p == nil || p.SendPingTimeout <= 0 || p.SendPingTimeout+p.PingTimeout > 30*time.Second {
			t.Errorf("%+v: a dead connection is not noticed: %+v", h, p)
		}
		if transport == http.DefaultTransport {
			t.Error("the transport is everybody's")
		}
	}
	own := &http.Transport{IdleConnTimeout: time.Hour}
	if got := withoutRedirects(&http.Client{Transport: own}).Transport; got != own {
		t.Error("a transport of the caller's own was replaced")
	}
}

// The server closes each connection after one answer, and some before it.
func TestConnectionsThatCloseAllTheTime(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	f.Config.SetKeepAlivesEnabled(false)
	var n atomic.Int64
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		return n.Add(1)%3 != 0 && hangUp(w, r)
	}
	c := newTestClient(t, f)
	for range 20 {
		mustToken(t, c, request(acme))
		f.clock.Advance(10 * time.Minute)
	}
}
