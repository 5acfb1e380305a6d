package e2e

import (
	"strings"
	"testing"
	"time"
)

// Vault's storage is rolled back to before the keys that the brokers use: the
// version of the key-encryption key under which one has sealed its keys, and the
// key in Vault with which the other signs. Both say so, wherever one may look;
// neither makes a key in the place of one that is lost; and both are as before
// when the storage is back.
func TestVault_StorageRolledBackToBeforeTheKeys(t *testing.T) {
	t.Parallel() // it waits, most of the time
	ctx := t.Context()
	v := newTestVault(t)
	before, err := v.CopyStorage()
	v.must(err)
	_, err = v.Do(ctx, "POST", "transit/keys/"+vaultKEK+"/rotate", nil)
	v.must(err)
	sealed, transit := newVaultBroker(t, v, "sealed"), newVaultBroker(t, v, "vault-transit")
	sealed.awaitToken(t)
	transit.awaitToken(t)
	rings := []string{strings.Join(sealed.ring(), ", "), strings.Join(transit.ring(), ", ")}
	versions := v.versions(ctx, transitKey)
	now, err := v.CopyStorage()
	v.must(err)
	loads := []*faultLoad{startFaultLoad(t, sealed), startFaultLoad(t, transit)}

	v.must(v.RollBack(ctx, before))
	loads[1].awaitRefusal(t)
	transit.awaitFailing(t, "signing_key")
	sealed.awaitFailing(t, "kek")
	if sealed.metric(t, "tenantbroker_kek_usable") != 0 || transit.metric(t, "tenantbroker_signing_key_overdue") != 1 {
		t.Error("the metrics say that all is well")
	}
	sealed.doctorSays(t, "key-encryption key")
	transit.doctorSays(t, "gives no token now")
	// It goes on being said: it was not the restart alone.
	time.Sleep(5*time.Second + outage) // whoever would make a key has had the time, and the key-encryption key was tried again
	if transit.readyz(t)["signing_key"] == "" || sealed.readyz(t)["kek"] == "" {
		t.Errorf("what is lost is in order, by /readyz: %v, %v", transit.readyz(t), sealed.readyz(t))
	}
	if n := v.versions(ctx, transitKey); n != 0 {
		t.Errorf("Vault has been made %d keys in the place of those that are lost", n)
	}

	v.must(v.RollBack(ctx, now))
	back := time.Now()
	transit.verified(t, transit.awaitToken(t))
	t.Logf("vault-transit was back %s after the storage", time.Since(back).Round(time.Millisecond))
	for _, l := range loads {
		l.stop()
	}
	sealed.awaitReady(t)
	transit.awaitReady(t)
	if n := loads[0].refusals.Load(); n != 0 || loads[0].tokens.Load() == 0 {
		t.Errorf("the broker with sealed keys refused %d times, and gave %d tokens", n, loads[0].tokens.Load())
	}
	for i, b := range []*vaultBroker{sealed, transit} {
		if ring := strings.Join(b.ring(), ", "); ring != rings[i] {
			t.Errorf("%s: the keys were %s and are %s", b.home, rings[i], ring)
		}
	}
	if n := v.versions(ctx, transitKey); n != versions {
		t.Errorf("Vault had %d keys and has %d", versions, n)
	}
}
