package lease

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// late is a Vault after whose answer something happens before it arrives.
type late struct {
	Vault
	reads int
	then  func()
}

func (l *late) Value(ctx context.Context, mount, path string) (vault.KVValue, error) {
	v, err := l.Vault.Value(ctx, mount, path)
	if l.reads++; l.then != nil {
		l.then()
	}
	return v, err
}

// rotating is a world in which what is at kv:mail of acme is rotated.
type rotating struct {
	*world
	late    *late
	path    string
	version uint64 // that the secret is at
}

func newRotating(t *testing.T) *rotating {
	t.Helper()
	w := &rotating{world: newValues(t)}
	w.path = "t" + strings.TrimPrefix(w.database, "orders_") + "/acme/mail"
	w.late = &late{Vault: Through(w.client)}
	var err error
	w.m, err = New(Config{
		Store: w.st, Registry: w.reg, Issuer: w.issuer, Vault: w.late, Targets: w.targets(), Now: w.now, Stamp: "stamp",
		Served: func(_ context.Context, s Served) { w.served = append(w.served, s) },
		Current: func(_ store.Reader, p Place) (uint64, error) {
			if p != (Place{"secret", w.path}) {
				t.Errorf("asked for %v", p)
			}
			return w.version, nil
		},
	})
	w.must(err)
	w.rotate()
	return w
}

// rotate publishes the next version.
func (w *rotating) rotate() {
	w.version++
	_, err := w.client.KV("secret").Put(w.Context(), w.path, map[string]any{"stamp": strconv.FormatUint(w.version, 10)}, vault.NoCAS)
	w.must(err)
}

// has fails unless a lease is of a version, as it was granted, is stored and was told.
func (w *rotating) has(g Granted, stamp string) {
	w.Helper()
	if got := string(g.Data.Reveal()); got != `{"stamp":"`+stamp+`"}` {
		w.Errorf("granted %s, not version %s", got, stamp)
	}
	if got := w.row(g.ID).Stamp; got != stamp {
		w.Errorf("the lease is of %q, not of %s", got, stamp)
	}
	if got := w.served[len(w.served)-1].Stamp; got != stamp {
		w.Errorf("served %q, not %s", got, stamp)
	}
}

// A value that was rotated after it was read, and before the lease was on record, is
// not handed out: nobody has waited for this one.
func TestAValueThatIsRotatedWhileItIsRead(t *testing.T) {
	w := newRotating(t)
	grant := w.grant("worker", tenants("acme"))
	once := func() { w.late.then = nil; w.rotate() }
	w.late.then = once
	g := w.obtain(w.token("worker", "acme", grant), "kv:mail")
	w.has(g, "2")
	w.late.then = once
	w.clock.pass(2 * time.Second)
	renewed, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), g.ID, 0)
	w.must(err)
	w.has(renewed, "3")
	if got := w.records(); len(got) != 2 || len(w.served) != 2 {
		t.Errorf("on record: %q, served %d", got, len(w.served))
	}

	w.late.then, w.late.reads = w.rotate, 0
	if _, err := w.m.Obtain(t.Context(), w.token("worker", "acme", grant), Request{Of: of("kv:mail")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("rotated each time: %v", err)
	}
	if left := w.all(); w.late.reads != maxReads || len(left) != 1 {
		t.Errorf("read %d times, %d leases", w.late.reads, len(left))
	}
}

// What Vault has is handed out, however old, where no rotation came in between: its
// storage may have been rolled back, and then it is all that there is.
func TestAValueThatIsOlderThanItsSecret(t *testing.T) {
	w := newRotating(t)
	w.version = 7
	w.has(w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "kv:mail"), "1")
	if w.late.reads != 1 {
		t.Errorf("read %d times", w.late.reads)
	}
}
