package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// problemKinds is the one table from a problem's code to its status and title.
var problemKinds = map[string]struct {
	status int
	title  string
}{
	wire.CodeMalformed:        {http.StatusBadRequest, "Malformed request"},
	wire.CodeInvalid:          {http.StatusUnprocessableEntity, "Not valid"},
	wire.CodeUnauthenticated:  {http.StatusUnauthorized, "Not signed in"},
	wire.CodeForbidden:        {http.StatusForbidden, "Not allowed"},
	wire.CodeNotFound:         {http.StatusNotFound, "Not found"},
	wire.CodeMethodNotAllowed: {http.StatusMethodNotAllowed, "Method not allowed"},
	wire.CodeExists:           {http.StatusConflict, "Exists already"},
	wire.CodeReserved:         {http.StatusConflict, "Reserved for the broker"},
	wire.CodeInUse:            {http.StatusConflict, "In use"},
	wire.CodeTooEarly:         {http.StatusConflict, "Too early"},
	wire.CodeConflict:         {http.StatusConflict, "Not possible as things are"},
	wire.CodeChanged:          {http.StatusPreconditionFailed, "Changed since it was read"},
	wire.CodeNeedIfMatch:      {http.StatusPreconditionRequired, "If-Match is required"},
	wire.CodeTooLarge:         {http.StatusRequestEntityTooLarge, "Too large"},
	wire.CodeMediaType:        {http.StatusUnsupportedMediaType, "Unsupported media type"},
	wire.CodeRateLimited:      {http.StatusTooManyRequests, "Too many requests"},
	wire.CodeUnavailable:      {http.StatusServiceUnavailable, "Temporarily unavailable"},
	wire.CodeInternal:         {http.StatusInternalServerError, "Something went wrong here"},
}

// errorCodes is the one table from an error of the layers below to a code.
// shown says whether its text is for the client: it names rules and fields.
var errorCodes = []struct {
	err   error
	code  string
	shown bool
}{
	{registry.ErrInvalid, wire.CodeInvalid, true},
	{registry.ErrForbidden, wire.CodeForbidden, true},
	{registry.ErrExists, wire.CodeExists, true},
	{registry.ErrReserved, wire.CodeReserved, true},
	{registry.ErrInUse, wire.CodeInUse, true},
	{registry.ErrNotFound, wire.CodeNotFound, false},
	{registry.ErrChanged, wire.CodeChanged, false},
	{revocation.ErrFull, wire.CodeConflict, true},
	{revocation.ErrTenantFull, wire.CodeConflict, true},
	{secrets.ErrBusy, wire.CodeConflict, true},
	{secrets.ErrIdle, wire.CodeConflict, true},
	{secrets.ErrPromoted, wire.CodeConflict, true},
	{secrets.ErrNoVersion, wire.CodeConflict, true},
	{secrets.ErrFull, wire.CodeConflict, true},
	{secrets.ErrUnreadable, wire.CodeConflict, true},
	{secrets.ErrPlanChanged, wire.CodeChanged, true},
	{keys.ErrTooEarly, wire.CodeTooEarly, true},
	{keys.ErrUnknownKey, wire.CodeNotFound, false},
	{keys.ErrRevoked, wire.CodeConflict, true},
	{keys.ErrRingFull, wire.CodeConflict, true},
	{keys.ErrNotReady, wire.CodeUnavailable, false},
	{keys.ErrHome, wire.CodeUnavailable, false},
	{lease.ErrNotFound, wire.CodeNotFound, false},
	{lease.ErrNotGranted, wire.CodeForbidden, true},
	{lease.ErrStale, wire.CodeConflict, true},
	{lease.ErrOver, wire.CodeConflict, true},
	{lease.ErrNoValue, wire.CodeConflict, true},
	{lease.ErrTooMany, wire.CodeRateLimited, true},
	{lease.ErrLeftovers, wire.CodeRateLimited, true},
	{lease.ErrUnavailable, wire.CodeUnavailable, false},
	{keys.ErrUnavailable, wire.CodeUnavailable, true},
	{keys.ErrLost, wire.CodeConflict, true},
	{keys.ErrTransitKey, wire.CodeConflict, true},
	{auditlog.ErrNoKey, wire.CodeUnavailable, false},
	{store.ErrUnavailable, wire.CodeUnavailable, false},
	{context.DeadlineExceeded, wire.CodeUnavailable, false},
	{context.Canceled, wire.CodeUnavailable, false},
}

// refuse returns the problem of this code. field and detail are shown to the
// client and hold nothing secret; both may be empty.
func refuse(code, field, detail string) *wire.Problem {
	kind := problemKinds[code]
	return &wire.Problem{
		Type: wire.ProblemTypePrefix + code, Title: kind.title, Status: kind.status,
		Code: code, Field: field, Detail: detail,
	}
}

// problemOf finds the problem that an error is for the client.
func problemOf(err error) *wire.Problem {
	if p := (*wire.Problem)(nil); errors.As(err, &p) {
		copied := *p
		return &copied
	}
	if bad := (*registry.InvalidError)(nil); errors.As(err, &bad) {
		return refuse(wire.CodeInvalid, bad.Field, bad.Msg)
	}
	if e := (*issuer.Error)(nil); errors.As(err, &e) {
		return issuerProblem(e)
	}
	for _, known := range errorCodes {
		if errors.Is(err, known.err) {
			detail := ""
			if known.shown {
				detail = detailOf(err)
			}
			return refuse(known.code, "", detail)
		}
	}
	return refuse(wire.CodeInternal, "", "")
}

func issuerProblem(e *issuer.Error) *wire.Problem {
	switch e.Code {
	case issuer.SlowDown:
		p := refuse(wire.CodeRateLimited, "", "")
		p.RetryAfter = e.RetryAfter
		return p
	case issuer.TemporarilyUnavailable:
		p := refuse(wire.CodeUnavailable, "", "")
		p.RetryAfter = e.RetryAfter
		return p
	case issuer.InvalidRequest:
		return refuse(wire.CodeInvalid, e.Param, "")
	}
	return refuse(wire.CodeInternal, "", "")
}

// detailOf is the error's text without the name of the layer it comes from.
func detailOf(err error) string {
	s := err.Error()
	for _, prefix := range []string{"registry: ", "keys: ", "lease: ", "secrets: ", "store: "} {
		if len(s) > len(prefix) && s[:len(prefix)] == prefix {
			return s[len(prefix):]
		}
	}
	return s
}

// fail writes what an error is for the client and keeps its cause for the log.
func (s *server) fail(w *response, err error) {
	w.cause = err
	writeProblem(w, problemOf(err))
}

func writeProblem(w *response, p *wire.Problem) {
	p.RequestID = w.id
	p.Instance = "urn:tenantbroker:request:" + w.id
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", retryAfter(max(p.RetryAfter, time.Second)))
	}
	body, _ := json.Marshal(p) // strings and one number always marshal
	h := w.Header()
	h["Content-Type"] = headerProblem
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(p.Status)
	if _, err := w.Write(body); err != nil && w.cause == nil {
		w.cause = err
	}
}
