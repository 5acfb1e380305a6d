package mint

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// t0 is half a second into a second.
func TestTokenEndsByUntil(t *testing.T) {
	st := open(t)
	m, _ := newMint(t, st, at(0))
	for left, life := range map[time.Duration]time.Duration{
		time.Hour: time.Minute, time.Minute: time.Minute, 10 * time.Second: 10 * time.Second,
		1200 * time.Millisecond: time.Second, 400 * time.Millisecond: 0, -time.Second: 0,
	} {
		d := decision()
		d.Until = t0.Add(left)
		a, err := m.Commit(t.Context(), d)
		if life == 0 {
			if !errors.Is(err, store.ErrChanged) {
				t.Errorf("%v left: %v", left, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := a.claims.Expires.Sub(a.claims.IssuedAt); got != life || a.claims.Expires.After(d.Until) || !a.record.Expires.Equal(a.claims.Expires) {
			t.Errorf("%v left: it lives %v", left, got)
		}
	}
}

func TestUnsignedTokenIsOnRecordInItsChain(t *testing.T) {
	st := open(t)
	m, _ := newMint(t, st, at(0))
	for _, a := range []*Approval{nil, {}} {
		if err := m.Unsigned(t.Context(), a); !errors.Is(err, ErrSpent) {
			t.Errorf("%v", err)
		}
	}
	a, err := m.Commit(t.Context(), decision())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unsigned(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var last audit.Record
	chains := map[string]bool{}
	if err := st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			chains[e.Chain.String()] = true
			if last, _, err = audit.Parse(e.Raw); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if last.Type != "token.unsigned" || last.Decision != audit.Deny || last.JTI != a.ID() || last.KeyID != "pen" || !last.Expires.IsZero() || len(chains) != 1 {
		t.Errorf("%+v, chains %v", last, chains)
	}
}
