package keys

import (
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// settled are members of a broker that has run for a while.
func settled(c *clock) *Members {
	m := NewMembers(c.now, MemberTTL)
	m.Serving()
	c.add(MemberTTL)
	return m
}

func TestMembersAreCountedWithTheirKeys(t *testing.T) {
	c := newClock()
	m := settled(c)
	a, b := credential.MustAccountID("a"), credential.MustAccountID("b")
	m.Join(credential.System, a, "one", []string{"old"})
	leave := m.Join(credential.System, a, "two", []string{"old", "new"})
	m.Join(credential.System, b, "one", []string{"old", "new", "unknown"}) // another account's of the same name
	u := m.Uptake()
	if u.Verifiers != 3 || u.Holding["old"] != 3 || u.Holding["new"] != 2 || u.Missing("new") != 1 || u.Settling {
		t.Errorf("%+v", u)
	}
	if got := m.Without("new", 10); len(got) != 1 || got[0] != (Lacking{a, 1}) {
		t.Errorf("%v", got)
	}
	m.Join(credential.System, a, "one", []string{"new"}) // it reports anew
	if u := m.Uptake(); u.Verifiers != 3 || u.Missing("new") != 0 || u.Holding["old"] != 2 {
		t.Errorf("%+v", u)
	}
	leave()
	c.add(MemberTTL - time.Second)
	if u := m.Uptake(); u.Verifiers != 3 {
		t.Errorf("between two polls: %+v", u)
	}
	c.add(time.Second)
	if u := m.Uptake(); u.Verifiers != 2 || u.Holding["new"] != 2 {
		t.Errorf("a verifier that vanished holds a rotation up: %+v", u)
	}
}

func TestMembersOfOneAccountAreBounded(t *testing.T) {
	c := newClock()
	m := settled(c)
	a := credential.MustAccountID("a")
	var leave []func()
	for n := range MaxInstances + 100 {
		leave = append(leave, m.Join(credential.System, a, fmt.Sprint("instance", n), []string{"old"}))
	}
	if u := m.Uptake(); u.Verifiers != MaxInstances+1 {
		t.Errorf("%d verifiers", u.Verifiers)
	}
	for n := range MaxInstances + 1 { // the last of these stands for all others
		m.Join(credential.System, a, fmt.Sprint("instance", n), []string{"new"})
	}
	if u := m.Uptake(); u.Missing("new") != 0 {
		t.Errorf("the others count by the latest report: %+v", u)
	}
	m.Join(credential.System, credential.MustAccountID("b"), "one", nil)
	if u := m.Uptake(); u.Verifiers != MaxInstances+2 {
		t.Errorf("another account: %d", u.Verifiers)
	}
	for _, end := range leave {
		end()
	}
}

func TestMembersOfAllAccountsAreBounded(t *testing.T) {
	c := newClock()
	m := settled(c)
	account := func(n int) credential.AccountID { return credential.MustAccountID(fmt.Sprint("account", n)) }
	var leave []func()
	for n := range MaxMembers + 10 {
		leave = append(leave, m.Join(credential.System, account(n), "one", nil))
	}
	if u := m.Uptake(); u.Verifiers != MaxMembers {
		t.Errorf("%d verifiers", u.Verifiers)
	}
	for _, end := range leave {
		end()
	}
	c.add(MemberTTL)
	m.Join(credential.System, account(MaxMembers), "one", nil)
	if u := m.Uptake(); u.Verifiers != 1 || m.total != 1 || len(m.accounts) != 1 {
		t.Errorf("%d verifiers, %d kept", u.Verifiers, m.total)
	}
}

// Who makes accounts of one tenant by the thousand doesn't take the room of others.
func TestMembersOfOneTenantAreBounded(t *testing.T) {
	m := settled(newClock())
	acme := credential.MustTenant("acme")
	for n := range 2 * MaxMembers / MaxInstances {
		for i := range MaxInstances {
			defer m.Join(acme, credential.MustAccountID(fmt.Sprint("svc", n)), fmt.Sprint("instance", i), nil)()
		}
	}
	if n := m.Uptake().Verifiers; n != MaxInstances {
		t.Errorf("%d verifiers", n)
	}
	m.Join(credential.MustTenant("globex"), credential.MustAccountID("other"), "one", nil)
	m.Join(credential.System, credential.MustAccountID("orders"), "one", nil)
	if n := m.Uptake().Verifiers; n != MaxInstances+2 {
		t.Errorf("no room for others: %d", n)
	}
}

// A broker that has just started waits for the verifiers that were there.
func TestNoKeyIsActivatedBeforeVerifiersAreBack(t *testing.T) {
	c := newClock()
	st, home := openStore(t), Sealed(newKeyFile(t))
	startManager(t, Config{Store: st, Home: home, Now: c.now})
	c.add(DefaultRotation)
	m := startManager(t, Config{Store: st, Home: home, Now: c.now})
	first := activeID(t, m)
	c.add(DefaultMaxAge + DefaultSpread)
	late := NewMembers(c.now, MemberTTL) // as if it had started this late
	m.uptake = late.Uptake
	waits := func(when string) {
		t.Helper()
		if err := m.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w := m.Waiting(); activeID(t, m) != first || w.For != WaitUptake {
			t.Errorf("%s: activated, or waits for %+v", when, w)
		}
	}
	c.add(MemberTTL)
	waits("before it serves, however long its start takes")
	late.Serving()
	waits("when it begins to serve")
	c.add(MemberTTL - time.Second)
	late.Serving() // is told once
	waits("before who was there would be forgotten")
	join := late.Join(credential.System, credential.MustAccountID("a"), "one", []string{first})
	c.add(time.Second)
	if err := m.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w := m.Waiting(); activeID(t, m) != first || w.Missing != 1 {
		t.Errorf("activated, or waits for %+v", w)
	}
	join()
	late.Join(credential.System, credential.MustAccountID("a"), "one", []string{first, m.Waiting().KeyID})
	if err := m.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if activeID(t, m) == first {
		t.Errorf("every verifier has the key, and it waits for %+v", m.Waiting())
	}
}

// Somebody who reports for ever without the key holds a rotation up until its
// deadline, no longer.
func TestADeadlineEndsTheWaitForVerifiers(t *testing.T) {
	c := newClock()
	members := settled(c)
	m := startManager(t, Config{Now: c.now, Uptake: members.Uptake})
	first := activeID(t, m)
	members.Join(credential.System, credential.MustAccountID("a"), "one", nil)
	c.add(DefaultRotation + DefaultDeadline - time.Second)
	if err := m.Tick(t.Context()); err != nil || activeID(t, m) != first {
		t.Errorf("before the deadline: %v", err)
	}
	c.add(time.Second)
	if err := m.Tick(t.Context()); err != nil || activeID(t, m) == first {
		t.Errorf("after it: %v, waits for %+v", err, m.Waiting())
	}
}
