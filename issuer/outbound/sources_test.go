package outbound

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// site is an issuer with discovery whose answers a test sets.
type site struct {
	*httptest.Server
	mu       sync.Mutex
	document map[string]any
	keys     []byte
	asked    atomic.Int32
	block    chan struct{}
}

func newSite(t *testing.T) *site {
	s := &site{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if s.block != nil {
			select {
			case <-s.block:
			case <-r.Context().Done():
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.document == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(s.document)
	})
	serve := func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, _ = w.Write(s.keys)
	}
	mux.HandleFunc("/keys", serve)
	mux.HandleFunc("/new-keys", serve)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	s.set(map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/keys"})
	s.keys = set(t, "one")
	return s
}

func (s *site) set(document map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.document = document
}

func set(t *testing.T, kids ...string) []byte {
	t.Helper()
	var keys []jwks.Key
	for _, kid := range kids {
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k, err := jwks.NewKey(kid, credential.ES256, priv.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	b, err := jwks.NewSet(keys...).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newSources(t *testing.T) (*Sources, *clock) {
	c := &clock{t: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	s := NewSources(Config{AllowLoopbackHTTP: true, Now: c.now})
	t.Cleanup(s.Close)
	return s, c
}

func key(t *testing.T, s *Sources, row *registry.TrustedIssuer, kid string) error {
	t.Helper()
	source, err := s.For(row)
	if err != nil {
		return err
	}
	_, err = source.Key(t.Context(), kid)
	return err
}

func TestSourcesOfEveryKind(t *testing.T) {
	site := newSite(t)
	s, _ := newSources(t)
	for n, row := range []registry.TrustedIssuer{
		{ID: "discovery", Issuer: site.URL, Discovery: true},
		{ID: "url", Issuer: "https://x.example", JWKSURL: site.URL + "/keys"},
		{ID: "static", Issuer: "https://y.example", JWKS: string(site.keys)},
	} {
		row.Version = uint64(n + 1)
		if err := key(t, s, &row, "one"); err != nil {
			t.Errorf("%s: %v", row.ID, err)
		}
		if err := key(t, s, &row, "two"); !errors.Is(err, jwks.ErrUnknownKey) {
			t.Errorf("%s: %v", row.ID, err)
		}
	}
	for _, row := range []registry.TrustedIssuer{
		{ID: "none"}, {ID: "bad set", JWKS: "{"}, {ID: "bad url", JWKSURL: "ftp://x"}, {ID: "bad bundle", JWKSURL: "https://x", CABundle: "x"},
	} {
		if _, err := s.For(&row); err == nil {
			t.Errorf("%s: taken", row.ID)
		}
	}
}

func TestChangedRowDropsOldKeys(t *testing.T) {
	s, _ := newSources(t)
	old := &registry.TrustedIssuer{ID: "x", Version: 1, JWKS: string(set(t, "old"))}
	changed := &registry.TrustedIssuer{ID: "x", Version: 2, JWKS: string(set(t, "new"))}
	if err := key(t, s, old, "old"); err != nil {
		t.Fatal(err)
	}
	if err := key(t, s, changed, "old"); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("%v", err)
	}
	if err := key(t, s, old, "old"); !errors.Is(err, jwks.ErrUnknownKey) {
		t.Errorf("a late reader of the old row brings the old keys back: %v", err)
	}
	if err := key(t, s, changed, "new"); err != nil {
		t.Errorf("%v", err)
	}
}

// As many issuers as the registry takes, in turns: each keeps its keys and its
// floor, so that none is fetched twice.
func TestSourcesAreBoundedAndHoldEveryIssuer(t *testing.T) {
	var asked atomic.Int64
	keys := set(t, "one")
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(keys)
	}))
	t.Cleanup(site.Close)
	s, _ := newSources(t)
	row := registry.TrustedIssuer{Version: 1, JWKSURL: site.URL}
	for range 2 {
		for n := range registry.MaxIssuers {
			row.ID = fmt.Sprint(n)
			if err := key(t, s, &row, "one"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := asked.Load(); n != registry.MaxIssuers {
		t.Errorf("%d fetches for %d issuers", n, registry.MaxIssuers)
	}
	for n := range 10 { // those of deleted issuers make room
		row.ID = fmt.Sprint("new-", n)
		if _, err := s.For(&row); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.sources.Len(); n != registry.MaxIssuers {
		t.Errorf("%d sources", n)
	}
}
