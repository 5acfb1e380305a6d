package broker

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// listen opens a TCP listener.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// limitedListener accepts at most a number of connections at a time. Beyond
// it, new ones wait in the kernel's queue, where they cost nothing here. One
// IPv4 address or IPv6 /64 has at most perAddress of them, so that it can't
// keep all others out by holding idle ones; what it opens beyond is closed.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once

	perAddress int
	exempt     []netip.Prefix // proxies, that many clients come through

	mu      sync.Mutex
	open    map[netip.Prefix]int // by address, those that are not exempt
	refused atomic.Uint64        // for their address
}

func limitConnections(l net.Listener, most, perAddress int, exempt []netip.Prefix) *limitedListener {
	return &limitedListener{
		Listener: l, slots: make(chan struct{}, most), closed: make(chan struct{}),
		perAddress: perAddress, exempt: exempt, open: make(map[netip.Prefix]int),
	}
}

// Accept waits for a free slot, then for a connection, which gives the slot
// back when it is closed.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
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
		return &limitedConn{Conn: conn, release: func() { l.leave(from); <-l.slots }}, nil
	}
}

// counted is whose share a connection takes from, the zero Prefix if nobody's.
func (l *limitedListener) counted(remote net.Addr) netip.Prefix {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, proxies := range l.exempt {
		if proxies.Contains(ip) {
			return netip.Prefix{}
		}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	from, _ := ip.Prefix(bits) // fails for more bits than the address has
	return from
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

// Close also wakes an Accept that waits for a slot.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// count returns how many connections are open.
func (l *limitedListener) count() int { return len(l.slots) }

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
