package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// HeadType is the `typ` of a signed head.
const HeadType = "audit-head+jwt"

// ErrHead means that it is not a head that the audit key has signed.
var ErrHead = errors.New("audit: not a signed head")

// Head states what a chain held at one time: its records First to Seq, of
// which the last has this hash. First is above 1 once retention has removed
// records. Whoever holds a signed head can tell if anything of this changes.
type Head struct {
	Chain
	First uint64
	Seq   uint64
	Hash  [32]byte
	Time  time.Time // UTC, milliseconds

	Issuer string // the broker whose chain it is
}

// maxIssuer bounds Head.Issuer, in bytes; an issuer is an audience at most.
const maxIssuer = credential.MaxAudienceLength

// Signer signs heads with the broker's long-lived audit key, Ed25519. It never
// shows the private half.
type Signer struct {
	key ed25519.PrivateKey
	kid string
}

// NewSigner returns a signer with this key.
func NewSigner(key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("audit: not an Ed25519 private key")
	}
	s := &Signer{key: key}
	s.kid = KeyID(s.Public())
	return s, nil
}

// Public returns the public half.
func (s *Signer) Public() ed25519.PublicKey {
	return ed25519.PublicKey(s.key[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
}

// KeyID returns the `kid`: the key's RFC 7638 thumbprint.
func (s *Signer) KeyID() string { return s.kid }

// Format writes the key id, whatever the verb.
func (s *Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "audit key "+s.kid) }

// LogValue shows slog the key id.
func (s *Signer) LogValue() slog.Value { return slog.StringValue("audit key " + s.kid) }

// SignHead returns the head as a compact JWS (RFC 7515, RFC 8037).
func (s *Signer) SignHead(h Head) string {
	b := make([]byte, 0, 640)
	b = appendSegment(b, []byte(`{"alg":"EdDSA","kid":"`+s.kid+`","typ":"`+HeadType+`"}`))
	b = append(b, '.')
	b = appendSegment(b, h.append(nil))
	signature := ed25519.Sign(s.key, b)
	b = append(b, '.')
	return string(appendSegment(b, signature))
}

func (h *Head) append(b []byte) []byte {
	b = append(b, `{"chain":"`...)
	b = append(b, h.String()...)
	b = append(b, `","first":`...)
	b = strconv.AppendUint(b, h.First, 10)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, h.Seq, 10)
	b = append(b, `,"hash":"`...)
	b = hex.AppendEncode(b, h.Hash[:])
	b = append(b, `","time":"`...)
	b = appendTime(b, h.Time)
	b = append(b, `","iss":"`...)
	b = appendEscaped(b, h.Issuer, maxIssuer)
	return append(b, `"}`...)
}

// VerifyHead reads a signed head that key has signed. Any other is ErrHead.
func VerifyHead(key ed25519.PublicKey, jws string) (Head, error) {
	h, err := verifyHead(key, jws)
	if err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrHead, err)
	}
	return h, nil
}

func verifyHead(key ed25519.PublicKey, jws string) (h Head, err error) {
	if len(key) != ed25519.PublicKeySize {
		return h, errors.New("no key to check with")
	}
	unverified, err := credential.ParseJWS(jws)
	if err != nil {
		return h, err
	}
	if unverified.Type() != HeadType {
		return h, fmt.Errorf("typ is not %s", HeadType)
	}
	if kid := KeyID(key); unverified.KeyID() != kid {
		return h, fmt.Errorf("signed by key %q, expected %q", unverified.KeyID(), kid)
	}
	payload, err := unverified.Verify(credential.EdDSA, key)
	if err != nil {
		return h, err
	}
	members, err := credential.ParseObject(payload)
	if err != nil {
		return h, err
	}
	for _, m := range members {
		if err := h.set(m); err != nil {
			return h, fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	if h.Writer == "" || h.First == 0 || h.Seq < h.First || h.Time.IsZero() {
		return h, errors.New("a member is missing")
	}
	return h, nil
}

func (h *Head) set(m credential.JSONMember) (err error) {
	switch string(m.Name) {
	case "chain":
		var name string
		if name, err = m.JSONText(); err == nil {
			h.Chain, err = ParseChain(name)
		}
	case "first":
		h.First, err = number(m)
	case "seq":
		h.Seq, err = number(m)
	case "hash":
		var text string
		if text, err = m.JSONText(); err != nil {
			return err
		}
		var hash []byte
		if hash, err = hex.DecodeString(text); err == nil && len(hash) != len(h.Hash) {
			err = errors.New("not a SHA-256")
		}
		copy(h.Hash[:], hash)
	case "time":
		h.Time, err = instant(m)
	case "iss":
		h.Issuer, err = m.JSONText()
	}
	return err
}

func appendSegment(b, data []byte) []byte { return base64.RawURLEncoding.AppendEncode(b, data) }

// KeyID returns the RFC 7638 thumbprint of an audit key, SHA-256 in base64url.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
