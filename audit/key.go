package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/credential"
)

// MarshalKey returns the audit key as a public JWK (RFC 8037 section 2).
func MarshalKey(key ed25519.PublicKey) []byte {
	return fmt.Appendf(nil, `{"kty":"OKP","crv":"Ed25519","x":"%s","kid":"%s","alg":"EdDSA","use":"sig"}`,
		base64.RawURLEncoding.EncodeToString(key), KeyID(key))
}

// ParseKey reads an Ed25519 public key: a JWK, or PEM with a "PUBLIC KEY". A
// private key is refused: it has no business where heads are checked.
func ParseKey(data []byte) (ed25519.PublicKey, error) {
	data = bytes.TrimSpace(data)
	if bytes.HasPrefix(data, []byte("-----")) {
		block, _ := pem.Decode(data)
		if block == nil || block.Type != "PUBLIC KEY" {
			return nil, errors.New(`audit: key: expected PEM of a "PUBLIC KEY"`)
		}
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("audit: key: %w", err)
		}
		key, ok := pub.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("audit: key: not Ed25519")
		}
		return key, nil
	}
	members, err := credential.ParseObject(data)
	if err != nil {
		return nil, fmt.Errorf("audit: key: %w", err)
	}
	texts := map[string]string{}
	for _, m := range members {
		switch name := string(m.Name); name {
		case "d":
			return nil, errors.New("audit: key: a private key")
		case "kty", "crv", "x":
			if texts[name], err = m.JSONText(); err != nil {
				return nil, fmt.Errorf("audit: key: %w", err)
			}
		}
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(texts["x"])
	if err != nil || texts["kty"] != "OKP" || texts["crv"] != "Ed25519" || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("audit: key: not an Ed25519 JWK")
	}
	return key, nil
}
