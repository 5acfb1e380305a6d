package devvault

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Proxy stands between a client and a Vault, and does to an answer what a
// Vault can't be made to do on demand. It speaks plain HTTP on loopback.
type Proxy struct {
	server   *http.Server
	address  string
	forward  *httputil.ReverseProxy
	finished chan struct{}

	mu     sync.Mutex
	faults []*fault
	seen   []string // "GET sys/health", in order
}

// Fault says what happens to requests. With neither Status nor Cut the answer
// is Vault's own.
type Fault struct {
	// Match picks the requests by method and path, without v1; nil: all.
	Match func(method, path string) bool
	// Times is how many requests it is for; 0: all until it is removed.
	Times int
	// Effect lets Vault carry the request out first.
	Effect bool
	// Delay passes before the answer.
	Delay time.Duration
	// Cut closes the connection instead of an answer.
	Cut bool
	// Status, Header and Body are answered instead of Vault's.
	Status int
	Header http.Header
	Body   string
}

type fault struct {
	Fault
	left int // -1: without end
}

// maxSeen bounds what a proxy remembers.
const maxSeen = 100_000

// StartProxy starts a proxy in front of a server.
func StartProxy(ctx context.Context, s *Server) (*Proxy, error) {
	target, err := url.Parse(s.URL())
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{address: listener.Addr().String(), finished: make(chan struct{})}
	p.forward = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: s.client.Transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // Vault is away: so is the proxy
		},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(p.finished)
		_ = p.server.Serve(listener) // until Stop
	}()
	return p, nil
}

// ProxyForTest starts a proxy that ends with the test.
func ProxyForTest(t TB, s *Server) *Proxy {
	t.Helper()
	p, err := StartProxy(t.Context(), s)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(p.Stop)
	return p
}

// URL is the address of the proxy.
func (p *Proxy) URL() string { return "http://" + p.address }

// Stop ends it, and what is in flight.
func (p *Proxy) Stop() {
	_ = p.server.Close() // the listener is gone either way
	<-p.finished
}

// Break adds a fault; of several that match, the oldest counts. The function
// that it returns removes it.
func (p *Proxy) Break(f Fault) (repair func()) {
	added := &fault{Fault: f, left: f.Times}
	if f.Times == 0 {
		added.left = -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, added)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		added.left = 0
	}
}

// Calls counts the requests that came, those with faults included; nil counts all.
func (p *Proxy) Calls(match func(method, path string) bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.seen {
		var method, path string
		_, _ = fmt.Sscan(one, &method, &path) // written below
		if match == nil || match(method, path) {
			n++
		}
	}
	return n
}

// At matches one path, whatever the method.
func At(path string) func(method, path string) bool {
	return func(_, p string) bool { return p == path }
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.note(r)
	if f == nil {
		p.forward.ServeHTTP(w, r)
		return
	}
	if f.Effect {
		p.forward.ServeHTTP(nowhere{http.Header{}}, r)
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
	switch {
	case f.Cut:
		panic(http.ErrAbortHandler)
	case f.Status == 0 && !f.Effect:
		p.forward.ServeHTTP(w, r)
	default:
		for name, values := range f.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(max(f.Status, http.StatusOK))
		_, _ = io.WriteString(w, f.Body) // the peer is gone: nobody is left to tell
	}
}

// note remembers a request and finds what happens to it.
func (p *Proxy) note(r *http.Request) *Fault {
	path := r.URL.Path
	if len(path) > len("/v1/") {
		path = path[len("/v1/"):]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) < maxSeen {
		p.seen = append(p.seen, r.Method+" "+path)
	}
	for _, f := range p.faults {
		if f.left != 0 && (f.Match == nil || f.Match(r.Method, path)) {
			if f.left > 0 {
				f.left--
			}
			return &f.Fault
		}
	}
	return nil
}

// nowhere is an answer that nobody reads.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
