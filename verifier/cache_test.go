package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

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
