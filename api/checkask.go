package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Bounds of a check's query.
const (
	maxCheckQuery    = 4096 // bytes
	maxCheckResource = 256  // bytes of `resource`, unescaped
)

// checkParams are all that a check's query may hold before uriMark.
var checkParams = []string{"audience", "tenant", "tenant_at", "scope", "resource"}

// uriMark ends what is read as a form: behind it, to the end of the query, stands
// the path and query that the client asked for, as they are. That is what Envoy's
// path_prefix can say. Nothing that the client wrote comes before the mark, so no
// byte of his can be a parameter, or the mark.
const uriMark = "&uri="

// checkAsk is what a proxy wants to know of a token.
type checkAsk struct {
	audience   credential.Audience
	tenant     credential.Tenant // zero: any one, the answer says which
	scopes     credential.Scopes // all of them
	resource   string            // for the log
	fromHeader bool              // the tenant came from X-Forwarded-Uri
	unreadable string            // the parameter whose tenant is none
}

// readCheck reads the query, which the proxy writes. A verdict that it returns
// is a denial: what the proxy's configuration must have got wrong is malformed;
// a tenant or resource that is none may be the client's doing and is kept for
// the decision.
func readCheck(r *http.Request) (ask checkAsk, bad *checkVerdict) {
	query, uri, carried := strings.Cut(r.URL.RawQuery, uriMark)
	if len(query) > maxCheckQuery {
		return ask, misasked("query")
	}
	q, err := parseForm(query)
	if err != nil {
		return ask, misasked("query")
	}
	for _, p := range q.params {
		if !slices.Contains(checkParams, p.name) {
			return ask, misasked("query")
		}
	}
	if ask.audience, err = credential.ParseAudience(q.get("audience")); err != nil {
		return ask, misasked("audience")
	}
	if q.sent("scope") {
		// An empty one would ask for nothing, where something was meant.
		if ask.scopes, err = credential.ParseScopes(q.get("scope")); err != nil || ask.scopes.IsEmpty() {
			return ask, misasked("scope")
		}
	}
	if ask.resource = q.get("resource"); len(ask.resource) > maxCheckResource {
		return ask, misasked("resource")
	}
	said := q.get("tenant")
	switch byName, byPlace := q.sent("tenant"), q.sent("tenant_at"); {
	case byName && byPlace: // two answers to one question
		return ask, misasked("tenant_at")
	case byPlace:
		place, ok := parsePlace(q.get("tenant_at"))
		if !ok {
			return ask, misasked("tenant_at")
		}
		uris := []string{uri}
		if !carried {
			uris, ask.fromHeader = r.Header["X-Forwarded-Uri"], true
		}
		said = place.in(uris)
	case carried: // and nothing says what to do with it
		return ask, misasked("uri")
	case !byName:
		return ask, nil
	}
	// Empty is no tenant either: a variable of the proxy's that has no value.
	if ask.tenant, err = credential.ParseTenant(said); err != nil {
		ask.tenant, ask.unreadable = credential.Tenant{}, "tenant"
	}
	return ask, nil
}

func misasked(field string) *checkVerdict {
	return &checkVerdict{reason: "malformed_query", code: wire.CodeMalformed, field: field}
}

// Bounds of a path that a tenant is found in.
const (
	maxPlace        = 256  // bytes of `tenant_at`
	maxForwardedURI = 8192 // bytes of X-Forwarded-Uri or `uri`
	tenantMark      = "{tenant}"
)

// place says where in a path the tenant stands: the segments before it.
type place []string

// parsePlace reads `tenant_at`: a path of plain segments that ends in {tenant},
// such as /v1/tenants/{tenant}.
func parsePlace(s string) (place, bool) {
	before, found := strings.CutSuffix(s, "/"+tenantMark)
	if !found || len(s) > maxPlace {
		return nil, false
	}
	if before == "" {
		return place{}, true
	}
	segments := strings.Split(before, "/")
	if segments[0] != "" {
		return nil, false
	}
	for _, segment := range segments[1:] {
		if !plainSegment(segment) {
			return nil, false
		}
	}
	return segments[1:], true
}

// in returns the tenant's segment of the one URI that the proxy says was asked
// for, "" if there is none. A path that the service behind might read in
// another way than it is written has none: dot segments, empty ones, escaped
// separators.
func (p place) in(uris []string) string {
	if len(uris) != 1 || len(uris[0]) > maxForwardedURI {
		return ""
	}
	path, _, _ := strings.Cut(uris[0], "?")
	rooted, found := strings.CutPrefix(path, "/")
	if !found {
		return ""
	}
	segments := strings.Split(rooted, "/")
	for i, segment := range segments {
		if segment == "" && i == len(segments)-1 && i > 0 {
			break // a slash at the end
		}
		if !clearSegment(segment) {
			return ""
		}
	}
	if len(segments) <= len(p) || !slices.Equal(segments[:len(p)], p) {
		return ""
	}
	return segments[len(p)]
}

// plainSegment reports whether a segment means only itself: unreserved
// characters (RFC 3986 section 2.3), and no dot segment.
func plainSegment(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
		default:
			return false
		}
	}
	return s != "" && s != "." && s != ".."
}

// clearSegment reports whether every server splits a path at the same places
// around this segment, before and after unescaping it, once or twice.
func clearSegment(s string) bool {
	if strings.Contains(s, "#") {
		return false
	}
	text, err := unescapeForm(strings.ReplaceAll(s, "+", "%2B"))
	dots := strings.TrimRight(text, " ") // some file systems drop spaces at the end of a name
	return err == nil && text != "" && dots != "." && dots != ".." && !strings.ContainsAny(text, `/\;%?#`)
}
