package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// I7: the store holds no private key and no client secret in the clear.
func TestInvariant_I7_TheStoreHoldsNothingSecretInTheClear(t *testing.T) {
	w := newWorld(t)
	secret, err := base64.RawURLEncoding.DecodeString(string(w.ClientSecret(mailer).Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	w.mustToken(w.form(mailer, acme))
	if err := w.Internal().Keys().Rotate(t.Context(), w.By(), keys.RotateOptions{Emergency: true, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(w.ConfigFile())
	stored, err := os.ReadFile(filepath.Join(folder, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(folder, "kek.key")
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" :=\n", r) })
	kek, err := base64.RawURLEncoding.DecodeString(words[len(words)-1])
	if err != nil || len(kek) != 32 {
		t.Fatalf("no key of 32 bytes ends the key file: %v", err)
	}
	worker, ok := w.Key(mailer).Key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("the worker's key is not ECDSA")
	}
	searched := map[string][]byte{"the client secret": secret, "the key-encryption key": kek, "the worker's key": scalar(t, worker)}
	for kid, private := range privateKeys(t, w, keyFile) {
		searched["the key "+kid] = scalar(t, private)
	}
	if len(searched) < 6 {
		t.Fatalf("only %d secrets to search for: want active, standby and audit key too", len(searched))
	}
	for name, secret := range searched {
		if form := foundIn(stored, secret); form != "" {
			t.Errorf("the store holds %s in the clear, as %s", name, form)
		}
	}
}

// A search that finds nothing must be able to find something.
func TestASecretIsFoundInEveryForm(t *testing.T) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{0x5a, 0xc3}, 16))
	if err != nil {
		t.Fatal(err)
	}
	secret := scalar(t, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pem := base64.StdEncoding.EncodeToString(der)
	for name, text := range map[string]string{
		"raw": string(secret), "DER": string(der), "hex": fmt.Sprintf("%x", secret), "HEX": fmt.Sprintf("%X", secret),
		"JWK": `"d":"` + base64.RawURLEncoding.EncodeToString(secret) + `"`, "base64 of DER": pem,
		"PEM": pem[:64] + "\n" + pem[64:128] + "\n" + pem[128:], "PEM in JSON": pem[:64] + `\n` + pem[64:128] + `\n` + pem[128:],
	} {
		if foundIn([]byte("before "+text+" after"), secret) == "" {
			t.Errorf("not found as %s", name)
		}
	}
	if form := foundIn([]byte(strings.Repeat("nothing of it ", 100)), secret); form != "" {
		t.Errorf("found as %s where it is not", form)
	}
}

// foundIn says in which form data holds a secret of 32 bytes, if it does.
func foundIn(data, secret []byte) string {
	joined := bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\n"), nil), []byte(`\n`), nil)
	forms := map[string][]byte{
		"raw bytes": secret, "hex": fmt.Appendf(nil, "%x", secret), "upper-case hex": fmt.Appendf(nil, "%X", secret),
	}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for before := range 3 { // the edges depend on what surrounds it
			text := encoding.EncodeToString(append(make([]byte, before), secret...))
			forms[fmt.Sprint(name, " after ", before)] = []byte(text[4 : len(text)-4])
		}
	}
	for form, needle := range forms {
		if bytes.Contains(data, needle) || bytes.Contains(joined, needle) {
			return form
		}
	}
	return ""
}

func scalar(t *testing.T, private any) []byte {
	t.Helper()
	switch k := private.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return d
	case ed25519.PrivateKey:
		return k.Seed()
	}
	t.Fatalf("a private key %T", private)
	return nil
}

// privateKeys are the broker's own private keys, by their ids: what there is to
// seal anew is opened for it.
func privateKeys(t *testing.T, w *world, keyFile string) map[string]any {
	t.Helper()
	kek, err := keys.LoadKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(map[string]any)
	if _, err := keys.Rewrap(t.Context(), w.Internal().Store(), kek, hearingKEK{kek, opened}, time.Now); err != nil {
		t.Fatal(err)
	}
	return opened
}

// hearingKEK seals as KEK does and keeps the keys that it sealed.
type hearingKEK struct {
	keys.KEK
	heard map[string]any
}

// Open knows only what this one sealed, so that everything is sealed anew.
func (h hearingKEK) Open(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	if h.heard[keyIn(aad)] == nil {
		return nil, errors.New("not sealed by this one")
	}
	return h.KEK.Open(ctx, sealed, aad)
}

func (h hearingKEK) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	private, err := x509.ParsePKCS8PrivateKey(plaintext)
	if err != nil {
		return nil, err
	}
	h.heard[keyIn(aad)] = private
	return h.KEK.Seal(ctx, plaintext, aad)
}

// keyIn is the id of the key that is sealed.
func keyIn(aad []byte) string { return string(aad[bytes.LastIndexByte(aad, 0)+1:]) }
