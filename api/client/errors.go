package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// What can go wrong, to be matched with errors.Is. An *Error wraps the one
// that fits; several OAuth codes and HTTP statuses share one.
var (
	// ErrInvalidClient: the broker does not accept the proof of identity (401).
	ErrInvalidClient = errors.New("client authentication failed")
	// ErrInvalidTarget: no grant for this tenant and audience. The broker does
	// not tell an unknown tenant from an ungranted or suspended one.
	ErrInvalidTarget = errors.New("no grant for this tenant and audience")
	// ErrInvalidScope: the grant lacks a scope that was asked for.
	ErrInvalidScope = errors.New("the grant lacks a requested scope")
	// ErrInvalidRequest: the broker could not make sense of the request, or
	// refused the platform's token.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrUnauthorizedClient: this account may not use this kind of request.
	ErrUnauthorizedClient = errors.New("the account may not use this kind of request")
	// ErrSlowDown: a rate limit; Error.RetryAfter says for how long.
	ErrSlowDown = errors.New("rate limited")
	// ErrUnavailable: no answer, or one that says "later". Whether a change was
	// made is not known.
	ErrUnavailable = errors.New("the broker is unavailable")
	// ErrUnexpected: an answer that is not what was asked for, e.g. a token of
	// another tenant. Nothing of it is used.
	ErrUnexpected = errors.New("unexpected answer from the broker")
	// ErrForbidden: the operator lacks the role, or the object is outside of
	// the tenant that bounds the operator (403).
	ErrForbidden = errors.New("not allowed")
	// ErrNotFound: no such object (404).
	ErrNotFound = errors.New("not found")
	// ErrConflict: the object exists already, or is in use (409).
	ErrConflict = errors.New("conflict")
	// ErrChanged: the object changed since it was read (412), or the version
	// was missing (428).
	ErrChanged = errors.New("changed since it was read")
	// ErrInvalid: an object that breaks a rule (400, 422).
	ErrInvalid = errors.New("invalid object")
	// ErrClosed: the Client was closed.
	ErrClosed = errors.New("client is closed")
)

// Error is an answer of the broker that is not a success, or the lack of one.
type Error struct {
	Op         string        // what was asked, e.g. "token"
	Status     int           // HTTP status; 0: no answer
	Code       string        // OAuth error code or problem code; may be empty
	Field      string        // the offending member of an object, if the broker named one
	Detail     string        // the broker's words, printable, bounded
	RequestID  string        // to find the answer in the broker's log and audit trail
	RetryAfter time.Duration // 0: the broker named no time
	kind       error         // one of the sentinels
	cause      error         // why there was no answer
	problem    *wire.Problem // the answer, from the operators' endpoints
}

// Error names the operation, what went wrong and the request id.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.Op, e.kind)
	if e.Field != "" {
		fmt.Fprintf(&b, ": %s", e.Field)
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %v", e.cause)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %s)", e.RetryAfter)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap returns the sentinel and, where there is one, the cause or the
// *wire.Problem, so that the finer sentinels of wire match too.
func (e *Error) Unwrap() []error {
	all := []error{e.kind}
	if e.cause != nil {
		all = append(all, e.cause)
	}
	if e.problem != nil {
		all = append(all, e.problem)
	}
	return all
}

// oauthKinds maps the error codes of the token, introspection and revocation
// endpoints (RFC 6749 section 5.2, RFC 8693 section 2.2.2) to sentinels.
var oauthKinds = map[string]error{
	wire.OAuthInvalidClient:          ErrInvalidClient,
	wire.OAuthInvalidTarget:          ErrInvalidTarget,
	wire.OAuthInvalidScope:           ErrInvalidScope,
	wire.OAuthInvalidRequest:         ErrInvalidRequest,
	wire.OAuthUnauthorizedClient:     ErrUnauthorizedClient,
	wire.OAuthUnsupportedGrantType:   ErrUnauthorizedClient,
	wire.OAuthUnsupportedTokenType:   ErrInvalidRequest,
	wire.OAuthSlowDown:               ErrSlowDown,
	wire.OAuthTemporarilyUnavailable: ErrUnavailable,
	wire.OAuthServerError:            ErrUnavailable,
}

// statusKinds maps the statuses of all endpoints to sentinels, for answers
// whose code is not an OAuth one.
var statusKinds = map[int]error{
	http.StatusBadRequest:            ErrInvalid,
	http.StatusUnauthorized:          ErrInvalidClient,
	http.StatusForbidden:             ErrForbidden,
	http.StatusNotFound:              ErrNotFound,
	http.StatusConflict:              ErrConflict,
	http.StatusPreconditionFailed:    ErrChanged,
	http.StatusPreconditionRequired:  ErrChanged,
	http.StatusUnprocessableEntity:   ErrInvalid,
	http.StatusRequestEntityTooLarge: ErrInvalid,
	http.StatusUnsupportedMediaType:  ErrInvalid,
	http.StatusTooManyRequests:       ErrSlowDown,
}

func kindOfStatus(status int) error {
	if kind, ok := statusKinds[status]; ok {
		return kind
	}
	if status >= 500 {
		return ErrUnavailable
	}
	return ErrUnexpected
}

// denied reports whether the broker has decided against the request, so that a
// token from before that decision is not to be used any more.
func denied(err error) bool {
	return errors.Is(err, ErrInvalidClient) || errors.Is(err, ErrInvalidTarget) ||
		errors.Is(err, ErrInvalidScope) || errors.Is(err, ErrUnauthorizedClient)
}

// maxRetryAfter bounds what a Retry-After header can make a client wait.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3), seconds or date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.ParseUint(v, 10, 32); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// printable makes text of a remote party safe for a terminal and a log line.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len()+4 > limit {
			b.WriteString("…")
			break
		}
		if !strconv.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
