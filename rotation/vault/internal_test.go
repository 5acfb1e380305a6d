package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/credential"
)

// WaitFor has a client that doesn't run yet wait longer for an answer to a probe
// and to its farewell: a Vault on a busy machine is none that doesn't serve.
func WaitFor(c *Client, d time.Duration) { c.core.probeFor, c.core.partFor = d, d }

// A Vault that is down is asked at most 200 times a minute, 133 on average, and
// noticed within the ceiling.
func TestProbesAreSpreadBetweenTheirBounds(t *testing.T) {
	if most := time.Minute / downFloor; most != 200 {
		t.Errorf("at most %d probes a minute, the text says 200", most)
	}
	if mean := time.Minute / ((downFloor + downCeiling) / 2); mean < 131 || mean > 135 {
		t.Errorf("%d probes a minute on average, the text says 133", mean)
	}
	// Signing in Vault has to be back within 2 s: a probe in flight, the wait after
	// it, and up to 375 ms until the keys look again.
	if probeTimeout+downCeiling+375*time.Millisecond > 2*time.Second {
		t.Errorf("back after up to %s", probeTimeout+downCeiling)
	}
	const tries = 2000
	var sum time.Duration
	distinct := make(map[time.Duration]bool)
	for i := range tries {
		n := 1 + i%70
		d := spread(n, downFloor, downCeiling)
		if d < downFloor || d > downCeiling || (n == 1 && d > 2*downFloor) {
			t.Fatalf("after %d failures: %s", n, d)
		}
		sum += d
		distinct[d] = true
	}
	if len(distinct) < tries/2 {
		t.Errorf("%d different waits of %d: no jitter", len(distinct), tries)
	}
	if mean := sum / tries; mean < 400*time.Millisecond || mean > 500*time.Millisecond {
		t.Errorf("%s on average", mean)
	}
	for n := range 100 {
		if d := spread(n+1, refusedFloor, refusedCeiling); d < refusedFloor || d > refusedCeiling {
			t.Fatalf("after %d refusals: %s", n+1, d)
		}
	}
}

func TestRenewalIsAtTwoThirds(t *testing.T) {
	for range 1000 {
		if d := renewAfter(time.Hour); d < 36*time.Minute || d > 42*time.Minute {
			t.Fatalf("after %s of an hour", d)
		}
	}
	s := newSession()
	now := time.Unix(1e9, 0)
	s.accept(auth{Token: "t", TTL: 0}, true, now)
	if !s.renewAt.IsZero() || !s.expires.IsZero() {
		t.Error("a token that never ends is renewed")
	}
	s.accept(auth{Token: "t", TTL: 1}, true, now)
	if d := s.renewAt.Sub(now); d < minRenewal {
		t.Errorf("renewed after %s: a hot loop", d)
	}
}

// The loop of Run has something to wait for in every state.
func TestRestIsNeverNothing(t *testing.T) {
	now := time.Unix(1e9, 0)
	for name, s := range map[string]*session{
		"fresh":               {},
		"refused":             {tryFrom: now.Add(time.Second)},
		"expired":             {secret: credential.NewSecret([]byte("t")), expires: now.Add(-time.Hour), renewAt: now.Add(-time.Hour)},
		"due long ago":        {tryFrom: now.Add(-time.Hour), probed: now.Add(-time.Hour)},
		"all well":            {secret: credential.NewSecret([]byte("t")), probed: now, renewAt: now.Add(time.Hour)},
		"a clock turned back": {secret: credential.NewSecret([]byte("t")), probed: now.Add(time.Hour), renewAt: now.Add(2 * time.Hour)},
	} {
		if d := s.untilDue(now); d < minRest {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	body := &boundedBody{io.NopCloser(strings.NewReader("12345678")), 8}
	if got, err := io.ReadAll(body); err != nil || string(got) != "12345678" {
		t.Errorf("exactly as much as is allowed: %q, %v", got, err)
	}
	body = &boundedBody{io.NopCloser(strings.NewReader("123456789")), 8}
	if _, err := io.ReadAll(body); !errors.Is(err, errTooLong) {
		t.Errorf("one more: %v", err)
	}
}

func TestMetricsNameOperationsOnly(t *testing.T) {
	registry := prometheus.NewRegistry()
	c, err := New(Config{Address: "https://vault.invalid", Login: Token{credential.NewSecret([]byte("t"))}, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"acme", "globex"} {
		_, _ = c.KV("kv").Get(t.Context(), "tenants/"+tenant) // not logged in: counted all the same
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range families {
		text += strings.Join(strings.Fields(f.String()), " ")
	}
	if strings.Contains(text, "acme") || strings.Contains(text, "globex") {
		t.Error("a path got into the metrics")
	}
	if !strings.Contains(text, `label:{name:"operation" value:"kv_read"} label:{name:"outcome" value:"logged_out"} counter:{value:2`) {
		t.Errorf("two calls are not counted: %s", text)
	}
	if _, err := New(Config{Address: "https://vault.invalid", Login: Token{credential.NewSecret([]byte("t"))}, Registerer: registry}); err == nil {
		t.Error("two clients share one set of metrics")
	}
}

func TestOutcomesTellApart(t *testing.T) {
	for status, c := range map[int]struct {
		said, outcome string
	}{
		400: {"x", "refused"}, 403: {"x", "forbidden"}, 404: {"x", "not_found"}, 429: {"x", "rate_limited"}, 500: {"x", "uncertain"},
		503: {"Vault is sealed", "sealed"}, 307: {"x", "standby"}, 412: {"x", "unavailable"},
	} {
		e := &Error{Status: status, Messages: []string{c.said}}
		e.classify(true)
		if got := outcome(e); got != c.outcome {
			t.Errorf("%d: %s", status, got)
		}
	}
	if outcome(nil) != "ok" {
		t.Error("success")
	}
}

func FuzzAnswerError(f *testing.F) {
	f.Add([]byte(`{"errors":["permission denied"]}`), 403, "7", "hunter2-hunter2")
	f.Add([]byte(`{"data":{"error":"x"}}`), 400, "-1", "")
	f.Add([]byte("<html>"), 502, "NaN", "html")
	f.Add([]byte(`{"errors":["aHVudGVyMi1odW50ZXIy"]}`), 400, "1e99", "hunter2-hunter2")
	f.Fuzz(func(t *testing.T, body []byte, status int, after, sent string) {
		one := &call{method: http.MethodPut, path: "kv/data/x", body: map[string]any{"password": sent}, effect: true}
		e := answerError(one, status, http.Header{"Retry-After": {after}}, body)
		text := e.Error()
		if len(text) > 4*(maxMessageLength+10)+maxShownPath+200 {
			t.Errorf("%d bytes", len(text))
		}
		if strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("control characters in %q", text)
		}
		for _, m := range e.Messages {
			// What was sent can't be told from Vault's own words by chance only
			// where it is a part of what we say ourselves.
			if len(sent) >= echoWindow && strings.Contains(m, sent) && !strings.Contains(withheld+"not an answer of Vault: bytes and more", sent) {
				t.Errorf("%q shows %q", m, sent)
			}
		}
		if e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Errorf("retry after %s", e.RetryAfter)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"data":{"a":1},"lease_id":"x","lease_duration":5}`))
	f.Add([]byte(`{"data":[],"auth":{"lease_duration":-1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var out reply
		if json.Unmarshal(raw, &out) != nil {
			return
		}
		s, err := out.secret(&call{method: http.MethodGet, path: "x"})
		if (err == nil) != (s != nil) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte(`1700000000`))
	f.Add([]byte(`{"public_key":"AAAA","creation_time":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"public_key":"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if v, err := parseVersion(raw); err != nil && v.Public != nil {
			t.Error("a key and an error")
		}
	})
}

func FuzzCiphertextVersion(f *testing.F) {
	f.Add("vault:v1:AAAA")
	f.Add("vault:v01:AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := CiphertextVersion(s); err == nil && (n < 1 || !strings.HasPrefix(s, "vault:v")) {
			t.Errorf("%q is version %d", s, n)
		}
	})
}

func FuzzParseWord(f *testing.F) {
	f.Add([]byte("hvs.token\n"))
	f.Add([]byte("a b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if word, err := parseWord(data); err == nil && (word == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' })) {
			t.Errorf("%q", word)
		}
	})
}

func FuzzCheckPath(f *testing.F) {
	f.Add("kv/data/x")
	f.Add("kv/../sys")
	f.Fuzz(func(t *testing.T, path string) {
		if checkPath(path) != nil {
			return
		}
		for segment := range strings.SplitSeq(path, "/") {
			if slices.Contains([]string{".", ".."}, segment) {
				t.Errorf("%q climbs", path)
			}
		}
		if strings.ContainsAny(path, "?#%\\ ") {
			t.Errorf("%q is another path", path)
		}
	})
}

// What counts is the body: listeners, load balancers and the parameters standbyok
// and sealedcode give health another status.
func TestHealthIsReadFromTheBodyWhateverTheStatus(t *testing.T) {
	const (
		active      = `{"initialized":true,"sealed":false,"standby":false,"performance_standby":false,"version":"1.21.0"}`
		standby     = `{"initialized":true,"sealed":false,"standby":true,"performance_standby":false,"version":"1.21.0"}`
		performance = `{"initialized":true,"sealed":false,"standby":true,"performance_standby":true,"version":"1.21.0"}`
		sealed      = `{"initialized":true,"sealed":true,"standby":true,"performance_standby":false,"version":"1.21.0"}`
		fresh       = `{"initialized":false,"sealed":true,"standby":true,"performance_standby":false,"version":"1.21.0"}`
	)
	for name, c := range map[string]struct {
		status int
		body   string
		kind   error // nil: it serves
		others []error
	}{
		"active":                           {200, active, nil, nil},
		"active, as a standby's status":    {429, active, nil, nil},
		"active, as a sealed one's status": {503, active, nil, nil},
		"standby":                          {429, standby, ErrStandby, []error{ErrSealed, ErrRateLimited}},
		"standby, as an active one":        {200, standby, ErrStandby, []error{ErrSealed}},
		"standby, in a status of its own":  {299, standby, ErrStandby, []error{ErrSealed}},
		"performance standby":              {473, performance, nil, nil},
		"performance standby, as active":   {200, performance, nil, nil},
		"sealed":                           {503, sealed, ErrSealed, []error{ErrStandby}},
		"sealed, as an active one":         {200, sealed, ErrSealed, []error{ErrStandby}},
		"sealed, as a standby":             {429, sealed, ErrSealed, []error{ErrStandby, ErrRateLimited}},
		"not initialised":                  {501, fresh, ErrUnavailable, []error{ErrSealed, ErrStandby}},
		"not initialised, as active":       {200, fresh, ErrUnavailable, []error{ErrSealed, ErrStandby}},
		"a page of a proxy":                {200, "<html>", ErrAnswer, []error{ErrSealed, ErrStandby}},
		"one that doesn't say":             {200, `{"initialized":true,"sealed":false}`, ErrAnswer, []error{ErrSealed, ErrStandby}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/sys/health" || r.Header.Get("X-Vault-Token") != "" {
				t.Errorf("%s: %s with token %q", name, r.URL.Path, r.Header.Get("X-Vault-Token"))
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		client, err := New(Config{Address: server.URL, Login: Token{credential.NewSecret([]byte("t"))}})
		if err != nil {
			t.Fatal(err)
		}
		err = (&keeper{core: client.core}).probe(t.Context())
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: %v, not %v", name, err, c.kind)
		}
		for _, other := range c.others {
			if errors.Is(err, other) {
				t.Errorf("%s: %v is %v too", name, err, other)
			}
		}
		if s := client.Status(); s.Sealed != errors.Is(c.kind, ErrSealed) || s.Standby != errors.Is(c.kind, ErrStandby) || s.UnreachableSince.IsZero() != (c.kind == nil) {
			t.Errorf("%s: %+v", name, s)
		}
		server.Close()
	}
}

// Vault grants less and less towards the token's maximum; what is left of the
// old one is the time to get a new one in.
func TestATokenNearItsMaximumIsReplaced(t *testing.T) {
	var grants atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "lookup-self") {
			_, _ = io.WriteString(w, `{"data":{"ttl":100,"renewable":true}}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"auth":{"client_token":"t","lease_duration":%d,"renewable":true}}`, grants.Load())
	}))
	defer server.Close()
	c, err := New(Config{Address: server.URL, Login: Token{credential.NewSecret([]byte("t"))}})
	if err == nil {
		err = c.Login(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, granted := range []int64{100, 60, 50, 49, 1, 0} {
		grants.Store(granted)
		will, err := c.core.renew(t.Context())
		if err != nil || will != (granted >= 50) {
			t.Errorf("granted %d s of 100: will do %v, %v", granted, will, err)
		}
	}
}

func TestATokenThatIsNotAllowedSomethingIsReplacedOnceItIsOld(t *testing.T) {
	now := time.Unix(1e9, 0)
	k := &core{session: newSession(), now: func() time.Time { return now }}
	k.session.running = true
	k.session.accept(auth{Token: "t", TTL: 3600}, true, now)
	now = now.Add(policyPatience - time.Second)
	if k.denied(); k.session.wanted {
		t.Error("a fresh token is replaced: a policy that lacks something would be a storm of logins")
	}
	now = now.Add(time.Second)
	if k.denied(); !k.session.wanted {
		t.Error("an old token is kept: its policies are of the time of its login")
	}
}

// Of many that find a token dead, those that come late must not throw away the
// one that the first has fetched.
func TestWhoIsLateFindsTheNewToken(t *testing.T) {
	now := time.Unix(1e9, 0)
	k := &core{session: newSession(), now: func() time.Time { return now }}
	k.session.running = true
	k.session.accept(auth{Token: "dead"}, true, now)
	_, old, _ := k.session.token()
	k.session.accept(auth{Token: "new"}, true, now)
	if !k.replace(t.Context(), old) {
		t.Error("there is a new token")
	}
	if token, _, err := k.session.token(); err != nil || token != "new" {
		t.Errorf("the new token is gone: %v", err)
	}
}
