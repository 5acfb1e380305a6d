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

func (c *Config) complete() error {
	if err := checkAddress(c.Address); err != nil {
		return err
	}
	if c.Login == nil {
		return fmt.Errorf("%w: no way to log in", ErrConfig)
	}
	if err := c.Login.check(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrConfig, c.Login.method(), err)
	}
	if err := checkNamespace(c.Namespace); err != nil {
		return err
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Timeout < MinTimeout || c.Timeout > MaxTimeout {
		return fmt.Errorf("%w: timeout: %s to %s", ErrConfig, MinTimeout, MaxTimeout)
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
		return fmt.Errorf("%w: address: not a URL such as https://vault.example:8200", ErrConfig)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%w: address: no user, query or fragment", ErrConfig)
	}
	switch u.Scheme {
	case "https":
	case "http":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%w: address: http is for loopback only, since a token travels on it", ErrConfig)
		}
	default:
		return fmt.Errorf("%w: address: https, or http on loopback", ErrConfig)
	}
	return nil
}

// maxNamespace bounds the path of a namespace.
const maxNamespace = 256

func checkNamespace(ns string) error {
	if len(ns) > maxNamespace || strings.ContainsFunc(ns, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%w: namespace: at most %d printable characters", ErrConfig, maxNamespace)
	}
	return nil
}

// minTLS is the oldest version of TLS that is spoken.
const minTLS = tls.VersionTLS12
