package client

import (
	"context"
	"errors"
	"iter"
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Secrets are the calls for shared secrets. None of them ever carries the
// value of one.
type Secrets struct {
	objects[wire.Secret, wire.SecretCreate]
}

// Secrets returns the calls for shared secrets.
func (a *Admin) Secrets() Secrets {
	return Secrets{objects[wire.Secret, wire.SecretCreate]{a, "secret", "/v1/secrets"}}
}

// SecretFilter narrows a list of shared secrets; zero members don't.
type SecretFilter struct {
	ID      string               // this one; for plans only
	Tenant  credential.Tenant    // credential.System: those of no tenant
	Account credential.AccountID // those that it could read
}

// List yields the shared secrets that match f.
func (s Secrets) List(ctx context.Context, f SecretFilter) iter.Seq2[wire.Secret, error] {
	return s.list(ctx, filter("tenant", f.Tenant.String(), "account", f.Account.String()))
}

// Get returns one secret and how its rotation stands, or ErrNotFound.
func (s Secrets) Get(ctx context.Context, id string) (*wire.Secret, error) { return s.get(ctx, id) }

// Update applies a merge patch to the secret at version ifVersion, or returns ErrChanged.
func (s Secrets) Update(ctx context.Context, id string, ifVersion uint64, patch wire.Patch) (*wire.Secret, error) {
	return s.update(ctx, id, ifVersion, patch)
}

// Delete forgets the secret; its value stays where it is.
func (s Secrets) Delete(ctx context.Context, id string, ifVersion uint64, reason string) error {
	return s.delete(ctx, id, ifVersion, reason)
}

// Rotate begins a rotation now. With force it goes past what holds one.
func (s Secrets) Rotate(ctx context.Context, id string, ifVersion uint64, force bool, reason string) (*wire.Secret, error) {
	return s.one(ctx, call{
		op: "secret rotate", method: http.MethodPost, ifVersion: ifVersion, body: wire.SecretRotate{Force: force, Reason: reason},
	}, id, "rotate")
}

// Abort gives a rotation up before its new value is in use.
func (s Secrets) Abort(ctx context.Context, id string, ifVersion uint64, reason string) (*wire.Secret, error) {
	return s.act(ctx, id, "abort", ifVersion, reason)
}

// Plan shows what RotateAll would do.
func (s Secrets) Plan(ctx context.Context, f SecretFilter) (*wire.SecretsPlan, error) {
	return s.rotateAll(ctx, wire.SecretsRotate{ID: f.ID, Tenant: f.Tenant, Account: f.Account, Plan: true})
}

// RotateAll begins what a plan with this digest has shown, or returns
// ErrChanged when it would be something else by now.
func (s Secrets) RotateAll(ctx context.Context, f SecretFilter, digest, reason string) (*wire.SecretsPlan, error) {
	return s.rotateAll(ctx, wire.SecretsRotate{ID: f.ID, Tenant: f.Tenant, Account: f.Account, Digest: digest, Reason: reason})
}

func (s Secrets) rotateAll(ctx context.Context, body wire.SecretsRotate) (*wire.SecretsPlan, error) {
	var plan wire.SecretsPlan
	err := s.admin.do(ctx, call{op: "secret rotate", method: http.MethodPost, path: "/v1/secrets/rotate", body: body}, &plan)
	if err != nil {
		return nil, err
	}
	return &plan, nil
}

// AckSecret says that this workload uses a version of a shared secret, of which
// it is a consumer, for one tenant. It is said again after each restart or not:
// only the newest version counts. The account needs a grant for <issuer>/leases.
//
// Errors: an *Error; ErrNotFound is no such secret, or not this workload's.
func (c *Client) AckSecret(ctx context.Context, tenant credential.Tenant, id string, version uint64) (*wire.SecretAcked, error) {
	path, err := under("/v1/secrets", id, "ack")
	if err != nil {
		return nil, err
	}
	req := TokenRequest{Tenant: tenant, Audience: c.issuer.Leases()}
	token, err := c.Token(ctx, req)
	if err != nil {
		return nil, err
	}
	acked, err := c.ackSecret(ctx, path, token, version)
	if errors.Is(err, ErrInvalidClient) { // its grant may have changed since the token was issued
		if token, err = c.freshToken(ctx, req); err == nil {
			acked, err = c.ackSecret(ctx, path, token, version)
		}
	}
	return acked, err
}

func (c *Client) ackSecret(ctx context.Context, path string, token *Token, version uint64) (*wire.SecretAcked, error) {
	const op = "secret ack"
	res, err := c.Leases().call(ctx, op, http.MethodPost, path, token, wire.SecretAck{Version: version})
	if err != nil {
		return nil, err
	}
	var acked wire.SecretAcked
	if err := decode(op, res, &acked); err != nil {
		return nil, err
	}
	return &acked, nil
}

// freshToken gets a token past the cache.
func (c *Client) freshToken(ctx context.Context, req TokenRequest) (*Token, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.fetch(ctx, req)
}
