package jwks_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// The fault table: whatever the origin does, keys that are held serve on, a
// caller that needs a new one gets ErrUnavailable, and the next good answer heals.
func TestRemoteHoldsOnThroughFaults(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		doc, _ := jwks.NewSet(ed25519Key(t, "evil")).MarshalJSON()
		_, _ = w.Write(doc)
	}))
	t.Cleanup(elsewhere.Close)
	good, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write(good) }
	}
	for name, h := range map[string]http.HandlerFunc{
		"status 500":           status(500),
		"status 404":           status(404),
		"status 204":           status(204),
		"status 206":           status(206),
		"empty body":           text(""),
		"html":                 text("<html>sign in</html>"),
		"null":                 text("null"),
		"an array":             text("[]"),
		"no keys member":       text("{}"),
		"keys null":            text(`{"keys":null}`),
		"emptied":              text(`{"keys":[]}`),
		"nothing usable":       text(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"new"}]}`),
		"duplicate keys":       text(`{"keys":[],"keys":` + string(good[8:])),
		"half of it":           text(string(good[:len(good)/2])),
		"something behind":     text(string(good) + "x"),
		"too long":             text(string(good) + strings.Repeat(" ", 256<<10)),
		"endless":              endless,
		"truncated":            truncated(good),
		"connection dropped":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hangs":                func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"body hangs":           bodyHangs,
		"slow":                 slow,
		"redirect elsewhere":   http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
		"redirect by name":     func(w http.ResponseWriter, r *http.Request) { redirectTo(w, "http://localhost"+port(r)) },
		"redirect to a scheme": func(w http.ResponseWriter, r *http.Request) { redirectTo(w, "https://"+r.Host) },
		"redirect in a circle": func(w http.ResponseWriter, r *http.Request) { redirectTo(w, r.URL.Path) },
		"gzip bomb":            gzipBomb,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, c := newOrigin(t), newClock()
			short := func(cfg *jwks.RemoteConfig) {
				cfg.MinRefetch = time.Millisecond
				if name == "hangs" || name == "body hangs" || name == "slow" {
					cfg.Timeout = 2 * time.Second // which each of them takes
				}
			}
			o.answer(h)
			cold := newRemote(t, o, c, short)
			wantError(t, cold, "a", jwks.ErrUnavailable)

			o.serve(t, "", "a")
			r := newRemote(t, o, c, short)
			wantKey(t, r, "a")
			o.answer(h)
			c.add(10 * time.Minute)
			if err := r.Load(t.Context()); !errors.Is(err, jwks.ErrUnavailable) {
				t.Errorf("Load: %v", err)
			}
			wantKey(t, r, "a")
			c.add(time.Second)
			wantError(t, r, "b", jwks.ErrUnavailable)
			wantError(t, r, "evil", jwks.ErrUnavailable)
			wantKey(t, r, "a")

			o.serve(t, "", "a", "b")
			c.add(time.Second)
			wantKey(t, r, "b")
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(strings.Repeat(" ", 64<<10))); err != nil {
			return
		}
	}
}

func truncated(good []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(good)+10))
		_, _ = w.Write(good)
	}
}

func bodyHangs(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write([]byte(`{"keys":`))
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func slow(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte(" "))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func redirectTo(w http.ResponseWriter, url string) {
	w.Header().Set("Location", url)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func port(r *http.Request) string { return r.Host[strings.LastIndexByte(r.Host, ':'):] }

func TestRemoteFollowsARedirectOnItsOwnHost(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	o.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks.json" {
			redirectTo(w, "/v2/keys")
			return
		}
		_, _ = w.Write(doc)
	})
	wantKey(t, newRemote(t, o, c), "a")
}

// follower is a Doer that is no *http.Client and follows redirects anywhere.
type follower struct{ client http.Client }

func (f *follower) Do(r *http.Request) (*http.Response, error) { return f.client.Do(r) }

func TestRemoteRefusesWhatAnotherDoerBringsFromElsewhere(t *testing.T) {
	elsewhere := newOrigin(t)
	elsewhere.serve(t, "", "a")
	o, c := newOrigin(t), newClock()
	o.answer(http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP)
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Client = new(follower) })
	wantError(t, r, "a", jwks.ErrUnavailable)
	elsewhere.want(t, 1) // it was really followed
}

func TestRemoteDoesNotEvenContactAnotherHost(t *testing.T) {
	elsewhere := newOrigin(t)
	elsewhere.serve(t, "", "a")
	o, c := newOrigin(t), newClock()
	o.answer(http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP)
	client := o.Client()
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Client = client })
	wantError(t, r, "a", jwks.ErrUnavailable)
	elsewhere.want(t, 0)
	if client.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

// flood is a Doer whose answer never ends; it counts what was read of it.
type flood struct{ read int }

func (f *flood) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(f)}, nil
}

func (f *flood) Read(p []byte) (int, error) {
	if f.read += len(p); f.read > 1<<20 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestRemoteReadsNoMoreThanItsBound(t *testing.T) {
	o, c, f := newOrigin(t), newClock(), new(flood)
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Client, cfg.MaxBytes = f, 10_000 })
	wantError(t, r, "a", jwks.ErrUnavailable)
	if f.read > 10_001 {
		t.Errorf("%d bytes read", f.read)
	}
}

func TestRemoteServesNoLongerThanMaxStale(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.MaxStale = time.Hour })
	wantKey(t, r, "a")
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c.add(time.Hour - time.Second)
	wantKey(t, r, "a")
	c.add(time.Second)
	wantError(t, r, "a", jwks.ErrUnavailable)
	o.serve(t, "", "a")
	c.add(time.Minute)
	wantKey(t, r, "a")
}

func TestRemoteTriesAFailingOriginNotBelowTheFloor(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	r := newRemote(t, o, c)
	for range 100 {
		wantError(t, r, "a", jwks.ErrUnavailable)
	}
	o.want(t, 1)
	c.add(10 * time.Second)
	wantError(t, r, "a", jwks.ErrUnavailable)
	o.want(t, 2)
}
