package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// Timeouts of the broker in these tests, far shorter than in earnest, and how
// much later than that it may act on them.
const (
	headerTimeout = 500 * time.Millisecond
	bodyTimeout   = 900 * time.Millisecond
	idleTimeout   = 700 * time.Millisecond
	slack         = 3 * time.Second
)

func hasty(connections int) brokertest.Option {
	return brokertest.Configure(func(d *broker.Document) {
		d.Timeouts.ReadHeader, d.Timeouts.Read, d.Timeouts.Idle = headerTimeout, bodyTimeout, idleTimeout
		d.Limits.Connections = connections
	})
}

// again has another try at what a pause of the machine can spoil, in which the
// broker's times and the test's own run on. A broker that is at fault spoils each.
func again(t *testing.T, try func() (problem string)) {
	t.Helper()
	var problem string
	for range 5 {
		if problem = try(); problem == "" {
			return
		}
		t.Log(problem)
	}
	t.Error("again and again: " + problem)
}

// A client that takes its time is cut off when its time is up, not before; its
// neighbours don't notice.
func TestSlow_ClientsAreCutOffAndOthersUnaffected(t *testing.T) {
	w := newBadWorld(t, hasty(200))
	again(t, func() string { return besideSlowClients(t, w) })
}

// besideSlowClients asks for tokens beside a crowd of slow clients, and says what
// was wrong with it all.
func besideSlowClients(t *testing.T, w *badWorld) (problem string) {
	t.Helper()
	full := w.tokenMessage().String()
	head, rest, _ := strings.Cut(full, "\r\n\r\n")
	var wg sync.WaitGroup
	ended := make(chan string, 100)
	for _, c := range []struct {
		name     string
		first    string // sent at once
		drip     string // then byte by byte
		bound    time.Duration
		answered int // status of the broker's answer; 0: none, the server beneath ends it
	}{
		{"says nothing", "", "", headerTimeout, 0},
		{"stops in the first line", "POST /oauth2/tok", "", headerTimeout, 0},
		{"stops in the headers", head[:len(head)-5], "", headerTimeout, 0},
		{"sends headers byte by byte", "POST / HTTP/1.1\r\nX: ", strings.Repeat("a", 10_000), headerTimeout, 0},
		{"stops before the body", head + "\r\n\r\n", "", bodyTimeout, bad400},
		{"stops in the body", full[:len(full)-7], "", bodyTimeout, bad400},
		{"sends the body byte by byte", head + "\r\n\r\n", rest, bodyTimeout, bad400},
		{"stops between chunks", strings.Replace(head, "Content-Length: ", "Transfer-Encoding: chunked\r\nX: ", 1) + "\r\n\r\n3\r\na=b\r\n", "", bodyTimeout, bad400},
	} {
		for range 5 {
			wg.Go(func() {
				ended <- slowClient(t, w.host(), c.name, c.first, c.drip, c.bound, c.answered)
			})
		}
	}
	for begun := time.Now(); time.Since(begun) < bodyTimeout; { // while they dawdle
		m, at := w.tokenMessage(), time.Now()
		got, err := w.trySend(m)
		if took := time.Since(at); err != nil || got.AccessToken == "" || took > headerTimeout {
			problem = fmt.Sprintf("beside 40 slow clients a token took %s: %d %s %v", took, got.status, got.Error, err)
		}
	}
	wg.Wait()
	close(ended)
	for one := range ended {
		if one != "" {
			problem = one
		}
	}
	if got, err := w.trySend(w.tokenMessage()); err != nil || got.AccessToken == "" {
		problem = fmt.Sprintf("after 40 slow clients: %d %s %v", got.status, got.Error, err)
	}
	return problem
}

// slowClient plays one and says what was wrong with its end. That it comes before
// anybody's time is no pause's fault.
func slowClient(t *testing.T, host, name, first, drip string, bound time.Duration, answered int) string {
	begun := time.Now() // the broker begins to count later
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return name + ": " + err.Error()
	}
	defer func() { _ = conn.Close() }()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := conn.Write([]byte(first))
		for i := 0; i < len(drip) && err == nil; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			_, err = conn.Write([]byte{drip[i]})
		}
	})
	_ = conn.SetReadDeadline(begun.Add(bound + slack))
	var text []byte
	buffer := make([]byte, 4096)
	for err == nil {
		var n int
		n, err = conn.Read(buffer)
		text = append(text, buffer[:n]...)
	}
	took := time.Since(begun)
	close(stop)
	wg.Wait()
	status := 0
	if len(text) > 0 {
		_, _ = fmt.Sscanf(string(text), "HTTP/1.1 %d", &status)
	}
	switch timeout, ok := err.(net.Error); { //nolint:errorlint // comes straight from the connection
	case ok && timeout.Timeout():
		return fmt.Sprintf("%s: still connected after %s", name, took)
	case took < headerTimeout:
		t.Errorf("%s: cut off after %s, before its time of %s", name, took, bound)
	case took < bound: // also where its headers came too late
		return fmt.Sprintf("%s: cut off after %s, before its time of %s", name, took, bound)
	case status != answered && (answered != 0 || status != bad400):
		return fmt.Sprintf("%s: status %d, want %d", name, status, answered)
	case bound == bodyTimeout && ( // it was a request: the broker itself answers
	!strings.Contains(string(text), `"error":"invalid_request"`) || !strings.Contains(string(text), "X-Request-Id: ")):
		return fmt.Sprintf("%s: answered %.300q", name, text)
	}
	return ""
}

// An open connection that asks for nothing more is closed.
func TestSlow_AnIdleConnectionIsClosed(t *testing.T) {
	w := newBadWorld(t, hasty(200))
	again(t, func() string {
		conn := w.dial()
		defer conn.close()
		var begun time.Time
		for range 2 { // it is kept open between requests
			text := w.tokenMessage().String()
			begun = time.Now() // it is idle later
			conn.write(text)
			if got, err := conn.read(http.MethodPost); err != nil || got.AccessToken == "" {
				return fmt.Sprintf("%d %s %v", got.status, got.Error, err)
			}
		}
		if !conn.closed() {
			return "it stays open"
		}
		took := time.Since(begun)
		if took < idleTimeout {
			t.Errorf("closed after %s, before its time of %s", took, idleTimeout)
		}
		if took > idleTimeout+slack {
			return fmt.Sprintf("closed after %s, want %s", took, idleTimeout)
		}
		return ""
	})
}

// More connections than allowed wait outside: those inside are served, and
// those outside as soon as there is room. An idle crowd makes room by timeout.
func TestSlow_ManyConnections(t *testing.T) {
	const limit = 8
	w := newBadWorld(t, hasty(limit))
	again(t, func() string {
		http.DefaultClient.CloseIdleConnections() // what made the world counts too
		text := w.tokenMessage().String()
		inside := w.dial()
		defer inside.close()
		inside.write(text)
		if got, err := inside.read(http.MethodPost); err != nil || got.AccessToken == "" {
			return fmt.Sprintf("%d %s %v", got.status, got.Error, err)
		}
		text = w.tokenMessage().String()
		crowd := make([]*wireConn, 4*limit)
		for i := range crowd {
			crowd[i] = dialFrom(t, "127.0.0.2", w.host()) // and say nothing
			defer crowd[i].close()
		}
		time.Sleep(50 * time.Millisecond)
		if n := w.connections(); n > limit {
			t.Errorf("%d connections are open, the limit is %d", n, limit)
		}
		at := time.Now()
		inside.write(text)
		got, err := inside.read(http.MethodPost)
		if took := time.Since(at); err != nil || got.AccessToken == "" || took > headerTimeout {
			return fmt.Sprintf("inside, beside the crowd, after %s: %d %s %v", took, got.status, got.Error, err)
		}
		text = w.tokenMessage().String()
		at = time.Now()
		outside := w.dial()
		defer outside.close()
		outside.write(text)
		got, err = outside.read(http.MethodPost)
		// The crowd of 32 passes through at least 7 places at a time.
		if took := time.Since(at); err != nil || got.AccessToken == "" || took > 6*headerTimeout+slack {
			return fmt.Sprintf("behind the crowd, after %s: %d %s %v", took, got.status, got.Error, err)
		}
		return ""
	})
}

// connections reads the broker's own count.
func (w *badWorld) connections() (n int) {
	w.t.Helper()
	resp, err := http.Get(w.OpsURL() + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := readAnswerRaw(resp)
	if err != nil {
		w.t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\ntenantbroker_connections ")
	if !found {
		w.t.Fatal("no metric of the connections")
	}
	if _, err := fmt.Sscan(after, &n); err != nil {
		w.t.Fatal(err)
	}
	return n
}
