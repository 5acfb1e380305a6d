package credential_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
)

// base returns claims in good order as raw JSON by name, to be changed.
func base() map[string]string {
	return map[string]string{
		"iss": `"https://broker.example"`, "sub": `"worker"`, "client_id": `"worker"`, "aud": `"orders"`, "tenant": `"acme"`,
		"scope": `"a b"`, "iat": `1768478340`, "exp": `1768478640`, "jti": `"id"`, "txn": `"chain"`,
	}
}

func object(members map[string]string) []byte {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		parts = append(parts, `"`+name+`":`+members[name])
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}

func TestParseClaimsReadsEveryClaim(t *testing.T) {
	m := base()
	m["nbf"], m["job"] = `1768478341`, `"ticket"`
	m["act"] = `{"sub":"gateway","x":1,"act":{"sub":"edge","tenant":"globex"}}`
	m["cnf"] = `{"x5t#S256":"thumb","jkt":"key","x":1}`
	m["other"] = `[{"tenant":1}]`
	got, err := credential.ParseClaims(object(m))
	if err != nil {
		t.Fatal(err)
	}
	want := credential.Claims{
		Issuer: "https://broker.example", Subject: credential.MustAccountID("worker"), ClientID: credential.MustAccountID("worker"),
		Audience: credential.MustAudience("orders"), Tenant: credential.MustTenant("acme"), Scopes: credential.MustScopes("a b"),
		IssuedAt: time.Unix(1768478340, 0).UTC(), Expires: time.Unix(1768478640, 0).UTC(), NotBefore: time.Unix(1768478341, 0).UTC(),
		ID: "id", Txn: "chain", Job: "ticket",
		Actor:        &credential.Actor{Subject: credential.MustAccountID("gateway"), By: &credential.Actor{Subject: credential.MustAccountID("edge")}},
		Confirmation: credential.Confirmation{CertificateSHA256: "thumb", KeyThumbprint: "key"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got.Confirmation.IsZero() || !(credential.Confirmation{}).IsZero() {
		t.Error("a binding reads as none, or none as a binding")
	}
}

func TestParseClaimsHoldsOneTenant(t *testing.T) {
	for name, raw := range map[string]string{
		"array": `["acme"]`, "object": `{"id":"acme"}`, "number": `1`, "null": `null`, "true": `true`, "empty": `""`, "wildcard": `"*"`,
		"two": `"acme globex"`, "SYSTEM": `"SYSTEM"`, "too long": `"` + strings.Repeat("t", 65) + `"`, "NUL": `"acme\u0000"`,
	} {
		m := base()
		m["tenant"] = raw
		if c, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrTenant) || !c.Tenant.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"Tenant", "TENANT", "tenants", "Tenants", "tenantſ", "TENANTſ", `\u0054enant`, `tenant\u017F`, `t\u0065nants`} {
		m := base()
		m[name] = `null`
		if _, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrTenant) {
			t.Errorf("beside %s: %v", name, err)
		}
		delete(m, "tenant")
		if _, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrTenant) {
			t.Errorf("only %s: %v", name, err)
		}
	}
	for _, name := range []string{"tenant_id", "tenantss", "tenan", "ţenant", "tenant ", "xtenant", strings.Repeat("tenant", 9)} {
		m := base()
		m[name] = `"globex"`
		if c, err := credential.ParseClaims(object(m)); err != nil || c.Tenant.String() != "acme" {
			t.Errorf("beside %s: %v", name, err)
		}
	}
	m := base()
	delete(m, "tenant")
	if _, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrTenant) {
		t.Errorf("none: %v", err)
	}
	m[`ten\u0061nt`] = `"acme"`
	if c, err := credential.ParseClaims(object(m)); err != nil || c.Tenant.String() != "acme" {
		t.Errorf("escaped name: %v", err)
	}
	m["tenant"] = `"acme"`
	if _, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrMalformed) {
		t.Errorf("two: %v", err)
	}
}

// No single change of case, and no fold, slips a second tenant past.
func TestParseClaimsRefusesEveryFoldOfTenant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"tenant", "tenants"}).Draw(t, "word")
		var name strings.Builder
		for _, r := range word {
			folds := []string{string(r), strings.ToUpper(string(r)), fmt.Sprintf(`\u%04x`, r), fmt.Sprintf(`\u%04X`, r-32)}
			if r == 's' {
				folds = append(folds, "ſ", `\u017f`)
			}
			name.WriteString(rapid.SampledFrom(folds).Draw(t, "letter"))
		}
		var plain string
		if err := json.Unmarshal([]byte(`"`+name.String()+`"`), &plain); err != nil {
			t.Fatal(err)
		}
		payload := append(object(base())[:len(object(base()))-1], `,"`+name.String()+`":"globex"}`...)
		_, err := credential.ParseClaims(payload)
		if want := map[bool]error{true: credential.ErrMalformed, false: credential.ErrTenant}[plain == "tenant"]; !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", name.String(), err, want)
		}
	})
}

func TestParseClaimsRefusesMissingAndMistyped(t *testing.T) {
	for name := range base() {
		if name == "scope" || name == "tenant" {
			continue
		}
		m := base()
		delete(m, name)
		if _, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrClaim) {
			t.Errorf("no %s: %v", name, err)
		}
	}
	wrong := map[string][]string{
		"iss": {`""`, `"` + strings.Repeat("i", 256) + `"`}, "sub": {`""`, `"a b"`}, "client_id": {`""`, `"/"`}, "aud": {`""`, `["orders"]`, `"a b"`},
		"scope": {`["a"]`, `"a  b"`}, "jti": {`""`, `"` + strings.Repeat("j", 129) + `"`}, "txn": {`""`}, "job": {`""`},
		"iat": {`"1"`, `0`, `-1`, `1e300`, `253402300800`}, "exp": {`"1"`, `0.5`}, "nbf": {`"1"`, `null`, `0`},
		"act": {`"x"`, `[]`, `{}`, `{"sub":""}`, `{"sub":1}`, `{"sub":"a","act":1}`, `{"sub":"a","act":{}}`,
			`{"sub":"a","act":{"sub":"b","act":{"sub":"c","act":{"sub":"d","act":{"sub":"e"}}}}}`},
		"cnf": {`"x"`, `{}`, `{"kid":"x"}`, `{"jkt":""}`, `{"jkt":1}`, `{"x5t#S256":null}`, `{"jkt":"` + strings.Repeat("j", 129) + `"}`},
	}
	for name, values := range wrong {
		for _, raw := range append(values, `null`, `true`, `{"x":1}`) {
			m := base()
			m[name] = raw
			if _, err := credential.ParseClaims(object(m)); !errors.Is(err, credential.ErrClaim) {
				t.Errorf("%s %.40s: %v", name, raw, err)
			}
		}
	}
	if _, err := credential.ParseClaims([]byte("[]")); !errors.Is(err, credential.ErrMalformed) {
		t.Errorf("an array: %v", err)
	}
}

func TestParseClaimsRoundsFractionsToTheShorterLife(t *testing.T) {
	m := base()
	m["iat"], m["exp"], m["nbf"] = `1768478340.9`, `1768478640.9`, `1768478340.1`
	c, err := credential.ParseClaims(object(m))
	if err != nil || c.IssuedAt.Unix() != 1768478340 || c.Expires.Unix() != 1768478640 || c.NotBefore.Unix() != 1768478341 {
		t.Errorf("%v %v %v, %v", c.IssuedAt, c.Expires, c.NotBefore, err)
	}
}

// drawClaims draws claims of every shape that the broker can write.
func drawClaims(t *rapid.T) credential.Claims {
	id := rapid.Custom(func(t *rapid.T) credential.AccountID {
		return credential.MustAccountID(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_.-]{0,20}`).Draw(t, "id"))
	})
	name := rapid.StringOfN(rapid.Rune(), 1, 20, credential.MaxIDLength)
	second := rapid.Int64Range(1, 253402300799)
	c := credential.Claims{
		Issuer: "https://broker.example", Subject: id.Draw(t, "sub"), ClientID: id.Draw(t, "client"),
		Audience: credential.MustAudience(rapid.StringMatching(`[!#-&(-~]{1,40}`).Draw(t, "aud")),
		Tenant:   credential.MustTenant("t" + rapid.StringMatching(`[A-Za-z0-9_.-]{0,20}`).Draw(t, "tenant")),
		Scopes:   scopes(t, "scope"), ID: name.Draw(t, "jti"), Txn: name.Draw(t, "txn"),
		IssuedAt: time.Unix(second.Draw(t, "iat"), 0).UTC(), Expires: time.Unix(second.Draw(t, "exp"), 0).UTC(),
	}
	if rapid.Bool().Draw(t, "has nbf") {
		c.NotBefore = time.Unix(second.Draw(t, "nbf"), 0).UTC()
	}
	if rapid.Bool().Draw(t, "has job") {
		c.Job = name.Draw(t, "job")
	}
	for range rapid.IntRange(0, credential.MaxActorDepth).Draw(t, "actors") {
		c.Actor = &credential.Actor{Subject: id.Draw(t, "actor"), By: c.Actor}
	}
	if rapid.Bool().Draw(t, "is bound") {
		c.Confirmation.KeyThumbprint = name.Draw(t, "jkt")
	}
	if rapid.Bool().Draw(t, "is bound to a certificate") {
		c.Confirmation.CertificateSHA256 = name.Draw(t, "x5t")
	}
	return c
}

func TestClaimsSurviveTheirPayload(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawClaims(t)
		payload := c.AppendJSON([]byte("kept "))[len("kept "):]
		again, err := credential.ParseClaims(payload)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%s: %+v, %v", payload, again, err)
		}
		marshalled, err := json.Marshal(c)
		if err != nil || !reflect.DeepEqual(jsonValue(t, marshalled), jsonValue(t, payload)) {
			t.Fatalf("json.Marshal writes %s for %s, %v", marshalled, payload, err)
		}
	})
}

func jsonValue(t *rapid.T, doc []byte) (v any) {
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return v
}

func FuzzParseClaims(f *testing.F) {
	f.Add(object(base()))
	m := base()
	m["act"], m["cnf"], m["nbf"] = `{"sub":"a","act":{"sub":"b"}}`, `{"jkt":"x"}`, `1e9`
	f.Add(object(m))
	f.Add([]byte(`{"tenant":"a","tenants":[]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := credential.ParseClaims(payload)
		if err != nil {
			return
		}
		again, err := credential.ParseClaims(c.AppendJSON(nil))
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%q becomes %s, %v", payload, c.AppendJSON(nil), err)
		}
		var theirs map[string]any // exactly one tenant, as another reader sees it
		if err := json.Unmarshal(payload, &theirs); err != nil || theirs["tenant"] != c.Tenant.String() {
			t.Fatalf("encoding/json sees %v, %v", theirs["tenant"], err)
		}
		for name := range theirs {
			if name != "tenant" && (strings.EqualFold(name, "tenant") || strings.EqualFold(name, "tenants")) {
				t.Fatalf("a member %q passed", name)
			}
		}
	})
}
