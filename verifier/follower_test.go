package verifier_test

import (
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestAFollowerIsConfiguredWhole(t *testing.T) {
	f := newFeedServer(t)
	for name, change := range map[string]func(*verifier.FollowerConfig){
		"no issuer":        func(c *verifier.FollowerConfig) { c.Issuer = "" },
		"plain http":       func(c *verifier.FollowerConfig) { c.Issuer = "http://broker.example" },
		"no tokens":        func(c *verifier.FollowerConfig) { c.Token = nil },
		"a negative stale": func(c *verifier.FollowerConfig) { c.MaxStale = -1 },
		"few entries":      func(c *verifier.FollowerConfig) { c.MaxEntries = 999 },
		"negative entries": func(c *verifier.FollowerConfig) { c.MaxEntries = -1 },
	} {
		cfg := f.config()
		change(&cfg)
		if _, err := verifier.NewFollower(t.Context(), cfg); err == nil || errors.Is(err, verifier.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.requests()) != 0 {
		t.Error("it asks all the same")
	}
}

func TestTheFirstAnswerHasToBeOne(t *testing.T) {
	elsewhere := newFeedServer(t)
	for name, c := range map[string]struct {
		do func(f *feedServer) func(http.ResponseWriter, *http.Request)
	}{
		"401": {func(*feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }
		}},
		"429": {func(*feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }
		}},
		"500": {func(*feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		}},
		"a redirect": {func(*feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }
		}},
		"not JSON": {func(f *feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(f.answer(t, `"complete":true`))) }
		}},
		"another issuer": {func(f *feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) {
				writeFeed(w, f.answer(t, `"complete":true,"iss":"https://other.example"`))
			}
		}},
		"not complete": {func(f *feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) { writeFeed(w, f.answer(t, `"complete":false`)) }
		}},
		"too long": {func(f *feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) {
				writeFeed(w, f.answer(t, `"complete":true`)+strings.Repeat(" ", 1<<20))
			}
		}},
		"cut off": {func(*feedServer) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "99")
				writeFeed(w, "{")
			}
		}},
	} {
		f := newFeedServer(t)
		f.does(c.do(f))
		if _, err := verifier.NewFollower(t.Context(), f.config()); !errors.Is(err, verifier.ErrUnavailable) || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(elsewhere.requests()) != 0 {
		t.Error("the token went elsewhere")
	}
}

// A verifier refuses what is revoked, cached or not, and begins to in the
// middle of a token's life.
func TestAVerifierFollows(t *testing.T) {
	f := newFixture(t)
	for _, members := range map[string]string{
		"token":   `"tokens":["AAECAwQFBgcICQoLDA0ODw"]`,
		"chain":   `"chains":["EBESExQVFhcYGRobHB0eHw"]`,
		"account": `"accounts":{"invoice-worker":` + strconv.FormatInt(vectorTime, 10) + `}`,
		"tenant":  `"tenants":{"acme":` + strconv.FormatInt(vectorTime, 10) + `}`,
		"key":     `"keys":["ed-1"]`,
		"all":     `"all":` + strconv.FormatInt(vectorTime, 10),
	} {
		for _, size := range []int{-1, 0} {
			server := newFeedServer(t)
			follower := server.follower(t)
			v, err := verifier.New(t.Context(), verifier.Config{
				Issuer: server.URL, Audience: vectorAudience, Keys: f.set, Now: server.clock, CacheSize: size, Revocations: follower,
			})
			if err != nil {
				t.Fatal(err)
			}
			raw := f.payload(claims().with("iss", `"`+server.URL+`"`).json())
			f.want(v, raw, nil)
			f.want(v, raw, nil)
			told := make(chan struct{})
			var once sync.Once
			server.does(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("after") == "2" {
					once.Do(func() { close(told) }) // it has taken in the answer before
					<-r.Context().Done()
					return
				}
				writeFeed(w, server.answer(fatal{}, `"seq":2,`+members))
			})
			stop := run(t, follower)
			<-told
			f.want(v, raw, verifier.ErrRevoked)
			stop()
		}
	}
}

func TestCutOffForTooLongNothingIsAccepted(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		change func(*verifier.FollowerConfig)
		serves time.Duration
	}{
		"the broker's":      {func(*verifier.FollowerConfig) {}, 300 * time.Second},
		"shorter":           {func(c *verifier.FollowerConfig) { c.MaxStale = 20 * time.Second }, 20 * time.Second},
		"longer counts not": {func(c *verifier.FollowerConfig) { c.MaxStale = time.Hour }, 300 * time.Second},
		"ignored":           {func(c *verifier.FollowerConfig) { c.InsecureIgnoreStaleness = true }, 0},
	} {
		server := newFeedServer(t)
		follower := server.follower(t, c.change)
		v, err := verifier.New(t.Context(), verifier.Config{
			Issuer: server.URL, Audience: vectorAudience, Keys: f.set, Now: func() time.Time { return time.Unix(vectorTime, 0) }, Revocations: follower,
		})
		if err != nil {
			t.Fatal(err)
		}
		raw := f.payload(claims().with("iss", `"`+server.URL+`"`).json())
		f.want(v, raw, nil)
		if c.serves == 0 {
			server.advance(24 * time.Hour)
			f.want(v, raw, nil)
			continue
		}
		server.advance(c.serves - time.Second)
		f.want(v, raw, nil)
		if got := follower.Staleness(); got != c.serves-time.Second {
			t.Errorf("%s: stale for %v", name, got)
		}
		server.advance(time.Second)
		f.want(v, raw, verifier.ErrUnavailable)
		server.advance(-c.serves - time.Second) // the clock was set back: its age is not known
		f.want(v, raw, verifier.ErrUnavailable)
	}
	if new(verifier.Follower).Staleness() != math.MaxInt64 {
		t.Error("one that never asked is fresh")
	}
}

func TestAFollowerAsksForWhatIsNew(t *testing.T) {
	server := newFeedServer(t)
	server.says(`"complete":true,"seq":41`)
	follower := server.follower(t)
	first := server.requests()[0]
	if q := first.URL.Query(); q.Has("after") || len(q.Get("verifier")) < 16 || first.Header.Get("Prefer") != "" ||
		first.Header.Get("Authorization") != "Bearer secret-token" || first.URL.Path != "/v1/revocations" {
		t.Errorf("%s %v", first.URL, first.Header)
	}
	stop := run(t, follower)
	defer stop()
	next := server.expect(t, func(r *http.Request) bool { return r.URL.Query().Get("after") == "41" })
	if next.Header.Get("Prefer") != "wait=25" || next.URL.Query().Get("verifier") != first.URL.Query().Get("verifier") {
		t.Errorf("%s %v", next.URL, next.Header)
	}
	if err := follower.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
}

// A broker that answers completely though it was asked for what is new has
// another store than before: that is said.
func TestAFollowerSaysThatTheStoreIsAnother(t *testing.T) {
	server := newFeedServer(t)
	server.says(`"complete":true,"seq":41`)
	var log testlog.Buffer
	follower := server.follower(t, func(c *verifier.FollowerConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if said := log.String(); said != "" {
		t.Errorf("at first: %s", said)
	}
	server.says(`"complete":true,"seq":5`)
	stop := run(t, follower)
	defer stop()
	server.expect(t, func(r *http.Request) bool { return r.URL.Query().Get("after") == "5" })
	if !strings.Contains(log.String(), "another one") {
		t.Errorf("it says %q", log.String())
	}
}

// After a long absence it asks for everything, not for what came after.
func TestAFollowerThatWasAwayBeginsAnew(t *testing.T) {
	server := newFeedServer(t)
	server.says(`"complete":true,"seq":41`)
	follower := server.follower(t)
	server.advance(300 * time.Second)
	before := len(server.requests())
	stop := run(t, follower)
	defer stop()
	server.expect(t, func(*http.Request) bool { return len(server.requests()) > before })
	if q := server.requests()[before].URL.Query(); q.Has("after") {
		t.Errorf("it asks for what is new: %v", q)
	}
}

func TestAnswersInPiecesAreAskedForAtOnce(t *testing.T) {
	server := newFeedServer(t)
	server.does(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("after") {
		case "":
			writeFeed(w, server.answer(fatal{}, `"complete":true,"more":true,"seq":1,"tokens":["a"]`))
		case "1":
			writeFeed(w, server.answer(fatal{}, `"more":true,"seq":2,"tokens":["b"]`))
		default:
			writeFeed(w, server.answer(fatal{}, `"seq":3,"tokens":["c"]`))
		}
	})
	if n := server.follower(t).Entries(); n != 3 || len(server.requests()) != 3 {
		t.Errorf("%d entries after %d requests", n, len(server.requests()))
	}
}

func TestAFollowerWithoutRoomGoesOnWithoutWaiting(t *testing.T) {
	server := newFeedServer(t)
	follower := server.follower(t)
	body := server.answer(t, `"seq":5,"tokens":["x"]`)
	server.does(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prefer") != "" {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		writeFeed(w, body)
	})
	stop := run(t, follower)
	defer stop()
	server.expect(t, func(r *http.Request) bool { return r.URL.Query().Get("after") == "5" })
	if follower.Entries() != 1 {
		t.Errorf("%d entries", follower.Entries())
	}
}

// A follower that has ended holds on to nothing, also not for the minute and a
// half after which idle connections would be closed anyhow.
func TestNoConnectionOutlivesAFollower(t *testing.T) {
	server := newFeedServer(t)
	observed := make(chan struct{}, 100)
	follower := server.follower(t, func(c *verifier.FollowerConfig) { c.Observe = func(verifier.Observation) { observed <- struct{}{} } })
	stop := run(t, follower)
	<-observed // its answers come at once, so now it pauses
	if server.open.Load() != 1 {
		t.Errorf("%d connections", server.open.Load())
	}
	stop()
	for begun := time.Now(); server.open.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%d connections", server.open.Load())
		}
	}
}

func TestAFollowerOfAnotherBrokerIsRefused(t *testing.T) {
	f := newFixture(t)
	if _, err := verifier.New(t.Context(), verifier.Config{
		Issuer: vectorIssuer, Audience: vectorAudience, Keys: f.set, Revocations: newFeedServer(t).follower(t),
	}); err == nil {
		t.Error("accepted")
	}
}
