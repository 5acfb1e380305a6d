package issuer

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// identity is an account whose proof is authentic. Whether it may have
// anything is another question; even whether it is enabled.
type identity struct {
	account    *registry.Account
	rests      []store.Ref // the account's row, and the trusted issuer's
	method     string      // e.g. "private_key_jwt"; for a platform, with the issuer's id
	credential string      // id of the credential
	use        *mint.Use   // the single-use assertion; nil without one
	vouched    *vouched    // what the platform says; nil without one
	until      time.Time   // when the subject token ends, which it stands in for; else zero
}

// claims are what a platform says of the workload. What an account says of
// itself, in an assertion that it signed, is not among them.
func (id *identity) claims() (policy.Claims, error) {
	if id.vouched == nil {
		return policy.Claims{}, nil
	}
	return id.vouched.claims()
}

// standing is "" for an account that may act, or the reason why not.
func (id *identity) standing(now time.Time) string {
	switch {
	case id.account.Disabled:
		return "account_disabled"
	case !id.account.ExpiresAt.IsZero() && !now.Before(id.account.ExpiresAt):
		return "account_expired"
	}
	return ""
}

// authenticate finds out who sent a request. An error that it returns means
// that nothing is known about the sender.
func (i *Issuer) authenticate(ctx context.Context, p *proof) (*identity, *Error) {
	switch p.kind {
	case proofSecretBasic, proofSecretPost:
		return i.checkSecret(ctx, p)
	case proofAssertion, proofSubject:
		return i.checkToken(ctx, p)
	}
	return nil, p.fails("no_authentication", nil)
}

// checkSecret compares a client secret. An account that isn't there costs the
// same comparison as one that is.
func (i *Issuer) checkSecret(ctx context.Context, p *proof) (*identity, *Error) {
	method := "client_secret_post"
	if p.kind == proofSecretBasic {
		method = "client_secret_basic"
	}
	account, ref, err := i.readAccount(ctx, p.clientID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, unavailable(err)
	}
	known := err == nil
	if !known {
		account = i.decoys.account
	}
	c, ok := account.MatchSecret(p.secret, i.now())
	if !known || !ok {
		return nil, p.fails("unknown_account_or_secret", nil)
	}
	return &identity{account: account, rests: []store.Ref{ref}, method: method, credential: c.ID}, nil
}

// checkToken verifies a JWT that stands for an account. An assertion whose
// `iss` is its `sub` was made by the account itself (RFC 7523 section 3); any
// other was made by a platform.
func (i *Issuer) checkToken(ctx context.Context, p *proof) (*identity, *Error) {
	if id, err := i.recallVouched(ctx, p); id != nil || err != nil {
		return id, err
	}
	jws, err := credential.ParseJWS(p.token)
	if err != nil {
		return nil, p.fails(malformedReason(err), err)
	}
	unverified, err := readClaims(jws.UnverifiedPayload())
	if err != nil {
		return nil, p.fails("malformed_claims", err)
	}
	if p.kind == proofAssertion && !p.spiffe && unverified.issuer != "" && unverified.issuer == unverified.subject {
		return i.checkAssertion(ctx, p, jws, unverified)
	}
	return i.checkPlatform(ctx, p, jws, unverified)
}

func malformedReason(err error) string {
	switch {
	case errors.Is(err, credential.ErrEncrypted):
		return "encrypted_token"
	case errors.Is(err, credential.ErrHeader):
		return "refused_header"
	case errors.Is(err, credential.ErrAlgorithm):
		return "refused_algorithm"
	}
	return "malformed_token"
}

func (i *Issuer) readAccount(ctx context.Context, id credential.AccountID) (a *registry.Account, ref store.Ref, err error) {
	err = i.store.View(ctx, func(r store.Reader) error {
		a, ref, err = i.registry.AccountAt(r, id)
		return err
	})
	return a, ref, err
}

// retryAfter is what a client is told to wait when the broker can't serve.
const retryAfter = 2 * time.Second

// unavailable is the answer when something that the decision needs can't be
// had: nothing is released (I4, I5).
func unavailable(err error) *Error {
	return &Error{Code: TemporarilyUnavailable, RetryAfter: retryAfter, Reason: "unavailable", Cause: err}
}
