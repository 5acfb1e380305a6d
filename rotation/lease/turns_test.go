package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// slow is a Vault whose values come when they are let.
type slow struct {
	Vault
	begun chan string // paths
	let   chan struct{}
}

func (s *slow) Value(ctx context.Context, _, path string) (vault.KVValue, error) {
	s.begun <- path
	select {
	case <-s.let:
		return vault.KVValue{Data: map[string]any{"a": "b"}, Version: 1}, nil
	case <-ctx.Done():
		return vault.KVValue{}, vault.ErrUnavailable
	}
}

// While Vault is slow one account takes a share of the calls to it, all have a
// bound, and whoever waits in vain is told so.
func TestSlowCallsOfOneAccountDelayNoOther(t *testing.T) {
	w := newValues(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	other := w.token("other", "globex", w.grant("other", tenants("globex")))
	v := &slow{w.faults, make(chan string, 100), make(chan struct{})}
	w.m.vault = v
	w.m.served = func(context.Context, Served) {}
	var wg sync.WaitGroup
	for range parallelOfAccount + 5 {
		wg.Go(func() { _, _ = w.m.Obtain(t.Context(), h, Request{Of: of("kv:mail")}) })
	}
	for range parallelOfAccount {
		<-v.begun
	}
	got := make(chan error, 1)
	go func() {
		_, err := w.m.Obtain(t.Context(), other, Request{Of: of("kv:mail")})
		got <- err
	}()
	<-v.begun
	if n := len(v.begun); n != 0 {
		t.Errorf("%d more calls than one account may have", n)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.m.Obtain(ended, h, Request{Of: of("kv:mail")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	close(v.let)
	if err := <-got; err != nil {
		t.Errorf("the other account: %v", err)
	}
	wg.Wait()
	if len(w.m.turns.of) != 0 || len(w.m.turns.all) != 0 {
		t.Error("turns are kept for nobody")
	}
}

func TestTurnsOfAllAreBounded(t *testing.T) {
	all := newTurns()
	var done []func()
	for i := range parallelRequests {
		end, err := all.take(t.Context(), credential.MustTenant(fmt.Sprintf("t-%d", i)), credential.MustAccountID(fmt.Sprintf("a-%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, end)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all.take(ended, credential.MustTenant("acme"), credential.MustAccountID("one-more")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	for _, end := range done {
		end()
	}
	if end, err := all.take(t.Context(), credential.MustTenant("acme"), credential.MustAccountID("one-more")); err != nil {
		t.Error(err)
	} else {
		end()
	}
	if len(all.of) != 0 {
		t.Error("turns are kept for nobody")
	}
}

// However many accounts a tenant has, and however many of them wait, another
// tenant has its turn at once; who waits in vain leaves nothing taken; and an
// account that works for several tenants has no more turns for it.
func TestTurnsOfOneTenantLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		account := func(n int) credential.AccountID { return credential.MustAccountID(fmt.Sprintf("a-%d", n)) }
		ends, refused := make(chan func(), 100), make(chan error, 100)
		take := func(tenant string, account credential.AccountID) {
			go func() {
				if end, err := turns.take(t.Context(), credential.MustTenant(tenant), account); err != nil {
					refused <- err
				} else {
					ends <- end
				}
			}()
		}
		taken := func(want int, of string) {
			synctest.Wait()
			if len(ends) != want {
				t.Errorf("%d turns of %s, not %d", len(ends), of, want)
			}
		}
		for n := range 2 * parallelRequests {
			take("acme", account(n))
		}
		taken(16, "a tenant with many accounts")
		for range parallelOfAccount {
			take("globex", account(200))
		}
		taken(24, "both")
		take("initech", account(300))
		taken(24, "all")
		time.Sleep(turnTimeout)
		synctest.Wait()
		if len(refused) != 2*parallelRequests-16+1 {
			t.Errorf("%d were told that it is too many", len(refused))
		}
		for range len(ends) {
			(<-ends)()
		}
		for n := range 2 * parallelOfAccount {
			take([]string{"acme", "globex"}[n%2], account(0))
		}
		taken(parallelOfAccount, "an account in two tenants")
		time.Sleep(turnTimeout)
		synctest.Wait()
		for range len(ends) {
			(<-ends)()
		}
		if len(turns.of) != 0 || len(turns.all) != 0 {
			t.Error("turns are kept for nobody")
		}
	})
}
