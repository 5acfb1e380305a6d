package jwks_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// privates are generated once: one of each type.
var privates = sync.OnceValue(func() map[credential.Algorithm]crypto.Signer {
	p256, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, err2 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsa2048, err3 := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, err4 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		panic(err)
	}
	return map[credential.Algorithm]crypto.Signer{
		credential.ES256: p256, credential.ES384: p384, credential.EdDSA: ed, credential.RS256: rsa2048, credential.PS256: rsa2048,
	}
})

// ed25519Key returns a key that is the same for the same id.
func ed25519Key(t testing.TB, kid string) jwks.Key {
	seed := sha256.Sum256([]byte(kid))
	k, err := jwks.NewKey(kid, credential.EdDSA, ed25519.NewKeyFromSeed(seed[:]).Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func gzipBomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	for range 64 {
		if _, err := z.Write(chunk); err != nil {
			return
		}
	}
	_ = z.Close()
}

func TestKeyOfEveryAlgorithmSurvivesItsJWKAndVerifies(t *testing.T) {
	for alg, private := range privates() {
		t.Run(string(alg), func(t *testing.T) {
			k, err := jwks.NewKey(`ki"d/é`, alg, private.Public())
			if err != nil {
				t.Fatal(err)
			}
			again, err := jwks.ParseKey(k.JWK())
			if err != nil {
				t.Fatalf("%v: %s", err, k.JWK())
			}
			if !again.Equal(k) || again.ID() != k.ID() || again.Algorithm() != alg || again.Thumbprint() != k.Thumbprint() {
				t.Errorf("changed: %s to %s", k.JWK(), again.JWK())
			}
			var theirs jose.JSONWebKey // what go-jose reads in it
			if err := json.Unmarshal(k.JWK(), &theirs); err != nil || !theirs.IsPublic() || theirs.KeyID != k.ID() || theirs.Use != "sig" {
				t.Fatalf("go-jose reads %+v, %v", theirs, err)
			}
			if sum, err := theirs.Thumbprint(crypto.SHA256); err != nil || b64(sum) != k.Thumbprint() {
				t.Errorf("thumbprint %s, go-jose says %s", k.Thumbprint(), b64(sum))
			}
			if pub, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(k.Public()) {
				t.Error("another public key")
			}
			token := parse(t, sign(t, alg, private, `{"a":1}`))
			if payload, err := again.Verify(token); err != nil || string(payload) != `{"a":1}` {
				t.Errorf("Verify: %s, %v", payload, err)
			}
			marshalled, err := json.Marshal(k)
			if err != nil || !json.Valid(marshalled) {
				t.Errorf("json.Marshal: %s, %v", marshalled, err)
			}
		})
	}
}

func sign(t testing.TB, alg credential.Algorithm, private crypto.Signer, payload string) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: private}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parse(t testing.TB, raw string) *credential.UnverifiedJWS {
	token, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestKeyVerifiesNothingButItsOwnAlgorithmAndSignature(t *testing.T) {
	for alg, private := range privates() {
		token := parse(t, sign(t, alg, private, "{}"))
		if _, err := (jwks.Key{}).Verify(token); !errors.Is(err, credential.ErrAlgorithm) {
			t.Errorf("the zero Key: %v", err)
		}
		for other, otherPrivate := range privates() {
			k, err := jwks.NewKey("k", other, otherPrivate.Public())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Verify(token); (err == nil) != (other == alg) || err != nil && !errors.Is(err, credential.ErrAlgorithm) {
				t.Errorf("%s token with a key for %s: %v", alg, other, err)
			}
		}
	}
	_, foreign, _ := ed25519.GenerateKey(rand.Reader)
	k, _ := jwks.NewKey("k", credential.EdDSA, foreign.Public())
	if _, err := k.Verify(parse(t, sign(t, credential.EdDSA, privates()[credential.EdDSA], "{}"))); !errors.Is(err, credential.ErrSignature) {
		t.Errorf("a foreign key: %v", err)
	}
}

func TestNewKeyCopiesWhatItIsGiven(t *testing.T) {
	pub, private, _ := ed25519.GenerateKey(rand.Reader)
	k, err := jwks.NewKey("k", credential.EdDSA, pub)
	if err != nil {
		t.Fatal(err)
	}
	token := sign(t, credential.EdDSA, private, "{}")
	clear(pub)
	if _, err := k.Verify(parse(t, token)); err != nil {
		t.Error("changed with its caller's slice")
	}
}

func rsaPublic(t *testing.T) *rsa.PublicKey {
	pub, ok := privates()[credential.RS256].Public().(*rsa.PublicKey)
	if !ok {
		t.Fatal("not an RSA key")
	}
	return pub
}

// offCurve returns what only a caller who fills in the coordinates can make.
func offCurve() *ecdsa.PublicKey {
	//nolint:staticcheck // no other way leads to a point off the curve
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
}

func TestNewKeyRefuses(t *testing.T) {
	p256, ok := privates()[credential.ES256].Public().(*ecdsa.PublicKey)
	if !ok {
		t.Fatal("not a P-256 key")
	}
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	good := rsaPublic(t)
	even := new(big.Int).Sub(good.N, big.NewInt(1))
	ed, ok := privates()[credential.EdDSA].Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("not an Ed25519 key")
	}
	for _, c := range []struct {
		name string
		kid  string
		alg  credential.Algorithm
		pub  crypto.PublicKey
	}{
		{"nothing", "k", credential.ES256, nil},
		{"a private key", "k", credential.EdDSA, privates()[credential.EdDSA]},
		{"bytes", "k", credential.EdDSA, []byte("secret")},
		{"a value in place of a pointer", "k", credential.ES256, *p256},
		{"a nil pointer", "k", credential.ES256, (*ecdsa.PublicKey)(nil)},
		{"a nil RSA pointer", "k", credential.RS256, (*rsa.PublicKey)(nil)},
		{"no algorithm", "k", "", ed},
		{"none", "k", "none", ed},
		{"HS256", "k", "HS256", ed},
		{"another algorithm", "k", credential.ES384, p256},
		{"an algorithm of another type", "k", credential.RS256, p256},
		{"EdDSA with RSA", "k", credential.EdDSA, good},
		{"P-521", "k", credential.ES256, &p521.PublicKey},
		{"off the curve", "k", credential.ES256, offCurve()},
		{"Ed25519 too short", "k", credential.EdDSA, ed[:31]},
		{"Ed25519 of small order", "k", credential.EdDSA, append(ed25519.PublicKey{1}, make([]byte, 31)...)},
		{"Ed25519 of small order, sign set", "k", credential.EdDSA, append(append(ed25519.PublicKey{1}, make([]byte, 30)...), 0x80)},
		{"RSA without modulus", "k", credential.RS256, &rsa.PublicKey{E: 65537}},
		{"RSA too small", "k", credential.RS256, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 2046, 1), E: 65537}},
		{"RSA too large", "k", credential.RS256, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}},
		{"RSA even modulus", "k", credential.RS256, &rsa.PublicKey{N: even, E: 65537}},
		{"RSA exponent 1", "k", credential.RS256, &rsa.PublicKey{N: good.N, E: 1}},
		{"RSA exponent even", "k", credential.RS256, &rsa.PublicKey{N: good.N, E: 65536}},
		{"RSA exponent negative", "k", credential.RS256, &rsa.PublicKey{N: good.N, E: -3}},
		{"RSA exponent too large", "k", credential.RS256, &rsa.PublicKey{N: good.N, E: 1<<31 + 1}},
		{"kid too long", strings.Repeat("k", 257), credential.EdDSA, ed},
		{"kid not UTF-8", "\xff", credential.EdDSA, ed},
	} {
		if k, err := jwks.NewKey(c.kid, c.alg, c.pub); !errors.Is(err, jwks.ErrKey) || !k.IsZero() {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// jwkOf returns the members of a JWK as raw JSON, to be changed.
func jwkOf(t *testing.T, alg credential.Algorithm) map[string]json.RawMessage {
	k, err := jwks.NewKey("k", alg, privates()[alg].Public())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(k.JWK(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseKeyDerivesTheAlgorithmFromTheType(t *testing.T) {
	for _, alg := range []credential.Algorithm{credential.ES256, credential.ES384, credential.EdDSA, credential.RS256} {
		m := jwkOf(t, alg)
		delete(m, "alg")
		delete(m, "use")
		raw, _ := json.Marshal(m)
		k, err := jwks.ParseKey(raw)
		if err != nil || k.Algorithm() != alg {
			t.Errorf("%s: %s, %v", alg, k.Algorithm(), err)
		}
	}
}

func TestWithAlgorithmServesWhatWasNotDeclared(t *testing.T) {
	m := jwkOf(t, credential.RS256)
	declared, _ := json.Marshal(m)
	delete(m, "alg")
	open, _ := json.Marshal(m)
	for _, c := range []struct {
		name string
		jwk  []byte
		alg  credential.Algorithm
		ok   bool
	}{
		{"open as RS256", open, credential.RS256, true},
		{"open as PS256", open, credential.PS256, true},
		{"open as ES256", open, credential.ES256, false},
		{"declared as itself", declared, credential.RS256, true},
		{"declared as another", declared, credential.PS256, false},
	} {
		k, err := jwks.ParseKey(c.jwk)
		if err != nil {
			t.Fatal(err)
		}
		bound, ok := k.WithAlgorithm(c.alg)
		if ok != c.ok || ok && (bound.Algorithm() != c.alg || bound.ID() != "k") || !ok && !bound.IsZero() {
			t.Errorf("%s: %v, %s", c.name, ok, bound.Algorithm())
		}
		if ok {
			token := parse(t, sign(t, c.alg, privates()[c.alg], "{}"))
			if _, err := bound.Verify(token); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	for _, alg := range []credential.Algorithm{"", credential.RS256} {
		if _, ok := (jwks.Key{}).WithAlgorithm(alg); ok {
			t.Error("the zero Key was bound")
		}
	}
}

func TestParseKeyAllowsWhatDoesNoHarm(t *testing.T) {
	for _, c := range []struct {
		name, member, raw string
	}{
		{"key_ops with verify", "key_ops", `["verify"]`},
		{"a certificate", "x5c", `["AAAA"]`},
		{"a thumbprint", "x5t", `"AAAA"`},
		{"an unknown member", "x-y", `{"z":[1]}`},
		{"leading zeros of a modulus", "n", ""},
	} {
		m := jwkOf(t, credential.RS256)
		m[c.member] = json.RawMessage(c.raw)
		if c.raw == "" {
			n := rsaPublic(t).N.Bytes()
			m["n"] = json.RawMessage(`"` + b64(append([]byte{0}, n...)) + `"`)
		}
		raw, _ := json.Marshal(m)
		k, err := jwks.ParseKey(raw)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		same, _ := jwks.NewKey("k", credential.RS256, privates()[credential.RS256].Public())
		if !k.Equal(same) {
			t.Errorf("%s: another key", c.name)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	type change = map[string]string
	for _, c := range []struct {
		name string
		alg  credential.Algorithm
		set  change // "" deletes
	}{
		{"private d", credential.ES256, change{"d": `"AAAA"`}},
		{"private d that is null", credential.ES256, change{"d": `null`}},
		{"private p", credential.RS256, change{"p": `"AAAA"`}},
		{"private oth", credential.RS256, change{"oth": `[]`}},
		{"private priv", credential.EdDSA, change{"priv": `"AAAA"`}},
		{"symmetric", credential.ES256, change{"kty": `"oct"`, "k": `"AAAA"`}},
		{"use enc", credential.ES256, change{"use": `"enc"`}},
		{"use null", credential.ES256, change{"use": `null`}},
		{"key_ops sign", credential.ES256, change{"key_ops": `["sign"]`}},
		{"key_ops empty", credential.ES256, change{"key_ops": `[]`}},
		{"key_ops text", credential.ES256, change{"key_ops": `"verify"`}},
		{"key_ops number", credential.ES256, change{"key_ops": `[1]`}},
		{"no kty", credential.ES256, change{"kty": ""}},
		{"kty in lower case", credential.ES256, change{"kty": `"ec"`}},
		{"kty number", credential.ES256, change{"kty": `1`}},
		{"curve P-521", credential.ES256, change{"crv": `"P-521"`}},
		{"curve secp256k1", credential.ES256, change{"crv": `"secp256k1"`}},
		{"curve of another size", credential.ES256, change{"crv": `"P-384"`}},
		{"no curve", credential.ES256, change{"crv": ""}},
		{"curve X25519", credential.EdDSA, change{"crv": `"X25519"`}},
		{"curve Ed448", credential.EdDSA, change{"crv": `"Ed448"`}},
		{"no x", credential.ES256, change{"x": ""}},
		{"no y", credential.ES256, change{"y": ""}},
		{"x with a byte missing", credential.ES256, change{"x": `"` + b64(make([]byte, 31)) + `"`}},
		{"off the curve", credential.ES256, change{"x": `"` + b64(make([]byte, 32)) + `"`}},
		{"off the larger curve", credential.ES384, change{"x": `"` + b64(make([]byte, 48)) + `"`}},
		{"Ed25519 too short", credential.EdDSA, change{"x": `"AAAA"`}},
		{"Ed25519 of small order", credential.EdDSA, change{"x": `"` + b64(make([]byte, 32)) + `"`}},
		{"no n", credential.RS256, change{"n": ""}},
		{"small n", credential.RS256, change{"n": `"` + b64(bytes.Repeat([]byte{0xff}, 128)) + `"`}},
		{"no e", credential.RS256, change{"e": ""}},
		{"even e", credential.RS256, change{"e": `"AQAA"`}},
		{"e of 5 bytes", credential.RS256, change{"e": `"AQAAAAE"`}},
		{"e of 9 bytes", credential.RS256, change{"e": `"AQAAAAAAAAAB"`}},
		{"padding", credential.RS256, change{"e": `"AQAB="`}},
		{"trailing bits", credential.RS256, change{"e": `"AR"`}},
		{"line end inside", credential.RS256, change{"e": `"AQ\nAB"`}},
		{"standard base64", credential.EdDSA, change{"x": `"` + strings.Repeat("+", 43) + `"`}},
		{"alg none", credential.ES256, change{"alg": `"none"`}},
		{"alg HS256", credential.ES256, change{"alg": `"HS256"`}},
		{"alg of another type", credential.ES256, change{"alg": `"RS256"`}},
		{"alg of encryption", credential.RS256, change{"alg": `"RSA-OAEP"`}},
		{"alg empty", credential.ES256, change{"alg": `""`}},
		{"alg null", credential.ES256, change{"alg": `null`}},
		{"kid number", credential.ES256, change{"kid": `7`}},
		{"kid empty", credential.ES256, change{"kid": `""`}},
		{"kid too long", credential.ES256, change{"kid": `"` + strings.Repeat("k", 257) + `"`}},
		{"too deep", credential.ES256, change{"z": `[[[[1]]]]`}},
	} {
		m := jwkOf(t, c.alg)
		for name, raw := range c.set {
			m[name] = json.RawMessage(raw)
			if raw == "" {
				delete(m, name)
			}
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := jwks.ParseKey(raw); !errors.Is(err, jwks.ErrKey) || !k.IsZero() {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	good, _ := json.Marshal(jwkOf(t, credential.ES256))
	for name, raw := range map[string]string{
		"nothing": "", "an array": "[" + string(good) + "]", "null": "null", "text": `"x"`,
		"duplicate member": string(good[:len(good)-1]) + `,"kty":"EC"}`,
		"escaped d":        string(good[:len(good)-1]) + `,"\u0064":"AAAA"}`,
		"too long":         string(good[:len(good)-1]) + `,"z":"` + strings.Repeat("z", jwks.MaxKeyLength) + `"}`,
	} {
		if _, err := jwks.ParseKey([]byte(raw)); !errors.Is(err, jwks.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyShowsNoSurprise(t *testing.T) {
	if _, err := json.Marshal(jwks.Key{}); err == nil {
		t.Error("the zero Key marshals")
	}
	if _, err := json.Marshal(jwks.NewSet(jwks.Key{})); err == nil {
		t.Error("a set of the zero Key marshals")
	}
	if (jwks.Key{}).Public() != nil || fmt.Sprint(jwks.Key{}.ID()) != "" {
		t.Error("the zero Key has something")
	}
}
