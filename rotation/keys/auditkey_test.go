package keys

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

func TestTheAuditKeyIsMadeOnceAndStays(t *testing.T) {
	st, kek, c := openStore(t), newKeyFile(t), newClock()
	one, err := AuditKey(t.Context(), st, kek, c.now)
	if err != nil {
		t.Fatal(err)
	}
	two, err := AuditKey(t.Context(), st, kek, c.now)
	if err != nil || one.KeyID() != two.KeyID() {
		t.Fatalf("%v", err)
	}
	if got := logged(t, st); len(got) != 1 || got[0].Type != AuditKeyCreated || got[0].KeyID != one.KeyID() {
		t.Errorf("%v", got)
	}
	head := audit.Head{Chain: audit.Chain{Writer: "one"}, First: 1, Seq: 1, Hash: sha256.Sum256(nil), Time: c.now()}
	if got, err := audit.VerifyHead(two.Public(), one.SignHead(head)); err != nil || got.Seq != 1 {
		t.Errorf("%v", err)
	}
	if _, err := AuditKey(t.Context(), st, newKeyFile(t), c.now); !errors.Is(err, ErrKEK) {
		t.Errorf("another key-encryption key: %v", err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"another form": func(v []byte) []byte { return []byte(strings.Replace(string(v), `"form":1`, `"form":2`, 1)) },
		"not JSON":     func([]byte) []byte { return []byte("x") },
	} {
		rewrite(t, st, auditTable, auditRow, change)
		if _, err := AuditKey(t.Context(), st, kek, c.now); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASigningKeyIsNoAuditKey(t *testing.T) {
	st, kek, c := openStore(t), newKeyFile(t), newClock()
	m := startManager(t, Config{Store: st, Home: Sealed(kek), Policy: Policy{Algorithm: credential.EdDSA}})
	s, _ := m.Active()
	var row keyRow
	if err := decode(readRow(t, st, store.Key(DefaultRing, s.KeyID())), &row); err != nil {
		t.Fatal(err)
	}
	row.Public = s.Public().JWK()
	err := st.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Put(auditTable, auditRow, encode(row), 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AuditKey(t.Context(), st, kek, c.now); !errors.Is(err, ErrSealed) {
		t.Errorf("%v", err)
	}
}

func TestRewrapMovesEveryKeyToANewKeyEncryptionKey(t *testing.T) {
	st, c := openStore(t), newClock()
	from, to := newKeyFile(t), newKeyFile(t)
	running := startManager(t, Config{Store: st, Home: Sealed(KEKs(from, to)), Now: c.now})
	if _, err := AuditKey(t.Context(), st, from, c.now); err != nil {
		t.Fatal(err)
	}
	if _, err := Rewrap(t.Context(), st, newKeyFile(t), to, c.now); !errors.Is(err, ErrKEK) {
		t.Fatalf("from a key that isn't theirs: %v", err)
	}
	if n, err := Rewrap(t.Context(), st, from, to, c.now); n != 3 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	if n, err := Rewrap(t.Context(), st, from, to, c.now); n != 0 || err != nil {
		t.Errorf("again: %d keys, %v", n, err)
	}
	if got := types(logged(t, st)); strings.Count(got, "resealed") != 3 {
		t.Errorf("records %q", got)
	}
	// A running manager goes on, with the rows as they are now.
	tick(t, running)
	s, _ := running.Active()
	if err := checks(t, st, s.Ref()); err != nil {
		t.Error(err)
	}
	if got := activeID(t, startManager(t, Config{Store: st, Home: Sealed(to), Now: c.now})); got != s.KeyID() {
		t.Error("another active key")
	}
	if err := newManager(t, Config{Store: st, Home: Sealed(from)}).Start(t.Context()); !errors.Is(err, ErrKEK) {
		t.Errorf("the former key still opens: %v", err)
	}
	if _, err := AuditKey(t.Context(), st, to, c.now); err != nil {
		t.Error(err)
	}
	rewrite(t, st, signingTable, store.Key(DefaultRing, s.KeyID()), alterSealed(t))
	if _, err := Rewrap(t.Context(), st, from, to, c.now); err == nil || !strings.Contains(err.Error(), s.KeyID()) {
		t.Errorf("a damaged key: %v", err)
	}
	rewrite(t, st, signingTable, store.Key(DefaultRing, s.KeyID()), func([]byte) []byte { return []byte("x") })
	if _, err := Rewrap(t.Context(), st, from, to, c.now); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

// forgetful seals what it can't open.
type forgetful struct{ KEK }

func (k forgetful) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return k.KEK.Seal(ctx, plaintext, append(aad, 'x'))
}

func TestRewrapProvesThatWhatItSealedOpens(t *testing.T) {
	st, from, c := openStore(t), newKeyFile(t), newClock()
	startManager(t, Config{Store: st, Home: Sealed(from), Now: c.now})
	if err := OpensAll(t.Context(), st, from); err != nil {
		t.Fatal(err)
	}
	if _, err := Rewrap(t.Context(), st, from, forgetful{newKeyFile(t)}, c.now); !errors.Is(err, ErrSealed) {
		t.Errorf("what can't be opened counts as sealed: %v", err)
	}
}
