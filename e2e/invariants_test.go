package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// I1, the issuer: whatever way a token is had, its payload has exactly one
// member named tenant, a string, and it is the one that was asked for.
func TestInvariant_I1_IssuedTokensCarryExactlyOneTenant(t *testing.T) {
	w := newWorld(t)
	secret := w.ClientSecret(mailer)
	basic := w.form(mailer, acme)
	basic.Del("client_assertion")
	basic.Del("client_assertion_type")
	basic.Set("client_id", mailer)
	basic.Set("client_secret", string(secret.Reveal()))
	assertion := w.form(porter, globex)
	assertion.Set("client_assertion", w.platform.token(t, w.URL(), globex, nil))
	for how, c := range map[string]struct {
		form   url.Values
		tenant string
	}{
		"private_key_jwt":                 {w.form(mailer, acme), acme},
		"client_secret_post":              {basic, acme},
		"platform token, exchanged":       {w.exchange(w.platform.token(t, w.URL(), globex, nil), globex), globex},
		"platform token, as an assertion": {assertion, globex},
	} {
		raw := w.mustToken(c.form).AccessToken
		payload := payloadOf(t, raw)
		if n := bytes.Count(payload, []byte(`tenant"`)); n != 1 {
			t.Errorf("%s: %d members that end in tenant", how, n)
		}
		var m map[string]any
		if err := json.Unmarshal(payload, &m); err != nil {
			t.Fatal(err)
		}
		if m["tenant"] != c.tenant {
			t.Errorf("%s: tenant is %v, asked for %s", how, m["tenant"], c.tenant)
		}
	}
}

// I1, the verifier and the broker's own endpoints: a payload with none, or
// more than one, or something like a tenant is refused though the signature is
// the broker's own.
func TestInvariant_I1_RefusedWhateverTheSignatureSays(t *testing.T) {
	w := newWorld(t)
	good := string(payloadOf(t, w.mustToken(w.form(mailer, acme)).AccessToken))
	tokens := w.Verifier(orders)
	if _, err := tokens.Verify(t.Context(), w.forge(good)); err != nil {
		t.Fatalf("control: a good payload, signed with the same key, is refused: %v", err)
	}
	if !w.introspect(orders, w.forge(good)).Active {
		t.Fatal("control: introspection of a good payload is not active")
	}
	const member = `"tenant":"acme"`
	for name, instead := range map[string]string{
		"none":                   `"x":"acme"`,
		"twice":                  member + `,` + member,
		"two tenants":            member + `,"tenant":"globex"`,
		"the second one escaped": member + `,"ten\u0061nt":"globex"`,
		"array of one":           `"tenant":["acme"]`,
		"array of two":           `"tenant":["acme","globex"]`,
		"object":                 `"tenant":{"id":"acme"}`,
		"number":                 `"tenant":7`,
		"null":                   `"tenant":null`,
		"true":                   `"tenant":true`,
		"empty":                  `"tenant":""`,
		"wildcard":               `"tenant":"*"`,
		"list in a string":       `"tenant":"acme,globex"`,
		"two with a space":       `"tenant":"acme globex"`,
		"system":                 `"tenant":"system"`,
		"System":                 `"tenant":"System"`,
		"another case beside it": member + `,"Tenant":"globex"`,
		"another case instead":   `"TENANT":"acme"`,
		"plural beside it":       member + `,"tenants":["globex"]`,
		"plural in another case": member + `,"Tenants":"globex"`,
		"folding beyond ASCII":   member + `,"tenant\u017f":"globex"`,
		"duplicate deep inside":  member + `,"x":{"y":[{"a":1,"a":2}]}`,
	} {
		raw := w.forge(strings.Replace(good, member, instead, 1))
		if token, err := tokens.Verify(t.Context(), raw); err == nil {
			t.Errorf("%s: verified, tenant %q", name, token.Tenant())
		}
		if w.introspect(orders, raw).Active {
			t.Errorf("%s: introspection says active", name)
		}
	}
	nested := w.forge(strings.Replace(good, member, member+`,"x":{"tenant":"globex","tenants":["a"]}`, 1))
	if token, err := tokens.Verify(t.Context(), nested); err != nil || token.Tenant().String() != acme {
		t.Errorf("a nested tenant means nothing, but: %v", err)
	}
}

// I2: every place that can name a tenant must name the same one.
func TestInvariant_I2_NoChangeOfTenant(t *testing.T) {
	w := newWorld(t)
	ofGlobex := w.platform.token(t, w.URL(), globex, nil)
	for name, c := range map[string]struct {
		form url.Values
		code string
	}{
		"the platform says globex, the request acme": {w.exchange(ofGlobex, acme), "invalid_target"},
		"the platform says globex, the request nothing": {
			without(w.exchange(ofGlobex, globex), "tenant"), "invalid_request"},
		"the platform says globex, the request system": {w.exchange(ofGlobex, "system"), "invalid_target"},
		"the request says both": {
			url.Values(with(w.exchange(ofGlobex, globex), "tenant", acme)), "invalid_request"},
		"the request names a list": {w.exchange(ofGlobex, "globex acme"), "invalid_request"},
	} {
		got := w.token(c.form)
		if got.status == http.StatusOK || got.Error != c.code {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.Error, c.code)
		}
	}
	// The platform itself can't name a tenant with no grant behind it, nor system.
	for _, namespace := range []string{"system", "initech", "acme*", "globex\",\"acme"} {
		subject := w.platform.token(t, w.URL(), namespace, func(c map[string]any) {
			c["sub"] = "system:serviceaccount:globex:porter"
		})
		if got := w.token(w.exchange(subject, namespace)); got.status == http.StatusOK {
			t.Errorf("namespace %q yields a token", namespace)
		}
	}
}

// I3: a request only narrows what the grant allows.
func TestInvariant_I3_OnlyNarrower(t *testing.T) {
	w := newWorld(t)
	w.Account("clerk")
	w.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("clerk"), Audience: credential.MustAudience(orders),
		Scopes: credential.MustScopes("orders:read orders:write"), Tenants: []credential.Tenant{credential.MustTenant(acme)},
		MaxTTL: credential.MustLifetime(2 * time.Minute),
	})
	all := w.mustToken(w.form("clerk", acme))
	if all.Scope != "orders:read orders:write" || all.ExpiresIn != 120 {
		t.Errorf("without scope and expires_in: %q for %d s, want all for 120 s", all.Scope, all.ExpiresIn)
	}
	for _, c := range []struct {
		name, parameter, value string
		scope                  string
		seconds                int64
	}{
		{"one scope of two", "scope", "orders:read", "orders:read", 120},
		{"a shorter life", "expires_in", "30", "orders:read orders:write", 30},
		{"a longer life", "expires_in", "3600", "orders:read orders:write", 120},
	} {
		form := w.form("clerk", acme)
		form.Set(c.parameter, c.value)
		got := w.mustToken(form)
		issued := claims(t, got.AccessToken)
		if got.Scope != c.scope || issued.Scopes.String() != c.scope {
			t.Errorf("%s: scope %q in the answer, %q in the token, want %q", c.name, got.Scope, issued.Scopes, c.scope)
		}
		if life := issued.Expires.Sub(issued.IssuedAt); life != time.Duration(c.seconds)*time.Second || got.ExpiresIn != c.seconds {
			t.Errorf("%s: lives %s, answer says %d s, want %d s", c.name, life, got.ExpiresIn, c.seconds)
		}
	}
	form := w.form("clerk", acme)
	form.Set("scope", "orders:read orders:delete")
	if got := w.token(form); got.Error != "invalid_scope" {
		t.Errorf("a scope that the grant lacks: %d %s", got.status, got.Error)
	}
	// Two grants don't add up: each covers a whole request or none of it.
	w.Grant("clerk", orders, "orders:delete", acme)
	form = w.form("clerk", acme)
	form.Set("scope", "orders:read orders:delete")
	if got := w.token(form); got.Error != "invalid_scope" {
		t.Errorf("scopes of two grants in one request: %d %s", got.status, got.Error)
	}
}

// I4: what must not be told apart has one answer, byte for byte.
func TestInvariant_I4_DenialsAreTheSameByteForByte(t *testing.T) {
	w := newWorld(t)
	w.Tenants("sleeping")
	w.Worker("reader", orders, read, acme, "sleeping")
	if _, err := w.Registry().SuspendTenant(t.Context(), w.By(), credential.MustTenant("sleeping"), 0); err != nil {
		t.Fatal(err)
	}
	w.Account("judge")
	for _, condition := range []string{`tenant == "nobody"`, `claims.missing == "x"`} {
		w.GrantTerms(registry.Grant{
			Account: credential.MustAccountID("judge"), Audience: credential.MustAudience(orders),
			Scopes: credential.MustScopes(read), Tenants: []credential.Tenant{credential.MustTenant(acme)}, Condition: condition,
		})
	}
	w.Account("late")
	w.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("late"), Audience: credential.MustAudience(orders),
		Scopes: credential.MustScopes(read), Tenants: []credential.Tenant{credential.MustTenant(acme)},
		NotBefore: time.Now().Add(time.Hour),
	})
	w.Account("loner")
	elsewhere := w.form("reader", acme)
	elsewhere.Set("audience", "no-such-service")
	answers := map[string]answer{
		"unknown tenant":     w.token(w.form("reader", "initech")),
		"ungranted tenant":   w.token(w.form("reader", globex)),
		"suspended tenant":   w.token(w.form("reader", "sleeping")),
		"unknown audience":   w.token(elsewhere),
		"false condition":    w.token(w.form("judge", acme)),
		"grant not yet open": w.token(w.form("late", acme)),
		"no grant at all":    w.token(w.form("loner", acme)),
	}
	sameBytes(t, answers, http.StatusBadRequest, "invalid_target")

	if _, err := w.Registry().DisableAccount(t.Context(), w.By(), credential.MustAccountID("loner"), 0); err != nil {
		t.Fatal(err)
	}
	tampered := w.form("reader", acme)
	tampered.Set("client_assertion", flipSignature(tampered.Get("client_assertion")))
	replayed := w.form("reader", acme)
	w.mustToken(replayed)
	stranger := w.form("reader", acme)
	stranger.Set("client_assertion", sign(t, w.platform.key, "x", map[string]any{
		"iss": "nobody", "sub": "nobody", "aud": w.URL(), "jti": "1", "exp": time.Now().Add(time.Minute).Unix(),
	}))
	expired := w.form("reader", acme)
	expired.Set("client_assertion", w.assertion("reader", func(c map[string]any) {
		c["iat"], c["exp"] = time.Now().Add(-time.Hour).Unix(), time.Now().Add(-time.Hour+time.Minute).Unix()
	}))
	sameBytes(t, map[string]answer{
		"bad signature":    w.token(tampered),
		"replayed":         w.token(replayed),
		"unknown account":  w.token(stranger),
		"disabled account": w.token(w.form("loner", acme)),
		"expired":          w.token(expired),
	}, http.StatusUnauthorized, "invalid_client")
}

// I6: nothing lives long.
func TestInvariant_I6_Short(t *testing.T) {
	w := newWorld(t)
	if got := w.mustToken(w.form(mailer, acme)); got.ExpiresIn != 300 {
		t.Errorf("default life %d s, want 300", got.ExpiresIn)
	}
	w.Account("long")
	w.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("long"), Audience: credential.MustAudience(orders),
		Scopes: credential.MustScopes(read), Tenants: []credential.Tenant{credential.MustTenant(acme)},
		MaxTTL: credential.MustLifetime(credential.MaxAccessLifetime),
	})
	form := w.form("long", acme)
	form.Set("expires_in", "86400")
	if got := w.mustToken(form); got.ExpiresIn != 3600 {
		t.Errorf("a day asked for, %d s given, want the ceiling of 3600", got.ExpiresIn)
	}
	// An operator's ends after ten minutes, whatever the grant and the request say.
	w.Account("keeper")
	post := registry.OperatorSpec{
		Account: credential.MustAccountID("keeper"), Roles: credential.MustScopes("viewer"), Tenant: credential.System,
		MaxTTL: credential.MustLifetime(11 * time.Minute),
	}
	if _, err := w.Registry().CreateOperator(t.Context(), w.By(), post); err == nil {
		t.Error("an operator's grant for 11 minutes was made")
	}
	post.MaxTTL = credential.MustLifetime(credential.MaxOperatorLifetime)
	if _, err := w.Registry().CreateOperator(t.Context(), w.By(), post); err != nil {
		t.Fatal(err)
	}
	form = w.form("keeper", "system")
	form.Set("audience", w.URL()+"/admin")
	form.Set("expires_in", "3600")
	operator := w.mustToken(form)
	if operator.ExpiresIn != 600 {
		t.Errorf("an hour asked for by an operator, %d s given, want 600", operator.ExpiresIn)
	}
	// The verifier holds both ceilings, to the second, whatever was signed.
	for _, c := range []struct {
		what, raw, audience string
		most                time.Duration
	}{
		{"a service's token", w.mustToken(w.form("long", acme)).AccessToken, orders, time.Hour},
		{"an operator's token", operator.AccessToken, w.URL() + "/admin", 10 * time.Minute},
	} {
		tokens := w.Verifier(c.audience)
		for life, want := range map[time.Duration]string{c.most: "", c.most + time.Second: "claim"} {
			cl := claims(t, c.raw)
			cl.Expires = cl.IssuedAt.Add(life)
			if _, err := tokens.Verify(t.Context(), w.forge(string(cl.AppendJSON(nil)))); verifier.Reason(err) != want {
				t.Errorf("%s for %s: %v, want %q", c.what, life, err, want)
			}
		}
	}
	_, _, _, err := w.Registry().CreateClientSecret(t.Context(), w.By(), credential.MustAccountID(mailer), 0, time.Now().Add(91*24*time.Hour))
	if err == nil {
		t.Error("a client secret for 91 days was made")
	}
	_, _, _, err = w.Registry().CreateClientSecret(t.Context(), w.By(), credential.MustAccountID(mailer), 0, time.Time{})
	if err == nil {
		t.Error("a client secret without an end was made")
	}
	form = w.form(mailer, acme)
	form.Set("client_assertion", w.assertion(mailer, func(c map[string]any) {
		c["exp"] = time.Now().Add(6 * time.Minute).Unix()
	}))
	if got := w.token(form); got.Error != "invalid_client" {
		t.Errorf("an assertion of 6 minutes: %d %s", got.status, got.Error)
	}
	// And when its time is over, it is over: with the verifier and with the broker.
	clock := brokertest.NewClock()
	w = newWorld(t, brokertest.WithClock(clock))
	raw := w.mustToken(w.form(mailer, acme)).AccessToken
	tokens := w.Verifier(orders)
	if _, err := tokens.Verify(t.Context(), raw); err != nil {
		t.Fatalf("a fresh token: %v", err)
	}
	clock.Advance(5*time.Minute + credential.Leeway + time.Second)
	if _, err := tokens.Verify(t.Context(), raw); verifier.Reason(err) != "expired" {
		t.Errorf("after its time: %v", err)
	}
}

// sameBytes checks that all answers are equal in status and body, and in the
// headers that could tell them apart.
func sameBytes(t *testing.T, answers map[string]answer, status int, code string) {
	t.Helper()
	shape := func(a answer) string {
		h := a.header.Clone()
		h.Del("X-Request-Id")
		h.Del("Date")
		var lines []string
		for name, values := range h {
			lines = append(lines, name+": "+strings.Join(values, ","))
		}
		slices.Sort(lines)
		return fmt.Sprintf("%d\n%s\n\n%s", a.status, strings.Join(lines, "\n"), a.body)
	}
	var first, firstName string
	for name, a := range answers {
		if a.status != status || a.Error != code {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.Error, status, code)
		}
		if a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no X-Request-Id", name)
		}
		if first == "" {
			first, firstName = shape(a), name
		} else if got := shape(a); got != first {
			t.Errorf("%s and %s differ:\n%s\n---\n%s", firstName, name, first, got)
		}
	}
}
