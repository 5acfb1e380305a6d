package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// pathBound is a service that leaves the tenant in the path to the proxy, as
// one that is behind nginx may, and says which request it got.
func pathBound(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.RequestURI)
		for _, name := range []string{"X-Tenant-Id", "X-Original-Url", "X-Original-Uri", "X-Rewrite-Url", "X-Forwarded-Uri", "X-Forwarded-Prefix", "X-Http-Method-Override"} {
			if said := r.Header.Get(name); said != "" {
				w.Header().Add("X-Unchecked", name+": "+said)
			}
		}
		w.Header().Set("X-Told", strings.Join(slices.Concat(r.Header["X-Tenant"], r.Header["X_tenant"]), ","))
	}))
	t.Cleanup(s.Close)
	return s
}

// readings are the tenants that one service or another would find in a path:
// as it is written, cleaned, unescaped once or twice, with the separators of
// other systems, without parameters.
func readings(uri string) map[string]string {
	raw, _, _ := strings.Cut(uri, "?")
	found := make(map[string]string)
	for range 3 {
		for name, p := range map[string]string{
			"as written": raw, "cleaned": path.Clean(raw), "backslashes": path.Clean(strings.ReplaceAll(raw, `\`, "/")), "long spellings": path.Clean(longer.Replace(raw)), "cut": strings.Split(raw+"#", "#")[0],
		} {
			segments := strings.Split(p, "/")
			for i := range segments {
				segments[i], _, _ = strings.Cut(segments[i], ";")
			}
			for _, s := range [][]string{segments, slices.DeleteFunc(slices.Clone(segments), func(s string) bool { return s == "" })} {
				if at := slices.Index(s, "t"); at >= 0 && at+1 < len(s) {
					found[s[at+1]] = name
				}
			}
		}
		next, err := url.PathUnescape(raw)
		if err != nil {
			break
		}
		raw = next
	}
	return found
}

// longer are longer spellings of a dot and a slash, which lax decoders of UTF-8
// take, and a space at the end of a segment, which some file systems drop.
var longer = strings.NewReplacer("\xc0\xae", ".", "\xe0\x80\xae", ".", "\xc0\xaf", "/", " /", "/", "%20/", "/")

// exchange writes bytes on one connection and reads n answers.
func exchange(ctx context.Context, address, request string, n int) (answers []*http.Response, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(conn)
	for range n {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return answers, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return answers, err
		}
		_ = resp.Body.Close()
		answers = append(answers, resp)
	}
	return answers, nil
}

// targets are paths that a proxy and a service could read apart, of a client
// that has a good token of t00.
var targets = []string{
	"/t/t00/orders", "/t/t00/", "/t/t00/a%20b?x=/t/t01/../..", "/t/t00/a.b/c..d/...", "/t/t00/orders?tenant=t01&tenant=t00",
	"/t/t01/orders", "/t/t01/../t00/orders", "/t/t01/x/../../t00/orders", "/t/t01/%2e%2e/t00/orders", "/t/t01/.%2E/t00/orders", "/t/t01/./../t00/orders",
	"/t/t01/..%2ft00/orders", "/t/t01%2f../t00/orders", "/t/t01/%252e%252e/t00/orders", "/t/t00/..%2ft01/orders", "/t/t00%2f..%2ft01/orders",
	"/t/t00/..%5ct01/orders", `/t/t00/..\t01/orders`, "/t/t00/..;/t01/orders", "/t/t00/..;x=y/../t01/", "/t/t00/%2e%2e;/t01/", "/t/t00/../t01/orders",
	"/t/t00/%252e%252e/t01/orders", "/t/t00/%25%32%65%25%32%65/t01/", "//t/t00/orders", "/t//t00/orders", "/t/t01//../t00/orders", "/t/t00//t01/orders", "/./t/t00/orders",
	"/x/../t/t00/orders", "/t/t01/..//t00/", "/t/%740%30/orders", "/t/t00/a%00b", "/t/t00%00/x", "/t/t00%0a/x", "/t/t00#/../t01/x", "/t/t00/x#y", "/t/t00;t01/x",
	"/t/t00,t01/x", "/T/t00/x", "/t/T00/x", "/t/t00", "/t/", "/t", "/", "*", "http://other.example/t/t00/orders", "http://other.example/t/t01/../t00/orders",
	"/_check", "/_check?audience=orders", "/t/t00/%ff", "/t/t00/\xff", "/t/t00/%c0%ae%c0%ae/t01/x", "/t/t00/%C0%AF..%C0%AFt01", "/t/t00/\xc0\xae\xc0\xae/t01/x", "/t/t00/%e0%80%ae%e0%80%ae/t01/x", "/t/t00/..%20/t01/x", "/t/t00/.%20/x",
	"/t/t00/%c3%a9", "/t/t00/x?\xff", "/t/t00/%zz", "/t/t00/x?%zz&%00",
}

// unread sends all of them through a proxy: they reach t00, or nothing.
func unread(t *testing.T, address, token string) {
	t.Helper()
	passed := 0
	for _, target := range targets {
		for _, version := range []string{"1.1", "1.0"} {
			answers, err := exchange(t.Context(), address, fmt.Sprintf("GET %s HTTP/%s\r\nHost: orders\r\nAuthorization: Bearer %s\r\n\r\n", target, version, token), 1)
			if err != nil || answers[0].StatusCode != http.StatusOK {
				continue // refused, with or without an answer
			}
			passed++
			got := answers[0].Header
			if told := got.Get("X-Told"); told != "t00" {
				t.Errorf("%s: the service was told %q", target, told)
			}
			for tenant, how := range readings(got.Get("X-Got")) {
				if tenant != "t00" {
					t.Errorf("%s: the service got %s, where one finds tenant %q (%s)", target, got.Get("X-Got"), tenant, how)
				}
			}
		}
	}
	if passed < 10 {
		t.Errorf("%d passed: nothing was seen", passed)
	}
}

func TestCrossTenant_PathsThroughNginx(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	unread(t, strings.TrimPrefix(startGuarding(t, w, pathBound(t).URL, nil), "http://"), tokens["t00"])
}

func TestCrossTenant_PathsThroughTraefik(t *testing.T) {
	w, tokens := newCheckWorld(t, 2)
	unread(t, startTraefik(t, w, pathBound(t).URL, nil), tokens["t00"])
}
