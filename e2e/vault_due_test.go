package e2e

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// What of Vault a fault leaves to a broker.
type left int

const (
	nothing left = iota
	reading      // and what it changes is carried out, without an answer that says so
	all          // it gets over it by itself
)

// What is due, or asked for, while Vault fails is done once: when Vault is back
// or, where its answers are lost, as soon as looking tells what it has done. A
// database user that was leased works meanwhile, and one that was given back
// goes.
func TestVault_WhatIsDueUnderFaults(t *testing.T) {
	t.Parallel() // it waits, most of the time
	faults := make(map[string]vaultFault)
	for _, f := range vaultFaults() {
		faults[f.name] = f
	}
	// Each line has a Vault of its own.
	type row struct {
		fault string
		left  left
	}
	lines := [][]row{
		{{"sealed", nothing}, {"429", nothing}, {"policy shrunk", nothing}},
		{{"503", nothing}, {"each answer takes 5 s", nothing}, {"token revoked and no login", nothing}},
		{{"500 after taking effect", reading}, {"no answer after taking effect", reading}, {"token revoked", all}},
		{{"killed", nothing}, {"frozen", nothing}, {"storage rolled back", all}},
	}
	databases := newDueDatabases(t)
	tried := make(map[string]bool)
	for i, line := range lines {
		for _, r := range line {
			tried[r.fault] = true
		}
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			d := newDueBroker(t, databases)
			for _, r := range line {
				t.Run(r.fault, func(t *testing.T) { d.underFault(t, faults[r.fault], r.left) })
			}
			if i == len(lines)-1 { // it ends the grant, so it is the last
				t.Run("storage rolled back to before leases and rotations", d.rolledBack)
			}
		})
	}
	for name := range faults {
		if !tried[name] {
			t.Errorf("nothing is tried under %q", name)
		}
	}
}

func (d *dueBroker) underFault(t *testing.T, fault vaultFault, left left) {
	ctx := t.Context()
	d.awaitToken(t)
	d.awaitReady(t)
	d.signIn()
	before, active := d.count(t), d.key(t, keys.Active)
	former := d.inVault(t, dueLogin)
	kept, given := d.leaseUser(t), d.leaseUser(t)

	reads := writesNot("secret/data/" + dueMail.path)
	calls, leased, begun := d.proxy.Calls(nil), d.proxy.Calls(reads), time.Now()
	end, err := fault.begin(ctx, d.v, []*devvault.Proxy{d.proxy})
	must(t, err)
	end = once(end)
	t.Cleanup(func() { _ = end(context.WithoutCancel(ctx)) }) // for the faults after this one, should this test end here
	for _, s := range dueSecrets {
		must(t, d.Internal().Secrets().Rotate(ctx, d.By(), s.id, 0, false))
	}
	// In an emergency the key that waits signs, and another is due until Vault makes it.
	must(t, d.Internal().Keys().Rotate(ctx, d.By(), keys.RotateOptions{Emergency: true}))
	d.giveBack(t, given.id)
	if left != all {
		await(t, "the report and the metrics tell of the secret", func() bool {
			r := d.report(t)
			return r.Failing && r.LastError != "" && (d.metric(t, `tenantbroker_secrets_problem{kind="kv"}`) == 1 || d.failures(t) > before.stepsFailed)
		})
	}
	asked, refused := 0, 0
	for ; asked == 0 || time.Since(begun) < outage || left == nothing && refused == 0 || left == reading && d.secret(t, dueMail).Version == before.mail.version ||
		left == all && refused == asked; asked++ {
		if time.Since(begun) > time.Minute {
			t.Fatalf("after a minute %d of %d leases were refused, and the secret is %+v", refused, asked, d.secret(t, dueMail))
		}
		if d.lease(t, dueMail) == nil {
			refused++
		}
		time.Sleep(50 * time.Millisecond)
	}
	if left == nothing && d.tryUser(t) != nil {
		t.Error("a database user was made without Vault")
	}
	if fault.users == live {
		kept.works(t)
	}
	down := time.Since(begun)
	leased = d.proxy.Calls(reads) - leased
	calls = d.proxy.Calls(nil) - calls - leased
	if left == nothing {
		if d.key(t, keys.Standby) != "" || d.secret(t, dueMail).Version != before.mail.version || d.secret(t, dueLogin).Version != before.login.version {
			t.Error("something was rotated without Vault")
		}
	} else if refused == asked { // one may be, while the broker finds out
		t.Errorf("all %d leases were refused, and Vault can be read", asked)
	}
	must(t, end(ctx))

	d.awaitRotated(t, dueMail, before.mail.version+1)
	d.awaitRotated(t, dueLogin, before.login.version+1)
	await(t, "another key waits", func() bool { return d.key(t, keys.Standby) != "" })
	d.verified(t, d.awaitToken(t))
	d.awaitReady(t)
	after := d.count(t)
	t.Logf("down %s: %d calls, and %d for %d leases, %d of them refused; %.0f steps failed; all done %s after it",
		down.Round(time.Millisecond), calls, leased, asked, refused, after.stepsFailed-before.stepsFailed, (time.Since(begun) - down).Round(time.Millisecond))
	// The broker looks at the value too, and no lease is asked for twice.
	if most := 60 + int(15*down.Seconds()); calls > most || leased > asked+10 {
		t.Errorf("%d calls to a Vault that fails for %s, want at most %d; %d for %d leases", calls, down, most, leased, asked)
	}
	if d.key(t, keys.Active) == active {
		t.Error("the key that signed still does")
	}
	want := before
	want.keys++
	want.mail.more()
	want.login.more()
	// How often it failed is not ours to say, and a request to make a key may have been refused.
	want.stepsFailed, want.rotates = after.stepsFailed, after.rotates
	if after != want || left != nothing && after.rotates != before.rotates+1 {
		t.Errorf("counted %+v and then %+v", before, after)
	}
	for _, s := range dueSecrets {
		if current, live := d.liveValues(t, s); !slices.Equal(live, []int{current}) {
			t.Errorf("%s: the versions %v of the value live, and %d is the current one", s.id, live, current)
		}
	}
	d.sameValue(t, dueMail)
	d.sameValue(t, dueLogin)
	d.takesOnly(t, d.inVault(t, dueLogin), former)
	d.usersEnd(t, kept, fault.users)
}

// writesNot are the requests that read a path.
func writesNot(path string) func(method, at string) bool {
	return func(method, at string) bool { return at == path && !writes(path)(method, at) }
}
