package bolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

func TestThin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path)
	now := time.Now()
	for i := range 3 {
		err := s.Update(t.Context(), func(tx store.Tx) error {
			row, err := tx.Get("a", "k")
			if i > 0 && err != nil {
				return err
			}
			if _, err := tx.Put("a", "k", []byte{byte(i)}, row.Version); err != nil {
				return err
			}
			if err := tx.Once("s", string(rune('a'+i)), now, now.Add(time.Minute)); err != nil {
				return err
			}
			tx.Append(audit.Record{Type: "x", Tenant: credential.MustTenant("acme"), Time: now, Decision: audit.Allow})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	err := s.View(t.Context(), func(r store.Reader) error {
		row, err := r.Get("a", "k")
		t.Log(row, err)
		for e, err := range r.Log(0) {
			t.Log(e.Position, e.Chain, string(e.Raw), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
