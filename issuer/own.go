package issuer

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// OwnRequest asks for a token that the broker itself presents, on the word of
// an account that has no part in the call: to a webhook that rotates a secret
// of the account's.
type OwnRequest struct {
	Account   credential.AccountID
	Audience  credential.Audience
	Tenant    credential.Tenant
	Lifetime  credential.Lifetime
	RequestID string // for the record
}

// methodBroker is how the account authenticated: it did not; the broker speaks.
const methodBroker = "broker"

// Own issues a token to the broker itself. Everything but the proof is as for
// any other: the account's standing, one grant that covers it, the record before
// the release. No endpoint leads here, and none of the broker's own audiences
// can be had.
func (i *Issuer) Own(ctx context.Context, r OwnRequest) (TokenResponse, error) {
	from := Origin{RequestID: r.RequestID}
	if i.issuer.Reserves(r.Audience) || r.Tenant.IsSystem() || r.Tenant.IsZero() {
		return TokenResponse{}, &Error{Code: InvalidTarget, Reason: "own_audience"}
	}
	for try := 1; ; try++ {
		resp, err := i.own(ctx, from, r)
		if err == nil {
			return resp, nil
		}
		if !errors.Is(err.Cause, store.ErrChanged) || try == maxTries || !pause(ctx, time.Duration(try)*time.Millisecond) {
			return TokenResponse{}, err
		}
	}
}

func (i *Issuer) own(ctx context.Context, from Origin, r OwnRequest) (TokenResponse, *Error) {
	account, ref, err := i.readAccount(ctx, r.Account)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return TokenResponse{}, &Error{Code: InvalidTarget, Reason: "unknown_account"}
	case err != nil:
		return TokenResponse{}, unavailable(err)
	}
	id := &identity{account: account, rests: []store.Ref{ref}, method: methodBroker}
	f := &tokenForm{audience: r.Audience, tenant: r.Tenant, lifetime: r.Lifetime}
	if why := id.standing(i.now()); why != "" {
		return TokenResponse{}, i.deny(ctx, from, f, id, credential.Tenant{}, &Error{Code: InvalidTarget, Reason: why})
	}
	v, err := i.match(ctx, &ask{
		account: account, audience: r.Audience, tenant: r.Tenant, lifetime: r.Lifetime, claims: id.claims,
	})
	switch {
	case err != nil:
		return TokenResponse{}, unavailable(err)
	case v.code != "":
		chain := credential.Tenant{}
		if v.granted {
			chain = r.Tenant
		}
		return TokenResponse{}, i.deny(ctx, from, f, id, chain, &Error{Code: v.code, Reason: v.reason})
	}
	return i.release(ctx, from, f, id, v)
}
