package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// assertionSigner makes client assertions (RFC 7523 section 3) with any
// crypto.Signer, so that the key may live in a device or an agent.
type assertionSigner struct {
	key crypto.Signer
	alg credential.Algorithm
	kid string
}

func newAssertionSigner(a PrivateKeyJWT) (*assertionSigner, error) {
	alg := a.Algorithm
	if alg == "" {
		var err error
		if alg, err = algorithmFor(a.Key.Public()); err != nil {
			return nil, err
		}
	}
	// NewKey refuses an algorithm that is not the key's and keys too weak to use.
	pub, err := jwks.NewKey(a.KeyID, alg, a.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("client: private key: %w", err)
	}
	kid := a.KeyID
	if kid == "" {
		kid = pub.Thumbprint()
	}
	return &assertionSigner{key: a.Key, alg: alg, kid: kid}, nil
}

// algorithmFor returns the algorithm that a key serves unless told otherwise.
func algorithmFor(pub crypto.PublicKey) (credential.Algorithm, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return credential.ES256, nil
		case 384:
			return credential.ES384, nil
		}
		return "", fmt.Errorf("client: private key: curve %s is not used here: P-256 or P-384", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return credential.EdDSA, nil
	case *rsa.PublicKey:
		return credential.RS256, nil
	}
	return "", fmt.Errorf("client: private key: unknown type %T", pub)
}

func (s *assertionSigner) assertion(account credential.AccountID, issuer credential.IssuerURL, now time.Time) (string, error) {
	header, err := json.Marshal(struct {
		Alg credential.Algorithm `json:"alg"`
		Kid string               `json:"kid"`
		Typ string               `json:"typ"`
	}{s.alg, s.kid, "JWT"})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(struct {
		Issuer   credential.AccountID `json:"iss"`
		Subject  credential.AccountID `json:"sub"`
		Audience credential.IssuerURL `json:"aud"`
		IssuedAt int64                `json:"iat"`
		Expires  int64                `json:"exp"`
		ID       string               `json:"jti"`
	}{account, account, issuer, now.Unix(), now.Add(assertionLife).Unix(), credential.NewID()})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(payload)
	signature, err := s.sign([]byte(input))
	if err != nil {
		return "", fmt.Errorf("client: signing the assertion: %w", err)
	}
	return input + "." + encode(signature), nil
}

func (s *assertionSigner) sign(input []byte) ([]byte, error) {
	switch s.alg {
	case credential.EdDSA:
		return s.key.Sign(rand.Reader, input, crypto.Hash(0))
	case credential.ES256:
		sum := sha256.Sum256(input)
		return s.signECDSA(sum[:], crypto.SHA256, 32)
	case credential.ES384:
		sum := sha512.Sum384(input)
		return s.signECDSA(sum[:], crypto.SHA384, 48)
	case credential.PS256:
		sum := sha256.Sum256(input)
		return s.key.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	default:
		sum := sha256.Sum256(input)
		return s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
}

// signECDSA turns a signer's ASN.1 into the two fixed-width numbers of RFC 7518
// section 3.4.
func (s *assertionSigner) signECDSA(sum []byte, hash crypto.Hash, width int) ([]byte, error) {
	der, err := s.key.Sign(rand.Reader, sum, hash)
	if err != nil {
		return nil, err
	}
	var n struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) > 0 {
		return nil, errors.New("the signer returned no ECDSA signature")
	}
	if n.R.Sign() <= 0 || n.S.Sign() <= 0 || n.R.BitLen() > 8*width || n.S.BitLen() > 8*width {
		return nil, errors.New("the signer returned an ECDSA signature out of range")
	}
	out := make([]byte, 2*width)
	n.R.FillBytes(out[:width])
	n.S.FillBytes(out[width:])
	return out, nil
}
