package guard_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestCheck_OpensTheTenantsOwnAndNothingElse(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ctx    context.Context //nolint:containedctx // a case of the table
		r      guard.Resource
		want   error
		reason string
	}{
		"its own":              {ctx, resource("acme", "7"), nil, "same_tenant"},
		"another's":            {ctx, resource("globex", "7"), guard.ErrCrossing, "crossing"},
		"another's by case":    {ctx, resource("Acme", "7"), guard.ErrCrossing, "crossing"},
		"another's by length":  {ctx, resource("acme1", "7"), guard.ErrCrossing, "crossing"},
		"nobody's":             {ctx, resource("", "7"), guard.ErrNoTenant, "resource_without_tenant"},
		"without a token":      {t.Context(), resource("acme", "7"), guard.ErrNoToken, "no_token"},
		"nobody's, no token":   {t.Context(), resource("", "7"), guard.ErrNoToken, "no_token"},
		"the broker's own":     {ctx, resource("system", "7"), guard.ErrCrossing, "crossing"},
		"without type and id":  {ctx, guard.Resource{Tenant: resource("acme", "").Tenant}, nil, "same_tenant"},
		"a derived context":    {context.WithoutCancel(ctx), resource("globex", "7"), guard.ErrCrossing, "crossing"},
		"a derived one, owned": {context.WithoutCancel(ctx), resource("acme", "7"), nil, "same_tenant"},
	} {
		t.Run(name, func(t *testing.T) {
			err := guard.Check(c.ctx, c.r)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			var denied *guard.Denied
			if errors.As(err, &denied) != (c.want != nil) || (denied != nil && denied.Decision.Reason != c.reason) {
				t.Errorf("%+v", denied)
			}
		})
	}
}

// One line per decision, with all that leads to the broker's record.
func TestCheck_LeavesOneLine(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	token, err := guard.Token(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = guard.Check(ctx, resource("acme", "7"))
	_ = guard.Check(ctx, resource("globex", "8"))
	lines := w.lines()
	if len(lines) != 2 || len(w.seen) != 2 {
		t.Fatalf("%d lines, %d observed", len(lines), len(w.seen))
	}
	for i, want := range []map[string]any{
		{"level": "INFO", "decision": "allow", "reason": "same_tenant", "resource_tenant": "acme", "resource_id": "7"},
		{"level": "WARN", "decision": "deny", "reason": "crossing", "resource_tenant": "globex", "resource_id": "8"},
	} {
		for name, value := range map[string]any{
			"msg": "guard", "tenant": "acme", "sub": "worker", "client_id": "worker", "resource_type": "order",
			"jti": token.ID(), "txn": token.Txn(), "request_id": "r1",
		} {
			want[name] = value
		}
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, lines[i][name], value)
			}
		}
	}
	if d := w.seen[1]; !d.Crossing || d.Allowed || d.Time.IsZero() || d.Resource.Tenant.String() != "globex" {
		t.Errorf("%+v", d)
	}
	if s := w.guard.Stats(); s.Allowed != 1 || s.Crossings != 1 || s.Denied["crossing"] != 1 {
		t.Errorf("%+v", s)
	}
}

// What was let in opens nothing more once it is over.
func TestCheck_LooksAtTheTokenAgain(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*guardtest.Issuer)
		want error
	}{
		"expired": {func(i *guardtest.Issuer) { i.Pass(5 * time.Minute) }, verifier.ErrExpired},
		"revoked": {func(i *guardtest.Issuer) { i.RevokeTenant("acme") }, verifier.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "")
			if err != nil {
				t.Fatal(err)
			}
			if err := guard.Check(ctx, resource("acme", "7")); err != nil {
				t.Fatal(err)
			}
			c.end(w.Issuer)
			if err := guard.Check(ctx, resource("acme", "7")); !errors.Is(err, c.want) {
				t.Errorf("Check: %v", err)
			}
			if _, err := guard.Tenant(ctx); !errors.Is(err, c.want) {
				t.Errorf("Tenant: %v", err)
			}
			if _, err := w.guard.Enter(t.Context(), w.Token("acme"), ""); (err == nil) != (name == "expired") {
				t.Errorf("a new one: %v", err) // after expiry a fresh token is good
			}
		})
	}
}

func TestEnter_NeverChangesTheTenantOfAContext(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.guard.Enter(ctx, w.Token("globex"), ""); !errors.Is(err, guard.ErrInside) {
		t.Errorf("%v", err)
	}
	if _, err := w.guard.Enter(ctx, w.Token("acme"), ""); err != nil {
		t.Errorf("the same tenant again: %v", err)
	}
	if n := w.guard.Stats().Crossings; n != 1 {
		t.Errorf("%d crossings are counted", n)
	}
	if _, err := w.guard.Enter(t.Context(), "nonsense", "r9"); !errors.Is(err, verifier.ErrMalformed) {
		t.Errorf("%v", err)
	}
	if lines := w.lines(); lines[len(lines)-1]["reason"] != "malformed" || lines[len(lines)-1]["request_id"] != "r9" {
		t.Errorf("%v", lines)
	}
}

// What came by another protocol is read as a header is.
func TestEnterBearer_TakesExactlyOne(t *testing.T) {
	w := newWorld(t)
	good := "Bearer " + w.Token("acme")
	for name, c := range map[string]struct {
		sent   []string
		want   error
		reason string
	}{
		"one":            {[]string{good}, nil, ""},
		"none":           {nil, guard.ErrNoToken, "no_token"},
		"another scheme": {[]string{"Basic eA=="}, guard.ErrNoToken, "no_token"},
		"two":            {[]string{good, good}, guard.ErrSeveral, "several_tokens"},
		"a comma":        {[]string{good + "," + good}, guard.ErrSeveral, "malformed"},
		"an empty one":   {[]string{"Bearer "}, guard.ErrSeveral, "malformed"},
		"nonsense":       {[]string{"Bearer x"}, verifier.ErrMalformed, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			w.seen = nil
			ctx, err := w.guard.EnterBearer(t.Context(), c.sent, "r3")
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err == nil {
				if tenant, err := guard.Tenant(ctx); err != nil || tenant.String() != "acme" || guard.RequestID(ctx) != "r3" {
					t.Errorf("%s %v %q", tenant, err, guard.RequestID(ctx))
				}
				return
			}
			if len(w.seen) != 1 || w.seen[0].Reason != c.reason || w.seen[0].RequestID != "r3" || strings.Contains(err.Error(), "Bearer ") {
				t.Errorf("%+v %v", w.seen, err)
			}
		})
	}
}

func TestSameTenant_TakesExactlyTheTokens(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		said []string
		want error
	}{
		{[]string{"acme"}, nil}, {[]string{"globex"}, guard.ErrCrossing}, {[]string{"Acme"}, guard.ErrCrossing}, {[]string{""}, guard.ErrCrossing},
		{[]string{"a b"}, guard.ErrCrossing}, {nil, guard.ErrNoTenant}, {[]string{"acme", "acme"}, guard.ErrNoTenant}, {[]string{"acme", "globex"}, guard.ErrNoTenant},
	} {
		crossings := w.guard.Stats().Crossings
		if err := guard.SameTenant(ctx, "message", c.said...); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%q: %v", c.said, err)
		}
		if n := w.guard.Stats().Crossings - crossings; (n == 1) != errors.Is(c.want, guard.ErrCrossing) {
			t.Errorf("%q: %d crossings", c.said, n)
		}
	}
	if err := guard.SameTenant(t.Context(), "message", "acme"); !errors.Is(err, guard.ErrNoToken) {
		t.Error(err)
	}
	w.Pass(5 * time.Minute)
	if err := guard.SameTenant(ctx, "message", "acme"); !errors.Is(err, verifier.ErrExpired) {
		t.Error(err)
	}
}

func TestNew_RefusesWhatIsIncomplete(t *testing.T) {
	v := guardtest.NewIssuer(t).Verifier()
	for name, c := range map[string]guard.Config{
		"no verifier":    {},
		"a quote":        {Verifier: v, Realm: `a"b`},
		"a line break":   {Verifier: v, Realm: "a\nb"},
		"no header name": {Verifier: v, TenantHeaders: []string{"X Tenant"}},
		"an empty one":   {Verifier: v, TenantHeaders: []string{""}},
	} {
		if _, err := guard.New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func challenged(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

// Nobody learns from an answer whose an object is, or that there is one.
func TestRefuse(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	body := func(err error) (int, string, http.Header) {
		rec := httptest.NewRecorder()
		guard.Refuse(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), err)
		return rec.Code, rec.Body.String(), rec.Header()
	}
	status, crossing, header := body(guard.Check(ctx, resource("globex", "7")))
	if status != http.StatusNotFound || header.Get("Cache-Control") != "no-store" || header.Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v", status, header)
	}
	for _, err := range []error{guard.Check(ctx, resource("", "7")), guard.ErrNotFound} {
		if _, nobodys, _ := body(err); nobodys != crossing || !strings.Contains(nobodys, `"request_id":"r1"`) {
			t.Errorf("%s\n%s", crossing, nobodys)
		}
	}
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"differs":     {guard.SameTenant(ctx, "message", "globex"), http.StatusForbidden},
		"named twice": {guard.SameTenant(ctx, "message", "acme", "acme"), http.StatusBadRequest},
		"no token":    {guard.Check(t.Context(), resource("acme", "7")), http.StatusUnauthorized},
		"expired":     {verifier.ErrExpired, http.StatusUnauthorized},
		"unavailable": {verifier.ErrUnavailable, http.StatusServiceUnavailable},
		"scope":       {guard.ErrScope, http.StatusForbidden},
		"inside":      {guard.ErrInside, http.StatusForbidden},
		"busy":        {fmt.Errorf("a cache: %w", guard.ErrBusy), http.StatusServiceUnavailable},
		"several":     {guard.ErrSeveral, http.StatusBadRequest},
		"its own":     {errors.New("the database is away"), http.StatusInternalServerError},
	} {
		challenge := challenged(c.status) && !errors.Is(c.err, guard.ErrInside) && !errors.Is(c.err, guard.ErrDiffers) && !errors.Is(c.err, guard.ErrNotOnce)
		if status, text, header := body(c.err); status != c.status || (header.Get("WWW-Authenticate") != "") != challenge || strings.Contains(text, "database") {
			t.Errorf("%s: %d %v", name, status, header)
		}
	}
}

// What the handler has set before it checked would tell of the object.
func TestRefuse_DropsHeadersThatTell(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	told := func(err error, set ...string) http.Header {
		rec := httptest.NewRecorder()
		rec.Header().Set("Access-Control-Allow-Origin", "https://app.example")
		rec.Header().Set("Vary", "Origin")
		for _, name := range set {
			rec.Header().Set(name, "7")
		}
		guard.Refuse(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), err)
		return rec.Header()
	}
	nobodys := told(guard.ErrNotFound)
	got := told(guard.Check(ctx, resource("globex", "7")), "Etag", "Last-Modified", "Content-Length", "Location", "Set-Cookie", "X-Total", "X-Accel-Expires", "Link")
	if !maps.EqualFunc(got, nobodys, slices.Equal) {
		t.Errorf("%v\n%v", got, nobodys)
	}
	if got.Get("Access-Control-Allow-Origin") == "" || got.Get("Vary") == "" {
		t.Errorf("what every answer has is gone: %v", got)
	}
}

// Whoever asks for the token or the tenant is told no on record too: keys of a
// cache and transactions of a database are had by them.
func TestToken_LeavesALineWhenItDenies(t *testing.T) {
	w := newWorld(t)
	ctx, err := w.guard.Enter(t.Context(), w.Token("acme"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guard.Tenant(ctx); err != nil || len(w.seen) != 0 {
		t.Fatalf("%v, %d lines", err, len(w.seen))
	}
	w.Pass(time.Hour)
	var denied *guard.Denied
	if _, err := guard.Tenant(ctx); !errors.Is(err, verifier.ErrExpired) || !errors.As(err, &denied) {
		t.Error(err)
	}
	if len(w.seen) != 1 || w.seen[0].Reason != "expired" || w.seen[0].RequestID != "r1" || w.seen[0].Allowed {
		t.Errorf("%+v", w.seen)
	}
	before := w.guard.Stats().WithoutToken
	if _, err := guard.Token(t.Context()); !errors.Is(err, guard.ErrNoToken) || w.guard.Stats().WithoutToken != before+1 {
		t.Errorf("%v, %d", err, w.guard.Stats().WithoutToken)
	}
}
