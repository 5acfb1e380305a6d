package issuer

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
)

// maxTries is how often a request is decided when what it rests on changes
// between the decision and its commit.
const maxTries = 4

// Token answers a token request (RFC 6749 section 4.4, RFC 8693). The error is
// always an *Error. A denial of an authentic request is on record, and its
// assertion used up, before Token returns; so is an issued token (I5).
func (i *Issuer) Token(ctx context.Context, r TokenRequest) (TokenResponse, error) {
	resp, err := i.token(ctx, r.Request)
	if err != nil {
		return TokenResponse{}, i.refused(err)
	}
	return resp, nil
}

func (i *Issuer) token(ctx context.Context, r Request) (TokenResponse, *Error) {
	f, err := i.readTokenForm(r)
	if err != nil {
		return TokenResponse{}, i.turnAway(TokenEndpoint, r.Origin, err)
	}
	waited := false
	for try := 1; ; try++ {
		resp, err := i.decide(ctx, r.Origin, f)
		switch {
		case err == nil:
			return resp, nil
		case errors.Is(err.Cause, store.ErrReplayed):
			i.limits.refund(f.charged, i.now())
			return resp, err
		case errors.Is(err.Cause, mint.ErrRevoked) && !waited:
			// Dead on arrival, as `iat` has whole seconds: the next one is near.
			if waited = pause(ctx, untilNextSecond(i.now())); waited {
				continue
			}
			return resp, err
		case !errors.Is(err.Cause, store.ErrChanged):
			return resp, err
		}
		if try == maxTries || !pause(ctx, time.Duration(try)*time.Millisecond) {
			return TokenResponse{}, err
		}
		if err := i.keys.Refresh(ctx); err != nil {
			i.log.WarnContext(ctx, "the key ring can't be read", "error", err)
		}
	}
}

// decide goes once through authentication, policy, commit and signature. Its
// error has store.ErrChanged as its cause when the same should be tried again
// on the newer state.
func (i *Issuer) decide(ctx context.Context, from Origin, f *tokenForm) (TokenResponse, *Error) {
	id, failed := i.authenticate(ctx, &f.proof)
	if failed != nil {
		return TokenResponse{}, i.turnAway(TokenEndpoint, from, failed)
	}
	if f.charged.account == "" {
		if failed := i.limitAccount(ctx, TokenEndpoint, from, &f.proof, id); failed != nil {
			return TokenResponse{}, failed
		}
		f.charged.account = id.account.ID.String()
	}
	if why := id.standing(i.now()); why != "" {
		return TokenResponse{}, i.refuseStanding(ctx, TokenEndpoint, from, &f.proof, id, why)
	}
	v, err := i.match(ctx, &ask{
		account: id.account, audience: f.audience, tenant: f.tenant, scopes: f.scopes,
		lifetime: f.lifetime, until: id.until, claims: id.claims,
	})
	if err != nil {
		return TokenResponse{}, unavailable(err)
	}
	if v.code != "" {
		chain := credential.Tenant{}
		if v.granted && !f.tenant.IsSystem() {
			chain = f.tenant
		}
		return TokenResponse{}, i.deny(ctx, from, f, id, chain, &Error{Code: v.code, Reason: v.reason})
	}
	if f.charged.tenant == "" {
		if failed := i.limitTenant(ctx, from, &f.proof, id, f.tenant); failed != nil {
			return TokenResponse{}, failed
		}
		f.charged.tenant = f.tenant.String()
	}
	return i.release(ctx, from, f, id, v)
}

// release commits an approved request and signs its token.
func (i *Issuer) release(ctx context.Context, from Origin, f *tokenForm, id *identity, v *verdict) (TokenResponse, *Error) {
	after := id.account.TokensAfter
	if after.Before(v.after) {
		after = v.after
	}
	approval, err := i.mint.Commit(ctx, mint.Decision{
		Account: id.account.ID, Audience: f.audience, Tenant: f.tenant, Scopes: v.scopes,
		Lifetime: v.lifetime, Until: v.until, After: after, Home: v.home, Grant: v.grant.ID, FanOut: v.grant.FanOut,
		Rests: append(v.rests, id.rests...), Use: id.use, Method: id.method,
		IP: from.ipText(), Request: from.RequestID,
	})
	switch {
	case errors.Is(err, mint.ErrFanOut):
		return TokenResponse{}, &Error{Code: InvalidTarget, Reason: "fan_out_exceeded", Cause: err}
	case err != nil:
		return TokenResponse{}, i.uncommitted(TokenEndpoint, from, &f.proof, id.use, err)
	}
	token, claims, err := i.mint.Sign(ctx, approval)
	if err != nil {
		i.log.ErrorContext(ctx, "a token on record could not be signed and was not released",
			"jti", approval.ID(), "request_id", from.RequestID, "error", err)
		i.unsigned(ctx, approval)
		return TokenResponse{}, unavailable(err)
	}
	resp := TokenResponse{
		AccessToken: token, TokenType: "Bearer", ExpiresIn: secondsLeft(claims.Expires, i.now()),
		Scope: claims.Scopes.String(), Claims: claims,
	}
	if f.exchange {
		resp.IssuedTokenType = TokenTypeAccessToken
	}
	return resp, nil
}

// secondsLeft is how long a token lives on as it leaves (RFC 6749 section 5.1),
// in whole seconds as `iat` has them, at least one.
func secondsLeft(expires, now time.Time) int64 {
	return max(1, int64(expires.Sub(now.Truncate(time.Second))/time.Second))
}

// untilNextSecond is how long the second of now goes on.
func untilNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}

// unsignedFor bounds how long the record of an unsigned token is waited for.
const unsignedFor = 5 * time.Second

// unsigned puts on record that a token on record does not exist. The caller may
// have gone by then; the record is made all the same, if it can be.
func (i *Issuer) unsigned(ctx context.Context, approval *mint.Approval) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unsignedFor)
	defer cancel()
	if err := i.mint.Unsigned(ctx, approval); err != nil {
		i.log.ErrorContext(ctx, "that a token was not signed could not be recorded", "jti", approval.ID(), "error", err)
	}
}

// deny records a denial of an authentic request, durably and by itself, and
// uses up its assertion in the same write. It returns what the caller is told.
func (i *Issuer) deny(ctx context.Context, from Origin, f *tokenForm, id *identity, chain credential.Tenant, denial *Error) *Error {
	r := audit.Record{
		Time: i.now().UTC(), Type: string(TokenEndpoint), Decision: audit.Deny, Reason: denial.Reason,
		Tenant: chain, Subject: id.account.ID.String(), ClientID: id.account.ID.String(),
		Audience: f.audience.String(), Scope: f.scopes.String(), IP: from.ipText(), RequestID: from.RequestID,
	}
	if chain.IsZero() {
		r.Resource = audit.Resource{Type: "tenant", ID: f.tenant.String()}
	}
	replayed, err := i.mint.Refuse(ctx, id.use, r)
	switch {
	case err != nil:
		return i.uncommitted(TokenEndpoint, from, &f.proof, id.use, err)
	case replayed:
		return i.spoiled(&f.proof, id.use, store.ErrReplayed)
	}
	return denial
}

// ipText is the client's address for a record, "" if it is not known.
func (o Origin) ipText() string {
	if !o.IP.IsValid() {
		return ""
	}
	return o.IP.Unmap().WithZone("").String()
}

// pause waits, and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
