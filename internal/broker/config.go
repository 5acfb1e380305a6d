package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// File names inside the data folder.
const (
	storeFile  = "store.db"
	socketFile = "ops.sock"
)

// maxWriter leaves room for what a restored store adds to the name.
const maxWriter = audit.MaxWriterLength - maxGeneration

// maxSocketPath is what fits into a socket's address on Linux.
const maxSocketPath = 107

// KeyError says which key of the configuration is wrong, and how.
type KeyError struct {
	Key string // e.g. tls.cert_file
	Msg string
}

func (e *KeyError) Error() string { return e.Key + ": " + e.Msg }

// Config is a configuration that has been validated. Only Validate makes one;
// the zero Config opens nothing.
type Config struct {
	doc       Document
	issuer    credential.IssuerURL
	algorithm credential.Algorithm
	level     slog.Level
	proxies   []netip.Prefix
	audiences []credential.Audience // that proxies may ask about
	mayAsk    proxyNames            // with certificates
	source    string                // the file it came from, "" if none
}

// Validate returns the validated configuration, or a *KeyError.
func (d Document) Validate() (Config, error) {
	c := Config{doc: d}
	for _, check := range []func() error{
		c.checkIssuer, c.checkListeners, c.checkCheck, c.checkFiles, c.checkSigning, c.checkVault, c.checkLeases, c.checkSecrets, c.checkLimits, c.checkTimes, c.checkLog,
	} {
		if err := check(); err != nil {
			return Config{}, err
		}
	}
	return c, nil
}

// Issuer returns the broker's URL.
func (c Config) Issuer() credential.IssuerURL { return c.issuer }

// DataDir returns the data folder.
func (c Config) DataDir() string { return c.doc.DataDir }

// Socket returns the path of the local socket for backups and probes.
func (c Config) Socket() string { return filepath.Join(c.doc.DataDir, socketFile) }

// StorePath returns the path of the store's file.
func (c Config) StorePath() string { return filepath.Join(c.doc.DataDir, storeFile) }

// Document returns the configuration in effect, defaults and overrides included.
func (c Config) Document() Document { return c.doc }

// YAML returns the configuration in effect as a document that Parse reads.
func (c Config) YAML() ([]byte, error) { return yaml.Marshal(c.doc) }

func (c *Config) checkIssuer() (err error) {
	if c.doc.Issuer == "" {
		return &KeyError{"issuer", "required"}
	}
	if c.issuer, err = credential.ParseIssuerURL(c.doc.Issuer); err != nil {
		return &KeyError{"issuer", err.Error()}
	}
	return nil
}

// minProxyBits bounds a network of trusted proxies: 10.0.0.0/8 is the widest
// that an organization has.
const minProxyBits = 8

func (c *Config) checkListeners() error {
	if err := checkAddress(c.doc.Listen); err != nil {
		return &KeyError{"listen", err.Error()}
	}
	if (c.doc.TLS.CertFile == "") != (c.doc.TLS.KeyFile == "") {
		return &KeyError{"tls.cert_file", "goes with tls.key_file: both or none"}
	}
	if c.doc.TLS.CertFile == "" && !loopback(c.doc.Listen) && !c.doc.Development.InsecurePlainHTTP {
		return &KeyError{"listen", "plain HTTP is for loopback only: set tls, or development.insecure_plain_http behind a TLS proxy"}
	}
	for cidr := range strings.SplitSeq(c.doc.Proxies, ",") {
		if cidr = strings.TrimSpace(cidr); cidr == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil || prefix != prefix.Masked() {
			return &KeyError{"trusted_proxies", fmt.Sprintf("%q is not a network such as 10.0.0.0/8", cidr)}
		}
		if prefix.Bits() < minProxyBits {
			return &KeyError{"trusted_proxies", fmt.Sprintf("%q is more than a network of proxies: whoever is in it can say that it is any client", cidr)}
		}
		c.proxies = append(c.proxies, prefix)
	}
	if c.doc.Ops.Listen != "" {
		if err := checkAddress(c.doc.Ops.Listen); err != nil {
			return &KeyError{"ops.listen", err.Error()}
		}
		if c.doc.Ops.Listen == c.doc.Listen && !anyPort(c.doc.Listen) {
			return &KeyError{"ops.listen", "must differ from listen"}
		}
	}
	return nil
}

func (c *Config) checkFiles() error {
	switch {
	case c.doc.DataDir == "":
		return &KeyError{"data_dir", "required"}
	case len(c.Socket()) > maxSocketPath:
		return &KeyError{"data_dir", fmt.Sprintf("at most %d bytes, since a socket is in it", maxSocketPath-len("/"+socketFile))}
	case c.doc.KEKFile == "" && c.doc.KEKVaultKey == "":
		return &KeyError{"kek_file", "this or kek_vault_key is required"}
	}
	if err := c.checkKEK(); err != nil {
		return err
	}
	if err := audit.CheckWriter(c.doc.Writer); err != nil || len(c.doc.Writer) > maxWriter {
		return &KeyError{"writer", fmt.Sprintf("1 to %d letters, digits and, after the first, _ . -", maxWriter)}
	}
	return nil
}

func (c *Config) checkSigning() error {
	if err := c.checkHome(); err != nil {
		return err
	}
	switch a := credential.Algorithm(c.doc.Signing.Algorithm); a {
	case credential.ES256, credential.EdDSA, credential.RS256:
		c.algorithm = a
	default:
		return &KeyError{"signing.algorithm", "ES256, EdDSA or RS256"}
	}
	if err := within("signing.rotate_every", c.doc.Signing.RotateEvery, time.Hour, 365*24*time.Hour); err != nil {
		return err
	}
	if err := within("signing.jwks_max_age", c.doc.Signing.JWKSMaxAge, 30*time.Second, time.Hour); err != nil {
		return err
	}
	if _, err := c.policy(Deps{}).Rules(); err != nil {
		return &KeyError{"signing.rotate_every", err.Error()}
	}
	return nil
}

// policy is how the signing keys change.
func (c *Config) policy(deps Deps) keys.Policy {
	policy := keys.Policy{Algorithm: c.algorithm, Rotation: c.doc.Signing.RotateEvery, MaxAge: c.doc.Signing.JWKSMaxAge}
	if deps.Policy != nil {
		return deps.Policy(policy)
	}
	return policy
}

func (c *Config) checkLimits() error {
	l := c.doc.Limits
	for _, limit := range []struct {
		key string
		n   int
	}{
		{"limits.connections", l.Connections},
		{"limits.connections_per_address", l.ConnectionsPerAddress},
		{"limits.account_per_second", l.AccountPerSecond},
		{"limits.account_burst", l.AccountBurst},
		{"limits.tenant_per_second", l.TenantPerSecond},
		{"limits.tenant_burst", l.TenantBurst},
		{"limits.failures_per_second", l.FailuresPerSecond},
		{"limits.failures_burst", l.FailuresBurst},
		{"limits.admin_per_second", l.AdminPerSecond},
		{"limits.admin_burst", l.AdminBurst},
	} {
		if limit.n < 1 || limit.n > 1_000_000 {
			return &KeyError{limit.key, "1 to 1000000"}
		}
	}
	return nil
}

func (c *Config) checkTimes() error {
	if r := c.doc.Audit.Retention; r != 0 && r < 24*time.Hour {
		return &KeyError{"audit.retention", "at least 24h; 0: for ever"}
	}
	if err := within("audit.head_interval", c.doc.Audit.HeadInterval, time.Second, time.Hour); err != nil {
		return err
	}
	t := c.doc.Timeouts
	for _, timeout := range []struct {
		key string
		d   time.Duration
	}{
		{"timeouts.read_header", t.ReadHeader},
		{"timeouts.read", t.Read},
		{"timeouts.write", t.Write},
		{"timeouts.idle", t.Idle},
		{"timeouts.shutdown", t.Shutdown},
	} {
		if err := within(timeout.key, timeout.d, 100*time.Millisecond, 10*time.Minute); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkLog() error {
	level, err := parseLevel(c.doc.Log.Level)
	if err != nil {
		return &KeyError{"log.level", err.Error()}
	}
	c.level = level
	if f := c.doc.Log.Format; f != "text" && f != "json" {
		return &KeyError{"log.format", "text or json"}
	}
	return nil
}

func within(key string, d, least, most time.Duration) error {
	if d < least || d > most {
		return &KeyError{key, fmt.Sprintf("%s to %s", least, most)}
	}
	return nil
}

// checkAddress holds s to host:port; the host may be empty (all addresses).
func checkAddress(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || (n == 0 && port != "0") {
		return fmt.Errorf("port %q is not a number up to 65535", port)
	}
	return nil
}

// loopback reports whether only this machine reaches the address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func anyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == "0"
}
