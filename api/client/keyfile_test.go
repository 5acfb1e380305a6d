package client

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func pemOf(kind string, der []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pemOf("PRIVATE KEY", der, err)
}

func jwkOf(k jose.JSONWebKey) string {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestPrivateKeysAreReadFromPEMAndJWK(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	sec1, err := x509.MarshalECPrivateKey(ec)
	for name, k := range map[string]struct {
		text string
		key  crypto.Signer
		alg  string
		kid  string
	}{
		"PKCS 8 P-256":   {pkcs8(ec), ec, "ES256", ""},
		"PKCS 8 P-384":   {pkcs8(p384), p384, "ES384", ""},
		"PKCS 8 Ed25519": {pkcs8(ed), ed, "EdDSA", ""},
		"PKCS 8 RSA":     {pkcs8(rs), rs, "RS256", ""},
		"SEC 1":          {pemOf("EC PRIVATE KEY", sec1, err), ec, "ES256", ""},
		"PKCS 1":         {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs), nil), rs, "RS256", ""},
		"JWK":            {jwkOf(jose.JSONWebKey{Key: ec, KeyID: "mine", Use: "sig"}), ec, "ES256", "mine"},
		"JWK with alg":   {jwkOf(jose.JSONWebKey{Key: rs, Algorithm: "PS256"}), rs, "PS256", ""},
		"JWK Ed25519":    {jwkOf(jose.JSONWebKey{Key: ed}), ed, "EdDSA", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseKey([]byte(k.text), worker)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Algorithm) != k.alg || (k.kid != "" && got.KeyID != k.kid) || got.KeyID == "" || got.Account != worker {
				t.Errorf("alg %s kid %s", got.Algorithm, got.KeyID)
			}
			if pub, ok := k.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(got.Key.Public()) {
				t.Error("another key")
			}
		})
	}
}

func TestWhatIsNoUsablePrivateKeyIsRefusedWithoutShowingIt(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	x, _ := ecdh.X25519().GenerateKey(rand.Reader)
	pub, err := x509.MarshalPKIXPublicKey(ec.Public())
	private := jwkOf(jose.JSONWebKey{Key: ec})
	for name, text := range map[string]string{
		"empty":                 "",
		"noise":                 "hunter2 hunter2",
		"a public PEM":          pemOf("PUBLIC KEY", pub, err),
		"an encrypted PEM":      pemOf("ENCRYPTED PRIVATE KEY", pub, nil),
		"a broken PEM":          pemOf("PRIVATE KEY", []byte("hunter2"), nil),
		"X25519":                pkcs8(x),
		"P-521":                 pkcs8(p521),
		"RSA of 1024 bits":      pkcs8(weak),
		"a public JWK":          jwkOf(jose.JSONWebKey{Key: ec.Public()}),
		"a symmetric JWK":       `{"kty":"oct","k":"aHVudGVyMg"}`,
		"a JWK for encryption":  jwkOf(jose.JSONWebKey{Key: ec, Use: "enc"}),
		"a JWK with none":       jwkOf(jose.JSONWebKey{Key: ec, Algorithm: "none"}),
		"a JWK of another alg":  jwkOf(jose.JSONWebKey{Key: ec, Algorithm: "ES384"}),
		"a JWK with d twice":    strings.Replace(private, `"kty"`, `"d":"aHVudGVyMg","kty"`, 1),
		"over the limit":        strings.Repeat(" ", maxKeyFile+1),
		"a set rather than one": `{"keys":[` + private + `]}`,
	} {
		_, err := ParseKey([]byte(text), worker)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func TestAKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, []byte(pkcs8(ec)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path, worker); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path, worker); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := LoadKey(path+".none", worker); err == nil {
		t.Error("a missing file")
	}
	if _, err := LoadKey(filepath.Dir(path), worker); err == nil {
		t.Error("a folder")
	}
}

func FuzzParseKey(f *testing.F) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.Add([]byte(pkcs8(ec)))
	f.Add([]byte(jwkOf(jose.JSONWebKey{Key: ec})))
	f.Add([]byte(`{"kty":"EC"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKey(data, worker)
		if err != nil {
			return
		}
		if k.Key == nil || k.KeyID == "" || k.Algorithm == "" {
			t.Fatal("half a key")
		}
	})
}
