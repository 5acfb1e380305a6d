package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

func TestTheFeedTellsAllOrWhatIsNew(t *testing.T) {
	doc := loadDocument(t)
	w, whole, _ := followed(t)
	first := w.feed(whole, "")
	if !first.Complete || first.Issuer != testIssuer || first.MaxStale != 300 || len(first.Tokens)+len(first.Tenants) != 0 {
		t.Errorf("%+v", first)
	}
	w.suspend("globex")
	next := w.feed(whole, fmt.Sprintf("?after=%d", first.Seq))
	if next.Complete || next.Seq <= first.Seq || next.Tenants["globex"] != w.clock().Unix() || !next.Tenant.IsZero() {
		t.Errorf("%+v", next)
	}
	if again := w.feed(whole, fmt.Sprintf("?after=%d", next.Seq)); again.Complete || again.Seq != next.Seq || len(again.Tenants) != 0 {
		t.Errorf("%+v", again)
	}
	if all := w.feed(whole, ""); !all.Complete || len(all.Tenants) != 1 {
		t.Errorf("%+v", all)
	}
	// It has seen what this store has not: a backup was restored.
	if all := w.feed(whole, fmt.Sprintf("?after=%d", next.Seq+1)); !all.Complete || all.Seq != next.Seq || len(all.Tenants) != 1 {
		t.Errorf("%+v", all)
	}
	doc.holds(t, "GET", wire.PathRevocations, w.call(whole, "GET", wire.PathRevocations, nil))
	doc.holds(t, "GET", wire.PathRevocations, w.call(whole, "GET", wire.PathRevocations+"?after=x", nil))
	if a := w.call(whole, "HEAD", wire.PathRevocations, nil); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
}

// Everything that can be revoked, seen from one tenant: its own, and nothing
// of another one's, not even how much there is.
func TestAFollowerOfOneTenantSeesNothingOfOthers(t *testing.T) {
	w, whole, acme := followed(t)
	before := w.feed(acme, "")
	if before.Tenant.String() != "acme" || before.Seq != 0 {
		t.Errorf("%+v", before)
	}
	w.commit(func(tx store.Tx) error {
		for _, tenant := range []string{"acme", "globex"} {
			c := credential.Claims{
				ID: tenant + "-jti", Tenant: credential.MustTenant(tenant), Subject: mustAccount("x"), ClientID: mustAccount("x"),
				IssuedAt: w.clock(), Expires: w.clock().Add(time.Minute), Txn: tenant,
			}
			if _, err := revocation.Add(tx, w.clock(), c, mustAccount("x")); err != nil {
				return err
			}
			if _, err := revocation.AddChain(tx, w.clock(), c.Tenant, tenant+"-txn", mustAccount("x")); err != nil {
				return err
			}
		}
		return nil
	})
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), w.account("globex-worker", "globex"), 0))
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), w.account("system-worker", "system"), 0))
	own := w.feed(acme, "?after=0")
	if !slices.Equal(own.Tokens, []string{"acme-jti"}) || !slices.Equal(own.Chains, []string{"acme-txn"}) || len(own.Accounts) != 0 || len(own.Tenants) != 0 {
		t.Errorf("%+v", own)
	}
	w.suspend("globex")
	if later := w.feed(acme, fmt.Sprintf("?after=%d", own.Seq)); later.Seq != own.Seq || len(later.Tenants) != 0 {
		t.Errorf("another's suspension shows: %+v", later)
	}
	// Nor does it show in whether a place counts as one that nobody was given: who
	// could look for the newest place by halves would know when others revoke.
	lo, hi := uint64(0), uint64(1)<<62
	for lo < hi {
		if mid := lo + (hi-lo+1)/2; w.feed(acme, fmt.Sprintf("?after=%d", mid)).Complete {
			hi = mid - 1
		} else {
			lo = mid
		}
	}
	if newest := w.feed(whole, "").Seq; lo != own.Seq {
		t.Errorf("acme's service finds %d; its own newest place is %d, that of all %d", lo, own.Seq, newest)
	}
	all := w.feed(whole, "")
	if len(all.Tokens) != 2 || len(all.Chains) != 2 || len(all.Accounts) != 2 || len(all.Tenants) != 1 {
		t.Errorf("control: %+v", all)
	}
	w.commit(func(tx store.Tx) error {
		return revocation.AddKeys(tx, w.clock(), "kid")
	})
	if keys := w.feed(acme, "?after=0").Keys; !slices.Equal(keys, []string{"kid"}) {
		t.Errorf("keys concern everyone: %v", keys)
	}
}

func TestWhoMayFollow(t *testing.T) {
	w, whole, acme := followed(t)
	challenge := `Bearer realm="` + testIssuer + `"`
	for name, c := range map[string]struct{ token, header string }{
		"no token":                 {"", challenge},
		"an operator's token":      {w.rootToken(), challenge + `, error="invalid_token"`},
		"garbage":                  {"x.y.z", challenge + `, error="invalid_token"`},
		"a token cut off at a dot": {whole[:len(whole)-1], challenge + `, error="invalid_token"`},
	} {
		a := w.call(c.token, "GET", wire.PathRevocations, nil)
		if a.status != 401 || a.header.Get("WWW-Authenticate") != c.header || a.json("code") != "unauthenticated" {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	if a := w.call(whole, "POST", wire.PathRevocations, because); a.status != 401 {
		t.Errorf("a follower's token revokes: %d", a.status)
	}
	// What the token rests on is looked at on every call.
	for name, lose := range map[string]func(w *world) error{
		"account disabled": func(w *world) error {
			_, err := w.registry.DisableAccount(t.Context(), root(), mustAccount("acme-svc"), 0)
			return err
		},
		"suspended and resumed": func(w *world) error {
			if _, err := w.registry.SuspendTenant(t.Context(), root(), credential.MustTenant("acme"), 0); err != nil {
				return err
			}
			_, err := w.registry.ResumeTenant(t.Context(), root(), credential.MustTenant("acme"), 0)
			return err
		},
		"audience deleted": func(w *world) error {
			return w.registry.DeleteAudience(t.Context(), root(), mustAudience("acme-orders"), 0)
		},
		"token revoked": func(w *world) error {
			jti := into[wire.Introspection](w.introspect("acme-svc", acme)).ID
			_, err := w.registry.Revoke(t.Context(), root(), registry.Revocation{Kind: revocation.Token, ID: jti, Tenant: credential.MustTenant("acme")})
			return err
		},
	} {
		w, _, acme = followed(t)
		w.feed(acme, "")
		if err := lose(w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a := w.call(acme, "GET", wire.PathRevocations, nil); a.status != 401 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
}

func TestTheQueryIsReadStrictly(t *testing.T) {
	w, whole, _ := followed(t)
	id := strings.Repeat("i", 16)
	for query, status := range map[string]int{
		"": 200, "?after=0": 200, "?after=9223372036854775807": 200, "?verifier=" + id: 200, "?verifier=" + id + "&keys=": 200,
		"?verifier=" + id + "&keys=a,b-_9": 200, "?verifier=" + strings.Repeat("i", 64): 200,
		"?after=": 400, "?after=-1": 400, "?after=+1": 400, "?after=01": 400, "?after=1e3": 400, "?after=9223372036854775808": 400,
		"?after=1&after=1": 400, "?wait=3": 400, "?After=1": 400, "?keys=a": 400, "?verifier=": 400, "?verifier=short": 400,
		"?verifier=" + strings.Repeat("i", 65): 400, "?verifier=" + id + "%00": 400, "?verifier=" + id + "&keys=a,,b": 400,
		"?verifier=" + id + "&keys=a,a": 400, "?verifier=" + id + "&keys=a%20b": 400, "?verifier=" + id + "&keys=" + strings.Repeat("k", 129): 400,
		"?verifier=" + id + "&keys=" + many(33): 400, "?verifier=" + id + "&keys=" + many(32): 200,
	} {
		if a := w.call(whole, "GET", wire.PathRevocations+query, nil); a.status != status {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestPreferredWait(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   time.Duration
	}{
		{nil, 0}, {[]string{"wait=7"}, 7 * time.Second}, {[]string{"WAIT = 7"}, 7 * time.Second}, {[]string{`wait="7"`}, 7 * time.Second},
		{[]string{"respond-async, wait=7; x=1"}, 7 * time.Second}, {[]string{"respond-async", "wait=7"}, 7 * time.Second},
		{[]string{"wait=30"}, 30 * time.Second}, {[]string{"wait=31"}, 30 * time.Second}, {[]string{"wait=2147483647"}, 30 * time.Second},
		{[]string{"wait=3, wait=9"}, 3 * time.Second}, {[]string{`x="a, wait=9"`}, 0}, {[]string{`x="a\", wait=9", wait=2`}, 2 * time.Second},
		{[]string{"wait"}, 0}, {[]string{"wait="}, 0}, {[]string{"wait=-1"}, 0}, {[]string{"wait=1.5"}, 0}, {[]string{"wait=99999999999"}, 0}, {[]string{"waits=3"}, 0},
	} {
		if got := preferredWait(http.Header{"Prefer": c.values}); got != c.want {
			t.Errorf("%q: %v, want %v", c.values, got, c.want)
		}
	}
}

// FuzzFollow: the query and the header of a poll. What is taken is in bounds.
func FuzzFollow(f *testing.F) {
	f.Add("after=12&verifier=iiiiiiiiiiiiiiii&keys=a,b", "wait=5")
	f.Add("after=-1", `x="\",wait=3`)
	f.Fuzz(func(t *testing.T, query, prefer string) {
		if d := preferredWait(http.Header{"Prefer": {prefer}}); d < 0 || d > longestWait {
			t.Errorf("waits %v", d)
		}
		q, err := parseForm(query)
		if err != nil {
			return
		}
		ask, err := readFollow(q)
		if err != nil {
			return
		}
		if len(ask.keys) > 32 || len(ask.instance) > maxInstance || ask.all == q.sent("after") || ask.from != ask.after {
			t.Errorf("%+v", ask)
		}
	})
}

func TestAStoreThatCantBeReadIsUnavailable(t *testing.T) {
	w, whole, _ := followed(t)
	broken := &countedReads{Store: w.store, err: store.ErrUnavailable}
	w.handler.follow.answers.store = broken
	for range 2 { // the failure is not kept
		if a := w.call(whole, "GET", wire.PathRevocations, nil); a.status != 503 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	broken.err = nil
	w.feed(whole, "")
}

func TestExplainTellsAnOperatorOfATenantWhoMayFollow(t *testing.T) {
	w, _, _ := followed(t)
	local := w.operator("local", "viewer", "acme")
	path := "/v1/explain?account=acme-svc&tenant=acme&audience=" + url.QueryEscape(testIssuer+"/revocations")
	if a := w.call(local, "GET", path, nil); a.json("decision") != "allow" || a.json("grant") == "" {
		t.Errorf("%s", a.body)
	}
	w.account("no-svc", "acme")
	if a := w.call(local, "GET", strings.Replace(path, "acme-svc", "no-svc", 1), nil); a.json("reason") != "owns_no_audience" {
		t.Errorf("%s", a.body)
	}
	if a := w.call(local, "GET", strings.Replace(path, "acme-svc", "orders-svc", 1), nil); a.status != 404 {
		t.Errorf("another's account: %d %s", a.status, a.body)
	}
}
