package wire

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ProblemContentType is the media type of a Problem (RFC 9457).
const ProblemContentType = "application/problem+json"

// ProblemTypePrefix precedes the code in a problem's type.
const ProblemTypePrefix = "urn:tenantbroker:problem:"

// Problem says why a request to the admin API failed (RFC 9457). Code is the
// stable, machine-readable part; Detail is for people.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Instance  string `json:"instance,omitempty"` // the request, as urn:tenantbroker:request:ID
	Code      string `json:"code"`
	Field     string `json:"field,omitempty"` // the member or parameter at fault
	RequestID string `json:"request_id,omitempty"`

	RetryAfter time.Duration `json:"-"` // from Retry-After, filled in by the client; 0 if absent
}

// The codes of problems.
const (
	CodeMalformed        = "malformed"              // 400: not JSON, a bad parameter, a bad cursor
	CodeInvalid          = "invalid"                // 422: a member breaks a rule; Field names it
	CodeUnauthenticated  = "unauthenticated"        // 401: no token, or one that is not accepted
	CodeForbidden        = "forbidden"              // 403: the token's roles or tenant don't allow it
	CodeNotFound         = "not_found"              // 404
	CodeMethodNotAllowed = "method_not_allowed"     // 405
	CodeExists           = "exists"                 // 409: the id is taken, or differs from one in case only
	CodeReserved         = "reserved"               // 409: the id was used before or belongs to the broker
	CodeInUse            = "in_use"                 // 409: something still rests on it
	CodeTooEarly         = "too_early"              // 409: a key may not be rotated yet
	CodeConflict         = "conflict"               // 409: not possible as things are
	CodeChanged          = "changed"                // 412: not at the version in If-Match
	CodeNeedIfMatch      = "precondition_required"  // 428: If-Match is missing
	CodeTooLarge         = "too_large"              // 413
	CodeMediaType        = "unsupported_media_type" // 415
	CodeRateLimited      = "slow_down"              // 429
	CodeUnavailable      = "temporarily_unavailable"
	CodeInternal         = "internal" // 500
)

// Sentinels for errors.Is on a *Problem, one for each code that a caller acts on.
var (
	ErrMalformed       = errors.New("malformed request")
	ErrInvalid         = errors.New("invalid")
	ErrUnauthenticated = errors.New("not signed in")
	ErrForbidden       = errors.New("not allowed")
	ErrNotFound        = errors.New("not found")
	ErrExists          = errors.New("exists already")
	ErrReserved        = errors.New("reserved")
	ErrInUse           = errors.New("in use")
	ErrTooEarly        = errors.New("too early")
	ErrConflict        = errors.New("not possible as things are")
	ErrChanged         = errors.New("changed since it was read")
	ErrNeedIfMatch     = errors.New("needs If-Match")
	ErrRateLimited     = errors.New("too many requests")
	ErrUnavailable     = errors.New("temporarily unavailable")
)

var sentinels = map[string]error{
	CodeMalformed: ErrMalformed, CodeInvalid: ErrInvalid, CodeUnauthenticated: ErrUnauthenticated,
	CodeForbidden: ErrForbidden, CodeNotFound: ErrNotFound, CodeExists: ErrExists, CodeReserved: ErrReserved,
	CodeInUse: ErrInUse, CodeTooEarly: ErrTooEarly, CodeConflict: ErrConflict, CodeChanged: ErrChanged, CodeNeedIfMatch: ErrNeedIfMatch,
	CodeRateLimited: ErrRateLimited, CodeUnavailable: ErrUnavailable,
}

// Error implements error.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" {
		fmt.Fprintf(&b, ": %s", p.Detail)
	}
	if p.Field != "" {
		fmt.Fprintf(&b, " (%s)", p.Field)
	}
	return b.String()
}

// Is reports whether target is the sentinel of p's code.
func (p *Problem) Is(target error) bool {
	s, known := sentinels[p.Code]
	return known && s == target
}
