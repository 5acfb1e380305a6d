package verifier

import (
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Token is an access token that Verify has verified. It is immutable and safe
// to share; several calls for the same raw token may return the same Token.
// The zero Token says nothing: it has no tenant.
type Token struct {
	claims credential.Claims
	kid    string
}

// Tenant returns the one tenant that the token is for.
func (t *Token) Tenant() credential.Tenant { return t.claims.Tenant }

// Subject returns the account that the token is about; after delegation the
// one on whose behalf it is presented.
func (t *Token) Subject() credential.AccountID { return t.claims.Subject }

// ClientID returns the account that authenticated to get the token.
func (t *Token) ClientID() credential.AccountID { return t.claims.ClientID }

// Issuer returns the broker's URL.
func (t *Token) Issuer() string { return t.claims.Issuer }

// Audience returns the service that the token is for: the verifier's own.
func (t *Token) Audience() credential.Audience { return t.claims.Audience }

// Scopes returns what the token allows.
func (t *Token) Scopes() credential.Scopes { return t.claims.Scopes }

// IssuedAt returns when it was issued, in whole seconds.
func (t *Token) IssuedAt() time.Time { return t.claims.IssuedAt }

// Expires returns when it is over, in whole seconds, leeway not included.
func (t *Token) Expires() time.Time { return t.claims.Expires }

// ID returns the `jti`, the token's own name.
func (t *Token) ID() string { return t.claims.ID }

// Txn returns the `txn`, which every token of one chain shares (RFC 8417).
func (t *Token) Txn() string { return t.claims.Txn }

// Job returns the `jti` of the job ticket that the token came from, or "".
func (t *Token) Job() string { return t.claims.Job }

// KeyID returns the `kid` of the key that signed it.
func (t *Token) KeyID() string { return t.kid }

// Actor returns the account that presents the token on the subject's behalf
// (RFC 8693 section 4.1), or none without delegation.
func (t *Token) Actor() credential.AccountID {
	if t.claims.Actor == nil {
		return credential.AccountID{}
	}
	return t.claims.Actor.Subject
}

// Actors returns all accounts of the delegation, the present one first; nil
// without delegation. Only the first takes part in the request (RFC 8693
// section 4.1); the others are history, for the record.
func (t *Token) Actors() []credential.AccountID {
	var all []credential.AccountID
	for a := t.claims.Actor; a != nil; a = a.By {
		all = append(all, a.Subject)
	}
	return all
}

// Claims returns a copy of everything that the token says.
func (t *Token) Claims() credential.Claims {
	c := t.claims
	c.Actor = copyActor(c.Actor)
	return c
}

func copyActor(a *credential.Actor) *credential.Actor {
	if a == nil {
		return nil
	}
	return &credential.Actor{Subject: a.Subject, By: copyActor(a.By)}
}
