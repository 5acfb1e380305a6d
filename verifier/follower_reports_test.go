package verifier_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestARefusedTokenIsReported(t *testing.T) {
	server := newFeedServer(t)
	var seen []verifier.Observation
	observed := make(chan verifier.Observation, 100)
	follower := server.follower(t, func(c *verifier.FollowerConfig) {
		c.Observe = func(o verifier.Observation) {
			select {
			case observed <- o:
			default:
			}
		}
	})
	server.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	stop := run(t, follower)
	seen = append(seen, <-observed)
	if seen[0].Err == nil || server.refused.Load() == 0 || follower.Err() == nil {
		t.Errorf("%+v", seen[0])
	}
	server.says(`"seq":2,"tokens":["x"]`)
	for o := range observed {
		if o.Err == nil && o.News == 1 {
			if o.Entries != 1 || o.Seq != 2 {
				t.Errorf("%+v", o)
			}
			break
		}
	}
	stop()
	if follower.Err() != nil {
		t.Errorf("%v", follower.Err())
	}
}

func TestTokensThatCantBeHad(t *testing.T) {
	server := newFeedServer(t)
	cfg := server.config()
	cfg.Token = verifier.TokenFunc(func(context.Context) (string, error) { return "", errors.New("none today") })
	if _, err := verifier.NewFollower(t.Context(), cfg); !errors.Is(err, verifier.ErrUnavailable) || !strings.Contains(err.Error(), "none today") {
		t.Errorf("%v", err)
	}
	cfg.Token = verifier.TokenFunc(server.Token)
	server.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	if _, err := verifier.NewFollower(t.Context(), cfg); !errors.Is(err, verifier.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// held are keys that a test changes.
type held struct {
	mu   sync.Mutex
	set  jwks.Set
	next jwks.Set
	due  time.Time
}

func (h *held) Key(ctx context.Context, kid string) (jwks.Key, error) {
	set, _ := h.Held()
	return set.Key(ctx, kid)
}

func (h *held) Held() (jwks.Set, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.set, h.due
}

func (h *held) Load(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set, h.due = h.next, h.due.Add(time.Hour)
	return nil
}

// The keys that all verifiers hold are reported, and fetched anew when they are
// due although nothing is verified; a poll under way ends early to say so.
func TestHeldKeysAreReported(t *testing.T) {
	f := newFixture(t)
	server := newFeedServer(t)
	follower := server.follower(t)
	keys := f.set.Keys()
	one := &held{set: jwks.NewSet(keys[0]), next: f.set, due: server.clock().Add(time.Hour)}
	two := &held{set: f.set, next: f.set, due: server.clock().Add(24 * time.Hour)}
	for _, source := range []jwks.Source{one, two, f.set} {
		if _, err := verifier.New(t.Context(), verifier.Config{
			Issuer: server.URL, Audience: vectorAudience, Keys: source, Now: server.clock, Revocations: follower,
		}); err != nil {
			t.Fatal(err)
		}
	}
	server.does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	stop := run(t, follower)
	defer stop()
	server.expect(t, func(r *http.Request) bool { return r.URL.Query().Get("keys") == keys[0].ID() })
	server.advance(time.Hour)
	server.expect(t, func(r *http.Request) bool { return r.URL.Query().Get("keys") == keys[0].ID()+","+keys[1].ID() })
}
