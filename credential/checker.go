package credential

import (
	"crypto"
	"strings"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
)

// Checker verifies signatures with one key that is bound to one algorithm. It
// is safe for concurrent use.
//
// The signature itself is go-jose's work. Reading a header costs go-jose about
// as much as everything else here but the curve, and the tokens of one key all
// have the same header, byte for byte; so the last one that came with a good
// signature is kept in its parsed form.
type Checker struct {
	alg  Algorithm
	key  crypto.PublicKey
	last atomic.Pointer[parsedHeader]
}

// parsedHeader is a protected header as go-jose holds it, beside the segment
// that it was read from. It is never changed.
type parsedHeader struct {
	segment string
	form    jose.Signature
}

// NewChecker returns a Checker for a key that is bound to alg. The key is one
// of those that jwks.NewKey accepts; any other verifies nothing.
func NewChecker(alg Algorithm, key crypto.PublicKey) *Checker {
	return &Checker{alg: alg, key: key}
}

// Verify checks the signature of j and returns the payload, the very bytes
// that the signature covers.
//
// Errors: ErrAlgorithm when the header's algorithm is not the key's, ErrHeader
// for a header that go-jose can't read, ErrSignature.
func (c *Checker) Verify(j *UnverifiedJWS) ([]byte, error) {
	if c.alg == "" || j.alg != c.alg {
		return nil, ErrAlgorithm
	}
	header, known := c.last.Load(), true
	if header == nil || header.segment != j.protected {
		var err error
		if header, err = parseProtected(j.protected, c.alg); err != nil {
			return nil, ErrHeader
		}
		known = false
	}
	signed := jose.JSONWebSignature{Signatures: []jose.Signature{header.form}}
	signed.Signatures[0].Signature = j.signature
	// go-jose encodes the payload again; ParseJWS has made sure that the
	// encoding has one spelling only, so these are the bytes that were sent.
	if err := signed.DetachedVerify(j.payload, c.key); err != nil {
		if known {
			// To fail takes as long with every key, so that it doesn't tell a
			// key in use from one that stands in for a key that isn't there.
			_, _ = parseProtected(j.protected, c.alg)
		}
		return nil, ErrSignature
	}
	if !known {
		c.last.Store(header)
	}
	return j.payload, nil
}

// parseProtected has go-jose read the header of a token whose payload and
// signature come later.
func parseProtected(segment string, alg Algorithm) (*parsedHeader, error) {
	allowed := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)}
	detached, err := jose.ParseDetached(segment+"..", []byte{}, allowed)
	if err != nil {
		return nil, err
	}
	return &parsedHeader{segment: strings.Clone(segment), form: detached.Signatures[0]}, nil
}
