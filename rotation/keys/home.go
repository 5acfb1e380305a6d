package keys

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// Errors of homes and key-encryption keys, wrapped or bare.
var (
	// ErrKEK: sealed under another key-encryption key than the one at hand.
	ErrKEK = errors.New("keys: sealed under another key-encryption key")
	// ErrSealed: the sealed bytes were altered, or belong to another key.
	ErrSealed = errors.New("keys: sealed bytes are altered or not this key's")
	// ErrMismatch: a private key is not the one of its public part.
	ErrMismatch = errors.New("keys: the private key doesn't match its public part")
	// ErrHome: the key lives in another home.
	ErrHome = errors.New("keys: the key lives in another home")
)

// Home is where private keys live. Implementations are safe for concurrent use.
type Home interface {
	// Generate makes a key pair. The key's id is its RFC 7638 thumbprint.
	Generate(ctx context.Context, alg credential.Algorithm) (Stored, error)
	// Open returns the key to sign with, or an error that wraps ErrHome if
	// the key is not at home here.
	Open(ctx context.Context, key Stored) (SigningKey, error)
}

// SigningKey signs. The private key may be elsewhere, so signing can fail.
type SigningKey interface {
	// Sign returns the signature over a JWS signing input, in the form that
	// RFC 7518 and RFC 8037 give it. It is safe for concurrent use.
	Sign(ctx context.Context, input []byte) ([]byte, error)
}

// Stored is what the store keeps of a key pair.
type Stored struct {
	Home   string   // name of the home
	Public jwks.Key // with id and algorithm
	Blob   []byte   // what the home needs to find or open the private part
}

// KEK is a key-encryption key. Implementations are safe for concurrent use.
type KEK interface {
	// Seal encrypts plaintext and binds it to aad.
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Open decrypts. Errors wrap ErrKEK for another KEK's bytes and ErrSealed
	// for altered bytes or another aad.
	Open(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// KEKs is a KEK that seals with primary and opens what any of them sealed: for
// a change of the key-encryption key that was cut off, see Rewrap.
func KEKs(primary KEK, former ...KEK) KEK { return kekChain{primary, former} }

type kekChain struct {
	primary KEK
	former  []KEK
}

func (c kekChain) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return c.primary.Seal(ctx, plaintext, aad)
}

func (c kekChain) Open(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	plain, err := c.primary.Open(ctx, sealed, aad)
	for _, kek := range c.former {
		if !errors.Is(err, ErrKEK) {
			break
		}
		plain, err = kek.Open(ctx, sealed, aad)
	}
	return plain, err
}

// openChecked opens a key, and makes it prove that its signatures verify with
// the published key.
func openChecked(ctx context.Context, home Home, stored Stored) (*Signer, error) {
	key, err := home.Open(ctx, stored)
	if err != nil {
		return nil, err
	}
	signer := newSigner(stored.Public, key)
	return signer, signer.prove(ctx)
}
