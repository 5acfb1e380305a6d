package keys

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// told are the keys that verifiers are told of.
func told(t *testing.T, st store.Store) (kids []string) {
	t.Helper()
	if err := st.View(t.Context(), func(r store.Reader) error {
		p, err := revocation.Read(r, revocation.Whole(), 0, 100)
		for _, e := range p.Entries {
			kids = append(kids, e.ID)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return kids
}

// Verifiers are told of a revoked key in the commit that revokes it, and of no
// other change.
func TestARevokedKeyIsTold(t *testing.T) {
	c := newClock()
	st := openStore(t)
	m := startManager(t, Config{Store: st, Now: c.now})
	c.add(DefaultMaxAge + DefaultSpread)
	if err := m.Rotate(t.Context(), operator("operator"), RotateOptions{Reason: "drill"}); err != nil {
		t.Fatal(err)
	}
	if got := told(t, st); len(got) != 0 {
		t.Errorf("a rotation told %v", got)
	}
	kid := activeID(t, m)
	if err := m.Revoke(t.Context(), operator("security"), kid, "stolen"); err != nil {
		t.Fatal(err)
	}
	if got := told(t, st); len(got) != 1 || got[0] != kid {
		t.Errorf("told %v, revoked %s", got, kid)
	}
}
