package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Environment variables.
const (
	envConfig  = "BROKERCTL_CONFIG"
	envContext = "BROKERCTL_CONTEXT"
)

var errNoContext = errors.New("not signed in to any broker")

// settings are the contexts in which commands run. No secret is in them: only
// where the key lies.
type settings struct {
	Current  string              `yaml:"current"`
	Contexts map[string]*profile `yaml:"contexts"`
}

// profile is one identity at one broker. Exactly one of the three files is set.
type profile struct {
	Issuer            string `yaml:"issuer"`
	Account           string `yaml:"account,omitempty"`
	KeyFile           string `yaml:"key_file,omitempty"`
	PlatformTokenFile string `yaml:"platform_token_file,omitempty"`
	SecretFile        string `yaml:"client_secret_file,omitempty"`
	CAFile            string `yaml:"ca_file,omitempty"`
	Tenant            string `yaml:"tenant,omitempty"` // the one that bounds the operator; empty: system
}

func (a *app) settingsPath() (string, error) {
	if a.configPath != "" {
		return a.configPath, nil
	}
	if p := a.getenv(envConfig); p != "" {
		return p, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the contexts: %w; set $%s", err, envConfig)
	}
	return filepath.Join(dir, "tenantbroker", "config.yaml"), nil
}

// loadSettings reads the contexts; a missing file is an empty one.
func (a *app) loadSettings() (*settings, error) {
	path, err := a.settingsPath()
	if err != nil {
		return nil, err
	}
	s := &settings{Contexts: map[string]*profile{}}
	data, err := readUnshared(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, p := range s.Contexts {
		if p == nil {
			return nil, fmt.Errorf("%s: context %q is empty", path, name)
		}
	}
	return s, nil
}

// readUnshared reads a file that only its owner can write: whoever can change
// the contexts chooses which broker gets the proof of identity, and whom it trusts.
func readUnshared(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others could have changed which broker you sign in to; look through it, then run chmod 600 on it", path, mode)
	}
	return io.ReadAll(f)
}

// saveSettings replaces the file in one step; nobody else can read it.
func (a *app) saveSettings(s *settings) (string, error) {
	path, err := a.settingsPath()
	if err != nil {
		return "", err
	}
	data, err := yaml.Marshal(s)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return path, nil
}

// profile returns the context to use: --context, $BROKERCTL_CONTEXT, or the
// current one.
func (a *app) profile() (string, *profile, error) {
	s, err := a.loadSettings()
	if err != nil {
		return "", nil, err
	}
	name := a.contextName
	if name == "" {
		name = a.getenv(envContext)
	}
	if name == "" {
		name = s.Current
	}
	if name == "" {
		return "", nil, errNoContext
	}
	p, ok := s.Contexts[name]
	if !ok {
		return "", nil, usageError{fmt.Errorf("there is no context %q: see brokerctl context list", name)}
	}
	return name, p, nil
}

// bound returns the tenant of the operator's own tokens.
func (p *profile) bound() (credential.Tenant, error) {
	if p.Tenant == "" {
		return credential.System, nil
	}
	return credential.ParseTenant(p.Tenant)
}

func (s *settings) names() []string {
	names := make([]string, 0, len(s.Contexts))
	for name := range s.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
