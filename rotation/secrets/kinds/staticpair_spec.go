package kinds

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Limits of the spec of a pair.
const (
	maxUser  = 63  // bytes: PostgreSQL cuts what is longer
	maxQuery = 512 // bytes
	maxHost  = 253

	defaultPort     = 5432
	defaultDatabase = "database" // the mount
)

// StaticPairSpec is the spec of the kind database-static-pair.
type StaticPairSpec struct {
	Namespace string `json:"namespace,omitempty"` // Vault Enterprise
	Mount     string `json:"mount,omitempty"`     // of the database engine
	// Roles are the two static roles. Where nothing is published yet, the first
	// is taken for the one in use, so the second is rotated first.
	Roles    [2]PairRole `json:"roles"`
	Publish  Place       `json:"publish"` // where consumers read user and password
	Postgres Postgres    `json:"postgres"`
	// Query is one harmless statement that proves more than a login, such as
	// "SELECT 1 FROM app.orders LIMIT 1". It runs read-only.
	Query string `json:"query,omitempty"`
}

// PairRole is a static role of Vault and the user of PostgreSQL that it is for.
type PairRole struct {
	Role     string `json:"role"`
	Username string `json:"username"`
}

// Postgres says where a new password is proven.
type Postgres struct {
	Host     string `json:"host"`
	Port     int    `json:"port,omitempty"`
	Database string `json:"database"`
	// SSLMode is verify-full (the default), or disable, on loopback only.
	SSLMode string `json:"sslmode,omitempty"`
	CA      string `json:"ca,omitempty"` // certificates in PEM; empty: those of the system
}

// The values of Postgres.SSLMode.
const (
	sslVerifyFull = "verify-full"
	sslDisable    = "disable"
)

// readPair reads the spec strictly at each level, and fills in defaults.
func readPair(raw json.RawMessage) (StaticPairSpec, error) {
	outer := struct {
		Namespace string            `json:"namespace"`
		Mount     string            `json:"mount"`
		Roles     []json.RawMessage `json:"roles"`
		Publish   json.RawMessage   `json:"publish"`
		Postgres  json.RawMessage   `json:"postgres"`
		Query     string            `json:"query"`
	}{Mount: defaultDatabase}
	if err := readSpec(raw, &outer); err != nil {
		return StaticPairSpec{}, err
	}
	spec := StaticPairSpec{
		Namespace: outer.Namespace, Mount: outer.Mount, Query: outer.Query,
		Postgres: Postgres{Port: defaultPort, SSLMode: sslVerifyFull},
	}
	if len(outer.Roles) != len(spec.Roles) {
		return spec, registry.Invalid("spec.roles", "exactly two: while one is in use, the other gets a new password")
	}
	for i, r := range outer.Roles {
		if err := within("roles", readSpec(r, &spec.Roles[i])); err != nil {
			return spec, err
		}
	}
	if err := within("publish", readSpec(outer.Publish, &spec.Publish)); err != nil {
		return spec, err
	}
	return spec, within("postgres", readSpec(outer.Postgres, &spec.Postgres))
}

// within names the member of the spec in which something is wrong.
func within(member string, err error) error {
	var wrong *registry.InvalidError
	if !errors.As(err, &wrong) {
		return err
	}
	field, _ := strings.CutPrefix(wrong.Field, "spec")
	return registry.Invalid("spec."+member+field, "%s", wrong.Msg)
}

// check holds the spec to its rules.
func (s *StaticPairSpec) check(l Layout, about secrets.Subject) error {
	if err := checkPath("spec.mount", s.Mount, maxName); err != nil {
		return err
	}
	if err := checkNamespace(s.Namespace); err != nil {
		return err
	}
	for _, r := range s.Roles {
		if err := checkName("spec.roles.role", r.Role, maxName); err != nil {
			return err
		}
		if r.Username == "" || len(r.Username) > maxUser || strings.ContainsFunc(r.Username, unprintable) {
			return registry.Invalid("spec.roles.username", "1 to %d printable ASCII characters: the user of PostgreSQL that the role is for", maxUser)
		}
	}
	if s.Roles[0].Role == s.Roles[1].Role || s.Roles[0].Username == s.Roles[1].Username {
		return registry.Invalid("spec.roles", "two roles for two users: one user has one password")
	}
	if len(s.Query) > maxQuery {
		return registry.Invalid("spec.query", "at most %d bytes", maxQuery)
	}
	if _, err := s.Publish.check(l, about); err != nil {
		return within("publish", err)
	}
	return s.Postgres.check()
}

func unprintable(r rune) bool { return r <= ' ' || r > '~' }

func (p *Postgres) check() error {
	switch {
	case p.Host == "" || len(p.Host) > maxHost || strings.ContainsFunc(p.Host, notOfHosts):
		return registry.Invalid("spec.postgres.host", "one name or address")
	case p.Port < 1 || p.Port > 65535:
		return registry.Invalid("spec.postgres.port", "1 to 65535")
	case p.Database == "" || len(p.Database) > maxUser || strings.ContainsFunc(p.Database, unprintable):
		return registry.Invalid("spec.postgres.database", "1 to %d printable ASCII characters", maxUser)
	case p.SSLMode != sslVerifyFull && p.SSLMode != sslDisable:
		return registry.Invalid("spec.postgres.sslmode", "verify-full, or disable on loopback")
	case p.SSLMode == sslDisable && !loopback(p.Host):
		return registry.Invalid("spec.postgres.sslmode", "disable is for loopback only, since a password travels on it")
	case p.SSLMode == sslDisable && p.CA != "":
		return registry.Invalid("spec.postgres.ca", "is for verify-full")
	case p.CA != "" && authorities(p.CA) == nil:
		return registry.Invalid("spec.postgres.ca", "certificates in PEM, and nothing else")
	}
	return nil
}

// notOfHosts leaves letters, digits and what names and addresses have. No
// comma, which lists hosts, and no slash, which begins a socket.
func notOfHosts(r rune) bool {
	return r != ':' && unusual(r)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.Unmap().IsLoopback())
}

// server is the host in one spelling, as far as it can be known without asking
// anybody: whatever is on loopback is one machine's.
func (p *Postgres) server() string {
	host := strings.TrimSuffix(strings.ToLower(p.Host), ".")
	if loopback(host) {
		return "localhost"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

// authorities reads certificates; nil if there is anything else.
func authorities(text string) *x509.CertPool {
	pool, found := x509.NewCertPool(), false
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if !found || strings.TrimSpace(string(rest)) != "" {
				return nil
			}
			return pool
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil
		}
		pool.AddCert(c)
		found = true
	}
}

// resources are the two roles, the two users and the place: none of them has
// two secrets.
func (s *StaticPairSpec) resources(l Layout) []string {
	all := s.Publish.resources(l)
	for _, r := range s.Roles {
		all = append(all,
			"database-static::"+l.full(s.Namespace, s.Mount, r.Role),
			"postgres-user:"+s.Postgres.server()+":"+strconv.Itoa(s.Postgres.Port)+"/"+r.Username)
	}
	return all
}

// role returns a role of the pair by its name, and the other one.
func (s *StaticPairSpec) role(name string) (this, other PairRole, ok bool) {
	switch name {
	case s.Roles[0].Role:
		return s.Roles[0], s.Roles[1], true
	case s.Roles[1].Role:
		return s.Roles[1], s.Roles[0], true
	}
	return PairRole{}, PairRole{}, false
}

// Moved implements secrets.Moving: the user that consumers have stays of the pair,
// by whatever role, and is the one that isn't idle, wherever it was published.
func (*StaticPair) Moved(from, to json.RawMessage, kept secrets.Handle) (secrets.Handle, error) {
	var was, is StaticPairSpec
	if err := errors.Join(json.Unmarshal(from, &was), json.Unmarshal(to, &is)); err != nil {
		return nil, err
	}
	had, _, known := was.role(kept[handleRole])
	if !known {
		return nil, nil
	}
	now, still := is.byUser(had.Username)
	if !still {
		return nil, registry.Invalid("spec.roles", "%s is what consumers have, and nothing would end it: put another in the place of the idle user, rotate, and then in that of this one", had.Username)
	}
	return secrets.Handle{handleRole: now.Role}, nil
}

// byUser returns the role for a user.
func (s *StaticPairSpec) byUser(username string) (PairRole, bool) {
	for _, r := range s.Roles {
		if r.Username == username {
			return r, true
		}
	}
	return PairRole{}, false
}
