package vault_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const leaseTargets = `
targets:
  - {kind: database, name: orders, mount: database, connection: orders, base_role: orders_app}
  - {kind: kv, name: mail, mount: secret, path: "tenants/{tenant}/mail"}
`

// runABroker: a whole broker with the AppRole of the set-up and no other right
// signs through Vault, seals with Vault, rotates shared secrets and makes leases,
// and Vault's audit device tells of nothing that it was refused.
func (w *world) runABroker() {
	b := w.broker()
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("mailer", "orders", "orders:read", "acme")
	b.TokenFor("mailer", "orders", "acme")

	w.rotateAll(b)
	w.leaseAll(b)
	w.alarms(b)

	var refused []string
	used := make(map[string]bool)
	for _, e := range w.audited() {
		if strings.Contains(e.Error, "permission denied") {
			refused = append(refused, e.Request.Operation+" "+e.Request.Path)
		}
		used[e.Request.Operation+" "+e.Request.Path] = true
	}
	if len(refused) > 0 {
		w.Errorf("refused: %v", refused)
	}
	for _, want := range []string{
		"update transit/sign/tenantbroker-es256", "read transit/keys/tenantbroker-es256", "update transit/encrypt/tenantbroker-kek",
		"update secret/data/tenants/acme/mail", "update secret/destroy/tenants/acme/mail",
		"update database/rotate-role/legacy-a", "read database/static-creds/legacy-b", "update sys/leases/revoke",
	} {
		if !used[want] {
			w.Errorf("the audit device saw no %s: is it still what the broker does?", want)
		}
	}
}

// broker starts a broker that logs in as the AppRole.
func (w *world) broker() *brokertest.Broker {
	w.Helper()
	roleID, secretID := w.appRole()
	targets := filepath.Join(w.TempDir(), "leases.yaml")
	if err := os.WriteFile(targets, []byte(leaseTargets), 0o600); err != nil {
		w.Fatal(err)
	}
	return brokertest.Start(w.T, brokertest.Configure(func(d *broker.Document) {
		d.Vault.Address, d.Vault.CAFile = w.URL(), w.CACert()
		d.Vault.Login, d.Vault.RoleID, d.Vault.SecretIDFile = "approle", roleID, secretID
		d.KEKVaultKey, d.Signing.Home = "tenantbroker-kek", "vault-transit"
		d.Leases.TargetsFile = targets
		d.Check.Listen, d.Check.Audiences = "127.0.0.1:0", "orders"
	}))
}

// rotateAll rotates a value in KV and a pair of database users, twice each.
func (w *world) rotateAll(b *brokertest.Broker) {
	w.Helper()
	b.AccountAt("acme-mailer", "acme")
	b.Account("legacy")
	w.root(http.MethodPost, "secret/data/tenants/acme/mail", map[string]any{"data": map[string]any{"value": "old", "user": "acme"}})
	w.create(b, wire.SecretTerms{
		ID: "mail", Kind: "kv", Spec: w.json(kinds.KVSpec{Path: "tenants/acme/mail"}), Tenant: credential.MustTenant("acme"),
		Owner: credential.MustAccountID("acme-mailer"), Consumers: []credential.AccountID{credential.MustAccountID("acme-mailer")},
		Overlap: "1ms",
	})
	w.create(b, wire.SecretTerms{
		ID: "legacy", Kind: "database-static-pair", Shared: true,
		Spec: w.json(kinds.StaticPairSpec{
			Roles:    [2]kinds.PairRole{{Role: "legacy-a", Username: "legacy_a"}, {Role: "legacy-b", Username: "legacy_b"}},
			Publish:  kinds.Place{Path: "shared/legacy"},
			Postgres: kinds.Postgres{Host: w.postgres.Host(), Port: w.postgres.Port(), Database: "orders", SSLMode: "disable"},
		}),
		Owner: credential.MustAccountID("legacy"), Consumers: []credential.AccountID{credential.MustAccountID("legacy")},
		Overlap: "1ms",
	})
	for range 2 {
		w.rotate(b, "mail", secrets.Consumer{Account: credential.MustAccountID("acme-mailer"), Tenant: credential.MustTenant("acme")})
		w.rotate(b, "legacy", secrets.Consumer{Account: credential.MustAccountID("legacy"), Tenant: credential.System})
	}
}

func (w *world) create(b *brokertest.Broker, terms wire.SecretTerms) {
	w.Helper()
	if _, err := b.Admin().Secrets().Create(w.Context(), wire.SecretCreate{SecretTerms: terms, Reason: "a test"}); err != nil {
		w.Fatal(err)
	}
}

// rotate rotates a secret to its end, with its one consumer.
func (w *world) rotate(b *brokertest.Broker, id string, consumer secrets.Consumer) {
	w.Helper()
	ctx, calls := w.Context(), b.Admin().Secrets()
	s, err := calls.Get(ctx, id)
	if err != nil {
		w.Fatal(err)
	}
	before := s.Status.Current
	if _, err := calls.Rotate(ctx, id, s.Version, false, "a test"); err != nil {
		w.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		s, err := calls.Get(ctx, id)
		if err != nil {
			w.Fatal(err)
		}
		st := s.Status
		if st.Drift != "" || st.Problem != "" || time.Now().After(deadline) {
			w.Fatalf("%s: version %d after %d, step %q, drift %q, problem %q, attempt %+v, last %+v", id, st.Current, before, st.Step, st.Drift, st.Problem, st.Attempt, st.Last)
		}
		if st.Attempt == nil && st.Current > before {
			return
		}
		if st.Step == string(secrets.Drain) {
			if _, err := b.Internal().Secrets().Ack(ctx, consumer, id, st.Current); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// leaseAll obtains, renews and gives back a database user, and leases a value.
func (w *world) leaseAll(b *brokertest.Broker) {
	w.Helper()
	b.Account("billing")
	b.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("billing"), Audience: b.Issuer().Leases(), Scopes: credential.MustScopes("database:orders kv:mail"),
		Tenants: []credential.Tenant{credential.MustTenant("acme")},
	})
	leases := b.Client("billing").Leases()
	for _, of := range []string{"database:orders", "kv:mail"} {
		what, err := credential.ParseLeasable(of)
		if err != nil {
			w.Fatal(err)
		}
		l, err := leases.Obtain(w.Context(), client.LeaseRequest{Tenant: credential.MustTenant("acme"), Of: what})
		if err != nil {
			w.Fatalf("%s: %v", of, err)
		}
		if l, err = leases.Renew(w.Context(), l); err != nil {
			w.Fatalf("%s: %v", of, err)
		}
		if err := leases.Release(w.Context(), l); err != nil {
			w.Fatalf("%s: %v", of, err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, err := range b.Admin().Leases().List(w.Context(), client.LeaseFilter{}) {
			if err != nil {
				w.Fatal(err)
			}
			left++
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%d leases are left", left)
		}
	}
}

// entry is a line of Vault's audit device, as far as it is of interest.
type entry struct {
	Type    string `json:"type"`
	Error   string `json:"error"`
	Request struct {
		Operation string `json:"operation"`
		Path      string `json:"path"`
	} `json:"request"`
	Auth struct {
		Policies []string `json:"policies"`
	} `json:"auth"`
}

// audited are the answers to what the broker's login asked.
func (w *world) audited() (all []entry) {
	w.Helper()
	f, err := os.Open(w.AuditLog())
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			w.Fatal(err)
		}
		if slices.Contains(e.Auth.Policies, "tenantbroker-session") {
			all = append(all, e)
		}
	}
	if err := lines.Err(); err != nil || len(all) == 0 {
		w.Fatal("the audit device has nothing of the broker", err)
	}
	return all
}

func (w *world) json(v any) json.RawMessage {
	w.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		w.Fatal(err)
	}
	return raw
}
