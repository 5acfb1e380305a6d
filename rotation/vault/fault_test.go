package vault_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// kinds is what a caller can tell from an error.
type kinds struct{ unavailable, uncertain, sealed, standby, limited, forbidden, refused bool }

func kindsOf(err error) kinds {
	return kinds{
		errors.Is(err, vault.ErrUnavailable), errors.Is(err, vault.ErrUncertain), errors.Is(err, vault.ErrSealed), errors.Is(err, vault.ErrStandby),
		errors.Is(err, vault.ErrRateLimited), errors.Is(err, vault.ErrForbidden), errors.Is(err, vault.ErrRefused),
	}
}

func TestWhatIsLeftOpenIsUncertain(t *testing.T) {
	t.Parallel()
	s := shared(t)
	lost := kinds{unavailable: true, uncertain: true}
	for name, c := range map[string]struct {
		fault       devvault.Fault
		write, read kinds
	}{
		"500":                         {devvault.Fault{Status: 500, Body: `{"errors":["internal error"]}`}, lost, kinds{unavailable: true}},
		"500 after it took effect":    {devvault.Fault{Status: 500, Effect: true}, lost, kinds{unavailable: true}},
		"502 of a proxy":              {devvault.Fault{Status: 502, Body: "<html>bad gateway</html>"}, lost, kinds{unavailable: true}},
		"503 of a proxy":              {devvault.Fault{Status: 503, Body: "no backend"}, lost, kinds{unavailable: true}},
		"504 of a proxy":              {devvault.Fault{Status: 504}, lost, kinds{unavailable: true}},
		"cut":                         {devvault.Fault{Cut: true}, lost, kinds{unavailable: true}},
		"cut after it took effect":    {devvault.Fault{Cut: true, Effect: true}, lost, kinds{unavailable: true}},
		"slow":                        {devvault.Fault{Delay: time.Hour}, lost, kinds{unavailable: true}},
		"slow after it took effect":   {devvault.Fault{Delay: time.Hour, Effect: true}, lost, kinds{unavailable: true}},
		"an answer that is no JSON":   {devvault.Fault{Status: 200, Body: "<html>", Effect: true}, lost, kinds{}},
		"sealed":                      {devvault.Fault{Status: 503, Body: `{"errors":["Vault is sealed"]}`}, kinds{unavailable: true, sealed: true}, kinds{unavailable: true, sealed: true}},
		"a standby that sends on":     {devvault.Fault{Status: 307, Header: http.Header{"Location": {"https://192.0.2.1:8200/v1/kv"}}}, kinds{unavailable: true, standby: true}, kinds{unavailable: true, standby: true}},
		"a standby without an active": {devvault.Fault{Status: 500, Body: `{"errors":["local node not active but active cluster node not found"]}`}, kinds{unavailable: true, standby: true}, kinds{unavailable: true, standby: true}},
		"429":                         {devvault.Fault{Status: 429, Body: `{"errors":["rate limit quota exceeded"]}`}, kinds{unavailable: true, limited: true}, kinds{unavailable: true, limited: true}},
		"412, a node that lags":       {devvault.Fault{Status: 412}, kinds{unavailable: true}, kinds{unavailable: true}},
		"403":                         {devvault.Fault{Status: 403, Body: `{"errors":["permission denied"]}`}, kinds{forbidden: true}, kinds{forbidden: true}},
		"400":                         {devvault.Fault{Status: 400, Body: `{"errors":["no"]}`}, kinds{refused: true}, kinds{refused: true}},
		"413":                         {devvault.Fault{Status: 413}, kinds{refused: true}, kinds{refused: true}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := devvault.ProxyForTest(t, s)
			client := loggedIn(t, vault.Config{Address: proxy.URL(), Timeout: time.Minute, Login: vault.Token{Secret: secret(s.RootToken())}})
			kv := client.KV("kv")
			path := "fault/" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "")
			proxy.Break(c.fault)
			before := proxy.Calls(nil)
			_, err := kv.Put(patient(t, proxy, c.fault), path, map[string]any{"a": "b"}, 0)
			if got := kindsOf(err); err == nil || got != c.write {
				t.Errorf("a write: %+v, %v", got, err)
			}
			if n := proxy.Calls(nil) - before; n != 1 {
				t.Errorf("a write was sent %d times", n)
			}
			before = proxy.Calls(nil)
			_, err = kv.Get(patient(t, proxy, c.fault), path)
			if got := kindsOf(err); err == nil || got != c.read {
				t.Errorf("a read: %+v, %v", got, err)
			}
			if n := proxy.Calls(nil) - before; n > 2 {
				t.Errorf("a read was sent %d times", n)
			}
		})
	}
}

// patient is a context that ends, for a fault without an end, when the proxy
// has the request.
func patient(t *testing.T, proxy *devvault.Proxy, f devvault.Fault) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	if f.Delay == 0 {
		return ctx
	}
	before, ended := proxy.Calls(nil), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
			if proxy.Calls(nil) > before {
				cancel()
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return ctx
}

func TestAReadThatBrokeIsRepeatedOnce(t *testing.T) {
	s := shared(t)
	for name, fault := range map[string]devvault.Fault{"cut": {Cut: true, Times: 1}, "a node that lags": {Status: 412, Times: 1}} {
		proxy := devvault.ProxyForTest(t, s)
		c := loggedIn(t, vault.Config{Address: proxy.URL(), Login: vault.Token{Secret: secret(s.RootToken())}})
		proxy.Break(fault)
		if _, err := c.KV("kv").Get(t.Context(), "never/there"); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatWasNeverSentIsCertain(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	s := shared(t)
	for name, c := range map[string]struct {
		config vault.Config
		ctx    func() context.Context
	}{
		"refused":          {config: vault.Config{Address: "http://" + closed.Addr().String()}},
		"plain to TLS":     {config: vault.Config{Address: "https" + strings.TrimPrefix(s.URL(), "http")}},
		"no such host":     {config: vault.Config{Address: "https://vault.invalid:8200"}},
		"already given up": {config: vault.Config{Address: s.URL()}, ctx: func() context.Context { ctx, cancel := context.WithCancel(t.Context()); cancel(); return ctx }},
	} {
		c.config.Login = vault.AppRole{RoleID: "r", SecretIDFile: write(t, "secret-id", "s")}
		client, err := vault.New(c.config)
		must(t, err)
		ctx := t.Context()
		if c.ctx != nil {
			ctx = c.ctx()
		}
		// A login is no write; what counts is the same for both.
		err = client.Login(ctx)
		if !errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrUncertain) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ctx != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAWriteThatWasNeverSentIsCertain(t *testing.T) {
	s := shared(t)
	proxy := devvault.ProxyForTest(t, s)
	c := loggedIn(t, vault.Config{Address: proxy.URL(), Login: vault.Token{Secret: secret(s.RootToken())}})
	proxy.Stop()
	var err error
	for range 5 { // the first may still be written to a connection that is closed already
		if _, err = c.KV("kv").Put(t.Context(), "never/sent", map[string]any{"a": "b"}, 0); !errors.Is(err, vault.ErrUncertain) {
			break
		}
	}
	if got := kindsOf(err); got != (kinds{unavailable: true}) {
		t.Errorf("%+v, %v", got, err)
	}
	if c.Status().UnreachableSince.IsZero() {
		t.Error("nothing listens, and Vault counts as up")
	}
}

func TestARateLimitOfVault(t *testing.T) {
	s := shared(t)
	must(t, s.Mount(t.Context(), "kv", "limited", map[string]string{"version": "2"}))
	root(t, s, http.MethodPost, "sys/quotas/rate-limit/limited", map[string]any{"path": "limited/", "rate": 1, "interval": "60s"})
	root(t, s, http.MethodPost, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true}) // for Retry-After
	c := asRoot(t, s)
	var err error
	for range 5 {
		if _, err = c.KV("limited").Put(t.Context(), "x", map[string]any{"a": "b"}, vault.NoCAS); err != nil {
			break
		}
	}
	var failed *vault.Error
	if !errors.As(err, &failed) || !errors.Is(err, vault.ErrRateLimited) || errors.Is(err, vault.ErrUncertain) || failed.RetryAfter <= 0 || failed.RetryAfter > time.Minute {
		t.Fatalf("%v", err)
	}
	if status := c.Status(); !status.UnreachableSince.IsZero() {
		t.Error("one quota that is used up closes everything")
	}
	if _, err := c.KV("kv").List(t.Context(), ""); err != nil {
		t.Errorf("another path: %v", err)
	}
}

func TestAPolicyThatShrank(t *testing.T) {
	s := shared(t)
	name := policy(t, s, `path "kv/data/*" { capabilities = ["create", "update", "read"] }`)
	c := tokenWith(t, s, name)
	_, err := c.KV("kv").Put(t.Context(), "shrank", map[string]any{"a": "b"}, vault.NoCAS)
	must(t, err)
	root(t, s, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": `path "kv/data/*" { capabilities = ["read"] }`})
	if _, err := c.KV("kv").Put(t.Context(), "shrank", map[string]any{"a": "b"}, vault.NoCAS); !errors.Is(err, vault.ErrForbidden) || errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := c.KV("kv").Get(t.Context(), "shrank"); err != nil {
		t.Errorf("%v", err)
	}
	if status := c.Status(); !status.LoggedIn || !status.UnreachableSince.IsZero() {
		t.Errorf("%+v", status)
	}
}

func TestATokenThatEnded(t *testing.T) {
	s := shared(t)
	token := newToken(t, s, map[string]any{"ttl": "1h"})
	c := loggedIn(t, vault.Config{Address: s.URL(), Login: vault.Token{Secret: secret(token)}})
	root(t, s, http.MethodPut, "auth/token/revoke", map[string]any{"token": token})
	for range 2 { // the second isn't sent
		_, err := c.KV("kv").Put(t.Context(), "ended", map[string]any{"a": "b"}, vault.NoCAS)
		if !errors.Is(err, vault.ErrLoggedOut) || !errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrForbidden) || errors.Is(err, vault.ErrUncertain) {
			t.Errorf("%v", err)
		}
	}
	if c.Status().LoggedIn {
		t.Error("a dead token counts as a login")
	}
}

// away is what happens to a Vault, and how it comes back.
type away struct {
	leave  func(*testing.T, *devvault.Server)
	back   func(*testing.T, *devvault.Server)
	sealed bool
	within time.Duration // what takes longer has failed
}

var aways = map[string]away{
	"killed": {func(_ *testing.T, s *devvault.Server) { s.Kill() }, func(t *testing.T, s *devvault.Server) { must(t, s.Restart(t.Context())) }, false, patience},
	"sealed": {func(t *testing.T, s *devvault.Server) { must(t, s.Seal(t.Context())) }, func(t *testing.T, s *devvault.Server) { must(t, s.Unseal(t.Context())) }, true, patience},
	"frozen": {func(t *testing.T, s *devvault.Server) { must(t, s.Freeze()) }, func(t *testing.T, s *devvault.Server) { must(t, s.Thaw()) }, false, time.Second},
}

func TestCallsToAVaultThatIsAwayAreBounded(t *testing.T) {
	t.Parallel()
	for name, away := range aways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := devvault.ForTest(t, devvault.Options{})
			must(t, s.Mount(t.Context(), "kv", "kv", map[string]string{"version": "2"}))
			c, proxy, _ := throughProxyWithin(t, s, "approle", map[string]any{"token_ttl": "1h"}, away.within, time.Now)
			kv := c.KV("kv")
			eventually(t, "it serves", func() bool {
				_, err := kv.Put(t.Context(), "before", map[string]any{"a": "b"}, vault.NoCAS)
				return err == nil
			})

			away.leave(t, s)
			eventually(t, "it is noticed", func() bool {
				_, err := kv.Get(t.Context(), "before")
				return err != nil && !c.Status().UnreachableSince.IsZero()
			})
			start, before := time.Now(), proxy.Calls(nil)
			asked := askAll(t, kv, away, func() bool { return proxy.Calls(nil)-before >= 7 })
			took, sent := time.Since(start), proxy.Calls(nil)-before
			// Each but the first has waited for at least the floor of 300 ms.
			if most := 2 + int(took/(300*time.Millisecond)); sent > most {
				t.Errorf("%d calls were sent in %s, at most %d are", sent, took, most)
			}
			if others := proxy.Calls(func(_, path string) bool { return path != "sys/health" }) - countBefore(proxy, before); others > 0 {
				t.Errorf("%d were no probes", others)
			}
			t.Logf("%d calls were made, %d sent in %s: %.0f a minute", asked, sent, took.Round(time.Millisecond), float64(sent)/took.Minutes())

			away.back(t, s)
			back := time.Now()
			eventually(t, "a call succeeds", func() bool {
				_, err := kv.Get(t.Context(), "before")
				return err == nil
			})
			t.Logf("served again %s after Vault was back", time.Since(back).Round(time.Millisecond))
			if status := c.Status(); !status.UnreachableSince.IsZero() || status.LastError != nil || !status.LoggedIn {
				t.Errorf("%+v", status)
			}
		})
	}
}

// countBefore is how many calls that were no probes had come before.
func countBefore(p *devvault.Proxy, before int) int {
	n := 0
	p.Calls(func(_, path string) bool {
		if before > 0 {
			before--
			if path != "sys/health" {
				n++
			}
		}
		return false
	})
	return n
}

// askAll has many callers at once, until something holds, and counts them.
func askAll(t *testing.T, kv *vault.KV, away away, until func() bool) int64 {
	t.Helper()
	var (
		asked   atomic.Int64
		callers sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(t.Context())
	for range 16 {
		callers.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				_, err := kv.Put(ctx, "during", map[string]any{"a": "b"}, vault.NoCAS)
				asked.Add(1)
				if got := kindsOf(err); !got.unavailable || got.uncertain || got.sealed != away.sealed {
					t.Errorf("%+v, %v", got, err)
					return
				}
				<-tick.C
			}
		})
	}
	eventually(t, "asked often enough", until)
	cancel()
	callers.Wait()
	return asked.Load()
}

// A Vault that lost its storage, or was rolled back, doesn't know the token.
func TestAVaultThatForgotTheToken(t *testing.T) {
	t.Parallel()
	s := devvault.ForTest(t, devvault.Options{})
	must(t, s.Mount(t.Context(), "kv", "kv", map[string]string{"version": "2"}))
	enable(t, s, "approle", "approle")
	appRole(t, s, "approle", "broker", nil)
	copied, err := s.CopyStorage()
	must(t, err)
	id := appRole(t, s, "approle", "broker", map[string]any{"token_policies": "root-like"})
	root(t, s, http.MethodPut, "sys/policies/acl/root-like", map[string]any{"policy": `path "kv/*" { capabilities = ["create", "update", "read"] }`})
	secretFile := write(t, "secret-id", secretID(t, s, "approle", "broker"))
	c, err := vault.New(vault.Config{Address: s.URL(), CAFile: s.CACert(), Login: vault.AppRole{RoleID: id, SecretIDFile: secretFile}})
	must(t, err)
	run(t, c)
	eventually(t, "logged in", func() bool { return c.Status().LoggedIn })
	must(t, s.RollBack(t.Context(), copied))
	eventually(t, "the login is gone, since the secret id is", func() bool {
		status := c.Status()
		_, err := c.KV("kv").Get(t.Context(), "x") // who calls finds out
		return errors.Is(err, vault.ErrLoggedOut) && !status.LoggedIn && status.UnreachableSince.IsZero() && errors.Is(status.LastError, vault.ErrRefused)
	})
	write(t, secretFile, secretID(t, s, "approle", "broker"))
	eventually(t, "logged in again", func() bool { return c.Status().LoggedIn })
}

func TestHealthTellsSealedFromDown(t *testing.T) {
	t.Parallel()
	s := devvault.ForTest(t, devvault.Options{})
	c := asRoot(t, s)
	h, err := c.Health(t.Context())
	if err != nil || !h.Serving() || h.Version == "" {
		t.Errorf("%+v, %v", h, err)
	}
	must(t, s.Seal(t.Context()))
	if h, err = c.Health(t.Context()); err != nil || !h.Initialized || !h.Sealed || h.Serving() {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := c.KV("kv").Get(t.Context(), "x"); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("%v", err)
	}
	s.Kill()
	if _, err = c.Health(t.Context()); !errors.Is(err, vault.ErrUnavailable) || errors.Is(err, vault.ErrSealed) {
		t.Errorf("%v", err)
	}
}
