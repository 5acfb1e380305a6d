package issuer

import (
	"encoding/json"
	"maps"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// payload writes claims as JSON; change replaces members, nil removes one.
func payload(claims map[string]any, change map[string]any) string {
	all := maps.Clone(claims)
	for name, v := range change {
		if v == nil {
			delete(all, name)
		} else {
			all[name] = v
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// assertionClaims are those of a good client assertion.
func (w *world) assertionClaims(account string) map[string]any {
	now := w.clock.now().Unix()
	return map[string]any{
		"iss": account, "sub": account, "aud": brokerURL, "iat": now, "exp": now + 60, "jti": credential.NewID(),
	}
}

// assertion makes a good client assertion but for change.
func (w *world) assertion(account string, change map[string]any) string {
	w.tb.Helper()
	return w.keys[account].sign(w.tb, payload(w.assertionClaims(account), change), nil)
}

// want is a request to the token endpoint, parameter by parameter.
type want map[string]string

func (w *world) request(p want) TokenRequest {
	f := url.Values{}
	for name, v := range p {
		f.Set(name, v)
	}
	return TokenRequest{Request{Form: f, Origin: Origin{IP: netip.MustParseAddr("192.0.2.7"), RequestID: "req-1"}}}
}

// asking is a good request of an account with its key, but for change; "-"
// removes a parameter.
func (w *world) asking(account string, change want) TokenRequest {
	w.tb.Helper()
	p := want{
		"grant_type": GrantClientCredentials, "client_assertion_type": AssertionJWTBearer,
		"audience": "orders", "tenant": "acme", "scope": "read",
	}
	if _, given := change["client_assertion"]; !given {
		p["client_assertion"] = w.assertion(account, nil)
	}
	for name, v := range change {
		if v == "-" {
			delete(p, name)
		} else {
			p[name] = v
		}
	}
	return w.request(p)
}

// token asks and expects to get.
func (w *world) token(r TokenRequest) TokenResponse {
	w.tb.Helper()
	resp, err := w.iss.Token(w.tb.Context(), r)
	if err != nil {
		w.tb.Fatalf("Token: %v", err)
	}
	return resp
}

// refusal asks and expects to be refused.
func (w *world) refusal(r TokenRequest) *Error {
	w.tb.Helper()
	resp, err := w.iss.Token(w.tb.Context(), r)
	if err == nil {
		w.tb.Fatalf("Token: issued %v, expected a refusal", resp)
	}
	if resp.AccessToken != "" {
		w.tb.Fatal("Token: an error and a token")
	}
	return asError(w.tb, err)
}

func asError(tb testing.TB, err error) *Error {
	tb.Helper()
	e, ok := err.(*Error) //nolint:errorlint // the contract says that it is one
	if !ok {
		tb.Fatalf("error is a %T", err)
	}
	return e
}

// claimsOf verifies a token with the ring's key and returns its claims.
func (w *world) claimsOf(raw string) credential.Claims {
	w.tb.Helper()
	jws, err := credential.ParseJWS(raw)
	w.must(err)
	body, err := jws.Verify(w.ring.pub.Algorithm(), w.ring.pub.Public())
	w.must(err)
	c, err := credential.ParseClaims(body)
	w.must(err)
	return c
}

// line is an audit record as written.
type line struct {
	tenant string // of its chain
	audit.Record
}

// records returns the audit records of the issuer's own making, in order.
func (w *world) records() []line {
	w.tb.Helper()
	var lines []line
	w.must(w.st.View(w.tb.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			rec, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if strings.HasPrefix(rec.Type, "token.") || strings.HasSuffix(rec.Type, ".denied") {
				lines = append(lines, line{e.Chain.Tenant.String(), rec})
			}
		}
		return nil
	}))
	return lines
}

func (w *world) last() line {
	w.tb.Helper()
	all := w.records()
	if len(all) == 0 {
		w.tb.Fatal("no audit record")
	}
	return all[len(all)-1]
}
