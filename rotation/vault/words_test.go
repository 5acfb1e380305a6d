package vault_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(s, part string) bool { return strings.Contains(s, part) }

func marshalled(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return string(raw)
}

func verifyDigest(public crypto.PublicKey, input, sig []byte) error {
	digest := sha256.Sum256(input)
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
			return errors.New("not a signature over the input")
		}
		return nil
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], sig)
	}
	return errors.New("no such key")
}

// tokenWith returns a client with a token of these policies.
func tokenWith(t *testing.T, s *devvault.Server, policies ...string) *vault.Client {
	t.Helper()
	return loggedIn(t, vault.Config{Address: s.URL(), CAFile: s.CACert(), Login: vault.Token{Secret: secret(newToken(t, s, map[string]any{"policies": policies}))}})
}

// newToken makes a token as root.
func newToken(t *testing.T, s *devvault.Server, body map[string]any) string {
	t.Helper()
	made := root(t, s, http.MethodPost, "auth/token/create", body)
	granted, _ := made["auth"].(map[string]any)
	token, _ := granted["client_token"].(string)
	if token == "" {
		t.Fatal("no token was made")
	}
	return token
}

// flip changes the last character before the padding of a ciphertext.
func flip(ciphertext string) string {
	b := []byte(strings.TrimRight(ciphertext, "="))
	i := len(b) - 3
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b) + ciphertext[len(b):]
}
