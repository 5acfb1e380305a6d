package verifier_test

import (
	"slices"
	"strings"
)

// claimCases: every claim missing, mistyped, or somebody else's.
func (g *generator) claimCases() {
	base := claims()
	core := []string{"iss", "aud"} // what a library that was told them must require
	for _, name := range []string{"iss", "sub", "client_id", "aud", "iat", "exp", "jti", "txn"} {
		tag := map[bool]string{true: "core", false: "strict"}[slices.Contains(core, name)]
		g.reject(tag, "missing-"+name, "claim", "no "+name, g.payload(base.without(name).json()))
	}
	wrong := map[string][]string{
		"text": {"number", "7", "null", "null", "array", `["x"]`, "object", `{"x":"y"}`, "empty", `""`},
		"date": {"string", `"1768478640"`, "null", "null", "array", "[1768478640]", "true", "true"},
	}
	for _, c := range []struct{ name, kind string }{
		{"iss", "text"}, {"sub", "text"}, {"client_id", "text"}, {"aud", "text"}, {"jti", "text"}, {"txn", "text"}, {"job", "text"},
		{"iat", "date"}, {"exp", "date"}, {"nbf", "date"},
	} {
		for i := 0; i < len(wrong[c.kind]); i += 2 {
			id, raw := wrong[c.kind][i], wrong[c.kind][i+1]
			tag := "strict"
			if c.name == "iss" || (c.name == "exp" || c.name == "nbf") && id == "string" || c.name == "aud" && id != "null" {
				tag = "core"
			}
			g.reject(tag, "type-"+c.name+"-"+id, "claim", c.name+" is of the wrong type, or says nothing: "+id,
				g.payload(base.with(c.name, raw).json()))
		}
	}
	for _, c := range []struct{ id, description, name, raw string }{
		{"aud-array-of-one", "an array, even of one and the right one", "aud", `["` + vectorAudience + `"]`},
		{"aud-array-of-two", "an array with the right one in it", "aud", `["` + vectorAudience + `","https://billing.example"]`},
		{"aud-array-empty", "an empty array", "aud", `[]`},
		{"aud-space", "an audience with a space", "aud", `"https://orders.example https://billing.example"`},
		{"scope-array", "scope as an array", "scope", `["orders.read"]`},
		{"scope-null", "scope null", "scope", `null`},
		{"scope-two-spaces", "two spaces between scopes", "scope", `"a  b"`},
		{"scope-quote", "a quote in a scope", "scope", `"a\"b"`},
		{"scope-too-many", "65 scopes", "scope", quote(manyScopes(65))},
		{"sub-grammar", "sub outside the grammar", "sub", `"invoice worker"`},
		{"sub-too-long", "sub of 129 bytes", "sub", quote(strings.Repeat("s", 129))},
		{"client-id-grammar", "client_id outside the grammar", "client_id", `"../admin"`},
		{"jti-too-long", "jti of 129 bytes", "jti", quote(strings.Repeat("j", 129))},
		{"txn-too-long", "txn of 129 bytes", "txn", quote(strings.Repeat("t", 129))},
		{"act-string", "act is not an object", "act", `"gateway"`},
		{"act-no-sub", "act without sub", "act", `{"client_id":"gateway"}`},
		{"act-sub-number", "act whose sub is a number", "act", `{"sub":7}`},
		{"act-array", "act is an array", "act", `[{"sub":"gateway"}]`},
		{"act-inner-no-sub", "an inner act without sub", "act", `{"sub":"a","act":{}}`},
		{"act-five", "five nested actors", "act", `{"sub":"a","act":{"sub":"b","act":{"sub":"c","act":{"sub":"d","act":{"sub":"e"}}}}}`},
		{"cnf-string", "cnf is not an object", "cnf", `"x"`},
		{"cnf-empty", "cnf without a member", "cnf", `{}`},
		{"cnf-unknown", "a binding of an unknown kind is not none", "cnf", `{"kid":"x"}`},
		{"cnf-number", "a thumbprint that is a number", "cnf", `{"jkt":7}`},
		{"cnf-null", "cnf null", "cnf", `null`},
	} {
		g.reject("strict", "claim-"+c.id, "claim", c.description, g.payload(base.with(c.name, c.raw).json()))
	}
	for _, c := range []struct{ id, raw string }{
		{"certificate", `{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}`},
		{"key", `{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`},
	} {
		g.reject("strict", "cnf-"+c.id, "proof_required", "bound to a "+c.id+", and no proof is given", g.payload(base.also("cnf", c.raw).json()))
	}
	for _, c := range []struct{ id, iss string }{
		{"other", "https://evil.example"}, {"slash", vectorIssuer + "/"}, {"path", vectorIssuer + "/x"}, {"http", "http://broker.example"},
		{"upper-case", "https://BROKER.example"}, {"port", vectorIssuer + ":443"}, {"suffix", vectorIssuer + ".evil.example"}, {"space", vectorIssuer + " "},
	} {
		g.reject("core", "iss-"+c.id, "issuer", "another issuer: "+quote(c.iss), g.payload(base.with("iss", quote(c.iss)).json()))
	}
	for _, c := range []struct{ id, aud string }{
		{"other", "https://billing.example"}, {"slash", vectorAudience + "/"}, {"path", vectorAudience + "/v1"}, {"issuer", vectorIssuer},
		{"upper-case", "https://ORDERS.example"}, {"prefix", "https://orders.exampl"}, {"wildcard", "*"},
	} {
		g.reject("core", "aud-"+c.id, "audience", "another audience: "+quote(c.aud), g.payload(base.with("aud", quote(c.aud)).json()))
	}
}

// timeCases: the vectors' time is 1768478400, the leeway 30 s.
func (g *generator) timeCases() {
	base := claims()
	for _, c := range []struct{ id, tag, description, iat, exp string }{
		{"exp-last-second", "core", "over 29 s ago: within the leeway", "1768478340", "1768478371"},
		{"exp-fraction", "core", "a fraction of a second is allowed", "1768478340.5", "1768478640.25"},
		{"exp-exponent", "core", "a number with an exponent is a number", "1768478340", "1.768478640e9"},
		{"iat-edge", "core", "issued in 30 s: exactly the leeway", "1768478430", "1768478640"},
		{"life-hour", "core", "it lives an hour, the most there is", "1768478340", "1768481940"},
	} {
		g.accept(c.tag, "time-"+c.id, c.description, g.payload(base.with("iat", c.iat).with("exp", c.exp).json()))
	}
	for _, c := range []struct{ id, description, nbf string }{
		{"past", "nbf in the past", "1768478000"}, {"now", "nbf now", "1768478400"}, {"edge", "nbf in 30 s: exactly the leeway", "1768478430"},
	} {
		g.accept("core", "time-nbf-"+c.id, c.description, g.payload(base.also("nbf", c.nbf).json()))
	}
	g.reject("core", "time-nbf-late", "not_yet_valid", "nbf in 31 s", g.payload(base.also("nbf", "1768478431").json()))
	g.reject("core", "time-nbf-far", "not_yet_valid", "nbf in the year 9999", g.payload(base.also("nbf", "253402300799").json()))
	g.reject("strict", "time-nbf-fraction", "not_yet_valid", "nbf in 30.5 s: a fraction counts", g.payload(base.also("nbf", "1768478430.5").json()))
	for _, c := range []struct{ id, tag, reason, description, iat, exp string }{
		{"exp-edge", "core", "expired", "over 30 s ago: at exactly the leeway it is over", "1768478340", "1768478370"},
		{"exp-edge-fraction", "core", "expired", "over for more than the leeway, in an hour's fraction", "1768478340", "1768478369.999"},
		{"exp-past", "core", "expired", "over an hour ago", "1768474500", "1768474800"},
		{"exp-long-past", "core", "expired", "over in 2001", "1000000000", "1000000300"},
		{"exp-before-iat", "strict", "claim", "it ends before it begins", "1768478640", "1768478600"},
		{"exp-equals-iat", "strict", "claim", "it ends as it begins", "1768478400", "1768478400"},
		{"life-hour-and-second", "strict", "claim", "it lives an hour and a second: there is no leeway between two times of one clock", "1768478340", "1768481941"},
		{"life-edge", "strict", "claim", "it lives an hour and the leeway", "1768478340", "1768481970"},
		{"life-too-long", "strict", "claim", "it lives an hour, the leeway and a second", "1768478340", "1768481971"},
		{"life-year", "strict", "claim", "it lives a year", "1768478340", "1800014340"},
		{"iat-future", "strict", "not_yet_valid", "issued in 31 s", "1768478431", "1768478640"},
		{"iat-far-future", "strict", "not_yet_valid", "issued tomorrow", "1768564800", "1768565100"},
		{"exp-huge", "strict", "claim", "an end beyond every calendar", "1768478340", "1e300"},
		{"exp-overflow", "strict", "malformed", "an end beyond every float", "1768478340", "1e999"},
		{"exp-year-10000", "strict", "claim", "an end in the year 10000", "1768478340", "253402300800"},
		{"exp-int64", "strict", "claim", "an end that wraps round in 64 bits", "1768478340", "18446745842188192240"},
		{"exp-milliseconds", "strict", "claim", "an end in milliseconds", "1768478340", "1768478640000"},
		{"exp-negative", "core", "claim", "an end before 1970", "1768478340", "-1"},
		{"exp-zero", "core", "claim", "an end at 0", "1768478340", "0"},
		{"exp-minus-zero", "core", "claim", "an end at -0", "1768478340", "-0"},
		{"iat-negative", "strict", "claim", "issued before 1970", "-1", "1768478640"},
		{"iat-zero", "strict", "claim", "issued at 0", "0", "1768478640"},
		{"exp-leading-zero", "core", "malformed", "a number with a leading zero", "1768478340", "01768478640"},
		{"exp-hex", "core", "malformed", "a number in hexadecimal", "1768478340", "0x69690070"},
		{"exp-plus", "core", "malformed", "a number with a plus", "1768478340", "+1768478640"},
		{"exp-infinity", "core", "malformed", "Infinity", "1768478340", "Infinity"},
		{"exp-nan", "core", "malformed", "NaN", "1768478340", "NaN"},
		{"exp-point", "core", "malformed", "a point without digits behind it", "1768478340", "1768478640."},
	} {
		g.reject(c.tag, "time-"+c.id, c.reason, c.description, g.payload(base.with("iat", c.iat).with("exp", c.exp).json()))
	}
}

// ownCases: for the broker's own audiences a life is ten minutes at most,
// whoever the tenant is, and whichever of them it is.
func (g *generator) ownCases() {
	for _, c := range []struct{ id, audience, tenant string }{
		{"admin", vectorIssuer + "/admin", "system"},
		{"admin-of-a-tenant", vectorIssuer + "/admin", "acme"},
		{"revocations", vectorIssuer + "/revocations", "acme"},
		{"issuer", vectorIssuer, "system"},
	} {
		base := claims().with("aud", quote(c.audience)).with("tenant", quote(c.tenant))
		token := func(exp string) string { return g.payload(base.with("exp", exp).json()) }
		at := audience(c.audience)
		g.accept("core", "own-life-"+c.id, "ten minutes for an audience of the broker's own, the most there is", token("1768478940"), at)
		g.reject("strict", "own-life-"+c.id+"-and-second", "claim", "ten minutes and a second for an audience of the broker's own", token("1768478941"), at)
		g.reject("strict", "own-life-"+c.id+"-hour", "claim", "an hour for an audience of the broker's own", token("1768481940"), at)
	}
	beside := "https://broker.example.org/admin"
	g.accept("core", "own-life-beside", "an hour for an audience that only begins like the broker's own",
		g.payload(claims().with("aud", quote(beside)).with("exp", "1768481940").json()), audience(beside))
}

func manyScopes(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "s" + string(rune('0'+i/10)) + string(rune('0'+i%10))
	}
	return strings.Join(list, " ")
}
