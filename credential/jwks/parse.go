package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/credential"
)

// MaxKeyLength is the longest JWK that ParseKey reads, in bytes: an 8192-bit
// RSA key with a chain of certificates beside it.
const MaxKeyLength = 32 << 10

var keyLimits = credential.JSONLimits{Depth: 4, Members: 64, Values: 256}

// ParseKey reads one public JWK (RFC 7517, RFC 7518, RFC 8037). Without `alg`
// the algorithm follows from the type of key: P-256 ES256, P-384 ES384,
// Ed25519 EdDSA, RSA RS256. Members that it has no use for are ignored;
// duplicate members are not.
//
// It refuses a key with any private or symmetric part, one whose `use` is not
// "sig" or whose `key_ops` leave out "verify", an RSA modulus outside
// MinRSABits to MaxRSABits, a point off its curve, and every type of key and
// algorithm outside the five of package credential. Every error wraps ErrKey
// and shows nothing of the key.
func ParseKey(jwk []byte) (Key, error) {
	if len(jwk) > MaxKeyLength {
		return Key{}, fmt.Errorf("%w: over %d bytes", ErrKey, MaxKeyLength)
	}
	members, err := credential.ParseObjectWithin(jwk, keyLimits)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	var f fields
	for _, m := range members {
		if err := f.set(m); err != nil {
			return Key{}, err
		}
	}
	pub, derived, err := f.public()
	if err != nil {
		return Key{}, err
	}
	alg := derived
	if f.alg != "" {
		if alg, err = credential.ParseAlgorithm(f.alg); err != nil {
			return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	k, err := NewKey(f.kid, alg, pub)
	if err != nil {
		return Key{}, err
	}
	k.declared = f.alg != ""
	return k, nil
}

// fields are the members of a JWK that matter here.
type fields struct {
	kty, kid, alg, crv string
	x, y, n, e         []byte
}

func (f *fields) set(m credential.JSONMember) (err error) {
	switch string(m.Name) {
	case "kty":
		f.kty, err = text(m)
	case "kid":
		f.kid, err = text(m)
	case "alg":
		f.alg, err = text(m)
	case "crv":
		f.crv, err = text(m)
	case "x":
		f.x, err = octets(m)
	case "y":
		f.y, err = octets(m)
	case "n":
		f.n, err = octets(m)
	case "e":
		f.e, err = octets(m)
	case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
		return fmt.Errorf("%w: it is private or symmetric", ErrKey)
	case "use":
		if use, err := text(m); err != nil || use != "sig" {
			return fmt.Errorf("%w: its use is not sig", ErrKey)
		}
	case "key_ops":
		return checkOperations(m)
	}
	return err
}

// public builds the key from its members and says which algorithm its type
// stands for.
func (f *fields) public() (crypto.PublicKey, credential.Algorithm, error) {
	switch {
	case f.kty == "EC" && f.crv == "P-256":
		pub, err := point(elliptic.P256(), f.x, f.y)
		return pub, credential.ES256, err
	case f.kty == "EC" && f.crv == "P-384":
		pub, err := point(elliptic.P384(), f.x, f.y)
		return pub, credential.ES384, err
	case f.kty == "OKP" && f.crv == "Ed25519":
		return ed25519.PublicKey(f.x), credential.EdDSA, nil
	case f.kty == "RSA":
		e := new(big.Int).SetBytes(f.e)
		if !e.IsInt64() || e.Int64() > 1<<31-1 {
			return nil, "", fmt.Errorf("%w: the RSA exponent must be odd, 3 to 2^31-1", ErrKey)
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(f.n), E: int(e.Int64())}, credential.RS256, nil
	}
	return nil, "", fmt.Errorf("%w: the type of key or its curve is not supported", ErrKey)
}

func point(curve elliptic.Curve, x, y []byte) (crypto.PublicKey, error) {
	// The full width of the field, leading zeros included (RFC 7518 section 6.2.1.2).
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return nil, fmt.Errorf("%w: a coordinate has not %d bytes", ErrKey, size)
	}
	encoded := append(append([]byte{4}, x...), y...)
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: not a point of the curve", ErrKey)
	}
	return pub, nil
}

func text(m credential.JSONMember) (string, error) {
	s, err := m.JSONText()
	if err != nil || s == "" {
		return "", fmt.Errorf("%w: %s is not a string with something in it", ErrKey, m.Name)
	}
	return s, nil
}

func octets(m credential.JSONMember) ([]byte, error) {
	s, err := text(m)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: %s is not base64url", ErrKey, m.Name)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not base64url", ErrKey, m.Name)
	}
	return b, nil
}

func checkOperations(m credential.JSONMember) error {
	operations, err := m.Elements()
	if err != nil {
		return fmt.Errorf("%w: key_ops is not an array", ErrKey)
	}
	for _, o := range operations {
		if name, err := o.JSONText(); err == nil && name == "verify" {
			return nil
		}
	}
	return fmt.Errorf("%w: its key_ops leave out verify", ErrKey)
}

// document writes the canonical JWK from the members of the thumbprint.
func document(kid string, alg credential.Algorithm, members string) string {
	doc := "{" + members + `,"alg":"` + string(alg) + `"`
	if kid != "" {
		quoted, _ := json.Marshal(kid) // a string always marshals
		doc += `,"kid":` + string(quoted)
	}
	return doc + `,"use":"sig"}`
}

func checkKeyID(kid string) error {
	if len(kid) > credential.MaxKeyIDLength || !utf8.ValidString(kid) {
		return fmt.Errorf("%w: the kid is UTF-8 of at most %d bytes", ErrKey, credential.MaxKeyIDLength)
	}
	return nil
}
