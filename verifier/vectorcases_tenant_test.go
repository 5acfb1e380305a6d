package verifier_test

import "strings"

// tenantCases are I1 in every shape.
func (g *generator) tenantCases() {
	base := claims()
	for _, c := range []struct{ id, description, value string }{
		{"short", "a tenant of one character", `"a"`},
		{"digit-first", "a tenant that begins with a digit", `"7eleven"`},
		{"uuid", "a UUID as tenant", `"0b8f5c0e-8d7a-4d55-9f0e-3f6a1f0c9b11"`},
		{"longest", "64 bytes, the longest", quote(strings.Repeat("t", 64))},
		{"punctuation", "every punctuation of the grammar", `"A_b.c-d"`},
		{"escaped-value", "the value spelled with an escape is the value", `"ac\u006de"`},
		{"upper-case", "upper case is another tenant, and well-formed", `"ACME"`},
	} {
		g.accept("core", "tenant-"+c.id, c.description, g.payload(base.with("tenant", c.value).json()))
	}
	g.accept("core", "tenant-escaped-name-alone", "one tenant whose name is spelled with an escape: names are compared unescaped",
		g.payload(base.without("tenant").also(`ten\u0061nt`, `"acme"`).json()))
	g.accept("core", "tenant-nested", "a tenant inside another claim means nothing",
		g.payload(base.also("ctx", `{"tenant":"globex","tenants":["a","b"],"Tenant":{"x":1}}`).json()))
	g.accept("core", "tenant-nested-in-act", "a tenant inside act means nothing",
		g.payload(base.also("act", `{"sub":"gateway","tenant":"globex"}`).json()))
	g.accept("core", "tenant-other-names", "names that only resemble it are other claims",
		g.payload(base.also("tenant_id", `"globex"`).also("tenantss", `"x"`).also("tenan", `"x"`).also("tid", `"x"`).json()))
	g.accept("core", "tenant-name-with-space", "a name with a space at its end is another name",
		g.payload(base.also("tenant ", `"globex"`).json()))

	for _, c := range []struct{ id, description, value string }{
		{"array-of-one", "an array, even of one", `["acme"]`},
		{"array-of-two", "an array of two", `["acme","globex"]`},
		{"array-empty", "an empty array", `[]`},
		{"object", "an object", `{"id":"acme"}`},
		{"object-empty", "an empty object", `{}`},
		{"number", "a number", `7`},
		{"true", "a boolean", `true`},
		{"null", "null", `null`},
		{"empty", "the empty string", `""`},
		{"wildcard", "a wildcard", `"*"`},
		{"wildcard-prefix", "a wildcard after a prefix", `"acme*"`},
		{"percent", "an SQL wildcard", `"acme%"`},
		{"two-by-space", "two in one string, by a space", `"acme globex"`},
		{"two-by-comma", "two in one string, by a comma", `"acme,globex"`},
		{"json-in-string", "an array as text", `"[\"acme\",\"globex\"]"`},
		{"slash", "a path", `"acme/globex"`},
		{"dots", "a parent folder", `".."`},
		{"dash-first", "a dash in front, as an option has", `"-acme"`},
		{"space-before", "a space in front", `" acme"`},
		{"space-after", "a space behind", `"acme "`},
		{"line-end", "a line end behind", `"acme\n"`},
		{"nul", "a NUL behind", `"acme\u0000"`},
		{"nul-inside", "a NUL inside, where C would stop reading", `"acme\u0000globex"`},
		{"homoglyph", "a Cyrillic letter that looks Latin", `"аcme"`},
		{"combining", "a combining accent", `"acme\u0301"`},
		{"full-width", "full-width letters", `"ａｃｍｅ"`},
		{"zero-width", "a zero-width space", `"acme\u200b"`},
		{"too-long", "65 bytes", quote(strings.Repeat("t", 65))},
		{"system", "the broker itself, for a foreign audience", `"system"`},
		{"system-escaped", "the broker itself, spelled with an escape", `"syste\u006d"`},
		{"system-upper-case", "a spelling of the reserved tenant", `"SYSTEM"`},
		{"system-title-case", "a spelling of the reserved tenant", `"System"`},
	} {
		g.reject("strict", "tenant-"+c.id, "tenant", c.description, g.payload(base.with("tenant", c.value).json()))
	}
	g.reject("strict", "tenant-missing", "tenant", "no tenant at all", g.payload(base.without("tenant").json()))
	g.reject("strict", "tenant-only-nested", "tenant", "a nested tenant does not count as one",
		g.payload(base.without("tenant").also("ctx", `{"tenant":"acme"}`).json()))
	g.reject("strict", "tenant-only-in-header", "tenant", "a tenant in the header does not count as one",
		g.token(g.header(g.keys["ed-1"]).also("tenant", `"acme"`).json(), base.without("tenant").json(), g.keys["ed-1"]))
	g.reject("strict", "tenant-only-with-space", "tenant", "a name with a space at its end is not the name",
		g.payload(base.without("tenant").also("tenant ", `"acme"`).json()))

	g.ownAudienceCases()
	g.lookalikeCases()
	g.duplicateCases()
}

func (g *generator) ownAudienceCases() {
	for _, name := range []string{"", "/admin", "/leases/db"} {
		own := vectorIssuer + name
		id := "tenant-system-own" + strings.ReplaceAll(name, "/", "-")
		g.accept("core", id, "the broker itself, for an audience of its own",
			g.payload(claims().with("aud", quote(own)).with("tenant", `"system"`).json()), audience(own))
	}
	g.accept("core", "tenant-at-own-audience", "one tenant, for an audience of the broker's own",
		g.payload(claims().with("aud", quote(vectorIssuer+"/admin")).json()), audience(vectorIssuer+"/admin"))
	near := vectorIssuer + ".evil.example/admin"
	g.reject("strict", "tenant-system-near-audience", "tenant", "an audience that only begins like the issuer is foreign",
		g.payload(claims().with("aud", quote(near)).with("tenant", `"system"`).json()), audience(near))
}

// lookalikeCases: a second member that a sloppy reader would take for the tenant.
func (g *generator) lookalikeCases() {
	for _, c := range []struct{ id, description, name string }{
		{"title-case", "Tenant", "Tenant"},
		{"upper-case", "TENANT", "TENANT"},
		{"mixed-case", "tEnAnT", "tEnAnT"},
		{"escaped-case", "Tenant, spelled with an escape", `\u0054enant`},
		{"plural", "tenants", "tenants"},
		{"plural-escaped", "tenants, spelled with an escape", `tenant\u0073`},
		{"plural-title-case", "Tenants", "Tenants"},
		{"plural-upper-case", "TENANTS", "TENANTS"},
		{"long-s", "tenantſ: the long s folds to s", "tenantſ"},
		{"long-s-escaped", "tenantſ, spelled with an escape", `tenant\u017f`},
	} {
		g.reject("strict", "lookalike-"+c.id, "tenant", "beside the tenant, "+c.description,
			g.payload(claims().also(c.name, `"globex"`).json()))
		g.reject("strict", "lookalike-alone-"+c.id, "tenant", "in place of the tenant, "+c.description,
			g.payload(claims().without("tenant").also(c.name, `"acme"`).json()))
	}
	for _, c := range []struct{ id, value string }{
		{"null", `null`}, {"same", `"acme"`}, {"empty-array", `[]`}, {"array", `["acme","globex"]`},
	} {
		g.reject("strict", "lookalike-plural-"+c.id, "tenant", "tenants beside the tenant, whatever it holds: "+c.id,
			g.payload(claims().also("tenants", c.value).json()))
	}
}

// duplicateCases: two members of one name, of which libraries take the first,
// the last, or neither.
func (g *generator) duplicateCases() {
	base := claims()
	for _, c := range []struct{ id, description, payload string }{
		{"tenant", "two tenants", base.also("tenant", `"globex"`).json()},
		{"tenant-same", "the same tenant twice", base.also("tenant", `"acme"`).json()},
		{"tenant-first", "two tenants, the other one in front", members{{"tenant", `"globex"`}}.json()[:18] + "," + base.json()[1:]},
		{"tenant-escaped", "two tenants, the second name spelled with an escape", base.also(`ten\u0061nt`, `"globex"`).json()},
		{"tenant-all-escaped", "two tenants, the second name all escapes", base.also(`\u0074\u0065\u006e\u0061\u006e\u0074`, `"globex"`).json()},
		{"tenant-null", "a second tenant that is null", base.also("tenant", `null`).json()},
		{"tenant-array", "a second tenant that is an array", base.also("tenant", `["globex"]`).json()},
		{"sub", "two subjects", base.also("sub", `"admin"`).json()},
		{"aud", "two audiences", base.also("aud", quote(vectorAudience)).json()},
		{"exp", "two ends", base.also("exp", "1768478700").json()},
		{"unknown", "an unknown claim twice", base.also("x", "1").also("x", "1").json()},
		{"nested", "a name twice inside a claim", base.also("ctx", `{"a":1,"a":2}`).json()},
		{"nested-tenant", "a nested tenant twice", base.also("ctx", `{"tenant":"a","tenant":"b"}`).json()},
		{"nested-deep", "a name twice deep inside", base.also("ctx", `[{"a":[{"b":{"c":1,"\u0063":2}}]}]`).json()},
		{"in-act", "a name twice inside act", base.also("act", `{"sub":"a","sub":"b"}`).json()},
		{"empty-name", "the empty name twice", base.also("", "1").also("", "2").json()},
	} {
		g.reject("strict", "duplicate-"+c.id, "malformed", c.description, g.payload(c.payload))
	}
	ed := g.keys["ed-1"]
	for _, c := range []struct{ id, description, header string }{
		{"alg", "alg twice", g.header(ed).also("alg", `"EdDSA"`).json()},
		{"kid", "kid twice", g.header(ed).also("kid", `"ed-1"`).json()},
		{"kid-escaped", "kid twice, once spelled with an escape", g.header(ed).also(`k\u0069d`, `"ed-1"`).json()},
		{"typ", "typ twice", g.header(ed).also("typ", `"at+jwt"`).json()},
		{"nested", "a name twice inside a header member", g.header(ed).also("x", `{"a":1,"a":1}`).json()},
	} {
		g.reject("strict", "duplicate-header-"+c.id, "malformed", "in the header, "+c.description, g.token(c.header, base.json(), ed))
	}
}
