package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxHeaderBytes bounds a request's headers; more is answered with 431.
const maxHeaderBytes = 16 << 10

// maxStreams bounds the requests in flight on one HTTP/2 connection.
const maxStreams = 128

// httpServer is one listener and what answers on it.
type httpServer struct {
	name     string
	listener net.Listener
	server   *http.Server
	shutdown time.Duration
}

// newHTTPServer prepares a server; tlsConfig nil means plain HTTP.
func newHTTPServer(name string, l net.Listener, h http.Handler, t Timeouts, tlsConfig *tls.Config, logger *slog.Logger) *httpServer {
	return &httpServer{
		name:     name,
		listener: l,
		shutdown: t.Shutdown,
		server: &http.Server{
			Handler:           h,
			TLSConfig:         tlsConfig,
			ReadHeaderTimeout: t.ReadHeader,
			ReadTimeout:       t.Read,
			WriteTimeout:      t.Write,
			IdleTimeout:       t.Idle,
			MaxHeaderBytes:    maxHeaderBytes - 4096, // net/http adds that much
			// "OPTIONS *" goes to the handler too, which gives every answer its id.
			DisableGeneralOptionsHandler: true,
			HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			// net/http reports clients' broken handshakes and the like here.
			ErrorLog: slog.NewLogLogger(logger.With("listener", name).Handler(), slog.LevelDebug),
		},
	}
}

// Run serves until ctx ends, then lets the requests in flight finish, for at
// most the shutdown timeout.
func (s *httpServer) Run(ctx context.Context) error {
	// Requests outlive ctx: they are what shutdown waits for.
	requests, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	s.server.BaseContext = func(net.Listener) context.Context { return requests }

	var group errgroup.Group
	stopped := make(chan struct{})
	group.Go(func() error {
		defer close(stopped)
		err := s.serve()
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	group.Go(func() error {
		select {
		case <-stopped: // the listener failed
		case <-ctx.Done():
		}
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.shutdown)
		defer cancel()
		err := s.server.Shutdown(deadline)
		if errors.Is(err, context.DeadlineExceeded) {
			abort()
			err = errors.Join(errors.New(s.name+": requests were still in flight at the deadline"), s.server.Close())
		}
		return err
	})
	return group.Wait()
}

func (s *httpServer) serve() error {
	if s.server.TLSConfig != nil {
		return s.server.ServeTLS(s.listener, "", "")
	}
	return s.server.Serve(s.listener)
}
