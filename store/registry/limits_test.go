package registry_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func labels(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("k%d", i)] = "v"
	}
	return m
}

// edge is a value at a limit, which passes, and one beyond it, which is
// refused for the field.
type edge[T any] struct {
	name, field string
	in, out     func(*T)
}

func hold[T any](t *testing.T, edges []edge[T], try func(t *testing.T, set func(*T)) error) {
	for _, e := range edges {
		t.Run(e.name, func(t *testing.T) {
			if e.in != nil {
				if err := try(t, e.in); err != nil {
					t.Errorf("at the limit: %v", err)
				}
			}
			if e.out != nil {
				wantInvalid(t, try(t, e.out), e.field)
			}
		})
	}
}

func TestLimitsOfATenant(t *testing.T) {
	type T = registry.Tenant
	w := newWorld(t)
	n := 0
	hold(t, []edge[T]{
		{"name 200 characters", "display_name", func(x *T) { x.DisplayName = strings.Repeat("ü", 200) }, func(x *T) { x.DisplayName = strings.Repeat("ü", 201) }},
		{"name in UTF-8", "display_name", nil, func(x *T) { x.DisplayName = "a\xff" }},
		{"name that can be seen", "display_name", func(x *T) { x.DisplayName = "\u200b?" }, func(x *T) { x.DisplayName = "\u200b" }},
		{"name without controls", "display_name", func(x *T) { x.DisplayName = "Zoë 👩‍🚀 & Co" }, func(x *T) { x.DisplayName = "a\x1b[31m" }},
		{"name on one line", "display_name", nil, func(x *T) { x.DisplayName = "a\nb" }},
		{"name without line separator", "display_name", nil, func(x *T) { x.DisplayName = "a\u2028b" }},
		{"name that doesn't turn the text round", "display_name", nil, func(x *T) { x.DisplayName = "a\u202eb" }},
		{"32 labels", "labels", func(x *T) { x.Labels = labels(32) }, func(x *T) { x.Labels = labels(33) }},
		{"label key 63", "labels", func(x *T) { x.Labels = map[string]string{strings.Repeat("k", 63): "v"} }, func(x *T) { x.Labels = map[string]string{strings.Repeat("k", 64): "v"} }},
		{"label value 63", "labels", func(x *T) { x.Labels = map[string]string{"k": strings.Repeat("v", 63)} }, func(x *T) { x.Labels = map[string]string{"k": strings.Repeat("v", 64)} }},
		{"label key grammar", "labels", func(x *T) { x.Labels = map[string]string{"a.b/c-d_E": "v"} }, func(x *T) { x.Labels = map[string]string{"/a": "v"} }},
		{"label key not empty", "labels", nil, func(x *T) { x.Labels = map[string]string{"": "v"} }},
		{"label value grammar", "labels", func(x *T) { x.Labels = map[string]string{"k": "1.2_x-y"} }, func(x *T) { x.Labels = map[string]string{"k": "a/b"} }},
		{"label value not empty", "labels", nil, func(x *T) { x.Labels = map[string]string{"k": ""} }},
		{"label without NUL", "labels", nil, func(x *T) { x.Labels = map[string]string{"k\x00": "v"} }},
	}, func(t *testing.T, set func(*T)) error {
		n++
		x := T{ID: credential.MustTenant(fmt.Sprintf("t%d", n))}
		set(&x)
		return errOf(w.CreateTenant(w.ctx(), admin, x))
	})
}

func TestLimitsOfAnAccount(t *testing.T) {
	type T = registry.Account
	w := newWorld(t)
	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	n := 0
	subject := func(length int) registry.Credential {
		n++
		s := fmt.Sprintf("%d:", n)
		return registry.Credential{Kind: registry.Platform, Issuer: "kube", Subject: s + strings.Repeat("s", length-len(s))}
	}
	key := func(kid string) func(*T) {
		return func(x *T) {
			x.Credentials = []registry.Credential{{Kind: registry.PublicKey, JWK: publicJWK(t, kid)}}
		}
	}
	many := func(count int) func(*T) {
		return func(x *T) {
			for range count {
				x.Credentials = append(x.Credentials, subject(20))
			}
		}
	}
	hold(t, []edge[T]{
		{"owner is required", "owner", nil, func(x *T) { x.Owner = "" }},
		{"owner can be seen", "owner", func(x *T) { x.Owner = "山" }, func(x *T) { x.Owner = "\u3164\ufe0f" }},
		{"owner is not blank", "owner", nil, func(x *T) { x.Owner = " \u00a0" }},
		{"owner 200", "owner", func(x *T) { x.Owner = strings.Repeat("o", 200) }, func(x *T) { x.Owner = strings.Repeat("o", 201) }},
		{"description 1000", "description", func(x *T) { x.Description = strings.Repeat("d", 1000) }, func(x *T) { x.Description = strings.Repeat("d", 1001) }},
		{"home is required", "home", nil, func(x *T) { x.Home = credential.Tenant{} }},
		{"home exists", "home", nil, func(x *T) { x.Home = credential.MustTenant("none") }},
		{"end is ahead", "expires_at", func(x *T) { x.ExpiresAt = start.Add(time.Millisecond) }, func(x *T) { x.ExpiresAt = start }},
		{"end has a date", "expires_at", nil, func(x *T) { x.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"20 credentials", "credentials", many(20), many(21)},
		{"kid 128", "credentials.jwk", key(strings.Repeat("k", 128)), key(strings.Repeat("k", 129))},
		{"kid is printable", "credentials.jwk", nil, key("a b")},
		{"key of 8 KiB", "credentials.jwk", nil, func(x *T) {
			jwk := strings.Replace(publicJWK(t, "k"), "{", `{"x":"`+strings.Repeat("x", 8<<10)+`",`, 1)
			x.Credentials = []registry.Credential{{Kind: registry.PublicKey, JWK: jwk}}
		}},
		{"key parses", "credentials.jwk", nil, func(x *T) {
			x.Credentials = []registry.Credential{{Kind: registry.PublicKey, JWK: `{"kty":"EC"}`}}
		}},
		{"credential ends ahead", "credentials.expires_at", nil, func(x *T) {
			c := subject(20)
			c.ExpiresAt = start
			x.Credentials = []registry.Credential{c}
		}},
		{"subject 512", "credentials.subject", func(x *T) { x.Credentials = []registry.Credential{subject(512)} }, func(x *T) { x.Credentials = []registry.Credential{subject(513)} }},
		{"subject without NUL", "credentials.subject", nil, func(x *T) {
			c := subject(20)
			c.Subject += "\x00"
			x.Credentials = []registry.Credential{c}
		}},
		{"condition 2048", "credentials.condition",
			func(x *T) {
				x.Credentials = []registry.Credential{{Kind: registry.Platform, Issuer: "kube", Condition: strings.Repeat("c", 2048)}}
			},
			func(x *T) {
				x.Credentials = []registry.Credential{{Kind: registry.Platform, Issuer: "kube", Condition: strings.Repeat("c", 2049)}}
			}},
	}, func(t *testing.T, set func(*T)) error {
		n++
		x := T{ID: credential.MustAccountID(fmt.Sprintf("a%d", n)), Home: credential.System, Owner: "x"}
		set(&x)
		return errOf(w.CreateAccount(w.ctx(), admin, x))
	})
}

func TestLimitsOfAnAudience(t *testing.T) {
	w := stage(t)
	owner := credential.MustAccountID("worker")
	for _, name := range []string{brokerURL, brokerURL + "/admin", brokerURL + "/x", strings.ToUpper(brokerURL) + "/admin"} {
		_, err := w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience(name), Owner: owner})
		wantErr(t, err, registry.ErrReserved)
	}
	must(w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience(brokerURL + "x"), Owner: owner}))(t)
	_, err := w.CreateAudience(w.ctx(), admin, registry.Audience{Owner: owner})
	wantInvalid(t, err, "name")
	_, err = w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience("n")})
	wantInvalid(t, err, "owner")
	_, err = w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience("n"), Owner: credential.MustAccountID("none")})
	wantInvalid(t, err, "owner")
	_, err = w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience("n"), Owner: owner, Description: strings.Repeat("d", 1001)})
	wantInvalid(t, err, "description")
	_, err = w.UpdateAudience(w.ctx(), admin, credential.MustAudience("orders"), 0, func(a *registry.Audience) error { a.Name = credential.MustAudience("n"); return nil })
	wantInvalid(t, err, "name")
	_, err = w.UpdateAudience(w.ctx(), admin, credential.MustAudience("orders"), 0, func(a *registry.Audience) error { a.Owner = credential.AccountID{}; return nil })
	wantInvalid(t, err, "owner")
}

func TestLimitsOfAGrant(t *testing.T) {
	type T = registry.Grant
	w := stage(t)
	var thousand []registry.Tenant
	for i := range 1001 {
		thousand = append(thousand, registry.Tenant{ID: credential.MustTenant(fmt.Sprintf("t%04d", i))})
	}
	must(w.Import(w.ctx(), admin, registry.Objects{Tenants: thousand}))(t)
	list := func(n int) func(*T) {
		return func(g *T) {
			g.Tenants = nil
			for _, x := range thousand[:n] {
				g.Tenants = append(g.Tenants, x.ID)
			}
		}
	}
	anyTenant := func(a registry.AnyTenant) func(*T) {
		return func(g *T) { g.Tenants, g.AnyTenant = nil, &a }
	}
	fanOut := func(n int, window time.Duration) func(*T) {
		return func(g *T) { g.FanOut = &registry.FanOut{Tenants: n, Window: window} }
	}
	grantLabels := func(m map[string]string) func(*T) { return func(g *T) { g.Tenants, g.TenantLabels = nil, m } }
	day := 24 * time.Hour
	hold(t, []edge[T]{
		{"account is required", "account", nil, func(g *T) { g.Account = credential.AccountID{} }},
		{"account exists", "account", nil, func(g *T) { g.Account = credential.MustAccountID("none") }},
		{"audience is required", "audience", nil, func(g *T) { g.Audience = credential.Audience{} }},
		{"audience exists", "audience", nil, func(g *T) { g.Audience = credential.MustAudience("none") }},
		{"one scope", "scopes", nil, func(g *T) { g.Scopes = credential.Scopes{} }},
		{"1000 tenants", "tenants", list(1000), list(1001)},
		{"tenants exist", "tenants", nil, func(g *T) { g.Tenants = append(g.Tenants, credential.MustTenant("none")) }},
		{"never system", "tenants", nil, func(g *T) { g.Tenants = append(g.Tenants, credential.System) }},
		{"never none", "tenants", nil, func(g *T) { g.Tenants = append(g.Tenants, credential.Tenant{}) }},
		{"one way, not none", "tenants", nil, func(g *T) { g.Tenants = nil }},
		{"one way, not two", "tenants", nil, func(g *T) { g.TenantFrom = "claims.t" }},
		{"one way, not labels too", "tenants", nil, func(g *T) { g.TenantLabels = labels(1) }},
		{"8 labels", "tenant_labels", grantLabels(labels(8)), grantLabels(labels(9))},
		{"labels grammar", "tenant_labels", nil, grantLabels(map[string]string{"k": ""})},
		{"tenant_from is checked", "tenant_from", func(g *T) { g.Tenants, g.TenantFrom = nil, "claims.t" }, func(g *T) { g.Tenants, g.TenantFrom = nil, "broken(" }},
		{"tenant_from 2048", "tenant_from", func(g *T) { g.Tenants, g.TenantFrom = nil, strings.Repeat("c", 2048) }, func(g *T) { g.Tenants, g.TenantFrom = nil, strings.Repeat("c", 2049) }},
		{"condition is checked", "condition", func(g *T) { g.Condition = "true" }, func(g *T) { g.Condition = "broken(" }},
		{"condition 2048", "condition", func(g *T) { g.Condition = strings.Repeat("c", 2048) }, func(g *T) { g.Condition = strings.Repeat("c", 2049) }},
		{"reason 500", "reason", func(g *T) { g.Reason = strings.Repeat("r", 500) }, func(g *T) { g.Reason = strings.Repeat("r", 501) }},
		{"ttl 60 minutes", "", func(g *T) { g.MaxTTL = credential.MustLifetime(time.Hour) }, nil}, // more is not a Lifetime
		{"any_tenant 30 days", "any_tenant.expires_at", anyTenant(registry.AnyTenant{Reason: "r", ExpiresAt: start.Add(30 * day)}), anyTenant(registry.AnyTenant{Reason: "r", ExpiresAt: start.Add(30*day + time.Millisecond)})},
		{"any_tenant ends", "any_tenant.expires_at", nil, anyTenant(registry.AnyTenant{Reason: "r"})},
		{"any_tenant ends ahead", "any_tenant.expires_at", nil, anyTenant(registry.AnyTenant{Reason: "r", ExpiresAt: start})},
		{"any_tenant has a reason", "any_tenant.reason", nil, anyTenant(registry.AnyTenant{ExpiresAt: start.Add(day)})},
		{"any_tenant reason 500", "any_tenant.reason", nil, anyTenant(registry.AnyTenant{Reason: strings.Repeat("r", 501), ExpiresAt: start.Add(day)})},
		{"fan_out 1000", "fan_out.tenants", fanOut(1000, time.Hour), fanOut(1001, time.Hour)},
		{"fan_out 1", "fan_out.tenants", fanOut(1, time.Hour), fanOut(0, time.Hour)},
		{"fan_out 24 hours", "fan_out.window", fanOut(5, day), fanOut(5, day+time.Second)},
		{"fan_out 1 minute", "fan_out.window", fanOut(5, time.Minute), fanOut(5, 59*time.Second)},
		{"fan_out whole seconds", "fan_out.window", nil, fanOut(5, time.Hour+time.Millisecond)},
		{"end is ahead", "expires_at", func(g *T) { g.ExpiresAt = start.Add(time.Second) }, func(g *T) { g.ExpiresAt = start }},
		{"start before end", "not_before", func(g *T) { g.NotBefore, g.ExpiresAt = start.Add(day), start.Add(day+time.Second) }, func(g *T) { g.NotBefore, g.ExpiresAt = start.Add(day), start.Add(day) }},
		{"start has a date", "not_before", nil, func(g *T) { g.NotBefore = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
	}, func(t *testing.T, set func(*T)) error {
		g := grantFor("worker", "orders", "acme")
		set(&g)
		made, err := w.CreateGrant(w.ctx(), admin, g)
		if err != nil {
			return err
		}
		return w.DeleteGrant(w.ctx(), admin, made.ID, made.Version)
	})

	for _, name := range []string{brokerURL, brokerURL + "/admin", brokerURL + "/revocations", brokerURL + "/leases/x", brokerURL + "/Leases"} {
		_, err := w.CreateGrant(w.ctx(), admin, grantFor("worker", name, "acme"))
		wantErr(t, err, registry.ErrReserved)
	}
}

func TestARequestNeverHasToLookAtMoreThanABoundedNumberOfGrants(t *testing.T) {
	w := stage(t)
	open := grantFor("worker", "orders")
	open.TenantFrom = "claims.t"
	for range registry.MaxOpenGrants {
		must(w.CreateGrant(w.ctx(), admin, open))(t)
	}
	_, err := w.CreateGrant(w.ctx(), admin, open)
	wantInvalid(t, err, "tenants")
	var last registry.Grant
	for range registry.MaxListedGrants {
		last = w.grant("worker", "orders", "acme")
	}
	_, err = w.CreateGrant(w.ctx(), admin, grantFor("worker", "orders", "acme"))
	wantInvalid(t, err, "tenants")
	_, err = w.UpdateGrant(w.ctx(), admin, last.ID, 0, func(g *registry.Grant) error { g.Tenants, g.TenantFrom = nil, "claims.t"; return nil })
	wantInvalid(t, err, "tenants")
	// One that is there already may be edited in a full house.
	must(w.UpdateGrant(w.ctx(), admin, last.ID, 0, func(g *registry.Grant) error { g.Reason = "more"; return nil }))(t)
	if n := len(w.grantsAt("worker", "orders", "acme")); n != registry.MaxOpenGrants+registry.MaxListedGrants {
		t.Errorf("%d candidates", n)
	}
}

func TestReasonsOfChangesAreBounded(t *testing.T) {
	w := newWorld(t)
	try := func(id, reason string) error {
		by := admin
		by.Reason = reason
		return errOf(w.CreateTenant(w.ctx(), by, registry.Tenant{ID: credential.MustTenant(id)}))
	}
	if err := try("a", strings.Repeat("ß", 500)); err != nil {
		t.Error(err)
	}
	for _, reason := range []string{"", strings.Repeat("ß", 501), "a\nb"} {
		wantInvalid(t, try("b", reason), "reason")
	}
}

func TestWithoutACheckerNoExpressionIsTaken(t *testing.T) {
	w := stage(t)
	g := registry.New(w.st, credential.MustIssuerURL(brokerURL), w.clock, registry.WithCacheEntries(0))
	open := grantFor("worker", "orders")
	open.TenantFrom = "claims.t"
	_, err := g.CreateGrant(w.ctx(), admin, open)
	wantInvalid(t, err, "tenant_from")
}

func TestLimitsOfATrustedIssuer(t *testing.T) {
	type T = registry.TrustedIssuer
	w := newWorld(t)
	dev := newWorld(t, registry.AllowLoopbackHTTP())
	jwks := `{"keys":[` + publicJWK(t, "k1") + `]}`
	cert := certificate(t)
	algs := func(a ...credential.Algorithm) func(*T) { return func(x *T) { x.Algorithms = a } }
	iss := func(s string) func(*T) { return func(x *T) { x.Issuer = s } }
	cidr := func(s ...string) func(*T) { return func(x *T) { x.AllowedCIDR = s } }
	jwksURL := func(s string) func(*T) { return func(x *T) { x.Discovery, x.JWKSURL = false, s } }
	static := func(s string) func(*T) { return func(x *T) { x.Discovery, x.JWKS = false, s } }
	bundle := func(s string) func(*T) { return func(x *T) { x.CABundle = s } }
	hosts := make([]string, 33)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("10.0.0.%d/32", i)
	}
	n := 0
	hold(t, []edge[T]{
		{"id grammar", "id", nil, func(x *T) { x.ID = "a b" }},
		{"id 128", "id", func(x *T) { x.ID = strings.Repeat("i", 128) }, func(x *T) { x.ID = strings.Repeat("i", 129) }},
		{"https", "issuer", iss("https://oidc.eks.eu.example/id/X"), iss("http://kube.example")},
		{"http on loopback needs leave", "issuer", nil, iss("http://127.0.0.1:8080")},
		{"no user", "issuer", nil, iss("https://u@kube.example")},
		{"no query", "issuer", nil, iss("https://kube.example?x")},
		{"no fragment", "issuer", nil, iss("https://kube.example#")},
		{"a host", "issuer", nil, iss("https:///x")},
		{"a URL", "issuer", nil, iss("kube")},
		{"no space", "issuer", nil, iss("https://kube.example/a b")},
		{"1024 bytes", "issuer", iss("https://kube.example/" + strings.Repeat("x", 1024-21)), iss("https://kube.example/" + strings.Repeat("x", 1025-21))},
		{"trust domain", "issuer",
			func(x *T) { x.Issuer, x.Discovery, x.JWKS = "spiffe://prod.example", false, jwks },
			func(x *T) { x.Issuer, x.Discovery, x.JWKS = "spiffe://prod.example/w", false, jwks }},
		{"trust domain has no discovery", "discovery", nil, iss("spiffe://stage.example")},
		{"audience grammar", "audience", func(x *T) { x.Audience = "api://broker" }, func(x *T) { x.Audience = "" }},
		{"one key source, not none", "discovery", nil, func(x *T) { x.Discovery = false }},
		{"one key source, not two", "discovery", nil, func(x *T) { x.JWKS = jwks }},
		{"jwks_url https", "jwks_url", jwksURL("https://kube.example/keys?v=1"), jwksURL("http://kube.example/keys")},
		{"jwks_url not spiffe", "jwks_url", nil, jwksURL("spiffe://kube.example")},
		{"jwks parses", "jwks", static(jwks), static(`{"keys":{}}`)},
		{"jwks holds a key", "jwks", nil, static(`{"keys":[]}`)},
		{"jwks 64 KiB", "jwks", nil, static(jwks + strings.Repeat(" ", 64<<10))},
		{"algorithms", "algorithms", algs(credential.ES256, credential.ES384, credential.EdDSA, credential.RS256, credential.PS256), algs()},
		{"algorithms known", "algorithms", nil, algs("none")},
		{"algorithms not symmetric", "algorithms", nil, algs(credential.RS256, "HS256")},
		{"algorithms once", "algorithms", nil, algs(credential.RS256, credential.RS256)},
		{"32 ranges", "allowed_cidrs", cidr(hosts[:32]...), cidr(hosts...)},
		{"ranges parse", "allowed_cidrs", cidr("10.2.0.0/16", "fd00::/8"), cidr("10.2.0.0")},
		{"ranges are masked", "allowed_cidrs", nil, cidr("10.2.3.4/16")},
		{"ranges are plain", "allowed_cidrs", nil, cidr("::ffff:10.0.0.0/104")},
		{"bundle of certificates", "ca_bundle", bundle(cert + "\n" + cert), bundle("nothing")},
		{"bundle of certificates only", "ca_bundle", nil, bundle(cert + "and more")},
		{"bundle without keys", "ca_bundle", nil, bundle(cert + "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")},
		{"bundle that parses", "ca_bundle", nil, bundle("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")},
		{"bundle 64 KiB", "ca_bundle", nil, bundle(strings.Repeat(cert, 1+(64<<10)/len(cert)))},
	}, func(t *testing.T, set func(*T)) error {
		n++
		x := platform(fmt.Sprintf("i%d", n), fmt.Sprintf("https://i%d.example", n))
		set(&x)
		return errOf(w.CreateIssuer(w.ctx(), admin, x))
	})

	for _, own := range []string{brokerURL, brokerURL + "/", strings.ToUpper(brokerURL), brokerURL + "/realm"} {
		_, err := w.CreateIssuer(w.ctx(), admin, platform("own", own))
		wantErr(t, err, registry.ErrReserved)
	}
	for i, url := range []string{"http://127.0.0.1:1", "http://[::1]:1/x", "http://localhost:1"} {
		must(dev.CreateIssuer(dev.ctx(), admin, platform(fmt.Sprintf("l%d", i), url)))(t)
	}
	for _, url := range []string{"http://127.0.0.1.example", "http://localhost.example", "http://10.0.0.1"} {
		_, err := dev.CreateIssuer(dev.ctx(), admin, platform("x", url))
		wantInvalid(t, err, "issuer")
	}
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: start.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Each trusted issuer's keys are held in memory, so that there is a most.
func TestTrustedIssuersAreBounded(t *testing.T) {
	if registry.MaxIssuers != 1000 {
		t.Errorf("the limit is %d", registry.MaxIssuers)
	}
	w := newWorld(t)
	numbered := func(n int) registry.TrustedIssuer {
		return platform(fmt.Sprintf("i%d", n), fmt.Sprintf("https://i%d.example", n))
	}
	var most registry.Objects
	for n := range registry.MaxIssuers {
		most.Issuers = append(most.Issuers, numbered(n))
	}
	if n := must(w.Import(w.ctx(), admin, most))(t); n != registry.MaxIssuers {
		t.Fatalf("%d issuers are in", n)
	}
	more := numbered(registry.MaxIssuers)
	_, err := w.CreateIssuer(w.ctx(), admin, more)
	wantInvalid(t, err, "id")
	_, err = w.Import(w.ctx(), admin, registry.Objects{Issuers: []registry.TrustedIssuer{more}})
	wantInvalid(t, err, "id")
	_, err = w.CreateIssuer(w.ctx(), admin, numbered(0))
	wantErr(t, err, registry.ErrExists)
	must(w.UpdateIssuer(w.ctx(), admin, "i1", 0, func(i *registry.TrustedIssuer) error { i.Audience = "other"; return nil }))(t)

	if err := w.DeleteIssuer(w.ctx(), admin, "i0", 0); err != nil {
		t.Fatal(err)
	}
	must(w.CreateIssuer(w.ctx(), admin, more))(t)
}

// A reason says something to whoever reads it.
func TestAReasonCanBeSeen(t *testing.T) {
	w := stage(t)
	for reason, good := range map[string]bool{
		"": false, " ": false, "\u00a0\u3000": false, "\u200b": false, " \u200d\u2060\ufeff ": false, "\u00ad": false, "\u2800": false,
		"\u115f\uffa0": false, "\u0301": false, "\U000e0061": false,
		"x": true, "7": true, "!": true, "é": true, "山": true, "👩‍🚀": true, "\u200bok": true, "नि": true,
	} {
		by := admin
		by.Reason = reason
		err := errOf(w.UpdateTenant(w.ctx(), by, credential.MustTenant("acme"), 0, func(*registry.Tenant) error { return nil }))
		if good && err != nil {
			t.Errorf("%+q: %v", reason, err)
		} else if !good {
			wantInvalid(t, err, "reason")
		}
	}
}
