package issuer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// spiffeScheme begins the `sub` of a SPIFFE JWT-SVID and, followed by the trust
// domain alone, the Issuer of the trusted issuer that stands for the domain.
const spiffeScheme = "spiffe://"

// checkPlatform verifies a JWT with which a platform vouches for a workload,
// and finds the account that it stands for.
func (i *Issuer) checkPlatform(ctx context.Context, p *proof, jws *credential.UnverifiedJWS, claims jwtClaims) (*identity, *Error) {
	name, reason := issuerName(p, &claims)
	switch typ := strings.TrimPrefix(strings.ToLower(jws.Type()), "application/"); {
	case reason != "":
		return nil, p.fails(reason, nil)
	case claims.issuer == i.issuer.String():
		// Passing on the broker's own token is another kind of exchange, with
		// rules of its own (I2, I3).
		return nil, p.fails("own_token", nil)
	case typ != "" && typ != "jwt" && (typ != "jose" || !isSPIFFE(name)):
		return nil, p.fails("refused_type", nil)
	}
	var trusted *registry.TrustedIssuer
	var ref store.Ref
	err := i.store.View(ctx, func(r store.Reader) (err error) {
		trusted, ref, err = i.registry.IssuerByURL(r, name)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		decoy := i.decoys.key(jws.Algorithm())
		_, _ = decoy.Verify(jws)
		return nil, p.fails("unknown_issuer", nil)
	case err != nil:
		return nil, unavailable(err)
	}
	v, failed := i.verifyPlatform(ctx, p, jws, claims, trusted)
	if failed != nil {
		return nil, failed
	}
	i.vouched.add(p, v, i.now())
	return i.accountOf(ctx, p, v, ref)
}

// issuerName says by which name the trusted issuer is looked up: `iss`, or
// the trust domain of `sub` for a JWT-SVID, which may have no `iss`.
func issuerName(p *proof, c *jwtClaims) (name, reason string) {
	switch {
	case c.subject == "":
		return "", "missing_sub"
	case p.spiffe || c.issuer == "" && isSPIFFE(c.subject):
		domain, path, _ := strings.Cut(strings.TrimPrefix(c.subject, spiffeScheme), "/")
		if !isSPIFFE(c.subject) || domain == "" || path == "" {
			return "", "malformed_spiffe_id"
		}
		return spiffeScheme + domain, ""
	case c.issuer == "":
		return "", "missing_iss"
	}
	return c.issuer, ""
}

func isSPIFFE(s string) bool { return strings.HasPrefix(s, spiffeScheme) }

// verifyPlatform checks signature, audience and times against one version of
// the trusted issuer.
func (i *Issuer) verifyPlatform(ctx context.Context, p *proof, jws *credential.UnverifiedJWS, claims jwtClaims, trusted *registry.TrustedIssuer) (*vouched, *Error) {
	alg := jws.Algorithm()
	if !slices.Contains(trusted.Algorithms, alg) {
		return nil, p.fails("refused_algorithm", credential.ErrAlgorithm)
	}
	key, failed := i.platformKey(ctx, p, trusted, jws.KeyID())
	if failed != nil {
		return nil, failed
	}
	bound, ok := key.WithAlgorithm(alg)
	if !ok {
		return nil, p.fails("refused_algorithm", credential.ErrAlgorithm)
	}
	payload, err := bound.Verify(jws)
	switch {
	case err != nil:
		return nil, p.fails("bad_signature", err)
	case claims.audience != trusted.Audience || trusted.Audience == "":
		return nil, p.fails(errAudience.Error(), nil)
	case claims.bound:
		return nil, p.fails(errBound.Error(), nil)
	}
	if err := i.inTime(p, &claims); err != nil {
		return nil, p.fails(err.Error(), nil)
	}
	return &vouched{
		issuer: trusted.ID, version: trusted.Version, kid: jws.KeyID(), key: key, registered: claims,
		claims: sync.OnceValues(func() (policy.Claims, error) { return policy.ParseClaims(payload) }),
	}, nil
}

// platformKey asks the issuer's key source for a key.
func (i *Issuer) platformKey(ctx context.Context, p *proof, trusted *registry.TrustedIssuer, kid string) (jwks.Key, *Error) {
	source, err := i.sources.For(trusted)
	if err != nil {
		i.log.ErrorContext(ctx, "a trusted issuer can't be used", "issuer", trusted.ID, "error", err)
		return jwks.Key{}, unavailable(err)
	}
	key, err := source.Key(ctx, kid)
	switch {
	case err == nil:
		return key, nil
	case errors.Is(err, jwks.ErrUnknownKey):
		return jwks.Key{}, p.fails("unknown_key", err)
	}
	i.log.WarnContext(ctx, "the keys of a trusted issuer can't be had", "issuer", trusted.ID, "error", err)
	return jwks.Key{}, unavailable(err)
}

// accountOf finds the account that a verified platform JWT stands for: the one
// with exactly this issuer and subject or, when the request names a client_id,
// that one if a condition of its credential for this issuer holds.
func (i *Issuer) accountOf(ctx context.Context, p *proof, v *vouched, issuerRef store.Ref) (*identity, *Error) {
	var account *registry.Account
	var ref store.Ref
	err := i.store.View(ctx, func(r store.Reader) (err error) {
		id := p.clientID
		if id.IsZero() {
			if id, err = i.registry.AccountBySubject(r, v.issuer, v.registered.subject); err != nil {
				return err
			}
		}
		account, ref, err = i.registry.AccountAt(r, id)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, p.fails("no_account_for_subject", nil)
	case err != nil:
		return nil, unavailable(err)
	}
	cred, ok, err := i.vouchesFor(ctx, account, v)
	if err != nil || !ok {
		return nil, p.fails("no_account_for_subject", err)
	}
	id := &identity{
		account: account, rests: []store.Ref{ref, issuerRef}, method: "platform_jwt:" + v.issuer,
		credential: cred.ID, vouched: v,
	}
	if p.kind == proofSubject {
		id.until = v.registered.expires
	}
	return id, nil
}

// inTime holds the times of a platform JWT to now. The leeway is for clocks
// that differ, when a JWT authenticates. As a subject token it is exchanged
// for one that must not outlive it (I3): without a whole second left there is
// nothing to exchange.
func (i *Issuer) inTime(p *proof, c *jwtClaims) error {
	now := i.now()
	if p.kind == proofSubject && c.expires.Sub(now) < time.Second && !c.expires.IsZero() {
		return errExpired
	}
	return c.current(now, i.leeway)
}

// vouchesFor finds the account's credential that a verified JWT satisfies: an
// exact subject before any condition.
func (i *Issuer) vouchesFor(ctx context.Context, a *registry.Account, v *vouched) (registry.Credential, bool, error) {
	now := i.now()
	usable := func(c registry.Credential) bool {
		return c.Kind == registry.Platform && c.Issuer == v.issuer && (c.ExpiresAt.IsZero() || now.Before(c.ExpiresAt))
	}
	for _, c := range a.Credentials {
		if usable(c) && c.Subject != "" && c.Subject == v.registered.subject {
			return c, true, nil
		}
	}
	var failed error
	for _, c := range a.Credentials {
		if !usable(c) || c.Condition == "" || c.Subject != "" {
			continue
		}
		claims, err := v.claims()
		if err != nil {
			return registry.Credential{}, false, err
		}
		switch holds, err := i.policy.Vouches(ctx, c.Condition, claims); {
		case err != nil:
			failed = err // this condition denies; another may hold
		case holds:
			return c, true, nil
		}
	}
	return registry.Credential{}, false, failed
}

// recallVouched answers for a platform JWT that was verified before, if its
// issuer and its key are still what they were. Nil and no error: verify it.
func (i *Issuer) recallVouched(ctx context.Context, p *proof) (*identity, *Error) {
	now := i.now()
	v := i.vouched.get(p, now)
	if v == nil {
		return nil, nil
	}
	var trusted *registry.TrustedIssuer
	var ref store.Ref
	err := i.store.View(ctx, func(r store.Reader) (err error) {
		trusted, ref, err = i.registry.IssuerAt(r, v.issuer)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		i.vouched.drop(p)
		return nil, nil
	case err != nil:
		return nil, unavailable(err)
	case trusted.Version != v.version:
		i.vouched.drop(p)
		return nil, nil
	}
	key, failed := i.platformKey(ctx, p, trusted, v.kid)
	if failed != nil || !key.Equal(v.key) {
		i.vouched.drop(p) // the key was withdrawn, or can't be confirmed
		return nil, failed
	}
	if err := i.inTime(p, &v.registered); err != nil {
		return nil, p.fails(err.Error(), nil)
	}
	return i.accountOf(ctx, p, v, ref)
}
