package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// dueBroker signs with Vault, rotates two shared secrets there, and leases them
// and users of a database.
type dueBroker struct {
	*vaultBroker
	v               *testVault
	databases       *dueDatabases
	database        string
	leases          string // the grant that they are leased with
	reader, watcher string // tokens, of the secrets' consumer and an operator
}

// dueSecret is a shared secret, which its consumer leases by its id.
type dueSecret struct{ id, kind, path, spec string }

// teller is the account whose client secret rotates.
const teller = "teller"

var (
	dueMail    = dueSecret{"mail", "kv", "tenants/" + acme + "/mail", `{"path":"tenants/` + acme + `/mail"}`}
	dueLogin   = dueSecret{"login", "client-secret", "tenants/" + acme + "/login", `{"path":"tenants/` + acme + `/login","account":"` + teller + `"}`}
	dueSecrets = []dueSecret{dueMail, dueLogin}
)

const dueTargets = `targets:
  - {kind: kv, name: mail, mount: secret, path: "tenants/{tenant}/mail"}
  - {kind: kv, name: login, mount: secret, path: "tenants/{tenant}/login"}
  - {kind: database, name: orders, mount: database, connection: orders, base_role: orders_app, ttl: 10m, max_ttl: 10m}
`

func newDueBroker(t *testing.T, databases *dueDatabases) *dueBroker {
	t.Helper()
	v := newTestVault(t)
	targets := filepath.Join(t.TempDir(), "leases.yaml")
	v.must(os.WriteFile(targets, []byte(dueTargets), 0o600))
	d := &dueBroker{v: v, databases: databases, database: databases.connect(t, v)}
	d.vaultBroker = newVaultBroker(t, v, keys.TransitHome, brokertest.Configure(func(doc *broker.Document) {
		doc.Leases.TargetsFile, doc.Leases.Settle = targets, 10*time.Second
		doc.Vault.Timeout = 3 * time.Second // what is late is asked for again, and requests are counted
		doc.Limits.AdminPerSecond, doc.Limits.AdminBurst = 1000, 1000
	}))
	d.leases = d.GrantTerms(leasingGrant(d.Issuer()))
	d.Account(teller)
	d.Grant(teller, orders, read, acme)
	for _, s := range dueSecrets {
		_, err := d.Internal().Secrets().Create(t.Context(), d.By(), secrets.Secret{
			ID: s.id, Kind: s.kind, Spec: json.RawMessage(s.spec), Tenant: credential.MustTenant(acme),
			Owner: credential.MustAccountID(orders), Consumers: []credential.AccountID{credential.MustAccountID(mailer)},
			MaxAge: secrets.Duration(24 * time.Hour), Overlap: secrets.Duration(secrets.MinOverlap),
		})
		v.must(err)
	}
	d.signIn()
	for _, s := range dueSecrets {
		v.must(d.Internal().Secrets().Rotate(t.Context(), d.By(), s.id, 0, false))
		d.awaitRotated(t, s, 1)
	}
	return d
}

// signIn gets tokens while there are any: what is asked for under a fault is
// asked with these.
func (d *dueBroker) signIn() {
	d.reader, d.watcher = d.TokenFor(mailer, d.Issuer().Leases().String(), acme), d.AdminToken()
}

// counted is all that must have grown by one, or not at all.
type counted struct {
	keys, rotates int // versions in Vault, and requests that make one
	mail, login   countedSecret
	stepsFailed   float64
}

type countedSecret struct {
	values                     int    // versions in Vault
	version                    uint64 // the broker's
	stages, publishes          int    // requests that make one
	rotations, rotationsFailed float64
}

// more is what one rotation makes of it.
func (c *countedSecret) more() {
	c.values++
	c.version++
	c.stages++
	c.publishes++
	c.rotations++
}

func (d *dueBroker) count(t *testing.T) counted {
	t.Helper()
	return counted{
		keys:        d.v.versions(t.Context(), transitKey),
		rotates:     d.proxy.Calls(writes("transit/keys/" + transitKey + "/rotate")),
		mail:        d.countSecret(t, dueMail),
		login:       d.countSecret(t, dueLogin),
		stepsFailed: d.failures(t),
	}
}

func (d *dueBroker) countSecret(t *testing.T, s dueSecret) countedSecret {
	t.Helper()
	current, _ := d.liveValues(t, s)
	return countedSecret{
		values: current, version: d.secret(t, s).Version,
		stages:          d.proxy.Calls(writes("secret/data/" + s.path + ".next")),
		publishes:       d.proxy.Calls(writes("secret/data/" + s.path)),
		rotations:       d.metric(t, `tenantbroker_secret_rotations_total{kind="`+s.kind+`",outcome="succeeded"}`),
		rotationsFailed: d.metric(t, `tenantbroker_secret_rotations_total{kind="`+s.kind+`",outcome="failed"}`),
	}
}

func writes(path string) func(method, at string) bool {
	return func(method, at string) bool { return at == path && method != http.MethodGet }
}

// awaitRotated leases the value as its consumer does until it is at a version
// and the rotation has ended.
func (d *dueBroker) awaitRotated(t *testing.T, s dueSecret, version uint64) {
	t.Helper()
	await(t, fmt.Sprintf("version %d of the secret %s", version, s.id), func() bool {
		if st := d.secret(t, s); st.Attempt == nil && st.Asked == nil && st.Version >= version {
			return true
		} else if st.Attempt != nil && st.Attempt.Step == secrets.Drain {
			d.lease(t, s)
		}
		return false
	})
}

func (d *dueBroker) secret(t *testing.T, s dueSecret) secrets.Status {
	t.Helper()
	st, err := d.Internal().Secrets().Get(t.Context(), d.By(), s.id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// key is the id of the key in a state; "" if there is none.
func (d *dueBroker) key(t *testing.T, state keys.State) (id string) {
	t.Helper()
	for _, k := range d.Internal().Keys().List() {
		if k.State == state {
			if id != "" {
				t.Errorf("two keys are %s", state)
			}
			id = k.ID
		}
	}
	return id
}

// report is what GET /v1/report says of the value in KV: what doctor reads.
func (d *dueBroker) report(t *testing.T) (mail wire.SharedSecretReport) {
	t.Helper()
	status, _, body := d.call(t, http.MethodGet, "/v1/report", d.watcher, "")
	var r wire.Report
	if err := json.Unmarshal(body, &r); err != nil || status != http.StatusOK || r.SharedSecrets == nil {
		t.Fatalf("report: %d %v", status, err)
	}
	at := slices.IndexFunc(r.SharedSecrets.Items, func(s wire.SharedSecretReport) bool { return s.ID == dueMail.id })
	if at < 0 {
		return mail // not one that needs anybody's attention
	}
	return r.SharedSecrets.Items[at]
}
