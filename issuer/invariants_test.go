package issuer

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

// I5, by order: while the commit is withheld nothing is signed and nothing is
// answered, before it begins and after it took effect alike.
func TestInvariant_I5_NothingIsReleasedBeforeTheCommitReturns(t *testing.T) {
	var holding *storetest.Withholding
	w := standardOn(t, func(s store.Store) store.Store { holding = storetest.Withhold(s); return holding })
	for name, hold := range map[string]func() (<-chan struct{}, func()){
		"before the commit": holding.BeforeCommit, "after the commit": holding.AfterCommit,
	} {
		for kind, change := range map[string]want{"allowed": nil, "denied": {"tenant": "initech"}} {
			t.Run(name+" "+kind, func(t *testing.T) {
				signed := w.ring.signed
				held, release := hold()
				defer release()
				r := w.asking("worker", change)
				answered := make(chan error, 1)
				go func() {
					_, err := w.iss.Token(t.Context(), r)
					answered <- err
				}()
				<-held
				select {
				case err := <-answered:
					t.Fatalf("answered (%v) while the commit is withheld", err)
				case <-time.After(50 * time.Millisecond):
				}
				if w.ring.signed != signed {
					t.Fatal("signed while the commit is withheld")
				}
				release()
				if err := <-answered; (err == nil) != (kind == "allowed") {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestInvariant_I5_FailedCommitIsUnavailable(t *testing.T) {
	var failing *storetest.Failing
	w := standardOn(t, func(s store.Store) store.Store { failing = storetest.NewFailing(s); return failing })
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		for _, change := range []want{nil, {"tenant": "initech"}} {
			r := w.asking("worker", change)
			failing.Fail(fault, -1)
			e := w.refusal(r)
			failing.Fail(storetest.None, 0)
			if e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second {
				t.Errorf("fault %d: %v", fault, e)
			}
			_, err := w.iss.Token(t.Context(), r)
			switch {
			case fault == storetest.FailedButTaken:
				if asError(t, err).Reason != "assertion_replayed" {
					t.Errorf("a commit that took effect: the assertion serves again: %v", err)
				}
			case change == nil && err != nil:
				t.Errorf("a commit that did not take effect used up the assertion: %v", err)
			}
		}
	}
	if w.ring.signed != 1 {
		t.Errorf("%d signatures", w.ring.signed)
	}
}

// A suspension, a disabling, or a lost grant races with tokens: once it is
// committed none is recorded any more.
func TestInvariant_I5_SuspensionDoesNotRaceAMint(t *testing.T) {
	rounds := 60
	if os.Getenv("TENANTBROKER_SOAK") != "" {
		rounds = 2000
	}
	w := standard(t)
	acme, worker := credential.MustTenant("acme"), credential.MustAccountID("worker")
	for n := range rounds {
		suspend := n%2 == 0
		requests := make([]TokenRequest, 24)
		for i := range requests {
			requests[i] = w.asking("worker", nil)
		}
		var wg sync.WaitGroup
		for _, r := range requests {
			wg.Go(func() {
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				_, err := w.iss.Token(t.Context(), r)
				if err != nil && asError(t, err).Code == TemporarilyUnavailable && !errors.Is(err, store.ErrChanged) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			var err error
			if suspend {
				_, err = w.reg.SuspendTenant(t.Context(), w.op, acme, 0)
			} else {
				_, err = w.reg.DisableAccount(t.Context(), w.op, worker, 0)
			}
			if err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		w.noTokenAfterStop()
		var err error
		if suspend {
			_, err = w.reg.ResumeTenant(t.Context(), w.op, acme, 0)
		} else {
			_, err = w.reg.EnableAccount(t.Context(), w.op, worker, 0)
		}
		w.must(err)
		w.clock.add(time.Second) // in this one there are no tokens
	}
}

// noTokenAfterStop reads the log from its end back to the newest record that
// stops tokens and fails if one was issued behind it.
func (w *world) noTokenAfterStop() {
	w.tb.Helper()
	var types []string
	w.must(w.st.View(w.tb.Context(), func(r store.Reader) error {
		end, err := r.LogEnd()
		if err != nil {
			return err
		}
		for e, err := range r.Log(end - min(end, 60)) {
			if err != nil {
				return err
			}
			rec, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			types = append(types, rec.Type)
		}
		return nil
	}))
	stop := slices.IndexFunc(types, func(s string) bool { return s == "tenant.suspended" || s == "account.disabled" })
	for i := len(types) - 1; i >= 0; i-- {
		if types[i] == "tenant.suspended" || types[i] == "account.disabled" {
			stop = i
			break
		}
	}
	if stop < 0 {
		w.tb.Fatalf("no stop among %v", types)
	}
	if slices.Contains(types[stop:], "token.issued") {
		w.tb.Fatalf("a token after the stop: %v", types[stop:])
	}
}

// changing touches the account's row between every decision and its commit.
type changing struct {
	store.Store
	mu    sync.Mutex
	times int
	touch func()
}

func (c *changing) Update(ctx context.Context, fn func(store.Tx) error) error {
	c.mu.Lock()
	touch := c.times > 0
	if touch {
		c.times--
	}
	c.mu.Unlock()
	if touch {
		c.touch()
	}
	return c.Store.Update(ctx, fn)
}

func TestChangedStateIsDecidedAgainAFewTimes(t *testing.T) {
	for _, c := range []struct {
		changes int
		served  bool
	}{{1, true}, {3, true}, {4, false}, {100, false}} {
		var layer *changing
		w := standardOn(t, func(s store.Store) store.Store { layer = &changing{Store: s}; return layer })
		r := w.asking("worker", nil)
		layer.touch = func() { // a change of the row that changes nothing else
			w.must(layer.Store.Update(t.Context(), func(tx store.Tx) error {
				row, err := tx.Get("accounts", "worker")
				if err != nil {
					return err
				}
				_, err = tx.Put("accounts", "worker", slices.Clone(row.Value), row.Version)
				return err
			}))
		}
		layer.times = c.changes
		_, err := w.iss.Token(t.Context(), r)
		if (err == nil) != c.served {
			t.Errorf("%d changes: %v", c.changes, err)
		}
		if err != nil && asError(t, err).Code != TemporarilyUnavailable {
			t.Errorf("%d changes: %v", c.changes, err)
		}
		layer.times = 0
		if !c.served { // nothing was written: the assertion serves again
			w.token(r)
		}
	}
}

// Each row that a decision rests on, changed at the last moment, stops it.
func TestEveryRowOfADecisionIsReChecked(t *testing.T) {
	w := standard(t)
	id, failed := w.iss.authenticate(t.Context(), &proof{kind: proofAssertion, token: w.assertion("worker", nil)})
	if failed != nil {
		t.Fatal(failed)
	}
	v, err := w.iss.match(t.Context(), &ask{
		account: id.account, audience: credential.MustAudience("orders"), tenant: credential.MustTenant("acme"), claims: id.claims,
	})
	w.must(err)
	rests := append(slices.Clone(v.rests), id.rests...)
	var tables []string
	for _, r := range rests {
		tables = append(tables, string(r.Table))
	}
	slices.Sort(tables)
	if !slices.Equal(tables, []string{"accounts", "audiences", "grants", "tenants"}) {
		t.Fatalf("rests on %v", tables)
	}
	decision := mint.Decision{
		Account: id.account.ID, Audience: credential.MustAudience("orders"), Tenant: credential.MustTenant("acme"),
		Scopes: v.scopes, Lifetime: v.lifetime, Grant: v.grant.ID,
	}
	for i := range rests {
		stale := slices.Clone(rests)
		stale[i].Version--
		decision.Rests = stale
		if _, err := w.iss.mint.Commit(t.Context(), decision); !errors.Is(err, store.ErrChanged) {
			t.Errorf("%s stale: %v", stale[i].Table, err)
		}
	}
	w.ring.touch(t)
	decision.Rests = rests
	if _, err := w.iss.mint.Commit(t.Context(), decision); !errors.Is(err, store.ErrChanged) {
		t.Errorf("key ring stale: %v", err)
	}
	if n := len(w.records()); n != 0 {
		t.Errorf("%d records", n)
	}
}

// Many at once, from several accounts for several tenants: each gets its own.
func TestConcurrentRequestsDoNotMix(t *testing.T) {
	w := standard(t)
	for n := range 4 {
		id := "w" + strconv.Itoa(n)
		w.account(id)
		w.grant(id, "orders", "read", tenants("acme", "globex", "initech"))
	}
	var wg sync.WaitGroup
	for n := range 200 {
		account, tenant := "w"+strconv.Itoa(n%4), []string{"acme", "globex", "initech"}[n%3]
		r := w.asking(account, want{"tenant": tenant})
		wg.Go(func() {
			resp, err := w.iss.Token(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			if c := w.claimsOf(resp.AccessToken); c.Tenant.String() != tenant || c.ClientID.String() != account {
				t.Errorf("%s for %s got %s for %s", account, tenant, c.ClientID, c.Tenant)
			}
		})
	}
	wg.Wait()
}

func TestCancelledRequestIsNotReleased(t *testing.T) {
	var holding *storetest.Withholding
	w := standardOn(t, func(s store.Store) store.Store { holding = storetest.Withhold(s); return holding })
	held, release := holding.AfterCommit()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	r := w.asking("worker", nil)
	done := make(chan error, 1)
	go func() {
		_, err := w.iss.Token(ctx, r)
		done <- err
	}()
	<-held
	cancel()
	if e := asError(t, <-done); e.Code != TemporarilyUnavailable || !errors.Is(e, context.Canceled) {
		t.Errorf("%v", e)
	}
}
