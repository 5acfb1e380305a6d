package api

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

func TestTenantsThroughTheirWholeLife(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	made := w.call(token, "POST", "/v1/tenants", `{"id":"acme","display_name":"Acme","labels":{"plan":"gold"},"reason":"new customer"}`)
	if made.status != http.StatusCreated || made.header.Get("Location") != "/v1/tenants/acme" {
		t.Fatalf("create: %d %s", made.status, made.body)
	}
	tenant := into[wire.Tenant](made)
	if made.header.Get("ETag") != etag(tenant.Version) || tenant.State != "active" {
		t.Errorf("ETag %s, version %d, state %s", made.header.Get("ETag"), tenant.Version, tenant.State)
	}
	patched := w.call(token, "PATCH", "/v1/tenants/acme", `{"display_name":null,"labels":{"plan":null,"tier":"1"},"reason":"renamed"}`,
		"If-Match", etag(tenant.Version), "Content-Type", "application/merge-patch+json")
	if patched.status != http.StatusOK {
		t.Fatalf("patch: %d %s", patched.status, patched.body)
	}
	now := into[wire.Tenant](patched)
	if now.DisplayName != "" || len(now.Labels) != 1 || now.Labels["tier"] != "1" || now.Version == tenant.Version {
		t.Errorf("after the patch: %+v", now)
	}
	for name, c := range map[string]struct {
		headers []string
		status  int
		code    string
	}{
		"without If-Match":       {nil, 428, wire.CodeNeedIfMatch},
		"with If-Match *":        {[]string{"If-Match", "*"}, 428, wire.CodeNeedIfMatch},
		"stale":                  {[]string{"If-Match", etag(tenant.Version)}, 412, wire.CodeChanged},
		"weak":                   {[]string{"If-Match", "W/" + etag(now.Version)}, 412, wire.CodeChanged},
		"never ours":             {[]string{"If-Match", `"abc"`}, 412, wire.CodeChanged},
		"with leading zero":      {[]string{"If-Match", `"0` + etag(now.Version)[1:]}, 412, wire.CodeChanged},
		"not quoted":             {[]string{"If-Match", "7"}, 400, wire.CodeMalformed},
		"of two versions":        {[]string{"If-Match", `"1", "2"`}, 400, wire.CodeMalformed},
		"of another media type":  {[]string{"If-Match", etag(now.Version), "Content-Type", "text/plain"}, 415, wire.CodeMediaType},
		"of JSON patch":          {[]string{"If-Match", etag(now.Version), "Content-Type", "application/json-patch+json"}, 415, wire.CodeMediaType},
		"of JSON with a charset": {[]string{"If-Match", etag(now.Version), "Content-Type", "application/json; charset=latin1"}, 415, wire.CodeMediaType},
	} {
		a := w.call(token, "PATCH", "/v1/tenants/acme", `{"display_name":"x","reason":"r"}`, c.headers...)
		if a.status != c.status || a.json("code") != c.code {
			t.Errorf("patch %s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.call(token, "POST", "/v1/tenants/acme/suspend", `{"reason":"unpaid"}`); into[wire.Tenant](a).State != "suspended" {
		t.Errorf("suspend: %s", a.body)
	}
	if a := w.call(token, "POST", "/v1/tenants/acme/resume", `{"reason":"paid"}`, "If-Match", `"1"`); a.status != 412 {
		t.Errorf("resume at a stale version: %d", a.status)
	}
	if a := w.call(token, "POST", "/v1/tenants/acme/resume", `{"reason":"paid"}`, "If-Match", "*"); into[wire.Tenant](a).State != "active" {
		t.Errorf("resume: %s", a.body)
	}
	if a := w.call(token, "DELETE", "/v1/tenants/acme", nil); a.status != 422 || a.json("field") != "reason" {
		t.Errorf("delete without a reason: %d %s", a.status, a.body)
	}
	if a := w.call(token, "DELETE", "/v1/tenants/acme?reason=left", nil); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if a := w.call(token, "GET", "/v1/tenants/acme", nil); a.status != 404 {
		t.Errorf("get after delete: %d", a.status)
	}
	if a := w.call(token, "POST", "/v1/tenants", `{"id":"ACME","reason":"again"}`); a.status != 409 || a.json("code") != wire.CodeExists {
		t.Errorf("the id comes back: %d %s", a.status, a.body)
	}
	found := into[wire.AuditPage](w.call(token, "GET", "/v1/audit?tenant=acme&order=asc", nil))
	var types []string
	for _, r := range found.Items {
		types = append(types, r.Type)
		if r.Actor != "root" || r.Reason == "" || r.RequestID == "" {
			t.Errorf("record without operator, reason or request: %+v", r)
		}
	}
	if len(types) != 5 {
		t.Errorf("audit of the tenant: %v", types)
	}
}

func TestAccountsAndTheirCredentials(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	w.tenant("acme")
	if a := w.call(token, "POST", "/v1/accounts", `{"id":"worker","home":"acme","owner":"team a","reason":"new"}`); a.status != 201 {
		t.Fatalf("create: %d %s", a.status, a.body)
	}
	key := w.call(token, "POST", "/v1/accounts/worker/credentials", `{"kind":"public_key","jwk":`+w.newKey("worker")+`,"reason":"its key"}`)
	if key.status != 201 || into[wire.CredentialCreated](key).Credential.ID != "k-worker" {
		t.Fatalf("add key: %d %s", key.status, key.body)
	}
	end := w.clock().Add(24 * time.Hour).Format(time.RFC3339)
	secret := w.call(token, "POST", "/v1/accounts/worker/credentials", `{"kind":"client_secret","expires_at":"`+end+`","reason":"not migrated"}`)
	made := into[wire.CredentialCreated](secret)
	if secret.status != 201 || len(made.ClientSecret) != 43 || secret.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("client secret: %d", secret.status)
	}
	account := into[wire.Account](w.call(token, "GET", "/v1/accounts/worker", nil))
	if len(account.Credentials) != 2 || account.Version != made.Version {
		t.Errorf("account: %+v", account)
	}
	if body := w.call(token, "GET", "/v1/accounts", nil).body; contains(body, made.ClientSecret) || contains(body, "secret_hash") {
		t.Error("a list shows a secret or its hash")
	}
	if a := w.call(token, "POST", "/v1/accounts/worker/credentials", `{"kind":"client_secret","expires_at":"`+end+`","subject":"x","reason":"r"}`); a.status != 422 {
		t.Errorf("a secret with a subject: %d", a.status)
	}
	if a := w.call(token, "POST", "/v1/accounts/worker/credentials", `{"kind":"password","reason":"r"}`); a.status != 422 {
		t.Errorf("unknown kind: %d %s", a.status, a.body)
	}
	patched := w.call(token, "PATCH", "/v1/accounts/worker", `{"owner":"team b","expires_at":"`+end+`","reason":"moved"}`, "If-Match", etag(account.Version))
	if now := into[wire.Account](patched); now.Owner != "team b" || now.ExpiresAt.IsZero() {
		t.Errorf("patched: %s", patched.body)
	}
	for _, member := range []string{"id", "home", "credentials", "disabled", "version"} {
		a := w.call(token, "PATCH", "/v1/accounts/worker", `{"`+member+`":"x","reason":"r"}`, "If-Match", patched.header.Get("ETag"))
		if a.status != 422 || a.json("field") != member {
			t.Errorf("patch of %s: %d %s", member, a.status, a.body)
		}
	}
	removed := w.call(token, "DELETE", "/v1/accounts/worker/credentials/"+made.Credential.ID+"?reason=migrated", nil)
	if removed.status != 204 || removed.header.Get("ETag") == "" {
		t.Errorf("remove credential: %d %s", removed.status, removed.body)
	}
	if a := w.call(token, "DELETE", "/v1/accounts/worker/credentials/nobody?reason=r", nil); a.status != 404 {
		t.Errorf("remove unknown credential: %d", a.status)
	}
	if a := w.call(token, "POST", "/v1/accounts/worker/disable", `{"reason":"r"}`); !into[wire.Account](a).Disabled {
		t.Errorf("disable: %s", a.body)
	}
	if a := w.call(token, "POST", "/v1/accounts/worker/enable", `{"reason":"r"}`); into[wire.Account](a).Disabled {
		t.Errorf("enable: %s", a.body)
	}
	if a := w.call(token, "DELETE", "/v1/accounts/worker?reason=r", nil); a.status != 204 {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
}

func TestAudienceNamesMayHoldSlashes(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	w.account("api", "system")
	name := "https://orders.example/v1?a=b%20c"
	at := "/v1/audiences/" + url.PathEscape(name)
	made := w.call(token, "POST", "/v1/audiences", wire.AudienceCreate{Name: mustAudience(name), Owner: mustAccount("api"), Reason: "r"})
	if made.status != 201 || made.header.Get("Location") != at {
		t.Fatalf("create: %d %s %s", made.status, made.header.Get("Location"), made.body)
	}
	if a := w.call(token, "GET", at, nil); a.json("name") != name {
		t.Errorf("get: %d %s", a.status, a.body)
	}
	if a := w.call(token, "PATCH", at, `{"description":"orders","reason":"r"}`, "If-Match", made.header.Get("ETag")); a.json("description") != "orders" {
		t.Errorf("patch: %d %s", a.status, a.body)
	}
	if list := into[wire.List[wire.Audience]](w.call(token, "GET", "/v1/audiences", nil)); len(list.Items) != 1 {
		t.Errorf("list: %+v", list)
	}
	if a := w.call(token, "DELETE", at+"?reason=gone", nil); a.status != 204 {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if a := w.call(token, "POST", "/v1/audiences", `{"name":"`+testIssuer+`/x","owner":"api","reason":"r"}`); a.status != 409 || a.json("code") != wire.CodeReserved {
		t.Errorf("the broker's own name: %d %s", a.status, a.body)
	}
}

func TestGrants(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	w.tenant("acme")
	w.tenant("globex")
	w.account("worker", "system")
	w.audience("orders", "worker")
	made := w.call(token, "POST", "/v1/grants", `{"account":"worker","audience":"orders","scopes":"read write","tenants":["acme"],
		"max_ttl":"2m","condition":"tenant != 'x'","fan_out":{"tenants":3,"window":"1h"},"reason":"needs orders"}`)
	if made.status != 201 {
		t.Fatalf("create: %d %s", made.status, made.body)
	}
	g := into[wire.Grant](made)
	if g.MaxTTL.String() != "2m0s" || g.FanOut.Window != "1h0m0s" || g.Reason != "needs orders" || g.CreatedBy != "root" {
		t.Errorf("grant: %s", made.body)
	}
	patched := w.call(token, "PATCH", "/v1/grants/"+g.ID, `{"tenants":["globex","acme"],"fan_out":null,"max_ttl":null,"reason":"more"}`, "If-Match", etag(g.Version))
	now := into[wire.Grant](patched)
	if len(now.Tenants) != 2 || now.FanOut != nil || !now.MaxTTL.IsZero() || now.Condition == "" || now.Reason != "more" {
		t.Errorf("patched: %d %s", patched.status, patched.body)
	}
	for name, c := range map[string]struct{ body, field string }{
		"another account":       {`{"account":"other","reason":"r"}`, "account"},
		"an approval":           {`{"tenants":null,"any_tenant":{"reason":"x","approved_by":"me"},"reason":"r"}`, "any_tenant.approved_by"},
		"two ways":              {`{"tenant_from":"claims.ns","reason":"r"}`, "tenants"},
		"a bad expression":      {`{"condition":"tenant ==","reason":"r"}`, "condition"},
		"a bad window":          {`{"fan_out":{"tenants":1,"window":"soon"},"reason":"r"}`, "fan_out.window"},
		"an unknown inner name": {`{"fan_out":{"tenant":1},"reason":"r"}`, "fan_out.tenant"},
		"a bad lifetime":        {`{"max_ttl":"2h","reason":"r"}`, "max_ttl"},
		"the system tenant":     {`{"tenants":["system"],"reason":"r"}`, "tenants"},
		"a wrong type":          {`{"tenants":"acme","reason":"r"}`, "tenants"},
		"a reason of no text":   {`{"reason":7}`, "reason"},
		"no reason":             {`{"condition":null}`, "reason"},
	} {
		a := w.call(token, "PATCH", "/v1/grants/"+g.ID, c.body, "If-Match", etag(now.Version))
		if a.status != 422 || a.json("field") != c.field {
			t.Errorf("patch with %s: %d %s", name, a.status, a.body)
		}
	}
	for query, want := range map[string]int{
		"": 2, "?account=worker": 1, "?audience=orders": 1, "?tenant=globex": 1, "?tenant=nobody": 0, "?account=worker&tenant=acme": 1,
		"?account=root": 1,
	} {
		if list := into[wire.List[wire.Grant]](w.call(token, "GET", "/v1/grants"+query, nil)); len(list.Items) != want {
			t.Errorf("list %s: %d items, want %d", query, len(list.Items), want)
		}
	}
	if a := w.call(token, "DELETE", "/v1/grants/"+g.ID+"?reason=r", nil, "If-Match", etag(g.Version)); a.status != 412 {
		t.Errorf("delete at a stale version: %d", a.status)
	}
	if a := w.call(token, "DELETE", "/v1/grants/"+g.ID+"?reason=r", nil, "If-Match", etag(now.Version)); a.status != 204 {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
}

func TestAnyTenantNeedsASecondOperator(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	second := w.operator("second", "security", "system")
	w.account("worker", "system")
	w.audience("orders", "worker")
	end := w.clock().Add(48 * time.Hour).Format(time.RFC3339)
	made := into[wire.Grant](w.call(token, "POST", "/v1/grants",
		`{"account":"worker","audience":"orders","scopes":"read","any_tenant":{"reason":"migration","expires_at":"`+end+`"},"reason":"r"}`))
	if a := w.call(token, "POST", "/v1/grants/"+made.ID+"/approve", `{"reason":"me too"}`, "If-Match", etag(made.Version)); a.status != 403 || a.json("detail") == "" {
		t.Errorf("approved by its author: %d %s", a.status, a.body)
	}
	a := w.call(second, "POST", "/v1/grants/"+made.ID+"/approve", `{"reason":"checked"}`, "If-Match", etag(made.Version))
	if g := into[wire.Grant](a); g.AnyTenant == nil || g.AnyTenant.ApprovedBy != "second" || g.AnyTenant.ApprovedAt.IsZero() {
		t.Errorf("approve: %d %s", a.status, a.body)
	}
}

// What is approved is what was read: an edit in between is not.
func TestAnEditBetweenReviewAndApprovalIsNotApproved(t *testing.T) {
	w := newWorld(t)
	author := w.rootToken()
	second := w.operator("second", "security", "system")
	w.account("worker", "system")
	w.audience("orders", "worker")
	end := w.clock().Add(48 * time.Hour).Format(time.RFC3339)
	made := into[wire.Grant](w.call(author, "POST", "/v1/grants",
		`{"account":"worker","audience":"orders","scopes":"read","any_tenant":{"reason":"migration","expires_at":"`+end+`"},"reason":"r"}`))
	path := "/v1/grants/" + made.ID
	read := w.call(second, "GET", path, nil).header.Get("Etag")
	edited := w.call(author, "PATCH", path, `{"scopes":"read write","reason":"wider"}`, "If-Match", read)
	for name, c := range map[string]struct {
		header []string
		status int
		code   string
	}{
		"what was read":    {[]string{"If-Match", read}, 412, wire.CodeChanged},
		"without If-Match": {nil, 428, wire.CodeNeedIfMatch},
		"with If-Match *":  {[]string{"If-Match", "*"}, 428, wire.CodeNeedIfMatch},
	} {
		if a := w.call(second, "POST", path+"/approve", because, c.header...); a.status != c.status || a.json("code") != c.code {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if g := into[wire.Grant](w.call(second, "GET", path, nil)); g.AnyTenant.ApprovedBy != "" {
		t.Error("approved all the same")
	}
	if a := w.call(second, "POST", path+"/approve", because, "If-Match", edited.header.Get("Etag")); a.status != 200 {
		t.Errorf("what stands there: %d %s", a.status, a.body)
	}
}

func TestTrustedIssuers(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	body := `{"id":"ci","issuer":"https://ci.example","audience":"broker","jwks":{"keys":[` + w.newKey("ci") + `]},"algorithms":["ES256"],"reason":"builds"}`
	made := w.call(token, "POST", "/v1/issuers", body)
	if made.status != 201 {
		t.Fatalf("create: %d %s", made.status, made.body)
	}
	patched := w.call(token, "PATCH", "/v1/issuers/ci", `{"jwks":null,"discovery":true,"allowed_cidrs":["10.0.0.0/8"],"reason":"r"}`, "If-Match", made.header.Get("ETag"))
	if now := into[wire.Issuer](patched); !now.Discovery || now.JWKS != nil || len(now.AllowedCIDRs) != 1 {
		t.Errorf("patched: %d %s", patched.status, patched.body)
	}
	if a := w.call(token, "GET", "/v1/issuers/ci", nil); a.status != 200 || a.header.Get("ETag") != patched.header.Get("ETag") {
		t.Errorf("get: %d", a.status)
	}
	if list := into[wire.List[wire.Issuer]](w.call(token, "GET", "/v1/issuers", nil)); len(list.Items) != 1 {
		t.Errorf("list: %+v", list)
	}
	if a := w.call(token, "POST", "/v1/issuers", `{"id":"x","issuer":"`+testIssuer+`","audience":"a","discovery":true,"algorithms":["ES256"],"reason":"r"}`); a.status/100 != 4 {
		t.Errorf("the broker as a trusted issuer: %d %s", a.status, a.body)
	}
	if a := w.call(token, "DELETE", "/v1/issuers/ci?reason=r", nil); a.status != 204 {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
}

func TestOperators(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	w.tenant("acme")
	w.account("ann", "acme")
	made := w.call(token, "POST", "/v1/operators", `{"account":"ann","roles":"operator viewer","tenant":"acme","max_ttl":"5m","reason":"on call"}`)
	op := into[wire.Operator](made)
	if made.status != 201 || op.Tenant.String() != "acme" || op.MaxTTL.String() != "5m0s" {
		t.Fatalf("create: %d %s", made.status, made.body)
	}
	if list := into[wire.List[wire.Operator]](w.call(token, "GET", "/v1/operators", nil)); len(list.Items) != 2 {
		t.Errorf("list: %+v", list)
	}
	if a := w.call(token, "DELETE", "/v1/grants/"+op.Grant+"?reason=r", nil); a.status != 409 {
		t.Errorf("an operator's grant deleted as a grant: %d %s", a.status, a.body)
	}
	ann := w.adminToken("ann", "acme")
	if a := w.call(ann, "GET", "/v1/tenants", nil); a.status != 200 {
		t.Fatalf("ann may look: %d %s", a.status, a.body)
	}
	if a := w.call(token, "DELETE", "/v1/operators/"+op.Grant+"?reason=left", nil); a.status != 204 {
		t.Errorf("remove: %d %s", a.status, a.body)
	}
	if a := w.call(ann, "GET", "/v1/tenants", nil); a.status != 401 {
		t.Errorf("a removed operator still gets in: %d", a.status)
	}
	self := into[wire.List[wire.Operator]](w.call(token, "GET", "/v1/operators", nil)).Items[0].Grant
	if a := w.call(token, "DELETE", "/v1/operators/"+self+"?reason=r", nil); a.status != 409 || a.json("code") != wire.CodeInUse {
		t.Errorf("the last admin removed: %d %s", a.status, a.body)
	}
}

func TestKeys(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	list := into[wire.List[wire.Key]](w.call(token, "GET", "/v1/keys", nil))
	if len(list.Items) != 2 || list.Items[0].State != wire.KeyActive || list.Items[1].State != wire.KeyStandby {
		t.Fatalf("keys: %+v", list)
	}
	if a := w.call(token, "POST", "/v1/keys/rotate", `{"reason":"r"}`); a.status != 409 || a.json("code") != wire.CodeTooEarly {
		t.Errorf("early: %d %s", a.status, a.body)
	}
	impact := into[wire.KeyImpact](w.call(token, "GET", "/v1/keys/"+list.Items[0].ID+"/impact", nil))
	if impact.Tokens != 1 || impact.Last.IsZero() {
		t.Errorf("impact: %+v", impact)
	}
	if a := w.call(token, "POST", "/v1/keys/rotate", `{"reason":"drill","emergency":true}`); into[wire.List[wire.Key]](a).Items[0].ID != list.Items[1].ID {
		t.Errorf("emergency: %d %s", a.status, a.body)
	}
	killed := w.call(token, "POST", "/v1/keys/"+list.Items[0].ID+"/revoke", `{"reason":"stolen"}`)
	if into[wire.KeyImpact](killed).Tokens != 1 {
		t.Errorf("revoke: %d %s", killed.status, killed.body)
	}
	if a := w.call(token, "GET", "/v1/keys", nil); a.status != 401 {
		t.Errorf("a token of the revoked key: %d", a.status)
	}
	w.tokens = map[string]string{}
	if a := w.call(w.rootToken(), "POST", "/v1/keys/"+list.Items[0].ID+"/revoke", `{"reason":"again"}`); a.status != 409 || a.json("code") != wire.CodeConflict {
		t.Errorf("revoked twice: %d %s", a.status, a.body)
	}
	if a := w.call(w.rootToken(), "POST", "/v1/keys/nobody/revoke", `{"reason":"r"}`); a.status != 404 {
		t.Errorf("unknown key: %d %s", a.status, a.body)
	}
}
