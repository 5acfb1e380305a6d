package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/probe/strictyaml"
)

// Bounds of a description.
const (
	MaxDescription = 256 << 10 // bytes
	maxNodes       = 20_000    // values of the YAML, keys too
	maxDepth       = 40        // of its mappings and lists
	maxKeys        = 200       // of one mapping
	MaxObjects     = 50        // kinds of objects
	MaxAttempts    = 50        // for one kind
	MaxSteps       = 10        // before, after and for the cleaning up of one attempt
	maxText        = 4096      // bytes of a request line or a header
	maxForged      = 64        // bytes of a parameter or a member that names a tenant
)

// Description is a service and what to try with it, as it is written.
type Description struct {
	Service string  `yaml:"service"`
	BaseURL string  `yaml:"base_url"`
	CAFile  string  `yaml:"ca_file"`
	Tenants Tenants `yaml:"tenants"`
	Limits  Limits  `yaml:"limits"`
	// InsecureHTTP lets tokens go to another machine unencrypted.
	InsecureHTTP bool `yaml:"insecure_http"`
	// Forge are the places in which B names A's tenant. Absent: the headers
	// X-Tenant and X-Tenant-Id, and in what B makes the members tenant and tenant_id.
	Forge   *Forge   `yaml:"forge"`
	Objects []Object `yaml:"objects"`
}

// Tenants are the two whose boundary is tried.
type Tenants struct {
	A Credentials `yaml:"a"`
	B Credentials `yaml:"b"`
}

// Credentials are a tenant and where its token comes from: exactly one of the
// three.
type Credentials struct {
	Tenant    credential.Tenant `yaml:"tenant"`
	TokenFile string            `yaml:"token_file"`
	TokenEnv  string            `yaml:"token_env"`
	Broker    *Broker           `yaml:"broker"`
}

// Broker is where a token for the tenant is had, with an account's key.
type Broker struct {
	Issuer   credential.IssuerURL `yaml:"issuer"`
	Account  credential.AccountID `yaml:"account"`
	KeyFile  string               `yaml:"key_file"`
	Audience credential.Audience  `yaml:"audience"`
	Scope    credential.Scopes    `yaml:"scope"`
	CAFile   string               `yaml:"ca_file"`
}

// Object is a kind of object: how one is had, and what is tried with it.
type Object struct {
	Name string `yaml:"name"`
	// Create makes one; Find is where there are some already.
	Create *Origin `yaml:"create,omitempty"`
	Find   *Origin `yaml:"find,omitempty"`
	Read   string  `yaml:"read"`             // request for one, by {id}; {tenant} is who asks
	Delete string  `yaml:"delete,omitempty"` // request that cleans up
	// Reveals are JSON pointers (RFC 6901) into the answer to Read: values that
	// nobody but the owner has.
	Reveals []string `yaml:"reveals,omitempty"`
	// Shared objects may be read by everybody, and changed by their owner only.
	Shared bool `yaml:"shared,omitempty"`
	// MayDamage lets attempts that change, or may, go at objects that were found.
	MayDamage bool `yaml:"may_damage,omitempty"`
	// Plant false: B may put such objects where A sees them.
	Plant *bool     `yaml:"plant,omitempty"`
	Try   []Attempt `yaml:"try"`
}

// Origin is the request that makes or finds an object, and where in the answer
// its id is: a JSON pointer, or the last segment of Location where ID is empty.
type Origin struct {
	Step `yaml:",inline"`
	ID   string `yaml:"id,omitempty"`
}

// Step is one request.
type Step struct {
	As      string            `yaml:"as,omitempty"` // a or b, in before only
	Request string            `yaml:"request,omitempty"`
	Headers map[string]string `yaml:"headers,omitempty"`
	Body    any               `yaml:"body,omitempty"` // sent as JSON
	// Save keeps values of the answer under names, by JSON pointer, for later
	// requests of the same attempt.
	Save map[string]string `yaml:"save,omitempty"`
	// Until repeats the request until the value at a JSON pointer is this text,
	// for at most Wait (default 10 s).
	Until map[string]string `yaml:"until,omitempty"`
	Wait  time.Duration     `yaml:"wait,omitempty"`
}

// Attempt is what is tried with A's object.
type Attempt struct {
	Name string `yaml:"name"`
	Step `yaml:",inline"`
	// Changes says whether it would change or delete the object; absent: what PUT,
	// PATCH and DELETE do.
	Changes *bool `yaml:"changes,omitempty"`
	// Control false: not even A, or B with its own object, gets an answer here.
	Control *bool `yaml:"control,omitempty"`
	// Settle is how long A's own answer may take until it shows the object, as
	// with an index that is filled behind; at most 1 min.
	Settle  time.Duration `yaml:"settle,omitempty"`
	Before  []Step        `yaml:"before,omitempty"`
	Then    []Step        `yaml:"then,omitempty"`
	Cleanup []Step        `yaml:"cleanup,omitempty"` // as whoever made the attempt
	// Seen are requests by which A would be shown {planted}, a word that what the
	// attempt makes holds: others must not put it where A sees it.
	Seen []string `yaml:"seen,omitempty"`
}

// ParseDescription reads a description: YAML, one document of at most
// MaxDescription bytes, 20,000 values, 40 levels and 200 keys in one mapping,
// without a field that isn't known, anchors and aliases.
func ParseDescription(data []byte) (*Description, error) {
	d := new(Description)
	if err := strictyaml.Decode(data, strictyaml.Limits{Bytes: MaxDescription, Nodes: maxNodes, Depth: maxDepth, Keys: maxKeys}, d); err != nil {
		return nil, fmt.Errorf("probe: the description: %w", err)
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

var nameGrammar = regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,63}\z`)

// check fills in defaults and says what is wrong.
func (d *Description) check() error {
	if !nameGrammar.MatchString(d.Service) {
		return errors.New("probe: service is not a name of small letters, digits, _ and -")
	}
	if err := checkBase(d.BaseURL, d.InsecureHTTP); err != nil {
		return err
	}
	for _, c := range []struct {
		who string
		is  Credentials
	}{{"a", d.Tenants.A}, {"b", d.Tenants.B}} {
		if err := c.is.check(); err != nil {
			return fmt.Errorf("probe: tenants.%s: %w", c.who, err)
		}
	}
	if d.Tenants.A.Tenant == d.Tenants.B.Tenant {
		return errors.New("probe: tenants a and b are the same")
	}
	if err := d.Limits.check(); err != nil {
		return err
	}
	if d.Forge == nil {
		d.Forge = defaultForge()
	}
	if err := d.Forge.check(); err != nil {
		return fmt.Errorf("probe: forge: %w", err)
	}
	return d.checkObjects()
}

func (d *Description) checkObjects() error {
	if len(d.Objects) == 0 || len(d.Objects) > MaxObjects {
		return fmt.Errorf("probe: 1 to %d objects, not %d", MaxObjects, len(d.Objects))
	}
	var seen []string
	for i := range d.Objects {
		o := &d.Objects[i]
		if !nameGrammar.MatchString(o.Name) || slices.Contains(seen, o.Name) {
			return fmt.Errorf("probe: objects[%d]: %q is not a name of its own of small letters, digits, _ and -", i, o.Name)
		}
		seen = append(seen, o.Name)
		if err := o.Check(); err != nil {
			return fmt.Errorf("probe: object %s: %w", o.Name, err)
		}
	}
	return nil
}

// checkBase takes https, and http where no token leaves the machine.
func checkBase(base string, insecure bool) error {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(base) > maxText {
		return errors.New("probe: base_url is not a URL with a host, without user, query and fragment")
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && (insecure || loopback(u.Hostname())):
		return nil
	case u.Scheme == "http":
		return errors.New("probe: base_url: tokens would go unencrypted to another machine (https, or insecure_http: true)")
	}
	return errors.New("probe: base_url is neither https nor http")
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && address.IsLoopback()
}

func (c Credentials) check() error {
	given := 0
	for _, is := range []bool{c.TokenFile != "", c.TokenEnv != "", c.Broker != nil} {
		if is {
			given++
		}
	}
	switch {
	case c.Tenant.IsZero():
		return errors.New("no tenant")
	case given != 1:
		return errors.New("exactly one of token_file, token_env and broker")
	case c.Broker != nil && (c.Broker.Issuer.IsZero() || c.Broker.Account.IsZero() || c.Broker.Audience.IsZero() || c.Broker.KeyFile == ""):
		return errors.New("broker needs issuer, account, key_file and audience")
	}
	return nil
}

func checkHeader(name, value string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}):
		return fmt.Errorf("%q is not the name of a header", name)
	case canonical == "Authorization" || canonical == "Host" || canonical == "Content-Length" || canonical == "Transfer-Encoding":
		return fmt.Errorf("the header %s is the probe's own", canonical)
	case len(value) > maxText || strings.ContainsAny(value, "\r\n\x00"):
		return fmt.Errorf("the value of the header %s is too long, or more than one line", canonical)
	}
	return nil
}

// sameOrigin reports whether a URL leads where tokens may go.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	p, _ := net.LookupPort("tcp", u.Scheme)
	return fmt.Sprint(p)
}
