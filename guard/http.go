package guard

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Route says what one route asks for beyond a good token.
type Route struct {
	// Scopes that the token needs, all of them.
	Scopes credential.Scopes
	// Tenants are the places in which the request itself names a tenant. Each has
	// to name the token's.
	Tenants []TenantSource
	// SetHeader is a request header that is set to the token's tenant for code
	// behind, whatever the client sent there. Empty: none.
	SetHeader string
	// SharedCache lets the handler say that its answers may be kept by caches that
	// many share. Without it they are private, whatever the handler says.
	SharedCache bool
}

// Handler puts the guard in front of a handler. It panics where the route's
// SetHeader is no name of a header: that is a mistake in the code.
func (g *Guard) Handler(route Route, next http.Handler) http.Handler {
	if route.SetHeader != "" {
		name, err := headerName(route.SetHeader)
		if err != nil {
			panic(err)
		}
		route.SetHeader = name
	}
	return &handler{guard: g, route: route, next: next}
}

// Middleware is Handler in the form that routers take.
func (g *Guard) Middleware(route Route) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return g.Handler(route, next) }
}

type handler struct {
	guard *Guard
	route Route
	next  http.Handler
}

// ServeHTTP lets a request in, or answers it.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{ResponseWriter: w, shared: h.route.SharedCache}
	v.guard = h.guard
	if sent := r.Header["X-Request-Id"]; len(sent) == 1 && PlainRequestID(sent[0]) {
		id := sent[0] // the header is the handler's to change
		v.request.Store(&id)
	}
	refused := h.admit(r, v)
	if refused != nil {
		h.guard.decide(r.Context(), refused.decision)
		refused.write(w, h.guard.realm, v.id())
		return
	}
	if h.route.SetHeader != "" {
		r = r.Clone(r.Context())
		set(r.Header, h.route.SetHeader, v.token.Tenant().String())
	}
	h.next.ServeHTTP(v, r.WithContext(context.WithValue(r.Context(), key{}, &v.entry)))
	v.head() // of one that wrote nothing
}

// admit returns nil for a request that may go on, and fills in the visit.
func (h *handler) admit(r *http.Request, v *visit) *refusal {
	// The query is parsed only where the name could come of it.
	if q := r.URL.RawQuery; (strings.Contains(q, "access_token") || strings.IndexByte(q, '%') >= 0) && r.URL.Query().Has("access_token") {
		return v.refuse(tokenInQuery, "token_in_query")
	}
	raw, reason := bearer(r.Header["Authorization"])
	switch reason {
	case "":
	case reasonNoToken:
		return v.refuse(tokenRequired, reason)
	default:
		return v.refuse(notOneToken, reason)
	}
	token, err := h.guard.verifier.Verify(r.Context(), raw)
	switch {
	case errors.Is(err, verifier.ErrUnavailable):
		return v.refuse(cantVerify, verifier.Reason(err))
	case err != nil:
		return v.refuse(notAccepted, verifier.Reason(err))
	}
	v.raw, v.token = raw, token
	if within := v.insideAnother(r.Context()); within != nil {
		return v.crossing("inside_another_tenant", within.token.Tenant())
	}
	if !token.Scopes().Contains(h.route.Scopes) {
		refused := v.refuse(scopeLacking, "scope_lacking")
		refused.scope = h.route.Scopes.String()
		return refused
	}
	return h.sameTenant(r, v)
}

// sameTenant compares each tenant that the request names with the token's.
func (h *handler) sameTenant(r *http.Request, v *visit) *refusal {
	own := v.token.Tenant().String()
	for name, values := range r.Header {
		if !h.guard.namesTenant(name) {
			continue
		}
		for _, said := range values {
			if said != own {
				return v.differs("tenant_header_differs", said)
			}
		}
	}
	for _, source := range h.route.Tenants {
		said, err := source.find(r)
		switch {
		case err != nil:
			return v.refuse(tenantUnreadable, "tenant_unreadable")
		case said == nil && !source.required:
		case len(said) != 1:
			return v.refuse(tenantNotOnce, "tenant_not_once")
		case said[0] != own:
			return v.differs("tenant_"+source.where+"_differs", said[0])
		}
	}
	return nil
}
