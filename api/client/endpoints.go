package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// Introspect asks the broker about a token (RFC 7662). The broker answers its
// client and its audience's owner; to everyone else the token is not active.
func (c *Client) Introspect(ctx context.Context, token credential.Secret) (*wire.Introspection, error) {
	var answer wire.Introspection
	form := url.Values{"token": {string(token.Reveal())}}
	if err := c.postForm(ctx, "introspect", wire.PathIntrospect, form, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// Revoke ends a token (RFC 7009). It succeeds, without effect, for a token that
// is unknown or that this account may not revoke.
func (c *Client) Revoke(ctx context.Context, token credential.Secret) error {
	form := url.Values{"token": {string(token.Reveal())}}
	return c.postForm(ctx, "revoke", wire.PathRevoke, form, nil)
}

// JWKS returns the keys that the broker publishes. Services that verify tokens
// use the verifier package, which keeps them fresh.
func (c *Client) JWKS(ctx context.Context) (jwks.Set, error) {
	res, err := c.getPublic(ctx, "jwks", wire.PathJWKS)
	if err != nil {
		return jwks.Set{}, err
	}
	set, err := jwks.ParseSet(res.body)
	if err != nil {
		return jwks.Set{}, &Error{Op: "jwks", Status: res.status, Detail: "no key set", kind: ErrUnexpected, cause: err}
	}
	return set, nil
}

// Metadata returns the broker's own description (RFC 8414), of this issuer.
func (c *Client) Metadata(ctx context.Context) (*wire.Metadata, error) {
	const op = "metadata"
	res, err := c.getPublic(ctx, op, wire.PathServerMetadata)
	if err != nil {
		return nil, err
	}
	var m wire.Metadata
	if err := decode(op, res, &m); err != nil {
		return nil, err
	}
	// RFC 8414 section 3.3: else it is another server's document.
	if m.Issuer != c.issuer.String() {
		return nil, &Error{Op: op, Status: res.status, Detail: "the document is another issuer's: " + printable(m.Issuer, maxText), kind: ErrUnexpected}
	}
	return &m, nil
}

func (c *Client) getPublic(ctx context.Context, op, path string) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.issuer.String()+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := c.do(op, req, maxTokenAnswer*4)
	if err != nil {
		return nil, err
	}
	if res.status != http.StatusOK {
		return nil, c.problem(op, res)
	}
	return res, nil
}
