package outbound

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const (
	minRefetch = 10 * time.Second // floor between two fetches of one document
	maxStale   = 24 * time.Hour   // how long old keys serve through an outage
)

// Config says how key sources are made. Now must be set.
type Config struct {
	AllowLoopbackHTTP bool // see Options
	Now               func() time.Time
}

// Sources holds the key source of each trusted issuer: one per issuer, made
// from one version of its row. A changed row drops the old keys. There is room
// for as many as the registry takes: a source that made room for another would
// forget when it last fetched, and the keys that serve through an outage. Only
// those of deleted issuers do, sooner or later.
type Sources struct {
	cfg     Config
	mu      sync.Mutex
	sources *simplelru.LRU[string, *entry]
	flights sync.WaitGroup
}

type entry struct {
	version uint64
	source  jwks.Source
	client  *Client // nil for a static set
}

// NewSources returns an empty Sources.
func NewSources(cfg Config) *Sources {
	s := &Sources{cfg: cfg}
	lru, err := simplelru.NewLRU(registry.MaxIssuers, func(_ string, e *entry) { e.close() })
	if err != nil {
		panic(err) // only for a size below one
	}
	s.sources = lru
	return s
}

// For returns the key source for this version of the issuer's row. It does no
// I/O; the source does, when it is asked for a key.
func (s *Sources) For(t *registry.TrustedIssuer) (jwks.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A caller that read the row before it changed gets the newer source: its
	// decision fails in the commit, which checks the row's version.
	if e, ok := s.sources.Get(t.ID); ok && e.version >= t.Version {
		return e.source, nil
	}
	e, err := s.open(t)
	if err != nil {
		return nil, fmt.Errorf("trusted issuer %s: %w", t.ID, err)
	}
	if old, ok := s.sources.Peek(t.ID); ok {
		old.close()
	}
	s.sources.Add(t.ID, e)
	return e.source, nil
}

// Close waits for fetches in flight, each bounded by Timeout.
func (s *Sources) Close() {
	s.mu.Lock()
	s.sources.Purge()
	s.mu.Unlock()
	s.flights.Wait()
}

func (s *Sources) open(t *registry.TrustedIssuer) (*entry, error) {
	e := &entry{version: t.Version}
	if t.JWKS != "" {
		set, err := jwks.ParseSet([]byte(t.JWKS))
		e.source = set
		return e, err
	}
	client, err := NewClient(Options{
		AllowedCIDRs: t.AllowedCIDR, CABundle: t.CABundle, AllowLoopbackHTTP: s.cfg.AllowLoopbackHTTP,
	})
	if err != nil {
		return nil, err
	}
	e.client = client
	switch {
	case t.Discovery:
		e.source = &discovered{issuer: t.Issuer, client: client, now: s.cfg.Now, flights: &s.flights}
	case t.JWKSURL != "":
		e.source, err = newRemote(t.JWKSURL, client, s.cfg.Now)
	default:
		err = errors.New("it has no keys: neither discovery nor a JWKS URL nor a JWKS")
	}
	return e, err
}

func (e *entry) close() {
	if r, ok := e.source.(interface{ Close() }); ok {
		r.Close() // ends its fetch; what it holds goes on serving who has it
	}
	if e.client != nil {
		e.client.Close()
	}
}

func newRemote(url string, client *Client, now func() time.Time) (*jwks.Remote, error) {
	return jwks.NewRemote(jwks.RemoteConfig{
		URL: url, Client: client, Now: now,
		MaxStale: maxStale, MinRefetch: minRefetch, MaxBytes: MaxBytes, Timeout: Timeout,
	})
}
