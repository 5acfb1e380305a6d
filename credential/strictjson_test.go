package credential_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
)

func TestParseObjectAccepts(t *testing.T) {
	for name, doc := range map[string]string{
		"empty":                     `{}`,
		"spaced":                    " \t\r\n{ \"a\" : 1 , \"b\" : [ ] } \n",
		"every kind":                `{"s":"x","n":-1.5e+3,"o":{},"a":[],"t":true,"f":false,"z":null}`,
		"numbers":                   `{"a":[0,-0,1,10,0.5,1e5,1E-5,-1.25e+10]}`,
		"escapes":                   `{"a":"\"\\\/\b\f\n\r\t\u0041"}`,
		"a pair of surrogates":      `{"\ud83d\ude00":"\uD83D\uDE00"}`,
		"DEL and beyond":            "{\"a\":\"\x7fé世\"}",
		"same name, other object":   `{"a":{"a":{"a":1}},"b":{"a":1},"c":[{"a":1},{"a":1}]}`,
		"names that differ in case": `{"a":1,"A":2}`,
		"names that normalise":      `{"\u00e9":1,"e\u0301":2}`,
		"the empty name":            `{"":1}`,
		"16 levels":                 `{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`,
		"512 members":               members512(512),
		"4096 values":               `{"a":[` + strings.Repeat("1,", 4094) + `1]}`,
	} {
		got, err := credential.ParseObject([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameAsEncodingJSON(t, []byte(doc), got)
	}
}

func members512(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"m%d":1`, i)
	}
	return "{" + strings.Join(list, ",") + "}"
}

func TestParseObjectRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"nothing":                    ``,
		"only space":                 ` `,
		"an array":                   `[]`,
		"a string":                   `"{}"`,
		"null":                       `null`,
		"something behind":           `{}x`,
		"a second object":            `{}{}`,
		"a NUL behind":               "{}\x00",
		"a byte order mark":          "\ufeff{}",
		"not closed":                 `{"a":1`,
		"not closed, nothing":        `{`,
		"wrong bracket":              `{"a":[1}`,
		"array not closed":           `{"a":[1`,
		"array comma first":          `{"a":[,1]}`,
		"array comma last":           `{"a":[1,]}`,
		"comma first":                `{,"a":1}`,
		"comma last":                 `{"a":1,}`,
		"no comma":                   `{"a":1 "b":2}`,
		"no colon":                   `{"a" 1}`,
		"no value":                   `{"a":}`,
		"name without quotes":        `{a:1}`,
		"name a number":              `{1:1}`,
		"name not closed":            `{"a`,
		"single quotes":              `{'a':1}`,
		"comment":                    `{/**/"a":1}`,
		"True":                       `{"a":True}`,
		"tru":                        `{"a":tru}`,
		"falsey":                     `{"a":falsey}`,
		"nul":                        `{"a":nul`,
		"leading zero":               `{"a":01}`,
		"minus alone":                `{"a":-}`,
		"plus":                       `{"a":+1}`,
		"point first":                `{"a":.5}`,
		"point last":                 `{"a":1.}`,
		"exponent without digits":    `{"a":1e}`,
		"exponent with a sign alone": `{"a":1e+}`,
		"hexadecimal":                `{"a":0x1}`,
		"underscore":                 `{"a":1_0}`,
		"NaN":                        `{"a":NaN}`,
		"Infinity":                   `{"a":-Infinity}`,
		"string not closed":          `{"a":"x}`,
		"control character":          "{\"a\":\"\n\"}",
		"NUL in a string":            "{\"a\":\"\x00\"}",
		"unknown escape":             `{"a":"\x41"}`,
		"escape at the end":          `{"a":"\`,
		"escaped quote at the end":   `{"a":"\"`,
		"three digits":               `{"a":"\u004"}`,
		"four that are not digits":   `{"a":"\u00g0"}`,
		"digits with a sign":         `{"a":"\u+041"}`,
		"digits with underscore":     `{"a":"\u0_41"}`,
		"digits cut off":             `{"a":"\u00`,
		"lone high surrogate":        `{"a":"\ud83d"}`,
		"high before text":           `{"a":"\ud83dxxxxxx"}`,
		"high before another escape": `{"a":"\ud83d\n12345"}`,
		"high before a letter":       `{"a":"\ud83d\u0041"}`,
		"high before high":           `{"a":"\ud83d\ud83d"}`,
		"high before bad digits":     `{"a":"\ud83d\uzzzz"}`,
		"high at the end":            `{"a":"\ud83d\u`,
		"lone low surrogate":         `{"a":"\ude00"}`,
		"not UTF-8":                  "{\"a\":\"\xff\"}",
		"overlong":                   "{\"a\":\"\xc0\x80\"}",
		"surrogate bytes":            "{\"a\":\"\xed\xa0\x80\"}",
		"not UTF-8 outside a string": "{\xff}",
		"no-break space":             "{\u00a0}",
		"duplicate":                  `{"a":1,"a":1}`,
		"duplicate far apart":        `{"a":1,"b":{"c":[1]},"d":2,"a":1}`,
		"duplicate by escape":        `{"a":1,"\u0061":1}`,
		"duplicate by slash":         `{"/":1,"\/":1}`,
		"duplicate by pair":          `{"😀":1,"\ud83d\ude00":1}`,
		"duplicate nested":           `{"x":{"a":1,"a":1}}`,
		"duplicate in an array":      `{"x":[[{"a":1,"a":1}]]}`,
		"duplicate after an object":  `{"x":{"a":{"b":1},"a":1}}`,
		"duplicate empty":            `{"":1,"":1}`,
		"17 levels":                  `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`,
		"17 levels of objects":       strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17),
		"513 members":                members512(513),
		"513 members, nested":        `{"x":` + members512(512) + `}`,
		"4097 values":                `{"a":[` + strings.Repeat("1,", 4095) + `1]}`,
	} {
		if got, err := credential.ParseObject([]byte(doc)); !errors.Is(err, credential.ErrMalformed) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseObjectWithinItsCallersLimits(t *testing.T) {
	limits := credential.JSONLimits{Depth: 2, Members: 3, Values: 4}
	for doc, ok := range map[string]bool{
		`{"a":[1,2]}`: true, `{"a":[[1]]}`: false, `{"a":1,"b":1,"c":1}`: true,
		`{"a":1,"b":1,"c":1,"d":1}`: false, `{"a":[1,2,3]}`: true, `{"a":[1,2,3,4]}`: false,
	} {
		if _, err := credential.ParseObjectWithin([]byte(doc), limits); (err == nil) != ok {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestElements(t *testing.T) {
	top, err := credential.ParseObject([]byte(`{"a":[ 1, "x" ,{"b":[2]}, [] ],"e":[ ],"o":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	elements, err := top[0].Elements()
	if err != nil || len(elements) != 4 {
		t.Fatalf("%d, %v", len(elements), err)
	}
	for i, want := range []string{`1`, `"x"`, `{"b":[2]}`, `[]`} {
		if string(elements[i].Value) != want || elements[i].Name != nil {
			t.Errorf("element %d: %s", i, elements[i].Value)
		}
	}
	if elements[0].Kind != credential.JSONNumber || elements[2].Kind != credential.JSONObject {
		t.Error("wrong kinds")
	}
	if s, err := elements[1].JSONText(); err != nil || s != "x" {
		t.Errorf("text %q, %v", s, err)
	}
	if none, err := top[1].Elements(); err != nil || len(none) != 0 {
		t.Errorf("of an empty array: %d, %v", len(none), err)
	}
	if _, err := top[2].Elements(); !errors.Is(err, credential.ErrClaim) {
		t.Errorf("of an object: %v", err)
	}
	if _, err := top[2].JSONText(); !errors.Is(err, credential.ErrClaim) {
		t.Errorf("text of an object: %v", err)
	}
}

func TestMembersOutliveTheParser(t *testing.T) {
	first, err := credential.ParseObject([]byte(`{"a":1,"b":"two"}`))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // parsers are used again
		if _, err := credential.ParseObject([]byte(`{"x":"overwritten","y":[1,2,3],"z":{}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if string(first[0].Name) != "a" || string(first[1].Value) != `"two"` {
		t.Error("overwritten")
	}
}

// sameAsEncodingJSON: what we accept, encoding/json reads with the same names,
// kinds and values.
func sameAsEncodingJSON(t interface{ Fatalf(string, ...any) }, doc []byte, got []credential.JSONMember) {
	theirs := map[string]json.RawMessage{}
	if err := json.Unmarshal(doc, &theirs); err != nil {
		t.Fatalf("encoding/json refuses %q: %v", doc, err)
	}
	if len(theirs) != len(got) {
		t.Fatalf("%d members, encoding/json has %d", len(got), len(theirs))
	}
	for _, m := range got {
		value, ok := theirs[string(m.Name)]
		if !ok || !bytes.Equal(bytes.TrimSpace(value), m.Value) {
			t.Fatalf("%q is %s, encoding/json says %s", m.Name, m.Value, value)
		}
		var v any
		decoder := json.NewDecoder(bytes.NewReader(m.Value))
		decoder.UseNumber()
		if err := decoder.Decode(&v); err != nil {
			t.Fatalf("%q: %v", m.Name, err)
		}
		kind := map[string]credential.JSONKind{
			"string": credential.JSONString, "json.Number": credential.JSONNumber, "map[string]interface {}": credential.JSONObject,
			"[]interface {}": credential.JSONArray, "bool": credential.JSONBool, "<nil>": credential.JSONNull,
		}[fmt.Sprintf("%T", v)]
		if kind != m.Kind {
			t.Fatalf("%q is of kind %d, want %d", m.Name, m.Kind, kind)
		}
		if kind == credential.JSONString {
			if s, err := m.JSONText(); err != nil || any(s) != v || !utf8.ValidString(s) {
				t.Fatalf("%q is %q, encoding/json says %q", m.Name, s, v)
			}
		}
	}
}

func TestParseObjectReadsWhatEncodingJSONWrites(t *testing.T) {
	value := rapid.Custom(func(t *rapid.T) any {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return rapid.String().Draw(t, "text")
		case 1:
			return rapid.Float64Range(-1e20, 1e20).Draw(t, "number")
		case 2:
			return rapid.MapOf(rapid.String(), rapid.Int()).Draw(t, "object")
		case 3:
			return rapid.SliceOf(rapid.Bool()).Draw(t, "array")
		}
		return nil
	})
	rapid.Check(t, func(t *rapid.T) {
		doc, err := json.Marshal(rapid.MapOfN(rapid.String(), value, 0, 8).Draw(t, "document"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := credential.ParseObject(doc)
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		sameAsEncodingJSON(t, doc, got)
	})
}

func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,{"b":"\u0041\ud83d\ude00"}],"c":-1.5e3}`, `{"a":1,"\u0061":2}`, "{\"a\":\"\xff\"}", `{"a":null,"b":true}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := credential.ParseObject(doc)
		if err == nil {
			sameAsEncodingJSON(t, doc, got)
		} else if !errors.Is(err, credential.ErrMalformed) {
			t.Fatalf("%v", err)
		}
	})
}
