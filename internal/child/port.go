package child

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Ports are taken from below the range that Linux gives to outgoing
// connections, so that a server that was stopped finds its port free again.
const firstPort, endPort = 20000, 32768

// Port is a port of 127.0.0.1 that no other program that uses this package
// takes until it is released, or this program ends.
type Port struct {
	number int
	lock   *os.File
}

// TakePort finds a port that is free now. A program that doesn't know of the
// locks can still take it before the server does: then start again with another.
func TakePort(ctx context.Context) (*Port, error) {
	folder := filepath.Join(os.TempDir(), "tenantbroker-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	const tries = 200
	for range tries {
		p, err := tryPort(ctx, folder, firstPort+rand.IntN(endPort-firstPort)) //nolint:gosec // any port will do
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("child: no port: %w", err)
		}
	}
	return nil, fmt.Errorf("child: no free port between %d and %d in %d tries", firstPort, endPort-1, tries)
}

func tryPort(ctx context.Context, folder string, number int) (_ *Port, err error) {
	lock, err := os.OpenFile(filepath.Join(folder, strconv.Itoa(number)), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // a folder of our own
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close() // nothing was written
		}
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, err
	}
	p := &Port{number: number, lock: lock}
	var network net.ListenConfig
	l, err := network.Listen(ctx, "tcp", p.Address())
	if err != nil {
		return nil, err
	}
	return p, l.Close()
}

// Number is the port.
func (p *Port) Number() int { return p.number }

// Address is 127.0.0.1 and the port.
func (p *Port) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// Release gives the port back.
func (p *Port) Release() { _ = p.lock.Close() } // the lock goes with the file
