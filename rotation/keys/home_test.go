package keys

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// lying is a home whose keys are not what it says.
type lying struct {
	Home
	generate func(Stored, error) (Stored, error)
	open     func(SigningKey, error) (SigningKey, error)
}

func (h lying) Generate(ctx context.Context, alg credential.Algorithm, spent Spent) (Stored, error) {
	s, err := h.Home.Generate(ctx, alg, spent)
	if h.generate != nil {
		return h.generate(s, err)
	}
	return s, err
}

func (h lying) Open(ctx context.Context, s Stored) (SigningKey, error) {
	k, err := h.Home.Open(ctx, s)
	if h.open != nil {
		return h.open(k, err)
	}
	return k, err
}

type signFunc func([]byte) ([]byte, error)

func (f signFunc) Sign(_ context.Context, in []byte) ([]byte, error) { return f(in) }

func TestAKeyThatCantProveItselfIsNotPublished(t *testing.T) {
	other, err := generate(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	impostor, err := newLocalKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		home lying
		want error
	}{
		"it signs with another key": {lying{open: func(SigningKey, error) (SigningKey, error) { return impostor, nil }}, ErrMismatch},
		"it signs nothing": {lying{open: func(SigningKey, error) (SigningKey, error) {
			return signFunc(func([]byte) ([]byte, error) { return nil, nil }), nil
		}}, ErrMismatch},
		"it can't sign": {lying{open: func(SigningKey, error) (SigningKey, error) {
			return signFunc(func([]byte) ([]byte, error) { return nil, errDown }), nil
		}}, errDown},
		"another id": {lying{generate: func(s Stored, err error) (Stored, error) {
			s.Public, _ = jwks.NewKey("mine", credential.ES256, s.Public.Public())
			return s, err
		}}, ErrMismatch},
		"no key at all":  {lying{generate: func(Stored, error) (Stored, error) { return Stored{}, nil }}, ErrMismatch},
		"not at home":    {lying{generate: func(s Stored, err error) (Stored, error) { s.Home = "x"; return s, err }}, ErrHome},
		"not its sealed": {lying{generate: func(s Stored, err error) (Stored, error) { s.Blob = nil; return s, err }}, ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			c.home.Home = Sealed(newKeyFile(t))
			m := newManager(t, Config{Home: c.home})
			if err := m.Start(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if m.Public().Len() != 0 {
				t.Error("published")
			}
		})
	}
}

func TestASealedKeyMustBeTheOneOfItsPublicPart(t *testing.T) {
	ctx := t.Context()
	home := &sealedHome{kek: plainKEK{}, purpose: sealedPurpose}
	one, err := home.Generate(ctx, credential.ES256, Spent{})
	if err != nil {
		t.Fatal(err)
	}
	two, _ := home.Generate(ctx, credential.ES256, Spent{})
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := x509.MarshalPKCS8PrivateKey(small)
	for name, c := range map[string]struct {
		blob []byte
		want error
	}{
		"another of its kind": {two.Blob, ErrMismatch},
		"another type of key": {foreign, ErrMismatch},
		"no key":              {[]byte("x"), ErrCorrupt},
	} {
		if _, err := home.Open(ctx, Stored{Home: sealedName, Public: one.Public, Blob: c.blob}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := home.Open(ctx, Stored{Home: "vault", Public: one.Public, Blob: one.Blob}); !errors.Is(err, ErrHome) {
		t.Errorf("%v", err)
	}
	if _, err := home.Generate(ctx, credential.PS256, Spent{}); !errors.Is(err, ErrPolicy) {
		t.Errorf("%v", err)
	}
}

func TestAKeyOfAnotherHomeIsNotOpened(t *testing.T) {
	st := openStore(t)
	kek := newKeyFile(t)
	startManager(t, Config{Store: st, Home: Sealed(kek)})
	elsewhere := lying{Home: Sealed(kek), open: func(SigningKey, error) (SigningKey, error) { return nil, ErrHome }}
	if err := newManager(t, Config{Store: st, Home: elsewhere}).Start(t.Context()); !errors.Is(err, ErrHome) {
		t.Error(err)
	}
}

func TestSignaturesAreThoseOfGoJose(t *testing.T) {
	for _, alg := range []credential.Algorithm{credential.ES256, credential.EdDSA, credential.RS256} {
		m := startManager(t, Config{Policy: Policy{Algorithm: alg}})
		s, _ := m.Active()
		for _, payload := range []string{"", "{}", strings.Repeat("x", 5000)} {
			raw, err := s.Sign(t.Context(), []byte(payload), "at+jwt")
			if err != nil {
				t.Fatal(err)
			}
			signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := signed.Verify(s.Public().Public())
			h := signed.Signatures[0].Header
			if err != nil || string(got) != payload || h.KeyID != s.KeyID() || h.ExtraHeaders[jose.HeaderType] != "at+jwt" {
				t.Errorf("%s: %v %+v", alg, err, h)
			}
		}
		if key := (jose.JSONWebKey{Key: s.Public().Public()}); true {
			sum, err := key.Thumbprint(5) // crypto.SHA256
			if err != nil || segmentOf(sum) != s.KeyID() {
				t.Errorf("%s: the id is not the key's thumbprint", alg)
			}
		}
		for _, typ := range []string{"", "a b", "a\"b", "a\\b", "ü", strings.Repeat("x", 65)} {
			if _, err := s.Sign(t.Context(), nil, typ); err == nil {
				t.Errorf("typ %q was taken", typ)
			}
		}
	}
}
