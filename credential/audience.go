package credential

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// MaxAudienceLength is the longest audience, in bytes.
const MaxAudienceLength = 255

// Audience is the name of a downstream service: 1 to 255 printable ASCII
// characters without space or quote. The zero Audience is none.
type Audience struct{ name string }

// ParseAudience returns the audience s, or an error outside the grammar.
func ParseAudience(s string) (Audience, error) {
	if s == "" {
		return Audience{}, errors.New("audience: empty")
	}
	if len(s) > MaxAudienceLength {
		return Audience{}, fmt.Errorf("audience: %d bytes, at most %d", len(s), MaxAudienceLength)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\'' {
			return Audience{}, fmt.Errorf("audience: byte %d is not allowed: printable ASCII without space or quote", i)
		}
	}
	return Audience{s}, nil
}

// MustAudience is ParseAudience for literals and tests; it panics on an error.
func MustAudience(s string) Audience { return must(ParseAudience(s)) }

// String returns the name, or "" for none.
func (a Audience) String() string { return a.name }

// IsZero reports whether a is no audience.
func (a Audience) IsZero() bool { return a.name == "" }

// MarshalText implements encoding.TextMarshaler.
func (a Audience) MarshalText() ([]byte, error) { return []byte(a.name), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseAudience.
func (a *Audience) UnmarshalText(b []byte) (err error) {
	*a, err = ParseAudience(string(b))
	return err
}

// IssuerURL is a broker's identifier, the `iss` of its tokens: https without
// path, query, fragment or user; http only on loopback. Compared byte for
// byte, as RFC 8414 section 3.3 asks. The zero IssuerURL is none.
type IssuerURL struct{ url string }

// ParseIssuerURL returns the issuer s, or an error that says what is wrong.
func ParseIssuerURL(s string) (IssuerURL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return IssuerURL{}, fmt.Errorf("issuer: %w", err)
	}
	switch {
	case u.Host == "" || u.Hostname() == "":
		return IssuerURL{}, errors.New("issuer: no host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return IssuerURL{}, errors.New("issuer: user, query and fragment are not allowed")
	case u.Path != "":
		return IssuerURL{}, errors.New("issuer: a path is not allowed, not even a trailing slash")
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return IssuerURL{}, errors.New("issuer: http is for loopback only, use https")
	case u.Scheme != "http" && u.Scheme != "https":
		return IssuerURL{}, errors.New("issuer: the scheme must be https")
	case strings.HasSuffix(u.Host, ":"):
		return IssuerURL{}, errors.New("issuer: a colon without a port")
	case s != u.Scheme+"://"+u.Host || strings.ToLower(s) != s:
		return IssuerURL{}, errors.New("issuer: write it in its plain lower-case form")
	}
	if err := checkHost(u); err != nil {
		return IssuerURL{}, fmt.Errorf("issuer: %w", err)
	}
	// Leaves room for the broker's own audiences below the issuer.
	if _, err := ParseAudience(s + "/revocations"); err != nil {
		return IssuerURL{}, fmt.Errorf("issuer: %w", err)
	}
	return IssuerURL{s}, nil
}

// checkHost refuses a host that nobody can reach, and a port that is the
// scheme's own, since clients leave that one out.
func checkHost(u *url.URL) error {
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || n == 0 || strconv.FormatUint(n, 10) != port:
			return fmt.Errorf("there is no port %s", port)
		case u.Scheme == "https" && n == 443, u.Scheme == "http" && n == 80:
			return errors.New("leave out the scheme's own port")
		}
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if len(host) > 253 || !hostName.MatchString(host) {
		return fmt.Errorf("%q is not the name of a host", host)
	}
	return nil
}

// hostName is labels of letters, digits and inner hyphens (RFC 1123 section
// 2.1).
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// MustIssuerURL is ParseIssuerURL for literals and tests; it panics on an error.
func MustIssuerURL(s string) IssuerURL { return must(ParseIssuerURL(s)) }

// String returns the URL, or "" for none.
func (i IssuerURL) String() string { return i.url }

// IsZero reports whether i is no issuer.
func (i IssuerURL) IsZero() bool { return i.url == "" }

// MarshalText implements encoding.TextMarshaler.
func (i IssuerURL) MarshalText() ([]byte, error) { return []byte(i.url), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseIssuerURL.
func (i *IssuerURL) UnmarshalText(b []byte) (err error) {
	*i, err = ParseIssuerURL(string(b))
	return err
}

// Own returns the broker's own audience with this name, e.g. Own("admin").
func (i IssuerURL) Own(name string) Audience { return Audience{i.url + "/" + name} }

// Reserves reports whether a is the issuer itself or anything under it: such
// an audience belongs to the broker and can't be registered by anyone.
// Spellings that differ in case only are reserved too.
func (i IssuerURL) Reserves(a Audience) bool {
	s := strings.ToLower(a.name)
	return s == i.url || strings.HasPrefix(s, i.url+"/")
}

// Leases is the audience of tokens for leases, <issuer>/leases: the one of the
// broker's own that grants of workloads may name.
func (i IssuerURL) Leases() Audience { return i.Own("leases") }

// Revocations is the audience of tokens to follow the feed of revocations with,
// <issuer>/revocations. No grant names it: who owns an audience gets them.
func (i IssuerURL) Revocations() Audience { return i.Own("revocations") }

// ForOperators reports whether only grants made through the broker's list of
// operators may name a: every audience of the broker's own but Leases.
func (i IssuerURL) ForOperators(a Audience) bool { return i.Reserves(a) && a != i.Leases() }

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
