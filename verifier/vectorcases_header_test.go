package verifier_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
)

// goodCases are tokens in good order: one for each algorithm and for what else
// may vary.
func (g *generator) goodCases() {
	for _, kid := range []string{"ed-1", "ec-1", "ec-384", "rsa-1", "pss-1"} {
		k := g.keys[kid]
		g.accept("core", "good-"+strings.ToLower(k.alg), "signed with "+k.alg, g.token(g.header(k).json(), claims().json(), k))
	}
	ed := g.keys["ed-1"]
	for _, c := range []struct{ id, description, header string }{
		{"typ-application", "typ with the application/ that may be left out", g.header(ed).with("typ", `"application/at+jwt"`).json()},
		{"typ-upper-case", "typ is a media type: case means nothing", g.header(ed).with("typ", `"AT+JWT"`).json()},
		{"header-unknown", "an unknown header member is ignored", g.header(ed).also("x", `{"y":[1]}`).json()},
		{"header-nonce", "a nonce means nothing here", g.header(ed).also("nonce", `"n"`).json()},
		{"header-number", "the largest double in an unknown member", g.header(ed).also("x", "[1.7976931348623157e308,1e-400]").json()},
		{"header-thumbprint", "a certificate thumbprint brings no key", g.header(ed).also("x5t", `"AAAA"`).json()},
		{"header-order", "the order of header members means nothing", `{"typ":"at+jwt","kid":"ed-1","alg":"EdDSA"}`},
		{"header-spaced", "white space in the header", "{ \"typ\" : \"at+jwt\",\r\n\t\"kid\":\"ed-1\", \"alg\":\"EdDSA\" }"},
		{"header-escaped", "escapes in the header", `{"t\u0079p":"at\u002bjwt","kid":"ed\u002d1","alg":"Ed\u0044SA"}`},
	} {
		g.accept("core", "good-"+c.id, c.description, g.token(c.header, claims().json(), ed))
	}
	for _, c := range []struct{ id, description, payload string }{
		{"no-scope", "scope may be absent", claims().without("scope").json()},
		{"scopes", "several scopes", claims().with("scope", `"orders.read orders:write a/b"`).json()},
		{"unknown-claim", "an unknown claim is ignored", claims().also("x", `[null,{"a":false}]`).json()},
		{"act", "an actor", claims().also("act", `{"sub":"gateway"}`).json()},
		{"act-four", "four nested actors, the most", claims().also("act", `{"sub":"a","act":{"sub":"b","act":{"sub":"c","act":{"sub":"d"}}}}`).json()},
		{"job", "a job", claims().also("job", `"ICEiIyQlJicoKSorLC0uLw"`).json()},
		{"spaced", "white space in the payload", strings.ReplaceAll(claims().json(), ",", " ,\n\t")},
		{"surrogates", "a pair of surrogates is one character", claims().also("x", `"\ud83d\ude00"`).json()},
		{"not-ascii", "UTF-8 in an unknown claim", claims().also("x", `"Grüße, 世界"`).json()},
		{"numbers", "numbers that a double holds, of 64 characters at most", claims().also("x", "[-1.7976931348623157E+308,1e-400,0e999,"+strings.Repeat("9", 64)+"]").json()},
		{"depth", "16 levels deep, the most", claims().also("x", strings.Repeat("[", 15)+strings.Repeat("]", 15)).json()},
	} {
		g.accept("core", "good-"+c.id, c.description, g.payload(c.payload))
	}
}

// keyCases: algorithms and keys mixed up, and signatures that are not.
func (g *generator) keyCases() {
	ed, ec, rs, ps, p384 := g.keys["ed-1"], g.keys["ec-1"], g.keys["rsa-1"], g.keys["pss-1"], g.keys["ec-384"]
	good := claims().json()
	named := func(alg, kid string) string { return g.header(key{alg: alg, kid: kid}).json() }

	for i, alg := range []string{"none", "None", "NONE", "nOnE"} {
		g.reject("core", "alg-none-"+string(rune('1'+i)), "algorithm", "unsecured: "+alg+" and no signature",
			segment(named(alg, "ed-1"))+"."+segment(good)+".")
	}
	g.reject("core", "alg-none-with-signature", "algorithm", "alg none over a signature that would be good", g.token(named("none", "ed-1"), good, ed))

	secrets := map[string][]byte{
		"ed25519-bytes": g.ed25519(ed)[ed25519.SeedSize:],
		"rsa-pem":       g.pem(g.publicKey(rs)),
		"ec-pem":        g.pem(g.publicKey(ec)),
		"ec-jwk":        []byte(g.public("ec-1")),
		"empty":         {},
	}
	for _, c := range []struct{ secret, kid string }{
		{"ed25519-bytes", "ed-1"}, {"rsa-pem", "rsa-1"}, {"ec-pem", "ec-1"}, {"ec-jwk", "ec-1"}, {"empty", "ed-1"},
	} {
		g.reject("core", "alg-hs256-"+c.secret, "algorithm", "HMAC with public bytes as the secret: "+c.secret,
			g.token(named("HS256", c.kid), good, key{private: secrets[c.secret]}))
	}
	g.reject("core", "alg-hs256-oct-key", "algorithm", "HMAC with a symmetric key that strayed into the key set",
		g.token(named("HS256", "oct-1"), good, key{private: []byte("0123456789abcdef0123456789abcdef")}), keySet("stray"))

	for _, c := range []struct{ id, description, alg, kid string }{
		{"rs256-by-pss-key", "RS256 by a key that is bound to PS256", "RS256", "pss-1"},
		{"ps256-by-rsa-key", "PS256 by a key that is bound to RS256", "PS256", "rsa-1"},
	} {
		k := key{kid: c.kid, alg: c.alg, private: g.keys[c.kid].private}
		g.reject("core", "confusion-"+c.id, "algorithm", c.description, g.token(g.header(k).json(), good, k))
	}
	g.reject("core", "confusion-rs256-is-ps256", "signature", "the header says RS256, the signature is PS256",
		g.token(g.header(rs).json(), good, key{alg: "PS256", private: rs.private}))
	g.reject("core", "confusion-ps256-is-rs256", "signature", "the header says PS256, the signature is RS256",
		g.signedAs(g.header(ps).json(), good, key{alg: "RS256", private: ps.private}))
	g.reject("core", "confusion-es256-p384", "algorithm", "ES256 with a P-384 key", g.token(named("ES256", "ec-384"), good, p384))
	g.reject("core", "confusion-es384-p256", "algorithm", "ES384 with a P-256 key", g.token(named("ES384", "ec-1"), good, ec))
	g.reject("core", "confusion-eddsa-p256", "algorithm", "EdDSA with a P-256 key", g.token(named("EdDSA", "ec-1"), good, ec))
	g.reject("core", "confusion-es256-ed25519", "algorithm", "ES256 with an Ed25519 key", g.token(named("ES256", "ed-1"), good, ed))
	g.reject("core", "confusion-es256-rsa", "algorithm", "ES256 with an RSA key", g.token(named("ES256", "rsa-1"), good, rs))
	for _, alg := range []string{"RS512", "ES512", "ES256K", "RS1", "RSA-OAEP", "dir", "eddsa", "es256", "EdDSA ", ""} {
		g.reject("core", "alg-unknown-"+map[bool]string{true: "empty", false: strings.ReplaceAll(alg, " ", "-space")}[alg == ""],
			"algorithm", "an algorithm outside the list: "+quote(alg), g.token(named(alg, "ed-1"), good, ed))
	}
	for _, c := range []struct{ id, raw string }{{"number", "7"}, {"null", "null"}, {"array", `["EdDSA"]`}, {"object", "{}"}} {
		g.reject("core", "alg-"+c.id, "header", "alg is not a string: "+c.id, g.token(g.header(ed).with("alg", c.raw).json(), good, ed))
	}
	g.reject("core", "alg-missing", "header", "no alg", g.token(g.header(ed).without("alg").json(), good, ed))
	g.signatureCases()
}

// signatureCases: the right key is named and did not sign this.
func (g *generator) signatureCases() {
	ed, ec := g.keys["ed-1"], g.keys["ec-1"]
	good := claims().json()
	foreign := func(name string, as key) string {
		return g.token(g.header(as).json(), good, g.keys[name])
	}
	g.reject("core", "signature-foreign-ed25519", "signature", "somebody else's Ed25519 key under our kid", foreign("ed-foreign", ed))
	g.reject("core", "signature-foreign-p256", "signature", "somebody else's P-256 key under our kid", foreign("ec-foreign", ec))

	token := g.token(g.header(ed).json(), good, ed)
	parts := strings.Split(token, ".")
	other := strings.Split(g.payload(claims().with("tenant", `"globex"`).json()), ".")
	raw, _ := base64.RawURLEncoding.DecodeString(parts[2])
	flipped := append([]byte(nil), raw...)
	flipped[0] ^= 1
	for _, c := range []struct{ id, description, token string }{
		{"payload-swapped", "the payload of another token", parts[0] + "." + other[1] + "." + parts[2]},
		{"signature-swapped", "the signature of another token", parts[0] + "." + parts[1] + "." + other[2]},
		{"header-changed", "a header changed after signing", segment(g.header(ed).also("x", "1").json()) + "." + parts[1] + "." + parts[2]},
		{"bit-flipped", "one bit of the signature flipped", parts[0] + "." + parts[1] + "." + segment(string(flipped))},
		{"truncated", "the last byte of the signature is missing", parts[0] + "." + parts[1] + "." + segment(string(raw[:63]))},
		{"longer", "one byte more", parts[0] + "." + parts[1] + "." + segment(string(raw)+"\x00")},
		{"zeros", "all zeros", parts[0] + "." + parts[1] + "." + segment(strings.Repeat("\x00", 64))},
	} {
		g.reject("core", "signature-"+c.id, "signature", c.description, c.token)
	}
	input := segment(g.header(ec).json()) + "." + segment(good)
	jose := string(g.signature(input, ec))
	der := "\x30\x44\x02\x20" + jose[:32] + "\x02\x20" + jose[32:]
	for _, c := range []struct{ id, description, signature string }{
		{"ecdsa-der", "the signature as ASN.1", der},
		{"ecdsa-zeros", "r and s zero (psychic paper)", strings.Repeat("\x00", 64)},
		{"ecdsa-one-zero", "s zero", jose[:32] + strings.Repeat("\x00", 32)},
		{"ecdsa-truncated", "half of the signature", jose[:32]},
		{"ecdsa-swapped", "s before r", jose[32:] + jose[:32]},
	} {
		g.reject("core", "signature-"+c.id, "signature", c.description, input+"."+segment(c.signature))
	}
}

// headerCases: headers that bring their own rules or keys.
func (g *generator) headerCases() {
	ed, evil := g.keys["ed-1"], g.keys["ed-foreign"]
	good := claims().json()
	certificate := base64.StdEncoding.EncodeToString([]byte("not a certificate"))
	for _, c := range []struct{ name, value string }{
		{"jku", `"https://evil.example/jwks.json"`}, {"x5u", `"https://evil.example/cert.pem"`},
		{"jwk", g.public("ed-1")}, {"x5c", `["` + certificate + `"]`},
		{"crit", `["exp"]`}, {"crit", `[]`}, {"crit", `"exp"`}, {"crit", `["alg"]`},
		{"b64", `true`}, {"b64", `false`},
	} {
		id := map[string]string{`["exp"]`: "", `[]`: "-empty", `"exp"`: "-string", `["alg"]`: "-registered", `false`: "-false"}[c.value]
		tag := "strict"
		if c.name == "crit" {
			tag = "core"
		}
		g.reject(tag, "header-"+c.name+id, "header", c.name+" in the header, "+short(c.value)+", with a good signature",
			g.token(g.header(ed).also(c.name, c.value).json(), good, ed))
	}
	for _, c := range []struct{ id, raw string }{
		{"number", "1"}, {"array", "[]"}, {"null", "null"}, {"object", `{"a":"b"}`}, {"bool", "true"},
	} {
		g.reject("strict", "header-nonce-"+c.id, "header", "nonce is not a string: "+c.id, g.token(g.header(ed).also("nonce", c.raw).json(), good, ed))
	}
	unencoded := segment(g.header(ed).also("b64", "false").also("crit", `["b64"]`).json())
	g.reject("core", "header-b64-unencoded", "header", "an unencoded payload (RFC 7797), encoded again in transit",
		unencoded+"."+segment(good)+"."+segment(string(ed25519.Sign(g.ed25519(ed), []byte(unencoded+"."+good)))))
	g.reject("core", "header-jwk-evil", "header", "signed by the key that the header brings",
		g.token(g.header(ed).also("jwk", g.public("ed-foreign")).json(), good, evil))
	g.reject("core", "header-jwk-evil-no-kid", "header", "signed by the key that the header brings, no kid",
		g.token(g.header(ed).without("kid").also("jwk", g.public("ed-foreign")).json(), good, evil))
	g.reject("strict", "header-zip", "encrypted", "compression belongs to encryption", g.token(g.header(ed).also("zip", `"DEF"`).json(), good, ed))
	g.reject("strict", "header-enc", "encrypted", "a JWE's header in a JWS", g.token(g.header(ed).also("enc", `"A256GCM"`).json(), good, ed))

	for _, c := range []struct{ id, reason, raw string }{
		{"unknown", "unknown_key", `"ed-9"`}, {"case", "unknown_key", `"ED-1"`}, {"path", "unknown_key", `"../../../dev/null"`},
		{"sql", "unknown_key", `"x' UNION SELECT 'k"`}, {"private", "unknown_key", `"private-1"`}, {"encryption", "unknown_key", `"enc-1"`},
		{"array", "header", `["ed-1"]`}, {"number", "header", "1"}, {"null", "header", "null"}, {"empty", "header", `""`},
		{"too-long", "header", quote(strings.Repeat("k", 257))},
	} {
		tag := map[bool]string{true: "core", false: "strict"}[c.reason == "unknown_key" && c.id != "private" && c.id != "encryption"]
		g.reject(tag, "kid-"+c.id, c.reason, "kid: "+c.id, g.token(g.header(ed).with("kid", c.raw).json(), good, ed), keySet("stray"))
	}
	g.reject("strict", "kid-missing", "header", "no kid", g.token(g.header(ed).without("kid").json(), good, ed))

	for _, c := range []struct{ id, tag, raw string }{
		{"jwt", "core", `"JWT"`}, {"ticket", "core", `"job-ticket+jwt"`}, {"head", "core", `"audit-head+jwt"`},
		{"other-tree", "core", `"text/at+jwt"`}, {"application-twice", "core", `"application/application/at+jwt"`},
		{"space", "core", `"at+jwt "`}, {"parameter", "core", `"at+jwt; charset=utf-8"`}, {"empty", "core", `""`},
		{"prefix", "core", `"xat+jwt"`},
	} {
		g.reject(c.tag, "typ-"+c.id, "type", "typ is "+c.raw, g.token(g.header(ed).with("typ", c.raw).json(), good, ed))
	}
	g.reject("core", "typ-missing", "type", "no typ: it could be any kind of token", g.token(g.header(ed).without("typ").json(), good, ed))
	for _, c := range []struct{ id, raw string }{{"array", `["at+jwt"]`}, {"null", "null"}, {"number", "1"}} {
		g.reject("core", "typ-"+c.id, "header", "typ is not a string: "+c.id, g.token(g.header(ed).with("typ", c.raw).json(), good, ed))
	}
}

// signedAs signs without regard to what the key's algorithm is called.
func (g *generator) signedAs(header, payload string, k key) string {
	input := segment(header) + "." + segment(payload)
	return input + "." + segment(string(g.signature(input, k)))
}

func (g *generator) pem(public any) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		g.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func short(s string) string {
	if len(s) > 40 {
		return "whatever it holds"
	}
	return s
}
