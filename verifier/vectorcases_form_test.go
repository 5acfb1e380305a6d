package verifier_test

import (
	"encoding/base64"
	"strings"
)

// formCases: what is not a compact JWS over strict JSON, or too much of it.
func (g *generator) formCases() {
	ed := g.keys["ed-1"]
	good := g.payload(claims().json())
	parts := strings.Split(good, ".")
	header, body, signature := parts[0], parts[1], parts[2]
	h, p := g.header(ed).json(), claims().json()

	for _, c := range []struct{ id, tag, description, token string }{
		{"empty", "core", "nothing", ""},
		{"dots", "core", "two dots", ".."},
		{"one-segment", "core", "one segment", header},
		{"two-segments", "core", "two segments", header + "." + body},
		{"four-segments", "core", "four segments", good + "." + signature},
		{"six-segments", "core", "six segments", good + "..."},
		{"no-header", "core", "an empty header", "." + body + "." + signature},
		{"no-signature", "core", "an empty signature under a real algorithm", header + "." + body + "."},
		{"bearer", "core", "the scheme of the HTTP header in front", "Bearer " + good},
		{"quoted", "core", "between quotes", `"` + good + `"`},
		{"space-before", "strict", "a space in front", " " + good},
		{"space-after", "strict", "a space behind", good + " "},
		{"line-end-after", "strict", "a line end behind", good + "\n"},
		{"line-end-inside", "strict", "a line end inside the signature", header + "." + body + "." + signature[:20] + "\n" + signature[20:]},
		{"carriage-return-inside", "strict", "a carriage return inside the signature", header + "." + body + "." + signature[:20] + "\r" + signature[20:]},
		{"signature-padded", "strict", "padding behind the signature", good + "=="},
		{"signature-trailing-bits", "strict", "bits set behind the signature's last byte", good[:len(good)-1] + nextBit(good[len(good)-1])},
		{"nul-after", "core", "a NUL behind", good + "\x00"},
		{"percent", "core", "percent-encoded dots", strings.ReplaceAll(good, ".", "%2E")},
		{"json-flattened", "core", "JWS JSON serialization, flattened",
			`{"protected":"` + header + `","payload":"` + body + `","signature":"` + signature + `"}`},
		{"json-general", "core", "JWS JSON serialization, one signature",
			`{"payload":"` + body + `","signatures":[{"protected":"` + header + `","signature":"` + signature + `"}]}`},
		{"json-two-signatures", "core", "JWS JSON serialization, a good signature and a bad one",
			`{"payload":"` + body + `","signatures":[{"protected":"` + header + `","signature":"` + signature + `"},{"protected":"` + header + `","signature":"AAAA"}]}`},
	} {
		g.reject(c.tag, "form-"+c.id, "malformed", c.description, c.token)
	}
	for _, c := range []struct{ id, description, header, payload string }{
		{"header-padded", "padding behind the header, signed so", padded(h), segment(p)},
		{"payload-padded", "padding behind the payload, signed so", segment(h), padded(p)},
		{"payload-standard-base64", "+ and / in place of - and _, signed so", segment(h), base64.RawStdEncoding.EncodeToString([]byte(claims().also("x", `"???>>>~~~"`).json()))},
		{"payload-line-end", "a line end inside the payload, signed so", segment(h), segment(p)[:40] + "\n" + segment(p)[40:]},
		{"header-space", "a space inside the header, signed so", segment(h)[:8] + " " + segment(h)[8:], segment(p)},
	} {
		g.reject("strict", "form-"+c.id, "malformed", c.description, g.signed(c.header+"."+c.payload, ed))
	}
	for _, c := range []struct{ id, header string }{
		{"five-segments", `{"alg":"RSA-OAEP","enc":"A256GCM"}`},
		{"five-segments-dir", `{"alg":"dir","enc":"A256GCM","typ":"at+jwt","kid":"ed-1"}`},
	} {
		g.reject("core", "jwe-"+c.id, "encrypted", "an encrypted token", segment(c.header)+".AAAA.AAAA.AAAA.AAAA")
	}
	g.jsonCases()
	g.sizeCases()
}

// jsonCases: payloads and headers, well signed, that are not strict JSON objects.
func (g *generator) jsonCases() {
	ed := g.keys["ed-1"]
	p := claims().json()
	for _, c := range []struct{ id, tag, description, payload string }{
		{"empty", "core", "an empty payload", ""},
		{"array", "core", "an array", "[" + p + "]"},
		{"string", "core", "a string", quote(p)},
		{"number", "core", "a number", "7"},
		{"null", "core", "null", "null"},
		{"text", "core", "no JSON", "tenant=acme"},
		{"two-objects", "core", "two objects", p + p},
		{"trailing-text", "core", "text behind the object", p + "x"},
		{"trailing-comma", "core", "a comma before the closing brace", p[:len(p)-1] + ",}"},
		{"truncated", "core", "the closing brace is missing", p[:len(p)-1]},
		{"comment", "core", "a comment", p[:len(p)-1] + "/*x*/}"},
		{"single-quotes", "core", "single quotes", strings.ReplaceAll(p, `"`, "'")},
		{"bare-name", "core", "a name without quotes", p[:len(p)-1] + ",x:1}"},
		{"control-character", "core", "a raw control character in a string", p[:len(p)-1] + ",\"x\":\"\x01\"}"},
		{"bad-escape", "core", "an unknown escape", p[:len(p)-1] + `,"x":"\q"}`},
		{"short-escape", "core", "an escape with three digits", p[:len(p)-1] + `,"x":"\u006"}`},
		{"byte-order-mark", "strict", "a byte order mark in front", "\ufeff" + p},
		{"not-utf8", "strict", "a byte that is not UTF-8", p[:len(p)-1] + ",\"x\":\"\xff\"}"},
		{"overlong", "strict", "an overlong encoding", p[:len(p)-1] + ",\"x\":\"\xc0\xaf\"}"},
		{"surrogate-bytes", "strict", "a surrogate as bytes", p[:len(p)-1] + ",\"x\":\"\xed\xa0\x80\"}"},
		{"utf16", "core", "UTF-16", utf16le(p)},
		{"lone-surrogate", "strict", "half a pair of surrogates", p[:len(p)-1] + `,"x":"\ud83d"}`},
		{"lone-low-surrogate", "strict", "the other half", p[:len(p)-1] + `,"x":"\ude00"}`},
		{"surrogates-swapped", "strict", "a pair in the wrong order", p[:len(p)-1] + `,"x":"\ude00\ud83d"}`},
		{"lone-surrogate-name", "strict", "half a pair in a name", p[:len(p)-1] + `,"\ud83d":1}`},
		{"other-space", "core", "a no-break space between members", p[:len(p)-1] + ",\u00a0\"x\":1}"},
		{"true-upper-case", "core", "True", p[:len(p)-1] + `,"x":True}`},
	} {
		g.reject(c.tag, "json-"+c.id, "malformed", "a payload, well signed: "+c.description, g.payload(c.payload))
	}
	for _, c := range []struct{ id, tag, description, header string }{
		{"array", "core", "an array", `["EdDSA"]`},
		{"text", "core", "no JSON", "alg=EdDSA"},
		{"null", "core", "null", "null"},
		{"trailing-text", "core", "text behind the object", g.header(ed).json() + "x"},
		{"byte-order-mark", "strict", "a byte order mark in front", "\ufeff" + g.header(ed).json()},
		{"not-utf8", "strict", "a byte that is not UTF-8", g.header(ed).also("x", "\"\xff\"").json()},
		{"lone-surrogate", "strict", "half a pair of surrogates", g.header(ed).also("x", `"\ud83d"`).json()},
	} {
		g.reject(c.tag, "json-header-"+c.id, "malformed", "a header, well signed: "+c.description, g.token(c.header, p, ed))
	}
	for _, c := range []struct{ id, description, raw string }{
		{"overflow", "a number that no double holds", "1e400"},
		{"overflow-barely", "the first number that no double holds", "1.7976931348623159e308"},
		{"overflow-nested", "a number that no double holds, deeper", `{"a":[-1e400]}`},
		{"overflow-vast", "an exponent that no integer holds", "1e99999999999999999999"},
		{"long", "a number of 65 characters", strings.Repeat("9", 65)},
		{"very-long", "a number of 600 characters", strings.Repeat("9", 600)},
		{"long-fraction", "a small number of 65 characters", "0." + strings.Repeat("0", 62) + "1"},
	} {
		g.reject("strict", "number-header-"+c.id, "malformed", "in the header: "+c.description, g.token(g.header(ed).also("x", c.raw).json(), p, ed))
		g.reject("strict", "number-"+c.id, "malformed", c.description, g.payload(claims().also("x", c.raw).json()))
	}
	g.reject("strict", "number-5000", "malformed", "a number of 5000 characters", g.payload(claims().also("x", strings.Repeat("9", 5000)).json()))
}

// sizeCases: more than anyone needs.
func (g *generator) sizeCases() {
	ed := g.keys["ed-1"]
	many := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = `"` + string(rune('a'+i/100)) + string(rune('a'+i/10%10)) + string(rune('a'+i%10)) + `":1`
		}
		return "{" + strings.Join(list, ",") + "}"
	}
	for _, c := range []struct{ id, description, payload string }{
		{"depth-17", "17 levels", claims().also("x", strings.Repeat("[", 16)+strings.Repeat("]", 16)).json()},
		{"depth-objects", "17 levels of objects", claims().also("x", strings.Repeat(`{"a":`, 16)+"1"+strings.Repeat("}", 16)).json()},
		{"depth-5000", "5000 levels", claims().also("x", strings.Repeat("[", 4999)+strings.Repeat("]", 4999)).json()},
		{"depth-unclosed", "10000 brackets that never close", claims().json()[:20] + strings.Repeat("[", 10000)},
		{"members", "600 members", claims().also("x", many(600)).json()},
		{"values", "5000 values", claims().also("x", "["+strings.Repeat("1,", 4999)+"1]").json()},
		{"token", "a token of more than 16 KiB", claims().also("x", quote(strings.Repeat("x", 12<<10))).json()},
	} {
		g.reject("strict", "size-"+c.id, "malformed", c.description, g.payload(c.payload))
	}
	g.reject("strict", "size-header", "malformed", "a header of more than 4 KiB",
		g.token(g.header(ed).also("x", quote(strings.Repeat("x", 4<<10))).json(), claims().json(), ed))
	g.reject("core", "size-dots", "malformed", "16 KiB of dots", strings.Repeat(".", 16<<10))
}

// nextBit returns the base64url digit after c: it differs in the lowest bit,
// which behind 64 bytes stands for nothing.
func nextBit(c byte) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return digits[strings.IndexByte(digits, c)+1:][:1]
}

// padded is p in base64url with padding; a space makes sure that there is some.
func padded(p string) string {
	if len(p)%3 == 0 {
		p += " "
	}
	return base64.URLEncoding.EncodeToString([]byte(p))
}

func utf16le(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		b.WriteByte(0)
	}
	return b.String()
}
