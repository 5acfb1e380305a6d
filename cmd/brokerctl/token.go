package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func tokenCommand(a *app) *cobra.Command {
	return group("token", "Access tokens: get, read, verify, revoke", "",
		tokenIssue(a), tokenInspect(a), tokenVerify(a), tokenRevoke(a))
}

// identity returns the identity given by flags or, without any, the context's.
func (a *app) identity(given *profile) (*profile, error) {
	if given.Account == "" && given.KeyFile == "" && given.PlatformTokenFile == "" && given.SecretFile == "" {
		_, p, err := a.profile()
		if err != nil {
			return nil, err
		}
		both := *p
		if given.Issuer != "" {
			both.Issuer = given.Issuer
		}
		if given.CAFile != "" {
			both.CAFile = given.CAFile
		}
		return &both, nil
	}
	both := *given
	if both.Issuer == "" {
		_, p, err := a.profile()
		if err != nil {
			return nil, fmt.Errorf("--issuer is missing, and %w", err)
		}
		both.Issuer = p.Issuer
		if both.CAFile == "" {
			both.CAFile = p.CAFile
		}
	}
	return &both, nil
}

// as calls fn with a client for the identity.
func (a *app) as(given *profile, fn func(*client.Client) error) error {
	p, err := a.identity(given)
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it returns nil
	return fn(c)
}

func tokenIssue(a *app) *cobra.Command {
	given := new(profile)
	var req client.TokenRequest
	c := &cobra.Command{
		Use: "issue --tenant T --audience NAME", Short: "Get an access token", Args: cobra.NoArgs,
		Long: `issue gets an access token for one tenant and one audience, as the identity of the
context or the one given, and prints the token alone to stdout. With -o json it
comes with what is known of it.`,
		Example: `  brokerctl token issue --tenant acme --audience https://billing.example.com --account billing-worker --key worker.pem
  brokerctl token issue --tenant acme --audience orders --platform-token /var/run/secrets/tokens/broker | brokerctl token inspect`,
	}
	identityFlags(c, given)
	requestFlags(c, &req)
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		return a.as(given, func(c *client.Client) error {
			t, err := c.Token(ctx, req)
			if err != nil {
				return err
			}
			if a.output == outputTable {
				_, err := fmt.Fprintln(a.out, t.Reveal())
				return err
			}
			return a.printData(struct {
				AccessToken string              `json:"access_token"`
				Tenant      credential.Tenant   `json:"tenant"`
				Audience    credential.Audience `json:"audience"`
				Scope       credential.Scopes   `json:"scope"`
				Expires     time.Time           `json:"expires_at"`
			}{t.Reveal(), t.Tenant(), t.Audience(), t.Scopes(), t.Expires().UTC().Truncate(time.Second)})
		})
	})
	return c
}

// inspection is what a token says, unchecked.
type inspection struct {
	Verified  bool                 `json:"verified"` // never here
	Algorithm credential.Algorithm `json:"alg"`
	KeyID     string               `json:"kid"`
	Type      string               `json:"typ"`
	Claims    json.RawMessage      `json:"claims"`
}

func tokenInspect(a *app) *cobra.Command {
	given := new(profile)
	var ask bool
	c := &cobra.Command{
		Use: "inspect [FILE]", Short: "Read a token without verifying it", Args: cobra.MaximumNArgs(1),
		Long: `inspect shows what a token says. Nothing of it is verified: anyone can write such
a token. The token comes from a file or from stdin, never from the command line.

With --ask the broker is asked about it (RFC 7662) instead. It answers the
token's own client and the owner of its audience.`,
		Example: "  brokerctl token issue --tenant acme --audience orders | brokerctl token inspect\n  brokerctl token inspect token.txt -o json",
	}
	c.Flags().BoolVar(&ask, "ask", false, "ask the broker whether the token is active")
	identityFlags(c, given)
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		token, err := a.readToken(args)
		if err != nil {
			return err
		}
		if ask {
			return a.as(given, func(c *client.Client) error {
				answer, err := c.Introspect(ctx, token)
				return show(a)(answer, err)
			})
		}
		jws, err := credential.ParseJWS(string(token.Reveal()))
		if err != nil {
			return unverifiedError{err}
		}
		payload := jws.UnverifiedPayload()
		if _, err := credential.ParseObject(payload); err != nil {
			return unverifiedError{err}
		}
		a.note("not verified: this is what the token says, whoever wrote it")
		if _, err := credential.ParseClaims(payload); err != nil {
			a.note("not an access token of a tenantbroker: %v", err)
		}
		return a.printObject(inspection{Algorithm: jws.Algorithm(), KeyID: jws.KeyID(), Type: jws.Type(), Claims: payload})
	})
	return c
}

func tokenVerify(a *app) *cobra.Command {
	var issuer, keys, ca string
	var audience credential.Audience
	var tenant credential.Tenant
	c := &cobra.Command{
		Use: "verify --audience NAME [FILE]", Short: "Verify a token as a service would", Args: cobra.MaximumNArgs(1),
		Long: `verify checks a token the way a service does that uses the verifier package:
signature, issuer, audience, times, and exactly one tenant. Revocation is not
looked at; "token inspect --ask" does. Exit code 7 says that it did not verify.

The broker's keys are fetched, or taken from --jwks FILE.`,
		Example: "  brokerctl token verify --audience https://billing.example.com token.txt\n  brokerctl token verify --audience orders --tenant acme --jwks keys.json < token.txt",
	}
	f := c.Flags()
	f.StringVar(&issuer, "issuer", "", "the broker's URL (default: the context's)")
	parsed(f, &audience, credential.ParseAudience, "audience", "audience", "the service that received it (required)")
	parsed(f, &tenant, credential.ParseTenant, "tenant", "tenant", "the tenant that it has to carry")
	f.StringVar(&keys, "jwks", "", "file with the broker's keys, to verify offline")
	f.StringVar(&ca, "ca", "", "PEM file with the roots to trust instead of the system's")
	required(c, "audience")
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		p := &profile{Issuer: issuer, CAFile: ca}
		if issuer == "" {
			_, current, err := a.profile()
			if err != nil {
				return err
			}
			if p.Issuer = current.Issuer; ca == "" {
				p.CAFile = current.CAFile
			}
		}
		token, err := a.readToken(args)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		v, err := p.verifier(ctx, audience, keys, a.now)
		if err != nil {
			return err
		}
		defer v.Close()
		t, err := v.Verify(ctx, string(token.Reveal()))
		if err != nil {
			return unverifiedError{fmt.Errorf("the token does not verify (%s): %w", verifier.Reason(err), err)}
		}
		if !tenant.IsZero() && t.Tenant() != tenant {
			return unverifiedError{fmt.Errorf("the token is for tenant %s", t.Tenant())}
		}
		a.note("verified")
		return a.printObject(t.Claims())
	})
	return c
}

func (p *profile) verifier(ctx context.Context, audience credential.Audience, keyFile string, now func() time.Time) (*verifier.Verifier, error) {
	cfg := verifier.Config{Issuer: p.Issuer, Audience: audience.String(), Now: now}
	if keyFile != "" {
		data, err := os.ReadFile(keyFile) //nolint:gosec // the path is the user's own choice
		if err != nil {
			return nil, err
		}
		set, err := jwks.ParseSet(data)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", keyFile, err)}
		}
		cfg.Keys = set
	} else {
		h, err := p.httpClient()
		if err != nil {
			return nil, err
		}
		cfg.HTTPClient = h
	}
	v, err := verifier.New(ctx, cfg)
	if err != nil && !errors.Is(err, verifier.ErrUnavailable) {
		return nil, usageError{err}
	}
	return v, err
}
