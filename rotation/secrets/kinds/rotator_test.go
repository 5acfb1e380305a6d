package kinds_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
)

// hookToken stands for the broker's own token; the real one is in e2e.
const hookToken = "a token"

// rotator is a service that rotates a value of its own when it is called. It
// does each step once, whatever it is called with again.
type rotator struct {
	t      *testing.T
	server *httptest.Server

	mu     sync.Mutex
	valid  map[uint64]string // version → rotation: values that it takes
	now    uint64            // what it tells consumers
	did    map[string]int    // Idempotency-Key → how often the step was carried out
	calls  []kinds.Call
	answer func(kinds.Call, http.ResponseWriter) bool // answers itself, if it says so
}

func newRotator(t *testing.T) *rotator {
	t.Helper()
	r := &rotator{t: t, valid: map[uint64]string{}, did: map[string]int{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *rotator) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var c kinds.Call
	d := json.NewDecoder(q.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || q.Method != http.MethodPost || q.Header.Get("Authorization") != "Bearer "+hookToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.calls = append(r.calls, c)
	if r.answer != nil && r.answer(c, w) {
		return
	}
	key := q.Header.Get("Idempotency-Key")
	state := "done"
	switch c.Action {
	case "do":
		if r.did[key]++; r.did[key] == 1 {
			r.step(c)
		}
	case "look":
		if r.did[c.Rotation+"-"+string(c.Step)] == 0 {
			state = "not_done"
		}
	case "inspect":
		if r.now != c.OldVersion {
			state = "elsewhere"
		}
	}
	_ = json.NewEncoder(w).Encode(kinds.Reply{State: state}) // to a test
}

func (r *rotator) step(c kinds.Call) {
	switch c.Step {
	case "apply":
		r.valid[c.Version] = c.Rotation
	case "promote":
		r.now = c.Version
	case "retire":
		delete(r.valid, c.OldVersion)
	case "clean":
		if c.GivenUp {
			delete(r.valid, c.Version)
		}
	}
}

func (r *rotator) given() (value any, version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now, r.now
}

func (r *rotator) works(value any) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	version, _ := value.(uint64)
	return r.valid[version] != ""
}

func (r *rotator) good() (versions []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for v := range r.valid {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	return versions
}

func (r *rotator) twice() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, times := range r.did {
		if times > 1 && !strings.HasSuffix(key, "-prove") { // a proof changes nothing, and is simply made again
			n++
		}
	}
	return n
}

func (r *rotator) set(change func(*rotator)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// plainClient reaches what a test serves on loopback.
type plainClient struct{ *http.Client }

func (plainClient) CheckURL(u *url.URL) error {
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return net.InvalidAddrError("not on loopback")
	}
	return nil
}

func (c plainClient) Close() { c.CloseIdleConnections() }

func loopbackOnly([]string, string) (kinds.Doer, error) {
	return plainClient{&http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}}, nil
}
