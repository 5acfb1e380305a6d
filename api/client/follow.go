package client

import (
	"context"
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Revocations returns a source of tokens to follow the broker's revocations
// with: for verifier.FollowerConfig. The account owns an audience, and home is
// its home: credential.System or its tenant. Tokens come from the Client's
// cache.
func (c *Client) Revocations(home credential.Tenant) *FollowTokens {
	return &FollowTokens{c, TokenRequest{Tenant: home, Audience: c.issuer.Revocations()}}
}

// FollowTokens is a source of tokens for <issuer>/revocations.
type FollowTokens struct {
	client  *Client
	request TokenRequest
}

// Token returns a token that is in force, see Client.Token.
func (f *FollowTokens) Token(ctx context.Context) (string, error) {
	t, err := f.client.Token(ctx, f.request)
	if err != nil {
		return "", err
	}
	return t.Reveal(), nil
}

// Refused says that the broker did not accept the last one: the next one is
// fetched, unless that one was new.
func (f *FollowTokens) Refused() { f.client.refused(f.request) }

// Revoke ends tokens that are out, as an operator: one, a chain, or all of an
// account or tenant.
func (a *Admin) Revoke(ctx context.Context, what wire.Revoke) (*wire.Revoked, error) {
	var done wire.Revoked
	if err := a.do(ctx, call{op: "token revoke", method: http.MethodPost, path: wire.PathRevocations, body: what}, &done); err != nil {
		return nil, err
	}
	return &done, nil
}
