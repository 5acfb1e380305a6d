package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Accounts are the calls for service accounts and their credentials.
type Accounts struct {
	objects[wire.Account, wire.AccountCreate]
}

// List yields all accounts that the operator may see.
func (a Accounts) List(ctx context.Context) iter.Seq2[wire.Account, error] { return a.list(ctx, nil) }

// Get returns one account, or ErrNotFound.
func (a Accounts) Get(ctx context.Context, id credential.AccountID) (*wire.Account, error) {
	return a.get(ctx, id.String())
}

// Update applies a merge patch to the account at version ifVersion, or returns ErrChanged.
func (a Accounts) Update(ctx context.Context, id credential.AccountID, ifVersion uint64, patch wire.Patch) (*wire.Account, error) {
	return a.update(ctx, id.String(), ifVersion, patch)
}

// Disable stops tokens from being issued to the account.
func (a Accounts) Disable(ctx context.Context, id credential.AccountID, ifVersion uint64, reason string) (*wire.Account, error) {
	return a.act(ctx, id.String(), "disable", ifVersion, reason)
}

// Enable ends it.
func (a Accounts) Enable(ctx context.Context, id credential.AccountID, ifVersion uint64, reason string) (*wire.Account, error) {
	return a.act(ctx, id.String(), "enable", ifVersion, reason)
}

// Delete removes the account for good: its id is never used again.
func (a Accounts) Delete(ctx context.Context, id credential.AccountID, ifVersion uint64, reason string) error {
	return a.delete(ctx, id.String(), ifVersion, reason)
}

// NewCredential is a credential as it was added.
type NewCredential struct {
	Credential wire.Credential
	// Secret is the client secret that the broker made; it is shown this once.
	// None for other kinds.
	Secret  credential.Secret
	Version uint64 // of the account, now
}

// AddCredential gives the account one more way to prove who it is.
func (a Accounts) AddCredential(ctx context.Context, id credential.AccountID, ifVersion uint64, body wire.CredentialCreate) (*NewCredential, error) {
	path, err := under(a.path, id.String(), "credentials")
	if err != nil {
		return nil, err
	}
	var made wire.CredentialCreated
	err = a.admin.do(ctx, call{
		op: "account credential add", method: http.MethodPost, path: path, ifVersion: ifVersion, body: body,
	}, &made)
	if err != nil {
		return nil, err
	}
	out := &NewCredential{Credential: made.Credential, Version: made.Version}
	if made.ClientSecret != "" {
		out.Secret = credential.NewSecret([]byte(made.ClientSecret))
	}
	return out, nil
}

// RemoveCredential takes one away.
func (a Accounts) RemoveCredential(ctx context.Context, id credential.AccountID, credentialID string, ifVersion uint64, reason string) error {
	path, err := under(a.path, id.String(), "credentials", credentialID)
	if err != nil {
		return err
	}
	return a.admin.do(ctx, call{
		op: "account credential remove", method: http.MethodDelete, path: path,
		query: url.Values{"reason": {reason}}, ifVersion: ifVersion,
	}, nil)
}
