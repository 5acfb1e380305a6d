package client

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// assertionLife is how long a client assertion may be used: long enough for a
// slow network and clocks apart, well below what the broker allows.
const assertionLife = time.Minute

// maxPlatformToken bounds a platform's token, in bytes.
const maxPlatformToken = credential.MaxTokenLength

// Auth is how a workload proves who it is: PrivateKeyJWT, PlatformToken or
// ClientSecret.
type Auth interface {
	// check says what is missing, once, when the Client is made.
	check() error
	// account is the account that answers must be for; zero: not known here.
	account() credential.AccountID
	// sign adds the proof to a request. It is called anew for every attempt.
	sign(ctx context.Context, p proof) error
}

// proof is the request that an Auth adds to.
type proof struct {
	issuer    credential.IssuerURL
	now       time.Time
	form      url.Values
	basicAuth func(id, password string)
	token     bool // a token request; else introspection or revocation
}

// PrivateKeyJWT authenticates with a registered key (private_key_jwt, RFC
// 7523): every request carries a fresh assertion that works once.
type PrivateKeyJWT struct {
	Account credential.AccountID
	// Key signs; it may live in a file (see LoadKey), an agent or a device.
	Key crypto.Signer
	// KeyID is the `kid` under which the key is registered; empty: its RFC 7638
	// thumbprint.
	KeyID string
	// Algorithm is by default the one that fits the key: ES256, ES384, EdDSA, RS256.
	Algorithm credential.Algorithm
}

func (a PrivateKeyJWT) account() credential.AccountID { return a.Account }

func (a PrivateKeyJWT) check() error {
	if a.Account.IsZero() {
		return errors.New("client: private key: no account")
	}
	if a.Key == nil {
		return errors.New("client: private key: no key")
	}
	_, err := newAssertionSigner(a)
	return err
}

func (a PrivateKeyJWT) sign(_ context.Context, p proof) error {
	s, err := newAssertionSigner(a)
	if err != nil {
		return err
	}
	assertion, err := s.assertion(a.Account, p.issuer, p.now)
	if err != nil {
		return err
	}
	if p.token {
		p.form.Set("grant_type", wire.GrantClientCredentials)
	}
	p.form.Set("client_assertion_type", wire.AssertionJWTBearer)
	p.form.Set("client_assertion", assertion)
	return nil
}

// PlatformToken authenticates with a JWT of the platform that the workload runs
// on: a projected Kubernetes service account token, a SPIFFE JWT-SVID, the OIDC
// token of a CI job. Exactly one of File and Func is set.
type PlatformToken struct {
	// File holds the token; it is read anew for every request, since platforms
	// replace it.
	File string
	// Func returns the token, e.g. from the SPIFFE Workload API.
	Func func(ctx context.Context) (credential.Secret, error)
	// Account is sent as client_id. It is needed where the account is found by
	// a condition rather than by the exact subject.
	Account credential.AccountID
}

func (a PlatformToken) account() credential.AccountID { return a.Account }

func (a PlatformToken) check() error {
	if (a.File == "") == (a.Func == nil) {
		return errors.New("client: platform token: exactly one of File and Func")
	}
	return nil
}

func (a PlatformToken) sign(ctx context.Context, p proof) error {
	raw, err := a.read(ctx)
	if err != nil {
		return err
	}
	if p.token {
		p.form.Set("grant_type", wire.GrantTokenExchange)
		p.form.Set("subject_token", raw)
		p.form.Set("subject_token_type", wire.TokenTypeJWT)
	} else {
		p.form.Set("client_assertion_type", wire.AssertionJWTBearer)
		p.form.Set("client_assertion", raw)
	}
	if !a.Account.IsZero() {
		p.form.Set("client_id", a.Account.String())
	}
	return nil
}

func (a PlatformToken) read(ctx context.Context) (string, error) {
	if a.Func != nil {
		s, err := a.Func(ctx)
		if err != nil {
			return "", fmt.Errorf("client: platform token: %w", err)
		}
		return nonEmptyToken(string(s.Reveal()))
	}
	f, err := os.Open(a.File)
	if err != nil {
		return "", fmt.Errorf("client: platform token: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, maxPlatformToken+1))
	if err != nil {
		return "", fmt.Errorf("client: platform token: %w", err)
	}
	return nonEmptyToken(string(b))
}

func nonEmptyToken(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", errors.New("client: platform token: empty")
	}
	if len(s) > maxPlatformToken {
		return "", fmt.Errorf("client: platform token: over %d bytes", maxPlatformToken)
	}
	return s, nil
}

// ClientSecret authenticates with a shared secret (client_secret_basic), for
// accounts that have not moved to a key or a platform yet.
type ClientSecret struct { //nolint:revive // OAuth's name for it
	Account credential.AccountID
	Secret  credential.Secret
}

func (a ClientSecret) account() credential.AccountID { return a.Account }

func (a ClientSecret) check() error {
	if a.Account.IsZero() || a.Secret.IsZero() {
		return errors.New("client: client secret: account and secret are required")
	}
	return nil
}

func (a ClientSecret) sign(_ context.Context, p proof) error {
	if p.token {
		p.form.Set("grant_type", wire.GrantClientCredentials)
	}
	// RFC 6749 section 2.3.1: both parts are form-encoded first.
	p.basicAuth(url.QueryEscape(a.Account.String()), url.QueryEscape(string(a.Secret.Reveal())))
	return nil
}
