package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func testTargets(t *testing.T) lease.Targets {
	t.Helper()
	of := func(s string) credential.Leasable { return must[credential.Leasable](t)(credential.ParseLeasable(s)) }
	return must[lease.Targets](t)(lease.NewTargets([]lease.Target{
		{Of: of("kv:mail"), Mount: "secret", Path: "tenants/{tenant}/mail"},
		{Of: of("kv:missing"), Mount: "secret", Path: "tenants/{tenant}/missing"},
		{Of: of("database:orders"), Mount: "database", Connection: "orders", BaseRole: "orders_app"},
	}))
}

// leaseWorld has a real Vault with values of two tenants, and accounts that may
// lease them.
func leaseWorld(t *testing.T) *world {
	t.Helper()
	server := devvault.ForTest(t, devvault.Options{Dev: true})
	for _, tenant := range []string{"acme", "globex"} {
		if _, err := server.Do(t.Context(), http.MethodPut, "secret/data/tenants/"+tenant+"/mail",
			map[string]any{"data": map[string]any{"key": tenant + "-value"}}); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorldWith(t, vault.Config{Address: server.URL(), Login: vault.Token{Secret: credential.NewSecret([]byte(server.RootToken()))}})
	if err := w.vault.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.tenant("acme")
	w.tenant("globex")
	w.account("worker", "system")
	w.account("other", "system")
	for _, id := range []string{"worker", "other"} {
		w.grant(id, testIssuer+"/leases", "kv:mail kv:missing database:orders", "acme", "globex")
	}
	return w
}

func (w *world) leaseToken(account, tenant string) string {
	w.t.Helper()
	a := w.post(wire.PathToken, w.tokenForm(account, testIssuer+"/leases", tenant))
	if a.status != http.StatusOK {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.json("access_token")
}

const mail = `{"kind":"kv","name":"mail"}`

func TestALeaseOverTheWire(t *testing.T) {
	w := leaseWorld(t)
	doc := loadDocument(t)
	token := w.leaseToken("worker", "acme")
	made := w.call(token, http.MethodPost, "/v1/leases", mail)
	doc.holds(t, http.MethodPost, "/v1/leases", made)
	id := made.json("id")
	if made.status != 201 || made.header.Get("Location") != "/v1/leases/"+id || !strings.Contains(made.body, `"data":{"key":"acme-value"}`) ||
		!strings.Contains(made.body, `"expires_at":"`) || made.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", made.status, made.header, made.body)
	}
	if a := w.call(token, http.MethodPost, "/v1/leases/"+id+"/renew", nil); a.status != 409 {
		t.Errorf("with the same token: %d %s", a.status, a.body)
	}
	w.advance(2 * time.Second)
	token = w.leaseToken("worker", "acme")
	renewed := w.call(token, http.MethodPost, "/v1/leases/"+id+"/renew", `{"ttl":3600}`)
	doc.holds(t, http.MethodPost, "/v1/leases/{id}/renew", renewed)
	if renewed.status != 200 || renewed.json("id") != id || !strings.Contains(renewed.body, "acme-value") {
		t.Errorf("%d %s", renewed.status, renewed.body)
	}
	list := w.call(w.rootToken(), http.MethodGet, "/v1/leases?account=worker", nil)
	doc.holds(t, http.MethodGet, "/v1/leases", list)
	if list.status != 200 || !strings.Contains(list.body, id) || strings.Contains(list.body, "acme-value") {
		t.Errorf("%d %s", list.status, list.body)
	}
	for range 2 {
		gone := w.call(token, http.MethodDelete, "/v1/leases/"+id, nil)
		doc.holds(t, http.MethodDelete, "/v1/leases/{id}", gone)
		if want := 204; gone.status != want && gone.status != 404 {
			t.Errorf("%d %s", gone.status, gone.body)
		}
	}
}

func TestLeasesAreRefused(t *testing.T) {
	w := leaseWorld(t)
	token := w.leaseToken("worker", "acme")
	w.account("lesser", "system")
	w.grant("lesser", testIssuer+"/leases", "kv:missing", "acme")
	lesser := w.leaseToken("lesser", "acme")
	for name, c := range map[string]struct {
		token, body string
		status      int
		code, field string
	}{
		"no body":                     {token, ``, 400, "malformed", ""},
		"no kind":                     {token, `{"name":"mail"}`, 422, "invalid", "kind"},
		"an unknown kind":             {token, `{"kind":"file","name":"mail"}`, 422, "invalid", "kind"},
		"no name":                     {token, `{"kind":"kv"}`, 422, "invalid", "name"},
		"a name that climbs":          {token, `{"kind":"kv","name":"../globex/mail"}`, 422, "invalid", "name"},
		"a name with a slash":         {token, `{"kind":"kv","name":"a/b"}`, 422, "invalid", "name"},
		"a tenant in the body":        {token, `{"kind":"kv","name":"mail","tenant":"globex"}`, 422, "invalid", "tenant"},
		"a name twice":                {token, `{"kind":"kv","name":"mail","name":"missing"}`, 400, "malformed", ""},
		"a life that is too short":    {token, `{"kind":"kv","name":"mail","ttl":1}`, 422, "invalid", "ttl"},
		"a negative life":             {token, `{"kind":"kv","name":"mail","ttl":-5}`, 422, "invalid", "ttl"},
		"a life in words":             {token, `{"kind":"kv","name":"mail","ttl":"5m"}`, 422, "invalid", "ttl"},
		"what there is not":           {token, `{"kind":"kv","name":"unknown"}`, 403, "forbidden", ""},
		"what is not granted":         {lesser, mail, 403, "forbidden", ""},
		"a value that there is not":   {token, `{"kind":"kv","name":"missing"}`, 409, "conflict", ""},
		"a database that is not here": {token, `{"kind":"database","name":"orders"}`, 503, "temporarily_unavailable", ""},
	} {
		a := w.call(c.token, http.MethodPost, "/v1/leases", c.body)
		if a.status != c.status || a.json("code") != c.code || a.json("field") != c.field {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if strings.Contains(a.body, "secret/") || strings.Contains(a.body, "database/") {
			t.Errorf("%s tells where things are: %s", name, a.body)
		}
	}
	unknown, ungranted := w.call(token, http.MethodPost, "/v1/leases", `{"kind":"kv","name":"unknown"}`), w.call(lesser, http.MethodPost, "/v1/leases", mail)
	if a, b := sameBut(unknown), sameBut(ungranted); a != b {
		t.Errorf("what there is not and what is not granted differ:\n%s\n%s", a, b)
	}
	for range lease.MaxPerHolder {
		if a := w.call(token, http.MethodPost, "/v1/leases", mail); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if a := w.call(token, http.MethodPost, "/v1/leases", mail); a.status != 429 || a.json("code") != "slow_down" || a.header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s", a.status, a.body)
	}
}

// sameBut is an answer without what differs in every one: the request's id.
func sameBut(a got) string {
	return a.header.Get("Content-Type") + strings.ReplaceAll(a.body, a.header.Get("X-Request-Id"), "ID")
}

// A token for leases serves for nothing else, and others don't serve for leases.
func TestTokensForLeasesAreForLeases(t *testing.T) {
	w := leaseWorld(t)
	token := w.leaseToken("worker", "acme")
	id := w.call(token, http.MethodPost, "/v1/leases", mail).json("id")
	w.audience("orders", "other")
	w.grant("worker", "orders", "kv:mail", "acme")
	foreign := w.post(wire.PathToken, w.tokenForm("worker", "orders", "acme")).json("access_token")
	for _, r := range adminRoutes() {
		path := strings.NewReplacer("{id}", id, "{name}", "x", "{grant}", "x", "{kid}", "x", "{credential}", "x").Replace(r.path)
		if r.workload == workloadAcks { // for the consumers of shared secrets, who may lease them too
			continue
		}
		if r.workload != workloadLeases {
			if a := w.call(token, r.method, path, mail); a.status != 401 {
				t.Errorf("%s %s with a token for leases: %d", r.method, r.path, a.status)
			}
			continue
		}
		for name, other := range map[string]string{"of another service": foreign, "that is none": "x.y.z"} {
			if a := w.call(other, r.method, path, mail); a.status != 401 || a.json("code") != "unauthenticated" {
				t.Errorf("%s %s with a token %s: %d %s", r.method, r.path, name, a.status, a.body)
			}
		}
		want := 401
		if r.do != nil {
			want = 422 // it is an operator's, who must say why
		}
		if a := w.call(w.rootToken(), r.method, path, mail); a.status != want {
			t.Errorf("%s %s with an operator's token: %d %s", r.method, r.path, a.status, a.body)
		}
	}
	if a := w.call(token, http.MethodDelete, "/v1/leases/"+id+"?reason=r", nil); a.status != 400 {
		t.Errorf("a workload with a reason: %d", a.status)
	}
	if a := w.call(w.rootToken(), http.MethodDelete, "/v1/leases/"+id+"?reason=leaked", nil); a.status != 204 {
		t.Errorf("an operator: %d %s", a.status, a.body)
	}
	if a := w.call(token, http.MethodDelete, "/v1/leases/"+id, nil); a.status != 404 {
		t.Errorf("when it is gone: %d %s", a.status, a.body)
	}
}

// No endpoint of leases tells anybody of somebody else's, or touches it: not
// another tenant's, nor another account's.
func TestLeasesOfOthers(t *testing.T) {
	w := leaseWorld(t)
	mine := w.call(w.leaseToken("worker", "acme"), http.MethodPost, "/v1/leases", mail).json("id")
	never := strings.Repeat("0", len(mine))
	w.advance(2 * time.Second)
	for name, token := range map[string]string{
		"another tenant":             w.leaseToken("worker", "globex"),
		"another account":            w.leaseToken("other", "acme"),
		"another account and tenant": w.leaseToken("other", "globex"),
		"an operator of another":     w.operator("op-globex", "admin", "globex"),
	} {
		for _, c := range []struct{ method, path, query string }{
			{http.MethodPost, "/v1/leases/{}/renew", ""}, {http.MethodDelete, "/v1/leases/{}", ""},
		} {
			query := c.query
			if strings.HasPrefix(name, "an operator") {
				if query = "?reason=r"; c.method != http.MethodDelete {
					continue // 401, see above
				}
			}
			at := func(id string) got { return w.call(token, c.method, strings.Replace(c.path, "{}", id, 1)+query, nil) }
			got, want := at(mine), at(never)
			if got.status != 404 || sameBut(got) != sameBut(want) {
				t.Errorf("%s, %s: %d %s, and of one that never was %d %s", name, c.method, got.status, got.body, want.status, want.body)
			}
		}
		if strings.HasPrefix(name, "an operator") {
			for _, path := range []string{"/v1/leases", "/v1/leases?tenant=acme", "/v1/leases?account=worker"} {
				if a := w.call(token, http.MethodGet, path, nil); a.status != 200 || strings.Contains(a.body, mine) {
					t.Errorf("%s sees %s", name, a.body)
				}
			}
			continue
		}
		if a := w.call(token, http.MethodPost, "/v1/leases", mail); a.status != 201 || strings.Contains(a.body, "acme-value") != strings.HasSuffix(name, "account") {
			t.Errorf("%s gets %s", name, a.body)
		}
	}
	if a := w.call(w.leaseToken("worker", "acme"), http.MethodDelete, "/v1/leases/"+mine, nil); a.status != 204 {
		t.Errorf("it is not whole any more: %d", a.status)
	}
}

func TestAStandingThatIsLostCountsAtOnce(t *testing.T) {
	w := leaseWorld(t)
	token := w.leaseToken("worker", "acme")
	id := w.call(token, http.MethodPost, "/v1/leases", mail).json("id")
	w.advance(2 * time.Second)
	fresh := w.leaseToken("worker", "acme")
	grants, _, err := w.registry.ListGrants(t.Context(), root(), registry.GrantFilter{Account: credential.MustAccountID("worker")}, registry.Page{})
	if err != nil || len(grants) != 1 {
		t.Fatalf("%v, %v", grants, err)
	}
	if _, err := w.registry.UpdateGrant(t.Context(), root(), grants[0].ID, 0, func(g *registry.Grant) error { g.Reason = "edited"; return nil }); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]any{"/v1/leases": mail, "/v1/leases/" + id + "/renew": nil} {
		a := w.call(fresh, http.MethodPost, path, body)
		if a.status != 401 || !strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%s with a grant that changed: %d %s", path, a.status, a.body)
		}
	}
	if a := w.call(w.leaseToken("worker", "acme"), http.MethodPost, "/v1/leases/"+id+"/renew", nil); a.status != 200 {
		t.Errorf("with a token of now: %d %s", a.status, a.body)
	}
	if _, err := w.registry.SuspendTenant(t.Context(), root(), credential.MustTenant("acme"), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path string }{
		{http.MethodPost, "/v1/leases"}, {http.MethodPost, "/v1/leases/" + id + "/renew"}, {http.MethodDelete, "/v1/leases/" + id},
	} {
		if a := w.call(fresh, c.method, c.path, mail); a.status != 401 {
			t.Errorf("%s %s of a suspended tenant: %d", c.method, c.path, a.status)
		}
	}
}
