package api

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// waitingKeys is the ring, and what a test says that it waits for.
type waitingKeys struct {
	*keys.Manager
	wait keys.Wait
}

func (k waitingKeys) Waiting() keys.Wait { return k.wait }

func TestKeysShowWhatTheyAreUsedForAndWaitFor(t *testing.T) {
	doc := loadDocument(t)
	w, whole, _ := followed(t)
	var active, standby string
	list := func(token string) map[string]wire.Key {
		a := w.call(token, "GET", "/v1/keys", nil)
		doc.holds(t, "GET", "/v1/keys", a)
		all := map[string]wire.Key{}
		for _, k := range into[wire.List[wire.Key]](a).Items {
			all[k.State] = k
		}
		return all
	}
	op, local := w.operator("op", "viewer", "system"), w.operator("local", "viewer", "acme")
	ring := list(op)
	active, standby = ring["active"].ID, ring["standby"].ID
	if n := ring["active"].LiveTokens; n == nil || *n == 0 || *ring["standby"].LiveTokens != 0 {
		t.Errorf("%+v", ring)
	}
	if ring["active"].Uptake != nil || ring["standby"].Waits == nil || ring["active"].Waits != nil || ring["standby"].Waits.For != wire.WaitSchedule {
		t.Errorf("%+v", ring["standby"].Waits)
	}
	id := "iiiiiiiiiiiiiiii"
	w.call(whole, "GET", wire.PathRevocations+"?verifier="+id+"&keys=unknown,"+active, nil)
	if u := w.members.Uptake(); len(u.Holding) != 1 {
		t.Errorf("what is no key of the ring is kept: %v", u.Holding)
	}
	w.call(whole, "GET", wire.PathRevocations+"?verifier="+id+"2&keys="+active+","+standby, nil)
	w.handler.keys = waitingKeys{w.keys, keys.Wait{For: keys.WaitUptake, KeyID: standby, Missing: 1}}
	ring = list(op)
	if a, s := ring["active"].Uptake, ring["standby"].Uptake; *a != (wire.KeyUptake{Holding: 2, Verifiers: 2}) || *s != (wire.KeyUptake{Holding: 1, Verifiers: 2}) {
		t.Errorf("%+v %+v", a, s)
	}
	waits := ring["standby"].Waits
	if waits.For != wire.WaitUptake || waits.Missing != 1 || len(waits.Lacking) != 1 || waits.Lacking[0] != (wire.KeyLacking{Account: mustAccount("orders-svc"), Verifiers: 1}) {
		t.Errorf("%+v", waits)
	}
	for _, k := range list(local) {
		if k.LiveTokens != nil || k.Uptake != nil || k.Waits != nil {
			t.Errorf("an operator of one tenant sees how much is at work: %+v", k)
		}
	}
}
