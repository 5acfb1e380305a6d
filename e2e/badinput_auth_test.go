package e2e

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// craft signs any header and payload, ES256.
func craft(t *testing.T, key any, header, payload string) string {
	t.Helper()
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("a key of type %T", key)
	}
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func (w *badWorld) assertionClaims(account string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": account, "sub": account, "aud": w.URL(), "jti": credential.NewID(),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
}

// crafted is an assertion of the account mailer, authentic, with this header
// ("KID" stands for the key's id) and payload; "" for what a good one has.
func (w *badWorld) crafted(header, payload string) string {
	w.t.Helper()
	key := w.Key(mailer)
	if header == "" {
		header = `{"alg":"ES256","kid":"KID"}`
	}
	if payload == "" {
		payload = toJSON(w.assertionClaims(mailer))
	}
	return craft(w.t, key.Key, strings.ReplaceAll(header, "KID", key.KeyID), payload)
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// badClients are clients that say who they are in two ways, or in none that
// counts.
func badClients() []badRequest {
	bearer := func(m *message) {
		m.form.Del("client_assertion")
		m.form.Del("client_assertion_type")
	}
	basic := func(user, secret string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
	}
	header := func(line func(m *message) string) func(*message) {
		return func(m *message) {
			bearer(m)
			m.lines = []string{line(m)}
		}
	}
	text := func(s string) func(*message) string { return func(*message) string { return s } }
	secret := func(id string, change func(good string) string) func(*message) {
		return func(m *message) {
			bearer(m)
			m.form.Set("client_id", id)
			m.form.Set("client_secret", change(m.w.secret))
		}
	}
	same := func(s string) string { return s }
	return []badRequest{
		{"Basic and an assertion", func(m *message) { m.lines = []string{basic(mailer, m.w.secret)} }, bad400, invalidRequest},
		{"Basic and the type of an assertion", func(m *message) {
			m.form.Del("client_assertion")
			m.lines = []string{basic(mailer, m.w.secret)}
		}, bad400, invalidRequest},
		{"Basic and a secret in the body", func(m *message) {
			secret(mailer, same)(m)
			m.lines = []string{basic(mailer, m.w.secret)}
		}, bad400, invalidRequest},
		{"an assertion and a secret", func(m *message) { m.form.Set("client_secret", m.w.secret) }, bad400, invalidRequest},
		{"an assertion, a secret and a client id", func(m *message) {
			m.form.Set("client_secret", m.w.secret)
			m.form.Set("client_id", mailer)
		}, bad400, invalidRequest},
		{"Basic twice", func(m *message) {
			bearer(m)
			m.lines = []string{basic(mailer, m.w.secret), basic(mailer, m.w.secret)}
		}, bad400, invalidRequest},
		{"Basic and another client id", func(m *message) {
			bearer(m)
			m.lines = []string{basic(mailer, m.w.secret)}
			m.form.Set("client_id", "idle")
		}, bad400, invalidRequest},
		{"an assertion of another client id", set("client_id", "idle"), bad401, invalidClient},
		{"a malformed client id", set("client_id", "-x"), bad400, invalidRequest},
		{"a client id and nothing else", func(m *message) {
			bearer(m)
			m.form.Set("client_id", mailer)
		}, bad401, invalidClient},
		{"a secret without a client id", func(m *message) {
			secret(mailer, same)(m)
			m.form.Del("client_id")
		}, bad400, invalidRequest},
		{"a wrong secret", secret(mailer, func(s string) string { return flipSignature("." + s)[1:] }), bad401, invalidClient},
		{"a secret with a byte more", secret(mailer, func(s string) string { return s + "A" }), bad401, invalidClient},
		{"a secret with a byte less", secret(mailer, func(s string) string { return s[:len(s)-1] }), bad401, invalidClient},
		{"a secret of 300 bytes", secret(mailer, func(string) string { return strings.Repeat("x", 300) }), bad401, invalidClient},
		{"the secret of somebody else", secret("idle", same), bad401, invalidClient},
		{"the secret of nobody", secret("nobody", same), bad401, invalidClient},
		{"an empty secret", secret(mailer, func(string) string { return "" }), bad401, invalidClient},
		{"Basic with a wrong secret", header(text(basic(mailer, "wrong"))), bad401, invalidClient},
		{"Basic of an unknown account", header(func(m *message) string { return basic("nobody", m.w.secret) }), bad401, invalidClient},
		{"Basic without a secret", header(text(basic(mailer, ""))), bad401, invalidClient},
		{"Basic without a colon", header(text("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(mailer)))), bad401, invalidClient},
		{"Basic without an id", header(func(m *message) string { return basic("", m.w.secret) }), bad401, invalidClient},
		{"Basic of nothing", header(text("Authorization: Basic")), bad401, invalidClient},
		{"Basic that is not base64", header(text("Authorization: Basic !!!!")), bad401, invalidClient},
		{"Basic in base64 of the other alphabet", header(text("Authorization: Basic bWFpbGVy_w-_")), bad401, invalidClient},
		{"Basic with a bad escape inside", header(text(basic(mailer, "%zz"))), bad401, invalidClient},
		{"Basic with a NUL inside", header(text(basic(mailer+"\x00", "x"))), bad401, invalidClient},
		{"Basic that is not UTF-8", header(text(basic("\xff", "x"))), bad401, invalidClient},
		{"a bearer token", header(func(m *message) string { return "Authorization: Bearer " + m.w.token }), bad401, invalidClient},
		{"another scheme", header(text("Authorization: Digest username=mailer")), bad401, invalidClient},
		{"a scheme alone", header(text("Authorization: x")), bad401, invalidClient},
	}
}

// badAssertions are assertions whose claims are wrong though the signature is
// good.
func badAssertions() (all []badRequest) {
	now := time.Now
	claim := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	at := func(name string, d time.Duration) func(map[string]any) {
		return func(c map[string]any) { c[name] = now().Add(d).Unix() }
	}
	missing := func(name string) func(map[string]any) { return func(c map[string]any) { delete(c, name) } }
	for name, change := range map[string]func(map[string]any){
		"without iss": missing("iss"), "without sub": missing("sub"), "without aud": missing("aud"),
		"without exp": missing("exp"), "without jti": missing("jti"),
		"iss is another": claim("iss", "idle"), "sub is another": claim("sub", "idle"),
		"iss and sub are another": func(c map[string]any) { c["iss"], c["sub"] = "idle", "idle" },
		"iss and sub are nobody":  func(c map[string]any) { c["iss"], c["sub"] = "nobody", "nobody" },
		"iss is empty":            claim("iss", ""), "iss is null": claim("iss", nil), "iss is a list": claim("iss", []string{mailer}),
		"sub in capitals":     func(c map[string]any) { c["iss"], c["sub"] = "MAILER", "MAILER" },
		"iss is the broker":   func(c map[string]any) { c["iss"] = c["aud"] },
		"aud is another":      claim("aud", "https://other.example"),
		"aud is two":          func(c map[string]any) { c["aud"] = []any{c["aud"], "https://other.example"} },
		"aud is the same two": func(c map[string]any) { c["aud"] = []any{c["aud"], c["aud"]} },
		"aud is no one":       claim("aud", []string{}), "aud is empty": claim("aud", ""), "aud is null": claim("aud", nil),
		"aud is an object": claim("aud", map[string]any{}), "aud is a list in a list": claim("aud", [][]string{{"x"}}),
		"aud ends in a slash":     func(c map[string]any) { c["aud"] = fmt.Sprint(c["aud"]) + "/" },
		"aud is another endpoint": func(c map[string]any) { c["aud"] = fmt.Sprint(c["aud"]) + "/oauth2/introspect" },
		"exp is past":             func(c map[string]any) { at("iat", -time.Hour)(c); at("exp", -59*time.Minute)(c) },
		"exp is 6 minutes off":    at("exp", 6*time.Minute),
		"exp is a year off":       at("exp", 365*24*time.Hour),
		"exp is before iat":       at("exp", -time.Second),
		"exp is a string":         claim("exp", "2000000000"),
		"exp is null":             claim("exp", nil), "exp is true": claim("exp", true),
		"exp is zero": claim("exp", 0), "exp is negative": claim("exp", -1), "exp is huge": claim("exp", 1e300),
		"iat is an hour off": func(c map[string]any) { at("iat", time.Hour)(c); at("exp", time.Hour+time.Minute)(c) },
		"iat is a string":    claim("iat", "now"), "nbf is a minute off": at("nbf", 2*time.Minute), "nbf is a list": claim("nbf", []int{1}),
		"jti is empty": claim("jti", ""), "jti is a number": claim("jti", 7), "jti is null": claim("jti", nil),
		"jti of 257 bytes": claim("jti", strings.Repeat("j", 257)), "jti with a NUL": claim("jti", "a\x00"),
		"deep": claim("x", json.RawMessage(strings.Repeat("[", 100)+strings.Repeat("]", 100))),
	} {
		all = append(all, badRequest{"assertion, " + name, func(m *message) {
			m.form.Set("client_assertion", m.w.assertion(mailer, change))
		}, bad401, invalidClient})
	}
	return append(all,
		badRequest{"assertion of a disabled account", func(m *message) {
			m.form.Set("client_assertion", m.w.assertion("gone", nil))
		}, bad401, invalidClient},
		badRequest{"assertion of an account without a grant", func(m *message) {
			m.form.Set("client_assertion", m.w.assertion("idle", nil))
		}, bad400, invalidTarget},
		badRequest{"assertion used for another endpoint before", func(m *message) {
			used := m.w.authenticated(mailer, "x")
			if a := m.w.post("/oauth2/introspect", used); a.status != 200 {
				m.w.t.Errorf("control: introspection: %d", a.status)
			}
			m.form.Set("client_assertion", used.Get("client_assertion"))
		}, bad401, invalidClient},
		badRequest{"assertion used before, of a refused request", func(m *message) {
			used := m.w.form(mailer, globex)
			if a := m.w.world.token(used); a.Error != invalidTarget {
				m.w.t.Errorf("control: an ungranted tenant: %d %s", a.status, a.Error)
			}
			m.form.Set("client_assertion", used.Get("client_assertion"))
		}, bad401, invalidClient},
	)
}

// badAssertionHeaders are assertions that are no JWS, or whose header tries
// something.
func badAssertionHeaders() (all []badRequest) {
	for _, header := range []string{
		`{"alg":"none"}`, `{"alg":"HS256","kid":"KID"}`, `{"alg":"es256","kid":"KID"}`, `{"alg":"ES384","kid":"KID"}`,
		`{"alg":"RS256","kid":"KID"}`, `{"kid":"KID"}`, `{"alg":null}`, `{"alg":["ES256"],"kid":"KID"}`,
		`{"alg":"ES256","alg":"ES256","kid":"KID"}`, `{"alg":"ES256","kid":"unknown"}`, `{"alg":"ES256","kid":7}`,
		`{"alg":"ES256","kid":"KID","jku":"http://127.0.0.1/"}`, `{"alg":"ES256","kid":"KID","x5u":"http://127.0.0.1/"}`,
		`{"alg":"ES256","kid":"KID","jwk":{}}`, `{"alg":"ES256","kid":"KID","x5c":[]}`, `{"alg":"ES256","kid":"KID","crit":["x"],"x":1}`,
		`{"alg":"ES256","kid":"KID","b64":false}`, `{"alg":"ES256","kid":"KID","zip":"DEF"}`, `{"alg":"ES256","kid":"KID","typ":"at+jwt"}`,
		`{"alg":"ES256","kid":"KID",}`, `["ES256"]`, `null`, `x`,
	} {
		all = append(all, badRequest{"assertion, header " + header, func(m *message) {
			m.form.Set("client_assertion", m.w.crafted(header, ""))
		}, bad401, invalidClient})
	}
	for name, change := range map[string]func(string) string{
		"not a JWT":            func(string) string { return "x" },
		"two dots":             func(string) string { return ".." },
		"tampered":             flipSignature,
		"without a signature":  func(s string) string { return s[:strings.LastIndexByte(s, '.')+1] },
		"two segments":         func(s string) string { return s[:strings.LastIndexByte(s, '.')] },
		"four segments":        func(s string) string { return s + ".x" },
		"a JWE":                func(s string) string { return s + ".x.y" },
		"padded":               func(s string) string { return s + "==" },
		"a space before it":    func(s string) string { return " " + s },
		"Bearer before it":     func(s string) string { return "Bearer " + s },
		"half of it":           func(s string) string { return s[:len(s)/2] },
		"a JWS in JSON":        func(s string) string { return `{"payload":"` + s + `"}` },
		"of 16 KiB":            func(s string) string { return s + strings.Repeat("A", credential.MaxTokenLength-len(s)) },
		"the last bit flipped": nonCanonical,
	} {
		all = append(all, badRequest{"assertion, " + name, func(m *message) {
			m.form.Set("client_assertion", change(m.form.Get("client_assertion")))
		}, bad401, invalidClient})
	}
	for _, payload := range []string{``, `x`, `[]`, `{}`, `{"iss":`, "{\"iss\":\"\xff\"}"} {
		all = append(all, badRequest{fmt.Sprintf("assertion, payload %q", payload), func(m *message) {
			key := m.w.Key(mailer)
			m.form.Set("client_assertion", craft(m.w.t, key.Key, `{"alg":"ES256","kid":"`+key.KeyID+`"}`, payload))
		}, bad401, invalidClient})
	}
	for name, extra := range map[string]string{
		"sub twice": `"sub":"mailer"`, "sub twice, once escaped": `"s\u0075b":"idle"`, "a duplicate deep inside": `"x":{"a":1,"a":1}`,
	} {
		all = append(all, badRequest{"assertion, " + name, func(m *message) {
			m.form.Set("client_assertion", m.w.crafted("", "{"+extra+","+toJSON(m.w.assertionClaims(mailer))[1:]))
		}, bad401, invalidClient})
	}
	return append(all, badRequest{"assertion signed with the key of another account", func(m *message) {
		m.form.Set("client_assertion", sign(m.w.t, m.w.Key("idle").Key, m.w.Key(mailer).KeyID, m.w.assertionClaims(mailer)))
	}, bad401, invalidClient}, badRequest{"an access token as the assertion", func(m *message) {
		m.form.Set("client_assertion", m.w.token)
	}, bad401, invalidClient})
}

// nonCanonical changes the spare bits of the last character, which many
// decoders ignore.
func nonCanonical(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[last^1])
}

// badSubjectTokens are exchanges of platforms' tokens that must fail. What is
// wrong with a subject token is invalid_request (RFC 8693 section 2.2.2); the
// same token as a client assertion is invalid_client.
func badSubjectTokens() (all []badRequest) {
	exchange := func(change func(*message)) func(*message) {
		return func(m *message) {
			m.form = m.w.exchange(m.w.platform.token(m.w.t, m.w.URL(), globex, nil), globex)
			change(m)
		}
	}
	drop := func(name string) func(*message) { return exchange(func(m *message) { m.form.Del(name) }) }
	put := func(name, value string) func(*message) {
		return exchange(func(m *message) { m.form.Set(name, value) })
	}
	all = []badRequest{
		{"exchange, two audiences of which one is right", exchange(func(m *message) {
			m.form.Set("subject_token", m.w.platform.token(m.w.t, m.w.URL(), globex, func(c map[string]any) {
				c["aud"] = []string{m.w.URL(), "other"}
			}))
		}), bad400, invalidRequest},
		{"exchange without a subject token", drop("subject_token"), bad400, invalidRequest},
		{"exchange without its type", drop("subject_token_type"), bad400, invalidRequest},
		{"exchange without an audience", drop("audience"), bad400, invalidRequest},
		{"exchange without a tenant", drop("tenant"), bad400, invalidRequest},
		{"exchange of a refresh token", put("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), bad400, invalidRequest},
		{"exchange of SAML", put("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"), bad400, invalidRequest},
		{"exchange of a type unheard of", put("subject_token_type", "jwt"), bad400, invalidRequest},
		{"exchange for an id token", put("requested_token_type", "urn:ietf:params:oauth:token-type:id_token"), bad400, invalidRequest},
		{"exchange for a type unheard of", put("requested_token_type", "x"), bad400, invalidRequest},
		{"exchange with an actor token", put("actor_token", "x"), bad400, invalidRequest},
		{"exchange with the type of an actor token", put("actor_token_type", "urn:ietf:params:oauth:token-type:jwt"), bad400, invalidRequest},
		{"exchange of a subject token and an assertion", exchange(func(m *message) {
			good := m.w.form(porter, globex)
			maps.Copy(m.form, map[string][]string{
				"client_assertion": good["client_assertion"], "client_assertion_type": good["client_assertion_type"],
			})
		}), bad400, invalidRequest},
		{"exchange of a subject token and a secret", exchange(func(m *message) {
			m.form.Set("client_id", mailer)
			m.form.Set("client_secret", m.w.secret)
		}), bad400, invalidRequest},
		{"exchange of a subject token and Basic", exchange(func(m *message) {
			m.lines = []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(mailer+":"+m.w.secret))}
		}), bad400, invalidRequest},
		{"exchange for another tenant than the platform's", put("tenant", acme), bad400, invalidTarget},
		{"exchange of the broker's own token as a platform's", exchange(func(m *message) { m.form.Set("subject_token", m.w.token) }), bad400, invalidRequest},
		{"exchange of a client assertion", exchange(func(m *message) {
			m.form.Set("subject_token", m.w.assertion(mailer, nil))
		}), bad400, invalidRequest},
		{"exchange, the account named is another", put("client_id", mailer), bad400, invalidRequest},
		{"exchange of what is no token", put("subject_token", "x"), bad400, invalidRequest},
		{"exchange of a tampered token", exchange(func(m *message) {
			m.form.Set("subject_token", flipSignature(m.form.Get("subject_token")))
		}), bad400, invalidRequest},
		{"exchange, an unknown key", exchange(func(m *message) {
			m.form.Set("subject_token", sign(m.w.t, m.w.platform.key, "cluster-9", map[string]any{
				"iss": m.w.platform.URL, "sub": "system:serviceaccount:globex:porter", "aud": m.w.URL(), "exp": time.Now().Add(time.Minute).Unix(),
			}))
		}), bad400, invalidRequest},
	}
	past := time.Now().Add(-time.Hour)
	for name, change := range map[string]func(map[string]any){
		"two other audiences":     func(c map[string]any) { c["aud"] = []any{"https://broker.example", "other"} },
		"no audience":             func(c map[string]any) { delete(c, "aud") },
		"another audience":        func(c map[string]any) { c["aud"] = "https://kubernetes.default.svc" },
		"expired":                 func(c map[string]any) { c["iat"], c["exp"] = past.Unix()-60, past.Unix() },
		"never expiring":          func(c map[string]any) { delete(c, "exp") },
		"not yet valid":           func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() },
		"an unknown issuer":       func(c map[string]any) { c["iss"] = "https://other.example" },
		"no issuer":               func(c map[string]any) { delete(c, "iss") },
		"an issuer with a slash":  func(c map[string]any) { c["iss"] = fmt.Sprint(c["iss"]) + "/" },
		"an unknown subject":      func(c map[string]any) { c["sub"] = "system:serviceaccount:globex:stranger" },
		"a subject like it":       func(c map[string]any) { c["sub"] = fmt.Sprint(c["sub"]) + " " },
		"no subject":              func(c map[string]any) { delete(c, "sub") },
		"a subject that's a list": func(c map[string]any) { c["sub"] = []any{c["sub"]} },
	} {
		token := func(m *message) string { return m.w.platform.token(m.w.t, m.w.URL(), globex, change) }
		all = append(all,
			badRequest{"exchange, " + name, exchange(func(m *message) { m.form.Set("subject_token", token(m)) }), bad400, invalidRequest},
			badRequest{"platform's token as an assertion, " + name, func(m *message) { m.form.Set("client_assertion", token(m)) }, bad401, invalidClient},
		)
	}
	return all
}
