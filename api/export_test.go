package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// slowExport takes its time before each piece.
type slowExport struct{ pause time.Duration }

func (s slowExport) Export(_ context.Context, w io.Writer, _ credential.Tenant) error {
	for range 3 {
		time.Sleep(s.pause)
		if _, err := io.WriteString(w, "{}\n"); err != nil {
			return err
		}
	}
	return nil
}

func TestAnExportMayTakeLongerThanOtherAnswers(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", http2), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			token := w.rootToken()
			w.handler.export = slowExport{1200 * time.Millisecond}
			srv := httptest.NewUnstartedServer(w.handler)
			srv.Config.WriteTimeout = 3 * time.Second // which bounds the handshake, too
			srv.EnableHTTP2 = http2
			srv.StartTLS()
			defer srv.Close()
			req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v1/audit/export", nil))
			req.Header.Set("Authorization", "Bearer "+token)
			res := must[*http.Response](t)(srv.Client().Do(req))
			defer res.Body.Close() //nolint:errcheck // it was read
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != "{}\n{}\n{}\n" || (res.ProtoMajor == 2) != http2 {
				t.Errorf("%s: %q, %v", res.Proto, body, err)
			}
		})
	}
}

// pausedExport writes the header and waits for the client to go away.
type pausedExport struct{ ended chan error }

func (p pausedExport) Export(ctx context.Context, w io.Writer, _ credential.Tenant) error {
	if _, err := io.WriteString(w, "header\n"); err != nil {
		return err
	}
	<-ctx.Done()
	p.ended <- ctx.Err()
	return ctx.Err()
}

// Who wants the first line only gets it at once, and the export ends with it.
func TestTheFirstPieceOfAnExportIsSentAtOnce(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	for _, http2 := range []bool{false, true} {
		paused := pausedExport{make(chan error, 1)}
		w.handler.export = paused
		srv := httptest.NewUnstartedServer(w.handler)
		srv.EnableHTTP2 = http2
		srv.StartTLS()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/audit/export", nil))
		req.Header.Set("Authorization", "Bearer "+token)
		res := must[*http.Response](t)(srv.Client().Do(req))
		line := make([]byte, len("header\n"))
		if _, err := io.ReadFull(res.Body, line); err != nil || string(line) != "header\n" {
			t.Errorf("HTTP/2 %t: %q, %v", http2, line, err)
		}
		_ = res.Body.Close()
		select {
		case err := <-paused.ended:
			if err == nil {
				t.Errorf("HTTP/2 %t: the export went to its end", http2)
			}
		case <-ctx.Done():
			t.Errorf("HTTP/2 %t: the export goes on", http2)
		}
		cancel()
		srv.Close()
	}
}

// deadlines notes what the deadline is when a piece is written.
type deadlines struct {
	*httptest.ResponseRecorder
	now      time.Time
	deadline time.Duration
	writing  []time.Duration
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.deadline = at.Sub(d.now)
	return nil
}

func (d *deadlines) Write(p []byte) (int, error) {
	d.writing = append(d.writing, d.deadline)
	return d.ResponseRecorder.Write(p)
}

func TestADeadlineOfAnExportIsThatOfAPiece(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder(), now: time.Now()}
	e := &exportWriter{w: &response{ResponseWriter: d}, control: http.NewResponseController(d), now: func() time.Time { return d.now }}
	for range 2 {
		if _, err := io.WriteString(e, "{}\n"); err != nil {
			t.Fatal(err)
		}
		if d.deadline <= exportTime {
			t.Errorf("between two pieces it is cut off after %s", d.deadline)
		}
	}
	if !slices.Equal(d.writing, []time.Duration{exportStall, exportStall}) {
		t.Errorf("a client may stall for %v", d.writing)
	}
}
