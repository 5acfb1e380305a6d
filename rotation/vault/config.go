package vault

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of Config.Timeout.
const (
	DefaultTimeout = 5 * time.Second
	MinTimeout     = 100 * time.Millisecond
	MaxTimeout     = time.Minute
)

// Config says which Vault, and who the broker is there. It holds names of
// files, no secret.
type Config struct {
	// Address is Vault's URL: scheme and host, and a path if a proxy wants
	// one. http is for loopback only.
	Address string
	// CAFile is a PEM file with the authorities that Vault's certificate is
	// held to; empty: those of the system.
	CAFile string
	// ServerName is the name in Vault's certificate where it isn't the host of
	// Address.
	ServerName string
	// Namespace is where the login happens and, unless Client.Namespace says
	// otherwise, each call (Vault Enterprise). Empty: the root namespace.
	Namespace string
	// Timeout bounds each call; DefaultTimeout if zero.
	Timeout time.Duration
	// Login is how the broker signs in; required.
	Login Login

	Now        func() time.Time      // default time.Now
	Logger     *slog.Logger          // default: none
	Registerer prometheus.Registerer // of the metrics; nil: none
}

// Login is a way to sign in: Token, TokenFile, AppRole, Kubernetes, JWT or
// Certificate.
type Login interface {
	method() string
	check() error
	// signIn gets a token. own says that it was made for us by that.
	signIn(ctx context.Context, k *core) (got auth, own bool, err error)
}

// ConfigError says which field of a Config can't be, and why. It is ErrConfig.
type ConfigError struct {
	Field string // address, ca_file, namespace, timeout, login or mount
	Msg   string
}

// Error implements error.
func (e *ConfigError) Error() string { return ErrConfig.Error() + ": " + e.Field + ": " + e.Msg }

// Is reports whether target is ErrConfig.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// Validate reports what can't be in a configuration, as a *ConfigError. It
// looks at no file.
func (c Config) Validate() error {
	if err := checkAddress(c.Address); err != nil {
		return err
	}
	if c.Login == nil {
		return &ConfigError{"login", "required"}
	}
	if err := c.Login.check(); err != nil {
		return err
	}
	if len(c.Namespace) > maxNamespace || strings.ContainsFunc(c.Namespace, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return &ConfigError{"namespace", fmt.Sprintf("at most %d printable characters", maxNamespace)}
	}
	if c.Timeout != 0 && (c.Timeout < MinTimeout || c.Timeout > MaxTimeout) {
		return &ConfigError{"timeout", fmt.Sprintf("%s to %s", MinTimeout, MaxTimeout)}
	}
	return nil
}

// CheckFiles reports what is wrong with the files that a configuration names.
func (c Config) CheckFiles() error {
	if _, err := newTransport(c); err != nil {
		return err
	}
	if login, ok := c.Login.(interface{ checkFiles() error }); ok {
		return login.checkFiles()
	}
	return nil
}

func (c *Config) complete() error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return &ConfigError{"address", "not a URL such as https://vault.example:8200"}
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return &ConfigError{"address", "no user, query or fragment"}
	}
	switch u.Scheme {
	case "https":
	case "http":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return &ConfigError{"address", "http is for loopback only, since a token travels on it"}
		}
	default:
		return &ConfigError{"address", "https, or http on loopback"}
	}
	return nil
}

// maxNamespace bounds the path of a namespace.
const maxNamespace = 256

// minTLS is the oldest version of TLS that is spoken.
const minTLS = tls.VersionTLS12
