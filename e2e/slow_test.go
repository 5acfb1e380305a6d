package e2e

import (
	"context"
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
// much later than that a busy machine may act on them.
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

// A client that takes its time is cut off when its time is up, not before; its
// neighbours don't notice.
func TestSlow_ClientsAreCutOffAndOthersUnaffected(t *testing.T) {
	w := newBadWorld(t, hasty(200))
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
				ended <- slowClient(w.host(), c.name, c.first, c.drip, c.bound, c.answered)
			})
		}
	}
	slowest := time.Duration(0)
	for begun := time.Now(); time.Since(begun) < bodyTimeout; { // while they dawdle
		at := time.Now()
		w.mustToken(w.form(mailer, acme))
		slowest = max(slowest, time.Since(at))
	}
	if slowest > headerTimeout {
		t.Errorf("beside 40 slow clients a token took %s", slowest)
	}
	wg.Wait()
	close(ended)
	for problem := range ended {
		if problem != "" {
			t.Error(problem)
		}
	}
	w.mustToken(w.form(mailer, acme))
}

// slowClient plays one and says what was wrong with its end.
func slowClient(host, name, first, drip string, bound time.Duration, answered int) string {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return name + ": " + err.Error()
	}
	defer func() { _ = conn.Close() }()
	begun := time.Now()
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
	case took < bound-50*time.Millisecond:
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
	conn := w.dial()
	defer conn.close()
	for range 2 { // it is kept open between requests
		conn.write(w.tokenMessage().String())
		if got, err := conn.read(http.MethodPost); err != nil || got.AccessToken == "" {
			t.Fatalf("%d %s %v", got.status, got.Error, err)
		}
	}
	begun := time.Now()
	if !conn.closed() {
		t.Fatal("it stays open")
	}
	if took := time.Since(begun); took < idleTimeout-50*time.Millisecond || took > idleTimeout+slack {
		t.Errorf("closed after %s, want %s", took, idleTimeout)
	}
}

// More connections than allowed wait outside: those inside are served, and
// those outside as soon as there is room. An idle crowd makes room by timeout.
func TestSlow_ManyConnections(t *testing.T) {
	const limit = 8
	w := newBadWorld(t, hasty(limit))
	http.DefaultClient.CloseIdleConnections() // what made the world counts too
	inside := w.dial()
	defer inside.close()
	inside.write(w.tokenMessage().String())
	if got, err := inside.read(http.MethodPost); err != nil || got.AccessToken == "" {
		t.Fatalf("%d %s %v", got.status, got.Error, err)
	}
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
	inside.write(w.tokenMessage().String())
	if got, err := inside.read(http.MethodPost); err != nil || got.AccessToken == "" {
		t.Errorf("inside, beside the crowd: %d %s %v", got.status, got.Error, err)
	}
	if took := time.Since(at); took > headerTimeout {
		t.Errorf("inside, beside the crowd, a token took %s", took)
	}
	at = time.Now()
	outside := w.dial()
	defer outside.close()
	outside.write(w.tokenMessage().String())
	if got, err := outside.read(http.MethodPost); err != nil || got.AccessToken == "" {
		t.Errorf("behind the crowd: %d %s %v", got.status, got.Error, err)
	}
	// The crowd of 32 passes through at least 7 places at a time.
	if took := time.Since(at); took > 6*headerTimeout+slack {
		t.Errorf("behind the crowd, a token took %s", took)
	}
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

// A shutdown waits for requests in flight, slow ones too, no longer than their
// own timeout.
func TestSlow_ShutdownWaitsForASlowRequest(t *testing.T) {
	w := newBadWorld(t, hasty(200))
	full := w.tokenMessage().String()
	finishing, stalled, silent := w.dial(), w.dial(), w.dial()
	defer finishing.close()
	defer stalled.close()
	defer silent.close()
	finishing.write(full[:len(full)-5])
	stalled.write(full[:len(full)-5])
	time.Sleep(100 * time.Millisecond) // they are in flight now
	begun := time.Now()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.Stop()
	}()
	time.Sleep(100 * time.Millisecond)
	finishing.write(full[len(full)-5:])
	if got, err := finishing.read(http.MethodPost); err != nil || got.AccessToken == "" {
		t.Errorf("a request that ended during the shutdown: %d %s %v", got.status, got.Error, err)
	}
	<-stopped
	if took := time.Since(begun); took > bodyTimeout+slack {
		t.Errorf("the shutdown took %s beside a stalled request", took)
	}
	if got, err := stalled.read(http.MethodPost); err != nil || got.status != bad400 {
		t.Errorf("a request that stalled: %d %v", got.status, err)
	}
}

// And where requests may take longer than the shutdown, the shutdown wins.
func TestSlow_ShutdownDoesNotWaitForEver(t *testing.T) {
	w := newBadWorld(t)
	w.Stop()
	config, err := broker.Load(w.ConfigFile(), func(name string) (string, bool) {
		value, found := map[string]string{"TENANTBROKER_TIMEOUTS_SHUTDOWN": "500ms", "TENANTBROKER_TIMEOUTS_READ": "5m"}[name]
		return value, found
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Open(t.Context(), config, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	full := w.tokenMessage().String()
	stalled := w.dial()
	defer stalled.close()
	stalled.write(full[:len(full)-5])
	time.Sleep(100 * time.Millisecond)
	begun := time.Now()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a shutdown that cut a request off says nothing of it")
		}
	case <-time.After(500*time.Millisecond + slack):
		t.Fatal("the shutdown waits for ever")
	}
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("the shutdown took only %s: it didn't wait for the request", took)
	}
	if got, err := stalled.read(http.MethodPost); err == nil && got.AccessToken != "" {
		t.Error("half a request was answered with a token")
	}
}
