package api

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// The vectors that any language can run, through the endpoint: the same
// verdicts, those that need I1 too.
func TestTheVectorsThroughACheck(t *testing.T) {
	var doc struct {
		Leeway  int
		KeySets map[string]json.RawMessage `json:"key_sets"`
		Vectors []struct {
			ID, Tag, Verdict, Issuer, Audience, JWKS, Token string
			Time                                            int64
		}
	}
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile("../verifier/testdata/vectors.json")), &doc); err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, v := range doc.Vectors {
		set := must[jwks.Set](t)(jwks.ParseSet(doc.KeySets[v.JWKS]))
		now := func() time.Time { return time.Unix(v.Time, 0) }
		judge := must[*verifier.Verifier](t)(verifier.New(t.Context(), verifier.Config{
			Issuer: v.Issuer, Audience: v.Audience, Keys: set, Leeway: time.Duration(doc.Leeway) * time.Second, Now: now,
		}))
		h, err := NewCheck(CheckConfig{
			Issuer: credential.MustIssuerURL(v.Issuer), Verifiers: map[credential.Audience]Verifier{credential.MustAudience(v.Audience): judge},
			// The accounts of the vectors are in no registry.
			Standing: standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, nil }), Now: now,
		})
		if credential.MustIssuerURL(v.Issuer).Reserves(credential.MustAudience(v.Audience)) {
			if err == nil {
				t.Errorf("%s: a proxy may ask about the broker's own audience", v.ID)
			}
			ran["own"]++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ran[v.Tag]++
		want := map[string]int{"accept": 200, "reject": 401}[v.Verdict]
		if v.ID == "form-space-before" {
			want = 200 // in a header that space belongs to the scheme (RFC 9110 section 11.4): what follows is a good token
		}
		a := askOf(t, h, "GET", wire.PathCheck+"?audience="+url.QueryEscape(v.Audience), "Authorization", "Bearer "+v.Token)
		if a.status != want || (a.header.Get("X-Tenant") == "") == (want == 200) {
			t.Errorf("%s: %d, want %d", v.ID, a.status, want)
		}
	}
	if ran["core"] < 200 || ran["strict"] < 200 {
		t.Errorf("ran %v", ran)
	}
}
