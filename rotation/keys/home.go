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
	// ErrLost: the home has this key no more, has another one in its place, or
	// was told not to sign with it any more.
	ErrLost = errors.New("keys: the home has lost the key")
	// ErrTransitKey: a Transit key of Vault is not one to sign with.
	ErrTransitKey = errors.New("keys: unusable Transit key")
)

// Home is where private keys live. Implementations are safe for concurrent use.
type Home interface {
	// Name is what the home is called in rows and in the configuration.
	Name() string
	// Generate makes a key pair. The key's id is its RFC 7638 thumbprint. A home
	// that numbers its keys may return one that was made before, unless it is
	// spent; and it makes none before its number is on record as asked for: until
	// then the error is a *RecordFirst.
	Generate(ctx context.Context, alg credential.Algorithm, spent Spent) (Stored, error)
	// Open returns the key to sign with, or an error that wraps ErrHome if
	// the key is not at home here.
	Open(ctx context.Context, key Stored) (SigningKey, error)
}

// Spent are the keys of a series that can't be new.
type Spent struct {
	Mark int             // every number up to this
	IDs  map[string]bool // and every key of the ring
	// Asked is the highest number that the ring has asked for. One above Mark
	// and up to this is new: the ring asked for it, and a crash kept it from
	// being published. One above both is somebody else's.
	Asked int
}

// Series is a Home that numbers the keys that it makes, so that one which was
// made before a crash and never published can be told from all others.
type Series interface {
	Home
	// Series names the numbers from which Generate takes keys of alg.
	Series(alg credential.Algorithm) string
	// Newest returns the highest number that exists there, 0 if none does.
	Newest(ctx context.Context, alg credential.Algorithm) (int, error)
	// Find returns a published key whose row was lost, or ErrLost.
	Find(ctx context.Context, public jwks.Key) (Stored, error)
	// Limit has the home refuse to sign with numbers up to mark whose keys are
	// not in signing, as far as it can, and verify with none that is not
	// in published. It never takes anything back. It does nothing while numbers up
	// to foreign, which somebody else made, may sign.
	Limit(ctx context.Context, series string, mark, foreign int, signing, published map[string]bool) error
}

// Remote is a SigningKey whose private key is elsewhere.
type Remote interface {
	SigningKey
	// Ready returns nil, or why Sign would fail now. It does no I/O.
	Ready() error
	// Doubtful reports that the key was refused and should be opened anew.
	Doubtful() bool
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
	// Series and Number say which key of a Series was made; zero for others.
	Series string
	Number int
	// Foreign is the highest number that somebody else made while this one was
	// made; 0: none was.
	Foreign int
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

// Newest and Age make a chain with an aging primary one too.
func (c kekChain) Newest(ctx context.Context) (int, error) {
	if aging, ok := c.primary.(Aging); ok {
		return aging.Newest(ctx)
	}
	return 0, nil
}

// Age implements Aging.
func (c kekChain) Age(sealed []byte) (int, error) {
	if aging, ok := c.primary.(Aging); ok {
		return aging.Age(sealed)
	}
	return 0, nil
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
