package verifier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// Verifier accepts the access tokens of one broker for one audience. It is
// safe for concurrent use.
type Verifier struct {
	issuer      credential.IssuerURL
	audience    credential.Audience
	longest     time.Duration // that a token for the audience may live
	keys        jwks.Source
	remote      *jwks.Remote // nil when the keys were given
	now         func() time.Time
	leeway      time.Duration
	revocations Revocations
	cache       *cache
}

// Close stops a fetch of keys in flight and waits for it. The Verifier must
// not be used after. Keys that were given in the Config are not closed.
func (v *Verifier) Close() {
	if v.remote != nil {
		v.remote.Close()
	}
}

// KeyStaleness returns how long ago the broker's keys were last fetched or
// confirmed, for a service's metrics: far beyond the max-age of its key set, it
// means that the broker is out of reach, or that nothing was verified since.
// Keys that were given and don't say count as fresh.
func (v *Verifier) KeyStaleness() time.Duration {
	if source, ok := v.keys.(interface{ Staleness() time.Duration }); ok {
		return source.Staleness()
	}
	return 0
}

// Verify returns the token that raw is, or why it is refused: one of the
// errors of this package. ctx bounds a fetch of keys, should one be needed.
//
// Nothing of the payload is looked at before the signature is found good, so
// an answer tells a caller without a key nothing but that.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Token, error) {
	if len(raw) > credential.MaxTokenLength { // before hashing it
		return nil, fmt.Errorf("%w: over %d bytes", ErrMalformed, credential.MaxTokenLength)
	}
	digest := digestOf(raw)
	if known, ok := v.cache.get(digest); ok {
		key, err := v.key(ctx, known.token.kid)
		if err != nil {
			return nil, err
		}
		if key.Equal(known.key) {
			return v.live(known.token)
		}
		// Another key has taken its name: begin anew.
	}
	token, key, err := v.authenticate(ctx, raw)
	if err != nil {
		return nil, err
	}
	if err := v.acceptable(&token.claims); err != nil {
		return nil, err
	}
	if _, err := v.live(token); err != nil {
		return nil, err
	}
	v.cache.add(digest, entry{token: token, key: key})
	return token, nil
}

// authenticate checks the header and the signature and reads the claims from
// the very bytes that the signature covers.
func (v *Verifier) authenticate(ctx context.Context, raw string) (*Token, jwks.Key, error) {
	jws, err := credential.ParseJWS(raw)
	if err != nil {
		return nil, jwks.Key{}, err
	}
	if !isAccessToken(jws.Type()) {
		return nil, jwks.Key{}, ErrType
	}
	if jws.KeyID() == "" {
		return nil, jwks.Key{}, fmt.Errorf("%w: no kid", ErrHeader)
	}
	key, err := v.key(ctx, jws.KeyID())
	if err != nil {
		return nil, jwks.Key{}, err
	}
	payload, err := key.Verify(jws)
	if err != nil {
		return nil, jwks.Key{}, err
	}
	claims, err := credential.ParseClaims(payload)
	if err != nil {
		return nil, jwks.Key{}, err
	}
	return &Token{claims: claims, kid: jws.KeyID()}, key, nil
}

// key asks the source; whatever else goes wrong there is ErrUnavailable.
func (v *Verifier) key(ctx context.Context, kid string) (jwks.Key, error) {
	key, err := v.keys.Key(ctx, kid)
	switch {
	case err == nil && key.IsZero():
		return jwks.Key{}, ErrUnknownKey
	case err == nil, errors.Is(err, ErrUnknownKey), errors.Is(err, ErrUnavailable):
		return key, err
	}
	return jwks.Key{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// acceptable checks what does not change while the token lives.
func (v *Verifier) acceptable(c *credential.Claims) error {
	switch life := c.Expires.Sub(c.IssuedAt); {
	case c.Issuer != v.issuer.String():
		return ErrIssuer
	case c.Audience != v.audience:
		return ErrAudience
	case c.Tenant.IsSystem() && !v.issuer.Reserves(c.Audience):
		return fmt.Errorf("%w: the broker's own, for a foreign audience", ErrTenant)
	case life <= 0:
		return fmt.Errorf("%w: exp is not after iat", ErrClaim)
	case life > v.longest: // without leeway: both times are by the broker's clock
		return fmt.Errorf("%w: it lives longer than the broker gives", ErrClaim)
	case !c.Confirmation.IsZero():
		return ErrProofRequired
	}
	return nil
}

// live checks what may change from one call to the next.
func (v *Verifier) live(t *Token) (*Token, error) {
	now := v.now()
	switch {
	case !now.Before(t.claims.Expires.Add(v.leeway)):
		return nil, ErrExpired
	case now.Add(v.leeway).Before(t.claims.IssuedAt), now.Add(v.leeway).Before(t.claims.NotBefore):
		return nil, ErrNotYetValid
	}
	if v.revocations == nil {
		return t, nil
	}
	switch err := v.revocations.Revoked(t); {
	case err == nil:
		return t, nil
	case errors.Is(err, ErrUnavailable):
		return nil, err
	default:
		return nil, fmt.Errorf("%w: %w", ErrRevoked, err)
	}
}

// digestOf hashes raw. A token of usual size is copied to the stack for it,
// which saves the allocation of a conversion.
func digestOf(raw string) digest {
	var buf [1024]byte
	if len(raw) > len(buf) {
		return sha256.Sum256([]byte(raw))
	}
	return sha256.Sum256(buf[:copy(buf[:], raw)])
}

// isAccessToken compares `typ` as the media type that it is: without regard to
// case, "application/" may be left out (RFC 9068 section 4, RFC 7515 section 4.1.9).
func isAccessToken(typ string) bool {
	return strings.EqualFold(typ, "at+jwt") || strings.EqualFold(typ, "application/at+jwt")
}
