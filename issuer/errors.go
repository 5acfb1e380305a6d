package issuer

import (
	"fmt"
	"time"
)

// Code is an OAuth error code (RFC 6749 section 5.2, RFC 8693 section 2.2.2,
// RFC 8707 section 2, RFC 8628 section 3.5 for slow_down).
type Code string

// The codes of the token endpoint. All but UnauthorizedClient are answered by
// the issuer: today every account may use both grant types, and what it may get
// by them is up to its grants (I4).
const (
	InvalidRequest         Code = "invalid_request"
	InvalidClient          Code = "invalid_client"
	InvalidTarget          Code = "invalid_target"
	InvalidScope           Code = "invalid_scope"
	UnauthorizedClient     Code = "unauthorized_client"
	UnsupportedGrantType   Code = "unsupported_grant_type"
	SlowDown               Code = "slow_down"
	TemporarilyUnavailable Code = "temporarily_unavailable"
)

// descriptions are all that a caller is told: one per code, so that nothing
// finer than the category leaves the broker.
var descriptions = map[Code]string{
	InvalidRequest:         "The request is malformed or lacks something.",
	InvalidClient:          "Client authentication failed.",
	InvalidTarget:          "No grant covers this tenant and audience.",
	InvalidScope:           "The scope is malformed or more than the grant allows.",
	UnauthorizedClient:     "The client may not use this grant type.",
	UnsupportedGrantType:   "This grant type is not supported.",
	SlowDown:               "Too many requests.",
	TemporarilyUnavailable: "Try again shortly.",
}

// Error is a refusal. What it shows the caller is Code, Description and
// RetryAfter; Reason and Cause are private: they go to the audit record and
// the log.
type Error struct {
	Code       Code
	Param      string        // the parameter at fault; only with InvalidRequest
	RetryAfter time.Duration // at least a second with SlowDown and TemporarilyUnavailable, else 0
	Reason     string        // private: the exact cause, a stable snake_case word
	Cause      error         // private: what went wrong beneath; may be nil
}

// Error returns the code and the private reason: for logs, not for callers.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Param != "" {
		s += " (" + e.Param + ")"
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Cause != nil {
		s = fmt.Sprintf("%s: %v", s, e.Cause)
	}
	return s
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.Cause }

// Description returns the text that a caller may see. It depends on nothing
// but Code and, for InvalidRequest, on the name of a parameter that this
// package knows.
func (e *Error) Description() string {
	if e.Code == InvalidRequest && e.Param != "" {
		return "Missing, malformed or not allowed here: " + e.Param + "."
	}
	return descriptions[e.Code]
}
