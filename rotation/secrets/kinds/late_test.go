package kinds_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// publishLate writes what is staged where consumers read: a try of the
// broker's that Vault carries out when nobody waits for its answer any more.
func (w *kindWorld) publishLate() {
	staged, err := w.root.KV("secret").Get(w.Context(), w.path()+".next")
	w.must(err)
	_, err = w.root.KV("secret").Put(w.Context(), w.path(), staged.Data, vault.NoCAS)
	w.must(err)
}

// hides has the next reads of what consumers read find nothing.
func (w *kindWorld) hides(times int) {
	at := devvault.At("secret/data/" + w.path())
	w.proxy.Break(devvault.Fault{
		Match: func(method, path string) bool { return method == http.MethodGet && at(method, path) },
		Times: times, Status: http.StatusNotFound, Body: `{"errors":[]}`,
	})
}

// The broker's own write lands beside its next try, or just after it was looked
// for: it is the broker's, and the rotation goes on.
func TestKV_OwnWriteThatLandsLate(t *testing.T) {
	for name, hidden := range map[string]int{"beside the next try": 0, "after it was looked for": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.declareKV(nil)
			w.at("kv/promote/publish/before", func() {
				w.publishLate()
				if hidden > 0 {
					w.hides(hidden)
				}
			})
			w.ask(false)
			w.until("drain or given up", func(st secrets.Status) bool { return draining(1)(st) || gaveUp(st) })
			if st := w.status(); gaveUp(st) || st.Drift != "" {
				t.Fatalf("its own write is taken for another's: %+v", st.Last)
			}
			w.ack(1)
			w.until("rotated", rotated(1))
		})
	}
}

// A rotation that is given up withdraws nothing that consumers read after all.
func TestClientSecret_NotWithdrawnWhileItIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareSecret(nil)
	w.at("client-secret/promote/publish/before", func() {
		w.publishLate()
		w.hides(1)
		w.must(w.m.Abort(t.Context(), admin, w.name, 0))
	})
	w.ask(false)
	st := w.until("held", func(st secrets.Status) bool { return gaveUp(st) || st.Attempt != nil && st.Attempt.Held })
	if st.Attempt == nil || !w.works(w.read().Data["client_secret"]) {
		t.Errorf("consumers read a client secret that was withdrawn, or nobody is told: %+v", st.Attempt)
	}
	w.ask(true)
	w.until("given up", gaveUp)
	if !w.works(w.read().Data["client_secret"]) {
		t.Error("with force consumers read a client secret that was withdrawn")
	}
}

// Vault carries a write out when nobody waits for it any more and the rotation
// was given up: it is refused, so that consumers never read what was withdrawn.
func TestClientSecret_NoWriteLandsAfterItIsWithdrawn(t *testing.T) {
	for name, before := range map[string]uint64{"over a value": 1, "where there was none": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.declareSecret(nil)
			if before > 0 {
				w.rotate(before)
			}
			var sent map[string]any
			w.at("client-secret/promote/publish/before", func() {
				staged, err := w.root.KV("secret").Get(w.Context(), w.path()+".next")
				w.must(err)
				sent = staged.Data
				w.breaks("secret/data/"+w.path(), devvault.Fault{Times: 1, Status: http.StatusGatewayTimeout, Body: `{"errors":["timeout"]}`})
				w.must(w.m.Abort(t.Context(), admin, w.name, 0))
			})
			w.ask(false)
			w.until("given up", gaveUp)
			if _, err := w.root.KV("secret").Put(w.Context(), w.path(), sent, int(before)); !errors.Is(err, vault.ErrConflict) {
				t.Errorf("it lands: %v", err)
			}
			if before > 0 && !w.works(w.read().Data["client_secret"]) {
				t.Error("consumers read a client secret that was withdrawn")
			}
			if _, err := w.root.KV("secret").Get(w.Context(), w.path()); before == 0 && !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("consumers, who had nothing, are given something: %v", err)
			}
			w.rotate(2) // the broker's own doing is no drift
		})
	}
}

// A client secret that ended by itself, since Vault was away for long, is no
// other's change: the next rotation mends it.
func TestClientSecret_ThatHasEndedIsNoDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declareSecret(nil)
	w.rotate(1)
	w.pass(91 * 24 * time.Hour)
	w.rotate(2)
	if st := w.status(); st.Drift != "" || !w.works(w.read().Data["client_secret"]) {
		t.Errorf("%q", st.Drift)
	}
}

// A mount within that of the values leads nowhere else by another name.
func TestKV_NoMountWithinThatOfTheValues(t *testing.T) {
	t.Parallel()
	k := kinds.NewKV(nil, kinds.DefaultLayout())
	for _, mount := range []string{"secret/data/tenants/globex", "secret/data"} {
		_, err := k.Check([]byte(`{"path":"x","mount":"`+mount+`"}`), secrets.Subject{Tenant: credential.MustTenant("acme")})
		if !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", mount, err)
		}
	}
}
