package broker

import (
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// Document is the configuration as an operator writes it: YAML, every key
// optional unless it says otherwise. Each key but a list can also be set by an
// environment variable, see Variables. It holds no secret, only names of files.
type Document struct {
	Issuer      string      `yaml:"issuer" help:"the broker's URL as clients see it, the iss of its tokens; required"`
	Listen      string      `yaml:"listen" help:"address of the public listener"`
	Proxies     string      `yaml:"trusted_proxies" help:"CIDRs, separated by commas, whose X-Forwarded-For is believed"`
	TLS         TLS         `yaml:"tls"`
	Ops         Ops         `yaml:"ops"`
	Check       Checks      `yaml:"check"`
	DataDir     string      `yaml:"data_dir" help:"folder of the store, mode 0700; required"`
	KEKFile     string      `yaml:"kek_file" help:"file with the key-encryption key, mode 0600; this or kek_vault_key is required"`
	KEKVaultKey string      `yaml:"kek_vault_key" help:"name of a Transit key of Vault, type aes256-gcm96, as key-encryption key instead"`
	KEKMount    string      `yaml:"kek_vault_mount" help:"path of the Transit engine with kek_vault_key"`
	Writer      string      `yaml:"writer" help:"name of this broker in the audit chains"`
	Signing     Signing     `yaml:"signing"`
	Vault       Vault       `yaml:"vault"`
	Leases      Leases      `yaml:"leases"`
	Secrets     Secrets     `yaml:"secrets"`
	Limits      Limits      `yaml:"limits"`
	Audit       Audit       `yaml:"audit"`
	Timeouts    Timeouts    `yaml:"timeouts"`
	Log         Log         `yaml:"log"`
	Development Development `yaml:"development"`
}

// TLS names the certificate of the public listener. Both files or none; they
// are read again when they change.
type TLS struct {
	CertFile string `yaml:"cert_file" help:"PEM file with the certificate chain of the public listener"`
	KeyFile  string `yaml:"key_file" help:"PEM file with its private key"`
}

// Ops is the listener for probes and metrics.
type Ops struct {
	Listen string `yaml:"listen" help:"address of /healthz, /readyz and /metrics; empty: only the socket in the data folder"`
}

// Signing is how access tokens are signed and how the keys rotate.
type Signing struct {
	Home        string        `yaml:"home" help:"sealed (the broker signs, with keys sealed under the key-encryption key) or vault-transit (Vault signs); a change is an ordinary rotation"`
	Algorithm   string        `yaml:"algorithm" help:"ES256, EdDSA or RS256; a change takes effect with the next new key"`
	RotateEvery time.Duration `yaml:"rotate_every" help:"how long a key signs, 1h to 8760h"`
	JWKSMaxAge  time.Duration `yaml:"jwks_max_age" help:"how long verifiers may cache the key set, 30s to 1h"`
	VaultMount  string        `yaml:"vault_mount" help:"path of Vault's Transit engine, for home: vault-transit"`
	VaultPrefix string        `yaml:"vault_key_prefix" help:"Transit keys are called this and -es256, -eddsa or -rs256; no two brokers may share one"`
}

// Limits bound what one client, or all of them, can take.
type Limits struct {
	Connections           int `yaml:"connections" help:"connections open at a time on the public listener, 1 to 1000000"`
	ConnectionsPerAddress int `yaml:"connections_per_address" help:"of these, from one IPv4 address or IPv6 /64 that is no trusted proxy"`
	AccountPerSecond      int `yaml:"account_per_second" help:"token requests of one account in a second, on average"`
	AccountBurst          int `yaml:"account_burst" help:"token requests of one account at once"`
	TenantPerSecond       int `yaml:"tenant_per_second" help:"tokens for one tenant in a second, on average"`
	TenantBurst           int `yaml:"tenant_burst" help:"tokens for one tenant at once"`
	FailuresPerSecond     int `yaml:"failures_per_second" help:"failed authentications from one IPv4 address or IPv6 /64 in a second, on average"`
	FailuresBurst         int `yaml:"failures_burst" help:"failed authentications from one such source at once"`
	AdminPerSecond        int `yaml:"admin_per_second" help:"calls of one operator to the admin interface in a second, on average"`
	AdminBurst            int `yaml:"admin_burst" help:"calls of one operator to the admin interface at once"`
}

// Audit is how long the audit log is kept and how often its heads are signed.
type Audit struct {
	Retention    time.Duration `yaml:"retention" help:"how long records are kept, at least 24h; 0: for ever"`
	HeadInterval time.Duration `yaml:"head_interval" help:"how often the heads of changed chains are signed, 1s to 1h"`
}

// Timeouts of the public listener.
type Timeouts struct {
	ReadHeader time.Duration `yaml:"read_header" help:"for the headers of a request"`
	Read       time.Duration `yaml:"read" help:"for a whole request, its body included"`
	Write      time.Duration `yaml:"write" help:"for the answer, from the end of the headers"`
	Idle       time.Duration `yaml:"idle" help:"for the next request on an open connection"`
	Shutdown   time.Duration `yaml:"shutdown" help:"for requests in flight when the broker stops"`
}

// Log is what is logged to standard error.
type Log struct {
	Level  string `yaml:"level" help:"debug, info, warn or error; read again on SIGHUP"`
	Format string `yaml:"format" help:"text or json"`
}

// Development holds what no broker in production needs.
type Development struct {
	AllowLoopbackHTTP bool `yaml:"allow_loopback_http" help:"trusted issuers may be fetched by http on loopback"`
	InsecurePlainHTTP bool `yaml:"insecure_plain_http" help:"serve plain HTTP beyond loopback; for a TLS proxy on the same private network"`
}

// Default returns the document before anything is set: what a key that is
// absent means.
func Default() Document {
	return Document{
		Listen:   "127.0.0.1:8443",
		Ops:      Ops{Listen: "127.0.0.1:9090"},
		Writer:   "broker",
		KEKMount: keys.DefaultTransitMount,
		Signing: Signing{
			Home: keys.SealedHome, VaultMount: keys.DefaultTransitMount, VaultPrefix: keys.DefaultTransitPrefix,
			Algorithm:   "ES256",
			RotateEvery: 30 * 24 * time.Hour,
			JWKSMaxAge:  5 * time.Minute,
		},
		Vault:   Vault{Timeout: 5 * time.Second},
		Leases:  Leases{Settle: 100 * time.Second},
		Secrets: defaultSecrets(),
		Limits: Limits{
			Connections:           4096,
			ConnectionsPerAddress: 1024,
			AccountPerSecond:      500,
			AccountBurst:          1000,
			TenantPerSecond:       1000,
			TenantBurst:           2000,
			FailuresPerSecond:     20,
			FailuresBurst:         200,
			AdminPerSecond:        50,
			AdminBurst:            200,
		},
		Audit: Audit{
			Retention:    400 * 24 * time.Hour,
			HeadInterval: time.Minute,
		},
		Timeouts: Timeouts{
			ReadHeader: 5 * time.Second,
			Read:       10 * time.Second,
			Write:      15 * time.Second,
			Idle:       90 * time.Second,
			Shutdown:   20 * time.Second,
		},
		Log: Log{Level: "info", Format: "text"},
	}
}
