package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
)

// requestTimeout bounds one call of the broker, the token for it included.
const requestTimeout = 20 * time.Second

// errNotOperator: the identity is good, but has no operator's grant.
var errNotOperator = errors.New("not an operator of this broker")

// connect returns a client for an identity. Tokens live in memory only: each
// run of brokerctl gets its own, so none lies around in a file.
func (p *profile) connect() (*client.Client, error) {
	issuer, err := credential.ParseIssuerURL(p.Issuer)
	if err != nil {
		return nil, usageError{err}
	}
	auth, err := p.auth()
	if err != nil {
		return nil, err
	}
	h, err := p.httpClient()
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Issuer: issuer, Auth: auth, HTTPClient: h, Timeout: requestTimeout})
}

func (p *profile) auth() (client.Auth, error) {
	var account credential.AccountID
	if p.Account != "" {
		var err error
		if account, err = credential.ParseAccountID(p.Account); err != nil {
			return nil, usageError{err}
		}
	}
	given := 0
	for _, f := range []string{p.KeyFile, p.PlatformTokenFile, p.SecretFile} {
		if f != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, usageError{errors.New("exactly one of --key, --platform-token and --client-secret-file")}
	case p.PlatformTokenFile != "":
		return client.PlatformToken{File: p.PlatformTokenFile, Account: account}, nil
	case account.IsZero():
		return nil, usageError{errors.New("--account is missing")}
	case p.KeyFile != "":
		return client.LoadKey(p.KeyFile, account)
	}
	secret, err := readSecretFile(p.SecretFile)
	if err != nil {
		return nil, err
	}
	return client.ClientSecret{Account: account, Secret: secret}, nil
}

// httpClient trusts the system's roots, or those of the context's CA file.
func (p *profile) httpClient() (*http.Client, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: requestTimeout,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if p.CAFile != "" {
		pem, err := os.ReadFile(p.CAFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", p.CAFile)
		}
		t.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{Transport: t}, nil
}

func readSecretFile(path string) (credential.Secret, error) {
	info, err := os.Stat(path)
	if err != nil {
		return credential.Secret{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return credential.Secret{}, fmt.Errorf("%s has mode %04o: others could read the secret; run chmod 600 on it", path, mode)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return credential.Secret{}, err
	}
	return credential.NewSecret([]byte(strings.TrimSpace(string(data)))), nil
}

// admin calls fn with the operators' calls of the context in use.
func (a *app) admin(ctx context.Context, fn func(ctx context.Context, admin *client.Admin) error) error {
	_, p, err := a.profile()
	if err != nil {
		return err
	}
	return p.admin(ctx, fn)
}

func (p *profile) admin(ctx context.Context, fn func(ctx context.Context, admin *client.Admin) error) error {
	bound, err := p.bound()
	if err != nil {
		return usageError{err}
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it returns nil
	admin := c.Admin(bound)
	if _, err := admin.Token(ctx); err != nil {
		if errors.Is(err, client.ErrInvalidTarget) {
			return fmt.Errorf("%w: %w", errNotOperator, err)
		}
		return err
	}
	return fn(ctx, admin)
}

// maxTokenInput bounds a token that is read, in bytes.
const maxTokenInput = credential.MaxTokenLength + 1024

// readToken reads a token from a file or, without one or for "-", from stdin:
// never from the command line, where every user of the machine could see it.
func (a *app) readToken(args []string) (credential.Secret, error) {
	in := a.in
	if len(args) > 0 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			if strings.HasPrefix(args[0], "eyJ") {
				return credential.Secret{}, usageError{errors.New("the argument is a file with the token; a token itself does not belong on a command line, pipe it in instead")}
			}
			return credential.Secret{}, err
		}
		defer f.Close() //nolint:errcheck // nothing was written
		in = f
	} else if a.asks {
		a.note("Paste the token, then press Enter and Ctrl-D.")
	}
	data, err := io.ReadAll(io.LimitReader(in, maxTokenInput+1))
	if err != nil {
		return credential.Secret{}, err
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return credential.Secret{}, usageError{errors.New("no token: name a file with it, or pipe it in")}
	}
	if len(data) > maxTokenInput {
		return credential.Secret{}, fmt.Errorf("over %d bytes: not a token", maxTokenInput)
	}
	return credential.NewSecret([]byte(token)), nil
}
