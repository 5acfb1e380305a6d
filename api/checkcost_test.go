package api

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// unread is an answer that nobody reads.
type unread struct {
	header http.Header
	status int
}

func (u *unread) Header() http.Header         { return u.header }
func (u *unread) Write(b []byte) (int, error) { return len(b), nil }
func (u *unread) WriteHeader(status int)      { u.status = status }

// What a check of a token seen before allocates, its line in the log, its
// headers and the reading of the store included. make bench has the time.
func TestWhatACheckAllocates(t *testing.T) {
	const bound = 24 // 18, and some more with the race detector
	c := newChecking(t)
	standing, _ := c.config.Tokens.(*issuer.Issuer)
	cfg := c.checkConfig(standing)
	cfg.Logger, cfg.Metrics = slog.New(slog.NewTextHandler(io.Discard, nil)), nil
	h := must[http.Handler](t)(NewCheck(cfg))
	r := httptest.NewRequest(http.MethodGet, wire.PathCheck+"?audience=orders&scope=read&tenant=acme", nil)
	r.Header.Set("Authorization", "Bearer "+c.token())
	w := &unread{header: make(http.Header)}
	n := testing.AllocsPerRun(200, func() {
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			t.Errorf("%d", w.status)
		}
	})
	if n > bound {
		t.Errorf("%.0f allocations, at most %d", n, bound)
	}
}
