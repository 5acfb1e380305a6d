package keys

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

// vaultKEK returns a key of Vault to seal with, made for the test, under a token
// that may do nothing but seal and open with it.
func vaultKEK(t *testing.T, s *devvault.Server) (kek KEK, key string) {
	t.Helper()
	key = prefixOf(t)
	if _, err := s.Do(t.Context(), "POST", "transit/keys/"+key, map[string]any{"type": "aes256-gcm96"}); err != nil {
		t.Fatal(err)
	}
	rules := map[string]any{"policy": `path "transit/encrypt/` + key + `" { capabilities = ["update"] }
		path "transit/decrypt/` + key + `" { capabilities = ["update"] }`}
	if _, err := s.Do(t.Context(), "PUT", "sys/policies/acl/"+key, rules); err != nil {
		t.Fatal(err)
	}
	out, err := s.Do(t.Context(), "POST", "auth/token/create", map[string]any{"policies": []string{key}})
	if err != nil {
		t.Fatal(err)
	}
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if kek, err = NewTransitKEK(client(t, s, token).Transit("transit"), "transit", key); err != nil {
		t.Fatal(err)
	}
	return kek, key
}

func rotateKEK(t *testing.T, s *devvault.Server, key string, config map[string]any) {
	t.Helper()
	if _, err := s.Do(t.Context(), "POST", "transit/keys/"+key+"/rotate", nil); err != nil {
		t.Fatal(err)
	}
	if config == nil {
		return
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/"+key+"/config", config); err != nil {
		t.Fatal(err)
	}
}

func TestWhatVaultSealedOpensOnlyAsItWasSealed(t *testing.T) {
	s := sharedVault(t)
	kek, key := vaultKEK(t, s)
	other, _ := vaultKEK(t, s)
	plain, bound := []byte("a private key"), []byte("what it is for")
	sealed, err := kek.Seal(t.Context(), plain, bound)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kek.Open(t.Context(), sealed, bound); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q, %v", got, err)
	}
	altered := bytes.Clone(sealed)
	at := bytes.LastIndexByte(altered, '"') - 6
	altered[at] ^= 'A' ^ 'B'
	file := newKeyFile(t)
	ofFile, err := file.Seal(t.Context(), plain, bound)
	if err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(sealed, []byte(key), []byte(strings.Repeat("x", len(key))), 1)
	for name, c := range map[string]struct {
		kek    KEK
		sealed []byte
		aad    string
		want   error
	}{
		"another purpose":          {kek, sealed, "what it is not for", ErrSealed},
		"a byte altered":           {kek, altered, string(bound), ErrSealed},
		"another key":              {other, sealed, string(bound), ErrKEK},
		"another key's name":       {kek, renamed, string(bound), ErrKEK},
		"a key file's":             {kek, ofFile, string(bound), ErrKEK},
		"Vault's to a key file":    {file, sealed, string(bound), ErrKEK},
		"nothing":                  {kek, nil, string(bound), ErrSealed},
		"an unknown form":          {kek, append([]byte{9}, sealed...), string(bound), ErrSealed},
		"a field too many":         {kek, bytes.Replace(sealed, []byte(`{`), []byte(`{"x":1,`), 1), string(bound), ErrSealed},
		"something at the end":     {kek, append(bytes.Clone(sealed), ' '), string(bound), ErrSealed},
		"a version that is not":    {kek, bytes.Replace(sealed, []byte("vault:v1:"), []byte("vault:v7:"), 1), string(bound), ErrKEK},
		"a version with a zero":    {kek, bytes.Replace(sealed, []byte("vault:v1:"), []byte("vault:v01:"), 1), string(bound), ErrSealed},
		"no ciphertext of Vault's": {kek, bytes.Replace(sealed, []byte("vault:v1:"), []byte("plain:v1:"), 1), string(bound), ErrSealed},
	} {
		if got, err := c.kek.Open(t.Context(), c.sealed, []byte(c.aad)); !errors.Is(err, c.want) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAVaultThatCantSealIsToldFromOneThatIsAway(t *testing.T) {
	s := vaultWithStorage(t)
	kek, key := vaultKEK(t, s)
	sealed, err := kek.Seal(t.Context(), []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	root := client(t, s, "").Transit("transit")
	missing, err := NewTransitKEK(root, "transit", "missing")
	if err != nil {
		t.Fatal(err)
	}
	ofMissing := bytes.Replace(sealed, []byte(key), []byte("missing"), 1)
	if _, err := missing.Open(t.Context(), ofMissing, nil); !errors.Is(err, ErrKEK) || !strings.Contains(err.Error(), "aes256-gcm96") {
		t.Errorf("no such key: %v", err)
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/signing", map[string]any{"type": "ecdsa-p256"}); err != nil {
		t.Fatal(err)
	}
	signing, err := NewTransitKEK(root, "transit", "signing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signing.Seal(t.Context(), []byte("x"), nil); !errors.Is(err, ErrKEK) {
		t.Errorf("a signing key: %v", err)
	}
	rotateKEK(t, s, key, map[string]any{"min_decryption_version": 2})
	if _, err := kek.Open(t.Context(), sealed, nil); !errors.Is(err, ErrKEK) || !strings.Contains(err.Error(), "min_decryption_version") {
		t.Errorf("too old: %v", err)
	}
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := kek.Open(t.Context(), sealed, nil); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrKEK) || errors.Is(err, ErrSealed) {
		t.Errorf("sealed: %v", err)
	}
	s.Kill()
	if _, err := kek.Seal(t.Context(), []byte("x"), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("killed: %v", err)
	}
	for _, c := range [][2]string{{"a//b", "k"}, {"transit", "a/b"}, {"transit", ""}} {
		if _, err := NewTransitKEK(root, c[0], c[1]); err == nil {
			t.Errorf("%q was taken", c)
		}
	}
}

func TestKeysSealedInVaultAreSealedAnewWhenItsKeyRotates(t *testing.T) {
	s, st, c := sharedVault(t), openStore(t), newClock()
	kek, key := vaultKEK(t, s)
	m := startManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now})
	auditor, err := AuditKey(t.Context(), st, kek, c.now)
	if err != nil {
		t.Fatal(err)
	}
	renew := func(kek KEK) int {
		t.Helper()
		n, err := Renew(t.Context(), st, kek, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := renew(kek); n != 0 {
		t.Errorf("%d keys of the newest version sealed anew", n)
	}
	old := mint(t, m)
	rotateKEK(t, s, key, nil)
	if n := renew(KEKs(kek, newKeyFile(t))); n != 3 {
		t.Errorf("%d keys sealed anew, want active, standby and audit key", n)
	}
	if n := renew(kek); n != 0 {
		t.Errorf("%d keys twice", n)
	}
	// Nothing needs the old version.
	rotateKEK(t, s, key, map[string]any{"min_decryption_version": 2})
	if err := OpensAll(t.Context(), st, kek); err != nil {
		t.Error(err)
	}
	tick(t, m) // the rows have changed under it
	signer, _ := m.Active()
	if err := checks(t, st, signer.Ref()); err != nil {
		t.Errorf("the running manager's ref: %v", err)
	}
	again := startManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now})
	if err := verifies(t, again, old); err != nil || activeID(t, again) != activeID(t, m) {
		t.Errorf("other keys: %v", err)
	}
	if same, err := AuditKey(t.Context(), st, kek, c.now); err != nil || !same.Public().Equal(auditor.Public()) {
		t.Errorf("another audit key: %v", err)
	}
	if got := types(logged(t, st)); strings.Count(got, "resealed") != 3 {
		t.Error(got)
	}
	if n := renew(newKeyFile(t)) + renew(KEKs(newKeyFile(t))); n != 0 {
		t.Errorf("a key file has no versions, and %d keys were sealed anew", n)
	}
	storetest.VerifyLog(t, st)
}

func TestRewrapGoesFromAKeyFileToVaultAndBack(t *testing.T) {
	st, file := openStore(t), newKeyFile(t)
	inVault, _ := vaultKEK(t, sharedVault(t))
	kid := activeID(t, startManager(t, Config{Store: st, Home: Sealed(file)}))
	if _, err := AuditKey(t.Context(), st, file, time.Now); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]KEK{{file, inVault}, {inVault, file}} {
		for _, want := range []int{3, 0} { // again: after a crash
			if n, err := Rewrap(t.Context(), st, way[0], way[1], time.Now); err != nil || n != want {
				t.Errorf("%d, %v", n, err)
			}
		}
		if err := newManager(t, Config{Store: st, Home: Sealed(way[0])}).Start(t.Context()); !errors.Is(err, ErrKEK) {
			t.Errorf("the former key-encryption key: %v", err)
		}
		if got := activeID(t, startManager(t, Config{Store: st, Home: Sealed(way[1])})); got != kid {
			t.Error("another key is active")
		}
	}
}

func TestAStartWithoutTheKeyEncryptionKeysVaultIsFinishedWhenItIsBack(t *testing.T) {
	s, st := vaultWithStorage(t), openStore(t)
	kek, _ := vaultKEK(t, s)
	kid := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)}))
	s.Kill()
	m := startManager(t, Config{Store: st, Home: Sealed(kek)})
	if _, err := m.Active(); err == nil {
		t.Error("it signs")
	}
	run(t, m)
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("signs after %s", await(t, m))
	if activeID(t, m) != kid || len(m.List()) != 2 {
		t.Errorf("%v", m.List())
	}
}

// failing is a KEK that is out of reach while told so.
type failing struct {
	KEK
	err error
}

func (k *failing) Newest(context.Context) (int, error) { return 0, k.err }
func (k *failing) Age([]byte) (int, error)             { return 0, k.err }

func TestRenewSaysThatVaultIsAway(t *testing.T) {
	if _, err := Renew(t.Context(), openStore(t), &failing{newKeyFile(t), ErrUnavailable}, time.Now); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestForgottenMarksCountAllThatIsThereAsSpent(t *testing.T) {
	st, c, home := openStore(t), newClock(), newTransit(t, TransitConfig{})
	startManager(t, Config{Store: st, Home: home, Now: c.now})
	for range 2 { // versions of a time that the store doesn't know
		if _, err := home.config.Engine("transit").Rotate(t.Context(), home.keyName("ES256")); err != nil {
			t.Fatal(err)
		}
	}
	if err := ForgetMarks(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	c.add(DefaultRotation)
	m := startManager(t, Config{Store: st, Home: home, Now: c.now})
	c.add(2 * DefaultMaxAge) // the standby's notice, watched anew
	tick(t, m)
	if latest := transitInfo(t, home, "ES256").LatestVersion; latest != 5 {
		t.Errorf("version %d: one that was there was taken", latest)
	}
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
	if err := ForgetMarks(t.Context(), openStore(t)); err != nil {
		t.Error(err)
	}
	rewrite(t, st, ringTable, DefaultRing, func([]byte) []byte { return []byte("x") })
	if err := ForgetMarks(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

func FuzzParseTransitSealed(f *testing.F) {
	f.Add(append([]byte{2}, encode(transitSealed{1, "transit", "kek", "vault:v1:AAAA"})...))
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Add([]byte("\x02{\"form\":1,\"form\":1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, version, err := parseTransitSealed(data)
		switch {
		case err != nil && !errors.Is(err, ErrKEK) && !errors.Is(err, ErrSealed):
			t.Errorf("%v", err)
		case err == nil && (version < 1 || string(data) != "\x02"+string(encode(s))):
			t.Errorf("%q gives %+v", data, s)
		}
	})
}
