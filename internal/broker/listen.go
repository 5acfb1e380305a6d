package broker

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/tenantbroker/tenantbroker/issuer"
)

// listen opens a TCP listener.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// limitedListener accepts at most a number of connections at a time. Beyond
// it, new ones wait in the kernel's queue, where they cost nothing here, unless
// an idle one of a crowded address makes room. One IPv4 address or IPv6 /64 has
// at most perAddress of them, and what it opens beyond is closed. So nobody keeps
// all others out by holding connections, and who holds few is not disturbed.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once

	perAddress int
	exempt     []netip.Prefix // proxies, that many clients come through

	refused atomic.Uint64 // for their address
	held    atomic.Int64  // connections that are open

	mu     sync.Mutex
	open   map[netip.Prefix]int       // by address, those that are not exempt
	idle   *list.List                 // of idleConn, the longest idle first
	idling map[net.Conn]*list.Element // their places in it
	full   bool                       // Accept waits for a slot
}

// idleConn is a connection that waits for its next request, and whose share it
// takes from.
type idleConn struct {
	net.Conn
	from netip.Prefix
}

// crowd is the part of all connections above which an address has to make room.
const crowd = 64

func limitConnections(l net.Listener, most, perAddress int, exempt []netip.Prefix) *limitedListener {
	return &limitedListener{
		Listener: l, slots: make(chan struct{}, most), closed: make(chan struct{}),
		perAddress: perAddress, exempt: exempt, open: make(map[netip.Prefix]int),
		idle: list.New(), idling: make(map[net.Conn]*list.Element),
	}
}

// Accept waits for a free slot, then for a connection, which gives the slot
// back when it is closed.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.makeRoom(true)
		select {
		case l.slots <- struct{}{}:
			l.makeRoom(false)
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		from := l.counted(conn.RemoteAddr())
		if !l.enter(from) {
			l.refused.Add(1)
			_ = conn.Close() // nothing was written to it
			continue
		}
		l.held.Add(1)
		return holding(conn, func() { l.held.Add(-1); l.leave(from); <-l.slots }), nil
	}
}

// holding makes closing a connection give its slot back. What stands below TLS
// does so itself: the server has to see the TLS.
func holding(conn net.Conn, release func()) net.Conn {
	if over, ok := conn.(*tls.Conn); ok {
		if g, ok := over.NetConn().(*guest); ok {
			g.release = release
			return conn
		}
	}
	return &limitedConn{Conn: conn, release: release}
}

// counted is whose share a connection takes from, the zero Prefix if nobody's.
func (l *limitedListener) counted(remote net.Addr) netip.Prefix {
	ip := addressOf(remote)
	for _, proxies := range l.exempt {
		if proxies.Contains(ip) {
			return netip.Prefix{}
		}
	}
	return issuer.Neighbourhood(ip)
}

func (l *limitedListener) enter(from netip.Prefix) bool {
	if !from.IsValid() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from] >= l.perAddress {
		return false
	}
	l.open[from]++
	return true
}

func (l *limitedListener) leave(from netip.Prefix) {
	if !from.IsValid() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

// track is the server's ConnState: it learns which connections are idle.
func (l *limitedListener) track(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	if place, ok := l.idling[conn]; ok {
		l.idle.Remove(place)
		delete(l.idling, conn)
	}
	if state == http.StateIdle {
		l.idling[conn] = l.idle.PushBack(idleConn{conn, l.counted(conn.RemoteAddr())})
	}
	l.mu.Unlock()
	l.shed()
}

// makeRoom says whether Accept waits for a slot.
func (l *limitedListener) makeRoom(wanted bool) {
	l.mu.Lock()
	l.full = wanted
	l.mu.Unlock()
	l.shed()
}

// shed closes, if one is wanted, the longest idle connection of an address that
// has more than its part.
func (l *limitedListener) shed() {
	conn := l.longestIdle()
	if conn == nil {
		return
	}
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn() // without a farewell, which a peer could make us wait for
	}
	_ = conn.Close() // gives the slot back
}

func (l *limitedListener) longestIdle() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.full {
		return nil
	}
	for place := l.idle.Front(); place != nil; place = place.Next() {
		idle, _ := place.Value.(idleConn) // nothing else is in it
		if l.open[idle.from] <= max(1, cap(l.slots)/crowd) {
			continue
		}
		l.full = false
		l.idle.Remove(place)
		delete(l.idling, idle.Conn)
		return idle.Conn
	}
	return nil
}

// Close also wakes an Accept that waits for a slot.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// count returns how many connections are open.
func (l *limitedListener) count() int { return int(l.held.Load()) }

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

// CloseWrite lets net/http close its half of a connection whose request it
// refuses unread, and wait a moment. Without it the client's kernel may throw
// the answer away as the connection is reset.
func (c *limitedConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	return half.CloseWrite()
}
