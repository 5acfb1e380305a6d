package devvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
)

// configure writes the configuration of one with file storage.
func (s *Server) configure() (err error) {
	if s.ca, err = newAuthority(); err != nil {
		return err
	}
	if s.client.Transport, err = s.ca.transport(); err != nil {
		return err
	}
	cert, key, err := s.ca.server()
	if err != nil {
		return err
	}
	config := map[string]any{
		"storage": map[string]any{"file": map[string]any{"path": s.path("storage")}},
		"listener": map[string]any{"tcp": map[string]any{
			"address":       s.port.Address(),
			"tls_cert_file": s.path("cert.pem"),
			"tls_key_file":  s.path("key.pem"),
		}},
		"api_addr":      s.URL(),
		"disable_mlock": true,
		"ui":            false,
	}
	maps.Copy(config, s.opts.Config)
	raw, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"config.json": raw, "cert.pem": cert, "key.pem": key, "ca.pem": s.ca.pem} {
		if err := os.WriteFile(s.path(name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// initialise makes the storage's keys, unseals, and turns the audit device on.
func (s *Server) initialise(ctx context.Context) error {
	made, err := s.do(ctx, "", http.MethodPut, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	if err != nil {
		return err
	}
	keys, _ := made["keys_base64"].([]any)
	token, _ := made["root_token"].(string)
	if len(keys) != 1 || token == "" {
		return errors.New("devvault: vault was initialised without one key and a root token")
	}
	s.mu.Lock()
	s.rootToken = token
	s.unsealKey, _ = keys[0].(string)
	s.mu.Unlock()
	if err := s.Unseal(ctx); err != nil {
		return err
	}
	_, err = s.Do(ctx, http.MethodPut, "sys/audit/file", map[string]any{
		"type": "file", "options": map[string]any{"file_path": s.AuditLog()},
	})
	return err
}

// Seal seals the Vault: it answers, and gives nothing out.
func (s *Server) Seal(ctx context.Context) error {
	if s.opts.Dev {
		return errors.New("devvault: a -dev vault is not sealed: its key is not kept")
	}
	_, err := s.Do(ctx, http.MethodPut, "sys/seal", nil)
	return err
}

// Unseal unseals it, and waits until it is active.
func (s *Server) Unseal(ctx context.Context) error {
	s.mu.Lock()
	key := s.unsealKey
	s.mu.Unlock()
	if key == "" {
		return errors.New("devvault: there is no key to unseal with")
	}
	if _, err := s.do(ctx, "", http.MethodPut, "sys/unseal", map[string]any{"key": key}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience)
	defer cancel()
	return s.await(ctx, s.running(), func(h Health) bool { return h.Initialized && !h.Sealed && !h.Standby })
}

// Copy is a copy of the storage, to roll back to.
type Copy struct{ folder string }

// CopyStorage copies the storage as it is now. The process stands still
// meanwhile, so that the copy is of one moment.
func (s *Server) CopyStorage() (_ Copy, err error) {
	if s.opts.Dev {
		return Copy{}, errors.New("devvault: a -dev vault has no storage")
	}
	if err := s.Freeze(); err != nil {
		return Copy{}, err
	}
	defer func() { err = errors.Join(err, s.Thaw()) }()
	folder, err := os.MkdirTemp(s.folder.Path(), "copy-")
	if err != nil {
		return Copy{}, err
	}
	return Copy{folder: folder}, os.CopyFS(folder, os.DirFS(s.path("storage")))
}

// RollBack puts the storage back to what it was when the copy was taken, as an
// operator does who restores a backup, and restarts the Vault unsealed.
func (s *Server) RollBack(ctx context.Context, to Copy) error {
	s.Kill()
	if err := os.RemoveAll(s.path("storage")); err != nil {
		return err
	}
	if err := os.CopyFS(s.path("storage"), os.DirFS(to.folder)); err != nil {
		return fmt.Errorf("devvault: roll back: %w", err)
	}
	return s.Restart(ctx)
}
