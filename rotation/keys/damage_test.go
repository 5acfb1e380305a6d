package keys

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// rewrite changes a row behind the manager's back; nil removes it.
func rewrite(t *testing.T, st store.Store, table store.Table, key string, change func([]byte) []byte) {
	t.Helper()
	err := st.Update(t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(table, key)
		if err != nil {
			return err
		}
		value := change(append([]byte{}, row.Value...))
		if value == nil {
			return tx.Delete(table, key, row.Version)
		}
		_, err = tx.Put(table, key, value, row.Version)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readRow(t *testing.T, st store.Store, key string) (value []byte) {
	t.Helper()
	err := st.View(t.Context(), func(r store.Reader) error {
		row, err := r.Get(signingTable, key)
		value = append(value, row.Value...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func alterSealed(t *testing.T) func([]byte) []byte {
	return func(value []byte) []byte {
		var row keyRow
		if err := decode(value, &row); err != nil {
			t.Fatal(err)
		}
		row.Sealed[len(row.Sealed)-1] ^= 1
		return encode(row)
	}
}

func TestADamagedActiveKeyStopsTheStartAndSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"a byte altered": {alterSealed(t), ErrSealed},
		"another home": {func(v []byte) []byte {
			return []byte(strings.Replace(string(v), `"sealed"`, `"elsewhere"`, 1))
		}, ErrCorrupt},
		"not JSON":    {func([]byte) []byte { return []byte("x") }, ErrCorrupt},
		"a new field": {func(v []byte) []byte { return append([]byte(`{"x":1,`), v[1:]...) }, ErrCorrupt},
		"gone":        {func([]byte) []byte { return nil }, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			st, kek := openStore(t), newKeyFile(t)
			kid := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)}))
			rewrite(t, st, signingTable, store.Key(DefaultRing, kid), c.change)
			m := newManager(t, Config{Store: st, Home: Sealed(kek)})
			if err := m.Start(t.Context()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), kid) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if _, err := m.Active(); !errors.Is(err, ErrNotReady) {
				t.Errorf("it signs: %v", err)
			}
			// The way out: revoke it, without a start.
			if err := m.Revoke(t.Context(), operator("security"), kid, "damaged"); err != nil {
				t.Fatal(err)
			}
			if err := m.Start(t.Context()); err != nil || activeID(t, m) == kid {
				t.Errorf("after the revocation: %v", err)
			}
		})
	}
}

func TestPrivatePartsCantBeExchanged(t *testing.T) {
	st, kek := openStore(t), newKeyFile(t)
	m := startManager(t, Config{Store: st, Home: Sealed(kek)})
	active, standby := activeID(t, m), states(m)[Standby][0]
	other := readRow(t, st, store.Key(DefaultRing, standby))
	rewrite(t, st, signingTable, store.Key(DefaultRing, active), func([]byte) []byte { return other })
	err := newManager(t, Config{Store: st, Home: Sealed(kek)}).Start(t.Context())
	if !errors.Is(err, ErrSealed) {
		t.Errorf("%v", err)
	}
}

func TestAnotherKeyEncryptionKeyIsNamedAsTheCause(t *testing.T) {
	st, kek := openStore(t), newKeyFile(t)
	before := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)}))
	m := newManager(t, Config{Store: st, Home: Sealed(newKeyFile(t))})
	if err := m.Start(t.Context()); !errors.Is(err, ErrKEK) {
		t.Errorf("%v", err)
	}
	if got := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)})); got != before {
		t.Error("a wrong key-encryption key changed the ring")
	}
}

func TestADamagedStandbyIsReplacedAndNeverActivated(t *testing.T) {
	st, kek, c := openStore(t), newKeyFile(t), newClock()
	m := startManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now})
	bad := states(m)[Standby][0]
	rewrite(t, st, signingTable, store.Key(DefaultRing, bad), alterSealed(t))
	m = startManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now})
	if got := states(m)[Standby]; len(got) != 2 {
		t.Fatalf("standbys %v", got)
	}
	for _, k := range m.List() {
		if (k.Problem != "") != (k.ID == bad) {
			t.Errorf("%s: problem %q", k.ID, k.Problem)
		}
	}
	c.add(DefaultRotation)
	tick(t, m)
	if active := activeID(t, m); active == bad {
		t.Error("the damaged key is active")
	}
	if err := m.Revoke(t.Context(), operator("security"), activeID(t, m), "stolen"); err != nil {
		t.Fatal(err)
	}
	if activeID(t, m) == bad {
		t.Error("the emergency activated the damaged key")
	}
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
}

func TestAnUnreadableRingIsNotReplaced(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"not JSON":          func(string) string { return "{" },
		"a newer form":      func(s string) string { return strings.Replace(s, `"form":1`, `"form":2`, 1) },
		"another key's id":  func(s string) string { return strings.Replace(s, `"kid":"`, `"kid":"x`, 1) },
		"another algorithm": func(s string) string { return strings.ReplaceAll(s, `"ES256"`, `"ES384"`) },
		"a field too many":  func(s string) string { return strings.Replace(s, `{`, `{"x":1,`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			st, kek := openStore(t), newKeyFile(t)
			m := startManager(t, Config{Store: st, Home: Sealed(kek)})
			rewrite(t, st, ringTable, DefaultRing, func(v []byte) []byte { return []byte(change(string(v))) })
			if err := m.Tick(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v", err)
			}
			if _, err := m.Active(); err != nil {
				t.Error("what was read before is gone")
			}
			if err := newManager(t, Config{Store: st, Home: Sealed(kek)}).Start(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v", err)
			}
		})
	}
}

// lying is a home whose keys are not what it says.
type lying struct {
	Home
	generate func(Stored, error) (Stored, error)
	open     func(SigningKey, error) (SigningKey, error)
}

func (h lying) Generate(ctx context.Context, alg credential.Algorithm) (Stored, error) {
	s, err := h.Home.Generate(ctx, alg)
	if h.generate != nil {
		return h.generate(s, err)
	}
	return s, err
}

func (h lying) Open(ctx context.Context, s Stored) (SigningKey, error) {
	k, err := h.Home.Open(ctx, s)
	if h.open != nil {
		return h.open(k, err)
	}
	return k, err
}

type signFunc func([]byte) ([]byte, error)

func (f signFunc) Sign(_ context.Context, in []byte) ([]byte, error) { return f(in) }

func TestAKeyThatCantProveItselfIsNotPublished(t *testing.T) {
	other, err := generate(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	impostor, err := newLocalKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		home lying
		want error
	}{
		"it signs with another key": {lying{open: func(SigningKey, error) (SigningKey, error) { return impostor, nil }}, ErrMismatch},
		"it signs nothing": {lying{open: func(SigningKey, error) (SigningKey, error) {
			return signFunc(func([]byte) ([]byte, error) { return nil, nil }), nil
		}}, ErrMismatch},
		"it can't sign": {lying{open: func(SigningKey, error) (SigningKey, error) {
			return signFunc(func([]byte) ([]byte, error) { return nil, errDown }), nil
		}}, errDown},
		"another id": {lying{generate: func(s Stored, err error) (Stored, error) {
			s.Public, _ = jwks.NewKey("mine", credential.ES256, s.Public.Public())
			return s, err
		}}, ErrMismatch},
		"no key at all":  {lying{generate: func(Stored, error) (Stored, error) { return Stored{}, nil }}, ErrMismatch},
		"not at home":    {lying{generate: func(s Stored, err error) (Stored, error) { s.Home = "x"; return s, err }}, ErrHome},
		"not its sealed": {lying{generate: func(s Stored, err error) (Stored, error) { s.Blob = nil; return s, err }}, ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			c.home.Home = Sealed(newKeyFile(t))
			m := newManager(t, Config{Home: c.home})
			if err := m.Start(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if m.Public().Len() != 0 {
				t.Error("published")
			}
		})
	}
}

func TestASealedKeyMustBeTheOneOfItsPublicPart(t *testing.T) {
	ctx := t.Context()
	home := &sealedHome{kek: plainKEK{}, purpose: sealedPurpose}
	one, err := home.Generate(ctx, credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	two, _ := home.Generate(ctx, credential.ES256)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := x509.MarshalPKCS8PrivateKey(small)
	for name, c := range map[string]struct {
		blob []byte
		want error
	}{
		"another of its kind": {two.Blob, ErrMismatch},
		"another type of key": {foreign, ErrMismatch},
		"no key":              {[]byte("x"), ErrCorrupt},
	} {
		if _, err := home.Open(ctx, Stored{Home: sealedName, Public: one.Public, Blob: c.blob}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := home.Open(ctx, Stored{Home: "vault", Public: one.Public, Blob: one.Blob}); !errors.Is(err, ErrHome) {
		t.Errorf("%v", err)
	}
	if _, err := home.Generate(ctx, credential.PS256); !errors.Is(err, ErrPolicy) {
		t.Errorf("%v", err)
	}
}

// renamed is a home that keeps its keys under another name.
type renamed struct{ Home }

func (h renamed) Generate(ctx context.Context, alg credential.Algorithm) (Stored, error) {
	s, err := h.Home.Generate(ctx, alg)
	s.Home = "other"
	return s, err
}

func (h renamed) Open(ctx context.Context, s Stored) (SigningKey, error) {
	if s.Home != "other" {
		return nil, ErrHome
	}
	s.Home = sealedName
	return h.Home.Open(ctx, s)
}

func TestARingHoldsKeysOfTwoHomesWhileTheHomeChanges(t *testing.T) {
	st, c := openStore(t), newClock()
	old, next := Sealed(newKeyFile(t)), renamed{Sealed(newKeyFile(t))}
	first := startManager(t, Config{Store: st, Home: old, Now: c.now})
	token := mint(t, first)
	if err := newManager(t, Config{Store: st, Home: next, Now: c.now}).Start(t.Context()); !errors.Is(err, ErrHome) {
		t.Fatalf("without the former home: %v", err)
	}
	m := startManager(t, Config{Store: st, Home: next, Former: []Home{old}, Now: c.now})
	for range 2 {
		c.add(DefaultRotation)
		tick(t, m) // the restart's notice first
		c.add(time.Hour)
		tick(t, m)
		if err := verifies(t, m, mint(t, m)); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.List()[0]; got.State != Active || got.Home != "other" {
		t.Errorf("%+v", got)
	}
	if err := verifies(t, first, token); err != nil {
		t.Error(err)
	}
}

func TestSignaturesAreThoseOfGoJose(t *testing.T) {
	for _, alg := range []credential.Algorithm{credential.ES256, credential.EdDSA, credential.RS256} {
		m := startManager(t, Config{Policy: Policy{Algorithm: alg}})
		s, _ := m.Active()
		for _, payload := range []string{"", "{}", strings.Repeat("x", 5000)} {
			raw, err := s.Sign(t.Context(), []byte(payload), "at+jwt")
			if err != nil {
				t.Fatal(err)
			}
			signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := signed.Verify(s.Public().Public())
			h := signed.Signatures[0].Header
			if err != nil || string(got) != payload || h.KeyID != s.KeyID() || h.ExtraHeaders[jose.HeaderType] != "at+jwt" {
				t.Errorf("%s: %v %+v", alg, err, h)
			}
		}
		if key := (jose.JSONWebKey{Key: s.Public().Public()}); true {
			sum, err := key.Thumbprint(5) // crypto.SHA256
			if err != nil || segmentOf(sum) != s.KeyID() {
				t.Errorf("%s: the id is not the key's thumbprint", alg)
			}
		}
		for _, typ := range []string{"", "a b", "a\"b", "a\\b", "ü", strings.Repeat("x", 65)} {
			if _, err := s.Sign(t.Context(), nil, typ); err == nil {
				t.Errorf("typ %q was taken", typ)
			}
		}
	}
}

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
