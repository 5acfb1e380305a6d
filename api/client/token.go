package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// TokenRequest names the one tenant and the one audience that a token is for.
type TokenRequest struct {
	Tenant   credential.Tenant
	Audience credential.Audience
	// Scopes are what the token must carry, exactly; empty: all that the grant
	// allows for the audience.
	Scopes credential.Scopes
}

func (r TokenRequest) check() error {
	if r.Tenant.IsZero() || r.Audience.IsZero() {
		return errors.New("client: a token request needs a tenant and an audience")
	}
	return nil
}

// Token is an access token as the broker answered it, for exactly the tenant,
// audience and scopes of the request. It shows itself only through Reveal.
type Token struct {
	raw     credential.Secret
	request TokenRequest
	scopes  credential.Scopes
	expires time.Time
	life    time.Duration
}

// Reveal returns the token itself: for an Authorization header.
func (t *Token) Reveal() string { return string(t.raw.Reveal()) }

// Tenant returns the tenant that the token is bound to.
func (t *Token) Tenant() credential.Tenant { return t.request.Tenant }

// Audience returns the service that the token is for.
func (t *Token) Audience() credential.Audience { return t.request.Audience }

// Scopes returns what was issued.
func (t *Token) Scopes() credential.Scopes { return t.scopes }

// Expires returns when the token ends, by this machine's clock.
func (t *Token) Expires() time.Time { return t.expires }

// String names the token without showing it.
func (t *Token) String() string {
	return fmt.Sprintf("token for tenant %s, audience %s, until %s",
		t.Tenant(), t.Audience(), t.expires.UTC().Format(time.RFC3339))
}

// GoString is String, for %#v.
func (t *Token) GoString() string { return t.String() }

// LogValue shows slog what String shows.
func (t *Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// usable leaves a margin, so that a token does not end on its way.
func (t *Token) usable(now time.Time) bool {
	return now.Before(t.expires.Add(-min(5*time.Second, t.life/10)))
}

// TokenSource returns a source of tokens for one request, for code that takes
// golang.org/x/oauth2's interface. ctx bounds every wait for a token. Tokens
// come from the Client's cache.
func (c *Client) TokenSource(ctx context.Context, req TokenRequest) oauth2.TokenSource {
	return tokenSource{ctx: ctx, client: c, request: req}
}

type tokenSource struct {
	ctx     context.Context // the interface of x/oauth2 has no other place for it
	client  *Client
	request TokenRequest
}

func (s tokenSource) Token() (*oauth2.Token, error) {
	t, err := s.client.Token(s.ctx, s.request)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: t.Reveal(), TokenType: "Bearer", Expiry: t.expires}, nil
}

// fetch asks the broker for one token, again while it says "later", or nothing
// at all, and the deadline of ctx allows: a refused request has no effect, the
// token of a lost answer is nobody's, and every attempt has a proof of its own.
func (c *Client) fetch(ctx context.Context, req TokenRequest) (*Token, error) {
	const attempts = 3
	for n := 1; ; n++ {
		sent := c.now().Round(0)
		form := url.Values{
			"tenant":   {req.Tenant.String()},
			"audience": {req.Audience.String()},
		}
		if !req.Scopes.IsEmpty() {
			form.Set("scope", req.Scopes.String())
		}
		var answer wire.TokenResponse
		err := c.postForm(ctx, "token", wire.PathToken, form, &answer)
		if err == nil {
			return c.accept(req, answer, sent)
		}
		var e *Error
		if n == attempts || !errors.As(err, &e) || !e.saysLater() && !e.silent() {
			return nil, err
		}
		wait := max(e.RetryAfter, c.backoff(n, time.Second))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return nil, err
		}
		if c.sleep(ctx, wait) != nil {
			return nil, err
		}
	}
}

// saysLater reports an answer by which the broker did nothing yet.
func (e *Error) saysLater() bool {
	return e.Status == 429 || e.Status == 503
}

// silent reports that there was no answer, for a reason that may pass: a
// connection that broke, a broker that restarts. A certificate doesn't improve.
func (e *Error) silent() bool {
	if e.Status != 0 || !errors.Is(e.kind, ErrUnavailable) {
		return false
	}
	var certificate *tls.CertificateVerificationError
	return !errors.As(e.cause, &certificate)
}

// accept holds the broker's answer to what was asked. Nothing of the token is
// verified here (that is the audience's business), but a broker, proxy or
// cache that mixes up answers is found out before the token goes anywhere.
func (c *Client) accept(req TokenRequest, answer wire.TokenResponse, sent time.Time) (*Token, error) {
	wrong := func(what string) (*Token, error) {
		return nil, &Error{Op: "token", Status: 200, Detail: what, kind: ErrUnexpected}
	}
	if !strings.EqualFold(answer.TokenType, "Bearer") {
		return wrong("token_type is not Bearer")
	}
	if answer.IssuedTokenType != "" && answer.IssuedTokenType != wire.TokenTypeAccessToken && answer.IssuedTokenType != wire.TokenTypeJWT {
		return wrong("issued_token_type is not an access token's")
	}
	if answer.ExpiresIn < 1 || answer.ExpiresIn > int64(credential.MaxAccessLifetime/time.Second) {
		return wrong("expires_in is out of range")
	}
	jws, err := credential.ParseJWS(answer.AccessToken)
	if err != nil {
		return wrong("the access token is malformed")
	}
	claims, err := credential.ParseClaims(jws.UnverifiedPayload())
	if err != nil {
		return wrong("the access token's claims are malformed")
	}
	scopes, err := credential.ParseScopes(answer.Scope)
	if err != nil {
		return wrong("scope is malformed")
	}
	account := c.auth.account()
	switch {
	case !strings.EqualFold(jws.Type(), "at+jwt") && !strings.EqualFold(jws.Type(), "application/at+jwt"):
		return wrong("the token is not an access token (RFC 9068)")
	case claims.Issuer != c.issuer.String():
		return wrong("the token is another issuer's")
	case claims.Tenant != req.Tenant:
		return wrong("the token is for another tenant")
	case claims.Audience != req.Audience:
		return wrong("the token is for another audience")
	case !account.IsZero() && claims.ClientID != account:
		return wrong("the token is another account's")
	case claims.Scopes != scopes:
		return wrong("the token's scope is not the one that the answer names")
	case !req.Scopes.IsEmpty() && scopes != req.Scopes:
		return wrong("the token is for another scope")
	}
	// The two clocks are never compared, only lengths of time.
	life := min(time.Duration(answer.ExpiresIn)*time.Second, claims.Expires.Sub(claims.IssuedAt))
	if life <= 0 {
		return wrong("the token ends before it begins")
	}
	return &Token{
		raw:     credential.NewSecret([]byte(answer.AccessToken)),
		request: req,
		scopes:  scopes,
		expires: sent.Add(life),
		life:    life,
	}, nil
}
