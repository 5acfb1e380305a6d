package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/child"
)

// The example is the part inside of http { }; this is what goes around it.
const nginxAround = `
daemon off;
master_process off;
pid %[1]s/nginx.pid;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  include %[1]s/example.conf;
}
`

// startGuarding runs deploy/examples/nginx.conf in front of a service; change
// edits it. It returns nginx's URL.
func startGuarding(t *testing.T, w *world, service string, change func(string) string) string {
	t.Helper()
	raw, err := os.ReadFile("../deploy/examples/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	port, err := child.TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	folder := t.TempDir()
	example := string(raw)
	_, example, _ = strings.Cut(example, "\nproxy_cache_path") // not the words at its top
	example = "proxy_cache_path" + example
	for old, now := range map[string]string{
		"127.0.0.1:9091": w.Internal().CheckAddress().String(), "127.0.0.1:8080": strings.TrimPrefix(service, "http://"),
		"127.0.0.1:8000": port.Address(), "/run/nginx/check": folder + "/check",
	} {
		if !strings.Contains(example, old) {
			t.Fatalf("the example doesn't name %s", old)
		}
		example = strings.ReplaceAll(example, old, now)
	}
	if change != nil {
		example = change(example)
	}
	config := filepath.Join(folder, "nginx.conf")
	for file, text := range map[string]string{config: fmt.Sprintf(nginxAround, folder), filepath.Join(folder, "example.conf"): example} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url := "http://" + port.Address()
	runNginx(t, folder, config, url+"/")
	return url
}

// legacy is a service that believes X-Tenant, and says what it was told.
func legacy(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told := slices.Concat(r.Header["X-Tenant"], r.Header["X_tenant"])
		_, _ = fmt.Fprintf(w, "%s|%s|%s|%s", strings.Join(told, ","), strings.Join(r.Header["X-Subject"], ","),
			strings.Join(r.Header["X-Scope"], ","), r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	return s
}

// reach is one request through the proxy: a token, the tenant in the path, and
// what a client forges beside.
type reach struct {
	own, path string
	query     string
	headers   [][2]string
}

// forgeries are what a client could try to pass for another tenant with.
func forgeries(tenant string) (queries []string, headers [][2]string) {
	return []string{"", "?tenant=" + tenant, "?audience=orders&tenant=" + tenant, "?x=%26tenant=" + tenant, "?tenant_at=/t/{tenant}"},
		[][2]string{
			{"X-Tenant", tenant}, {"x-tenant", tenant}, {"X_Tenant", tenant}, {"X-Subject", "root"}, {"X-Scope", "admin"},
			{"X-Forwarded-Uri", "/t/" + tenant + "/orders"}, {"X-Original-Uri", "/t/" + tenant + "/orders"}, {"X-Rewrite-Url", "/t/" + tenant + "/x"},
			{"Cache-Control", "no-cache"}, {"X-Accel-Redirect", "/_check"}, {"Connection", "close, Authorization"}, {"Vary", "*"}, {"If-None-Match", "*"},
			{"Cookie", "tenant=" + tenant}, {"Range", "bytes=0-0"}, {"Proxy-Authorization", "Bearer x"},
		}
}

// send sends it and says how it crossed, "" if it did not; kept is whether a
// good request was answered.
func (r reach) send(ctx context.Context, c *http.Client, url, token string) (crossed string, kept bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/t/"+r.path+"/orders"+r.query, nil)
	if err != nil {
		return "", false, err
	}
	for _, h := range r.headers {
		req.Header[h[0]] = append(req.Header[h[0]], h[1]) // in its own spelling
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", false, err
	}
	want := fmt.Sprintf("%s|worker-%s|%s|", r.own, r.own, read+" orders:write")
	// Some proxies have the client take a header of its own away.
	gone := resp.StatusCode == http.StatusUnauthorized && slices.Contains(r.headers, [2]string{"Connection", "close, Authorization"})
	switch {
	case resp.StatusCode == http.StatusOK && r.own != r.path:
		return fmt.Sprintf("the token of %s opened %s: %s", r.own, r.path, body), false, nil
	case resp.StatusCode == http.StatusOK && string(body) != want:
		return fmt.Sprintf("the service was told %q, want %q", body, want), false, nil
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden && !gone:
		return fmt.Sprintf("%s at %s: status %d", r.own, r.path, resp.StatusCode), false, nil
	}
	return "", resp.StatusCode == http.StatusOK, nil
}

// mixed sends requests mixed over tenants, over few connections that all tokens
// share, and returns the crossings.
func mixed(t *testing.T, url string, tokens map[string]string, requests int) (crossings []string, passed int64) {
	t.Helper()
	tenants := make([]string, 0, len(tokens))
	for tenant := range tokens {
		tenants = append(tenants, tenant)
	}
	slices.Sort(tenants)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 4, MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		next  atomic.Int64
		count atomic.Int64
	)
	for worker := range uint64(8) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(worker, 41))
			for next.Add(1) <= int64(requests) {
				r := reach{own: tenants[random.IntN(len(tenants))], path: tenants[random.IntN(len(tenants))]}
				if random.IntN(2) == 0 {
					r.path = r.own
				}
				queries, headers := forgeries(tenants[random.IntN(len(tenants))])
				r.query = queries[random.IntN(len(queries))]
				for _, i := range random.Perm(len(headers))[:random.IntN(4)] { // each once: nginx answers 400 to some that are doubled
					r.headers = append(r.headers, headers[i])
				}
				crossed, kept, err := r.send(t.Context(), client, url, tokens[r.own])
				if err != nil {
					crossed = err.Error()
				}
				if kept {
					count.Add(1)
				}
				if crossed != "" {
					mu.Lock()
					crossings = append(crossings, crossed)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return crossings, count.Load()
}

// Real nginx with the example's configuration: not one crossing in 5,000
// requests. The same requests find the crossings of a cache whose key lacks the
// token, and of one whose key lacks the question, so they would find one here.
func TestCrossTenant_ThroughNginx(t *testing.T) {
	w, tokens := newCheckWorld(t, 10)
	service := legacy(t)
	t.Run("the example", func(t *testing.T) {
		url := startGuarding(t, w, service.URL, nil)
		crossings, passed := mixed(t, url, tokens, 5000)
		if len(crossings) != 0 || passed < 2000 {
			t.Errorf("%d passed, %d crossings: %v", passed, len(crossings), crossings[:min(3, len(crossings))])
		}
	})
	const key, ignored = `"$http_authorization $check_question"`, `proxy_ignore_headers Cache-Control Expires`
	for name, other := range map[string]string{
		"a key without the token":    `"$check_question"`,
		"a key without the question": `"$http_authorization"`,
	} {
		t.Run(name, func(t *testing.T) {
			url := startGuarding(t, w, service.URL, func(s string) string {
				if !strings.Contains(s, key) || !strings.Contains(s, ignored) {
					t.Fatal("the example has another key")
				}
				s = strings.Replace(s, ignored, `proxy_ignore_headers Vary Cache-Control Expires`, 1)
				return strings.Replace(s, key, other, 1)
			})
			if crossings, _ := mixed(t, url, tokens, 500); len(crossings) == 0 {
				t.Error("nothing crossed: these requests see nothing")
			}
		})
	}
	// Forgetting the token alone is caught by the broker's Vary.
	t.Run("Vary holds a key without the token", func(t *testing.T) {
		url := startGuarding(t, w, service.URL, func(s string) string {
			return strings.Replace(s, key, `"$check_question"`, 1)
		})
		if crossings, _ := mixed(t, url, tokens, 500); len(crossings) != 0 {
			t.Errorf("%d crossings: %v", len(crossings), crossings[0])
		}
	})
}

// What nginx keeps is kept for seconds: a revoked token passes no longer than
// that, and one that was never kept not at all.
func TestNginxForgetsARevokedTokenInSeconds(t *testing.T) {
	w, tokens := newCheckWorld(t, 1)
	url := startGuarding(t, w, legacy(t).URL, nil)
	ask := func(token string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/t/t00/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if challenge := resp.Header.Get("Www-Authenticate"); (resp.StatusCode == 401) != (challenge != "") {
			t.Errorf("%d with the challenge %q", resp.StatusCode, challenge)
		}
		return resp.StatusCode
	}
	if a, b, c := ask(tokens["t00"]), ask(""), ask("x"); a != 200 || b != 401 || c != 401 {
		t.Fatalf("good %d, none %d, bad %d", a, b, c)
	}
	if _, err := w.Registry().DisableAccount(t.Context(), w.By(), credential.MustAccountID("worker-t00"), 0); err != nil {
		t.Fatal(err)
	}
	for ended, asked := time.Now(), time.Now(); ask(tokens["t00"]) == 200; asked = time.Now() {
		if asked.Sub(ended) > 10*time.Second { // not when it was answered
			t.Fatal("kept for longer than 5 seconds")
		}
		time.Sleep(100 * time.Millisecond)
	}
}
