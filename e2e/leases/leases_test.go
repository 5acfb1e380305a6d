package leases

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// rowsSeen are the tenants whose rows a session sees, with their number.
func rowsSeen(t *testing.T, c *pgx.Conn) map[string]int {
	t.Helper()
	rows, err := c.Query(t.Context(), "SELECT tenant, count(*)::int FROM app.orders GROUP BY tenant")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for rows.Next() {
		var tenant string
		var n int
		if err := rows.Scan(&tenant, &n); err != nil {
			t.Fatal(err)
		}
		seen[tenant] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return seen
}

// Whoever holds a lease of one tenant sees that tenant's rows, and reaches no
// lease of another tenant or account.
func TestLeases_OneTenantsRows(t *testing.T) {
	t.Parallel()
	w := newLeasing(t, devvault.Options{Dev: true})
	for _, tenant := range []string{acme, globex} {
		s := w.session(w.obtain(billing, tenant, "database:ledger"))
		if seen := rowsSeen(t, s); len(seen) != 1 || seen[tenant] != 10 {
			t.Errorf("%s sees %v", tenant, seen)
		}
		if got := string(w.obtain(billing, tenant, "kv:mail").Reveal()); got != `{"key":"`+tenant+`-value"}` {
			t.Errorf("%s gets %s", tenant, got)
		}
	}
	mine := w.obtain(billing, acme, "database:ledger")
	for name, c := range map[string]struct{ account, tenant string }{
		"another tenant": {billing, globex}, "another account": {"other", acme}, "both": {"other", globex},
	} {
		leases := w.Client(c.account).Leases()
		for _, id := range []string{mine.ID(), strings.Repeat("0", 26)} {
			theirs := client.LeaseByID(id, leaseOf(c.tenant, "database:ledger"))
			if _, err := leases.Renew(t.Context(), theirs); !errors.Is(err, client.ErrNotFound) {
				t.Errorf("%s renews %s: %v", name, id, err)
			}
			if err := leases.Release(t.Context(), theirs); err != nil { // one that never was is no error either
				t.Errorf("%s releases: %v", name, err)
			}
		}
	}
	if n := rowsSeen(t, w.session(mine))[acme]; n != 10 {
		t.Error("somebody else has ended it")
	}
}

// A suspension ends the sessions of that tenant's users within seconds of its
// commit, also where the broker restarts in between; a disabled account's too.
func TestLeases_EndWithWhatTheyRestOn(t *testing.T) {
	t.Parallel()
	w := newLeasing(t, devvault.Options{Dev: true})
	theirs := w.session(w.obtain(billing, globex, "database:ledger"))
	mine := w.session(w.obtain(billing, acme, "database:ledger"))
	_, err := w.Registry().SuspendTenant(t.Context(), w.By(), credential.MustTenant(acme), 0)
	w.must(err)
	took := w.eventually("the end", func() bool { return w.users() == 1 })
	t.Logf("a suspension reached the database in %s", took)
	if mine.Ping(t.Context()) == nil || theirs.Ping(t.Context()) != nil {
		t.Error("not exactly the suspended tenant's session has ended")
	}
	if _, err := w.Client(billing).Leases().Obtain(t.Context(), leaseOf(acme, "database:ledger")); !errors.Is(err, client.ErrInvalidTarget) {
		t.Errorf("a suspended tenant leases: %v", err)
	}
	_, err = w.Registry().DisableAccount(t.Context(), w.By(), credential.MustAccountID(billing), 0)
	w.must(err)
	w.eventually("the end", func() bool { return w.users() == 0 })
	w.eventually("the proof", func() bool { return len(w.leasesLeft(false)) == 0 })
}

// While Vault is out of reach an end is on record, shown, and made good when
// Vault is back.
func TestLeases_EndWhenVaultIsBack(t *testing.T) {
	t.Parallel()
	w := newLeasing(t, devvault.Options{})
	lease := w.obtain(billing, acme, "database:ledger")
	session := w.session(lease)
	for name, c := range map[string]struct{ away, back func() error }{
		"sealed": {func() error { return w.vault.Seal(t.Context()) }, func() error { return w.vault.Unseal(t.Context()) }},
		"killed": {func() error { w.vault.Kill(); return nil }, func() error { return w.vault.Restart(t.Context()) }},
	} {
		t.Run(name, func(t *testing.T) {
			w.must(c.away())
			w.eventually("the outage", func() bool { return !w.Internal().Vault().Status().UnreachableSince.IsZero() })
			w.must(w.Admin().Leases().Revoke(t.Context(), lease.ID(), "a test"))
			if left := w.leasesLeft(true); len(left) != 1 || !strings.HasPrefix(left[0], "ending by an operator Vault doesn't serve") {
				t.Errorf("shown is %q", left)
			}
			if _, err := w.Client(billing).Leases().Obtain(t.Context(), leaseOf(acme, "database:ledger")); !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("a lease without Vault: %v", err)
			}
			if w.users() != 1 || session.Ping(t.Context()) != nil {
				t.Fatal("it has ended without Vault")
			}
			w.must(c.back())
			took := w.eventually("the end", func() bool { return w.users() == 0 })
			t.Logf("gone %s after Vault's return", took)
			w.eventually("the proof", func() bool { return len(w.leasesLeft(false)) == 0 })
			lease = w.obtain(billing, acme, "database:ledger")
			session = w.session(lease)
		})
	}
}

// What expires ends to the second, whether or not anybody asks.
func TestLeases_Expire(t *testing.T) {
	t.Parallel()
	w := newLeasing(t, devvault.Options{Dev: true})
	lease := w.obtain(billing, acme, "database:orders")
	w.session(lease)
	if life := time.Until(lease.Expires()); life > 10*time.Second {
		t.Errorf("it lives %s", life)
	}
	w.eventually("the end", func() bool { return w.users() == 0 && len(w.leasesLeft(false)) == 0 })
}
