package jwks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Bounds of an RSA modulus, in bits (RFC 7518 section 3.3 asks for 2048; more
// than 8192 only costs the verifier time).
const (
	MinRSABits = 2048
	MaxRSABits = 8192
)

// Key is one public key, bound to exactly one algorithm. The zero Key is none
// and verifies nothing. Keys don't compare with ==; use Equal.
type Key struct {
	_          [0]func()
	kid        string
	alg        credential.Algorithm
	declared   bool // alg was stated, not derived from the type of key
	pub        crypto.PublicKey
	jwk        string
	thumbprint string
	checker    *credential.Checker
}

// NewKey binds pub (*ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey) to
// alg. kid may be empty, and is at most credential.MaxKeyIDLength bytes.
//
// Every error wraps ErrKey.
func NewKey(kid string, alg credential.Algorithm, pub crypto.PublicKey) (Key, error) {
	if err := checkKeyID(kid); err != nil {
		return Key{}, err
	}
	pub, members, err := canonical(pub)
	if err != nil {
		return Key{}, err
	}
	if !fits(alg, pub) {
		return Key{}, fmt.Errorf("%w: the algorithm is not one for this type of key", ErrKey)
	}
	sum := sha256.Sum256([]byte("{" + members + "}"))
	k := Key{kid: kid, alg: alg, declared: true, pub: pub}
	k.thumbprint = base64.RawURLEncoding.EncodeToString(sum[:])
	k.jwk = document(kid, alg, members)
	k.checker = credential.NewChecker(alg, pub)
	return k, nil
}

// ID returns the key id, "" if it has none.
func (k Key) ID() string { return k.kid }

// Algorithm returns the one algorithm that the key serves.
func (k Key) Algorithm() credential.Algorithm { return k.alg }

// Public returns the key itself: *ecdsa.PublicKey, ed25519.PublicKey or
// *rsa.PublicKey. It must not be changed. It is nil for the zero Key.
func (k Key) Public() crypto.PublicKey { return k.pub }

// Verify checks the signature of a token and returns its payload. The header's
// algorithm must be the key's own; its `kid` is not compared.
//
// Errors: credential.ErrAlgorithm, ErrHeader and ErrSignature.
func (k Key) Verify(token *credential.UnverifiedJWS) ([]byte, error) {
	if k.IsZero() {
		return nil, credential.ErrAlgorithm
	}
	return k.checker.Verify(token)
}

// JWK returns the key as a JSON Web Key: the required members in the order of
// RFC 7638, then alg, kid and use.
func (k Key) JWK() []byte { return []byte(k.jwk) }

// MarshalJSON implements json.Marshaler with JWK.
func (k Key) MarshalJSON() ([]byte, error) {
	if k.IsZero() {
		return nil, fmt.Errorf("%w: none", ErrKey)
	}
	return k.JWK(), nil
}

// Thumbprint returns the SHA-256 thumbprint of RFC 7638 in unpadded base64url.
func (k Key) Thumbprint() string { return k.thumbprint }

// IsZero reports whether k is none.
func (k Key) IsZero() bool { return k.pub == nil }

// Equal reports whether the two have the same key material, algorithm and id.
func (k Key) Equal(other Key) bool { return k.jwk == other.jwk }

// WithAlgorithm returns the key bound to alg instead. That is possible where
// the algorithm was not stated with the key and the type of key allows alg: an
// RSA key without `alg` may serve RS256 or PS256.
func (k Key) WithAlgorithm(alg credential.Algorithm) (Key, bool) {
	if k.alg == alg && !k.IsZero() {
		return k, true
	}
	if k.declared || !fits(alg, k.pub) {
		return Key{}, false
	}
	bound, err := NewKey(k.kid, alg, k.pub)
	return bound, err == nil
}

// canonical checks and copies a public key and returns the members that RFC
// 7638 hashes, in its order.
func canonical(pub crypto.PublicKey) (crypto.PublicKey, string, error) {
	encode := base64.RawURLEncoding.EncodeToString
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub == nil || (pub.Curve != elliptic.P256() && pub.Curve != elliptic.P384()) {
			return nil, "", fmt.Errorf("%w: the curve must be P-256 or P-384", ErrKey)
		}
		point, err := pub.Bytes() // 4, x, y; refuses a point off the curve
		if err != nil {
			return nil, "", fmt.Errorf("%w: not a point of the curve", ErrKey)
		}
		same, err := ecdsa.ParseUncompressedPublicKey(pub.Curve, point)
		if err != nil {
			return nil, "", fmt.Errorf("%w: not a point of the curve", ErrKey)
		}
		size := len(point) / 2
		return same, `"crv":"` + pub.Curve.Params().Name + `","kty":"EC","x":"` + encode(point[1:1+size]) +
			`","y":"` + encode(point[1+size:]) + `"`, nil
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return nil, "", fmt.Errorf("%w: an Ed25519 key has %d bytes", ErrKey, ed25519.PublicKeySize)
		}
		if weakEd25519(pub) {
			return nil, "", fmt.Errorf("%w: a point of small order", ErrKey)
		}
		return slices.Clone(pub), `"crv":"Ed25519","kty":"OKP","x":"` + encode(pub) + `"`, nil
	case *rsa.PublicKey:
		if err := checkRSA(pub); err != nil {
			return nil, "", err
		}
		same := &rsa.PublicKey{N: new(big.Int).Set(pub.N), E: pub.E}
		e := big.NewInt(int64(pub.E)).Bytes()
		return same, `"e":"` + encode(e) + `","kty":"RSA","n":"` + encode(pub.N.Bytes()) + `"`, nil
	}
	return nil, "", fmt.Errorf("%w: the type of key is not supported", ErrKey)
}

func checkRSA(pub *rsa.PublicKey) error {
	switch {
	case pub == nil || pub.N == nil || pub.N.Sign() <= 0:
		return fmt.Errorf("%w: no modulus", ErrKey)
	case pub.N.BitLen() < MinRSABits || pub.N.BitLen() > MaxRSABits:
		return fmt.Errorf("%w: an RSA modulus has %d to %d bits", ErrKey, MinRSABits, MaxRSABits)
	case pub.N.Bit(0) == 0:
		return fmt.Errorf("%w: the RSA modulus is even", ErrKey)
	case pub.E < 3 || pub.E&1 == 0 || int64(pub.E) > 1<<31-1:
		return fmt.Errorf("%w: the RSA exponent must be odd, 3 to 2^31-1", ErrKey)
	}
	return nil
}

// weakEd25519 reports a point of small order, for which a signature exists
// that verifies over every message.
func weakEd25519(pub ed25519.PublicKey) bool {
	y := slices.Clone(pub)
	y[31] &= 0x7f
	return slices.ContainsFunc(smallOrderY, func(weak []byte) bool { return bytes.Equal(y, weak) })
}

func fits(alg credential.Algorithm, pub crypto.PublicKey) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return alg == credential.ES256 && pub.Curve == elliptic.P256() ||
			alg == credential.ES384 && pub.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return alg == credential.EdDSA
	case *rsa.PublicKey:
		return alg == credential.RS256 || alg == credential.PS256
	}
	return false
}
