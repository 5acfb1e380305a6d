package keys

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// Signer signs with one key. It is safe for concurrent use.
type Signer struct {
	_      [0]func()
	public jwks.Key
	key    SigningKey
	head   string // the header up to the value of typ
	// signature is how long a signature is, encoded; room for it is made
	// beforehand.
	signature int
	ref       store.Ref
}

func newSigner(public jwks.Key, key SigningKey) *Signer {
	head := `{"alg":"` + string(public.Algorithm()) + `","kid":"` + public.ID() + `","typ":"`
	length := 64 // ES256 and EdDSA
	if rsa, ok := public.Public().(*rsa.PublicKey); ok {
		length = rsa.Size()
	}
	return &Signer{public: public, key: key, head: head, signature: base64.RawURLEncoding.EncodedLen(length)}
}

// KeyID returns the key's `kid`: its RFC 7638 thumbprint.
func (s *Signer) KeyID() string { return s.public.ID() }

// Algorithm returns the one algorithm that the key serves.
func (s *Signer) Algorithm() credential.Algorithm { return s.public.Algorithm() }

// Public returns the public key.
func (s *Signer) Public() jwks.Key { return s.public }

// Ref names the row that exists for as long as the key has the right to sign.
// Check it in the commit that approves a token: it fails when the key was
// retired or revoked since, and not for any other change of the ring. After
// that, Refresh the manager and decide again.
func (s *Signer) Ref() store.Ref { return s.ref }

// Sign returns payload as a compact JWS (RFC 7515) with the header members
// alg, kid and typ. typ is a media type without quotes or spaces, at most 64
// bytes. Errors are those of the key's home, and of ctx where that is remote.
func (s *Signer) Sign(ctx context.Context, payload []byte, typ string) (string, error) {
	if !plainType(typ) {
		return "", errors.New("keys: sign: typ is not a media type")
	}
	// Three segments need no library: the general one marshals the header
	// three times, which costs half a signature.
	header := append(append(append(make([]byte, 0, 160), s.head...), typ...), '"', '}')
	segment := base64.RawURLEncoding
	size := segment.EncodedLen(len(header)) + segment.EncodedLen(len(payload)) + 2
	raw := make([]byte, 0, size+s.signature)
	raw = append(segment.AppendEncode(raw, header), '.')
	raw = segment.AppendEncode(raw, payload)
	signature, err := s.key.Sign(ctx, raw)
	if err != nil {
		return "", fmt.Errorf("keys: sign with %s: %w", s.KeyID(), err)
	}
	return string(segment.AppendEncode(append(raw, '.'), signature)), nil
}

// plainType reports whether typ can stand in JSON as it is.
func plainType(typ string) bool {
	for i := range len(typ) {
		if c := typ[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return typ != "" && len(typ) <= 64
}

// prove signs a probe and verifies it with the published key.
func (s *Signer) prove(ctx context.Context) error {
	raw, err := s.Sign(ctx, []byte("{}"), "key-probe")
	if err != nil {
		return err
	}
	probe, err := credential.ParseJWS(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if _, err := probe.Verify(s.public.Algorithm(), s.public.Public()); err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	return nil
}

// String names the key without showing it.
func (s *Signer) String() string { return "signing key " + s.KeyID() }

// Format writes String whatever the verb.
func (s *Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue shows slog the key id.
func (s *Signer) LogValue() slog.Value { return slog.StringValue(s.KeyID()) }

// ready returns nil, or why the key's home can't sign now.
func (s *Signer) ready() error {
	if remote, ok := s.key.(Remote); ok {
		return remote.Ready()
	}
	return nil
}

// doubtful reports whether the key's home has refused it.
func (s *Signer) doubtful() bool {
	remote, ok := s.key.(Remote)
	return ok && remote.Doubtful()
}

// at returns the signer with the row that gives it the right to sign.
func (s *Signer) at(ref store.Ref) *Signer {
	bound := *s
	bound.ref = ref
	return &bound
}
