package devvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// Error is an answer of Vault that says no.
type Error struct {
	Method, Path string
	Status       int
	Messages     []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("devvault: %s %s: %d %s", e.Method, e.Path, e.Status, strings.Join(e.Messages, "; "))
}

// Health is what sys/health says of the server, whatever its status.
type Health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
}

// Health asks for the health.
func (s *Server) Health(ctx context.Context) (Health, error) { return s.health(ctx) }

func (s *Server) health(ctx context.Context) (h Health, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // of a frozen one nothing comes
	defer cancel()
	status, raw, err := s.call(ctx, "", http.MethodGet, "sys/health", nil)
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("devvault: health, status %d: %w", status, err)
	}
	return h, nil
}

// Do calls the API as root: the whole answer, or nil where there is none. The
// path is without v1, e.g. "transit/keys/broker".
func (s *Server) Do(ctx context.Context, method, path string, body any) (map[string]any, error) {
	return s.do(ctx, s.RootToken(), method, path, body)
}

// DoAs calls the API with another token; with "" without any.
func (s *Server) DoAs(ctx context.Context, token, method, path string, body any) (map[string]any, error) {
	return s.do(ctx, token, method, path, body)
}

// Mount turns a secrets engine on, e.g. "transit" at "transit", and waits until
// it takes requests: KV v2 refuses them at first. Options are the mount's, e.g.
// {"version": "2"}.
func (s *Server) Mount(ctx context.Context, kind, at string, options map[string]string) error {
	body := map[string]any{"type": kind, "options": options}
	if _, err := s.Do(ctx, http.MethodPost, "sys/mounts/"+at, body); err != nil {
		return err
	}
	if kind == "kv" && options["version"] == "2" {
		return s.awaitMount(ctx, at)
	}
	return nil
}

// awaitMount waits until KV v2 has made its own folders.
func (s *Server) awaitMount(ctx context.Context, at string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := s.Do(ctx, http.MethodGet, at+"/config", nil)
		said, refused := errors.AsType[*Error](err)
		if !refused || said.Status != http.StatusBadRequest || !strings.Contains(said.Error(), "pgrading") {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func (s *Server) do(ctx context.Context, token, method, path string, body any) (map[string]any, error) {
	status, raw, err := s.call(ctx, token, method, path, body)
	if err != nil {
		return nil, err
	}
	if status >= http.StatusBadRequest {
		var said struct {
			Errors []string `json:"errors"`
		}
		_ = json.Unmarshal(raw, &said) // without messages, the status says it
		return nil, &Error{Method: method, Path: path, Status: status, Messages: said.Errors}
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("devvault: %s %s: %w", method, path, err)
	}
	return answer, nil
}

func (s *Server) call(ctx context.Context, token, method, path string, body any) (status int, answer []byte, err error) {
	var sent io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		sent = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL()+"/v1/"+path, sent)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, err
}
