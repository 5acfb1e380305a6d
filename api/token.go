package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
)

func (s *server) issueToken(ctx context.Context, w *response, req issuer.Request) error {
	answer, err := s.issuer.Token(ctx, issuer.TokenRequest{Request: req})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, appendTokenResponse(make([]byte, 0, len(answer.AccessToken)+len(answer.Scope)+192), answer))
	return nil
}

// appendTokenResponse writes a wire.TokenResponse without reflection.
func appendTokenResponse(b []byte, t issuer.TokenResponse) []byte {
	b = appendQuoted(append(b, `{"access_token":`...), t.AccessToken)
	if t.IssuedTokenType != "" {
		b = appendQuoted(append(b, `,"issued_token_type":`...), t.IssuedTokenType)
	}
	b = appendQuoted(append(b, `,"token_type":`...), t.TokenType)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), t.ExpiresIn, 10)
	b = appendQuoted(append(b, `,"scope":`...), t.Scope)
	return append(b, '}')
}

func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func (s *server) introspect(ctx context.Context, w *response, req issuer.Request) error {
	answer, err := s.issuer.Introspect(ctx, issuer.IntrospectRequest{Request: req})
	if err != nil {
		return err
	}
	body, err := json.Marshal(introspection(answer))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

func introspection(a issuer.Introspection) wire.Introspection {
	if !a.Active {
		return wire.Introspection{}
	}
	c := &a.Claims
	return wire.Introspection{
		Active: true, TokenType: "Bearer", Issuer: c.Issuer, Subject: c.Subject.String(), ClientID: c.ClientID.String(),
		Audience: c.Audience.String(), Tenant: c.Tenant.String(), Scope: c.Scopes.String(), IssuedAt: c.IssuedAt.Unix(),
		Expires: c.Expires.Unix(), ID: c.ID, Txn: c.Txn, Actor: actor(c.Actor), Job: c.Job,
	}
}

func actor(a *credential.Actor) *wire.Actor {
	if a == nil {
		return nil
	}
	return &wire.Actor{Subject: a.Subject.String(), By: actor(a.By)}
}

// revoke answers 200 without a body whether or not there was something to
// revoke (RFC 7009 section 2.2).
func (s *server) revoke(ctx context.Context, w *response, req issuer.Request) error {
	if err := s.issuer.Revoke(ctx, issuer.RevokeRequest{Request: req}); err != nil {
		return err
	}
	w.Header()["Content-Length"] = []string{"0"}
	w.WriteHeader(http.StatusOK)
	return nil
}
