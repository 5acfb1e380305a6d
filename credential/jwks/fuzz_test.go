package jwks_test

import (
	"encoding/json"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// What is accepted survives its own document, is public, and is what go-jose
// reads in it.
func FuzzParseKey(f *testing.F) {
	for alg, private := range privates() {
		k, err := jwks.NewKey("kid", alg, private.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.JWK())
	}
	f.Add([]byte(`{"kty":"oct","k":"AAAA"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := jwks.ParseKey(raw)
		if err != nil {
			return
		}
		again, err := jwks.ParseKey(k.JWK())
		if err != nil || !again.Equal(k) {
			t.Fatalf("%s becomes %s, %v", raw, k.JWK(), err)
		}
		if _, err := credential.ParseAlgorithm(string(k.Algorithm())); err != nil {
			t.Fatal(err)
		}
		var theirs jose.JSONWebKey
		if err := json.Unmarshal(k.JWK(), &theirs); err != nil || !theirs.Valid() || !theirs.IsPublic() {
			t.Fatalf("go-jose refuses %s: %v", k.JWK(), err)
		}
	})
}

func FuzzParseSet(f *testing.F) {
	a, b := ed25519Key(f, "a"), ed25519Key(f, "b")
	doc, _ := jwks.NewSet(a, b).MarshalJSON()
	f.Add(doc)
	f.Add([]byte(`{"keys":[{"kty":"oct"},` + string(a.JWK()) + `]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		set, err := jwks.ParseSet(raw)
		if err != nil {
			return
		}
		ids := map[string]bool{}
		for _, k := range set.Keys() {
			if k.ID() != "" && ids[k.ID()] {
				t.Fatalf("two keys called %q", k.ID())
			}
			ids[k.ID()] = true
		}
		doc, err := set.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := jwks.ParseSet(doc); err != nil || again.Len() != set.Len() {
			t.Fatalf("%s becomes %s, %v", raw, doc, err)
		}
	})
}
