package broker

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// knock is a connection that remembers that it was closed.
type knock struct {
	fakeConn
	closed bool
}

func (k *knock) Close() error { k.closed = true; return nil }

func newTriedDoor() (*proxyDoor, *strings.Builder) {
	var log strings.Builder
	return newProxyDoor(nil, &proxyGate{refused: newProxiesRefused(), log: slog.New(slog.NewTextHandler(&log, nil)), lines: refusalLimits()}), &log
}

func (d *proxyDoor) refusedFor(why string) int {
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.gate.refused)
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == why {
			return int(m.GetCounter().GetValue())
		}
	}
	return -1
}

// The oldest makes room: of the address that has its share, or of all.
func TestTheOldestStrangerMakesRoom(t *testing.T) {
	d, log := newTriedDoor()
	come := func(from string, n int) (all []*knock) {
		for i := range n {
			k := &knock{fakeConn: fakeConn{remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), uint16(i+1)))}}
			d.enter(k)
			all = append(all, k)
		}
		return all
	}
	closed := func(all []*knock) (n int) {
		for i, k := range all {
			if k.closed {
				if n++; n != i+1 {
					t.Fatalf("connection %d made room before an older one", i)
				}
			}
		}
		return n
	}
	first, crowd := come("192.0.2.1", 3), come("2001:db8::1", 250)
	crowd = append(crowd, come("2001:db8::2", 10)...) // the same /64
	if n := closed(crowd); n != 4 || closed(first) != 0 {
		t.Errorf("beyond a share of 256: %d of 260 and %d of another address's 3 made room", n, closed(first))
	}
	for i := range 3 { // 3 + 256 + 3 * 255 = 1024
		come(fmt.Sprintf("192.0.2.%d", i+2), 255)
	}
	if n := d.count(); n != 1024 || d.refusedFor(proxyCrowded) != 4 {
		t.Errorf("%d at the door, and %d made room", n, d.refusedFor(proxyCrowded))
	}
	come("192.0.2.9", 2)
	if n := d.count(); n != 1024 || closed(first) != 2 || closed(crowd) != 4 || d.refusedFor(proxyCrowded) != 6 {
		t.Errorf("beyond 1024: %d at the door, %d of the oldest made room, %d in all", n, closed(first), d.refusedFor(proxyCrowded))
	}
	if lines := strings.Count(log.String(), "reason=crowded"); lines != 5 {
		t.Errorf("%d lines", lines)
	}
	for d.push() {
	}
	if d.count() != 0 || len(d.from) != 0 {
		t.Errorf("when all have left, %d are counted, from %v", d.count(), d.from)
	}
}

// Who may ask waits for a slot in a queue that has an end.
func TestTheQueueOfThoseWhoMayAskHasAnEnd(t *testing.T) {
	d, _ := newTriedDoor()
	server, client := net.Pipe()
	defer func() { _, _ = server.Close(), client.Close() }()
	conn := tls.Server(&guest{limitedConn: limitedConn{Conn: &addressed{server}}}, new(tls.Config))
	for i := range maxCheckConnections {
		if !d.pass(conn) {
			t.Fatalf("number %d is refused", i)
		}
	}
	if d.pass(conn) || d.refusedFor(proxyFull) != 1 {
		t.Errorf("one more may wait; %d refused", d.refusedFor(proxyFull))
	}
}

type addressed struct{ net.Conn }

func (*addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
