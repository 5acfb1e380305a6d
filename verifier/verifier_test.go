package verifier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
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

// counting counts what is asked of a source.
type counting struct {
	jwks.Source
	calls atomic.Int64
	err   error
}

func (c *counting) Key(ctx context.Context, kid string) (jwks.Key, error) {
	c.calls.Add(1)
	if c.err != nil {
		return jwks.Key{}, c.err
	}
	return c.Source.Key(ctx, kid)
}

func TestAgainIsTheSameTokenButStillChecked(t *testing.T) {
	f := newFixture(t)
	source := &counting{Source: f.set}
	v := f.verifier(func(cfg *verifier.Config) { cfg.Keys = source })
	raw := f.payload(claims().also("nbf", "1768478340").json())
	first, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Verify(t.Context(), strings.Clone(raw))
	if err != nil || again != first {
		t.Errorf("not remembered: %v", err)
	}
	f.now = time.Unix(vectorTime+270, 0)
	f.want(v, raw, verifier.ErrExpired)
	f.now = time.Unix(vectorTime-91, 0)
	f.want(v, raw, verifier.ErrNotYetValid)
	f.now = time.Unix(vectorTime, 0)
	f.want(v, raw, nil)

	for _, c := range []struct{ have, want error }{
		{jwks.ErrUnknownKey, verifier.ErrUnknownKey},
		{fmt.Errorf("%w: origin down", jwks.ErrUnavailable), verifier.ErrUnavailable},
		{errors.New("something of the source's own"), verifier.ErrUnavailable},
	} {
		source.err = c.have
		f.want(v, raw, c.want)
		f.want(f.verifier(func(cfg *verifier.Config) { cfg.Keys = source }), raw, c.want)
	}
	source.err = nil
	f.want(v, raw, nil)
}

func TestWithdrawnKeyStopsRememberedTokens(t *testing.T) {
	f := newFixture(t)
	source := &counting{Source: f.set}
	v := f.verifier(func(cfg *verifier.Config) { cfg.Keys = source })
	raw := f.payload(claims().json())
	f.want(v, raw, nil)
	source.Source = jwks.NewSet()
	f.want(v, raw, verifier.ErrUnknownKey)

	other, err := jwks.ParseSet([]byte(`{"keys":[` + f.public("ed-foreign", "ed-1") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	source.Source = other // another key under the same name
	f.want(v, raw, verifier.ErrSignature)
	source.Source = f.set
	f.want(v, raw, nil)
}

// zeroSource breaks the contract of jwks.Source: no key and no error.
type zeroSource struct{}

func (zeroSource) Key(context.Context, string) (jwks.Key, error) { return jwks.Key{}, nil }

func TestSourceThatBreaksItsContractOpensNothing(t *testing.T) {
	f := newFixture(t)
	f.want(f.verifier(func(cfg *verifier.Config) { cfg.Keys = zeroSource{} }), f.payload(claims().json()), verifier.ErrUnknownKey)
}

type revocations func(*verifier.Token) error

func (r revocations) Revoked(t *verifier.Token) error { return r(t) }

func TestRevocationsAreAskedEveryTime(t *testing.T) {
	f := newFixture(t)
	var verdict error
	asked := 0
	v := f.verifier(func(cfg *verifier.Config) {
		cfg.Revocations = revocations(func(token *verifier.Token) error {
			if asked++; token.Tenant().String() != "acme" {
				t.Error("asked about another token")
			}
			return verdict
		})
	})
	raw := f.payload(claims().json())
	f.want(v, raw, nil)
	verdict = errors.New("its tenant is suspended")
	f.want(v, raw, verifier.ErrRevoked)
	f.want(v, raw, verdict)
	verdict = fmt.Errorf("%w: the list is too old", verifier.ErrUnavailable)
	f.want(v, raw, verifier.ErrUnavailable)
	if _, err := v.Verify(t.Context(), raw); errors.Is(err, verifier.ErrRevoked) {
		t.Error("a list too old reads as revoked")
	}
	verdict = nil
	f.want(v, raw, nil)
	if asked != 6 {
		t.Errorf("asked %d times of 6", asked)
	}
	f.want(v, f.payload(claims().with("iss", `"https://evil.example"`).json()), verifier.ErrIssuer)
	if asked != 6 {
		t.Error("asked about a token that is refused anyway")
	}
}

func TestRevokedAtFirstSightIsNotRemembered(t *testing.T) {
	f := newFixture(t)
	verdict := errors.New("revoked")
	v := f.verifier(func(cfg *verifier.Config) {
		cfg.Revocations = revocations(func(*verifier.Token) error { return verdict })
	})
	raw := f.payload(claims().json())
	f.want(v, raw, verifier.ErrRevoked)
	f.want(v, raw, verifier.ErrRevoked)
}

func TestCacheIsBoundedAndCanBeTurnedOff(t *testing.T) {
	f := newFixture(t)
	var tokens []string
	for i := range 200 {
		tokens = append(tokens, f.payload(claims().with("jti", fmt.Sprintf(`"id-%d"`, i)).json()))
	}
	for _, size := range []int{-1, 1, 32, 0} {
		v := f.verifier(func(cfg *verifier.Config) { cfg.CacheSize = size })
		remembered := 0
		first := make([]*verifier.Token, len(tokens))
		for i, raw := range tokens {
			first[i], _ = v.Verify(t.Context(), raw)
		}
		for i := len(tokens) - 1; i >= 0; i-- { // newest first: a bound evicts the oldest
			again, err := v.Verify(t.Context(), tokens[i])
			if err != nil || again.ID() != first[i].ID() {
				t.Fatalf("token %d: %v", i, err)
			}
			if again == first[i] {
				remembered++
			}
		}
		most := map[int]int{-1: 0, 1: 16, 32: 32, 0: 200}[size]
		least := map[int]int{-1: 0, 1: 8, 32: 20, 0: 200}[size]
		if remembered > most || remembered < least {
			t.Errorf("size %d: %d of 200 remembered", size, remembered)
		}
	}
}

func TestVerifyIsSafeForConcurrentUse(t *testing.T) {
	f := newFixture(t)
	v := f.verifier(func(cfg *verifier.Config) { cfg.CacheSize = 16 })
	ec := f.keys["ec-1"]
	var tokens []string
	for i := range 40 {
		payload := claims().with("jti", fmt.Sprintf(`"id-%d"`, i)).json()
		tokens = append(tokens, f.payload(payload), f.token(f.header(ec).json(), payload, ec))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				for i, raw := range tokens {
					token, err := v.Verify(t.Context(), raw)
					if err != nil || token.ID() != fmt.Sprintf("id-%d", i/2) {
						t.Errorf("token %d: %v", i, err)
					}
				}
			}
		})
	}
	wg.Wait()
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

func TestKeysAreFetchedFromTheIssuer(t *testing.T) {
	f := newFixture(t)
	doc, err := f.set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	down := atomic.Bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/jwks.json" || down.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(doc)
	}))
	defer server.Close()
	cfg := verifier.Config{Issuer: server.URL, Audience: vectorAudience, Now: func() time.Time { return f.now }}
	raw := f.payload(claims().with("iss", quote(server.URL)).json())
	for _, client := range []*http.Client{nil, server.Client()} {
		cfg.HTTPClient = client
		v, err := verifier.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		f.want(v, raw, nil)
		v.Close()
	}
	down.Store(true)
	if v, err := verifier.New(t.Context(), cfg); !errors.Is(err, verifier.ErrUnavailable) || v != nil {
		t.Errorf("New while the broker is away: %v", err)
	}
	f.verifier().Close() // keys that were given are not its to close
}

// A key is withdrawn while the broker is in reach: what it signed is refused as
// soon as the keys are due and the grace is over, remembered or not.
func TestTokensOfAWithdrawnKeyAreRefusedBeyondGrace(t *testing.T) {
	f := newFixture(t)
	served := atomic.Pointer[jwks.Set]{}
	served.Store(&f.set)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		doc, err := served.Load().MarshalJSON()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Cache-Control", "max-age=30")
		_, _ = w.Write(doc)
	}))
	defer server.Close()
	v := f.verifier(func(cfg *verifier.Config) { cfg.Issuer, cfg.Keys = server.URL, nil })
	defer v.Close()
	raw := f.payload(claims().with("iss", quote(server.URL)).json())
	f.want(v, raw, nil)
	without, err := jwks.ParseSet([]byte(`{"keys":[` + f.public("ec-1") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	served.Store(&without)
	f.now = f.now.Add(30*time.Second + jwks.Grace)
	f.want(v, raw, verifier.ErrUnknownKey)
}

func TestKeyStalenessIsTheTimeSinceTheKeysWereConfirmed(t *testing.T) {
	f := newFixture(t)
	down := atomic.Bool{}
	doc, err := f.set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(doc)
	}))
	defer server.Close()
	v := f.verifier(func(cfg *verifier.Config) { cfg.Issuer, cfg.Keys = server.URL, nil })
	defer v.Close()
	verify := func() { // the token is over; its key is asked for nevertheless
		f.want(v, f.payload(claims().with("iss", quote(server.URL)).json()), verifier.ErrExpired)
	}
	want := func(staleness time.Duration) {
		t.Helper()
		if got := v.KeyStaleness(); got != staleness {
			t.Errorf("stale for %s, want %s", got, staleness)
		}
	}
	want(0)
	f.now = f.now.Add(time.Hour)
	want(time.Hour)
	verify()
	want(0)
	down.Store(true)
	f.now = f.now.Add(time.Hour)
	verify()
	want(time.Hour)

	own, err := jwks.NewRemote(jwks.RemoteConfig{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.verifier(func(cfg *verifier.Config) { cfg.Keys = own }).KeyStaleness(); got != math.MaxInt64 {
		t.Errorf("keys that were never had: stale for %s", got)
	}
	if got := f.verifier().KeyStaleness(); got != 0 {
		t.Errorf("a fixed set: stale for %s", got)
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

func TestAgainCostsAtMostTwoAllocations(t *testing.T) {
	f := newFixture(t)
	v := f.verifier()
	raw := f.payload(claims().json())
	if n := testing.AllocsPerRun(100, func() { _, _ = v.Verify(t.Context(), raw) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

// A remembered token answers for itself alone, however long it is and however
// late the difference comes.
func TestRememberedTokenAnswersForNoOther(t *testing.T) {
	f := newFixture(t)
	v := f.verifier()
	for _, size := range []int{0, 300, 400, 800, 1600, 6400} {
		good := f.payload(claims().also("x", quote(strings.Repeat("x", size))).json())
		f.want(v, good, nil)
		f.want(v, good[:len(good)-4]+"AAAA", verifier.ErrSignature)
		f.want(v, good[:len(good)-1], verifier.ErrMalformed)
		f.want(v, good, nil)
	}
}
