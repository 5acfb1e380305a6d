package jwks

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// A key set has connections of its own: a dead one is noticed, and none is left
// when it is closed.
func TestConnectionsOfAKeySet(t *testing.T) {
	client, _ := ownClient()
	own, ok := client.Transport.(*http.Transport)
	if !ok || own == http.DefaultTransport || own.HTTP2 == nil || own.HTTP2.SendPingTimeout <= 0 || own.HTTP2.SendPingTimeout+own.HTTP2.PingTimeout > 30*time.Second {
		t.Errorf("%+v", client.Transport)
	}
	var open atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"keys":[]}`))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	r, err := NewRemote(RemoteConfig{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Load(t.Context()); err == nil || open.Load() != 1 { // an empty set is none, and a connection stays
		t.Fatalf("%v, %d connections", err, open.Load())
	}
	r.Close()
	for begun := time.Now(); open.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%d connections", open.Load())
		}
	}
}
