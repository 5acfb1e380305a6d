package verifier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

func TestAnAnswerFollowsTheOneBefore(t *testing.T) {
	for name, c := range map[string]struct {
		begun, complete, more bool
		seq                   uint64
		ok                    bool
	}{
		"all, at first":                          {false, true, false, 7, true},
		"all in pieces, at first":                {false, true, true, 7, true},
		"nothing to follow on":                   {false, false, false, 7, false},
		"nothing new":                            {true, false, false, 10, true},
		"news":                                   {true, false, false, 11, true},
		"news, and more":                         {true, false, true, 11, true},
		"it goes back":                           {true, false, false, 9, false},
		"it goes back, and more":                 {true, false, true, 9, false},
		"more, and no further":                   {true, false, true, 10, false},
		"all anew, from a backup":                {true, true, false, 9, true},
		"all anew, from a backup, in pieces":     {true, true, true, 9, true},
		"all anew, at the same place, in pieces": {true, true, true, 10, false},
	} {
		k := new(known)
		k.seq, k.begun = 10, c.begun
		err := k.follows(&feed{seq: c.seq, complete: c.complete, more: c.more})
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, errFeed)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// answering is a broker without a network, for tests in time of their own.
type answering func(*http.Request) (status int, body io.Reader)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := a(r)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(body), Request: r}, nil
}

func followed(a answering, change ...func(*FollowerConfig)) FollowerConfig {
	cfg := FollowerConfig{
		Issuer: feedIssuer.String(), HTTPClient: &http.Client{Transport: a},
		Token: TokenFunc(func(context.Context) (string, error) { return "secret-token", nil }),
	}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

const calmFeed = `{"iss":"https://broker.example","seq":7,"complete":true,"tokens":["dead"],"chains":[],"accounts":{},"tenants":{},"keys":[],"max_stale":300}`

// drip gives a byte a second, until its request ends.
type drip struct{ ctx context.Context }

func (d drip) Read(p []byte) (int, error) {
	if !sleep(d.ctx, time.Second) {
		return 0, d.ctx.Err()
	}
	p[0] = ' '
	return 1, nil
}

// endless never comes to an end, at once.
type endless struct{ read *atomic.Int64 }

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// Whatever a broker answers that is no answer: what is known stays and grows old,
// the broker isn't asked more than once and a half a second on average, no
// token is shown, and at last nothing is accepted. Then a good answer mends all.
func TestABrokenBrokerChangesNothing(t *testing.T) {
	var read atomic.Int64
	text := func(status int, body string) answering {
		return func(*http.Request) (int, io.Reader) { return status, strings.NewReader(body) }
	}
	with := func(old, new string) answering { return text(200, strings.Replace(calmFeed, old, new, 1)) }
	for name, broken := range map[string]answering{
		"401": text(401, ""), "403": text(403, "{}"), "404": text(404, ""), "429": text(429, ""), "500": text(500, ""), "503": text(503, ""),
		"a redirect":           text(302, ""),
		"half an answer":       text(200, calmFeed[:40]),
		"another issuer":       with("broker.example", "other.example"),
		"back":                 with(`"seq":7,"complete":true`, `"seq":6,"complete":false`),
		"more, and no further": with(`"complete":true`, `"complete":true,"more":true`),
		"a drip":               func(r *http.Request) (int, io.Reader) { return 200, drip{r.Context()} },
		"without an end":       func(*http.Request) (int, io.Reader) { return 200, endless{&read} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // it fails if a goroutine is left behind
				var asked atomic.Int64
				var now atomic.Pointer[answering]
				does := func(a answering) { now.Store(&a) }
				does(text(200, calmFeed))
				seen := make(chan Observation, 1000)
				f, err := NewFollower(t.Context(), followed(func(r *http.Request) (int, io.Reader) {
					if asked.Add(1) > 1000 { // time stands still for one that asks without a pause
						return 200, drip{r.Context()}
					}
					return (*now.Load())(r)
				},
					func(c *FollowerConfig) { c.Observe = func(o Observation) { seen <- o } }))
				if err != nil {
					t.Fatal(err)
				}
				does(broken)
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = f.Run(ctx) })
				const long = 100 * time.Second
				time.Sleep(long)
				synctest.Wait()
				if f.Staleness() < long || f.Err() == nil || strings.Contains(f.Err().Error(), "secret-token") || f.Entries() != 1 {
					t.Errorf("stale %v, %d entries: %v", f.Staleness(), f.Entries(), f.Err())
				}
				if len(seen) == 0 {
					t.Error("it says nothing of it")
				}
				for range len(seen) {
					if o := <-seen; o.Err == nil || o.Seq != 7 || o.Entries != 1 {
						t.Errorf("%+v", o)
					}
				}
				if n := asked.Load(); n > int64(long/time.Second)*3/2+10 || n < 2 {
					t.Errorf("asked %d times in %v", n, long)
				}
				live := &Token{claims: credential.Claims{ID: "live", IssuedAt: time.Now()}}
				dead := &Token{claims: credential.Claims{ID: "dead", IssuedAt: time.Now()}}
				if err := f.Revoked(live); err != nil {
					t.Errorf("before max_stale: %v", err)
				}
				if err := f.Revoked(dead); !errors.Is(err, errDeadToken) {
					t.Errorf("what is known is forgotten: %v", err)
				}
				time.Sleep(200 * time.Second)
				if err := f.Revoked(live); !errors.Is(err, ErrUnavailable) {
					t.Errorf("after max_stale: %v", err)
				}
				does(text(200, calmFeed))
				time.Sleep(pollWait + pollSlack)
				if err := f.Revoked(live); err != nil || f.Err() != nil {
					t.Errorf("after a good answer: %v, %v", err, f.Err())
				}
				cancel()
				running.Wait()
			})
		})
	}
	if n := read.Load(); n == 0 || n > 1000*(maxFeed+64<<10) {
		t.Errorf("%d bytes read", n)
	}
}

// Two hundred that lose the broker at once don't come back at once, and each
// comes back in time.
func TestFollowersComeBackSpreadOut(t *testing.T) {
	const followers, slots = 200, 10
	var in [slots]int
	for range followers {
		d := jitter(longestPause)
		if d < longestPause/2 || d > longestPause*5/4 {
			t.Fatalf("%v", d)
		}
		in[min(slots-1, int((d-longestPause/2)*slots/(longestPause*3/4)))]++
	}
	for slot, n := range in {
		if n > followers/slots*5/2 { // chance: one in a million
			t.Errorf("%d of %d come back in slot %d: %v", n, followers, slot, in)
		}
	}
}

// relay hands connections on to a server; what it freezes stays open and says
// nothing any more, as behind a load balancer that has lost its state.
type relay struct {
	net.Listener
	mu     sync.Mutex
	opened int
	frozen chan struct{} // closed: what is open now is frozen
}

func newRelay(t *testing.T, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, frozen: make(chan struct{})}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _, _ = in.Close(), out.Close() })
			r.mu.Lock()
			r.opened++
			frozen := r.frozen
			r.mu.Unlock()
			go pass(in, out, frozen)
			go pass(out, in, frozen)
		}
	}()
	return r
}

func pass(from, to net.Conn, frozen <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-frozen:
			return
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.frozen)
	r.frozen = make(chan struct{})
}

// A connection that is dead without a word is not tried again.
func TestADeadConnectionIsLeft(t *testing.T) {
	var issuer string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("%s: this is about HTTP/2", r.Proto)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.Replace(calmFeed, feedIssuer.String(), issuer, 1))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	between := newRelay(t, server.Listener.Addr().String())
	issuer = "https://" + between.Addr().String()
	f := &Follower{cfg: followed(nil), issuer: credential.MustIssuerURL(issuer), start: time.Now()}
	f.known.init(DefaultEntries)
	f.cfg.Now, f.cfg.Logger = time.Now, slog.New(slog.DiscardHandler)
	f.cfg.HTTPClient, f.hangUp = pollClient(nil)
	own, ok := f.cfg.HTTPClient.Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport of its own")
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	own.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "example.com"}
	own.Proxy = nil
	// In a twentieth of the time: a live one on a busy machine is not taken for dead.
	own.HTTP2.SendPingTimeout, own.HTTP2.PingTimeout = own.HTTP2.SendPingTimeout/20, own.HTTP2.PingTimeout/20
	t.Cleanup(own.CloseIdleConnections)
	if _, err := f.ask(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	between.freeze()
	begun := time.Now()
	for _, err := f.ask(t.Context(), 0); err != nil; _, err = f.ask(t.Context(), 0) {
		if took := time.Since(begun); took > pollSlack/2 {
			t.Fatalf("the dead connection is still tried after %v: %v", took, err)
		}
	}
}
