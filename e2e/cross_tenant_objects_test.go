package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// objectCrossings are the ways at what is declared and what is on record:
// globex's operators reach for acme's tenant, accounts, audiences, grants,
// operators and trail.
func (c *crossWorld) objectCrossings() []crossing {
	const operator = "globex's operator"
	const reason = `{"reason":"test"}`
	const patch = `{"description":"mine","reason":"test"}`
	tenant := map[string]string{"=" + acme: "=acne", `"acme"`: `"acne"`, "/acme": "/acne"}
	account := map[string]string{"mailer-of-acme": "mailer-of-acne"}
	audience := map[string]string{"service-of-acme": "service-of-acne"}
	jti := map[string]string{c.acme.jti: strings.Repeat("A", len(c.acme.jti))}
	last := func(id string) map[string]string { // an id of the same form that nobody has
		return map[string]string{id: id[:len(id)-4] + "0000"}
	}
	grant, post, credential := last(c.acme.grant), last(c.acme.operator), last(c.acme.credential)
	const explained = "/v1/explain?account=mailer-of-acme&audience=orders&tenant="
	return []crossing{
		{route: "GET /v1/tenants", as: operator, path: "/v1/tenants", status: 200},
		{route: "POST /v1/tenants", as: operator, path: "/v1/tenants", body: `{"id":"acme","reason":"test"}`, unknown: tenant, status: 403},
		{route: "GET /v1/tenants/{id}", as: operator, path: "/v1/tenants/acme", unknown: tenant, status: 404},
		{route: "PATCH /v1/tenants/{id}", as: operator, path: "/v1/tenants/acme", body: `{"display_name":"mine","reason":"test"}`, unknown: tenant, status: 404},
		{route: "DELETE /v1/tenants/{id}", as: operator, path: "/v1/tenants/acme?reason=test", unknown: tenant, status: 403},
		{route: "POST /v1/tenants/{id}/suspend", as: operator, path: "/v1/tenants/acme/suspend", body: reason, unknown: tenant, status: 404},
		{route: "POST /v1/tenants/{id}/resume", as: operator, path: "/v1/tenants/acme/resume", body: reason, unknown: tenant, status: 403},

		{route: "GET /v1/accounts", as: operator, path: "/v1/accounts", status: 200},
		{route: "POST /v1/accounts", as: operator, path: "/v1/accounts", body: `{"id":"new","home":"acme","owner":"me","reason":"test"}`, unknown: tenant, status: 403},
		{route: "GET /v1/accounts/{id}", as: operator, path: "/v1/accounts/mailer-of-acme", unknown: account, status: 404},
		{route: "PATCH /v1/accounts/{id}", as: operator, path: "/v1/accounts/mailer-of-acme", body: patch, unknown: account, status: 404},
		{route: "DELETE /v1/accounts/{id}", as: operator, path: "/v1/accounts/mailer-of-acme?reason=test", unknown: account, status: 404},
		{route: "POST /v1/accounts/{id}/disable", as: operator, path: "/v1/accounts/mailer-of-acme/disable", body: reason, unknown: account, status: 404},
		{route: "POST /v1/accounts/{id}/enable", as: operator, path: "/v1/accounts/mailer-of-acme/enable", body: reason, unknown: account, status: 404},
		{
			route: "POST /v1/accounts/{id}/credentials", as: operator, path: "/v1/accounts/mailer-of-acme/credentials", unknown: account, status: 404,
			body: `{"kind":"client_secret","expires_at":"` + c.tomorrow() + `","reason":"test"}`,
		},
		{
			route: "DELETE /v1/accounts/{id}/credentials/{credential}", as: operator, unknown: account, status: 404,
			path: "/v1/accounts/mailer-of-acme/credentials/" + c.acme.credential + "?reason=test",
		},
		{ // an account of its own doesn't lead to a credential of acme's
			route: "DELETE /v1/accounts/{id}/credentials/{credential}", as: operator, unknown: credential, status: 404,
			path: "/v1/accounts/mailer-of-globex/credentials/" + c.acme.credential + "?reason=test",
		},

		{route: "GET /v1/audiences", as: operator, path: "/v1/audiences", status: 200},
		{route: "POST /v1/audiences", as: operator, path: "/v1/audiences", body: `{"name":"new","owner":"mailer-of-acme","reason":"test"}`, unknown: account, status: 422},
		{route: "GET /v1/audiences/{name}", as: operator, path: "/v1/audiences/service-of-acme", unknown: audience, status: 404},
		{route: "PATCH /v1/audiences/{name}", as: operator, path: "/v1/audiences/service-of-acme", body: patch, unknown: audience, status: 404},
		{route: "DELETE /v1/audiences/{name}", as: operator, path: "/v1/audiences/service-of-acme?reason=test", unknown: audience, status: 404},

		{route: "GET /v1/grants", as: operator, path: "/v1/grants", status: 200},
		{route: "GET /v1/grants", as: operator, path: "/v1/grants?account=mailer-of-acme", unknown: account, status: 200},
		{route: "GET /v1/grants", as: operator, path: "/v1/grants?tenant=acme", unknown: tenant, status: 200},
		{route: "POST /v1/grants", as: operator, path: "/v1/grants", body: c.grant("mailer-of-globex", orders, acme), unknown: tenant, status: 403},
		{route: "POST /v1/grants", as: operator, path: "/v1/grants", body: c.grant("mailer-of-acme", orders, globex), unknown: account, status: 422},
		{route: "POST /v1/grants", as: operator, path: "/v1/grants", body: c.grant("mailer-of-globex", "service-of-acme", globex), unknown: audience, status: 422},
		{route: "GET /v1/grants/{id}", as: operator, path: "/v1/grants/" + c.acme.grant, unknown: grant, status: 404},
		{route: "PATCH /v1/grants/{id}", as: operator, path: "/v1/grants/" + c.acme.grant, body: `{"scopes":"orders:write","reason":"test"}`, unknown: grant, status: 404},
		{route: "DELETE /v1/grants/{id}", as: operator, path: "/v1/grants/" + c.acme.grant + "?reason=test", unknown: grant, status: 404},
		{route: "POST /v1/grants/{id}/approve", as: operator, path: "/v1/grants/" + c.acme.grant + "/approve", body: reason, unknown: grant, status: 404},

		{route: "GET /v1/issuers", as: operator, path: "/v1/issuers", status: 200},
		{route: "POST /v1/issuers", as: operator, path: "/v1/issuers", status: 403,
			body: `{"id":"mine","issuer":"https://mine.example","audience":"x","algorithms":["ES256"],"discovery":true,"reason":"test"}`},
		{route: "GET /v1/issuers/{id}", as: operator, path: "/v1/issuers/cluster", unknown: map[string]string{"cluster": "cruster"}, status: 404},
		{route: "PATCH /v1/issuers/{id}", as: operator, path: "/v1/issuers/cluster", body: `{"audience":"x","reason":"test"}`, unknown: map[string]string{"cluster": "cruster"}, status: 403},
		{route: "DELETE /v1/issuers/{id}", as: operator, path: "/v1/issuers/cluster?reason=test", unknown: map[string]string{"cluster": "cruster"}, status: 403},

		{route: "GET /v1/operators", as: operator, path: "/v1/operators", status: 200},
		{route: "POST /v1/operators", as: operator, path: "/v1/operators", unknown: tenant, status: 403,
			body: `{"account":"mailer-of-globex","roles":"viewer","tenant":"acme","reason":"test"}`},
		{route: "POST /v1/operators", as: operator, path: "/v1/operators", unknown: account, status: 422,
			body: `{"account":"mailer-of-acme","roles":"viewer","tenant":"globex","reason":"test"}`},
		{route: "DELETE /v1/operators/{grant}", as: operator, path: "/v1/operators/" + c.acme.operator + "?reason=test", unknown: post, status: 404},

		{route: "GET /v1/audit", as: operator, path: "/v1/audit?limit=500", status: 200},
		{route: "GET /v1/audit", as: operator, path: "/v1/audit?tenant=acme", unknown: tenant, status: 403},
		{route: "GET /v1/audit", as: operator, path: "/v1/audit?subject=mailer-of-acme", unknown: account, status: 200},
		{route: "GET /v1/audit", as: operator, path: "/v1/audit?jti=" + c.acme.jti, unknown: jti, status: 200},
		{route: "GET /v1/audit/export", as: operator, path: "/v1/audit/export", status: 200},
		{route: "GET /v1/audit/export", as: operator, path: "/v1/audit/export?tenant=acme", unknown: tenant, status: 403},

		{route: "GET /v1/explain", as: operator, path: explained + "acme", unknown: tenant, status: 404},
		{route: "GET /v1/explain", as: operator, path: explained + "globex", unknown: account, status: 404},
	}
}

func (*crossWorld) grant(account, audience, tenant string) string {
	return `{"account":"` + account + `","audience":"` + audience + `","scopes":"` + read + `","tenants":["` + tenant + `"],"reason":"test"}`
}

// findObjects notes the ids of what acme has, as its own operator is shown them.
func (c *crossWorld) findObjects(t *testing.T) {
	t.Helper()
	get := func(path string, into any) {
		c.must(path, c.call(t, "acme's operator", http.MethodGet, path, ""), http.StatusOK, into)
	}
	var grants struct{ Items []struct{ ID string } }
	get("/v1/grants?account=mailer-of-acme", &grants)
	var operators struct{ Items []struct{ Grant string } }
	get("/v1/operators", &operators)
	var account struct{ Credentials []struct{ ID string } }
	get("/v1/accounts/mailer-of-acme", &account)
	if len(grants.Items) == 0 || len(operators.Items) != 1 || len(account.Credentials) == 0 {
		t.Fatalf("acme has %+v %+v %+v", grants, operators, account)
	}
	c.acme.grant, c.acme.operator, c.acme.credential = grants.Items[0].ID, operators.Items[0].Grant, account.Credentials[0].ID
	c.marks = append(c.marks, c.acme.grant, c.acme.operator, c.acme.credential)
	c.acme.objects = c.objects(t)
}

// objects is what acme's operator is shown of what acme has.
func (c *crossWorld) objects(t *testing.T) string {
	t.Helper()
	all := make(map[string]string)
	for _, path := range []string{"/v1/tenants", "/v1/accounts", "/v1/audiences", "/v1/grants", "/v1/operators"} {
		a := c.call(t, "acme's operator", http.MethodGet, path, "")
		c.must(path, a, http.StatusOK, nil)
		all[path] = string(a.body)
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (*crossWorld) tomorrow() string {
	return time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
}
