package secrets

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

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
