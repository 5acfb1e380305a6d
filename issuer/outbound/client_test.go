package outbound

import (
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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
