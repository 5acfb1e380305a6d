package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

func TestTheTokenGoesToTheNamedHostsOnly(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	b := &bearer{client: c, request: request(acme), hosts: map[string]bool{"api.example": true, "10.0.0.1:8443": true, "127.0.0.1:9": true, "full.example:443": true}}
	for address, want := range map[string]bool{
		"https://api.example/x":          true,
		"https://API.example/x":          true,
		"https://api.example:443/x":      true,
		"https://full.example/x":         true,
		"https://10.0.0.1:8443/":         true,
		"http://127.0.0.1:9/":            true,
		"http://api.example/x":           false, // not https
		"http://api.example:443/":        false,
		"https://api.example:8443/x":     false, // another port
		"https://api.example.evil.test/": false,
		"https://evil.test/api.example":  false,
		"https://api.example@evil.test/": false,
		"https://10.0.0.1/":              false,
		"http://127.0.0.1:10/":           false,
		"ftp://api.example/":             false,
	} {
		req, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.admit(req); (err == nil) != want || (err != nil && !errors.Is(err, ErrHost)) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, host := range []string{"", "a/b", "user@host", "https://x", "x y"} {
		if _, err := c.HTTPClient(nil, request(acme), host); err == nil {
			t.Errorf("host %q accepted", host)
		}
	}
	if _, err := c.HTTPClient(nil, request(acme)); err == nil {
		t.Error("no hosts accepted")
	}
	if _, err := c.HTTPClient(nil, TokenRequest{}, "x"); err == nil {
		t.Error("no tenant accepted")
	}
}

func TestARedirectElsewhereIsNotFollowedWithTheToken(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	var leaked atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Add(1) }))
	defer other.Close()
	var authorization atomic.Value
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization.Store(r.Header.Get("Authorization"))
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer api.Close()
	h, err := c.HTTPClient(api.Client(), request(acme), strings.TrimPrefix(api.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	mine, _ := http.NewRequest(http.MethodPost, api.URL+"/away", strings.NewReader("x"))
	res, err := h.Do(mine)
	if !errors.Is(err, ErrHost) {
		t.Errorf("got %v, %v", res, err)
	}
	if leaked.Load() != 0 {
		t.Error("the other host was called")
	}
	if mine.Header.Get("Authorization") != "" {
		t.Error("the caller's request was changed")
	}
	if got, want := authorization.Load(), "Bearer "+mustToken(t, c, request(acme)).Reveal(); got != want {
		t.Error("another token was sent")
	}

	f.clock.Advance(time.Minute)
	res, err = h.Get(api.URL + "/refused")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	mustToken(t, c, request(acme))
	if n := len(f.seen()); n != 2 {
		t.Errorf("%d tokens: one that a service refuses is replaced", n)
	}
}

func TestATokenSourceWorksWithTheOAuth2Package(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	var got string
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Authorization") }))
	defer api.Close()
	res, err := oauth2.NewClient(t.Context(), c.TokenSource(t.Context(), request(acme))).Get(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got != "Bearer "+mustToken(t, c, request(acme)).Reveal() {
		t.Error("not the token")
	}
	f.set(func() { f.hook = refusal(400, "invalid_target") })
	if _, err := c.TokenSource(t.Context(), request(globex)).Token(); !errors.Is(err, ErrInvalidTarget) {
		t.Errorf("got %v", err)
	}
}
