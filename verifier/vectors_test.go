package verifier_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorsFile = "testdata/vectors.json"

func readVectors(t *testing.T) (document, []byte) {
	t.Helper()
	raw, err := os.ReadFile(vectorsFile)
	if *update && errors.Is(err, os.ErrNotExist) {
		return document{}, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc, raw
}

func generate(t *testing.T, committed document) []byte {
	g := newGenerator(t, committed)
	g.doc.Description = "Access tokens and whether a verifier accepts them. Run each with the keys, issuer, audience and time that it names. The keys are for tests only."
	g.doc.Fields = map[string]string{
		"tag":     "core: any JWT library that is given the keys, issuer, audience, time, leeway, types and algorithms below reaches this verdict. strict: needs the rule of one tenant, or the broker's narrow form of a token.",
		"verdict": "accept or reject. It counts; the reason tells which rule is meant, and libraries name it differently.",
		"reason":  "the word of this project's verifier for the first rule that is broken",
		"time":    "now, in seconds since 1970",
		"jwks":    "the name of a member of key_sets",
		"leeway":  "seconds that clocks may differ: exp is over at exactly exp+leeway, nbf and iat are reached at exactly the leeway before",
		"types":   "what typ may be, compared without regard to case",
	}
	g.doc.Algorithms = []string{"ES256", "ES384", "EdDSA", "RS256", "PS256"}
	g.doc.Types = []string{"at+jwt", "application/at+jwt"}
	g.doc.Leeway = vectorLeeway
	public := []string{g.public("ed-1"), g.public("ec-1"), g.public("ec-384"), g.public("rsa-1"), g.public("pss-1")}
	g.keySet("main", public...)
	g.keySet("stray", append(public,
		`{"kty":"oct","kid":"oct-1","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}`,
		g.public("ed-1", "private-1")[:len(g.public("ed-1", "private-1"))-1]+`,"d":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		string(bytes.Replace([]byte(g.public("ed-1", "enc-1")), []byte(`"use":"sig"`), []byte(`"use":"enc"`), 1)),
		`{"kty":"XYZ","kid":"of-a-new-type","x":"AAAA"}`)...)
	g.goodCases()
	g.tenantCases()
	g.keyCases()
	g.headerCases()
	g.claimCases()
	g.timeCases()
	g.ownCases()
	g.formCases()

	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(g.doc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestVectorsAreGenerated: what is committed is what the generator writes.
// go test ./verifier -run TestVectorsAreGenerated -update writes it.
func TestVectorsAreGenerated(t *testing.T) {
	committed, raw := readVectors(t)
	fresh := generate(t, committed)
	if *update {
		if err := os.WriteFile(vectorsFile, fresh, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(fresh, raw) {
		t.Fatal("testdata/vectors.json is not what the generator writes; run this test with -update and look at the difference")
	}
}

func TestVectors(t *testing.T) {
	doc, _ := readVectors(t)
	counts := map[string]int{}
	ids := map[string]bool{}
	sets := map[string]jwks.Set{}
	for name, raw := range doc.KeySets {
		set, err := jwks.ParseSet(raw)
		if err != nil {
			t.Fatalf("key set %s: %v", name, err)
		}
		sets[name] = set
	}
	for _, v := range doc.Vectors {
		if ids[v.ID] {
			t.Errorf("two vectors are called %s", v.ID)
		}
		ids[v.ID] = true
		counts[v.Tag]++
		counts[v.Verdict]++
		t.Run(v.ID, func(t *testing.T) {
			set, ok := sets[v.JWKS]
			if !ok {
				t.Fatalf("no key set %q", v.JWKS)
			}
			now := time.Unix(v.Time, 0)
			judge, err := verifier.New(t.Context(), verifier.Config{
				Issuer: v.Issuer, Audience: v.Audience, Keys: set, Leeway: time.Duration(doc.Leeway) * time.Second,
				Now: func() time.Time { return now },
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, turn := range []string{"first sight", "again"} {
				token, err := judge.Verify(t.Context(), v.Token)
				switch {
				case v.Verdict == "accept" && err != nil:
					t.Errorf("%s: refused, %v; %s", turn, err, v.Description)
				case v.Verdict == "reject" && err == nil:
					t.Errorf("%s: accepted for tenant %s; %s", turn, token.Tenant(), v.Description)
				case verifier.Reason(err) != v.Reason:
					t.Errorf("%s: %s (%v), want %s; %s", turn, verifier.Reason(err), err, v.Reason, v.Description)
				case (token == nil) == (err == nil):
					t.Errorf("%s: a token and an error, or neither", turn)
				}
			}
		})
	}
	for what, least := range map[string]int{"accept": 20, "reject": 100, "core": 80, "strict": 80} {
		if counts[what] < least {
			t.Errorf("%d vectors are %s, want at least %d", counts[what], what, least)
		}
	}
}
