package guard

import (
	"context"
	"errors"
	"strings"
)

// ErrSeveral means: a caller sent more than one token, or what is none.
var ErrSeveral = errors.New("guard: not exactly one bearer token")

// Why no token is taken from where callers put it.
const (
	reasonNoToken   = "no_token"
	reasonSeveral   = "several_tokens"
	reasonMalformed = "malformed"
)

// EnterBearer is Enter with the token as callers send it: sent is every value of
// the Authorization header, or of what stands for it in another protocol.
//
// Errors: ErrNoToken where none was sent, or with another scheme, and ErrSeveral,
// each a *Denied; those of Enter.
func (g *Guard) EnterBearer(ctx context.Context, sent []string, requestID string) (context.Context, error) {
	raw, reason := bearer(sent)
	if reason == "" {
		return g.Enter(ctx, raw, requestID)
	}
	d := &Denied{Decision: Decision{Reason: reason, RequestID: requestID}, err: ErrSeveral}
	if reason == reasonNoToken {
		d.err = ErrNoToken
	}
	g.decide(ctx, d.Decision)
	return nil, d
}

// bearer returns the one token that the values of an Authorization header hold,
// or the reason why there is none (RFC 6750 section 2.1).
func bearer(sent []string) (raw, reason string) {
	switch len(sent) {
	case 0:
		return "", reasonNoToken
	case 1:
	default:
		return "", reasonSeveral
	}
	scheme, raw, _ := strings.Cut(sent[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", reasonNoToken
	}
	raw = strings.TrimLeft(raw, " ")
	if raw == "" || several(raw) {
		return "", reasonMalformed
	}
	return raw, ""
}

// several looks for what parts two tokens, byte by byte: strings.ContainsAny takes
// a fifth of a request's time.
func several(raw string) bool {
	return strings.IndexByte(raw, ' ') >= 0 || strings.IndexByte(raw, ',') >= 0 || strings.IndexByte(raw, '\t') >= 0
}
