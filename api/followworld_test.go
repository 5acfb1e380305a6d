package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// countedReads counts the views of a store, which fail with err.
type countedReads struct {
	store.Store
	err   error
	reads atomic.Int64
}

func (c *countedReads) View(ctx context.Context, fn func(store.Reader) error) error {
	c.reads.Add(1)
	if c.err != nil {
		return c.err
	}
	return c.Store.View(ctx, fn)
}

// heldReads holds the views of those whose context has a heldKey, until it is
// closed.
type heldReads struct {
	store.Store
	held  atomic.Int64
	until chan struct{}
}

type heldKey struct{}

func (h *heldReads) View(ctx context.Context, fn func(store.Reader) error) error {
	if ctx.Value(heldKey{}) != nil {
		h.held.Add(1)
		<-h.until
	}
	return h.Store.View(ctx, fn)
}

// followed is a world with a service of the broker's own and one of acme.
func followed(t *testing.T) (w *world, whole, acme string) {
	w = newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("orders-svc", "system")
	w.audience("orders", "orders-svc")
	w.account("acme-svc", "acme")
	w.audience("acme-orders", "acme-svc")
	return w, w.followToken("orders-svc", "system"), w.followToken("acme-svc", "acme")
}

func (w *world) followToken(account, home string) string {
	w.t.Helper()
	a := w.post(wire.PathToken, w.tokenForm(account, testIssuer+"/revocations", home))
	if a.status != http.StatusOK {
		w.t.Fatalf("follower's token: %d %s", a.status, a.body)
	}
	return a.json("access_token")
}

func (w *world) feed(token, query string) wire.Revocations {
	w.t.Helper()
	a := w.call(token, "GET", wire.PathRevocations+query, nil)
	if a.status != http.StatusOK {
		w.t.Fatalf("%s: %d %s", query, a.status, a.body)
	}
	return into[wire.Revocations](a)
}

// commit writes to the store and lets the hub look.
func (w *world) commit(fn func(store.Tx) error) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
	if err := w.hub.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) suspend(tenant string) {
	w.t.Helper()
	must[registry.Tenant](w.t)(w.registry.SuspendTenant(w.t.Context(), root(), credential.MustTenant(tenant), 0))
	if err := w.hub.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// introspect asks about a token as an account.
func (w *world) introspect(account, token string) got {
	form := w.tokenForm(account, "", "")
	form.Del("grant_type")
	form.Del("audience")
	form.Del("tenant")
	form.Set("token", token)
	return w.post(wire.PathIntrospect, form)
}

func many(n int) string {
	var kids []string
	for i := range n {
		kids = append(kids, fmt.Sprint("k", i))
	}
	return strings.Join(kids, ",")
}

// poll starts a long poll and returns its answer to come.
func (w *world) poll(ctx context.Context, token, query string, headers ...string) <-chan got {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, wire.PathRevocations+query, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Prefer", "wait=30")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	done := make(chan got, 1)
	before := w.handler.follow.polls.count()
	go func() { done <- w.serve(r) }()
	for w.handler.follow.polls.count() == before { // until it waits
		select {
		case a := <-done: // it didn't
			done <- a
			return done
		default:
			runtime.Gosched()
		}
	}
	return done
}
