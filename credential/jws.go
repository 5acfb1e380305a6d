package credential

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"strings"
)

// Size limits of a compact JWS, in bytes.
const (
	MaxTokenLength  = 16 << 10 // the whole token
	MaxHeaderLength = 4 << 10  // the header segment, encoded
	MaxKeyIDLength  = 256      // `kid`
)

// Algorithm is a JWS signature algorithm (RFC 7518, RFC 8037) that the project
// knows. "none" and the HMAC family are not among them and can't be made.
type Algorithm string

// The algorithms; a key is bound to exactly one.
const (
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	EdDSA Algorithm = "EdDSA"
	RS256 Algorithm = "RS256"
	PS256 Algorithm = "PS256"
)

// ParseAlgorithm returns the algorithm of this name, or ErrAlgorithm.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch a := Algorithm(s); a {
	case ES256, ES384, EdDSA, RS256, PS256:
		return a, nil
	}
	return "", ErrAlgorithm
}

// UnverifiedJWS is a compact JWS whose form and header were checked and whose
// signature was not. Nothing that it says may be believed yet.
type UnverifiedJWS struct {
	protected string // the header segment as it stood
	alg       Algorithm
	kid       string
	typ       string
	payload   []byte
	signature []byte
}

// ParseJWS reads a compact JWS: three segments of canonical unpadded base64url,
// a strict JSON header with a known `alg`. It refuses JWE, every `crit`, and
// the members by which a header brings or points to its own key (`jku`, `jwk`,
// `x5u`, `x5c`), as well as `b64`, `zip` and `enc`. A `nonce` (RFC 8555) must
// be a string. Other members mean nothing (RFC 7515 section 4).
//
// Errors: ErrMalformed, ErrEncrypted, ErrHeader, ErrAlgorithm.
func ParseJWS(raw string) (*UnverifiedJWS, error) {
	if len(raw) > MaxTokenLength {
		return nil, fmt.Errorf("%w: over %d bytes", ErrMalformed, MaxTokenLength)
	}
	switch strings.Count(raw, ".") {
	case 2:
	case 4:
		return nil, ErrEncrypted
	default:
		return nil, fmt.Errorf("%w: not three segments", ErrMalformed)
	}
	header64, rest, _ := strings.Cut(raw, ".")
	payload64, signature64, _ := strings.Cut(rest, ".")
	if len(header64) > MaxHeaderLength {
		return nil, fmt.Errorf("%w: header over %d bytes", ErrMalformed, MaxHeaderLength)
	}
	header, err := decodeSegment(header64)
	if err != nil {
		return nil, err
	}
	j := &UnverifiedJWS{protected: header64}
	if err := j.readHeader(header); err != nil {
		return nil, err
	}
	if j.payload, err = decodeSegment(payload64); err != nil {
		return nil, err
	}
	if len(signature64) == 0 {
		return nil, fmt.Errorf("%w: no signature", ErrMalformed)
	}
	if j.signature, err = decodeSegment(signature64); err != nil {
		return nil, err
	}
	return j, nil
}

// Algorithm returns the header's `alg`.
func (j *UnverifiedJWS) Algorithm() Algorithm { return j.alg }

// KeyID returns the header's `kid`, "" if there is none.
func (j *UnverifiedJWS) KeyID() string { return j.kid }

// Type returns the header's `typ`, "" if there is none.
func (j *UnverifiedJWS) Type() string { return j.typ }

// UnverifiedPayload returns the payload before anyone has checked the
// signature: for finding out whose key to check with, and nothing else.
func (j *UnverifiedJWS) UnverifiedPayload() []byte { return j.payload }

// Verify checks the signature with a key that is bound to alg and returns the
// payload. The header's algorithm must be alg: a key never serves another one.
// Who checks many tokens with one key uses a Checker.
//
// Errors: ErrAlgorithm, ErrHeader, ErrSignature.
func (j *UnverifiedJWS) Verify(alg Algorithm, key crypto.PublicKey) ([]byte, error) {
	return NewChecker(alg, key).Verify(j)
}

func (j *UnverifiedJWS) readHeader(header []byte) error {
	s := newScanner(header, tokenLimits)
	defer s.release()
	members, err := s.document()
	if err != nil {
		return err
	}
	for _, m := range members {
		switch string(m.Name) {
		case "alg":
			name, err := m.JSONText()
			if err != nil {
				return fmt.Errorf("%w: alg is not a string", ErrHeader)
			}
			if j.alg, err = ParseAlgorithm(name); err != nil {
				return err
			}
		case "kid":
			if j.kid, err = m.JSONText(); err != nil || j.kid == "" || len(j.kid) > MaxKeyIDLength {
				return fmt.Errorf("%w: kid is not a string of 1 to %d bytes", ErrHeader, MaxKeyIDLength)
			}
		case "typ":
			if j.typ, err = m.JSONText(); err != nil {
				return fmt.Errorf("%w: typ is not a string", ErrHeader)
			}
		case "nonce": // go-jose refuses others, so that every reader has to
			if m.Kind != JSONString {
				return fmt.Errorf("%w: nonce is not a string", ErrHeader)
			}
		case "enc", "zip":
			return ErrEncrypted
		case "jku", "jwk", "x5u", "x5c", "crit", "b64":
			return fmt.Errorf("%w: %s is refused", ErrHeader, m.Name)
		}
	}
	if j.alg == "" {
		return fmt.Errorf("%w: no alg", ErrHeader)
	}
	return nil
}

var (
	errSegment = fmt.Errorf("%w: a segment is not canonical base64url", ErrMalformed)
	segment64  = base64.RawURLEncoding.Strict()
)

// decodeSegment refuses the line breaks that encoding/base64 skips, padding,
// and set trailing bits: each would be a second spelling of the same token.
func decodeSegment(s string) ([]byte, error) {
	if strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, errSegment
	}
	b, err := segment64.DecodeString(s)
	if err != nil {
		return nil, errSegment
	}
	return b, nil
}
