package guard_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/guard"
)

// No answer to a guarded request may be kept by a cache that many share, whatever
// the handler says, unless the route does.
func TestHandler_AnswersAreNotForSharedCaches(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		set  map[string][]string
		want string
	}{
		"nothing said":         {nil, "private"},
		"public":               {map[string][]string{"Cache-Control": {"public, max-age=60"}}, "max-age=60, private"},
		"public, capital":      {map[string][]string{"Cache-Control": {"PUBLIC,max-age=60"}}, "max-age=60, private"},
		"by s-maxage":          {map[string][]string{"Cache-Control": {"s-maxage=60"}}, "private"},
		"in two lines":         {map[string][]string{"Cache-Control": {"max-age=60", "public"}}, "max-age=60, private"},
		"max-age alone":        {map[string][]string{"Cache-Control": {"max-age=60"}}, "max-age=60, private"},
		"must-revalidate":      {map[string][]string{"Cache-Control": {"must-revalidate"}}, "must-revalidate, private"},
		"private for a field":  {map[string][]string{"Cache-Control": {`private="set-cookie", max-age=5`}}, "max-age=5, private"},
		"no-store":             {map[string][]string{"Cache-Control": {"no-store, public"}}, "no-store"},
		"for a cache in front": {map[string][]string{"Surrogate-Control": {"max-age=60"}, "Cdn-Cache-Control": {"max-age=60"}, "CDN-Cache-Control": {"public"}, "Cloudflare-CDN-Cache-Control": {"public"}}, "private"},
	} {
		t.Run(name, func(t *testing.T) {
			next := func(rw http.ResponseWriter, _ *http.Request) {
				for k, v := range c.set {
					rw.Header()[k] = slices.Clone(v)
				}
				_, _ = rw.Write([]byte("x"))
			}
			resp := w.get(guard.Route{}, next, bearer(w.Token("acme")))
			if got := strings.Join(resp.Header["Cache-Control"], "|"); got != c.want || resp.Header.Get("Vary") != "Authorization" {
				t.Errorf("%q, want %q; %v", got, c.want, resp.Header)
			}
			for k := range resp.Header {
				if k != "Cache-Control" && strings.HasSuffix(strings.ToLower(k), "-control") {
					t.Errorf("%s is left", k)
				}
			}
			resp = w.get(guard.Route{SharedCache: true}, next, bearer(w.Token("acme")))
			if got := resp.Header["Cache-Control"]; !slices.Equal(got, c.set["Cache-Control"]) {
				t.Errorf("where it is allowed: %q", got)
			}
			if resp.Header.Get("Vary") != "Authorization" {
				t.Errorf("where it is allowed, another token's answer would be the same: %v", resp.Header)
			}
		})
	}
}

func TestHandler_AddsToVary(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ had, want []string }{
		{nil, []string{"Authorization"}},
		{[]string{"Accept"}, []string{"Accept", "Authorization"}},
		{[]string{"Accept, authorization"}, []string{"Accept, authorization"}},
		{[]string{"*"}, []string{"*"}},
	} {
		resp := w.get(guard.Route{}, func(rw http.ResponseWriter, _ *http.Request) { rw.Header()["Vary"] = slices.Clone(c.had) }, bearer(w.Token("acme")))
		if got := resp.Header["Vary"]; !slices.Equal(got, c.want) {
			t.Errorf("%q became %q", c.had, got)
		}
	}
	// What all answers share is never changed by one.
	if resp := w.get(guard.Route{}, nil, bearer(w.Token("acme"))); resp.Header.Get("Vary") != "Authorization" || len(resp.Header["Vary"]) != 1 {
		t.Errorf("%v", resp.Header)
	}
}
