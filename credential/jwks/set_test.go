package jwks_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

func TestParseSetSkipsWhatItCannotUse(t *testing.T) {
	a, b := ed25519Key(t, "a"), ed25519Key(t, "b")
	doc := `{"x":1,"keys":[` + strings.Join([]string{
		`{"kty":"NEW","kid":"n"}`, string(a.JWK()), `{"kty":"oct","kid":"a","k":"AAAA"}`, `7`, `null`, `"x"`, `[]`, `{}`,
		strings.Replace(string(b.JWK()), `"sig"`, `"enc"`, 1), string(a.JWK()), string(b.JWK()),
	}, ",") + `]}`
	set, err := jwks.ParseSet([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if keys := set.Keys(); len(keys) != 2 || set.Len() != 2 || !keys[0].Equal(a) || !keys[1].Equal(b) {
		t.Errorf("%d keys", set.Len())
	}
}

func TestSetSurvivesItsDocument(t *testing.T) {
	set := jwks.NewSet(ed25519Key(t, "a"), ed25519Key(t, "b"))
	doc, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var again jwks.Set
	if err := json.Unmarshal(doc, &again); err != nil || again.Len() != 2 {
		t.Fatalf("%d keys, %v", again.Len(), err)
	}
	if empty, err := json.Marshal(jwks.Set{}); err != nil || string(empty) != `{"keys":[]}` {
		t.Errorf("the empty set: %s, %v", empty, err)
	}
	if err := json.Unmarshal([]byte(`{"keys":7}`), &again); !errors.Is(err, jwks.ErrSet) {
		t.Errorf("decoding went round the parser: %v", err)
	}
}

func TestParseSetRefuses(t *testing.T) {
	a := string(ed25519Key(t, "a").JWK())
	other := strings.Replace(string(ed25519Key(t, "b").JWK()), `"kid":"b"`, `"kid":"a"`, 1)
	many := make([]string, jwks.MaxKeys+1)
	for i := range many {
		many[i] = "{}"
	}
	for name, doc := range map[string]string{
		"nothing":            "",
		"null":               "null",
		"an array":           "[" + a + "]",
		"no keys":            `{"Keys":[` + a + `]}`,
		"keys an object":     `{"keys":{}}`,
		"two lists":          `{"keys":[],"keys":[` + a + `]}`,
		"one id, two keys":   `{"keys":[` + a + `,` + other + `]}`,
		"too many":           `{"keys":[` + strings.Join(many, ",") + `]}`,
		"too many members":   `{"keys":[{` + strings.Repeat(`"a":1,`, 3000) + `"b":1}]}`,
		"too many values":    `{"keys":[{"a":[` + strings.Repeat(`1,`, 5000) + `1]}]}`,
		"duplicate in a key": `{"keys":[{"kty":"EC","kty":"OKP"}]}`,
		"something behind":   `{"keys":[]}x`,
	} {
		if _, err := jwks.ParseSet([]byte(doc)); !errors.Is(err, jwks.ErrSet) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSetOfAHundredFullKeysParses(t *testing.T) {
	m := jwkOf(t, credential.RS256)
	var list []string
	for i := range jwks.MaxKeys {
		m["kid"] = json.RawMessage(`"k` + strings.Repeat("x", i) + `"`)
		m["x5t"], m["x5c"], m["key_ops"] = json.RawMessage(`"AAAA"`), json.RawMessage(`["AAAA"]`), json.RawMessage(`["verify"]`)
		raw, _ := json.Marshal(m)
		list = append(list, string(raw))
	}
	set, err := jwks.ParseSet([]byte(`{"keys":[` + strings.Join(list, ",") + `]}`))
	if err != nil || set.Len() != jwks.MaxKeys {
		t.Errorf("%d keys, %v", set.Len(), err)
	}
}

func TestFind(t *testing.T) {
	a, b := ed25519Key(t, "a"), ed25519Key(t, "b")
	noID, err := jwks.NewKey("", credential.EdDSA, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		set  jwks.Set
		kid  string
		want string // thumbprint
	}{
		{"by id", jwks.NewSet(a, b), "b", b.Thumbprint()},
		{"unknown id", jwks.NewSet(a, b), "c", ""},
		{"ids are compared with case", jwks.NewSet(a, b), "A", ""},
		{"no id, one key", jwks.NewSet(a), "", a.Thumbprint()},
		{"no id, one key without id", jwks.NewSet(noID), "", a.Thumbprint()},
		{"no id, two keys", jwks.NewSet(a, b), "", ""},
		{"no id, two keys, one without", jwks.NewSet(noID, b), "", ""},
		{"an id, one key without id", jwks.NewSet(noID), "a", ""},
		{"the first of two", jwks.NewSet(b, a, ed25519Key(t, "a")), "a", a.Thumbprint()},
		{"empty set", jwks.Set{}, "a", ""},
		{"empty set, no id", jwks.Set{}, "", ""},
	} {
		k, ok := c.set.Find(c.kid)
		if ok != (c.want != "") || k.Thumbprint() != c.want {
			t.Errorf("%s: %v, %s", c.name, ok, k.ID())
		}
		if _, err := c.set.Key(t.Context(), c.kid); (err == nil) != ok || err != nil && !errors.Is(err, jwks.ErrUnknownKey) {
			t.Errorf("%s as a Source: %v", c.name, err)
		}
	}
}

func TestSetDoesNotChangeWithItsCaller(t *testing.T) {
	keys := []jwks.Key{ed25519Key(t, "a")}
	set := jwks.NewSet(keys...)
	keys[0] = ed25519Key(t, "evil")
	set.Keys()[0] = ed25519Key(t, "evil")
	if _, ok := set.Find("a"); !ok {
		t.Error("changed")
	}
}
