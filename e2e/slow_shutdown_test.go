package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// stalled sends a token request but for the end of its body, which the broker
// waits for when this returns: it has said so.
func (w *badWorld) stalled() (conn *wireConn, rest string, err error) {
	w.t.Helper()
	m := w.tokenMessage()
	m.lines = []string{"Expect: 100-continue"}
	text := m.String()
	conn = w.dial()
	conn.write(text[:len(text)-5])
	if got, failed := conn.read(http.MethodPost); failed != nil || got.status != http.StatusContinue {
		err = fmt.Errorf("a request in flight: %d %w", got.status, failed)
	}
	return conn, text[len(text)-5:], err
}

// A shutdown waits for requests in flight, slow ones too, no longer than their
// own timeout.
func TestSlow_ShutdownWaitsForASlowRequest(t *testing.T) {
	again(t, func() string {
		w := newBadWorld(t, hasty(200))
		finishing, rest, err := w.stalled()
		defer finishing.close()
		stalled, _, err2 := w.stalled()
		defer stalled.close()
		silent := w.dial()
		defer silent.close()
		if err := errors.Join(err, err2); err != nil {
			return err.Error()
		}
		begun := time.Now()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			w.Stop()
		}()
		for refused := error(nil); refused == nil; { // it has begun when nobody gets in any more
			var late net.Conn
			if late, refused = net.Dial("tcp", w.host()); refused == nil {
				_ = late.Close()
			}
		}
		finishing.write(rest)
		got, err := finishing.read(http.MethodPost)
		<-stopped
		took := time.Since(begun)
		if err != nil || got.AccessToken == "" {
			return fmt.Sprintf("a request that ended during the shutdown: %d %s %v", got.status, got.Error, err)
		}
		if took > bodyTimeout+slack {
			return fmt.Sprintf("the shutdown took %s beside a stalled request", took)
		}
		if got, err := stalled.read(http.MethodPost); err != nil || got.status != bad400 {
			t.Errorf("a request that stalled: %d %v", got.status, err)
		}
		return ""
	})
}

// And where requests may take longer than the shutdown, the shutdown wins.
func TestSlow_ShutdownDoesNotWaitForEver(t *testing.T) {
	const most = 500 * time.Millisecond
	w := newBadWorld(t)
	w.Stop()
	config, err := broker.Load(w.ConfigFile(), func(name string) (string, bool) {
		value, found := map[string]string{"TENANTBROKER_TIMEOUTS_SHUTDOWN": most.String(), "TENANTBROKER_TIMEOUTS_READ": "5m"}[name]
		return value, found
	})
	if err != nil {
		t.Fatal(err)
	}
	again(t, func() string {
		b, err := broker.Open(t.Context(), config, broker.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		stalled, _, err := w.stalled()
		defer stalled.close()
		if err != nil {
			t.Error(err)
		}
		begun := time.Now()
		cancel()
		if err := <-ended; err == nil {
			t.Error("a shutdown that cut a request off says nothing of it")
		}
		took := time.Since(begun)
		if took < most {
			t.Errorf("the shutdown took only %s: it didn't wait for the request", took)
		}
		if got, err := stalled.read(http.MethodPost); err == nil && got.AccessToken != "" {
			t.Error("half a request was answered with a token")
		}
		if took > most+slack {
			return fmt.Sprintf("the shutdown took %s, at most %s", took, most)
		}
		return ""
	})
}
