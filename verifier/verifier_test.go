package verifier_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// bench is a verifier on the vectors' keys, issuer, audience and time.
type fixture struct {
	*generator
	set jwks.Set
	now time.Time
}

func newFixture(t *testing.T) *fixture {
	g := newGenerator(t, document{})
	set, err := jwks.ParseSet([]byte(`{"keys":[` + g.public("ed-1") + `,` + g.public("ec-1") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{generator: g, set: set, now: time.Unix(vectorTime, 0)}
}

func (f *fixture) verifier(set ...func(*verifier.Config)) *verifier.Verifier {
	f.t.Helper()
	cfg := verifier.Config{Issuer: vectorIssuer, Audience: vectorAudience, Keys: f.set, Now: func() time.Time { return f.now }}
	for _, change := range set {
		change(&cfg)
	}
	v, err := verifier.New(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) want(v *verifier.Verifier, raw string, want error) {
	f.t.Helper()
	token, err := v.Verify(f.t.Context(), raw)
	if !errors.Is(err, want) || (token == nil) != (want != nil) {
		f.t.Errorf("%v (token: %v), want %v", err, token != nil, want)
	}
}

func TestNewRefusesAWrongConfiguration(t *testing.T) {
	set := jwks.NewSet()
	good := verifier.Config{Issuer: vectorIssuer, Audience: vectorAudience, Keys: set}
	for name, change := range map[string]func(*verifier.Config){
		"no issuer":            func(c *verifier.Config) { c.Issuer = "" },
		"issuer with a path":   func(c *verifier.Config) { c.Issuer = vectorIssuer + "/x" },
		"issuer with a slash":  func(c *verifier.Config) { c.Issuer = vectorIssuer + "/" },
		"issuer over http":     func(c *verifier.Config) { c.Issuer = "http://broker.example" },
		"no audience":          func(c *verifier.Config) { c.Audience = "" },
		"audience with space":  func(c *verifier.Config) { c.Audience = "a b" },
		"leeway over a minute": func(c *verifier.Config) { c.Leeway = 61 * time.Second },
		"negative leeway":      func(c *verifier.Config) { c.Leeway = -1 },
		"endless cache":        func(c *verifier.Config) { c.CacheSize = verifier.MaxCacheSize + 1 },
		"keys and a client":    func(c *verifier.Config) { c.HTTPClient = http.DefaultClient },
	} {
		cfg := good
		change(&cfg)
		if v, err := verifier.New(t.Context(), cfg); err == nil || v != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := verifier.New(t.Context(), good); err != nil {
		t.Error(err)
	}
}

func TestTokenSaysWhatTheClaimsSay(t *testing.T) {
	f := newFixture(t)
	raw := f.payload(claims().also("act", `{"sub":"gateway","act":{"sub":"edge"}}`).also("job", `"job-1"`).with("scope", `"b a"`).json())
	token, err := f.verifier().Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]any{
		"tenant":    {token.Tenant(), credential.MustTenant("acme")},
		"subject":   {token.Subject(), credential.MustAccountID("invoice-worker")},
		"client_id": {token.ClientID(), credential.MustAccountID("invoice-worker")},
		"issuer":    {token.Issuer(), vectorIssuer},
		"audience":  {token.Audience(), credential.MustAudience(vectorAudience)},
		"scopes":    {token.Scopes(), credential.MustScopes("a b")},
		"iat":       {token.IssuedAt().Unix(), vectorTime - 60},
		"exp":       {token.Expires().Unix(), vectorTime + 240},
		"jti":       {token.ID(), "AAECAwQFBgcICQoLDA0ODw"},
		"txn":       {token.Txn(), "EBESExQVFhcYGRobHB0eHw"},
		"job":       {token.Job(), "job-1"},
		"kid":       {token.KeyID(), "ed-1"},
		"actor":     {token.Actor(), credential.MustAccountID("gateway")},
		"actors":    {fmt.Sprint(token.Actors()), "[gateway edge]"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	plain, err := f.verifier().Verify(t.Context(), f.payload(claims().json()))
	if err != nil || !plain.Actor().IsZero() || plain.Actors() != nil || plain.Claims().Actor != nil {
		t.Errorf("a token without delegation: %v", err)
	}
}

func TestTokenCannotBeChangedThroughItsClaims(t *testing.T) {
	f := newFixture(t)
	v := f.verifier()
	raw := f.payload(claims().also("act", `{"sub":"gateway","act":{"sub":"edge"}}`).json())
	token, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	c := token.Claims()
	c.Tenant = credential.MustTenant("globex")
	c.Actor.Subject = credential.MustAccountID("evil")
	c.Actor.By.Subject = credential.MustAccountID("evil")
	token.Actors()[0] = credential.MustAccountID("evil")
	again, err := v.Verify(t.Context(), raw)
	if err != nil || again.Tenant().String() != "acme" || fmt.Sprint(again.Actors()) != "[gateway edge]" {
		t.Errorf("changed: %v", err)
	}
}

func TestLeewayIsThirtySecondsUnlessConfigured(t *testing.T) {
	f := newFixture(t)
	raw := f.payload(claims().json())
	end := time.Unix(vectorTime+240, 0)
	for _, c := range []struct{ leeway, effective time.Duration }{
		{0, 30 * time.Second}, {time.Minute, time.Minute}, {5 * time.Second, 5 * time.Second}, {1, 1},
	} {
		v := f.verifier(func(cfg *verifier.Config) { cfg.Leeway = c.leeway })
		f.now = end.Add(c.effective - 1)
		f.want(v, raw, nil)
		f.now = end.Add(c.effective)
		f.want(v, raw, verifier.ErrExpired)
		f.now = time.Unix(vectorTime-60, 0).Add(-c.effective)
		f.want(v, raw, nil)
		f.now = f.now.Add(-1)
		f.want(v, raw, verifier.ErrNotYetValid)
	}
}

func TestErrorsShowNothingOfTheToken(t *testing.T) {
	doc, _ := readVectors(t)
	for _, v := range doc.Vectors {
		set, err := jwks.ParseSet(doc.KeySets[v.JWKS])
		if err != nil {
			t.Fatal(err)
		}
		judge, err := verifier.New(t.Context(), verifier.Config{Issuer: v.Issuer, Audience: v.Audience, Keys: set,
			Now: func() time.Time { return time.Unix(v.Time, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		_, err = judge.Verify(t.Context(), v.Token)
		if err == nil {
			continue
		}
		for _, part := range append(strings.Split(v.Token, "."), "acme", "globex", "invoice-worker", "orders.read", "AAECAwQFBgcICQoLDA0ODw") {
			if len(part) >= 4 && strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error shows %.12s…", v.ID, part)
			}
		}
		if len(err.Error()) > 200 {
			t.Errorf("%s: an error of %d bytes", v.ID, len(err.Error()))
		}
	}
}

func TestBadSignatureTellsNothingOfTheClaims(t *testing.T) {
	f := newFixture(t)
	v := f.verifier()
	evil := f.keys["ed-foreign"]
	for _, payload := range []string{
		claims().json(), claims().without("tenant").json(), claims().with("exp", "1").json(), claims().with("iss", `"x"`).json(),
		claims().also("tenant", `"x"`).json(), "not JSON", "",
	} {
		_, err := v.Verify(t.Context(), f.token(f.header(f.keys["ed-1"]).json(), payload, evil))
		if err == nil || err.Error() != verifier.ErrSignature.Error() {
			t.Errorf("%v, want %v alone", err, verifier.ErrSignature)
		}
	}
}

func TestReasonHasOneWordForEachError(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{
		verifier.ErrMalformed, verifier.ErrEncrypted, verifier.ErrHeader, verifier.ErrAlgorithm, verifier.ErrType, verifier.ErrUnknownKey,
		verifier.ErrUnavailable, verifier.ErrSignature, verifier.ErrTenant, verifier.ErrClaim, verifier.ErrIssuer, verifier.ErrAudience,
		verifier.ErrExpired, verifier.ErrNotYetValid, verifier.ErrProofRequired, verifier.ErrRevoked,
	} {
		word := verifier.Reason(fmt.Errorf("wrapped: %w", err))
		if word == "" || word == "other" || seen[word] {
			t.Errorf("%v: %q", err, word)
		}
		seen[word] = true
	}
	if verifier.Reason(nil) != "" || verifier.Reason(errors.New("x")) != "other" {
		t.Error("nil or a foreign error has a word")
	}
}

// The promise to those who import the package: they compile go-jose, the
// standard library and the broker's words, and nothing of the server.
func TestDependenciesAreGoJoseAndTheStandardLibrary(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const own = "github.com/tenantbroker/tenantbroker/"
	for path := range strings.FieldsSeq(string(bytes.TrimSpace(out))) {
		switch {
		case path == own+"verifier", path == own+"credential", path == own+"credential/jwks":
		case path == "github.com/go-jose/go-jose/v4", strings.HasPrefix(path, "github.com/go-jose/go-jose/v4/"):
		default:
			t.Errorf("compiles %s", path)
		}
	}
}
