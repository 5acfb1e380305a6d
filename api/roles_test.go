package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// operation is a call of one route, aimed at fresh objects that belong to the
// tenant acme where the route has objects at all.
type operation struct {
	route string // method and pattern, and what is special about this call
	// system and acme are the statuses for viewer, operator, security, admin of
	// the whole broker and of acme.
	system, acme [4]int
	aim          func(w *world) (path string, body any)
	after        func(w *world)
}

func everyOne(status int) [4]int { return [4]int{status, status, status, status} }

func from(n, status int) [4]int {
	all := everyOne(403)
	for i := n; i < 4; i++ {
		all[i] = status
	}
	return all
}

const (
	viewerUp = iota
	operatorUp
	securityUp
	adminUp
)

func freshAccount(w *world) string { return w.account(w.unique("acc"), "acme").String() }

func freshAudience(w *world) string {
	name := w.unique("aud")
	w.audience(name, "owner")
	return name
}

func freshGrant(w *world) string { return w.grant(freshAccount(w), "shared", "read", "acme").ID }

// secretOf is the body that declares a secret of a tenant.
func secretOf(w *world, tenant string) string {
	id := w.unique("sec")
	account := w.account(w.unique("acc"), tenant).String()
	return `{"id":"` + id + `","kind":"kv","spec":{"path":"tenants/` + tenant + `/` + id + `"},"tenant":"` + tenant + `","owner":"` + account +
		`","consumers":["` + account + `"],"reason":"r"}`
}

func freshSecret(tenant string) func(w *world) string {
	return func(w *world) string {
		body := secretOf(w, tenant)
		if a := w.call(w.rootToken(), "POST", "/v1/secrets", body); a.status != 201 {
			w.t.Fatalf("%d %s", a.status, a.body)
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(body, `{"id":"`), `"`)
		return id
	}
}

func freshIssuer(w *world) string {
	id := w.unique("iss")
	must[registry.TrustedIssuer](w.t)(w.registry.CreateIssuer(w.t.Context(), root(), registry.TrustedIssuer{
		ID: id, Issuer: "https://" + id + ".example", Audience: "broker", Discovery: true, Algorithms: []credential.Algorithm{"ES256"}}))
	return id
}

func at(pattern string, id func(*world) string, body any) func(*world) (string, any) {
	return func(w *world) (string, any) { return strings.Replace(pattern, "{}", url.PathEscape(id(w)), 1), body }
}

func on(path string, body any) func(*world) (string, any) {
	return func(*world) (string, any) { return path, body }
}

const because = `{"reason":"r"}`

func matrix() []operation {
	resume := func(w *world) {
		if t, _ := w.registry.Tenant(w.t.Context(), root(), credential.MustTenant("acme")); t.State == registry.TenantSuspended {
			must[registry.Tenant](w.t)(w.registry.ResumeTenant(w.t.Context(), root(), t.ID, 0))
			w.advance(time.Second) // in this one there are no tokens for it
		}
	}
	nextSecond := func(w *world) { w.advance(time.Second) } // in this one there are no tokens for acme
	acme := func(*world) string { return "acme" }
	fresh := func(w *world) string { return w.tenant(w.unique("ten")).String() }
	soon := func(w *world, d time.Duration) string { return w.clock().Add(d).Format(time.RFC3339) }
	return []operation{
		{route: "GET /v1/tenants", system: everyOne(200), acme: everyOne(200), aim: on("/v1/tenants", nil)},
		{route: "POST /v1/tenants", system: from(operatorUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) { return "/v1/tenants", `{"id":"` + w.unique("new") + `","reason":"r"}` }},
		{route: "GET /v1/tenants/{id}", system: everyOne(200), acme: everyOne(200), aim: on("/v1/tenants/acme", nil)},
		{route: "GET /v1/tenants/{id} of another", system: everyOne(200), acme: everyOne(404), aim: on("/v1/tenants/globex", nil)},
		{route: "PATCH /v1/tenants/{id}", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: on("/v1/tenants/acme", `{"display_name":"A","reason":"r"}`)},
		{route: "PATCH /v1/tenants/{id} of another", system: from(operatorUp, 200), acme: [4]int{403, 404, 404, 404},
			aim: on("/v1/tenants/globex", `{"display_name":"A","reason":"r"}`)},
		{route: "PATCH /v1/tenants/{id} on a label that a grant uses", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: func(w *world) (string, any) {
				return "/v1/tenants/acme", `{"labels":{"plan":"` + w.unique("p") + `"},"reason":"r"}`
			}},
		{route: "DELETE /v1/tenants/{id}", system: from(securityUp, 204), acme: everyOne(403), aim: at("/v1/tenants/{}?reason=r", fresh, nil)},
		{route: "POST /v1/tenants/{id}/suspend", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: at("/v1/tenants/{}/suspend", acme, because), after: resume},
		{route: "POST /v1/tenants/{id}/suspend of another", system: from(securityUp, 200), acme: [4]int{403, 403, 404, 404},
			aim: on("/v1/tenants/globex/suspend", because)},
		{route: "POST /v1/tenants/{id}/resume", system: from(securityUp, 200), acme: everyOne(403), aim: on("/v1/tenants/acme/resume", because)},

		{route: "GET /v1/accounts", system: everyOne(200), acme: everyOne(200), aim: on("/v1/accounts", nil)},
		{route: "POST /v1/accounts", system: from(operatorUp, 201), acme: from(operatorUp, 201),
			aim: func(w *world) (string, any) {
				return "/v1/accounts", `{"id":"` + w.unique("new") + `","home":"acme","owner":"o","reason":"r"}`
			}},
		{route: "POST /v1/accounts at home elsewhere", system: from(operatorUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) {
				return "/v1/accounts", `{"id":"` + w.unique("new") + `","home":"system","owner":"o","reason":"r"}`
			}},
		{route: "GET /v1/accounts/{id}", system: everyOne(200), acme: everyOne(200), aim: at("/v1/accounts/{}", freshAccount, nil)},
		{route: "GET /v1/accounts/{id} of another", system: everyOne(200), acme: everyOne(404), aim: on("/v1/accounts/root", nil)},
		{route: "PATCH /v1/accounts/{id}", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: at("/v1/accounts/{}", freshAccount, `{"owner":"x","reason":"r"}`)},
		{route: "PATCH /v1/accounts/{id} of an operator", system: from(adminUp, 200), acme: [4]int{403, 404, 404, 404},
			aim: on("/v1/accounts/root", `{"owner":"x","reason":"r"}`)},
		{route: "DELETE /v1/accounts/{id}", system: from(securityUp, 204), acme: from(securityUp, 204), aim: at("/v1/accounts/{}?reason=r", freshAccount, nil)},
		{route: "POST /v1/accounts/{id}/disable", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: at("/v1/accounts/{}/disable", freshAccount, because)},
		{route: "POST /v1/accounts/{id}/enable", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: at("/v1/accounts/{}/enable", freshAccount, because)},
		{route: "POST /v1/accounts/{id}/credentials", system: from(operatorUp, 201), acme: from(operatorUp, 201),
			aim: func(w *world) (string, any) {
				return "/v1/accounts/" + freshAccount(w) + "/credentials", `{"kind":"public_key","jwk":` + w.newKey(w.unique("k")) + `,"reason":"r"}`
			}},
		{route: "POST /v1/accounts/{id}/credentials for an operator", system: from(adminUp, 201), acme: [4]int{403, 404, 404, 404},
			aim: func(w *world) (string, any) {
				return "/v1/accounts/other-op/credentials", `{"kind":"public_key","jwk":` + w.newKey(w.unique("k")) + `,"reason":"r"}`
			}},
		{route: "POST /v1/accounts/{id}/credentials of a secret", system: from(securityUp, 201), acme: from(securityUp, 201),
			aim: func(w *world) (string, any) {
				return "/v1/accounts/" + freshAccount(w) + "/credentials", `{"kind":"client_secret","expires_at":"` + soon(w, time.Hour) + `","reason":"r"}`
			}},
		{route: "DELETE /v1/accounts/{id}/credentials/{credential}", system: from(securityUp, 204), acme: from(securityUp, 204),
			aim: func(w *world) (string, any) {
				id := freshAccount(w)
				return "/v1/accounts/" + id + "/credentials/k-" + id + "?reason=r", nil
			}},

		{route: "GET /v1/audiences", system: everyOne(200), acme: everyOne(200), aim: on("/v1/audiences", nil)},
		{route: "POST /v1/audiences", system: from(operatorUp, 201), acme: from(operatorUp, 201),
			aim: func(w *world) (string, any) {
				return "/v1/audiences", `{"name":"` + w.unique("new") + `","owner":"owner","reason":"r"}`
			}},
		{route: "GET /v1/audiences/{name}", system: everyOne(200), acme: everyOne(200), aim: at("/v1/audiences/{}", freshAudience, nil)},
		{route: "GET /v1/audiences/{name} of another", system: everyOne(200), acme: everyOne(404), aim: on("/v1/audiences/shared", nil)},
		{route: "PATCH /v1/audiences/{name}", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: at("/v1/audiences/{}", freshAudience, `{"description":"x","reason":"r"}`)},
		{route: "DELETE /v1/audiences/{name}", system: from(securityUp, 204), acme: from(securityUp, 204),
			aim: at("/v1/audiences/{}?reason=r", freshAudience, nil)},

		{route: "GET /v1/grants", system: everyOne(200), acme: everyOne(200), aim: on("/v1/grants", nil)},
		{route: "POST /v1/grants", system: from(operatorUp, 201), acme: from(operatorUp, 201),
			aim: func(w *world) (string, any) {
				return "/v1/grants", `{"account":"` + freshAccount(w) + `","audience":"shared","scopes":"read","tenants":["acme"],"reason":"r"}`
			}},
		{route: "POST /v1/grants for another tenant", system: from(operatorUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) {
				return "/v1/grants", `{"account":"` + freshAccount(w) + `","audience":"shared","scopes":"read","tenants":["globex"],"reason":"r"}`
			}},
		{route: "POST /v1/grants for any tenant", system: from(securityUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) {
				return "/v1/grants", `{"account":"` + freshAccount(w) + `","audience":"shared","scopes":"read","any_tenant":{"reason":"x","expires_at":"` + soon(w, time.Hour) + `"},"reason":"r"}`
			}},
		{route: "POST /v1/grants for the broker's own audience", system: [4]int{403, 409, 409, 409}, acme: [4]int{403, 409, 409, 409},
			aim: func(w *world) (string, any) {
				return "/v1/grants", `{"account":"` + freshAccount(w) + `","audience":"` + testIssuer + `/admin","scopes":"admin","tenants":["acme"],"reason":"r"}`
			}},
		{route: "GET /v1/grants/{id}", system: everyOne(200), acme: everyOne(200), aim: at("/v1/grants/{}", freshGrant, nil)},
		{route: "GET /v1/grants/{id} of another", system: everyOne(200), acme: everyOne(404),
			aim: at("/v1/grants/{}", func(w *world) string { return w.grant(freshAccount(w), "shared", "read", "globex").ID }, nil)},
		{route: "PATCH /v1/grants/{id}", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: at("/v1/grants/{}", freshGrant, `{"scopes":"write","reason":"r"}`)},
		{route: "PATCH /v1/grants/{id} to reach further", system: from(operatorUp, 200), acme: everyOne(403),
			aim: at("/v1/grants/{}", freshGrant, `{"tenants":["acme","globex"],"reason":"r"}`)},
		{route: "DELETE /v1/grants/{id}", system: from(securityUp, 204), acme: from(securityUp, 204), aim: at("/v1/grants/{}?reason=r", freshGrant, nil)},
		{route: "POST /v1/grants/{id}/approve", system: from(securityUp, 200), acme: [4]int{403, 403, 404, 404},
			aim: at("/v1/grants/{}/approve", func(w *world) string {
				return must[registry.Grant](w.t)(w.registry.CreateGrant(w.t.Context(), root(), registry.Grant{
					Account: credential.MustAccountID(freshAccount(w)), Audience: mustAudience("shared"), Scopes: credential.MustScopes("read"),
					AnyTenant: &registry.AnyTenant{Reason: "x", ExpiresAt: w.clock().Add(time.Hour)}})).ID
			}, because)},

		{route: "GET /v1/issuers", system: everyOne(200), acme: everyOne(200), aim: on("/v1/issuers", nil)},
		{route: "POST /v1/issuers", system: from(securityUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) {
				id := w.unique("new")
				return "/v1/issuers", `{"id":"` + id + `","issuer":"https://` + id + `.example","audience":"b","discovery":true,"algorithms":["ES256"],"reason":"r"}`
			}},
		{route: "GET /v1/issuers/{id}", system: everyOne(200), acme: everyOne(404), aim: at("/v1/issuers/{}", freshIssuer, nil)},
		{route: "PATCH /v1/issuers/{id}", system: from(securityUp, 200), acme: everyOne(403),
			aim: at("/v1/issuers/{}", freshIssuer, `{"audience":"x","reason":"r"}`)},
		{route: "DELETE /v1/issuers/{id}", system: from(securityUp, 204), acme: everyOne(403), aim: at("/v1/issuers/{}?reason=r", freshIssuer, nil)},

		{route: "GET /v1/operators", system: everyOne(200), acme: everyOne(200), aim: on("/v1/operators", nil)},
		{route: "POST /v1/operators", system: from(adminUp, 201), acme: from(adminUp, 201),
			aim: func(w *world) (string, any) {
				return "/v1/operators", `{"account":"` + freshAccount(w) + `","roles":"viewer","tenant":"acme","reason":"r"}`
			}},
		{route: "POST /v1/operators of the whole broker", system: from(adminUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) {
				return "/v1/operators", `{"account":"` + w.account(w.unique("acc"), "system").String() + `","roles":"viewer","tenant":"system","reason":"r"}`
			}},
		{route: "DELETE /v1/operators/{grant}", system: from(adminUp, 204), acme: from(adminUp, 204),
			aim: at("/v1/operators/{}?reason=r", func(w *world) string { return w.operatorGrant(freshAccount(w), "viewer", "acme").ID }, nil)},
		{route: "DELETE /v1/operators/{grant} of the whole broker", system: from(adminUp, 204), acme: [4]int{403, 403, 403, 404},
			aim: at("/v1/operators/{}?reason=r", func(w *world) string {
				return w.operatorGrant(w.account(w.unique("acc"), "system").String(), "viewer", "system").ID
			}, nil)},

		{route: "GET /v1/leases", system: everyOne(200), acme: everyOne(200), aim: on("/v1/leases", nil)},
		{route: "GET /v1/leases of another", system: everyOne(200), acme: everyOne(200), aim: on("/v1/leases?tenant=globex&state=ending", nil)},
		{route: "DELETE /v1/leases/{id} that is not there", system: from(securityUp, 404), acme: from(securityUp, 404),
			aim: on("/v1/leases/x?reason=r", nil)},
		{route: "GET /v1/secrets", system: everyOne(200), acme: everyOne(200), aim: on("/v1/secrets", nil)},
		{route: "POST /v1/secrets", system: from(operatorUp, 201), acme: from(operatorUp, 201),
			aim: func(w *world) (string, any) { return "/v1/secrets", secretOf(w, "acme") }},
		{route: "POST /v1/secrets for another tenant", system: from(operatorUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) { return "/v1/secrets", secretOf(w, "globex") }},
		{route: "POST /v1/secrets outside the tenant's folder", system: from(operatorUp, 201), acme: everyOne(403),
			aim: func(w *world) (string, any) {
				return "/v1/secrets", strings.Replace(secretOf(w, "acme"), "tenants/acme/", "other/", 1)
			}},
		{route: "POST /v1/secrets in another tenant's folder", system: [4]int{403, 422, 422, 422}, acme: [4]int{403, 422, 422, 422},
			aim: func(w *world) (string, any) {
				return "/v1/secrets", strings.Replace(secretOf(w, "acme"), "tenants/acme/", "tenants/globex/", 1)
			}},
		{route: "POST /v1/secrets/rotate", system: from(operatorUp, 412), acme: from(operatorUp, 412),
			aim: on("/v1/secrets/rotate", `{"tenant":"acme","digest":"x","reason":"r"}`)},
		{route: "POST /v1/secrets/rotate to see a plan", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: on("/v1/secrets/rotate", `{"tenant":"acme","plan":true}`)},
		{route: "GET /v1/secrets/{id}", system: everyOne(200), acme: everyOne(200), aim: at("/v1/secrets/{}", freshSecret("acme"), nil)},
		{route: "GET /v1/secrets/{id} of another", system: everyOne(200), acme: everyOne(404), aim: at("/v1/secrets/{}", freshSecret("globex"), nil)},
		{route: "PATCH /v1/secrets/{id}", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: at("/v1/secrets/{}", freshSecret("acme"), `{"description":"d","schedule":{"every":"24h"},"reason":"r"}`)},
		{route: "PATCH /v1/secrets/{id} of another", system: from(operatorUp, 200), acme: [4]int{403, 404, 404, 404},
			aim: at("/v1/secrets/{}", freshSecret("globex"), `{"description":"d","reason":"r"}`)},
		{route: "DELETE /v1/secrets/{id}", system: from(securityUp, 204), acme: from(securityUp, 204),
			aim: at("/v1/secrets/{}?reason=r", freshSecret("acme"), nil)},
		{route: "DELETE /v1/secrets/{id} of another", system: from(securityUp, 204), acme: [4]int{403, 403, 404, 404},
			aim: at("/v1/secrets/{}?reason=r", freshSecret("globex"), nil)},
		{route: "POST /v1/secrets/{id}/rotate", system: from(operatorUp, 200), acme: from(operatorUp, 200),
			aim: at("/v1/secrets/{}/rotate", freshSecret("acme"), because)},
		{route: "POST /v1/secrets/{id}/rotate of another", system: from(operatorUp, 200), acme: [4]int{403, 404, 404, 404},
			aim: at("/v1/secrets/{}/rotate", freshSecret("globex"), because)},
		{route: "POST /v1/secrets/{id}/rotate by force", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: at("/v1/secrets/{}/rotate", freshSecret("acme"), `{"force":true,"reason":"r"}`)},
		{route: "POST /v1/secrets/{id}/abort", system: from(operatorUp, 409), acme: from(operatorUp, 409),
			aim: at("/v1/secrets/{}/abort", freshSecret("acme"), because)},
		{route: "POST /v1/secrets/{id}/abort of another", system: from(operatorUp, 409), acme: [4]int{403, 404, 404, 404},
			aim: at("/v1/secrets/{}/abort", freshSecret("globex"), because)},

		{route: "GET /v1/keys", system: everyOne(200), acme: everyOne(200), aim: on("/v1/keys", nil)},
		{route: "POST /v1/keys/rotate", system: from(operatorUp, 409), acme: everyOne(403), aim: on("/v1/keys/rotate", because)},
		{route: "POST /v1/keys/rotate in an emergency", system: from(securityUp, 200), acme: everyOne(403),
			aim: on("/v1/keys/rotate", `{"emergency":true,"reason":"r"}`)},
		{route: "GET /v1/keys/{kid}/impact", system: everyOne(200), acme: everyOne(403),
			aim: at("/v1/keys/{}/impact", func(w *world) string { return w.keys.List()[0].ID }, nil)},
		{route: "POST /v1/keys/{kid}/revoke", system: from(securityUp, 200), acme: everyOne(403),
			aim: at("/v1/keys/{}/revoke", func(w *world) string {
				for _, k := range w.keys.List() {
					if k.State == keys.Standby {
						return k.ID
					}
				}
				return "none"
			}, because)},

		{route: "POST /v1/revocations of a tenant", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: on("/v1/revocations", `{"kind":"tenant","id":"acme","reason":"r"}`), after: nextSecond},
		{route: "POST /v1/revocations of another tenant", system: from(securityUp, 200), acme: [4]int{403, 403, 404, 404},
			aim: on("/v1/revocations", `{"kind":"tenant","id":"globex","reason":"r"}`)},
		{route: "POST /v1/revocations of an account", system: from(securityUp, 200), acme: from(securityUp, 200),
			aim: func(w *world) (string, any) {
				return "/v1/revocations", `{"kind":"account","id":"` + freshAccount(w) + `","reason":"r"}`
			}},
		{route: "POST /v1/revocations of another's account", system: [4]int{403, 403, 200, 200}, acme: [4]int{403, 403, 404, 404},
			aim: on("/v1/revocations", `{"kind":"account","id":"other-op","reason":"r"}`)},
		{route: "POST /v1/revocations of no token", system: from(securityUp, 404), acme: from(securityUp, 404),
			aim: on("/v1/revocations", `{"kind":"token","id":"nothing","tenant":"acme","reason":"r"}`)},

		{route: "GET /v1/audit", system: everyOne(200), acme: everyOne(200), aim: on("/v1/audit?limit=1", nil)},
		{route: "GET /v1/audit of another", system: everyOne(200), acme: everyOne(403), aim: on("/v1/audit?tenant=globex&limit=1", nil)},
		{route: "GET /v1/audit of the broker", system: everyOne(200), acme: everyOne(403), aim: on("/v1/audit?tenant=system&limit=1", nil)},
		{route: "GET /v1/audit/export", system: everyOne(200), acme: everyOne(200), aim: on("/v1/audit/export", nil)},
		{route: "GET /v1/audit/export of another", system: everyOne(200), acme: everyOne(403), aim: on("/v1/audit/export?tenant=globex", nil)},
		{route: "GET /v1/report", system: everyOne(200), acme: everyOne(200), aim: on("/v1/report", nil)},
		{route: "GET /v1/explain", system: everyOne(200), acme: everyOne(200), aim: on("/v1/explain?account=owner&audience=shared&tenant=acme", nil)},
		{route: "GET /v1/explain of another", system: everyOne(200), acme: everyOne(403), aim: on("/v1/explain?account=owner&audience=shared&tenant=globex", nil)},
		{route: "GET /v1/explain of another's account", system: everyOne(200), acme: everyOne(404), aim: on("/v1/explain?account=root&audience=shared&tenant=acme", nil)},
	}
}

func TestEveryRouteForEveryRole(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("owner", "acme")
	w.audience("shared", "root")
	w.operator("other-op", "viewer", "system")
	must[registry.Grant](t)(w.registry.CreateGrant(t.Context(), root(), registry.Grant{
		Account: mustAccount("owner"), Audience: mustAudience("shared"), Scopes: credential.MustScopes("read"),
		TenantLabels: map[string]string{"plan": "gold"}}))
	var tokens [2][4]string
	for n, home := range []string{"system", "acme"} {
		for i, role := range roles {
			tokens[n][i] = w.operator(string(role)+"-"+home, string(role), home)
		}
	}
	tested := map[string]bool{}
	doc := loadDocument(t)
	for _, op := range matrix() {
		method, rest, _ := strings.Cut(op.route, " ")
		pattern, _, _ := strings.Cut(rest, " ")
		tested[method+" "+pattern] = true
		t.Run(op.route, func(t *testing.T) {
			w.t = t
			for n, want := range [2][4]int{op.system, op.acme} {
				for i, role := range roles {
					path, body := op.aim(w)
					var headers []string
					if object, approves := strings.CutSuffix(path, "/approve"); approves || method == http.MethodPatch {
						headers = []string{"If-Match", w.call(w.rootToken(), "GET", object, nil).header.Get("ETag")}
					}
					a := w.call(tokens[n][i], method, path, body, headers...)
					if a.status != want[i] {
						t.Errorf("%s of %s: %d, want %d: %s", role, []string{"system", "acme"}[n], a.status, want[i], a.body)
					}
					doc.holds(t, method, pattern, a)
					if a.status/100 == 2 {
						doc.takes(t, method, pattern, body)
					}
					if a.status == 403 && a.json("code") != "forbidden" {
						t.Errorf("403 without its code: %s", a.body)
					}
					if op.after != nil {
						op.after(w)
						for i, role := range roles { // those for acme may have been ended
							tokens[1][i] = w.adminToken(string(role)+"-acme", "acme")
						}
					}
				}
			}
			if a := w.call("", method, strings.Split(pattern, "{")[0]+"x", nil); strings.Contains(pattern, "{") && a.status == 200 {
				t.Errorf("without a token: %d", a.status)
			}
		})
	}
	for _, r := range adminRoutes() {
		if !tested[r.method+" "+r.path] && r.role != "" {
			t.Errorf("%s %s is not in the matrix", r.method, r.path)
		}
	}
}

func TestWithoutATokenNothingIsSaid(t *testing.T) {
	w := newWorld(t)
	for _, r := range adminRoutes() {
		path := strings.NewReplacer("{id}", "x", "{name}", "x", "{grant}", "x", "{kid}", "x", "{credential}", "x").Replace(r.path)
		a := w.call("", r.method, path, nil)
		if a.status != 401 || a.header.Get("WWW-Authenticate") != `Bearer realm="`+testIssuer+`"` || a.json("code") != "unauthenticated" {
			t.Errorf("%s %s: %d %v", r.method, r.path, a.status, a.header)
		}
	}
}

func TestARouteWithoutARoleDoesNotStart(t *testing.T) {
	w := newWorld(t)
	w.config.Metrics = nil
	do := func(*call) (answer, error) { return noContent() }
	for name, r := range map[string][]route{
		"no role":               {{method: "GET", path: "/v1/x", do: do}},
		"an unknown role":       {{method: "GET", path: "/v1/x", role: "anyone", do: do}},
		"no handler":            {{method: "GET", path: "/v1/x", role: registry.RoleViewer}},
		"a change by viewers":   {{method: "POST", path: "/v1/x", role: registry.RoleViewer, do: do}},
		"declared twice":        {{method: "GET", path: "/v1/x", role: registry.RoleViewer, do: do}, {method: "GET", path: "/v1/x", role: registry.RoleAdmin, do: do}},
		"one among many others": append(adminRoutes(), route{method: "GET", path: "/v1/x", do: do}),
	} {
		if _, err := newServer(w.config, r); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
}
