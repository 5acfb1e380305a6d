package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// adminCall is one request as the operators' endpoints saw it.
type adminCall struct {
	method, path, query, ifMatch, contentType, body string
}

// adminBroker answers the operators' endpoints with what next returns, and
// tokens as the faultyBroker does.
func adminBroker(t *testing.T, next func(n int, w http.ResponseWriter, r *http.Request)) (*Client, *[]adminCall) {
	t.Helper()
	f := newFaultyBroker(t, newClock())
	var calls []adminCall
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == wire.PathToken {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		calls = append(calls, adminCall{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("If-Match"), r.Header.Get("Content-Type"), string(body)})
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
			t.Error("no token")
		}
		w.Header().Set("Content-Type", "application/json")
		next(len(calls), w, r)
		return true
	}
	return newTestClient(t, f), &calls
}

func TestEachAdminCallOnTheWire(t *testing.T) {
	ctx := t.Context()
	cron := credential.MustAccountID("cron")
	const why = "because & so"
	reason := `{"reason":"because \u0026 so"}`
	patch := wire.Patch{"reason": why, "labels": nil}
	cases := map[string]struct {
		call func(*Admin) error
		want adminCall
	}{
		"tenant get": {func(a *Admin) error { _, err := a.Tenants().Get(ctx, acme); return err },
			adminCall{method: "GET", path: "/v1/tenants/acme"}},
		"tenant update": {func(a *Admin) error { _, err := a.Tenants().Update(ctx, acme, 7, patch); return err },
			adminCall{"PATCH", "/v1/tenants/acme", "", `"7"`, "application/merge-patch+json", `{"labels":null,"reason":"because \u0026 so"}`}},
		"tenant suspend": {func(a *Admin) error { _, err := a.Tenants().Suspend(ctx, acme, 0, why); return err },
			adminCall{"POST", "/v1/tenants/acme/suspend", "", "", "application/json", reason}},
		"tenant resume": {func(a *Admin) error { _, err := a.Tenants().Resume(ctx, acme, 3, why); return err },
			adminCall{"POST", "/v1/tenants/acme/resume", "", `"3"`, "application/json", reason}},
		"tenant delete": {func(a *Admin) error { return a.Tenants().Delete(ctx, acme, 3, why) },
			adminCall{method: "DELETE", path: "/v1/tenants/acme", query: "reason=because+%26+so", ifMatch: `"3"`}},
		"account disable": {func(a *Admin) error { _, err := a.Accounts().Disable(ctx, cron, 0, why); return err },
			adminCall{"POST", "/v1/accounts/cron/disable", "", "", "application/json", reason}},
		"account enable": {func(a *Admin) error { _, err := a.Accounts().Enable(ctx, cron, 0, why); return err },
			adminCall{"POST", "/v1/accounts/cron/enable", "", "", "application/json", reason}},
		"account get": {func(a *Admin) error { _, err := a.Accounts().Get(ctx, cron); return err },
			adminCall{method: "GET", path: "/v1/accounts/cron"}},
		"account update": {func(a *Admin) error {
			_, err := a.Accounts().Update(ctx, cron, 1, wire.Patch{"reason": why})
			return err
		},
			adminCall{"PATCH", "/v1/accounts/cron", "", `"1"`, "application/merge-patch+json", reason}},
		"account delete": {func(a *Admin) error { return a.Accounts().Delete(ctx, cron, 0, "x") },
			adminCall{method: "DELETE", path: "/v1/accounts/cron", query: "reason=x"}},
		"credential remove": {func(a *Admin) error { return a.Accounts().RemoveCredential(ctx, cron, "a/b c", 0, "x") },
			adminCall{method: "DELETE", path: "/v1/accounts/cron/credentials/a%2Fb%20c", query: "reason=x"}},
		"audience get": {func(a *Admin) error { _, err := a.Audiences().Get(ctx, billing); return err },
			adminCall{method: "GET", path: "/v1/audiences/https:%2F%2Fbilling.example"}},
		"audience update": {func(a *Admin) error {
			_, err := a.Audiences().Update(ctx, orders, 2, wire.Patch{"reason": why})
			return err
		}, adminCall{"PATCH", "/v1/audiences/orders", "", `"2"`, "application/merge-patch+json", reason}},
		"audience delete": {func(a *Admin) error { return a.Audiences().Delete(ctx, orders, 0, "x") },
			adminCall{method: "DELETE", path: "/v1/audiences/orders", query: "reason=x"}},
		"grant list": {func(a *Admin) error { return drain(a.Grants().List(ctx, GrantFilter{Account: cron, Tenant: acme})) },
			adminCall{method: "GET", path: "/v1/grants", query: "account=cron&tenant=acme"}},
		"grant get": {func(a *Admin) error { _, err := a.Grants().Get(ctx, "g_1"); return err },
			adminCall{method: "GET", path: "/v1/grants/g_1"}},
		"grant update": {func(a *Admin) error {
			_, err := a.Grants().Update(ctx, "g_1", 2, wire.Patch{"reason": why})
			return err
		},
			adminCall{"PATCH", "/v1/grants/g_1", "", `"2"`, "application/merge-patch+json", reason}},
		"grant approve": {func(a *Admin) error { _, err := a.Grants().Approve(ctx, "g_1", 4, why); return err },
			adminCall{"POST", "/v1/grants/g_1/approve", "", `"4"`, "application/json", reason}},
		"grant delete": {func(a *Admin) error { return a.Grants().Delete(ctx, "g_1", 0, "x") },
			adminCall{method: "DELETE", path: "/v1/grants/g_1", query: "reason=x"}},
		"issuer get": {func(a *Admin) error { _, err := a.Issuers().Get(ctx, "k8s"); return err },
			adminCall{method: "GET", path: "/v1/issuers/k8s"}},
		"issuer update": {func(a *Admin) error {
			_, err := a.Issuers().Update(ctx, "k8s", 2, wire.Patch{"reason": why})
			return err
		},
			adminCall{"PATCH", "/v1/issuers/k8s", "", `"2"`, "application/merge-patch+json", reason}},
		"issuer delete": {func(a *Admin) error { return a.Issuers().Delete(ctx, "k8s", 0, "x") },
			adminCall{method: "DELETE", path: "/v1/issuers/k8s", query: "reason=x"}},
		"issuer list":   {func(a *Admin) error { return drain(a.Issuers().List(ctx)) }, adminCall{method: "GET", path: "/v1/issuers"}},
		"tenant list":   {func(a *Admin) error { return drain(a.Tenants().List(ctx)) }, adminCall{method: "GET", path: "/v1/tenants"}},
		"account list":  {func(a *Admin) error { return drain(a.Accounts().List(ctx)) }, adminCall{method: "GET", path: "/v1/accounts"}},
		"audience list": {func(a *Admin) error { return drain(a.Audiences().List(ctx)) }, adminCall{method: "GET", path: "/v1/audiences"}},
		"operator list": {func(a *Admin) error { return drain(a.Operators().List(ctx)) }, adminCall{method: "GET", path: "/v1/operators"}},
		"operator delete": {func(a *Admin) error { return a.Operators().Delete(ctx, "g_9", 0, "x") },
			adminCall{method: "DELETE", path: "/v1/operators/g_9", query: "reason=x"}},
		"tenant create": {func(a *Admin) error {
			_, err := a.Tenants().Create(ctx, wire.TenantCreate{ID: acme, Reason: "x"})
			return err
		}, adminCall{"POST", "/v1/tenants", "", "", "application/json", `{"id":"acme","reason":"x"}`}},
		"key list": {func(a *Admin) error { return drain(a.Keys().List(ctx)) }, adminCall{method: "GET", path: "/v1/keys"}},
		"key rotate": {func(a *Admin) error { _, err := a.Keys().Rotate(ctx, true, "x"); return err },
			adminCall{"POST", "/v1/keys/rotate", "", "", "application/json", `{"emergency":true,"reason":"x"}`}},
		"key impact": {func(a *Admin) error { _, err := a.Keys().Impact(ctx, "k1"); return err },
			adminCall{method: "GET", path: "/v1/keys/k1/impact"}},
		"key revoke": {func(a *Admin) error { _, err := a.Keys().Revoke(ctx, "k1", why); return err },
			adminCall{"POST", "/v1/keys/k1/revoke", "", "", "application/json", reason}},
		"audit search": {func(a *Admin) error {
			return drain(a.Audit().Search(ctx, AuditFilter{Tenant: acme, Decision: "deny", Since: epoch, Oldest: true, Limit: 5, JTI: "j"}))
		}, adminCall{method: "GET", path: "/v1/audit", query: "decision=deny&jti=j&limit=5&order=asc&since=2026-03-01T12%3A00%3A00Z&tenant=acme"}},
		"audit export": {func(a *Admin) error { return a.Audit().Export(ctx, acme, io.Discard) },
			adminCall{method: "GET", path: "/v1/audit/export", query: "tenant=acme"}},
		"explain": {func(a *Admin) error {
			_, err := a.Explain(ctx, cron, TokenRequest{acme, orders, credential.MustScopes("a b")})
			return err
		}, adminCall{method: "GET", path: "/v1/explain", query: "account=cron&audience=orders&scope=a+b&tenant=acme"}},
	}
	for name, k := range cases {
		t.Run(name, func(t *testing.T) {
			c, calls := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
			if err := k.call(c.Admin(credential.System)); err != nil {
				t.Fatal(err)
			}
			if len(*calls) != 1 || (*calls)[0] != k.want {
				t.Errorf("got  %+v\nwant %+v", *calls, k.want)
			}
		})
	}
}

func drain[T any](items func(func(T, error) bool)) error {
	for _, err := range items {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestAnIdThatWouldNameAnotherPathIsNotSent(t *testing.T) {
	c, calls := adminBroker(t, func(int, http.ResponseWriter, *http.Request) {})
	a := c.Admin(credential.System)
	for _, id := range []string{"", ".", ".."} {
		if err := a.Grants().Delete(t.Context(), id, 0, "x"); err == nil {
			t.Errorf("%q accepted", id)
		}
		if _, err := a.Keys().Revoke(t.Context(), id, "x"); err == nil {
			t.Errorf("key %q accepted", id)
		}
	}
	if len(*calls) != 0 {
		t.Error("sent")
	}
}

func TestAListGoesThroughAllItsPages(t *testing.T) {
	c, calls := adminBroker(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		next := ""
		if n < 3 {
			next = fmt.Sprintf("c%d", n)
		}
		_ = json.NewEncoder(w).Encode(wire.List[wire.Key]{Items: []wire.Key{{ID: fmt.Sprint(n, "a")}, {ID: fmt.Sprint(n, "b")}}, Next: next})
	})
	var ids []string
	for k, err := range c.Admin(credential.System).Keys().List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, k.ID)
	}
	if got := strings.Join(ids, " "); got != "1a 1b 2a 2b 3a 3b" {
		t.Error(got)
	}
	if (*calls)[2].query != "cursor=c2" {
		t.Error((*calls)[2].query)
	}
	for _, err := range c.Admin(credential.System).Keys().List(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break // stops without another page
	}
	if len(*calls) != 4 {
		t.Errorf("%d calls", len(*calls))
	}
}

func TestAListThatNeverEndsIsAnError(t *testing.T) {
	c, _ := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"items":[],"next":"again"}`))
	})
	if err := drain(c.Admin(credential.System).Tenants().List(t.Context())); !errors.Is(err, ErrUnexpected) {
		t.Errorf("got %v", err)
	}
}

func TestProblemsMatchTheSentinelsOfBothPackages(t *testing.T) {
	cases := []struct {
		status      int
		code        string
		ours, wires error
	}{
		{400, wire.CodeMalformed, ErrInvalid, wire.ErrMalformed},
		{422, wire.CodeInvalid, ErrInvalid, wire.ErrInvalid},
		{401, wire.CodeUnauthenticated, ErrInvalidClient, wire.ErrUnauthenticated},
		{403, wire.CodeForbidden, ErrForbidden, wire.ErrForbidden},
		{404, wire.CodeNotFound, ErrNotFound, wire.ErrNotFound},
		{409, wire.CodeExists, ErrConflict, wire.ErrExists},
		{409, wire.CodeInUse, ErrConflict, wire.ErrInUse},
		{412, wire.CodeChanged, ErrChanged, wire.ErrChanged},
		{428, wire.CodeNeedIfMatch, ErrChanged, wire.ErrNeedIfMatch},
		{429, wire.CodeRateLimited, ErrSlowDown, wire.ErrRateLimited},
		{503, wire.CodeUnavailable, ErrUnavailable, wire.ErrUnavailable},
		{500, wire.CodeInternal, ErrUnavailable, nil},
	}
	for _, k := range cases {
		t.Run(k.code, func(t *testing.T) {
			c, _ := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", wire.ProblemContentType)
				w.WriteHeader(k.status)
				_ = json.NewEncoder(w).Encode(wire.Problem{Status: k.status, Code: k.code, Title: "title", Field: "labels", Detail: "why"})
			})
			_, err := c.Admin(credential.System).Tenants().Get(t.Context(), acme)
			var e *Error
			if !errors.Is(err, k.ours) || (k.wires != nil && !errors.Is(err, k.wires)) || !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Field != "labels" || e.Detail != "why" || e.RequestID != "req-1" || e.Op != "tenant get" {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestAChangeIsNotRepeatedAfterAnOutage(t *testing.T) {
	for _, k := range []struct {
		status, calls int
		change        bool
	}{{503, 1, true}, {429, 3, true}, {503, 3, false}, {500, 1, false}} {
		c, calls := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(k.status) })
		a := c.Admin(credential.System)
		var err error
		if k.change {
			err = a.Tenants().Delete(t.Context(), acme, 0, "x")
		} else {
			_, err = a.Tenants().Get(t.Context(), acme)
		}
		if err == nil || len(*calls) != k.calls {
			t.Errorf("%+v: %v after %d calls", k, err, len(*calls))
		}
	}
}

func TestANewClientSecretIsASecret(t *testing.T) {
	c, _ := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"credential":{"id":"c1","kind":"client_secret"},"client_secret":"hunter2","version":9}`))
	})
	made, err := c.Admin(credential.System).Accounts().AddCredential(t.Context(), worker, 0, wire.CredentialCreate{Kind: wire.KindClientSecret})
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", made, *made, made); strings.Contains(s, "hunter2") {
		t.Error(s)
	}
	if string(made.Secret.Reveal()) != "hunter2" || made.Version != 9 {
		t.Error("not the secret")
	}
}

func TestAnExportThatIsCutOffIsAnError(t *testing.T) {
	c, _ := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
	})
	var out bytes.Buffer
	if err := c.Admin(credential.System).Audit().Export(t.Context(), credential.Tenant{}, &out); err == nil {
		t.Error("no error")
	}
	c, _ = adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	if err := c.Admin(credential.System).Audit().Export(t.Context(), acme, &out); !errors.Is(err, ErrForbidden) {
		t.Errorf("got %v", err)
	}
}

func TestTheOperatorsTokenIsForTheBrokersAdminAudience(t *testing.T) {
	for _, tenant := range []credential.Tenant{credential.System, acme} {
		c, _ := adminBroker(t, func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
		tok, err := c.Admin(tenant).Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if tok.Tenant() != tenant || tok.Audience().String() != c.Issuer().String()+"/admin" {
			t.Error(tok)
		}
	}
}

func TestPublicDocumentsAndTokenCalls(t *testing.T) {
	clk := newClock()
	f := newFaultyBroker(t, clk)
	issuer := f.issuer.String()
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case wire.PathJWKS:
			_, _ = w.Write([]byte(`{"keys":[]}`))
		case wire.PathServerMetadata:
			_ = json.NewEncoder(w).Encode(wire.Metadata{Issuer: issuer, TokenEndpoint: issuer + wire.PathToken})
		case wire.PathIntrospect:
			_, _ = w.Write([]byte(`{"active":true,"tenant":"acme"}`))
		case wire.PathRevoke:
		default:
			return false
		}
		return true
	}
	c := newTestClient(t, f)
	if _, err := c.JWKS(t.Context()); err != nil {
		t.Error(err)
	}
	if m, err := c.Metadata(t.Context()); err != nil || m.TokenEndpoint != issuer+"/oauth2/token" {
		t.Error(m, err)
	}
	token := credential.NewSecret([]byte("abc"))
	if i, err := c.Introspect(t.Context(), token); err != nil || !i.Active || i.Tenant != "acme" {
		t.Error(i, err)
	}
	if err := c.Revoke(t.Context(), token); err != nil {
		t.Error(err)
	}
	last := f.seen()[3]
	if names := keysOf(last); !slices.Equal(names, []string{"token"}) || last.form.Get("token") != "abc" || last.header.Get("Authorization") == "" {
		t.Error(names)
	}
	issuer = "https://evil.example"
	if _, err := c.Metadata(t.Context()); !errors.Is(err, ErrUnexpected) {
		t.Errorf("another issuer's document: %v", err)
	}
	f.set(func() { f.hook = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true } })
	if _, err := c.JWKS(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	f.Close()
	if err := c.Revoke(t.Context(), token); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no broker: %v", err)
	}
}

func TestRetryAfterIsSecondsOrADateAndBounded(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "soon": 0, "99999999999": 0, "4000000000": maxRetryAfter,
		epoch.Add(9 * time.Second).Format(http.TimeFormat): 9 * time.Second, epoch.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {v}}, epoch); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}
