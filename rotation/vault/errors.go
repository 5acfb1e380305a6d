package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Error says which call failed and what Vault answered. It never holds a token
// or a value that was sent.
type Error struct {
	Status     int           // HTTP status; 0: no answer
	Method     string        // GET, PUT, LIST, DELETE
	Path       string        // without /v1/
	Messages   []string      // Vault's own, bounded, see messages.go
	RetryAfter time.Duration // 0: not said

	kinds []error // the sentinels above
	cause error   // of the transport; shown
	dead  bool    // Vault doesn't know the token
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	kind := "vault: failed"
	if len(e.kinds) > 0 {
		kind = e.kinds[0].Error()
	}
	fmt.Fprintf(&b, "%s: %s %s", kind, e.Method, e.Path)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %d", e.Status)
	}
	if len(e.Messages) > 0 {
		b.WriteString(": " + strings.Join(e.Messages, "; "))
	}
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	return b.String()
}

// Is reports whether target is one of the kinds of this error.
func (e *Error) Is(target error) bool { return slices.Contains(e.kinds, target) }

// Unwrap returns what the transport said.
func (e *Error) Unwrap() error { return e.cause }

// uncertain adds ErrUncertain, first, so that it is what a person reads.
func (e *Error) uncertain() {
	if !e.Is(ErrUncertain) {
		e.kinds = append([]error{ErrUncertain}, e.kinds...)
	}
	if !e.Is(ErrUnavailable) {
		e.kinds = append(e.kinds, ErrUnavailable)
	}
}

// classify fills in the kinds for a status and its messages. effect says
// whether the call changes or makes something.
func (e *Error) classify(effect bool) {
	switch {
	case e.Status >= 300 && e.Status < 400:
		e.kinds = []error{ErrStandby, ErrUnavailable}
	case e.Status == http.StatusBadRequest && e.says("did not match the current version"):
		e.kinds = []error{ErrConflict}
	case e.Status == http.StatusBadRequest && e.saysLeaseIsGone():
		e.kinds = []error{ErrNotFound, ErrRefused}
	case e.Status == http.StatusBadRequest && strings.HasPrefix(e.Path, "sys/leases/revoke") && e.says("failed to revoke"):
		e.uncertain() // the database, say, didn't play along: nothing was wrong with the request
	case e.Status == http.StatusForbidden:
		e.kinds = []error{ErrForbidden}
	case e.Status == http.StatusNotFound:
		e.kinds = []error{ErrNotFound}
	case e.Status == http.StatusTooManyRequests:
		e.kinds = []error{ErrRateLimited, ErrUnavailable}
	case e.Status == http.StatusPreconditionFailed: // a node that lags behind; not done
		e.kinds = []error{ErrUnavailable}
	case e.Status == http.StatusServiceUnavailable && e.says("Vault is sealed"):
		e.kinds = []error{ErrSealed, ErrUnavailable}
	case e.Status >= 500 && (e.says("standby") || e.says("active cluster node not found")):
		e.kinds = []error{ErrStandby, ErrUnavailable}
	case e.Status >= 500:
		e.kinds = []error{ErrUnavailable}
		if effect { // it may have failed after it was done
			e.uncertain()
		}
	case e.Status >= 400:
		e.kinds = []error{ErrRefused}
	}
}

// saysLeaseIsGone: Vault answers 400 where it knows no such lease.
func (e *Error) saysLeaseIsGone() bool {
	return strings.HasPrefix(e.Path, "sys/leases/") && (e.says("invalid lease") || e.says("lease not found"))
}

// tokenIsDead reports whether Vault knows the token no more, as against one
// whose policies don't allow the call.
func (e *Error) tokenIsDead() bool { return e.dead }

func (e *Error) says(words string) bool {
	return slices.ContainsFunc(e.Messages, func(m string) bool { return strings.Contains(m, words) })
}

// answerError builds the error for an answer that is none of success.
func answerError(c *call, status int, header http.Header, body []byte) *Error {
	e := &Error{Status: status, Method: c.method, Path: shownPath(c.path), RetryAfter: retryAfter(header)}
	said, ok := decodeErrors(body)
	e.Messages = said
	e.classify(c.effect)
	e.dead = e.Status == http.StatusForbidden && (e.says("invalid token") || e.says("bad token"))
	e.Messages = shown(said, c.sent())
	if !ok && len(body) > 0 {
		e.Messages = []string{fmt.Sprintf("not an answer of Vault: %d bytes", len(body))}
	}
	return e
}

// transportError builds the error for a call without a usable answer. sent
// says whether Vault can have seen it.
func transportError(ctx context.Context, c *call, cause error, sent bool) *Error {
	e := &Error{Method: c.method, Path: shownPath(c.path), kinds: []error{ErrUnavailable}, cause: plainCause(cause)}
	if ended := ctx.Err(); ended != nil {
		e.cause = ended
	}
	if sent && c.effect {
		e.uncertain()
	}
	return e
}

// plainCause takes the URL, which the error names already, out of the cause.
func plainCause(err error) error {
	var named *url.Error
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

const (
	maxShownPath  = 200
	maxRetryAfter = time.Hour
)

func shownPath(path string) string {
	if path = printable(path); len(path) > maxShownPath {
		path = path[:maxShownPath] + "…"
	}
	return path
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(h.Get("Retry-After"), 64)
	if err != nil || !(seconds > 0) {
		return 0
	}
	return min(time.Duration(min(seconds, maxRetryAfter.Seconds())*float64(time.Second)), maxRetryAfter)
}

// unexpected is an answer of status 200 that can't be what Vault gives.
func unexpected(c *call, what string) error {
	e := &Error{Method: c.method, Path: shownPath(c.path), Status: http.StatusOK, kinds: []error{ErrAnswer}, cause: errors.New(what)}
	if c.effect {
		e.uncertain()
	}
	return e
}

type errorBody struct {
	Errors []string `json:"errors"`
	Data   struct {
		Error string `json:"error"`
	} `json:"data"`
}

func decodeErrors(body []byte) ([]string, bool) {
	var b errorBody
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, false
	}
	if b.Data.Error != "" {
		b.Errors = append(b.Errors, b.Data.Error)
	}
	return b.Errors, true
}
