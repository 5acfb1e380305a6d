package verifier_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// zeroSource breaks the contract of jwks.Source: no key and no error.
type zeroSource struct{}

func (zeroSource) Key(context.Context, string) (jwks.Key, error) { return jwks.Key{}, nil }

func TestSourceThatBreaksItsContractOpensNothing(t *testing.T) {
	f := newFixture(t)
	f.want(f.verifier(func(cfg *verifier.Config) { cfg.Keys = zeroSource{} }), f.payload(claims().json()), verifier.ErrUnknownKey)
}

func TestKeysAreFetchedFromTheIssuer(t *testing.T) {
	f := newFixture(t)
	doc, err := f.set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	down := atomic.Bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/jwks.json" || down.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(doc)
	}))
	defer server.Close()
	cfg := verifier.Config{Issuer: server.URL, Audience: vectorAudience, Now: func() time.Time { return f.now }}
	raw := f.payload(claims().with("iss", quote(server.URL)).json())
	for _, client := range []*http.Client{nil, server.Client()} {
		cfg.HTTPClient = client
		v, err := verifier.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		f.want(v, raw, nil)
		v.Close()
	}
	down.Store(true)
	if v, err := verifier.New(t.Context(), cfg); !errors.Is(err, verifier.ErrUnavailable) || v != nil {
		t.Errorf("New while the broker is away: %v", err)
	}
	f.verifier().Close() // keys that were given are not its to close
}

// A key is withdrawn while the broker is in reach: what it signed is refused as
// soon as the keys are due and the grace is over, remembered or not.
func TestTokensOfAWithdrawnKeyAreRefusedBeyondGrace(t *testing.T) {
	f := newFixture(t)
	served := atomic.Pointer[jwks.Set]{}
	served.Store(&f.set)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		doc, err := served.Load().MarshalJSON()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Cache-Control", "max-age=30")
		_, _ = w.Write(doc)
	}))
	defer server.Close()
	v := f.verifier(func(cfg *verifier.Config) { cfg.Issuer, cfg.Keys = server.URL, nil })
	defer v.Close()
	raw := f.payload(claims().with("iss", quote(server.URL)).json())
	f.want(v, raw, nil)
	without, err := jwks.ParseSet([]byte(`{"keys":[` + f.public("ec-1") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	served.Store(&without)
	f.now = f.now.Add(30*time.Second + jwks.Grace)
	f.want(v, raw, verifier.ErrUnknownKey)
}

func TestKeyStalenessIsTheTimeSinceTheKeysWereConfirmed(t *testing.T) {
	f := newFixture(t)
	down := atomic.Bool{}
	doc, err := f.set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(doc)
	}))
	defer server.Close()
	v := f.verifier(func(cfg *verifier.Config) { cfg.Issuer, cfg.Keys = server.URL, nil })
	defer v.Close()
	verify := func() { // the token is over; its key is asked for nevertheless
		f.want(v, f.payload(claims().with("iss", quote(server.URL)).json()), verifier.ErrExpired)
	}
	want := func(staleness time.Duration) {
		t.Helper()
		if got := v.KeyStaleness(); got != staleness {
			t.Errorf("stale for %s, want %s", got, staleness)
		}
	}
	want(0)
	f.now = f.now.Add(time.Hour)
	want(time.Hour)
	verify()
	want(0)
	down.Store(true)
	f.now = f.now.Add(time.Hour)
	verify()
	want(time.Hour)

	own, err := jwks.NewRemote(jwks.RemoteConfig{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.verifier(func(cfg *verifier.Config) { cfg.Keys = own }).KeyStaleness(); got != math.MaxInt64 {
		t.Errorf("keys that were never had: stale for %s", got)
	}
	if got := f.verifier().KeyStaleness(); got != 0 {
		t.Errorf("a fixed set: stale for %s", got)
	}
}
