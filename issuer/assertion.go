package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// checkAssertion verifies a client assertion made with the account's own key
// (private_key_jwt, RFC 7523). An unknown account, an unknown key and a bad
// signature give one answer after equally many verifications.
func (i *Issuer) checkAssertion(ctx context.Context, p *proof, jws *credential.UnverifiedJWS, claims jwtClaims) (*identity, *Error) {
	const method = "private_key_jwt"
	switch strings.TrimPrefix(strings.ToLower(jws.Type()), "application/") {
	case "", "jwt", "client-authentication+jwt":
	default:
		return nil, p.fails("refused_type", nil)
	}
	now := i.now()
	var account *registry.Account
	var ref store.Ref
	var epoch time.Time
	var candidates []*registry.Credential
	if id, err := credential.ParseAccountID(claims.subject); err == nil {
		err := i.store.View(ctx, func(r store.Reader) (err error) {
			if epoch, err = revocation.Epoch(r, revocation.Everything()); err != nil {
				return err
			}
			account, ref, err = i.registry.AccountAt(r, id)
			return err
		})
		switch {
		case err == nil:
			candidates = assertionKeys(account, jws, now)
		case !errors.Is(err, store.ErrNotFound):
			return nil, unavailable(err)
		}
	}
	cred, err := i.signedBy(account, candidates, jws)
	if err != nil {
		return nil, p.fails("unknown_account_key_or_signature", err)
	}
	if err := i.holdAssertion(&claims, now); err != nil {
		return nil, p.fails(err.Error(), nil)
	}
	if !i.madeAfter(epoch, &claims) {
		return nil, p.fails("made_before_restore", nil)
	}
	use := &mint.Use{Key: useKey(account.ID, claims.id), Until: claims.expires.Add(i.leeway)}
	if i.replays.has(use, now) {
		return nil, p.fails("assertion_replayed", store.ErrReplayed)
	}
	if !p.clientID.IsZero() && p.clientID != account.ID {
		// The assertion is good, and seen; only the request around it is not.
		if failed := i.useUp(ctx, p, use); failed != nil {
			return nil, failed
		}
		return nil, p.fails("another_client_id", nil)
	}
	return &identity{
		account: account, rests: []store.Ref{ref}, method: method, credential: cred.ID, use: use,
	}, nil
}

// maxKeysTried bounds the keys that an assertion without `kid` is tried with:
// two, so that a client that names none can change its key with an overlap.
const maxKeysTried = 2

// assertionKeys finds the account's keys that an assertion may be signed with:
// the one it names by `kid` or, without one, those of its algorithm. More than
// maxKeysTried of these are none.
func assertionKeys(a *registry.Account, jws *credential.UnverifiedJWS, now time.Time) []*registry.Credential {
	var found []*registry.Credential
	for at := range a.Credentials {
		c := &a.Credentials[at]
		if c.Kind != registry.PublicKey || c.Algorithm != jws.Algorithm() {
			continue
		}
		if jws.KeyID() != "" && c.ID != jws.KeyID() {
			continue
		}
		if !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt) {
			continue
		}
		found = append(found, c)
	}
	if len(found) > maxKeysTried {
		return nil
	}
	return found
}

var errNoKey = errors.New("no key of the account fits")

// signedBy returns the credential whose key made the signature. Where none
// did, decoys fill up what was tried, so that the time it took does not tell
// whether the account is there, nor how many keys it has.
func (i *Issuer) signedBy(a *registry.Account, candidates []*registry.Credential, jws *credential.UnverifiedJWS) (*registry.Credential, error) {
	tries := maxKeysTried
	if jws.KeyID() != "" {
		tries = 1
	}
	failed := errNoKey
	for _, c := range candidates {
		key, ok := a.Key(c.ID)
		if !ok || key.Algorithm() != jws.Algorithm() {
			continue
		}
		if _, failed = key.Verify(jws); failed == nil {
			return c, nil
		}
		tries--
	}
	for range tries {
		_, _ = i.decoys.key(jws.Algorithm()).Verify(jws) // for the time it takes
	}
	return nil, failed
}

var errAudience = errors.New("wrong_audience")

// holdAssertion checks what an authentic assertion says.
func (i *Issuer) holdAssertion(c *jwtClaims, now time.Time) error {
	switch {
	case c.audience != i.issuer.String() && c.audience != i.tokenURL:
		return errAudience
	case c.bound:
		return errBound
	case c.id == "":
		return errNoAssertion
	}
	if err := c.current(now, i.leeway); err != nil {
		return err
	}
	return c.short(now, i.leeway)
}

// madeAfter refuses an assertion that may have been used before the moment at
// which everything was revoked: a restored store has forgotten such uses (I9).
// Without `iat` the latest moment it can have been made counts.
func (i *Issuer) madeAfter(epoch time.Time, c *jwtClaims) bool {
	if epoch.IsZero() {
		return true
	}
	made := c.issued
	if made.IsZero() {
		made = c.expires.Add(-credential.MaxAssertionLifetime - i.leeway)
	}
	return made.After(epoch.Add(i.leeway))
}

// useKey names one assertion of one account in a fixed number of bytes.
func useKey(account credential.AccountID, jti string) string {
	sum := sha256.Sum256([]byte(store.Key(account.String(), jti)))
	return string(sum[:])
}

// decoys stand in for what isn't there, so that its absence costs as much as
// its presence. Nobody holds the private halves.
type decoys struct {
	account *registry.Account
	keys    map[credential.Algorithm]jwks.Key
}

func newDecoys() (decoys, error) {
	d := decoys{
		account: &registry.Account{Credentials: []registry.Credential{{
			Kind: registry.ClientSecret, SecretHash: registry.HashSecret(credential.GenerateSecret()),
			ExpiresAt: time.Unix(maxNumericDate, 0),
		}}},
		keys: map[credential.Algorithm]jwks.Key{},
	}
	var failed error
	add := func(alg credential.Algorithm, public any, err error) {
		if err == nil {
			d.keys[alg], err = jwks.NewKey("", alg, public)
		}
		failed = errors.Join(failed, err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	add(credential.ES256, publicOf(p256), err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	add(credential.ES384, publicOf(p384), err)
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	add(credential.EdDSA, ed, err)
	// A random odd number verifies as slowly as a real modulus.
	modulus := make([]byte, 256)
	_, err = rand.Read(modulus)
	modulus[0] |= 0x80
	modulus[255] |= 1
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	add(credential.RS256, public, err)
	add(credential.PS256, public, err)
	if failed != nil {
		return decoys{}, fmt.Errorf("issuer: decoy keys: %w", failed)
	}
	return d, nil
}

func publicOf(k *ecdsa.PrivateKey) *ecdsa.PublicKey {
	if k == nil {
		return nil
	}
	return &k.PublicKey
}

func (d *decoys) key(alg credential.Algorithm) jwks.Key { return d.keys[alg] }
