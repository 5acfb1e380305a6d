package languages_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// issuer is where keys are fetched, counted, with keys that a test changes.
type issuer struct {
	*httptest.Server
	t       *testing.T
	fetches atomic.Int64

	alg    credential.Algorithm
	mu     sync.Mutex
	keys   map[string]crypto.Signer
	hidden map[string]bool  // keys that are not published
	answer http.HandlerFunc // in place of the keys
}

func newIssuer(t *testing.T, alg credential.Algorithm) *issuer {
	t.Helper()
	i := &issuer{t: t, alg: alg, keys: make(map[string]crypto.Signer), hidden: make(map[string]bool)}
	i.addKey("first")
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		switch {
		case r.URL.Path != "/.well-known/jwks.json":
			http.NotFound(w, r)
		case i.answer != nil:
			i.answer(w, r)
		default:
			var set []json.RawMessage
			for kid := range i.keys {
				if !i.hidden[kid] {
					set = append(set, json.RawMessage(i.public(kid).JWK()))
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": set})
		}
	}))
	t.Cleanup(i.Close)
	return i
}

// public is for who holds the lock.
func (i *issuer) public(kid string) jwks.Key {
	public, err := jwks.NewKey(kid, i.alg, i.keys[kid].Public())
	if err != nil {
		i.t.Error(err)
	}
	return public
}

func (i *issuer) addKey(kid string) {
	i.t.Helper()
	key := i.newKey()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[kid] = key
}

func (i *issuer) removeKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hidden[kid] = true
}

func (i *issuer) newKey() crypto.Signer {
	i.t.Helper()
	if i.alg == credential.RS256 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(i.t, err)
		return key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(i.t, err)
	return key
}

func (i *issuer) answers(with http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = with
}

// claims are those of a good token for tenant-0, changed: nil leaves one out.
func (i *issuer) claims(change map[string]any) map[string]any {
	now := time.Now().Truncate(time.Second)
	all := map[string]any{
		"iss": i.URL, "aud": audience, "tenant": "tenant-0", "sub": "worker", "client_id": "worker", "scope": scopes,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": credential.NewID(), "txn": credential.NewID(),
	}
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// signed is a token with changed claims, by the key of this name or, where there is
// none, by somebody else's under that name. A header is added to the others.
func (i *issuer) signed(kid string, change, header map[string]any) string {
	i.t.Helper()
	payload, err := json.Marshal(i.claims(change))
	must(i.t, err)
	return i.signedBytes(kid, payload, header)
}

func (i *issuer) signedBytes(kid string, payload []byte, header map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	key := i.keys[kid]
	i.mu.Unlock()
	if key == nil {
		key = i.newKey()
	}
	opts := (&jose.SignerOptions{}).WithType("at+jwt")
	for name, value := range header {
		opts.WithHeader(jose.HeaderKey(name), value)
	}
	algorithm := jose.SignatureAlgorithm(i.alg)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	must(i.t, err)
	jws, err := signer.Sign(payload)
	must(i.t, err)
	raw, err := jws.CompactSerialize()
	must(i.t, err)
	return raw
}

func (i *issuer) token(claims map[string]any) string { return i.signed("first", claims, nil) }

func (i *issuer) judge(language string, coolDown float64) *judge {
	return newJudge(i.t, language, job{Issuer: i.URL, Audience: audience, CoolDown: coolDown})
}

// Keys are fetched once, and tokens with unknown kids don't make the service ask
// again and again.
func TestKeysAreKeptAndUnknownOnesCoolDown(t *testing.T) {
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := i.judge(language, 30)
		for range 20 {
			if v := j.verify(t, i.token(nil)); v.Tenant != "tenant-0" {
				t.Fatalf("%s: %+v", language, v)
			}
		}
		for n := range 50 {
			if v := j.verify(t, i.signed("unknown-"+string(rune('a'+n%26)), nil, nil)); v.Refused != "unknown_key" {
				t.Fatalf("%s: %+v", language, v)
			}
		}
		if n := i.fetches.Load(); n != 1 {
			t.Errorf("%s: %d fetches", language, n)
		}
	}
}

// A key that is published later is found once the cool-down is over.
func TestANewKeyIsFound(t *testing.T) {
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := i.judge(language, 0.3)
		if v := j.verify(t, i.token(nil)); v.Refused != "" {
			t.Fatalf("%s: %+v", language, v)
		}
		i.addKey("second")
		deadline := time.Now().Add(time.Minute)
		for j.verify(t, i.signed("second", nil, nil)).Refused != "" {
			if time.Now().After(deadline) {
				t.Fatalf("%s: never found", language)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if n := i.fetches.Load(); n != 2 {
			t.Errorf("%s: %d fetches", language, n)
		}
	}
}

// Where a token says that its key is to be had, nobody asks.
func TestAHeaderLeadsNobodyToAKey(t *testing.T) {
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := i.judge(language, 0)
		var asked atomic.Int64
		evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
		for _, kid := range []string{"first", "of-evil"} {
			for _, name := range []string{"jku", "x5u"} {
				if v := j.verify(t, i.signed(kid, nil, map[string]any{name: evil.URL})); v.Refused != "header" {
					t.Errorf("%s, %s: %+v", language, name, v)
				}
			}
		}
		evil.Close()
		if asked.Load() != 0 || i.fetches.Load() != 0 {
			t.Errorf("%s: %d and %d fetches for a header that is refused", language, asked.Load(), i.fetches.Load())
		}
	}
}

// Where keys can't be had, nobody can say: that is not the token's fault.
func TestKeysThatCantBeHad(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"an error":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"no JSON":           func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"another redirects": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"no set":            func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"other":1}`)) },
		"an array":          func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[1]`)) },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			_, _ = w.Write([]byte(`{`))
		},
	}
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := i.judge(language, 0)
		for name, answer := range answers {
			i.answers(answer)
			before := i.fetches.Load()
			if v := j.verify(t, i.token(nil)); v.Refused != "unavailable" {
				t.Errorf("%s, %s: %+v", language, name, v)
			}
			if n := i.fetches.Load() - before; n != 1 {
				t.Errorf("%s, %s: %d fetches", language, name, n)
			}
		}
		i.answers(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[` + strings.Repeat(" ", 256<<10) + string(i.public("first").JWK()) + `]}`))
		})
		if v := j.verify(t, i.token(nil)); v.Refused != "unavailable" {
			t.Errorf("%s, a set without bounds: %+v", language, v)
		}
		i.answers(nil)
		if v := j.verify(t, i.token(nil)); v.Tenant != "tenant-0" {
			t.Errorf("%s, when they can be had again: %+v", language, v)
		}
	}
}

// A broker that is away is asked once, whoever sends what, and that is nobody's
// fault; all who wait get the one answer. What is held serves on.
func TestABrokerThatIsAwayIsAskedOnce(t *testing.T) {
	away := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	for language := range commands {
		for _, holds := range []bool{false, true} {
			i := newIssuer(t, credential.ES256)
			coolDown := 30.0
			if holds {
				coolDown = 1
			}
			j := i.judge(language, coolDown)
			if holds {
				if v := j.verify(t, i.token(nil)); v.Tenant != "tenant-0" {
					t.Fatalf("%s: %+v", language, v)
				}
				time.Sleep(1100 * time.Millisecond) // a pause is over, the next one begins
			}
			i.answers(away)
			before := i.fetches.Load()
			begun := time.Now()
			var garbage []string
			for n := range 20 {
				garbage = append(garbage, i.signed("unknown-"+string(rune('a'+n)), nil, nil))
			}
			for _, v := range j.verifyAtOnce(t, garbage...) {
				if v.Refused != "unavailable" {
					t.Errorf("%s, keys held: %t: %+v", language, holds, v)
				}
			}
			for _, g := range garbage[:5] {
				_ = j.verify(t, g)
			}
			if n := i.fetches.Load() - before; n != 1 && (!holds || time.Since(begun) < time.Second) {
				t.Errorf("%s, keys held: %t: %d fetches", language, holds, n)
			}
			want := verdict{Refused: "unavailable"}
			if holds {
				want = verdict{Tenant: "tenant-0"}
			}
			if v := j.verify(t, i.token(nil)); v != want {
				t.Errorf("%s, keys held: %t: %+v, want %+v", language, holds, v, want)
			}
		}
	}
}

// Who comes while the keys are fetched waits for them, and they are fetched once.
func TestAllWaitForOneFetch(t *testing.T) {
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := i.judge(language, 30)
		token := i.token(nil)
		for _, v := range j.verifyAtOnce(t, token, token, token, token, token, token) {
			if v.Tenant != "tenant-0" {
				t.Errorf("%s: %+v", language, v)
			}
		}
		if n := i.fetches.Load(); n != 1 {
			t.Errorf("%s: %d fetches", language, n)
		}
	}
}

// A broker that answers slowly, or for ever, is given up.
func TestAFetchHasAnEnd(t *testing.T) {
	const timeout = 300 * time.Millisecond
	answers := map[string]http.HandlerFunc{
		"nothing": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(60 * timeout):
			}
		},
		"one byte at a time": func(w http.ResponseWriter, r *http.Request) {
			for begun := time.Now(); r.Context().Err() == nil && time.Since(begun) < 60*timeout; {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(timeout / 10)
			}
		},
	}
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := newJudge(t, language, job{Issuer: i.URL, Audience: audience, Timeout: timeout.Seconds()})
		for name, answer := range answers {
			i.answers(answer)
			begun := time.Now()
			if v := j.verify(t, i.token(nil)); v.Refused != "unavailable" || time.Since(begun) > 50*timeout {
				t.Errorf("%s, %s: %+v after %s", language, name, v, time.Since(begun))
			}
		}
	}
}

// Keys come by https, by http on loopback only, whatever a URL begins with.
func TestAnIssuerInTheClearIsRefused(t *testing.T) {
	for language := range commands {
		folder := example(t, language)
		for _, issuer := range []string{
			"http://broker.example", "http://localhost.example", "http://127.0.0.1:1@broker.example", "http://127.0.0.1.example:80",
			"http://10.0.0.1:80", "ftp://127.0.0.1", "file:///etc",
		} {
			said, err := json.Marshal(job{Issuer: issuer, Audience: audience})
			must(t, err)
			out, err := command(language, folder, "testdata/verdicts", "JOB="+string(said)).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "http on loopback only") {
				t.Errorf("%s, %s: %v\n%s", language, issuer, err, out)
			}
		}
	}
}

// Through an outage the keys that are held serve, for so long. A key that was
// withdrawn is gone when they are due.
func TestKeysInAnOutageAndWithdrawn(t *testing.T) {
	for language := range commands {
		i := newIssuer(t, credential.ES256)
		j := newJudge(t, language, job{Issuer: i.URL, Audience: audience, Fresh: 0.3, Stale: 6})
		begun := time.Now()
		until := func(want verdict) {
			t.Helper()
			for v := j.verify(t, i.token(nil)); v != want; v = j.verify(t, i.token(nil)) {
				if time.Since(begun) > 30*time.Second {
					t.Fatalf("%s: still %+v, want %+v", language, v, want)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		good, unavailable := verdict{Tenant: "tenant-0"}, verdict{Refused: "unavailable"}
		until(good)
		begun = time.Now()
		i.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		until(unavailable)
		if took := time.Since(begun); took < 1500*time.Millisecond { // long due
			t.Errorf("%s: unavailable after %s", language, took)
		}
		i.answers(nil)
		until(good)
		i.addKey("second")
		i.removeKey("first")
		until(verdict{Refused: "unknown_key"})
	}
}
