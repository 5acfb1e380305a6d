package issuer

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Revoke ends a token before it expires (RFC 7009), if the client is the
// token's own or owns its audience; for anyone else, and for what is no token
// that a verifier might take, it does nothing and says nothing. A token that has
// expired is ended too while a verifier's leeway may last. The error is always
// an *Error.
func (i *Issuer) Revoke(ctx context.Context, r RevokeRequest) error {
	if err := i.revoke(ctx, r.Request); err != nil {
		return i.refused(err)
	}
	return nil
}

func (i *Issuer) revoke(ctx context.Context, r Request) *Error {
	raw := form(r.Form).get("token")
	if raw == "" {
		return i.turnAway(RevocationEndpoint, r.Origin, badRequest("token", "missing_token"))
	}
	id, p, failed := i.authenticateForm(ctx, RevocationEndpoint, r)
	if failed != nil {
		return failed
	}
	c, err := i.ownToken(ctx, raw)
	switch {
	case errors.Is(err, errNotOurs), err == nil && !i.now().Before(c.Expires.Add(credential.MaxLeeway)):
		return i.consume(ctx, RevocationEndpoint, r.Origin, p, id, nil)
	case err != nil:
		return unavailable(err)
	}
	full := false
	failed = i.consume(ctx, RevocationEndpoint, r.Origin, p, id, func(tx store.Tx) error {
		full = false
		concerned, err := i.concerns(tx, id.account.ID, &c)
		if err != nil || !concerned {
			return err
		}
		if ended, _, err := i.behind(tx, &c); err != nil || ended {
			return err
		}
		outcome, err := revocation.Add(tx, i.now(), c, id.account.ID)
		rec := i.revocationRecord(r.Origin, id, &c)
		switch {
		case errors.Is(err, revocation.ErrFull):
			full = true // the assertion is used up all the same
			rec.Decision, rec.Type, rec.Reason = audit.Deny, string(RevocationEndpoint), "too_many_revocations"
		case err != nil:
			return err
		case outcome == revocation.Already:
			return nil
		case outcome == revocation.Collapsed:
			rec.Reason = "collapsed_into_account_epoch"
		}
		tx.Append(rec)
		return nil
	})
	if failed == nil && full {
		failed = slowDown(retryAfter, "too_many_revocations")
	}
	return failed
}

func (i *Issuer) revocationRecord(from Origin, id *identity, c *credential.Claims) audit.Record {
	rec := audit.Record{
		Time: i.now().UTC(), Type: "token.revoked", Decision: audit.Allow, Reason: id.method,
		Subject: c.Subject.String(), Actor: id.account.ID.String(), ClientID: c.ClientID.String(),
		Audience: c.Audience.String(), JTI: c.ID, Txn: c.Txn, Expires: c.Expires,
		IP: from.ipText(), RequestID: from.RequestID,
	}
	if !c.Tenant.IsSystem() {
		rec.Tenant = c.Tenant
	}
	return rec
}
