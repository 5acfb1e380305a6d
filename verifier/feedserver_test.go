package verifier_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/verifier"
)

// feedServer is a broker whose answers a test writes, for the faults that a real
// one doesn't produce on demand.
type feedServer struct {
	*httptest.Server
	mu    sync.Mutex
	now   time.Time
	asked []*http.Request
	next  func(http.ResponseWriter, *http.Request)

	tokens, refused, open atomic.Int64
}

func newFeedServer(t *testing.T) *feedServer {
	f := &feedServer{now: time.Unix(vectorTime, 0)}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r)
		next := f.next
		f.mu.Unlock()
		next(w, r)
	}))
	ofTest := f.Config.ConnState
	f.Config.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			f.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			f.open.Add(-1)
		}
		if ofTest != nil {
			ofTest(c, state)
		}
	}
	f.Start()
	t.Cleanup(f.Close)
	f.says(`"complete":true`)
	return f
}

func (f *feedServer) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *feedServer) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *feedServer) does(next func(http.ResponseWriter, *http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = next
}

// answer is a whole answer with these members.
func (f *feedServer) answer(t interface{ Fatal(...any) }, members string) string {
	all := map[string]any{
		"iss": f.URL, "seq": 1, "complete": false, "tokens": []string{}, "chains": []string{}, "keys": []string{},
		"accounts": map[string]int{}, "tenants": map[string]int{}, "max_stale": 300,
	}
	if err := json.Unmarshal([]byte("{"+members+"}"), &all); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type fatal struct{}

func (fatal) Fatal(v ...any) { panic(v) }

// says has it give this answer, to whatever it is asked.
func (f *feedServer) says(members string) {
	body := f.answer(fatal{}, members)
	f.does(func(w http.ResponseWriter, _ *http.Request) { writeFeed(w, body) })
}

func writeFeed(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(body))
}

func (f *feedServer) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.asked...)
}

// Token and Refused make it a source of tokens.
func (f *feedServer) Token(context.Context) (string, error) {
	f.tokens.Add(1)
	return "secret-token", nil
}

func (f *feedServer) Refused() { f.refused.Add(1) }

func (f *feedServer) config() verifier.FollowerConfig {
	return verifier.FollowerConfig{Issuer: f.URL, Token: f, Now: f.clock}
}

func (f *feedServer) follower(t *testing.T, change ...func(*verifier.FollowerConfig)) *verifier.Follower {
	t.Helper()
	cfg := f.config()
	for _, c := range change {
		c(&cfg)
	}
	follower, err := verifier.NewFollower(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return follower
}

// run runs the follower until stop.
func run(t *testing.T, f *verifier.Follower) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// expect waits for a request that pred takes, of those after the first skip.
func (f *feedServer) expect(t *testing.T, pred func(*http.Request) bool) *http.Request {
	t.Helper()
	for {
		for _, r := range f.requests() {
			if pred(r) {
				return r
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it never came")
		case <-time.After(time.Millisecond): // looked at again; nothing rests on the time
		}
	}
}
