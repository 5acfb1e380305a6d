package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
)

// clock is a wall clock that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// pair is a key pair for one algorithm.
type pair struct {
	kid  string
	alg  credential.Algorithm
	priv crypto.Signer
	pub  jwks.Key
}

// RSA keys are slow to make: one per algorithm serves all tests.
var (
	rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	pssKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
)

func newPair(tb testing.TB, kid string, alg credential.Algorithm) *pair {
	tb.Helper()
	var priv crypto.Signer
	var err error
	switch alg {
	case credential.ES256:
		priv, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case credential.ES384:
		priv, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case credential.EdDSA:
		_, priv, err = ed25519.GenerateKey(rand.Reader)
	case credential.PS256:
		priv, err = pssKey()
	default:
		priv, err = rsaKey()
	}
	if err != nil {
		tb.Fatal(err)
	}
	pub, err := jwks.NewKey(kid, alg, priv.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return &pair{kid, alg, priv, pub}
}

// sign makes a JWS with exactly this payload; header adds to alg and kid, a nil
// value removes.
func (p *pair) sign(tb testing.TB, payload string, header map[string]any) string {
	tb.Helper()
	opts := &jose.SignerOptions{}
	if _, absent := header["kid"]; !absent && p.kid != "" {
		opts.WithHeader("kid", p.kid)
	}
	for name, v := range header {
		if v != nil {
			opts.WithHeader(jose.HeaderKey(name), v)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(p.alg), Key: p.priv}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// ring is the broker's signing key for tests; its row lives in the store.
type ring struct {
	*pair
	st       store.Store
	mu       sync.Mutex
	ref      store.Ref
	broken   error // Sign fails with it
	missing  error // Active fails with it
	unread   error // Key fails with it
	onSign   func()
	onActive func()
	signed   int
}

func newRing(tb testing.TB, st store.Store) *ring {
	r := &ring{pair: newPair(tb, "ring-1", credential.ES256), st: st}
	r.touch(tb)
	return r
}

// touch writes the row anew, as a rotation does.
func (r *ring) touch(tb testing.TB) {
	tb.Helper()
	if err := r.st.Update(tb.Context(), func(tx store.Tx) error {
		row, _ := tx.Get("test_ring", "active")
		_, err := tx.Put("test_ring", "active", []byte("x"), row.Version)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	if r.ref.Version == 0 {
		if err := r.Refresh(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
}

func (r *ring) Refresh(ctx context.Context) error {
	return r.st.View(ctx, func(rd store.Reader) error {
		row, err := rd.Get("test_ring", "active")
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ref = store.Ref{Table: "test_ring", Key: "active", Version: row.Version}
		return nil
	})
}

func (r *ring) Active() (mint.Signer, error) {
	if r.onActive != nil {
		r.onActive()
	}
	if r.missing != nil {
		return nil, r.missing
	}
	return r, nil
}

func (r *ring) KeyID() string { return r.kid }

func (r *ring) Ref() store.Ref {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ref
}

func (r *ring) Key(_ context.Context, kid string) (jwks.Key, error) {
	if r.unread != nil {
		return jwks.Key{}, r.unread
	}
	if kid != r.kid {
		return jwks.Key{}, jwks.ErrUnknownKey
	}
	return r.pub, nil
}

func (r *ring) Sign(_ context.Context, payload []byte, typ string) (string, error) {
	if r.onSign != nil {
		r.onSign()
	}
	if r.broken != nil {
		return "", r.broken
	}
	r.mu.Lock()
	r.signed++
	r.mu.Unlock()
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", r.kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: r.priv}, opts)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
