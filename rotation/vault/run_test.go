package vault_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// patience is how long a test waits for what must happen, on a busy machine.
const patience = time.Minute

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// run runs a client until the test ends, or the function that it returns is called.
func run(t *testing.T, c *vault.Client) (stop func()) {
	t.Helper()
	return runWithin(t, c, patience)
}

// runWithin is run, with how long a probe and the farewell may take.
func runWithin(t *testing.T, c *vault.Client, probe time.Duration) (stop func()) {
	t.Helper()
	vault.WaitFor(c, probe)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// throughProxy runs a client that logs in by AppRole, behind a proxy that counts.
func throughProxy(t *testing.T, s *devvault.Server, mount string, role map[string]any) (*vault.Client, *devvault.Proxy, func()) {
	t.Helper()
	return throughProxyWithin(t, s, mount, role, patience, time.Now)
}

// throughProxyWithin is throughProxy, with how long a call or a probe may take,
// and with a clock.
func throughProxyWithin(t *testing.T, s *devvault.Server, mount string, role map[string]any, longest time.Duration, now func() time.Time) (*vault.Client, *devvault.Proxy, func()) {
	t.Helper()
	enable(t, s, "approle", mount)
	role["token_policies"] = policy(t, s, `
path "kv/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "database/creds/*" { capabilities = ["read"] }`)
	id := appRole(t, s, mount, "broker", role)
	proxy := devvault.ProxyForTest(t, s)
	c, err := vault.New(vault.Config{Address: proxy.URL(), Timeout: longest, Now: now, Login: vault.AppRole{
		Mount: mount, RoleID: id, SecretIDFile: write(t, "secret-id", secretID(t, s, mount, "broker")),
	}})
	must(t, err)
	stop := runWithin(t, c, longest)
	eventually(t, "logged in", func() bool { return c.Status().LoggedIn })
	return c, proxy, stop
}

func logins(mount string) func(method, path string) bool {
	return devvault.At("auth/" + mount + "/login")
}

func TestRunRenewsTheToken(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	c, proxy, _ := throughProxyWithin(t, shared(t), "run-renews", map[string]any{"token_period": "1h"}, patience, now)
	for range 3 {
		ends := c.Status().TokenExpiry
		passed.Add(int64(43 * time.Minute)) // it is renewed by then, and good for long enough
		proxy.Break(devvault.Fault{Match: devvault.At("kv/data/run/renews"), Times: 1, Cut: true})
		if _, err := c.KV("kv").Put(t.Context(), "run/renews", map[string]any{"a": "b"}, vault.NoCAS); err == nil {
			t.Error("nothing has Run look")
		}
		eventually(t, "renewed", func() bool { return c.Status().TokenExpiry.After(ends) })
	}
	if n := proxy.Calls(devvault.At("auth/token/renew-self")); n != 3 {
		t.Errorf("%d renewals", n)
	}
	if n := proxy.Calls(logins("run-renews")); n != 1 {
		t.Errorf("%d logins", n)
	}
	if _, err := c.KV("kv").Put(t.Context(), "run/renews", map[string]any{"a": "b"}, vault.NoCAS); err != nil {
		t.Error(err)
	}
}

func TestRunLogsInAgainBeforeTheTokenEnds(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]map[string]any{
		"run-max":   {"token_ttl": "2s", "token_max_ttl": "3s"},
		"run-batch": {"token_ttl": "2s", "token_max_ttl": "2s", "token_type": "batch"}, // can't be renewed
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, proxy, _ := throughProxy(t, shared(t), name, role)
			failed := 0
			eventually(t, "logged in three times", func() bool {
				if _, err := c.KV("kv").Put(t.Context(), "run/"+name, map[string]any{"a": "b"}, vault.NoCAS); err != nil {
					failed++
					t.Logf("%v", err)
				}
				return proxy.Calls(logins(name)) >= 3
			})
			if failed > 0 {
				t.Errorf("%d calls failed", failed)
			}
		})
	}
}

func TestARevokedTokenIsReplacedOnceForAll(t *testing.T) {
	s := shared(t)
	c, proxy, _ := throughProxy(t, s, "run-revoked", map[string]any{"token_ttl": "1h"})
	revokeAll(t, s, "run-revoked")
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			_, err := c.KV("kv").Put(t.Context(), "run/revoked", map[string]any{"a": "b"}, vault.NoCAS)
			if err != nil && !errors.Is(err, vault.ErrLoggedOut) {
				t.Errorf("%v", err)
			}
			if errors.Is(err, vault.ErrForbidden) || errors.Is(err, vault.ErrUncertain) {
				t.Errorf("a dead token is not a policy, and nothing was done: %v", err)
			}
		})
	}
	callers.Wait()
	eventually(t, "a call succeeds", func() bool {
		_, err := c.KV("kv").Put(t.Context(), "run/revoked", map[string]any{"a": "b"}, vault.NoCAS)
		return err == nil
	})
	if n := proxy.Calls(logins("run-revoked")); n != 2 {
		t.Errorf("%d logins", n)
	}
}

// revokeAll ends all tokens that an auth method has given out.
func revokeAll(t *testing.T, s *devvault.Server, mount string) {
	t.Helper()
	root(t, s, http.MethodPut, "sys/leases/revoke-prefix/auth/"+mount, map[string]any{"sync": true})
}

func TestRunRevokesItsTokenAtTheEnd(t *testing.T) {
	s := shared(t)
	c, proxy, stop := throughProxy(t, s, "run-ends", map[string]any{"token_ttl": "1h"})
	stop()
	if n := proxy.Calls(devvault.At("auth/token/revoke-self")); n != 1 {
		t.Errorf("%d revocations", n)
	}
	if tokens := tokensOf(t, s, "run-ends"); tokens != 0 {
		t.Errorf("%d tokens live", tokens)
	}
	if err := c.Delete(t.Context(), "kv/metadata/x"); !errors.Is(err, vault.ErrLoggedOut) {
		t.Errorf("a call after the end: %v", err)
	}
}

// Vault ends the leases of a token with the token: tenants at work would lose
// their database users when the broker restarts.
func TestRunLeavesATokenThatHasLeases(t *testing.T) {
	s := shared(t)
	pg := withPostgres(t, s)
	must(t, asRoot(t, s).Database("database").PutRole(t.Context(), "outlives", vault.Role{
		Database: "pg", CreationStatements: []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`}, DefaultTTL: time.Minute, MaxTTL: time.Minute,
	}))
	c, _, stop := throughProxy(t, s, "run-leases", map[string]any{"token_ttl": "1h"})
	cred, err := c.Database("database").Credentials(t.Context(), "outlives")
	must(t, err)
	stop()
	if tokens := tokensOf(t, s, "run-leases"); tokens != 1 {
		t.Errorf("%d tokens live", tokens)
	}
	if !mayLogin(t, pg, cred.Username, cred.Password) {
		t.Error("the lease ended with the broker")
	}
	must(t, asRoot(t, s).Leases().Revoke(t.Context(), cred.LeaseID))
}

// tokensOf counts the live tokens of an auth method.
func tokensOf(t *testing.T, s *devvault.Server, mount string) (n int) {
	t.Helper()
	ids, err := asRoot(t, s).List(t.Context(), "auth/token/accessors")
	must(t, err)
	for _, accessor := range ids {
		got, err := s.Do(t.Context(), http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		if err != nil {
			continue // it has just expired
		}
		data, _ := got["data"].(map[string]any)
		if path, _ := data["path"].(string); strings.HasPrefix(path, "auth/"+mount+"/") {
			n++
		}
	}
	return n
}

func TestALoginThatIsRefusedIsTriedSeldom(t *testing.T) {
	t.Parallel()
	s := shared(t)
	enable(t, s, "approle", "run-refused")
	id := appRole(t, s, "run-refused", "broker", nil)
	proxy := devvault.ProxyForTest(t, s)
	file := write(t, "secret-id", "wrong")
	c, err := vault.New(vault.Config{Address: proxy.URL(), Login: vault.AppRole{Mount: "run-refused", RoleID: id, SecretIDFile: file}})
	must(t, err)
	start := time.Now()
	run(t, c)
	eventually(t, "tried three times", func() bool {
		if _, err := c.KV("kv").Get(t.Context(), "x"); !errors.Is(err, vault.ErrLoggedOut) || errors.Is(err, vault.ErrRefused) {
			t.Fatalf("%v", err)
		}
		return proxy.Calls(logins("run-refused")) >= 3
	})
	if took := time.Since(start); took < 2*time.Second { // the floor of each wait
		t.Errorf("three logins in %s", took)
	}
	if n := proxy.Calls(func(_, path string) bool { return strings.HasPrefix(path, "kv/") }); n != 0 {
		t.Errorf("%d calls without a token", n)
	}
	write(t, file, secretID(t, s, "run-refused", "broker"))
	eventually(t, "logged in", func() bool { return c.Status().LoggedIn })
}
