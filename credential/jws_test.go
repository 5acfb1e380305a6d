package credential_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
)

func seg(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signEd signs any header and payload with an Ed25519 key.
func signEd(private ed25519.PrivateKey, header, payload string) string {
	input := seg(header) + "." + seg(payload)
	return input + "." + seg(string(ed25519.Sign(private, []byte(input))))
}

const edHeader = `{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}`

func newEd(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestParseJWSReadsTheHeader(t *testing.T) {
	public, private := newEd(t)
	raw := signEd(private, edHeader, `{"a":1}`)
	j, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	if j.Algorithm() != credential.EdDSA || j.KeyID() != "k1" || j.Type() != "at+jwt" || string(j.UnverifiedPayload()) != `{"a":1}` {
		t.Errorf("%s %s %s %s", j.Algorithm(), j.KeyID(), j.Type(), j.UnverifiedPayload())
	}
	payload, err := j.Verify(credential.EdDSA, public)
	if err != nil || string(payload) != `{"a":1}` {
		t.Errorf("%s, %v", payload, err)
	}
	bare, err := credential.ParseJWS(signEd(private, `{"alg":"EdDSA"}`, ""))
	if err != nil || bare.KeyID() != "" || bare.Type() != "" {
		t.Fatalf("a bare header: %v", err)
	}
	if payload, err := bare.Verify(credential.EdDSA, public); err != nil || len(payload) != 0 {
		t.Errorf("an empty payload: %q, %v", payload, err)
	}
}

func TestParseJWSRefuses(t *testing.T) {
	_, private := newEd(t)
	good := signEd(private, edHeader, "{}")
	parts := strings.Split(good, ".")
	with := func(member string) string {
		return signEd(private, strings.Replace(edHeader, "{", "{"+member+",", 1), "{}")
	}
	for _, c := range []struct {
		name, raw string
		want      error
	}{
		{"nothing", "", credential.ErrMalformed},
		{"two segments", parts[0] + "." + parts[1], credential.ErrMalformed},
		{"four segments", good + ".x", credential.ErrMalformed},
		{"five segments", "a.b.c.d.e", credential.ErrEncrypted},
		{"too long", good + strings.Repeat("A", credential.MaxTokenLength), credential.ErrMalformed},
		{"header too long", strings.Repeat("A", credential.MaxHeaderLength+1) + "..", credential.ErrMalformed},
		{"header padded", parts[0] + "=." + parts[1] + "." + parts[2], credential.ErrMalformed},
		{"header with a line end", parts[0][:4] + "\n" + parts[0][4:] + "." + parts[1] + "." + parts[2], credential.ErrMalformed},
		{"payload with a carriage return", parts[0] + ".e\r30." + parts[2], credential.ErrMalformed},
		{"payload with trailing bits", parts[0] + ".e31." + parts[2], credential.ErrMalformed},
		{"payload in standard base64", parts[0] + ".++++." + parts[2], credential.ErrMalformed},
		{"no signature", parts[0] + "." + parts[1] + ".", credential.ErrMalformed},
		{"signature padded", good + "==", credential.ErrMalformed},
		{"space behind", good + " ", credential.ErrMalformed},
		{"header an array", seg("[]") + ".e30.AAAA", credential.ErrMalformed},
		{"header with a duplicate", with(`"alg":"EdDSA"`), credential.ErrMalformed},
		{"header with an escaped duplicate", with(`"a\u006cg":"EdDSA"`), credential.ErrMalformed},
		{"no alg", signEd(private, `{"kid":"k"}`, "{}"), credential.ErrHeader},
		{"alg a number", signEd(private, `{"alg":1}`, "{}"), credential.ErrHeader},
		{"alg none", signEd(private, `{"alg":"none"}`, "{}"), credential.ErrAlgorithm},
		{"alg HS256", signEd(private, `{"alg":"HS256"}`, "{}"), credential.ErrAlgorithm},
		{"alg empty", signEd(private, `{"alg":""}`, "{}"), credential.ErrAlgorithm},
		{"alg in lower case", signEd(private, `{"alg":"eddsa"}`, "{}"), credential.ErrAlgorithm},
		{"kid an array", signEd(private, `{"alg":"EdDSA","kid":["k"]}`, "{}"), credential.ErrHeader},
		{"kid empty", signEd(private, `{"alg":"EdDSA","kid":""}`, "{}"), credential.ErrHeader},
		{"kid too long", signEd(private, `{"alg":"EdDSA","kid":"`+strings.Repeat("k", 257)+`"}`, "{}"), credential.ErrHeader},
		{"typ null", signEd(private, `{"alg":"EdDSA","typ":null}`, "{}"), credential.ErrHeader},
		{"nonce a number", with(`"nonce":1`), credential.ErrHeader},
		{"nonce null", with(`"nonce":null`), credential.ErrHeader},
		{"a number out of range", with(`"x":{"a":1e400}`), credential.ErrMalformed},
		{"a number too long", with(`"x":` + strings.Repeat("9", 65)), credential.ErrMalformed},
		{"jku", with(`"jku":"https://evil.example"`), credential.ErrHeader},
		{"jku null", with(`"jku":null`), credential.ErrHeader},
		{"jwk", with(`"jwk":{}`), credential.ErrHeader},
		{"x5u", with(`"x5u":"x"`), credential.ErrHeader},
		{"x5c", with(`"x5c":[]`), credential.ErrHeader},
		{"crit", with(`"crit":["exp"]`), credential.ErrHeader},
		{"crit empty", with(`"crit":[]`), credential.ErrHeader},
		{"crit escaped", with(`"cr\u0069t":["exp"]`), credential.ErrHeader},
		{"b64 false", with(`"b64":false`), credential.ErrHeader},
		{"b64 true", with(`"b64":true`), credential.ErrHeader},
		{"zip", with(`"zip":"DEF"`), credential.ErrEncrypted},
		{"enc", with(`"enc":"A256GCM"`), credential.ErrEncrypted},
	} {
		if j, err := credential.ParseJWS(c.raw); !errors.Is(err, c.want) || j != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseAlgorithmKnowsFive(t *testing.T) {
	for _, s := range []string{"ES256", "ES384", "EdDSA", "RS256", "PS256"} {
		if a, err := credential.ParseAlgorithm(s); err != nil || string(a) != s {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "none", "HS256", "ES512", "RS512", "Ed25519", "es256"} {
		if a, err := credential.ParseAlgorithm(s); !errors.Is(err, credential.ErrAlgorithm) || a != "" {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestVerifyEveryAlgorithmAgainstEveryKey(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	public, private := newEd(t)
	secret := []byte("0123456789abcdef0123456789abcdef")
	signing := map[credential.Algorithm]any{
		credential.ES256: p256, credential.ES384: p384, credential.EdDSA: private, credential.RS256: rsaKey, credential.PS256: rsaKey,
	}
	public4 := map[string]any{"p256": &p256.PublicKey, "p384": &p384.PublicKey, "ed": public, "rsa": &rsaKey.PublicKey, "secret": secret, "nothing": nil}
	fits := map[credential.Algorithm]string{
		credential.ES256: "p256", credential.ES384: "p384", credential.EdDSA: "ed", credential.RS256: "rsa", credential.PS256: "rsa",
	}
	for alg, key := range signing {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign([]byte(`{"x":"y"}`))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := signed.CompactSerialize()
		j, err := credential.ParseJWS(raw)
		if err != nil {
			t.Fatal(err)
		}
		for name, pub := range public4 {
			for bound := range signing {
				payload, err := j.Verify(bound, pub)
				switch ok := bound == alg && name == fits[alg]; {
				case ok && (err != nil || string(payload) != `{"x":"y"}`):
					t.Errorf("%s with %s: %v", alg, name, err)
				case !ok && (err == nil || payload != nil):
					t.Errorf("%s verified with %s bound to %s", alg, name, bound)
				case bound != alg && !errors.Is(err, credential.ErrAlgorithm):
					t.Errorf("%s with a key bound to %s: %v", alg, bound, err)
				case bound == alg && !ok && !errors.Is(err, credential.ErrSignature):
					t.Errorf("%s with %s: %v", alg, name, err)
				}
			}
		}
		if _, err := j.Verify("", public4[fits[alg]]); !errors.Is(err, credential.ErrAlgorithm) {
			t.Errorf("%s with a key bound to nothing: %v", alg, err)
		}
	}
}

// A Checker keeps the last header; nothing of it may leak into the next token.
func TestCheckerJudgesEveryTokenByItsOwnHeader(t *testing.T) {
	public, private := newEd(t)
	_, foreign := newEd(t)
	c := credential.NewChecker(credential.EdDSA, public)
	headers := []string{edHeader, `{"alg":"EdDSA"}`, `{"kid":"other","alg":"EdDSA"}`, edHeader}
	var wg sync.WaitGroup
	for i, header := range headers {
		wg.Go(func() {
			for range 50 {
				good, err := credential.ParseJWS(signEd(private, header, `{"n":`+string(rune('0'+i))+`}`))
				if err != nil {
					t.Error(err)
					return
				}
				payload, err := c.Verify(good)
				if err != nil || string(payload) != `{"n":`+string(rune('0'+i))+`}` {
					t.Errorf("%s: %s, %v", header, payload, err)
				}
				parts := strings.Split(signEd(private, header, `{}`), ".")
				for _, other := range headers { // a good signature under another header
					if other == header {
						continue
					}
					swapped, err := credential.ParseJWS(seg(other) + "." + parts[1] + "." + parts[2])
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := c.Verify(swapped); !errors.Is(err, credential.ErrSignature) {
						t.Errorf("%s with the signature of %s: %v", other, header, err)
					}
				}
				evil, _ := credential.ParseJWS(signEd(foreign, header, `{}`))
				if _, err := c.Verify(evil); !errors.Is(err, credential.ErrSignature) {
					t.Errorf("a foreign signature: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzParseJWS(f *testing.F) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signEd(private, edHeader, `{"a":1}`))
	f.Add(signEd(private, `{"alg":"EdDSA","crit":["exp"]}`, `{}`))
	f.Add(signEd(private, `{"alg":"EdDSA","nonce":1}`, `{}`))
	f.Add(signEd(private, `{"alg":"EdDSA","nonce":null,"x":null}`, `{}`))
	f.Add(signEd(private, `{"alg":"EdDSA","x":[1e400,1e-400]}`, `{}`))
	f.Add("a.b.c.d.e")
	f.Fuzz(func(t *testing.T, raw string) {
		j, err := credential.ParseJWS(raw)
		if err != nil {
			if j != nil {
				t.Fatal("an error and a token")
			}
			return
		}
		if _, err := credential.ParseAlgorithm(string(j.Algorithm())); err != nil {
			t.Fatal(err)
		}
		// One spelling: what was read encodes to what was given.
		parts := strings.Split(raw, ".")
		if seg(string(j.UnverifiedPayload())) != parts[1] {
			t.Fatal("a second spelling of the payload")
		}
		if theirs, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{"ES256", "ES384", "EdDSA", "RS256", "PS256"}); err == nil {
			if string(theirs.UnsafePayloadWithoutVerification()) != string(j.UnverifiedPayload()) ||
				theirs.Signatures[0].Header.Algorithm != string(j.Algorithm()) || theirs.Signatures[0].Header.KeyID != j.KeyID() {
				t.Fatal("go-jose reads another token")
			}
		}
		// Whatever passes here, go-jose can read: no verdict is left to it.
		if _, err := j.Verify(j.Algorithm(), public); errors.Is(err, credential.ErrHeader) {
			t.Fatal("go-jose refuses the header")
		}
		// The fuzzer has no key, so nothing new verifies.
		if payload, err := j.Verify(credential.EdDSA, public); err == nil && string(payload) != `{"a":1}` {
			t.Fatalf("verified %s", payload)
		}
	})
}
