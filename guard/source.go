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
// with InHost("app.example"). A request to another host is refused. Hosts know no case and tenants do: one with a
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

// InHeader is a header that the request may have, in any spelling that a server
// behind could take for it. It panics where name is no name of a header: that is a
// mistake in the code. For the host there is InHost.
func InHeader(name string) TenantSource {
	header, err := headerName(name)
	if err != nil {
		panic(err)
	}
	return TenantSource{"header", false, func(r *http.Request) ([]string, error) { return spelled(r.Header, header), nil }}
}

// InQuery is a parameter of the query that the request may have. A handler that
// reads FormValue gets the body's instead, where there is one: read URL.Query().
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

// spelled are the values of a header and of its twins.
func spelled(h http.Header, name string) []string {
	values := h[name]
	for other := range h {
		if twin(other, name) {
			values = append(values[:len(values):len(values)], h[other]...)
		}
	}
	return values
}

// namesTenant reports a header, or its twin, that names a tenant to code behind.
func (g *Guard) namesTenant(name string) bool {
	for _, header := range g.headers {
		if name == header || twin(name, header) {
			return true
		}
	}
	return false
}

// twin reports a header that a server behind, of CGI's kind, can't tell from this
// one: X_Tenant beside X-Tenant (RFC 3875 section 4.1.18).
func twin(other, name string) bool {
	return len(other) == len(name) && other != name && strings.EqualFold(strings.ReplaceAll(other, "_", "-"), name)
}

// set puts one value in the place of all spellings, and out of reach of a
// Connection header, by which a client has proxies take others away (RFC 9110
// section 7.6.1).
func set(h http.Header, name, value string) {
	for other := range h {
		if twin(other, name) {
			delete(h, other)
		}
	}
	h[name] = []string{value}
	if h["Connection"] == nil {
		return
	}
	var kept []string
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if option = strings.TrimSpace(option); !strings.EqualFold(option, name) {
				kept = append(kept, option)
			}
		}
	}
	h.Set("Connection", strings.Join(kept, ", "))
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
	header := textproto.CanonicalMIMEHeaderKey(name)
	switch header {
	case "Host", "Trailer", "Transfer-Encoding": // which net/http takes out
		return "", fmt.Errorf("guard: %q is no header that a handler sees", name)
	}
	if !plainName.MatchString(name) {
		return "", fmt.Errorf("guard: %q is no name of a header", name)
	}
	return header, nil
}
