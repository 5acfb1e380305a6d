package outbound

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestFilter(t *testing.T) {
	inside, err := NewFilter([]string{"10.1.0.0/16", "fd00:1::/32"}, false)
	if err != nil {
		t.Fatal(err)
	}
	loopback, err := NewFilter(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr                 string
		plain, inside, local bool
	}{
		{"8.8.8.8", true, true, true}, {"2606:4700::1111", true, true, true}, {"::ffff:8.8.8.8", true, true, true},
		{"127.0.0.1", false, false, true}, {"127.255.255.254", false, false, true}, {"::1", false, false, true}, {"::ffff:127.0.0.1", false, false, true},
		{"10.1.2.3", false, true, false}, {"10.2.0.1", false, false, false}, {"::ffff:10.1.2.3", false, true, false}, {"fd00:1::5", false, true, false},
		{"0.0.0.0", false, false, false}, {"172.16.0.1", false, false, false}, {"172.31.255.255", false, false, false}, {"192.168.1.1", false, false, false},
		{"169.254.169.254", false, false, false}, {"::ffff:169.254.169.254", false, false, false}, {"100.64.0.1", false, false, false}, {"100.127.255.255", false, false, false},
		{"192.0.0.1", false, false, false}, {"192.0.2.1", false, false, false}, {"198.18.0.1", false, false, false}, {"224.0.0.1", false, false, false},
		{"255.255.255.255", false, false, false}, {"240.0.0.1", false, false, false},
		{"::", false, false, false}, {"::127.0.0.1", false, false, false}, {"64:ff9b::7f00:1", false, false, false}, {"64:ff9b::a9fe:a9fe", false, false, false},
		{"2002:7f00:1::", false, false, false}, {"2001::1", false, false, false}, {"2001:db8::1", false, false, false},
		{"fc00::1", false, false, false}, {"fe80::1", false, false, false}, {"fe80::1%eth0", false, false, false}, {"fec0::1", false, false, false}, {"ff02::1", false, false, false},
		{"fd00:ec2::254", false, false, false},
	} {
		a := netip.MustParseAddr(c.addr)
		for name, f := range map[string]struct {
			Filter
			want bool
		}{"plain": {Filter{}, c.plain}, "inside": {inside, c.inside}, "loopback": {loopback, c.local}} {
			if err := f.Check(a); (err == nil) != f.want || (err != nil && !errors.Is(err, ErrForbidden)) {
				t.Errorf("%s %s: %v", name, c.addr, err)
			}
		}
	}
	if err := (Filter{}).Check(netip.Addr{}); err == nil {
		t.Error("no address at all is allowed")
	}
	if err := (Filter{}).control("tcp", "somewhere", nil); !errors.Is(err, ErrForbidden) {
		t.Errorf("%v", err)
	}
	if _, err := NewFilter([]string{"10.0.0.0"}, false); err == nil {
		t.Error("an address is taken for a range")
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		u := a.Unmap()
		if (Filter{}).Check(a) == nil && (u.IsLoopback() || u.IsPrivate() || u.IsLinkLocalUnicast() || u.IsMulticast() || u.IsUnspecified()) {
			t.Errorf("%s is allowed", a)
		}
	})
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func bundle(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestClientReachesOnlyWhatItMay(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	secure, plain := httptest.NewTLSServer(answer), httptest.NewServer(answer)
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	local := strings.Replace(plain.URL, "127.0.0.1", "localhost", 1)
	for _, c := range []struct {
		name string
		o    Options
		url  string
		good bool
	}{
		{"https in an allowed range with its CA", Options{AllowedCIDRs: []string{"127.0.0.1/32"}, CABundle: bundle(secure)}, secure.URL, true},
		{"https in an allowed range without its CA", Options{AllowedCIDRs: []string{"127.0.0.1/32"}}, secure.URL, false},
		{"https outside the allowed range", Options{AllowedCIDRs: []string{"10.0.0.0/8"}, CABundle: bundle(secure)}, secure.URL, false},
		{"https on loopback in development", Options{AllowLoopbackHTTP: true, CABundle: bundle(secure)}, secure.URL, true},
		{"http on loopback in development", Options{AllowLoopbackHTTP: true}, plain.URL, true},
		{"http on localhost in development", Options{AllowLoopbackHTTP: true}, local, true},
		{"http on loopback in an allowed range", Options{AllowedCIDRs: []string{"127.0.0.0/8"}}, plain.URL, false},
		{"http elsewhere in development", Options{AllowLoopbackHTTP: true}, "http://192.0.2.1", false},
		{"a user in the URL", Options{AllowLoopbackHTTP: true}, strings.Replace(plain.URL, "//", "//u:p@", 1), false},
		{"no host", Options{AllowLoopbackHTTP: true}, "https:///x", false},
		{"a file", Options{AllowLoopbackHTTP: true}, "file:///etc/passwd", false},
		{"not a URL", Options{}, "://", false},
	} {
		body, err := client(t, c.o).Get(t.Context(), c.url)
		if (err == nil) != c.good || (c.good && string(body) != "{}") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := NewClient(Options{CABundle: "rubbish"}); err == nil {
		t.Error("a bundle without certificate is taken")
	}
	if _, err := NewClient(Options{AllowedCIDRs: []string{"x"}}); err == nil {
		t.Error("a range that is none is taken")
	}
}

func TestClientTakesNoProxyFromTheEnvironment(t *testing.T) {
	asked := false
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	c := client(t, Options{AllowLoopbackHTTP: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _ = c.Get(ctx, "https://192.0.2.1/")
	if transport, ok := c.http.Transport.(*http.Transport); asked || !ok || transport.Proxy != nil {
		t.Error("the proxy was asked")
	}
}

func TestRedirects(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	t.Cleanup(elsewhere.Close)
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	to := func(path, target string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, http.StatusFound) })
	}
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	to("/same", "/good")
	to("/other-host", elsewhere.URL)
	to("/other-scheme", strings.Replace(s.URL, "http", "https", 1)+"/good")
	to("/loop", "/loop")
	to("/user", strings.Replace(s.URL, "//", "//u@", 1)+"/good")
	c := client(t, Options{AllowLoopbackHTTP: true})
	for path, good := range map[string]bool{"/good": true, "/same": true, "/other-host": false, "/other-scheme": false, "/loop": false, "/user": false, "/missing": false} {
		if _, err := c.Get(t.Context(), s.URL+path); (err == nil) != good {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A redirect is no answer to what is sent to one URL, also on the same host.
func TestNoRedirects(t *testing.T) {
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	followed := false
	mux.HandleFunc("/good", func(http.ResponseWriter, *http.Request) { followed = true })
	mux.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
	})
	c := client(t, Options{AllowLoopbackHTTP: true, NoRedirects: true})
	if _, err := c.Get(t.Context(), s.URL+"/same"); err == nil || followed {
		t.Errorf("%v, followed %t", err, followed)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxBytes+1)) })
	mux.HandleFunc("/just", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxBytes)) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("short"))
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxHeader)) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c := client(t, Options{AllowLoopbackHTTP: true})
	for path, good := range map[string]bool{"/large": false, "/just": true, "/cut": false, "/header": false} {
		if _, err := c.Get(t.Context(), s.URL+path); (err == nil) != good {
			t.Errorf("%s: %v", path, err)
		}
	}
}

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
		for range 50 { // what is refetched beside a caller shows a moment later
			if err = key(t, s, row, kid); err == nil {
				return nil
			}
			time.Sleep(2 * time.Millisecond)
		}
		return err
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

// A small answer must not unpack to a large one: none is asked for packed.
func TestClientAsksForNoCompression(t *testing.T) {
	var asked atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Header.Get("Accept-Encoding"))
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		packed := gzip.NewWriter(w)
		_, _ = packed.Write(make([]byte, MaxBytes))
		_ = packed.Close()
	}))
	t.Cleanup(s.Close)
	body, err := client(t, Options{AllowLoopbackHTTP: true}).Get(t.Context(), s.URL)
	if err != nil || len(body) != 0 || asked.Load() != "" {
		t.Errorf("Accept-Encoding %q, %d bytes: %v", asked.Load(), len(body), err)
	}
}

func TestCheckURL(t *testing.T) {
	c := client(t, Options{})
	u, err := url.Parse("https:opaque")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckURL(u); !errors.Is(err, ErrForbidden) {
		t.Errorf("%v", err)
	}
}
