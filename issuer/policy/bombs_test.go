package policy

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// bombs are expressions that would need far more memory or time than their
// length suggests.
func bombs() map[string]string {
	chain := func(start, step, end string, times int) string {
		return start + strings.Repeat(step, times) + end
	}
	long := strings.Repeat("a", 100)
	return map[string]string{
		"strings replaced":      chain(`"`+long+`"`, `.replace("a", "`+strings.Repeat("a", 50)+`")`, `.size() > 0`, 4),
		"strings joined":        chain(`["a"]`, `.map(x, [x,x,x,x,x,x,x,x].join("bbbbbbbb"))`, `.size() > 0`, 8),
		"strings formatted":     chain(`["a"]`, `.map(x, "%s%s%s%s".format([x,x,x,x]))`, `.size() > 0`, 8),
		"strings doubled":       chain(`["`+long+`"]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `[0].size() > 0`, 8),
		"bytes doubled":         chain(`[b"`+long+`"]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `[0].size() > 0`, 8),
		"strings, side by side": chain(`claims.l.map(y, "`+long+`")`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `.size() > 0`, 8),
		"lists doubled":         chain(`[[1]]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `[0].all(i, i == 1)`, 8),
		"lists searched":        chain(`2 in [[1]]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `[0]`, 8),
		"lists compared":        chain(`[[[1]]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `].all(l, l[0] == [0, 1] || l == l + [] && l != [l[0]])`, 8),
		"lists yielded":         chain(`dyn([[1]]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `[0])`, 8),
		"lists within lists":    chain(`[[[1]]`, `.map(x, [x,x,x,x,x,x,x,x,x,x])`, `].all(l, l[0] == l[0])`, 8),
		"wide within wide":      chain(`[[1]]`, `.map(x, [x,x,x,x,x,x,x,x])`, `.all(l, dyn(l) != dyn([1]) && l == l)`, 8),
		"maps within maps":      chain(`[{"a": 1}]`, `.map(x, {"a":x,"b":x,"c":x,"d":x,"e":x,"f":x,"g":x})`, `.all(l, dyn(l) == dyn(l))`, 8),
		"types within types":    chain(`[1]`, `.map(x, {x: x})`, `.size() > 0`, 18),
		"types in their keys":   chain(`[1]`, `.map(x, {x: {x: {x: x}}})`, `.size() > 0`, 9),
		"types, deep":           chain(`[1]`, `.map(x, {"a": [{"a": [x]}]})`, `.size() > 0`, 9),
		"many loops":            chain(`[[1]]`, `.map(x, x + x)`, `.size() > 0`, 40),
		"loops within loops":    `claims.l.all(a, claims.l.all(b, claims.l.all(c, claims.l.all(d, claims.l.all(e, a+b+c+d+e >= 0)))))`,
		"maps of loops":         `claims.l.map(a, claims.l.map(b, claims.l.map(c, claims.l.map(d, [a,b,c,d])))).size() > 0`,
		"numbers as strings":    chain(`claims.l.map(y, string(y))`, `.map(x, string(x+x+x+x+x+x+x))`, `.size() > 0`, 8),
		"a huge pattern":        `"a".matches("` + strings.Repeat(`[\\pL\\pN]{1000}`, 100) + `")`,
		"nested repetition":     `"a".matches("((((((a{10}){10}){10}b?){0,9}){0,9})x{1000}){0,1}` + strings.Repeat(`(y{500}){2}`, 80) + `")`,
		"alternated repetition": `"a".matches("` + strings.Repeat("(a{0,500}|b{0,500}){2}", 60) + `")`,
		"a pattern from claims": `"a".matches(claims.pattern)`,
		"a pattern put together": chain(`["a{1000}"]`, `.map(x, x+x+x+x+x+x+x+x+x+x)`, `.all(p, "a".matches(p))`, 8) +
			` && matches("a", "` + strings.Repeat("a{1000}", 100) + `")`,
	}
}

func TestNoExpressionIsABomb(t *testing.T) {
	const most = 64 << 20
	var list []string
	for n := range 200 {
		list = append(list, fmt.Sprint(n))
	}
	c := claims(t, `{"l":[`+strings.Join(list, ",")+`],"pattern":"`+strings.Repeat("(x{0,500}){2}", 1000)+`"}`)
	e := New()
	for name, bomb := range bombs() {
		asText := `(` + bomb + `) ? "acme" : "globex"`
		for kind, run := range map[Kind]func() error{
			TenantFrom: func() error { _, err := e.Tenant(t.Context(), asText, c); return err },
			Credential: func() error { _, err := e.Vouches(t.Context(), bomb, c); return err },
			Condition: func() error {
				_, err := e.Condition(t.Context(), bomb, Input{Claims: c, Tenant: "acme", Scopes: []string{"r"}, Now: time.Unix(1, 0)})
				return err
			},
		} {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				done := make(chan error, 1)
				go func() { done <- run() }()
				select {
				case err := <-done:
					if !errors.Is(err, ErrEvaluation) && !errors.Is(err, ErrExpression) && err != nil {
						t.Errorf("%v", err)
					}
					t.Logf("%.200v", err)
				case <-time.After(10 * time.Second):
					t.Fatal("it does not end")
				}
				runtime.ReadMemStats(&after)
				took, used := time.Since(start), after.TotalAlloc-before.TotalAlloc
				t.Logf("%v, %d KiB", took, used>>10)
				if used > most {
					t.Errorf("it takes %d MiB", used>>20)
				}
			})
		}
	}
}
