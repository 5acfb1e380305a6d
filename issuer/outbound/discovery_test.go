package outbound

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestDiscoveryDocumentIsHeldToItsIssuer(t *testing.T) {
	site := newSite(t)
	row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
	for name, document := range map[string]map[string]any{
		"another issuer":                     {"issuer": "https://other.example", "jwks_uri": site.URL + "/keys"},
		"a slash more":                       {"issuer": site.URL + "/", "jwks_uri": site.URL + "/keys"},
		"no issuer":                          {"jwks_uri": site.URL + "/keys"},
		"no jwks_uri":                        {"issuer": site.URL},
		"plain http":                         {"issuer": site.URL, "jwks_uri": "http://keys.example/keys"},
		"a file":                             {"issuer": site.URL, "jwks_uri": "file:///etc/passwd"},
		"not a URL":                          {"issuer": site.URL, "jwks_uri": "://"},
		"jwks_uri is a list":                 {"issuer": site.URL, "jwks_uri": []string{site.URL + "/keys"}},
		"an address that the filter refuses": {"issuer": site.URL, "jwks_uri": "https://169.254.169.254/keys"},
	} {
		s, _ := newSources(t)
		site.set(document)
		if err := key(t, s, row, "one"); !errors.Is(err, jwks.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, _ := newSources(t)
	site.set(nil)
	if err := key(t, s, row, "one"); !errors.Is(err, jwks.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestDiscoveryIsAskedByOneForAll(t *testing.T) {
	site := newSite(t)
	site.block = make(chan struct{})
	s, _ := newSources(t)
	row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
	source, err := s.For(row)
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := source.Key(impatient, "one"); gone <- err }()
	for site.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := source.Key(t.Context(), "one"); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	close(site.block)
	wg.Wait()
	if n := site.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestDiscoveryIsRepeatedAndServesThroughAnOutage(t *testing.T) {
	site := newSite(t)
	s, c := newSources(t)
	row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
	settle := func(kid string) (err error) {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) { // what is refetched beside a caller shows a moment later
			if err = key(t, s, row, kid); err == nil || time.Now().After(end) {
				return err
			}
		}
	}
	if err := key(t, s, row, "one"); err != nil {
		t.Fatal(err)
	}
	site.set(nil)
	for range 20 { // a failing document is not asked for at every call
		c.add(time.Second)
		if err := key(t, s, row, "one"); err != nil {
			t.Fatal(err)
		}
	}
	if n := site.asked.Load(); n != 1 {
		t.Errorf("asked %d times within the hour", n)
	}
	c.add(time.Hour)
	if err := key(t, s, row, "one"); err != nil {
		t.Errorf("through an outage: %v", err)
	}
	s.flights.Wait() // the one that was started beside
	c.add(24 * time.Hour)
	if err := key(t, s, row, "one"); !errors.Is(err, jwks.ErrUnavailable) {
		t.Errorf("after a day without: %v", err)
	}
	site.set(map[string]any{"issuer": site.URL, "jwks_uri": site.URL + "/new-keys"})
	site.mu.Lock()
	site.keys = set(t, "two")
	site.mu.Unlock()
	if err := key(t, s, row, "two"); !errors.Is(err, jwks.ErrUnavailable) {
		t.Errorf("asked again at once: %v", err)
	}
	c.add(minRefetch)
	if err := settle("two"); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// The issuer moved its keys elsewhere, and this broker had nothing to do for a
// while: the first caller is told, not the second.
func TestDiscoveryDoesNotServeAnOldDocumentBeyondGrace(t *testing.T) {
	for _, c := range []struct {
		name    string
		after   time.Duration // of the last fetch
		refused bool
	}{
		{"fresh", rediscover - 1, false},
		{"within grace", rediscover + jwks.Grace - 1, false},
		{"beyond grace", rediscover + jwks.Grace, true},
		{"hours later", 5 * time.Hour, true},
		{"the clock went back", -time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := newSite(t)
			s, clk := newSources(t)
			row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
			if err := key(t, s, row, "one"); err != nil {
				t.Fatal(err)
			}
			site.set(map[string]any{"issuer": site.URL, "jwks_uri": site.URL + "/moved"})
			clk.add(c.after)
			if err := key(t, s, row, "one"); (err != nil) != c.refused {
				t.Errorf("a key at the old place: %v", err)
			}
		})
	}
}

// A document that hangs costs one caller the wait, and the next nothing until
// the failure is old.
func TestDiscoveryWaitsForAFailingDocumentOnce(t *testing.T) {
	site := newSite(t)
	s, c := newSources(t)
	row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
	if err := key(t, s, row, "one"); err != nil {
		t.Fatal(err)
	}
	source, err := s.For(row)
	if err != nil {
		t.Fatal(err)
	}
	brisk, cancel := context.WithCancel(t.Context())
	cancel() // such a caller is served only where nobody waits
	site.set(nil)
	c.add(2 * time.Hour)
	if err := key(t, s, row, "one"); err != nil { // and so are its keys, which were due too
		t.Fatal(err)
	}
	for range 4 {
		c.add(minRefetch)
		if _, err := source.Key(brisk, "one"); err != nil {
			t.Errorf("it waited: %v", err)
		}
		s.flights.Wait()
	}
	if n := site.asked.Load(); n != 6 {
		t.Errorf("asked %d times", n)
	}
	c.add(jwks.Grace)
	if _, err := source.Key(brisk, "one"); !errors.Is(err, jwks.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("served on an old failure: %v", err)
	}
}

// What was tried later than now was tried before the clock was set back: the
// floor between two fetches holds nobody up until it has caught up.
func TestDiscoveryIsTriedAgainWhenTheClockWentBack(t *testing.T) {
	site := newSite(t)
	s, c := newSources(t)
	row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
	document := site.document
	site.set(nil)
	if err := key(t, s, row, "one"); !errors.Is(err, jwks.ErrUnavailable) {
		t.Fatal(err)
	}
	site.set(document)
	c.add(-time.Hour)
	if err := key(t, s, row, "one"); err != nil {
		t.Errorf("held up by a time to come: %v", err)
	}
}

// The monotonic clock stands still while a machine sleeps; documents age then
// too, so that it is not kept.
func TestDiscoveryGoesByTheWallClock(t *testing.T) {
	site := newSite(t)
	s := NewSources(Config{AllowLoopbackHTTP: true, Now: time.Now})
	t.Cleanup(s.Close)
	row := &registry.TrustedIssuer{ID: "x", Issuer: site.URL, Discovery: true, Version: 1}
	if err := key(t, s, row, "one"); err != nil {
		t.Fatal(err)
	}
	source, err := s.For(row)
	if err != nil {
		t.Fatal(err)
	}
	d, ok := source.(*discovered)
	if !ok {
		t.Fatalf("the source is a %T", source)
	}
	for name, at := range map[string]time.Time{"fetched": d.fetched, "tried": d.tried} {
		if at.IsZero() || at != at.Round(0) {
			t.Errorf("%s is %s", name, at)
		}
	}
}
