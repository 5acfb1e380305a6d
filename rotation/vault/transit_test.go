package vault_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

var types = []struct {
	name string
	alg  credential.Algorithm
}{
	{"ecdsa-p256", credential.ES256},
	{"ed25519", credential.EdDSA},
	{"rsa-2048", credential.RS256},
}

func TestTransitSignsWhatTheStandardVerifies(t *testing.T) {
	s := shared(t)
	transit := asRoot(t, s).Transit("transit")
	for _, typ := range types {
		t.Run(typ.name, func(t *testing.T) {
			name := "sign-" + typ.name
			must(t, transit.Create(t.Context(), name, typ.name))
			version, err := transit.Rotate(t.Context(), name)
			must(t, err)
			if version != 2 {
				t.Errorf("it says that it made version %d", version)
			}
			key, err := transit.Key(t.Context(), name)
			must(t, err)
			if key.LatestVersion != 2 || len(key.Versions) != 2 {
				t.Fatalf("%d versions, latest %d", len(key.Versions), key.LatestVersion)
			}
			inputs := [][]byte{[]byte("head.one"), []byte("head.two"), {}}
			for version, public := range key.Versions {
				signatures, err := transit.Sign(t.Context(), name, version, typ.alg, inputs)
				must(t, err)
				for i, sig := range signatures {
					must(t, sig.Err)
					verifies(t, typ.alg, public, inputs[i], sig.Raw)
				}
			}
		})
	}
}

// verifies holds a signature to RFC 7518 and RFC 8037 with the code that
// verifies tokens.
func verifies(t *testing.T, alg credential.Algorithm, v vault.TransitVersion, input, sig []byte) {
	t.Helper()
	switch public := v.Public.(type) {
	case *ecdsa.PublicKey:
		if len(sig) != 64 {
			t.Fatalf("an ES256 signature of %d bytes", len(sig))
		}
	case ed25519.PublicKey:
		if !ed25519.Verify(public, input, sig) {
			t.Fatal("Ed25519: not a signature over the input")
		}
		return
	case *rsa.PublicKey:
	default:
		t.Fatalf("a public key of type %T", public)
	}
	if err := verifyDigest(v.Public, input, sig); err != nil {
		t.Fatalf("%s: %v", alg, err)
	}
}

func TestTransitTellsWhatAKeyIs(t *testing.T) {
	s := shared(t)
	transit := asRoot(t, s).Transit("transit")
	must(t, transit.Create(t.Context(), "plain", "ecdsa-p256"))
	key, err := transit.Key(t.Context(), "plain")
	must(t, err)
	if key.Type != "ecdsa-p256" || key.Exportable || key.AllowPlaintextBackup || key.Derived || key.Imported || key.LatestVersion != 1 {
		t.Errorf("%+v", key)
	}
	if key.Versions[1].CreatedAt.IsZero() {
		t.Error("no time of creation")
	}
	root(t, s, http.MethodPost, "transit/keys/loose", map[string]any{"type": "ed25519", "exportable": true, "allow_plaintext_backup": true})
	if key, err = transit.Key(t.Context(), "loose"); err != nil || !key.Exportable || !key.AllowPlaintextBackup {
		t.Errorf("%+v, %v", key, err)
	}
	root(t, s, http.MethodPost, "transit/keys/derived", map[string]any{"type": "ed25519", "derived": true})
	if key, err = transit.Key(t.Context(), "derived"); err != nil || !key.Derived || key.Versions[1].Public != nil {
		t.Errorf("%+v, %v", key, err)
	}
	root(t, s, http.MethodPost, "transit/keys/symmetric", nil)
	if key, err = transit.Key(t.Context(), "symmetric"); err != nil || key.Type != "aes256-gcm96" || key.Versions[1].Public != nil || key.Versions[1].CreatedAt.IsZero() {
		t.Errorf("%+v, %v", key, err)
	}
	if _, err := transit.Key(t.Context(), "nowhere"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
}

func TestTransitMinimums(t *testing.T) {
	s := shared(t)
	transit := asRoot(t, s).Transit("transit")
	must(t, transit.Create(t.Context(), "minimums", "ed25519"))
	for range 2 {
		_, err := transit.Rotate(t.Context(), "minimums")
		must(t, err)
	}
	must(t, transit.SetMinimums(t.Context(), "minimums", 2, 2))
	key, err := transit.Key(t.Context(), "minimums")
	must(t, err)
	if key.MinDecryptionVersion != 2 || key.MinEncryptionVersion != 2 || len(key.Versions) != 2 {
		t.Errorf("%+v", key)
	}
	signatures, err := transit.Sign(t.Context(), "minimums", 1, credential.EdDSA, [][]byte{[]byte("x")})
	if err == nil {
		err = signatures[0].Err
	}
	if !errors.Is(err, vault.ErrRefused) {
		t.Errorf("signed with a version below the minimum: %v", err)
	}
	if err := transit.SetMinimums(t.Context(), "minimums", 7, 0); !errors.Is(err, vault.ErrRefused) {
		t.Errorf("a minimum above the latest version: %v", err)
	}
}

func TestTransitSignRefusesWhatItCanNotPin(t *testing.T) {
	transit := asRoot(t, shared(t)).Transit("transit")
	for name, sign := range map[string]func() ([]vault.Signature, error){
		"version 0": func() ([]vault.Signature, error) {
			return transit.Sign(t.Context(), "k", 0, credential.ES256, [][]byte{{1}})
		},
		"no input": func() ([]vault.Signature, error) { return transit.Sign(t.Context(), "k", 1, credential.ES256, nil) },
		"an other alg": func() ([]vault.Signature, error) {
			return transit.Sign(t.Context(), "k", 1, credential.PS256, [][]byte{{1}})
		},
		"too many input": func() ([]vault.Signature, error) {
			return transit.Sign(t.Context(), "k", 1, credential.ES256, make([][]byte, vault.MaxBatch+1))
		},
	} {
		if _, err := sign(); !errors.Is(err, vault.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := transit.Sign(t.Context(), "no-such-key", 1, credential.ES256, [][]byte{{1}}); !errors.Is(err, vault.ErrRefused) {
		t.Errorf("no such key: %v", err)
	}
}

func TestTransitEncryptionIsBoundToItsData(t *testing.T) {
	s := shared(t)
	transit := asRoot(t, s).Transit("transit")
	must(t, transit.Create(t.Context(), "kek", "aes256-gcm96"))
	must(t, transit.Create(t.Context(), "other-kek", "aes256-gcm96"))
	plain, aad := []byte("a private key"), []byte("key 7, signing")
	sealed, err := transit.Encrypt(t.Context(), "kek", plain, aad)
	must(t, err)
	if got, err := transit.Decrypt(t.Context(), "kek", sealed, aad); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%q, %v", got, err)
	}
	if version, err := vault.CiphertextVersion(sealed); err != nil || version != 1 {
		t.Errorf("version %d, %v", version, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another aad": func() ([]byte, error) { return transit.Decrypt(t.Context(), "kek", sealed, []byte("key 8, signing")) },
		"no aad":      func() ([]byte, error) { return transit.Decrypt(t.Context(), "kek", sealed, nil) },
		"another key": func() ([]byte, error) { return transit.Decrypt(t.Context(), "other-kek", sealed, aad) },
		"altered":     func() ([]byte, error) { return transit.Decrypt(t.Context(), "kek", flip(sealed), aad) },
	} {
		if got, err := open(); !errors.Is(err, vault.ErrRefused) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// The broker has update only: it can't make a key by using it.
func TestEncryptWithUpdateOnlyMakesNoKey(t *testing.T) {
	s := shared(t)
	name := policy(t, s, `path "transit/encrypt/*" { capabilities = ["update"] } path "transit/decrypt/*" { capabilities = ["update"] }`)
	c := tokenWith(t, s, name)
	if _, err := c.Transit("transit").Encrypt(t.Context(), "never-made", []byte("x"), nil); !errors.Is(err, vault.ErrForbidden) && !errors.Is(err, vault.ErrRefused) {
		t.Errorf("%v", err)
	}
	must(t, asRoot(t, s).Transit("transit").Create(t.Context(), "update-only", "aes256-gcm96"))
	if _, err := c.Transit("transit").Encrypt(t.Context(), "update-only", []byte("x"), []byte("aad")); err != nil {
		t.Error(err)
	}
}

func TestBatchesUpToTheLimit(t *testing.T) {
	transit := asRoot(t, shared(t)).Transit("transit")
	must(t, transit.Create(t.Context(), "batch", "ed25519"))
	inputs := make([][]byte, vault.MaxBatch)
	for i := range inputs {
		inputs[i] = fmt.Appendf(nil, "input %d", i)
	}
	signatures, err := transit.Sign(t.Context(), "batch", 1, credential.EdDSA, inputs)
	must(t, err)
	key, err := transit.Key(context.WithoutCancel(t.Context()), "batch")
	must(t, err)
	for i, sig := range signatures {
		must(t, sig.Err)
		verifies(t, credential.EdDSA, key.Versions[1], inputs[i], sig.Raw)
	}
}
