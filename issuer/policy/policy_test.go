package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

func claims(t testing.TB, s string) Claims {
	t.Helper()
	c, err := ParseClaims([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		expr string
		good bool
	}{
		{TenantFrom, `claims.ns`, true},
		{TenantFrom, `"t-" + string(claims.id)`, true},
		{TenantFrom, `claims.sub.split(":")[2]`, false}, // standard functions only
		{Condition, `claims.sub.replace("a", "b") == ""`, false},
		{TenantFrom, `true`, false},
		{TenantFrom, `tenant`, false},
		{TenantFrom, `now`, false},
		{Credential, `claims.sub == "x"`, true},
		{Credential, `claims.sub.matches("^x$")`, true},
		{Credential, `claims.ok`, true},
		{Credential, `"x"`, false},
		{Credential, `tenant == "x"`, false},
		{Condition, `tenant == "x" && audience != "y" && "r" in scopes && now > timestamp(0)`, true},
		{Condition, `scopes.all(s, s.startsWith("r"))`, true},
		{Condition, `claims.sub.contains(":") && tenant.endsWith("x") && matches(tenant, "^(a{1,100}|[0-9a-f]{64})$")`, true},
		{Condition, `tenant.matches("(")`, false},
		{Condition, `tenant.matches("(a{100}){6}")`, false},
		{Condition, `tenant.matches("(?i)[\\pL]{501}")`, false},
		{Condition, `tenant.matches(claims.pattern)`, false}, // nobody but who wrote the expression
		{Condition, `tenant.matches("^" + audience)`, false},
		{Condition, `scopes.all(s, s.matches(tenant))`, false},
		{Condition, `tenant = "x"`, false},
		{Condition, `nothing`, false},
		{Condition, `getenv("HOME") == ""`, false},
		{Condition, ``, false},
		{Condition, strings.Repeat(" ", MaxExpression) + "1", false},
		{Condition, strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200), false},
		{Condition, "size([1" + strings.Repeat(",1", 1005) + "])>0", false},
		{TenantFrom, `{"acme": "a", "globex": "b"}[claims.ns]`, true},
		{TenantFrom, `{claims.ns: "a"}["acme"]`, false}, // a type within its own key
		{Condition, `[1]` + strings.Repeat(`.map(x, x + 1)`, maxLoops) + ` == [11]`, true},
		{Condition, `[1]` + strings.Repeat(`.map(x, x + 1)`, maxLoops+1) + ` == [12]`, false},
		{"other", `true`, false},
	} {
		err := Check(c.kind, c.expr)
		if (err == nil) != c.good || (err != nil && !errors.Is(err, ErrExpression)) {
			t.Errorf("%s %.60q: %v", c.kind, c.expr, err)
		}
	}
}

func TestEvaluation(t *testing.T) {
	e := New()
	c := claims(t, `{"sub":"system:serviceaccount:acme:reports","n":5,"big":9223372036854775808,"f":1.5,"e":1e2,
		"kubernetes.io":{"namespace":"acme"},"groups":["a","b"],"none":null,"ok":true}`)
	for expr, expected := range map[string]string{
		`claims["kubernetes.io"].namespace`: "acme",
		`claims.groups[1]`:                  "b",
		`claims.n`:                          "error",
		`claims.missing`:                    "error",
		`claims.none`:                       "error",
		`claims.groups`:                     "error",
		`claims.groups[1000]`:               "error",
	} {
		got, err := e.Tenant(t.Context(), expr, c)
		if err != nil {
			got = "error"
		}
		if got != expected || (err != nil && !errors.Is(err, ErrEvaluation)) {
			t.Errorf("%s: %q %v", expr, got, err)
		}
	}
	for expr, expected := range map[string]bool{
		`claims.n == 5 && type(claims.n) == int`:            true,
		`claims.big > 9.0e18 && type(claims.big) == double`: true,
		`claims.f == 1.5`: true,
		`claims.e == 100.0 && type(claims.e) == double`:        true,
		`claims.none == null`:                                  true,
		`has(claims.missing)`:                                  false,
		`"b" in claims.groups`:                                 true,
		`claims.ok`:                                            true,
		`claims.sub.matches("^system:serviceaccount:[a-z]+:")`: true,
	} {
		got, err := e.Vouches(t.Context(), expr, c)
		if err != nil || got != expected {
			t.Errorf("%s: %v %v", expr, got, err)
		}
	}
	if _, err := e.Vouches(t.Context(), `claims.sub`, c); !errors.Is(err, ErrEvaluation) {
		t.Errorf("a string for a bool: %v", err)
	}
	if _, err := e.Vouches(t.Context(), `no way`, c); !errors.Is(err, ErrExpression) {
		t.Errorf("%v", err)
	}
	if ok, err := e.Condition(t.Context(), `size(claims) == 0 && now == timestamp("2030-01-02T03:04:05Z") && scopes == ["r"]`, Input{
		Scopes: []string{"r"}, Now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}); err != nil || !ok {
		t.Errorf("%v %v", ok, err)
	}
}

func TestCostAndTimeAreBounded(t *testing.T) {
	e := New()
	var list []string
	for n := range 200 {
		list = append(list, fmt.Sprint(n))
	}
	c := claims(t, `{"l":[`+strings.Join(list, ",")+`]}`)
	start := time.Now()
	_, err := e.Vouches(t.Context(), `claims.l.all(a, claims.l.all(b, claims.l.all(c, claims.l.all(d, a + b + c + d >= 0))))`, c)
	if !errors.Is(err, ErrEvaluation) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 20*time.Second { // without bounds it would be hours
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Vouches(ctx, `claims.l.all(a, claims.l.all(b, a + b >= 0))`, c); !errors.Is(err, ErrEvaluation) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestClaimsAreReadStrictly(t *testing.T) {
	for _, bad := range []string{``, `[]`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `{"a":1e999}`, `{"a":[1e999]}`, `{"a":{"b":1e999}}`, `{} {}`, "{\"a\":\"\xff\"}"} {
		if _, err := ParseClaims([]byte(bad)); !errors.Is(err, credential.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestProgramsAreCompiledOnceAndBounded(t *testing.T) {
	e := New()
	for range 3 {
		if _, err := e.Vouches(t.Context(), `true`, Claims{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.programs.Len(); n != 1 {
		t.Errorf("%d programs", n)
	}
}

func FuzzExpression(f *testing.F) {
	f.Add(`claims["kubernetes.io"].namespace`)
	f.Add(`claims.l.map(x, x + 1).exists(y, y == 2) ? "a" : "b"`)
	f.Add(`claims.sub.matches("^(a{3}|b{0,4})+$")`)
	e := New()
	f.Fuzz(func(t *testing.T, expr string) {
		c := claims(t, `{"sub":"x","l":[1,2,3],"kubernetes.io":{"namespace":"acme"}}`)
		if tenant, err := e.Tenant(t.Context(), expr, c); err == nil && Check(TenantFrom, expr) != nil {
			t.Errorf("%q yields %q and is refused by Check", expr, tenant)
		}
		_, _ = e.Vouches(t.Context(), expr, c)
		_, _ = e.Condition(t.Context(), expr, Input{Claims: c, Now: time.Unix(1, 0)})
	})
}

func BenchmarkCondition(b *testing.B) {
	e := New()
	in := Input{Claims: claims(b, `{"kubernetes.io":{"namespace":"acme"}}`), Tenant: "acme", Scopes: []string{"read"}, Now: time.Now()}
	for b.Loop() {
		if ok, err := e.Condition(b.Context(), `claims["kubernetes.io"].namespace == tenant && "read" in scopes`, in); err != nil || !ok {
			b.Fatal(err)
		}
	}
}
