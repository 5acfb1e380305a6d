package broker

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/issuer"
)

// Who has not finished a handshake on the proxies' listener is a stranger. They
// have places of their own, and little time, so that none of a proxy's is theirs.
const (
	// handshakeTime is many times what a handshake takes across the world.
	handshakeTime = 2 * time.Second
	// maxStrangers bounds the handshakes at one moment, and maxStrangersOfOne those
	// of one IPv4 address or IPv6 /64: as many as a proxy opens at once when it
	// starts. Beyond them the oldest makes room, since a handshake that goes on ends
	// in milliseconds.
	maxStrangers      = 1024
	maxStrangersOfOne = 256
)

// proxyDoor does the handshakes of the proxies' listener and passes on those
// connections alone that may ask.
type proxyDoor struct {
	net.Listener
	gate   *proxyGate
	inside chan *tls.Conn // admitted, but not yet served
	failed chan error     // of the listener
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	strangers *list.List           // of *guest, the oldest first
	from      map[netip.Prefix]int // how many of them come from there
}

// guest is a connection under TLS, first a stranger's. What closing it gives
// back is its place among strangers, later its slot among those that are served.
type guest struct {
	limitedConn
	place *list.Element // nil: it has none any more
	from  netip.Prefix
	leave *leave // by which it was admitted
}

func newProxyDoor(l net.Listener, g *proxyGate) *proxyDoor {
	return &proxyDoor{
		Listener: l, gate: g, inside: make(chan *tls.Conn, maxCheckConnections), failed: make(chan error), closed: make(chan struct{}),
		strangers: list.New(), from: make(map[netip.Prefix]int),
	}
}

// Run does handshakes until the listener is closed, which whoever serves does.
func (d *proxyDoor) Run(ctx context.Context) error {
	config := d.gate.config()
	var handshakes sync.WaitGroup
	for {
		conn, err := d.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			select {
			case d.failed <- err: // who serves knows how to wait, or to end
			case <-d.closed:
			}
			continue
		}
		g := d.enter(conn)
		handshakes.Go(func() { d.greet(ctx, g, config) })
	}
	for d.push() {
	}
	handshakes.Wait()
	for {
		select {
		case conn := <-d.inside:
			_ = conn.NetConn().Close()
		default:
			return nil
		}
	}
}

// enter gives a connection a place among strangers, for which the oldest makes
// room: of its own address, if that has its share, else of all.
func (d *proxyDoor) enter(conn net.Conn) *guest {
	g := &guest{limitedConn: limitedConn{Conn: conn}, from: issuer.Neighbourhood(addressOf(conn.RemoteAddr()))}
	g.release = func() { d.left(g) }
	d.mu.Lock()
	var crowded *guest
	for place := d.strangers.Front(); place != nil && (d.from[g.from] >= maxStrangersOfOne || d.strangers.Len() >= maxStrangers); place = place.Next() {
		oldest, _ := place.Value.(*guest) // nothing else is in it
		if d.from[g.from] < maxStrangersOfOne || oldest.from == g.from {
			crowded = oldest
			d.drop(crowded)
			break
		}
	}
	g.place = d.strangers.PushBack(g)
	d.from[g.from]++
	d.mu.Unlock()
	if crowded != nil {
		_ = crowded.Close()
		d.gate.count(crowded.RemoteAddr(), proxyCrowded)
	}
	return g
}

// drop takes a place away. It is called under mu.
func (d *proxyDoor) drop(g *guest) {
	d.strangers.Remove(g.place)
	g.place = nil
	if d.from[g.from]--; d.from[g.from] == 0 {
		delete(d.from, g.from)
	}
}

// left gives a place back, and says whether there was one still.
func (d *proxyDoor) left(g *guest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.place == nil {
		return false
	}
	d.drop(g)
	return true
}

// push closes the oldest stranger, if there is one.
func (d *proxyDoor) push() bool {
	d.mu.Lock()
	front := d.strangers.Front()
	if front == nil {
		d.mu.Unlock()
		return false
	}
	g, _ := front.Value.(*guest) // nothing else is in it
	d.drop(g)
	d.mu.Unlock()
	_ = g.Close()
	return true
}

// greet does one handshake. Only then is the peer known to hold the key of what
// it shows, and only then somebody is named. Nothing of a request is read.
func (d *proxyDoor) greet(ctx context.Context, g *guest, config *tls.Config) {
	_ = g.SetDeadline(time.Now().Add(handshakeTime))
	conn := tls.Server(g, config)
	err := conn.HandshakeContext(ctx)
	if !d.left(g) { // it made room, and is closed
		return
	}
	why := ""
	switch timeout, late := errors.AsType[net.Error](err); {
	case err == nil:
		g.leave, why = d.gate.admit(g.RemoteAddr(), conn.ConnectionState().PeerCertificates)
	case late && timeout.Timeout():
		why = proxyLate
		d.gate.count(g.RemoteAddr(), why)
	default:
		why = proxyFailed
		d.gate.count(g.RemoteAddr(), why)
	}
	if why == "" && d.pass(conn) {
		return
	}
	if err == nil {
		_ = conn.Close() // says farewell, for which the kernel has room
	}
	_ = g.Close()
}

// pass hands a connection to who serves.
func (d *proxyDoor) pass(conn *tls.Conn) bool {
	_ = conn.SetDeadline(time.Time{})
	select {
	case <-d.closed:
		return false
	default:
	}
	select {
	case d.inside <- conn:
		return true
	default:
		d.gate.count(conn.RemoteAddr(), proxyFull)
		return false
	}
}

// Accept returns the next connection that may ask.
func (d *proxyDoor) Accept() (net.Conn, error) {
	select {
	case conn := <-d.inside:
		return conn, nil
	case err := <-d.failed:
		return nil, err
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close also ends Run.
func (d *proxyDoor) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// count returns how many handshakes are not finished.
func (d *proxyDoor) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.strangers.Len()
}

// addressOf returns the IP address of a peer, the zero Addr of a socket's.
func addressOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
