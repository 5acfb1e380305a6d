package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// SealedHome is the name of the home that Sealed returns.
const SealedHome = "sealed"

const (
	sealedName    = SealedHome
	sealedPurpose = "tenantbroker signing key 1"
	auditPurpose  = "tenantbroker audit key 1"
	// rsaBits is what RFC 7518 asks for at least. A key that signs for weeks
	// needs no more, and every token and verification would pay for it.
	rsaBits = 2048
)

// Sealed is the home in which the broker itself signs: private keys are in
// memory while in use, and stored sealed under kek, bound to their purpose,
// algorithm and id.
func Sealed(kek KEK) Home { return &sealedHome{kek: kek, purpose: sealedPurpose} }

type sealedHome struct {
	kek     KEK
	purpose string
}

// Name implements Home.
func (h *sealedHome) Name() string { return sealedName }

// Generate implements Home.
func (h *sealedHome) Generate(ctx context.Context, alg credential.Algorithm, _ Spent) (Stored, error) {
	private, err := generate(alg)
	if err != nil {
		return Stored{}, err
	}
	public, err := identified(alg, private.Public())
	if err != nil {
		return Stored{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Stored{}, fmt.Errorf("keys: encode a new key: %w", err)
	}
	defer clear(der)
	blob, err := h.kek.Seal(ctx, der, aad(h.purpose, alg, public.ID()))
	if err != nil {
		return Stored{}, fmt.Errorf("keys: seal a new key: %w", err)
	}
	return Stored{Home: sealedName, Public: public, Blob: blob}, nil
}

// Open implements Home.
func (h *sealedHome) Open(ctx context.Context, key Stored) (SigningKey, error) {
	if key.Home != sealedName {
		return nil, fmt.Errorf("%w: %q", ErrHome, key.Home)
	}
	private, err := h.private(ctx, key)
	if err != nil {
		return nil, err
	}
	return newLocalKey(private)
}

// private opens the key and holds it against its public part.
func (h *sealedHome) private(ctx context.Context, key Stored) (crypto.Signer, error) {
	der, err := h.kek.Open(ctx, key.Blob, aad(h.purpose, key.Public.Algorithm(), key.Public.ID()))
	if err != nil {
		return nil, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: a sealed key", ErrCorrupt) // the cause could quote the key
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a sealed key", ErrCorrupt)
	}
	public, err := jwks.NewKey(key.Public.ID(), key.Public.Algorithm(), private.Public())
	if err != nil || !public.Equal(key.Public) {
		return nil, ErrMismatch
	}
	return private, nil
}

// localKey holds the private key in a closure, where no formatting verb,
// encoder or reflection finds it.
type localKey struct {
	_    [0]func()
	sign func(input []byte) ([]byte, error)
}

// Sign implements SigningKey.
func (k *localKey) Sign(_ context.Context, input []byte) ([]byte, error) { return k.sign(input) }

func newLocalKey(private crypto.Signer) (*localKey, error) {
	switch private := private.(type) {
	case *ecdsa.PrivateKey:
		size := (private.Curve.Params().BitSize + 7) / 8
		return &localKey{sign: func(input []byte) ([]byte, error) {
			digest := sha256.Sum256(input)
			r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
			if err != nil {
				return nil, errSigning
			}
			raw := make([]byte, 2*size)
			r.FillBytes(raw[:size])
			s.FillBytes(raw[size:])
			return raw, nil
		}}, nil
	case ed25519.PrivateKey:
		return &localKey{sign: func(input []byte) ([]byte, error) {
			return ed25519.Sign(private, input), nil
		}}, nil
	case *rsa.PrivateKey:
		return &localKey{sign: func(input []byte) ([]byte, error) {
			digest := sha256.Sum256(input)
			signature, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, digest[:])
			if err != nil {
				return nil, errSigning
			}
			return signature, nil
		}}, nil
	}
	return nil, ErrMismatch
}

var errSigning = errors.New("keys: signing failed")

func generate(alg credential.Algorithm) (crypto.Signer, error) {
	switch alg {
	case credential.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case credential.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case credential.RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return nil, fmt.Errorf("%w: no keys are made for algorithm %q", ErrPolicy, string(alg))
}

// identified returns the public key under its own thumbprint as key id.
func identified(alg credential.Algorithm, public crypto.PublicKey) (jwks.Key, error) {
	key, err := jwks.NewKey("", alg, public)
	if err != nil {
		return jwks.Key{}, err
	}
	return jwks.NewKey(key.Thumbprint(), alg, public)
}

// aad binds sealed bytes to what they are for. The id is the thumbprint of
// the public key, so that neither half of a pair can be exchanged.
func aad(purpose string, alg credential.Algorithm, kid string) []byte {
	return []byte(purpose + "\x00" + string(alg) + "\x00" + kid)
}
