package issuer

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// authenticateForm authenticates the sender of a form to an endpoint other than
// the token endpoint. The assertion is not used up yet.
func (i *Issuer) authenticateForm(ctx context.Context, at Endpoint, r Request) (*identity, *proof, *Error) {
	f := form(r.Form)
	if err := f.once(); err != nil {
		return nil, nil, i.turnAway(at, r.Origin, err)
	}
	p, failed := readProof(f, r.Basic)
	if failed != nil {
		return nil, nil, i.turnAway(at, r.Origin, failed)
	}
	id, failed := i.authenticate(ctx, &p)
	if failed != nil {
		return nil, nil, i.turnAway(at, r.Origin, failed)
	}
	if failed := i.limitAccount(ctx, at, r.Origin, &p, id); failed != nil {
		return nil, nil, failed
	}
	if why := id.standing(i.now()); why != "" {
		return nil, nil, i.refuseStanding(ctx, at, r.Origin, &p, id, why)
	}
	return id, &p, nil
}

// consume uses up the assertion of an authentic request together with do, in
// one durable write. A replay is recorded.
func (i *Issuer) consume(ctx context.Context, at Endpoint, from Origin, p *proof, id *identity, do func(store.Tx) error) *Error {
	switch err := i.mint.Consume(ctx, id.use, do); {
	case errors.Is(err, store.ErrReplayed):
		return i.refuseClient(ctx, at, from, p, id, "assertion_replayed")
	case err != nil:
		return i.uncommitted(at, from, p, id.use, err)
	}
	return nil
}

// refuseClient records the denial of an authentic client and uses up its assertion.
func (i *Issuer) refuseClient(ctx context.Context, at Endpoint, from Origin, p *proof, id *identity, why string) *Error {
	replayed, err := i.mint.Refuse(ctx, id.use, audit.Record{
		Time: i.now().UTC(), Type: string(at), Decision: audit.Deny, Reason: why,
		Subject: id.account.ID.String(), ClientID: id.account.ID.String(),
		IP: from.ipText(), RequestID: from.RequestID,
	})
	switch {
	case err != nil:
		return i.uncommitted(at, from, p, id.use, err)
	case replayed:
		i.limits.inquiries.refund(id.account.ID.String(), i.now())
		return i.spoiled(p, id.use, store.ErrReplayed)
	}
	return p.fails(why, nil)
}

// errNotOurs: not an access token of this broker.
var errNotOurs = errors.New("not an access token of this broker")

// ownToken verifies an access token of the broker's own: signature by a key of
// the ring, form and issuer. Its times are up to the caller.
//
// Errors: errNotOurs, or why the keys can't be had.
func (i *Issuer) ownToken(ctx context.Context, raw string) (credential.Claims, error) {
	jws, err := credential.ParseJWS(raw)
	if err != nil || jws.Type() != "at+jwt" || jws.KeyID() == "" {
		return credential.Claims{}, errNotOurs
	}
	key, err := i.keys.Key(ctx, jws.KeyID())
	switch {
	case errors.Is(err, jwks.ErrUnknownKey):
		return credential.Claims{}, errNotOurs
	case err != nil:
		return credential.Claims{}, err
	}
	payload, err := key.Verify(jws)
	if err != nil {
		return credential.Claims{}, errNotOurs
	}
	c, err := credential.ParseClaims(payload)
	if err != nil || c.Issuer != i.issuer.String() {
		return credential.Claims{}, errNotOurs
	}
	if c.Tenant.IsSystem() && !i.issuer.Reserves(c.Audience) { // I1: only the broker's own audiences may see it
		return credential.Claims{}, errNotOurs
	}
	return c, nil
}

// concerns reports whether a token is the client's own, or for an audience that
// it owns: nobody else learns of it, or may end it.
func (i *Issuer) concerns(r store.Reader, client credential.AccountID, c *credential.Claims) (bool, error) {
	if c.ClientID == client {
		return true, nil
	}
	audience, _, err := i.registry.AudienceAt(r, c.Audience)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && audience.Owner == client, err
}
