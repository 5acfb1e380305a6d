package e2e

import (
	"net/http"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Codes and statuses that come often.
const (
	invalidRequest = "invalid_request"
	invalidClient  = "invalid_client"
	invalidTarget  = "invalid_target"
	invalidScope   = "invalid_scope"

	bad400 = http.StatusBadRequest
	bad401 = http.StatusUnauthorized
)

// everyParameter that some token request may have, and one that none has.
var everyParameter = []string{
	"grant_type", "audience", "resource", "tenant", "scope", "expires_in", "client_id", "client_secret",
	"client_assertion", "client_assertion_type", "subject_token", "subject_token_type", "requested_token_type",
	"actor_token", "actor_token_type", "targets", "redeemers", "max_uses", "job_queue", "job_id", "token",
	"unheard_of", "Tenant",
}

func set(name, value string) func(*message) {
	return func(m *message) { m.form.Set(name, value) }
}

func body(text string) func(*message) { return func(m *message) { m.body(text) } }

func also(text string) func(*message) { return func(m *message) { m.also(text) } }

// badParameters are all parameters sent twice, without need of one, too long,
// missing, empty.
func badParameters() (all []badRequest) {
	for _, name := range everyParameter {
		all = append(all,
			badRequest{name + " twice, two values", also("&" + name + "=a&" + name + "=b"), bad400, invalidRequest},
			badRequest{name + " too long", set(name, strings.Repeat("a", credential.MaxTokenLength+1)), bad400, invalidRequest},
		)
	}
	for _, name := range []string{"grant_type", "audience", "tenant", "client_assertion", "client_assertion_type"} {
		all = append(all,
			badRequest{name + " twice, the same value", func(m *message) { m.form.Add(name, m.form.Get(name)) }, bad400, invalidRequest},
			badRequest{name + " twice, the second time empty", also("&" + name + "="), bad400, invalidRequest},
			badRequest{name + " twice, the second time without =", also("&" + name), bad400, invalidRequest},
			badRequest{name + " twice, the second name escaped", also("&%" + hex(name[0]) + name[1:] + "=x"), bad400, invalidRequest},
			badRequest{name + " missing", func(m *message) { m.form.Del(name) }, bad400, invalidRequest},
			badRequest{name + " empty", set(name, ""), bad400, invalidRequest},
		)
	}
	return append(all,
		badRequest{"no client authentication at all", func(m *message) {
			m.form.Del("client_assertion")
			m.form.Del("client_assertion_type")
		}, bad401, invalidClient},
		badRequest{"an unknown parameter twice, empty", also("&x=&x="), bad400, invalidRequest},
		badRequest{"a parameter without a name", also("&=x"), bad400, invalidRequest},
		badRequest{"65 parameters", func(m *message) {
			for i := range 60 {
				m.form.Set("p"+string(rune('A'+i)), "x")
			}
		}, bad400, invalidRequest},
		badRequest{"a name of 129 bytes", also("&" + strings.Repeat("n", 129) + "=x"), bad400, invalidRequest},
	)
}

func hex(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

// badValues are parameters with a value that isn't one, or isn't allowed.
func badValues() (all []badRequest) {
	for _, c := range []struct {
		parameter, status string
		values            []string
	}{
		{"grant_type", "unsupported_grant_type", []string{
			"password", "authorization_code", "refresh_token", "implicit", "Client_Credentials", "client_credentials ",
			"urn:ietf:params:oauth:grant-type:jwt-bearer", "client_credentials client_credentials",
		}},
		{"client_assertion_type", invalidRequest, []string{
			"jwt", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "URN:ietf:params:oauth:client-assertion-type:jwt-bearer",
		}},
		{"client_assertion_type", invalidClient, []string{"urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"}},
		{"tenant", invalidRequest, []string{
			"*", "acme,globex", "acme globex", "acme*", " acme", "acme ", "-acme", ".acme", "_acme", "acme/globex", "../acme",
			"[\"acme\"]", "{}", "ACME\u017f", "аcme", "System", "SYSTEM", "acme%00", strings.Repeat("a", 65), "%2a",
		}},
		{"tenant", invalidTarget, []string{"system", "initech", globex, "sleeping", "ACME", "null", "0"}},
		{"audience", invalidRequest, []string{"orders billing", "orders\"", "", "órders", strings.Repeat("a", 256)}},
		{"audience", invalidTarget, []string{"billing", "Orders", "orders/", "*", "orders,billing", "mailer"}},
		{"scope", invalidScope, []string{
			" ", "orders:read ", " orders:read", "orders:read  orders:read", "orders:\"read\"", "orders:\\read", "órders",
			"orders:delete", "orders:read orders:delete", "*", strings.Repeat("a", 2049), strings.Repeat("a ", 65) + "a",
			"ORDERS:READ",
		}},
		{"expires_in", invalidRequest, []string{
			"0", "-1", "-0", "+60", "1.5", "60.0", "6e1", "0x3c", "060", " 60", "60 ", "60s", "5m", "99999999999",
			"18446744073709551616", "NaN", "Infinity", "null", "٣٠",
		}},
		{"resource", invalidRequest, []string{"https://orders.example"}}, // beside audience
		{"requested_token_type", invalidRequest, []string{"urn:ietf:params:oauth:token-type:access_token"}},
		{"subject_token", invalidRequest, []string{"x"}},
		{"subject_token_type", invalidRequest, []string{"urn:ietf:params:oauth:token-type:jwt"}},
		{"actor_token", invalidRequest, []string{"x"}},
		{"actor_token_type", invalidRequest, []string{"urn:ietf:params:oauth:token-type:jwt"}},
		{"targets", invalidRequest, []string{orders}},
		{"redeemers", invalidRequest, []string{mailer}},
		{"max_uses", invalidRequest, []string{"1"}},
		{"job_queue", invalidRequest, []string{"mail"}},
		{"job_id", invalidRequest, []string{"1"}},
	} {
		for _, v := range c.values {
			name := c.parameter + " " + v
			if len(v) > 40 {
				name = c.parameter + " " + v[:40] + "…"
			}
			all = append(all, badRequest{name, set(c.parameter, v), bad400, c.status})
			if c.status == invalidClient {
				all[len(all)-1].status = bad401
			}
		}
	}
	for _, resource := range []string{"orders", "https://orders.example/#x", "https://orders.example/a b", "://", "https://[::1", "https://orders.example"} {
		all = append(all, badRequest{"resource " + resource, func(m *message) {
			m.form.Del("audience")
			m.form.Set("resource", resource)
		}, bad400, invalidTarget}) // RFC 8707 section 2
	}
	return all
}

// badForms are bodies whose form encoding is broken, or hides something.
func badForms() []badRequest {
	return []badRequest{
		{"a bad percent escape", also("&x=%zz"), bad400, invalidRequest},
		{"half an escape at the end", also("&x=%4"), bad400, invalidRequest},
		{"a lone percent", also("&x=100%"), bad400, invalidRequest},
		{"a bad escape in a name", also("&%zz=x"), bad400, invalidRequest},
		{"a Unicode escape of JavaScript", also("&x=%u0041"), bad400, invalidRequest},
		{"UTF-8 cut short", also("&x=%c3"), bad400, invalidRequest},
		{"overlong UTF-8", also("&x=%c0%af"), bad400, invalidRequest},
		{"a surrogate in UTF-8", also("&x=%ed%a0%80"), bad400, invalidRequest},
		{"Latin-1 as it stands", also("&x=caf\xe9"), bad400, invalidRequest},
		{"0xff", also("&x=\xff\xfe"), bad400, invalidRequest},
		{"broken UTF-8 in a name", also("&%ff=x"), bad400, invalidRequest},
		{"a NUL, escaped", also("&x=a%00b"), bad400, invalidRequest},
		{"a NUL as it stands", also("&x=a\x00b"), bad400, invalidRequest},
		{"a NUL in a name", also("&te%00nant=x"), bad400, invalidRequest},
		{"a NUL after the tenant", func(m *message) {
			m.encode = func(s string) string { return strings.Replace(s, "tenant=acme", "tenant=acme%00", 1) }
		}, bad400, invalidRequest},
		{"a newline after the tenant", func(m *message) {
			m.encode = func(s string) string { return strings.Replace(s, "tenant=acme", "tenant=acme%0a", 1) }
		}, bad400, invalidRequest},
		{"a tab", also("&x=%09"), bad400, invalidRequest},
		{"an escape character", also("&x=%1b[2J"), bad400, invalidRequest},
		{"DEL", also("&x=%7f"), bad400, invalidRequest},
		{"a line break at the end", also("\r\n"), bad400, invalidRequest},
		{"semicolons", func(m *message) {
			m.encode = func(s string) string { return strings.ReplaceAll(s, "&", ";") }
		}, bad400, invalidRequest},
		{"one semicolon", also(";x=y"), bad400, invalidRequest},
		{"an ampersand in HTML", func(m *message) {
			m.encode = func(s string) string { return strings.ReplaceAll(s, "&", "&amp;") }
		}, bad400, invalidRequest},
		{"escaped separators", func(m *message) {
			m.encode = func(s string) string { return strings.ReplaceAll(s, "&", "%26") }
		}, bad400, invalidRequest},
		{"no body", body(""), bad400, invalidRequest},
		{"only ampersands", body("&&&&"), bad400, invalidRequest},
		{"only an equals sign", body("="), bad400, invalidRequest},
		{"a byte order mark", func(m *message) {
			m.encode = func(s string) string { return "\xef\xbb\xbf" + s }
		}, bad400, "invalid_request"},
		{"random bytes", body("\x80\x91\xfe\x00\x01\x02"), bad400, invalidRequest},
		{"names in PHP's way", func(m *message) {
			m.encode = func(s string) string { return strings.Replace(s, "tenant=acme", "tenant%5B%5D=acme", 1) }
		}, bad400, invalidRequest},
		{"a name in capitals", func(m *message) {
			m.encode = func(s string) string { return strings.Replace(s, "tenant=", "TENANT=", 1) }
		}, bad400, invalidRequest},
	}
}
