package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// ask sends a request to the admin API as the bearer of token.
func (w *world) ask(token, method, path, body string) (status int, answer string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.URL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// do is ask for what must succeed.
func (w *world) do(token, method, path, body string) string {
	w.t.Helper()
	status, answer := w.ask(token, method, path, body)
	if status/100 != 2 {
		w.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// newKey makes a key for an account made here, not registered yet.
func (w *world) newKey(account string) (client.PrivateKeyJWT, string) {
	w.t.Helper()
	private, public, err := broker.NewAccountKey()
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.t.TempDir(), "key.pem")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		w.t.Fatal(err)
	}
	key, err := client.LoadKey(file, credential.MustAccountID(account))
	if err != nil {
		w.t.Fatal(err)
	}
	return key, string(public.JWK())
}

// signedWith is a good token request of an account with another key of its.
func (w *world) signedWith(key client.PrivateKeyJWT, account, tenant string) url.Values {
	w.t.Helper()
	form, now := w.form(account, tenant), time.Now()
	form.Set("client_assertion", sign(w.t, key.Key, key.KeyID, map[string]any{
		"iss": account, "sub": account, "aud": w.URL(), "jti": credential.NewID(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}))
	return form
}

// I9: after the drill of an incident (disable, take the stolen key away, add a
// new one, enable) nothing that the thief has is alive, however busy the account
// was meanwhile; and all that is issued from then on is.
func TestInvariant_I9_WhatWasEndedStaysDead(t *testing.T) {
	w := newWorld(t)
	w.Grant(mailer, orders, read, globex) // for another tenant than the one that is suspended below
	root, stolen := w.AdminToken(), w.Key(mailer)
	fresh, jwk := w.newKey(mailer)
	var account wire.Account
	if err := json.Unmarshal([]byte(w.do(root, "GET", "/v1/accounts/"+mailer, "")), &account); err != nil || len(account.Credentials) != 1 {
		t.Fatalf("%v, %d credentials", err, len(account.Credentials))
	}

	var mu sync.Mutex
	var theirs []string
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				a, err := postForm(t.Context(), http.DefaultClient, w.URL()+"/oauth2/token", w.signedWith(stolen, mailer, acme))
				if err == nil && a.AccessToken != "" {
					mu.Lock()
					theirs = append(theirs, a.AccessToken)
					mu.Unlock()
				}
			}
		})
	}
	await(t, "a token of the thief's", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(theirs) > 0
	})
	w.do(root, "POST", "/v1/accounts/"+mailer+"/disable", `{"reason":"a key was stolen"}`)
	w.do(root, "DELETE", "/v1/accounts/"+mailer+"/credentials/"+account.Credentials[0].ID+"?reason=stolen", "")
	w.do(root, "POST", "/v1/accounts/"+mailer+"/credentials", `{"reason":"in its place","kind":"public_key","jwk":`+jwk+`}`)
	w.do(root, "POST", "/v1/accounts/"+mailer+"/enable", `{"reason":"it is over"}`)
	close(done)
	wg.Wait()
	ours := []string{w.mustToken(w.signedWith(fresh, mailer, acme)).AccessToken, w.mustToken(w.signedWith(fresh, mailer, globex)).AccessToken}
	for _, raw := range theirs {
		if w.introspect(orders, raw).Active {
			t.Fatal("one of the thief's tokens is alive")
		}
	}
	for _, raw := range ours {
		if !w.introspect(orders, raw).Active {
			t.Error("issued dead")
		}
	}

	w.do(root, "POST", "/v1/tenants/"+acme+"/suspend", `{"reason":"r"}`)
	w.do(root, "POST", "/v1/tenants/"+acme+"/resume", `{"reason":"r"}`)
	if w.introspect(orders, ours[0]).Active {
		t.Error("alive again with its tenant")
	}
	if !w.introspect(orders, ours[1]).Active {
		t.Error("of another tenant, and dead")
	}
	if !w.introspect(orders, w.mustToken(w.signedWith(fresh, mailer, acme)).AccessToken).Active {
		t.Error("issued dead for a resumed tenant")
	}
}

func TestOperatorsEndedTokensOpenNothingAgain(t *testing.T) {
	clock := brokertest.NewClock()
	w := newWorld(t, brokertest.WithClock(clock))
	root := w.AdminToken()
	for name, paths := range map[string][2]string{
		"disabled":  {"/v1/accounts/acme-admin/disable", "/v1/accounts/acme-admin/enable"},
		"suspended": {"/v1/tenants/acme/suspend", "/v1/tenants/acme/resume"},
	} {
		var token string
		if name == "disabled" {
			token = w.operatorOf("acme-admin", acme, "admin")
		} else {
			token = w.operatorOf("acme-other", acme, "admin")
		}
		w.do(token, "GET", "/v1/accounts", "")
		w.do(root, "POST", paths[0], `{"reason":"r"}`)
		clock.Advance(2 * time.Second)
		w.do(root, "POST", paths[1], `{"reason":"r"}`)
		for method, path := range map[string]string{"GET": "/v1/accounts", "POST": "/v1/accounts/" + mailer + "/disable"} {
			if status, answer := w.ask(token, method, path, `{"reason":"r"}`); status != http.StatusUnauthorized {
				t.Errorf("%s: %s %s: %d %s", name, method, path, status, answer)
			}
		}
	}
}

// An operator of one tenant can't tell an audience of another from one that
// does not exist.
func TestOperatorsOfOneTenantLearnOfNoAudienceOfAnother(t *testing.T) {
	w := newWorld(t)
	w.AccountAt("acme-sync", acme)
	w.AccountAt("globex-svc", globex)
	w.Audience("globex-billing", "globex-svc")
	viewer := w.operatorOf("acme-viewer", acme, "viewer")
	explain := func(audience string) string {
		status, answer := w.ask(viewer, "GET", "/v1/explain?tenant=acme&account=acme-sync&audience="+audience, "")
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		return answer
	}
	unknown := explain("no-such-billing")
	for _, audience := range []string{"globex-billing", orders} {
		if status, _ := w.ask(viewer, "GET", "/v1/audiences/"+audience, ""); status != http.StatusNotFound {
			t.Fatalf("control: it may read %s: %d", audience, status)
		}
		if got := explain(audience); got != unknown {
			t.Errorf("%s: %s, of an unknown one: %s", audience, got, unknown)
		}
	}
}

// A disabled account goes on asking with a good key: no record each time.
func TestBadInput_WhoMayNotActFillsNoDisk(t *testing.T) {
	w := newWorld(t)
	w.Worker("gone", orders, read, acme)
	w.do(w.AdminToken(), "POST", "/v1/accounts/gone/disable", `{"reason":"r"}`)
	before := len(w.lines())
	for range 30 {
		form := w.form("gone", acme)
		for range 2 {
			if a := w.token(form); a.status != http.StatusUnauthorized || a.Error != "invalid_client" {
				t.Fatalf("%d %s", a.status, a.Error)
			}
		}
		if a := w.post("/oauth2/introspect", w.authenticated("gone", "x")); a.status != http.StatusUnauthorized {
			t.Fatalf("%d %s", a.status, a.Error)
		}
	}
	// Those of the broker itself, and of one flush: far fewer than ninety.
	if n := len(w.lines()) - before; n > 20 {
		t.Errorf("%d records", n)
	}
}

// A platform's JWT, and an assertion, that is bound to a key is worth nothing
// to who only has it.
func TestBadInput_BoundToAKeyIsNoBearer(t *testing.T) {
	w := newWorld(t)
	bound := func(c map[string]any) {
		c["cnf"] = map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
	}
	subject := w.platform.token(t, w.URL(), globex, bound)
	if a := w.token(w.exchange(subject, globex)); a.status != http.StatusBadRequest || a.Error != "invalid_request" {
		t.Errorf("exchanged: %d %s", a.status, a.Error)
	}
	form := w.form(porter, globex)
	form.Set("client_assertion", subject)
	if a := w.token(form); a.status != http.StatusUnauthorized || a.Error != "invalid_client" {
		t.Errorf("as an assertion: %d %s", a.status, a.Error)
	}
	form = w.form(mailer, acme)
	form.Set("client_assertion", w.assertion(mailer, bound))
	if a := w.token(form); a.status != http.StatusUnauthorized || a.Error != "invalid_client" {
		t.Errorf("the account's own: %d %s", a.status, a.Error)
	}
}

func TestBadInput_AReasonThatShowsNothing(t *testing.T) {
	w := newWorld(t)
	root := w.AdminToken()
	for _, path := range []string{"/v1/tenants/acme/suspend", "/v1/accounts/mailer/disable", "/v1/keys/rotate"} {
		if status, answer := w.ask(root, "POST", path, "{\"reason\":\"\u200b\u2060\"}"); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if status, answer := w.ask(root, "POST", "/v1/tenants", "{\"id\":\"blank\",\"display_name\":\"\u200b\",\"reason\":\"r\"}"); status != http.StatusUnprocessableEntity {
		t.Errorf("a display name: %d %s", status, answer)
	}
}
