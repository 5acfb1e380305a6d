package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// leave is what a connection to the proxies' listener was admitted by. It is
// looked at on each request, since a busy connection may outlive it.
type leave struct {
	from    net.Addr
	chain   []*x509.Certificate
	now     atomic.Pointer[standing]
	refused atomic.Bool // it is told once for a connection
}

// standing is a judgement, good for as long as nothing changes.
type standing struct {
	rules *proxyRules
	until time.Time // the end of the first certificate of the chain that ends
	name  string    // by which it is listed
}

type leaveKey struct{}

// remember is the server's ConnContext.
func (g *proxyGate) remember(ctx context.Context, conn net.Conn) context.Context {
	over, ok := conn.(*tls.Conn)
	if !ok {
		return ctx
	}
	who, ok := over.NetConn().(*guest)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, leaveKey{}, who.leave)
}

// hold answers 503 to who has no leave any more, and ends the connection: what
// comes next is told in a handshake.
func (g *proxyGate) hold(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l, _ := r.Context().Value(leaveKey{}).(*leave) // nil: deny
		if l == nil || !g.stands(l) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// stands decides again when a certificate's time is up, or the rules are others.
func (g *proxyGate) stands(l *leave) bool {
	if s := l.now.Load(); s.rules == g.rules.Load() && time.Now().Before(s.until) {
		return true
	}
	s, why := g.judge(l.chain)
	if why == "" {
		l.now.Store(s)
		return true
	}
	if !l.refused.Swap(true) {
		g.refuse(l.from, l.chain, why)
	}
	return false
}

// asks names the proxy of a request, for its line.
func (g *proxyGate) asks(r *http.Request) string {
	l, _ := r.Context().Value(leaveKey{}).(*leave)
	if l == nil {
		return ""
	}
	return l.now.Load().name
}
