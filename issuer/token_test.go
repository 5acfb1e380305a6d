package issuer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestTokenCarriesExactlyWhatWasGranted(t *testing.T) {
	w := standard(t)
	resp := w.token(w.asking("worker", nil))
	c := w.claimsOf(resp.AccessToken)
	now := w.clock.now()
	if c.Issuer != brokerURL || c.Subject.String() != "worker" || c.ClientID.String() != "worker" ||
		c.Audience.String() != "orders" || c.Tenant.String() != "acme" || c.Scopes.String() != "read" {
		t.Errorf("claims %+v", c)
	}
	if !c.IssuedAt.Equal(now) || c.Expires.Sub(now) != 5*time.Minute || !c.NotBefore.IsZero() {
		t.Errorf("iat %v exp %v nbf %v", c.IssuedAt, c.Expires, c.NotBefore)
	}
	if len(c.ID) != 22 || len(c.Txn) != 22 || c.ID == c.Txn || c.Actor != nil {
		t.Errorf("jti %q txn %q", c.ID, c.Txn)
	}
	if resp.TokenType != "Bearer" || resp.ExpiresIn != 300 || resp.Scope != "read" || resp.IssuedTokenType != "" {
		t.Errorf("answer %+v", resp)
	}
	jws, _ := credential.ParseJWS(resp.AccessToken)
	if jws.Type() != "at+jwt" || jws.KeyID() != "ring-1" {
		t.Errorf("typ %q kid %q", jws.Type(), jws.KeyID())
	}
	r := w.last()
	if r.tenant != "acme" || r.Type != "token.issued" || r.Decision != audit.Allow || r.JTI != c.ID || r.Txn != c.Txn ||
		r.KeyID != "ring-1" || r.Subject != "worker" || r.ClientID != "worker" || r.Audience != "orders" || r.Scope != "read" ||
		r.Grant == "" || !r.Expires.Equal(c.Expires) || r.IP != "192.0.2.7" || r.RequestID != "req-1" || r.Reason != "private_key_jwt" {
		t.Errorf("record %+v", r)
	}
}

func TestTokenWithoutScopeGetsAllOfTheGrant(t *testing.T) {
	w := standard(t)
	if resp := w.token(w.asking("worker", want{"scope": "-"})); resp.Scope != "read write" {
		t.Errorf("scope %q", resp.Scope)
	}
	if resp := w.token(w.asking("worker", want{"scope": ""})); resp.Scope != "read write" {
		t.Errorf("empty scope: %q", resp.Scope)
	}
}

// Each is one change to a good request. reason is the one on record.
func TestTokenRefuses(t *testing.T) {
	w := standard(t)
	long := strings.Repeat("x", 20_000)
	type table = []struct {
		name   string
		change want
		code   Code
		param  string
		reason string
	}
	for _, c := range (table{
		{"no grant type", want{"grant_type": "-"}, InvalidRequest, "grant_type", "missing_grant_type"},
		{"empty grant type", want{"grant_type": ""}, InvalidRequest, "grant_type", "missing_grant_type"},
		{"unknown grant type", want{"grant_type": "password"}, UnsupportedGrantType, "", "unsupported_grant_type"},
		{"grant type in other case", want{"grant_type": "Client_Credentials"}, UnsupportedGrantType, "", "unsupported_grant_type"},
		{"grant type with NUL", want{"grant_type": "client_credentials\x00"}, UnsupportedGrantType, "", "unsupported_grant_type"},
		{"no audience", want{"audience": "-"}, InvalidRequest, "audience", "missing_audience"},
		{"empty audience", want{"audience": ""}, InvalidRequest, "audience", "missing_audience"},
		{"audience with a space", want{"audience": "or ders"}, InvalidRequest, "audience", "malformed_audience"},
		{"audience too long", want{"audience": long}, InvalidRequest, "audience", "malformed_audience"},
		{"audience and resource", want{"resource": "https://orders.example"}, InvalidRequest, "resource", "audience_and_resource"},
		{"relative resource", want{"audience": "-", "resource": "orders"}, InvalidTarget, "", "malformed_resource"},
		{"resource with fragment", want{"audience": "-", "resource": "https://a/#b"}, InvalidTarget, "", "malformed_resource"},
		{"unknown resource", want{"audience": "-", "resource": "https://orders.example"}, InvalidTarget, "", "unknown_audience"},
		{"no tenant", want{"tenant": "-"}, InvalidRequest, "tenant", "missing_tenant"},
		{"empty tenant", want{"tenant": ""}, InvalidRequest, "tenant", "missing_tenant"},
		{"wildcard tenant", want{"tenant": "*"}, InvalidRequest, "tenant", "malformed_tenant"},
		{"two tenants in one value", want{"tenant": "acme globex"}, InvalidRequest, "tenant", "malformed_tenant"},
		{"tenant with comma", want{"tenant": "acme,globex"}, InvalidRequest, "tenant", "malformed_tenant"},
		{"tenant with NUL", want{"tenant": "acme\x00globex"}, InvalidRequest, "tenant", "malformed_tenant"},
		{"tenant too long", want{"tenant": strings.Repeat("a", 65)}, InvalidRequest, "tenant", "malformed_tenant"},
		{"tenant not UTF-8", want{"tenant": "acme\xff"}, InvalidRequest, "tenant", "malformed_tenant"},
		{"system in capitals", want{"tenant": "SYSTEM"}, InvalidRequest, "tenant", "malformed_tenant"},
		{"system tenant at another audience", want{"tenant": "system"}, InvalidTarget, "", "no_grant"},
		{"tenant in other case", want{"tenant": "Acme"}, InvalidTarget, "", "unknown_tenant"},
		{"unknown tenant", want{"tenant": "umbrella"}, InvalidTarget, "", "unknown_tenant"},
		{"ungranted tenant", want{"tenant": "initech"}, InvalidTarget, "", "no_grant"},
		{"unknown audience", want{"audience": "billing"}, InvalidTarget, "", "unknown_audience"},
		{"the broker's own audience", want{"audience": brokerURL + "/admin"}, InvalidTarget, "", "no_grant"},
		{"the broker's own audience as system", want{"audience": brokerURL + "/admin", "tenant": "system"}, InvalidTarget, "", "no_grant"},
		{"scope that the grant lacks", want{"scope": "read delete"}, InvalidScope, "", "scope_lacking"},
		{"scope lacking and tenant ungranted", want{"scope": "delete", "tenant": "initech"}, InvalidTarget, "", "no_grant"},
		{"scope lacking and tenant unknown", want{"scope": "delete", "tenant": "umbrella"}, InvalidTarget, "", "unknown_tenant"},
		{"malformed scope", want{"scope": "read  write"}, InvalidScope, "", "malformed_scope"},
		{"scope with a quote", want{"scope": `re"ad`}, InvalidScope, "", "malformed_scope"},
		{"scope too long", want{"scope": long}, InvalidScope, "", "malformed_scope"},
		{"expires_in zero", want{"expires_in": "0"}, InvalidRequest, "expires_in", "malformed_expires_in"},
		{"expires_in negative", want{"expires_in": "-60"}, InvalidRequest, "expires_in", "malformed_expires_in"},
		{"expires_in fraction", want{"expires_in": "1.5"}, InvalidRequest, "expires_in", "malformed_expires_in"},
		{"expires_in leading zero", want{"expires_in": "060"}, InvalidRequest, "expires_in", "malformed_expires_in"},
		{"expires_in huge", want{"expires_in": "99999999999"}, InvalidRequest, "expires_in", "malformed_expires_in"},
		{"expires_in a word", want{"expires_in": "1minute"}, InvalidRequest, "expires_in", "malformed_expires_in"},
		{"subject token in client_credentials", want{"subject_token": "x"}, InvalidRequest, "subject_token", "parameter_of_another_grant"},
		{"requested type in client_credentials", want{"requested_token_type": "x"}, InvalidRequest, "requested_token_type", "parameter_of_another_grant"},
		{"actor token", want{"actor_token": "x"}, InvalidRequest, "actor_token", "actor_token_refused"},
		{"ticket parameter", want{"redeemers": "x"}, InvalidRequest, "redeemers", "tickets_not_supported"},
		{"no authentication", want{"client_assertion": "-", "client_assertion_type": "-"}, InvalidClient, "", "no_authentication"},
		{"client_id alone", want{"client_assertion": "-", "client_assertion_type": "-", "client_id": "worker"}, InvalidClient, "", "no_authentication"},
		{"assertion type alone", want{"client_assertion": "-"}, InvalidRequest, "client_assertion", "missing_client_assertion"},
		{"assertion without type", want{"client_assertion_type": "-"}, InvalidRequest, "client_assertion_type", "unsupported_client_assertion_type"},
		{"unknown assertion type", want{"client_assertion_type": "urn:x"}, InvalidRequest, "client_assertion_type", "unsupported_client_assertion_type"},
		{"assertion and secret", want{"client_secret": "s", "client_id": "worker"}, InvalidRequest, "", "two_authentications"},
		{"another client_id", want{"client_id": "orders-svc"}, InvalidClient, "", "another_client_id"},
		{"malformed client_id", want{"client_id": "a b"}, InvalidRequest, "client_id", "malformed_client_id"},
		{"secret without client_id", want{"client_assertion": "-", "client_assertion_type": "-", "client_secret": "s"}, InvalidRequest, "client_id", "missing_client_id"},
		{"secret of an account without one", want{"client_assertion": "-", "client_assertion_type": "-", "client_secret": "s", "client_id": "worker"}, InvalidClient, "", "unknown_account_or_secret"},
		{"secret too long", want{"client_assertion": "-", "client_assertion_type": "-", "client_secret": long, "client_id": "worker"}, InvalidClient, "", "malformed_client_secret"},
		{"assertion is rubbish", want{"client_assertion": "rubbish"}, InvalidClient, "", "malformed_token"},
		{"assertion too long", want{"client_assertion": long}, InvalidClient, "", "malformed_token"},
		{"exchange without subject token", want{"grant_type": GrantTokenExchange, "client_assertion": "-", "client_assertion_type": "-"}, InvalidRequest, "subject_token", "missing_subject_token"},
		{"exchange without type", want{"grant_type": GrantTokenExchange, "client_assertion": "-", "client_assertion_type": "-", "subject_token": "x"}, InvalidRequest, "subject_token_type", "unsupported_subject_token_type"},
		{"exchange of an access token", want{"grant_type": GrantTokenExchange, "client_assertion": "-", "client_assertion_type": "-", "subject_token": "x", "subject_token_type": TokenTypeAccessToken}, InvalidRequest, "subject_token_type", "unsupported_subject_token_type"},
		{"exchange for a ticket", want{"grant_type": GrantTokenExchange, "client_assertion": "-", "client_assertion_type": "-", "subject_token": "x", "subject_token_type": TokenTypeJWT, "requested_token_type": "urn:tenantbroker:token-type:job-ticket"}, InvalidRequest, "requested_token_type", "unsupported_requested_token_type"},
		{"exchange with two authentications", want{"grant_type": GrantTokenExchange, "subject_token": "x", "subject_token_type": TokenTypeJWT}, InvalidRequest, "subject_token", "two_authentications"},
		{"subject token is rubbish", want{"grant_type": GrantTokenExchange, "client_assertion": "-", "client_assertion_type": "-", "subject_token": "x", "subject_token_type": TokenTypeJWT}, InvalidRequest, "subject_token", "malformed_token"},
		{"subject token too long", want{"grant_type": GrantTokenExchange, "client_assertion": "-", "client_assertion_type": "-", "subject_token": long, "subject_token_type": TokenTypeJWT}, InvalidRequest, "subject_token", "subject_token_too_long"},
	}) {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			before := len(w.records())
			err := w.refusal(w.asking("worker", c.change))
			if err.Code != c.code || err.Param != c.param || err.Reason != c.reason {
				t.Errorf("got %s (%s) %s", err.Code, err.Param, err.Reason)
			}
			w.must(w.iss.flush(t.Context()))
			after := w.records()[before:]
			if len(after) != 1 || after[0].Decision != audit.Deny || after[0].Reason != c.reason || after[0].Type != "token.denied" {
				t.Errorf("records %+v", after)
			}
			if w.ring.signed != 0 {
				t.Error("something was signed")
			}
		})
	}
}

func TestDuplicateParameterIsRefusedByName(t *testing.T) {
	w := standard(t)
	for _, name := range []string{"tenant", "audience", "grant_type", "scope", "client_assertion", "something"} {
		r := w.asking("worker", nil)
		r.Form.Add(name, r.Form.Get(name))
		r.Form.Add(name, "acme")
		err := w.refusal(r)
		if named := name != "something"; err.Code != InvalidRequest || (err.Param == name) != named {
			t.Errorf("%s: %s (%s)", name, err.Code, err.Param)
		}
	}
}

// I4: what can't be had is not told apart.
func TestDenialsOfOneCodeHaveOneBody(t *testing.T) {
	w := standard(t)
	w.tenant("paused")
	w.grant("worker", "orders", "read", tenants("paused"))
	_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("paused"), 0)
	w.must(err)
	w.audience("closed", "orders-svc")
	w.grant("worker", "closed", "read", func(g *registry.Grant) { tenants("acme")(g); g.Condition = "false" })
	seen := map[Error]bool{}
	for _, change := range []want{
		{"tenant": "umbrella"}, {"tenant": "initech"}, {"tenant": "paused"}, {"audience": "billing"}, {"audience": "closed"},
		{"tenant": "paused", "scope": "delete"}, {"audience": "closed", "scope": "delete"}, {"tenant": "system"},
	} {
		e := w.refusal(w.asking("worker", change))
		if e.Code != InvalidTarget || e.Description() != descriptions[InvalidTarget] {
			t.Errorf("%v: %s %q", change, e.Code, e.Description())
		}
		seen[Error{Code: e.Code, Param: e.Param, RetryAfter: e.RetryAfter}] = true
	}
	if len(seen) != 1 {
		t.Errorf("%d different answers", len(seen))
	}
}

func TestGrantedButDeniedGoesToTheTenantsChain(t *testing.T) {
	w := standard(t)
	w.tenant("paused")
	w.grant("worker", "orders", "read", tenants("paused"))
	_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("paused"), 0)
	w.must(err)
	for _, c := range []struct {
		change        want
		chain, reason string
	}{
		{want{"scope": "delete"}, "acme", "scope_lacking"},
		{want{"tenant": "paused"}, "paused", "tenant_suspended"},
		{want{"tenant": "initech"}, "", "no_grant"},
		{want{"tenant": "umbrella"}, "", "unknown_tenant"},
	} {
		_ = w.refusal(w.asking("worker", c.change))
		r := w.last()
		if r.tenant != c.chain || r.Reason != c.reason || r.ClientID != "worker" {
			t.Errorf("%v: chain %q, %+v", c.change, r.tenant, r.Record)
		}
		if asked := c.change["tenant"]; c.chain == "" && (r.Resource != audit.Resource{Type: "tenant", ID: asked}) {
			t.Errorf("%v: the record doesn't say what was asked for: %+v", c.change, r.Resource)
		}
	}
}

func TestLifetimeIsTheShortest(t *testing.T) {
	w := standard(t)
	w.audience("slow", "orders-svc")
	w.audience("ending", "orders-svc")
	w.grant("worker", "slow", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.MaxTTL = credential.MustLifetime(time.Hour)
	})
	w.grant("worker", "ending", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.ExpiresAt = w.clock.now().Add(90 * time.Second)
	})
	for _, c := range []struct {
		audience, asked string
		expected        int64
	}{
		{"orders", "-", 300}, {"orders", "60", 60}, {"orders", "3600", 300}, {"orders", "9999999999", 300},
		{"slow", "-", 3600}, {"slow", "4000", 3600}, {"slow", "1", 1},
		{"ending", "-", 90},
	} {
		resp := w.token(w.asking("worker", want{"audience": c.audience, "expires_in": c.asked}))
		if resp.ExpiresIn != c.expected {
			t.Errorf("%s %s: %d s, expected %d", c.audience, c.asked, resp.ExpiresIn, c.expected)
		}
		if got := w.claimsOf(resp.AccessToken); got.Expires.Sub(got.IssuedAt) != time.Duration(c.expected)*time.Second {
			t.Errorf("%s %s: the token says %v", c.audience, c.asked, got.Expires.Sub(got.IssuedAt))
		}
	}
}

func TestOperatorsGetSystemForAtMostTenMinutes(t *testing.T) {
	w := standard(t)
	w.account("root")
	_, err := w.reg.CreateOperator(t.Context(), w.op, registry.OperatorSpec{
		Account: credential.MustAccountID("root"), Roles: credential.MustScopes("viewer operator"),
		Tenant: credential.System, MaxTTL: credential.MustLifetime(10 * time.Minute),
	})
	w.must(err)
	admin := want{"audience": brokerURL + "/admin", "tenant": "system", "scope": "-", "expires_in": "3600"}
	resp := w.token(w.asking("root", admin))
	c := w.claimsOf(resp.AccessToken)
	if !c.Tenant.IsSystem() || resp.ExpiresIn > 600 || c.Scopes.String() != "operator viewer" {
		t.Errorf("claims %+v, %d s", c, resp.ExpiresIn)
	}
	if r := w.last(); r.tenant != "" || r.JTI != c.ID {
		t.Errorf("record in chain %q", r.tenant)
	}
	for name, change := range map[string]want{
		"a tenant that the role doesn't cover": {"tenant": "acme"},
		"a role that it lacks":                 {"scope": "admin"},
		"another own audience":                 {"audience": brokerURL + "/leases"},
		"own audience in capitals":             {"audience": strings.ToUpper(brokerURL) + "/ADMIN"},
	} {
		p := want{}
		for k, v := range admin {
			p[k] = v
		}
		for k, v := range change {
			p[k] = v
		}
		if err := w.refusal(w.asking("root", p)); err.Code != InvalidTarget && err.Code != InvalidScope {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSuspendedDisabledExpiredAreRefused(t *testing.T) {
	w := standard(t)
	acme, worker := credential.MustTenant("acme"), credential.MustAccountID("worker")
	_, err := w.reg.SuspendTenant(t.Context(), w.op, acme, 0)
	w.must(err)
	if e := w.refusal(w.asking("worker", nil)); e.Code != InvalidTarget || e.Reason != "tenant_suspended" {
		t.Errorf("suspended: %v", e)
	}
	_, err = w.reg.ResumeTenant(t.Context(), w.op, acme, 0)
	w.must(err)
	w.clock.add(time.Second)
	w.token(w.asking("worker", nil))
	_, err = w.reg.DisableAccount(t.Context(), w.op, worker, 0)
	w.must(err)
	r := w.asking("worker", nil)
	if e := w.refusal(r); e.Code != InvalidClient || e.Reason != "account_disabled" {
		t.Errorf("disabled: %v", e)
	}
	_, err = w.reg.EnableAccount(t.Context(), w.op, worker, 0)
	w.must(err)
	w.clock.add(time.Second)
	if e := w.refusal(r); e.Code != InvalidClient || e.Reason != "assertion_replayed" {
		t.Errorf("the assertion of a denied request was not used up: %v", e)
	}
	_, err = w.reg.UpdateAccount(t.Context(), w.op, worker, 0, func(a *registry.Account) error {
		a.ExpiresAt = w.clock.now().Add(time.Minute + time.Second)
		return nil
	})
	w.must(err)
	w.clock.add(time.Second)
	if resp := w.token(w.asking("worker", nil)); resp.ExpiresIn != 60 {
		t.Errorf("a token outlives its account: %d s", resp.ExpiresIn)
	}
	w.clock.add(time.Minute)
	if e := w.refusal(w.asking("worker", nil)); e.Code != InvalidClient || e.Reason != "account_expired" {
		t.Errorf("expired: %v", e)
	}
}

func TestSigningFailureReleasesNothing(t *testing.T) {
	w := standard(t)
	w.ring.broken = errors.New("the home is away")
	if e := w.refusal(w.asking("worker", nil)); e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second {
		t.Errorf("%v", e)
	}
	w.ring.missing = errors.New("no ring")
	if e := w.refusal(w.asking("worker", nil)); e.Code != TemporarilyUnavailable {
		t.Errorf("%v", e)
	}
}

func TestRotatedRingIsDecidedAgain(t *testing.T) {
	w := standard(t)
	w.ring.touch(t) // the ring moved on, the snapshot has not seen it
	w.token(w.asking("worker", nil))
}

func TestErrorsShowOnlyTheCategory(t *testing.T) {
	e := &Error{Code: InvalidClient, Reason: "private", Cause: errors.New("inner")}
	if d := e.Description(); strings.Contains(d, "private") || strings.Contains(d, "inner") {
		t.Errorf("description %q", d)
	}
	if s := e.Error(); s != "invalid_client: private: inner" || !errors.Is(e, e.Cause) {
		t.Errorf("log text %q", s)
	}
	if d := badRequest("tenant", "x").Description(); !strings.Contains(d, "tenant") {
		t.Errorf("description %q", d)
	}
	if s := badRequest("tenant", "").Error(); s != "invalid_request (tenant)" {
		t.Errorf("log text %q", s)
	}
	if e := badRequest("<script>", "x"); e.Param != "" {
		t.Error("a parameter that we don't know is named")
	}
	for _, code := range []Code{InvalidRequest, InvalidClient, InvalidTarget, InvalidScope, UnauthorizedClient, UnsupportedGrantType, SlowDown, TemporarilyUnavailable} {
		if (&Error{Code: code}).Description() == "" {
			t.Errorf("%s has no description", code)
		}
	}
}

func TestUnavailableStoreIsNotADenial(t *testing.T) {
	w := standard(t)
	w.must(w.st.Close())
	e := w.refusal(w.asking("worker", nil))
	if e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second || !errors.Is(e, store.ErrUnavailable) {
		t.Errorf("%v", e)
	}
}
