package e2e

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// rolledBack has Vault's storage rolled back to before a rotation of two shared
// secrets and two leases of database users. The users work until they are ended, and are gone
// when that is on record, whether Vault knows them or not. That the secrets are
// older than the broker's is said, and nothing is written over it before an
// operator says so; then there is one good value again.
func (d *dueBroker) rolledBack(t *testing.T) {
	d.signIn()
	versions := map[string]uint64{dueMail.id: d.secret(t, dueMail).Version, dueLogin.id: d.secret(t, dueLogin).Version}
	former := d.inVault(t, dueLogin)
	known := d.leaseUser(t)
	before, err := d.v.CopyStorage()
	must(t, err)
	lost, shortened := d.leaseUser(t), d.leaseUser(t)
	for _, s := range dueSecrets {
		must(t, d.Internal().Secrets().Rotate(t.Context(), d.By(), s.id, 0, false))
		d.awaitRotated(t, s, versions[s.id]+1)
	}
	newer := d.inVault(t, dueLogin)
	must(t, d.v.RollBack(t.Context(), before))
	await(t, "the broker's return", func() bool { return d.lease(t, dueMail) != nil })

	for _, u := range []*dueUser{known, lost, shortened} {
		u.works(t)
	}
	if n := d.users(t); n != 3 {
		t.Errorf("%d users in the database", n)
	}
	d.giveBack(t, lost.id)
	await(t, "the end of a user that Vault doesn't know", func() bool { return d.users(t) == 2 })
	if n, err := lost.rows(t); err == nil {
		t.Errorf("its session sees %d rows", n)
	}

	for _, s := range dueSecrets {
		count := d.countSecret(t, s)
		must(t, d.Internal().Secrets().Rotate(t.Context(), d.By(), s.id, 0, false))
		await(t, "drift of "+s.id, func() bool { st := d.secret(t, s); return st.Drift != "" && st.Asked == nil })
		if now := d.countSecret(t, s); now != count {
			t.Errorf("%s: counted %+v and then %+v", s.id, count, now)
		}
	}
	// What consumers were given last is still good: it is what is in Vault that isn't.
	must(t, d.signInWith(t, newer["client_secret"]))
	for _, s := range dueSecrets {
		must(t, d.Internal().Secrets().Rotate(t.Context(), d.By(), s.id, 0, true))
		d.awaitRotated(t, s, versions[s.id]+2)
		if current, live := d.liveValues(t, s); !slices.Equal(live, []int{current}) {
			t.Errorf("%s: the versions %v of the value live, and %d is the current one", s.id, live, current)
		}
		d.sameValue(t, s)
	}
	d.takesOnly(t, d.inVault(t, dueLogin), former)
	if err := d.signInWith(t, newer["client_secret"]); !errors.Is(err, client.ErrInvalidClient) {
		t.Errorf("the client secret that was lost: %v", err)
	}

	_, err = d.Registry().UpdateGrant(t.Context(), d.By(), d.leases, 0, func(g *registry.Grant) error {
		g.ExpiresAt = time.Now().Add(2 * time.Second)
		return nil
	})
	must(t, err)
	d.noLease(t)
	if n := d.users(t); n != 0 {
		t.Errorf("%d users are left in the database after their grant", n)
	}
	for name, u := range map[string]*dueUser{"that Vault knew": known, "that Vault didn't know": shortened} {
		if n, err := u.rows(t); err == nil {
			t.Errorf("the session of a user %s sees %d rows", name, n)
		}
	}
	said := make(map[string]bool)
	for r, err := range d.Admin().Audit().Search(t.Context(), client.AuditFilter{Tenant: credential.MustTenant(acme), Type: "lease.gone"}) {
		must(t, err)
		if strings.Contains(r.Reason, "Vault knew it no more") {
			said[r.Resource.ID] = true
		}
	}
	if !said[lost.id] || !said[shortened.id] || said[known.id] {
		t.Errorf("that Vault knew a lease no more is on record of %v, not of %s and %s alone", said, lost.id, shortened.id)
	}
}
