package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
)

// TenantSource is a place in a request where it names a tenant. What it names is
// compared with the token's tenant, and never believed.
type TenantSource struct {
	where    string
	required bool
	find     func(*http.Request) ([]string, error) // nil: none is named
}

// InPath is a wildcard of a net/http pattern, as in "GET /t/{tenant}/orders".
func InPath(wildcard string) TenantSource {
	return TenantSource{"path", true, func(r *http.Request) ([]string, error) { return some(r.PathValue(wildcard)), nil }}
}

// InHost is the one label of the host before a domain: acme of acme.app.example
// with InHost("app.example"). Hosts know no case and tenants do: one with a
// capital letter has no host.
func InHost(domain string) TenantSource {
	suffix := "." + strings.ToLower(strings.Trim(domain, "."))
	return TenantSource{"host", true, func(r *http.Request) ([]string, error) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		label, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), suffix)
		if !ok || strings.Contains(label, ".") {
			return nil, nil
		}
		return some(label), nil
	}}
}

// InHeader is a header that the request may have.
func InHeader(name string) TenantSource {
	name = textproto.CanonicalMIMEHeaderKey(name)
	return TenantSource{"header", false, func(r *http.Request) ([]string, error) { return r.Header[name], nil }}
}

// InQuery is a parameter of the query that the request may have.
func InQuery(name string) TenantSource {
	return TenantSource{"query", false, func(r *http.Request) ([]string, error) {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, fmt.Errorf("guard: the query: %w", err)
		}
		return query[name], nil
	}}
}

// InBody is what find reads in the body of at most limit bytes; the handler
// behind reads the same bytes. find returns every tenant that the body names:
// other than exactly one is refused.
func InBody(limit int64, find func(body []byte) ([]string, error)) TenantSource {
	return TenantSource{"body", true, func(r *http.Request) ([]string, error) {
		if r.Body == nil {
			return nil, nil
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
		if err != nil {
			return nil, fmt.Errorf("guard: read the body: %w", err)
		}
		if int64(len(body)) > limit {
			return nil, errTooLong
		}
		rest := r.Body
		r.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(body), rest}
		return find(body)
	}}
}

var errTooLong = errors.New("guard: the body is too long to look for a tenant")

// By is a place that the service knows: find returns every tenant named there.
// where is a word for the lines, such as "graphql".
func By(where string, find func(*http.Request) ([]string, error)) TenantSource {
	return TenantSource{where, true, find}
}

// deleteTwins deletes headers that a server behind, of CGI's kind, can't tell from
// this one: X_Tenant beside X-Tenant (RFC 3875 section 4.1.18).
func deleteTwins(h http.Header, name string) {
	for other := range h {
		if other != name && strings.EqualFold(strings.ReplaceAll(other, "_", "-"), name) {
			delete(h, other)
		}
	}
}

func some(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// plainName has the characters of a token that names are made of (RFC 9110
// section 5.6.2).
var plainName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// headerName is the canonical form of a header's name.
func headerName(name string) (string, error) {
	if !plainName.MatchString(name) {
		return "", fmt.Errorf("guard: %q is no name of a header", name)
	}
	return textproto.CanonicalMIMEHeaderKey(name), nil
}
