package secrets

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// TurnOf is in whose turn a secret waits.
func (m *Manager) TurnOf(id string) credential.Tenant {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.agenda[id].of
}

// Idle reports whether no secret is queued or driven.
func (m *Manager) Idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.stages) == 0
}

// A tenant with very many secrets to rotate delays no other's by more than one.
func TestTenantsTakeTurnsAtBeingRotated(t *testing.T) {
	m := &Manager{workers: 1, stages: make(map[string]stage), agenda: make(map[string]appointed), kinds: make(map[string]Kind)}
	known := func(id, tenant string) string {
		s := &Secret{ID: id, Shared: tenant == ""}
		if tenant != "" {
			s.Tenant = credential.MustTenant(tenant)
		}
		m.appoint(record{secret: s}, m.agenda[id].at)
		return id
	}
	var ids []string
	for n := range 1000 {
		ids = append(ids, known(fmt.Sprintf("acme-%d", n), "acme"))
	}
	m.queueUp(ids)
	m.queueUp([]string{known("globex-1", "globex"), known("globex-2", "globex"), known("shared-1", ""), "new"})
	var got []string
	for range 8 {
		id, more := m.takeUp()
		if !more {
			t.Fatal("the queue is empty")
		}
		got = append(got, id)
	}
	want := []string{"acme-0", "globex-1", "shared-1", "acme-1", "globex-2", "new", "acme-2", "acme-3"}
	if !slices.Equal(got, want) {
		t.Errorf("in the order %v, not %v", got, want)
	}
	m.queueUp([]string{"globex-1"}) // it is driven: once more, in its turn
	m.putDown("globex-1")
	m.takeUp()
	if id, _ := m.takeUp(); id != "globex-1" {
		t.Errorf("%s is next, not globex-1", id)
	}
	for range 995 {
		if _, more := m.takeUp(); !more {
			t.Fatal("one is missing")
		}
	}
	if id, more := m.takeUp(); more || len(m.queue.of) != 0 || len(m.queue.turns) != 0 {
		t.Errorf("one more: %s; %v", id, m.queue)
	}
}

// A broker that was just started has looked at no secret yet.
func TestTenantsTakeTurnsAfterARestart(t *testing.T) {
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	err = st.Update(t.Context(), func(tx store.Tx) error {
		for n := range 102 {
			s := &Secret{ID: fmt.Sprintf("acme-%03d", n), Tenant: credential.MustTenant("acme")}
			switch {
			case n >= 100:
				s = &Secret{ID: fmt.Sprintf("globex-%d", n-100), Tenant: credential.MustTenant("globex")}
			case n == 99:
				s = &Secret{ID: "shared-1", Shared: true}
			}
			s.Spec, s.Within = []byte("{}"), credential.System
			s.Owner, s.UpdatedBy = credential.MustAccountID("api"), credential.MustAccountID("root")
			if _, err := put(tx, secretTable, s.ID, s, 0); err != nil {
				return err
			}
			if _, err := put(tx, stateTable, s.ID, State{}, 0); err != nil {
				return err
			}
		}
		_, err := tx.Put(secretTable, "bad", []byte("{"), 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{store: st, now: time.Now, workers: 1, stages: make(map[string]stage), agenda: make(map[string]appointed)}
	ids, err := m.ripe(t.Context())
	if err != nil || len(ids) != 103 {
		t.Fatalf("%d are ripe: %v", len(ids), err)
	}
	m.queueUp(ids)
	var got []string
	for range 7 {
		id, _ := m.takeUp()
		got = append(got, id)
	}
	want := []string{"acme-000", "bad", "globex-0", "acme-001", "shared-1", "globex-1", "acme-002"}
	if !slices.Equal(got, want) {
		t.Errorf("in the order %v, not %v", got, want)
	}
}
