package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// The generator of testdata/vectors.json. It signs with its own few lines, not
// with a JOSE library, since most of what it writes no library would agree to
// sign. Every signature but the RSA-PSS ones is deterministic; those are taken
// over from the committed file while what they sign is the same.

// What every vector has unless it says otherwise.
const (
	vectorIssuer   = "https://broker.example"
	vectorAudience = "https://orders.example"
	vectorTime     = int64(1768478400) // 2026-01-15T12:00:00Z
	vectorLeeway   = 30
)

// document is the file.
type document struct {
	Description string                     `json:"description"`
	Fields      map[string]string          `json:"fields"`
	Algorithms  []string                   `json:"algorithms"`
	Types       []string                   `json:"types"`
	Leeway      int                        `json:"leeway"`
	KeySets     map[string]json.RawMessage `json:"key_sets"`
	Vectors     []vector                   `json:"vectors"`
}

type vector struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Tag         string `json:"tag"`
	Verdict     string `json:"verdict"`
	Reason      string `json:"reason,omitempty"`
	Issuer      string `json:"issuer"`
	Audience    string `json:"audience"`
	Time        int64  `json:"time"`
	JWKS        string `json:"jwks"`
	Token       string `json:"token"`
}

// key is one of the fixed test keys: what it is called, what it signs with,
// and which algorithm its header names.
type key struct {
	kid, alg string
	private  any // a crypto.Signer, or []byte for HMAC
}

// members is a JSON object in the making: names and raw values, in order.
type members [][2]string

func (m members) with(name, raw string) members {
	out := slices.Clone(m)
	for i := range out {
		if out[i][0] == name {
			out[i][1] = raw
			return out
		}
	}
	return append(out, [2]string{name, raw})
}

func (m members) without(name string) members {
	return slices.DeleteFunc(slices.Clone(m), func(p [2]string) bool { return p[0] == name })
}

// also adds a member whether or not one of that name is there; name is written
// between quotes as it stands, escapes and all.
func (m members) also(name, raw string) members {
	return append(slices.Clone(m), [2]string{name, raw})
}

func (m members) json() string {
	var b strings.Builder
	for i, p := range m {
		b.WriteString(map[bool]string{true: `{"`, false: `,"`}[i == 0])
		b.WriteString(p[0] + `":` + p[1])
	}
	if len(m) == 0 {
		b.WriteString("{")
	}
	return b.String() + "}"
}

// generator collects the vectors.
type generator struct {
	t    *testing.T
	keys map[string]key
	kept map[string][]string // signing input → the signatures that are committed
	doc  document
}

func newGenerator(t *testing.T, committed document) *generator {
	g := &generator{t: t, keys: readKeys(t), kept: make(map[string][]string)}
	for _, v := range committed.Vectors {
		if at := strings.LastIndexByte(v.Token, '.'); at > 0 {
			g.kept[v.Token[:at]] = append(g.kept[v.Token[:at]], v.Token[at+1:])
		}
	}
	return g
}

func readKeys(t *testing.T) map[string]key {
	raw, err := os.ReadFile("testdata/test_only_keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Keys []jose.JSONWebKey }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]key)
	for _, k := range file.Keys {
		keys[k.KeyID] = key{kid: k.KeyID, alg: k.Algorithm, private: k.Key}
	}
	return keys
}

// public returns the JWK of a test key under another kid and algorithm, if given.
func (g *generator) public(name string, as ...string) string {
	k := g.keys[name]
	doc := jose.JSONWebKey{Key: g.publicKey(k), KeyID: k.kid, Algorithm: k.alg, Use: "sig"}
	if len(as) > 0 {
		doc.KeyID = as[0]
	}
	if len(as) > 1 {
		doc.Algorithm = as[1]
	}
	b, err := json.Marshal(doc)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(b)
}

func (g *generator) publicKey(k key) crypto.PublicKey {
	signer, ok := k.private.(crypto.Signer)
	if !ok {
		g.t.Fatalf("%s has no public part", k.kid)
	}
	return signer.Public()
}

func (g *generator) ed25519(k key) ed25519.PrivateKey {
	private, ok := k.private.(ed25519.PrivateKey)
	if !ok {
		g.t.Fatalf("%s is no Ed25519 key", k.kid)
	}
	return private
}

func (g *generator) keySet(name string, jwk ...string) {
	raw := `{"keys":[` + strings.Join(jwk, ",") + `]}`
	if g.doc.KeySets == nil {
		g.doc.KeySets = make(map[string]json.RawMessage)
	}
	if _, err := jwks.ParseSet([]byte(raw)); err != nil {
		g.t.Fatalf("key set %s: %v", name, err)
	}
	g.doc.KeySets[name] = json.RawMessage(raw)
}

// header is the broker's for a key.
func (g *generator) header(k key) members {
	return members{{"alg", quote(k.alg)}, {"kid", quote(k.kid)}, {"typ", `"at+jwt"`}}
}

// claims are those of a token in good order.
func claims() members {
	return members{
		{"iss", quote(vectorIssuer)}, {"sub", `"invoice-worker"`}, {"client_id", `"invoice-worker"`},
		{"aud", quote(vectorAudience)}, {"tenant", `"acme"`}, {"scope", `"orders.read"`},
		{"iat", "1768478340"}, {"exp", "1768478640"},
		{"jti", `"AAECAwQFBgcICQoLDA0ODw"`}, {"txn", `"EBESExQVFhcYGRobHB0eHw"`},
	}
}

// token signs; header and payload are any bytes.
func (g *generator) token(header, payload string, k key) string {
	return g.signed(segment(header)+"."+segment(payload), k)
}

func (g *generator) signed(input string, k key) string {
	if k.alg == "PS256" {
		if at := slices.IndexFunc(g.kept[input], func(s string) bool { return isPSS(input, s, k) }); at >= 0 {
			return input + "." + g.kept[input][at]
		}
	}
	return input + "." + segment(string(g.signature(input, k)))
}

func isPSS(input, encoded string, k key) bool {
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	hash := sha256.Sum256([]byte(input))
	private, ok := k.private.(*rsa.PrivateKey)
	return ok && err == nil && rsa.VerifyPSS(&private.PublicKey, crypto.SHA256, hash[:], signature, nil) == nil
}

func (g *generator) signature(input string, k key) []byte {
	sum := sha256.Sum256([]byte(input))
	var signature []byte
	var err error
	switch private := k.private.(type) {
	case []byte:
		mac := hmac.New(sha256.New, private)
		mac.Write([]byte(input))
		return mac.Sum(nil)
	case ed25519.PrivateKey:
		return ed25519.Sign(private, []byte(input))
	case *ecdsa.PrivateKey:
		return g.ecdsaSignature(input, private)
	case *rsa.PrivateKey:
		if k.alg == "PS256" {
			signature, err = rsa.SignPSS(rand.Reader, private, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			signature, err = rsa.SignPKCS1v15(nil, private, crypto.SHA256, sum[:])
		}
	}
	if err != nil || signature == nil {
		g.t.Fatalf("signing with %s: %v", k.kid, err)
	}
	return signature
}

// ecdsaSignature is deterministic (RFC 6979: no source of randomness is given)
// and in the form of JOSE: r and s at full width.
func (g *generator) ecdsaSignature(input string, private *ecdsa.PrivateKey) []byte {
	size := (private.Params().BitSize + 7) / 8
	hash := crypto.SHA256
	sum := sha256.Sum256([]byte(input))
	digest := sum[:]
	if size == 48 {
		hash = crypto.SHA384
		long := sha512.Sum384([]byte(input))
		digest = long[:]
	}
	der, err := private.Sign(nil, digest, hash)
	if err != nil {
		g.t.Fatal(err)
	}
	r, s := derParts(der)
	return append(leftPad(r, size), leftPad(s, size)...)
}

// derParts reads SEQUENCE { INTEGER, INTEGER } of a length below 128.
func derParts(der []byte) (r, s []byte) {
	r = der[4 : 4+der[3]]
	return r, der[4+der[3]+2:]
}

func leftPad(b []byte, size int) []byte {
	b = bytes.TrimLeft(b, "\x00")
	return append(make([]byte, size-len(b)), b...)
}

// accept and reject add a vector for a token.
func (g *generator) accept(tag, id, description, token string, set ...func(*vector)) {
	g.add(vector{ID: id, Description: description, Tag: tag, Verdict: "accept", Token: token}, set)
}

func (g *generator) reject(tag, id, reason, description, token string, set ...func(*vector)) {
	g.add(vector{ID: id, Description: description, Tag: tag, Verdict: "reject", Reason: reason, Token: token}, set)
}

func (g *generator) add(v vector, set []func(*vector)) {
	v.Issuer, v.Audience, v.Time, v.JWKS = vectorIssuer, vectorAudience, vectorTime, "main"
	for _, f := range set {
		f(&v)
	}
	g.doc.Vectors = append(g.doc.Vectors, v)
}

// payload signs a payload with the everyday key and header.
func (g *generator) payload(payload string) string {
	k := g.keys["ed-1"]
	return g.token(g.header(k).json(), payload, k)
}

func audience(a string) func(*vector)  { return func(v *vector) { v.Audience = a } }
func keySet(name string) func(*vector) { return func(v *vector) { v.JWKS = name } }

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}
