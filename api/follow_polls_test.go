package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

func TestAPollIsWokenByWhatItMaySee(t *testing.T) {
	w, whole, acme := followed(t)
	every, own := w.poll(t.Context(), whole, "?after=0"), w.poll(t.Context(), acme, "?after=0")
	w.suspend("globex")
	a := <-every
	if got := into[wire.Revocations](a); a.header.Get("Preference-Applied") != "wait=30" || got.Tenants["globex"] == 0 || got.Complete {
		t.Errorf("%v %s", a.header, a.body)
	}
	w.commit(func(tx store.Tx) error {
		_, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("acme"), "ours", mustAccount("x"))
		return err
	})
	if got := into[wire.Revocations](<-own); len(got.Tenants) != 0 || !slices.Equal(got.Chains, []string{"ours"}) {
		t.Errorf("%+v", got)
	}
}

func TestAPollEndsWithTheStandingOfItsCaller(t *testing.T) {
	w, _, acme := followed(t)
	waiting := w.poll(t.Context(), acme, "?after=0")
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), mustAccount("acme-svc"), 0))
	if err := w.hub.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-waiting; a.status != 401 || strings.Contains(a.body, "accounts") {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.commit(func(tx store.Tx) error {
		_, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("acme"), "ours", mustAccount("x"))
		return err
	})
	if a := w.call(acme, "GET", wire.PathRevocations+"?after=0", nil); a.status != 401 {
		t.Errorf("asked again: %d %s", a.status, a.body)
	}
}

// The services of a tenant that is suspended hold its tokens for dead too: they
// are told, though what they tell with is dead by then, and nothing beyond it.
func TestAServiceIsToldThatItsTenantIsSuspended(t *testing.T) {
	w, _, acme := followed(t)
	w.suspend("globex")
	w.commit(func(tx store.Tx) error {
		_, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("globex"), "theirs", mustAccount("x"))
		return err
	})
	waiting := w.poll(t.Context(), acme, "?after=0")
	w.suspend("acme")
	told := <-waiting
	news := into[wire.Revocations](told)
	if told.status != 200 || len(news.Tenants) != 1 || news.Tenants["acme"] == 0 || len(news.Chains) != 0 || news.Tenant != credential.MustTenant("acme") {
		t.Fatalf("waiting: %d %s", told.status, told.body)
	}
	if a := w.call(acme, "GET", wire.PathRevocations+"?after=0", nil); a.status != 200 || !maps.Equal(into[wire.Revocations](a).Tenants, news.Tenants) {
		t.Errorf("came back too late to wait: %d %s", a.status, a.body)
	}
	if a := <-w.poll(t.Context(), acme, fmt.Sprintf("?after=%d", news.Seq)); a.status != 401 || a.header.Get("Www-Authenticate") == "" {
		t.Errorf("knows, and is served: %d %s", a.status, a.body)
	}
	if a := w.call(acme, "GET", wire.PathLeases, nil); a.status != 401 {
		t.Errorf("another endpoint: %d", a.status)
	}
	if _, err := w.registry.ResumeTenant(t.Context(), root(), credential.MustTenant("acme"), 0); err != nil {
		t.Fatal(err)
	}
	if a := w.call(acme, "GET", wire.PathRevocations+"?after=0", nil); a.status != 401 {
		t.Errorf("resumed, with a token that stays dead: %d %s", a.status, a.body)
	}
}

func TestAPollEndsWhenItsWaitIsOver(t *testing.T) {
	w, whole, _ := followed(t)
	a := <-w.poll(t.Context(), whole, "?after=0", "Prefer", "wait=1")
	if got := into[wire.Revocations](a); got.Seq != 0 || got.Complete || a.header.Get("Preference-Applied") != "wait=1" {
		t.Errorf("%s", a.body)
	}
}

func TestAPollEndsWithTheServer(t *testing.T) {
	w, whole, _ := followed(t)
	waiting := w.poll(t.Context(), whole, "?after=0")
	w.hub.Drain()
	if a := <-waiting; a.status != 200 || a.header.Get("Connection") != "close" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := <-w.poll(t.Context(), whole, "?after=0"); a.status != 200 {
		t.Errorf("one that came later: %d", a.status)
	}
}

// Two hundred who wait for the same share one reading of the store.
func TestAWakeUpReadsTheStoreOnce(t *testing.T) {
	w, whole, _ := followed(t)
	counting := &countedReads{Store: w.store}
	w.handler.follow.answers.store = counting
	var waiting []<-chan got
	for range 200 {
		waiting = append(waiting, w.poll(t.Context(), whole, "?after=0"))
	}
	before := counting.reads.Load()
	w.suspend("globex")
	for _, one := range waiting {
		if got := into[wire.Revocations](<-one); got.Tenants["globex"] == 0 {
			t.Fatalf("%+v", got)
		}
	}
	if n := counting.reads.Load() - before; n != 1 {
		t.Errorf("%d readings for one wake-up", n)
	}
}
