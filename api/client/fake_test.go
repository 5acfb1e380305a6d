package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

var (
	acme    = credential.MustTenant("acme")
	globex  = credential.MustTenant("globex")
	billing = credential.MustAudience("https://billing.example")
	orders  = credential.MustAudience("orders")
	worker  = credential.MustAccountID("worker")
	epoch   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// clock is a clock that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(epoch.UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.ns.Add(int64(d)) }

// faultyBroker plays a token endpoint that can be told to misbehave in ways a
// real broker does not. It answers truthfully unless told otherwise.
type faultyBroker struct {
	*httptest.Server
	issuer credential.IssuerURL
	clock  *clock

	mu       sync.Mutex
	requests []recorded
	hook     func(http.ResponseWriter, *http.Request) bool // true: it has answered
	mutate   func(claims map[string]any, answer map[string]any)
	typ      string
	serial   int
}

type recorded struct {
	path   string
	form   url.Values
	header http.Header
}

func newFaultyBroker(t testing.TB, clk *clock) *faultyBroker {
	t.Helper()
	f := &faultyBroker{clock: clk, typ: "at+jwt"}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	f.issuer = credential.MustIssuerURL(f.URL)
	return f
}

func (f *faultyBroker) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faultyBroker) seen() []recorded {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]recorded(nil), f.requests...)
}

func (f *faultyBroker) serve(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	f.requests = append(f.requests, recorded{r.URL.Path, r.PostForm, r.Header.Clone()})
	hook := f.hook
	f.mu.Unlock()
	w.Header().Set("X-Request-Id", "req-1")
	if hook != nil && hook(w, r) {
		return
	}
	f.issue(w, r)
}

func (f *faultyBroker) issue(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serial++
	now := f.clock.Now()
	scope := r.PostForm.Get("scope")
	if scope == "" {
		scope = "all"
	}
	claims := map[string]any{
		"iss": f.issuer.String(), "sub": worker.String(), "client_id": worker.String(),
		"aud": r.PostForm.Get("audience"), "tenant": r.PostForm.Get("tenant"), "scope": scope,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": credential.NewID(), "txn": credential.NewID(),
	}
	answer := map[string]any{"token_type": "Bearer", "expires_in": 300, "scope": scope}
	if f.mutate != nil {
		f.mutate(claims, answer)
	}
	if _, set := answer["access_token"]; !set {
		answer["access_token"] = unsigned(f.typ, claims)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// unsigned makes a token whose signature is noise: the client never checks it.
func unsigned(typ string, claims map[string]any) string {
	header, _ := json.Marshal(map[string]string{"alg": "ES256", "kid": "k", "typ": typ})
	payload, _ := json.Marshal(claims)
	e := base64.RawURLEncoding.EncodeToString
	return e(header) + "." + e(payload) + "." + e([]byte("noise"))
}

func refusal(status int, code string, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "because"})
		return true
	}
}

// newTestClient returns a client that doesn't really sleep and has no jitter.
func newTestClient(t testing.TB, f *faultyBroker, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Issuer: f.issuer,
		Auth:   ClientSecret{Account: worker, Secret: credential.NewSecret([]byte("s3cret"))},
		Now:    f.clock.Now,
	}
	for _, c := range change {
		c(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.jitter = func() float64 { return 0 }
	c.sleep = func(ctx context.Context, d time.Duration) error {
		f.clock.Advance(d)
		return ctx.Err()
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
