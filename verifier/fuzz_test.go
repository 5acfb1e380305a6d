package verifier_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// FuzzVerify: nothing panics, and nothing is accepted but the tokens that the
// vectors accept, byte for byte: the fuzzer has no key.
func FuzzVerify(f *testing.F) {
	raw, err := os.ReadFile(vectorsFile)
	if err != nil {
		f.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		f.Fatal(err)
	}
	set, err := jwks.ParseSet(doc.KeySets["main"])
	if err != nil {
		f.Fatal(err)
	}
	judge, err := verifier.New(context.Background(), verifier.Config{
		Issuer: vectorIssuer, Audience: vectorAudience, Keys: set, CacheSize: -1,
		Now: func() time.Time { return time.Unix(vectorTime, 0) },
	})
	if err != nil {
		f.Fatal(err)
	}
	good := map[string]bool{}
	for _, v := range doc.Vectors {
		if v.JWKS == "main" && len(v.Token) < 4<<10 {
			f.Add(v.Token)
			good[v.Token] = v.Verdict == "accept"
		}
	}
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := judge.Verify(t.Context(), raw)
		switch {
		case (token == nil) == (err == nil):
			t.Fatal("a token and an error, or neither")
		case err == nil && !good[raw]:
			t.Fatalf("accepted %q", raw)
		case err != nil && (verifier.Reason(err) == "other" || verifier.Reason(err) == "unavailable"):
			t.Fatalf("no reason of its own: %v", err)
		}
	})
}

// TestVerifyRefusesEverySmallChange: each character of a good token replaced,
// dropped and doubled.
func TestVerifyRefusesEverySmallChange(t *testing.T) {
	f := newFixture(t)
	for _, cache := range []int{-1, 0} {
		v := f.verifier(func(cfg *verifier.Config) { cfg.CacheSize = cache })
		raw := f.payload(claims().json())
		f.want(v, raw, nil)
		for i := range raw {
			for _, changed := range []string{
				raw[:i] + raw[i+1:], raw[:i] + raw[i:i+1] + raw[i:], raw[:i] + "A" + raw[i+1:], raw[:i] + "." + raw[i+1:],
				raw[:i] + string(raw[i]^1) + raw[i+1:], raw[:i] + "=" + raw[i:], raw[:i] + "\n" + raw[i:], raw[:i],
			} {
				if changed == raw {
					continue
				}
				if token, err := v.Verify(t.Context(), changed); err == nil {
					t.Fatalf("accepted with a change at %d, tenant %s", i, token.Tenant())
				}
			}
		}
		f.want(v, strings.Clone(raw), nil)
	}
}
