package keys

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

func issue(tenant, kid string, at, expires time.Time) audit.Record {
	return audit.Record{
		Time: at, Type: TokenIssued, Decision: audit.Allow, Tenant: credential.MustTenant(tenant), KeyID: kid, Expires: expires,
	}
}

func appendAll(t *testing.T, st store.Store, records ...audit.Record) {
	t.Helper()
	err := st.Update(t.Context(), func(tx store.Tx) error {
		for _, r := range records {
			tx.Append(r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImpactCountsTheLiveTokensOfAKeyByTenant(t *testing.T) {
	st, c := openStore(t), newClock()
	m := startManager(t, Config{Store: st, Now: c.now})
	kid, standby := activeID(t, m), states(m)[Standby][0]
	old := c.now()
	var batch []audit.Record
	for range 5000 { // long expired
		batch = append(batch, issue("acme", kid, old, old.Add(time.Hour)))
	}
	appendAll(t, st, batch...)
	c.add(24 * time.Hour)
	now := c.now()
	batch = batch[:0]
	for i := range 4000 {
		tenant := []string{"acme", "globex", "globex"}[i%3]
		batch = append(batch, issue(tenant, kid, now.Add(-time.Minute), now.Add(4*time.Minute)))
	}
	denied := issue("acme", kid, now, now.Add(time.Hour))
	denied.Type = "token.denied"
	batch = append(batch,
		issue("acme", "other", now, now.Add(time.Hour)), denied,
		issue("acme", kid, now.Add(-time.Hour), now.Add(-credential.MaxLeeway)),            // over for every verifier
		issue("acme", kid, now.Add(-time.Hour), now.Add(time.Second-credential.MaxLeeway)), // not for one with much leeway
	)
	appendAll(t, st, batch...)
	got, err := m.Impact(t.Context(), kid)
	if err != nil {
		t.Fatal(err)
	}
	want := []TenantImpact{{credential.MustTenant("globex"), 2666}, {credential.MustTenant("acme"), 1335}}
	if got.Tokens != 4001 || len(got.Tenants) != 2 || got.Tenants[0] != want[0] || got.Tenants[1] != want[1] {
		t.Errorf("%d tokens, %v", got.Tokens, got.Tenants)
	}
	if !got.Last.Equal(now.Add(4*time.Minute)) || !got.AsOf.Equal(now) {
		t.Errorf("last %s as of %s", got.Last, got.AsOf)
	}
	if got.Scanned < 4004 || got.Scanned > 8500 {
		t.Errorf("%d records read", got.Scanned)
	}
	if got, err := m.Impact(t.Context(), standby); err != nil || got.Tokens != 0 || got.Scanned != 0 {
		t.Errorf("a key that never signed: %+v %v", got, err)
	}
	if _, err := m.Impact(t.Context(), "nobody"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("%v", err)
	}
	if _, err := newManager(t, Config{Store: st}).Impact(t.Context(), kid); !errors.Is(err, ErrNotReady) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Impact(ended, kid); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if b, err := json.Marshal(Impact{KeyID: "k", Tenants: []TenantImpact{}}); err != nil || !strings.Contains(string(b), `"tenants":[]`) {
		t.Errorf("%s %v", b, err)
	}
}

// However much was logged before a key began to sign, none of it is read.
func TestImpactReadsTheLogFromTheKeysFirstTokenOn(t *testing.T) {
	st, c := openStore(t), newClock()
	m := startManager(t, Config{Store: st, Now: c.now})
	before := activeID(t, m)
	var batch []audit.Record
	for range 3 * impactStride {
		batch = append(batch, issue("acme", before, c.now(), c.now().Add(time.Hour)))
	}
	appendAll(t, st, batch...)
	if err := m.Rotate(t.Context(), operator("security"), RotateOptions{Emergency: true, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	kid := activeID(t, m)
	appendAll(t, st, issue("acme", kid, c.now(), c.now().Add(time.Hour)))
	got, err := m.Impact(t.Context(), kid)
	if err != nil || got.Tokens != 1 || got.Scanned > 20 {
		t.Errorf("%d tokens, %d records read, %v", got.Tokens, got.Scanned, err)
	}
}
