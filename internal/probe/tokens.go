package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
)

// TokenSource gives the token of one tenant; it is asked for every request.
type TokenSource func(ctx context.Context) (credential.Secret, error)

// Environment is where Sources looks things up.
type Environment struct {
	Getenv func(string) string
	Folder string // where relative names of files begin
	// HTTPClient reaches the brokers; nil: one that trusts the system's roots, or
	// those of the description's ca_file.
	HTTPClient *http.Client
}

// Renewable says which tenant's token can't be had anew: one in an environment
// variable lasts minutes.
func (d *Description) Renewable() error {
	for _, t := range []struct {
		who string
		c   Credentials
	}{{"a", d.Tenants.A}, {"b", d.Tenants.B}} {
		if t.c.TokenEnv != "" {
			return fmt.Errorf("probe: tenants.%s: a token from the environment can't be renewed: broker, or token_file where something renews it", t.who)
		}
	}
	return nil
}

// Sources returns where the tokens of both tenants come from. close ends what
// was opened for it.
func (d *Description) Sources(e Environment) (a, b TokenSource, closeAll func(), err error) {
	var opened []*client.Client
	closeAll = func() {
		for _, c := range opened {
			_ = c.Close() // returns nil
		}
	}
	source := func(c Credentials) (TokenSource, error) {
		switch {
		case c.TokenFile != "":
			return fromFile(e.path(c.TokenFile)), nil
		case c.TokenEnv != "":
			return func(context.Context) (credential.Secret, error) {
				return tokenOf(e.Getenv(c.TokenEnv), "the environment variable "+c.TokenEnv)
			}, nil
		}
		broker, err := c.Broker.client(e)
		if err != nil {
			return nil, err
		}
		opened = append(opened, broker)
		request := client.TokenRequest{Tenant: c.Tenant, Audience: c.Broker.Audience, Scopes: c.Broker.Scope}
		return func(ctx context.Context) (credential.Secret, error) {
			token, err := broker.Token(ctx, request)
			if err != nil {
				return credential.Secret{}, err
			}
			return credential.NewSecret([]byte(token.Reveal())), nil
		}, nil
	}
	if a, err = source(d.Tenants.A); err == nil {
		b, err = source(d.Tenants.B)
	}
	if err != nil {
		closeAll()
		return nil, nil, nil, err
	}
	return a, b, closeAll, nil
}

func (e Environment) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(e.Folder, name)
}

func (b *Broker) client(e Environment) (*client.Client, error) {
	key, err := client.LoadKey(e.path(b.KeyFile), b.Account)
	if err != nil {
		return nil, err
	}
	h := e.HTTPClient
	if h == nil && b.CAFile != "" {
		t, err := transport(e.path(b.CAFile))
		if err != nil {
			return nil, err
		}
		h = &http.Client{Transport: t}
	}
	return client.New(client.Config{Issuer: b.Issuer, Auth: key, HTTPClient: h})
}

// fromFile reads the file each time, since tokens in files are replaced. It
// refuses one that others can read.
func fromFile(path string) TokenSource {
	return func(context.Context) (credential.Secret, error) {
		f, err := os.Open(path) //nolint:gosec // the path is the user's own choice
		if err != nil {
			return credential.Secret{}, err
		}
		defer f.Close() //nolint:errcheck // nothing was written
		info, err := f.Stat()
		if err != nil {
			return credential.Secret{}, err
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return credential.Secret{}, fmt.Errorf("%s has mode %04o: others could read the token; run chmod 600 on it", path, mode)
		}
		data, err := io.ReadAll(io.LimitReader(f, credential.MaxTokenLength+2))
		if err != nil {
			return credential.Secret{}, err
		}
		return tokenOf(string(data), path)
	}
}

// tokenOf takes what can stand in an Authorization header. Its errors name the
// place, never the text.
func tokenOf(text, place string) (credential.Secret, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return credential.Secret{}, fmt.Errorf("%s holds no token", place)
	case len(text) > credential.MaxTokenLength:
		return credential.Secret{}, fmt.Errorf("%s holds over %d bytes: not a token", place, credential.MaxTokenLength)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return credential.Secret{}, fmt.Errorf("%s holds not exactly one token", place)
	}
	return credential.NewSecret([]byte(text)), nil
}

// ErrCredentials means: the tokens are not those of two tenants as described, so
// nothing that was tried with them would prove anything.
var ErrCredentials = errors.New("probe: the tokens are not of the tenants that the description names")

// distinct refuses one token for both and, of tokens that say their tenant, one
// that says another than described. Nothing is verified here.
func distinct(a, b credential.Secret, d *Description) error {
	if a.Equal(b) {
		return fmt.Errorf("%w: both are the same token", ErrCredentials)
	}
	for _, t := range []struct {
		raw  credential.Secret
		want credential.Tenant
		who  string
	}{{a, d.Tenants.A.Tenant, "a"}, {b, d.Tenants.B.Tenant, "b"}} {
		jws, err := credential.ParseJWS(string(t.raw.Reveal()))
		if err != nil {
			continue // opaque, or another issuer's
		}
		claims, err := credential.ParseClaims(jws.UnverifiedPayload())
		if err == nil && claims.Tenant != t.want {
			return fmt.Errorf("%w: that of %s says tenant %s", ErrCredentials, t.who, claims.Tenant)
		}
	}
	return nil
}
